//! What happens to readings between a driver and the pipeline, for every protocol alike.
//!
//! In this order, and only what a tag's options ask for:
//!
//! 1. whose clock is to be believed ([`clock`]),
//! 2. `scale`, `offset` and `clamp` ([`linear`]),
//! 3. tags that are computed from others ([`derive`](mod@derive)), which then go the same way,
//! 4. what need not be told: `on_change`, `deadband`, `min_interval` ([`filter`]), `compress` ([`door`]).
//!
//! Beside it stands freshness ([`fresh`]): what came counts there before anything is left out. A reading that is left
//! out is no loss, since the configuration asked for it, but it is counted ([`Suppressed`]).
//!
//! A tag without any of these options costs one look into a table. All of it belongs to one link, does no I/O, and takes
//! time as a parameter; [`Outlet`](crate::Outlet) applies it and the supervisor minds its timers.

mod agenda;
pub mod clock;
mod derive;
mod door;
pub mod expression;
mod filter;
mod fresh;
mod linear;
mod suppressed;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::agenda::{Agenda, Due};
use self::clock::Skew;
use self::derive::Derived;
use self::door::Door;
pub use self::expression::Expression;
use self::filter::Filter;
use self::fresh::Fresh;
pub use self::suppressed::{Reason, Suppressed};
use crate::{Reading, Rung, Stale, TagId, Time, Value};

/// What a tag's readings go through. Without any of it the tag has none of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The value times this.
    pub scale: Option<f64>,
    /// And this added.
    pub offset: Option<f64>,
    /// Its least and its greatest value.
    pub clamp: Option<(f64, f64)>,
    /// Is told only if it differs by more than this from what was told last.
    pub deadband: Option<f64>,
    /// Is told at most once in so long.
    pub min_interval: Option<Duration>,
    /// Is told only if it changed.
    pub on_change: bool,
    /// Swinging door.
    pub compress: Option<Compress>,
    /// Is bad when nothing came for so long.
    pub max_age: Option<Duration>,
    /// Is not read but computed.
    pub derived: Option<Formula>,
}

/// Swinging-door compression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compress {
    /// How far a reading that is left out may lie from the straight line between its kept neighbours.
    pub deviation: f64,
    /// One is kept at least so often.
    pub max_gap: Duration,
}

/// An expression, with the tags that it is computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula {
    /// The expression.
    pub expression: Arc<Expression>,
    /// In the order of [`Expression::inputs`].
    pub inputs: Vec<TagId>,
}

/// What is to be done on one link.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Its stations.
    pub stations: Vec<Station>,
}

/// One station of it.
#[derive(Clone, Debug)]
pub struct Station {
    /// For counts and log lines.
    pub name: Arc<str>,
    /// The numbers of all of its tags.
    pub tags: Range<u32>,
    /// Those that have options.
    pub treated: Vec<(TagId, Options)>,
    /// How far the source's clock may be from the gateway's.
    pub max_clock_skew: Option<Duration>,
}

/// The treatment of one link's readings, and its state.
#[derive(Debug)]
pub struct Treatment {
    /// From a tag's number, less that of the first one here, to its slot; [`NONE`] for a tag that is left as it is.
    places: Box<[u32]>,
    first: u32,
    slots: Box<[Slot]>,
    skews: Box<[Skew]>,
    /// In an order in which each comes after those that it is computed from.
    derived: Box<[Derived]>,
    agenda: Agenda,
    suppressed: Arc<Suppressed>,
    /// Whether the link is up: silence counts only then.
    up: bool,
    /// Since when nothing live can come, for the driver reads history.
    paused: Option<Instant>,
    /// Something came from the device since it came up.
    flowed: bool,
    /// What the driver is to be told, a rung each.
    silent: [BTreeSet<TagId>; 3],
    scratch: Vec<Reading>,
}

const NONE: u32 = u32::MAX;

/// A tag that is treated.
#[derive(Debug)]
struct Slot {
    tag: TagId,
    station: u32,
    linear: Option<linear::Linear>,
    gate: Gate,
    fresh: Option<Box<Fresh>>,
    /// Place in [`Treatment::skews`].
    skew: Option<u32>,
    /// The derived tags that it goes into.
    feeds: Box<[u32]>,
    /// It is computed itself.
    computed: bool,
}

/// What decides whether a reading is told.
#[derive(Debug)]
enum Gate {
    Open,
    Filter(Box<Filter>),
    Door(Box<Door>),
}

impl Treatment {
    /// For what `plan` says; `None` if it says nothing.
    #[must_use]
    pub fn new(plan: &Plan) -> Option<Self> {
        let mut slots = Vec::new();
        let mut skews = Vec::new();
        let mut formulas = Vec::new();
        let nothing = Options::default();
        for (at, station) in (0..).zip(&plan.stations) {
            let skew = station.max_clock_skew.map(|most| {
                skews.push(Skew::new(Arc::clone(&station.name), most));
                u32::try_from(skews.len() - 1).unwrap_or(NONE)
            });
            let treated: BTreeMap<TagId, &Options> =
                station.treated.iter().map(|(tag, options)| (*tag, options)).collect();
            let inputs = treated.values().filter_map(|options| options.derived.as_ref()).flat_map(|it| &it.inputs);
            let judged = skew.iter().flat_map(|_| station.tags.clone().map(TagId));
            let concerned: BTreeSet<TagId> = treated.keys().chain(inputs).copied().chain(judged).collect();
            for tag in concerned {
                let options = treated.get(&tag).copied().unwrap_or(&nothing);
                if let Some(formula) = &options.derived {
                    formulas.push((tag, formula));
                }
                slots.push(Slot {
                    tag,
                    station: at,
                    linear: linear::Linear::new(options),
                    gate: Gate::new(options),
                    fresh: options.max_age.map(|age| Box::new(Fresh::new(age))),
                    skew,
                    feeds: Box::default(),
                    computed: options.derived.is_some(),
                });
            }
        }
        if slots.is_empty() {
            return None;
        }
        slots.sort_by_key(|slot| slot.tag);
        let first = slots[0].tag.0;
        let mut places = vec![NONE; slots.last().map_or(0, |slot| (slot.tag.0 - first) as usize + 1)];
        for (at, slot) in (0..).zip(&slots) {
            places[(slot.tag.0 - first) as usize] = at;
        }
        let derived = derive::in_order(&formulas);
        for (at, one) in (0..).zip(&derived) {
            for input in one.inputs() {
                let slot = &mut slots[places[(input.0 - first) as usize] as usize];
                slot.feeds = slot.feeds.iter().copied().chain([at]).collect();
            }
        }
        Some(Self {
            places: places.into(),
            first,
            slots: slots.into(),
            skews: skews.into(),
            derived: derived.into(),
            agenda: Agenda::default(),
            suppressed: Suppressed::new(plan.stations.iter().map(|station| Arc::clone(&station.name))),
            up: false,
            paused: None,
            flowed: true,
            silent: Default::default(),
            scratch: Vec::new(),
        })
    }

    /// `value` of `tag` as it would be told: after `scale`, `offset` and `clamp`. `None` where it would be bad.
    #[must_use]
    pub fn scaled(&self, tag: TagId, value: Value) -> Option<Value> {
        let Some(linear) = self.place(tag).and_then(|at| self.slots[at].linear.as_ref()) else { return Some(value) };
        let mut reading = Reading::good(tag, value, Time::default(), Time::default());
        linear.apply(&mut reading);
        (!reading.validity.is_bad()).then_some(reading.value)
    }

    /// What was left out so far.
    #[must_use]
    pub fn suppressed(&self) -> Arc<Suppressed> {
        Arc::clone(&self.suppressed)
    }

    /// Treats what arrived together; what is left of it is to be told. Says whether the next timer is now an earlier one.
    pub fn apply(&mut self, readings: &mut Vec<Reading>, now: Instant) -> bool {
        self.flowed |= readings.iter().any(fresh::is_sign_of_life);
        if readings.iter().all(|reading| self.place(reading.tag).is_none()) {
            return false;
        }
        let before = self.agenda.next();
        let mut told = std::mem::take(&mut self.scratch);
        for reading in readings.drain(..) {
            // Each instant of history is computed by itself.
            let history = reading.backfilled;
            match self.place(reading.tag) {
                None => told.push(reading),
                Some(at) => self.treat(at, reading, now, &mut told),
            }
            if history {
                self.compute(now, &mut told);
            }
        }
        self.compute(now, &mut told);
        self.scratch = std::mem::replace(readings, told);
        self.agenda.next() != before
    }

    /// When a timer is due, if any is set.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// What is due by `now`: what was held back, and tags that fell silent.
    pub fn tend(&mut self, now: Instant, wall: Time, told: &mut Vec<Reading>) {
        while let Some((at, due)) = self.agenda.pop(now) {
            let slot = &mut self.slots[at as usize];
            match due {
                Due::Release => {
                    let again = match &mut slot.gate {
                        Gate::Open => None,
                        Gate::Filter(filter) => filter.release(now, told),
                        Gate::Door(door) => door.release(now, told),
                    };
                    if let Some(again) = again {
                        self.agenda.set(again, at, Due::Release);
                    }
                }
                Due::Age => self.look_at_age(at, now, wall, told),
            }
        }
        self.compute(now, told);
    }

    /// Whatever is held back, since the link or the agent ends.
    pub fn flush(&mut self, told: &mut Vec<Reading>) {
        for slot in &mut self.slots {
            match &mut slot.gate {
                Gate::Open => {}
                Gate::Filter(filter) => filter.flush(told),
                Gate::Door(door) => door.flush(told),
            }
        }
    }

    /// The link is up: from now on silence counts.
    pub fn begin(&mut self, now: Instant, wall: Time) {
        (self.up, self.paused) = (true, None);
        self.silent = Default::default();
        // A link that brought nothing at all climbs anew; one that did does not, for the sake of what it brings.
        let anew = !std::mem::replace(&mut self.flowed, false);
        for (at, slot) in (0..).zip(&mut self.slots) {
            if let Some(due) = slot.fresh.as_mut().and_then(|fresh| fresh.begin(now, wall, anew)) {
                self.agenda.set(due, at, Due::Age);
            }
        }
    }

    /// The link is down, which says enough.
    pub fn end(&mut self) {
        self.up = false;
        self.silent = Default::default();
    }

    /// Nothing live can come: until [`Treatment::resume`] silence does not count.
    pub fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    /// Silence counts again, as if no time had passed.
    pub fn resume(&mut self, now: Instant) {
        let Some(since) = self.paused.take() else { return };
        let after = now.saturating_duration_since(since);
        for (at, slot) in (0..).zip(&mut self.slots) {
            if let Some(due) = slot.fresh.as_mut().and_then(|fresh| fresh.resume(after, now)) {
                self.agenda.set(due, at, Due::Age);
            }
        }
    }

    /// The device vouched for these tags. Those for which that is not enough, since they turned bad by their age.
    pub fn confirm(&mut self, tags: &[TagId], now: Instant, wall: Time) -> Vec<TagId> {
        let mut bad = tags.to_vec();
        bad.retain(|tag| {
            let fresh = self.place(*tag).and_then(|at| self.slots[at].fresh.as_mut());
            fresh.is_some_and(|fresh| !fresh.confirm(now, wall))
        });
        bad
    }

    /// The tags that the driver has not been told of yet and that are still silent: the highest rung first.
    pub fn silent(&mut self) -> Option<Stale> {
        [Rung::Reconnect, Rung::Renew, Rung::Look].into_iter().find_map(|rung| {
            let mut tags: Vec<TagId> = std::mem::take(&mut self.silent[rung as usize]).into_iter().collect();
            tags.retain(|tag| self.stands_on(*tag, rung));
            (!tags.is_empty()).then_some(Stale { tags, rung })
        })
    }

    /// Whether nothing has come for the tag since it climbed to `rung`, and it climbed no further.
    fn stands_on(&self, tag: TagId, rung: Rung) -> bool {
        let fresh = self.place(tag).and_then(|at| self.slots[at].fresh.as_ref());
        fresh.is_some_and(|fresh| fresh.rung() == Some(rung))
    }

    /// Whether there is any.
    #[must_use]
    pub fn has_silent(&self) -> bool {
        self.silent.iter().any(|tags| !tags.is_empty())
    }

    fn place(&self, tag: TagId) -> Option<usize> {
        let place = *self.places.get(tag.0.checked_sub(self.first)? as usize)?;
        (place != NONE).then_some(place as usize)
    }

    fn treat(&mut self, at: usize, mut reading: Reading, now: Instant, told: &mut Vec<Reading>) {
        let slot = &mut self.slots[at];
        // History says nothing of now: not of clocks, not of silence, and nobody asked for less of it.
        let live = !reading.backfilled;
        if let Some(skew) = slot.skew.filter(|_| live && !slot.computed) {
            self.skews[skew as usize].judge(&mut reading, now);
        }
        if let Some(linear) = &slot.linear {
            linear.apply(&mut reading);
        }
        if let Some(fresh) = slot.fresh.as_mut().filter(|_| live) {
            if fresh.is_stale() && fresh::may_be_old(&reading) {
                return; // what is too old stays so
            }
            fresh.heard(&reading, now);
        }
        for derived in &slot.feeds {
            self.derived[*derived as usize].take(&reading);
        }
        if !live {
            told.push(reading);
            return;
        }
        let (left_out, due) = match &mut slot.gate {
            Gate::Open => {
                told.push(reading);
                (None, None)
            }
            Gate::Filter(filter) => filter.offer(reading, now, told),
            Gate::Door(door) => door.offer(reading, now, told),
        };
        if let Some(reason) = left_out {
            self.suppressed.count(slot.station, reason);
        }
        if let Some(due) = due {
            self.agenda.set(due, u32::try_from(at).unwrap_or(NONE), Due::Release);
        }
    }

    /// Each derived tag once, after all of its inputs.
    fn compute(&mut self, now: Instant, told: &mut Vec<Reading>) {
        for at in 0..self.derived.len() {
            if let Some(reading) = self.derived[at].compute()
                && let Some(place) = self.place(reading.tag)
            {
                self.treat(place, reading, now, told);
            }
        }
    }

    fn look_at_age(&mut self, at: u32, now: Instant, wall: Time, told: &mut Vec<Reading>) {
        let slot = &mut self.slots[at as usize];
        let (tag, computed) = (slot.tag, slot.computed);
        let Some(fresh) = &mut slot.fresh else { return };
        if !self.up || self.paused.is_some() {
            fresh.rest();
            return;
        }
        let look = fresh.look(now);
        if let Some(due) = look.again {
            self.agenda.set(due, at, Due::Age);
        }
        if let Some(rung) = look.rung.filter(|_| !computed) {
            self.silent[rung as usize].insert(tag);
        }
        if let Some(since) = look.stale {
            let bad = Reading::bad(tag, crate::Status::Own(crate::OwnStatus::Stale), since, since.max(wall));
            self.treat(at as usize, bad, now, told);
        }
    }
}

impl Gate {
    fn new(options: &Options) -> Self {
        if let Some(compress) = options.compress {
            return Self::Door(Box::new(Door::new(compress)));
        }
        match Filter::new(options) {
            Some(filter) => Self::Filter(Box::new(filter)),
            None => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests;
