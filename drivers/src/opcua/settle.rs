//! What is told of a gap once it is closed: that history filled it, and what it did not have.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Client;
use super::backfill::Past;
use super::find::handle;
use crate::{Backfill, Batch, Loss, Reading, Time};

impl Client {
    /// What is told of the gap itself, by station. It is closed for all but the nodes that the server does not let us watch.
    pub(super) fn settle(&mut self, pasts: &[Past]) -> Batch {
        let now = Time::now();
        let mut batch = Batch::default();
        let refused = self.refused_handles();
        for (station, told) in (0..).zip(&self.config.stations) {
            let of = pasts.iter().filter(|past| self.items[past.asked.item].station == station);
            let (mut gaps, mut lacking) = (Vec::new(), Lacking::default());
            for past in of.filter(|past| !refused.contains(&handle(past.asked.item))) {
                gaps.extend(self.known[past.asked.item].gap.take());
                lacking.add(past);
            }
            let Some(from) = gaps.iter().map(|gap| gap.from.min(now)).min() else { continue };
            batch.losses.extend(lacking.loss(&told.name, (from, now), "a gap that history does not close"));
            let count: u64 = gaps.iter().map(|gap| gap.given).sum();
            if count > 0 {
                batch.backfills.push(Backfill { station: told.name.clone(), from, to: now, count });
            }
        }
        batch
    }

    /// What may be lost, by station, where there was no subscription for a moment, or one that did not tell: the nodes
    /// whose values have moved, and whose history does not say how.
    pub(super) fn missed(&self, pasts: &[Past], first: &HashMap<usize, Reading>, began: Time) -> Vec<Loss> {
        let now = Time::now();
        let moved = |past: &&Past| {
            let item = past.asked.item;
            let heard = self.known[item].heard.as_ref().map(|heard| &heard.told);
            let other = |first: &Reading| heard.is_some_and(|told| told.said_same(first) == Some(false));
            self.suspects.before(item).is_some() || first.get(&item).is_some_and(other)
        };
        let mut losses = Vec::new();
        for (station, told) in (0..).zip(&self.config.stations) {
            let mut lacking = Lacking::default();
            let of = pasts.iter().filter(|past| self.items[past.asked.item].station == station).filter(moved);
            let from = of.clone().map(|past| past.asked.from).min().unwrap_or(began).min(began);
            of.for_each(|past| lacking.add(past));
            losses.extend(lacking.loss(&told.name, (from, now), "subscribed anew, and history does not close the gap"));
        }
        losses
    }
}

/// Nodes of a station whose history does not close a gap.
#[derive(Default)]
struct Lacking<'a> {
    nodes: u64,
    reasons: BTreeSet<&'a str>,
}

impl<'a> Lacking<'a> {
    fn add(&mut self, past: &'a Past) {
        self.nodes += u64::from(past.reason().is_some());
        self.reasons.extend(past.reason());
    }

    fn loss(self, station: &Arc<str>, (from, to): (Time, Time), what: &str) -> Option<Loss> {
        let reasons: Vec<&str> = self.reasons.into_iter().take(3).collect();
        let reason = Arc::from(format!("OPC UA: {what}: {}", reasons.join(", ")));
        (self.nodes > 0).then(|| Loss { source: station.clone(), from, to, count: self.nodes, reason })
    }
}

impl Past {
    fn reason(&self) -> Option<&str> {
        let short = "history does not reach back to the last value that was told";
        self.lacks.as_deref().or_else(|| (!self.sieve.whole).then_some(short))
    }
}
