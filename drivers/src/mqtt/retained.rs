//! When a broker is asked again for what it retains, and whose word that is. Pure: time is a parameter.
//!
//! After a break every tag is lost until something comes for it, and a topic that says only what changes may be quiet for
//! hours. So a connection that came back to its session asks for the filters of such tags again. But not at once: first
//! comes what the broker queued meanwhile, and what it retains is the newest of all; told before the queue, an older count
//! would look like a counter's reset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Reading, TagId, Validity};

/// The queue is in when nothing has come for so long, and all that came is durable (and acknowledged, so that the broker
/// could have sent more).
const QUIET: Duration = Duration::from_secs(1);
/// On a session that is never quiet it is taken to be in by then. Brokers send what they retain behind what they queued
/// anyway, as far as they have one queue for both.
const LATEST: Duration = Duration::from_secs(10);

/// What one connection has heard of, as far as it matters for retained messages.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// Tags for which nothing has come on this connection, or since they fell silent.
    missing: BTreeSet<TagId>,
    /// What the broker queued may still be on its way: when it is taken to be in, and when at the latest.
    queue: Option<(Instant, Instant)>,
    /// Something was asked for again on this connection, so that what is retained may come to tags that need none.
    again: bool,
    /// Tags that count, with the last count. They outlive connections.
    counts: BTreeMap<TagId, f64>,
}

impl Retained {
    pub(super) fn new(counters: impl IntoIterator<Item = TagId>) -> Self {
        Self { counts: counters.into_iter().map(|tag| (tag, f64::NEG_INFINITY)).collect(), ..Self::default() }
    }

    /// A connection begins. A session that was resumed may have a queue; a new one was asked for everything already.
    pub(super) fn begin(&mut self, tags: impl IntoIterator<Item = TagId>, resumed: bool, now: Instant) {
        self.missing = tags.into_iter().collect();
        self.queue = resumed.then_some((now + QUIET, now + LATEST));
        self.again = false;
    }

    /// When [`tend`](Self::tend) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.map(|(quiet, latest)| quiet.min(latest))
    }

    /// The tags that are to be asked for again now, because the queue is in. `durable` is all that came.
    pub(super) fn tend(&mut self, durable: bool, now: Instant) -> Option<&BTreeSet<TagId>> {
        let (quiet, latest) = self.queue?;
        if now < quiet.min(latest) {
            return None;
        }
        if !durable && now < latest {
            self.queue = Some((now + QUIET, latest));
            return None;
        }
        self.queue = None;
        self.again = true;
        Some(&self.missing)
    }

    /// These tags fell silent and are asked for again.
    pub(super) fn silent(&mut self, tags: &[TagId]) {
        self.missing.extend(tags);
        self.again = true;
    }

    /// A message came. Of a retained one that was asked for again, only what is news stays in `readings`: what concerns tags
    /// that are missing, and no count below the last one, which is older or a reset; the next message tells which.
    pub(super) fn take(&mut self, retained: bool, readings: &mut Vec<Reading>, now: Instant) {
        if let Some((quiet, _)) = &mut self.queue {
            *quiet = now + QUIET;
        }
        if retained && self.again {
            readings.retain(|reading| self.missing.contains(&reading.tag) && !self.falls(reading));
        }
        for reading in &*readings {
            self.missing.remove(&reading.tag);
            if reading.validity != Validity::Good {
                continue;
            }
            if let (Some(last), Some(count)) = (self.counts.get_mut(&reading.tag), reading.value.as_f64()) {
                *last = count;
            }
        }
    }

    fn falls(&self, reading: &Reading) -> bool {
        let last = self.counts.get(&reading.tag);
        last.is_some_and(|last| reading.value.as_f64().is_some_and(|count| count < *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Time, Value};

    fn reading(tag: u32, value: i64) -> Reading {
        Reading::good(TagId(tag), Value::Int(value), Time(1), Time(1))
    }

    /// What is left of such a message: the tags and what they say.
    fn left(held: &mut Retained, retained: bool, readings: &[(u32, i64)], now: Instant) -> Vec<(u32, Option<f64>)> {
        let mut readings: Vec<_> = readings.iter().map(|(tag, value)| reading(*tag, *value)).collect();
        held.take(retained, &mut readings, now);
        readings.iter().map(|reading| (reading.tag.0, reading.value.as_f64())).collect()
    }

    #[test]
    fn what_is_missing_is_asked_for_once_the_queue_is_in() {
        let (start, mut held) = (Instant::now(), Retained::new([]));
        let at = |ms| start + Duration::from_millis(ms);
        held.begin([0, 1, 2].map(TagId), true, start);
        assert_eq!(held.tend(true, at(999)), None);
        left(&mut held, false, &[(0, 1)], at(999));
        assert_eq!(held.tend(true, at(1_000)), None, "the queue is still coming");
        assert_eq!(held.tend(false, at(1_999)), None, "and the broker waits to be told that it arrived");
        assert_eq!(held.due(), Some(at(2_999)));
        let missing = held.tend(true, at(2_999)).cloned();
        assert_eq!(missing, Some([1, 2].map(TagId).into()));
        assert_eq!((held.due(), held.tend(true, at(60_000))), (None, None), "once");

        // A session that is never quiet.
        held.begin([TagId(0)], true, start);
        for ms in (0..10_000).step_by(500) {
            left(&mut held, false, &[(7, 1)], at(ms));
            assert_eq!(held.tend(true, at(ms + 400)), None);
        }
        assert_eq!(held.tend(false, at(10_000)), Some(&[TagId(0)].into()));
        held.begin([TagId(0)], false, start);
        assert_eq!(held.due(), None, "a new session has no queue and was asked for everything");
    }

    #[test]
    fn a_retained_word_counts_only_for_those_that_miss_one() {
        let (now, mut held) = (Instant::now(), Retained::new([TagId(1)]));
        held.begin([0, 1].map(TagId), false, now);
        assert_eq!(left(&mut held, true, &[(0, 5), (1, 500)], now).len(), 2);
        assert_eq!(
            left(&mut held, true, &[(0, 6)], now).len(),
            1,
            "some brokers leave the flag on: nothing was asked again"
        );
        held.silent(&[TagId(0)]);
        assert_eq!(left(&mut held, true, &[(0, 7), (1, 3)], now), [(0, Some(7.0))]);
        assert_eq!(left(&mut held, true, &[(0, 8)], now), [], "it came");
        assert_eq!(left(&mut held, false, &[(0, 8), (1, 2)], now).len(), 2, "what is not retained always counts");
    }

    #[test]
    fn a_retained_count_below_the_last_one_is_passed_over() {
        let (now, mut held) = (Instant::now(), Retained::new([TagId(1)]));
        held.begin([TagId(1)], false, now);
        left(&mut held, false, &[(1, 500)], now);
        held.begin([TagId(1)], true, now);
        held.tend(true, now + QUIET);
        assert_eq!(left(&mut held, true, &[(1, 5)], now), []);
        assert_eq!(left(&mut held, true, &[(1, 501)], now).len(), 1);
        assert_eq!(left(&mut held, false, &[(1, 5)], now).len(), 1, "a reset is told by a message of its own");
    }
}
