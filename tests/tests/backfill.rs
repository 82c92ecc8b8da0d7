//! What happens on the line while gemba is away comes from the server's history, and no figure misses it.

use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::sim::opcua::{OpcuaServer, Variant};
use gemba_tests::agent::{Agent, station};
use gemba_tests::receiver::Receiver;
use tempfile::TempDir;

fn config(server: &OpcuaServer, receiver: &Receiver, folder: &TempDir) -> String {
    format!(
        r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
http: {{ listen: "127.0.0.1:0" }}
spool: {{ path: {spool}, sync: 20ms, keep: 1h }}
upstream:
  otlp: {{ endpoint: "{upstream}" }}
stations:
  - name: aoi-1
    source: {{ type: opcua, endpoint: "{endpoint}", publish: 50ms }}
    tags:
      - {{ name: state, node: "{state}" }}
      - {{ name: total, node: "{total}", unit: "{{part}}" }}
    oee:
      ideal_cycle_time: 1s
      state: {{ tag: state, map: {{ Execute: producing, Held: down }} }}
      total: {{ tag: total }}
"#,
        spool = folder.path().join("spool").display(),
        upstream = receiver.endpoint(),
        endpoint = server.endpoint(),
        state = server.node("State"),
        total = server.node("Total"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_misses_nothing_that_the_server_remembers() {
    let nodes: [(&str, Variant); 2] = [("State", "Execute".into()), ("Total", 0_i64.into())];
    let mut server = OpcuaServer::start("urn:fab-2:aoi", nodes).await.expect("a server");
    server.keep_history().await.expect("the port is free");
    let receiver = Receiver::start();
    let folder = TempDir::new().expect("a folder");
    let yaml = config(&server, &receiver, &folder);

    let agent = Agent::start(&yaml).await;
    agent.until("the first value", |health| station(health, "aoi-1")["state"] == "producing").await;
    server.set("Total", 5_i64, Time::now());
    agent.until("five parts", |health| station(health, "aoi-1")["kpi"]["total"] == 5.0).await;
    agent.stop().await;

    // Nobody listens. The machine stops, goes on, and makes parts.
    let gone = Time::now();
    for (ms, total) in [(1, 6_i64), (2, 7), (4, 8)] {
        server.set("Total", total, gone + Duration::from_millis(ms));
    }
    server.set("State", "Held", gone + Duration::from_millis(5));
    server.set("State", "Execute", gone + Duration::from_millis(15));
    server.set("Total", 9_i64, gone + Duration::from_millis(16));

    let agent = Agent::start(&yaml).await;
    let health = agent.until("what was missed", |health| station(health, "aoi-1")["kpi"]["total"] == 9.0).await;
    let aoi = station(&health, "aoi-1");
    assert!(aoi["state"] == "producing" && aoi["kpi"]["unattributed"] == 0.0, "{aoi:#}");
    // While history may still come in, what lies behind it is unknown; something live ends that.
    server.set("Total", 10_i64, Time::now());
    let whole = |health: &serde_json::Value| {
        let kpi = &station(health, "aoi-1")["kpi"];
        kpi["total"] == 10.0 && kpi["coverage"] == 1.0
    };
    let health = agent.until("full coverage", whole).await;
    assert_eq!(station(&health, "aoi-1")["kpi"]["unattributed"], 0.0);

    receiver.until("the log of the gap", |receiver| !receiver.logs("gemba.backfill").is_empty()).await;
    assert!(receiver.logs("gemba.loss").is_empty(), "nothing was lost: {:?}", receiver.logs("gemba.loss"));
    agent.stop().await;

    let mut exported = Vec::new();
    let spool = folder.path().join("spool");
    gemba::spool::export(&spool, &gemba::spool::Selection::default(), &mut exported, |_, _| {}).expect("exported");
    let exported = String::from_utf8(exported).expect("JSON lines");
    let marked: Vec<&str> = exported.lines().filter(|line| line.contains(r#""backfilled":true"#)).collect();
    // Two openings, four counts, two states.
    assert_eq!(marked.len(), 8, "{exported}");
    assert!(!exported.contains(r#""backfilled":false"#), "said only when it is so");
}
