//! A chart as the page shows it.

use std::sync::Arc;

use gemba_drivers::Time;

use super::capability::{Capability, Window};
use super::chart::{Chart, Point};
use super::limits::Limits;
use super::rules::Violation;
use super::spec::{ChartSpec, Kind, LimitsFrom};

/// A chart as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its name within the station.
    pub name: Arc<str>,
    /// Which chart.
    pub kind: Kind,
    /// How far it has come, and where its limits come from.
    pub phase: Phase,
    /// Standard deviation of single readings within a subgroup, that limits follow from; of charts of counts `None`.
    pub sigma: Option<f64>,
    /// The last points with their lines, in order of time: at most 50, in phase 1 all of it.
    pub points: Vec<Plotted>,
    /// The last 20 violations, in order of time.
    pub violations: Vec<Violation>,
    /// Whether the last point breaks no rule; `None` while there are no limits or no point.
    pub in_control: Option<bool>,
    /// Of phase 1 and since, where there is a tolerance; an entry has readings.
    pub capability: Vec<Capability>,
    /// Readings that came out of order and were left out.
    pub late: u64,
    /// Subgroups that were given up before they were full.
    pub incomplete: u64,
}

/// How far a chart has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gathers what limits are estimated from.
    One {
        /// So many subgroups so far,
        have: usize,
        /// of so many.
        of: usize,
    },
    /// Watches by limits that phase 1 gave; they are frozen.
    Estimated {
        /// When its first reading was.
        from: Time,
        /// When its last reading was.
        to: Time,
        /// How many subgroups it had.
        subgroups: u32,
    },
    /// Watches by limits that the configuration gives.
    Given,
}

/// A point with its lines, `None` while there are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plotted {
    /// The subgroup.
    pub point: Point,
    /// Round means, readings, shares, counts or sums.
    pub location: Option<Limits>,
    /// Round ranges or standard deviations, where the chart has them.
    pub spread: Option<Limits>,
}

impl Chart {
    /// The chart as it stands under this spec.
    #[must_use]
    pub fn view(&self, spec: &ChartSpec) -> View {
        let setting = &spec.setting;
        let fresh = Self::default();
        // What was gathered under another setting is of another chart.
        let chart = if self.suits(setting) { self } else { &fresh };
        let basis = chart.basis(setting);
        let kind = setting.kind;
        let plotted = |point: &Point| Plotted {
            point: *point,
            location: basis.map(|basis| basis.location(kind, point.size, point.index)),
            spread: basis.and_then(|basis| basis.spread(kind, point.size)),
        };
        let phase = match (setting.limits, chart.estimated) {
            (LimitsFrom::Phase1(of), None) => Phase::One { have: chart.points.len(), of: of as usize },
            (LimitsFrom::Phase1(subgroups), Some(estimated)) => {
                Phase::Estimated { from: estimated.from, to: estimated.to, subgroups }
            }
            (LimitsFrom::Known { .. } | LimitsFrom::Drawn { .. }, _) => Phase::Given,
        };
        let flagged = chart.violations.last().and_then(Violation::at).map(|named| named.index);
        let last = chart.points.last().map(|point| point.index);
        let sigma = basis.and_then(|basis| basis.sigma);
        let windows = [(Window::Phase1, &chart.first), (Window::SinceLimits, &chart.since)];
        let capability = |(window, run)| Capability::of(window, run, sigma, spec.tolerance.as_ref()?);
        View {
            name: Arc::clone(&spec.name),
            kind,
            phase,
            sigma,
            points: chart.points.iter().map(plotted).collect(),
            violations: chart.violations.clone(),
            in_control: basis.and(last).map(|last| flagged != Some(last)),
            capability: windows.into_iter().filter_map(capability).collect(),
            late: chart.late,
            incomplete: chart.incomplete,
        }
    }
}
