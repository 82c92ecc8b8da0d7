//! A connection in version 5.

use std::pin::pin;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, Publish, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};
use tokio::sync::watch;

use super::{
    Ack, CLOSED, Event, LARGEST_PACKET, MOST_LEFT, MOST_UNSIGNED, Message, Opening, Say, Unsigned, Watch, broke,
    broken_by, keep_alive, refused, tls_error, too_large,
};
use crate::LinkError;
use crate::mqtt::tls;

pub(in crate::mqtt) struct Half(Box<Inner>);

struct Inner {
    client: AsyncClient,
    events: EventLoop,
    /// Whether there is a connection: polled without one, rumqttc makes one.
    up: bool,
}

impl Half {
    pub(super) fn open(opening: Opening<'_>) -> Self {
        let Opening { config, host, transport, network, seconds, persistent, will } = opening;
        let mut options = MqttOptions::new(&config.client_id, host, config.endpoint.port);
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
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, true, None));
        }
        // Room for every acknowledgement that can be due at once, and for what else we say.
        let (client, events) = AsyncClient::new(options, usize::from(MOST_UNSIGNED) + MOST_LEFT + 64);
        Self(Box::new(Inner { client, events, up: false }))
    }

    pub(super) fn say(&mut self, say: Say) -> Result<(), LinkError> {
        send(&self.0.client, say)
    }

    /// A packet each, and room is kept for acknowledgements.
    pub(super) fn unsubscribe(&mut self, filters: &[String]) -> Result<(usize, usize), LinkError> {
        let some = filters.len().min(MOST_LEFT);
        for filter in &filters[..some] {
            self.0.client.try_unsubscribe(filter).map_err(broke)?;
        }
        Ok((some, some))
    }

    pub(super) async fn next(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
        mut watch: Option<Watch<'_>>,
    ) -> Result<Event, LinkError> {
        let Inner { client, events, up } = &mut *self.0;
        // Kept across signatures: dropping it halfway could lose an acknowledgement it is sending.
        let mut polled = pin!(events.poll());
        loop {
            acknowledge(client, unsigned, *durable.borrow_and_update());
            tokio::select! {
                event = &mut polled => {
                    *up = event.is_ok();
                    return event.map(from).map_err(|error| explain(&error));
                }
                // We hold the sender ourselves, so this never fails.
                _ = durable.changed() => {}
                due = Watch::due(&mut watch) => {
                    for say in due? {
                        send(client, say)?;
                    }
                }
            }
        }
    }

    /// From now on a PUBREL is answered with a PUBCOMP, whatever message it is for.
    pub(super) fn expect_releases(&mut self) -> Result<(), LinkError> {
        let state = &mut self.0.events.state;
        for pkid in 1..=u16::MAX {
            let publish = answered(Ack { pkid, twice: true });
            state.handle_incoming_packet(Packet::Publish(publish)).map_err(broke)?;
            state.events.pop_back(); // it told of the message, which never came
        }
        Ok(())
    }

    /// Hands over what is durable, to be sent by [`close`](Self::close) before its goodbye, and says whether there is a
    /// connection to do it on.
    pub(super) fn settle(&mut self, unsigned: &mut Unsigned, durable: u64) -> bool {
        if self.0.up {
            acknowledge(&self.0.client, unsigned, durable);
        }
        self.0.up
    }

    pub(super) async fn close(mut self) -> Option<()> {
        let Inner { client, events, up: true } = &mut *self.0 else { return None };
        client.try_disconnect().ok()?;
        loop {
            if let rumqttc::v5::Event::Outgoing(Outgoing::Disconnect) = events.poll().await.ok()? {
                return Some(());
            }
        }
    }
}

/// Hands it to the connection, which sends it with the next event.
fn send(client: &AsyncClient, say: Say) -> Result<(), LinkError> {
    let sent = match say {
        Say::Subscribe(filters) => client.try_subscribe_many(filters.into_iter().map(|(filter, qos)| {
            let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            Filter::new(filter, qos)
        })),
        Say::Publish((topic, payload)) => client.try_publish(topic, QoS::AtMostOnce, false, payload),
        Say::Retain((topic, payload)) => client.try_publish(topic, QoS::AtLeastOnce, true, payload),
    };
    sent.map_err(broke)
}

/// Hands what is due to the connection, as far as there is room; the next event makes more.
fn acknowledge(client: &AsyncClient, unsigned: &mut Unsigned, durable: u64) {
    while let Some(ack) = unsigned.due(durable) {
        if client.try_ack(&answered(ack)).is_err() {
            return;
        }
        unsigned.signed();
    }
}

/// The message, as far as its acknowledgement needs it.
fn answered(Ack { pkid, twice }: Ack) -> Publish {
    let qos = if twice { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    let mut publish = Publish::new("", qos, Vec::new(), None);
    publish.pkid = pkid;
    publish
}

fn from(event: rumqttc::v5::Event) -> Event {
    use rumqttc::v5::Event as From;
    match event {
        From::Outgoing(Outgoing::Subscribe(packet)) => Event::Asked(packet),
        From::Outgoing(_) => Event::Sent,
        From::Incoming(Packet::ConnAck(ack)) => Event::Connected { resumed: ack.session_present },
        From::Incoming(Packet::SubAck(ack)) => Event::Subscribed(
            ack.pkid,
            ack.return_codes.iter().map(|code| matches!(code, SubscribeReasonCode::Success(_))).collect(),
        ),
        From::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        From::Incoming(Packet::Publish(publish)) => Event::Message(Message::V5(publish)),
        From::Incoming(_) => Event::Alive,
    }
}

fn explain(error: &ConnectionError) -> LinkError {
    use ConnectReturnCode as Code;
    use ConnectionError as Error;
    use StateError as State;
    match error {
        Error::ConnectionRefused(
            Code::ServiceUnavailable
            | Code::ServerUnavailable
            | Code::ServerBusy
            | Code::ConnectionRateExceeded
            | Code::QuotaExceeded,
        ) => LinkError::Unreachable("the broker is not available".to_owned()),
        Error::ConnectionRefused(code) => refused(code),
        Error::Tls(error) => tls_error(error),
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(rumqttc::v5::mqttbytes::Error::Io(error)))
            if tls::alert(error).is_some() =>
        {
            tls::refused(error)
        }
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(rumqttc::v5::mqttbytes::Error::Io(error))) => {
            broken_by(error)
        }
        Error::MqttState(State::AwaitPingResp) => LinkError::Broken("the broker answers no ping".to_owned()),
        Error::MqttState(State::ConnectionAborted) => LinkError::Broken(CLOSED.to_owned()),
        Error::MqttState(State::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. }) => {
            LinkError::Refused("another client connected under our client_id; give each its own".to_owned())
        }
        Error::MqttState(State::ServerDisconnect { reason_code, .. }) => {
            LinkError::Broken(format!("the broker ended the connection: {reason_code:?}"))
        }
        Error::MqttState(State::IncomingPacketTooLarge { pkt_size, .. }) => too_large(*pkt_size),
        _ => LinkError::Broken(error.to_string()),
    }
}
