//! Replays as a reader of `gemba replay --format json` sees them, against the rules. Published examples: vectors.rs.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};

/// A station with everything that is computed, in a plan of its own: `plan` is the YAML of `timezone` and `shifts`.
fn config(plan: &str, ideal_cycle_time: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    write!(
        file,
        r#"
site: fab-2
line: smt-1
{plan}
stations:
  - name: printer-1
    source: {{ type: modbus, endpoint: "tcp://127.0.0.1:1" }}
    tags:
      - {{ name: state, address: "holding:0", as: u16 }}
      - {{ name: total, address: "holding:1", as: u32 }}
      - {{ name: reject, address: "holding:3", as: u32 }}
    oee:
      ideal_cycle_time: {ideal_cycle_time}
      state: {{ tag: state, map: {{ 1: producing, 3: break, 4: setup, 5: down }} }}
      total: {{ tag: total }}
      reject: {{ tag: reject }}
  - name: printer-2
    source: {{ type: modbus, endpoint: "tcp://127.0.0.1:1", unit: 2 }}
    tags: [{{ name: state, address: "holding:0", as: u16 }}]
    oee: {{ state: {{ tag: state, map: {{ 1: producing }} }} }}
"#
    )
    .expect("written");
    file
}

const UTC: &str = r#"timezone: UTC
shifts:
  - { name: early, start: "06:00", end: "14:00", breaks: [{ start: "10:00", end: "11:00" }] }
  - { name: late, start: "14:00", end: "22:00" }
  - { name: night, start: "22:00", end: "06:00" }"#;

/// A good reading of `printer-1`, `seconds` after 2026-03-02T06:00:00Z, a Monday.
fn put(seconds: f64, tag: &str, value: impl Into<Json>) -> Json {
    json!({"station": "printer-1", "tag": tag, "value": value.into(), "source_time": at(seconds)})
}

fn lost(seconds: f64, tag: &str) -> Json {
    let mut reading = put(seconds, tag, Json::Null);
    reading["validity"] = "bad".into();
    reading
}

fn at(seconds: f64) -> String {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).expect("a span");
    (start + span.round(jiff::Unit::Millisecond).expect("rounded")).to_string()
}

/// What `gemba replay --format json` prints for these readings.
fn replay(config: &tempfile::NamedTempFile, readings: &[Json], more: &[&str]) -> Json {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gemba"))
        .args(["replay", "--format", "json", "--config"])
        .arg(config.path())
        .args(more)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines: String = readings.iter().map(|reading| format!("{reading}\n")).collect();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Station, shift, start, end and whether it is closed, of every period.
fn outline(report: &Json) -> Vec<(String, String, String, String, bool)> {
    let text = |value: &Json| value.as_str().expect("text").to_owned();
    let periods = report["periods"].as_array().expect("a list").iter();
    periods
        .map(|period| {
            let closed = period["closed"].as_bool().expect("true or false");
            (text(&period["station"]), text(&period["shift"]), text(&period["from"]), text(&period["to"]), closed)
        })
        .collect()
}

#[test]
fn one_period_a_station_and_shift_from_the_first_reading_to_the_last() {
    let mut second = put(30_000.0, "state", 1); // 14:20, in the late shift
    second["station"] = "printer-2".into();
    let readings = [put(3600.0, "state", 1), second, put(60_000.0, "state", 5)];
    let report = replay(&config(UTC, "1s"), &readings, &[]);
    let period = |station: &str, shift: &str, from: &str, to: &str, closed| {
        (station.to_owned(), shift.to_owned(), format!("2026-03-02T{from}Z"), format!("2026-03-02T{to}Z"), closed)
    };
    assert_eq!(
        outline(&report),
        [
            period("printer-1", "early", "07:00:00", "14:00:00", true),
            period("printer-1", "late", "14:00:00", "22:00:00", true),
            period("printer-2", "late", "14:20:00", "22:00:00", true),
            period("printer-1", "night", "22:00:00", "22:40:00", false),
            period("printer-2", "night", "22:00:00", "22:40:00", false),
        ]
    );
}

/// Days without a reading: the shifts in between are there, all of them, with what is known of them.
#[test]
fn shifts_in_which_nothing_came_are_there_too() {
    let day = 86_400.0;
    let start = [put(0.0, "state", 1), put(0.0, "total", 0), put(0.0, "reject", 0)];
    let shifts = ["early", "late", "night"];
    for gone in [true, false] {
        let mut readings = start.to_vec();
        if gone {
            readings.push(lost(3600.0, "state"));
        }
        readings.push(put(2.0 * day + 60.0, "state", 1));
        let report = replay(&config(UTC, "1s"), &readings, &[]);
        let periods = report["periods"].as_array().expect("a list");
        let found: Vec<_> = periods.iter().map(|period| period["shift"].as_str().expect("a name")).collect();
        assert_eq!(found, [&shifts[..], &shifts[..], &["early"]].concat(), "{report:#}");
        for period in &periods[1..6] {
            let expected = match (gone, period["shift"].as_str()) {
                (true, Some("early")) => json!({"unknown": 25_200.0, "break": 3600.0}),
                (true, _) => json!({"unknown": 28_800.0}),
                // A state holds until the next.
                (false, Some("early")) => json!({"producing": 25_200.0, "break": 3600.0}),
                (false, _) => json!({"producing": 28_800.0}),
            };
            assert_eq!((&period["states"], &period["closed"]), (&expected, &json!(true)), "{period:#}");
            let coverage = if gone { 0.0 } else { 1.0 };
            assert_eq!(period["kpi"]["coverage"], json!(coverage));
            assert_eq!(period["kpi"]["availability"].is_null(), gone);
        }
    }
    // The same up to an instant long after the last reading.
    let report = replay(&config(UTC, "1s"), &[lost(0.0, "state")], &["--until", &at(2.0 * day)]);
    assert_eq!(outline(&report).len(), 6);
    assert!(outline(&report).iter().all(|(.., closed)| *closed));
}

/// A plan with a gap: between the shifts there is nothing, and a day later the next one.
#[test]
fn time_between_shifts_is_in_no_period() {
    let plan = "timezone: UTC\nshifts: [{ name: early, days: mon-fri, start: \"06:00\", end: \"14:00\" }]";
    let week = 7.0 * 86_400.0;
    let report = replay(&config(plan, "1s"), &[put(0.0, "state", 1)], &["--until", &at(week + 3600.0)]);
    let starts: Vec<_> = outline(&report).into_iter().map(|(_, _, from, ..)| from[8..10].to_owned()).collect();
    assert_eq!(starts, ["02", "03", "04", "05", "06", "09"], "Monday to Friday, and Monday again");
    assert_eq!(report["periods"][5]["states"], json!({"producing": 3600.0}));
}

#[test]
fn until_cuts_off_and_closes() {
    let readings = [
        put(0.0, "state", 1),
        put(0.0, "total", 0),
        put(0.0, "reject", 0),
        put(28_799.0, "total", 10),
        put(28_801.0, "total", 30),
        // A late one: of the early shift, but received when the night shift ran.
        json!({"station": "printer-1", "tag": "reject", "value": 1, "source_time": at(28_799.5), "received_time": at(60_000.0)}),
    ];
    let early = replay(&config(UTC, "1s"), &readings, &["--until", &at(28_800.0)]);
    let [period] = early["periods"].as_array().expect("a list").as_slice() else { panic!("one period: {early:#}") };
    assert_eq!((&period["to"], &period["closed"]), (&json!("2026-03-02T14:00:00Z"), &json!(true)));
    assert_eq!((&period["kpi"]["total"], &period["kpi"]["reject"]), (&json!(10), &json!(1)));
    let before = replay(&config(UTC, "1s"), &readings, &["--until", &at(3600.0)]);
    assert_eq!(outline(&before)[0].3, "2026-03-02T07:00:00Z");
    assert_eq!((&before["periods"][0]["closed"], &before["periods"][0]["kpi"]["total"]), (&json!(false), &json!(0)));
    let never = replay(&config(UTC, "1s"), &readings, &["--until", "2026-03-01T00:00:00Z"]);
    assert_eq!(never, json!({"periods": [], "losses": []}));
}

#[test]
fn order_of_input_decides_between_readings_of_one_instant() {
    let start = [put(0.0, "state", 1), put(0.0, "total", 0), put(0.0, "reject", 0)];
    for (last, expected) in [(5, json!({"producing": 60.0, "down": 60.0})), (1, json!({"producing": 120.0}))] {
        let first = if last == 5 { 1 } else { 5 };
        let readings =
            [&start[..], &[put(60.0, "state", first), put(60.0, "state", last), put(120.0, "total", 1)]].concat();
        assert_eq!(replay(&config(UTC, "1s"), &readings, &[])["periods"][0]["states"], expected);
    }
    // Nothing is a duplicate: a counter that repeats an instant counts each step.
    let readings = [&start[..], &[put(60.0, "total", 5), put(60.0, "total", 9)]].concat();
    assert_eq!(replay(&config(UTC, "1s"), &readings, &[])["periods"][0]["kpi"]["total"], 9);
}

/// A break that the machine reports leaves planned time as one of the plan does.
#[test]
fn parts_of_a_break_count_for_totals_and_not_for_performance() {
    let readings = [
        put(0.0, "state", 1),
        put(0.0, "total", 0),
        put(0.0, "reject", 0),
        put(100.0, "total", 50),
        put(100.0, "state", 3),
        put(150.0, "total", 60),
        put(200.0, "state", 1),
        put(300.0, "total", 100),
    ];
    let report = replay(&config(UTC, "1s"), &readings, &[]);
    let kpi = &report["periods"][0]["kpi"];
    assert_eq!((&kpi["total"], &kpi["performance"], &kpi["quality"]), (&json!(100), &json!(90.0 / 200.0), &json!(1.0)));
    assert_eq!(report["periods"][0]["states"], json!({"producing": 200.0, "break": 100.0}));
}

#[test]
fn losses_are_in_the_ledger_form() {
    let readings = [put(0.0, "state", 1), put(60.0, "state", 9)];
    assert_eq!(
        replay(&config(UTC, "1s"), &readings, &[])["losses"],
        json!([{"source": "printer-1", "from": at(60.0), "to": at(60.0), "count": 1,
                "reason": "state value `9` is not in oee.state.map"}])
    );
}

/// What a link's loss and its return look like in an export: bad readings, dated from the last proof of life.
#[test]
fn a_gap_is_unknown_time_and_its_parts_are_unattributed() {
    let start = [put(0.0, "state", 1), put(0.0, "total", 0), put(0.0, "reject", 0), put(100.0, "total", 100)];
    let gap = ["state", "total", "reject"].map(|tag| {
        let mut reading = lost(100.0, tag);
        reading["status"] = "LinkLost".into();
        reading["received_time"] = at(110.0).into();
        reading
    });
    let back = [put(150.0, "state", 1), put(150.0, "total", 140), put(150.0, "reject", 2), put(200.0, "total", 190)];
    let report = replay(&config(UTC, "1s"), &[&start[..], &gap, &back].concat(), &[]);
    let period = &report["periods"][0];
    assert_eq!(period["states"], json!({"producing": 150.0, "unknown": 50.0}));
    let kpi = &period["kpi"];
    assert_eq!((&kpi["total"], &kpi["unattributed"], &kpi["coverage"]), (&json!(190), &json!(40), &json!(0.75)));
    assert_eq!(kpi["performance"], json!(1.0), "150 parts in 150 s that were seen");
}
