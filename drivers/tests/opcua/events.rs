//! Events and alarms.

use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Notifier};
use gemba_drivers::sim::opcua::{Happened, OpcuaServer, OperationalLimits};
use gemba_drivers::{Event, LinkPhase, Loss, Validity, Value};

use super::rig::{NAMESPACE, NOON, Supervised, config, server, until};

fn listening(server: &OpcuaServer, node: &str, min_severity: u16) -> Config {
    let mut config = config(&server.endpoint(), &["Good"]);
    config.stations[0].events = vec![Notifier { node: node.parse().expect("a node"), min_severity, refresh: true }];
    config
}

fn happened(id: u8, severity: u16) -> Happened {
    let (time, message) = (NOON + Duration::from_secs(id.into()), format!("event {id}"));
    Happened { id: vec![id], time, message, severity, kind: None, condition: None }
}

async fn next(link: &mut Supervised) -> Event {
    loop {
        let batch = link.batch().await;
        if let Some(event) = batch.events.into_iter().next() {
            return event;
        }
    }
}

#[tokio::test]
async fn events_and_alarms_of_a_server_are_told_once() {
    let mut server = server([("Good", 1_i64)]).await;
    let mut link = Supervised::start(listening(&server, "i=2253", 300));
    link.first_of_each(1).await;

    server.tell(&happened(1, 299)); // not severe enough
    let alarm = Happened { condition: Some(("TooHot".to_owned(), true, false)), ..happened(2, 800) };
    server.tell(&alarm);
    let event = next(&mut link).await;
    assert_eq!((&*event.station, &*event.kind, event.severity), ("aoi-1", "AlarmConditionType", 800));
    assert_eq!((&*event.message, event.time), ("event 2", NOON + Duration::from_secs(2)));
    let attribute =
        |name: &str| event.attributes.iter().find(|(known, _)| &**known == name).map(|(_, value)| value.clone());
    assert_eq!(attribute("opcua.event.id"), Some(Value::Text("02".into())));
    assert_eq!(attribute("opcua.condition.name"), Some(Value::Text("TooHot".into())));
    assert_eq!(attribute("opcua.condition.active"), Some(Value::Bool(true)));
    assert_eq!(attribute("opcua.condition.acknowledged"), Some(Value::Bool(false)));

    let alive = link.state().alive.expect("it was");

    // After a reconnect the server tells what stands once more; what was told already is not told again.
    server.stop().await;
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;
    server.restart().await.expect("the port is free");
    until("the link is up", || link.state().connects == 2).await;
    // What it watches is there once the gap is owned up to.
    let losses = loop {
        let batch = link.batch().await;
        let of_events = |loss: &Loss| loss.reason.contains("events of a gap");
        if batch.losses.iter().any(of_events) {
            break batch.losses.into_iter().filter(of_events).collect::<Vec<_>>();
        }
    };
    let [loss] = losses.as_slice() else { panic!("one a station: {losses:?}") };
    assert_eq!((&*loss.source, loss.count), ("aoi-1", 1));
    assert!(alive <= loss.from && loss.from <= loss.to, "{loss:?}");
    server.tell(&alarm);
    server.tell(&happened(3, 1_000));
    let event = next(&mut link).await;
    assert_eq!((&*event.message, &*event.kind, event.severity), ("event 3", "SystemEventType", 1_000));
    assert!(event.attributes.iter().all(|(name, _)| !name.starts_with("opcua.condition")));
    link.stop().await;
}

#[tokio::test]
async fn a_type_of_the_servers_own_has_its_name() {
    let server = server([("Good", 1_i64)]).await;
    server.add_machine();
    let mut link = Supervised::start(listening(&server, "/Objects/Server", 1));
    link.first_of_each(1).await;
    server.tell(&Happened { kind: Some("JamAlarmType"), ..happened(1, 600) });
    let event = next(&mut link).await;
    assert_eq!(&*event.kind, "JamAlarmType");
    let node = format!("nsu={NAMESPACE};s=type.JamAlarmType");
    assert!(event.attributes.contains(&("opcua.event.type.node".into(), Value::Text(node.into()))), "{event:?}");
    link.stop().await;
}

#[tokio::test]
async fn a_node_that_tells_no_events_leaves_the_tags_alone() {
    let server = server([("Good", 1_i64)]).await;
    for node in ["i=99999", &server.node("Good"), "/Objects/2:Gone"] {
        let mut link = Supervised::start(listening(&server, node, 1));
        let came = link.first_of_each(1).await;
        assert!(came.values().all(|reading| reading.value == Value::Int(1)), "{node}");
        link.stop().await;
    }
}

#[tokio::test]
async fn tags_that_fill_a_subscription_leave_room_for_events() {
    let names: Vec<String> = (0..10).map(|node| format!("N{node}")).collect();
    let mut server = server(names.iter().map(|name| (name.as_str(), 1_i64))).await;
    server.limit(OperationalLimits::default(), 10).await.expect("the port is free");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut config = config(&server.endpoint(), &names);
    config.stations[0].events = listening(&server, "i=2253", 1).stations[0].events.clone();
    let mut link = Supervised::start(config);
    let came = link.first_of_each(10).await;
    assert!(came.values().all(|reading| reading.validity == Validity::Good), "{came:?}");
    server.tell(&happened(1, 500));
    assert_eq!(&*next(&mut link).await.message, "event 1");
    link.stop().await;
}

#[tokio::test]
async fn a_notifier_that_was_refused_is_asked_for_again() {
    let server = server([("Good", 1_i64)]).await;
    let config = listening(&server, "/Objects/2:AOI", 1);
    let name = config.endpoint.clone();
    let client = Client::new(config).asking_again_every(Duration::from_millis(30));
    let mut link = Supervised::start_client(client, name);
    link.first_of_each(1).await;
    server.add_machine(); // a module that starts after the rest
    let told = async {
        for id in 1.. {
            server.tell(&happened(id, 500));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        event = next(&mut link) => assert!(event.message.starts_with("event "), "{event:?}"),
        () = told => {}
    }
    assert_eq!(link.state().connects, 1);
    link.stop().await;
}
