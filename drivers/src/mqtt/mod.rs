//! MQTT 3.1.1 and 5 subscriber with JSON payloads.
//!
//! One session a client id, for all stations on it. A message of quality of service 1 is acknowledged once what
//! it brought is durable (its [`Receipt`] is signed), on the connection that brought it; what is not
//! acknowledged when a connection ends comes again from the broker. What was taken in already is then only
//! acknowledged, once it is durable: an older count would look like a counter's reset.
//!
//! We subscribe when the broker has no session of ours, and at the first connection of each start, since the
//! topics may be others than the session knows. Not at each: a broker sends its retained messages again then.

mod config;
mod payload;
mod pick;
mod session;
mod survey;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{Instrument, debug, warn};

pub use config::{Config, Credentials, Endpoint, SourceTime, TimeFormat, Topic, TopicTag, Version};

use self::payload::Payloads;
use self::session::{Event, Message, Session, Unsigned};
use crate::{
    Batch, Deliveries, Delivery, Driver, LinkError, Outlet, OwnStatus, Reading, Receipt, Status, TagId, Time, trace,
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
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        let payloads = Payloads::new(std::mem::take(&mut config.topics), config.max_payload);
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
            config,
        }
    }

    /// A driver that knows what a process before it made durable of this session.
    #[must_use]
    pub fn having(self, received: Deliveries) -> Self {
        Self { received, ..self }
    }

    /// From nothing to a session that has our topics.
    async fn establish(&mut self) -> Result<(), LinkError> {
        let mut durable = self.durable.subscribe();
        let session = self.session.insert(Session::new(&self.config)?);
        loop {
            match session.next(&mut self.unsigned, &mut durable).await.map_err(while_connecting)? {
                Event::Connected { resumed } => {
                    if !resumed {
                        // Identifiers begin anew, and nothing comes again. Nor is it told of our topics yet, should
                        // this connection break before it is.
                        self.received.clear();
                        (self.anew, self.subscribed) = (true, false);
                    }
                    if (resumed && self.subscribed) || self.filters.is_empty() {
                        return Ok(());
                    }
                    session.subscribe(&self.filters).await.map_err(while_connecting)?;
                }
                Event::Subscribed(granted) => break self.granted(&granted),
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
            batch.receipt = Some(Receipt::new(durable, self.delivered, session, delivery));
        }
        deliver(outlet, batch).await
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
            loop {
                if let Some(message) = self.early.take() {
                    self.take(&message, outlet).await?;
                    continue;
                }
                let Some(session) = &mut self.session else {
                    return Err(LinkError::Broken("not connected".to_owned()));
                };
                match session.next(&mut self.unsigned, &mut durable).await.map_err(while_running)? {
                    Event::Message(message) => self.take(&message, outlet).await?,
                    Event::Subscribed(granted) => {
                        self.granted(&granted)?;
                        self.tell_refused(outlet).await?;
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
