//! The spool: a journal that makes things durable, sealed sled segments that hold the backlog.
//!
//! What is appended becomes durable with [`Writer::commit`]: one write, one fdatasync, all or nothing. While upstream
//! keeps up, the [`Reader`] takes it from the journal, and a journal that upstream and the model's checkpoint have both
//! passed is removed: sled is never touched. When upstream falls behind, the [`Sealer`] turns full journals into small
//! sled databases, a lane each, that are built whole, verified, and never written again
//! (docs/decisions/0001-journal-before-sled.md).
//!
//! Invariants
//! - A sequence is given once. Nothing is removed that upstream or the checkpoint still needs, except to keep the bound,
//!   and then with a [`Loss`](gemba_drivers::Loss).
//! - Every byte from the disk is checked before it is believed: frames by crc, segments by length and crc of the whole,
//!   continuity by the ranges in the names.
//! - Nothing in here spawns a task or a thread. Every call blocks on the disk at most.
//! - Locks are held for lookups, never across disk access; only one segment is open at a time.
//!
//! What is *not* known: damage to the very last commit's end looks like a torn write, which was promised to nobody. It is
//! dropped without an account.

mod catalog;
mod columns;
mod files;
mod frame;
mod index;
mod inspect;
mod journal;
mod load;
mod open;
mod reader;
mod sealer;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gemba_drivers::{Delivery, Reading, Time, Validity, Value};
use serde::{Deserialize, Serialize};

pub use catalog::Catalog;
pub use frame::Lane;
pub use inspect::{
    Exported, Finding, Format, LaneStatus, Report, Selection, Status, catalog, each_entry, export, export_entries,
    status, verify,
};
pub use open::{Entries, Opened, Recovery, open};
pub use reader::{Chunk, Reader};
pub use sealer::{Sealer, Worked};
pub use writer::Writer;

use crate::config::{self, Config, Tag};
use crate::record::Record;

/// A journal's size when nothing else is said. It bounds the memory of a seal (about 16 MB in all at this size) and
/// how much a reader holds.
pub const JOURNAL_SIZE: u64 = 512 << 10;

/// How the spool behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its folder; made if need be.
    pub path: PathBuf,
    /// Of disk, as du counts it, in bytes. Beyond it the oldest segments of the least worth lane go.
    pub max_size: u64,
    /// Of the disk that stays free, in bytes; the same happens below it.
    pub keep_free: u64,
    /// How long what upstream already has is kept for replay.
    pub keep: Duration,
    /// At which size a journal is full, in bytes; see [`JOURNAL_SIZE`].
    pub journal_size: u64,
}

impl Settings {
    /// As configured, with journals of the usual size.
    #[must_use]
    pub fn new(config: &config::Spool) -> Self {
        Self {
            path: config.path.clone(),
            max_size: config.max_size,
            keep_free: config.keep_free,
            keep: config.keep,
            journal_size: JOURNAL_SIZE,
        }
    }
}

/// What went wrong with the disk. Nothing that was committed is touched by any of these.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another gemba works on it.
    #[error("the spool {} is in use by another gemba", .0.display())]
    Held(PathBuf),
    /// Something else is there.
    #[error("the spool {} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Somebody wanted to look at one, and nothing of the kind is there.
    #[error("there is no spool in {}", .0.display())]
    Missing(PathBuf),
    /// The disk said no.
    #[error("the spool cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said. Part of the message, so not a source of its own.
        error: io::Error,
    },
    /// A segment could not be sealed; its journal stands, and the next round tries again.
    #[error("the spool cannot seal {}: {why}", path.display())]
    Seal {
        /// The journal.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

impl SpoolError {
    fn io<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |error| Self::Io { what, path: path.to_owned(), error }
    }

    /// Whether room on the disk would help: [`Sealer::work`] makes some.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Self::Io { error, .. } = self else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    }

    fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

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

impl Series {
    /// Those of a configuration's tags, in their order.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        let of = |tag: &Tag| Self {
            station: config.stations[tag.station].name.clone(),
            tag: tag.name.clone(),
            unit: tag.unit.clone(),
            metric: tag.metric.clone(),
            text: tag.text,
        };
        config.tags.iter().map(of).collect()
    }
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
    /// Messages whose readings are in the same commit, or were in one before the checkpoint. Never goes upstream.
    Deliveries {
        /// The broker session that they came by.
        session: Arc<str>,
        /// In order of arrival.
        deliveries: Vec<Delivery>,
    },
    /// What a broker session is subscribed to, in pieces. Never goes upstream.
    Filters {
        /// The session.
        session: Arc<str>,
        /// The first piece of a list that stands in for what was known.
        begins: bool,
        /// Topic filters.
        filters: Vec<Box<str>>,
    },
    /// What the agent tells of itself. Nothing of it is ever applied: a restart passes it over.
    Telemetry(Own),
}

/// A request of the agent's own telemetry, as it will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Which kind of request it is.
    pub signal: Signal,
    /// Points, log records or spans in it.
    pub items: u64,
    /// When it was put together.
    pub time: Time,
    /// An OTLP `Export…ServiceRequest`, protobuf.
    pub body: Bytes,
}

/// The kinds of OTLP requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// `ExportMetricsServiceRequest`
    Metrics,
    /// `ExportLogsServiceRequest`
    Logs,
    /// `ExportTraceServiceRequest`
    Traces,
}

impl Signal {
    /// Each, in the order in which they are sent.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// As OTLP's paths have it, and the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }
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
    /// As in [`Reading`].
    pub backfilled: bool,
}

impl StoredReading {
    /// The reading, under its lasting name.
    #[must_use]
    pub fn new(series: SeriesId, reading: Reading) -> Self {
        let Reading { tag: _, value, validity, source_time, received_time, backfilled } = reading;
        Self { series, value, validity, source_time, received_time, backfilled }
    }
}
