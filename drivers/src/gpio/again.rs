//! When something that failed is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::supervisor;

/// The pauses of everything in gemba that tries again, for one line or one converter of a link that stands.
#[derive(Default)]
pub(super) struct Again {
    resting: Option<(Box<dyn Iterator<Item = Duration> + Send>, Instant)>,
}

impl Again {
    /// It did not work: rest, each time for longer.
    pub(super) fn failed(&mut self) {
        let mut pauses = self.resting.take().map_or_else(|| Box::new(supervisor::pauses()) as _, |(pauses, _)| pauses);
        let pause = pauses.next().unwrap_or(supervisor::LONGEST_PAUSE);
        self.resting = Some((pauses, Instant::now() + pause));
    }

    /// It works.
    pub(super) fn worked(&mut self) {
        self.resting = None;
    }

    /// When to try again; none while it works.
    pub(super) fn due(&self) -> Option<Instant> {
        self.resting.as_ref().map(|(_, due)| *due)
    }
}
