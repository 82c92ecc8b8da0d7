//! Taking the subscriptions of a lost session over into the next (TransferSubscriptions, OPC 10000-4, 5.14.7).
//!
//! A server keeps the subscriptions of a session that went away for their lifetime, and what is news meanwhile in the
//! queues of their items: so much of a gap is no gap. It is worth trying where the server keeps no history, which has more
//! than the queues; and it is what most servers refuse to anonymous users without security.

use std::mem;
use std::time::Duration;

use opcua::client::Subscription;
use opcua::types::{AttributeId, NodeId, ReadValueId, StatusCode, TimestampsToReturn, TransferResult, Variant};
use tracing::{debug, info};

use super::backfill::HISTORY_READ;
use super::known::Heard;
use super::link::{Link, Notice};
use super::pick::Picks;
use super::sequence::Sequence;
use super::subscription::{Mailbox, Subscribed};
use super::{Client, hand_over};
use crate::{Batch, LinkError, Outlet, Reading, Time};

/// What a lost session left at its server.
pub(super) struct Left {
    /// When the server started: another instance of it numbers its subscriptions anew.
    started: Time,
    nodes: Vec<Result<NodeId, StatusCode>>,
    /// By item: the last that was told of it.
    heard: Vec<Option<Heard>>,
    picks: Picks,
    subscriptions: Vec<(Subscribed, Terms, Sequence)>,
    silence: Duration,
    /// Messages that came and were not looked at. The server has been told that they came.
    waiting: Vec<Notice>,
}

/// What was agreed about a subscription.
struct Terms {
    publish: Duration,
    lifetime: u32,
    keep_alive: u32,
    values_per_message: u32,
}

impl Client {
    /// Remembers what the link leaves, if the session was lost and not ended.
    pub(super) fn remember_left(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_over() && !link.subscriptions.is_empty()) else {
            return;
        };
        self.left = None;
        let Some(started) = self.server.as_ref().and_then(|server| server.started) else { return };
        let mut waiting: Vec<_> = mem::take(&mut self.held).into();
        while let Some(notice) = link.next_notice() {
            waiting.push(notice);
        }
        let mut sequences = mem::take(&mut self.sequences).into_iter();
        let mut subscriptions = Vec::new();
        for subscribed in mem::take(&mut link.subscriptions) {
            let Some(terms) = link.terms(subscribed.id) else { return };
            subscriptions.push((subscribed, terms, sequences.next().unwrap_or_default()));
        }
        let (nodes, picks) = (self.nodes.clone(), mem::take(&mut self.picks));
        let heard = self.known.iter().map(|known| known.heard.clone()).collect();
        self.left = Some(Left { started, nodes, heard, picks, subscriptions, silence: link.silence(), waiting });
    }

    /// Goes on with the subscriptions of the session before, if that is possible and best; whether it is so.
    pub(super) async fn transfer(&mut self, outlet: &Outlet) -> Result<bool, LinkError> {
        let Some(left) = self.left.take() else { return Ok(false) };
        let available = match self.taken_over(&left).await {
            Ok(Some(available)) => available,
            Ok(None) => return Ok(false),
            Err(error) => {
                self.left = Some(left); // for the next link
                return Err(error);
            }
        };
        // All of it at once: should the link break from here on, it leaves the same again.
        let picks = mem::take(&mut self.picks);
        self.picks = picks.watched_as(&left.picks);
        self.known.iter_mut().zip(left.heard).for_each(|(known, heard)| known.heard = heard);
        self.held.extend(left.waiting);
        let Some(link) = self.link.as_mut() else { return Ok(false) };
        self.sequences.clear();
        for (subscribed, _, sequence) in left.subscriptions {
            link.subscriptions.push(subscribed);
            self.sequences.push(sequence);
        }
        let mut found = 0;
        for (place, (numbers, sequence)) in available.iter().zip(&self.sequences).enumerate() {
            for &number in numbers.iter().filter(|&&number| sequence.is_ahead(number)) {
                let waits = |held: &Notice| held.subscription == place && held.message.sequence_number == number;
                if self.held.iter().any(waits) {
                    continue;
                }
                let message = link.republish(place, number).await?;
                found += usize::from(message.is_some());
                self.held.extend(message);
            }
        }
        self.known.iter_mut().for_each(|known| known.gap = None);
        self.seam = true; // what waited is told after what held
        self.eventless = None;
        info!(subscriptions = self.sequences.len(), messages = found, "the subscriptions of the lost session go on");
        self.tell_what_held(outlet).await?;
        Ok(true)
    }

    /// By subscription the messages that the server still has; none where they cannot or need not be taken over.
    async fn taken_over(&mut self, left: &Left) -> Result<Option<Vec<Vec<u32>>>, LinkError> {
        let same = self.server.as_ref().is_some_and(|server| server.started == Some(left.started));
        if !same || self.nodes != left.nodes || self.keeps_history().await? {
            return Ok(None);
        }
        let Some(link) = self.link.as_mut() else { return Ok(None) };
        link.take_over(left).await
    }

    /// Whether the server keeps history of anything that was told: then that has more than the queues.
    async fn keeps_history(&mut self) -> Result<bool, LinkError> {
        let told = (0..self.items.len()).filter(|&item| self.known[item].told.is_some());
        let asked: Vec<_> = told
            .filter_map(|item| self.node(item))
            .map(|node| ReadValueId::new(node, AttributeId::UserAccessLevel))
            .collect();
        let Some(link) = self.link.as_mut() else { return Ok(false) };
        let answers = link.read(asked, TimestampsToReturn::Neither).await?;
        // A server that does not say may keep some.
        Ok(answers
            .iter()
            .any(|answer| !matches!(answer.value, Some(Variant::Byte(level)) if level & HISTORY_READ == 0)))
    }

    /// The link was lost, so every tag is bad; what it was holds on, since nothing was missed.
    async fn tell_what_held(&mut self, outlet: &Outlet) -> Result<(), LinkError> {
        let now = Time::now();
        let held = self.items.iter().zip(&self.known).filter_map(|(item, known)| {
            let told = &known.heard.as_ref()?.told;
            let (value, validity) = told.said.clone()?;
            let (tag, source_time) = (item.tag, told.at);
            Some(Reading { tag, value, validity, source_time, received_time: now, backfilled: true })
        });
        let readings: Vec<_> = held.collect();
        self.refusals = self.refused.iter().filter_map(|refusal| self.refusal(*refusal)).collect();
        hand_over(Batch { readings, ..Batch::default() }, outlet).await
    }
}

impl Link {
    fn terms(&self, id: u32) -> Option<Terms> {
        let state = self.session.subscription_state().lock();
        let made = state.get(id)?;
        Some(Terms {
            publish: made.publishing_interval(),
            lifetime: made.lifetime_count(),
            keep_alive: made.max_keep_alive_count(),
            values_per_message: made.max_notifications_per_publish(),
        })
    }

    /// Makes the subscriptions those of this session: by place, the messages that the server still has. None where it
    /// does not give all of them.
    async fn take_over(&mut self, left: &Left) -> Result<Option<Vec<Vec<u32>>>, LinkError> {
        let ids: Vec<_> = left.subscriptions.iter().map(|(subscribed, ..)| subscribed.id).collect();
        let (session, asked) = (self.session.clone(), ids.clone());
        self.anew = true; // the library asks for news right after, and there may be no subscription to have any
        let answer = self.during_call(async move { session.transfer_subscriptions(&asked, false).await }).await?;
        let given = |result: &TransferResult| result.status_code.is_good();
        let results = match answer {
            Ok(results) if results.len() == ids.len() => results,
            Ok(_) => return Ok(None),
            Err(error) => {
                debug!(%error, "the server gives no subscriptions over");
                return Ok(None);
            }
        };
        // Nothing is published before they are known here.
        for (place, (subscribed, terms, _)) in left.subscriptions.iter().enumerate() {
            if !given(&results[place]) {
                continue;
            }
            let mailbox = Box::new(Mailbox { subscription: place, outbox: self.outbox.clone() });
            let &Terms { publish, lifetime, keep_alive, values_per_message } = terms;
            self.session.subscription_state().lock().add_subscription(Subscription::new(
                subscribed.id,
                publish,
                lifetime,
                keep_alive,
                values_per_message,
                0,
                true,
                mailbox,
            ));
        }
        if !results.iter().all(given) {
            let why = results.iter().find(|result| !given(result)).map(|result| result.status_code);
            debug!(?why, "the server does not give the subscriptions over");
            let halves = ids.iter().zip(&results).filter(|(_, result)| given(result)).map(|(&id, _)| id);
            self.end_subscriptions(halves.collect()).await?;
            return Ok(None);
        }
        self.silence = left.silence;
        Ok(Some(results.into_iter().map(|result| result.available_sequence_numbers.unwrap_or_default()).collect()))
    }
}
