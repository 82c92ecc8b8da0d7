//! What the agent tells of itself, of its machine and of the units at its stations: through an outage of upstream.

use gemba_drivers::Time;
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::line::{Line, OVEN};
use gemba_tests::process::Process;
use gemba_tests::receiver::{Content, Receiver, attributes};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;

/// The reference line, whose oven and inspection tell which board they have.
fn with_boards(yaml: &str) -> String {
    let pairs = [
        ("stations:\n", "traces: { sample: 100% }\nstations:\n"),
        (
            "      - { name: zone1,",
            "      - { name: board, path: \"$.board\" }\n      - { name: recipe, path: \"$.recipe\" }\n      - { name: zone1,",
        ),
    ];
    let yaml = pairs.iter().fold(yaml.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the reference configuration has {from}");
        text.replacen(from, to, 1)
    });
    format!("{}\n    context: {{ serial: {{ tag: board }}, product: {{ tag: recipe }} }}\n", yaml.trim_end())
}

fn spans(receiver: &Receiver, name: &str) -> Vec<Span> {
    let accepted = receiver.accepted();
    let requests = accepted.iter().filter_map(|request| match &request.content {
        Content::Traces(request) => Some(request),
        _ => None,
    });
    let spans = requests.flat_map(|request| &request.resource_spans).flat_map(|of| &of.scope_spans);
    spans.flat_map(|of| &of.spans).filter(|span| span.name == name).cloned().collect()
}

fn lines(receiver: &Receiver, body: &str) -> Vec<LogRecord> {
    let accepted = receiver.accepted();
    let says = |log: &&LogRecord| {
        log.body.as_ref().and_then(|body| body.value.as_ref()) == Some(&Value::StringValue(body.to_owned()))
    };
    accepted.iter().flat_map(|request| request.logs()).filter(says).cloned().collect()
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.0).expect("after 1970")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_says_of_itself_survives_an_outage() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut line = Line::start().await;
    let mut oven = line.oven();
    line.print(1, 100, 4, 42.5);
    line.receiver.stop();
    let file = folder.path().join("line.yaml");
    std::fs::write(&file, with_boards(&line.config(folder.path()))).expect("written");
    let agent = Process::start(env!("CARGO_BIN_EXE_gemba-to-kill"), &file).await;
    agent.until("the oven's link", |health| station(health, "oven-1")["link"] == "connected").await;
    for (board, recipe) in [("SN1", "A-17"), ("SN2", "A-18")] {
        let message = format!(r#"{{"state":"running","count":7,"board":"{board}","recipe":"{recipe}"}}"#);
        oven.publish(OVEN, message).await.expect("published");
        let has = |health: &serde_json::Value| tag(station(health, "oven-1"), "board")["value"] == board;
        agent.until("the board", has).await;
    }
    agent.until("upstream is missed", |health| health["upstream"]["status"] == "disconnected").await;
    let back = Time::now();
    line.receiver.restart();

    line.receiver
        .until("the agent's own word", |receiver| {
            !lines(receiver, "running").is_empty()
                && spans(receiver, "connect").len() >= 3
                && !spans(receiver, "message").is_empty()
                && !spans(receiver, "poll").is_empty()
                && !spans(receiver, "commit").is_empty()
                && !spans(receiver, "GET /health").is_empty()
                && !spans(receiver, "factory.visit").is_empty()
                && !receiver.points("process.uptime").is_empty()
        })
        .await;
    let running = &lines(&line.receiver, "running")[0];
    assert!(running.time_unix_nano > 0 && running.time_unix_nano < nanos(back), "said during the outage");
    assert_eq!((running.severity_text.as_str(), running.severity_number), ("INFO", 9));
    assert_eq!(attributes(&running.attributes)["stations"], "3");

    let [visit] = &spans(&line.receiver, "factory.visit")[..] else { panic!("one board has left") };
    let said = attributes(&visit.attributes);
    let said = ["factory.station", "factory.serial", "factory.product"].map(|name| said[name].as_str());
    assert_eq!(said, ["oven-1", "SN1", "A-17"]);
    assert!(visit.start_time_unix_nano < visit.end_time_unix_nano && visit.end_time_unix_nano < nanos(back));

    let early = |name: &str| line.receiver.points(name).into_iter().find(|point| point.time < nanos(back));
    let memory = early("system.memory.usage").expect("told during the outage");
    assert!(memory.number().is_some_and(|bytes| bytes > 0.0) && memory.unit == "By");
    assert!(!memory.attributes.contains_key("factory.station"), "the gateway is no station");
    assert!(["used", "free"].iter().any(|state| memory.has("system.memory.state", state)));
    let readings = early("gemba.readings").expect("a count of our own");
    assert!(readings.start > 0 && readings.start < readings.time, "a sum says since when");
    assert!(early("gemba.link.connected").is_some() && early("process.memory.usage").is_some());
    let failed =
        spans(&line.receiver, "forward").into_iter().find(|span| span.status.as_ref().is_some_and(|it| it.code == 2));
    assert!(failed.is_some(), "requests that nobody took are told of");
    let loops = ["h2", "hyper", "sled", "reqwest", "rustls", "tower", "tonic", "opentelemetry"];
    for request in line.receiver.accepted() {
        let Content::Logs(logs) = &request.content else { continue };
        for scope in logs.resource_logs.iter().flat_map(|of| &of.scope_logs).filter_map(|of| of.scope.as_ref()) {
            assert!(!loops.iter().any(|of| scope.name.starts_with(of)), "{}", scope.name);
        }
    }
    let metrics = agent.get("/metrics").await.1;
    for family in [
        "system_memory_usage_bytes{",
        "process_uptime_seconds ",
        "gemba_readings_total{",
        "gemba_commit_duration_seconds_bucket{",
    ] {
        assert!(metrics.contains(&format!("\n{family}")), "{family} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_a_subscriber_tells_its_figures_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    let agent = Agent::start(&line.config(folder.path())).await;
    line.receiver.until("figures", |receiver| !receiver.points("system.memory.usage").is_empty()).await;
    agent.stop().await;
    assert!(line.receiver.accepted().iter().all(|request| !matches!(request.content, Content::Traces(_))));
}
