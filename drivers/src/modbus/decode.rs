//! From registers to values.

use super::config::DataType;
use crate::Value;

/// The value in `words`, of which there are at least as many as the type is wide. High word first, high byte
/// first. A float comes as it is; whether it is finite is for [`crate::Reading::good`] to judge.
pub(super) fn decode(data_type: DataType, words: &[u16]) -> Value {
    match data_type {
        DataType::Bool => Value::Bool(words[0] != 0),
        DataType::U16 => Value::Int(words[0].into()),
        DataType::I16 => Value::Int(words[0].cast_signed().into()),
        DataType::U32 => Value::Int(two(words).into()),
        DataType::I32 => Value::Int(two(words).cast_signed().into()),
        #[expect(clippy::cast_precision_loss, reason = "above 2^63 the nearest float is all there is")]
        DataType::U64 => i64::try_from(four(words)).map_or_else(|_| Value::Float(four(words) as f64), Value::Int),
        DataType::I64 => Value::Int(four(words).cast_signed()),
        DataType::F32 => Value::Float(f32::from_bits(two(words)).into()),
        DataType::F64 => Value::Float(f64::from_bits(four(words))),
    }
}

fn two(words: &[u16]) -> u32 {
    u32::from(words[0]) << 16 | u32::from(words[1])
}

fn four(words: &[u16]) -> u64 {
    u64::from(two(words)) << 32 | u64::from(two(&words[2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OwnStatus, Reading, Status, TagId, Time, Validity};

    #[test]
    fn every_type_high_word_first() {
        let words = [0xFFFE, 0x0003, 0x0000, 0x0001];
        for (data_type, value) in [
            (DataType::Bool, Value::Bool(true)),
            (DataType::U16, Value::Int(0xFFFE)),
            (DataType::I16, Value::Int(-2)),
            (DataType::U32, Value::Int(0xFFFE_0003)),
            (DataType::I32, Value::Int(-131_069)),
            (DataType::I64, Value::Int(0xFFFE_0003_0000_0001_u64.cast_signed())),
        ] {
            assert_eq!(decode(data_type, &words), value, "{data_type:?}");
        }
        assert_eq!(decode(DataType::Bool, &[0]), Value::Bool(false));
    }

    #[test]
    fn a_u64_stays_whole_as_long_as_it_can() {
        assert_eq!(decode(DataType::U64, &[0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF]), Value::Int(i64::MAX));
        assert_eq!(decode(DataType::U64, &[0x8000, 0, 0, 0]), Value::Float(9_223_372_036_854_775_808.0));
    }

    #[test]
    fn floats_are_ieee_754() {
        assert_eq!(decode(DataType::F32, &[0x42F6, 0xE979]), Value::Float(f64::from(123.456_f32)));
        assert_eq!(decode(DataType::F64, &[0x405E, 0xDD2F, 0x1A9F, 0xBE77]), Value::Float(123.456));
    }

    #[test]
    fn what_is_no_number_is_a_bad_reading() {
        for words in [[0x7FC0, 0], [0x7F80, 0], [0xFF80, 0]] {
            let reading = Reading::good(TagId(0), decode(DataType::F32, &words), Time(1), Time(1));
            assert_eq!(reading.validity, Validity::Bad(Status::Own(OwnStatus::NotFinite)));
            assert_eq!(reading.value, Value::Null);
        }
    }
}
