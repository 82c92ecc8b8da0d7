//! What a broker may send again.
//!
//! "At least once" (MQTT 3.1.1 and 5, 4.3.2) has no answer to an acknowledgement: whoever sends it never learns
//! whether it arrived. If it did not, the message comes again when the session is resumed, with the same packet
//! identifier and the DUP flag set (4.4), also to another process. So what was taken in is remembered.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// One message that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The packet identifier. A broker uses it again once it has heard the acknowledgement.
    pub packet: u16,
    /// Of topic and payload, since a message that we never saw may come with DUP and an identifier that we know.
    pub digest: u32,
    /// The first one of a new session: nothing that came before it comes again.
    pub anew: bool,
}

impl Delivery {
    /// No message but the word that a session begins: whatever is known of the one before it is void. (No packet has the
    /// identifier 0.)
    pub const BEGIN: Self = Self { packet: 0, digest: 0, anew: true };
}

/// The last messages of one session, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deliveries(VecDeque<Delivery>);

impl Deliveries {
    /// How many are kept. A broker sends again at most what it has in flight: MQTT 5 is told this number
    /// (receive maximum); in 3.1.1 brokers allow 10 to 200 unless they are told otherwise.
    pub const KEPT: u16 = 1_024;

    /// One more. The oldest one makes room.
    pub fn push(&mut self, delivery: Delivery) {
        if delivery.anew {
            self.0.clear();
        } else if self.0.len() >= usize::from(Self::KEPT) {
            self.0.pop_front();
        }
        self.0.push_back(delivery);
    }

    /// How many messages came after this one; `None` if it is not known. The last use of an identifier counts.
    #[must_use]
    pub fn since(&self, packet: u16, digest: u32) -> Option<u64> {
        let (since, held) = (0..).zip(self.0.iter().rev()).find(|(_, held)| held.packet == packet)?;
        (held.digest == digest).then_some(since)
    }

    /// The last `count`, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = Delivery> + '_ {
        self.0.iter().skip(self.0.len().saturating_sub(count)).copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets them all: the broker has no session of ours.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(packet: u16, digest: u32) -> Delivery {
        Delivery { packet, digest, anew: false }
    }

    #[test]
    fn the_last_use_of_an_identifier_counts() {
        let mut deliveries = Deliveries::default();
        [delivery(1, 10), delivery(2, 20), delivery(1, 30)].into_iter().for_each(|each| deliveries.push(each));
        assert_eq!(deliveries.since(1, 30), Some(0));
        assert_eq!(deliveries.since(2, 20), Some(1));
        assert_eq!(deliveries.since(1, 10), None, "the identifier means another message now");
        assert_eq!(deliveries.since(2, 30), None);
        assert_eq!(deliveries.since(3, 10), None);
    }

    #[test]
    fn the_oldest_makes_room_and_a_new_session_makes_all_of_it() {
        let mut deliveries = Deliveries::default();
        (0..=Deliveries::KEPT).for_each(|packet| deliveries.push(delivery(packet, 7)));
        assert_eq!(deliveries.len(), usize::from(Deliveries::KEPT));
        assert_eq!(deliveries.since(0, 7), None);
        assert_eq!(deliveries.since(1, 7), Some(u64::from(Deliveries::KEPT) - 1));
        assert_eq!(deliveries.last(2).map(|held| held.packet).collect::<Vec<_>>(), [1_023, 1_024]);
        deliveries.push(Delivery { anew: true, ..delivery(1, 8) });
        assert_eq!((deliveries.len(), deliveries.since(2, 7)), (1, None));
    }
}
