//! What is computed, as metrics: figures as gauges, totals as cumulative sums, cycle times as an
//! exponential histogram.
//!
//! A figure that cannot be known is a point without a value. Outside shifts there is none to be known,
//! so there is no point. A histogram without a cycle is not sent.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gemba_drivers::Time;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric,
    NumberDataPoint, Sum,
};

use crate::otlp::attribute::{STATION, flag, nanos, text};
use crate::otlp::wire;
use crate::record::{CycleHistogram, Figures, KpiPoint, Record};

/// The metrics of one request, by name.
#[derive(Default)]
pub(super) struct Families {
    gauges: BTreeMap<&'static str, Vec<Keyed<NumberDataPoint>>>,
    sums: BTreeMap<(&'static str, &'static str), Vec<Keyed<NumberDataPoint>>>,
    cycles: Vec<Keyed<ExponentialHistogramDataPoint>>,
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
            | Record::Backfilled(_) => {}
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
        for (name, points) in self.gauges {
            items += points.len();
            put(name, "1", Data::Gauge(Gauge { data_points: sorted(points) }));
        }
        for ((name, unit), points) in self.sums {
            items += points.len();
            let data_points = sorted(points);
            put(name, unit, Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic: true }));
        }
        if !self.cycles.is_empty() {
            items += self.cycles.len();
            let data_points = sorted(self.cycles);
            let data = ExponentialHistogram { data_points, aggregation_temporality: cumulative };
            put("factory.cycle.duration", "s", Data::ExponentialHistogram(data));
        }
        items as u64
    }

    fn add_kpi(&mut self, point: &KpiPoint) {
        if let Some(figures) = &point.figures {
            for (name, figure) in named(figures) {
                self.gauge(name, point, figure);
            }
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
        if let Some(energy) = sums.energy {
            self.station_sum("factory.energy", "J", point, &[], [], energy);
        }
        if sums.cycle.count > 0 {
            let cycles = histogram(&sums.cycle, point);
            self.cycles.push((vec![point.station.clone()], cycles.time_unix_nano, cycles));
        }
    }

    fn gauge(&mut self, name: &'static str, point: &KpiPoint, figure: Option<f64>) {
        let mut attributes = vec![text(STATION, &*point.station)];
        attributes.extend(point.shift.iter().map(|shift| text("factory.shift", &**shift)));
        let number = NumberDataPoint {
            attributes,
            time_unix_nano: nanos(point.time),
            value: figure.map(Value::AsDouble),
            flags: if figure.is_some() { 0 } else { DataPointFlags::NoRecordedValueMask as u32 },
            ..NumberDataPoint::default()
        };
        let key = [&point.station].into_iter().chain(&point.shift).cloned().collect();
        self.gauges.entry(name).or_default().push((key, number.time_unix_nano, number));
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

/// What a cumulative point speaks of.
#[derive(Clone, Copy)]
struct Span {
    since: Time,
    time: Time,
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

fn histogram(cycle: &CycleHistogram, point: &KpiPoint) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: vec![text(STATION, &*point.station)],
        start_time_unix_nano: nanos(point.since),
        time_unix_nano: nanos(point.time),
        count: cycle.count,
        sum: Some(cycle.sum),
        scale: cycle.scale,
        zero_count: cycle.zero_count,
        positive: Some(Buckets { offset: cycle.offset, bucket_counts: cycle.buckets.clone() }),
        min: Some(cycle.min),
        max: Some(cycle.max),
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
