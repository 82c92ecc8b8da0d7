//! OPC UA client: one session, one subscription.
//!
//! Each connect makes a fresh session of the library and each loss throws it away: its own reconnect
//! says "connected" and delivers nothing. The session lives only while it is polled, in the task that
//! owns this driver. While the agent cannot take a batch the session rests, so that values wait in the
//! server's queues; what does not fit there comes back with a flag and is a loss in the ledger.
//!
//! Of the services of OPC UA only those that read are called, and one method: ConditionRefresh, which lets the server
//! tell its alarms again and changes nothing at the device (OPC 10000-9, 5.5.7).

mod ask;
mod browse;
mod config;
mod convert;
mod dial;
mod endpoint;
mod event;
mod find;
mod identity;
mod link;
mod node;
mod path;
mod pick;
pub mod pki;
mod redundancy;
mod security;
mod survey;
mod types;
mod units;

pub use config::{Config, Station, Tag};
pub use event::Notifier;
pub use node::{Address, Identifier, Namespace, Node};
pub use path::Path;
pub use pick::{Field, Pick, Range};
pub use pki::Pki;
pub use security::{Identity, Mode, Policy, Secured, Security};

use std::mem;
use std::sync::Arc;

use opcua::types::{
    DataChangeNotification, EventFieldList, EventNotificationList, MonitoredItemNotification, NumericRange,
    StatusChangeNotification,
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info, warn};

use crate::{Batch, Driver, LinkError, Loss, Outlet, Reading, Status, TagId, Time, trace};
use event::{Events, Told};
use link::{Link, Notice, Want};
use pick::Picks;
use redundancy::Servers;

/// The driver.
pub struct Client {
    config: Config,
    /// What is watched; an item's client handle is its index here, plus one (0 means none to the library).
    items: Vec<Item>,
    link: Option<Link>,
    servers: Servers,
    /// What the server does not let us watch, to be told first.
    refused: Vec<Reading>,
    sequence: Sequence,
    /// What of their nodes' values the tags are.
    picks: Picks,
    /// Whose events are told, by station. Their handles follow those of the items.
    notifiers: Vec<(u32, Notifier)>,
    events: Events,
    namespaces: Vec<String>,
    subscription: u32,
}

#[derive(Clone, Copy)]
struct Item {
    tag: TagId,
    station: u32,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let items = (0u32..)
            .zip(&config.stations)
            .flat_map(|(station, told)| told.tags.iter().map(move |tag| Item { tag: tag.id, station }))
            .collect();
        let servers = Servers::of(&config);
        let notifiers = (0u32..)
            .zip(&config.stations)
            .flat_map(|(station, told)| told.events.iter().map(move |notifier| (station, notifier.clone())))
            .collect();
        Self {
            config,
            items,
            link: None,
            servers,
            refused: Vec::new(),
            sequence: Sequence::default(),
            picks: Picks::default(),
            notifiers,
            events: Events::default(),
            namespaces: Vec::new(),
            subscription: 0,
        }
    }

    /// Makes a session that watches nothing.
    async fn dial(&mut self) -> Result<&mut Link, LinkError> {
        self.close().await;
        self.sequence = Sequence::default();
        self.servers.reach(&self.config, &mut self.link).await?;
        self.link.as_mut().ok_or_else(|| LinkError::Broken("not connected".to_owned()))
    }

    /// Looks every node up and asks the server to watch it.
    async fn watch(&mut self) -> Result<(), LinkError> {
        let Some(publish) = self.config.stations.iter().map(|station| station.publish).min() else { return Ok(()) };
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let (namespaces, a_call) = link.ask_server().await?;
        let subscription = link.subscribe(publish).await?;

        let told =
            || self.config.stations.iter().flat_map(|station| station.tags.iter().map(move |tag| (station, tag)));
        let tags: Vec<_> = told().map(|(_, tag)| tag).collect();
        let addresses: Vec<_> = tags.iter().map(|tag| &tag.node).collect();
        let mut nodes = find::nodes(link, &namespaces, &addresses).await?;
        self.picks = find::picks(link, &tags, &mut nodes).await?;
        let mut wants = Vec::with_capacity(self.items.len());
        let mut refused = Vec::new();
        for ((handle, (station, tag)), node) in (1u32..).zip(told()).zip(nodes) {
            let range = tag.pick.range.as_ref().map(Range::asked).unwrap_or_default();
            match node {
                Ok(node) => wants.push(Want { handle, node, range, sampling: station.publish }),
                Err(status) => refused.push((handle, status)),
            }
        }
        let ranged: Vec<_> = wants.iter().filter(|want| want.range.has_range()).cloned().collect();
        let (no_range, denied): (Vec<_>, Vec<_>) =
            link.watch(subscription, wants, a_call).await?.into_iter().partition(|(handle, status)| {
                find::no_range(*status) && ranged.iter().any(|want| want.handle == *handle)
            });
        refused.extend(denied);
        // Servers that do not cut ranges out send the whole, and it is done here.
        let again = ranged.into_iter().filter(|want| no_range.iter().any(|(handle, _)| want.handle == *handle));
        let again: Vec<_> = again.map(|want| Want { range: NumericRange::None, ..want }).collect();
        again.iter().for_each(|want| self.picks.whole(want.handle));
        refused.extend(link.watch(subscription, again, a_call).await?);
        refused.sort_by_key(|(handle, _)| *handle);

        let wanted = find::notifiers(link, &namespaces, &self.notifiers, self.items.len()).await?;
        for (handle, status) in link.watch_events(subscription, &wanted).await? {
            warn!(handle, %status, "the server does not tell the events of this node");
        }
        if !wanted.is_empty() {
            self.events.kinds = link.event_types().await?;
        }
        self.events.refresh = self.notifiers.iter().any(|(_, notifier)| notifier.refresh);
        (self.namespaces, self.subscription) = (namespaces, subscription);

        info!(tags = self.items.len() - refused.len(), refused = refused.len(), "subscribed");
        let now = Time::now();
        self.refused = refused
            .into_iter()
            .filter_map(|(handle, status)| Some((item(&self.items, handle)?, status)))
            .map(|(item, status)| Reading::bad(item.tag, Status::Opcua(status.bits()), now, now))
            .collect();
        Ok(())
    }

    /// What a message says. Every value in it goes together.
    fn open(&mut self, notice: Notice) -> Result<Batch, LinkError> {
        let Notice { received, message } = notice;
        let parts = message.notification_data.unwrap_or_default();
        let mut batch = Batch::default();
        if parts.is_empty() {
            self.sequence.heard(received);
            return Ok(batch); // a keep-alive
        }
        if let Some((missing, since)) = self.sequence.follow(message.sequence_number, received) {
            warn!(missing, "messages of the subscription never came");
            batch.losses.extend(self.config.stations.iter().map(|station| Loss {
                source: station.name.clone(),
                from: since,
                to: received,
                count: missing.into(),
                reason: Arc::from("OPC UA: messages of the subscription never came"),
            }));
        }
        for part in parts {
            if let Some(change) = part.inner_as::<StatusChangeNotification>() {
                return Err(LinkError::Broken(format!("the server ended the subscription ({})", change.status)));
            }
            if let Some(told) = part.inner_as::<EventNotificationList>() {
                self.hear(told, received, &mut batch);
                continue;
            }
            let Some(change) = part.into_inner_as::<DataChangeNotification>() else { continue };
            self.take(change.monitored_items.unwrap_or_default(), received, &mut batch);
        }
        Ok(batch)
    }

    /// The station, if there is but one behind this server.
    fn only_station(&self) -> Option<&str> {
        let [station] = self.config.stations.as_slice() else { return None };
        Some(&station.name)
    }

    fn hear(&mut self, told: &EventNotificationList, received: Time, batch: &mut Batch) {
        for EventFieldList { client_handle, event_fields } in told.events.iter().flatten() {
            let at = (*client_handle as usize).checked_sub(self.items.len() + 1);
            let Some((station, notifier)) = at.and_then(|at| self.notifiers.get(at)) else { continue };
            let station = &self.config.stations[*station as usize].name;
            let fields = event_fields.clone().unwrap_or_default();
            match self.events.read(notifier, station, fields, &self.namespaces, received) {
                Told::Event(event) => batch.events.push(event),
                Told::Overflow(at) => batch.losses.push(event::overflow(station, at)),
                Told::RefreshWanted => self.events.refresh |= notifier.refresh,
                Told::Nothing => {}
            }
        }
    }

    /// Asks for the alarms that stand, when that is due.
    async fn refresh(&mut self) -> Result<(), LinkError> {
        match self.link.as_mut() {
            Some(link) if mem::take(&mut self.events.refresh) => link.refresh_conditions(self.subscription).await,
            _ => Ok(()),
        }
    }

    fn take(&self, values: Vec<MonitoredItemNotification>, received: Time, batch: &mut Batch) {
        batch.readings.reserve_exact(values.len());
        for MonitoredItemNotification { client_handle, value } in values {
            let Some(item) = item(&self.items, client_handle) else { continue };
            let overflown = convert::overflown(&value);
            let value = self.picks.of(client_handle, value);
            let reading = convert::reading(item.tag, value, received);
            if overflown {
                let station = &self.config.stations[item.station as usize].name;
                note_overflow(&mut batch.losses, station, reading.source_time);
            }
            batch.readings.push(reading);
        }
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.items.iter().map(|item| item.tag).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.dial().await?;
        self.watch().await
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let refused = mem::take(&mut self.refused);
        if !refused.is_empty() && outlet.deliver(Batch { readings: refused, ..Batch::default() }).await.is_err() {
            return LinkError::Broken("the agent is stopping".to_owned());
        }
        let mut heard = Instant::now();
        loop {
            while let Some(notice) = self.link.as_mut().and_then(Link::next_notice) {
                outlet.alive(notice.received);
                let span = trace::client!("message", factory.station = self.only_station());
                let batch = match span.in_scope(|| self.open(notice)) {
                    Ok(batch) => batch,
                    Err(error) => {
                        trace::failed(&span, &error);
                        return error;
                    }
                };
                let empty = batch.readings.is_empty() && batch.losses.is_empty() && batch.events.is_empty();
                if !empty && outlet.deliver(batch).instrument(span).await.is_err() {
                    return LinkError::Broken("the agent is stopping".to_owned());
                }
                // Time that we spent waiting is not the server's silence.
                heard = Instant::now();
            }
            if let Err(error) = self.refresh().await {
                return error;
            }
            let Some(link) = self.link.as_mut() else {
                return LinkError::Broken("not connected".to_owned());
            };
            match timeout_at(heard + link.silence(), link.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return LinkError::Silent(link.silence()),
            }
        }
    }

    async fn close(&mut self) {
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }
}

fn item(items: &[Item], handle: u32) -> Option<Item> {
    items.get((handle as usize).checked_sub(1)?).copied()
}

/// One entry a station and message: the server says that it threw values away, not how many.
fn note_overflow(losses: &mut Vec<Loss>, station: &Arc<str>, at: Time) {
    const REASON: &str = "OPC UA: the server's queue was full (at least so many values)";
    if let Some(loss) = losses.iter_mut().find(|loss| loss.source == *station && &*loss.reason == REASON) {
        loss.count += 1;
        loss.from = loss.from.min(at);
        loss.to = loss.to.max(at);
        return;
    }
    losses.push(Loss { source: station.clone(), from: at, to: at, count: 1, reason: Arc::from(REASON) });
}

/// Whether messages went missing. Those with data are numbered from 1 on, past `u32::MAX` again from 1.
#[derive(Default)]
struct Sequence {
    next: Option<u32>,
    heard: Option<Time>,
}

impl Sequence {
    fn heard(&mut self, at: Time) {
        self.heard = Some(at);
    }

    /// How many messages are missing before `number`, and since when.
    fn follow(&mut self, number: u32, at: Time) -> Option<(u32, Time)> {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        let since = self.heard.replace(at);
        self.next = Some(number.checked_add(1).unwrap_or(1));
        // A number from before is a repetition, not four billion lost messages.
        (1..1 << 31).contains(&missing).then(|| (missing, since.unwrap_or(at)))
    }
}

#[cfg(test)]
mod tests {
    use opcua::types::{DateTime, ExtensionObject, NotificationMessage, StatusCode};

    use super::*;

    #[test]
    fn missing_messages_are_counted() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.follow(7, Time(1)), None, "the first tells where it starts");
        assert_eq!(sequence.follow(8, Time(2)), None);
        sequence.heard(Time(3));
        assert_eq!(sequence.follow(11, Time(4)), Some((2, Time(3))));
        assert_eq!(sequence.follow(12, Time(5)), None);
        assert_eq!(sequence.follow(12, Time(6)), None, "a repetition");
        sequence.next = Some(u32::MAX);
        assert_eq!(sequence.follow(u32::MAX, Time(7)), None);
        assert_eq!(sequence.follow(1, Time(8)), None, "zero is left out");
    }

    #[test]
    fn a_subscription_that_the_server_ends_ends_the_link() {
        let config = Config {
            endpoint: "opc.tcp://plc".to_owned(),
            spares: Vec::new(),
            security: Security::None,
            identity: Identity::Anonymous,
            timeout: std::time::Duration::from_secs(1),
            stations: Vec::new(),
        };
        let gone = StatusChangeNotification { status: StatusCode::BadTimeout, ..StatusChangeNotification::default() };
        let message = NotificationMessage {
            sequence_number: 1,
            publish_time: DateTime::now(),
            notification_data: Some(vec![ExtensionObject::from_message(gone)]),
        };
        let error = Client::new(config).open(Notice { received: Time(1), message }).expect_err("it is over");
        assert_eq!(error.to_string(), "link broke: the server ended the subscription (BadTimeout)");
    }

    #[test]
    fn one_loss_a_station_for_what_overflowed() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut losses = Vec::new();
        for (station, at) in [(&a, 5), (&b, 6), (&a, 3), (&a, 9)] {
            note_overflow(&mut losses, station, Time(at));
        }
        let told: Vec<_> = losses.iter().map(|loss| (&*loss.source, loss.from, loss.to, loss.count)).collect();
        assert_eq!(told, [("a", Time(3), Time(9), 3), ("b", Time(6), Time(6), 1)]);
    }
}
