//! What a message offers beside the tags that are configured.

use std::cell::OnceCell;

use serde_json::Value as Json;

use super::csv::Rows;
use super::json::json_value;
use super::{Document, Payloads, Reader, text};
use crate::mqtt::filter::matches;
use crate::mqtt::survey::leaves;
use crate::mqtt::{Kind, Text};
use crate::{Time, Value};

/// Something that could be a tag.
pub(in crate::mqtt) struct Found {
    /// The topic it came by, as the configuration writes it.
    pub(in crate::mqtt) filter: String,
    /// What the device calls it.
    pub(in crate::mqtt) name: String,
    /// How a tag addresses it.
    pub(in crate::mqtt) options: Vec<(&'static str, String)>,
    /// For people.
    pub(in crate::mqtt) about: String,
    /// What it says.
    pub(in crate::mqtt) value: Option<Value>,
}

impl Payloads {
    /// How many topics a station has.
    pub(in crate::mqtt) fn topics_of(&self, station: &str) -> usize {
        self.topics.iter().filter(|topic| &*topic.station == station).count()
    }

    /// Everything that a message offers to `station`.
    pub(in crate::mqtt) fn look(&mut self, station: &str, topic: &str, payload: &[u8], now: Time) -> Vec<Found> {
        let document = Document { bytes: payload, json: OnceCell::new(), text: OnceCell::new() };
        let mut all = Vec::new();
        for held in &self.topics {
            if &*held.station != station || !matches(topic, &held.pattern) {
                continue;
            }
            let tag = held.tag.as_ref().and_then(|(level, _)| topic.split('/').nth(*level));
            let mut add = |name: &str, options: Vec<(&'static str, String)>, about: String, value: Option<Value>| {
                let filter = held.filter.clone();
                // A topic that names its tags says what this one must be called.
                let name = tag.unwrap_or(name).to_owned();
                let options = if tag.is_some() { [vec![("name", name.clone())], options].concat() } else { options };
                all.push(Found { filter, name, options, about, value });
            };
            match &held.reader {
                Reader::Json(_) => {
                    let mut found: Vec<(String, Json)> = Vec::new();
                    if let Some(json) = document.json() {
                        leaves(json, "$", &mut found);
                    }
                    for (path, leaf) in found {
                        add(&path, vec![("path", path.clone())], topic.to_owned(), json_value(&leaf, false));
                    }
                }
                Reader::Csv { separator, header, .. } => {
                    let rows = Rows::new(document.text().unwrap_or_default(), *separator);
                    let rows: Vec<_> = rows.take(2).map_while(Result::ok).collect();
                    let [first, rest @ ..] = rows.as_slice() else { continue };
                    let values = if *header { rest.first() } else { Some(first) };
                    for (index, name) in first.iter().enumerate() {
                        let (name, column) = if *header {
                            (name.trim().to_owned(), name.trim().to_owned())
                        } else {
                            (format!("column-{index}"), index.to_string())
                        };
                        let value = values.and_then(|row| text::value(row.get(index)?, Text::Any, false).ok());
                        add(&name, vec![("column", column)], topic.to_owned(), value);
                    }
                }
                Reader::Plain(_) => {
                    let value = document.text().and_then(|whole| text::value(whole, Text::Any, false).ok());
                    add(topic.rsplit('/').next().unwrap_or(topic), Vec::new(), topic.to_owned(), value);
                }
                Reader::Binary(_) => {
                    // Nobody says what the bytes are; the first ones are shown as they lie there.
                    let shown: Vec<_> = payload.iter().take(32).map(|byte| format!("{byte:02X}")).collect();
                    let about = format!("{topic}, {} bytes: {}", payload.len(), shown.join(" "));
                    let options = vec![("offset", "0".to_owned()), ("as", "u8".to_owned())];
                    let field = crate::mqtt::Field { offset: 0, kind: Kind::Unsigned(1), little: false };
                    add("byte-0", options, about, field.value(payload, false).ok());
                }
                Reader::Sparkplug(_) => {
                    let Ok(Some(heard)) = self.nodes.hear(topic, payload, now, &mut Vec::new()) else { continue };
                    for (device, metric, value) in heard.metrics() {
                        let mut options = vec![("metric_name", metric.to_owned())];
                        options.extend(device.map(|device| ("device", device.to_owned())));
                        add(metric, options, topic.to_owned(), value.cloned());
                    }
                }
            }
        }
        all
    }
}
