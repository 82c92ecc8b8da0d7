//! What a workload writes: all of it follows from a seed, so that a checker knows every byte.

use gemba::model::State;
use gemba::record::{Record, WatchPoint};
use gemba::spool::{Entry, Own, Seq, SeriesId, Signal, StoredReading};
use gemba_drivers::{Delivery, Loss, Time, Validity, Value};
use serde::{Deserialize, Serialize};

use crate::dice::Dice;

/// Records that tell of losses have keys from here on.
const TELLING: u64 = 0xF000;

/// A commit: its number, and the generation (one more with every start) that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Grows with every commit, also across starts.
    pub commit: u32,
    /// Who made it.
    pub generation: u8,
}

impl Stamp {
    /// What the spool is told as the time of the commit.
    #[must_use]
    pub fn time(self) -> Time {
        Time(i64::from(self.commit) << 8 | i64::from(self.generation))
    }

    /// Of a commit's time; `None` for what is none.
    #[must_use]
    pub fn of(time: Time) -> Option<Self> {
        let commit = u32::try_from(time.0 >> 8).ok()?;
        Some(Self { commit, generation: time.0.to_le_bytes()[0] })
    }

    /// The item `index` in it.
    #[must_use]
    pub fn key(self, index: u64) -> Key {
        Key(u64::from(self.commit) << 24 | u64::from(self.generation) << 16 | index)
    }
}

/// What names an item: a reading, or anything else that is appended. In order of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub u64);

impl Key {
    /// The commit that it is in.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        Stamp { commit: u32::try_from(self.0 >> 24).unwrap_or(u32::MAX), generation: self.0.to_le_bytes()[2] }
    }

    /// The key of an item that was read back; `None` for what no workload writes.
    #[must_use]
    pub fn of(item: &Entry) -> Option<Self> {
        let number = match item {
            Entry::Readings(readings) => match readings.first()?.value {
                Value::Int(number) => number,
                _ => return None,
            },
            Entry::Record { record, .. } => match record {
                Record::StateChanged { time, .. } => time.0,
                Record::Watched(point) => point.time.0,
                Record::Loss { total, .. } => i64::try_from(*total).ok()?,
                _ => return None,
            },
            Entry::Tick(time) => time.0,
            Entry::Telemetry(own) => own.time.0,
            Entry::Deliveries { session, .. } => session.parse().ok()?,
            Entry::Filters { .. } => return None,
        };
        u64::try_from(number).ok().map(Self)
    }
}

/// The lane of an item, as losses name it; the model's never goes upstream.
#[must_use]
pub fn lane(item: &Entry) -> &'static str {
    match item {
        Entry::Readings(_) => "readings",
        Entry::Record { record: Record::Watched(_) | Record::Kpi(_), .. } => "kpis",
        Entry::Record { .. } => "events",
        Entry::Telemetry(_) => "telemetry",
        Entry::Tick(_) | Entry::Deliveries { .. } | Entry::Filters { .. } => MODEL,
    }
}

/// See [`lane`].
pub const MODEL: &str = "model";

/// How many units of its lane an item is.
#[must_use]
pub fn units(item: &Entry) -> u64 {
    match item {
        Entry::Telemetry(own) => own.items,
        _ => 1,
    }
}

/// What is appended in a commit, in order.
#[must_use]
pub fn entries(seed: u64, stamp: Stamp) -> Vec<Entry> {
    let mut dice = Dice::new(&[seed, stamp.key(0).0]);
    let mut keys = (0..).map(|index| stamp.key(index));
    let mut next = || keys.next().expect("without end");
    let mut entries = Vec::new();
    for _ in 0..=dice.below(3) {
        entries.push(match dice.below(12) {
            0 | 1 => event(next()),
            2 => Entry::Tick(Time(number(next()))),
            3 => watched(next()),
            4 => telemetry(next()),
            5 => {
                let digest = dice.draw().to_le_bytes()[0].into();
                let deliveries =
                    (1..=1 + dice.below(20)).map(|packet| Delivery { packet: packet as u16, digest, anew: false });
                Entry::Deliveries { session: next().0.to_string().into(), deliveries: deliveries.collect() }
            }
            _ => Entry::Readings((0..=dice.below(150)).map(|_| reading(next())).collect()),
        });
    }
    entries
}

/// The entries of a commit, with readings one by one: what is named by a key.
#[must_use]
pub fn items(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let split = |entry| match entry {
        Entry::Readings(readings) => readings.into_iter().map(|reading| Entry::Readings(vec![reading])).collect(),
        other => vec![other],
    };
    entries.into_iter().flat_map(split).collect()
}

/// The key of the `index`th loss that is told in a commit.
#[must_use]
pub fn telling(stamp: Stamp, index: u64) -> Key {
    stamp.key(TELLING + index)
}

/// The record that tells of a loss.
#[must_use]
pub fn told(key: Key, loss: Loss) -> Entry {
    let (since, at) = (loss.from, loss.to);
    Entry::Record { cause: None, record: Record::Loss { loss, total: key.0, since, at } }
}

/// The model's state when it has applied all up to this commit: too long for one frame, at times.
#[must_use]
pub fn state(seed: u64, stamp: Stamp) -> Vec<u8> {
    let mut dice = Dice::new(&[seed, stamp.key(0).0, 3]);
    let length = dice.below(12_000);
    let mut state = stamp.time().0.to_le_bytes().to_vec();
    state.extend(dice.bytes(length));
    state
}

/// What a state says that it has applied; `None` when it is not what [`state`] made.
#[must_use]
pub fn applied(seed: u64, bytes: &[u8]) -> Option<Stamp> {
    let stamp = Stamp::of(Time(i64::from_le_bytes(*bytes.first_chunk()?)))?;
    (state(seed, stamp) == bytes).then_some(stamp)
}

fn number(key: Key) -> i64 {
    i64::try_from(key.0).expect("a workload has fewer commits")
}

fn reading(key: Key) -> StoredReading {
    let number = number(key);
    StoredReading {
        series: SeriesId(u32::from(key.0.to_le_bytes()[0]) % 7),
        value: Value::Int(number),
        validity: Validity::Good,
        source_time: Time(number * 3),
        received_time: Time(number * 3 + 7),
        backfilled: number % 11 == 0,
    }
}

fn event(key: Key) -> Entry {
    let record = Record::StateChanged {
        station: "press".into(),
        time: Time(number(key)),
        from: State::Down,
        to: State::Producing,
    };
    Entry::Record { cause: Some(Seq(key.0)), record }
}

fn watched(key: Key) -> Entry {
    let time = Time(number(key));
    let point = WatchPoint {
        station: "press".into(),
        time,
        detectors: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        rates: None,
    };
    Entry::Record { cause: Some(Seq(key.0)), record: Record::Watched(Box::new(point)) }
}

/// Longer than what sled keeps in its own file, at times.
fn telemetry(key: Key) -> Entry {
    let mut dice = Dice::new(&[key.0]);
    let (items, length) = (1 + dice.draw() % 4, dice.below(9_000));
    Entry::Telemetry(Own { signal: Signal::Traces, items, time: Time(number(key)), body: dice.bytes(length).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_named_by_its_key_in_order() {
        for commit in 1..200 {
            let stamp = Stamp { commit, generation: 3 };
            let items = items(entries(7, stamp));
            let keys: Vec<_> = items.iter().map(|item| Key::of(item).expect("a workload's own")).collect();
            let expected: Vec<_> = (0..items.len() as u64).map(|index| stamp.key(index)).collect();
            assert_eq!(keys, expected);
            assert!(keys.iter().all(|key| key.stamp() == stamp));
            assert_eq!(Stamp::of(stamp.time()), Some(stamp));
            assert!((items.len() as u64) < TELLING);
        }
    }

    #[test]
    fn a_state_that_was_garbled_is_known() {
        let stamp = Stamp { commit: 9, generation: 1 };
        let mut bytes = state(7, stamp);
        assert_eq!(applied(7, &bytes), Some(stamp));
        *bytes.last_mut().expect("never empty") ^= 1;
        assert_eq!(applied(7, &bytes), None);
        assert_eq!(applied(7, b""), None);
    }
}
