//! Tags that are computed from others of their station.
//!
//! Once for each batch, after everything else in it, however many of its inputs came; the expression itself only if one of
//! them changed. Nothing is told until each input has come once. The time is that of the newest input, the validity that of
//! the worst.
//!
//! History of one input is computed with what is known of the others at its instant. Where they are known later already
//! there is nothing to tell: neither what is now nor what was then.

use std::sync::Arc;

use super::{Expression, Formula};
use crate::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

#[derive(Debug)]
pub(super) struct Derived {
    tag: TagId,
    expression: Arc<Expression>,
    inputs: Box<[TagId]>,
    latest: Box<[Option<Reading>]>,
    /// Some input came.
    due: bool,
    /// And was not as before.
    changed: bool,
    last: Option<Value>,
}

/// Each after those that it is computed from. The configuration has refused rings.
pub(super) fn in_order(formulas: &[(TagId, &Formula)]) -> Vec<Derived> {
    let mut left: Vec<_> = formulas.to_vec();
    let mut sorted: Vec<Derived> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waiting: Vec<TagId> = left.iter().map(|(tag, _)| *tag).collect();
        let before = left.len();
        left.retain(|(tag, formula)| {
            let ready = !formula.inputs.iter().any(|input| waiting.contains(input));
            if ready {
                sorted.push(Derived::new(*tag, formula));
            }
            !ready
        });
        debug_assert!(left.len() < before, "tags that are computed from each other");
        if left.len() == before {
            break;
        }
    }
    sorted
}

impl Derived {
    fn new(tag: TagId, formula: &Formula) -> Self {
        Self {
            tag,
            expression: Arc::clone(&formula.expression),
            inputs: formula.inputs.clone().into(),
            latest: vec![None; formula.inputs.len()].into(),
            due: false,
            changed: false,
            last: None,
        }
    }

    pub(super) fn inputs(&self) -> &[TagId] {
        &self.inputs
    }

    /// An input came.
    pub(super) fn take(&mut self, reading: &Reading) {
        let Some(at) = self.inputs.iter().position(|input| *input == reading.tag) else { return };
        let later = |held: &Option<Reading>| held.as_ref().is_some_and(|held| held.source_time > reading.source_time);
        if reading.backfilled && later(&self.latest[at]) {
            return;
        }
        let as_before = |held: &Reading| held.value == reading.value && held.validity == reading.validity;
        self.changed |= !self.latest[at].as_ref().is_some_and(as_before);
        self.latest[at] = Some(reading.clone());
        self.due |= !(reading.backfilled && self.latest.iter().any(later));
    }

    /// What it comes to now, if anything came.
    pub(super) fn compute(&mut self) -> Option<Reading> {
        if !std::mem::take(&mut self.due) {
            return None;
        }
        let inputs: Vec<&Reading> = self.latest.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let newest = |time: fn(&Reading) -> Time| inputs.iter().map(|input| time(input)).max().unwrap_or_default();
        let (source_time, received_time) = (newest(|it| it.source_time), newest(|it| it.received_time));
        let worst = inputs.iter().find(|input| input.validity.is_bad());
        let worst = worst.or_else(|| inputs.iter().find(|input| input.validity != Validity::Good));
        let mut validity = worst.map_or(Validity::Good, |input| input.validity);
        if std::mem::take(&mut self.changed) {
            let known = (!validity.is_bad()).then(|| inputs.iter().map(|input| &input.value).collect::<Vec<_>>());
            self.last = known.and_then(|values| self.expression.evaluate(&values).ok());
        }
        if self.last.is_none() && !validity.is_bad() {
            validity = Validity::Bad(Status::Own(OwnStatus::ExpressionFailed));
        }
        let value = self.last.clone().unwrap_or_default();
        let backfilled = inputs.iter().any(|input| input.backfilled && input.source_time == source_time);
        Some(Reading { tag: self.tag, value, validity, source_time, received_time, backfilled })
    }
}
