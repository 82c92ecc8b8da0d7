//! JSON, each tag at its path.

use serde_json::Value as Json;

use super::pick::Pick;
use super::when::{Given, When, instant};
use super::{Document, Said, said};
use crate::mqtt::config::Fields;
use crate::{OwnStatus, Reading, Time, Value};

const NO_JSON: &str = "the payload is not JSON";

pub(super) fn json(
    fields: &Fields<Pick>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let Some(json) = document.json() else { return Said::Unreadable(NO_JSON) };
    let when = When::of(&fields.time, now, |place, format| instant(format, &Given::of_json(place.first(json)?)?));
    let mut found = false;
    for tag in fields.about(tag) {
        match tag.place.first(json) {
            Some(node) => {
                found = true;
                into.push(when.reading(tag.id, json_value(node, tag.numeric).ok_or(OwnStatus::WrongType)));
            }
            None if tag.required => into.push(tag.missing(when.at, now)),
            None => {}
        }
    }
    said(found)
}

/// The node as a value; `None` when it is none, or text where only numbers make sense.
pub(super) fn json_value(node: &Json, numeric: bool) -> Option<Value> {
    match node {
        Json::Bool(on) => Some(Value::Bool(*on)),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Some(Value::Int(whole)),
            None => number.as_f64().map(Value::Float), // above 2^63 too
        },
        Json::String(text) if !numeric => Some(Value::Text(text.as_str().into())),
        Json::String(_) | Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
