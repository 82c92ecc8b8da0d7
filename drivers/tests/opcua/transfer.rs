//! What a server without history keeps of a gap: the queues of the subscriptions that the lost session left.

use std::time::Duration;

use gemba_drivers::opcua::{Config, Notifier};
use gemba_drivers::sim::opcua::{Happened, OpcuaServer};
use gemba_drivers::sim::proxy::Proxy;
use gemba_drivers::{Event, Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

use crate::certificates::{Says, pki, secure, secure_server, secured, trust};
use crate::rig::{NOON, Supervised, config, server};

/// A line behind a cable that can be cut.
struct Cut {
    server: OpcuaServer,
    cable: Proxy,
    link: Supervised,
    readings: Vec<Reading>,
    losses: Vec<Loss>,
    events: Vec<Event>,
}

impl Cut {
    async fn of(server: OpcuaServer, config: impl FnOnce(&str) -> Config) -> Self {
        let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
        let mut config = config(&format!("opc.tcp://{}/", cable.addr()));
        config.stations[0].events =
            vec![Notifier { node: "i=2253".parse().expect("a node"), min_severity: 1, refresh: true }];
        let mut link = Supervised::start(config);
        link.first_of_each(2).await;
        Self { server, cable, link, readings: Vec::new(), losses: Vec::new(), events: Vec::new() }
    }

    /// Takes what comes until `done` says that it is enough.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let batch = self.link.batch().await;
            self.readings.extend(batch.readings);
            self.losses.extend(batch.losses);
            self.events.extend(batch.events);
        }
    }

    /// Cuts the cable, lets three parts be made and something happen, and mends it.
    async fn gap(&mut self, first: i64) {
        self.cable.cut();
        let lost = |reading: &Reading| reading.validity == Validity::Bad(Status::Own(OwnStatus::LinkLost));
        self.until(|cut| cut.readings.iter().any(lost)).await;
        self.readings.clear();
        for part in first..first + 3 {
            self.server.set("Good", part, at(part));
        }
        self.server.tell(&Happened {
            id: vec![u8::try_from(first).expect("small")],
            time: NOON,
            message: format!("door {first}"),
            severity: 500,
            kind: None,
            condition: None,
        });
        self.cable.resume();
    }

    fn told(&self) -> Vec<(u32, Value, bool)> {
        let of = |reading: &Reading| (reading.tag.0, reading.value.clone(), reading.backfilled);
        self.readings.iter().map(of).collect()
    }
}

fn at(part: i64) -> Time {
    NOON + Duration::from_secs(part.unsigned_abs())
}

fn good(reading: &Reading, value: i64) -> bool {
    reading.tag == TagId(0) && reading.value == Value::Int(value)
}

#[tokio::test]
async fn a_gap_is_none_where_the_subscriptions_go_on() {
    let certificate = Says::default().made();
    let server = secure_server([("Good", 0_i64), ("Reject", 7)], secure(&certificate)).await;
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let mut line = Cut::of(server, |url| secured(url, &["Good", "Reject"], pki.folder())).await;
    for (gap, first) in [(1, 1), (2, 4)] {
        line.gap(first).await;
        line.until(|line| line.events.len() == gap && line.readings.iter().any(|reading| good(reading, first + 2)))
            .await;
        // What held comes once more, since a bad reading stands between; then everything, in order.
        let mut expected = vec![(0, Value::Int(first - 1), true), (1, Value::Int(7), true)];
        expected.extend((first..first + 3).map(|part| (0, Value::Int(part), false)));
        assert_eq!(line.told(), expected);
        assert!(line.readings[2..].iter().zip(first..).all(|(reading, part)| reading.source_time == at(part)));
        assert_eq!(&*line.events[gap - 1].message, format!("door {first}"));
    }
    assert!(line.losses.is_empty(), "{:?}", line.losses);
    assert_eq!(line.link.state().connects, 3);
    line.readings.clear();
    line.server.set("Good", 99_i64, at(99));
    line.until(|line| !line.readings.is_empty()).await;
    assert_eq!(line.told(), [(0, Value::Int(99), false)]);
    line.link.stop().await;
}

#[tokio::test]
async fn a_server_that_gives_nothing_over_leaves_a_loss() {
    let server = server([("Good", 0_i64), ("Reject", 7)]).await; // anonymous users without security
    let mut line = Cut::of(server, |url| config(url, &["Good", "Reject"])).await;
    line.gap(1).await;
    line.until(|line| line.losses.len() == 2 && line.readings.iter().any(|reading| good(reading, 3))).await;
    let mut reasons: Vec<_> = line.losses.iter().map(|loss| &*loss.reason).collect();
    reasons.sort_unstable();
    assert!(reasons[0].contains("no history is kept") && reasons[1].contains("events of a gap"), "{reasons:?}");
    line.until(|line| line.readings.len() == 2).await;
    assert!(line.events.is_empty());
    assert_eq!(line.link.state().connects, 2, "and the link stands");
    line.link.stop().await;
}

#[tokio::test]
async fn history_has_more_than_the_queues_and_goes_first() {
    let certificate = Says::default().made();
    let mut server = secure_server([("Good", 0_i64), ("Reject", 7)], secure(&certificate)).await;
    server.keep_history().await.expect("the port is free");
    let (_folder, pki) = pki();
    trust(&pki, &certificate);
    let mut line = Cut::of(server, |url| secured(url, &["Good", "Reject"], pki.folder())).await;
    line.gap(1).await;
    line.until(|line| line.readings.iter().any(|reading| good(reading, 3))).await;
    let backfilled = line.readings.iter().filter(|reading| reading.tag == TagId(0) && reading.backfilled).count();
    assert_eq!(backfilled, 4, "{:?}", line.readings);
    line.link.stop().await;
}
