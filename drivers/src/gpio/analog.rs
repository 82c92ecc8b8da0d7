//! Analogue-to-digital converters over I²C and SPI, in volts.
//!
//! An ADS1x15 is spoken to by the crate ads1x1x. An MCP3xxx is not: of the crates there are, adc-mcp3008 0.1.1 and mcp320x
//! 0.1.1 are written for embedded-hal before 1.0 and a nightly compiler, mcp3008 1.0.0 and mcp3208 0.1.0 for an old spidev,
//! mcp3xxx 0.1.0-pre.1 for the Raspberry Pi alone, and mcp300x 0.1.0 is under the GPL. Its protocol is three bytes.

use std::fmt::Debug;
use std::time::Duration;

use ads1x1x::{Ads1x1x, FullScaleRange, TargetAddr, channel, ic, mode};
use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{self, I2c};
use embedded_hal::spi::SpiDevice;

use super::config::{Model, Pins, Range};
use super::hardware::Fault;

/// Something that measures. Each call blocks, for milliseconds when all is well and for a second or more when a bus hangs.
pub(super) trait Converter: Send {
    /// In volts. After a fault it is to be made anew: what it would say next may be of before.
    fn volts(&mut self, pins: Pins, range: Range) -> Result<f64, Fault>;
}

/// The delay between two questions whether a conversion is done.
const GLANCE: Duration = Duration::from_millis(1);
/// How often that is asked at most: twice what the slower one takes (8 ms, +10 %), for a conversion that a changed range has
/// begun too.
const GLANCES: u32 = 40;

/// One of TI's, with the four inputs of its family. `volts` begins a conversion, waits for its end, reads it.
macro_rules! ads {
    ($(#[doc = $doc:literal])+ $name:ident: $new:ident, $ic:ident, $resolution:ident, $steps:literal) => {
        $(#[doc = $doc])+
        pub(super) struct $name<B, D> {
            device: Ads1x1x<B, ic::$ic, ic::$resolution, mode::OneShot>,
            delay: D,
            range: Option<Range>,
        }

        impl<B: I2c, D: DelayNs> $name<B, D> {
            /// The one at `address`, 0x48 to 0x4b.
            pub(super) fn new(bus: B, delay: D, address: u8) -> Result<Self, Fault> {
                let device = Ads1x1x::$new(bus, target(address)?);
                Ok(Self { device, delay, range: None })
            }
        }

        impl<B: I2c + Send, D: DelayNs + Send> Converter for $name<B, D> {
            fn volts(&mut self, pins: Pins, range: Range) -> Result<f64, Fault> {
                if self.range != Some(range) {
                    self.device.set_full_scale_range(full_scale(range)).map_err(ads_fault)?;
                    self.range = Some(range);
                }
                for _ in 0..GLANCES {
                    let read = match pins {
                        Pins::Single(0) => self.device.read(channel::SingleA0),
                        Pins::Single(1) => self.device.read(channel::SingleA1),
                        Pins::Single(2) => self.device.read(channel::SingleA2),
                        Pins::Single(3) => self.device.read(channel::SingleA3),
                        Pins::Between(0, 1) => self.device.read(channel::DifferentialA0A1),
                        Pins::Between(0, 3) => self.device.read(channel::DifferentialA0A3),
                        Pins::Between(1, 3) => self.device.read(channel::DifferentialA1A3),
                        Pins::Between(2, 3) => self.device.read(channel::DifferentialA2A3),
                        Pins::Single(_) | Pins::Between(..) => return Err(no_such_input(pins)),
                    };
                    match read {
                        Ok(steps) => return Ok(f64::from(steps) * range.volts() / $steps),
                        Err(nb::Error::WouldBlock) => self.delay.delay_ns(u32::try_from(GLANCE.as_nanos()).unwrap_or(u32::MAX)),
                        Err(nb::Error::Other(error)) => return Err(ads_fault(error)),
                    }
                }
                Err(Fault::NoAnswer("the converter does not finish its conversion".to_owned()))
            }
        }
    };
}

ads! {
    /// 12 bits, 0.6 ms a conversion.
    Ads1015: new_ads1015, Ads1015, Resolution12Bit, 2_048.0
}
ads! {
    /// 16 bits, 8 ms a conversion.
    Ads1115: new_ads1115, Ads1115, Resolution16Bit, 32_768.0
}

fn target(address: u8) -> Result<TargetAddr, Fault> {
    match address {
        0x48 => Ok(TargetAddr::Gnd),
        0x49 => Ok(TargetAddr::Vdd),
        0x4a => Ok(TargetAddr::Sda),
        0x4b => Ok(TargetAddr::Scl),
        _ => Err(Fault::Unsupported(format!("no ADS1x15 has the address 0x{address:02x}"))),
    }
}

fn full_scale(range: Range) -> FullScaleRange {
    match range {
        Range::V6_144 => FullScaleRange::Within6_144V,
        Range::V4_096 => FullScaleRange::Within4_096V,
        Range::V2_048 => FullScaleRange::Within2_048V,
        Range::V1_024 => FullScaleRange::Within1_024V,
        Range::V0_512 => FullScaleRange::Within0_512V,
        Range::V0_256 => FullScaleRange::Within0_256V,
    }
}

fn ads_fault<E: i2c::Error>(error: ads1x1x::Error<E>) -> Fault {
    Fault::NoAnswer(match error {
        ads1x1x::Error::I2C(error) => match error.kind() {
            i2c::ErrorKind::NoAcknowledge(_) => "nothing answers at this address".to_owned(),
            kind => format!("I²C: {kind}: {error:?}"),
        },
        ads1x1x::Error::InvalidInputData => "the converter does not take its settings".to_owned(),
    })
}

fn no_such_input(pins: Pins) -> Fault {
    Fault::Unsupported(format!("the converter has no input {pins}"))
}

/// One of Microchip's on SPI, in mode 0.
pub(super) struct Mcp<S> {
    bus: S,
    model: Model,
    reference: f64,
}

impl<S: SpiDevice> Mcp<S> {
    /// A `model` whose full scale is at `reference` volts.
    pub(super) fn new(bus: S, model: Model, reference: f64) -> Self {
        Self { bus, model, reference }
    }
}

impl<S: SpiDevice + Send> Converter for Mcp<S>
where
    S::Error: Debug,
{
    /// A start bit, one for single-ended, three for the input; then a bit for sampling, a zero, and the value, high bit first.
    /// Aligned so that the value ends with the third byte (DS21295D, figure 6-1; DS21298E, figure 6-1).
    fn volts(&mut self, pins: Pins, _: Range) -> Result<f64, Fault> {
        if self.model.is_ads() || !self.model.measures(pins) {
            return Err(no_such_input(pins));
        }
        let select = match pins {
            Pins::Single(input) => 0b1000 | input,
            // A pair is told by its positive input.
            Pins::Between(plus, _) => plus,
        };
        let (question, bits) = match self.model {
            Model::Mcp3204 | Model::Mcp3208 => ([0b100 | select >> 2, select << 6, 0], 12_u32),
            _ => ([1, select << 4, 0], 10),
        };
        let mut answer = [0; 3];
        self.bus.transfer(&mut answer, &question).map_err(|error| Fault::NoAnswer(format!("SPI: {error:?}")))?;
        let value = u16::from_be_bytes([answer[1], answer[2]]) & ((2 << bits) - 1);
        if value >> bits != 0 {
            // The zero before the value is not there: nobody pulls the line down.
            return Err(Fault::NoAnswer("nothing answers at this chip select".to_owned()));
        }
        Ok(f64::from(value) * self.reference / f64::from(1_u32 << bits))
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal_mock::eh1::delay::NoopDelay;
    use embedded_hal_mock::eh1::i2c::{Mock as I2cMock, Transaction as I2cStep};
    use embedded_hal_mock::eh1::spi::{Mock as SpiMock, Transaction as SpiStep};

    use super::*;

    /// The configuration register is read; its highest bit is set when no conversion runs.
    fn asked(idle: bool) -> I2cStep {
        I2cStep::write_read(0x48, vec![1], vec![if idle { 0x85 } else { 0x05 }, 0x83])
    }

    fn told(bytes: [u8; 2]) -> I2cStep {
        I2cStep::write_read(0x48, vec![0], bytes.to_vec())
    }

    #[test]
    fn an_ads1115_is_asked_byte_by_byte() {
        let steps = [
            I2cStep::write(0x48, vec![1, 0x83, 0x83]), // ±4.096 V
            asked(false),                              // which began a conversion of no interest
            asked(true),
            I2cStep::write(0x48, vec![1, 0xc3, 0x83]), // input 0 against ground
            asked(false),
            asked(true),
            told([0x40, 0x00]),
            asked(true), // the same once more: a conversion of its own, no range
            I2cStep::write(0x48, vec![1, 0xc3, 0x83]),
            asked(true),
            told([0x20, 0x00]),
            asked(true), // 2 against 3
            I2cStep::write(0x48, vec![1, 0xb3, 0x83]),
            asked(true),
            told([0xff, 0xff]),
        ];
        let bus = I2cMock::new(&steps);
        let mut watched = bus.clone();
        let mut adc = Ads1115::new(bus, NoopDelay::new(), 0x48).expect("an address");
        assert_eq!(adc.volts(Pins::Single(0), Range::V4_096), Ok(2.048));
        assert_eq!(adc.volts(Pins::Single(0), Range::V4_096), Ok(1.024));
        assert_eq!(adc.volts(Pins::Between(2, 3), Range::V4_096), Ok(-0.000_125));
        watched.done();
    }

    #[test]
    fn an_ads1015_has_twelve_bits_at_the_top() {
        let steps = [
            I2cStep::write(0x48, vec![1, 0x81, 0x83]), // ±6.144 V
            asked(true),
            I2cStep::write(0x48, vec![1, 0xf1, 0x83]), // input 3 against ground
            asked(true),
            told([0x40, 0x0f]), // the low four are noise
        ];
        let bus = I2cMock::new(&steps);
        let mut watched = bus.clone();
        let mut adc = Ads1015::new(bus, NoopDelay::new(), 0x48).expect("an address");
        assert_eq!(adc.volts(Pins::Single(3), Range::V6_144), Ok(3.072));
        watched.done();
    }

    #[test]
    fn nobody_at_an_address_and_a_conversion_without_end() {
        let source = i2c::NoAcknowledgeSource::Address;
        let silent = I2cStep::write(0x4b, vec![1, 0x83, 0x83]).with_error(i2c::ErrorKind::NoAcknowledge(source));
        let bus = I2cMock::new(&[silent]);
        let mut watched = bus.clone();
        let mut adc = Ads1115::new(bus, NoopDelay::new(), 0x4b).expect("an address");
        let nobody = Fault::NoAnswer("nothing answers at this address".to_owned());
        assert_eq!(adc.volts(Pins::Single(0), Range::V4_096), Err(nobody));
        watched.done();

        let mut steps = vec![I2cStep::write(0x48, vec![1, 0x83, 0x83])];
        steps.extend((0..GLANCES).map(|_| asked(false)));
        let bus = I2cMock::new(&steps);
        let mut watched = bus.clone();
        let mut adc = Ads1115::new(bus, NoopDelay::new(), 0x48).expect("an address");
        assert!(matches!(adc.volts(Pins::Single(0), Range::V4_096), Err(Fault::NoAnswer(_))));
        watched.done();
        assert!(target(0x4c).is_err());
    }

    /// What `model` says to `pins`, when it is asked `question` and answers `answer`.
    fn exchange(model: Model, pins: Pins, question: [u8; 3], answer: [u8; 3]) -> Result<f64, Fault> {
        let steps = [
            SpiStep::transaction_start(),
            SpiStep::transfer(question.to_vec(), answer.to_vec()),
            SpiStep::transaction_end(),
        ];
        let bus = SpiMock::new(&steps);
        let mut watched = bus.clone();
        let volts = Mcp::new(bus, model, 3.3).volts(pins, Range::default());
        watched.done();
        volts
    }

    #[test]
    fn an_mcp_is_asked_byte_by_byte() {
        use Model::{Mcp3004, Mcp3008, Mcp3204, Mcp3208};
        // Bits before the zero are nobody's, and are left out.
        for (model, pins, question, answer, volts) in [
            (Mcp3008, Pins::Single(0), [1, 0x80, 0], [0xff, 0xf8, 0x00], 0.0),
            (Mcp3008, Pins::Single(7), [1, 0xf0, 0], [0x00, 0x02, 0x00], 1.65),
            (Mcp3008, Pins::Between(5, 4), [1, 0x50, 0], [0x00, 0x01, 0x00], 0.825),
            (Mcp3004, Pins::Single(3), [1, 0xb0, 0], [0xff, 0xfb, 0xff], 3.3 * 1023.0 / 1024.0),
            (Mcp3208, Pins::Single(5), [7, 0x40, 0], [0xff, 0xe8, 0x00], 1.65),
            (Mcp3208, Pins::Between(2, 3), [4, 0x80, 0], [0x00, 0x04, 0x00], 0.825),
            (Mcp3204, Pins::Single(3), [6, 0xc0, 0], [0x00, 0x0f, 0xff], 3.3 * 4095.0 / 4096.0),
        ] {
            assert_eq!(exchange(model, pins, question, answer), Ok(volts), "{model:?} {pins}");
        }
    }

    #[test]
    fn a_chip_select_with_nobody_behind_it_is_no_voltage() {
        let nobody = Err(Fault::NoAnswer("nothing answers at this chip select".to_owned()));
        assert_eq!(exchange(Model::Mcp3008, Pins::Single(0), [1, 0x80, 0], [0xff; 3]), nobody);
        assert_eq!(exchange(Model::Mcp3208, Pins::Single(0), [6, 0x00, 0], [0xff; 3]), nobody);
        let bus = SpiMock::<u8>::new(&[]);
        let mut watched = bus.clone();
        let none = Mcp::new(bus, Model::Mcp3004, 3.3).volts(Pins::Single(4), Range::default());
        assert!(matches!(none, Err(Fault::Unsupported(_))));
        watched.done();
    }
}
