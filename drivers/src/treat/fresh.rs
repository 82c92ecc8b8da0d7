//! `max_age`: a link that stands and a tag that is silent.
//!
//! At half the age the driver is asked to look, at the whole age the tag turns bad and the driver is asked to make anew
//! what brings it, at twice the age to give the connection up. Each rung is told once until something comes for the tag,
//! also across connections that bring other tags: a sensor that is dead behind its broker must not cost its neighbours a
//! connection again and again. A tag that the device itself calls bad is not silent: the reason it has is the better one.

use std::time::Duration;

use tokio::time::Instant;

use crate::{OwnStatus, Reading, Rung, Status, Time, Validity};

/// Whether the device said it now: not gemba of a link that is lost or silent, nor the device long ago.
pub(super) fn is_sign_of_life(reading: &Reading) -> bool {
    !reading.validity.is_mark() && !reading.backfilled && !may_be_old(reading)
}

/// Whether a broker remembers it, and nobody knows since when.
pub(super) fn may_be_old(reading: &Reading) -> bool {
    reading.validity == Validity::Uncertain(Status::Own(OwnStatus::Retained))
}

/// In the order in which they are climbed.
const RUNGS: [Rung; 3] = [Rung::Look, Rung::Renew, Rung::Reconnect];

#[derive(Debug)]
pub(super) struct Fresh {
    age: Duration,
    /// When something last came, or the link came up since.
    heard: Instant,
    heard_at: Time,
    /// How many rungs the driver was told.
    told: u8,
    /// It is bad by now: said once for each connection.
    stale: bool,
    /// It is bad for a reason of its own.
    bad: bool,
    /// A timer is set.
    armed: bool,
}

/// What a look at the clock comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Look {
    /// What the driver is to be told.
    pub(super) rung: Option<Rung>,
    /// The tag turns bad, from then on.
    pub(super) stale: Option<Time>,
    /// When to look again.
    pub(super) again: Option<Instant>,
}

impl Fresh {
    pub(super) fn new(age: Duration) -> Self {
        let (heard, heard_at) = (Instant::now(), Time::default());
        Self { age, heard, heard_at, told: 0, stale: false, bad: false, armed: false }
    }

    /// The link is up; a timer to be set. `anew` climbs from the lowest rung again.
    pub(super) fn begin(&mut self, now: Instant, wall: Time, anew: bool) -> Option<Instant> {
        if anew {
            self.told = 0;
        }
        (self.heard, self.heard_at) = (now, wall);
        (self.stale, self.bad) = (false, false);
        (!std::mem::replace(&mut self.armed, true)).then_some(now + self.age / 2)
    }

    /// Something came. What gemba says itself of a link or a tag is no sign of life.
    pub(super) fn heard(&mut self, reading: &Reading, now: Instant) {
        self.bad = reading.validity.is_bad();
        if !is_sign_of_life(reading) {
            return;
        }
        (self.heard, self.heard_at) = (now, reading.received_time);
        (self.told, self.stale) = (0, false);
    }

    /// The device vouched for what it told last. Whether that is enough: a value that has turned bad comes back by a reading
    /// alone.
    pub(super) fn confirm(&mut self, now: Instant, wall: Time) -> bool {
        if !self.stale {
            (self.heard, self.heard_at, self.told) = (now, wall, 0);
        }
        !self.stale
    }

    /// Nothing could come for so long; a timer to be set. It stands on the rung that it stood on.
    pub(super) fn resume(&mut self, after: Duration, now: Instant) -> Option<Instant> {
        (self.heard, self.heard_at) = ((self.heard + after).min(now), self.heard_at + after);
        (!std::mem::replace(&mut self.armed, true)).then_some(now)
    }

    /// It has been silent for longer than it may be.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// The rung that the driver was told last, since something came.
    pub(super) fn rung(&self) -> Option<Rung> {
        RUNGS.get(usize::from(self.told).checked_sub(1)?).copied()
    }

    /// The link is down: nothing to look at until it is up again.
    pub(super) fn rest(&mut self) {
        self.armed = false;
    }

    pub(super) fn look(&mut self, now: Instant) -> Look {
        let mut look = Look::default();
        let silent = now.saturating_duration_since(self.heard);
        if !self.bad || self.stale {
            let after = [self.age / 2, self.age, self.age * 2];
            let next = usize::from(self.told);
            let rung = RUNGS.get(next).copied().filter(|_| silent >= after[next]);
            self.told += u8::from(rung.is_some());
            look.rung = rung;
            if silent >= self.age && !self.stale {
                self.stale = true;
                look.stale = Some(self.heard_at + self.age);
            }
        }
        // Twice in an age at least, however late the next rung is: something may come meanwhile and begin anew.
        let halves = [1, 2, 4].into_iter().map(|halves| self.heard + self.age / 2 * halves);
        let half = now + self.age / 2;
        look.again = Some(halves.into_iter().find(|due| *due > now).unwrap_or(half).min(half));
        look
    }
}
