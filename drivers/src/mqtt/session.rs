//! One connection to a broker, in either version of the protocol. rumqttc's two halves meet here and nowhere else.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use rumqttc::{Outgoing, v5};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::config::{Config, Version};
use super::{sparkplug, tls};
use crate::{Deliveries, LinkError, Outlet, Rung, Stale, Time};

/// The largest packet that is let in, in bytes. Messages over `max_payload` are refused by us, counted and
/// acknowledged; what this limit refuses breaks the connection (3.1.1: again and again, until somebody takes
/// the message from the broker) or is dropped by the broker without a word (5). So it lies far above what
/// makes sense, and low enough that one message does not kill a gateway.
pub(super) const LARGEST_PACKET: u32 = 64 << 20;
/// How many messages may wait for their acknowledgement at once; MQTT 5 tells the broker. As many as we know
/// again if they come again.
const MOST_UNSIGNED: u16 = Deliveries::KEPT;

/// How many filters are let go of at one connect, in version 5.
const MOST_LEFT: usize = 256;

/// How long the broker may take no acknowledgement from the wire.
const STUCK: Duration = Duration::from_secs(10);

/// A connection.
pub(super) enum Session {
    V311(Box<rumqttc::EventLoop>),
    V5(Box<Half5>),
}

/// What a connection of version 5 needs.
pub(super) struct Half5 {
    client: v5::AsyncClient,
    events: v5::EventLoop,
    /// Whether there is a connection: polled without one, rumqttc makes one.
    up: bool,
}

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker let us in, and has our session still or has not.
    Connected { resumed: bool },
    /// For each filter that was asked for, whether we get it.
    Subscribed(Vec<bool>),
    /// A message.
    Message(Message),
    /// The broker has let go of the filters that it was asked to.
    Unsubscribed,
    /// Something without data.
    Alive,
    /// We sent something: no sign of life from the other side.
    Sent,
}

/// A message.
#[derive(Debug)]
pub(super) enum Message {
    V311(rumqttc::Publish),
    V5(v5::mqttbytes::v5::Publish),
}

/// How a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) pkid: u16,
    /// Quality of service 2, which we never ask for.
    twice: bool,
}

/// Messages of this connection that are not acknowledged yet, oldest first, each with the number of the
/// delivery that must be durable before.
#[derive(Debug, Default)]
pub(super) struct Unsigned(VecDeque<(u64, Ack)>);

impl Unsigned {
    pub(super) fn push(&mut self, delivery: u64, ack: Ack) {
        self.0.push_back((delivery, ack));
    }

    /// The oldest, if its delivery is among the first `durable`.
    fn due(&self, durable: u64) -> Option<Ack> {
        self.0.front().filter(|(delivery, _)| *delivery <= durable).map(|(_, ack)| *ack)
    }
}

impl Message {
    pub(super) fn topic(&self) -> &str {
        match self {
            Self::V311(publish) => &publish.topic,
            // What is no text matches no topic of ours.
            Self::V5(publish) => std::str::from_utf8(&publish.topic).unwrap_or_default(),
        }
    }

    pub(super) fn payload(&self) -> &[u8] {
        match self {
            Self::V311(publish) => &publish.payload,
            Self::V5(publish) => &publish.payload,
        }
    }

    /// Whether the broker has sent it before, as far as it knows.
    pub(super) fn again(&self) -> bool {
        match self {
            Self::V311(publish) => publish.dup,
            Self::V5(publish) => publish.dup,
        }
    }

    /// Tells it from others with its packet identifier. 32 bits are enough: they are compared only when a message
    /// comes again under one of the last identifiers that we know, and a CRC tells payloads that differ within
    /// four bytes in a row, as counts and times do, for certain.
    pub(super) fn digest(&self) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        digest.update(self.topic().as_bytes());
        digest.update(&[0]); // in no topic (1.5.4)
        digest.update(self.payload());
        digest.finalize()
    }

    /// How to acknowledge it, if the broker waits for that.
    pub(super) fn ack(&self) -> Option<Ack> {
        match self {
            Self::V311(publish) => match publish.qos {
                rumqttc::QoS::AtMostOnce => None,
                qos => Some(Ack { pkid: publish.pkid, twice: qos == rumqttc::QoS::ExactlyOnce }),
            },
            Self::V5(publish) => match publish.qos {
                v5::mqttbytes::QoS::AtMostOnce => None,
                qos => Some(Ack { pkid: publish.pkid, twice: qos == v5::mqttbytes::QoS::ExactlyOnce }),
            },
        }
    }
}

/// Topic and payload of something that is published.
pub(super) type Command = (String, Vec<u8>);

/// What is done about tags that are silent while the connection stands.
pub(super) struct Watch<'a> {
    pub(super) outlet: &'a Outlet,
    pub(super) filters: &'a [(String, u8)],
    /// Commands that may wake them.
    pub(super) wake: &'a mut (dyn FnMut(&Stale) -> Vec<Command> + Send),
    /// When there are commands though nothing is silent.
    pub(super) due: Option<Instant>,
}

impl Watch<'_> {
    /// Tags that are silent; none of them once commands are due, which is told once.
    async fn stale(outlet: Option<&Outlet>, due: &mut Option<Instant>) -> Stale {
        let silent = async {
            match outlet {
                Some(outlet) => outlet.stale().await,
                None => std::future::pending().await,
            }
        };
        match *due {
            Some(at) => timeout_at(at, silent).await.unwrap_or_else(|_| {
                *due = None;
                Stale { tags: Vec::new(), rung: Rung::Look }
            }),
            None => silent.await,
        }
    }
}

impl Session {
    /// A connection to be; the first [`next`](Self::next) makes it. `since` is what a Sparkplug host's word says.
    pub(super) fn new(config: &Config, since: Time) -> Result<Self, LinkError> {
        let transport = tls::transport(config)?;
        let will = config.host_id.as_deref().map(|host| sparkplug::state(host, false, since));
        // rumqttc counts in seconds; the caller's own timeout is exact and comes first.
        let seconds = config.timeout.as_secs() + 1;
        let persistent = !config.clean_session && !config.client_id.is_empty();
        let port = config.endpoint.port;
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(seconds);
        Ok(match config.version {
            Version::V311 => {
                let mut options = rumqttc::MqttOptions::new(&config.client_id, host(config), port);
                options
                    .set_keep_alive(keep_alive(config.keep_alive, 1))
                    .set_clean_session(!persistent)
                    .set_manual_acks(true)
                    .set_transport(transport)
                    .set_max_packet_size(LARGEST_PACKET as usize, LARGEST_PACKET as usize);
                if let Some(credentials) = &config.credentials {
                    options.set_credentials(&credentials.username, &credentials.password);
                }
                if let Some((topic, payload)) = will {
                    options.set_last_will(rumqttc::LastWill::new(topic, payload, rumqttc::QoS::AtLeastOnce, true));
                }
                let mut events = rumqttc::EventLoop::new(options, 1);
                events.set_network_options(network);
                Self::V311(Box::new(events))
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(&config.client_id, host(config), port);
                options
                    .set_keep_alive(keep_alive(config.keep_alive, 5))
                    .set_clean_start(!persistent)
                    // For ever, as in 3.1.1: an outage may last.
                    .set_session_expiry_interval(persistent.then_some(u32::MAX))
                    .set_manual_acks(true)
                    .set_transport(transport)
                    .set_receive_maximum(Some(MOST_UNSIGNED))
                    .set_max_packet_size(Some(LARGEST_PACKET))
                    .set_connection_timeout(seconds)
                    .set_network_options(network);
                if let Some(credentials) = &config.credentials {
                    options.set_credentials(&credentials.username, &credentials.password);
                }
                if let Some((topic, payload)) = will {
                    let qos = v5::mqttbytes::QoS::AtLeastOnce;
                    options.set_last_will(v5::mqttbytes::v5::LastWill::new(topic, payload, qos, true, None));
                }
                // Room for every acknowledgement that can be due at once, and for what else we say.
                let (client, events) = v5::AsyncClient::new(options, usize::from(MOST_UNSIGNED) + MOST_LEFT + 64);
                Self::V5(Box::new(Half5 { client, events, up: false }))
            }
        })
    }

    /// Asks for `filters`; [`Event::Subscribed`] is the answer. Quality of service 2 is asked for as 1: rumqttc
    /// forgets its handshake when the process ends, and a message of quality 1 that comes twice is known by its
    /// [`Delivery`](crate::Delivery), also after a restart (docs/decisions/0003-a-message-twice.md).
    pub(super) async fn subscribe(&mut self, filters: &[(String, u8)]) -> Result<(), LinkError> {
        match self {
            Self::V311(events) => {
                send(events, rumqttc::Request::Subscribe(subscribe_v311(filters))).await?;
            }
            Self::V5(session) => {
                session.client.try_subscribe_many(filters_v5(filters)).map_err(broke)?;
            }
        }
        Ok(())
    }

    /// Lets go of `filters`; there is one [`Event::Unsubscribed`] for each of `Ok`.
    pub(super) async fn unsubscribe(&mut self, filters: &[String]) -> Result<usize, LinkError> {
        match self {
            Self::V311(events) => {
                let unsubscribe = rumqttc::Unsubscribe { pkid: 0, topics: filters.to_vec() };
                send(events, rumqttc::Request::Unsubscribe(unsubscribe)).await?;
                Ok(1)
            }
            Self::V5(session) => {
                // A packet each, and room is kept for acknowledgements; the rest goes at the next connect.
                let some = filters.len().min(MOST_LEFT);
                for filter in &filters[..some] {
                    session.client.try_unsubscribe(filter).map_err(broke)?;
                }
                Ok(some)
            }
        }
    }

    /// Publishes, with quality of service 0, or 1 and retained. Only Sparkplug hosts do.
    pub(super) async fn publish(&mut self, topic: String, payload: Vec<u8>, keep: bool) -> Result<(), LinkError> {
        match self {
            Self::V311(events) => send(events, publish_v311(topic, payload, keep)).await,
            Self::V5(session) => try_publish_v5(&session.client, topic, payload, keep),
        }
    }

    /// The next event. Meanwhile it acknowledges what becomes durable, in order, and does what it can about silence:
    /// with the connection in hand, since an event that is on its way when the wait is dropped would be lost.
    pub(super) async fn next(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
        mut watch: Option<Watch<'_>>,
    ) -> Result<Event, LinkError> {
        let outlet = watch.as_ref().map(|watch| watch.outlet);
        let mut due = watch.as_ref().and_then(|watch| watch.due);
        match self {
            Self::V311(events) => loop {
                let signed = *durable.borrow_and_update();
                timeout(STUCK, acknowledge(events, unsigned, signed)).await.map_err(|_| LinkError::Silent(STUCK))??;
                tokio::select! {
                    event = events.poll() => return event.map(from_v311).map_err(|error| error_v311(&error)),
                    // We hold the sender ourselves, so this never fails.
                    _ = durable.changed() => {}
                    stale = Watch::stale(outlet, &mut due) => {
                        let Some(watch) = &mut watch else { continue };
                        let (renew, commands) = remedy(watch, &stale)?;
                        for (topic, payload) in commands {
                            send(events, publish_v311(topic, payload, false)).await?;
                        }
                        if renew {
                            send(events, rumqttc::Request::Subscribe(subscribe_v311(watch.filters))).await?;
                        }
                    }
                }
            },
            Self::V5(session) => {
                let Half5 { client, events, up } = &mut **session;
                // Kept across signatures: dropping it halfway could lose an acknowledgement it is sending.
                let mut polled = pin!(events.poll());
                loop {
                    acknowledge_v5(client, unsigned, *durable.borrow_and_update());
                    tokio::select! {
                        event = &mut polled => {
                            *up = event.is_ok();
                            return event.map(from_v5).map_err(|error| error_v5(&error));
                        }
                        _ = durable.changed() => {}
                        stale = Watch::stale(outlet, &mut due) => {
                            let Some(watch) = &mut watch else { continue };
                            let (renew, commands) = remedy(watch, &stale)?;
                            for (topic, payload) in commands {
                                try_publish_v5(client, topic, payload, false)?;
                            }
                            if renew {
                                client.try_subscribe_many(filters_v5(watch.filters)).map_err(broke)?;
                            }
                        }
                    }
                }
            }
        }
    }

    /// Acknowledges what is still to become durable, and takes nothing more in: a message that the next process does
    /// not need to see again, and to know again.
    pub(super) async fn settle(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
    ) -> Result<(), LinkError> {
        while !unsigned.0.is_empty() {
            let signed = *durable.borrow_and_update();
            match self {
                Self::V311(events) if events.network.is_some() => acknowledge(events, unsigned, signed).await?,
                // Sent by `close`, before its goodbye.
                Self::V5(session) if session.up => acknowledge_v5(&session.client, unsigned, signed),
                _ => return Ok(()),
            }
            if !unsigned.0.is_empty() {
                let _ = durable.changed().await; // we hold the sender ourselves, so this never fails
            }
        }
        Ok(())
    }

    /// Says goodbye. The session stays with the broker if it is a persistent one, and so does all that is not
    /// acknowledged.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            match &mut self {
                Self::V311(events) => {
                    let network = events.network.as_mut()?;
                    network.write(rumqttc::Packet::Disconnect).await.ok()?;
                    network.flush().await.ok()
                }
                Self::V5(session) => {
                    let Half5 { client, events, up: true } = &mut **session else { return None };
                    client.try_disconnect().ok()?;
                    loop {
                        if let v5::Event::Outgoing(Outgoing::Disconnect) = events.poll().await.ok()? {
                            return Some(());
                        }
                    }
                }
            }
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// What silence is answered with: whether to subscribe again, and commands. The last answer is to give up.
fn remedy(watch: &mut Watch<'_>, stale: &Stale) -> Result<(bool, Vec<Command>), LinkError> {
    match stale.rung {
        Rung::Look => Ok((false, (watch.wake)(stale))),
        // Brokers send retained messages again, and Sparkplug nodes their births.
        Rung::Renew => Ok((true, (watch.wake)(stale))),
        Rung::Reconnect => {
            let alive = watch.outlet.state().alive;
            Err(LinkError::Silent(alive.map_or(Duration::ZERO, |alive| Time::now().since(alive))))
        }
    }
}

/// Sends a packet of our own, past rumqttc's queue: it goes before anything more is read.
async fn send(events: &mut rumqttc::EventLoop, request: rumqttc::Request) -> Result<(), LinkError> {
    let packet = events.state.handle_outgoing_packet(request).map_err(broke)?;
    if let (Some(packet), Some(network)) = (packet, &mut events.network) {
        network.write(packet).await.map_err(broke)?;
        network.flush().await.map_err(broke)?;
    }
    Ok(())
}

fn subscribe_v311(filters: &[(String, u8)]) -> rumqttc::Subscribe {
    rumqttc::Subscribe::new_many(filters.iter().map(|(filter, qos)| {
        let qos = if *qos == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
        rumqttc::SubscribeFilter::new(filter.clone(), qos)
    }))
}

fn filters_v5(filters: &[(String, u8)]) -> impl Iterator<Item = v5::mqttbytes::v5::Filter> {
    filters.iter().map(|(filter, qos)| {
        let qos = if *qos == 0 { v5::mqttbytes::QoS::AtMostOnce } else { v5::mqttbytes::QoS::AtLeastOnce };
        v5::mqttbytes::v5::Filter::new(filter, qos)
    })
}

fn publish_v311(topic: String, payload: Vec<u8>, keep: bool) -> rumqttc::Request {
    let qos = if keep { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce };
    let mut publish = rumqttc::Publish::new(topic, qos, payload);
    publish.retain = keep;
    rumqttc::Request::Publish(publish)
}

fn try_publish_v5(client: &v5::AsyncClient, topic: String, payload: Vec<u8>, keep: bool) -> Result<(), LinkError> {
    let qos = if keep { v5::mqttbytes::QoS::AtLeastOnce } else { v5::mqttbytes::QoS::AtMostOnce };
    client.try_publish(topic, qos, keep, payload).map_err(broke)
}

/// All that is due in one write: one system call for a commit, not one a message.
async fn acknowledge(events: &mut rumqttc::EventLoop, unsigned: &mut Unsigned, durable: u64) -> Result<(), LinkError> {
    let Some(network) = &mut events.network else {
        return Ok(());
    };
    let mut wrote = false;
    while let Some(Ack { pkid, twice }) = unsigned.due(durable) {
        let packet = if twice {
            rumqttc::Packet::PubRec(rumqttc::PubRec::new(pkid))
        } else {
            rumqttc::Packet::PubAck(rumqttc::PubAck::new(pkid))
        };
        unsigned.0.pop_front();
        network.write(packet).await.map_err(broke)?;
        wrote = true;
    }
    if wrote {
        network.flush().await.map_err(broke)?;
    }
    Ok(())
}

/// Hands what is due to the connection, as far as there is room; the next event makes more.
fn acknowledge_v5(client: &v5::AsyncClient, unsigned: &mut Unsigned, durable: u64) {
    while let Some(ack) = unsigned.due(durable) {
        if client.try_ack(&publish_v5(ack)).is_err() {
            return;
        }
        unsigned.0.pop_front();
    }
}

fn publish_v5(Ack { pkid, twice }: Ack) -> v5::mqttbytes::v5::Publish {
    let qos = if twice { v5::mqttbytes::QoS::ExactlyOnce } else { v5::mqttbytes::QoS::AtLeastOnce };
    let mut publish = v5::mqttbytes::v5::Publish::new("", qos, Vec::new(), None);
    publish.pkid = pkid;
    publish
}

fn from_v311(event: rumqttc::Event) -> Event {
    use rumqttc::Packet;
    match event {
        rumqttc::Event::Outgoing(_) => Event::Sent,
        rumqttc::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected { resumed: ack.session_present },
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => Event::Subscribed(
            ack.return_codes.iter().map(|code| *code != rumqttc::SubscribeReasonCode::Failure).collect(),
        ),
        rumqttc::Event::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        rumqttc::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message::V311(publish)),
        rumqttc::Event::Incoming(_) => Event::Alive,
    }
}

fn from_v5(event: v5::Event) -> Event {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Outgoing(_) => Event::Sent,
        v5::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected { resumed: ack.session_present },
        v5::Event::Incoming(Packet::SubAck(ack)) => Event::Subscribed(
            ack.return_codes.iter().map(|code| matches!(code, SubscribeReasonCode::Success(_))).collect(),
        ),
        v5::Event::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        v5::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message::V5(publish)),
        v5::Event::Incoming(_) => Event::Alive,
    }
}

fn error_v311(error: &rumqttc::ConnectionError) -> LinkError {
    use rumqttc::{ConnectReturnCode as Code, ConnectionError as Error, StateError as State};
    match error {
        Error::ConnectionRefused(Code::ServiceUnavailable) => {
            LinkError::Unreachable("the broker is not available".to_owned())
        }
        Error::ConnectionRefused(code) => refused(code),
        Error::Tls(error) => tls(error),
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(rumqttc::mqttbytes::Error::Io(error)))
            if tls::alert(error).is_some() =>
        {
            tls::refused(error)
        }
        Error::Io(error) => LinkError::Unreachable(error.to_string()),
        Error::MqttState(State::AwaitPingResp) => LinkError::Broken("the broker answers no ping".to_owned()),
        Error::MqttState(State::ConnectionAborted) => LinkError::Broken(CLOSED.to_owned()),
        Error::MqttState(State::Deserialization(rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(bytes))) => {
            too_large(*bytes)
        }
        _ => LinkError::Broken(error.to_string()),
    }
}

fn error_v5(error: &v5::ConnectionError) -> LinkError {
    use v5::mqttbytes::v5::{ConnectReturnCode as Code, DisconnectReasonCode as Reason};
    use v5::{ConnectionError as Error, StateError as State};
    match error {
        Error::ConnectionRefused(
            Code::ServiceUnavailable
            | Code::ServerUnavailable
            | Code::ServerBusy
            | Code::ConnectionRateExceeded
            | Code::QuotaExceeded,
        ) => LinkError::Unreachable("the broker is not available".to_owned()),
        Error::ConnectionRefused(code) => refused(code),
        Error::Tls(error) => tls(error),
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(v5::mqttbytes::Error::Io(error)))
            if tls::alert(error).is_some() =>
        {
            tls::refused(error)
        }
        Error::Io(error) => LinkError::Unreachable(error.to_string()),
        Error::MqttState(State::AwaitPingResp) => LinkError::Broken("the broker answers no ping".to_owned()),
        Error::MqttState(State::ConnectionAborted) => LinkError::Broken(CLOSED.to_owned()),
        Error::MqttState(State::ServerDisconnect { reason_code: Reason::SessionTakenOver, .. }) => {
            LinkError::Broken("another client took our client_id".to_owned())
        }
        Error::MqttState(State::ServerDisconnect { reason_code, .. }) => {
            LinkError::Broken(format!("the broker ended the connection: {reason_code:?}"))
        }
        Error::MqttState(State::IncomingPacketTooLarge { pkt_size, .. }) => too_large(*pkt_size),
        _ => LinkError::Broken(error.to_string()),
    }
}

const CLOSED: &str = "the broker closed the connection";

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
fn tls(error: &rumqttc::TlsError) -> LinkError {
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

/// rumqttc puts host and port together as text.
fn host(config: &Config) -> String {
    let host = &config.endpoint.host;
    if host.contains(':') && !config.endpoint.tls { format!("[{host}]") } else { host.clone() }
}
