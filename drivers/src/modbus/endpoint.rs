//! Where a Modbus bus is, and how its line is set.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

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
    /// `rtu+tcp://host:port`, RTU frames over TCP: a plain serial server.
    RtuOverTcp {
        /// Name or address.
        host: String,
        /// 502 unless said.
        port: u16,
    },
    /// `rtu:///dev/ttyS0?baud=19200&parity=even`, a serial line.
    Rtu {
        /// The device file.
        path: String,
        /// How it is set.
        line: Line,
    },
}

impl Endpoint {
    /// The same bus, whoever asks: host names without upper case, a serial line whatever its settings.
    #[must_use]
    pub fn bus(&self) -> Self {
        match self {
            Self::Tcp { host, port } => Self::Tcp { host: host.to_lowercase(), port: *port },
            Self::RtuOverTcp { host, port } => Self::RtuOverTcp { host: host.to_lowercase(), port: *port },
            Self::Rtu { path, .. } => Self::Rtu { path: path.clone(), line: Line::default() },
        }
    }
}

/// How a serial line is set. 8 data bits, as RTU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Bits a second.
    pub baud: u32,
    /// The parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

/// The parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parity {
    /// Even.
    Even,
    /// Odd.
    Odd,
    /// There is none.
    None,
}

impl Parity {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 3] = ["even", "odd", "none"];
}

impl Default for Line {
    /// 19200 8E1 (Modbus over Serial Line V1.02, 2.5.1 and 3.2).
    fn default() -> Self {
        Self { baud: 19_200, parity: Parity::Even, stop_bits: 1 }
    }
}

impl Line {
    /// Every setting, for help and suggestions.
    pub const KEYS: [&str; 4] = ["baud", "parity", "stop_bits", "data_bits"];

    /// `baud=19200&parity=even`; what is not said is as in [`Line::default`], but for the second stop bit that stands in for
    /// a missing parity bit (Modbus over Serial Line V1.02, 2.5.1).
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(query: &str) -> Result<Self, String> {
        let (mut line, mut stop_bits) = (Self::default(), None);
        let mut seen = Vec::new();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (key, value) =
                setting.split_once('=').ok_or_else(|| format!("`{setting}` sets nothing; write `baud=19200`"))?;
            if seen.contains(&key) {
                return Err(format!("`{key}` is set twice"));
            }
            seen.push(key);
            match (key, value) {
                ("baud", value) => {
                    let baud = value.parse().ok().filter(|baud| (300..=4_000_000).contains(baud));
                    line.baud =
                        baud.ok_or_else(|| format!("`{value}` is no baud rate; a whole number from 300 to 4000000"))?;
                }
                ("parity", "even") => line.parity = Parity::Even,
                ("parity", "odd") => line.parity = Parity::Odd,
                ("parity", "none") => line.parity = Parity::None,
                ("parity", _) => return Err(format!("`{value}` is no parity; `even`, `odd` or `none`")),
                ("stop_bits", "1") => stop_bits = Some(1),
                ("stop_bits", "2") => stop_bits = Some(2),
                ("stop_bits", _) => return Err(format!("`{value}` is no number of stop bits; 1 or 2")),
                ("data_bits", "8") => {}
                ("data_bits", _) => return Err(format!("RTU has 8 data bits, not `{value}`")),
                _ => return Err(format!("`{key}` is no setting of a serial line; one of {}", Self::KEYS.join(", "))),
            }
        }
        line.stop_bits = stop_bits.unwrap_or(if line.parity == Parity::None { 2 } else { 1 });
        Ok(line)
    }

    /// The silence that ends a frame: 3.5 characters of 11 bits, above 19200 baud 1.75 ms (Modbus over Serial Line V1.02,
    /// 2.5.1.1).
    #[must_use]
    pub fn silence(&self) -> Duration {
        if self.baud > 19_200 {
            return Duration::from_micros(1_750);
        }
        Duration::from_nanos(38_500_000_000 / u64::from(self.baud))
    }
}

impl fmt::Display for Line {
    /// `19200 8E1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::Even => 'E',
            Parity::Odd => 'O',
            Parity::None => 'N',
        };
        write!(f, "{} 8{parity}{}", self.baud, self.stop_bits)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, port) = crate::split_host_port(rest, 502)?;
            return Ok(Self::Tcp { host, port });
        }
        if let Some(rest) = text.strip_prefix("rtu+tcp://") {
            let (host, port) = crate::split_host_port(rest, 502)?;
            return Ok(Self::RtuOverTcp { host, port });
        }
        let rest = text.strip_prefix("rtu://").ok_or_else(|| {
            format!("`{text}` is no Modbus endpoint; write it as `tcp://host:502`, `rtu:///dev/ttyS0` or `rtu+tcp://host:502`")
        })?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err(format!("`{text}`: the device is a whole path; did you mean `rtu:///{path}`?"));
        }
        if path.ends_with('/') {
            return Err(format!("`{text}` names no device; write it as `rtu:///dev/ttyS0`"));
        }
        Ok(Self::Rtu { path: path.to_owned(), line: Line::parse(query)? })
    }
}

impl fmt::Display for Endpoint {
    /// Of a serial line only its path, which is what names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::RtuOverTcp { host, port } => ("rtu+tcp", host, port),
            Self::Rtu { path, .. } => return write!(f, "rtu://{path}"),
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        match text.parse() {
            Ok(Endpoint::Rtu { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_serial_line_is_19200_8e1_unless_said() {
        let all = "rtu:///dev/ttyUSB0?baud=9600&parity=odd&stop_bits=2&data_bits=8";
        assert_eq!(line(all).to_string(), "9600 8O2");
        for (query, shown) in [
            ("", "19200 8E1"),
            ("?", "19200 8E1"),
            ("?parity=none", "19200 8N2"),
            ("?parity=none&stop_bits=1", "19200 8N1"),
        ] {
            assert_eq!(line(&format!("rtu:///dev/ttyS0{query}")).to_string(), shown);
        }
    }

    #[test]
    fn mistakes_are_told_in_words() {
        for (text, why) in [
            ("rtu://dev/ttyS0", "`rtu://dev/ttyS0`: the device is a whole path; did you mean `rtu:///dev/ttyS0`?"),
            ("rtu:///dev/", "`rtu:///dev/` names no device; write it as `rtu:///dev/ttyS0`"),
            ("rtu:///dev/ttyS0?baud=fast", "`fast` is no baud rate; a whole number from 300 to 4000000"),
            ("rtu:///dev/ttyS0?baud", "`baud` sets nothing; write `baud=19200`"),
            ("rtu:///dev/ttyS0?baud=9600&baud=9600", "`baud` is set twice"),
            ("rtu:///dev/ttyS0?parity=E", "`E` is no parity; `even`, `odd` or `none`"),
            ("rtu:///dev/ttyS0?stop_bits=3", "`3` is no number of stop bits; 1 or 2"),
            ("rtu:///dev/ttyS0?data_bits=7", "RTU has 8 data bits, not `7`"),
            (
                "rtu:///dev/ttyS0?speed=9600",
                "`speed` is no setting of a serial line; one of baud, parity, stop_bits, data_bits",
            ),
            (
                "serial:///dev/ttyS0",
                "`serial:///dev/ttyS0` is no Modbus endpoint; write it as `tcp://host:502`, `rtu:///dev/ttyS0` or `rtu+tcp://host:502`",
            ),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(why.to_owned()));
        }
    }

    #[test]
    fn the_silence_is_three_and_a_half_characters_and_no_less_than_1750_us() {
        let silence = |baud| Line { baud, ..Line::default() }.silence();
        assert_eq!(silence(9_600), Duration::from_nanos(4_010_416));
        assert_eq!(silence(19_200), Duration::from_nanos(2_005_208));
        assert_eq!(silence(115_200), Duration::from_micros(1_750));
    }

    #[test]
    fn a_bus_is_the_same_whatever_its_settings() {
        let bus = |text: &str| text.parse::<Endpoint>().expect("an endpoint").bus();
        assert_eq!(bus("rtu:///dev/ttyS0?baud=9600"), bus("rtu:///dev/ttyS0"));
        assert_eq!(bus("rtu+tcp://PLC"), bus("rtu+tcp://plc:502"));
        assert_ne!(bus("rtu+tcp://plc"), bus("tcp://plc"));
        assert_eq!(bus("rtu:///dev/ttyS0?baud=9600").to_string(), "rtu:///dev/ttyS0");
        assert_eq!(bus("rtu+tcp://[fe80::1]:4001").to_string(), "rtu+tcp://[fe80::1]:4001");
    }
}
