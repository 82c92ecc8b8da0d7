//! The one place where readings become figures and both become durable.
//!
//! Owns the line model and the spool's writing end, and runs on a thread of its own: a slow disk holds up
//! nothing but itself, and the bounded channel before it then slows the drivers instead of losing readings.
//! One commit gathers what came within `spool.sync`; readings and everything derived from them share it, so a
//! cut never leaves one without the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Batch, Loss, Reading, Receipt, Time, Value};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{Span, debug_span, error, field::Empty, info, warn};

use crate::entries::EntryJson;
use crate::http::{NotTaken, Question, Refusal, Telling, Told};
use crate::model::{Derived, KPI_EVERY, LATENESS, Line};
use crate::received::Received;
use crate::record::Record;
use crate::snapshot::Snapshot;
use crate::spool::{Entry, Own, Seq, SeriesId, StoredReading, Writer};
use crate::telemetry::meters::Meters;

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
/// How much later than it could a reading is settled that nothing else settles: most have a successor that does.
const SETTLE_SLACK: Duration = Duration::from_millis(500);
/// Pages are served at most this often.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(100);
/// Questions are answered at most this often: readings come first.
const ANSWER_EVERY: Duration = Duration::from_millis(250);
/// What people tell is taken at most this often: each entry is a commit of its own, and flash wears out.
const ENTRY_EVERY: Duration = Duration::from_millis(250);

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
    /// When to look whether a reading waits to be settled that no other comes after.
    settle_due: Option<Instant>,
    checkpoint_due: Instant,
    /// What could not even be held in memory, by station.
    unstored: BTreeMap<Arc<str>, Loss>,
    /// Why the last commit failed.
    failing: Option<String>,
    /// What the agent tells of itself; nothing unless [`Pipeline::with_own`] says otherwise.
    own: mpsc::Receiver<Own>,
    /// What people ask beyond a snapshot; nothing unless [`Pipeline::with_questions`] says otherwise.
    questions: mpsc::Receiver<Question>,
    /// What people tell; nothing unless [`Pipeline::with_entries`] says otherwise.
    tellings: mpsc::Receiver<Telling>,
    meters: Arc<Meters>,
    /// The open commit holds more than the agent's word of itself. One that does not is not told of: that would go on for
    /// ever.
    news: bool,
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
            settle_due: None,
            checkpoint_due: Instant::now() + CHECKPOINT_EVERY,
            unstored: BTreeMap::new(),
            failing: None,
            own: mpsc::channel(1).1,
            questions: mpsc::channel(1).1,
            tellings: mpsc::channel(1).1,
            meters: Arc::default(),
            news: false,
        }
    }

    /// Stores what comes by `own` as well, and counts in `meters`.
    #[must_use]
    pub fn with_own(self, own: mpsc::Receiver<Own>, meters: Arc<Meters>) -> Self {
        Self { own, meters, ..self }
    }

    /// Answers what comes by `questions` as well, one at a time.
    #[must_use]
    pub fn with_questions(self, questions: mpsc::Receiver<Question>) -> Self {
        Self { questions, ..self }
    }

    /// Takes what comes by `tellings` as well, one at a time.
    #[must_use]
    pub fn with_entries(self, tellings: mpsc::Receiver<Telling>) -> Self {
        Self { tellings, ..self }
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
        let mut own = std::mem::replace(&mut self.own, mpsc::channel(1).1);
        let mut questions = std::mem::replace(&mut self.questions, mpsc::channel(1).1);
        let mut tellings = std::mem::replace(&mut self.tellings, mpsc::channel(1).1);
        let mut published = Instant::now();
        let mut publish_due = None;
        let (mut asked, mut answer_due) = (None, Instant::now());
        let (mut telling, mut entry_due) = (None, Instant::now());
        self.publish();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.commit_due.unwrap_or_else(Instant::now)), if self.commit_due.is_some() => self.commit(),
                () = sleep_until(tick_due) => {
                    self.tick(Time::now());
                    tick_due = next_tick(Time::now());
                }
                () = sleep_until(self.settle_due.unwrap_or_else(Instant::now)), if self.settle_due.is_some() => {
                    self.settle(Time::now());
                }
                () = sleep_until(publish_due.unwrap_or(published)), if publish_due.is_some() => {
                    publish_due = None;
                    published = Instant::now();
                    self.publish();
                }
                () = wanted.notified(), if publish_due.is_none() => publish_due = Some(published + SNAPSHOT_EVERY),
                () = sleep_until(answer_due), if asked.is_some() => {
                    asked.take().into_iter().for_each(|question| self.answer(question));
                    answer_due = Instant::now() + ANSWER_EVERY;
                }
                Some(question) = questions.recv(), if asked.is_none() => asked = Some(question),
                () = sleep_until(entry_due), if telling.is_some() => {
                    telling.take().into_iter().for_each(|telling| self.hear(telling));
                    entry_due = Instant::now() + ENTRY_EVERY;
                }
                Some(told) = tellings.recv(), if telling.is_none() => telling = Some(told),
                Some(loss) = losses.recv() => self.lose(loss),
                Some(own) = own.recv() => self.take_own(own),
                batch = inlet.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => break,
                },
            }
        }
        while let Ok(loss) = losses.try_recv() {
            self.lose(loss);
        }
        while let Ok(own) = own.try_recv() {
            self.take_own(own);
        }
        self.finish(Time::now());
    }

    fn take(&mut self, batch: Batch) {
        let Batch { readings, losses, events, backfills, receipt } = batch;
        self.news = true;
        self.meters.took_batch();
        let full = self.is_full();
        if full {
            let line = &self.line;
            forget(&mut self.unstored, readings.iter().map(|of| (line.station_of(of.tag), of.received_time)));
        } else if !readings.is_empty() {
            self.line.apply(&readings, &mut self.derived);
            self.settle_due.get_or_insert_with(|| Instant::now() + LATENESS + SETTLE_SLACK);
            // A bad reading of a tag that tells text is no number either.
            let text = |reading: &&Reading| match reading.value {
                Value::Text(_) => true,
                Value::Null => self.line.tells_text(reading.tag),
                Value::Bool(_) | Value::Int(_) | Value::Float(_) => false,
            };
            let texts = readings.iter().filter(text).count();
            self.meters.took(readings.len() - texts, texts);
            let ids = &self.ids;
            let stored = readings.into_iter().map(|reading| StoredReading::new(ids[reading.tag.index()], reading));
            let cause = self.append(&Entry::Readings(stored.collect()));
            self.append_derived(Some(cause), full);
        }
        for loss in losses {
            self.line.lose(loss, &mut self.derived);
        }
        // Nothing is derived from events: they go upstream as they are.
        self.derived.records.extend(events.into_iter().map(|event| Record::Event(Box::new(event))));
        self.derived.records.extend(backfills.into_iter().map(Record::Backfilled));
        self.append_derived(None, full);
        if let Some(receipt) = receipt {
            let (session, keep) = receipt.keep();
            self.received.keep(session, keep);
            self.receipts.push(receipt);
        }
        if self.receipts.len() >= MOST_RECEIPTS && self.failing.is_none() {
            self.commit_due = Some(Instant::now());
        }
    }

    /// Whoever asked may have gone meanwhile; then nothing is worked out.
    fn answer(&self, question: Question) {
        let Question { station, selector, answer } = question;
        if answer.is_closed() {
            return;
        }
        let said = match self.line.station(&station) {
            Some(index) => self.line.explain(index, &selector, Time::now()).map(Box::new).map_err(Refusal::from),
            None => Err(Refusal::NoStation(station)),
        };
        let _ = answer.send(said);
    }

    /// Takes what somebody tells, unless they have given up meanwhile. They hear of it once it is durable.
    fn hear(&mut self, telling: Telling) {
        let Some((entry, answer)) = telling.begin() else { return };
        let _ = answer.send(self.enter(entry, Time::now()));
    }

    /// Checks, stores and applies an entry, or does none of it: what would not outlast a power cut is not taken.
    fn enter(&mut self, entry: EntryJson, now: Time) -> Told {
        if let Some(why) = &self.failing {
            return Err(NotTaken::Unstored(why.clone()));
        }
        let told = Arc::new(entry.resolve(now).map_err(NotTaken::Wrong)?);
        self.line.check(&told)?;
        // A restart applies what came before it first, as it was here.
        self.commit();
        if let Some(why) = &self.failing {
            return Err(NotTaken::Unstored(why.clone()));
        }
        let stored = Entry::Record { cause: None, record: Record::Entered(told.clone()) };
        self.applied = self.writer.commit_alone(&stored, now).map_err(|error| {
            warn!(%error, "an entry could not be stored, and is not taken");
            NotTaken::Unstored(error.to_string())
        })?;
        // Its record is stored.
        self.line.enter(told.clone(), &mut Derived::default())?;
        self.settle_due.get_or_insert_with(|| Instant::now() + LATENESS + SETTLE_SLACK);
        Ok(told)
    }

    /// Readings that wait are settled in time, though nothing more comes.
    fn settle(&mut self, now: Time) {
        let settled = now - (LATENESS + SETTLE_SLACK);
        if self.line.turn().is_some_and(|turn| turn <= settled) {
            self.tick(now);
        }
        let wait = |turn: Time| (turn + (LATENESS + SETTLE_SLACK)).since(now).max(SETTLE_SLACK);
        self.settle_due = self.line.turn().map(|turn| Instant::now() + wait(turn));
    }

    /// While the disk fails memory is for readings.
    fn take_own(&mut self, own: Own) {
        if self.failing.is_some() {
            self.meters.drop_own(own.items);
        } else {
            self.append(&Entry::Telemetry(own));
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.line.lose(loss, &mut self.derived);
        self.append_derived(None, self.is_full());
    }

    /// Time goes on: the model hears of it, and the spool, so that a restart can tell it again.
    fn tick(&mut self, now: Time) {
        let full = self.is_full();
        // What it settles is derived again from it after a restart, losses too.
        let cause = (!full).then(|| self.append(&Entry::Tick(now)));
        self.line.advance(now, &mut self.derived);
        self.append_derived(cause, full);
    }

    fn finish(&mut self, now: Time) {
        self.line.tell_last(now, &mut self.derived);
        self.append_derived(None, self.is_full());
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

    /// `full` since before the readings came that it is derived from: they share a commit, or neither is kept.
    fn append_derived(&mut self, cause: Option<Seq>, full: bool) {
        self.derived.closed.clear();
        self.derived.inspected.clear();
        let mut records = std::mem::take(&mut self.derived.records);
        self.news |= !records.is_empty();
        if full {
            // Losses are in the ledger all the same, and in the totals that upstream hears of later.
            let dropped = records.drain(..).filter_map(|record| match record {
                Record::Kpi(point) => Some((point.station, point.time)),
                Record::StateChanged { station, time, .. }
                | Record::ValidityChanged { station, time, .. }
                | Record::TagChanged { station, time, .. } => Some((station, time)),
                Record::Visit(visit) => Some((visit.station, visit.to)),
                Record::Event(event) => Some((event.station, event.received)),
                Record::Backfilled(told) => Some((told.station, told.to)),
                Record::Anomaly(told) => Some((told.station, told.time)),
                Record::Violation(told) => Some((told.station.clone(), told.time())),
                Record::ModelChanged { station, time, .. } => Some((station, time)),
                Record::Watched(point) => Some((point.station, point.time)),
                Record::Line(point) => Some(("line".into(), point.time)),
                Record::Loss { .. } | Record::Entered(_) => None,
            });
            forget(&mut self.unstored, dropped);
        }
        for record in records.drain(..) {
            match record {
                Record::TagChanged { .. } => self.meters.text_changed(),
                Record::Event(_) => self.meters.took_event(),
                _ => {}
            }
            self.append(&Entry::Record { cause, record });
        }
        self.derived.records = records; // keeps its room
    }

    fn commit(&mut self) {
        // Not while the disk fails: one after the other would pile up in memory.
        if self.checkpoint_due <= Instant::now() && self.failing.is_none() {
            self.writer.checkpoint(self.applied, &self.line.checkpoint());
            self.received.rewrite();
            self.checkpoint_due = Instant::now() + CHECKPOINT_EVERY;
        }
        self.received.write(|entry| self.applied = self.writer.append(&entry));
        let (bytes, begun) = (self.writer.pending_bytes(), Instant::now());
        let span = if self.news && self.failing.is_none() {
            debug_span!(
                "commit",
                otel.kind = "internal",
                otel.status_code = Empty,
                otel.status_description = Empty,
                gemba.commit.size = bytes,
            )
        } else {
            Span::none()
        };
        match span.in_scope(|| self.writer.commit(Time::now())) {
            Ok(_) => {
                if bytes > 0 {
                    self.meters.committed(bytes, begun.elapsed(), &self.writer.view());
                }
                self.news = false;
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
                span.record("otel.status_code", "ERROR");
                span.record("otel.status_description", error.to_string());
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
        let snapshot = Snapshot { intake: self.meters.intake(), ..self.line.snapshot(Time::now(), spool) };
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Neither disk nor memory has room for more.
    fn is_full(&self) -> bool {
        self.failing.is_some() && self.writer.pending_bytes() > MOST_UNSTORED
    }
}

/// What could not be stored goes; its count and span stay, to be told once something can be stored again.
fn forget(unstored: &mut BTreeMap<Arc<str>, Loss>, what: impl IntoIterator<Item = (Arc<str>, Time)>) {
    for (station, at) in what {
        let loss = unstored.entry(station.clone()).or_insert_with(|| Loss {
            source: station,
            from: at,
            to: at,
            count: 0,
            reason: "the spool could not be written and memory was full".into(),
        });
        loss.count += 1;
        loss.from = loss.from.min(at);
        loss.to = loss.to.max(at);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gemba_drivers::{Reading, TagId, Value};

    use super::*;
    use crate::config::Config;
    use crate::spool::{self, Series, Settings};

    const YAML: &str = "
site: fab-2
line: smt-1
timezone: UTC
stations:
  - name: oven-1
    source: { type: mqtt, endpoint: \"mqtt://127.0.0.1:1883\", client_id: gemba, topics: [{ topic: oven, payload: json }] }
    tags:
      - { name: state, path: \"$.state\" }
      - { name: recipe, path: \"$.recipe\" }
    oee:
      state: { tag: state, map: { running: producing } }
";

    /// A pipeline whose journal is full after each commit: the next one needs the folder to be there.
    fn pipeline(folder: &Path) -> (Pipeline, watch::Receiver<Arc<Snapshot>>) {
        let file = folder.join("line.yaml");
        std::fs::write(&file, YAML).expect("written");
        let config = Config::load(&file).expect("a configuration");
        let (max_size, keep_free, keep, journal_size) = (1 << 30, 0, Duration::ZERO, 1);
        let settings = Settings { path: folder.join("spool"), max_size, keep_free, keep, journal_size };
        let series = config.tags.iter().map(|tag| Series {
            station: config.stations[tag.station].name.clone(),
            tag: tag.name.clone(),
            unit: None,
            metric: None,
            text: true,
        });
        let opened = spool::open(settings, &series.collect::<Vec<_>>()).expect("opens");
        let (snapshots, snapshot) = watch::channel(Arc::default());
        let sync = Duration::from_millis(10);
        let line = Line::new(&config);
        let applied = Seq::default();
        (Pipeline::new(line, opened.writer, opened.ids, applied, Received::default(), sync, snapshots), snapshot)
    }

    /// What a restart finds in the spool of [`pipeline`].
    fn stored(folder: &Path) -> Vec<Entry> {
        let (max_size, keep_free, keep, journal_size) = (8 << 20, 0, Duration::ZERO, 1 << 20);
        let settings = Settings { path: folder.join("spool"), max_size, keep_free, keep, journal_size };
        let opened = spool::open(settings, &[]).expect("opens");
        opened.recovery.entries().map(|entry| entry.expect("reads").1).collect()
    }

    fn said(tag: u32, text: &str, seconds: i64) -> Batch {
        let at = Time::from_millis(1_772_431_200_000 + seconds * 1000);
        let readings = vec![Reading::good(TagId(tag), Value::Text(text.into()), at, at)];
        Batch { readings, ..Batch::default() }
    }

    #[tokio::test]
    async fn what_a_device_tells_is_stored_as_it_is_and_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        let event = gemba_drivers::Event {
            station: "oven-1".into(),
            time: Time(5),
            received: Time(6),
            kind: "SystemEventType".into(),
            severity: 500,
            message: "door open".into(),
            attributes: vec![("opcua.event.source.name".into(), Value::Text("Door".into()))],
        };
        pipeline.take(Batch { events: vec![event.clone()], ..Batch::default() });
        pipeline.commit();
        assert_eq!(pipeline.failing, None);
        let counted = pipeline.meters.metrics();
        let counted = counted.iter().find(|metric| metric.name == "gemba.events").expect("it is told");
        assert_eq!(counted.points[0].value, crate::telemetry::metric::Number::Whole(1));
        drop(pipeline);

        let stored = stored(folder.path());
        let told = stored.iter().find_map(|entry| match entry {
            Entry::Record { record: Record::Event(event), .. } => Some((**event).clone()),
            _ => None,
        });
        assert_eq!(told, Some(event));
    }

    #[tokio::test]
    async fn questions_are_answered_while_readings_come() {
        use crate::model::{ExplainError, Selector};

        let folder = tempfile::tempdir().expect("a folder");
        let (pipeline, _snapshot) = pipeline(folder.path());
        let (batches, inlet) = mpsc::channel(4);
        let (_losses, lost) = mpsc::channel(1);
        let (questions, asked) = mpsc::channel(4);
        let ask = async |station: &str| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            let question = Question { station: station.to_owned(), selector: Selector::Current, answer };
            questions.send(question).await.expect("it runs");
            answered.await.expect("it answers")
        };
        let talk = async {
            // Whoever has gone is not waited for.
            let (answer, gone) = tokio::sync::oneshot::channel();
            drop(gone);
            let question = Question { station: "oven-1".to_owned(), selector: Selector::Current, answer };
            questions.send(question).await.expect("it runs");
            assert_eq!(ask("oven-2").await.err(), Some(Refusal::NoStation("oven-2".to_owned())));
            assert_eq!(ask("oven-1").await.err(), Some(ExplainError::Unheard("oven-1".into()).into()));
            batches.send(said(0, "running", 0)).await.expect("it runs");
            let explained = loop {
                match ask("oven-1").await {
                    Ok(explained) => break explained,
                    Err(refusal) => assert_eq!(refusal, ExplainError::Unheard("oven-1".into()).into()),
                }
            };
            assert_eq!((explained.kind, &*explained.name), ("shift", crate::model::WHOLE_DAY));
            drop(batches);
        };
        let running = pipeline.with_questions(asked).run(inlet, lost, Arc::new(Notify::new()));
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(running, talk) }).await.expect("in time");
    }

    /// What is told, without the page.
    async fn tell(pipeline: &mut Pipeline, entry: &str) -> Told {
        let entry = serde_json::from_str(entry).expect("an entry");
        let (telling, told) = Telling::new(entry, Duration::from_secs(5));
        pipeline.hear(telling);
        told.await.expect("an answer")
    }

    fn entered(stored: &[Entry]) -> Vec<Arc<crate::model::Entry>> {
        let of = |entry: &Entry| match entry {
            Entry::Record { cause: None, record: Record::Entered(told) } => Some(told.clone()),
            _ => None,
        };
        stored.iter().filter_map(of).collect()
    }

    const LOT: &str = r#"{"station":"oven-1","by":"anna","work":{"lot":"4711"}}"#;

    #[tokio::test]
    async fn who_tells_hears_of_it_once_it_is_durable() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        let refused = tell(&mut pipeline, LOT).await;
        assert_eq!(refused, Err(crate::model::EntryError::NothingYet("oven-1".into()).into()));
        let now = Time::now();
        let running = Reading::good(TagId(0), Value::Text("running".into()), now, now);
        pipeline.take(Batch { readings: vec![running], ..Batch::default() });
        let told = tell(&mut pipeline, LOT).await.expect("it is taken");
        // As a cut leaves it: nothing is committed after the answer.
        let kept = copied(folder.path());
        let stored = stored(kept.path());
        assert_eq!(entered(&stored), std::slice::from_ref(&told));
        assert!(told.entered >= now, "by the gateway's clock");
        assert!(matches!(stored[0], Entry::Readings(_)), "what it was checked against came first: {stored:?}");
        assert_eq!(pipeline.line.entries().collect::<Vec<_>>(), [&told]);
        assert!(pipeline.settle_due.is_some(), "somebody has to look");
    }

    #[tokio::test]
    async fn what_cannot_be_stored_is_neither_told_nor_applied() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        pipeline.take(said(0, "running", 0));
        pipeline.commit();
        let (there, gone) = (folder.path().join("spool"), folder.path().join("gone"));
        std::fs::rename(&there, &gone).expect("moved away");
        // The entry itself meets the fault; then what came before it; then one that is known.
        assert!(matches!(tell(&mut pipeline, LOT).await, Err(NotTaken::Unstored(_))));
        assert_eq!((pipeline.writer.pending_bytes(), &pipeline.failing), (0, &None), "it is not tried again");
        pipeline.take(said(0, "stopped", 1));
        assert!(matches!(tell(&mut pipeline, LOT).await, Err(NotTaken::Unstored(_))));
        assert!(pipeline.failing.is_some());
        let held = pipeline.writer.pending_bytes();
        assert!(matches!(tell(&mut pipeline, LOT).await, Err(NotTaken::Unstored(_))));
        assert_eq!(pipeline.writer.pending_bytes(), held);
        assert_eq!(pipeline.line.entries().count(), 0);

        std::fs::rename(&gone, &there).expect("back again");
        pipeline.commit();
        let told = tell(&mut pipeline, LOT).await.expect("it is taken");
        pipeline.take(said(0, "running", 2));
        pipeline.commit();
        drop(pipeline);
        let stored = stored(folder.path());
        assert_eq!(entered(&stored), [told], "what was refused never comes back");
        assert_eq!(
            stored.iter().filter(|entry| matches!(entry, Entry::Readings(_))).count(),
            3,
            "nor is a reading lost"
        );
    }

    #[tokio::test]
    async fn whoever_gave_up_told_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        pipeline.take(said(0, "running", 0));
        let (telling, told) = Telling::new(serde_json::from_str(LOT).expect("an entry"), Duration::ZERO);
        assert_eq!(told.await, Err(crate::http::Silence::NotBegun));
        pipeline.hear(telling);
        let (telling, told) = Telling::new(serde_json::from_str(LOT).expect("an entry"), Duration::from_secs(5));
        drop(told);
        pipeline.hear(telling);
        assert_eq!(pipeline.line.entries().count(), 0);
    }

    #[tokio::test]
    async fn entries_are_taken_among_readings_and_not_after_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipeline, mut snapshot) = pipeline(folder.path());
        let (batches, inlet) = mpsc::channel(4);
        let (_losses, lost) = mpsc::channel(1);
        let (tellings, heard) = mpsc::channel(1);
        let tell = async || {
            let (telling, told) = Telling::new(serde_json::from_str(LOT).expect("an entry"), Duration::from_secs(60));
            tellings.send(telling).await.map_err(|_| crate::http::Silence::NotBegun)?;
            told.await
        };
        let wanted = Arc::new(Notify::new());
        let talk = async {
            batches.send(said(0, "running", 0)).await.expect("it runs");
            let told = loop {
                if let Ok(told) = tell().await.expect("an answer") {
                    break told;
                }
            };
            snapshot.borrow_and_update();
            wanted.notify_one();
            let shown = snapshot.wait_for(|snapshot| !snapshot.entries.is_empty()).await.expect("it runs");
            assert_eq!(shown.entries, [told]);
            drop(shown);
            drop(batches);
            while tell().await.is_ok() {}
        };
        let running = pipeline.with_entries(heard).run(inlet, lost, wanted.clone());
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(running, talk) }).await.expect("in time");
    }

    /// The folder as a power cut leaves it.
    fn copied(folder: &Path) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(copy.path().join("spool")).expect("made");
        for file in std::fs::read_dir(folder.join("spool")).expect("a spool") {
            let file = file.expect("listed");
            std::fs::copy(file.path(), copy.path().join("spool").join(file.file_name())).expect("copied");
        }
        copy
    }

    #[tokio::test]
    async fn a_commit_of_nothing_but_telemetry_makes_no_more_of_it() {
        use tracing_subscriber::prelude::*;

        use crate::spool::{Own, Signal};
        use crate::telemetry::outbox::Outbox;

        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        let outbox = Outbox::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(outbox.layer(1.0)));
        let own = || Own { signal: Signal::Traces, items: 2, time: Time(1), body: b"spans".as_slice().into() };
        pipeline.take(said(0, "running", 0));
        pipeline.take_own(own());
        pipeline.commit();
        assert_eq!(outbox.take().spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["commit"]);
        for _ in 0..10 {
            pipeline.take_own(own());
            pipeline.commit();
        }
        assert_eq!(outbox.take().spans.len(), 0);
        let view = pipeline.writer.view();
        assert_eq!((view.readings, view.records), (1, view.records.max(1)), "nobody waits for telemetry");
        let stored = spool::status(&folder.path().join("spool")).expect("a spool");
        assert_eq!(stored.records, view.records);

        let (there, gone) = (folder.path().join("spool"), folder.path().join("gone"));
        std::fs::rename(&there, &gone).expect("moved away");
        pipeline.take(said(0, "stopped", 1));
        pipeline.commit();
        assert!(pipeline.failing.is_some(), "there is no folder");
        pipeline.take_own(own());
        assert_eq!(pipeline.meters.dropped(), 2, "while the disk fails memory is for readings");
    }

    #[tokio::test]
    async fn a_reading_that_none_comes_after_is_settled_in_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, _snapshot) = pipeline(folder.path());
        let at = |millis: i64| Time::from_millis(1_772_431_200_000 + millis);
        pipeline.take(said(0, "running", 0));
        assert!(pipeline.settle_due.is_some(), "somebody has to look");
        pipeline.settle(at(2_000));
        assert_eq!(pipeline.line.turn(), Some(at(0)), "another may still come before it");
        pipeline.settle(at(2_600));
        assert_eq!((pipeline.line.turn(), pipeline.settle_due), (None, None));
        pipeline.commit();
        drop(pipeline);
        let stored = stored(folder.path());
        let changed = |entry: &&Entry| matches!(entry, Entry::Record { record: Record::StateChanged { .. }, .. });
        assert_eq!(stored.iter().filter(changed).count(), 1);
        assert!(stored.contains(&Entry::Tick(at(2_600))), "a restart settles it then, too: {stored:?}");
    }

    #[tokio::test]
    async fn a_disk_that_fails_for_long_fills_no_memory_and_everything_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut pipeline, mut snapshot) = pipeline(folder.path());
        pipeline.take(said(0, "running", 0));
        pipeline.tick(Time::from_millis(1_772_431_200_000 + 3_000));
        pipeline.commit();
        assert_eq!(pipeline.failing, None);

        let (there, gone) = (folder.path().join("spool"), folder.path().join("gone"));
        std::fs::rename(&there, &gone).expect("moved away");
        let long = "x".repeat(8000);
        let mut seconds = 0;
        while !pipeline.is_full() {
            seconds += 1;
            pipeline.take(said(1, &format!("{seconds}{long}"), seconds));
            pipeline.commit();
            assert!(pipeline.failing.is_some(), "there is no folder");
        }
        pipeline.publish();
        assert!(!snapshot.borrow_and_update().spool.full, "memory still holds all of it");

        let held = pipeline.writer.pending_bytes();
        let at = |seconds| Time::from_millis(1_772_431_200_000 + seconds * 1000);
        let broken =
            Loss { source: "oven-1".into(), from: at(0), to: at(0), count: 1, reason: "payload is not JSON".into() };
        for step in 1..=500 {
            pipeline.tick(at(seconds + step * 10));
            pipeline.take(Batch { losses: vec![broken.clone()], ..said(1, "A-17", seconds + step * 10) });
            pipeline.checkpoint_due = Instant::now();
            pipeline.commit();
        }
        assert_eq!(pipeline.writer.pending_bytes(), held, "neither ticks, figures, losses nor checkpoints pile up");
        pipeline.publish();
        assert!(snapshot.borrow_and_update().spool.full);

        std::fs::rename(&gone, &there).expect("back again");
        pipeline.commit();
        assert_eq!(pipeline.failing, None);
        pipeline.commit();
        pipeline.publish();
        let snapshot = snapshot.borrow_and_update();
        assert!(!snapshot.spool.full && snapshot.spool.error.is_none());
        let totals: Vec<_> = snapshot.loss_totals.iter().map(|(_, reason, count)| (&**reason, *count)).collect();
        let unstored = "the spool could not be written and memory was full";
        assert_eq!(totals, [("payload is not JSON", 500), (unstored, 1000)], "500 readings and 500 points of figures");
    }
}
