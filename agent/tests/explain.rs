//! `gemba explain` and `gemba replay --windows` as a person meets them.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use gemba::config::Config;
use gemba::spool::{Entry, Series, Settings, StoredReading, open};
use gemba_drivers::{Reading, TagId, Time, Value};
use serde_json::{Value as Json, json};

const YAML: &str = r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
shifts:
  - { name: early, start: "06:00", end: "14:00", breaks: [{ start: "10:00", end: "10:30" }] }
  - { name: late, start: "14:00", end: "22:00" }
reasons:
  - { code: jam }
spool: { path: spool }
stations:
  - name: printer-1
    source: { type: modbus, endpoint: "tcp://127.0.0.1:1" }
    context: { lot: { tag: lot }, product: { tag: product } }
    tags:
      - { name: state, address: "holding:0", as: u16 }
      - { name: total, address: "holding:1", as: u32 }
      - { name: reject, address: "holding:3", as: u32 }
      - { name: why, address: "holding:5", as: u16 }
      - { name: lot, address: "holding:6", as: u16 }
      - { name: product, address: "holding:7", as: u16 }
    oee:
      ideal_cycle_time: 2s
      micro_stops: { limit: 1min, states: [starved] }
      state: { tag: state, map: { 1: producing, 2: starved, 5: down } }
      total: { tag: total }
      reject: { tag: reject }
      reasons: [{ tag: why, map: { 7: jam } }]
"#;

const TAGS: [&str; 6] = ["state", "total", "reject", "why", "lot", "product"];

/// Seconds after 2026-03-02T05:00:00Z, six o'clock in Berlin; tag; value, if it is good.
const EARLY: [(i64, usize, Option<i64>); 22] = [
    (0, 4, Some(10)),
    (0, 5, Some(1)),
    (0, 0, Some(1)),
    (0, 1, Some(0)),
    (0, 2, Some(0)),
    (3_000, 1, Some(1_000)),
    (3_000, 2, Some(20)),
    (3_600, 0, Some(5)),
    (3_600, 3, Some(7)),
    (5_400, 0, Some(1)),
    (5_400, 3, Some(0)),
    (7_000, 0, Some(2)),
    (7_030, 0, Some(1)),
    (9_000, 1, Some(3_000)),
    (9_100, 4, Some(11)),
    (9_100, 5, Some(2)),
    (15_000, 1, Some(3_010)),
    (20_000, 0, None),
    (20_000, 1, None),
    (20_600, 0, Some(1)),
    (20_600, 1, Some(3_110)),
    (28_000, 1, Some(7_110)),
];

fn at(seconds: i64) -> Time {
    Time::from_millis((1_772_427_600 + seconds) * 1000)
}

/// A folder with the configuration and the readings of a day.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        fs::write(place.path("line.yaml"), YAML).expect("written");
        let mut lines = String::new();
        for (seconds, tag, value) in EARLY {
            let line = json!({"station": "printer-1", "tag": TAGS[tag], "value": value,
                              "validity": if value.is_some() { "good" } else { "bad" }, "source_time": at(seconds)});
            let _ = writeln!(lines, "{line}");
        }
        let end = json!({"station": "printer-1", "tag": "total", "value": 7_110, "source_time": at(28_900)});
        fs::write(place.path("readings.jsonl"), lines + &end.to_string() + "\n").expect("written");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let config = self.path("line.yaml");
        let mut gemba = Command::new(env!("CARGO_BIN_EXE_gemba"));
        gemba.current_dir(self.0.path()).arg(command).arg("--config").arg(config).args(more).output().expect("it runs")
    }

    fn text(&self, command: &str, more: &[&str]) -> String {
        let output = self.run(command, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, command: &str, more: &[&str]) -> Json {
        serde_json::from_str(&self.text(command, &[&["--format", "json"], more].concat())).expect("JSON")
    }

    fn refused(&self, more: &[&str]) -> (Option<i32>, String) {
        let output = self.run("explain", more);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

const SHIFT: [&str; 5] = ["--station", "printer-1", "--shift", "2026-03-02/early", "readings.jsonl"];

#[test]
fn a_shift_can_be_checked_by_hand() {
    insta::assert_snapshot!(Place::new().text("explain", &SHIFT));
}

#[test]
fn one_figure_comes_with_what_it_is_made_of() {
    let place = Place::new();
    let only = |kpi: &str| place.text("explain", &[&["--kpi", kpi], &SHIFT[..]].concat());
    let quality = only("quality");
    assert!(quality.contains("= 7090 good parts") && quality.contains("/ 7110 all parts"), "{quality}");
    assert!(!quality.contains("availability") && !quality.contains("planned time went"), "{quality}");
    let availability = only("availability");
    assert!(availability.contains("planned time went") && !availability.contains("counted at"), "{availability}");
}

#[test]
fn it_explains_the_figures_of_the_replay_to_the_last_digit() {
    let place = Place::new();
    let report = place.json("replay", &["readings.jsonl"]);
    let explained = place.json("explain", &SHIFT);
    assert_eq!(explained["kpi"], report["periods"][0]["kpi"]);
    assert_eq!((&explained["to"], &explained["revision"]), (&report["periods"][0]["to"], &json!(0)));
    let number = |value: &Json| value.as_f64().expect("a number");
    let fall = &explained["waterfall"];
    // 480 min less a break of 30, 10 of them unknown.
    assert_eq!((number(&fall["planned_s"]), number(&fall["unknown_s"])), (26_400.0, 600.0));
    let lists = ["availability", "performance"].into_iter().flat_map(|list| fall[list].as_array().expect("a list"));
    let stops: f64 = lists.map(|line| number(&line["s"])).sum();
    let lost = stops + number(&fall["speed_s"]) + number(&fall["quality_s"]);
    let missing = number(&fall["planned_s"]) - number(&fall["good_s"]);
    assert!((lost - missing).abs() < 1e-9 && (number(&fall["lost_s"]) - missing).abs() < 1e-9, "{lost} {missing}");
    let oee = number(&fall["good_s"]) / number(&fall["planned_s"]);
    assert!((oee - number(&explained["kpi"]["oee"])).abs() < 1e-12);
    // At noon it was another figure.
    let noon = place.json("explain", &[&["--at", "2026-03-02T11:00:00+01:00"], &SHIFT[..]].concat());
    assert_eq!((&noon["closed"], &noon["to"]), (&json!(false), &json!("2026-03-02T10:00:00Z")));
}

#[test]
fn hours_lots_and_products_are_windows_of_a_replay() {
    let place = Place::new();
    let windows = |kind: &str| {
        let report = place.json("replay", &["--windows", kind, "readings.jsonl"]);
        report["windows"].as_array().expect("a list").clone()
    };
    let hours = windows("hour");
    let totals: Vec<_> = hours.iter().map(|of| (of["name"].as_str(), of["kpi"]["total"].as_i64())).collect();
    assert_eq!(
        totals,
        [
            (Some("2026-03-02 06:00"), Some(1_000)),
            (Some("2026-03-02 07:00"), Some(0)),
            (Some("2026-03-02 08:00"), Some(2_000)),
            (Some("2026-03-02 09:00"), Some(0)),
            (Some("2026-03-02 10:00"), Some(10)),
            (Some("2026-03-02 11:00"), Some(100)),
            (Some("2026-03-02 12:00"), Some(0)),
            (Some("2026-03-02 13:00"), Some(4_000)),
            (Some("2026-03-02 14:00"), Some(0)),
        ]
    );
    assert_eq!(hours[1]["states"], json!({"down": 1_800.0, "producing": 1_770.0, "starved": 30.0}));
    assert_eq!((&hours[0]["shift"], &hours[8]["shift"]), (&json!("early"), &json!("late")));
    let lots = windows("lot");
    assert_eq!(
        (&lots[0]["name"], &lots[0]["kpi"]["total"], &lots[0]["closed"]),
        (&json!("10"), &json!(3_000), &json!(true))
    );
    let product = &windows("product")[1];
    assert_eq!(product["changeovers"][0]["before"], "1");
    assert_eq!(
        (&product["changeovers"][0]["s"], &product["changeovers"][0]["planned_s"]),
        (&json!(6_000.0), &json!(5_400.0))
    );
    assert_eq!(windows("day")[0]["name"], "2026-03-02");
    let [rolling] = &windows("rolling")[..] else { panic!("one") };
    assert_eq!((&rolling["kind"], &rolling["name"]), (&json!("rolling"), &json!("the last 60 min")));
    let explained = place.json("explain", &["--station", "printer-1", "--rolling", "readings.jsonl"]);
    for of in ["from", "to", "kpi"] {
        assert_eq!(explained[of], rolling[of], "{of}");
    }
    assert!(place.json("replay", &["readings.jsonl"]).get("windows").is_none(), "only where it was asked for");
    let table = place.text("replay", &["--windows", "hour", "readings.jsonl"]);
    assert!(table.contains("hour 2026-03-02 06:00 (early)") && table.contains("target"), "{table}");
    assert!(table.lines().any(|line| line.contains("losses")) && table.contains("vorne"), "{table}");
}

#[test]
fn days_that_an_agent_would_have_let_go_of_are_still_explained() {
    let place = Place::new();
    let mut lines = fs::read_to_string(place.path("readings.jsonl")).expect("readable");
    for day in 1..12 {
        for (seconds, total) in [(0, 0), (3_600, 100)] {
            let line = json!({"station": "printer-1", "tag": "total", "value": 7_110 + 100 * (day - 1) + total,
                              "source_time": at(day * 86_400 + seconds)});
            let _ = writeln!(lines, "{line}");
        }
    }
    fs::write(place.path("long.jsonl"), lines).expect("written");
    let (first, long) = (place.json("explain", &SHIFT), [&SHIFT[..4], &["long.jsonl"]].concat());
    let later = place.json("explain", &long);
    for part in ["kpi", "waterfall", "pieces", "counts", "revision", "whole"] {
        assert_eq!(later[part], first[part], "{part}");
    }
    let days = place.json("replay", &["--windows", "day", "long.jsonl"]);
    let days: Vec<_> =
        days["windows"].as_array().expect("a list").iter().map(|of| of["kpi"]["total"].clone()).collect();
    assert_eq!((days.len(), &days[0], &days[11]), (12, &json!(7_110), &json!(100)));
}

#[test]
fn without_a_file_the_buffer_is_read_while_an_agent_writes_it() {
    let place = Place::new();
    let (code, message) = place.refused(&["--station", "printer-1"]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("spool"), "{message}");

    let config = Config::load(&place.path("line.yaml")).expect("a configuration");
    let path = place.path("spool");
    let settings = Settings { path, max_size: 1 << 30, keep_free: 0, keep: Duration::ZERO, journal_size: 1 << 20 };
    let mut spool = open(settings, &Series::all(&config)).expect("opens");
    for (seconds, tag, value) in EARLY {
        let id = TagId(u32::try_from(tag).expect("small"));
        let reading = match value {
            Some(value) => Reading::good(id, Value::Int(value), at(seconds), at(seconds)),
            None => {
                let lost = gemba_drivers::Status::Own(gemba_drivers::OwnStatus::LinkLost);
                Reading::bad(id, lost, at(seconds), at(seconds))
            }
        };
        spool.writer.append(&Entry::Readings(vec![StoredReading::new(spool.ids[tag], reading)]));
    }
    spool.writer.commit(at(28_000)).expect("commits");
    let explained = place
        .json("explain", &["--station", "printer-1", "--at", "2026-03-02T14:01:00+01:00", "--shift", "today/early"]);
    assert_eq!(explained["kpi"], place.json("explain", &SHIFT)["kpi"]);
}

#[test]
fn mistakes_are_named() {
    let place = Place::new();
    let file = "readings.jsonl";
    for (more, expected, words) in [
        (
            &["--station", "printer-2", file][..],
            2,
            "there is no station `printer-2`; the configuration has `printer-1`",
        ),
        (&["--station", "printer-1", "--shift", "2026-03-02/nigth", file], 1, "`early`, `late` do"),
        (&["--station", "printer-1", "--lot", "12", file], 1, "no lot `12` is known; `11`, `10` do"),
        (&["--station", "printer-1", "--shift", "2026-03-01/late", file], 1, "that was over when"),
        (&["--station", "printer-1", "--shift", "2026-03-03/early", file], 1, "that has not begun"),
        (&["--station", "printer-1", "none.jsonl"], 1, "none.jsonl"),
        (&["--station", "printer-1", "--at", "2026-03-01T00:00:00Z", file], 1, "nothing was heard of station"),
    ] {
        let (code, message) = place.refused(more);
        assert_eq!(code, Some(expected), "{more:?}: {message}");
        assert!(message.contains(words), "{more:?}: {message}");
    }
}
