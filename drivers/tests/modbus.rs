//! The Modbus driver against a server on loopback, under the supervisor.

mod fieldbus;

use std::time::Duration;

use fieldbus::{Link, all_good, of};
use gemba_drivers::modbus::{Client, Config, Endpoint, Group, Limits, Table, Tag};
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::{LinkPhase, OwnStatus, Status, TagId, Validity, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TIMEOUT: Duration = Duration::from_secs(5);

fn group(unit: u8, first_id: u32, tags: &[(&str, &str)]) -> Group {
    let tag = |((address, data_type), id): (&(&str, &str), u32)| {
        let data_type = data_type.parse().expect("a data type");
        Tag::new(TagId(id), address.parse().expect("an address"), data_type)
    };
    Group {
        station: format!("press-{unit}").into(),
        unit,
        poll: Duration::from_millis(20),
        timeout: TIMEOUT,
        limits: Limits::default(),
        tags: tags.iter().zip(first_id..).map(tag).collect(),
    }
}

fn client(endpoint: Endpoint, timeout: Duration, groups: Vec<Group>) -> Client {
    let groups = groups.into_iter().map(|group| Group { timeout, ..group }).collect();
    Client::new(Config { endpoint, timeout, pause: Duration::ZERO, groups })
}

/// Three registers on unit 1, holding 10, 11 and 12, as tags 0, 1 and 2.
async fn three() -> (ModbusServer, Vec<Group>) {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[10, 11, 12]);
    (server, vec![group(1, 0, &[("holding:0", "u16"), ("holding:1", "u16"), ("holding:2", "u16")])])
}

#[tokio::test]
async fn one_poll_is_one_batch_with_every_type_and_one_time() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[3, 0, 0x0001, 0x86A0, 0xFFFF, 0xFFFE]);
    server.set_input(1, 10, &[0x42F6, 0xE979, 0, 0, 0, 7]);
    server.set_coils(1, 0, &[false, true]);
    server.set_discrete(1, 20, &[true]);
    let tags = [
        ("holding:0", "u16"),
        ("holding:2", "u32"),
        ("holding:4", "i32"),
        ("input:10", "f32"),
        ("input:12", "u64"),
        ("coil:1", "bool"),
        ("coil:0", "bool"),
        ("discrete:20", "bool"),
        ("holding:1", "bool"),
    ];
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![group(1, 0, &tags)]));
    let batch = link.next().await;
    assert!(all_good(&batch) && batch.losses.is_empty() && batch.receipt.is_none(), "{batch:?}");
    let expected = [
        Value::Int(3),
        Value::Int(100_000),
        Value::Int(-2),
        Value::Float(f64::from(123.456_f32)),
        Value::Int(7),
        Value::Bool(true),
        Value::Bool(false),
        Value::Bool(true),
        Value::Bool(false),
    ];
    assert_eq!(batch.readings.len(), expected.len());
    for (tag, value) in (0..).zip(expected) {
        assert_eq!(of(&batch, tag).value, value, "{}", tags[tag as usize].0);
    }
    let time = batch.readings[0].source_time;
    assert!(batch.readings.iter().all(|one| one.source_time == time && one.received_time == time), "{batch:?}");
    assert_eq!(server.take_asked().into_iter().take(4).map(|asked| asked.quantity).collect::<Vec<_>>(), [2, 1, 6, 6]);
}

#[tokio::test]
async fn new_values_come_with_the_next_polls() {
    let (server, groups) = three().await;
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    assert_eq!(of(&link.next().await, 1).value, Value::Int(11));
    server.set_holding(1, 1, &[500]);
    link.until(|batch| (of(batch, 1).value == Value::Int(500)).then_some(())).await;
}

#[tokio::test]
async fn an_exception_makes_only_the_guilty_tag_bad_and_costs_the_others_nothing() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &(0..100).collect::<Vec<_>>());
    server.refuse(1, Table::Holding, 57, Some(2));
    let addresses: Vec<_> = (0..100).map(|at| format!("holding:{at}")).collect();
    let tags: Vec<_> = addresses.iter().map(|address| (address.as_str(), "u16")).collect();
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![group(1, 0, &tags)]));

    let first = link.next().await;
    assert_eq!(first.readings.len(), 100, "in the same poll");
    for tag in 0..100 {
        let reading = of(&first, tag);
        if tag == 57 {
            assert_eq!((reading.validity, reading.value), (Validity::Bad(Status::Modbus(2)), Value::Null));
        } else {
            assert_eq!((reading.validity, reading.value), (Validity::Good, Value::Int(tag.into())));
        }
    }

    let second = link.next().await;
    assert!(all_good(&second) && second.readings.len() == 99, "the guilty one rests");
    server.take_asked();
    link.next().await;
    link.next().await;
    let asked = server.take_asked();
    let touched = |at| asked.iter().any(|asked| (asked.offset..asked.offset + asked.quantity).contains(&at));
    assert!(touched(56) && !touched(57) && touched(58), "{asked:?}");
    assert_eq!(link.state().connects, 1, "an exception leaves the link good");

    server.refuse(1, Table::Holding, 57, None);
    let mended = link.until(|batch| batch.readings.iter().find(|one| one.tag == TagId(57)).cloned()).await;
    assert_eq!(mended.value, Value::Int(57), "asked for again after its rest");
    server.take_asked();
    link.next().await;
    link.until(|_| server.take_asked().iter().any(|asked| asked.quantity == 100).then_some(())).await; // joined again
}

#[tokio::test]
async fn a_gap_that_the_device_lacks_costs_no_tag() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[1]);
    server.set_holding(1, 9, &[2]);
    let groups = vec![group(1, 0, &[("holding:0", "u16"), ("holding:9", "u16"), ("holding:65535", "u32")])];
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let batch = link.next().await;
    assert_eq!(of(&batch, 0).value, Value::Int(1));
    assert_eq!(of(&batch, 1).value, Value::Int(2));
    assert_eq!(of(&batch, 2).validity, Validity::Bad(Status::Modbus(2)), "it runs over the table's end");
}

#[tokio::test]
async fn a_device_that_refuses_everything_is_a_good_link_with_bad_tags() {
    let (server, _) = three().await;
    // Unit 9 is not there: the gateway answers for it.
    let groups = vec![group(9, 0, &[("holding:0", "u16"), ("input:1", "u16")])];
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    for _ in 0..3 {
        let batch = link.next().await;
        for tag in 0..2 {
            let status = of(&batch, tag).validity.status().expect("bad");
            assert_eq!((status, status.name().as_ref()), (Status::Modbus(11), "GatewayTargetDeviceFailedToRespond"));
        }
    }
    assert_eq!((link.state().phase, link.state().connects), (LinkPhase::Connected, 1));
}

#[tokio::test]
async fn units_share_a_connection_and_nothing_else() {
    let (server, mut groups) = three().await;
    server.set_holding(2, 0, &[20]);
    groups.push(group(2, 3, &[("holding:0", "u16")]));
    groups.push(group(7, 4, &[("holding:0", "u16")]));
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let mut seen = [false; 3];
    link.until(|batch| {
        match batch.readings.len() {
            3 => seen[0] |= of(batch, 0).value == Value::Int(10),
            _ if batch.readings[0].tag == TagId(3) => seen[1] |= of(batch, 3).value == Value::Int(20),
            _ => seen[2] |= of(batch, 4).validity == Validity::Bad(Status::Modbus(11)),
        }
        (seen == [true; 3]).then_some(())
    })
    .await;
    assert_eq!(link.state().connects, 1);
}

#[tokio::test]
async fn a_unit_that_does_not_answer_takes_no_other_along() {
    let (server, mut groups) = three().await;
    server.set_holding(2, 0, &[20]);
    groups.push(group(2, 3, &[("holding:0", "u16")]));
    let mut link = Link::start(client(server.endpoint(), Duration::from_millis(300), groups));
    let heard = link.until(|batch| (batch.readings[0].tag == TagId(3)).then(|| batch.readings[0].clone())).await;
    assert_eq!(heard.value, Value::Int(20));

    server.silence(Some(2));
    let no_answer = Validity::Bad(Status::Own(OwnStatus::NoAnswer));
    let mut last = heard.source_time;
    let bad = link
        .until(|batch| {
            let reading = &batch.readings[0];
            if reading.tag == TagId(3) && reading.validity == Validity::Good {
                last = reading.source_time;
            }
            (reading.validity == no_answer).then(|| batch.readings.clone())
        })
        .await;
    assert_eq!(bad.len(), 1);
    assert!(bad[0].source_time >= last && bad[0].source_time < bad[0].received_time, "{bad:?}");

    // The other one goes on, and hears nothing of a lost link.
    for _ in 0..20 {
        let batch = link.next().await;
        assert_eq!((batch.readings.len(), all_good(&batch)), (3, true), "{batch:?}");
    }
    assert_eq!((link.state().phase, link.state().connects), (LinkPhase::Connected, 1));
}

#[tokio::test]
async fn a_link_is_lost_when_no_unit_answers() {
    let (server, mut groups) = three().await;
    server.set_holding(2, 0, &[20]);
    groups.push(group(2, 3, &[("holding:0", "u16")]));
    let mut link = Link::start(client(server.endpoint(), Duration::from_millis(300), groups));
    link.next().await;
    server.hang(true);
    assert_eq!(link.until_lost().await.len(), 4);
    let down = link.until_state(|state| state.last_error.is_some()).await;
    assert_eq!(down.last_error.as_deref(), Some("silent for 300ms"));
    server.hang(false);
    link.until(|batch| (batch.readings.len() == 3 && all_good(batch)).then_some(())).await;
    link.until(|batch| (batch.readings[0].tag == TagId(3) && all_good(batch)).then_some(())).await;
}

#[tokio::test]
async fn an_answer_of_the_wrong_length_is_believed_in_nothing() {
    let (server, mut groups) = three().await;
    server.set_coils(1, 0, &[true; 20]);
    groups[0].tags.extend(group(1, 3, &[("coil:0", "bool"), ("coil:19", "bool")]).tags);
    server.answer_short(true);
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let batch = link.next().await;
    assert_eq!(batch.readings.len(), 5);
    for reading in &batch.readings {
        assert_eq!(reading.validity, Validity::Bad(Status::Own(OwnStatus::WrongLength)));
    }
    server.answer_short(false);
    link.until(|batch| all_good(batch).then_some(())).await;
    assert_eq!(link.state().connects, 1);
}

#[tokio::test]
async fn not_a_number_is_bad_beside_good_ones() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_input(1, 0, &[0x7FC0, 0, 0x3F80, 0]);
    let groups = vec![group(1, 0, &[("input:0", "f32"), ("input:2", "f32")])];
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let batch = link.next().await;
    assert_eq!(of(&batch, 0).validity, Validity::Bad(Status::Own(OwnStatus::NotFinite)));
    assert_eq!(of(&batch, 1).value, Value::Float(1.0));
}

#[tokio::test]
async fn a_station_that_is_down_at_start_comes_when_it_comes() {
    let (mut server, groups) = three().await;
    server.stop().await;
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let down = link.until_state(|state| state.phase == LinkPhase::Disconnected).await;
    assert!(down.last_error.expect("why").starts_with("unreachable: "));
    assert_eq!((down.connects, down.alive), (0, None));
    server.restart().await.expect("the same port");
    assert!(all_good(&link.next().await), "nothing was said before");
}

#[tokio::test]
async fn a_cut_is_dated_from_the_last_proof_of_life_and_heals() {
    let (mut server, groups) = three().await;
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    link.next().await;
    server.stop().await;
    let lost = link.until_lost().await;
    let down = link.until_state(|state| state.phase == LinkPhase::Disconnected).await;
    assert_eq!(lost.len(), 3);
    for reading in &lost {
        assert_eq!(Some(reading.source_time), down.alive);
        assert!(reading.source_time <= reading.received_time && reading.value == Value::Null);
    }
    server.restart().await.expect("the same port");
    link.until(|batch| all_good(batch).then_some(())).await;
    assert_eq!(link.state().connects, 2);
}

#[tokio::test]
async fn a_closed_connection_is_told_in_words() {
    let (server, groups) = three().await;
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    link.next().await;
    server.cut().await;
    link.until_lost().await;
    let down = link.until_state(|state| state.last_error.is_some()).await;
    let why = down.last_error.expect("why");
    assert!(
        ["link broke: the device closed the connection", "link broke: the device reset the connection"]
            .contains(&why.as_str()),
        "{why}"
    );
    link.until(|batch| all_good(batch).then_some(())).await;
}

#[tokio::test]
async fn a_device_that_hangs_is_given_up_and_tried_again() {
    let (server, groups) = three().await;
    let mut link = Link::start(client(server.endpoint(), Duration::from_millis(300), groups));
    link.next().await;
    server.hang(true);
    link.until_lost().await;
    let down = link.until_state(|state| state.last_error.is_some()).await;
    assert_eq!(down.last_error.as_deref(), Some("silent for 300ms"));
    server.hang(false);
    link.until(|batch| all_good(batch).then_some(())).await;
}

/// A peer that answers each request with `answer(request)`.
async fn peer(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 12];
            while stream.read_exact(&mut request).await.is_ok() {
                if stream.write_all(&answer(&request)).await.is_err() {
                    break;
                }
            }
        }
    });
    Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }
}

async fn error_from(endpoint: Endpoint) -> String {
    let groups = vec![group(1, 0, &[("holding:0", "u16")])];
    let link = Link::start(client(endpoint, Duration::from_secs(1), groups));
    link.until_state(|state| state.last_error.is_some()).await.last_error.expect("why")
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_never_believed() {
    let http = peer(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
    assert_eq!(error_from(http).await, "link broke: the device does not speak Modbus TCP");

    let late = peer(|request| {
        let mut answer = request[..2].to_vec();
        answer[1] = answer[1].wrapping_add(1); // another transaction
        answer.extend([0, 0, 0, 5, 1, 3, 2, 0, 7]);
        answer
    });
    assert_eq!(error_from(late.await).await, "link broke: the device answered another question");

    let other_unit = peer(|request| [&request[..2], &[0, 0, 0, 5, 9, 3, 2, 0, 7]].concat());
    assert_eq!(error_from(other_unit.await).await, "link broke: the device answered another question");
}

#[tokio::test]
async fn ten_thousand_registers_are_eighty_requests_and_one_batch() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &(0..10_000).collect::<Vec<_>>());
    let addresses: Vec<_> = (0..10_000).map(|at| format!("holding:{at}")).collect();
    let tags: Vec<_> = addresses.iter().map(|address| (address.as_str(), "u16")).collect();
    let mut only = group(1, 0, &tags);
    only.poll = Duration::from_secs(3600);
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![only]));
    let batch = link.next().await;
    assert_eq!(batch.readings.len(), 10_000);
    assert!(batch.readings.iter().all(|reading| reading.value == Value::Int(reading.tag.0.into())));
    assert_eq!(server.take_asked().len(), 80);
}

#[tokio::test]
async fn a_stop_ends_a_link_in_mid_request() {
    let (server, groups) = three().await;
    let mut link = Link::start(client(server.endpoint(), Duration::from_secs(3600), groups));
    link.next().await;
    server.hang(true);
    link.until_connected().await;
    link.stop().await;
}
