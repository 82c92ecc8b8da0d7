//! The machine below: Linux's character devices. Lines by the GPIO uAPI v2 (Linux 5.11 and later, for edges by the realtime
//! clock), I²C and SPI by i2c-dev and spidev. All of it is system calls; no C library is needed.

use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use gpiocdev::line::{self, EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::request::{Builder, Request};
use gpiocdev::{Chip, Error};
use gpiocdev_embedded_hal::OutputPin;
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
use linux_embedded_hal::{Delay, I2cdev, SpidevDevice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::analog::{Ads1015, Ads1115, Converter, Mcp};
use super::config::{Bias, Bus, Device, Edges, Model};
use super::hardware::{Ask, Edge, Fault, Hardware, Input, LineInfo};
use super::output::{Lamp, Switched, level};
use crate::Time;

/// As whom we take lines; others see it (`gpioinfo`).
const CONSUMER: &str = "gemba";
/// Edges that the kernel keeps for us on each line while we are busy; what comes when it is full displaces the oldest.
const KERNEL_QUEUE: u32 = 1024;
/// Edges taken from the kernel with one call.
const AT_ONCE: usize = 64;
/// Safe for an MCP3xxx at 2.7 V (1.05 MHz for 10 bits, 1 MHz for 12).
const SPI_HZ: u32 = 1_000_000;

// Of Linux on every machine that we are built for (asm-generic/errno-base.h, errno.h; ENOTSUPP is the kernel's own).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
const ENOTSUPP: i32 = 524;

/// The chip at a path. It is opened for each question, so one that went and came back is found again.
pub(super) struct Kernel {
    path: PathBuf,
}

impl Kernel {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn open(&self) -> Result<Chip, Fault> {
        Chip::from_path(&self.path).map_err(|error| match (errno(&error), &error) {
            (_, Error::GpioChip(..)) => Fault::Missing(format!("{} is no GPIO chip", self.path.display())),
            (Some(ENOENT), _) => {
                let there = gpiocdev::chip::chips().unwrap_or_default();
                let there: Vec<_> = there.iter().map(|chip| chip.display().to_string()).collect();
                let help = if there.is_empty() { "no GPIO chip at all".to_owned() } else { there.join(", ") };
                Fault::Missing(format!("{} is not there; there is {help}", self.path.display()))
            }
            (number, _) => opening(&self.path, number, &error.to_string()),
        })
    }

    /// Why a line was not given.
    fn refused(&self, offset: u32, error: &Error) -> Fault {
        let line = format!("line {offset} of {}", self.path.display());
        match errno(error) {
            Some(EBUSY) => {
                let info = self.open().ok().and_then(|chip| chip.line_info(offset).ok());
                let who = info.map(|info| info.consumer).filter(|who| !who.is_empty());
                Fault::Busy(format!("{line} is taken by `{}`", who.as_deref().unwrap_or("the kernel")))
            }
            Some(EPERM | EACCES) => Fault::Forbidden(format!("{line}: {error}")),
            Some(ENXIO | EINVAL | EOPNOTSUPP | ENOTSUPP) => Fault::Unsupported(format!("{line}: {error}")),
            _ => Fault::NoAnswer(format!("{line}: {error}")),
        }
    }
}

impl Hardware for Kernel {
    fn lines(&mut self) -> Result<Vec<LineInfo>, Fault> {
        let chip = self.open()?;
        let failed = |error: Error| Fault::NoAnswer(format!("{}: {error}", self.path.display()));
        let infos = chip.line_info_iter().map_err(failed)?;
        infos.map(|info| info.map(LineInfo::from).map_err(failed)).collect()
    }

    fn input(&mut self, offset: u32, ask: Ask) -> Result<Box<dyn Input>, Fault> {
        let request = input(&self.path, offset, ask).request().map_err(|error| self.refused(offset, &error))?;
        let name = format!("line {offset} of {}", self.path.display());
        // Only a line with edges becomes readable; any other is never waited for.
        let taken = match ask.edges {
            None => Held::Quiet(request),
            Some(_) => Held::Told(readable(request).map_err(|error| Fault::NoAnswer(format!("{name}: {error}")))?),
        };
        Ok(Box::new(Taken { name, offset, held: taken }))
    }

    fn output(&mut self, offset: u32, active_low: bool) -> Result<Box<dyn Switched>, Fault> {
        let refused = |error: &Error| self.refused(offset, error);
        let request = output(&self.path, offset, active_low).request().map_err(|error| refused(&error))?;
        let failed = |error: gpiocdev_embedded_hal::Error| Fault::NoAnswer(error.to_string());
        let pin = OutputPin::try_from(request).map_err(failed)?;
        Ok(Box::new(Lamp::new(pin, active_low).map_err(failed)?))
    }

    fn converter(&mut self, device: &Device) -> Result<Box<dyn Converter>, Fault> {
        match &device.bus {
            Bus::I2c(path, address) => {
                let failed = |error| {
                    let error = io::Error::from(error);
                    opening(path, error.raw_os_error(), &error.to_string())
                };
                let bus = I2cdev::new(path).map_err(failed)?;
                Ok(match device.model {
                    Model::Ads1015 => Box::new(Ads1015::new(bus, Delay, *address)?),
                    _ => Box::new(Ads1115::new(bus, Delay, *address)?),
                })
            }
            Bus::Spi(path) => {
                let failed = |error: &io::Error| opening(path, error.raw_os_error(), &error.to_string());
                let mut bus = SpidevDevice::open(path).map_err(|error| failed(error.inner()))?;
                let options =
                    SpidevOptions { bits_per_word: Some(8), max_speed_hz: Some(SPI_HZ), ..SpidevOptions::new() };
                let options = SpidevOptions { spi_mode: Some(SpiModeFlags::SPI_MODE_0), ..options };
                bus.configure(&options).map_err(|error| failed(&error))?;
                Ok(Box::new(Mcp::new(bus, device.model, device.reference)))
            }
        }
    }
}

/// What is asked of the kernel for an input.
fn input(chip: &Path, offset: u32, ask: Ask) -> Builder {
    let mut request = Request::builder();
    request.on_chip(chip).with_consumer(CONSUMER).with_kernel_event_buffer_size(KERNEL_QUEUE);
    request.with_line(offset).as_input();
    if ask.active_low {
        request.as_active_low();
    }
    request.with_bias(ask.bias.map(|bias| match bias {
        Bias::PullUp => line::Bias::PullUp,
        Bias::PullDown => line::Bias::PullDown,
        Bias::Disabled => line::Bias::Disabled,
    }));
    if let Some(edges) = ask.edges {
        request.with_event_clock(EventClock::Realtime).with_edge_detection(match edges {
            Edges::Rising => EdgeDetection::RisingEdge,
            Edges::Falling => EdgeDetection::FallingEdge,
            Edges::Both => EdgeDetection::BothEdges,
        });
    }
    if let Some(period) = ask.debounce {
        request.with_debounce_period(period);
    }
    request
}

/// What is asked of the kernel for an output: the voltage that means off, in the request itself, so that nothing flashes.
fn output(chip: &Path, offset: u32, active_low: bool) -> Builder {
    let off =
        if level(false, active_low) == embedded_hal::digital::PinState::High { Value::Active } else { Value::Inactive };
    let mut request = Request::builder();
    request.on_chip(chip).with_consumer(CONSUMER).with_line(offset).as_output(off);
    request
}

#[expect(
    deprecated,
    reason = "its heir is an unsafe function, and asks for what a `Request` gives: it owns one file, from its making until its end"
)]
fn readable(request: Request) -> io::Result<AsyncFd<Request>> {
    AsyncFd::with_interest(request, Interest::READABLE)
}

/// A line that we have.
struct Taken {
    name: String,
    offset: u32,
    held: Held,
}

enum Held {
    Told(AsyncFd<Request>),
    Quiet(Request),
}

impl Taken {
    fn failed(&self, error: &impl std::fmt::Display) -> Fault {
        Fault::NoAnswer(format!("{}: {error}", self.name))
    }
}

impl Input for Taken {
    fn level(&self) -> Result<bool, Fault> {
        let request = match &self.held {
            Held::Told(request) => request.get_ref(),
            Held::Quiet(request) => request,
        };
        request.value(self.offset).map(|value| value == Value::Active).map_err(|error| self.failed(&error))
    }

    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<Result<(), Fault>> {
        let Held::Told(held) = &self.held else { return Poll::Pending };
        loop {
            let mut readable = ready!(held.poll_read_ready(context)).map_err(|error| self.failed(&error))?;
            let request = held.get_ref();
            // A read with nothing there would block, so the kernel is asked first.
            if !request.has_edge_event().map_err(|error| self.failed(&error))? {
                readable.clear_ready();
                continue;
            }
            let mut words = [0_u64; AT_ONCE * 6];
            let one = request.edge_event_u64_size();
            let room = words.len() / one * one;
            let read = request.read_edge_events_into_slice(&mut words[..room]).map_err(|error| self.failed(&error))?;
            for event in words[..read].chunks_exact(one) {
                let event = request.edge_event_from_slice(event).map_err(|error| self.failed(&error))?;
                edges.push(Edge {
                    level: event.kind == EdgeKind::Rising,
                    at: Time(i64::try_from(event.timestamp_ns).unwrap_or(i64::MAX)),
                    number: event.line_seqno,
                });
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl From<line::Info> for LineInfo {
    fn from(info: line::Info) -> Self {
        let is_output = info.direction == line::Direction::Output;
        Self { offset: info.offset, name: info.name, taken: info.used.then_some(info.consumer), is_output }
    }
}

fn errno(error: &Error) -> Option<i32> {
    match error {
        Error::Os(gpiocdev_uapi::Errno(number))
        | Error::Uapi(_, gpiocdev_uapi::Error::Os(gpiocdev_uapi::Errno(number))) => Some(*number),
        _ => None,
    }
}

/// Why a device file was not opened.
fn opening(path: &Path, number: Option<i32>, error: &str) -> Fault {
    let file = path.display();
    match number {
        Some(ENOENT | ENODEV | ENXIO) => Fault::Missing(format!("{file} is not there: {error}")),
        Some(EPERM | EACCES) => {
            let group = std::fs::metadata(path).ok().and_then(|meta| group(meta.st_gid()));
            let help = match group.as_deref() {
                None | Some("root") => "it belongs to root alone: a udev rule gives it a group".to_owned(),
                Some(group) => format!("who runs gemba must be in the group `{group}`"),
            };
            Fault::Forbidden(format!("{file} may not be opened; {help}"))
        }
        Some(EBUSY) => Fault::Busy(format!("{file} is in use")),
        _ => Fault::NoAnswer(format!("{file}: {error}")),
    }
}

/// The group's name, or its number where it has none.
fn group(id: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    Some(name_of(&groups, id).map_or_else(|| id.to_string(), str::to_owned))
}

/// From lines `name:password:id:members` (group(5)).
fn name_of(groups: &str, id: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(id)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn inputs_are_never_asked_for_as_outputs() {
        let bias = [None, Some(Bias::PullUp), Some(Bias::PullDown), Some(Bias::Disabled)];
        let edges = [None, Some(Edges::Rising), Some(Edges::Falling), Some(Edges::Both)];
        for (bias, (edges, active_low)) in bias
            .into_iter()
            .flat_map(|bias| edges.into_iter().flat_map(move |edges| [(bias, (edges, false)), (bias, (edges, true))]))
        {
            let debounce = Some(Duration::from_millis(5));
            let asked = input(Path::new("/dev/gpiochip0"), 17, Ask { active_low, bias, edges, debounce });
            let config = asked.config();
            let line = config.line_config(17).expect("the line");
            assert_eq!(*config.lines(), [17]);
            assert_eq!(line.direction, Some(line::Direction::Input));
            assert_eq!((line.value, line.active_low, line.bias.is_some()), (None, active_low, bias.is_some()));
            assert_eq!(line.edge_detection.is_some(), edges.is_some());
            assert_eq!(line.event_clock, edges.map(|_| EventClock::Realtime));
        }
    }

    #[test]
    fn an_output_is_asked_for_as_off() {
        for (active_low, value) in [(false, Value::Inactive), (true, Value::Active)] {
            let config = output(Path::new("/dev/gpiochip0"), 22, active_low).config();
            let line = config.line_config(22).expect("the line");
            // The value is a voltage here: the lamp turns it round, not the kernel.
            assert_eq!(
                (line.direction, line.value, line.active_low),
                (Some(line::Direction::Output), Some(value), false)
            );
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut kernel = Kernel::new("/dev/gpiochip-of-nobody".into());
        let fault = kernel.lines().expect_err("no such chip");
        assert!(
            matches!(&fault, Fault::Missing(why) if why.contains("/dev/gpiochip-of-nobody is not there")),
            "{fault}"
        );
        let mut kernel = Kernel::new("/dev/null".into());
        assert_eq!(kernel.lines().expect_err("none"), Fault::Missing("/dev/null is no GPIO chip".to_owned()));
        for bus in [Bus::I2c("/dev/i2c-of-nobody".into(), 0x48), Bus::Spi("/dev/spidev-of-nobody".into())] {
            let model = if matches!(bus, Bus::Spi(_)) { Model::Mcp3008 } else { Model::Ads1115 };
            let device = Device { name: "adc".into(), bus, model, reference: 3.3 };
            let Err(fault) = kernel.converter(&device) else { panic!("there is none") };
            assert!(matches!(&fault, Fault::Missing(why) if why.contains("-of-nobody is not there")), "{fault}");
        }
    }

    #[test]
    fn a_forbidden_file_names_the_group_that_helps() {
        assert_eq!(name_of("root:x:0:\ngpio:x:997:pi\ni2c:x:998:\n", 997), Some("gpio"));
        assert_eq!(name_of("root:x:0:\nbroken\n:x:\n", 997), None);
        let Fault::Forbidden(why) = opening(Path::new("/etc/group"), Some(EACCES), "denied") else {
            panic!("forbidden")
        };
        assert_eq!(why, "/etc/group may not be opened; it belongs to root alone: a udev rule gives it a group");
    }
}
