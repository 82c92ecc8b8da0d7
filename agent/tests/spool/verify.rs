//! `gemba spool verify` beside an agent that works, and on every kind of damage; and the agent's own start on all of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use gemba::spool::{Finding, Opened, Report, Seq, Settings, status, verify};
use serde_json::Value as Json;

use crate::rig::{copy_tree, drain, event, readings, sealed, settings, start, time_of};

fn look(path: &Path) -> Report {
    verify(path, |_, _| {}).expect("there is a spool")
}

/// Every file below a folder, with its content.
fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).expect("reads"));
        }
    }
    all
}

/// The entries of a folder whose names begin so, in order.
fn named(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn change(path: &Path, with: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("reads");
    with(&mut bytes);
    fs::write(path, bytes).expect("writes");
}

/// As if nobody had written for long: what is fresh is looked at again and again.
fn age(folder: &Path) {
    for entry in fs::read_dir(folder).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            age(&path);
        } else {
            File::open(path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("sets the time");
        }
    }
    File::open(folder).and_then(|folder| folder.set_modified(SystemTime::UNIX_EPOCH)).expect("sets the time");
}

/// What a working agent left: sealed segments of several lanes, journals, a checkpoint, and a cursor.
fn worked(path: &Path, settings: Settings) {
    let mut spool = start(settings).expect("opens");
    for batch in 0..40 {
        spool.writer.append(&event(batch));
        let last = spool.writer.append(&readings(batch * 100..batch * 100 + 100));
        if batch % 8 == 7 {
            spool.writer.checkpoint(last, b"the model's state");
        }
        spool.writer.commit(time_of(batch * 100 + 100)).expect("commits");
    }
    while spool.sealer.work().expect("keeps house").more {}
    let chunk = spool.reader.next(50).expect("reads").expect("a chunk");
    spool.reader.acknowledge(chunk.last).expect("acknowledges");
    spool.reader.flush().expect("writes the cursor");
    // An event is in the way: every reading is pending still but those of one frame at most.
    assert!(status(path).expect("looks").readings > 3_700);
}

fn small(path: &Path) -> Settings {
    Settings { journal_size: 4 << 10, ..settings(path) }
}

#[test]
fn a_sound_spool_is_told_sound_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    worked(folder.path(), small(folder.path()));
    let before = content(folder.path());
    let mut steps = Vec::new();
    let report = verify(folder.path(), |done, total| steps.push((done, total))).expect("a spool");
    assert_eq!(report.findings, []);
    assert!(before == content(folder.path()), "nothing is changed");
    assert_eq!((report.readable["readings"], report.readable["events"]), (4_000, 40));
    assert!(report.journals > 0 && report.segments > 2 && report.first == 1, "{report:?}");
    let (cursor, checkpoint) = (report.cursor, report.checkpoint.expect("one was written"));
    assert!(cursor > 0 && checkpoint > cursor && checkpoint <= report.last, "{report:?}");
    assert!(steps.windows(2).all(|pair| pair[0].0 <= pair[1].0) && steps.len() > 2, "{steps:?}");
    let &(done, total) = steps.last().expect("told");
    assert_eq!(done, total);
}

#[test]
fn beside_a_working_agent_nothing_is_taken_for_damage() {
    const BATCHES: u64 = 300;
    let folder = tempfile::tempdir().expect("a folder");
    let Opened { mut writer, mut reader, mut sealer, .. } = start(settings(folder.path())).expect("opens");
    std::thread::scope(|scope| {
        let agent = scope.spawn(move || {
            for batch in 0..BATCHES {
                let last = writer.append(&readings(batch * 100..batch * 100 + 100));
                if batch % 10 == 9 {
                    writer.checkpoint(last, &[7; 6_000]);
                }
                writer.commit(time_of(batch)).expect("commits");
                // Upstream comes and goes, so journals are sealed, and all of it is removed some time.
                while batch % 60 >= 40
                    && let Some(chunk) = reader.next(2_000).expect("reads")
                {
                    reader.acknowledge(chunk.last).expect("acknowledges");
                }
                assert_eq!(sealer.work().expect("keeps house").losses, []);
            }
        });
        loop {
            let finished = agent.is_finished();
            let report = look(folder.path());
            assert_eq!(report.findings, [], "{report:?}");
            if finished {
                assert!(report.cursor > 0 && report.checkpoint.is_some() && report.first > 1, "{report:?}");
                break;
            }
        }
    });
}

/// What is to be found in the lane, and nothing else is.
fn only<'a>(report: &'a Report, name: &str, lane: Option<&str>) -> &'a Finding {
    let mut of_lane = report.findings.iter().filter(|finding| finding.lane == lane);
    let (Some(finding), None) = (of_lane.next(), of_lane.next()) else { panic!("{lane:?}: {report:#?}") };
    assert!(report.findings.iter().all(|finding| finding.name == name), "{name}: {report:#?}");
    finding
}

/// The spool of `worked`, damaged: what is said of it, sound and damaged. The agent starts all the same.
fn damaged(damage: impl FnOnce(&Path)) -> (Report, Report) {
    let folder = tempfile::tempdir().expect("a folder");
    worked(folder.path(), small(folder.path()));
    let sound = look(folder.path());
    damage(folder.path());
    age(folder.path());
    let before = content(folder.path());
    let report = look(folder.path());
    assert!(before == content(folder.path()), "nothing is changed");
    drain(&mut start(small(folder.path())).expect("damage does not keep it from opening"));
    (sound, report)
}

#[test]
fn a_flipped_byte_of_a_journal_costs_what_it_is_in() {
    let mut victim = String::new();
    let (sound, report) = damaged(|folder| {
        let journal = named(folder, "journal-").pop().expect("a journal");
        victim = name(&journal);
        change(&journal, |bytes| bytes[30] ^= 1); // its first frame is an event
    });
    let finding = only(&report, &victim, Some("events"));
    assert_eq!((finding.lost, finding.told, finding.delivered), (Some(1), false, false));
    assert_eq!(report.readable["events"] + 1, sound.readable["events"]);
    let (from, to) = finding.span.expect("dated");
    assert!(from <= to && from >= time_of(0), "{finding:?}");
}

#[test]
fn a_torn_end_is_no_damage() {
    for tear in [|bytes: &mut Vec<u8>| bytes.extend([0xA5; 100]), |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3)]
    {
        let (_, report) = damaged(|folder| change(&named(folder, "journal-").pop().expect("a journal"), tear));
        assert_eq!(report.findings, []);
    }
}

#[test]
fn a_segment_of_zeros_is_lost_and_what_is_beside_it_is_not() {
    let mut victim = String::new();
    let (sound, report) = damaged(|folder| {
        let segment = named(folder, "seg-readings-").remove(1);
        victim = name(&segment);
        change(&segment.join("db"), |bytes| bytes.fill(0));
    });
    let finding = only(&report, &victim, Some("readings"));
    let lost = finding.lost.expect("its account is sound");
    assert_eq!((finding.readable, lost > 0), (0, true));
    assert_eq!(report.readable["readings"] + lost, sound.readable["readings"]);
    assert_eq!(report.readable["events"], sound.readable["events"]);
}

#[test]
fn a_segment_without_its_account_is_read_whole_and_nobody_knows_what_it_lacks() {
    let mut victim = String::new();
    let (sound, report) = damaged(|folder| {
        let segment = named(folder, "seg-readings-").remove(1);
        victim = name(&segment);
        change(&segment.join("meta"), |bytes| bytes[6] ^= 1);
    });
    let finding = only(&report, &victim, Some("readings"));
    assert_eq!((finding.lost, finding.span), (None, None));
    assert!(finding.readable > 0);
    assert_eq!(report.readable["readings"], sound.readable["readings"]);
}

#[test]
fn a_part_that_is_gone_is_a_hole() {
    let mut range = (0, 0);
    let (_, report) = damaged(|folder| {
        let segment = name(&named(folder, "seg-readings-").remove(1));
        let tail = segment.trim_start_matches("seg-readings-");
        let (first, last) = tail.split_once('-').expect("a range");
        range = (first.parse().expect("a number"), last.parse().expect("a number"));
        for lane in ["events", "readings", "model"] {
            named(folder, &format!("seg-{lane}-{tail}"))
                .iter()
                .for_each(|gone| fs::remove_dir_all(gone).expect("removes"));
        }
    });
    let finding = only(&report, &format!("sequences {} to {}", range.0, range.1), None);
    assert_eq!((finding.sequences, finding.lost), (Some(range), Some(range.1 + 1 - range.0)));
}

#[test]
fn the_small_files_are_read_too() {
    for small in ["cursor", "account", "catalog", "catalog-copy"] {
        let (sound, report) = damaged(|folder| fs::write(folder.join(small), b"garbage").expect("writes"));
        let finding = only(&report, small, None);
        assert!(finding.what.contains("damaged"), "{finding:?}");
        assert_eq!(report.readable, sound.readable);
    }
    let (sound, report) = damaged(|folder| {
        ["catalog", "catalog-copy"].iter().for_each(|name| fs::write(folder.join(name), b"garbage").expect("writes"));
    });
    let nameless =
        report.findings.iter().filter(|finding| finding.lane == Some("readings")).map(|finding| finding.lost);
    assert_eq!(nameless.map(|lost| lost.expect("counted")).sum::<u64>(), sound.readable["readings"]);
}

#[test]
fn a_cursor_ahead_of_all_there_is_does_not_agree() {
    let ahead = 1_000_000_u64.to_le_bytes();
    let content = [&crc32fast::hash(&ahead).to_le_bytes()[..], &ahead].concat();
    let (sound, report) = damaged(|folder| fs::write(folder.join("cursor"), content).expect("writes"));
    let finding = only(&report, "cursor", None);
    assert_eq!(finding.sequences, Some((sound.last + 1, 1_000_000)));
}

#[test]
fn a_spool_that_lost_its_beginning_has_no_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 20_000));
    assert_eq!(look(folder.path()).findings, [], "nothing is missing before the first checkpoint");
    fs::remove_dir_all(&named(folder.path(), "seg-readings-")[0]).expect("removes");
    only(&look(folder.path()), "checkpoint", None);
}

#[test]
fn what_the_agent_has_dealt_with_is_no_finding() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 20_000));
    let victim = named(folder.path(), "seg-readings-").remove(1);
    change(&victim.join("db"), |bytes| bytes[4_096..8_192].fill(0));
    let found = look(folder.path());
    let finding = only(&found, &name(&victim), Some("readings"));
    let lost = finding.lost.expect("counted");
    assert!(lost > 0 && finding.readable > lost, "{finding:?}");

    let mut spool = start(settings(folder.path())).expect("opens");
    let got = drain(&mut spool).len() as u64;
    assert_eq!((got, found.readable["readings"]), (20_000 - lost, 20_000 - lost), "the agent loses what was said");
    drop(spool);
    let report = look(folder.path());
    assert_eq!((report.set_aside, report.findings.as_slice()), (1, &[][..]));
}

/// A spool with one sealed segment a lane, journals, a checkpoint and a cursor; how many readings are in it. Its last commit has
/// none: damage there may look like a torn end, which was promised to nobody.
fn smallest(path: &Path) -> u64 {
    const APART: u64 = 9_000_000;
    let mut spool = start(small(path)).expect("opens");
    spool.writer.append(&event(APART));
    let mut count = 0;
    while named(path, "seg-readings-").is_empty() {
        spool.writer.append(&readings(count..count + 100));
        spool.writer.commit(time_of(count + 100)).expect("commits");
        spool.sealer.work().expect("keeps house");
        count += 100;
        assert!(count < 100_000, "nothing is sealed");
    }
    spool.writer.checkpoint(Seq(1), b"the model's state");
    spool.writer.append(&event(APART));
    spool.writer.commit(time_of(count)).expect("commits");
    let chunk = spool.reader.next(1).expect("reads").expect("a chunk");
    spool.reader.acknowledge(chunk.last).expect("acknowledges");
    count
}

/// Every 512th byte, and the middle of what is shorter. Of blocks that are the same byte throughout (sled's padding, the reserve)
/// only each `padding` bytes one.
fn places(bytes: &[u8], padding: usize) -> Vec<usize> {
    let blocks = bytes.chunks(512).enumerate().map(|(number, block)| (number * 512, block));
    let worth = |at: &usize, block: &[u8]| at.is_multiple_of(padding) || block.iter().any(|byte| *byte != block[0]);
    let mut places: Vec<usize> = blocks.filter(|(at, block)| worth(at, block)).map(|(at, _)| at).collect();
    if (2..512).contains(&bytes.len()) {
        places.push(bytes.len() / 2);
    }
    places
}

/// Flips one byte after another. Whatever it hits: `verify` ends and says so, the agent starts, and gives what `verify` found
/// readable, in order.
fn flip_in_turn(padding: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let base = folder.path().join("base");
    let count = smallest(&base);
    let all = content(&base);
    let flips: Vec<(PathBuf, usize)> =
        all.iter().flat_map(|(path, bytes)| places(bytes, padding).into_iter().map(|at| (path.clone(), at))).collect();
    assert!(flips.len() > 50, "{} places", flips.len());
    for kind in ["journal-", "seg-readings-", "seg-events-", "catalog", "cursor"] {
        assert!(flips.iter().any(|(path, _)| path.to_string_lossy().contains(kind)), "no {kind} in {:?}", all.keys());
    }
    let (done, outcomes) = mpsc::channel();
    let root = folder.path().to_owned();
    let worker = std::thread::spawn(move || {
        for (path, at) in flips {
            let work = root.join("work");
            copy_tree(&base, &work);
            let victim = work.join(path.strip_prefix(&base).expect("within"));
            change(&victim, |bytes| bytes[at] ^= 0xFF);
            age(&work);
            let report = look(&work);
            let mut spool = start(small(&work)).unwrap_or_else(|error| panic!("{} at {at}: {error}", path.display()));
            let mut got = drain(&mut spool);
            got.retain(|number| *number < 9_000_000);
            drop(spool);
            fs::remove_dir_all(&work).expect("removes");
            done.send((path, at, report, got)).expect("somebody listens");
        }
    });
    let mut hurt = 0;
    // Generous: a flip takes some 50 ms, and only a hang would take this long.
    while let Ok((path, at, report, got)) = outcomes.recv_timeout(Duration::from_secs(120)) {
        let place = format!("{} at {at}", path.display());
        assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "{place}: in order, each once");
        assert_eq!(got.len() as u64, report.readable["readings"], "{place}: {report:#?}");
        assert!(!report.is_sound() || got.len() as u64 == count, "{place}: lost, and called sound");
        hurt += usize::from(!report.is_sound());
    }
    worker.join().expect("no panic, and no hang");
    assert!(hurt > 20, "{hurt} flips were found");
}

#[test]
fn with_any_byte_flipped_the_agent_starts_and_gives_what_is_readable() {
    flip_in_turn(16 << 10);
}

#[test]
#[ignore = "takes minutes: every 512th byte of the padding, too"]
fn with_any_byte_flipped_even_of_the_padding_the_agent_starts() {
    flip_in_turn(512);
}

fn gemba(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gemba")).args(arguments).output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_ends_with_0_when_sound_and_with_1_when_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    worked(&spool, small(&spool));
    let path = spool.display().to_string();
    let verify = |format| gemba(&["spool", "verify", "--path", &path, "--format", format]);
    let (code, said, complaint) = verify("table");
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{said}");
    assert!(said.contains("verdict           sound") && said.contains("4000 readings"), "{said}");

    change(&named(&spool, "seg-readings-")[1].join("db"), |bytes| bytes.fill(0));
    let letters = spool.join("dead-letters");
    fs::create_dir_all(&letters).expect("a folder");
    fs::write(letters.join("letter-00000007"), "{ nonsense").expect("writes");
    let (code, said, complaint) = verify("table");
    assert_eq!((code, complaint.as_str()), (Some(1), ""));
    assert!(said.contains("2 findings") && said.contains("dead letter 7") && said.contains("seg-readings-"), "{said}");
    let (code, said, _) = verify("json");
    let json: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &json["sound"]), (Some(1), &Json::from(false)));
    let [segment, letter] = json["findings"].as_array().expect("a list").as_slice() else { panic!("{json}") };
    assert_eq!((&segment["lane"], &segment["readable"]), (&Json::from("readings"), &Json::from(0)));
    let lost = segment["lost"].as_u64().expect("a number");
    assert_eq!(json["readable"]["readings"].as_u64(), Some(4_000 - lost));
    assert_eq!((&letter["name"], &letter["lost"]), (&Json::from("dead letter 7"), &Json::Null));

    let (code, said, complaint) = gemba(&["spool", "verify", "--path", &folder.path().display().to_string()]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(complaint.contains("there is no spool"), "{complaint}");
}

#[test]
fn the_status_tells_each_lane() {
    let folder = tempfile::tempdir().expect("a folder");
    worked(folder.path(), small(folder.path()));
    let path = folder.path().display().to_string();
    let (code, said, _) = gemba(&["spool", "status", "--path", &path, "--format", "json"]);
    let json: Json = serde_json::from_str(&said).expect("JSON");
    let lanes = json["lanes"].as_array().expect("a list");
    let names: Vec<_> = lanes.iter().map(|lane| lane["lane"].as_str().expect("a word")).collect();
    assert_eq!((code, names), (Some(0), vec!["events", "kpis", "readings", "telemetry", "model"]));
    let status = status(folder.path()).expect("looks");
    assert_eq!((status.lanes[2].records, status.lanes[0].records), (status.readings, status.records - status.readings));
    assert_eq!(lanes[2]["records"], status.readings);
    assert_eq!((status.lanes[1].records, status.lanes[1].bytes, status.lanes[1].oldest), (0, 0, None));
    assert!(status.lanes[0].bytes > 0 && status.lanes[2].bytes > status.lanes[2].records, "{status:?}");
    assert_eq!(status.lanes.iter().filter_map(|lane| lane.oldest).min(), status.oldest);
    let (_, said, _) = gemba(&["spool", "status", "--path", &path]);
    let row = said.lines().find(|line| line.starts_with("readings")).expect("a row");
    assert!(row.contains(&status.readings.to_string()), "{said}");
}
