//! Several windows as one: stations of a line, shifts of a day.

use gemba_drivers::{TagId, Time};

use crate::model::period::{Count, Counts};
use crate::model::tally::Tally;
use crate::model::{CounterSpec, OeeSpec};
use crate::snapshot::KpiView;

/// The figures of several stations together, each given with what it is computed by: their times, parts and ideal times are
/// added up, so that who had more time to run, or more to make, weighs more. A mean of their ratios would be wrong.
///
/// It is how effective the machines are as a group. The OEE of a line is another figure: its parts count once, at the end.
/// Parts are known where every station counts them; coverage has to reach the highest `min_coverage`. `None` of nothing.
#[must_use]
pub fn rollup<'a>(parts: impl IntoIterator<Item = (&'a Tally, &'a OeeSpec)>, since: Time) -> Option<KpiView> {
    let mut sum: Option<(Tally, OeeSpec, bool)> = None;
    for (tally, spec) in parts {
        let (all, of_all, assumed) = sum.get_or_insert_with(|| (Tally::default(), counts_all(spec), false));
        all.add(&tally.told_whole(spec));
        *assumed |= tally.view(spec, since).quality_assumed;
        of_all.min_coverage = of_all.min_coverage.max(spec.min_coverage);
        of_all.ideal_cycle_time = of_all.ideal_cycle_time.and(spec.ideal_cycle_time);
        of_all.startup = of_all.startup.take().or_else(|| spec.startup.clone());
        of_all.rework = of_all.rework.take().or_else(|| spec.rework.clone());
        if tally.counts.total(spec).is_none() {
            (of_all.total, of_all.good, of_all.reject) = (None, None, None);
        }
    }
    let (all, spec, quality_assumed) = sum?;
    Some(KpiView { quality_assumed, ..all.view(&spec, since) })
}

/// A station that counts all there is to count, so that nothing is derived.
fn counts_all(spec: &OeeSpec) -> OeeSpec {
    let counter = || Some(CounterSpec::of(TagId(0)));
    OeeSpec { total: counter(), good: counter(), reject: counter(), ..spec.clone() }
}

impl Counts {
    /// With what two of them say of the third written out.
    pub(super) fn told_whole(&self, spec: &OeeSpec) -> Self {
        let mut whole = Self::default();
        let told = [
            (Count::Total, self.total(spec)),
            (Count::Good, self.good(spec)),
            (Count::Reject, self.reject(spec)),
            (Count::Rework, self.rework(spec)),
        ];
        told.into_iter().for_each(|(count, parts)| whole.add(count, parts.unwrap_or(0.0)));
        whole
    }
}
