//! Times as people say them.

use std::str::FromStr;
use std::time::Duration;

use gemba_drivers::Time;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::cli::Misuse;
use crate::config;

/// An instant, as somebody says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// This one.
    At(Time),
    /// So long ago.
    Ago(Duration),
    /// By the clock on the wall: so many days ago, at this time.
    Clock(i8, civil::Time),
}

/// A text that names no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write 06:20, yesterday/22:40, -10m, now, or RFC 3339 such as 2026-03-02T06:20:00Z")]
pub(super) struct NoTime(String);

impl FromStr for When {
    type Err = NoTime;

    fn from_str(text: &str) -> Result<Self, NoTime> {
        let wrong = || NoTime(text.to_owned());
        if text == "now" {
            return Ok(Self::Ago(Duration::ZERO));
        }
        if let Some(ago) = text.strip_prefix('-') {
            // Of times of day everybody means minutes.
            let minutes = ago.strip_suffix('m').map(|minutes| format!("{minutes}min"));
            return config::duration(minutes.as_deref().unwrap_or(ago)).map(Self::Ago).map_err(|_| wrong());
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let (days, clock) = match text.split_once('/') {
            None => (0, text),
            Some(("today", clock)) => (0, clock),
            Some(("yesterday", clock)) => (1, clock),
            Some(_) => return Err(wrong()),
        };
        let clock = [clock, &format!("{clock}:00")].into_iter().find_map(|clock| {
            civil::Time::strptime("%H:%M:%S", clock).ok().filter(|_| clock.len() == "06:20:00".len())
        });
        clock.map(|clock| Self::Clock(days, clock)).ok_or_else(wrong)
    }
}

impl When {
    /// The instant that it is at `now`, where the clocks go by `zone`.
    ///
    /// # Errors
    /// The clock shows that time twice that day, or not at all.
    pub(super) fn resolve(self, zone: &TimeZone, now: Time) -> Result<Time, Misuse> {
        let (days, clock) = match self {
            Self::At(at) => return Ok(at),
            Self::Ago(ago) => return Ok(now - ago),
            Self::Clock(days, clock) => (days, clock),
        };
        let far = || Misuse(format!("{clock} is no time that can be told"));
        let today = jiff::Timestamp::from_nanosecond(now.0.into()).map_err(|_| far())?.to_zoned(zone.clone()).date();
        let day = today.checked_sub(jiff::Span::new().days(days)).map_err(|_| far())?;
        let at = zone.to_ambiguous_zoned(day.to_datetime(clock));
        if at.is_ambiguous() {
            let why = "the clocks change there, so it is twice that day or not at all; write it as RFC 3339";
            return Err(Misuse(format!("{clock} on {day} is no single instant: {why}")));
        }
        at.unambiguous().map(|at| at.timestamp().into()).map_err(|_| far())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, now: &str) -> Result<String, String> {
        let when: When = text.parse().map_err(|error: NoTime| error.to_string())?;
        let zone = TimeZone::get("Europe/Berlin").expect("a time zone");
        let now = now.parse().expect("RFC 3339");
        when.resolve(&zone, now).map(|at| at.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_said_as_on_the_floor() {
        // 23:30 of the 2nd in Berlin.
        let now = "2026-03-02T22:30:00Z";
        for (text, expected) in [
            ("now", now),
            ("06:20", "2026-03-02T05:20:00Z"),
            ("06:20:30", "2026-03-02T05:20:30Z"),
            ("today/00:10", "2026-03-01T23:10:00Z"),
            ("yesterday/22:40", "2026-03-01T21:40:00Z"),
            ("-10m", "2026-03-02T22:20:00Z"),
            ("-10min", "2026-03-02T22:20:00Z"),
            ("-90s", "2026-03-02T22:28:30Z"),
            ("-2h", "2026-03-02T20:30:00Z"),
            ("2026-03-02T06:20:00+01:00", "2026-03-02T05:20:00Z"),
        ] {
            assert_eq!(at(text, now), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_said() {
        for text in ["", "6:20", "24:00", "06:60", "10m", "-", "-10", "-10x", "tomorrow/06:00", "06", "2026-03-02"] {
            let said = at(text, "2026-03-02T22:30:00Z").expect_err(text);
            assert!(said.starts_with(&format!("`{text}` is no time: write 06:20")), "{said}");
        }
    }

    #[test]
    fn what_the_clock_shows_twice_or_never_is_no_instant() {
        for (now, text) in [("2026-10-25T12:00:00Z", "02:30"), ("2026-03-29T12:00:00Z", "02:30")] {
            assert!(at(text, now).expect_err(text).contains("no single instant"));
            assert!(at("04:30", now).is_ok());
        }
    }
}
