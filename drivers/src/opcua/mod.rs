//! OPC UA client: one session, and one subscription if the server has no limits that ask for more.
//!
//! Each connect makes a fresh session of the library and each loss throws it away: its own reconnect
//! says "connected" and delivers nothing. The session lives only while it is polled, in the task that
//! owns this driver. While the agent cannot take a batch the session rests, so that values wait in the
//! server's queues; what does not fit there comes back with a flag and is a loss in the ledger.
//!
//! After a gap, of the link or of the agent, what the server recorded meanwhile is read first ([`backfill`]).
//!
//! Of the services of OPC UA only those that read are called, and one method: ConditionRefresh, which lets the server
//! tell its alarms again and changes nothing at the device (OPC 10000-9, 5.5.7).

mod ask;
mod backfill;
mod browse;
mod config;
mod convert;
mod dial;
mod endpoint;
mod event;
mod find;
#[cfg(test)]
mod fixture;
mod goodbye;
mod history;
mod identity;
mod known;
mod limits;
mod link;
mod node;
mod notify;
mod path;
mod pick;
pub mod pki;
mod redundancy;
mod security;
mod sequence;
mod settle;
mod sieve;
mod silence;
mod subscription;
mod survey;
mod transfer;
mod types;
mod units;

pub use config::{Config, Station, Tag};
pub use event::Notifier;
pub use known::Watermark;
pub use node::{Address, Identifier, Namespace, Node};
pub use path::Path;
pub use pick::{Field, Pick, Range};
pub use pki::Pki;
pub use security::{Identity, Mode, Policy, Secured, Security};

use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use opcua::types::{
    DataChangeNotification, DataValue, EventNotificationList, MonitoredItemNotification, NodeId, NumericRange,
    StatusChangeNotification, StatusCode,
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, info, warn};

use crate::{Batch, Driver, LinkError, Loss, Outlet, Reading, Status, TagId, Time, trace};
use backfill::Gap;
use event::Events;
use find::handle;
use known::{Known, Said};
use limits::Server;
use link::{Link, Notice};
use pick::Picks;
use redundancy::Servers;
use sequence::Sequence;
use silence::Suspects;
use subscription::Want;
use transfer::Left;

/// How often what the server refused is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The driver.
pub struct Client {
    config: Config,
    /// What is watched; an item's client handle is its index here, plus one (0 means none to the library).
    items: Vec<Item>,
    link: Option<Link>,
    servers: Servers,
    /// What the server said of itself at the connect.
    server: Option<Server>,
    /// By item: its node at this server, or the status that its tag has instead.
    nodes: Vec<Result<NodeId, StatusCode>>,
    /// What of their nodes' values the tags are.
    picks: Picks,
    /// Whose events are told, by station. Their handles follow those of the items.
    notifiers: Vec<(u32, Notifier)>,
    events: Events,
    /// Which notifiers the server refuses.
    unheard: notify::Unheard,
    /// Since when no events were heard, if some were before; until that is told.
    eventless: Option<Time>,
    /// What the server does not let us watch, by handle, and its reason.
    refused: Vec<(u32, StatusCode)>,
    /// What of it is to be told.
    refusals: Vec<Reading>,
    ask_again: Duration,
    /// One for each subscription.
    sequences: Vec<Sequence>,
    /// By item.
    known: Vec<Known>,
    /// Messages that came while history was read.
    held: VecDeque<Notice>,
    /// History was read up to now, and what came meanwhile is told next.
    seam: bool,
    suspects: Suspects,
    /// What the session before left at its server.
    left: Option<Left>,
}

#[derive(Clone, Copy)]
struct Item {
    tag: TagId,
    station: u32,
    /// Among the station's tags.
    place: u32,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let items: Vec<Item> = (0u32..)
            .zip(&config.stations)
            .flat_map(|(station, told)| {
                (0u32..).zip(&told.tags).map(move |(place, tag)| Item { tag: tag.id, station, place })
            })
            .collect();
        let servers = Servers::of(&config);
        let notifiers = (0u32..)
            .zip(&config.stations)
            .flat_map(|(station, told)| told.events.iter().map(move |notifier| (station, notifier.clone())))
            .collect();
        Self {
            known: vec![Known::default(); items.len()],
            config,
            items,
            link: None,
            servers,
            server: None,
            nodes: Vec::new(),
            picks: Picks::default(),
            notifiers,
            events: Events::default(),
            unheard: Vec::new(),
            eventless: None,
            refused: Vec::new(),
            refusals: Vec::new(),
            ask_again: ASK_AGAIN,
            sequences: Vec::new(),
            held: VecDeque::new(),
            seam: false,
            suspects: Suspects::default(),
            left: None,
        }
    }

    /// The same after a restart: `told` knows the last value of a tag that is durable. What the server recorded after it is
    /// read at the first connect; where nobody knows what that is, it is a loss.
    #[must_use]
    pub fn having(mut self, told: impl Fn(TagId) -> Option<Watermark>) -> Self {
        // A station was listened to for as long as any of its tags was.
        let mut heard: Vec<Option<Time>> = vec![None; self.config.stations.len()];
        for item in &self.items {
            let last = &mut heard[item.station as usize];
            *last = (*last).max(told(item.tag).map(Watermark::at));
        }
        for (item, known) in self.items.iter().zip(&mut self.known) {
            if let (Some(told), Some(heard)) = (told(item.tag), heard[item.station as usize]) {
                *known = Known::before(told, heard);
            }
        }
        self.eventless = heard.into_iter().flatten().max();
        self
    }

    /// The same, but asks so often for what the server refused, instead of once a minute.
    #[must_use]
    pub fn asking_again_every(self, ask_again: Duration) -> Self {
        Self { ask_again, ..self }
    }

    /// How often the server publishes.
    fn publish(&self) -> Duration {
        self.config.stations.iter().map(|station| station.publish).min().unwrap_or(Duration::from_secs(1))
    }

    /// The station and the tag of an item.
    fn tag(&self, item: usize) -> Option<(&Station, &Tag)> {
        let Item { station, place, .. } = *self.items.get(item)?;
        let station = self.config.stations.get(station as usize)?;
        Some((station, station.tags.get(place as usize)?))
    }

    /// The node of an item, if the server has it.
    fn node(&self, item: usize) -> Option<NodeId> {
        self.nodes.get(item)?.clone().ok()
    }

    /// What is told of an item by `value` of its node.
    fn reading(&self, item: usize, value: DataValue, received: Time) -> Reading {
        convert::reading(self.items[item].tag, self.picks.of(handle(item), value), received)
    }

    /// Makes a session that watches nothing.
    async fn dial(&mut self) -> Result<&mut Link, LinkError> {
        self.close().await;
        self.picks = Picks::default();
        self.servers.reach(&self.config, &mut self.link).await?;
        self.link.as_mut().ok_or_else(|| LinkError::Broken("not connected".to_owned()))
    }

    /// Asks the server what it says of itself, and where the tags are.
    async fn look_up(&mut self) -> Result<(), LinkError> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let server = link.ask_server().await?;
        let tags: Vec<_> = self.config.stations.iter().flat_map(|station| &station.tags).collect();
        let addresses: Vec<_> = tags.iter().map(|tag| &tag.node).collect();
        let mut nodes = find::nodes(link, &server.namespaces, &addresses).await?;
        self.picks = find::picks(link, &tags, &mut nodes).await?.watched_as(&self.picks);
        self.nodes = nodes;
        self.server = Some(server);
        Ok(())
    }

    /// What is to be watched of an item, or why it cannot be.
    fn want(&self, item: usize) -> Result<Want, StatusCode> {
        let node = self.nodes.get(item).cloned().unwrap_or(Err(StatusCode::BadNodeIdUnknown))?;
        let (station, tag) = self.tag(item).ok_or(StatusCode::BadNodeIdUnknown)?;
        let range = tag.pick.range.as_ref().map(Range::asked).unwrap_or_default();
        Ok(Want { handle: handle(item), station: self.items[item].station, node, range, sampling: station.publish })
    }

    /// Asks the server to watch every node.
    async fn subscribe(&mut self) -> Result<(), LinkError> {
        if self.config.stations.is_empty() {
            return Ok(());
        }
        self.left = None; // whatever it was, it is made anew
        let refused = self.watch((0..self.items.len()).collect(), false).await?;
        self.subscribe_events((0..self.notifiers.len()).collect()).await?;
        let Some(link) = self.link.as_ref() else { return Ok(()) };
        self.sequences.resize_with(link.subscriptions.len(), Sequence::default);
        info!(
            tags = self.items.len() - refused.len(),
            refused = refused.len(),
            subscriptions = link.subscriptions.len(),
            "subscribed"
        );
        self.refusals = refused.iter().filter_map(|refusal| self.refusal(*refusal)).collect();
        self.refused = refused;
        Ok(())
    }

    /// Watches these items, in subscriptions of their own or (`more`) in what there is as long as it takes them; those that are refused, by
    /// handle.
    async fn watch(&mut self, items: Vec<usize>, more: bool) -> Result<Vec<(u32, StatusCode)>, LinkError> {
        let mut refused = Vec::new();
        let mut wants = Vec::with_capacity(items.len());
        for item in items {
            match self.want(item) {
                Ok(want) => wants.push(want),
                Err(status) => refused.push((handle(item), status)),
            }
        }
        let publish = self.publish();
        let (Some(link), Some(server)) = (self.link.as_mut(), self.server.as_ref()) else { return Ok(refused) };
        let answers = if more {
            link.watch_more(publish, wants, server.limits).await?
        } else {
            link.watch(publish, wants, server.limits).await?
        };
        let (whole, denied): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(want, status)| want.range.has_range() && find::no_range(*status));
        // Servers that do not cut ranges out send the whole, and it is done here.
        let again: Vec<_> = whole.into_iter().map(|(want, _)| Want { range: NumericRange::None, ..want }).collect();
        again.iter().for_each(|want| self.picks.whole(want.handle));
        let again = if again.is_empty() { Vec::new() } else { link.watch_more(publish, again, server.limits).await? };
        refused.extend(denied.into_iter().chain(again).map(|(want, status)| (want.handle, status)));
        refused.sort_by_key(|(handle, _)| *handle);
        Ok(refused)
    }

    fn refusal(&self, (handle, status): (u32, StatusCode)) -> Option<Reading> {
        let now = Time::now();
        Some(Reading::bad(item(&self.items, handle)?.tag, Status::Opcua(status.bits()), now, now))
    }

    /// Asks again for what was refused: a node may have come to be, a namespace too.
    async fn ask_again(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        self.look_up().await?;
        let before = mem::take(&mut self.refused);
        let items: Vec<_> = before.iter().map(|(handle, _)| *handle as usize - 1).collect();
        let refused = if items.is_empty() { Vec::new() } else { self.watch(items, true).await? };
        if refused.len() < before.len() {
            info!(tags = before.len() - refused.len(), refused = refused.len(), "the server takes what it refused");
        }
        // A reason that is the same is told already.
        let news: Vec<_> = refused.iter().filter(|refusal| !before.contains(refusal)).copied().collect();
        self.refusals = news.into_iter().filter_map(|refusal| self.refusal(refusal)).collect();
        let taken = refused.len() < before.len();
        self.refused = refused;
        if taken {
            self.catch_up(Gap::Late, outlet).await?;
        }
        self.ask_again_for_events().await
    }

    /// What a message says. Every value in it goes together; `same` are readings that say nothing new.
    fn open(&mut self, notice: Notice, same: &mut Vec<Reading>) -> Result<Batch, LinkError> {
        let Notice { subscription, received, message, asked: _ } = notice;
        let parts = message.notification_data.unwrap_or_default();
        let mut batch = Batch::default();
        if self.sequences.len() <= subscription {
            self.sequences.resize_with(subscription + 1, Sequence::default);
        }
        let sequence = &mut self.sequences[subscription];
        if let Some((missing, since)) = sequence.follow(message.sequence_number, !parts.is_empty(), received) {
            warn!(missing, "messages of the subscription never came");
            batch.losses.extend(self.never_came(subscription, missing, since, received));
        }
        for part in parts {
            if let Some(change) = part.inner_as::<StatusChangeNotification>() {
                return Err(LinkError::Broken(format!("the server ended the subscription ({})", change.status)));
            }
            if let Some(told) = part.inner_as::<EventNotificationList>() {
                self.hear_events(told, received, &mut batch);
                continue;
            }
            let Some(change) = part.into_inner_as::<DataChangeNotification>() else { continue };
            self.take(change.monitored_items.unwrap_or_default(), received, &mut batch, same);
        }
        Ok(batch)
    }

    /// The station, if there is but one behind this server.
    fn only_station(&self) -> Option<&str> {
        let [station] = self.config.stations.as_slice() else { return None };
        Some(&station.name)
    }

    fn take(
        &mut self,
        values: Vec<MonitoredItemNotification>,
        received: Time,
        batch: &mut Batch,
        same: &mut Vec<Reading>,
    ) {
        batch.readings.reserve_exact(values.len());
        for MonitoredItemNotification { client_handle, value } in values {
            let Some(item) = item(&self.items, client_handle) else { continue };
            let overflown = convert::overflown(&value);
            let reading = self.reading(client_handle as usize - 1, value, received);
            if overflown {
                let station = &self.config.stations[item.station as usize].name;
                note_overflow(&mut batch.losses, station, reading.source_time);
            }
            self.suspects.clear(client_handle as usize - 1);
            self.hear(client_handle as usize - 1, reading, batch, same);
        }
    }

    /// A reading of an item: news, or the same again.
    fn hear(&mut self, place: usize, reading: Reading, batch: &mut Batch, same: &mut Vec<Reading>) {
        let known = &mut self.known[place];
        match known.says(&reading, self.seam) {
            Said::Same => same.push(reading), // history had it, or another subscription
            Said::Old => {}
            Said::News => {
                known.hear(&reading);
                batch.readings.push(reading);
            }
        }
    }

    /// Vouches for what is the same. A tag that had turned bad by its age is told again.
    fn vouch(same: &mut Vec<Reading>, received: Time, batch: &mut Batch, outlet: &Outlet) {
        if same.is_empty() {
            return;
        }
        let tags: Vec<TagId> = same.iter().map(|reading| reading.tag).collect();
        let bad = outlet.confirm(&tags, received);
        batch.readings.extend(same.drain(..).filter(|reading| bad.contains(&reading.tag)));
    }

    /// Tells what messages say that have come. Whether there were any.
    async fn tell_waiting(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        let mut same = Vec::new();
        while let Some(notice) = self.held.pop_front().or_else(|| self.link.as_mut().and_then(Link::next_notice)) {
            let mut notice = self.with_missing(notice).await?;
            if self.seam {
                // It is told after history that came later, and whoever sorts by receipt is to find it there.
                notice.received = Time::now();
            }
            let received = notice.received;
            outlet.alive(received);
            let span = trace::client!("message", factory.station = self.only_station());
            let mut batch =
                span.in_scope(|| self.open(notice, &mut same)).inspect_err(|error| trace::failed(&span, error))?;
            Self::vouch(&mut same, received, &mut batch, outlet);
            hand_over(batch, outlet).instrument(span).await?;
        }
        self.seam = false;
        Ok(())
    }

    /// Time that we spent on something else since `began` is not the server's silence. Counted in [`Client::flow`] alone, which
    /// knows when we listen.
    fn rested(&mut self, began: Instant) {
        let (now, rest) = (Instant::now(), began.elapsed());
        self.suspects.wait(rest);
        // One that was heard meanwhile was silent for less.
        self.sequences.iter_mut().for_each(|sequence| sequence.spoke = (sequence.spoke + rest).min(now));
    }

    /// Ends only with the link.
    async fn flow(&mut self, outlet: &Outlet) -> Result<Infallible, LinkError> {
        if self.link.as_ref().is_some_and(|link| link.subscriptions.is_empty()) && !self.transfer(outlet).await? {
            self.catch_up(Gap::Link, outlet).await?;
        }
        let begun = Instant::now();
        self.sequences.iter_mut().for_each(|sequence| sequence.spoke = begun);
        let mut ask_again = Instant::now() + self.ask_again;
        loop {
            let began = Instant::now();
            let mut batch = Batch { readings: mem::take(&mut self.refusals), ..Batch::default() };
            self.own_up(&mut batch);
            hand_over(batch, outlet).await?;
            self.tell_waiting(outlet).await?;
            self.refresh().await?;
            self.rested(began);
            let Some(link) = self.link.as_mut() else { return Err(LinkError::Broken("not connected".to_owned())) };
            let silence = link.silence();
            // Of the one that has been silent for longest: another's messages say nothing of it.
            let silent = self.sequences.iter().map(|sequence| sequence.spoke).min().unwrap_or(begun) + silence;
            let lacking = !self.refused.is_empty() || !self.unheard.is_empty();
            let timers = [Some(silent), lacking.then_some(ask_again), self.suspects.due()];
            let wake = timers.into_iter().flatten().min().unwrap_or(silent);
            let step = tokio::select! {
                step = timeout_at(wake, link.step()) => step,
                stale = outlet.stale() => {
                    let began = Instant::now();
                    self.answer(&stale, outlet).await?;
                    self.rested(began);
                    continue;
                }
            };
            let now = Instant::now();
            match step {
                Ok(step) => step?,
                Err(_) if now >= silent => return Err(LinkError::Silent(silence)),
                Err(_) if self.suspects.due().is_some_and(|due| now >= due) => {
                    self.renew_suspects(outlet).await?;
                    self.rested(now);
                }
                Err(_) => {
                    self.ask_again(outlet).await?;
                    ask_again = Instant::now() + self.ask_again;
                    self.rested(now);
                }
            }
        }
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.items.iter().map(|item| item.tag).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.dial().await?;
        self.known.iter_mut().for_each(|known| known.heard = None);
        self.look_up().await?;
        // What was told before has a gap behind it, which `run` closes first.
        if self.known.iter().all(|known| known.gap.is_none()) { self.subscribe().await } else { Ok(()) }
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let server = self.servers.used();
        outlet.note(|link| mem::replace(&mut link.server, server) != server);
        let Err(error) = self.flow(outlet).await;
        self.remember_left();
        let alive = outlet.state().alive.unwrap_or_else(Time::now);
        self.known.iter_mut().for_each(|known| known.lose(alive));
        if !self.notifiers.is_empty() {
            self.eventless.get_or_insert(alive);
        }
        error
    }

    async fn close(&mut self) {
        self.held.clear();
        self.sequences.clear();
        self.refusals.clear();
        (self.seam, self.suspects) = (false, Suspects::default());
        if let Some(link) = self.link.take() {
            link.close().await;
        }
    }
}

/// Hands over what there is; waits while the agent is busy.
async fn hand_over(batch: Batch, outlet: &Outlet) -> Result<(), LinkError> {
    if batch.is_empty() {
        return Ok(());
    }
    outlet.deliver(batch).await.map_err(|_| stopping())
}

fn stopping() -> LinkError {
    LinkError::Broken("the agent is stopping".to_owned())
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

#[cfg(test)]
mod tests {
    use opcua::types::{DateTime, ExtensionObject, NotificationMessage, StatusCode};
    use tokio::sync::{mpsc, watch};
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{LinkState, OwnStatus};

    #[test]
    fn a_subscription_that_the_server_ends_ends_the_link() {
        let gone = StatusChangeNotification { status: StatusCode::BadTimeout, ..StatusChangeNotification::default() };
        let message = NotificationMessage {
            sequence_number: 1,
            publish_time: DateTime::now(),
            notification_data: Some(vec![ExtensionObject::from_message(gone)]),
        };
        let error = Client::new(fixture::config("opc.tcp://plc", &[]))
            .open(Notice { subscription: 0, received: Time(1), message, asked: false }, &mut Vec::new())
            .expect_err("it is over");
        assert_eq!(error.to_string(), "link broke: the server ended the subscription (BadTimeout)");
    }

    /// A full channel is ours, and counts once wherever it was waited for.
    #[tokio::test(start_paused = true)]
    async fn time_spent_on_something_else_is_no_silence_and_counts_once() {
        let second = Duration::from_secs(1);
        let mut client = Client::new(fixture::config("opc.tcp://plc", &[]));
        client.sequences.resize_with(2, Sequence::default);
        advance(second * 3).await;

        let (to, mut batches) = mpsc::channel(1);
        let outlet = Outlet::new(to, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
        let news = || {
            let readings = vec![Reading::bad(TagId(0), Status::Own(OwnStatus::NoData), Time(1), Time(1))];
            Batch { readings, ..Batch::default() }
        };
        let began = Instant::now();
        hand_over(news(), &outlet).await.expect("there is room");
        let busy = async {
            sleep(second * 5).await;
            batches.recv().await
        };
        let (waited, _) = tokio::join!(hand_over(news(), &outlet), busy);
        waited.expect("there is room again");
        client.sequences[1].follow(1, true, Time::now());
        client.rested(began);
        let silent: Vec<_> = client.sequences.iter().map(|sequence| sequence.spoke.elapsed()).collect();
        assert_eq!(silent, [second * 3, Duration::ZERO]);
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
