//! MQTT 3.1.1 and 5 subscriber: JSON, CSV, plain and binary payloads, and Sparkplug B.
//!
//! One session a client id, for all stations on it. A message of quality of service 1 is acknowledged once what
//! it brought is durable (its [`Receipt`] is signed), on the connection that brought it; what is not
//! acknowledged when a connection ends comes again from the broker. What was taken in already is then only
//! acknowledged, once it is durable: an older count would look like a counter's reset.
//!
//! We subscribe when the broker has no session of ours, and at the first connection of each start, since the
//! topics may be others than the session knows, and since retained messages are all that tells how things stand. Not at
//! each: a broker sends its retained messages again then, and what it kept says nothing about the gap.
//! What the session was subscribed to becomes durable as deliveries do, so that a later process lets go of what the
//! configuration has no more. (A process that dies between a subscription and the next commit leaves the filters that
//! were new in it unknown; what comes by them is acknowledged and passed over.)
//!
//! Nothing is ever published, except by a Sparkplug host application that the configuration makes of us: requests for a
//! birth (`rebirth`), and the word that we are there (`host_id`).

mod config;
mod filter;
mod held;
mod payload;
mod session;
pub mod sparkplug;
mod survey;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, warn};

pub use config::{
    Column, ColumnAt, Config, Credentials, Endpoint, Field, Fields, Identity, Kind, Metric, Payload, SourceTime, Text,
    TimeFormat, Topic, TopicTag, Version,
};
pub use payload::Payloads;

use self::held::Held;
use self::session::{Event, Message, Session, Unsigned, Watch};
use crate::{
    Batch, Deliveries, Delivery, Driver, Keep, LinkError, Outlet, OwnStatus, Reading, Receipt, Stale, Status, TagId,
    Time, trace,
};

/// How long a stop waits for what was delivered to become durable: some commits of the usual `spool.sync`, and less
/// than the supervisor allows for the whole goodbye.
const SETTLE: Duration = Duration::from_millis(900);

/// The driver.
pub struct Client {
    config: Config,
    payloads: Payloads,
    filters: Vec<(String, u8)>,
    session: Option<Session>,
    /// What came while we connected.
    early: Option<Message>,
    /// Messages of this connection that are not acknowledged.
    unsigned: Unsigned,
    /// The last delivery that is durable.
    durable: Arc<watch::Sender<u64>>,
    /// The last delivery that was made. Numbers go on across connections.
    delivered: u64,
    /// What was delivered last, by this process or those before it.
    received: Deliveries,
    /// The broker has a new session for us, and nothing of it was delivered yet.
    anew: bool,
    /// The session's lasting name.
    name: Arc<str>,
    /// The broker has told us, since the start, which of our filters it grants.
    subscribed: bool,
    /// Tags that come by no filter that the broker grants us.
    refused: Vec<TagId>,
    /// The filters that the broker's session has, as far as we know.
    held: Held,
    /// When this connection was begun, as a Sparkplug host says it.
    since: Time,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        let payloads = Payloads::new(std::mem::take(&mut config.topics), config.max_payload, config.rebirth);
        Self {
            filters: payloads.filters(),
            payloads,
            session: None,
            early: None,
            unsigned: Unsigned::default(),
            durable: Arc::new(watch::Sender::new(0)),
            delivered: 0,
            received: Deliveries::default(),
            anew: false,
            name: config.session().into(),
            subscribed: false,
            refused: Vec::new(),
            held: Held::default(),
            since: Time::default(),
            config,
        }
    }

    /// A driver that knows what a process before it made durable of this session.
    #[must_use]
    pub fn having(self, received: Deliveries) -> Self {
        Self { received, ..self }
    }

    /// And that knows which filters the session had then.
    #[must_use]
    pub fn subscribed_to(self, filters: impl IntoIterator<Item = String>) -> Self {
        Self { held: Held::new(filters), ..self }
    }

    /// From nothing to a session that has our topics.
    async fn establish(&mut self) -> Result<(), LinkError> {
        let mut durable = self.durable.subscribe();
        self.since = Time::now();
        let session = self.session.insert(Session::new(&self.config, self.since)?);
        loop {
            match session.next(&mut self.unsigned, &mut durable, None).await.map_err(while_connecting)? {
                Event::Connected { resumed } => {
                    if !resumed {
                        // Identifiers begin anew, and nothing comes again. Nor is it told of our topics yet, should
                        // this connection break before it is.
                        self.received.clear();
                        (self.anew, self.subscribed) = (true, false);
                    }
                    self.held.connected(resumed);
                    let mut left = self.held.unwanted(&self.filters);
                    if !left.is_empty() {
                        debug!(topics = ?left, "the session has topics that are not wanted any more");
                        let answers = session.unsubscribe(&left).await.map_err(while_connecting)?;
                        left.truncate(if answers == 1 { left.len() } else { answers });
                        self.held.leave(left, answers);
                    }
                    if (resumed && self.subscribed) || self.filters.is_empty() {
                        return Ok(());
                    }
                    session.subscribe(&self.filters).await.map_err(while_connecting)?;
                }
                Event::Subscribed(granted) => break self.granted(&granted),
                Event::Unsubscribed => self.held.left(),
                // The backlog of a resumed session. The link is up, and the word on our topics is heard when it
                // comes: a broker may hold it back until messages are acknowledged.
                Event::Message(message) => {
                    self.early = Some(message);
                    break Ok(());
                }
                Event::Alive | Event::Sent => {}
            }
        }
    }

    /// The broker says which filters it grants us. A refused one makes its tags bad and disturbs no other.
    fn granted(&mut self, granted: &[bool]) -> Result<(), LinkError> {
        let is_refused = |(at, _): &(usize, &(String, u8))| granted.get(*at) == Some(&false);
        let refused: Vec<_> =
            self.filters.iter().enumerate().filter(is_refused).map(|(_, (filter, _))| filter).collect();
        for topic in &refused {
            warn!(%topic, "the broker does not let us subscribe");
        }
        if let Some(first) = refused.first()
            && refused.len() == self.filters.len()
        {
            return Err(LinkError::Refused(format!("the broker does not let us subscribe to `{first}`")));
        }
        self.refused = self.payloads.tags_of(|filter| refused.iter().any(|refused| *refused == filter));
        self.subscribed = true;
        let kept = self.filters.iter().map(|(filter, _)| filter).filter(|filter| !refused.contains(filter));
        for filter in kept {
            self.held.granted(filter);
        }
        Ok(())
    }

    /// What the session is subscribed to becomes durable, for the next process.
    async fn tell_held(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        let Some(filters) = self.held.news().filter(|_| !self.config.clean_session) else { return Ok(()) };
        let (durable, session) = (Arc::clone(&self.durable), Arc::clone(&self.name));
        let receipt = Some(Receipt::new(durable, self.delivered, session, Keep::Filters(filters)));
        deliver(outlet, Batch { receipt, ..Batch::default() }).await
    }

    /// Says what a Sparkplug host has to say; nothing unless the configuration makes us one.
    async fn speak(&mut self, begin: bool) -> Result<(), LinkError> {
        let now = Time::now();
        if begin {
            self.payloads.greet(now);
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(host) = self.config.host_id.as_deref().filter(|_| begin) {
            let (topic, payload) = sparkplug::state(host, true, self.since);
            session.publish(topic, payload, true).await.map_err(while_running)?;
        }
        for (topic, payload) in self.payloads.requests(now) {
            debug!(%topic, "asking for a birth");
            session.publish(topic, payload, false).await.map_err(while_running)?;
        }
        Ok(())
    }

    /// A message, from its arrival until the pipeline has it.
    async fn take(&mut self, message: &Message, outlet: &Outlet) -> Result<(), LinkError> {
        let span = trace::client!("message", messaging.destination.name = message.topic());
        let taken = self.pass_on(message, outlet).instrument(span.clone()).await;
        taken.inspect_err(|error| trace::failed(&span, error))
    }

    /// Hands over what `message` says, and remembers to acknowledge it.
    async fn pass_on(&mut self, message: &Message, outlet: &Outlet) -> Result<(), LinkError> {
        if let Some(ack) = message.ack()
            && message.again()
            && let Some(since) = self.received.since(ack.pkid, message.digest())
        {
            debug!(packet = ack.pkid, topic = message.topic(), "received before");
            // What a process before us delivered is durable, and so is delivery 0.
            self.unsigned.push(self.delivered.saturating_sub(since), ack);
            outlet.alive(Time::now());
            return Ok(());
        }
        let batch = self.payloads.read(message.topic(), message.payload(), Time::now());
        let Some(mut batch) = batch else {
            // Nobody asked for it: a topic that an older configuration left in the session. It is done with as
            // soon as what came before it.
            if let Some(ack) = message.ack() {
                self.unsigned.push(self.delivered, ack);
            }
            outlet.alive(Time::now());
            return Ok(());
        };
        if let Some(ack) = message.ack() {
            self.delivered += 1;
            self.unsigned.push(self.delivered, ack);
            let anew = std::mem::take(&mut self.anew);
            let delivery = Delivery { packet: ack.pkid, digest: message.digest(), anew };
            self.received.push(delivery);
            let (durable, session) = (Arc::clone(&self.durable), Arc::clone(&self.name));
            batch.receipt = Some(Receipt::new(durable, self.delivered, session, Keep::Delivery(delivery)));
        }
        deliver(outlet, batch).await?;
        self.speak(false).await
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.payloads.tags()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.close().await;
        let limit = self.config.timeout;
        let established = timeout(limit, self.establish())
            .await
            .unwrap_or_else(|_| Err(LinkError::Unreachable(format!("no answer within {limit:?}"))));
        if established.is_err() {
            self.close().await;
        }
        established
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let mut durable = self.durable.subscribe();
        let error = async {
            self.tell_refused(outlet).await?;
            self.speak(true).await?;
            loop {
                self.tell_held(outlet).await?;
                if let Some(message) = self.early.take() {
                    self.take(&message, outlet).await?;
                    continue;
                }
                let Some(session) = &mut self.session else {
                    return Err(LinkError::Broken("not connected".to_owned()));
                };
                let due = self.payloads.pause(Time::now()).map(|pause| Instant::now() + pause);
                let payloads = &mut self.payloads;
                let mut wake = |stale: &Stale| {
                    let now = Time::now();
                    payloads.wake(&stale.tags, now);
                    payloads.requests(now)
                };
                let watch = Watch { outlet, filters: &self.filters, wake: &mut wake, due };
                match session.next(&mut self.unsigned, &mut durable, Some(watch)).await.map_err(while_running)? {
                    Event::Message(message) => self.take(&message, outlet).await?,
                    Event::Subscribed(granted) => {
                        self.granted(&granted)?;
                        self.tell_refused(outlet).await?;
                    }
                    Event::Unsubscribed => {
                        outlet.alive(Time::now());
                        self.held.left();
                    }
                    Event::Connected { .. } | Event::Alive => outlet.alive(Time::now()),
                    Event::Sent => {}
                }
            }
        };
        let result: Result<std::convert::Infallible, LinkError> = error.await;
        // An acknowledgement belongs to the connection that brought the message.
        self.unsigned = Unsigned::default();
        match result {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// At a stop, what was delivered is acknowledged first, if it becomes durable soon.
    async fn close(&mut self) {
        let mut unsigned = std::mem::take(&mut self.unsigned);
        self.early = None;
        if let Some(mut session) = self.session.take() {
            let mut durable = self.durable.subscribe();
            if !matches!(timeout(SETTLE, session.settle(&mut unsigned, &mut durable)).await, Ok(Ok(()))) {
                debug!("stopping before everything was acknowledged; the broker sends it again");
            }
            if let Some(host) = &self.config.host_id {
                // A goodbye takes the will back, so it is said in person.
                let (topic, payload) = sparkplug::state(host, false, self.since);
                let _ = timeout(SETTLE / 2, session.publish(topic, payload, true)).await;
            }
            session.close().await;
        }
    }
}

impl Client {
    /// Tags that we may not subscribe to are bad for that reason, not for want of data.
    async fn tell_refused(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let now = Time::now();
        let bad = |&tag| Reading::bad(tag, Status::Own(OwnStatus::Refused), now, now);
        deliver(outlet, Batch { readings: self.refused.iter().map(bad).collect(), ..Batch::default() }).await
    }
}

async fn deliver(outlet: &Outlet, batch: Batch) -> Result<(), LinkError> {
    outlet.deliver(batch).await.map_err(|stopped| LinkError::Broken(stopped.to_string()))
}

/// What breaks before the link is up was never up.
fn while_connecting(error: LinkError) -> LinkError {
    match error {
        LinkError::Broken(why) => LinkError::Unreachable(format!("{why} before it let us in")),
        other => other,
    }
}

/// What was up and is not reachable any more broke.
fn while_running(error: LinkError) -> LinkError {
    match error {
        LinkError::Unreachable(why) => LinkError::Broken(why),
        other => other,
    }
}
