//! A level counts once it has stood for a while: contacts bounce.

use std::time::Duration;

use crate::Time;

/// Takes levels as they are seen and tells changes that lasted. Pure: what it is told is all it knows.
///
/// A change is dated to the end of its wait, as the kernel's own debounce does it (gpiolib-cdev.c, `debounce_work_func`).
#[derive(Clone, Debug)]
pub(super) struct Debounce {
    period: Duration,
    stable: bool,
    /// Another level than the stable one, and since when it stands.
    pending: Option<(bool, Time)>,
}

impl Debounce {
    /// Begins with a level that stands.
    pub(super) fn new(period: Duration, stable: bool) -> Self {
        Self { period, stable, pending: None }
    }

    /// The level that counts.
    pub(super) fn level(&self) -> bool {
        self.stable
    }

    /// `level` was seen at `at`; what has lasted by then.
    pub(super) fn see(&mut self, level: bool, at: Time) -> Option<(bool, Time)> {
        let lasted = self.settle(at);
        if level == self.stable {
            self.pending = None;
        } else if self.pending.is_none() {
            self.pending = Some((level, at));
        }
        // With no wait at all nothing was pending before, so only one of the two can be.
        lasted.or_else(|| self.settle(at))
    }

    /// When the level that waits will have lasted, if it stays.
    pub(super) fn due(&self) -> Option<Time> {
        self.pending.map(|(_, since)| since + self.period)
    }

    /// Nothing else was seen until `now`; what has lasted by then.
    pub(super) fn settle(&mut self, now: Time) -> Option<(bool, Time)> {
        let due = self.due().filter(|due| *due <= now)?;
        let (level, _) = self.pending.take()?;
        self.stable = level;
        Some((level, due))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: i64 = 1_000_000;

    fn told(period: u64, first: bool, seen: &[(bool, i64)], end: i64) -> Vec<(bool, i64)> {
        let mut debounce = Debounce::new(Duration::from_millis(period), first);
        let mut told: Vec<_> = seen.iter().filter_map(|&(level, at)| debounce.see(level, Time(at * MS))).collect();
        told.extend(debounce.settle(Time(end * MS)));
        told.into_iter().map(|(level, at)| (level, at.0 / MS)).collect()
    }

    #[test]
    fn a_bouncing_contact_is_one_change() {
        let bouncing = [(true, 0), (false, 1), (true, 2), (false, 3), (true, 4), (false, 50), (true, 52), (false, 53)];
        assert_eq!(told(5, false, &bouncing, 100), [(true, 9), (false, 58)]);
        assert_eq!(told(5, false, &bouncing, 57), [(true, 9)], "the last one has not lasted yet");
        assert_eq!(told(0, false, &[(true, 3), (true, 4), (false, 5)], 9), [(true, 3), (false, 5)], "none asked for");
        assert_eq!(told(5, true, &[(false, 0), (true, 4)], 100), [], "a glitch");
    }

    #[test]
    fn a_clock_that_steps_back_holds_nothing_up_for_long() {
        let mut debounce = Debounce::new(Duration::from_millis(5), false);
        assert_eq!(debounce.see(true, Time(100 * MS)), None);
        assert_eq!(debounce.see(false, Time(10 * MS)), None);
        assert_eq!(debounce.see(true, Time(11 * MS)), None);
        assert_eq!(debounce.see(true, Time(16 * MS)), Some((true, Time(16 * MS))));
    }

    /// From the whole history at once: a run of one level tells a change if it is long enough and another than the last told.
    fn reference(period: i64, first: bool, seen: &[(bool, i64)], end: i64) -> Vec<(bool, i64)> {
        let mut told = Vec::new();
        let mut stable = first;
        let mut at = 0;
        while at < seen.len() {
            let (level, since) = seen[at];
            while at < seen.len() && seen[at].0 == level {
                at += 1;
            }
            let until = seen.get(at).map_or(end, |next| next.1);
            if level != stable && until - since >= period {
                stable = level;
                told.push((level, since + period));
            }
        }
        told
    }

    proptest! {
        #[test]
        fn what_lasts_is_told_once_and_nothing_else(
            period in 0_u64..20,
            first in any::<bool>(),
            steps in proptest::collection::vec((any::<bool>(), 1_i64..30), 0..60),
            rest in 1_i64..30,
        ) {
            let mut now = 0;
            let seen: Vec<_> = steps.into_iter().map(|(level, step)| { now += step; (level, now) }).collect();
            let end = now + rest;
            let expected = reference(period.cast_signed(), first, &seen, end);
            prop_assert_eq!(told(period, first, &seen, end), expected);
        }
    }
}
