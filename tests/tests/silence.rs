//! A link that stands and tells nothing: `max_age` in the YAML, and the agent sees to it that data flows again.

use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::sim::opcua::{OpcuaServer, Variant};
use gemba_drivers::sim::proxy::Proxy;
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::yaml;
use serde_json::Value as Json;
use tempfile::TempDir;

fn config(cable: &Proxy, server: &OpcuaServer, folder: &TempDir) -> String {
    format!(
        r#"{head}
stations:
  - name: aoi-1
    source: {{ type: opcua, endpoint: "opc.tcp://{cable}/", publish: 50ms, timeout: 2s }}
    tags:
      - {{ name: score, node: "{score}", max_age: 1s }}
      - {{ name: heat, node: "{heat}" }}
"#,
        head = yaml::head(folder.path(), "sync: 20ms"),
        cable = cable.addr(),
        score = server.node("Score"),
        heat = server.node("Heat"),
    )
}

fn value(health: &Json, name: &str) -> Json {
    let tag = tag(station(health, "aoi-1"), name);
    if tag["validity"] == "good" { tag["value"].clone() } else { Json::Null }
}

/// Rung by rung, and data flows after each: a read, a new subscription over the same session, a new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_tag_climbs_the_ladder_until_data_flows() {
    let nodes: [(&str, Variant); 2] = [("Score", 1_i64.into()), ("Heat", 20_i64.into())];
    let mut server = OpcuaServer::start("urn:fab-2:aoi", nodes).await.expect("a server");
    server.keep_history().await.expect("the port is free");
    let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
    let folder = TempDir::new().expect("a folder");
    let agent = Agent::start(&config(&cable, &server, &folder)).await;
    agent.until("the first value", |health| value(health, "score") == 1 && value(health, "heat") == 20).await;

    // The item dies at the server; only a read finds what it should have told.
    server.mute("Score");
    server.set("Score", 2_i64, Time::now());
    agent.until("what was read", |health| value(health, "score") == 2).await;
    // A read that tells what the subscription does not makes a new one, which tells again.
    let waiting = tokio::time::timeout(Duration::from_secs(30), async {
        while server.mutes("Score") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waiting.await.expect("it is subscribed anew");
    server.set("Score", 3_i64, Time::now());
    agent.until("what is told again", |health| value(health, "score") == 3 && value(health, "heat") == 20).await;
    assert_eq!(server.sessions(), 1, "over the same session");

    // Nothing comes through any more though the connection stands: only another helps.
    cable.swallow();
    server.set("Score", 4_i64, Time::now());
    agent.until("the loss of the link", |health| station(health, "aoi-1")["link"] != "connected").await;
    server.set("Heat", 21_i64, Time::now());
    cable.resume();
    let all = |health: &Json| value(health, "score") == 4 && value(health, "heat") == 21;
    agent.until("all of it", all).await;
    agent.stop().await;
}
