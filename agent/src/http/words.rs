//! How the page puts values into words.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use gemba_drivers::{Time, Value};
use jiff::tz::TimeZone;

/// What stands where nothing is known.
pub(super) const NOTHING: &str = "\u{2014}";

/// Text from outside, made harmless in elements and quoted attributes.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The thing, or the sign for nothing known.
pub(super) struct OrNothing<T>(pub(super) Option<T>);

impl<T: Display> Display for OrNothing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(thing) => thing.fmt(f),
            None => f.write_str(NOTHING),
        }
    }
}

/// A tag's value.
pub(super) struct Shown<'a>(pub(super) &'a Value);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str(NOTHING),
            Value::Bool(on) => f.write_str(if *on { "true" } else { "false" }),
            Value::Int(whole) => whole.fmt(f),
            Value::Float(real) => Number(*real).fmt(f),
            Value::Text(text) => Text(text).fmt(f),
        }
    }
}

/// A number, to six figures where it is not whole.
pub(super) struct Number(pub(super) f64);

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        let size = number.abs();
        if number.fract() == 0.0 && size < 1e15 {
            return write!(f, "{number}");
        }
        if !(1e-4..1e15).contains(&size) {
            return write!(f, "{number:.5e}");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 9 in this range")]
        let decimals = (5.0 - size.log10().floor()).max(0.0) as usize;
        let text = format!("{number:.decimals$}");
        let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        f.write_str(text)
    }
}

/// A ratio in percent, to a tenth.
pub(super) struct Percent(pub(super) f64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}\u{a0}%", self.0 * 100.0)
    }
}

/// A length of time in its two largest units; tenths below ten seconds.
pub(super) struct Span(pub(super) Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        match seconds {
            0..10 => write!(f, "{seconds}.{}\u{a0}s", self.0.subsec_millis() / 100),
            10..60 => write!(f, "{seconds}\u{a0}s"),
            60..3600 => write!(f, "{minutes}\u{a0}min {}\u{a0}s", seconds % 60),
            3600..86400 => write!(f, "{hours}\u{a0}h {}\u{a0}min", minutes % 60),
            _ => write!(f, "{days}\u{a0}d {}\u{a0}h", hours % 24),
        }
    }
}

/// How long ago something was, for people and scripts. Without `now` it is left to the script, which lets it tick.
pub(super) struct Age {
    pub(super) since: Time,
    pub(super) now: Option<Time>,
}

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<time class=\"age\" datetime=\"{:.3}\">", self.since.timestamp())?;
        if let Some(now) = self.now {
            Span(now.since(self.since)).fmt(f)?;
        }
        f.write_str("</time>")
    }
}

/// An instant for people, by the clock on the plant's wall, and for machines.
pub(super) struct Instant {
    pub(super) at: Time,
    pub(super) zone: TimeZone,
    /// As [`jiff::fmt::strtime`] has it.
    pub(super) format: &'static str,
}

impl Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.timestamp();
        let local = at.to_zoned(self.zone.clone());
        write!(f, "<time datetime=\"{at:.3}\">{}</time>", local.strftime(self.format))
    }
}

/// A number of parts: whole, in groups of three.
pub(super) struct Parts(pub(super) f64);

impl Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Number(self.0).to_string();
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return f.write_str(&text);
        }
        let digits = text.trim_start_matches('-');
        f.write_str(if digits.len() < text.len() { "\u{2212}" } else { "" })?;
        for (place, digit) in digits.char_indices() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// How far ahead or, with a minus, behind: whole parts.
pub(super) struct Ahead(pub(super) f64);

impl Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.round() + 0.0; // no minus before nothing
        f.write_str(if whole > 0.0 { "+" } else { "" })?;
        Parts(whole).fmt(f)
    }
}

/// A unit of UCUM as people write it: annotations without their braces.
pub(super) struct Unit<'a>(pub(super) &'a str);

impl Display for Unit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let annotation = self.0.strip_prefix('{').and_then(|unit| unit.strip_suffix('}'));
        match self.0 {
            "Cel" => f.write_str("\u{b0}C"),
            "[degF]" => f.write_str("\u{b0}F"),
            "Ohm" => f.write_str("\u{3a9}"),
            unit => Text(annotation.unwrap_or(unit)).fmt(f),
        }
    }
}

/// A size in binary units, as du says it.
pub(super) struct Bytes(pub(super) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize(self.0).display().iec().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let cases = [
            (19271.0, "19271"),
            (-3.0, "-3"),
            (0.0, "0"),
            (61.299_999_237_060_55, "61.3"),
            (0.000_123_456_789, "0.000123457"),
            (123_456.789, "123457"),
            (120_000.4, "120000"),
            (-0.875, "-0.875"),
            (999_999.5, "1000000"),
            (1e-7, "1.00000e-7"),
            (1.5e300, "1.50000e300"),
        ];
        for (number, text) in cases {
            assert_eq!(Number(number).to_string(), text);
        }
    }

    #[test]
    fn parts_are_grouped() {
        let cases = [(0.0, "0"), (999.0, "999"), (1000.0, "1 000"), (1_234_567.0, "1 234 567"), (-12_345.0, "−12 345")];
        for (parts, text) in cases.into_iter().chain([(0.5, "0.5"), (1e300, "1.00000e300")]) {
            assert_eq!(Parts(parts).to_string().replace('\u{202f}', " "), text);
        }
        for (parts, text) in [(-0.4, "0"), (0.4, "0"), (12.6, "+13"), (-1234.5, "−1 235")] {
            assert_eq!(Ahead(parts).to_string().replace('\u{202f}', " "), text);
        }
    }

    #[test]
    fn units_read_well_and_stay_text() {
        for (unit, text) in [("Cel", "°C"), ("{part}", "part"), ("N", "N"), ("{<b>}", "&lt;b&gt;")] {
            assert_eq!(Unit(unit).to_string(), text);
        }
    }

    #[test]
    fn spans_are_told_in_two_units() {
        let cases = [(0, "0.0 s"), (9_990, "9.9 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (3_600_000, "1 h 0 min")];
        for (ms, text) in cases.into_iter().chain([(183_600_000, "2 d 3 h")]) {
            assert_eq!(Span(Duration::from_millis(ms)).to_string().replace('\u{a0}', " "), text);
        }
    }
}
