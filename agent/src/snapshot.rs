//! What the outside may look at: the pipeline publishes it whole, handlers only read it.

use std::sync::Arc;

use gemba_drivers::treat::clock::ClockState;
use gemba_drivers::{Loss, Time, Validity, Value};

use crate::model::anomaly::{Baseline, Counts, Episode, Verdicts};
use crate::model::spc::{self, Rule};
use crate::model::{Entry, FlowView, InspectedShift, Preset, State};
use crate::record::{CycleHistogram, Figures, InspectionSums, Sums};
use crate::telemetry::metric::Metric;

/// The line as it stood at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken.
    pub time: Time,
    /// In the order configured.
    pub stations: Vec<StationView>,
    /// The line as a whole; nothing outside shifts, or where no flow is configured.
    pub flow: Option<FlowView>,
    /// The newest losses, newest first; at most 100.
    pub losses: Vec<Loss>,
    /// The last that people told, newest first; at most 100.
    pub entries: Vec<Arc<Entry>>,
    /// All that was ever lost: source, reason, count.
    pub loss_totals: Vec<(Arc<str>, Arc<str>, u64)>,
    /// What came in.
    pub intake: Intake,
    /// The buffer.
    pub spool: SpoolView,
}

/// What the drivers have handed over and the pipeline has taken in since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Readings that go upstream one by one: numbers, and what was bad.
    pub numbers: u64,
    /// Readings of text: only changes go upstream.
    pub texts: u64,
    /// Changes among them.
    pub text_changes: u64,
}

impl Intake {
    /// All readings.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.numbers + self.texts
    }
}

/// A station.
#[derive(Clone, Debug)]
pub struct StationView {
    /// Its name.
    pub name: Arc<str>,
    /// Index of its link in [`crate::config::Config::links`].
    pub link: usize,
    /// What the machine says it is doing; `None` for a station without `oee:`.
    pub state: Option<State>,
    /// Since when.
    pub state_since: Option<Time>,
    /// The shift that runs now.
    pub shift: Option<Arc<str>>,
    /// Figures of the shift so far; `None` outside shifts, before the first reading, and without `oee:`.
    pub kpi: Option<KpiView>,
    /// Those of the last minutes up to the last full one, and when that was; `None` before the first reading, and where nothing
    /// is said of how long.
    pub rolling: Option<(Time, KpiView)>,
    /// Since when `sums` count, and what they hold; `None` before the first reading and without `oee:`.
    pub sums: Option<(Time, Sums)>,
    /// In the order configured.
    pub tags: Vec<TagView>,
    /// What looks for anomalies, in the order configured.
    pub anomalies: Vec<DetectorView>,
    /// Control charts, in the order configured.
    pub charts: Vec<ChartView>,
    /// What it inspects, if it does.
    pub inspection: Option<InspectionView>,
}

/// A detector of anomalies.
#[derive(Clone, Debug)]
pub struct DetectorView {
    /// Its name within the station.
    pub name: Arc<str>,
    /// Of which tag.
    pub tag: Arc<str>,
    /// The word of its method.
    pub method: &'static str,
    /// Its first reading.
    pub since: Option<Time>,
    /// What it goes by.
    pub baseline: Baseline,
    /// The anomaly that lasts.
    pub open: Option<Episode>,
    /// The last ones that are over, newest first; at most 10.
    pub over: Vec<Episode>,
    /// How many there were.
    pub counts: Counts,
    /// From beginning to detection, in s.
    pub latency: CycleHistogram,
    /// What people said of them.
    pub verdicts: Verdicts,
}

/// A control chart.
#[derive(Clone, Debug)]
pub struct ChartView {
    /// The names of its tags.
    pub of: Arc<str>,
    /// Its first reading.
    pub since: Option<Time>,
    /// How often each rule was ever broken.
    pub broken: Vec<(Rule, u64)>,
    /// As it stands.
    pub chart: spc::View,
}

/// An inspection.
#[derive(Clone, Debug)]
pub struct InspectionView {
    /// Its first reading.
    pub since: Option<Time>,
    /// Since then; none before.
    pub sums: Option<InspectionSums>,
    /// The shift that runs, so far; none outside shifts and before the first reading.
    pub shift: Option<InspectedShift>,
    /// The version of the inspection model.
    pub model: Option<Arc<str>>,
    /// How many scores of its baseline were learnt, of how many; none with one that is given.
    pub learnt: Option<(usize, usize)>,
}

/// The figures of a shift so far.
#[derive(Clone, Debug, PartialEq)]
pub struct KpiView {
    /// The shift's start, or the station's first observation if that is later.
    pub since: Time,
    /// By which loss accounting.
    pub losses: Preset,
    /// The ratios.
    pub figures: Figures,
    /// OEE if all unknown time was down, and if it was all run at ideal speed.
    pub oee_bounds: Option<(f64, f64)>,
    /// Parts that the known planned time so far would have given at the ideal cycle time; `None` without either.
    pub target: Option<f64>,
    /// Parts made; `None` where no counter tells.
    pub total: Option<f64>,
    /// Good ones.
    pub good: Option<f64>,
    /// Rejected ones.
    pub reject: Option<f64>,
    /// Reworked ones; `None` where no counter tells.
    pub rework: Option<f64>,
    /// Of the rejected ones those of start-ups; `None` where nothing is said of start-ups.
    pub startup_reject: Option<f64>,
    /// Parts counted across unknown time.
    pub unattributed: f64,
    /// All parts were taken as good since nothing counts good or reject.
    pub quality_assumed: bool,
    /// Whether any of the period so far was planned for production; `None` before any of it has passed.
    pub scheduled: Option<bool>,
    /// Nanoseconds of planned time that are known, of them run, and of planned time that are unknown.
    pub planned_ns: i64,
    /// What performance is measured against: run time, and stops that the loss accounting takes for slow running.
    pub run_ns: i64,
    /// Unknown time within planned time.
    pub unknown_ns: i64,
    /// Where a counter tells it.
    pub energy: Option<EnergyView>,
    /// Where the configuration says what things cost.
    pub cost: Option<CostView>,
    /// OEE over all the time of the period that is known, breaks and all (TEEP).
    pub teep: Option<f64>,
    /// Failures and repairs.
    pub maintenance: Maintenance,
}

/// The energy of a period (ISO 22400-2: energy consumption by part).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnergyView {
    /// All of it, in joules.
    pub joules: f64,
    /// What was taken while the machine was known not to run.
    pub idle_joules: f64,
    /// All of it by the parts made; `None` without any.
    pub per_part: Option<f64>,
    /// All of it by the good parts.
    pub per_good_part: Option<f64>,
}

/// What a period cost, in the line's currency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CostView {
    /// Material, energy and time.
    pub cost: f64,
    /// By the good parts made; `None` without any.
    pub per_good_part: Option<f64>,
}

/// What failed and was mended in a period; see [`crate::model`] for the formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Maintenance {
    /// Failures that began.
    pub failures: u64,
    /// Failures that ended.
    pub repairs: u64,
    /// Mean operating time between failures, in seconds; `None` without a failure.
    pub mtbf: Option<f64>,
    /// Mean time to restoration, in seconds; `None` without a repair.
    pub mttr: Option<f64>,
    /// Seconds in failures.
    pub corrective: f64,
    /// Seconds of maintenance that no failure asked for.
    pub planned: f64,
    /// Corrective maintenance time over all maintenance time; `None` without either.
    pub corrective_ratio: Option<f64>,
}

impl KpiView {
    /// What somebody should look at, if the figures show it: no machine makes parts faster than at its best.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.figures.performance.is_some_and(|performance| performance > 1.0).then_some("check the ideal cycle time")
    }
}

/// A tag.
#[derive(Clone, Debug)]
pub struct TagView {
    /// Its name.
    pub name: Arc<str>,
    /// UCUM.
    pub unit: Option<Arc<str>>,
    /// Null when bad.
    pub value: Value,
    /// Why it is so.
    pub validity: Validity,
    /// The source's time; `None` when nothing ever came.
    pub source_time: Option<Time>,
    /// When the gateway got it.
    pub received_time: Option<Time>,
}

/// The buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolView {
    /// Records (readings, KPI points, events) that upstream does not have yet; the agent's own telemetry is not counted.
    pub records: u64,
    /// Of them, readings.
    pub readings: u64,
    /// On disk, as du counts it.
    pub bytes: u64,
    /// When the oldest of them was committed.
    pub oldest: Option<Time>,
    /// Readings dropped for want of room, ever.
    pub dropped: u64,
    /// Why the disk cannot be written at the moment, if so; readings are then held in memory.
    pub error: Option<String>,
    /// Memory has no room for more either: readings are being lost.
    pub full: bool,
}

/// The machine that the agent runs on. `None` is what it does not tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayView {
    /// When it was looked at; `None` before the first time.
    pub time: Option<Time>,
    /// Whether its clock is to be believed; `None` before the first look.
    pub clock: Option<ClockState>,
    /// Share of all cores that is at work, 0 to 1.
    pub cpu: Option<f64>,
    /// Bytes of memory in use, and how many there are.
    pub memory: Option<(u64, u64)>,
    /// Bytes in use on the disk that holds the spool, and its size.
    pub disk: Option<(u64, u64)>,
    /// Of the hottest sensor, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Share of one core that the agent takes, 0 to the number of cores.
    pub process_cpu: Option<f64>,
    /// Resident bytes of the agent.
    pub process_memory: Option<u64>,
    /// The same and more, by OpenTelemetry's names.
    pub metrics: Arc<[Metric]>,
}

/// The way up.
#[derive(Clone, Debug)]
pub struct UpstreamView {
    /// How it is.
    pub status: UpstreamStatus,
    /// Since when.
    pub since: Time,
    /// When upstream last accepted something.
    pub last_success: Option<Time>,
    /// Requests sent again, ever since the start.
    pub retries: u64,
    /// Points and log records that upstream refused for good.
    pub rejected: u64,
    /// Why it does not work, or last did not.
    pub last_error: Option<String>,
}

/// How the way up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamStatus {
    /// None is configured.
    None,
    /// Not tried yet.
    Connecting,
    /// The last request was answered as it should be.
    Connected,
    /// The last request was not, and will be tried again.
    Disconnected,
    /// Upstream refuses us (401, 403, 404 …): everything is kept, somebody must act.
    Blocked,
}

impl UpstreamStatus {
    /// The word on `/health`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Blocked => "blocked",
        }
    }
}
