//! What counted parts are to performance: the same answer for the figures and for what explains them.

use gemba_drivers::Time;

use crate::model::State;
use crate::model::losses::Bucket;
use crate::model::period::Count;
use crate::model::setting::Setting;
use crate::model::timeline::{Facts, Made};

/// Whether performance speaks of what a counter added, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Counted,
    /// These are no parts of their own: another counter counts them.
    Beside,
    /// The counter itself was bad since its last good reading.
    Gap,
    /// The state was unknown since the counter's last good reading, for however short.
    Unseen,
    /// They were made in a break, between shifts, or in a state that the loss accounting does not plan.
    Unplanned,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 5] = [Self::Counted, Self::Beside, Self::Gap, Self::Unseen, Self::Unplanned];

    /// What became of `made`.
    pub fn of(facts: Facts<'_>, setting: Setting<'_>, made: &Made) -> Self {
        let &Made { since, at, count, gap, .. } = made;
        if !count.is_part(setting.spec) {
            Self::Beside
        } else if gap {
            Self::Gap
        } else if !facts.seen(since, at) {
            Self::Unseen
        } else if !setting.slot(at).planned
            || [Time(at.0.saturating_sub(1)), at].iter().all(|&at| rested(facts, setting, at))
        {
            Self::Unplanned
        } else {
            Self::Counted
        }
    }

    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Beside => "beside",
            Self::Gap => "counter_was_bad",
            Self::Unseen => "state_was_unknown",
            Self::Unplanned => "not_planned",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Counted => "in performance",
            Self::Beside => "counted by another counter, too",
            Self::Gap => "not in performance: the counter was bad before",
            Self::Unseen => "not in performance: the state was unknown before",
            Self::Unplanned => "not in performance: made in unplanned time",
        }
    }
}

impl Count {
    /// The name of the counter in the configuration (`oee.total` …).
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Good => "good",
            Self::Reject => "reject",
            Self::Rework => "rework",
            Self::Energy => "energy",
        }
    }
}

/// Whether the machine said at `at` that it was not to run. What is counted as a break begins or ends is no part of it.
fn rested(facts: Facts<'_>, setting: Setting<'_>, at: Time) -> bool {
    let not_planned = |state: State| state.is_unplanned() || setting.spec.losses.bucket(state) == Bucket::NotPlanned;
    facts.span(facts.place(at)).is_some_and(|span| not_planned(span.state))
}
