//! GPIO: the gateway's own pins, and converters on its I²C and SPI buses.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::gpio;
use serde_json::{Value, json};

use super::{Known, Protocol, Speaks, Wire};
use crate::config::error::{Place, Report};
use crate::config::raw::StationOf;
use crate::config::resolve::{Links, Told};
use crate::config::section::{At, Leaf, section};
use crate::config::tree::{Origin, Scalar};
use crate::config::units::{HOUR, SECOND, Span};
use crate::config::words::{FilePath, Flag, Name, OneOf, Word, one_of_names, text};

/// The protocol.
#[derive(Debug)]
pub(in crate::config) struct Gpio;

/// A line of the chip: its number, or its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Line(gpio::Line);

impl Leaf for Line {
    const FORM: &'static str = "a line of a GPIO chip, such as `17` or `GPIO17`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > 1 && text.starts_with('0') {
            let meant = text.trim_start_matches('0');
            return Err(format!(
                "`{text}` is no line of a GPIO chip; write `{}`",
                if meant.is_empty() { "0" } else { meant }
            ));
        }
        if text.starts_with('-') && text[1..].bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("`{text}` is no line of a GPIO chip; they are counted from 0"));
        }
        text.parse().map(Self)
    }

    fn schema() -> Value {
        json!({ "type": ["integer", "string"], "minimum": 0, "minLength": 1, "maxLength": 31 })
    }
}

impl Word for gpio::Bias {
    const WHAT: &'static str = "bias";
    const FORM: &'static str = "`pull_up`, `pull_down` or `disabled`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("pull_up", Self::PullUp), ("pull_down", Self::PullDown), ("disabled", Self::Disabled)]
    }
}

impl Word for gpio::Edges {
    const WHAT: &'static str = "kind of edge";
    const FORM: &'static str = "`rising`, `falling` or `both`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("rising", Self::Rising), ("falling", Self::Falling), ("both", Self::Both)]
    }
}

impl Word for gpio::Range {
    const WHAT: &'static str = "range of an ADS1x15";
    const FORM: &'static str = "a range such as `4.096V`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.to_vec()
    }
}

/// A converter on I²C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct OnI2c(gpio::Model);

impl Word for OnI2c {
    const WHAT: &'static str = "I²C converter that gemba knows";
    const FORM: &'static str = "`ads1115` or `ads1015`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("ads1115", Self(gpio::Model::Ads1115)), ("ads1015", Self(gpio::Model::Ads1015))]
    }
}

/// A converter on SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct OnSpi(gpio::Model);

impl Word for OnSpi {
    const WHAT: &'static str = "SPI converter that gemba knows";
    const FORM: &'static str = "`mcp3004`, `mcp3008`, `mcp3204` or `mcp3208`";

    fn all() -> Vec<(&'static str, Self)> {
        use gpio::Model::{Mcp3004, Mcp3008, Mcp3204, Mcp3208};
        [("mcp3004", Mcp3004), ("mcp3008", Mcp3008), ("mcp3204", Mcp3204), ("mcp3208", Mcp3208)]
            .map(|(word, model)| (word, Self(model)))
            .to_vec()
    }
}

/// An address of an ADS1x15, which its pin ADDR chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Address(u8);

impl Leaf for Address {
    const FORM: &'static str = "an I²C address such as `0x48`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        let number = match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+')),
            None => text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())),
        };
        match number {
            Some(address @ 0x48..=0x4b) => Ok(Self(address)),
            // `i2cdetect` shows hexadecimal digits without saying so.
            Some(48..=51) => Err(format!("`{text}` is no address of an ADS1x15; did you mean `0x{text}`?")),
            Some(_) => Err(format!("`{text}` is no address of an ADS1x15; it has `0x48`, `0x49`, `0x4a` or `0x4b`")),
            None => Err(format!("`{text}` is no I²C address; write it as `0x48`")),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "integer", "minimum": 0x48, "maximum": 0x4b }, { "type": "string", "pattern": "^0x4[89abAB]$" }] })
    }
}

/// A voltage above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) struct Volts(f64);

impl Leaf for Volts {
    const FORM: &'static str = "a voltage such as `3.3V`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        let decimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let number = |text: &str| text.parse::<f64>().ok().filter(|_| decimal(text));
        let Some(volts) = text.strip_suffix('V').and_then(|digits| number(digits.trim_end())) else {
            return Err(match number(text) {
                Some(_) => format!("`{text}` has no unit; did you mean `{text}V`?"),
                None => format!("`{text}` is no voltage; write it as `3.3V`"),
            });
        };
        if volts > 0.0 && volts <= 10.0 {
            Ok(Self(volts))
        } else {
            Err(format!("`{text}` is out of range: above 0V, up to 10V"))
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\d+(\.\d+)?\s*V$" })
    }
}

/// A channel of a converter: `adc1:0`, or `adc1:0-1` for the difference of two inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Channel {
    device: String,
    pins: gpio::Pins,
}

impl Leaf for Channel {
    const FORM: &'static str = "a channel of a converter, such as `adc1:0`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        let split = text.rsplit_once(':').filter(|(device, _)| !device.is_empty());
        let (device, pins) =
            split.ok_or_else(|| format!("`{text}` is no channel of a converter; write it as `adc1:0`"))?;
        Ok(Self { device: device.to_owned(), pins: pins.parse()? })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^.+:[0-9](-[0-9])?$" })
    }
}

section! {
    /// The gateway's own pins and converters. Stations that name the same chip share it.
    GpioSource {
        /// The protocol.
        r#type: Known => required;
        /// The chip with the lines.
        chip: FilePath => default("/dev/gpiochip0");
        /// How often converters are read, and lines looked at that tell no edges.
        poll: Span<10, HOUR> => default("1s");
        /// Digital outputs, the only thing that gemba ever writes to: off from the start, and off after a stop.
        outputs: Vec<At<GpioOutput>> => optional;
        /// Converters on I²C.
        i2c: Vec<At<I2cConverter>> => optional;
        /// Converters on SPI.
        spi: Vec<At<SpiConverter>> => optional;
    }
}

section! {
    /// A digital output.
    GpioOutput {
        /// Its name.
        name: Name => required;
        /// Its number on the chip, or the name that the board gives it.
        line: Line => required;
        /// Whether low is on.
        active_low: Flag => default(false);
    }
}

section! {
    /// An analogue-to-digital converter on I²C.
    I2cConverter {
        /// Its name, for channels.
        name: Name => required;
        /// The bus.
        bus: FilePath => default("/dev/i2c-1");
        /// Its address on the bus.
        address: Address => default("0x48");
        /// What it is: `ads1115` (16 bits) or `ads1015` (12 bits).
        device: OneOf<OnI2c> => required;
    }
}

section! {
    /// An analogue-to-digital converter on SPI.
    SpiConverter {
        /// Its name, for channels.
        name: Name => required;
        /// The bus with the chip select.
        bus: FilePath => default("/dev/spidev0.0");
        /// What it is: `mcp3004` or `mcp3008` (10 bits), `mcp3204` or `mcp3208` (12 bits).
        device: OneOf<OnSpi> => required;
        /// The voltage at its pin VREF, which is full scale.
        reference: Volts => default("3.3V");
    }
}

section! {
    /// A line of the chip, or a channel of a converter.
    GpioTag {
        /// A digital input: its number on the chip, or the name that the board gives it.
        line: Line => optional;
        /// Whether low is on.
        active_low: Flag => default(false);
        /// The resistor in the chip: `pull_up`, `pull_down` or `disabled`; as the firmware left it unless said.
        bias: OneOf<gpio::Bias> => optional;
        /// How long a level must stand before it counts.
        debounce: Span<0, { 10 * SECOND }> => default("0s");
        /// Makes the tag a count of edges, `rising`, `falling` or `both`, instead of the level.
        count: OneOf<gpio::Edges> => optional;
        /// An analogue input, in volts: `adc1:0`, or `adc1:0-1` for the difference of two.
        channel: Channel => optional;
        /// Full scale of an ADS1x15, to both sides of zero.
        range: OneOf<gpio::Range> => default("4.096V");
    }
}

impl Speaks for Gpio {
    const PROTOCOL: Protocol = Protocol::Gpio;
    type Source = GpioSource;
    type Tag = GpioTag;

    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize> {
        let source = &station.source.as_ref()?.value.0;
        source.r#type.as_ref()?;
        let written = source.chip.as_ref()?;
        let chip = &written.0;
        let devices = devices(source, report);
        for other in links.wires() {
            let Wire::Gpio(other) = other else { continue };
            if other.config.chip != *chip {
                other.refuse_shared(&devices, report);
            }
        }
        let same = |wire: &Wire| matches!(wire, Wire::Gpio(draft) if draft.config.chip == *chip);
        let index = links.join(told.who, written, &chip.display(), same, || Wire::Gpio(Draft::new(chip.clone())));
        let Wire::Gpio(draft) = links.wire(index) else { return None };
        let mine = draft.add_devices(&devices, report);
        for output in source.outputs.iter().flat_map(|outputs| &outputs.value) {
            draft.add_output(output, report);
        }
        let mut reads = gpio::Station {
            name: Arc::clone(&told.who.name),
            // A wrong one is reported, and the tags still have their say.
            poll: source.poll.as_ref().map_or(Duration::ZERO, |poll| poll.0),
            inputs: Vec::new(),
            channels: Vec::new(),
        };
        for (tag, facts) in station.tags.iter().flat_map(|tags| &tags.value).zip(told.facts) {
            let own = &tag.value.own;
            match (&own.line, &own.channel) {
                (Some(line), None) => {
                    if let Some(range) = own.range.as_ref().filter(|range| range.origin.written) {
                        range.wrong(report, "belongs to a `channel`; a `line` has two levels");
                    }
                    let Some(setup) = draft.set_up(line, own, report) else { continue };
                    let count = own.count.as_ref().map(|count| count.0);
                    let (name, line) = (facts.name.as_str().into(), line.value.0.clone());
                    reads.inputs.push(gpio::Input { id: facts.id, name, line, setup, count });
                }
                (None, Some(channel)) => {
                    no_option_of_a_line(own, report);
                    let Some(device) = draft.find(channel, &mine, report) else { continue };
                    let model = draft.config.devices[device].model;
                    if let Some(range) = own.range.as_ref().filter(|range| range.origin.written && !model.is_ads()) {
                        range.wrong(report, "is of an ADS1x15; full scale of an MCP3xxx is its `reference`");
                    }
                    let range = own.range.as_ref()?.0;
                    reads.channels.push(gpio::Channel { id: facts.id, device, pins: channel.pins, range });
                }
                (Some(_), Some(channel)) => {
                    channel.wrong(report, "the tag has a `line` too; it is read from one of them");
                }
                // What is there and wrong is reported already.
                (None, None) if tag.value.is_computed() => {}
                (None, None)
                    if ["line", "channel"].iter().any(|key| report.knows(&format!("{}.{key}", tag.origin.path))) => {}
                (None, None) => {
                    tag.wrong(
                        report,
                        "the key `line` or `channel` is missing: a pin of the chip, or an input of a converter",
                    );
                }
            }
        }
        draft.config.stations.push(reads);
        Some(index)
    }
}

/// What only a line has.
fn no_option_of_a_line(own: &GpioTag, report: &mut Report) {
    const WHY: &str = "belongs to a `line`; a `channel` has no edges";
    let GpioTag { active_low, bias, debounce, count, .. } = own;
    if let Some(at) = active_low.as_ref().filter(|at| at.origin.written) {
        at.wrong(report, WHY);
    }
    if let Some(at) = bias {
        at.wrong(report, WHY);
    }
    if let Some(at) = debounce.as_ref().filter(|at| at.origin.written) {
        at.wrong(report, WHY);
    }
    if let Some(at) = count {
        at.wrong(report, WHY);
    }
}

/// A converter as a source names it.
struct Written {
    device: gpio::Device,
    origin: Rc<Origin>,
}

/// The converters of a source, each under a name of its own.
fn devices(source: &GpioSource, report: &mut Report) -> Vec<Written> {
    let mut found: Vec<Written> = Vec::new();
    let mut put = |name: &At<Name>, device: gpio::Device, report: &mut Report| match found
        .iter()
        .find(|earlier| earlier.device.name == device.name)
    {
        Some(earlier) => {
            name.wrong(
                report,
                format!("`{}` is already the name of a converter at {}", name.origin.shown, earlier.origin.place),
            );
        }
        None => found.push(Written { device, origin: Rc::clone(&name.origin) }),
    };
    for entry in source.i2c.iter().flat_map(|list| &list.value) {
        let I2cConverter { name: Some(name), bus: Some(bus), address: Some(address), device: Some(model) } =
            &entry.value
        else {
            continue;
        };
        let bus = gpio::Bus::I2c(bus.0.clone(), address.value.0);
        let device = gpio::Device { name: name.0.as_str().into(), bus, model: model.0.0, reference: 0.0 };
        put(name, device, report);
    }
    for entry in source.spi.iter().flat_map(|list| &list.value) {
        let SpiConverter { name: Some(name), bus: Some(bus), device: Some(model), reference: Some(reference) } =
            &entry.value
        else {
            continue;
        };
        let bus = gpio::Bus::Spi(bus.0.clone());
        let device = gpio::Device { name: name.0.as_str().into(), bus, model: model.0.0, reference: reference.value.0 };
        put(name, device, report);
    }
    found
}

/// The link in the making.
pub(in crate::config) struct Draft {
    config: gpio::Config,
    /// How each line is set up, and where that is said first.
    lines: Vec<(gpio::Line, Use, Place)>,
    /// Where each converter is named first.
    named: Vec<Place>,
}

/// What a line is for.
#[derive(PartialEq)]
enum Use {
    Input(gpio::Setup),
    Output,
}

impl Draft {
    fn new(chip: PathBuf) -> Self {
        let config = gpio::Config { chip, stations: Vec::new(), outputs: Vec::new(), devices: Vec::new() };
        Self { config, lines: Vec::new(), named: Vec::new() }
    }

    pub(super) fn finish(self) -> gpio::Config {
        self.config
    }

    /// A converter belongs to one link: two that ask it in turns would read each other's channels.
    fn refuse_shared(&self, devices: &[Written], report: &mut Report) {
        for Written { device, origin } in devices {
            let Some(at) = self.config.devices.iter().position(|known| known.bus == device.bus) else { continue };
            let (known, chip) = (&self.named[at], self.config.chip.display());
            origin.wrong(report, format!("the converter on {} is already read beside {chip}, at {known}", device.bus));
        }
    }

    /// The index of each of them; the same one under the same name is shared with the chip's other stations.
    fn add_devices(&mut self, devices: &[Written], report: &mut Report) -> Vec<(Arc<str>, usize)> {
        let mut indices = Vec::with_capacity(devices.len());
        for Written { device, origin } in devices {
            let known =
                self.config.devices.iter().position(|known| known.name == device.name || known.bus == device.bus);
            let index = known.unwrap_or_else(|| {
                self.config.devices.push(device.clone());
                self.named.push(origin.place.clone());
                self.config.devices.len() - 1
            });
            let (known, there) = (&self.config.devices[index], &self.named[index]);
            if known.name != device.name {
                origin.wrong(report, format!("the converter on {} is already `{}` at {there}", device.bus, known.name));
            } else if known != device {
                let message = format!(
                    "`{}` is another converter at {there}; stations that share one say the same of it",
                    known.name
                );
                origin.wrong(report, message);
            }
            indices.push((Arc::clone(&device.name), index));
        }
        indices
    }

    /// The converter that a channel is of.
    fn find(&self, channel: &At<Channel>, mine: &[(Arc<str>, usize)], report: &mut Report) -> Option<usize> {
        let Some((_, index)) = mine.iter().find(|(name, _)| **name == *channel.device) else {
            let names = mine.iter().map(|(name, _)| &**name);
            let help = if mine.is_empty() {
                "; the source names none under `i2c` or `spi`".to_owned()
            } else {
                one_of_names(&channel.device, names)
            };
            channel.wrong(report, format!("`{}` is of no converter of this source{help}", channel.origin.shown));
            return None;
        };
        let model = self.config.devices[*index].model;
        if !model.measures(channel.pins) {
            let pairs = if model.is_ads() { "0-1, 0-3, 1-3 and 2-3" } else { "0-1, 1-0, 2-3, 3-2 and so on" };
            let last = model.inputs() - 1;
            channel.wrong(
                report,
                format!(
                    "`{}` cannot be measured: the converter has the inputs 0 to {last}, and the differences {pairs}",
                    channel.origin.shown
                ),
            );
            return None;
        }
        Some(*index)
    }

    /// How the tag's line is set up. Tags that share a line say the same of it.
    fn set_up(&mut self, line: &At<Line>, own: &GpioTag, report: &mut Report) -> Option<gpio::Setup> {
        let setup = gpio::Setup {
            active_low: own.active_low.as_ref()?.0,
            bias: own.bias.as_ref().map(|bias| bias.0),
            debounce: own.debounce.as_ref().map(|span| span.0).unwrap_or(Duration::ZERO),
        };
        match self.lines.iter().find(|(known, ..)| *known == line.value.0) {
            Some((_, Use::Output, place)) => {
                line.wrong(report, format!("`{}` is an output at {place}", line.origin.shown));
                return None;
            }
            Some((_, Use::Input(known), place)) if *known != setup => {
                line.wrong(
                    report,
                    format!("`{}` is read at {place} with another `active_low`, `bias` or `debounce`; a line has one of each", line.origin.shown),
                );
                return None;
            }
            Some(_) => {}
            None => self.lines.push((line.value.0.clone(), Use::Input(setup), line.origin.place.clone())),
        }
        Some(setup)
    }

    fn add_output(&mut self, output: &At<GpioOutput>, report: &mut Report) {
        let GpioOutput { name: Some(name), line: Some(line), active_low: Some(active_low) } = &output.value else {
            return;
        };
        if self.config.outputs.iter().any(|known| *known.name == *name.0) {
            name.wrong(report, format!("`{}` is already the name of an output of this chip", name.origin.shown));
            return;
        }
        if let Some((_, what, place)) = self.lines.iter().find(|(known, ..)| *known == line.value.0) {
            let what = if *what == Use::Output { "an output" } else { "an input" };
            line.wrong(report, format!("`{}` is already {what} at {place}", line.origin.shown));
            return;
        }
        self.lines.push((line.value.0.clone(), Use::Output, line.origin.place.clone()));
        let (name, line) = (name.0.as_str().into(), line.value.0.clone());
        self.config.outputs.push(gpio::Output { name, line, active_low: active_low.0 });
    }
}
