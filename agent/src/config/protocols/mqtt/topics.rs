//! What a station takes from its topics.

use std::collections::HashSet;
use std::sync::Arc;

use gemba_drivers::mqtt::{self, Fields, SourceTime, TimeFormat, TopicTag};

use super::Mqtt;
use super::words::{
    As, ByteOrder, Column, Filter, JsonPath, Level, Payload, STATION, Separator, TAG, TimeWord, is_level,
};
use crate::config::calendar::Zone;
use crate::config::error::Report;
use crate::config::protocols::Tag;
use crate::config::raw::StationOf;
use crate::config::resolve::{TagFacts, Told};
use crate::config::section::{At, join, section};
use crate::config::words::{Flag, OneOf, Text, Whole, one_of_names};

section! {
    /// A topic to subscribe to.
    Topic {
        /// Topic filter; `+` and `#` are wildcards, a level `{station}` is the station's name, a level `{tag}` a tag's. It
        /// is needed but for Sparkplug with `group` and `edge_node`.
        topic: Filter => optional;
        /// Quality of service: 0, 1 or 2. From 1 on a message is acknowledged once it is on disk.
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
    at: At<()>,
}

impl Named<'_> {
    fn device(&self) -> Option<&str> {
        self.topic.device.as_ref().map(|device| device.value.0.as_str())
    }

    fn carries(&self, tag: &Tag<Mqtt>) -> bool {
        tag.own.topic.as_ref().is_none_or(|wanted| wanted.value.0 == self.filter)
    }
}

fn place_of<T>(at: &At<T>) -> At<()> {
    At { value: (), place: at.place.clone(), path: at.path.clone(), shown: at.shown.clone(), written: at.written }
}

/// The topic's filter, once it and what is written beside it make sense together.
fn filter<'a>(section: &'a At<Topic>, report: &mut Report) -> Option<Named<'a>> {
    let topic = &section.value;
    let payload = topic.payload.as_ref()?.value.0;
    let mut useless = |said: Option<At<()>>, fits: bool, only: &str| {
        if let Some(said) = said.filter(|said| said.written && !fits) {
            said.wrong(report, format!("is of no use with `payload: {}`; only `{only}` has it", payload.word()));
        }
    };
    let (csv, sparkplug) = (payload == Payload::Csv, payload == Payload::Sparkplug);
    useless(topic.separator.as_ref().map(place_of), csv, "csv");
    useless(topic.header.as_ref().map(place_of), csv, "csv");
    useless(topic.group.as_ref().map(place_of), sparkplug, "sparkplug");
    useless(topic.edge_node.as_ref().map(place_of), sparkplug, "sparkplug");
    useless(topic.device.as_ref().map(place_of), sparkplug, "sparkplug");
    if let Some(time) = topic.time.as_ref().filter(|_| matches!(payload, Payload::Plain | Payload::Sparkplug)) {
        let why = if sparkplug { "has times of its own" } else { "is one value and has no time in it" };
        time.wrong(report, format!("is of no use: `payload: {}` {why}", payload.word()));
    }
    if let Some(filter) = &topic.topic {
        if sparkplug {
            if let Some(other) = topic.group.as_ref().or(topic.edge_node.as_ref()) {
                other.wrong(report, "says the same as `topic`; write one of them");
            }
            if let Err(why) = takes_in_nodes(&filter.value.0) {
                filter.wrong(report, format!("`{}` {why}", filter.shown));
                return None;
            }
        }
        let (shown, at) = (filter.shown.to_string(), place_of(filter));
        return Some(Named { topic, payload, filter: filter.value.0.clone(), shown, at });
    }
    match (&topic.group, &topic.edge_node) {
        (Some(group), Some(node)) if sparkplug => {
            let filter = format!("spBv1.0/{}/+/{}/#", group.value.0, node.value.0);
            Some(Named { topic, payload, shown: filter.clone(), filter, at: place_of(node) })
        }
        (None, None) if sparkplug => {
            section.wrong(report, "the keys `group` and `edge_node` are missing, or `topic: spBv1.0/group/+/node/#`");
            None
        }
        (group, _) if sparkplug => absent(section, if group.is_none() { "group" } else { "edge_node" }, "", report),
        _ => absent(section, "topic", "", report),
    }
}

/// `section` lacks a key that it needs here, unless it is there and wrong, which was reported.
fn absent<S, T>(section: &At<S>, key: &str, help: &str, report: &mut Report) -> Option<T> {
    if !report.knows(&join(&section.path, key)) {
        section.wrong(report, format!("the key `{key}` is missing{help}"));
    }
    None
}

/// Births, deaths and sequence numbers of a node concern all of it.
fn takes_in_nodes(filter: &str) -> Result<(), &'static str> {
    if filter.starts_with("$share/") {
        return Err("shares a subscription, and births, deaths and data of a Sparkplug node belong together");
    }
    match *filter.split('/').collect::<Vec<_>>().as_slice() {
        ["spBv1.0", "#"] | ["spBv1.0", _, "#"] | ["spBv1.0", _, "+", "#"] => Ok(()),
        ["spBv1.0", _, "+", node, "#"] if node != TAG => Ok(()),
        _ => Err("does not take in all of a Sparkplug node, its births and deaths too; write `spBv1.0/group/+/node/#`"),
    }
}

/// What is wrong with the tags' own words about topics.
fn check_tags(topics: &[Named<'_>], tags: &[RawTag<'_>], written: usize, report: &mut Report) {
    for (tag, _) in tags {
        let own = &tag.value.own;
        let carried = || topics.iter().filter(|topic| topic.carries(&tag.value));
        if let Some(wanted) = &own.topic
            && carried().next().is_none()
            && topics.len() == written
        {
            let names = topics.iter().map(|topic| topic.shown.as_str());
            wanted.wrong(
                report,
                format!("`{}` is no topic of this station{}", wanted.shown, one_of_names(&wanted.shown, names)),
            );
            continue;
        }
        if topics.len() != written {
            continue; // something was reported, and nobody knows which payload was meant
        }
        use Payload::{Binary, Csv, Json, Plain, Sparkplug};
        for (said, fits) in [
            (own.path.as_ref().map(place_of), &[Json][..]),
            (own.column.as_ref().map(place_of), &[Csv]),
            (own.byte.as_ref().map(place_of), &[Binary]),
            (own.r#as.as_ref().map(place_of), &[Binary, Csv, Plain]),
            (own.byte_order.as_ref().map(place_of).filter(|said| said.written), &[Binary]),
            (own.metric_name.as_ref().map(place_of), &[Sparkplug]),
            (own.device.as_ref().map(place_of), &[Sparkplug]),
        ] {
            if let Some(said) = said
                && let Some(topic) = carried().next()
                && !carried().any(|topic| fits.contains(&topic.payload))
            {
                let list = crate::config::suggest::list(fits.iter().map(|payload| payload.word()));
                said.wrong(
                    report,
                    format!("is of no use with `payload: {}`; it belongs to {list}", topic.payload.word()),
                );
            }
        }
    }
}

/// Makes topics for the driver.
struct Reader<'a, 'r> {
    told: &'a Told<'a>,
    report: &'r mut Report,
    /// What was already said to be missing, by tag and key.
    missed: HashSet<(u32, &'static str)>,
}

impl Reader<'_, '_> {
    fn topic(&mut self, topic: &Named<'_>, tags: &[RawTag<'_>]) -> Option<mqtt::Topic> {
        let mine: Vec<RawTag<'_>> = tags.iter().filter(|(tag, _)| topic.carries(&tag.value)).copied().collect();
        if mine.is_empty() && !tags.is_empty() {
            topic.at.wrong(
                self.report,
                format!("no tag is read from `{}`; give a tag this `topic`, or leave the topic out", topic.shown),
            );
        }
        self.check_levels(topic, &mine);
        let section = topic.topic;
        let payload = match topic.payload {
            Payload::Json => mqtt::Payload::Json(Fields {
                time: self.time(section, "path", |time| Some(time.path.as_ref()?.value.0.clone())),
                tags: self.tags(&mine, |reader, tag, facts| {
                    let path = tag.value.own.path.as_ref().map(|path| path.value.0.clone());
                    path.or_else(|| reader.missing(tag, facts, "path", ""))
                }),
            }),
            Payload::Csv => {
                let header = section.header.as_ref()?.0;
                let time = self.time(section, "column", |time| {
                    let at = time.column.as_ref()?.value.0.clone();
                    Some(mqtt::Column { at, text: mqtt::Text::Text })
                });
                let tags = self.tags(&mine, |reader, tag, facts| reader.column(tag, facts, header));
                if let Some(column) = section.time.as_ref().and_then(|time| time.column.as_ref()) {
                    self.named_column(column, header);
                }
                mqtt::Payload::Csv { separator: section.separator.as_ref()?.0, header, fields: Fields { time, tags } }
            }
            Payload::Plain => {
                if let [_, second, ..] = mine.as_slice()
                    && !topic.filter.contains(TAG)
                {
                    let (first, second) = (&mine[0].1.shown, &second.1.shown);
                    topic.at.wrong(
                        self.report,
                        format!(
                            "a plain payload is one value, and `{first}` and `{second}` would both be it; give each its own \
                             `topic`, or a level `{{tag}}` to the topic"
                        ),
                    );
                }
                let tags = self.tags(&mine, |reader, tag, _| reader.text(tag));
                mqtt::Payload::Plain(Fields { time: None, tags })
            }
            Payload::Binary => mqtt::Payload::Binary(Fields {
                time: self.time(section, "byte", |time| {
                    let kind = match time.r#as.as_ref()?.value {
                        TimeWord::Known(TimeFormat::UnixS) => mqtt::Kind::Unsigned(4),
                        _ => mqtt::Kind::Signed(8),
                    };
                    let offset = usize::try_from(time.byte.as_ref()?.0).ok()?;
                    Some(mqtt::Field { offset, kind, little: time.byte_order.as_ref()?.0 == ByteOrder::Little })
                }),
                tags: self.tags(&mine, |reader, tag, facts| reader.field(tag, facts)),
            }),
            Payload::Sparkplug => mqtt::Payload::Sparkplug(Fields {
                time: None,
                tags: self.tags(&mine, |_, tag, facts| {
                    let own = &tag.value.own;
                    let name = own.metric_name.as_ref().map_or(facts.name.as_str(), |name| name.value.0.as_str());
                    let device = own.device.as_ref().map(|device| device.value.0.as_str()).or(topic.device());
                    Some(mqtt::Metric { name: name.into(), device: device.map(Into::into) })
                }),
            }),
        };
        if let Payload::Binary = topic.payload
            && let Some(time) = &section.time
            && let Some(TimeWord::Known(TimeFormat::Rfc3339) | TimeWord::Custom(_)) =
                time.r#as.as_ref().map(|at| &at.value)
        {
            time.wrong(self.report, "in bytes a time is a number: `unix_s`, `unix_ms`, `unix_us` or `unix_ns`");
        }
        Some(mqtt::Topic {
            station: Arc::clone(&self.told.who.name),
            filter: topic.filter.clone(),
            qos: section.qos.as_ref().map_or(1, |qos| u8::try_from(qos.0).unwrap_or(1)),
            payload,
        })
    }

    /// Names that stand in for levels must be able to.
    fn check_levels(&mut self, topic: &Named<'_>, tags: &[RawTag<'_>]) {
        let levels = || topic.filter.split('/');
        if levels().any(|level| level == STATION) && !is_level(&self.told.who.name) {
            let why = format!("`{}` cannot be a level of a topic: it holds `/`, `+` or `#`", self.told.who.shown);
            topic.at.wrong(self.report, why);
        }
        if levels().any(|level| level == TAG) {
            for (tag, facts) in tags.iter().filter(|(_, facts)| !is_level(&facts.name)) {
                let why = format!("`{}` cannot be a level of the topic `{}`", facts.shown, topic.shown);
                if let Some(name) = &tag.value.common.name {
                    name.wrong(self.report, why);
                }
            }
        }
    }

    fn tags<P>(
        &mut self,
        tags: &[RawTag<'_>],
        mut place: impl FnMut(&mut Self, &At<Tag<Mqtt>>, &TagFacts) -> Option<P>,
    ) -> Vec<TopicTag<P>> {
        let made = tags.iter().filter_map(|(tag, facts)| {
            Some(TopicTag {
                id: facts.id,
                name: facts.name.as_str().into(),
                place: place(self, tag, facts)?,
                required: tag.value.own.required.as_ref()?.0,
                numeric: self.told.oee.counts(facts.id),
            })
        });
        made.collect()
    }

    fn time<P>(
        &mut self,
        topic: &Topic,
        key: &'static str,
        place: impl FnOnce(&PayloadTime) -> Option<P>,
    ) -> Option<SourceTime<P>> {
        let section = topic.time.as_ref()?;
        let time = &section.value;
        let places = [
            ("path", time.path.as_ref().map(place_of)),
            ("column", time.column.as_ref().map(place_of)),
            ("byte", time.byte.as_ref().map(place_of)),
        ];
        for (other, said) in &places {
            if let Some(said) = said.as_ref().filter(|_| *other != key) {
                said.wrong(self.report, format!("does not say where the time of such a payload is; `{key}` does"));
            }
        }
        if places.iter().all(|(own, said)| *own != key || said.is_none()) {
            return absent(section, key, "", self.report);
        }
        let format = match &time.r#as.as_ref()?.value {
            TimeWord::Known(known) => known.clone(),
            TimeWord::Custom(form) => TimeFormat::Custom(form.as_str().into(), time.timezone.as_ref()?.value.0.clone()),
        };
        Some(SourceTime { place: place(time)?, format })
    }

    fn column(&mut self, tag: &At<Tag<Mqtt>>, facts: &TagFacts, header: bool) -> Option<mqtt::Column> {
        let Some(column) = &tag.value.own.column else { return self.missing(tag, facts, "column", "") };
        self.named_column(column, header);
        Some(mqtt::Column { at: column.value.0.clone(), text: self.text(tag)? })
    }

    fn named_column(&mut self, column: &At<Column>, header: bool) {
        if let (mqtt::ColumnAt::Name(_), false) = (&column.value.0, header) {
            let why = format!(
                "`{}` is a name, and without a `header` columns have none; write its place from 0",
                column.shown
            );
            column.wrong(self.report, why);
        }
    }

    fn text(&mut self, tag: &At<Tag<Mqtt>>) -> Option<mqtt::Text> {
        let Some(said) = &tag.value.own.r#as else { return Some(mqtt::Text::Any) };
        let text = said.value.text();
        if text.is_none() {
            said.wrong(
                self.report,
                format!("`{}` is how bytes are read; text is `number`, `bool` or `text`", said.shown),
            );
        }
        text
    }

    fn field(&mut self, tag: &At<Tag<Mqtt>>, facts: &TagFacts) -> Option<mqtt::Field> {
        let own = &tag.value.own;
        let offset = own.byte.as_ref().and_then(|byte| usize::try_from(byte.0).ok());
        let offset = offset.or_else(|| self.missing(tag, facts, "byte", ""));
        let Some(said) = &own.r#as else {
            return self.missing(tag, facts, "as", ": how are the bytes read? Write for instance `u16` or `f32`");
        };
        let kind = said.value.bytes();
        if kind.is_none() {
            let why =
                format!("`{}` says nothing about bytes; write for instance `u16`, `f32` or `string(8)`", said.shown);
            said.wrong(self.report, why);
        }
        Some(mqtt::Field { offset: offset?, kind: kind?, little: own.byte_order.as_ref()?.0 == ByteOrder::Little })
    }

    /// A tag lacks what its payload needs; said once, however many topics carry it.
    fn missing<T>(&mut self, tag: &At<Tag<Mqtt>>, facts: &TagFacts, key: &'static str, help: &str) -> Option<T> {
        if self.missed.insert((facts.id.0, key)) { absent(tag, key, help, self.report) } else { None }
    }
}
