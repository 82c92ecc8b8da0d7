//! Anomalies of a tag: readings that are out of the ordinary, from their beginning to their end.
//!
//! Pure, as the rest of the model is: readings and instants come in, in order of source time, and events come out. What
//! is told depends on those alone, not on how they are split into calls nor on how often [`Detector::advance`] is called.
//!
//! - An anomaly begins with the first reading that is out, is detected when `consecutive` readings in a row are, and ends
//!   when `clear` in a row are normal, with the first of these. It is critical once `consecutive` in a row were.
//! - **The baseline** (`robust_z`, `ewma`) is made of normal readings: one that is out does not enter it, so that no outlier
//!   widens what is normal. What stays out for `accept_after`, without `clear` normal ones in a row, is a shift of level:
//!   the anomaly ends as accepted, and the baseline is learnt anew from there. Until it has `warm_up` readings nothing is
//!   judged, nor while all of them are alike and `min_deviation` does not say what a deviation is.
//! - **A flat line** is found by time, since a tag that only tells changes tells nothing while it stands still. It begins
//!   with the reading since which nothing changed by more than `band`, so that its detection latency holds the time waited.
//! - **Bad readings** are not observed. A rate is not measured across them. A standstill ends with them, and begins anew after
//!   them: nobody knows what the value did meanwhile. Other anomalies stay as they are until readings end them.
//! - **Uncertain readings** are observed as good ones are, as in every other figure. Truth values are 0 and 1; text is not
//!   observed.
//! - A reading older than the last one is not observed, unless the tag was bad in between.

mod episode;
mod ewma;
mod measure;
#[cfg(test)]
mod properties;
mod robust;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use gemba_drivers::{Reading, Time};
use serde::{Deserialize, Serialize};

pub use self::episode::{Change, End, Ended, Episode, EpisodeId, Event, NoEpisodeId, Peak, Verdicts};
use self::measure::{Finding, Measure, Point};
pub use self::robust::MOST_READINGS;
pub use self::spec::{DetectorSpec, Learning, Limits, Method, Severity, Thresholds, Verdict, Window};
use crate::record::CycleHistogram;

/// How many anomalies that are over a detector remembers; older ones can no longer be judged.
pub const KEPT: usize = 64;

/// One detector of one tag: what it has learnt, what is going on, and what it has counted. All of it goes into the
/// checkpoint; what it was told to look for does not ([`DetectorSpec`]). It takes at most 25 kB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    measure: Measure,
    /// The last reading observed.
    last: Option<Time>,
    /// The tag is bad.
    lost: bool,
    /// Readings in a row that are out, that are critical, and that are normal.
    out: Run,
    critical: Run,
    normal: Run,
    /// The farthest out of those in a row.
    peak: Option<Peak>,
    /// Since when readings are kept out of the baseline.
    withheld: Option<Time>,
    open: Option<Episode>,
    /// The newest last.
    over: VecDeque<Episode>,
    counts: Counts,
    latency: CycleHistogram,
    verdicts: Verdicts,
}

/// Readings in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Run {
    /// The first.
    since: Time,
    readings: u32,
}

impl Run {
    fn add(&mut self, at: Time) {
        if self.readings == 0 {
            self.since = at;
        }
        self.readings = self.readings.saturating_add(1);
    }

    fn end(&mut self) {
        self.readings = 0;
    }
}

/// How many anomalies there were. None of these ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All.
    pub detected: u64,
    /// Those that were a warning, at first or all along.
    pub warning: u64,
    /// Those that were critical, at once or in the end; one that worsened is in both.
    pub critical: u64,
}

impl Counts {
    /// How many ever had this severity.
    #[must_use]
    pub fn of(&self, severity: Severity) -> u64 {
        match severity {
            Severity::Warning => self.warning,
            Severity::Critical => self.critical,
        }
    }

    fn count(&mut self, severity: Severity) {
        match severity {
            Severity::Warning => self.warning += 1,
            Severity::Critical => self.critical += 1,
        }
    }
}

/// Nothing is known of an anomaly that began then, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no anomaly that began at {0} is remembered; a detector remembers the last {KEPT}")]
pub struct UnknownEpisode(pub Time);

/// What a method goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Baseline {
    /// Fixed numbers.
    Fixed,
    /// It has learnt from so many readings, and judges none before so many.
    Learning {
        /// So far.
        readings: usize,
        /// [`Learning::warm_up`]
        warm_up: u32,
    },
    /// What is normal.
    Learnt {
        /// The median or the mean, in the tag's unit.
        center: f64,
        /// The standard deviation, as the method estimates it, or `min_deviation`. None while all readings are alike: then
        /// nothing is judged.
        spread: Option<f64>,
    },
}

/// A detector as it stands, for people.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What it goes by.
    pub baseline: Baseline,
    /// The anomaly that lasts.
    pub open: Option<&'a Episode>,
    /// Those that are over, the newest last; at most [`KEPT`].
    pub over: &'a VecDeque<Episode>,
    /// How many there were.
    pub counts: Counts,
    /// From beginning to detection, in s.
    pub latency: &'a CycleHistogram,
    /// What people said of them.
    pub verdicts: Verdicts,
}

impl Detector {
    /// A reading of the tag, not older than the one before it; bad ones too. What follows from it goes to `out`.
    pub fn observe(&mut self, spec: &DetectorSpec, reading: &Reading, out: &mut Vec<Event>) {
        self.measure.fit(&spec.method);
        let last = self.last.unwrap_or(reading.source_time);
        if reading.validity.is_bad() {
            let at = reading.source_time.max(last);
            self.advance(spec, at, out);
            self.lose(at, out);
            return;
        }
        let Some(value) = reading.value.as_f64().filter(|value| value.is_finite()) else { return };
        let new = Point { at: reading.source_time, value };
        if new.at < last && !self.lost {
            return;
        }
        self.last = Some(new.at);
        self.lost = false;
        match spec.method {
            Method::FlatLine { band, .. } => {
                self.advance(spec, new.at, out);
                self.stand(band, new, out);
            }
            _ => self.weigh(spec, new, reading.received_time, out),
        }
    }

    /// Time has come to `now`, and every reading up to it has been observed.
    pub fn advance(&mut self, spec: &DetectorSpec, now: Time, out: &mut Vec<Event>) {
        self.measure.fit(&spec.method);
        let Method::FlatLine { warning, critical, .. } = spec.method else { return };
        let Measure::FlatLine(Some(from)) = self.measure else { return };
        let due = from.at + warning;
        let worst = critical.map(|critical| from.at + critical).filter(|worst| now >= *worst);
        let peak = |at: Time| Peak { at, value: from.value, score: at.since(from.at).as_secs_f64() };
        if self.open.is_none() && now >= due && !self.began(from.at) {
            let severity = if worst == Some(due) { Severity::Critical } else { Severity::Warning };
            self.detect(from.at, Detection { at: due, known: due, severity, peak: peak(due), expected: None }, out);
        }
        if let Some(worst) = worst {
            self.worsen(worst, Some(peak(worst)), out);
        }
    }

    /// A person says what the anomaly that began at `began` was; the last word counts.
    ///
    /// # Errors
    /// There was none, or it is too long ago.
    pub fn judge(&mut self, began: Time, verdict: Verdict) -> Result<Episode, UnknownEpisode> {
        let mut all = self.open.iter_mut().chain(self.over.iter_mut().rev());
        let episode = all.find(|episode| episode.began == began).ok_or(UnknownEpisode(began))?;
        if let Some(former) = episode.verdict.replace(verdict) {
            self.verdicts.withdraw(former);
        }
        self.verdicts.count(verdict);
        Ok(*episode)
    }

    /// As it stands.
    #[must_use]
    pub fn view(&self, spec: &DetectorSpec) -> View<'_> {
        let learning = spec.method.learning();
        let baseline = match learning.map(|learning| (learning.warm_up, self.measure.baseline(&learning))) {
            Some((_, Some(Ok((center, spread))))) => Baseline::Learnt { center, spread },
            Some((warm_up, told)) => {
                Baseline::Learning { readings: told.and_then(Result::err).unwrap_or_default(), warm_up }
            }
            None => Baseline::Fixed,
        };
        View {
            baseline,
            open: self.open.as_ref(),
            over: &self.over,
            counts: self.counts,
            latency: &self.latency,
            verdicts: self.verdicts,
        }
    }

    /// A reading, by every method but the flat line.
    fn weigh(&mut self, spec: &DetectorSpec, new: Point, received: Time, out: &mut Vec<Event>) {
        let found = self.measure.judge(&spec.method, new);
        let severity = found.and_then(|found| found.severity);
        if let Some(learning) = spec.method.learning().filter(|_| severity.is_some()) {
            let withheld = *self.withheld.get_or_insert(new.at);
            if new.at.since(withheld) >= learning.accept_after {
                self.accept(&spec.method, new, out);
                return;
            }
        } else {
            self.measure.learn(&spec.method, new);
        }
        match (found, severity) {
            (Some(found), Some(severity)) => self.stray(spec, new, received, &found, severity, out),
            (Some(_), None) => self.settle(spec, new.at, out),
            (None, _) => {}
        }
    }

    /// A reading that is out.
    fn stray(
        &mut self,
        spec: &DetectorSpec,
        new: Point,
        received: Time,
        found: &Finding,
        severity: Severity,
        out: &mut Vec<Event>,
    ) {
        let first = self.out.readings == 0;
        if first && self.open.is_none() && self.began(new.at) {
            return; // the next one will do: an instant names one anomaly
        }
        self.normal.end();
        self.out.add(new.at);
        if severity == Severity::Critical {
            self.critical.add(new.at);
        } else {
            self.critical.end();
        }
        let here = Peak { at: new.at, value: new.value, score: found.score };
        let farthest = self.peak.filter(|peak| !first && peak.score.abs() >= here.score.abs()).unwrap_or(here);
        self.peak = Some(farthest);
        if let Some(open) = self.open.as_mut().filter(|open| open.peak.score.abs() < here.score.abs()) {
            open.peak = here;
        }
        if self.out.readings < spec.consecutive {
            return;
        }
        let severity = if self.critical.readings >= spec.consecutive { Severity::Critical } else { Severity::Warning };
        if self.open.is_none() {
            let detection =
                Detection { at: new.at, known: received, severity, peak: farthest, expected: found.expected };
            self.detect(self.out.since, detection, out);
        } else if severity == Severity::Critical {
            self.worsen(new.at, None, out);
        }
    }

    /// A normal reading.
    fn settle(&mut self, spec: &DetectorSpec, at: Time, out: &mut Vec<Event>) {
        self.out.end();
        self.critical.end();
        self.normal.add(at);
        if self.open.is_none() || self.normal.readings >= spec.clear {
            self.withheld = None;
            self.end(Ended { at: self.normal.since, how: End::Normal }, out);
        }
    }

    /// It has been out for so long that it is what is normal.
    fn accept(&mut self, method: &Method, new: Point, out: &mut Vec<Event>) {
        for run in [&mut self.out, &mut self.critical, &mut self.normal] {
            run.end();
        }
        self.withheld = None;
        self.measure = Measure::of(method);
        self.measure.learn(method, new);
        self.end(Ended { at: new.at, how: End::Accepted }, out);
    }

    /// A reading of what may stand still.
    fn stand(&mut self, band: f64, new: Point, out: &mut Vec<Event>) {
        let Measure::FlatLine(from) = &mut self.measure else { return };
        if from.is_some_and(|from| (new.value - from.value).abs() <= band) {
            return;
        }
        let before = from.replace(new);
        self.end_standing(before, Ended { at: new.at, how: End::Normal }, out);
    }

    fn lose(&mut self, at: Time, out: &mut Vec<Event>) {
        self.lost = true;
        if let Measure::FlatLine(from) = self.measure {
            self.end_standing(from, Ended { at, how: End::Lost }, out);
        }
        self.measure.lose();
    }

    fn end_standing(&mut self, from: Option<Point>, ended: Ended, out: &mut Vec<Event>) {
        if let (Some(open), Some(from)) = (&mut self.open, from) {
            let score = ended.at.since(from.at).as_secs_f64();
            open.peak = Peak { at: ended.at, value: from.value, score };
        }
        self.end(ended, out);
    }

    /// Whether an anomaly began then.
    fn began(&self, at: Time) -> bool {
        self.open.iter().chain(&self.over).any(|episode| episode.began == at)
    }

    fn detect(&mut self, began: Time, detection: Detection, out: &mut Vec<Event>) {
        let Detection { at, known, severity, peak, expected } = detection;
        let latency_s = known.since(began).as_secs_f64();
        let episode = Episode { began, detected: at, latency_s, severity, peak, expected, ended: None, verdict: None };
        self.open = Some(episode);
        self.counts.detected += 1;
        self.counts.count(severity);
        self.latency.observe(latency_s, 1);
        out.push(Event { change: Change::Detected, at, episode });
    }

    fn worsen(&mut self, at: Time, peak: Option<Peak>, out: &mut Vec<Event>) {
        let Some(open) = self.open.as_mut().filter(|open| open.severity < Severity::Critical) else { return };
        open.severity = Severity::Critical;
        open.peak = peak.unwrap_or(open.peak);
        self.counts.count(Severity::Critical);
        out.push(Event { change: Change::Worsened, at, episode: *open });
    }

    fn end(&mut self, ended: Ended, out: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        let episode = Episode { ended: Some(ended), ..open };
        if self.over.len() >= KEPT {
            self.over.pop_front();
        }
        self.over.push_back(episode);
        out.push(Event { change: Change::Ended, at: ended.at, episode });
    }
}

/// What makes an anomaly.
#[derive(Clone, Copy)]
struct Detection {
    /// By the source.
    at: Time,
    /// When we could know.
    known: Time,
    severity: Severity,
    peak: Peak,
    expected: Option<f64>,
}
