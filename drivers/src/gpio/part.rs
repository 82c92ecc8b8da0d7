//! A line or a converter, which can fail for itself while its link stands.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{Breaker, BreakerState, BreakerView, DeviceState, Durations, Time};

/// What becomes of one line or converter, and what is told of it.
pub(super) struct Part {
    breaker: Breaker,
    told: DeviceState,
    /// Something has changed since it was last told.
    news: bool,
}

impl Part {
    /// One that has not been tried yet: `input GPIO4`, `converter adc1`.
    pub(super) fn new(name: String) -> Self {
        let told = DeviceState {
            name: name.into(),
            stations: Vec::new(),
            breaker: BreakerView::new(Time::now()),
            requests: 0,
            unanswered: 0,
            retries: 0,
            retrying: Durations::default(),
            discarded: Vec::new(),
        };
        // There is no noise on a pin: one failure is one.
        Self { breaker: Breaker::new(1), told, news: false }
    }

    /// `station` has something of it.
    pub(super) fn serves(&mut self, station: &Arc<str>) {
        if !self.told.stations.contains(station) {
            self.told.stations.push(Arc::clone(station));
        }
    }

    /// It is taken, or asked, now.
    pub(super) fn tried(&mut self) {
        self.told.requests += 1;
        self.told.retries += u64::from(self.breaker.state() != BreakerState::Closed);
        self.breaker.admits(Instant::now());
        self.turned();
    }

    /// It did not work: it rests, each time for longer.
    pub(super) fn failed(&mut self) {
        self.told.unanswered += 1;
        self.breaker.fail(Instant::now());
        self.turned();
    }

    /// It works, or is to be tried at once.
    pub(super) fn worked(&mut self) {
        self.breaker.succeed();
        self.turned();
    }

    /// When to try again; none while it works.
    pub(super) fn due(&self) -> Option<Instant> {
        self.breaker.opens_at()
    }

    /// What is told of it, whether it is news or not.
    pub(super) fn told(&mut self) -> &DeviceState {
        self.news = false;
        &self.told
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.news
    }

    fn turned(&mut self) {
        self.told.breaker.turn(self.breaker.state(), Time::now());
        self.news = true;
    }
}
