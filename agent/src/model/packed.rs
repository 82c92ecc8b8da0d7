//! Facts at rest, column by column: a checkpoint is written every half minute, and facts are many and much alike. Times stand as
//! differences in whole milliseconds with what is beyond them beside, which most sources leave at nothing.

use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::model::period::Count;
use crate::model::timeline::{Made, Span};
use crate::model::{LateBy, State};

const MILLI: i64 = 1_000_000;

/// Times, each as its difference from the one before.
#[derive(Serialize, Deserialize)]
struct Times {
    millis: Vec<i64>,
    /// Nanoseconds beyond; empty if there are none anywhere.
    nanos: Vec<u32>,
}

impl Times {
    fn pack(times: impl Iterator<Item = i64>) -> Self {
        let mut before = 0;
        let split = |at: i64| {
            let step = at.wrapping_sub(before);
            before = at;
            (step.div_euclid(MILLI), u32::try_from(step.rem_euclid(MILLI)).unwrap_or_default())
        };
        let (millis, mut nanos): (Vec<i64>, Vec<u32>) = times.map(split).unzip();
        if nanos.iter().all(|&nanos| nanos == 0) {
            nanos.clear();
        }
        Self { millis, nanos }
    }

    fn unpack(&self) -> impl Iterator<Item = i64> {
        let nanos = self.nanos.iter().copied().chain(std::iter::repeat(0));
        self.millis.iter().zip(nanos).scan(0_i64, |at, (&millis, nanos)| {
            *at = at.wrapping_add(millis.wrapping_mul(MILLI)).wrapping_add(i64::from(nanos));
            Some(*at)
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Spans {
    from: Times,
    state: Vec<State>,
    /// After the beginning.
    confirmed: Times,
}

/// [`Timeline`](crate::model::timeline::Timeline)'s states.
pub mod spans {
    use super::{Deserialize, Deserializer, Error, Serialize, Serializer, Span, Spans, Time, Times};

    pub fn serialize<S: Serializer>(spans: &[Span], to: S) -> Result<S::Ok, S::Error> {
        let spans = Spans {
            from: Times::pack(spans.iter().map(|span| span.from.0)),
            state: spans.iter().map(|span| span.state).collect(),
            confirmed: Times::pack(spans.iter().map(|span| span.confirmed.0.wrapping_sub(span.from.0))),
        };
        spans.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Span>, D::Error> {
        let Spans { from, state, confirmed } = Spans::deserialize(from)?;
        if from.millis.len() != state.len() || confirmed.millis.len() != state.len() {
            return Err(D::Error::custom("columns of unlike length"));
        }
        let times = from.unpack().zip(confirmed.unpack());
        let span = |((from, after), state): ((i64, i64), _)| Span {
            from: Time(from),
            state,
            confirmed: Time(from.wrapping_add(after)),
        };
        Ok(times.zip(state).map(span).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct Counted {
    since: Times,
    /// After that.
    at: Times,
    count: Vec<Count>,
    parts: Vec<f64>,
    gap: Vec<bool>,
}

/// [`Timeline`](crate::model::timeline::Timeline)'s counts.
pub mod made {
    use super::{Counted, Deserialize, Deserializer, Error, Made, Serialize, Serializer, Time, Times};

    pub fn serialize<S: Serializer>(made: &[Made], to: S) -> Result<S::Ok, S::Error> {
        let counted = Counted {
            since: Times::pack(made.iter().map(|made| made.since.0)),
            at: Times::pack(made.iter().map(|made| made.at.0.wrapping_sub(made.since.0))),
            count: made.iter().map(|made| made.count).collect(),
            parts: made.iter().map(|made| made.parts).collect(),
            gap: made.iter().map(|made| made.gap).collect(),
        };
        counted.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Made>, D::Error> {
        let Counted { since, at, count, parts, gap } = Counted::deserialize(from)?;
        let lengths = [since.millis.len(), at.millis.len(), parts.len(), gap.len()];
        if lengths.iter().any(|&length| length != count.len()) {
            return Err(D::Error::custom("columns of unlike length"));
        }
        let told = count.into_iter().zip(parts).zip(gap);
        let made = |((since, after), ((count, parts), gap)): ((i64, i64), _)| Made {
            since: Time(since),
            at: Time(since.wrapping_add(after)),
            count,
            parts,
            gap,
        };
        Ok(since.unpack().zip(at.unpack()).zip(told).map(made).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct Stayed {
    from: Times,
    /// Eight bytes each, the lowest first: numbers without a pattern.
    unit: Vec<u8>,
    /// After the beginning; nothing where there is none.
    mark: Times,
    marked: Vec<bool>,
}

/// [`Stays`](crate::model::late::Stays)'s units.
pub mod stays {
    use super::{Deserialize, Deserializer, Error, Serialize, Serializer, Stayed, Time, Times};
    use crate::model::late::{Stay, Unit};

    pub fn serialize<S: Serializer>(stays: &[Stay], to: S) -> Result<S::Ok, S::Error> {
        let after = |stay: &Stay| stay.mark.map_or(0, |mark| mark.0.wrapping_sub(stay.from.0));
        let stayed = Stayed {
            from: Times::pack(stays.iter().map(|stay| stay.from.0)),
            unit: stays.iter().flat_map(|stay| stay.unit.0.to_le_bytes()).collect(),
            mark: Times::pack(stays.iter().map(after)),
            marked: stays.iter().map(|stay| stay.mark.is_some()).collect(),
        };
        stayed.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Stay>, D::Error> {
        let Stayed { from, unit, mark, marked } = Stayed::deserialize(from)?;
        let (units, rest) = unit.as_chunks::<8>();
        let lengths = [units.len(), mark.millis.len(), marked.len()];
        if !rest.is_empty() || lengths.iter().any(|&length| length != from.millis.len()) {
            return Err(D::Error::custom("columns of unlike length"));
        }
        let told = units.iter().zip(mark.unpack()).zip(marked);
        let stay = |(from, ((unit, mark), marked)): (i64, ((&[u8; 8], i64), bool))| Stay {
            from: Time(from),
            unit: Unit(u64::from_le_bytes(*unit)),
            mark: marked.then(|| Time(from.wrapping_add(mark))),
        };
        Ok(from.unpack().zip(told).map(stay).collect())
    }
}

#[derive(Serialize, Deserialize)]
struct Rejects {
    at: Times,
    /// Before that.
    since: Times,
    /// Likewise; nothing where it is not known.
    made: Times,
    found: Vec<bool>,
    unit: Vec<u8>,
    by: Vec<LateBy>,
    station: Vec<Arc<str>>,
    code: Vec<Arc<str>>,
    parts: Vec<f64>,
}

/// [`Late`](crate::model::late::Late)'s rejects.
pub mod rejects {
    use super::{Deserialize, Deserializer, Error, Rejects, Serialize, Serializer, Time, Times};
    use crate::model::late::{Held, Rejected, Unit};

    pub fn serialize<S: Serializer>(rejects: &[Held], to: S) -> Result<S::Ok, S::Error> {
        let told = || rejects.iter().map(|held| &held.rejected);
        let before = |at: Time, time: Time| at.0.wrapping_sub(time.0);
        let rejects = Rejects {
            at: Times::pack(told().map(|told| told.at.0)),
            since: Times::pack(told().map(|told| before(told.at, told.since))),
            made: Times::pack(rejects.iter().map(|held| held.made.map_or(0, |made| before(held.rejected.at, made)))),
            found: rejects.iter().map(|held| held.made.is_some()).collect(),
            unit: told().flat_map(|told| told.unit.0.to_le_bytes()).collect(),
            by: told().map(|told| told.by).collect(),
            station: told().map(|told| told.station.clone()).collect(),
            code: told().map(|told| told.code.clone()).collect(),
            parts: told().map(|told| told.parts).collect(),
        };
        rejects.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Held>, D::Error> {
        let Rejects { at, since, made, found, unit, by, station, code, parts } = Rejects::deserialize(from)?;
        let (units, rest) = unit.as_chunks::<8>();
        let lengths = [since.millis.len(), made.millis.len(), found.len(), units.len(), by.len(), station.len()];
        let unlike = |length: usize| length != at.millis.len();
        if !rest.is_empty() || lengths.into_iter().chain([code.len(), parts.len()]).any(unlike) {
            return Err(D::Error::custom("columns of unlike length"));
        }
        let times = at.unpack().zip(since.unpack()).zip(made.unpack());
        let held = |(place, ((at, since), made)): (usize, ((i64, i64), i64))| Held {
            rejected: Rejected {
                at: Time(at),
                turn: Time(at),
                station: station[place].clone(),
                by: by[place],
                unit: Unit(u64::from_le_bytes(units[place])),
                since: Time(at.wrapping_sub(since)),
                code: code[place].clone(),
                parts: parts[place],
                back: false,
            },
            made: found[place].then(|| Time(at.wrapping_sub(made))),
        };
        Ok(times.enumerate().map(held).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::late::{Held, Rejected, Stay, Unit};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Facts {
        #[serde(with = "spans")]
        spans: Vec<Span>,
        #[serde(with = "made")]
        made: Vec<Made>,
        #[serde(with = "stays")]
        stays: Vec<Stay>,
        #[serde(with = "rejects")]
        rejects: Vec<Held>,
    }

    fn reject() -> impl Strategy<Value = Held> {
        let times = (any::<i64>(), any::<i64>(), any::<Option<i64>>());
        (times, any::<u64>(), "[a-z]{0,3}", 0.0..1e9_f64).prop_map(|((at, since, made), unit, code, parts)| Held {
            rejected: Rejected {
                at: Time(at),
                turn: Time(at),
                station: "aoi-1".into(),
                by: if unit % 2 == 0 { LateBy::Serial } else { LateBy::Lot },
                unit: Unit(unit),
                since: Time(since),
                code: code.into(),
                parts,
                back: false,
            },
            made: made.map(Time),
        })
    }

    fn stay() -> impl Strategy<Value = Stay> {
        (any::<i64>(), any::<u64>(), any::<Option<i64>>()).prop_map(|(from, unit, mark)| Stay {
            from: Time(from),
            unit: Unit(unit),
            mark: mark.map(Time),
        })
    }

    fn span() -> impl Strategy<Value = Span> {
        (any::<i64>(), 0..12_usize, any::<i64>()).prop_map(|(from, state, confirmed)| Span {
            from: Time(from),
            state: State::ALL[state],
            confirmed: Time(confirmed),
        })
    }

    fn counted() -> impl Strategy<Value = Made> {
        (any::<i64>(), any::<i64>(), 0.0..1e9_f64, any::<bool>()).prop_map(|(since, at, parts, gap)| Made {
            since: Time(since),
            at: Time(at),
            count: if gap { Count::Total } else { Count::Reject },
            parts,
            gap,
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_was(
            spans in prop::collection::vec(span(), 0..20),
            made in prop::collection::vec(counted(), 0..20),
            stays in prop::collection::vec(stay(), 0..20),
            rejects in prop::collection::vec(reject(), 0..20),
        ) {
            let facts = Facts { spans, made, stays, rejects };
            let bytes = postcard::to_allocvec(&facts).expect("plain data");
            prop_assert_eq!(&postcard::from_bytes::<Facts>(&bytes).expect("packed"), &facts);
            for cut in 0..bytes.len() {
                prop_assert!(postcard::from_bytes::<Facts>(&bytes[..cut]).is_err(), "cut at {}", cut);
            }
        }
    }
}
