//! What inspections add up to: counts only, so that any stretch of time is the sum of its minutes, in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::drift::Cells;
use crate::model::histogram;
use crate::model::inspection::Verdict;
use crate::model::quality::Confusion;
use crate::record::CycleHistogram;

/// How many baselines a sum tells apart: the newest. More than one are there only where the model changed.
pub(super) const MOST_BASELINES: usize = 8;

/// Inspections of some stretch of time: a commutative monoid, whose zero is the default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InspectionTally {
    /// How many there were.
    pub inspections: u64,
    /// Of how many somebody saw what they told; a counter may move by several at once.
    pub seen: u64,
    /// The machine said good.
    pub pass: u64,
    /// The machine rejected it.
    pub fail: u64,
    /// The machine was not sure.
    pub review: u64,
    /// Units inspected for the first time, as far back as is remembered, whose verdict is known.
    pub first: u64,
    /// Those of them that passed.
    pub first_pass: u64,
    /// Inspections that a person looked at: the machine was not sure, or a review came.
    pub manual: u64,
    /// Inspections that were reviewed, at the time of the inspection.
    pub reviewed: u64,
    /// Reviews of inspections that nobody remembers.
    pub unmatched: u64,
    /// What the machine's decisions turned out to be worth, at the time of the inspection.
    pub labels: Confusion,
    /// Those that the machine did not decide, and that were good.
    pub undecided_good: i64,
    /// Those that the machine did not decide, and that were defective.
    pub undecided_bad: i64,
    /// How often each defect was told.
    pub defects: BTreeMap<Arc<str>, u64>,
    /// By product, those that the configuration names; the others are `None`.
    pub products: BTreeMap<Option<Arc<str>>, OfProduct>,
    /// By the bins of [`ScoreSpec::edges`](super::ScoreSpec::edges).
    pub scores: Cells,
    /// How long the inference took.
    pub latency: Latency,
    /// How many waited.
    pub queue: Option<Queue>,
    /// By the number of the baseline, in its own cells.
    pub drift: BTreeMap<u32, Cells>,
}

/// Inspections of one product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfProduct {
    /// Those of which somebody saw what they told.
    pub seen: u64,
    /// Those whose verdict is known.
    pub judged: u64,
    /// The machine rejected it.
    pub fail: u64,
    /// How many defects were told.
    pub defects: u64,
}

impl InspectionTally {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.inspections, other.inspections),
            (&mut self.seen, other.seen),
            (&mut self.pass, other.pass),
            (&mut self.fail, other.fail),
            (&mut self.review, other.review),
            (&mut self.first, other.first),
            (&mut self.first_pass, other.first_pass),
            (&mut self.manual, other.manual),
            (&mut self.reviewed, other.reviewed),
            (&mut self.unmatched, other.unmatched),
        ] {
            *sum += more;
        }
        self.labels.add(&other.labels);
        self.undecided_good += other.undecided_good;
        self.undecided_bad += other.undecided_bad;
        for (code, count) in &other.defects {
            *self.defects.entry(code.clone()).or_default() += count;
        }
        for (product, more) in &other.products {
            let OfProduct { seen, judged, fail, defects } = self.products.entry(product.clone()).or_default();
            *seen += more.seen;
            *judged += more.judged;
            *fail += more.fail;
            *defects += more.defects;
        }
        self.scores.add(&other.scores);
        self.latency.add(&other.latency);
        self.queue = match (self.queue, other.queue) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.or(b),
        };
        for (baseline, cells) in &other.drift {
            self.drift.entry(*baseline).or_default().add(cells);
        }
        // One that is left out here has as many newer ones in every sum that this becomes part of.
        while self.drift.len() > MOST_BASELINES {
            self.drift.pop_first();
        }
    }

    /// One more with this verdict.
    pub(super) fn decided(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.pass += 1,
            Verdict::Fail => self.fail += 1,
            Verdict::Review => self.review += 1,
        }
    }

    /// Inspections whose verdict is known.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.pass + self.fail + self.review
    }
}

/// How many waited.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// When it was told last.
    pub at: Time,
    /// How many then.
    pub last: f64,
    /// The most that were told.
    pub max: f64,
}

impl Queue {
    fn and(self, other: Self) -> Self {
        let max = self.max.max(other.max);
        // Of two that were told at once the larger one, so that the order does not matter.
        let later = if (self.at, self.last) < (other.at, other.last) { other } else { self };
        Self { max, ..later }
    }
}

/// The index of the lowest bucket that is told apart, 2^-20 s: about a microsecond. What is shorter is in it, too.
const LOWEST: i32 = -20 << histogram::SCALE;
/// The index of the highest one, 2^12 s: more than an hour.
const HIGHEST: i32 = (12 << histogram::SCALE) - 1;

/// Durations as an exponential histogram, in whole nanoseconds, so that sums do not depend on their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    count: u64,
    sum_ns: u64,
    min_ns: Option<u64>,
    max_ns: u64,
    zero: u64,
    buckets: Cells,
}

impl Latency {
    /// One more that took `ns` nanoseconds.
    pub fn observe(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.min_ns = Some(self.min_ns.map_or(ns, |min| min.min(ns)));
        self.max_ns = self.max_ns.max(ns);
        if ns == 0 {
            self.zero += 1;
            return;
        }
        let index = histogram::index(seconds(ns)).clamp(LOWEST, HIGHEST) - LOWEST;
        self.buckets.count(u16::try_from(index).expect("the bounds are 256 apart"));
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// For telemetry, in seconds.
    #[must_use]
    pub fn histogram(&self) -> CycleHistogram {
        let (first, last) = self.buckets.ends().unwrap_or_default();
        let mut buckets = vec![0; if self.count > self.zero { usize::from(last - first) + 1 } else { 0 }];
        for (cell, count) in self.buckets.iter() {
            buckets[usize::from(cell - first)] = count;
        }
        CycleHistogram {
            scale: histogram::SCALE,
            count: self.count,
            sum: seconds(self.sum_ns),
            min: seconds(self.min_ns.unwrap_or_default()),
            max: seconds(self.max_ns),
            zero_count: self.zero,
            offset: i32::from(first) + LOWEST,
            buckets,
        }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.min_ns = [self.min_ns, other.min_ns].into_iter().flatten().min();
        self.max_ns = self.max_ns.max(other.max_ns);
        self.zero += other.zero;
        self.buckets.add(&other.buckets);
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds: exact up to 104 days, and near enough beyond")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
