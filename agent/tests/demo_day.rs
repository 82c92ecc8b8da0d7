//! The whole set of figures over a day of the demo's line, and over the two days on which the clock changes in Berlin: a
//! deterministic run of its machines, told as readings, against what was figured out before and against what the machines did.

#![cfg(feature = "demo")]

use std::collections::BTreeMap;
use std::time::Duration;

use gemba::config::Config;
use gemba::http::{Flow, Kpi};
use gemba::model::State;
use gemba::replay::{Report, ReportedPeriod, replay};
use gemba_drivers::Time;
use gemba_drivers::sim::smt::{Change, MachineState, Model, Options, Station};
use serde_json::{Value as Json, json};

/// Ten times slower than life: fewer parts, and stops that last longer.
const LINE: Options = Options { seed: 11, speed: 0.1 };
/// How often the counters are told.
const POLL: Duration = Duration::from_secs(300);

/// The line of the demo in three shifts, with a break in one.
fn config() -> Config {
    let mut yaml = r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
shifts:
  - { name: night, start: "22:00", end: "06:00" }
  - { name: early, start: "06:00", end: "14:00", breaks: [{ start: "09:00", end: "09:20:30" }] }
  - { name: late, start: "14:00", end: "22:00" }
products:
  - { name: ECU-A7, ideal_cycle_time: [{ time: 12s }] }
flow: { constraint: printer-1 }
stations:"#
        .to_owned();
    for (unit, station) in (1..).zip(Station::ALL) {
        yaml += &format!(
            r#"
  - name: {station}
    source: {{ type: modbus, endpoint: "tcp://127.0.0.1:1", unit: {unit} }}
    context: {{ product: {{ tag: product }} }}
    tags:
      - {{ name: state, address: "holding:0", as: u16 }}
      - {{ name: total, address: "holding:1", as: u32 }}
      - {{ name: reject, address: "holding:3", as: u32 }}
      - {{ name: product, address: "holding:5", as: string, length: 8 }}
    oee:
      ideal_cycle_time: {}ms
      micro_stops: {{ limit: 2min }}
      state: {{ tag: state, map: {{ 1: producing, 2: starved, 3: blocked, 4: setup, 5: down }} }}
      total: {{ tag: total }}
      reject: {{ tag: reject }}"#,
            LINE.ideal(station).as_millis()
        );
    }
    Config::from_str("line.yaml", &yaml).expect("a configuration")
}

/// What the machines do from `from` to `to` and tell of it, as JSON lines: states and products as they change, counters now and
/// then, and just before each five minutes end.
fn told(model: &mut Model, to: Time) -> String {
    let mut lines = String::new();
    let mut put = |at: Time, station: Station, tag: &str, value: Json| {
        lines += &json!({"station": station.name(), "tag": tag, "value": value, "source_time": at}).to_string();
        lines.push('\n');
    };
    let mut products = BTreeMap::new();
    let start = model.start();
    for station in Station::ALL {
        put(start, station, "state", MachineState::Setup.number().into());
    }
    let mut poll = start;
    while poll < to {
        for event in model.advance(poll + Duration::from_millis(1)) {
            match event.change {
                Change::State(state) => put(event.at, event.station, "state", state.number().into()),
                Change::Board(board) if products.insert(event.station, board.product) != Some(board.product) => {
                    put(event.at, event.station, "product", board.product.name().into());
                }
                Change::Board(_) | Change::Part(..) | Change::Sample => {}
            }
        }
        for station in Station::ALL {
            let panel = model.panel(station);
            put(poll, station, "total", panel.total.into());
            put(poll, station, "reject", panel.reject.into());
        }
        poll = poll + if poll == start { POLL - Duration::from_millis(1) } else { POLL };
    }
    lines
}

/// From the night shift that ends on that day to its late shift.
fn day(date: &str) -> (Model, Report) {
    let date: jiff::civil::Date = date.parse().expect("a date");
    let ten = |date: jiff::civil::Date| {
        let at = date.at(22, 0, 0, 0).in_tz("Europe/Berlin").expect("an instant").timestamp();
        Time::from_millis(at.as_millisecond())
    };
    let (from, to) = (ten(date.yesterday().expect("a day before")), ten(date));
    let mut model = Model::new(LINE, from);
    let lines = told(&mut model, to);
    let report = replay(&config(), lines.as_bytes(), Some(to)).expect("readings");
    assert_eq!((report.periods.len(), report.losses.len(), report.strangers.len()), (9, 0, 0));
    (model, report)
}

/// The line as a whole, shift by shift.
fn line(report: &Report) -> Vec<Flow<'_>> {
    report.flow.iter().map(|of| Flow::new(of, &Station::ALL.map(Station::name))).collect()
}

fn shown(of: &ReportedPeriod) -> Json {
    #[expect(clippy::cast_precision_loss, reason = "a few hours")]
    let seconds = |spent: i64| spent as f64 / 1e9;
    let states: BTreeMap<_, _> = of.period.states().map(|(state, spent)| (state.word(), seconds(spent))).collect();
    let reasons: BTreeMap<_, _> =
        of.period.tally.reasons().iter().map(|(reason, _, spent)| (reason.to_string(), seconds(*spent))).collect();
    json!({
        "station": of.station, "shift": of.period.shift, "from": of.period.from, "to": of.to, "closed": of.closed,
        "revision": of.period.revision, "kpi": Kpi::from(&of.period.view(&of.spec)), "states": states, "reasons": reasons,
    })
}

/// Times and parts of the shifts without a break are those of the machines, to the nanosecond and the part.
fn as_the_machines_did(model: &Model, report: &Report) {
    let [first, .., last] = Station::ALL;
    for (of, period) in report.flow.iter().zip(report.periods.iter().filter(|of| *of.station == *first.name())) {
        assert_eq!((&of.shift, of.from, of.to), (&period.period.shift, period.period.from, period.to));
        let truth = model.truth(last, of.from, of.to);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let good = (truth.total - truth.reject) as f64;
        assert_eq!(of.good, Some(good), "what left the last machine");
    }
    assert_eq!(report.flow.len(), 3, "the shifts of the day");
    for of in report.periods.iter().filter(|of| &*of.period.shift != "early") {
        let station = Station::named(&of.station).expect("a machine");
        let truth = model.truth(station, of.period.from, of.to);
        let spent = |state: State| of.period.states().find(|&(seen, _)| seen == state).map_or(0, |(_, spent)| spent);
        for (state, told) in [
            (State::Producing, MachineState::Producing),
            (State::Starved, MachineState::Starved),
            (State::Blocked, MachineState::Blocked),
            (State::Setup, MachineState::Setup),
            (State::Down, MachineState::Down),
        ] {
            assert_eq!(
                u128::try_from(spent(state)).ok(),
                Some(truth.time_in(told).as_nanos()),
                "{} {state}",
                of.station
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let parts = |parts: u64| Some(parts as f64);
        let kpi = of.period.view(&of.spec);
        assert_eq!(
            (kpi.total, kpi.reject),
            (parts(truth.total), parts(truth.reject)),
            "{} {}",
            of.station,
            of.period.shift
        );
    }
}

fn hours(periods: &[ReportedPeriod]) -> i64 {
    periods.iter().filter(|of| &*of.station == "aoi-1").map(|of| of.to.0 - of.period.from.0).sum::<i64>()
        / 3_600_000_000_000
}

#[test]
fn an_ordinary_day() {
    let (model, report) = day("2026-03-02");
    as_the_machines_did(&model, &report);
    assert_eq!(hours(&report.periods), 24);
    insta::assert_json_snapshot!(report.periods.iter().map(shown).collect::<Vec<_>>());
    insta::assert_json_snapshot!(line(&report));
}

#[test]
fn the_day_on_which_an_hour_is_missing() {
    let (model, report) = day("2026-03-29");
    as_the_machines_did(&model, &report);
    assert_eq!(hours(&report.periods), 23);
    insta::assert_json_snapshot!(report.periods.iter().map(shown).collect::<Vec<_>>());
    insta::assert_json_snapshot!(line(&report));
}

#[test]
fn the_day_on_which_an_hour_comes_twice() {
    let (model, report) = day("2026-10-25");
    as_the_machines_did(&model, &report);
    assert_eq!(hours(&report.periods), 25);
    insta::assert_json_snapshot!(report.periods.iter().map(shown).collect::<Vec<_>>());
    insta::assert_json_snapshot!(line(&report));
}
