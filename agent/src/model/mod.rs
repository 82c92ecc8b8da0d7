//! The line model: states, counts, shifts and the figures they give.
//!
//! Pure: no I/O, no clock, not async. Time is a parameter, so the same readings with the same times
//! give the same figures, always.

pub mod anomaly;
mod by_count;
mod calendar;
mod checkpoint;
mod counter;
pub mod drift;
mod entry;
mod explain;
#[cfg(test)]
mod explained;
mod flow;
mod histogram;
#[cfg(test)]
mod history;
pub mod inspection;
mod ledger;
mod line;
mod losses;
mod memo;
mod monitor;
mod observer;
mod packed;
mod pending;
mod period;
mod piece;
mod plan;
#[cfg(test)]
mod properties;
pub mod quality;
mod rollup;
mod select;
mod setting;
pub mod spc;
mod spec;
mod standing;
mod state;
mod station;
mod tally;
#[cfg(test)]
mod tests;
mod timeline;
mod visit;
mod window;

pub use calendar::{Calendar, Shift, Slot, WHOLE_DAY};
pub use checkpoint::CheckpointError;
pub use entry::{Change, Entry, EntryError, What};
pub use explain::{
    Counted, ExplainError, Explained, Explanation, Figure, LossLine, Selector, SelectorError, Term, Terms, Waterfall,
};
pub use flow::{FlowView, Wait};
pub use line::{Derived, Line, PeriodOf};
pub use losses::{Bucket, Preset, UNASSIGNED};
pub use monitor::InspectedShift;
pub use period::{JOULES_PER_KWH, Period};
pub use plan::Plan;
pub use rollup::rollup;
pub use spec::{
    ByCount, CostSpec, CounterSpec, EnergySpec, ExceptionalDay, FlowSpec, Knowledge, LineBy, MicroStops, OeeSpec,
    Product, Rates, Reason, ReasonSpec, ShiftSpec, StateSpec,
};
pub use standing::Standing;
pub use state::{E10, State};
pub use station::{KPI_EVERY, LATENESS};
pub use tally::Tally;
pub use visit::ContextSpec;
pub use window::{Changeover, ROLLING, Stretch, Window, WindowKind};
