//! A circuit breaker: what does not answer is left alone for ever longer, and asked once in a while.
//!
//! ```text
//!            N failures in a row            the pause is over
//!  closed ───────────────────────▶ open ───────────────────────▶ half open
//!    ▲                              ▲ a failure, a longer pause      │ │
//!    │                              └────────────────────────────────┘ │
//!    └─────────────────────────────────────────────────── an answer ───┘
//! ```
//! The pauses are those of the [`supervisor`](crate::supervisor::pauses), which is the breaker of the link as a whole.

use std::time::Duration;

use tokio::time::Instant;

use crate::Time;
use crate::supervisor::pauses;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// What is asked for goes through.
    #[default]
    Closed,
    /// One question goes through, to see.
    HalfOpen,
    /// Nothing goes through.
    Open,
}

impl BreakerState {
    /// All of them; a metric says the place in this list.
    pub const ALL: [Self; 3] = [Self::Closed, Self::HalfOpen, Self::Open];

    /// `closed`, `half_open` or `open`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// How a breaker stands, since when, and how often it went where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// Now.
    pub state: BreakerState,
    /// Since when.
    pub since: Time,
    /// How often it turned to each of [`BreakerState::ALL`].
    pub turns: [u64; 3],
}

impl BreakerView {
    /// Closed, and never was anything else.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self { state: BreakerState::Closed, since: now, turns: [0; 3] }
    }

    /// It is `state` now. Whether that is news.
    pub fn turn(&mut self, state: BreakerState, now: Time) -> bool {
        if self.state == state {
            return false;
        }
        (self.state, self.since) = (state, now);
        self.turns[state as usize] += 1;
        true
    }
}

/// How long things took, in buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many fell in each bucket; the last one is for what is longer than every bound.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Durations {
    /// Upper bounds of the buckets, in seconds: from a device next door to a timeout.
    pub const BOUNDS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0];

    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.counts[Self::BOUNDS.partition_point(|bound| *bound < took.as_secs_f64())] += 1;
        self.sum += took;
    }
}

/// A breaker. Time is a parameter.
pub struct Breaker {
    threshold: u32,
    failures: u32,
    state: BreakerState,
    until: Option<Instant>,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Breaker {
    /// Closed; it opens after `threshold` failures in a row.
    #[must_use]
    pub fn new(threshold: u32) -> Self {
        Self { threshold, failures: 0, state: BreakerState::Closed, until: None, pauses: Box::new(pauses()) }
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// How many failures in a row there were, those that it let through while half open among them.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when nothing goes through, if it is open.
    #[must_use]
    pub fn opens_at(&self) -> Option<Instant> {
        self.until
    }

    /// Whether a question may go through. An open breaker whose pause is over is half open from then on.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.until {
            Some(until) if now < until => false,
            Some(_) => {
                (self.state, self.until) = (BreakerState::HalfOpen, None);
                true
            }
            None => true,
        }
    }

    /// There was an answer.
    pub fn succeed(&mut self) {
        if self.failures > 0 || self.state != BreakerState::Closed {
            *self = Self::new(self.threshold);
        }
    }

    /// There was none.
    pub fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.state == BreakerState::HalfOpen || self.failures >= self.threshold {
            let pause = self.pauses.next().unwrap_or(crate::supervisor::LONGEST_PAUSE);
            (self.state, self.until) = (BreakerState::Open, Some(now + pause));
        }
    }

    /// Something changed, such as the way there: an open breaker lets the next question through.
    pub fn hurry(&mut self, now: Instant) {
        self.until = self.until.map(|_| now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{FIRST_PAUSE, LONGEST_PAUSE};

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_no_sooner() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3);
        for _ in 0..5 {
            breaker.fail(now);
            breaker.fail(now);
            assert_eq!((breaker.state(), breaker.admits(now)), (BreakerState::Closed, true));
            breaker.succeed();
        }
        (0..3).for_each(|_| breaker.fail(now));
        assert_eq!((breaker.state(), breaker.admits(now)), (BreakerState::Open, false));
    }

    #[test]
    fn it_asks_once_after_a_pause_that_grows_and_closes_at_an_answer() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(1);
        let mut rests = Vec::new();
        breaker.fail(now);
        for _ in 0..12 {
            let until = breaker.opens_at().expect("open");
            assert!(!breaker.admits(until - Duration::from_nanos(1)));
            assert!(breaker.admits(until));
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            rests.push(until - now);
            now = until;
            breaker.fail(now);
            assert_eq!(breaker.state(), BreakerState::Open);
        }
        assert!(rests[0] >= FIRST_PAUSE && rests[0] <= FIRST_PAUSE * 2, "{rests:?}");
        assert!(rests[11] >= LONGEST_PAUSE / 2 && rests.iter().all(|rest| *rest <= LONGEST_PAUSE), "{rests:?}");
        assert!(breaker.admits(now + LONGEST_PAUSE));
        breaker.succeed();
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
        breaker.fail(now);
        let rest = breaker.opens_at().expect("open") - now;
        assert!(rest <= FIRST_PAUSE * 2, "it begins anew: {rest:?}");
    }

    #[test]
    fn a_new_way_is_tried_at_once() {
        let now = Instant::now();
        let mut breaker = Breaker::new(1);
        breaker.hurry(now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.fail(now);
        breaker.hurry(now);
        assert!(breaker.admits(now));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn turns_are_counted_once() {
        let mut view = BreakerView::new(Time(1));
        assert!(!view.turn(BreakerState::Closed, Time(2)));
        assert!(view.turn(BreakerState::Open, Time(3)) && !view.turn(BreakerState::Open, Time(4)));
        assert!(view.turn(BreakerState::HalfOpen, Time(5)) && view.turn(BreakerState::Closed, Time(6)));
        assert_eq!(view, BreakerView { state: BreakerState::Closed, since: Time(6), turns: [1, 1, 1] });
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let mut took = Durations::default();
        [5, 6, 60_000].into_iter().for_each(|ms| took.add(Duration::from_millis(ms)));
        assert_eq!((took.counts, took.sum), ([1, 1, 0, 0, 0, 0, 0, 0, 1], Duration::from_millis(60_011)));
    }
}
