//! An OTLP receiver, over HTTP and over gRPC (tonic's server), that keeps everything it gets, and fails as it is told to.
//!
//! It runs on a runtime of its own, so that [`Receiver::stop`] is as sudden as a crash: every socket is
//! gone when it returns. [`Receiver::restart`] comes back on the same port, with its memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Request, Response, Uri, Version};
use axum::serve::{IncomingStream, Listener};
use gemba::config::Protocol;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::{ErrorDetails, StatusExt};
use tower::ServiceExt;

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The receiver. Dropping it stops it.
pub struct Receiver {
    protocol: Protocol,
    address: SocketAddr,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the receiver does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200 (OK) and an empty response message.
    Accept,
    /// 200 (OK), but so many points are rejected, and why.
    Partial(i64, String),
    /// 400 (`INVALID_ARGUMENT`): never.
    Refuse(String),
    /// 500 (`INTERNAL`): it broke over it.
    Fail(String),
    /// 503 (`UNAVAILABLE`), to be tried again after so many seconds, if it says.
    Busy(Option<u64>),
    /// This gRPC status, and a `RetryInfo`. Not over HTTP.
    Status(Code, String, Option<Duration>),
    /// This HTTP status, content type and body; over gRPC too, as from a proxy on the way.
    Answer(u16, &'static str, Vec<u8>),
    /// This status with a `Retry-After`.
    RetryAfter(u16, String),
    /// No answer, ever.
    Hang,
    /// The connection is closed instead of an answer.
    Drop,
    /// Bytes that are no HTTP.
    Garbage,
}

impl Reply {
    /// A status with a line of text.
    #[must_use]
    pub fn status(status: u16, text: &str) -> Self {
        Self::Answer(status, "text/plain", text.as_bytes().to_vec())
    }

    /// A refusal that says why.
    #[must_use]
    pub fn refuse(text: &str) -> Self {
        Self::Refuse(text.to_owned())
    }

    /// A failure that says why.
    #[must_use]
    pub fn fail(text: &str) -> Self {
        Self::Fail(text.to_owned())
    }

    /// A gRPC status with a message.
    #[must_use]
    pub fn code(code: Code, message: &str) -> Self {
        Self::Status(code, message.to_owned(), None)
    }

    fn accepts(&self) -> bool {
        matches!(self, Self::Accept | Self::Partial(..))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path, e.g. `/v1/metrics`; over gRPC service and method.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as sent, compressed or not.
    pub raw: Bytes,
    /// What it says.
    pub content: Content,
    /// What was done with it.
    pub reply: Reply,
}

/// A decoded body.
#[derive(Clone, Debug)]
pub enum Content {
    /// Of `/v1/metrics`, or gRPC's `MetricsService`.
    Metrics(ExportMetricsServiceRequest),
    /// Of `/v1/logs`.
    Logs(ExportLogsServiceRequest),
    /// Of `/v1/traces`.
    Traces(ExportTraceServiceRequest),
    /// Of another path, or not what it should be.
    Unreadable(String),
}

/// A number data point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Attributes, values as text.
    pub attributes: BTreeMap<String, String>,
    /// The value, unless there is none.
    pub value: Option<number_data_point::Value>,
    /// `start_time_unix_nano`.
    pub start: u64,
    /// `time_unix_nano`.
    pub time: u64,
    /// 1 is "no recorded value".
    pub flags: u32,
    /// The metric's unit.
    pub unit: String,
}

impl Point {
    /// The value as a number, whole or not.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        Some(match self.value? {
            number_data_point::Value::AsDouble(real) => real,
            #[expect(clippy::cast_precision_loss, reason = "tests count little")]
            number_data_point::Value::AsInt(whole) => whole as f64,
        })
    }

    /// Whether it carries this attribute.
    #[must_use]
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.attributes.get(name).is_some_and(|held| held == value)
    }
}

impl Received {
    /// Every metric in it.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        let Content::Metrics(request) = &self.content else { return None.into_iter().flatten() };
        Some(request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics))
            .into_iter()
            .flatten()
    }

    /// Every log record in it.
    pub fn logs(&self) -> impl Iterator<Item = &LogRecord> {
        let Content::Logs(request) = &self.content else { return None.into_iter().flatten() };
        Some(request.resource_logs.iter().flat_map(|of| &of.scope_logs).flat_map(|of| &of.log_records))
            .into_iter()
            .flatten()
    }

    /// Every span in it.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let Content::Traces(request) = &self.content else { return None.into_iter().flatten() };
        Some(request.resource_spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans))
            .into_iter()
            .flatten()
    }

    /// Points of the gauge or sum `name`, in order.
    pub fn points(&self, name: &str) -> Vec<Point> {
        self.metrics().filter(|metric| metric.name == name).flat_map(points).collect()
    }
}

/// Points of a gauge or sum.
fn points(metric: &Metric) -> Vec<Point> {
    let points: &[NumberDataPoint] = match &metric.data {
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Sum(sum)) => &sum.data_points,
        _ => &[],
    };
    let unit = &metric.unit;
    points
        .iter()
        .map(|point| Point {
            attributes: attributes(&point.attributes),
            value: point.value,
            start: point.start_time_unix_nano,
            time: point.time_unix_nano,
            flags: point.flags,
            unit: unit.clone(),
        })
        .collect()
}

/// Attributes as text.
#[must_use]
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(flag)) => flag.to_string(),
        Some(any_value::Value::IntValue(whole)) => whole.to_string(),
        Some(any_value::Value::DoubleValue(real)) => real.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}

impl Default for Receiver {
    fn default() -> Self {
        Self::start()
    }
}

impl Receiver {
    /// Listens for HTTP on a free port of the loopback, and accepts everything.
    #[must_use]
    pub fn start() -> Self {
        Self::listen(Protocol::Http, None)
    }

    /// The same for gRPC.
    #[must_use]
    pub fn start_grpc() -> Self {
        Self::listen(Protocol::Grpc, None)
    }

    /// One of each.
    #[must_use]
    pub fn both() -> [Self; 2] {
        [Self::start(), Self::start_grpc()]
    }

    /// The same over TLS, for `localhost`.
    #[must_use]
    pub fn start_tls(protocol: Protocol) -> Self {
        Self::listen(protocol, Some(Tls::new()))
    }

    fn listen(protocol: Protocol, tls: Option<Tls>) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(()) });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut receiver = Self { protocol, address, tls, shared, runtime: None };
        receiver.restart();
        receiver
    }

    /// For `upstream.otlp.endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        match self.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    /// For `upstream.otlp.protocol`.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What a loss says that [`Reply::Refuse`] or [`Reply::Fail`] brought about.
    ///
    /// # Panics
    /// With any other reply.
    #[must_use]
    pub fn reason(&self, reply: &Reply) -> String {
        match (self.protocol, reply) {
            (Protocol::Http, Reply::Refuse(text)) => format!("400: {text}"),
            (Protocol::Http, Reply::Fail(text)) => format!("500: {text}"),
            (Protocol::Grpc, Reply::Refuse(text)) => format!("INVALID_ARGUMENT: {text}"),
            (Protocol::Grpc, Reply::Fail(text)) => format!("INTERNAL: {text}"),
            _ => panic!("{reply:?} is no loss"),
        }
    }

    /// A gRPC message of more bytes than this is too large, as tonic sees it.
    pub fn limit(&self, bytes: usize) {
        self.shared.lock().limit = Some(bytes);
    }

    /// The certificate it shows, in PEM, which is its own authority.
    ///
    /// # Panics
    /// Without TLS.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.tls.as_ref().expect("it speaks TLS").pem
    }

    /// The next requests are answered so, one each; the ones after that as before.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().script.extend(replies);
    }

    /// Forgets what is left of the script.
    pub fn unscript(&self) {
        self.shared.lock().script.clear();
    }

    /// Requests without a script are answered so, from now on.
    pub fn answer_with(&self, judge: impl Fn(&Received) -> Reply + Send + 'static) {
        self.shared.lock().judge = Some(Box::new(judge));
    }

    /// Everything that came, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.lock().received.clone()
    }

    /// What of it was answered with 200.
    #[must_use]
    pub fn accepted(&self) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.reply.accepts()).collect()
    }

    /// Points of the gauge or sum `name` in all requests that were accepted, in order.
    #[must_use]
    pub fn points(&self, name: &str) -> Vec<Point> {
        self.accepted().iter().flat_map(|request| request.points(name)).collect()
    }

    /// Log records of this `event_name` in all requests that were accepted, in order.
    #[must_use]
    pub fn logs(&self, event: &str) -> Vec<LogRecord> {
        let accepted = self.accepted();
        accepted.iter().flat_map(Received::logs).filter(|log| log.event_name == event).cloned().collect()
    }

    /// Spans of this name in all requests that were accepted, in order.
    #[must_use]
    pub fn spans(&self, name: &str) -> Vec<Span> {
        let accepted = self.accepted();
        accepted.iter().flat_map(Received::spans).filter(|span| span.name == name).cloned().collect()
    }

    /// Waits until `happened`, looking again after each request.
    ///
    /// # Panics
    /// After [`DEADLINE`], with what was waited for.
    pub async fn until(&self, what: &str, happened: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let wait = async {
            while !happened(self) {
                changes.changed().await.expect("the sender is held by the receiver");
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("waited {DEADLINE:?} for: {what}; came: {:#?}", self.summary());
        }
    }

    /// Every request and what was done with it, in a line each.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let line = |request: &Received| format!("{} {} B: {:?}", request.path, request.raw.len(), request.reply);
        self.received().iter().map(line).collect()
    }

    /// Is gone at once, with all its connections.
    ///
    /// # Panics
    /// When its threads do not end.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for from within another.
            std::thread::spawn(move || runtime.shutdown_timeout(DEADLINE)).join().expect("the receiver's thread ends");
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Panics
    /// When the port was taken by somebody else.
    pub fn restart(&mut self) {
        self.stop();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = std::net::TcpListener::bind(self.address).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be set so");
        self.address = listener.local_addr().expect("it is bound");
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor.clone());
        let shared = self.shared.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("it is set non-blocking");
            let app = Router::new().fallback(receive).layer(DefaultBodyLimit::disable()).with_state(shared);
            let app = app.into_make_service_with_connect_info::<Wire>();
            axum::serve(Door { listener, acceptor }, app).await
        });
        self.runtime = Some(runtime);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

type Judge = Box<dyn Fn(&Received) -> Reply + Send>;

#[derive(Default)]
struct Memory {
    script: VecDeque<Reply>,
    judge: Option<Judge>,
    received: Vec<Received>,
    limit: Option<usize>,
}

struct Shared {
    state: Mutex<Memory>,
    changes: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Keeps a request, and says what becomes of it.
    fn take(&self, mut received: Received) -> Reply {
        received.reply = {
            let mut memory = self.lock();
            match (memory.script.pop_front(), &memory.judge) {
                (Some(scripted), _) => scripted,
                (None, Some(judge)) => judge(&received),
                (None, None) => Reply::Accept,
            }
        };
        let reply = received.reply.clone();
        self.keep(received);
        reply
    }

    fn keep(&self, received: Received) {
        self.lock().received.push(received);
        self.changes.send_replace(());
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    uri: Uri,
    headers: HeaderMap,
    raw: Bytes,
) -> Response<Body> {
    if headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return call(shared, wire, &uri, headers, raw).await;
    }
    let (path, content) = (uri.path().to_owned(), read(uri.path(), &headers, &raw));
    let reply = shared.take(Received { path, headers, raw, content, reply: Reply::Accept });
    behave(reply, &wire).await
}

async fn behave(reply: Reply, wire: &Wire) -> Response<Body> {
    let protobuf = Response::builder().header("content-type", "application/x-protobuf");
    let answer = match reply {
        Reply::Accept => protobuf.body(Body::empty()),
        Reply::Partial(rejected_data_points, error_message) => {
            let partial_success = Some(ExportMetricsPartialSuccess { rejected_data_points, error_message });
            protobuf.body(ExportMetricsServiceResponse { partial_success }.encode_to_vec().into())
        }
        Reply::Refuse(text) => Response::builder().status(400).body(text.into()),
        Reply::Fail(text) => Response::builder().status(500).body(text.into()),
        Reply::Busy(None) => Response::builder().status(503).body(Body::empty()),
        Reply::Busy(Some(after)) => Response::builder().status(503).header("retry-after", after).body(Body::empty()),
        Reply::Status(..) => panic!("HTTP has no such status"),
        Reply::Answer(status, kind, body) => {
            Response::builder().status(status).header("content-type", kind).body(body.into())
        }
        Reply::RetryAfter(status, after) => {
            Response::builder().status(status).header("retry-after", after).body(Body::empty())
        }
        Reply::Hang => std::future::pending().await,
        Reply::Drop => {
            wire.0.store(CUT, Ordering::SeqCst);
            Response::builder().body(Body::empty())
        }
        Reply::Garbage => {
            wire.0.store(GARBAGE, Ordering::SeqCst);
            Response::builder().body(Body::empty())
        }
    };
    answer.expect("a test's reply is valid HTTP")
}

/// A gRPC call, which tonic's server unpacks and answers.
async fn call(shared: Arc<Shared>, wire: Wire, uri: &Uri, headers: HeaderMap, raw: Bytes) -> Response<Body> {
    let limit = shared.lock().limit.unwrap_or(4 << 20);
    let mut request = Request::new(Body::from(raw.clone()));
    (*request.method_mut(), *request.version_mut()) = (Method::POST, Version::HTTP_2);
    (*request.uri_mut(), *request.headers_mut()) = (uri.clone(), headers.clone());
    let path = uri.path().to_owned();
    let (said, gzip) = (Arc::new(OnceLock::new()), CompressionEncoding::Gzip);
    let (of, with, body) = (path.clone(), headers.clone(), raw.clone());
    let sink = Sink { shared: shared.clone(), path: of, headers: with, raw: body, said: said.clone() };
    let answered = if path.starts_with("/opentelemetry.proto.collector.metrics.v1.MetricsService/") {
        let server = MetricsServiceServer::new(sink)
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(limit);
        server.oneshot(request).await
    } else if path.starts_with("/opentelemetry.proto.collector.logs.v1.LogsService/") {
        let server =
            LogsServiceServer::new(sink).accept_compressed(gzip).send_compressed(gzip).max_decoding_message_size(limit);
        server.oneshot(request).await
    } else {
        let server = TraceServiceServer::new(sink)
            .accept_compressed(gzip)
            .send_compressed(gzip)
            .max_decoding_message_size(limit);
        server.oneshot(request).await
    };
    let Ok(answered) = answered;
    match said.get() {
        // tonic itself does not want it: too large, an encoding that it does not know.
        None => {
            let code =
                answered.headers().get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
            let (content, reply) = (Content::Unreadable("not by tonic".to_owned()), Reply::code(code, ""));
            shared.keep(Received { path, headers, raw, content, reply });
            answered.map(Body::new)
        }
        Some(
            Reply::Accept | Reply::Partial(..) | Reply::Refuse(_) | Reply::Fail(_) | Reply::Busy(_) | Reply::Status(..),
        ) => answered.map(Body::new),
        Some(reply) => behave(reply.clone(), &wire).await,
    }
}

/// Where one call ends up.
struct Sink {
    shared: Arc<Shared>,
    path: String,
    headers: HeaderMap,
    raw: Bytes,
    said: Arc<OnceLock<Reply>>,
}

impl Sink {
    /// What a partial success says, if there is one.
    fn take(&self, content: Content) -> Result<Option<(i64, String)>, tonic::Status> {
        let (path, headers, raw) = (self.path.clone(), self.headers.clone(), self.raw.clone());
        let reply = self.shared.take(Received { path, headers, raw, content, reply: Reply::Accept });
        let reply = self.said.get_or_init(|| reply);
        Err(match reply {
            Reply::Accept => return Ok(None),
            Reply::Partial(rejected, message) => return Ok(Some((*rejected, message.clone()))),
            Reply::Refuse(text) => tonic::Status::invalid_argument(text),
            Reply::Fail(text) => tonic::Status::internal(text),
            Reply::Busy(after) => status(Code::Unavailable, "", after.map(Duration::from_secs)),
            Reply::Status(code, text, after) => status(*code, text, *after),
            _ => tonic::Status::unknown("something else is answered"),
        })
    }
}

fn status(code: Code, message: &str, retry_after: Option<Duration>) -> tonic::Status {
    match retry_after {
        None => tonic::Status::new(code, message),
        Some(_) => tonic::Status::with_error_details(code, message, ErrorDetails::with_retry_info(retry_after)),
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let partial = self.take(Content::Metrics(request.into_inner()))?;
        let partial_success = partial.map(|(rejected_data_points, error_message)| ExportMetricsPartialSuccess {
            rejected_data_points,
            error_message,
        });
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let partial = self.take(Content::Logs(request.into_inner()))?;
        let partial_success = partial.map(|(rejected_log_records, error_message)| ExportLogsPartialSuccess {
            rejected_log_records,
            error_message,
        });
        Ok(tonic::Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let partial = self.take(Content::Traces(request.into_inner()))?;
        let partial_success =
            partial.map(|(rejected_spans, error_message)| ExportTracePartialSuccess { rejected_spans, error_message });
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

fn read(path: &str, headers: &HeaderMap, raw: &[u8]) -> Content {
    let mut plain = Vec::new();
    let unzipped = match headers.get("content-encoding").map(|encoding| encoding.as_bytes()) {
        Some(b"gzip") => flate2::read::GzDecoder::new(raw).read_to_end(&mut plain),
        Some(other) => Err(io::Error::other(format!("encoding {other:?}"))),
        None => Read::read_to_end(&mut &raw[..], &mut plain),
    };
    if let Err(error) = unzipped {
        return Content::Unreadable(error.to_string());
    }
    let decoded = if path.ends_with("/v1/metrics") {
        ExportMetricsServiceRequest::decode(&plain[..]).map(Content::Metrics)
    } else if path.ends_with("/v1/logs") {
        ExportLogsServiceRequest::decode(&plain[..]).map(Content::Logs)
    } else if path.ends_with("/v1/traces") {
        ExportTraceServiceRequest::decode(&plain[..]).map(Content::Traces)
    } else {
        return Content::Unreadable(format!("nobody sends OTLP to {path}"));
    };
    decoded.unwrap_or_else(|error| Content::Unreadable(error.to_string()))
}

/// A certificate that is its own authority.
struct Tls {
    pem: String,
    acceptor: TlsAcceptor,
}

impl Tls {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate can be made");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring knows TLS 1.3")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("key and certificate belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { pem: made.cert.pem(), acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

struct Door {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
}

impl Listener for Door {
    type Io = Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Io, SocketAddr) {
        loop {
            let (stream, peer) = Listener::accept(&mut self.listener).await;
            let stream: Box<dyn Stream> = match &self.acceptor {
                None => Box::new(stream),
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => Box::new(stream),
                    Err(_) => continue, // the client does not trust us, which is what some tests are about
                },
            };
            return (Io { stream, wire: Wire::default() }, peer);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What happens to whatever is written to a connection.
#[derive(Clone, Default)]
struct Wire(Arc<AtomicU8>);

const CUT: u8 = 1;
const GARBAGE: u8 = 2;

impl Connected<IncomingStream<'_, Door>> for Wire {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().wire.clone()
    }
}

struct Io {
    stream: Box<dyn Stream>,
    wire: Wire,
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.wire.0.load(Ordering::SeqCst) {
            0 => Pin::new(&mut self.stream).poll_write(cx, bytes),
            CUT => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => {
                ready!(Pin::new(&mut self.stream).poll_write(cx, b"\x16\x03\x01 this is no HTTP\r\n\r\n"))?;
                self.wire.0.store(CUT, Ordering::SeqCst);
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
