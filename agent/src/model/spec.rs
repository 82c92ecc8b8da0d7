//! What the line model is told, resolved by [`crate::config`].

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::TagId;
use jiff::civil;

use crate::model::State;

/// A shift, in wall-clock time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftSpec {
    /// Its name (`factory.shift`).
    pub name: Arc<str>,
    /// The days on which it starts, Monday first.
    pub days: [bool; 7],
    /// When it starts.
    pub start: civil::Time,
    /// When it ends; at or before `start` means the next day.
    pub end: civil::Time,
    /// Time in it that is not planned for production; each within the shift, none overlapping.
    pub breaks: Vec<(civil::Time, civil::Time)>,
}

/// What is computed for a station.
#[derive(Clone, Debug, PartialEq)]
pub struct OeeSpec {
    /// The time a part takes at best; without it performance and OEE cannot be known.
    pub ideal_cycle_time: Option<Duration>,
    /// Which tag tells the state; without it the state is unknown.
    pub state: Option<StateSpec>,
    /// Counts all parts.
    pub total: Option<CounterSpec>,
    /// Counts good parts.
    pub good: Option<CounterSpec>,
    /// Counts rejected parts.
    pub reject: Option<CounterSpec>,
    /// Below this coverage (0 to 1) oee, availability and performance are withheld.
    pub min_coverage: f64,
}

/// Which tag tells the state, and in what words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// The tag.
    pub tag: TagId,
    /// From the tag's value, as text (`1`, `Execute`, `true`), to the state.
    pub map: Vec<(String, State)>,
}

/// A tag that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterSpec {
    /// The tag.
    pub tag: TagId,
    /// Where it rolls over to zero: 65536 for a 16-bit register that counts through. `None`: a fall is a reset.
    pub modulus: Option<f64>,
    /// Parts a second; a jump above it is quarantined to the loss ledger.
    pub max_rate: Option<f64>,
}
