//! One connection to a broker, in either version of the protocol. rumqttc's two halves meet here and nowhere else.

mod message;
mod v311;
mod v5;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

pub(super) use self::message::{Ack, Message, Unsigned};
use super::config::{Config, Version};
use super::{sparkplug, tls};
use crate::{Deliveries, LinkError, Outlet, Stale, Time};

/// The largest packet that is let in, in bytes. Messages over `max_payload` are refused by us, counted and
/// acknowledged; what this limit refuses breaks the connection (3.1.1: again and again, until somebody takes
/// the message from the broker) or is dropped by the broker without a word (5). So it lies far above what
/// makes sense, and low enough that one message does not kill a gateway.
pub(super) const LARGEST_PACKET: u32 = 64 << 20;
/// How many messages may wait for their acknowledgement at once; MQTT 5 tells the broker. As many as we know
/// again if they come again.
const MOST_UNSIGNED: u16 = Deliveries::KEPT;
/// How many filters are let go of at one connect.
const MOST_LEFT: usize = 256;

/// How long the broker may take no acknowledgement from the wire.
const STUCK: Duration = Duration::from_secs(10);

/// A connection.
pub(super) enum Session {
    V311(v311::Half),
    V5(v5::Half),
}

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker let us in, and has our session still or has not.
    Connected { resumed: bool },
    /// The SUBSCRIBE that was said first of those that are still to be sent went out under this packet identifier.
    Asked(u16),
    /// To the SUBSCRIBE with this packet identifier: for each of its filters, whether we get it.
    Subscribed(u16, Vec<bool>),
    /// A message.
    Message(Message),
    /// The broker has let go of the filters that it was asked to.
    Unsubscribed,
    /// Something without data.
    Alive,
    /// We sent something: no sign of life from the other side.
    Sent,
}

/// Topic and payload of something that is published.
pub(super) type Command = (String, Vec<u8>);

/// What we say.
#[derive(Debug)]
pub(super) enum Say {
    /// One SUBSCRIBE; [`Event::Asked`] and [`Event::Subscribed`] follow. Quality of service 2 is asked for as 1: rumqttc
    /// forgets its handshake when the process ends, and a message of quality 1 that comes twice is known by its
    /// [`Delivery`](crate::Delivery), also after a restart (docs/decisions/0003-a-message-twice.md).
    Subscribe(Vec<(String, u8)>),
    /// With quality of service 0. Only Sparkplug hosts do.
    Publish(Command),
    /// With quality of service 1, and retained. Likewise.
    Retain(Command),
}

/// What to say: about silent tags, or because it is time. An error gives the connection up.
pub(super) type Speaker<'a> = dyn FnMut(Option<&Stale>) -> Result<Vec<Say>, LinkError> + Send + 'a;

/// What is to be done while the connection stands and nothing comes.
pub(super) struct Watch<'a> {
    pub(super) outlet: &'a Outlet,
    /// When there is something to say even if no tag is silent.
    pub(super) at: Option<Instant>,
    pub(super) say: &'a mut Speaker<'a>,
}

impl Watch<'_> {
    /// What to say, as soon as there is something.
    async fn due(watch: &mut Option<Watch<'_>>) -> Result<Vec<Say>, LinkError> {
        let Some(watch) = watch else { return std::future::pending().await };
        let time = async {
            match watch.at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let stale = tokio::select! {
            stale = watch.outlet.stale() => Some(stale),
            () = time => None,
        };
        if stale.is_none() {
            watch.at = None;
        }
        (watch.say)(stale.as_ref())
    }
}

/// What both halves are opened with.
struct Opening<'a> {
    config: &'a Config,
    /// The host as rumqttc wants it, which puts host and port together as text.
    host: String,
    transport: rumqttc::Transport,
    network: rumqttc::NetworkOptions,
    /// rumqttc counts in seconds; the caller's own timeout is exact and comes first.
    seconds: u64,
    persistent: bool,
    /// What the broker is to say when we are gone.
    will: Option<Command>,
}

impl Session {
    /// A connection to be; the first [`next`](Self::next) makes it. `since` is what a Sparkplug host's word says.
    pub(super) fn new(config: &Config, since: Time) -> Result<Self, LinkError> {
        let seconds = config.timeout.as_secs() + 1;
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(seconds);
        let opening = Opening {
            config,
            host: host(config),
            transport: tls::transport(config)?,
            network,
            seconds,
            persistent: config.is_persistent(),
            will: config.host_id.as_deref().map(|host| sparkplug::state(host, false, since)),
        };
        Ok(match config.version {
            Version::V311 => Self::V311(v311::Half::open(opening)),
            Version::V5 => Self::V5(v5::Half::open(opening)),
        })
    }

    /// Says it.
    pub(super) async fn say(&mut self, say: Say) -> Result<(), LinkError> {
        match self {
            Self::V311(half) => half.say(say).await,
            Self::V5(half) => half.say(say),
        }
    }

    /// Lets go of the first of `filters`, in as many packets as it takes: how many filters, and how many times
    /// [`Event::Unsubscribed`] will answer. The rest goes at the next connect.
    pub(super) async fn unsubscribe(&mut self, filters: &[String]) -> Result<(usize, usize), LinkError> {
        match self {
            Self::V311(half) => half.unsubscribe(filters).await,
            Self::V5(half) => half.unsubscribe(filters),
        }
    }

    /// The next event. Meanwhile it acknowledges what becomes durable, in order, and does what it can about silence:
    /// with the connection in hand, since an event that is on its way when the wait is dropped would be lost.
    pub(super) async fn next(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
        watch: Option<Watch<'_>>,
    ) -> Result<Event, LinkError> {
        let event = match self {
            Self::V311(half) => half.next(unsigned, durable, watch).await,
            Self::V5(half) => half.next(unsigned, durable, watch).await,
        }?;
        // rumqttc ends the handshake of quality 2 only for messages that it saw. A session may hold others: some software
        // took them under our client_id and left, and a broker that is not answered begins every connection with them.
        if let Event::Connected { resumed: true } = event {
            match self {
                Self::V311(half) => half.expect_releases()?,
                Self::V5(half) => half.expect_releases()?,
            }
        }
        Ok(event)
    }

    /// Acknowledges what is still to become durable, and takes nothing more in: a message that the next process does
    /// not need to see again, and to know again.
    pub(super) async fn settle(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
    ) -> Result<(), LinkError> {
        while !unsigned.is_empty() {
            let signed = *durable.borrow_and_update();
            let up = match self {
                Self::V311(half) => half.settle(unsigned, signed).await?,
                Self::V5(half) => half.settle(unsigned, signed),
            };
            if !up {
                return Ok(());
            }
            if !unsigned.is_empty() {
                let _ = durable.changed().await; // we hold the sender ourselves, so this never fails
            }
        }
        Ok(())
    }

    /// Says goodbye. The session stays with the broker if it is a persistent one, and so does all that is not
    /// acknowledged.
    pub(super) async fn close(self) {
        let goodbye = async {
            match self {
                Self::V311(half) => half.close().await,
                Self::V5(half) => half.close().await,
            }
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

pub(super) const CLOSED: &str = "the broker closed the connection";

/// What the transport says. A broker that ends a connection may be heard as a reset.
fn broken_by(error: &std::io::Error) -> LinkError {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.kind() {
        ConnectionReset | BrokenPipe | UnexpectedEof => LinkError::Broken(CLOSED.to_owned()),
        _ => LinkError::Unreachable(error.to_string()),
    }
}

fn broke(error: impl std::fmt::Display) -> LinkError {
    LinkError::Broken(error.to_string())
}

fn refused(code: &impl std::fmt::Debug) -> LinkError {
    LinkError::Refused(format!("the broker says {code:?}"))
}

fn too_large(bytes: usize) -> LinkError {
    LinkError::Broken(format!("a message of {bytes} bytes is more than any session takes; remove it at the broker"))
}

/// Certificates that do not fit are for people to mend; a connection that broke in the handshake is not.
fn tls_error(error: &rumqttc::TlsError) -> LinkError {
    match error {
        rumqttc::TlsError::Io(io) if io.kind() != std::io::ErrorKind::InvalidData => {
            LinkError::Unreachable(io.to_string())
        }
        _ => LinkError::Refused(format!("TLS: {error}")),
    }
}

/// Keep-alive in whole seconds, as the protocol has it, within what rumqttc and the protocol take.
fn keep_alive(wanted: Duration, least: u64) -> Duration {
    Duration::from_secs(wanted.as_secs().clamp(least, u16::MAX.into()))
}

fn host(config: &Config) -> String {
    let host = &config.endpoint.host;
    if host.contains(':') && !config.endpoint.tls { format!("[{host}]") } else { host.clone() }
}
