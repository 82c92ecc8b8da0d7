//! What a message says: from topic and payload to readings. Pure.

mod binary;
mod csv;
mod json;
mod look;
mod pick;
mod route;
mod text;
mod when;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tracing::debug;

use self::binary::binary;
pub(super) use self::binary::unsigned;
use self::csv::rows;
use self::json::json;
pub(super) use self::look::Found;
use self::pick::Pick;
use self::route::{Asked, Routes};
use self::text::plain;
use super::config::{self, Column, Field, Fields, Metric, SourceTime, Text, TopicTag};
use super::filter::{self, TAG, fill, has, unshared};
use super::sparkplug::{Heard, NAMESPACE, Nodes};
use crate::{Batch, Loss, OwnStatus, Reading, Status, TagId, Time};

/// Everything that stations take from messages.
pub struct Payloads {
    topics: Vec<Topic>,
    routes: Routes,
    max_payload: usize,
    nodes: Nodes,
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

const NO_TEXT: &str = "the payload is not text";
const NOTHING: &str = "no tag of the topic is in the payload";
const RAGGED: &str = "a row has not as many fields as the first";

impl Payloads {
    /// What `topics` take from messages of at most `max_payload` bytes. `rebirth` lets Sparkplug nodes be asked.
    #[must_use]
    pub fn new(topics: Vec<config::Topic>, max_payload: usize, rebirth: bool) -> Self {
        let subscriptions = filter::subscriptions(topics.iter().map(|topic| (&topic.station, &*topic.filter)));
        let topics: Vec<_> = topics.into_iter().zip(subscriptions).map(|(topic, to)| Topic::new(topic, to)).collect();
        let routes = Routes::new(&topics);
        let metrics = topics.iter().filter_map(|topic| match &topic.reader {
            Reader::Sparkplug(fields) => Some(fields.tags.iter().map(|tag| tag.place.name.clone())),
            _ => None,
        });
        let nodes = Nodes::new(rebirth, metrics.flatten());
        Self { topics, routes, max_payload, nodes }
    }

    /// What the message says, for all stations together. `None` when no station asked for such a topic, or the topic
    /// names a tag that the station has not: others' data, as are the fields of a payload that no tag reads.
    ///
    /// A message that is too large, cannot be read, or holds no tag of any station that asked for it, is one loss,
    /// booked on the first of these stations, and leaves every tag as it was. The reasons are few and fixed, since
    /// losses are counted by reason. Sparkplug nodes tell what changed, so that a message without our tags is no loss.
    pub fn read(&mut self, topic: &str, payload: &[u8], now: Time) -> Option<Batch> {
        let asked = self.routes.asked(&self.topics, topic);
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

fn said(found: bool) -> Said {
    if found { Said::Something } else { Said::Nothing }
}

#[cfg(test)]
mod tests;
