//! Which services of OPC UA leave an agent, and how much they ask for at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemba_drivers::opcua::Client;
use gemba_drivers::sim::opcua::OperationalLimits;
use gemba_drivers::sim::proxy::Proxy;
use gemba_drivers::{LinkPhase, Status, TagId, Validity, Value};
use opcua::types::ObjectId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{NOON, Supervised, config, server, until};

/// Passes everything on to `to` and notes the type of every request that goes there (OPC 10000-6, 6.7.2 and 5.2.2.9).
async fn sniff(to: SocketAddr) -> (Arc<Mutex<BTreeSet<u32>>>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(to).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let noted = noted.clone();
            tokio::spawn(async move {
                let (mut stream, mut buffer, mut begins) = (Vec::new(), vec![0; 64 << 10], true);
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    stream.extend_from_slice(&buffer[..read]);
                    note(&mut stream, &mut begins, &noted);
                    if to_server.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (seen, address)
}

/// Takes whole chunks off `stream`; the first one of each message begins with the request's type.
fn note(stream: &mut Vec<u8>, begins: &mut bool, seen: &Mutex<BTreeSet<u32>>) {
    while let Some(size) = stream.get(4..8).map(|size| u32::from_le_bytes(size.try_into().expect("four")) as usize) {
        if stream.len() < size {
            return;
        }
        let chunk: Vec<u8> = stream.drain(..size).collect();
        if chunk.starts_with(b"MSG") {
            if *begins {
                let kind = match chunk[24] {
                    0 => u32::from(chunk[25]),
                    1 => u32::from(u16::from_le_bytes([chunk[26], chunk[27]])),
                    other => panic!("a request whose type is written as {other}"),
                };
                seen.lock().expect("nobody panicked").insert(kind);
            }
            *begins = chunk[3] == b'F';
        }
    }
}

#[tokio::test]
async fn no_service_that_writes_ever_leaves_a_link() {
    let mut server = server([("Good", 0_i64), ("Reject", 0)]).await;
    server.keep_history().await.expect("the port is free");
    let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
    let (seen, address) = sniff(cable.addr()).await;
    let config = config(&format!("opc.tcp://{address}/"), &["Good", "Reject", "Nowhere"]);
    let name = config.endpoint.clone();
    let client = Client::new(config).asking_again_every(Duration::from_millis(50));
    let mut link = Supervised::start_client(client, name);
    link.first_of_each(3).await;
    cable.cut();
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;
    server.set("Good", 1_i64, NOON);
    cable.resume();
    while link.batch().await.backfills.is_empty() {}
    server.set("Good", 2_i64, NOON + Duration::from_secs(1));
    while link.next_of(TagId(0)).await.value != Value::Int(2) {}
    link.stop().await;

    let names = [
        ObjectId::GetEndpointsRequest_Encoding_DefaultBinary,
        ObjectId::CreateSessionRequest_Encoding_DefaultBinary,
        ObjectId::ActivateSessionRequest_Encoding_DefaultBinary,
        ObjectId::CloseSessionRequest_Encoding_DefaultBinary,
        ObjectId::ReadRequest_Encoding_DefaultBinary,
        ObjectId::HistoryReadRequest_Encoding_DefaultBinary,
        ObjectId::CreateSubscriptionRequest_Encoding_DefaultBinary,
        ObjectId::CreateMonitoredItemsRequest_Encoding_DefaultBinary,
        ObjectId::PublishRequest_Encoding_DefaultBinary,
    ];
    let expected: BTreeSet<u32> = names.into_iter().map(|name| name as u32).collect();
    assert_eq!(*seen.lock().expect("nobody panicked"), expected, "these, and nothing else");
}

#[tokio::test]
async fn a_server_that_takes_little_at_once_is_asked_for_little() {
    const MANY: usize = 23;
    let names: Vec<String> = (0..MANY).map(|node| format!("N{node}")).collect();
    let mut server = server(names.iter().map(|name| (name.as_str(), 0_i64))).await;
    server.keep_history().await.expect("the port is free");
    let little = OperationalLimits {
        max_nodes_per_read: 3,
        max_nodes_per_history_read_data: 2,
        max_monitored_items_per_call: 4,
        ..OperationalLimits::default()
    };
    // Which it does not tell: a subscription that is full refuses.
    server.limit(little, 10).await.expect("the port is free");
    let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut link = Supervised::start(config(&format!("opc.tcp://{}/", cable.addr()), &names));
    let first = link.first_of_each(MANY).await;
    assert!(first.values().all(|reading| reading.validity == Validity::Good), "{first:?}");

    cable.cut();
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;
    server.set_values((0..MANY).map(|node| (node, Value::Int(1))), NOON);
    cable.resume();
    let mut news = BTreeSet::new();
    let batch = loop {
        let batch = link.batch().await;
        for reading in batch.readings.iter().filter(|reading| reading.value == Value::Int(1)) {
            assert!(reading.backfilled && news.insert(reading.tag), "once: {reading:?}");
        }
        if !batch.backfills.is_empty() {
            break batch;
        }
    };
    assert_eq!((news.len(), batch.backfills[0].count), (MANY, 2 * MANY as u64));
    assert!(batch.losses.is_empty(), "{:?}", batch.losses);
    let (reads, _) = server.history_given();
    assert!(reads >= MANY.div_ceil(2) as u32, "{reads}");
    link.stop().await;
}

#[tokio::test]
async fn what_was_refused_is_asked_for_again_without_a_reconnect() {
    let server = server([("Good", 1_i64), ("Later", 2)]).await;
    server.hide("Later", true);
    let config = config(&server.endpoint(), &["Good", "Later"]);
    let name = config.endpoint.clone();
    let client = Client::new(config).asking_again_every(Duration::from_millis(30));
    let mut link = Supervised::start_client(client, name);
    let first = link.first_of_each(2).await;
    assert_eq!(first[&TagId(1)].validity, Validity::Bad(Status::Opcua(0x8034_0000)));
    server.hide("Later", false);
    let later = link.next_of(TagId(1)).await;
    assert_eq!((later.value, later.validity), (Value::Int(2), Validity::Good), "and the refusal was told once");
    assert_eq!(link.state().connects, 1);
    link.stop().await;
}

#[tokio::test]
async fn what_appears_when_a_subscription_is_full_goes_into_another() {
    let mut server = server([("Good", 1_i64), ("Reject", 2), ("Later", 3), ("Last", 4), ("Spare", 5)]).await;
    server.limit(OperationalLimits::default(), 2).await.expect("the port is free");
    let late = [(TagId(2), "Later"), (TagId(3), "Last"), (TagId(4), "Spare")];
    late.iter().for_each(|(_, name)| server.hide(name, true));
    let config = config(&server.endpoint(), &["Good", "Reject", "Later", "Last", "Spare"]);
    let name = config.endpoint.clone();
    let client = Client::new(config).asking_again_every(Duration::from_millis(30));
    let mut link = Supervised::start_client(client, name);
    link.first_of_each(5).await;
    for (tag, name) in late {
        server.hide(name, false);
        assert_eq!(link.next_of(tag).await.validity, Validity::Good, "{name}");
    }
    server.set("Later", 5_i64, NOON);
    assert_eq!(link.next_of(TagId(2)).await.value, Value::Int(5));
    assert_eq!(link.state().connects, 1);
    link.stop().await;
}
