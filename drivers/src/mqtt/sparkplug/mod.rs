//! Sparkplug B, as a host application hears it (Eclipse Sparkplug 3.0).
//!
//! An edge node tells the names and types of its metrics in births and may leave them out afterwards; it counts its
//! messages, so that a missing one shows. What cannot be understood for want of a birth is asked for (`Node
//! Control/Rebirth`), if the configuration allows: it is a command, and with the word that we are there the only thing
//! that is ever sent.

mod value;
pub mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

pub use self::value::datatype;
use self::wire::MetricValue;
use crate::mqtt::{Fields, Metric, TopicTag};
use crate::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// The first level of every topic.
pub(crate) const NAMESPACE: &str = "spBv1.0";
/// One edge node is asked for a birth at most so often: a birth may be many pages, and a host that asks again for each
/// message before it comes makes it never come.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How many nodes are asked in one turn, and how long a turn is: a thousand births at once would bury the line.
const A_TURN: usize = 32;
const TURN: Duration = Duration::from_secs(1);
/// How many edge nodes are followed. Further ones are losses: somebody's wildcard takes in more than one agent is for.
const MOST_NODES: usize = 4_096;
/// A sequence number that is so far ahead of the expected one is behind it.
const BEHIND: u8 = 128;

/// What is known of edge nodes. One for each link, since stations may share a node.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    rebirth: bool,
    /// By `group/node`.
    nodes: HashMap<Box<str>, Node>,
    /// Where each tag came from last.
    fed: HashMap<TagId, Source>,
    /// Nodes that are to be asked.
    asked: Vec<Box<str>>,
    /// When the next of them may be.
    turn: Time,
}

/// A node, or one of its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    node: Box<str>,
    device: Option<Box<str>>,
}

#[derive(Debug, Default)]
struct Node {
    /// Of the connection that the node was born on: its death says the same.
    bd_seq: Option<u64>,
    /// The sequence number that comes next; unknown before the first message.
    next: Option<u8>,
    /// Births by device, the node's own under the empty name.
    births: HashMap<Box<str>, Birth>,
    /// When it was last asked for a birth.
    asked: Option<Time>,
    /// When it was last heard of.
    heard: Option<Time>,
}

/// Names and types.
#[derive(Debug, Default)]
struct Birth {
    aliases: HashMap<u64, (Arc<str>, Option<u32>)>,
    types: HashMap<Arc<str>, u32>,
}

/// What a message says.
#[derive(Debug)]
pub(super) struct Heard {
    source: Source,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Values; `born` lists all that there are.
    Values { values: Vec<Named>, born: bool },
    /// The node is gone, and its devices with it.
    NodeDied,
    /// One device is gone.
    DeviceDied(Time),
}

/// A value with its metric's name.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    value: Result<Value, OwnStatus>,
    validity: Validity,
    time: Option<Time>,
    historical: bool,
}

/// Something that was lost: since when, how many messages, and why.
pub(super) type Lost = (Time, u64, &'static str);

/// Why a payload cannot be read.
const NO_PAYLOAD: &str = "the payload is no Sparkplug B";
const GAP: &str = "Sparkplug sequence numbers are missing";
const ALIAS: &str = "a Sparkplug alias that no birth has named";
const TOO_MANY: &str = "more Sparkplug edge nodes than are followed";

impl Nodes {
    pub(super) fn new(rebirth: bool) -> Self {
        Self { rebirth, ..Self::default() }
    }

    /// The nodes that are to be asked for a birth now: topic and payload of each request.
    pub(super) fn requests(&mut self, now: Time) -> Vec<(String, Vec<u8>)> {
        if self.turn.since(now) > Duration::ZERO && self.turn.since(now) <= TURN {
            return Vec::new();
        }
        if self.asked.len() > A_TURN {
            self.turn = now + TURN;
        }
        let asked = self.asked.drain(..self.asked.len().min(A_TURN));
        asked.filter_map(|node| Some((command_topic(&node)?, rebirth(now)))).collect()
    }

    /// When requests are due that wait for their turn.
    pub(super) fn due(&self) -> Option<Time> {
        (!self.asked.is_empty()).then_some(self.turn)
    }

    /// A connection begins. What nodes told while we were away is lost, so those that we know by name are asked, as
    /// soon as the broker has our topics: those that the configuration names, and those that were heard of before.
    pub(super) fn greet<'a>(&mut self, named: impl Iterator<Item = &'a str>, now: Time) {
        let named = named.map(Into::into).chain(self.nodes.keys().cloned()).collect::<BTreeSet<Box<str>>>();
        self.asked.clear();
        for name in &named {
            if let Some(node) = followed(&mut self.nodes, name) {
                node.asked = None;
                ask(self.rebirth, name, node, &mut self.asked, now);
            }
        }
    }

    /// Nothing came of `tags` for too long: their nodes are asked.
    pub(super) fn wake(&mut self, tags: &[TagId], now: Time) {
        for source in tags.iter().filter_map(|tag| self.fed.get(tag)) {
            if let Some(node) = self.nodes.get_mut(&source.node) {
                ask(self.rebirth, &source.node, node, &mut self.asked, now);
            }
        }
    }

    /// Takes a message in. `None` if it is none of a node: a command, another host's word.
    pub(super) fn hear(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Time,
        lost: &mut Vec<Lost>,
    ) -> Result<Option<Heard>, &'static str> {
        let Some(Address { node: name, kind, device }) = Address::of(topic) else { return Ok(None) };
        let name = name.as_str();
        let payload = wire::Payload::decode(payload).map_err(|_| NO_PAYLOAD)?;
        let Some(node) = followed(&mut self.nodes, name) else {
            lost.push((now, 1, TOO_MANY));
            return Ok(None);
        };
        let source = Source { node: name.into(), device: device.map(Into::into) };
        if kind == Type::NodeDeath {
            let said = number_of(&payload, "bdSeq");
            if said.is_some() && node.bd_seq.is_some() && said != node.bd_seq {
                return Ok(None); // the will of a connection before the present one
            }
            (node.next, node.heard) = (None, Some(now));
            node.births.clear();
            return Ok(Some(Heard { source, what: What::NodeDied }));
        }
        let seq = payload.seq.map(|seq| seq.to_le_bytes()[0]);
        if kind == Type::NodeBirth {
            node.births.clear();
            node.bd_seq = number_of(&payload, "bdSeq");
            (node.next, node.heard) = (seq.map(|seq| seq.wrapping_add(1)), Some(now));
        } else {
            let missing = node.follow(seq);
            if missing > 0 {
                lost.push((node.heard.unwrap_or(now), missing, GAP));
            }
            node.heard = Some(now);
            if missing > 0 || !node.births.contains_key("") {
                ask(self.rebirth, name, node, &mut self.asked, now);
            }
        }
        let sent = millis(payload.timestamp);
        let device = device.unwrap_or_default();
        if kind == Type::DeviceDeath {
            node.births.remove(device);
            return Ok(Some(Heard { source, what: What::DeviceDied(sent.unwrap_or(now)) }));
        }
        let born = matches!(kind, Type::NodeBirth | Type::DeviceBirth);
        if born {
            node.births.insert(device.into(), Birth::of(&payload));
        }
        let birth = node.births.get(device);
        let mut unknown = false;
        let mut values = Vec::with_capacity(payload.metrics.len());
        for metric in &payload.metrics {
            let Some((metric_name, known)) = named(metric, birth) else {
                unknown = true;
                continue;
            };
            values.push(Named {
                name: metric_name,
                value: value::value(metric, metric.datatype.or(known)),
                validity: value::validity(metric),
                time: millis(metric.timestamp).or(sent),
                historical: metric.is_historical == Some(true),
            });
        }
        if unknown {
            lost.push((now, 1, ALIAS));
            ask(self.rebirth, name, node, &mut self.asked, now);
        }
        Ok(Some(Heard { source, what: What::Values { values, born } }))
    }

    /// Adds what `heard` means for the tags of one topic.
    pub(super) fn tell(&mut self, heard: &Heard, fields: &Fields<Metric>, now: Time, into: &mut Vec<Reading>) {
        match &heard.what {
            What::Values { values, born } => {
                // What is told late goes first: what is told of now stands at the end.
                for value in values.iter().filter(|of| of.historical).chain(values.iter().filter(|of| !of.historical)) {
                    for tag in fields.tags.iter().filter(|tag| wants(tag, heard) && tag.place.name == value.name) {
                        into.push(value.reading(tag, now));
                        if !value.historical {
                            self.fed.insert(tag.id, heard.source.clone());
                        }
                    }
                }
                // A birth lists all that there is. Whose it must be is known where the tag says so.
                let missed = |tag: &&TopicTag<Metric>| {
                    tag.required
                        && tag.place.device.is_some()
                        && wants(tag, heard)
                        && !values.iter().any(|value| value.name == tag.place.name)
                };
                let missed = fields.tags.iter().filter(|_| *born).filter(missed);
                into.extend(missed.map(|tag| Reading::bad(tag.id, Status::Own(OwnStatus::PathNotFound), now, now)));
            }
            What::NodeDied => {
                let gone = |tag: &&TopicTag<Metric>| {
                    self.fed.get(&tag.id).is_none_or(|source| source.node == heard.source.node)
                };
                into.extend(fields.tags.iter().filter(gone).map(|tag| dead(tag.id, now, now)));
            }
            What::DeviceDied(at) => {
                let gone = |tag: &&TopicTag<Metric>| match self.fed.get(&tag.id) {
                    Some(source) => *source == heard.source,
                    None => tag.place.device.as_deref() == heard.source.device.as_deref(),
                };
                into.extend(fields.tags.iter().filter(gone).map(|tag| dead(tag.id, *at, now)));
            }
        }
    }
}

impl Heard {
    /// What it names, for who looks around: device, metric, value.
    pub(super) fn metrics(&self) -> impl Iterator<Item = (Option<&str>, &str, Option<&Value>)> {
        let values = if let What::Values { values, .. } = &self.what { values.as_slice() } else { &[] };
        values.iter().map(|named| (self.source.device.as_deref(), &*named.name, named.value.as_ref().ok()))
    }
}

impl Named {
    fn reading(&self, tag: &TopicTag<Metric>, now: Time) -> Reading {
        let at = self.time.unwrap_or(now);
        let value = match &self.value {
            Ok(Value::Text(_)) if tag.numeric => Err(OwnStatus::WrongType),
            other => other.clone(),
        };
        match (value, self.validity) {
            (Err(status), _) => Reading::bad(tag.id, Status::Own(status), at, now),
            (Ok(_), Validity::Bad(status)) => Reading::bad(tag.id, status, at, now),
            (Ok(value), validity) => {
                let mut reading = Reading::good(tag.id, value, at, now);
                if reading.validity == Validity::Good {
                    let timeless = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
                    reading.validity = if self.time.is_none() { timeless } else { validity };
                }
                reading
            }
        }
    }
}

impl Node {
    /// How many messages are missing before the one with this number. One that comes late or twice changes nothing.
    fn follow(&mut self, seq: Option<u8>) -> u64 {
        let Some(seq) = seq else { return 0 };
        let ahead = self.next.map_or(0, |next| seq.wrapping_sub(next));
        if ahead >= BEHIND {
            return 0;
        }
        self.next = Some(seq.wrapping_add(1));
        ahead.into()
    }
}

impl Birth {
    fn of(payload: &wire::Payload) -> Self {
        let mut birth = Self::default();
        for metric in &payload.metrics {
            let Some(name) = &metric.name else { continue };
            let name: Arc<str> = name.as_str().into();
            if let Some(alias) = metric.alias {
                birth.aliases.insert(alias, (Arc::clone(&name), metric.datatype));
            }
            if let Some(datatype) = metric.datatype {
                birth.types.insert(name, datatype);
            }
        }
        birth
    }
}

/// Whose message a topic carries: `spBv1.0/group/type/node[/device]`.
struct Address<'a> {
    /// `group/node`.
    node: String,
    kind: Type,
    device: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    NodeBirth,
    NodeDeath,
    NodeData,
    DeviceBirth,
    DeviceDeath,
    DeviceData,
}

impl<'a> Address<'a> {
    fn of(topic: &'a str) -> Option<Self> {
        let levels: Vec<&str> = topic.split('/').collect();
        let (group, kind, node, device) = match *levels.as_slice() {
            [NAMESPACE, group, kind, node] => (group, kind, node, None),
            [NAMESPACE, group, kind, node, device] if !device.is_empty() => (group, kind, node, Some(device)),
            _ => return None,
        };
        let kind = match (kind, device) {
            ("NBIRTH", None) => Type::NodeBirth,
            ("NDEATH", None) => Type::NodeDeath,
            ("NDATA", None) => Type::NodeData,
            ("DBIRTH", Some(_)) => Type::DeviceBirth,
            ("DDEATH", Some(_)) => Type::DeviceDeath,
            ("DDATA", Some(_)) => Type::DeviceData,
            _ => return None,
        };
        Some(Self { node: format!("{group}/{node}"), kind, device })
    }
}

/// What is known of a node; `None` when there are too many.
fn followed<'n>(nodes: &'n mut HashMap<Box<str>, Node>, name: &str) -> Option<&'n mut Node> {
    if !nodes.contains_key(name) {
        if nodes.len() >= MOST_NODES {
            return None;
        }
        nodes.insert(name.into(), Node::default());
    }
    nodes.get_mut(name)
}

/// Notes that a node is to be asked for a birth, unless it just was.
fn ask(allowed: bool, name: &str, node: &mut Node, asked: &mut Vec<Box<str>>, now: Time) {
    if allowed && node.asked.is_none_or(|last| now.since(last) >= ASK_EVERY) {
        node.asked = Some(now);
        asked.push(name.into());
    }
}

/// The metric's name, by itself or by its alias, and the type that the birth gave it.
fn named(metric: &wire::Metric, birth: Option<&Birth>) -> Option<(Arc<str>, Option<u32>)> {
    match (&metric.name, metric.alias) {
        (Some(name), _) if !name.is_empty() => {
            let known = birth.and_then(|birth| birth.types.get_key_value(name.as_str()));
            Some(known.map_or_else(|| (name.as_str().into(), None), |(name, kind)| (Arc::clone(name), Some(*kind))))
        }
        (_, Some(alias)) => birth?.aliases.get(&alias).cloned(),
        _ => None,
    }
}

fn wants(tag: &TopicTag<Metric>, heard: &Heard) -> bool {
    tag.place.device.as_deref().is_none_or(|device| heard.source.device.as_deref() == Some(device))
}

fn dead(tag: TagId, at: Time, now: Time) -> Reading {
    Reading::bad(tag, Status::Own(OwnStatus::Dead), at, now)
}

/// A time that a clock can have.
fn millis(ms: Option<u64>) -> Option<Time> {
    i64::try_from(ms?).ok()?.checked_mul(1_000_000).map(Time)
}

fn number_of(payload: &wire::Payload, name: &str) -> Option<u64> {
    let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(name))?;
    match metric.value {
        Some(MetricValue::Long(number)) => Some(number),
        Some(MetricValue::Int(number)) => Some(number.into()),
        _ => None,
    }
}

/// Where commands for `group/node` go.
fn command_topic(node: &str) -> Option<String> {
    let (group, node) = node.split_once('/')?;
    Some(format!("{NAMESPACE}/{group}/NCMD/{node}"))
}

/// The command to be born again (6.4.8, tck-id-operational-behavior-data-commands-rebirth-*).
fn rebirth(now: Time) -> Vec<u8> {
    let timestamp = u64::try_from(now.0 / 1_000_000).ok();
    let metric = wire::Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        timestamp,
        datatype: Some(datatype::BOOLEAN),
        value: Some(MetricValue::Boolean(true)),
        ..wire::Metric::default()
    };
    wire::Payload { timestamp, metrics: vec![metric], seq: None }.encode_to_vec()
}

/// How a host application says that it is there, or not (6.4.26): topic and payload. A death says the time of its birth.
pub(super) fn state(host_id: &str, online: bool, since: Time) -> (String, Vec<u8>) {
    let payload = format!(r#"{{"online":{online},"timestamp":{}}}"#, since.0 / 1_000_000);
    (state_topic(host_id), payload.into_bytes())
}

/// Where it says so.
pub(super) fn state_topic(host_id: &str) -> String {
    format!("{NAMESPACE}/STATE/{host_id}")
}

/// Whether such a word is that the host is gone.
pub(super) fn is_offline(payload: &[u8]) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    said.is_some_and(|said| said.get("online") == Some(&serde_json::Value::Bool(false)))
}

#[cfg(test)]
mod tests;
