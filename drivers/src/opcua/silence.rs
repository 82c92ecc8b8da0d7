//! Tags that are silent though the link stands: asked for, then subscribed anew, then the link is given up.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::time::Duration;

use opcua::types::{DataValue, NumericRange, ReadValueId, TimestampsToReturn};
use tokio::time::Instant;
use tracing::info;

use super::backfill::Gap;
use super::find::handle;
use super::link::Link;
use super::sieve::Told;
use super::{Client, convert, find, hand_over};
use crate::{Batch, LinkError, Outlet, Rung, Stale, TagId, Time};

/// A subscription that publishes more often than that is still given so long.
const SOON: Duration = Duration::from_millis(100);
/// A dead item is answered by a new subscription this often at most: its neighbours are subscribed anew with it.
const BETWEEN_RENEWALS: Duration = Duration::from_secs(60);

/// Items of which a read told what the subscription should have told, and has not yet.
#[derive(Default)]
pub(super) struct Suspects {
    /// With the last value that was told before the read.
    items: BTreeMap<usize, Option<Told>>,
    /// Until when the subscription may still tell it.
    until: Option<Instant>,
    renewed: Option<Instant>,
}

impl Suspects {
    /// The subscription told something of the item: it lives.
    pub(super) fn clear(&mut self, item: usize) {
        self.items.remove(&item);
    }

    /// When something is to be done about them.
    pub(super) fn due(&self) -> Option<Instant> {
        let until = self.until.filter(|_| !self.items.is_empty())?;
        Some(self.renewed.map_or(until, |renewed| until.max(renewed + BETWEEN_RENEWALS)))
    }

    /// Nobody listened for so long.
    pub(super) fn wait(&mut self, longer: Duration) {
        self.until = self.until.map(|until| until + longer);
    }

    /// What was told of the item before a read found what the subscription had not told.
    pub(super) fn before(&self, item: usize) -> Option<Told> {
        self.items.get(&item).cloned().flatten()
    }
}

impl Client {
    /// Does something about tags that are silent though the link stands.
    pub(super) async fn answer(&mut self, stale: &Stale, outlet: &Outlet) -> Result<(), LinkError> {
        match stale.rung {
            Rung::Look => self.look(&stale.tags, outlet).await,
            Rung::Renew => {
                info!(tags = stale.tags.len(), "silent: subscribing anew");
                self.renew(outlet).await
            }
            Rung::Reconnect => Err(LinkError::Silent(self.link.as_ref().map_or(Duration::ZERO, Link::silence))),
        }
    }

    /// Reads tags. What is new of them is told; what stands is vouched for.
    async fn look(&mut self, tags: &[TagId], outlet: &Outlet) -> Result<(), LinkError> {
        let tags: HashSet<TagId> = tags.iter().copied().collect();
        let asked: Vec<usize> = (0..self.items.len()).filter(|&item| tags.contains(&self.items[item].tag)).collect();
        let told = self.read_items(asked).await?;
        let received = Time::now();
        let (mut batch, mut same) = (Batch::default(), Vec::new());
        for (item, value) in told {
            let reading = convert::reading(self.items[item].tag, value, received);
            let known = &self.known[item];
            if known.heard.as_ref().is_some_and(|heard| heard.told.said_same(&reading) == Some(false)) {
                self.suspects.items.entry(item).or_insert_with(|| known.told.clone());
            }
            self.hear(item, reading, &mut batch, &mut same);
        }
        Self::vouch(&mut same, received, &mut batch, outlet);
        hand_over(batch, outlet).await?;
        if !self.suspects.items.is_empty() {
            self.suspects.until = Some(Instant::now() + self.publish().saturating_mul(2).max(SOON));
        }
        Ok(())
    }

    /// What the items are now; those whose nodes the server does not know are left out.
    async fn read_items(&mut self, items: Vec<usize>) -> Result<Vec<(usize, DataValue)>, LinkError> {
        let mut told = Vec::with_capacity(items.len());
        let (mut asked, mut whole) = (Vec::new(), Vec::new());
        for item in items {
            let Ok(want) = self.want(item) else { continue };
            let range = if self.picks.is_whole(want.handle) { NumericRange::None } else { want.range };
            asked.push((item, ReadValueId { index_range: range, ..ReadValueId::from(want.node) }));
        }
        while !asked.is_empty() {
            let Some(link) = self.link.as_mut() else { break };
            let nodes = asked.iter().map(|(_, node)| node.clone()).collect();
            let answers = link.read(nodes, TimestampsToReturn::Both).await?;
            for ((item, node), value) in mem::take(&mut asked).into_iter().zip(answers) {
                match node.index_range.has_range() {
                    // Servers that do not cut ranges out send the whole.
                    true if find::no_range(value.status()) => {
                        whole.push((item, ReadValueId { index_range: NumericRange::None, ..node }));
                    }
                    true => told.push((item, self.picks.of(handle(item), value))),
                    false => told.push((item, self.picks.of_all(handle(item), value))),
                }
            }
            asked = mem::take(&mut whole);
        }
        Ok(told)
    }

    /// The subscription does not tell what a read does.
    pub(super) async fn renew_suspects(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        info!(tags = self.suspects.items.len(), "a read tells what the subscription does not: subscribing anew");
        self.renew(outlet).await?;
        self.suspects = Suspects { renewed: Some(Instant::now()), ..Suspects::default() };
        Ok(())
    }

    /// Makes the subscriptions anew over the same session. What the old ones told goes first.
    async fn renew(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        if let Some(link) = self.link.as_mut() {
            self.held.extend(link.unsubscribe().await?);
        }
        self.tell_waiting(outlet).await?;
        self.sequences.clear();
        self.catch_up(Gap::Subscription, outlet).await
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};

    use super::super::fixture::connected;
    use super::*;
    use crate::sim::opcua::OpcuaServer;
    use crate::treat::{self, Treatment};
    use crate::{Driver, LinkState, OwnStatus, Status, Validity, Value};

    const NOON: Time = Time(1_795_000_000_000_000_000);

    fn after(seconds: i64) -> Time {
        NOON + Duration::from_secs(seconds.unsigned_abs())
    }

    struct Bench {
        server: OpcuaServer,
        client: Client,
        outlet: Outlet,
        batches: mpsc::Receiver<Batch>,
    }

    impl Bench {
        async fn new() -> Self {
            Self::with(true, None).await
        }

        async fn with(history: bool, max_age: Option<Duration>) -> Self {
            let mut server = OpcuaServer::start_at("urn:a", [("Good", 0_i64)], NOON).await.expect("a port");
            if history {
                server.keep_history().await.expect("the port is free");
            }
            let client = connected(&server, &["Good"]).await;
            let (to, batches) = mpsc::channel(16);
            let outlet = Outlet::new(to, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
            let options = treat::Options { max_age, ..treat::Options::default() };
            let treated = vec![(TagId(0), options)];
            let station = treat::Station { name: "a".into(), tags: 0..1, treated, max_clock_skew: None };
            let outlet = outlet.treating(Treatment::new(&treat::Plan { stations: vec![station] }));
            let mut bench = Self { server, client, outlet, batches };
            assert_eq!(bench.next().await, (Value::Int(0), false));
            bench
        }

        /// Lets the link live until something comes.
        async fn next(&mut self) -> (Value, bool) {
            let Self { client, outlet, batches, .. } = self;
            let batch = tokio::select! {
                error = client.flow(outlet) => panic!("{:?}", error.err()),
                batch = batches.recv() => batch.expect("it lives"),
                () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nothing came"),
            };
            let [reading] = batch.readings.as_slice() else { panic!("one: {batch:?}") };
            (reading.value.clone(), reading.backfilled)
        }

        /// Values that the subscription tells while nobody looks at them.
        async fn unread(&mut self, values: std::ops::RangeInclusive<i64>) {
            for value in values {
                self.server.set("Good", value, after(value));
            }
            let link = self.client.link.as_mut().expect("up");
            let notice = loop {
                match link.next_notice() {
                    Some(notice) if notice.message.notification_data.is_some() => break notice,
                    _ => tokio::time::timeout(Duration::from_secs(20), link.step()).await.expect("told").expect("up"),
                }
            };
            self.client.held.push_back(notice);
        }

        async fn answer(&mut self, rung: Rung) -> Result<(), LinkError> {
            let stale = Stale { tags: vec![TagId(0)], rung };
            self.client.answer(&stale, &self.outlet).await
        }
    }

    #[tokio::test]
    async fn a_look_tells_what_is_new_and_vouches_for_what_stands() {
        let mut bench = Bench::new().await;
        let before = Time::now();
        bench.answer(Rung::Look).await.expect("answered");
        assert!(bench.batches.try_recv().is_err(), "nothing is new");
        assert!(bench.outlet.state().alive >= Some(before), "and that is a sign of life");
        bench.server.set("Good", 7_i64, NOON + Duration::from_secs(1));
        bench.answer(Rung::Look).await.expect("answered");
        let batch = bench.batches.try_recv().expect("told");
        assert_eq!(batch.readings[0].value, Value::Int(7));
        // The subscription tells the same, and nobody hears it twice.
        bench.server.set("Good", 8_i64, NOON + Duration::from_secs(2));
        assert_eq!(bench.next().await, (Value::Int(8), false));
    }

    #[tokio::test]
    async fn a_subscription_is_made_anew_over_the_same_session() {
        let mut bench = Bench::new().await;
        bench.server.set("Good", 1_i64, NOON + Duration::from_secs(1));
        bench.answer(Rung::Renew).await.expect("answered");
        assert_eq!(bench.server.sessions(), 1);
        // What changed on the way was told once: by the old subscription or by history.
        assert_eq!(bench.next().await.0, Value::Int(1));
        bench.server.set("Good", 2_i64, NOON + Duration::from_secs(2));
        assert_eq!(bench.next().await, (Value::Int(2), false));
        let error = bench.answer(Rung::Reconnect).await.expect_err("given up");
        assert!(matches!(error, LinkError::Silent(_)), "{error}");
        bench.client.close().await;
    }

    #[tokio::test]
    async fn what_the_old_subscription_told_comes_first_and_once() {
        let mut bench = Bench::new().await;
        bench.unread(1..=3).await;
        bench.answer(Rung::Renew).await.expect("answered");
        bench.server.set("Good", 4_i64, after(4));
        let mut told = Vec::new();
        while told.last() != Some(&Value::Int(4)) {
            let Bench { client, outlet, batches, .. } = &mut bench;
            let batch = tokio::select! {
                error = client.flow(outlet) => panic!("{:?}", error.err()),
                batch = batches.recv() => batch.expect("it lives"),
                () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nothing came after {told:?}"),
            };
            assert!(batch.losses.is_empty(), "{:?}", batch.losses);
            told.extend(batch.readings.into_iter().map(|reading| reading.value));
        }
        assert_eq!(told, [1, 2, 3, 4].map(Value::Int));
        bench.client.close().await;
    }

    #[tokio::test]
    async fn without_history_a_value_that_moved_meanwhile_is_a_loss() {
        for (moves, losses) in [(true, 1), (false, 0)] {
            let mut bench = Bench::with(false, None).await;
            if moves {
                bench.server.mute("Good"); // so that the old subscription does not tell it
                bench.server.set("Good", 5_i64, after(5));
            }
            bench.answer(Rung::Renew).await.expect("answered");
            let lost = bench.batches.try_recv().map(|batch| batch.losses).unwrap_or_default();
            assert_eq!(lost.len(), losses, "{lost:?}");
            for loss in lost {
                assert_eq!((&*loss.source, loss.count), ("a", 1));
                assert!(
                    loss.reason.contains("subscribed anew") && loss.reason.contains("no history"),
                    "{}",
                    loss.reason
                );
            }
            bench.client.close().await;
        }
    }

    /// The value is the same that was told before; it is told again, for nothing else makes the tag good.
    #[tokio::test]
    async fn a_tag_that_its_age_made_bad_is_told_again() {
        let mut bench = Bench::with(true, Some(Duration::from_millis(50))).await;
        for rung in [Rung::Look, Rung::Renew] {
            bench.outlet.begin();
            let batch = tokio::select! {
                stopped = bench.outlet.tend() => panic!("{stopped}"),
                batch = bench.batches.recv() => batch.expect("it lives"),
            };
            assert_eq!(batch.readings[0].validity, Validity::Bad(Status::Own(OwnStatus::Stale)));
            bench.answer(rung).await.expect("answered");
            assert_eq!(bench.next().await, (Value::Int(0), false), "{rung:?}");
        }
        bench.client.close().await;
    }

    #[tokio::test]
    async fn an_item_that_is_dead_at_the_server_is_found_and_watched_anew() {
        for history in [true, false] {
            let mut bench = Bench::with(history, None).await;
            bench.server.mute("Good");
            bench.server.set("Good", 1_i64, after(1));
            bench.server.set("Good", 2_i64, after(2));
            bench.answer(Rung::Look).await.expect("answered");
            let batch = bench.batches.try_recv().expect("read");
            assert_eq!(batch.readings[0].value, Value::Int(2));
            let (mut told, mut lost) = (Vec::new(), 0);
            // By itself, once the subscription had time enough to tell it as well.
            let Bench { client, outlet, batches, server } = &mut bench;
            let flow = client.flow(outlet);
            tokio::pin!(flow);
            while told.last() != Some(&(Value::Int(3), false)) {
                let batch = tokio::select! {
                    error = &mut flow => panic!("{:?}", error.err()),
                    batch = batches.recv() => batch.expect("it lives"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {
                        if !server.mutes("Good") {
                            server.set("Good", 3_i64, after(3));
                        }
                        continue;
                    }
                };
                lost += batch.losses.iter().map(|loss| loss.count).sum::<u64>();
                told.extend(batch.readings.into_iter().map(|reading| (reading.value, reading.backfilled)));
            }
            let expected = if history { vec![(Value::Int(1), true)] } else { vec![] };
            assert_eq!((&told[..told.len() - 1], lost), (expected.as_slice(), u64::from(!history)));
            assert_eq!(server.sessions(), 1);
        }
    }
}
