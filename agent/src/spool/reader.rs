//! The forwarder's side.

use std::sync::Arc;

use gemba_drivers::{Loss, Time};
use tokio::sync::watch;

use super::frame::{Frames, Lane, Units};
use super::index::{Shared, Store};
use super::load::Loaded;
use super::open::entry;
use super::{Entry, Seq, SpoolError};

/// What goes upstream in one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// In order. Ticks and checkpoints are left out, and covered by `last`.
    pub entries: Vec<(Seq, Entry)>,
    /// What to acknowledge when upstream has all of it.
    pub last: Seq,
    /// Readings in it.
    pub readings: usize,
    /// It comes from a sealed segment: upstream was, or is, far behind.
    pub backlog: bool,
}

/// Reads from the first entry that upstream does not have. Blocks on the disk; holds one journal's worth of memory.
pub struct Reader {
    shared: Arc<Shared>,
    part: Option<Loaded>,
    /// The frames that the last look went over, so that an acknowledgement need not read them again.
    steps: Vec<Step>,
}

struct Step {
    seq: u64,
    /// Where it ends in the part's bytes.
    end: usize,
    lane: Lane,
    units: u64,
    /// Frames that should have been before it.
    missing: u64,
    readable: bool,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, part: None, steps: Vec::new() }
    }

    /// The last sequence that is durable: changes with every commit.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<Seq> {
        self.shared.committed.subscribe()
    }

    /// What comes next, up to `max` readings or records, and at least one frame (at most 256 readings); `None` when
    /// upstream has all that is durable.
    ///
    /// This only looks: without an [`acknowledge`](Self::acknowledge) the next call gives the same again, or with another
    /// `max` a longer or shorter piece of the same. A chunk never goes across the end of a journal or segment, so backlog
    /// and live readings are never mixed.
    ///
    /// # Errors
    /// When the disk cannot be read. Damage is no error: it is accounted for, and passed over.
    pub fn next(&mut self, max: usize) -> Result<Option<Chunk>, SpoolError> {
        while self.load()? {
            let chunk = self.look(max);
            if chunk.as_ref().is_some_and(|chunk| !chunk.entries.is_empty()) {
                return Ok(chunk);
            }
            // Nothing in it goes upstream: as good as acknowledged.
            let Some(last) = chunk.map(|chunk| chunk.last) else { return Ok(None) };
            if !self.pass(last.0) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Upstream has everything up to `through`, which is a chunk's `last` or the sequence of an entry in it.
    ///
    /// It becomes durable with the writer's next commit, at no cost, or with [`flush`](Self::flush): a file of its own for
    /// each request would cost two fsyncs and some 20 KB of flash. A crash in between makes upstream get a second or so
    /// again, which the contract (at least once) allows. Nothing is removed before the cursor that allows it is durable.
    ///
    /// # Errors
    /// None at present: the disk is not touched.
    pub fn acknowledge(&mut self, through: Seq) -> Result<(), SpoolError> {
        self.pass(through.0);
        Ok(())
    }

    /// Makes what was acknowledged durable now, in the cursor's own file (write, fsync, rename, fsync of the folder).
    /// Done at the drop as well.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        self.shared.write_cursor()
    }

    /// Makes sure that `part` is the first one with anything after the cursor, and has all of it that is durable.
    fn load(&mut self) -> Result<bool, SpoolError> {
        let (cursor, growth) = {
            let mut index = self.shared.index();
            let cursor = index.cursor;
            let Some((first, part)) = index.after(cursor) else {
                index.reading = None;
                drop(index);
                self.part = None;
                return Ok(false);
            };
            let growth = match (&self.part, &part.store) {
                (Some(held), Store::Journal { len, .. }) if held.first == first => Some((*len, part.last)),
                // Sealed under our hands, and we hold all there was. (A journal that had grown since is read again.)
                (Some(held), Store::Sealed(_)) if held.first == first && held.last == part.last => Some((0, held.last)),
                _ => None,
            };
            // From here on the sealer drops nothing of it.
            index.reading = Some(first);
            (cursor, growth)
        };
        if let (Some(held), Some((len, last))) = (&mut self.part, growth) {
            let path = self.shared.root.join(&super::files::journal_name(held.first));
            held.grow(len, last).map_err(SpoolError::io("read", &path))?;
            return Ok(true);
        }
        self.part = None;
        self.part = self.shared.load_after(cursor, |lane| lane != Lane::Model)?;
        self.shared.index().reading = self.part.as_ref().map(|part| part.first);
        Ok(self.part.is_some())
    }

    /// The next chunk, without entries if there is nothing for upstream in this part.
    fn look(&mut self, max: usize) -> Option<Chunk> {
        self.steps.clear();
        let part = self.part.as_ref()?;
        let (cursor, accounted) = {
            let index = self.shared.index();
            (index.cursor, part.sealed || index.account.damaged.contains(&part.first))
        };
        let missing = |expected: u64, seq: u64| if accounted { 0 } else { seq.saturating_sub(expected) };
        let mut chunk = Chunk { entries: Vec::new(), last: Seq(part.last), readings: 0, backlog: part.sealed };
        let mut expected = part.first.max(cursor + 1);
        let mut taken = 0_usize;
        for frame in Frames::sound(&part.bytes, 0).filter(|frame| frame.seq > cursor) {
            let units = frame.units();
            let mut readable = true;
            if frame.lane != Lane::Model {
                let own = usize::try_from(units).unwrap_or(usize::MAX);
                if !chunk.entries.is_empty() && taken.saturating_add(own) > max {
                    chunk.last = Seq(expected - 1);
                    return Some(chunk);
                }
                match entry(&frame) {
                    Some(entry) => {
                        taken = taken.saturating_add(own);
                        chunk.readings += if frame.lane == Lane::Readings { own } else { 0 };
                        chunk.entries.push((Seq(frame.seq), entry));
                    }
                    None => readable = false,
                }
            }
            let missing = missing(expected, frame.seq);
            self.steps.push(Step { seq: frame.seq, end: frame.end(), lane: frame.lane, units, missing, readable });
            expected = frame.seq + 1;
        }
        let missing = missing(expected, part.last + 1);
        let end = part.bytes.len();
        self.steps.push(Step { seq: part.last, end, lane: Lane::Model, units: 0, missing, readable: true });
        Some(chunk)
    }

    /// Moves the cursor to `through`, at most to where the last look ended. Whether there may be another part to look at.
    fn pass(&mut self, through: u64) -> bool {
        let Some(part) = &mut self.part else { return false };
        let count = self.steps.iter().take_while(|step| step.seq <= through).count();
        let Some(last) = count.checked_sub(1).map(|last| &self.steps[last]) else { return false };
        let (reached, end) = (last.seq, last.end);
        let mut units = Units::default();
        let mut index = self.shared.index();
        for step in self.steps.drain(..count) {
            units.add(step.lane, step.units);
            let now = Time::now;
            let lost = |source: &str, count: u64, reason: &str| Loss {
                source: source.into(),
                from: now(),
                to: now(),
                count,
                reason: reason.into(),
            };
            if step.missing > 0 {
                // The disk went bad under a journal that was sound when it was opened or written.
                index.lose(lost("spool", step.missing, "damaged on disk"));
                index.account.damaged.insert(part.first);
                index.account_changed = true;
            }
            if !step.readable {
                index.lose(lost(step.lane.name(), step.units, "written by another version"));
            }
        }
        index.acknowledge(reached, part.first, units);
        let done = index.active != Some(part.first) && reached >= part.last;
        let wake = done || !index.fresh.is_empty();
        drop(index);
        self.steps.iter_mut().for_each(|step| step.end -= end);
        part.forget(end);
        if wake {
            self.shared.work.notify_one();
        }
        done
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "what was acknowledged last will be sent again");
        }
    }
}
