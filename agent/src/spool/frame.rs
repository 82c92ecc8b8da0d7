//! The frame: what a journal, a segment's values and recovery are made of.
//!
//! `[length u32][crc u32][version u8][lane u8][flags u8][sequence u64][payload]`, little endian. `length` counts what
//! follows the crc; the crc (CRC-32, IEEE) is over the same bytes. A frame names itself wholly, so one that was found
//! by searching is as good as one that was read in order.

use std::borrow::Cow;

use gemba_drivers::{Delivery, Time};
use serde::{Deserialize, Serialize};

/// Bytes before the payload.
pub(super) const HEADER: usize = 19;
/// Bytes before those that `length` and the crc speak of.
const PREFIX: usize = 8;
/// A longer one is taken for damage; it also bounds what a garbled length can cost.
pub(super) const MAX_FRAME: usize = 64 << 20;
/// Of the payloads' encoding. A reader refuses what it does not know instead of guessing.
pub(super) const VERSION: u8 = 1;
/// Flag of the frame that ends a commit; it carries a [`Mark::Commit`].
pub(super) const ENDS_COMMIT: u8 = 1;

/// What kind of thing a frame holds: what is kept, dropped and sealed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Lane {
    /// State and validity changes, losses: dropped last.
    Events = 0,
    /// Figures.
    Kpis = 1,
    /// Readings.
    Readings = 2,
    /// The agent's own telemetry: dropped first.
    Telemetry = 3,
    /// Checkpoints, ticks, deliveries and the marks that end commits. Never goes upstream.
    Model = 4,
}

impl Lane {
    /// Every lane, by number.
    pub const ALL: [Self; 5] = [Self::Events, Self::Kpis, Self::Readings, Self::Telemetry, Self::Model];
    /// Those that go upstream, least worth first.
    pub(super) const LEAST_WORTH: [Self; 4] = [Self::Telemetry, Self::Readings, Self::Kpis, Self::Events];

    /// Its name, in file names and in the loss ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Kpis => "kpis",
            Self::Readings => "readings",
            Self::Telemetry => "telemetry",
            Self::Model => "model",
        }
    }

    /// The lane of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.name() == name)
    }

    fn numbered(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// How much of each lane that goes upstream: readings in the readings lane, items in the telemetry lane, records in the
/// others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Units([u64; 4]);

impl Units {
    /// Of one lane; the model lane has none.
    pub(super) fn of(self, lane: Lane) -> u64 {
        self.0.get(lane as usize).copied().unwrap_or(0)
    }

    /// Of all lanes.
    pub(super) fn total(self) -> u64 {
        self.0.iter().fold(0, |sum, units| sum.saturating_add(*units))
    }

    /// Of all lanes but the agent's own telemetry: what somebody waits for.
    pub(super) fn records(self) -> u64 {
        self.total() - self.of(Lane::Telemetry)
    }

    /// `units` more of `lane`.
    pub(super) fn add(&mut self, lane: Lane, units: u64) {
        if let Some(held) = self.0.get_mut(lane as usize) {
            *held = held.saturating_add(units);
        }
    }

    /// Lane by lane.
    pub(super) fn plus(mut self, other: Self) -> Self {
        Lane::LEAST_WORTH.into_iter().for_each(|lane| self.add(lane, other.of(lane)));
        self
    }

    /// Lane by lane, never below zero.
    pub(super) fn minus(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(held, less)| *held = held.saturating_sub(less));
        self
    }

    /// One lane's alone.
    pub(super) fn only(self, lane: Lane) -> Self {
        let mut only = Self::default();
        only.add(lane, self.of(lane));
        only
    }
}

/// What the spool itself writes, into the model lane.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Mark<'a> {
    /// Everything since the last one is durable together, or gone together.
    Commit {
        /// When: the proof of life.
        time: Time,
        /// The commit's first sequence, so that a hole in it shows.
        first: u64,
        /// What it holds, so that a hole in it can be counted.
        units: Units,
        /// How far upstream had acknowledged by then.
        cursor: u64,
    },
    /// The model was told that time has come this far.
    Tick(Time),
    /// A piece of the model's state.
    Checkpoint {
        /// The last sequence that it has applied.
        through: u64,
        /// Which piece, from 0.
        piece: u32,
        /// Of how many.
        pieces: u32,
        /// The state's bytes.
        #[serde(borrow)]
        bytes: &'a [u8],
    },
    /// See [`Entry::Deliveries`](super::Entry::Deliveries).
    Deliveries {
        /// The broker session that they came by.
        session: &'a str,
        /// In order of arrival.
        deliveries: Cow<'a, [Delivery]>,
    },
    /// See [`Entry::Filters`](super::Entry::Filters). (An older gemba cannot read it, and passes it over.)
    Filters {
        /// The broker session.
        session: &'a str,
        /// The first piece of a list.
        begins: bool,
        /// Topic filters.
        filters: Cow<'a, [Box<str>]>,
    },
}

/// A frame, as it lies in `bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) seq: u64,
    pub(super) lane: Lane,
    pub(super) flags: u8,
    pub(super) payload: &'a [u8],
    /// All of it, header included.
    pub(super) raw: &'a [u8],
    /// Where it begins.
    pub(super) at: usize,
}

impl<'a> Frame<'a> {
    /// Where the next one begins.
    pub(super) fn end(&self) -> usize {
        self.at + self.raw.len()
    }

    pub(super) fn ends_commit(&self) -> bool {
        self.flags & ENDS_COMMIT != 0
    }

    /// Readings in a readings frame, items in one of telemetry, 1 for a record, 0 for the model's.
    pub(super) fn units(&self) -> u64 {
        match self.lane {
            Lane::Model => 0,
            Lane::Readings => super::columns::count(self.payload),
            Lane::Telemetry => postcard::take_from_bytes(self.payload).map_or(1, |(items, _)| items),
            _ => 1,
        }
    }

    /// The model lane's payload; `None` for other lanes and for what cannot be read.
    pub(super) fn mark(&self) -> Option<Mark<'a>> {
        (self.lane == Lane::Model).then(|| postcard::from_bytes(self.payload).ok()).flatten()
    }

    /// The frame at `at`, if a whole and sound one begins there.
    pub(super) fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let rest = bytes.get(at..)?;
        let (prefix, body) = rest.split_at_checked(PREFIX)?;
        let length = u32::from_le_bytes(prefix[..4].try_into().ok()?) as usize;
        let crc = u32::from_le_bytes(prefix[4..].try_into().ok()?);
        if length > MAX_FRAME {
            return None;
        }
        let body = body.get(..length)?;
        let (head, payload) = body.split_at_checked(HEADER - PREFIX)?;
        let (&[version, lane, flags], seq) = head.split_first_chunk::<3>()?;
        let lane = Lane::numbered(lane)?;
        if version != VERSION || flags & !ENDS_COMMIT != 0 || crc32fast::hash(body) != crc {
            return None;
        }
        let seq = u64::from_le_bytes(seq.try_into().ok()?);
        Some(Self { seq, lane, flags, payload, raw: &rest[..PREFIX + length], at })
    }
}

/// Appends a frame.
pub(super) fn put(into: &mut Vec<u8>, seq: u64, lane: Lane, flags: u8, payload: &[u8]) {
    let length = u32::try_from(HEADER - PREFIX + payload.len()).expect("callers bound the payload far below 4 GiB");
    into.reserve(HEADER + payload.len());
    let start = into.len();
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&[VERSION, lane as u8, flags]);
    into.extend_from_slice(&seq.to_le_bytes());
    into.extend_from_slice(payload);
    let crc = crc32fast::hash(&into[start + PREFIX..]);
    into[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
}

/// What lies in a run of bytes.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A sound frame.
    Frame(Frame<'a>),
    /// Bytes that are none; the next frame, if any, begins after them.
    Damage,
}

/// Every sound frame of `bytes` from `at` on, and the holes between them.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The sound ones alone.
    pub(super) fn sound(bytes: &'a [u8], at: usize) -> impl Iterator<Item = Frame<'a>> {
        Self::new(bytes, at).filter_map(|found| match found {
            Found::Frame(frame) => Some(frame),
            Found::Damage => None,
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        if let Some(frame) = Frame::at(self.bytes, self.at) {
            self.at = frame.end();
            return Some(Found::Frame(frame));
        }
        // The version, lane and flag bytes rule out nearly every place before its crc is computed.
        let next = (self.at + 1..self.bytes.len().saturating_sub(HEADER - 1)).find(|&at| {
            self.bytes[at + PREFIX] == VERSION
                && self.bytes[at + PREFIX + 1] <= Lane::Model as u8
                && Frame::at(self.bytes, at).is_some()
        });
        self.at = next.unwrap_or(self.bytes.len());
        Some(Found::Damage)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seq, &length) in (1_u64..).zip(lengths) {
            put(&mut bytes, seq, Lane::ALL[length % 5], 0, &vec![0xA5; length]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn frames_come_back_as_written(lengths in prop::collection::vec(0_usize..300, 0..20)) {
            let bytes = sample(&lengths);
            let found: Vec<_> = Frames::new(&bytes, 0).collect();
            prop_assert_eq!(found.len(), lengths.len());
            for (index, found) in found.iter().enumerate() {
                let Found::Frame(frame) = found else { panic!("damage in sound bytes") };
                prop_assert_eq!((frame.seq, frame.payload.len()), (index as u64 + 1, lengths[index]));
            }
        }

        #[test]
        fn a_flipped_byte_costs_the_frame_that_it_is_in(
            lengths in prop::collection::vec(0_usize..300, 1..20), place: prop::sample::Index, flip in 1_u8..
        ) {
            let sound = sample(&lengths);
            let hit = place.index(sound.len());
            let victim = Frames::sound(&sound, 0).find(|frame| frame.end() > hit).expect("within").seq;
            let mut bytes = sound;
            bytes[hit] ^= flip;
            let left: Vec<u64> = Frames::sound(&bytes, 0).map(|frame| frame.seq).collect();
            let expected: Vec<u64> = (1..=lengths.len() as u64).filter(|&seq| seq != victim).collect();
            prop_assert_eq!(left, expected);
        }

        #[test]
        fn garbage_holds_no_frame_and_ends(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            prop_assert_eq!(Frames::sound(&bytes, 0).count(), 0);
        }

        #[test]
        fn any_cut_leaves_the_frames_before_it(lengths in prop::collection::vec(0_usize..100, 1..10), place: prop::sample::Index) {
            let sound = sample(&lengths);
            let cut = place.index(sound.len());
            let whole = Frames::sound(&sound, 0).filter(|frame| frame.end() <= cut).count();
            prop_assert_eq!(Frames::sound(&sound[..cut], 0).count(), whole);
        }
    }
}
