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

/// What hours of a station added up to, by beginning and end.
#[derive(Clone, Debug, Default)]
pub struct Memo(RefCell<BTreeMap<(Time, Time), Tally>>);

/// It follows from the facts: two stations that know the same are the same, whatever somebody has asked of them.
impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Memo {
    /// What `facts` say of a stretch of time. Nothing that ends by `stable` has changed since it was last asked, unless
    /// [`forgotten`](Self::forget_from), nor will it by time alone.
    pub fn within(&self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch, stable: Time) -> Tally {
        let mut held = self.0.borrow_mut();
        add_up(facts, stretch, |sum, part| {
            if part.open || part.to > stable {
                sum.add(&Tally::of_part(facts, setting, part));
            } else {
                sum.add(held.entry((part.from, part.to)).or_insert_with(|| Tally::of_part(facts, setting, part)));
            }
        })
    }

    /// Something has changed from `at` on.
    pub fn forget_from(&mut self, at: Time) {
        self.0.get_mut().retain(|&(_, to), _| to <= at);
    }

    /// Nobody will ask of what lies before `at`.
    pub fn forget_before(&mut self, at: Time) {
        self.0.get_mut().retain(|&(from, _), _| from >= at);
    }
}

/// What `facts` say of a stretch of time.
pub fn within(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> Tally {
    add_up(facts, stretch, |sum, part| sum.add(&Tally::of_part(facts, setting, part)))
}

/// Adds up the hours of a stretch, in order. What lies before the facts begin is part of their first hour.
fn add_up(facts: Facts<'_>, stretch: Stretch, mut add: impl FnMut(&mut Tally, Stretch)) -> Tally {
    let mut sum = Tally::default();
    let mut from = stretch.from;
    loop {
        let known = facts.begin().map_or(from, |begin| begin.max(from));
        let next = Time(known.0.div_euclid(HOUR).saturating_add(1).saturating_mul(HOUR));
        if next >= stretch.to {
            add(&mut sum, stretch.part(from, Time(i64::MAX)));
            return sum;
        }
        add(&mut sum, stretch.part(from, next));
        from = next;
    }
}
