//! What of an item's history is news: what was told of it, and what comes after that.

use std::time::Duration;

use crate::{Reading, Time};

/// The last that was told of an item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// By its source.
    pub(super) at: Time,
    /// Value and validity; none after a restart of the agent, which keeps the time only.
    pub(super) said: Option<(crate::Value, crate::Validity)>,
}

impl Told {
    pub(super) fn of(reading: &Reading) -> Self {
        Self { at: reading.source_time, said: Some((reading.value.clone(), reading.validity)) }
    }

    pub(super) fn is(&self, reading: &Reading) -> bool {
        self.at == reading.source_time && self.said_same(reading) == Some(true)
    }

    /// The same to a historian that keeps milliseconds.
    pub(super) fn is_near(&self, reading: &Reading) -> bool {
        let apart = self.at.since(reading.source_time).max(reading.source_time.since(self.at));
        apart < NEAR && self.said_same(reading) == Some(true)
    }

    pub(super) fn said_same(&self, reading: &Reading) -> Option<bool> {
        self.said.as_ref().map(|(value, validity)| (value, validity) == (&reading.value, &reading.validity))
    }
}

/// Historians keep milliseconds where subscriptions tell 100 ns.
const NEAR: Duration = Duration::from_millis(1);

/// From where on history is asked for after `told`.
pub(super) fn just_before(told: Time) -> Time {
    told - NEAR
}

/// What of an item's history is news after a gap.
///
/// The value that was told last before the gap comes once more, if history has it: it says that nothing was recorded
/// between it and the next value, so what held at the gap's start is known. Everything after it is new.
#[derive(Debug)]
pub(super) struct Sieve {
    watermark: Time,
    last: Told,
    /// History reaches back to the watermark.
    pub(super) whole: bool,
}

impl Sieve {
    /// For what comes after `told`; that itself comes once more if it is to be told again.
    pub(super) fn after(told: Told, again: bool) -> Self {
        Self { watermark: told.at, last: told, whole: !again }
    }

    /// The same where `said`, bad perhaps, was told later than the last value.
    pub(super) fn having_said(mut self, said: Option<&Told>) -> Self {
        if let Some(said) = said.filter(|said| said.at >= self.watermark) {
            self.last = said.clone();
        }
        self
    }

    /// The reading if it is news, marked as history. In order of source time.
    pub(super) fn pass(&mut self, reading: Reading) -> Option<Reading> {
        if reading.source_time > self.watermark {
            // After the first of them, what comes again is no news.
            if self.last.is(&reading) || reading.source_time < self.last.at {
                return None;
            }
            self.last = Told::of(&reading);
            return Some(reading.from_history());
        }
        let near = just_before(self.watermark) < reading.source_time;
        if !near || self.whole || self.last.said_same(&reading) == Some(false) {
            return None;
        }
        self.whole = true;
        let opening = Reading { source_time: self.watermark, ..reading };
        self.last = Told::of(&opening);
        Some(opening.from_history())
    }

    /// The last that passed.
    pub(super) fn last(&self) -> &Told {
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Status, TagId, Validity, Value};

    fn said(value: i64, at: i64) -> Reading {
        Reading::good(TagId(0), Value::Int(value), Time(at * 10_000_000), Time(1 << 60))
    }

    fn passed(told: Told, history: &[(i64, i64)]) -> (Vec<(Value, Time)>, bool) {
        let mut sieve = Sieve::after(told, true);
        let news: Vec<_> = history.iter().filter_map(|&(value, at)| sieve.pass(said(value, at))).collect();
        assert!(news.iter().all(|reading| reading.backfilled));
        (news.into_iter().map(|reading| (reading.value, reading.source_time)).collect(), sieve.whole)
    }

    fn values(of: &[(i64, i64)]) -> Vec<(Value, Time)> {
        of.iter().map(|&(value, at)| (Value::Int(value), Time(at * 10_000_000))).collect()
    }

    #[test]
    fn what_held_at_the_start_comes_once_more_and_then_only_news() {
        let told = || Told::of(&said(7, 5));
        assert_eq!(passed(told(), &[(6, 4), (7, 5), (8, 6), (8, 7)]), (values(&[(7, 5), (8, 6), (8, 7)]), true));
        assert_eq!(passed(told(), &[(7, 5)]), (values(&[(7, 5)]), true), "nothing has changed");
        assert_eq!(passed(told(), &[]), (vec![], false));
        assert_eq!(passed(told(), &[(8, 6)]), (values(&[(8, 6)]), false), "history begins in the gap");
        assert_eq!(passed(told(), &[(6, 5), (7, 5), (8, 6), (8, 6)]), (values(&[(7, 5), (8, 6)]), true));
        assert_eq!(passed(told(), &[(1, 1), (2, 2)]), (vec![], false), "older than what is known");
    }

    #[test]
    fn after_a_restart_the_time_alone_is_known() {
        let told = Told { at: Time(50_000_000), said: None };
        assert_eq!(passed(told, &[(6, 4), (7, 5), (8, 6)]), (values(&[(7, 5), (8, 6)]), true));
    }

    #[test]
    fn a_historian_that_keeps_milliseconds_is_understood() {
        let live = Reading { source_time: Time(1_000_123_456_700), ..said(7, 0) };
        let kept = Reading { source_time: Time(1_000_123_000_000), ..said(7, 0) };
        let mut sieve = Sieve::after(Told::of(&live), true);
        assert_eq!(sieve.pass(kept), Some(live.from_history()), "with the time that it had");
        assert!(sieve.whole);
    }

    #[test]
    fn bad_values_of_history_are_told_as_well() {
        let mut sieve = Sieve::after(Told::of(&said(7, 5)), true);
        let bad = Reading::bad(TagId(0), Status::Opcua(0x808C_0000), Time(60_000_000), Time(1 << 60));
        assert_eq!(
            sieve.pass(bad.clone()).map(|reading| reading.validity),
            Some(Validity::Bad(Status::Opcua(0x808C_0000)))
        );
        assert_eq!(sieve.pass(bad), None);
    }

    proptest! {
        /// Whatever of a stream was told before the gap, history gives exactly the rest, once, in order.
        #[test]
        fn told_and_history_together_are_the_stream(changes in prop::collection::vec((0..4_i64, 0..3_i64), 1..40), cut: prop::sample::Index) {
            let mut at = 0;
            let mut stream: Vec<(i64, i64)> = Vec::new();
            for (value, step) in changes {
                at += step + i64::from(stream.is_empty());
                // The same again at the same instant is no change.
                if stream.last() != Some(&(value, at)) {
                    stream.push((value, at));
                }
            }
            // One source tells one tag once an instant.
            stream.dedup_by_key(|(_, at)| *at);
            let last = cut.index(stream.len());
            let (value, at) = stream[last];
            let (news, whole) = passed(Told::of(&said(value, at)), &stream);
            prop_assert!(whole);
            prop_assert_eq!(news, values(&stream[last..]));
        }
    }
}
