//! The loss ledger: nothing is lost without an entry.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gemba_drivers::{Loss, Time};
use serde::{Deserialize, Serialize};

use crate::record::Record;

/// How many entries are shown; totals are kept of all.
const SHOWN: usize = 100;

/// How many pairs of source and reason are told apart; reasons hold peers' words, which must not fill memory.
const MOST_REASONS: usize = 500;

/// Takes the place of the reason once there are too many to tell apart.
const OTHER: &str = "other reasons";

/// What was lost, ever. Survives a restart in the model's checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    newest: VecDeque<Loss>,
    totals: BTreeMap<(Arc<str>, Arc<str>), Total>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Total {
    count: u64,
    since: Time,
    /// The instant of the newest count; a higher count never has an earlier one.
    at: Time,
}

impl Ledger {
    /// Enters a loss; the record tells upstream of it.
    pub fn enter(&mut self, loss: Loss) -> Record {
        let mut key = (loss.source.clone(), loss.reason.clone());
        if self.totals.len() >= MOST_REASONS && !self.totals.contains_key(&key) {
            key.1 = OTHER.into();
        }
        let total = self.totals.entry(key).or_insert(Total { count: 0, since: loss.from, at: loss.from });
        total.count = total.count.saturating_add(loss.count);
        total.at = total.at.max(loss.to);
        let Total { count, since, at } = *total;
        self.newest.push_front(loss.clone());
        self.newest.truncate(SHOWN);
        Record::Loss { loss, total: count, since, at }
    }

    /// The newest entries, newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Loss> {
        self.newest.iter()
    }

    /// Source, reason, and how much was ever lost.
    pub fn totals(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>, u64)> {
        self.totals.iter().map(|((source, reason), total)| (source.clone(), reason.clone(), total.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(source: &str, reason: &str, count: u64) -> Loss {
        Loss { source: source.into(), from: Time(5), to: Time(9), count, reason: reason.into() }
    }

    #[test]
    fn totals_add_up_by_source_and_reason() {
        let mut ledger = Ledger::default();
        ledger.enter(loss("oven-1", "not JSON", 1));
        ledger.enter(loss("aoi-1", "not JSON", 1));
        let record = ledger.enter(loss("oven-1", "not JSON", 2));
        let Record::Loss { total, since, .. } = record else { panic!("a loss: {record:?}") };
        assert_eq!((total, since), (3, Time(5)));
        assert_eq!(ledger.totals().count(), 2);
        assert_eq!(ledger.newest().count(), 3);
    }

    #[test]
    fn a_loss_that_lies_further_back_moves_neither_start_nor_end_of_the_sum() {
        let mut ledger = Ledger::default();
        ledger.enter(loss("oven-1", "not JSON", 1));
        let earlier = Loss { from: Time(1), to: Time(2), ..loss("oven-1", "not JSON", 1) };
        let record = ledger.enter(earlier.clone());
        assert_eq!(record, Record::Loss { loss: earlier, total: 2, since: Time(5), at: Time(9) });
    }

    #[test]
    fn it_stays_bounded_and_still_counts() {
        let mut ledger = Ledger::default();
        for reason in 0..2000 {
            ledger.enter(loss("upstream", &format!("said {reason}"), 1));
        }
        assert_eq!(ledger.newest().count(), SHOWN);
        assert!(ledger.totals().count() <= MOST_REASONS + 1);
        assert_eq!(ledger.totals().map(|(_, _, count)| count).sum::<u64>(), 2000);
    }
}
