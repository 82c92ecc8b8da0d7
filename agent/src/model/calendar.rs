//! The shift plan, turned from the clock on the wall into instants.

use std::sync::Arc;

use gemba_drivers::Time;
use jiff::{ToSpan, civil, tz::TimeZone};

use crate::model::{ExceptionalDay, ShiftSpec};

/// The name of the one period a day has when no shifts are planned.
pub const WHOLE_DAY: &str = "day";

/// How many days a gap between shifts is followed; a longer one is cut, which changes no figure.
const LONGEST_GAP: usize = 400;

/// Tells what is planned at any instant.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    shifts: Vec<ShiftSpec>,
    /// In order of date.
    exceptions: Vec<ExceptionalDay>,
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

/// The nearest places on both sides of an instant at which the plan changes.
struct Edges {
    at: Time,
    before: Option<Time>,
    after: Option<Time>,
}

impl Edges {
    fn see(&mut self, edge: Time) {
        if edge <= self.at {
            self.before = Some(self.before.map_or(edge, |before| before.max(edge)));
        } else {
            self.after = Some(self.after.map_or(edge, |after| after.min(edge)));
        }
    }
}

impl Calendar {
    /// The plan `shifts`, in the wall-clock time of `zone`; a day of `exceptions` has its own shifts instead. Without any
    /// `shifts` each other day is one period.
    #[must_use]
    pub fn new(zone: TimeZone, shifts: Vec<ShiftSpec>, mut exceptions: Vec<ExceptionalDay>) -> Self {
        exceptions.sort_by_key(|day| day.date);
        Self { zone, shifts, exceptions }
    }

    /// The time zone it is written in.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The slot that covers `at`. Slots of one calendar leave no holes and never overlap.
    ///
    /// Wall-clock times that a change of clock skips or repeats are taken as RFC 5545 does: the
    /// Berlin night shift from 22:00 to 06:00 lasts 7 h and 9 h on the two days.
    #[must_use]
    pub fn slot(&self, at: Time) -> Slot {
        let day = at.timestamp().to_zoned(self.zone.clone()).date();
        let mut edges = Edges { at, before: None, after: None };
        let (mut shift, mut planned) = (None, false);
        // A shift lasts a day at most, so those that may cover `at` started yesterday or today.
        for date in [day.yesterday().ok(), Some(day), day.tomorrow().ok()].into_iter().flatten() {
            for (occurrence, spec) in self.on(date) {
                edges.see(occurrence.from);
                edges.see(occurrence.to);
                if !(occurrence.from <= at && at < occurrence.to) {
                    continue;
                }
                planned = true;
                for (begin, end) in spec.into_iter().flat_map(|spec| self.breaks(spec, date)) {
                    edges.see(begin);
                    edges.see(end);
                    planned &= !(begin <= at && at < end);
                }
                shift = Some(occurrence);
            }
        }
        let from = edges.before.unwrap_or_else(|| self.far(day.series((-1).days()), &mut edges, |edges| edges.before));
        let until = edges.after.unwrap_or_else(|| self.far(day.series(1.days()), &mut edges, |edges| edges.after));
        Slot { from, until, shift, planned }
    }

    /// Where a gap ends that is longer than the days next to it, such as a weekend or the holidays.
    fn far(&self, days: civil::DateSeries, edges: &mut Edges, found: fn(&Edges) -> Option<Time>) -> Time {
        let mut last = civil::Date::ZERO;
        for date in days.skip(2).take(LONGEST_GAP) {
            last = date;
            for (occurrence, _) in self.on(date) {
                edges.see(occurrence.from);
                edges.see(occurrence.to);
            }
            if let Some(edge) = found(edges) {
                return edge;
            }
        }
        self.instant(last, civil::Time::midnight())
    }

    /// The shifts that start on `date`.
    fn on(&self, date: civil::Date) -> impl Iterator<Item = (Shift, Option<&ShiftSpec>)> {
        let exception = self.exceptions.binary_search_by_key(&date, |day| day.date).ok();
        let exception = exception.map(|at| self.exceptions[at].shifts.as_slice());
        let whole_day = (exception.is_none() && self.shifts.is_empty()).then(|| {
            let (midnight, next) = (civil::Time::midnight(), date.tomorrow().unwrap_or(date));
            let shift =
                Shift { name: WHOLE_DAY.into(), from: self.instant(date, midnight), to: self.instant(next, midnight) };
            (shift, None)
        });
        let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
        let shifts = exception.unwrap_or(&self.shifts).iter();
        let shifts = shifts.filter(move |spec| exception.is_some() || spec.days[weekday]).map(move |spec| {
            let shift = Shift {
                name: spec.name.clone(),
                from: self.instant(date, spec.start),
                to: self.instant(after(date, spec.end, spec.start), spec.end),
            };
            (shift, Some(spec))
        });
        whole_day.into_iter().chain(shifts)
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
        Calendar::new(TimeZone::get("Europe/Berlin").expect("bundled"), shifts, vec![])
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

    fn exception(date: &str, shifts: Vec<ShiftSpec>) -> ExceptionalDay {
        ExceptionalDay { date: date.parse().expect("a date"), name: None, shifts }
    }

    #[test]
    fn a_gap_reaches_from_shift_to_shift_whatever_is_asked() {
        let mut early = shift("early", "06:00", "14:00", &[]);
        early.days = [true, true, true, true, true, false, false];
        let closed = (24..=31).map(|day| exception(&format!("2026-12-{day}"), vec![])).collect();
        let plan = Calendar { exceptions: closed, ..berlin(vec![early]) };
        let gap =
            Slot { from: at("2026-12-23T13:00:00Z"), until: at("2027-01-01T05:00:00Z"), shift: None, planned: false };
        for asked in ["2026-12-23T13:00:00Z", "2026-12-24T08:00:00Z", "2026-12-27T12:00:00Z", "2027-01-01T04:59:59Z"] {
            assert_eq!(plan.slot(at(asked)), gap, "{asked}");
        }
    }

    #[test]
    fn no_shift_starts_on_a_holiday_and_the_one_before_ends_as_planned() {
        let night = shift("night", "22:00", "06:00", &[]);
        let plan = Calendar { exceptions: vec![exception("2026-12-25", vec![])], ..berlin(vec![night]) };
        assert!(plan.slot(at("2026-12-25T04:00:00Z")).planned, "the night of the 24th ends at six");
        let holiday = plan.slot(at("2026-12-25T22:00:00Z"));
        assert_eq!((holiday.shift, holiday.planned), (None, false));
        assert_eq!((holiday.from, holiday.until), (at("2026-12-25T05:00:00Z"), at("2026-12-26T21:00:00Z")));
    }

    #[test]
    fn an_exceptional_day_has_its_own_shifts() {
        let short = shift("early", "06:00", "10:00", &[("08:00", "08:15")]);
        let plan = Calendar {
            exceptions: vec![exception("2026-12-24", vec![short])],
            ..berlin(vec![shift("early", "06:00", "14:00", &[])])
        };
        let eve = plan.slot(at("2026-12-24T08:30:00Z"));
        assert_eq!((eve.from, eve.until, eve.planned), (at("2026-12-24T07:15:00Z"), at("2026-12-24T09:00:00Z"), true));
        assert!(!plan.slot(at("2026-12-24T07:10:00Z")).planned, "its own break");
        assert!(!plan.slot(at("2026-12-24T12:00:00Z")).planned && plan.slot(at("2026-12-23T12:00:00Z")).planned);
    }

    #[test]
    fn without_shifts_a_holiday_is_a_day_not_planned() {
        let plan = Calendar { exceptions: vec![exception("2026-12-25", vec![])], ..berlin(vec![]) };
        let holiday = plan.slot(at("2026-12-25T12:00:00Z"));
        assert_eq!((holiday.shift, holiday.planned), (None, false));
        assert_eq!((holiday.from, holiday.until), (at("2026-12-24T23:00:00Z"), at("2026-12-25T23:00:00Z")));
        assert!(plan.slot(at("2026-12-26T12:00:00Z")).planned);
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
