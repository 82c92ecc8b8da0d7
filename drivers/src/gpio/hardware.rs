//! What the driver asks of the machine below it: a seam, so that it runs whole where there are no pins.

use std::task::{Context, Poll};

use super::analog::Converter;
use super::config::{Bias, Device, Edges, Setup};
use super::output::Switched;
use crate::{LinkError, OwnStatus, Status, Time};

/// A chip of lines and the buses beside it.
pub(super) trait Hardware: Send {
    /// What the chip says of its lines, in their order; the first sign of whether it is there.
    fn lines(&mut self) -> Result<Vec<LineInfo>, Fault>;

    /// Takes a line as an input.
    fn input(&mut self, offset: u32, ask: Ask) -> Result<Box<dyn Input>, Fault>;

    /// Takes a line as an output that is off.
    fn output(&mut self, offset: u32, active_low: bool) -> Result<Box<dyn Switched>, Fault>;

    /// Opens a converter's bus. Whether the converter is there shows when it is read.
    fn converter(&mut self, device: &Device) -> Result<Box<dyn Converter>, Fault>;
}

/// What is known of a line without touching it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LineInfo {
    pub(super) offset: u32,
    /// Empty when it has none.
    pub(super) name: String,
    /// Who has it, if it is taken.
    pub(super) taken: Option<String>,
    pub(super) is_output: bool,
}

/// How an input is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) active_low: bool,
    pub(super) bias: Option<Bias>,
    /// Which edges the kernel tells; none where it cannot.
    pub(super) edges: Option<Edges>,
    /// Whether the kernel waits for a level to stand, and how long.
    pub(super) debounce: Option<std::time::Duration>,
}

impl Ask {
    /// From the best to what every chip can do: edges that the kernel debounces, edges that we debounce, levels at which we
    /// look. A chip on a slow bus often has no interrupts; a kernel may debounce only in hardware that is not there.
    pub(super) fn ladder(setup: &Setup, edges: Edges) -> impl Iterator<Item = Self> {
        let plain = Self { active_low: setup.active_low, bias: setup.bias, edges: None, debounce: None };
        let told = |debounce| Self { edges: Some(edges), debounce, ..plain };
        let best = (!setup.debounce.is_zero()).then(|| told(Some(setup.debounce)));
        // Bounces are edges of both kinds.
        let raw = if best.is_some() { Self { edges: Some(Edges::Both), ..plain } } else { told(None) };
        best.into_iter().chain([raw, plain])
    }
}

/// A line that was taken as an input.
pub(super) trait Input: Send {
    /// Whether it is on.
    fn level(&self) -> Result<bool, Fault>;

    /// Puts the edges that came into `edges`, in order; pending, with nothing put in, while none came.
    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<Result<(), Fault>>;
}

/// An edge that the kernel told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// What the line is after it.
    pub(super) level: bool,
    /// When, by the kernel's realtime clock.
    pub(super) at: Time,
    /// Counts the line's edges from 1. A gap is edges that found the kernel's queue full.
    pub(super) number: u32,
}

/// Why a line or a converter cannot be had, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It is not there.
    #[error("{0}")]
    Missing(String),
    /// Somebody else has it.
    #[error("{0}")]
    Busy(String),
    /// We may not.
    #[error("{0}")]
    Forbidden(String),
    /// It is there and cannot do this.
    #[error("{0}")]
    Unsupported(String),
    /// It was had, and failed.
    #[error("{0}")]
    NoAnswer(String),
}

impl Fault {
    /// As a reading tells it.
    pub(super) fn status(&self) -> Status {
        Status::Own(match self {
            Self::NoAnswer(_) => OwnStatus::NoAnswer,
            Self::Missing(_) | Self::Busy(_) | Self::Forbidden(_) | Self::Unsupported(_) => OwnStatus::Refused,
        })
    }

    /// As the whole link tells it.
    pub(super) fn of_link(self) -> LinkError {
        match self {
            Self::Missing(why) | Self::NoAnswer(why) => LinkError::Unreachable(why),
            Self::Busy(why) | Self::Forbidden(why) | Self::Unsupported(why) => LinkError::Refused(why),
        }
    }
}
