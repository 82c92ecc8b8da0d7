//! What watches a station: anomalies, control charts and inspections, as metrics and as logs.
//!
//! | metric | kind, unit | attributes beside the station |
//! |---|---|---|
//! | `factory.anomalies` | sum, {anomaly} | `factory.anomaly.detector`, `factory.anomaly.severity`; one that got worse counts in both |
//! | `factory.anomaly.detection.latency` | exponential histogram, s | `factory.anomaly.detector` |
//! | `factory.anomaly.false_positive.ratio` | gauge, 1 | `factory.anomaly.detector`; only where people judged any |
//! | `factory.spc.violations` | sum, {violation} | `factory.spc.chart`, `factory.spc.rule` |
//! | `factory.spc.cp` `.cpk` `.pp` `.ppk` `.cpm` | gauge, 1 | `factory.spc.chart`; since its limits stand, where there is a tolerance |
//! | `factory.inspections` | sum, {inspection} | `factory.inspection.verdict` = pass, fail, review, unknown |
//! | `factory.defects` | sum, {defect} | `factory.defect.code` |
//! | `factory.inspection.score` | histogram, 1 | |
//! | `factory.inspection.inference.duration` | exponential histogram, s | |
//! | `factory.inspection.queue` | gauge, {unit} | |
//! | `factory.inspection.rate` | gauge, {inspection}/h | `factory.shift` |
//! | `factory.inspection.passed` `.first_pass` `.manual_review` `.false_reject` `.escape` `.accuracy` `.precision` `.recall` `.f1` `.dpu` | gauge, 1 | `factory.shift` |
//! | `factory.inspection.dpmo` | gauge, {defect} | `factory.shift`: in a million opportunities, where those are known |
//! | `factory.inspection.ppm` | gauge, {unit} | `factory.shift`: rejected units in a million |
//! | `factory.inspection.dpu` `.dpmo` `.ppm` | as they are | `factory.shift`, `factory.product`: the same of each configured product |
//! | `factory.inspection.labelled` | gauge, {inspection} | `factory.shift`: what the six from false reject to F1 speak for |
//! | `factory.inspection.drift.psi` `.ks` | gauge, 1 | `factory.shift`, and `factory.inspection.model.version` where one is told |

use std::sync::Arc;

use gemba_drivers::Time;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use crate::model::anomaly::{Change, Severity};
use crate::model::spc::{Part, Side};
use crate::otlp::attribute::{STATION, number, text, wholes};
use crate::otlp::events::log;
use crate::otlp::figures::{About, Families, Span};
use crate::record::{
    AnomalyTold, ChartPoint, DetectorPoint, InspectionRates, InspectionSums, ProductPoint, ViolationTold, WatchPoint,
};

/// Adds what `point` says in numbers.
pub(super) fn add(families: &mut Families, point: &WatchPoint) {
    point.detectors.iter().for_each(|detector| add_detector(families, point, detector));
    point.charts.iter().for_each(|chart| add_chart(families, point, chart));
    if let Some(sums) = &point.inspection {
        add_sums(families, point, sums);
    }
    if let Some(rates) = &point.rates {
        add_rates(families, point, rates);
    }
}

/// An anomaly as a log.
pub(super) fn anomaly(told: &AnomalyTold) -> LogRecord {
    let AnomalyTold { station, tag, detector, method, change, time, episode } = told;
    let severity = match (change, episode.severity) {
        (Change::Ended, _) => SeverityNumber::Info,
        (_, Severity::Warning) => SeverityNumber::Warn,
        (_, Severity::Critical) => SeverityNumber::Error,
    };
    let mut attributes = vec![
        text(STATION, &**station),
        text("factory.tag", &**tag),
        text("factory.anomaly.id", told.id().to_string()),
        text("factory.anomaly.detector", &**detector),
        text("factory.anomaly.method", &**method),
        text("factory.anomaly.severity", episode.severity.word()),
        number("factory.anomaly.score", episode.peak.score),
        number("factory.anomaly.value", episode.peak.value),
        text("factory.anomaly.began", episode.began.to_string()),
        number("factory.anomaly.detection.latency", episode.latency_s),
    ];
    attributes.extend(episode.expected.map(|expected| number("factory.anomaly.expected", expected)));
    if let Some(ended) = episode.ended {
        attributes.push(text("factory.anomaly.end", ended.how.word()));
        attributes.push(number("factory.anomaly.duration", ended.at.since(episode.began).as_secs_f64()));
    }
    let word = episode.severity.word();
    let (event, body) = match change {
        Change::Detected => (
            "factory.anomaly.detected",
            format!("{word}: {tag} of {station} is out of the ordinary by {detector}: {}", episode.peak.value),
        ),
        Change::Worsened => {
            ("factory.anomaly.worsened", format!("{word}: {tag} of {station} is farther out by {detector}"))
        }
        Change::Ended => (
            "factory.anomaly.ended",
            format!("the anomaly of {tag} of {station} by {detector} since {} is over", episode.began),
        ),
    };
    log(event, *time, severity, body, attributes)
}

/// A broken rule as a log.
pub(super) fn violation(told: &ViolationTold) -> LogRecord {
    let ViolationTold { station, tags, violation } = told;
    let mut attributes = vec![
        text(STATION, &**station),
        text("factory.tag", &**tags),
        text("factory.spc.chart", &*violation.chart),
        text("factory.spc.rule", violation.rule.word()),
        text("factory.spc.part", part(violation.part)),
    ];
    attributes.extend(violation.side.map(|told| text("factory.spc.side", side(told))));
    attributes.push(wholes("factory.spc.points", violation.points.iter().map(|point| point.index)));
    attributes.extend(violation.at().map(|named| number("factory.spc.value", named.value)));
    let body = format!("chart {} of {station}: {}", violation.chart, violation.rule.says());
    log("factory.spc.violation", told.time(), SeverityNumber::Warn, body, attributes)
}

/// Another inspection model as a log.
pub(super) fn model_changed(station: &str, time: Time, from: Option<&str>, to: &str) -> LogRecord {
    let mut attributes = vec![text(STATION, station), text("factory.inspection.model.version", to)];
    attributes.extend(from.map(|from| text("factory.inspection.model.previous", from)));
    let body = format!("{station} inspects by model {to}");
    log("factory.inspection.model.changed", time, SeverityNumber::Info, body, attributes)
}

fn add_detector(families: &mut Families, point: &WatchPoint, detector: &DetectorPoint) {
    let span = Span { since: detector.since, time: point.time };
    let name = || ("factory.anomaly.detector", detector.detector.clone());
    for (severity, count) in [(Severity::Warning, detector.warning), (Severity::Critical, detector.critical)] {
        let about = about(point, [name(), ("factory.anomaly.severity", severity.word().into())]);
        families.counted("factory.anomalies", "{anomaly}", &about, span, count);
    }
    families.duration("factory.anomaly.detection.latency", &about(point, [name()]), span, &detector.latency);
    if detector.false_positives.is_some() {
        let name = about(point, [name()]);
        families.gauge("factory.anomaly.false_positive.ratio", "1", &name, point.time, detector.false_positives);
    }
}

fn add_chart(families: &mut Families, point: &WatchPoint, chart: &ChartPoint) {
    let span = Span { since: chart.since, time: point.time };
    let name = || ("factory.spc.chart", chart.chart.clone());
    for (rule, count) in &chart.violations {
        let about = about(point, [name(), ("factory.spc.rule", rule.word().into())]);
        families.counted("factory.spc.violations", "{violation}", &about, span, *count);
    }
    let Some(of) = chart.capability else { return };
    for (metric, index) in [
        ("factory.spc.cp", of.cp),
        ("factory.spc.cpk", of.cpk),
        ("factory.spc.pp", of.pp),
        ("factory.spc.ppk", of.ppk),
        ("factory.spc.cpm", of.cpm),
    ] {
        families.gauge(metric, "1", &about(point, [name()]), point.time, index);
    }
}

fn add_sums(families: &mut Families, point: &WatchPoint, sums: &InspectionSums) {
    let span = Span { since: sums.since, time: point.time };
    for (verdict, count) in
        [("pass", sums.pass), ("fail", sums.fail), ("review", sums.review), ("unknown", sums.unknown)]
    {
        let about = about(point, [("factory.inspection.verdict", verdict.into())]);
        families.counted("factory.inspections", "{inspection}", &about, span, count);
    }
    for (code, count) in &sums.defects {
        let about = about(point, [("factory.defect.code", code.clone())]);
        families.counted("factory.defects", "{defect}", &about, span, *count);
    }
    families.duration("factory.inspection.inference.duration", &about(point, []), span, &sums.latency);
    if let Some(scores) = &sums.scores {
        families.histogram("factory.inspection.score", "1", &about(point, []), span, scores);
    }
    if sums.queue.is_some() {
        families.gauge("factory.inspection.queue", "{unit}", &about(point, []), point.time, sums.queue);
    }
}

fn add_rates(families: &mut Families, point: &WatchPoint, rates: &InspectionRates) {
    let shift = || ("factory.shift", rates.shift.clone());
    families.gauge("factory.inspection.rate", "{inspection}/h", &about(point, [shift()]), point.time, rates.per_hour);
    #[expect(clippy::cast_precision_loss, reason = "reviews by people")]
    let labelled = Some(rates.labelled as f64);
    families.gauge("factory.inspection.labelled", "{inspection}", &about(point, [shift()]), point.time, labelled);
    for (metric, rate) in [
        ("factory.inspection.passed", rates.passed),
        ("factory.inspection.first_pass", rates.first_pass_yield),
        ("factory.inspection.manual_review", rates.manual_review),
        ("factory.inspection.false_reject", rates.false_reject),
        ("factory.inspection.escape", rates.escape),
        ("factory.inspection.accuracy", rates.accuracy),
        ("factory.inspection.precision", rates.precision),
        ("factory.inspection.recall", rates.recall),
        ("factory.inspection.f1", rates.f1),
        ("factory.inspection.dpu", rates.dpu),
    ] {
        families.gauge(metric, "1", &about(point, [shift()]), point.time, rate);
    }
    let million = |product: Option<&ProductPoint>| match product {
        None => [None, rates.dpmo, rates.ppm],
        Some(of) => [of.dpu, of.dpmo, of.ppm],
    };
    let named = rates.products.iter().filter(|of| of.product.is_some());
    for product in [None].into_iter().chain(named.map(Some)) {
        let name = product.and_then(|of| of.product.clone());
        let about = about(point, [shift()].into_iter().chain(name.map(|name| ("factory.product", name))));
        let [dpu, dpmo, ppm] = million(product);
        families.known("factory.inspection.dpu", "1", &about, point.time, dpu);
        families.known("factory.inspection.dpmo", "{defect}", &about, point.time, dpmo);
        families.known("factory.inspection.ppm", "{unit}", &about, point.time, ppm);
    }
    for drift in &rates.drift {
        for (metric, distance) in
            [("factory.inspection.drift.psi", drift.psi), ("factory.inspection.drift.ks", drift.ks)]
        {
            let Some(distance) = distance else { continue };
            let version = drift.version.iter().map(|version| ("factory.inspection.model.version", version.clone()));
            let about = about(point, [shift()].into_iter().chain(version));
            families.gauge(metric, "1", &about, point.time, Some(distance));
        }
    }
}

fn about(point: &WatchPoint, words: impl IntoIterator<Item = (&'static str, Arc<str>)>) -> About<'_> {
    About { station: Some(&point.station), words: words.into_iter().collect() }
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Location => "location",
        Part::Spread => "spread",
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Above => "above",
        Side::Below => "below",
    }
}
