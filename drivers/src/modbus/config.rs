//! What a Modbus link is told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use crate::TagId;

/// One link: an endpoint with everything polled behind it. Stations that name the same endpoint
/// share it, whatever their unit.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the device, gateway or bus is.
    pub endpoint: Endpoint,
    /// How long a connect may take.
    pub timeout: Duration,
    /// What the bus rests between two requests, beside the silence that RTU asks for.
    pub pause: Duration,
    /// One a station and interval.
    pub groups: Vec<Group>,
}

/// What one station polls at one interval.
#[derive(Clone, Debug)]
pub struct Group {
    /// The station, for logs and losses.
    pub station: Arc<str>,
    /// The unit identifier (1 to 247, or 255 for the TCP device itself).
    pub unit: u8,
    /// How often.
    pub poll: Duration,
    /// How long the unit may take to answer one request.
    pub timeout: Duration,
    /// How requests are put together.
    pub limits: Limits,
    /// What.
    pub tags: Vec<Tag>,
}

/// How many registers a request takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many registers nobody asked for are read along rather than made into a second request; of bits 16 times as many,
    /// which are as many bytes. They cost 2 bytes each; a request costs 24 bytes of headers and, above all, a turn of the
    /// device's own cycle, often 1 to 10 ms. A device that has no registers in the gap refuses, and the read is split.
    pub max_gap: u16,
    /// The most registers in one request, 1 to 125; of bits 16 times as many. Some devices take fewer than the protocol allows.
    pub max_registers: u16,
}

impl Default for Limits {
    /// 16 in a gap; 125 in all (Modbus Application Protocol V1.1b3, 6.3).
    fn default() -> Self {
        Self { max_gap: 16, max_registers: 125 }
    }
}

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its place in the configuration.
    pub id: TagId,
    /// Where its first register or bit is.
    pub address: Address,
    /// How its registers are read.
    pub data_type: DataType,
    /// In which order its bytes come.
    pub order: Order,
    /// Of a [`DataType::Text`], how many bytes it has; of no use otherwise.
    pub length: u16,
}

impl Tag {
    /// High word first, high byte first.
    #[must_use]
    pub fn new(id: TagId, address: Address, data_type: DataType) -> Self {
        Self { id, address, data_type, order: Order::default(), length: 0 }
    }

    /// How many registers (or bits, of the bit tables) it takes.
    #[must_use]
    pub fn width(&self) -> u16 {
        match self.data_type {
            _ if self.address.table.is_bits() => 1,
            DataType::Bool | DataType::U16 | DataType::I16 | DataType::Bcd16 => 1,
            DataType::U32 | DataType::I32 | DataType::F32 | DataType::Bcd32 => 2,
            DataType::U64 | DataType::I64 | DataType::F64 => 4,
            DataType::Text => self.length.div_ceil(2).max(1),
        }
    }
}

/// Zero-based PDU address in one of the four tables (Modbus Application Protocol V1.1b3, 4.3): `holding:0`; of one bit in a
/// register `holding:5.3`, 0 being the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Which table.
    pub table: Table,
    /// Zero-based.
    pub offset: u16,
    /// One bit of the register, 0 to 15.
    pub bit: Option<u8>,
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

/// How registers become a value.
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
    /// One register, a decimal digit in each four bits.
    Bcd16,
    /// Two registers, a decimal digit in each four bits.
    Bcd32,
    /// As many registers as hold [`Tag::length`] bytes of UTF-8 (so ASCII too); what trails of NUL and space is no part of it.
    Text,
}

/// In which order the bytes of a value come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Order {
    /// Which word of several comes first. Text runs through its registers as they come.
    pub words: First,
    /// Which byte of a word comes first.
    pub bytes: First,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum First {
    /// The high one, as the Modbus specification has it for bytes.
    #[default]
    Big,
    /// The low one.
    Little,
}

impl Order {
    /// All four, by the letters that manuals give them: where the bytes A (highest) to D stand.
    pub const ALL: [(&'static str, Self); 4] = [
        ("ABCD", Self { words: First::Big, bytes: First::Big }),
        ("CDAB", Self { words: First::Little, bytes: First::Big }),
        ("BADC", Self { words: First::Big, bytes: First::Little }),
        ("DCBA", Self { words: First::Little, bytes: First::Little }),
    ];

    /// Its letters.
    #[must_use]
    pub fn letters(self) -> &'static str {
        Self::ALL.iter().find(|(_, order)| *order == self).map_or("ABCD", |(letters, _)| letters)
    }
}

impl DataType {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 12] =
        ["bool", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32", "string"];

    /// Its spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The most that a BCD of this type can say; `None` of another type.
    #[must_use]
    pub fn bcd_most(self) -> Option<u32> {
        match self {
            Self::Bcd16 => Some(9_999),
            Self::Bcd32 => Some(99_999_999),
            _ => None,
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
            "bcd16" => Self::Bcd16,
            "bcd32" => Self::Bcd32,
            "string" => Self::Text,
            _ => return Err(format!("`{text}` is no Modbus data type; one of {}", Self::NAMES.join(", "))),
        })
    }
}

impl Table {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 4] = ["holding", "input", "coil", "discrete"];
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Holding, Self::Input, Self::Coil, Self::Discrete];

    /// Whether it holds bits, not registers.
    #[must_use]
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The function code that reads it. Nothing here has another.
    #[must_use]
    pub fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Its spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Holding => "holding",
            Self::Input => "input",
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, place) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` is no Modbus address; write it as `holding:0` (zero-based)"))?;
        let table = Table::ALL
            .into_iter()
            .find(|known| known.name() == table)
            .ok_or_else(|| format!("`{table}` is no Modbus table; one of {}", Table::NAMES.join(", ")))?;
        let (offset, bit) = match place.split_once('.') {
            Some((offset, bit)) => (offset, Some(bit)),
            None => (place, None),
        };
        let offset =
            digits(offset).ok_or_else(|| format!("`{offset}` is no register; a whole number from 0 to 65535"))?;
        let bit = match bit {
            None => None,
            Some(_) if table.is_bits() => {
                return Err(format!(
                    "`{text}`: a {} is one bit already; write `{}:{offset}`",
                    table.name(),
                    table.name()
                ));
            }
            Some(bit) => match digits(bit) {
                Some(bit @ 0..=15) => Some(bit),
                _ => return Err(format!("`{text}`: `{bit}` is no bit of a register; 0 (the lowest) to 15")),
            },
        };
        Ok(Self { table, offset, bit })
    }
}

/// A number's own parser takes `+1` too.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table.name(), self.offset)?;
        self.bit.map_or(Ok(()), |bit| write!(f, ".{bit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        for text in ["holding:0", "input:65535", "coil:3", "discrete:7", "holding:5.0", "input:9.15"] {
            assert_eq!(text.parse::<Address>().expect("an address").to_string(), text);
        }
        for (text, why) in [
            ("holding:5.16", "`holding:5.16`: `16` is no bit of a register; 0 (the lowest) to 15"),
            ("holding:5.", "`holding:5.`: `` is no bit of a register; 0 (the lowest) to 15"),
            ("holding:5.+1", "`holding:5.+1`: `+1` is no bit of a register; 0 (the lowest) to 15"),
            ("coil:5.1", "`coil:5.1`: a coil is one bit already; write `coil:5`"),
            ("holding:65536", "`65536` is no register; a whole number from 0 to 65535"),
            ("holdings:1", "`holdings` is no Modbus table; one of holding, input, coil, discrete"),
        ] {
            assert_eq!(text.parse::<Address>(), Err(why.to_owned()));
        }
    }

    #[test]
    fn every_type_is_called_as_it_is_spelt() {
        for name in DataType::NAMES {
            assert_eq!(name.parse::<DataType>().map(DataType::name), Ok(name));
        }
    }
}
