//! What a command stands on that runs until a signal, or speaks with devices.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use gemba_drivers::{AnyDriver, Driver, LinkError};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{ParseError, Targets};

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

/// Does `work` with one crypto provider for every client, a small runtime and signals, and without a log.
///
/// # Errors
/// If one of them cannot be had; or as `work` does.
pub(super) fn briefly<T>(work: impl AsyncFnOnce(Signals) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let result = runtime.block_on(async { work(Signals::listen()?).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// How long a goodbye to a device may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A call on devices that ends with a goodbye, while a terminal shows that something goes on.
pub(super) struct Visit {
    progress: ProgressBar,
    stop: CancellationToken,
}

impl Visit {
    /// Begins, with what is done in a few words.
    pub(super) fn begin(what: &str) -> Self {
        let stop = CancellationToken::new();
        if !std::io::stderr().is_terminal() {
            return Self { progress: ProgressBar::hidden(), stop };
        }
        let style = ProgressStyle::with_template("{spinner} {msg} {pos}, {elapsed}").expect("a template that holds");
        let progress = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
        progress.enable_steady_tick(Duration::from_millis(100));
        Self { progress, stop }
    }

    /// What `asking` comes to; a signal shortens it, goodbyes included. And whether one did.
    pub(super) async fn until<T>(&self, mut signals: Signals, asking: impl Future<Output = T>) -> (T, bool) {
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => return (answer, false),
            _ = signals.next() => self.stop.cancel(),
        }
        (asking.await, true)
    }

    /// So much has come.
    pub(super) fn count(&self, so_many: usize) {
        self.progress.set_position(so_many as u64);
    }

    /// Does `work` with `driver`, and lets the device know that we go.
    ///
    /// # Errors
    /// As `work` does.
    pub(super) async fn to(
        &self,
        mut driver: AnyDriver,
        work: impl AsyncFnOnce(&mut AnyDriver) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let done = tokio::select! {
            done = work(&mut driver) => done,
            () = self.stop.cancelled() => Err(LinkError::Broken("interrupted".to_owned())),
        };
        let _ = timeout(GOODBYE, driver.close()).await;
        done
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

/// A filter that can be read: one that cannot is wrong usage.
pub(super) fn filter(text: &str) -> Result<String, ParseError> {
    text.parse().map(|_: Targets| text.to_owned())
}
