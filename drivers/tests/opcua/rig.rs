//! A driver under its supervisor, a server, and the patience that a test has.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Identity, Pick, Security, Station, Tag, Watermark};
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::supervisor::supervise;
use gemba_drivers::treat::{self, Treatment};
use gemba_drivers::{Batch, LinkState, Outlet, Reading, TagId, Time};
use opcua::types::Variant;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const NAMESPACE: &str = "urn:fab-2:aoi";
const DEADLINE: Duration = Duration::from_secs(20);
/// Sub-second digits down to the 100 ns that OPC UA has.
pub(crate) const NOON: Time = Time(1_795_000_000_123_456_700);

pub(crate) async fn server<'a, V: Into<Variant>>(nodes: impl IntoIterator<Item = (&'a str, V)>) -> OpcuaServer {
    OpcuaServer::start_at(NAMESPACE, nodes, NOON - Duration::from_secs(60)).await.expect("a port")
}

pub(crate) fn tag(id: u32, node: &str) -> Tag {
    Tag { id: TagId(id), node: node.parse().expect("a node"), pick: Pick::default() }
}

/// One station, its tags numbered from 0.
pub(crate) fn config(endpoint: &str, names: &[&str]) -> Config {
    let tags = (0..).zip(names).map(|(id, name)| tag(id, &format!("nsu={NAMESPACE};s={name}"))).collect();
    Config {
        endpoint: endpoint.to_owned(),
        spares: Vec::new(),
        security: Security::None,
        identity: Identity::Anonymous,
        timeout: Duration::from_secs(5),
        stations: vec![Station { name: "aoi-1".into(), publish: Duration::from_millis(50), tags, events: Vec::new() }],
    }
}

pub(crate) fn outlet() -> (Outlet, mpsc::Receiver<Batch>, watch::Receiver<LinkState>) {
    let (sender, batches) = mpsc::channel(4);
    let (state, states) = watch::channel(LinkState::new(Time::now()));
    (Outlet::new(sender, Arc::new(state)), batches, states)
}

/// A driver under the real supervisor, with a real bounded channel.
pub(crate) struct Supervised {
    batches: mpsc::Receiver<Batch>,
    rest: VecDeque<Reading>,
    states: watch::Receiver<LinkState>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervised {
    pub(crate) fn start(config: Config) -> Self {
        Self::start_having(config, |_| None)
    }

    /// After a restart of the agent, with what was durable then.
    pub(crate) fn start_having(config: Config, told: impl Fn(TagId) -> Option<Watermark>) -> Self {
        let name = config.endpoint.clone();
        Self::start_client(Client::new(config).having(told), name)
    }

    pub(crate) fn start_client(client: Client, name: String) -> Self {
        Self::start_treated(client, name, None)
    }

    /// With a `max_age` of the first tag.
    pub(crate) fn start_aged(client: Client, name: String, max_age: Duration) -> Self {
        let options = treat::Options { max_age: Some(max_age), ..treat::Options::default() };
        let treated = vec![(TagId(0), options)];
        let station = treat::Station { name: "aoi-1".into(), tags: 0..1, treated, max_clock_skew: None };
        Self::start_treated(client, name, Treatment::new(&treat::Plan { stations: vec![station] }))
    }

    fn start_treated(client: Client, name: String, treatment: Option<Treatment>) -> Self {
        let (outlet, batches, states) = outlet();
        let outlet = outlet.treating(treatment);
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(client, name, outlet, stop.clone()));
        Self { batches, rest: VecDeque::new(), states, stop, task }
    }

    pub(crate) fn state(&self) -> LinkState {
        self.states.borrow().clone()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.batches.len()
    }

    pub(crate) async fn batch(&mut self) -> Batch {
        soon(self.batches.recv()).await.expect("the link goes on")
    }

    pub(crate) async fn next_of(&mut self, tag: TagId) -> Reading {
        loop {
            match self.rest.pop_front() {
                Some(reading) if reading.tag == tag => return reading,
                Some(_) => {}
                None => {
                    let batch = self.batch().await;
                    self.rest.extend(batch.readings);
                }
            }
        }
    }

    pub(crate) async fn first_of_each(&mut self, tags: usize) -> HashMap<TagId, Reading> {
        let mut came = HashMap::new();
        while came.len() < tags {
            for reading in self.batch().await.readings {
                came.entry(reading.tag).or_insert(reading);
            }
        }
        came
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon(self.task).await.expect("it ended well");
    }
}

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "never: {what}");
}

/// A TCP proxy to `port`; while the switch is on it swallows what the server says.
pub(crate) async fn proxy(port: u16) -> (watch::Sender<bool>, std::net::SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (switch, swallow) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("the server is there");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let swallow = swallow.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    let on = *swallow.borrow();
                    if !on && to_client.write_all(&buffer[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (switch, address)
}
