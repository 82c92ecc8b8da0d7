//! When a payload says that its values came to be.

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde_json::Value as Json;

use crate::mqtt::config::{SourceTime, TimeFormat};
use crate::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// When the values came to be, and whether the payload said so as it should.
///
/// Where it should carry a time and does not, or one that cannot be read, the values count as of the time received and
/// are uncertain (`NoSourceTime`): they are not lost, and nobody vouches for when.
#[derive(Clone, Copy)]
pub(super) struct When {
    pub(super) at: Time,
    pub(super) told: bool,
    pub(super) now: Time,
}

impl When {
    pub(super) fn of<P>(
        time: &Option<SourceTime<P>>,
        now: Time,
        find: impl FnOnce(&P, &TimeFormat) -> Option<Time>,
    ) -> Self {
        let Some(time) = time else { return Self { at: now, told: true, now } };
        let told = find(&time.place, &time.format);
        Self { at: told.unwrap_or(now), told: told.is_some(), now }
    }

    pub(super) fn reading(&self, tag: TagId, value: Result<Value, OwnStatus>) -> Reading {
        let mut reading = match value {
            Err(status) => return Reading::bad(tag, Status::Own(status), self.at, self.now),
            Ok(value) => Reading::good(tag, value, self.at, self.now),
        };
        if !self.told && reading.validity == Validity::Good {
            reading.validity = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
        }
        reading
    }
}

/// What a payload has in the place of its time.
pub(super) enum Given<'a> {
    Whole(i64),
    Real(f64),
    Text(&'a str),
}

impl<'a> Given<'a> {
    pub(super) fn of_json(node: &'a Json) -> Option<Self> {
        match node {
            Json::Number(number) => match number.as_i64() {
                Some(whole) => Some(Self::Whole(whole)),
                None => number.as_f64().map(Self::Real),
            },
            Json::String(text) => Some(Self::Text(text)),
            _ => None,
        }
    }

    pub(super) fn of_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Int(whole) => Some(Self::Whole(*whole)),
            Value::Float(real) => Some(Self::Real(*real)),
            Value::Text(text) => Some(Self::Text(text)),
            Value::Null | Value::Bool(_) => None,
        }
    }

    /// Text that is a number where the format wants one, since a CSV file has nothing but text.
    pub(super) fn of_text(text: &'a str, format: &TimeFormat) -> Self {
        let text = text.trim();
        if matches!(format, TimeFormat::Rfc3339 | TimeFormat::Custom(..)) {
            return Self::Text(text);
        }
        let real = || text.parse().ok().filter(|_| text.starts_with(|c: char| c.is_ascii_digit() || c == '-'));
        text.parse().map(Self::Whole).ok().or_else(|| real().map(Self::Real)).unwrap_or(Self::Text(text))
    }
}

/// The instant that is meant. Numbers with a fraction are taken to the microsecond, since a 64-bit float does not hold
/// today's time any finer.
pub(super) fn instant(format: &TimeFormat, given: &Given<'_>) -> Option<Time> {
    let nanos_each: i64 = match (format, given) {
        (TimeFormat::Rfc3339, Given::Text(text)) => return text.parse().ok(),
        (TimeFormat::Custom(form, zone), Given::Text(text)) => return custom(form, zone, text),
        (TimeFormat::Rfc3339 | TimeFormat::Custom(..), _) => return None,
        (TimeFormat::UnixS, _) => 1_000_000_000,
        (TimeFormat::UnixMs, _) => 1_000_000,
        (TimeFormat::UnixUs, _) => 1_000,
        (TimeFormat::UnixNs, _) => 1,
    };
    match *given {
        Given::Whole(whole) => whole.checked_mul(nanos_each).map(Time),
        Given::Real(real) => {
            #[expect(clippy::cast_precision_loss, reason = "one to a billion")]
            let micros = (real * nanos_each as f64 / 1e3).round();
            // Any float below this bound fits i64 in nanoseconds.
            #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
            (micros.abs() < 9.2e15).then(|| Time(micros as i64 * 1_000))
        }
        Given::Text(_) => None,
    }
}

/// Text in the form that strftime would give it. A time that a zone has twice is the first of the two.
fn custom(form: &str, zone: &TimeZone, text: &str) -> Option<Time> {
    let parsed = strtime::parse(form, text).ok()?;
    if let Ok(at) = parsed.to_timestamp() {
        return Some(at.into());
    }
    let civil = parsed.to_datetime().or_else(|_| parsed.to_date().map(DateTime::from)).ok()?;
    Some(zone.to_ambiguous_timestamp(civil).compatible().ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read() {
        let berlin = TimeZone::get("Europe/Berlin").expect("bundled");
        let custom = |form: &str| TimeFormat::Custom(form.into(), berlin.clone());
        for (format, text, nanos) in [
            (TimeFormat::UnixNs, "1794556800123456789", 1_794_556_800_123_456_789),
            (TimeFormat::UnixS, "1794556800.5", 1_794_556_800_500_000_000),
            (TimeFormat::UnixS, " 1794556800 ", 1_794_556_800_000_000_000),
            (TimeFormat::Rfc3339, "2026-11-13T08:00:00Z", 1_794_556_800_000_000_000),
            (custom("%d.%m.%Y %H:%M:%S"), "13.11.2026 09:00:00", 1_794_556_800_000_000_000),
            (custom("%d.%m.%Y %H:%M:%S%.f"), "13.11.2026 09:00:00.25", 1_794_556_800_250_000_000),
            (custom("%Y-%m-%d %H:%M:%S %z"), "2026-11-13 10:00:00 +0200", 1_794_556_800_000_000_000),
            // The hour that comes twice in October.
            (custom("%Y-%m-%d %H:%M"), "2026-10-25 02:30", 1_792_888_200_000_000_000),
        ] {
            assert_eq!(instant(&format, &Given::of_text(text, &format)), Some(Time(nanos)), "{format:?} {text}");
        }
        for (format, text) in [
            (TimeFormat::UnixS, ""),
            (TimeFormat::UnixS, "nan"),
            (TimeFormat::UnixS, "9223372036854775807"),
            (TimeFormat::UnixMs, "yesterday"),
            (TimeFormat::Rfc3339, "1794556800"),
            (custom("%d.%m.%Y"), "31.02.2026"),
            (custom("%H:%M"), "09:00"),
        ] {
            assert_eq!(instant(&format, &Given::of_text(text, &format)), None, "{format:?} {text}");
        }
    }
}
