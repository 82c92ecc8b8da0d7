//! What a window of a station's facts adds up to.
//!
//! A pure function of facts, plan and window. Tallies of windows that touch add up to that of the whole.

use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::losses::{Bucket, is_stop};
use crate::model::memo;
use crate::model::period::{Count, Counts};
use crate::model::piece::{Stop, pieces_of};
use crate::model::setting::Setting;
use crate::model::standing::Standing;
use crate::model::startup::Startups;
use crate::model::station::nanoseconds;
use crate::model::timeline::{Facts, Made, Work};
use crate::model::window::Stretch;
use crate::model::{OeeSpec, State};

/// Sums over a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Nanoseconds in each state. Breaks of the plan are `break`, whatever the machine did.
    states: [i64; State::ALL.len()],
    /// Nanoseconds of known time in each bucket.
    buckets: [i64; Bucket::ALL.len()],
    /// What was counted.
    pub counts: Counts,
    /// The same, each part by its ideal time, in nanoseconds; where products mix quality is weighted by it.
    weighted: Counts,
    /// Of both what was counted in start-ups.
    startup: Counts,
    startup_weighted: Counts,
    /// The ideal cycle times of what was made.
    ideal: Ideal,
    /// Ideal time of the parts that performance speaks of, in nanoseconds.
    ideal_ns: f64,
    /// Parts counted across unknown time: in totals and quality, not in performance.
    pub unattributed: f64,
    /// Planned time that is known, by the time that a part was to take.
    paced: Vec<(f64, i64)>,
    /// Nanoseconds of downtime by reason, and whether it was planned.
    reasons: Vec<(Arc<str>, bool, i64)>,
    /// What failed, and was mended.
    pub repairs: Repairs,
    /// Energy taken, in joules.
    pub energy_j: f64,
    /// Of it, while the machine was known not to run.
    pub idle_energy_j: f64,
    /// What the material of the parts cost.
    pub material: Material,
    /// What people and later stations rejected, by code, as they said it: parts, and their ideal time in nanoseconds.
    defects: Vec<(Arc<str>, f64, f64)>,
}

/// How many codes of rejects by hand and of later stations are told apart over a window.
pub(super) const MOST_CODES: usize = 100;
/// What stands for those beyond.
pub(super) const OTHER_CODES: &str = "other";

/// What material cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Material {
    /// Of no part is it said.
    #[default]
    Unsaid,
    /// In the line's currency.
    Known(f64),
    /// Of some parts it is not said.
    Partly,
}

impl Material {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Partly, _) | (_, Self::Partly) => Self::Partly,
            (Self::Unsaid, only) | (only, Self::Unsaid) => only,
            (Self::Known(one), Self::Known(other)) => Self::Known(one + other),
        }
    }
}

/// Failures and their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    /// Failures that began in the window.
    pub failures: u64,
    /// Failures that ended in it.
    pub mended: u64,
    /// How long those lasted that ended in it, from beginning to end, in nanoseconds.
    pub mended_ns: i64,
    /// Time in failures within the window, whatever the plan, in nanoseconds.
    pub corrective_ns: i64,
    /// Time in state `maintenance` that belongs to no failure, likewise.
    pub preventive_ns: i64,
}

impl Repairs {
    fn count(&mut self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) {
        let Stretch { from, to, known, .. } = stretch;
        let mut place = facts.place(from);
        while let Some(span) = facts.span(place).filter(|span| span.from < to) {
            if !is_stop(span.state) {
                place += 1;
                continue;
            }
            let stop = Stop::around(facts, setting, place, known);
            place = stop.places.end;
            if stop.to <= from {
                continue;
            }
            if !stop.is_failure(facts, setting) {
                self.preventive_ns += stop.time_in(State::Maintenance, facts, from, to);
                continue;
            }
            let goes_on = Stop::before_unknown(facts, setting, stop.places.start).is_some();
            self.failures += u64::from(stop.from >= from && !goes_on);
            self.corrective_ns += stop.to.min(to).0 - stop.from.max(from).0;
            if stop.over && stop.to <= to {
                self.mended += 1;
                self.mended_ns += stop.to.0 - stop.failed(facts, setting).0;
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.failures += other.failures;
        self.mended += other.mended;
        self.mended_ns += other.mended_ns;
        self.corrective_ns += other.corrective_ns;
        self.preventive_ns += other.preventive_ns;
    }
}

/// The ideal cycle times of the parts of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Ideal {
    /// There were no parts.
    #[default]
    NoParts,
    /// All had this one, in nanoseconds.
    One(f64),
    /// They had several.
    Mixed,
    /// Of some it is not known.
    Unknown,
}

impl Ideal {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::NoParts, only) | (only, Self::NoParts) => only,
            (Self::One(one), Self::One(other)) if one.total_cmp(&other).is_eq() => self,
            _ => Self::Mixed,
        }
    }
}

impl Tally {
    /// What `facts` say of the time from `from` to before `to`. What holds at their end goes on to hold.
    pub fn of(facts: Facts<'_>, setting: Setting<'_>, from: Time, to: Time) -> Self {
        Self::within(facts, setting, Stretch::closed(from, to))
    }

    /// The same of a window that goes on: what was counted at `now` itself has happened.
    pub fn so_far(facts: Facts<'_>, setting: Setting<'_>, from: Time, now: Time) -> Self {
        Self::within(facts, setting, Stretch::until(from, Time(i64::MAX), now))
    }

    /// What `facts` say of a stretch of time.
    pub fn within(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> Self {
        memo::within(facts, setting, stretch)
    }

    /// The same of a part of it, at one go.
    pub(super) fn of_part(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> Self {
        let mut tally = Self::default();
        let startups = Startups::of(facts, setting, stretch);
        tally.time(facts, setting, stretch);
        tally.parts(facts, setting, stretch, &startups);
        tally.found(facts, setting, stretch, &startups);
        tally
    }

    /// Adds what another window adds up to.
    pub fn add(&mut self, other: &Self) {
        self.states.iter_mut().zip(other.states).for_each(|(sum, more)| *sum += more);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.counts.join(&other.counts);
        self.weighted.join(&other.weighted);
        self.startup.join(&other.startup);
        self.startup_weighted.join(&other.startup_weighted);
        self.ideal = self.ideal.and(other.ideal);
        self.ideal_ns += other.ideal_ns;
        self.unattributed += other.unattributed;
        other.paced.iter().for_each(|&(pace, spent)| self.pace(pace, spent));
        self.repairs.add(&other.repairs);
        self.energy_j += other.energy_j;
        self.idle_energy_j += other.idle_energy_j;
        self.material = self.material.and(other.material);
        other.defects.iter().for_each(|(code, parts, weight)| self.defect(code, *parts, *weight));
        self.find();
        other.reasons.iter().for_each(|(reason, planned, spent)| self.blame(reason, *planned, *spent));
    }

    /// Lets go of what no sum since the first observation speaks of, and which people may make ever more of.
    pub fn forget_pace(&mut self) {
        self.paced.clear();
    }

    /// With its counts whole, so that it can be added to another station's.
    pub(super) fn told_whole(&self, spec: &OeeSpec) -> Self {
        let [counts, weighted, startup, startup_weighted] =
            [&self.counts, &self.weighted, &self.startup, &self.startup_weighted].map(|of| of.told_whole(spec));
        Self { counts, weighted, startup, startup_weighted, ..self.clone() }
    }

    fn time(&mut self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) {
        for piece in pieces_of(facts, setting, stretch) {
            let spent = piece.length();
            self.states[piece.state as usize] += spent;
            let Some(bucket) = piece.bucket else { continue };
            self.buckets[bucket as usize] += spent;
            if let Some(reason) = &piece.reason {
                self.blame(reason, piece.planned, spent);
            }
            if bucket != Bucket::NotPlanned
                && let Some(pace) = pace(setting, piece.work, piece.from)
            {
                self.pace(pace, spent);
            }
        }
        self.repairs.count(facts, setting, stretch);
    }

    fn parts(&mut self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch, startups: &Startups) {
        for made in stretch.made(facts) {
            let &Made { since, at, count, parts, .. } = made;
            if count == Count::Energy {
                let state = facts.span(facts.place(Time(at.0.saturating_sub(1)))).map(|span| span.state);
                self.energy_j += parts;
                if facts.seen(since, at) && state.is_some_and(|state| !state.is_run()) {
                    self.idle_energy_j += parts;
                }
                continue;
            }
            let ideal = ideal(setting, facts.work(at), at);
            self.counts.add(count, parts);
            self.weighted.add(count, parts * ideal.unwrap_or(0.0));
            if startups.covers(made) {
                self.startup.add(count, parts);
                self.startup_weighted.add(count, parts * ideal.unwrap_or(0.0));
            }
            let standing = Standing::of(facts, setting, made, stretch.known);
            // A reject may be of another product than any part of the window: then they mix, too.
            if standing != Standing::Beside || ideal.is_some() {
                self.ideal = self.ideal.and(ideal.map_or(Ideal::Unknown, Ideal::One));
            }
            if standing == Standing::Beside {
                continue;
            }
            if setting.prices_material() {
                let price = setting.product(facts.work(at)).and_then(|product| product.material_cost);
                self.material =
                    self.material.and(price.map_or(Material::Partly, |price| Material::Known(price * parts)));
            }
            match standing {
                Standing::Gap | Standing::Unseen => self.unattributed += parts,
                Standing::Counted => self.ideal_ns += parts * ideal.unwrap_or(0.0),
                Standing::Unplanned | Standing::Beside => {}
            }
        }
    }

    fn found(&mut self, facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch, startups: &Startups) {
        let (mut parts, mut weight) = (0.0, 0.0);
        let by_hand = facts.defects(stretch.from, stretch.end()).iter().map(|of| (of.at, &of.code, of.parts));
        let late = facts.late(stretch.from, stretch.end()).iter().map(|of| (of.at, &of.code, of.parts));
        for (at, code, rejected) in by_hand.chain(late) {
            let rejected_ns = rejected * ideal(setting, facts.work(at), at).unwrap_or(0.0);
            self.defect(code, rejected, rejected_ns);
            if startups.cover(at) {
                (parts, weight) = (parts + rejected, weight + rejected_ns);
            }
        }
        self.startup.find(parts.max(0.0));
        self.startup_weighted.find(weight.max(0.0));
        self.find();
    }

    fn defect(&mut self, code: &Arc<str>, parts: f64, weight: f64) {
        let find = |held: &[(Arc<str>, f64, f64)], code: &str| held.iter().position(|of| &*of.0 == code);
        let (code, place) = match find(&self.defects, code) {
            None if self.defects.len() >= MOST_CODES => (&Arc::from(OTHER_CODES), find(&self.defects, OTHER_CODES)),
            place => (code, place),
        };
        match place.map(|place| &mut self.defects[place]) {
            Some(held) => (held.1, held.2) = (held.1 + parts, held.2 + weight),
            None => self.defects.push((code.clone(), parts, weight)),
        }
    }

    /// Corrections may take back no more than was told.
    fn find(&mut self) {
        let (parts, weight) = self.defects().fold((0.0, 0.0), |sum, of| (sum.0 + of.1, sum.1 + of.2));
        self.counts.find(parts);
        self.weighted.find(weight);
    }

    fn pace(&mut self, pace: f64, spent: i64) {
        match self.paced.iter_mut().find(|(held, _)| held.total_cmp(&pace).is_eq()) {
            Some((_, held)) => *held += spent,
            None => self.paced.push((pace, spent)),
        }
    }

    fn blame(&mut self, reason: &Arc<str>, planned: bool, spent: i64) {
        match self.reasons.iter_mut().find(|held| (&held.0, held.1) == (reason, planned)) {
            Some((_, _, held)) => *held += spent,
            None => self.reasons.push((reason.clone(), planned, spent)),
        }
    }

    /// Nanoseconds in a state.
    #[must_use]
    pub fn state(&self, state: State) -> i64 {
        self.states[state as usize]
    }

    /// Time in each state that was seen, in the order of [`State::ALL`].
    pub fn states(&self) -> impl Iterator<Item = (State, i64)> {
        State::ALL.into_iter().map(|state| (state, self.state(state))).filter(|&(_, spent)| spent > 0)
    }

    /// Nanoseconds of known time in a bucket.
    #[must_use]
    pub fn bucket(&self, bucket: Bucket) -> i64 {
        self.buckets[bucket as usize]
    }

    /// What people and later stations rejected: code, parts and their ideal time in nanoseconds. Never below zero: who took back more than was
    /// told in the window took back what there was.
    fn defects(&self) -> impl Iterator<Item = (&Arc<str>, f64, f64)> {
        self.defects.iter().filter(|of| of.1 > 0.0).map(|(code, parts, weight)| (code, *parts, weight.max(0.0)))
    }

    /// Parts that people rejected by hand and later stations with what they tell, by code.
    pub fn defects_by_code(&self) -> impl Iterator<Item = (&Arc<str>, f64)> {
        self.defects().map(|(code, parts, _)| (code, parts))
    }

    /// Nanoseconds of downtime by reason, and whether it was planned.
    #[must_use]
    pub fn reasons(&self) -> &[(Arc<str>, bool, i64)] {
        &self.reasons
    }

    /// Ideal time of the parts that performance speaks of, in nanoseconds; `None` if of some part it is not known.
    #[must_use]
    pub fn ideal_ns(&self, spec: &OeeSpec) -> Option<f64> {
        let known = match self.ideal {
            Ideal::Unknown => false,
            Ideal::NoParts => spec.ideal_cycle_time.is_some() || !self.paced.is_empty(),
            Ideal::One(_) | Ideal::Mixed => true,
        };
        known.then_some(self.ideal_ns)
    }

    /// Nanoseconds of planned time that is known.
    #[must_use]
    pub fn planned_ns(&self) -> i64 {
        self.bucket(Bucket::Run) + self.bucket(Bucket::Performance) + self.bucket(Bucket::Availability)
    }

    /// Ideal time of the good parts, in nanoseconds; `None` where nothing tells them, or of some part it is not known.
    #[must_use]
    pub fn good_ideal_ns(&self, spec: &OeeSpec) -> Option<f64> {
        self.ideal_ns(spec).and_then(|_| self.weighted.good(spec))
    }

    /// Good parts over all parts, weighted by their ideal time where products mix (the sum of the ideal times of good parts
    /// over that of all parts), so that the product of the three is good ideal time over planned time.
    #[must_use]
    pub fn quality(&self, spec: &OeeSpec) -> Option<f64> {
        let (good, total) = self.good_of_total(spec)?;
        Some(good / total)
    }

    /// What quality is the quotient of: good parts and all parts, or their ideal times in nanoseconds ([`Tally::is_mixed`]).
    #[must_use]
    pub fn good_of_total(&self, spec: &OeeSpec) -> Option<(f64, f64)> {
        let counts = if self.is_mixed() { &self.weighted } else { &self.counts };
        Some((counts.good(spec)?, counts.total(spec).filter(|&total| total > 0.0)?))
    }

    /// Parts that were rejected in start-ups; `None` where nothing is said of start-ups, or no counter tells.
    #[must_use]
    pub fn startup_reject(&self, spec: &OeeSpec) -> Option<f64> {
        spec.startup.as_ref().and_then(|_| self.startup.reject(spec))
    }

    /// What quality lacks because of start-ups: parts that were not good at the first pass then over all parts, weighted as
    /// quality is.
    #[must_use]
    pub fn startup_share(&self, spec: &OeeSpec) -> Option<f64> {
        spec.startup.as_ref()?;
        let (_, all) = self.good_of_total(spec)?;
        let counts = if self.is_mixed() { &self.startup_weighted } else { &self.startup };
        Some((counts.total(spec)? - counts.good(spec)?) / all)
    }

    /// Whether parts of several ideal cycle times were made, so that quality is weighted by them.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        self.ideal == Ideal::Mixed
    }

    /// How many parts the known planned time was to give.
    #[must_use]
    pub fn target(&self) -> Option<f64> {
        let due = self.paced.iter().filter(|&&(pace, spent)| pace > 0.0 && spent > 0);
        due.map(|&(pace, spent)| real(spent) / pace).reduce(|sum, more| sum + more)
    }
}

/// The time that a part takes at best at `at`, in nanoseconds: of the product that is made then, else of the station.
pub fn ideal(setting: Setting<'_>, work: Option<&Work>, at: Time) -> Option<f64> {
    let of_product = setting.product(work).and_then(|product| {
        let valid = product.ideal_cycle_time.iter().rev().find(|(from, _)| *from <= at);
        valid.map(|&(_, ideal)| ideal)
    });
    of_product.or(setting.spec.ideal_cycle_time).map(nanoseconds)
}

/// Since when that time is what it is at `at`, whoever said so.
pub fn ideal_since(setting: Setting<'_>, work: Option<&Work>, at: Time) -> Time {
    let valid =
        setting.product(work).and_then(|product| product.ideal_cycle_time.iter().rev().find(|(from, _)| *from <= at));
    valid.map_or(Time(i64::MIN), |&(from, _)| from)
}

/// The time that a part is to take at `at`, in nanoseconds: what a person asked for, else the product's takt, else its ideal
/// cycle time.
fn pace(setting: Setting<'_>, work: Option<&Work>, at: Time) -> Option<f64> {
    let takt = setting.product(work).and_then(|product| product.takt);
    let takt = work.and_then(|work| work.takt).or(takt);
    takt.map(nanoseconds).or_else(|| ideal(setting, work, at))
}

impl Count {
    /// Whether what it counts is parts of their own: the total where it is counted, else what gives it.
    pub fn is_part(self, spec: &OeeSpec) -> bool {
        match self {
            Self::Total => true,
            Self::Good => spec.total.is_none(),
            Self::Reject | Self::Rework => spec.total.is_none() && spec.good.is_some(),
            Self::Energy => false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
pub(super) fn real(nanoseconds: i64) -> f64 {
    nanoseconds as f64
}
