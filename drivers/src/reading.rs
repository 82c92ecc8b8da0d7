//! What a driver says about one tag at one instant.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Time;

/// A tag, by its place in the configuration. Interned at start-up: the hot path never sees a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TagId(pub u32);

impl TagId {
    /// For indexing tables that hold one entry a tag.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tag's value. `Null` goes with bad validity: nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// On or off; 1 and 0 in telemetry.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number, always finite: NaN and infinity are bad readings.
    Float(f64),
    /// Text, or an enumeration's name.
    Text(Arc<str>),
}

impl Value {
    /// The value as a number, as counters and telemetry take it; `None` for text and null.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Bool(on) => Some(f64::from(u8::from(on))),
            #[expect(clippy::cast_precision_loss, reason = "counters stay below 2^53")]
            Self::Int(whole) => Some(whole as f64),
            Self::Float(real) => Some(real),
            Self::Null | Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(on) => on.fmt(f),
            Self::Int(whole) => whole.fmt(f),
            Self::Float(real) => real.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Whether a value may be believed: OPC UA's data quality, for every protocol.
///
/// Called validity throughout, since "quality" means good parts here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Validity {
    /// The device vouches for it.
    #[default]
    Good,
    /// There is a value, with doubts.
    Uncertain(Status),
    /// There is none.
    Bad(Status),
}

impl Validity {
    /// `good`, `uncertain` or `bad`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Uncertain(_) => "uncertain",
            Self::Bad(_) => "bad",
        }
    }

    /// Why it is not good.
    #[must_use]
    pub fn status(self) -> Option<Status> {
        match self {
            Self::Good => None,
            Self::Uncertain(status) | Self::Bad(status) => Some(status),
        }
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Bad(_))
    }

    /// Whether gemba says it itself for want of word from the device: a lost link, its own downtime, silence.
    #[must_use]
    pub fn is_mark(self) -> bool {
        use OwnStatus::{AgentDown, LinkLost, NoAnswer, Stale};
        matches!(self, Self::Bad(Status::Own(AgentDown | LinkLost | NoAnswer | Stale)))
    }
}

/// Why a value is not good: the protocol's own code, or gemba's when the protocol said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// An OPC UA status code (OPC 10000-4, 7.39; names from OPC 10000-6, A.2).
    Opcua(u32),
    /// A Modbus exception code (Modbus Application Protocol V1.1b3, section 7).
    Modbus(u8),
    /// Something gemba saw itself.
    Own(OwnStatus),
}

/// What gemba itself finds wrong with a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum OwnStatus {
    /// The link to the device broke; dated from the last proof of life.
    LinkLost = 1,
    /// The agent itself was not running; dated from its last proof of life.
    AgentDown = 2,
    /// The payload lacks a tag that is `required`.
    PathNotFound = 3,
    /// The value's type does not fit the tag's use: text for a counter, an array for a number.
    WrongType = 4,
    /// NaN or infinity.
    NotFinite = 5,
    /// The device answered with fewer or more data than were asked for.
    WrongLength = 6,
    /// Nothing has come yet.
    NoData = 7,
    /// Read from a record that gave no reason.
    Unspecified = 8,
    /// The payload should say when its values came to be, and does not: the time received counts.
    NoSourceTime = 9,
    /// The peer does not let us have it: a topic that we may not subscribe to.
    Refused = 10,
    /// The device behind the link does not answer, while others on the link do.
    NoAnswer = 11,
    /// Nothing came for longer than the tag's `max_age`, though the link stands.
    Stale = 12,
    /// The source's clock is further from the gateway's than `max_clock_skew`: the time received counts.
    ClockSkew = 13,
    /// The gateway's own clock was not synchronised yet.
    ClockUnsynchronised = 14,
    /// The value lay outside `clamp`, and is its nearer end.
    Clamped = 15,
    /// The tag's expression could not be evaluated.
    ExpressionFailed = 16,
    /// The publisher said that it, or its device, is gone (Sparkplug NDEATH, DDEATH).
    Dead = 17,
    /// The bytes do not hold what the tag's type asks for: digits that are no BCD, text that is no text.
    Undecodable = 18,
    /// Messages of the Sparkplug node are missing, and among them may be a birth that gave this alias to another metric.
    Unborn = 19,
    /// The broker retained it without a time of its own: nobody knows how old it is, and the tag has a `max_age`.
    Retained = 20,
}

impl Status {
    /// The protocol's number for it.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Opcua(code) => code,
            Self::Modbus(code) => u32::from(code),
            Self::Own(own) => own as u32,
        }
    }

    /// The protocol's name for it, e.g. `BadNodeIdUnknown`, `IllegalDataAddress`, `LinkLost`.
    #[must_use]
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Opcua(code) => opcua_name(code),
            Self::Modbus(code) => match MODBUS.iter().find(|(known, _)| *known == code) {
                Some(&(_, name)) => name.into(),
                None => format!("{MODBUS_OTHER}{code}").into(),
            },
            Self::Own(own) => own.name().into(),
        }
    }

    /// The status of that [`Status::name`]; none if no protocol has it. The name of an OPC UA code leaves its flags out.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let own = OwnStatus::ALL.into_iter().find(|own| own.name() == name).map(Self::Own);
        let modbus = || {
            let known = MODBUS.iter().find(|(_, known)| *known == name).map(|&(code, _)| code);
            known.or_else(|| name.strip_prefix(MODBUS_OTHER)?.parse().ok()).map(Self::Modbus)
        };
        let opcua = || {
            let unknown = || name.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
            opcua_code(name).or_else(unknown).map(Self::Opcua)
        };
        own.or_else(modbus).or_else(opcua).filter(|status| status.name() == name)
    }

    /// Whose code it is: `opcua`, `modbus` or `gemba`.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Opcua(_) => "opcua",
            Self::Modbus(_) => "modbus",
            Self::Own(_) => "gemba",
        }
    }
}

/// Modbus Application Protocol V1.1b3, section 7.
const MODBUS: [(u8, &str); 9] = [
    (1, "IllegalFunction"),
    (2, "IllegalDataAddress"),
    (3, "IllegalDataValue"),
    (4, "ServerDeviceFailure"),
    (5, "Acknowledge"),
    (6, "ServerDeviceBusy"),
    (8, "MemoryParityError"),
    (10, "GatewayPathUnavailable"),
    (11, "GatewayTargetDeviceFailedToRespond"),
];

/// What codes that the specification lacks are called, before their number.
const MODBUS_OTHER: &str = "Exception";

impl OwnStatus {
    const ALL: [Self; 20] = [
        Self::LinkLost,
        Self::AgentDown,
        Self::PathNotFound,
        Self::WrongType,
        Self::NotFinite,
        Self::WrongLength,
        Self::NoData,
        Self::Unspecified,
        Self::NoSourceTime,
        Self::Refused,
        Self::NoAnswer,
        Self::Stale,
        Self::ClockSkew,
        Self::ClockUnsynchronised,
        Self::Clamped,
        Self::ExpressionFailed,
        Self::Dead,
        Self::Undecodable,
        Self::Unborn,
        Self::Retained,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::LinkLost => "LinkLost",
            Self::AgentDown => "AgentDown",
            Self::PathNotFound => "PathNotFound",
            Self::WrongType => "WrongType",
            Self::NotFinite => "NotFinite",
            Self::WrongLength => "WrongLength",
            Self::NoData => "NoData",
            Self::Unspecified => "Unspecified",
            Self::NoSourceTime => "NoSourceTime",
            Self::Refused => "Refused",
            Self::NoAnswer => "NoAnswer",
            Self::Stale => "Stale",
            Self::ClockSkew => "ClockSkew",
            Self::ClockUnsynchronised => "ClockUnsynchronised",
            Self::Clamped => "Clamped",
            Self::ExpressionFailed => "ExpressionFailed",
            Self::Dead => "Dead",
            Self::Undecodable => "Undecodable",
            Self::Unborn => "Unborn",
            Self::Retained => "Retained",
        }
    }
}

#[cfg(feature = "opcua")]
fn opcua_name(code: u32) -> Cow<'static, str> {
    use opcua::types::status_code::SubStatusCode;
    match SubStatusCode::from_value(code & 0xFFFF_0000) {
        Some(known) if known != SubStatusCode::Invalid => known.name().into(),
        _ => format!("0x{code:08X}").into(),
    }
}

#[cfg(not(feature = "opcua"))]
fn opcua_name(code: u32) -> Cow<'static, str> {
    format!("0x{code:08X}").into()
}

#[cfg(feature = "opcua")]
fn opcua_code(name: &str) -> Option<u32> {
    use opcua::types::status_code::SubStatusCode;
    name.parse().ok().map(|known: SubStatusCode| known as u32)
}

#[cfg(not(feature = "opcua"))]
fn opcua_code(_: &str) -> Option<u32> {
    None
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// One value of one tag, with both times and its validity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which tag.
    pub tag: TagId,
    /// [`Value::Null`] exactly when the validity is bad.
    pub value: Value,
    /// Whether it may be believed.
    pub validity: Validity,
    /// When the device says the value came to be; the time received where it says nothing.
    pub source_time: Time,
    /// When the gateway got it.
    pub received_time: Time,
    /// Read from the source's history after a gap, not told as it happened (decision 0007).
    pub backfilled: bool,
}

impl Reading {
    /// A good reading. A float that is not finite becomes a bad one.
    #[must_use]
    pub fn good(tag: TagId, value: Value, source_time: Time, received_time: Time) -> Self {
        if matches!(value, Value::Float(real) if !real.is_finite()) {
            return Self::bad(tag, Status::Own(OwnStatus::NotFinite), source_time, received_time);
        }
        Self { tag, value, validity: Validity::Good, source_time, received_time, backfilled: false }
    }

    /// A bad reading: no value, and why.
    #[must_use]
    pub fn bad(tag: TagId, status: Status, source_time: Time, received_time: Time) -> Self {
        Self { tag, value: Value::Null, validity: Validity::Bad(status), source_time, received_time, backfilled: false }
    }

    /// The same, from history.
    #[must_use]
    pub fn from_history(self) -> Self {
        Self { backfilled: true, ..self }
    }
}

#[cfg(all(test, feature = "opcua"))]
mod tests {
    use super::*;

    #[test]
    fn opcua_codes_have_the_names_of_the_specification() {
        let names = [
            (0x0000_0000, "Good"),
            (0x8034_0000, "BadNodeIdUnknown"),
            (0x4090_0000, "UncertainLastUsableValue"),
            (0x808A_0000, "BadNotConnected"),
            (0x8031_0000, "BadNoCommunication"),
            // Flags in the low bits (limits, overflow) are no part of the name.
            (0x4090_0480, "UncertainLastUsableValue"),
            // A code that a later specification or a vendor added.
            (0x8FFE_0000, "0x8FFE0000"),
        ];
        for (code, name) in names {
            assert_eq!(Status::Opcua(code).name(), name, "{code:#010X}");
            assert_eq!(Status::Opcua(code).to_string(), name);
            assert_eq!(Status::Opcua(code).code(), code);
        }
    }

    #[test]
    fn names_lead_back_to_their_status() {
        let opcua = [0, 0x8034_0000, 0x4090_0000, 0x808A_0000, 0x8FFE_0000].map(Status::Opcua);
        let modbus = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 255].map(Status::Modbus);
        for status in OwnStatus::ALL.map(Status::Own).into_iter().chain(modbus).chain(opcua) {
            assert_eq!(Status::from_name(&status.name()), Some(status), "{status}");
        }
        assert_eq!(Status::from_name("UncertainLastUsableValue"), Some(Status::Opcua(0x4090_0000)));
        for stranger in ["", "Invalid", "badnodeidunknown", "Exception", "Exception256", "0x", "0x+8340000", "-1"] {
            assert_eq!(Status::from_name(stranger), None, "{stranger}");
        }
    }
}
