//! Links: stations that name the same endpoint share one connection, so they must agree on how it is made.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{modbus, mqtt, opcua};

use super::oee::Resolved;
use super::tags::{modbus_tags, mqtt_topics};
use super::{TagFacts, Who};
use crate::config::error::{Place, Report};
use crate::config::raw;
use crate::config::section::At;
use crate::config::{Link, Source};

/// The links so far, in the order in which stations name them.
#[derive(Default)]
pub(super) struct Links(Vec<Draft>);

struct Draft {
    /// For people: as it is written where something was filled in.
    endpoint: String,
    stations: Vec<usize>,
    wire: Wire,
}

/// A driver's configuration in the making, with the options that belong to the link as a whole.
enum Wire {
    Modbus {
        config: modbus::Config,
        timeout: Agreed<Duration>,
    },
    Opcua {
        config: opcua::Config,
        identity: (String, u16, String),
        security: Agreed<opcua::Security>,
        timeout: Agreed<Duration>,
    },
    Mqtt(Box<MqttDraft>),
}

struct MqttDraft {
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

/// An option of a link that several stations may state: one that states it speaks for all, two must agree.
struct Agreed<T> {
    value: T,
    said: Option<Said>,
}

/// Who stated it, and where.
struct Said {
    station: Rc<str>,
    place: Place,
    path: Rc<str>,
    /// What was written; `None` for a secret.
    shown: Option<Rc<str>>,
}

impl<T: PartialEq> Agreed<T> {
    fn nobody(value: T) -> Self {
        Self { value, said: None }
    }

    /// `who` writes `value`, or leaves the option out.
    fn say<U>(&mut self, who: &Who, at: &Option<At<U>>, value: impl FnOnce(&U) -> T, report: &mut Report) {
        self.put(who, at, value, false, report);
    }

    /// As [`Agreed::say`], for a secret: no message quotes it.
    fn whisper<U>(&mut self, who: &Who, at: &Option<At<U>>, value: impl FnOnce(&U) -> T, report: &mut Report) {
        self.put(who, at, value, true, report);
    }

    fn put<U>(
        &mut self,
        who: &Who,
        at: &Option<At<U>>,
        value: impl FnOnce(&U) -> T,
        secret: bool,
        report: &mut Report,
    ) {
        let Some(at) = at else { return };
        let value = value(&at.value);
        let Some(said) = &self.said else {
            self.value = value;
            if at.written {
                let shown = (!secret).then(|| Rc::clone(&at.shown));
                let (place, path) = (at.place.clone(), Rc::clone(&at.path));
                self.said = Some(Said { station: Rc::clone(&who.shown), place, path, shown });
            }
            return;
        };
        if !at.written || self.value == value {
            return;
        }
        let (here, there) = match &said.shown {
            Some(shown) => (format!("`{}` here", at.shown), format!("`{shown}`")),
            None => ("one value here".to_owned(), "another".to_owned()),
        };
        at.wrong(
            report,
            format!(
                "{here}, {there} at station `{}` ({}): `{}` and `{0}` share this connection, so they must agree",
                said.station, said.place, who.shown
            ),
        );
    }
}

impl Links {
    /// Adds a Modbus station; its link's index.
    pub(super) fn modbus(
        &mut self,
        who: &Who,
        station: &raw::ModbusStation,
        facts: &[TagFacts],
        report: &mut Report,
    ) -> Option<usize> {
        let tags = modbus_tags(station, facts, report);
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        if let Some(unit) = source.unit.as_ref().filter(|unit| (248..=254).contains(&unit.0)) {
            unit.wrong(
                report,
                format!("`{}` is a reserved unit identifier; 1 to 247, or 255 for the device itself", unit.shown),
            );
        }
        let written = source.endpoint.as_ref()?;
        let endpoint = modbus_lower(&written.0);
        let found = self.0.iter().position(
            |link| matches!(&link.wire, Wire::Modbus { config, .. } if modbus_lower(&config.endpoint) == endpoint),
        );
        let index = self.join(found, who, written, &endpoint, || Wire::Modbus {
            config: modbus::Config { endpoint: written.0.clone(), timeout: Duration::ZERO, groups: Vec::new() },
            timeout: Agreed::nobody(Duration::ZERO),
        });
        let Wire::Modbus { config, timeout } = &mut self.0[index].wire else { return None };
        timeout.say(who, &source.timeout, |time| time.0, report);
        config.groups.push(modbus::Group {
            station: Arc::clone(&who.name),
            unit: u8::try_from(source.unit.as_ref()?.0).ok()?,
            poll: source.poll.as_ref()?.0,
            tags,
        });
        Some(index)
    }

    /// Adds an OPC UA station; its link's index.
    pub(super) fn opcua(
        &mut self,
        who: &Who,
        station: &raw::OpcuaStation,
        facts: &[TagFacts],
        report: &mut Report,
    ) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let written = source.endpoint.as_ref()?;
        let found = self
            .0
            .iter()
            .position(|link| matches!(&link.wire, Wire::Opcua { identity, .. } if *identity == written.identity));
        let index = self.join(found, who, written, &written.url, || Wire::Opcua {
            config: opcua::Config {
                endpoint: written.url.clone(),
                security: opcua::Security::None,
                identity: opcua::Identity::Anonymous,
                timeout: Duration::ZERO,
                stations: Vec::new(),
            },
            identity: written.identity.clone(),
            security: Agreed::nobody(opcua::Security::None),
            timeout: Agreed::nobody(Duration::ZERO),
        });
        let Wire::Opcua { config, security, timeout, .. } = &mut self.0[index].wire else { return None };
        security.say(who, &source.security, |security| security.0, report);
        timeout.say(who, &source.timeout, |time| time.0, report);
        let tags = station.tags.iter().flat_map(|tags| &tags.value).zip(facts).filter_map(|(tag, facts)| {
            Some(opcua::Tag { id: facts.id, node: tag.value.0.node.as_ref()?.value.0.clone() })
        });
        config.stations.push(opcua::Station {
            name: Arc::clone(&who.name),
            publish: source.publish.as_ref()?.0,
            tags: tags.collect(),
        });
        Some(index)
    }

    /// Adds an MQTT station; its link's index.
    pub(super) fn mqtt(
        &mut self,
        who: &Who,
        station: &raw::MqttStation,
        facts: &[TagFacts],
        oee: &Resolved,
        line: Option<&str>,
        report: &mut Report,
    ) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let topics = mqtt_topics(who, station, facts, oee, report);
        let written = source.endpoint.as_ref()?;
        let endpoint = mqtt::Endpoint { host: written.0.host.to_lowercase(), ..written.0.clone() };
        let client_id = match &source.client_id {
            Some(id) => id.value.0.clone(),
            None => format!("gemba-{}", line.unwrap_or_default()),
        };
        let found = self.0.iter().position(|link| {
            matches!(&link.wire, Wire::Mqtt(draft) if draft.config.endpoint == endpoint && draft.config.client_id == client_id)
        });
        let index = self
            .join(found, who, written, &endpoint, || Wire::Mqtt(Box::new(MqttDraft::new(endpoint.clone(), client_id))));
        let Wire::Mqtt(draft) = &mut self.0[index].wire else { return None };
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

    fn join<E>(
        &mut self,
        found: Option<usize>,
        who: &Who,
        written: &At<E>,
        endpoint: &impl ToString,
        wire: impl FnOnce() -> Wire,
    ) -> usize {
        let index = found.unwrap_or_else(|| {
            // What was filled in may be a secret: then the endpoint is shown as it is written.
            let endpoint = if written.shown.contains("${") { written.shown.to_string() } else { endpoint.to_string() };
            self.0.push(Draft { endpoint, stations: Vec::new(), wire: wire() });
            self.0.len() - 1
        });
        self.0[index].stations.push(who.index);
        index
    }

    /// The links, with what their stations agreed on.
    pub(super) fn finish(self, report: &mut Report) -> Vec<Link> {
        let finish = |draft: Draft| {
            let source = match draft.wire {
                Wire::Modbus { config, timeout } => Source::Modbus(modbus::Config { timeout: timeout.value, ..config }),
                Wire::Opcua { config, security, timeout, .. } => {
                    Source::Opcua(opcua::Config { security: security.value, timeout: timeout.value, ..config })
                }
                Wire::Mqtt(draft) => Source::Mqtt(draft.finish(report)),
            };
            Link { endpoint: draft.endpoint, stations: draft.stations, source }
        };
        self.0.into_iter().map(finish).collect()
    }
}

impl MqttDraft {
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

    fn finish(self, report: &mut Report) -> mqtt::Config {
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

fn modbus_lower(endpoint: &modbus::Endpoint) -> modbus::Endpoint {
    let modbus::Endpoint::Tcp { host, port } = endpoint;
    modbus::Endpoint::Tcp { host: host.to_lowercase(), port: *port }
}
