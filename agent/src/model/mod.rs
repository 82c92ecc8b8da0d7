//! The line model: states, counts, shifts and the figures they give.
//!
//! Pure: no I/O, no clock, not async. Time is a parameter, so the same readings with the same times
//! give the same figures, always.

mod calendar;
mod checkpoint;
mod counter;
pub mod drift;
mod histogram;
#[cfg(test)]
mod history;
pub mod inspection;
mod ledger;
mod line;
mod losses;
mod period;
pub mod quality;
mod spec;
mod state;
mod station;
#[cfg(test)]
mod tests;
mod visit;

pub use calendar::WHOLE_DAY;
pub use checkpoint::CheckpointError;
pub use line::{Derived, Line, PeriodOf};
pub use losses::{Bucket, Preset};
pub use period::Period;
pub use spec::{
    ByCount, CounterSpec, Knowledge, MicroStops, OeeSpec, Product, Reason, ReasonSpec, ShiftSpec, StateSpec,
};
pub use state::State;
pub use station::{KPI_EVERY, LATENESS};
pub use visit::ContextSpec;
