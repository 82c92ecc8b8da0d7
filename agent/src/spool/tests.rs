//! The spool against a model of itself, and against damage.

mod regressions;

use std::fs;
use std::path::Path;
use std::time::Duration;

use gemba_drivers::{Loss, Time, Validity, Value};
use proptest::prelude::*;
use tempfile::TempDir;

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
    open_with(settings(path, 2 << 10))
}

fn reading(number: u64) -> StoredReading {
    StoredReading {
        series: SeriesId(number as u32 % 7),
        value: Value::Int(number as i64),
        validity: Validity::Good,
        source_time: Time(number as i64 * 1_000),
        received_time: Time(number as i64 * 1_000 + 7),
        backfilled: false,
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

/// Of the agent's own telemetry, longer than a frame at times.
fn own(number: u64) -> Entry {
    let body = vec![number as u8; number as usize * 37 % 5_000].into();
    Entry::Telemetry(Own { signal: Signal::Traces, items: number % 4 + 1, time: Time(number as i64), body })
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

/// How many of them somebody waits for: the agent's own telemetry is not counted.
fn records(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| !matches!(entry, Entry::Telemetry(_))).count() as u64
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
    Readings(u64),
    Event(u64),
    Own,
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
        5 => (1_u64..400).prop_map(Step::Readings),
        3 => any::<u64>().prop_map(Step::Event),
        2 => Just(Step::Own),
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
        assert_eq!(view.records, records(&pending));
        let readings = pending.iter().filter(|entry| matches!(entry, Entry::Readings(_))).count();
        assert_eq!(view.readings, readings as u64);
        assert_eq!(view.oldest.is_some(), view.records > 0);
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
    fn find_acknowledged(&mut self, spool: &mut Live) {
        let count = spool.writer.view().records;
        let first = spool.reader.next(1).expect("reads").map(|chunk| chunk.entries.into_iter().map(|(_, entry)| entry));
        let first = first.and_then(|entries| items(entries).into_iter().next());
        let latest = self.acknowledged;
        self.acknowledged = self.acknowledged_durably;
        let found = |pending: &[Entry]| records(pending) <= count && pending.first() == first.as_ref();
        while self.acknowledged < latest && !found(&self.pending()) {
            self.acknowledged += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_list_that_survives(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut folder = tempfile::tempdir().expect("a folder");
        let mut model = Model::default();
        let (mut spool, _) = start(folder.path());
        let mut made = 0;
        for step in steps {
            match step {
                Step::Readings(count) => {
                    model.append(&mut spool, readings(made..made + count));
                    made += count;
                }
                Step::Event(number) => model.append(&mut spool, event(number)),
                Step::Own => {
                    model.append(&mut spool, own(made));
                    made += 1;
                }
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
                    model.find_acknowledged(&mut spool);
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

#[test]
fn a_journal_cut_anywhere_in_its_last_commit_keeps_all_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = open_with(settings(folder.path(), 1 << 20));
    spool.writer.append(&readings(0..300));
    spool.writer.checkpoint(Seq(1), b"first");
    spool.writer.commit(Time(1)).expect("commits");
    let path = folder.path().join(journal_name(1));
    let durable = fs::metadata(&path).expect("is there").len();
    spool.writer.append(&readings(300..320));
    spool.writer.append(&event(1));
    spool.writer.checkpoint(Seq(2), b"second");
    spool.writer.commit(Time(2)).expect("commits");
    drop(spool);
    let whole = fs::read(&path).expect("reads");

    for cut in durable as usize..=whole.len() {
        fs::write(&path, &whole[..cut]).expect("writes");
        let (mut spool, recovery) = start(folder.path());
        assert_eq!(recovery.losses, [], "cut at {cut}");
        let all = cut == whole.len();
        let (state, time) = if all { (&b"second"[..], Time(2)) } else { (&b"first"[..], Time(1)) };
        assert_eq!(recovery.checkpoint.as_ref().map(|(_, state)| &state[..]), Some(state), "cut at {cut}");
        assert_eq!(recovery.last_commit, Some(time));
        drop(recovery);
        let drained = drain(&mut spool.reader);
        assert_eq!(items(drained).len(), if all { 321 } else { 300 }, "cut at {cut}");
        drop(spool);
        fs::remove_file(folder.path().join("cursor")).expect("forgets what was acknowledged");
    }
}

#[test]
fn a_new_journal_goes_on_after_a_torn_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    spool.writer.append(&readings(0..10));
    spool.writer.commit(Time(1)).expect("commits");
    spool.writer.append(&readings(10..20));
    spool.writer.commit(Time(2)).expect("commits");
    drop(spool);
    let path = folder.path().join(journal_name(1));
    let whole = fs::read(&path).expect("reads");
    fs::write(&path, &whole[..whole.len() - 1]).expect("writes");
    for round in 0..3 {
        let (mut spool, recovery) = start(folder.path());
        assert_eq!((recovery.losses.len(), recovery.last.0), (0, 2 + 2 * round));
        spool.writer.append(&readings(20 + round..21 + round));
        spool.writer.commit(Time(3)).expect("commits");
    }
    let (mut spool, recovery) = start(folder.path());
    assert_eq!(recovery.losses, []);
    assert_eq!(numbers(drain(&mut spool.reader)), (0..10).chain(20..23).collect::<Vec<_>>());
}

/// Readings that came back, and readings that are said to be lost.
fn outcome(path: &Path) -> (Vec<u64>, u64) {
    let (mut spool, recovery) = start(path);
    let mut lost: u64 = recovery.losses.iter().map(|loss| loss.count).sum();
    drop(recovery);
    let mut got = numbers(drain(&mut spool.reader));
    lost += keep_house(&mut spool.sealer).losses.iter().map(|loss| loss.count).sum::<u64>();
    got.extend(numbers(drain(&mut spool.reader)));
    (got, lost)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any byte of any commit but the last: what is gone is said to be gone, to the reading; the rest is there.
    #[test]
    fn a_flipped_byte_in_a_journal_costs_a_frame_and_is_told(place: prop::sample::Index, flip in 1_u8..) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spool, _) = open_with(settings(folder.path(), 1 << 20));
        let mut before_last = 0;
        for batch in 0..8_u64 {
            before_last = fs::metadata(folder.path().join(journal_name(1))).map_or(0, |meta| meta.len());
            spool.writer.append(&readings(batch * 50..batch * 50 + 25));
            spool.writer.append(&readings(batch * 50 + 25..batch * 50 + 50));
            spool.writer.commit(Time(batch as i64)).expect("commits");
        }
        drop(spool);
        let path = folder.path().join(journal_name(1));
        let mut bytes = fs::read(&path).expect("reads");
        bytes[place.index(before_last as usize)] ^= flip;
        fs::write(&path, bytes).expect("writes");
        let (got, lost) = outcome(folder.path());
        prop_assert_eq!(got.len() as u64 + lost, 400);
        prop_assert!(lost <= 25 && got.is_sorted());
        // Told once: the loss is in the account until a record of it is committed, and damage is not counted again.
        let (spool, recovery) = start(folder.path());
        prop_assert_eq!(recovery.losses.iter().map(|loss| loss.count).sum::<u64>(), lost);
        drop((spool, recovery));
    }

    /// Random bytes anywhere in the folder, last commit included: it opens, and invents nothing.
    #[test]
    fn garbage_in_any_file_never_panics(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spool, _) = start(folder.path());
        for batch in 0..9_u64 {
            spool.writer.append(&readings(batch * 100..batch * 100 + 100));
            spool.writer.checkpoint(Seq(0), &[7; 100]);
            spool.writer.commit(Time(batch as i64)).expect("commits");
        }
        drop(spool);
        let files: Vec<_> = fs::read_dir(folder.path()).expect("lists").map(|entry| entry.expect("an entry").path()).collect();
        for (file, place, with) in hits {
            let path = &files[file.index(files.len())];
            let mut bytes = fs::read(path).expect("reads");
            if !bytes.is_empty() {
                let at = place.index(bytes.len());
                bytes[at] = with;
                fs::write(path, bytes).expect("writes");
            }
        }
        let (got, _) = outcome(folder.path());
        prop_assert!(got.is_sorted() && got.iter().all(|number| *number < 900));
    }
}

#[test]
fn a_loss_is_told_at_every_start_until_a_record_of_it_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    for batch in 0..3 {
        spool.writer.append(&readings(batch * 10..batch * 10 + 10));
        spool.writer.commit(Time(batch as i64)).expect("commits");
    }
    drop(spool);
    let path = folder.path().join(journal_name(1));
    let mut bytes = fs::read(&path).expect("reads");
    bytes[40] ^= 1;
    fs::write(&path, bytes).expect("writes");
    for _ in 0..3 {
        let (_, recovery) = start(folder.path());
        assert_eq!(recovery.losses.len(), 1, "{:?}", recovery.losses);
    }
    let (mut spool, recovery) = start(folder.path());
    let loss = recovery.losses[0].clone();
    assert_eq!((&*loss.source, loss.count, &*loss.reason), ("readings", 10, "damaged on disk"));
    let record = Record::Loss { loss, total: 10, since: Time(0), at: Time(1) };
    spool.writer.append(&Entry::Record { cause: None, record });
    spool.writer.commit(Time(9)).expect("commits");
    drop((spool, recovery));
    let (mut spool, recovery) = start(folder.path());
    assert_eq!(recovery.losses, []);
    assert_eq!(drain(&mut spool.reader).len(), 3, "two batches and the loss");
}

#[test]
fn two_openers_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, recovery) = start(folder.path());
    let second = open(settings(folder.path(), 1), &[]).err().expect("refused");
    assert!(matches!(second, SpoolError::Held(_)), "{second}");
    assert!(second.to_string().contains("in use by another gemba"), "{second}");
    drop((spool, recovery));
    start(folder.path());
}

#[test]
fn a_path_that_cannot_be_a_spool_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("writes");
    let error = open(settings(&file, 1), &[]).err().expect("refused");
    assert!(matches!(error, SpoolError::NotAFolder(_)), "{error}");
    let error = open(settings(&file.join("below"), 1), &[]).err().expect("refused").to_string();
    assert!(error.contains("cannot make the folder") && error.contains("below"), "{error}");
    let error = open(settings(Path::new("/proc/gemba"), 1), &[]).err().expect("refused").to_string();
    assert!(error.contains("/proc/gemba"), "{error}");
}

#[test]
fn while_upstream_keeps_up_sled_is_not_touched_and_journals_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    for batch in 0..50 {
        let last = spool.writer.append(&readings(batch * 100..batch * 100 + 100));
        spool.writer.checkpoint(last, b"state");
        spool.writer.commit(Time(batch as i64)).expect("commits");
        drain(&mut spool.reader);
        let worked = keep_house(&mut spool.sealer);
        assert_eq!(worked.sealed, 0);
    }
    let listing = listing(folder.path());
    assert!(listing.sealed.is_empty() && listing.gaps.is_empty());
    assert!(listing.journals.len() <= 2, "{:?}", listing.journals);
    let view = spool.writer.view();
    assert_eq!((view.records, view.oldest), (0, None));
}

#[test]
fn without_a_checkpoint_nothing_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    for batch in 0..20 {
        spool.writer.append(&readings(batch * 100..batch * 100 + 100));
        spool.writer.commit(Time(batch as i64)).expect("commits");
        drain(&mut spool.reader);
        assert_eq!(keep_house(&mut spool.sealer).removed, 0);
    }
    drop(spool);
    let (_spool, recovery) = start(folder.path());
    let all = recovery.entries().map(|entry| entry.expect("reads").1).collect();
    assert_eq!(numbers(all), (0..2_000).collect::<Vec<_>>());
}

#[test]
fn what_upstream_has_is_kept_for_as_long_as_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = Settings { keep: Duration::from_secs(3_600), ..settings(folder.path(), 1) };
    let (mut spool, _) = open_with(keep);
    for (batch, at) in (0..20).zip([Time(5), Time::now()].into_iter().cycle()) {
        let last = spool.writer.append(&readings(batch * 400..batch * 400 + 400));
        spool.writer.checkpoint(last, b"state");
        spool.writer.commit(at).expect("commits");
        drain(&mut spool.reader);
    }
    // Every commit fills a journal of its own; every second one is from long ago.
    assert_eq!(keep_house(&mut spool.sealer).removed, 10);
}

#[test]
fn a_backlog_is_sealed_survives_and_drains_in_order_without_mixing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = sealed(folder.path(), 3_000);
    let before = listing(folder.path());
    assert!(before.sealed.len() > 3 && before.journals.len() <= 3, "{before:?}");
    drop(spool);
    let (mut spool, _) = start(folder.path());
    assert_eq!(spool.writer.view().readings, 3_000);
    spool.writer.append(&readings(3_000..3_100));
    spool.writer.append(&Entry::Tick(Time(1)));
    let last = spool.writer.append(&Entry::Tick(Time(2)));
    spool.writer.checkpoint(last, b"state");
    spool.writer.commit(Time(99)).expect("commits");
    keep_house(&mut spool.sealer);
    let (mut all, mut backlogs) = (Vec::new(), Vec::new());
    while let Some(chunk) = spool.reader.next(usize::MAX).expect("reads") {
        backlogs.push(chunk.backlog);
        all.extend(
            chunk.entries.into_iter().filter(|(_, entry)| matches!(entry, Entry::Readings(_))).map(|(_, entry)| entry),
        );
        spool.reader.acknowledge(chunk.last).expect("acknowledges");
    }
    assert_eq!(numbers(all), (0..3_100).collect::<Vec<_>>());
    assert!(backlogs.contains(&true) && backlogs.is_sorted_by(|a, b| a >= b), "{backlogs:?}");
    keep_house(&mut spool.sealer);
    let after = listing(folder.path());
    assert!(after.sealed.is_empty() && after.litter.is_empty(), "{after:?}");
}

#[test]
fn a_half_done_seal_is_done_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    for batch in 0..6 {
        spool.writer.append(&readings(batch * 400..batch * 400 + 400));
        spool.writer.append(&event(batch));
        spool.writer.commit(Time(1)).expect("commits");
    }
    let before = image(folder.path());
    keep_house(&mut spool.sealer);
    // Segments renamed, journals not removed yet; and one that was still being built.
    for entry in fs::read_dir(folder.path()).expect("lists").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("a name");
        if name.starts_with("seg-events") {
            copy_tree(&entry.path(), &before.path().join(&name));
        } else if name.starts_with("seg-") {
            copy_tree(&entry.path(), &before.path().join(format!("tmp-{name}")));
        }
    }
    let (mut spool, recovery) = start(before.path());
    assert_eq!(recovery.losses, []);
    let found = listing(before.path());
    assert!(found.sealed.is_empty() && found.litter.is_empty(), "{found:?}");
    assert_eq!(spool.writer.view().records, 2_406);
    assert!(keep_house(&mut spool.sealer).sealed >= 5);
    assert_eq!(items(drain(&mut spool.reader)).len(), 2_406);
}

#[test]
fn the_bound_holds_and_every_dropped_reading_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let max_size = 6 << 20;
    let bound = Settings { max_size, ..settings(folder.path(), 64 << 10) };
    let (mut spool, _) = open_with(bound.clone());
    let mut losses: Vec<Loss> = Vec::new();
    for batch in 0..120 {
        spool.writer.append(&readings(batch * 5_000..batch * 5_000 + 5_000));
        spool.writer.append(&event(batch));
        spool.writer.commit(Time(batch as i64 + 1)).expect("commits");
        losses.extend(keep_house(&mut spool.sealer).losses);
        assert!(spool.writer.view().bytes <= max_size);
    }
    let view = spool.writer.view();
    assert!(!losses.is_empty());
    let total = |source: &str| losses.iter().filter(|loss| &*loss.source == source).map(|loss| loss.count).sum::<u64>();
    assert!(losses.iter().all(|loss| &*loss.reason == "spool full" && loss.from <= loss.to));
    assert_eq!(total("readings"), view.dropped);
    assert_eq!(view.readings + total("readings"), 600_000);
    assert_eq!(view.records - view.readings + total("events"), 120);
    drop(spool);
    let (mut spool, recovery) = open_with(bound);
    assert_eq!(recovery.losses, losses, "no record of them was committed");
    assert_eq!(spool.writer.view().dropped, view.dropped);
    drop(recovery);
    let got = drain(&mut spool.reader);
    let got = items(got.into_iter().filter(|entry| matches!(entry, Entry::Readings(_)))).len() as u64;
    assert_eq!(got, view.readings, "the oldest went, whole, and nothing else");
}

/// Flips bytes of a sealed readings segment's files.
fn damage(path: &Path, file: &str, places: impl Iterator<Item = usize>) {
    let (first, (last, _)) = listing(path).sealed.pop_first().expect("a sealed part");
    let segment = files::Segment { lane: Lane::Readings, first, last };
    let path = path.join(segment.name()).join(file);
    let mut bytes = fs::read(&path).expect("reads");
    for place in places {
        let place = place % bytes.len();
        bytes[place] ^= 0x55;
    }
    fs::write(&path, bytes).expect("writes");
}

#[test]
fn a_damaged_segment_is_set_aside_saved_and_accounted_for() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 3_000));
    for (file, places) in [
        ("db", vec![2_000]),
        ("db", (0..40).map(|place| place * 97).collect()),
        ("db", (0..100_000).collect()),
        ("conf", vec![3, 5, 7]),
        ("meta", vec![6]),
    ] {
        let copy = image(folder.path());
        damage(copy.path(), file, places.iter().copied());
        let (mut spool, recovery) = start(copy.path());
        assert_eq!(recovery.losses, []);
        drop(recovery);
        let got = drain(&mut spool.reader);
        let got = numbers(got.into_iter().filter(|entry| matches!(entry, Entry::Readings(_))).collect());
        assert!(got.is_sorted());
        let losses = keep_house(&mut spool.sealer).losses;
        let lost: u64 = losses.iter().map(|loss| loss.count).sum();
        assert_eq!(got.len() as u64 + lost, 3_000, "{file} {losses:?}");
        if got.len() < 3_000 {
            assert!(losses.iter().all(|loss| &*loss.source == "readings"), "{losses:?}");
        }
        drop(spool);
        // What was saved is a segment again, and the account outlasts a restart.
        let (_spool, recovery) = start(copy.path());
        assert_eq!(recovery.losses, losses);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_in_a_segment_never_panics_and_adds_up(
        places in prop::collection::vec(0_usize..600_000, 1..50), snapshot: bool
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        drop(sealed(folder.path(), 800));
        let name = listing(folder.path()).sealed.iter().next().map(|(first, (last, _))| {
            files::Segment { lane: Lane::Readings, first: *first, last: *last }.name()
        });
        let segment = folder.path().join(name.expect("a sealed part"));
        let file = fs::read_dir(&segment).expect("lists").map(|entry| entry.expect("an entry").file_name());
        let file = file.filter_map(|name| name.into_string().ok()).find(|name| name.starts_with("snap.") && snapshot);
        damage(folder.path(), file.as_deref().unwrap_or("db"), places.into_iter());
        let (mut spool, recovery) = start(folder.path());
        let mut losses = recovery.losses;
        let got = drain(&mut spool.reader).into_iter().filter(|entry| matches!(entry, Entry::Readings(_))).collect();
        losses.extend(keep_house(&mut spool.sealer).losses);
        let lost: u64 = losses.iter().map(|loss| loss.count).sum();
        prop_assert_eq!(numbers(got).len() as u64 + lost, 800);
    }
}

#[test]
fn a_missing_part_is_a_loss_once() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 3_000));
    let (first, (last, lanes)) = listing(folder.path()).sealed.into_iter().nth(1).expect("a second part");
    for lane in lanes {
        fs::remove_dir_all(folder.path().join(files::Segment { lane, first, last }.name())).expect("removes");
    }
    for _ in 0..2 {
        let (_, recovery) = start(folder.path());
        let [loss] = &recovery.losses[..] else { panic!("{:?}", recovery.losses) };
        assert_eq!((&*loss.source, loss.count, &*loss.reason), ("spool", last + 1 - first, "missing on disk"));
    }
}

#[test]
fn a_frame_in_every_journal_is_sound() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    let long = StoredReading { value: Value::Text("x".repeat(50_000).into()), ..reading(1) };
    spool.writer.append(&Entry::Readings(vec![reading(0), long.clone(), reading(2)]));
    spool.writer.append(&readings(3..900));
    spool.writer.commit(Time(1)).expect("commits");
    let bytes = fs::read(folder.path().join(journal_name(1))).expect("reads");
    let long_frames = Frames::sound(&bytes, 0).filter(|frame| frame.raw.len() > 4 << 10).count();
    assert_eq!(long_frames, 1, "only what cannot be split is longer than a frame should be");
    drop(spool);
    let (mut spool, _) = start(folder.path());
    assert_eq!(keep_house(&mut spool.sealer).sealed, 1);
    let got = items(drain(&mut spool.reader));
    assert_eq!((got.len(), &got[1]), (900, &Entry::Readings(vec![long])));
}
