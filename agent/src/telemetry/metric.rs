//! A figure of the agent or of its machine, by OpenTelemetry's names. OTLP and `/metrics` are written from the same.

use std::sync::Arc;

use gemba_drivers::Time;

/// A metric with its points at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// As the semantic conventions have it: `system.cpu.utilization`.
    pub name: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// What it says, for people; ends in a full stop.
    pub about: &'static str,
    /// How its points are to be read.
    pub kind: Kind,
    /// Never empty; no two with the same attributes.
    pub points: Vec<Point>,
}

/// How points are to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// As it stands.
    Gauge,
    /// A cumulative sum that may fall: a level that adds up over its attributes.
    Level,
    /// A cumulative sum that only grows, counted since then.
    Count(Time),
    /// Cumulative classic buckets, counted since then.
    Histogram(Time),
}

/// One point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// In order of name.
    pub attributes: Vec<(&'static str, Arc<str>)>,
    /// What it says.
    pub value: Number,
}

/// What a point says.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// Any other; finite.
    Real(f64),
    /// Buckets.
    Buckets {
        /// Upper bounds, rising; one fewer than `counts`.
        bounds: &'static [f64],
        /// How many fell in each, not added up.
        counts: Vec<u64>,
        /// All of them together.
        sum: f64,
    },
}

impl Metric {
    /// One point without attributes.
    #[must_use]
    pub fn one(name: &'static str, unit: &'static str, about: &'static str, kind: Kind, value: Number) -> Self {
        Self { name, unit, about, kind, points: vec![Point { attributes: Vec::new(), value }] }
    }

    /// A point for each value of `attribute`.
    #[must_use]
    pub fn by(
        (name, unit, about): (&'static str, &'static str, &'static str),
        kind: Kind,
        attribute: &'static str,
        points: impl IntoIterator<Item = (Arc<str>, Number)>,
    ) -> Self {
        let point = |(value, number)| Point { attributes: vec![(attribute, value)], value: number };
        Self { name, unit, about, kind, points: points.into_iter().map(point).collect() }
    }
}
