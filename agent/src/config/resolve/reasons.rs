//! Why a machine may stand: a tree of reasons, laid flat.

use std::rc::Rc;

use super::Names;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::words::{Flag, Name, one_of_names};
use crate::model::Reason;

/// How many reasons may stand above each other.
const DEEPEST: usize = 8;

/// The reasons of a line.
#[derive(Default)]
pub(super) struct Reasons {
    /// In the order written, a parent before its children; what a parent says is filled in.
    pub(super) list: Vec<Reason>,
    /// Their codes, for people.
    shown: Vec<Rc<str>>,
    codes: Names,
    /// Something in the tree could not be read: nobody knows what codes it was to have.
    broken: bool,
}

/// What `tree` means.
pub(super) fn resolve(tree: &[At<raw::Reason>], report: &mut Report) -> Reasons {
    let mut reasons = Reasons::default();
    reasons.add(tree, None, 1, report);
    reasons
}

impl Reasons {
    /// The index of the reason with this code.
    pub(super) fn index(&self, code: &At<Name>, report: &mut Report) -> Option<usize> {
        let found = self.list.iter().position(|reason| *reason.code == code.value.0);
        if found.is_none() && !self.broken {
            let shown = &code.origin.shown;
            let help = match self.shown.as_slice() {
                [] => "; the line has no `reasons`".to_owned(),
                codes => one_of_names(shown, codes.iter().map(|code| &**code)),
            };
            code.wrong(report, format!("`{shown}` is no code of a reason{help}"));
        }
        found
    }

    fn add(&mut self, tree: &[At<raw::Reason>], parent: Option<usize>, depth: usize, report: &mut Report) {
        for raw in tree {
            if depth > DEEPEST {
                raw.wrong(report, format!("more than {DEEPEST} reasons stand above each other"));
                return;
            }
            let Some(code) = &raw.code else {
                self.broken = true;
                continue;
            };
            self.codes.take(&code.value.0, code, "a reason", report);
            let above = parent.map(|parent| &self.list[parent]);
            let said = |flag: &Option<At<Flag>>| flag.as_ref().map(|flag| flag.0);
            let reason = Reason {
                code: code.value.0.as_str().into(),
                name: raw.name.as_ref().map_or(code.value.0.as_str(), |name| name.value.0.as_str()).into(),
                parent,
                bucket: raw.bucket.as_ref().map(|bucket| bucket.0).or(above.and_then(|above| above.bucket)),
                planned: said(&raw.planned).unwrap_or(above.is_some_and(|above| above.planned)),
                is_failure: said(&raw.is_failure).or(above.and_then(|above| above.is_failure)),
            };
            if reason.planned && reason.is_failure == Some(true) && !above.is_some_and(both) {
                let shown = &code.origin.shown;
                raw.wrong(
                    report,
                    format!("`{shown}` is both `planned` and `is_failure`, and nobody plans a failure; say `false` to one (a reason takes what the one above it says)"),
                );
            }
            self.list.push(reason);
            self.shown.push(Rc::clone(&code.origin.shown));
            let here = self.list.len() - 1;
            self.add(raw.reasons.as_ref().map_or(&[], |below| below.value.0.as_slice()), Some(here), depth + 1, report);
        }
    }
}

/// What was told of the reason above need not be told again.
fn both(reason: &Reason) -> bool {
    reason.planned && reason.is_failure == Some(true)
}
