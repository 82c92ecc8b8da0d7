//! What really happened, from the model's own log: nothing here knows how the agent computes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Defect, MachineState};
use crate::Time;

/// What a machine did in a span of time, from its beginning up to and without its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// How long it was in each state; together the whole span. A state of no length is not in it.
    pub states: BTreeMap<MachineState, Duration>,
    /// How often the state changed.
    pub transitions: u64,
    /// Parts made.
    pub total: u64,
    /// Parts that were fine.
    pub good: u64,
    /// Parts that were not.
    pub reject: u64,
    /// The rejects by [`Defect::name`].
    pub defects: BTreeMap<String, u64>,
}

impl Truth {
    /// How long it was in `state`.
    #[must_use]
    pub fn time_in(&self, state: MachineState) -> Duration {
        self.states.get(&state).copied().unwrap_or_default()
    }

    /// How long the span is.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.states.values().sum()
    }

    /// Run time over planned time, which is all of it; `None` for an empty span.
    #[must_use]
    pub fn availability(&self) -> Option<f64> {
        ratio(self.run().as_secs_f64(), self.span().as_secs_f64())
    }

    /// Parts in ideal time over run time; `None` if it never ran.
    #[must_use]
    pub fn performance(&self, ideal: Duration) -> Option<f64> {
        ratio(count(self.total) * ideal.as_secs_f64(), self.run().as_secs_f64())
    }

    /// Good parts over parts; `None` without parts.
    #[must_use]
    pub fn quality(&self) -> Option<f64> {
        ratio(count(self.good), count(self.total))
    }

    /// Availability, performance and quality multiplied; 0 if it never ran or made nothing, `None` for an empty span.
    #[must_use]
    pub fn oee(&self, ideal: Duration) -> Option<f64> {
        let availability = self.availability()?;
        Some(match (self.performance(ideal), self.quality()) {
            (Some(performance), Some(quality)) => availability * performance * quality,
            _ => 0.0,
        })
    }

    fn run(&self) -> Duration {
        self.time_in(MachineState::Producing)
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn count(parts: u64) -> f64 {
    parts as f64
}

/// Everything that a machine did, in order of time.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// What it was in before anything happened.
    first: MachineState,
    states: Vec<(Time, MachineState)>,
    parts: Vec<(Time, Option<Defect>)>,
}

impl Log {
    pub(super) fn new(first: MachineState) -> Self {
        Self { first, states: Vec::new(), parts: Vec::new() }
    }

    pub(super) fn state(&mut self, at: Time, state: MachineState) {
        self.states.push((at, state));
    }

    pub(super) fn part(&mut self, at: Time, defect: Option<Defect>) {
        self.parts.push((at, defect));
    }

    /// The account of `[from, to)`. The last state holds for ever, as the first one always did.
    pub(super) fn truth(&self, from: Time, to: Time) -> Truth {
        let mut truth = Truth::default();
        let (mut state, mut since) = (self.first, from);
        let changes = self.states.iter().take_while(|(at, _)| *at < to);
        for &(at, next) in changes {
            truth.spend(state, at.since(since));
            truth.transitions += u64::from(at >= from);
            (state, since) = (next, since.max(at));
        }
        truth.spend(state, to.since(since));
        let after = self.parts.partition_point(|(at, _)| *at < from);
        for (_, defect) in self.parts[after..].iter().take_while(|(at, _)| *at < to) {
            truth.total += 1;
            match defect {
                None => truth.good += 1,
                Some(defect) => {
                    truth.reject += 1;
                    *truth.defects.entry(defect.name().to_owned()).or_default() += 1;
                }
            }
        }
        truth
    }
}

impl Truth {
    fn spend(&mut self, state: MachineState, time: Duration) {
        if !time.is_zero() {
            *self.states.entry(state).or_default() += time;
        }
    }
}
