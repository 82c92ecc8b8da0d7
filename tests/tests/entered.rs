//! What people tell, end to end: told to a running agent, seen on its pages and upstream, there after a restart, and the same in
//! a replay of what the spool gives out.

use std::path::Path;

use gemba::config::Config;
use gemba::http::Kpi;
use gemba::replay::{read_entries, run_with};
use gemba::spool::{Selection, export, export_entries};
use gemba_drivers::Time;
use gemba_drivers::sim::keeper::Keeper;
use gemba_tests::agent::{Agent, station};
use gemba_tests::receiver::{Point, Receiver, attributes};
use gemba_tests::yaml::head;
use serde_json::{Value as Json, json};

/// With a spool that keeps what upstream has, for the replay.
fn config(broker: &str, receiver: &str, folder: &Path) -> String {
    let head = head(folder, "sync: 20ms, keep: 1h")
        .replace(r#"listen: "127.0.0.1:0""#, r#"listen: "127.0.0.1:0", entries: true"#);
    format!(
        r#"{head}
upstream: {{ otlp: {{ endpoint: "{receiver}" }} }}
stations:
  - name: press-1
    source: {{ type: mqtt, endpoint: "{broker}", client_id: press, topics: [{{ topic: press }}] }}
    tags:
      - {{ name: state, path: "$.state" }}
      - {{ name: total, path: "$.total" }}
      - {{ name: force, path: "$.force", unit: kN }}
    anomalies: [{{ name: high, tag: force, method: limits, high: 12, clear: 1 }}]
    oee:
      ideal_cycle_time: 1s
      state: {{ tag: state, map: {{ run: producing, stop: down }} }}
      total: {{ tag: total }}
"#
    )
}

fn message(total: u32, force: f64) -> String {
    json!({ "state": "run", "total": total, "force": force }).to_string()
}

async fn told(agent: &Agent, kind: &str, what: Json) -> Json {
    let entry = json!({ "station": "press-1", "by": "anna", kind: what });
    let (code, body) = agent.post("/entries", &entry).await;
    assert_eq!(code, 201, "{body:#}");
    body
}

async fn entries(agent: &Agent) -> Vec<Json> {
    let (code, list) = agent.get("/entries").await;
    assert_eq!(code, 200);
    let list: Json = serde_json::from_str(&list).expect("JSON");
    list["entries"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_tell_is_kept_shown_sent_and_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, broker) = (Receiver::start(), Keeper::start().await.expect("a broker"));
    let yaml = config(&broker.endpoint().to_string(), &receiver.endpoint(), folder.path());
    let agent = Agent::start(&yaml).await;
    agent.until("the link", |health| station(health, "press-1")["link"] == "connected").await;
    let (code, early) =
        agent.post("/entries", &json!({ "station": "press-1", "by": "anna", "work": { "lot": "1" } })).await;
    assert_eq!(code, 409, "nothing is known of it yet: {early:#}");
    for (total, force) in [(100, 10.0), (110, 20.0), (110, 10.0)] {
        broker.publish("press", message(total, force));
    }
    let over = |health: &Json| station(health, "press-1")["anomalies"][0]["over"][0]["began"].clone();
    let health = agent.until("the anomaly's end", |health| over(health).is_string()).await;

    let lot = told(&agent, "work", json!({ "lot": "4711" })).await;
    let scratched = told(&agent, "rejects", json!({ "count": 5, "code": "scratch" })).await;
    let corrected = told(&agent, "rejects", json!({ "count": -2, "code": "scratch" })).await;
    let id = format!("press-1/force/high@{}", over(&health).as_str().expect("a time"));
    let judged = told(&agent, "anomaly", json!({ "id": id, "verdict": "dismissed" })).await;
    let all = [judged, corrected, scratched, lot];
    assert_eq!(entries(&agent).await, all, "newest first, and at once");
    let judged = |health: &Json| station(health, "press-1")["anomalies"][0]["dismissed"] == 1;
    agent.until("the verdict, which came last", judged).await;
    broker.publish("press", message(115, 10.0));
    let kpi = |health: &Json| station(health, "press-1")["kpi"].clone();
    let counted = |health: &Json| {
        let kpi = kpi(health);
        (kpi["total"].clone(), kpi["good"].clone(), kpi["reject"].clone()) == (15.into(), 12.into(), 3.into())
    };
    agent.until("five parts of the lot", counted).await;
    let (code, explained) = agent.get("/explain?station=press-1&lot=4711").await;
    assert_eq!(code, 200, "{explained}");
    let explained: Json = serde_json::from_str(&explained).expect("JSON");
    assert_eq!((&explained["kpi"]["total"], &explained["pieces"][0]["lot"]), (&5.into(), &"4711".into()));
    let (_, shift) = agent.get("/explain?station=press-1").await;
    let shift: Json = serde_json::from_str(&shift).expect("JSON");
    assert_eq!(shift["rejected_by_hand"], json!({ "scratch": 3 }), "{shift:#}");
    let (_, metrics) = agent.get("/metrics").await;
    let sample = r#"factory_defects_total{factory_station="press-1",factory_defect_code="scratch"} "#;
    let shown = metrics.split(sample).nth(1).and_then(|rest| rest.lines().next());
    // A counter that was seen before the correction waits for the true count.
    assert!(["3", "5"].map(Some).contains(&shown), "{metrics}");
    agent.stop().await;

    let agent = Agent::start(&yaml).await;
    agent.until("the link again", |health| station(health, "press-1")["link"] == "connected").await;
    broker.publish("press", message(116, 10.0));
    let live = agent.until("the part after", |health| kpi(health)["total"] == 16).await;
    assert_eq!((&kpi(&live)["good"], &kpi(&live)["reject"]), (&13.into(), &3.into()));
    assert!(judged(&live), "{live:#}");
    assert_eq!(entries(&agent).await, all);
    agent.stop().await;

    receiver.until("every entry", |receiver| receiver.logs("factory.entry").len() >= 4).await;
    let logs: Vec<_> = receiver.logs("factory.entry").iter().map(|log| attributes(&log.attributes)).collect();
    let kinds: Vec<_> = logs.iter().map(|log| (&*log["factory.entry.kind"], &*log["factory.entry.by"])).collect();
    assert_eq!(kinds, [("work", "anna"), ("rejects", "anna"), ("rejects", "anna"), ("anomaly", "anna")]);
    assert_eq!(logs[3]["factory.entry.verdict"], "dismissed");
    let sums: Vec<f64> = receiver.points("factory.defects").iter().filter_map(Point::number).collect();
    assert!(sums.is_sorted() && sums.last() >= Some(&3.0), "a sum never falls: {sums:?}");

    let spool = folder.path().join("spool");
    let (mut lines, mut told) = (Vec::new(), Vec::new());
    export(&spool, &Selection::default(), &mut lines, |_, _| {}).expect("an export");
    export_entries(&spool, &Selection::default(), &mut told, |_, _| {}).expect("an export");
    let config = Config::from_str("line.yaml", &yaml).expect("a configuration");
    let until: Time = live["time"].as_str().expect("a time").parse().expect("a time");
    let entries = read_entries(told.as_slice()).expect("entries");
    assert_eq!(entries.len(), 4);
    let replayed = run_with(&config, lines.as_slice(), entries, Some(until)).expect("readings");
    let period = replayed.report.periods.iter().find(|period| !period.closed).expect("the running day");
    let replayed: Json = serde_json::to_value(Kpi::from(&period.period.view(&period.spec))).expect("JSON");
    assert_eq!(replayed, kpi(&live), "replayed and live");
}
