//! What the configuration tells the line model: reasons, products, days, costs, and what is computed.

use std::time::Duration;

use gemba::config::Config;
use gemba::model::{
    Bucket, ByCount, CostSpec, CounterSpec, EnergySpec, ExceptionalDay, FlowSpec, Lasts, LateBy, LateSpec, LineBy,
    MicroStops, OeeSpec, Preset, Product, Rates, Reason, ReasonSpec, ShiftSpec, StartupSpec, State,
};
use gemba_drivers::{TagId, Time};
use jiff::civil::{date, time};

const MODEL: &str = include_str!("config/good/model.yaml");

fn load(text: &str) -> Config {
    Config::from_str("model.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn oee(config: &Config, station: usize) -> &OeeSpec {
    config.stations[station].oee.as_ref().expect("it computes")
}

fn at(text: &str) -> Time {
    text.parse().expect("an instant")
}

#[test]
fn days_that_are_not_as_the_week_has_them_stand_in_order_of_date() {
    let config = load(MODEL);
    let holiday = |date| ExceptionalDay { date, name: None, shifts: Vec::new() };
    let early = ShiftSpec {
        name: "early".into(),
        days: [true; 7],
        start: time(6, 0, 0, 0),
        end: time(10, 0, 0, 0),
        breaks: vec![(time(8, 0, 0, 0), time(8, 15, 0, 0))],
    };
    let eve = ExceptionalDay { date: date(2026, 12, 24), name: Some("Christmas Eve".into()), shifts: vec![early] };
    let (christmas, last, new_year) = (date(2026, 12, 25), date(2026, 12, 31), date(2027, 1, 1));
    assert_eq!(config.exceptions, [eve, holiday(christmas), holiday(last), holiday(new_year)]);
    assert_eq!(config.shifts.len(), 2);
}

#[test]
fn a_reason_takes_what_the_one_above_it_says() {
    let reason = |code: &str, name: &str, parent, bucket, planned, is_failure| Reason {
        code: code.into(),
        name: name.into(),
        parent,
        bucket,
        planned,
        is_failure,
    };
    let (gone, free) = (Some(Bucket::Availability), Some(Bucket::NotPlanned));
    assert_eq!(
        load(MODEL).knowledge.reasons,
        [
            reason("mechanical", "Mechanical fault", None, gone, false, Some(true)),
            reason("feeder-jam", "Feeder jam", Some(0), gone, false, Some(true)),
            reason("tool-change", "tool-change", Some(0), free, true, Some(false)),
            reason("e-stop", "e-stop", None, None, false, None),
        ]
    );
}

#[test]
fn an_ideal_cycle_time_holds_from_an_instant_on() {
    let ms = Duration::from_millis;
    let ever = Time(i64::MIN);
    let product = |name: &str, times: &[(Time, Duration)]| Product {
        name: name.into(),
        ideal_cycle_time: times.to_vec(),
        ..Product::default()
    };
    let first = Product {
        takt: Some(ms(1500)),
        parts_per_cycle: Some(2.0),
        opportunities: Some(6.0),
        material_cost: Some(0.35),
        ..product("A-17", &[(ever, ms(1200))])
    };
    let (winter, summer) = (at("2026-01-01T00:00:00Z"), at("2026-06-30T22:00:00Z"));
    let second = product("1000", &[(ever, ms(1300)), (winter, ms(1250)), (summer, ms(1200))]);
    // Half past two does not exist on that day: it is taken as half past three, as for shifts.
    let third = product("B", &[(at("2026-03-29T01:30:00Z"), ms(2000))]);
    assert_eq!(load(MODEL).knowledge.products, [first, second, third, product("C", &[])]);
}

#[test]
fn what_is_computed_is_told_in_full() {
    let config = load(MODEL);
    let spec = oee(&config, 0);
    assert_eq!(spec.losses, Preset::Iso22400);
    let total = CounterSpec {
        tag: TagId(1),
        modulus: Some(65536.0),
        max_rate: Some(2.0),
        parts_per_count: Some(4.0),
        cycles: true,
    };
    assert_eq!((spec.total.as_ref(), spec.reject.as_ref()), (Some(&total), Some(&CounterSpec::of(TagId(2)))));
    assert_eq!((spec.rework.as_ref(), spec.good.as_ref()), (Some(&CounterSpec::of(TagId(3))), None));
    let stops = vec![State::Starved, State::Blocked, State::Idle, State::Down];
    assert_eq!(spec.micro_stops, Some(MicroStops { limit: Duration::from_secs(120), states: stops }));
    let lasts = Lasts::Run(Duration::from_secs(600));
    assert_eq!(spec.startup, Some(StartupSpec { after: vec![State::Setup, State::Down], lasts }));
    assert_eq!(spec.rolling, Some(Duration::from_secs(90)));
    let value = |value: &str, reason| (value.to_owned(), reason);
    let tags = vec![
        (TagId(4), vec![value("17", 1), value("4", 2)]),
        (TagId(5), vec![value("true", 3)]),
        (TagId(6), vec![value("JAM", 1)]),
    ];
    assert_eq!(spec.reason, Some(ReasonSpec { tags, first_out: Duration::from_millis(500) }));
    let text: Vec<_> = config.tags.iter().filter(|tag| tag.text).map(|tag| &*tag.name).collect();
    assert_eq!(text, ["alarm"], "its values are words");
    let meter = CounterSpec { modulus: Some(1e6), max_rate: Some(5.0 / 3600.0), ..CounterSpec::of(TagId(7)) };
    assert_eq!(spec.energy, Some(EnergySpec { counter: meter, joules_per_count: 3.6e6 }));
    assert_eq!(spec.by_count, None);

    let spec = oee(&config, 1);
    assert_eq!((&spec.state, spec.losses), (&None, Preset::Vorne));
    assert_eq!(spec.by_count, Some(ByCount { stopped_after: 3.0, state: State::Down }));
    let states = vec![State::Idle, State::Setup];
    assert_eq!(spec.micro_stops, Some(MicroStops { limit: Duration::from_secs(30), states }));
    assert_eq!(spec.startup, Some(StartupSpec { after: vec![State::Setup], lasts: Lasts::Parts(20.0) }));
    assert_eq!(spec.rolling, None);
    assert_eq!(spec.reason.as_ref().map(|reason| reason.first_out), Some(Duration::from_secs(5)), "the default");
    assert_eq!(spec.energy, Some(EnergySpec { counter: CounterSpec::of(TagId(10)), joules_per_count: 36_000.0 }));

    let spec = oee(&config, 2);
    assert_eq!(spec.by_count, Some(ByCount { stopped_after: 2.5, state: State::Idle }));
    assert_eq!((spec.ideal_cycle_time, &spec.micro_stops, &spec.reason), (None, &None, &None));
}

#[test]
fn a_station_pays_what_the_line_pays_unless_it_says_otherwise() {
    let config = load(MODEL);
    let line = Rates { energy_per_kwh: Some(0.25), time_per_hour: Some(80.0) };
    assert_eq!(config.costs, Some(CostSpec { currency: "EUR".into(), rates: line }));
    assert_eq!(oee(&config, 0).costs, Rates { energy_per_kwh: Some(0.3), time_per_hour: Some(80.0) });
    assert_eq!(oee(&config, 1).costs, line);
}

#[test]
fn parts_flow_as_written_or_as_the_stations_stand() {
    let config = load(MODEL);
    assert_eq!(
        config.flow,
        Some(FlowSpec { stations: vec![1, 0], constraint: Some(0), end: 0, by: LineBy::Constraint })
    );
    let flow = |written: &str| {
        load(&MODEL.replace("flow: { stations: [press-2, press-1], constraint: press-1, end: press-1 }", written)).flow
    };
    let all = vec![0, 1, 2];
    assert_eq!(
        flow("flow: {}"),
        Some(FlowSpec { stations: all.clone(), constraint: None, end: 2, by: LineBy::Constraint })
    );
    // The products have cycle times, so the station itself need not have one.
    assert_eq!(
        flow("flow: { constraint: press-3 }"),
        Some(FlowSpec { stations: all, constraint: Some(2), end: 2, by: LineBy::Constraint })
    );
    assert_eq!(flow(""), None);
}

#[test]
fn nothing_said_is_nothing_known() {
    let config = load(include_str!("../../config/line.yaml"));
    assert!(
        config.exceptions.is_empty() && config.knowledge.reasons.is_empty() && config.knowledge.products.is_empty()
    );
    assert_eq!((config.costs.as_ref(), config.flow.as_ref()), (None, None));
    let spec = oee(&config, 0);
    assert_eq!((spec.losses, spec.costs), (Preset::Vorne, Rates::default()));
    assert!(spec.micro_stops.is_none() && spec.reason.is_none() && spec.by_count.is_none() && spec.energy.is_none());
    assert_eq!(spec.total, Some(CounterSpec::of(TagId(1))));
}

#[test]
fn what_is_filled_in_is_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2").expect("written");
    let secret = format!("\"${{file:{}}}\"", file.display());
    let right = MODEL.replace("feeder-jam", &secret).replace("press-1", &secret);
    assert_eq!(&*load(&right).knowledge.reasons[1].code, "hunter2");
    // Each names something that is not there, and is told what is.
    let wrong = right
        .replace("4: tool-change", "4: nothing")
        .replace("press-2,", "nobody,")
        .replace("2027-01-01", &secret)
        .replace("EUR", &secret)
        .replace("1.25s", &secret)
        .replace("2026-07-01", &secret)
        .replace("0.3 }", &format!("{secret} }}"))
        .replace("[idle, setup]", &format!("[{secret}]"));
    let message = Config::from_str("model.yaml", &wrong).expect_err("refused").to_string();
    assert_eq!(message.lines().count(), 8, "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn the_schema_takes_it_and_refuses_what_loading_refuses() {
    let schema = gemba::config::schema();
    jsonschema::meta::validate(&schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let json = |text: &str| {
        let strict = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options::<serde_json::Value>(text, strict).expect("YAML")
    };
    let wrong: Vec<_> = validator.iter_errors(&json(MODEL)).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (from, to) in [
        ("2026-12-25]", "25.12.2026]"),
        ("name: Feeder jam", "nmae: Feeder jam"),
        ("bucket: not_planned", "bucket: unplanned"),
        ("material_cost: 0.35", "material_cost: -1"),
        ("time: 1.3s", "time: 1.3"),
        ("currency: EUR", "currency: eur"),
        ("losses: iso22400", "losses: iso"),
        ("counts: cycles", "counts: shots"),
        ("limit: 2min", "limit: 2 minutes"),
        ("{ from: counts }", "{ from: counts, tag: good }"),
        ("{ from: counts }", "{ from: parts }"),
        ("{ from: counts }", "{ tag: good }"),
        ("per_count: 10", "per_count: 0"),
        ("unit: Wh", "unit: W"),
    ] {
        let text = MODEL.replacen(from, to, 1);
        assert_ne!(text, MODEL, "`{from}`");
        assert!(!validator.is_valid(&json(&text)), "the schema takes `{to}`");
        assert!(Config::from_str("model.yaml", &text).is_err(), "loading takes `{to}`");
    }
}

#[test]
fn a_station_may_take_the_rejects_of_several_later_ones() {
    let config = load(include_str!("config/good/late-rejects.yaml"));
    let late = |from, station: &str, by, hours: u64| LateSpec {
        from,
        station: station.into(),
        by,
        within: Duration::from_secs(hours * 3600),
    };
    assert_eq!(oee(&config, 0).late, [late(1, "aoi-1", LateBy::Serial, 2), late(2, "ict-1", LateBy::Lot, 8)]);
    assert_eq!(oee(&config, 2).late, []);
}
