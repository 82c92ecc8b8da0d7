//! From OPC UA's values to ours.

use std::fmt::Write as _;
use std::sync::Arc;

use opcua::types::{DataValue, DateTime, StatusCode, UAString, Variant};

use crate::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// The status a reading carries: severity and sub code. The low half holds flags (limits, overflow,
/// structure changed) that say something about the value, not why it is doubtful.
const CODE: u32 = 0xFFFF_0000;

/// What the server said of `tag`.
///
/// The time is the source's; the server's where the source gave none, and `received` where neither did.
pub(super) fn reading(tag: TagId, told: DataValue, received: Time) -> Reading {
    let source_time = told
        .source_timestamp
        .as_ref()
        .and_then(time)
        .or_else(|| told.server_timestamp.as_ref().and_then(time))
        .unwrap_or(received);
    let code = told.status.unwrap_or(StatusCode::Good);
    let status = Status::Opcua(code.bits() & CODE);
    if code.is_bad() {
        return Reading::bad(tag, status, source_time, received);
    }
    let mut reading = match value(told.value.unwrap_or_default()) {
        Ok(value) => Reading::good(tag, value, source_time, received),
        Err(own) => return Reading::bad(tag, Status::Own(own), source_time, received),
    };
    if code.is_uncertain() && reading.validity == Validity::Good {
        reading.validity = Validity::Uncertain(status);
    }
    reading
}

/// Whether the server had to throw values away before this one for want of room in its queue.
pub(super) fn overflown(told: &DataValue) -> bool {
    /// Bit 7. Some servers set it without the info type that should go with it (OPC 10000-4, 7.39.1).
    const OVERFLOW: u32 = 0x0080;
    told.status.is_some_and(|code| code.bits() & OVERFLOW != 0)
}

/// A value on its own. Arrays and structures have no place in a tag; what is picked of them may.
pub(super) fn value(told: Variant) -> Result<Value, OwnStatus> {
    Ok(match told {
        Variant::Empty => return Err(OwnStatus::NoData),
        Variant::Boolean(on) => Value::Bool(on),
        Variant::SByte(whole) => Value::Int(whole.into()),
        Variant::Byte(whole) => Value::Int(whole.into()),
        Variant::Int16(whole) => Value::Int(whole.into()),
        Variant::UInt16(whole) => Value::Int(whole.into()),
        Variant::Int32(whole) => Value::Int(whole.into()),
        Variant::UInt32(whole) => Value::Int(whole.into()),
        Variant::Int64(whole) => Value::Int(whole),
        #[expect(clippy::cast_precision_loss, reason = "above 2^63 the nearest float is all there is")]
        Variant::UInt64(whole) => i64::try_from(whole).map_or(Value::Float(whole as f64), Value::Int),
        Variant::Float(real) => Value::Float(real.into()),
        Variant::Double(real) => Value::Float(real),
        Variant::String(text) => self::text(&text),
        Variant::LocalizedText(localized) => text(&localized.text),
        Variant::QualifiedName(name) => text(&name.name),
        Variant::Guid(guid) => Value::Text(guid.to_string().into()),
        Variant::StatusCode(code) => Value::Text(Arc::from(&*Status::Opcua(code.bits()).name())),
        // As readers and labels print them: two hexadecimal digits a byte.
        Variant::ByteString(bytes) => Value::Text(hex(bytes.as_ref()).into()),
        Variant::NodeId(node) => Value::Text(node.to_string().into()),
        Variant::ExpandedNodeId(node) => Value::Text(node.to_string().into()),
        Variant::XmlElement(element) => Value::Text(element.to_string().into()),
        Variant::Variant(inner) => return value(*inner),
        Variant::DateTime(at) => Value::Text(rfc3339(&at).ok_or(OwnStatus::WrongType)?.into()),
        _ => return Err(OwnStatus::WrongType),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A null string is an empty one: the server vouches for it.
fn text(told: &UAString) -> Value {
    Value::Text(Arc::from(told.as_ref()))
}

/// To the 100 ns that OPC UA has. `None` for the null time (1601) and others that no clock shows.
pub(super) fn time(at: &DateTime) -> Option<Time> {
    at.as_chrono().timestamp_nanos_opt().map(Time)
}

fn rfc3339(at: &DateTime) -> Option<String> {
    let at = at.as_chrono();
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).ok()?;
    jiff::Timestamp::new(at.timestamp(), nanos).ok().map(|at| at.to_string())
}
