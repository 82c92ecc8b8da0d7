//! The time of a window in pieces, each of one state, one stretch of the plan, one reason and one piece of work: what figures
//! add up, and what an explanation lists.

use std::iter::Peekable;
use std::sync::Arc;

use gemba_drivers::Time;

use crate::model::losses::{Bucket, UNASSIGNED, is_stop};
use crate::model::setting::Setting;
use crate::model::timeline::{Facts, Work};
use crate::model::window::Stretch;
use crate::model::{Reason, State};

/// A stretch of time in which nothing changes: state, plan, work, what people said, the ideal cycle time.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece<'a> {
    /// Its beginning.
    pub from: Time,
    /// Its end; not part of it.
    pub to: Time,
    /// What the machine said; the plan's breaks are `break` and the time between shifts `no_shift`, whatever it said.
    pub state: State,
    /// Where its time belongs; unknown time belongs nowhere.
    pub bucket: Option<Bucket>,
    /// Why it stood, if it did and somebody or something said so. Downtime without a reason is `unassigned`.
    pub reason: Option<Arc<str>>,
    /// Somebody wanted it so.
    pub planned: bool,
    /// It belongs to a stop that is so short that it is slow running.
    pub micro: bool,
    /// What was worked on.
    pub work: Option<&'a Work>,
}

impl Piece<'_> {
    /// Its length in nanoseconds.
    #[must_use]
    pub fn length(&self) -> i64 {
        self.to.0 - self.from.0
    }
}

/// The pieces of a window, in order.
pub struct Pieces<'a, E: Iterator<Item = Time>> {
    facts: Facts<'a>,
    setting: Setting<'a>,
    at: Time,
    to: Time,
    /// Where knowledge ends: what holds there goes on to hold.
    known: Time,
    /// Of the state at `at`.
    place: usize,
    /// Where something else may begin.
    edges: Peekable<E>,
    /// The stop looked at last.
    stop: Option<Stop>,
}

/// A stop: from when the machine ceases to run until it runs again, whatever states it goes through.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Its states, as places among the facts.
    pub places: std::ops::Range<usize>,
    /// Its beginning.
    pub from: Time,
    /// Its end, or the end of knowledge.
    pub to: Time,
    /// It has ended.
    pub over: bool,
    /// Its reason, as tags told it: the first out.
    pub reason: Option<Arc<str>>,
    /// It was down at any time.
    pub down: bool,
}

/// The pieces of the time from `from` to before `to`, where knowledge ends.
pub fn pieces<'a>(
    facts: Facts<'a>,
    setting: Setting<'a>,
    from: Time,
    to: Time,
) -> Pieces<'a, impl Iterator<Item = Time> + use<'a>> {
    pieces_of(facts, setting, Stretch::closed(from, to))
}

/// The pieces of a stretch of time. What holds at the end of the facts goes on to hold.
pub fn pieces_of<'a>(
    facts: Facts<'a>,
    setting: Setting<'a>,
    stretch: Stretch,
) -> Pieces<'a, impl Iterator<Item = Time> + use<'a>> {
    let Stretch { from, to, known, .. } = stretch;
    let at = facts.begin().map_or(to, |begin| begin.max(from));
    let mut edges: Vec<Time> = facts.runs().map(|run| run.from).collect();
    edges.extend(facts.assigned().flat_map(|assigned| [assigned.from, assigned.to]));
    let products = setting.knowledge.products.iter();
    edges.extend(products.flat_map(|product| product.ideal_cycle_time.iter().map(|&(valid_from, _)| valid_from)));
    edges.retain(|&edge| at < edge && edge < to);
    edges.sort_unstable();
    Pieces { facts, setting, at, to, known, place: facts.place(at), edges: edges.into_iter().peekable(), stop: None }
}

impl<'a, E: Iterator<Item = Time>> Iterator for Pieces<'a, E> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.at >= self.to {
            return None;
        }
        let span = self.facts.span(self.place)?;
        let (from, end) = (self.at, self.facts.end(self.place, self.to));
        let slot = self.setting.slot(from);
        while self.edges.next_if(|&edge| edge <= from).is_some() {}
        let edge = self.edges.peek().copied().unwrap_or(self.to);
        let to = end.min(slot.until).min(edge).min(self.to);
        let state = match (&slot.shift, slot.planned) {
            (Some(_), true) => span.state,
            (Some(_), false) => State::Break,
            (None, _) => State::NoShift,
        };
        let place = self.place;
        self.at = to;
        if to >= end {
            self.place += 1;
        }
        let work = self.facts.work(from);
        let mut piece = Piece { from, to, state, bucket: None, reason: None, planned: false, micro: false, work };
        if state != State::Unknown {
            piece.bucket = Some(self.setting.spec.losses.bucket(state));
        }
        if is_stop(state) {
            self.judge(place, &mut piece);
        }
        Some(piece)
    }
}

impl<E: Iterator<Item = Time>> Pieces<'_, E> {
    /// What is known of the stop that a piece belongs to.
    fn judge(&mut self, place: usize, piece: &mut Piece<'_>) {
        let (facts, setting) = (self.facts, self.setting);
        let stop = match self.stop.take() {
            Some(stop) if stop.places.contains(&place) => stop,
            _ => Stop::around(facts, setting, place, self.known),
        };
        let code = facts.assigned_at(piece.from).unwrap_or(stop.reason.as_ref());
        let reason = code.and_then(|code| setting.reason(code));
        piece.planned = reason.is_some_and(|reason| reason.planned);
        if let Some(bucket) = reason.and_then(|reason| reason.bucket) {
            piece.bucket = Some(bucket);
        }
        let short = setting.spec.micro_stops.as_ref().is_some_and(|micro| {
            micro.states.contains(&piece.state)
                && u128::try_from(stop.to.0 - stop.from.0).is_ok_and(|length| length < micro.limit.as_nanos())
        });
        if short && piece.bucket == Some(Bucket::Availability) {
            piece.bucket = Some(Bucket::Performance);
            piece.micro = true;
        }
        piece.reason = code.cloned().or_else(|| (piece.state == State::Down).then(|| UNASSIGNED.into()));
        self.stop = Some(stop);
    }
}

impl Stop {
    /// The stop that the state at `place` belongs to; knowledge ends at `now`.
    pub fn around(facts: Facts<'_>, setting: Setting<'_>, place: usize, now: Time) -> Self {
        let stands = |place: &usize| facts.span(*place).is_some_and(|span| is_stop(span.state));
        let first = (0..place).rev().take_while(stands).last().unwrap_or(place);
        let last = (place + 1..).take_while(stands).last().unwrap_or(place);
        let from = facts.span(first).map_or(now, |span| span.from);
        let over = facts.span(last + 1).is_some();
        let to = facts.end(last, now.max(from));
        let down = (first..=last).any(|place| facts.span(place).is_some_and(|span| span.state == State::Down));
        let reason = setting.spec.reason.as_ref().and_then(|spec| facts.first_out(from, to, spec.first_out));
        Self { places: first..last + 1, from, to, over, reason, down }
    }

    /// Nanoseconds of it in `state` from `from` to before `to`, whatever the plan.
    pub fn time_in(&self, state: State, facts: Facts<'_>, from: Time, to: Time) -> i64 {
        let places = self.places.clone();
        let spans = places.filter_map(|place| Some((facts.span(place)?, facts.end(place, self.to))));
        let of = spans.filter(|(span, _)| span.state == state);
        of.map(|(span, end)| (end.min(to).0 - span.from.max(from).0).max(0)).sum()
    }

    /// Whether it is a failure: its reason says so, or it was down and no reason denies it.
    pub fn is_failure(&self, facts: Facts<'_>, setting: Setting<'_>) -> bool {
        let code = facts.assigned_at(self.from).unwrap_or(self.reason.as_ref());
        let said = code.and_then(|code| setting.reason(code)).and_then(|reason: &Reason| reason.is_failure);
        said.unwrap_or(self.down)
    }
}
