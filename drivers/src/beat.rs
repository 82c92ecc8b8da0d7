//! When what is read again and again is read next, and what was left out meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Loss, Time};

/// What was not read for so long beyond its turn has missed reads, which are a loss. Less is jitter, of the device or of us.
pub(crate) const LATE: Duration = Duration::from_secs(2);

/// Reads that were not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    reads: u32,
    span: Duration,
}

/// The next turn of what was `due` and is read `every` so often: on its own beat, with those left out that an overrun has
/// passed; and those, if they are too many to be jitter.
pub(crate) fn next_turn(due: Instant, every: Duration, now: Instant) -> (Instant, Option<Missed>) {
    let every = every.max(Duration::from_millis(1));
    let late = now.saturating_duration_since(due);
    let reads = u32::try_from(late.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
    let turn = due + every.saturating_mul(reads.saturating_add(1));
    (turn, (reads > 0 && late >= LATE).then_some(Missed { reads, span: late }))
}

impl Missed {
    /// The loss of so many `tags` of `station`, whoever was too slow: the device, its neighbours, or the disk.
    pub(crate) fn loss(self, station: &Arc<str>, tags: usize, reason: &str) -> Loss {
        let now = Time::now();
        Loss {
            source: Arc::clone(station),
            from: now - self.span,
            to: now,
            count: u64::from(self.reads).saturating_mul(tags as u64),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_skips_beats_and_keeps_the_rhythm() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let turn = |every, after| next_turn(start, every, start + after).0;
        assert_eq!(turn(ms(100), ms(3)), start + ms(100));
        assert_eq!(turn(ms(100), ms(100)), start + ms(200));
        assert_eq!(turn(ms(100), ms(350)), start + ms(400));
        assert_eq!(turn(Duration::ZERO, Duration::ZERO), start + ms(1), "never a busy loop");
    }

    #[test]
    fn reads_that_were_left_out_are_a_loss_and_jitter_is_not() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let missed = |every, after| next_turn(start, every, start + after).1.map(|missed| missed.reads);
        assert_eq!(missed(ms(200), ms(150)), None);
        assert_eq!(missed(ms(200), ms(1_999)), None);
        assert_eq!(missed(ms(200), ms(2_050)), Some(10));
        assert_eq!(missed(ms(3_600_000), ms(5_000)), None, "nothing was to be read meanwhile");

        let loss = Missed { reads: 10, span: ms(2_050) }.loss(&"press-1".into(), 2, "too slow");
        assert_eq!((&*loss.source, loss.count, loss.to.since(loss.from)), ("press-1", 20, ms(2_050)));
    }
}
