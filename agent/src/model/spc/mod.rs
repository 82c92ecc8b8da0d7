//! Control charts: is a measured value, or a share of bad parts, what the process gives when nothing is wrong with it?
//!
//! Readings or counts are gathered into subgroups ([`chart`]), a subgroup becomes a point, limits are laid round it
//! ([`limits`]), and rules look for what chance alone hardly does ([`rules`], [`weighed`]). Limits are given, or estimated once
//! from the first subgroups and frozen; they are never estimated again without a word. Capability compares what the process
//! gives with what the drawing asks for ([`capability`]).
//!
//! Pure, as the whole model: the same readings in the same order give the same points and violations, whatever the batches
//! they came in and however often [`Chart::advance`] was called between them.
//!
//! Sources: D. C. Montgomery, Introduction to Statistical Quality Control, 7th edition, chapters 6 to 9 ("Montgomery" in what
//! follows); ASTM E2587; NIST/SEMATECH e-Handbook of Statistical Methods, 6.1.6 and 6.3; L. S. Nelson, The Shewhart Control
//! Chart: Tests for Special Causes, Journal of Quality Technology 16 (1984). What is asked of it by published numbers stands in
//! tests/fixtures/vectors/spc.json.

mod capability;
mod chart;
mod constants;
mod limits;
mod rules;
mod spec;
mod subgroup;
#[cfg(test)]
mod tests;
mod view;
mod weighed;

pub use capability::{Capability, Window};
pub use chart::{Chart, Point};
pub use limits::Limits;
pub use rules::{Named, Part, Rule, Side, Violation};
pub use spec::{ChartSpec, Input, Kind, LimitsFrom, Setting, Tolerance};
pub use view::{Phase, Plotted, View};
pub use weighed::Weighed;
