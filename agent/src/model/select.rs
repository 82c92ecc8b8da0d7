//! What is to be explained, as people name it: `today/early`, `yesterday/06:00`, a lot.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use jiff::civil::{self, Date};
use jiff::tz::TimeZone;

use crate::config::duration;
use crate::model::Shift;
use crate::model::setting::Setting;
use crate::model::station::Look;
use crate::model::window::{Stretch, WindowKind, hour_of, last_minutes, runs};

/// How many names an answer lists that says what there is.
const MOST_NAMES: usize = 12;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The shift that runs; between shifts the last one.
    Current,
    /// The shift of this name that starts on this day.
    Shift(Day, String),
    /// The hour of the clock on the wall that covers this time of the day.
    Hour(Day, civil::Time),
    /// The hour of the clock on the wall that covers this instant.
    HourAt(Time),
    /// Everything of this lot.
    Lot(String),
    /// Everything of this product.
    Product(String),
    /// Everything of this order.
    Order(String),
    /// The last full minutes; as many as `oee.rolling` says, unless said.
    Rolling(Option<Duration>),
}

/// A day in the line's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// Today.
    Today,
    /// The day before.
    Yesterday,
    /// This one.
    On(Date),
}

/// Why a text names nothing that could be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// As a shift.
    #[error("`{0}` names no shift: write `current`, `today/early`, `yesterday/late` or `2026-11-22/night`")]
    Shift(String),
    /// As an hour.
    #[error(
        "`{0}` names no hour: write `today/06:00`, `yesterday/06:00`, `2026-11-22/06:00` or an RFC 3339 instant in it"
    )]
    Hour(String),
    /// As a length of time.
    #[error("`{0}` is no length of time: write `60min`")]
    Rolling(String),
}

/// Why something cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The station has no figures.
    #[error("station `{0}` has no `oee:`, so there are no figures to explain")]
    NoFigures(Arc<str>),
    /// Nothing was heard of it yet.
    #[error("nothing was heard of station `{0}` yet")]
    Unheard(Arc<str>),
    /// It is outside shifts, and no shift has ended since it was first heard of.
    #[error("no shift runs, and none has ended since the station was first heard of")]
    NoShift,
    /// The plan has no such shift.
    #[error("no shift `{name}` starts on {day}; {}", listed(.there, "starts then"))]
    NoSuchShift {
        /// As asked.
        name: String,
        /// The day.
        day: Date,
        /// Those that do start.
        there: Vec<Arc<str>>,
    },
    /// It lies ahead.
    #[error("that has not begun: it does at {0}")]
    NotYet(Time),
    /// It was over when the station was first heard of.
    #[error("that was over when the station was first heard of, at {0}")]
    Before(Time),
    /// It is too long ago.
    #[error("that is too long ago: readings are held from {0} on; give older ones to `gemba explain`")]
    Forgotten(Time),
    /// Nothing of this name was worked on.
    #[error("no {kind} `{name}` is known; {}", listed(.there, "is"))]
    NoSuchWork {
        /// Lot, product, order.
        kind: WindowKind,
        /// As asked.
        name: String,
        /// The newest that are known.
        there: Vec<Arc<str>>,
    },
}

fn listed(there: &[Arc<str>], is: &str) -> String {
    match there {
        [] => format!("none {is}"),
        [one] => format!("`{one}` {is}"),
        many => many.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ") + " do",
    }
}

/// What a selector stands for at a station.
pub(super) struct Chosen {
    pub(super) kind: &'static str,
    pub(super) name: Arc<str>,
    /// Never empty; in order of time.
    pub(super) stretches: Vec<Stretch>,
    pub(super) closed: bool,
    pub(super) whole: bool,
    pub(super) revision: Option<u32>,
}

impl Chosen {
    pub(super) fn from(&self) -> Time {
        self.stretches.first().map_or(Time::default(), |first| first.from)
    }

    pub(super) fn to(&self) -> Time {
        self.stretches.last().map_or(Time::default(), |last| last.to)
    }
}

impl Selector {
    /// The shift that `text` names: `current`, or the day on which it starts and its name.
    ///
    /// # Errors
    /// When it names none.
    pub fn shift(text: &str) -> Result<Self, SelectorError> {
        let wrong = || SelectorError::Shift(text.to_owned());
        if text == "current" {
            return Ok(Self::Current);
        }
        let (day, name) = text.split_once('/').ok_or_else(wrong)?;
        let day = Day::parse(day).filter(|_| !name.is_empty()).ok_or_else(wrong)?;
        Ok(Self::Shift(day, name.to_owned()))
    }

    /// The hour that `text` names: a day and a time of it, or an instant.
    ///
    /// # Errors
    /// When it names none.
    pub fn hour(text: &str) -> Result<Self, SelectorError> {
        let wrong = || SelectorError::Hour(text.to_owned());
        let Some((day, time)) = text.split_once('/') else {
            return text.parse().map(Self::HourAt).map_err(|_| wrong());
        };
        let day = Day::parse(day).ok_or_else(wrong)?;
        let time = if time.len() == 2 { format!("{time}:00") } else { time.to_owned() };
        Ok(Self::Hour(day, time.parse().map_err(|_| wrong())?))
    }

    /// The last minutes: so many as `text` says (`30min`), or nothing for what the configuration says.
    ///
    /// # Errors
    /// When it is no duration.
    pub fn rolling(text: &str) -> Result<Self, SelectorError> {
        if text.is_empty() {
            return Ok(Self::Rolling(None));
        }
        let length = duration(text).map_err(|_| SelectorError::Rolling(text.to_owned()))?;
        Ok(Self::Rolling(Some(length)))
    }

    pub(super) fn choose(&self, look: &Look<'_>, setting: Setting<'_>) -> Result<Chosen, ExplainError> {
        if look.since().is_none() {
            return Err(ExplainError::Unheard(setting.name.clone()));
        }
        let zone = setting.zone();
        match self {
            Self::Current => {
                let running = setting.slot(look.now()).shift;
                let ended = || {
                    let last = look.periods(setting).last()?;
                    setting.slot(last.from).shift
                };
                shift(look, setting, &running.or_else(ended).ok_or(ExplainError::NoShift)?)
            }
            Self::Shift(day, name) => {
                let day = day.date(&zone, look.now());
                let all = shifts_of(setting, &zone, day);
                let Some(found) = all.iter().find(|shift| *shift.name == **name) else {
                    let there = all.into_iter().map(|shift| shift.name).take(MOST_NAMES).collect();
                    return Err(ExplainError::NoSuchShift { name: name.clone(), day, there });
                };
                shift(look, setting, found)
            }
            Self::Hour(day, time) => {
                let at = day.date(&zone, look.now()).to_datetime(*time);
                let at = zone.to_ambiguous_zoned(at).compatible().map_or(Time(i64::MAX), |at| at.timestamp().into());
                hour(look, setting, &zone, at)
            }
            Self::HourAt(at) => hour(look, setting, &zone, *at),
            Self::Lot(name) => work(look, WindowKind::Lot, name),
            Self::Product(name) => work(look, WindowKind::Product, name),
            Self::Order(name) => work(look, WindowKind::Order, name),
            Self::Rolling(length) => {
                let begin = look.facts().begin().unwrap_or(look.now());
                let (name, stretch) = last_minutes(look, setting, begin, *length);
                let kind = WindowKind::Rolling(*length).word();
                let whole = look.since().is_some_and(|first| first >= begin) || stretch.from > begin;
                Ok(Chosen { kind, name, stretches: vec![stretch], closed: true, whole, revision: None })
            }
        }
    }
}

impl Day {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "today" => Some(Self::Today),
            "yesterday" => Some(Self::Yesterday),
            date => date.parse().ok().map(Self::On),
        }
    }

    fn date(self, zone: &TimeZone, now: Time) -> Date {
        let today = now.timestamp().to_zoned(zone.clone()).date();
        match self {
            Self::Today => today,
            Self::Yesterday => today.yesterday().unwrap_or(today),
            Self::On(date) => date,
        }
    }
}

/// The shifts that start on a day, in order.
fn shifts_of(setting: Setting<'_>, zone: &TimeZone, day: Date) -> Vec<Shift> {
    let midnight = |date: Date| date.to_zoned(zone.clone()).map_or(Time(i64::MAX), |at| at.timestamp().into());
    let (from, to) = (midnight(day), day.tomorrow().map_or(Time(i64::MAX), midnight));
    let mut plan = setting.plan.borrow_mut();
    let shifts = plan.slots(from, to).iter().filter_map(|slot| slot.shift.clone());
    let mut all: Vec<Shift> = shifts.filter(|shift| from <= shift.from && shift.from < to).collect();
    all.dedup();
    all
}

/// The part of the time from `from` to `to` of which facts are held, and whether that is all of it.
fn held(look: &Look<'_>, setting: Setting<'_>, from: Time, to: Time) -> Result<(Time, bool), ExplainError> {
    let unheard = || ExplainError::Unheard(setting.name.clone());
    let first = look.since().ok_or_else(unheard)?;
    let begin = look.facts().begin().ok_or_else(unheard)?;
    if from > look.now() {
        return Err(ExplainError::NotYet(from));
    }
    if first >= to {
        return Err(ExplainError::Before(first));
    }
    if begin >= to {
        return Err(ExplainError::Forgotten(begin));
    }
    let from = from.max(first);
    Ok((from.max(begin), begin <= from))
}

fn shift(look: &Look<'_>, setting: Setting<'_>, shift: &Shift) -> Result<Chosen, ExplainError> {
    let (from, whole) = held(look, setting, shift.from, shift.to)?;
    Ok(Chosen {
        kind: "shift",
        name: shift.name.clone(),
        stretches: vec![Stretch::until(from, shift.to, look.now())],
        closed: shift.to <= look.now(),
        whole,
        revision: look.revision(&shift.name, shift.to),
    })
}

/// An hour is cut at the edges of shifts, as in the list of hours: what a shift knows of a stop ends with it.
fn hour(look: &Look<'_>, setting: Setting<'_>, zone: &TimeZone, at: Time) -> Result<Chosen, ExplainError> {
    let (begin, end) = hour_of(zone, at);
    let (from, whole) = held(look, setting, begin, end)?;
    let mut stretches: Vec<Stretch> = Vec::new();
    for slot in setting.plan.borrow_mut().slots(from, end) {
        let (first, last) = slot.shift.as_ref().map_or((slot.from, slot.until), |shift| (shift.from, shift.to));
        if stretches.last().is_some_and(|before| before.to >= last.min(end).min(look.now())) || first > look.now() {
            continue;
        }
        stretches.push(Stretch::until(first, last, look.now()).part(from, end));
    }
    if stretches.is_empty() {
        stretches.push(Stretch::until(from, end, look.now()));
    }
    let name = begin.timestamp().to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    Ok(Chosen { kind: "hour", name: name.into(), stretches, closed: end <= look.now(), whole, revision: None })
}

fn work(look: &Look<'_>, kind: WindowKind, name: &str) -> Result<Chosen, ExplainError> {
    let (of_it, others): (Vec<_>, Vec<_>) = runs(look, kind).into_iter().partition(|run| *run.name == *name);
    let (Some(first), Some(last)) = (of_it.first(), of_it.last()) else {
        let mut there: Vec<Arc<str>> = Vec::new();
        for run in others.into_iter().rev() {
            if there.len() < MOST_NAMES && !there.contains(&run.name) {
                there.push(run.name);
            }
        }
        return Err(ExplainError::NoSuchWork { kind, name: name.to_owned(), there });
    };
    Ok(Chosen {
        kind: kind.word(),
        name: first.name.clone(),
        closed: !last.stretch.open,
        whole: first.whole,
        revision: None,
        stretches: of_it.iter().map(|run| run.stretch).collect(),
    })
}
