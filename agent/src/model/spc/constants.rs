//! What connects the spread of small subgroups with the standard deviation of the readings in them, for normal readings.

/// The largest subgroup whose range is told: beyond it a range says little (Montgomery, 6.2; ASTM E2587).
pub(super) const LARGEST: usize = 25;

/// For n = 2 to 25, to the three decimals that Montgomery (appendix VI), ASTM E2587 and the R package qcc print, so that
/// limits are theirs to the last digit (2.326 for n = 5).
const D2: [f64; LARGEST - 1] = [
    1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078, 3.173, 3.258, 3.336, 3.407, 3.472, 3.532, 3.588,
    3.640, 3.689, 3.735, 3.778, 3.819, 3.858, 3.895, 3.931,
];

/// For n = 2 to 25, from the distribution of the range by numerical integration (H. L. Harter, Annals of Mathematical
/// Statistics 31, 1960); Montgomery prints three decimals of them.
const D3: [f64; LARGEST - 1] = [
    0.852_502_5,
    0.888_368_1,
    0.879_808_1,
    0.864_081_9,
    0.848_039_7,
    0.833_205_3,
    0.819_831_5,
    0.807_834_3,
    0.797_050_7,
    0.787_314_6,
    0.778_478_3,
    0.770_416_2,
    0.763_023_1,
    0.756_211_4,
    0.749_908_1,
    0.744_051_8,
    0.738_590_9,
    0.733_481_5,
    0.728_686_3,
    0.724_173_3,
    0.719_914_8,
    0.715_886_7,
    0.712_068_2,
    0.708_440_8,
];

/// Mean of the range of `n` readings, in standard deviations; of fewer than 2 or more than 25 that of 2 or 25.
pub(super) fn d2(n: f64) -> f64 {
    D2[place(n)]
}

/// Standard deviation of the range of `n` readings, in standard deviations; of fewer than 2 or more than 25 that of 2 or 25.
pub(super) fn d3(n: f64) -> f64 {
    D3[place(n)]
}

/// Mean of the sample standard deviation of `n` readings, in standard deviations: √(2/(n−1)) Γ(n/2)/Γ((n−1)/2).
///
/// Exact up to 25, by c4(n) c4(n+1) = √((n−1)/n) from c4(2) = √(2/π); beyond it 4(n−1)/(4n−3) (Montgomery, appendix VI).
pub(super) fn c4(n: f64) -> f64 {
    if n > 25.0 {
        return 4.0 * (n - 1.0) / 4.0_f64.mul_add(n, -3.0);
    }
    let (mut at, mut c4) = (2.0, (2.0 / std::f64::consts::PI).sqrt());
    while at < n {
        c4 = ((at - 1.0) / at).sqrt() / c4;
        at += 1.0;
    }
    c4
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 2 to 25")]
fn place(n: f64) -> usize {
    n.clamp(2.0, 25.0) as usize - 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Montgomery, appendix VI: n, A2, A3, B3, B4, D3, D4, each printed to three decimals.
    const PRINTED: [(f64, [f64; 6]); 6] = [
        (2.0, [1.880, 2.659, 0.0, 3.267, 0.0, 3.267]),
        (5.0, [0.577, 1.427, 0.0, 2.089, 0.0, 2.114]),
        (7.0, [0.419, 1.182, 0.118, 1.882, 0.076, 1.924]),
        (10.0, [0.308, 0.975, 0.284, 1.716, 0.223, 1.777]),
        (15.0, [0.223, 0.789, 0.428, 1.572, 0.347, 1.653]),
        (25.0, [0.153, 0.606, 0.565, 1.435, 0.459, 1.541]),
    ];

    #[test]
    fn the_factors_are_those_that_are_printed() {
        for (n, printed) in PRINTED {
            let (d2, d3, c4) = (d2(n), d3(n), c4(n));
            let s = 3.0 * (1.0 - c4 * c4).sqrt() / c4;
            let r = 3.0 * d3 / d2;
            let factors = [
                3.0 / (d2 * n.sqrt()),
                3.0 / (c4 * n.sqrt()),
                (1.0 - s).max(0.0),
                1.0 + s,
                (1.0 - r).max(0.0),
                1.0 + r,
            ];
            for (found, printed) in factors.into_iter().zip(printed) {
                assert!((found - printed).abs() < 0.001_1, "n = {n}: {found} for {printed}");
            }
        }
    }

    #[test]
    fn c4_goes_on_beyond_the_table() {
        for (n, printed) in [(2.0, 0.7979), (3.0, 0.8862), (5.0, 0.9400), (10.0, 0.9727), (25.0, 0.9896)] {
            assert!((c4(n) - printed).abs() < 5e-5, "{n}: {}", c4(n));
        }
        assert!((c4(26.0) - 0.990_099).abs() < 1e-6 && c4(26.0) > c4(25.0) && c4(1e6) < 1.0);
    }

    #[test]
    fn no_size_is_beyond_the_tables() {
        for n in [f64::NEG_INFINITY, -1.0, 0.0, 1.0, 26.0, f64::INFINITY] {
            assert!(d2(n).is_finite() && d3(n).is_finite() && c4(n).is_finite() || n.is_infinite());
        }
    }
}
