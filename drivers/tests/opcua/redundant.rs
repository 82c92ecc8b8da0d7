//! Several servers that stand in for one another.

use gemba_drivers::opcua::{Client, Config};
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::{Driver, LinkError, LinkPhase, TagId, Time, Validity, Value};

use crate::rig::{Supervised, config, server, soon, until};

/// Two servers that differ in what they say.
async fn pair() -> (OpcuaServer, OpcuaServer) {
    (server([("Good", 1_i64)]).await, server([("Good", 2_i64)]).await)
}

fn set(first: &OpcuaServer, second: &OpcuaServer) -> Config {
    Config { spares: vec![second.endpoint()], ..config(&first.endpoint(), &["Good"]) }
}

#[tokio::test]
async fn the_next_server_takes_over_and_keeps_the_link() {
    let (mut first, mut second) = pair().await;
    let mut link = Supervised::start(set(&first, &second));
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(1));
    assert_eq!(second.sessions(), 0, "a spare is left alone while the first is healthy");
    assert_eq!(link.state().server, Some((1, 2)));

    first.stop().await;
    let lost = link.next_of(TagId(0)).await;
    assert!(matches!(lost.validity, Validity::Bad(_)), "the gap is told: {lost:?}");
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(2));
    assert_eq!((link.state().phase, link.state().server), (LinkPhase::Connected, Some((2, 2))));

    first.restart().await.expect("its port is free");
    second.set("Good", 3_i64, Time::now());
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(3));
    assert_eq!(first.sessions(), 0, "no going back while it works");

    second.stop().await;
    assert!(matches!(link.next_of(TagId(0)).await.validity, Validity::Bad(_)));
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(1), "round again");
    link.stop().await;
    until("the session was closed", || first.sessions() == 0).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_passed_over() {
    let (mut first, second) = pair().await;
    first.stop().await;
    let mut link = Supervised::start(set(&first, &second));
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(2));
    assert_eq!(link.state().last_error, None, "one attempt was enough");
    link.stop().await;
}

#[tokio::test]
async fn the_healthiest_is_taken() {
    for (levels, taken) in [((100, 255), 2), ((200, 255), 1), ((50, 120), 2), ((120, 50), 1), ((1, 1), 1), ((0, 1), 2)]
    {
        let (first, second) = pair().await;
        first.set_service_level(levels.0);
        second.set_service_level(levels.1);
        let mut link = Supervised::start(set(&first, &second));
        assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(taken), "{levels:?}");
        let (used, spare) = if taken == 1 { (&first, &second) } else { (&second, &first) };
        until("only the one that is used has a session", || used.sessions() == 1 && spare.sessions() == 0).await;
        link.stop().await;
    }
}

#[tokio::test]
async fn when_none_answers_each_says_why() {
    let (mut first, mut second) = pair().await;
    first.stop().await;
    second.stop().await;
    let mut client = Client::new(set(&first, &second));
    let error = soon(client.connect()).await.expect_err("nobody there");
    assert!(matches!(error, LinkError::Unreachable(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("server 1: unreachable") && said.contains("server 2: unreachable"), "{said}");
    first.restart().await.expect("its port is free");
    soon(client.connect()).await.expect("the first is back");
    client.close().await;
}
