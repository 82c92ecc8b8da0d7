//! Readings that wait for those that may still come before them, and what people told, which takes its turn among them.
//!
//! Sources and paths differ: what happened first need not be heard first. A reading waits until nothing that counts before it
//! can come any more, longer than [`LATENESS`] after its source's time; then it is settled, in that order. An entry's turn is
//! when it was made, after what was told by then. So neither the order of arrival nor the size of batches matters to any
//! figure. What comes later than that is settled as it comes.

use std::sync::Arc;

use gemba_drivers::{Reading, Time};

use crate::model::entry::Entry;
use crate::model::late::Rejected;
use crate::model::station::LATENESS;

/// Readings in the order in which they will be settled.
#[derive(Clone, Debug, Default)]
pub struct Pending(Vec<Waiting>);

#[derive(Clone, Debug)]
struct Waiting {
    turn: Turn,
    /// It is counted, so that all that is told of its instant comes before it.
    counted: bool,
    told: Told,
}

/// When its turn is. What came too late for its own comes after what had this one; then the time by which those of one turn
/// are ordered, and whether a person told it.
type Turn = (Time, bool, Time, bool);

/// What waits.
#[derive(Clone, Debug)]
pub enum Told {
    /// A tag told it.
    Reading(Reading),
    /// A person did.
    Entry(Arc<Entry>),
    /// A later station did, by what it rejected.
    Rejected(Box<Rejected>),
}

impl Pending {
    /// Takes a reading. What is `counted` belongs to all that is told of its instant, in whatever order that came.
    pub fn take(&mut self, reading: Reading, counted: bool) {
        self.step_back(reading.received_time);
        let at = reading.source_time.min(reading.received_time);
        // Before it all is settled when this one comes.
        let settled = reading.received_time - LATENESS;
        let late = at < settled;
        let mut turn = (if late { Time(settled.0.saturating_sub(1)) } else { at }, late, at, false);
        let mut place = self.0.partition_point(|held| held.turn <= turn);
        // A mark of gemba's own says that the tag was lost; what is told after it is news, however old the device says it is.
        // Nor does what gemba dated itself ever come before what it heard earlier, though its clock be set back meanwhile.
        let own = |reading: &Reading| reading.source_time == reading.received_time;
        let mark = |held: &Waiting| {
            let Told::Reading(held) = &held.told else { return false };
            held.tag == reading.tag && (held.validity.is_mark() || own(held) && own(&reading))
        };
        let counted = counted && !reading.validity.is_mark();
        if let Some(mark) = self.0[place..].iter().rposition(mark) {
            turn = self.0[place + mark].turn;
            place = self.0.partition_point(|held| held.turn <= turn);
        } else if !counted && !reading.validity.is_mark() {
            let later = |held: &&Waiting| {
                let as_late = matches!(&held.told, Told::Reading(held) if held.source_time >= at);
                held.counted && held.turn == turn && as_late
            };
            place -= self.0[..place].iter().rev().take_while(later).count();
        }
        self.0.insert(place, Waiting { turn, counted, told: Told::Reading(reading) });
    }

    /// Takes what a person told.
    pub fn enter(&mut self, entry: Arc<Entry>) {
        let turn = (entry.entered, false, entry.entered, true);
        let place = self.0.partition_point(|held| held.turn <= turn);
        self.0.insert(place, Waiting { turn, counted: false, told: Told::Entry(entry) });
    }

    /// Takes what a later station rejected.
    pub fn reject(&mut self, rejected: Rejected) {
        let turn = (rejected.turn, false, rejected.turn, true);
        let place = self.0.partition_point(|held| held.turn <= turn);
        self.0.insert(place, Waiting { turn, counted: false, told: Told::Rejected(Box::new(rejected)) });
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The gateway's clock was set back if what waits is to wait far into its future: then all of it has its turn now, before
    /// anything that comes.
    fn step_back(&mut self, now: Time) {
        // What a later station rejected may have its turn much later than it was told.
        let last = self.0.iter().rfind(|held| !matches!(held.told, Told::Rejected(_)));
        if last.is_some_and(|last| last.turn.0 > now + LATENESS) {
            let past = Time((now - LATENESS).0.saturating_sub(1));
            self.0.iter_mut().for_each(|held| held.turn.0 = held.turn.0.min(past));
        }
    }

    /// The next turn, if it lies before `end`.
    pub fn turn(&self, end: Time) -> Option<Time> {
        self.0.first().map(|held| held.turn.0).filter(|&turn| turn < end)
    }

    /// What has its turn by `turn`, in order.
    pub fn settle(&mut self, turn: Time) -> impl Iterator<Item = Told> + use<'_> {
        let due = self.0.partition_point(|held| held.turn.0 <= turn);
        self.0.drain(..due).map(|held| held.told)
    }

    /// All readings that wait, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Reading> + Clone {
        self.0.iter().filter_map(|held| if let Told::Reading(reading) = &held.told { Some(reading) } else { None })
    }

    /// All entries that wait, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.iter().filter_map(|held| if let Told::Entry(entry) = &held.told { Some(entry) } else { None })
    }

    /// All that later stations rejected and that waits, in order.
    pub fn rejects(&self) -> impl Iterator<Item = &Rejected> {
        self.0
            .iter()
            .filter_map(|held| if let Told::Rejected(rejected) = &held.told { Some(&**rejected) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gemba_drivers::{OwnStatus, Status, TagId, Value};

    use super::*;
    use crate::model::LateBy;
    use crate::model::late::Unit;

    fn said(tag: u32, source: i64, received: i64) -> Reading {
        Reading::good(TagId(tag), Value::Int(source), Time::from_millis(source), Time::from_millis(received))
    }

    fn reading(told: Told) -> Reading {
        if let Told::Reading(reading) = told { reading } else { panic!("{told:?} is no reading") }
    }

    fn order(readings: &[Reading]) -> Vec<(u32, i64)> {
        let mut pending = Pending::default();
        readings.iter().cloned().for_each(|reading| pending.take(reading, false));
        pending.iter().map(|reading| (reading.tag.0, reading.source_time.0 / 1_000_000)).collect()
    }

    #[test]
    fn readings_take_turns_by_their_source_times_and_then_as_they_came() {
        let readings = [said(0, 900, 1000), said(1, 800, 1000), said(2, 900, 1000), said(3, 700, 1001)];
        assert_eq!(order(&readings), [(3, 700), (1, 800), (0, 900), (2, 900)]);
    }

    #[test]
    fn of_one_instant_what_is_counted_comes_last() {
        let mut pending = Pending::default();
        for (tag, source) in [(1, 900), (0, 900), (1, 900), (0, 800)] {
            pending.take(said(tag, source, 1000), tag == 1);
        }
        assert_eq!(pending.iter().map(|reading| reading.tag.0).collect::<Vec<_>>(), [0, 0, 1, 1]);
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_order() {
        let hour = 3_600_000;
        assert_eq!(
            order(&[said(0, hour, hour), said(1, hour, hour), said(0, 10, 10)]),
            [(0, hour), (1, hour), (0, 10)]
        );
        assert_eq!(
            order(&[said(0, 2_000, 2_000), said(1, 2_000, 2_000), said(0, 1_000, 1_000)]),
            [(0, 2_000), (1, 2_000), (0, 1_000)]
        );
        let mut pending = Pending::default();
        pending.take(said(0, hour, hour), false);
        pending.take(said(0, 5_000, 5_000), false);
        assert_eq!(pending.settle(Time::from_millis(3_000)).count(), 1, "what waited does not wait for an hour");
    }

    #[test]
    fn a_mark_comes_after_what_its_tag_told_at_its_instant() {
        let mut pending = Pending::default();
        let lost = Status::Own(OwnStatus::LinkLost);
        let mark = |tag| Reading::bad(TagId(tag), lost, Time::from_millis(900), Time::from_millis(1_500));
        for reading in
            [said(1, 900, 1000), mark(0), mark(1), said(1, 900, 1_600), said(0, 900, 1_600), said(2, 900, 1_700)]
        {
            let counted = reading.tag.0 == 1;
            pending.take(reading, counted);
        }
        let order: Vec<_> = pending.iter().map(|reading| (reading.tag.0, reading.validity.is_mark())).collect();
        assert_eq!(order, [(1, false), (0, true), (1, true), (0, false), (2, false), (1, false)]);
    }

    #[test]
    fn what_is_told_after_a_mark_never_stands_before_it() {
        let lost = |tag| {
            let lost = Status::Own(OwnStatus::LinkLost);
            Reading::bad(TagId(tag), lost, Time::from_millis(9_500), Time::from_millis(10_000))
        };
        let readings = [said(0, 9_400, 9_400), lost(0), said(0, 50, 10_100), said(1, 50, 10_100), said(0, 60, 10_200)];
        assert_eq!(order(&readings), [(1, 50), (0, 9_400), (0, 9_500), (0, 50), (0, 60)]);
    }

    #[test]
    fn what_comes_too_late_is_settled_as_it_comes() {
        let mut pending = Pending::default();
        let now = Time::from_millis(10_000);
        pending.take(said(0, 8_500, 10_000), false);
        pending.take(said(0, 10, 10_000), false);
        let turn = pending.turn(now - LATENESS).expect("its turn is over");
        assert_eq!(pending.settle(turn).map(|told| reading(told).source_time.0).collect::<Vec<_>>(), [10_000_000]);
        assert_eq!(pending.turn(now - LATENESS), None);
    }

    #[test]
    fn a_reject_that_waits_for_longer_is_no_clock_that_was_set_back() {
        let rejected = Rejected {
            at: Time::from_millis(9_000),
            turn: Time::from_millis(60_000),
            station: "aoi-1".into(),
            by: LateBy::Serial,
            unit: Unit::of("SN1"),
            since: Time::from_millis(9_000),
            code: "bridge".into(),
            parts: 1.0,
            back: false,
        };
        let mut pending = Pending::default();
        pending.reject(rejected);
        pending.take(said(0, 9_500, 10_000), false);
        pending.take(said(0, 9_800, 10_010), false);
        pending.take(said(1, 9_600, 10_020), false);
        let order: Vec<_> = pending.iter().map(|reading| reading.source_time.0 / 1_000_000).collect();
        assert_eq!(order, [9_500, 9_600, 9_800]);
        assert_eq!(pending.turn(Time::from_millis(9_500)), None, "none has its turn before its time");
    }

    #[test]
    fn what_took_just_two_seconds_is_in_time() {
        let mut pending = Pending::default();
        pending.take(said(0, 8_000, 8_000), true);
        let now = Time::from_millis(10_000);
        assert_eq!(pending.turn(now - LATENESS), None, "it waits for what comes at this very instant");
        pending.take(said(1, 8_000, 10_000), false);
        assert_eq!(pending.iter().map(|reading| reading.tag.0).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(pending.turn(now + Duration::from_nanos(1) - LATENESS), Some(Time::from_millis(8_000)));
    }
}
