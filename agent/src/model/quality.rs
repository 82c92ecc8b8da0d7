//! Quality arithmetic: defects, yields and what an inspection's verdicts are worth.
//!
//! Formulas only. What cannot be known (0 of 0) is `None`, and each figure says how many it speaks for.

use serde::{Deserialize, Serialize};

/// A figure, and how many units, chances or labels it speaks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The figure.
    pub value: f64,
    /// What it was divided by.
    pub n: f64,
}

impl Ratio {
    /// `part` of `whole`; none of nothing.
    #[must_use]
    pub fn of(part: f64, whole: f64) -> Option<Self> {
        (whole > 0.0).then(|| Self { value: part / whole, n: whole })
    }

    fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, ..self }
    }
}

/// Defects per unit: all defects over all units (Harry, *The Vision of Six Sigma*, 1988); above 1 where units have several.
#[must_use]
pub fn dpu(defects: f64, units: f64) -> Option<Ratio> {
    Ratio::of(defects, units)
}

/// Defects per opportunity, of `opportunities` for a defect in each unit (ISO 13053-1:2011, annex on sigma scores).
#[must_use]
pub fn dpo(defects: f64, units: f64, opportunities: f64) -> Option<Ratio> {
    Ratio::of(defects, units * opportunities)
}

/// Defects per million opportunities: [`dpo`] times 10⁶ (ISO 13053-1:2011).
#[must_use]
pub fn dpmo(defects: f64, units: f64, opportunities: f64) -> Option<Ratio> {
    dpo(defects, units, opportunities).map(|dpo| dpo.times(1e6))
}

/// Defective units in a million: units count, however many defects each has.
#[must_use]
pub fn ppm(defective: f64, units: f64) -> Option<Ratio> {
    Ratio::of(defective, units).map(|share| share.times(1e6))
}

/// By how much a process drifts in the long run, in sigmas: a convention, no measurement (Motorola; ISO 13053-1:2011 uses it).
pub const SHIFT: f64 = 1.5;

/// The sigma level of a long-term `dpmo`: the standard normal quantile that leaves this share above it, plus [`SHIFT`].
/// 3.4 DPMO are six sigma. None for 0 (no number is large enough) and for 10⁶ and more.
#[must_use]
pub fn sigma_level(dpmo: f64) -> Option<f64> {
    let share = dpmo / 1e6;
    (share > 0.0 && share < 1.0).then(|| SHIFT - normal_quantile(share))
}

/// First-pass yield: units that were good without rework, over all units that were begun (ISO 22400-2:2014, first pass yield).
#[must_use]
pub fn first_pass_yield(good_at_first: f64, units: f64) -> Option<Ratio> {
    Ratio::of(good_at_first, units)
}

/// Rolled throughput yield: the share that passes every station at the first attempt, the product of their first-pass yields
/// (Harry, 1988). It speaks for the fewest units that any of them speaks for; unknown if one of them is.
#[must_use]
pub fn rolled_throughput_yield(stations: impl IntoIterator<Item = Option<Ratio>>) -> Option<Ratio> {
    let both = |rolled: Option<Ratio>, station: Option<Ratio>| {
        let (rolled, station) = (rolled?, station?);
        Some(Ratio { value: rolled.value * station.value, n: rolled.n.min(station.n) })
    };
    stations.into_iter().reduce(both).flatten()
}

/// The throughput yield that goes with a [`dpu`], where only defects are counted: e^-dpu, the share of units without any if
/// defects fall at random (Poisson; Harry, 1988).
#[must_use]
pub fn yield_of_dpu(dpu: Ratio) -> Ratio {
    Ratio { value: (-dpu.value).exp(), n: dpu.n }
}

/// What the verdicts of an inspection turned out to be worth, of those whose truth is known: a confusion matrix whose positive
/// is "defective". A later word on the truth moves one from cell to cell, so a difference of two may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Defective and rejected (true positives).
    pub caught: i64,
    /// Good and rejected (false positives).
    pub false_rejects: i64,
    /// Good and passed (true negatives).
    pub cleared: i64,
    /// Defective and passed (false negatives).
    pub escapes: i64,
}

/// Definitions as in ISO/IEC TS 4213:2022 (classification performance), with the words of inspection.
impl Confusion {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.caught += other.caught;
        self.false_rejects += other.false_rejects;
        self.cleared += other.cleared;
        self.escapes += other.escapes;
    }

    /// How many have a label.
    #[must_use]
    pub fn n(&self) -> i64 {
        self.caught + self.false_rejects + self.cleared + self.escapes
    }

    /// Good units that were rejected, of all good ones: FP/(FP+TN).
    #[must_use]
    pub fn false_reject_rate(&self) -> Option<Ratio> {
        share(self.false_rejects, self.false_rejects + self.cleared)
    }

    /// Defective units that were passed, of all defective ones: FN/(FN+TP).
    #[must_use]
    pub fn escape_rate(&self) -> Option<Ratio> {
        share(self.escapes, self.escapes + self.caught)
    }

    /// Rejects that were right: TP/(TP+FP).
    #[must_use]
    pub fn precision(&self) -> Option<Ratio> {
        share(self.caught, self.caught + self.false_rejects)
    }

    /// Defective units that were found: TP/(TP+FN).
    #[must_use]
    pub fn recall(&self) -> Option<Ratio> {
        share(self.caught, self.caught + self.escapes)
    }

    /// Harmonic mean of precision and recall: 2·TP/(2·TP+FP+FN). Its n are the units that went into either.
    #[must_use]
    pub fn f1(&self) -> Option<Ratio> {
        let n = self.caught + self.false_rejects + self.escapes;
        let f1 = share(2 * self.caught, self.caught + n)?;
        Some(Ratio { n: real(n), ..f1 })
    }

    /// Verdicts that were right: (TP+TN)/all.
    #[must_use]
    pub fn accuracy(&self) -> Option<Ratio> {
        share(self.caught + self.cleared, self.n())
    }
}

fn share(part: i64, whole: i64) -> Option<Ratio> {
    Ratio::of(real(part), real(whole))
}

#[expect(clippy::cast_precision_loss, reason = "counts of units, far below 2^53")]
fn real(count: i64) -> f64 {
    count as f64
}

/// The standard normal quantile of `p`, 0 < p < 1, to about 16 digits: Wichura, *Algorithm AS 241: The Percentage Points of the
/// Normal Distribution*, Applied Statistics 37 (1988), 477-484, PPND16.
fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(&CENTRE, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-tail.ln()).sqrt();
    let quantile = if r <= 5.0 { ratio(&FLANK, r - 1.6) } else { ratio(&TAIL, r - 5.0) };
    quantile.copysign(q)
}

/// Numerator and denominator of a rational approximation, the highest power first.
type Rational = [[f64; 8]; 2];

fn ratio([above, below]: &Rational, r: f64) -> f64 {
    let polynomial = |of: &[f64; 8]| of.iter().fold(0.0, |sum, coefficient| sum * r + coefficient);
    polynomial(above) / polynomial(below)
}

const CENTRE: Rational = [
    [
        2_509.080_928_730_122_7,
        33_430.575_583_588_13,
        67_265.770_927_008_7,
        45_921.953_931_549_87,
        13_731.693_765_509_46,
        1_971.590_950_306_551_3,
        133.141_667_891_784_38,
        3.387_132_872_796_366_5,
    ],
    [
        5_226.495_278_852_854,
        28_729.085_735_721_943,
        39_307.895_800_092_71,
        21_213.794_301_586_597,
        5_394.196_021_424_751,
        687.187_007_492_057_9,
        42.313_330_701_600_91,
        1.0,
    ],
];

const FLANK: Rational = [
    [
        7.745_450_142_783_414e-4,
        2.272_384_498_926_918_4e-2,
        0.241_780_725_177_450_6,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9,
        5.475_938_084_995_345e-4,
        1.519_866_656_361_645_7e-2,
        0.148_103_976_427_480_08,
        0.689_767_334_985_1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ],
];

const TAIL: Rational = [
    [
        2.010_334_399_292_288e-7,
        2.711_555_568_743_487_6e-5,
        1.242_660_947_388_078_4e-3,
        2.653_218_952_657_612_4e-2,
        0.296_560_571_828_504_87,
        1.784_826_539_917_291_3,
        5.463_784_911_164_114,
        6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_8e-15,
        1.421_511_758_316_446e-7,
        1.846_318_317_510_054_8e-5,
        7.868_691_311_456_133e-4,
        1.487_536_129_085_061_5e-2,
        0.136_929_880_922_735_8,
        0.599_832_206_555_888,
        1.0,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::inspection::vectors::{vector, within};

    fn value(ratio: Option<Ratio>) -> f64 {
        ratio.expect("it is known").value
    }

    #[test]
    fn published_rolled_throughput_yield() {
        let example = vector("rty");
        let dpus: Vec<_> = example.numbers("dpu").into_iter().map(|dpu| Ratio { value: dpu, n: 100.0 }).collect();
        for (dpu, expected) in dpus.iter().zip(example.numbers("yield")) {
            within(&example, yield_of_dpu(*dpu).value, expected);
        }
        let rolled = rolled_throughput_yield(dpus.iter().map(|dpu| Some(yield_of_dpu(*dpu))));
        within(&example, value(rolled), example.number("rolled_throughput_yield"));
    }

    #[test]
    fn published_dpmo_and_sigma_level() {
        let example = vector("dpmo");
        let [defects, units, opportunities] = ["defects", "units", "opportunities"].map(|key| example.number(key));
        let dpmo = dpmo(defects, units, opportunities).expect("it is known");
        within(&example, dpmo.value, example.number("dpmo"));
        within(&example, sigma_level(dpmo.value).expect("it is known"), example.number("sigma_level"));
        assert_eq!(dpmo.n.to_bits(), (units * opportunities).to_bits());
        assert_eq!(value(dpu(defects, units)).to_bits(), (defects / units).to_bits());
    }

    #[test]
    fn published_confusion_matrix() {
        let example = vector("confusion");
        let [caught, false_rejects, cleared, escapes] = ["tp", "fp", "tn", "fn"].map(|key| example.count(key));
        let matrix = Confusion { caught, false_rejects, cleared, escapes };
        for (figure, key) in [
            (matrix.false_reject_rate(), "false_reject_rate"),
            (matrix.escape_rate(), "escape_rate"),
            (matrix.f1(), "f1"),
        ] {
            within(&example, value(figure), example.number(key));
        }
        let ns = [matrix.false_reject_rate(), matrix.escape_rate(), matrix.f1(), matrix.accuracy()]
            .map(|figure| figure.expect("it is known").n);
        let [good, bad, either] = [false_rejects + cleared, caught + escapes, caught + false_rejects + escapes];
        assert_eq!(ns.map(f64::to_bits), [good, bad, either, matrix.n()].map(|n| real(n).to_bits()));
        let (precision, recall) = (value(matrix.precision()), value(matrix.recall()));
        within(&example, 2.0 * precision * recall / (precision + recall), value(matrix.f1()));
        within(&example, 1.0 - recall, value(matrix.escape_rate()));
    }

    #[test]
    fn of_nothing_nothing_is_known() {
        let none = Confusion::default();
        for figure in [
            dpu(0.0, 0.0),
            dpmo(0.0, 0.0, 6.0),
            dpo(0.0, 400.0, 0.0),
            ppm(0.0, 0.0),
            first_pass_yield(0.0, 0.0),
            rolled_throughput_yield([]),
            rolled_throughput_yield([Ratio::of(9.0, 10.0), None]),
            rolled_throughput_yield([None, Ratio::of(9.0, 10.0)]),
            none.false_reject_rate(),
            none.escape_rate(),
            none.precision(),
            none.recall(),
            none.f1(),
            none.accuracy(),
        ] {
            assert_eq!(figure, None);
        }
        assert_eq!([0.0, -1.0, 1e6, 2e6, f64::NAN].map(sigma_level), [None; 5]);
    }

    #[test]
    fn what_is_known_of_some_cells_only() {
        let only_rejects_reviewed = Confusion { caught: 8, false_rejects: 2, ..Confusion::default() };
        assert_eq!(only_rejects_reviewed.precision(), Ratio::of(8.0, 10.0));
        assert_eq!(only_rejects_reviewed.escape_rate(), Ratio::of(0.0, 8.0));
        let only_passes_reviewed = Confusion { cleared: 5, ..Confusion::default() };
        assert_eq!((only_passes_reviewed.precision(), only_passes_reviewed.f1()), (None, None));
        assert_eq!(only_passes_reviewed.accuracy(), Ratio::of(5.0, 5.0));
    }

    #[test]
    fn the_weakest_station_says_how_many_a_rolled_yield_speaks_for() {
        let rolled = rolled_throughput_yield([first_pass_yield(90.0, 100.0), first_pass_yield(5.0, 10.0)]);
        assert_eq!(rolled, Some(Ratio { value: 0.45, n: 10.0 }));
        assert_eq!(ppm(3.0, 1_000_000.0), Some(Ratio { value: 3.0, n: 1e6 }));
    }

    /// Six sigma is 3.4 DPMO by convention, and half is exactly the shift.
    #[test]
    fn sigma_levels_that_everybody_knows() {
        let level = |dpmo| sigma_level(dpmo).expect("it is known");
        assert!((level(3.4) - 6.0).abs() < 1e-3, "{}", level(3.4));
        assert!((level(66_807.2) - 3.0).abs() < 1e-5, "{}", level(66_807.2));
        assert_eq!(level(500_000.0).to_bits(), SHIFT.to_bits());
    }

    /// Wichura's own check values (1988, table of results).
    #[test]
    fn the_normal_quantile_of_its_author() {
        for (p, expected) in
            [(0.25, -0.674_489_750_196_081_7), (0.001, -3.090_232_306_167_813_5), (1e-20, -9.262_340_089_798_408)]
        {
            let quantile = normal_quantile(p);
            assert!((quantile - expected).abs() < 1e-14 * expected.abs(), "{p}: {quantile}");
        }
    }
}
