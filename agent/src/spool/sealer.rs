//! House-keeping: what moves a backlog out of the journals, lets go of what nobody needs, and keeps the bound.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, PoisonError};

use gemba_drivers::{Loss, Time};
use tokio::sync::Notify;

use super::SpoolError;
use super::files::{Segment, disk_use, gap_name, journal_name};
use super::frame::{Frame, Frames, Lane, Units};
use super::index::{Part, Shared, Store};
use super::journal::model_frames;
use super::segment::{self, Content};

/// What a sealed journal takes on disk, for each byte in it, and beside that for each of its lanes: measured.
const SEALED_RATIO: u64 = 4;

/// What one round of house-keeping did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Losses since the last round. Each must be appended as a [`Record::Loss`](crate::record::Record::Loss) that holds it
    /// unchanged; until one is committed, every start reports it again.
    pub losses: Vec<Loss>,
    /// Journals sealed.
    pub sealed: usize,
    /// Journals and sealed journals removed, since upstream and the checkpoint have passed them.
    pub removed: usize,
    /// Segments dropped to keep the bound.
    pub dropped: usize,
    /// Another round has more to do.
    pub more: bool,
}

/// Keeps house. Blocks on the disk, so it lives on a thread where that is fine.
pub struct Sealer {
    shared: Arc<Shared>,
}

impl Sealer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Notified when there is something to do. A journal that rolled, a part that upstream or a checkpoint has passed, a
    /// full disk. A call too many is harmless.
    #[must_use]
    pub fn wakeup(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.work)
    }

    /// One round: removes what upstream and the checkpoint have both passed, keeps the bound, and seals one journal, if
    /// one is to be sealed.
    ///
    /// A journal is sealed when upstream has not passed it and a younger full journal stands behind it which upstream has
    /// not passed either; or when it was left over from the last run and upstream has not passed it yet. The one that is
    /// being written never is.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is lost, and the next round tries again. Losses are kept for the next round.
    pub fn work(&mut self) -> Result<Worked, SpoolError> {
        self.work_at(Time::now())
    }

    fn work_at(&mut self, now: Time) -> Result<Worked, SpoolError> {
        let mut worked = Worked::default();
        self.shared.write_account()?;
        self.shared.root.keep_reserve();
        worked.removed = self.remove_passed(now)?;
        let candidate = self.candidate();
        worked.dropped = self.make_room(candidate.map_or(0, |(_, len)| len))?;
        if let Some((first, len)) = candidate
            && self.fits(len)?
        {
            self.seal(first)?;
            worked.sealed = 1;
            worked.more = self.candidate().is_some();
        }
        self.shared.write_account()?;
        worked.losses = std::mem::take(&mut self.shared.index().fresh);
        Ok(worked)
    }

    /// Removes what both have passed, and `keep` does not ask for.
    fn remove_passed(&self, now: Time) -> Result<usize, SpoolError> {
        let keep = self.shared.settings.keep;
        let passed = self.passed(|part| now.since(part.span.1) >= keep);
        for &first in &passed {
            self.remove(first)?;
        }
        Ok(passed.len())
    }

    fn passed(&self, wanted: impl Fn(&Part) -> bool) -> Vec<u64> {
        let index = self.shared.index();
        // Only from the front: a later part without anything for upstream must not carry the cursor over an earlier one.
        let passed = index.parts.iter().take_while(|(first, part)| index.is_passed(**first, part));
        passed.filter(|(_, part)| wanted(part)).map(|(first, _)| *first).collect()
    }

    /// Removes a part that both have passed.
    fn remove(&self, first: u64) -> Result<(), SpoolError> {
        {
            let mut index = self.shared.index();
            let Some(last) = index.parts.get(&first).map(|part| part.last) else { return Ok(()) };
            // What is behind the cursor in here never goes upstream (ticks, ends of commits).
            index.cursor = index.cursor.max(last);
        }
        self.shared.write_cursor()?;
        let _sled = self.shared.sled.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(part) = self.shared.index().parts.remove(&first) else { return Ok(()) };
        self.erase(first, &part)
    }

    fn erase(&self, first: u64, part: &Part) -> Result<(), SpoolError> {
        let root = &self.shared.root;
        match &part.store {
            Store::Journal { .. } => self.remove_journal(first)?,
            Store::Sealed(lanes) if lanes.is_empty() => remove_file(&root.join(&gap_name(first, part.last)))?,
            Store::Sealed(lanes) => {
                lanes.keys().for_each(|&lane| root.discard(&Segment { lane, first, last: part.last }.name()));
            }
        }
        let mut index = self.shared.index();
        index.account_changed |= index.account.damaged.remove(&first);
        Ok(())
    }

    /// The oldest journal that is to be sealed, and its length.
    fn candidate(&self) -> Option<(u64, u64)> {
        let index = self.shared.index();
        let full = index.parts.iter().filter_map(|(&first, part)| {
            let Store::Journal { len, left_over, .. } = part.store else { return None };
            let pending = index.pending(first, part).total() > 0;
            (Some(first) != index.active && pending).then_some((first, len, left_over))
        });
        let mut full = full.peekable();
        let (first, len, left_over) = full.next()?;
        (left_over || full.peek().is_some()).then_some((first, len))
    }

    /// Bytes that two seals of a journal of `len` bytes may take.
    fn room_for(len: u64) -> u64 {
        if len == 0 { 0 } else { 2 * (SEALED_RATIO * len + (64 << 10)) }
    }

    fn fits(&self, len: u64) -> Result<bool, SpoolError> {
        let room = Self::room_for(len);
        let free = self.shared.root.free()?;
        let index = self.shared.index();
        Ok(index.bytes() + room <= self.shared.settings.max_size && free >= self.shared.settings.keep_free + room)
    }

    /// Drops the oldest of what is worth least until a journal of `len` bytes can be sealed within the bound.
    fn make_room(&self, len: u64) -> Result<usize, SpoolError> {
        let room = Self::room_for(len);
        let mut dropped = 0;
        loop {
            let free = self.shared.root.free()?;
            let settings = &self.shared.settings;
            let (used, pressed) = {
                let mut index = self.shared.index();
                index.pressed &= free < 2 * settings.journal_size;
                (index.bytes(), index.pressed)
            };
            let over = used + room > settings.max_size || free < settings.keep_free + room || pressed;
            if !over {
                return Ok(dropped);
            }
            if let Some(&first) = self.passed(|_| true).first() {
                self.remove(first)?; // only kept for replay
                continue;
            }
            let hard = used > settings.max_size || free < settings.keep_free || pressed;
            if !(self.drop_segment()? || hard && self.drop_journal()?) {
                return Ok(dropped);
            }
            dropped += 1;
        }
    }

    /// Drops the oldest segment of the least worth lane; false when there is none.
    fn drop_segment(&self) -> Result<bool, SpoolError> {
        let _sled = self.shared.sled.lock().unwrap_or_else(PoisonError::into_inner);
        let (segment, emptied) = {
            let mut index = self.shared.index();
            let reading = index.reading;
            let oldest = Lane::LEAST_WORTH.into_iter().find_map(|lane| {
                let has = |part: &Part| matches!(&part.store, Store::Sealed(lanes) if lanes.contains_key(&lane));
                let mut parts = index.parts.iter().filter(|(first, part)| Some(**first) != reading && has(part));
                parts.next().map(|(&first, part)| Segment { lane, first, last: part.last })
            });
            let Some(segment) = oldest else { return Ok(false) };
            index.drop_units(segment.first, &[segment.lane]);
            let Some(part) = index.parts.get_mut(&segment.first) else { return Ok(false) };
            let Store::Sealed(lanes) = &mut part.store else { return Ok(false) };
            lanes.remove(&segment.lane);
            (segment, lanes.is_empty())
        };
        // The account first: a crash now leaves the segment and a loss too many, never a silent one.
        self.shared.write_account()?;
        if emptied {
            self.shared.mark_gap(segment.first, segment.last)?;
        }
        self.shared.root.discard(&segment.name());
        Ok(true)
    }

    /// Drops the oldest full journal, when there is no room to seal it and nothing else to drop.
    fn drop_journal(&self) -> Result<bool, SpoolError> {
        let (first, last) = {
            let mut index = self.shared.index();
            let newest = index.checkpoint.map(|(_, lies_in)| lies_in);
            let spared = [index.active, index.reading, newest];
            let oldest = index.parts.iter().find(|(first, part)| part.is_journal() && !spared.contains(&Some(**first)));
            let Some((&first, part)) = oldest else { return Ok(false) };
            let last = part.last;
            index.drop_units(first, &Lane::LEAST_WORTH);
            if let Some(part) = index.parts.get_mut(&first) {
                part.store = Store::Sealed(BTreeMap::new());
            }
            (first, last)
        };
        self.shared.write_account()?;
        self.shared.mark_gap(first, last)?;
        self.remove_journal(first)?;
        Ok(true)
    }

    /// Turns a journal into a segment a lane.
    fn seal(&self, first: u64) -> Result<(), SpoolError> {
        let root = &self.shared.root;
        let (last, len, span, through) = {
            let index = self.shared.index();
            let Some(Part { last, span, store: Store::Journal { len, .. }, .. }) = index.parts.get(&first) else {
                return Ok(());
            };
            (*last, *len, *span, index.checkpoint.map_or(0, |(through, _)| through))
        };
        let path = root.join(&journal_name(first));
        let mut bytes = fs::read(&path).map_err(SpoolError::io("read", &path))?;
        bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        let (model, checkpoint) = model_frames(&bytes, through);
        let stays = |frame: &Frame<'_>| frame.lane != Lane::Model || model.binary_search(&frame.seq).is_ok();

        let mut built = Vec::new();
        let mut units = Units::default();
        let _sled = self.shared.sled.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in Lane::ALL {
            let frames = || Frames::sound(&bytes, 0).filter(|frame| frame.lane == lane && stays(frame));
            if frames().next().is_none() {
                continue;
            }
            frames().for_each(|frame| units.add(lane, frame.units()));
            let segment = Segment { lane, first, last };
            let temporary = root.join(&format!("tmp-{}", segment.name()));
            drop(fs::remove_dir_all(&temporary)); // of an attempt that failed
            let checkpoint = checkpoint.filter(|_| lane == Lane::Model);
            let content = Content { units: units.of(lane), span, checkpoint };
            let sealed = segment::build(&temporary, frames().map(|frame| (frame.seq, frame.raw)), &content);
            if let Err(why) = sealed {
                drop(fs::remove_dir_all(&temporary));
                for segment in &built {
                    drop(fs::remove_dir_all(root.join(&format!("tmp-{}", Segment::name(segment)))));
                }
                return Err(SpoolError::Seal { path, why: why.to_string() });
            }
            built.push(segment);
        }
        // The ends of its commits, which are not sealed, may be all that knows what was acknowledged.
        self.shared.write_cursor()?;
        let mut lanes = BTreeMap::new();
        for segment in &built {
            let (from, to) = (root.join(&format!("tmp-{}", segment.name())), root.join(&segment.name()));
            fs::rename(&from, &to).map_err(SpoolError::io("rename", &from))?;
            lanes.insert(segment.lane, disk_use(&to));
        }
        if lanes.is_empty() {
            self.shared.mark_gap(first, last)?;
        }
        root.sync()?;
        {
            let mut index = self.shared.index();
            index.note_missing(first, units);
            if let Some(part) = index.parts.get_mut(&first) {
                part.store = Store::Sealed(lanes);
            }
            // Its damage, if any, stays behind with the journal.
            index.account_changed |= index.account.damaged.remove(&first);
        }
        remove_file(&path)
    }

    /// The ends of its commits may be all that knows what was acknowledged.
    fn remove_journal(&self, first: u64) -> Result<(), SpoolError> {
        self.shared.write_cursor()?;
        remove_file(&self.shared.root.join(&journal_name(first)))
    }
}

fn remove_file(path: &std::path::Path) -> Result<(), SpoolError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SpoolError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
