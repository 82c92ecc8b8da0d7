//! Published worked examples through the public path: a configuration and readings in, figures out.

use gemba::config::Config;
use gemba::model::{State, rollup};
use gemba::replay::{Report, ReportedPeriod, replay};
use gemba::snapshot::KpiView;
use serde_json::{Value as Json, json};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
/// A plan of one shift of eight hours, with an hour of breaks if need be.
const BREAKS: &str = r#", breaks: [{ start: "10:00", end: "11:00" }]"#;

fn vectors(text: &str) -> Vec<Json> {
    serde_json::from_str(text).expect("a list of vectors")
}

fn oee() -> Vec<Json> {
    vectors(include_str!("../../tests/fixtures/vectors/oee.json"))
}

fn quality() -> Vec<Json> {
    vectors(include_str!("../../tests/fixtures/vectors/quality.json"))
}

fn vector(all: Vec<Json>, id: &str) -> Json {
    all.into_iter().find(|vector| vector["id"] == id).expect("the vector is there")
}

#[track_caller]
fn number(value: &Json) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn near(found: impl Into<Option<f64>>, published: &Json, tolerance: &Json) {
    let (found, published) = (found.into().expect("a figure"), number(published));
    assert!((found - published).abs() <= number(tolerance), "{found}, published {published}");
}

/// The day's one shift from 06:00 on, so long and with such `breaks`.
fn shift(seconds: f64, breaks: &str) -> String {
    let end = jiff::civil::time(6, 0, 0, 0).wrapping_add(span(seconds));
    format!("timezone: UTC\nshifts: [{{ name: early, start: \"06:00\", end: \"{}\"{breaks} }}]", end.strftime("%H:%M"))
}

/// A line with two presses, each with `oee` beside what tells the state and the counts.
fn line(plan: &str, oee: &str) -> Config {
    let station = |name: &str, unit: u8| {
        format!(
            r#"
  - name: {name}
    source: {{ type: modbus, endpoint: "tcp://127.0.0.1:1", unit: {unit} }}
    context: {{ product: {{ tag: product }} }}
    tags:
      - {{ name: state, address: "holding:0", as: u16 }}
      - {{ name: total, address: "holding:1", as: u32 }}
      - {{ name: reject, address: "holding:3", as: u32 }}
      - {{ name: product, address: "holding:5", as: string, length: 8 }}
    oee:
      state: {{ tag: state, map: {{ 1: producing, 4: setup, 5: down, 6: maintenance }} }}
      {oee}"#
        )
    };
    let yaml = format!("site: s\nline: l\n{plan}\nstations:{}{}\n", station("press-1", 1), station("press-2", 2));
    Config::from_str("line.yaml", &yaml).expect("a configuration")
}

/// Counters of all parts and of rejects, at an ideal cycle time.
fn counted(ideal: f64) -> String {
    format!("ideal_cycle_time: {}ms\n      total: {{ tag: total }}\n      reject: {{ tag: reject }}", ideal * 1000.0)
}

/// What a station told, as JSON lines.
#[derive(Default)]
struct Told(String);

impl Told {
    /// By `press-1`, `seconds` after 2026-03-02T06:00:00Z, a Monday.
    fn put(&mut self, seconds: f64, tag: &str, value: impl Into<Json>) -> &mut Self {
        self.of("press-1", seconds, tag, value)
    }

    fn of(&mut self, station: &str, seconds: f64, tag: &str, value: impl Into<Json>) -> &mut Self {
        let reading = json!({"station": station, "tag": tag, "value": value.into(), "source_time": at(seconds)});
        self.0 += &format!("{reading}\n");
        self
    }

    /// Counters begin at zero.
    fn begin(&mut self, station: &str) -> &mut Self {
        self.of(station, 0.0, "total", 0).of(station, 0.0, "reject", 0)
    }

    fn replay(&self, config: &Config, until: f64) -> Report {
        let until = at(until).parse().expect("an instant");
        replay(config, self.0.as_bytes(), Some(until)).expect("readings")
    }
}

fn at(seconds: f64) -> String {
    let start: jiff::Timestamp = "2026-03-02T06:00:00Z".parse().expect("a time");
    (start + span(seconds)).to_string()
}

fn span(seconds: f64) -> jiff::SignedDuration {
    let span = jiff::SignedDuration::try_from_secs_f64(seconds).expect("a span");
    span.round(jiff::Unit::Millisecond).expect("rounded")
}

fn kpi(of: &ReportedPeriod) -> KpiView {
    of.period.view(&of.spec)
}

fn state_minutes(of: &ReportedPeriod, state: State) -> f64 {
    let spent = of.period.states().find(|&(seen, _)| seen == state).map_or(0, |(_, spent)| spent);
    let seconds = spent / 1_000_000_000;
    f64::from(i32::try_from(seconds).expect("a few")) / MINUTE
}

#[track_caller]
fn published(kpi: &KpiView, vector: &Json) {
    near(kpi.figures.availability, &vector["availability"], &vector["tol"]);
    near(kpi.figures.performance, &vector["performance"], &vector["tol"]);
    near(kpi.figures.quality, &vector["quality"], &vector["tol"]);
    near(kpi.figures.oee, &vector["oee"], &vector["tol"]);
}

/// A stop of some length at its beginning, and the counters told at its end.
fn worked(vector: &Json, planned: f64, plan: &str, until: f64) -> ReportedPeriod {
    let of = |key: &str| number(&vector[key]);
    let mut told = Told::default();
    told.begin("press-1").put(0.0, "state", 5).put(of("down_min") * MINUTE, "state", 1);
    told.put(planned, "total", vector["total"].clone()).put(planned, "reject", vector["reject"].clone());
    let config = line(plan, &counted(60.0 / of("ideal_rate_per_min")));
    let mut report = told.replay(&config, until);
    assert_eq!((report.periods.len(), report.losses.len()), (1, 0));
    let period = report.periods.remove(0);
    assert_eq!((kpi(&period).total, kpi(&period).reject), (vector["total"].as_f64(), vector["reject"].as_f64()));
    period
}

/// The worksheet as it is told: an eight-hour shift with an hour of breaks, 47 minutes down.
#[test]
fn the_worksheet_with_its_breaks() {
    let vector = vector(oee(), "vorne");
    let length = number(&vector["shift_min"]) * MINUTE;
    assert_eq!((length, number(&vector["breaks_min"])), (8.0 * HOUR, 60.0), "the plan above");
    let period = worked(&vector, length - 1.0, &shift(length, BREAKS), length);
    let kpi = kpi(&period);
    published(&kpi, &vector);
    near(kpi.teep, &vector["teep_over_480_min"], &vector["tol"]);
    let good = number(&vector["total"]) - number(&vector["reject"]);
    assert_eq!((kpi.good, kpi.figures.coverage, period.closed), (Some(good), Some(1.0), true));
    assert_eq!(state_minutes(&period, State::Down), number(&vector["down_min"]));
    assert_eq!(state_minutes(&period, State::Break), number(&vector["breaks_min"]));
}

#[test]
fn worked_examples_without_breaks() {
    for id in ["vorne-b", "3shift"] {
        let vector = vector(oee(), id);
        let planned = number(&vector["planned_min"]) * MINUTE;
        let kpi = kpi(&worked(&vector, planned - 1.0, &shift(planned, ""), planned));
        published(&kpi, &vector);
        assert_eq!(kpi.teep, kpi.figures.oee, "all of the time was planned");
    }
}

#[test]
fn the_six_big_losses_add_up() {
    let vector = vector(oee(), "six-big-losses");
    let of = |key: &str| number(&vector[key]);
    let loss = |key: &str| number(&vector["loss_min"][key]);
    let (down, end) = (of("down_min") * MINUTE, of("planned_min") * MINUTE);
    let mut told = Told::default();
    told.begin("press-1").put(0.0, "state", 5).put(down - of("setup_min_within_down") * MINUTE, "state", 4);
    told.put(down, "state", 1);
    // The first parts after the change-over are waste, all of them.
    let startup = vector["startup_reject_within_reject"].clone();
    told.put(down + 5.0 * MINUTE, "total", startup.clone()).put(down + 5.0 * MINUTE, "reject", startup);
    told.put(end - 1.0, "total", vector["total"].clone()).put(end - 1.0, "reject", vector["reject"].clone());
    let oee = counted(of("ict_min") * MINUTE) + "\n      startup: { after: [setup], for: 10min }";
    let report = told.replay(&line(&shift(end, ""), &oee), end);
    let [period] = report.periods.as_slice() else { panic!("one period: {report:?}") };
    let kpi = kpi(period);
    near(kpi.figures.oee, &vector["oee"], &vector["tol"]);
    assert_eq!(state_minutes(period, State::Down), loss("breakdown"));
    assert_eq!(state_minutes(period, State::Setup), loss("setup"));
    let run = state_minutes(period, State::Producing);
    near(
        run - kpi.figures.performance.expect("parts") * run,
        &vector["loss_min"]["speed_and_minor_stops"],
        &vector["tol"],
    );
    let startup = kpi.startup_reject.expect("counted");
    near(startup * of("ict_min"), &vector["loss_min"]["startup_reject"], &vector["tol"]);
    let process = kpi.reject.expect("counted") - startup;
    near(process * of("ict_min"), &vector["loss_min"]["process_reject"], &vector["tol"]);
}

#[test]
fn machines_of_a_line_are_added_up_and_no_mean_is_taken() {
    let vector = vector(oee(), "line-rollup");
    let machines = vector["machines"].as_array().expect("a list");
    let ideal = number(&machines[0]["ict_min"]) * MINUTE;
    let mut told = Told::default();
    let longest = machines.iter().map(|machine| number(&machine["planned_min"])).fold(0.0, f64::max) * MINUTE;
    for (machine, name) in machines.iter().zip(["press-1", "press-2"]) {
        assert_eq!(number(&machine["ict_min"]) * MINUTE, ideal, "of both");
        // Who is planned for less begins later.
        let minutes = |key: &str| number(&machine[key]) * MINUTE;
        let begin = longest - minutes("planned_min");
        told.of(name, begin, "state", 5).of(name, begin, "total", 0).of(name, begin, "reject", 0);
        told.of(name, longest - minutes("run_min"), "state", 1);
        told.of(name, longest - 1.0, "total", machine["total"].clone());
        told.of(name, longest - 1.0, "reject", number(&machine["total"]) - number(&machine["good"]));
    }
    let report = told.replay(&line(&shift(longest, ""), &counted(ideal)), longest);
    assert_eq!(report.periods.len(), 2);
    let stations = ["press-1", "press-2"]
        .map(|name| report.periods.iter().find(|period| &*period.station == name).expect("a period each"));
    for (of, oee) in stations.iter().zip(vector["oee"].as_array().expect("a list")) {
        near(kpi(of).figures.oee, oee, &vector["tol"]);
    }
    let since = at(0.0).parse().expect("an instant");
    let all = rollup(stations.map(|of| (&of.period.tally, &of.spec)), since).expect("two stations");
    let aggregate = &vector["aggregate"];
    near(all.figures.availability, &aggregate["availability"], &vector["tol"]);
    near(all.figures.performance, &aggregate["performance"], &vector["tol"]);
    near(all.figures.quality, &aggregate["quality"], &vector["tol"]);
    near(all.figures.oee, &aggregate["oee"], &vector["tol"]);
    let wrong = number(&vector["wrong_mean_not_this"]);
    assert!((all.figures.oee.expect("known") - wrong).abs() > 0.05, "not the mean of the two");
    assert_eq!((all.total, all.good, all.quality_assumed), (Some(230.0), Some(215.0), false));
}

/// Two products, each by its own ideal cycle time, told by a context tag.
#[test]
fn each_part_counts_by_the_ideal_time_of_its_own_product() {
    let vector = vector(oee(), "mixed-products");
    for (runs, performance) in [("runs", "performance"), ("day2", "performance_day2")] {
        let runs = vector[runs].as_array().expect("a list");
        let mut products = "products:".to_owned();
        let (mut told, mut now, mut total) = (Told::default(), 0.0, 0.0);
        told.begin("press-1").put(0.0, "state", 1);
        for (place, run) in runs.iter().enumerate() {
            let name = format!("P-{place}");
            products += &format!(
                "\n  - {{ name: {name}, ideal_cycle_time: {}ms }}",
                60_000.0 / number(&run["ideal_rate_per_min"])
            );
            told.put(now, "product", name);
            (now, total) = (now + number(&run["min"]) * MINUTE, total + number(&run["total"]));
            told.put(now - 1.0, "total", total);
        }
        assert_eq!(now, number(&vector["run_min"]) * MINUTE);
        let plan = format!("{}\n{products}", shift(now, ""));
        let report = told.replay(&line(&plan, &counted(1.0)), now);
        let kpi = kpi(&report.periods[0]);
        near(kpi.figures.performance, &vector[performance], &vector["tol"]);
        assert_eq!((kpi.total, kpi.figures.availability), (Some(total), Some(1.0)));
    }
}

#[test]
fn the_mean_time_to_restoration() {
    let vector = vector(oee(), "mttr");
    let repairs: Vec<f64> = vector["repairs_h"].as_array().expect("a list").iter().map(number).collect();
    let mut told = Told::default();
    told.begin("press-1").put(0.0, "state", 1);
    let mut now = 0.0;
    for repair in &repairs {
        told.put(now + HOUR, "state", 5).put(now + HOUR + repair * HOUR, "state", 1);
        now += (1.0 + repair) * HOUR;
    }
    // A service that nobody needed for a failure is none.
    told.put(now + HOUR, "state", 6).put(now + 2.0 * HOUR, "state", 1);
    let report = told.replay(&line("timezone: UTC", &counted(1.0)), now + 2.0 * HOUR);
    // A repair goes on over midnight, and counts once.
    assert_eq!(report.periods.len(), 2);
    let days = report.periods.iter().map(|of| (&of.period.tally, &of.spec));
    let maintenance = rollup(days, at(0.0).parse().expect("an instant")).expect("two days").maintenance;
    near(maintenance.mttr.map(|seconds| seconds / HOUR), &vector["mttr_h"], &vector["tol"]);
    assert_eq!((maintenance.failures, maintenance.repairs), (5, 5));
    assert_eq!(maintenance.mtbf, Some(6.0 * HOUR / 5.0), "it ran an hour before each, and one after the last");
    assert_eq!((maintenance.corrective, maintenance.planned), (12.5 * HOUR, HOUR));
    assert_eq!(maintenance.corrective_ratio, Some(12.5 / 13.5));
}

#[test]
fn counters_that_roll_over_or_begin_anew() {
    let counters: Vec<Json> = quality().into_iter().filter(|vector| vector["delta"].is_number()).collect();
    assert_eq!(counters.len(), 4);
    for vector in counters {
        let modulus = vector["modulus"].as_u64().map(|modulus| format!(", modulus: {modulus}")).unwrap_or_default();
        let config = line("timezone: UTC", &format!("total: {{ tag: total{modulus} }}"));
        let mut told = Told::default();
        told.put(0.0, "total", vector["prev"].clone()).put(1.0, "total", vector["cur"].clone());
        let report = told.replay(&config, 2.0);
        assert_eq!(kpi(&report.periods[0]).total, vector["delta"].as_f64(), "{vector}");
    }
}

/// The Berlin night shift on the two days on which the clock changes.
#[test]
fn a_night_shift_across_a_change_of_clock() {
    let vector = vector(quality(), "dst-night-shift");
    let (start, end) = vector["shift"].as_str().and_then(|shift| shift.split_once('-')).expect("a span");
    let zone = vector["tz"].as_str().expect("a zone");
    let plan = format!("timezone: {zone}\nshifts: [{{ name: night, start: \"{start}\", end: \"{end}\" }}]");
    for case in vector["cases"].as_array().expect("a list") {
        let date: jiff::civil::Date = case["start"].as_str().expect("a date").parse().expect("a date");
        let begins = date.to_datetime(start.parse().expect("a time")).in_tz(zone).expect("an instant").timestamp();
        let seconds = begins.duration_since(at(0.0).parse().expect("a time")).as_secs_f64();
        let mut told = Told::default();
        told.put(seconds, "state", 1);
        let report = told.replay(&line(&plan, &counted(1.0)), seconds + 12.0 * HOUR);
        assert_eq!(report.periods.len(), 1);
        assert_eq!(state_minutes(&report.periods[0], State::Producing), number(&case["hours"]) * 60.0, "{case}");
    }
}
