//! Which services of OPC UA leave an agent, and how much they ask for at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Mode, Notifier, Pick, Policy, Tag};
use gemba_drivers::sim::opcua::OperationalLimits;
use gemba_drivers::sim::proxy::Proxy;
use gemba_drivers::supervisor::supervise;
use gemba_drivers::survey::{Scope, Survey};
use gemba_drivers::{Driver, LinkPhase, LinkState, Outlet, Status, TagId, Time, Validity, Value, treat};
use opcua::types::{BinaryDecodable, CallRequest, ContextOwned, ObjectId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::certificates::{Says, pki, secure, secure_server, secured_with, trust};
use crate::rig::{NOON, Supervised, config, server, soon, tag, until};

/// What requests there were: their types, and the methods that were called.
#[derive(Default)]
struct Seen {
    kinds: BTreeSet<u32>,
    methods: BTreeSet<String>,
}

/// Passes everything on to `to` and notes every request that goes there (OPC 10000-6, 6.7.2 and 5.2.2.9). What is signed
/// and not encrypted can be read as well.
async fn sniff(to: SocketAddr, seen: &Arc<Mutex<Seen>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(to).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                let _ = to_client.shutdown().await;
            });
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
                let _ = to_server.shutdown().await;
            });
        }
    });
    address
}

/// Takes whole chunks off `stream`; the first one of each message begins with the request's type.
fn note(stream: &mut Vec<u8>, begins: &mut bool, seen: &Mutex<Seen>) {
    while let Some(size) = stream.get(4..8).map(|size| u32::from_le_bytes(size.try_into().expect("four")) as usize) {
        if stream.len() < size {
            return;
        }
        let chunk: Vec<u8> = stream.drain(..size).collect();
        if chunk.starts_with(b"MSG") {
            if *begins {
                let (kind, body) = match chunk[24] {
                    0 => (u32::from(chunk[25]), &chunk[26..]),
                    1 => (u32::from(u16::from_le_bytes([chunk[26], chunk[27]])), &chunk[28..]),
                    other => panic!("a request whose type is written as {other}"),
                };
                let mut seen = seen.lock().expect("nobody panicked");
                seen.kinds.insert(kind);
                if kind == ObjectId::CallRequest_Encoding_DefaultBinary as u32 {
                    let context = ContextOwned::default();
                    let call = CallRequest::decode(&mut &*body, &context.context()).expect("a call");
                    seen.methods
                        .extend(call.methods_to_call.into_iter().flatten().map(|method| method.method_id.to_string()));
                }
            }
            *begins = chunk[3] == b'F';
        }
    }
}

/// A link whose history closes a gap, and that asks again for what was refused.
async fn life_with_history(seen: &Arc<Mutex<Seen>>) {
    let mut server = server([("Good", 0_i64), ("Reject", 0)]).await;
    server.keep_history().await.expect("the port is free");
    let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
    let address = sniff(cable.addr(), seen).await;
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
}

/// A link over a signed channel whose subscriptions outlive a break, with events, browse paths, fields and names.
async fn life_with_everything(seen: &Arc<Mutex<Seen>>) {
    let certificate = Says::default().made();
    let server = secure_server([("Good", 0_i64)], secure(&certificate)).await;
    server.add_machine();
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
    let address = sniff(cable.addr(), seen).await;
    let url = format!("opc.tcp://{address}/");
    let mut config = secured_with(&url, &["Good"], pki.folder(), Policy::Basic256Sha256, Mode::Sign);
    let picked = |id, node: &str, pick| Tag { pick, ..tag(id, node) };
    config.stations[0].tags.extend([
        picked(1, "/Objects/2:AOI/2:Mode", Pick { names: true, ..Pick::default() }),
        picked(2, &server.node("AOI.Result"), Pick { field: "Count".parse().ok(), ..Pick::default() }),
    ]);
    config.stations[0].events =
        vec![Notifier { node: "i=2253".parse().expect("a node"), min_severity: 1, refresh: true }];
    let mut link = Supervised::start(config.clone());
    link.first_of_each(3).await;
    cable.cut();
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;
    server.set("Good", 1_i64, NOON + Duration::from_secs(1));
    cable.resume();
    while link.next_of(TagId(0)).await.value != Value::Int(1) {}
    link.stop().await;

    let mut client = Client::new(config);
    soon(client.probe(&mut |_| {})).await.expect("it is there");
    let scope = Scope { station: "aoi-1".into(), listen: Duration::ZERO, most: 1_000 };
    soon(client.browse(&scope, &mut |_| {})).await.expect("it is there");
    soon(client.close()).await;
}

/// A link with a tag that is silent, and is looked at.
async fn life_in_silence(seen: &Arc<Mutex<Seen>>) {
    let server = server([("Good", 0_i64)]).await;
    let address = sniff(([127, 0, 0, 1], server.port()).into(), seen).await;
    let config = config(&format!("opc.tcp://{address}/"), &["Good"]);
    let options = treat::Options { max_age: Some(Duration::from_millis(300)), ..treat::Options::default() };
    let treated = vec![(TagId(0), options)];
    let station = treat::Station { name: "aoi-1".into(), tags: 0..1, treated, max_clock_skew: None };
    let (to, mut batches) = tokio::sync::mpsc::channel(64);
    let (state, states) = tokio::sync::watch::channel(LinkState::new(Time::now()));
    let treatment = treat::Treatment::new(&treat::Plan { stations: vec![station] });
    let outlet = Outlet::new(to, Arc::new(state)).treating(treatment);
    let stop = CancellationToken::new();
    let task = tokio::spawn(supervise(Client::new(config), "silent".to_owned(), outlet, stop.clone()));
    soon(batches.recv()).await.expect("the link goes on");
    let told = states.borrow().alive;
    until("it stands, and the server says so", || states.borrow().alive > told).await;
    stop.cancel();
    soon(task).await.expect("it ended well");
}

/// A set of servers of which one is lost.
async fn life_of_a_set(seen: &Arc<Mutex<Seen>>) {
    let (mut first, second) = (server([("Good", 1_i64)]).await, server([("Good", 2_i64)]).await);
    let mut urls = Vec::new();
    for port in [first.port(), second.port()] {
        urls.push(format!("opc.tcp://{}/", sniff(([127, 0, 0, 1], port).into(), seen).await));
    }
    let config = Config { spares: vec![urls[1].clone()], ..config(&urls[0], &["Good"]) };
    let mut link = Supervised::start(config);
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Int(1));
    first.stop().await;
    while link.next_of(TagId(0)).await.value != Value::Int(2) {}
    link.stop().await;
}

#[tokio::test]
async fn no_service_that_writes_ever_leaves_a_link() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    life_with_history(&seen).await;
    Box::pin(life_with_everything(&seen)).await;
    life_in_silence(&seen).await;
    life_of_a_set(&seen).await;

    let names = [
        ObjectId::GetEndpointsRequest_Encoding_DefaultBinary,
        ObjectId::CreateSessionRequest_Encoding_DefaultBinary,
        ObjectId::ActivateSessionRequest_Encoding_DefaultBinary,
        ObjectId::CloseSessionRequest_Encoding_DefaultBinary,
        ObjectId::ReadRequest_Encoding_DefaultBinary,
        ObjectId::HistoryReadRequest_Encoding_DefaultBinary,
        ObjectId::BrowseRequest_Encoding_DefaultBinary,
        ObjectId::TranslateBrowsePathsToNodeIdsRequest_Encoding_DefaultBinary,
        ObjectId::CreateSubscriptionRequest_Encoding_DefaultBinary,
        ObjectId::CreateMonitoredItemsRequest_Encoding_DefaultBinary,
        ObjectId::PublishRequest_Encoding_DefaultBinary,
        ObjectId::TransferSubscriptionsRequest_Encoding_DefaultBinary,
        ObjectId::CallRequest_Encoding_DefaultBinary,
    ];
    let expected: BTreeSet<u32> = names.into_iter().map(|name| name as u32).collect();
    let mut seen = seen.lock().expect("nobody panicked");
    // It makes the server tell a message again: only where a cut caught one on its way.
    seen.kinds.remove(&(ObjectId::RepublishRequest_Encoding_DefaultBinary as u32));
    assert_eq!(seen.kinds, expected, "these, and nothing else");
    let refresh = BTreeSet::from(["i=3875".to_owned()]);
    assert_eq!(seen.methods, refresh, "ConditionRefresh, which changes nothing at a device");
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
