//! Spans of what the drivers do. A span that says its kind (`otel.kind`) is for upstream; whether it gets there is the
//! agent's affair. Without anybody who wants them they cost a look at an atomic.

use std::fmt::Display;

use tracing::Span;

/// Says on `span` that what it stands for failed, and why. The span declares `otel.status_code` and
/// `otel.status_description`.
pub(crate) fn failed(span: &Span, why: &dyn Display) {
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", why.to_string());
    }
}

/// A span for upstream: `client!("poll", factory.station = %name)`.
macro_rules! client {
    ($name:literal, $($fields:tt)*) => {
        tracing::debug_span!(
            $name,
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
            $($fields)*
        )
    };
}
pub(crate) use client;
