//! What watches a station's tags beside its figures: detectors of anomalies, control charts, an inspection.
//!
//! They are given settled readings, in the order in which [`Station`](super::station::Station) gets them, and know of no
//! other: so what they say depends neither on the order of arrival nor on the size of batches. What they are told to look for
//! is [`Watch`], and what they know is [`Monitor`], which goes into the checkpoint. One whose tag has changed begins anew, with
//! sums of its own.

mod inspected;
#[cfg(test)]
mod tests;
mod view;
mod watch;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use gemba_drivers::{Loss, Reading, Time, Value};
use serde::{Deserialize, Serialize};

use self::inspected::Inspected;
pub use self::inspected::InspectedShift;
use self::watch::Listener;
pub use self::watch::Watch;
use crate::model::Derived;
use crate::model::anomaly::{Detector, Episode, UnknownEpisode, Verdict};
use crate::model::codes;
use crate::model::counter::{Counter, Step, Told};
use crate::model::plan::Plan;
use crate::model::spc::{Chart, Input, Rule, Violation};
use crate::model::station::{KPI_EVERY, boundary_from};
use crate::record::{AnomalyTold, ChartPoint, DetectorPoint, Record, ViolationTold, WatchPoint};

/// What watches a station, as far as settled readings have told. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    detectors: Vec<Kept<Detector>>,
    charts: Vec<Kept<Charted>>,
    inspection: Option<Box<Kept<Inspected>>>,
    /// The next instant at which figures are told; none before the first reading.
    next: Option<Time>,
}

/// One of them, with what tells it from those that it may be confused with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept<T> {
    /// Its name within the station.
    name: Arc<str>,
    /// The names of its tags.
    of: Arc<str>,
    /// Its first reading: since when its sums count.
    since: Option<Time>,
    what: T,
}

/// A chart, the counters it is drawn of, and how often which rule was broken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Charted {
    chart: Chart,
    /// Of what is bad, and of what was inspected.
    counters: [Counter; 2],
    broken: Vec<(Rule, u64)>,
}

/// Where they stand.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The station's name.
    pub station: &'a Arc<str>,
    /// What is watched.
    pub watch: &'a Watch,
    /// When which shift runs.
    pub plan: &'a RefCell<Plan>,
}

impl Monitor {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(watch: &Watch) -> Self {
        let charts = watch.charts.iter().map(|spec| Kept::new(&spec.name, &spec.setting.of));
        Self {
            detectors: watch.detectors.iter().map(|(spec, tag)| Kept::new(&spec.name, tag)).collect(),
            charts: charts.collect(),
            inspection: watch.inspection.as_ref().map(|(_, of)| Box::new(Kept::new(&"".into(), of))),
            next: None,
        }
    }

    /// Takes up what `before` knew, as far as it is still asked for.
    pub fn restore(&mut self, before: Self) {
        take_up(&mut self.detectors, before.detectors);
        take_up(&mut self.charts, before.charts);
        if let (Some(kept), Some(held)) = (&mut self.inspection, before.inspection)
            && kept.of == held.of
        {
            *kept = held;
        }
        self.next = before.next.filter(|_| self.seen());
    }

    fn seen(&self) -> bool {
        let detectors = self.detectors.iter().map(|kept| kept.since);
        let charts = self.charts.iter().map(|kept| kept.since);
        let inspection = self.inspection.iter().map(|kept| kept.since);
        detectors.chain(charts).chain(inspection).flatten().next().is_some()
    }

    /// A settled reading.
    pub fn observe(&mut self, setting: Setting<'_>, reading: &Reading, out: &mut Derived) {
        let at = reading.source_time.min(reading.received_time);
        for listener in setting.watch.listeners(reading.tag) {
            self.next.get_or_insert_with(|| boundary_from(Time(at.0.saturating_add(1))));
            match *listener {
                Listener::Detector(place) => {
                    let kept = self.detectors[place].seen(at);
                    let (spec, _) = &setting.watch.detectors[place];
                    let mut events = Vec::new();
                    // A source whose clock is ahead once must not make all old that follows.
                    let told = if reading.source_time > at {
                        Cow::Owned(Reading { source_time: at, ..reading.clone() })
                    } else {
                        Cow::Borrowed(reading)
                    };
                    kept.observe(spec, &told, &mut events);
                    setting.tell_anomalies(place, events, out);
                }
                Listener::Chart(place) => {
                    let charted = self.charts[place].seen(at);
                    charted.observe(setting, place, reading, at, out);
                }
                Listener::Inspection(role) => {
                    let (Some(kept), Some((spec, _))) = (&mut self.inspection, &setting.watch.inspection) else {
                        continue;
                    };
                    kept.seen(at).observe(setting, spec, role, reading, out);
                }
            }
        }
    }

    /// Everything up to `to` is settled: what time alone tells is told, and figures that are due. `by_hand` is what people
    /// rejected since ever, as upstream is told of it.
    pub fn settle(&mut self, setting: Setting<'_>, by_hand: &[(Arc<str>, u64)], to: Time, out: &mut Derived) {
        self.settle_due(setting, by_hand, to, out);
        if self.next.is_some() {
            self.advance(setting, to, out);
        }
    }

    /// Tells the figures at the last due instant before `to`, before anything later changes them.
    pub fn settle_due(&mut self, setting: Setting<'_>, by_hand: &[(Arc<str>, u64)], to: Time, out: &mut Derived) {
        if self.next.is_some_and(|next| to > next) {
            let boundary = boundary_from(to);
            self.tell(setting, by_hand, boundary - KPI_EVERY, out);
            self.next = Some(boundary);
        }
    }

    /// Tells the figures at `now`, due or not: the agent stops, and nothing waits any more.
    pub fn tell_last(&mut self, setting: Setting<'_>, by_hand: &[(Arc<str>, u64)], now: Time, out: &mut Derived) {
        if self.next.is_none() {
            return;
        }
        self.settle(setting, by_hand, now, out);
        self.tell(setting, by_hand, now, out);
        self.next = Some(boundary_from(Time(now.0.saturating_add(1))));
    }

    /// A person says what an anomaly was.
    ///
    /// # Errors
    /// There is no such detector, or it does not remember the anomaly.
    pub fn judge(
        &mut self,
        tag: &str,
        detector: &str,
        began: Time,
        verdict: Verdict,
    ) -> Result<Episode, UnknownEpisode> {
        let found = self.detectors.iter_mut().find(|kept| *kept.name == *detector && *kept.of == *tag);
        found.ok_or(UnknownEpisode(began))?.what.judge(began, verdict)
    }

    /// A person says what is made from now on.
    pub fn make(&mut self, product: Option<Arc<str>>) {
        if let Some(kept) = &mut self.inspection {
            kept.what.inspection.make(product);
        }
    }

    /// The shifts of its inspections that are still held, oldest first, as they stand at `now`.
    pub fn shifts(&self, setting: Setting<'_>, now: Time) -> Vec<InspectedShift> {
        let (Some(kept), Some((spec, _))) = (&self.inspection, &setting.watch.inspection) else { return Vec::new() };
        kept.what.shifts(setting, spec, kept.since, now)
    }

    fn advance(&mut self, setting: Setting<'_>, to: Time, out: &mut Derived) {
        let mut events = Vec::new();
        for (place, kept) in self.detectors.iter_mut().enumerate() {
            let (spec, _) = &setting.watch.detectors[place];
            kept.what.advance(spec, to, &mut events);
            if !events.is_empty() {
                setting.tell_anomalies(place, std::mem::take(&mut events), out);
            }
        }
        for (place, kept) in self.charts.iter_mut().enumerate().filter(|(_, kept)| kept.since.is_some()) {
            let violations = kept.what.chart.advance(&setting.watch.charts[place], to);
            kept.what.tell(setting, place, violations, out);
        }
        if let (Some(kept), Some((spec, _))) = (&mut self.inspection, &setting.watch.inspection) {
            let since = kept.since;
            kept.what.settle(setting, spec, since, to, out);
        }
    }

    /// Tells the figures at `at`, with all that happened up to that instant.
    fn tell(&mut self, setting: Setting<'_>, by_hand: &[(Arc<str>, u64)], at: Time, out: &mut Derived) {
        self.advance(setting, at, out);
        let mut point = WatchPoint { station: setting.station.clone(), time: at, ..WatchPoint::default() };
        for (kept, (spec, _)) in self.detectors.iter().zip(&setting.watch.detectors) {
            let Some(since) = kept.since else { continue };
            let view = kept.what.view(spec);
            point.detectors.push(DetectorPoint {
                detector: kept.name.clone(),
                since,
                warning: view.counts.warning,
                critical: view.counts.critical,
                latency: view.latency.clone(),
                false_positives: view.verdicts.false_positives(),
            });
        }
        for (kept, spec) in self.charts.iter().zip(&setting.watch.charts) {
            let Some(since) = kept.since else { continue };
            let capability = spec.tolerance.map(|_| kept.what.capability(spec));
            point.charts.push(ChartPoint {
                chart: kept.name.clone(),
                since,
                violations: kept.what.broken.clone(),
                capability,
            });
        }
        if let (Some(kept), Some((spec, _))) = (&mut self.inspection, &setting.watch.inspection)
            && let Some(since) = kept.since
        {
            if let Some(ended) = kept.what.ended(setting, spec, since, at) {
                out.records.push(Record::Watched(Box::new(WatchPoint {
                    station: setting.station.clone(),
                    time: ended.to,
                    rates: Some(ended.rates()),
                    ..WatchPoint::default()
                })));
            }
            let mut sums = kept.what.sums(spec, since);
            codes::add(&mut sums.defects, by_hand);
            point.inspection = Some(sums);
            point.rates = kept.what.running(setting, spec, since, at).map(|running| running.rates());
        }
        out.records.push(Record::Watched(Box::new(point)));
    }
}

impl<T: Default> Kept<T> {
    fn new(name: &Arc<str>, of: &Arc<str>) -> Self {
        Self { name: name.clone(), of: of.clone(), since: None, what: T::default() }
    }

    fn seen(&mut self, at: Time) -> &mut T {
        self.since.get_or_insert(at);
        &mut self.what
    }
}

/// What is still asked for, by its name and its tags.
fn take_up<T>(present: &mut [Kept<T>], mut before: Vec<Kept<T>>) {
    for kept in present {
        if let Some(place) = before.iter().position(|held| held.name == kept.name && held.of == kept.of) {
            *kept = before.swap_remove(place);
        }
    }
}

impl Charted {
    fn observe(&mut self, setting: Setting<'_>, place: usize, reading: &Reading, at: Time, out: &mut Derived) {
        let spec = &setting.watch.charts[place];
        let value = Some(&reading.value).filter(|_| !reading.validity.is_bad()).and_then(Value::as_f64);
        let violations = match &spec.input {
            Input::Readings(_) => value.map(|value| self.chart.observe(spec, at, value)).unwrap_or_default(),
            Input::Counts { defects, inspected } => {
                let mut violations = Vec::new();
                for (which, counter) in [Some(defects), inspected.as_ref()].into_iter().enumerate() {
                    let Some(counter) = counter.filter(|counter| counter.tag == reading.tag) else { continue };
                    let Some(value) = value else {
                        self.counters[which].lose(at);
                        continue;
                    };
                    let told = Told { source_time: reading.source_time, at, backfilled: reading.backfilled };
                    match self.counters[which].observe(counter, value, told) {
                        Step::Counted { difference, at, .. } => {
                            let (inspected, defects) = if which == 0 { (0.0, difference) } else { (difference, 0.0) };
                            violations.extend(self.chart.observe_count(spec, at, inspected, defects));
                        }
                        Step::Quarantined { since, at, .. } => out.losses.push(Loss {
                            source: setting.station.clone(),
                            from: since,
                            to: at,
                            count: 1,
                            reason: format!("chart `{}`: its counter jumped, faster than max_rate", spec.name).into(),
                        }),
                        Step::Baseline | Step::Late => {}
                    }
                }
                violations
            }
        };
        self.tell(setting, place, violations, out);
    }

    fn tell(&mut self, setting: Setting<'_>, place: usize, violations: Vec<Violation>, out: &mut Derived) {
        for violation in violations {
            match self.broken.iter_mut().find(|(rule, _)| *rule == violation.rule) {
                Some((_, count)) => *count += 1,
                None => self.broken.push((violation.rule, 1)),
            }
            out.records.push(Record::Violation(Box::new(ViolationTold {
                station: setting.station.clone(),
                tags: setting.watch.charts[place].setting.of.clone(),
                violation,
            })));
        }
    }
}

impl Setting<'_> {
    fn tell_anomalies(self, place: usize, events: Vec<crate::model::anomaly::Event>, out: &mut Derived) {
        let (spec, tag) = &self.watch.detectors[place];
        out.records.extend(events.into_iter().map(|event| {
            Record::Anomaly(Box::new(AnomalyTold {
                station: self.station.clone(),
                tag: tag.clone(),
                detector: spec.name.clone(),
                method: spec.method.word().into(),
                change: event.change,
                time: event.at,
                episode: event.episode,
            }))
        }));
    }
}
