//! What a message says: from topic and JSON payload to readings. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use tracing::debug;

use super::config::{self, TimeFormat};
use super::pick::Pick;
use crate::{Batch, Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// Everything that stations take from messages.
pub(super) struct Payloads {
    topics: Vec<Topic>,
    /// Topics without wildcards, by name: a thousand stations cost a message no more than one.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// The others, which are tried one by one.
    wild: Vec<usize>,
    max_payload: usize,
}

struct Topic {
    station: Arc<str>,
    filter: String,
    qos: u8,
    time: Option<(Pick, TimeFormat)>,
    tags: Vec<Tag>,
}

struct Tag {
    id: TagId,
    place: Pick,
    required: bool,
    numeric: bool,
}

impl Payloads {
    pub(super) fn new(topics: Vec<config::Topic>, max_payload: usize) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut wild = Vec::new();
        for (at, topic) in topics.iter().enumerate() {
            let filter = unshared(&topic.filter);
            if filter.contains(['+', '#']) {
                wild.push(at);
            } else {
                exact.entry(filter.into()).or_default().push(at);
            }
        }
        Self { topics: topics.into_iter().map(Topic::new).collect(), exact, wild, max_payload }
    }

    /// Every tag of every topic; one that several topics carry comes once.
    pub(super) fn tags(&self) -> Vec<TagId> {
        self.tags_of(|_| true)
    }

    /// The tags that only topics with such filters carry.
    pub(super) fn tags_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<TagId> {
        let ids = |wanted: &dyn Fn(&str) -> bool| -> std::collections::BTreeSet<_> {
            let topics = self.topics.iter().filter(|topic| wanted(&topic.filter));
            topics.flat_map(|topic| topic.tags.iter().map(|tag| tag.id)).collect()
        };
        let others = ids(&|filter| !wanted(filter));
        ids(&wanted).difference(&others).copied().collect()
    }

    /// What to subscribe to: each filter once, with the highest quality of service that a station asks for.
    pub(super) fn filters(&self) -> Vec<(String, u8)> {
        let mut filters: Vec<(String, u8)> = Vec::with_capacity(self.topics.len());
        let mut place = HashMap::new();
        for topic in &self.topics {
            let at = *place.entry(topic.filter.as_str()).or_insert(filters.len());
            match filters.get_mut(at) {
                Some((_, qos)) => *qos = topic.qos.max(*qos),
                None => filters.push((topic.filter.clone(), topic.qos)),
            }
        }
        filters
    }

    /// What the message says, for all stations together. `None` when no station asked for such a topic.
    ///
    /// A message that is too large, is not JSON, or holds no tag of any station that asked for it, is one loss,
    /// booked on the first of these stations, and leaves every tag as it was. The reasons are few and fixed, since losses are counted by reason.
    pub(super) fn read(&self, topic: &str, payload: &[u8], now: Time) -> Option<Batch> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let wild = self.wild.iter().filter(|&&at| matches(topic, unshared(&self.topics[at].filter)));
        let mut asked = exact.chain(wild).map(|&at| &self.topics[at]).peekable();
        let station = &asked.peek()?.station;
        let lost =
            |reason: &str| Loss { source: Arc::clone(station), from: now, to: now, count: 1, reason: reason.into() };
        let mut batch = Batch::default();
        if payload.len() > self.max_payload {
            debug!(topic, bytes = payload.len(), "payload over the limit");
            batch.losses.push(lost("the payload is larger than max_payload"));
            return Some(batch);
        }
        match serde_json::from_slice::<Json>(payload) {
            Err(error) => {
                debug!(topic, %error, "payload is not JSON");
                batch.losses.push(lost("the payload is not JSON"));
            }
            Ok(json) => {
                let found = asked.fold(false, |found, topic| topic.read(&json, now, &mut batch.readings) | found);
                if !found {
                    debug!(topic, "no tag in the payload");
                    // A required tag is missed beside others. Where there is none, this may be about something else.
                    batch.readings.clear();
                    batch.losses.push(lost("no tag of the topic is in the payload"));
                }
            }
        }
        Some(batch)
    }
}

impl Topic {
    fn new(topic: config::Topic) -> Self {
        let config::Topic { station, filter, qos, time, tags } = topic;
        Self {
            station,
            filter,
            qos,
            time: time.map(|time| (Pick::new(time.path), time.format)),
            tags: tags
                .into_iter()
                .map(|tag| Tag { id: tag.id, place: Pick::new(tag.path), required: tag.required, numeric: tag.numeric })
                .collect(),
        }
    }

    /// Adds what `json` says of this topic's tags; whether it said anything.
    ///
    /// Where the payload should carry a time and does not, or one that cannot be read, the values count as of
    /// the time received and are uncertain (`NoSourceTime`): they are not lost, and nobody vouches for when.
    fn read(&self, json: &Json, now: Time, into: &mut Vec<Reading>) -> bool {
        let (time, told) = match &self.time {
            None => (now, true),
            Some((place, format)) => match place.first(json).and_then(|node| instant(*format, node)) {
                Some(time) => (time, true),
                None => (now, false),
            },
        };
        let mut found = false;
        into.reserve(self.tags.len());
        for tag in &self.tags {
            let Some(node) = tag.place.first(json) else {
                if tag.required {
                    into.push(Reading::bad(tag.id, Status::Own(OwnStatus::PathNotFound), time, now));
                }
                continue;
            };
            found = true;
            into.push(match value(node, tag.numeric) {
                None => Reading::bad(tag.id, Status::Own(OwnStatus::WrongType), time, now),
                Some(value) => {
                    let mut reading = Reading::good(tag.id, value, time, now);
                    if !told && reading.validity == Validity::Good {
                        reading.validity = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
                    }
                    reading
                }
            });
        }
        found
    }
}

/// The node as a value; `None` when it is none, or text where only numbers make sense.
fn value(node: &Json, numeric: bool) -> Option<Value> {
    match node {
        Json::Bool(on) => Some(Value::Bool(*on)),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Some(Value::Int(whole)),
            None => number.as_f64().map(Value::Float), // above 2^63 too
        },
        Json::String(text) if !numeric => Some(Value::Text(text.as_str().into())),
        Json::String(_) | Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The instant that `node` tells. Numbers with a fraction are taken to the microsecond, since a 64-bit float
/// does not hold today's time any finer.
fn instant(format: TimeFormat, node: &Json) -> Option<Time> {
    let nanos_each: i64 = match format {
        TimeFormat::Rfc3339 => return node.as_str()?.parse().ok(),
        TimeFormat::UnixS => 1_000_000_000,
        TimeFormat::UnixMs => 1_000_000,
        TimeFormat::UnixUs => 1_000,
    };
    let number = node.as_number()?;
    if let Some(whole) = number.as_i64() {
        return whole.checked_mul(nanos_each).map(Time);
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand to a billion")]
    let micros = (number.as_f64()? * (nanos_each / 1_000) as f64).round();
    // Any float below this bound fits i64 in nanoseconds.
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    (micros.abs() < 9.2e15).then(|| Time(micros as i64 * 1_000))
}

/// A shared subscription's own filter (MQTT 5, 4.8.2): `$share/group/filter`.
fn unshared(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter)
}

/// Whether `topic` matches `filter` (MQTT 3.1.1, 4.7).
fn matches(topic: &str, filter: &str) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{SourceTime, TopicTag};

    const NOW: Time = Time(1_000);

    fn tag(id: u32, path: &str) -> TopicTag {
        TopicTag { id: TagId(id), path: path.parse().expect(path), required: false, numeric: false }
    }

    fn topic(filter: &str, tags: Vec<TopicTag>) -> config::Topic {
        config::Topic { station: "oven-1".into(), filter: filter.to_owned(), qos: 1, time: None, tags }
    }

    fn oven() -> config::Topic {
        let count = TopicTag { numeric: true, ..tag(1, "$.count") };
        topic("fab/oven", vec![tag(0, "$.state"), count, tag(2, "$.zones[0].temp")])
    }

    fn read(topics: Vec<config::Topic>, payload: &str) -> Batch {
        Payloads::new(topics, 100).read("fab/oven", payload.as_bytes(), NOW).expect("asked for")
    }

    fn good(id: u32, value: Value) -> Reading {
        Reading::good(TagId(id), value, NOW, NOW)
    }

    fn bad(id: u32, status: OwnStatus) -> Reading {
        Reading::bad(TagId(id), Status::Own(status), NOW, NOW)
    }

    fn reasons(batch: &Batch) -> Vec<(&str, u64, &str)> {
        batch.losses.iter().map(|loss| (&*loss.source, loss.count, &*loss.reason)).collect()
    }

    #[test]
    fn a_payload_is_one_batch() {
        let batch = read(vec![oven()], r#"{"state":"running","count":7,"zones":[{"temp":251.5}]}"#);
        let expected = [good(0, Value::Text("running".into())), good(1, Value::Int(7)), good(2, Value::Float(251.5))];
        assert_eq!(batch.readings, expected);
        assert!(batch.losses.is_empty() && batch.receipt.is_none());
    }

    #[test]
    fn what_is_not_there_stays_as_it_was_unless_required() {
        let mut oven = oven();
        assert_eq!(read(vec![oven.clone()], r#"{"count":7}"#).readings, [good(1, Value::Int(7))]);
        oven.tags[0].required = true;
        let batch = read(vec![oven.clone()], r#"{"count":7}"#);
        assert_eq!(batch.readings, [bad(0, OwnStatus::PathNotFound), good(1, Value::Int(7))]);
        assert!(batch.losses.is_empty());

        // Nothing of the topic: one loss, and what is required stays as it was too.
        let batch = read(vec![oven.clone(), oven.clone()], r#"{"other":7}"#);
        assert!(batch.readings.is_empty(), "{batch:?}");
        assert_eq!(reasons(&batch), [("oven-1", 1, "no tag of the topic is in the payload")]);

        // Unreadable: nobody knows what it held.
        let batch = read(vec![oven], "{");
        assert!(batch.readings.is_empty());
        assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")]);
    }

    #[test]
    fn what_cannot_be_read_is_one_loss_and_leaves_the_tags() {
        let deep = "[".repeat(90);
        for payload in ["", "{\"state\":", "running", "\u{0}", "{\"count\":1e999}", deep.as_str(), "{} {}"] {
            let batch = read(vec![oven(), oven()], payload);
            assert!(batch.readings.is_empty(), "{payload}");
            assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")], "{payload}");
            assert_eq!((batch.losses[0].from, batch.losses[0].to), (NOW, NOW));
        }
        for payload in ["{}", "[]", "7", "null", r#"{"zones":[]}"#] {
            let batch = read(vec![oven()], payload);
            assert!(batch.readings.is_empty(), "{payload}");
            assert_eq!(reasons(&batch), [("oven-1", 1, "no tag of the topic is in the payload")], "{payload}");
        }
        // As deep as a stack would not survive.
        let bomb = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let batch = Payloads::new(vec![oven()], 1 << 20).read("fab/oven", bomb.as_bytes(), NOW).expect("asked for");
        assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")]);
        let batch = Payloads::new(vec![oven()], 100).read("fab/oven", b"{\"state\":\"\xff\"}", NOW).expect("asked for");
        assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")], "not UTF-8");
        let large = format!(r#"{{"count":7,"pad":"{}"}}"#, "x".repeat(100));
        let batch = read(vec![oven()], &large);
        assert!(batch.readings.is_empty());
        assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is larger than max_payload")]);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_bad_beside_good_ones() {
        for wrong in ["null", "[]", "{}", "\"7\""] {
            let batch = read(vec![oven()], &format!(r#"{{"state":true,"count":{wrong}}}"#));
            let expected = [good(0, Value::Bool(true)), bad(1, OwnStatus::WrongType)];
            assert_eq!(batch.readings, expected, "{wrong}");
            assert!(batch.losses.is_empty(), "it was there");
        }
    }

    #[test]
    fn numbers_keep_what_they_are() {
        let one = |payload: &str| read(vec![topic("fab/oven", vec![tag(0, "$")])], payload).readings[0].value.clone();
        assert_eq!(one("9007199254740993"), Value::Int(9_007_199_254_740_993));
        assert_eq!(one("-9223372036854775808"), Value::Int(i64::MIN));
        assert_eq!(one("18446744073709551615"), Value::Float(18_446_744_073_709_551_615.0));
        assert_eq!(one("1.0"), Value::Float(1.0));
        assert_eq!(one("1e3"), Value::Float(1000.0));
    }

    #[test]
    fn stations_share_a_payload_and_only_one_that_nobody_can_use_is_lost() {
        let left = topic("fab/+", vec![tag(0, "$.left")]);
        let right = topic("fab/oven", vec![tag(1, "$.right")]);
        let batch = read(vec![left.clone(), right.clone()], r#"{"left":1,"right":2}"#);
        assert_eq!(batch.readings.len(), 2);
        let batch = read(vec![left.clone(), right.clone()], r#"{"left":1}"#);
        assert_eq!((batch.readings, batch.losses), (vec![good(0, Value::Int(1))], vec![]));
        assert_eq!(read(vec![left, right], "{}").losses.len(), 1);
    }

    #[test]
    fn the_payloads_own_time_counts() {
        for (format, written, nanos) in [
            (TimeFormat::UnixS, "1794556800", 1_794_556_800_000_000_000),
            (TimeFormat::UnixS, "1794556800.123456", 1_794_556_800_123_456_000),
            (TimeFormat::UnixMs, "1794556800123", 1_794_556_800_123_000_000),
            (TimeFormat::UnixMs, "1794556800123.5", 1_794_556_800_123_500_000),
            (TimeFormat::UnixUs, "1794556800123456", 1_794_556_800_123_456_000),
            (TimeFormat::Rfc3339, "\"2026-11-13T08:00:00.123456789Z\"", 1_794_556_800_123_456_789),
            (TimeFormat::Rfc3339, "\"2026-11-13T09:00:00+01:00\"", 1_794_556_800_000_000_000),
        ] {
            let time = Some(SourceTime { path: "$.t".parse().expect("a path"), format });
            let batch = read(vec![config::Topic { time, ..oven() }], &format!(r#"{{"count":7,"t":{written}}}"#));
            assert_eq!(batch.readings, [Reading::good(TagId(1), Value::Int(7), Time(nanos), NOW)], "{written}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_read_leaves_the_value_in_doubt() {
        for (format, payload) in [
            (TimeFormat::UnixMs, r#"{"count":7}"#),
            (TimeFormat::UnixMs, r#"{"count":7,"t":"1794556800123"}"#),
            (TimeFormat::UnixMs, r#"{"count":7,"t":null}"#),
            (TimeFormat::UnixS, r#"{"count":7,"t":9223372036854775807}"#),
            (TimeFormat::UnixS, r#"{"count":7,"t":1e300}"#),
            (TimeFormat::Rfc3339, r#"{"count":7,"t":"yesterday"}"#),
            (TimeFormat::Rfc3339, r#"{"count":7,"t":1794556800}"#),
        ] {
            let time = Some(SourceTime { path: "$.t".parse().expect("a path"), format });
            let batch = read(vec![config::Topic { time, ..oven() }], payload);
            let doubtful = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
            assert_eq!(batch.readings, [Reading { validity: doubtful, ..good(1, Value::Int(7)) }], "{payload}");
            assert!(batch.losses.is_empty());
        }
    }

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
        let shared = Payloads::new(vec![topic("$share/g/fab/+", vec![tag(0, "$")])], 100);
        assert!(shared.read("fab/oven", b"1", NOW).is_some());
        assert!(shared.read("elsewhere", b"1", NOW).is_none());
    }

    #[test]
    fn each_filter_is_subscribed_once_and_each_tag_listed_once() {
        let twice = topic("b", vec![tag(0, "$.x"), tag(9, "$.y")]);
        let payloads = Payloads::new(
            vec![config::Topic { qos: 0, ..topic("a", vec![tag(0, "$.x")]) }, topic("a", vec![tag(1, "$.x")]), twice],
            100,
        );
        assert_eq!(payloads.filters(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
        assert_eq!(payloads.tags(), [TagId(0), TagId(1), TagId(9)]);
        assert_eq!(payloads.tags_of(|filter| filter == "b"), [TagId(9)], "tag 0 still comes by another topic");
    }
}
