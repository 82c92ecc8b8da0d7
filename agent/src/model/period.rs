//! One shift of one station, and the figures it gives.

use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::station::nanoseconds;
use crate::model::{Derived, OeeSpec, State};
use crate::record::Figures;
use crate::snapshot::KpiView;

/// Which counter a count came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Count {
    /// `oee.total`
    Total,
    /// `oee.good`
    Good,
    /// `oee.reject`
    Reject,
}

/// What the counters added. Any two of total, good and reject give the third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    total: f64,
    good: f64,
    reject: f64,
}

impl Counts {
    /// Adds a difference.
    pub fn add(&mut self, which: Count, difference: f64) {
        match which {
            Count::Total => self.total += difference,
            Count::Good => self.good += difference,
            Count::Reject => self.reject += difference,
        }
    }

    /// All parts; `None` where no counter tells.
    #[must_use]
    pub fn total(&self, spec: &OeeSpec) -> Option<f64> {
        match (&spec.total, &spec.good, &spec.reject) {
            (Some(_), _, _) => Some(self.total),
            (None, Some(_), Some(_)) => Some(self.good + self.reject),
            (None, Some(_), None) => Some(self.good),
            (None, None, _) => None,
        }
    }

    /// Good parts. All of them where only one counter counts parts.
    #[must_use]
    pub fn good(&self, spec: &OeeSpec) -> Option<f64> {
        match (&spec.total, &spec.good, &spec.reject) {
            (_, Some(_), _) => Some(self.good),
            (Some(_), None, Some(_)) => Some(self.total - self.reject),
            (Some(_), None, None) => Some(self.total),
            (None, None, _) => None,
        }
    }

    /// Rejected parts.
    #[must_use]
    pub fn reject(&self, spec: &OeeSpec) -> Option<f64> {
        match (&spec.total, &spec.good, &spec.reject) {
            (_, _, Some(_)) => Some(self.reject),
            (Some(_), Some(_), None) => Some(self.total - self.good),
            (Some(_), None, None) | (None, Some(_), None) => Some(0.0),
            (None, None, None) => None,
        }
    }
}

/// One shift of one station, as far as it was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Period {
    /// The shift's name.
    pub shift: Arc<str>,
    /// Its start, or the station's first observation if that is later.
    pub from: Time,
    /// Its end.
    pub to: Time,
    /// Nanoseconds in each state. Breaks of the plan are `break`, whatever the machine did.
    states: [i64; State::ALL.len()],
    /// What was counted.
    pub counts: Counts,
    /// Ideal time of the parts that performance speaks of, in nanoseconds.
    ideal_ns: f64,
    /// Parts counted across unknown time: in totals and quality, not in performance.
    pub unattributed: f64,
    /// Whether its end has passed.
    pub closed: bool,
    /// How often late data has changed it since it closed.
    pub revision: u32,
    /// Late data of the batch under way has changed it.
    #[serde(skip)]
    late: bool,
}

impl Period {
    /// Nothing observed yet.
    #[must_use]
    pub fn new(shift: Arc<str>, from: Time, to: Time) -> Self {
        Self {
            shift,
            from,
            to,
            states: [0; State::ALL.len()],
            counts: Counts::default(),
            ideal_ns: 0.0,
            unattributed: 0.0,
            closed: false,
            revision: 0,
            late: false,
        }
    }

    /// Spends time in a state.
    pub fn spend(&mut self, state: State, nanoseconds: i64) {
        self.states[state as usize] += nanoseconds;
    }

    /// Something has changed it: late data, if it was closed.
    pub fn change(&mut self) {
        self.late |= self.closed;
    }

    /// One new revision for all that a batch has changed.
    pub fn revise(&mut self, station: &Arc<str>, out: &mut Derived) {
        if std::mem::take(&mut self.late) {
            self.revision += 1;
            out.closed.push((station.clone(), self.clone()));
        }
    }

    /// Lets `parts` of the given ideal time count for performance.
    pub fn perform(&mut self, parts: f64, ideal_ns: f64) {
        self.ideal_ns += parts * ideal_ns;
    }

    /// Time in each state that was seen, in the order of [`State::ALL`].
    pub fn states(&self) -> impl Iterator<Item = (State, i64)> {
        State::ALL.into_iter().map(|state| (state, self.states[state as usize])).filter(|&(_, spent)| spent > 0)
    }

    /// The figures, by ISO 22400-2's names and the loss accounting of preset `vorne`: run time is
    /// producing and slow; every other known state in planned time is availability loss.
    ///
    /// Availability = run / planned, performance = sum(ideal cycle time x parts) / run, quality = good / total,
    /// OEE their product, over the planned time that is known. Nothing is capped.
    ///
    /// Target is how many parts should have been made so far (Vorne's scoreboard, target against actual:
    /// <https://www.vorne.com/solutions/applications/takt-time>), here at the ideal cycle time: planned / ideal cycle
    /// time. It speaks for the planned time that is known, so parts counted across unknown time do not belong beside it.
    #[must_use]
    pub fn view(&self, spec: &OeeSpec) -> KpiView {
        let spent =
            |wanted: fn(State) -> bool| self.states().filter(|&(state, _)| wanted(state)).map(|(_, ns)| ns).sum();
        let run_ns: i64 = spent(State::is_run);
        let unknown_ns = self.states[State::Unknown as usize];
        let planned_ns: i64 = spent(|state| !state.is_unplanned() && state != State::Unknown);
        let (run, planned, unknown) = (real(run_ns), real(planned_ns), real(unknown_ns));

        let total = self.counts.total(spec);
        let good = self.counts.good(spec);
        let reject = self.counts.reject(spec);
        let of_total = |part: Option<f64>| Some(part? / total.filter(|&total| total > 0.0)?);
        let quality = of_total(good);

        let availability = (planned_ns > 0).then(|| run / planned);
        let rated = spec.ideal_cycle_time.is_some() && total.is_some();
        let performance = (rated && run_ns > 0).then(|| self.ideal_ns / run);
        let oee = match (availability, performance, quality) {
            _ if !rated => None,
            (Some(availability), Some(performance), Some(quality)) => Some(availability * performance * quality),
            // Planned and nothing run, or run and nothing made.
            (Some(_), None, _) | (Some(_), Some(_), None) => Some(0.0),
            (None, _, _) => None,
        };
        let all = planned + unknown;
        let seen = planned_ns + unknown_ns > 0;
        let coverage = seen.then(|| planned / all);
        let oee_bounds = (seen && rated).then(|| {
            (self.ideal_ns * quality.unwrap_or(0.0) / all, (self.ideal_ns + unknown) * quality.unwrap_or(1.0) / all)
        });
        let target = spec.ideal_cycle_time.filter(|_| planned_ns > 0).map(|ideal| planned / nanoseconds(ideal));
        let withheld = coverage.is_some_and(|coverage| coverage < spec.min_coverage);
        let unless_withheld = |figure: Option<f64>| figure.filter(|_| !withheld);
        KpiView {
            since: self.from,
            figures: Figures {
                oee: unless_withheld(oee),
                availability: unless_withheld(availability),
                performance: unless_withheld(performance),
                quality,
                coverage,
                first_pass_yield: quality,
                defect_rate: of_total(reject),
            },
            oee_bounds,
            target,
            total,
            good,
            reject,
            unattributed: self.unattributed,
            quality_assumed: spec.reject.is_none() && (spec.good.is_none() || spec.total.is_none()) && good.is_some(),
            scheduled: self.states().next().map(|_| seen),
            planned_ns,
            run_ns,
            unknown_ns,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
fn real(nanoseconds: i64) -> f64 {
    nanoseconds as f64
}
