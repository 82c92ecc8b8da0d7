//! What a process gives, against what the drawing asks for.

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::spec::Tolerance;

/// Over which readings a capability speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// Those of phase 1.
    Phase1,
    /// All since the limits stand.
    SinceLimits,
}

/// Capability and performance indices (Montgomery, chapter 8; NIST e-Handbook 6.1.6). Of a tolerance with one side Cpk and Ppk
/// are that side's, and those that need both are `None`, as is all that has no spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capability {
    /// Over which readings.
    pub window: Window,
    /// The first of them.
    pub from: Time,
    /// The last of them.
    pub to: Time,
    /// How many.
    pub readings: u64,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation within subgroups, as the chart's limits have it.
    pub within: Option<f64>,
    /// Standard deviation of all of them (n − 1).
    pub overall: Option<f64>,
    /// (upper − lower) / 6 within
    pub cp: Option<f64>,
    /// The nearer side, over 3 within.
    pub cpk: Option<f64>,
    /// (upper − lower) / 6 overall
    pub pp: Option<f64>,
    /// The nearer side, over 3 overall.
    pub ppk: Option<f64>,
    /// (upper − lower) / 6 √(overall² + (mean − target)²)
    pub cpm: Option<f64>,
}

impl Capability {
    /// Of the readings in `run`; `None` without any.
    pub(super) fn of(window: Window, run: &Run, within: Option<f64>, tolerance: &Tolerance) -> Option<Self> {
        let (from, to) = run.span?;
        let mean = run.readings.mean;
        let overall = run.readings.deviation();
        let Tolerance { lower, target, upper } = *tolerance;
        let both = |sigma: f64| some((upper? - lower?) / (6.0 * sigma));
        let near = |sigma: f64| {
            let sides = [upper.map(|upper| upper - mean), lower.map(|lower| mean - lower)];
            let nearer = sides.into_iter().flatten().reduce(f64::min)?;
            some(nearer / (3.0 * sigma))
        };
        let off = |sigma: f64| {
            let off = mean - target?;
            both((sigma * sigma + off * off).sqrt())
        };
        Some(Self {
            window,
            from,
            to,
            readings: run.readings.count,
            mean,
            within: within.and_then(some),
            overall: overall.and_then(some),
            cp: within.and_then(both),
            cpk: within.and_then(near),
            pp: overall.and_then(both),
            ppk: overall.and_then(near),
            cpm: overall.and_then(off),
        })
    }
}

fn some(number: f64) -> Option<f64> {
    number.is_finite().then_some(number)
}

/// Readings of a window, without keeping them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The first and the last.
    span: Option<(Time, Time)>,
    readings: Moments,
}

impl Run {
    /// Adds those of a subgroup.
    pub(super) fn add(&mut self, from: Time, to: Time, readings: &Moments) {
        let mut all = self.readings;
        all.merge(readings);
        // What no number can tell would stay for ever.
        if all.is_finite() {
            self.span = Some((self.span.map_or(from, |(first, _)| first), to));
            self.readings = all;
        }
    }
}

/// Number, mean and sum of squares round the mean (Welford 1962), exact for readings that are all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds a reading.
    pub(super) fn take(&mut self, value: f64) {
        self.merge(&Self { count: 1, mean: value, squares: 0.0 });
    }

    /// Adds the readings of another (Chan, Golub and LeVeque 1979).
    fn merge(&mut self, other: &Self) {
        if self.count == 0 || other.count == 0 {
            *self = if self.count == 0 { *other } else { *self };
            return;
        }
        let (mine, theirs) = (self.number(), other.number());
        let all = mine + theirs;
        let apart = other.mean - self.mean;
        self.count = self.count.saturating_add(other.count);
        self.mean += apart * (theirs / all);
        self.squares += (apart * apart).mul_add(mine * theirs / all, other.squares);
    }

    /// Whether it holds what numbers can tell.
    pub(super) fn is_finite(&self) -> bool {
        self.mean.is_finite() && self.squares.is_finite()
    }

    /// How many.
    #[expect(clippy::cast_precision_loss, reason = "2^53 readings take three thousand centuries at 1 kHz")]
    pub(super) fn number(&self) -> f64 {
        self.count as f64
    }

    /// Sample standard deviation; `None` below two readings.
    pub(super) fn deviation(&self) -> Option<f64> {
        (self.count >= 2).then(|| (self.squares / (self.number() - 1.0)).max(0.0).sqrt())
    }
}
