//! What a Modbus link is told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::TagId;

/// One link: an endpoint with everything polled behind it. Stations that name the same endpoint
/// share it, whatever their unit.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the device or gateway is.
    pub endpoint: Endpoint,
    /// How long one request may take, and how long a connect may take.
    pub timeout: Duration,
    /// One a station.
    pub groups: Vec<Group>,
}

/// What one station polls.
#[derive(Clone, Debug)]
pub struct Group {
    /// The station, for logs and losses.
    pub station: Arc<str>,
    /// The unit identifier (1 to 247, or 255 for the TCP device itself).
    pub unit: u8,
    /// How often.
    pub poll: Duration,
    /// What.
    pub tags: Vec<Tag>,
}

/// One tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// Its place in the configuration.
    pub id: TagId,
    /// Where its first register or bit is.
    pub address: Address,
    /// How its registers are read.
    pub data_type: DataType,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `tcp://host:port`, Modbus TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// 502 unless said.
        port: u16,
    },
}

/// Zero-based PDU address in one of the four tables (Modbus Application Protocol V1.1b3, 4.3): `holding:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Which table.
    pub table: Table,
    /// Zero-based.
    pub offset: u16,
}

/// The four tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Read-write bits, function code 1.
    Coil,
    /// Read-only bits, function code 2.
    Discrete,
    /// Read-write registers, function code 3.
    Holding,
    /// Read-only registers, function code 4.
    Input,
}

/// How registers become a value. High word first, high byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// One bit, or a register that is not zero.
    Bool,
    /// One register.
    U16,
    /// One register, two's complement.
    I16,
    /// Two registers.
    U32,
    /// Two registers, two's complement.
    I32,
    /// Four registers; above 2^63 it becomes a float.
    U64,
    /// Four registers, two's complement.
    I64,
    /// Two registers, IEEE 754.
    F32,
    /// Four registers, IEEE 754.
    F64,
}

impl DataType {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 9] = ["bool", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"];

    /// How many registers (or bits, for the bit tables) it takes.
    #[must_use]
    pub fn width(self) -> u16 {
        match self {
            Self::Bool | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
        }
    }
}

impl FromStr for DataType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "bool" => Self::Bool,
            "u16" => Self::U16,
            "i16" => Self::I16,
            "u32" => Self::U32,
            "i32" => Self::I32,
            "u64" => Self::U64,
            "i64" => Self::I64,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return Err(format!("`{text}` is no Modbus data type; one of {}", Self::NAMES.join(", "))),
        })
    }
}

impl Table {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 4] = ["holding", "input", "coil", "discrete"];

    /// Whether it holds bits, not registers.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, offset) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` is no Modbus address; write it as `holding:0` (zero-based)"))?;
        let table = match table {
            "coil" => Table::Coil,
            "discrete" => Table::Discrete,
            "holding" => Table::Holding,
            "input" => Table::Input,
            _ => return Err(format!("`{table}` is no Modbus table; one of {}", Table::NAMES.join(", "))),
        };
        let digits = offset.bytes().all(|byte| byte.is_ascii_digit()); // a number's own parser takes `+1` too
        match offset.parse() {
            Ok(offset) if digits => Ok(Self { table, offset }),
            _ => Err(format!("`{offset}` is no register; a whole number from 0 to 65535")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.table {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Holding => "holding",
            Table::Input => "input",
        };
        write!(f, "{table}:{}", self.offset)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("tcp://").ok_or_else(|| {
            if text.starts_with("rtu://") || text.starts_with("rtu+tcp://") {
                format!("`{text}`: serial Modbus is not in this version yet; `tcp://host:port` is")
            } else {
                format!("`{text}` is no Modbus endpoint; write it as `tcp://host:502`")
            }
        })?;
        let (host, port) = crate::split_host_port(rest, 502)?;
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}
