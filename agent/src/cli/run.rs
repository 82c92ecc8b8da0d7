//! `gemba run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::service::{Signals, filter, serve};
use crate::config::Config;
use crate::heap;
use crate::logging::LogFormat;
use crate::telemetry::outbox::Outbox;

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
        serve(self.log_format, &self.log, config.trace_sample, async |mut signals: Signals, own: Outbox| {
            let stop = CancellationToken::new();
            let mut running = Box::pin(crate::run::run_with(config, own, stop.clone(), |_| {}));
            tokio::select! {
                ended = &mut running => return ended.map(|_| ExitCode::SUCCESS),
                signal = signals.next() => info!("{signal}"),
            }
            stop.cancel();
            running.await.map(|_| ExitCode::SUCCESS)
        })
    }
}
