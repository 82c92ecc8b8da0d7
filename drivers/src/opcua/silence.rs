//! Tags that are silent though the link stands: asked for, then subscribed anew, then the link is given up.

use std::time::Duration;

use opcua::types::{ReadValueId, TimestampsToReturn};
use tracing::info;

use super::backfill::Gap;
use super::find::handle;
use super::link::Link;
use super::{Client, convert, stopping};
use crate::{Batch, LinkError, Outlet, Rung, Stale, TagId, Time};

impl Client {
    /// Does something about tags that are silent though the link stands.
    pub(super) async fn answer(&mut self, stale: &Stale, outlet: &Outlet) -> Result<(), LinkError> {
        match stale.rung {
            Rung::Look => self.look(&stale.tags, outlet).await,
            Rung::Renew => {
                info!(tags = stale.tags.len(), "silent: subscribing anew");
                if let Some(link) = self.link.as_mut() {
                    self.held.extend(link.unsubscribe().await?);
                }
                self.sequences.clear();
                self.catch_up(Gap::Subscription, outlet).await
            }
            Rung::Reconnect => Err(LinkError::Silent(self.link.as_ref().map_or(Duration::ZERO, Link::silence))),
        }
    }

    /// Reads tags. What is new of them is told; what stands is vouched for.
    async fn look(&mut self, tags: &[TagId], outlet: &Outlet) -> Result<(), LinkError> {
        let asked: Vec<(usize, ReadValueId)> = (0..self.items.len())
            .filter(|&place| tags.contains(&self.items[place].tag))
            .filter_map(|place| Some((place, ReadValueId::from(self.node(place)?))))
            .collect();
        let nodes: Vec<ReadValueId> = asked.iter().map(|(_, node)| node.clone()).collect();
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let answers = link.read(nodes, TimestampsToReturn::Both).await?;
        let received = Time::now();
        let mut batch = Batch::default();
        let mut same = Vec::new();
        for ((place, _), value) in asked.into_iter().zip(answers) {
            let value = self.picks.of_all(handle(place), value);
            self.hear(place, convert::reading(self.items[place].tag, value, received), &mut batch, &mut same);
        }
        if !same.is_empty() {
            outlet.confirm(&same, received);
        }
        if batch.readings.is_empty() { Ok(()) } else { outlet.deliver(batch).await.map_err(|_| stopping()) }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};

    use super::super::{Config, Identity, Pick, Security, Station, Tag};
    use super::*;
    use crate::sim::opcua::OpcuaServer;
    use crate::{Driver, LinkState, Value};

    const NOON: Time = Time(1_795_000_000_000_000_000);

    struct Bench {
        server: OpcuaServer,
        client: Client,
        outlet: Outlet,
        batches: mpsc::Receiver<Batch>,
    }

    impl Bench {
        async fn new() -> Self {
            let mut server = OpcuaServer::start_at("urn:a", [("Good", 0_i64)], NOON).await.expect("a port");
            server.keep_history().await.expect("the port is free");
            let tag = Tag { id: TagId(0), node: server.node("Good").parse().expect("a node"), pick: Pick::default() };
            let station =
                Station { name: "a".into(), publish: Duration::from_millis(20), tags: vec![tag], events: Vec::new() };
            let mut client = Client::new(Config {
                endpoint: server.endpoint(),
                spares: Vec::new(),
                security: Security::None,
                identity: Identity::Anonymous,
                timeout: Duration::from_secs(5),
                stations: vec![station],
            });
            client.connect().await.expect("up");
            let (to, batches) = mpsc::channel(16);
            let outlet = Outlet::new(to, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
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
}
