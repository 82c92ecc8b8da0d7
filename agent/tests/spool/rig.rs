//! What these tests share: numbered entries, a spool to put them in, and this program started again as a child.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gemba::record::Record;
use gemba::spool::{Entry, Opened, Series, SeriesId, Settings, SpoolError, StoredReading, open};
use gemba_drivers::{Time, Validity, Value};

/// In a child's environment: the spool's folder. Without it a child's test has nothing to do.
pub const FOLDER: &str = "GEMBA_TEST_SPOOL";

/// Journals of 16 KiB, so that little is much.
pub fn settings(path: &Path) -> Settings {
    Settings { path: path.to_owned(), max_size: 1 << 30, keep_free: 0, keep: Duration::ZERO, journal_size: 16 << 10 }
}

/// Opens it, for one series: the tag `count` of the station `press`.
pub fn start(settings: Settings) -> Result<Opened, SpoolError> {
    let series = Series { station: "press".into(), tag: "count".into(), unit: None, metric: None, text: false };
    open(settings, &[series])
}

/// When the reading of that number was made: a millisecond after the one before, from 2026-03-02T06:00:00Z on.
pub fn time_of(number: u64) -> Time {
    Time(1_772_431_200_000_000_000 + number as i64 * 1_000_000)
}

/// Readings that say their numbers.
pub fn readings(numbers: std::ops::Range<u64>) -> Entry {
    let reading = |number| StoredReading {
        series: SeriesId(0),
        value: Value::Int(number as i64),
        validity: Validity::Good,
        source_time: time_of(number),
        received_time: time_of(number),
        backfilled: false,
    };
    Entry::Readings(numbers.map(reading).collect())
}

/// An event that says its number.
pub fn event(number: u64) -> Entry {
    let to = Arc::from(number.to_string());
    let record =
        Record::TagChanged { station: "press".into(), tag: "number".into(), time: time_of(number), from: None, to };
    Entry::Record { cause: None, record }
}

/// The numbers that an entry says; a tick says none.
pub fn numbers(entry: &Entry) -> Vec<u64> {
    match entry {
        Entry::Readings(readings) => readings.iter().map(|reading| number(&reading.value)).collect(),
        Entry::Record { record: Record::TagChanged { to, .. }, .. } => vec![to.parse().expect("a number")],
        Entry::Record { record, .. } => panic!("nobody wrote {record:?}"),
        Entry::Tick(_) | Entry::Deliveries { .. } | Entry::Filters { .. } | Entry::Telemetry(_) => Vec::new(),
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => *number as u64,
        other => panic!("not a number: {other:?}"),
    }
}

/// Everything that upstream does not have; upstream has it afterwards.
pub fn drain(spool: &mut Opened) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(chunk) = spool.reader.next(1_000).expect("reads") {
        all.extend(chunk.entries.iter().flat_map(|(_, entry)| numbers(entry)));
        spool.reader.acknowledge(chunk.last).expect("acknowledges");
    }
    all
}

/// A backlog of `count` readings, sealed but for the last journals.
pub fn sealed(path: &Path, count: u64) -> Opened {
    let mut spool = start(settings(path)).expect("opens");
    for batch in 0..count / 100 {
        spool.writer.append(&readings(batch * 100..batch * 100 + 100));
        spool.writer.commit(time_of(batch * 100 + 100)).expect("commits");
    }
    while spool.sealer.work().expect("keeps house").more {}
    spool
}

/// A copy of a folder.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// This program again, to run one test of it as a child on the spool in `folder`; `program` is what it is run by, if
/// not by itself.
pub fn child(test: &str, folder: &Path, program: &[&str]) -> Command {
    let exe = std::env::current_exe().expect("this program has a path");
    let mut command = match program {
        [] => Command::new(&exe),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&exe);
            command
        }
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    command
}

/// Numbers that look random and are the same again for the same seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// One of `0..sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}
