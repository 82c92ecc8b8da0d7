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

    /// Its class by SEMI E10 (equipment states for reliability, availability and maintainability): waiting for parts or room
    /// is standby, setup is scheduled downtime. None for unknown.
    #[must_use]
    pub fn e10(self) -> Option<E10> {
        Some(match self {
            Self::Producing | Self::Slow => E10::Productive,
            Self::Starved | Self::Blocked | Self::Idle => E10::Standby,
            Self::Engineering => E10::Engineering,
            Self::Setup | Self::Maintenance => E10::ScheduledDowntime,
            Self::Down => E10::UnscheduledDowntime,
            Self::Break | Self::NoShift => E10::NonScheduledTime,
            Self::Unknown => return None,
        })
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

/// The six basic states of SEMI E10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum E10 {
    /// Doing what it is there for.
    Productive,
    /// Able, and not used: no operator, no parts, no room.
    Standby,
    /// Used for trials.
    Engineering,
    /// Not available, as planned: maintenance, setup.
    ScheduledDowntime,
    /// Not available, and nobody wanted it so.
    UnscheduledDowntime,
    /// Not to be used: between shifts, holidays.
    NonScheduledTime,
}

impl E10 {
    /// The word used on the page and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Productive => "productive",
            Self::Standby => "standby",
            Self::Engineering => "engineering",
            Self::ScheduledDowntime => "scheduled_downtime",
            Self::UnscheduledDowntime => "unscheduled_downtime",
            Self::NonScheduledTime => "non_scheduled_time",
        }
    }
}
