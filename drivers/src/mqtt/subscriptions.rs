//! What we subscribe to, in which packets, and how the broker answered. Pure: time is a parameter.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How many filters one SUBSCRIBE or UNSUBSCRIBE holds. Some brokers end the connection at more (AWS IoT Core takes 8).
pub(super) const A_PACKET: usize = 8;
/// How many SUBSCRIBE packets are under way at once: a thousand filters are a few round trips, and no broker sees a flood.
const UNDER_WAY: usize = 16;
/// How long until a refused filter is asked for again: whoever mends the broker's access list restarts nothing.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The filters that are wanted, and how each stands with the broker's session.
pub(super) struct Subscriptions {
    filters: Vec<Filter>,
    /// To be asked for, in this order.
    queue: VecDeque<usize>,
    /// Asked for, in packets whose identifiers we have not heard of yet.
    sent: VecDeque<Vec<usize>>,
    /// Asked for, by packet identifier. Answers may come in any order.
    asked: HashMap<u16, Vec<usize>>,
    /// When the refused ones are asked for again.
    again: Option<Instant>,
}

struct Filter {
    name: String,
    qos: u8,
    standing: Standing,
    /// It is in the queue, or asked for and not answered.
    waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This process has not heard of it.
    Unknown,
    Granted,
    Refused,
}

/// What an answer brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The broker subscribed us to these.
    pub(super) granted: Vec<String>,
    /// And does not to these, of which we learn now.
    pub(super) refused: Vec<String>,
    /// It let go of its refusal of one.
    pub(super) relented: bool,
}

impl Subscriptions {
    pub(super) fn new(filters: Vec<(String, u8)>) -> Self {
        let filter = |(name, qos)| Filter { name, qos, standing: Standing::Unknown, waiting: false };
        Self {
            filters: filters.into_iter().map(filter).collect(),
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            asked: HashMap::new(),
            again: None,
        }
    }

    /// A new connection, to the session that the broker kept or to a new one. Asks for all that is not known to be granted:
    /// an answer that was missing does not come any more, and a refusal may be over. What another process left in a session
    /// that was kept (`held`) has time until [`renew`](Self::renew).
    pub(super) fn connected(&mut self, resumed: bool, held: impl Fn(&str) -> bool) {
        self.queue.clear();
        self.sent.clear();
        self.asked.clear();
        self.again = None;
        for filter in &mut self.filters {
            filter.waiting = false;
            if !resumed && filter.standing == Standing::Granted {
                filter.standing = Standing::Unknown;
            }
        }
        self.ask(|name, standing| match standing {
            Standing::Unknown => !(resumed && held(name)),
            Standing::Granted => false,
            Standing::Refused => true,
        });
    }

    fn ask(&mut self, wanted: impl Fn(&str, Standing) -> bool) {
        for (at, filter) in self.filters.iter_mut().enumerate() {
            if !filter.waiting && wanted(&filter.name, filter.standing) {
                filter.waiting = true;
                self.queue.push_back(at);
            }
        }
    }

    /// Asks again for what is `wanted`, upon which brokers send what they retain, and for what this process has not asked
    /// for yet.
    pub(super) fn renew(&mut self, wanted: impl Fn(&str) -> bool) {
        self.ask(|name, standing| match standing {
            Standing::Unknown => true,
            Standing::Granted => wanted(name),
            Standing::Refused => false,
        });
    }

    /// When [`tend`](Self::tend) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Asks for the refused ones again, if it is time.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.ask(|_, standing| standing == Standing::Refused);
        }
    }

    /// The next SUBSCRIBE, if one is to be sent now. It counts as sent.
    pub(super) fn next(&mut self) -> Option<Vec<(String, u8)>> {
        if self.queue.is_empty() || self.sent.len() + self.asked.len() >= UNDER_WAY {
            return None;
        }
        let packet: Vec<usize> = self.queue.drain(..self.queue.len().min(A_PACKET)).collect();
        let filters = packet.iter().map(|&at| (self.filters[at].name.clone(), self.filters[at].qos)).collect();
        self.sent.push_back(packet);
        Some(filters)
    }

    /// The oldest SUBSCRIBE that was sent has this packet identifier.
    pub(super) fn left(&mut self, packet: u16) {
        if let Some(filters) = self.sent.pop_front() {
            self.asked.insert(packet, filters);
        }
    }

    /// The broker's answer to the SUBSCRIBE with this packet identifier.
    pub(super) fn answered(&mut self, packet: u16, granted: &[bool], now: Instant) -> Answer {
        let mut answer = Answer::default();
        for (place, at) in self.asked.remove(&packet).unwrap_or_default().into_iter().enumerate() {
            let filter = &mut self.filters[at];
            filter.waiting = false;
            // A filter that the broker forgets to speak of is none that it refuses.
            let standing = if granted.get(place) == Some(&false) { Standing::Refused } else { Standing::Granted };
            let before = std::mem::replace(&mut filter.standing, standing);
            match standing {
                Standing::Refused => {
                    self.again = Some(now + ASK_AGAIN);
                    if before != Standing::Refused {
                        answer.refused.push(filter.name.clone());
                    }
                }
                _ => {
                    answer.relented |= before == Standing::Refused;
                    answer.granted.push(filter.name.clone());
                }
            }
        }
        answer
    }

    /// Whether the broker has answered all that it was asked.
    pub(super) fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.sent.is_empty() && self.asked.is_empty()
    }

    /// Whether a filter is refused.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.filters.iter().any(|filter| filter.standing == Standing::Refused && filter.name == name)
    }

    /// The first filter, if each of them is refused.
    pub(super) fn all_refused(&self) -> Option<&str> {
        let all = self.filters.iter().all(|filter| filter.standing == Standing::Refused);
        self.filters.first().filter(|_| all).map(|filter| filter.name.as_str())
    }

    /// Whether a filter is wanted.
    pub(super) fn has(&self, name: &str) -> bool {
        self.filters.iter().any(|filter| filter.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions(count: usize) -> Subscriptions {
        Subscriptions::new((0..count).map(|number| (format!("f{number}"), 1)).collect())
    }

    /// Every packet that may go now, under the identifiers from `first` on.
    fn packets(subscriptions: &mut Subscriptions, first: u16) -> Vec<Vec<String>> {
        let mut packets = Vec::new();
        for packet in first.. {
            let Some(filters) = subscriptions.next() else { break };
            subscriptions.left(packet);
            packets.push(filters.into_iter().map(|(name, _)| name).collect());
        }
        packets
    }

    #[test]
    fn many_filters_go_in_small_packets_and_a_few_of_these_at_once() {
        let mut subscriptions = subscriptions(200);
        subscriptions.connected(false, |_| false);
        let first = packets(&mut subscriptions, 1);
        assert_eq!((first.len(), first[0].len()), (UNDER_WAY, A_PACKET));
        let now = Instant::now();
        // Answers come as they like; each makes room for one.
        for packet in [16, 3, 1] {
            let answer = subscriptions.answered(packet, &[true; A_PACKET], now);
            assert_eq!(answer.granted, first[usize::from(packet) - 1]);
        }
        let mut asked: Vec<_> = first.into_iter().flatten().collect();
        let more = packets(&mut subscriptions, 17);
        assert_eq!(more.len(), 3);
        asked.extend(more.into_iter().flatten());
        for packet in 1..=19 {
            subscriptions.answered(packet, &[true; A_PACKET], now);
        }
        let rest = packets(&mut subscriptions, 20);
        asked.extend(rest.into_iter().flatten());
        assert!(!subscriptions.is_settled());
        (20..=25).for_each(|packet| drop(subscriptions.answered(packet, &[true; A_PACKET], now)));
        assert!(subscriptions.is_settled() && asked.len() == 200);
        asked.sort();
        asked.dedup();
        assert_eq!(asked.len(), 200, "each once");
    }

    #[test]
    fn what_was_refused_is_asked_for_again_and_nothing_else_is() {
        let mut subscriptions = subscriptions(3);
        subscriptions.connected(false, |_| false);
        let now = Instant::now();
        packets(&mut subscriptions, 1);
        let answer = subscriptions.answered(1, &[true, false, true], now);
        assert_eq!((answer.granted.len(), answer.refused), (2, vec!["f1".to_owned()]));
        assert!(subscriptions.is_refused("f1") && subscriptions.all_refused().is_none());

        subscriptions.tend(now + ASK_AGAIN - Duration::from_secs(1));
        assert!(subscriptions.is_settled());
        subscriptions.tend(now + ASK_AGAIN);
        assert_eq!(packets(&mut subscriptions, 2), [["f1"]]);
        let answer = subscriptions.answered(2, &[false], now + ASK_AGAIN);
        assert_eq!(answer, Answer::default(), "no news");
        assert_eq!(subscriptions.due(), Some(now + 2 * ASK_AGAIN));

        // Also on the next connection to the same session.
        subscriptions.connected(true, |_| false);
        assert_eq!(packets(&mut subscriptions, 1), [["f1"]]);
        let answer = subscriptions.answered(1, &[true], now);
        assert!(answer.relented && answer.granted == ["f1"] && subscriptions.due().is_none());
        subscriptions.connected(true, |_| false);
        assert!(subscriptions.is_settled());
    }

    #[test]
    fn an_answer_that_never_came_is_asked_for_again() {
        let mut subscriptions = subscriptions(10);
        subscriptions.connected(false, |_| false);
        packets(&mut subscriptions, 1);
        subscriptions.answered(1, &[true; 8], Instant::now());
        subscriptions.connected(true, |_| false);
        assert_eq!(packets(&mut subscriptions, 1), [["f8", "f9"]]);
        subscriptions.answered(1, &[true; 2], Instant::now());
        subscriptions.connected(false, |_| false);
        assert_eq!(packets(&mut subscriptions, 1).concat().len(), 10, "a new session knows nothing");
    }

    #[test]
    fn what_another_process_left_in_the_session_has_time() {
        let mut subscriptions = subscriptions(3);
        subscriptions.connected(true, |name| name != "f1");
        assert_eq!(packets(&mut subscriptions, 1), [["f1"]]);
        subscriptions.answered(1, &[true], Instant::now());
        subscriptions.renew(|_| false);
        assert_eq!(packets(&mut subscriptions, 2), [["f0", "f2"]], "its quality of service may be another now");
        subscriptions.connected(false, |_| true);
        assert_eq!(packets(&mut subscriptions, 1).concat().len(), 3, "a new session has nothing");
    }

    #[test]
    fn renewing_asks_for_what_is_named_and_only_once() {
        let mut subscriptions = subscriptions(3);
        subscriptions.connected(false, |_| false);
        packets(&mut subscriptions, 1);
        subscriptions.answered(1, &[true, true, false], Instant::now());
        subscriptions.renew(|name| name != "f0");
        subscriptions.renew(|name| name != "f0");
        assert_eq!(packets(&mut subscriptions, 2), [["f1"]]);
    }
}
