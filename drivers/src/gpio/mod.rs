//! The gateway's own pins: digital inputs as states or counted parts, digital outputs for lamps, converters over I²C and SPI.
//! Linux only.
//!
//! One task has the chip. Each line is taken by itself, so that one that is missing, taken by somebody else or forbidden is
//! bad alone and tried again, while its neighbours go on. The kernel tells edges, with its own time and number; it debounces
//! too, as far as the chip lets it ([`hardware::Ask::ladder`] says what is done where not). A line that says nothing is looked
//! at once a `poll`: that is its sign of life.
//!
//! Outputs are the only thing that gemba ever writes, and only those that the configuration names ([`Switch`]). They are off
//! from the start until they are asked for, and off after a stop.
//!
//! A converter is read on a thread for blocking work: a transfer cannot be awaited, and one on a bus that hangs takes as long
//! as the bus's driver allows, mostly a second. Each has at most one such thread. One that fails is made anew after a rest.

mod analog;
mod config;
mod converters;
mod debounce;
mod hardware;
mod input;
mod kernel;
mod lines;
mod output;
mod part;
mod survey;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

pub use config::{Bias, Bus, Channel, Config, Device, Edges, Input, Line, Model, Output, Pins, Range, Setup, Station};
pub use output::{Lamp, Switch};

use self::converters::Converters;
use self::hardware::{Fault, Hardware};
use self::input::Pin;
use self::kernel::Kernel;
use self::lines::{Lines, User};
use self::output::Switched;
use self::part::Part;
use crate::{Batch, Driver, LinkError, Outlet, Rung, Stale, Stopped, TagId, Time};

/// How often lines are looked at when no station says.
const LOOK: Duration = Duration::from_secs(1);

/// The driver.
pub struct Client {
    hardware: Box<dyn Hardware>,
    pins: Vec<Pin>,
    outputs: Vec<Driven>,
    users: Arc<[User]>,
    converters: Converters,
    look: Duration,
    wanted: Arc<watch::Sender<Vec<bool>>>,
}

/// An output, had or not.
struct Driven {
    name: Arc<str>,
    line: Line,
    active_low: bool,
    held: Option<Box<dyn Switched>>,
    part: Part,
}

impl Client {
    /// A driver for `config`; no line is taken yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let kernel = Kernel::new(config.chip.clone());
        Self::on(Box::new(kernel), config)
    }

    fn on(hardware: Box<dyn Hardware>, config: Config) -> Self {
        let Config { chip: _, stations, outputs, devices } = config;
        let look = stations.iter().filter(|station| !station.inputs.is_empty()).map(|station| station.poll).min();
        let mut pins: Vec<Pin> = Vec::new();
        for station in &stations {
            for Input { id, line, setup, count, .. } in &station.inputs {
                let at = pins.iter().position(|pin| pin.line == *line).unwrap_or_else(|| {
                    pins.push(Pin::new(line.clone(), *setup));
                    pins.len() - 1
                });
                pins[at].add(*id, Arc::clone(&station.name), *count);
            }
        }
        let users = lines::users(&stations, &outputs);
        let converters = Converters::new(devices, &stations);
        let outputs: Vec<_> = outputs.into_iter().map(Driven::new).collect();
        let wanted = Arc::new(watch::Sender::new(vec![false; outputs.len()]));
        Self { hardware, pins, outputs, users, converters, look: look.unwrap_or(LOOK), wanted }
    }

    /// A handle on each output, in the order of the configuration.
    #[must_use]
    pub fn switches(&self) -> Vec<Switch> {
        let switch =
            |(index, output): (usize, &Driven)| Switch::new(Arc::clone(&output.name), index, Arc::clone(&self.wanted));
        self.outputs.iter().enumerate().map(switch).collect()
    }

    /// What the chip says of its lines, if any are wanted.
    fn lines(&mut self) -> Lines {
        if self.users.is_empty() { Lines::none() } else { Lines::of(&mut *self.hardware, &self.users) }
    }

    /// Takes everything that can be had. What cannot is told by [`Client::serve`].
    fn establish(&mut self) -> Result<(), LinkError> {
        let lines = self.lines();
        let hardware = &mut *self.hardware;
        let mut faults: Vec<(String, Fault)> = Vec::new();
        for pin in &mut self.pins {
            if let Err(fault) = pin.open(hardware, &lines) {
                faults.push((format!("input {}", pin.line), fault));
            }
        }
        for output in &mut self.outputs {
            if let Err(fault) = output.open(hardware, &lines) {
                faults.push((format!("output {}", output.name), fault));
            }
        }
        faults.extend(self.converters.open(hardware).into_iter().map(|fault| ("converter".to_owned(), fault)));
        if !faults.is_empty() && !self.has_something() && !self.converters.any_open() {
            return Err(faults.swap_remove(0).1.of_link()); // said once, by whoever tries again and again
        }
        for (what, fault) in faults {
            warn!(%what, %fault, "it cannot be had; the rest goes on");
        }
        Ok(())
    }

    /// Whether the chip gives us anything.
    fn has_something(&self) -> bool {
        self.pins.iter().any(Pin::is_held) || self.outputs.iter().any(|output| output.held.is_some())
    }

    /// Delivers until the link breaks.
    async fn serve(&mut self, outlet: &Outlet) -> Result<Infallible, LinkError> {
        let mut wanted = self.wanted.subscribe();
        wanted.mark_changed();
        // Not made anew in each round: what it has seen so far is in it.
        let mut stale = pin!(outlet.stale());
        let mut reads = FuturesUnordered::new();
        let mut batch = self.stand(Time::now());
        outlet.update(|link| link.devices = self.parts().map(|part| part.told().clone()).collect());
        let mut look = Instant::now() + self.look;
        loop {
            tell(outlet, &mut batch).await?;
            reads.extend(self.converters.start(&mut *self.hardware, &mut batch));
            if !batch.readings.is_empty() {
                continue; // a bus that cannot be opened
            }
            self.tell_parts(outlet);
            let due = self.due().map_or(look, |due| due.min(look));
            let pins = &mut self.pins;
            let mut over = Ok(());
            tokio::select! {
                () = poll_fn(|context| any_edge(pins, context)) => self.tell_edges(&mut batch),
                Some(read) = reads.next() => self.converters.take(read, &mut batch),
                Ok(()) = wanted.changed() => {
                    let wanted = wanted.borrow_and_update().clone();
                    self.switch(&wanted);
                }
                silent = &mut stale => {
                    stale.set(outlet.stale());
                    over = self.rouse(&silent, outlet, &mut batch);
                }
                () = sleep_until(due) => {
                    self.wake(&mut batch);
                    if Instant::now() >= look {
                        look = Instant::now() + self.look;
                        self.look(outlet, &mut batch);
                    }
                }
            }
            if !self.has_something() && self.converters.is_empty() && !(self.pins.is_empty() && self.outputs.is_empty())
            {
                // Its tags are told as lost by the supervisor.
                let why =
                    self.hardware.lines().err().map_or_else(|| "no line is left".to_owned(), |fault| fault.to_string());
                over = Err(LinkError::Broken(why));
            }
            if let Err(error) = over {
                tell(outlet, &mut batch).await?; // edges that came before the end are parts that were made
                return Err(error);
            }
        }
    }

    /// Everything as it stands when the link comes up: levels, counts, and what cannot be had.
    fn stand(&mut self, now: Time) -> Batch {
        Batch { readings: self.pins.iter_mut().flat_map(|pin| pin.stand(now)).collect(), ..Batch::default() }
    }

    /// Lines, outputs and converters, each of which can fail for itself.
    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        let pins = self.pins.iter_mut().map(|pin| &mut pin.part);
        let outputs = self.outputs.iter_mut().map(|output| &mut output.part);
        pins.chain(outputs).chain(self.converters.parts())
    }

    /// Tells how each of them stands, if something has changed.
    fn tell_parts(&mut self, outlet: &Outlet) {
        if self.parts().any(|part| part.has_news()) {
            let parts = self.parts();
            outlet.note(|link| {
                parts.zip(&mut link.devices).fold(false, |turned, (part, device)| {
                    let before = std::mem::replace(&mut *device, part.told().clone());
                    turned | (before.breaker.state != device.breaker.state)
                })
            });
        }
    }

    /// When something is due besides the next look.
    fn due(&self) -> Option<Instant> {
        let pins = self.pins.iter().filter_map(Pin::due);
        let outputs = self.outputs.iter().filter_map(|output| output.part.due());
        pins.chain(outputs).chain(self.converters.due()).min()
    }

    fn tell_edges(&mut self, batch: &mut Batch) {
        let now = Time::now();
        for pin in &mut self.pins {
            let told = pin.tell_edges(now, batch);
            settle(pin, told, now, batch);
        }
    }

    /// Levels that have lasted, and lines whose rest is over.
    fn wake(&mut self, batch: &mut Batch) {
        let now = Time::now();
        let rested = |due: Option<Instant>| due.is_some_and(|due| due <= Instant::now());
        let mut lines = None;
        for pin in &mut self.pins {
            if pin.is_held() {
                let woken = pin.wake(now, batch);
                settle(pin, woken, now, batch);
            } else if rested(pin.due()) {
                let hardware = &mut *self.hardware;
                let lines = lines.get_or_insert_with(|| Lines::of(hardware, &self.users));
                if pin.open(hardware, lines).is_ok() {
                    batch.readings.extend(pin.stand(now));
                }
            }
        }
        for (index, output) in self.outputs.iter_mut().enumerate() {
            if rested(output.part.due()) {
                let hardware = &mut *self.hardware;
                let lines = lines.get_or_insert_with(|| Lines::of(hardware, &self.users));
                if output.open(hardware, lines).is_ok() {
                    output.set(self.wanted.borrow()[index]);
                }
            }
        }
    }

    /// Looks at every line that we have.
    fn look(&mut self, outlet: &Outlet, batch: &mut Batch) {
        let now = Time::now();
        let mut there = Vec::new();
        for pin in self.pins.iter_mut().filter(|pin| pin.is_held()) {
            let looked = pin.look(now, batch);
            settle(pin, looked, now, batch);
            if pin.is_held() {
                there.extend(pin.tags());
            }
        }
        if !there.is_empty() {
            outlet.confirm(&there, now);
        }
    }

    /// Silent tags are looked at and told; at the second rung their lines are taken anew first.
    fn rouse(&mut self, stale: &Stale, outlet: &Outlet, batch: &mut Batch) -> Result<(), LinkError> {
        let now = Time::now();
        if stale.rung == Rung::Reconnect {
            return Err(LinkError::Silent(now.since(outlet.state().alive.unwrap_or(now))));
        }
        let lines = if stale.rung == Rung::Renew { Some(self.lines()) } else { None };
        for pin in self.pins.iter_mut().filter(|pin| pin.tags().any(|tag| stale.tags.contains(&tag))) {
            let looked = match &lines {
                Some(lines) => pin.open(&mut *self.hardware, lines),
                None => pin.look(now, batch),
            };
            settle(pin, looked, now, batch);
            if pin.is_held() {
                let stands = pin.stand(now).into_iter();
                batch.readings.extend(stands.filter(|reading| stale.tags.contains(&reading.tag)));
            }
        }
        self.converters.hurry(&stale.tags);
        Ok(())
    }

    fn switch(&mut self, wanted: &[bool]) {
        for (output, on) in self.outputs.iter_mut().zip(wanted) {
            output.set(*on);
        }
    }
}

/// Hands over what there is.
async fn tell(outlet: &Outlet, batch: &mut Batch) -> Result<(), LinkError> {
    if batch.is_empty() {
        return Ok(());
    }
    let told = std::mem::take(batch);
    outlet.deliver(told).await.map_err(|stopped: Stopped| LinkError::Broken(stopped.to_string()))
}

/// Ready when the kernel told of any line; every line was asked then, so that a busy one hides no other.
fn any_edge(pins: &mut [Pin], context: &mut std::task::Context<'_>) -> Poll<()> {
    let told = pins.iter_mut().map(|pin| pin.poll(context)).filter(Poll::is_ready).count();
    if told > 0 { Poll::Ready(()) } else { Poll::Pending }
}

/// A line that failed is bad, and rests.
fn settle(pin: &mut Pin, outcome: Result<(), Fault>, now: Time, batch: &mut Batch) {
    if let Err(fault) = outcome {
        warn!(line = %pin.line, %fault, "an input failed");
        batch.readings.extend(pin.fail(fault, now));
    }
}

impl Driven {
    fn new(Output { name, line, active_low }: Output) -> Self {
        let part = Part::new(format!("output {name}"));
        Self { name, line, active_low, held: None, part }
    }

    /// Takes the line; it is off then.
    fn open(&mut self, hardware: &mut dyn Hardware, lines: &Lines) -> Result<(), Fault> {
        self.held = None;
        self.part.tried();
        let taken = lines.find(&self.line).and_then(|offset| hardware.output(offset, self.active_low));
        match taken {
            Ok(lamp) => {
                self.held = Some(lamp);
                self.part.worked();
                Ok(())
            }
            Err(fault) => {
                self.part.failed();
                Err(fault)
            }
        }
    }

    fn set(&mut self, on: bool) {
        let Some(lamp) = &mut self.held else { return };
        if let Err(error) = lamp.set(on) {
            warn!(output = %self.name, error, "an output failed");
            self.held = None;
            self.part.failed();
        }
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.pins.iter().flat_map(Pin::tags).chain(self.converters.tags()).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.close().await;
        let established = self.establish();
        if established.is_err() {
            self.close().await;
        }
        established
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        match self.serve(outlet).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    /// Outputs go off, and every line is let go.
    async fn close(&mut self) {
        self.pins.iter_mut().for_each(Pin::close);
        self.outputs.iter_mut().for_each(|output| output.held = None);
        self.converters.close();
    }
}
