//! What may be said of control charts.

use serde_json::Value;

use crate::config::amounts::Real;
use crate::config::error::Report;
use crate::config::resolve::RuleWord;
use crate::config::section::{At, Shape, section};
use crate::config::tree::{self, Node};
use crate::config::units::{DAY, Rate, SECOND, Span};
use crate::config::words::{Name, OneOf, Whole};
use crate::model::spc::Kind;

section! {
    /// A control chart: of a measured `tag`, or of counts. A subgroup closes by number (`subgroup`), by the clock (`every`), or
    /// is the first `subgroup` readings of each `every`.
    ChartKeys {
        /// Its name within the station; the tag and the chart unless said: `diameter-xbar_r`.
        name: Name => optional;
        /// Of a measured tag `xbar_r`, `xbar_s`, `i_mr`, `ewma` or `cusum`; of counts `p`, `np`, `c` or `u`.
        chart: OneOf<Kind> => required;
        /// The measured tag; each good reading of it is one measurement.
        tag: Name => optional;
        /// The tag that counts defective parts, for `p` and `np`.
        defective: ChartCounter => optional;
        /// The tag that counts defects, of which a part may have several, for `c` and `u`.
        defects: ChartCounter => optional;
        /// The tag that counts inspected parts, for charts of counts.
        inspected: ChartCounter => optional;
        /// Readings in a subgroup; of charts of counts the inspected parts after which one closes.
        subgroup: Whole<1, 1_000_000> => optional;
        /// How often a subgroup is taken, by the clock on the wall from midnight on.
        every: Span<SECOND, DAY> => optional;
        /// A longer gap between two readings makes the subgroup begin anew, and no moving range spans it.
        max_gap: Span<1, DAY> => optional;
        /// From how many first subgroups limits are estimated, to stand from then on; unless there are `limits`.
        phase_1: Whole<5, 300> => default(25);
        /// What limits follow from, where that is known.
        limits: ChartLimits => optional;
        /// What is looked for: `western_electric` or `nelson` is all of them that make sense for the chart, `nelson_3` is one.
        rules: Vec<At<OneOf<RuleWord>>> => default(["western_electric"]);
        /// What the drawing asks of a part, for capability.
        spec_limits: SpecLimits => optional;
        /// Weight of the newest point of an `ewma`, above 0 and at most 1.
        lambda: Real => default(0.2);
        /// How far the limits of an `ewma` are from its centre, in its own standard deviations.
        width: Real => default(3);
        /// The slack of a `cusum`, in standard deviations of a point: half of the shift to be found.
        k: Real => default(0.5);
        /// The decision interval of a `cusum`, in standard deviations of a point.
        h: Real => default(5);
    }
}

/// A control chart, and which of its keys are written: what is written and wrong is not missing.
#[derive(Debug)]
pub(in crate::config) struct Chart {
    pub(in crate::config) keys: ChartKeys,
    written: Vec<String>,
}

impl Chart {
    /// Whether `key` is written.
    pub(in crate::config) fn says(&self, key: &str) -> bool {
        self.written.iter().any(|written| written == key)
    }
}

impl Shape for Chart {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let keys = ChartKeys::read(node, report)?;
        let tree::Kind::Map(entries) = &node.kind else { return None };
        Some(Self { keys, written: entries.iter().map(|(key, _)| key.scalar.text.clone()).collect() })
    }

    fn schema() -> Value {
        ChartKeys::schema()
    }
}

section! {
    /// A tag that counts for a control chart.
    ChartCounter {
        /// One of the station's tags.
        tag: Name => required;
        /// Where it rolls over to zero: 65536 for a 16-bit register that counts through; without it a fall is a reset.
        modulus: Whole<2, { 1 << 53 }> => optional;
        /// A jump above this rate goes to the loss ledger instead of the chart.
        max_rate: Rate => optional;
    }
}

section! {
    /// What control limits follow from. Charts of a measured tag need `sigma`, or limits as they are drawn; for counts the
    /// centre is enough.
    ChartLimits {
        /// The centre line: the mean, the share of defective parts (`p`), defective parts in a subgroup (`np`), defects in a
        /// subgroup (`c`), defects a part (`u`).
        center: Real => required;
        /// Standard deviation of single readings.
        sigma: Real => optional;
        /// The lower limit as it is drawn, of means, single readings, shares or counts.
        lower: Real => optional;
        /// The upper limit as it is drawn.
        upper: Real => optional;
    }
}

section! {
    /// What the drawing asks of a part; one side may be open.
    SpecLimits {
        /// The least that is good.
        lower: Real => optional;
        /// What is meant.
        target: Real => optional;
        /// The most that is good.
        upper: Real => optional;
    }
}
