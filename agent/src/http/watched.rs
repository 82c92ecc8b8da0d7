//! The JSON of what watches a station: wire types, on `/health` and of `gemba replay`. Null is "cannot be known".

use std::collections::BTreeMap;

use gemba_drivers::Time;
use serde::Serialize;

use crate::model::InspectedShift;
use crate::model::anomaly::{Baseline, Episode, Severity};
use crate::model::inspection::{Drift as DriftOf, InspectionFigures, ProductFigures as OfProduct};
use crate::model::quality::Ratio as RatioOf;
use crate::model::spc::{
    Capability as CapabilityOf, Limits as LimitsOf, Named, Part, Phase, Side, Violation as Broken, Window,
};
use crate::record::{AnomalyTold, CycleHistogram, InspectionSums, ViolationTold};
use crate::snapshot::{ChartView, DetectorView, InspectionView};

/// A detector of anomalies. What is said is what was settled: it is two seconds behind.
#[derive(Debug, Serialize)]
pub(super) struct Detector<'a> {
    name: &'a str,
    tag: &'a str,
    method: &'static str,
    /// Its first reading: since when it counts.
    since: Option<Time>,
    baseline: Option<Learnt>,
    open: Option<Anomaly>,
    /// The last ones that are over, newest first; at most 10.
    over: Vec<Anomaly>,
    detected: u64,
    warning: u64,
    critical: u64,
    /// From beginning to detection.
    latency: Option<Durations>,
    confirmed: u64,
    dismissed: u64,
    /// Of those judged the share that was dismissed.
    false_positive_ratio: Option<f64>,
}

/// What a method with a baseline goes by.
#[derive(Debug, Serialize)]
struct Learnt {
    /// Null while it learns.
    center: Option<f64>,
    spread: Option<f64>,
    /// So many readings of `warm_up`, while it learns.
    #[serde(skip_serializing_if = "Option::is_none")]
    readings: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_up: Option<u32>,
}

/// An anomaly.
#[derive(Debug, Serialize)]
pub struct Anomaly {
    began: Time,
    detected: Time,
    detection_latency_s: f64,
    severity: &'static str,
    /// Of the reading farthest out so far.
    value: f64,
    score: f64,
    expected: Option<f64>,
    /// Null while it lasts.
    ended: Option<Time>,
    end: Option<&'static str>,
    verdict: Option<&'static str>,
}

/// An anomaly and whose it is.
#[derive(Debug, Serialize)]
pub struct NamedAnomaly<'a> {
    id: String,
    station: &'a str,
    tag: &'a str,
    detector: &'a str,
    method: &'a str,
    #[serde(flatten)]
    anomaly: Anomaly,
}

/// How long things took.
#[derive(Debug, Serialize)]
struct Durations {
    count: u64,
    mean_s: f64,
    min_s: f64,
    max_s: f64,
}

/// A control chart; likewise two seconds behind.
#[derive(Debug, Serialize)]
pub struct Chart<'a> {
    name: &'a str,
    /// Its tags: `diameter`, or `rejects/total`.
    tag: &'a str,
    chart: &'static str,
    since: Option<Time>,
    phase: Phasing,
    sigma: Option<f64>,
    /// The last subgroup; null before there is one.
    last: Option<Point>,
    in_control: Option<bool>,
    /// The last ones, in order of time; at most 20.
    violations: Vec<Violation<'a>>,
    /// How often each rule was ever broken.
    broken: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capability: Vec<Capability>,
    late: u64,
    incomplete: u64,
}

/// A control chart of a station.
#[derive(Debug, Serialize)]
pub struct NamedChart<'a> {
    station: &'a str,
    #[serde(flatten)]
    chart: Chart<'a>,
}

/// Where the limits of a chart come from.
#[derive(Debug, Serialize)]
#[serde(tag = "limits", rename_all = "snake_case")]
enum Phasing {
    /// So many subgroups so far, of so many.
    Awaited { have: usize, of: usize },
    /// From phase 1; frozen.
    Estimated { from: Time, to: Time, subgroups: u32 },
    /// By the configuration.
    Given,
}

#[derive(Debug, Serialize)]
struct Point {
    index: u64,
    from: Time,
    at: Time,
    size: f64,
    value: f64,
    spread: Option<f64>,
    /// Of an EWMA the average, of a CUSUM the larger sum.
    weighed: Option<f64>,
    location: Option<Limits>,
    spread_limits: Option<Limits>,
}

#[derive(Debug, Serialize)]
struct Limits {
    center: f64,
    lower: Option<f64>,
    upper: Option<f64>,
}

/// A broken rule.
#[derive(Debug, Serialize)]
pub struct Violation<'a> {
    chart: &'a str,
    part: &'static str,
    rule: &'static str,
    says: &'static str,
    side: Option<&'static str>,
    at: Option<Time>,
    points: Vec<NamedPoint>,
}

/// A broken rule and where.
#[derive(Debug, Serialize)]
pub struct NamedViolation<'a> {
    station: &'a str,
    tag: &'a str,
    #[serde(flatten)]
    violation: Violation<'a>,
}

#[derive(Debug, Serialize)]
struct NamedPoint {
    index: u64,
    at: Time,
    value: f64,
}

#[derive(Debug, Serialize)]
struct Capability {
    /// Over which readings: `phase_1`, or `since_limits`.
    window: &'static str,
    from: Time,
    to: Time,
    readings: u64,
    mean: f64,
    within: Option<f64>,
    overall: Option<f64>,
    cp: Option<f64>,
    cpk: Option<f64>,
    pp: Option<f64>,
    ppk: Option<f64>,
    cpm: Option<f64>,
}

/// An inspection; likewise two seconds behind.
#[derive(Debug, Serialize)]
pub(super) struct Inspection<'a> {
    since: Option<Time>,
    /// The version of the inspection model that was told last.
    model: Option<&'a str>,
    /// How many scores of its baseline were learnt, of how many; left out with one that is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Progress>,
    /// How many wait.
    queue: Option<f64>,
    /// Since then.
    total: Option<Total>,
    /// The shift so far.
    shift: Option<Figures>,
}

#[derive(Debug, Serialize)]
struct Progress {
    have: usize,
    of: usize,
}

#[derive(Debug, Serialize)]
struct Total {
    pass: u64,
    fail: u64,
    review: u64,
    unknown: u64,
}

/// What was inspected in a shift.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    since: Time,
    inspections: u64,
    per_hour: Option<f64>,
    passed: Option<Ratio>,
    first_pass_yield: Option<Ratio>,
    manual_review: Option<Ratio>,
    false_reject: Option<Ratio>,
    escape: Option<Ratio>,
    accuracy: Option<Ratio>,
    precision: Option<Ratio>,
    recall: Option<Ratio>,
    f1: Option<Ratio>,
    dpu: Option<Ratio>,
    /// Per million opportunities; null where those are not known.
    dpmo: Option<Ratio>,
    sigma_level: Option<f64>,
    ppm: Option<Ratio>,
    /// Where the configuration names products.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    products: Vec<ProductFigures>,
    defects: BTreeMap<String, u64>,
    scores: Option<Histogram>,
    queue: Option<Queue>,
    drift: Vec<Drift>,
    /// Reviews of inspections that nobody remembers.
    unmatched_reviews: u64,
}

/// What was inspected of one product.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ProductFigures {
    /// Null where it is not known, or not configured.
    product: Option<String>,
    inspections: u64,
    dpu: Option<Ratio>,
    dpmo: Option<Ratio>,
    ppm: Option<Ratio>,
}

/// A share, and of how many it is one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratio {
    value: f64,
    n: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Histogram {
    edges: Vec<f64>,
    counts: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Queue {
    at: Time,
    last: f64,
    max: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Drift {
    version: Option<String>,
    n: u64,
    psi: Option<f64>,
    ks: Option<f64>,
}

/// What was inspected in a shift at a station.
#[derive(Debug, Serialize)]
pub struct NamedFigures<'a> {
    station: &'a str,
    shift: &'a str,
    to: Time,
    #[serde(flatten)]
    figures: Figures,
}

impl<'a> From<&'a DetectorView> for Detector<'a> {
    fn from(view: &'a DetectorView) -> Self {
        let baseline = match view.baseline {
            Baseline::Fixed => None,
            Baseline::Learning { readings, warm_up } => {
                Some(Learnt { center: None, spread: None, readings: Some(readings), warm_up: Some(warm_up) })
            }
            Baseline::Learnt { center, spread } => {
                Some(Learnt { center: Some(center), spread, readings: None, warm_up: None })
            }
        };
        Self {
            name: &view.name,
            tag: &view.tag,
            method: view.method,
            since: view.since,
            baseline,
            open: view.open.as_ref().map(Anomaly::from),
            over: view.over.iter().map(Anomaly::from).collect(),
            detected: view.counts.detected,
            warning: view.counts.of(Severity::Warning),
            critical: view.counts.of(Severity::Critical),
            latency: Durations::of(&view.latency),
            confirmed: view.verdicts.confirmed,
            dismissed: view.verdicts.dismissed,
            false_positive_ratio: view.verdicts.false_positives(),
        }
    }
}

impl From<&Episode> for Anomaly {
    fn from(episode: &Episode) -> Self {
        Self {
            began: episode.began,
            detected: episode.detected,
            detection_latency_s: episode.latency_s,
            severity: episode.severity.word(),
            value: episode.peak.value,
            score: episode.peak.score,
            expected: episode.expected,
            ended: episode.ended.map(|ended| ended.at),
            end: episode.ended.map(|ended| ended.how.word()),
            verdict: episode.verdict.map(crate::model::anomaly::Verdict::word),
        }
    }
}

impl<'a> From<&'a AnomalyTold> for NamedAnomaly<'a> {
    fn from(told: &'a AnomalyTold) -> Self {
        Self {
            id: told.id().to_string(),
            station: &told.station,
            tag: &told.tag,
            detector: &told.detector,
            method: &told.method,
            anomaly: Anomaly::from(&told.episode),
        }
    }
}

impl Durations {
    fn of(held: &CycleHistogram) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "a count of anomalies")]
        let count = held.count as f64;
        (held.count > 0).then(|| Self { count: held.count, mean_s: held.sum / count, min_s: held.min, max_s: held.max })
    }
}

impl<'a> From<&'a ChartView> for Chart<'a> {
    fn from(view: &'a ChartView) -> Self {
        let chart = &view.chart;
        let last = chart.points.last().map(|plotted| Point {
            index: plotted.point.index,
            from: plotted.point.from,
            at: plotted.point.at,
            size: plotted.point.size,
            value: plotted.point.value,
            spread: plotted.point.spread,
            weighed: plotted.point.weighed.drawn(),
            location: plotted.location.map(Limits::from),
            spread_limits: plotted.spread.map(Limits::from),
        });
        Self {
            name: &chart.name,
            tag: &view.of,
            chart: chart.kind.word(),
            since: view.since,
            phase: match chart.phase {
                Phase::One { have, of } => Phasing::Awaited { have, of },
                Phase::Estimated { from, to, subgroups } => Phasing::Estimated { from, to, subgroups },
                Phase::Given => Phasing::Given,
            },
            sigma: chart.sigma,
            last,
            in_control: chart.in_control,
            violations: chart.violations.iter().map(Violation::from).collect(),
            broken: view.broken.iter().map(|(rule, count)| (rule.word(), *count)).collect(),
            capability: chart.capability.iter().map(Capability::from).collect(),
            late: chart.late,
            incomplete: chart.incomplete,
        }
    }
}

impl<'a> NamedChart<'a> {
    /// The chart of that station.
    #[must_use]
    pub fn new(station: &'a str, view: &'a ChartView) -> Self {
        Self { station, chart: Chart::from(view) }
    }
}

impl From<LimitsOf> for Limits {
    fn from(LimitsOf { center, lower, upper }: LimitsOf) -> Self {
        Self { center, lower, upper }
    }
}

impl<'a> From<&'a Broken> for Violation<'a> {
    fn from(broken: &'a Broken) -> Self {
        Self {
            chart: &broken.chart,
            part: match broken.part {
                Part::Location => "location",
                Part::Spread => "spread",
            },
            rule: broken.rule.word(),
            says: broken.rule.says(),
            side: broken.side.map(|side| match side {
                Side::Above => "above",
                Side::Below => "below",
            }),
            at: broken.at().map(|named| named.at),
            points: broken.points.iter().map(|&Named { index, at, value }| NamedPoint { index, at, value }).collect(),
        }
    }
}

impl<'a> From<&'a ViolationTold> for NamedViolation<'a> {
    fn from(told: &'a ViolationTold) -> Self {
        Self { station: &told.station, tag: &told.tags, violation: Violation::from(&told.violation) }
    }
}

impl From<&CapabilityOf> for Capability {
    fn from(of: &CapabilityOf) -> Self {
        let CapabilityOf { window, from, to, readings, mean, within, overall, cp, cpk, pp, ppk, cpm } = *of;
        let window = match window {
            Window::Phase1 => "phase_1",
            Window::SinceLimits => "since_limits",
        };
        Self { window, from, to, readings, mean, within, overall, cp, cpk, pp, ppk, cpm }
    }
}

impl<'a> From<&'a InspectionView> for Inspection<'a> {
    fn from(view: &'a InspectionView) -> Self {
        Self {
            since: view.since,
            model: view.model.as_deref(),
            baseline: view.learnt.map(|(have, of)| Progress { have, of }),
            queue: view.sums.as_ref().and_then(|sums| sums.queue),
            total: view.sums.as_ref().map(|&InspectionSums { pass, fail, review, unknown, .. }| Total {
                pass,
                fail,
                review,
                unknown,
            }),
            shift: view.shift.as_ref().map(Figures::from),
        }
    }
}

impl From<&InspectedShift> for Figures {
    fn from(shift: &InspectedShift) -> Self {
        let of: &InspectionFigures = &shift.figures;
        Self {
            since: shift.from,
            inspections: of.inspections,
            per_hour: of.per_hour,
            passed: of.passed.map(Ratio::from),
            first_pass_yield: of.first_pass_yield.map(Ratio::from),
            manual_review: of.manual_review.map(Ratio::from),
            false_reject: of.false_reject.map(Ratio::from),
            escape: of.escape.map(Ratio::from),
            accuracy: of.accuracy.map(Ratio::from),
            precision: of.precision.map(Ratio::from),
            recall: of.recall.map(Ratio::from),
            f1: of.f1.map(Ratio::from),
            dpu: of.dpu.map(Ratio::from),
            dpmo: of.dpmo.map(Ratio::from),
            sigma_level: of.sigma_level,
            ppm: of.ppm.map(Ratio::from),
            products: of.products.iter().map(ProductFigures::from).collect(),
            defects: of.defects.iter().map(|(code, count)| (code.to_string(), *count)).collect(),
            scores: of
                .scores
                .as_ref()
                .map(|scores| Histogram { edges: scores.edges.clone(), counts: scores.counts.clone() }),
            queue: of.queue.map(|queue| Queue { at: queue.at, last: queue.last, max: queue.max }),
            drift: of.drift.iter().map(Drift::from).collect(),
            unmatched_reviews: shift.tally.unmatched,
        }
    }
}

impl From<&OfProduct> for ProductFigures {
    fn from(of: &OfProduct) -> Self {
        Self {
            product: of.product.as_deref().map(str::to_owned),
            inspections: of.inspections,
            dpu: of.dpu.map(Ratio::from),
            dpmo: of.dpmo.map(Ratio::from),
            ppm: of.ppm.map(Ratio::from),
        }
    }
}

impl From<RatioOf> for Ratio {
    fn from(RatioOf { value, n }: RatioOf) -> Self {
        Self { value, n }
    }
}

impl From<&DriftOf> for Drift {
    fn from(of: &DriftOf) -> Self {
        Self { version: of.version.as_deref().map(str::to_owned), n: of.n, psi: of.psi, ks: of.ks }
    }
}

impl<'a> From<&'a InspectedShift> for NamedFigures<'a> {
    fn from(shift: &'a InspectedShift) -> Self {
        Self { station: &shift.station, shift: &shift.shift, to: shift.to, figures: Figures::from(shift) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::watched;
    use super::*;

    #[test]
    fn what_watches_a_station() {
        let view = watched();
        let station = &view.snapshot.stations[3];
        insta::assert_json_snapshot!("detectors", station.anomalies.iter().map(Detector::from).collect::<Vec<_>>());
        insta::assert_json_snapshot!("charts", station.charts.iter().map(Chart::from).collect::<Vec<_>>());
        insta::assert_json_snapshot!("inspection", station.inspection.as_ref().map(Inspection::from));
    }
}
