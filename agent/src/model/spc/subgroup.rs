//! What becomes of single readings and counts: subgroups, by number or by the clock.

use std::time::Duration;

use gemba_drivers::Time;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::capability::Moments;
use super::spec::Setting;

/// The subgroup that is being gathered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Gathering {
    open: Option<Subgroup>,
    /// Of a chart with `every`: the turn that runs.
    turn: Option<Turn>,
    /// When the last reading was, for those that come late.
    pub(super) last: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Turn {
    until: Time,
    /// It has had its subgroup.
    done: bool,
}

/// What was gathered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Subgroup {
    pub(super) from: Time,
    pub(super) last: Time,
    pub(super) readings: Moments,
    least: f64,
    most: f64,
    pub(super) inspected: f64,
    pub(super) defects: f64,
}

impl Subgroup {
    fn begin(at: Time) -> Self {
        Self {
            from: at,
            last: at,
            readings: Moments::default(),
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
            inspected: 0.0,
            defects: 0.0,
        }
    }

    /// The largest reading less the smallest.
    pub(super) fn range(&self) -> f64 {
        self.most - self.least
    }

    /// As many as the setting asks for; of a turn without a number any will do.
    pub(super) fn complete(&self, setting: &Setting) -> bool {
        let size = setting.size.map_or(0.0, f64::from);
        if setting.kind.counts() { self.inspected >= size } else { self.readings.number() >= size }
    }
}

impl Gathering {
    /// What closes because the clock stands at `now`: nothing earlier comes any more.
    ///
    /// Counts close after the instant that made them full, so that all that belongs to it is in.
    pub(super) fn advance(&mut self, setting: &Setting, now: Time) -> Option<Subgroup> {
        if self.turn.is_some_and(|turn| now >= turn.until) {
            self.turn = None;
            return self.open.take();
        }
        let counted = setting.kind.counts() && setting.size.is_some();
        self.open.take_if(|open| counted && now > open.last && open.complete(setting))
    }

    /// Gives up what was gathered before a gap that is too long; whether there was anything.
    pub(super) fn split(&mut self, setting: &Setting, at: Time) -> bool {
        let Some(most) = setting.max_gap else { return false };
        self.open.take_if(|open| at.since(open.last) > most).is_some()
    }

    /// Adds a reading; the subgroup, if it is full by it.
    pub(super) fn reading(&mut self, setting: &Setting, zone: &TimeZone, at: Time, value: f64) -> Option<Subgroup> {
        let open = self.open(setting, zone, at)?;
        open.readings.take(value);
        open.least = open.least.min(value);
        open.most = open.most.max(value);
        let size = setting.size?;
        if open.readings.number() < f64::from(size) {
            return None;
        }
        if let Some(turn) = &mut self.turn {
            turn.done = true;
        }
        self.open.take()
    }

    /// Adds counts.
    pub(super) fn counts(&mut self, setting: &Setting, zone: &TimeZone, at: Time, inspected: f64, defects: f64) {
        let Some(open) = self.open(setting, zone, at) else { return };
        open.inspected += inspected;
        open.defects += defects;
    }

    /// The subgroup that takes what comes at `at`; `None` when the turn has had its own.
    fn open(&mut self, setting: &Setting, zone: &TimeZone, at: Time) -> Option<&mut Subgroup> {
        self.last = Some(at);
        if let Some(every) = setting.every {
            let turn = self.turn.get_or_insert_with(|| Turn { until: end_of_turn(zone, every, at), done: false });
            if turn.done {
                return None;
            }
        }
        let open = self.open.get_or_insert_with(|| Subgroup::begin(at));
        open.last = at;
        Some(open)
    }
}

/// When the turn ends in which `at` lies. Turns begin at local midnight and then each `every`, the last of a day ends with it.
fn end_of_turn(zone: &TimeZone, every: Duration, at: Time) -> Time {
    let every = every.max(Duration::from_secs(1));
    let local = at.timestamp().to_zoned(zone.clone());
    let midnight = local.start_of_day().map_or(Time(0), |start| start.timestamp().into());
    let tomorrow = local.tomorrow().and_then(|next| next.start_of_day()).map(|start| Time::from(start.timestamp()));
    let turns = at.since(midnight).as_nanos() / every.as_nanos();
    let length = u64::try_from((turns + 1) * every.as_nanos()).map_or(Duration::MAX, Duration::from_nanos);
    let end = midnight + length;
    tomorrow.map_or(end, |tomorrow| end.min(tomorrow)).max(Time(at.0.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(zone: &str, minutes: u64, at: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone");
        end_of_turn(&zone, Duration::from_secs(minutes * 60), at.parse().expect("a time")).to_string()
    }

    #[test]
    fn turns_are_told_by_the_clock_on_the_wall() {
        assert_eq!(end("UTC", 15, "2026-03-02T10:00:00Z"), "2026-03-02T10:15:00Z");
        assert_eq!(end("UTC", 15, "2026-03-02T10:14:59.999Z"), "2026-03-02T10:15:00Z");
        assert_eq!(
            end("Asia/Kolkata", 60, "2026-03-02T10:29:00Z"),
            "2026-03-02T10:30:00Z",
            "half past is the full hour"
        );
        assert_eq!(end("Europe/Berlin", 480, "2026-03-02T10:00:00Z"), "2026-03-02T15:00:00Z", "16:00 there");
    }

    #[test]
    fn the_last_turn_of_a_day_ends_with_it() {
        // 23 hours on the day when clocks go forward: 7 h, 7 h, 7 h, 2 h.
        assert_eq!(end("Europe/Berlin", 420, "2026-03-29T21:30:00Z"), "2026-03-29T22:00:00Z");
        assert_eq!(end("UTC", 24 * 60, "2026-03-02T10:00:00Z"), "2026-03-03T00:00:00Z");
    }

    #[test]
    fn no_instant_is_too_early_or_too_late() {
        for at in [i64::MIN, -1, 0, i64::MAX - 1] {
            let zone = TimeZone::UTC;
            assert!(end_of_turn(&zone, Duration::ZERO, Time(at)) > Time(at));
        }
    }
}
