//! A state that follows from parts alone, where a machine tells none: it runs as long as parts come, and stands when none came
//! for a number of ideal cycle times.

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::{ByCount, State};

/// The pace of a machine that tells no state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// The last part, or when somebody began to watch.
    since: Option<Time>,
}

impl Pace {
    /// Somebody watches from `at` on.
    pub fn begin(&mut self, at: Time) {
        self.since = Some(at);
    }

    /// Somebody watches again at `at`, if nobody did.
    pub fn watch(&mut self, at: Time) {
        self.since.get_or_insert(at);
    }

    /// Nobody watches any more.
    pub fn lose(&mut self) {
        self.since = None;
    }

    /// Parts were counted at `at`, each of which takes `ideal` nanoseconds at best. Returns from when on the machine ran: since
    /// the last part, unless that was too long ago; then it has run for as long as these parts took.
    pub fn made(&mut self, spec: &ByCount, ideal: f64, at: Time, parts: f64) -> Time {
        let since = self.since.replace(at).unwrap_or(at);
        if stands(spec, ideal, since, at) { since.max(back(at, ideal * parts)) } else { since }
    }

    /// At `now` no more parts have come, each of which takes `ideal` nanoseconds at best. Returns from when on the machine has
    /// stood, and what it is, if it stands.
    pub fn stop(&self, spec: &ByCount, ideal: f64, now: Time) -> Option<(Time, State)> {
        let since = self.since.filter(|&since| stands(spec, ideal, since, now))?;
        Some((since, spec.state))
    }
}

fn stands(spec: &ByCount, ideal: f64, since: Time, now: Time) -> bool {
    back(now, ideal * spec.stopped_after) > since
}

#[expect(clippy::cast_possible_truncation, reason = "a few cycles; what is out of range saturates")]
fn back(at: Time, nanoseconds: f64) -> Time {
    Time(at.0.saturating_sub(nanoseconds as i64))
}
