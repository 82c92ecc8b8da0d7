//! What a station reads: registers that exist, topics that somebody wants.

use std::sync::Arc;

use gemba_drivers::modbus::DataType;
use gemba_drivers::{modbus, mqtt};

use super::oee::Resolved;
use super::{TagFacts, Who};
use crate::config::error::Report;
use crate::config::protocols::Payload;
use crate::config::raw;
use crate::config::section::{At, join};
use crate::config::suggest;
use crate::config::words::{OneOf, one_of_names};

/// How a Modbus tag is read: bits are always `bool`.
pub(super) fn data_type(tag: &raw::ModbusTagOptions) -> Option<DataType> {
    let bits = tag.address.as_ref().is_some_and(|address| address.value.0.table.is_bits());
    tag.r#as.as_ref().map(|data_type| data_type.0).or(bits.then_some(DataType::Bool))
}

/// What the driver reads for a Modbus station.
pub(super) fn modbus_tags(station: &raw::ModbusStation, facts: &[TagFacts], report: &mut Report) -> Vec<modbus::Tag> {
    let mut tags = Vec::with_capacity(facts.len());
    for (tag, facts) in station.tags.iter().flat_map(|tags| &tags.value).zip(facts) {
        let options = &tag.value.0;
        let Some(written) = &options.address else { continue };
        let address = written.value.0;
        let Some(data_type) = facts.data_type else {
            if !report.knows(&join(&tag.path, "as")) {
                tag.wrong(
                    report,
                    format!(
                        "the key `as` is missing: how are the registers read? Write {}",
                        suggest::list(DataType::NAMES)
                    ),
                );
            }
            continue;
        };
        if address.table.is_bits() && data_type != DataType::Bool {
            if let Some(said) = &options.r#as {
                said.wrong(
                    report,
                    format!("`{}` is read from registers; `{}` is a single bit, so `bool`", said.shown, written.shown),
                );
            }
            continue;
        }
        if u32::from(address.offset) + u32::from(data_type.width()) > 65_536 {
            written.wrong(
                report,
                format!("`{}` with {} registers goes beyond the last one, 65535", written.shown, data_type.width()),
            );
            continue;
        }
        tags.push(modbus::Tag { id: facts.id, address, data_type });
    }
    tags
}

/// What the driver subscribes to for an MQTT station.
pub(super) fn mqtt_topics(
    who: &Who,
    station: &raw::MqttStation,
    facts: &[TagFacts],
    oee: &Resolved,
    report: &mut Report,
) -> Vec<mqtt::Topic> {
    let Some(list) = station.source.as_ref().and_then(|source| source.value.0.topics.as_ref()) else {
        return Vec::new();
    };
    if list.is_empty() {
        list.wrong(report, "there is no topic; a station subscribes to at least one");
        return Vec::new();
    }
    let filters = || list.iter().filter_map(|topic| topic.topic.as_ref());
    let mut known: Vec<&At<_>> = Vec::new();
    for filter in filters() {
        match known.iter().find(|earlier| earlier.value == filter.value) {
            Some(earlier) => {
                filter.wrong(
                    report,
                    format!("`{}` is already a topic of this station at {}", filter.shown, earlier.place),
                );
            }
            None => known.push(filter),
        }
    }
    let tags: Vec<_> = station.tags.iter().flat_map(|tags| &tags.value).zip(facts).collect();
    for (tag, _) in &tags {
        let Some(wanted) = &tag.value.0.topic else { continue };
        if !filters().any(|filter| filter.value == wanted.value) {
            let names = filters().map(|filter| &*filter.shown);
            wanted.wrong(
                report,
                format!("`{}` is no topic of this station{}", wanted.shown, one_of_names(&wanted.shown, names)),
            );
        }
    }
    let mut topics = Vec::with_capacity(list.len());
    for topic in &list.value {
        let (Some(filter), Some(OneOf(Payload::Json))) =
            (&topic.topic, topic.payload.as_ref().map(|payload| payload.value))
        else {
            continue;
        };
        let mine = |wanted: &Option<At<_>>| wanted.as_ref().is_none_or(|wanted| wanted.value == filter.value);
        if !tags.is_empty() && !tags.iter().any(|(tag, _)| mine(&tag.value.0.topic)) {
            filter.wrong(
                report,
                format!("no tag is read from `{}`; give a tag this `topic`, or leave the topic out", filter.shown),
            );
        }
        let time = topic.time.as_ref().and_then(|time| {
            let payload = &time.value;
            Some(mqtt::SourceTime { path: payload.path.as_ref()?.value.0.clone(), format: payload.r#as.as_ref()?.0 })
        });
        let tags = tags.iter().filter(|(tag, _)| mine(&tag.value.0.topic)).filter_map(|(tag, facts)| {
            Some(mqtt::TopicTag {
                id: facts.id,
                path: tag.value.0.path.as_ref()?.value.0.clone(),
                required: tag.value.0.required.as_ref()?.0,
                numeric: oee.counts(facts.id),
            })
        });
        topics.push(mqtt::Topic {
            station: Arc::clone(&who.name),
            filter: filter.value.0.clone(),
            qos: topic.qos.as_ref().map_or(1, |qos| u8::try_from(qos.0).unwrap_or(1)),
            time,
            tags: tags.collect(),
        });
    }
    topics
}
