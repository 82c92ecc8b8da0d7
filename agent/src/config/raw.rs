//! The YAML as it is written: every key, its shape, its default, and what it is for.
//!
//! This is the one declaration of the options: reading, defaults and `gemba schema` come from it, and
//! the comments here are the descriptions there.

use gemba_drivers::{modbus, mqtt, opcua};
use serde_json::{Value, json};

use super::calendar::{Days, WallTime, Zone};
use super::error::Report;
use super::protocols::{
    Address, BaseUrl, Compression, Filter, JsonPath, ModbusEndpoint, MqttEndpoint, NodeId, OpcuaEndpoint, Payload,
    Protocol,
};
use super::section::{At, Entries, Leaf, Shape, expect_map, section};
use super::tree::{Kind, Node};
use super::units::{Rate, Size, Span};
use super::words::{FilePath, Flag, Fraction, Hidden, Listen, Metric, Name, OneOf, Percent, Text, Ucum, Whole};
use crate::model::State;
use crate::spool::Signal;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;
const PIB: u64 = 1 << 50;

section! {
    /// Everything gemba is told. `${env:NAME}` and `${file:/path}` are filled in anywhere in a value.
    Root {
        /// The plant (`factory.site`).
        site: Name => required;
        /// The line (`factory.line`).
        line: Name => required;
        /// The IANA time zone in which shifts are told, such as `Europe/Berlin`.
        timezone: Zone => required;
        /// The local page.
        http: Http => optional;
        /// Where telemetry goes; without it everything stays in the spool, up to its bound.
        upstream: Upstream => optional;
        /// The buffer on disk.
        spool: Spool => optional;
        /// The shift plan; without it each local day is one period named `day`.
        shifts: Vec<At<Shift>> => optional;
        /// How much the agent tells of its own work.
        traces: Traces => optional;
        /// The stations of the line.
        stations: Vec<At<Station>> => required;
    }
}

section! {
    /// The local page.
    Http {
        /// IP address and port to listen on.
        listen: Listen => default("127.0.0.1:8080");
    }
}

section! {
    /// Where telemetry goes.
    Upstream {
        /// An OTLP receiver.
        otlp: Otlp => required;
    }
}

section! {
    /// An OTLP receiver.
    Otlp {
        /// Base URL; over HTTP `/v1/metrics`, `/v1/logs` and `/v1/traces` are appended, over gRPC it has no path.
        endpoint: BaseUrl => required;
        /// `http` is OTLP as protobuf over HTTP (mostly port 4318), `grpc` over gRPC (mostly port 4317).
        protocol: OneOf<super::Protocol> => default("http");
        /// `gzip` or `none`.
        compression: OneOf<Compression> => default("gzip");
        /// What is sent, for an upstream that has no place for all. What is left out is not sent later either.
        signals: Vec<At<OneOf<Signal>>> => default(Signal::ALL.map(Signal::word));
        /// Extra request headers; a value may be a secret.
        headers: Entries<Hidden> => optional;
        /// For one request, from connect to the last byte of the answer.
        timeout: Span<100, { 300 * SECOND }> => default("10s");
        /// PEM file with the authorities that an `https` endpoint is checked against; without it those count that the
        /// machine itself trusts.
        ca_file: FilePath => optional;
    }
}

section! {
    /// How much the agent tells of its own work.
    Traces {
        /// How many of the spans that neither failed nor were slow go upstream; those that did always do.
        sample: Percent => default("1%");
    }
}

section! {
    /// The buffer on disk.
    Spool {
        /// Its folder; a relative path starts where gemba was started.
        path: FilePath => default("./data/spool");
        /// What it may take of the disk, as du counts it.
        max_size: Size<MIB, PIB> => default("512MiB");
        /// What stays free on the disk.
        keep_free: Size<0, PIB> => default("64MiB");
        /// What a kill or a power cut may cost at most.
        sync: Span<1, { 60 * SECOND }> => default("250ms");
        /// How long what upstream already has is kept for replay.
        keep: Span<0, { 366 * DAY }> => default("0s");
    }
}

section! {
    /// A shift, in wall-clock time.
    Shift {
        /// Its name (`factory.shift`).
        name: Name => required;
        /// The days on which it starts: `mon-fri`, `sat`, `mon,wed,fri`; `sun-thu` wraps.
        days: Days => default("mon-sun");
        /// When it starts, such as "06:00".
        start: WallTime<false> => required;
        /// When it ends; at or before `start` means the next day.
        end: WallTime<true> => required;
        /// Time in it that is not planned for production.
        breaks: Vec<At<Break>> => optional;
    }
}

section! {
    /// Time in a shift that is not planned for production.
    Break {
        /// When it starts, such as "10:00".
        start: WallTime<false> => required;
        /// When it ends.
        end: WallTime<true> => required;
    }
}

/// A station; what its source and tags may say depends on the source's `type`.
#[derive(Debug)]
pub(super) enum Station {
    Modbus(Box<ModbusStation>),
    Opcua(Box<OpcuaStation>),
    Mqtt(Box<MqttStation>),
}

macro_rules! station {
    ($($name:ident of $source:ident with $tag:ident;)+) => {$(
        section! {
            /// A station.
            $name {
                /// Its name (`factory.station`).
                name: Name => required;
                /// Where its tags come from.
                source: $source => required;
                /// What is read.
                tags: Vec<At<$tag>> => required;
                /// What is computed; without it the tags flow and nothing is computed.
                oee: Oee => optional;
                /// Which tags tell what the station works on.
                context: Context => optional;
            }
        }
    )+};
}

station! {
    ModbusStation of ModbusSource with ModbusTag;
    OpcuaStation of OpcuaSource with OpcuaTag;
    MqttStation of MqttSource with MqttTag;
}

impl Shape for Station {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let Some(source) = node.get("source") else {
            report.add(&node.place, &node.path, "the key `source` is missing");
            return None;
        };
        expect_map(source, report)?;
        let Some(protocol) = source.get("type") else {
            report.add(
                &source.place,
                &source.path,
                format!("the key `type` is missing: {}", <OneOf<Protocol> as Leaf>::FORM),
            );
            return None;
        };
        Some(match OneOf::<Protocol>::read(protocol, report)?.0 {
            Protocol::Modbus => Self::Modbus(Box::new(ModbusStation::read(node, report)?)),
            Protocol::Opcua => Self::Opcua(Box::new(OpcuaStation::read(node, report)?)),
            Protocol::Mqtt => Self::Mqtt(Box::new(MqttStation::read(node, report)?)),
        })
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["source"],
            "properties": {
                "source": { "type": "object", "required": ["type"], "properties": { "type": <OneOf<Protocol> as Shape>::schema() } },
            },
            // An editor then complains about the protocol that was meant, not about all three.
            "allOf": [
                when(Protocol::Modbus, &ModbusStation::schema()),
                when(Protocol::Opcua, &OpcuaStation::schema()),
                when(Protocol::Mqtt, &MqttStation::schema()),
            ],
        })
    }
}

fn when(protocol: Protocol, schema: &Value) -> Value {
    let source = json!({ "required": ["type"], "properties": { "type": { "const": protocol.word() } } });
    json!({ "if": { "required": ["source"], "properties": { "source": source } }, "then": schema })
}

/// The one word that a source's `type` may be, once it is known.
macro_rules! kind {
    ($($name:ident $protocol:ident;)+) => {$(
        #[doc = "The `type` of its source, already looked at."]
        #[derive(Debug)]
        pub(super) struct $name;

        impl Leaf for $name {
            const FORM: &'static str = <OneOf<Protocol> as Leaf>::FORM;

            fn parse(_: &super::tree::Scalar) -> Result<Self, String> {
                Ok(Self)
            }

            fn schema() -> Value {
                json!({ "const": Protocol::$protocol.word() })
            }
        }
    )+};
}

kind! {
    IsModbus Modbus;
    IsOpcua Opcua;
    IsMqtt Mqtt;
}

/// The same key under another `type`: says where an unknown key belongs.
macro_rules! sources {
    ($($shape:ident reads $section:ident, others $($other:ident $protocol:ident),+;)+) => {$(
        #[doc = concat!("[`", stringify!($section), "`], which knows whose keys the unknown ones are.")]
        #[derive(Debug)]
        pub(super) struct $shape(pub(super) $section);

        impl Shape for $shape {
            fn read(node: &Node, report: &mut Report) -> Option<Self> {
                let hint = |key: &str| {
                    let mut owners = Vec::new();
                    $(if $other::KEYS.contains(&key) {
                        owners.push(Protocol::$protocol.word());
                    })+
                    let allowed = super::suggest::list($section::KEYS.iter().copied());
                    (!owners.is_empty()).then(|| {
                        format!("it belongs to {}; allowed here: {allowed}", super::suggest::list(owners))
                    })
                };
                $section::read_with(node, &hint, report).map(Self)
            }

            fn schema() -> Value {
                $section::schema()
            }
        }
    )+};
}

sources! {
    ModbusSource reads ModbusOptions, others OpcuaOptions Opcua, MqttOptions Mqtt;
    OpcuaSource reads OpcuaOptions, others ModbusOptions Modbus, MqttOptions Mqtt;
    MqttSource reads MqttOptions, others ModbusOptions Modbus, OpcuaOptions Opcua;
    ModbusTag reads ModbusTagOptions, others OpcuaTagOptions Opcua, MqttTagOptions Mqtt;
    OpcuaTag reads OpcuaTagOptions, others ModbusTagOptions Modbus, MqttTagOptions Mqtt;
    MqttTag reads MqttTagOptions, others ModbusTagOptions Modbus, OpcuaTagOptions Opcua;
}

section! {
    /// A Modbus TCP device or gateway. Stations that name the same endpoint share one connection, whatever their unit.
    ModbusOptions {
        /// The protocol.
        r#type: IsModbus => required;
        /// `tcp://host:port`; the port is 502 unless said.
        endpoint: ModbusEndpoint => required;
        /// The unit identifier: 1 to 247, or 255 for the device itself.
        unit: Whole<1, 255> => default(1);
        /// How often the tags are read.
        poll: Span<10, HOUR> => default("1s");
        /// How long a connect or one request may take.
        timeout: Span<10, { 300 * SECOND }> => default("2s");
    }
}

section! {
    /// An OPC UA server. Stations that name the same endpoint share one session.
    OpcuaOptions {
        /// The protocol.
        r#type: IsOpcua => required;
        /// `opc.tcp://host:port/path`.
        endpoint: OpcuaEndpoint => required;
        /// How the channel is secured.
        security: OneOf<opcua::Security> => default("none");
        /// How often the server samples, and publishes what changed.
        publish: Span<10, HOUR> => default("500ms");
        /// How long a connect, and each call after it, may take.
        timeout: Span<100, { 300 * SECOND }> => default("5s");
    }
}

section! {
    /// An MQTT broker. Stations that name the same endpoint and client_id share one session.
    MqttOptions {
        /// The protocol.
        r#type: IsMqtt => required;
        /// `mqtt://host:1883`, or `mqtts://host:8883` with TLS.
        endpoint: MqttEndpoint => required;
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
    /// A Modbus register or bit.
    ModbusTagOptions {
        /// Its name within the station.
        name: Name => required;
        /// Its first register or bit, counted from zero: `holding:0`, `input:10`, `coil:3`, `discrete:7`.
        address: Address => required;
        /// How its registers are read, high word first; needed for registers, always `bool` for coils and discrete inputs.
        r#as: OneOf<modbus::DataType> => optional;
        /// UCUM unit.
        unit: Ucum => optional;
        /// The metric's name, instead of `factory.tag.<name>`.
        metric: Metric => optional;
    }
}

section! {
    /// An OPC UA node.
    OpcuaTagOptions {
        /// Its name within the station.
        name: Name => required;
        /// `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`.
        node: NodeId => required;
        /// UCUM unit.
        unit: Ucum => optional;
        /// The metric's name, instead of `factory.tag.<name>`.
        metric: Metric => optional;
    }
}

section! {
    /// A value in an MQTT payload.
    MqttTagOptions {
        /// Its name within the station.
        name: Name => required;
        /// JSONPath (RFC 9535); the first value it selects counts.
        path: JsonPath => required;
        /// The one of the station's topics it is read from; all of them unless said.
        topic: Filter => optional;
        /// Whether a payload without it makes the tag bad; otherwise the tag stays as it was.
        required: Flag => default(false);
        /// UCUM unit.
        unit: Ucum => optional;
        /// The metric's name, instead of `factory.tag.<name>`.
        metric: Metric => optional;
    }
}

section! {
    /// What is computed. Any two of total, good and reject give the third.
    Oee {
        /// The time a part takes at best; without it performance and OEE cannot be known.
        ideal_cycle_time: Span<1, DAY> => optional;
        /// Which tag tells the state.
        state: StateTag => optional;
        /// Counts all parts.
        total: Counter => optional;
        /// Counts good parts.
        good: Counter => optional;
        /// Counts rejected parts.
        reject: Counter => optional;
        /// Below this coverage oee, availability and performance are withheld.
        min_coverage: Fraction => default(0.5);
    }
}

section! {
    /// Which tag tells the state, and in what words.
    StateTag {
        /// One of the station's tags.
        tag: Name => required;
        /// From the tag's value to the state: `{ 1: producing, 2: down }` or `{ Execute: producing }`.
        map: Entries<OneOf<State>> => required;
    }
}

section! {
    /// Which tags tell what the station works on. The stay of each serial becomes a span.
    Context {
        /// The unit; empty text and the number 0 stand for nobody.
        serial: ContextTag => required;
        /// What it is.
        product: ContextTag => optional;
        /// Which lot it belongs to.
        lot: ContextTag => optional;
    }
}

section! {
    /// A tag that tells what the station works on.
    ContextTag {
        /// One of the station's tags.
        tag: Name => required;
    }
}

section! {
    /// A tag that counts parts.
    Counter {
        /// One of the station's tags.
        tag: Name => required;
        /// Where it rolls over to zero: 65536 for a 16-bit register that counts through; without it a fall is a reset.
        modulus: Whole<2, { 1 << 53 }> => optional;
        /// A jump above this rate goes to the loss ledger instead of the counts.
        max_rate: Rate => optional;
    }
}

/// An empty section in place of one that was left out, so that its defaults apply.
pub(super) fn absent(root: &Node, key: &str) -> Node {
    Node { place: root.place.clone(), path: key.into(), kind: Kind::Map(Vec::new()) }
}
