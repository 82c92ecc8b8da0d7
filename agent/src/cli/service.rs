//! What a command that runs until a signal stands on.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::logging::{self, LogFormat};
use crate::telemetry::outbox::Outbox;

/// The signals that ask for an end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// The next one's name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Does `work` with logging, one crypto provider for every client, a runtime, signals, and what the agent says of itself;
/// `sample` is the share of its spans that go upstream, 0 to 1.
///
/// # Errors
/// If one of them cannot be had; or as `work` does.
pub(super) fn serve<T>(
    format: LogFormat,
    filter: &str,
    sample: f64,
    work: impl AsyncFnOnce(Signals, Outbox) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let own = logging::start(format, filter, sample)?;
    // Before the first client.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(async { work(Signals::listen()?, own).await });
    // A hung disk or name look-up must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A filter that can be read: one that cannot is wrong usage.
pub(super) fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned())
}
