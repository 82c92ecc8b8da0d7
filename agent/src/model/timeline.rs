//! What is known of a station: facts, each with its time. Every figure is a function of them and of a window
//! ([`crate::model::tally`]), so that what comes late changes all that it touches, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::State;
use crate::model::losses::is_stop;
use crate::model::packed;
use crate::model::period::Count;

/// What was counted is kept to the minute: a lot that somebody moves by hand afterwards takes whole minutes with it.
const GRAIN: i64 = 60_000_000_000;

/// The facts of one station, from where they are kept on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    #[serde(with = "packed::spans")]
    spans: Vec<Span>,
    #[serde(with = "packed::made")]
    made: Vec<Made>,
    runs: Vec<Run>,
    blames: Vec<Blame>,
    assigned: Vec<Assigned>,
    /// How often anybody said why it stood.
    words: u64,
    defects: Vec<Defect>,
    late: Vec<LateReject>,
}

/// A tag told why the machine stands, or that nothing is the matter any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blame {
    /// When.
    pub at: Time,
    /// Which of the tags that tell reasons.
    pub tag: u32,
    /// The reason's code.
    pub code: Option<Arc<str>>,
}

/// Somebody said why the machine stood for a while. What was said last counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assigned {
    /// From when.
    pub from: Time,
    /// Until when; not part of it.
    pub to: Time,
    /// The reason's code; none takes back what tags or people said.
    pub code: Option<Arc<str>>,
    /// Which word on reasons of this station it is. [`Timeline::assign`] says so.
    pub word: u64,
}

/// Somebody counted parts that the counters took for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Defect {
    /// When they were made.
    pub at: Time,
    /// What was wrong with them.
    pub code: Arc<str>,
    /// How many; fewer than none corrects what was said before.
    pub parts: f64,
}

/// A later station rejected what was made here. It follows from what [`crate::model::late::Late`] holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LateReject {
    /// When it was made.
    pub at: Time,
    /// Which station rejected it.
    pub station: Arc<str>,
    /// What was wrong with it.
    pub code: Arc<str>,
    /// How many parts.
    pub parts: f64,
}

/// From when on a state held: until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its beginning.
    pub from: Time,
    /// What the machine did.
    pub state: State,
    /// The last time that the machine said so.
    pub confirmed: Time,
}

/// What a counter added: of one minute, of one state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// The counter's reading before the first of these parts.
    pub since: Time,
    /// The reading that showed the first of them.
    pub at: Time,
    /// Which counter.
    pub count: Count,
    /// How many.
    pub parts: f64,
    /// The counter itself was bad between the two.
    pub gap: bool,
}

/// From when on the station worked on something: until the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its beginning.
    pub from: Time,
    /// On what.
    pub work: Work,
}

/// What a station works on; `None` is nothing, or nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The product.
    pub product: Option<Arc<str>>,
    /// The lot.
    pub lot: Option<Arc<str>>,
    /// The order.
    pub order: Option<Arc<str>>,
    /// The time between two parts that a person asked for; none is that of the product.
    pub takt: Option<Duration>,
}

impl Timeline {
    /// Begins at `first`, with nothing known.
    pub fn begin(&mut self, first: Time) {
        debug_assert!(self.spans.is_empty(), "a station begins once");
        self.spans.push(Span { from: first, state: State::Unknown, confirmed: first });
    }

    /// The state that holds at the end, and since when. Nothing before the beginning.
    pub fn state(&self) -> Option<Span> {
        self.spans.last().copied()
    }

    /// The state that held at `at`, and since when.
    pub fn state_at(&self, at: Time) -> Option<Span> {
        self.spans.get(self.span_at(at)).copied()
    }

    /// The machine was `state` from `at` on, until what is known of later. Returns what it was before, if that is news.
    pub fn say(&mut self, at: Time, state: State) -> Option<State> {
        let place = self.span_at(at);
        let held = self.spans.get_mut(place)?;
        let at = at.max(held.from);
        if held.state == state {
            held.confirmed = held.confirmed.max(at);
            return None;
        }
        let before = held.state;
        let next = self.spans.get(place + 1).filter(|next| next.state == state).copied();
        let span = Span { from: at, state, confirmed: next.map_or(at, |next| next.confirmed) };
        if self.spans[place].from == at {
            self.spans[place] = span;
            let merges = place.checked_sub(1).is_some_and(|left| self.spans[left].state == state);
            if merges {
                self.spans[place - 1].confirmed = span.confirmed;
                self.spans.remove(place);
            }
            if next.is_some() {
                self.spans.remove(place + usize::from(!merges));
            }
        } else if next.is_some() {
            self.spans[place + 1] = span;
        } else {
            self.spans.insert(place + 1, span);
        }
        Some(before)
    }

    /// Parts were counted. Since `same` nothing has changed outside of these facts that matters to them, such as the plan.
    pub fn count(&mut self, new: Made, same: Time) {
        let place = self.made.partition_point(|made| made.at <= new.at);
        // The counters of a station take turns: the one of before stands near.
        let near = self.made[place.saturating_sub(8)..place].iter_mut().rev();
        let minute = new.at.0.div_euclid(GRAIN);
        let mut near = near.take_while(|made| made.at.0.div_euclid(GRAIN) == minute && made.at >= same);
        let held = near.find(|made| made.count == new.count && !made.gap);
        if let Some(held) = held.filter(|_| !new.gap) {
            // What follows a gap of the state is of known time again, and kept apart from what came with its end.
            let since = held.since;
            let turned = |from: Option<Time>| from.is_some_and(|from| from > since);
            let span = self.spans.partition_point(|span| span.from <= new.at).checked_sub(1);
            let run = self.runs.partition_point(|run| run.from <= new.at).checked_sub(1);
            if !turned(span.map(|span| self.spans[span].from)) && !turned(run.map(|run| self.runs[run].from)) {
                held.parts += new.parts;
                return;
            }
        }
        self.made.insert(place, new);
    }

    /// The station works on something else from `at` on. Returns whether that is news.
    pub fn work(&mut self, at: Time, change: impl FnOnce(&mut Work)) -> bool {
        let place = self.runs.partition_point(|run| run.from <= at);
        let mut work = place.checked_sub(1).map_or_else(Work::default, |before| self.runs[before].work.clone());
        let before = work.clone();
        change(&mut work);
        if work == before {
            return false;
        }
        // What is known of later goes on to hold, but for what it only had from before.
        let mut later = self.runs[place..].iter_mut().map(|run| &mut run.work);
        let (mut product, mut lot, mut order, mut takt) = (true, true, true, true);
        while let Some(later) = later.next().filter(|_| product || lot || order || takt) {
            product = product && pass_on(&mut later.product, &before.product, &work.product);
            lot = lot && pass_on(&mut later.lot, &before.lot, &work.lot);
            order = order && pass_on(&mut later.order, &before.order, &work.order);
            takt = takt && pass_on(&mut later.takt, &before.takt, &work.takt);
        }
        match place.checked_sub(1).map(|before| &mut self.runs[before]).filter(|run| run.from == at) {
            Some(run) => run.work = work,
            None => self.runs.insert(place, Run { from: at, work }),
        }
        true
    }

    /// A tag told why the machine stands. Returns whether that is news.
    pub fn blame(&mut self, blame: Blame) -> bool {
        let place = self.blames.partition_point(|held| held.at <= blame.at);
        let before = self.blames[..place].iter().rev().find(|held| held.tag == blame.tag);
        let news = before.and_then(|held| held.code.as_ref()) != blame.code.as_ref();
        if news {
            self.blames.insert(place, blame);
        }
        news
    }

    /// Somebody said why the machine stood.
    pub fn assign(&mut self, assigned: Assigned) {
        self.words += 1;
        self.assigned.push(Assigned { word: self.words, ..assigned });
    }

    /// Somebody counted rejects.
    pub fn reject(&mut self, defect: Defect) {
        let place = self.defects.partition_point(|held| held.at <= defect.at);
        self.defects.insert(place, defect);
    }

    /// What later stations rejected is this, in order of time. Returns the earliest time of which that says something else.
    pub fn reject_late(&mut self, late: Vec<LateReject>) -> Option<Time> {
        let same = self.late.iter().zip(&late).take_while(|(one, other)| one == other).count();
        let earliest = [&self.late, &late].into_iter().filter_map(|of| of.get(same)).map(|of| of.at).min();
        self.late = late;
        earliest
    }

    /// The last time from `from` to before `to` at which one of the counters that `is_part` names counted.
    pub fn last_counted(&self, from: Time, to: Time, is_part: impl Fn(Count) -> bool) -> Option<Time> {
        let before = &self.made[..self.made.partition_point(|made| made.at < to)];
        let within = before.iter().rev().take_while(|made| made.at >= from);
        within.into_iter().find(|made| is_part(made.count)).map(|made| made.at)
    }

    /// What it worked on, in order of time, with when it ended; the last goes on.
    pub fn runs(&self) -> impl Iterator<Item = (&Run, Time)> {
        let ends = self.runs.iter().skip(1).map(|next| next.from).chain([Time(i64::MAX)]);
        self.runs.iter().zip(ends)
    }

    /// How much is held that only people tell.
    pub fn by_hand(&self) -> usize {
        self.assigned.len() + self.defects.len()
    }

    /// What it works on at the end.
    pub fn working_on(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// When the stop began that lasts just before `at`.
    pub fn stop_before(&self, at: Time) -> Option<Time> {
        let before = self.spans[..self.spans.partition_point(|span| span.from < at)].iter().rev();
        before.take_while(|span| is_stop(span.state)).last().map(|span| span.from)
    }

    /// Up to where facts may be forgotten instead of `until`, so that a stop which goes on then is still known for what it is:
    /// how long it lasts, and what tags told `near` its beginning.
    pub fn cut(&self, until: Time, near: Duration) -> Time {
        let Some(stop) = self.stop_before(until) else { return until };
        self.stop_before(stop - near).unwrap_or(stop - near)
    }

    /// Nanoseconds of run time after `since` and up to `until`.
    pub fn run_time(&self, since: Time, until: Time) -> i64 {
        let (mut spent, mut end) = (0, until);
        for span in self.spans.iter().rev() {
            if end <= since {
                break;
            }
            if span.from < end {
                spent += if span.state.is_run() { end.0 - span.from.max(since).0 } else { 0 };
                end = span.from;
            }
        }
        spent
    }

    /// Forgets what lies before `begin`. What held then goes on to hold.
    pub fn forget(&mut self, begin: Time) {
        let spans = self.span_at(begin);
        self.spans.drain(..spans);
        if let Some(first) = self.spans.first_mut() {
            first.from = first.from.max(begin);
        }
        self.made.drain(..self.made.partition_point(|made| made.at < begin));
        self.runs.drain(..self.runs.partition_point(|run| run.from <= begin).saturating_sub(1));
        // The last word of each tag goes on to hold.
        let old = self.blames.partition_point(|blame| blame.at < begin);
        let mut heard = std::collections::BTreeSet::new();
        let mut kept: Vec<Blame> =
            self.blames[..old].iter().rev().filter(|blame| heard.insert(blame.tag)).cloned().collect();
        kept.reverse();
        self.blames.splice(..old, kept);
        self.assigned.retain(|assigned| assigned.to > begin);
        self.defects.drain(..self.defects.partition_point(|defect| defect.at < begin));
        self.late.drain(..self.late.partition_point(|late| late.at < begin));
    }

    /// What it would forget before `begin`, for an archive.
    pub fn old(&self, begin: Time) -> Self {
        let spans = self.spans.len().min(self.span_at(begin) + 1);
        Self {
            spans: self.spans[..spans].into(),
            made: self.made[..self.made.partition_point(|made| made.at < begin)].into(),
            runs: self.runs[..self.runs.partition_point(|run| run.from <= begin)].into(),
            blames: self.blames[..self.blames.partition_point(|blame| blame.at < begin)].into(),
            assigned: self.assigned.iter().filter(|assigned| assigned.to <= begin).cloned().collect(),
            words: self.words,
            defects: self.defects[..self.defects.partition_point(|defect| defect.at < begin)].into(),
            late: self.late[..self.late.partition_point(|late| late.at < begin)].into(),
        }
    }

    /// Goes on with `later`, which was kept when this was forgotten; what it still holds of before is not held twice.
    pub fn go_on(&mut self, later: Self) {
        for span in later.spans {
            match self.spans.last_mut() {
                Some(last) if last.state == span.state => last.confirmed = last.confirmed.max(span.confirmed),
                _ => self.spans.push(span),
            }
        }
        let known = later.runs.first().map_or(0, |first| self.runs.partition_point(|run| run.from < first.from));
        self.runs.truncate(if later.runs.is_empty() { self.runs.len() } else { known });
        self.runs.extend(later.runs);
        self.made.extend(later.made);
        for blame in later.blames {
            // It stands last, but for what was told late and what is held twice.
            let place = self.blames.partition_point(|held| held.at <= blame.at);
            let twice =
                self.blames[..place].iter().rev().take_while(|held| held.at == blame.at).any(|held| *held == blame);
            if !twice {
                self.blames.insert(place, blame);
            }
        }
        // What reaches far was archived late, and may have been said early: what was said last counts.
        let first = later.assigned.iter().map(|assigned| assigned.word).min().unwrap_or(u64::MAX);
        let joined = self.assigned.partition_point(|assigned| assigned.word < first);
        self.assigned.extend(later.assigned);
        self.assigned[joined..].sort_by_key(|assigned| assigned.word);
        self.words = later.words;
        self.defects.extend(later.defects);
        self.late.extend(later.late);
    }

    /// All of it.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            spans: (&self.spans, &[]),
            made: (&self.made, &[]),
            runs: (&self.runs, &[]),
            blames: (&self.blames, &[]),
            assigned: &self.assigned,
            defects: &self.defects,
            late: &self.late,
        }
    }

    /// A copy of its end, for what is not settled yet: from the state that held at `at` on. [`Timeline::before`] is the rest.
    pub fn end(&self, at: Time) -> Self {
        let spans = self.span_at(at);
        let from = self.spans.get(spans).map_or(at, |span| span.from);
        let made = self.made.partition_point(|made| made.at < from);
        let runs = self.runs.partition_point(|run| run.from < from).saturating_sub(1);
        let blames = self.blames.partition_point(|blame| blame.at < from);
        Self {
            spans: self.spans[spans..].into(),
            made: self.made[made..].into(),
            runs: self.runs[runs..].into(),
            blames: self.blames[blames..].into(),
            assigned: Vec::new(),
            words: self.words,
            defects: Vec::new(),
            late: Vec::new(),
        }
    }

    /// What stands in this one before `end` begins, and then `end`.
    pub fn before<'a>(&'a self, end: &'a Self) -> Facts<'a> {
        let Some(cut) = end.spans.first().map(|span| span.from) else { return self.facts() };
        let spans = &self.spans[..self.spans.partition_point(|span| span.from < cut)];
        let made = &self.made[..self.made.partition_point(|made| made.at < cut)];
        let first = end.runs.first().map_or(cut, |run| run.from);
        let runs = &self.runs[..self.runs.partition_point(|run| run.from < first)];
        let blames = &self.blames[..self.blames.partition_point(|blame| blame.at < cut)];
        Facts {
            spans: (spans, &end.spans),
            made: (made, &end.made),
            runs: (runs, &end.runs),
            blames: (blames, &end.blames),
            assigned: &self.assigned,
            defects: &self.defects,
            late: &self.late,
        }
    }

    /// Where the span stands that covers `at`; the first, if it is older than all of them.
    fn span_at(&self, at: Time) -> usize {
        match self.spans.last() {
            Some(last) if last.from <= at => self.spans.len() - 1,
            _ => self.spans.partition_point(|span| span.from <= at).saturating_sub(1),
        }
    }
}

/// What only went on to hold is now something else. Returns whether it did.
fn pass_on<T: Clone + PartialEq>(later: &mut Option<T>, before: &Option<T>, now: &Option<T>) -> bool {
    let went_on = later == before;
    if went_on {
        later.clone_from(now);
    }
    went_on
}

/// Facts to be looked at: what is settled, and what may still change.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    spans: (&'a [Span], &'a [Span]),
    made: (&'a [Made], &'a [Made]),
    runs: (&'a [Run], &'a [Run]),
    blames: (&'a [Blame], &'a [Blame]),
    assigned: &'a [Assigned],
    defects: &'a [Defect],
    late: &'a [LateReject],
}

impl<'a> Facts<'a> {
    /// Where they begin.
    pub fn begin(self) -> Option<Time> {
        self.span(0).map(|span| span.from)
    }

    /// How many states.
    pub fn spans(self) -> usize {
        self.spans.0.len() + self.spans.1.len()
    }

    /// The state at a place, in order of time.
    pub fn span(self, place: usize) -> Option<Span> {
        at(self.spans, place).copied()
    }

    /// Where the state ends that stands at a place; `now` if it goes on.
    pub fn end(self, place: usize, now: Time) -> Time {
        self.span(place + 1).map_or(now, |next| next.from)
    }

    /// The place of the state that covers `at`; the first, if it is older than all of them.
    pub fn place(self, at: Time) -> usize {
        partition_point(self.spans, |span| span.from <= at).saturating_sub(1)
    }

    /// Whether somebody knew the state all the time between the two.
    pub fn seen(self, since: Time, until: Time) -> bool {
        let mut place = self.place(until);
        let mut end = until;
        while let Some(span) = self.span(place) {
            if span.state == State::Unknown && span.from.max(since) < end {
                return false;
            }
            end = end.min(span.from);
            if end <= since || place == 0 {
                break;
            }
            place -= 1;
        }
        true
    }

    /// What was counted from `from` to before `to`, in order of time.
    pub fn made(self, from: Time, to: Time) -> impl Iterator<Item = &'a Made> {
        let first = partition_point(self.made, |made| made.at < from);
        (first..).map_while(move |place| at(self.made, place)).take_while(move |made| made.at < to)
    }

    /// The reason of a stop by what tags told: the first within `window` of its beginning, else the first while it lasted,
    /// else the first that was told before and still held. What was told before `ran`, when the stop before it ended, is of
    /// that one, unless it still held.
    pub fn first_out(self, (from, to): (Time, Time), ran: Time, window: Duration) -> Option<Arc<str>> {
        let told_by = |at: Time| partition_point(self.blames, |blame| blame.at < at);
        let told = |places: std::ops::Range<usize>| places.filter_map(|place| Some((place, at(self.blames, place)?)));
        let (begun, all) = (told_by(from), self.blames.0.len() + self.blames.1.len());
        let holds = |(place, blame): (usize, &Blame)| told(place + 1..begun).all(|(_, later)| later.tag != blame.tag);
        let near = || {
            let mut near = told(told_by(from - window)..all).take_while(|(_, blame)| blame.at <= from + window);
            near.find(|&(place, blame)| blame.code.is_some() && (blame.at >= ran || holds((place, blame))))
        };
        let during = || told(begun..told_by(to)).find(|(_, blame)| blame.code.is_some());
        let held = || {
            let mut heard = std::collections::BTreeSet::new();
            let last_words = told(0..begun).rev().filter(|(_, blame)| heard.insert(blame.tag));
            last_words.filter(|(_, blame)| blame.code.is_some()).last()
        };
        near().or_else(during).or_else(held)?.1.code.clone()
    }

    /// What people said of reasons, in the order in which they said it.
    pub fn assigned(self) -> impl Iterator<Item = &'a Assigned> {
        self.assigned.iter()
    }

    /// What people counted as rejects from `from` to before `to`, in order of time.
    pub fn defects(self, from: Time, to: Time) -> &'a [Defect] {
        let first = self.defects.partition_point(|defect| defect.at < from);
        let rest = &self.defects[first..];
        &rest[..rest.partition_point(|defect| defect.at < to)]
    }

    /// What later stations rejected of what was made from `from` to before `to`, in order of time.
    pub fn late(self, from: Time, to: Time) -> &'a [LateReject] {
        let rest = &self.late[self.late.partition_point(|late| late.at < from)..];
        &rest[..rest.partition_point(|late| late.at < to)]
    }

    /// What a person said last of why the machine stood at `at`; the outer `None` is that nobody said anything.
    pub fn assigned_at(self, at: Time) -> Option<Option<&'a Arc<str>>> {
        let said = self.assigned.iter().rev().find(|assigned| assigned.from <= at && at < assigned.to);
        said.map(|assigned| assigned.code.as_ref())
    }

    /// What it worked on at `at`.
    pub fn work(self, when: Time) -> Option<&'a Work> {
        let place = partition_point(self.runs, |run| run.from <= when).checked_sub(1)?;
        at(self.runs, place).map(|run| &run.work)
    }

    /// What it worked on, in order of time.
    pub fn runs(self) -> impl Iterator<Item = &'a Run> {
        self.runs.0.iter().chain(self.runs.1)
    }
}

fn at<'a, T>(parts: (&'a [T], &'a [T]), place: usize) -> Option<&'a T> {
    parts.0.get(place).or_else(|| parts.1.get(place.checked_sub(parts.0.len())?))
}

fn partition_point<T>(parts: (&[T], &[T]), before: impl Fn(&T) -> bool) -> usize {
    match parts.1.first() {
        Some(first) if before(first) => parts.0.len() + parts.1.partition_point(before),
        _ => parts.0.partition_point(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[(i64, State)]) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.begin(Time(0));
        for &(at, state) in said {
            timeline.say(Time(at), state);
        }
        timeline
    }

    fn states(timeline: &Timeline) -> Vec<(i64, State)> {
        timeline.spans.iter().map(|span| (span.from.0, span.state)).collect()
    }

    proptest::proptest! {
        /// Whatever is said in whatever order: states follow each other, none twice in a row; what is said changes nothing
        /// before its time, and nothing from the next change on.
        #[test]
        fn each_instant_has_one_state(said in proptest::collection::vec((0..40_i64, 0..4_usize), 0..30)) {
            let mut timeline = told(&[]);
            for (at, state) in said {
                let (at, state) = (Time(at), State::ALL[state]);
                let before = timeline.clone();
                let until = before.spans.iter().map(|span| span.from).find(|&from| from > at).unwrap_or(Time(50));
                let held = before.state_at(at).map(|span| span.state);
                proptest::prop_assert_eq!(timeline.say(at, state), held.filter(|&held| held != state));
                proptest::prop_assert!(timeline.spans.is_sorted_by(|one, next| one.from < next.from && one.state != next.state));
                for instant in (0..50).map(Time) {
                    let at_instant = |timeline: &Timeline| timeline.state_at(instant).map(|span| span.state);
                    let expected = if at <= instant && instant < until { Some(state) } else { at_instant(&before) };
                    proptest::prop_assert_eq!(at_instant(&timeline), expected, "{:?}", instant);
                }
            }
        }
    }

    #[test]
    fn late_news_holds_until_what_is_known_of_later() {
        let timeline = told(&[(10, State::Producing), (30, State::Down), (20, State::Starved)]);
        let expected = [(0, State::Unknown), (10, State::Producing), (20, State::Starved), (30, State::Down)];
        assert_eq!(states(&timeline), expected);
        let merged = told(&[(10, State::Producing), (30, State::Down), (20, State::Down)]);
        assert_eq!(states(&merged), [(0, State::Unknown), (10, State::Producing), (20, State::Down)]);
    }

    #[test]
    fn what_is_told_late_of_the_work_holds_until_it_is_told_again() {
        let mut timeline = told(&[]);
        let mut at = |at, change: fn(&mut Work)| timeline.work(Time(at), change);
        at(0, |work| work.product = Some("A".into()));
        at(20, |work| work.lot = Some("1".into()));
        at(30, |work| work.product = Some("C".into()));
        assert!(at(10, |work| work.product = Some("B".into())));
        assert!(!at(15, |work| work.product = Some("B".into())), "no news");
        let runs: Vec<_> = timeline.runs.iter().map(|run| (run.from.0, run.work.product.as_deref())).collect();
        assert_eq!(runs, [(0, Some("A")), (10, Some("B")), (20, Some("B")), (30, Some("C"))]);
    }

    #[test]
    fn a_copy_of_the_end_and_what_is_before_it_are_the_whole() {
        let mut whole = told(&[(10, State::Producing), (30, State::Down), (50, State::Producing)]);
        for at in [5, 15, 31, 32, 55] {
            whole.count(
                Made { since: Time(at - 1), at: Time(at), count: Count::Total, parts: 1.0, gap: false },
                Time(0),
            );
        }
        whole.work(Time(12), |work| work.lot = Some("A".into()));
        whole.work(Time(40), |work| work.lot = Some("B".into()));
        for at in [0, 9, 10, 29, 30, 45, 50, 99] {
            let mut end = whole.end(Time(at));
            let same = |facts: Facts<'_>| {
                let spans: Vec<Span> = (0..facts.spans()).filter_map(|place| facts.span(place)).collect();
                let made: Vec<Made> = facts.made(Time(0), Time(100)).copied().collect();
                (spans, made, facts.runs().cloned().collect::<Vec<_>>())
            };
            assert_eq!(same(whole.before(&end)), same(whole.facts()), "at {at}");
            end.say(Time(99), State::Idle);
            let mut longer = whole.clone();
            longer.say(Time(99), State::Idle);
            assert_eq!(same(whole.before(&end)), same(longer.facts()), "at {at}");
        }
    }

    #[test]
    fn what_was_forgotten_and_archived_goes_on_as_if_it_never_was() {
        let mut whole = told(&[(10, State::Producing), (30, State::Down), (50, State::Producing)]);
        for at in [5, 15, 31, 32, 55] {
            whole.count(
                Made { since: Time(at - 1), at: Time(at), count: Count::Total, parts: 1.0, gap: false },
                Time(0),
            );
        }
        whole.work(Time(12), |work| work.lot = Some("A".into()));
        whole.work(Time(40), |work| work.lot = Some("B".into()));
        whole.blame(Blame { at: Time(30), tag: 0, code: Some("jam".into()) });
        whole.blame(Blame { at: Time(35), tag: 1, code: Some("door".into()) });
        whole.blame(Blame { at: Time(50), tag: 0, code: None });
        // The first said reaches farthest, so it is archived last.
        for (from, to) in [(30, 58), (30, 35), (52, 53)] {
            whole.assign(Assigned { from: Time(from), to: Time(to), code: None, word: 0 });
        }
        for cuts in [[0, 12], [10, 30], [20, 40], [29, 31], [33, 60], [45, 50]] {
            let (mut archive, mut later) = (Timeline::default(), whole.clone());
            for cut in cuts {
                archive.go_on(later.old(Time(cut)));
                later.forget(Time(cut));
            }
            archive.go_on(later);
            let expected = Timeline { spans: archive.spans.clone(), ..whole.clone() };
            assert_eq!(archive, expected, "cut at {cuts:?}");
            assert_eq!(states(&archive), states(&whole), "cut at {cuts:?}");
        }
    }

    #[test]
    fn what_was_counted_is_kept_by_minute_and_state() {
        let mut timeline = told(&[(0, State::Producing)]);
        let second = 1_000_000_000;
        let mut count = |at: i64, which| {
            let parts = 2.0;
            let plan = Time(if at < 90 { 0 } else { 90 * second });
            let (since, at) = (Time((at - 1) * second), Time(at * second));
            timeline.count(Made { since, at, count: which, parts, gap: false }, plan);
        };
        for at in 1..100 {
            count(at, Count::Total);
            if at % 10 == 0 {
                count(at, Count::Reject);
            }
        }
        let made: Vec<_> = timeline.made.iter().map(|made| (made.at.0 / second, made.count, made.parts)).collect();
        assert_eq!(
            made,
            [
                (1, Count::Total, 118.0),
                (10, Count::Reject, 10.0),
                (60, Count::Total, 60.0),
                (60, Count::Reject, 6.0),
                (90, Count::Total, 20.0),
                (90, Count::Reject, 2.0),
            ],
            "the plan changes at 90"
        );
        timeline.say(Time(99 * second), State::Down);
        let (since, at) = (Time(99 * second), Time(100 * second));
        timeline.count(Made { since, at, count: Count::Total, parts: 1.0, gap: false }, Time(0));
        assert_eq!(timeline.made.len(), 7, "another state");
    }

    #[test]
    fn what_is_counted_after_a_gap_is_apart_from_what_came_with_its_end() {
        let mut timeline = told(&[(10, State::Producing), (20, State::Unknown), (30, State::Producing)]);
        for (since, at) in [(15, 31), (31, 40), (40, 50)] {
            timeline
                .count(Made { since: Time(since), at: Time(at), count: Count::Total, parts: 1.0, gap: false }, Time(0));
        }
        let made: Vec<_> = timeline.made.iter().map(|made| (made.at.0, made.parts)).collect();
        assert_eq!(made, [(31, 1.0), (40, 2.0)]);
        let seen = |made: &Made| timeline.facts().seen(made.since, made.at);
        assert_eq!(timeline.made.iter().map(seen).collect::<Vec<_>>(), [false, true]);
    }
}
