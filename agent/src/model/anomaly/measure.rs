//! How far out a reading is, by each method.

use std::mem::discriminant;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::ewma::Ewma;
use super::robust::Sample;
use super::spec::{Learning, Method, Severity, Thresholds};

/// A value at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub at: Time,
    pub value: f64,
}

/// What a method knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Measure {
    /// There is nothing to know.
    #[default]
    Nothing,
    /// The window of a robust z-score.
    RobustZ(Sample),
    /// Mean and variance.
    Ewma(Ewma),
    /// The reading that a rate is measured from.
    Rate(Option<Point>),
    /// The reading since which nothing has changed.
    FlatLine(Option<Point>),
}

/// What a method finds of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    pub score: f64,
    pub expected: Option<f64>,
    /// None is normal.
    pub severity: Option<Severity>,
}

impl Measure {
    /// What a method knows at first.
    pub fn of(method: &Method) -> Self {
        match method {
            Method::RobustZ { .. } => Self::RobustZ(Sample::default()),
            Method::Ewma { .. } => Self::Ewma(Ewma::default()),
            Method::Rate { .. } => Self::Rate(None),
            Method::FlatLine { .. } => Self::FlatLine(None),
            Method::Limits(_) => Self::Nothing,
        }
    }

    /// Begins anew when it is another method's.
    pub fn fit(&mut self, method: &Method) {
        let first = Self::of(method);
        if discriminant(self) != discriminant(&first) {
            *self = first;
        }
    }

    /// What `new` is; none when it cannot be told: too little is known, nothing ever moved, or it comes too soon for a rate.
    pub fn judge(&self, method: &Method, new: Point) -> Option<Finding> {
        match (self, method) {
            (_, Method::RobustZ { learning, thresholds, .. } | Method::Ewma { learning, thresholds, .. }) => {
                let (center, spread) = self.baseline(learning)?.ok()?;
                let score = bounded(bounded(new.value - center) / spread?);
                Some(Finding { score, expected: Some(center), severity: thresholds.severity(score) })
            }
            (Self::Rate(from), Method::Rate { thresholds, .. }) => {
                let from = from.filter(|_| self.is_due(method, new.at))?;
                Some(rate(from, new, *thresholds))
            }
            (_, Method::Limits(limits)) => {
                let score = bounded(limits.excess(new.value));
                Some(Finding { score, expected: None, severity: limits.severity(new.value) })
            }
            // A flat line is found by time, not by readings.
            _ => None,
        }
    }

    /// Center and spread, if any of its readings differ; or how many readings it has learnt from so far. None for a method
    /// without a baseline.
    pub fn baseline(&self, learning: &Learning) -> Option<Result<(f64, Option<f64>), usize>> {
        let (readings, (center, spread)) = match self {
            Self::RobustZ(sample) if sample.len() < learning.warm_up as usize => return Some(Err(sample.len())),
            Self::RobustZ(sample) => (sample.len(), sample.center_and_spread()),
            Self::Ewma(ewma) => (ewma.len(), ewma.center_and_spread()),
            Self::Nothing | Self::Rate(_) | Self::FlatLine(_) => return None,
        };
        if readings < learning.warm_up as usize {
            return Some(Err(readings));
        }
        let spread = spread.max(learning.min_deviation);
        Some(Ok((center, (spread > 0.0).then_some(spread))))
    }

    /// Takes `new` into what is known.
    pub fn learn(&mut self, method: &Method, new: Point) {
        let due = self.is_due(method, new.at);
        match (self, method) {
            (Self::RobustZ(sample), Method::RobustZ { window, .. }) => sample.enter(*window, new),
            (Self::Ewma(ewma), Method::Ewma { weight, .. }) => ewma.enter(*weight, new.value),
            (Self::Rate(from), Method::Rate { .. }) if due => *from = Some(new),
            _ => {}
        }
    }

    /// Whether a rate can be measured at `at`, or there is nothing yet to measure it from. Of readings of one instant the
    /// first stays what the next is measured from.
    fn is_due(&self, method: &Method, at: Time) -> bool {
        match (self, method) {
            (Self::Rate(Some(from)), Method::Rate { over, .. }) => at > from.at && at.since(from.at) >= *over,
            _ => true,
        }
    }

    /// The tag became bad: neither a rate nor a standstill reaches across a gap. What is normal stays what it was.
    pub fn lose(&mut self) {
        if let Self::Rate(from) | Self::FlatLine(from) = self {
            *from = None;
        }
    }
}

/// In units a second; `new` is later than `from`.
fn rate(from: Point, new: Point, thresholds: Thresholds) -> Finding {
    let score = bounded(bounded(new.value - from.value) / new.at.since(from.at).as_secs_f64());
    Finding { score, expected: None, severity: thresholds.severity(score) }
}

/// The same number, or the nearest that is finite.
pub fn bounded(number: f64) -> f64 {
    number.clamp(f64::MIN, f64::MAX)
}
