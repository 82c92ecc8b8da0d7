//! What is known of a link, and of the devices behind it.

use std::sync::Arc;

use crate::Time;
use crate::breaker::{BreakerView, Durations};

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
    /// Which server of a redundant set it is or was, and of how many: its place in the configuration's list, from 1.
    pub server: Option<(usize, usize)>,
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
            server: None,
        }
    }
}
