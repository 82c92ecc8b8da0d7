//! Modbus: registers and bits of devices that share a connection.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::modbus;
use gemba_drivers::modbus::DataType;
use serde_json::{Value, json};

use super::{Known, Protocol, Speaks, Wire, endpoint, host_is_sane};
use crate::config::error::Report;
use crate::config::raw::StationOf;
use crate::config::resolve::{Agreed, Links, TagFacts, Told};
use crate::config::section::{Leaf, join, section};
use crate::config::suggest;
use crate::config::tree::Scalar;
use crate::config::units::{HOUR, SECOND, Span};
use crate::config::words::{OneOf, Whole, Word};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Modbus;

impl Word for DataType {
    const WHAT: &'static str = "Modbus data type";
    const FORM: &'static str = "a Modbus data type such as `u16` or `f32`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::NAMES.into_iter().filter_map(|name| Some((name, name.parse().ok()?))).collect()
    }
}

/// A Modbus register or bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Address(pub(in crate::config) modbus::Address);

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
pub(in crate::config) struct Endpoint(pub(in crate::config) modbus::Endpoint);

impl Leaf for Endpoint {
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

section! {
    /// A Modbus TCP device or gateway. Stations that name the same endpoint share one connection, whatever their unit.
    ModbusSource {
        /// The protocol.
        r#type: Known => required;
        /// `tcp://host:port`; the port is 502 unless said.
        endpoint: Endpoint => required;
        /// The unit identifier: 1 to 247, or 255 for the device itself.
        unit: Whole<1, 255> => default(1);
        /// How often the tags are read.
        poll: Span<10, HOUR> => default("1s");
        /// How long a connect or one request may take.
        timeout: Span<10, { 300 * SECOND }> => default("2s");
    }
}

section! {
    /// A Modbus register or bit.
    ModbusTag {
        /// Its first register or bit, counted from zero: `holding:0`, `input:10`, `coil:3`, `discrete:7`.
        address: Address => required;
        /// How its registers are read, high word first; needed for registers, always `bool` for coils and discrete inputs.
        r#as: OneOf<DataType> => optional;
    }
}

impl Speaks for Modbus {
    const PROTOCOL: Protocol = Protocol::Modbus;
    type Source = ModbusSource;
    type Tag = ModbusTag;

    /// Bits are always `bool`.
    fn data_type(tag: &ModbusTag) -> Option<DataType> {
        let bits = tag.address.as_ref().is_some_and(|address| address.value.0.table.is_bits());
        tag.r#as.as_ref().map(|data_type| data_type.0).or(bits.then_some(DataType::Bool))
    }

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let tags = tags(station, told.facts, report);
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        if let Some(unit) = source.unit.as_ref().filter(|unit| (248..=254).contains(&unit.0)) {
            unit.wrong(
                report,
                format!("`{}` is a reserved unit identifier; 1 to 247, or 255 for the device itself", unit.shown),
            );
        }
        let written = source.endpoint.as_ref()?;
        let endpoint = lower(&written.0);
        let same = |wire: &Wire| matches!(wire, Wire::Modbus(draft) if lower(&draft.config.endpoint) == endpoint);
        let index = links.join(told.who, written, &endpoint, same, || Wire::Modbus(Draft::new(written.0.clone())));
        let Wire::Modbus(draft) = links.wire(index) else { return None };
        draft.timeout.say(told.who, &source.timeout, |time| time.0, report);
        draft.config.groups.push(modbus::Group {
            station: Arc::clone(&told.who.name),
            unit: u8::try_from(source.unit.as_ref()?.0).ok()?,
            poll: source.poll.as_ref()?.0,
            tags,
        });
        Some(index)
    }
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: modbus::Config,
    timeout: Agreed<Duration>,
}

impl Draft {
    fn new(endpoint: modbus::Endpoint) -> Self {
        Self {
            config: modbus::Config { endpoint, timeout: Duration::ZERO, groups: Vec::new() },
            timeout: Agreed::nobody(Duration::ZERO),
        }
    }

    pub(super) fn finish(self) -> modbus::Config {
        modbus::Config { timeout: self.timeout.value, ..self.config }
    }
}

/// What the driver reads for a Modbus station.
fn tags(station: &StationOf<Modbus>, facts: &[TagFacts], report: &mut Report) -> Vec<modbus::Tag> {
    let mut tags = Vec::with_capacity(facts.len());
    for (tag, facts) in station.tags.iter().flat_map(|tags| &tags.value).zip(facts) {
        let options = &tag.value.own;
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

fn lower(endpoint: &modbus::Endpoint) -> modbus::Endpoint {
    let modbus::Endpoint::Tcp { host, port } = endpoint;
    modbus::Endpoint::Tcp { host: host.to_lowercase(), port: *port }
}
