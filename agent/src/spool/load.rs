//! Getting at what a part holds, be it a journal or segments, and at what is left of a damaged one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, PoisonError};

use gemba_drivers::{Loss, Time};

use super::SpoolError;
use super::files::{Listing, SALVAGED, Segment, disk_use, journal_name};
use super::frame::{Frame, Frames, Lane};
use super::index::{Shared, Store};
use super::journal::Assembly;
use super::open::other_bytes;
use super::segment::{self, Content};

/// A part's frames, in memory: at most a journal's worth.
pub(super) struct Loaded {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) sealed: bool,
    /// Frames in order of sequence.
    pub(super) bytes: Vec<u8>,
    /// Where `bytes` end in the journal.
    end: u64,
    file: Option<File>,
}

impl Loaded {
    /// Reads on in a journal that has grown to `len` bytes and sequence `last`.
    pub(super) fn grow(&mut self, len: u64, last: u64) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if len > self.end {
            let held = self.bytes.len();
            self.bytes.resize(held + usize::try_from(len - self.end).map_err(io::Error::other)?, 0);
            file.read_exact_at(&mut self.bytes[held..], self.end).inspect_err(|_| self.bytes.truncate(held))?;
            self.end = len;
        }
        self.last = last;
        Ok(())
    }

    /// Forgets the first `count` bytes.
    pub(super) fn forget(&mut self, count: usize) {
        self.bytes.drain(..count);
    }
}

/// Where a part is to be found, as the index had it a moment ago.
enum Place {
    Journal { len: u64 },
    Sealed { lanes: Vec<Lane> },
}

impl Shared {
    /// The first part that holds anything after `seq`, with the lanes that `wanted` picks if it is sealed.
    pub(super) fn load_after(&self, seq: u64, wanted: impl Fn(Lane) -> bool) -> Result<Option<Loaded>, SpoolError> {
        loop {
            let (first, last, place) = {
                let index = self.index();
                let Some((first, part)) = index.after(seq) else { return Ok(None) };
                let place = match &part.store {
                    Store::Journal { len, .. } => Place::Journal { len: *len },
                    Store::Sealed(lanes) => {
                        Place::Sealed { lanes: lanes.keys().copied().filter(|lane| wanted(*lane)).collect() }
                    }
                };
                (first, part.last, place)
            };
            let len = match place {
                Place::Journal { len } => len,
                Place::Sealed { lanes } => return self.load_sealed(first, last, &lanes).map(Some),
            };
            match self.load_journal(first, last, len) {
                // Sealed, dropped or removed in between: look again, unless the index still says it is there.
                Err(error) if error.is_missing() && self.moved(first, last) => {}
                other => return other.map(Some),
            }
        }
    }

    /// Whether a part is no longer the journal that it was, or no longer there.
    fn moved(&self, first: u64, last: u64) -> bool {
        let index = self.index();
        index.parts.get(&first).is_none_or(|part| part.last != last || !part.is_journal())
    }

    fn load_journal(&self, first: u64, last: u64, len: u64) -> Result<Loaded, SpoolError> {
        let path = self.root.join(&journal_name(first));
        let file = File::open(&path).map_err(SpoolError::io("open", &path))?;
        let mut loaded = Loaded { first, last, sealed: false, bytes: Vec::new(), end: 0, file: Some(file) };
        loaded.grow(len, last).map_err(SpoolError::io("read", &path))?;
        Ok(loaded)
    }

    fn load_sealed(&self, first: u64, last: u64, lanes: &[Lane]) -> Result<Loaded, SpoolError> {
        let mut all = Vec::new();
        for &lane in lanes {
            all.push(self.load_lane(Segment { lane, first, last })?);
        }
        let bytes = if all.len() == 1 { all.swap_remove(0) } else { merge(&all) };
        Ok(Loaded { first, last, sealed: true, bytes, end: 0, file: None })
    }

    /// One lane's frames; what is left of them if the segment is damaged, and nothing if it was dropped meanwhile.
    pub(super) fn load_lane(&self, segment: Segment) -> Result<Vec<u8>, SpoolError> {
        let path = self.root.join(&segment.name());
        let _one = self.sled.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.holds(segment) {
            return Ok(Vec::new());
        }
        match segment::load(&path) {
            Ok((frames, _)) => {
                // sled writes when it opens, so the segment may have grown.
                let bytes = disk_use(&path);
                self.measured(segment, bytes);
                Ok(frames)
            }
            Err(_) if !self.holds(segment) => Ok(Vec::new()),
            Err(why) => {
                tracing::error!(segment = segment.name(), %why, "damaged, setting it aside");
                self.set_aside(segment)
            }
        }
    }

    fn holds(&self, segment: Segment) -> bool {
        let index = self.index();
        let part = index.parts.get(&segment.first);
        part.is_some_and(|part| matches!(&part.store, Store::Sealed(lanes) if lanes.contains_key(&segment.lane)))
    }

    fn measured(&self, segment: Segment, bytes: u64) {
        let mut index = self.index();
        if let Some(part) = index.parts.get_mut(&segment.first)
            && let Store::Sealed(lanes) = &mut part.store
            && let Some(held) = lanes.get_mut(&segment.lane)
        {
            *held = bytes;
        }
    }

    /// Renames a damaged segment, saves what is left of it under its old name, and enters the rest as lost.
    fn set_aside(&self, segment: Segment) -> Result<Vec<u8>, SpoolError> {
        // If it is not there, it was set aside before and could not be saved: then that is the only copy.
        if self.root.join(&segment.name()).exists() {
            if self.root.join(&segment.bad_name()).exists() {
                self.root.discard(&segment.bad_name());
            }
            self.root.rename(&segment.name(), &segment.bad_name())?;
        }
        let frames = self.restore(segment)?;
        let listing = Listing::read(self.root.path())?;
        self.root.limit_bad(&listing);
        self.index().other_bytes = other_bytes(&self.root, &listing);
        Ok(frames)
    }

    /// Saves what is left of a segment that was set aside. Harmless to repeat, which a crash on the way asks for.
    fn restore(&self, segment: Segment) -> Result<Vec<u8>, SpoolError> {
        let bad = self.root.join(&segment.bad_name());
        fs::create_dir_all(&bad).map_err(SpoolError::io("make", &bad))?; // it may be gone altogether
        let left = segment::salvage(&bad, segment.lane, (segment.first, segment.last));
        let (pending, span, cursor) = {
            let index = self.index();
            let part = index.parts.get(&segment.first);
            let pending = part.map_or(0, |part| index.pending(segment.first, part).of(segment.lane));
            (pending, part.map_or((Time::default(), Time::default()), |part| part.span), index.cursor)
        };
        let (mut units, mut still_pending) = (0, 0);
        let mut checkpoint = Assembly::default();
        for frame in left.values().filter_map(|raw| Frame::at(raw, 0)) {
            units += frame.units();
            still_pending += if frame.seq > cursor { frame.units() } else { 0 };
            if let Some(mark) = frame.mark() {
                checkpoint.take(&mark);
            }
        }
        let name = segment.name();
        let temporary = format!("tmp-{name}");
        if !left.is_empty() {
            let path = self.root.join(&temporary);
            drop(fs::remove_dir_all(&path));
            let checkpoint = checkpoint.complete.map(|(through, _)| through);
            let frames = left.iter().map(|(&seq, raw)| (seq, raw.as_slice()));
            segment::build(&path, frames, &Content { units, span, checkpoint })
                .map_err(|why| SpoolError::Seal { path, why: why.to_string() })?;
        }
        // Before it counts again, or a crash would make the loss a silent one.
        self.index().lose(Loss {
            source: segment.lane.name().into(),
            from: span.0,
            to: span.1,
            count: pending.saturating_sub(still_pending),
            reason: "damaged on disk".into(),
        });
        self.write_account()?;
        if !left.is_empty() {
            self.root.rename(&temporary, &name)?;
        }
        let marker = bad.join(SALVAGED);
        File::create(&marker).and_then(|file| file.sync_all()).map_err(SpoolError::io("write", &marker))?;
        File::open(&bad).and_then(|folder| folder.sync_all()).map_err(SpoolError::io("sync", &bad))?;

        let bytes = disk_use(&self.root.join(&name));
        let emptied = {
            let mut index = self.index();
            let Some(part) = index.parts.get_mut(&segment.first) else { return Ok(Vec::new()) };
            let lost = part.units.only(segment.lane);
            part.units = part.units.minus(lost);
            part.units.add(segment.lane, units);
            let Store::Sealed(lanes) = &mut part.store else { return Ok(Vec::new()) };
            lanes.insert(segment.lane, bytes);
            if left.is_empty() {
                lanes.remove(&segment.lane);
            }
            lanes.is_empty()
        };
        if emptied {
            self.mark_gap(segment.first, segment.last)?;
        }
        Ok(left.into_values().flatten().collect())
    }

    /// Finishes what a crash interrupted: damaged segments that were set aside, and not yet saved. What cannot be saved
    /// now (a full disk) is tried again when somebody wants to read it.
    pub(super) fn restore_left_overs(&self, listing: &Listing) {
        for &segment in listing.bad.iter().filter(|segment| self.root.is_unsaved(listing, **segment)) {
            if let Err(error) = self.restore(segment) {
                tracing::warn!(%error, "a damaged segment waits to be saved");
            }
        }
    }

    /// Remembers on disk that a range of sequences is empty and accounted for.
    pub(super) fn mark_gap(&self, first: u64, last: u64) -> Result<(), SpoolError> {
        let path = self.root.join(&super::files::gap_name(first, last));
        File::create(&path).map_err(SpoolError::io("create", &path))?;
        self.root.sync()
    }

    /// An account of what a journal lost.
    pub(super) fn lose_from_journal(&self, damage: &super::journal::Damage) {
        let mut index = self.index();
        let (from, to) = damage.span;
        let reason: Arc<str> = "damaged on disk".into();
        for lane in Lane::LEAST_WORTH {
            let source = lane.name().into();
            index.lose(Loss { source, from, to, count: damage.units.of(lane), reason: Arc::clone(&reason) });
        }
        index.lose(Loss { source: "spool".into(), from, to, count: damage.unknown, reason });
    }
}

/// Frames of several lanes in one order.
pub(super) fn merge(lanes: &[Vec<u8>]) -> Vec<u8> {
    let mut frames = BTreeMap::new();
    for lane in lanes {
        frames.extend(Frames::sound(lane, 0).map(|frame| (frame.seq, frame.raw)));
    }
    let mut bytes = Vec::with_capacity(lanes.iter().map(Vec::len).sum());
    frames.into_values().for_each(|raw| bytes.extend_from_slice(raw));
    bytes
}
