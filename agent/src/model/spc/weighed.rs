//! EWMA and CUSUM: charts that remember, for shifts too small for a single point.

use serde::{Deserialize, Serialize};

use super::chart::Point;
use super::limits::Basis;
use super::rules::{LOOKS_AT, Named, Part, Rule, Side};
use super::spec::Kind;

/// What a point and those before it come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Weighed {
    /// A chart that does not remember, or limits that do not stand yet.
    #[default]
    Not,
    /// z = λ x̄ + (1 − λ) z′, from the centre on (Montgomery, 9.2).
    Ewma(f64),
    /// C⁺ and C⁻, neither ever below 0 (Montgomery, 9.1): max(0, ±(x̄ − centre) − kσ + C′).
    Cusum {
        /// C⁺
        high: f64,
        /// C⁻
        low: f64,
    },
}

impl Weighed {
    /// What a point of `size` and mean `value` comes to after what was before it.
    pub(super) fn next(kind: Kind, basis: &Basis, before: Self, value: f64, size: f64) -> Self {
        match kind {
            Kind::Ewma { lambda, .. } => {
                let before = if let Self::Ewma(before) = before { before } else { basis.center };
                let average = before + (value * lambda - before * lambda);
                Self::Ewma(average.clamp(f64::MIN, f64::MAX))
            }
            Kind::Cusum { k, .. } => {
                let (high, low) = if let Self::Cusum { high, low } = before { (high, low) } else { (0.0, 0.0) };
                let (off, slack) = (value - basis.center, k * basis.sigma_of(size));
                let sum = |off: f64, before: f64| (off - slack + before).clamp(0.0, f64::MAX);
                Self::Cusum { high: sum(off, high), low: sum(-off, low) }
            }
            _ => Self::Not,
        }
    }

    /// What is drawn: of a CUSUM the larger of the two, C⁻ below zero.
    #[must_use]
    pub fn drawn(self) -> Option<f64> {
        match self {
            Self::Not => None,
            Self::Ewma(average) => Some(average),
            Self::Cusum { high, low } => Some(if low > high { -low } else { high }),
        }
    }
}

/// What the newest of `points` breaks: which rule, on which side, and the points that make it.
pub(super) fn broken(kind: Kind, basis: &Basis, points: &[Point]) -> Option<(Rule, Side, Vec<Named>)> {
    let newest = points.last()?;
    let limits = basis.location(kind, newest.size, newest.index);
    let (lower, upper) = (limits.lower?, limits.upper?);
    match newest.weighed {
        Weighed::Not => None,
        Weighed::Ewma(average) => {
            let side = if average > upper { Side::Above } else { Side::Below };
            (average > upper || average < lower).then(|| (Rule::Ewma, side, vec![newest.named(Part::Location)]))
        }
        Weighed::Cusum { high, low } => {
            let side = match (high > upper, low > -lower) {
                (true, _) => Side::Above,
                (_, true) => Side::Below,
                _ => return None,
            };
            // Since it left zero: about when the change began (Montgomery, 9.1.2).
            let away = |point: &&Point| match (point.weighed, side) {
                (Weighed::Cusum { high, .. }, Side::Above) => high > 0.0,
                (Weighed::Cusum { low, .. }, Side::Below) => low > 0.0,
                _ => false,
            };
            let length = points.iter().rev().take_while(away).take(LOOKS_AT).count();
            let run = &points[points.len() - length..];
            let value = |point: &Point| match (point.weighed, side) {
                (Weighed::Cusum { high, .. }, Side::Above) => high,
                (Weighed::Cusum { low, .. }, Side::Below) => -low,
                _ => 0.0,
            };
            let named = run.iter().map(|point| Named { value: value(point), ..point.named(Part::Location) });
            Some((Rule::Cusum, side, named.collect()))
        }
    }
}
