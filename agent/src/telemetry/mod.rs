//! What the agent tells of itself and of the machine below it (docs/decisions/0005-own-telemetry.md).
//!
//! ```text
//! tracing ─▶ layers ─▶ Outbox ─┐
//! Meters ──────────────────────┼▶ Teller ─▶ pipeline ─▶ spool (lane `telemetry`) ─▶ forwarder
//! machine ─▶ host::Host ───────┘
//! ```
//! It goes through the same spool as everything else and is the first to go when there is no room. Nothing here starts a
//! thread or a task: what a span or a log line costs its caller is a push into a bounded list.
//!
//! - [`metric`]: one description of a figure, from which both OTLP and `/metrics` are written.
//! - [`meters`]: what the agent counts.
//! - [`breakers`]: how links and the devices behind them are tried and left alone.
//! - [`outbox`]: log lines and spans on their way.
//! - [`teller`]: what puts them together and hands them to the pipeline.

pub mod breakers;
pub mod meters;
pub mod metric;
pub mod outbox;
pub mod teller;
