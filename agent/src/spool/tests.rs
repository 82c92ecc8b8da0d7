//! The spool against a model of itself, and against damage.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gemba_drivers::{Loss, Time, Validity, Value};
use proptest::prelude::*;
use tempfile::TempDir;

use super::columns::tests::any_reading;
use super::files::{Listing, journal_name};
use super::frame::Frames;
use super::*;
use crate::model::State;

pub(super) fn settings(path: &Path, journal_size: u64) -> Settings {
    Settings { path: path.to_owned(), max_size: 1 << 30, keep_free: 0, keep: Duration::ZERO, journal_size }
}

/// A spool without what it found at its opening.
struct Live {
    writer: Writer,
    reader: Reader,
    sealer: Sealer,
}

fn open_with(settings: Settings) -> (Live, Recovery) {
    let Opened { writer, reader, sealer, recovery, .. } = open(settings, &[]).expect("opens");
    (Live { writer, reader, sealer }, recovery)
}

fn start(path: &Path) -> (Live, Recovery) {
    open_with(settings(path, 4 << 10))
}

fn reading(number: u64) -> StoredReading {
    StoredReading {
        series: SeriesId(number as u32 % 7),
        value: Value::Int(number as i64),
        validity: Validity::Good,
        source_time: Time(number as i64 * 1_000),
        received_time: Time(number as i64 * 1_000 + 7),
    }
}

fn readings(numbers: std::ops::Range<u64>) -> Entry {
    Entry::Readings(numbers.map(reading).collect())
}

fn event(number: u64) -> Entry {
    let record = Record::StateChanged {
        station: "press".into(),
        time: Time(number as i64),
        from: State::Down,
        to: State::Producing,
    };
    Entry::Record { cause: Some(Seq(number)), record }
}

/// Everything that upstream does not have, without acknowledging it piece by piece more than needed.
fn drain(reader: &mut Reader) -> Vec<Entry> {
    let mut all = Vec::new();
    while let Some(chunk) = reader.next(1_000).expect("reads") {
        all.extend(chunk.entries.into_iter().map(|(_, entry)| entry));
        reader.acknowledge(chunk.last).expect("acknowledges");
    }
    all
}

/// Readings one by one, everything else as it is: frames may split a batch.
fn items(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let split = |entry| match entry {
        Entry::Readings(readings) => readings.into_iter().map(|reading| Entry::Readings(vec![reading])).collect(),
        other => vec![other],
    };
    entries.into_iter().flat_map(split).collect()
}

fn numbers(entries: Vec<Entry>) -> Vec<u64> {
    let number = |entry| match entry {
        Entry::Readings(readings) => match readings[0].value {
            Value::Int(number) => number as u64,
            _ => panic!("not a number"),
        },
        _ => panic!("not a reading"),
    };
    items(entries).into_iter().map(number).collect()
}

/// Rounds of house-keeping until nothing is left to do.
fn keep_house(sealer: &mut Sealer) -> Worked {
    let mut all = Worked::default();
    loop {
        let worked = sealer.work().expect("keeps house");
        all.losses.extend(worked.losses);
        all.sealed += worked.sealed;
        all.removed += worked.removed;
        all.dropped += worked.dropped;
        if !worked.more {
            return all;
        }
    }
}

/// The folder as a kill -9 would leave it.
fn image(of: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    copy_tree(of, copy.path());
    copy
}

fn copy_tree(from: &Path, to: &Path) {
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

fn listing(path: &Path) -> Listing {
    Listing::read(path).expect("lists")
}

/// A spool whose first readings, `0..count`, are sealed, and whose last are in journals.
fn sealed(path: &Path, count: u64) -> Live {
    let (mut spool, _) = start(path);
    for batch in 0..count / 100 {
        spool.writer.append(&readings(batch * 100..batch * 100 + 100));
        spool.writer.append(&event(batch));
        spool.writer.commit(Time(batch as i64 + 1)).expect("commits");
    }
    assert!(keep_house(&mut spool.sealer).sealed > 0, "nothing was sealed");
    spool
}

#[derive(Clone, Debug)]
enum Step {
    Readings(Vec<StoredReading>),
    Event(u64),
    Tick(i64),
    Commit,
    Checkpoint(usize),
    /// Look at so many, acknowledge that much of it (in 1/4), look again.
    Forward(usize, usize),
    KeepHouse,
    Restart,
    Crash,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(any_reading(), 1..400).prop_map(Step::Readings),
        3 => any::<u64>().prop_map(Step::Event),
        1 => any::<i64>().prop_map(Step::Tick),
        6 => Just(Step::Commit),
        2 => (0_usize..9_000).prop_map(Step::Checkpoint),
        4 => (0_usize..900, 0_usize..5).prop_map(|(max, part)| Step::Forward(max, part)),
        3 => Just(Step::KeepHouse),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// What the spool should be: a list.
#[derive(Default)]
struct Model {
    /// Ticks included, item by item.
    durable: Vec<Entry>,
    open: Vec<Entry>,
    /// Index into `durable` up to which upstream has it, and up to which that is durable itself.
    acknowledged: usize,
    acknowledged_durably: usize,
    /// Index into `durable`, sequence and state.
    checkpoint: Option<(usize, Seq, Vec<u8>)>,
    open_checkpoint: Option<(usize, Seq, Vec<u8>)>,
    last: Seq,
    now: i64,
}

impl Model {
    fn append(&mut self, spool: &mut Live, entry: Entry) {
        let last = spool.writer.append(&entry);
        assert!(last > self.last, "sequences only grow");
        self.last = last;
        self.open.extend(items([entry]));
    }

    fn commit(&mut self, spool: &mut Live) {
        if spool.writer.pending_bytes() > 0 {
            self.now += 1;
            self.acknowledged_durably = self.acknowledged;
        }
        let last = spool.writer.commit(Time(self.now)).expect("commits");
        assert!(last >= self.last);
        self.last = last;
        self.durable.append(&mut self.open);
        self.checkpoint = self.open_checkpoint.take().or(self.checkpoint.take());
    }

    fn pending(&self) -> Vec<Entry> {
        let upstream = |entry: &&Entry| !matches!(entry, Entry::Tick(_));
        self.durable[self.acknowledged..].iter().filter(upstream).cloned().collect()
    }

    fn forward(&mut self, spool: &mut Live, max: usize, part: usize) {
        let pending = self.pending();
        let Some(chunk) = spool.reader.next(max).expect("reads") else {
            assert_eq!(pending, [], "the reader misses something");
            return;
        };
        let given = items(chunk.entries.iter().map(|(_, entry)| entry.clone()));
        assert!(!given.is_empty() && (chunk.entries.len() == 1 || given.len() <= max));
        assert_eq!(given, pending[..given.len()]);
        let readings = given.iter().filter(|entry| matches!(entry, Entry::Readings(_))).count();
        assert_eq!(chunk.readings, readings);
        assert_eq!(spool.reader.next(max).expect("reads").as_ref(), Some(&chunk), "a look changes nothing");

        let count = chunk.entries.len() * part / 4;
        let through = if part == 4 { Some(chunk.last) } else { count.checked_sub(1).map(|last| chunk.entries[last].0) };
        let Some(through) = through else { return };
        spool.reader.acknowledge(through).expect("acknowledges");
        let done = items(chunk.entries[..count].iter().map(|(_, entry)| entry.clone())).len();
        self.skip(done);
    }

    /// Upstream has `count` more items.
    fn skip(&mut self, mut count: usize) {
        while count > 0 {
            count -= usize::from(!matches!(self.durable[self.acknowledged], Entry::Tick(_)));
            self.acknowledged += 1;
        }
    }

    fn check(&self, spool: &Live) {
        let pending = self.pending();
        let view = spool.writer.view();
        assert_eq!(view.records, pending.len() as u64);
        let readings = pending.iter().filter(|entry| matches!(entry, Entry::Readings(_))).count();
        assert_eq!(view.readings, readings as u64);
        assert_eq!(view.oldest.is_some(), !pending.is_empty());
        assert_eq!(view.dropped, 0);
    }

    /// Opens what is in `path`, and compares what is found.
    fn reopen(&mut self, path: &Path) -> Live {
        self.open.clear();
        self.open_checkpoint = None;
        let (spool, recovery) = start(path);
        assert_eq!(recovery.losses, []);
        assert_eq!(recovery.last_commit, (self.now > 0).then_some(Time(self.now)));
        assert_eq!(recovery.checkpoint, self.checkpoint.clone().map(|(_, through, state)| (through, state)));
        self.last = recovery.last;
        let from = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.0);
        let again: Vec<Entry> = recovery.entries().map(|entry| entry.expect("reads").1).collect();
        assert_eq!(items(again), self.durable[from..]);
        spool
    }

    /// After a crash upstream may have more than is known: whatever was acknowledged since the last commit.
    fn find_acknowledged(&mut self, spool: &Live) {
        let pending = spool.writer.view().records;
        let latest = self.acknowledged;
        self.acknowledged = self.acknowledged_durably;
        while self.pending().len() as u64 > pending && self.acknowledged < latest {
            self.acknowledged += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_list_that_survives(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut folder = tempfile::tempdir().expect("a folder");
        let mut model = Model::default();
        let (mut spool, _) = start(folder.path());
        for step in steps {
            match step {
                Step::Readings(readings) => model.append(&mut spool, Entry::Readings(readings)),
                Step::Event(number) => model.append(&mut spool, event(number)),
                Step::Tick(time) => model.append(&mut spool, Entry::Tick(Time(time))),
                Step::Commit => model.commit(&mut spool),
                Step::Checkpoint(size) => {
                    let state: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
                    spool.writer.checkpoint(model.last, &state);
                    model.open_checkpoint = Some((model.durable.len() + model.open.len(), model.last, state));
                }
                Step::Forward(max, part) => model.forward(&mut spool, max, part),
                Step::KeepHouse => {
                    let worked = keep_house(&mut spool.sealer);
                    prop_assert_eq!((worked.losses.len(), worked.dropped), (0, 0));
                }
                Step::Restart => {
                    drop(spool);
                    spool = model.reopen(folder.path());
                }
                Step::Crash => {
                    let copy = image(folder.path());
                    drop(spool);
                    folder = copy;
                    spool = model.reopen(folder.path());
                    model.find_acknowledged(&spool);
                }
            }
            if model.open.is_empty() {
                model.check(&spool);
            }
        }
        model.commit(&mut spool);
        prop_assert_eq!(items(drain(&mut spool.reader)), model.pending());
    }
}
