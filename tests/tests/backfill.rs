//! What happens on the line while gemba is away comes from the server's history, and no figure misses it.

use std::time::Duration;

use gemba::config::Config;
use gemba::http::Kpi;
use gemba::replay::replay;
use gemba_drivers::Time;
use gemba_drivers::sim::opcua::{Flaws, OpcuaServer, Variant};
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::receiver::{Receiver, attributes};
use gemba_tests::yaml;
use tempfile::TempDir;

fn config(server: &OpcuaServer, upstream: &str, folder: &TempDir) -> String {
    format!(
        r#"{head}
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
        head = yaml::head(folder.path(), "sync: 20ms, keep: 1h"),
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
    let yaml = config(&server, &receiver.endpoint(), &folder);

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

/// A server with the machine's state and its parts, which keeps history.
async fn machine(at: Time) -> OpcuaServer {
    let nodes: [(&str, Variant); 2] = [("State", "Execute".into()), ("Total", 0_i64.into())];
    let mut server = OpcuaServer::start_at("urn:fab-2:aoi", nodes, at).await.expect("a server");
    server.keep_history().await.expect("the port is free");
    server
}

/// Port 1 (tcpmux) is nobody's: nothing is taken away, and the whole run stays in the spool.
const NOBODY: &str = "http://127.0.0.1:1";

/// The machine goes on while its history is read, so that what is live waits for it. Whoever sorts the export by its
/// times of receipt, as a replay does, meets it in the order in which it was applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_sees_the_seam_of_history_and_live_as_the_run_did() {
    let server = machine(Time::now()).await;
    let folder = TempDir::new().expect("a folder");
    let yaml = config(&server, NOBODY, &folder);
    let agent = Agent::start(&yaml).await;
    agent.until("the first value", |health| station(health, "aoi-1")["state"] == "producing").await;
    agent.stop().await;

    // What is younger than half a second is not in the history yet when it is asked first.
    server.flaw_history(Flaws { late: (Duration::from_millis(500), 4), ..Flaws::default() });
    let run = async {
        let agent = Agent::start(&yaml).await;
        agent.until("live values", |health| station(health, "aoi-1")["kpi"]["total"].as_f64() > Some(150.0)).await;
        agent
    };
    let machine = async {
        for made in 1..=i64::MAX {
            server.set("Total", made, Time::now());
            server.set("State", if made % 2 == 0 { "Execute" } else { "Held" }, Time::now());
            tokio::time::sleep(Duration::from_millis(10)).await; // its pace
        }
    };
    let agent = tokio::select! {
        agent = run => agent,
        () = machine => unreachable!("it goes on"),
    };
    let last = Time::now();
    server.set("Total", 100_000_i64, last);
    let live = agent.until("the last part", |health| station(health, "aoi-1")["kpi"]["total"] == 100_000.0).await;
    agent.stop().await;

    let mut exported = Vec::new();
    let spool = folder.path().join("spool");
    gemba::spool::export(&spool, &gemba::spool::Selection::default(), &mut exported, |_, _| {}).expect("exported");
    let until: Time = live["time"].as_str().expect("a time").parse().expect("a time");
    let of_line = Config::from_str("line.yaml", &yaml).expect("a configuration");
    let report = replay(&of_line, exported.as_slice(), Some(until)).expect("readings");
    let period = report.periods.iter().find(|reported| !reported.closed).expect("the running day");
    let kpi = serde_json::to_value(Kpi::from(&period.period.view(&period.spec))).expect("JSON");
    assert_eq!(kpi, station(&live, "aoi-1")["kpi"], "replayed and live");
}

/// The server's clock is an hour off, and its history with it. What it made while gemba was away counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_counts_twice_or_is_lost_though_the_servers_clock_is_wrong() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let ahead = || Time::now() + HOUR;
    let server = machine(ahead()).await;
    let folder = TempDir::new().expect("a folder");
    let yaml = config(&server, NOBODY, &folder).replace("    source:", "    max_clock_skew: 5s\n    source:");
    let total = |health: &serde_json::Value| station(health, "aoi-1")["kpi"]["total"].clone();

    let agent = Agent::start(&yaml).await;
    agent.until("the first value", |health| station(health, "aoi-1")["state"] == "producing").await;
    for made in 1..=7_i64 {
        server.set("Total", made, ahead());
    }
    agent.until("seven parts", |health| total(health) == 7.0).await;
    agent.stop().await;
    for made in 8..=11_i64 {
        server.set("Total", made, ahead());
    }
    let agent = Agent::start(&yaml).await;
    agent.until("the four that nobody saw", |health| total(health) == 11.0).await;
    server.set("Total", 12_i64, ahead());
    let health = agent.until("one more", |health| total(health).as_f64() >= Some(12.0)).await;
    assert_eq!(total(&health), 12.0);
    agent.stop().await;
}

/// There is no place in history for values that nobody dated, or a clock that is not believed: over a restart, too, the
/// gap is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_without_a_place_in_history_is_a_loss_though_the_agent_was_restarted() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let ways: [fn(&OpcuaServer, &str, Variant); 2] =
        [OpcuaServer::set_undated, |server, name, value| server.set(name, value, Time::now() + HOUR)];
    for set in ways {
        let server = machine(Time::now()).await;
        let receiver = Receiver::start();
        let folder = TempDir::new().expect("a folder");
        let yaml = config(&server, &receiver.endpoint(), &folder);
        let yaml = yaml.replace("    source:", "    max_clock_skew: 5s\n    source:");
        set(&server, "State", "Execute".into());
        set(&server, "Total", 7_i64.into());
        let agent = Agent::start(&yaml).await;
        let seven = |health: &serde_json::Value| {
            let aoi = station(health, "aoi-1");
            aoi["state"] == "producing" && tag(aoi, "total")["value"] == 7
        };
        agent.until("the first values", seven).await;
        let last = Time::now();
        agent.stop().await;

        set(&server, "Total", 9_i64.into());
        let agent = Agent::start(&yaml).await;
        agent.until("two parts more", |health| station(health, "aoi-1")["kpi"]["total"] == 2.0).await;
        receiver.until("the gap", |receiver| !receiver.logs("gemba.loss").is_empty()).await;
        agent.stop().await;
        let [loss] = &receiver.logs("gemba.loss")[..] else { panic!("one: {:?}", receiver.logs("gemba.loss")) };
        let of = attributes(&loss.attributes);
        assert_eq!((&*of["gemba.loss.source"], &*of["gemba.loss.count"]), ("aoi-1", "2"), "{of:?}");
        assert!(of["gemba.loss.reason"].contains("values have no time of their source"), "{of:?}");
        let from: Time = of["gemba.loss.from"].parse().expect("a time");
        assert!(from <= last, "{from} after {last}");
    }
}
