//! `gemba spool` beside an agent that works, and on what one left.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use gemba::record::{Figures, KpiPoint, Record, Sums, Visit};
use gemba::spool::{Entry, Opened, Own, Selection, Signal, export, status};
use gemba_drivers::{OwnStatus, Status, Validity, Value};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;
use serde_json::{Value as Json, json};

use crate::rig::{event, readings, sealed, settings, start, time_of};

/// The lines of an export.
fn lines(path: &Path, selection: &Selection) -> Vec<Json> {
    let mut out = Vec::new();
    let exported = export(path, selection, &mut out, |_, _| {}).expect("exports");
    assert_eq!((exported.nameless, &exported.unreadable[..]), (0, &[][..]));
    let lines: Vec<Json> =
        out.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).expect("JSON")).collect();
    assert_eq!(lines.len() as u64, exported.readings);
    lines
}

fn values(lines: &[Json]) -> Vec<u64> {
    lines.iter().map(|line| line["value"].as_u64().expect("a number")).collect()
}

#[test]
fn an_export_beside_a_working_agent_has_no_hole() {
    const BATCHES: u64 = 400;
    let folder = tempfile::tempdir().expect("a folder");
    let Opened { mut writer, mut reader, mut sealer, .. } = start(settings(folder.path())).expect("opens");
    std::thread::scope(|scope| {
        let agent = scope.spawn(move || {
            for batch in 0..BATCHES {
                // Without a checkpoint nothing is removed, but journals turn into segments all the time.
                writer.append(&readings(batch * 100..batch * 100 + 100));
                writer.commit(time_of(batch)).expect("commits");
                // Upstream comes and goes.
                if batch % 100 >= 60
                    && let Some(chunk) = reader.next(2_000).expect("reads")
                {
                    reader.acknowledge(chunk.last).expect("acknowledges");
                }
                assert_eq!(sealer.work().expect("keeps house").losses, []);
            }
        });
        loop {
            let finished = agent.is_finished();
            let values = values(&lines(folder.path(), &Selection::default()));
            let hole = values.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert!(hole.is_none() && values.first().is_none_or(|first| *first == 0), "{hole:?}");
            let status = status(folder.path()).expect("looks");
            assert!(status.readings <= status.records && status.damaged == 0, "{status:?}");
            if finished {
                assert_eq!(values.len() as u64, BATCHES * 100);
                assert!(status.segments > 2, "{status:?}");
                break;
            }
        }
    });
}

#[test]
fn every_kind_of_reading_is_exported_as_the_contract_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut spool = start(settings(folder.path())).expect("opens");
    let Entry::Readings(mut made) = readings(0..5) else { panic!("they are readings") };
    made[1].value = Value::Float(0.1);
    made[2].value = Value::Bool(true);
    made[3].value = Value::Text("lot \"7\"\n".into());
    made[4].value = Value::Null;
    made[4].validity = Validity::Bad(Status::Own(OwnStatus::WrongLength));
    made[4].received_time = time_of(1_000);
    spool.writer.append(&Entry::Readings(made));
    spool.writer.commit(time_of(5)).expect("commits");

    let lines = lines(folder.path(), &Selection::default());
    let values: Vec<_> = lines.iter().map(|line| line["value"].to_string()).collect();
    assert_eq!(values, ["0", "0.1", "true", r#""lot \"7\"\n""#, "null"]);
    let validity: Vec<_> = lines.iter().map(|line| line["validity"].as_str().expect("a word")).collect();
    assert_eq!(validity, ["good", "good", "good", "good", "bad"]);
    let last = &lines[4];
    assert_eq!((&last["station"], &last["tag"]), (&Json::from("press"), &Json::from("count")));
    assert_eq!(last["source_time"], "2026-03-02T06:00:00.004Z");
    assert_eq!(last["received_time"], "2026-03-02T06:00:01Z");
}

#[test]
fn a_selection_selects_by_source_time_and_station() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 20_000));
    let between = |from: u64, to: u64| Selection {
        from: Some(time_of(from)),
        to: Some(time_of(to)),
        station: Some("press".into()),
        ..Selection::default()
    };
    assert_eq!(values(&lines(folder.path(), &between(150, 9_000))), (150..9_000).collect::<Vec<_>>());
    let other = Selection { station: Some("oven".into()), ..Selection::default() };
    assert_eq!(lines(folder.path(), &other), Vec::<Json>::new());
}

fn gemba(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemba")).args(arguments).output().expect("starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A configuration whose station counts what `rig::readings` says.
fn configuration(folder: &Path, spool: &Path) -> String {
    let yaml = format!(
        "site: test
line: test
timezone: UTC
upstream: {{ otlp: {{ endpoint: 'http://127.0.0.1:9' }} }}
spool: {{ path: {} }}
stations:
  - name: oven
    source: {{ type: modbus, endpoint: 'tcp://127.0.0.1:502', unit: 1, poll: 1s }}
    tags: [{{ name: temperature, address: 'holding:0', as: u16, unit: Cel }}]
",
        spool.display()
    );
    let path = folder.join("line.yaml");
    fs::write(&path, yaml).expect("writes");
    path.display().to_string()
}

#[test]
fn the_status_of_a_running_agents_spool_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("spool");
    let mut spool = sealed(&path, 20_000);
    let chunk = spool.reader.next(300).expect("reads").expect("a chunk");
    spool.reader.acknowledge(chunk.last).expect("acknowledges");
    spool.reader.flush().expect("writes the cursor");
    let view = spool.writer.view();

    let output = gemba(&["spool", "status", "--path", &path.display().to_string()]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.contains(&format!("{} records, {} of them readings", view.records, view.readings)), "{said}");
    assert!(said.contains(&format!("up to sequence {}", chunk.last.0)), "{said}");
    assert!(view.readings == 20_000 - chunk.readings as u64 && view.bytes > 0);
}

#[test]
fn an_export_goes_to_a_file_or_out_and_can_be_read_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("spool");
    drop(sealed(&path, 20_000));
    let config = configuration(folder.path(), &path);
    let file = folder.path().join("readings.jsonl").display().to_string();

    let out = gemba(&["spool", "export", "--path", &path.display().to_string()]);
    assert!(out.status.success() && out.stderr.is_empty(), "{}", text(&out.stderr));
    let to_file = gemba(&["spool", "export", "--config", &config, "--output", &file]);
    assert!(to_file.status.success(), "{}", text(&to_file.stderr));
    assert_eq!(fs::read(&file).expect("reads"), out.stdout);
    assert_eq!(out.stdout.iter().filter(|byte| **byte == b'\n').count(), 20_000);

    // Read, though the configuration has no such station: that is said, and counted.
    let replayed = gemba(&["replay", "--config", &config, &file]);
    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    assert!(text(&replayed.stderr).contains("20000 readings of `count` at station `press`"), "{replayed:?}");
}

/// Something in each lane, a second apart from 2026-03-02T06:00:00Z on.
fn of_every_lane(path: &Path) {
    let mut spool = start(settings(path)).expect("opens");
    let Entry::Readings(mut made) = readings(0..3) else { panic!("they are readings") };
    made[1].value = Value::Float(0.1);
    made[2].value = Value::Text("say \"7\",\r\nthen stop".into());
    made[2].validity = Validity::Bad(Status::Own(OwnStatus::WrongLength));
    spool.writer.append(&Entry::Readings(made));
    spool.writer.append(&event(1_000));
    let visit = Visit {
        station: "oven".into(),
        serial: "S-1".into(),
        product: None,
        lot: None,
        from: time_of(2_000),
        to: time_of(3_000),
        arrival_seen: true,
        departure_seen: true,
    };
    spool.writer.append(&Entry::Record { cause: None, record: Record::Visit(Box::new(visit)) });
    let kpi = KpiPoint {
        station: "press, left".into(),
        shift: Some("early".into()),
        time: time_of(4_000),
        figures: Some(Figures { oee: Some(0.5), ..Figures::default() }),
        since: time_of(0),
        sums: Sums { good: Some(7.0), ..Sums::default() },
        beside: None,
    };
    spool.writer.append(&Entry::Record { cause: None, record: Record::Kpi(Box::new(kpi)) });
    let log_records = vec![LogRecord {
        time_unix_nano: time_of(5_000).0 as u64,
        severity_text: "WARN".to_owned(),
        event_name: "gemba.said".to_owned(),
        ..LogRecord::default()
    }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let request =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] };
    let own = |body: Vec<u8>| Own { signal: Signal::Logs, items: 1, time: time_of(5_000), body: body.into() };
    spool.writer.append(&Entry::Telemetry(own(request.encode_to_vec())));
    spool.writer.append(&Entry::Telemetry(own(b"no request".to_vec())));
    spool.writer.commit(time_of(6_000)).expect("commits");
}

/// The lines that an export with these arguments writes.
fn exported(path: &Path, arguments: &[&str]) -> Vec<Json> {
    let output = gemba(&[&["spool", "export", "--path", &path.display().to_string()], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn every_lane_is_exported_as_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    of_every_lane(folder.path());
    let lane = |more: &[&str]| exported(folder.path(), &[&["--lane"], more].concat());

    assert_eq!(lane(&["readings"]), exported(folder.path(), &[]));
    let events = lane(&["events"]);
    assert_eq!(
        events,
        [
            json!({
                "sequence": 2, "kind": "log", "name": "factory.tag.changed", "time": "2026-03-02T06:00:01Z",
                "severity": "INFO", "body": "number of press is `1000`",
                "attributes": {"factory.station": "press", "factory.tag": "number", "factory.tag.value": "1000"},
            }),
            json!({
                "sequence": 3, "kind": "span", "name": "factory.visit", "time": "2026-03-02T06:00:02Z",
                "end": "2026-03-02T06:00:03Z",
                "attributes": {"factory.station": "oven", "factory.serial": "S-1", "factory.visit.arrival_seen": true,
                    "factory.visit.departure_seen": true},
            }),
        ]
    );
    let kpis = lane(&["kpis"]);
    let oee = kpis.iter().find(|line| line["name"] == "factory.oee").expect("the figure");
    assert_eq!((&oee["value"], &oee["unit"], &oee["time"]), (&json!(0.5), &json!("1"), &json!("2026-03-02T06:00:04Z")));
    assert_eq!(oee["attributes"], json!({"factory.station": "press, left", "factory.shift": "early"}));
    let [telemetry] = &lane(&["telemetry"])[..] else { panic!("one can be read") };
    assert_eq!((&telemetry["name"], &telemetry["severity"]), (&json!("gemba.said"), &json!("WARN")));

    // By time and station, in each lane.
    assert_eq!(lane(&["events", "--from", "2026-03-02T06:00:02Z"]), events[1..]);
    assert_eq!(lane(&["events", "--to", "2026-03-02T06:00:02Z"]), events[..1]);
    assert_eq!(lane(&["events", "--station", "oven"]), events[1..]);
    assert_eq!(lane(&["kpis", "--from", "2026-03-02T06:00:04Z", "--station", "press, left"]), kpis);
    assert!(lane(&["kpis", "--to", "2026-03-02T06:00:04Z"]).is_empty());
    assert!(lane(&["telemetry", "--station", "oven"]).is_empty());
}

#[test]
fn csv_has_a_header_and_quotes_what_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    of_every_lane(folder.path());
    let path = folder.path().display().to_string();
    let csv = |lane: &str| gemba(&["spool", "export", "--path", &path, "--lane", lane, "--format", "csv"]);
    assert_eq!(
        text(&csv("readings").stdout),
        "station,tag,value,validity,status,source_time,received_time,backfilled\r\n\
         press,count,0,good,,2026-03-02T06:00:00Z,2026-03-02T06:00:00Z,false\r\n\
         press,count,0.1,good,,2026-03-02T06:00:00.001Z,2026-03-02T06:00:00.001Z,false\r\n\
         press,count,\"say \"\"7\"\",\r\nthen stop\",bad,WrongLength,2026-03-02T06:00:00.002Z,2026-03-02T06:00:00.002Z,false\r\n"
    );
    let kpis = text(&csv("kpis").stdout);
    let mut lines = kpis.split("\r\n");
    let header = "sequence,time,since,station,shift,name,unit,value,count,sum,min,max,attributes";
    assert_eq!(lines.next(), Some(header));
    let oee = "4,2026-03-02T06:00:04Z,,\"press, left\",early,factory.oee,1,0.5,,,,,";
    assert!(lines.any(|line| line == oee), "{kpis}");
    for lane in ["events", "telemetry"] {
        let refused = csv(lane);
        assert_eq!(refused.status.code(), Some(2), "wrong usage");
        assert!(refused.stdout.is_empty() && text(&refused.stderr).contains("--format jsonl"), "{refused:?}");
    }
}

#[test]
fn what_is_no_spool_is_a_runtime_failure_that_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("no-such-spool").display().to_string();
    let other = folder.path().display().to_string();
    for (command, path) in [("status", &missing), ("export", &missing), ("status", &other), ("export", &other)] {
        let output = gemba(&["spool", command, "--path", path]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), format!("error: there is no spool in {path}\n"));
        assert!(output.stdout.is_empty());
    }
    let output = gemba(&["spool", "status"]);
    assert_eq!(output.status.code(), Some(2), "wrong usage");
}

#[test]
fn a_pipe_that_closes_early_is_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 20_000));
    let command =
        format!("{} spool export --path {} | head -n 1", env!("CARGO_BIN_EXE_gemba"), folder.path().display());
    let output = Command::new("sh").args(["-c", &command]).output().expect("starts");
    assert_eq!(text(&output.stdout).lines().count(), 1);
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}
