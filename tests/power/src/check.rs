//! Whether a spool that lost its power keeps what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use gemba::record::Record;
use gemba::spool::{self, Entry, Opened, Seq, Settings, SpoolError};
use gemba_drivers::Loss;

use crate::plan::{self, Key, MODEL, Stamp, entries, items, lane};
use crate::promise::Promise;

/// All that was promised up to a cut, across starts.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The newest commit that is promised.
    pub committed: Option<Stamp>,
    /// Commits of each generation: first and last.
    ranges: Vec<(u8, u32, u32)>,
    seq: u64,
    acknowledged: u64,
    checkpoint: Option<Stamp>,
    accepted: BTreeSet<Key>,
    tellings: BTreeMap<Key, Loss>,
    generation: u8,
}

impl History {
    /// One promise more.
    ///
    /// # Errors
    /// When a start found less than was promised before: a kill alone must lose nothing.
    pub fn add(&mut self, promise: Promise) -> anyhow::Result<()> {
        match promise {
            Promise::Opened { generation, found } => {
                self.generation = generation;
                let Some(found) = found else { return Ok(()) };
                let promised = self.committed.map_or(0, |stamp| stamp.commit);
                ensure!(
                    found.commit >= promised,
                    "generation {generation} found commit {} of {promised}",
                    found.commit
                );
                self.enter(found);
            }
            Promise::Telling { key, loss } => drop(self.tellings.insert(key, loss)),
            Promise::Committed { stamp, seq, checkpoint, acknowledged } => {
                self.enter(stamp);
                self.seq = seq;
                self.acknowledged = self.acknowledged.max(acknowledged);
                if checkpoint {
                    self.checkpoint = Some(stamp);
                }
            }
            Promise::Accepted { runs, .. } => {
                let keys =
                    runs.into_iter().flat_map(|(first, count)| (0..u64::from(count)).map(move |at| Key(first.0 + at)));
                self.accepted.extend(keys);
            }
            Promise::Begin | Promise::End => {}
            // The binary's.
            Promise::Acknowledged { .. } | Promise::Sent { .. } => {}
        }
        Ok(())
    }

    /// The newest generation that was at work.
    #[must_use]
    pub fn generation(&self) -> u8 {
        self.generation
    }

    fn enter(&mut self, stamp: Stamp) {
        self.committed = Some(stamp);
        match self.ranges.last_mut() {
            Some((generation, _, last)) if *generation == stamp.generation => *last = stamp.commit,
            _ => self.ranges.push((stamp.generation, stamp.commit, stamp.commit)),
        }
    }

    /// Everything that a commit held.
    fn items(&self, seed: u64, stamp: Stamp) -> impl Iterator<Item = (Key, Entry)> {
        let told = self.tellings.range(plan::telling(stamp, 0)..stamp.key(u64::from(u16::MAX)));
        let told: Vec<_> = told.map(|(key, loss)| plan::told(*key, loss.clone())).collect();
        let all = items(entries(seed, stamp)).into_iter().chain(told);
        all.map(|item| (Key::of(&item).expect("a workload's own"), item))
    }
}

/// What a check found, when all is well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound {
    /// Items that the spool held for upstream.
    pub held: usize,
    /// Items that had to make room, and were accounted for.
    pub dropped: usize,
}

/// What a spool gives when it is opened.
struct Found {
    last_commit: Option<Stamp>,
    last: Seq,
    checkpoint: Option<(Seq, Vec<u8>)>,
    /// After the checkpoint, for the model.
    after: Vec<(Seq, Entry)>,
    /// For upstream.
    pending: Vec<(Seq, Entry)>,
    losses: Vec<Loss>,
}

impl Found {
    fn gather(folder: &Path, journal: u64) -> anyhow::Result<Self> {
        let Opened { mut reader, mut sealer, recovery, .. } = open(folder, journal)?;
        let last_commit = recovery.last_commit.map(|time| Stamp::of(time).context("a time that nobody gave"));
        let (last, checkpoint, mut losses) = (recovery.last, recovery.checkpoint.clone(), recovery.losses.clone());
        let after = recovery.entries().collect::<Result<_, _>>()?;
        let mut pending = Vec::new();
        let mut acknowledged = Vec::new();
        while let Some(chunk) = reader.next(1_000)? {
            pending.extend(chunk.entries);
            acknowledged.push(chunk.last);
            reader.acknowledge(chunk.last)?;
        }
        losses.extend(sealer.work()?.losses);
        Ok(Self { last_commit: last_commit.transpose()?, last, checkpoint, after, pending, losses })
    }
}

/// Opens a spool that drops nothing. Its lock may outlast the one that held it for a moment: a process that another thread
/// starts has it too until it becomes e2fsck.
///
/// # Errors
/// As the spool's own.
pub fn open(folder: &Path, journal_size: u64) -> Result<Opened, SpoolError> {
    let path = folder.to_owned();
    let settings = Settings { path, max_size: 1 << 40, keep_free: 0, keep: Duration::ZERO, journal_size };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match spool::open(settings.clone(), &[]) {
            Err(SpoolError::Held(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
}

/// Compares the spool in `folder` with what was promised. `evicts`: it had a bound that made it drop.
///
/// # Errors
/// With the first promise that is broken.
pub fn check(folder: &Path, journal: u64, seed: u64, history: &History, evicts: bool) -> anyhow::Result<Sound> {
    if !folder.exists() {
        ensure!(history.committed.is_none() && history.ranges.is_empty(), "there is no spool, and there was one");
        return Ok(Sound::default());
    }
    let untouched = folder.with_extension("again");
    copy_tree(folder, &untouched)?;
    let found = Found::gather(folder, journal).context("opening it")?;
    let sound = compare(&found, seed, history, evicts)?;
    again(&untouched, journal, &found).context("opening it once more")?;
    Ok(sound)
}

fn compare(found: &Found, seed: u64, history: &History, evicts: bool) -> anyhow::Result<Sound> {
    let promised = history.committed;
    let number = |stamp: Option<Stamp>| stamp.map_or(0, |stamp| stamp.commit);
    let last = found.last_commit.or(promised.filter(|_| found.after.is_empty() && found.pending.is_empty()));
    ensure!(number(last) >= number(promised), "commit {} is gone, the last one is {}", number(promised), number(last));
    ensure!(found.last.0 >= history.seq, "sequence {} is promised, {} is the last one", history.seq, found.last.0);

    // What was in flight may be there as a whole. Then it is the next one, of the generation that was at work.
    let mut history = history.clone();
    if number(last) > number(promised) {
        let last = last.context("just compared")?;
        ensure!(last.generation == history.generation, "commit {last:?} is of nobody who was at work");
        history.enter(last);
    }
    let mut expected = BTreeMap::new();
    for &(generation, first, last) in &history.ranges {
        for commit in first..=last {
            expected.extend(history.items(seed, Stamp { commit, generation }));
        }
    }

    let pending = sound_items(&found.pending, &expected).context("what is for upstream")?;
    if let Some((first, _)) = found.pending.first() {
        ensure!(
            first.0 > history.acknowledged,
            "{} was acknowledged durably, and {} comes again",
            history.acknowledged,
            first.0
        );
    }
    let after = sound_items(&found.after, &expected).context("what is for the model")?;
    let applied = check_checkpoint(found, seed, &history)?;

    let lost = losses(found, &pending, &history, last)?;
    ensure!(evicts || lost.is_empty(), "nothing had to go, and it lost {lost:?}");
    let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, item) in &expected {
        let (lane, commit) = (lane(item), key.stamp().commit);
        let by_model = commit <= number(applied) || after.contains(key);
        let upstream = lane == MODEL || history.accepted.contains(key) || pending.contains(key);
        if upstream && (by_model || lane != MODEL && evicts) {
            continue;
        }
        let time = key.stamp().time();
        let told = lost.iter().any(|loss| &*loss.source == lane && (loss.from..=loss.to).contains(&time));
        let whose = if upstream { "the model" } else { "upstream" };
        ensure!(told, "{key:?} of commit {commit} ({lane}) is gone for {whose}, and nobody tells");
        *dropped.entry(lane).or_default() += plan::units(item);
    }
    for (lane, units) in &dropped {
        let told: u64 = lost.iter().filter(|loss| &*loss.source == *lane).map(|loss| loss.count).sum();
        ensure!(*units <= told, "{units} of {lane} are gone, {told} are told of");
    }
    let dropped = usize::try_from(dropped.values().sum::<u64>())?;
    Ok(Sound { held: pending.len(), dropped })
}

/// Items as they were written, in order, with sequences that grow; their keys.
fn sound_items(entries: &[(Seq, Entry)], expected: &BTreeMap<Key, Entry>) -> anyhow::Result<BTreeSet<Key>> {
    let mut keys = BTreeSet::new();
    let mut before = Seq(0);
    for (seq, entry) in entries {
        ensure!(*seq > before, "{seq:?} comes after {before:?}");
        before = *seq;
        for item in items([entry.clone()]) {
            let key = Key::of(&item).with_context(|| format!("nobody wrote {item:?}"))?;
            let Some(wanted) = expected.get(&key) else {
                bail!("{key:?} of {:?} was not to be here", key.stamp());
            };
            ensure!(*wanted == item, "{key:?} is garbled: {item:?}");
            ensure!(keys.last().is_none_or(|last| *last < key), "{key:?} comes after {:?}", keys.last());
            keys.insert(key);
        }
    }
    Ok(keys)
}

/// What the checkpoint has applied: at least what was promised, and all of what it says.
fn check_checkpoint(found: &Found, seed: u64, history: &History) -> anyhow::Result<Option<Stamp>> {
    let Some((through, state)) = &found.checkpoint else {
        ensure!(history.checkpoint.is_none(), "the checkpoint of {:?} is gone", history.checkpoint);
        return Ok(None);
    };
    let applied = plan::applied(seed, state).context("the checkpoint is garbled")?;
    ensure!(Some(applied) >= history.checkpoint, "{applied:?} is older than {:?}", history.checkpoint);
    ensure!(*through <= found.last, "the checkpoint has applied {through:?}, the last is {:?}", found.last);
    let early = found.after.iter().find(|(seq, _)| seq <= through);
    ensure!(early.is_none(), "{early:?} is said to be after {through:?}");
    // Of its own commit only what stands before it is applied: all of it.
    let again = found.after.iter().flat_map(|(_, entry)| Key::of(entry)).find(|key| key.stamp() <= applied);
    ensure!(again.is_none(), "{again:?} is applied already by {applied:?}");
    Ok(Some(applied))
}

/// Every loss that is told of: in records that are there or arrived, and in the account.
fn losses(found: &Found, pending: &BTreeSet<Key>, history: &History, last: Option<Stamp>) -> anyhow::Result<Vec<Loss>> {
    let promised = history.committed;
    let told = history
        .tellings
        .iter()
        .filter(|(key, _)| pending.contains(key) || history.accepted.contains(key) || Some(key.stamp()) <= promised);
    let mut losses: Vec<Loss> = told.map(|(_, loss)| loss.clone()).collect();
    for (_, entry) in &found.after {
        if let Entry::Record { record: Record::Loss { loss, .. }, .. } = entry {
            losses.push(loss.clone());
        }
    }
    losses.extend(found.losses.iter().cloned());
    // A commit that was cut off in the middle was promised to nobody: it is told of, and no damage.
    let open = |loss: &Loss| last.is_none_or(|last| loss.from > last.time());
    losses.retain(|loss| !(&*loss.reason != "spool full" && open(loss)));
    let damage = losses.iter().find(|loss| &*loss.reason != "spool full");
    ensure!(damage.is_none(), "a sound disk is said to be damaged: {damage:?}");
    let mut unique: Vec<Loss> = Vec::new();
    for loss in losses {
        if !unique.contains(&loss) {
            unique.push(loss);
        }
    }
    Ok(unique)
}

/// An opening is as good as another one; and a sequence is given once.
fn again(folder: &Path, journal: u64, before: &Found) -> anyhow::Result<()> {
    drop(open(folder, journal)?);
    let Opened { mut writer, recovery, .. } = open(folder, journal)?;
    ensure!(recovery.last >= before.last, "{:?} was the last, now it is {:?}", before.last, recovery.last);
    ensure!(recovery.checkpoint == before.checkpoint, "another checkpoint");
    let after: Vec<_> = recovery.entries().collect::<Result<_, _>>()?;
    ensure!(after == before.after, "{} entries for the model, and {} before", after.len(), before.after.len());
    let seq = writer.append(&Entry::Tick(gemba_drivers::Time(0)));
    ensure!(seq > before.last, "{seq:?} is given twice");
    writer.commit(before.last_commit.unwrap_or_default().time())?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
