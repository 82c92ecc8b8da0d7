//! A connection in version 3.1.1.

use rumqttc::{ConnectionError, EventLoop, Outgoing, Packet, QoS, Request};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{
    Ack, CLOSED, Event, LARGEST_PACKET, MOST_LEFT, Message, Opening, STUCK, Say, Unsigned, Watch, broke, broken_by,
    keep_alive, refused, tls_error, too_large,
};
use crate::LinkError;
use crate::mqtt::subscriptions::A_PACKET;
use crate::mqtt::tls;

pub(in crate::mqtt) struct Half(Box<EventLoop>);

impl Half {
    pub(super) fn open(opening: Opening<'_>) -> Self {
        let Opening { config, host, transport, network, seconds: _, persistent, will } = opening;
        let mut options = rumqttc::MqttOptions::new(&config.client_id, host, config.endpoint.port);
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
            options.set_last_will(rumqttc::LastWill::new(topic, payload, QoS::AtLeastOnce, true));
        }
        let mut events = EventLoop::new(options, 1);
        events.set_network_options(network);
        Self(Box::new(events))
    }

    pub(super) async fn say(&mut self, say: Say) -> Result<(), LinkError> {
        send(&mut self.0, request(say)).await
    }

    pub(super) async fn unsubscribe(&mut self, filters: &[String]) -> Result<(usize, usize), LinkError> {
        let some = filters.len().min(MOST_LEFT);
        let packets = filters[..some].chunks(A_PACKET);
        let answers = packets.len();
        for topics in packets {
            let unsubscribe = rumqttc::Unsubscribe { pkid: 0, topics: topics.to_vec() };
            send(&mut self.0, Request::Unsubscribe(unsubscribe)).await?;
        }
        Ok((some, answers))
    }

    pub(super) async fn next(
        &mut self,
        unsigned: &mut Unsigned,
        durable: &mut watch::Receiver<u64>,
        mut watch: Option<Watch<'_>>,
    ) -> Result<Event, LinkError> {
        let events = &mut *self.0;
        loop {
            let signed = *durable.borrow_and_update();
            timeout(STUCK, acknowledge(events, unsigned, signed)).await.map_err(|_| LinkError::Silent(STUCK))??;
            tokio::select! {
                event = events.poll() => return event.map(from).map_err(|error| explain(&error)),
                // We hold the sender ourselves, so this never fails.
                _ = durable.changed() => {}
                due = Watch::due(&mut watch) => {
                    for say in due? {
                        send(events, request(say)).await?;
                    }
                }
            }
        }
    }

    /// From now on a PUBREL is answered with a PUBCOMP, whatever message it is for.
    pub(super) fn expect_releases(&mut self) -> Result<(), LinkError> {
        let state = &mut self.0.state;
        for packet in 1..=u16::MAX {
            let mut publish = rumqttc::Publish::new("", QoS::ExactlyOnce, Vec::new());
            publish.pkid = packet;
            state.handle_incoming_packet(Packet::Publish(publish)).map_err(broke)?;
            state.events.pop_back(); // it told of the message, which never came
        }
        Ok(())
    }

    /// Acknowledges what is durable, and says whether there is a connection to do it on.
    pub(super) async fn settle(&mut self, unsigned: &mut Unsigned, durable: u64) -> Result<bool, LinkError> {
        acknowledge(&mut self.0, unsigned, durable).await?;
        Ok(self.0.network.is_some())
    }

    pub(super) async fn close(mut self) -> Option<()> {
        let network = self.0.network.as_mut()?;
        network.write(Packet::Disconnect).await.ok()?;
        network.flush().await.ok()
    }
}

/// Sends a packet of our own, past rumqttc's queue: it goes before anything more is read.
async fn send(events: &mut EventLoop, request: Request) -> Result<(), LinkError> {
    let packet = events.state.handle_outgoing_packet(request).map_err(broke)?;
    if let (Some(packet), Some(network)) = (packet, &mut events.network) {
        network.write(packet).await.map_err(broke)?;
        network.flush().await.map_err(broke)?;
    }
    Ok(())
}

fn request(say: Say) -> Request {
    match say {
        Say::Subscribe(filters) => {
            let filters = filters.into_iter().map(|(filter, qos)| {
                let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                rumqttc::SubscribeFilter::new(filter, qos)
            });
            Request::Subscribe(rumqttc::Subscribe::new_many(filters))
        }
        Say::Publish((topic, payload)) => Request::Publish(rumqttc::Publish::new(topic, QoS::AtMostOnce, payload)),
        Say::Retain((topic, payload)) => {
            let mut publish = rumqttc::Publish::new(topic, QoS::AtLeastOnce, payload);
            publish.retain = true;
            Request::Publish(publish)
        }
    }
}

/// All that is due in one write: one system call for a commit, not one a message.
async fn acknowledge(events: &mut EventLoop, unsigned: &mut Unsigned, durable: u64) -> Result<(), LinkError> {
    let Some(network) = &mut events.network else {
        return Ok(());
    };
    let mut wrote = false;
    while let Some(Ack { pkid, twice }) = unsigned.due(durable) {
        let packet =
            if twice { Packet::PubRec(rumqttc::PubRec::new(pkid)) } else { Packet::PubAck(rumqttc::PubAck::new(pkid)) };
        unsigned.signed();
        network.write(packet).await.map_err(broke)?;
        wrote = true;
    }
    if wrote {
        network.flush().await.map_err(broke)?;
    }
    Ok(())
}

fn from(event: rumqttc::Event) -> Event {
    match event {
        rumqttc::Event::Outgoing(Outgoing::Subscribe(packet)) => Event::Asked(packet),
        rumqttc::Event::Outgoing(_) => Event::Sent,
        rumqttc::Event::Incoming(Packet::ConnAck(ack)) => Event::Connected { resumed: ack.session_present },
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => Event::Subscribed(
            ack.pkid,
            ack.return_codes.iter().map(|code| *code != rumqttc::SubscribeReasonCode::Failure).collect(),
        ),
        rumqttc::Event::Incoming(Packet::UnsubAck(_)) => Event::Unsubscribed,
        rumqttc::Event::Incoming(Packet::Publish(publish)) => Event::Message(Message::V311(publish)),
        rumqttc::Event::Incoming(_) => Event::Alive,
    }
}

fn explain(error: &ConnectionError) -> LinkError {
    use rumqttc::ConnectReturnCode as Code;
    use rumqttc::{ConnectionError as Error, StateError as State};
    match error {
        Error::ConnectionRefused(Code::ServiceUnavailable) => {
            LinkError::Unreachable("the broker is not available".to_owned())
        }
        Error::ConnectionRefused(code) => refused(code),
        Error::Tls(error) => tls_error(error),
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(rumqttc::mqttbytes::Error::Io(error)))
            if tls::alert(error).is_some() =>
        {
            tls::refused(error)
        }
        Error::Io(error)
        | Error::MqttState(State::Io(error) | State::Deserialization(rumqttc::mqttbytes::Error::Io(error))) => {
            broken_by(error)
        }
        Error::MqttState(State::AwaitPingResp) => LinkError::Broken("the broker answers no ping".to_owned()),
        Error::MqttState(State::ConnectionAborted) => LinkError::Broken(CLOSED.to_owned()),
        Error::MqttState(State::Deserialization(rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(bytes))) => {
            too_large(*bytes)
        }
        _ => LinkError::Broken(error.to_string()),
    }
}
