//! The slots of a calendar, worked out once: an instant costs time zone arithmetic there and a binary search here.

use std::time::Duration;

use gemba_drivers::Time;
use jiff::tz::TimeZone;

use crate::model::calendar::{Calendar, Slot};

/// What is asked farther than this from what is held begins anew, so that a reading with a mad time costs no more than
/// another.
const FAR: Duration = Duration::from_secs(100 * 86_400);

/// A calendar with the slots that it was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    calendar: Calendar,
    /// In order, each where the one before it ends.
    slots: Vec<Slot>,
}

impl Plan {
    /// Nothing is worked out yet.
    #[must_use]
    pub fn new(calendar: Calendar) -> Self {
        Self { calendar, slots: Vec::new() }
    }

    /// The slots that share time with the span from `from` to `to` (not part of it), whole and in order: they leave no
    /// hole and never overlap. None when the span is empty.
    pub fn slots(&mut self, from: Time, to: Time) -> &[Slot] {
        if to <= from {
            return &[];
        }
        self.reach(from, to);
        let first = self.slots.partition_point(|slot| slot.until <= from);
        let end = self.slots.partition_point(|slot| slot.from < to);
        &self.slots[first..end]
    }

    /// The slot that covers `at`.
    pub fn slot(&mut self, at: Time) -> &Slot {
        self.reach(at, Time(at.0.saturating_add(1)));
        let place = self.slots.partition_point(|slot| slot.until <= at);
        &self.slots[place.min(self.slots.len() - 1)] // never empty after `reach`
    }

    /// Of the clock on the plant's wall.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        self.calendar.zone()
    }

    /// Lets go what ends at or before `before`. It can still be asked for, and is worked out again then.
    pub fn forget(&mut self, before: Time) {
        let gone = self.slots.partition_point(|slot| slot.until <= before);
        self.slots.drain(..gone);
    }

    /// How many slots are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.slots.len()
    }

    /// Works out what is missing from `from` to `to`.
    fn reach(&mut self, from: Time, to: Time) {
        if let (Some(first), Some(last)) = (self.slots.first(), self.slots.last())
            && (from > last.until + FAR || to + FAR < first.from)
        {
            self.slots.clear();
        }
        if self.slots.is_empty() {
            self.slots.push(self.calendar.slot(from));
        }
        let begins = self.slots[0].from;
        if from < begins {
            let earlier =
                chain(&self.calendar, from, begins).map(|slot| Slot { until: slot.until.min(begins), ..slot });
            let earlier: Vec<_> = earlier.collect();
            self.slots.splice(..0, earlier);
        }
        let ends = self.slots[self.slots.len() - 1].until;
        self.slots.extend(chain(&self.calendar, ends, to).map(|slot| Slot { from: slot.from.max(ends), ..slot }));
    }
}

/// The slots from the one that covers `from` to the one that reaches `to`.
fn chain(calendar: &Calendar, from: Time, to: Time) -> impl Iterator<Item = Slot> {
    let mut at = from;
    std::iter::from_fn(move || {
        let slot = (at < to).then(|| calendar.slot(at))?;
        // At the end of all time a slot ends before it begins.
        (slot.until > at).then(|| {
            at = slot.until;
            slot
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::shift;
    use crate::model::{ExceptionalDay, ShiftSpec};

    const HOUR: i64 = 3_600_000_000_000;

    fn at(text: &str) -> Time {
        text.parse().expect("an instant")
    }

    /// A plan with a gap each evening, a free weekend but for the night shift of Sunday, breaks over midnight, a holiday and a
    /// short day.
    fn calendar(zone: &str, shifts: bool) -> Calendar {
        let on = |days: [u8; 7], shift: ShiftSpec| ShiftSpec { days: days.map(|on| on == 1), ..shift };
        let week = vec![
            on([1, 1, 1, 1, 1, 0, 0], shift("early", "06:00", "14:00", &[("10:00", "10:30"), ("12:00", "12:15")])),
            on([1, 1, 1, 1, 0, 0, 0], shift("late", "14:00", "20:30", &[])),
            on([1, 1, 1, 1, 0, 0, 1], shift("night", "22:00", "06:00", &[("23:45", "00:15"), ("02:10", "02:50")])),
        ];
        let day = |date: &str, shifts| ExceptionalDay { date: date.parse().expect("a date"), name: None, shifts };
        let exceptions =
            vec![day("2026-12-25", vec![]), day("2026-12-24", vec![shift("early", "07:00", "11:00", &[])])];
        let zone = TimeZone::get(zone).expect("bundled");
        Calendar::new(zone, if shifts { week } else { Vec::new() }, exceptions)
    }

    /// Half of the clocks there are turned at odd times: by half an hour, or at midnight.
    const ZONES: [&str; 4] = ["Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "UTC"];

    #[test]
    fn it_is_the_calendar_all_along_the_changes_of_clock() {
        let days = ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z", "2026-04-04T00:00:00Z", "2026-09-05T12:00:00Z"];
        for (zone, shifts) in ZONES.into_iter().flat_map(|zone| [(zone, true), (zone, false)]) {
            let calendar = calendar(zone, shifts);
            let mut plan = Plan::new(calendar.clone());
            for start in days.map(at) {
                for minute in (0..36 * 60).step_by(5) {
                    let now = start + Duration::from_secs(minute * 60);
                    assert_eq!(*plan.slot(now), calendar.slot(now), "{zone} {now}");
                }
            }
        }
    }

    #[test]
    fn what_is_asked_comes_whole_in_order_and_without_holes() {
        let mut plan = Plan::new(calendar("Europe/Berlin", true));
        let (from, to) = (at("2026-12-23T05:30:00Z"), at("2026-12-28T05:30:00Z"));
        let slots = plan.slots(from, to);
        assert!(slots[0].covers(from) && slots[slots.len() - 1].until >= to);
        assert!(slots.windows(2).all(|pair| pair[0].until == pair[1].from), "{slots:?}");
        let planned: Duration = slots.iter().filter(|slot| slot.planned).map(|slot| slot.until.since(slot.from)).sum();
        // Wednesday early and late, its night less two breaks, the short Thursday, the night of Sunday less two, and Monday's
        // early shift up to its first break.
        assert_eq!(planned.as_secs() / 60, (8 * 60 - 45) + 390 + (480 - 70) + 240 + (480 - 70) + 240);
        assert!(plan.slots(to, to).is_empty() && plan.slots(to, from).is_empty());
    }

    #[test]
    fn it_holds_no_more_than_it_must() {
        let mut plan = Plan::new(calendar("Europe/Berlin", true));
        let start = at("2026-01-01T00:00:00Z");
        let mut most = 0;
        for hour in 0..8_760 {
            let now = start + Duration::from_secs(hour * 3600);
            plan.slots(now - Duration::from_secs(86_400), now);
            plan.forget(now - Duration::from_secs(86_400));
            most = most.max(plan.held());
        }
        assert!(most < 20, "{most}");
        plan.slot(Time(0));
        assert_eq!(plan.held(), 1, "a mad time begins anew");
        for end in [i64::MIN, i64::MAX] {
            plan.slot(Time(end));
            plan.slots(Time(end.saturating_sub(HOUR)), Time(end.saturating_add(HOUR)));
            assert!(plan.held() < 20, "the end of all time is reached");
        }
    }

    proptest! {
        #[test]
        fn it_is_the_calendar_whatever_is_asked_in_any_order(
            zone in 0..ZONES.len(),
            shifts: bool,
            asked in proptest::collection::vec((0_i64..9_500 * HOUR, 0_i64..200 * HOUR, any::<bool>()), 1..8),
        ) {
            let calendar = calendar(ZONES[zone], shifts);
            let mut plan = Plan::new(calendar.clone());
            let start = at("2026-01-01T00:00:00Z");
            for (from, long, forget) in asked {
                let (from, to) = (Time(start.0 + from), Time(start.0 + from + long));
                for slot in plan.slots(from, to) {
                    prop_assert_eq!(slot, &calendar.slot(slot.from));
                    prop_assert_eq!(slot, &calendar.slot(Time(slot.until.0 - 1)));
                }
                prop_assert_eq!(plan.slot(from), &calendar.slot(from));
                if forget {
                    plan.forget(from);
                }
                prop_assert!(plan.slots.windows(2).all(|pair| pair[0].until == pair[1].from));
            }
        }
    }
}
