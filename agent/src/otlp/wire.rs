//! The few protobuf messages that are written by hand, since nearly all that goes upstream are points of
//! tag gauges, and prost spends most of its time on the same attributes again and again.
//!
//! Field numbers are those of opentelemetry-proto's `metrics.proto` and `metrics_service.proto`, in
//! ascending order and without default values, which is how prost writes them: the tests compare bytes.

/// `ResourceMetrics.resource`.
pub(super) const RESOURCE: u32 = 1;
/// `ScopeMetrics.scope`.
pub(super) const SCOPE: u32 = 1;
/// `ScopeMetrics.metrics`.
pub(super) const METRIC: u32 = 2;
/// `Metric.name`.
pub(super) const NAME: u32 = 1;
/// `Metric.unit`.
pub(super) const UNIT: u32 = 3;
/// `NumberDataPoint.attributes`.
pub(super) const ATTRIBUTES: u32 = 7;

/// `ResourceMetrics` within the request.
const RESOURCE_METRICS: u32 = 1;
/// `ResourceMetrics.scope_metrics`.
const SCOPE_METRICS: u32 = 2;
/// `Metric.gauge`.
const GAUGE: u32 = 5;
/// `Gauge.data_points`.
const DATA_POINTS: u32 = 1;

const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
/// Key byte of `NumberDataPoint.time_unix_nano`.
const TIME: u8 = key(3, FIXED64);
/// Key byte of `NumberDataPoint.as_double`.
const AS_DOUBLE: u8 = key(4, FIXED64);
/// Key byte of `NumberDataPoint.as_int`.
const AS_INT: u8 = key(6, FIXED64);
/// `NumberDataPoint.flags`, with only `NO_RECORDED_VALUE` set.
const NO_RECORDED_VALUE: [u8; 2] = [key(8, 0), 1];

const fn key(field: u32, wire_type: u32) -> u8 {
    (field << 3 | wire_type) as u8
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// Nothing: the no-recorded-value flag.
    Missing,
    Int(i64),
    Float(f64),
}

/// A point of a gauge. `attributes` is its encoded attribute fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    pub(super) time: u64,
    pub(super) number: Number,
    pub(super) attributes: &'a [u8],
}

impl Point<'_> {
    fn len(&self) -> usize {
        let time = if self.time == 0 { 0 } else { 9 };
        let number = if self.number == Number::Missing { NO_RECORDED_VALUE.len() } else { 9 };
        time + number + self.attributes.len()
    }

    fn put(&self, to: &mut Vec<u8>) {
        if self.time != 0 {
            to.push(TIME);
            to.extend_from_slice(&self.time.to_le_bytes());
        }
        // A oneof is written even where it is zero, and at the place of its lowest field.
        match self.number {
            Number::Float(real) => {
                to.push(AS_DOUBLE);
                to.extend_from_slice(&real.to_le_bytes());
            }
            Number::Int(whole) => {
                to.push(AS_INT);
                to.extend_from_slice(&whole.to_le_bytes());
            }
            Number::Missing => {}
        }
        to.extend_from_slice(self.attributes);
        if self.number == Number::Missing {
            to.extend_from_slice(&NO_RECORDED_VALUE);
        }
    }
}

/// Appends a `Metric` with a gauge of `points`, as a field of `ScopeMetrics`. `head` is its encoded
/// name and unit.
pub(super) fn put_gauge<'a>(to: &mut Vec<u8>, head: &[u8], points: impl Iterator<Item = Point<'a>> + Clone) {
    let gauge: usize = points.clone().map(|point| field_len(DATA_POINTS, point.len())).sum();
    let metric = head.len() + field_len(GAUGE, gauge);
    to.reserve(field_len(METRIC, metric));
    put_head(to, METRIC, metric);
    to.extend_from_slice(head);
    put_head(to, GAUGE, gauge);
    for point in points {
        put_head(to, DATA_POINTS, point.len());
        point.put(to);
    }
}

/// An `ExportMetricsServiceRequest` of one resource and one scope. `resource` and `scope` are encoded
/// fields, `metrics` any number of encoded [`METRIC`] fields.
pub(super) fn metrics_request(resource: &[u8], scope: &[u8], metrics: &[u8]) -> Vec<u8> {
    let scope_metrics = scope.len() + metrics.len();
    let resource_metrics = resource.len() + field_len(SCOPE_METRICS, scope_metrics);
    let mut request = Vec::with_capacity(field_len(RESOURCE_METRICS, resource_metrics));
    put_head(&mut request, RESOURCE_METRICS, resource_metrics);
    request.extend_from_slice(resource);
    put_head(&mut request, SCOPE_METRICS, scope_metrics);
    request.extend_from_slice(scope);
    request.extend_from_slice(metrics);
    request
}

/// A field that holds a message or a string.
pub(super) fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field_len(number, content.len()));
    put_head(&mut bytes, number, content.len());
    bytes.extend_from_slice(content);
    bytes
}

fn put_head(to: &mut Vec<u8>, field: u32, len: usize) {
    prost::encoding::encode_varint(u64::from(field << 3 | LENGTH_DELIMITED), to);
    prost::encoding::encode_varint(len as u64, to);
}

fn field_len(field: u32, len: usize) -> usize {
    prost::encoding::encoded_len_varint(u64::from(field << 3)) + prost::encoding::encoded_len_varint(len as u64) + len
}
