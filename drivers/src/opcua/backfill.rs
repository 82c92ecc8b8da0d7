//! Closing a gap: what the server recorded while nobody listened (decision 0007).
//!
//! After a lost link or a restart of the agent: first history up to now, in order of source time across the link's
//! tags; then the subscription; then history once more, up to the first values that the subscription told, which wait
//! meanwhile. What history does not have goes to the loss ledger.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use opcua::types::{AttributeId, DataChangeNotification, ReadValueId, TimestampsToReturn, Variant};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::find::handle;
use super::history::Asked;
use super::known::Known;
use super::limits::Limits;
use super::link::Notice;
use super::sieve::{Sieve, Told, just_before};
use super::{Client, convert, hand_over};
use crate::{Batch, LinkError, Outlet, Reading, Time};

/// Values in memory at once. A window of time that holds more is read in two.
const MOST: usize = 20_000;
/// Readings a batch.
const A_BATCH: usize = 2_000;
/// A window is not cut below this; a server that has more than 16 times [`MOST`] in it has more than anybody could read.
const SHORTEST: Duration = Duration::from_millis(1);
/// How often, and how long apart, history is looked at for a value that the subscription has told already.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// How long is waited for first values at most: what is live waits with them.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bit of AccessLevel that says "history can be read" (OPC 10000-3, 8.57).
pub(super) const HISTORY_READ: u8 = 0x04;

/// What there was a gap of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The link, or the agent: every tag is bad, and what held at the gap's start is told again.
    Link,
    /// The same for nodes that the server took only later: others flow already.
    Late,
    /// The subscription alone: tags stand as they were.
    Subscription,
}

/// One item in its gap.
pub(super) struct Past {
    pub(super) asked: Asked,
    pub(super) sieve: Sieve,
    /// A read told it, ahead of history.
    ahead: Option<Told>,
    /// Why history has nothing, or not all of it.
    pub(super) lacks: Option<String>,
}

impl Client {
    /// Reads what was missed, subscribes, and reads the rest. Values of the subscription that came meanwhile are left
    /// to be told next. Silence does not count as long as this takes.
    pub(super) async fn catch_up(&mut self, gap: Gap, outlet: &Outlet) -> Result<(), LinkError> {
        outlet.pause();
        let closed = self.close_gap(gap, outlet).await;
        outlet.resume();
        closed
    }

    async fn close_gap(&mut self, gap: Gap, outlet: &Outlet) -> Result<(), LinkError> {
        let began = Time::now();
        let mut pasts = self.pasts(gap);
        let Some(server) = self.server.clone() else { return Ok(()) };
        if gap == Gap::Late && pasts.is_empty() {
            return Ok(());
        }
        let mut limits = server.limits;
        self.seam = true;
        info!(tags = pasts.len(), "closing the gap from history");
        self.ask_who_keeps_history(&mut pasts).await?;

        let clocks = [Some(Time::now()), server.clock, pasts.iter().map(|past| past.asked.from).max()];
        // The latest of the clocks that may have dated values.
        let end = clocks.into_iter().flatten().max().unwrap_or_default() + Duration::from_secs(1);
        let first = if gap == Gap::Late {
            let first = self.first_values(&pasts, gap).await?;
            let until = |past: &Past| first.get(&past.asked.item).map_or(end, |first: &Reading| first.source_time);
            let until = pasts.iter().map(|past| (past.asked.item, until(past))).collect();
            self.read_up_to(&mut pasts, Some(&until), end, &mut limits, outlet).await?;
            first
        } else {
            self.read_up_to(&mut pasts, None, end, &mut limits, outlet).await?;
            self.subscribe().await?;
            self.first_values(&pasts, gap).await?
        };
        self.read_seam(&mut pasts, &first, &mut limits, outlet).await?;
        let batch = match gap {
            // Nothing was said of a gap, and nothing is of its end.
            Gap::Subscription => Batch { losses: self.missed(&pasts, &first, began), ..Batch::default() },
            Gap::Link | Gap::Late => self.settle(&pasts),
        };
        self.deliver(outlet, batch).await
    }

    /// The items that have a gap to be closed, and whose nodes the server knows.
    fn pasts(&self, gap: Gap) -> Vec<Past> {
        let refused = self.refused_handles();
        let past = |(item, known): (usize, &Known)| {
            let node = self.node(item)?;
            let from = match gap {
                Gap::Link => known.gap?.from,
                Gap::Late => known.gap.filter(|_| !refused.contains(&handle(item)))?.from,
                Gap::Subscription => known.heard.as_ref()?.told.at,
            };
            let undated = Told { at: from, said: None };
            let lacks = known.told.is_none().then(|| "values have no time of their source".to_owned());
            let told = self.suspects.before(item).or_else(|| known.told.clone()).unwrap_or(undated);
            let asked = Asked { item, node, from: just_before(told.at) };
            let sieve = Sieve::after(told, gap != Gap::Subscription);
            let heard = known.heard.as_ref().map(|heard| heard.told.clone()).filter(|_| gap == Gap::Subscription);
            let (sieve, ahead) = match self.suspects.before(item) {
                Some(_) => (sieve, heard),
                None => (sieve.having_said(heard.as_ref()), None),
            };
            Some(Past { asked, sieve, ahead, lacks })
        };
        self.known.iter().enumerate().filter_map(past).collect()
    }

    async fn ask_who_keeps_history(&mut self, pasts: &mut [Past]) -> Result<(), LinkError> {
        let nodes: Vec<ReadValueId> = pasts
            .iter()
            .map(|past| ReadValueId {
                node_id: past.asked.node.clone(),
                attribute_id: AttributeId::UserAccessLevel as u32,
                ..ReadValueId::default()
            })
            .collect();
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let answers = link.read(nodes, TimestampsToReturn::Neither).await?;
        for (past, answer) in pasts.iter_mut().zip(answers) {
            // A server that does not say is asked for the history itself.
            if let Some(Variant::Byte(level)) = answer.value
                && level & HISTORY_READ == 0
            {
                past.lacks = Some("no history is kept".to_owned());
            }
        }
        Ok(())
    }

    /// Delivers history from `since` (or from where each item was left) to before `to`, window by window.
    async fn read_up_to(
        &mut self,
        pasts: &mut [Past],
        only: Option<&HashMap<usize, Time>>,
        to: Time,
        limits: &mut Limits,
        outlet: &Outlet,
    ) -> Result<(), LinkError> {
        let places: HashMap<usize, usize> =
            pasts.iter().enumerate().map(|(place, past)| (past.asked.item, place)).collect();
        let wanted = |past: &Past| past.lacks.is_none() && only.is_none_or(|only| only.contains_key(&past.asked.item));
        let Some(mut since) = pasts.iter().filter(|past| wanted(past)).map(|past| past.asked.from).min() else {
            return Ok(());
        };
        let (mut until, mut most) = (to, MOST);
        while since < until {
            let asked: Vec<Asked> = pasts.iter().filter(|past| wanted(past)).map(|past| past.asked.clone()).collect();
            let received = Time::now();
            let (items, picks) = (&self.items, &self.picks);
            let read = |item: usize, value| {
                let reading = convert::reading(items[item].tag, picks.of_all(handle(item), value), received);
                // Without a time of its own it says nothing about when.
                (reading.source_time != received).then_some(reading)
            };
            let Some(link) = self.link.as_mut() else { return Err(LinkError::Broken("not connected".to_owned())) };
            let window = link.history(&asked, (since, until), limits, most, read).await?;
            if let Some(middle) = window.too_much {
                if middle > since + SHORTEST {
                    until = middle;
                } else if most < 16 * MOST {
                    most *= 4;
                } else {
                    for past in pasts.iter_mut().filter(|past| past.lacks.is_none()) {
                        past.lacks = Some("history holds too much of one instant".to_owned());
                    }
                    return Ok(());
                }
                continue;
            }
            for (item, why) in window.refused {
                if let Some(&place) = places.get(&item) {
                    pasts[place].lacks = Some(why);
                }
            }
            let mut news = Vec::new();
            for (item, reading) in window.values {
                let Some(past) = places.get(&item).map(|&place| &mut pasts[place]) else { continue };
                // What the subscription told first comes from the subscription.
                if only.and_then(|only| only.get(&item)).is_some_and(|&first| reading.source_time >= first) {
                    continue;
                }
                let ahead = past.ahead.as_ref().is_some_and(|told| told.is_near(&reading));
                let Some(reading) = past.sieve.pass(reading).filter(|_| !ahead) else { continue };
                let known = &mut self.known[item];
                if let Some(gap) = &mut known.gap {
                    gap.given += 1;
                }
                if past.ahead.as_ref().is_none_or(|told| told.at < reading.source_time) {
                    known.hear(&reading);
                }
                news.push(reading);
            }
            while !news.is_empty() {
                let rest = news.split_off(A_BATCH.min(news.len()));
                let readings = std::mem::replace(&mut news, rest);
                self.deliver(outlet, Batch { readings, ..Batch::default() }).await?;
            }
            let length = until.since(since);
            since = until;
            until = (until + length.saturating_mul(2)).min(to);
            most = MOST;
        }
        Ok(())
    }

    /// The first values that the subscription tells of the items: of those that have history, to know where it ends, and
    /// after a gap of the subscription alone of all, to know whether they have moved. Its messages are put aside.
    async fn first_values(&mut self, pasts: &[Past], gap: Gap) -> Result<HashMap<usize, Reading>, LinkError> {
        let asked = |past: &&Past| past.lacks.is_none() || gap == Gap::Subscription;
        let mut missing: BTreeSet<usize> = pasts.iter().filter(asked).map(|past| past.asked.item).collect();
        for (handle, _) in &self.refused {
            missing.remove(&(*handle as usize - 1));
        }
        let patience = self.publish().max(Duration::from_millis(500)).saturating_mul(4).min(PATIENCE);
        let deadline = Instant::now() + patience;
        let mut first = HashMap::new();
        while !missing.is_empty() {
            let Some(link) = self.link.as_mut() else { break };
            let Some(notice) = link.next_notice() else {
                match timeout_at(deadline, link.step()).await {
                    Ok(step) => step?,
                    Err(_) => break, // some servers have nothing to say of a node for long
                }
                continue;
            };
            for (item, reading) in self.values(&notice) {
                if missing.remove(&item) {
                    first.insert(item, reading);
                }
            }
            self.held.push_back(notice);
        }
        Ok(first)
    }

    fn values(&self, notice: &Notice) -> Vec<(usize, Reading)> {
        let parts = notice.message.notification_data.iter().flatten();
        let changes = parts.filter_map(|part| part.inner_as::<DataChangeNotification>());
        changes
            .flat_map(|change| change.monitored_items.iter().flatten())
            .filter_map(|told| {
                let item = (told.client_handle as usize).checked_sub(1).filter(|item| *item < self.items.len())?;
                Some((item, self.reading(item, told.value.clone(), notice.received)))
            })
            .collect()
    }

    /// History between the last of it that was read and the first that the subscription told.
    async fn read_seam(
        &mut self,
        pasts: &mut [Past],
        first: &HashMap<usize, Reading>,
        limits: &mut Limits,
        outlet: &Outlet,
    ) -> Result<(), LinkError> {
        let mut seam = HashMap::new();
        for past in pasts.iter_mut().filter(|past| past.lacks.is_none()) {
            if let Some(at) = first.get(&past.asked.item).map(|first| first.source_time)
                && at > past.sieve.last().at
            {
                past.asked.from = just_before(past.sieve.last().at);
                seam.insert(past.asked.item, at);
            }
        }
        for _ in 0..LOOKS {
            let Some(latest) = seam.values().max().copied() else { return Ok(()) };
            let arrived = self.arrived(pasts, &seam, latest, limits).await?;
            if arrived.len() == seam.len() {
                break;
            }
            if let Some(link) = self.link.as_mut() {
                link.meanwhile(sleep(BETWEEN_LOOKS)).await?;
            }
        }
        let Some(latest) = seam.values().max().copied() else { return Ok(()) };
        let arrived = self.arrived(pasts, &seam, latest, limits).await?;
        self.read_up_to(pasts, Some(&seam), latest + SHORTEST, limits, outlet).await?;
        for past in pasts.iter_mut().filter(|past| past.lacks.is_none()) {
            if seam.contains_key(&past.asked.item) && !arrived.contains(&past.asked.item) {
                past.lacks = Some("history ends before the subscription begins".to_owned());
            }
        }
        Ok(())
    }

    /// Items of whose history the first value of the subscription is part by now.
    async fn arrived(
        &mut self,
        pasts: &[Past],
        seam: &HashMap<usize, Time>,
        latest: Time,
        limits: &mut Limits,
    ) -> Result<BTreeSet<usize>, LinkError> {
        let asked: Vec<Asked> = pasts
            .iter()
            .filter_map(|past| {
                let &at = seam.get(&past.asked.item)?;
                Some(Asked { from: just_before(at), ..past.asked.clone() })
            })
            .collect();
        let received = Time::now();
        let (items, picks) = (&self.items, &self.picks);
        let Some(link) = self.link.as_mut() else { return Ok(BTreeSet::new()) };
        let window = link
            .history(&asked, (Time(i64::MIN), latest + SHORTEST), limits, usize::MAX, |item, value| {
                Some(convert::reading(items[item].tag, picks.of_all(handle(item), value), received))
            })
            .await?;
        let there = window.values.into_iter().map(|(item, _)| item);
        Ok(there.collect())
    }

    pub(super) fn refused_handles(&self) -> BTreeSet<u32> {
        self.refused.iter().map(|(handle, _)| *handle).collect()
    }

    async fn deliver(&mut self, outlet: &Outlet, batch: Batch) -> Result<(), LinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(link) = self.link.as_mut() else { return Err(LinkError::Broken("not connected".to_owned())) };
        // Once there are subscriptions their values wait at the server, as ever while the agent is busy.
        if link.subscriptions.is_empty() {
            link.meanwhile(hand_over(batch, outlet)).await?
        } else {
            hand_over(batch, outlet).await
        }
    }
}
