//! Windows beside the shift: hours, days, lots, products, orders, and the last minutes. All of them are tallies over the
//! same facts, so that what touches adds up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use jiff::ToSpan;
use jiff::tz::TimeZone;

use crate::model::Line;
use crate::model::losses::Bucket;
use crate::model::piece::pieces_of;
use crate::model::setting::Setting;
use crate::model::station::Look;
use crate::model::tally::Tally;
use crate::model::timeline::{Facts, Made, Work};
use crate::snapshot::KpiView;

/// How long the last minutes are if nothing else is said.
pub const ROLLING: Duration = Duration::from_secs(3600);

/// A stretch of time to be added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its beginning.
    pub from: Time,
    /// Its end; not part of it.
    pub to: Time,
    /// Where knowledge ends. How long a stop lasts that goes on at `to`, and why, is known from here.
    pub known: Time,
    /// It goes on: what was counted at `to` itself has happened.
    pub open: bool,
}

impl Stretch {
    /// One that has ended, and nothing is known beyond.
    pub fn closed(from: Time, to: Time) -> Self {
        Self { from, to, known: to, open: false }
    }

    /// The part up to `now` of the time from `from` to `to`.
    pub fn until(from: Time, to: Time, now: Time) -> Self {
        let end = to.min(now).max(from);
        Self { from, to: end, known: end, open: to > now }
    }

    /// The part of it from `from` to `to`, with all that is known of the whole.
    pub(super) fn part(self, from: Time, to: Time) -> Self {
        Self { from: from.max(self.from), to: to.min(self.to), known: self.known, open: self.open && to > self.to }
    }

    /// Before when it is that something happened in it: what happened at the end of one that goes on has happened.
    pub fn end(self) -> Time {
        if self.open { Time(self.to.0.saturating_add(1)) } else { self.to }
    }

    /// What was counted in it.
    pub fn made(self, facts: Facts<'_>) -> impl Iterator<Item = &Made> {
        facts.made(self.from, self.end())
    }
}

/// By what time is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Hours of the clock on the wall, cut at the edges of shifts.
    Hour,
    /// Days of the line's time zone.
    Day,
    /// All the time that a lot was worked on.
    Lot,
    /// Likewise a product.
    Product,
    /// Likewise an order.
    Order,
    /// The last full minutes: so many up to the last full minute, since counts are kept to the minute.
    Rolling(Duration),
}

impl WindowKind {
    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Lot => "lot",
            Self::Product => "product",
            Self::Order => "order",
            Self::Rolling(_) => "rolling",
        }
    }

    /// What it is of a piece of work, if it is told apart by that.
    pub(super) fn of(self, work: &Work) -> Option<&Arc<str>> {
        match self {
            Self::Lot => work.lot.as_ref(),
            Self::Product => work.product.as_ref(),
            Self::Order => work.order.as_ref(),
            Self::Hour | Self::Day | Self::Rolling(_) => None,
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A window and its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// What it is one of.
    pub kind: WindowKind,
    /// Its name: the local hour (`2026-03-02 06:00`) or date, the lot, product or order, the number of minutes.
    pub name: Arc<str>,
    /// The shift that an hour belongs to.
    pub shift: Option<Arc<str>>,
    /// Its beginning, or the station's first observation if that is later.
    pub from: Time,
    /// Its end, or now.
    pub to: Time,
    /// Whether it has ended; of a lot, product or order: whether something else is worked on.
    pub closed: bool,
    /// Whether facts are still held of all of it. Of an old lot they may not be.
    pub whole: bool,
    /// Its figures.
    pub view: KpiView,
    /// What they are computed from.
    pub tally: Tally,
    /// Of a product: how it was changed to, each time.
    pub changeovers: Vec<Changeover>,
}

/// From the last part of a product to the first of another. Counts are kept to the minute, so it may be told up to a minute
/// too long, never too short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeover {
    /// What was made before.
    pub before: Arc<str>,
    /// What is made then.
    pub after: Arc<str>,
    /// The last part before; where none is known, the end of the work on it.
    pub from: Time,
    /// The first part then; `None` while there is none.
    pub to: Option<Time>,
    /// Nanoseconds of it (or up to now) within known planned time, by the loss accounting.
    pub planned_ns: i64,
}

impl Line {
    /// The windows of a kind of the station at `station`, as far as facts are held, in order of time.
    #[must_use]
    pub fn windows(&self, station: usize, kind: WindowKind, now: Time) -> Vec<Window> {
        let Some((look, setting)) = self.look(station, now) else { return Vec::new() };
        let Some(begin) = look.facts().begin() else { return Vec::new() };
        match kind {
            WindowKind::Hour => hours(&look, setting, begin),
            WindowKind::Day => days(&look, setting, begin),
            WindowKind::Rolling(length) => vec![rolling(&look, setting, begin, length)],
            WindowKind::Lot | WindowKind::Product | WindowKind::Order => works(&look, setting, kind),
        }
    }
}

/// The hours of every shift.
fn hours(look: &Look<'_>, setting: Setting<'_>, begin: Time) -> Vec<Window> {
    let zone = setting.zone();
    let mut all = Vec::new();
    for period in look.periods(setting).filter(|period| period.to > begin) {
        let shift = Stretch::until(period.from.max(begin), period.to, look.now());
        for (from, to) in hours_between(&zone, shift.from, period.to).take_while(|&(from, _)| from <= look.now()) {
            let name = local(&zone, hour_of(&zone, from).0, "%Y-%m-%d %H:%M");
            let window = window(look.facts(), setting, WindowKind::Hour, name, shift.part(from, to));
            let (closed, whole) = (to <= look.now(), from >= period.from);
            all.push(Window { shift: Some(period.shift.clone()), closed, whole, ..window });
        }
    }
    all
}

fn days(look: &Look<'_>, setting: Setting<'_>, begin: Time) -> Vec<Window> {
    let zone = setting.zone();
    let mut all = Vec::new();
    let mut from = begin;
    while from <= look.now() {
        let to = day_end(&zone, from);
        let name = local(&zone, from, "%Y-%m-%d");
        let stretch = Stretch::until(from, to, look.now());
        let whole = look.since().is_some_and(|first| first >= from) || day_begin(&zone, from) == from;
        let window = window(look.facts(), setting, WindowKind::Day, name, stretch);
        all.push(Window { closed: to <= look.now(), whole, ..window });
        if to == Time(i64::MAX) {
            break;
        }
        from = to;
    }
    all
}

fn rolling(look: &Look<'_>, setting: Setting<'_>, begin: Time, length: Duration) -> Window {
    const MINUTE: i64 = 60_000_000_000;
    let to = Time(look.now().0.div_euclid(MINUTE) * MINUTE);
    let minutes = i64::try_from(length.as_secs().div_ceil(60)).unwrap_or(i64::MAX / MINUTE).max(1);
    let from = Time(to.0.saturating_sub(minutes.saturating_mul(MINUTE))).max(begin).min(to);
    let stretch = Stretch { known: look.now(), ..Stretch::closed(from, to) };
    let window =
        window(look.facts(), setting, WindowKind::Rolling(length), format!("the last {minutes} min").into(), stretch);
    Window { closed: true, ..window }
}

/// What was worked on, in the order in which it was first.
fn works(look: &Look<'_>, setting: Setting<'_>, kind: WindowKind) -> Vec<Window> {
    let facts = look.facts();
    let runs = runs(look, kind);
    let changes = if kind == WindowKind::Product { changeovers(facts, setting, &runs, look.now()) } else { Vec::new() };
    let mut all: Vec<Window> = Vec::new();
    for run in &runs {
        let window = Window {
            closed: !run.stretch.open,
            whole: run.whole,
            ..window(facts, setting, kind, run.name.clone(), run.stretch)
        };
        match all.iter_mut().find(|held| held.name == run.name) {
            Some(held) => {
                held.tally.add(&window.tally);
                held.to = window.to;
                held.closed = window.closed;
                held.view = held.tally.view(setting.spec, held.from);
            }
            None => all.push(window),
        }
    }
    for change in changes {
        if let Some(held) = all.iter_mut().find(|held| held.name == change.after) {
            held.changeovers.push(change);
        }
    }
    all
}

/// A run of something: from when it is worked on until something else is.
pub(super) struct RunOf {
    pub(super) name: Arc<str>,
    pub(super) stretch: Stretch,
    /// Facts are held of all of it.
    pub(super) whole: bool,
}

/// The runs of what is told apart by `kind`, in order of time; of a lot that was interrupted there are several.
pub(super) fn runs(look: &Look<'_>, kind: WindowKind) -> Vec<RunOf> {
    let (facts, now) = (look.facts(), look.now());
    let begin = facts.begin().unwrap_or(now);
    let mut all: Vec<(Option<&Arc<str>>, Time)> = Vec::new();
    for run in facts.runs() {
        let name = kind.of(&run.work);
        if all.last().is_none_or(|(held, _)| *held != name) {
            all.push((name, run.from));
        }
    }
    let ends: Vec<Time> = all.iter().skip(1).map(|&(_, from)| from).chain([Time(i64::MAX)]).collect();
    let held = all.into_iter().zip(ends).filter(|&((_, from), to)| to > begin && from <= now);
    let run = |((name, from), to): ((Option<&Arc<str>>, Time), Time)| {
        let stretch = Stretch { known: now, ..Stretch::until(from.max(begin), to, now) };
        Some(RunOf { name: name?.clone(), stretch, whole: from >= begin })
    };
    held.filter_map(run).collect()
}

fn changeovers(facts: Facts<'_>, setting: Setting<'_>, runs: &[RunOf], now: Time) -> Vec<Changeover> {
    let parts = |run: &RunOf| {
        let parts = run.stretch.made(facts).filter(|made| made.count.is_part(setting.spec));
        parts.map(|made| made.at).collect::<Vec<_>>()
    };
    let change = |pair: &[RunOf]| {
        let [before, after] = pair else { return None };
        if before.name == after.name {
            return None;
        }
        let from = parts(before).last().copied().unwrap_or(before.stretch.to);
        let to = parts(after).first().copied();
        let stretch = Stretch { known: now, ..Stretch::closed(from, to.unwrap_or(after.stretch.to)) };
        let planned = pieces_of(facts, setting, stretch)
            .filter(|piece| piece.bucket.is_some_and(|bucket| bucket != Bucket::NotPlanned));
        let planned_ns = planned.map(|piece| piece.length()).sum();
        Some(Changeover { before: before.name.clone(), after: after.name.clone(), from, to, planned_ns })
    };
    runs.windows(2).filter_map(change).collect()
}

fn window(facts: Facts<'_>, setting: Setting<'_>, kind: WindowKind, name: Arc<str>, stretch: Stretch) -> Window {
    let tally = Tally::within(facts, setting, stretch);
    Window {
        kind,
        name,
        shift: None,
        from: stretch.from,
        to: stretch.to,
        closed: false,
        whole: true,
        view: tally.view(setting.spec, stretch.from),
        tally,
        changeovers: Vec::new(),
    }
}

/// The hours of the clock on the wall that share time with the span from `from` to `to`, cut at its ends. Where clocks are
/// turned by half an hour, half an hour is one of its own.
pub(super) fn hours_between(zone: &TimeZone, from: Time, to: Time) -> impl Iterator<Item = (Time, Time)> {
    let mut at = from;
    std::iter::from_fn(move || {
        (at < to).then(|| {
            let begin = at;
            at = hour_of(zone, begin).1.min(to);
            (begin, at)
        })
    })
}

/// The hour of the clock on the wall that covers `at`: its beginning and its end.
pub(super) fn hour_of(zone: &TimeZone, at: Time) -> (Time, Time) {
    const HOUR: i64 = 3_600_000_000_000;
    let offset = i64::from(zone.to_offset(at.timestamp()).seconds()) * 1_000_000_000;
    // The ends of all time lie within an hour, too.
    let begin = at.0.saturating_add(offset).div_euclid(HOUR).saturating_mul(HOUR).saturating_sub(offset);
    let end = begin.saturating_add(HOUR);
    // The clock is turned within it: it begins or ends there.
    let turned = |at: Time| i64::from(zone.to_offset(at.timestamp()).seconds()) * 1_000_000_000 != offset;
    let begin = if turned(Time(begin)) {
        zone.preceding(Time(at.0.saturating_add(1)).timestamp())
            .next()
            .map_or(begin, |turn| Time::from(turn.timestamp()).0)
    } else {
        begin
    };
    let end = if turned(Time(end)) {
        zone.following(at.timestamp()).next().map_or(end, |turn| Time::from(turn.timestamp()).0)
    } else {
        end
    };
    (Time(begin), Time(end))
}

fn day_begin(zone: &TimeZone, at: Time) -> Time {
    let local = at.timestamp().to_zoned(zone.clone());
    local.start_of_day().map_or(at, |begin| begin.timestamp().into())
}

fn day_end(zone: &TimeZone, at: Time) -> Time {
    let local = at.timestamp().to_zoned(zone.clone());
    let next = local.start_of_day().and_then(|begin| begin.checked_add(1.day())).and_then(|next| next.start_of_day());
    next.map_or(Time(i64::MAX), |next| next.timestamp().into())
}

fn local(zone: &TimeZone, at: Time, format: &str) -> Arc<str> {
    at.timestamp().to_zoned(zone.clone()).strftime(format).to_string().into()
}
