//! OTLP requests taken apart again: each log record, point and span by itself, in plain JSON, for people and their scripts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gemba_drivers::Time;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::attribute::STATION;
use crate::spool::Signal;

/// A log record, a point or a span. What it does not have is left out of its JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Of the event, the metric or the span.
    pub name: String,
    /// When it happened, when the point was taken, when the span began.
    pub time: Time,
    /// Of a sum or histogram: since when it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Of a span: when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// Of a log: `INFO`, `WARN`, `ERROR`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// Of a log: what it says to a person.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub body: Json,
    /// Of a metric: UCUM.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Of a point that is one number; null is "no recorded value".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Of a histogram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// Of a span, or a log within one: 32 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The same, 16.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub span_id: String,
    /// By name.
    pub attributes: BTreeMap<String, Json>,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A log record.
    Log,
    /// A point of a metric.
    Point,
    /// A span.
    Span,
}

/// What was counted, by size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Histogram {
    /// How many.
    pub count: u64,
    /// All of them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<f64>,
    /// The smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// `bounds` and `counts`, or of an exponential one `scale`, `zero_count`, `offset` and `counts`.
    pub buckets: Json,
}

impl Item {
    /// Which station it speaks of.
    #[must_use]
    pub fn station(&self) -> Option<&str> {
        self.attributes.get(STATION).and_then(Json::as_str)
    }

    fn new(kind: Kind, name: String, time: u64, attributes: Vec<KeyValue>) -> Self {
        Self {
            kind,
            name,
            time: at(time),
            since: None,
            end: None,
            severity: String::new(),
            body: Json::Null,
            unit: String::new(),
            value: None,
            histogram: None,
            trace_id: String::new(),
            span_id: String::new(),
            attributes: attributes.into_iter().map(|KeyValue { key, value, .. }| (key, plain(value))).collect(),
        }
    }
}

/// What a request holds, in its order. The resource and the scope, which are the same for all of it, are left out.
///
/// # Errors
/// When `body` is no request of that kind.
pub fn items(signal: Signal, body: &[u8]) -> Result<Vec<Item>, prost::DecodeError> {
    Ok(match signal {
        Signal::Logs => {
            let scopes =
                ExportLogsServiceRequest::decode(body)?.resource_logs.into_iter().flat_map(|all| all.scope_logs);
            scopes.flat_map(|scope| scope.log_records).map(log).collect()
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(body)?;
            let scopes = request.resource_metrics.into_iter().flat_map(|all| all.scope_metrics);
            scopes.flat_map(|scope| scope.metrics).flat_map(points).collect()
        }
        Signal::Traces => {
            let scopes =
                ExportTraceServiceRequest::decode(body)?.resource_spans.into_iter().flat_map(|all| all.scope_spans);
            scopes.flat_map(|scope| scope.spans).map(span).collect()
        }
    })
}

fn log(of: LogRecord) -> Item {
    let time = if of.time_unix_nano == 0 { of.observed_time_unix_nano } else { of.time_unix_nano };
    Item {
        severity: of.severity_text,
        body: plain(of.body),
        trace_id: hex(&of.trace_id),
        span_id: hex(&of.span_id),
        ..Item::new(Kind::Log, of.event_name, time, of.attributes)
    }
}

fn span(of: Span) -> Item {
    Item {
        end: Some(at(of.end_time_unix_nano)),
        trace_id: hex(&of.trace_id),
        span_id: hex(&of.span_id),
        ..Item::new(Kind::Span, of.name, of.start_time_unix_nano, of.attributes)
    }
}

fn points(metric: Metric) -> Vec<Item> {
    let Metric { name, unit, data, .. } = metric;
    let point = |time, since: u64, attributes| Item {
        unit: unit.clone(),
        since: (since > 0).then(|| at(since)),
        ..Item::new(Kind::Point, name.clone(), time, attributes)
    };
    let number = |of: NumberDataPoint| {
        let value = match of.value {
            Some(Number::AsInt(whole)) => json!(whole),
            Some(Number::AsDouble(real)) => json!(real),
            None => Json::Null,
        };
        Item { value: Some(value), ..point(of.time_unix_nano, of.start_time_unix_nano, of.attributes) }
    };
    match data {
        Some(Data::Gauge(gauge)) => gauge.data_points.into_iter().map(number).collect(),
        Some(Data::Sum(sum)) => sum.data_points.into_iter().map(number).collect(),
        Some(Data::Histogram(histogram)) => {
            let all = histogram.data_points.into_iter().map(|of| {
                let buckets = json!({"bounds": of.explicit_bounds, "counts": of.bucket_counts});
                let histogram = Histogram { count: of.count, sum: of.sum, min: of.min, max: of.max, buckets };
                let item = point(of.time_unix_nano, of.start_time_unix_nano, of.attributes);
                Item { histogram: Some(histogram), ..item }
            });
            all.collect()
        }
        Some(Data::ExponentialHistogram(histogram)) => {
            let all = histogram.data_points.into_iter().map(|of| {
                let (offset, counts) = of.positive.map(|held| (held.offset, held.bucket_counts)).unwrap_or_default();
                let buckets =
                    json!({"scale": of.scale, "zero_count": of.zero_count, "offset": offset, "counts": counts});
                let histogram = Histogram { count: of.count, sum: of.sum, min: of.min, max: of.max, buckets };
                let item = point(of.time_unix_nano, of.start_time_unix_nano, of.attributes);
                Item { histogram: Some(histogram), ..item }
            });
            all.collect()
        }
        // gemba writes none.
        Some(Data::Summary(_)) | None => Vec::new(),
    }
}

fn plain(value: Option<AnyValue>) -> Json {
    use any_value::Value;
    match value.and_then(|value| value.value) {
        None => Json::Null,
        Some(Value::StringValue(text)) => Json::String(text),
        Some(Value::BoolValue(on)) => Json::Bool(on),
        Some(Value::IntValue(whole)) => json!(whole),
        Some(Value::DoubleValue(real)) => json!(real),
        Some(Value::BytesValue(bytes)) => Json::String(hex(&bytes)),
        Some(Value::ArrayValue(list)) => list.values.into_iter().map(|value| plain(Some(value))).collect(),
        Some(Value::KvlistValue(list)) => {
            list.values.into_iter().map(|KeyValue { key, value, .. }| (key, plain(value))).collect()
        }
        // An index into a table that only profiles have.
        Some(Value::StringValueStrindex(index)) => json!(index),
    }
}

fn at(nanos: u64) -> Time {
    Time(i64::try_from(nanos).unwrap_or(i64::MAX))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
