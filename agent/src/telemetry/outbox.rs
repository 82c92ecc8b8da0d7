//! Log lines and spans of the agent, from `tracing` to the [`Teller`](super::teller::Teller).
//!
//! - A *log line* is an event of level INFO or above.
//! - A *span* for upstream says its kind (`otel.kind`); others only give log lines their context. Of those that neither
//!   failed nor took longer than [`SLOW`] a share is told, picked by trace: all of a trace, or nothing. What failed or was
//!   slow is told always, which is decided when the span ends. A caller that samples (`traceparent`) is followed.
//! - What carries telemetry must not make more of it: libraries below the forwarder and the spool are never heard, whatever
//!   the filter for stderr says.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::logs::LogRecord as _;
use opentelemetry::trace::{Link, SpanKind, Status, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// A span that takes longer is told whatever the share says.
pub const SLOW: Duration = Duration::from_secs(1);
/// Log lines, and spans, between two looks of the teller, a second apart. What is more is dropped, and counted.
const MOST_HELD: usize = 512;
/// Below the forwarder and the spool: told of, they would tell of the telling.
const NEVER: [&str; 8] = ["sled", "opentelemetry", "h2", "hyper", "tonic", "tower", "reqwest", "rustls"];

/// Libraries whose log lines say what ours say better, or what is no fault.
const NOISY: [&str; 2] = ["opcua_", "rumqttd"];

/// What was said and is not told yet. Clones are the same outbox; one that no layer fills stays empty.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<Held>>);

/// What an outbox held.
#[derive(Debug, Default)]
pub struct Held {
    /// Log records, in the order they were said.
    pub logs: Vec<SdkLogRecord>,
    /// Spans, in the order they ended.
    pub spans: Vec<SpanData>,
    /// How many log records there was no room for.
    pub dropped_logs: u64,
    /// How many spans.
    pub dropped_spans: u64,
}

impl Outbox {
    /// Takes all of it out.
    #[must_use]
    pub fn take(&self) -> Held {
        std::mem::take(&mut self.lock())
    }

    /// What fills it: add it to the subscriber. `sample` is the share of ordinary spans, 0 to 1.
    pub fn layer<S>(&self, sample: f64) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let resource = || Resource::builder_empty().build();
        let tracer = SdkTracerProvider::builder()
            .with_sampler(Head(Sampler::TraceIdRatioBased(sample)))
            .with_span_processor(Tail(self.clone()))
            .with_resource(resource())
            .build()
            .tracer("gemba");
        let spans = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|of| of.is_span() && is_for_upstream(of) && is_ours(of)));
        let logger =
            SdkLoggerProvider::builder().with_log_processor(Lines(self.clone())).with_resource(resource()).build();
        let logs = OpenTelemetryTracingBridge::builder(&logger)
            .with_tracing_span_attributes(TracingSpanAttributes::allowlist(["endpoint"]))
            .build()
            .with_filter(filter_fn(|of| {
                let wanted =
                    if of.is_span() { !is_for_upstream(of) } else { *of.level() <= Level::INFO && !is_noise(of) };
                wanted && is_ours(of)
            }));
        // Spans first: a line takes its trace from the span that is open.
        spans.and_then(logs)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what is below may be told without end.
fn is_ours(of: &Metadata<'_>) -> bool {
    !NEVER.iter().any(|crate_name| of.target().starts_with(crate_name))
}

/// Whether a span goes upstream itself; others give lines their context.
fn is_for_upstream(of: &Metadata<'_>) -> bool {
    of.fields().field("otel.kind").is_some()
}

fn is_noise(of: &Metadata<'_>) -> bool {
    NOISY.iter().any(|prefix| of.target().starts_with(prefix))
}

/// Decides at the start of a span whether its trace is among the share; those that are not are recorded all the same,
/// since they may yet fail.
#[derive(Clone, Debug)]
struct Head(Sampler);

impl ShouldSample for Head {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(None, trace, name, kind, attributes, links);
        let followed = parent.is_some_and(|parent| parent.span().span_context().is_sampled());
        if followed {
            result.decision = SamplingDecision::RecordAndSample;
        } else if result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// Decides at the end of a span whether it is told.
#[derive(Debug)]
struct Tail(Outbox);

impl SpanProcessor for Tail {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !is_told(&span) {
            return;
        }
        let mut held = self.0.lock();
        if held.spans.len() < MOST_HELD {
            held.spans.push(span);
        } else {
            held.dropped_spans += 1;
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn is_told(span: &SpanData) -> bool {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    span.span_context.is_sampled() || matches!(span.status, Status::Error { .. }) || took > SLOW
}

#[derive(Debug)]
struct Lines(Outbox);

impl LogProcessor for Lines {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        let mut held = self.0.lock();
        if held.logs.len() >= MOST_HELD {
            held.dropped_logs += 1;
            return;
        }
        let mut record = record.clone();
        // The bridge says when it was observed, and leaves open when it happened.
        if let (None, Some(observed)) = (record.timestamp(), record.observed_timestamp()) {
            record.set_timestamp(observed);
        }
        held.logs.push(record);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tracing::subscriber::with_default;
    use tracing::{debug, debug_span, error, field::Empty, info, info_span, trace};
    use tracing_subscriber::prelude::*;

    use super::*;

    fn said(sample: f64, what: impl FnOnce()) -> Held {
        let outbox = Outbox::default();
        with_default(tracing_subscriber::registry().with(outbox.layer(sample)), what);
        outbox.take()
    }

    fn work(status: Option<&str>) {
        let span = debug_span!("poll", otel.kind = "client", factory.station = "press", otel.status_code = Empty);
        if let Some(status) = status {
            span.record("otel.status_code", status);
        }
        span.in_scope(|| ());
    }

    #[test]
    fn what_failed_is_told_whatever_the_share() {
        let held = said(0.0, || {
            work(None);
            work(Some("ERROR"));
        });
        assert_eq!(held.spans.len(), 1);
        assert!(matches!(held.spans[0].status, Status::Error { .. }));
        assert!(held.spans[0].attributes.contains(&KeyValue::new("factory.station", "press")));
        assert_eq!(said(1.0, || work(None)).spans.len(), 1);
    }

    #[test]
    fn what_was_slow_is_told_whatever_the_share() {
        let held = said(1.0, || work(None));
        let mut span = held.spans[0].clone();
        span.span_context = opentelemetry::trace::SpanContext::new(
            span.span_context.trace_id(),
            span.span_context.span_id(),
            opentelemetry::TraceFlags::NOT_SAMPLED,
            false,
            Default::default(),
        );
        span.start_time = SystemTime::UNIX_EPOCH;
        span.end_time = span.start_time + SLOW;
        assert!(!is_told(&span), "not longer than the bound");
        span.end_time += Duration::from_nanos(1);
        assert!(is_told(&span));
        span.end_time = span.start_time - Duration::from_secs(5);
        assert!(!is_told(&span), "a clock that was set back makes nothing slow");
    }

    #[test]
    fn the_share_is_of_traces_and_always_the_same_for_one() {
        let sampled = |ratio, trace: u128| {
            let head = Head(Sampler::TraceIdRatioBased(ratio));
            let decision = head.should_sample(None, TraceId::from(trace), "poll", &SpanKind::Client, &[], &[]).decision;
            assert_ne!(decision, SamplingDecision::Drop, "it may yet fail");
            decision == SamplingDecision::RecordAndSample
        };
        // An odd multiplier spreads the numbers over all traces.
        let traces = || (1..=10_000_u128).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        let picked = traces().filter(|trace| sampled(0.1, *trace)).count();
        assert!((900..1_100).contains(&picked), "{picked} of 10,000");
        let fewer: Vec<_> = traces().filter(|trace| sampled(0.01, *trace)).collect();
        assert!(
            !fewer.is_empty() && fewer.iter().all(|trace| sampled(0.1, *trace)),
            "a smaller share is part of a larger"
        );
    }

    #[test]
    fn only_spans_that_say_their_kind_and_lines_that_matter() {
        let held = said(1.0, || {
            let link = info_span!("link", endpoint = "tcp://plc");
            let _in = link.enter();
            info!(station = "press", "connected");
            error!(target: "opcua_crypto::pki", "no certificate, which is no fault");
            debug!("not for upstream");
            trace!("nor this");
        });
        assert_eq!((held.spans.len(), held.logs.len(), held.dropped_logs), (0, 1, 0));
        let line = &held.logs[0];
        assert_eq!(line.body(), Some(&"connected".into()));
        assert!(line.timestamp().is_some() && line.timestamp() == line.observed_timestamp());
        let says = |name: &str, said: &str| {
            line.attributes_iter().any(|(key, value)| key.as_str() == name && format!("{value:?}").contains(said))
        };
        assert!(says("station", "press") && says("endpoint", "tcp://plc"), "a line names its link: {line:?}");
    }

    #[test]
    fn a_line_within_a_span_names_it() {
        let held = said(1.0, || debug_span!("commit", otel.kind = "internal").in_scope(|| error!("the disk is full")));
        let context = held.logs[0].trace_context().expect("a trace");
        let span = &held.spans[0].span_context;
        assert_eq!((context.trace_id, context.span_id), (span.trace_id(), span.span_id()));
    }

    #[test]
    fn what_carries_telemetry_is_never_heard() {
        let held = said(1.0, || {
            error!(target: "sled::pagecache", "x");
            error!(target: "h2::codec", "x");
            error!(target: "hyper_util::client", "x");
            error!(target: "opentelemetry_sdk", "x");
            error!(target: "tonic::transport", "x");
            error!(target: "tower::buffer", "x");
            error!(target: "reqwest::connect", "x");
            error!(target: "rustls::client", "x");
            drop(debug_span!(target: "tonic::transport", "call", otel.kind = "client").entered());
        });
        assert_eq!((held.spans.len(), held.logs.len()), (0, 0));
    }

    #[test]
    fn there_is_room_for_so_many_and_the_rest_is_counted() {
        let held = said(1.0, || {
            for number in 0..MOST_HELD + 10 {
                info!(number, "again");
                work(Some("ERROR"));
            }
        });
        assert_eq!((held.logs.len(), held.dropped_logs), (MOST_HELD, 10));
        assert_eq!((held.spans.len(), held.dropped_spans), (MOST_HELD, 10));
    }
}
