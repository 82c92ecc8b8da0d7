//! The JSON of an explanation: a wire type, of `/explain` and of `gemba explain`. Times of day are RFC 3339, lengths of time are
//! seconds.

use std::collections::BTreeMap;

use gemba_drivers::{Loss, Time};
use serde::Serialize;

use super::super::kpi::{Count, Kpi, seconds};
use crate::model::{Counted, Explained, Explanation, Figure, LateLine, LossLine, Term, Waterfall};

/// How the figures came about.
#[derive(Serialize)]
pub struct ExplanationJson<'a> {
    station: &'a str,
    kind: &'a str,
    name: &'a str,
    from: Time,
    to: Time,
    closed: bool,
    /// False where facts of its beginning are no longer held.
    whole: bool,
    revision: Option<u32>,
    kpi: Kpi,
    figures: Vec<FigureJson>,
    waterfall: WaterfallJson<'a>,
    pieces: Vec<PieceJson<'a>>,
    pieces_left_out: usize,
    counts: Vec<CountedJson>,
    counts_left_out: usize,
    /// What people rejected of it, by code: it stands among the counts as good.
    rejected_by_hand: BTreeMap<&'a str, Count>,
    losses: &'a [Loss],
}

#[derive(Serialize)]
struct FigureJson {
    name: &'static str,
    value: Option<f64>,
    numerator: Option<TermJson>,
    denominator: Option<TermJson>,
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct TermJson {
    what: &'static str,
    value: f64,
    unit: &'static str,
}

#[derive(Serialize)]
struct WaterfallJson<'a> {
    planned_s: f64,
    availability: Vec<LineJson<'a>>,
    run_s: f64,
    performance: Vec<LineJson<'a>>,
    speed_s: Option<f64>,
    ideal_s: Option<f64>,
    quality_s: Option<f64>,
    /// Of it that of start-ups; left out where `oee.startup` does not say what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_s: Option<f64>,
    late_rejects: Vec<LateJson<'a>>,
    good_s: Option<f64>,
    lost_s: Option<f64>,
    not_planned: Vec<LineJson<'a>>,
    unknown_s: f64,
}

#[derive(Serialize)]
struct LineJson<'a> {
    state: &'static str,
    reason: Option<&'a str>,
    planned: bool,
    micro_stop: bool,
    times: usize,
    s: f64,
}

#[derive(Serialize)]
struct LateJson<'a> {
    station: &'a str,
    code: &'a str,
    parts: Count,
}

#[derive(Serialize)]
struct PieceJson<'a> {
    from: Time,
    to: Time,
    s: f64,
    state: &'static str,
    bucket: Option<&'static str>,
    reason: Option<&'a str>,
    planned: bool,
    micro_stop: bool,
    product: Option<&'a str>,
    lot: Option<&'a str>,
    order: Option<&'a str>,
}

#[derive(Serialize)]
struct CountedJson {
    since: Time,
    at: Time,
    counter: &'static str,
    parts: Count,
    ideal_cycle_s: Option<f64>,
    standing: &'static str,
}

impl<'a> From<&'a Explanation> for ExplanationJson<'a> {
    fn from(of: &'a Explanation) -> Self {
        Self {
            station: &of.station,
            kind: of.kind,
            name: &of.name,
            from: of.from,
            to: of.to,
            closed: of.closed,
            whole: of.whole,
            revision: of.revision,
            kpi: Kpi::from(&of.view),
            figures: of.figures.iter().map(FigureJson::from).collect(),
            waterfall: WaterfallJson::from(&of.waterfall),
            pieces: of.pieces.iter().map(PieceJson::from).collect(),
            pieces_left_out: of.pieces_left_out,
            counts: of.counts.iter().map(CountedJson::from).collect(),
            counts_left_out: of.counts_left_out,
            rejected_by_hand: of.by_hand.iter().map(|(code, parts)| (&**code, Count(*parts))).collect(),
            losses: &of.losses,
        }
    }
}

impl From<&Figure> for FigureJson {
    fn from(of: &Figure) -> Self {
        let term = |term: &Term| TermJson { what: term.what, value: term.value, unit: term.unit };
        Self {
            name: of.name,
            value: of.value,
            numerator: of.terms.as_ref().map(|terms| term(&terms.numerator)),
            denominator: of.terms.as_ref().map(|terms| term(&terms.denominator)),
            note: of.note,
        }
    }
}

impl<'a> From<&'a Waterfall> for WaterfallJson<'a> {
    fn from(of: &'a Waterfall) -> Self {
        let real = |ns: Option<f64>| ns.map(|ns| ns / 1e9);
        let lines = |lines: &'a [LossLine]| lines.iter().map(LineJson::from).collect();
        Self {
            planned_s: seconds(of.planned_ns),
            availability: lines(&of.availability),
            run_s: seconds(of.run_ns),
            performance: lines(&of.performance),
            speed_s: real(of.speed_ns),
            ideal_s: real(of.ideal_ns),
            quality_s: real(of.quality_ns),
            startup_s: real(of.startup_ns),
            late_rejects: of.late.iter().map(LateJson::from).collect(),
            good_s: real(of.good_ns),
            lost_s: real(of.lost_ns()),
            not_planned: lines(&of.not_planned),
            unknown_s: seconds(of.unknown_ns),
        }
    }
}

impl<'a> From<&'a LossLine> for LineJson<'a> {
    fn from(of: &'a LossLine) -> Self {
        Self {
            state: of.state.word(),
            reason: of.reason.as_deref(),
            planned: of.planned,
            micro_stop: of.micro,
            times: of.times,
            s: seconds(of.spent_ns),
        }
    }
}

impl<'a> From<&'a LateLine> for LateJson<'a> {
    fn from(of: &'a LateLine) -> Self {
        Self { station: &of.station, code: &of.code, parts: Count(of.parts) }
    }
}

impl<'a> From<&'a Explained> for PieceJson<'a> {
    fn from(of: &'a Explained) -> Self {
        Self {
            from: of.from,
            to: of.to,
            s: seconds(of.to.0 - of.from.0),
            state: of.state.word(),
            bucket: of.bucket.map(|bucket| bucket.word()),
            reason: of.reason.as_deref(),
            planned: of.planned,
            micro_stop: of.micro,
            product: of.work.product.as_deref(),
            lot: of.work.lot.as_deref(),
            order: of.work.order.as_deref(),
        }
    }
}

impl From<&Counted> for CountedJson {
    fn from(of: &Counted) -> Self {
        Self {
            since: of.since,
            at: of.at,
            counter: of.count.word(),
            parts: Count(of.parts),
            ideal_cycle_s: of.ideal_ns.map(|ns| ns / 1e9),
            standing: of.standing.word(),
        }
    }
}
