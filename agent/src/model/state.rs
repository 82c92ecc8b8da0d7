//! What a station is doing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A station's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nobody knows: neither running nor down.
    #[default]
    Unknown,
    /// Making parts.
    Producing,
    /// Making parts below speed. Run time, as producing is.
    Slow,
    /// Waiting for parts from upstream of the line.
    Starved,
    /// Waiting for room downstream of the line.
    Blocked,
    /// Changing over.
    Setup,
    /// Being maintained.
    Maintenance,
    /// Used for trials.
    Engineering,
    /// Stopped by a fault.
    Down,
    /// Able, and not asked to.
    Idle,
    /// In a break: not planned to run.
    Break,
    /// Outside shifts: not planned to run.
    NoShift,
}

impl State {
    /// Every state, in the order in which they are listed to people.
    pub const ALL: [Self; 12] = [
        Self::Producing,
        Self::Slow,
        Self::Starved,
        Self::Blocked,
        Self::Setup,
        Self::Maintenance,
        Self::Engineering,
        Self::Down,
        Self::Idle,
        Self::Break,
        Self::NoShift,
        Self::Unknown,
    ];

    /// The word used in configuration, telemetry and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Producing => "producing",
            Self::Slow => "slow",
            Self::Starved => "starved",
            Self::Blocked => "blocked",
            Self::Setup => "setup",
            Self::Maintenance => "maintenance",
            Self::Engineering => "engineering",
            Self::Down => "down",
            Self::Idle => "idle",
            Self::Break => "break",
            Self::NoShift => "no_shift",
        }
    }

    /// Whether it is run time.
    #[must_use]
    pub fn is_run(self) -> bool {
        matches!(self, Self::Producing | Self::Slow)
    }

    /// Whether it leaves planned production time.
    #[must_use]
    pub fn is_unplanned(self) -> bool {
        matches!(self, Self::Break | Self::NoShift)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or_else(|| format!("`{text}` is no state"))
    }
}
