//! From registers to values.

use super::config::{DataType, First, Order, Tag};
use crate::{OwnStatus, Value};

/// The value of `tag` in `words`, of which there are at least as many as the tag is wide. A float comes as it is; whether it
/// is finite is for [`crate::Reading::good`] to judge.
///
/// # Errors
/// When the words do not hold what the type asks for.
pub(super) fn decode(tag: &Tag, words: &[u16]) -> Result<Value, OwnStatus> {
    let Order { words: first, bytes } = tag.order;
    let word = |at: usize| match bytes {
        First::Big => words[at],
        First::Little => words[at].swap_bytes(),
    };
    if let Some(bit) = tag.address.bit {
        return Ok(Value::Bool(word(0) >> bit & 1 == 1));
    }
    let join = |count: usize| {
        let place = |at| if first == First::Big { at } else { count - 1 - at };
        (0..count).fold(0, |sum, at| sum << 16 | u64::from(word(place(at))))
    };
    #[expect(clippy::cast_possible_truncation, reason = "two words are 32 bits")]
    let two = || join(2) as u32;
    let four = || join(4);
    Ok(match tag.data_type {
        DataType::Bool => Value::Bool(words[0] != 0),
        DataType::U16 => Value::Int(word(0).into()),
        DataType::I16 => Value::Int(word(0).cast_signed().into()),
        DataType::U32 => Value::Int(two().into()),
        DataType::I32 => Value::Int(two().cast_signed().into()),
        #[expect(clippy::cast_precision_loss, reason = "above 2^63 the nearest float is all there is")]
        DataType::U64 => i64::try_from(four()).map_or_else(|_| Value::Float(four() as f64), Value::Int),
        DataType::I64 => Value::Int(four().cast_signed()),
        DataType::F32 => Value::Float(f32::from_bits(two()).into()),
        DataType::F64 => Value::Float(f64::from_bits(four())),
        DataType::Bcd16 => decimal(u32::from(word(0)), 4)?,
        DataType::Bcd32 => decimal(two(), 8)?,
        DataType::Text => text((0..usize::from(tag.width())).flat_map(|at| word(at).to_be_bytes()), tag.length)?,
    })
}

/// Four bits a digit, the highest first.
fn decimal(packed: u32, digits: u32) -> Result<Value, OwnStatus> {
    let digit = |place: u32| i64::from(packed >> (4 * place) & 0xF);
    let number = (0..digits).rev().try_fold(0, |sum, place| match digit(place) {
        digit @ 0..=9 => Some(sum * 10 + digit),
        _ => None,
    });
    number.map(Value::Int).ok_or(OwnStatus::Undecodable)
}

/// UTF-8 up to the first NUL, without the spaces that fill it up.
fn text(bytes: impl Iterator<Item = u8>, length: u16) -> Result<Value, OwnStatus> {
    let bytes: Vec<u8> = bytes.take(length.into()).take_while(|byte| *byte != 0).collect();
    let text = str::from_utf8(&bytes).map_err(|_| OwnStatus::Undecodable)?;
    Ok(Value::Text(text.trim_end_matches(' ').into()))
}

/// What else the same registers may be: 32 and 64 bits in the other orders, 16 bits as the other sign and the other byte
/// order, each by the options that say so. What cannot be decoded, and what no machine measures, is no suggestion.
pub(super) fn otherwise(tag: &Tag, words: &[u16]) -> Vec<(String, Value)> {
    if tag.address.table.is_bits() || tag.address.bit.is_some() {
        return Vec::new();
    }
    let like = |data_type, order| Tag { data_type, order, ..*tag };
    let orders = Order::ALL.map(|(_, order)| order);
    let mut found: Vec<(String, Value)> = Vec::new();
    let mut try_out = |other: Tag, said: String| {
        if other != *tag
            && let Ok(value) = decode(&other, words)
            && !matches!(value, Value::Float(real) if !is_plausible(real))
        {
            found.push((said, value));
        }
    };
    match tag.data_type {
        DataType::U16 | DataType::I16 => {
            for data_type in [DataType::U16, DataType::I16] {
                for bytes in [First::Big, First::Little] {
                    let order = Order { bytes, ..tag.order };
                    let swapped = if bytes == First::Little { ", byte_order: little" } else { "" };
                    try_out(like(data_type, order), format!("as: {}{swapped}", data_type.name()));
                }
            }
        }
        DataType::Text | DataType::Bcd16 => {
            for bytes in [First::Big, First::Little] {
                let said = if bytes == First::Big { "byte_order: big" } else { "byte_order: little" };
                try_out(like(tag.data_type, Order { bytes, ..tag.order }), said.to_owned());
            }
        }
        DataType::Bool => {}
        _ => orders
            .into_iter()
            .for_each(|order| try_out(like(tag.data_type, order), format!("order: {}", order.letters()))),
    }
    found
}

/// Whether a machine may measure it. Bytes in the wrong order are mostly numbers with hundreds of digits.
fn is_plausible(real: f64) -> bool {
    real == 0.0 || (1e-30..=1e30).contains(&real.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reading, Status, TagId, Time, Validity};

    fn tag(data_type: DataType, order: &str) -> Tag {
        let order = Order::ALL.into_iter().find(|(letters, _)| *letters == order).expect("an order").1;
        Tag { order, ..Tag::new(TagId(0), "holding:0".parse().expect("an address"), data_type) }
    }

    fn big(data_type: DataType, words: &[u16]) -> Value {
        decode(&tag(data_type, "ABCD"), words).expect("decodable")
    }

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
            assert_eq!(big(data_type, &words), value, "{data_type:?}");
        }
        assert_eq!(big(DataType::Bool, &[0]), Value::Bool(false));
    }

    #[test]
    fn every_order_of_two_and_four_words() {
        for (order, words) in [
            ("ABCD", [0x0102, 0x0304]),
            ("CDAB", [0x0304, 0x0102]),
            ("BADC", [0x0201, 0x0403]),
            ("DCBA", [0x0403, 0x0201]),
        ] {
            assert_eq!(decode(&tag(DataType::U32, order), &words), Ok(Value::Int(0x0102_0304)), "{order}");
        }
        for (order, words) in [
            ("ABCD", [0x0102, 0x0304, 0x0506, 0x0708]),
            ("CDAB", [0x0708, 0x0506, 0x0304, 0x0102]),
            ("BADC", [0x0201, 0x0403, 0x0605, 0x0807]),
            ("DCBA", [0x0807, 0x0605, 0x0403, 0x0201]),
        ] {
            let expected = Ok(Value::Int(0x0102_0304_0506_0708));
            assert_eq!(decode(&tag(DataType::I64, order), &words), expected, "{order}");
        }
        assert_eq!(decode(&tag(DataType::U16, "DCBA"), &[0x0201]), Ok(Value::Int(0x0102)));
    }

    #[test]
    fn a_u64_stays_whole_as_long_as_it_can() {
        assert_eq!(big(DataType::U64, &[0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF]), Value::Int(i64::MAX));
        assert_eq!(big(DataType::U64, &[0x8000, 0, 0, 0]), Value::Float(9_223_372_036_854_775_808.0));
    }

    #[test]
    fn floats_are_ieee_754() {
        assert_eq!(big(DataType::F32, &[0x42F6, 0xE979]), Value::Float(f64::from(123.456_f32)));
        assert_eq!(big(DataType::F64, &[0x405E, 0xDD2F, 0x1A9F, 0xBE77]), Value::Float(123.456));
    }

    #[test]
    fn what_is_no_number_is_a_bad_reading() {
        for words in [[0x7FC0, 0], [0x7F80, 0], [0xFF80, 0]] {
            let reading = Reading::good(TagId(0), big(DataType::F32, &words), Time(1), Time(1));
            assert_eq!(reading.validity, Validity::Bad(Status::Own(OwnStatus::NotFinite)));
            assert_eq!(reading.value, Value::Null);
        }
    }

    #[test]
    fn decimal_digits_are_ten_and_no_more() {
        assert_eq!(big(DataType::Bcd16, &[0x9876]), Value::Int(9876));
        assert_eq!(big(DataType::Bcd32, &[0x0012, 0x3456]), Value::Int(123_456));
        assert_eq!(decode(&tag(DataType::Bcd32, "CDAB"), &[0x3456, 0x0012]), Ok(Value::Int(123_456)));
        assert_eq!(decode(&tag(DataType::Bcd16, "ABCD"), &[0x12A4]), Err(OwnStatus::Undecodable));
        assert_eq!(decode(&tag(DataType::Bcd32, "ABCD"), &[0xF000, 0]), Err(OwnStatus::Undecodable));
    }

    #[test]
    fn a_bit_counts_from_the_lowest() {
        let bit = |bit, order, word| {
            let mut tag = tag(DataType::Bool, order);
            tag.address.bit = Some(bit);
            decode(&tag, &[word])
        };
        assert_eq!(bit(0, "ABCD", 0x0001), Ok(Value::Bool(true)));
        assert_eq!(bit(15, "ABCD", 0x8000), Ok(Value::Bool(true)));
        assert_eq!(bit(3, "ABCD", 0xFFF7), Ok(Value::Bool(false)));
        assert_eq!(bit(8, "BADC", 0x0001), Ok(Value::Bool(true)), "of the register as it is read");
    }

    #[test]
    fn text_ends_at_its_length_its_nul_or_its_spaces() {
        let text = |words: &[u16], length, order| decode(&Tag { length, ..tag(DataType::Text, order) }, words);
        let ok = |text: &str| Ok(Value::Text(text.into()));
        assert_eq!(text(&[0x4C4F, 0x5431], 4, "ABCD"), ok("LOT1"));
        assert_eq!(text(&[0x4F4C, 0x3154], 4, "BADC"), ok("LOT1"));
        assert_eq!(text(&[0x4C4F, 0x5431], 3, "ABCD"), ok("LOT"));
        assert_eq!(text(&[0x4C4F, 0x2020], 4, "ABCD"), ok("LO"));
        assert_eq!(text(&[0x4C00, 0x5431], 4, "ABCD"), ok("L"), "what stands behind the end is none of it");
        assert_eq!(text(&[0, 0], 4, "ABCD"), ok(""));
        assert_eq!(text(&[0xC3A4, 0x0000], 4, "ABCD"), ok("ä"));
        assert_eq!(text(&[0xFF41, 0x0000], 4, "ABCD"), Err(OwnStatus::Undecodable));
    }

    #[test]
    fn the_same_bytes_in_every_other_order() {
        let said = otherwise(&tag(DataType::U32, "ABCD"), &[0x0001, 0x0000]);
        let expected = [("order: CDAB", 1), ("order: BADC", 0x0100_0000), ("order: DCBA", 0x0100)];
        assert_eq!(said, expected.map(|(order, value)| (order.to_owned(), Value::Int(value))));
        let said = otherwise(&tag(DataType::U16, "ABCD"), &[0xFF01]);
        let expected =
            [("as: u16, byte_order: little", 0x01FF), ("as: i16", -255), ("as: i16, byte_order: little", 0x01FF)];
        assert_eq!(said, expected.map(|(order, value)| (order.to_owned(), Value::Int(value))));
        let nan = otherwise(&tag(DataType::F32, "ABCD"), &[0x3F80, 0x7FC0]);
        assert!(!nan.iter().any(|(order, _)| order == "order: CDAB"), "{nan:?}");
    }

    #[test]
    fn what_no_machine_measures_is_no_suggestion() {
        // 123.456, low word first.
        let said = otherwise(&tag(DataType::F64, "ABCD"), &[0xBE77, 0x1A9F, 0xDD2F, 0x405E]);
        assert_eq!(said, [("order: CDAB".to_owned(), Value::Float(123.456))]);
        let zero = otherwise(&tag(DataType::F64, "ABCD"), &[0; 4]);
        assert_eq!(zero.len(), 3, "nothing is something");
    }
}
