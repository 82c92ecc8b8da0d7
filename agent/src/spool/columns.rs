//! Readings as columns: what makes 11 bytes of a reading.
//!
//! Series and times are differences to the reading before, so that a poll of neighbouring tags costs one byte for
//! each; kinds of value and validities are runs. Whatever cannot be a difference (a float) is stored as it is.

use std::sync::Arc;

use gemba_drivers::{Time, Validity, Value};
use serde::{Deserialize, Serialize};

use super::{SeriesId, StoredReading};

/// Readings in a frame at most: a decoder refuses more, whatever the bytes say.
pub(super) const MAX_READINGS: usize = 256;
/// A text above this is no reading any more: it is stored as bad (`WrongLength`). Drivers refuse far smaller ones.
const MAX_TEXT: usize = 8 << 20;

/// The payload of a readings frame, version 1. `series` stays first: [`count`] reads its length alone. Behind it, if any
/// reading came from history, runs of whether it did: earlier versions of gemba leave unread what comes behind.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Columns {
    series: Vec<i64>,
    source: Vec<i64>,
    received: Vec<i64>,
    kinds: Vec<(Kind, u16)>,
    validity: Vec<(Validity, u16)>,
    ints: Vec<i64>,
    floats: Vec<f64>,
    texts: Vec<Arc<str>>,
    #[serde(skip)]
    backfilled: Vec<(bool, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Null,
    False,
    True,
    Int,
    Float,
    Text,
}

/// Encodes into buffers that it keeps, since it runs for every reading.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    columns: Columns,
    bytes: Vec<u8>,
}

impl Encoder {
    /// The payload for `readings`, at most [`MAX_READINGS`] of them.
    pub(super) fn encode(&mut self, readings: &[StoredReading]) -> &[u8] {
        debug_assert!(readings.len() <= MAX_READINGS);
        let text = self.columns.fill(readings);
        // A varint takes up to 10 bytes, of which a reading has three, a run two, and a whole number one.
        let bound = 64 + readings.len() * 68 + text;
        self.bytes.resize(bound.max(self.bytes.len()), 0);
        const HOLDS: &str = "the bound holds every column at its longest";
        let used = postcard::to_slice(&self.columns, &mut self.bytes).expect(HOLDS).len();
        let history = &self.columns.backfilled;
        let more = if history.iter().any(|(backfilled, _)| *backfilled) {
            postcard::to_slice(history, &mut self.bytes[used..]).expect(HOLDS).len()
        } else {
            0
        };
        &self.bytes[..used + more]
    }
}

impl Columns {
    /// Replaces what it holds; returns the bytes of text in it.
    fn fill(&mut self, readings: &[StoredReading]) -> usize {
        self.clear();
        let (mut series, mut source, mut received, mut text) = (0, 0, 0, 0);
        for reading in readings {
            let (own, from, at) = (i64::from(reading.series.0), reading.source_time.0, reading.received_time.0);
            self.series.push(own - series);
            self.source.push(from.wrapping_sub(source));
            self.received.push(at.wrapping_sub(received));
            (series, source, received) = (own, from, at);
            let mut validity = reading.validity;
            let kind = match &reading.value {
                Value::Null => Kind::Null,
                Value::Bool(false) => Kind::False,
                Value::Bool(true) => Kind::True,
                Value::Int(whole) => {
                    self.ints.push(*whole);
                    Kind::Int
                }
                Value::Float(real) => {
                    self.floats.push(*real);
                    Kind::Float
                }
                Value::Text(held) if held.len() > MAX_TEXT => {
                    validity = Validity::Bad(gemba_drivers::Status::Own(gemba_drivers::OwnStatus::WrongLength));
                    Kind::Null
                }
                Value::Text(held) => {
                    text += held.len() + 10;
                    self.texts.push(Arc::clone(held));
                    Kind::Text
                }
            };
            run(&mut self.kinds, kind);
            run(&mut self.validity, validity);
            run(&mut self.backfilled, reading.backfilled);
        }
        text
    }

    fn clear(&mut self) {
        let Self { series, source, received, kinds, validity, ints, floats, texts, backfilled } = self;
        series.clear();
        source.clear();
        received.clear();
        kinds.clear();
        validity.clear();
        ints.clear();
        floats.clear();
        texts.clear();
        backfilled.clear();
    }
}

fn run<T: PartialEq>(runs: &mut Vec<(T, u16)>, item: T) {
    match runs.last_mut() {
        Some((held, count)) if *held == item => *count += 1,
        _ => runs.push((item, 1)),
    }
}

/// The readings of a payload; `None` when its columns do not fit each other.
pub(super) fn decode(payload: &[u8]) -> Option<Vec<StoredReading>> {
    let (columns, behind) = postcard::take_from_bytes::<Columns>(payload).ok()?;
    let count = columns.series.len();
    let history: Vec<(bool, u16)> = match behind {
        [] => vec![(false, u16::try_from(count).ok()?)],
        behind => postcard::from_bytes(behind).ok()?,
    };
    let fits = count <= MAX_READINGS
        && columns.source.len() == count
        && columns.received.len() == count
        && length(&columns.kinds) == count
        && length(&columns.validity) == count
        && length(&history) == count;
    if !fits {
        return None;
    }
    let mut kinds = flat(columns.kinds);
    let mut validity = flat(columns.validity);
    let mut history = flat(history);
    let (mut ints, mut floats) = (columns.ints.into_iter(), columns.floats.into_iter());
    let mut texts = columns.texts.into_iter();
    let (mut own, mut from, mut at) = (0_i64, 0_i64, 0_i64);
    let mut readings = Vec::with_capacity(count);
    for ((series, source), received) in columns.series.into_iter().zip(columns.source).zip(columns.received) {
        own = own.checked_add(series)?;
        from = from.wrapping_add(source);
        at = at.wrapping_add(received);
        let value = match kinds.next()? {
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Int => Value::Int(ints.next()?),
            Kind::Float => Value::Float(floats.next()?),
            Kind::Text => Value::Text(texts.next()?),
        };
        readings.push(StoredReading {
            series: SeriesId(u32::try_from(own).ok()?),
            value,
            validity: validity.next()?,
            source_time: Time(from),
            received_time: Time(at),
            backfilled: history.next()?,
        });
    }
    Some(readings)
}

/// How many readings a payload says it has, without decoding it; 0 for garbage.
pub(super) fn count(payload: &[u8]) -> u64 {
    let count = postcard::take_from_bytes::<u32>(payload).map_or(0, |(count, _)| count);
    if count as usize <= MAX_READINGS { u64::from(count) } else { 0 }
}

fn length<T>(runs: &[(T, u16)]) -> usize {
    runs.iter().map(|(_, count)| usize::from(*count)).sum()
}

fn flat<T: Copy>(runs: Vec<(T, u16)>) -> impl Iterator<Item = T> {
    runs.into_iter().flat_map(|(item, count)| std::iter::repeat_n(item, usize::from(count)))
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Status};
    use proptest::prelude::*;

    use super::*;

    fn any_reading() -> impl Strategy<Value = StoredReading> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            prop::num::f64::NORMAL.prop_map(Value::Float),
            ".{0,20}".prop_map(|text| Value::Text(text.into())),
        ];
        let validity = prop_oneof![
            4 => Just(Validity::Good),
            1 => any::<u32>().prop_map(|code| Validity::Uncertain(Status::Opcua(code))),
            1 => any::<u8>().prop_map(|code| Validity::Bad(Status::Modbus(code))),
            1 => Just(Validity::Bad(Status::Own(OwnStatus::LinkLost))),
        ];
        let times = (any::<i64>(), any::<i64>());
        (any::<u32>(), value, validity, times, any::<bool>()).prop_map(
            |(series, value, validity, (source, at), backfilled)| StoredReading {
                series: SeriesId(series),
                value,
                validity,
                source_time: Time(source),
                received_time: Time(at),
                backfilled,
            },
        )
    }

    proptest! {
        #[test]
        fn readings_come_back_as_they_went(readings in prop::collection::vec(any_reading(), 0..MAX_READINGS)) {
            let mut encoder = Encoder::default();
            encoder.encode(&[]);
            let payload = encoder.encode(&readings).to_vec();
            prop_assert_eq!(count(&payload), readings.len() as u64);
            prop_assert_eq!(decode(&payload), Some(readings));
        }

        #[test]
        fn garbage_never_panics_or_grows(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let decoded = decode(&payload);
            prop_assert!(decoded.is_none_or(|readings| readings.len() <= MAX_READINGS));
            prop_assert!(count(&payload) <= MAX_READINGS as u64);
        }

        #[test]
        fn a_garbled_payload_never_panics(
            readings in prop::collection::vec(any_reading(), 1..40), place: prop::sample::Index, with: u8, cut: prop::sample::Index
        ) {
            let mut payload = Encoder::default().encode(&readings).to_vec();
            let at = place.index(payload.len());
            payload[at] = with;
            decode(&payload);
            payload.truncate(cut.index(payload.len()));
            decode(&payload);
        }
    }

    /// What gemba wrote before there was history: one good whole number, 7, of series 3.
    #[test]
    fn payloads_from_before_there_was_history_are_read() {
        let before = [1, 6, 1, 2, 1, 4, 1, 3, 1, 1, 0, 1, 1, 14, 0, 0];
        let reading = StoredReading {
            series: SeriesId(3),
            value: Value::Int(7),
            validity: Validity::Good,
            source_time: Time(1),
            received_time: Time(2),
            backfilled: false,
        };
        assert_eq!(decode(&before).as_deref(), Some(std::slice::from_ref(&reading)));
        assert_eq!(Encoder::default().encode(std::slice::from_ref(&reading)), before, "and written so still");
        let backfilled = StoredReading { backfilled: true, ..reading };
        let payload = Encoder::default().encode(std::slice::from_ref(&backfilled)).to_vec();
        assert_eq!(payload[..before.len()], before, "an earlier gemba reads it too, without the mark");
        assert_eq!(decode(&payload), Some(vec![backfilled]));
    }

    #[test]
    fn a_polled_float_takes_at_most_eleven_and_a_half_bytes() {
        let readings: Vec<_> = (0..256)
            .map(|tag| StoredReading {
                series: SeriesId(1_000 + tag),
                value: Value::Float(f64::from(tag) * 1.1),
                validity: Validity::Good,
                source_time: Time(1_760_000_000_000_000_000),
                received_time: Time(1_760_000_000_003_000_000),
                backfilled: false,
            })
            .collect();
        let bytes = Encoder::default().encode(&readings).len() + super::super::frame::HEADER;
        assert!(bytes * 2 <= readings.len() * 23, "{bytes} bytes");
    }

    #[test]
    fn a_text_beyond_all_bounds_becomes_a_bad_reading() {
        let mut reading = StoredReading {
            series: SeriesId(1),
            value: Value::Text("x".repeat(MAX_TEXT + 1).into()),
            validity: Validity::Good,
            source_time: Time(1),
            received_time: Time(2),
            backfilled: false,
        };
        let stored = decode(Encoder::default().encode(std::slice::from_ref(&reading))).expect("sound");
        reading.value = Value::Null;
        reading.validity = Validity::Bad(Status::Own(OwnStatus::WrongLength));
        assert_eq!(stored, [reading]);
    }
}
