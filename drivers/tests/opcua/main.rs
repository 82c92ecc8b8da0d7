//! The OPC UA driver against a real server in process.

mod certificates;
mod events;
mod gaps;
mod missing;
mod nodes;
mod redundant;
mod rig;
mod seams;
mod secure;
mod services;
mod survey;
mod transfer;
mod wire;

use std::time::Duration;

use gemba_drivers::opcua::{Client, Station};
use gemba_drivers::{Driver, LinkError, LinkPhase, OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use opcua::types::{
    Array, DataValue, DateTime, Guid, LocalizedText, Range, StatusCode, VariableId, Variant, VariantScalarTypeId,
};
use rig::{NOON, Supervised, config, outlet, proxy, server, soon, tag, until};

#[tokio::test]
async fn values_come_with_the_sources_time_to_the_100_ns() {
    let server = server([("Good", Value::Int(1)), ("Score", Value::Float(0.5))]).await;
    server.set("Good", 41_i64, NOON);
    server.set("Score", 0.25, NOON + Duration::from_nanos(100));
    let mut link = Supervised::start(config(&server.endpoint(), &["Good", "Score"]));

    let before = Time::now();
    let mut first = link.batch().await;
    first.readings.sort_by_key(|reading| reading.tag); // the order of tags is the server's
    assert_eq!(first.readings.len(), 2, "what arrives in one publish goes together: {first:?}");
    assert!(first.losses.is_empty(), "{:?}", first.losses);
    let [good, score] = &first.readings[..] else { panic!("two readings") };
    assert_eq!((good.tag, &good.value, good.validity), (TagId(0), &Value::Int(41), Validity::Good));
    assert_eq!(good.source_time, NOON);
    assert_eq!((score.tag, &score.value, score.validity), (TagId(1), &Value::Float(0.25), Validity::Good));
    assert_eq!(score.source_time, NOON + Duration::from_nanos(100));
    assert!(good.received_time >= before && good.received_time <= Time::now());
    assert_eq!(good.received_time, score.received_time);

    // Changes faster than the publish interval are kept, in order.
    let times: Vec<_> = (1..=5).map(|step| NOON + Duration::from_millis(step)).collect();
    for (count, time) in (42_i64..).zip(&times) {
        server.set("Good", count, *time);
    }
    let mut came = Vec::new();
    while came.len() < 5 {
        came.extend(link.batch().await.readings.into_iter().map(|reading| (reading.value, reading.source_time)));
    }
    let expected: Vec<_> = (42..).map(Value::Int).zip(times).collect();
    assert_eq!(came, expected);
    link.stop().await;
}

#[tokio::test]
async fn each_type_becomes_its_value() {
    let guid = "72962b91-fa75-4ae6-8d28-b404dc7daf63";
    let text = |text: &str| Ok(Value::Text(text.into()));
    let cases: Vec<(&str, Variant, Result<Value, OwnStatus>)> = vec![
        ("bool", Variant::Boolean(true), Ok(Value::Bool(true))),
        ("sbyte", Variant::SByte(-5), Ok(Value::Int(-5))),
        ("byte", Variant::Byte(200), Ok(Value::Int(200))),
        ("int16", Variant::Int16(i16::MIN), Ok(Value::Int(-32_768))),
        ("uint16", Variant::UInt16(u16::MAX), Ok(Value::Int(65_535))),
        ("int32", Variant::Int32(i32::MIN), Ok(Value::Int(i32::MIN.into()))),
        ("uint32", Variant::UInt32(u32::MAX), Ok(Value::Int(u32::MAX.into()))),
        ("int64", Variant::Int64(i64::MIN), Ok(Value::Int(i64::MIN))),
        ("uint64", Variant::UInt64(i64::MAX as u64), Ok(Value::Int(i64::MAX))),
        ("uint64 beyond", Variant::UInt64(u64::MAX), Ok(Value::Float(18_446_744_073_709_551_615.0))),
        ("float", Variant::Float(1.5), Ok(Value::Float(1.5))),
        ("double", Variant::Double(-1.25e-300), Ok(Value::Float(-1.25e-300))),
        ("string", Variant::from("Execute ✓"), text("Execute ✓")),
        ("localized", Variant::from(LocalizedText::new("de", "Läuft")), text("Läuft")),
        ("guid", Variant::from(guid.parse::<Guid>().expect("a GUID")), text(guid)),
        ("status", Variant::StatusCode(StatusCode::BadNodeIdUnknown), text("BadNodeIdUnknown")),
        (
            "time",
            Variant::from(DateTime::ymd_hms_nano(2026, 11, 18, 6, 0, 0, 123_456_700)),
            text("2026-11-18T06:00:00.1234567Z"),
        ),
        ("nan", Variant::Double(f64::NAN), Err(OwnStatus::NotFinite)),
        ("infinite", Variant::Float(f32::INFINITY), Err(OwnStatus::NotFinite)),
        ("null", Variant::Empty, Err(OwnStatus::NoData)),
        (
            "array",
            Array::new(VariantScalarTypeId::Int32, vec![Variant::Int32(1)]).expect("one type").into(),
            Err(OwnStatus::WrongType),
        ),
        ("structure", Variant::from(Range { low: 0.0, high: 1.0 }), Err(OwnStatus::WrongType)),
        ("bytes", Variant::from(opcua::types::ByteString::from(vec![0xA1, 0x02])), text("a102")),
        ("node", Variant::from(opcua::types::NodeId::new(2, "State")), text("ns=2;s=State")),
        ("qualified", Variant::from(opcua::types::QualifiedName::new(2, "Execute")), text("Execute")),
    ];
    let server = server(cases.iter().map(|(name, value, _)| (*name, value.clone()))).await;
    let names: Vec<_> = cases.iter().map(|case| case.0).collect();
    let mut link = Supervised::start(config(&server.endpoint(), &names));

    let came = link.first_of_each(cases.len()).await;
    for (tag, (name, _, expected)) in (0..).map(TagId).zip(&cases) {
        let reading = &came[&tag];
        match expected {
            Ok(value) => assert_eq!((&reading.value, reading.validity), (value, Validity::Good), "{name}"),
            Err(own) => {
                assert_eq!(reading.validity, Validity::Bad(Status::Own(*own)), "{name}");
                assert_eq!(reading.value, Value::Null, "{name}");
            }
        }
    }
    link.stop().await;
}

#[tokio::test]
async fn a_time_that_is_missing_is_the_servers_and_then_ours() {
    let server = server([("A", 1_i64), ("B", 1), ("C", 1)]).await;
    let at = |time| Some(time);
    let noon = DateTime::ymd_hms_nano(2026, 11, 18, 12, 0, 0, 0);
    let told = |source, server| DataValue {
        value: Some(Variant::Int64(2)),
        source_timestamp: source,
        server_timestamp: server,
        ..DataValue::null()
    };
    server.set_data("A", told(None, at(noon)));
    server.set_data("B", told(at(DateTime::null()), at(noon)));
    server.set_data("C", told(None, None));
    let mut link = Supervised::start(config(&server.endpoint(), &["A", "B", "C"]));

    let came = link.first_of_each(3).await;
    let noon: Time = "2026-11-18T12:00:00Z".parse().expect("a time");
    assert_eq!(came[&TagId(0)].source_time, noon);
    assert_eq!(came[&TagId(1)].source_time, noon);
    assert_eq!(came[&TagId(2)].source_time, came[&TagId(2)].received_time);
    link.stop().await;
}

#[tokio::test]
async fn a_wrong_node_makes_only_its_tag_bad() {
    let server = server([("Good", 7_i64)]).await;
    let mut config = config(&server.endpoint(), &["Good", "Missing"]);
    for (id, node) in [(2, "nsu=urn:nobody;s=Good"), (3, "ns=40;s=Good"), (4, "i=2258")] {
        config.stations[0].tags.push(tag(id, node));
    }
    let mut link = Supervised::start(config);

    let came = link.first_of_each(5).await;
    assert_eq!((&came[&TagId(0)].value, came[&TagId(0)].validity), (&Value::Int(7), Validity::Good));
    for bad in [1, 2, 3] {
        let reading = &came[&TagId(bad)];
        let status = reading.validity.status().expect("bad");
        assert_eq!((status, &reading.value), (Status::Opcua(0x8034_0000), &Value::Null), "tag {bad}");
        assert_eq!(status.name(), "BadNodeIdUnknown");
    }
    assert_eq!(came[&TagId(4)].validity, Validity::Good, "the server's own clock, in namespace 0");
    assert_eq!(link.state().phase, LinkPhase::Connected);

    server.set("Good", 8_i64, Time::now());
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(8));
    link.stop().await;
}

#[tokio::test]
async fn doubtful_values_keep_the_servers_reason() {
    let server = server([("Score", 0.5)]).await;
    let mut link = Supervised::start(config(&server.endpoint(), &["Score"]));
    assert_eq!(link.next_of(TagId(0)).await.validity, Validity::Good);

    server.set_status_at("Score", 0x808C_0000, NOON - Duration::from_secs(1));
    let bad = link.next_of(TagId(0)).await;
    assert_eq!(bad.source_time, NOON - Duration::from_secs(1));
    assert_eq!((bad.validity, bad.value), (Validity::Bad(Status::Opcua(0x808C_0000)), Value::Null));
    assert_eq!(Status::Opcua(0x808C_0000).name(), "BadSensorFailure");

    server.set("Score", 0.75, NOON);
    let good = link.next_of(TagId(0)).await;
    assert_eq!((good.validity, good.value, good.source_time), (Validity::Good, Value::Float(0.75), NOON));

    // The status alone changes, with a flag (limit low) that is no part of the reason.
    server.set_status("Score", 0x4090_0500);
    let uncertain = link.next_of(TagId(0)).await;
    assert_eq!(uncertain.validity, Validity::Uncertain(Status::Opcua(0x4090_0000)));
    assert_eq!(uncertain.value, Value::Float(0.75));

    server.set_status("Score", 0);
    let good = link.next_of(TagId(0)).await;
    assert_eq!((good.validity, good.value), (Validity::Good, Value::Float(0.75)));
    link.stop().await;
}

#[tokio::test]
async fn what_the_server_threw_away_is_a_loss() {
    let server = server([("Count", 0_i64)]).await;
    let mut link = Supervised::start(config(&server.endpoint(), &["Count"]));
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(0));

    // More than the queue of an item holds, all before the next publish: nothing yields in between.
    for count in 1..=50_i64 {
        server.set("Count", count, NOON + Duration::from_millis(count.unsigned_abs()));
    }
    let mut readings = Vec::new();
    let mut losses = Vec::new();
    while readings.last().is_none_or(|last: &Reading| last.value != Value::Int(50)) {
        let batch = link.batch().await;
        readings.extend(batch.readings);
        losses.extend(batch.losses);
    }
    assert_eq!(readings.len(), 20, "the newest are kept: {readings:?}");
    assert!(readings.iter().all(|reading| reading.validity == Validity::Good), "`Good, Overflow` is good");
    let lost: u64 = losses.iter().map(|loss| loss.count).sum();
    assert!(lost > 0, "not silent");
    assert!(losses.iter().all(|loss| &*loss.source == "aoi-1" && loss.reason.contains("queue")), "{losses:?}");
    link.stop().await;
}

#[tokio::test]
async fn a_server_without_filters_is_asked_again_without() {
    let server = server([("Good", 1_i64), ("Reject", 2)]).await;
    server.refuse_filters(true);
    let mut link = Supervised::start(config(&server.endpoint(), &["Good", "Missing", "Reject"]));
    let came = link.first_of_each(3).await;
    assert_eq!(came[&TagId(0)].value, Value::Int(1));
    assert_eq!(came[&TagId(1)].validity, Validity::Bad(Status::Opcua(0x8034_0000)));
    assert_eq!(came[&TagId(2)].value, Value::Int(2));
    link.stop().await;
}

#[tokio::test]
async fn many_nodes_are_watched_in_several_calls_and_come_together() {
    const MANY: usize = 2_500; // the server takes 1,000 a call
    let names: Vec<_> = (0..MANY).map(|node| format!("N{node}")).collect();
    let server = server(names.iter().map(|name| (name.as_str(), 0_i64))).await;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut link = Supervised::start(config(&server.endpoint(), &names));
    assert_eq!(link.first_of_each(MANY).await.len(), MANY);

    server.set_values((0..MANY).map(|node| (node, Value::Int(1))), NOON);
    let batch = link.batch().await;
    assert_eq!(batch.readings.len(), MANY, "one message, one batch");
    assert!(batch.readings.iter().all(|reading| reading.value == Value::Int(1) && reading.source_time == NOON));
    link.stop().await;
}

#[tokio::test]
async fn stations_of_one_server_share_one_session() {
    let server = server([("State", Value::Text("Execute".into())), ("Good", Value::Int(1))]).await;
    let mut config = config(&server.endpoint(), &["State"]);
    config.stations.push(Station {
        name: "aoi-2".into(),
        publish: Duration::from_secs(1),
        tags: vec![tag(9, &server.node("Good"))],
        events: Vec::new(),
    });
    let driver = Client::new(config.clone());
    assert_eq!(driver.tags(), [TagId(0), TagId(9)]);
    let mut link = Supervised::start(config);
    let came = link.first_of_each(2).await;
    assert_eq!(came[&TagId(0)].value, Value::Text("Execute".into()));
    assert_eq!(came[&TagId(9)].value, Value::Int(1));
    assert_eq!(server.sessions(), 1);
    link.stop().await;
}

#[tokio::test]
async fn an_outage_makes_every_tag_bad_and_ends_by_itself() {
    let mut server = server([("Good", 1_i64), ("Reject", 2)]).await;
    let mut link = Supervised::start(config(&server.endpoint(), &["Good", "Reject"]));
    link.first_of_each(2).await;
    let alive = link.state().alive.expect("it was");

    server.stop().await;
    let lost = link.batch().await;
    let told: Vec<_> = lost.readings.iter().map(|reading| (reading.tag, reading.validity)).collect();
    let link_lost = Validity::Bad(Status::Own(OwnStatus::LinkLost));
    assert_eq!(told, [(TagId(0), link_lost), (TagId(1), link_lost)]);
    assert!(lost.readings.iter().all(|reading| reading.source_time >= alive && reading.value == Value::Null));
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;

    // Nobody listens: tries go on, and say why they fail.
    until("a try fails", || link.state().last_error.is_some_and(|error| error.contains("Connection refused"))).await;

    server.set("Good", 11_i64, NOON);
    server.restart().await.expect("the port is free");
    let good = link.next_of(TagId(0)).await;
    assert_eq!((good.value, good.validity, good.source_time), (Value::Int(11), Validity::Good, NOON));
    until("the link is up", || link.state().phase == LinkPhase::Connected && link.state().connects == 2).await;

    server.set("Reject", 3_i64, Time::now());
    loop {
        if link.next_of(TagId(1)).await.value == Value::Int(3) {
            break;
        }
    }
    link.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_at_once() {
    let mut server = server([("Good", 1_i64)]).await;
    server.stop().await;
    let mut driver = Client::new(config(&server.endpoint(), &["Good"]));
    let error = soon(driver.connect()).await.expect_err("nobody listens");
    assert!(matches!(error, LinkError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("Connection refused"), "{error}");
    soon(driver.close()).await;

    // It comes up later.
    server.restart().await.expect("the port is free");
    soon(driver.connect()).await.expect("it is there now");
    soon(driver.close()).await;
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let server = server([("Good", 1_i64)]).await; // on 127.0.0.1; `localhost` may mean ::1 first
    let mut driver = Client::new(config(&format!("opc.tcp://localhost:{}", server.port()), &["Good"]));
    soon(driver.connect()).await.expect("found by name");
    soon(driver.close()).await;

    let mut driver = Client::new(config("opc.tcp://no-such-host.invalid:4840", &["Good"]));
    let error = soon(driver.connect()).await.expect_err("no such name");
    assert!(matches!(&error, LinkError::Unreachable(why) if why.contains("no-such-host.invalid")), "{error}");
}

#[tokio::test]
async fn a_port_that_never_answers_is_given_up_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut config = config(&format!("opc.tcp://{address}"), &["Good"]);
    config.timeout = Duration::from_millis(200);
    let mut driver = Client::new(config);
    let error = soon(driver.connect()).await.expect_err("nobody answers");
    assert!(matches!(&error, LinkError::Unreachable(why) if why.contains("no answer within")), "{error}");
}

#[tokio::test]
async fn something_else_on_the_port_is_no_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let other = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        loop {
            let (mut socket, _) = listener.accept().await.expect("a client");
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let mut driver = Client::new(config(&format!("opc.tcp://{address}"), &["Good"]));
    let error = soon(driver.connect()).await.expect_err("no OPC UA");
    assert!(matches!(error, LinkError::Unreachable(_) | LinkError::Refused(_)), "{error}");
    other.abort();
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let mut driver = Client::new(config("http://127.0.0.1:4840", &["Good"]));
    let error = soon(driver.connect()).await.expect_err("no such scheme");
    assert!(matches!(error, LinkError::Refused(_)), "{error}");
}

#[tokio::test]
async fn no_session_stays_behind() {
    let server = server([("Good", 1_i64)]).await;
    let mut driver = Client::new(config(&server.endpoint(), &["Good"]));
    soon(driver.close()).await; // harmless before anything
    for _ in 0..3 {
        soon(driver.connect()).await.expect("up");
        assert_eq!(server.sessions(), 1, "connecting again ends the session before");
    }
    soon(driver.close()).await;
    until("the session is gone", || server.sessions() == 0).await;
    soon(driver.close()).await;

    // A supervised link says goodbye at a stop.
    let mut link = Supervised::start(config(&server.endpoint(), &["Good"]));
    link.first_of_each(1).await;
    assert_eq!(server.sessions(), 1);
    link.stop().await;
    until("the session is gone", || server.sessions() == 0).await;
}

#[tokio::test]
async fn a_connect_that_is_given_up_leaves_no_session() {
    let server = server([("Good", 1_i64)]).await;
    for millis in 0..25 {
        let mut driver = Client::new(config(&server.endpoint(), &["Good"]));
        let _ = tokio::time::timeout(Duration::from_millis(millis), driver.connect()).await;
        soon(driver.close()).await;
    }
    until("the sessions are gone", || server.sessions() == 0).await;
}

#[tokio::test]
async fn a_subscription_that_falls_silent_ends_the_link() {
    // A proxy that passes everything on until it is told to swallow what the server says.
    let server = server([("Good", 1_i64)]).await;
    let (swallow, proxied) = proxy(server.port()).await;
    let mut config = config(&format!("opc.tcp://{proxied}/"), &["Good"]);
    config.timeout = Duration::from_secs(2); // the tests beside this one make keys, and take both cores for it
    let mut driver = Client::new(config);
    soon(driver.connect()).await.expect("up");
    let (outlet, mut batches, _state) = outlet();
    swallow.send_replace(true);
    let error = tokio::time::timeout(Duration::from_secs(60), driver.run(&outlet)).await.expect("the watchdog bites");
    assert!(matches!(error, LinkError::Silent(_)), "{error}");
    // The first value may have passed before the cable was a hole; nothing after it.
    let first = batches.try_recv().map(|batch| batch.readings.len()).unwrap_or(0);
    assert!(first <= 1 && batches.try_recv().is_err(), "nothing came");
    soon(driver.close()).await;
}

#[tokio::test]
async fn a_full_channel_slows_the_link_and_loses_nothing() {
    let server = server([("Count", 0_i64)]).await;
    let mut link = Supervised::start(config(&server.endpoint(), &["Count"]));
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(0));
    // The channel holds four batches; nobody takes any while twelve changes are published one by one.
    for count in 1..=12_i64 {
        server.set("Count", count, NOON + Duration::from_millis(count.unsigned_abs()));
        if count <= 4 {
            until("it was delivered", || link.waiting() == usize::try_from(count).expect("small")).await;
        }
    }
    for count in 1..=12 {
        let batch_or_rest = link.next_of(TagId(0)).await;
        assert_eq!(batch_or_rest.value, Value::Int(count));
    }
    link.stop().await;
}

#[tokio::test]
async fn a_server_clock_is_a_text_tag() {
    let server = server([("Good", 1_i64)]).await;
    let mut config = config(&server.endpoint(), &[]);
    let node = format!("i={}", VariableId::Server_ServerStatus_CurrentTime as u32);
    config.stations[0].tags = vec![tag(0, &node)];
    let mut link = Supervised::start(config);
    let Value::Text(text) = link.next_of(TagId(0)).await.value else { panic!("a text") };
    text.parse::<Time>().expect("RFC 3339");
    link.stop().await;
}
