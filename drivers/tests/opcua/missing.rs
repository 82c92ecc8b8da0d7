//! Messages of a subscription that never come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gemba_drivers::opcua::{Config, Notifier, Station};
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::{LinkPhase, Reading, TagId, Value};
use opcua::types::{ObjectId, StatusCode};

use crate::rig::{NOON, Supervised, config, server, tag, until};
use crate::wire::{Answer, Wire};

/// Two stations behind one wire, of a server that keeps no history.
async fn line() -> (OpcuaServer, Wire, Config) {
    let server = server([("Good", 0_i64), ("Reject", 0)]).await;
    let wire = Wire::to(server.port()).await;
    let mut config = config(&wire.url(), &["Good"]);
    config.stations.push(Station {
        name: "aoi-2".into(),
        publish: Duration::from_millis(50),
        tags: vec![tag(1, &server.node("Reject"))],
        events: Vec::new(),
    });
    (server, wire, config)
}

/// Loses the next publish, and does `also` to what follows.
fn lose_one(wire: &Wire, also: impl Fn(&mut Answer) + Send + 'static) -> Arc<AtomicU32> {
    let lost = Arc::new(AtomicU32::new(0));
    let count = lost.clone();
    wire.spoil(move |answer| {
        also(answer);
        let publish = answer.is(ObjectId::PublishResponse_Encoding_DefaultBinary);
        !publish || count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lost| (lost == 0).then_some(1)).is_err()
    });
    lost
}

/// A link that was up, and whose next message, which says that `Good` is 1, was lost; `also` is done to what follows.
async fn having_lost_one(also: impl Fn(&mut Answer) + Send + 'static) -> (OpcuaServer, Wire, Supervised) {
    let (server, wire, config) = line().await;
    let mut link = Supervised::start(config);
    link.first_of_each(2).await;
    let lost = lose_one(&wire, also);
    server.set("Good", 1_i64, NOON);
    until("it is lost", || lost.load(Ordering::Relaxed) == 1).await;
    (server, wire, link)
}

#[tokio::test]
async fn a_lost_message_is_asked_for_and_comes_in_its_place() {
    let (server, _wire, mut link) = having_lost_one(|_| {}).await;
    assert_eq!(link.waiting(), 0);
    server.set("Good", 2_i64, NOON + Duration::from_secs(1));
    let mut came: Vec<Reading> = Vec::new();
    while came.len() < 2 {
        let batch = link.batch().await;
        assert!(batch.losses.is_empty(), "{:?}", batch.losses);
        came.extend(batch.readings);
    }
    let values: Vec<_> = came.into_iter().map(|reading| reading.value).collect();
    assert_eq!(values, [Value::Int(1), Value::Int(2)]);
    assert_eq!(link.state().connects, 1);
    link.stop().await;
}

#[tokio::test]
async fn a_lost_message_that_the_server_does_not_have_any_more_is_one_loss() {
    let (server, _wire, mut link) = having_lost_one(|answer| {
        if answer.is(ObjectId::RepublishResponse_Encoding_DefaultBinary) {
            answer.fail(StatusCode::BadMessageNotAvailable);
        }
    })
    .await;
    server.set("Good", 2_i64, NOON + Duration::from_secs(1));
    let batch = link.batch().await;
    let [reading] = batch.readings.as_slice() else { panic!("one: {batch:?}") };
    assert_eq!(reading.value, Value::Int(2));
    let [loss] = batch.losses.as_slice() else { panic!("one for both stations: {:?}", batch.losses) };
    assert_eq!((&*loss.source, loss.count), ("aoi-1", 1));
    assert_eq!(&*loss.reason, "OPC UA: messages of the subscription never came (also of aoi-2)");
    server.set("Reject", 3_i64, NOON);
    let batch = link.batch().await;
    assert!(batch.losses.is_empty(), "told once: {:?}", batch.losses);
    link.stop().await;
}

#[tokio::test]
async fn a_keep_alive_shows_what_was_lost_last() {
    let (_server, _wire, mut link) = having_lost_one(|_| {}).await;
    // Nothing changes any more.
    let reading = link.next_of(TagId(0)).await;
    assert_eq!((reading.value, reading.source_time), (Value::Int(1), NOON));
    link.stop().await;
}

#[tokio::test]
async fn one_subscription_that_dies_quietly_ends_the_link_while_another_speaks() {
    let (server, wire, mut config) = line().await;
    config.timeout = Duration::from_secs(2);
    config.stations[0].events =
        vec![Notifier { node: "i=2253".parse().expect("a node"), min_severity: 1, refresh: false }];
    let mut link = Supervised::start(config);
    link.first_of_each(2).await;
    // That of the values is the first.
    let first = Arc::new(AtomicU32::new(0));
    wire.spoil(move |answer| {
        if !answer.is(ObjectId::PublishResponse_Encoding_DefaultBinary) {
            return true;
        }
        let id = answer.subscription();
        let dead = first.compare_exchange(0, id, Ordering::Relaxed, Ordering::Relaxed).map_or_else(|held| held, |_| id);
        id != dead
    });
    server.set("Good", 1_i64, NOON);
    until("the link is given up", || link.state().phase == LinkPhase::Disconnected).await;
    let why = link.state().last_error.expect("told");
    assert!(why.starts_with("silent for"), "{why}");
    link.stop().await;
}
