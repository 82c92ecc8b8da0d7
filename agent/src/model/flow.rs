//! The line as a whole: what its flow gives, and who keeps whom waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::Time;

use crate::model::piece::{Piece, pieces};
use crate::model::quality::{self, Ratio};
use crate::model::setting::Setting;
use crate::model::station::Look;
use crate::model::tally::Tally;
use crate::model::timeline::LateReject;
use crate::model::window;
use crate::model::{FlowSpec, LineBy, OeeSpec, State};

/// The line over a window.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowView {
    /// The shift.
    pub shift: Arc<str>,
    /// Its start, or the first observation if that is later.
    pub from: Time,
    /// Its end, or now.
    pub to: Time,
    /// Whose pace the line is measured by.
    pub by: LineBy,
    /// Good parts' ideal time over planned time; `None` where it cannot be known, or too little was seen of it.
    pub oee: Option<f64>,
    /// Good parts that left the line.
    pub good: Option<f64>,
    /// Their ideal time, in nanoseconds.
    pub good_ideal_ns: Option<f64>,
    /// Planned time that is known, in nanoseconds.
    pub planned_ns: i64,
    /// Rolled throughput yield: the product of the stations' first-pass yields, with the least of their numbers of parts; `None`
    /// where one is not known.
    pub rolled_yield: Option<Ratio>,
    /// Who waited for whom, the longest first.
    pub waits: Vec<Wait>,
}

/// A station waited for parts or for room.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Index of the station that waited.
    pub station: usize,
    /// Starved or blocked.
    pub state: State,
    /// Index of the station that it was for; `None` is before the first, or behind the last.
    pub cause: Option<usize>,
    /// What that one did meanwhile.
    pub cause_state: Option<State>,
    /// And why, if that is known.
    pub reason: Option<Arc<str>>,
    /// For how long, in nanoseconds.
    pub spent: i64,
}

/// A station of the flow, by its place there.
pub type Stations<'a> = [Option<(Look<'a>, Setting<'a>)>];

/// The line in a stretch of time; `stations` are those of the flow, in its order.
///
/// Line OEE is good parts at the end x the constraint's ideal time / its planned time (Goldratt: an hour lost at the bottleneck
/// is an hour lost for the line), or the last station's own; weighted, it is the good ideal time of all stations over their
/// planned time. Never a mean of stations.
pub fn view(
    flow: &FlowSpec,
    stations: &Stations<'_>,
    (shift, stretch): (Arc<str>, window::Stretch),
) -> Option<FlowView> {
    let window::Stretch { from, to, .. } = stretch;
    let place = |index: usize| flow.stations.iter().position(|&of| of == index);
    let at = |index: usize| stations.get(place(index)?)?.as_ref();
    let end = at(flow.end)?;
    let pacer = match flow.by {
        LineBy::Constraint => flow.constraint.and_then(at),
        LineBy::Last | LineBy::Weighted => Some(end),
    };
    let tally = |(look, setting): &(Look<'_>, Setting<'_>), spec: &OeeSpec| {
        Tally::within(look.facts(), Setting { spec, ..*setting }, stretch)
    };
    let good = tally(end, end.1.spec).counts.good(end.1.spec);
    let (mut planned_ns, mut unknown_ns, mut good_ideal_ns) = (0, 0, pacer.map(|_| 0.0));
    let mut add = |tally: &Tally, planned: &Tally, spec: &OeeSpec| {
        planned_ns += planned.planned_ns();
        unknown_ns += planned.state(State::Unknown);
        good_ideal_ns = good_ideal_ns.zip(tally.good_ideal_ns(spec)).map(|(sum, more)| sum + more);
    };
    if flow.by == LineBy::Weighted {
        for of in stations.iter().flatten() {
            let own = tally(of, of.1.spec);
            add(&own, &own, of.1.spec);
        }
    } else if let Some(pacer) = pacer {
        // What leaves the line, each part by the ideal time that it takes at the constraint.
        let paced = OeeSpec { ideal_cycle_time: pacer.1.spec.ideal_cycle_time, ..end.1.spec.clone() };
        add(&tally(end, &paced), &tally(pacer, pacer.1.spec), &paced);
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
    let (planned, seen) = (planned_ns as f64, (planned_ns + unknown_ns) as f64);
    let least = pacer.map_or(0.0, |(_, setting)| setting.spec.min_coverage);
    let covered = planned_ns > 0 && planned / seen >= least;
    Some(FlowView {
        shift,
        from,
        to,
        by: flow.by,
        oee: good_ideal_ns.filter(|_| covered).map(|ideal| ideal / planned),
        good,
        good_ideal_ns,
        planned_ns,
        rolled_yield: quality::rolled_throughput_yield(stations.iter().map(|of| {
            let of = of.as_ref()?;
            let counts = tally(of, of.1.spec).counts;
            let good = counts.good(of.1.spec)? + charged(stations, of, from, to).min(counts.by_hand());
            quality::first_pass_yield(good, counts.total(of.1.spec)?)
        })),
        waits: waits(flow, stations, from, to),
    })
}

/// How many parts of a station were rejected by others of the flow, whose own yield has them: in the rolled yield a part is
/// rejected once.
fn charged(stations: &Stations<'_>, (look, _): &(Look<'_>, Setting<'_>), from: Time, to: Time) -> f64 {
    let inside = |late: &&LateReject| stations.iter().flatten().any(|(_, setting)| *setting.name == late.station);
    let end = window::Stretch::until(from, Time(i64::MAX), to).end();
    look.facts().late(from, end).iter().filter(inside).map(|late| late.parts).sum()
}

/// Who waited for whom: a starved station for the nearest one before it that is not starved itself, a blocked one for the
/// nearest one behind it that is not blocked, at each instant.
fn waits(flow: &FlowSpec, stations: &Stations<'_>, from: Time, to: Time) -> Vec<Wait> {
    let of_station = |of: &Option<(Look<'_>, Setting<'_>)>| {
        let of = of.as_ref().map(|(look, setting)| pieces(look.facts(), *setting, from, to).map(Stretch::of).collect());
        of.unwrap_or_default()
    };
    let all: Vec<Vec<Stretch>> = stations.iter().map(of_station).collect();
    let mut waits: BTreeMap<_, i64> = BTreeMap::new();
    for (place, stretches) in all.iter().enumerate() {
        for stretch in stretches.iter().filter(|of| matches!(of.state, State::Starved | State::Blocked)) {
            let mut at = stretch.from;
            while at < stretch.to {
                let (cause, until) = cause(&all, place, stretch.state, at);
                let until = until.min(stretch.to);
                let (other, doing) = cause.unzip();
                let why = doing.and_then(|doing: &Stretch| doing.reason.clone());
                let key = (
                    flow.stations[place],
                    stretch.state,
                    other.map(|other| flow.stations[other]),
                    doing.map(|of| of.state),
                    why,
                );
                *waits.entry(key).or_default() += until.0 - at.0;
                at = until;
            }
        }
    }
    let wait = |((station, state, cause, cause_state, reason), spent)| Wait {
        station,
        state,
        cause,
        cause_state,
        reason,
        spent,
    };
    let mut waits: Vec<Wait> = waits.into_iter().map(wait).collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.spent)); // stable: those of one length stay in order
    waits
}

/// For whom the station at `place` waits at `at`, and until when that is so.
fn cause(all: &[Vec<Stretch>], place: usize, waits: State, at: Time) -> (Option<(usize, &Stretch)>, Time) {
    let mut until = Time(i64::MAX);
    let mut others: Box<dyn Iterator<Item = usize>> = match waits {
        State::Starved => Box::new((0..place).rev()),
        _ => Box::new(place + 1..all.len()),
    };
    let found = others.find_map(|other| {
        let stretches = &all[other];
        let doing = stretches.get(stretches.partition_point(|of| of.to <= at)).filter(|of| of.from <= at);
        match doing {
            // Nothing is known of it: it may as well have been running.
            None => {
                until = until.min(stretches.iter().map(|of| of.from).find(|&from| from > at).unwrap_or(until));
                None
            }
            Some(doing) => {
                until = until.min(doing.to);
                (doing.state != waits).then_some((other, doing))
            }
        }
    });
    (found, until)
}

/// What a station did for a while.
#[derive(Clone, Debug)]
struct Stretch {
    from: Time,
    to: Time,
    state: State,
    reason: Option<Arc<str>>,
}

impl Stretch {
    fn of(piece: Piece<'_>) -> Self {
        Self { from: piece.from, to: piece.to, state: piece.state, reason: piece.reason }
    }
}
