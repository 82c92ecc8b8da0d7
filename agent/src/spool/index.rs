//! What writer, reader and sealer know together: which parts there are, and how far upstream and the checkpoint are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gemba_drivers::{Loss, Time};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::files::{Root, read_checked};
use super::frame::{Lane, Units};
use super::journal::Marks;
use super::{Catalog, Seq, Settings, SpoolError};
use crate::snapshot::SpoolView;

/// Losses that wait to be written down by the pipeline; beyond it the oldest are only logged.
const MAX_UNTOLD: usize = 1_000;

pub(super) struct Shared {
    pub(super) root: Root,
    pub(super) settings: Settings,
    pub(super) catalog: Arc<Catalog>,
    index: Mutex<Index>,
    /// Held while a segment is open: one at a time, for memory's sake and for sled's lock.
    pub(super) sled: Mutex<()>,
    /// Held from looking at what is to be saved until it is: an older state must not replace a newer one.
    saving: Mutex<()>,
    pub(super) committed: watch::Sender<Seq>,
    pub(super) work: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(root: Root, settings: Settings, catalog: Catalog, index: Index) -> Self {
        let committed = watch::Sender::new(Seq(index.last()));
        Self {
            root,
            settings,
            catalog: Arc::new(catalog),
            index: Mutex::new(index),
            sled: Mutex::default(),
            saving: Mutex::default(),
            committed,
            work: Arc::default(),
        }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        // Every change of the index is made after the disk's, in one step: a panic elsewhere leaves it whole.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the acknowledged sequence durable in its own file.
    pub(super) fn write_cursor(&self) -> Result<(), SpoolError> {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let (cursor, written) = {
            let index = self.index();
            (index.cursor, index.cursor_written)
        };
        if cursor > written {
            self.root.write("cursor", &cursor.to_le_bytes())?;
            self.index().cursor_written = cursor;
        }
        Ok(())
    }

    /// Makes the account of losses durable, if it changed.
    pub(super) fn write_account(&self) -> Result<(), SpoolError> {
        let _one = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let account = {
            let mut index = self.index();
            if !std::mem::take(&mut index.account_changed) {
                return Ok(());
            }
            postcard::to_stdvec(&index.account).expect("plain data always encodes")
        };
        self.root.write("account", &account).inspect_err(|_| self.index().account_changed = true)
    }
}

/// The cursor's file; `None` when there is none, or when it is damaged: upstream then gets everything again that no
/// commit says it has.
pub(super) fn read_cursor(root: &std::path::Path) -> Result<Option<u64>, SpoolError> {
    let path = root.join("cursor");
    let bytes = read_checked(&path).map_err(SpoolError::io("read", &path))?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes))
}

/// What must outlast a restart although it is in no journal.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Readings dropped for want of room, ever.
    pub(super) dropped: u64,
    /// Losses that no committed record tells of yet.
    pub(super) untold: Vec<Loss>,
    /// Journals whose damage is already accounted for.
    pub(super) damaged: BTreeSet<u64>,
}

impl Account {
    pub(super) fn read(root: &std::path::Path) -> Result<Self, SpoolError> {
        let path = root.join("account");
        let bytes = read_checked(&path).map_err(SpoolError::io("read", &path))?;
        Ok(bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default())
    }
}

/// A journal, or what was one, with an unbroken range of sequences.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) last: u64,
    /// First and last commit.
    pub(super) span: (Time, Time),
    pub(super) units: Units,
    pub(super) store: Store,
}

#[derive(Debug)]
pub(super) enum Store {
    Journal {
        len: u64,
        marks: Marks,
        /// It was there when the spool was opened.
        left_over: bool,
    },
    /// A segment a lane, with its bytes on disk. No lane at all: everything in it was dropped, or is lost.
    Sealed(BTreeMap<Lane, u64>),
}

impl Part {
    /// A range of sequences of which nothing is left, and which is accounted for.
    pub(super) fn gap(last: u64) -> Self {
        Self { last, span: Default::default(), units: Units::default(), store: Store::Sealed(BTreeMap::new()) }
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.store {
            Store::Journal { len, .. } => len.next_multiple_of(4_096),
            Store::Sealed(lanes) => lanes.values().sum(),
        }
    }

    pub(super) fn is_journal(&self) -> bool {
        matches!(self.store, Store::Journal { .. })
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// By first sequence.
    pub(super) parts: BTreeMap<u64, Part>,
    /// The one that is being written.
    pub(super) active: Option<u64>,
    /// The one that the reader holds in memory.
    pub(super) reading: Option<u64>,
    /// Everything up to here was acknowledged, or never goes upstream.
    pub(super) cursor: u64,
    /// The cursor's file was there and sound at the opening.
    pub(super) cursor_known: bool,
    /// What the cursor's file says.
    pub(super) cursor_written: u64,
    /// What was acknowledged of the part in which the cursor stands: its first sequence, and how much.
    pub(super) passed: (u64, Units),
    /// The newest durable one: what it has applied, and the part it lies in.
    pub(super) checkpoint: Option<(u64, u64)>,
    pub(super) account: Account,
    pub(super) account_changed: bool,
    /// Losses that the sealer has not handed out yet.
    pub(super) fresh: Vec<Loss>,
    /// Why the last commit failed.
    pub(super) error: Option<String>,
    /// The disk was full: room is needed, whatever the bound says.
    pub(super) pressed: bool,
    /// On disk beside the parts.
    pub(super) other_bytes: u64,
}

impl Index {
    /// The last sequence that any part has.
    pub(super) fn last(&self) -> u64 {
        self.parts.last_key_value().map_or(0, |(_, part)| part.last)
    }

    /// What upstream does not have yet of a part.
    pub(super) fn pending(&self, first: u64, part: &Part) -> Units {
        if self.cursor >= part.last {
            Units::default()
        } else if self.passed.0 == first {
            part.units.minus(self.passed.1)
        } else {
            part.units
        }
    }

    /// The first part that holds anything after `seq`.
    pub(super) fn after(&self, seq: u64) -> Option<(u64, &Part)> {
        // Parts do not overlap, so the one before the first that begins after `seq` is the only other candidate.
        let before = self.parts.range(..=seq).next_back().filter(|(_, part)| part.last > seq);
        before.or_else(|| self.parts.range(seq.saturating_add(1)..).next()).map(|(first, part)| (*first, part))
    }

    /// Whether both upstream and the newest checkpoint are done with a part.
    pub(super) fn is_passed(&self, first: u64, part: &Part) -> bool {
        let applied = self.checkpoint.is_some_and(|(through, lies_in)| through >= part.last && lies_in != first);
        applied && Some(first) != self.active && self.pending(first, part).total() == 0
    }

    /// Acknowledges up to `through`, of the part that begins with `first`; `units` is what that adds.
    pub(super) fn acknowledge(&mut self, through: u64, first: u64, units: Units) {
        self.cursor = self.cursor.max(through);
        let before = if self.passed.0 == first { self.passed.1 } else { Units::default() };
        self.passed = (first, before.plus(units));
        let cursor = self.cursor;
        if let Some(Part { store: Store::Journal { marks, .. }, .. }) = self.parts.get_mut(&first) {
            while marks.front().is_some_and(|mark| mark.0 <= cursor) {
                marks.pop_front();
            }
        }
    }

    /// Enters a loss. The same one is never entered twice.
    pub(super) fn lose(&mut self, mut loss: Loss) {
        if loss.from > loss.to {
            // The clock was set back in between.
            std::mem::swap(&mut loss.from, &mut loss.to);
        }
        if loss.count == 0 || self.account.untold.contains(&loss) {
            return;
        }
        tracing::warn!(source = %loss.source, count = loss.count, reason = %loss.reason, "lost from the spool");
        self.account.untold.push(loss.clone());
        let excess = self.account.untold.len().saturating_sub(MAX_UNTOLD);
        self.account.untold.drain(..excess);
        self.account_changed = true;
        self.fresh.push(loss);
    }

    /// Takes lanes of a part out of the account, with a loss for what upstream did not have.
    pub(super) fn drop_units(&mut self, first: u64, lanes: &[Lane]) {
        let Some(part) = self.parts.get(&first) else { return };
        let (pending, (from, to)) = (self.pending(first, part), part.span);
        for &lane in lanes {
            let reason = "spool full".into();
            self.lose(Loss { source: lane.name().into(), from, to, count: pending.of(lane), reason });
            if let Some(part) = self.parts.get_mut(&first) {
                part.units = part.units.minus(part.units.only(lane));
            }
        }
        self.account.dropped += if lanes.contains(&Lane::Readings) { pending.of(Lane::Readings) } else { 0 };
        self.account_changed = true;
    }

    /// A part turned out to hold only `units`.
    pub(super) fn note_missing(&mut self, first: u64, units: Units) {
        let Some(part) = self.parts.get_mut(&first) else { return };
        let missing = part.units.minus(units);
        let (from, to) = part.span;
        part.units = units;
        for lane in Lane::LEAST_WORTH {
            let reason = "damaged on disk".into();
            self.lose(Loss { source: lane.name().into(), from, to, count: missing.of(lane), reason });
        }
    }

    /// Committed records tell of these losses now.
    pub(super) fn told(&mut self, losses: &[Loss]) {
        let before = self.account.untold.len();
        self.account.untold.retain(|loss| !losses.contains(loss));
        self.account_changed |= self.account.untold.len() != before;
    }

    /// All of it on disk, as du counts it.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.values().map(Part::bytes).sum::<u64>() + self.other_bytes
    }

    /// For the snapshot.
    pub(super) fn view(&self) -> SpoolView {
        let mut pending = Units::default();
        let mut oldest = None;
        for (&first, part) in &self.parts {
            let own = self.pending(first, part);
            if own.records() > 0 {
                oldest = oldest.or(Some(self.oldest(part)));
                pending = pending.plus(own);
            }
        }
        SpoolView {
            records: pending.records(),
            readings: pending.of(Lane::Readings),
            bytes: self.bytes(),
            oldest,
            dropped: self.account.dropped,
            error: self.error.clone(),
            full: false, // the pipeline knows
        }
    }

    /// When the first of it that is pending was committed; for a segment, its first commit.
    fn oldest(&self, part: &Part) -> Time {
        match &part.store {
            Store::Journal { marks, .. } => {
                marks.iter().find(|mark| mark.0 > self.cursor).map_or(part.span.0, |mark| mark.1)
            }
            Store::Sealed(_) => part.span.0,
        }
    }
}
