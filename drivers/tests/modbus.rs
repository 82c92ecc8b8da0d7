//! The Modbus driver against a server on loopback, under the supervisor.

mod fieldbus;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fieldbus::{Link, all_good, of};
use gemba_drivers::modbus::{Client, Config, Endpoint, Group, Limits, Table, Tag};
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::survey::{Offered, Probed, Scope, Survey as _};
use gemba_drivers::{BreakerState, LinkError, LinkPhase, OwnStatus, Status, TagId, Validity, Value, treat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
async fn how_reads_are_split_is_remembered_over_a_reconnection() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &(0..125).collect::<Vec<_>>());
    (0..20).for_each(|hole| server.refuse(1, Table::Holding, hole * 6, Some(2)));
    let addresses: Vec<_> = (0..125).map(|at| format!("holding:{at}")).collect();
    let tags: Vec<_> = addresses.iter().map(|address| (address.as_str(), "u16")).collect();
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![group(1, 0, &tags)]));
    let mut told = std::collections::BTreeSet::new();
    link.until(|batch| {
        told.extend(batch.readings.iter().map(|one| one.tag));
        (told.len() == 125).then_some(())
    })
    .await;
    server.cut().await;
    link.until_lost().await;
    server.take_asked();
    link.next().await;
    // The first poll of the new link asks for each run of good ones, for some of the twenty again, and splits nothing.
    let asked = server.take_asked();
    assert!(asked.len() <= 60 + 16, "{}", asked.len());
    assert!(asked.iter().all(|asked| asked.quantity <= 11), "{asked:?}");
    assert_eq!(link.state().connects, 2);
}

#[tokio::test]
async fn a_unit_that_is_silent_makes_no_new_connection() {
    let (server, mut groups) = three().await;
    server.set_holding(2, 0, &[20]);
    groups.push(group(2, 3, &[("holding:0", "u16")]));
    let (endpoint, connections, _) = recorder(server.addr()).await;
    let mut link = Link::start(client(endpoint, Duration::from_millis(100), groups));
    link.until(|batch| (batch.readings[0].tag == TagId(3)).then_some(())).await;
    server.silence(Some(2));
    let probed = |link: &Link| link.state().devices.get(1).map_or(0, |unit| unit.breaker.turns[1]);
    while probed(&link) < 3 {
        let batch = link.next().await;
        assert!(batch.readings[0].tag == TagId(3) || all_good(&batch), "{batch:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    assert_eq!((link.state().attempts, link.state().connects), (1, 1), "the supervisor alone connects");
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
        let of_dead = batch.readings[0].tag == TagId(3) && batch.readings[0].validity == no_answer;
        assert!(of_dead || (batch.readings.len() == 3 && all_good(&batch)), "{batch:?}");
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
    assert!(down.last_error.as_deref().is_some_and(|why| why.starts_with("silent for ")), "{:?}", down.last_error);
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
    assert!(down.last_error.as_deref().is_some_and(|why| why.starts_with("silent for ")), "{:?}", down.last_error);
    server.hang(false);
    link.until(|batch| all_good(batch).then_some(())).await;
}

#[tokio::test]
async fn silence_is_looked_into_told_and_given_up_and_ends_with_data() {
    // Read once an hour, and to be no older than a second.
    let (server, groups) = three().await;
    let hourly = groups.into_iter().map(|group| Group { poll: Duration::from_secs(3600), ..group }).collect();
    let options = treat::Options { max_age: Some(Duration::from_secs(1)), ..treat::Options::default() };
    let treated = (0..3).map(|tag| (TagId(tag), options.clone())).collect();
    let station = treat::Station { name: "press-1".into(), tags: 0..3, treated, max_clock_skew: None };
    let plan = treat::Plan { stations: vec![station] };
    let timeout = Duration::from_millis(1500);
    let mut link = Link::treating(client(server.endpoint(), timeout, hourly), &plan);
    assert!(all_good(&link.next().await));

    // Half its age: it is asked for.
    server.set_holding(1, 0, &[77]);
    link.until(|batch| (of(batch, 0).value == Value::Int(77)).then_some(())).await;
    assert_eq!(link.state().connects, 1);

    // It hangs. Its age: the tags are bad. Twice its age, or when nothing answers any more: the connection is given up.
    server.hang(true);
    let stale = Validity::Bad(Status::Own(OwnStatus::Stale));
    link.until(|batch| batch.readings.iter().any(|one| one.validity == stale).then_some(())).await;
    assert_eq!(link.until_lost().await.len(), 3);
    let down = link.until_state(|state| state.last_error.is_some()).await;
    assert!(down.last_error.as_deref().is_some_and(|why| why.starts_with("silent for ")), "{:?}", down.last_error);
    server.hang(false);
    link.until(|batch| (all_good(batch) && of(batch, 0).value == Value::Int(77)).then_some(())).await;
    assert!(link.state().connects >= 2);
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

/// A proxy that counts connections and keeps the function code of each request that passes.
async fn recorder(to: std::net::SocketAddr) -> (Endpoint, Arc<AtomicU64>, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let connections = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let Ok(server) = TcpStream::connect(to).await else { continue };
            let ((mut from, mut back), (mut answers, mut on)) = (stream.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut header = [0; 7];
                while from.read_exact(&mut header).await.is_ok() {
                    let mut pdu = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) - 1];
                    if from.read_exact(&mut pdu).await.is_err() {
                        break;
                    }
                    kept.lock().expect("unpoisoned").push(pdu[0]);
                    if on.write_all(&[&header, pdu.as_slice()].concat()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (Endpoint::Tcp { host: "127.0.0.1".to_owned(), port }, connections, seen)
}

#[tokio::test]
async fn nothing_but_reads_ever_leaves() {
    let (mut server, mut groups) = three().await;
    server.set_coils(1, 0, &[true]);
    server.set_discrete(1, 0, &[true]);
    server.set_input(1, 0, &[1]);
    server.refuse(1, Table::Holding, 1, Some(2));
    let all =
        [("coil:0", "bool"), ("discrete:0", "bool"), ("input:0", "u16"), ("holding:0.3", "bool"), ("input:9", "u16")];
    groups.push(group(1, 3, &all));
    groups.push(group(2, 8, &[("holding:0", "u16")]));
    let (endpoint, _, seen) = recorder(server.addr()).await;

    // A whole life: reads, refusals, splits, a silent unit, a hanging device, a cut, a restart, a stop.
    let timeout = Duration::from_millis(300);
    let mut link = Link::start(client(endpoint.clone(), timeout, groups.clone()));
    for _ in 0..20 {
        link.next().await;
    }
    server.silence(Some(2));
    link.until(|batch| (batch.readings[0].validity == Validity::Bad(Status::Own(OwnStatus::NoAnswer))).then_some(()))
        .await;
    server.hang(true);
    link.until_lost().await;
    server.hang(false);
    link.until(|batch| (batch.readings[0].tag == TagId(0)).then_some(())).await;
    server.stop().await;
    link.until_lost().await;
    server.restart().await.expect("the same port");
    link.until(|batch| (batch.readings[0].tag == TagId(0)).then_some(())).await;
    link.stop().await;
    // And both ways of looking at it without running.
    server.silence(None);
    client(endpoint.clone(), timeout, groups.clone()).probe(&mut |_| ()).await.expect("a link");
    let scope = Scope { station: "press-1".into(), listen: timeout, most: 10 };
    let pause = Duration::from_millis(1);
    let mut client = Client::new(Config { endpoint, timeout, pause, groups });
    client.browse(&scope, &mut |_| ()).await.expect("registers");

    let mut codes = seen.lock().expect("unpoisoned").clone();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, [1, 2, 3, 4], "function codes that read, and each of them");
}

#[tokio::test]
async fn an_answer_to_another_transaction_is_passed_over_and_the_right_one_taken() {
    let stray = peer(|request| {
        let wrong = [&[0xAB, 0xCD, 0, 0, 0, 5], &[1, 3, 2, 0xDE, 0xAD][..]].concat();
        let unit = [&request[..2], &[0, 0, 0, 5], &[9, 3, 2, 0xDE, 0xAD]].concat();
        let function = [&request[..2], &[0, 0, 0, 5], &[1, 4, 2, 0xDE, 0xAD]].concat();
        let right = [&request[..2], &[0, 0, 0, 5], &[1, 3, 2, 0, 7]].concat();
        [wrong, unit, function, right].concat()
    })
    .await;
    let mut link = Link::start(client(stray, TIMEOUT, vec![group(1, 0, &[("holding:0", "u16")])]));
    for _ in 0..5 {
        let batch = link.next().await;
        assert_eq!(of(&batch, 0).value, Value::Int(7));
    }
    let state = link.state();
    assert_eq!(state.connects, 1, "the link stands");
    for kind in ["transaction", "unit", "function"] {
        let counted = state.devices[0].discarded.iter().find(|(known, _)| *known == kind).expect("a kind").1;
        assert!(counted >= 4, "{kind}: {counted}");
    }
}

#[tokio::test]
async fn a_gateway_that_says_a_unit_is_away_is_asked_for_it_ever_more_seldom() {
    let (server, mut groups) = three().await;
    groups.push(group(7, 3, &[("holding:0", "u16"), ("input:0", "u16")])); // the gateway answers 11 for it
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, groups));
    let away = link.until(|batch| (batch.readings[0].tag == TagId(3)).then(|| batch.readings.clone())).await;
    assert_eq!(away.len(), 2);
    assert!(away.iter().all(|one| one.validity == Validity::Bad(Status::Modbus(11))), "{away:?}");
    link.until_state(|state| state.devices.get(1).is_some_and(|unit| unit.breaker.state == BreakerState::Open)).await;
    server.take_asked();
    for _ in 0..10 {
        link.until(|batch| (batch.readings[0].tag == TagId(0)).then_some(())).await;
    }
    let of_seven = server.take_asked().iter().filter(|asked| asked.unit == 7).count();
    assert!(of_seven <= 2, "{of_seven}");
    server.set_holding(7, 0, &[70]);
    link.until(|batch| {
        (batch.readings[0].tag == TagId(3)).then(|| of(batch, 3).value == Value::Int(70))?.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tag_that_cannot_be_decoded_is_bad_beside_good_ones() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[0x12A4, 0x1234, 0xFF41]);
    let mut only = group(
        1,
        0,
        &[("holding:0", "bcd16"), ("holding:1", "bcd16"), ("holding:2", "string"), ("holding:1.4", "bool")],
    );
    only.tags[2].length = 2;
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![only]));
    let batch = link.next().await;
    let undecodable = Validity::Bad(Status::Own(OwnStatus::Undecodable));
    assert_eq!((of(&batch, 0).validity, of(&batch, 2).validity), (undecodable, undecodable));
    assert_eq!((of(&batch, 1).value, of(&batch, 3).value), (Value::Int(1234), Value::Bool(true)));
}

#[tokio::test]
async fn intervals_of_one_station_are_groups_of_their_own() {
    let (server, groups) = three().await;
    let mut slow = group(1, 2, &[("holding:2", "u16")]);
    slow.poll = Duration::from_secs(3600);
    let mut fast = groups[0].clone();
    fast.tags.pop();
    let mut link = Link::start(client(server.endpoint(), TIMEOUT, vec![fast, slow]));
    for _ in 0..10 {
        link.next().await;
    }
    let slow = server.take_asked().iter().filter(|asked| asked.offset == 2).count();
    assert_eq!(slow, 1);
    assert_eq!(link.state().devices.len(), 1, "one unit");
    assert_eq!(link.state().devices[0].stations.len(), 1);
}

async fn probe(endpoint: Endpoint, groups: Vec<Group>) -> Vec<Probed> {
    let mut told = Vec::new();
    client(endpoint, Duration::from_millis(300), groups).probe(&mut |one| told.push(one)).await.expect("a link");
    told
}

#[tokio::test]
async fn a_probe_asks_for_each_tag_by_itself_and_tells_every_order() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[0xFFFE, 0, 1]);
    let tags = [("holding:0", "u16"), ("holding:1", "u32"), ("holding:50", "u16"), ("holding:0.1", "bool")];
    let told = probe(server.endpoint(), vec![group(1, 0, &tags)]).await;
    assert_eq!(told.iter().map(|one| one.reading.tag.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(told[0].reading.value, Value::Int(0xFFFE));
    assert!(told[0].otherwise.contains(&("as: i16".to_owned(), Value::Int(-2))), "{:?}", told[0].otherwise);
    assert_eq!(told[1].reading.value, Value::Int(1));
    let orders: Vec<_> = told[1].otherwise.iter().map(|(order, value)| (order.as_str(), value.clone())).collect();
    let expected = [("order: CDAB", 0x1_0000), ("order: BADC", 0x100), ("order: DCBA", 0x100_0000)];
    assert_eq!(orders, expected.map(|(order, value)| (order, Value::Int(value))));
    assert_eq!(told[2].reading.validity, Validity::Bad(Status::Modbus(2)));
    assert_eq!((told[3].reading.value.clone(), told[3].otherwise.len()), (Value::Bool(true), 0));
    assert_eq!(server.take_asked().len(), 4);
}

#[tokio::test]
async fn a_probe_goes_on_after_a_unit_that_does_not_answer() {
    let (server, mut groups) = three().await;
    server.silence(Some(2));
    groups.insert(0, group(2, 3, &[("holding:0", "u16")]));
    groups[0].tags[0].id = TagId(0);
    for (tag, id) in groups[1].tags.iter_mut().zip(1..) {
        tag.id = TagId(id);
    }
    let told = probe(server.endpoint(), groups).await;
    assert_eq!(told[0].reading.validity, Validity::Bad(Status::Own(OwnStatus::NoAnswer)));
    assert_eq!(told.len(), 4);
    assert!(told[1..].iter().all(|one| one.reading.validity == Validity::Good), "{told:?}");
}

async fn browse(endpoint: Endpoint, most: usize) -> (Vec<Offered>, Result<(), LinkError>) {
    let mut found = Vec::new();
    let scope = Scope { station: "press-1".into(), listen: TIMEOUT, most };
    let timeout = Duration::from_secs(1);
    let group = Group { timeout, ..group(1, 0, &[("holding:0", "u16")]) };
    // Less gentle than without a pause: the device is ours.
    let pause = Duration::from_millis(1);
    let mut client = Client::new(Config { endpoint, timeout, pause, groups: vec![group] });
    let outcome = client.browse(&scope, &mut |one| found.push(one)).await;
    (found, outcome)
}

#[tokio::test]
async fn a_browse_finds_what_answers_in_every_table() {
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[1, 2, 3]);
    server.set_holding(1, 7, &[8]); // alone in its piece
    server.set_holding(1, 4096, &[40, 41]); // far out, on a round number
    server.set_coils(1, 16, &[true]);
    let (found, outcome) = browse(server.endpoint(), 100).await;
    outcome.expect("it answers");
    let names: Vec<_> = found.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["holding_0", "holding_1", "holding_2", "holding_7", "holding_4096", "holding_4097", "coil_16"]);
    assert_eq!(found[3].options, [("address", "holding:7".to_owned()), ("as", "u16".to_owned())]);
    assert_eq!(found[3].value, Some(Value::Int(8)));
    assert_eq!((found[6].options.len(), &found[6].value), (1, &Some(Value::Bool(true))));
    assert!(found.iter().all(|one| one.options[0].1.parse::<gemba_drivers::modbus::Address>().is_ok()));

    let (few, outcome) = browse(server.endpoint(), 2).await;
    outcome.expect("it answers");
    assert_eq!(few.len(), 2, "bounded");
}

#[tokio::test]
async fn a_browse_that_finds_nothing_says_why() {
    let server = ModbusServer::start().await.expect("a server");
    let (_, outcome) = browse(server.endpoint(), 10).await;
    let why = outcome.expect_err("no unit 1").to_string();
    assert_eq!(
        why,
        "refused: unit 1 is there and refused all of it; the last time with GatewayTargetDeviceFailedToRespond"
    );
    server.hang(true);
    let (_, outcome) = browse(server.endpoint(), 10).await;
    assert_eq!(outcome.expect_err("silence").to_string(), "unreachable: unit 1 did not answer within 1s: nothing came");
}
