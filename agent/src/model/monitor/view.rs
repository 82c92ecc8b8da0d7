//! What watches a station, as it stands, for people.

use gemba_drivers::Time;

use super::{Charted, Monitor, Setting};
use crate::model::spc::{ChartSpec, Window};
use crate::record::CapabilityPoint;
use crate::snapshot::{ChartView, DetectorView, InspectionView};

/// How many anomalies that are over are shown.
const SHOWN: usize = 10;

impl Monitor {
    /// Its detectors: what was settled by now, which is what has happened up to [`LATENESS`](crate::model::LATENESS) ago.
    pub fn detectors(&self, setting: Setting<'_>) -> Vec<DetectorView> {
        let detectors = self.detectors.iter().zip(&setting.watch.detectors);
        detectors
            .map(|(kept, (spec, tag))| {
                let view = kept.what.view(spec);
                DetectorView {
                    name: spec.name.clone(),
                    tag: tag.clone(),
                    method: spec.method.word(),
                    since: kept.since,
                    baseline: view.baseline,
                    open: view.open.copied(),
                    over: view.over.iter().rev().take(SHOWN).copied().collect(),
                    counts: view.counts,
                    latency: view.latency.clone(),
                    verdicts: view.verdicts,
                }
            })
            .collect()
    }

    /// Its charts, likewise.
    pub fn charts(&self, setting: Setting<'_>) -> Vec<ChartView> {
        let charts = self.charts.iter().zip(&setting.watch.charts);
        charts
            .map(|(kept, spec)| ChartView {
                of: kept.of.clone(),
                since: kept.since,
                broken: kept.what.broken.clone(),
                chart: kept.what.chart.view(spec),
            })
            .collect()
    }

    /// Its inspection at `now`, likewise.
    pub fn inspection(&self, setting: Setting<'_>, now: Time) -> Option<InspectionView> {
        let (kept, (spec, _)) = (self.inspection.as_ref()?, setting.watch.inspection.as_ref()?);
        let inspected = &kept.what;
        let since = kept.since;
        Some(InspectionView {
            since,
            sums: since.map(|since| inspected.sums(spec, since)),
            shift: since.and_then(|since| inspected.running(setting, spec, since, now)),
            model: inspected.inspection.model_version().cloned(),
            learnt: inspected.inspection.learnt(spec),
        })
    }
}

impl Charted {
    /// Since its limits stand.
    pub(super) fn capability(&self, spec: &ChartSpec) -> CapabilityPoint {
        let view = self.chart.view(spec);
        let since = view.capability.into_iter().find(|capability| capability.window == Window::SinceLimits);
        since.map_or_else(CapabilityPoint::default, |of| CapabilityPoint {
            cp: of.cp,
            cpk: of.cpk,
            pp: of.pp,
            ppk: of.ppk,
            cpm: of.cpm,
        })
    }
}
