//! What an inspection station is told, resolved by [`crate::config`].

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{TagId, Value};
use serde::{Deserialize, Serialize};

use crate::model::CounterSpec;

/// Which tags tell of inspections, and in what words. Each tag tells one thing.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectionSpec {
    /// What makes an inspection count.
    pub trigger: Trigger,
    /// What is told until so long after the trigger still belongs to the inspection.
    pub settle: Duration,
    /// What the machine decided.
    pub verdict: Option<Words<Verdict>>,
    /// The unit or picture that is inspected: pairs an inspection with its review, and tells the first attempt from the next.
    pub id: Option<TagId>,
    /// How sure the machine is, or how good the unit.
    pub score: Option<ScoreSpec>,
    /// What is wrong with the unit.
    pub defects: Option<DefectSpec>,
    /// How many wait for inspection or review.
    pub queue: Option<TagId>,
    /// How long the inference took.
    pub latency: Option<LatencySpec>,
    /// The version of the inspection model.
    pub model: Option<TagId>,
    /// What people say of it later.
    pub review: Option<ReviewSpec>,
    /// What scores are compared with.
    pub baseline: BaselineSpec,
    /// The product that is inspected, as the station's context tells it.
    pub product: Option<TagId>,
    /// The products that are told apart, and the opportunities for a defect in a unit of each, where they are known.
    pub products: Vec<(Arc<str>, Option<f64>)>,
    /// The opportunities of a unit of no known product, or of one of which nothing is said.
    pub opportunities: Option<f64>,
}

/// What makes an inspection count.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// A counter that moves. What the tags tell at that time is of the last of those counted.
    Count(CounterSpec),
    /// [`InspectionSpec::id`] changes. What it is at first is no inspection: nobody saw when that was.
    Id,
    /// Each good reading of the verdict, for devices that send a message for each inspection. Only what was told since the
    /// one before belongs to it.
    Message,
}

/// A tag whose values are words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words<W> {
    /// The tag.
    pub tag: TagId,
    /// From the tag's value, as text (`1`, `PASS`, `true`), to what it means.
    pub map: Vec<(String, W)>,
}

/// What the machine decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Good.
    Pass,
    /// Rejected.
    Fail,
    /// Not sure: a person has to look.
    Review,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Fail, Self::Review];

    /// The word used in configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Review => "review",
        }
    }
}

/// What a person says of an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// The machine was right.
    Confirmed,
    /// The machine was wrong: a false call, or an escape.
    Overturned,
    /// The unit is good, whatever the machine said.
    Good,
    /// The unit is defective, whatever the machine said.
    Bad,
}

impl Finding {
    /// Every finding.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::Overturned, Self::Good, Self::Bad];

    /// The word used in configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Overturned => "overturned",
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

/// Which tag tells the score, and how it is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreSpec {
    /// The tag.
    pub tag: TagId,
    /// Ascending edges of the histogram; an upper edge belongs to its bin, and there is a bin at either end for the rest.
    pub edges: Vec<f64>,
}

/// Which tag tells the defects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefectSpec {
    /// The tag.
    pub tag: TagId,
    /// Between several codes in one text.
    pub separator: char,
    /// Names for values; the others go by their own.
    pub codes: Vec<(String, Arc<str>)>,
}

/// Which tag tells how long the inference took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencySpec {
    /// The tag.
    pub tag: TagId,
    /// Nanoseconds in its unit.
    pub unit_ns: u32,
}

/// Which tags tell what people say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewSpec {
    /// What they say.
    pub finding: Words<Finding>,
    /// Of which inspection; without it of the last one.
    pub id: Option<TagId>,
    /// How many inspections back a review may come.
    pub remember: usize,
}

/// What scores are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum BaselineSpec {
    /// The first scores of each version of the model, so many; they are kept as they are from then on.
    Learnt(usize),
    /// A histogram: ascending edges, and one share more than edges. For every version.
    Given {
        /// As those of [`ScoreSpec::edges`].
        edges: Vec<f64>,
        /// How much lay in each bin; counts or shares.
        shares: Vec<f64>,
    },
}

/// What a tag tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// [`Trigger::Count`]
    Count,
    /// [`InspectionSpec::verdict`]
    Verdict,
    /// [`InspectionSpec::id`]
    Id,
    /// [`InspectionSpec::score`]
    Score,
    /// [`InspectionSpec::defects`]
    Defects,
    /// [`InspectionSpec::queue`]
    Queue,
    /// [`InspectionSpec::latency`]
    Latency,
    /// [`InspectionSpec::model`]
    Model,
    /// [`ReviewSpec::finding`]
    Finding,
    /// [`ReviewSpec::id`]
    ReviewId,
    /// [`InspectionSpec::product`]
    Product,
}

impl InspectionSpec {
    /// What `tag` tells of inspections.
    #[must_use]
    pub fn role(&self, tag: TagId) -> Option<Role> {
        self.roles().into_iter().find(|(of, _)| *of == Some(tag)).map(|(_, role)| role)
    }

    /// The same, and whether it tells the product as well.
    pub fn roles_of(&self, tag: TagId) -> impl Iterator<Item = Role> {
        self.role(tag).into_iter().chain(self.product.filter(|&product| product == tag).map(|_| Role::Product))
    }

    /// The opportunities for a defect in a unit of this product, or of none that is known.
    #[must_use]
    pub fn opportunities(&self, product: Option<&str>) -> Option<f64> {
        let of = self.products.iter().find(|(name, _)| Some(&**name) == product);
        of.and_then(|(_, opportunities)| *opportunities).or(self.opportunities)
    }

    fn roles(&self) -> [(Option<TagId>, Role); 10] {
        let count = if let Trigger::Count(counter) = &self.trigger { Some(counter.tag) } else { None };
        let review = self.review.as_ref();
        [
            (count, Role::Count),
            (self.verdict.as_ref().map(|verdict| verdict.tag), Role::Verdict),
            (self.id, Role::Id),
            (self.score.as_ref().map(|score| score.tag), Role::Score),
            (self.defects.as_ref().map(|defects| defects.tag), Role::Defects),
            (self.queue, Role::Queue),
            (self.latency.as_ref().map(|latency| latency.tag), Role::Latency),
            (self.model, Role::Model),
            (review.map(|review| review.finding.tag), Role::Finding),
            (review.and_then(|review| review.id), Role::ReviewId),
        ]
    }
}

impl<W: Copy> Words<W> {
    /// What `value` means; nothing if the map lacks it.
    #[must_use]
    pub fn meaning(&self, value: &Value) -> Option<W> {
        let found = |text: &str| self.map.iter().find(|(from, _)| from == text).map(|&(_, word)| word);
        match value {
            Value::Null => None,
            Value::Text(text) => found(text),
            Value::Bool(on) => found(if *on { "true" } else { "false" }).or_else(|| found(if *on { "1" } else { "0" })),
            Value::Int(_) | Value::Float(_) => found(&value.to_string()),
        }
    }
}
