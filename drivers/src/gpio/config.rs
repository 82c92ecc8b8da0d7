//! What a link to the gateway's own pins and buses is told.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::TagId;

/// One chip of lines, with the converters that its stations name beside it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The chip's character device, `/dev/gpiochip0`.
    pub chip: PathBuf,
    /// One a station.
    pub stations: Vec<Station>,
    /// What may be written to; nothing else ever is.
    pub outputs: Vec<Output>,
    /// Analogue-to-digital converters, each once.
    pub devices: Vec<Device>,
}

/// What one station reads.
#[derive(Clone, Debug)]
pub struct Station {
    /// Its name, for logs and losses.
    pub name: Arc<str>,
    /// How often channels are read, and lines looked at.
    pub poll: Duration,
    /// Tags read from lines.
    pub inputs: Vec<Input>,
    /// Tags read from converters.
    pub channels: Vec<Channel>,
}

/// A tag that is a digital input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its place in the configuration.
    pub id: TagId,
    /// Its name, for whoever has to mend it.
    pub name: Arc<str>,
    /// Which line.
    pub line: Line,
    /// How the line is set up. Tags of one line say the same.
    pub setup: Setup,
    /// Which edges are counted; without it the tag is the level.
    pub count: Option<Edges>,
}

/// How an input line is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Setup {
    /// Whether low is on.
    pub active_low: bool,
    /// The resistor in the chip; as the firmware left it unless said.
    pub bias: Option<Bias>,
    /// How long a level stands before it counts; zero takes every edge.
    pub debounce: Duration,
}

/// A digital output.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name, for whatever switches it.
    pub name: Arc<str>,
    /// Which line.
    pub line: Line,
    /// Whether low is on.
    pub active_low: bool,
}

/// A tag that is a channel of a converter.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its place in the configuration.
    pub id: TagId,
    /// Index into [`Config::devices`].
    pub device: usize,
    /// What is measured.
    pub pins: Pins,
    /// The ADS1x15's amplifier; of no meaning for an MCP3xxx.
    pub range: Range,
}

/// A line of the chip.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// By its number on the chip.
    Offset(u32),
    /// By the name that the board's device tree gives it.
    Name(Arc<str>),
}

impl FromStr for Line {
    type Err = String;

    /// Digits are a number, whatever quotes they stand in.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(format!("`{}` is no line of a GPIO chip; write `17`, or its name", text.escape_debug()));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let offset =
                text.parse().map_err(|_| format!("`{text}` is no line of a GPIO chip: the number is too large"))?;
            return Ok(Self::Offset(offset));
        }
        if text.len() > 31 {
            return Err(format!("`{text}` is no line of a GPIO chip: the kernel's names have at most 31 bytes"));
        }
        Ok(Self::Name(text.into()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => write!(f, "line {offset}"),
            Self::Name(name) => write!(f, "line `{name}`"),
        }
    }
}

/// A resistor in the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bias {
    /// To the supply: an open contact reads high.
    PullUp,
    /// To ground: an open contact reads low.
    PullDown,
    /// None.
    Disabled,
}

/// Edges of a line, as it is on or off: with `active_low` a rising edge is a fall of the voltage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Edges {
    /// Off to on.
    Rising,
    /// On to off.
    Falling,
    /// Either.
    Both,
}

impl Edges {
    /// Whether an edge that leads to `level` is one of these.
    #[must_use]
    pub fn include(self, level: bool) -> bool {
        match self {
            Self::Rising => level,
            Self::Falling => !level,
            Self::Both => true,
        }
    }
}

/// An analogue-to-digital converter.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Where it is.
    pub bus: Bus,
    /// What it is.
    pub model: Model,
    /// The voltage of its full scale; only an MCP3xxx has one from outside.
    pub reference: f64,
}

/// Where a converter is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bus {
    /// On an I²C bus: `/dev/i2c-1`, at a 7-bit address.
    I2c(PathBuf, u8),
    /// On an SPI bus with a chip select of its own: `/dev/spidev0.0`.
    Spi(PathBuf),
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I2c(bus, address) => write!(f, "{} at 0x{address:02x}", bus.display()),
            Self::Spi(bus) => bus.display().fmt(f),
        }
    }
}

/// The converters that are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// I²C, 12 bits, 4 inputs (TI SBAS473E).
    Ads1015,
    /// I²C, 16 bits, 4 inputs (TI SBAS444D).
    Ads1115,
    /// SPI, 10 bits, 4 inputs (Microchip DS21295D).
    Mcp3004,
    /// SPI, 10 bits, 8 inputs (Microchip DS21295D).
    Mcp3008,
    /// SPI, 12 bits, 4 inputs (Microchip DS21298E).
    Mcp3204,
    /// SPI, 12 bits, 8 inputs (Microchip DS21298E).
    Mcp3208,
}

impl Model {
    /// How many inputs it has.
    #[must_use]
    pub fn inputs(self) -> u8 {
        match self {
            Self::Mcp3008 | Self::Mcp3208 => 8,
            Self::Ads1015 | Self::Ads1115 | Self::Mcp3004 | Self::Mcp3204 => 4,
        }
    }

    /// Whether it is on I²C, with amplifiers of its own; otherwise it is on SPI, with a reference from outside.
    #[must_use]
    pub fn is_ads(self) -> bool {
        matches!(self, Self::Ads1015 | Self::Ads1115)
    }

    /// Whether it can measure so.
    #[must_use]
    pub fn measures(self, pins: Pins) -> bool {
        match pins {
            Pins::Single(input) => input < self.inputs(),
            Pins::Between(plus, minus) if self.is_ads() => {
                matches!((plus, minus), (0, 1 | 3) | (1 | 2, 3))
            }
            Pins::Between(plus, minus) => plus < self.inputs() && plus ^ 1 == minus,
        }
    }
}

/// What of a converter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pins {
    /// An input against ground.
    Single(u8),
    /// The first input against the second.
    Between(u8, u8),
}

impl FromStr for Pins {
    type Err = String;

    /// `0`, or `0-1` for the difference.
    fn from_str(text: &str) -> Result<Self, String> {
        let input = |text: &str| match text.as_bytes() {
            [digit @ b'0'..=b'9'] => Ok(digit - b'0'),
            _ => Err(format!("`{text}` is no input of a converter; a digit from 0")),
        };
        match text.split_once('-') {
            None => input(text).map(Self::Single),
            Some((plus, minus)) => Ok(Self::Between(input(plus)?, input(minus)?)),
        }
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(input) => input.fmt(f),
            Self::Between(plus, minus) => write!(f, "{plus}-{minus}"),
        }
    }
}

/// What an ADS1x15 takes for full scale, to both sides of zero. Its inputs never stand more than its supply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Range {
    /// ±6.144 V.
    V6_144,
    /// ±4.096 V, which holds all that a supply of 3.3 V allows.
    #[default]
    V4_096,
    /// ±2.048 V.
    V2_048,
    /// ±1.024 V.
    V1_024,
    /// ±0.512 V.
    V0_512,
    /// ±0.256 V.
    V0_256,
}

impl Range {
    /// Every range, with its spelling.
    pub const ALL: [(&'static str, Self); 6] = [
        ("6.144V", Self::V6_144),
        ("4.096V", Self::V4_096),
        ("2.048V", Self::V2_048),
        ("1.024V", Self::V1_024),
        ("0.512V", Self::V0_512),
        ("0.256V", Self::V0_256),
    ];

    /// Full scale in volts.
    #[must_use]
    pub fn volts(self) -> f64 {
        match self {
            Self::V6_144 => 6.144,
            Self::V4_096 => 4.096,
            Self::V2_048 => 2.048,
            Self::V1_024 => 1.024,
            Self::V0_512 => 0.512,
            Self::V0_256 => 0.256,
        }
    }
}
