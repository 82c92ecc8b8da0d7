//! An OTLP receiver, over HTTP and gRPC on one port, that looks at every point, so that no figure speaks of readings that never came.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, number_data_point::Value};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// Which reading of its tag a point is: numbers that go up by one. Two that are alike are a repetition, and what is left
/// out never came.
pub type Beat = Box<dyn Fn(&NumberDataPoint) -> u64 + Send + Sync>;

/// The receiver; it takes everything.
#[derive(Clone)]
pub struct Upstream {
    /// How the names of the metrics begin whose points are readings.
    tags: &'static str,
    beat: Arc<Option<Beat>>,
    seen: Arc<Mutex<Seen>>,
}

/// What came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Points of tags with a value.
    pub readings: u64,
    /// Points of tags without one: bad readings.
    pub bad: u64,
    /// Readings that were left out between two others of their tag.
    pub missing: u64,
    /// Readings that came again.
    pub repeated: u64,
    /// What the agent itself says it lost: points of `gemba.losses`.
    pub losses: u64,
    /// Requests, and bytes of their bodies as they came over the wire.
    pub requests: u64,
    /// See `requests`.
    pub wire: u64,
    /// The last beat of each tag.
    last: HashMap<String, u64>,
}

impl Seen {
    /// Tags that have sent a value.
    #[must_use]
    pub fn tags(&self) -> usize {
        self.last.len()
    }

    /// The last beat of the tag that is furthest behind.
    #[must_use]
    pub fn behind(&self) -> Option<u64> {
        self.last.values().min().copied()
    }
}

impl Upstream {
    /// Listens on a free port of loopback; returns its URL too. Points of metrics whose names begin with `tags` are
    /// readings. With `beat` it looks for gaps and repetitions.
    ///
    /// # Errors
    /// If there is no port.
    pub async fn start(tags: &'static str, beat: Option<Beat>) -> anyhow::Result<(Self, String)> {
        let upstream = Self { tags, beat: Arc::new(beat), seen: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let grpc = MetricsServiceServer::new(upstream.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(64 << 20);
        let router = Router::new()
            .route("/v1/metrics", post(async |State(upstream): State<Self>, body: Bytes| upstream.take(&body)))
            .route("/v1/logs", post(async || {}))
            .route("/v1/traces", post(async || {}))
            .route_service("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", grpc)
            .layer(DefaultBodyLimit::disable())
            .with_state(upstream.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((upstream, endpoint))
    }

    /// What came so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn take(&self, body: &[u8]) -> StatusCode {
        let mut plain = Vec::new();
        if flate2::read::GzDecoder::new(body).read_to_end(&mut plain).is_err() {
            return StatusCode::BAD_REQUEST;
        }
        let Ok(request) = ExportMetricsServiceRequest::decode(&*plain) else { return StatusCode::BAD_REQUEST };
        self.note(&request, body.len());
        StatusCode::OK
    }

    fn note(&self, request: &ExportMetricsServiceRequest, wire: usize) {
        let mut seen = self.lock();
        seen.requests += 1;
        seen.wire += wire as u64;
        for metric in request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics) {
            let points = match &metric.data {
                Some(Data::Gauge(gauge)) => &gauge.data_points,
                Some(Data::Sum(sum)) => &sum.data_points,
                _ => continue,
            };
            if metric.name.starts_with(self.tags) {
                points.iter().for_each(|point| seen.note(&metric.name, point, self.beat.as_ref().as_ref()));
            } else if metric.name == "gemba.losses" {
                seen.losses += points.len() as u64;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl MetricsService for Upstream {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.note(request.get_ref(), 0); // what it was on the wire is not told
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Seen {
    fn note(&mut self, tag: &str, point: &NumberDataPoint, beat: Option<&Beat>) {
        if point.value.is_none() {
            self.bad += 1;
            return;
        }
        self.readings += 1;
        let Some(beat) = beat.map(|beat| beat(point)) else { return };
        match self.last.get_mut(tag) {
            None => drop(self.last.insert(tag.to_owned(), beat)),
            Some(last) if beat <= *last => self.repeated += 1,
            Some(last) => {
                self.missing += beat - *last - 1;
                *last = beat;
            }
        }
    }
}

/// The point's value as a number.
#[must_use]
pub fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Value::AsDouble(real)) => real,
        #[expect(clippy::cast_precision_loss, reason = "benches count little")]
        Some(Value::AsInt(whole)) => whole as f64,
        None => f64::NAN,
    }
}
