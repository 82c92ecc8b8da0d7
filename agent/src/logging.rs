//! Log lines, for people or for machines.

use std::io::IsTerminal;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::telemetry::outbox::Outbox;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line to read, in colour on a terminal
    #[default]
    Human,
    /// A JSON object a line
    Json,
}

/// Libraries that speak of what our drivers report better, or of what is no fault: async-opcua calls it an error, at
/// each connection, that a client without security has no certificate. A filter that names them still hears them.
const HUSHED: &str = "opcua_client=off,opcua_core=off,opcua_crypto=off,opcua_types=off";

/// Starts logging to stderr, and gathers what the agent tells upstream of itself: `sample` is the share of its spans that
/// go there, 0 to 1. The filter is stderr's alone. Hand the outbox to [`run_with`](crate::run::run_with).
///
/// # Errors
/// If the filter cannot be read, or logging runs already.
pub fn start(format: LogFormat, filter: &str, sample: f64) -> anyhow::Result<Outbox> {
    let outbox = Outbox::default();
    let filter = filter_of(filter)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(outbox.layer(sample))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging cannot start: {error}"))?;
    Ok(outbox)
}

/// A level, or levels by module. (Spans and fields cannot be named: that filter would bring a second engine of regular
/// expressions into the program.)
fn filter_of(asked: &str) -> anyhow::Result<Targets> {
    format!("{HUSHED},{asked}").parse().with_context(|| format!("--log {asked}"))
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing_subscriber::prelude::*;

    use super::*;

    fn hears_opcua(asked: &str) -> bool {
        let subscriber = tracing_subscriber::registry().with(filter_of(asked).expect("a filter"));
        with_default(subscriber, || tracing::enabled!(target: "opcua_crypto::pki", tracing::Level::ERROR))
    }

    #[test]
    fn a_library_is_heard_only_when_it_is_named() {
        assert!(!hears_opcua("info"));
        assert!(!hears_opcua("debug,gemba=trace"));
        assert!(hears_opcua("info,opcua_crypto=error"));
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = filter_of("gemba=louder").expect_err("no level");
        assert!(error.to_string().contains("--log gemba=louder"), "{error}");
    }
}
