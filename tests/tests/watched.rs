//! What watches a station, end to end: a detector, a control chart and an inspection over MQTT, and over a restart.

use gemba_drivers::sim::keeper::Keeper;
use gemba_tests::agent::{Agent, station};
use gemba_tests::receiver::{Point, Receiver};
use serde_json::Value as Json;

fn config(broker: &str, receiver: &str, spool: &str) -> String {
    format!(
        r#"
site: fab-2
line: smt-1
timezone: UTC
http: {{ listen: 127.0.0.1:0 }}
upstream: {{ otlp: {{ endpoint: "{receiver}" }} }}
spool: {{ path: {spool} }}
stations:
  - name: aoi-1
    source: {{ type: mqtt, endpoint: "{broker}", client_id: aoi, topics: [{{ topic: aoi }}] }}
    tags:
      - {{ name: result, path: "$.result" }}
      - {{ name: height, path: "$.height", unit: mm }}
      - {{ name: defect, path: "$.defect" }}
    anomalies: [{{ name: high, tag: height, method: limits, high: 12, clear: 1 }}]
    spc: [{{ name: height, tag: height, chart: i_mr, limits: {{ center: 10, lower: 7, upper: 13 }}, rules: [nelson_1] }}]
    inspection:
      trigger: message
      verdict: {{ tag: result, map: {{ OK: pass, NG: fail }} }}
      defects: {{ tag: defect }}
"#
    )
}

fn message(result: &str, height: f64, defect: &str) -> String {
    format!(r#"{{"result":"{result}","height":{height},"defect":"{defect}"}}"#)
}

fn total(health: &Json) -> (u64, u64) {
    let total = &station(health, "aoi-1")["inspection"]["total"];
    (total["pass"].as_u64().unwrap_or_default(), total["fail"].as_u64().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start();
    let broker = Keeper::start().await.expect("a broker");
    let spool = folder.path().join("spool").display().to_string();
    let yaml = config(&broker.endpoint().to_string(), &receiver.endpoint(), &spool);
    let agent = Agent::start(&yaml).await;
    agent.until("the link", |health| station(health, "aoi-1")["link"] == "connected").await;
    for (result, height, defect) in [("OK", 10.0, ""), ("NG", 14.5, "bridge"), ("OK", 10.5, "")] {
        broker.publish("aoi", message(result, height, defect));
    }
    let health = agent.until("three inspections", |health| total(health) == (2, 1)).await;
    let aoi = station(&health, "aoi-1");
    assert_eq!(aoi["anomalies"][0]["detected"], 1, "{aoi:#}");
    assert_eq!(aoi["anomalies"][0]["over"][0]["value"], 14.5);
    assert_eq!(aoi["charts"][0]["violations"][0]["points"][0]["index"], 2);
    agent.stop().await;

    let agent = Agent::start(&yaml).await;
    agent.until("the link again", |health| station(health, "aoi-1")["link"] == "connected").await;
    for (result, height, defect) in [("NG", 15.0, "void"), ("OK", 10.0, "")] {
        broker.publish("aoi", message(result, height, defect));
    }
    let health = agent.until("the inspections since", |health| total(health) == (3, 2)).await;
    let aoi = station(&health, "aoi-1");
    assert_eq!(aoi["anomalies"][0]["detected"], 2, "{aoi:#}");
    assert_eq!(aoi["charts"][0]["last"]["index"], 5, "the chart goes on: {aoi:#}");
    assert_eq!(aoi["inspection"]["shift"]["defects"], serde_json::json!({ "bridge": 1, "void": 1 }));
    let (_, page) = agent.get("/metrics").await;
    assert!(page.contains(r#"factory_defects_total{factory_station="aoi-1",factory_defect_code="void"} 1"#), "{page}");
    agent.stop().await;

    assert_eq!(receiver.logs("factory.anomaly.detected").len(), 2);
    assert_eq!(receiver.logs("factory.anomaly.ended").len(), 2);
    assert!(receiver.logs("factory.spc.violation").len() >= 2);
    let told = |verdict: &str| {
        let of = |point: &&Point| point.has("factory.inspection.verdict", verdict);
        receiver.points("factory.inspections").iter().filter(of).filter_map(Point::number).collect::<Vec<_>>()
    };
    assert_eq!(told("fail").last(), Some(&2.0));
    assert!(told("pass").is_sorted(), "a sum never falls");
}
