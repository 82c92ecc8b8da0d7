//! Parts that a later station rejects: they count where and when they were made.
//!
//! Both sides are facts that the station holds that made them: which unit was there when ([`Stays`]), and which units were
//! rejected when ([`Rejected`]). What follows ([`LateReject`]) is worked out anew from both when either changes, so it does not
//! matter which of them comes first, nor how late.
//!
//! - By serial, a reject is of the unit's last stay that began before it. The unit counts when its last part was counted there,
//!   else when it left; and once, however often it is rejected.
//! - Where people review what an inspection says, their word counts: a false call is taken back, an escape is a reject.
//! - By lot, it is of the last parts of the lot that were made by then.
//! - What finds nothing to belong to is waited for as long as there may lie between the two, and longer while the station
//!   itself is not heard. Then it is a loss.

mod stays;
#[cfg(test)]
mod tests;
mod unit;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Loss, Reading, Time};
use serde::{Deserialize, Serialize};

pub use self::stays::{Stay, Stays};
pub use self::unit::Unit;
pub use self::witness::{Rejection, Witness, WitnessSpec};
use crate::model::timeline::{LateReject, Timeline};
use crate::model::{LateBy, LateSpec, OeeSpec, packed};

/// How many stays of units are held at most: a day and two hours of a unit each ten seconds. Beyond, the oldest go.
pub const MOST_UNITS: usize = 10_000;

/// How many rejects are held at most, for as long as facts are; those beyond are losses.
pub const MOST_REJECTS: usize = 10_000;

/// Nothing is waited for longer, not even while the station is not heard: facts are not held longer.
const LONGEST: Duration = Duration::from_secs(9 * 24 * 3600);

/// A later station rejected a unit, or parts of a lot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// When.
    pub at: Time,
    /// When that was settled there, which is its turn here.
    pub turn: Time,
    /// Which station did.
    pub station: Arc<str>,
    /// How it knows the part.
    pub by: LateBy,
    /// The serial or the lot; nobody where it was not told.
    pub unit: Unit,
    /// What a counter tells of one unit since then belongs together.
    pub since: Time,
    /// What was wrong with it.
    pub code: Arc<str>,
    /// How many parts.
    pub parts: f64,
    /// People say that what was rejected then is good after all.
    pub back: bool,
}

/// What a station keeps for rejects of later ones. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Late {
    stays: Stays,
    /// In order of time.
    #[serde(with = "packed::rejects")]
    rejects: Vec<Held>,
    /// When the station was last heard again, after nobody knew what it did.
    back: Option<Time>,
    /// What follows is to be worked out anew.
    changed: bool,
}

/// A reject, and when the part was made, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The reject; its turn is past.
    pub rejected: Rejected,
    /// When.
    pub made: Option<Time>,
}

impl Late {
    /// The serial's tag told who is here.
    pub fn tell(&mut self, reading: &Reading) {
        for unit in self.stays.tell(reading) {
            self.touch(unit);
        }
    }

    /// A part was counted at `at`.
    pub fn count(&mut self, at: Time) {
        if let Some(unit) = self.stays.mark(at) {
            self.touch(unit);
        }
        self.changed |= self.rejects.iter().any(|held| held.rejected.by == LateBy::Lot && held.rejected.at >= at);
    }

    /// What was worked on is something else than was known.
    pub fn work(&mut self) {
        self.changed |= self.rejects.iter().any(|held| held.rejected.by == LateBy::Lot);
    }

    /// A later station rejected something, or takes that back. Returns the loss if there is no room for it.
    pub fn reject(&mut self, name: &Arc<str>, new: Rejected) -> Option<Loss> {
        if new.back {
            let of_it = |held: &Rejected| (held.at, held.by, &held.station) == (new.at, new.by, &new.station);
            let held = self.rejects.len();
            self.rejects.retain(|held| !of_it(&held.rejected));
            self.changed |= self.rejects.len() < held;
            return None;
        }
        if self.rejects.len() >= MOST_REJECTS {
            let reason = format!("late reject at {}: {MOST_REJECTS} are held already", new.station);
            return Some(loss(name, &new, &reason));
        }
        // It has had its turn.
        let new = Held { rejected: Rejected { turn: new.at, ..new }, made: None };
        let place = self.rejects.partition_point(|held| held.order(&new).is_le());
        self.rejects.insert(place, new);
        self.changed = true;
        None
    }

    /// What follows from all that is held, if anything changed. Returns the earliest time whose rejects are others now.
    pub fn join(&mut self, facts: &mut Timeline, spec: &OeeSpec) -> Option<Time> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut late = self.by_serial(&spec.late);
        late.extend(self.by_lot(facts, spec));
        let order = |one: &LateReject, other: &LateReject| {
            (one.at, &one.station, &one.code).cmp(&(other.at, &other.station, &other.code))
        };
        late.sort_by(|one, other| order(one, other).then(one.parts.total_cmp(&other.parts)));
        facts.reject_late(late)
    }

    /// What has waited too long is a loss, for which nothing was found to belong to. `gap`: nobody knows what the station counts.
    pub fn give_up(&mut self, name: &Arc<str>, spec: &OeeSpec, gap: bool, now: Time) -> Vec<Loss> {
        let lost = self.stays.is_lost();
        if lost || gap {
            self.back = self.back.max(Some(now));
        }
        if self.changed || self.rejects.iter().all(|held| held.made.is_some()) {
            return Vec::new();
        }
        let back = self.back;
        let over = |held: &Rejected| {
            let unheard = if held.by == LateBy::Serial { lost } else { gap };
            let (since, most) = match back {
                _ if unheard => (held.at, LONGEST),
                Some(back) => (held.at.max(back), within(&spec.late, held)),
                None => (held.at, within(&spec.late, held)),
            };
            held.unit == Unit::NOBODY || now.since(since) > most
        };
        let mut losses: BTreeMap<(Arc<str>, LateBy), Loss> = BTreeMap::new();
        self.rejects.retain(|Held { rejected, made }| {
            if made.is_some() || !over(rejected) {
                return true;
            }
            let what = match rejected.by {
                LateBy::Serial => "unit",
                LateBy::Lot => "lot",
            };
            let reason = format!("late reject at {} without its {what}", rejected.station);
            let more = loss(name, rejected, &reason);
            let sum =
                losses.entry((rejected.station.clone(), rejected.by)).or_insert(Loss { count: 0, ..more.clone() });
            (sum.from, sum.to) = (sum.from.min(more.from), sum.to.max(more.to));
            sum.count += more.count;
            false
        });
        losses.into_values().collect()
    }

    /// Lets go of what belongs to the time before `begin`.
    pub fn forget(&mut self, begin: Time) {
        self.stays.forget(begin);
        self.rejects.retain(|held| held.made.is_none_or(|made| made >= begin));
    }

    /// Lets go of the oldest units if there are too many. Returns the loss if some might still have been rejected by `now`.
    pub fn trim(&mut self, name: &Arc<str>, spec: &OeeSpec, now: Time) -> Option<Loss> {
        if self.stays.len() <= MOST_UNITS {
            return None;
        }
        // What was rejected stays: its rejects belong to it.
        let rejected: BTreeSet<Unit> = self.rejects.iter().map(|held| held.rejected.unit).collect();
        let gone = self.stays.trim(MOST_UNITS - MOST_UNITS / 10, |unit| rejected.contains(&unit));
        let longest = spec.late.iter().map(|late| late.within).max()?;
        let early: Vec<&Stay> = gone.iter().filter(|stay| now.since(stay.from) <= longest).collect();
        Some(Loss {
            source: name.clone(),
            from: early.first()?.from,
            to: early.last()?.from,
            count: u64::try_from(early.len()).unwrap_or(u64::MAX),
            reason: format!("units let go of before a late reject could come: {MOST_UNITS} are held").into(),
        })
    }

    fn touch(&mut self, unit: Unit) {
        self.changed |= self.rejects.iter().any(|held| held.rejected.unit == unit);
    }

    fn by_serial(&mut self, specs: &[LateSpec]) -> Vec<LateReject> {
        let rejected = self.rejects.iter().map(|held| &held.rejected).filter(|of| of.by == LateBy::Serial);
        let wanted: BTreeSet<Unit> = rejected.map(|of| of.unit).collect();
        let mut stays: BTreeMap<Unit, Vec<(Stay, Time)>> = BTreeMap::new();
        for (stay, end) in self.stays.iter().filter(|(stay, _)| wanted.contains(&stay.unit)) {
            stays.entry(stay.unit).or_default().push((stay, end));
        }
        // By unit and stay: the first that rejected it.
        let mut first: BTreeMap<(Unit, Time), (LateReject, Time)> = BTreeMap::new();
        for Held { rejected, made } in self.rejects.iter_mut().filter(|held| held.rejected.by == LateBy::Serial) {
            let of = stays.get(&rejected.unit).filter(|_| rejected.unit != Unit::NOBODY);
            let last = of.and_then(|of| of.iter().rev().find(|(stay, _)| stay.from <= rejected.at));
            // It may still have been here, as far as anybody knows.
            let found = last.map(|(stay, end)| (stay.from, stay.mark.unwrap_or(*end).min(rejected.at)));
            let found = found.filter(|(_, at)| rejected.at.since(*at) <= within(specs, rejected));
            *made = found.map(|(_, at)| at);
            let Some((from, at)) = found else { continue };
            if let Some((held, _)) = first.get(&(rejected.unit, from)) {
                *made = Some(held.at);
            }
            match first.get_mut(&(rejected.unit, from)) {
                None => {
                    let Rejected { station, code, parts, since, .. } = rejected.clone();
                    first.insert((rejected.unit, from), (LateReject { at, station, code, parts }, since));
                }
                // What a counter told of it while it was there once.
                Some((held, since)) if held.station == rejected.station && *since == rejected.since => {
                    held.parts += rejected.parts;
                }
                Some(_) => {}
            }
        }
        first.into_values().map(|(late, _)| late).collect()
    }

    fn by_lot(&mut self, facts: &Timeline, spec: &OeeSpec) -> Vec<LateReject> {
        let rejects: Vec<&mut Held> = self.rejects.iter_mut().filter(|held| held.rejected.by == LateBy::Lot).collect();
        if rejects.is_empty() {
            return Vec::new();
        }
        let lot = |lot: &Option<Arc<str>>| lot.as_ref().map_or(Unit::NOBODY, |lot| Unit::of(lot));
        let runs: Vec<(Unit, Time, Time)> = facts
            .runs()
            .map(|(run, end)| (lot(&run.work.lot), run.from, end))
            .filter(|run| run.0 != Unit::NOBODY)
            .collect();
        let mut late = Vec::new();
        for Held { rejected, made } in rejects {
            let of_it = runs.iter().rev().filter(|(unit, from, _)| *unit == rejected.unit && *from <= rejected.at);
            let mut counted = of_it.filter_map(|&(_, from, end)| {
                facts.last_counted(from, end.min(Time(rejected.at.0 + 1)), |count| count.is_part(spec))
            });
            *made = counted.next().filter(|at| rejected.at.since(*at) <= within(&spec.late, rejected));
            let Some(at) = *made else { continue };
            let Rejected { station, code, parts, .. } = rejected.clone();
            late.push(LateReject { at, station, code, parts });
        }
        late
    }
}

impl Held {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |held: &Self| (held.rejected.at, held.rejected.unit, held.rejected.since);
        let (one, two) = (&self.rejected, &other.rejected);
        key(self).cmp(&key(other)).then_with(|| (&one.station, &one.code).cmp(&(&two.station, &two.code)))
    }
}

/// The longest that may lie between a part and its reject; the longest of all for a station that is no longer asked.
fn within(specs: &[LateSpec], rejected: &Rejected) -> Duration {
    let asked = specs.iter().find(|late| late.station == rejected.station);
    asked.map_or(LONGEST, |late| late.within)
}

fn loss(name: &Arc<str>, rejected: &Rejected, reason: &str) -> Loss {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative, and saturating")]
    let count = rejected.parts.ceil().max(1.0) as u64;
    Loss { source: name.clone(), from: rejected.at, to: rejected.at, count, reason: reason.into() }
}
