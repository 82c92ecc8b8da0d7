//! The YAML as it is written: every key, its shape, its default, and what it is for.
//!
//! This is the one declaration of the options: reading, defaults and `gemba schema` come from it, and
//! the comments here are the descriptions there.

mod line;
mod oee;
mod spc;

use serde_json::{Value, json};

pub(super) use self::line::{Calendar, Costs, Cycle, DayShift, Flow, Product, Rates, Reason};
pub(super) use self::oee::{
    Counter, Counts, Energy, EnergyUnit, LateRejects, MicroStops, Oee, Startup, StateKeys, StateTag,
};
pub(super) use self::spc::{Chart, ChartCounter, ChartKeys};
use super::amounts::{Band, Formula, Real};
use super::anomalies::Anomaly;
use super::calendar::{Days, WallTime, Zone};
use super::error::Report;
use super::inspection::Inspection;
use super::otlp::{BaseUrl, Compression};
use super::protocols::{Gpio, Modbus, Mqtt, Opcua, Protocol, Source, Speaks, Tag};
use super::section::{At, Entries, Leaf, Shape, expect_map, section};
use super::tree::{Kind, Node};
use super::units::{DAY, MIB, PIB, SECOND, Size, Span};
use super::words::{FilePath, Flag, Hidden, Listen, Metric, Name, OneOf, Percent, Ucum};
use crate::spool::Signal;

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
        /// Days that are not as the week has them.
        calendar: Calendar => optional;
        /// Why a machine may stand: a tree of reasons.
        reasons: Vec<At<Reason>> => optional;
        /// What may be made.
        products: Vec<At<Product>> => optional;
        /// What time and energy cost.
        costs: Costs => optional;
        /// How parts flow through the line, for the figures of the line as a whole.
        flow: Flow => optional;
        /// How much the agent tells of its own work.
        traces: Traces => optional;
        /// What all OPC UA links have in common.
        opcua: OpcuaSettings => optional;
        /// The stations of the line.
        stations: Vec<At<Station>> => required;
    }
}

section! {
    /// The local page.
    Http {
        /// IP address and port to listen on.
        listen: Listen => default("127.0.0.1:8080");
        /// Whether people may tell what no tag does: `POST /entries` and `gemba enter`. Whoever reaches `listen` may then;
        /// there is no password yet.
        entries: Flag => default(false);
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
        signals: Vec<At<OneOf<Signal>>> => default(["metrics", "logs", "traces"]);
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
    /// What all OPC UA links have in common.
    OpcuaSettings {
        /// The folder with gemba's own certificate and those of servers that are trusted; the folder `pki` beside
        /// `spool.path` unless said.
        pki: FilePath => optional;
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

section! {
    /// A station.
    StationOf<P: Speaks> {
        /// Its name (`factory.station`).
        name: Name => required;
        /// Where its tags come from.
        source: Source<P> => required;
        /// What is read.
        tags: Vec<At<Tag<P>>> => required;
        /// What is computed; without it the tags flow and nothing is computed.
        oee: Oee => optional;
        /// Which tags tell what the station works on.
        context: Context => optional;
        /// Which anomalies of its tags are looked for.
        anomalies: Vec<At<Anomaly>> => optional;
        /// Which tags tell of its inspections.
        inspection: Inspection => optional;
        /// Control charts.
        spc: Vec<At<Chart>> => optional;
        /// How far the clock of its source may be from the gateway's. Beyond it readings get the time of their receipt and
        /// are uncertain; without it the source's time counts, whatever it is.
        max_clock_skew: Span<1, DAY> => optional;
    }
}

section! {
    /// What every tag has, whatever its protocol.
    TagOptions {
        /// Its name within the station.
        name: Name => required;
        /// UCUM unit.
        unit: Ucum => optional;
        /// The metric's name, instead of `factory.tag.<name>`.
        metric: Metric => optional;
    }
}

section! {
    /// What happens to a tag's readings before they count, whatever its protocol.
    TreatOptions {
        /// The tag is not read but computed from others of its station, in CEL: `volts * amps`, `tags["zone-1"] > 80`.
        expression: Formula => optional;
        /// The value times this, such as `0.1`.
        scale: Real => optional;
        /// This is added to it, after `scale`.
        offset: Real => optional;
        /// Outside of it the value is its nearer end, and uncertain.
        clamp: Clamp => optional;
        /// Is told only if it differs by more than this from what was told last: a number, or `2%` of the span of `clamp`.
        deadband: Band => optional;
        /// Is told at most once in so long; the last value of an interval is told at its end.
        min_interval: Span<10, DAY> => optional;
        /// `true` tells only changes.
        on_change: Flag => default(false);
        /// Leaves out what lies on a straight line.
        compress: Compress => optional;
        /// Is bad when nothing came for so long though the link stands.
        max_age: Span<100, { 366 * DAY }> => optional;
    }
}

section! {
    /// The range of a value.
    Clamp {
        /// The least.
        min: Real => required;
        /// The greatest.
        max: Real => required;
    }
}

section! {
    /// Swinging-door compression.
    Compress {
        /// How far a reading that is left out may lie from the straight line between its kept neighbours.
        deviation: Real => required;
        /// One is kept at least so often.
        max_gap: Span<SECOND, DAY> => default("60s");
    }
}

/// A station; what its source and tags may say depends on the source's `type`.
#[derive(Debug)]
pub(super) enum Station {
    Modbus(Box<StationOf<Modbus>>),
    Opcua(Box<StationOf<Opcua>>),
    Mqtt(Box<StationOf<Mqtt>>),
    Gpio(Box<StationOf<Gpio>>),
}

impl Shape for Station {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let Some(source) = node.get("source") else {
            node.wrong(report, "the key `source` is missing");
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
            Protocol::Modbus => Self::Modbus(Box::new(StationOf::read(node, report)?)),
            Protocol::Opcua => Self::Opcua(Box::new(StationOf::read(node, report)?)),
            Protocol::Mqtt => Self::Mqtt(Box::new(StationOf::read(node, report)?)),
            Protocol::Gpio => Self::Gpio(Box::new(StationOf::read(node, report)?)),
        })
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["source"],
            "properties": {
                "source": { "type": "object", "required": ["type"], "properties": { "type": <OneOf<Protocol> as Shape>::schema() } },
            },
            // An editor then complains about the protocol that was meant, not about all of them.
            "allOf": [when::<Modbus>(), when::<Opcua>(), when::<Mqtt>(), when::<Gpio>()],
        })
    }
}

fn when<P: Speaks>() -> Value {
    let source = json!({ "required": ["type"], "properties": { "type": { "const": P::PROTOCOL.word() } } });
    json!({ "if": { "required": ["source"], "properties": { "source": source } }, "then": StationOf::<P>::schema() })
}

section! {
    /// Which tags tell what the station works on, at least one. The stay of each serial becomes a span.
    Context {
        /// The unit; empty text and the number 0 stand for nobody. Without it there are no visits.
        serial: ContextTag => optional;
        /// What it is.
        product: ContextTag => optional;
        /// Which lot it belongs to.
        lot: ContextTag => optional;
        /// Which order the lot is for.
        order: ContextTag => optional;
    }
}

section! {
    /// A tag that tells what the station works on.
    ContextTag {
        /// One of the station's tags.
        tag: Name => required;
    }
}

/// Gives each station that says nothing of tags an empty list of them.
pub(super) fn have_tags(root: &mut Node) {
    let Some(Kind::List(stations)) = root.get_mut("stations").map(|stations| &mut stations.kind) else { return };
    for station in stations {
        if station.get("tags").is_none() {
            let none = Node { kind: Kind::List(Vec::new()), ..absent(station, "tags") };
            station.put("tags", none);
        }
    }
}

/// An empty section in place of one that was left out, so that its defaults apply.
pub(super) fn absent(root: &Node, key: &str) -> Node {
    Node::new(root.place.clone(), key.into(), Kind::Map(Vec::new()), false)
}
