//! What an MQTT link says to its broker over its life: who it is, what it wants, and next to nothing else.

mod fieldbus;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fieldbus::{Link, of};
use gemba_drivers::mqtt::sparkplug::{datatype, wire};
use gemba_drivers::mqtt::{
    Client, Config, Endpoint, Fields, Identity, Metric, Payload, Text, Topic, TopicTag, Version,
};
use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_drivers::sim::mqtt::{self, Broker, Publisher, endpoint};
use gemba_drivers::survey::{Offered, Scope, Survey};
use gemba_drivers::treat::{Options, Plan, Station};
use gemba_drivers::{Keep, LinkPhase, OwnStatus, Receipt, Status, TagId, Validity, Value};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;

const NODE: &str = "spBv1.0/Plant/+/Oven/#";

fn tag<P>(id: u32, place: P) -> TopicTag<P> {
    TopicTag { id: TagId(id), name: format!("tag-{id}").into(), place, required: false, numeric: false }
}

fn plain(filter: &str, id: u32) -> Topic {
    let payload = Payload::Plain(Fields { time: None, tags: vec![tag(id, Text::Any)] });
    Topic { station: "oven-1".into(), filter: filter.to_owned(), qos: 1, payload }
}

/// The count of an edge node.
fn node(id: u32) -> Topic {
    let tags = vec![tag(id, Metric { name: "Count".into(), device: None })];
    Topic { payload: Payload::Sparkplug(Fields { time: None, tags }), ..plain(NODE, id) }
}

fn config(endpoint: Endpoint, version: Version, topics: Vec<Topic>) -> Config {
    Config { version, timeout: Duration::from_secs(10), topics, ..Config::new(endpoint, "gemba-smt-1") }
}

async fn until(keeper: &Keeper, wanted: impl FnMut(&State) -> bool) -> State {
    tokio::time::timeout(fieldbus::DEADLINE, keeper.until(wanted)).await.expect("the broker's state in time")
}

/// The filters that a link wants to be kept, once it says so.
async fn kept(link: &mut Link) -> Vec<String> {
    let receipt: Receipt =
        link.until(|batch| batch.receipt.clone().filter(|receipt| matches!(receipt.keep().1, Keep::Filters(_)))).await;
    let Keep::Filters(filters) = receipt.keep().1 else { panic!("{receipt:?}") };
    filters.iter().map(ToString::to_string).collect()
}

async fn topics_that_are_not_wanted_any_more_are_let_go_of(version: Version) {
    let keeper = Keeper::start().await.expect("a broker");
    let both = config(keeper.endpoint(), version, vec![plain("new", 0), plain("old", 1), plain("older", 2)]);
    let mut link = Link::start(Client::new(both));
    let known = kept(&mut link).await;
    assert_eq!(known, ["new", "old", "older"]);
    link.stop().await;
    assert_eq!(until(&keeper, |state| state.subscribed.len() == 3).await.subscribed, ["new", "old", "older"]);

    let one = config(keeper.endpoint(), version, vec![plain("new", 0)]);
    let mut link = Link::start(Client::new(one).subscribed_to(known));
    until(&keeper, |state| state.subscribed == ["new"]).await;
    assert_eq!(kept(&mut link).await, ["new"]);
    // On the next connection nothing is left to be done.
    let asked = |state: &State| state.heard.iter().filter(|(kind, _)| kind >> 4 == 10).count();
    let before = asked(&until(&keeper, |_| true).await);
    keeper.cut();
    link.until_lost().await;
    link.until_state(|state| state.connects == 2 && state.phase == LinkPhase::Connected).await;
    keeper.publish("new", "7");
    assert_eq!(
        of(&link.until(|batch| (!batch.readings.is_empty()).then(|| clone(batch))).await, 0).value,
        Value::Int(7)
    );
    assert_eq!(asked(&until(&keeper, |_| true).await), before);
}

fn clone(batch: &gemba_drivers::Batch) -> gemba_drivers::Batch {
    gemba_drivers::Batch {
        readings: batch.readings.clone(),
        losses: batch.losses.clone(),
        ..gemba_drivers::Batch::default()
    }
}

#[tokio::test]
async fn topics_that_are_not_wanted_any_more_are_let_go_of_in_3_1_1() {
    topics_that_are_not_wanted_any_more_are_let_go_of(Version::V311).await;
}

#[tokio::test]
async fn topics_that_are_not_wanted_any_more_are_let_go_of_in_5() {
    topics_that_are_not_wanted_any_more_are_let_go_of(Version::V5).await;
}

fn message(seq: u64, name: &str, alias: u64, value: u64) -> Vec<u8> {
    let metric = wire::Metric {
        name: (!name.is_empty()).then(|| name.to_owned()),
        alias: Some(alias),
        datatype: Some(datatype::UINT64),
        value: Some(wire::MetricValue::Long(value)),
        ..wire::Metric::default()
    };
    wire::Payload { timestamp: Some(1_000), seq: Some(seq), metrics: vec![metric] }.encode_to_vec()
}

/// A birth, data, a gap, an alias that nobody knows, a broken connection, a stop; what was published over it.
async fn a_full_life(version: Version, rebirth: bool, host_id: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let keeper = Keeper::start().await.expect("a broker");
    let base = config(keeper.endpoint(), version, vec![node(0), plain("x", 1)]);
    let mut link = Link::start(Client::new(Config { rebirth, host_id: host_id.map(str::to_owned), ..base }));
    link.until_connected().await;
    let data = [
        ("NBIRTH", message(0, "Count", 1, 7)),
        ("NDATA", message(1, "", 1, 8)),
        ("NDATA", message(4, "", 1, 9)),
        ("NDATA", message(5, "", 2, 10)),
    ];
    for (kind, payload) in data {
        keeper.publish(&format!("spBv1.0/Plant/{kind}/Oven"), payload);
        let receipt = link
            .until(|batch| batch.receipt.clone().filter(|receipt| matches!(receipt.keep().1, Keep::Delivery(_))))
            .await;
        receipt.sign();
    }
    keeper.publish("x", "1");
    let batch = link.next().await;
    assert_eq!(of(&batch, 1).value, Value::Int(1));
    batch.receipt.expect("one").sign();
    until(&keeper, |state| state.held.is_empty()).await;
    keeper.cut();
    link.until_lost().await;
    link.until_state(|state| state.connects == 2 && state.phase == LinkPhase::Connected).await;
    keeper.publish("x", "2");
    link.next().await.receipt.expect("one").sign();
    until(&keeper, |state| state.held.is_empty()).await;
    link.stop().await;
    let heard = until(&keeper, |state| state.heard.iter().any(|(kind, _)| kind >> 4 == 14)).await.heard;
    let mut published = Vec::new();
    for (kind, body) in heard {
        match kind >> 4 {
            // SUBSCRIBE, PUBACK, UNSUBSCRIBE, PINGREQ, DISCONNECT
            8 | 4 | 10 | 12 | 14 => {}
            3 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, rest) = body[2..].split_at(length);
                let skip = usize::from(kind & 6 > 0) * 2 + usize::from(version == Version::V5);
                published.push((String::from_utf8(topic.to_vec()).expect("text"), rest[skip..].to_vec()));
            }
            other => panic!("a packet of type {other} was sent"),
        }
    }
    published
}

#[tokio::test]
async fn nothing_is_ever_published_unless_the_configuration_names_it() {
    for version in [Version::V311, Version::V5] {
        assert_eq!(a_full_life(version, false, None).await, []);
    }
}

#[tokio::test]
async fn a_sparkplug_host_asks_for_births_and_says_that_it_is_there() {
    for version in [Version::V311, Version::V5] {
        let published = a_full_life(version, true, Some("scada")).await;
        let topics: Vec<_> = published.iter().map(|(topic, _)| topic.as_str()).collect();
        // Each connection: there, and a birth please; the gap and the alias came too soon after that to ask again at once.
        let (state, command) = ("spBv1.0/STATE/scada", "spBv1.0/Plant/NCMD/Oven");
        assert_eq!(topics, [state, command, state, command, state]);
        let says = |at: usize| String::from_utf8(published[at].1.clone()).expect("text");
        assert!(says(0).starts_with(r#"{"online":true,"timestamp":"#), "{}", says(0));
        let since = says(2).replace("true", "false");
        assert_eq!(says(4), since, "a death says the time of its birth");
        let request = wire::Payload::decode(published[1].1.as_slice()).expect("a payload");
        assert_eq!(request.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
    }
}

#[tokio::test]
async fn a_sparkplug_host_that_is_said_to_be_gone_contradicts() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        let base = config(keeper.endpoint(), version, vec![node(0)]);
        let mut link = Link::start(Client::new(Config { host_id: Some("scada".to_owned()), ..base }));
        link.until_connected().await;
        let own = "spBv1.0/STATE/scada";
        let words = |state: &State| state.heard.iter().filter(|(kind, _)| kind >> 4 == 3).count();
        let state = until(&keeper, |state| words(state) == 1).await;
        assert_eq!(state.subscribed, [NODE, own], "it hears its own word, and before it says it");
        let order: Vec<u8> = state.heard.iter().map(|(kind, _)| kind >> 4).collect();
        assert!(order.iter().position(|kind| *kind == 8) < order.iter().position(|kind| *kind == 3), "{order:?}");
        // The will of a connection before this one; what others say; its own word as it comes back.
        keeper.publish(own, r#"{"online":false,"timestamp":1}"#);
        until(&keeper, |state| words(state) == 2).await;
        keeper.publish("spBv1.0/STATE/other", r#"{"online":false,"timestamp":1}"#);
        keeper.publish(own, r#"{"online":true,"timestamp":1}"#);
        keeper.publish(own, "OFFLINE");
        keeper.publish("spBv1.0/Plant/NBIRTH/Oven", message(0, "Count", 1, 7));
        read(&mut link).await;
        let state = until(&keeper, |state| state.held.is_empty()).await;
        assert_eq!(words(&state), 2);
        let said = |(_, body): &(u8, Vec<u8>)| String::from_utf8_lossy(body).contains(r#"{"online":true,"#);
        assert!(state.heard.iter().filter(|(kind, _)| kind >> 4 == 3).all(said));
        keeper.cut();
        until_back(&mut link, 2).await;
        assert_eq!(until(&keeper, |_| true).await.clean, [true, true], "a host has a clean session");
    }
}

#[tokio::test]
async fn nodes_that_a_wildcard_took_in_are_asked_when_a_connection_comes_back() {
    let keeper = Keeper::start().await.expect("a broker");
    let metric = |id| tag(id, Metric { name: format!("Count-{id}").into(), device: None });
    let tags = Fields { time: None, tags: (0..40).map(metric).collect() };
    let all = Topic { payload: Payload::Sparkplug(tags), ..plain("spBv1.0/Plant/#", 0) };
    let base = config(keeper.endpoint(), Version::V311, vec![all]);
    let mut link = Link::start(Client::new(Config { rebirth: true, ..base }));
    link.until_connected().await;
    for number in 0..40 {
        keeper.publish(&format!("spBv1.0/Plant/NBIRTH/Oven-{number}"), message(0, &format!("Count-{number}"), 1, 7));
        read(&mut link).await;
    }
    let commands = |state: &State| state.heard.iter().filter(|(kind, _)| kind >> 4 == 3).count();
    assert_eq!(commands(&until(&keeper, |state| state.held.is_empty()).await), 0, "they were born before our eyes");
    keeper.cut();
    until_back(&mut link, 2).await;
    until(&keeper, |state| commands(state) == 40).await;
}

/// An authority, and certificates by it.
struct Office(CertifiedIssuer<'static, KeyPair>);

impl Office {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    /// A certificate and its key, as PEM.
    fn certificate(&self, until: i32) -> (String, KeyPair, rcgen::Certificate) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        (certificate.pem(), key, certificate)
    }
}

/// A TLS front for `to` on loopback that lets in whom `office` knows.
async fn strict_front(to: SocketAddr, office: &Office) -> SocketAddr {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(office.0.der().clone()).expect("an authority");
    let clients = WebPkiClientVerifier::builder(roots.into()).build().expect("a verifier");
    let (_, key, certificate) = office.certificate(2040);
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("they fit");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut near = acceptor.accept(stream).await.ok()?;
                let mut far = TcpStream::connect(to).await.ok()?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok()
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_broker_is_shown_who_we_are() {
    let office = Office::new();
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    let (own, key, _) = office.certificate(2040);
    let (old, old_key, _) = office.certificate(2020);
    let (strange, strange_key, _) = Office::new().certificate(2040);
    write("ca.pem", &office.0.pem());
    write("own.pem", &own);
    write("own.key", &key.serialize_pem());
    write("old.pem", &old);
    write("old.key", &old_key.serialize_pem());
    write("strange.pem", &strange);
    write("strange.key", &strange_key.serialize_pem());
    for version in [Version::V311, Version::V5] {
        let broker = Broker::with(mqtt::Options { version, ..mqtt::Options::default() }).await.expect("a broker");
        let front = strict_front(broker.addr(), &office).await;
        let with = |files: Option<(&str, &str)>| {
            let path = |name: &str| folder.path().join(name);
            let mut config = config(endpoint(front), version, vec![plain("x", 0)]);
            config.endpoint.tls = true;
            config.ca_file = Some(path("ca.pem"));
            config.identity = files.map(|(cert, key)| Identity { cert_file: path(cert), key_file: path(key) });
            config
        };
        Link::start(Client::new(with(Some(("own.pem", "own.key"))))).until_connected().await;
        let at = |name: &str| -> String { Path::display(&folder.path().join(name)).to_string() };
        for (files, why) in [
            (None, "refused: TLS: the broker wants to know who we are; give it a cert_file and key_file".to_owned()),
            (Some(("strange.pem", "strange.key")), "refused: TLS: the broker ".to_owned()),
            (
                Some(("old.pem", "old.key")),
                format!("refused: cert_file {}: the certificate expired at 2020-01-01T", at("old.pem")),
            ),
            (
                Some(("own.pem", "old.key")),
                format!(
                    "refused: key_file {}: is not the key of the certificate in cert_file {}",
                    at("old.key"),
                    at("own.pem")
                ),
            ),
            (Some(("own.pem", "none.key")), format!("refused: key_file {}: No such file", at("none.key"))),
            (Some(("own.pem", "own.pem")), format!("refused: key_file {}: holds no private key", at("own.pem"))),
            (Some(("own.key", "own.key")), format!("refused: cert_file {}: holds no certificate", at("own.key"))),
        ] {
            let link = Link::start(Client::new(with(files)));
            let error = link.until_state(|state| state.last_error.is_some()).await.last_error.expect("why");
            assert!(error.starts_with(&why), "{version:?} {files:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_probe_waits_for_every_tag_and_says_which_are_silent() {
    let keeper = Keeper::start().await.expect("a broker");
    keeper.publish("x", "21.5");
    let topics = vec![plain("silent", 1), plain("x", 0)];
    let config = Config { timeout: Duration::from_millis(500), ..config(keeper.endpoint(), Version::V311, topics) };
    let mut told = Vec::new();
    Client::new(config).probe(&mut |probed| told.push(probed)).await.expect("a link");
    assert_eq!(told.iter().map(|probed| probed.reading.tag).collect::<Vec<_>>(), [TagId(0), TagId(1)]);
    assert_eq!(told[0].reading.value, Value::Float(21.5));
    assert_eq!(told[1].reading.validity, Validity::Bad(Status::Own(OwnStatus::NoData)));
    assert!(told[1].round_trip >= told[0].round_trip);
}

/// The filters of every SUBSCRIBE that came, in the order in which they came.
fn asked_for(state: &State, version: Version) -> Vec<Vec<String>> {
    let subscribes = state.heard.iter().filter(|(kind, _)| kind >> 4 == 8);
    let filters = subscribes.map(|(_, body)| {
        let mut rest = &body[if version == Version::V5 { 3 } else { 2 }..];
        let mut filters = Vec::new();
        while let Some((&length, after)) = rest.split_first_chunk() {
            let (filter, after) = after.split_at(u16::from_be_bytes(length).into());
            filters.push(String::from_utf8(filter.to_vec()).expect("text"));
            rest = &after[1..];
        }
        filters
    });
    filters.collect()
}

async fn until_back(link: &mut Link, connects: u64) {
    link.until_lost().await;
    link.until_state(|state| state.connects == connects && state.phase == LinkPhase::Connected).await;
}

#[tokio::test]
async fn many_filters_are_asked_for_a_few_at_a_time() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        let topics = |count: u32| (0..count).map(|number| plain(&format!("t/{number:02}"), number)).collect();
        let mut link = Link::start(Client::new(config(keeper.endpoint(), version, topics(20))));
        link.until_connected().await;
        let known = kept(&mut link).await;
        let state = until(&keeper, |state| state.subscribed.len() == 20).await;
        assert_eq!(asked_for(&state, version).iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
        assert_eq!(known, state.subscribed);
        link.stop().await;
        let one = config(keeper.endpoint(), version, topics(1));
        let mut link = Link::start(Client::new(one).subscribed_to(known));
        assert_eq!(kept(&mut link).await, ["t/00"]);
        let state = until(&keeper, |state| state.subscribed.len() == 1).await;
        let longest =
            |kind: u8| state.heard.iter().filter(|(heard, _)| heard >> 4 == kind).map(|(_, body)| body.len()).max();
        assert!(longest(10) <= Some(3 + 8 * 6), "they are let go of a few at a time too");
    }
}

#[tokio::test]
async fn a_topic_that_was_refused_is_asked_for_again() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        keeper.refuse(&["secret"]);
        let topics = vec![plain("open", 0), plain("secret", 1)];
        let mut link = Link::start(Client::new(config(keeper.endpoint(), version, topics)));
        let refused = |batch: &gemba_drivers::Batch| {
            let bad = Validity::Bad(Status::Own(OwnStatus::Refused));
            batch.readings.iter().any(|reading| reading.validity == bad).then(|| batch.readings.clone())
        };
        let bad = link.until(refused).await;
        assert_eq!(bad.iter().map(|reading| reading.tag).collect::<Vec<_>>(), [TagId(1)]);
        keeper.cut();
        until_back(&mut link, 2).await;
        assert_eq!(link.until(refused).await.len(), 1, "it is refused still, which is not the same as lost");
        // Somebody mends the access list; the broker keeps our session all the while.
        keeper.refuse(&[]);
        keeper.cut();
        until_back(&mut link, 3).await;
        until(&keeper, |state| state.subscribed == ["open", "secret"]).await;
        keeper.publish("secret", "7");
        let read = |batch: &gemba_drivers::Batch| batch.receipt.is_some().then(|| batch.readings.clone());
        let readings = link.until(|batch| read(batch).filter(|readings| !readings.is_empty())).await;
        assert_eq!((readings[0].tag, &readings[0].value), (TagId(1), &Value::Int(7)));
        let asked = asked_for(&until(&keeper, |_| true).await, version);
        assert_eq!(asked, [vec!["open", "secret"], vec!["secret"], vec!["secret"]], "and nothing else is asked again");
    }
}

/// The next reading, its batch signed.
async fn read(link: &mut Link) -> (TagId, Value) {
    let batch = link.next().await;
    let [reading] = batch.readings.as_slice() else { panic!("one reading in {batch:?}") };
    let read = (reading.tag, reading.value.clone());
    batch.receipt.into_iter().for_each(Receipt::sign);
    read
}

#[tokio::test]
async fn what_was_retained_is_doubtful_where_age_matters() {
    let keeper = Keeper::start().await.expect("a broker");
    keeper.retain("state", "run");
    keeper.retain("count", "1");
    let topics = vec![plain("state", 0), plain("count", 1)];
    let base = config(keeper.endpoint(), Version::V5, topics);
    let mut link = Link::start(Client::new(Config { aged: [TagId(1)].into(), ..base }));
    let mut validity = async || {
        let batch = link.next().await;
        batch.receipt.into_iter().for_each(Receipt::sign);
        (batch.readings[0].tag, batch.readings[0].validity)
    };
    assert_eq!(validity().await, (TagId(0), Validity::Good));
    assert_eq!(validity().await, (TagId(1), Validity::Uncertain(Status::Own(OwnStatus::Retained))));
    keeper.publish("count", "2");
    assert_eq!(validity().await, (TagId(1), Validity::Good), "said while we listened");
}

#[tokio::test]
async fn after_a_short_break_what_stood_still_is_asked_for_behind_the_queue() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        keeper.retain("state", "run");
        keeper.retain("count", "1");
        let topics = vec![plain("state", 0), plain("count", 1)];
        let mut link = Link::start(Client::new(config(keeper.endpoint(), version, topics)));
        assert_eq!([read(&mut link).await, read(&mut link).await].map(|(tag, _)| tag), [TagId(0), TagId(1)]);
        keeper.cut();
        link.until_lost().await;
        (2..5).for_each(|count| assert!(keeper.publish("count", count.to_string()) > 0));
        for count in 2..5 {
            assert_eq!(read(&mut link).await, (TagId(1), Value::Int(count)), "the queue comes first");
        }
        assert_eq!(read(&mut link).await, (TagId(0), Value::Text("run".into())), "a broken link is no lasting unknown");
        let asked = asked_for(&until(&keeper, |state| state.held.is_empty()).await, version);
        assert_eq!(asked, [vec!["state", "count"], vec!["state"]], "{version:?}");
        keeper.publish("count", "5");
        assert_eq!(read(&mut link).await, (TagId(1), Value::Int(5)));
    }
}

#[tokio::test]
async fn a_start_that_comes_back_to_its_session_lets_the_queue_go_first() {
    let keeper = Keeper::start().await.expect("a broker");
    let topics = vec![plain("state", 0), plain("count", 1)];
    let one = config(keeper.endpoint(), Version::V311, topics);
    let mut link = Link::start(Client::new(one.clone()));
    let known = kept(&mut link).await;
    link.stop().await;
    keeper.retain("state", "run");
    keeper.retain("count", "9");
    (7..9).for_each(|count| assert!(keeper.publish("count", count.to_string()) > 0));
    let mut link = Link::start(Client::new(one).subscribed_to(known));
    let mut counts = Vec::new();
    while counts.len() < 2 {
        counts.push(read(&mut link).await);
    }
    assert_eq!(counts, [7, 8].map(|count| (TagId(1), Value::Int(count))));
    assert_eq!(read(&mut link).await.0, TagId(0));
    keeper.publish("count", "9");
    assert_eq!(
        read(&mut link).await,
        (TagId(1), Value::Int(9)),
        "what is retained of it was told by the queue already"
    );
}

/// These tags with these ages, the others as they are.
fn ages(tags: u32, ages: &[(u32, u64)]) -> Plan {
    let age = |(tag, ms): &(u32, u64)| {
        (TagId(*tag), Options { max_age: Some(Duration::from_millis(*ms)), ..Options::default() })
    };
    let treated = ages.iter().map(age).collect();
    Plan { stations: vec![Station { name: "oven-1".into(), tags: 0..tags, treated, max_clock_skew: None }] }
}

#[tokio::test]
async fn silence_asks_again_for_the_silent_and_for_nobody_else() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        for topic in ["state", "count", "zone/a", "zone/b"] {
            keeper.retain(topic, "1");
        }
        let zone = |level: &str, tag| Topic { station: level.into(), ..plain("zone/{station}", tag) };
        let topics = vec![plain("state", 0), plain("count", 1), zone("a", 2), zone("b", 3)];
        let plan = ages(4, &[(2, 1_000)]);
        let mut link = Link::treating(Client::new(config(keeper.endpoint(), version, topics)), &plan);
        let mut first: Vec<_> = [read(&mut link).await, read(&mut link).await].map(|(tag, _)| tag.0).into();
        first.extend([read(&mut link).await, read(&mut link).await].map(|(tag, _)| tag.0));
        assert_eq!(first, [0, 1, 2, 3]);
        keeper.retain("zone/a", "2");
        keeper.retain("zone/b", "2");
        let stale = link.until(|batch| batch.readings.first().cloned()).await;
        assert_eq!((stale.tag, stale.validity), (TagId(2), Validity::Bad(Status::Own(OwnStatus::Stale))));
        assert_eq!(read(&mut link).await, (TagId(2), Value::Int(2)), "what is retained, of the silent one");
        let asked = asked_for(&until(&keeper, |state| state.held.is_empty()).await, version);
        assert_eq!(asked, [vec!["state", "count", "zone/+"], vec!["zone/+"]]);
        keeper.publish("zone/b", "3");
        let next =
            link.until(|batch| batch.readings.iter().find(|reading| reading.validity == Validity::Good).cloned());
        assert_eq!(
            (next.await.tag, link.state().connects),
            (TagId(3), 1),
            "its neighbour was told nothing old meanwhile"
        );
    }
}

#[tokio::test]
async fn two_agents_of_one_name_are_told_so() {
    let broker = Broker::start().await.expect("a broker");
    let agent = || {
        let mut link = Link::start(Client::new(config(endpoint(broker.addr()), Version::V311, vec![plain("x", 0)])));
        link.drain();
        link
    };
    let (one, other) = (agent(), agent());
    let told = |link: &gemba_drivers::LinkState| {
        let why = "the broker closed the connection again soon after it let us in; does another client use the \
                   client_id `gemba-smt-1`? Give each its own";
        link.last_error.as_deref().is_some_and(|error| error.ends_with(why))
    };
    one.until_state(told).await;
    other.until_state(told).await;
}

/// In version 5 the broker says it, and trying again soon would only throw the other one out.
#[tokio::test]
async fn a_session_that_was_taken_over_is_not_fought_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.ok()?;
        let mut heard = [0; 512];
        // CONNACK, SUBACK, DISCONNECT with "session taken over".
        for answer in [&[0x20, 3, 0, 0, 0][..], &[0x90, 4, 0, 1, 0, 1, 0xE0, 2, 0x8E, 0]] {
            stream.read(&mut heard).await.ok().filter(|length| *length > 0)?;
            stream.write_all(answer).await.ok()?;
        }
        stream.read(&mut heard).await.ok()
    });
    let link = Link::start(Client::new(config(endpoint(addr), Version::V5, vec![plain("x", 0)])));
    let down = link.until_state(|state| state.last_error.is_some()).await;
    let error = down.last_error.expect("why");
    assert_eq!(error, "refused: another client connected under our client_id; give each its own");
}

#[tokio::test]
async fn members_of_a_group_share_and_each_message_comes_to_one_of_them() {
    for version in [Version::V311, Version::V5] {
        let broker = Broker::with(mqtt::Options { version, ..mqtt::Options::default() }).await.expect("a broker");
        let mut publisher = Publisher::new(broker.addr(), version, "oven");
        let member = |name: &str| {
            let topics = vec![plain("$share/agents/count", 0)];
            Link::start(Client::new(Config {
                client_id: name.to_owned(),
                ..config(endpoint(broker.addr()), version, topics)
            }))
        };
        let (mut one, mut other) = (member("one"), member("other"));
        one.until_connected().await;
        other.until_connected().await;
        for count in 0..40 {
            publisher.publish("count", count.to_string()).await.expect("published");
        }
        let mut counts = [Vec::new(), Vec::new()];
        while counts.iter().map(Vec::len).sum::<usize>() < 40 {
            let (of, batch) = tokio::select! {
                batch = one.next() => (0, batch),
                batch = other.next() => (1, batch),
            };
            counts[of].push(of_count(&batch));
            batch.receipt.expect("to be acknowledged").sign();
        }
        assert!(counts.iter().all(|counts| !counts.is_empty() && counts.is_sorted()), "{counts:?}");
        let mut all = counts.concat();
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>(), "each once");
    }
}

fn of_count(batch: &gemba_drivers::Batch) -> i64 {
    let Value::Int(count) = of(batch, 0).value else { panic!("no count in {batch:?}") };
    count
}

#[tokio::test]
async fn silence_climbs_from_a_question_to_a_new_connection_until_data_flows() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        let base = Config { rebirth: true, ..config(keeper.endpoint(), version, vec![node(0)]) };
        // By a wildcard, so that the first connection does not ask the node as it begins: it is asked once in 10 s.
        let wild = vec![Topic { filter: "spBv1.0/Plant/#".to_owned(), ..node(0) }];
        let mut link = Link::treating(Client::new(Config { topics: wild, ..base }), &ages(1, &[(0, 600)]));
        link.until_connected().await;
        keeper.publish("spBv1.0/Plant/NBIRTH/Oven", message(0, "Count", 1, 7));
        assert_eq!(read(&mut link).await, (TagId(0), Value::Int(7)));
        let bad = |status| {
            move |batch: &gemba_drivers::Batch| {
                let bad = Validity::Bad(Status::Own(status));
                batch.readings.iter().any(|reading| reading.validity == bad).then_some(())
            }
        };
        link.until(bad(OwnStatus::Stale)).await;
        link.until(bad(OwnStatus::LinkLost)).await;
        let down = link.until_state(|state| state.last_error.is_some()).await;
        assert!(down.last_error.as_deref().is_some_and(|error| error.contains("silent")), "{:?}", down.last_error);
        link.until_state(|state| state.connects == 2 && state.phase == LinkPhase::Connected).await;
        let state = until(&keeper, |state| state.heard.iter().filter(|(kind, _)| kind >> 4 == 3).count() == 2).await;
        // SUBSCRIBE; a birth please; SUBSCRIBE; goodbye; a birth please, on the new connection.
        let said: Vec<u8> = state.heard.iter().map(|(kind, _)| kind >> 4).filter(|kind| *kind != 4).collect();
        assert!(said.starts_with(&[8, 3, 8, 14, 3]), "{said:?}");
        keeper.publish("spBv1.0/Plant/NBIRTH/Oven", message(0, "Count", 1, 8));
        let good = |batch: &gemba_drivers::Batch| {
            batch
                .readings
                .iter()
                .find(|reading| reading.validity == Validity::Good)
                .map(|reading| reading.value.clone())
        };
        assert_eq!(link.until(good).await, Value::Int(8));
    }
}

/// Other software took a message of quality 2 under our client_id, said so, and left before the end of the handshake.
#[tokio::test]
async fn a_handshake_that_others_left_is_ended() {
    for (version, connack) in [(Version::V311, &[0x20, 2, 1, 0][..]), (Version::V5, &[0x20, 3, 1, 0, 0])] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let mut link = Link::start(Client::new(config(endpoint(addr), version, vec![plain("x", 0)])));
        link.drain();
        let answered = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut heard = [0; 256];
            assert!(stream.read(&mut heard).await.expect("CONNECT") > 0);
            stream.write_all(connack).await.expect("CONNACK");
            assert!(stream.read(&mut heard).await.expect("SUBSCRIBE") > 0);
            let suback: &[u8] = if version == Version::V5 { &[0x90, 4, 0, 1, 0, 1] } else { &[0x90, 3, 0, 1, 1] };
            stream.write_all(suback).await.expect("SUBACK");
            for id in [7, 0x1234_u16] {
                let [high, low] = id.to_be_bytes();
                stream.write_all(&[0x62, 2, high, low]).await.expect("PUBREL");
                let length = stream.read(&mut heard).await.expect("an answer");
                assert_eq!(heard[..length], [0x70, 2, high, low], "PUBCOMP");
            }
            stream
        };
        let _stream = tokio::time::timeout(fieldbus::DEADLINE, answered).await.expect("in time");
        assert_eq!(link.state().last_error, None);
    }
}

#[tokio::test]
async fn who_looks_around_takes_no_message_from_a_group() {
    for version in [Version::V311, Version::V5] {
        let keeper = Keeper::start().await.expect("a broker");
        keeper.publish("x", "1");
        let topics = vec![plain("$share/agents/x", 0), plain("x", 1), plain("$share/others/x", 2)];
        let mut client = Client::new(config(keeper.endpoint(), version, topics));
        let mut told = Vec::new();
        client.probe(&mut |probed| told.push(probed.reading.value)).await.expect("a link");
        assert_eq!(told, [Value::Int(1), Value::Int(1), Value::Int(1)], "the groups' tags are heard all the same");
        let scope = Scope { station: "oven-1".into(), listen: Duration::from_millis(100), most: 9 };
        client.browse(&scope, &mut |_| ()).await.expect("a link");
        let asked = asked_for(&until(&keeper, |_| true).await, version);
        assert_eq!(asked, [["x"], ["x"]], "no `$share`, and each filter once");
    }
}

#[tokio::test]
async fn a_browse_lists_what_comes() {
    let keeper = Keeper::start().await.expect("a broker");
    keeper.publish("fab/oven", r#"{"state":"run","zones":[{"temp":1.5}]}"#);
    keeper.publish("fab/oven", r#"{"state":"down"}"#);
    keeper.publish("spBv1.0/Plant/DBIRTH/Oven/PLC", message(1, "Zone 1/Temp", 1, 8));
    let json = Payload::Json(Fields { time: None, tags: vec![tag(0, "$.state".parse().expect("a path"))] });
    let topics = vec![Topic { payload: json, ..plain("fab/+", 0) }, node(1)];
    let mut client = Client::new(config(keeper.endpoint(), Version::V5, topics));
    let mut found: Vec<Offered> = Vec::new();
    let mut scope = Scope { station: "oven-1".into(), listen: Duration::from_millis(500), most: 100 };
    client.browse(&scope, &mut |offered| found.push(offered)).await.expect("a link");
    let listed: Vec<_> = found.iter().map(|offered| (offered.name.as_str(), offered.options[0].1.as_str())).collect();
    assert_eq!(listed, [("state", "$.state"), ("zones_0_.temp", "$.zones[0].temp"), ("Zone_1_Temp", "Zone 1/Temp")]);
    assert_eq!(found[1].value, Some(Value::Float(1.5)));
    let expected = [("metric_name", "Zone 1/Temp"), ("device", "PLC"), ("topic", NODE)];
    assert_eq!(found[2].options, expected.map(|(key, value)| (key, value.to_owned())));
    scope.station = "nobody".into();
    client.browse(&scope, &mut |_| panic!("nothing to offer")).await.expect_err("no such station");
}
