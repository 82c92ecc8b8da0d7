//! A baseline by median and median absolute deviation, over a bounded window.

use std::collections::VecDeque;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::measure::{Point, bounded};
use super::spec::Window;

/// The most readings a window holds: 8 kB of them.
pub const MOST_READINGS: u32 = 500;

/// 0.75 quantile of the standard normal distribution: MAD / this estimates its standard deviation.
/// Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993), 3.3.
const MAD_OF_NORMAL: f64 = 0.6745;

/// What a mean absolute deviation is multiplied with for the same, sqrt(pi / 2), where the MAD is zero.
/// IBM Cognos Analytics, "Modified z score".
const OF_MEAN_DEVIATION: f64 = 1.253_314;

/// Readings of a window, in the order in which they came, and their values in order of size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "VecDeque<Point>", into = "VecDeque<Point>")]
pub struct Sample {
    points: VecDeque<Point>,
    sorted: Vec<f64>,
}

impl From<VecDeque<Point>> for Sample {
    fn from(points: VecDeque<Point>) -> Self {
        let mut sorted: Vec<_> = points.iter().map(|point| point.value).collect();
        sorted.sort_by(f64::total_cmp);
        Self { points, sorted }
    }
}

impl From<Sample> for VecDeque<Point> {
    fn from(sample: Sample) -> Self {
        sample.points
    }
}

impl Sample {
    /// How many readings it holds.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Takes a reading in, and lets go of those that are too old for it.
    ///
    /// A window of time is divided into [`MOST_READINGS`] slots, and of each the first reading counts, so that fast
    /// readings need no more room.
    pub fn enter(&mut self, window: Window, new: Point) {
        let most = match window {
            Window::Readings(most) => most.min(MOST_READINGS),
            Window::Time(long) => {
                while self.points.front().is_some_and(|old| new.at.since(old.at) > long) {
                    self.drop_oldest();
                }
                let slot = i64::try_from(long.as_nanos()).unwrap_or(i64::MAX) / i64::from(MOST_READINGS);
                let slot_of = |at: Time| at.0.div_euclid(slot.max(1));
                if self.points.back().is_some_and(|last| slot_of(last.at) == slot_of(new.at)) {
                    return;
                }
                MOST_READINGS
            }
        };
        while self.len() >= most.max(1) as usize {
            self.drop_oldest();
        }
        self.points.push_back(new);
        let place = self.place(new.value);
        self.sorted.insert(place, new.value);
    }

    fn drop_oldest(&mut self) {
        let Some(old) = self.points.pop_front() else { return };
        let place = self.place(old.value);
        self.sorted.remove(place);
    }

    fn place(&self, value: f64) -> usize {
        self.sorted.partition_point(|held| held.total_cmp(&value).is_lt())
    }

    /// The median, and an estimate of the standard deviation that outliers hardly move: MAD / 0.6745. Where more than half
    /// of the readings are alike the MAD is zero, and the mean absolute deviation from the median takes its place; where
    /// all are alike that is zero, too. Without readings both are zero.
    pub fn center_and_spread(&self) -> (f64, f64) {
        let median = middle(self.sorted.iter().copied(), self.len());
        let mad = middle(self.deviations(median), self.len());
        if mad > 0.0 {
            return (median, bounded(mad / MAD_OF_NORMAL));
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 500")]
        let readings = self.len().max(1) as f64;
        let mean: f64 = self.deviations(median).map(|deviation| deviation / readings).sum();
        (median, bounded(OF_MEAN_DEVIATION * mean))
    }

    /// How far each is from `center`, the nearest first.
    fn deviations(&self, center: f64) -> impl Iterator<Item = f64> {
        let (below, above) = self.sorted.split_at(self.sorted.partition_point(|value| *value < center));
        let mut below = below.iter().rev().map(move |value| bounded(center - value)).peekable();
        let mut above = above.iter().map(move |value| bounded(value - center)).peekable();
        std::iter::from_fn(move || match (below.peek(), above.peek()) {
            (Some(low), Some(high)) if low <= high => below.next(),
            (Some(_), None) => below.next(),
            _ => above.next(),
        })
    }
}

/// The middle one of `count` numbers in order of size, or half-way between the two in the middle.
fn middle(mut ascending: impl Iterator<Item = f64>, count: usize) -> f64 {
    let Some(lower) = ascending.nth(count.saturating_sub(1) / 2) else { return 0.0 };
    match ascending.next() {
        Some(upper) if count.is_multiple_of(2) => lower / 2.0 + upper / 2.0,
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn sample(values: &[f64]) -> Sample {
        let mut sample = Sample::default();
        for (at, value) in (0..).zip(values) {
            sample.enter(Window::Readings(MOST_READINGS), Point { at: Time(at), value: *value });
        }
        sample
    }

    /// Leys et al., "Detecting outliers", Journal of Experimental Social Psychology 49 (2013), 764-766: the median of the
    /// series is 7, its MAD 3.5, which times 1.4826 is 5.1891.
    #[test]
    fn the_series_of_leys_has_its_published_figures() {
        let (median, spread) = sample(&[1.0, 3.0, 3.0, 6.0, 8.0, 10.0, 10.0, 1000.0]).center_and_spread();
        assert_eq!((median, spread), (7.0, 3.5 / 0.6745));
        assert!((spread - 5.1891).abs() < 1e-3, "{spread}");
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_twice_gives(values in prop::collection::vec(-50..50_i32, 1..80), window in 1..40_u32) {
            let mut sample = Sample::default();
            for (at, value) in (0..).zip(&values) {
                sample.enter(Window::Readings(window), Point { at: Time(at), value: f64::from(*value) });
            }
            let median = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
            };
            let held: Vec<_> = values.iter().rev().take(window as usize).map(|value| f64::from(*value)).collect();
            let center = median(held.clone());
            let mad = median(held.iter().map(|value| (value - center).abs()).collect());
            let (found, spread) = sample.center_and_spread();
            prop_assert_eq!(found, center);
            if mad > 0.0 {
                prop_assert_eq!(spread, mad / 0.6745);
            }
        }
    }

    #[test]
    fn where_half_are_alike_the_mean_deviation_counts() {
        // Seven of 10 and one of 100: the median is 10, the MAD 0, the mean deviation 90 / 8.
        let (median, spread) = sample(&[10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 100.0]).center_and_spread();
        assert_eq!((median, spread), (10.0, 1.253_314 * 11.25));
        assert_eq!(sample(&[4.0; 9]).center_and_spread(), (4.0, 0.0), "all alike");
        assert_eq!(Sample::default().center_and_spread(), (0.0, 0.0));
    }

    #[test]
    fn a_window_of_readings_holds_the_last() {
        let mut sample = Sample::default();
        for at in 0..10_i64 {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            sample.enter(Window::Readings(4), Point { at: Time(at), value: -(at as f64) });
        }
        assert_eq!(sample.sorted, [-9.0, -8.0, -7.0, -6.0]);
        sample.enter(Window::Readings(2), Point { at: Time(10), value: -7.5 });
        assert_eq!(sample.sorted, [-9.0, -7.5], "a smaller window lets go of more");
    }

    #[test]
    fn a_window_of_time_is_bounded_and_spans_it() {
        let mut sample = Sample::default();
        let window = Window::Time(Duration::from_secs(3600));
        for ms in (0..2 * 3_600_000).step_by(100) {
            sample.enter(
                window,
                Point { at: Time::from_millis(ms), value: f64::from(u32::try_from(ms % 7).unwrap_or(0)) },
            );
        }
        assert_eq!(sample.len(), MOST_READINGS as usize);
        let oldest = sample.points.front().expect("not empty").at;
        assert_eq!(oldest, Time::from_millis(3_600_000), "500 slots of 7.2 s");
        sample.enter(window, Point { at: Time::from_millis(86_400_000), value: 1.0 });
        assert_eq!(sample.sorted, [1.0], "a day later all are too old");
    }
}
