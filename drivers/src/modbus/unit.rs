//! The units on a bus: which one answers, how fast, and how much of the bus those may take that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::frame::{Answer, Oddity};
use super::plan::Read;
use super::wire::{Failure, Wire};
use crate::{Breaker, BreakerState, BreakerView, DeviceState, Durations, Time};

/// A lost answer is no dead device; two in a row are, on a bus that others wait for.
const THRESHOLD: u32 = 2;
/// Of a bus's time at most one part in so many goes to units that did not answer the last time: a question that was waited
/// for in vain is followed by nine times as long without another of its kind, whichever unit it was for.
const SHARE: u32 = 10;
/// The shortest wait for a unit that may be back. Neighbours are that much late, which is within their own jitter.
const GLANCE: Duration = Duration::from_millis(50);
/// Every so many questions to a unit that is away one waits its whole timeout: it may have become slower.
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
    /// Over RTU, until when an answer to what was given up may still come, and would be taken for another.
    settled: Option<Instant>,
    told: DeviceState,
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
        Self { id, breaker: Breaker::new(THRESHOLD), timeout, slowest: None, fresh: true, settled: None, told }
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

    /// When it may be asked next, if not at once. `calm` is when the bus has time for a unit that does not answer.
    pub(super) fn ready(&self, calm: Option<Instant>) -> Option<Instant> {
        let calm = calm.filter(|_| self.breaker.state() != BreakerState::Closed);
        [self.breaker.opens_at(), self.settled, calm].into_iter().flatten().max()
    }

    /// Over a new link nothing that was given up can come any more, and the unit may answer again.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.fresh, self.settled) = (true, None);
        self.breaker.hurry(now);
    }

    /// Asks for `read`; once more at once if the answer came and was garbled, as on a line with noise. Silence is not asked
    /// again at once: others wait.
    pub(super) async fn ask(&mut self, wire: &mut Wire, read: &Read, bus: &mut Bus) -> Result<Answer, Failure> {
        let limit = self.limit(bus);
        self.fresh = false;
        let probing = self.breaker.state() != BreakerState::Closed;
        let mut again = false;
        loop {
            let began = Instant::now();
            let answer = wire.ask(self.id, read, limit).await;
            let took = began.elapsed();
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
                    self.slowest = self.slowest.max(Some(took));
                    self.missed(took, bus);
                    return Ok(Answer::Refused(code));
                }
                Ok(answer) => {
                    self.answered(took, bus);
                    return Ok(answer);
                }
                Err(Failure::Unanswered(odd)) => {
                    self.told.unanswered += 1;
                    if !again && !probing && matches!(odd, Some(Oddity::Crc | Oddity::Length)) {
                        again = true;
                        continue;
                    }
                    // The device's worst latency is taken as twice its timeout: only then is it asked again. The others go
                    // on: what comes late says whose it is.
                    self.settled = wire.is_rtu().then(|| Instant::now() + self.timeout);
                    self.missed(took, bus);
                    return Err(Failure::Unanswered(odd));
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    /// How long to wait: its timeout, and while others wait for a unit that is away only a glance, but for now and then.
    fn limit(&self, bus: &Bus) -> Duration {
        let patient = self.fresh || bus.units < 2 || self.breaker.failures().is_multiple_of(PATIENT);
        match self.slowest.or(bus.slowest) {
            Some(slowest) if self.breaker.state() != BreakerState::Closed && !patient => {
                self.timeout.min((slowest * 2).max(GLANCE))
            }
            _ => self.timeout,
        }
    }

    fn answered(&mut self, took: Duration, bus: &mut Bus) {
        let slower = |before: Option<Duration>| Some(before.map_or(took, |before| took.max(before * 31 / 32)));
        (self.slowest, bus.slowest) = (slower(self.slowest), slower(bus.slowest));
        self.breaker.succeed();
        self.turned();
    }

    fn missed(&mut self, took: Duration, bus: &mut Bus) {
        let now = Instant::now();
        if self.breaker.state() != BreakerState::Closed {
            bus.calm = Some(now + took * (SHARE - 1));
        }
        self.breaker.fail(now);
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

/// Whether a gateway says by this exception that the unit behind it is away (10 and 11).
pub(super) fn is_away(code: u8) -> bool {
    matches!(code, 10 | 11)
}

/// What the units of a bus have in common.
pub(super) struct Bus {
    /// How many there are.
    units: usize,
    /// The slowest answer of late, whoever gave it.
    slowest: Option<Duration>,
    /// When there is time again for a unit that does not answer.
    pub(super) calm: Option<Instant>,
}

impl Bus {
    /// With so many units, of which nothing is known yet.
    pub(super) fn of(units: usize) -> Self {
        Self { units, slowest: None, calm: None }
    }
}
