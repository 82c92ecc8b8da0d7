//! The timers of a link: one heap, and no timer for each reading. What is no longer due when its time comes is set
//! again by whoever looks, so a reading only has to note when it came.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

/// What may be due for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Something that was held back is to be told.
    Release,
    /// Its age is to be looked at.
    Age,
}

/// At most two entries for each slot: whoever sets one keeps count.
#[derive(Debug, Default)]
pub(super) struct Agenda(BinaryHeap<Reverse<(Instant, u32, Due)>>);

impl Agenda {
    pub(super) fn set(&mut self, at: Instant, slot: u32, due: Due) {
        self.0.push(Reverse((at, slot, due)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// The earliest, if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(u32, Due)> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop().map(|Reverse((_, slot, due))| (slot, due))
    }
}
