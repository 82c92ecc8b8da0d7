//! A message, and how it is acknowledged.

use std::collections::VecDeque;

use rumqttc::v5;

/// A message.
#[derive(Debug)]
pub(in crate::mqtt) enum Message {
    V311(rumqttc::Publish),
    V5(v5::mqttbytes::v5::Publish),
}

/// How a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mqtt) struct Ack {
    pub(in crate::mqtt) pkid: u16,
    /// Quality of service 2, which we never ask for.
    pub(super) twice: bool,
}

/// Messages of this connection that are not acknowledged yet, oldest first, each with the number of the
/// delivery that must be durable before.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Unsigned(VecDeque<(u64, Ack)>);

impl Unsigned {
    pub(in crate::mqtt) fn push(&mut self, delivery: u64, ack: Ack) {
        self.0.push_back((delivery, ack));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The oldest is acknowledged.
    pub(super) fn signed(&mut self) {
        self.0.pop_front();
    }

    /// The oldest, if its delivery is among the first `durable`.
    pub(super) fn due(&self, durable: u64) -> Option<Ack> {
        self.0.front().filter(|(delivery, _)| *delivery <= durable).map(|(_, ack)| *ack)
    }
}

impl Message {
    pub(in crate::mqtt) fn topic(&self) -> &str {
        match self {
            Self::V311(publish) => &publish.topic,
            // What is no text matches no topic of ours.
            Self::V5(publish) => std::str::from_utf8(&publish.topic).unwrap_or_default(),
        }
    }

    pub(in crate::mqtt) fn payload(&self) -> &[u8] {
        match self {
            Self::V311(publish) => &publish.payload,
            Self::V5(publish) => &publish.payload,
        }
    }

    /// Whether the broker has sent it before, as far as it knows.
    pub(in crate::mqtt) fn again(&self) -> bool {
        match self {
            Self::V311(publish) => publish.dup,
            Self::V5(publish) => publish.dup,
        }
    }

    /// Whether the broker kept it for whoever subscribes.
    pub(in crate::mqtt) fn retained(&self) -> bool {
        match self {
            Self::V311(publish) => publish.retain,
            Self::V5(publish) => publish.retain,
        }
    }

    /// Tells it from others with its packet identifier. 32 bits are enough: they are compared only when a message
    /// comes again under one of the last identifiers that we know, and a CRC tells payloads that differ within
    /// four bytes in a row, as counts and times do, for certain.
    pub(in crate::mqtt) fn digest(&self) -> u32 {
        let mut digest = crc32fast::Hasher::new();
        digest.update(self.topic().as_bytes());
        digest.update(&[0]); // in no topic (1.5.4)
        digest.update(self.payload());
        digest.finalize()
    }

    /// How to acknowledge it, if the broker waits for that.
    pub(in crate::mqtt) fn ack(&self) -> Option<Ack> {
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
