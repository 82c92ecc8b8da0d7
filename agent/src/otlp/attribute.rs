//! Attributes and times, as OTLP has them.

use gemba_drivers::Time;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

pub(super) const STATION: &str = "factory.station";

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

pub(super) fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

pub(super) fn whole(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

pub(super) fn number(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}

/// Whole numbers, in order.
pub(super) fn wholes(key: &str, values: impl IntoIterator<Item = u64>) -> KeyValue {
    let value = |value| AnyValue { value: Some(Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))) };
    attribute(key, Value::ArrayValue(ArrayValue { values: values.into_iter().map(value).collect() }))
}

/// A value as it is; none for nothing.
pub(super) fn of_value(key: &str, value: &gemba_drivers::Value) -> Option<KeyValue> {
    Some(match value {
        gemba_drivers::Value::Null => return None,
        gemba_drivers::Value::Bool(on) => flag(key, *on),
        gemba_drivers::Value::Int(number) => attribute(key, Value::IntValue(*number)),
        gemba_drivers::Value::Float(number) => attribute(key, Value::DoubleValue(*number)),
        gemba_drivers::Value::Text(said) => text(key, &**said),
    })
}

/// OTLP counts from 1970 on; nothing in a factory is older.
pub(super) fn nanos(time: Time) -> u64 {
    u64::try_from(time.0).unwrap_or(0)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}
