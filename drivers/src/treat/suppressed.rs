//! What was left out because the configuration asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which option left it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `on_change`: as it was told before.
    OnChange,
    /// `deadband`: too close to it.
    Deadband,
    /// `min_interval`: a later one of the same interval was told instead.
    MinInterval,
    /// `compress`: on the straight line between those that were told.
    Compress,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::OnChange, Self::Deadband, Self::MinInterval, Self::Compress];

    /// The option's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::OnChange => "on_change",
            Self::Deadband => "deadband",
            Self::MinInterval => "min_interval",
            Self::Compress => "compress",
        }
    }
}

/// The counts of one link, since the agent started.
#[derive(Debug)]
pub struct Suppressed(Box<[(Arc<str>, [AtomicU64; Reason::ALL.len()])]>);

impl Suppressed {
    pub(super) fn new(stations: impl Iterator<Item = Arc<str>>) -> Arc<Self> {
        Arc::new(Self(stations.map(|name| (name, Default::default())).collect()))
    }

    pub(super) fn count(&self, station: u32, reason: Reason) {
        self.0[station as usize].1[reason as usize].fetch_add(1, Relaxed);
    }

    /// What is not zero: station, reason, count.
    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, Reason, u64)> {
        self.0.iter().flat_map(|(station, counts)| {
            let each = Reason::ALL.into_iter().zip(counts).map(|(reason, count)| (reason, count.load(Relaxed)));
            each.filter(|(_, count)| *count > 0).map(move |(reason, count)| (station, reason, count))
        })
    }
}
