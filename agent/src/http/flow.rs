//! The JSON of the line as a whole: a wire type, on `/health` and of `gemba replay`.

use gemba_drivers::Time;
use serde::Serialize;

use super::kpi::{Count, seconds};
use crate::model::{FlowView, State, Wait};

/// The line over a shift.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow<'a> {
    shift: &'a str,
    from: Time,
    to: Time,
    /// Whose pace it is measured by.
    by: &'static str,
    oee: Option<f64>,
    good: Option<Count>,
    good_ideal_s: Option<f64>,
    planned_s: f64,
    coverage: Option<f64>,
    rolled_throughput_yield: Option<f64>,
    waits: Vec<Waits<'a>>,
}

/// Who waited for whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Waits<'a> {
    station: &'a str,
    /// `starved` or `blocked`.
    state: &'static str,
    /// The station that it waited for; null is outside the line.
    cause: Option<&'a str>,
    cause_state: Option<&'static str>,
    reason: Option<&'a str>,
    seconds: f64,
}

impl<'a> Flow<'a> {
    /// `names` are those of the stations.
    pub fn new(flow: &'a FlowView, names: &[&'a str]) -> Self {
        let name = |station: usize| names.get(station).copied();
        let waits = |wait: &'a Wait| Waits {
            station: name(wait.station).unwrap_or_default(),
            state: wait.state.word(),
            cause: wait.cause.and_then(name),
            cause_state: wait.cause_state.map(State::word),
            reason: wait.reason.as_deref(),
            seconds: seconds(wait.spent),
        };
        Self {
            shift: &flow.shift,
            from: flow.from,
            to: flow.to,
            by: flow.by.word(),
            oee: flow.oee,
            good: flow.good.map(Count),
            good_ideal_s: flow.good_ideal_ns.map(|ns| ns / 1e9),
            planned_s: seconds(flow.planned_ns),
            coverage: flow.coverage,
            rolled_throughput_yield: flow.rolled_yield.map(|of| of.value),
            waits: flow.waits.iter().map(waits).collect(),
        }
    }
}
