//! What a detector is told, resolved by [`crate::config`].

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::TagId;
use serde::{Deserialize, Serialize};

/// Looks for anomalies of one tag.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorSpec {
    /// Its name, unique within the station (`factory.anomaly.detector`).
    pub name: Arc<str>,
    /// Which tag.
    pub tag: TagId,
    /// How.
    pub method: Method,
    /// So many readings in a row that are out are an anomaly; at least 1. A flat line knows no such thing.
    pub consecutive: u32,
    /// So many normal readings in a row end it; at least 1. A flat line ends with the first change.
    pub clear: u32,
}

/// What is abnormal, and what it is measured by: its *score*.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Too far from the median, in robust standard deviations.
    RobustZ {
        /// Which readings the median is of.
        window: Window,
        /// How the baseline is learnt.
        learning: Learning,
        /// Of the score, whatever its sign.
        thresholds: Thresholds,
    },
    /// Too far from the exponentially weighted mean, in exponentially weighted standard deviations.
    Ewma {
        /// Of the newest reading, above 0 and at most 1.
        weight: f64,
        /// How the baseline is learnt.
        learning: Learning,
        /// Of the score, whatever its sign.
        thresholds: Thresholds,
    },
    /// Changes too fast, in the tag's unit a second by the source's time, up or down.
    Rate {
        /// It is measured over at least so long; zero is from reading to reading.
        over: Duration,
        /// Of the score, whatever its sign.
        thresholds: Thresholds,
    },
    /// Does not change. Its score is for how long, in seconds.
    FlatLine {
        /// No change larger than this is none, in the tag's unit.
        band: f64,
        /// After so long it is a warning; above zero.
        warning: Duration,
        /// After so long it is critical; no shorter than `warning`.
        critical: Option<Duration>,
    },
    /// Beyond fixed limits. Its score is by how much, in the tag's unit: below zero where it is too low.
    Limits(Limits),
}

impl Method {
    /// The word used in configuration, telemetry and on the page.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::RobustZ { .. } => "robust_z",
            Self::Ewma { .. } => "ewma",
            Self::Rate { .. } => "rate",
            Self::FlatLine { .. } => "flat_line",
            Self::Limits(_) => "limits",
        }
    }

    /// How it learns what is normal, if it does.
    #[must_use]
    pub fn learning(&self) -> Option<Learning> {
        match self {
            Self::RobustZ { learning, .. } | Self::Ewma { learning, .. } => Some(*learning),
            Self::Rate { .. } | Self::FlatLine { .. } | Self::Limits(_) => None,
        }
    }
}

/// Which readings a median is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many.
    Readings(u32),
    /// The last so long before the newest; of fast readings a sample, evenly over time.
    Time(Duration),
}

/// How a baseline is learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learning {
    /// Nothing is judged before so many readings; at least 2, and no more than the window holds.
    pub warm_up: u32,
    /// What has been out for so long is the new normal, and the baseline is learnt anew.
    pub accept_after: Duration,
    /// The standard deviation is taken to be no less than this, in the tag's unit: its resolution, say. Zero is none.
    pub min_deviation: f64,
}

/// From which score on what is how bad; the score must be above it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// Above zero.
    pub warning: Option<f64>,
    /// No less than `warning`.
    pub critical: Option<f64>,
}

impl Thresholds {
    /// How bad a score is.
    #[must_use]
    pub fn severity(self, score: f64) -> Option<Severity> {
        let beyond = |threshold: Option<f64>| threshold.is_some_and(|threshold| score.abs() > threshold);
        Severity::worst(beyond(self.warning), beyond(self.critical))
    }
}

/// Fixed limits, by the words of process alarms (IEC 62682); a value at a limit is within it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Below it is critical.
    pub low_low: Option<f64>,
    /// Below it is a warning.
    pub low: Option<f64>,
    /// Above it is a warning.
    pub high: Option<f64>,
    /// Above it is critical.
    pub high_high: Option<f64>,
}

impl Limits {
    /// By how much `value` is beyond the innermost limit of its side; zero within.
    #[must_use]
    pub fn excess(&self, value: f64) -> f64 {
        let above = self.high.or(self.high_high).map_or(0.0, |high| (value - high).max(0.0));
        let below = self.low.or(self.low_low).map_or(0.0, |low| (value - low).min(0.0));
        if above > 0.0 { above } else { below }
    }

    /// How bad a value is.
    #[must_use]
    pub fn severity(&self, value: f64) -> Option<Severity> {
        let beyond = |low: Option<f64>, high: Option<f64>| {
            low.is_some_and(|low| value < low) || high.is_some_and(|high| value > high)
        };
        Severity::worst(beyond(self.low, self.high), beyond(self.low_low, self.high_high))
    }
}

/// How bad an anomaly is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// Somebody should look at it.
    Warning,
    /// Somebody should look at it now.
    Critical,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The word used in configuration, telemetry and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    fn worst(warning: bool, critical: bool) -> Option<Self> {
        match (warning, critical) {
            (_, true) => Some(Self::Critical),
            (true, false) => Some(Self::Warning),
            (false, false) => None,
        }
    }
}

/// What a person says of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// It was one.
    Confirmed,
    /// It was none: a false positive.
    Dismissed,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 2] = [Self::Confirmed, Self::Dismissed];

    /// The word used in telemetry and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Dismissed => "dismissed",
        }
    }
}
