//! What is computed for a station: which tags tell the state and the counts.

use gemba_drivers::{TagId, Value, modbus};

use super::TagFacts;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::tree::Key;
use crate::config::words::{Name, is_number, one_of_names};
use crate::model::{CounterSpec, OeeSpec, StateSpec};

/// What became of `oee:`.
#[derive(Default)]
pub(in crate::config) struct Resolved {
    /// `None` when there is nothing to compute, or something was wrong.
    pub(super) spec: Option<OeeSpec>,
    /// The tag whose values are text.
    pub(super) text_tag: Option<TagId>,
}

impl Resolved {
    /// Whether `tag` counts, so that text is a wrong type for it.
    pub(in crate::config) fn counts(&self, tag: TagId) -> bool {
        let Some(spec) = &self.spec else { return false };
        [&spec.total, &spec.good, &spec.reject].into_iter().flatten().any(|counter| counter.tag == tag)
    }

    /// Whether `tag` tells the state.
    pub(super) fn tells_state(&self, tag: TagId) -> bool {
        self.spec.as_ref().and_then(|spec| spec.state.as_ref()).is_some_and(|state| state.tag == tag)
    }
}

/// What `oee` means for a station with these tags.
pub(super) fn resolve(oee: Option<&At<raw::Oee>>, tags: &[TagFacts], report: &mut Report) -> Resolved {
    let Some(oee) = oee else { return Resolved::default() };
    if oee.state.is_none() && oee.total.is_none() && oee.good.is_none() && oee.reject.is_none() {
        oee.wrong(report, "there is nothing to compute from; name a tag for `state`, `total`, `good` or `reject`");
    }
    if let (Some(_), Some(_), Some(reject)) = (&oee.total, &oee.good, &oee.reject) {
        reject.wrong(report, "two of `total`, `good` and `reject` are enough, the third is derived; leave one out");
    }
    let mut roles = Roles { tags, taken: Vec::new() };
    let state = oee.state.as_ref().and_then(|state| roles.state(&state.value.0, report));
    let mut counter = |role, counter: &Option<At<raw::Counter>>| {
        counter.as_ref().and_then(|counter| roles.counter(role, &counter.value, report))
    };
    let (total, good) = (counter("total", &oee.total), counter("good", &oee.good));
    let reject = counter("reject", &oee.reject);
    let text_tag = state.as_ref().filter(|(_, text)| *text).map(|(spec, _)| spec.tag);
    let spec = oee.min_coverage.as_ref().map(|min_coverage| OeeSpec {
        ideal_cycle_time: oee.ideal_cycle_time.as_ref().map(|time| time.0),
        state: state.map(|(spec, _)| spec),
        total,
        good,
        reject,
        min_coverage: min_coverage.0,
        ..OeeSpec::default()
    });
    Resolved { spec, text_tag }
}

/// Who uses which tag: each has one use.
struct Roles<'a> {
    tags: &'a [TagFacts],
    taken: Vec<(TagId, &'static str)>,
}

impl<'a> Roles<'a> {
    fn tag(&mut self, role: &'static str, name: &At<Name>, report: &mut Report) -> Option<&'a TagFacts> {
        let Some(tag) = self.tags.iter().find(|tag| tag.name == name.value.0) else {
            let names = self.tags.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
            name.wrong(
                report,
                format!("`{}` is no tag of this station{}", name.origin.shown, one_of_names(&name.origin.shown, names)),
            );
            return None;
        };
        if let Some((_, other)) = self.taken.iter().find(|(taken, _)| *taken == tag.id) {
            name.wrong(report, format!("`{}` is already the tag of `{other}`", name.origin.shown));
        }
        self.taken.push((tag.id, role));
        Some(tag)
    }

    fn state(&mut self, raw: &raw::StateKeys, report: &mut Report) -> Option<(StateSpec, bool)> {
        let tag = raw.tag.as_ref().and_then(|name| self.tag("state", name, report));
        if let Some(map) = raw.map.as_ref().filter(|map| map.value.0.is_empty()) {
            map.wrong(report, "the map is empty; write it as `{ 1: producing, 2: down }`");
        }
        let map = raw.map.iter().flat_map(|map| &map.value.0);
        let mut entries = Vec::new();
        let mut text = false;
        for (key, state) in map {
            let wrong = match device_value(key) {
                Err(message) => message,
                Ok((value, _)) if entries.iter().any(|(known, _)| *known == value) => {
                    format!("the value `{value}` is already in the map")
                }
                Ok((value, kind)) => {
                    match tag.and_then(|tag| tag.data_type).and_then(|of| never_comes(of, &value, kind)) {
                        Some(message) => message,
                        None => {
                            text |= kind == KeyKind::Text;
                            entries.push((value, state.0));
                            continue;
                        }
                    }
                }
            };
            report.add(&key.place, &state.origin.path, wrong);
        }
        let tag = tag?;
        if let Some(preset) = raw.preset.as_ref().filter(|_| tag.data_type == Some(modbus::DataType::Bool)) {
            preset.wrong(report, format!("`{}` is a `bool`, and the standard's states are numbers", tag.shown));
        }
        for (value, state) in raw.preset.iter().flat_map(|preset| preset.0.entries()) {
            let number = value.bytes().all(|byte| byte.is_ascii_digit());
            // A register has numbers only. What the map says of a value counts more than the standard.
            if (number || tag.data_type.is_none()) && entries.iter().all(|(known, _)| *known != value) {
                text |= !number;
                entries.push((value, state));
            }
        }
        if entries.is_empty() {
            return None;
        }
        Some((StateSpec { tag: tag.id, map: entries }, text))
    }

    fn counter(&mut self, role: &'static str, raw: &raw::Counter, report: &mut Report) -> Option<CounterSpec> {
        let name = raw.tag.as_ref()?;
        let tag = self.tag(role, name, report)?;
        if let Some(of @ (modbus::DataType::Bool | modbus::DataType::Text)) = tag.data_type {
            let of = of.name();
            name.wrong(
                report,
                format!("`{}` is a `{of}`, which cannot count; read it as a number, such as `u32`", name.origin.shown),
            );
        }
        Some(CounterSpec {
            #[expect(clippy::cast_precision_loss, reason = "at most 2^53, exact")]
            modulus: raw.modulus.as_ref().map(|modulus| modulus.0 as f64),
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            ..CounterSpec::of(tag.id)
        })
    }
}

/// What a device must send for a key to match.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyKind {
    Number,
    Truth,
    Text,
}

/// The key as the value that a device sends is written: `1`, `true`, `Execute`.
pub(super) fn device_value(key: &Key) -> Result<(String, KeyKind), String> {
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
pub(super) fn never_comes(of: modbus::DataType, value: &str, kind: KeyKind) -> Option<String> {
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
