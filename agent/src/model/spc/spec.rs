//! What a chart is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::TagId;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::rules::Rule;
use crate::model::CounterSpec;

/// A control chart.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartSpec {
    /// Its name within the station.
    pub name: Arc<str>,
    /// What it is drawn of.
    pub input: Input,
    /// What its points and limits follow from: another setting is another chart.
    pub setting: Setting,
    /// What is looked for, each once. EWMA and CUSUM look for their own limits only.
    pub rules: Vec<Rule>,
    /// What the drawing asks for, for capability.
    pub tolerance: Option<Tolerance>,
    /// In which `every` is told: a turn begins at local midnight, and then each `every`.
    pub zone: TimeZone,
}

/// What the points and limits of a chart follow from. What has been gathered under another one is worth nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The names of its tags: `diameter`, or `rejects/total`.
    pub of: Arc<str>,
    /// Which chart.
    pub kind: Kind,
    /// Readings in a subgroup; of charts of counts, the inspected parts that close one. `None`: all of a turn.
    pub size: Option<u32>,
    /// How often a subgroup is taken: the first `size` readings of each turn, or all that comes in it. `None`: one after
    /// the other.
    pub every: Option<Duration>,
    /// A longer gap between two readings splits: a subgroup begins anew, and no moving range spans it.
    pub max_gap: Option<Duration>,
    /// Where limits come from.
    pub limits: LimitsFrom,
}

/// What a chart is drawn of.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A measured value; each good reading is one measurement.
    Readings(TagId),
    /// Differences of counters.
    Counts {
        /// What is bad: defective parts (p, np), or defects (c, u).
        defects: CounterSpec,
        /// Parts inspected. `None`: a c chart by the clock.
        inspected: Option<CounterSpec>,
    },
}

/// Which chart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// Mean and range of subgroups of 2 to 25.
    XbarR,
    /// Mean and standard deviation of subgroups of 2 or more.
    XbarS,
    /// Single readings, and how far each is from the one before.
    IMr,
    /// Share of defective parts.
    P,
    /// Number of defective parts in subgroups of one size.
    Np,
    /// Number of defects in subgroups of one size.
    C,
    /// Defects a part.
    U,
    /// Exponentially weighted moving average of means (of single readings, if the subgroup is 1).
    Ewma {
        /// Weight of the newest point, above 0 and at most 1.
        lambda: f64,
        /// How far its limits are from the centre, in its own standard deviations.
        width: f64,
    },
    /// Tabular cumulative sum of means (of single readings, if the subgroup is 1).
    Cusum {
        /// The slack, in standard deviations of a point: half of the shift to be found.
        k: f64,
        /// The decision interval, in standard deviations of a point.
        h: f64,
    },
}

impl Kind {
    /// Every chart; EWMA and CUSUM with what they have without a word (Montgomery, 9.1 and 9.2; as R's qcc).
    pub const ALL: [Self; 9] = [
        Self::XbarR,
        Self::XbarS,
        Self::IMr,
        Self::P,
        Self::Np,
        Self::C,
        Self::U,
        Self::Ewma { lambda: 0.2, width: 3.0 },
        Self::Cusum { k: 0.5, h: 5.0 },
    ];

    /// The word used in configuration and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::XbarR => "xbar_r",
            Self::XbarS => "xbar_s",
            Self::IMr => "i_mr",
            Self::P => "p",
            Self::Np => "np",
            Self::C => "c",
            Self::U => "u",
            Self::Ewma { .. } => "ewma",
            Self::Cusum { .. } => "cusum",
        }
    }

    /// Whether it is drawn of counts.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::P | Self::Np | Self::C | Self::U)
    }

    /// Whether it has limits of its own kind, and so no rules of runs and zones.
    #[must_use]
    pub fn weighs(self) -> bool {
        matches!(self, Self::Ewma { .. } | Self::Cusum { .. })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where limits come from. Nothing here is ever estimated a second time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum LimitsFrom {
    /// From so many first subgroups; then they stand.
    Phase1(u32),
    /// From what the process is known to be ("standard given", Montgomery 6.2.5).
    Known {
        /// The mean; of a p and np chart the share of defective parts, of a c chart the defects in a subgroup, of a u chart
        /// the defects a part.
        center: f64,
        /// Standard deviation of single readings; of charts of counts it follows from the centre.
        sigma: Option<f64>,
    },
    /// As they are drawn, whatever the size of the subgroup; a side without one has no limit.
    Drawn {
        /// The centre line.
        center: f64,
        /// The lower limit, below the centre.
        lower: Option<f64>,
        /// The upper limit, above the centre.
        upper: Option<f64>,
    },
}

/// What the drawing asks of a single part, in the tag's unit. One side may be open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// The least that is good.
    pub lower: Option<f64>,
    /// What is meant.
    pub target: Option<f64>,
    /// The most that is good.
    pub upper: Option<f64>,
}

impl ChartSpec {
    /// Whether `tag` is one that it is drawn of.
    #[must_use]
    pub fn reads(&self, tag: TagId) -> bool {
        match &self.input {
            Input::Readings(of) => *of == tag,
            Input::Counts { defects, inspected } => {
                defects.tag == tag || inspected.as_ref().is_some_and(|counter| counter.tag == tag)
            }
        }
    }
}
