//! What the line model says, and what the spool keeps beside the readings themselves.

use std::sync::Arc;

use gemba_drivers::{Backfill, Event, Loss, Time, Validity};
use serde::{Deserialize, Serialize};

use crate::model::{Entry, State};

/// Something derived: it goes upstream as OTLP metrics or as an OTLP log.
///
/// Stored with postcard, so a variant or field is only ever added at the end, and with a new
/// version byte when that is not enough (see [`crate::spool`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A station's figures and sums at one instant.
    Kpi(Box<KpiPoint>),
    /// A station went from one state to another.
    StateChanged {
        /// Which station.
        station: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was.
        from: State,
        /// What it is.
        to: State,
    },
    /// A tag's validity changed.
    ValidityChanged {
        /// Which station.
        station: Arc<str>,
        /// Which tag.
        tag: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was.
        from: Validity,
        /// What it is.
        to: Validity,
    },
    /// A text tag changed.
    TagChanged {
        /// Which station.
        station: Arc<str>,
        /// Which tag.
        tag: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was, if anything was known.
        from: Option<Arc<str>>,
        /// What it is.
        to: Arc<str>,
    },
    /// An entry of the loss ledger.
    Loss {
        /// The entry.
        loss: Loss,
        /// All that was ever lost from this source for this reason, this entry included.
        total: u64,
        /// Since when that is counted: the start of the sum, which never moves.
        since: Time,
        /// The instant of the total: the end of the span, or that of the total before it if this one lies further back.
        at: Time,
    },
    /// A unit was at a station: told when it leaves.
    Visit(Box<Visit>),
    /// A device told that something happened.
    Event(Box<Event>),
    /// A gap of a station was filled from the source's history.
    Backfilled(Backfill),
    /// Somebody told something that no tag does.
    Entered(Arc<Entry>),
}

/// The stay of one unit at one station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Which station.
    pub station: Arc<str>,
    /// Which unit.
    pub serial: Arc<str>,
    /// What it is, if told.
    pub product: Option<Arc<str>>,
    /// Which lot it belongs to, if told.
    pub lot: Option<Arc<str>>,
    /// Its arrival, or the first that was heard of it.
    pub from: Time,
    /// Its departure, or the last that was heard of it.
    pub to: Time,
    /// Somebody watched when it came.
    pub arrival_seen: bool,
    /// Somebody watched when it left.
    pub departure_seen: bool,
}

/// A station's figures and sums at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KpiPoint {
    /// Which station.
    pub station: Arc<str>,
    /// Which shift the figures are of; none outside shifts.
    pub shift: Option<Arc<str>>,
    /// When.
    pub time: Time,
    /// The figures of the shift so far; none outside shifts.
    pub figures: Option<Figures>,
    /// Since when the sums count: the station's first observation ever.
    pub since: Time,
    /// The sums. They only grow. Empty at the end of a shift: its figures are told once late readings had their time, and
    /// sums of an instant are told once only.
    pub sums: Sums,
}

/// Ratios of one period; `None` is "cannot be known".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Availability x performance x quality (ISO 22400-2).
    pub oee: Option<f64>,
    /// Run time over planned production time.
    pub availability: Option<f64>,
    /// Ideal time of the parts made over run time.
    pub performance: Option<f64>,
    /// Good parts over all parts.
    pub quality: Option<f64>,
    /// Known planned time over planned time.
    pub coverage: Option<f64>,
    /// Good at the first pass, over all parts.
    pub first_pass_yield: Option<f64>,
    /// Defects a part.
    pub defect_rate: Option<f64>,
}

/// What accumulates over a station's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Good parts; `None` where no counter tells.
    pub good: Option<f64>,
    /// Rejected parts.
    pub reject: Option<f64>,
    /// Nanoseconds in each state that was ever seen.
    pub state_time: Vec<(State, i64)>,
    /// Nanoseconds of downtime by reason, and whether it was planned.
    pub downtime: Vec<(Arc<str>, bool, i64)>,
    /// Cycle times, in seconds.
    pub cycle: CycleHistogram,
    /// Reworked parts; `None` where no counter tells.
    pub rework: Option<f64>,
    /// Energy taken, in joules; `None` where no counter tells.
    pub energy: Option<f64>,
}

/// Cycle times as an OTel base-2 exponential histogram (scale, offset, counts), in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CycleHistogram {
    /// Bucket `i` holds `(base^i, base^(i+1)]` with `base = 2^(2^-scale)`.
    pub scale: i32,
    /// How many cycles.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
    /// Cycles of no measurable time.
    pub zero_count: u64,
    /// Index of the first bucket.
    pub offset: i32,
    /// Count of each bucket from `offset` on.
    pub buckets: Vec<u64>,
}
