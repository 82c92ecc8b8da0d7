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

/// The value, read as `kind` says, or as it comes where nobody said; the error is why there is none. `None` is a whole
/// number of which nobody said whether it has a sign: -5 and 4294967291 are the same bytes.
///
/// Signed numbers are sent as unsigned ones: some senders fill all 32 bits and some only those of the type, so only these
/// count. A date is its number of milliseconds.
pub(super) fn value(metric: &Metric, kind: Option<u32>) -> Option<Result<Value, OwnStatus>> {
    let Some(value) = metric.value.as_ref().filter(|_| metric.is_null != Some(true)) else {
        return Some(Err(OwnStatus::NoData));
    };
    match (kind, value) {
        (None, MetricValue::Int(_) | MetricValue::Long(_)) => None,
        (kind, value) => Some(read(value, kind.unwrap_or_default())),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the bits of the type count")]
#[expect(clippy::cast_possible_wrap, reason = "two's complement")]
fn read(value: &MetricValue, kind: u32) -> Result<Value, OwnStatus> {
    use datatype::*;
    let whole = match *value {
        MetricValue::Int(whole) => Some(u64::from(whole)),
        MetricValue::Long(whole) => Some(whole),
        _ => None,
    };
    Ok(match (kind, value) {
        (INT8, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i8)),
        (INT16, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i16)),
        (INT32, _) => Value::Int(i64::from(whole.ok_or(OwnStatus::WrongType)? as i32)),
        (INT64, _) => Value::Int(whole.ok_or(OwnStatus::WrongType)? as i64),
        (UINT8..=UINT64 | DATE_TIME, _) => unsigned(whole.ok_or(OwnStatus::WrongType)?),
        (FLOAT | 0, MetricValue::Float(real)) => Value::Float(f64::from(*real)),
        (DOUBLE | 0, MetricValue::Double(real)) => Value::Float(*real),
        (BOOLEAN | 0, MetricValue::Boolean(on)) => Value::Bool(*on),
        (STRING | TEXT | UUID | 0, MetricValue::Text(text)) => Value::Text(text.as_str().into()),
        _ => return Err(OwnStatus::WrongType),
    })
}

/// What the property `Quality` says (6.4.13: 0 bad, 192 good, 500 stale). Servers for OPC put their codes there: of classic
/// ones 64 to 127 are uncertain; of OPC UA and Ignition the two highest of 32 bits tell (OPC 10000-4, 7.39), and the
/// code is passed on where it can be one of OPC UA.
pub(super) fn validity(metric: &Metric) -> Validity {
    let Some(properties) = &metric.properties else { return Validity::Good };
    let mut named = properties.keys.iter().zip(&properties.values);
    let Some((_, property)) = named.find(|(key, _)| key.eq_ignore_ascii_case("quality")) else { return Validity::Good };
    let code = match property.value {
        Some(PropertyNumber::Int(code)) => code,
        // Signed 32 bits in 64 are as many.
        Some(PropertyNumber::Long(code)) => (code & 0xFFFF_FFFF) as u32,
        None => return Validity::Good,
    };
    let unspecified = Status::Own(OwnStatus::Unspecified);
    let status = if code & 0xFFFF == 0 { Status::Opcua(code) } else { unspecified };
    match code {
        0..=63 => Validity::Bad(unspecified),
        192..=255 => Validity::Good,
        500 => Validity::Uncertain(Status::Own(OwnStatus::Stale)),
        0x8000_0000.. => Validity::Bad(status),
        0x4000_0000.. => Validity::Uncertain(status),
        _ if code & 0xFFFF == 0 => Validity::Good,
        _ => Validity::Uncertain(unspecified),
    }
}
