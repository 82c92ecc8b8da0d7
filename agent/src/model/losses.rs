//! Where time belongs: the loss accounting that stands beside every number.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A named way to tell losses apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Preset {
    /// Run time is producing and slow; every other known state in planned time is availability loss.
    #[default]
    Vorne,
    /// As United Manufacturing Hub does.
    Umh,
    /// ISO 22400-2.
    Iso22400,
    /// SEMI E79: all time counts, waiting is lost operational efficiency.
    SemiE79,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::Vorne, Self::Umh, Self::Iso22400, Self::SemiE79];

    /// The word used in configuration, and beside every number.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Vorne => "vorne",
            Self::Umh => "umh",
            Self::Iso22400 => "iso22400",
            Self::SemiE79 => "semi_e79",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a stretch of time is to the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Bucket {
    /// Time to make parts in.
    Run,
    /// The machine was there and lost speed or waited: it stays in what performance is measured against.
    Performance,
    /// The machine was not there.
    Availability,
    /// Nobody wanted it to run: no part of any figure.
    NotPlanned,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 4] = [Self::Run, Self::Performance, Self::Availability, Self::NotPlanned];

    /// The word used in configuration and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Performance => "performance",
            Self::Availability => "availability",
            Self::NotPlanned => "not_planned",
        }
    }
}
