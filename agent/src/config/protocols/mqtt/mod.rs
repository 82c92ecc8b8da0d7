//! MQTT: values in the payloads of topics.

mod topics;
mod words;

use std::time::Duration;

use gemba_drivers::mqtt;

use self::topics::{MqttTag, Topic, topics};
pub(in crate::config) use self::words::Separator;
use self::words::{Endpoint, Level};
use super::{Known, Protocol, Speaks, Tag, Wire};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, Told};
use crate::config::section::{At, section};
use crate::config::units::{MIB, SECOND, Size, Span};
use crate::config::words::{FilePath, Flag, Hidden, OneOf, Text};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Mqtt;

section! {
    /// An MQTT broker. Stations that name the same endpoint and client_id share one session.
    MqttSource {
        /// The protocol.
        r#type: Known => required;
        /// `mqtt://host:1883`, or `mqtts://host:8883` with TLS.
        endpoint: Endpoint => required;
        /// Names the session, which the broker keeps while we are away; `gemba-<line>` unless said. No two clients of a
        /// broker may have the same.
        client_id: Text => optional;
        /// 3.1.1 or 5.
        version: OneOf<mqtt::Version> => default("3.1.1");
        /// Whether to forget the session, and what came meanwhile, at each connect. A link with a `host_id` always does.
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
        /// PEM file with our own certificate, for an `mqtts` broker that wants one.
        cert_file: FilePath => optional;
        /// PEM file with its private key, which has no password.
        key_file: FilePath => optional;
        /// Whether Sparkplug edge nodes are asked for a new birth when one is needed; it is a command to them.
        rebirth: Flag => default(false);
        /// The name of a Sparkplug host application: its presence is published at `spBv1.0/STATE/<host_id>`. Nothing is
        /// without it.
        host_id: Level => optional;
        /// What to subscribe to.
        topics: Vec<At<Topic>> => required;
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
        draft.cert_file.say(who, &source.cert_file, |file| Some(file.0.clone()), report);
        draft.key_file.say(who, &source.key_file, |file| Some(file.0.clone()), report);
        draft.rebirth.say(who, &source.rebirth, |flag| flag.0, report);
        draft.host_id.say(who, &source.host_id, |name| Some(name.0.clone()), report);
        draft.config.topics.extend(topics);
        let tags = station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts);
        let ages = |tag: &Tag<Self>| tag.treat.as_ref().is_some_and(|options| options.max_age.is_some());
        draft.config.aged.extend(tags.filter(|(tag, _)| ages(&tag.value)).map(|(_, facts)| facts.id));
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
    cert_file: Agreed<Option<std::path::PathBuf>>,
    key_file: Agreed<Option<std::path::PathBuf>>,
    rebirth: Agreed<bool>,
    host_id: Agreed<Option<String>>,
}

impl Draft {
    fn new(endpoint: mqtt::Endpoint, client_id: String) -> Self {
        Self {
            config: mqtt::Config::new(endpoint, client_id),
            version: Agreed::nobody(mqtt::Version::default()),
            clean_session: Agreed::nobody(false),
            keep_alive: Agreed::nobody(Duration::ZERO),
            timeout: Agreed::nobody(Duration::ZERO),
            max_payload: Agreed::nobody(0),
            username: Agreed::nobody(None),
            password: Agreed::nobody(None),
            ca_file: Agreed::nobody(None),
            cert_file: Agreed::nobody(None),
            key_file: Agreed::nobody(None),
            rebirth: Agreed::nobody(false),
            host_id: Agreed::nobody(None),
        }
    }

    pub(super) fn finish(self, report: &mut Report) -> mqtt::Config {
        if let (Some(said), None) = (&self.password.said, &self.username.value) {
            said.wrong(report, "a password needs a `username` beside it");
        }
        if let Some(said) = self.ca_file.said.as_ref().filter(|_| !self.config.endpoint.tls) {
            said.wrong(report, "is of no use with an `mqtt://` endpoint; only `mqtts://` checks certificates");
        }
        for (said, other, name) in
            [(&self.cert_file, &self.key_file, "key_file"), (&self.key_file, &self.cert_file, "cert_file")]
        {
            let Some(said) = &said.said else { continue };
            if !self.config.endpoint.tls {
                let why = "is of no use with an `mqtt://` endpoint; only `mqtts://` shows certificates";
                said.wrong(report, why);
            } else if other.value.is_none() {
                said.wrong(report, format!("a certificate and its key go together: `{name}` is missing"));
            }
        }
        if let Some(said) = self.clean_session.said.as_ref().filter(|_| self.host_id.value.is_some())
            && !self.clean_session.value
        {
            let why =
                "`false` does not go with `host_id`: a Sparkplug host application has a clean session; leave it out";
            said.wrong(report, why);
        }
        let sparkplug = |topic: &mqtt::Topic| matches!(topic.payload, mqtt::Payload::Sparkplug(_));
        if !self.config.topics.iter().any(sparkplug) {
            for said in [&self.rebirth.said, &self.host_id.said].into_iter().flatten() {
                said.wrong(report, "is of no use without a topic with `payload: sparkplug`");
            }
        }
        let identity = self.cert_file.value.zip(self.key_file.value);
        mqtt::Config {
            identity: identity.map(|(cert_file, key_file)| mqtt::Identity { cert_file, key_file }),
            rebirth: self.rebirth.value,
            host_id: self.host_id.value,
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
