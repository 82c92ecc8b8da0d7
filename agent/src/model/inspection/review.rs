//! Inspections that may yet be reviewed: a verdict is paired with what people say of it later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::inspection::{Finding, InspectionTally, Verdict};

/// The last inspections, by what was inspected. One without an id has the empty one, and only the last of those counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Of each id the newest inspection.
    by_id: BTreeMap<Arc<str>, Inspected>,
    /// In order of time, with the number that [`Inspected`] has, too.
    order: VecDeque<(u64, Arc<str>)>,
    next: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inspected {
    number: u64,
    at: Time,
    verdict: Option<Verdict>,
    reviewed: bool,
    truth: Option<Truth>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Truth {
    Good,
    Bad,
}

impl Memory {
    /// Takes an inspection in; the oldest go when there are more than `most`. Whether its id is not known yet.
    pub(super) fn remember(&mut self, most: usize, id: &Arc<str>, at: Time, verdict: Option<Verdict>) -> bool {
        let number = self.next;
        self.next += 1;
        let inspected = Inspected { number, at, verdict, reviewed: false, truth: None };
        let new = self.by_id.insert(id.clone(), inspected).is_none();
        self.order.push_back((number, id.clone()));
        while self.order.len() > most {
            let Some((number, id)) = self.order.pop_front() else { break };
            if self.by_id.get(&id).is_some_and(|inspected| inspected.number == number) {
                self.by_id.remove(&id);
            }
        }
        new
    }

    /// What was inspected last.
    pub(super) fn latest(&self) -> Option<Arc<str>> {
        self.order.back().map(|(_, id)| id.clone())
    }

    /// What a review adds, at the time of its inspection: a word that is said again nothing, another one moves the label. None
    /// if nobody remembers the inspection.
    pub(super) fn review(&mut self, id: &str, finding: Finding) -> Option<Reviewed> {
        let inspected = self.by_id.get_mut(id)?;
        let before = inspected.is_rejected();
        let mut tally = InspectionTally::default();
        if !inspected.reviewed {
            inspected.reviewed = true;
            tally.reviewed = 1;
            tally.manual = u64::from(inspected.verdict != Some(Verdict::Review));
        }
        let truth = finding.truth(inspected.verdict);
        if let Some(truth) = truth.filter(|truth| inspected.truth != Some(*truth)) {
            if let Some(was) = inspected.truth.replace(truth) {
                label(&mut tally, inspected.verdict, was, -1);
            }
            label(&mut tally, inspected.verdict, truth, 1);
        }
        let after = inspected.is_rejected();
        Some(Reviewed { at: inspected.at, tally, rejected: (after != before).then_some(after) })
    }
}

/// What a review says.
pub(super) struct Reviewed {
    /// When the unit was inspected.
    pub(super) at: Time,
    /// What it adds then.
    pub(super) tally: InspectionTally,
    /// It is rejected now and was not, or the other way round.
    pub(super) rejected: Option<bool>,
}

impl Inspected {
    /// What people say has the last word.
    fn is_rejected(&self) -> bool {
        self.truth.map_or(self.verdict == Some(Verdict::Fail), |truth| truth == Truth::Bad)
    }
}

impl Finding {
    /// What the unit is. Where the machine decided nothing, nothing can be confirmed or overturned.
    fn truth(self, verdict: Option<Verdict>) -> Option<Truth> {
        match (self, verdict) {
            (Self::Good, _) | (Self::Confirmed, Some(Verdict::Pass)) | (Self::Overturned, Some(Verdict::Fail)) => {
                Some(Truth::Good)
            }
            (Self::Bad, _) | (Self::Confirmed, Some(Verdict::Fail)) | (Self::Overturned, Some(Verdict::Pass)) => {
                Some(Truth::Bad)
            }
            (Self::Confirmed | Self::Overturned, Some(Verdict::Review) | None) => None,
        }
    }
}

fn label(tally: &mut InspectionTally, verdict: Option<Verdict>, truth: Truth, by: i64) {
    let labels = &mut tally.labels;
    let cell = match (verdict, truth) {
        (Some(Verdict::Fail), Truth::Bad) => &mut labels.caught,
        (Some(Verdict::Fail), Truth::Good) => &mut labels.false_rejects,
        (Some(Verdict::Pass), Truth::Good) => &mut labels.cleared,
        (Some(Verdict::Pass), Truth::Bad) => &mut labels.escapes,
        (Some(Verdict::Review) | None, Truth::Good) => &mut tally.undecided_good,
        (Some(Verdict::Review) | None, Truth::Bad) => &mut tally.undecided_bad,
    };
    *cell += by;
}
