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
use gemba_drivers::sim::mqtt::{Broker, Options, endpoint};
use gemba_drivers::survey::{Offered, Scope, Survey};
use gemba_drivers::{Keep, LinkPhase, OwnStatus, Receipt, Status, TagId, Validity, Value};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
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
    Config {
        endpoint,
        client_id: "gemba-smt-1".to_owned(),
        version,
        clean_session: false,
        keep_alive: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        max_payload: 100_000,
        credentials: None,
        ca_file: None,
        identity: None,
        rebirth: false,
        host_id: None,
        topics,
    }
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
        let broker = Broker::with(Options { version, ..Options::default() }).await.expect("a broker");
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
