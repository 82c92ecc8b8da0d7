//! The line model as its user meets it: a configuration and readings in, figures out.

use gemba::config::Config;
use gemba::model::{Bucket, Period};
use gemba::replay::replay;
use gemba::snapshot::KpiView;

const SECOND: i64 = 1_000_000_000;

/// One station `press` with these keys under `oee:`, and what stands before the stations.
fn config(head: &str, oee: &str) -> Config {
    let tags = ["state", "total", "reject", "rework", "fault", "guard", "product", "lot", "energy"];
    let tags: Vec<_> = tags.iter().map(|tag| format!("      - {{ name: {tag}, path: \"$.{tag}\" }}\n")).collect();
    let text = format!(
        r#"
site: s
line: l
timezone: UTC
shifts: [{{ name: early, start: "06:00", end: "14:00", breaks: [{{ start: "10:00", end: "10:30" }}] }}]
{head}
stations:
  - name: press
    source: {{ type: mqtt, endpoint: "mqtt://h", client_id: c, topics: [{{ topic: t, payload: json }}] }}
    tags:
{}
    context: {{ product: {{ tag: product }}, lot: {{ tag: lot }} }}
    oee:
{oee}
"#,
        tags.concat()
    );
    Config::from_str("line.yaml", &text).unwrap_or_else(|error| panic!("{error}"))
}

const STATES: &str = "      state: { tag: state, map: { 1: producing, 2: starved, 3: idle, 4: setup, 5: down, 6: maintenance, 7: engineering } }
      total: { tag: total }\n";

/// Seconds after 2026-03-02T06:00:00Z, tag, value.
type Said<'a> = (f64, &'a str, serde_json::Value);

fn said(at: f64, tag: &str, value: impl Into<serde_json::Value>) -> Said<'_> {
    (at, tag, value.into())
}

fn time(seconds: f64) -> String {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).expect("a span");
    (start + span.round(jiff::Unit::Millisecond).expect("rounded")).to_string()
}

fn periods(config: &Config, said: &[Said<'_>], until: f64) -> Vec<Period> {
    let lines: Vec<String> = said
        .iter()
        .map(|(at, tag, value)| {
            serde_json::json!({"station": "press", "tag": tag, "value": value, "source_time": time(*at)}).to_string()
        })
        .collect();
    let until = time(until).parse().expect("a time");
    let report = replay(config, lines.join("\n").as_bytes(), Some(until)).expect("readings");
    report.periods.into_iter().map(|reported| reported.period).collect()
}

fn view(config: &Config, said: &[Said<'_>], until: f64) -> (Period, KpiView) {
    let period = periods(config, said, until).remove(0);
    let view = period.view(config.stations[0].oee.as_ref().expect("oee"));
    (period, view)
}

/// 100 s producing, then 50 s each: starved, idle, setup, down, maintenance, engineering.
fn round() -> Vec<Said<'static>> {
    let mut all = vec![said(0.0, "state", 1), said(0.0, "total", 0), said(90.0, "total", 60)];
    all.extend(
        [2, 3, 4, 5, 6, 7]
            .into_iter()
            .zip([100.0, 150.0, 200.0, 250.0, 300.0, 350.0])
            .map(|(s, at)| said(at, "state", s)),
    );
    all
}

#[test]
fn each_loss_accounting_puts_the_same_time_elsewhere() {
    // Run, performance, availability, not planned; in seconds.
    let expected = [
        ("vorne", [100, 0, 300, 0]),
        ("umh", [100, 100, 150, 50]),
        ("iso22400", [100, 0, 200, 100]),
        ("semi_e79", [100, 150, 150, 0]),
    ];
    for (preset, seconds) in expected {
        let config = config("", &format!("{STATES}      ideal_cycle_time: 1s\n      losses: {preset}\n"));
        let (period, view) = view(&config, &round(), 400.0);
        let found = Bucket::ALL.map(|bucket| period.tally.bucket(bucket) / SECOND);
        assert_eq!(found, seconds, "{preset}");
        let [run, slow, lost, _] = seconds.map(|seconds| f64::from(i32::try_from(seconds).expect("small")));
        let figures = &view.figures;
        assert_eq!(view.losses.word(), preset);
        assert_eq!(figures.availability, Some((run + slow) / (run + slow + lost)), "{preset}");
        assert_eq!(figures.performance, Some(60.0 / (run + slow)), "{preset}");
    }
}

#[test]
fn only_e79_counts_breaks_as_time() {
    let made = [said(0.0, "state", 1), said(0.0, "total", 0)];
    for (preset, planned) in [("vorne", 4), ("semi_e79", 5)] {
        let config = config("", &format!("{STATES}      ideal_cycle_time: 1s\n      losses: {preset}\n"));
        let (_, view) = view(&config, &made, 4.5 * 3600.0 + 1800.0);
        assert_eq!(
            view.planned_ns,
            planned * 3600 * SECOND + if preset == "vorne" { 1800 * SECOND } else { 0 },
            "{preset}"
        );
    }
}

#[test]
fn a_stop_that_is_short_is_slow_running_and_its_whole_length_counts() {
    let oee = format!("{STATES}      ideal_cycle_time: 1s\n      micro_stops: {{ limit: 60s }}\n");
    let config = config("", &oee);
    let stops = [said(0.0, "state", 1), said(0.0, "total", 0), said(100.0, "state", 2), said(140.0, "state", 1)];
    let seconds = |said: &[Said<'_>], until| {
        let (period, _) = view(&config, said, until);
        Bucket::ALL.map(|bucket| period.tally.bucket(bucket) / SECOND)
    };
    assert_eq!(seconds(&stops, 200.0), [160, 40, 0, 0]);
    assert_eq!(seconds(&stops[..3], 150.0), [100, 50, 0, 0], "so far");
    assert_eq!(seconds(&stops[..3], 170.0), [100, 0, 70, 0], "it has outgrown the limit");
    let mut two = stops[..3].to_vec();
    two.extend([said(130.0, "state", 5), said(165.0, "state", 1)]);
    assert_eq!(seconds(&two, 200.0), [135, 0, 65, 0], "30 s starved and 35 s down are one stop");
}

/// The shift closes while the stop is still short; when it outgrows the limit the closed shift is told again.
#[test]
fn a_stop_across_the_end_of_a_shift_is_judged_by_its_whole_length() {
    let head = "";
    let oee = format!("{STATES}      ideal_cycle_time: 1s\n      micro_stops: {{ limit: 60s }}\n");
    let config = config(head, &oee);
    let end = 8.0 * 3600.0;
    let mut all = vec![said(0.0, "state", 1), said(0.0, "total", 0), said(end - 30.0, "state", 2)];
    all.extend([said(end + 10.0, "total", 5), said(end + 100.0, "state", 1), said(end + 200.0, "total", 9)]);
    let early = periods(&config, &all, end + 300.0).remove(0);
    assert_eq!((early.revision, early.tally.bucket(Bucket::Availability) / SECOND), (1, 30));
    assert_eq!(early.tally.bucket(Bucket::Performance), 0);
}

const REASONS: &str = "reasons:
  - code: mechanical
    is_failure: true
    reasons: [{ code: jam }, { code: guard-open, bucket: performance, is_failure: false }]
  - { code: cleaning, planned: true, bucket: not_planned, is_failure: false }
";

fn faults() -> Config {
    let oee = format!(
        "{STATES}      ideal_cycle_time: 1s
      reasons:
        - {{ tag: fault, map: {{ 17: jam, 20: cleaning }} }}
        - {{ tag: guard, map: {{ true: guard-open }} }}
      first_out: 5s\n"
    );
    config(REASONS, &oee)
}

fn by_reason(period: &Period) -> Vec<(String, bool, i64)> {
    let reasons = period.tally.reasons().iter();
    reasons.map(|(reason, planned, ns)| (reason.to_string(), *planned, ns / SECOND)).collect()
}

#[test]
fn the_first_fault_out_is_the_reason_of_the_whole_stop() {
    let config = faults();
    let all = [
        said(0.0, "state", 1),
        said(0.0, "total", 0),
        said(0.0, "fault", 0),
        said(0.0, "guard", false),
        // The jam is told a second before the stop, the guard that is opened to clear it after it.
        said(99.0, "fault", 17),
        said(100.0, "state", 5),
        said(102.0, "guard", true),
        said(150.0, "guard", false),
        said(155.0, "fault", 0),
        said(160.0, "state", 1),
        // A stop that nothing explains.
        said(200.0, "state", 5),
        said(210.0, "state", 1),
        said(300.0, "fault", 20),
        said(300.0, "state", 3),
        said(360.0, "state", 1),
    ];
    let (period, view) = view(&config, &all, 400.0);
    let expected = [("jam", false, 60), ("unassigned", false, 10), ("cleaning", true, 60)];
    assert_eq!(by_reason(&period), expected.map(|(reason, planned, s)| (reason.to_owned(), planned, s)));
    assert_eq!(view.planned_ns / SECOND, 340, "cleaning was wanted so: no planned time");
    let repairs = period.tally.repairs;
    assert_eq!((repairs.failures, repairs.mended, repairs.mended_ns / SECOND), (2, 2, 70), "cleaning is no failure");
}

#[test]
fn a_reason_may_say_where_the_time_belongs() {
    let all = [
        said(0.0, "state", 1),
        said(0.0, "total", 0),
        said(100.0, "state", 5),
        said(103.0, "guard", true),
        said(150.0, "state", 1),
        said(151.0, "guard", false),
    ];
    let (period, view) = view(&faults(), &all, 200.0);
    assert_eq!(by_reason(&period), [("guard-open".to_owned(), false, 50)]);
    assert_eq!(view.figures.availability, Some(1.0), "slow running, by its bucket");
    assert_eq!(period.tally.repairs.failures, 0);
}

#[test]
fn a_machine_that_tells_no_state_stands_when_no_part_comes() {
    let oee = "      ideal_cycle_time: 10s
      state: { from: counts, stopped_after: 3, as: idle }
      total: { tag: total }\n";
    let config = config("", oee);
    let mut all = vec![said(0.0, "total", 0)];
    all.extend((1..=5).map(|part| said(f64::from(part) * 10.0, "total", part)));
    // Nothing for 100 s, then it goes on.
    all.extend((6..=8).map(|part| said(f64::from(part) * 10.0 + 90.0, "total", part)));
    let (period, kpi) = view(&config, &all, 175.0);
    let states: Vec<_> = period.states().map(|(state, ns)| (state.word(), ns / SECOND)).collect();
    assert_eq!(states, [("producing", 85), ("idle", 90)], "to 50 s; from 140 s, since a part takes ten seconds");
    assert_eq!((kpi.total, kpi.unattributed), (Some(8.0), 0.0));
    assert_eq!(kpi.figures.performance, Some(80.0 / 85.0));
    let (period, _) = view(&config, &all, 250.0);
    assert_eq!(period.states().map(|(state, ns)| (state.word(), ns / SECOND)).last(), Some(("idle", 170)));
}

#[test]
fn products_have_their_own_times_and_quality_is_weighted_by_them() {
    let products = "products:
  - { name: A, ideal_cycle_time: 2s }
  - { name: B, ideal_cycle_time: [{ time: 9s }, { from: 2026-03-01T00:00:00Z, time: 10s }] }
";
    let config = config(products, &format!("{STATES}      reject: {{ tag: reject }}\n"));
    let all = [
        said(0.0, "state", 1),
        said(0.0, "total", 0),
        said(0.0, "reject", 0),
        said(0.0, "product", "A"),
        said(90.0, "total", 40),
        said(90.0, "reject", 10),
        said(100.0, "product", "B"),
        said(190.0, "total", 46),
    ];
    let (_, kpi) = view(&config, &all, 200.0);
    let figures = &kpi.figures;
    assert_eq!(figures.performance, Some((40.0 * 2.0 + 6.0 * 10.0) / 200.0));
    assert_eq!(figures.quality, Some((30.0 * 2.0 + 60.0) / (80.0 + 60.0)));
    assert_eq!(figures.first_pass_yield, Some(36.0 / 46.0), "parts are parts");
    let good_ideal = 30.0 * 2.0 + 60.0;
    assert!((figures.oee.expect("known") - good_ideal / 200.0).abs() < 1e-12);
    assert_eq!(kpi.target, Some(100.0 / 2.0 + 100.0 / 10.0));
}

#[test]
fn the_target_follows_an_ideal_time_that_changes_while_the_machine_runs() {
    let products =
        "products: [{ name: A, ideal_cycle_time: [{ time: 2s }, { from: 2026-03-02T06:01:00Z, time: 5s }] }]";
    let config = config(products, STATES);
    let all = [said(0.0, "state", 1), said(0.0, "total", 0), said(0.0, "product", "A"), said(100.0, "total", 30)];
    let (_, kpi) = view(&config, &all, 160.0);
    assert_eq!(kpi.target, Some(60.0 / 2.0 + 100.0 / 5.0));
}

#[test]
fn reworked_parts_are_neither_good_nor_scrap() {
    let oee = format!("{STATES}      reject: {{ tag: reject }}\n      rework: {{ tag: rework }}\n");
    let config = config("", &oee);
    let mut all: Vec<_> = ["total", "reject", "rework"].map(|tag| said(0.0, tag, 0)).into();
    all.extend([said(50.0, "total", 20), said(50.0, "reject", 3), said(60.0, "rework", 2)]);
    let (_, kpi) = view(&config, &all, 100.0);
    assert_eq!((kpi.good, kpi.reject, kpi.rework), (Some(15.0), Some(3.0), Some(2.0)));
    assert_eq!(kpi.figures.first_pass_yield, Some(0.75));
}

#[test]
fn energy_and_cost_by_part() {
    let head = "products: [{ name: A, ideal_cycle_time: 1s, material_cost: 0.5 }]
costs: { currency: EUR, energy_per_kwh: 0.25, time_per_hour: 36 }";
    let config = config(head, &format!("{STATES}      energy: {{ tag: energy, unit: Wh }}\n"));
    let all = [
        said(0.0, "state", 1),
        said(0.0, "product", "A"),
        said(0.0, "total", 0),
        said(0.0, "energy", 1000),
        said(90.0, "total", 80),
        said(90.0, "energy", 1900),
        said(100.0, "state", 3),
        said(190.0, "energy", 2000),
    ];
    let (_, kpi) = view(&config, &all, 200.0);
    let energy = kpi.energy.expect("a counter tells it");
    assert_eq!((energy.joules, energy.idle_joules), (1000.0 * 3600.0, 100.0 * 3600.0));
    assert_eq!(energy.per_part, Some(45_000.0));
    let cost = kpi.cost.expect("prices are said");
    assert!((cost.cost - (40.0 + 0.25 + 2.0)).abs() < 1e-12, "80 parts at 0.5, 1 kWh, 200 s at 36 an hour: {cost:?}");
    assert_eq!(cost.per_good_part, Some(cost.cost / 80.0));
}

/// Three stations that hand parts on, with a constraint in the middle.
fn flow(keys: &str) -> Config {
    let station = |name: &str, ideal: &str| {
        format!(
            r#"
  - name: {name}
    source: {{ type: mqtt, endpoint: "mqtt://h", client_id: c, topics: [{{ topic: {name}, payload: json }}] }}
    tags: [{{ name: state, path: "$.s" }}, {{ name: total, path: "$.t" }}, {{ name: reject, path: "$.r" }}, {{ name: fault, path: "$.f" }}]
    oee:
      ideal_cycle_time: {ideal}
      state: {{ tag: state, map: {{ 1: producing, 2: starved, 3: blocked, 5: down }} }}
      total: {{ tag: total }}
      reject: {{ tag: reject }}
      reasons: [{{ tag: fault, map: {{ 17: jam }} }}]"#
        )
    };
    let text = format!(
        "site: s\nline: l\ntimezone: UTC\nreasons: [{{ code: jam }}]\nflow: {keys}\nstations:{}{}{}\n",
        station("first", "1s"),
        station("middle", "2s"),
        station("last", "1s")
    );
    Config::from_str("line.yaml", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn over(config: &Config, said: &[(f64, &str, &str, i32)], until: f64) -> gemba::model::FlowView {
    let line = |&(at, station, tag, value): &(f64, &str, &str, i32)| {
        serde_json::json!({"station": station, "tag": tag, "value": value, "source_time": time(at)}).to_string() + "\n"
    };
    let text: String = said.iter().map(line).collect();
    let until = time(until).parse().expect("a time");
    let mut report = replay(config, text.as_bytes(), Some(until)).expect("readings");
    report.flow.pop().expect("the line")
}

fn begin() -> Vec<(f64, &'static str, &'static str, i32)> {
    let stations = ["first", "middle", "last"];
    stations.into_iter().flat_map(|of| [(0.0, of, "state", 1), (0.0, of, "total", 0), (0.0, of, "reject", 0)]).collect()
}

#[test]
fn the_line_is_measured_by_its_constraint_and_never_a_mean() {
    let mut all = begin();
    all.extend([
        (90.0, "first", "total", 60),
        (90.0, "middle", "total", 42),
        (95.0, "last", "total", 40),
        (95.0, "last", "reject", 4),
    ]);
    all.push((80.0, "last", "state", 5));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let line = over(&flow("{ constraint: middle }"), &all, 100.0);
    assert_eq!((line.good, line.good_ideal_ns, line.planned_ns), (Some(36.0), Some(72e9), 100 * SECOND));
    assert_eq!(line.oee, Some(0.72), "36 good parts, each of which takes the constraint two seconds");
    assert_eq!(line.rolled_yield.map(|of| (of.value, of.n)), Some((0.9, 40.0)), "36 of 40, and all of 60 and 42");
    let last = over(&flow("{ oee: last }"), &all, 100.0);
    assert_eq!(last.oee, Some(0.36));
    let weighted = over(&flow("{ oee: weighted }"), &all, 100.0);
    assert_eq!(weighted.oee, Some((60.0 + 84.0 + 36.0) / 300.0));
}

#[test]
fn waiting_is_traced_to_the_station_that_causes_it() {
    let mut all = begin();
    all.extend([
        (10.0, "first", "fault", 17),
        (10.0, "first", "state", 5),
        // The lack of parts runs down the line, and so does their return.
        (20.0, "middle", "state", 2),
        (30.0, "last", "state", 2),
        (40.0, "first", "state", 1),
        (40.0, "first", "fault", 0),
        (50.0, "middle", "state", 1),
        (60.0, "last", "state", 1),
        (70.0, "first", "state", 2),
        (75.0, "first", "state", 1),
        (80.0, "last", "state", 5),
        (85.0, "middle", "state", 3),
        (95.0, "middle", "state", 1),
    ]);
    let line = over(&flow("{}"), &all, 100.0);
    assert_eq!(line.oee, None, "no constraint is named");
    let waits: Vec<_> = line
        .waits
        .iter()
        .map(|wait| {
            let reason = wait.reason.as_deref().unwrap_or("-");
            (
                wait.station,
                wait.state.word(),
                wait.cause,
                wait.cause_state.map(|state| state.word()),
                reason,
                wait.spent / SECOND,
            )
        })
        .collect();
    assert_eq!(
        waits,
        [
            (1, "starved", Some(0), Some("down"), "jam", 20),
            (1, "starved", Some(0), Some("producing"), "-", 10),
            (1, "blocked", Some(2), Some("down"), "unassigned", 10),
            (2, "starved", Some(0), Some("producing"), "-", 10),
            (2, "starved", Some(0), Some("down"), "jam", 10),
            (2, "starved", Some(1), Some("producing"), "-", 10),
            (0, "starved", None, None, "-", 5),
        ]
    );
}
