//! What a driver hands over.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Delivery, Event, Reading, Time};

/// Everything that arrived in one response, publish or payload. It is applied together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order of arrival.
    pub readings: Vec<Reading>,
    /// What arrived and could not become a reading.
    pub losses: Vec<Loss>,
    /// What happened.
    pub events: Vec<Event>,
    /// Gaps that history has just filled; the readings themselves came before, or are in this batch.
    pub backfills: Vec<Backfill>,
    /// To be signed once all of this is durable.
    pub receipt: Option<Receipt>,
}

impl Batch {
    /// Whether there is nothing to hand over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { readings, losses, events, backfills, receipt } = self;
        readings.is_empty() && losses.is_empty() && events.is_empty() && backfills.is_empty() && receipt.is_none()
    }
}

/// One entry of the loss ledger: a span of data that was dropped, rejected, quarantined or never came.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Loss {
    /// A station, a lane of the spool, or `upstream`.
    pub source: Arc<str>,
    /// Where the span begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
    /// How many readings or messages.
    pub count: u64,
    /// Why, in one line.
    pub reason: Arc<str>,
}

/// A gap of one station that was filled from the source's history.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Backfill {
    /// The station.
    pub station: Arc<str>,
    /// Where the gap begins.
    pub from: Time,
    /// Where it ends.
    pub to: Time,
    /// How many readings history gave.
    pub count: u64,
}

/// A driver's wish to hear when what it delivered is durable.
///
/// Batches of one driver become durable in the order they were delivered, so one number says it all
/// and a slow listener loses nothing: it sees the highest.
#[derive(Clone, Debug)]
pub struct Receipt {
    durable: Arc<watch::Sender<u64>>,
    number: u64,
    session: Arc<str>,
    keep: Keep,
}

/// What is to become durable for a session with a broker, so that another process knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A message that was taken in: it may come again.
    Delivery(Delivery),
    /// What the session is subscribed to now, all of it.
    Filters(Arc<[Box<str>]>),
}

impl Receipt {
    /// The receipt for what `session` is to `keep`, after the delivery of this `number`; numbers of one `durable` only
    /// grow.
    #[must_use]
    pub fn new(durable: Arc<watch::Sender<u64>>, number: u64, session: Arc<str>, keep: Keep) -> Self {
        Self { durable, number, session, keep }
    }

    /// What is to become durable with the batch: the session's lasting name, and what is kept of it.
    #[must_use]
    pub fn keep(&self) -> (&Arc<str>, &Keep) {
        (&self.session, &self.keep)
    }

    /// Everything up to this delivery is durable.
    pub fn sign(self) {
        self.durable.send_if_modified(|held| {
            let newer = self.number > *held;
            *held = self.number.max(*held);
            newer
        });
    }
}
