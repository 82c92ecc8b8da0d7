//! An MQTT broker on loopback: rumqttd in process, in either version of the protocol.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use rumqttd::protocol::{Protocol, v4::V4, v5::V5};
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::mqtt::{Endpoint, Version};

/// How many free ports are tried; another process may take one between our finding it and the broker's binding it.
const ATTEMPTS: usize = 8;
/// How long the broker may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// In how many pieces it keeps a topic; the oldest goes when there is one too many.
const SEGMENTS: usize = 4;

/// What a broker is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which protocol it speaks; rumqttd speaks one a port.
    pub version: Version,
    /// User names with their passwords; empty lets everybody in.
    pub users: HashMap<String, String>,
    /// The largest payload it takes, in bytes.
    pub max_payload: usize,
    /// How much of each topic it keeps for subscribers that are behind, at least, in bytes. It may keep a third more.
    pub backlog: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { version: Version::V311, users: HashMap::new(), max_payload: 32 << 20, backlog: 192 << 20 }
    }
}

/// The broker. It stops listening when dropped.
///
/// rumqttd has no way to stop. Its router (which keeps the sessions) is a thread that ends with the process;
/// its server is a future, which is run in a thread of its own and dropped here.
pub struct Broker {
    addr: SocketAddr,
    server: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Broker {
    /// A broker for MQTT 3.1.1 that lets everybody in.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start() -> io::Result<Self> {
        Self::with(Options::default()).await
    }

    /// A broker as told.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn with(options: Options) -> io::Result<Self> {
        let router = RouterConfig {
            max_connections: 2000,
            max_outgoing_packet_count: 200,
            max_segment_size: options.backlog / (SEGMENTS - 1),
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let router = Router::new(0, router).spawn();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let addr = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let settings = ServerSettings {
                name: "sim".to_owned(),
                listen: addr,
                tls: None,
                next_connection_delay_ms: 0,
                connections: ConnectionSettings {
                    connection_timeout_ms: 10_000,
                    max_payload_size: options.max_payload,
                    max_inflight_count: 200,
                    auth: (!options.users.is_empty()).then(|| options.users.clone()),
                    external_auth: None,
                    dynamic_filters: true,
                },
            };
            let started = match options.version {
                Version::V311 => serve(Server::new(settings, router.clone(), V4), addr).await,
                Version::V5 => serve(Server::new(settings, router.clone(), V5), addr).await,
            };
            match started {
                Ok(server) => return Ok(Self { addr, server: Some(server) }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same, as the driver is told.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        endpoint(self.addr)
    }
}

/// `addr` as the driver is told.
#[must_use]
pub fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint { host: addr.ip().to_string(), port: addr.port(), tls: false }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((stop, server)) = self.server.take() {
            let _ = stop.send(());
            let _ = server.join();
        }
    }
}

/// Runs `server` in a thread of its own until told to stop. Ready once somebody can connect.
async fn serve<P: Protocol + Clone + Send + 'static>(
    mut server: Server<P>,
    addr: SocketAddr,
) -> io::Result<(oneshot::Sender<()>, thread::JoinHandle<()>)> {
    let (stop, stopped) = oneshot::channel();
    let (failed, mut failure) = oneshot::channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = thread::Builder::new().name("sim-broker".to_owned()).spawn(move || {
        // Dropping the runtime drops the connections too.
        runtime.block_on(async {
            tokio::select! {
                result = server.start(LinkType::Remote) => {
                    let _ = failed.send(result.err().map_or_else(String::new, |error| error.to_string()));
                }
                _ = stopped => {}
            }
        });
    })?;
    let listening = async {
        loop {
            tokio::select! {
                biased;
                failure = &mut failure => return Err(io::Error::other(failure.unwrap_or_default())),
                connected = TcpStream::connect(addr) => if connected.is_ok() { return Ok(()) },
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, listening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok((stop, handle))
}

/// Somebody who publishes.
pub struct Publisher {
    client: AnyClient,
    acknowledged: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

enum AnyClient {
    V311(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

impl Publisher {
    /// Publishes at the broker that listens on `addr`, as `client_id`. Connects with the first message.
    #[must_use]
    pub fn new(addr: SocketAddr, version: Version, client_id: &str) -> Self {
        let (acks, acknowledged) = mpsc::unbounded_channel();
        let host = addr.ip().to_string();
        let (client, task) = match version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(client_id, host, addr.port());
                options.set_max_packet_size(64 << 20, 64 << 20);
                let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
                let task = tokio::spawn(async move {
                    while let Ok(event) = events.poll().await {
                        if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event {
                            let _ = acks.send(());
                        }
                    }
                });
                (AnyClient::V311(client), task)
            }
            Version::V5 => {
                let options = rumqttc::v5::MqttOptions::new(client_id, host, addr.port());
                let (client, mut events) = rumqttc::v5::AsyncClient::new(options, 10);
                let task = tokio::spawn(async move {
                    while let Ok(event) = events.poll().await {
                        if let rumqttc::v5::Event::Incoming(rumqttc::v5::mqttbytes::v5::Packet::PubAck(_)) = event {
                            let _ = acks.send(());
                        }
                    }
                });
                (AnyClient::V5(client), task)
            }
        };
        Self { client, acknowledged, task }
    }

    /// Publishes with quality of service 1; back when the broker has it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) -> io::Result<()> {
        let payload = payload.into();
        match &self.client {
            AnyClient::V311(client) => {
                let qos = rumqttc::QoS::AtLeastOnce;
                client.publish(topic, qos, false, payload).await.map_err(io::Error::other)?;
            }
            AnyClient::V5(client) => {
                let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
                client.publish(topic, qos, false, payload).await.map_err(io::Error::other)?;
            }
        }
        self.acknowledged.recv().await.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
