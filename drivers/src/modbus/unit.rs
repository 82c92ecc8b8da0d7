//! The units on a bus: which one answers, how fast, and how much of the bus those may take that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::config::Table;
use super::frame::{Answer, Oddity};
use super::plan::Read;
use super::wire::{Failure, Wire};
use crate::{Breaker, BreakerState, BreakerView, DeviceState, Durations, LinkError, Time};

/// A lost answer is no dead device; two in a row are, on a bus that others wait for.
const THRESHOLD: u32 = 2;
/// Of a bus's time at most one part in so many goes to what did not answer the last time: a question that was waited
/// for in vain is followed by nine times as long without another of its kind, whichever unit it was for.
const SHARE: u32 = 10;
/// The shortest wait for what did not answer the last time. Neighbours are that much late, which is within their own jitter.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a unit may take to its first answer where others wait for theirs and nobody knows yet how fast the bus is.
const FIRST_LOOK: Duration = Duration::from_millis(250);
/// A unit is as slow as its slowest answer of late; so many times as long it may take where others wait.
const HICCUP: u32 = 10;
/// Every so many questions to what is away one waits longer: it may have become slower.
const PATIENT: u32 = 8;

/// One unit of a bus.
pub(super) struct Unit {
    pub(super) id: u8,
    pub(super) breaker: Breaker,
    timeout: Duration,
    /// The slowest answer of late.
    slowest: Option<Duration>,
    /// It has not been asked yet over this link.
    fresh: bool,
    /// Its last answer over this link, if only a refusal.
    heard: Option<Instant>,
    /// Its last question without an answer.
    missed: Option<Instant>,
    /// Nothing came for its last question, not even a word of a gateway.
    pub(super) silent: bool,
    /// Over RTU, until when an answer to what was given up may still come, and would be taken for another.
    settled: Option<Instant>,
    /// The same for reads that it does not answer while it answers others: only an answer of the same form is taken for theirs.
    owed: Vec<(Table, u16, Instant)>,
    told: DeviceState,
}

/// What came of a question.
pub(super) enum Heard {
    /// An answer, or a refusal by the unit itself.
    Answer(Answer),
    /// Nothing for this read; the unit answers others.
    Nothing,
    /// Nothing, as of the whole unit; the last thing that came instead.
    Silence(Option<Oddity>),
    /// The gateway's word that the unit is away.
    Away(u8),
}

impl Unit {
    pub(super) fn new(id: u8, timeout: Duration, stations: Vec<Arc<str>>) -> Self {
        let told = DeviceState {
            name: format!("unit {id}").into(),
            stations,
            breaker: BreakerView::new(Time::now()),
            requests: 0,
            unanswered: 0,
            retries: 0,
            retrying: Durations::default(),
            discarded: Oddity::ALL.iter().map(|oddity| (oddity.word(), 0)).collect(),
        };
        let breaker = Breaker::new(THRESHOLD);
        let (slowest, heard, missed, settled, owed) = (None, None, None, None, Vec::new());
        Self { id, breaker, timeout, slowest, fresh: true, heard, missed, silent: false, settled, owed, told }
    }

    /// What is told of it.
    pub(super) fn told(&self) -> &DeviceState {
        &self.told
    }

    /// Brings what was told up to date, at every poll and so without making anything anew. Whether its breaker turned.
    pub(super) fn tell(&self, device: &mut DeviceState) -> bool {
        let DeviceState { breaker, requests, unanswered, retries, retrying, discarded, .. } = &self.told;
        let turned = device.breaker.state != breaker.state;
        device.breaker.clone_from(breaker);
        (device.requests, device.unanswered, device.retries) = (*requests, *unanswered, *retries);
        device.retrying.clone_from(retrying);
        device.discarded.clone_from(discarded);
        turned
    }

    /// Whether it answered the last time it was asked over this link.
    pub(super) fn answers(&self) -> bool {
        self.heard.is_some() && self.breaker.failures() == 0
    }

    /// When it may be asked next, if not at once. What was never heard has its first look, and what failed once its second
    /// one; after that the bus must have time for them, if others use it.
    pub(super) fn ready(&self, bus: &Bus) -> Option<Instant> {
        let looks = if self.slowest.is_some() { 1 } else { 0 };
        let calm = bus.calm.filter(|_| bus.shared && self.breaker.failures() > looks);
        [self.breaker.opens_at(), self.settled, calm].into_iter().flatten().max()
    }

    /// Whether `read` may be asked for: not while an answer may come that would be taken for its own; and what is doubtful of
    /// a unit that answers only when the bus has time for it.
    pub(super) fn may_ask(&self, read: &Read, bus: &Bus, now: Instant) -> bool {
        let form = (read.table, data(read));
        let owed = self.owed.iter().any(|(table, data, until)| (*table, *data) == form && now < *until);
        let busy = read.misses > 0 && self.answers() && bus.calm.is_some_and(|calm| bus.shared && now < calm);
        !owed && !busy
    }

    /// Over a new link the unit may answer again. Over TCP nothing that was given up can come any more; a serial line, or what
    /// carries its frames, is the same as before, and still brings it.
    pub(super) fn begin(&mut self, now: Instant, is_rtu: bool) {
        (self.fresh, self.heard, self.missed, self.silent) = (true, None, None, false);
        if !is_rtu {
            self.settled = None;
            self.owed.clear();
        }
        self.breaker.hurry(now);
    }

    /// Asks for `read`; once more at once if the answer came and was garbled, as on a line with noise. Silence is not asked
    /// again at once: others wait. `began` is when the poll did: what was answered since proves the unit alive.
    pub(super) async fn ask(
        &mut self,
        wire: &mut Wire,
        read: &Read,
        bus: &mut Bus,
        began: Instant,
    ) -> Result<Heard, LinkError> {
        let limit = self.limit(read, bus);
        self.fresh = false;
        let probing = self.breaker.state() != BreakerState::Closed;
        let mut again = false;
        loop {
            let asked = Instant::now();
            let answer = wire.ask(self.id, read, limit).await;
            let took = asked.elapsed();
            self.told.requests += 1;
            if again || probing {
                self.told.retries += 1;
                self.told.retrying.add(took);
            }
            for ((_, told), seen) in self.told.discarded.iter_mut().zip(wire.take_discarded()) {
                *told += seen;
            }
            match answer {
                Ok(Answer::Refused(code)) if is_away(code) => {
                    self.silent = false;
                    bus.unanswered = 0;
                    self.slowest = self.slowest.map(|slowest| slowest.max(took));
                    self.failed(took, bus);
                    return Ok(Heard::Away(code));
                }
                Ok(answer) => {
                    self.answered(took, bus);
                    return Ok(Heard::Answer(answer));
                }
                Err(Failure::Unanswered(odd)) => {
                    self.told.unanswered += 1;
                    if !again && !probing && matches!(odd, Some(Oddity::Crc | Oddity::Length)) {
                        again = true;
                        continue;
                    }
                    let alone = self.lives_beside(read, began);
                    self.missed = Some(asked);
                    // The device's worst latency is taken as twice its timeout: only then is it asked again. The others go
                    // on: what comes late says whose it is.
                    let settled = asked + self.timeout * 2;
                    if alone {
                        bus.charge(took);
                        if wire.is_rtu() {
                            self.owed.retain(|(.., until)| asked < *until);
                            self.owed.push((read.table, data(read), settled));
                        }
                        return Ok(Heard::Nothing);
                    }
                    self.settled = wire.is_rtu().then_some(settled);
                    self.silent = true;
                    bus.unanswered = bus.unanswered.saturating_add(1);
                    self.failed(took, bus);
                    return Ok(Heard::Silence(odd));
                }
                Err(Failure::Link(error)) => return Err(error),
            }
        }
    }

    /// Whether `read` alone is not answered. The unit has answered since it last fell silent; and since this poll began, or
    /// since this read was last asked for in vain, or it never answered this read at all.
    fn lives_beside(&self, read: &Read, began: Instant) -> bool {
        self.heard.is_some_and(|heard| {
            self.missed.is_none_or(|missed| missed < heard) && (!read.known || read.missed.unwrap_or(began) <= heard)
        })
    }

    /// How long to wait: its timeout, if nobody else waits. Otherwise what has failed has a glance, now and then a wait to the
    /// next turn of a neighbour; and what answers has half its timeout, but while the bus has lost time of late no more than
    /// a hiccup.
    fn limit(&self, read: &Read, bus: &Bus) -> Duration {
        let glance = |slowest: Duration| (slowest * 2).max(GLANCE);
        let failures = self.breaker.failures();
        let doubtful = read.misses > 0 && self.answers();
        if !bus.shared && !doubtful {
            return self.timeout;
        }
        let limit = match (self.slowest, bus.slowest) {
            (Some(slowest), _) if failures == 0 && (!doubtful || read.misses.is_multiple_of(PATIENT)) => {
                let calm = bus.calm.is_none_or(|calm| calm <= Instant::now());
                (slowest * HICCUP).max(if calm { self.timeout / 2 } else { FIRST_LOOK })
            }
            (Some(slowest), _) if doubtful => glance(slowest),
            (None, None) if self.fresh => FIRST_LOOK,
            (own, others) => {
                let short = own.or(others).map_or(FIRST_LOOK, glance);
                match bus.spare {
                    None if !self.fresh => self.timeout, // nobody answers who could wait
                    Some(spare) if failures > 0 && failures.is_multiple_of(PATIENT) => short.max(spare),
                    _ => short,
                }
            }
        };
        self.timeout.min(limit)
    }

    fn answered(&mut self, took: Duration, bus: &mut Bus) {
        self.slower(took);
        bus.slowest = slower(bus.slowest, took);
        bus.unanswered = 0;
        (self.heard, self.silent) = (Some(Instant::now()), false);
        self.breaker.succeed();
        self.turned();
    }

    /// An answer took so long, if only one that came too late.
    pub(super) fn slower(&mut self, took: Duration) {
        self.slowest = slower(self.slowest, took);
    }

    fn failed(&mut self, took: Duration, bus: &mut Bus) {
        bus.charge(took);
        self.breaker.fail(Instant::now());
        self.turned();
    }

    /// Lets one question through, if it is time.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let admits = self.breaker.admits(now);
        self.turned();
        admits
    }

    fn turned(&mut self) {
        let before = self.told.breaker.state;
        if !self.told.breaker.turn(self.breaker.state(), Time::now()) {
            return;
        }
        match (before, self.breaker.state()) {
            (BreakerState::Closed, BreakerState::Open) => {
                warn!(unit = self.id, "it is asked only now and then from now on");
            }
            (_, BreakerState::Closed) => info!(unit = self.id, "it answers again"),
            _ => {}
        }
    }
}

/// The slowest answer of late: it fades by a thirty-second with each that is faster.
fn slower(before: Option<Duration>, took: Duration) -> Option<Duration> {
    Some(before.map_or(took, |before| took.max(before * 31 / 32)))
}

/// How many bytes of data the answer to `read` has.
fn data(read: &Read) -> u16 {
    if read.table.is_bits() { read.quantity.div_ceil(8) } else { read.quantity * 2 }
}

/// Whether a gateway says by this exception that the unit behind it is away (10 and 11).
pub(super) fn is_away(code: u8) -> bool {
    matches!(code, 10 | 11)
}

/// What the units of a bus have in common.
pub(super) struct Bus {
    /// Whether there are others.
    shared: bool,
    /// The slowest answer of late, whoever gave it.
    slowest: Option<Duration>,
    /// When there is time again for what did not answer the last time.
    pub(super) calm: Option<Instant>,
    /// How long until the next turn of a unit that answers, other than the one that is asked now; none if none answers.
    pub(super) spare: Option<Duration>,
    /// Questions in a row to which nothing came.
    pub(super) unanswered: u32,
}

impl Bus {
    /// With so many units, of which nothing is known yet.
    pub(super) fn of(units: usize) -> Self {
        Self { shared: units > 1, slowest: None, calm: None, spare: None, unanswered: 0 }
    }

    /// So much of its time was waited for in vain.
    fn charge(&mut self, took: Duration) {
        let calm = Instant::now() + took * (SHARE - 1);
        self.calm = self.calm.max(Some(calm));
    }

    /// Over a new link nobody is waited for yet.
    pub(super) fn begin(&mut self) {
        (self.calm, self.spare, self.unanswered) = (None, None, 0);
    }
}
