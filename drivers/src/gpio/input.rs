//! An input line with the tags that are read from it: from edges to states and counts.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tracing::{info, warn};

use super::config::{Edges, Line, Setup};
use super::debounce::Debounce;
use super::hardware::{Ask, Edge, Fault, Hardware, Input};
use super::lines::Lines;
use super::part::Part;
use crate::{Batch, Loss, OwnStatus, Reading, Status, TagId, Time, Value};

/// What is said of edges that found the kernel's queue full.
const MISSED: &str = "GPIO: edges came faster than they were taken, and the kernel's queue was full";
/// The same where the kernel's numbers say how many edges of the one kind there were.
const UNDATED: &str = "GPIO: edges came faster than they were taken; they are counted, and their times are not known";

/// A line, had or not.
pub(super) struct Pin {
    pub(super) line: Line,
    setup: Setup,
    tags: Vec<Tag>,
    held: Option<Held>,
    pub(super) part: Part,
    /// Edges taken from the kernel and not told yet.
    edges: Vec<Edge>,
    /// Why the line failed, until that is told.
    broke: Option<Fault>,
    /// Why it is not ours.
    fault: Option<Fault>,
    /// When it was last seen to be there.
    heard: Option<Time>,
}

struct Tag {
    id: TagId,
    station: Arc<str>,
    count: Option<Count>,
}

/// Goes up from 0 since the driver began, over losses of the link too.
struct Count {
    edges: Edges,
    so_far: i64,
}

/// A line that we have.
struct Held {
    input: Box<dyn Input>,
    ask: Ask,
    /// With no wait where the kernel waits.
    debounce: Debounce,
    /// Whether we wait ourselves for a level to stand.
    own: bool,
    /// The number and time of the last edge.
    last: (u32, Time),
    /// When something is to be done without an edge.
    wake: Option<Instant>,
    /// The last look saw another level than the edges have told.
    doubted: bool,
}

impl Pin {
    pub(super) fn new(line: Line, setup: Setup) -> Self {
        let (tags, edges, part) = (Vec::new(), Vec::new(), Part::new(format!("input {line}")));
        Self { line, setup, tags, held: None, part, edges, broke: None, fault: None, heard: None }
    }

    pub(super) fn add(&mut self, id: TagId, station: Arc<str>, count: Option<Edges>) {
        self.part.serves(&station);
        let count = count.map(|edges| Count { edges, so_far: 0 });
        self.tags.push(Tag { id, station, count });
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = TagId> {
        self.tags.iter().map(|tag| tag.id)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The edges that its tags need.
    fn wanted(&self) -> Edges {
        let mut wanted = self.tags.iter().map(|tag| tag.count.as_ref().map_or(Edges::Both, |count| count.edges));
        let first = wanted.next().unwrap_or(Edges::Both);
        if wanted.all(|other| other == first) { first } else { Edges::Both }
    }

    /// Takes the line, in the best way that its chip has.
    pub(super) fn open(&mut self, hardware: &mut dyn Hardware, lines: &Lines) -> Result<(), Fault> {
        self.close();
        self.part.tried();
        let outcome = self.take_line(hardware, lines);
        match &outcome {
            Ok(()) => self.part.worked(),
            Err(_) => self.part.failed(),
        }
        self.fault = outcome.clone().err();
        outcome
    }

    fn take_line(&mut self, hardware: &mut dyn Hardware, lines: &Lines) -> Result<(), Fault> {
        let offset = lines.find(&self.line)?;
        let mut refused = None;
        for ask in Ask::ladder(&self.setup, self.wanted()) {
            let input = match hardware.input(offset, ask) {
                Ok(input) => input,
                Err(fault @ Fault::Unsupported(_)) => {
                    refused = Some(fault);
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            if let Some(why) = refused {
                let how = if ask.edges.is_some() { "gemba debounces" } else { "gemba looks at it now and then" };
                info!(line = %self.line, %why, "not all that was asked of the chip can be had: {how}");
            }
            let own = ask.debounce.is_none() && !self.setup.debounce.is_zero();
            let wait = if own { self.setup.debounce } else { std::time::Duration::ZERO };
            let now = Time::now();
            let debounce = Debounce::new(wait, input.level()?);
            self.held = Some(Held { input, ask, debounce, own, last: (0, now), wake: None, doubted: false });
            self.heard = Some(now);
            return Ok(());
        }
        Err(refused.unwrap_or_else(|| Fault::Unsupported(format!("{} cannot be read", self.line))))
    }

    /// Lets the line go.
    pub(super) fn close(&mut self) {
        self.held = None;
        self.broke = None;
        self.edges.clear();
    }

    /// Takes what the kernel has; ready if that is something.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(held) = &mut self.held else { return Poll::Pending };
        match held.input.poll_edges(context, &mut self.edges) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(fault)) => {
                self.broke = Some(fault);
                Poll::Ready(())
            }
        }
    }

    /// Tells what [`Pin::poll`] took.
    pub(super) fn tell_edges(&mut self, now: Time, batch: &mut Batch) -> Result<(), Fault> {
        let mut edges = std::mem::take(&mut self.edges);
        for edge in edges.drain(..) {
            self.tell_edge(edge, now, batch);
        }
        self.edges = edges; // with its room
        self.broke.take().map_or(Ok(()), Err)
    }

    fn tell_edge(&mut self, edge: Edge, now: Time, batch: &mut Batch) {
        let Some(held) = &mut self.held else { return };
        self.heard = Some(now);
        held.doubted = false;
        let (number, before) = std::mem::replace(&mut held.last, (edge.number, edge.at));
        // Numbers wrap round; one that does not follow is no gap of four thousand million.
        let missed = edge.number.wrapping_sub(number).wrapping_sub(1);
        let missed = if missed > u32::MAX / 2 { 0 } else { missed };
        // Where the kernel tells only what is counted, its numbers are the count.
        let exact =
            !held.own && self.tags.iter().all(|tag| tag.count.as_ref().map(|count| count.edges) == held.ask.edges);
        if missed > 0 {
            let span = (before.min(edge.at), edge.at);
            lose(&self.tags, span, u64::from(missed), if exact { UNDATED } else { MISSED }, batch);
        }
        let changed = held.debounce.see(edge.level, edge.at);
        if held.own {
            held.wake_up(now);
            if let Some((level, at)) = changed {
                self.change(level, at, now, batch);
            }
            return;
        }
        for tag in &mut self.tags {
            let value = match &mut tag.count {
                Some(count) if count.edges.include(edge.level) => {
                    count.so_far += 1 + if exact { i64::from(missed) } else { 0 };
                    Value::Int(count.so_far)
                }
                None if changed.is_some() => Value::Bool(edge.level),
                Some(_) | None => continue,
            };
            batch.readings.push(Reading::good(tag.id, value, edge.at, now));
        }
    }

    /// The level is another, and has lasted.
    fn change(&mut self, level: bool, at: Time, now: Time, batch: &mut Batch) {
        for tag in &mut self.tags {
            let value = match &mut tag.count {
                None => Value::Bool(level),
                Some(count) if count.edges.include(level) => {
                    count.so_far += 1;
                    Value::Int(count.so_far)
                }
                Some(_) => continue,
            };
            batch.readings.push(Reading::good(tag.id, value, at, now));
        }
    }

    /// When it wants attention without an edge: a level that has lasted, or the line tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.as_ref().map_or_else(|| self.part.due(), |held| held.wake)
    }

    /// A level that waits may have lasted.
    pub(super) fn wake(&mut self, now: Time, batch: &mut Batch) -> Result<(), Fault> {
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.wake.take_if(|wake| *wake <= Instant::now()).is_none() {
            return Ok(());
        }
        if held.ask.edges.is_none() {
            return self.look(now, batch);
        }
        // No edge came, so the wait is over, whatever the clock on the wall has done meanwhile.
        let due = held.debounce.due().unwrap_or(now);
        if let Some((level, at)) = held.debounce.settle(due) {
            self.change(level, at, now, batch);
        }
        Ok(())
    }

    /// Looks at the level: where there are no edges that is how it is read, where there are it proves that the line is
    /// still ours, and finds out an interrupt that was lost.
    pub(super) fn look(&mut self, now: Time, batch: &mut Batch) -> Result<(), Fault> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let level = held.input.level()?;
        self.heard = Some(now);
        let differs = level != held.debounce.level();
        let changed = match held.ask.edges {
            None => {
                let changed = held.debounce.see(level, now);
                held.wake_up(now);
                changed
            }
            Some(Edges::Both) if differs && held.debounce.due().is_none() => {
                // Its edge may be on the way. If it still differs at the next look, none is.
                if std::mem::replace(&mut held.doubted, true) {
                    held.doubted = false;
                    warn!(line = %self.line, "the level changed, and the kernel told no edge");
                    held.debounce.see(level, now).or_else(|| held.debounce.settle(held.debounce.due()?))
                } else {
                    None
                }
            }
            Some(_) => {
                held.doubted = false;
                None
            }
        };
        if let Some((level, at)) = changed {
            self.change(level, at, now, batch);
        }
        Ok(())
    }

    /// Every tag as it stands; bad if the line is not ours.
    pub(super) fn stand(&mut self, now: Time) -> Vec<Reading> {
        let Some(held) = &self.held else { return self.bad(now) };
        let level = Value::Bool(held.debounce.level());
        let value = |tag: &Tag| tag.count.as_ref().map_or(level.clone(), |count| Value::Int(count.so_far));
        self.tags.iter().map(|tag| Reading::good(tag.id, value(tag), now, now)).collect()
    }

    /// The level that counts, if the line is ours.
    pub(super) fn level(&self) -> Option<bool> {
        self.held.as_ref().map(|held| held.debounce.level())
    }

    /// The line failed and rests until it is tried again; every tag is bad.
    pub(super) fn fail(&mut self, fault: Fault, now: Time) -> Vec<Reading> {
        self.close();
        self.part.failed();
        self.fault = Some(fault);
        self.bad(now)
    }

    /// From the last sign of the line on.
    fn bad(&mut self, now: Time) -> Vec<Reading> {
        let status = self.fault.as_ref().map_or(Status::Own(OwnStatus::NoData), Fault::status);
        let since = self.heard.take().unwrap_or(now);
        self.tags.iter().map(|tag| Reading::bad(tag.id, status, since, now)).collect()
    }
}

impl Held {
    /// Sets the alarm for the level that waits, by a clock that nobody sets.
    fn wake_up(&mut self, now: Time) {
        self.wake = self.debounce.due().map(|due| Instant::now() + due.since(now));
    }
}

/// One entry for each station that reads the line.
fn lose(tags: &[Tag], (from, to): (Time, Time), count: u64, reason: &'static str, batch: &mut Batch) {
    for (at, tag) in tags.iter().enumerate() {
        if tags[..at].iter().any(|earlier| earlier.station == tag.station) {
            continue;
        }
        let (source, reason) = (Arc::clone(&tag.station), reason.into());
        batch.losses.push(Loss { source, from, to, count, reason });
    }
}
