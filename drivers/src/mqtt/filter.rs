//! Topic filters: which topics they match, and what their levels name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A level that stands for the station's name.
pub(super) const STATION: &str = "{station}";
/// A level that stands for a tag's name.
pub(super) const TAG: &str = "{tag}";

/// A shared subscription's own filter (MQTT 5, 4.8.2): `$share/group/filter`.
pub(super) fn unshared(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter)
}

/// Whether `topic` matches `filter` (MQTT 3.1.1, 4.7).
pub(super) fn matches(topic: &str, filter: &str) -> bool {
    // Wildcards at the start do not reach into the broker's own topics (4.7.2).
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// `filter` with `station` and `tag` in the levels that stand for them.
pub(super) fn fill(filter: &str, station: &str, tag: &str) -> String {
    let level = |level| match level {
        STATION => station,
        TAG => tag,
        other => other,
    };
    filter.split('/').map(level).collect::<Vec<_>>().join("/")
}

/// Whether a level of it is `level`.
pub(super) fn has(filter: &str, level: &str) -> bool {
    filter.split('/').any(|held| held == level)
}

/// Where in a topic the level is that `filter` writes as `level`.
pub(super) fn place(filter: &str, level: &str) -> Option<usize> {
    unshared(filter).split('/').position(|held| held == level)
}

/// What is subscribed for each of `(station, filter)`: tags as `+`, and a station's own name unless several stations
/// write the same, which then are one subscription.
pub(super) fn subscriptions<'a>(topics: impl Iterator<Item = (&'a Arc<str>, &'a str)> + Clone) -> Vec<String> {
    let mut stations: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (station, filter) in topics.clone().filter(|(_, filter)| has(filter, STATION)) {
        stations.entry(filter).or_default().insert(station);
    }
    let filled = |(station, filter): (&'a Arc<str>, &'a str)| {
        let several = stations.get(filter).is_some_and(|stations| stations.len() > 1);
        fill(filter, if several { "+" } else { station }, "+")
    };
    topics.map(filled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_mqtt_says() {
        for (topic, filter) in [
            ("a/b", "a/b"),
            ("a/b", "a/+"),
            ("a/b", "#"),
            ("a", "a/#"),
            ("a/b/c", "a/#"),
            ("/a", "+/a"),
            ("a/", "a/+"),
            ("ü/b", "+/b"),
            ("$SYS/load", "$SYS/#"),
        ] {
            assert!(matches(topic, filter), "{topic} {filter}");
        }
        for (topic, filter) in
            [("a/b", "a"), ("a", "a/+"), ("a/b/c", "a/+"), ("a", "A"), ("$SYS/load", "#"), ("$SYS/load", "+/load")]
        {
            assert!(!matches(topic, filter), "{topic} {filter}");
        }
    }

    #[test]
    fn stations_that_write_the_same_are_one_subscription() {
        let (a, b): (Arc<str>, Arc<str>) = ("oven-1".into(), "oven-2".into());
        let all = [
            (&a, "fab/{station}/{tag}"),
            (&b, "fab/{station}/{tag}"),
            (&a, "$share/g/x/{station}/#"),
            (&b, "y/{station}"),
            (&b, "plain/{stations}"),
        ];
        let expected = ["fab/+/+", "fab/+/+", "$share/g/x/oven-1/#", "y/oven-2", "plain/{stations}"];
        assert_eq!(subscriptions(all.into_iter()), expected);
        assert_eq!(place("$share/g/x/{station}/{tag}", TAG), Some(2));
        assert_eq!(unshared("$share/g/x/#"), "x/#");
    }
}
