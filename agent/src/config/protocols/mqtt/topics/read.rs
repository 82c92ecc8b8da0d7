//! From topics and tags as they are written to what the driver reads.

use std::collections::HashSet;
use std::sync::Arc;

use gemba_drivers::mqtt::{self, Fields, SourceTime, TimeFormat, TopicTag};

use super::super::Mqtt;
use super::super::words::{ByteOrder, Column, Payload, STATION, TAG, TimeWord, is_level};
use super::{Named, PayloadTime, RawTag, Topic, absent};
use crate::config::error::Report;
use crate::config::protocols::Tag;
use crate::config::resolve::{TagFacts, Told};
use crate::config::section::At;

/// Makes topics for the driver.
pub(super) struct Reader<'a, 'r> {
    pub(super) told: &'a Told<'a>,
    pub(super) report: &'r mut Report,
    /// What was already said to be missing, by tag and key.
    pub(super) missed: HashSet<(u32, &'static str)>,
}

impl Reader<'_, '_> {
    pub(super) fn topic(&mut self, topic: &Named<'_>, tags: &[RawTag<'_>]) -> Option<mqtt::Topic> {
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
                numeric: self.told.numeric(facts.id).is_some(),
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
            ("path", time.path.as_ref().map(At::origin)),
            ("column", time.column.as_ref().map(At::origin)),
            ("byte", time.byte.as_ref().map(At::origin)),
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
                column.origin.shown
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
                format!("`{}` is how bytes are read; text is `number`, `bool` or `text`", said.origin.shown),
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
            let why = format!(
                "`{}` says nothing about bytes; write for instance `u16`, `f32` or `string(8)`",
                said.origin.shown
            );
            said.wrong(self.report, why);
        }
        Some(mqtt::Field { offset: offset?, kind: kind?, little: own.byte_order.as_ref()?.0 == ByteOrder::Little })
    }

    /// A tag lacks what its payload needs; said once, however many topics carry it.
    fn missing<T>(&mut self, tag: &At<Tag<Mqtt>>, facts: &TagFacts, key: &'static str, help: &str) -> Option<T> {
        if self.missed.insert((facts.id.0, key)) { absent(tag, key, help, self.report) } else { None }
    }
}
