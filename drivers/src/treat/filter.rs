//! `on_change`, `deadband` and `min_interval`.
//!
//! A change of validity always passes. What is compared with is always what upstream knows or will be told next, so a
//! value that returns while another one is held back is not taken for unchanged.

use std::time::Duration;

use tokio::time::Instant;

use super::{Options, Reason};
use crate::{Reading, Validity, Value};

#[derive(Debug)]
pub(super) struct Filter {
    on_change: bool,
    deadband: Option<f64>,
    min_interval: Option<Duration>,
    /// The last that was told, or is held back to be told.
    known: Option<(Value, Validity)>,
    /// When the next one may be told.
    free_at: Option<Instant>,
    held: Option<Reading>,
    /// A timer is set.
    armed: bool,
}

/// Why a reading was left out, if one was, and a timer to be set.
pub(super) type Outcome = (Option<Reason>, Option<Instant>);

impl Filter {
    pub(super) fn new(options: &Options) -> Option<Self> {
        let Options { on_change, deadband, min_interval, .. } = *options;
        (on_change || deadband.is_some() || min_interval.is_some()).then_some(Self {
            on_change,
            deadband,
            min_interval,
            known: None,
            free_at: None,
            held: None,
            armed: false,
        })
    }

    pub(super) fn offer(&mut self, reading: Reading, now: Instant, told: &mut Vec<Reading>) -> Outcome {
        let news = self.known.as_ref().is_none_or(|(_, validity)| *validity != reading.validity);
        if let Some((known, _)) = self.known.as_ref().filter(|_| !news) {
            if self.on_change && same(known, &reading.value) {
                return (Some(Reason::OnChange), None);
            }
            if self.deadband.is_some_and(|band| within(known, &reading.value, band)) {
                return (Some(Reason::Deadband), None);
            }
        }
        self.known = Some((reading.value.clone(), reading.validity));
        let Some(interval) = self.min_interval else {
            told.push(reading);
            return (None, None);
        };
        if news {
            told.extend(self.held.take());
            self.free_at = Some(now + interval);
            told.push(reading);
            return (None, None);
        }
        // The timer may be a little late.
        if self.free_at.is_some_and(|at| at <= now) && self.held.is_some() {
            told.extend(self.held.take());
            self.free_at = Some(now + interval);
        }
        match self.free_at.filter(|at| now < *at) {
            None => {
                self.free_at = Some(now + interval);
                told.push(reading);
                (None, None)
            }
            Some(free_at) => {
                let left_out = self.held.replace(reading).map(|_| Reason::MinInterval);
                let timer = (!self.armed).then_some(free_at);
                self.armed = true;
                (left_out, timer)
            }
        }
    }

    /// The timer fired; when it is to fire again.
    pub(super) fn release(&mut self, now: Instant, told: &mut Vec<Reading>) -> Option<Instant> {
        self.armed = false;
        let (free_at, interval) = (self.free_at?, self.min_interval?);
        self.held.as_ref()?;
        if now < free_at {
            self.armed = true;
            return Some(free_at);
        }
        told.extend(self.held.take());
        self.free_at = Some(now + interval);
        None
    }

    pub(super) fn flush(&mut self, told: &mut Vec<Reading>) {
        told.extend(self.held.take());
    }
}

/// Whether nothing changed: a device may send 3 and then 3.0.
fn same(known: &Value, value: &Value) -> bool {
    match (known, value) {
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => known.as_f64() == value.as_f64(),
        _ => known == value,
    }
}

/// Numbers within the band; what is no number must be the same (OPC 10000-4, 7.22.2: a deadband is for numbers).
fn within(known: &Value, value: &Value, band: f64) -> bool {
    match (known, value) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            let (Some(known), Some(value)) = (known.as_f64(), value.as_f64()) else { return false };
            (value - known).abs() <= band
        }
        _ => known == value,
    }
}
