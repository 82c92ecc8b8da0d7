//! Sums of the hours that are over, so that figures are not added up from the shift's beginning each time that somebody looks.
//!
//! A longer time is added up by its hours, whether their sums are held or not: the digits are the same either way, live, after a
//! restart and in a replay.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gemba_drivers::Time;

use crate::model::setting::Setting;
use crate::model::tally::Tally;
use crate::model::timeline::Facts;
use crate::model::window::Stretch;

/// An hour of UTC, in nanoseconds.
const HOUR: i64 = 3_600_000_000_000;

/// For each beginning that was asked for: up to which full hour it was added up last, and to what.
#[derive(Clone, Debug, Default)]
pub struct Memo(RefCell<BTreeMap<Time, (Time, Tally)>>);

/// It follows from the facts: two stations that know the same are the same, whatever somebody has asked of them.
impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Memo {
    /// What `facts` say of a stretch of time. Nothing before `stable` has changed since it was last asked, unless
    /// [`forgotten`](Self::forget_from), nor will it by time alone.
    pub fn within(&self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch, stable: Time) -> Tally {
        let mut memo = self.0.borrow_mut();
        let held = memo.get(&stretch.from).filter(|(to, _)| *to <= stable && *to < stretch.to);
        let (from, mut sum) = held.cloned().unwrap_or_else(|| (stretch.from, Tally::default()));
        let mut firm = true;
        for part in hours(facts, stretch, from) {
            let goes_on = part.open || part.to > stable || part.to == stretch.to;
            if firm && goes_on && part.from > from {
                memo.insert(stretch.from, (part.from, sum.clone()));
            }
            firm = firm && !goes_on;
            sum.add(&Tally::of_part(facts, setting, part));
        }
        sum
    }

    /// Something has changed from `at` on.
    pub fn forget_from(&mut self, at: Time) {
        self.0.get_mut().retain(|_, (to, _)| *to <= at);
    }

    /// Nobody will ask of what lies before `at`.
    pub fn forget_before(&mut self, at: Time) {
        self.0.get_mut().retain(|&from, _| from >= at);
    }
}

/// What `facts` say of a stretch of time.
pub fn within(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> Tally {
    let mut sum = Tally::default();
    hours(facts, stretch, stretch.from).for_each(|part| sum.add(&Tally::of_part(facts, setting, part)));
    sum
}

/// The hours of a stretch from `from` on, in order. What lies before the facts begin is part of their first hour.
fn hours(facts: Facts<'_>, stretch: Stretch, from: Time) -> impl Iterator<Item = Stretch> {
    let mut from = Some(from);
    std::iter::from_fn(move || {
        let at = from?;
        let known = facts.begin().map_or(at, |begin| begin.max(at));
        let next = Time(known.0.div_euclid(HOUR).saturating_add(1).saturating_mul(HOUR));
        from = (next < stretch.to).then_some(next);
        Some(stretch.part(at, from.unwrap_or(Time(i64::MAX))))
    })
}
