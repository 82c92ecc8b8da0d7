//! The JSON of a period's figures: a wire type, on `/health` and of `gemba replay`.

use gemba_drivers::Time;
use serde::{Serialize, Serializer};

use crate::model::JOULES_PER_KWH;
use crate::snapshot::{self, KpiView};

/// The figures of a period, as `/health` and `gemba replay` write them; null is "cannot be known".
///
/// Beyond the contract: everything after `reject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Kpi {
    since: Option<Time>,
    oee: Option<f64>,
    availability: Option<f64>,
    performance: Option<f64>,
    quality: Option<f64>,
    coverage: Option<f64>,
    total: Option<Count>,
    good: Option<Count>,
    reject: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rework: Option<Count>,
    /// Of the rejected parts those of start-ups, and the others; where `oee.startup` says what that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_reject: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_reject: Option<Count>,
    /// By which loss accounting.
    losses: Option<&'static str>,
    oee_bounds: Option<Bounds>,
    target: Option<f64>,
    unattributed: Option<Count>,
    quality_assumed: Option<bool>,
    /// False where planned time is 0, so that there is nothing to know.
    scheduled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    first_pass_yield: Option<f64>,
    defect_rate: Option<f64>,
    planned_s: Option<f64>,
    run_s: Option<f64>,
    unknown_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy: Option<Energy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Cost>,
    teep: Option<f64>,
    maintenance: Option<Maintenance>,
}

/// Energy in joules, and by part in kilowatt-hours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Energy {
    joules: f64,
    idle_joules: f64,
    kwh_per_part: Option<f64>,
    kwh_per_good_part: Option<f64>,
}

/// What it cost, in the line's currency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Cost {
    total: f64,
    per_good_part: Option<f64>,
}

/// Failures and repairs. Times are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Maintenance {
    failures: u64,
    repairs: u64,
    mtbf_s: Option<f64>,
    mttr_s: Option<f64>,
    corrective_s: f64,
    planned_s: f64,
    corrective_ratio: Option<f64>,
}

/// OEE if all unknown time was down, and if it was all run at ideal speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Bounds {
    low: f64,
    high: f64,
}

/// A number of parts: whole ones are written without a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Count(pub(super) f64);

impl Kpi {
    /// Of a time of which no figure can be known.
    pub(super) fn unknown(scheduled: Option<bool>) -> Self {
        Self { scheduled, ..Self::default() }
    }
}

impl From<&KpiView> for Kpi {
    fn from(kpi: &KpiView) -> Self {
        let figures = &kpi.figures;
        Self {
            since: Some(kpi.since),
            oee: figures.oee,
            availability: figures.availability,
            performance: figures.performance,
            quality: figures.quality,
            coverage: figures.coverage,
            total: kpi.total.map(Count),
            good: kpi.good.map(Count),
            reject: kpi.reject.map(Count),
            rework: kpi.rework.map(Count),
            startup_reject: kpi.startup_reject.map(Count),
            process_reject: kpi.startup_reject.and_then(|startup| Some(Count(kpi.reject? - startup))),
            losses: Some(kpi.losses.word()),
            oee_bounds: kpi.oee_bounds.map(|(low, high)| Bounds { low, high }),
            target: kpi.target,
            unattributed: Some(Count(kpi.unattributed)),
            quality_assumed: Some(kpi.quality_assumed),
            scheduled: kpi.scheduled,
            hint: kpi.hint(),
            first_pass_yield: figures.first_pass_yield,
            defect_rate: figures.defect_rate,
            planned_s: Some(seconds(kpi.planned_ns)),
            run_s: Some(seconds(kpi.run_ns)),
            unknown_s: Some(seconds(kpi.unknown_ns)),
            energy: kpi.energy.map(|energy| Energy {
                joules: energy.joules,
                idle_joules: energy.idle_joules,
                kwh_per_part: energy.per_part.map(|joules| joules / JOULES_PER_KWH),
                kwh_per_good_part: energy.per_good_part.map(|joules| joules / JOULES_PER_KWH),
            }),
            cost: kpi.cost.map(|cost| Cost { total: cost.cost, per_good_part: cost.per_good_part }),
            teep: kpi.teep,
            maintenance: Some(Maintenance::from(kpi.maintenance)),
        }
    }
}

impl From<snapshot::Maintenance> for Maintenance {
    fn from(of: snapshot::Maintenance) -> Self {
        Self {
            failures: of.failures,
            repairs: of.repairs,
            mtbf_s: of.mtbf,
            mttr_s: of.mttr,
            corrective_s: of.corrective,
            planned_s: of.planned,
            corrective_ratio: of.corrective_ratio,
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: above it a double skips whole numbers
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
        match self.0 {
            whole if whole.fract() == 0.0 && whole.abs() <= EXACT => to.serialize_i64(whole as i64),
            other => to.serialize_f64(other),
        }
    }
}

/// Nanoseconds as seconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact to the nanosecond for 104 days, and far below one part in 10^15 after"
)]
pub(super) fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_unless_they_are_not() {
        for (count, text) in [(0.0, "0"), (-0.0, "0"), (19271.0, "19271"), (0.5, "0.5"), (1e300, "1e+300")] {
            assert_eq!(serde_json::to_string(&Count(count)).expect("JSON"), text);
        }
    }
}
