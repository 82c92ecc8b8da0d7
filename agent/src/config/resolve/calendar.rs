//! Days that are not as the week has them: no date twice, no shift over another, not over midnight either.

use std::collections::HashMap;
use std::rc::Rc;

use jiff::{ToSpan, civil};

use super::Names;
use super::shifts::{DAY, Planned, Written, length, seconds, shift};
use crate::config::calendar::Date;
use crate::config::error::{Place, Report};
use crate::config::raw;
use crate::config::section::At;
use crate::model::{ExceptionalDay, WHOLE_DAY};

/// The days of `calendar`, in order of date, beside a week that has these shifts.
pub(super) fn resolve(calendar: &raw::Calendar, week: &[Planned], report: &mut Report) -> Vec<ExceptionalDay> {
    let mut taken: HashMap<civil::Date, Place> = HashMap::new();
    let mut take = |date: &At<Date>, report: &mut Report| match taken.get(&date.0) {
        Some(first) => {
            date.wrong(report, format!("`{}` is already in the calendar at {first}", date.origin.shown));
        }
        None => {
            taken.insert(date.0, date.origin.place.clone());
        }
    };
    let mut days = Vec::new();
    let mut runs = Runs { week, days: HashMap::new() };
    for date in calendar.holidays.iter().flat_map(|list| &list.value) {
        take(date, report);
        runs.days.entry(date.0).or_default();
        days.push(ExceptionalDay { date: date.0, name: None, shifts: Vec::new() });
    }
    for raw in calendar.exceptional_days.iter().flat_map(|list| &list.value) {
        let Some(date) = &raw.date else { continue };
        take(date, report);
        let mut names = Names::default();
        let mut shifts = Vec::new();
        let mut on_it = Vec::new();
        for raw in raw.shifts.iter().flat_map(|list| &list.value) {
            if let Some(name) = &raw.name {
                names.take(&name.value.0, name, "a shift of this day", report);
            }
            let written = Written { name: &raw.name, start: &raw.start, end: &raw.end, breaks: &raw.breaks };
            let Some(spec) = shift(&written, [true; 7], report) else { continue };
            let shown = raw.name.as_ref().map_or_else(|| "".into(), |name| Rc::clone(&name.origin.shown));
            let from = seconds(spec.start);
            on_it.push(Run { shown, from, to: from + length(spec.start, spec.end), raw: Some(raw) });
            shifts.push(spec);
        }
        runs.days.insert(date.0, on_it);
        let name = raw.name.as_ref().map(|name| name.value.0.as_str().into());
        days.push(ExceptionalDay { date: date.0, name, shifts });
    }
    days.sort_by_key(|day| day.date);
    for day in &days {
        runs.check(day.date, report);
    }
    days
}

/// A shift on a day, in seconds from its midnight.
#[derive(Clone)]
struct Run<'a> {
    /// The shift's name, for people.
    shown: Rc<str>,
    from: i64,
    to: i64,
    /// Of an exceptional day.
    raw: Option<&'a At<raw::DayShift>>,
}

struct Runs<'a> {
    week: &'a [Planned],
    days: HashMap<civil::Date, Vec<Run<'a>>>,
}

impl<'a> Runs<'a> {
    /// Reports each shift of the exceptional day `date` that overlaps another one: of the same day, of the day before, or of an
    /// ordinary day after it. (An exceptional one after it sees it by itself.)
    fn check(&self, date: civil::Date, report: &mut Report) {
        let own = self.on(date);
        for (place, run) in own.iter().enumerate() {
            for earlier in &own[..place] {
                overlap(run, earlier, 0, date, report);
            }
            for (neighbour, offset) in [(date.yesterday(), -1), (date.tomorrow(), 1)] {
                let Ok(neighbour) = neighbour else { continue };
                if offset < 0 || !self.days.contains_key(&neighbour) {
                    for other in self.on(neighbour) {
                        overlap(run, &other, offset, date, report);
                    }
                }
            }
        }
    }

    /// What starts on `date`.
    fn on(&self, date: civil::Date) -> Vec<Run<'a>> {
        if let Some(day) = self.days.get(&date) {
            return day.clone();
        }
        if self.week.is_empty() {
            return vec![Run { shown: WHOLE_DAY.into(), from: 0, to: DAY, raw: None }];
        }
        let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).unwrap_or(0);
        let run = |planned: &Planned| {
            let from = seconds(planned.spec.start);
            let to = from + length(planned.spec.start, planned.spec.end);
            Run { shown: Rc::clone(&planned.shown), from, to, raw: None }
        };
        self.week.iter().filter(|planned| planned.spec.days[weekday]).map(run).collect()
    }
}

/// Reports that `run`, of `date`, overlaps `other`, of the day `offset` days later.
fn overlap(run: &Run<'_>, other: &Run<'_>, offset: i64, date: civil::Date, report: &mut Report) {
    let from = run.from.max(other.from + offset * DAY);
    let Some(raw) = run.raw.filter(|_| from < run.to.min(other.to + offset * DAY)) else { return };
    let (Ok(of), Ok(at)) = (date.checked_add(offset.days()), date.checked_add((from / DAY).days())) else { return };
    let clock = format!("{:02}:{:02}", from % DAY / 3600, from % 3600 / 60);
    let (shown, other) = (&run.shown, &other.shown);
    raw.wrong(report, format!("shift `{shown}` overlaps shift `{other}` of {of} from {at} {clock} on"));
}
