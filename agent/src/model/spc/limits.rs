//! Where the lines of a chart lie, and what they follow from.

use serde::{Deserialize, Serialize};

use super::chart::Point;
use super::constants::{c4, d2, d3};
use super::spec::{Kind, LimitsFrom, Setting};

/// The lines at one point of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The centre line.
    pub center: f64,
    /// The lower control limit; `None`: nothing is too low.
    pub lower: Option<f64>,
    /// The upper control limit; `None`: nothing is too high.
    pub upper: Option<f64>,
}

impl Limits {
    /// 3 sigma round a centre.
    fn around(center: f64, sigma: f64) -> Self {
        Self { center, lower: Some(center - 3.0 * sigma), upper: Some(center + 3.0 * sigma) }
    }

    /// None of it below `least` or above `most`, which no point can be.
    fn within(self, least: f64, most: f64) -> Self {
        Self { lower: self.lower.map(|lower| lower.max(least)), upper: self.upper.map(|upper| upper.min(most)), ..self }
    }
}

/// What the lines follow from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Basis {
    /// The mean; of p and np the share of defective parts, of c the defects in a subgroup, of u the defects a part.
    pub(super) center: f64,
    /// Standard deviation of single readings within a subgroup; `None` for counts.
    pub(super) sigma: Option<f64>,
    /// Limits that stand as they are.
    drawn: Option<(Option<f64>, Option<f64>)>,
}

impl Basis {
    /// What the setting gives; `None` if it is to be estimated.
    pub(super) fn given(setting: &Setting) -> Option<Self> {
        match setting.limits {
            LimitsFrom::Phase1(_) => None,
            LimitsFrom::Known { center, sigma } => Some(Self { center, sigma, drawn: None }),
            LimitsFrom::Drawn { center, lower, upper } => {
                // A third of the way to a limit is one sigma of a mean; √n of them are one of a reading.
                let width = match (lower, upper) {
                    (Some(lower), Some(upper)) => Some((upper - lower) / 6.0),
                    (Some(lower), None) => Some((center - lower) / 3.0),
                    (None, Some(upper)) => Some((upper - center) / 3.0),
                    (None, None) => None,
                };
                let root = f64::from(setting.size.unwrap_or(1)).sqrt();
                let sigma = width.filter(|_| !setting.kind.counts()).map(|width| width * root);
                Some(Self { center, sigma, drawn: Some((lower, upper)) })
            }
        }
    }

    /// What the points of phase 1 say; `None` if they say nothing, such as readings of which each stands alone.
    ///
    /// The centre is the mean of all readings, or the share of all parts. Sigma is the mean of spread over its constant, which
    /// for subgroups of one size is R̄/d2, s̄/c4 or MR̄/d2(2) (Montgomery, 6.2, 6.3 and 6.4); for sizes that vary each has its
    /// own constant (Burr 1969; UWAVE-R and UWAVE-SD in R's qcc).
    pub(super) fn estimate(kind: Kind, points: &[Point]) -> Option<Self> {
        let by_size = |point: &Point| (point.value, point.size);
        let center = match kind {
            Kind::C => mean(points.iter().map(|point| (point.value, 1.0))),
            Kind::Np => mean(points.iter().map(|point| (point.value / point.size, point.size))),
            _ => mean(points.iter().map(by_size)),
        }?;
        if kind.counts() {
            return Some(Self { center, sigma: None, drawn: None });
        }
        let spreads = points.iter().filter_map(|point| Some((point.spread? / constant(kind, point.size), 1.0)));
        Some(Self { center, sigma: Some(mean(spreads)?), drawn: None })
    }

    /// Standard deviation of a point of so many readings: σ/√n.
    pub(super) fn sigma_of(&self, size: f64) -> f64 {
        self.sigma.unwrap_or_default() / size.sqrt()
    }

    /// The lines for means, single readings, shares or counts, at point `index` of `size`.
    ///
    /// Counts follow the binomial (p, np) or Poisson distribution (c, u): Montgomery, 7.2 and 7.3. Those of an EWMA: 9.2;
    /// of a CUSUM ±h sigma round 0: 9.1.
    pub(super) fn location(&self, kind: Kind, size: f64, index: u64) -> Limits {
        let center = self.center;
        if let Some((lower, upper)) = self.drawn {
            return Limits { center, lower, upper };
        }
        // Of a share that is none, as from counters that were mixed up, there is no spread.
        let binomial = (center * (1.0 - center)).max(0.0);
        match kind {
            Kind::XbarR | Kind::XbarS | Kind::IMr => Limits::around(center, self.sigma_of(size)),
            Kind::P => Limits::around(center, (binomial / size).sqrt()).within(0.0, 1.0),
            Kind::Np => Limits::around(center * size, (binomial * size).sqrt()).within(0.0, size),
            Kind::C => Limits::around(center, center.max(0.0).sqrt()).within(0.0, f64::INFINITY),
            Kind::U => Limits::around(center, (center / size).max(0.0).sqrt()).within(0.0, f64::INFINITY),
            Kind::Ewma { lambda, width } => {
                let share = lambda / (2.0 - lambda) * (1.0 - power(1.0 - lambda, index.saturating_mul(2)));
                let half = width * self.sigma_of(size) * share.sqrt();
                Limits { center, lower: Some(center - half), upper: Some(center + half) }
            }
            Kind::Cusum { h, .. } => {
                let half = h * self.sigma_of(size);
                Limits { center: 0.0, lower: Some(-half), upper: Some(half) }
            }
        }
    }

    /// The lines for ranges or standard deviations of `size` readings, or moving ranges; `None` where the chart has none.
    ///
    /// D3, D4 and B5, B6 from d2, d3 and c4: Montgomery, 6.2.1 and 6.3.1.
    pub(super) fn spread(&self, kind: Kind, size: f64) -> Option<Limits> {
        let sigma = self.sigma?;
        let (center, deviation) = match kind {
            Kind::XbarR => (d2(size), d3(size)),
            Kind::XbarS => (c4(size), (1.0 - c4(size) * c4(size)).sqrt()),
            Kind::IMr => (d2(2.0), d3(2.0)),
            _ => return None,
        };
        Some(Limits::around(center * sigma, deviation * sigma).within(0.0, f64::INFINITY))
    }
}

/// By squaring: the standard library's has other digits on other machines.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut power, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            power *= square;
        }
        square *= square;
        left /= 2;
    }
    power
}

/// What the spread of a point is divided by to be a standard deviation.
fn constant(kind: Kind, size: f64) -> f64 {
    match kind {
        Kind::XbarS => c4(size),
        _ if size < 2.0 => d2(2.0),
        _ => d2(size),
    }
}

/// Of values with their weights; exact for values that are all the same. `None` without any, or beyond all numbers.
fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut mean, mut all) = (0.0, 0.0);
    for (value, weight) in values {
        all += weight;
        mean += (value - mean) * weight / all;
    }
    (all > 0.0 && mean.is_finite()).then_some(mean)
}
