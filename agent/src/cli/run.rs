//! `gemba run`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::heap;
use crate::logging::{self, LogFormat};

/// Run the agent until SIGTERM or SIGINT
///
/// Reads every station, computes, stores and forwards; what it sees stands on http.listen under /health. A station
/// or an upstream that is down is tried again for ever, and disturbs nobody else. After a signal it sends what it
/// can for a few seconds, keeps the rest on disk, and exits with 0.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gemba run --config /etc/gemba/line.yaml")]
pub struct Run {
    /// YAML file, or a folder whose *.yaml files are merged
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines look: for people, or a JSON object each
    #[arg(long, value_enum, default_value_t, env = "GEMBA_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or levels by module such as `info,gemba_drivers=debug`
    #[arg(long, value_name = "FILTER", default_value = "info", env = "GEMBA_LOG", value_parser = filter)]
    log: String,
}

impl Run {
    /// Runs until a signal, then drains.
    ///
    /// # Errors
    /// A wrong configuration, or something that must stand at the start and does not.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        heap::share();
        let config = Config::load(&self.config)?;
        let own = logging::start(self.log_format, &self.log, config.trace_sample)?;
        // One crypto provider for every client, before the first of them.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let result = runtime.block_on(async {
            let stop = CancellationToken::new();
            let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
            let mut running = Box::pin(crate::run::run_with(config, own, stop.clone(), |_| {}));
            tokio::select! {
                ended = &mut running => return ended,
                _ = terminate.recv() => info!("SIGTERM"),
                _ = interrupt.recv() => info!("SIGINT"),
            }
            stop.cancel();
            running.await
        });
        // A hung disk or name look-up must not keep the process.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        result.map(|()| ExitCode::SUCCESS)
    }
}

/// A filter that can be read: one that cannot is wrong usage.
fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned())
}
