//! The shift plan: names, overlaps, breaks. Everything here is time on the wall; the zone's changes come later.

use std::rc::Rc;
use std::sync::Arc;

use jiff::civil;

use super::Names;
use crate::config::calendar::{DAYS, WallTime};
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::words::Name;
use crate::model::ShiftSpec;

pub(super) const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;

/// A shift of the week.
pub(super) struct Planned {
    /// Its name, for people.
    pub(super) shown: Rc<str>,
    pub(super) spec: ShiftSpec,
}

/// The plan that `shifts` means; what is wrong is reported and left out.
pub(super) fn resolve(shifts: &[At<raw::Shift>], report: &mut Report) -> Vec<Planned> {
    let mut names = Names::default();
    let mut resolved: Vec<(&At<raw::Shift>, ShiftSpec)> = Vec::new();
    for raw in shifts {
        if let Some(name) = &raw.name {
            names.take(&name.value.0, name, "a shift", report);
        }
        let days = raw.days.as_ref().map(|days| days.0);
        let written = Written { name: &raw.name, start: &raw.start, end: &raw.end, breaks: &raw.breaks };
        if let Some(spec) = days.and_then(|days| shift(&written, days, report)) {
            resolved.push((raw, spec));
        }
    }
    for (index, (raw, shift)) in resolved.iter().enumerate() {
        for (earlier_raw, earlier) in &resolved[..index] {
            if let Some(at) = overlap(earlier, shift) {
                let (name, earlier_name) = (shown(raw), shown(earlier_raw));
                raw.wrong(
                    report,
                    format!(
                        "shift `{name}` overlaps shift `{earlier_name}` ({}) from {} on",
                        earlier_raw.origin.place,
                        moment(at)
                    ),
                );
            }
        }
    }
    resolved.into_iter().map(|(raw, spec)| Planned { shown: shown(raw), spec }).collect()
}

/// A shift as it is written, of the week or of one day.
pub(super) struct Written<'a> {
    pub(super) name: &'a Option<At<Name>>,
    pub(super) start: &'a Option<At<WallTime<false>>>,
    pub(super) end: &'a Option<At<WallTime<true>>>,
    pub(super) breaks: &'a Option<At<Vec<At<raw::Break>>>>,
}

/// A break, in seconds from its shift's start, so that midnight is nothing special.
struct Pause {
    begin: i64,
    finish: i64,
    times: (civil::Time, civil::Time),
}

fn shown(raw: &raw::Shift) -> Rc<str> {
    raw.name.as_ref().map_or_else(|| "".into(), |name| Rc::clone(&name.origin.shown))
}

/// The shift that starts on `days`; `None` when something is wrong with it, which is then reported.
pub(super) fn shift(raw: &Written<'_>, days: [bool; 7], report: &mut Report) -> Option<ShiftSpec> {
    let (start, end) = (raw.start.as_ref()?.0, raw.end.as_ref()?.0);
    let length = length(start, end);
    let mut breaks: Vec<Pause> = Vec::new();
    for pause in raw.breaks.iter().flat_map(|list| &list.value) {
        let (Some(from), Some(to)) = (&pause.start, &pause.end) else { continue };
        let (from, to) = (from.0, to.0);
        if from == to {
            pause.wrong(report, "the break is empty: it ends when it starts");
            continue;
        }
        let begin = (seconds(from) - seconds(start)).rem_euclid(DAY);
        let finish = begin + self::length(from, to);
        if finish > length {
            pause.wrong(
                report,
                format!(
                    "the break from {} to {} is not inside the shift from {} to {}",
                    wall(from),
                    wall(to),
                    wall(start),
                    wall(end)
                ),
            );
            continue;
        }
        if let Some(other) = breaks.iter().find(|other| begin < other.finish && other.begin < finish) {
            let (begun, done) = other.times;
            pause.wrong(
                report,
                format!(
                    "the break from {} to {} overlaps the one from {} to {}",
                    wall(from),
                    wall(to),
                    wall(begun),
                    wall(done)
                ),
            );
            continue;
        }
        breaks.push(Pause { begin, finish, times: (from, to) });
    }
    breaks.sort_by_key(|pause| pause.begin);
    Some(ShiftSpec {
        name: Arc::from(raw.name.as_ref()?.value.0.as_str()),
        days,
        start,
        end,
        breaks: breaks.into_iter().map(|pause| pause.times).collect(),
    })
}

/// Seconds from `start` to `end`; a whole day when they are the same.
pub(super) fn length(start: civil::Time, end: civil::Time) -> i64 {
    match (seconds(end) - seconds(start)).rem_euclid(DAY) {
        0 => DAY,
        length => length,
    }
}

pub(super) fn seconds(time: civil::Time) -> i64 {
    i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
}

/// The first second of the week in which both run.
fn overlap(a: &ShiftSpec, b: &ShiftSpec) -> Option<i64> {
    let mut first: Option<i64> = None;
    for (a_start, a_end) in runs(a) {
        for (b_start, b_end) in runs(b) {
            for week in [-WEEK, 0, WEEK] {
                let from = a_start.max(b_start + week);
                if from < a_end.min(b_end + week) {
                    let from = from.rem_euclid(WEEK);
                    first = Some(first.map_or(from, |first| first.min(from)));
                }
            }
        }
    }
    first
}

/// From and to, in seconds from the week's start; the end may lie in the next week.
fn runs(shift: &ShiftSpec) -> impl Iterator<Item = (i64, i64)> {
    let length = length(shift.start, shift.end);
    let start = seconds(shift.start);
    shift.days.into_iter().zip(0_i64..).filter(|(on, _)| *on).map(move |(_, day)| {
        let from = day * DAY + start;
        (from, from + length)
    })
}

/// `mon 13:00`
fn moment(second: i64) -> String {
    let day = usize::try_from(second / DAY).map_or("", |day| DAYS[day % 7]);
    format!("{day} {:02}:{:02}", second % DAY / 3600, second % 3600 / 60)
}

fn wall(time: civil::Time) -> String {
    time.strftime(if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}
