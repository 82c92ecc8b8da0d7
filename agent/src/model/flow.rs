//! The line as a whole: what its flow gives, and who keeps whom waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use crate::model::piece::{Piece, pieces};
use crate::model::quality::{self, Ratio};
use crate::model::setting::Setting;
use crate::model::station::{KPI_EVERY, Look, boundary_from};
use crate::model::tally::Tally;
use crate::model::timeline::LateReject;
use crate::model::window::Stretch;
use crate::model::{Derived, FlowSpec, Line, LineBy, OeeSpec, Period, State};
use crate::record::{LinePoint, Record};

/// What upstream was told of the line as a whole. All of it goes into the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The last instant at which figures were told.
    at: Time,
    /// The end of the last shift whose last figures were.
    shift: Time,
}

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
    /// Planned time, in nanoseconds; what is unknown of it, too, since parts that leave are counted across it.
    pub planned_ns: i64,
    /// How much of it is known; `None` without any.
    pub coverage: Option<f64>,
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

impl Line {
    /// The line as a whole in the shift that runs at `now`; nothing outside shifts, or where no flow is configured.
    #[must_use]
    pub fn flow(&self, now: Time) -> Option<FlowView> {
        self.flow_by(&self.looks(now), now)
    }

    /// The same by these looks at the stations of the flow.
    pub(super) fn flow_by(&self, looks: &Stations<'_>, now: Time) -> Option<FlowView> {
        view(self.flow.as_ref()?, looks, running(looks, now)?)
    }

    /// The same of a shift that was, as far as it is still held.
    #[must_use]
    pub fn flow_of(&self, period: &Period) -> Option<FlowView> {
        view(self.flow.as_ref()?, &self.looks(period.to), closed(period))
    }

    /// Index of the station whose shifts are the line's.
    #[must_use]
    pub fn pacer(&self) -> Option<usize> {
        let flow = self.flow.as_ref()?;
        if flow.by == LineBy::Constraint { flow.constraint } else { Some(flow.end) }
    }

    /// The stations of the flow as they stand at `now`; none without a flow.
    pub(super) fn looks(&self, now: Time) -> Vec<Option<(Look<'_>, Setting<'_>)>> {
        self.of_flow(|index| self.look(index, now))
    }

    /// Tells the figures of the line at the last due instant up to `settled`, and before them those of shifts that have closed.
    pub(super) fn tell_flow(&mut self, settled: Time, out: &mut Derived) {
        let due = boundary_from(Time(settled.0 + 1)) - KPI_EVERY;
        if self.flow.is_some() && due > self.told.at {
            self.tell_flow_at(due, out);
        }
    }

    /// Tells the figures of the line at `now`, due or not: the agent stops, and nothing waits any more.
    pub(super) fn tell_last_flow(&mut self, now: Time, out: &mut Derived) {
        self.tell_flow(now, out);
        if self.flow.is_some() && now > self.told.at {
            self.tell_flow_at(now, out);
        }
    }

    fn tell_flow_at(&mut self, at: Time, out: &mut Derived) {
        let Some(flow) = &self.flow else { return };
        let settled = |at: Time| self.of_flow(|index| self.stations[index].settled(&self.plan, &self.knowledge, at));
        let mut told = Told { at, ..self.told };
        let mut tell = |looks: &Stations<'_>, window: (Arc<str>, Stretch)| {
            let time = window.1.to;
            let Some(FlowView { shift, by, oee, rolled_yield, .. }) = figures(flow, looks, window) else { return };
            let rolled_yield = rolled_yield.map(|of| of.value);
            if oee.is_none() && rolled_yield.is_none() {
                return;
            }
            out.records.push(Record::Line(Box::new(LinePoint { shift, time, by, oee, rolled_yield })));
        };
        let looks = settled(at);
        if let Some((pacer, _)) =
            self.pacer().and_then(|index| self.stations[index].settled(&self.plan, &self.knowledge, at))
        {
            for period in pacer.closed().filter(|period| period.to > self.told.shift) {
                tell(&settled(period.to), closed(period));
                told.shift = period.to;
            }
        }
        if let Some(window) = running(&looks, at) {
            tell(&looks, window);
        }
        self.told = told;
    }

    fn of_flow<'a>(
        &'a self,
        look: impl Fn(usize) -> Option<(Look<'a>, Setting<'a>)>,
    ) -> Vec<Option<(Look<'a>, Setting<'a>)>> {
        self.flow.iter().flat_map(|flow| &flow.stations).map(|&index| look(index)).collect()
    }
}

/// The shift that runs at `now`, and from when on all that are seen are.
fn running(looks: &Stations<'_>, now: Time) -> Option<(Arc<str>, Stretch)> {
    let running = looks.iter().flatten().filter_map(|(look, setting)| look.running(*setting));
    let (shift, from) = running.filter_map(|(shift, from)| Some((shift, from?))).max_by_key(|(_, from)| *from)?;
    Some((shift, Stretch::until(from, Time(i64::MAX), now)))
}

/// A shift that has ended: what was counted at its end is no part of it.
fn closed(period: &Period) -> (Arc<str>, Stretch) {
    (period.shift.clone(), Stretch::closed(period.from, period.to))
}

/// The line over a stretch of a shift, and who waited for whom in it.
pub fn view(flow: &FlowSpec, stations: &Stations<'_>, (shift, stretch): (Arc<str>, Stretch)) -> Option<FlowView> {
    let figures = figures(flow, stations, (shift, stretch))?;
    Some(FlowView { waits: waits(flow, stations, stretch.from, stretch.to), ..figures })
}

/// The figures of the line over a stretch of a shift; `stations` are those of the flow, in its order.
///
/// Line OEE is good parts at the end x the constraint's ideal time / its planned time (Goldratt: an hour lost at the bottleneck
/// is an hour lost for the line), or the last station's own; weighted, it is the good ideal time of all stations over their
/// planned time. Never a mean of stations. Parts that leave the line are counted across unknown time, so that is part of planned
/// time here: the constraint was planned to run, whoever watched it.
pub fn figures(flow: &FlowSpec, stations: &Stations<'_>, (shift, stretch): (Arc<str>, Stretch)) -> Option<FlowView> {
    let place = |index: usize| flow.stations.iter().position(|&of| of == index);
    let at = |index: usize| stations.get(place(index)?)?.as_ref();
    let end = at(flow.end)?;
    let pacer = match flow.by {
        LineBy::Constraint => flow.constraint.and_then(at),
        LineBy::Last | LineBy::Weighted => Some(end),
    };
    // What a station has added up to by now, it may have at hand.
    let own = |(look, setting): &(Look<'_>, Setting<'_>)| {
        if stretch.open && stretch.to == look.now() {
            look.so_far(*setting, stretch.from)
        } else {
            Tally::within(look.facts(), *setting, stretch)
        }
    };
    let good = own(end).counts.good(end.1.spec);
    let (mut planned_ns, mut unknown_ns, mut good_ideal_ns) = (0, 0, pacer.map(|_| 0.0));
    let mut add = |tally: &Tally, planned: &Tally, spec: &OeeSpec| {
        planned_ns += planned.planned_ns();
        unknown_ns += planned.state(State::Unknown);
        good_ideal_ns = good_ideal_ns.zip(tally.good_ideal_ns(spec)).map(|(sum, more)| sum + more);
    };
    if flow.by == LineBy::Weighted {
        for of in stations.iter().flatten() {
            let own = own(of);
            add(&own, &own, of.1.spec);
        }
    } else if let Some(pacer) = pacer {
        // What leaves the line, each part by the ideal time that it takes at the constraint.
        let paced = OeeSpec { ideal_cycle_time: pacer.1.spec.ideal_cycle_time, ..end.1.spec.clone() };
        let setting = Setting { spec: &paced, ..end.1 };
        add(&Tally::within(end.0.facts(), setting, stretch), &own(pacer), &paced);
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
    let (known, planned) = (planned_ns as f64, (planned_ns + unknown_ns) as f64);
    let coverage = (planned > 0.0).then(|| known / planned);
    let least = pacer.map_or(0.0, |(_, setting)| setting.spec.min_coverage);
    let covered = planned_ns > 0 && coverage.is_some_and(|coverage| coverage >= least);
    Some(FlowView {
        shift,
        from: stretch.from,
        to: stretch.to,
        by: flow.by,
        oee: good_ideal_ns.filter(|_| covered).map(|ideal| ideal / planned),
        good,
        good_ideal_ns,
        planned_ns: planned_ns + unknown_ns,
        coverage,
        rolled_yield: quality::rolled_throughput_yield(stations.iter().map(|of| {
            let of = of.as_ref()?;
            let counts = own(of).counts;
            let good =
                counts.good(of.1.spec)? + charged(stations, of, stretch.from, stretch.end()).min(counts.by_hand());
            quality::first_pass_yield(good, counts.total(of.1.spec)?)
        })),
        waits: Vec::new(),
    })
}

/// How many parts of a station were rejected by others of the flow, whose own yield has them: in the rolled yield a part is
/// rejected once.
fn charged(stations: &Stations<'_>, (look, _): &(Look<'_>, Setting<'_>), from: Time, end: Time) -> f64 {
    let inside = |late: &&LateReject| stations.iter().flatten().any(|(_, setting)| *setting.name == late.station);
    look.facts().late(from, end).iter().filter(inside).map(|late| late.parts).sum()
}

/// Who waited for whom: a starved station for the nearest one before it that is not starved itself, a blocked one for the
/// nearest one behind it that is not blocked, at each instant.
fn waits(flow: &FlowSpec, stations: &Stations<'_>, from: Time, to: Time) -> Vec<Wait> {
    let of_station = |of: &Option<(Look<'_>, Setting<'_>)>| {
        let of = of.as_ref().map(|(look, setting)| pieces(look.facts(), *setting, from, to).map(Spell::of).collect());
        of.unwrap_or_default()
    };
    let all: Vec<Vec<Spell>> = stations.iter().map(of_station).collect();
    let mut waits: BTreeMap<_, i64> = BTreeMap::new();
    for (place, stretches) in all.iter().enumerate() {
        for stretch in stretches.iter().filter(|of| matches!(of.state, State::Starved | State::Blocked)) {
            let mut at = stretch.from;
            while at < stretch.to {
                let (cause, until) = cause(&all, place, stretch.state, at);
                let until = until.min(stretch.to);
                let (other, doing) = cause.unzip();
                let why = doing.and_then(|doing: &Spell| doing.reason.clone());
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
fn cause(all: &[Vec<Spell>], place: usize, waits: State, at: Time) -> (Option<(usize, &Spell)>, Time) {
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
struct Spell {
    from: Time,
    to: Time,
    state: State,
    reason: Option<Arc<str>>,
}

impl Spell {
    fn of(piece: Piece<'_>) -> Self {
        Self { from: piece.from, to: piece.to, state: piece.state, reason: piece.reason }
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Reading, Status, TagId, Value};

    use super::*;
    use crate::config::Config;
    use crate::model::tests::t;

    /// Two machines that hand parts on, one second each; `t(0.0)` is 06:00.
    fn line() -> Line {
        let station = |name: &str| {
            format!(
                r#"
  - name: {name}
    source: {{ type: mqtt, endpoint: "mqtt://h", client_id: c, topics: [{{ topic: {name}, payload: json }}] }}
    tags: [{{ name: state, path: "$.s" }}, {{ name: total, path: "$.t" }}, {{ name: reject, path: "$.r" }}]
    oee: {{ ideal_cycle_time: 1s, rolling: 1min, state: {{ tag: state, map: {{ 1: producing }} }}, total: {{ tag: total }}, reject: {{ tag: reject }} }}"#
            )
        };
        let head = "site: s\nline: l\ntimezone: UTC\nflow: { constraint: first }\n";
        let shifts =
            r#"shifts: [{ name: early, start: "06:00", end: "06:01" }, { name: late, start: "06:01", end: "06:03" }]"#;
        let text = format!("{head}{shifts}\nstations:{}{}\n", station("first"), station("last"));
        Line::new(&Config::from_str("line.yaml", &text).expect("a configuration"))
    }

    fn told(line: &mut Line, out: &mut Derived, at: f64, tag: u32, value: i64) {
        line.apply(&[Reading::good(TagId(tag), Value::Int(value), t(at), t(at))], out);
    }

    /// Ten good parts in ten seconds, and so on, with a tick between; of twenty good ones at the end one is bad.
    fn told_until(line: &mut Line, from: u32, to: u32) -> Vec<LinePoint> {
        let mut out = Derived::default();
        for ten in from..to {
            let at = f64::from(ten) * 10.0;
            if ten == 0 {
                [0, 3].into_iter().for_each(|state| told(line, &mut out, at, state, 1));
                [2, 5].into_iter().for_each(|reject| told(line, &mut out, at, reject, 0));
            }
            for total in [1, 4] {
                told(line, &mut out, at, total, i64::from(ten * 10));
            }
            told(line, &mut out, at, 5, i64::from(ten / 2));
            line.advance(t(at + 2.001), &mut out);
        }
        let points = out.records.into_iter();
        points.filter_map(|record| if let Record::Line(point) = record { Some(*point) } else { None }).collect()
    }

    #[test]
    fn the_line_is_told_every_ten_seconds_and_once_more_when_a_shift_has_ended() {
        let points = told_until(&mut line(), 0, 9);
        let told: Vec<_> = points.iter().map(|point| (&*point.shift, point.time, point.oee)).collect();
        let early = |at: f64, good: f64| ("early", t(at), Some(good / at));
        assert_eq!(
            told[..6],
            [
                early(10.0, 10.0),
                early(20.0, 19.0),
                early(30.0, 29.0),
                early(40.0, 38.0),
                early(50.0, 48.0),
                // What is counted as a shift ends belongs to the next one.
                early(60.0, 48.0),
            ]
        );
        assert_eq!(told[7..], [("late", t(70.0), Some(20.0 / 10.0 - 0.1)), ("late", t(80.0), Some(28.0 / 20.0))]);
        assert_eq!(points[1].rolled_yield, Some(19.0 / 20.0));
        assert!(points.iter().all(|point| point.by == LineBy::Constraint));
    }

    #[test]
    fn parts_that_leave_while_nobody_sees_the_constraint_do_not_make_the_line_faster() {
        let (mut line, mut out) = (line(), Derived::default());
        for (tag, value) in [(0, 1), (3, 1), (1, 0), (2, 0), (4, 0), (5, 0)] {
            told(&mut line, &mut out, 0.0, tag, value);
        }
        let lost = Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), t(10.0), t(10.0));
        line.apply(&[lost], &mut out);
        told(&mut line, &mut out, 30.0, 0, 1);
        told(&mut line, &mut out, 40.0, 4, 36);
        let flow = line.flow(t(40.0)).expect("a shift");
        assert_eq!((flow.oee, flow.coverage), (Some(36.0 / 40.0), Some(20.0 / 40.0)));
    }

    #[test]
    fn a_restart_anywhere_tells_what_an_undisturbed_line_does() {
        let whole = told_until(&mut line(), 0, 9);
        for cut in 0..=9 {
            let mut before = line();
            let mut points = told_until(&mut before, 0, cut);
            let mut after = line();
            after.restore(&before.checkpoint()).expect("a checkpoint");
            points.extend(told_until(&mut after, cut, 9));
            assert_eq!(points, whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_last_minutes_and_the_line_are_of_the_same_facts() {
        let mut line = line();
        told_until(&mut line, 0, 9);
        let view = line.snapshot(t(85.0), crate::snapshot::SpoolView::default());
        let (to, last) = view.stations[0].rolling.as_ref().expect("it is asked for");
        // Up to the last full minute, which ends with the early shift: what was counted then is not in it.
        assert_eq!((last.since, *to, last.total), (t(0.0), t(60.0), Some(50.0)));
        assert_eq!(view.flow.as_ref(), line.flow(t(85.0)).as_ref());
        let flow = view.flow.expect("the late shift");
        assert_eq!((flow.good, view.stations[1].kpi.as_ref().and_then(|kpi| kpi.good)), (Some(28.0), Some(28.0)));
    }

    #[test]
    fn a_stop_tells_the_line_at_that_instant() {
        let mut line = line();
        told_until(&mut line, 0, 3);
        let mut out = Derived::default();
        line.tell_last(t(25.0), &mut out);
        let last = out
            .records
            .iter()
            .rev()
            .find_map(|record| if let Record::Line(point) = record { Some(point) } else { None });
        assert_eq!(last.map(|point| (point.time, point.oee)), Some((t(25.0), Some(19.0 / 25.0))));
        line.advance(t(27.0), &mut out);
        assert_eq!(
            out.records.iter().filter(|record| matches!(record, Record::Line(_))).count(),
            1,
            "no instant twice"
        );
    }
}
