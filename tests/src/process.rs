//! gemba in a process of its own: to be killed, or stopped as a service manager stops it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::agent::Page;
use crate::receiver::DEADLINE;

/// A running gemba. It is killed when dropped.
pub struct Process {
    child: Child,
    page: Page,
}

impl Process {
    /// Runs `program` (a gemba) with the configuration in `file`, and waits until it stands.
    ///
    /// # Panics
    /// If it does not start: with what it said.
    pub async fn start(program: &'static str, file: &Path) -> Self {
        Self::run(Command::new(program), file).await
    }

    /// The same for a `command` that needs words before gemba's own, such as an emulator's.
    ///
    /// # Panics
    /// If it does not start: with what it said.
    pub async fn run(mut command: Command, file: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default(); // for the client of its page
        command.args(["run", "--log-format", "json", "--log", "info", "--config"]).arg(file);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("a program");
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let (started, address) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let (mut started, mut said) = (Some(started), Vec::new());
            for line in lines.lines().map_while(Result::ok) {
                let event: Json = serde_json::from_str(&line).unwrap_or_default();
                if let Some(url) = event["page"].as_str() {
                    started.take().map(|started| started.send(Ok(url.to_owned())));
                }
                said.push(line);
            }
            started.take().map(|started| started.send(Err(said)));
        });
        let url = address.await.expect("the thread answers").expect("gemba starts");
        let address = url.trim_start_matches("http://").trim_end_matches("/health").parse().expect("an address");
        Self { child, page: Page::new(address) }
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let ended = spawn_blocking(move || self.child.wait());
        timeout(DEADLINE, ended).await.expect("it ends").expect("no panic").expect("a child")
    }

    /// kill -9, and the end of it.
    ///
    /// # Panics
    /// If there is nothing to kill any more.
    pub fn kill(mut self) {
        assert!(self.child.try_wait().expect("a child").is_none(), "it had ended by itself");
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl std::ops::Deref for Process {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
