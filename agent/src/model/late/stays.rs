//! Which unit was at a station: from when on, until the next one came.
//!
//! Facts like those of a [`Timeline`](crate::model::timeline::Timeline): what is told late takes its place among them, and
//! holds until what is known of later. So it does not matter in what order they came.

use gemba_drivers::{Reading, Time};
use serde::{Deserialize, Serialize};

use super::Unit;
use crate::model::packed;
use crate::model::visit;

/// Who was there, from as long ago as they are held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stays {
    #[serde(with = "packed::stays")]
    held: Vec<Stay>,
    /// Since when nobody knows who is there, because a bad reading said so.
    lost: Option<Time>,
}

/// A unit is there, until the next one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// Since when.
    pub from: Time,
    /// Who.
    pub unit: Unit,
    /// Something happened to it: where it is made, the last part was counted; where it is inspected, it was rejected.
    pub mark: Option<Time>,
}

impl Stays {
    /// What a tag told of who is there. Returns of whom something is known now that was not before.
    pub fn tell(&mut self, reading: &Reading) -> Vec<Unit> {
        let at = reading.source_time.min(reading.received_time);
        if reading.validity.is_bad() {
            self.lost.get_or_insert(at);
            return self.say(at, Unit::NOBODY);
        }
        // What a device held before a gap says nothing about the gap, unless history says that it did.
        let at = match self.lost {
            Some(lost) if at <= lost && reading.backfilled => lost,
            Some(lost) if at <= lost => reading.received_time,
            _ => at,
        };
        self.lost = None;
        self.say(at, visit::word(&reading.value).map_or(Unit::NOBODY, |name| Unit::of(&name)))
    }

    /// Whether nobody knows who is there.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    fn say(&mut self, at: Time, unit: Unit) -> Vec<Unit> {
        let place = self.held.partition_point(|stay| stay.from <= at);
        let before = place.checked_sub(1).map(|before| self.held[before]);
        if before.map_or(Unit::NOBODY, |stay| stay.unit) == unit {
            return Vec::new();
        }
        // What happened from `at` on happened to the one that came.
        let mark = before.and_then(|stay| stay.mark).filter(|&mark| mark >= at);
        if let Some(left) = place.checked_sub(1).map(|before| &mut self.held[before]).filter(|_| mark.is_some()) {
            left.mark = None;
        }
        let mut new = Stay { from: at, unit, mark };
        let mut range = place..place;
        if before.is_some_and(|stay| stay.from == at) {
            range.start -= 1;
        }
        // The next one is the same, or the one before: nobody left meanwhile.
        if let Some(next) = self.held.get(place).filter(|next| next.unit == unit) {
            new.mark = new.mark.max(next.mark);
            range.end += 1;
        }
        let same = range.start.checked_sub(1).filter(|&left| self.held[left].unit == unit);
        if let Some(left) = same {
            new = Stay { from: self.held[left].from, mark: self.held[left].mark.max(new.mark), unit };
            range.start = left;
        }
        self.held.splice(range, [new]);
        before.map(|stay| stay.unit).into_iter().chain([unit]).filter(|unit| *unit != Unit::NOBODY).collect()
    }

    /// Something happened at `at` to whoever was there. Returns the unit, if that is news.
    pub fn mark(&mut self, at: Time) -> Option<Unit> {
        let place = self.held.partition_point(|stay| stay.from <= at).checked_sub(1)?;
        let stay = self.held.get_mut(place).filter(|stay| stay.unit != Unit::NOBODY)?;
        if stay.mark.is_some_and(|mark| mark >= at) {
            return None;
        }
        stay.mark = Some(at);
        Some(stay.unit)
    }

    /// Who was there at `at`.
    pub fn at(&self, at: Time) -> Option<Stay> {
        let place = self.held.partition_point(|stay| stay.from <= at).checked_sub(1)?;
        Some(self.held[place]).filter(|stay| stay.unit != Unit::NOBODY)
    }

    /// The first that came after `at` and up to `until`.
    pub fn came(&self, at: Time, until: Time) -> Option<Stay> {
        let later = &self.held[self.held.partition_point(|stay| stay.from <= at)..];
        later.iter().take_while(|stay| stay.from <= until).find(|stay| stay.unit != Unit::NOBODY).copied()
    }

    /// All of them in order, with when they ended; the last goes on.
    pub fn iter(&self) -> impl Iterator<Item = (Stay, Time)> {
        let ends = self.held.iter().skip(1).map(|next| next.from).chain([Time(i64::MAX)]);
        self.held.iter().copied().zip(ends)
    }

    /// Lets go of those that ended before `begin`.
    pub fn forget(&mut self, begin: Time) {
        self.held.drain(..self.held.partition_point(|stay| stay.from < begin).saturating_sub(1));
    }

    /// How many are held, those of nobody with them.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Lets go of the oldest until no more than `most` are held, but for units that are to be kept. Returns them.
    pub fn trim(&mut self, most: usize, kept: impl Fn(Unit) -> bool) -> Vec<Stay> {
        let mut over = self.held.len().saturating_sub(most);
        let ends: Vec<Time> = self.iter().map(|(_, end)| end).take(over).collect();
        // The next one may go, by which it is known when one left.
        for (stay, end) in self.held.iter_mut().zip(ends) {
            stay.mark = stay.mark.or(Some(end).filter(|_| stay.unit != Unit::NOBODY));
        }
        let goes = |stay: &mut Stay| {
            let goes = over > 0 && !kept(stay.unit);
            over -= usize::from(goes);
            goes
        };
        self.held.extract_if(.., goes).filter(|stay| stay.unit != Unit::NOBODY).collect()
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Status, TagId, Value};
    use proptest::prelude::*;

    use super::*;

    fn said(at: i64, name: &str) -> Reading {
        Reading::good(TagId(0), Value::Text(name.into()), Time(at), Time(at))
    }

    fn lost(at: i64) -> Reading {
        Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), Time(at), Time(at + 1))
    }

    fn shown(stays: &Stays) -> Vec<(i64, Unit, Option<i64>)> {
        stays.iter().map(|(stay, _)| (stay.from.0, stay.unit, stay.mark.map(|mark| mark.0))).collect()
    }

    #[test]
    fn what_is_told_late_takes_its_place() {
        let (a, b, c) = (Unit::of("A"), Unit::of("B"), Unit::of("C"));
        let mut stays = Stays::default();
        stays.tell(&said(10, "A"));
        stays.tell(&said(30, "C"));
        assert_eq!(stays.mark(Time(25)), Some(a));
        assert_eq!(stays.tell(&said(20, "B")), [a, b]);
        assert_eq!(shown(&stays), [(10, a, None), (20, b, Some(25)), (30, c, None)], "B was there when it was counted");
        stays.tell(&said(40, ""));
        assert_eq!(stays.mark(Time(45)), None, "nobody is there");
        assert_eq!(stays.at(Time(39)).map(|stay| stay.unit), Some(c));
        assert_eq!((stays.at(Time(40)), stays.at(Time(9))), (None, None));
    }

    #[test]
    fn what_a_device_held_before_a_gap_says_nothing_about_it_and_history_does() {
        let (a, b) = (Unit::of("A"), Unit::of("B"));
        let mut stays = Stays::default();
        stays.tell(&said(10, "A"));
        stays.tell(&lost(20));
        assert!(stays.is_lost());
        stays.tell(&Reading { received_time: Time(50), ..said(10, "A") });
        assert_eq!(shown(&stays), [(10, a, None), (20, Unit::NOBODY, None), (50, a, None)]);
        stays.tell(&lost(60));
        stays.tell(&Reading { received_time: Time(90), ..said(50, "A") }.from_history());
        stays.tell(&Reading { received_time: Time(90), ..said(70, "B") }.from_history());
        assert_eq!(shown(&stays), [(10, a, None), (20, Unit::NOBODY, None), (50, a, None), (70, b, None)]);
    }

    #[test]
    fn the_oldest_go_first_but_for_those_that_are_kept() {
        let mut stays = Stays::default();
        (0..10).for_each(|at| drop(stays.tell(&said(at, &format!("SN{at}")))));
        assert_eq!(stays.trim(10, |_| false), []);
        let two = Unit::of("SN2");
        let gone: Vec<i64> = stays.trim(6, |unit| unit == two).iter().map(|stay| stay.from.0).collect();
        assert_eq!(gone, [0, 1, 3, 4]);
        assert_eq!(shown(&stays)[0], (2, two, Some(3)), "it left when the next one came");
        assert_eq!(stays.len(), 6);
    }

    proptest! {
        /// Whatever the order, as long as each unit comes once.
        #[test]
        fn the_order_of_telling_does_not_matter(
            order in Just((1..20_i64).collect::<Vec<_>>()).prop_shuffle(),
            counted in prop::collection::vec(0..200_i64, 0..40),
        ) {
            let told = |order: &[i64]| {
                let mut stays = Stays::default();
                order.iter().for_each(|at| drop(stays.tell(&said(at * 10, &at.to_string()))));
                counted.iter().for_each(|&at| _ = stays.mark(Time(at)));
                stays
            };
            let mut in_turn = order.clone();
            in_turn.sort_unstable();
            prop_assert_eq!(told(&order), told(&in_turn));
        }
    }
}
