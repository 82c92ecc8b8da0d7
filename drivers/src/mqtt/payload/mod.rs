//! What a message says: from topic and payload to readings. Pure.

mod binary;
mod csv;
mod instant;
mod look;
mod pick;
mod text;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tracing::debug;

pub(super) use self::binary::unsigned;
use self::csv::Rows;
use self::instant::{Given, instant};
pub(super) use self::look::Found;
use self::pick::Pick;
use super::config::{self, Column, ColumnAt, Field, Fields, Metric, SourceTime, Text, TimeFormat, TopicTag};
use super::filter::{self, STATION, TAG, fill, has, matches, unshared};
use super::sparkplug::{Heard, NAMESPACE, Nodes};
use crate::{Batch, Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// Everything that stations take from messages.
pub struct Payloads {
    topics: Vec<Topic>,
    /// Topics without wildcards, by name: a thousand stations cost a message no more than one.
    exact: HashMap<Box<str>, Vec<Asked>>,
    /// The others, which are tried one by one.
    wild: Vec<usize>,
    max_payload: usize,
    nodes: Nodes,
}

/// Which of a topic's tags a message is about: one if the topic names it, or else all.
#[derive(Clone, Copy)]
struct Asked {
    topic: usize,
    tag: Option<usize>,
}

struct Topic {
    station: Arc<str>,
    /// As it is written.
    filter: String,
    /// As it is subscribed.
    subscription: String,
    /// What topics match: the station's name in its place, no group.
    pattern: String,
    /// The level that names the tag, and the tags' places by their names.
    tag: Option<(usize, HashMap<Arc<str>, usize>)>,
    qos: u8,
    ids: Vec<TagId>,
    reader: Reader,
}

enum Reader {
    Json(Fields<Pick>),
    Csv { separator: u8, header: bool, fields: Fields<Column> },
    Plain(Fields<Text>),
    Binary(Fields<Field>),
    Sparkplug(Fields<Metric>),
}

/// A payload, decoded at most once however many stations take from it.
struct Document<'a> {
    bytes: &'a [u8],
    json: OnceCell<Option<Json>>,
    text: OnceCell<Option<&'a str>>,
}

/// What came of a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Something,
    Nothing,
    Unreadable(&'static str),
}

const NO_JSON: &str = "the payload is not JSON";
const NO_CSV: &str = "the payload is not CSV";
const NO_TEXT: &str = "the payload is not text";
const NOTHING: &str = "no tag of the topic is in the payload";
const RAGGED: &str = "a row has not as many fields as the first";

impl Payloads {
    /// What `topics` take from messages of at most `max_payload` bytes. `rebirth` lets Sparkplug nodes be asked.
    #[must_use]
    pub fn new(topics: Vec<config::Topic>, max_payload: usize, rebirth: bool) -> Self {
        let subscriptions = filter::subscriptions(topics.iter().map(|topic| (&topic.station, &*topic.filter)));
        let topics: Vec<_> = topics.into_iter().zip(subscriptions).map(|(topic, to)| Topic::new(topic, to)).collect();
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
        let metrics = topics.iter().filter_map(|topic| match &topic.reader {
            Reader::Sparkplug(fields) => Some(fields.tags.iter().map(|tag| tag.place.name.clone())),
            _ => None,
        });
        let nodes = Nodes::new(rebirth, metrics.flatten());
        Self { topics, exact, wild, max_payload, nodes }
    }

    /// Every tag of every topic; one that several topics carry comes once.
    pub(super) fn tags(&self) -> Vec<TagId> {
        self.tags_of(|_| true)
    }

    /// The tags that come by such subscriptions alone.
    pub(super) fn tags_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<TagId> {
        let ids = |wanted: &dyn Fn(&str) -> bool| -> BTreeSet<_> {
            let topics = self.topics.iter().filter(|topic| wanted(&topic.subscription));
            topics.flat_map(|topic| topic.ids.iter().copied()).collect()
        };
        let others = ids(&|filter| !wanted(filter));
        ids(&wanted).difference(&others).copied().collect()
    }

    /// What to subscribe to: each filter once, with the highest quality of service that a station asks for.
    pub(super) fn filters(&self) -> Vec<(String, u8)> {
        self.filters_of(|_| true)
    }

    /// The same, for the stations that are `wanted`.
    pub(super) fn filters_of(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, u8)> {
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

    /// What the message says, for all stations together. `None` when no station asked for such a topic, or the topic
    /// names a tag that the station has not: others' data, as are the fields of a payload that no tag reads.
    ///
    /// A message that is too large, cannot be read, or holds no tag of any station that asked for it, is one loss,
    /// booked on the first of these stations, and leaves every tag as it was. The reasons are few and fixed, since
    /// losses are counted by reason. Sparkplug nodes tell what changed, so that a message without our tags is no loss.
    pub fn read(&mut self, topic: &str, payload: &[u8], now: Time) -> Option<Batch> {
        let asked = self.asked(topic);
        let station = &self.topics[asked.first()?.topic].station;
        let lose = |from: Time, count: u64, reason: &str| Loss {
            source: Arc::clone(station),
            from,
            to: now,
            count,
            reason: reason.into(),
        };
        let mut batch = Batch::default();
        if payload.len() > self.max_payload {
            debug!(topic, bytes = payload.len(), "payload over the limit");
            batch.losses.push(lose(now, 1, "the payload is larger than max_payload"));
            return Some(batch);
        }
        let document = Document { bytes: payload, json: OnceCell::new(), text: OnceCell::new() };
        let mut heard: Option<Result<Option<Heard>, &'static str>> = None;
        let mut said = Said::Nothing;
        for Asked { topic: at, tag } in asked {
            let held = &self.topics[at];
            let this = match &held.reader {
                Reader::Json(fields) => json(fields, &document, tag, now, &mut batch.readings),
                Reader::Csv { separator, header, fields } => {
                    let (this, ragged) = rows(*separator, *header, fields, &document, tag, now, &mut batch.readings);
                    if ragged > 0 && batch.losses.is_empty() {
                        batch.losses.push(lose(now, ragged, RAGGED));
                    }
                    this
                }
                Reader::Plain(fields) => plain(fields, &document, tag, now, &mut batch.readings),
                Reader::Binary(fields) => binary(fields, &document, tag, now, &mut batch.readings),
                Reader::Sparkplug(fields) => {
                    let nodes = &mut self.nodes;
                    let heard = heard.get_or_insert_with(|| {
                        let mut lost = Vec::new();
                        let heard = nodes.hear(topic, payload, now, &mut lost);
                        batch.losses.extend(lost.into_iter().map(|(from, count, reason)| lose(from, count, reason)));
                        heard
                    });
                    match heard {
                        Ok(Some(heard)) => {
                            nodes.tell(heard, fields, now, &mut batch.readings);
                            Said::Something
                        }
                        Ok(None) => Said::Something,
                        Err(reason) => Said::Unreadable(reason),
                    }
                }
            };
            said = match (said, this) {
                (Said::Something, _) | (_, Said::Something) => Said::Something,
                (Said::Unreadable(reason), _) => Said::Unreadable(reason),
                (Said::Nothing, this) => this,
            };
        }
        let reason = match said {
            Said::Something => return Some(batch),
            Said::Nothing => NOTHING,
            Said::Unreadable(reason) => reason,
        };
        debug!(topic, reason, "a message is lost");
        // A required tag is missed beside others. Where there is none, this may be about something else.
        batch.readings.clear();
        if batch.losses.is_empty() {
            batch.losses.push(lose(now, 1, reason));
        }
        Some(batch)
    }

    /// A connection begins: Sparkplug nodes are asked what they have to say.
    pub(super) fn greet(&mut self, now: Time) {
        let topics = self.topics.iter().filter(|topic| matches!(topic.reader, Reader::Sparkplug(_)));
        let named = topics.filter_map(|topic| match *topic.pattern.split('/').collect::<Vec<_>>().as_slice() {
            [NAMESPACE, group, _, node, ..] if group != "+" && node != "+" => Some(format!("{group}/{node}")),
            _ => None,
        });
        let named: BTreeSet<_> = named.collect();
        self.nodes.greet(named.iter().map(String::as_str), now);
    }

    /// Nothing came of `tags` for too long: their Sparkplug nodes are asked.
    pub(super) fn wake(&mut self, tags: &[TagId], now: Time) {
        self.nodes.wake(tags, now);
    }

    /// How long until there is something to be published.
    pub(super) fn pause(&self, now: Time) -> Option<Duration> {
        self.nodes.pause(now)
    }

    /// What is to be published: topics and payloads. Nothing unless `rebirth`.
    pub(super) fn requests(&mut self, now: Time) -> Vec<(String, Vec<u8>)> {
        self.nodes.requests(now)
    }

    fn asked(&self, topic: &str) -> Vec<Asked> {
        let mut asked = self.exact.get(topic).cloned().unwrap_or_default();
        asked.extend(self.wild.iter().filter_map(|&at| {
            let held = &self.topics[at];
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

impl Topic {
    fn new(topic: config::Topic, subscription: String) -> Self {
        let config::Topic { station, filter, qos, payload } = topic;
        let (ids, names) = (payload.ids(), payload.names());
        let reader = match payload {
            config::Payload::Json(Fields { time, tags }) => Reader::Json(Fields {
                time: time.map(|time| SourceTime { place: Pick::new(time.place), format: time.format }),
                tags: tags.into_iter().map(|tag| tag.at(Pick::new)).collect(),
            }),
            config::Payload::Csv { separator, header, fields } => Reader::Csv { separator, header, fields },
            config::Payload::Plain(fields) => Reader::Plain(fields),
            config::Payload::Binary(fields) => Reader::Binary(fields),
            config::Payload::Sparkplug(fields) => Reader::Sparkplug(fields),
        };
        let tag = filter::place(&filter, TAG).map(|level| (level, names.into_iter().zip(0..).collect()));
        let pattern = fill(unshared(&filter), &station, "+");
        debug_assert!(has(&filter, TAG) == tag.is_some());
        Self { station, filter, subscription, pattern, tag, qos, ids, reader }
    }
}

impl<P> TopicTag<P> {
    /// The same tag at another place.
    fn at<Q>(self, place: impl FnOnce(P) -> Q) -> TopicTag<Q> {
        let Self { id, name, place: old, required, numeric } = self;
        TopicTag { id, name, place: place(old), required, numeric }
    }

    fn missing(&self, time: Time, now: Time) -> Reading {
        Reading::bad(self.id, Status::Own(OwnStatus::PathNotFound), time, now)
    }
}

impl<P> Fields<P> {
    /// The tags that a message is about.
    fn about(&self, tag: Option<usize>) -> &[TopicTag<P>] {
        match tag {
            Some(tag) => &self.tags[tag..=tag],
            None => &self.tags,
        }
    }
}

impl<'a> Document<'a> {
    fn json(&self) -> Option<&Json> {
        self.json.get_or_init(|| serde_json::from_slice(self.bytes).ok()).as_ref()
    }

    fn text(&self) -> Option<&'a str> {
        *self.text.get_or_init(|| std::str::from_utf8(self.bytes).ok())
    }
}

/// When the values came to be, and whether the payload said so as it should.
///
/// Where it should carry a time and does not, or one that cannot be read, the values count as of the time received and
/// are uncertain (`NoSourceTime`): they are not lost, and nobody vouches for when.
#[derive(Clone, Copy)]
struct When {
    at: Time,
    told: bool,
    now: Time,
}

impl When {
    fn of<P>(time: &Option<SourceTime<P>>, now: Time, find: impl FnOnce(&P, &TimeFormat) -> Option<Time>) -> Self {
        let Some(time) = time else { return Self { at: now, told: true, now } };
        let told = find(&time.place, &time.format);
        Self { at: told.unwrap_or(now), told: told.is_some(), now }
    }

    fn reading(&self, tag: TagId, value: Result<Value, OwnStatus>) -> Reading {
        let mut reading = match value {
            Err(status) => return Reading::bad(tag, Status::Own(status), self.at, self.now),
            Ok(value) => Reading::good(tag, value, self.at, self.now),
        };
        if !self.told && reading.validity == Validity::Good {
            reading.validity = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
        }
        reading
    }
}

fn said(found: bool) -> Said {
    if found { Said::Something } else { Said::Nothing }
}

fn json(
    fields: &Fields<Pick>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let Some(json) = document.json() else { return Said::Unreadable(NO_JSON) };
    let when = When::of(&fields.time, now, |place, format| instant(format, &Given::of_json(place.first(json)?)?));
    let mut found = false;
    for tag in fields.about(tag) {
        match tag.place.first(json) {
            Some(node) => {
                found = true;
                into.push(when.reading(tag.id, json_value(node, tag.numeric).ok_or(OwnStatus::WrongType)));
            }
            None if tag.required => into.push(tag.missing(when.at, now)),
            None => {}
        }
    }
    said(found)
}

/// The node as a value; `None` when it is none, or text where only numbers make sense.
fn json_value(node: &Json, numeric: bool) -> Option<Value> {
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

/// Each row is a reading for every tag that has a field in it; an empty field is none. Also how many rows have not as many
/// fields as the first: which value belongs where, nobody knows.
fn rows(
    separator: u8,
    header: bool,
    fields: &Fields<Column>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> (Said, u64) {
    let Some(text) = document.text() else { return (Said::Unreadable(NO_TEXT), 0) };
    let mut rows = Rows::new(text, separator);
    let names = match rows.next().filter(|_| header) {
        Some(Ok(names)) => names,
        Some(Err(_)) => return (Said::Unreadable(NO_CSV), 0),
        None => Vec::new(),
    };
    if !header {
        rows = Rows::new(text, separator);
    }
    let place = |column: &Column| match &column.at {
        ColumnAt::Index(index) => Some(*index),
        ColumnAt::Name(name) => names.iter().position(|held| held.trim() == &**name),
    };
    let tags: Vec<_> = fields.about(tag).iter().map(|tag| (tag, place(&tag.place))).collect();
    let time = fields.time.as_ref().and_then(|time| place(&time.place));
    let (mut found, mut ragged, mut width) = (false, 0, header.then_some(names.len()));
    let begun = into.len();
    for row in rows {
        let Ok(row) = row else {
            // The rest cannot be told apart from what is torn: nothing of the payload counts.
            into.truncate(begun);
            return (Said::Unreadable(NO_CSV), 0);
        };
        if *width.get_or_insert(row.len()) != row.len() {
            ragged += 1;
            continue;
        }
        let field = |place: Option<usize>| -> Option<&Cow<'_, str>> {
            row.get(place?).filter(|field| !field.trim().is_empty())
        };
        let when = When::of(&fields.time, now, |_, format| instant(format, &Given::of_text(field(time)?, format)));
        for (tag, place) in &tags {
            match field(*place) {
                Some(field) => {
                    found = true;
                    into.push(when.reading(tag.id, text::value(field, tag.place.text, tag.numeric)));
                }
                None if tag.required => into.push(tag.missing(when.at, now)),
                None => {}
            }
        }
    }
    (said(found), ragged)
}

/// An empty payload is how a retained message is taken back: it says nothing, which is no loss, except where text is
/// wanted.
fn plain(
    fields: &Fields<Text>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let Some(text) = document.text() else { return Said::Unreadable(NO_TEXT) };
    let when = When { at: now, told: true, now };
    let mut found = text.is_empty();
    for tag in fields.about(tag).iter().filter(|tag| tag.place == Text::Text || !text.trim().is_empty()) {
        found = true;
        into.push(when.reading(tag.id, text::value(text, tag.place, tag.numeric)));
    }
    said(found)
}

/// A layout is fixed, so that a tag whose bytes are not there is bad beside those whose are.
fn binary(
    fields: &Fields<Field>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> Said {
    let when = When::of(&fields.time, now, |field, format| {
        instant(format, &Given::of_value(&field.value(document.bytes, false).ok()?)?)
    });
    let mut found = false;
    for tag in fields.about(tag) {
        let value = tag.place.value(document.bytes, tag.numeric);
        found |= value != Err(OwnStatus::WrongLength);
        into.push(when.reading(tag.id, value));
    }
    said(found)
}

#[cfg(test)]
mod tests;
