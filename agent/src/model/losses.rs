//! Where time belongs: the loss accounting that stands beside every number.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::State;

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

impl Preset {
    /// Where the time of a known state belongs if nothing else is said.
    ///
    /// - `vorne`: planned production time less stop time is run time (<https://www.vorne.com/learn/oee-calculation>).
    /// - `umh`: by the loss states that United Manufacturing Hub's factoryinsight comes with (the defaults of its
    ///   `configurationTable`; but for an operator's break, which is lost speed there): faults and maintenance cost
    ///   availability; waiting for material or room, change-over and setup cost performance; no order is no planned time.
    /// - `iso22400`: availability is actual production time over planned busy time (ISO 22400-2); what was planned
    ///   otherwise, maintenance and trials, is no busy time, and setup and delay are.
    /// - `semi_e79`: availability efficiency is uptime over total time, operational efficiency production time over uptime
    ///   (SEMI E79, with the states of [`State::e10`]): standby and engineering are uptime that is lost, and non-scheduled
    ///   time counts as well.
    #[must_use]
    pub fn bucket(self, state: State) -> Bucket {
        use State::{Blocked, Break, Down, Engineering, Idle, Maintenance, NoShift, Producing, Setup, Slow, Starved};
        match (self, state) {
            (_, Producing | Slow) => Bucket::Run,
            (Self::SemiE79, Starved | Blocked | Idle | Engineering) => Bucket::Performance,
            (Self::SemiE79, _) => Bucket::Availability,
            (_, Break | NoShift) => Bucket::NotPlanned,
            (Self::Umh, Starved | Blocked | Setup) => Bucket::Performance,
            (Self::Umh, Idle) | (Self::Iso22400, Maintenance | Engineering) => Bucket::NotPlanned,
            (_, Down | Idle | Starved | Blocked | Setup | Maintenance | Engineering | State::Unknown) => {
                Bucket::Availability
            }
        }
    }
}

/// The reason of downtime that nobody has given one.
pub const UNASSIGNED: &str = "unassigned";

/// Whether the machine is to run and does not.
pub fn is_stop(state: State) -> bool {
    !state.is_run() && !state.is_unplanned() && state != State::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::E10;

    /// SEMI E79 builds on the states of E10, and so does the preset.
    #[test]
    fn e79_counts_uptime_by_the_states_of_e10() {
        for state in State::ALL.into_iter().filter(|&state| state != State::Unknown) {
            let expected = match state.e10().expect("a known state") {
                E10::Productive => Bucket::Run,
                E10::Standby | E10::Engineering => Bucket::Performance,
                E10::ScheduledDowntime | E10::UnscheduledDowntime | E10::NonScheduledTime => Bucket::Availability,
            };
            assert_eq!(Preset::SemiE79.bucket(state), expected, "{state}");
        }
    }
}
