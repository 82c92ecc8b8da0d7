//! The converters of a link: each read when its stations want it, one at a time, on a thread for blocking work.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{info, warn};

use super::analog::Converter;
use super::config::{Channel, Device, Pins, Range, Station};
use super::hardware::{Fault, Hardware};
use super::part::Part;
use crate::beat::next_turn;
use crate::{Batch, Reading, TagId, Time, Value};

/// What is said of reads that were left out.
const LEFT_OUT: &str = "GPIO: reads of a converter were left out, since the one before took too long";

/// All of a link.
pub(super) struct Converters(Vec<Adc>);

struct Adc {
    device: Device,
    /// Here while it is not being read.
    converter: Option<Box<dyn Converter>>,
    reading: bool,
    groups: Vec<Group>,
    part: Part,
    failing: bool,
    /// Its last answer.
    heard: Option<Time>,
}

/// What one station reads of one converter.
struct Group {
    station: Arc<str>,
    poll: Duration,
    due: Instant,
    wanted: Vec<(TagId, Pins, Range)>,
}

/// A read that has ended.
pub(super) struct Read {
    adc: usize,
    /// None if the library panicked.
    outcome: Option<(Box<dyn Converter>, Answers)>,
}

/// What was asked together.
pub(super) struct Answers {
    pub(super) told: Vec<Told>,
    /// Ends the read.
    pub(super) fault: Option<Fault>,
}

/// One answer.
pub(super) struct Told {
    pub(super) tag: TagId,
    pub(super) volts: f64,
    pub(super) at: Time,
    pub(super) took: Duration,
}

impl Converters {
    pub(super) fn new(devices: Vec<Device>, stations: &[Station]) -> Self {
        let adc = |(index, device): (usize, Device)| {
            let of_station = |station: &Station| {
                let mine = |channel: &&Channel| channel.device == index;
                let wanted: Vec<_> = station
                    .channels
                    .iter()
                    .filter(mine)
                    .map(|channel| (channel.id, channel.pins, channel.range))
                    .collect();
                let (station, poll) = (Arc::clone(&station.name), station.poll.max(Duration::from_millis(1)));
                (!wanted.is_empty()).then(|| Group { station, poll, due: Instant::now(), wanted })
            };
            let groups: Vec<Group> = stations.iter().filter_map(of_station).collect();
            let mut part = Part::new(format!("converter {}", device.name));
            groups.iter().for_each(|group| part.serves(&group.station));
            Adc { device, converter: None, reading: false, groups, part, failing: false, heard: None }
        };
        Self(devices.into_iter().enumerate().map(adc).collect())
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = TagId> {
        self.0.iter().flat_map(Adc::tags)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn any_open(&self) -> bool {
        self.0.iter().any(|adc| adc.converter.is_some())
    }

    /// Opens every bus; what cannot be opened.
    pub(super) fn open(&mut self, hardware: &mut dyn Hardware) -> Vec<Fault> {
        let now = Instant::now();
        self.0.iter_mut().for_each(|adc| adc.groups.iter_mut().for_each(|group| group.due = now));
        self.0.iter_mut().filter_map(|adc| adc.open(hardware).err()).collect()
    }

    /// Lets every bus go. What is being read ends by itself.
    pub(super) fn close(&mut self) {
        for adc in &mut self.0 {
            (adc.converter, adc.reading, adc.failing) = (None, false, false);
            adc.part.worked();
        }
    }

    /// What becomes of each.
    pub(super) fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.0.iter_mut().map(|adc| &mut adc.part)
    }

    /// When one is due that is not being read.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.iter().filter(|adc| !adc.reading).filter_map(Adc::due).min()
    }

    /// These tags are read at once, if their converter does not rest.
    pub(super) fn hurry(&mut self, tags: &[TagId]) {
        let now = Instant::now();
        for group in self.0.iter_mut().flat_map(|adc| &mut adc.groups) {
            if group.wanted.iter().any(|(tag, ..)| tags.contains(tag)) {
                group.due = group.due.min(now);
            }
        }
    }

    /// Begins every read that is due.
    pub(super) fn start(&mut self, hardware: &mut dyn Hardware, batch: &mut Batch) -> Vec<BoxFuture<'static, Read>> {
        let now = Instant::now();
        let mut started: Vec<BoxFuture<'static, Read>> = Vec::new();
        for (index, adc) in self.0.iter_mut().enumerate() {
            if adc.reading || adc.due().is_none_or(|due| due > now) {
                continue;
            }
            adc.part.tried();
            if adc.converter.is_none()
                && let Err(fault) = adc.open(hardware)
            {
                adc.fail(&fault, batch);
                continue;
            }
            let wanted = adc.take_turn(now, batch);
            let Some(mut converter) = adc.converter.take() else { continue };
            adc.reading = true;
            let read = spawn_blocking(move || {
                let answers = ask(&mut *converter, &wanted);
                (converter, answers)
            });
            started.push(Box::pin(async move { Read { adc: index, outcome: read.await.ok() } }));
        }
        started
    }

    /// Tells what came of a read.
    pub(super) fn take(&mut self, Read { adc, outcome }: Read, batch: &mut Batch) {
        let adc = &mut self.0[adc];
        adc.reading = false;
        let Some((converter, Answers { told, fault })) = outcome else {
            adc.fail(&Fault::NoAnswer("the converter's library panicked".to_owned()), batch);
            return;
        };
        batch
            .readings
            .extend(told.iter().map(|told| Reading::good(told.tag, Value::Float(told.volts), told.at, told.at)));
        adc.heard = told.last().map(|told| told.at).or(adc.heard);
        let Some(fault) = fault else {
            if std::mem::take(&mut adc.failing) {
                info!(device = %adc.device.name, "the converter answers again");
            }
            adc.part.worked();
            adc.converter = Some(converter);
            return;
        };
        adc.fail(&fault, batch);
    }

    /// Asks each for all its tags, once, and tells what came. A converter that cannot be had tells nothing but its fault.
    pub(super) async fn ask_all(
        &mut self,
        told: &mut (dyn FnMut(&[TagId], Answers) + Send),
        hardware: &mut dyn Hardware,
    ) {
        for adc in &mut self.0 {
            let tags: Vec<_> = adc.tags().collect();
            if adc.converter.is_none()
                && let Err(fault) = adc.open(hardware)
            {
                told(&tags, Answers { told: Vec::new(), fault: Some(fault) });
                continue;
            }
            let Some(mut converter) = adc.converter.take() else { continue };
            let wanted: Vec<_> = adc.groups.iter().flat_map(|group| group.wanted.iter().copied()).collect();
            let asked = spawn_blocking(move || {
                let answers = ask(&mut *converter, &wanted);
                (converter, answers)
            });
            let fault = || Fault::NoAnswer("the converter's library panicked".to_owned());
            let answers = match asked.await {
                Ok((converter, answers)) => {
                    adc.converter = Some(converter);
                    answers
                }
                Err(_) => Answers { told: Vec::new(), fault: Some(fault()) },
            };
            told(&tags, answers);
        }
    }

    /// The converters that the configuration names.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Device> {
        self.0.iter().map(|adc| &adc.device)
    }
}

impl Adc {
    fn tags(&self) -> impl Iterator<Item = TagId> {
        self.groups.iter().flat_map(|group| group.wanted.iter().map(|(tag, ..)| *tag))
    }

    fn open(&mut self, hardware: &mut dyn Hardware) -> Result<(), Fault> {
        self.converter = Some(hardware.converter(&self.device)?);
        Ok(())
    }

    /// When it is to be read: at its first group's turn, not before its rest is over.
    fn due(&self) -> Option<Instant> {
        let turn = self.groups.iter().map(|group| group.due).min()?;
        Some(self.part.due().map_or(turn, |rested| rested.max(turn)))
    }

    /// What is to be read now. Turns that have passed are left out; if they are many, they are a loss.
    fn take_turn(&mut self, now: Instant, batch: &mut Batch) -> Vec<(TagId, Pins, Range)> {
        let mut wanted = Vec::new();
        for group in self.groups.iter_mut().filter(|group| group.due <= now) {
            wanted.extend_from_slice(&group.wanted);
            let (turn, missed) = next_turn(group.due, group.poll, now);
            group.due = turn;
            // While it failed its tags were bad, which says it already.
            let missed = missed.filter(|_| !self.failing);
            batch.losses.extend(missed.map(|missed| missed.loss(&group.station, group.wanted.len(), LEFT_OUT)));
        }
        wanted
    }

    /// All its tags are bad, from its last answer on. It rests, and is made anew.
    fn fail(&mut self, fault: &Fault, batch: &mut Batch) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(device = %self.device.name, bus = %self.device.bus, %fault, "a converter failed; the rest goes on");
        }
        self.converter = None;
        self.part.failed();
        let now = Time::now();
        let since = self.heard.take().unwrap_or(now);
        let bad = self.tags().map(|tag| Reading::bad(tag, fault.status(), since, now));
        batch.readings.extend(bad);
    }
}

/// Blocks. The first fault ends it: a bus that hangs is not asked once more for each channel.
fn ask(converter: &mut dyn Converter, wanted: &[(TagId, Pins, Range)]) -> Answers {
    let mut told = Vec::with_capacity(wanted.len());
    for &(tag, pins, range) in wanted {
        let asked = Instant::now();
        match converter.volts(pins, range) {
            Ok(volts) => told.push(Told { tag, volts, at: Time::now(), took: asked.elapsed() }),
            Err(fault) => return Answers { told, fault: Some(fault) },
        }
    }
    Answers { told, fault: None }
}
