//! What an inspection station may say in the YAML.

use super::amounts::{Amount, Real};
use super::protocols::Separator;
use super::section::{At, Entries, section};
use super::units::{Rate, SECOND, Span};
use super::words::{Name, OneOf, Whole, Word};
use crate::model::inspection::{Finding, Verdict};

section! {
    /// Which tags tell of a station's inspections.
    Inspection {
        /// What the machine decided.
        verdict: VerdictTag => optional;
        /// What makes an inspection count: `count`, `id` or `message`. Without it `count` if that has a tag, else `id` if that
        /// has one; else `message`, which only MQTT knows.
        trigger: OneOf<TriggerWord> => optional;
        /// Counts inspections.
        count: InspectionCount => optional;
        /// The unit or picture that is inspected; empty text and the number 0 stand for none.
        id: InspectionTag => optional;
        /// What is told until so long after the trigger still belongs to the inspection.
        settle: Span<0, { 60 * SECOND }> => default("0s");
        /// How sure the machine is, or how good the unit.
        score: ScoreTag => optional;
        /// What is wrong with the unit.
        defects: DefectsTag => optional;
        /// How many wait for inspection or review.
        queue: InspectionTag => optional;
        /// How long the inference took.
        latency: LatencyTag => optional;
        /// The version of the inspection model.
        model: InspectionTag => optional;
        /// What people say of inspections later.
        review: Review => optional;
        /// What scores are compared with, to see them drift.
        baseline: Baseline => optional;
        /// Opportunities for a defect in one unit (DPMO), where its product says nothing of them.
        opportunities: Amount<false> => optional;
    }
}

section! {
    /// A tag that tells of inspections.
    InspectionTag {
        /// One of the station's tags.
        tag: Name => required;
    }
}

section! {
    /// The tag that tells what the machine decided, and in what words.
    VerdictTag {
        /// One of the station's tags.
        tag: Name => required;
        /// From the tag's value to `pass`, `fail` or `review`: `{ OK: pass, NG: fail }`. Another value is an unknown verdict.
        map: Entries<OneOf<Verdict>> => required;
    }
}

section! {
    /// A tag that counts inspections.
    InspectionCount {
        /// One of the station's tags.
        tag: Name => required;
        /// Where it rolls over to zero; without it a fall is a reset.
        modulus: Whole<2, { 1 << 53 }> => optional;
        /// A jump above this rate goes to the loss ledger.
        max_rate: Rate => optional;
    }
}

section! {
    /// The tag that tells the score, and its histogram.
    ScoreTag {
        /// One of the station's tags.
        tag: Name => required;
        /// Where the first bin begins; what is not above it has a bin of its own.
        min: Real => default(0);
        /// Where the last bin ends; what is above it has a bin of its own.
        max: Real => default(1);
        /// How many bins lie between, all of one width.
        bins: Whole<1, 100> => default(20);
    }
}

section! {
    /// The tag that tells what is wrong with the unit.
    DefectsTag {
        /// One of the station's tags.
        tag: Name => required;
        /// What stands between several codes in one text.
        separator: Separator => default("comma");
        /// Names for values: `{ 17: bridge, 18: tombstone }`; the others go by their own.
        codes: Entries<Name> => optional;
    }
}

section! {
    /// The tag that tells how long the inference took.
    LatencyTag {
        /// One of the station's tags.
        tag: Name => required;
        /// In what unit it is told: `s`, `ms` or `us`.
        unit: OneOf<LatencyUnit> => default("ms");
    }
}

section! {
    /// What people say of inspections.
    Review {
        /// One of the station's tags.
        tag: Name => required;
        /// From the tag's value to `confirmed` (the machine was right), `overturned` (it was not: a false call), or what the unit
        /// is whatever the machine said: `good`, `bad`.
        map: Entries<OneOf<Finding>> => required;
        /// Which inspection it is of, by its `id`; without it the last one.
        id: InspectionTag => optional;
        /// How many inspections back a review may come.
        remember: Whole<1, 20_000> => default(1000);
    }
}

section! {
    /// What scores are compared with.
    Baseline {
        /// The first scores of each version of the model, so many; they stay as they are from then on.
        inspections: Whole<20, 1000> => default(200);
        /// Instead: edges of bins, ascending, for every version.
        edges: Vec<At<Real>> => optional;
        /// How much lies in each bin, as counts or shares: one more than edges.
        shares: Vec<At<Real>> => optional;
    }
}

/// What makes an inspection count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TriggerWord {
    Count,
    Id,
    Message,
}

impl Word for TriggerWord {
    const WHAT: &'static str = "trigger";
    const FORM: &'static str = "`count`, `id` or `message`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("count", Self::Count), ("id", Self::Id), ("message", Self::Message)]
    }
}

/// In what a duration is told, as nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LatencyUnit(pub(super) u32);

impl Word for LatencyUnit {
    const WHAT: &'static str = "unit of time";
    const FORM: &'static str = "`s`, `ms` or `us`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("s", Self(1_000_000_000)), ("ms", Self(1_000_000)), ("us", Self(1_000))]
    }
}

impl Word for Verdict {
    const WHAT: &'static str = "verdict";
    const FORM: &'static str = "`pass`, `fail` or `review`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|verdict| (verdict.word(), verdict)).collect()
    }
}

impl Word for Finding {
    const WHAT: &'static str = "finding of a review";
    const FORM: &'static str = "`confirmed`, `overturned`, `good` or `bad`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|finding| (finding.word(), finding)).collect()
    }

    fn later(text: &str) -> Option<String> {
        (text == "false_call").then(|| {
            "`false_call` is no finding of a review; a unit that was rejected and is good is `good`".to_owned()
        })
    }
}
