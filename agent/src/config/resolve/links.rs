//! Links: stations that name the same endpoint share one connection, so they must agree on how it is made.

use std::rc::Rc;

use super::Who;
use crate::config::Link;
use crate::config::error::{Place, Report};
use crate::config::protocols::Wire;
use crate::config::section::At;

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
    pub(in crate::config) place: Place,
    pub(in crate::config) path: Rc<str>,
    /// What was written; `None` for a secret.
    shown: Option<Rc<str>>,
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
            if at.written {
                let shown = (!secret).then(|| Rc::clone(&at.shown));
                let (place, path) = (at.place.clone(), Rc::clone(&at.path));
                self.said = Some(Said { station: Rc::clone(&who.shown), place, path, shown });
            }
            return;
        };
        if !at.written || self.value == value {
            return;
        }
        said.disagree(who, &at.shown, &at.place, &at.path, report);
    }
}

impl Said {
    /// Reports that `who` writes something else.
    fn disagree(&self, who: &Who, shown: &str, place: &Place, path: &str, report: &mut Report) {
        let (here, there) = match &self.shown {
            Some(said) => (format!("`{shown}` here"), format!("`{said}`")),
            None => ("one value here".to_owned(), "another".to_owned()),
        };
        report.add(
            place,
            path,
            format!(
                "{here}, {there} at station `{}` ({}): `{}` and `{0}` share this connection, so they must agree",
                self.station, self.place, who.shown
            ),
        );
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
            let endpoint = if written.shown.contains("${") { written.shown.to_string() } else { endpoint.to_string() };
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
