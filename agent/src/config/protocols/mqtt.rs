//! MQTT: values in the payloads of topics.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::mqtt;
use serde_json::{Value, json};

use super::{Known, Protocol, Speaks, Wire, endpoint, host_is_sane};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, Told};
use crate::config::section::{At, Leaf, section};
use crate::config::tree::Scalar;
use crate::config::units::{MIB, SECOND, Size, Span};
use crate::config::words::{FilePath, Flag, Hidden, OneOf, Text, Whole, Word, one_of_names, text};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Mqtt;

impl Word for mqtt::TimeFormat {
    const WHAT: &'static str = "time format";
    const FORM: &'static str = "a time format such as `unix_ms`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::NAMES.into_iter().filter_map(|name| Some((name, name.parse().ok()?))).collect()
    }
}

impl Word for mqtt::Version {
    const WHAT: &'static str = "MQTT version";
    const FORM: &'static str = "`3.1.1` or `5`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("3.1.1", Self::V311), ("5", Self::V5)]
    }
}

/// How a payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Payload {
    Json,
}

impl Word for Payload {
    const WHAT: &'static str = "payload";
    const FORM: &'static str = "`json`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("json", Self::Json)]
    }
}

/// An MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Endpoint(pub(in crate::config) mqtt::Endpoint);

impl Leaf for Endpoint {
    const FORM: &'static str = "an MQTT endpoint such as `mqtt://broker:1883` or `mqtts://broker:8883`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint(scalar, "MQTT", "mqtt", "mqtt://broker:1883")?;
        let endpoint: mqtt::Endpoint = text.parse()?;
        host_is_sane(text, &endpoint.host)?;
        Ok(Self(endpoint))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^mqtts?://[^@/]+/?$" })
    }
}

/// A JSONPath (RFC 9535).
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct JsonPath(pub(in crate::config) serde_json_path::JsonPath);

impl Leaf for JsonPath {
    const FORM: &'static str = "a JSONPath such as `$.state`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        serde_json_path::JsonPath::parse(text).map(Self).map_err(|error| {
            let meant = format!("$.{}", text.trim_start_matches('.'));
            if !text.starts_with('$') && serde_json_path::JsonPath::parse(&meant).is_ok() {
                return format!("`{text}` is no JSONPath; did you mean `{meant}`?");
            }
            format!("`{text}` is no JSONPath: {}", error.to_string().replace('\n', " "))
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\$" })
    }
}

/// An MQTT topic filter (MQTT 5, 4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Filter(pub(in crate::config) String);

impl Leaf for Filter {
    const FORM: &'static str = "an MQTT topic filter such as `plant/+/telemetry`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let Text(text) = Text::parse(scalar)?;
        let wrong = |why: &str| Err(format!("`{text}` is no MQTT topic filter: {why}"));
        if text.len() > 65_535 {
            return Err("a topic filter has at most 65535 bytes".to_owned());
        }
        if let Some(shared) = text.strip_prefix("$share/") {
            return match shared.split_once('/') {
                Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => {
                    Ok(Self(text))
                }
                _ => wrong("a shared one is written `$share/group/filter`"),
            };
        }
        let levels: Vec<_> = text.split('/').collect();
        for (index, level) in levels.iter().enumerate() {
            if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
                return wrong("`#` stands alone, in the last level");
            }
            if level.contains('+') && *level != "+" {
                return wrong("`+` stands alone in its level");
            }
        }
        Ok(Self(text))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

section! {
    /// An MQTT broker. Stations that name the same endpoint and client_id share one session.
    MqttSource {
        /// The protocol.
        r#type: Known => required;
        /// `mqtt://host:1883`, or `mqtts://host:8883` with TLS.
        endpoint: Endpoint => required;
        /// Names the session, which the broker keeps while we are away; `gemba-<line>` unless said.
        client_id: Text => optional;
        /// 3.1.1 or 5.
        version: OneOf<mqtt::Version> => default("3.1.1");
        /// Whether to forget the session, and what came meanwhile, at each connect.
        clean_session: Flag => default(false);
        /// How long the link may be silent before it is pinged.
        keep_alive: Span<SECOND, { 65_535 * SECOND }> => default("30s");
        /// How long a connect may take.
        timeout: Span<100, { 300 * SECOND }> => default("5s");
        /// The largest payload that is looked at; a larger one is a loss.
        max_payload: Size<1, { 256 * MIB }> => default("256KiB");
        /// User name.
        username: Text => optional;
        /// Password; better as `${file:/path}` than in plain sight.
        password: Hidden => optional;
        /// PEM file with the authorities that an `mqtts` broker is checked against; without it those count that the
        /// machine itself trusts.
        ca_file: FilePath => optional;
        /// What to subscribe to.
        topics: Vec<At<Topic>> => required;
    }
}

section! {
    /// A topic to subscribe to.
    Topic {
        /// Topic filter; `+` and `#` are wildcards.
        topic: Filter => required;
        /// Quality of service: 0, 1 or 2. From 1 on a message is acknowledged once it is on disk.
        qos: Whole<0, 2> => default(1);
        /// How the payload is read.
        payload: OneOf<Payload> => default("json");
        /// Where the payload says when its values came to be; the time received counts without it.
        time: PayloadTime => optional;
    }
}

section! {
    /// Where a payload carries its time.
    PayloadTime {
        /// JSONPath of it.
        path: JsonPath => required;
        /// How it is written: `unix_s`, `unix_ms`, `unix_us` or `rfc3339`.
        r#as: OneOf<mqtt::TimeFormat> => required;
    }
}

section! {
    /// A value in an MQTT payload.
    MqttTag {
        /// JSONPath (RFC 9535); the first value it selects counts.
        path: JsonPath => required;
        /// The one of the station's topics it is read from; all of them unless said.
        topic: Filter => optional;
        /// Whether a payload without it makes the tag bad; otherwise the tag stays as it was.
        required: Flag => default(false);
    }
}

impl Speaks for Mqtt {
    const PROTOCOL: Protocol = Protocol::Mqtt;
    type Source = MqttSource;
    type Tag = MqttTag;

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let topics = topics(station, told, report);
        let written = source.endpoint.as_ref()?;
        let endpoint = mqtt::Endpoint { host: written.0.host.to_lowercase(), ..written.0.clone() };
        let client_id = match &source.client_id {
            Some(id) => id.value.0.clone(),
            None => format!("gemba-{}", told.line.unwrap_or_default()),
        };
        let same = |wire: &Wire| matches!(wire, Wire::Mqtt(draft) if draft.config.endpoint == endpoint && draft.config.client_id == client_id);
        let index = links.join(told.who, written, &endpoint, same, || {
            Wire::Mqtt(Box::new(Draft::new(endpoint.clone(), client_id.clone())))
        });
        let Wire::Mqtt(draft) = links.wire(index) else { return None };
        let who = told.who;
        draft.version.say(who, &source.version, |version| version.0, report);
        draft.clean_session.say(who, &source.clean_session, |flag| flag.0, report);
        draft.keep_alive.say(who, &source.keep_alive, |time| time.0, report);
        draft.timeout.say(who, &source.timeout, |time| time.0, report);
        draft.max_payload.say(who, &source.max_payload, |size| size.0, report);
        draft.username.say(who, &source.username, |name| Some(name.0.clone()), report);
        draft.password.whisper(who, &source.password, |password| Some(password.0.clone()), report);
        draft.ca_file.say(who, &source.ca_file, |file| Some(file.0.clone()), report);
        draft.config.topics.extend(topics);
        Some(index)
    }
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: mqtt::Config,
    version: Agreed<mqtt::Version>,
    clean_session: Agreed<bool>,
    keep_alive: Agreed<Duration>,
    timeout: Agreed<Duration>,
    max_payload: Agreed<u64>,
    username: Agreed<Option<String>>,
    password: Agreed<Option<String>>,
    ca_file: Agreed<Option<std::path::PathBuf>>,
}

impl Draft {
    fn new(endpoint: mqtt::Endpoint, client_id: String) -> Self {
        Self {
            config: mqtt::Config {
                endpoint,
                client_id,
                version: mqtt::Version::default(),
                clean_session: false,
                keep_alive: Duration::ZERO,
                timeout: Duration::ZERO,
                max_payload: 0,
                credentials: None,
                ca_file: None,
                topics: Vec::new(),
            },
            version: Agreed::nobody(mqtt::Version::default()),
            clean_session: Agreed::nobody(false),
            keep_alive: Agreed::nobody(Duration::ZERO),
            timeout: Agreed::nobody(Duration::ZERO),
            max_payload: Agreed::nobody(0),
            username: Agreed::nobody(None),
            password: Agreed::nobody(None),
            ca_file: Agreed::nobody(None),
        }
    }

    pub(super) fn finish(self, report: &mut Report) -> mqtt::Config {
        if let (Some(said), None) = (&self.password.said, &self.username.value) {
            report.add(&said.place, &said.path, "a password needs a `username` beside it");
        }
        if let Some(said) = self.ca_file.said.as_ref().filter(|_| !self.config.endpoint.tls) {
            report.add(
                &said.place,
                &said.path,
                "is of no use with an `mqtt://` endpoint; only `mqtts://` checks certificates",
            );
        }
        mqtt::Config {
            version: self.version.value,
            clean_session: self.clean_session.value,
            keep_alive: self.keep_alive.value,
            timeout: self.timeout.value,
            max_payload: usize::try_from(self.max_payload.value).unwrap_or(usize::MAX),
            credentials: self
                .username
                .value
                .map(|username| mqtt::Credentials { username, password: self.password.value.unwrap_or_default() }),
            ca_file: self.ca_file.value,
            ..self.config
        }
    }
}

/// What the driver subscribes to for an MQTT station.
fn topics(station: &StationOf<Mqtt>, told: &Told<'_>, report: &mut Report) -> Vec<mqtt::Topic> {
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
    let tags: Vec<_> = station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts).collect();
    for (tag, _) in &tags {
        let Some(wanted) = &tag.value.own.topic else { continue };
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
        if !tags.is_empty() && !tags.iter().any(|(tag, _)| mine(&tag.value.own.topic)) {
            filter.wrong(
                report,
                format!("no tag is read from `{}`; give a tag this `topic`, or leave the topic out", filter.shown),
            );
        }
        let time = topic.time.as_ref().and_then(|time| {
            let payload = &time.value;
            Some(mqtt::SourceTime { path: payload.path.as_ref()?.value.0.clone(), format: payload.r#as.as_ref()?.0 })
        });
        let tags = tags.iter().filter(|(tag, _)| mine(&tag.value.own.topic)).filter_map(|(tag, facts)| {
            Some(mqtt::TopicTag {
                id: facts.id,
                path: tag.value.own.path.as_ref()?.value.0.clone(),
                required: tag.value.own.required.as_ref()?.0,
                numeric: told.oee.counts(facts.id),
            })
        });
        topics.push(mqtt::Topic {
            station: Arc::clone(&told.who.name),
            filter: filter.value.0.clone(),
            qos: topic.qos.as_ref().map_or(1, |qos| u8::try_from(qos.0).unwrap_or(1)),
            time,
            tags: tags.collect(),
        });
    }
    topics
}
