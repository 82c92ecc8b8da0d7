//! MQTT 3.1.1 and 5 subscriber: JSON, CSV, plain and binary payloads, and Sparkplug B.
//!
//! One session a client id, for all stations on it. A message of quality of service 1 is acknowledged once what
//! it brought is durable (its [`Receipt`] is signed), on the connection that brought it; what is not
//! acknowledged when a connection ends comes again from the broker. What was taken in already is then only
//! acknowledged, once it is durable: an older count would look like a counter's reset.
//!
//! We subscribe when the broker has no session of ours. A session that it kept is asked at once only for what it lacks, and
//! later, when what was queued is in, for the topics of tags of which nothing came: what the broker retains is all that tells
//! how they stand ([`retained`]). So each start and each connection looks at session-present, and none floods the line.
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
mod retained;
mod session;
pub mod sparkplug;
mod subscriptions;
mod survey;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, info, warn};

pub use config::{
    Column, ColumnAt, Config, Credentials, Endpoint, Field, Fields, Identity, Kind, Metric, Payload, SourceTime, Text,
    TimeFormat, Topic, TopicTag, Version,
};
pub use payload::Payloads;

use self::held::Held;
use self::retained::Retained;
use self::session::{Event, Message, Say, Session, Unsigned, Watch};
use self::subscriptions::Subscriptions;
use crate::{
    Batch, Deliveries, Delivery, Driver, Keep, LinkError, Outlet, OwnStatus, Reading, Receipt, Rung, Stale, Status,
    TagId, Time, Validity, trace,
};

/// How long a stop waits for what was delivered to become durable: some commits of the usual `spool.sync`, and less
/// than the supervisor allows for the whole goodbye.
const SETTLE: Duration = Duration::from_millis(900);

/// A broker that hangs up so soon after it let us in may have let in another client under our name: that one tries again
/// after the supervisor's longest pause at the latest.
const SOON: Duration = Duration::from_secs(60);

/// The driver.
pub struct Client {
    config: Config,
    payloads: Payloads,
    subscriptions: Subscriptions,
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
    /// What is stored of the session before it has still to be declared void.
    void: bool,
    /// The session's lasting name.
    name: Arc<str>,
    /// The filters that the broker's session has, as far as we know.
    held: Held,
    /// What this connection has heard of.
    retained: Retained,
    /// When this connection was begun, as a Sparkplug host says it.
    since: Time,
    /// When the broker let us in, and how often in a row it hung up soon after that.
    hung_up: (Option<Instant>, u32),
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        let retained = Retained::new(config.topics.iter().flat_map(|topic| topic.payload.counters()));
        let payloads = Payloads::new(std::mem::take(&mut config.topics), config.max_payload, config.rebirth);
        // A host hears what is said of it, and hears it before it says anything.
        let own_word = config.host_id.as_deref().map(|host| (sparkplug::state_topic(host), 1));
        Self {
            subscriptions: Subscriptions::new(payloads.filters().into_iter().chain(own_word).collect()),
            payloads,
            session: None,
            early: None,
            unsigned: Unsigned::default(),
            durable: Arc::new(watch::Sender::new(0)),
            delivered: 0,
            received: Deliveries::default(),
            anew: false,
            void: false,
            name: config.session().into(),
            held: Held::default(),
            retained,
            since: Time::default(),
            hung_up: (None, 0),
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
                        // Identifiers begin anew, and nothing comes again.
                        self.void |= !self.received.is_empty();
                        self.received.clear();
                        self.anew = true;
                    }
                    self.hung_up.0 = Some(Instant::now());
                    self.held.connected(resumed);
                    let mut left = self.held.unwanted(|filter| self.subscriptions.has(filter));
                    if !left.is_empty() {
                        debug!(topics = ?left, "the session has topics that are not wanted any more");
                        let (filters, answers) = session.unsubscribe(&left).await.map_err(while_connecting)?;
                        left.truncate(filters);
                        self.held.leave(left, answers);
                    }
                    self.subscriptions.connected(resumed, |filter| self.held.has(filter));
                    self.retained.begin(self.payloads.tags(), resumed, Instant::now());
                    if self.void {
                        return Ok(()); // no message may come before that
                    }
                    ask(session, &mut self.subscriptions).await.map_err(while_connecting)?;
                    if self.subscriptions.is_settled() {
                        return Ok(());
                    }
                }
                Event::Asked(packet) => self.subscriptions.left(packet),
                Event::Subscribed(packet, granted) => {
                    answered(&mut self.subscriptions, &mut self.held, packet, &granted);
                    ask(session, &mut self.subscriptions).await.map_err(while_connecting)?;
                    if self.subscriptions.is_settled() {
                        return nothing_granted(&self.subscriptions);
                    }
                }
                Event::Unsubscribed => self.held.left(),
                // The backlog of a resumed session. The link is up, and the word on our topics is heard when it
                // comes: a broker may hold it back until messages are acknowledged.
                Event::Message(message) => {
                    self.early = Some(message);
                    return Ok(());
                }
                Event::Alive | Event::Sent => {}
            }
        }
    }

    /// What the session is subscribed to becomes durable, for the next process.
    async fn tell_held(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        let Some(filters) = self.held.news().filter(|_| self.config.is_persistent()) else { return Ok(()) };
        let (durable, session) = (Arc::clone(&self.durable), Arc::clone(&self.name));
        let receipt = Some(Receipt::new(durable, self.delivered, session, Keep::Filters(filters)));
        deliver(outlet, Batch { receipt, ..Batch::default() }).await
    }

    /// Identifiers of a new session mean other messages than those that are stored of the one before. Before the first
    /// message can come, that is made durable: a process that dies now would else leave the next one to take a message that
    /// it never read for an old one. Storage that does not answer is waited for no longer than a connect.
    async fn declare_void(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        if !self.void {
            return Ok(());
        }
        self.delivered += 1;
        let (number, mut durable) = (self.delivered, self.durable.subscribe());
        let keep = Keep::Delivery(Delivery::BEGIN);
        let receipt = Some(Receipt::new(Arc::clone(&self.durable), number, Arc::clone(&self.name), keep));
        deliver(outlet, Batch { receipt, ..Batch::default() }).await?;
        if timeout(self.config.timeout, durable.wait_for(|durable| *durable >= number)).await.is_err() {
            warn!("nothing becomes durable; a message that comes again after a crash may be taken for an older one");
        }
        self.void = false;
        Ok(())
    }

    /// Says what a Sparkplug host has to say; nothing unless the configuration makes us one.
    async fn speak(&mut self, begin: bool) -> Result<(), LinkError> {
        let now = Time::now();
        if begin {
            self.payloads.greet(now);
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(host) = self.config.host_id.as_deref().filter(|_| begin) {
            session.say(Say::Retain(sparkplug::state(host, true, self.since))).await.map_err(while_running)?;
        }
        for command in self.payloads.requests(now) {
            debug!(topic = %command.0, "asking for a birth");
            session.say(Say::Publish(command)).await.map_err(while_running)?;
        }
        Ok(())
    }

    /// The will of an older connection of ours may be told late, and nodes would believe that we are gone: a host that hears
    /// so says again that it is there (Sparkplug 3.0, 6.4.26).
    async fn contradict(&mut self, message: &Message) -> Result<(), LinkError> {
        let (Some(host), Some(session)) = (self.config.host_id.as_deref(), &mut self.session) else { return Ok(()) };
        if message.topic() != sparkplug::state_topic(host) || !sparkplug::is_offline(message.payload()) {
            return Ok(());
        }
        info!(host, "somebody said that we are gone");
        session.say(Say::Retain(sparkplug::state(host, true, self.since))).await.map_err(while_running)
    }

    /// A message, from its arrival until the pipeline has it.
    async fn take(&mut self, message: &Message, outlet: &Outlet) -> Result<(), LinkError> {
        let span = trace::client!("message", messaging.destination.name = message.topic());
        let taken = self.pass_on(message, outlet).instrument(span.clone()).await;
        taken.inspect_err(|error| trace::failed(&span, error))
    }

    /// What was retained may be of any age. Where that matters and no source dated it, it is not told as fresh.
    fn doubt_age(&self, reading: &mut Reading) {
        let dated = reading.source_time != reading.received_time;
        if reading.validity == Validity::Good && !dated && self.config.aged.contains(&reading.tag) {
            reading.validity = Validity::Uncertain(Status::Own(OwnStatus::Retained));
        }
    }

    /// Hands over what `message` says, and remembers to acknowledge it.
    async fn pass_on(&mut self, message: &Message, outlet: &Outlet) -> Result<(), LinkError> {
        self.contradict(message).await?;
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
        let news = batch.and_then(|mut batch| {
            let said = !batch.is_empty();
            self.retained.take(message.retained(), &mut batch.readings, Instant::now());
            if message.retained() {
                batch.readings.iter_mut().for_each(|reading| self.doubt_age(reading));
            }
            (!said || !batch.is_empty()).then_some(batch)
        });
        let Some(mut batch) = news else {
            // Nobody asked for it: a topic that an older configuration left in the session, or retained words that say
            // nothing new. It is done with as soon as what came before it.
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
            self.declare_void(outlet).await?;
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
                ask(session, &mut self.subscriptions).await.map_err(while_running)?;
                let (payloads, subscriptions) = (&mut self.payloads, &mut self.subscriptions);
                let (retained, durable_now, delivered) = (&mut self.retained, &self.durable, self.delivered);
                let births = payloads.pause(Time::now()).map(|pause| Instant::now() + pause);
                let at = [subscriptions.due(), retained.due(), births].into_iter().flatten().min();
                let mut say = |stale: Option<&Stale>| {
                    let now = Instant::now();
                    match stale.map(|stale| (stale.rung, &stale.tags)) {
                        None | Some((Rung::Look, _)) => {}
                        Some((Rung::Renew, tags)) => {
                            retained.silent(tags);
                            renew(subscriptions, payloads, &tags.iter().copied().collect());
                        }
                        Some((Rung::Reconnect, _)) => return Err(silent(outlet)),
                    }
                    if let Some(stale) = stale {
                        payloads.wake(&stale.tags, Time::now());
                    }
                    if let Some(missing) = retained.tend(*durable_now.borrow() >= delivered, now) {
                        renew(subscriptions, payloads, missing);
                    }
                    subscriptions.tend(now);
                    let subscribes = std::iter::from_fn(|| subscriptions.next()).map(Say::Subscribe);
                    Ok(payloads.requests(Time::now()).into_iter().map(Say::Publish).chain(subscribes).collect())
                };
                let watch = Watch { outlet, at, say: &mut say };
                match session.next(&mut self.unsigned, &mut durable, Some(watch)).await.map_err(while_running)? {
                    Event::Message(message) => self.take(&message, outlet).await?,
                    Event::Asked(packet) => self.subscriptions.left(packet),
                    Event::Subscribed(packet, granted) => {
                        outlet.alive(Time::now());
                        if answered(&mut self.subscriptions, &mut self.held, packet, &granted) {
                            nothing_granted(&self.subscriptions)?;
                            self.tell_refused(outlet).await?;
                        }
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
            Err(error) => self.judge(error),
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
                let gone = Say::Retain(sparkplug::state(host, false, self.since));
                let _ = timeout(SETTLE / 2, session.say(gone)).await;
            }
            session.close().await;
        }
    }
}

impl Client {
    /// A broker of version 3.1.1 cannot say why it hangs up. Where two clients have one client_id, each connection of the
    /// one ends that of the other, and each gets half of what the session holds.
    fn judge(&mut self, error: LinkError) -> LinkError {
        let (up, times) = &mut self.hung_up;
        let soon = up.take().is_some_and(|up| up.elapsed() < SOON);
        match error {
            LinkError::Broken(why) if why == session::CLOSED && soon => *times += 1,
            other => {
                *times = 0;
                return other;
            }
        }
        if *times < 2 {
            return LinkError::Broken(session::CLOSED.to_owned());
        }
        let id = &self.config.client_id;
        LinkError::Broken(format!(
            "{} again soon after it let us in; does another client use the client_id `{id}`? Give each its own",
            session::CLOSED
        ))
    }

    /// Tags that we may not subscribe to are bad for that reason, not for want of data.
    async fn tell_refused(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        let refused = self.payloads.tags_of(|filter| self.subscriptions.is_refused(filter));
        if refused.is_empty() {
            return Ok(());
        }
        let now = Time::now();
        let bad = |tag| Reading::bad(tag, Status::Own(OwnStatus::Refused), now, now);
        deliver(outlet, Batch { readings: refused.into_iter().map(bad).collect(), ..Batch::default() }).await
    }
}

async fn deliver(outlet: &Outlet, batch: Batch) -> Result<(), LinkError> {
    outlet.deliver(batch).await.map_err(|stopped| LinkError::Broken(stopped.to_string()))
}

/// Asks for the filters that are to be asked for now.
async fn ask(session: &mut Session, subscriptions: &mut Subscriptions) -> Result<(), LinkError> {
    while let Some(filters) = subscriptions.next() {
        session.say(Say::Subscribe(filters)).await?;
    }
    Ok(())
}

/// The broker says which filters it grants us. Whether it refuses one that it did not refuse before: that makes the tags
/// of this filter bad and disturbs no other.
fn answered(subscriptions: &mut Subscriptions, held: &mut Held, packet: u16, granted: &[bool]) -> bool {
    let answer = subscriptions.answered(packet, granted, Instant::now());
    for topic in &answer.refused {
        warn!(%topic, "the broker does not let us subscribe");
    }
    if answer.relented {
        info!("the broker lets us subscribe to what it refused before");
    }
    for filter in &answer.granted {
        held.granted(filter);
    }
    !answer.refused.is_empty()
}

/// A broker that refuses everything is no link.
fn nothing_granted(subscriptions: &Subscriptions) -> Result<(), LinkError> {
    match subscriptions.all_refused() {
        Some(first) => Err(LinkError::Refused(format!("the broker does not let us subscribe to `{first}`"))),
        None => Ok(()),
    }
}

/// Asks again for the filters that carry one of `tags`: brokers send what they retain. The others are left alone, since what
/// is retained is told anew for each tag of theirs.
fn renew(subscriptions: &mut Subscriptions, payloads: &Payloads, tags: &BTreeSet<TagId>) {
    let carrying = payloads.carrying(tags);
    subscriptions.renew(|filter| carrying.contains(filter));
}

/// The link stands and brings nothing: it is given up.
fn silent(outlet: &Outlet) -> LinkError {
    let alive = outlet.state().alive;
    LinkError::Silent(alive.map_or(Duration::ZERO, |alive| Time::now().since(alive)))
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
