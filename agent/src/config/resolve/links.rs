//! Links: stations that name the same endpoint share one connection, so they must agree on how it is made.

use std::rc::Rc;

use super::Who;
use crate::config::Link;
use crate::config::error::Report;
use crate::config::protocols::Wire;
use crate::config::section::At;
use crate::config::tree::Origin;

/// The links so far, in the order in which stations name them.
#[derive(Default)]
pub(in crate::config) struct Links(Vec<Draft>);

struct Draft {
    /// For people: as it is written where something was filled in.
    endpoint: String,
    stations: Vec<usize>,
    wire: Wire,
}

/// An option of a link that several stations may state: one that states it speaks for all, two must agree.
pub(in crate::config) struct Agreed<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) said: Option<Said>,
}

/// Who stated it, and where.
pub(in crate::config) struct Said {
    station: Rc<str>,
    origin: Rc<Origin>,
    /// No message quotes it.
    secret: bool,
}

impl<T: PartialEq> Agreed<T> {
    pub(in crate::config) fn nobody(value: T) -> Self {
        Self { value, said: None }
    }

    /// `who` writes `value`, or leaves the option out.
    pub(in crate::config) fn say<U>(
        &mut self,
        who: &Who,
        at: &Option<At<U>>,
        value: impl FnOnce(&U) -> T,
        report: &mut Report,
    ) {
        self.put(who, at, value, false, report);
    }

    /// As [`Agreed::say`], for a secret: no message quotes it.
    pub(in crate::config) fn whisper<U>(
        &mut self,
        who: &Who,
        at: &Option<At<U>>,
        value: impl FnOnce(&U) -> T,
        report: &mut Report,
    ) {
        self.put(who, at, value, true, report);
    }

    fn put<U>(
        &mut self,
        who: &Who,
        at: &Option<At<U>>,
        value: impl FnOnce(&U) -> T,
        secret: bool,
        report: &mut Report,
    ) {
        let Some(at) = at else { return };
        let value = value(&at.value);
        let Some(said) = &self.said else {
            self.value = value;
            if at.origin.written {
                self.said = Some(Said { station: Rc::clone(&who.shown), origin: Rc::clone(&at.origin), secret });
            }
            return;
        };
        if at.origin.written && self.value != value {
            said.disagree(who, &at.origin, report);
        }
    }
}

impl Said {
    /// Reports what is wrong with it.
    pub(in crate::config) fn wrong(&self, report: &mut Report, message: impl Into<String>) {
        self.origin.wrong(report, message);
    }

    /// Reports that `who` writes something else there.
    fn disagree(&self, who: &Who, there: &Origin, report: &mut Report) {
        let (this, that) = if self.secret {
            ("one value here".to_owned(), "another".to_owned())
        } else {
            (format!("`{}` here", there.shown), format!("`{}`", self.origin.shown))
        };
        let message = format!(
            "{this}, {that} at station `{}` ({}): `{}` and `{0}` share this connection, so they must agree",
            self.station, self.origin.place, who.shown
        );
        there.wrong(report, message);
    }
}

impl Links {
    /// Puts a station on the link that is the `same`, or on one of its own; the link's index.
    pub(in crate::config) fn join<E>(
        &mut self,
        who: &Who,
        written: &At<E>,
        endpoint: &impl ToString,
        same: impl Fn(&Wire) -> bool,
        wire: impl FnOnce() -> Wire,
    ) -> usize {
        let index = self.0.iter().position(|link| same(&link.wire)).unwrap_or_else(|| {
            // What was filled in may be a secret: then the endpoint is shown as it is written.
            let endpoint = if written.origin.shown.contains("${") {
                written.origin.shown.to_string()
            } else {
                endpoint.to_string()
            };
            self.0.push(Draft { endpoint, stations: Vec::new(), wire: wire() });
            self.0.len() - 1
        });
        self.0[index].stations.push(who.index);
        index
    }

    /// What every link so far is told.
    pub(in crate::config) fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.0.iter().map(|link| &link.wire)
    }

    /// What the link at `index` is told.
    pub(in crate::config) fn wire(&mut self, index: usize) -> &mut Wire {
        &mut self.0[index].wire
    }

    /// The links, with what their stations agreed on.
    pub(super) fn finish(self, report: &mut Report) -> Vec<Link> {
        let finish = |Draft { endpoint, stations, wire }| Link { endpoint, stations, source: wire.finish(report) };
        self.0.into_iter().map(finish).collect()
    }
}
