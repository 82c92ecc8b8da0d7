//! OPC UA: nodes of servers.

mod secure;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{mqtt, opcua};
use serde_json::{Value, json};

use self::secure::{Channel, Door};
use super::{Known, Protocol, Speaks, Wire, endpoint, host_is_sane};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, Told};
use crate::config::section::{At, Leaf, Section, section};
use crate::config::tree::{Node, Scalar};
use crate::config::units::{HOUR, SECOND, Span};
use crate::config::words::{FilePath, Flag, Hidden, OneOf, Text, Whole, Word, text};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Opcua;

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

/// The browse path to an OPC UA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct BrowsePath(opcua::Path);

impl Leaf for BrowsePath {
    const FORM: &'static str = "a browse path such as `/Objects/nsu=urn:plant:aoi;AOI/2:State`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)?.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^/.+$" })
    }
}

/// An OPC UA node, or the browse path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Address(opcua::Address);

impl Leaf for Address {
    const FORM: &'static str = "an OPC UA node such as `i=2253`, or a browse path";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)?.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(/|((nsu=[^;]+|ns=[0-9]{1,5});)?[isgb]=).+$" })
    }
}

/// Elements of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Range(opcua::Range);

impl Leaf for Range {
    const FORM: &'static str = "a range of an array such as `0:3`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        // A number without quotes means itself; `1:30` is base 60 to YAML 1.1, and means itself too.
        scalar.text.parse().map(Self)
    }

    fn schema() -> Value {
        json!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^[0-9]+(:[0-9]+)?(,[0-9]+(:[0-9]+)?)*$",
        })
    }
}

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Field(opcua::Field);

impl Leaf for Field {
    const FORM: &'static str = "a field of a structure such as `Limits.High`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)?.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// What an enumeration is told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Enumeration {
    Number,
    Name,
}

impl Word for Enumeration {
    const WHAT: &'static str = "way to tell an enumeration";
    const FORM: &'static str = "`number` or `name`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("number", Self::Number), ("name", Self::Name)]
    }
}

section! {
    /// An OPC UA server. Stations that name the same endpoint, or the same list of them, share one session.
    OpcuaSource {
        /// The protocol.
        r#type: Known => required;
        /// `opc.tcp://host:port/path`.
        endpoint: Endpoint => optional;
        /// Instead of `endpoint`: redundant servers, in the order to try them. One is used at a time.
        endpoints: Vec<At<Endpoint>> => optional;
        /// How the channel is secured: `none`, or a policy: `basic256sha256`, `aes128` (Aes128_Sha256_RsaOaep) or
        /// `aes256` (Aes256_Sha256_RsaPss).
        security: OneOf<Channel> => default("none");
        /// What is done to each message: `sign` or `sign_and_encrypt`.
        mode: OneOf<opcua::Mode> => default("sign_and_encrypt");
        /// Whether the server's certificate must name the host in the endpoint. `false` for a server whose certificate
        /// was made for another name; it still has to be accepted.
        verify_host: Flag => default(true);
        /// User name.
        username: Text => optional;
        /// Password; better as `${file:/path}` than in plain sight.
        password: Hidden => optional;
        /// The user's certificate, PEM or DER, for a server that knows users by certificates.
        certificate_file: FilePath => optional;
        /// The key that belongs to it, PEM or DER, without a passphrase.
        private_key_file: FilePath => optional;
        /// How often the server samples, and publishes what changed.
        publish: Span<10, HOUR> => default("500ms");
        /// How long a connect, and each call after it, may take.
        timeout: Span<100, { 300 * SECOND }> => default("5s");
        /// Nodes whose events and alarms are told, as logs.
        events: Vec<At<OpcuaEvents>> => optional;
    }
}

section! {
    /// A node whose events and alarms are told.
    OpcuaEvents {
        /// The node, or the browse path to it; the server itself tells all that it has.
        node: Address => default("i=2253");
        /// Events below this severity (1 to 1000) are not told.
        min_severity: Whole<1, 1000> => default(1);
        /// Whether the server is asked, after each connect, for the alarms that stand (ConditionRefresh). It is the one
        /// method that is ever called, and changes nothing at the device.
        refresh: Flag => default(true);
    }
}

section! {
    /// An OPC UA node.
    TagKeys {
        /// `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`.
        node: NodeId => optional;
        /// Instead of `node`: the browse path, looked up at each connect: `/Objects/nsu=urn:plant:aoi;AOI/2:State`.
        path: BrowsePath => optional;
        /// One element of an array, counted from zero.
        index: Whole<0, { u32::MAX as u64 }> => optional;
        /// Elements of an array: `2`, `0:3`, `1,0:2` for two dimensions. Several elements are text, a JSON list.
        range: Range => optional;
        /// A field of a structure: `Limits.High`, `Axes[2].Position`.
        field: Field => optional;
        /// What an enumeration is: its `number`, or its `name` as the server tells it.
        r#enum: OneOf<Enumeration> => default("number");
    }
}

/// An OPC UA node, addressed in one of the two ways.
#[derive(Debug)]
pub(in crate::config) struct OpcuaTag(TagKeys);

impl Section for OpcuaTag {
    const KEYS: &'static [&'static str] = TagKeys::KEYS;

    fn read_keys(node: &Node, report: &mut Report) -> Option<Self> {
        let keys = TagKeys::read_keys(node, report)?;
        match (node.get("node"), node.get("path")) {
            (None, None) => node.wrong(report, "the key `node` is missing (or `path`)"),
            (Some(_), Some(path)) => {
                path.wrong(report, "the tag has a `node` already; leave one of the two out");
            }
            _ => {}
        }
        if let (Some(index), Some(_)) = (&keys.index, &keys.range) {
            index.wrong(report, "the tag has a `range` already; leave one of the two out");
        }
        Some(Self(keys))
    }

    fn none() -> Self {
        Self(TagKeys::none())
    }

    fn describe() -> Value {
        let mut schema = TagKeys::describe();
        schema["oneOf"] = json!([{ "required": ["node"] }, { "required": ["path"] }]);
        schema["not"] = json!({ "required": ["index", "range"] });
        schema
    }
}

impl TagKeys {
    fn address(&self) -> Option<opcua::Address> {
        let node = self.node.as_ref().map(|node| opcua::Address::Node(node.value.0.clone()));
        node.or_else(|| self.path.as_ref().map(|path| opcua::Address::Path(path.value.0.clone())))
    }

    fn pick(&self) -> opcua::Pick {
        let element =
            self.index.as_ref().map(|index| opcua::Range::element(u32::try_from(index.0).unwrap_or(u32::MAX)));
        opcua::Pick {
            range: element.or_else(|| self.range.as_ref().map(|range| range.value.0.clone())),
            field: self.field.as_ref().map(|field| field.value.0.clone()),
            names: self.r#enum.as_ref().is_some_and(|told| told.0 == Enumeration::Name),
        }
    }
}

impl Speaks for Opcua {
    const PROTOCOL: Protocol = Protocol::Opcua;
    type Source = OpcuaSource;
    type Tag = OpcuaTag;

    fn check_source(source: &Node, report: &mut Report) {
        match (source.get("endpoint"), source.get("endpoints")) {
            (None, None) => source.wrong(report, "the key `endpoint` is missing"),
            (Some(_), Some(list)) => {
                list.wrong(report, "a source has an `endpoint` or a list of `endpoints`, not both");
            }
            _ => {}
        }
    }

    fn describe_source(schema: &mut Value) {
        schema["oneOf"] = json!([{ "required": ["endpoint"] }, { "required": ["endpoints"] }]);
        schema["properties"]["endpoints"]["minItems"] = 1.into();
    }

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let written = servers(source, report)?;
        let first = written.first()?;
        let identity: Vec<_> = written.iter().map(|endpoint| endpoint.identity.clone()).collect();
        let urls = written.iter().map(|endpoint| endpoint.url.as_str()).collect::<Vec<_>>().join(", ");
        // What was filled in may be a secret: then that endpoint stands for all, as it is written.
        let shown = written.iter().find(|endpoint| endpoint.origin.shown.contains("${")).unwrap_or(first);
        let same = |wire: &Wire| matches!(wire, Wire::Opcua(draft) if draft.identity == identity);
        let index = links.join(told.who, shown, &urls, same, || Wire::Opcua(Box::new(Draft::new(&written, told.pki))));
        let Wire::Opcua(draft) = links.wire(index) else { return None };
        draft.door.say(told.who, source, report);
        draft.timeout.say(told.who, &source.timeout, |time| time.0, report);
        let mut tags = Vec::with_capacity(told.facts.len());
        for (tag, facts) in station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts) {
            let OpcuaTag(keys) = &tag.value.own;
            let (pick, Some(node)) = (keys.pick(), keys.address()) else { continue };
            let numeric = told.numeric(facts.id).filter(|_| pick.names);
            if let (Some(told_as), Some(used)) = (&keys.r#enum, numeric) {
                told_as.wrong(report, format!("`{}` {used}, and names are no numbers; leave `enum` out", facts.shown));
            }
            tags.push(opcua::Tag { id: facts.id, node, pick });
        }
        let notifier = |events: &At<OpcuaEvents>| {
            let OpcuaEvents { node, min_severity, refresh } = &events.value;
            Some(opcua::Notifier {
                node: node.as_ref()?.value.0.clone(),
                min_severity: u16::try_from(min_severity.as_ref()?.0).unwrap_or(u16::MAX),
                refresh: refresh.as_ref()?.0,
            })
        };
        draft.config.stations.push(opcua::Station {
            name: Arc::clone(&told.who.name),
            publish: source.publish.as_ref()?.0,
            tags,
            events: source.events.iter().flat_map(|events| &events.value).filter_map(notifier).collect(),
        });
        Some(index)
    }
}

/// The one server, or those of a redundant set.
fn servers(source: &OpcuaSource, report: &mut Report) -> Option<Vec<At<Endpoint>>> {
    let Some(list) = &source.endpoints else { return Some(vec![source.endpoint.clone()?]) };
    if list.is_empty() {
        list.wrong(report, "there is no endpoint; a source has at least one");
        return None;
    }
    for (index, endpoint) in list.iter().enumerate() {
        if list[..index].iter().any(|earlier| earlier.identity == endpoint.identity) {
            endpoint.wrong(report, format!("`{}` is already in the list", endpoint.origin.shown));
        }
    }
    Some(list.value.clone())
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: opcua::Config,
    identity: Vec<(String, u16, String)>,
    door: Door,
    timeout: Agreed<Duration>,
}

impl Draft {
    fn new(endpoints: &[At<Endpoint>], pki: &Path) -> Self {
        let mut urls = endpoints.iter().map(|endpoint| endpoint.url.clone());
        Self {
            config: opcua::Config {
                endpoint: urls.next().unwrap_or_default(),
                spares: urls.collect(),
                security: opcua::Security::None,
                identity: opcua::Identity::Anonymous,
                timeout: Duration::ZERO,
                stations: Vec::new(),
            },
            identity: endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect(),
            door: Door::new(pki),
            timeout: Agreed::nobody(Duration::ZERO),
        }
    }

    pub(super) fn finish(self, report: &mut Report) -> opcua::Config {
        let (security, identity) = self.door.finish(report);
        opcua::Config { security, identity, timeout: self.timeout.value, ..self.config }
    }
}
