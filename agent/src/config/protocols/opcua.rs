//! OPC UA: nodes of servers.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{mqtt, opcua};
use serde_json::{Value, json};

use super::{Known, Protocol, Speaks, Wire, endpoint, host_is_sane};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, Told};
use crate::config::section::{Leaf, section};
use crate::config::tree::Scalar;
use crate::config::units::{HOUR, SECOND, Span};
use crate::config::words::{OneOf, Word, text};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Opcua;

impl Word for opcua::Security {
    const WHAT: &'static str = "OPC UA security";
    const FORM: &'static str = "`none`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("none", Self::None)]
    }

    fn later(text: &str) -> Option<String> {
        let policies = ["basic256sha256", "aes128", "aes256", "sign", "sign_and_encrypt", "basic128rsa15", "basic256"];
        let known = text.split([' ', ',', '+', '/', '-']).any(|word| policies.contains(&word.to_lowercase().as_str()));
        known.then(|| format!("`{text}` is not in this version yet; `none` is"))
    }
}

/// An OPC UA server: as written, and what makes it the same as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Endpoint {
    pub(in crate::config) url: String,
    /// Host in lower case, port, path.
    pub(in crate::config) identity: (String, u16, String),
}

impl Leaf for Endpoint {
    const FORM: &'static str = "an OPC UA endpoint such as `opc.tcp://plc:4840`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint(scalar, "OPC UA", "opc.tcp", "opc.tcp://plc:4840")?;
        let rest = text
            .strip_prefix("opc.tcp://")
            .ok_or_else(|| format!("`{text}` is no OPC UA endpoint; write it as `opc.tcp://plc:4840`"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(format!("`{text}` is no OPC UA endpoint: it has no host"));
        }
        // Host and port are written as everywhere; the MQTT driver's parser splits them.
        let split: mqtt::Endpoint = format!("mqtt://{authority}").parse().map_err(|message: String| {
            format!("`{text}` is no OPC UA endpoint: {}", message.replace(authority, "it").replace("`it`", "it"))
        })?;
        host_is_sane(text, &split.host)?;
        let port = if authority.ends_with(&format!(":{}", split.port)) { split.port } else { 4840 };
        let identity = (split.host.to_lowercase(), port, path.trim_end_matches('/').to_owned());
        Ok(Self { url: text.to_owned(), identity })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^opc\\.tcp://[^@]+$" })
    }
}

/// An OPC UA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct NodeId(pub(in crate::config) opcua::Node);

impl Leaf for NodeId {
    const FORM: &'static str = "an OPC UA node such as `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)?.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^((nsu=[^;]+|ns=[0-9]{1,5});)?[isgb]=.+$" })
    }
}

section! {
    /// An OPC UA server. Stations that name the same endpoint share one session.
    OpcuaSource {
        /// The protocol.
        r#type: Known => required;
        /// `opc.tcp://host:port/path`.
        endpoint: Endpoint => required;
        /// How the channel is secured.
        security: OneOf<opcua::Security> => default("none");
        /// How often the server samples, and publishes what changed.
        publish: Span<10, HOUR> => default("500ms");
        /// How long a connect, and each call after it, may take.
        timeout: Span<100, { 300 * SECOND }> => default("5s");
    }
}

section! {
    /// An OPC UA node.
    OpcuaTag {
        /// `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`.
        node: NodeId => required;
    }
}

impl Speaks for Opcua {
    const PROTOCOL: Protocol = Protocol::Opcua;
    type Source = OpcuaSource;
    type Tag = OpcuaTag;

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let written = source.endpoint.as_ref()?;
        let same = |wire: &Wire| matches!(wire, Wire::Opcua(draft) if draft.identity == written.identity);
        let index = links.join(told.who, written, &written.url, same, || Wire::Opcua(Draft::new(written)));
        let Wire::Opcua(draft) = links.wire(index) else { return None };
        draft.security.say(told.who, &source.security, |security| security.0, report);
        draft.timeout.say(told.who, &source.timeout, |time| time.0, report);
        let tags = station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts).filter_map(|(tag, facts)| {
            Some(opcua::Tag { id: facts.id, node: tag.value.own.node.as_ref()?.value.0.clone() })
        });
        draft.config.stations.push(opcua::Station {
            name: Arc::clone(&told.who.name),
            publish: source.publish.as_ref()?.0,
            tags: tags.collect(),
        });
        Some(index)
    }
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: opcua::Config,
    identity: (String, u16, String),
    security: Agreed<opcua::Security>,
    timeout: Agreed<Duration>,
}

impl Draft {
    fn new(endpoint: &Endpoint) -> Self {
        Self {
            config: opcua::Config {
                endpoint: endpoint.url.clone(),
                security: opcua::Security::None,
                identity: opcua::Identity::Anonymous,
                timeout: Duration::ZERO,
                stations: Vec::new(),
            },
            identity: endpoint.identity.clone(),
            security: Agreed::nobody(opcua::Security::None),
            timeout: Agreed::nobody(Duration::ZERO),
        }
    }

    pub(super) fn finish(self) -> opcua::Config {
        opcua::Config { security: self.security.value, timeout: self.timeout.value, ..self.config }
    }
}
