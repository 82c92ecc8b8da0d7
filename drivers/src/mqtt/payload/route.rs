//! Which topics are whose, and what to subscribe to.

use std::collections::{BTreeSet, HashMap};

use super::{Payloads, Topic};
use crate::TagId;
use crate::mqtt::filter::{STATION, TAG, fill, matches, unshared};

/// Which of a topic's tags a message is about: one if the topic names it, or else all.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) topic: usize,
    pub(super) tag: Option<usize>,
}

/// Topics by their names.
pub(super) struct Routes {
    /// Those without wildcards: a thousand stations cost a message no more than one.
    exact: HashMap<Box<str>, Vec<Asked>>,
    /// The others, which are tried one by one.
    wild: Vec<usize>,
}

impl Routes {
    pub(super) fn new(topics: &[Topic]) -> Self {
        let mut exact: HashMap<Box<str>, Vec<Asked>> = HashMap::new();
        let mut wild = Vec::new();
        for (at, topic) in topics.iter().enumerate() {
            let own = fill(unshared(&topic.filter), &topic.station, TAG);
            match &topic.tag {
                _ if own.contains(['+', '#']) => wild.push(at),
                Some((_, tags)) => {
                    for (name, &tag) in tags {
                        let topic = fill(&own, STATION, name).into();
                        exact.entry(topic).or_default().push(Asked { topic: at, tag: Some(tag) });
                    }
                }
                None => exact.entry(own.into()).or_default().push(Asked { topic: at, tag: None }),
            }
        }
        Self { exact, wild }
    }

    /// Who asked for `topic`, one of `topics`.
    pub(super) fn asked(&self, topics: &[Topic], topic: &str) -> Vec<Asked> {
        let mut asked = self.exact.get(topic).cloned().unwrap_or_default();
        asked.extend(self.wild.iter().filter_map(|&at| {
            let held = &topics[at];
            if !matches(topic, &held.pattern) {
                return None;
            }
            let tag = match &held.tag {
                None => None,
                Some((level, tags)) => Some(*tags.get(topic.split('/').nth(*level)?)?),
            };
            Some(Asked { topic: at, tag })
        }));
        asked
    }
}

impl Payloads {
    /// Every tag of every topic; one that several topics carry comes once.
    pub(in crate::mqtt) fn tags(&self) -> Vec<TagId> {
        self.tags_of(|_| true)
    }

    /// The tags that come by such subscriptions alone.
    pub(in crate::mqtt) fn tags_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<TagId> {
        let ids = |wanted: &dyn Fn(&str) -> bool| -> BTreeSet<_> {
            let topics = self.topics.iter().filter(|topic| wanted(&topic.subscription));
            topics.flat_map(|topic| topic.ids.iter().copied()).collect()
        };
        let others = ids(&|filter| !wanted(filter));
        ids(&wanted).difference(&others).copied().collect()
    }

    /// The subscriptions that carry one of `tags`.
    pub(in crate::mqtt) fn carrying(&self, tags: &BTreeSet<TagId>) -> BTreeSet<&str> {
        let carries = |topic: &&Topic| topic.ids.iter().any(|id| tags.contains(id));
        self.topics.iter().filter(carries).map(|topic| topic.subscription.as_str()).collect()
    }

    /// What to subscribe to: each filter once, with the highest quality of service that a station asks for.
    pub(in crate::mqtt) fn filters(&self) -> Vec<(String, u8)> {
        self.filters_of(|_| true)
    }

    /// The same, for the stations that are `wanted`.
    pub(in crate::mqtt) fn filters_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, u8)> {
        let mut filters: Vec<(String, u8)> = Vec::with_capacity(self.topics.len());
        let mut place = HashMap::new();
        for topic in self.topics.iter().filter(|topic| wanted(&topic.station)) {
            let at = *place.entry(topic.subscription.as_str()).or_insert(filters.len());
            match filters.get_mut(at) {
                Some((_, qos)) => *qos = topic.qos.max(*qos),
                None => filters.push((topic.subscription.clone(), topic.qos)),
            }
        }
        filters
    }
}
