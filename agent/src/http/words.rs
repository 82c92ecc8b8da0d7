//! How the page puts values into words.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use gemba_drivers::{Time, Value};

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

/// One of our own words, in the colour of a class if it needs one.
pub(super) struct Marked(pub(super) &'static str, pub(super) &'static str);

impl Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self("", word) => f.write_str(word),
            Self(class, word) => write!(f, "<span class=\"{class}\">{word}</span>"),
        }
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

/// An instant, for people and machines. UTC, to the second.
pub(super) struct Instant(pub(super) Time);

impl Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.timestamp();
        write!(f, "<time datetime=\"{at}\">{}</time>", at.strftime("%Y-%m-%d %H:%M:%SZ"))
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
    fn spans_are_told_in_two_units() {
        let cases = [(0, "0.0 s"), (9_990, "9.9 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (3_600_000, "1 h 0 min")];
        for (ms, text) in cases.into_iter().chain([(183_600_000, "2 d 3 h")]) {
            assert_eq!(Span(Duration::from_millis(ms)).to_string().replace('\u{a0}', " "), text);
        }
    }
}
