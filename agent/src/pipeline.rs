//! The one place where readings become figures and both become durable.
//!
//! Owns the line model and the spool's writing end, and runs on a thread of its own: a slow disk holds up
//! nothing but itself, and the bounded channel before it then slows the drivers instead of losing readings.
//! One commit gathers what came within `spool.sync`; readings and everything derived from them share it, so a
//! cut never leaves one without the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Batch, Loss, Reading, Receipt, Time};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::model::{Derived, KPI_EVERY, LATENESS, Line};
use crate::received::Received;
use crate::snapshot::Snapshot;
use crate::spool::{Entry, Seq, SeriesId, StoredReading, Writer};

/// How often the model is written down, so that a restart has little to apply again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// A commit that has grown to this many bytes does not wait for its time.
const FULL_COMMIT: usize = 256 << 10;
/// A commit that so many senders wait for does not wait for its time either: brokers leave a client few messages
/// unacknowledged (Mosquitto 20) and then send nothing more.
const MOST_RECEIPTS: usize = 10;
/// How long to wait before a failed commit is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What is held in memory while nothing can be stored, in bytes; beyond it readings are lost, and counted.
const MOST_UNSTORED: usize = 16 << 20;
/// Pages are served at most this often.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);

/// The pipeline, before it runs.
pub struct Pipeline {
    line: Line,
    writer: Writer,
    /// Lasting names of the tags, by tag.
    ids: Vec<SeriesId>,
    sync: Duration,
    snapshot: watch::Sender<Arc<Snapshot>>,
    derived: Derived,
    receipts: Vec<Receipt>,
    /// What the receipts are for, and those before.
    received: Received,
    /// The last sequence that the model has applied.
    applied: Seq,
    commit_due: Option<Instant>,
    checkpoint_due: Instant,
    /// What could not even be held in memory, by station.
    unstored: BTreeMap<Arc<str>, Loss>,
    /// Why the last commit failed.
    failing: Option<String>,
}

impl Pipeline {
    /// A pipeline for `line`, which has applied everything up to `applied`; `received` is what brokers delivered till then.
    #[must_use]
    pub fn new(
        line: Line,
        writer: Writer,
        ids: Vec<SeriesId>,
        applied: Seq,
        received: Received,
        sync: Duration,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        Self {
            line,
            writer,
            ids,
            sync,
            snapshot,
            derived: Derived::default(),
            receipts: Vec::new(),
            received,
            applied,
            commit_due: None,
            checkpoint_due: Instant::now() + CHECKPOINT_EVERY,
            unstored: BTreeMap::new(),
            failing: None,
        }
    }

    /// Runs until every driver has let go of `inlet`; then tells the last figures, writes the model down and
    /// commits. `losses` is what others lost: the forwarder, the spool's house-keeping.
    ///
    /// Commits block, so this wants a thread of its own.
    pub async fn run(
        mut self,
        mut inlet: mpsc::Receiver<Batch>,
        mut losses: mpsc::Receiver<Loss>,
        wanted: Arc<Notify>,
    ) {
        let mut tick_due = next_tick(Time::now());
        let mut published = Instant::now();
        let mut publish_due = None;
        self.publish();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.commit_due.unwrap_or_else(Instant::now)), if self.commit_due.is_some() => self.commit(),
                () = sleep_until(tick_due) => {
                    self.tick(Time::now());
                    tick_due = next_tick(Time::now());
                }
                () = sleep_until(publish_due.unwrap_or(published)), if publish_due.is_some() => {
                    publish_due = None;
                    published = Instant::now();
                    self.publish();
                }
                () = wanted.notified(), if publish_due.is_none() => publish_due = Some(published + SNAPSHOT_EVERY),
                Some(loss) = losses.recv() => self.lose(loss),
                batch = inlet.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => break,
                },
            }
        }
        while let Ok(loss) = losses.try_recv() {
            self.lose(loss);
        }
        self.finish(Time::now());
    }

    fn take(&mut self, batch: Batch) {
        let Batch { readings, losses, receipt } = batch;
        if self.failing.is_some() && self.writer.pending_bytes() > MOST_UNSTORED {
            self.drop_unstored(&readings);
        } else if !readings.is_empty() {
            self.line.apply(&readings, &mut self.derived);
            let ids = &self.ids;
            let stored = readings.into_iter().map(|reading| StoredReading::new(ids[reading.tag.index()], reading));
            let cause = self.append(&Entry::Readings(stored.collect()));
            self.append_derived(Some(cause));
        }
        for loss in losses {
            self.line.lose(loss, &mut self.derived);
        }
        self.append_derived(None);
        if let Some(receipt) = receipt {
            let (session, delivery) = receipt.delivery();
            self.received.note(session, delivery);
            self.receipts.push(receipt);
        }
        if self.receipts.len() >= MOST_RECEIPTS && self.failing.is_none() {
            self.commit_due = Some(Instant::now());
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.line.lose(loss, &mut self.derived);
        self.append_derived(None);
    }

    /// Time goes on: the model hears of it, and the spool, so that a restart can tell it again.
    fn tick(&mut self, now: Time) {
        self.append(&Entry::Tick(now));
        self.line.advance(now, &mut self.derived);
        self.append_derived(None);
    }

    fn finish(&mut self, now: Time) {
        self.line.tell_last(now, &mut self.derived);
        self.append_derived(None);
        self.checkpoint_due = Instant::now();
        self.commit();
        self.publish();
        if self.failing.is_some() {
            error!(bytes = self.writer.pending_bytes(), "stopping with readings that could not be stored");
        }
    }

    fn append(&mut self, entry: &Entry) -> Seq {
        let seq = self.writer.append(entry);
        self.applied = seq;
        let soon = self.writer.pending_bytes() > FULL_COMMIT && self.failing.is_none();
        let due = Instant::now() + if soon { Duration::ZERO } else { self.sync };
        self.commit_due = Some(self.commit_due.map_or(due, |held| held.min(due)));
        seq
    }

    fn append_derived(&mut self, cause: Option<Seq>) {
        self.derived.closed.clear();
        let mut records = std::mem::take(&mut self.derived.records);
        for record in records.drain(..) {
            self.append(&Entry::Record { cause, record });
        }
        self.derived.records = records; // keeps its room
    }

    fn commit(&mut self) {
        if self.checkpoint_due <= Instant::now() {
            self.writer.checkpoint(self.applied, &self.line.checkpoint());
            self.received.rewrite();
            self.checkpoint_due = Instant::now() + CHECKPOINT_EVERY;
        }
        self.received.write(|entry| self.applied = self.writer.append(&entry));
        match self.writer.commit(Time::now()) {
            Ok(_) => {
                self.commit_due = None;
                for receipt in self.receipts.drain(..) {
                    receipt.sign();
                }
                if self.failing.take().is_some() {
                    info!("the spool can be written again");
                }
                for (_, loss) in std::mem::take(&mut self.unstored) {
                    self.lose(loss);
                }
            }
            Err(error) => {
                if self.failing.replace(error.to_string()).is_none() {
                    warn!(%error, "the spool cannot be written; readings are held in memory");
                }
                self.commit_due = Some(Instant::now() + RETRY);
            }
        }
    }

    fn publish(&mut self) {
        let mut spool = self.writer.view();
        spool.error.clone_from(&self.failing);
        spool.full = !self.unstored.is_empty();
        let snapshot = self.line.snapshot(Time::now(), spool);
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Neither disk nor memory has room: the readings go, their count and span stay.
    fn drop_unstored(&mut self, readings: &[Reading]) {
        for reading in readings {
            let station = self.line.station_of(reading.tag);
            let at = reading.received_time;
            let loss = self.unstored.entry(station.clone()).or_insert_with(|| Loss {
                source: station,
                from: at,
                to: at,
                count: 0,
                reason: "the spool could not be written and memory was full".into(),
            });
            loss.count += 1;
            loss.to = loss.to.max(at);
        }
    }
}

/// Ticks come when figures are due and their readings have had time to arrive.
fn next_tick(now: Time) -> Instant {
    let step = i64::try_from(KPI_EVERY.as_nanos()).unwrap_or(i64::MAX);
    let settled = now - LATENESS;
    let due = Time(settled.0.div_euclid(step) * step + step) + LATENESS;
    // A little after, so that the instant itself lies in the past.
    Instant::now() + due.since(now) + Duration::from_millis(1)
}
