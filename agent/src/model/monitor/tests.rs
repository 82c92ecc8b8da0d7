//! Watching through the line: readings in, records and views out.

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Value};
use proptest::prelude::*;

use super::Monitor;
use crate::config::Config;
use crate::model::anomaly::{Change, End, Severity, Verdict};
use crate::model::spc::Rule;
use crate::model::{Derived, Entry, Line, What};
use crate::record::{AnomalyTold, Record, ViolationTold, WatchPoint};
use crate::snapshot::{SpoolView, StationView};

/// 2026-03-02T06:00:00Z, a Monday; the early shift begins.
const SIX: i64 = 1_772_431_200_000;

const TEMP: u32 = 0;
const TOTAL: u32 = 1;
const REJECT: u32 = 2;
const VERDICT: u32 = 3;
const DEFECT: u32 = 4;
const MODEL: u32 = 5;

const TAGS: &str = r#"
      - { name: temp, path: "$.temp" }
      - { name: total, path: "$.total" }
      - { name: reject, path: "$.reject" }
      - { name: verdict, path: "$.verdict" }
      - { name: defect, path: "$.defect" }
      - { name: model, path: "$.model" }"#;

const WATCH: &str = r"
    anomalies:
      - { name: hot, tag: temp, method: limits, high: 50, high_high: 80, clear: 1 }
      - { name: stuck, tag: temp, method: flat_line, for: 30s }
    spc:
      - { name: heat, tag: temp, chart: i_mr, limits: { center: 20, lower: 14, upper: 26 }, rules: [nelson_1] }
      - { name: share, chart: p, defective: { tag: reject }, inspected: { tag: total, max_rate: 100/s }, subgroup: 50,
          limits: { center: 0.1 } }
    inspection:
      settle: 100ms
      count: { tag: total, max_rate: 100/s }
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      defects: { tag: defect }
      model: { tag: model }";

fn yaml(watch: &str) -> String {
    format!(
        r#"
site: fab-2
line: smt-1
timezone: UTC
shifts:
  - {{ name: early, start: "06:00", end: "14:00" }}
  - {{ name: late, start: "14:00", end: "22:00" }}
stations:
  - name: press-1
    source: {{ type: mqtt, endpoint: "mqtt://127.0.0.1:1883", topics: [{{ topic: press }}] }}
    tags:{TAGS}{watch}
"#
    )
}

fn line(watch: &str) -> Line {
    Line::new(&Config::from_str("line.yaml", &yaml(watch)).expect("a configuration"))
}

fn at(seconds: f64) -> Time {
    #[expect(clippy::cast_possible_truncation, reason = "test times are whole milliseconds")]
    let millis = (seconds * 1000.0).round() as i64;
    Time::from_millis(SIX + millis)
}

/// What a device may tell.
trait Word {
    fn value(self) -> Value;
}

impl Word for f64 {
    fn value(self) -> Value {
        Value::Float(self)
    }
}

impl Word for i64 {
    fn value(self) -> Value {
        Value::Int(self)
    }
}

impl Word for &str {
    fn value(self) -> Value {
        Value::Text(self.into())
    }
}

fn told(seconds: f64, tag: u32, word: impl Word) -> Reading {
    Reading::good(TagId(tag), word.value(), at(seconds), at(seconds))
}

fn lost(seconds: f64, tag: u32) -> Reading {
    Reading::bad(TagId(tag), Status::Own(OwnStatus::LinkLost), at(seconds), at(seconds))
}

/// Each reading for itself, and what waits; everything that was said.
fn run(line: &mut Line, readings: &[Reading], until: f64) -> Derived {
    let mut derived = Derived::default();
    for reading in readings {
        line.advance(reading.received_time, &mut derived);
        line.apply(std::slice::from_ref(reading), &mut derived);
    }
    line.advance(at(until), &mut derived);
    derived
}

fn anomalies(derived: &Derived) -> Vec<&AnomalyTold> {
    let told = derived.records.iter();
    told.filter_map(|record| if let Record::Anomaly(told) = record { Some(&**told) } else { None }).collect()
}

fn violations(derived: &Derived) -> Vec<&ViolationTold> {
    let told = derived.records.iter();
    told.filter_map(|record| if let Record::Violation(told) = record { Some(&**told) } else { None }).collect()
}

fn watched(derived: &Derived) -> Vec<&WatchPoint> {
    let told = derived.records.iter();
    told.filter_map(|record| if let Record::Watched(point) = record { Some(&**point) } else { None }).collect()
}

fn view(line: &mut Line, seconds: f64) -> StationView {
    line.snapshot(at(seconds), SpoolView::default()).stations.remove(0)
}

#[test]
fn a_station_without_figures_is_watched_as_well() {
    let mut line = line(WATCH);
    let readings = [told(1.0, TEMP, 20.0), told(2.0, TEMP, 60.0), told(3.0, TEMP, 90.0), told(4.0, TEMP, 21.0)];
    let derived = run(&mut line, &readings, 33.0);
    let said: Vec<_> = anomalies(&derived).iter().map(|told| (told.change, told.time, told.episode.severity)).collect();
    assert_eq!(
        said,
        [
            (Change::Detected, at(2.0), Severity::Warning),
            (Change::Worsened, at(3.0), Severity::Critical),
            (Change::Ended, at(4.0), Severity::Critical),
        ]
    );
    assert_eq!(anomalies(&derived)[0].id().to_string(), "press-1/temp/hot@2026-03-02T06:00:02Z");
    let broken: Vec<_> =
        violations(&derived).iter().map(|told| (&*told.violation.chart, told.violation.rule, told.time())).collect();
    let Some(part) = violations(&derived).first().map(|told| told.violation.part) else { panic!("nothing broken") };
    assert_eq!(part, crate::model::spc::Part::Location);
    assert!(broken.contains(&("heat", Rule::Nelson1, at(2.0))) && broken.contains(&("heat", Rule::Nelson1, at(3.0))));
    assert!(broken.iter().all(|(.., time)| *time < at(4.5)), "{broken:?}");

    let station = view(&mut line, 33.0);
    let hot = &station.anomalies[0];
    assert_eq!((hot.counts.detected, hot.counts.warning, hot.counts.critical), (1, 1, 1));
    assert_eq!(hot.over[0].ended.map(|ended| ended.how), Some(End::Normal));
    assert_eq!((station.state, station.kpi), (None, None));
}

#[test]
fn a_standstill_is_told_by_time_alone() {
    let mut line = line(WATCH);
    let derived = run(&mut line, &[told(1.0, TEMP, 20.0), told(5.0, TOTAL, 1)], 33.5);
    let [stuck] = &anomalies(&derived)[..] else { panic!("{derived:?}") };
    assert_eq!((&*stuck.detector, stuck.time, stuck.episode.began), ("stuck", at(31.0), at(1.0)));
    let derived = run(&mut line, &[lost(40.0, TEMP)], 43.0);
    let [ended] = &anomalies(&derived)[..] else { panic!("{derived:?}") };
    assert_eq!((ended.change, ended.episode.ended.map(|ended| ended.how)), (Change::Ended, Some(End::Lost)));
}

#[test]
fn a_chart_of_counts_takes_differences_and_a_jump_is_in_the_ledger() {
    let mut line = line(WATCH);
    let mut readings = vec![told(0.0, TOTAL, 1000), told(0.0, REJECT, 70)];
    for second in 1..=10 {
        readings.push(told(f64::from(second), TOTAL, 1000 + 10 * i64::from(second)));
        readings.push(told(f64::from(second), REJECT, 70 + if second <= 5 { i64::from(second) * 5 } else { 25 }));
    }
    let derived = run(&mut line, &readings, 20.0);
    let [broken] = &violations(&derived)[..] else { panic!("{:?}", violations(&derived)) };
    assert_eq!((&*broken.violation.chart, &*broken.tags), ("share", "reject/total"));
    let station = view(&mut line, 20.0);
    let points = &station.charts[1].chart.points;
    assert_eq!(points.iter().map(|plotted| plotted.point.value).collect::<Vec<_>>(), [0.5, 0.0]);

    let derived = run(&mut line, &[told(21.0, TOTAL, 900_000)], 30.0);
    let reasons: Vec<_> = derived
        .records
        .iter()
        .filter_map(|record| if let Record::Loss { loss, .. } = record { Some(&*loss.reason) } else { None })
        .collect();
    assert_eq!(
        reasons,
        ["chart `share`: its counter jumped, faster than max_rate", "inspection counter jumped, faster than max_rate"]
    );
}

fn inspected(from: f64, verdicts: &[(&str, &str)]) -> Vec<Reading> {
    let mut readings = vec![told(from, TOTAL, 100), told(from, MODEL, "v1")];
    for (place, (verdict, defect)) in (1_u32..).zip(verdicts) {
        let second = from + f64::from(place);
        readings.push(told(second, VERDICT, *verdict));
        readings.push(told(second, DEFECT, *defect));
        readings.push(told(second, TOTAL, 100 + i64::from(place)));
    }
    readings
}

#[test]
fn inspections_are_summed_by_shift() {
    let mut line = line(WATCH);
    let shift = 8.0 * 3600.0;
    let mut readings = inspected(10.0, &[("OK", ""), ("NG", "bridge"), ("OK", ""), ("??", "")]);
    readings.extend([
        told(shift - 1.0, VERDICT, "NG"),
        told(shift - 1.0, DEFECT, "void"),
        told(shift - 1.0, TOTAL, 105),
        told(shift, VERDICT, "OK"),
        told(shift, MODEL, "v2"),
        told(shift, TOTAL, 106),
    ]);
    let derived = run(&mut line, &readings, shift + 30.0);
    let shifts = line.inspected(at(shift + 30.0));
    let said: Vec<_> = shifts
        .iter()
        .map(|of| (&*of.shift, of.from, of.tally.inspections, of.tally.pass, of.tally.fail, of.figures.defects.clone()))
        .collect();
    let defects = |all: &[(&str, u64)]| all.iter().map(|(code, count)| ((*code).into(), *count)).collect::<Vec<_>>();
    assert_eq!(
        said,
        [
            ("early", at(10.0), 5, 2, 2, defects(&[("bridge", 1), ("void", 1)])),
            ("late", at(shift), 1, 1, 0, Vec::new()),
        ]
    );
    let models: Vec<_> = derived
        .records
        .iter()
        .filter_map(|record| match record {
            Record::ModelChanged { from, to, .. } => Some((from.as_deref(), &**to)),
            _ => None,
        })
        .collect();
    assert_eq!(models, [(None, "v1"), (Some("v1"), "v2")]);

    // The end of the shift is told once, at its own time and without sums.
    let ends: Vec<_> = watched(&derived).into_iter().filter(|point| point.time == at(shift)).collect();
    let of = |point: &&WatchPoint| {
        (point.inspection.is_some(), point.rates.as_ref().map(|rates| (rates.shift.to_string(), rates.dpu)))
    };
    assert_eq!(ends.iter().map(of).collect::<Vec<_>>(), [(false, Some(("early".to_owned(), Some(0.4))))]);
    let last = watched(&derived).into_iter().rev().find_map(|point| point.inspection.clone()).expect("sums");
    assert_eq!((last.pass, last.fail, last.review, last.unknown, last.since), (3, 2, 0, 1, at(10.0)));
}

/// One code is one sum upstream, whoever found it.
#[test]
fn what_people_reject_is_told_with_what_the_inspection_finds() {
    use crate::model::{Entry, What};

    let mut line = line(&format!("{WATCH}\n    oee: {{ total: {{ tag: total }} }}"));
    let readings = inspected(10.0, &[("OK", ""), ("NG", "dent"), ("NG", "scratch")]);
    let mut derived = run(&mut line, &readings, 30.0);
    for (seconds, count, code) in [(31.0, 4, "scratch"), (32.0, 1, "burr")] {
        let what = What::Rejects { at: at(20.0), count, code: code.into() };
        let entry = Entry { entered: at(seconds), by: None, station: "press-1".into(), what };
        line.enter(entry, &mut derived).expect("it is taken");
    }
    line.advance(at(45.0), &mut derived);
    let last = watched(&derived).into_iter().filter_map(|point| point.inspection.as_ref()).next_back();
    let mut codes = last.expect("sums").defects.iter().map(|(code, count)| (&**code, *count)).collect::<Vec<_>>();
    codes.sort_unstable();
    assert_eq!(codes, [("burr", 1), ("dent", 1), ("scratch", 5)]);
    let twice = |record: &Record| matches!(record, Record::Kpi(point) if !point.sums.defects.is_empty());
    assert!(!derived.records.iter().any(twice), "nor is it told twice");
    let shown = view(&mut line, 45.0);
    assert_eq!(
        shown.sums.expect("sums").1.defects,
        [("scratch".into(), 4), ("burr".into(), 1)],
        "/metrics adds it up itself"
    );
}

#[test]
fn what_is_let_go_of_is_told_once_more_and_never_comes_back() {
    let mut line = line(WATCH);
    let mut derived = run(&mut line, &inspected(10.0, &[("OK", ""), ("NG", "bridge")]), 20.0);
    let days = 3.0 * 86_400.0;
    line.advance(at(days), &mut derived);
    assert_eq!(line.inspected(at(days)), Vec::new());
    let [gone] = &derived.inspected[..] else { panic!("{:?}", derived.inspected) };
    assert_eq!((&*gone.shift, gone.tally.inspections, gone.tally.fail), ("early", 2, 1));
    let sums = view(&mut line, days).inspection.and_then(|of| of.sums).expect("sums");
    assert_eq!((sums.pass, sums.fail), (1, 1), "the sums since ever stay");
}

#[test]
fn a_person_s_verdict_is_counted() {
    let mut line = line(WATCH);
    let derived = run(&mut line, &[told(1.0, TEMP, 60.0), told(2.0, TEMP, 20.0)], 10.0);
    let id = anomalies(&derived)[0].id();
    let what = What::Anomaly { tag: id.tag, detector: id.detector, began: id.began, verdict: Verdict::Dismissed };
    let entry = Entry { entered: at(10.0), by: None, station: id.station, what };
    let mut out = Derived::default();
    line.enter(Entry { station: "press-9".into(), ..entry.clone() }, &mut out).expect_err("no such station");
    line.enter(entry, &mut out).expect("it is remembered");
    line.advance(at(13.0), &mut out);
    assert_eq!(view(&mut line, 13.0).anomalies[0].verdicts.false_positives(), Some(1.0));
    let derived = run(&mut line, &[told(15.0, TEMP, 21.0)], 25.0);
    let told = watched(&derived).last().map(|point| point.detectors[0].false_positives);
    assert_eq!(told, Some(Some(1.0)));
}

#[test]
fn a_detector_of_another_tag_begins_anew() {
    let mut before = line(WATCH);
    run(&mut before, &[told(1.0, TEMP, 60.0), told(2.0, TEMP, 20.0)], 10.0);
    let bytes = before.checkpoint();
    let mut same = line(WATCH);
    same.restore(&bytes).expect("a checkpoint");
    assert_eq!(view(&mut same, 10.0).anomalies[0].counts.detected, 1);
    let mut other = line(&WATCH.replace("{ name: hot, tag: temp", "{ name: hot, tag: total"));
    other.restore(&bytes).expect("a checkpoint");
    let station = view(&mut other, 10.0);
    assert_eq!((station.anomalies[0].counts.detected, station.anomalies[0].since), (0, None));
    assert_eq!(station.anomalies[1].since, Some(at(1.0)), "the other one goes on");
    let mut none = line("");
    none.restore(&bytes).expect("a checkpoint");
    assert_eq!(none.stations[0].monitor, Monitor::default());
}

#[test]
fn what_is_watched_changes_no_figure() {
    let oee = "\n    oee: { ideal_cycle_time: 1s, total: { tag: total }, reject: { tag: reject }, state: { tag: verdict, map: { OK: producing, NG: down } } }";
    let readings: Vec<_> = (0..200_i32)
        .flat_map(|step| {
            let second = f64::from(step) * 1.5;
            let temp = told(second, TEMP, f64::from(step % 7) * 15.0);
            [temp, told(second, TOTAL, i64::from(step)), told(second, VERDICT, if step % 9 < 6 { "OK" } else { "NG" })]
        })
        .collect();
    let kpis = |watch: &str| {
        let mut line = line(&format!("{oee}{watch}"));
        let derived = run(&mut line, &readings, 320.0);
        let points = derived.records.into_iter().filter(|record| matches!(record, Record::Kpi(_)));
        (points.collect::<Vec<_>>(), line.periods(at(320.0)).into_iter().map(|of| of.period).collect::<Vec<_>>())
    };
    assert_eq!(kpis(""), kpis(WATCH));
}

/// Any day: tags that move, stand still and are lost, in some order of arrival.
fn any_readings() -> impl Strategy<Value = Vec<Reading>> {
    let one = (0_u32..6, 0_u32..1200, 0_u32..12, 0_u32..20);
    proptest::collection::vec(one, 1..120).prop_map(|all| {
        let mut now = 0.0;
        let mut readings = Vec::new();
        for (tag, late, step, value) in all {
            now += f64::from(step) / 2.0;
            let source = at(now - f64::from(late) / 1000.0);
            readings.push(match (tag, value) {
                (_, 0) => lost(now, tag),
                (TEMP, _) => Reading::good(TagId(tag), Value::Float(f64::from(value) * 5.0), source, at(now)),
                (TOTAL | REJECT, _) => {
                    let count = i64::try_from(readings.len()).expect("few") + i64::from(value % 3);
                    Reading::good(TagId(tag), Value::Int(count), source, at(now))
                }
                (VERDICT, _) => {
                    Reading::good(TagId(tag), (if value % 2 == 0 { "OK" } else { "NG" }).value(), source, at(now))
                }
                _ => Reading::good(TagId(tag), format!("v{}", value % 3).as_str().value(), source, at(now)),
            });
        }
        readings
    })
}

fn events(derived: Derived) -> Vec<String> {
    let told = derived.records.into_iter().filter(|record| !matches!(record, Record::Watched(_)));
    let mut all: Vec<_> = told.map(|record| format!("{record:?}")).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_kill_changes_nothing(readings in any_readings(), kills in proptest::collection::vec(any::<bool>(), 120)) {
        let (mut undisturbed, mut disturbed) = (line(WATCH), line(WATCH));
        let (mut one, mut other) = (Derived::default(), Derived::default());
        for (reading, kill) in readings.iter().zip(kills) {
            for (line, derived) in [(&mut undisturbed, &mut one), (&mut disturbed, &mut other)] {
                line.advance(reading.received_time, derived);
                line.apply(std::slice::from_ref(reading), derived);
            }
            if kill {
                let bytes = disturbed.checkpoint();
                disturbed = line(WATCH);
                disturbed.restore(&bytes).expect("a checkpoint");
            }
        }
        let end = readings.last().expect("one").received_time + std::time::Duration::from_secs(60);
        undisturbed.advance(end, &mut one);
        disturbed.advance(end, &mut other);
        let watched = |derived: &Derived| watched(derived).into_iter().cloned().collect::<Vec<_>>();
        prop_assert_eq!(watched(&one), watched(&other));
        prop_assert_eq!(&undisturbed.stations[0].monitor, &disturbed.stations[0].monitor);
        prop_assert_eq!(undisturbed.inspected(end), disturbed.inspected(end));
    }

    #[test]
    fn batches_change_nothing(readings in any_readings(), sizes in proptest::collection::vec(1_usize..9, 120)) {
        let (mut single, mut batched) = (line(WATCH), line(WATCH));
        let end = readings.last().expect("one").received_time + std::time::Duration::from_secs(60);
        let mut one = Derived::default();
        for reading in &readings {
            single.apply(std::slice::from_ref(reading), &mut one);
        }
        single.advance(end, &mut one);
        let mut other = Derived::default();
        let mut rest = &readings[..];
        for size in sizes {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            batched.apply(batch, &mut other);
            rest = after;
        }
        batched.apply(rest, &mut other);
        batched.advance(end, &mut other);
        prop_assert_eq!(events(one), events(other));
        prop_assert_eq!(&single.stations[0].monitor, &batched.stations[0].monitor);
    }
}

/// A device restarts, and dates one reading a month ahead.
#[test]
fn a_source_whose_clock_is_ahead_once_is_watched_afterwards() {
    let mut line = line(WATCH);
    let ahead = Reading::good(TagId(TEMP), Value::Float(20.0), at(2.6e6), at(1.0));
    let derived = run(&mut line, &[ahead, told(2.0, TEMP, 60.0)], 10.0);
    let said: Vec<_> = anomalies(&derived).iter().map(|told| (told.change, told.time)).collect();
    assert_eq!(said, [(Change::Detected, at(2.0))], "too hot");
}
