//! What single values may say about time on the wall.

use gemba_drivers::Time;
use jiff::civil;
use serde_json::{Value, json};

use super::section::Leaf;
use super::suggest;
use super::tree::Scalar;

/// A time on the wall; `END` allows `24:00`, which is midnight at the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WallTime<const END: bool>(pub(super) civil::Time);

impl<const END: bool> Leaf for WallTime<END> {
    const FORM: &'static str = "a time of day such as \"06:00\"";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if END && (text == "24:00" || text == "24:00:00") {
            return Ok(Self(civil::Time::midnight()));
        }
        if let Ok(minutes) = text.parse::<u32>() {
            // 06:00 without quotes is a number to base 60 in YAML 1.1.
            return Err(if scalar.plain && (60..24 * 60).contains(&minutes) {
                let meant = format!("\"{:02}:{:02}\"", minutes / 60, minutes % 60);
                format!("`{text}` is a number, as YAML 1.1 tools make of a time without quotes; did you mean {meant}?")
            } else {
                format!("`{text}` is no time of day; write it as \"06:00\"")
            });
        }
        let parts: Vec<_> = text.split(':').collect();
        let two_digits = parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()));
        let time = match parts.as_slice() {
            [_, _] | [_, _, _] if two_digits => text.parse::<civil::Time>().ok(),
            _ => None,
        };
        time.map(Self).ok_or_else(|| {
            let padded = parts.iter().map(|part| format!("{part:0>2}")).collect::<Vec<_>>().join(":");
            match padded.parse::<civil::Time>() {
                Ok(_) if parts.len() == 2 && padded != text => {
                    format!("`{text}` is no time of day; did you mean \"{padded}\"?")
                }
                _ => format!("`{text}` is no time of day; write it as \"06:00\""),
            }
        })
    }

    fn schema() -> Value {
        let last = if END { "|^24:00(:00)?$" } else { "" };
        json!({ "type": "string", "pattern": format!(r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?${last}") })
    }
}

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date(pub(super) civil::Date);

impl Leaf for Date {
    const FORM: &'static str = "a date such as 2026-12-24";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        date(text).map(Self).ok_or_else(|| match meant(text) {
            Some(meant) => format!("`{text}` is no date; did you mean `{meant}`?"),
            None => format!("`{text}` is no date; write it as 2026-12-24"),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" })
    }
}

/// `2026-12-24`, and nothing else.
fn date(text: &str) -> Option<civil::Date> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape.then(|| text.parse().ok()).flatten()
}

/// The date somebody had in mind: `24.12.2026`, `2026/12/24`, `2026-1-5`. Of `1/5/2026` nobody knows.
fn meant(text: &str) -> Option<civil::Date> {
    let [a, b, c] = text.split(['-', '.', '/']).collect::<Vec<_>>().try_into().ok()?;
    let (year, day) = if text.contains('.') { (c, a) } else { (a, c) };
    date(&format!("{year}-{b:0>2}-{day:0>2}"))
}

/// An instant, or a time on the wall that the line's zone makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Instant(Time),
    Wall(civil::DateTime),
}

impl When {
    /// The instant, unless it is centuries away. What a change of clock skips or repeats is taken as shifts are.
    pub(super) fn instant(self, zone: &jiff::tz::TimeZone) -> Option<Time> {
        let at = match self {
            Self::Instant(at) => at,
            Self::Wall(wall) => zone.to_ambiguous_zoned(wall).compatible().ok()?.timestamp().into(),
        };
        (Time(i64::MIN) < at && at < Time(i64::MAX)).then_some(at)
    }
}

impl Leaf for When {
    const FORM: &'static str =
        "an instant such as 2026-01-01T06:00:00Z, or a time in the line's zone such as 2026-01-01T06:00";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        let instant = text.parse::<jiff::Timestamp>().ok().map(|at| Self::Instant(at.into()));
        // A name of a zone in brackets would be passed over.
        let wall = || text.parse().ok().filter(|_| !text.contains('[')).map(Self::Wall);
        instant.or_else(wall).ok_or_else(|| match meant(text) {
            Some(meant) => format!("`{text}` is no instant; did you mean `{meant}`?"),
            None => format!(
                "`{text}` is no instant; write it as 2026-01-01T06:00:00Z, or as 2026-01-01T06:00 on the line's clocks"
            ),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?$" })
    }
}

/// Days of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days(pub(super) [bool; 7]);

/// As they are written, Monday first.
pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Leaf for Days {
    const FORM: &'static str = "days such as `mon-fri` or `mon,wed,sat`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let mut days = [false; 7];
        for part in scalar.text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (mut at, last) = (day(first.trim())?, day(last.trim())?);
            loop {
                if std::mem::replace(&mut days[at], true) {
                    return Err(format!("`{}` names `{}` twice", scalar.text, DAYS[at]));
                }
                if at == last {
                    break;
                }
                at = (at + 1) % 7; // sun-thu wraps around the end of the week
            }
        }
        Ok(Self(days))
    }

    fn schema() -> Value {
        let day = "(mon|tue|wed|thu|fri|sat|sun)";
        json!({ "type": "string", "pattern": format!("^{day}( *- *{day})?( *, *{day}( *- *{day})?)*$") })
    }
}

fn day(text: &str) -> Result<usize, String> {
    DAYS.iter().position(|day| *day == text).ok_or_else(|| {
        let lower = text.to_lowercase();
        match DAYS.iter().find(|day| lower.starts_with(**day)) {
            Some(day) if !text.contains('-') => format!("`{text}` is no day; did you mean `{day}`?"),
            _ => format!("`{text}` is no day; one of {}, or a range such as `mon-fri`", suggest::list(DAYS)),
        }
    })
}

/// A zone of the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone(pub(super) jiff::tz::TimeZone);

impl Leaf for Zone {
    const FORM: &'static str = "an IANA time zone such as `Europe/Berlin`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        jiff::tz::TimeZone::get(text).map(Self).map_err(|_| {
            let names: Vec<_> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            // `Berlin` alone is the end of a name, not a slip of the finger.
            let city =
                names.iter().find(|name| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text)));
            match city.map(String::as_str).or_else(|| suggest::nearest(text, names.iter().map(String::as_str))) {
                Some(name) => format!("`{text}` is no IANA time zone; did you mean `{name}`?"),
                None => format!("`{text}` is no IANA time zone; write it as `Europe/Berlin`"),
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "examples": ["Europe/Berlin", "UTC"] })
    }
}
