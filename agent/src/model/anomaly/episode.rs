//! An anomaly from its beginning to its end, and what is said of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use gemba_drivers::Time;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::spec::{Severity, Verdict};

/// An anomaly. Times are the source's own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// The first reading that was out; of a flat line the reading from which on nothing changed. A detector begins at most
    /// one at any instant.
    pub began: Time,
    /// The reading that made it an anomaly; of a flat line the instant at which it had lasted long enough.
    pub detected: Time,
    /// From its beginning to the receipt of what made it an anomaly, in s; never below zero.
    pub latency_s: f64,
    /// The worst so far.
    pub severity: Severity,
    /// The reading that was farthest out so far.
    pub peak: Peak,
    /// What was normal when it was detected, in the tag's unit: the median or the mean; none for methods without a baseline.
    pub expected: Option<f64>,
    /// When it ended, and how; none while it lasts.
    pub ended: Option<Ended>,
    /// What a person said of it, at last.
    pub verdict: Option<Verdict>,
}

/// A reading that is out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peak {
    /// When.
    pub at: Time,
    /// The tag's value.
    pub value: f64,
    /// By the method's own measure (see [`super::Method`]); always finite.
    pub score: f64,
}

/// The end of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The first of the readings that ended it.
    pub at: Time,
    /// What they said.
    pub how: End,
}

/// How an anomaly ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// Readings are normal again.
    Normal,
    /// It has lasted for `accept_after`, and is what is normal from now on.
    Accepted,
    /// The tag became bad, and nobody knows whether it still stands still. Only a flat line ends so.
    Lost,
}

impl End {
    /// The word used in telemetry and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Accepted => "accepted",
            Self::Lost => "lost",
        }
    }
}

/// What happens to an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// It is one now.
    Detected,
    /// It is critical now, and was a warning.
    Worsened,
    /// It is over.
    Ended,
}

/// Something happened to an anomaly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// What.
    pub change: Change,
    /// When, by the source.
    pub at: Time,
    /// The anomaly, as it is now.
    pub episode: Episode,
}

/// Which anomaly: the same in a replay. Written `station/tag/detector@2026-01-05T06:00:00Z`, with `%`, `/`, `@` and what no
/// address may hold percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EpisodeId {
    /// Which station.
    pub station: Arc<str>,
    /// Which tag.
    pub tag: Arc<str>,
    /// Which detector of the station.
    pub detector: Arc<str>,
    /// [`Episode::began`]
    pub began: Time,
}

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'/').add(b'@').add(b' ').add(b'?').add(b'#').add(b'"');

impl fmt::Display for EpisodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name| utf8_percent_encode(name, ESCAPED);
        write!(f, "{}/{}/{}@{}", part(&self.station), part(&self.tag), part(&self.detector), self.began)
    }
}

/// Text that names no anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an anomaly is named as `station/tag/detector@2026-01-05T06:00:00Z`")]
pub struct NoEpisodeId;

impl FromStr for EpisodeId {
    type Err = NoEpisodeId;

    fn from_str(text: &str) -> Result<Self, NoEpisodeId> {
        let (names, began) = text.split_once('@').ok_or(NoEpisodeId)?;
        let [station, tag, detector] = names.split('/').collect::<Vec<_>>()[..] else { return Err(NoEpisodeId) };
        let name = |part: &str| percent_decode_str(part).decode_utf8().map(Arc::from).map_err(|_| NoEpisodeId);
        let began = began.parse().map_err(|_| NoEpisodeId)?;
        Ok(Self { station: name(station)?, tag: name(tag)?, detector: name(detector)?, began })
    }
}

/// How often detectors were right, by what people said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// How many anomalies were confirmed.
    pub confirmed: u64,
    /// How many were dismissed.
    pub dismissed: u64,
}

impl Verdicts {
    /// How many were judged; what nobody judged says nothing.
    #[must_use]
    pub fn judged(self) -> u64 {
        self.confirmed + self.dismissed
    }

    /// Of those judged the share that was dismissed, 0 to 1: the false discovery proportion. Without any it cannot be known.
    #[must_use]
    pub fn false_positives(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts of what people said")]
        (self.judged() > 0).then(|| self.dismissed as f64 / self.judged() as f64)
    }

    pub(super) fn count(&mut self, verdict: Verdict) {
        *self.of(verdict) += 1;
    }

    pub(super) fn withdraw(&mut self, verdict: Verdict) {
        let count = self.of(verdict);
        *count = count.saturating_sub(1);
    }

    fn of(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Confirmed => &mut self.confirmed,
            Verdict::Dismissed => &mut self.dismissed,
        }
    }
}
