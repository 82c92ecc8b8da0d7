//! What the broker's session is subscribed to, as far as we know.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The filters of a session, which outlive connections and processes.
#[derive(Debug, Default)]
pub(super) struct Held {
    filters: BTreeSet<String>,
    /// Those that the broker was asked to let go of, and how many answers are still to come.
    leaving: (Vec<String>, usize),
    /// They changed since they were made durable.
    untold: bool,
}

impl Held {
    pub(super) fn new(filters: impl IntoIterator<Item = String>) -> Self {
        Self { filters: filters.into_iter().collect(), ..Self::default() }
    }

    /// A new connection: the broker has the session still, or has none. An answer that is missing does not come any more.
    pub(super) fn connected(&mut self, resumed: bool) {
        self.leaving = (Vec::new(), 0);
        if !resumed {
            self.untold |= !self.filters.is_empty();
            self.filters.clear();
        }
    }

    /// Whether it has this one.
    pub(super) fn has(&self, filter: &str) -> bool {
        self.filters.contains(filter)
    }

    /// What it has and is not wanted any more.
    pub(super) fn unwanted(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.filters.iter().filter(|held| !is_wanted(held)).cloned().collect()
    }

    /// The broker was asked to let go of these, and will answer so many times.
    pub(super) fn leave(&mut self, filters: Vec<String>, answers: usize) {
        self.leaving = (filters, answers);
    }

    /// One such answer.
    pub(super) fn left(&mut self) {
        self.leaving.1 = self.leaving.1.saturating_sub(1);
        if self.leaving.1 == 0 {
            for filter in std::mem::take(&mut self.leaving.0) {
                self.untold |= self.filters.remove(&filter);
            }
        }
    }

    /// The broker subscribed us to it.
    pub(super) fn granted(&mut self, filter: &str) {
        if !self.filters.contains(filter) {
            self.filters.insert(filter.to_owned());
            self.untold = true;
        }
    }

    /// All of them, if they changed since this was asked last.
    pub(super) fn news(&mut self) -> Option<Arc<[Box<str>]>> {
        std::mem::take(&mut self.untold).then(|| self.filters.iter().map(|filter| filter.as_str().into()).collect())
    }
}
