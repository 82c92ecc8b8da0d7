//! What the oven publishes, and how it is brought to the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Panel, TOPIC};
use crate::Time;
use crate::mqtt::Version;
use crate::sim::mqtt::Publisher;

/// While the line stands. While it moves, it is measured more often than that.
const EVERY: Duration = Duration::from_millis(500);
/// How long the broker may take to acknowledge a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a message is tried once the line has stopped.
const LAST_ATTEMPTS: u32 = 4;

/// What the oven shows from an instant on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) at: Time,
    pub(super) panel: Panel,
    /// Whether state or product changed: then it goes by itself.
    pub(super) marks: bool,
}

/// How many messages went which way.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: AtomicU64,
    pub(super) unsent: AtomicU64,
}

/// The oven's own connection to the broker.
pub(super) struct Oven {
    broker: SocketAddr,
    publisher: Publisher,
    counts: Arc<Counts>,
    /// The line has stopped, and the broker takes nothing any more.
    given_up: bool,
}

impl Oven {
    pub(super) fn new(broker: SocketAddr, counts: Arc<Counts>) -> Self {
        Self { broker, publisher: publisher(broker), counts, given_up: false }
    }

    /// Publishes the same again and again until told to stop, and gives the oven back.
    pub(super) async fn stand(mut self, panel: Panel, stop: CancellationToken) -> Self {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self,
                _ = ticks.tick() => {}
            }
            self.publish(&Message { at: Time::now(), panel, marks: true }, &stop).await;
        }
    }

    /// Publishes what comes until nothing more does. What the broker does not take is tried again until the line has
    /// stopped, and then a few times more.
    pub(super) async fn follow(mut self, mut messages: mpsc::Receiver<Message>, stop: CancellationToken) {
        self.given_up = false;
        let mut waiting = Vec::new();
        while messages.recv_many(&mut waiting, usize::MAX).await > 0 {
            for message in together(&waiting) {
                self.publish(message, &stop).await;
            }
            waiting.clear();
        }
    }

    async fn publish(&mut self, message: &Message, stop: &CancellationToken) {
        let payload = payload(message);
        let mut attempts_left = LAST_ATTEMPTS;
        while attempts_left > 0 && !self.given_up {
            if let Ok(Ok(())) = timeout(PATIENCE, self.publisher.publish(TOPIC, payload.clone())).await {
                self.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if stop.is_cancelled() {
                attempts_left -= 1;
            }
            tracing::warn!(topic = TOPIC, "the broker does not take a message; trying again");
            sleep(PAUSE).await;
            self.publisher = publisher(self.broker);
        }
        self.given_up = true;
        self.counts.unsent.fetch_add(1, Ordering::Relaxed);
    }
}

fn publisher(broker: SocketAddr) -> Publisher {
    Publisher::new(broker, Version::V311, "oven-1")
}

/// Leaves out each message that the one after it makes needless: both only count and measure.
fn together(waiting: &[Message]) -> impl Iterator<Item = &Message> {
    let needless =
        |(index, message): &(usize, &Message)| !message.marks && waiting.get(index + 1).is_some_and(|next| !next.marks);
    waiting.iter().enumerate().filter(move |both| !needless(both)).map(|(_, message)| message)
}

fn payload(message: &Message) -> String {
    let Message { at, panel, .. } = message;
    json!({
        "t": at.0.div_euclid(1_000_000),
        "state": panel.state.oven_word(),
        "count": panel.total,
        "reject": panel.reject,
        "product": panel.board.product.name(),
        "serial": panel.board.to_string(),
        "zones": panel.values.map(|temp| json!({ "temp": temp })),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Model, Options, Station};
    use super::*;

    #[test]
    fn a_payload_is_what_the_wire_map_says() {
        let mut panel = Model::new(Options::default(), Time(0)).panel(Station::Oven);
        panel.values = [150.25, 200.0, 244.5];
        (panel.total, panel.reject, panel.board.serial) = (7, 1, 123);
        let message = Message { at: Time::from_millis(1_795_000_000_123), panel, marks: false };
        assert_eq!(
            payload(&message),
            r#"{"count":7,"product":"ECU-A7","reject":1,"serial":"ECU-A7-000123","state":"setup","t":1795000000123,"zones":[{"temp":150.25},{"temp":200.0},{"temp":244.5}]}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_broker_takes_is_counted() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port");
        let counts = Arc::<Counts>::default();
        let panel = Model::new(Options::default(), Time(0)).panel(Station::Oven);
        let (messages, queue) = mpsc::channel(8);
        for at in 0..3 {
            messages.send(Message { at: Time(at), panel, marks: true }).await.expect("there is room");
        }
        drop(messages);
        let stop = CancellationToken::new();
        stop.cancel();
        Oven::new(nobody, Arc::clone(&counts)).follow(queue, stop).await;
        assert_eq!(counts.unsent.load(Ordering::Relaxed), 3);
        assert_eq!(counts.acknowledged.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_backlog_keeps_each_change_of_state_and_the_last_count_before_it() {
        let panel = Model::new(Options::default(), Time(0)).panel(Station::Oven);
        let message = |(at, marks)| Message { at: Time(at), panel, marks };
        let waiting: Vec<_> =
            [(1, false), (2, false), (3, true), (4, true), (5, false), (6, false), (7, false)].map(message).to_vec();
        let kept: Vec<_> = together(&waiting).map(|message| message.at.0).collect();
        assert_eq!(kept, [2, 3, 4, 7]);
    }
}
