//! A baseline by exponentially weighted mean and variance.

use serde::{Deserialize, Serialize};

use super::measure::bounded;

/// Mean and variance of what came so far, the newest with the most weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    readings: u32,
    mean: f64,
    variance: f64,
}

impl Ewma {
    /// How many readings it has taken in.
    pub fn len(&self) -> usize {
        self.readings as usize
    }

    /// Takes a reading in.
    ///
    /// Finch, "Incremental calculation of weighted mean and variance" (University of Cambridge, 2009), 9. The n-th reading
    /// weighs at least 1/n: so the first few give their plain mean and (population) variance, instead of a variance that
    /// grows from zero.
    pub fn enter(&mut self, weight: f64, value: f64) {
        self.readings = self.readings.saturating_add(1);
        let weight = weight.max(1.0 / f64::from(self.readings));
        let difference = bounded(value - self.mean);
        let increment = weight * difference;
        self.mean = bounded(self.mean + increment);
        self.variance = bounded((1.0 - weight) * bounded(self.variance + bounded(difference * increment)));
    }

    /// Mean and standard deviation.
    pub fn center_and_spread(&self) -> (f64, f64) {
        (self.mean, self.variance.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_readings_give_their_plain_mean_and_variance() {
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, population standard deviation 2.
        let mut ewma = Ewma::default();
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            ewma.enter(0.1, value);
        }
        let (mean, deviation) = ewma.center_and_spread();
        assert!((mean - 5.0).abs() < 1e-12 && (deviation - 2.0).abs() < 1e-12, "{mean} {deviation}");
    }

    #[test]
    fn later_ones_weigh_what_is_said() {
        let mut ewma = Ewma { readings: 4, mean: 10.0, variance: 4.0 };
        ewma.enter(0.5, 14.0);
        // The difference is 4, its half 2: mean 12, variance (4 + 4 * 2) / 2.
        assert_eq!(ewma, Ewma { readings: 5, mean: 12.0, variance: 6.0 });
        ewma.enter(1.0, 3.0);
        assert_eq!(ewma, Ewma { readings: 6, mean: 3.0, variance: 0.0 });
    }
}
