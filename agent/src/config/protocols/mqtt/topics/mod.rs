//! What a station takes from its topics.

mod check;
mod filter;
mod read;

use std::collections::HashSet;
use std::rc::Rc;

use gemba_drivers::mqtt;

use self::check::check_tags;
use self::filter::filter;
use self::read::Reader;
use super::Mqtt;
use super::words::{As, ByteOrder, Column, Filter, JsonPath, Level, Payload, Separator, TimeWord};
use crate::config::calendar::Zone;
use crate::config::error::Report;
use crate::config::protocols::Tag;
use crate::config::raw::StationOf;
use crate::config::resolve::{TagFacts, Told};
use crate::config::section::{At, join, section};
use crate::config::tree::Origin;
use crate::config::words::{Flag, OneOf, Text, Whole};

section! {
    /// A topic to subscribe to.
    Topic {
        /// Topic filter; `+` and `#` are wildcards, a level `{station}` is the station's name, a level `{tag}` a tag's. It
        /// is needed but for Sparkplug with `group` and `edge_node`.
        topic: Filter => optional;
        /// Quality of service: 0, 1 or 2. From 1 on a message is acknowledged once all that is told of it is on disk; what
        /// `min_interval` or `compress` holds back is told later.
        qos: Whole<0, 2> => default(1);
        /// How the payload is read.
        payload: OneOf<Payload> => default("json");
        /// Where the payload says when its values came to be; the time received counts without it.
        time: PayloadTime => optional;
        /// CSV: what stands between fields: `comma`, `semicolon`, `tab` or one character.
        separator: Separator => default("comma");
        /// CSV: whether the first row names the columns.
        header: Flag => default(true);
        /// Sparkplug: the group of the edge node.
        group: Level => optional;
        /// Sparkplug: the edge node, with all its devices.
        edge_node: Level => optional;
        /// Sparkplug: the device whose metrics the tags are; without it the metrics of any, and of the node itself.
        device: Level => optional;
    }
}

section! {
    /// Where a payload carries its time.
    PayloadTime {
        /// JSON: JSONPath of it.
        path: JsonPath => optional;
        /// CSV: its column.
        column: Column => optional;
        /// Binary: its first byte. `unix_s` is an unsigned number of 4 bytes, the others are signed ones of 8.
        byte: Whole<0, 65_535> => optional;
        /// Binary: which byte comes first.
        byte_order: OneOf<ByteOrder> => default("big");
        /// How it is written: `unix_s`, `unix_ms`, `unix_us`, `unix_ns`, `rfc3339`, or as strftime has it:
        /// `"%d.%m.%Y %H:%M:%S"`.
        r#as: TimeWord => required;
        /// The zone of a written time that has none in it.
        timezone: Zone => default("UTC");
    }
}

section! {
    /// A value in an MQTT payload.
    MqttTag {
        /// JSON: JSONPath (RFC 9535); the first value it selects counts.
        path: JsonPath => optional;
        /// CSV: its column, by name or by place from 0.
        column: Column => optional;
        /// Binary: its first byte, from 0.
        byte: Whole<0, 65_535> => optional;
        /// Binary: `bool`, `bit(0)`, `u8`, `i8`, `u16`, `i16`, `u32`, `i32`, `u64`, `i64`, `f32`, `f64` or `string(8)`. CSV
        /// and plain: `number`, `bool` or `text`; without it what looks like a number or truth value is one.
        r#as: As => optional;
        /// Binary: which byte comes first.
        byte_order: OneOf<ByteOrder> => default("big");
        /// Sparkplug: the metric's name; the tag's own unless said.
        metric_name: Text => optional;
        /// Sparkplug: the device it belongs to; the topic's unless said.
        device: Level => optional;
        /// The one of the station's topics it is read from; all of them unless said.
        topic: Filter => optional;
        /// Whether a payload without it makes the tag bad; otherwise the tag stays as it was.
        required: Flag => default(false);
    }
}

type RawTag<'a> = (&'a At<Tag<Mqtt>>, &'a TagFacts);

/// What the driver subscribes to for an MQTT station.
pub(super) fn topics(station: &StationOf<Mqtt>, told: &Told<'_>, report: &mut Report) -> Vec<mqtt::Topic> {
    let Some(list) = station.source.as_ref().and_then(|source| source.value.0.topics.as_ref()) else {
        return Vec::new();
    };
    if list.is_empty() {
        list.wrong(report, "there is no topic; a station subscribes to at least one");
        return Vec::new();
    }
    let mut named: Vec<Named<'_>> = Vec::new();
    for topic in &list.value {
        let Some(filter) = filter(topic, report) else { continue };
        match named.iter().find(|earlier| earlier.filter == filter.filter) {
            Some(earlier) => filter.at.wrong(
                report,
                format!("`{}` is already a topic of this station at {}", filter.shown, earlier.at.place),
            ),
            None => named.push(filter),
        }
    }
    let tags: Vec<_> = station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts).collect();
    check_tags(&named, &tags, list.len(), report);
    let mut reader = Reader { told, report, missed: HashSet::new() };
    named.iter().filter_map(|topic| reader.topic(topic, &tags)).collect()
}

/// A topic that can be subscribed to.
struct Named<'a> {
    topic: &'a Topic,
    payload: Payload,
    filter: String,
    /// For people: as it is written.
    shown: String,
    /// Where it is written.
    at: Rc<Origin>,
}

impl Named<'_> {
    fn device(&self) -> Option<&str> {
        self.topic.device.as_ref().map(|device| device.value.0.as_str())
    }

    fn carries(&self, tag: &Tag<Mqtt>) -> bool {
        tag.own.topic.as_ref().is_none_or(|wanted| wanted.value.0 == self.filter)
    }
}

/// `section` lacks a key that it needs here, unless it is there and wrong, which was reported.
fn absent<S, T>(section: &At<S>, key: &str, help: &str, report: &mut Report) -> Option<T> {
    if !report.knows(&join(&section.origin.path, key)) {
        section.wrong(report, format!("the key `{key}` is missing{help}"));
    }
    None
}
