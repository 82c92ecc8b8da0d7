//! What an inspection station has told, by shift and since ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Loss, Reading, Time};
use serde::{Deserialize, Serialize};

use super::Setting;
use crate::model::Derived;
use crate::model::inspection::{Inspection, InspectionFigures, InspectionSpec, InspectionTally, News, Role};
use crate::record::{DriftPoint, InspectionRates, InspectionSums, ProductPoint, Record, ScoreHistogram};

/// Sums are kept for so long each: shifts begin at their borders or are told apart within them, and the hours of any zone
/// do, too, since every zone is some quarters of an hour from UTC.
const STRETCH: Duration = Duration::from_secs(15 * 60);

/// How long a shift that ended is held for reviews that come late.
const KEEP: Duration = Duration::from_secs(26 * 3600);

/// What is kept of inspections; at most two days of it, and the sums since ever.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Inspected {
    pub(super) inspection: Inspection,
    /// Since ever.
    pub(super) total: InspectionTally,
    /// By where they begin; none reaches over the border of a shift.
    stretches: BTreeMap<Time, InspectionTally>,
    /// The shift that ran when figures were told last, and whose last ones were not told yet.
    told: Option<ShiftOf>,
    /// What counts before it is no longer told apart by shift.
    forgotten: Time,
}

/// A shift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShiftOf {
    name: Arc<str>,
    from: Time,
    /// Not part of it.
    to: Time,
}

/// What was inspected in a shift.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectedShift {
    /// Which station.
    pub station: Arc<str>,
    /// Which shift.
    pub shift: Arc<str>,
    /// The shift's start, or the first reading if later.
    pub from: Time,
    /// The shift's end.
    pub to: Time,
    /// What it came to.
    pub tally: InspectionTally,
    /// What that says.
    pub figures: InspectionFigures,
}

impl Inspected {
    pub(super) fn observe(
        &mut self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        role: Role,
        reading: &Reading,
        out: &mut Derived,
    ) {
        let mut news = News::default();
        self.inspection.observe(spec, role, reading, &mut news);
        self.enter(setting, news, out);
    }

    /// Everything up to `to` is settled.
    pub(super) fn settle(
        &mut self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        since: Option<Time>,
        to: Time,
        out: &mut Derived,
    ) {
        let mut news = News::default();
        self.inspection.settle(spec, to, &mut news);
        self.enter(setting, news, out);
        while let Some((&oldest, _)) = self.stretches.first_key_value().filter(|(begin, _)| **begin < to - KEEP) {
            let slot = setting.plan.borrow_mut().slot(oldest).clone();
            let end = slot.shift.as_ref().map_or(slot.until, |shift| shift.to);
            if end > to - KEEP {
                return;
            }
            if let Some(shift) = slot.shift {
                let shift = ShiftOf { name: shift.name, from: shift.from, to: shift.to };
                out.inspected.push(self.of(setting, spec, since, &shift, shift.to));
            }
            self.forgotten = end.max(Time(oldest.0 + 1));
            self.stretches = self.stretches.split_off(&self.forgotten);
        }
    }

    /// The shift that runs at `at`, so far.
    pub(super) fn running(
        &self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        since: Time,
        at: Time,
    ) -> Option<InspectedShift> {
        let shift = setting.shift(at)?;
        Some(self.of(setting, spec, Some(since), &shift, at))
    }

    /// The shift that has ended since figures were told last. What belongs to its last inspection has had its time by then.
    pub(super) fn ended(
        &mut self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        since: Time,
        at: Time,
    ) -> Option<InspectedShift> {
        let ended = self.told.take_if(|told| told.to < at);
        if self.told.is_none() {
            self.told = setting.shift(at);
        }
        let shift = ended?;
        Some(self.of(setting, spec, Some(since), &shift, shift.to))
    }

    /// Every shift that is still held, oldest first, as it stands at `now`.
    pub(super) fn shifts(
        &self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        since: Option<Time>,
        now: Time,
    ) -> Vec<InspectedShift> {
        let mut shifts: Vec<_> = self.stretches.keys().filter_map(|&begin| setting.shift(begin)).collect();
        shifts.dedup();
        shifts.iter().map(|shift| self.of(setting, spec, since, shift, now.min(shift.to))).collect()
    }

    /// What upstream is told of since ever.
    pub(super) fn sums(&self, spec: &InspectionSpec, since: Time) -> InspectionSums {
        let total = &self.total;
        let figures = self.inspection.figures(spec, total, Duration::ZERO);
        InspectionSums {
            since,
            pass: total.pass,
            fail: total.fail,
            review: total.review,
            unknown: total.inspections.saturating_sub(total.judged()),
            defects: figures.defects,
            latency: figures.latency,
            scores: figures.scores.map(|scores| ScoreHistogram { edges: scores.edges, counts: scores.counts }),
            queue: self.inspection.waiting().map(|(_, waiting)| waiting),
        }
    }

    fn of(
        &self,
        setting: Setting<'_>,
        spec: &InspectionSpec,
        since: Option<Time>,
        shift: &ShiftOf,
        until: Time,
    ) -> InspectedShift {
        let mut tally = InspectionTally::default();
        self.stretches.range(shift.from..shift.to).for_each(|(_, stretch)| tally.add(stretch));
        let from = since.map_or(shift.from, |since| since.max(shift.from));
        let figures = self.inspection.figures(spec, &tally, until.since(from));
        InspectedShift {
            station: setting.station.clone(),
            shift: shift.name.clone(),
            from,
            to: shift.to,
            tally,
            figures,
        }
    }

    fn enter(&mut self, setting: Setting<'_>, news: News, out: &mut Derived) {
        out.rejections.extend(news.rejections);
        for (at, tally) in news.tallies {
            self.total.add(&tally);
            if at >= self.forgotten {
                self.stretches.entry(setting.stretch(at)).or_default().add(&tally);
            }
        }
        out.records.extend(news.models.into_iter().map(|change| Record::ModelChanged {
            station: setting.station.clone(),
            time: change.time,
            from: change.from,
            to: change.to,
        }));
        out.losses.extend(news.quarantined.into_iter().map(|lost| Loss {
            source: setting.station.clone(),
            from: lost.from,
            to: lost.to,
            count: 1,
            reason: "inspection counter jumped, faster than max_rate".into(),
        }));
    }
}

impl InspectedShift {
    /// What upstream is told of it.
    pub(super) fn rates(&self) -> InspectionRates {
        let of = &self.figures;
        let value = |ratio: Option<crate::model::quality::Ratio>| ratio.map(|ratio| ratio.value);
        InspectionRates {
            shift: self.shift.clone(),
            per_hour: of.per_hour,
            passed: value(of.passed),
            first_pass_yield: value(of.first_pass_yield),
            manual_review: value(of.manual_review),
            false_reject: value(of.false_reject),
            escape: value(of.escape),
            accuracy: value(of.accuracy),
            precision: value(of.precision),
            recall: value(of.recall),
            f1: value(of.f1),
            dpu: value(of.dpu),
            labelled: u64::try_from(self.tally.labels.n()).unwrap_or_default(),
            drift: of
                .drift
                .iter()
                .map(|drift| DriftPoint { version: drift.version.clone(), psi: drift.psi, ks: drift.ks })
                .collect(),
            dpmo: value(of.dpmo),
            ppm: value(of.ppm),
            products: of
                .products
                .iter()
                .map(|of| ProductPoint {
                    product: of.product.clone(),
                    dpu: value(of.dpu),
                    dpmo: value(of.dpmo),
                    ppm: value(of.ppm),
                })
                .collect(),
        }
    }
}

impl Setting<'_> {
    /// The shift that runs at `at`.
    pub(super) fn shift(self, at: Time) -> Option<ShiftOf> {
        let shift = self.plan.borrow_mut().slot(at).shift.clone()?;
        Some(ShiftOf { name: shift.name, from: shift.from, to: shift.to })
    }

    /// Where the stretch begins that holds `at`.
    fn stretch(self, at: Time) -> Time {
        let length = i64::try_from(STRETCH.as_nanos()).expect("a quarter of an hour");
        let quarter = Time(at.0.div_euclid(length) * length);
        let mut plan = self.plan.borrow_mut();
        let slot = plan.slot(at);
        slot.shift.as_ref().map_or(slot.from, |shift| shift.from).max(quarter)
    }
}
