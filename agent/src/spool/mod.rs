//! The spool: a journal that makes things durable, sealed sled segments that hold the backlog.

use std::sync::Arc;

use gemba_drivers::{Reading, Time, Validity, Value};
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// A place in the spool. Each frame has one; they only grow, also across restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// A series' number in the catalog: stable across restarts and changes of configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesId(pub u32);

/// What a series is. A change of any field makes a new series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Series {
    /// The station's name.
    pub station: Arc<str>,
    /// The tag's name.
    pub tag: Arc<str>,
    /// UCUM.
    pub unit: Option<Arc<str>>,
    /// The metric's name, where it is not `factory.tag.<tag>`.
    pub metric: Option<Arc<str>>,
    /// Its values are text, as far as the configuration tells.
    pub text: bool,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Readings, in order of arrival.
    Readings(Vec<StoredReading>),
    /// Something derived from the frame `cause` (or from the clock, when there is none).
    Record {
        /// The readings it came from.
        cause: Option<Seq>,
        /// What it says.
        record: Record,
    },
    /// The model was told that time has come this far. Never goes upstream.
    Tick(Time),
}

/// A reading as the spool keeps it: by series, since tags are renumbered when the configuration changes.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredReading {
    /// Which series.
    pub series: SeriesId,
    /// As in [`Reading`].
    pub value: Value,
    /// As in [`Reading`].
    pub validity: Validity,
    /// As in [`Reading`].
    pub source_time: Time,
    /// As in [`Reading`].
    pub received_time: Time,
}

impl StoredReading {
    /// The reading, under its lasting name.
    #[must_use]
    pub fn new(series: SeriesId, reading: Reading) -> Self {
        let Reading { tag: _, value, validity, source_time, received_time } = reading;
        Self { series, value, validity, source_time, received_time }
    }
}
