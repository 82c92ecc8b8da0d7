//! What every driver is, and what it hands over.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::{Delivery, Reading, TagId, Time};

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
            // Without a protocol there is no driver to be.
            #[cfg(not(any(feature = "opcua", feature = "modbus", feature = "mqtt")))]
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
        not(any(feature = "opcua", feature = "modbus", feature = "mqtt")),
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
    /// Gaps that history has just filled; the readings themselves came before, or are in this batch.
    pub backfills: Vec<Backfill>,
    /// To be signed once all of this is durable.
    pub receipt: Option<Receipt>,
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
    delivery: Delivery,
}

impl Receipt {
    /// The receipt for `delivery`, the one of this `number` in `session`; numbers of one `durable` only grow.
    #[must_use]
    pub fn new(durable: Arc<watch::Sender<u64>>, number: u64, session: Arc<str>, delivery: Delivery) -> Self {
        Self { durable, number, session, delivery }
    }

    /// What is to become durable with the batch, so that another process knows it if it comes again: the session's
    /// lasting name, and the delivery.
    #[must_use]
    pub fn delivery(&self) -> (&Arc<str>, Delivery) {
        (&self.session, self.delivery)
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
}

impl LinkState {
    /// A link that nobody has tried yet.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { phase: LinkPhase::Connecting, since: now, last_error: None, alive: None, connects: 0 }
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

/// Where a driver puts what it reads.
#[derive(Clone, Debug)]
pub struct Outlet {
    batches: mpsc::Sender<Batch>,
    state: Arc<watch::Sender<LinkState>>,
}

impl Outlet {
    /// An outlet into `batches`, telling its link's state through `state`.
    #[must_use]
    pub fn new(batches: mpsc::Sender<Batch>, state: Arc<watch::Sender<LinkState>>) -> Self {
        Self { batches, state }
    }

    /// Hands a batch over; waits while the channel is full, so that a slow disk slows the reading down
    /// instead of losing it.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn deliver(&self, batch: Batch) -> Result<(), Stopped> {
        self.alive(Time::now());
        self.announce(batch).await
    }

    /// Hands over what the supervisor says of a link, which is no sign of life from the other side.
    pub(crate) async fn announce(&self, batch: Batch) -> Result<(), Stopped> {
        self.batches.send(batch).await.map_err(|_| Stopped)
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
        std::future::pending().await
    }

    /// The device vouched at `at` that these tags stand as they were last told: they are not silent.
    pub fn confirm(&self, tags: &[TagId], at: Time) {
        let _ = tags;
        self.alive(at);
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
