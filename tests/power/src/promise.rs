//! What was promised, as marks in the disk's log.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use gemba_drivers::Loss;
use serde::{Deserialize, Serialize};

use crate::log::{Entry, MAX_MARK};
use crate::plan::{Key, Stamp};

/// Runs of keys in one mark: at most 16 bytes each.
const RUNS: usize = 24;

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Promise {
    /// The workload begins: what was told before is not worth a cut.
    Begin,
    /// A generation opened the spool, and found this commit as the last one: all up to it is durable from now on.
    Opened {
        /// Who: a generation more with every start.
        generation: u8,
        /// The newest commit that it found, if any.
        found: Option<Stamp>,
    },
    /// This loss is about to be written down, in a record of its own.
    Telling {
        /// The record's.
        key: Key,
        /// What it says.
        loss: Loss,
    },
    /// A commit came back.
    Committed {
        /// Which.
        stamp: Stamp,
        /// Its last sequence.
        seq: u64,
        /// A checkpoint of the model was in it.
        checkpoint: bool,
        /// Upstream's acknowledgements that the spool knew of before.
        acknowledged: u64,
    },
    /// Upstream has these, and is about to say so.
    Accepted {
        /// The last sequence of them.
        seq: u64,
        /// First key, and how many in a row.
        runs: Vec<(Key, u32)>,
    },
    /// The sender of an MQTT message with quality of service 1 was told that it arrived.
    Acknowledged {
        /// Its number, and how many in a row.
        runs: Vec<(Key, u32)>,
    },
    /// A message was given to the network at this time.
    Sent {
        /// Its number.
        number: Key,
        /// Milliseconds since the workload began.
        at: u64,
    },
    /// The workload has ended.
    End,
}

impl Promise {
    /// That upstream has all of these: as many promises as are needed.
    #[must_use]
    pub fn accepted(seq: u64, keys: impl IntoIterator<Item = Key>) -> Vec<Self> {
        runs(keys).map(|runs| Self::Accepted { seq, runs }).collect()
    }

    /// That the sender knows of all of these.
    #[must_use]
    pub fn acknowledged(keys: impl IntoIterator<Item = Key>) -> Vec<Self> {
        runs(keys).map(|runs| Self::Acknowledged { runs }).collect()
    }

    /// Of a log's entry; `None` for what is no promise.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        let Entry::Mark(text) = entry else { return None };
        postcard::from_bytes(text).ok()
    }
}

fn runs(keys: impl IntoIterator<Item = Key>) -> impl Iterator<Item = Vec<(Key, u32)>> {
    let mut runs: Vec<(Key, u32)> = Vec::new();
    for key in keys {
        match runs.last_mut() {
            Some((first, count)) if first.0 + u64::from(*count) == key.0 => *count += 1,
            _ => runs.push((key, 1)),
        }
    }
    let pieces: Vec<_> = runs.chunks(RUNS).map(<[_]>::to_vec).collect();
    pieces.into_iter()
}

/// Where promises are made. A clone makes them in the same place.
#[derive(Clone, Debug)]
pub struct Promises(Arc<File>);

impl Promises {
    /// In this file of a [`Recorder`](crate::record::Recorder).
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).open(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self(Arc::new(file)))
    }

    /// Promises: when this comes back the mark is in the log.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn make(&self, promise: &Promise) -> io::Result<()> {
        let text = postcard::to_stdvec(promise).map_err(io::Error::other)?;
        if text.len() > MAX_MARK {
            return Err(io::Error::other(format!("a promise of {} bytes", text.len())));
        }
        (&*self.0).write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_a_row_are_one_run_and_long_lists_are_several_promises() {
        let keys = |numbers: &[u64]| numbers.iter().copied().map(Key).collect::<Vec<_>>();
        let one = Promise::accepted(9, keys(&[1, 2, 3, 7, 8]));
        assert_eq!(one, [Promise::Accepted { seq: 9, runs: vec![(Key(1), 3), (Key(7), 2)] }]);
        let many = Promise::acknowledged((0..100).map(|number| Key(u64::MAX / 2 + 2 * number)));
        assert_eq!(many.len(), 5);
        for promise in many {
            assert!(postcard::to_stdvec(&promise).expect("plain data").len() <= MAX_MARK);
        }
        assert_eq!(Promise::accepted(1, []), []);
    }
}
