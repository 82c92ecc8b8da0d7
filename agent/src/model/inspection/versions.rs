//! Versions of the inspection model, each with the scores that it began with.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::drift::Sample;
use crate::model::inspection::tally::MOST_BASELINES;

/// The versions used last, the present one at the end. One that comes back finds its baseline again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Versions {
    known: Vec<Version>,
    next: u32,
}

/// A version of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    /// Its name; empty where no tag tells one.
    pub(super) name: Arc<str>,
    /// Never given twice: a version that was forgotten begins with another one.
    pub(super) number: u32,
    /// Its first scores.
    pub(super) sample: Sample,
    /// There are enough of them: they stay as they are.
    pub(super) frozen: bool,
}

impl Versions {
    /// It is `name` that judges from now on.
    pub(super) fn switch(&mut self, name: &Arc<str>) {
        if let Some(place) = self.known.iter().position(|version| version.name == *name) {
            let version = self.known.remove(place);
            self.known.push(version);
            return;
        }
        if self.known.len() == MOST_BASELINES {
            self.known.remove(0);
        }
        self.known.push(Version { name: name.clone(), number: self.next, sample: Sample::default(), frozen: false });
        self.next += 1;
    }

    /// The present one.
    pub(super) fn present(&self) -> Option<&Version> {
        self.known.last()
    }

    /// The one with that number.
    pub(super) fn find(&self, number: u32) -> Option<&Version> {
        self.known.iter().find(|version| version.number == number)
    }

    /// A score of the present version: learnt while there are fewer than `enough`, then compared. The number of its baseline and
    /// its cell there.
    pub(super) fn score(&mut self, enough: usize, score: f64) -> Option<(u32, u16)> {
        let version = self.known.last_mut()?;
        if version.frozen {
            return Some((version.number, version.sample.cell(score)));
        }
        version.sample.learn(score);
        version.frozen = version.sample.len() >= enough;
        None
    }
}
