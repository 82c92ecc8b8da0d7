//! What people tell that no tag does: why it stood, what is worked on, the pace, rejects, what an anomaly was.
//!
//! Append-only: an entry never changes another one, and of two that contradict each other the later counts. An entry takes
//! its turn among readings at the instant at which it was made ([`crate::model::pending`]), so that a replay of the same
//! readings and entries gives the same figures. Its JSON form is in [`crate::entries`].

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::config::one_of_names;
use crate::model::Knowledge;
use crate::model::anomaly::{UnknownEpisode, Verdict};

/// How many entries of one station are held at most beside its facts.
pub const MOST_HELD: usize = 1_000;
/// How many of the last entries are shown.
pub const SHOWN: usize = 100;
/// How many characters a name may have.
const LONGEST_NAME: usize = 100;
/// How far ahead a reason may reach, for a stop that goes on.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// How many rejects an entry may add or take away.
const MOST_REJECTS: i64 = 1_000_000;
/// The longest takt.
const LONGEST_TAKT: Duration = Duration::from_secs(7 * 86_400);

/// What somebody told of a station.
///
/// Stored with postcard: variants and fields are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the gateway's clock.
    pub entered: Time,
    /// Who.
    pub by: Option<Arc<str>>,
    /// Of which station.
    pub station: Arc<str>,
    /// What.
    pub what: What,
}

/// What can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Why the machine stood. Only stops take it. One that covers a part of another splits it.
    Reason {
        /// From when.
        from: Time,
        /// Until when; not part of it.
        to: Time,
        /// The reason's code; none takes back what tags or people said.
        code: Option<Arc<str>>,
    },
    /// What is worked on, until a tag or a person tells something else.
    Work {
        /// From when.
        at: Time,
        /// The product.
        product: Change,
        /// The lot.
        lot: Change,
        /// The order.
        order: Change,
    },
    /// How fast it is to go, whatever the product, until it is told again.
    Target {
        /// From when.
        at: Time,
        /// The time between two parts; none gives the pace back to the product.
        takt: Option<Duration>,
    },
    /// Parts that the counters take for good, and are not.
    Rejects {
        /// When they were made.
        at: Time,
        /// How many; fewer than none takes back what was told before.
        count: i64,
        /// The defect's code.
        code: Arc<str>,
    },
    /// What an anomaly was.
    Anomaly {
        /// Of which tag.
        tag: Arc<str>,
        /// By which detector.
        detector: Arc<str>,
        /// When it began.
        began: Time,
        /// Whether it was one.
        verdict: Verdict,
    },
}

/// What becomes of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It stays.
    #[default]
    Left,
    /// Nothing is worked on.
    Cleared,
    /// It is this one now.
    Set(Arc<str>),
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, name: &mut Option<Arc<str>>) {
        match self {
            Self::Left => {}
            Self::Cleared => *name = None,
            Self::Set(new) => *name = Some(new.clone()),
        }
    }

    fn name(&self) -> Option<&Arc<str>> {
        if let Self::Set(name) = self { Some(name) } else { None }
    }
}

/// Why an entry is refused; nothing of it is applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No such station.
    #[error("there is no station `{name}`{hint}")]
    Station {
        /// As written.
        name: Arc<str>,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// Nothing is computed there.
    #[error("nothing is computed for `{0}`: it has no `oee:`")]
    NoFigures(Arc<str>),
    /// No such reason, product or detector.
    #[error("there is no {what} `{name}`{hint}")]
    Unknown {
        /// Reason, product or detector.
        what: &'static str,
        /// As written.
        name: Arc<str>,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// A name that is none.
    #[error("{0} is empty, longer than {LONGEST_NAME} characters, or holds control characters")]
    Name(&'static str),
    /// The end is not after the beginning.
    #[error("`to` ({to}) is not after `from` ({from})")]
    Backwards {
        /// `from`
        from: Time,
        /// `to`
        to: Time,
    },
    /// It tells of what has not happened yet.
    #[error("{0} lies in the future")]
    Future(Time),
    /// A reason for a stop that cannot be known yet.
    #[error("`to` ({0}) is more than a day ahead")]
    TooFarAhead(Time),
    /// The station has told nothing yet.
    #[error("`{0}` has told nothing yet, so there is nothing to say it of")]
    NothingYet(Arc<str>),
    /// All of it lies before the first observation.
    #[error("it ends before `{station}` was first observed, at {first}")]
    BeforeFirst {
        /// Which station.
        station: Arc<str>,
        /// The first observation.
        first: Time,
    },
    /// The facts of then are no longer held.
    #[error("{at} is too long ago: what `{station}` did is held since {held}")]
    TooOld {
        /// Which station.
        station: Arc<str>,
        /// What the entry speaks of.
        at: Time,
        /// Since when facts are held.
        held: Time,
    },
    /// There is no room for more.
    #[error("`{0}` holds {MOST_HELD} entries already; the oldest go with the shifts that they belong to")]
    TooMany(Arc<str>),
    /// It changes nothing.
    #[error("it says nothing: give a product, a lot or an order")]
    Nothing,
    /// Nobody knows the anomaly.
    #[error(transparent)]
    Anomaly(#[from] UnknownEpisode),
    /// Not a number of parts.
    #[error("`count` is a whole number from -{MOST_REJECTS} to {MOST_REJECTS}, and not 0")]
    Count,
    /// Not a pace.
    #[error("a takt is longer than nothing and at most 7 days")]
    Takt,
}

impl Entry {
    /// What it speaks of, from when on.
    #[must_use]
    pub fn at(&self) -> Time {
        match self.what {
            What::Reason { from, .. } => from,
            What::Work { at, .. } | What::Target { at, .. } | What::Rejects { at, .. } => at,
            What::Anomaly { began, .. } => began,
        }
    }

    /// The word for what it tells, as its JSON form and upstream have it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Reason { .. } => "reason",
            What::Work { .. } => "work",
            What::Target { .. } => "target",
            What::Rejects { .. } => "rejects",
            What::Anomaly { .. } => "anomaly",
        }
    }

    /// Whether the configuration knows what it names, and whether it makes sense by itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check<'a>(
        &self,
        knowledge: &Knowledge,
        detectors: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), EntryError> {
        if let Some(by) = &self.by {
            name("`by`", by)?;
        }
        match &self.what {
            &What::Reason { from, to, .. } if to <= from => return Err(EntryError::Backwards { from, to }),
            &What::Reason { to, .. } if to > self.entered + AHEAD => return Err(EntryError::TooFarAhead(to)),
            What::Reason { code: Some(code), .. } => {
                known("reason", code, knowledge.reasons.iter().map(|reason| &*reason.code))?;
            }
            What::Reason { code: None, .. } => {}
            What::Work { product: Change::Left, lot: Change::Left, order: Change::Left, .. } => {
                return Err(EntryError::Nothing);
            }
            What::Work { product, lot, order, .. } => {
                for (what, change) in [("`product`", product), ("`lot`", lot), ("`order`", order)] {
                    change.name().map_or(Ok(()), |of| name(what, of))?;
                }
                // Where no products are listed, tags tell of any, and so do people.
                if let Some(product) = product.name().filter(|_| !knowledge.products.is_empty()) {
                    known("product", product, knowledge.products.iter().map(|product| &*product.name))?;
                }
            }
            What::Target { takt: Some(takt), .. } if takt.is_zero() || *takt > LONGEST_TAKT => {
                return Err(EntryError::Takt);
            }
            What::Target { .. } => {}
            What::Rejects { count, code, .. } => {
                name("`code`", code)?;
                if *count == 0 || !(-MOST_REJECTS..=MOST_REJECTS).contains(count) {
                    return Err(EntryError::Count);
                }
            }
            What::Anomaly { detector, .. } => {
                known("detector", detector, detectors)?;
            }
        }
        if self.at() > self.entered { Err(EntryError::Future(self.at())) } else { Ok(()) }
    }
}

/// A station of that name.
///
/// # Errors
/// There is none.
pub(super) fn station<'a>(
    wanted: &Arc<str>,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<usize, EntryError> {
    names
        .clone()
        .position(|name| name == &**wanted)
        .ok_or_else(|| EntryError::Station { name: shown(wanted), hint: hint(wanted, names) })
}

fn known<'a>(
    what: &'static str,
    wanted: &Arc<str>,
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), EntryError> {
    if names.clone().any(|name| name == &**wanted) {
        return Ok(());
    }
    Err(EntryError::Unknown { what, name: shown(wanted), hint: hint(wanted, names) })
}

fn name(what: &'static str, name: &str) -> Result<(), EntryError> {
    let fine = !name.trim().is_empty() && name.chars().count() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if fine { Ok(()) } else { Err(EntryError::Name(what)) }
}

fn hint<'a>(wanted: &str, mut names: impl Iterator<Item = &'a str> + Clone) -> String {
    let all = names.clone();
    if names.next().is_none() { "; the configuration has none".to_owned() } else { one_of_names(wanted, all) }
}

/// No more of a name than a message has room for.
fn shown(name: &Arc<str>) -> Arc<str> {
    if name.chars().nth(LONGEST_NAME).is_none() {
        name.clone()
    } else {
        name.chars().take(LONGEST_NAME).collect::<String>().into()
    }
}
