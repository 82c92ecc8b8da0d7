//! What the values of a tag mean: the keys of a map, as the device sends them.

use gemba_drivers::{Value, modbus};

use super::TagFacts;
use crate::config::error::Report;
use crate::config::section::{At, Entries};
use crate::config::tree::Key;
use crate::config::words::is_number;

/// What the values of a tag mean.
pub(super) struct Values<T> {
    /// Each value as text, once.
    pub(super) entries: Vec<(String, T)>,
    /// Some of them are neither numbers nor truth values.
    pub(super) text: bool,
}

/// What `map` says of the values of `tag`; what is wrong with them, and what `meaning` finds wrong, is reported and left out.
pub(super) fn values<V, T>(
    map: Option<&At<Entries<V>>>,
    example: &str,
    tag: Option<&TagFacts>,
    meaning: impl Fn(&At<V>, &mut Report) -> Option<T>,
    report: &mut Report,
) -> Values<T> {
    if let Some(map) = map.filter(|map| map.value.0.is_empty()) {
        map.wrong(report, format!("the map is empty; write it as `{example}`"));
    }
    let mut values = Values { entries: Vec::new(), text: false };
    for (key, told) in map.iter().flat_map(|map| &map.value.0) {
        let wrong = match device_value(key) {
            Err(message) => message,
            Ok((value, _)) if values.entries.iter().any(|(known, _)| *known == value) => {
                format!("the value `{value}` is already in the map")
            }
            Ok((value, kind)) => match tag.and_then(|tag| tag.data_type).and_then(|of| never_comes(of, &value, kind)) {
                Some(message) => message,
                None => {
                    values.text |= kind == KeyKind::Text;
                    values.entries.extend(meaning(told, report).map(|meaning| (value, meaning)));
                    continue;
                }
            },
        };
        report.add(&key.place, &told.origin.path, wrong);
    }
    values
}

/// What a device must send for a key to match.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Number,
    Truth,
    Text,
}

/// The key as the value that a device sends is written: `1`, `true`, `Execute`.
fn device_value(key: &Key) -> Result<(String, KeyKind), String> {
    let text = key.scalar.text.as_str();
    if text.is_empty() {
        return Err("a value of the device is not empty".to_owned());
    }
    let number = text.parse::<i64>().ok().map(Value::Int);
    let number = number.or_else(|| text.parse::<f64>().ok().filter(|real| real.is_finite()).map(Value::Float));
    if key.scalar.plain {
        match text.to_ascii_lowercase().as_str() {
            truth @ ("true" | "false") => return Ok((truth.to_owned(), KeyKind::Truth)),
            word @ ("yes" | "on" | "no" | "off") => {
                let truth = matches!(word, "yes" | "on");
                return Err(format!(
                    "`{text}` is a truth value to YAML 1.1; write `{truth}` for a boolean, or \"{text}\" in quotes for text"
                ));
            }
            _ if is_number(text) => {
                let number =
                    number.ok_or_else(|| format!("`{text}` is no decimal number; put it in quotes if it is text"))?;
                return Ok((number.to_string(), KeyKind::Number));
            }
            _ => {}
        }
    }
    let kind = match text {
        "true" | "false" => KeyKind::Truth,
        _ if number.is_some_and(|number| number.to_string() == text) => KeyKind::Number,
        _ => KeyKind::Text,
    };
    Ok((text.to_owned(), kind))
}

/// Why a Modbus tag of type `of` can never have this value, if so.
fn never_comes(of: modbus::DataType, value: &str, kind: KeyKind) -> Option<String> {
    use modbus::DataType;
    if of == DataType::Text {
        return None;
    }
    if of == DataType::Bool {
        return (kind != KeyKind::Truth)
            .then(|| format!("`{value}` never comes from a `bool`; write `true` or `false`"));
    }
    if kind != KeyKind::Number {
        return Some(format!("`{value}` never comes from a Modbus register; its values are numbers"));
    }
    let whole = value.parse::<i64>();
    let fits = match of {
        DataType::U16 => whole.is_ok_and(|value| u16::try_from(value).is_ok()),
        DataType::I16 => whole.is_ok_and(|value| i16::try_from(value).is_ok()),
        DataType::U32 => whole.is_ok_and(|value| u32::try_from(value).is_ok()),
        DataType::I32 => whole.is_ok_and(|value| i32::try_from(value).is_ok()),
        DataType::I64 => whole.is_ok(),
        DataType::U64 => !value.starts_with('-'),
        DataType::Bcd16 | DataType::Bcd32 => {
            whole.is_ok_and(|value| (0..=i64::from(of.bcd_most().unwrap_or_default())).contains(&value))
        }
        DataType::F32 | DataType::F64 | DataType::Bool | DataType::Text => true,
    };
    (!fits).then(|| format!("`{value}` never comes from a Modbus `{}`", of.name()))
}
