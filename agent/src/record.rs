//! What the line model says, and what the spool keeps beside the readings themselves.

use std::sync::Arc;

use gemba_drivers::{Backfill, Event, Loss, Time, Validity};
use serde::{Deserialize, Serialize};

use crate::model::anomaly::{Change, Episode, EpisodeId};
use crate::model::spc::{Rule, Violation};
use crate::model::{Entry, LineBy, State};
use crate::snapshot::KpiView;

/// Something derived: it goes upstream as OTLP metrics or as an OTLP log.
///
/// Stored with postcard, which tells nothing apart by name: a variant is only ever added at the end, and a field makes records
/// of before unreadable, which are counted as losses at best. Until gemba's first release fields are added all the same, as with
/// checkpoints; after it what has a new field is a new variant (see [`crate::spool`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A station's figures and sums at one instant.
    Kpi(Box<KpiPoint>),
    /// A station went from one state to another.
    StateChanged {
        /// Which station.
        station: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was.
        from: State,
        /// What it is.
        to: State,
    },
    /// A tag's validity changed.
    ValidityChanged {
        /// Which station.
        station: Arc<str>,
        /// Which tag.
        tag: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was.
        from: Validity,
        /// What it is.
        to: Validity,
    },
    /// A text tag changed.
    TagChanged {
        /// Which station.
        station: Arc<str>,
        /// Which tag.
        tag: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was, if anything was known.
        from: Option<Arc<str>>,
        /// What it is.
        to: Arc<str>,
    },
    /// An entry of the loss ledger.
    Loss {
        /// The entry.
        loss: Loss,
        /// All that was ever lost from this source for this reason, this entry included.
        total: u64,
        /// Since when that is counted: the start of the sum, which never moves.
        since: Time,
        /// The instant of the total: the end of the span, or that of the total before it if this one lies further back.
        at: Time,
    },
    /// A unit was at a station: told when it leaves.
    Visit(Box<Visit>),
    /// A device told that something happened.
    Event(Box<Event>),
    /// A gap of a station was filled from the source's history.
    Backfilled(Backfill),
    /// An anomaly was detected, got worse, or ended.
    Anomaly(Box<AnomalyTold>),
    /// A rule of a control chart was broken.
    Violation(Box<ViolationTold>),
    /// Another version of the inspection model judges from now on.
    ModelChanged {
        /// Which station.
        station: Arc<str>,
        /// When, by the source.
        time: Time,
        /// What it was, if it was known.
        from: Option<Arc<str>>,
        /// What it is.
        to: Arc<str>,
    },
    /// What watches a station, in figures and sums at one instant.
    Watched(Box<WatchPoint>),
    /// Somebody told something that no tag does.
    Entered(Arc<Entry>),
    /// The line as a whole at one instant.
    Line(Box<LinePoint>),
}

/// The stay of one unit at one station.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// Which station.
    pub station: Arc<str>,
    /// Which unit.
    pub serial: Arc<str>,
    /// What it is, if told.
    pub product: Option<Arc<str>>,
    /// Which lot it belongs to, if told.
    pub lot: Option<Arc<str>>,
    /// Its arrival, or the first that was heard of it.
    pub from: Time,
    /// Its departure, or the last that was heard of it.
    pub to: Time,
    /// Somebody watched when it came.
    pub arrival_seen: bool,
    /// Somebody watched when it left.
    pub departure_seen: bool,
}

/// A station's figures and sums at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KpiPoint {
    /// Which station.
    pub station: Arc<str>,
    /// Which shift the figures are of; none outside shifts.
    pub shift: Option<Arc<str>>,
    /// When.
    pub time: Time,
    /// The figures of the shift so far; none outside shifts.
    pub figures: Option<Figures>,
    /// Since when the sums count: the station's first observation ever.
    pub since: Time,
    /// The sums. They only grow. Empty at the end of a shift: its figures are told once late readings had their time, and
    /// sums of an instant are told once only.
    pub sums: Sums,
    /// What else is known of the shift so far; none outside shifts.
    pub beside: Option<Beside>,
}

/// Figures of a shift beside its ratios; `None` is "cannot be known", or that the configuration says nothing to know it by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// OEE over all the time that is known.
    pub teep: Option<f64>,
    /// Parts that should have been made by now.
    pub target: Option<f64>,
    /// Parts that were made; only where there is a target.
    pub actual: Option<f64>,
    /// Failures that began; `None` too where no state was known.
    pub failures: Option<u64>,
    /// Mean operating time between failures, in seconds.
    pub mtbf: Option<f64>,
    /// Mean time to restoration, in seconds.
    pub mttr: Option<f64>,
    /// Corrective maintenance time over all maintenance time.
    pub corrective_ratio: Option<f64>,
    /// Joules by the parts made.
    pub energy_per_part: Option<f64>,
    /// Joules by the good parts made.
    pub energy_per_good_part: Option<f64>,
    /// In the line's currency.
    pub cost_per_good_part: Option<f64>,
}

impl From<&KpiView> for Beside {
    fn from(kpi: &KpiView) -> Self {
        Self {
            teep: kpi.teep,
            target: kpi.target,
            actual: kpi.total.filter(|_| kpi.target.is_some()),
            failures: Some(kpi.maintenance.failures).filter(|&failures| failures > 0 || kpi.planned_ns > 0),
            mtbf: kpi.maintenance.mtbf,
            mttr: kpi.maintenance.mttr,
            corrective_ratio: kpi.maintenance.corrective_ratio,
            energy_per_part: kpi.energy.and_then(|energy| energy.per_part),
            energy_per_good_part: kpi.energy.and_then(|energy| energy.per_good_part),
            cost_per_good_part: kpi.cost.and_then(|cost| cost.per_good_part),
        }
    }
}

/// The line as a whole at one instant. `None` is "cannot be known".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinePoint {
    /// Which shift the figures are of.
    pub shift: Arc<str>,
    /// When.
    pub time: Time,
    /// Whose pace the line is measured by.
    pub by: LineBy,
    /// Good ideal time over planned time.
    pub oee: Option<f64>,
    /// The product of the stations' first-pass yields.
    pub rolled_yield: Option<f64>,
}

/// Ratios of one period; `None` is "cannot be known".
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Availability x performance x quality (ISO 22400-2).
    pub oee: Option<f64>,
    /// Run time over planned production time.
    pub availability: Option<f64>,
    /// Ideal time of the parts made over run time.
    pub performance: Option<f64>,
    /// Good parts over all parts.
    pub quality: Option<f64>,
    /// Known planned time over planned time.
    pub coverage: Option<f64>,
    /// Good at the first pass, over all parts.
    pub first_pass_yield: Option<f64>,
    /// Defects a part.
    pub defect_rate: Option<f64>,
}

/// What accumulates over a station's life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Good parts; `None` where no counter tells.
    pub good: Option<f64>,
    /// Rejected parts.
    pub reject: Option<f64>,
    /// Nanoseconds in each state that was ever seen.
    pub state_time: Vec<(State, i64)>,
    /// Nanoseconds of downtime by reason, and whether it was planned.
    pub downtime: Vec<(Arc<str>, bool, i64)>,
    /// Cycle times, in seconds.
    pub cycle: CycleHistogram,
    /// Reworked parts; `None` where no counter tells.
    pub rework: Option<f64>,
    /// Energy taken, in joules; `None` where no counter tells.
    pub energy: Option<f64>,
    /// Of it, while the machine was known not to run.
    pub idle_energy: Option<f64>,
    /// Of the rejected parts those of start-ups; `None` where the configuration says nothing of start-ups.
    pub startup_reject: Option<f64>,
    /// What people rejected, by code. Upstream hears of it with [`InspectionSums::defects`] where the station inspects, too.
    pub defects: Vec<(Arc<str>, u64)>,
}

/// Cycle times as an OTel base-2 exponential histogram (scale, offset, counts), in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CycleHistogram {
    /// Bucket `i` holds `(base^i, base^(i+1)]` with `base = 2^(2^-scale)`.
    pub scale: i32,
    /// How many cycles.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum: f64,
    /// The shortest.
    pub min: f64,
    /// The longest.
    pub max: f64,
    /// Cycles of no measurable time.
    pub zero_count: u64,
    /// Index of the first bucket.
    pub offset: i32,
    /// Count of each bucket from `offset` on.
    pub buckets: Vec<u64>,
}

/// Something happened to an anomaly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyTold {
    /// Which station.
    pub station: Arc<str>,
    /// Which tag.
    pub tag: Arc<str>,
    /// Which detector of the station.
    pub detector: Arc<str>,
    /// The word of its method.
    pub method: Arc<str>,
    /// What.
    pub change: Change,
    /// When, by the source.
    pub time: Time,
    /// The anomaly as it was then.
    pub episode: Episode,
}

impl AnomalyTold {
    /// Which anomaly.
    #[must_use]
    pub fn id(&self) -> EpisodeId {
        EpisodeId {
            station: self.station.clone(),
            tag: self.tag.clone(),
            detector: self.detector.clone(),
            began: self.episode.began,
        }
    }
}

/// A rule of a control chart was broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViolationTold {
    /// Which station.
    pub station: Arc<str>,
    /// The names of the tags that the chart is drawn of: `diameter`, or `rejects/total`.
    pub tags: Arc<str>,
    /// Which rule, and by which points.
    pub violation: Violation,
}

impl ViolationTold {
    /// When the flagged point was complete.
    #[must_use]
    pub fn time(&self) -> Time {
        self.violation.at().map_or_else(Time::default, |named| named.at)
    }
}

/// What watches a station, in figures and sums at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchPoint {
    /// Which station.
    pub station: Arc<str>,
    /// When.
    pub time: Time,
    /// Detectors that have seen a reading.
    pub detectors: Vec<DetectorPoint>,
    /// Charts that have seen a reading.
    pub charts: Vec<ChartPoint>,
    /// What was inspected since ever; none at the end of a shift, as with [`KpiPoint::sums`].
    pub inspection: Option<InspectionSums>,
    /// What was inspected in a shift.
    pub rates: Option<InspectionRates>,
}

/// A detector at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorPoint {
    /// Its name.
    pub detector: Arc<str>,
    /// Its first reading.
    pub since: Time,
    /// How many anomalies ever were a warning.
    pub warning: u64,
    /// How many ever were critical.
    pub critical: u64,
    /// From their beginning to their detection, in seconds.
    pub latency: CycleHistogram,
    /// Of those judged the share that was dismissed; none without any.
    pub false_positives: Option<f64>,
}

/// A control chart at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChartPoint {
    /// Its name.
    pub chart: Arc<str>,
    /// Its first reading.
    pub since: Time,
    /// How often each rule was ever broken; those that never were are left out.
    pub violations: Vec<(Rule, u64)>,
    /// Where there is a tolerance.
    pub capability: Option<CapabilityPoint>,
}

/// Capability since the limits stand; `None` is "cannot be known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CapabilityPoint {
    /// Within subgroups, of the whole tolerance.
    pub cp: Option<f64>,
    /// Within subgroups, of the nearer side.
    pub cpk: Option<f64>,
    /// Of all readings, and the whole tolerance.
    pub pp: Option<f64>,
    /// Of all readings, and the nearer side.
    pub ppk: Option<f64>,
    /// Round the target.
    pub cpm: Option<f64>,
}

/// What was inspected since ever. None of it falls but the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectionSums {
    /// The first reading.
    pub since: Time,
    /// The machine said good.
    pub pass: u64,
    /// It rejected.
    pub fail: u64,
    /// It was not sure.
    pub review: u64,
    /// Nobody saw what it said, or the map lacks it.
    pub unknown: u64,
    /// How often each defect was told, by the machine or by people.
    pub defects: Vec<(Arc<str>, u64)>,
    /// How long the inference took, in seconds.
    pub latency: CycleHistogram,
    /// The scores, where a tag tells them.
    pub scores: Option<ScoreHistogram>,
    /// How many wait.
    pub queue: Option<f64>,
}

/// Scores: bin `i` holds what is above edge `i - 1` and not above edge `i`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreHistogram {
    /// Ascending.
    pub edges: Vec<f64>,
    /// One more than edges.
    pub counts: Vec<u64>,
}

/// What the inspections of a shift say; `None` is "cannot be known". See
/// [`InspectionFigures`](crate::model::inspection::InspectionFigures).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectionRates {
    /// Which shift.
    pub shift: Arc<str>,
    /// Inspections an hour.
    pub per_hour: Option<f64>,
    /// Passed.
    pub passed: Option<f64>,
    /// Passed at the first inspection.
    pub first_pass_yield: Option<f64>,
    /// Looked at by a person.
    pub manual_review: Option<f64>,
    /// Good units that were rejected.
    pub false_reject: Option<f64>,
    /// Defective units that were passed.
    pub escape: Option<f64>,
    /// Decisions that were right.
    pub accuracy: Option<f64>,
    /// Rejects that were right.
    pub precision: Option<f64>,
    /// Defective units that were rejected.
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Defects per unit.
    pub dpu: Option<f64>,
    /// How many decisions a review has labelled: what the six before speak for.
    pub labelled: u64,
    /// For each version of the model.
    pub drift: Vec<DriftPoint>,
    /// Defects per million opportunities.
    pub dpmo: Option<f64>,
    /// Rejected units in a million.
    pub ppm: Option<f64>,
    /// By product, where the configuration names any.
    pub products: Vec<ProductPoint>,
}

/// What inspections say of one product; see [`ProductFigures`](crate::model::inspection::ProductFigures).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProductPoint {
    /// Its name; `None` where it is not known, or not configured.
    pub product: Option<Arc<str>>,
    /// Defects per unit.
    pub dpu: Option<f64>,
    /// Defects per million opportunities.
    pub dpmo: Option<f64>,
    /// Rejected units in a million.
    pub ppm: Option<f64>,
}

/// How far scores lie from their baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftPoint {
    /// Which version of the model, where a tag tells one and each has a baseline of its own.
    pub version: Option<Arc<str>>,
    /// Population stability index.
    pub psi: Option<f64>,
    /// Kolmogorov-Smirnov distance.
    pub ks: Option<f64>,
}
