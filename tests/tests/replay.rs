//! What a live run showed, and what a replay of its export gives, are the same to the digit.

use gemba::config::Config;
use gemba::http::Kpi;
use gemba::replay::replay;
use gemba::spool::{Selection, export};
use gemba_drivers::Time;
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::line::{Line, OVEN};
use serde_json::Value as Json;

/// Counters move, a link is lost and comes back while its counter went on, the agent itself is away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sees_what_the_live_run_saw() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut line = Line::start().await;
    let mut oven = line.oven();
    // Nobody takes anything away: the whole run stays in the spool. Port 1 (tcpmux) is nobody's.
    let yaml = line.config(folder.path()).replace(&line.receiver.endpoint(), "http://127.0.0.1:1");
    line.print(1, 100, 4, 42.5);
    line.inspect("Execute", 50, 1, 0.875, Time::now());
    let agent = Agent::start(&yaml).await;
    agent
        .until("every link is up", |health| {
            health["stations"].as_array().is_some_and(|all| all.iter().all(|station| station["link"] == "connected"))
        })
        .await;
    let payload = |count: u32| format!(r#"{{"state":"running","count":{count},"zones":[{{"temp":241.5}}]}}"#);
    oven.publish(OVEN, payload(7)).await.expect("published");
    agent.until("the oven's message", |health| station(health, "oven-1")["state"] == "producing").await;
    line.print(1, 110, 5, 43.25);
    line.inspect("Execute", 58, 2, 0.1 + 0.2, Time::now());
    oven.publish(OVEN, payload(19)).await.expect("published");
    agent.until("the oven's second", |health| station(health, "oven-1")["kpi"]["total"] == 12).await;

    line.aoi.stop().await;
    agent.until("the inspection is lost", |health| station(health, "aoi-1")["link"] == "disconnected").await;
    line.inspect("Execute", 65, 2, 0.75, Time::now());
    line.aoi.restart().await.expect("the port is free");
    agent.until("its parts", |health| station(health, "aoi-1")["kpi"]["total"] == 16).await;
    agent.stop().await;

    line.print(1, 130, 6, 44.0);
    let agent = Agent::start(&yaml).await;
    let live = agent
        .until("all is back", |health| {
            let good = |name, what| tag(station(health, name), what)["validity"] == "good";
            station(health, "printer-1")["kpi"]["total"] == 30 && good("aoi-1", "score") && good("printer-1", "state")
        })
        .await;
    assert_ne!(station(&live, "aoi-1")["kpi"]["unattributed"], 0);
    assert_ne!(station(&live, "printer-1")["kpi"]["unknown_s"], 0.0);
    agent.stop().await;

    let mut lines = Vec::new();
    export(&folder.path().join("spool"), &Selection::default(), &mut lines, |_, _| {}).expect("an export");
    let config = Config::from_str("line.yaml", &yaml).expect("a configuration");
    let until: Time = live["time"].as_str().expect("a time").parse().expect("a time");
    let report = replay(&config, lines.as_slice(), Some(until)).expect("readings");
    assert!(report.strangers.is_empty());
    for name in ["printer-1", "aoi-1", "oven-1"] {
        let shown = station(&live, name);
        let period = report
            .periods
            .iter()
            .find(|reported| &*reported.station == name && !reported.closed)
            .expect("the running shift");
        assert_eq!(shown["shift"], *period.period.shift);
        let kpi: Json = serde_json::to_value(Kpi::from(&period.period.view(&period.spec))).expect("JSON");
        assert_eq!(kpi, shown["kpi"], "{name}, replayed and live");
    }
}
