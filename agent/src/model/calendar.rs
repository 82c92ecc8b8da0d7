//! The shift plan, turned from the clock on the wall into instants.

use std::sync::Arc;

use gemba_drivers::Time;
use jiff::{ToSpan, civil, tz::TimeZone};

use crate::model::ShiftSpec;

/// The name of the one period a day has when no shifts are planned.
pub const WHOLE_DAY: &str = "day";

/// Tells what is planned at any instant.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    shifts: Vec<ShiftSpec>,
}

/// One occurrence of a shift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Its name.
    pub name: Arc<str>,
    /// Where it starts.
    pub from: Time,
    /// Where it ends; not part of it.
    pub to: Time,
}

/// A stretch of time in which the plan does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where it starts.
    pub from: Time,
    /// Where it ends; not part of it.
    pub until: Time,
    /// The shift it lies in; none between shifts.
    pub shift: Option<Shift>,
    /// Whether it is planned for production: in a shift and in none of its breaks.
    pub planned: bool,
}

impl Slot {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn covers(&self, at: Time) -> bool {
        self.from <= at && at < self.until
    }
}

impl Calendar {
    /// The plan `shifts`, in the wall-clock time of `zone`.
    #[must_use]
    pub fn new(zone: TimeZone, shifts: Vec<ShiftSpec>) -> Self {
        Self { zone, shifts }
    }

    /// The slot that covers `at`.
    ///
    /// Wall-clock times that a change of clock skips or repeats are taken as RFC 5545 does: the
    /// Berlin night shift from 22:00 to 06:00 lasts 7 h and 9 h on the two days.
    #[must_use]
    pub fn slot(&self, at: Time) -> Slot {
        let day = at.timestamp().to_zoned(self.zone.clone()).date();
        let mut from = self.instant(day.yesterday().unwrap_or(day), civil::Time::midnight());
        let mut until = self.instant(day.checked_add(2.days()).unwrap_or(day), civil::Time::midnight());
        // What bounds the slot: the nearest edges on both sides, of shifts and of the breaks inside them.
        let mut edge = |edge: Time| {
            if edge <= at {
                from = from.max(edge);
            } else {
                until = until.min(edge);
            }
        };
        let mut shift = None;
        let mut planned = false;
        for (occurrence, spec, date) in self.around(day) {
            edge(occurrence.from);
            edge(occurrence.to);
            if !(occurrence.from <= at && at < occurrence.to) {
                continue;
            }
            planned = true;
            for (begin, end) in spec.into_iter().flat_map(|spec| self.breaks(spec, date)) {
                edge(begin);
                edge(end);
                planned &= !(begin <= at && at < end);
            }
            shift = Some(occurrence);
        }
        Slot { from, until, shift, planned }
    }

    /// The shifts that may touch `day`, with the date each starts on.
    fn around(&self, day: civil::Date) -> impl Iterator<Item = (Shift, Option<&ShiftSpec>, civil::Date)> {
        let days = [day.yesterday().ok(), Some(day), day.tomorrow().ok()].into_iter().flatten();
        days.flat_map(move |date| {
            let whole_day = self.shifts.is_empty().then(|| {
                let next = date.tomorrow().unwrap_or(date);
                let midnight = civil::Time::midnight();
                let shift = Shift {
                    name: WHOLE_DAY.into(),
                    from: self.instant(date, midnight),
                    to: self.instant(next, midnight),
                };
                (shift, None, date)
            });
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
            let shifts = self.shifts.iter().filter(move |spec| spec.days[weekday]).map(move |spec| {
                let shift = Shift {
                    name: spec.name.clone(),
                    from: self.instant(date, spec.start),
                    to: self.instant(after(date, spec.end, spec.start), spec.end),
                };
                (shift, Some(spec), date)
            });
            whole_day.into_iter().chain(shifts)
        })
    }

    fn breaks(&self, spec: &ShiftSpec, date: civil::Date) -> impl Iterator<Item = (Time, Time)> {
        spec.breaks.iter().map(move |&(begin, end)| {
            // A break of a night shift may start, and may end, on the day after.
            let begins = if begin < spec.start { date.tomorrow().unwrap_or(date) } else { date };
            (self.instant(begins, begin), self.instant(after(begins, end, begin), end))
        })
    }

    fn instant(&self, date: civil::Date, time: civil::Time) -> Time {
        self.zone.to_ambiguous_zoned(date.to_datetime(time)).compatible().map_or(Time(0), |at| at.timestamp().into())
    }
}

/// The day on which a span that starts on `date` at `start` reaches `end`.
fn after(date: civil::Date, end: civil::Time, start: civil::Time) -> civil::Date {
    if end <= start { date.tomorrow().unwrap_or(date) } else { date }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::shift;

    fn berlin(shifts: Vec<ShiftSpec>) -> Calendar {
        Calendar::new(TimeZone::get("Europe/Berlin").expect("bundled"), shifts)
    }

    fn at(text: &str) -> Time {
        text.parse().expect("an instant")
    }

    #[test]
    fn a_slot_is_bounded_by_breaks_and_shift_ends() {
        let plan = berlin(vec![shift("early", "06:00", "14:00", &[("10:00", "10:30")])]);
        let slot = plan.slot(at("2026-03-02T07:00:00Z"));
        assert_eq!(slot.shift.as_ref().map(|shift| &*shift.name), Some("early"));
        assert_eq!((slot.from, slot.until), (at("2026-03-02T05:00:00Z"), at("2026-03-02T09:00:00Z")));
        assert!(slot.planned);
        let pause = plan.slot(at("2026-03-02T09:00:00Z"));
        assert!(!pause.planned && pause.shift.is_some());
        assert_eq!(pause.until, at("2026-03-02T09:30:00Z"));
        let night = plan.slot(at("2026-03-02T13:00:00Z"));
        assert_eq!((night.shift, night.planned, night.until), (None, false, at("2026-03-03T05:00:00Z")));
    }

    #[test]
    fn night_shifts_and_their_breaks_cross_midnight() {
        let plan = berlin(vec![shift("night", "22:00", "06:00", &[("23:45", "00:15"), ("02:00", "02:30")])]);
        let slot = plan.slot(at("2026-06-01T22:05:00Z")); // 00:05 in Berlin
        assert!(!slot.planned);
        assert_eq!((slot.from, slot.until), (at("2026-06-01T21:45:00Z"), at("2026-06-01T22:15:00Z")));
        assert!(!plan.slot(at("2026-06-02T00:10:00Z")).planned);
        assert!(plan.slot(at("2026-06-02T01:00:00Z")).planned);
    }

    #[test]
    fn days_are_the_days_on_which_a_shift_starts() {
        let mut night = shift("night", "22:00", "06:00", &[]);
        night.days = [false, false, false, false, true, false, false]; // Friday
        let plan = berlin(vec![night]);
        assert!(plan.slot(at("2026-06-06T02:00:00Z")).planned, "Saturday morning belongs to Friday's shift");
        assert!(!plan.slot(at("2026-06-05T02:00:00Z")).planned);
    }

    #[test]
    fn without_shifts_each_local_day_is_one_period() {
        let slot = berlin(vec![]).slot(at("2026-03-29T12:00:00Z"));
        let shift = slot.shift.expect("a day");
        assert_eq!((&*shift.name, slot.planned), (WHOLE_DAY, true));
        assert_eq!(shift.to.since(shift.from).as_secs(), 23 * 3600, "the clocks go forward");
    }

    #[test]
    fn published_dst_night_shift() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/vectors/quality.json")).expect("JSON");
        let vector = vectors
            .as_array()
            .and_then(|all| all.iter().find(|vector| vector["id"] == "dst-night-shift"))
            .expect("the vector");
        let plan = berlin(vec![shift("night", "22:00", "06:00", &[])]);
        for case in vector["cases"].as_array().expect("cases") {
            let start = case["start"].as_str().expect("a date");
            let shift = plan.slot(at(&format!("{start}T23:00:00Z"))).shift.expect("the night shift");
            assert_eq!(Some(shift.to.since(shift.from).as_secs() / 3600), case["hours"].as_u64(), "{start}");
        }
    }
}
