//! Sparkplug B, as a host application hears it (Eclipse Sparkplug 3.0).
//!
//! An edge node tells the names and types of its metrics in births and may leave them out afterwards; it counts its
//! messages, so that a missing one shows. What cannot be understood for want of a birth is asked for (`Node
//! Control/Rebirth`), if the configuration allows: it is a command, and with the word that we are there the only thing
//! that is ever sent.

mod address;
mod asks;
mod births;
mod order;
mod value;
pub mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;

use self::address::{Address, Type, command_topic, rebirth};
pub(super) use self::address::{NAMESPACE, is_offline, state, state_topic};
use self::asks::{Ask, Asks};
use self::births::{Births, Full, Names, Room, Which, type_of, which};
use self::order::{Order, Place};
pub use self::value::datatype;
use self::wire::MetricValue;
use crate::mqtt::{Fields, Metric, TopicTag};
use crate::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

/// How many edge nodes are followed. Further ones are losses: somebody's wildcard takes in more than one agent is for.
const MOST_NODES: usize = 4_096;

/// What is known of edge nodes. One for each link, since stations may share a node.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    names: Names,
    /// By `group/node`.
    nodes: HashMap<Box<str>, Node>,
    room: Room,
    /// Where each tag came from last.
    fed: HashMap<TagId, Source>,
    asks: Asks,
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
    order: Order,
    births: Births,
    /// Messages are missing, and among them may be a birth that gave an alias to another metric.
    doubted: bool,
    ask: Ask,
    /// When it was last heard of: the last proof that it lives.
    heard: Option<Time>,
    dead: bool,
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
    /// The node is gone since then, and its devices with it.
    NodeDied(Time),
    /// One device is gone.
    DeviceDied(Time),
}

/// A value with its metric's name.
#[derive(Debug)]
struct Named {
    name: Arc<str>,
    /// None if nobody said of which type it is, and without one it cannot be read.
    value: Option<Result<Value, OwnStatus>>,
    validity: Validity,
    time: Option<Time>,
    /// It is told late, and says nothing of now.
    historical: bool,
}

/// Something that was lost: since when, how many messages, and why.
pub(super) type Lost = (Time, u64, &'static str);

/// Why a payload cannot be read.
const NO_PAYLOAD: &str = "the payload is no Sparkplug B";
const GAP: &str = "Sparkplug sequence numbers are missing";
const ALIAS: &str = "a Sparkplug alias that no birth has named";
const UNTYPED: &str = "a Sparkplug number whose type no birth has told";
const TOO_MANY: &str = "more Sparkplug edge nodes, devices or metrics than are followed";

impl Nodes {
    /// Nodes that tell metrics of these `names`, and are asked for births if `rebirth` allows.
    pub(super) fn new(rebirth: bool, names: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { asks: Asks::new(rebirth), names: names.into_iter().collect(), ..Self::default() }
    }

    /// The nodes that are to be asked for a birth now: topic and payload of each request. They are asked again, ever more
    /// rarely, until they are born.
    pub(super) fn requests(&mut self, now: Time) -> Vec<(String, Vec<u8>)> {
        let mut requests = Vec::new();
        while let Some(name) = self.asks.next(now) {
            if let Some(node) = self.nodes.get_mut(&name) {
                self.asks.asked(&name, &mut node.ask, now);
                requests.extend(command_topic(&name).map(|topic| (topic, rebirth(now))));
            }
        }
        requests
    }

    /// How long until there are requests, if nothing comes meanwhile.
    pub(super) fn pause(&self, now: Time) -> Option<Duration> {
        self.asks.pause(now)
    }

    /// A connection begins. What nodes told while we were away is lost, so those that we know by name, and those that
    /// told us something, are asked as soon as the broker has our topics.
    pub(super) fn greet<'a>(&mut self, named: impl Iterator<Item = &'a str>, now: Time) {
        self.nodes.values_mut().for_each(|node| node.order.reconnect());
        let Self { nodes, fed, asks, .. } = self;
        let mut insist = |name: &str| {
            if let Some(node) = followed(nodes, name) {
                asks.insist(name, &mut node.ask, now);
            }
        };
        named.for_each(&mut insist);
        fed.values().for_each(|source| insist(&source.node));
    }

    /// Nothing came of `tags` for too long: their nodes are asked.
    pub(super) fn wake(&mut self, tags: &[TagId], now: Time) {
        for source in tags.iter().filter_map(|tag| self.fed.get(tag)) {
            if let Some(node) = self.nodes.get_mut(&source.node) {
                self.asks.want(&source.node, &mut node.ask, now);
            }
        }
    }

    /// Takes a message in. `None` if it says nothing: a command, another host's word, a message that came before.
    pub(super) fn hear(
        &mut self,
        topic: &str,
        payload: &[u8],
        now: Time,
        lost: &mut Vec<Lost>,
    ) -> Result<Option<Heard>, &'static str> {
        let Some(Address { node: name, kind, device }) = Address::of(topic) else { return Ok(None) };
        let name = name.as_str();
        let digest = digest(topic, payload);
        let payload = wire::Payload::decode(payload).map_err(|_| NO_PAYLOAD)?;
        let Self { names, nodes, room, asks, .. } = self;
        let Some(node) = followed(nodes, name) else {
            lost.push((now, 1, TOO_MANY));
            return Ok(None);
        };
        let source = Source { node: name.into(), device: device.map(Into::into) };
        if kind == Type::NodeDeath {
            let since = node.die(&payload, room, now);
            return Ok(since.map(|since| {
                asks.drop(name, &mut node.ask);
                Heard { source, what: What::NodeDied(since) }
            }));
        }
        let number = payload.seq.map(|seq| seq.to_le_bytes()[0]);
        let mut late = false;
        if kind == Type::NodeBirth {
            // A node that was asked may well say the same again.
            if !node.ask.is_wanted() && node.order.knows(number, digest) {
                return Ok(None);
            }
            asks.drop(name, &mut node.ask);
            node.births.clear(room);
            node.bd_seq = number_of(&payload, "bdSeq");
            node.order.begin(number, digest);
            node.doubted = false;
        } else {
            match number.map_or(Place::Next, |number| node.order.take(number, digest)) {
                Place::Next => {}
                Place::Again => return Ok(None),
                Place::Late => late = true,
                Place::After(missing) => {
                    lost.push((node.heard.unwrap_or(now), missing.into(), GAP));
                    node.doubted = asks.allowed();
                    asks.want(name, &mut node.ask, now);
                }
            }
        }
        (node.heard, node.dead) = (Some(now), false);
        let sent = millis(payload.timestamp);
        let device = device.unwrap_or_default();
        if kind == Type::DeviceDeath {
            node.births.bury(device, room);
            return Ok(Some(Heard { source, what: What::DeviceDied(sent.unwrap_or(now)) }));
        }
        let born = matches!(kind, Type::NodeBirth | Type::DeviceBirth);
        if born && node.births.bear(device, &payload, names, room) == Err(Full) {
            lost.push((now, 1, TOO_MANY));
        }
        let birth = node.births.get(device);
        // Where there is no room for a birth, none is asked for.
        let mut unborn = room.devices > 0 && (birth.is_none() || node.births.get("").is_none());
        let mut untold = None;
        let mut values = Vec::with_capacity(payload.metrics.len());
        for metric in &payload.metrics {
            let (name, told) = match which(metric, birth, names) {
                Which::Named(name, told) => (name, told),
                Which::Other => continue,
                Which::Unknown => {
                    (unborn, untold) = (true, Some(ALIAS));
                    continue;
                }
            };
            let own = type_of(metric);
            let value = value::value(metric, own.or(told.flatten()));
            if value.is_none() && names.contains(&name) {
                // A birth that lacks the type will lack it again.
                unborn |= told.is_none() && !born;
                untold = untold.or(Some(UNTYPED));
            }
            let by_birth = metric.name.is_none() || (own.is_none() && told.is_some());
            values.push(Named {
                name,
                value,
                validity: match value::validity(metric) {
                    Validity::Good if node.doubted && by_birth => Validity::Uncertain(Status::Own(OwnStatus::Unborn)),
                    validity => validity,
                },
                time: millis(metric.timestamp).or(sent),
                historical: late || metric.is_historical == Some(true),
            });
        }
        lost.extend(untold.map(|reason| (now, 1, reason)));
        if unborn {
            asks.want(name, &mut node.ask, now);
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
                        let Some(reading) = value.reading(tag, now) else { continue };
                        into.push(reading);
                        if !value.historical && self.fed.get(&tag.id) != Some(&heard.source) {
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
            What::NodeDied(since) => {
                let gone = |tag: &&TopicTag<Metric>| {
                    self.fed.get(&tag.id).is_none_or(|source| source.node == heard.source.node)
                };
                into.extend(fields.tags.iter().filter(gone).map(|tag| dead(tag.id, *since, now)));
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
        values.iter().map(|named| {
            let value = named.value.as_ref().and_then(|value| value.as_ref().ok());
            (self.source.device.as_deref(), &*named.name, value)
        })
    }
}

impl Named {
    fn reading(&self, tag: &TopicTag<Metric>, now: Time) -> Option<Reading> {
        let at = self.time.unwrap_or(now);
        let value = match self.value.as_ref()? {
            Ok(Value::Text(_)) if tag.numeric => Err(OwnStatus::WrongType),
            other => other.clone(),
        };
        let reading = match (value, self.validity) {
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
        };
        Some(if self.historical { reading.from_history() } else { reading })
    }
}

impl Node {
    /// The node is gone: since when, unless that was known, or the will is of a connection before the present one. A
    /// broker tells a will up to one and a half keep-alives after the node fell silent, so the last that was heard of it counts.
    fn die(&mut self, will: &wire::Payload, room: &mut Room, now: Time) -> Option<Time> {
        let said = number_of(will, "bdSeq");
        if self.dead || (said.is_some() && self.bd_seq.is_some() && said != self.bd_seq) {
            return None;
        }
        self.dead = true;
        self.order = Order::default();
        self.births.clear(room);
        Some(self.heard.map_or(now, |heard| heard.min(now)))
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

/// Tells a message from the others of its node.
fn digest(topic: &str, payload: &[u8]) -> u32 {
    let mut digest = crc32fast::Hasher::new();
    digest.update(topic.as_bytes());
    digest.update(payload);
    digest.finalize()
}

fn wants(tag: &TopicTag<Metric>, heard: &Heard) -> bool {
    tag.place.device.as_deref().is_none_or(|device| heard.source.device.as_deref() == Some(device))
}

fn dead(tag: TagId, at: Time, now: Time) -> Reading {
    Reading::bad(tag, Status::Own(OwnStatus::Dead), at, now)
}

/// A time that a clock can have. 0 is what senders without a clock write.
fn millis(ms: Option<u64>) -> Option<Time> {
    i64::try_from(ms.filter(|ms| *ms > 0)?).ok()?.checked_mul(1_000_000).map(Time)
}

fn number_of(payload: &wire::Payload, name: &str) -> Option<u64> {
    let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(name))?;
    match metric.value {
        Some(MetricValue::Long(number)) => Some(number),
        Some(MetricValue::Int(number)) => Some(number.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
