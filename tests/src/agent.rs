//! gemba in process, looked at from outside: through its page.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use gemba::config::Config;
use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::receiver::DEADLINE;

/// A running agent. Dropping it cancels it without waiting; [`Agent::stop`] waits.
pub struct Agent {
    page: Page,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Agent {
    /// Starts an agent with this configuration and waits until it stands.
    ///
    /// # Panics
    /// If the configuration is wrong or the agent does not start.
    pub async fn start(yaml: &str) -> Self {
        match Self::try_start(yaml).await {
            Ok(agent) => agent,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Starts an agent, or says why it does not start.
    ///
    /// # Errors
    /// What `gemba run` would print.
    ///
    /// # Panics
    /// If it neither starts nor fails in time.
    pub async fn try_start(yaml: &str) -> anyhow::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config::from_str("line.yaml", yaml)?;
        let stop = CancellationToken::new();
        let (started, page) = oneshot::channel();
        let running = stop.clone();
        let run = async move {
            let tell = |address| {
                let _ = started.send(address);
            };
            Box::pin(gemba::run::run(config, running, tell)).await.map(drop)
        };
        let mut task = tokio::spawn(run);
        let page = timeout(DEADLINE, async {
            tokio::select! {
                Ok(page) = page => Ok(page),
                ended = &mut task => Err(ended),
            }
        });
        match page.await.expect("gemba starts or fails") {
            Ok(page) => Ok(Self { page: Page::new(page), stop, task }),
            Err(ended) => {
                ended.expect("no panic")?;
                anyhow::bail!("it ended without an error")
            }
        }
    }

    /// Stops as SIGTERM does, and waits for the end of the drain.
    ///
    /// # Panics
    /// If it does not end in time, or badly.
    pub async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.task).await.expect("it ends").expect("no panic").expect("a clean end");
    }
}

impl Deref for Agent {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

/// A running agent's page.
pub struct Page(SocketAddr);

impl Page {
    /// The page on this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(address)
    }

    /// Gets a path of the page: status and body.
    ///
    /// # Panics
    /// If nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.0)).await.expect("the page answers");
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    /// Posts JSON to a path of the page: status and answer.
    ///
    /// # Panics
    /// If nobody answers, or not with JSON.
    pub async fn post(&self, path: &str, body: &Json) -> (u16, Json) {
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.0)).body(body.to_string());
        let answer = request.header("content-type", "application/json").send().await.expect("the page answers");
        let code = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// `/health` as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub async fn health(&self) -> Json {
        serde_json::from_str(&self.get("/health").await.1).expect("JSON")
    }

    /// Waits until `/health` looks as wanted, and returns it.
    ///
    /// # Panics
    /// After [`DEADLINE`], with what was waited for and how it looked last.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        let mut last = Json::Null;
        let mut looks = interval(Duration::from_millis(50));
        let found = timeout(DEADLINE, async {
            loop {
                looks.tick().await;
                last = self.health().await;
                if wanted(&last) {
                    return;
                }
            }
        });
        match found.await {
            Ok(()) => last,
            Err(_) => panic!("waited {DEADLINE:?} for: {what}; it looks so: {last:#}"),
        }
    }
}

/// The station of this name on `/health`.
#[must_use]
pub fn station<'a>(health: &'a Json, name: &str) -> &'a Json {
    let found = health["stations"].as_array().and_then(|all| all.iter().find(|station| station["name"] == name));
    found.unwrap_or(&Json::Null)
}

/// The tag of this name.
#[must_use]
pub fn tag<'a>(station: &'a Json, name: &str) -> &'a Json {
    let found = station["tags"].as_array().and_then(|all| all.iter().find(|tag| tag["name"] == name));
    found.unwrap_or(&Json::Null)
}
