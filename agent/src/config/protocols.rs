//! What single values may say in the words of one protocol. The drivers' own parsers decide; what they
//! cannot know (suggestions, hosts with a password in them) is added here.

use gemba_drivers::{modbus, mqtt, opcua};
use serde_json::{Value, json};

use super::Protocol as Upward;
use super::section::Leaf;
use super::suggest;
use super::tree::Scalar;
use super::words::{Text, Word, text};

/// The protocols that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Modbus,
    Opcua,
    Mqtt,
}

impl Word for Protocol {
    const WHAT: &'static str = "type of source";
    const FORM: &'static str = "`modbus`, `opcua` or `mqtt`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("modbus", Self::Modbus), ("opcua", Self::Opcua), ("mqtt", Self::Mqtt)]
    }
}

impl Protocol {
    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Modbus => "modbus",
            Self::Opcua => "opcua",
            Self::Mqtt => "mqtt",
        }
    }
}

impl Word for modbus::DataType {
    const WHAT: &'static str = "Modbus data type";
    const FORM: &'static str = "a Modbus data type such as `u16` or `f32`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::NAMES.into_iter().filter_map(|name| Some((name, name.parse().ok()?))).collect()
    }
}

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

/// How a payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Json,
}

impl Word for Payload {
    const WHAT: &'static str = "payload";
    const FORM: &'static str = "`json`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("json", Self::Json)]
    }
}

impl Word for Upward {
    const WHAT: &'static str = "OTLP protocol";
    const FORM: &'static str = "`http` or `grpc`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("http", Self::Http), ("grpc", Self::Grpc)]
    }
}

/// How OTLP is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    None,
}

impl Word for Compression {
    const WHAT: &'static str = "compression";
    const FORM: &'static str = "`gzip` or `none`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("gzip", Self::Gzip), ("none", Self::None)]
    }
}

/// A Modbus register or bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(pub(super) modbus::Address);

impl Leaf for Address {
    const FORM: &'static str = "a Modbus address such as `holding:0`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if let Some(meant) = conventional(text) {
            return Err(format!("`{text}` is no Modbus address; counted from zero that is `{meant}`"));
        }
        text.parse().map(Self).map_err(|message: String| match text.split_once(':') {
            Some((table, offset)) if !modbus::Table::NAMES.contains(&table) => {
                match suggest::nearest(table, modbus::Table::NAMES) {
                    Some(table) => format!("`{text}` is no Modbus address; did you mean `{table}:{offset}`?"),
                    None => message,
                }
            }
            _ => message,
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^(holding|input|coil|discrete):[0-9]{1,5}$" })
    }
}

/// What a manual's 5- or 6-digit register number, counted from one, is here: 40001 is `holding:0`.
fn conventional(text: &str) -> Option<String> {
    if !matches!(text.len(), 5 | 6) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (table, number) = text.split_at(1);
    let table = match table {
        "0" => "coil",
        "1" => "discrete",
        "3" => "input",
        "4" => "holding",
        _ => return None,
    };
    let offset = number.parse::<u32>().ok()?.checked_sub(1).filter(|offset| *offset <= 65_535)?;
    Some(format!("{table}:{offset}"))
}

/// A Modbus device or gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModbusEndpoint(pub(super) modbus::Endpoint);

impl Leaf for ModbusEndpoint {
    const FORM: &'static str = "a Modbus endpoint such as `tcp://192.168.0.10:502`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint(scalar, "Modbus", "tcp", "tcp://192.168.0.10:502")?;
        let endpoint: modbus::Endpoint = text.parse()?;
        let modbus::Endpoint::Tcp { host, .. } = &endpoint;
        host_is_sane(text, host)?;
        Ok(Self(endpoint))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^tcp://[^@/]+/?$" })
    }
}

/// An MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MqttEndpoint(pub(super) mqtt::Endpoint);

impl Leaf for MqttEndpoint {
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

/// An OPC UA server: as written, and what makes it the same as another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpcuaEndpoint {
    pub(super) url: String,
    /// Host in lower case, port, path.
    pub(super) identity: (String, u16, String),
}

impl Leaf for OpcuaEndpoint {
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

/// The endpoint's text, unless it holds a password; a missing or misspelt scheme is named.
fn endpoint<'a>(scalar: &'a Scalar, protocol: &str, scheme: &str, example: &str) -> Result<&'a str, String> {
    let text = text(scalar)?;
    if text.contains('@') {
        // Whatever stands before the `@` may be a password: it is not quoted.
        return Err("an endpoint holds no user name or password; take out what stands before the `@`".to_owned());
    }
    match text.split_once("://") {
        Some((said, rest)) => {
            let article = if protocol == "Modbus" { "a" } else { "an" };
            if !said.starts_with(scheme) && suggest::nearest(said, [scheme]).is_some() {
                return Err(format!("`{text}` is no {protocol} endpoint; did you mean `{scheme}://{rest}`?"));
            }
            if ["http", "https"].contains(&said) {
                return Err(format!(
                    "`{text}` is no {protocol} endpoint; {article} {protocol} one looks like `{example}`"
                ));
            }
            Ok(text)
        }
        None if !text.contains([' ', '/']) && !text.is_empty() => {
            Err(format!("`{text}` is no {protocol} endpoint; did you mean `{scheme}://{text}`?"))
        }
        None => Err(format!("`{text}` is no {protocol} endpoint; write it as `{example}`")),
    }
}

fn host_is_sane(text: &str, host: &str) -> Result<(), String> {
    let sane = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c));
    let address =
        !host.contains(':') || host.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    if sane && address { Ok(()) } else { Err(format!("`{text}`: `{host}` is no host name or address")) }
}

/// An OPC UA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeId(pub(super) opcua::Node);

impl Leaf for NodeId {
    const FORM: &'static str = "an OPC UA node such as `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)?.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^((nsu=[^;]+|ns=[0-9]{1,5});)?[isgb]=.+$" })
    }
}

/// A JSONPath (RFC 9535).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(pub(super) serde_json_path::JsonPath);

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
pub(super) struct Filter(pub(super) String);

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

/// The base URL of an OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl(pub(super) String);

impl Leaf for BaseUrl {
    const FORM: &'static str = "a URL such as `http://collector:4318`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint_url(scalar)?;
        let wrong = |why: &str| Err(format!("`{text}` is no OTLP endpoint: {why}"));
        let url = match reqwest::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ if text.contains("://") => return wrong("write it as `http://collector:4318`"),
            _ => return wrong(&format!("did you mean `http://{text}`?")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            // A query may hold a token: it is not quoted.
            return Err("an OTLP endpoint has no `?` and no `#`; put tokens into `headers`".to_owned());
        }
        let base = text.trim_end_matches('/');
        if let Some(base) = ["/v1/metrics", "/v1/logs", "/v1/traces"].iter().find_map(|end| base.strip_suffix(end)) {
            return wrong(&format!("the path is appended for each signal; did you mean `{base}`?"));
        }
        Ok(Self(base.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^https?://[^@?#]+$" })
    }
}

fn endpoint_url(scalar: &Scalar) -> Result<&str, String> {
    let text = text(scalar)?;
    if text.contains('@') {
        return Err("an endpoint holds no user name or password; put them into `headers`".to_owned());
    }
    Ok(text)
}
