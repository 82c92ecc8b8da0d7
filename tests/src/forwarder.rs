//! A forwarder at work on a spool in memory, for the tests of the way up.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use gemba::config::Upstream;
use gemba::forward::{Backlog, Forwarder, Letters, Patience};
use gemba::model::State;
use gemba::otlp::{Encoder, Resource};
use gemba::record::{Record, Visit};
use gemba::snapshot::{UpstreamStatus, UpstreamView};
use gemba::spool::{Chunk, Entry, Seq, Series, SeriesId, Signal, StoredReading};
use gemba_drivers::{Loss, Time, Validity, Value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::receiver::{DEADLINE, Received, Receiver, Reply};

/// The metric of every reading.
pub const METRIC: &str = "factory.tag.count";

/// A forwarder at work.
pub struct Line {
    /// What it sends.
    pub spool: Spool,
    /// What it loses; see [`Line::losses`].
    pub told: Mutex<mpsc::Receiver<Loss>>,
    /// Where it sends to.
    pub upstream: Upstream,
    /// What was refused for good.
    pub letters: Letters,
    _folder: TempDir,
    view: watch::Receiver<UpstreamView>,
    /// Ends it.
    pub stop: CancellationToken,
    /// It.
    pub task: JoinHandle<()>,
}

impl Line {
    /// One that sends to `receiver`, without patience.
    #[must_use]
    pub fn start(receiver: &Receiver) -> Self {
        Self::start_with(receiver, |_, _| {})
    }

    /// The same, configured otherwise.
    pub fn start_with(receiver: &Receiver, change: impl FnOnce(&mut Upstream, &mut Patience)) -> Self {
        Self::start_on(Spool::default(), receiver, change)
    }

    /// The same, on a spool that holds something.
    ///
    /// # Panics
    /// When the configuration is refused.
    pub fn start_on(spool: Spool, receiver: &Receiver, change: impl FnOnce(&mut Upstream, &mut Patience)) -> Self {
        let mut upstream = Upstream {
            endpoint: receiver.endpoint(),
            protocol: receiver.protocol(),
            gzip: true,
            signals: Signal::ALL.to_vec(),
            headers: Vec::new(),
            timeout: DEADLINE,
            ca_file: None,
        };
        let mut patience = Patience {
            pauses: || Box::new(std::iter::repeat(Duration::from_millis(1))),
            shortest: Duration::from_millis(1),
            longest: Duration::from_millis(10),
            ..Patience::default()
        };
        change(&mut upstream, &mut patience);
        let (losses_in, losses) = mpsc::channel(64);
        let (view_in, view) = watch::channel(UpstreamView {
            status: UpstreamStatus::Connecting,
            since: Time::now(),
            last_success: None,
            retries: 0,
            rejected: 0,
            last_error: None,
        });
        let forwarder =
            Forwarder::new(&upstream, encoder(), spool.clone(), losses_in, view_in).expect("a good configuration");
        let folder = tempfile::tempdir().expect("a folder");
        let letters = Letters::of(folder.path());
        let forwarder = forwarder.with_patience(patience).keeping_refused(letters.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(forwarder.run(stop.clone()));
        Self { spool, upstream, letters, told: Mutex::new(losses), view, stop, task, _folder: folder }
    }

    /// What was told since the last look. Told before the acknowledgement, so there is nothing to wait for.
    ///
    /// # Panics
    /// When a test panicked with the lock.
    pub fn losses(&self) -> Vec<Loss> {
        let mut losses = self.told.lock().expect("no panic");
        std::iter::from_fn(|| losses.try_recv().ok()).collect()
    }

    /// How it goes.
    #[must_use]
    pub fn view(&self) -> UpstreamView {
        self.view.borrow().clone()
    }

    /// Waits until it goes as `happened` says.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn until(&self, what: &str, happened: impl FnMut(&UpstreamView) -> bool) -> UpstreamView {
        let mut view = self.view.clone();
        let waited = tokio::time::timeout(DEADLINE, view.wait_for(happened)).await;
        waited.unwrap_or_else(|_| panic!("waited for: {what}; is {:?}", self.view())).expect("it runs").clone()
    }

    /// Waits until the spool may let go of everything `through`.
    ///
    /// # Panics
    /// After [`DEADLINE`].
    pub async fn acknowledged(&self, through: u64) {
        let mut acknowledged = self.spool.acknowledged.subscribe();
        let wait = acknowledged.wait_for(|seq| *seq >= Seq(through));
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "waited for {through} to be acknowledged: {:?}", self.view());
    }
}

/// A spool in memory.
#[derive(Clone, Debug)]
pub struct Spool {
    frames: Arc<Mutex<Vec<(Seq, Entry)>>>,
    committed: Arc<watch::Sender<Seq>>,
    acknowledged: Arc<watch::Sender<Seq>>,
    acknowledgements: Arc<Mutex<Vec<Seq>>>,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            frames: Arc::default(),
            committed: Arc::new(watch::Sender::new(Seq(0))),
            acknowledged: Arc::new(watch::Sender::new(Seq(0))),
            acknowledgements: Arc::default(),
        }
    }
}

impl Spool {
    /// One frame for each entry, all durable at once.
    ///
    /// # Panics
    /// When a test panicked with the lock.
    pub fn commit(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut frames = self.frames.lock().expect("no panic");
        for entry in entries {
            let seq = Seq(frames.len() as u64 + 1);
            frames.push((seq, entry));
        }
        self.committed.send_replace(Seq(frames.len() as u64));
    }

    /// Every acknowledgement, in order.
    ///
    /// # Panics
    /// When a test panicked with the lock.
    #[must_use]
    pub fn acknowledgements(&self) -> Vec<Seq> {
        self.acknowledgements.lock().expect("no panic").clone()
    }
}

impl Backlog for Spool {
    type Error = Infallible;

    fn committed(&self) -> watch::Receiver<Seq> {
        self.committed.subscribe()
    }

    fn next(&mut self, limit: usize) -> Result<Option<Chunk>, Infallible> {
        let cursor = *self.acknowledged.borrow();
        let frames = self.frames.lock().expect("no panic");
        let entries: Vec<_> = frames.iter().filter(|(seq, _)| *seq > cursor).take(limit).cloned().collect();
        let Some((last, _)) = entries.last() else { return Ok(None) };
        let readings =
            |(_, entry): &(Seq, Entry)| if let Entry::Readings(readings) = entry { readings.len() } else { 0 };
        Ok(Some(Chunk { last: *last, readings: entries.iter().map(readings).sum(), backlog: false, entries }))
    }

    fn acknowledge(&mut self, through: Seq) -> Result<(), Infallible> {
        self.acknowledgements.lock().expect("no panic").push(through);
        self.acknowledged.send_replace(through);
        Ok(())
    }
}

/// Who sends.
pub static RESOURCE: LazyLock<Resource> = LazyLock::new(|| Resource {
    site: "fab-2".into(),
    line: "smt-1".into(),
    instance_id: "7f".into(),
    host_name: "gateway".into(),
    version: "0.1.0".into(),
});

fn encoder() -> Encoder {
    Encoder::new(&RESOURCE, |id| {
        (id == SeriesId(1)).then(|| Series {
            station: "printer-1".into(),
            tag: "count".into(),
            unit: Some("{part}".into()),
            metric: None,
            text: false,
        })
    })
}

/// Whatever of `failures` upstream answers, the same bytes are sent again, and nothing is lost or let go too early.
///
/// # Panics
/// If it is otherwise.
pub async fn tries_again(receiver: &Receiver, failures: &[Reply]) {
    receiver.script(failures.iter().cloned());
    let line = Line::start(receiver);
    line.spool.commit([reading(1), reading(2)]);
    line.acknowledged(2).await;

    let received = receiver.received();
    assert_eq!(received.len(), failures.len() + 1, "{:#?}", receiver.summary());
    assert!(received.iter().all(|request| request.raw == received[0].raw), "byte-identical");
    assert_eq!(values(receiver), [1, 2]);
    let view = line.view();
    assert_eq!((view.status, view.retries), (UpstreamStatus::Connected, failures.len() as u64));
    assert_eq!(line.spool.acknowledgements(), [Seq(2)], "only when upstream had it");
    assert!(line.losses().is_empty());
}

/// Pauses that no test waits for.
#[must_use]
pub fn hourly() -> Box<dyn Iterator<Item = Duration> + Send> {
    Box::new(std::iter::repeat(Duration::from_secs(3600)))
}

/// So many seconds into the tests' day.
#[must_use]
pub fn time(second: i64) -> Time {
    Time::from_millis(1_790_000_000_000 + second * 1000)
}

/// A reading.
#[must_use]
pub fn stored(second: i64, value: i64) -> StoredReading {
    let (source_time, received_time) = (time(second), time(second));
    StoredReading {
        series: SeriesId(1),
        value: Value::Int(value),
        validity: Validity::Good,
        source_time,
        received_time,
        backfilled: false,
    }
}

/// A frame with one reading of that value, dated so many seconds.
#[must_use]
pub fn reading(value: i64) -> Entry {
    Entry::Readings(vec![stored(value, value)])
}

/// A frame that makes a log.
#[must_use]
pub fn changed(second: i64) -> Entry {
    let record = Record::StateChanged {
        station: "printer-1".into(),
        time: time(second),
        from: State::Idle,
        to: State::Producing,
    };
    Entry::Record { cause: None, record }
}

/// A frame with the stay of a unit, five seconds long.
#[must_use]
pub fn visit(serial: &str, from: i64) -> Entry {
    let visit = Visit {
        station: "printer-1".into(),
        serial: serial.into(),
        product: None,
        lot: None,
        from: time(from),
        to: time(from + 5),
        arrival_seen: true,
        departure_seen: true,
    };
    Entry::Record { cause: None, record: Record::Visit(Box::new(visit)) }
}

fn value(number: Option<Number>) -> i64 {
    match number {
        Some(Number::AsInt(whole)) => whole,
        other => panic!("{other:?}"),
    }
}

/// The values that were accepted, in order.
#[must_use]
pub fn values(receiver: &Receiver) -> Vec<i64> {
    receiver.points(METRIC).into_iter().map(|point| value(point.value)).collect()
}

/// Whether a point has this value.
#[must_use]
pub fn holds(request: &Received, poison: i64) -> bool {
    request.points(METRIC).into_iter().any(|point| value(point.value) == poison)
}
