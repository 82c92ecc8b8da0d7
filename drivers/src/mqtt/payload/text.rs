//! Text as a value, for payloads that have nothing else.

use super::when::When;
use super::{Document, NO_TEXT, Said, said};
use crate::mqtt::config::{Fields, Text};
use crate::{OwnStatus, Reading, Time, Value};

/// An empty payload is how a retained message is taken back: it says nothing, which is no loss, except where text is
/// wanted.
pub(super) fn plain(
    fields: &Fields<Text>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let Some(text) = document.text() else { return Said::Unreadable(NO_TEXT) };
    let when = When { at: now, told: true, now };
    let mut found = text.is_empty();
    for tag in fields.about(tag).iter().filter(|tag| tag.place == Text::Text || !text.trim().is_empty()) {
        found = true;
        into.push(when.reading(tag.id, value(text, tag.place, tag.numeric)));
    }
    said(found)
}

/// What `text` is; the error is why it is no value.
///
/// NaN and infinity are no words but numbers that a device could not tell: [`Reading::good`](crate::Reading::good) makes
/// them bad. Whole numbers beyond 64 bits are real ones.
pub(super) fn value(text: &str, read: Text, numeric: bool) -> Result<Value, OwnStatus> {
    let read = if numeric && read == Text::Any { Text::Number } else { read };
    match read {
        Text::Text if numeric => Err(OwnStatus::WrongType),
        Text::Text => Ok(Value::Text(text.into())),
        Text::Number => number(text.trim()).ok_or(OwnStatus::WrongType),
        Text::Bool => match text.trim() {
            "1" => Ok(Value::Bool(true)),
            "0" => Ok(Value::Bool(false)),
            other => truth(other).ok_or(OwnStatus::WrongType),
        },
        Text::Any => {
            let trimmed = text.trim();
            Ok(number(trimmed).or_else(|| truth(trimmed)).unwrap_or_else(|| Value::Text(trimmed.into())))
        }
    }
}

fn truth(text: &str) -> Option<Value> {
    match text {
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Digits with a point or an exponent; a decimal comma is none. `nan` and `inf` as printf writes them are numbers too.
fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let unsaid = ["nan", "inf", "infinity"].iter().any(|word| digits.eq_ignore_ascii_case(word));
    if !unsaid && !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(whole) = text.parse() {
        return Some(Value::Int(whole));
    }
    text.parse().ok().map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_it_looks_like_unless_told() {
        let any = |text| value(text, Text::Any, false);
        assert_eq!(any("21"), Ok(Value::Int(21)));
        assert_eq!(any("-21.5\n"), Ok(Value::Float(-21.5)));
        assert_eq!(any("1e3"), Ok(Value::Float(1000.0)));
        assert_eq!(any("99999999999999999999"), Ok(Value::Float(1e20)));
        assert_eq!(any("1e999"), Ok(Value::Float(f64::INFINITY)), "which is a bad reading");
        assert!(matches!(any("NaN"), Ok(Value::Float(real)) if real.is_nan()));
        assert_eq!(any("true"), Ok(Value::Bool(true)));
        for text in ["21 °C", "1,5", "running", "0x10", "1_000", "", "--1", "e5", "."] {
            assert_eq!(any(text), Ok(Value::Text(text.into())), "{text}");
        }
        assert_eq!(value("0042", Text::Text, false), Ok(Value::Text("0042".into())));
        assert_eq!(value("0042", Text::Any, false), Ok(Value::Int(42)));
        assert_eq!(value("21 °C", Text::Any, true), Err(OwnStatus::WrongType));
        assert_eq!(value("on", Text::Number, false), Err(OwnStatus::WrongType));
        assert_eq!(value("7", Text::Text, true), Err(OwnStatus::WrongType));
        assert_eq!(value("1", Text::Bool, false), Ok(Value::Bool(true)));
        assert_eq!(value("2", Text::Bool, false), Err(OwnStatus::WrongType));
    }
}
