//! The line model: states, counts, shifts and the figures they give.
//!
//! Pure: no I/O, no clock, not async. Time is a parameter, so the same readings with the same times
//! give the same figures, always.

mod spec;
mod state;

pub use spec::{CounterSpec, OeeSpec, ShiftSpec, StateSpec};
pub use state::State;
