//! gemba, as it runs on a gateway.

use std::path::Path;
use std::process::Command;

/// How it is started.
#[must_use]
pub fn command(gemba: &Path, config: &Path) -> Command {
    let mut command = Command::new(gemba);
    command.arg("run").arg("--config").arg(config);
    command
}
