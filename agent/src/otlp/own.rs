//! What the agent tells of itself, as requests of their own: they are spooled as they will be sent.
//!
//! A request is kept below the size of a frame where it can be split. Two requests one after the other are one request
//! (their `resource_…` fields are repeated), which is how [`Encoder`](super::Encoder) puts them together again.

use gemba_drivers::Time;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as ProtoMetric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use opentelemetry_sdk::logs::SdkLogRecord;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use crate::otlp::Resource;
use crate::otlp::attribute::{nanos, text};
use crate::spool::{Own, Signal};
use crate::telemetry::metric::{Kind, Metric, Number, Point};

/// A request above it is split, if it has more than one item. Frames are to stay below 4 KiB.
const MOST_BYTES: usize = 3 << 10;

/// Turns the agent's own figures, log records and spans into requests.
#[derive(Clone, Debug)]
pub struct OwnEncoder {
    resource: ProtoResource,
    scope: InstrumentationScope,
}

impl OwnEncoder {
    /// An encoder that speaks for the same resource as everything else.
    #[must_use]
    pub fn new(resource: &Resource) -> Self {
        Self { resource: resource.proto(), scope: resource.scope() }
    }

    /// `metrics` as they stood at `now`.
    #[must_use]
    pub fn metrics(&self, metrics: &[Metric], now: Time) -> Vec<Own> {
        let mut requests = Vec::new();
        let body = |metrics: &[Metric]| {
            let metrics = metrics.iter().map(|metric| proto(metric, now)).collect();
            let scope_metrics = ScopeMetrics { scope: Some(self.scope.clone()), metrics, ..ScopeMetrics::default() };
            let resource = Some(self.resource.clone());
            let of = ResourceMetrics { resource, scope_metrics: vec![scope_metrics], ..ResourceMetrics::default() };
            ExportMetricsServiceRequest { resource_metrics: vec![of] }.encode_to_vec()
        };
        let count = |metrics: &[Metric]| metrics.iter().map(|metric| metric.points.len() as u64).sum();
        split(Signal::Metrics, now, metrics, &body, &count, &mut requests);
        requests
    }

    /// Log records, under the module that said them.
    #[must_use]
    pub fn logs(&self, records: &[SdkLogRecord], now: Time) -> Vec<Own> {
        let mut requests = Vec::new();
        let body = |records: &[SdkLogRecord]| {
            let mut scopes: Vec<ScopeLogs> = Vec::new();
            for record in records {
                let name = record.target().map_or(self.scope.name.as_str(), |target| target);
                let known = scopes.iter_mut().find(|held| held.scope.as_ref().is_some_and(|scope| scope.name == name));
                match known {
                    Some(held) => held.log_records.push(LogRecord::from(record)),
                    None => scopes.push(ScopeLogs {
                        scope: Some(InstrumentationScope { name: name.to_owned(), ..self.scope.clone() }),
                        log_records: vec![LogRecord::from(record)],
                        ..ScopeLogs::default()
                    }),
                }
            }
            let resource = Some(self.resource.clone());
            let of = ResourceLogs { resource, scope_logs: scopes, ..ResourceLogs::default() };
            ExportLogsServiceRequest { resource_logs: vec![of] }.encode_to_vec()
        };
        split(Signal::Logs, now, records, &body, &|records| records.len() as u64, &mut requests);
        requests
    }

    /// Spans that have ended.
    #[must_use]
    pub fn spans(&self, spans: Vec<SpanData>, now: Time) -> Vec<Own> {
        let spans: Vec<Span> = spans.into_iter().map(Span::from).collect();
        let mut requests = Vec::new();
        let body = |spans: &[Span]| trace_request(&self.resource, &self.scope, spans.to_vec());
        split(Signal::Traces, now, &spans, &body, &|spans| spans.len() as u64, &mut requests);
        requests
    }
}

/// An `ExportTraceServiceRequest` of one resource and one scope.
pub(super) fn trace_request(resource: &ProtoResource, scope: &InstrumentationScope, spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = ScopeSpans { scope: Some(scope.clone()), spans, ..ScopeSpans::default() };
    let resource = Some(resource.clone());
    let of = ResourceSpans { resource, scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![of] }.encode_to_vec()
}

fn split<T>(
    signal: Signal,
    time: Time,
    items: &[T],
    body: &impl Fn(&[T]) -> Vec<u8>,
    count: &impl Fn(&[T]) -> u64,
    requests: &mut Vec<Own>,
) {
    if items.is_empty() {
        return;
    }
    let bytes = body(items);
    if bytes.len() > MOST_BYTES && items.len() > 1 {
        let (head, tail) = items.split_at(items.len() / 2);
        split(signal, time, head, body, count, requests);
        split(signal, time, tail, body, count, requests);
        return;
    }
    requests.push(Own { signal, items: count(items), time, body: bytes.into() });
}

fn proto(metric: &Metric, now: Time) -> ProtoMetric {
    let start = match metric.kind {
        Kind::Gauge | Kind::Level => 0,
        Kind::Count(since) | Kind::Histogram(since) => nanos(since),
    };
    let numbers = || metric.points.iter().filter_map(|point| number(point, start, now)).collect();
    let cumulative = AggregationTemporality::Cumulative as i32;
    let sum = |is_monotonic| Sum { data_points: numbers(), aggregation_temporality: cumulative, is_monotonic };
    let data = match metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Level => Data::Sum(sum(false)),
        Kind::Count(_) => Data::Sum(sum(true)),
        Kind::Histogram(_) => Data::Histogram(Histogram {
            data_points: metric.points.iter().filter_map(|point| histogram(point, start, now)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    ProtoMetric {
        name: metric.name.to_owned(),
        description: metric.about.to_owned(),
        unit: metric.unit.to_owned(),
        data: Some(data),
        ..ProtoMetric::default()
    }
}

fn number(point: &Point, start: u64, now: Time) -> Option<NumberDataPoint> {
    let value = match &point.value {
        Number::Whole(whole) => number_data_point::Value::AsInt(i64::try_from(*whole).unwrap_or(i64::MAX)),
        Number::Real(real) => number_data_point::Value::AsDouble(*real),
        Number::Buckets { .. } => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: start,
        time_unix_nano: nanos(now),
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(point: &Point, start: u64, now: Time) -> Option<HistogramDataPoint> {
    let Number::Buckets { bounds, counts, sum } = &point.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: start,
        time_unix_nano: nanos(now),
        count: counts.iter().sum(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(point: &Point) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    point.attributes.iter().map(|(name, value)| text(name, &**value)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn encoder() -> OwnEncoder {
        OwnEncoder::new(&Resource {
            site: "fab-2".into(),
            line: "smt-1".into(),
            instance_id: "i".into(),
            host_name: "gw-7".into(),
            version: "0.1.0".into(),
        })
    }

    fn many(count: u64) -> Vec<Metric> {
        let about = ("gemba.link.connects", "{connect}", "Times that a link came up.");
        let point = |number: u64| (Arc::from(format!("tcp://plc-{number}:502")), Number::Whole(number));
        let of =
            |part| Metric::by(about, Kind::Count(Time(1)), "gemba.link.endpoint", (part * 4..part * 4 + 4).map(point));
        (0..count).map(of).collect()
    }

    #[test]
    fn what_is_too_much_for_a_frame_is_split_and_put_together_it_is_whole() {
        let whole = many(40);
        let requests = encoder().metrics(&whole, Time(5));
        assert!(requests.len() > 3, "{}", requests.len());
        assert!(requests.iter().all(|own| own.body.len() <= MOST_BYTES && own.signal == Signal::Metrics));
        assert_eq!(requests.iter().map(|own| own.items).sum::<u64>(), 160);
        let joined: Vec<u8> = requests.iter().flat_map(|own| own.body.to_vec()).collect();
        let joined = ExportMetricsServiceRequest::decode(&joined[..]).expect("two requests are one");
        let metrics = joined.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        assert_eq!(
            metrics.cloned().collect::<Vec<_>>(),
            whole.iter().map(|metric| proto(metric, Time(5))).collect::<Vec<_>>()
        );
        assert!(encoder().metrics(&[], Time(5)).is_empty());
    }

    #[test]
    fn kinds_keep_their_meaning() {
        let one = |kind, value| proto(&Metric::one("gemba.it", "s", "It.", kind, value), Time(9));
        let Some(Data::Sum(level)) = one(Kind::Level, Number::Whole(3)).data else { panic!("a sum") };
        assert!(!level.is_monotonic && level.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        let Some(Data::Sum(count)) = one(Kind::Count(Time(2)), Number::Real(0.5)).data else { panic!("a sum") };
        assert!(count.is_monotonic);
        assert_eq!((count.data_points[0].start_time_unix_nano, count.data_points[0].time_unix_nano), (2, 9));
        let buckets = Number::Buckets { bounds: &[0.1, 1.0], counts: vec![1, 2, 3], sum: 7.5 };
        let Some(Data::Histogram(held)) = one(Kind::Histogram(Time(2)), buckets).data else { panic!("a histogram") };
        let point = &held.data_points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (6, Some(7.5), &[1, 2, 3][..]));
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
    }
}
