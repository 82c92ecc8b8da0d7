//! An agent in a process of its own.

use std::process::{Child, Command, ExitStatus};

use anyhow::{Context, bail, ensure};

use crate::Usage;

/// It runs. Killed at the end, if it was not stopped.
pub struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().context(program)?))
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// If it has ended.
    pub fn usage(&mut self) -> anyhow::Result<Usage> {
        if let Some(status) = self.0.try_wait()? {
            bail!("the agent ended: {status}");
        }
        Usage::of(self.0.id())
    }

    /// Ends it as the system does, so that it sends what it has.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status()?;
        let status: ExitStatus = self.0.wait()?;
        ensure!(status.success(), "the agent ended: {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
