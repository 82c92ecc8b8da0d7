//! The reference line read by gemba in a process of its own, started and stopped as a service manager does.
//!
//! `GEMBA_COMMAND` names another gemba than the one that cargo has built: `cross/try` names the one for a gateway, with
//! the emulator that runs it. The stations' peers and upstream are native ones, in this process.

use std::path::Path;
use std::process::{Command, Output};

use gemba_drivers::Time;
use gemba_drivers::sim::mqtt::Publisher;
use gemba_tests::agent::{Page, station, tag};
use gemba_tests::line::{Line, OVEN, REFERENCE};
use gemba_tests::process::Process;
use gemba_tests::receiver::{Point, Receiver};
use serde_json::Value as Json;

/// gemba without its arguments.
fn gemba() -> Command {
    let words = std::env::var("GEMBA_COMMAND").unwrap_or_else(|_| env!("CARGO_BIN_EXE_gemba-to-kill").to_owned());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("GEMBA_COMMAND names a program"));
    command.args(words);
    command
}

/// Runs `gemba WORDS... --config FILE`.
fn ask(words: &[&str], file: &Path) -> Output {
    gemba().args(words).arg("--config").arg(file).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What all three stations have counted, and what they measure beside it.
async fn tell(line: &Line, oven: &mut Publisher, parts: u32) {
    let measured = f64::from(parts) / 4.0;
    #[expect(clippy::cast_possible_truncation, reason = "quarters of small numbers")]
    line.print(1, parts, parts / 10, measured as f32);
    line.inspect("Execute", parts, parts / 10, measured, Time::now());
    let payload = format!(r#"{{"state":"running","count":{parts},"zones":[{{"temp":{measured}}}]}}"#);
    oven.publish(OVEN, payload).await.expect("published");
}

/// Waits until the three stations have told `parts`, and every tag of theirs is good.
async fn until_told(page: &Page, parts: u32) -> Json {
    let counters = [("printer-1", "total"), ("aoi-1", "good"), ("oven-1", "total")];
    page.until(&format!("{parts} parts of three stations, every tag good"), |health| {
        counters.iter().all(|&(name, counter)| {
            let station = station(health, name);
            station["link"] == "connected"
                && station["tags"].as_array().is_some_and(|tags| tags.iter().all(|tag| tag["validity"] == "good"))
                && tag(station, counter)["value"] == parts
        })
    })
    .await
}

/// Whether a measurement of each station, taken at so many `parts`, has come upstream.
fn arrived(upstream: &Receiver, parts: u32) -> bool {
    let measured = f64::from(parts) / 4.0;
    let has = |(station, metric): (&str, &str)| {
        let points = upstream.points(metric);
        points.iter().any(|point| point.has("factory.station", station) && point.number() == Some(measured))
    };
    [("printer-1", "factory.tag.squeegee_pressure"), ("aoi-1", "factory.tag.score"), ("oven-1", "factory.tag.zone1")]
        .into_iter()
        .all(has)
}

/// The good parts of the printer as they came upstream, in order.
fn good_parts(upstream: &Receiver) -> Vec<Point> {
    let mut points = upstream.points("factory.parts");
    points.retain(|point| point.has("factory.station", "printer-1") && point.has("factory.part.disposition", "good"));
    points
}

/// The number behind `words` in what `gemba spool status` prints.
fn number(status: &str, words: &str) -> u64 {
    let found = status.split_once(words).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    found.unwrap_or_else(|| panic!("no number behind {words:?} in:\n{status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_line_through_a_stop_and_a_start_without_upstream() {
    let folder = tempfile::tempdir().expect("a folder");
    let reference = folder.path().join("reference.yaml");
    std::fs::write(&reference, REFERENCE).expect("written");
    let checked = ask(&["check"], &reference);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("is fine: 3 stations, 11 tags, 3 links"), "{}", text(&checked.stdout));
    std::fs::write(&reference, REFERENCE.replace("poll: 200ms", "poll: 200")).expect("written");
    let checked = ask(&["check"], &reference);
    assert_eq!(checked.status.code(), Some(2), "{}", text(&checked.stdout));
    assert!(text(&checked.stderr).contains("stations[0].source.poll"), "{}", text(&checked.stderr));

    let mut line = Line::start().await;
    let mut oven = line.oven();
    let file = folder.path().join("line.yaml");
    std::fs::write(&file, line.config(folder.path())).expect("written");
    line.print(1, 100, 10, 25.0); // the printer's baseline
    let run = Process::run(gemba(), &file).await;
    run.until("the oven's link", |health| station(health, "oven-1")["link"] == "connected").await;
    tell(&line, &mut oven, 100).await;
    until_told(&run, 100).await;
    tell(&line, &mut oven, 140).await;
    let health = until_told(&run, 140).await;
    assert_eq!(health["status"], "healthy", "{health:#}");
    assert_eq!(station(&health, "printer-1")["kpi"]["total"], 40, "the first reading is the baseline");
    assert_eq!(station(&health, "oven-1")["state"], "producing");
    line.receiver.until("a measurement of each station", |upstream| arrived(upstream, 140)).await;

    line.receiver.stop();
    tell(&line, &mut oven, 180).await;
    until_told(&run, 180).await;
    let ended = run.stop().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    assert!(!arrived(&line.receiver, 180), "upstream was away");
    let status = ask(&["spool", "status"], &file);
    let status = text(&status.stdout);
    let (pending, sequence) = (number(&status, "pending"), number(&status, "up to sequence"));
    assert!(pending > 0 && sequence > 0, "{status}");

    let run = Process::run(gemba(), &file).await;
    run.until("the oven's link", |health| station(health, "oven-1")["link"] == "connected").await;
    tell(&line, &mut oven, 220).await;
    let health = until_told(&run, 220).await;
    assert_eq!(station(&health, "printer-1")["kpi"]["total"], 120, "it counts on from where it was");
    line.receiver.restart();
    let all = |upstream: &Receiver| arrived(upstream, 180) && arrived(upstream, 220);
    line.receiver.until("what was read before the stop, and after it", all).await;
    let ended = run.stop().await;
    assert_eq!(ended.code(), Some(0), "{ended}");
    let status = ask(&["spool", "status"], &file);
    let status = text(&status.stdout);
    assert!(number(&status, "up to sequence") >= sequence + pending, "{status}");

    let good = good_parts(&line.receiver);
    let (first, last) = (good.first().expect("a sum"), good.last().expect("a sum"));
    assert_eq!(last.number(), Some(108.0), "120 parts, of which 12 were rejects");
    assert!(good.iter().all(|point| point.start == first.start), "a stop does not begin a sum anew");
    assert!(good.iter().filter_map(Point::number).is_sorted(), "a sum never falls");
}
