//! Cycle times, as an OTel exponential histogram.

use crate::record::CycleHistogram;

/// 2^(1/8) from one bucket to the next: 9 % apart, from a millisecond to an hour in 175 buckets.
pub(super) const SCALE: i32 = 3;

/// Buckets are kept within this many of the first one seen; the edge buckets take the rest.
const MOST_BUCKETS: i32 = 320;

impl CycleHistogram {
    /// Adds `cycles` cycles of `seconds` each.
    pub(super) fn observe(&mut self, seconds: f64, cycles: u64) {
        if cycles == 0 {
            return;
        }
        self.scale = SCALE;
        self.min = if self.count == 0 { seconds } else { self.min.min(seconds) };
        self.max = self.max.max(seconds);
        self.count += cycles;
        #[expect(clippy::cast_precision_loss, reason = "a count of parts")]
        let weight = cycles as f64;
        self.sum += seconds * weight;
        if seconds <= 0.0 {
            self.zero_count += cycles;
            return;
        }
        *self.bucket(index(seconds)) += cycles;
    }

    fn bucket(&mut self, index: i32) -> &mut u64 {
        if self.buckets.is_empty() {
            self.offset = index;
        }
        let len = i32::try_from(self.buckets.len()).unwrap_or(MOST_BUCKETS);
        let lowest = self.offset + len - MOST_BUCKETS;
        let index = index.clamp(lowest.min(self.offset), self.offset + MOST_BUCKETS - 1);
        if index < self.offset {
            let missing = usize::try_from(self.offset - index).unwrap_or(0);
            self.buckets.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = index;
        }
        let place = usize::try_from(index - self.offset).unwrap_or(0);
        if place >= self.buckets.len() {
            self.buckets.resize(place + 1, 0);
        }
        &mut self.buckets[place]
    }
}

/// The bucket that `seconds`, above zero, belong to. OTel data model, "All Scales: Use the Logarithm Function":
/// ceil(log_base(value)) - 1.
#[expect(clippy::cast_possible_truncation, reason = "the logarithm of a finite f64 is small")]
pub(super) fn index(seconds: f64) -> i32 {
    (seconds.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_within_its_bucket() {
        for seconds in [0.001, 0.2, 0.999, 1.0, 1.2, 2.0, 3600.0] {
            let mut histogram = CycleHistogram::default();
            histogram.observe(seconds, 3);
            let base = 2f64.powf(2f64.powi(-histogram.scale));
            let low = base.powi(histogram.offset);
            let high = base.powi(histogram.offset + 1);
            assert!(low < seconds * (1.0 + 1e-12) && seconds <= high * (1.0 + 1e-12), "{low} < {seconds} <= {high}");
            assert_eq!((histogram.count, histogram.buckets.as_slice()), (3, [3].as_slice()));
        }
    }

    #[test]
    fn it_stays_bounded_and_loses_nothing() {
        let mut histogram = CycleHistogram::default();
        for exponent in -300..300 {
            histogram.observe(2f64.powi(exponent), 1);
        }
        histogram.observe(0.0, 2);
        assert_eq!(histogram.count, 602);
        assert_eq!(histogram.buckets.iter().sum::<u64>() + histogram.zero_count, 602);
        assert!(histogram.buckets.len() <= 320, "{}", histogram.buckets.len());
    }
}
