//! What a machine tells goes upstream as a log, once.

use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::sim::opcua::{Happened, OpcuaServer};
use gemba_tests::agent::{Agent, station};
use gemba_tests::receiver::{Receiver, attributes};
use gemba_tests::yaml;
use tempfile::TempDir;

fn config(server: &OpcuaServer, receiver: &Receiver, folder: &TempDir) -> String {
    format!(
        r#"{head}
upstream:
  otlp: {{ endpoint: "{upstream}" }}
stations:
  - name: oven-1
    source: {{ type: opcua, endpoint: "{endpoint}", publish: 50ms, events: [{{ node: "i=2253", min_severity: 300 }}] }}
    tags:
      - {{ name: zone, node: "{zone}", deadband: 5 }}
"#,
        head = yaml::head(folder.path(), "sync: 20ms"),
        upstream = receiver.endpoint(),
        endpoint = server.endpoint(),
        zone = server.node("Zone"),
    )
}

fn alarm(id: u8, at: Time) -> Happened {
    let condition = Some(("TooHot".to_owned(), true, false));
    Happened { id: vec![id], time: at, message: format!("zone {id}"), severity: 700, kind: None, condition }
}

/// With one subscription for everything an event shares its message with a value, which the deadband keeps back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_one_log_also_beside_a_value_that_is_none() {
    for subscriptions in [100, 1] {
        let mut server = OpcuaServer::start("urn:fab-2:oven", [("Zone", 200.0_f64)]).await.expect("a server");
        server.limit_subscriptions(subscriptions).await.expect("the port is free");
        let receiver = Receiver::start();
        let folder = TempDir::new().expect("a folder");
        let agent = Agent::start(&config(&server, &receiver, &folder)).await;
        agent.until("the first value", |health| station(health, "oven-1")["tags"][0]["value"] == 200.0).await;

        let began = Time::now();
        let at = |id: u8| began - Duration::from_secs(60 - u64::from(id));
        for id in 1..=3 {
            server.set("Zone", 200.0 + f64::from(id), Time::now());
            server.tell(&alarm(id, at(id)));
            server.tell(&alarm(id, at(id))); // again, as after a refresh
            let told = usize::from(id);
            receiver.until("the log", |receiver| receiver.logs("factory.event").len() >= told).await;
        }
        agent.stop().await;
        let logs = receiver.logs("factory.event");
        let ids: Vec<_> = logs.iter().map(|log| attributes(&log.attributes)["opcua.event.id"].clone()).collect();
        assert_eq!(ids, ["01", "02", "03"], "each once, with {subscriptions} subscriptions");
        for (log, id) in logs.iter().zip(1..) {
            let nanos = |time: Time| u64::try_from(time.0).expect("after 1970");
            // OPC UA has 100 ns.
            assert_eq!(log.time_unix_nano / 100, nanos(at(id)) / 100, "when it happened");
            assert!(log.observed_time_unix_nano >= nanos(began), "when the gateway heard of it");
            assert_eq!(log.severity_text, "ERROR");
        }
        let values: Vec<_> = receiver.points("factory.tag.zone").into_iter().map(|point| point.time).collect();
        assert_eq!(values.len(), 1, "the deadband keeps the rest back");
    }
}
