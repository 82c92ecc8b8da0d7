//! What makes things durable.

use std::borrow::Cow;
use std::sync::Arc;

use gemba_drivers::{Loss, Time};

use super::columns::{Encoder, MAX_READINGS};
use super::frame::{ENDS_COMMIT, HEADER, Lane, Mark, Units, put};
use super::index::{Part, Shared, Store};
use super::journal::{Journal, Marks};
use super::{Entry, Own, Seq, SpoolError, StoredReading};
use crate::record::Record;
use crate::snapshot::SpoolView;

/// Frames stay below it where their content can be split: a sealed segment's values are runs of whole frames.
const FRAME: usize = 4 << 10;

/// The one that appends. What was appended is durable when [`commit`](Self::commit) returns, and not before.
pub struct Writer {
    shared: Arc<Shared>,
    journal: Option<Journal>,
    encoder: Encoder,
    /// The next sequence.
    next: u64,
    /// The open commit.
    open: Vec<u8>,
    open_first: u64,
    open_units: Units,
    open_checkpoint: Option<u64>,
    open_losses: Vec<Loss>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, next: u64) -> Self {
        Self {
            shared,
            journal: None,
            encoder: Encoder::default(),
            next,
            open: Vec::new(),
            open_first: next,
            open_units: Units::default(),
            open_checkpoint: None,
            open_losses: Vec::new(),
        }
    }

    /// Puts an entry into the open commit; returns its last sequence. (Readings and deliveries are split into frames of
    /// about 4 KB, a sequence each; the entry is applied when all up to the returned one are.)
    ///
    /// An empty batch writes nothing, and returns the last sequence that was given.
    pub fn append(&mut self, entry: &Entry) -> Seq {
        match entry {
            Entry::Readings(readings) => readings.chunks(MAX_READINGS).for_each(|chunk| self.put_readings(chunk)),
            Entry::Record { cause, record } => self.put_record(*cause, record),
            Entry::Telemetry(own) => self.put_own(own),
            Entry::Tick(time) => self.put_mark(0, &Mark::Tick(*time)),
            Entry::Deliveries { session, deliveries } => {
                // At most 9 bytes each.
                for chunk in deliveries.chunks(FRAME / 16) {
                    self.put_mark(0, &Mark::Deliveries { session, deliveries: Cow::Borrowed(chunk) });
                }
            }
            Entry::Filters { session, begins, filters } => {
                self.put_mark(0, &Mark::Filters { session, begins: *begins, filters: Cow::Borrowed(filters) });
            }
        }
        Seq(self.next - 1)
    }

    /// Puts the model's state into the open commit; `through` is the last sequence that it has applied.
    pub fn checkpoint(&mut self, through: Seq, state: &[u8]) {
        let room = FRAME - HEADER - 32; // the mark's own fields take at most 10 + 5 + 5 + 5 bytes
        let pieces = state.len().div_ceil(room).max(1);
        let pieces = u32::try_from(pieces).expect("a model's state is far below 16 TB");
        for piece in 0..pieces {
            let at = piece as usize * room;
            let bytes = &state[at..state.len().min(at + room)];
            self.put_mark(0, &Mark::Checkpoint { through: through.0, piece, pieces, bytes });
        }
        self.open_checkpoint = Some(through.0);
    }

    /// Bytes of the open commit. A caller that cannot commit (a full disk) must stop appending at some bound of its own:
    /// all of it is in memory.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.open.len()
    }

    /// Makes the open commit durable, with one write and one fdatasync; after a crash all of it is there, or nothing.
    /// `now` is kept as a proof of life. An empty commit does nothing.
    ///
    /// What upstream has acknowledged so far becomes durable with it.
    ///
    /// # Errors
    /// When the disk is full or broken. Nothing of the commit is durable then; it stays open, and the next call tries
    /// all of it again, with what was appended since. [`Sealer::work`](super::Sealer::work) makes room.
    pub fn commit(&mut self, now: Time) -> Result<Seq, SpoolError> {
        if self.open.is_empty() {
            return Ok(*self.shared.committed.borrow());
        }
        let content = self.open.len();
        let before = self.next;
        let mark = Mark::Commit {
            time: now,
            first: self.open_first,
            units: self.open_units,
            cursor: self.shared.index().cursor,
        };
        self.put_mark(ENDS_COMMIT, &mark);
        if let Err(error) = self.write() {
            self.open.truncate(content);
            self.next = before;
            let mut index = self.shared.index();
            index.pressed |= error.is_full();
            index.error = Some(error.to_string());
            drop(index);
            self.shared.work.notify_one();
            return Err(error);
        }
        self.enter(now);
        Ok(Seq(self.next - 1))
    }

    /// Makes `entry` durable by itself, in a commit of its own after the open one: for what must not be told unless it is kept,
    /// and not be kept unless it is told.
    ///
    /// # Errors
    /// As [`Writer::commit`]. What the open commit held is tried again by the next one; `entry` never is.
    pub fn commit_alone(&mut self, entry: &Entry, now: Time) -> Result<Seq, SpoolError> {
        self.commit(now)?;
        let seq = self.append(entry);
        if let Err(error) = self.commit(now) {
            self.open.clear();
            self.next = self.open_first;
            self.open_units = Units::default();
            self.open_losses.clear();
            return Err(error);
        }
        Ok(seq)
    }

    /// For the snapshot.
    #[must_use]
    pub fn view(&self) -> SpoolView {
        self.shared.index().view()
    }

    fn put_readings(&mut self, readings: &[StoredReading]) {
        let payload = self.encoder.encode(readings);
        if payload.len() + HEADER > FRAME && readings.len() > 1 {
            let (head, tail) = readings.split_at(readings.len() / 2);
            self.put_readings(head);
            return self.put_readings(tail);
        }
        put(&mut self.open, self.next, Lane::Readings, 0, payload);
        self.open_units.add(Lane::Readings, readings.len() as u64);
        self.next += 1;
    }

    fn put_record(&mut self, cause: Option<Seq>, record: &Record) {
        let lane = match record {
            Record::Kpi(_) | Record::Watched(_) | Record::Line(_) => Lane::Kpis,
            Record::StateChanged { .. }
            | Record::ValidityChanged { .. }
            | Record::TagChanged { .. }
            | Record::Loss { .. }
            | Record::Visit(_)
            | Record::Event(_)
            | Record::Entered(_)
            | Record::Backfilled(_)
            | Record::Anomaly(_)
            | Record::Violation(_)
            | Record::ModelChanged { .. } => Lane::Events,
        };
        if let Record::Loss { loss, .. } = record {
            self.open_losses.push(loss.clone());
        }
        let payload = postcard::to_stdvec(&(cause.map(|seq| seq.0), record)).expect("plain data always encodes");
        put(&mut self.open, self.next, lane, 0, &payload);
        self.open_units.add(lane, 1);
        self.next += 1;
    }

    fn put_own(&mut self, Own { signal, items, time, body }: &Own) {
        let payload = postcard::to_stdvec(&(items, signal, time, &body[..])).expect("plain data always encodes");
        put(&mut self.open, self.next, Lane::Telemetry, 0, &payload);
        self.open_units.add(Lane::Telemetry, *items);
        self.next += 1;
    }

    fn put_mark(&mut self, flags: u8, mark: &Mark<'_>) {
        let payload = postcard::to_stdvec(mark).expect("plain data always encodes");
        put(&mut self.open, self.next, Lane::Model, flags, &payload);
        self.next += 1;
    }

    fn write(&mut self) -> Result<(), SpoolError> {
        let root = &self.shared.root;
        if self.journal.as_ref().is_none_or(|journal| journal.len >= self.shared.settings.journal_size) {
            self.journal = Some(Journal::create(root, self.open_first)?);
        }
        let journal = self.journal.as_mut().expect("just made");
        let Err(source) = journal.append(&self.open) else { return Ok(()) };
        let path = root.join(&super::files::journal_name(journal.first));
        let error = SpoolError::io("write", &path)(source);
        if !error.is_full() {
            // After a failed fdatasync nobody knows what this file's cache is worth: never append to it again.
            self.journal = None;
        }
        Err(error)
    }

    /// Tells the others what has just become durable.
    fn enter(&mut self, now: Time) {
        let journal = self.journal.as_ref().expect("just written");
        let (first, len, last) = (journal.first, journal.len, self.next - 1);
        let mut index = self.shared.index();
        let rolled = index.active.replace(first) != Some(first);
        let part = index.parts.entry(first).or_insert_with(|| Part {
            last,
            span: (now, now),
            units: Units::default(),
            store: Store::Journal { len: 0, marks: Marks::new(), left_over: false },
        });
        part.last = last;
        part.span.1 = now;
        part.units = part.units.plus(self.open_units);
        if let Store::Journal { len: held, marks, .. } = &mut part.store {
            *held = len;
            if self.open_units.total() > 0 {
                marks.push_back((last, now));
            }
        }
        let applied = self.open_checkpoint.take();
        if let Some(through) = applied {
            index.checkpoint = Some((through, first));
        }
        index.told(&self.open_losses);
        index.error = None;
        drop(index);
        self.open.clear();
        self.open_first = self.next;
        self.open_units = Units::default();
        self.open_losses.clear();
        self.shared.committed.send_replace(Seq(last));
        if rolled || applied.is_some() {
            self.shared.work.notify_one();
        }
    }
}
