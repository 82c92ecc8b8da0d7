//! A chart as it stands: what was gathered, the limits that were found, and what broke a rule.

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::capability::Run;
use super::limits::Basis;
use super::rules::{LOOKS_AT, Named, Part, Placed, Rule, Violation};
use super::spec::{ChartSpec, Kind, LimitsFrom, Setting};
use super::subgroup::{Gathering, Subgroup};
use super::weighed::{self, Weighed};

/// How many points are kept to be shown; in phase 1 as many as it takes.
pub(super) const KEPT_POINTS: usize = 50;
/// How many violations are kept to be shown.
const KEPT_VIOLATIONS: usize = 20;
/// A reading beyond it is as bad as one that is no number: its square, which spread needs, soon is none.
const MEASURABLE: f64 = 1e150;

/// What a chart knows. Survives a restart; its [`ChartSpec`] is configuration and is passed in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What all of this was gathered under.
    setting: Option<Setting>,
    gathering: Gathering,
    pub(super) estimated: Option<Estimated>,
    pub(super) points: Vec<Point>,
    /// How many there ever were.
    index: u64,
    /// The readings of phase 1.
    pub(super) first: Run,
    /// The readings since limits stand.
    pub(super) since: Run,
    pub(super) violations: Vec<Violation>,
    pub(super) late: u64,
    pub(super) incomplete: u64,
}

/// What phase 1 gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Estimated {
    pub(super) basis: Basis,
    pub(super) from: Time,
    pub(super) to: Time,
}

/// A subgroup.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Which of the chart's, from 1.
    pub index: u64,
    /// When its first reading was.
    pub from: Time,
    /// When its last reading was.
    pub at: Time,
    /// Readings in it; of charts of counts the parts inspected (1 where nobody counts them).
    pub size: f64,
    /// Mean, single reading, share or count.
    pub value: f64,
    /// Range or standard deviation; of single readings how far from the one before.
    pub spread: Option<f64>,
    /// What it comes to with those before it, for EWMA and CUSUM.
    pub weighed: Weighed,
}

impl Point {
    /// As a violation names it.
    pub(super) fn named(&self, part: Part) -> Named {
        Named { index: self.index, at: self.at, value: self.drawn(part).unwrap_or(self.value) }
    }

    /// What is drawn of it in this part of the chart.
    pub(super) fn drawn(&self, part: Part) -> Option<f64> {
        match part {
            Part::Location => Some(self.weighed.drawn().unwrap_or(self.value)),
            Part::Spread => self.spread,
        }
    }
}

impl Chart {
    /// A good reading of a measured tag; what broke a rule by it. Readings come in order of time: one that is older than the
    /// last is left out and counted, and so is a subgroup that a gap or the end of its turn left incomplete.
    pub fn observe(&mut self, spec: &ChartSpec, at: Time, value: f64) -> Vec<Violation> {
        if spec.setting.kind.counts() || value.is_nan() || value.abs() > MEASURABLE {
            return Vec::new();
        }
        let mut broken = self.advance(spec, at);
        if self.gathering.last.is_some_and(|last| at < last) {
            self.late += 1;
            return broken;
        }
        self.split(&spec.setting, at);
        if let Some(full) = self.gathering.reading(&spec.setting, &spec.zone, at, value) {
            broken.extend(self.close(spec, &full));
        }
        broken
    }

    /// What counters added at `at`: so many parts `inspected`, so many `defects` (of a p or np chart: defective parts), each
    /// 0 where only the other was read. What belongs to one instant may come in several calls. Without a counter of inspected
    /// parts the first is 0.
    pub fn observe_count(&mut self, spec: &ChartSpec, at: Time, inspected: f64, defects: f64) -> Vec<Violation> {
        let counted = |count: f64| count.is_finite() && count >= 0.0;
        if !spec.setting.kind.counts() || !counted(inspected) || !counted(defects) {
            return Vec::new();
        }
        // Two counters need not tell one time; what they counted is never left out.
        let at = self.gathering.last.map_or(at, |last| at.max(last));
        let broken = self.advance(spec, at);
        self.split(&spec.setting, at);
        self.gathering.counts(&spec.setting, &spec.zone, at, inspected, defects);
        broken
    }

    /// Nothing older than `now` comes any more: closes what time alone closes. Calling it often or never changes when a
    /// violation is told, never which.
    pub fn advance(&mut self, spec: &ChartSpec, now: Time) -> Vec<Violation> {
        self.suit(&spec.setting);
        match self.gathering.advance(&spec.setting, now) {
            Some(subgroup) => self.close(spec, &subgroup),
            None => Vec::new(),
        }
    }

    /// A chart of another setting begins anew: what it knew is of something else.
    fn suit(&mut self, setting: &Setting) {
        if !self.suits(setting) {
            *self = Self { setting: Some(setting.clone()), ..Self::default() };
        }
    }

    /// Whether all of it was gathered under this setting.
    pub(super) fn suits(&self, setting: &Setting) -> bool {
        self.setting.as_ref() == Some(setting)
    }

    fn split(&mut self, setting: &Setting, at: Time) {
        if self.gathering.split(setting, at) {
            self.incomplete += 1;
        }
    }

    /// Makes a point of a subgroup, and holds it against the rules as soon as there are limits.
    fn close(&mut self, spec: &ChartSpec, subgroup: &Subgroup) -> Vec<Violation> {
        let setting = &spec.setting;
        let Some(mut point) = self.point(setting, subgroup) else {
            self.incomplete += 1;
            return Vec::new();
        };
        self.index += 1;
        point.index = self.index;
        if let Some(basis) = self.basis(setting) {
            let before = self.points.last().map_or(Weighed::Not, |last| last.weighed);
            point.weighed = Weighed::next(setting.kind, &basis, before, point.value, point.size);
            self.since.add(subgroup.from, subgroup.last, &subgroup.readings);
            self.points.push(point);
            let broken = broken(spec, &basis, &self.points);
            return self.keep(broken);
        }
        self.first.add(subgroup.from, subgroup.last, &subgroup.readings);
        self.points.push(point);
        match setting.limits {
            LimitsFrom::Phase1(wanted) if self.points.len() >= wanted as usize => self.freeze(spec),
            _ => Vec::new(),
        }
    }

    /// The end of phase 1: limits, and what its own points are by them.
    fn freeze(&mut self, spec: &ChartSpec) -> Vec<Violation> {
        let kind = spec.setting.kind;
        let Some(basis) = Basis::estimate(kind, &self.points) else {
            // Readings of which none has a neighbour have no spread: phase 1 begins anew.
            let Self { setting, gathering, late, incomplete, .. } = std::mem::take(self);
            *self = Self { setting, gathering, late, incomplete, ..Self::default() };
            return Vec::new();
        };
        let mut before = Weighed::Not;
        for point in &mut self.points {
            point.weighed = Weighed::next(kind, &basis, before, point.value, point.size);
            before = point.weighed;
        }
        let (from, to) = (self.points[0].from, self.points[self.points.len() - 1].at);
        self.estimated = Some(Estimated { basis, from, to });
        let all = (1..=self.points.len()).flat_map(|so_far| broken(spec, &basis, &self.points[..so_far])).collect();
        self.keep(all)
    }

    /// Keeps what is shown, and no more.
    fn keep(&mut self, broken: Vec<Violation>) -> Vec<Violation> {
        self.points.drain(..self.points.len().saturating_sub(KEPT_POINTS));
        self.violations.extend_from_slice(&broken[broken.len().saturating_sub(KEPT_VIOLATIONS)..]);
        self.violations.drain(..self.violations.len().saturating_sub(KEPT_VIOLATIONS));
        broken
    }

    /// What limits follow from, once they stand.
    pub(super) fn basis(&self, setting: &Setting) -> Option<Basis> {
        Basis::given(setting).or(self.estimated.map(|estimated| estimated.basis))
    }

    /// The point that a subgroup makes, but for its place; `None` if it is incomplete, or its readings are beyond all numbers.
    fn point(&self, setting: &Setting, subgroup: &Subgroup) -> Option<Point> {
        let &Subgroup { from, last: at, readings, inspected, defects, .. } = subgroup;
        let (size, value, spread) = match setting.kind {
            Kind::C => (if inspected > 0.0 { inspected } else { 1.0 }, defects, None),
            Kind::Np => (inspected, defects, None),
            Kind::P | Kind::U => (inspected, defects / inspected, None),
            Kind::XbarR => (readings.number(), readings.mean, Some(subgroup.range())),
            Kind::XbarS => (readings.number(), readings.mean, Some(readings.deviation()?)),
            _ if readings.count == 1 => (1.0, readings.mean, self.moving_range(setting, from, readings.mean)),
            _ => (readings.number(), readings.mean, Some(subgroup.range())),
        };
        let whole = subgroup.complete(setting) && size > 0.0 && value.is_finite() && spread.is_none_or(f64::is_finite);
        (whole && readings.is_finite()).then_some(Point {
            index: 0,
            from,
            at,
            size,
            value,
            spread,
            weighed: Weighed::Not,
        })
    }

    /// How far a single reading is from the one before, unless a gap lies between them.
    fn moving_range(&self, setting: &Setting, at: Time, value: f64) -> Option<f64> {
        let before = self.points.last()?;
        let apart = setting.max_gap.is_some_and(|most| at.since(before.at) > most);
        (!apart).then(|| (value - before.value).abs())
    }
}

/// What the newest of `points` breaks.
fn broken(spec: &ChartSpec, basis: &Basis, points: &[Point]) -> Vec<Violation> {
    let kind = spec.setting.kind;
    let violation = |part, rule, side, points| Violation { chart: spec.name.clone(), part, rule, side, points };
    if kind.weighs() {
        let broken = weighed::broken(kind, basis, points);
        return broken
            .into_iter()
            .map(|(rule, side, points)| violation(Part::Location, rule, Some(side), points))
            .collect();
    }
    let mut all = Vec::new();
    let seen = &points[points.len().saturating_sub(LOOKS_AT)..];
    for part in [Part::Location, Part::Spread] {
        let mut placed = [Placed::default(); LOOKS_AT];
        // From the last point without a spread on: what it hides may have broken a run.
        let mut first = seen.len();
        for (at, point) in seen.iter().enumerate().rev() {
            let limits = match part {
                Part::Location => Some(basis.location(kind, point.size, point.index)),
                Part::Spread => basis.spread(kind, point.size),
            };
            let (Some(value), Some(limits)) = (point.drawn(part), limits) else { break };
            placed[at] = Placed { value, limits };
            first = at;
        }
        let rules = spec.rules.iter().filter(|rule: &&Rule| rule.fits(kind, part));
        for rule in rules {
            if let Some(found) = rule.broken(&placed[first..seen.len()]) {
                let named = found.points.iter().map(|at| seen[first + at].named(part)).collect();
                all.push(violation(part, *rule, found.side, named));
            }
        }
    }
    all
}
