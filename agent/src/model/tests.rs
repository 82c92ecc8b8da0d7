//! The arithmetic, against published examples and the rules of docs/ARCHITECTURE.md.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Value};

use crate::config::{Config, Http, Spool, Station, Tag};
use crate::model::{ContextSpec, CounterSpec, Derived, Knowledge, Line, OeeSpec, ShiftSpec, State, StateSpec};
use crate::record::{KpiPoint, Record};
use crate::snapshot::StationView;

const STATE: TagId = TagId(0);
const TOTAL: TagId = TagId(1);
const REJECT: TagId = TagId(2);
/// 2026-03-02T06:00:00Z, a Monday; the plan is in UTC.
const SIX: i64 = 1_772_431_200;

pub(super) fn t(seconds: f64) -> Time {
    #[expect(clippy::cast_possible_truncation, reason = "test times are whole milliseconds")]
    let millis = (seconds * 1000.0).round() as i64;
    Time::from_millis(SIX * 1000 + millis)
}

fn counter(tag: TagId) -> CounterSpec {
    CounterSpec::of(tag)
}

pub(super) fn oee(ideal_seconds: f64) -> OeeSpec {
    let map = [("1", State::Producing), ("2", State::Starved), ("5", State::Down)];
    OeeSpec {
        ideal_cycle_time: Some(Duration::from_secs_f64(ideal_seconds)),
        state: Some(StateSpec { tag: STATE, map: map.map(|(from, to)| (from.to_owned(), to)).into() }),
        total: Some(counter(TOTAL)),
        good: None,
        reject: Some(counter(REJECT)),
        min_coverage: 0.5,
        ..OeeSpec::default()
    }
}

pub(super) fn shift(name: &str, start: &str, end: &str, breaks: &[(&str, &str)]) -> ShiftSpec {
    let time = |text: &str| text.parse().expect("a time");
    ShiftSpec {
        name: name.into(),
        days: [true; 7],
        start: time(start),
        end: time(end),
        breaks: breaks.iter().map(|(begin, end)| (time(begin), time(end))).collect(),
    }
}

pub(super) fn config(oee: OeeSpec, shifts: Vec<ShiftSpec>) -> Config {
    let tag =
        |id, name: &str| Tag { id, station: 0, name: name.into(), unit: None, metric: None, text: false, treat: None };
    Config {
        site: "fab-2".into(),
        line: "smt-1".into(),
        timezone: jiff::tz::TimeZone::UTC,
        http: Http { listen: ([127, 0, 0, 1], 0).into(), entries: false },
        upstream: None,
        spool: Spool { path: "unused".into(), max_size: 0, keep_free: 0, sync: Duration::ZERO, keep: Duration::ZERO },
        trace_sample: 0.0,
        shifts,
        exceptions: Vec::new(),
        knowledge: Knowledge::default(),
        costs: None,
        flow: None,
        stations: vec![Station {
            name: "printer-1".into(),
            tags: 0..3,
            link: 0,
            oee: Some(oee),
            max_clock_skew: None,
            charts: Vec::new(),
            context: ContextSpec::default(),
            detectors: Vec::new(),
            inspection: None,
        }],
        tags: vec![tag(STATE, "state"), tag(TOTAL, "total"), tag(REJECT, "reject")],
        links: Vec::new(),
        pki: "unused".into(),
    }
}

/// A line with one station, and everything it ever said.
struct Bench {
    line: Line,
    derived: Derived,
}

impl Bench {
    fn new(oee: OeeSpec, shifts: Vec<ShiftSpec>) -> Self {
        Self { line: Line::new(&config(oee, shifts)), derived: Derived::default() }
    }

    fn early() -> Self {
        Self::new(oee(1.0), vec![shift("early", "06:00", "14:00", &[])])
    }

    fn put(&mut self, seconds: f64, tag: TagId, value: impl Into<f64>) -> &mut Self {
        #[expect(clippy::cast_possible_truncation, reason = "test values are small whole numbers")]
        let value = Value::Int(value.into() as i64);
        self.line.apply(&[Reading::good(tag, value, t(seconds), t(seconds))], &mut self.derived);
        self
    }

    fn lose(&mut self, seconds: f64, tag: TagId) -> &mut Self {
        let status = Status::Own(OwnStatus::LinkLost);
        self.line.apply(&[Reading::bad(tag, status, t(seconds), t(seconds))], &mut self.derived);
        self
    }

    fn view(&mut self, seconds: f64) -> StationView {
        self.line.snapshot(t(seconds), crate::snapshot::SpoolView::default()).stations.remove(0)
    }

    fn kpi(&mut self, seconds: f64) -> crate::snapshot::KpiView {
        self.view(seconds).kpi.expect("a shift is running")
    }

    fn points(&self) -> Vec<&KpiPoint> {
        let points = self.derived.records.iter().filter_map(|record| match record {
            Record::Kpi(point) => Some(&**point),
            _ => None,
        });
        points.collect()
    }
}

#[test]
fn a_break_of_the_plan_is_not_planned_and_its_parts_count_for_totals_only() {
    let mut bench = Bench::new(oee(1.0), vec![shift("early", "06:00", "14:00", &[("07:00", "07:30")])]);
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    bench.put(3599.0, TOTAL, 3000).put(4000.0, TOTAL, 3100).put(7200.0, TOTAL, 4000);
    let kpi = bench.kpi(7200.0);
    assert_eq!(kpi.planned_ns, 5_400_000_000_000, "two hours less the half hour");
    assert_eq!(kpi.total, Some(4000.0));
    assert_eq!(kpi.figures.performance, Some(3900.0 / 5400.0));
    assert_eq!(kpi.figures.quality, Some(1.0));
}

#[test]
fn unknown_time_is_neither_running_nor_down() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 100).put(0.0, REJECT, 0).put(60.0, TOTAL, 150);
    for tag in [STATE, TOTAL, REJECT] {
        bench.lose(100.0, tag);
    }
    bench.put(140.0, STATE, 1).put(140.0, TOTAL, 180).put(140.0, REJECT, 0).put(200.0, TOTAL, 220);
    let kpi = bench.kpi(200.0);
    assert_eq!((kpi.planned_ns, kpi.unknown_ns), (160_000_000_000, 40_000_000_000));
    assert_eq!(kpi.figures.availability, Some(1.0));
    assert_eq!(kpi.figures.coverage, Some(0.8));
    assert_eq!((kpi.total, kpi.unattributed), (Some(120.0), 30.0));
    assert_eq!(kpi.figures.performance, Some(90.0 / 160.0), "what came across the gap says nothing of known time");
    let (low, high) = kpi.oee_bounds.expect("bounds");
    assert_eq!((low, high), (90.0 / 200.0, 130.0 / 200.0));
}

#[test]
fn parts_counted_before_a_gap_are_attributed_though_they_are_told_after_it() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).lose(20.0, STATE).put(25.0, STATE, 1);
    let late = |value, at| Reading::good(TOTAL, Value::Int(value), t(at), t(26.0));
    bench.line.apply(&[late(5, 19.0)], &mut bench.derived);
    assert_eq!(bench.kpi(26.0).unattributed, 0.0);
    bench.line.apply(&[late(8, 21.0)], &mut bench.derived);
    assert_eq!(bench.kpi(26.0).unattributed, 3.0);
    bench.line.apply(&[late(9, 26.0)], &mut bench.derived);
    assert_eq!(bench.kpi(26.0).unattributed, 4.0);
}

#[test]
fn a_gap_of_no_length_attributes() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(10.0, TOTAL, 5);
    bench.lose(20.0, TOTAL).put(20.0, TOTAL, 12).put(30.0, TOTAL, 20);
    assert_eq!(bench.kpi(30.0).unattributed, 0.0);
}

#[test]
fn below_the_coverage_figures_are_withheld_and_counts_stay() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(40.0, TOTAL, 40).lose(40.0, STATE);
    let kpi = bench.kpi(100.0);
    assert_eq!(kpi.figures.coverage, Some(0.4));
    assert_eq!((kpi.figures.oee, kpi.figures.availability, kpi.figures.performance), (None, None, None));
    assert_eq!((kpi.figures.quality, kpi.total), (Some(1.0), Some(40.0)));
    assert!(kpi.oee_bounds.is_some());
}

/// Known planned time at the ideal cycle time, whatever the machine did in it.
#[test]
fn the_target_is_what_the_known_planned_time_would_have_given() {
    let mut bench = Bench::new(oee(2.0), vec![shift("early", "06:00", "14:00", &[("06:01", "06:02")])]);
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(30.0, STATE, 5).put(40.0, TOTAL, 7);
    assert_eq!(bench.kpi(40.0).target, Some(20.0), "down time counts");
    assert_eq!(bench.kpi(120.0).target, Some(30.0), "a break does not");
    bench.lose(130.0, STATE);
    assert_eq!(bench.kpi(200.0).target, Some(35.0), "nor does time that nobody saw");

    let mut unrated = Bench::new(OeeSpec { ideal_cycle_time: None, ..oee(1.0) }, vec![]);
    unrated.put(0.0, STATE, 1).put(0.0, TOTAL, 0);
    assert_eq!(unrated.kpi(60.0).target, None, "no ideal cycle time");
    let mut resting = Bench::new(oee(1.0), vec![shift("early", "06:00", "14:00", &[("06:00", "06:30")])]);
    resting.put(0.0, STATE, 1).put(0.0, TOTAL, 0);
    assert_eq!(resting.kpi(60.0).target, None, "nothing was planned so far");
}

#[test]
fn the_edges_of_the_arithmetic() {
    let mut down = Bench::early();
    down.put(0.0, STATE, 5).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    let figures = down.kpi(60.0).figures;
    assert_eq!((figures.availability, figures.performance, figures.oee), (Some(0.0), None, Some(0.0)));
    assert_eq!(figures.quality, None, "no part, no quality");

    let mut idle = Bench::early();
    idle.put(0.0, STATE, 1).put(0.0, TOTAL, 7).put(0.0, REJECT, 0);
    let figures = idle.kpi(60.0).figures;
    assert_eq!((figures.performance, figures.oee, figures.quality), (Some(0.0), Some(0.0), None));

    let mut unrated = Bench::new(OeeSpec { ideal_cycle_time: None, ..oee(1.0) }, vec![]);
    unrated.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(30.0, TOTAL, 10);
    let figures = unrated.kpi(60.0).figures;
    assert_eq!((figures.oee, figures.performance), (None, None));
    assert_eq!((figures.availability, figures.quality), (Some(1.0), Some(1.0)));

    let mut fast = Bench::early();
    fast.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(10.0, TOTAL, 30);
    let kpi = fast.kpi(10.0);
    assert_eq!((kpi.figures.performance, kpi.hint()), (Some(3.0), Some("check the ideal cycle time")), "never capped");
    assert_eq!(fast.kpi(30.0).hint(), None, "at its best, and not above");

    let mut resting = Bench::new(oee(1.0), vec![shift("early", "06:00", "14:00", &[("06:00", "06:30")])]);
    resting.put(0.0, STATE, 5).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(30.0, TOTAL, 3);
    let kpi = resting.kpi(60.0);
    let figures = &kpi.figures;
    assert_eq!((figures.availability, figures.performance, figures.oee, figures.coverage), (None, None, None, None));
    assert_eq!((figures.quality, kpi.total, kpi.scheduled), (Some(1.0), Some(3.0), Some(false)), "nothing was planned");
    assert_eq!((resting.kpi(0.0).scheduled, resting.kpi(1801.0).scheduled), (None, Some(true)));

    let mut closed = Bench::new(oee(1.0), vec![shift("late", "14:00", "22:00", &[])]);
    assert_eq!(closed.view(0.0).kpi, None);
}

#[test]
fn only_a_total_counts_all_as_good_and_says_so() {
    let mut bench = Bench::new(OeeSpec { reject: None, ..oee(1.0) }, vec![]);
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(10.0, TOTAL, 8);
    let kpi = bench.kpi(10.0);
    assert_eq!((kpi.good, kpi.reject, kpi.figures.quality), (Some(8.0), Some(0.0), Some(1.0)));
    assert!(kpi.quality_assumed);
    assert!(!Bench::early().put(0.0, STATE, 1).kpi(1.0).quality_assumed);
}

#[test]
fn a_station_that_joins_in_mid_shift_counts_from_then() {
    let mut bench = Bench::early();
    bench.put(3600.0, STATE, 1).put(3600.0, TOTAL, 0).put(3600.0, REJECT, 0);
    let kpi = bench.kpi(3660.0);
    assert_eq!((kpi.since, kpi.figures.coverage), (t(3600.0), Some(1.0)));
}

#[test]
fn what_a_device_held_all_along_counts_from_its_receipt() {
    let mut bench = Bench::early();
    let held = Reading::good(STATE, Value::Int(1), t(0.0), t(7200.0));
    bench.line.apply(&[held], &mut bench.derived);
    assert_eq!(bench.kpi(7260.0).since, t(7200.0));
    // After a gap the same value, as old as before, tells of now and not of the gap.
    bench.lose(7300.0, STATE);
    let again = Reading::good(STATE, Value::Int(1), t(0.0), t(7400.0));
    bench.line.apply(&[again], &mut bench.derived);
    let kpi = bench.kpi(7500.0);
    assert_eq!((kpi.unknown_ns, kpi.run_ns), (100_000_000_000, 200_000_000_000));
}

#[test]
fn a_value_the_map_lacks_is_unknown_and_counted() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(10.0, STATE, 9).put(11.0, STATE, 9).put(15.0, STATE, 8).put(20.0, STATE, 1);
    assert_eq!(bench.kpi(20.0).unknown_ns, 10_000_000_000);
    let reasons: Vec<_> = bench.line.losses().map(|loss| loss.reason.to_string()).collect();
    let newest_first = ["state value `8` is not in oee.state.map", "state value `9` is not in oee.state.map"];
    assert_eq!(reasons, newest_first, "each change to one counts, not each poll of it");
}

#[test]
fn states_are_split_at_shift_ends_and_the_closed_shift_is_told_once() {
    let mut bench = Bench::new(oee(1.0), vec![shift("a", "06:00", "07:00", &[]), shift("b", "07:00", "08:00", &[])]);
    bench.put(3000.0, STATE, 1).put(3000.0, TOTAL, 0).put(3000.0, REJECT, 0).put(3600.0, TOTAL, 500);
    bench.line.advance(t(3601.0), &mut bench.derived);
    assert!(bench.derived.closed.is_empty(), "late readings may still come");
    bench.line.advance(t(3603.0), &mut bench.derived);
    bench.line.advance(t(3604.0), &mut bench.derived);
    assert_eq!(bench.derived.closed.len(), 1);
    let told: Vec<_> = bench.points().into_iter().filter(|point| point.time == t(3600.0)).collect();
    let last = told.iter().filter(|point| point.shift.as_deref() == Some("a")).collect::<Vec<_>>();
    assert_eq!(last.len(), 1, "{told:#?}");
    assert_eq!(last[0].figures.as_ref().and_then(|figures| figures.performance), Some(0.0), "made at 07:00: shift b");
    assert_eq!(bench.kpi(3700.0).total, Some(500.0));
}

#[test]
fn figures_of_an_instant_hold_all_up_to_it_and_nothing_after() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    bench.put(10.0, TOTAL, 10).put(10.5, TOTAL, 11);
    bench.line.advance(t(12.5), &mut bench.derived);
    let points = bench.points();
    let at_ten: Vec<_> = points.iter().filter(|point| point.time == t(10.0)).collect();
    assert_eq!(at_ten.len(), 1);
    assert_eq!(at_ten[0].figures.as_ref().and_then(|figures| figures.performance), Some(1.0));
    assert_eq!(at_ten[0].sums.good, Some(10.0));
    assert_eq!(at_ten[0].sums.state_time, vec![(State::Producing, 10_000_000_000)]);
}

#[test]
fn sums_are_told_once_an_instant_and_in_order_whatever_comes_at_a_shift_end_or_a_stop() {
    let mut bench = Bench::new(oee(1.0), vec![shift("a", "06:00", "07:00", &[]), shift("b", "07:00", "08:00", &[])]);
    bench.put(3000.0, STATE, 1).put(3000.0, TOTAL, 0).put(3000.0, REJECT, 0).put(3599.0, TOTAL, 500);
    bench.put(3601.0, TOTAL, 505);
    bench.line.advance(t(3602.5), &mut bench.derived);
    // A stop between an instant and the time at which it would have been told; then a restart.
    bench.line.tell_last(t(3611.0), &mut bench.derived);
    bench.lose(3611.5, STATE);
    bench.line.advance(t(3622.5), &mut bench.derived);
    let told: Vec<_> = bench.points().iter().filter_map(|point| Some((point.time, point.sums.good?))).collect();
    let last = &told[told.len() - 4..];
    assert_eq!(last, [(t(3600.0), 500.0), (t(3610.0), 505.0), (t(3611.0), 505.0), (t(3620.0), 505.0)]);
    assert!(told.is_sorted_by(|one, next| one.0 < next.0), "{told:?}");
    let ended: Vec<_> = bench.points().into_iter().filter(|point| point.shift.as_deref() == Some("a")).collect();
    let end = ended.last().expect("the end of shift a");
    assert_eq!((end.time, &end.sums), (t(3600.0), &crate::record::Sums::default()));
    assert!(end.figures.is_some());
}

#[test]
fn sums_on_the_page_never_fall_and_change_nothing_upstream() {
    let play = |look: bool| {
        let mut bench = Bench::early();
        let mut seen = Vec::new();
        bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
        for (at, tag, value) in [(5.0, TOTAL, 5), (5.5, REJECT, 1), (7.0, TOTAL, 6), (8.8, STATE, 5), (9.0, TOTAL, 7)] {
            if look {
                // Up to the instant at which the reading comes, half a second after its source's time.
                seen.push(bench.view(at + 0.5).sums.expect("sums").1);
            }
            let late = Reading::good(tag, Value::Int(value), t(at), t(at + 0.5));
            bench.line.apply(&[late], &mut bench.derived);
        }
        bench.line.advance(t(12.5), &mut bench.derived);
        (bench, seen)
    };
    let (mut looked_at, seen) = play(true);
    let running = |sums: &crate::record::Sums| sums.state_time.first().map(|&(_, spent)| spent);
    assert_eq!(seen.iter().map(|sums| sums.good).collect::<Vec<_>>(), [0.0, 5.0, 5.0, 5.0, 5.0].map(Some));
    assert!(seen.is_sorted_by_key(running), "{seen:?}");
    let (_, last) = looked_at.view(12.5).sums.expect("sums");
    assert_eq!((last.good, running(&last)), (Some(6.0), Some(9_300_000_000)), "held, though it ran for 8.8 s");
    assert_eq!(looked_at.derived.records, play(false).0.derived.records);
}

#[test]
fn what_comes_after_a_shift_has_closed_is_a_revision_of_it() {
    let two = || vec![shift("a", "06:00", "07:00", &[("06:59", "06:59:30")]), shift("b", "07:00", "08:00", &[])];
    let mut bench = Bench::new(oee(1.0), two());
    bench.put(3000.0, STATE, 1).put(3000.0, TOTAL, 0).put(3000.0, REJECT, 0);
    bench.line.advance(t(3602.5), &mut bench.derived);
    // The link turns out to have been dead for the last minute of a; its proof of life is older than the shift's end.
    let dead = Status::Own(OwnStatus::LinkLost);
    bench.line.apply(&[Reading::bad(STATE, dead, t(3530.0), t(3610.0))], &mut bench.derived);
    // What the machine did meanwhile, it tells afterwards.
    bench.line.apply(&[Reading::good(STATE, Value::Int(5), t(3580.0), t(3620.0))], &mut bench.derived);
    bench.line.apply(&[Reading::good(TOTAL, Value::Int(7), t(3590.0), t(3620.0))], &mut bench.derived);
    let told: Vec<_> =
        bench.derived.closed.iter().map(|(_, period)| (period.revision, period.states().collect::<Vec<_>>())).collect();
    let ns = |seconds: i64| seconds * 1_000_000_000;
    let producing = |seconds| (State::Producing, ns(seconds));
    let (broken, unknown, down) =
        ((State::Break, ns(30)), |seconds| (State::Unknown, ns(seconds)), (State::Down, ns(20)));
    let last = vec![producing(530), down, broken, unknown(20)];
    assert_eq!(
        told,
        [
            (0, vec![producing(570), broken]),
            (1, vec![producing(530), broken, unknown(40)]),
            (2, last.clone()),
            (3, last)
        ],
        "the break stays one"
    );
    let b = bench.kpi(3630.0);
    assert_eq!((b.unknown_ns, b.run_ns, b.planned_ns), (0, 0, ns(30)), "down since before it began");
    let a = bench.line.periods(t(3630.0)).remove(0).period;
    assert_eq!((a.tally.counts.total(&oee(1.0)), a.tally.unattributed), (Some(7.0), 7.0));
}

proptest::proptest! {
    /// However late news comes, every instant of a shift is spent once.
    #[test]
    fn every_instant_of_a_shift_is_spent_once(
        news in proptest::collection::vec((0..1500_u32, 0..4000_u32, proptest::option::of(0..4_usize)), 1..80),
    ) {
        let plan = vec![
            shift("a", "06:00", "07:00", &[("06:59", "07:00")]),
            shift("b", "07:00", "09:30", &[("07:00", "07:05"), ("08:00", "08:30")]),
            shift("c", "10:00", "06:00", &[]),
        ];
        let mut bench = Bench::new(oee(1.0), plan);
        let mut now = 0.0;
        for (pause, late, value) in news {
            now += f64::from(pause);
            let (source_time, received_time) = (t(now - f64::from(late)), t(now));
            bench.line.advance(received_time, &mut bench.derived);
            let reading = match value {
                Some(place) => Reading::good(STATE, Value::Int([1, 2, 5, 9][place]), source_time, received_time),
                None => Reading::bad(STATE, Status::Own(OwnStatus::LinkLost), source_time, received_time),
            };
            bench.line.apply(&[reading], &mut bench.derived);
        }
        let end = t(now + 1.0);
        let held = bench.line.periods(end).into_iter().map(|of| of.period);
        let told = bench.derived.closed.drain(..).map(|(_, period)| period);
        for period in told.chain(held) {
            let spent: i64 = period.states().map(|(_, spent)| spent).sum();
            proptest::prop_assert_eq!(spent, period.to.min(end).0 - period.from.0, "{:?}", period);
        }
    }
}

#[test]
fn late_news_changes_nothing_that_a_good_reading_has_confirmed() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(100.0, STATE, 1);
    let dead = Status::Own(OwnStatus::LinkLost);
    bench.line.apply(&[Reading::bad(STATE, dead, t(40.0), t(110.0))], &mut bench.derived);
    let kpi = bench.kpi(120.0);
    assert_eq!((kpi.run_ns, kpi.unknown_ns), (100_000_000_000, 20_000_000_000));
}

#[test]
fn where_nothing_counts_no_parts_are_told() {
    let mut bench = Bench::new(OeeSpec { total: None, reject: None, ..oee(1.0) }, vec![]);
    bench.put(0.0, STATE, 1);
    bench.line.advance(t(12.5), &mut bench.derived);
    let sums = &bench.points()[0].sums;
    assert_eq!((sums.good, sums.reject, sums.state_time.len()), (None, None, 1));
}

#[test]
fn a_late_reject_holds_the_sum_of_good_parts() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(5.0, TOTAL, 5);
    bench.line.advance(t(12.5), &mut bench.derived);
    bench.put(13.0, REJECT, 2).put(14.0, TOTAL, 6);
    bench.line.advance(t(22.5), &mut bench.derived);
    let good: Vec<_> = bench.points().iter().map(|point| point.sums.good).collect();
    assert_eq!(good, vec![Some(5.0), Some(5.0)], "held, though 4 are good");
    assert_eq!(bench.kpi(22.5).good, Some(4.0), "the page tells the truth");
}

#[test]
fn cycle_times_are_run_time_between_parts() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    bench.put(2.0, TOTAL, 1).put(3.0, STATE, 5).put(13.0, STATE, 1).put(15.0, TOTAL, 3);
    let (_, sums) = bench.view(15.0).sums.expect("sums");
    assert_eq!((sums.cycle.count, sums.cycle.sum), (2, 3.0), "two parts in 3 s of running; the first has no start");
}

/// Of parts that good and reject tell apart, those of one instant are one cycle's, or several: never one of no time at all.
#[test]
fn two_counters_of_one_instant_make_no_cycle_of_nothing() {
    let spec = OeeSpec { total: None, good: Some(counter(TOTAL)), ..oee(1.0) };
    let mut bench = Bench::new(spec, vec![]);
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    bench.put(2.0, TOTAL, 1).put(2.0, REJECT, 1).put(5.0, TOTAL, 2).put(5.0, REJECT, 2);
    let (_, sums) = bench.view(5.0).sums.expect("sums");
    assert_eq!((sums.cycle.zero_count, sums.cycle.min, sums.cycle.sum), (0, 3.0, 3.0));
}

/// The counter of another cell has another count: what lies between the two was never made.
#[test]
fn a_counter_that_is_another_tag_after_a_restart_begins_anew() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(10.0, TOTAL, 5);
    bench.line.advance(t(20.0), &mut bench.derived);
    let checkpoint = bench.line.checkpoint();
    let mut other = config(oee(1.0), vec![shift("early", "06:00", "14:00", &[])]);
    other.tags[TOTAL.index()].name = "pieces".into();
    bench.line = Line::new(&other);
    bench.line.restore(&checkpoint).expect("a checkpoint");
    bench.put(30.0, TOTAL, 980_000).put(40.0, TOTAL, 980_002);
    assert_eq!(bench.kpi(40.0).total, Some(7.0));
    bench.line = Line::new(&config(oee(1.0), vec![shift("early", "06:00", "14:00", &[])]));
    bench.line.restore(&checkpoint).expect("a checkpoint");
    bench.put(40.0, TOTAL, 7);
    assert_eq!(bench.kpi(40.0).total, Some(7.0), "the same tag goes on");
}

#[test]
fn readings_of_one_batch_are_applied_in_order_of_their_times() {
    let mut bench = Bench::early();
    let at = |seconds, tag, value| Reading::good(tag, Value::Int(value), t(seconds), t(9.0));
    let batch = [at(8.0, STATE, 5), at(0.0, STATE, 1), at(0.0, TOTAL, 0), at(4.0, TOTAL, 4), at(0.0, REJECT, 0)];
    bench.line.apply(&batch, &mut bench.derived);
    let kpi = bench.kpi(10.0);
    assert_eq!((kpi.run_ns, kpi.planned_ns, kpi.total), (8_000_000_000, 10_000_000_000, Some(4.0)));
}

#[test]
fn a_restart_from_a_checkpoint_changes_nothing() {
    let script: Vec<(f64, TagId, i64)> = (0..400)
        .map(|step| {
            let tag = [STATE, TOTAL, REJECT][step % 3];
            let value = if tag == STATE { [1, 1, 2, 5][step / 3 % 4] } else { i64::try_from(step / 4).expect("small") };
            (f64::from(u32::try_from(step).expect("small")) * 77.7, tag, value)
        })
        .collect();
    let feed = |line: &mut Line, part: &[(f64, TagId, i64)]| {
        let mut derived = Derived::default();
        for &(at, tag, value) in part {
            line.advance(t(at), &mut derived);
            line.apply(&[Reading::good(tag, Value::Int(value), t(at), t(at))], &mut derived);
        }
        derived.records
    };
    let plan = || vec![shift("a", "06:00", "09:00", &[("07:10", "07:25")]), shift("b", "09:00", "15:00", &[])];
    let mut undisturbed = Line::new(&config(oee(0.7), plan()));
    let whole = feed(&mut undisturbed, &script);
    for cut in [1, 57, 200, 399] {
        let mut before = Line::new(&config(oee(0.7), plan()));
        let mut records = feed(&mut before, &script[..cut]);
        let mut after = Line::new(&config(oee(0.7), plan()));
        after.restore(&before.checkpoint()).expect("a checkpoint");
        records.extend(feed(&mut after, &script[cut..]));
        assert_eq!(records, whole, "cut at {cut}");
        assert_eq!(after.checkpoint(), undisturbed.checkpoint(), "cut at {cut}");
    }
}

/// It is written every half minute, for years, to flash memory.
#[test]
fn a_checkpoint_of_a_busy_shift_is_small() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    for second in 1..8 * 3600_u32 {
        let at = f64::from(second) + f64::from(second * 7919 % 1000) / 1000.0;
        bench.put(at, TOTAL, second);
        if second % 61 == 0 {
            bench.put(at, REJECT, second / 61);
        }
        if second % 90 == 0 {
            bench.put(at, STATE, 5).put(at + 20.0 * f64::from(second % 7) / 10.0, STATE, 1);
        }
    }
    let size = bench.line.checkpoint().len();
    assert!(size < 10_000, "a part a second and a stop each 90 s: {size} bytes");
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let mut bench = Bench::early();
    bench.put(0.0, STATE, 1);
    let whole = bench.line.checkpoint();
    for cut in 0..whole.len() {
        let mut line = Line::new(&config(oee(1.0), vec![]));
        assert!(line.restore(&whole[..cut]).is_err(), "cut at {cut}");
    }
    let mut line = Line::new(&config(oee(1.0), vec![]));
    let error = line.restore(&[99]).expect_err("another layout");
    assert!(error.to_string().starts_with("the checkpoint has layout 99; this gemba reads layout "), "{error}");
}

#[test]
fn unwatched_time_is_told_for_every_tag() {
    let mut bench = Bench::early();
    assert_eq!(bench.line.unwatched(t(1.0), t(2.0)).count(), 0, "a station that is new begins with what it tells");
    bench.put(0.0, STATE, 1);
    let marks: Vec<_> = bench.line.unwatched(t(1.0), t(2.0)).collect();
    assert_eq!(marks.len(), 3);
    assert!(marks.iter().all(|mark| mark.validity.is_bad() && mark.source_time == t(1.0)));
}

#[test]
fn changes_of_text_and_validity_are_told() {
    let mut bench = Bench::early();
    let text = |word: &str, at| Reading::good(REJECT, Value::Text(Arc::from(word)), t(at), t(at));
    bench.line.apply(&[text("Idle", 0.0), text("Idle", 1.0), text("Execute", 2.0)], &mut bench.derived);
    bench.lose(3.0, REJECT);
    let told: Vec<_> = bench
        .derived
        .records
        .iter()
        .filter_map(|record| match record {
            Record::TagChanged { from, to, .. } => Some(format!("{from:?} to {to}")),
            Record::ValidityChanged { from, to, .. } => Some(format!("{} to {}", from.word(), to.word())),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["None to Idle", "Some(\"Idle\") to Execute", "good to bad"]);
}

/// Three shifts a day of which nobody needs all; figures are told now and then.
fn days(bench: &mut Bench, hours: std::ops::RangeInclusive<u32>) {
    for hour in hours {
        bench.line.advance(t(f64::from(hour) * 3600.0 + 5.0), &mut bench.derived);
    }
}

fn three_shifts() -> Vec<ShiftSpec> {
    vec![
        shift("early", "06:00", "14:00", &[]),
        shift("late", "14:00", "22:00", &[]),
        shift("night", "22:00", "06:00", &[]),
    ]
}

#[test]
fn a_failure_of_days_is_mended_after_days() {
    let mut bench = Bench::new(oee(1.0), three_shifts());
    bench.put(0.0, STATE, 1).put(3600.0, STATE, 5);
    days(&mut bench, 2..=73);
    bench.put(73.0 * 3600.0 + 10.0, STATE, 1);
    let kpi = bench.kpi(73.0 * 3600.0 + 60.0);
    assert_eq!(kpi.maintenance.mttr, Some(72.0 * 3600.0 + 10.0));
}

#[test]
fn a_stop_is_as_long_as_it_was_though_its_beginning_is_forgotten() {
    let micro = crate::model::MicroStops { limit: Duration::from_secs(300), states: vec![State::Down] };
    let mut bench = Bench::new(OeeSpec { micro_stops: Some(micro), ..oee(1.0) }, three_shifts());
    // Ten minutes over the end of the early shift, two of them in the late one.
    let end = 8.0 * 3600.0;
    bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(end - 480.0, STATE, 5).put(end + 120.0, STATE, 1);
    // Until the early shift is no longer held, but the late one is.
    days(&mut bench, 9..=35);
    let late = |bench: &Bench| {
        let held = bench.line.periods(t(35.0 * 3600.0 + 10.0)).remove(0).period;
        (held.from, held.revision, held.view(&oee(1.0)).run_ns)
    };
    let before = late(&bench);
    assert_eq!((before.0, before.1), (t(end), 0));
    let (told, at) = (t(16.0 * 3600.0 - 60.0), t(35.0 * 3600.0 + 10.0));
    bench.line.apply(&[Reading::good(TOTAL, Value::Int(7), told, at)], &mut bench.derived);
    days(&mut bench, 36..=36);
    assert_eq!(late(&bench), (before.0, 1, before.2), "two minutes are still of a stop of ten");
}

#[test]
fn parts_of_a_stop_that_nobody_planned_to_produce_in_are_not_planned_either() {
    use crate::model::losses::{Bucket, Preset};
    use crate::model::{Entry, Reason, What};

    let figures = |losses: Preset, bucket| {
        let mut config = config(OeeSpec { losses, ..oee(1.0) }, vec![shift("early", "06:00", "14:00", &[])]);
        config.knowledge.reasons = vec![Reason { code: "meal".into(), bucket, ..Reason::default() }];
        let mut bench = Bench { line: Line::new(&config), derived: Derived::default() };
        bench.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
        bench.put(100.0, TOTAL, 80).put(100.0, STATE, 2).put(150.0, TOTAL, 90).put(200.0, STATE, 1);
        let what = What::Reason { from: t(90.0), to: t(210.0), code: Some("meal".into()) };
        let entry = Entry { entered: t(210.0), by: None, station: "printer-1".into(), what };
        bench.line.enter(entry, &mut bench.derived).expect("it is taken");
        bench.line.advance(t(220.0), &mut bench.derived);
        let kpi = bench.kpi(200.0);
        (kpi.planned_ns / 1_000_000_000, kpi.total, kpi.figures.performance)
    };
    let of = Preset::Vorne;
    assert_eq!(figures(of, Some(Bucket::NotPlanned)), (100, Some(90.0), Some(0.8)), "neither its time nor its parts");
    assert_eq!(figures(of, None), (200, Some(90.0), Some(0.9)));
    assert_eq!(figures(of, Some(Bucket::Performance)), (200, Some(90.0), Some(0.45)));
}
