//! What every driver is, and what it hands over.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::breaker::{BreakerView, Durations};
use crate::treat::Treatment;
use crate::treat::clock::{self, GatewayClock};
use crate::{Delivery, Event, Reading, TagId, Time};

/// One link to one device, broker or server. Owned by exactly one [`supervisor`](crate::supervisor) task.
pub trait Driver: Send {
    /// Every tag this link carries; all of them turn bad when it breaks.
    fn tags(&self) -> Vec<TagId>;

    /// Brings the link up, from any state. Bounded by the driver's own timeout.
    fn connect(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;

    /// Delivers readings until the link breaks, and says why it did.
    /// Dropped in mid-flight at a stop, so it holds nothing across an await that must not be lost.
    fn run(&mut self, outlet: &Outlet) -> impl Future<Output = LinkError> + Send;

    /// Says goodbye, so that the peer keeps no session of ours. Harmless in any state.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// The registry: every driver there is.
pub enum AnyDriver {
    /// OPC UA client.
    #[cfg(feature = "opcua")]
    Opcua(Box<crate::opcua::Client>),
    /// Modbus client ("master").
    #[cfg(feature = "modbus")]
    Modbus(Box<crate::modbus::Client>),
    /// MQTT subscriber.
    #[cfg(feature = "mqtt")]
    Mqtt(Box<crate::mqtt::Client>),
    /// The gateway's own pins and converters.
    #[cfg(feature = "gpio")]
    Gpio(Box<crate::gpio::Client>),
}

macro_rules! each {
    ($self:ident, $driver:ident => $do:expr) => {
        match $self {
            #[cfg(feature = "opcua")]
            $crate::AnyDriver::Opcua($driver) => $do,
            #[cfg(feature = "modbus")]
            $crate::AnyDriver::Modbus($driver) => $do,
            #[cfg(feature = "mqtt")]
            $crate::AnyDriver::Mqtt($driver) => $do,
            #[cfg(feature = "gpio")]
            $crate::AnyDriver::Gpio($driver) => $do,
            // Without a protocol there is no driver to be.
            #[cfg(not(any(feature = "opcua", feature = "modbus", feature = "mqtt", feature = "gpio")))]
            _ => unreachable!("no driver was built in"),
        }
    };
}
pub(crate) use each;

impl Driver for AnyDriver {
    fn tags(&self) -> Vec<TagId> {
        each!(self, driver => driver.tags())
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        each!(self, driver => driver.connect().await)
    }

    #[cfg_attr(
        not(any(feature = "opcua", feature = "modbus", feature = "mqtt", feature = "gpio")),
        expect(unused_variables, reason = "nothing delivers")
    )]
    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        each!(self, driver => driver.run(outlet).await)
    }

    async fn close(&mut self) {
        each!(self, driver => driver.close().await);
    }
}

/// Why a link is not up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody there: a name that does not resolve, a refused connection, no answer in time.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The peer is there and does not want us: wrong password, untrusted certificate, unknown endpoint.
    /// Trying again soon will not help.
    #[error("refused: {0}")]
    Refused(String),
    /// It was up and broke.
    #[error("link broke: {0}")]
    Broken(String),
    /// It looks up, and nothing comes.
    #[error("silent for {0:?}")]
    Silent(Duration),
}

impl LinkError {
    /// Whether trying again soon may help. If not, the supervisor goes straight to its longest pause.
    #[must_use]
    pub fn retry_helps(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// Everything that arrived in one response, publish or payload. It is applied together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order of arrival.
    pub readings: Vec<Reading>,
    /// What arrived and could not become a reading.
    pub losses: Vec<Loss>,
    /// What happened.
    pub events: Vec<Event>,
    /// Gaps that history has just filled; the readings themselves came before, or are in this batch.
    pub backfills: Vec<Backfill>,
    /// To be signed once all of this is durable.
    pub receipt: Option<Receipt>,
}

impl Batch {
    /// Whether there is nothing to hand over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { readings, losses, events, backfills, receipt } = self;
        readings.is_empty() && losses.is_empty() && events.is_empty() && backfills.is_empty() && receipt.is_none()
    }
}

/// One entry of the loss ledger: a span of data that was dropped, rejected, quarantined or never came.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Loss {
    /// A station, a lane of the spool, or `upstream`.
    pub source: Arc<str>,
    /// Where the span begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
    /// How many readings or messages.
    pub count: u64,
    /// Why, in one line.
    pub reason: Arc<str>,
}

/// A gap of one station that was filled from the source's history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backfill {
    /// The station.
    pub station: Arc<str>,
    /// Where the gap begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
    /// How many readings history gave.
    pub count: u64,
}

/// A driver's wish to hear when what it delivered is durable.
///
/// Batches of one driver become durable in the order they were delivered, so one number says it all
/// and a slow listener loses nothing: it sees the highest.
#[derive(Clone, Debug)]
pub struct Receipt {
    durable: Arc<watch::Sender<u64>>,
    number: u64,
    session: Arc<str>,
    keep: Keep,
}

/// What is to become durable for a session with a broker, so that another process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A message that was taken in: it may come again.
    Delivery(Delivery),
    /// What the session is subscribed to now, all of it.
    Filters(Arc<[Box<str>]>),
}

impl Receipt {
    /// The receipt for what `session` is to `keep`, after the delivery of this `number`; numbers of one `durable` only
    /// grow.
    #[must_use]
    pub fn new(durable: Arc<watch::Sender<u64>>, number: u64, session: Arc<str>, keep: Keep) -> Self {
        Self { durable, number, session, keep }
    }

    /// What is to become durable with the batch: the session's lasting name, and what is kept of it.
    #[must_use]
    pub fn keep(&self) -> (&Arc<str>, &Keep) {
        (&self.session, &self.keep)
    }

    /// Everything up to this delivery is durable.
    pub fn sign(self) {
        self.durable.send_if_modified(|held| {
            let newer = self.number > *held;
            *held = self.number.max(*held);
            newer
        });
    }
}

/// How far a link is. (`/health` says it in these words.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPhase {
    /// Never was up, and is being tried.
    Connecting,
    /// The session is up, data or not.
    Connected,
    /// Was up or could not be brought up, and is being tried again.
    Disconnected,
}

impl LinkPhase {
    /// `connecting`, `connected` or `disconnected`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What is known of a link.
#[derive(Clone, Debug)]
pub struct LinkState {
    /// How far it is.
    pub phase: LinkPhase,
    /// Since when it has been in this phase.
    pub since: Time,
    /// Why the last attempt failed or the link broke; kept after it came back.
    pub last_error: Option<String>,
    /// The last sign of life from the other side, if there ever was one.
    pub alive: Option<Time>,
    /// How often it has been up.
    pub connects: u64,
    /// How often it was tried to bring it up.
    pub attempts: u64,
    /// How long these attempts took, those that failed among them.
    pub connecting: Durations,
    /// The pauses between attempts, as a breaker: closed while it is up, open in a pause, half open while it is tried again.
    pub breaker: BreakerView,
    /// Of the devices behind it that can fail each for itself, such as the units of a Modbus bus.
    pub devices: Vec<DeviceState>,
    /// How far the newest source time of the last batch lay ahead of its receipt, in nanoseconds, less than zero if behind;
    /// `None` while no source has told a time of its own.
    pub clock_skew: Option<i64>,
}

/// What is known of one device behind a link.
#[derive(Clone, Debug)]
pub struct DeviceState {
    /// What the protocol calls it: `unit 3`.
    pub name: Arc<str>,
    /// The stations that it is.
    pub stations: Vec<Arc<str>>,
    /// Whether it is asked.
    pub breaker: BreakerView,
    /// Requests so far.
    pub requests: u64,
    /// Requests that had no answer.
    pub unanswered: u64,
    /// Requests made again: at once after a garbled answer, or to see whether it is back.
    pub retries: u64,
    /// How long these took, to the answer or until they were given up.
    pub retrying: Durations,
    /// Frames that were discarded while it was asked, by kind.
    pub discarded: Vec<(&'static str, u64)>,
}

impl LinkState {
    /// A link that nobody has tried yet.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            phase: LinkPhase::Connecting,
            since: now,
            last_error: None,
            alive: None,
            connects: 0,
            attempts: 0,
            connecting: Durations::default(),
            breaker: BreakerView::new(now),
            devices: Vec::new(),
            clock_skew: None,
        }
    }
}

/// The agent has stopped listening: the driver should end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// How far silence is answered. A tag is silent when it has a `max_age` and nothing came for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Half its age: ask the device for it, if it can be asked.
    Look,
    /// Its whole age, and it is bad by now: make anew what brings it, over the same connection.
    Renew,
    /// Twice its age: give the connection up.
    Reconnect,
}

/// Tags that are silent though the link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which.
    pub tags: Vec<TagId>,
    /// What is to be done about it.
    pub rung: Rung,
}

/// Where a driver puts what it reads. What the configuration asks of single tags ([`treat`](crate::treat)) is done here.
#[derive(Clone, Debug)]
pub struct Outlet {
    batches: mpsc::Sender<Batch>,
    state: Arc<watch::Sender<LinkState>>,
    clock: Option<Arc<GatewayClock>>,
    treated: Option<Arc<Treated>>,
}

/// The treatment, and who waits for it.
#[derive(Debug)]
struct Treated {
    /// Taken for as long as a batch takes to go through; only the link's own task does.
    treatment: Mutex<Treatment>,
    /// An earlier timer was set.
    stirred: Notify,
    /// Tags fell silent.
    silent: Notify,
}

impl Treated {
    fn lock(&self) -> MutexGuard<'_, Treatment> {
        // A driver that panicked has broken its link, not the state of its tags.
        self.treatment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is due within so long is done together.
const TOGETHER: Duration = Duration::from_millis(10);

impl Outlet {
    /// An outlet into `batches`, telling its link's state through `state`.
    #[must_use]
    pub fn new(batches: mpsc::Sender<Batch>, state: Arc<watch::Sender<LinkState>>) -> Self {
        Self { batches, state, clock: None, treated: None }
    }

    /// The same for readings that are treated first.
    #[must_use]
    pub fn treating(self, treatment: Option<Treatment>) -> Self {
        let treated = treatment.map(|treatment| {
            Arc::new(Treated { treatment: Mutex::new(treatment), stirred: Notify::new(), silent: Notify::new() })
        });
        Self { treated, ..self }
    }

    /// The same with doubts of the gateway's own clock.
    #[must_use]
    pub fn timed_by(self, clock: Arc<GatewayClock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Hands a batch over; waits while the channel is full, so that a slow disk slows the reading down
    /// instead of losing it.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn deliver(&self, batch: Batch) -> Result<(), Stopped> {
        let (now, lead) = (Time::now(), clock::lead(&batch.readings));
        self.state.send_if_modified(|state| {
            state.alive = Some(now);
            state.clock_skew = lead.or(state.clock_skew);
            false // as in `alive`
        });
        self.announce(batch).await
    }

    /// Hands over what the supervisor says of a link, which is no sign of life from the other side.
    pub(crate) async fn announce(&self, mut batch: Batch) -> Result<(), Stopped> {
        if let Some(clock) = &self.clock {
            clock.mark(&mut batch.readings);
        }
        let Some(treated) = self.treated.as_ref().filter(|_| !batch.readings.is_empty()) else {
            return self.batches.send(batch).await.map_err(|_| Stopped);
        };
        // Room first: what the treatment lets go of is never dropped with this future.
        let room = self.batches.reserve().await.map_err(|_| Stopped)?;
        let mut treatment = treated.lock();
        if treatment.apply(&mut batch.readings, Instant::now()) {
            treated.stirred.notify_one();
        }
        if !batch.readings.is_empty() || !batch.losses.is_empty() || batch.receipt.is_some() {
            room.send(batch); // under the lock, so that order is kept
        }
        Ok(())
    }

    /// The other side showed a sign of life without data: a keep-alive, an empty answer.
    pub fn alive(&self, at: Time) {
        self.state.send_if_modified(|state| {
            state.alive = Some(at);
            false // readers look when they need it; nobody is woken for it
        });
    }

    /// Waits until tags have been silent for too long. A driver that can do something about it listens while it waits for
    /// the device; each rung is told once, until something comes.
    pub async fn stale(&self) -> Stale {
        let Some(treated) = &self.treated else { return std::future::pending().await };
        loop {
            let silent = treated.lock().silent();
            match silent {
                Some(stale) => return stale,
                None => treated.silent.notified().await,
            }
        }
    }

    /// The device vouched at `at` that these tags stand as they were last told: they are not silent. It brings no value
    /// back: a tag that has turned bad by its age needs a reading.
    pub fn confirm(&self, tags: &[TagId], at: Time) {
        if let Some(treated) = &self.treated {
            treated.lock().confirm(tags, Instant::now(), at);
        }
        self.alive(at);
    }

    /// Changes the link's state; wakes its watchers only if `change` says that it is news, and not for counters.
    pub(crate) fn note(&self, change: impl FnOnce(&mut LinkState) -> bool) {
        self.state.send_if_modified(change);
    }

    /// The link is up: from now on silence counts.
    pub(crate) fn begin(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().begin(Instant::now(), Time::now());
            treated.stirred.notify_one();
        }
    }

    /// The link is down, which says enough.
    pub(crate) fn end(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().end();
        }
    }

    /// Minds the timers of what was held back and of what is silent, beside the driver. Ends when nobody listens any more.
    /// May be dropped at any time: it holds nothing.
    pub(crate) async fn tend(&self) -> Stopped {
        let Some(treated) = &self.treated else { return std::future::pending().await };
        let mut not_before = Instant::now();
        loop {
            let next = treated.lock().next();
            let due = async {
                match next {
                    Some(next) => sleep_until(next.max(not_before)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = treated.stirred.notified() => continue,
                () = due => {}
            }
            let Ok(room) = self.batches.reserve().await else { return Stopped };
            let mut treatment = treated.lock();
            let (now, mut readings) = (Instant::now(), Vec::new());
            treatment.tend(now, Time::now(), &mut readings);
            not_before = now + TOGETHER;
            if treatment.has_silent() {
                treated.silent.notify_one();
            }
            if !readings.is_empty() {
                room.send(Batch { readings, ..Batch::default() });
            }
        }
    }

    /// Hands over what is held back, since nothing comes after it.
    pub(crate) async fn flush(&self) {
        let Some(treated) = &self.treated else { return };
        let Ok(room) = self.batches.reserve().await else { return };
        let (mut treatment, mut readings) = (treated.lock(), Vec::new());
        treatment.flush(&mut readings);
        if !readings.is_empty() {
            room.send(Batch { readings, ..Batch::default() });
        }
    }

    /// Changes the link's state and wakes its watchers.
    pub(crate) fn update(&self, change: impl FnOnce(&mut LinkState)) {
        self.state.send_modify(change);
    }

    /// The link's state.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }
}
