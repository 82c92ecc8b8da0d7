//! What a metric's value is (Eclipse Sparkplug 3.0, 6.4.16 to 6.4.18).

use super::wire::{Metric, MetricValue, PropertyNumber};
use crate::mqtt::payload::unsigned;
use crate::{OwnStatus, Status, Validity, Value};

/// Data types by their numbers.
#[allow(missing_docs, reason = "the specification's own names")]
pub mod datatype {
    pub const INT8: u32 = 1;
    pub const INT16: u32 = 2;
    pub const INT32: u32 = 3;
    pub const INT64: u32 = 4;
    pub const UINT8: u32 = 5;
    pub const UINT64: u32 = 8;
    pub const FLOAT: u32 = 9;
    pub const DOUBLE: u32 = 10;
    pub const BOOLEAN: u32 = 11;
    pub const STRING: u32 = 12;
    pub const DATE_TIME: u32 = 13;
    pub const TEXT: u32 = 14;
    pub const UUID: u32 = 15;
}

/// The value, read as `kind` says, or as it comes where nobody said; the error is why there is none.
///
/// Signed numbers are sent as unsigned ones: some senders fill all 32 bits and some only those of the type, so only these
/// count. A date is its number of milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "the bits of the type count")]
#[expect(clippy::cast_possible_wrap, reason = "two's complement")]
pub(super) fn value(metric: &Metric, kind: Option<u32>) -> Result<Value, OwnStatus> {
    use datatype::*;
    if metric.is_null == Some(true) {
        return Err(OwnStatus::NoData);
    }
    let Some(value) = &metric.value else { return Err(OwnStatus::NoData) };
    let whole = match *value {
        MetricValue::Int(whole) => Some(u64::from(whole)),
        MetricValue::Long(whole) => Some(whole),
        _ => None,
    };
    Ok(match (kind.unwrap_or_default(), value) {
        (INT8, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i8)),
        (INT16, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i16)),
        (INT32, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i32)),
        (INT64, _) => Value::Int(whole.ok_or(OwnStatus::WrongType)? as i64),
        (UINT8..=UINT64 | DATE_TIME, _) => unsigned(whole.ok_or(OwnStatus::WrongType)?),
        (FLOAT | 0, MetricValue::Float(real)) => Value::Float(f64::from(*real)),
        (DOUBLE | 0, MetricValue::Double(real)) => Value::Float(*real),
        (BOOLEAN | 0, MetricValue::Boolean(on)) => Value::Bool(*on),
        (STRING | TEXT | UUID | 0, MetricValue::Text(text)) => Value::Text(text.as_str().into()),
        (0, _) => unsigned(whole.ok_or(OwnStatus::WrongType)?),
        _ => return Err(OwnStatus::WrongType),
    })
}

/// What the property `Quality` says (6.4.13: 0 bad, 192 good, 500 stale). Servers for OPC put its codes there: 64 to 127
/// are uncertain.
pub(super) fn validity(metric: &Metric) -> Validity {
    let Some(properties) = &metric.properties else { return Validity::Good };
    let mut named = properties.keys.iter().zip(&properties.values);
    let Some((_, property)) = named.find(|(key, _)| key.eq_ignore_ascii_case("quality")) else { return Validity::Good };
    let code = match property.value {
        Some(PropertyNumber::Int(code)) => u64::from(code),
        Some(PropertyNumber::Long(code)) => code,
        None => return Validity::Good,
    };
    match code {
        0..=63 => Validity::Bad(Status::Own(OwnStatus::Unspecified)),
        192..=255 => Validity::Good,
        500 => Validity::Uncertain(Status::Own(OwnStatus::Stale)),
        _ => Validity::Uncertain(Status::Own(OwnStatus::Unspecified)),
    }
}
