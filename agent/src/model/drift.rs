//! Drift: how far the values of today lie from a baseline that was stored.
//!
//! Both distances work on counts by cell, which add up: any stretch of time is the sum of its minutes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many fell into which cell; cells without any take no room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells(BTreeMap<u16, u64>);

impl Cells {
    /// One more in `cell`.
    pub fn count(&mut self, cell: u16) {
        *self.0.entry(cell).or_default() += 1;
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    /// All of them.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.0.values().sum()
    }

    /// Cells that have some, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter().map(|(cell, count)| (*cell, *count))
    }

    /// The first and the last cell that have some.
    #[must_use]
    pub fn ends(&self) -> Option<(u16, u16)> {
        Some((*self.0.first_key_value()?.0, *self.0.last_key_value()?.0))
    }
}

/// The bin of `value` between ascending `edges`: 0 is up to and with the first edge, the last one above the last edge. An upper
/// edge belongs to its bin, as in OTLP histograms.
#[must_use]
pub fn bin(edges: &[f64], value: f64) -> u16 {
    u16::try_from(edges.partition_point(|edge| *edge < value)).unwrap_or(u16::MAX)
}

/// What the share of a bin is raised to before it is compared: an empty bin would make the index infinite. One in ten thousand,
/// as is common with credit scores; the others are not made smaller for it.
pub const LEAST_SHARE: f64 = 1e-4;

/// The population stability index between two histograms over the same bins, given as counts or shares:
/// Σ (current − baseline) · ln(current / baseline) over the shares (Siddiqi, *Credit Risk Scorecards*, 2006). An empty bin counts
/// as [`LEAST_SHARE`]. By custom less than 0.1 is stable, more than 0.25 a shift. None if one of them is empty.
#[must_use]
pub fn psi(baseline: &[f64], current: &[f64]) -> Option<f64> {
    let (all_before, all_now) = (baseline.iter().sum::<f64>(), current.iter().sum::<f64>());
    if baseline.len() != current.len() || all_before <= 0.0 || all_now <= 0.0 {
        return None;
    }
    let terms = baseline.iter().zip(current).map(|(before, now)| {
        let [before, now] = [before / all_before, now / all_now].map(|share| share.max(LEAST_SHARE));
        (now - before) * (now / before).ln()
    });
    Some(terms.sum())
}

/// The two-sample Kolmogorov-Smirnov distance D: the largest difference between the two empirical distribution functions
/// (Smirnov, 1939; NIST/SEMATECH e-Handbook, 1.3.5.16). Both ascending; of values that are the same, all count before the
/// functions are compared. None if one of them is empty.
#[must_use]
pub fn ks(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (mut in_a, mut in_b, mut most) = (0, 0, 0.0_f64);
    while in_a < a.len() && in_b < b.len() {
        let value = a[in_a].min(b[in_b]);
        in_a += a[in_a..].partition_point(|it| *it <= value);
        in_b += b[in_b..].partition_point(|it| *it <= value);
        most = most.max((share(in_a, a.len()) - share(in_b, b.len())).abs());
    }
    Some(most)
}

/// How many bins a learnt baseline has for [`psi`]: its deciles.
const BINS: usize = 10;

/// Values to compare with, ascending: the stored baseline.
///
/// It divides all numbers into cells: each of its values is one, and so is each gap between two of them. Counts of these cells
/// are enough for the exact distance [`ks`] of what was counted, since between two of its values its own distribution function
/// stands still while the other one only rises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Takes one more value.
    pub fn learn(&mut self, value: f64) {
        let place = self.0.partition_point(|it| *it <= value);
        self.0.insert(place, value);
    }

    /// How many values it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The cell of `value`: `2i` in the gap below the value at place `i`, `2i + 1` on it. Of values that are the same the first
    /// place counts.
    #[must_use]
    pub fn cell(&self, value: f64) -> u16 {
        let place = self.0.partition_point(|it| *it < value);
        let on = self.0.get(place).is_some_and(|it| *it <= value);
        u16::try_from(2 * place + usize::from(on)).unwrap_or(u16::MAX)
    }

    /// [`ks`] between this and what was counted in its cells.
    #[must_use]
    pub fn ks(&self, counted: &Cells) -> Option<f64> {
        let n = counted.n();
        if self.0.is_empty() || n == 0 {
            return None;
        }
        let mut cells = counted.iter().peekable();
        let (mut below, mut most, mut place) = (0, 0.0_f64, 0);
        while place < self.0.len() {
            let mut up_to = |last: usize| {
                while let Some((_, count)) = cells.next_if(|(cell, _)| usize::from(*cell) <= last) {
                    below += count;
                }
                part(below, n)
            };
            let next = place + self.0[place..].partition_point(|it| *it <= self.0[place]);
            let before = (share(place, self.0.len()) - up_to(2 * place)).abs();
            let on = (share(next, self.0.len()) - up_to(2 * place + 1)).abs();
            most = most.max(before).max(on);
            place = next;
        }
        Some(most)
    }

    /// [`psi`] between this and what was counted in its cells, over the deciles of this; values that are often the same give
    /// fewer bins.
    #[must_use]
    pub fn psi(&self, counted: &Cells) -> Option<f64> {
        let edges = self.deciles();
        let (mut before, mut now) = (vec![0.0; edges.len() + 1], vec![0.0; edges.len() + 1]);
        for value in &self.0 {
            before[usize::from(bin(&edges, *value))] += 1.0;
        }
        for (cell, count) in counted.iter() {
            // Edges are values of this sample, so no edge lies within a cell.
            let place = self.0.get(usize::from(cell) / 2);
            let at = place.map_or(edges.len(), |value| usize::from(bin(&edges, *value)));
            #[expect(clippy::cast_precision_loss, reason = "a count of units")]
            let count = count as f64;
            now[at] += count;
        }
        psi(&before, &now)
    }

    /// Ascending, each once: the values that 10 %, 20 % … 90 % of all are not above.
    fn deciles(&self) -> Vec<f64> {
        let mut edges: Vec<_> =
            (1..BINS).filter_map(|decile| self.0.get((decile * self.0.len()).div_ceil(BINS).checked_sub(1)?)).collect();
        edges.dedup();
        edges.into_iter().copied().collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of values, far below 2^53")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts of values, far below 2^53")]
fn part(count: u64, of: u64) -> f64 {
    count as f64 / of as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::inspection::vectors::{vector, within};

    fn sample(values: &[f64]) -> Sample {
        let mut sample = Sample::default();
        values.iter().for_each(|value| sample.learn(*value));
        sample
    }

    fn counted(sample: &Sample, values: &[f64]) -> Cells {
        let mut cells = Cells::default();
        values.iter().for_each(|value| cells.count(sample.cell(*value)));
        cells
    }

    #[test]
    fn published_psi() {
        let example = vector("psi");
        let psi = psi(&example.numbers("baseline"), &example.numbers("current")).expect("it is known");
        within(&example, psi, example.number("psi"));
    }

    #[test]
    fn published_ks_also_with_ties() {
        for id in ["ks", "ks-ties"] {
            let example = vector(id);
            let (a, b) = (example.numbers("a"), example.numbers("b"));
            within(&example, ks(&a, &b).expect("it is known"), example.number("d"));
            within(&example, ks(&b, &a).expect("it is known"), example.number("d"));
            let baseline = sample(&a);
            within(&example, baseline.ks(&counted(&baseline, &b)).expect("it is known"), example.number("d"));
        }
    }

    #[test]
    fn an_empty_bin_counts_as_little() {
        let psi = |a: &[f64], b: &[f64]| psi(a, b).expect("it is known");
        let moved = psi(&[100.0, 0.0], &[0.0, 7.0]);
        let term = (1.0 - LEAST_SHARE) * (1.0 / LEAST_SHARE).ln();
        assert!((moved - 2.0 * term).abs() < 1e-12, "{moved}");
        assert_eq!(psi(&[3.0, 0.0, 1.0], &[6.0, 0.0, 2.0]).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        assert_eq!([psi(&[], &[]), psi(&[1.0], &[0.0]), psi(&[0.0], &[1.0]), psi(&[1.0], &[1.0, 2.0])], [None; 4]);
        assert_eq!([ks(&[], &[1.0]), ks(&[1.0], &[])], [None; 2]);
        let one = sample(&[1.0]);
        assert_eq!([one.ks(&Cells::default()), Sample::default().ks(&counted(&one, &[2.0]))], [None; 2]);
        assert_eq!([one.psi(&Cells::default()), Sample::default().psi(&counted(&one, &[2.0]))], [None; 2]);
    }

    #[test]
    fn the_edge_belongs_to_the_bin_below() {
        let bins = [-1.0, 0.0, 0.5, 1.0, 1.5].map(|value| bin(&[0.0, 1.0], value));
        assert_eq!(bins, [0, 0, 1, 1, 2]);
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        // Halves, so that many are the same.
        prop::collection::vec((-20_i32..20).prop_map(|half| f64::from(half) / 2.0), 1..60)
    }

    proptest! {
        #[test]
        fn cells_are_enough_for_the_exact_distance(mut a in values(), mut b in values()) {
            let baseline = sample(&a);
            let cells = counted(&baseline, &b);
            a.sort_by(f64::total_cmp);
            b.sort_by(f64::total_cmp);
            let (direct, by_cells) = (ks(&a, &b).expect("both hold some"), baseline.ks(&cells).expect("both hold some"));
            prop_assert!((direct - by_cells).abs() < 1e-12, "{direct} {by_cells}");
            // The same against the definition, at every value of either.
            let not_above = |all: &[f64], it: f64| share(all.iter().filter(|value| **value <= it).count(), all.len());
            let most = a.iter().chain(&b).map(|it| (not_above(&a, *it) - not_above(&b, *it)).abs()).fold(0.0, f64::max);
            prop_assert!((direct - most).abs() < 1e-12, "{direct} {most}");
        }

        #[test]
        fn cells_are_enough_for_the_bins(a in values(), b in values()) {
            let baseline = sample(&a);
            let edges = baseline.deciles();
            let histogram = |of: &[f64]| {
                let mut bins = vec![0.0; edges.len() + 1];
                of.iter().for_each(|value| bins[usize::from(bin(&edges, *value))] += 1.0);
                bins
            };
            let direct = psi(&histogram(&a), &histogram(&b)).expect("both hold some");
            prop_assert_eq!(baseline.psi(&counted(&baseline, &b)), Some(direct));
            prop_assert!(direct >= 0.0, "{}", direct);
        }

        #[test]
        fn the_same_again_is_no_drift(a in values()) {
            let baseline = sample(&a);
            let cells = counted(&baseline, &a);
            prop_assert_eq!((baseline.ks(&cells), baseline.psi(&cells)), (Some(0.0), Some(0.0)));
        }
    }
}
