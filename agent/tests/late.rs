//! What a later inspection rejects counts when and where it was made: `gemba replay` and `gemba explain`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

const YAML: &str = r#"
site: fab-2
line: smt-1
timezone: UTC
shifts: [{ name: early, start: "06:00", end: "14:00" }, { name: late, start: "14:00", end: "22:00" }]
flow: { stations: [printer-1, aoi-1], oee: last }
stations:
  - name: printer-1
    source: { type: mqtt, endpoint: "mqtt://127.0.0.1:1", topics: [{ topic: printer }] }
    tags: [{ name: total, path: "$.total" }, { name: board, path: "$.board" }, { name: lot, path: "$.lot" }]
    context: { serial: { tag: board }, lot: { tag: lot } }
    oee:
      ideal_cycle_time: 10s
      total: { tag: total }
      late_rejects:
        - { from: aoi-1, by: serial, within: 10min }
        - { from: ict-1, by: lot }
  - name: aoi-1
    source: { type: mqtt, endpoint: "mqtt://127.0.0.1:1", topics: [{ topic: aoi }] }
    tags: [{ name: board, path: "$.board" }, { name: result, path: "$.result" }, { name: defects, path: "$.defects" }, { name: total, path: "$.total" }, { name: bad, path: "$.bad" }]
    context: { serial: { tag: board } }
    oee: { total: { tag: total }, reject: { tag: bad } }
    inspection:
      verdict: { tag: result, map: { PASS: pass, FAIL: fail } }
      defects: { tag: defects }
  - name: ict-1
    source: { type: mqtt, endpoint: "mqtt://127.0.0.1:1", topics: [{ topic: ict }] }
    tags: [{ name: lot, path: "$.lot" }, { name: bad, path: "$.bad" }]
    context: { lot: { tag: lot } }
    oee: { reject: { tag: bad } }
"#;

/// 14:00, when the early shift ends, in seconds after 06:00.
const END: i64 = 8 * 3600;

fn at(seconds: i64) -> String {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    (start + jiff::SignedDuration::from_secs(seconds)).to_string()
}

/// What the stations say, in the order in which it comes.
#[derive(Default)]
struct Told(Vec<Json>);

impl Told {
    fn say(&mut self, seconds: i64, station: &str, values: &[(&str, Json)]) {
        for (tag, value) in values {
            let reading = json!({"station": station, "tag": tag, "value": value, "source_time": at(seconds)});
            self.0.push(reading);
        }
    }

    /// A board each ten seconds from `from` on: it comes, and is counted eight seconds later. `lot` of all of them.
    fn print(&mut self, from: i64, boards: std::ops::Range<i64>, lot: &str) {
        for board in boards {
            let comes = from + board * 10;
            self.say(comes, "printer-1", &[("lot", json!(lot)), ("board", json!(format!("SN{board}")))]);
            self.say(comes + 8, "printer-1", &[("total", json!(board + 1))]);
        }
    }

    /// The inspection's word on a board.
    fn inspect(&mut self, seconds: i64, board: &str, result: &str, defects: &str) {
        let told = [("board", json!(board)), ("result", json!(result)), ("defects", json!(defects))];
        self.say(seconds, "aoi-1", &told);
    }

    /// The line from a minute before the end of the shift to a minute after it. The inspection sees each board 30 s after it
    /// came, and rejects the one that was counted 2 s before the end of the shift.
    fn shift_end() -> Self {
        let mut told = Self::default();
        told.say(END - 120, "printer-1", &[("total", json!(0))]);
        told.say(END - 120, "aoi-1", &[("total", json!(0)), ("bad", json!(0))]);
        told.print(END - 60, 0..12, "L1");
        for board in 0..12 {
            let result = if board == 5 { ("FAIL", "bridge") } else { ("PASS", "") };
            told.inspect(END - 30 + board * 10, &format!("SN{board}"), result.0, result.1);
            let counts = [("total", json!(board + 1)), ("bad", json!(i64::from(board >= 5)))];
            told.say(END - 30 + board * 10, "aoi-1", &counts);
        }
        told
    }

    fn gemba(&self, command: &[&str]) -> Output {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        fs::write(path("line.yaml"), YAML).expect("written");
        let lines: String = self.0.iter().map(|reading| format!("{reading}\n")).collect();
        fs::write(path("readings.jsonl"), lines).expect("written");
        let output = Command::new(env!("CARGO_BIN_EXE_gemba"))
            .args(&command[..1])
            .args(["--config".into(), path("line.yaml").into_os_string()])
            .args(&command[1..])
            .arg(path("readings.jsonl"))
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn report(&self) -> Json {
        serde_json::from_slice(&self.gemba(&["replay", "--format", "json"]).stdout).expect("JSON")
    }

    /// The periods of a station by shift.
    fn period(&self, station: &str, shift: &str) -> Json {
        let report = self.report();
        let periods = report["periods"].as_array().expect("a list");
        let found = periods.iter().find(|of| of["station"] == station && of["shift"] == shift);
        found.unwrap_or_else(|| panic!("no {shift} of {station} in {report:#}")).clone()
    }
}

fn losses(report: &Json) -> Vec<(String, i64)> {
    let losses = report["losses"].as_array().expect("a list");
    let loss =
        |loss: &Json| (loss["reason"].as_str().expect("a reason").to_owned(), loss["count"].as_i64().expect("a count"));
    losses.iter().map(loss).collect()
}

#[test]
fn a_board_counts_as_a_reject_in_the_shift_that_printed_it() {
    let told = Told::shift_end();
    let early = told.period("printer-1", "early");
    assert_eq!(
        (&early["kpi"]["total"], &early["kpi"]["good"], &early["kpi"]["reject"]),
        (&json!(6), &json!(5), &json!(1))
    );
    assert_eq!(early["defects"], json!({"bridge": 1.0}));
    assert_eq!(early["revision"], 1, "the shift had closed when the inspection saw it");
    let late = told.period("printer-1", "late");
    assert_eq!((&late["kpi"]["total"], &late["kpi"]["reject"]), (&json!(6), &json!(0)));
    let own = told.period("aoi-1", "late");
    assert_eq!(own["kpi"]["reject"], 1, "the inspection's rejects are its own");
    assert_eq!(losses(&told.report()), []);
}

#[test]
fn whoever_asks_is_told_who_rejected_it() {
    let told = Told::shift_end();
    let explain = ["explain", "--station", "printer-1", "--shift", "2026-03-02/early"];
    let text = String::from_utf8(told.gemba(&explain).stdout).expect("text");
    assert!(text.contains("not good, since rejected at aoi-1: 1 parts, bridge"), "{text}");
    let json = told.gemba(&[&explain[..], &["--format", "json"]].concat());
    let json: Json = serde_json::from_slice(&json.stdout).expect("JSON");
    let expected = json!([{"station": "aoi-1", "code": "bridge", "parts": 1}]);
    assert_eq!(json["waterfall"]["late_rejects"], expected);
}

#[test]
fn a_board_that_is_rejected_twice_counts_once_and_a_pass_gives_nothing_back() {
    let mut told = Told::shift_end();
    told.inspect(END + 200, "SN5", "FAIL", "tombstone");
    told.inspect(END + 220, "SN5", "PASS", "");
    told.inspect(END + 240, "SN6", "FAIL", "");
    told.inspect(END + 260, "SN7", "PASS", "");
    let early = told.period("printer-1", "early");
    assert_eq!(early["defects"], json!({"bridge": 1.0}));
    let late = told.period("printer-1", "late");
    assert_eq!(late["defects"], json!({"unspecified": 1.0}));
}

/// Of ten boards that the inspection saw in the late shift it rejected two, of which one was printed in it, too.
#[test]
fn in_the_rolled_yield_a_board_is_rejected_once() {
    let mut told = Told::shift_end();
    told.print(END, 12..13, "L1");
    told.inspect(END + 150, "SN12", "FAIL", "bridge");
    told.say(END + 150, "aoi-1", &[("total", json!(13)), ("bad", json!(2))]);
    told.inspect(END + 160, "SN13", "PASS", "");
    assert_eq!(told.period("printer-1", "late")["kpi"]["first_pass_yield"], 6.0 / 7.0);
    assert_eq!(told.period("aoi-1", "late")["kpi"]["first_pass_yield"], 0.8);
    let line = told.report()["line"].clone();
    let late = line.as_array().and_then(|line| line.iter().find(|of| of["shift"] == "late")).expect("the shift runs");
    assert_eq!(late["rolled_throughput_yield"], 0.8);
}

#[test]
fn a_board_that_nobody_printed_is_a_loss() {
    let mut told = Told::shift_end();
    told.inspect(END + 90, "SN99", "FAIL", "bridge");
    assert_eq!(losses(&told.report()), [], "it may still be told of");
    told.print(END + 700, 12..13, "L1");
    assert_eq!(losses(&told.report()), [("late reject at aoi-1 without its unit".to_owned(), 1)]);
    // Longer ago than `within`: not this board.
    let mut told = Told::shift_end();
    told.inspect(END + 900, "SN6", "FAIL", "bridge");
    told.print(END + 1600, 12..13, "L1");
    assert_eq!(losses(&told.report()), [("late reject at aoi-1 without its unit".to_owned(), 1)]);
    assert_eq!(told.period("printer-1", "late")["kpi"]["reject"], 0);
}

#[test]
fn rejects_by_lot_count_with_the_last_parts_that_were_made_of_it() {
    let mut told = Told::default();
    told.say(END - 120, "printer-1", &[("total", json!(0))]);
    told.say(END - 120, "ict-1", &[("bad", json!(0))]);
    told.print(END - 60, 0..5, "L1");
    told.print(END - 60, 5..9, "L2");
    told.say(END + 3600, "ict-1", &[("lot", json!("L1")), ("bad", json!(2))]);
    told.say(END + 3700, "ict-1", &[("lot", json!("L2")), ("bad", json!(3))]);
    told.say(END + 3700, "printer-1", &[("board", json!(""))]);
    let early = told.period("printer-1", "early");
    assert_eq!((&early["kpi"]["reject"], &early["revision"]), (&json!(2), &json!(1)));
    let late = told.period("printer-1", "late");
    assert_eq!((&late["kpi"]["total"], &late["kpi"]["reject"]), (&json!(3), &json!(1)));
    assert_eq!(late["defects"], json!({"unspecified": 1.0}));
}

/// The printer's link breaks before the end of the shift. Hours later its history tells what it printed meanwhile.
#[test]
fn a_printer_that_is_heard_hours_later_gets_its_rejects_then() {
    let whole = Told::shift_end();
    let mut told = Told::default();
    let lost = at(END - 25);
    for reading in whole.0 {
        let of_printer = reading["station"] == "printer-1" && reading["source_time"].as_str() >= Some(&*lost);
        let mut reading = reading;
        if of_printer {
            reading["received_time"] = json!(at(END + 10_000));
            reading["backfilled"] = json!(true);
        }
        told.0.push(reading);
    }
    for tag in ["total", "board", "lot"] {
        told.0.push(json!({"station": "printer-1", "tag": tag, "value": null, "validity": "bad", "status": "LinkLost",
            "source_time": lost, "received_time": at(END - 24)}));
    }
    let before = {
        let readings = told.0.iter().filter(|reading| reading["backfilled"] != true).cloned().collect();
        let mut told = Told(readings);
        told.say(END + 9_000, "aoi-1", &[("total", json!(12))]);
        told
    };
    assert_eq!(before.period("printer-1", "early")["kpi"]["reject"], 0);
    assert_eq!(losses(&before.report()), [], "its unit may be in what is not heard yet");
    let early = told.period("printer-1", "early");
    assert_eq!((&early["kpi"]["total"], &early["kpi"]["reject"]), (&json!(6), &json!(1)), "{early:#}");
    assert_eq!(early["defects"], json!({"bridge": 1.0}));
    assert_eq!(losses(&told.report()), []);
}
