//! What is computed, as metrics: figures as gauges, totals as cumulative sums, cycle times as an
//! exponential histogram.
//!
//! A ratio that cannot be known is a point without a value. Outside shifts there is none to be known,
//! so there is no point. A histogram without a cycle is not sent.
//!
//! Beyond the contract, and only where they are known:
//!
//! | metric | kind, unit | attributes beside the station |
//! |---|---|---|
//! | `factory.teep` | gauge, 1 | `factory.shift` |
//! | `factory.production.target` `.actual` | gauge, {part} | `factory.shift`: parts that were to be made by now (by takt), and that were |
//! | `factory.maintenance.failures` | gauge, {failure} | `factory.shift`: those that began in it |
//! | `factory.maintenance.mtbf` `.mttr` | gauge, s | `factory.shift` |
//! | `factory.maintenance.corrective` | gauge, 1 | `factory.shift`: corrective over all maintenance time |
//! | `factory.part.energy`, `factory.good_part.energy` | gauge, J/{part} | `factory.shift`: all energy by the parts, and by the good parts |
//! | `factory.good_part.cost` | gauge, {currency}/{part} | `factory.shift`; in the line's currency |
//! | `factory.idle.energy` | sum, J | |
//! | `factory.startup.rejects` | sum, {part} | : of the rejected parts those of start-ups |
//! | `factory.line.oee` | gauge, 1 | no station; `factory.shift`, `factory.line.by` = constraint, last, weighted |
//! | `factory.yield.rolled_throughput` | gauge, 1 | no station; `factory.shift` |

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gemba_drivers::Time;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use crate::otlp::attribute::{STATION, flag, nanos, text};
use crate::otlp::{watched, wire};
use crate::record::{Beside, CycleHistogram, Figures, KpiPoint, LinePoint, Record, ScoreHistogram};

/// The metrics of one request, by name.
#[derive(Default)]
pub(super) struct Families {
    gauges: BTreeMap<(&'static str, &'static str), Vec<Keyed<NumberDataPoint>>>,
    sums: BTreeMap<(&'static str, &'static str), Vec<Keyed<NumberDataPoint>>>,
    /// In seconds.
    durations: BTreeMap<&'static str, Vec<Keyed<ExponentialHistogramDataPoint>>>,
    histograms: BTreeMap<(&'static str, &'static str), Vec<Keyed<HistogramDataPoint>>>,
}

/// A point, and the words of its attributes to sort it by.
type Keyed<P> = (Vec<Arc<str>>, u64, P);

impl Families {
    /// Adds what `record` says in numbers.
    pub(super) fn add(&mut self, record: &Record, stations: &HashSet<Arc<str>>) {
        match record {
            Record::Kpi(point) => self.add_kpi(point),
            Record::Loss { loss, total, since, at } => {
                let mut attributes = Vec::with_capacity(3);
                if stations.contains(&loss.source) {
                    attributes.push(text(STATION, &*loss.source));
                }
                attributes.push(text("gemba.loss.source", &*loss.source));
                attributes.push(text("gemba.loss.reason", &*loss.reason));
                let value = Value::AsInt(i64::try_from(*total).unwrap_or(i64::MAX));
                let span = Span { since: *since, time: *at };
                let key = vec![loss.source.clone(), loss.reason.clone()];
                self.sum("gemba.losses", "{reading}", key, attributes, span, value);
            }
            Record::StateChanged { .. }
            | Record::ValidityChanged { .. }
            | Record::TagChanged { .. }
            | Record::Visit(_)
            | Record::Event(_)
            | Record::Entered(_)
            | Record::Backfilled(_)
            | Record::Anomaly(_)
            | Record::Violation(_)
            | Record::ModelChanged { .. } => {}
            Record::Watched(point) => watched::add(self, point),
            Record::Line(point) => self.add_line(point),
        }
    }

    /// Appends the metrics to `to`, as fields of `ScopeMetrics`; returns the number of points.
    pub(super) fn encode(self, to: &mut Vec<u8>) -> u64 {
        let cumulative = AggregationTemporality::Cumulative as i32;
        let mut items = 0;
        let mut put = |name: &str, unit: &str, data: Data| {
            let metric = Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() };
            prost::encoding::message::encode(wire::METRIC, &metric, to);
        };
        for ((name, unit), points) in self.gauges {
            items += points.len();
            put(name, unit, Data::Gauge(Gauge { data_points: sorted(points) }));
        }
        for ((name, unit), points) in self.sums {
            items += points.len();
            let data_points = sorted(points);
            put(name, unit, Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic: true }));
        }
        for (name, points) in self.durations {
            items += points.len();
            let data_points = sorted(points);
            let data = ExponentialHistogram { data_points, aggregation_temporality: cumulative };
            put(name, "s", Data::ExponentialHistogram(data));
        }
        for ((name, unit), points) in self.histograms {
            items += points.len();
            let data_points = sorted(points);
            put(name, unit, Data::Histogram(Histogram { data_points, aggregation_temporality: cumulative }));
        }
        items as u64
    }

    fn add_kpi(&mut self, point: &KpiPoint) {
        let shift = point.shift.iter().map(|shift| ("factory.shift", shift.clone()));
        let about = About { station: Some(&point.station), words: shift.collect() };
        if let Some(figures) = &point.figures {
            for (name, figure) in named(figures) {
                self.gauge(name, "1", &about, point.time, figure);
            }
        }
        for (name, unit, figure) in point.beside.iter().flat_map(beside) {
            self.known(name, unit, &about, point.time, figure);
        }
        let sums = &point.sums;
        for (disposition, parts) in [("good", sums.good), ("reject", sums.reject), ("rework", sums.rework)] {
            let Some(parts) = parts else { continue };
            let word = text("factory.part.disposition", disposition);
            self.station_sum("factory.parts", "{part}", point, &[disposition], [word], parts);
        }
        for (state, ns) in &sums.state_time {
            let word = text("factory.state", state.word());
            self.station_sum("factory.state.time", "s", point, &[state.word()], [word], seconds(*ns));
        }
        for (reason, planned, ns) in &sums.downtime {
            let key = [&**reason, if *planned { "planned" } else { "unplanned" }];
            let words = [text("factory.reason", &**reason), flag("factory.planned", *planned)];
            self.station_sum("factory.downtime", "s", point, &key, words, seconds(*ns));
        }
        for (name, unit, sum) in [
            ("factory.energy", "J", sums.energy),
            ("factory.idle.energy", "J", sums.idle_energy),
            ("factory.startup.rejects", "{part}", sums.startup_reject),
        ] {
            let Some(sum) = sum else { continue };
            self.station_sum(name, unit, point, &[], [], sum);
        }
        let span = Span { since: point.since, time: point.time };
        for (code, count) in &sums.defects {
            let about = About { station: Some(&point.station), words: vec![("factory.defect.code", code.clone())] };
            self.counted("factory.defects", "{defect}", &about, span, *count);
        }
        let about = About { station: Some(&point.station), words: Vec::new() };
        self.duration("factory.cycle.duration", &about, span, &sums.cycle);
    }

    fn add_line(&mut self, point: &LinePoint) {
        let LinePoint { shift, time, by, oee, rolled_yield } = point;
        let shift = || ("factory.shift", shift.clone());
        let by = ("factory.line.by", by.word().into());
        self.known("factory.line.oee", "1", &About { station: None, words: vec![shift(), by] }, *time, *oee);
        let about = About { station: None, words: vec![shift()] };
        self.known("factory.yield.rolled_throughput", "1", &about, *time, *rolled_yield);
    }

    /// A figure that most stations do not have: no point where it is not known.
    pub(super) fn known(
        &mut self,
        name: &'static str,
        unit: &'static str,
        about: &About<'_>,
        time: Time,
        figure: Option<f64>,
    ) {
        if figure.is_some() {
            self.gauge(name, unit, about, time, figure);
        }
    }

    /// A figure that cannot be known is a point without a value.
    pub(super) fn gauge(
        &mut self,
        name: &'static str,
        unit: &'static str,
        about: &About<'_>,
        time: Time,
        figure: Option<f64>,
    ) {
        let number = NumberDataPoint {
            attributes: about.attributes(),
            time_unix_nano: nanos(time),
            value: figure.map(Value::AsDouble),
            flags: if figure.is_some() { 0 } else { DataPointFlags::NoRecordedValueMask as u32 },
            ..NumberDataPoint::default()
        };
        self.gauges.entry((name, unit)).or_default().push((about.key(), number.time_unix_nano, number));
    }

    /// How many there ever were.
    pub(super) fn counted(
        &mut self,
        name: &'static str,
        unit: &'static str,
        about: &About<'_>,
        span: Span,
        count: u64,
    ) {
        let value = Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX));
        self.sum(name, unit, about.key(), about.attributes(), span, value);
    }

    /// A histogram in seconds; one that holds nothing is not sent.
    pub(super) fn duration(&mut self, name: &'static str, about: &About<'_>, span: Span, held: &CycleHistogram) {
        if held.count > 0 {
            let point = exponential(held, about.attributes(), span);
            self.durations.entry(name).or_default().push((about.key(), point.time_unix_nano, point));
        }
    }

    /// A histogram by given edges, whose sum nobody knows; one that holds nothing is not sent.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        unit: &'static str,
        about: &About<'_>,
        span: Span,
        held: &ScoreHistogram,
    ) {
        let count = held.counts.iter().sum();
        if count == 0 {
            return;
        }
        let point = HistogramDataPoint {
            attributes: about.attributes(),
            start_time_unix_nano: nanos(span.since),
            time_unix_nano: nanos(span.time),
            count,
            bucket_counts: held.counts.clone(),
            explicit_bounds: held.edges.clone(),
            ..HistogramDataPoint::default()
        };
        self.histograms.entry((name, unit)).or_default().push((about.key(), point.time_unix_nano, point));
    }

    fn station_sum(
        &mut self,
        name: &'static str,
        unit: &'static str,
        point: &KpiPoint,
        key: &[&str],
        words: impl IntoIterator<Item = KeyValue>,
        value: f64,
    ) {
        let key = [point.station.clone()].into_iter().chain(key.iter().map(|&word| word.into())).collect();
        let attributes = [text(STATION, &*point.station)].into_iter().chain(words).collect();
        let span = Span { since: point.since, time: point.time };
        self.sum(name, unit, key, attributes, span, Value::AsDouble(value));
    }

    fn sum(
        &mut self,
        name: &'static str,
        unit: &'static str,
        key: Vec<Arc<str>>,
        attributes: Vec<KeyValue>,
        span: Span,
        value: Value,
    ) {
        let number = NumberDataPoint {
            attributes,
            start_time_unix_nano: nanos(span.since),
            time_unix_nano: nanos(span.time),
            value: Some(value),
            ..NumberDataPoint::default()
        };
        self.sums.entry((name, unit)).or_default().push((key, number.time_unix_nano, number));
    }
}

/// Of what a point speaks: the station, or else the line, and the words of its other attributes.
pub(super) struct About<'a> {
    pub(super) station: Option<&'a Arc<str>>,
    pub(super) words: Vec<(&'static str, Arc<str>)>,
}

impl About<'_> {
    fn key(&self) -> Vec<Arc<str>> {
        self.station.into_iter().chain(self.words.iter().map(|(_, word)| word)).cloned().collect()
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let words = self.words.iter().map(|(name, word)| text(name, &**word));
        self.station.iter().map(|station| text(STATION, &***station)).chain(words).collect()
    }
}

/// When a cumulative point speaks.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) since: Time,
    pub(super) time: Time,
}

fn named(figures: &Figures) -> [(&'static str, Option<f64>); 7] {
    let Figures { oee, availability, performance, quality, coverage, first_pass_yield, defect_rate } = *figures;
    [
        ("factory.oee", oee),
        ("factory.availability", availability),
        ("factory.performance", performance),
        ("factory.quality", quality),
        ("factory.coverage", coverage),
        ("factory.yield.first_pass", first_pass_yield),
        ("factory.defect.rate", defect_rate),
    ]
}

fn beside(of: &Beside) -> [(&'static str, &'static str, Option<f64>); 10] {
    #[expect(clippy::cast_precision_loss, reason = "failures of a shift")]
    let failures = of.failures.map(|failures| failures as f64);
    [
        ("factory.teep", "1", of.teep),
        ("factory.production.target", "{part}", of.target),
        ("factory.production.actual", "{part}", of.actual),
        ("factory.maintenance.failures", "{failure}", failures),
        ("factory.maintenance.mtbf", "s", of.mtbf),
        ("factory.maintenance.mttr", "s", of.mttr),
        ("factory.maintenance.corrective", "1", of.corrective_ratio),
        ("factory.part.energy", "J/{part}", of.energy_per_part),
        ("factory.good_part.energy", "J/{part}", of.energy_per_good_part),
        ("factory.good_part.cost", "{currency}/{part}", of.cost_per_good_part),
    ]
}

fn exponential(held: &CycleHistogram, attributes: Vec<KeyValue>, span: Span) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: nanos(span.since),
        time_unix_nano: nanos(span.time),
        count: held.count,
        sum: Some(held.sum),
        scale: held.scale,
        zero_count: held.zero_count,
        positive: Some(Buckets { offset: held.offset, bucket_counts: held.buckets.clone() }),
        min: Some(held.min),
        max: Some(held.max),
        ..ExponentialHistogramDataPoint::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 nanoseconds are 104 days; beyond, a microsecond is enough")]
fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

/// By attributes, then by time; what is equal stays in order of arrival.
fn sorted<P>(mut points: Vec<Keyed<P>>) -> Vec<P> {
    points.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    points.into_iter().map(|(_, _, point)| point).collect()
}
