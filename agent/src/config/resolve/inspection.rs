//! What an inspection station tells: which of its tags, and in what words.

use std::sync::Arc;

use gemba_drivers::{TagId, modbus};

use super::TagFacts;
use super::values::values;
use crate::config::amounts::Real;
use crate::config::error::Report;
use crate::config::inspection::{
    Baseline, DefectsTag, Inspection, InspectionCount, InspectionTag, LatencyTag, Review, ScoreTag, TriggerWord,
};
use crate::config::protocols::Protocol;
use crate::config::section::{At, Entries};
use crate::config::words::{Name, OneOf, Word, one_of_names};
use crate::model::inspection::{
    BaselineSpec, DefectSpec, InspectionSpec, LatencySpec, ReviewSpec, ScoreSpec, Trigger, Words,
};
use crate::model::{CounterSpec, Product};

/// How many bins a baseline may have.
const MOST_BINS: usize = 100;
/// How many first scores are a baseline, unless said.
const LEARNT: usize = 200;

/// What `inspection` means for a station with these tags, of which one may tell the product.
pub(super) fn resolve(
    inspection: Option<&At<Inspection>>,
    protocol: Protocol,
    (tags, product, products): (&[TagFacts], Option<TagId>, &[Product]),
    report: &mut Report,
) -> Option<InspectionSpec> {
    let raw = inspection?;
    let mut roles = Roles { tags, taken: Vec::new() };
    let verdict = raw.verdict.as_ref().and_then(|verdict| {
        let tag = roles.named("verdict", verdict.tag.as_ref(), report);
        let map = words(verdict.map.as_ref()?, tag, report);
        Some(Words { tag: tag?.id, map })
    });
    let count = raw.count.as_ref().and_then(|count| roles.count(count, report));
    let id = roles.one("id", raw.id.as_ref(), report);
    let trigger = trigger(raw, protocol, count, report);
    let score = raw.score.as_ref().and_then(|score| roles.score(score, report));
    let defects = raw.defects.as_ref().and_then(|defects| roles.defects(defects, report));
    let queue = raw.queue.as_ref().and_then(|queue| roles.number("queue", queue.tag.as_ref(), report));
    let latency = raw.latency.as_ref().and_then(|latency| roles.latency(latency, report));
    let model = roles.one("model", raw.model.as_ref(), report);
    let review = raw.review.as_ref().and_then(|review| {
        if raw.verdict.is_none() {
            review.wrong(report, "there is no verdict to review; name a tag for `verdict`");
        }
        if let Some(of) = review.id.as_ref().filter(|_| raw.id.is_none()) {
            of.wrong(report, "nobody knows which inspection that is without `inspection.id`; name a tag for it");
        }
        roles.review(review, report)
    });
    let baseline = match &raw.baseline {
        Some(baseline) if raw.score.is_none() => {
            baseline.wrong(report, "there is nothing to compare with it; name a tag for `score`");
            None
        }
        Some(baseline) => given(baseline, report),
        None => Some(BaselineSpec::Learnt(LEARNT)),
    };
    Some(InspectionSpec {
        trigger: trigger?,
        settle: raw.settle.as_ref()?.0,
        verdict,
        id,
        score,
        defects,
        queue,
        latency,
        model,
        review,
        baseline: baseline?,
        product,
        products: products.iter().map(|product| (product.name.clone(), product.opportunities)).collect(),
        opportunities: raw.opportunities.as_ref().map(|opportunities| opportunities.0),
    })
}

fn trigger(
    raw: &At<Inspection>,
    protocol: Protocol,
    count: Option<CounterSpec>,
    report: &mut Report,
) -> Option<Trigger> {
    let messages = protocol == Protocol::Mqtt;
    let said = raw.trigger.as_ref().map(|trigger| trigger.value.0);
    let word = match said {
        Some(word) => word,
        None if raw.count.is_some() => TriggerWord::Count,
        None if raw.id.is_some() => TriggerWord::Id,
        None if raw.verdict.is_none() => {
            raw.wrong(report, "nothing tells that something was inspected; name a tag for `verdict`, `id` or `count`");
            return None;
        }
        None if messages => TriggerWord::Message,
        None => {
            raw.wrong(report, "nothing tells one inspection from the next; name a tag for `count` or `id`");
            return None;
        }
    };
    let lacks = match word {
        TriggerWord::Count => raw.count.is_none().then_some("counts nothing without a tag; name one for `count`"),
        TriggerWord::Id => raw.id.is_none().then_some("sees no change without a tag; name one for `id`"),
        TriggerWord::Message if !messages => Some("only MQTT sends messages; name a tag for `count` or `id`"),
        TriggerWord::Message => {
            raw.verdict.is_none().then_some("counts messages with a verdict; name a tag for `verdict`")
        }
    };
    if let (Some(trigger), Some(lacks)) = (&raw.trigger, lacks) {
        trigger.wrong(report, lacks);
    }
    if let Some(count) = raw.count.as_ref().filter(|_| word != TriggerWord::Count) {
        count.wrong(report, "is of no use with another `trigger`; leave one of them out");
    }
    Some(match word {
        TriggerWord::Count => Trigger::Count(count?),
        TriggerWord::Id => Trigger::Id,
        TriggerWord::Message => Trigger::Message,
    })
}

/// Who uses which tag: each has one use.
struct Roles<'a> {
    tags: &'a [TagFacts],
    taken: Vec<(TagId, &'static str)>,
}

impl<'a> Roles<'a> {
    fn named(&mut self, role: &'static str, name: Option<&At<Name>>, report: &mut Report) -> Option<&'a TagFacts> {
        let name = name?;
        let Some(tag) = self.tags.iter().find(|tag| tag.name == name.value.0) else {
            let names = self.tags.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
            let others = one_of_names(&name.origin.shown, names);
            name.wrong(report, format!("`{}` is no tag of this station{others}", name.origin.shown));
            return None;
        };
        if let Some((_, other)) = self.taken.iter().find(|(taken, _)| *taken == tag.id) {
            name.wrong(report, format!("`{}` is already the tag of `{other}`", name.origin.shown));
        }
        self.taken.push((tag.id, role));
        Some(tag)
    }

    fn one(&mut self, role: &'static str, tag: Option<&At<InspectionTag>>, report: &mut Report) -> Option<TagId> {
        self.named(role, tag?.tag.as_ref(), report).map(|tag| tag.id)
    }

    /// A tag whose values are numbers.
    fn number(&mut self, role: &'static str, name: Option<&At<Name>>, report: &mut Report) -> Option<TagId> {
        let tag = self.named(role, name, report)?;
        if let (Some(of @ (modbus::DataType::Bool | modbus::DataType::Text)), Some(name)) = (tag.data_type, name) {
            let (shown, of) = (&name.origin.shown, of.name());
            name.wrong(
                report,
                format!("`{shown}` is a `{of}`, and `{role}` is a number; read it as one, such as `u32`"),
            );
        }
        Some(tag.id)
    }

    fn count(&mut self, raw: &InspectionCount, report: &mut Report) -> Option<CounterSpec> {
        let tag = self.number("count", raw.tag.as_ref(), report)?;
        Some(CounterSpec {
            #[expect(clippy::cast_precision_loss, reason = "at most 2^53, exact")]
            modulus: raw.modulus.as_ref().map(|modulus| modulus.0 as f64),
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            ..CounterSpec::of(tag)
        })
    }

    fn score(&mut self, raw: &At<ScoreTag>, report: &mut Report) -> Option<ScoreSpec> {
        let tag = self.number("score", raw.tag.as_ref(), report);
        let (min, max) = (raw.min.as_ref()?.0, raw.max.as_ref()?.0);
        let bins = u32::try_from(raw.bins.as_ref()?.0).expect("at most a hundred");
        if min >= max {
            raw.wrong(report, "leaves no room for bins: `min` is less than `max`");
            return None;
        }
        let edge = |place: u32| min + (max - min) * f64::from(place) / f64::from(bins);
        // The last edge is what was written, to the last digit.
        let edges = (0..bins).map(edge).chain([max]).collect();
        Some(ScoreSpec { tag: tag?, edges })
    }

    fn defects(&mut self, raw: &DefectsTag, report: &mut Report) -> Option<DefectSpec> {
        let tag = self.named("defects", raw.tag.as_ref(), report);
        let named = |name: &At<Name>, _: &mut Report| Some(Arc::from(name.value.0.as_str()));
        let codes = values(raw.codes.as_ref(), "{ 17: bridge }", tag, named, report);
        Some(DefectSpec { tag: tag?.id, separator: char::from(raw.separator.as_ref()?.0), codes: codes.entries })
    }

    fn latency(&mut self, raw: &LatencyTag, report: &mut Report) -> Option<LatencySpec> {
        let tag = self.number("latency", raw.tag.as_ref(), report)?;
        Some(LatencySpec { tag, unit_ns: raw.unit.as_ref()?.value.0.0 })
    }

    fn review(&mut self, raw: &Review, report: &mut Report) -> Option<ReviewSpec> {
        let tag = self.named("review", raw.tag.as_ref(), report);
        let map = raw.map.as_ref().map(|map| words(map, tag, report));
        let id = self.one("review.id", raw.id.as_ref(), report);
        let remember = usize::try_from(raw.remember.as_ref()?.0).expect("at most 20,000");
        Some(ReviewSpec { finding: Words { tag: tag?.id, map: map? }, id, remember })
    }
}

/// From a device's value to the word it stands for.
fn words<W: Word>(map: &At<Entries<OneOf<W>>>, tag: Option<&TagFacts>, report: &mut Report) -> Vec<(String, W)> {
    let word = W::all().first().map_or("…", |(word, _)| word);
    values(Some(map), &format!("{{ 1: {word} }}"), tag, |word, _| Some(word.value.0), report).entries
}

fn given(raw: &At<Baseline>, report: &mut Report) -> Option<BaselineSpec> {
    let learnt = raw.inspections.as_ref()?;
    let (edges, shares) = match (&raw.edges, &raw.shares) {
        (None, None) => {
            return Some(BaselineSpec::Learnt(usize::try_from(learnt.value.0).expect("at most a thousand")));
        }
        (Some(edges), Some(shares)) => (edges, shares),
        (Some(edges), None) => {
            edges.wrong(report, "bins need to know how much lies in them; add `shares`");
            return None;
        }
        (None, Some(shares)) => {
            shares.wrong(report, "shares need to know of which bins; add `edges`");
            return None;
        }
    };
    if learnt.origin.written {
        learnt.wrong(report, "nothing is learnt where `edges` and `shares` are given; leave it out");
    }
    let numbers = |list: &At<Vec<At<Real>>>| list.value.iter().map(|number| number.value.0).collect::<Vec<_>>();
    if edges.is_empty() || edges.len() >= MOST_BINS {
        edges.wrong(report, format!("from 1 to {} edges", MOST_BINS - 1));
    }
    for (at, before) in edges.value.iter().skip(1).zip(&edges.value) {
        if at.0 <= before.0 {
            at.wrong(report, format!("edges ascend, and `{}` is not above `{}`", at.origin.shown, before.origin.shown));
        }
    }
    if shares.len() != edges.len() + 1 {
        let (bins, found) = (edges.len() + 1, shares.len());
        shares.wrong(report, format!("{} edges make {bins} bins, and there are {found} shares", edges.len()));
    }
    for share in shares.value.iter().filter(|share| share.0 < 0.0) {
        share.wrong(report, format!("`{}` is out of range: a share is not below zero", share.origin.shown));
    }
    if shares.value.iter().all(|share| share.0 == 0.0) && !shares.is_empty() {
        shares.wrong(report, "all bins are empty; at least one has a share");
    }
    Some(BaselineSpec::Given { edges: numbers(edges), shares: numbers(shares) })
}
