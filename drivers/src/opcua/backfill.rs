//! Closing a gap: what the server recorded while nobody listened (decision 0007).
//!
//! After a lost link or a restart of the agent: first history up to now, in order of source time across the link's
//! tags; then the subscription; then history once more, up to the first values that the subscription told, which wait
//! meanwhile. What history does not have goes to the loss ledger.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use opcua::types::{AttributeId, DataChangeNotification, ReadValueId, TimestampsToReturn, Variant};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::find::handle;
use super::history::{Asked, Sieve, Told, just_before};
use super::limits::Limits;
use super::link::Notice;
use super::{Client, convert, stopping};
use crate::{Backfill, Batch, LinkError, Loss, Outlet, Time};

/// Values in memory at once. A window of time that holds more is read in two.
const MOST: usize = 20_000;
/// Readings a batch.
const A_BATCH: usize = 2_000;
/// A window is not cut below this; a server that has more than 16 times [`MOST`] in it has more than anybody could read.
const SHORTEST: Duration = Duration::from_millis(1);
/// How often, and how long apart, history is looked at for a value that the subscription has told already.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// The bit of AccessLevel that says "history can be read" (OPC 10000-3, 8.57).
pub(super) const HISTORY_READ: u8 = 0x04;

/// What there was a gap of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The link, or the agent: every tag is bad, and what held at the gap's start is told again.
    Link,
    /// The subscription alone: tags stand as they were.
    Subscription,
}

/// One item in its gap.
struct Past {
    asked: Asked,
    sieve: Sieve,
    /// Why history has nothing, or not all of it.
    lacks: Option<String>,
    /// How many readings it gave.
    given: u64,
}

impl Client {
    /// Reads what was missed, subscribes, and reads the rest. Values of the subscription that came meanwhile are left
    /// to be opened next.
    pub(super) async fn catch_up(&mut self, gap: Gap, outlet: &Outlet) -> Result<(), LinkError> {
        let mut pasts = self.pasts(gap);
        let Some(server) = self.server.clone() else { return Ok(()) };
        let mut limits = server.limits;
        info!(tags = pasts.len(), "closing the gap from history");
        self.ask_who_keeps_history(&mut pasts).await?;

        let clocks = [Some(Time::now()), server.clock, pasts.iter().map(|past| past.asked.from).max()];
        // The latest of the clocks that may have dated values.
        let end = clocks.into_iter().flatten().max().unwrap_or_default() + Duration::from_secs(1);
        self.read_up_to(&mut pasts, None, end, &mut limits, outlet).await?;

        self.subscribe().await?;
        let first = self.first_values(&pasts).await?;
        self.read_seam(&mut pasts, &first, &mut limits, outlet).await?;

        if gap == Gap::Subscription {
            return Ok(()); // nothing was said of a gap, and nothing is of its end
        }
        let batch = self.settle(&pasts);
        self.gap_from = None;
        self.deliver(outlet, batch).await
    }

    /// The items of which something was told before, whose nodes the server knows.
    fn pasts(&self, gap: Gap) -> Vec<Past> {
        let told = |(item, told): (usize, &Option<Told>)| {
            let told = told.clone()?;
            let node = self.node(item)?;
            let asked = Asked { item, node, from: just_before(told.at) };
            Some(Past { asked, sieve: Sieve::after(told, gap == Gap::Link), lacks: None, given: 0 })
        };
        self.told.iter().enumerate().filter_map(told).collect()
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
                let Some(reading) = past.sieve.pass(reading) else { continue };
                past.given += 1;
                self.told[item] = Some(past.sieve.last().clone());
                self.fresh[item] = true;
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

    /// The instants of the first values that the subscription tells of the items that have history. Its messages are
    /// put aside.
    async fn first_values(&mut self, pasts: &[Past]) -> Result<HashMap<usize, Time>, LinkError> {
        let mut missing: BTreeSet<usize> =
            pasts.iter().filter(|past| past.lacks.is_none()).map(|past| past.asked.item).collect();
        for (handle, _) in &self.refused {
            missing.remove(&(*handle as usize - 1));
        }
        let patience = self.publish().max(Duration::from_millis(500)).saturating_mul(4);
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
            for (item, at) in self.times(&notice) {
                if missing.remove(&item) {
                    first.insert(item, at);
                }
            }
            self.held.push_back(notice);
        }
        Ok(first)
    }

    fn times(&self, notice: &Notice) -> Vec<(usize, Time)> {
        let parts = notice.message.notification_data.iter().flatten();
        let changes = parts.filter_map(|part| part.inner_as::<DataChangeNotification>());
        changes
            .flat_map(|change| change.monitored_items.iter().flatten())
            .filter_map(|told| {
                let item = (told.client_handle as usize).checked_sub(1)?;
                let tag = self.items.get(item)?.tag;
                Some((item, convert::reading(tag, told.value.clone(), notice.received).source_time))
            })
            .collect()
    }

    /// History between the last of it that was read and the first that the subscription told.
    async fn read_seam(
        &mut self,
        pasts: &mut [Past],
        first: &HashMap<usize, Time>,
        limits: &mut Limits,
        outlet: &Outlet,
    ) -> Result<(), LinkError> {
        let mut seam = HashMap::new();
        for past in pasts.iter_mut().filter(|past| past.lacks.is_none()) {
            if let Some(&at) = first.get(&past.asked.item)
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

    /// What is told of the gap itself, by station.
    fn settle(&self, pasts: &[Past]) -> Batch {
        let now = Time::now();
        let mut batch = Batch::default();
        for (station, told) in self.config.stations.iter().enumerate() {
            let of: Vec<&Past> =
                pasts.iter().filter(|past| self.items[past.asked.item].station as usize == station).collect();
            let Some(last_told) = of.iter().map(|past| past.sieve.watermark()).max() else { continue };
            let from = self.gap_from.unwrap_or(last_told).min(now);
            let reasons: BTreeSet<&str> = of.iter().filter_map(|past| past.reason()).collect();
            let lacking = of.iter().filter(|past| past.reason().is_some()).count();
            if lacking > 0 {
                let reasons: Vec<&str> = reasons.into_iter().take(3).collect();
                batch.losses.push(Loss {
                    source: told.name.clone(),
                    from,
                    to: now,
                    count: lacking as u64,
                    reason: Arc::from(format!("OPC UA: a gap that history does not close: {}", reasons.join(", "))),
                });
            }
            let count: u64 = of.iter().map(|past| past.given).sum();
            if count > 0 {
                batch.backfills.push(Backfill { station: told.name.clone(), from, to: now, count });
            }
        }
        batch
    }

    async fn deliver(&mut self, outlet: &Outlet, batch: Batch) -> Result<(), LinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let Some(link) = self.link.as_mut() else { return Err(LinkError::Broken("not connected".to_owned())) };
        // Once there are subscriptions their values wait at the server, as ever while the agent is busy.
        let taken = if link.subscriptions.is_empty() {
            link.meanwhile(outlet.deliver(batch)).await?
        } else {
            outlet.deliver(batch).await
        };
        taken.map_err(|_| stopping())
    }
}

impl Past {
    fn reason(&self) -> Option<&str> {
        let short = "history does not reach back to the last value that was told";
        self.lacks.as_deref().or_else(|| (!self.sieve.whole).then_some(short))
    }
}
