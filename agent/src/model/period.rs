//! One shift of one station, and the figures it gives.

use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::losses::Bucket;
use crate::model::tally::{Material, Repairs, Tally, real};
use crate::model::{OeeSpec, State};
use crate::record::Figures;
use crate::snapshot::{CostView, EnergyView, KpiView, Maintenance};

/// Which counter a count came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Count {
    /// `oee.total`
    Total,
    /// `oee.good`
    Good,
    /// `oee.reject`
    Reject,
    /// `oee.rework`
    Rework,
    /// `oee.energy`, in joules: no part.
    Energy,
}

/// What the counters added. Any two of total, good and reject give the third; where rework is counted it is beside good and
/// reject, and total = good + reject + rework. What people reject by hand moves from good to reject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    total: f64,
    good: f64,
    reject: f64,
    rework: f64,
    /// What people found among the good ones.
    by_hand: f64,
}

impl Counts {
    /// Adds a difference.
    pub fn add(&mut self, which: Count, difference: f64) {
        match which {
            Count::Total => self.total += difference,
            Count::Good => self.good += difference,
            Count::Reject => self.reject += difference,
            Count::Rework => self.rework += difference,
            Count::Energy => {}
        }
    }

    /// Adds what was counted at another time.
    pub fn join(&mut self, other: &Self) {
        self.total += other.total;
        self.good += other.good;
        self.reject += other.reject;
        self.rework += other.rework;
        self.by_hand += other.by_hand;
    }

    /// People found so many among the good ones: they are rejects, whatever the counters say.
    pub fn find(&mut self, by_hand: f64) {
        self.by_hand = by_hand;
    }

    /// How many the counters took for good, and people or later stations did not.
    #[must_use]
    pub fn by_hand(&self) -> f64 {
        self.by_hand
    }

    /// All parts; `None` where no counter tells.
    #[must_use]
    pub fn total(&self, spec: &OeeSpec) -> Option<f64> {
        match (&spec.total, &spec.good, &spec.reject) {
            (Some(_), _, _) => Some(self.total),
            (None, Some(_), Some(_)) => Some(self.good + self.reject + self.rework),
            (None, Some(_), None) => Some(self.good + self.rework),
            (None, None, _) => None,
        }
    }

    /// Parts that were good at the first pass; what was reworked is not. All of them where only one counter counts parts.
    #[must_use]
    pub fn good(&self, spec: &OeeSpec) -> Option<f64> {
        let counted = match (&spec.total, &spec.good, &spec.reject) {
            (_, Some(_), _) => Some(self.good),
            (Some(_), None, Some(_)) => Some(self.total - self.reject - self.rework),
            (Some(_), None, None) => Some(self.total - self.rework),
            (None, None, _) => None,
        };
        Some(counted? - self.by_hand)
    }

    /// Rejected parts.
    #[must_use]
    pub fn reject(&self, spec: &OeeSpec) -> Option<f64> {
        let counted = match (&spec.total, &spec.good, &spec.reject) {
            (_, _, Some(_)) => Some(self.reject),
            (Some(_), Some(_), None) => Some(self.total - self.good - self.rework),
            (Some(_), None, None) | (None, Some(_), None) => Some(0.0),
            (None, None, None) => None,
        };
        Some(counted? + self.by_hand)
    }

    /// Parts that were good after rework; `None` where no counter tells.
    #[must_use]
    pub fn rework(&self, spec: &OeeSpec) -> Option<f64> {
        spec.rework.as_ref().map(|_| self.rework)
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
    /// What it adds up to.
    pub tally: Tally,
    /// Whether its end has passed.
    pub closed: bool,
    /// How often late data has changed it since it closed.
    pub revision: u32,
}

impl Period {
    /// Time in each state that was seen, in the order of [`State::ALL`].
    pub fn states(&self) -> impl Iterator<Item = (State, i64)> {
        self.tally.states()
    }

    /// The figures.
    #[must_use]
    pub fn view(&self, spec: &OeeSpec) -> KpiView {
        self.tally.view(spec, self.from)
    }
}

impl Tally {
    /// The figures, by ISO 22400-2's names; which time is a loss of what is the preset's to say ([`crate::model::Preset`]).
    ///
    /// Availability = run / planned, performance = sum(ideal cycle time x parts) / run, quality = good / total,
    /// OEE their product, over the planned time that is known. Run is time in the buckets `run` and `performance`: what
    /// performance is measured against. Nothing is capped.
    ///
    /// Target is how many parts should have been made so far (Vorne's scoreboard, target against actual:
    /// <https://www.vorne.com/solutions/applications/takt-time>), at the product's takt, else at the ideal cycle time: planned
    /// / that. It speaks for the planned time that is known, so parts counted across unknown time do not belong beside it.
    ///
    /// TEEP = OEE x utilization, utilization being planned time over all time
    /// (<https://vorne.com/learn/tools/teep>); all time is that of the period, its breaks with it, as far as it is known.
    #[must_use]
    pub fn view(&self, spec: &OeeSpec, since: Time) -> KpiView {
        let run_ns = self.bucket(Bucket::Run) + self.bucket(Bucket::Performance);
        let planned_ns = self.planned_ns();
        let unknown_ns = self.state(State::Unknown);
        let (run, planned, unknown) = (real(run_ns), real(planned_ns), real(unknown_ns));

        let total = self.counts.total(spec);
        let good = self.counts.good(spec);
        let reject = self.counts.reject(spec);
        let of_total = |part: Option<f64>| Some(part? / total.filter(|&total| total > 0.0)?);
        let quality = self.quality(spec);

        let availability = (planned_ns > 0).then(|| run / planned);
        let ideal_ns = self.ideal_ns(spec).filter(|_| total.is_some());
        let performance = ideal_ns.filter(|_| run_ns > 0).map(|ideal_ns| ideal_ns / run);
        let oee = match (availability, performance, quality) {
            _ if ideal_ns.is_none() => None,
            (Some(availability), Some(performance), Some(quality)) => Some(availability * performance * quality),
            // Planned and nothing run, or run and nothing made.
            (Some(_), None, _) | (Some(_), Some(_), None) => Some(0.0),
            (None, _, _) => None,
        };
        let all = planned + unknown;
        let seen = planned_ns + unknown_ns > 0;
        let coverage = seen.then(|| planned / all);
        let oee_bounds = ideal_ns.filter(|_| seen).map(|ideal_ns| {
            (ideal_ns * quality.unwrap_or(0.0) / all, (ideal_ns + unknown) * quality.unwrap_or(1.0) / all)
        });
        let withheld = coverage.is_some_and(|coverage| coverage < spec.min_coverage);
        let unless_withheld = |figure: Option<f64>| figure.filter(|_| !withheld);
        KpiView {
            since,
            losses: spec.losses,
            figures: Figures {
                oee: unless_withheld(oee),
                availability: unless_withheld(availability),
                performance: unless_withheld(performance),
                quality,
                coverage,
                first_pass_yield: of_total(good),
                defect_rate: of_total(reject),
            },
            oee_bounds,
            target: self.target(),
            total,
            good,
            reject,
            rework: self.counts.rework(spec),
            startup_reject: self.startup_reject(spec),
            unattributed: self.unattributed,
            quality_assumed: spec.reject.is_none()
                && (spec.good.is_none() || spec.total.is_none())
                && good.is_some()
                && self.defects_by_code().next().is_none(),
            scheduled: self.states().next().map(|_| seen),
            planned_ns,
            run_ns,
            unknown_ns,
            energy: spec.energy.as_ref().map(|_| EnergyView {
                joules: self.energy_j,
                idle_joules: self.idle_energy_j,
                per_part: total.filter(|&total| total > 0.0).map(|total| self.energy_j / total),
                per_good_part: good.filter(|&good| good > 0.0).map(|good| self.energy_j / good),
            }),
            cost: self
                .cost(spec)
                .map(|cost| CostView { cost, per_good_part: good.filter(|&good| good > 0.0).map(|good| cost / good) }),
            teep: unless_withheld(oee.map(|oee| oee * planned / (planned + real(self.bucket(Bucket::NotPlanned))))),
            maintenance: self.maintenance(),
        }
    }

    /// Failures and repairs.
    ///
    /// Mean operating time between failures = operating time / failures (EN 15341; the term: EN 13306). Operating
    /// time is that of the states `producing` and `slow`. Mean time to restoration = time of the repairs that ended / their
    /// number (EN 15341); a failure lasts from when the machine ceases to run until it runs again, and counts where
    /// it ends, whatever shifts it touches. Corrective maintenance ratio = corrective / (corrective + planned maintenance
    /// time), as ISO 22400-2 has it.
    fn maintenance(&self) -> Maintenance {
        let Repairs { failures, mended, mended_ns, corrective_ns, preventive_ns } = self.repairs;
        let operating_ns = self.state(State::Producing) + self.state(State::Slow);
        let mean = |nanos: i64, count: u64| (count > 0).then(|| real(nanos) / 1e9 / whole(count));
        let maintained_ns = corrective_ns + preventive_ns;
        Maintenance {
            failures,
            repairs: mended,
            mtbf: mean(operating_ns, failures),
            mttr: mean(mended_ns, mended),
            corrective: real(corrective_ns) / 1e9,
            planned: real(preventive_ns) / 1e9,
            corrective_ratio: (maintained_ns > 0).then(|| real(corrective_ns) / real(maintained_ns)),
        }
    }

    /// What the window cost, as far as the configuration says what things cost: material of all parts, energy, and time. `None`
    /// where nothing of that is said, or the material of some parts is not while that of others is.
    fn cost(&self, spec: &OeeSpec) -> Option<f64> {
        let material = match self.material {
            Material::Unsaid => None,
            Material::Known(cost) => Some(cost),
            Material::Partly => return None,
        };
        let energy = spec.costs.energy_per_kwh.filter(|_| spec.energy.is_some());
        let energy = energy.map(|rate| rate * self.energy_j / JOULES_PER_KWH);
        let time: i64 = self.states().map(|(_, spent)| spent).sum();
        let time = spec.costs.time_per_hour.map(|rate| rate * real(time) / 3.6e12);
        [material, energy, time].into_iter().flatten().reduce(|sum, more| sum + more)
    }
}

/// A kilowatt-hour in joules.
pub const JOULES_PER_KWH: f64 = 3.6e6;
#[expect(clippy::cast_precision_loss, reason = "failures stay far below 2^53")]
fn whole(count: u64) -> f64 {
    count as f64
}
