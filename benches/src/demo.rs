//! The simulated line of `gemba demo`, in this process, for an agent in another.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gemba::demo;
use gemba_drivers::sim::smt::{Options, Plant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The line runs until this is dropped.
pub struct Running(DropGuard);

impl Running {
    /// Lets it run until this process ends.
    pub fn forever(self) {
        self.0.disarm();
    }
}

/// Starts the machines at the speed of life, and writes the demo's configuration into `folder` as line.yaml.
///
/// # Errors
/// If a server does not start, or the file cannot be written.
pub async fn line(folder: &Path, upstream: &str, page: SocketAddr) -> anyhow::Result<Running> {
    let plant = Arc::new(Plant::start(Options::default()).await?);
    std::fs::write(folder.join("line.yaml"), demo::configuration(&plant, page, upstream, &folder.join("spool")))?;
    let stop = CancellationToken::new();
    let running = Running(stop.clone().drop_guard());
    tokio::spawn(async move { plant.run(stop).await });
    Ok(running)
}
