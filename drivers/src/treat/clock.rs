//! Whose clock is to be believed (docs/decisions/0008-clock-trust.md).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{OwnStatus, Reading, Status, Time, Validity, Value};

/// How long a lag is watched before anything is said about it.
const WINDOW: Duration = Duration::from_secs(60);
/// How many readings with a newer source time a window must hold to say anything.
const EVIDENCE: u32 = 5;

/// A source's clock beside the gateway's.
#[derive(Debug)]
pub(super) struct Skew {
    station: Arc<str>,
    /// In nanoseconds.
    most: i64,
    newest: Time,
    window: Option<Window>,
    /// The least lag of the window before.
    before: Option<i64>,
    /// The clock is known to be behind.
    behind: bool,
    /// An episode was warned of.
    warned: bool,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    /// The greatest lead seen in it, of readings that moved the source's time forward.
    lead: i64,
    evidence: u32,
    /// Some reading was given the gateway's time.
    doubted: bool,
}

impl Skew {
    pub(super) fn new(station: Arc<str>, most: Duration) -> Self {
        let most = i64::try_from(most.as_nanos()).unwrap_or(i64::MAX);
        Self { station, most, newest: Time(i64::MIN), window: None, before: None, behind: false, warned: false }
    }

    /// Gives `reading` the gateway's time if the source's cannot be right:
    ///
    /// - it lies more than `max_clock_skew` in the future, or
    /// - the source's clock is behind: for two windows of a minute the newest source times have lagged by more than
    ///   `max_clock_skew`, and by the same (to within `max_clock_skew`). Old data that is delivered late lags by less and
    ///   less, so it keeps its time.
    pub(super) fn judge(&mut self, reading: &mut Reading, now: Instant) {
        if reading.source_time == reading.received_time || matches!(reading.validity, Validity::Bad(Status::Own(_))) {
            return;
        }
        let lead = reading.source_time.0.saturating_sub(reading.received_time.0);
        let moved = reading.source_time > self.newest;
        let ahead = lead > self.most;
        if moved && lead >= -self.most {
            self.behind = false;
        }
        let doubt = ahead || self.behind;
        self.watch(lead, moved, doubt, now);
        // A time in the future says nothing about what is newest.
        if moved && !ahead {
            self.newest = reading.source_time;
        }
        if !doubt {
            return;
        }
        if !std::mem::replace(&mut self.warned, true) {
            let (by, side) = (Duration::from_nanos(lead.unsigned_abs()), if ahead { "ahead" } else { "behind" });
            warn!(station = %self.station, ?by, "the source's clock is {side}; its readings get the time of their receipt");
        }
        reading.source_time = reading.received_time;
        if reading.validity == Validity::Good {
            reading.validity = Validity::Uncertain(Status::Own(OwnStatus::ClockSkew));
        }
    }

    fn watch(&mut self, lead: i64, moved: bool, doubt: bool, now: Instant) {
        if self.window.as_ref().is_some_and(|window| now.saturating_duration_since(window.since) >= WINDOW)
            && let Some(over) = self.window.take()
        {
            self.conclude(&over);
        }
        let fresh = Window { since: now, lead: i64::MIN, evidence: 0, doubted: false };
        let window = self.window.get_or_insert(fresh);
        window.doubted |= doubt;
        if moved {
            window.lead = window.lead.max(lead);
            window.evidence += 1;
        }
    }

    fn conclude(&mut self, over: &Window) {
        if over.evidence >= EVIDENCE {
            let same = self.before.is_some_and(|before| before.abs_diff(over.lead) <= self.most.unsigned_abs());
            self.behind = over.lead < -self.most && same;
            self.before = Some(over.lead);
        }
        if self.warned && !over.doubted && !self.behind {
            self.warned = false;
            info!(station = %self.station, "the source's clock is right again");
        }
    }
}

/// How far the newest source time lies ahead of its receipt, in nanoseconds; `None` where no source told its time.
pub(crate) fn lead(readings: &[Reading]) -> Option<i64> {
    let timed = readings.iter().filter(|reading| reading.source_time != reading.received_time && !reading.backfilled);
    let live = timed.filter(|reading| !matches!(reading.validity, Validity::Bad(Status::Own(_))));
    live.map(|reading| reading.source_time.0.saturating_sub(reading.received_time.0)).max()
}

/// What is known of the gateway's own clock; shared by all links.
#[derive(Debug, Default)]
pub struct GatewayClock {
    doubted: AtomicBool,
}

/// No gateway's clock is right before this: 2026-01-01. A board without a battery starts at 1970, or where its image was made.
const NOT_BEFORE: Time = Time(1_767_225_600_000_000_000);
/// How long a start waits for a time server. A plant may have none, and its readings must not be doubtful for ever.
const PATIENCE: Duration = Duration::from_secs(600);
/// The folder in which systemd-timesyncd says that it runs, and by a file that it has synchronised.
const TIMESYNC: &str = "/run/systemd/timesync";

/// How the gateway's clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// Nothing speaks against it.
    Trusted,
    /// A time server is awaited since the machine started.
    Awaited,
    /// It shows a year that is over.
    NotSet,
}

impl ClockState {
    /// `trusted`, `awaited` or `not_set`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Awaited => "awaited",
            Self::NotSet => "not_set",
        }
    }
}

impl GatewayClock {
    /// Looks at the clock again, and says how it is.
    pub fn look(&self) -> ClockState {
        let state = judge(Time::now(), uptime(), Path::new(TIMESYNC));
        let doubted = state != ClockState::Trusted;
        if self.doubted.swap(doubted, Relaxed) != doubted {
            match state {
                ClockState::Trusted => info!("the gateway's clock counts from now on"),
                _ => {
                    warn!(
                        ?state,
                        "the gateway's clock is not synchronised; readings that carry its time are uncertain"
                    );
                }
            }
        }
        state
    }

    /// Marks the readings that carry the gateway's time, while that is in doubt.
    pub(crate) fn mark(&self, readings: &mut [Reading]) {
        if !self.doubted.load(Relaxed) {
            return;
        }
        for reading in readings {
            let own =
                !reading.backfilled && reading.source_time == reading.received_time && reading.value != Value::Null;
            if own && reading.validity == Validity::Good {
                reading.validity = Validity::Uncertain(Status::Own(OwnStatus::ClockUnsynchronised));
            }
        }
    }
}

fn judge(now: Time, uptime: Option<Duration>, timesync: &Path) -> ClockState {
    if now < NOT_BEFORE {
        return ClockState::NotSet;
    }
    let awaited = timesync.is_dir() && !timesync.join("synchronized").exists();
    if awaited && uptime.is_some_and(|uptime| uptime < PATIENCE) { ClockState::Awaited } else { ClockState::Trusted }
}

/// Since the machine started (proc(5), `/proc/uptime`).
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TagId;

    const SECOND: i64 = 1_000_000_000;

    /// A station that may be 5 s off, and what it makes of readings that lead by so many seconds, one each second.
    fn doubted(leads: impl IntoIterator<Item = i64>) -> Vec<bool> {
        let mut skew = Skew::new("aoi-1".into(), Duration::from_secs(5));
        let start = Instant::now();
        let mut judge = |(second, lead): (u64, i64)| {
            let received = Time((1_000_000 + second.cast_signed()) * SECOND);
            let source = Time(received.0 + lead * SECOND);
            let mut reading = Reading::good(TagId(0), Value::Int(1), source, received);
            skew.judge(&mut reading, start + Duration::from_secs(second));
            let doubted = reading.validity == Validity::Uncertain(Status::Own(OwnStatus::ClockSkew));
            assert_eq!(reading.source_time, if doubted { received } else { source });
            doubted
        };
        (0..).zip(leads).map(&mut judge).collect()
    }

    #[test]
    fn a_reading_from_the_future_gets_the_time_of_its_receipt() {
        assert_eq!(doubted([-1, 5, 6, 3600, -1]), [false, false, true, true, false]);
    }

    #[test]
    fn a_clock_that_stays_behind_is_known_after_two_minutes() {
        let doubted = doubted(vec![-3600; 200]);
        let first = doubted.iter().position(|doubted| *doubted).expect("it is found out");
        assert!((118..=122).contains(&first), "after {first} s");
        assert!(doubted[first..].iter().all(|doubted| *doubted));
        let set_right = self::doubted(std::iter::repeat_n(-3600, 150).chain([0; 10]));
        assert!(set_right[149] && !set_right[150..].contains(&true), "at once");
    }

    #[test]
    fn old_data_that_comes_late_keeps_its_time() {
        // A backlog of an hour, twice as fast as it was made: five minutes' worth here.
        let backlog = (0..300).map(|second| -3600 + second);
        assert!(!doubted(backlog).contains(&true));
        // A value that has not changed since last week, told again and again.
        assert!(!doubted((0..300).map(|second| -600_000 - second)).contains(&true));
    }

    #[test]
    fn what_gemba_says_itself_and_what_has_no_source_time_is_not_judged() {
        let mut skew = Skew::new("aoi-1".into(), Duration::from_secs(5));
        let lost = Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), Time(90 * SECOND), Time(10 * SECOND));
        let mut told = lost.clone();
        skew.judge(&mut told, Instant::now());
        assert_eq!(told, lost);
        assert_eq!(lead(&[lost]), None);
    }

    #[test]
    fn the_lead_is_that_of_the_newest_source_time() {
        let at = |source| Reading::good(TagId(0), Value::Int(1), Time(source), Time(100));
        assert_eq!(lead(&[at(10), at(95), at(100)]), Some(-5));
        assert_eq!(lead(&[at(100)]), None, "without a time of its own");
    }

    #[test]
    fn the_gateways_clock_is_doubted_until_it_is_set_but_not_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let (now, minute, hour) = (Time(NOT_BEFORE.0 + 1), Duration::from_secs(60), Duration::from_secs(3600));
        let nobody = folder.path().join("nobody");
        assert_eq!(judge(Time(0), Some(hour), &nobody), ClockState::NotSet);
        assert_eq!(judge(now, Some(minute), &nobody), ClockState::Trusted, "no time service that we know runs");
        assert_eq!(judge(now, Some(minute), folder.path()), ClockState::Awaited);
        assert_eq!(judge(now, Some(hour), folder.path()), ClockState::Trusted, "a plant without a time server");
        std::fs::write(folder.path().join("synchronized"), "").expect("written");
        assert_eq!(judge(now, Some(minute), folder.path()), ClockState::Trusted);
    }

    #[test]
    fn only_what_carries_the_gateways_time_is_marked() {
        let clock = GatewayClock { doubted: AtomicBool::new(true) };
        let mut readings = [
            Reading::good(TagId(0), Value::Int(1), Time(5), Time(5)),
            Reading::good(TagId(1), Value::Int(1), Time(4), Time(5)),
            Reading::bad(TagId(2), Status::Modbus(2), Time(5), Time(5)),
        ];
        clock.mark(&mut readings);
        let words = readings.each_ref().map(|reading| reading.validity.word());
        assert_eq!(words, ["uncertain", "good", "bad"]);
    }
}
