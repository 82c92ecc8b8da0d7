//! Upstream of the demo: an OTLP/HTTP receiver that keeps the sums of what it gets, and not the rest.

use std::collections::{BTreeMap, VecDeque};
use std::future::IntoFuture;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use gemba_drivers::Time;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What one request may come to, unpacked; the forwarder stays far below.
const MOST_BYTES: usize = 64 << 20;
/// A request that was not answered comes again soon, and the same to the byte: so many are remembered.
const REMEMBERED: usize = 64;

/// The receiver. It stops when dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<io::Result<()>>,
}

struct Shared {
    received: Mutex<Received>,
    /// Which request for metrics, counted from 1, is answered and forgotten: what a receiver must not do.
    swallows: Option<u64>,
}

/// What came, each request once.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// Requests, with those that came again.
    pub requests: u64,
    /// Those that came again.
    pub repeated: u64,
    /// Those that nobody can read.
    pub unreadable: u64,
    /// Points of metrics.
    pub points: u64,
    /// Those among them that are readings of tags.
    pub readings: u64,
    /// Changes of text tags.
    pub text_changes: u64,
    /// Log records, changes of text among them.
    pub logs: u64,
    /// Spans.
    pub spans: u64,
    /// The newest sums of each station.
    pub sums: BTreeMap<String, Sums>,
    /// When each station's counter was read.
    pub polls: BTreeMap<String, Polls>,
    metrics_requests: u64,
    digests: VecDeque<u64>,
}

/// What a station has come to since it was first seen, as upstream was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Since when they count.
    pub since: Time,
    /// Up to when.
    pub time: Time,
    /// Good parts.
    pub good: f64,
    /// Rejected parts.
    pub reject: f64,
    /// Seconds by state.
    pub states: BTreeMap<String, f64>,
}

/// How far apart a station's readings lay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polls {
    last: Option<u64>,
    /// How often so many milliseconds, rounded up, passed between two.
    gaps: BTreeMap<u64, u64>,
}

impl Polls {
    /// One more reading, at `nanos` since the epoch.
    pub fn note(&mut self, nanos: u64) {
        if let Some(last) = self.last.replace(nanos) {
            *self.gaps.entry(nanos.saturating_sub(last).div_ceil(1_000_000)).or_default() += 1;
        }
    }

    /// The `count` longest gaps together.
    #[must_use]
    pub fn longest(&self, count: u64) -> Duration {
        let mut left = count;
        let mut sum = 0;
        for (gap, often) in self.gaps.iter().rev() {
            let taken = left.min(*often);
            sum += gap.saturating_mul(taken);
            left -= taken;
        }
        Duration::from_millis(sum)
    }
}

impl Receiver {
    /// Listens on a free port of the loopback.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) async fn start(swallows: Option<u64>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { received: Mutex::default(), swallows });
        let app = Router::new().fallback(take).layer(DefaultBodyLimit::max(MOST_BYTES)).with_state(Arc::clone(&shared));
        let server = AbortOnDropHandle::new(tokio::spawn(axum::serve(listener, app).into_future()));
        Ok(Self { address, shared, _server: server })
    }

    /// For `upstream.otlp.endpoint`.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come so far.
    pub(super) fn received(&self) -> Received {
        self.shared.lock().clone()
    }

    /// How many points have come so far.
    pub(super) fn points(&self) -> u64 {
        self.shared.lock().points
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request says.
enum Request {
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let read = unpacked(&headers, &body).and_then(|plain| Ok((digest(uri.path(), &plain), read(uri.path(), &plain)?)));
    let mut received = shared.lock();
    received.requests += 1;
    let (digest, request) = match read {
        Ok(read) => read,
        Err(why) => {
            received.unreadable += 1;
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
    };
    if received.digests.contains(&digest) {
        received.repeated += 1;
    } else {
        received.digests.push_back(digest);
        if received.digests.len() > REMEMBERED {
            received.digests.pop_front();
        }
        received.metrics_requests += u64::from(matches!(request, Request::Metrics(_)));
        let swallowed = matches!(request, Request::Metrics(_)) && shared.swallows == Some(received.metrics_requests);
        if !swallowed {
            received.add(&request);
        }
    }
    // An empty response message of any signal: all was accepted.
    ([(header::CONTENT_TYPE, "application/x-protobuf")], Bytes::new()).into_response()
}

fn unpacked(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, String> {
    if headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return Ok(body.clone());
    }
    let mut plain = Vec::new();
    let most = u64::try_from(MOST_BYTES).unwrap_or(u64::MAX);
    GzDecoder::new(&**body).take(most).read_to_end(&mut plain).map_err(|error| format!("gzip: {error}"))?;
    Ok(plain.into())
}

fn digest(path: &str, plain: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (path, plain).hash(&mut hasher);
    hasher.finish()
}

fn read(path: &str, plain: &[u8]) -> Result<Request, String> {
    match path {
        "/v1/metrics" => ExportMetricsServiceRequest::decode(plain).map(Request::Metrics),
        "/v1/logs" => ExportLogsServiceRequest::decode(plain).map(Request::Logs),
        "/v1/traces" => ExportTraceServiceRequest::decode(plain).map(Request::Traces),
        other => return Err(format!("there is no {other}")),
    }
    .map_err(|error| error.to_string())
}

impl Received {
    fn add(&mut self, request: &Request) {
        match request {
            Request::Metrics(request) => {
                let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
                scopes.flat_map(|scope| &scope.metrics).for_each(|metric| self.add_metric(metric));
            }
            Request::Logs(request) => {
                let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
                for record in scopes.flat_map(|scope| &scope.log_records) {
                    self.logs += 1;
                    self.text_changes += u64::from(record.event_name == "factory.tag.changed");
                }
            }
            Request::Traces(request) => {
                let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
                self.spans += scopes.map(|scope| count(scope.spans.len())).sum::<u64>();
            }
        }
    }

    fn add_metric(&mut self, metric: &Metric) {
        let numbers: &[NumberDataPoint] = match &metric.data {
            Some(Data::Gauge(gauge)) => &gauge.data_points,
            Some(Data::Sum(sum)) => &sum.data_points,
            Some(Data::Histogram(histogram)) => return self.points += count(histogram.data_points.len()),
            Some(Data::ExponentialHistogram(histogram)) => return self.points += count(histogram.data_points.len()),
            Some(Data::Summary(summary)) => return self.points += count(summary.data_points.len()),
            None => return,
        };
        self.points += count(numbers.len());
        match metric.name.as_str() {
            "factory.parts" => numbers.iter().for_each(|point| self.add_parts(point)),
            "factory.state.time" => numbers.iter().for_each(|point| self.add_state(point)),
            name if name.starts_with("factory.tag.") => {
                self.readings += count(numbers.len());
                if name == "factory.tag.total" {
                    numbers.iter().for_each(|point| self.add_poll(point));
                }
            }
            _ => {}
        }
    }

    fn add_parts(&mut self, point: &NumberDataPoint) {
        let Some(sums) = self.sums_of(point) else { return };
        match text(&point.attributes, "factory.part.disposition") {
            Some("good") => sums.good = number(point),
            Some("reject") => sums.reject = number(point),
            _ => {}
        }
    }

    fn add_state(&mut self, point: &NumberDataPoint) {
        let Some(state) = text(&point.attributes, "factory.state") else { return };
        let Some(sums) = self.sums_of(point) else { return };
        sums.states.insert(state.to_owned(), number(point));
    }

    fn add_poll(&mut self, point: &NumberDataPoint) {
        let Some(station) = text(&point.attributes, "factory.station") else { return };
        self.polls.entry(station.to_owned()).or_default().note(point.time_unix_nano);
    }

    /// Where the point belongs, unless something newer is there.
    fn sums_of(&mut self, point: &NumberDataPoint) -> Option<&mut Sums> {
        let sums = self.sums.entry(text(&point.attributes, "factory.station")?.to_owned()).or_default();
        let time = instant(point.time_unix_nano);
        if time < sums.time {
            return None;
        }
        (sums.since, sums.time) = (instant(point.start_time_unix_nano), time);
        Some(sums)
    }
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(number_data_point::Value::AsDouble(real)) => real,
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
        Some(number_data_point::Value::AsInt(whole)) => whole as f64,
        None => f64::NAN, // agrees with nothing
    }
}

fn instant(nanos: u64) -> Time {
    Time(i64::try_from(nanos).unwrap_or(i64::MAX))
}

fn count(length: usize) -> u64 {
    length as u64
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use gemba_drivers::{Reading, TagId, Value};

    use super::*;
    use crate::model::State as MachineState;
    use crate::otlp::{Encoder, Resource};
    use crate::record::{Figures, KpiPoint, Record};
    use crate::spool::{Entry, Seq, Series, SeriesId, StoredReading};

    /// What the real encoder makes of two polls, a change of text and a figure.
    fn encoded() -> (Vec<u8>, Vec<u8>) {
        let resource = Resource {
            site: "demo".into(),
            line: "smt-1".into(),
            instance_id: "1".into(),
            host_name: "h".into(),
            version: "0".into(),
        };
        let series = Series { station: "printer-1".into(), tag: "total".into(), unit: None, metric: None, text: false };
        let mut encoder = Encoder::new(&resource, move |_| Some(series.clone()));
        let at = |ms: i64| Time::from_millis(1_772_431_200_000 + ms);
        let poll = |ms, total| {
            let reading = Reading::good(TagId(0), Value::Int(total), at(ms), at(ms));
            StoredReading::new(SeriesId(0), reading)
        };
        let sums = crate::record::Sums {
            good: Some(9.0),
            reject: Some(2.0),
            state_time: vec![(MachineState::Producing, 1_500_000_000)],
            ..crate::record::Sums::default()
        };
        let kpi = KpiPoint {
            station: "printer-1".into(),
            shift: None,
            time: at(2_000),
            figures: Some(Figures::default()),
            since: at(0),
            sums,
            beside: None,
        };
        let changed = Record::TagChanged {
            station: "aoi-1".into(),
            tag: "serial".into(),
            time: at(7),
            from: None,
            to: "A".into(),
        };
        let record = |record| Entry::Record { cause: None, record };
        let entries = [
            (Seq(1), Entry::Readings(vec![poll(0, 1), poll(100, 2), poll(350, 3)])),
            (Seq(2), record(changed)),
            (Seq(3), record(Record::Kpi(Box::new(kpi)))),
        ];
        let encoded = encoder.encode(&entries);
        (encoded.metrics.expect("metrics").body.to_vec(), encoded.logs.expect("logs").body.to_vec())
    }

    async fn post(receiver: &Receiver, path: &str, body: Vec<u8>, packed: bool) -> u16 {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().post(format!("{}{path}", receiver.endpoint()));
        let request = if packed {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(&body).expect("memory");
            request.header("content-encoding", "gzip").body(packer.finish().expect("memory"))
        } else {
            request.body(body)
        };
        request.send().await.expect("it answers").status().as_u16()
    }

    #[tokio::test]
    async fn what_the_encoder_writes_is_summed_up_once() {
        let receiver = Receiver::start(None).await.expect("a port");
        let (metrics, logs) = encoded();
        assert_eq!(post(&receiver, "/v1/metrics", metrics.clone(), true).await, 200);
        assert_eq!(post(&receiver, "/v1/metrics", metrics, false).await, 200, "unanswered, it comes again");
        assert_eq!(post(&receiver, "/v1/logs", logs, false).await, 200);
        let received = receiver.received();
        assert_eq!((received.requests, received.repeated, received.unreadable), (3, 1, 0));
        assert_eq!((received.readings, received.text_changes, received.logs), (3, 1, 1));
        let sums = &received.sums["printer-1"];
        assert_eq!((sums.good, sums.reject, sums.states["producing"]), (9.0, 2.0, 1.5));
        assert_eq!(sums.time.since(sums.since), Duration::from_secs(2));
        let polls = &received.polls["printer-1"];
        assert_eq!(polls.longest(1), Duration::from_millis(250));
        assert_eq!(polls.longest(9), Duration::from_millis(350));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_and_counted() {
        let receiver = Receiver::start(None).await.expect("a port");
        assert_eq!(post(&receiver, "/v1/metrics", vec![0xff; 9], false).await, 400);
        assert_eq!(post(&receiver, "/v1/profiles", Vec::new(), false).await, 400);
        assert_eq!(receiver.received().unreadable, 2);
    }

    #[tokio::test]
    async fn a_request_can_be_swallowed() {
        let receiver = Receiver::start(Some(1)).await.expect("a port");
        assert_eq!(post(&receiver, "/v1/metrics", encoded().0, true).await, 200);
        let received = receiver.received();
        assert_eq!((received.requests, received.points, received.readings), (1, 0, 0));
    }
}
