//! The MQTT driver against a broker on loopback, under the supervisor.

mod fieldbus;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fieldbus::{Link, all_good, of};
use gemba_drivers::mqtt::{Client, Config, Credentials, Fields, Payload, Topic, TopicTag, Version};
use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_drivers::sim::mqtt::{Broker, Options, Publisher, endpoint};
use gemba_drivers::sim::proxy::Proxy;
use gemba_drivers::{
    Batch, Deliveries, Delivery, Keep, LinkPhase, OwnStatus, Receipt, Status, TagId, Time, Validity, Value,
};
use serde_json_path::JsonPath;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const TOPIC: &str = "fab-2/oven-1/telemetry";

fn tag(id: u32, path: &str, numeric: bool) -> TopicTag<JsonPath> {
    let name = format!("tag-{id}").into();
    TopicTag { id: TagId(id), name, place: path.parse().expect("a path"), required: false, numeric }
}

fn json(tags: Vec<TopicTag<JsonPath>>) -> Payload {
    Payload::Json(Fields { time: None, tags })
}

/// What a receipt says of a message.
fn delivery(receipt: &Receipt) -> Delivery {
    let Keep::Delivery(delivery) = receipt.keep().1 else { panic!("{receipt:?}") };
    *delivery
}

/// `$.state` as tag 0, `$.count` as tag 1 (a counter), `$.zones[0].temp` as tag 2.
fn oven() -> Topic {
    Topic {
        station: "oven-1".into(),
        filter: TOPIC.to_owned(),
        qos: 1,
        payload: json(vec![tag(0, "$.state", false), tag(1, "$.count", true), tag(2, "$.zones[0].temp", false)]),
    }
}

fn config(addr: SocketAddr, version: Version) -> Config {
    let timeout = Duration::from_secs(10);
    let (max_payload, topics) = (100_000, vec![oven()]);
    Config { version, timeout, max_payload, topics, ..Config::new(endpoint(addr), "gemba-smt-1") }
}

async fn broker(version: Version) -> (Broker, Publisher) {
    let broker = Broker::with(Options { version, ..Options::default() }).await.expect("a broker");
    let publisher = Publisher::new(broker.addr(), version, "oven");
    (broker, publisher)
}

/// Publishes `{"count":n}` for each n.
async fn count(publisher: &mut Publisher, counts: impl IntoIterator<Item = i64>) {
    for count in counts {
        publisher.publish(TOPIC, format!(r#"{{"count":{count}}}"#)).await.expect("published");
    }
}

/// Whether the batch is to be acknowledged. The word that a session begins is durable at once.
fn begun(batch: &Batch) -> bool {
    let begins = |receipt: &&Receipt| *receipt.keep().1 == Keep::Delivery(Delivery::BEGIN);
    batch.receipt.iter().filter(begins).for_each(|receipt| receipt.clone().sign());
    batch.receipt.is_some()
}

/// The next `N` batches' counts, and their receipts.
async fn counts<const N: usize>(link: &mut Link) -> ([i64; N], Vec<Receipt>) {
    let mut counts = [0; N];
    let mut receipts = Vec::new();
    for count in &mut counts {
        let mut batch = link.until(|batch| (begun(batch) && !batch.readings.is_empty()).then(|| clone(batch))).await;
        let Value::Int(whole) = of(&batch, 1).value else { panic!("no count in {batch:?}") };
        *count = whole;
        receipts.extend(batch.receipt.take());
    }
    (counts, receipts)
}

fn clone(batch: &Batch) -> Batch {
    Batch {
        readings: batch.readings.clone(),
        losses: batch.losses.clone(),
        events: batch.events.clone(),
        receipt: batch.receipt.clone(),
        ..Batch::default()
    }
}

#[tokio::test]
async fn a_payload_is_one_batch_with_a_receipt() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let mut link = Link::start(Client::new(config(broker.addr(), Version::V311)));
    link.until_connected().await;
    let before = Time::now();
    publisher.publish(TOPIC, r#"{"state":"running","count":7,"zones":[{"temp":251.5}]}"#).await.expect("published");
    let batch = link.next().await;
    assert!(all_good(&batch) && batch.losses.is_empty() && batch.receipt.is_some(), "{batch:?}");
    assert_eq!(of(&batch, 0).value, Value::Text("running".into()));
    assert_eq!(of(&batch, 1).value, Value::Int(7));
    assert_eq!(of(&batch, 2).value, Value::Float(251.5));
    for reading in &batch.readings {
        assert_eq!(reading.source_time, reading.received_time);
        assert!((before..=Time::now()).contains(&reading.received_time));
    }
}

async fn what_is_not_signed_comes_again(version: Version) {
    let (broker, mut publisher) = broker(version).await;
    let proxy = Proxy::to(broker.addr()).await.expect("a proxy");
    let mut link = Link::start(Client::new(config(proxy.addr(), version)));
    link.until_connected().await;
    count(&mut publisher, 1..=3).await;
    let (first, old_receipts) = counts::<3>(&mut link).await;
    assert_eq!(first, [1, 2, 3]);

    proxy.cut();
    link.until_lost().await;
    proxy.resume();
    assert_eq!(counts::<3>(&mut link).await.0, [1, 2, 3], "none was signed");

    // Signatures that come late are for messages of the old connection: they acknowledge nothing of the new.
    old_receipts.into_iter().for_each(Receipt::sign);
    proxy.cut();
    link.until_lost().await;
    proxy.resume();
    let (again, receipts) = counts::<3>(&mut link).await;
    assert_eq!(again, [1, 2, 3]);

    // The last signature speaks for those before it. rumqttd has at most 100 in flight, so that 250 more
    // pass only if it hears of each.
    receipts.into_iter().next_back().expect("three").sign();
    count(&mut publisher, 4..=253).await;
    for expected in 4..=253 {
        let ([count], receipts) = counts::<1>(&mut link).await;
        assert_eq!(count, expected);
        receipts.into_iter().for_each(Receipt::sign);
    }
    proxy.cut();
    link.until_lost().await;
    proxy.resume();
    count(&mut publisher, [1000]).await;
    let mut expected_next = None;
    loop {
        let ([count], _) = counts::<1>(&mut link).await;
        // What the cut may have swallowed is the end of the acknowledgements, so the end comes again, in order.
        assert!(count > 153, "{count} was acknowledged long ago");
        assert!(expected_next.is_none_or(|next| count == next || count == 1000), "{count}");
        if count == 1000 {
            break;
        }
        expected_next = Some(count + 1);
    }
}

#[tokio::test]
async fn what_is_not_signed_comes_again_in_3_1_1() {
    what_is_not_signed_comes_again(Version::V311).await;
}

#[tokio::test]
async fn what_is_not_signed_comes_again_in_5() {
    what_is_not_signed_comes_again(Version::V5).await;
}

async fn bad_payloads_are_losses_and_disturb_nothing(version: Version) {
    let (broker, mut publisher) = broker(version).await;
    let mut link = Link::start(Client::new(config(broker.addr(), version)));
    link.until_connected().await;
    let oversize = format!(r#"{{"count":1,"pad":"{}"}}"#, "x".repeat(200_000));
    for (payload, reason) in [
        ("not json", "the payload is not JSON"),
        (r#"{"other":1}"#, "no tag of the topic is in the payload"),
        (oversize.as_str(), "the payload is larger than max_payload"),
    ] {
        publisher.publish(TOPIC, payload).await.expect("published");
        let batch = link.next().await;
        assert!(batch.readings.is_empty(), "the tags stay as they were: {batch:?}");
        let [loss] = batch.losses.as_slice() else { panic!("one loss in {batch:?}") };
        assert_eq!((&*loss.source, loss.count, &*loss.reason), ("oven-1", 1, reason));
        assert_eq!(loss.from, loss.to);
        batch.receipt.expect("to be acknowledged, or it comes for ever").sign();
    }
    publisher.publish(TOPIC, r#"{"count":"seven","state":"running"}"#).await.expect("published");
    let batch = link.next().await;
    assert_eq!(of(&batch, 0).validity, Validity::Good);
    assert_eq!(of(&batch, 1).validity, Validity::Bad(Status::Own(OwnStatus::WrongType)));
    assert_eq!(batch.readings.len(), 2, "the temperature stays as it was");
    assert!(batch.losses.is_empty());
    assert_eq!(link.state().connects, 1);
}

#[tokio::test]
async fn bad_payloads_are_losses_and_disturb_nothing_in_3_1_1() {
    bad_payloads_are_losses_and_disturb_nothing(Version::V311).await;
}

#[tokio::test]
async fn bad_payloads_are_losses_and_disturb_nothing_in_5() {
    bad_payloads_are_losses_and_disturb_nothing(Version::V5).await;
}

#[tokio::test]
async fn stations_share_a_session_and_quality_0_needs_no_receipt() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let mut config = config(broker.addr(), Version::V311);
    config.topics[0].qos = 0;
    config.topics.push(Topic {
        station: "oven-2".into(),
        filter: "fab-2/+/other".to_owned(),
        qos: 2,
        payload: json(vec![tag(3, "$.count", true)]),
    });
    let mut link = Link::start(Client::new(config));
    link.until_connected().await;
    count(&mut publisher, [1]).await;
    let batch = link.next().await;
    assert!(batch.receipt.is_none() && of(&batch, 1).value == Value::Int(1), "{batch:?}");
    publisher.publish("fab-2/oven-2/other", r#"{"count":2}"#).await.expect("published");
    let batch = link.next().await;
    assert!(batch.receipt.is_some() && of(&batch, 3).value == Value::Int(2), "{batch:?}");
}

#[tokio::test]
async fn a_restart_finds_what_was_not_signed_and_what_came_meanwhile() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let mut link = Link::start(Client::new(config(broker.addr(), Version::V311)));
    link.until_connected().await;
    count(&mut publisher, [1]).await;
    assert_eq!(counts::<1>(&mut link).await.0, [1]);
    link.stop().await;
    count(&mut publisher, [2]).await;
    let mut link = Link::start(Client::new(config(broker.addr(), Version::V311)));
    assert_eq!(counts::<2>(&mut link).await.0, [1, 2]);
}

#[tokio::test]
async fn a_topic_of_an_older_configuration_is_done_with() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let mut older = config(broker.addr(), Version::V311);
    older.topics.push(Topic { filter: "old".to_owned(), ..oven() });
    let link = Link::start(Client::new(older));
    link.until_connected().await;
    link.stop().await;
    // More than the broker has in flight: they block the line unless they are acknowledged.
    for _ in 0..150 {
        publisher.publish("old", "{}").await.expect("published");
    }
    count(&mut publisher, [7]).await;
    let mut link = Link::start(Client::new(config(broker.addr(), Version::V311)));
    for expected in [7, 8] {
        let (counts, receipts) = counts::<1>(&mut link).await;
        assert_eq!(counts, [expected]);
        receipts.into_iter().for_each(Receipt::sign); // acknowledgements keep their order
        for _ in 0..150 {
            publisher.publish("old", "{}").await.expect("published");
        }
        count(&mut publisher, [8]).await;
    }
}

#[tokio::test]
async fn a_broker_that_is_down_at_start_comes_when_it_comes() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let proxy = Proxy::to(broker.addr()).await.expect("a proxy");
    proxy.cut();
    let mut link = Link::start(Client::new(config(proxy.addr(), Version::V311)));
    let down = link.until_state(|state| state.phase == LinkPhase::Disconnected).await;
    assert!(down.last_error.expect("why").starts_with("unreachable: "));
    assert_eq!((down.connects, down.alive), (0, None));
    proxy.resume();
    link.until_connected().await;
    count(&mut publisher, [1]).await;
    assert_eq!(counts::<1>(&mut link).await.0, [1]);
}

#[tokio::test]
async fn a_cut_is_dated_from_the_last_proof_of_life() {
    let (broker, mut publisher) = broker(Version::V311).await;
    let proxy = Proxy::to(broker.addr()).await.expect("a proxy");
    let mut link = Link::start(Client::new(config(proxy.addr(), Version::V311)));
    link.until_connected().await;
    count(&mut publisher, [1]).await;
    let batch = link.next().await;
    proxy.cut();
    let lost = link.until_lost().await;
    let down = link.until_state(|state| state.phase == LinkPhase::Disconnected && state.connects == 1).await;
    assert_eq!(lost.iter().map(|reading| reading.tag).collect::<Vec<_>>(), [TagId(0), TagId(1), TagId(2)]);
    for reading in &lost {
        assert_eq!(Some(reading.source_time), down.alive);
        assert!(reading.source_time >= of(&batch, 1).received_time);
    }
}

#[tokio::test]
async fn a_ping_is_a_sign_of_life() {
    let (broker, _publisher) = broker(Version::V311).await;
    let mut config = config(broker.addr(), Version::V311);
    config.keep_alive = Duration::from_secs(1);
    let link = Link::start(Client::new(config));
    let connected = link.until_connected().await.alive.expect("just connected");
    let pinged = async {
        while link.state().alive.expect("alive") < connected + Duration::from_millis(900) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(fieldbus::DEADLINE, pinged).await.expect("a ping in time");
    assert_eq!(link.state().phase, LinkPhase::Connected);
}

async fn a_black_hole_is_found_by_the_ping(version: Version) {
    let broker = Broker::with(Options { version, ..Options::default() }).await.expect("a broker");
    let mut publisher = Publisher::new(broker.addr(), version, "oven");
    let proxy = Proxy::to(broker.addr()).await.expect("a proxy");
    let mut config = config(proxy.addr(), version);
    config.keep_alive = Duration::from_secs(1);
    config.timeout = Duration::from_secs(1);
    let mut link = Link::start(Client::new(config));
    link.until_connected().await;
    proxy.swallow();
    assert_eq!(link.until_lost().await.len(), 3);
    let down = link.until_state(|state| state.phase == LinkPhase::Disconnected).await;
    assert_eq!(down.last_error.as_deref(), Some("link broke: the broker answers no ping"));
    proxy.resume();
    link.until_state(|state| state.phase == LinkPhase::Connected && state.connects == 2).await;
    count(&mut publisher, [7]).await;
    assert_eq!(counts::<1>(&mut link).await.0, [7]);
}

#[tokio::test]
async fn a_black_hole_is_found_by_the_ping_in_3_1_1() {
    a_black_hole_is_found_by_the_ping(Version::V311).await;
}

#[tokio::test]
async fn a_black_hole_is_found_by_the_ping_in_5() {
    a_black_hole_is_found_by_the_ping(Version::V5).await;
}

/// A peer that says `answers`, one after each packet it gets, and then nothing.
async fn peer(answers: &'static [&'static [u8]]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in answers {
                if packet(&mut stream).await.is_none() || stream.write_all(answer).await.is_err() {
                    break;
                }
            }
            while packet(&mut stream).await.is_some() {}
        }
    });
    addr
}

/// Reads one packet of less than 128 bytes.
async fn packet(stream: &mut TcpStream) -> Option<()> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let mut body = vec![0; head[1].into()];
    stream.read_exact(&mut body).await.ok().map(|_| ())
}

async fn error_from(config: Config) -> String {
    let link = Link::start(Client::new(config));
    link.until_state(|state| state.last_error.is_some()).await.last_error.expect("why")
}

#[tokio::test]
async fn a_broker_that_refuses_us_says_why() {
    let not_authorised = peer(&[&[0x20, 2, 0, 5]]).await;
    let error = error_from(config(not_authorised, Version::V311)).await;
    assert_eq!(error, "refused: the broker says NotAuthorized");

    let bad_password = peer(&[&[0x20, 3, 0, 0x86, 0]]).await;
    let error = error_from(config(bad_password, Version::V5)).await;
    assert_eq!(error, "refused: the broker says BadUserNamePassword");

    let busy = peer(&[&[0x20, 2, 0, 3]]).await;
    let error = error_from(config(busy, Version::V311)).await;
    assert_eq!(error, "unreachable: the broker is not available", "which may pass");
}

#[tokio::test]
async fn a_password_opens_the_broker() {
    let users = [("gemba".to_owned(), "right".to_owned())].into();
    let broker = Broker::with(Options { users, ..Options::default() }).await.expect("a broker");
    let with = |password: &str| {
        let credentials = Credentials { username: "gemba".to_owned(), password: password.to_owned() };
        Config { credentials: Some(credentials), ..config(broker.addr(), Version::V311) }
    };
    let error = error_from(with("wrong")).await;
    assert!(error.ends_with("before it let us in") && !error.contains("wrong"), "rumqttd just hangs up: {error}");
    Link::start(Client::new(with("right"))).until_connected().await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up() {
    let silent = peer(&[]).await;
    let config = Config { timeout: Duration::from_millis(200), ..config(silent, Version::V311) };
    assert_eq!(error_from(config).await, "unreachable: no answer within 200ms");
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_not_believed() {
    let http = peer(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"]).await;
    let config = Config { timeout: Duration::from_millis(500), ..config(http, Version::V311) };
    let error = error_from(config).await;
    assert!(error.starts_with("unreachable: "), "{error}");
}

#[tokio::test]
async fn a_refused_topic_makes_its_tags_bad_and_no_others() {
    let (connack, suback): (&[u8], &[u8]) = (&[0x20, 2, 0, 0], &[0x90, 4, 0, 1, 1, 0x80]);
    let answers: &'static [&'static [u8]] = Box::leak(Box::new([connack, suback]));
    let mut one = config(peer(answers).await, Version::V311);
    one.topics.push(Topic { filter: "forbidden".to_owned(), payload: json(vec![tag(3, "$", false)]), ..oven() });
    let mut link = Link::start(Client::new(one));
    let batch = link.next().await;
    assert_eq!(batch.readings.len(), 1);
    assert_eq!(of(&batch, 3).validity, Validity::Bad(Status::Own(OwnStatus::Refused)));
    assert_eq!(link.state().phase, LinkPhase::Connected);

    let all = peer(&[&[0x20, 2, 0, 0], &[0x90, 3, 0, 1, 0x80]]).await;
    let error = error_from(config(all, Version::V311)).await;
    assert_eq!(error, format!("refused: the broker does not let us subscribe to `{TOPIC}`"));
}

/// A TLS front for `to` on loopback, and the PEM of the certificate it shows.
async fn tls_front(to: SocketAddr) -> (SocketAddr, String) {
    // As the binary does at its start; another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("they fit");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let (mut near, mut far) = (acceptor.accept(stream).await.ok()?, TcpStream::connect(to).await.ok()?);
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok()
            });
        }
    });
    (addr, own.cert.pem())
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to() {
    for version in [Version::V311, Version::V5] {
        let (broker, mut publisher) = broker(version).await;
        let (front, trusted) = tls_front(broker.addr()).await;
        let (_, stranger) = tls_front(broker.addr()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let with = |name: &str, pem: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, pem).expect("written");
            let mut config = Config { ca_file: Some(path), ..config(front, version) };
            config.endpoint.tls = true;
            config
        };
        let none = format!("refused: ca_file {}: ", folder.path().join("none.pem").display());
        for (name, pem, why) in
            [("stranger.pem", stranger.as_str(), "refused: TLS: "), ("none.pem", "nothing", none.as_str())]
        {
            let error = error_from(with(name, pem)).await;
            assert!(error.starts_with(why), "{name}: {error}");
        }
        let mut link = Link::start(Client::new(with("trusted.pem", &trusted)));
        link.until_connected().await;
        count(&mut publisher, [1]).await;
        assert_eq!(counts::<1>(&mut link).await.0, [1]);
    }
}

#[tokio::test]
async fn tls_needs_authorities_that_can_be_read() {
    let mut config = config(peer(&[]).await, Version::V311);
    config.endpoint.tls = true;
    config.ca_file = Some("/nowhere/ca.pem".into());
    let error = error_from(config).await;
    assert!(error.starts_with("refused: ca_file /nowhere/ca.pem: "), "{error}");
}

/// A broker that sends again as the protocol says, and a link to it. (rumqttd sends again without DUP, under new
/// packet identifiers: to anybody these are new messages.)
async fn kept(version: Version) -> (Keeper, Config) {
    let keeper = Keeper::start().await.expect("a broker");
    let config = Config { endpoint: keeper.endpoint(), ..config(([127, 0, 0, 1], 0).into(), version) };
    (keeper, config)
}

/// `{"count":n}` for each n; the packet identifiers.
fn keep(keeper: &Keeper, counts: impl IntoIterator<Item = i64>) -> Vec<u16> {
    counts.into_iter().map(|count| keeper.publish(TOPIC, format!(r#"{{"count":{count}}}"#))).collect()
}

async fn until(keeper: &Keeper, wanted: impl FnMut(&State) -> bool) -> State {
    tokio::time::timeout(fieldbus::DEADLINE, keeper.until(wanted)).await.expect("the broker's state in time")
}

/// Every packet that was sent with DUP.
fn again(state: &State) -> Vec<u16> {
    state.sent.iter().filter_map(|(packet, dup)| dup.then_some(*packet)).collect()
}

async fn a_message_that_comes_again_is_acknowledged_and_not_read_again(version: Version) {
    let (keeper, config) = kept(version).await;
    let mut link = Link::start(Client::new(config));
    link.until_connected().await;
    keeper.set_deaf(true);
    let packets = keep(&keeper, 1..=5);
    let (first, mut receipts) = counts::<5>(&mut link).await;
    assert_eq!(first, [1, 2, 3, 4, 5]);

    // Two are durable, and their acknowledgements get lost. Three are on their way to the disk.
    let late = receipts.split_off(2);
    receipts.into_iter().for_each(Receipt::sign);
    until(&keeper, |state| state.acknowledged == packets[..2]).await;
    keeper.set_deaf(false);
    keeper.cut();
    link.until_lost().await;
    let state = until(&keeper, |state| state.held.len() == 3).await;
    assert_eq!(again(&state), packets, "the broker sends all of them again");
    assert_eq!(state.acknowledged[2..], packets[..2], "what is durable is acknowledged at once, and nothing else");
    late.into_iter().for_each(Receipt::sign);
    until(&keeper, |state| state.held.is_empty() && state.acknowledged[2..] == packets).await;

    // None of them was delivered again: the next thing that comes is new, be it as an old one was in every way.
    keeper.publish_as(packets[2], TOPIC, r#"{"count":3}"#);
    let (new, receipts) = counts::<1>(&mut link).await;
    assert_eq!(new, [3]);
    receipts.into_iter().for_each(Receipt::sign);
    until(&keeper, |state| state.held.is_empty()).await;
}

#[tokio::test]
async fn a_message_that_comes_again_is_acknowledged_and_not_read_again_in_3_1_1() {
    a_message_that_comes_again_is_acknowledged_and_not_read_again(Version::V311).await;
}

#[tokio::test]
async fn a_message_that_comes_again_is_acknowledged_and_not_read_again_in_5() {
    a_message_that_comes_again_is_acknowledged_and_not_read_again(Version::V5).await;
}

#[tokio::test]
async fn what_a_process_before_us_made_durable_is_known_and_nothing_else_is() {
    let (keeper, config) = kept(Version::V311).await;
    let mut link = Link::start(Client::new(config.clone()));
    link.until_connected().await;
    let packets = keep(&keeper, 1..=3);
    let (_, receipts) = counts::<3>(&mut link).await;
    let mut durable = Deliveries::default();
    for receipt in &receipts[..2] {
        assert_eq!(**receipt.keep().0, config.session());
        durable.push(delivery(receipt));
    }
    assert!(durable.last(2).map(|delivery| delivery.anew).eq([true, false]), "the first of a session says so");
    drop(link); // as a kill does: nothing was acknowledged, two of three were committed

    let mut link = Link::start(Client::new(config.clone()).having(durable));
    let (counted, receipts) = counts::<1>(&mut link).await;
    assert_eq!(counted, [3]);
    let state = until(&keeper, |state| state.held.len() == 1).await;
    assert_eq!((again(&state), &state.acknowledged), (packets.clone(), &packets[..2].to_vec()));
    receipts.into_iter().for_each(Receipt::sign);
    until(&keeper, |state| state.held.is_empty()).await;

    // The same identifier and DUP, but a message that never arrived: its content tells.
    link.stop().await;
    let mut known = Deliveries::default();
    (1..=9).for_each(|packet| known.push(Delivery { packet, digest: 7, anew: false }));
    let mut stranger = Link::start(Client::new(config.clone()));
    stranger.until_connected().await;
    let packets = keep(&keeper, [4]);
    assert_eq!(counts::<1>(&mut stranger).await.0, [4]);
    drop(stranger);
    let mut link = Link::start(Client::new(config).having(known));
    assert_eq!(counts::<1>(&mut link).await.0, [4]);
    assert!(again(&until(&keeper, |_| true).await).ends_with(&packets));
}

#[tokio::test]
async fn a_session_that_the_broker_lost_begins_anew() {
    let (keeper, config) = kept(Version::V5).await;
    let mut link = Link::start(Client::new(config));
    link.until_connected().await;
    keep(&keeper, [1]);
    let (_, receipts) = counts::<1>(&mut link).await;
    receipts.into_iter().for_each(Receipt::sign);
    until(&keeper, |state| state.held.is_empty()).await;
    keeper.forget();
    link.until_lost().await;
    assert_eq!(keep(&keeper, [1]), [1], "identifiers begin anew");
    let (counted, receipts) = counts::<1>(&mut link).await;
    assert_eq!(counted, [1]);
    assert!(delivery(&receipts[0]).anew);
}

#[tokio::test]
async fn a_new_session_voids_what_is_stored_before_a_message_can_come() {
    let (keeper, config) = kept(Version::V311).await;
    let mut link = Link::start(Client::new(config.clone()));
    link.until_connected().await;
    assert_eq!(keep(&keeper, [1]), [1]);
    let mut stored = Deliveries::default();
    for receipt in counts::<1>(&mut link).await.1 {
        stored.push(delivery(&receipt));
        receipt.sign();
    }
    until(&keeper, |state| state.held.is_empty()).await;
    link.stop().await;
    keeper.forget();

    let mut link = Link::start(Client::new(config.clone()).having(stored.clone()));
    let begins = |batch: &Batch| batch.receipt.clone().filter(|receipt| matches!(receipt.keep().1, Keep::Delivery(_)));
    let receipt = link.until(begins).await;
    assert_eq!(delivery(&receipt), Delivery::BEGIN);
    assert!(until(&keeper, |_| true).await.subscribed.is_empty(), "not before it is durable");
    stored.push(delivery(&receipt));
    receipt.sign();
    until(&keeper, |state| !state.subscribed.is_empty()).await;
    assert_eq!(keep(&keeper, [1]), [1], "the same words under the same identifier");
    assert_eq!(counts::<1>(&mut link).await.0, [1]);
    drop(link); // as a kill does, before the message is durable

    let mut link = Link::start(Client::new(config).having(stored));
    assert_eq!(counts::<1>(&mut link).await.0, [1]);
    assert_eq!(again(&until(&keeper, |_| true).await), [1]);
}

async fn a_stop_acknowledges_what_becomes_durable_meanwhile(version: Version) {
    let (keeper, config) = kept(version).await;
    let mut link = Link::start(Client::new(config));
    link.until_connected().await;
    let packets = keep(&keeper, 1..=3);
    let (_, receipts) = counts::<3>(&mut link).await;
    let stopped = tokio::spawn(link.stop());
    // The pipeline goes on while the driver says goodbye; the last commit comes late.
    receipts.into_iter().for_each(Receipt::sign);
    stopped.await.expect("no panic");
    let state = until(&keeper, |state| state.held.is_empty()).await;
    assert_eq!(state.acknowledged, packets);
}

#[tokio::test]
async fn a_stop_acknowledges_what_becomes_durable_meanwhile_in_3_1_1() {
    a_stop_acknowledges_what_becomes_durable_meanwhile(Version::V311).await;
}

#[tokio::test]
async fn a_stop_acknowledges_what_becomes_durable_meanwhile_in_5() {
    a_stop_acknowledges_what_becomes_durable_meanwhile(Version::V5).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_and_what_is_not_durable_comes_again() {
    let (keeper, config) = kept(Version::V311).await;
    let mut link = Link::start(Client::new(config.clone()));
    link.until_connected().await;
    let packets = keep(&keeper, [1]);
    let (_, receipts) = counts::<1>(&mut link).await;
    link.stop().await;
    drop(receipts);
    assert!(until(&keeper, |_| true).await.acknowledged.is_empty());
    let mut link = Link::start(Client::new(config));
    assert_eq!(counts::<1>(&mut link).await.0, [1], "nothing of it was durable, so it is read");
    assert_eq!(again(&until(&keeper, |_| true).await), packets);
}
