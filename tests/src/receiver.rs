//! An OTLP/HTTP receiver that keeps everything it gets, and fails as it is told to.
//!
//! It runs on a runtime of its own, so that [`Receiver::stop`] is as sudden as a crash: every socket is
//! gone when it returns. [`Receiver::restart`] comes back on the same port, with its memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response, Uri};
use axum::serve::{IncomingStream, Listener};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The receiver. Dropping it stops it.
pub struct Receiver {
    address: SocketAddr,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What the receiver does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 200 and an empty response message.
    Accept,
    /// 200, but so many points are rejected, and why.
    Partial(i64, String),
    /// This status, content type and body.
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

    fn accepts(&self) -> bool {
        matches!(self, Self::Accept | Self::Partial(..))
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The path, e.g. `/v1/metrics`.
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
    /// Of `/v1/metrics`.
    Metrics(ExportMetricsServiceRequest),
    /// Of `/v1/logs`.
    Logs(ExportLogsServiceRequest),
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
    /// Listens on a free port of the loopback, and accepts everything.
    #[must_use]
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// The same over TLS, for `localhost`.
    #[must_use]
    pub fn start_tls() -> Self {
        Self::listen(Some(Tls::new()))
    }

    fn listen(tls: Option<Tls>) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changes: watch::Sender::new(()) });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut receiver = Self { address, tls, shared, runtime: None };
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

async fn receive(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    uri: Uri,
    headers: HeaderMap,
    raw: Bytes,
) -> Response<Body> {
    let content = read(uri.path(), &headers, &raw);
    let reply = {
        let mut memory = shared.lock();
        let path = uri.path().to_owned();
        let mut received = Received { path, headers, raw, content, reply: Reply::Accept };
        received.reply = match (memory.script.pop_front(), &memory.judge) {
            (Some(scripted), _) => scripted,
            (None, Some(judge)) => judge(&received),
            (None, None) => Reply::Accept,
        };
        let reply = received.reply.clone();
        memory.received.push(received);
        reply
    };
    shared.changes.send_replace(());
    let protobuf = Response::builder().header("content-type", "application/x-protobuf");
    let answer = match reply {
        Reply::Accept => protobuf.body(Body::empty()),
        Reply::Partial(rejected_data_points, error_message) => {
            let partial_success = Some(ExportMetricsPartialSuccess { rejected_data_points, error_message });
            protobuf.body(ExportMetricsServiceResponse { partial_success }.encode_to_vec().into())
        }
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
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring knows TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("key and certificate belong together");
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
