//! gemba in a process of its own, to be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use crate::agent::Page;

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
        let mut command = Command::new(program);
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
