//! Counters of devices, turned into differences.

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::CounterSpec;

/// What is remembered of a counter. Survives a restart, so that nothing is counted twice or lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// The last good reading.
    last: Option<Last>,
    /// Since when it has been bad; kept until the next good reading.
    bad: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Last {
    value: f64,
    /// As the source has it.
    source_time: Time,
    /// From when on it counts.
    at: Time,
}

/// What a reading of a counter says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// The first reading ever: adds nothing.
    Baseline,
    /// So many more, since the last good reading at `since`. The counter itself was never bad meanwhile
    /// (for longer than zero) if `known`.
    Counted {
        /// How many; never negative.
        difference: f64,
        /// When the last good reading was.
        since: Time,
        /// When this one counts; never before the last.
        at: Time,
        /// Whether every reading between was good.
        known: bool,
    },
    /// Older than what is known: the difference is counted already.
    Late,
    /// Faster than `max_rate` allows, below zero or beyond all numbers: not counted, the new value is the new baseline.
    Quarantined {
        /// What would have been added.
        difference: f64,
        /// When the last good reading was.
        since: Time,
        /// When this one was; never before the last.
        at: Time,
    },
}

/// When a value was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// As the source has it.
    pub source_time: Time,
    /// From when on it counts.
    pub at: Time,
    /// By history: nothing of it is newer than what came live.
    pub backfilled: bool,
}

impl Counter {
    /// A good reading `value`, and when.
    ///
    /// With a `modulus` the difference is modular (AVEVA Historian, counter retrieval); without one a fall is
    /// a reset and the difference the new value. `max_rate` allows one part beyond it, since parts are whole
    /// and polls short.
    pub fn observe(&mut self, spec: &CounterSpec, value: f64, told: Told) -> Step {
        let Told { source_time, at, backfilled } = told;
        let Some(Last { value: previous, source_time: before, at: since }) = self.last else {
            self.last = Some(Last { value, source_time, at });
            self.bad = None;
            return Step::Baseline;
        };
        // Against the source's own time: one that counts from its receipt may be followed by one that a source whose clock
        // is behind dates before that.
        // After a gap such a source is believed; history goes on from what it told.
        if source_time < before && (backfilled || self.bad.is_none()) {
            return Step::Late;
        }
        let at = at.max(since);
        let known = self.bad.is_none_or(|bad| bad >= at);
        self.bad = None;
        self.last = Some(Last { value, source_time, at });
        let difference = match spec.modulus {
            Some(modulus) if value < previous => value - previous + modulus,
            None if value < previous => value,
            _ => value - previous,
        };
        let elapsed = at.since(since).as_secs_f64();
        let too_fast = spec.max_rate.is_some_and(|rate| difference > rate.mul_add(elapsed, 1.0));
        if difference < 0.0 || !difference.is_finite() || too_fast {
            return Step::Quarantined { difference, since, at };
        }
        Step::Counted { difference, since, at, known }
    }

    /// A bad reading with effect at `at`.
    pub fn lose(&mut self, at: Time) {
        self.bad.get_or_insert(at);
    }

    /// From when on its last good reading counted.
    #[must_use]
    pub fn last_at(&self) -> Option<Time> {
        self.last.map(|last| last.at)
    }

    /// Since when it has been bad.
    #[must_use]
    pub fn bad_since(&self) -> Option<Time> {
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::TagId;

    use super::*;

    fn spec(modulus: Option<f64>, max_rate: Option<f64>) -> CounterSpec {
        CounterSpec { modulus, max_rate, ..CounterSpec::of(TagId(0)) }
    }

    fn seconds(s: i64) -> Time {
        Time::from_millis(s * 1000)
    }

    fn told(source_time: i64, at: i64) -> Told {
        Told { source_time: seconds(source_time), at: seconds(at), backfilled: false }
    }

    fn step(spec: &CounterSpec, from: f64, to: f64) -> Step {
        let mut counter = Counter::default();
        assert_eq!(counter.observe(spec, from, told(0, 0)), Step::Baseline);
        counter.observe(spec, to, told(10, 10))
    }

    #[test]
    fn published_differences() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/fixtures/vectors/quality.json")).expect("JSON");
        let mut seen = 0;
        for vector in vectors.as_array().expect("a list") {
            let (Some(prev), Some(cur)) = (vector["prev"].as_f64(), vector["cur"].as_f64()) else { continue };
            seen += 1;
            let counted = step(&spec(vector["modulus"].as_f64(), None), prev, cur);
            let difference = vector["delta"].as_f64().expect("a difference");
            assert_eq!(
                counted,
                Step::Counted { difference, since: seconds(0), at: seconds(10), known: true },
                "{}",
                vector["id"]
            );
        }
        assert_eq!(seen, 4, "the counter vectors");
    }

    #[test]
    fn a_jump_above_the_rate_is_quarantined_and_the_next_step_counts() {
        let spec = spec(None, Some(2.5));
        let mut counter = Counter::default();
        counter.observe(&spec, 100.0, told(0, 0));
        assert_eq!(
            counter.observe(&spec, 4_000_000.0, told(10, 10)),
            Step::Quarantined { difference: 3_999_900.0, since: seconds(0), at: seconds(10) }
        );
        assert_eq!(
            counter.observe(&spec, 4_000_020.0, told(20, 20)),
            Step::Counted { difference: 20.0, since: seconds(10), at: seconds(20), known: true }
        );
    }

    #[test]
    fn an_older_reading_is_not_a_reset() {
        let spec = spec(None, None);
        let mut counter = Counter::default();
        counter.observe(&spec, 100.0, told(10, 10));
        assert_eq!(counter.observe(&spec, 99.0, told(9, 11)), Step::Late);
        assert_eq!(
            counter.observe(&spec, 101.0, told(12, 12)),
            Step::Counted { difference: 1.0, since: seconds(10), at: seconds(12), known: true }
        );
    }

    /// The first readings of history after a gap may be told already: they are no reset, though a gap came before.
    #[test]
    fn older_history_is_not_a_reset_either() {
        let spec = spec(None, None);
        let mut counter = Counter::default();
        counter.observe(&spec, 100.0, told(10, 10));
        counter.lose(seconds(11));
        assert_eq!(counter.observe(&spec, 98.0, Told { backfilled: true, ..told(9, 11) }), Step::Late);
        assert_eq!(counter.bad_since(), Some(seconds(11)), "and says nothing of the gap");
        assert_eq!(
            counter.observe(&spec, 100.0, Told { backfilled: true, ..told(10, 11) }),
            Step::Counted { difference: 0.0, since: seconds(10), at: seconds(11), known: true }
        );
    }

    #[test]
    fn a_gap_makes_the_next_step_unknown() {
        let spec = spec(None, None);
        let mut counter = Counter::default();
        counter.observe(&spec, 100.0, told(0, 0));
        counter.lose(seconds(1));
        assert_eq!(
            counter.observe(&spec, 105.0, told(0, 9)),
            Step::Counted { difference: 5.0, since: seconds(0), at: seconds(9), known: false }
        );
    }

    #[test]
    fn a_source_whose_clock_is_behind_is_heard_at_once() {
        let spec = spec(None, None);
        let mut counter = Counter::default();
        // Held all along, so it counts from its receipt at 100; the next is dated 40 s before that, and is news.
        counter.observe(&spec, 7.0, told(50, 100));
        let next = counter.observe(&spec, 9.0, told(60, 60));
        assert_eq!(next, Step::Counted { difference: 2.0, since: seconds(100), at: seconds(100), known: true });
    }
}
