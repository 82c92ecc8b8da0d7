//! Bytes in a fixed layout.

use super::when::{Given, When, instant};
use super::{Document, Said, said};
use crate::mqtt::config::{Field, Fields, Kind};
use crate::{OwnStatus, Reading, Time, Value};

/// A layout is fixed, so that a tag whose bytes are not there is bad beside those whose are.
pub(super) fn binary(
    fields: &Fields<Field>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let when = When::of(&fields.time, now, |field, format| {
        instant(format, &Given::of_value(&field.value(document.bytes, false).ok()?)?)
    });
    let mut found = false;
    for tag in fields.about(tag) {
        let value = tag.place.value(document.bytes, tag.numeric);
        found |= value != Err(OwnStatus::WrongLength);
        into.push(when.reading(tag.id, value));
    }
    said(found)
}

impl Field {
    /// What the field says in `payload`; the error is why it says nothing.
    pub(super) fn value(&self, payload: &[u8], numeric: bool) -> Result<Value, OwnStatus> {
        let end = self.offset.checked_add(self.kind.size()).ok_or(OwnStatus::WrongLength)?;
        let bytes = payload.get(self.offset..end).ok_or(OwnStatus::WrongLength)?;
        Ok(match self.kind {
            Kind::Bool => Value::Bool(bytes[0] != 0),
            Kind::Bit(bit) => Value::Bool(bytes[0] >> bit & 1 == 1),
            Kind::Unsigned(_) => unsigned(self.whole(bytes)),
            #[expect(clippy::cast_possible_wrap, reason = "two's complement: that is what the bytes are")]
            Kind::Signed(size) => {
                let unused = 64 - 8 * u32::from(size);
                Value::Int((self.whole(bytes) << unused) as i64 >> unused)
            }
            #[expect(clippy::cast_possible_truncation, reason = "four bytes were read")]
            Kind::F32 => Value::Float(f32::from_bits(self.whole(bytes) as u32).into()),
            Kind::F64 => Value::Float(f64::from_bits(self.whole(bytes))),
            Kind::Text(_) if numeric => return Err(OwnStatus::WrongType),
            Kind::Text(_) => {
                let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                let text = std::str::from_utf8(&bytes[..end]).map_err(|_| OwnStatus::Undecodable)?;
                Value::Text(text.trim_end_matches(' ').into())
            }
        })
    }

    /// Up to eight bytes as one number.
    fn whole(&self, bytes: &[u8]) -> u64 {
        let add = |whole: u64, byte: &u8| whole << 8 | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }
}

/// Above 2^63 a real number, as in JSON.
pub(in crate::mqtt) fn unsigned(whole: u64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "the nearest that there is")]
    i64::try_from(whole).map_or_else(|_| Value::Float(whole as f64), Value::Int)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(offset: usize, kind: Kind, little: bool) -> Field {
        Field { offset, kind, little }
    }

    #[test]
    fn every_kind_is_read_in_both_orders() {
        let bytes = [0xFF, 0xFE, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06];
        for (kind, big, little) in [
            (Kind::Unsigned(1), Value::Int(255), Value::Int(255)),
            (Kind::Signed(1), Value::Int(-1), Value::Int(-1)),
            (Kind::Unsigned(2), Value::Int(0xFFFE), Value::Int(0xFEFF)),
            (Kind::Signed(2), Value::Int(-2), Value::Int(-257)),
            (Kind::Unsigned(4), Value::Int(0xFFFE_0102), Value::Int(0x0201_FEFF)),
            (Kind::Signed(4), Value::Int(-0x1_FEFE), Value::Int(0x0201_FEFF)),
            (Kind::Unsigned(8), unsigned(0xFFFE_0102_0304_0506), Value::Int(0x0605_0403_0201_FEFF)),
            (Kind::Bool, Value::Bool(true), Value::Bool(true)),
            (Kind::Bit(0), Value::Bool(true), Value::Bool(true)),
        ] {
            assert_eq!(field(0, kind, false).value(&bytes, false), Ok(big), "{kind:?}");
            assert_eq!(field(0, kind, true).value(&bytes, false), Ok(little), "{kind:?}");
        }
        assert_eq!(field(1, Kind::Bit(0), false).value(&bytes, false), Ok(Value::Bool(false)));
        assert_eq!(field(0, Kind::F32, false).value(&1.5_f32.to_be_bytes(), false), Ok(Value::Float(1.5)));
        assert_eq!(field(0, Kind::F64, true).value(&(-0.1_f64).to_le_bytes(), false), Ok(Value::Float(-0.1)));
        assert_eq!(unsigned(u64::MAX), Value::Float(18_446_744_073_709_551_615.0));
    }

    #[test]
    fn what_is_not_there_or_no_text_is_told() {
        let text = |bytes: &[u8]| field(1, Kind::Text(4), false).value(bytes, false);
        assert_eq!(text(b"xab\0\xFF"), Ok(Value::Text("ab".into())));
        assert_eq!(text(b"xab  "), Ok(Value::Text("ab".into())));
        assert_eq!(text(b"x\0\0\0\0"), Ok(Value::Text("".into())));
        assert_eq!(text(b"x\xC3\x28ab"), Err(OwnStatus::Undecodable));
        assert_eq!(text(b"xab"), Err(OwnStatus::WrongLength));
        assert_eq!(field(0, Kind::Text(1), false).value(b"7", true), Err(OwnStatus::WrongType));
        assert_eq!(field(usize::MAX, Kind::Unsigned(8), false).value(b"", false), Err(OwnStatus::WrongLength));
        assert_eq!(field(1, Kind::Unsigned(2), false).value(b"ab", false), Err(OwnStatus::WrongLength));
    }
}
