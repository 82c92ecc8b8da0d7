//! What people entered, in a replay: `gemba replay --entries`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

const YAML: &str = r#"
site: fab-2
line: smt-1
timezone: UTC
shifts: [{ name: early, start: "06:00", end: "14:00" }]
reasons:
  - { code: feeder-jam }
  - { code: cleaning, planned: true }
  - { code: no-paste }
products:
  - { name: A, ideal_cycle_time: 1s }
  - { name: B, ideal_cycle_time: 3s }
stations:
  - name: printer-1
    source: { type: modbus, endpoint: "tcp://127.0.0.1:1" }
    tags:
      - { name: state, address: "holding:0", as: u16 }
      - { name: total, address: "holding:1", as: u32 }
    oee:
      state: { tag: state, map: { 1: producing, 5: down } }
      total: { tag: total }
"#;

/// A folder with a configuration, readings and entries.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// An hour: a part every ten seconds, but for the ten minutes down from 06:20 on.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("line.yaml"), YAML).expect("written");
        let read = |seconds: i64, tag: &str, value: i64| {
            json!({"station": "printer-1", "tag": tag, "value": value, "source_time": at(seconds)}).to_string() + "\n"
        };
        let mut readings = read(0, "state", 1) + &read(0, "total", 0);
        let mut total = 0;
        for second in (10..=3600).step_by(10) {
            match second {
                1200 => readings += &read(second, "state", 5),
                1800 => readings += &read(second, "state", 1),
                _ if (1200..1800).contains(&second) => {}
                _ => {
                    total += 1;
                    readings += &read(second, "total", total);
                }
            }
        }
        fs::write(folder.path().join("readings.jsonl"), readings).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, entries: &[Json]) -> Output {
        let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        fs::write(self.path("entries.jsonl"), lines).expect("written");
        let path = |path: PathBuf| path.into_os_string();
        Command::new(env!("CARGO_BIN_EXE_gemba"))
            .args(["replay", "--format", "json"])
            .args(["--config".into(), path(self.path("line.yaml"))])
            .args(["--entries".into(), path(self.path("entries.jsonl"))])
            .arg(self.path("readings.jsonl"))
            .output()
            .expect("it starts")
    }

    fn period(&self, entries: &[Json]) -> Json {
        let output = self.run(entries);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Json = serde_json::from_slice(&output.stdout).expect("JSON");
        report["periods"][0].clone()
    }
}

fn at(seconds: i64) -> String {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    (start + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn entry(entered: i64, kind: &str, what: &Json) -> Json {
    json!({"entered": at(entered), "by": "anna", "station": "printer-1", kind: what})
}

fn reason(entered: i64, from: i64, to: i64, code: &str) -> Json {
    entry(entered, "reason", &json!({"from": at(from), "to": at(to), "code": code}))
}

#[test]
fn a_reason_split_in_three_adds_up_to_the_downtime() {
    let bench = Bench::new();
    let split = [
        reason(1900, 1000, 1320, "feeder-jam"),
        reason(1901, 1320, 1400, "cleaning"),
        reason(1902, 1400, 2000, "no-paste"),
    ];
    let period = bench.period(&split);
    assert_eq!(period["reasons"], json!({"feeder-jam": 120.0, "cleaning": 80.0, "no-paste": 400.0}));
    assert_eq!(period["states"]["down"], json!(600.0));
    let mut other_order = split;
    other_order.reverse();
    assert_eq!(bench.period(&other_order), period, "`entered` says what comes first");
}

/// What was counted is kept to the minute, so a change in the middle of one takes effect with the next.
#[test]
fn a_product_changed_by_hand_moves_whole_minutes() {
    let bench = Bench::new();
    let product = |entered: i64, at_seconds: i64, name: &str| {
        entry(entered, "work", &json!({"at": at(at_seconds), "product": name, "lot": "7"}))
    };
    let performance = |entries: &[Json]| bench.period(entries)["kpi"]["performance"].as_f64().expect("a number");
    let near =
        |found: f64, ideal: f64| assert!((found - ideal / 3000.0).abs() < 1e-12, "{found}, not {ideal} s in 3000 s");
    let parts = 119.0 + 180.0;
    near(performance(&[product(5, 0, "A")]), parts);
    // From 06:40 on, told at 06:50: the 121 parts from then on take 3 s each.
    near(performance(&[product(5, 0, "A"), product(3000, 2400, "B")]), parts + 2.0 * 121.0);
    near(performance(&[product(5, 0, "A"), product(3000, 2425, "B")]), parts + 2.0 * (121.0 - 6.0));
}

#[test]
fn rejects_by_hand_show_as_defects() {
    let bench = Bench::new();
    let rejects =
        |entered, count| entry(entered, "rejects", &json!({"at": at(600), "count": count, "code": "scratch"}));
    let period = bench.period(&[rejects(700, 12), rejects(800, -2)]);
    assert_eq!(period["defects"], json!({"scratch": 10.0}));
    assert_eq!((&period["kpi"]["reject"], &period["kpi"]["good"]), (&json!(10), &json!(289)));
}

#[test]
fn what_the_line_refuses_is_left_out_and_said() {
    let bench = Bench::new();
    let output = bench.run(&[reason(1900, 1200, 1300, "feeder-jam"), reason(1900, 1300, 1800, "no-past")]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("entries.jsonl:2: left out: there is no reason `no-past`; did you mean `no-paste`?"),
        "{said}"
    );
}

#[test]
fn a_line_that_is_no_entry_is_an_error_with_its_place() {
    let bench = Bench::new();
    let message = |entry: &Json| {
        let output = bench.run(std::slice::from_ref(entry));
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = Path::new("entries.jsonl").display().to_string();
        said.split_once(&format!("{name}:")).expect("the file's name").1.trim().to_owned()
    };
    let mut undated = reason(1900, 1200, 1300, "feeder-jam");
    undated.as_object_mut().expect("an object").remove("entered");
    assert_eq!(message(&undated), "1: `entered` is missing: when it was told");
    let nothing = json!({"entered": at(0), "station": "printer-1"});
    assert_eq!(message(&nothing), "1: an entry is one of reason, work, target, rejects and anomaly");
    assert!(message(&entry(0, "reasons", &json!({}))).starts_with("1: column "));
}

/// As `gemba run` stores them: with everything that goes upstream, and before anybody is told that it was taken.
#[test]
fn what_was_entered_is_kept_in_the_spool_and_exported_for_a_replay() {
    use gemba::model::{Entry, What};
    use gemba::record::Record;
    use gemba::spool::{self, Settings};
    use gemba_drivers::Time;

    let bench = Bench::new();
    let settings = || Settings {
        path: bench.path("spool"),
        max_size: 8 << 20,
        keep_free: 0,
        keep: std::time::Duration::ZERO,
        journal_size: 1 << 20,
    };
    let time = |seconds: i64| at(seconds).parse::<Time>().expect("a time");
    let jam = Entry {
        entered: time(1900),
        by: Some("anna".into()),
        station: "printer-1".into(),
        what: What::Reason { from: time(1200), to: time(1800), code: Some("feeder-jam".into()) },
    };
    let scratched = Entry {
        entered: time(2000),
        by: None,
        station: "aoi-1".into(),
        what: What::Rejects { at: time(600), count: 3, code: "scratch".into() },
    };
    let mut opened = spool::open(settings(), &[]).expect("opens");
    for entry in [&jam, &scratched] {
        let record = Record::Entered(entry.clone().into());
        opened.writer.append(&spool::Entry::Record { cause: None, record });
    }
    opened.writer.commit(time(2001)).expect("commits");
    drop(opened);

    let recovery = spool::open(settings(), &[]).expect("opens").recovery;
    let stored: Vec<Entry> = recovery
        .entries()
        .filter_map(|entry| match entry.expect("reads").1 {
            spool::Entry::Record { record: Record::Entered(entry), .. } => Some((*entry).clone()),
            _ => None,
        })
        .collect();
    assert_eq!(stored, [jam, scratched]);

    let exported = Command::new(env!("CARGO_BIN_EXE_gemba"))
        .args(["spool", "export", "--entries", "--station", "printer-1", "--path"])
        .arg(bench.path("spool"))
        .output()
        .expect("it starts");
    let lines = String::from_utf8(exported.stdout).expect("UTF-8");
    let entries: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(entries, [reason(1900, 1200, 1800, "feeder-jam")]);
    assert_eq!(bench.period(&entries)["reasons"], json!({"feeder-jam": 600.0}));
}
