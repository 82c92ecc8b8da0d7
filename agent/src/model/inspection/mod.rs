//! An inspection station: what its verdicts, scores and defects add up to, and what reviews say of them.
//!
//! - What makes an inspection count is said once ([`Trigger`]). It takes what its tags tell at that time, and what comes until
//!   [`InspectionSpec::settle`] later; so it is counted when something later is told, at its own time.
//! - With [`Trigger::Count`] and [`Trigger::Id`] a value holds until another one comes, since devices tell what changed. With
//!   [`Trigger::Message`] only what was told since the last inspection belongs to the next.
//! - A bad reading is no value. A value that a map lacks is no verdict: the inspection counts, its verdict is unknown.
//! - Defects count unless the verdict is a pass: after a pass many devices hold the code of the last reject.
//! - What a review says counts at the time of its inspection. Another word on the same inspection takes the place of the first.
//! - A unit is of the product that was told last when it counts.
//! - Scores are compared with the first ones of the same version of the model. That baseline is never learnt again while the
//!   version is remembered.

mod figures;
mod heard;
mod review;
mod spec;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod vectors;
mod versions;

use std::collections::BTreeSet;
use std::sync::Arc;

use gemba_drivers::{Reading, Time, Value};
use serde::{Deserialize, Serialize};

pub use self::figures::{Drift, Histogram, InspectionFigures, ProductFigures};
use self::heard::Heard;
use self::review::Memory;
pub use self::spec::{
    BaselineSpec, DefectSpec, Finding, InspectionSpec, LatencySpec, ReviewSpec, Role, ScoreSpec, Trigger, Verdict,
    Words,
};
pub use self::tally::{InspectionTally, Latency, OfProduct, Queue};
use self::versions::Versions;
use crate::model::counter::{self, Counter, Step};
use crate::model::drift::bin;
use crate::model::late::Rejection;
use crate::model::station::LATENESS;

/// How many defect codes are told apart; the rest counts as [`OTHER`].
const MOST_CODES: usize = 100;
/// Defects whose code came when there were too many.
const OTHER: &str = "other";
/// How much of an id, a code or a version counts: outside words must not fill memory.
const LONGEST: usize = 128;
/// How many inspections are remembered to tell the first one of a unit from the next, where no review says how many.
const REMEMBERED: usize = 1_000;
/// The number of a baseline that is given, in [`InspectionTally::drift`].
const GIVEN: u32 = u32::MAX;

/// What is remembered of an inspection station. All of it goes into the checkpoint; what it tells is a sum of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    counter: Counter,
    held: Held,
    /// [`Trigger::Id`] knows what was there before.
    watched: bool,
    open: Option<Open>,
    heard: Heard,
    memory: Memory,
    codes: BTreeSet<Arc<str>>,
    /// The version of the model that was told last.
    model: Option<Arc<str>>,
    versions: Versions,
    queue: Option<(Time, f64)>,
    /// The product that was told last.
    product: Option<Arc<str>>,
}

/// What is known of the unit under inspection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Held {
    id: Option<Arc<str>>,
    verdict: Option<Verdict>,
    score: Option<f64>,
    /// As it was told; taken apart when it counts.
    defects: Value,
    latency_ns: Option<u64>,
}

/// An inspection to which more may belong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    at: Time,
    /// The turn of the reading that told.
    turn: Time,
    /// How many the counter moved.
    count: u64,
}

/// What came of readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// What is to be added, and at what time it counts: also before what was told earlier.
    pub tallies: Vec<(Time, InspectionTally)>,
    /// Changes of the inspection model.
    pub models: Vec<ModelChange>,
    /// What a counter skipped faster than it may.
    pub quarantined: Vec<Quarantined>,
    /// What was rejected, or is no longer, since people say so.
    pub rejections: Vec<Rejection>,
}

/// Another version of the model judges from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChange {
    /// When.
    pub time: Time,
    /// What it was, if known.
    pub from: Option<Arc<str>>,
    /// What it is.
    pub to: Arc<str>,
}

/// Inspections that are not believed, for the loss ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The counter's reading before.
    pub from: Time,
    /// The reading that moved too far.
    pub to: Time,
}

impl Inspection {
    /// Applies a reading of the tag that tells `role`; those of a station come in order of their source times.
    pub fn observe(&mut self, spec: &InspectionSpec, role: Role, reading: &Reading, out: &mut News) {
        let at = reading.source_time.min(reading.received_time);
        self.settle(spec, at, out);
        let value = Some(&reading.value).filter(|_| !reading.validity.is_bad());
        // The next message begins with whatever was told already.
        if spec.trigger == Trigger::Message && self.open.is_some() && self.held.has(role) {
            self.finish(spec, out);
        }
        let number = || value.and_then(Value::as_f64);
        match role {
            Role::Count => self.count(spec, reading, number(), at, out),
            Role::Id => self.id(spec, value, (at, turn(reading)), out),
            Role::Verdict => self.verdict(spec, value, (at, turn(reading)), out),
            Role::Score => self.held.score = number(),
            Role::Defects => self.held.defects = value.cloned().unwrap_or_default(),
            Role::Latency => self.held.latency_ns = number().and_then(|number| nanoseconds(spec, number)),
            Role::Queue => self.queue(number(), at, out),
            Role::Model => self.model(value, at, out),
            Role::Finding => self.finding(spec, value, at, out),
            Role::ReviewId => self.review_id(spec, value, at, out),
            // A bad reading is no other product.
            Role::Product => {
                if let Some(value) = value {
                    self.make(word(value));
                }
            }
        }
        if matches!(role, Role::Finding | Role::ReviewId) {
            self.heard.turn = turn(reading);
        }
    }

    /// What is inspected from now on is of this product.
    pub fn make(&mut self, product: Option<Arc<str>>) {
        self.product = product;
    }

    /// Counts what is complete, since nothing more is told of the time before `now`. Whoever asks for figures calls it first.
    pub fn settle(&mut self, spec: &InspectionSpec, now: Time, out: &mut News) {
        let due = |at: Option<Time>| at.filter(|at| *at + spec.settle < now);
        let (inspected, reviewed) = (due(self.open.map(|open| open.at)), due(self.heard.news));
        // What was said before the next inspection is not of that one.
        if reviewed.is_some() && inspected > reviewed {
            self.review(spec, out);
        }
        if inspected.is_some() {
            self.finish(spec, out);
        }
        if reviewed.is_some() && self.heard.news.is_some() {
            self.review(spec, out);
        }
    }

    /// How many wait, as told last, and when that was.
    #[must_use]
    pub fn waiting(&self) -> Option<(Time, f64)> {
        self.queue
    }

    /// The version of the model that was told last.
    #[must_use]
    pub fn model_version(&self) -> Option<&Arc<str>> {
        self.model.as_ref()
    }

    /// How many scores of its baseline the present version of the model has learnt, of how many; none with one that is given.
    #[must_use]
    pub fn learnt(&self, spec: &InspectionSpec) -> Option<(usize, usize)> {
        let BaselineSpec::Learnt(enough) = spec.baseline else { return None };
        let learnt = self.versions.present().map_or((0, enough), |version| {
            let learnt = version.sample.len();
            (learnt, if version.frozen { learnt } else { enough })
        });
        Some(learnt)
    }

    fn count(&mut self, spec: &InspectionSpec, reading: &Reading, number: Option<f64>, at: Time, out: &mut News) {
        let Trigger::Count(counter) = &spec.trigger else { return };
        let Some(number) = number else { return self.counter.lose(at) };
        let told = counter::Told { source_time: reading.source_time, at, backfilled: reading.backfilled };
        match self.counter.observe(counter, number, told) {
            Step::Counted { difference, at, .. } => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
                self.begin(spec, (at, turn(reading)), difference.round() as u64, out);
            }
            Step::Quarantined { since, at, .. } => out.quarantined.push(Quarantined { from: since, to: at }),
            Step::Baseline | Step::Late => {}
        }
    }

    fn id(&mut self, spec: &InspectionSpec, value: Option<&Value>, (at, turn): (Time, Time), out: &mut News) {
        let Some(value) = value else { return };
        let id = word(value);
        if spec.trigger != Trigger::Id {
            self.held.id = id;
            return;
        }
        let watched = std::mem::replace(&mut self.watched, true);
        if id == self.held.id {
            return;
        }
        if self.open.is_some() {
            self.finish(spec, out);
        }
        self.held.id = id;
        if watched && self.held.id.is_some() {
            self.begin(spec, (at, turn), 1, out);
        }
    }

    fn verdict(&mut self, spec: &InspectionSpec, value: Option<&Value>, (at, turn): (Time, Time), out: &mut News) {
        let Some(words) = &spec.verdict else { return };
        let verdict = value.and_then(|value| words.meaning(value));
        if spec.trigger == Trigger::Message && value.is_some() {
            self.begin(spec, (at, turn), 1, out);
        }
        self.held.verdict = verdict;
    }

    fn queue(&mut self, number: Option<f64>, at: Time, out: &mut News) {
        self.queue = number.map(|number| (at, number));
        if let Some(last) = number {
            let queue = Some(Queue { at, last, max: last });
            out.tallies.push((at, InspectionTally { queue, ..InspectionTally::default() }));
        }
    }

    fn model(&mut self, value: Option<&Value>, at: Time, out: &mut News) {
        let Some(to) = value.and_then(word).filter(|to| self.model.as_ref() != Some(to)) else { return };
        self.versions.switch(&to);
        out.models.push(ModelChange { time: at, from: self.model.replace(to.clone()), to });
    }

    fn begin(&mut self, spec: &InspectionSpec, (at, turn): (Time, Time), count: u64, out: &mut News) {
        if count == 0 {
            return;
        }
        if self.open.is_some() {
            self.finish(spec, out);
        }
        self.open = Some(Open { at, turn, count });
    }

    fn finish(&mut self, spec: &InspectionSpec, out: &mut News) {
        let Some(Open { at, turn, count }) = self.open.take() else { return };
        let unit = if spec.trigger == Trigger::Message { std::mem::take(&mut self.held) } else { self.held.clone() };
        let mut tally = InspectionTally { inspections: count, seen: 1, ..InspectionTally::default() };
        if let Some(verdict) = unit.verdict {
            tally.decided(verdict);
            tally.manual = u64::from(verdict == Verdict::Review);
        }
        if spec.id.is_some() || spec.review.is_some() {
            let most = spec.review.as_ref().map_or(REMEMBERED, |review| review.remember);
            let id = unit.id.clone().unwrap_or_else(|| "".into());
            let first = self.memory.remember(most, &id, at, unit.verdict) && unit.id.is_some();
            tally.first = u64::from(first && unit.verdict.is_some());
            tally.first_pass = u64::from(first && unit.verdict == Some(Verdict::Pass));
        }
        if unit.verdict != Some(Verdict::Pass) {
            let mut codes: Vec<_> = codes(spec, &unit.defects).into_iter().map(|code| self.known(code)).collect();
            codes.iter().for_each(|code| *tally.defects.entry(code.clone()).or_default() += 1);
            if unit.verdict == Some(Verdict::Fail) {
                let code = codes.drain(..).next();
                // What is told until `settle` later belongs to it.
                let turn = turn.max(Time((at + spec.settle).0 + 1));
                out.rejections.push(Rejection {
                    at,
                    turn,
                    id: unit.id.clone(),
                    code,
                    parts: 1.0,
                    known: true,
                    back: false,
                });
            }
        }
        let known = spec.products.iter().find(|(name, _)| self.product.as_ref() == Some(name));
        let of_product =
            OfProduct { seen: 1, judged: tally.judged(), fail: tally.fail, defects: tally.defects.values().sum() };
        tally.products.insert(known.map(|(name, _)| name.clone()), of_product);
        if let (Some(score), Some(of)) = (unit.score, &spec.score) {
            tally.scores.count(bin(&of.edges, score));
            if let Some((baseline, cell)) = self.compared(spec, score) {
                tally.drift.entry(baseline).or_default().count(cell);
            }
        }
        if let Some(ns) = unit.latency_ns {
            tally.latency.observe(ns);
        }
        out.tallies.push((at, tally));
    }

    /// The code, unless there are too many to tell apart.
    fn known(&mut self, code: Arc<str>) -> Arc<str> {
        if let Some(known) = self.codes.get(&code) {
            return known.clone();
        }
        if self.codes.len() == MOST_CODES {
            return OTHER.into();
        }
        self.codes.insert(code.clone());
        code
    }

    /// The number of the baseline that `score` is compared with, and its cell there; none while that is learnt.
    fn compared(&mut self, spec: &InspectionSpec, score: f64) -> Option<(u32, u16)> {
        match &spec.baseline {
            BaselineSpec::Given { edges, .. } => Some((GIVEN, bin(edges, score))),
            BaselineSpec::Learnt(enough) => {
                if spec.model.is_none() && self.versions.present().is_none_or(|version| !version.name.is_empty()) {
                    self.model = None;
                    self.versions.switch(&"".into());
                }
                self.versions.score(*enough, score)
            }
        }
    }
}

impl Held {
    fn has(&self, role: Role) -> bool {
        match role {
            Role::Id => self.id.is_some(),
            Role::Verdict => self.verdict.is_some(),
            Role::Score => self.score.is_some(),
            Role::Defects => self.defects != Value::Null,
            Role::Latency => self.latency_ns.is_some(),
            Role::Count | Role::Queue | Role::Model | Role::Finding | Role::ReviewId | Role::Product => false,
        }
    }
}

/// When a reading is settled at the earliest.
fn turn(reading: &Reading) -> Time {
    let (at, settled) = (reading.source_time.min(reading.received_time), reading.received_time - LATENESS);
    if at < settled { Time(settled.0.saturating_sub(1)) } else { at }
}

/// A name, unless the value stands for nobody and nothing.
fn word(value: &Value) -> Option<Arc<str>> {
    let word: Arc<str> = match value {
        Value::Null | Value::Int(0) => return None,
        Value::Float(real) if *real == 0.0 => return None,
        Value::Text(text) => {
            let trimmed = text.trim();
            let end = trimmed.char_indices().nth(LONGEST).map_or(trimmed.len(), |(end, _)| end);
            // Most are polled far more often than they change.
            if end == text.len() { text.clone() } else { trimmed[..end].into() }
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.to_string().into(),
    };
    Some(word).filter(|word| !word.is_empty())
}

/// The codes that `value` holds, by their names; 0, `false` and empty text are none. A JSON list of texts is taken apart, too. At
/// most as many as are told apart.
fn codes(spec: &InspectionSpec, value: &Value) -> Vec<Arc<str>> {
    let Some(spec) = &spec.defects else { return Vec::new() };
    let named =
        |code: Arc<str>| spec.codes.iter().find(|(from, _)| **from == *code).map_or(code, |(_, name)| name.clone());
    let each = match value {
        Value::Bool(false) => Vec::new(),
        Value::Text(text) => {
            let list = text.trim().trim_start_matches('[').trim_end_matches(']');
            let plain = |part: &str| part.trim().trim_matches('"').into();
            list.split(spec.separator).filter_map(|part| word(&Value::Text(plain(part)))).collect()
        }
        _ => word(value).into_iter().collect(),
    };
    each.into_iter().filter(|code| **code != *"0").take(MOST_CODES).map(named).collect()
}

fn nanoseconds(spec: &InspectionSpec, number: f64) -> Option<u64> {
    let ns = number * f64::from(spec.latency.as_ref()?.unit_ns);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked, and saturating")]
    (ns >= 0.0).then_some(ns.round() as u64)
}
