//! What people say of inspections, as it comes: which of it is news, and which inspection it is of.

use std::sync::Arc;

use gemba_drivers::{Time, Value};
use serde::{Deserialize, Serialize};

use super::review::Reviewed;
use crate::model::inspection::{Finding, Inspection, InspectionSpec, InspectionTally, News, Trigger, word};
use crate::model::late::Rejection;

/// What people said last. As with inspections, it is taken in when something later is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Heard {
    id: Option<Arc<str>>,
    finding: Option<Finding>,
    /// What was taken in already.
    done: Option<(Arc<str>, Finding)>,
    /// Since when there is news, and of what.
    pub(super) news: Option<Time>,
    /// The turn of the reading that told.
    pub(super) turn: Time,
    new_id: bool,
    new_finding: bool,
}

impl Inspection {
    pub(super) fn finding(&mut self, spec: &InspectionSpec, value: Option<&Value>, at: Time, out: &mut News) {
        let Some(review) = &spec.review else { return };
        if self.heard.new_finding {
            self.review(spec, out);
        }
        let finding = value.and_then(|value| review.finding.meaning(value));
        let same = std::mem::replace(&mut self.heard.finding, finding) == finding;
        // What is only read again is not said of the next inspection, too.
        if review.id.is_some() || spec.trigger == Trigger::Message || !same {
            self.heard.news = Some(at);
            self.heard.new_finding = true;
        }
    }

    pub(super) fn review_id(&mut self, spec: &InspectionSpec, value: Option<&Value>, at: Time, out: &mut News) {
        if self.heard.new_id {
            self.review(spec, out);
        }
        self.heard.id = value.and_then(word);
        self.heard.news = Some(at);
        self.heard.new_id = true;
    }

    /// Takes in what people said.
    pub(super) fn review(&mut self, spec: &InspectionSpec, out: &mut News) {
        let Some(at) = self.heard.news.take() else { return };
        (self.heard.new_id, self.heard.new_finding) = (false, false);
        let (id, finding) = match spec.trigger {
            Trigger::Message => (self.heard.id.take(), self.heard.finding.take()),
            Trigger::Count(_) | Trigger::Id => (self.heard.id.clone(), self.heard.finding),
        };
        let Some(finding) = finding else { return };
        let unmatched = InspectionTally { unmatched: 1, ..InspectionTally::default() };
        let told = if spec.review.as_ref().is_some_and(|review| review.id.is_some()) {
            let Some(id) = id else { return };
            let said = Some((id.clone(), finding));
            if self.heard.done == said {
                return;
            }
            self.heard.done = said;
            self.memory.review(&id, finding).map(|reviewed| (reviewed, id))
        } else {
            self.memory.latest().and_then(|id| Some((self.memory.review(&id, finding)?, id)))
        };
        if let Some((Reviewed { at: of, rejected: Some(rejected), .. }, id)) = &told {
            // What is told until `settle` later belongs to it.
            let turn = self.heard.turn.max(Time((at + spec.settle).0 + 1));
            let id = spec.id.and(Some(id.clone()));
            out.rejections.push(Rejection { at: *of, turn, id, parts: 1.0, known: true, back: !rejected, code: None });
        }
        let (at, tally) = told.map_or((at, unmatched), |(reviewed, _)| (reviewed.at, reviewed.tally));
        if tally != InspectionTally::default() {
            out.tallies.push((at, tally));
        }
    }
}
