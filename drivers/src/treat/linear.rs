//! `scale`, `offset` and `clamp`: from what a device counts to what it measures.

use super::Options;
use crate::{OwnStatus, Reading, Status, Validity, Value};

/// A straight line, and its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    scale: Option<f64>,
    offset: Option<f64>,
    clamp: Option<(f64, f64)>,
}

impl Linear {
    pub(super) fn new(options: &Options) -> Option<Self> {
        let Options { scale, offset, clamp, .. } = *options;
        (scale.is_some() || offset.is_some() || clamp.is_some()).then_some(Self { scale, offset, clamp })
    }

    /// A whole number stays whole as long as nothing but a whole offset is asked of it. What is no number is bad, as is
    /// what is no longer finite.
    pub(super) fn apply(&self, reading: &mut Reading) {
        let value = match reading.value {
            Value::Null => return,
            Value::Int(whole) => self.whole(whole),
            Value::Float(real) => Value::Float(self.line(real)),
            Value::Bool(_) | Value::Text(_) => return turn_bad(reading, OwnStatus::WrongType),
        };
        if matches!(value, Value::Float(real) if !real.is_finite()) {
            return turn_bad(reading, OwnStatus::NotFinite);
        }
        reading.value = value;
        self.clamp(reading);
    }

    fn whole(&self, whole: i64) -> Value {
        let shifted = match (self.scale, self.offset) {
            (None, None) => Some(whole),
            (None, Some(offset)) => as_whole(offset).and_then(|offset| whole.checked_add(offset)),
            (Some(_), _) => None,
        };
        #[expect(clippy::cast_precision_loss, reason = "a measured value has no 53 bits")]
        shifted.map_or_else(|| Value::Float(self.line(whole as f64)), Value::Int)
    }

    fn line(&self, value: f64) -> f64 {
        value * self.scale.unwrap_or(1.0) + self.offset.unwrap_or(0.0)
    }

    fn clamp(&self, reading: &mut Reading) {
        let (Some((min, max)), Some(value)) = (self.clamp, reading.value.as_f64()) else { return };
        let end = if value < min {
            min
        } else if value > max {
            max
        } else {
            return;
        };
        let was_whole = matches!(reading.value, Value::Int(_));
        reading.value = as_whole(end).filter(|_| was_whole).map_or(Value::Float(end), Value::Int);
        if reading.validity == Validity::Good {
            reading.validity = Validity::Uncertain(Status::Own(OwnStatus::Clamped));
        }
    }
}

/// The same number as an integer, if it is one that a float holds exactly.
pub(super) fn as_whole(real: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within 2^53")]
    (real.fract() == 0.0 && real.abs() <= EXACT).then_some(real as i64)
}

fn turn_bad(reading: &mut Reading, status: OwnStatus) {
    reading.value = Value::Null;
    reading.validity = Validity::Bad(Status::Own(status));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TagId, Time};

    fn treated(options: &Options, value: Value) -> (Value, Validity) {
        let mut reading = Reading::good(TagId(0), value, Time(1), Time(2));
        Linear::new(options).expect("there is something to do").apply(&mut reading);
        (reading.value, reading.validity)
    }

    #[test]
    fn counts_become_measures() {
        let celsius = Options { scale: Some(0.1), offset: Some(-40.0), ..Options::default() };
        assert_eq!(treated(&celsius, Value::Int(650)), (Value::Float(25.0), Validity::Good));
        assert_eq!(treated(&celsius, Value::Float(400.0)), (Value::Float(0.0), Validity::Good));
        let bad = |status| (Value::Null, Validity::Bad(Status::Own(status)));
        assert_eq!(treated(&celsius, Value::Text("25".into())), bad(OwnStatus::WrongType));
        assert_eq!(treated(&celsius, Value::Bool(true)), bad(OwnStatus::WrongType));
        let huge = Options { scale: Some(1e300), ..Options::default() };
        assert_eq!(treated(&huge, Value::Float(1e300)), bad(OwnStatus::NotFinite));
    }

    #[test]
    fn whole_numbers_stay_whole_without_a_scale() {
        let shifted = |offset| Options { offset: Some(offset), ..Options::default() };
        assert_eq!(treated(&shifted(-3.0), Value::Int(i64::MAX)).0, Value::Int(i64::MAX - 3));
        assert_eq!(treated(&shifted(0.5), Value::Int(2)).0, Value::Float(2.5));
        assert!(matches!(treated(&shifted(1.0), Value::Int(i64::MAX)).0, Value::Float(_)), "rather than wrap");
    }

    #[test]
    fn outside_the_clamp_is_its_nearer_end_and_uncertain() {
        let clamp = Options { clamp: Some((0.0, 99.5)), ..Options::default() };
        let doubt = Validity::Uncertain(Status::Own(OwnStatus::Clamped));
        assert_eq!(treated(&clamp, Value::Int(-3)), (Value::Int(0), doubt));
        assert_eq!(treated(&clamp, Value::Int(100)), (Value::Float(99.5), doubt));
        assert_eq!(treated(&clamp, Value::Float(1e9)), (Value::Float(99.5), doubt));
        for inside in [Value::Int(0), Value::Float(99.5), Value::Int(7)] {
            assert_eq!(treated(&clamp, inside.clone()), (inside, Validity::Good));
        }
    }

    #[test]
    fn what_was_in_doubt_before_keeps_its_own_reason_and_bad_stays_bad() {
        let linear = Linear::new(&Options { clamp: Some((0.0, 1.0)), ..Options::default() }).expect("something");
        let doubt = Validity::Uncertain(Status::Opcua(0x4090_0000));
        let mut reading = Reading { validity: doubt, ..Reading::good(TagId(0), Value::Int(5), Time(1), Time(1)) };
        linear.apply(&mut reading);
        assert_eq!((reading.value, reading.validity), (Value::Int(1), doubt));
        let mut bad = Reading::bad(TagId(0), Status::Modbus(2), Time(1), Time(1));
        linear.apply(&mut bad);
        assert_eq!(bad, Reading::bad(TagId(0), Status::Modbus(2), Time(1), Time(1)));
    }
}
