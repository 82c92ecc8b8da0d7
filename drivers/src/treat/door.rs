//! Swinging-door compression (Bristol, 1990), in the form that bounds the error.
//!
//! From the last kept reading a cone of straight lines is drawn that pass within `deviation` of every reading since. As
//! long as the line to the newest reading lies in that cone the ones between need not be kept. The first one outside
//! closes the door: the reading before it is kept and the cone begins there. So every reading that is left out lies within
//! `deviation` of the straight line between its kept neighbours, in the order of arrival (the well-known form, which swings
//! two doors about pivots, promises twice that).
//!
//! What is no number, a change of validity, and a source time that does not move forward close the door and are kept. The
//! newest reading is held back for `max_gap` at most, by the gateway's clock and by the source's.

use std::time::Duration;

use tokio::time::Instant;

use super::filter::Outcome;
use super::{Compress, Reason};
use crate::{Reading, Time, Validity, Value};

#[derive(Debug)]
pub(super) struct Door {
    deviation: f64,
    max_gap: Duration,
    /// The last one that was kept.
    anchor: Option<Anchor>,
    /// The newest one, held back.
    held: Option<Reading>,
    /// Slopes, per nanosecond, that pass all since the anchor.
    cone: (f64, f64),
    /// A timer is set.
    armed: bool,
}

#[derive(Debug)]
struct Anchor {
    /// None if it was no number: nothing can be left out then.
    value: Option<f64>,
    raw: Value,
    validity: Validity,
    time: Time,
    /// When it was told, by the gateway's clock.
    at: Instant,
}

const OPEN: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

impl Door {
    pub(super) fn new(Compress { deviation, max_gap }: Compress) -> Self {
        Self { deviation, max_gap, anchor: None, held: None, cone: OPEN, armed: false }
    }

    pub(super) fn offer(&mut self, reading: Reading, now: Instant, told: &mut Vec<Reading>) -> Outcome {
        let Some(anchor) = &self.anchor else {
            self.keep(reading, now, told);
            return (None, None);
        };
        if anchor.validity == reading.validity && anchor.value.is_none() && anchor.raw == reading.value {
            return (Some(Reason::Compress), None); // bad as before
        }
        let newest = self.held.as_ref().map_or(anchor.time, |held| held.source_time);
        let number = number(&reading);
        if anchor.validity != reading.validity
            || number.is_none()
            || anchor.value.is_none()
            || reading.source_time <= newest
        {
            self.close(now, told);
            self.keep(reading, now, told);
            return (None, None);
        }
        let value = number.unwrap_or_default();
        if self.too_far(&reading) || !self.passes(value, reading.source_time) {
            self.close(now, told);
            if self.too_far(&reading) {
                self.keep(reading, now, told);
                return (None, None);
            }
        }
        self.narrow(value, reading.source_time);
        let left_out = self.held.replace(reading).map(|_| Reason::Compress);
        let timer = self.anchor.as_ref().filter(|_| !self.armed).map(|anchor| anchor.at + self.max_gap);
        self.armed = true;
        (left_out, timer)
    }

    /// The timer fired; when it is to fire again.
    pub(super) fn release(&mut self, now: Instant, told: &mut Vec<Reading>) -> Option<Instant> {
        self.armed = false;
        self.held.as_ref()?;
        let due = self.anchor.as_ref()?.at + self.max_gap;
        if now < due {
            self.armed = true;
            return Some(due);
        }
        self.close(now, told);
        None
    }

    pub(super) fn flush(&mut self, told: &mut Vec<Reading>) {
        if let Some(at) = self.anchor.as_ref().map(|anchor| anchor.at) {
            self.close(at, told);
        }
    }

    /// Keeps what is held back.
    fn close(&mut self, now: Instant, told: &mut Vec<Reading>) {
        if let Some(held) = self.held.take() {
            self.keep(held, now, told);
        }
    }

    fn keep(&mut self, reading: Reading, now: Instant, told: &mut Vec<Reading>) {
        self.anchor = Some(Anchor {
            value: number(&reading),
            raw: reading.value.clone(),
            validity: reading.validity,
            time: reading.source_time,
            at: now,
        });
        self.cone = OPEN;
        told.push(reading);
    }

    fn too_far(&self, reading: &Reading) -> bool {
        self.anchor.as_ref().is_some_and(|anchor| reading.source_time.since(anchor.time) > self.max_gap)
    }

    fn passes(&self, value: f64, time: Time) -> bool {
        let slope = self.slope(value, time);
        (self.cone.0..=self.cone.1).contains(&slope)
    }

    fn narrow(&mut self, value: f64, time: Time) {
        let (low, high) = (self.slope(value - self.deviation, time), self.slope(value + self.deviation, time));
        self.cone = (self.cone.0.max(low), self.cone.1.min(high));
    }

    fn slope(&self, value: f64, time: Time) -> f64 {
        let Some((anchor, from)) = self.anchor.as_ref().and_then(|anchor| Some((anchor, anchor.value?))) else {
            return f64::NAN;
        };
        #[expect(clippy::cast_precision_loss, reason = "at most `max_gap`, a day, in nanoseconds: exact")]
        let span = (time.0 - anchor.time.0) as f64;
        (value - from) / span
    }
}

/// The value, if a line can be drawn through it.
fn number(reading: &Reading) -> Option<f64> {
    matches!(reading.value, Value::Int(_) | Value::Float(_)).then(|| reading.value.as_f64()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{OwnStatus, Status, TagId};

    const SECOND: i64 = 1_000_000_000;
    const DEVIATION: f64 = 0.5;

    fn reading(second: i64, value: f64) -> Reading {
        let time = Time(second * SECOND);
        Reading::good(TagId(0), Value::Float(value), time, time)
    }

    fn kept(readings: &[Reading], max_gap: Duration) -> Vec<Reading> {
        let (mut door, mut told) = (Door::new(Compress { deviation: DEVIATION, max_gap }), Vec::new());
        let now = Instant::now();
        for reading in readings {
            door.offer(reading.clone(), now, &mut told);
        }
        door.flush(&mut told);
        told
    }

    fn hour(readings: &[Reading]) -> Vec<i64> {
        kept(readings, Duration::from_secs(3600)).iter().map(|kept| kept.source_time.0 / SECOND).collect()
    }

    #[test]
    fn a_straight_line_is_its_ends_and_a_corner_is_kept() {
        let line: Vec<_> = (0..100).map(|second| reading(second, second as f64 * 0.25)).collect();
        assert_eq!(hour(&line), [0, 99]);
        let corner: Vec<_> = (0..20).map(|second| reading(second, if second < 10 { 0.0 } else { 100.0 })).collect();
        assert_eq!(hour(&corner), [0, 9, 10, 19]);
    }

    #[test]
    fn a_change_of_validity_closes_the_door_and_bad_is_told_once() {
        let doubt = Validity::Uncertain(Status::Own(OwnStatus::Clamped));
        let bad = |second: i64| Reading::bad(TagId(0), Status::Modbus(2), Time(second * SECOND), Time(second * SECOND));
        let mut readings: Vec<_> = (0..9).map(|second| reading(second, 1.0)).collect();
        readings[3].validity = doubt;
        readings[4].validity = doubt;
        readings[5].validity = doubt;
        readings.extend([bad(9), bad(10), bad(11), reading(12, 1.0), reading(13, 1.0)]);
        assert_eq!(hour(&readings), [0, 2, 3, 5, 6, 8, 9, 12, 13]);
    }

    #[test]
    fn time_that_runs_backwards_closes_the_door() {
        let readings = [0, 1, 2, 3, 3, 1, 5, 6, 7].map(|second| reading(second, 1.0));
        assert_eq!(hour(&readings), [0, 3, 3, 1, 7]);
    }

    #[test]
    fn gaps_are_bounded_by_either_clock() {
        let flat: Vec<_> = (0..=100).map(|second| reading(second, 1.0)).collect();
        let kept = kept(&flat, Duration::from_secs(30));
        let seconds: Vec<_> = kept.iter().map(|kept| kept.source_time.0 / SECOND).collect();
        assert_eq!(seconds, [0, 30, 60, 90, 100]);

        let mut door = Door::new(Compress { deviation: DEVIATION, max_gap: Duration::from_secs(30) });
        let (start, mut told) = (Instant::now(), Vec::new());
        door.offer(reading(0, 1.0), start, &mut told);
        let due = start + Duration::from_secs(30);
        assert_eq!(door.offer(reading(1, 1.0), start, &mut told), (None, Some(due)));
        assert_eq!(door.offer(reading(2, 1.0), start, &mut told), (Some(Reason::Compress), None));
        assert_eq!(door.release(due, &mut told), None);
        assert_eq!(told.last().map(|last| last.source_time), Some(Time(2 * SECOND)), "nothing waits for the next one");
    }

    proptest! {
        /// The promise: no reading that was left out is further than `deviation` from the line between its neighbours.
        #[test]
        fn what_is_left_out_lies_on_the_line(steps in prop::collection::vec((1_i64..20, -1.5_f64..1.5), 1..200)) {
            let (mut second, mut value) = (0, 0.0);
            let readings: Vec<_> = steps.iter().map(|(pause, step)| {
                second += pause;
                value += step;
                reading(second, value)
            }).collect();
            let kept = kept(&readings, Duration::from_secs(500));
            prop_assert_eq!(kept.first(), readings.first());
            prop_assert_eq!(kept.last(), readings.last());
            for two in kept.windows(2) {
                let [from, to] = two else { continue };
                prop_assert!(from.source_time < to.source_time);
                let (v0, v1) = (from.value.as_f64().unwrap_or(f64::NAN), to.value.as_f64().unwrap_or(f64::NAN));
                let span = (to.source_time.0 - from.source_time.0) as f64;
                for between in readings.iter().filter(|it| from.source_time < it.source_time && it.source_time < to.source_time) {
                    let share = (between.source_time.0 - from.source_time.0) as f64 / span;
                    let error = (v0 + (v1 - v0) * share - between.value.as_f64().unwrap_or(f64::NAN)).abs();
                    prop_assert!(error <= DEVIATION + 1e-9, "{error} from the line");
                }
            }
        }
    }
}
