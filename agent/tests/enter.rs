//! `gemba enter`, against an agent that runs.

#![cfg(feature = "demo")] // whose broker feeds it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use gemba::config::Config;
use gemba_drivers::sim::keeper::Keeper;
use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with a configuration, and perhaps an agent.
struct Plant {
    folder: tempfile::TempDir,
    broker: Keeper,
    stop: CancellationToken,
}

impl Plant {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, broker: Keeper::start().await.expect("a broker"), stop: CancellationToken::new() }
    }

    fn yaml(&self, listen: &str, entries: bool) -> String {
        format!(
            r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
http: {{ listen: "{listen}", entries: {entries} }}
spool: {{ path: {spool}, sync: 20ms }}
reasons: [{{ code: feeder-jam }}]
stations:
  - name: press-1
    source: {{ type: mqtt, endpoint: "{broker}", client_id: press, topics: [{{ topic: press }}] }}
    tags: [{{ name: total, path: "$.total" }}]
    oee: {{ total: {{ tag: total }} }}
"#,
            spool = self.folder.path().join("spool").display(),
            broker = self.broker.endpoint(),
        )
    }

    /// The configuration as `gemba enter` reads it.
    fn listens_at(&self, listen: &str) {
        std::fs::write(self.folder.path().join("line.yaml"), self.yaml(listen, true)).expect("written");
    }

    /// Runs an agent whose station has told something.
    async fn agent(&self, entries: bool) -> JoinHandle<anyhow::Result<()>> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config::from_str("line.yaml", &self.yaml("127.0.0.1:0", entries)).expect("a configuration");
        let (started, page) = oneshot::channel();
        let stop = self.stop.clone();
        let run = async move {
            let tell = |address: SocketAddr| started.send(address).expect("the test waits");
            Box::pin(gemba::run::run(config, stop, tell)).await.map(drop)
        };
        let agent = tokio::spawn(run);
        let page = timeout(DEADLINE, page).await.expect("in time").expect("it starts");
        // Whoever is told of all addresses asks on its own.
        self.listens_at(&format!("0.0.0.0:{}", page.port()));
        let mut looks = interval(Duration::from_millis(50));
        let known = async {
            loop {
                looks.tick().await;
                let health = reqwest::get(format!("http://{page}/health")).await.expect("the page answers");
                let health: Json = serde_json::from_str(&health.text().await.expect("a body")).expect("JSON");
                match &health["stations"][0] {
                    station if station["kpi"]["total"].as_f64().is_some_and(|total| total > 0.0) => return,
                    station if station["link"] == "connected" => {
                        self.broker.publish("press", r#"{"total":100}"#);
                        self.broker.publish("press", r#"{"total":105}"#);
                    }
                    _ => {}
                }
            }
        };
        timeout(DEADLINE, known).await.expect("parts");
        agent
    }

    /// `gemba enter` with these words: exit code, what it said, and what it complained of.
    async fn enter(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemba"));
        command
            .env_remove("GEMBA_BY")
            .args(["enter", "--config"])
            .arg(self.folder.path().join("line.yaml"))
            .args(words);
        let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    async fn taken(&self, words: &[&str]) -> String {
        let (code, out, err) = self.enter(words).await;
        assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}");
        out
    }

    async fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let (code, out, err) = self.enter(words).await;
        assert_eq!(out, "", "{words:?}");
        (code, err)
    }
}

const ANNA: [&str; 4] = ["--station", "press-1", "--by", "anna"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_on_the_command_line_is_taken_and_listed() {
    let plant = Plant::new().await;
    let agent = plant.agent(true).await;
    let tell = async |kind: &str, words: &[&str]| plant.taken(&[&[kind], &ANNA[..], words].concat()).await;
    let said = tell("work", &["--product", "A", "--lot", "4711", "--no-order"]).await;
    assert!(said.starts_with("taken: press-1: product A, lot 4711, no order from "), "{said}");
    let said = tell("rejects", &["--count", "2", "--code", "scratch"]).await;
    assert!(said.starts_with("taken: press-1: 2 rejected at ") && said.ends_with("Z: scratch\n"), "{said}");
    let said = tell("rejects", &["--at", "now", "--count", "-1", "--code", "scratch"]).await;
    assert!(said.starts_with("taken: press-1: -1 rejected at "), "{said}");
    let said = tell("target", &["--takt", "45s"]).await;
    assert!(said.starts_with("taken: press-1: a part every 45s from "), "{said}");
    let said = tell("target", &["--of-product"]).await;
    assert!(said.starts_with("taken: press-1: the product's own pace from "), "{said}");
    let said = tell("reason", &["--from", "-10m", "--code", "feeder-jam"]).await;
    assert!(said.starts_with("taken: press-1: stood from ") && said.contains("because of feeder-jam"), "{said}");
    let said = tell("reason", &["--from", "-5min", "--no-reason"]).await;
    assert!(said.starts_with("taken: press-1: no reason from "), "{said}");

    let list = plant.taken(&["list"]).await;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 7, "{list}");
    assert!(lines[0].contains("  anna  press-1: no reason from ") && lines[6].contains("product A"), "{list}");
    let json = plant.taken(&["list", "--format", "json"]).await;
    let entries = gemba::replay::read_entries(json.as_bytes()).expect("entries as a replay reads them");
    assert_eq!(entries.len(), 7);

    for (kind, words, complaint) in [
        (
            "reason",
            &["--from", "now", "--to", "2099-01-01T00:00:00Z", "--code", "feeder-jam"][..],
            "more than a day ahead",
        ),
        (
            "reason",
            &["--from", "-1min", "--code", "feeder-jim"],
            "there is no reason `feeder-jim`; did you mean `feeder-jam`?",
        ),
        ("work", &[], "it says nothing: give a product, a lot or an order"),
        ("rejects", &["--count", "0", "--code", "scratch"], "`count` is a whole number"),
        ("target", &["--takt", "45"], "`takt`: "),
    ] {
        let words = [&[kind], &ANNA[..], words].concat();
        let (code, said) = plant.refused(&words).await;
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(complaint), "{words:?}: {said}");
    }
    let (code, said) =
        plant.refused(&["anomaly", "--by", "anna", "press-1/total/high@2026-03-02T06:00:00Z", "dismissed"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("there is no detector `high`"), "{said}");
    plant.stop.cancel();
    agent.await.expect("no panic").expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lets_nobody_tell_names_the_option() {
    let plant = Plant::new().await;
    let agent = plant.agent(false).await;
    let (code, said) = plant.refused(&[&["work"], &ANNA[..], &["--lot", "1"]].concat()).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("`http.entries: true`"), "{said}");
    assert_eq!(plant.taken(&["list"]).await, "", "looking is free");
    plant.stop.cancel();
    agent.await.expect("no panic").expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_there_or_is_no_agent_is_said() {
    let plant = Plant::new().await;
    plant.listens_at("127.0.0.1:1"); // tcpmux: nobody
    let work = [&["work"], &ANNA[..], &["--lot", "1"]].concat();
    let (code, said) = plant.refused(&work).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("127.0.0.1:1 (http.listen) does not answer: does `gemba run` run"), "{said}");

    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    plant.listens_at(&other.local_addr().expect("an address").to_string());
    let answers = [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\nconnection: close\r\n\r\nnot found",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ];
    let serving = spawn_blocking(move || {
        for answer in answers {
            let (mut socket, _) = other.accept().expect("somebody asks");
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"}}") && socket.read(&mut byte).expect("a request") == 1 {
                asked.push(byte[0]);
            }
            socket.write_all(answer.as_bytes()).expect("sent");
        }
    });
    for code in ["404", "200", "302"] {
        let (exit, said) = plant.refused(&work).await;
        assert_eq!(exit, Some(1));
        assert!(said.contains(&format!("is no agent that knows of entries: {code} for /entries")), "{said}");
    }
    serving.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_wrong_usage() {
    let plant = Plant::new().await;
    plant.listens_at("127.0.0.1:1");
    for (words, complaint) in [
        (&["work", "--station", "press-1", "--lot", "1"][..], "--by <NAME>"),
        (&["work", "--by", "anna", "--lot", "1"], "--station <NAME>"),
        (&["work", "--station", "a", "--by", "b", "--lot", "1", "--no-lot"], "cannot be used with"),
        (&["work", "--station", "a", "--by", "b", "--at", "6:20", "--lot", "1"], "`6:20` is no time: write 06:20"),
        (&["reason", "--station", "a", "--by", "b", "--from", "06:00"], "--code <CODE>|--no-reason"),
        (&["reason", "--station", "a", "--by", "b", "--code", "c"], "--from <TIME>"),
        (&["target", "--station", "a", "--by", "b"], "--takt <TIME>"),
        (&["rejects", "--station", "a", "--by", "b", "--count", "1.5", "--code", "c"], "--count"),
        (&["anomaly", "--by", "b", "oven-1", "dismissed"], "<ID>"),
        (&["anomaly", "--by", "b", "a/b/c@2026-03-02T06:00:00Z", "maybe"], "confirmed, dismissed"),
    ] {
        let (code, said) = plant.refused(words).await;
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.contains(complaint), "{words:?}: {said}");
    }
    let unsaid = Command::new(env!("CARGO_BIN_EXE_gemba")).args(["enter", "list"]).output().expect("it starts");
    assert_eq!(unsaid.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unsaid.stderr).contains("--config FILE is missing"));
}
