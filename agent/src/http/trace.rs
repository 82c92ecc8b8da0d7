//! A span for each request, which takes part in the caller's trace (W3C `traceparent`).

use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, debug_span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The middleware. A span ends when the answer begins: a stream of events may go on for days.
pub(super) async fn traced(request: Request, next: Next) -> Response {
    let span = debug_span!(
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        http.request.method = %request.method(),
        http.route = Empty,
        http.response.status_code = Empty,
    );
    if span.is_disabled() {
        return next.run(request).await;
    }
    // Only routes that there are: a stranger's paths name nothing.
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if let Some(route) = &route {
        span.record("otel.name", format!("{} {route}", request.method()));
        span.record("http.route", route);
    }
    let caller = TraceContextPropagator::new().extract(&Headers(request.headers()));
    // It fails where nobody takes spans for upstream; then there is no trace to take part in.
    let _ = span.set_parent(caller);
    let answer = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", answer.status().as_u16());
    if answer.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    answer
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Router, middleware};
    use opentelemetry::trace::Status;
    use opentelemetry_sdk::trace::SpanData;
    use tower::ServiceExt;
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::telemetry::outbox::Outbox;

    async fn asked(sample: f64, path: &str, traceparent: Option<&str>) -> Vec<SpanData> {
        let outbox = Outbox::default();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(outbox.layer(sample)));
        let app = Router::new()
            .route("/well", get(|| async { "well" }))
            .route("/ill", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .layer(middleware::from_fn(traced));
        let mut request = axum::http::Request::builder().uri(path);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let request = request.body(Body::empty()).expect("a request");
        app.oneshot(request).await.expect("an answer");
        outbox.take().spans
    }

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[tokio::test]
    async fn a_request_takes_part_in_its_callers_trace() {
        let spans = asked(0.0, "/well", Some(SAMPLED)).await;
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!(span.name, "GET /well");
        assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert!(span.parent_span_is_remote);
        let status = span.attributes.iter().find(|held| held.key.as_str() == "http.response.status_code");
        assert_eq!(status.map(|held| held.value.to_string()).as_deref(), Some("200"));
    }

    #[tokio::test]
    async fn what_nobody_samples_is_told_only_when_it_fails() {
        assert_eq!(asked(0.0, "/well", None).await.len(), 0);
        assert_eq!(asked(0.0, "/well", Some(NOT_SAMPLED)).await.len(), 0);
        assert_eq!(asked(0.0, "/well", Some("garbage")).await.len(), 0);
        let spans = asked(0.0, "/ill", Some(NOT_SAMPLED)).await;
        assert!(matches!(spans[..], [SpanData { status: Status::Error { .. }, .. }]), "{spans:?}");
    }
}
