//! What counted parts are to performance: the same answer for the figures and for what explains them.

use gemba_drivers::Time;

use crate::model::losses::{Bucket, is_stop};
use crate::model::period::Count;
use crate::model::piece::Stop;
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
    /// They were made in a break, between shifts, in a state that the loss accounting does not plan, or in a stop whose reason
    /// says so.
    Unplanned,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 5] = [Self::Counted, Self::Beside, Self::Gap, Self::Unseen, Self::Unplanned];

    /// What became of `made`; knowledge ends at `known`.
    pub fn of(facts: Facts<'_>, setting: Setting<'_>, made: &Made, known: Time) -> Self {
        let &Made { since, at, count, gap, .. } = made;
        if !count.is_part(setting.spec) {
            Self::Beside
        } else if gap {
            Self::Gap
        } else if !facts.seen(since, at) {
            Self::Unseen
        } else if !setting.slot(at).planned
            || [Time(at.0.saturating_sub(1)), at].iter().all(|&at| rested(facts, setting, at, known))
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

/// Whether the machine was not to run at `at`, as it said or as the reason of its stop says: where a piece of that time belongs
/// nowhere. What is counted as a break begins or ends is no part of it.
fn rested(facts: Facts<'_>, setting: Setting<'_>, at: Time, known: Time) -> bool {
    let place = facts.place(at);
    let Some(span) = facts.span(place) else { return false };
    let said = || {
        let stop = Stop::around(facts, setting, place, known);
        let code = facts.assigned_at(at).unwrap_or(stop.reason.as_ref());
        code.and_then(|code| setting.reason(code))?.bucket
    };
    let said = if is_stop(span.state) { said() } else { None };
    let bucket = said.unwrap_or_else(|| setting.spec.losses.bucket(span.state));
    span.state.is_unplanned() || bucket == Bucket::NotPlanned
}
