//! The configuration from the outside: what loads, what it comes to, and every mistake with its full message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gemba::config::{Config, Link, Protocol, Source};
use gemba::model::anomaly::{DetectorSpec, Learning, Limits, Method, Thresholds, Window};
use gemba::model::inspection::{
    BaselineSpec, DefectSpec, Finding, InspectionSpec, LatencySpec, ReviewSpec, Role, ScoreSpec, Trigger, Verdict,
    Words,
};
use gemba::model::spc::{Input, Kind, LimitsFrom, Rule, Tolerance};
use gemba::model::{ContextSpec, CounterSpec, State};
use gemba::spool::Signal;
use gemba_drivers::treat::expression;
use gemba_drivers::treat::{Compress, Options};
use gemba_drivers::{TagId, gpio, modbus, mqtt, opcua};
use jiff::civil::time;
use proptest::prelude::*;
use serde_json::Value as Json;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name")
}

fn load(text: &str) -> Config {
    Config::from_str("test.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    Config::from_str("test.yaml", text).expect_err("refused").to_string()
}

fn modbus(link: &Link) -> &modbus::Config {
    let Source::Modbus(config) = &link.source else { panic!("{link:?}") };
    config
}

fn opcua(link: &Link) -> &opcua::Config {
    let Source::Opcua(config) = &link.source else { panic!("{link:?}") };
    config
}

fn mqtt(link: &Link) -> &mqtt::Config {
    let Source::Mqtt(config) = &link.source else { panic!("{link:?}") };
    config
}

fn gpio(link: &Link) -> &gpio::Config {
    let Source::Gpio(config) = &link.source else { panic!("{link:?}") };
    config
}

#[test]
fn stations_share_a_chip_and_its_converters() {
    let config = load(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: press-1
    source:
      type: gpio
      poll: 250ms
      outputs: [{ name: andon_red, line: 22 }, { name: horn, line: HORN, active_low: true }]
      i2c: [{ name: adc1, device: ads1115 }, { name: adc2, bus: /dev/i2c-3, address: 0x4b, device: ads1015 }]
      spi: [{ name: adc3, device: mcp3208, reference: 5V }]
    tags:
      - { name: door, line: GPIO17, active_low: true, bias: pull_up, debounce: 5ms }
      - { name: parts, line: 27, count: rising }
      - { name: running, line: "27" }
      - { name: pressure, channel: "adc1:0-1", unit: V, range: 0.256V }
      - { name: level, channel: "adc3:7" }
  - name: press-2
    source: { type: gpio, i2c: [{ name: adc1, device: ads1115, address: 72 }] }
    tags: [{ name: pressure, channel: "adc1:3" }, { name: door, line: 5 }]
  - name: press-3
    source: { type: gpio, chip: /dev/gpiochip1 }
    tags: [{ name: door, line: 5 }]
"#,
    );
    let endpoints: Vec<_> =
        config.links.iter().map(|link| (link.endpoint.as_str(), link.stations.as_slice())).collect();
    assert_eq!(endpoints, [("/dev/gpiochip0", &[0, 1][..]), ("/dev/gpiochip1", &[2])]);
    assert_eq!(config.links[0].source.protocol(), "GPIO");
    let chip = gpio(&config.links[0]);
    let outputs: Vec<_> = chip.outputs.iter().map(|output| (&*output.name, &output.line, output.active_low)).collect();
    let horn = gpio::Line::Name("HORN".into());
    assert_eq!(outputs, [("andon_red", &gpio::Line::Offset(22), false), ("horn", &horn, true)]);
    let adc = |name: &str, bus, model, reference| gpio::Device { name: name.into(), bus, model, reference };
    let expected = [
        adc("adc1", gpio::Bus::I2c("/dev/i2c-1".into(), 0x48), gpio::Model::Ads1115, 0.0),
        adc("adc2", gpio::Bus::I2c("/dev/i2c-3".into(), 0x4b), gpio::Model::Ads1015, 0.0),
        adc("adc3", gpio::Bus::Spi("/dev/spidev0.0".into()), gpio::Model::Mcp3208, 5.0),
    ];
    assert_eq!(chip.devices, expected);
    let [one, two] = chip.stations.as_slice() else { panic!("{:?}", chip.stations) };
    assert_eq!((&*one.name, one.poll, two.poll), ("press-1", Duration::from_millis(250), Duration::from_secs(1)));
    let door = gpio::Setup { active_low: true, bias: Some(gpio::Bias::PullUp), debounce: Duration::from_millis(5) };
    let inputs: Vec<_> =
        one.inputs.iter().map(|input| (input.id, input.line.to_string(), input.setup, input.count)).collect();
    let plain = gpio::Setup::default();
    let expected = [
        (TagId(0), "line `GPIO17`".to_owned(), door, None),
        (TagId(1), "line 27".to_owned(), plain, Some(gpio::Edges::Rising)),
        (TagId(2), "line 27".to_owned(), plain, None),
    ];
    assert_eq!(inputs, expected);
    let channels = |station: &gpio::Station| -> Vec<_> {
        station.channels.iter().map(|channel| (channel.id.0, channel.device, channel.pins, channel.range)).collect()
    };
    let expected =
        [(3, 0, gpio::Pins::Between(0, 1), gpio::Range::V0_256), (4, 2, gpio::Pins::Single(7), gpio::Range::V4_096)];
    assert_eq!(channels(one), expected);
    assert_eq!(channels(two), [(5, 0, gpio::Pins::Single(3), gpio::Range::V4_096)]);
}

#[test]
fn a_draft_may_lack_tags_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("line.yaml");
    let draft = |text: &str| {
        std::fs::write(&file, text).expect("written");
        Config::draft(&file).map_err(|error| error.to_string())
    };
    let head = "site: s\nline: l\ntimezone: UTC\nstations:\n";
    let bare = "  - { name: a, source: { type: opcua, endpoint: \"opc.tcp://plc\" } }\n";
    let empty = "  - { name: b, source: { type: modbus, endpoint: \"tcp://plc\" }, tags: [] }\n";
    let config = draft(&format!("{head}{bare}{empty}")).expect("it loads");
    assert_eq!((config.stations.len(), config.tags.len(), config.links.len()), (2, 0, 2));
    let whole = Config::load(&file).expect_err("not to be run").to_string();
    assert!(whole.contains("the key `tags` is missing") && whole.contains("a station has at least one"), "{whole}");
    let wrong = draft(&format!("{head}  - {{ name: a, source: {{ type: opcua, endpoit: x }} }}\n")).expect_err("wrong");
    assert!(wrong.contains("did you mean `endpoint`?") && !wrong.contains("tags"), "{wrong}");
}

fn json(topic: &mqtt::Topic) -> &mqtt::Fields<serde_json_path::JsonPath> {
    let mqtt::Payload::Json(fields) = &topic.payload else { panic!("{topic:?}") };
    fields
}

#[test]
fn a_station_says_which_anomalies_are_looked_for() {
    let text = include_str!("config/good/anomalies.yaml");
    let config = load(text);
    assert_eq!(config.stations[0].detectors, []);
    let learning = |warm_up, accept_after, min_deviation| Learning {
        warm_up,
        accept_after: Duration::from_secs(accept_after),
        min_deviation,
    };
    let usual = |warm_up| learning(warm_up, 3600, 0.0);
    let thresholds = |warning, critical| Thresholds { warning, critical };
    let detector =
        |name: &str, tag, method| DetectorSpec { name: name.into(), tag: TagId(tag), method, consecutive: 1, clear: 3 };
    let robust = |window, learning, thresholds| Method::RobustZ { window, learning, thresholds };
    let seconds = Duration::from_secs;
    let flat = |band, warning, critical| Method::FlatLine { band, warning: seconds(warning), critical };
    let ewma =
        Method::Ewma { weight: 0.2, learning: learning(50, 7200, 0.25), thresholds: thresholds(Some(3.0), None) };
    let half_an_hour = robust(Window::Time(seconds(1800)), usual(30), thresholds(Some(4.0), Some(4.0)));
    let limits = Limits { low: Some(10.0), high_high: Some(95.5), ..Limits::default() };
    let expected = [
        detector("temp.1.robust_z", 2, robust(Window::Readings(100), usual(30), thresholds(Some(3.5), None))),
        detector("flow.robust_z", 3, robust(Window::Readings(20), usual(20), thresholds(None, Some(8.0)))),
        DetectorSpec { consecutive: 2, clear: 5, ..detector("drift", 1, ewma) },
        detector("half an hour", 1, half_an_hour),
        detector("flow.rate", 3, Method::Rate { over: seconds(10), thresholds: thresholds(Some(1.0), None) }),
        DetectorSpec { clear: 1, ..detector("flow.flat_line", 3, flat(0.5, 600, Some(seconds(3600)))) },
        DetectorSpec { clear: 1, ..detector("door.flat_line", 4, flat(0.0, 28_800, None)) },
        detector("flow.limits", 3, Method::Limits(limits)),
    ];
    assert_eq!(config.stations[1].detectors, expected);

    let validator = jsonschema::validator_for(&gemba::config::schema()).expect("a schema");
    let valid = |text: &str| validator.is_valid(&serde_saphyr::from_str::<Json>(text).expect("YAML"));
    assert!(valid(text));
    for (from, to) in [
        ("window: 20", "window: 4"),
        ("window: 30min", "window: 30 min"),
        ("warning: 60/min", "warning: 60"),
        ("for: 8h", "band: 1"),
        ("for: 8h", "for: 8h, clear: 2"),
        ("method: limits", "method: limit"),
        ("low: 10", "low: ten"),
    ] {
        let text = text.replacen(from, to, 1);
        assert!(!valid(&text), "the schema takes `{to}`");
        assert!(Config::from_str("anomalies.yaml", &text).is_err(), "loading takes `{to}`");
    }
}

#[test]
fn people_may_tell_only_where_the_configuration_lets_them() {
    let config = load(include_str!("config/good/http.yaml"));
    assert_eq!((config.http.listen.to_string().as_str(), config.http.entries), ("0.0.0.0:8080", true));
    assert!(!load(include_str!("../../config/line.yaml")).http.entries);
}

/// Each file in tests/config/bad ends with the messages it must give, all of them, each after `#! `.
#[test]
fn every_mistake_is_told_in_full() {
    let mut wrong = Vec::new();
    for path in yaml_files(&folder("tests/config/bad")) {
        let text = std::fs::read_to_string(&path).expect("readable");
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let found = match Config::from_str(name(&path), &text) {
            Ok(_) => "nothing wrong".to_owned(),
            Err(error) => error.to_string(),
        };
        if found != expected.join("\n") || expected.is_empty() {
            wrong.push(format!("{}\nexpected\n{}\nfound\n{found}\n", name(&path), expected.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_loads() {
    for path in yaml_files(&folder("../config")) {
        Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_station_says_which_tags_tell_its_unit_and_how_many_spans_are_told() {
    let plain = load(include_str!("../../config/line.yaml"));
    assert_eq!((plain.trace_sample, &plain.stations[2].context), (0.01, &ContextSpec::default()));
    let context = "    context: { serial: { tag: state }, lot: { tag: zone1 } }\ntraces: { sample: 12.5% }\n";
    let config = load(&format!("{}{context}", include_str!("../../config/line.yaml")));
    let expected = ContextSpec { serial: Some(TagId(8)), lot: Some(TagId(10)), ..ContextSpec::default() };
    assert_eq!((config.trace_sample, &config.stations[2].context), (0.125, &expected));
    let no_serial = "    context: { product: { tag: state }, order: { tag: zone1 } }\n";
    let config = load(&format!("{}{no_serial}", include_str!("../../config/line.yaml")));
    let expected = ContextSpec { product: Some(TagId(8)), order: Some(TagId(10)), ..ContextSpec::default() };
    assert_eq!(config.stations[2].context, expected);
    for wrong in ["101%", "-1%", "1 percent", "\"%\"", "nan%"] {
        let said = refused(&format!("{}traces: {{ sample: {wrong} }}\n", include_str!("../../config/line.yaml")));
        assert!(said.contains("traces.sample"), "{wrong}: {said}");
    }
}

#[test]
fn an_inspection_station_says_what_its_tags_tell() {
    let config = load(include_str!("config/good/inspection.yaml"));
    let [camera, scanner, plain] = config.stations.as_slice() else { panic!("{:?}", config.stations) };
    let spec = camera.inspection.as_ref().expect("it inspects");
    let words = |words: &[(&str, Verdict)]| words.iter().map(|(text, word)| ((*text).to_owned(), *word)).collect();
    let verdict = words(&[("OK", Verdict::Pass), ("NG", Verdict::Fail), ("?", Verdict::Review)]);
    let found = [("false call", Finding::Good), ("1", Finding::Confirmed)];
    let expected = InspectionSpec {
        trigger: Trigger::Id,
        settle: Duration::from_millis(100),
        verdict: Some(Words { tag: TagId(0), map: verdict }),
        id: Some(TagId(1)),
        score: Some(ScoreSpec { tag: TagId(2), edges: vec![0.0, 25.0, 50.0, 75.0, 100.0] }),
        defects: Some(DefectSpec {
            tag: TagId(3),
            separator: ';',
            codes: vec![("17".to_owned(), "bridge".into()), ("18".to_owned(), "tombstone".into())],
        }),
        queue: Some(TagId(4)),
        latency: Some(LatencySpec { tag: TagId(5), unit_ns: 1_000 }),
        model: Some(TagId(6)),
        review: Some(ReviewSpec {
            finding: Words { tag: TagId(7), map: found.map(|(text, word)| (text.to_owned(), word)).to_vec() },
            id: Some(TagId(8)),
            remember: 50,
        }),
        baseline: BaselineSpec::Given { edges: vec![40.0, 90.0], shares: vec![0.2, 0.5, 0.3] },
        product: None,
        products: Vec::new(),
        opportunities: Some(6.0),
    };
    assert_eq!(*spec, expected);
    assert_eq!([0, 3, 8].map(|tag| spec.role(TagId(tag))), [Role::Verdict, Role::Defects, Role::ReviewId].map(Some));
    assert_eq!(spec.role(TagId(9)), None);

    let counted = scanner.inspection.as_ref().expect("it inspects");
    let counter = CounterSpec { modulus: Some(65536.0), max_rate: Some(20.0), ..CounterSpec::of(TagId(10)) };
    assert_eq!((&counted.trigger, counted.role(TagId(10))), (&Trigger::Count(counter), Some(Role::Count)));
    let defaults = (counted.settle, counted.baseline.clone(), counted.review.is_none());
    assert_eq!(defaults, (Duration::ZERO, BaselineSpec::Learnt(200), true));
    let edges = &counted.score.as_ref().expect("it has a score").edges;
    assert_eq!((edges.len(), edges.first(), edges.last()), (21, Some(&0.0), Some(&1.0)));
    assert_eq!(plain.inspection.as_ref().map(|spec| &spec.trigger), Some(&Trigger::Message));
    assert!(load(include_str!("../../config/line.yaml")).stations.iter().all(|station| station.inspection.is_none()));
}

#[test]
fn all_signals_are_sent_unless_some_are_named() {
    let line = include_str!("../../config/line.yaml");
    let signals = |text: &str| load(text).upstream.expect("there is one").signals;
    assert_eq!(signals(line), Signal::ALL);
    let fewer = line.replace("compression: gzip", "signals: [logs, metrics]");
    assert_eq!(signals(&fewer), [Signal::Logs, Signal::Metrics]);
    let one_wrong = line.replace("compression: gzip", "signals: [log]");
    let said = refused(&one_wrong);
    assert!(said.contains("did you mean `logs`?") && !said.contains("there is no signal"), "{said}");
}

#[test]
fn the_reference_line_means_what_it_says() {
    let config = Config::load(&folder("../config/line.yaml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.site.as_ref(), config.line.as_ref()), ("fab-2", "smt-1"));
    assert_eq!(config.timezone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(config.http.listen, "127.0.0.1:8080".parse().expect("an address"));

    let upstream = config.upstream.as_ref().expect("there is one");
    assert_eq!(upstream.endpoint, "http://127.0.0.1:4318");
    assert_eq!((upstream.protocol, upstream.gzip), (Protocol::Http, true));
    assert_eq!(upstream.timeout, Duration::from_secs(10));
    let headers: Vec<_> = upstream.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-plant", "fab-2")]);

    assert_eq!(config.spool.path, Path::new("./data/spool"));
    assert_eq!((config.spool.max_size, config.spool.keep_free), (512 << 20, 64 << 20));
    assert_eq!((config.spool.sync, config.spool.keep), (Duration::from_millis(250), Duration::ZERO));

    let shifts: Vec<_> = config.shifts.iter().map(|shift| (shift.name.as_ref(), shift.start, shift.end)).collect();
    let (six, two, ten) = (time(6, 0, 0, 0), time(14, 0, 0, 0), time(22, 0, 0, 0));
    assert_eq!(shifts, [("early", six, two), ("late", two, ten), ("night", ten, six)]);
    assert_eq!(config.shifts[0].breaks, [(time(10, 0, 0, 0), time(10, 30, 0, 0))]);
    assert_eq!(config.shifts[0].days, [true; 7]);

    assert_eq!(config.tags.iter().map(|tag| tag.id.0).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
    let stations: Vec<_> =
        config.stations.iter().map(|station| (station.name.as_ref(), station.tags.clone(), station.link)).collect();
    assert_eq!(stations, [("printer-1", 0..4, 0), ("aoi-1", 4..8, 1), ("oven-1", 8..11, 2)]);
    let text: Vec<_> = config.tags.iter().filter(|tag| tag.text).map(|tag| tag.id.0).collect();
    assert_eq!(text, [4, 8]);
    assert_eq!(config.tags[3].unit.as_deref(), Some("N"));
    assert_eq!(config.tags[0].unit, None);

    let printer = config.stations[0].oee.as_ref().expect("computed");
    assert_eq!(printer.ideal_cycle_time, Some(Duration::from_millis(1200)));
    let state = printer.state.as_ref().expect("a state");
    assert_eq!(state.tag, TagId(0));
    let words: Vec<_> = state.map.iter().map(|(value, state)| (value.as_str(), *state)).collect();
    assert_eq!(
        words,
        [
            ("1", State::Producing),
            ("2", State::Starved),
            ("3", State::Blocked),
            ("4", State::Setup),
            ("5", State::Down)
        ]
    );
    assert_eq!(printer.total.as_ref().map(|counter| counter.tag), Some(TagId(1)));
    assert_eq!(printer.good, None);
    assert_eq!(printer.min_coverage.to_bits(), 0.5_f64.to_bits());

    let link = modbus(&config.links[0]);
    assert_eq!(link.endpoint, modbus::Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 5020 });
    assert_eq!((link.timeout, link.groups[0].poll), (Duration::from_secs(2), Duration::from_millis(200)));
    assert_eq!(link.groups[0].tags[3].address.to_string(), "input:10");
    assert_eq!(link.groups[0].tags[3].data_type, modbus::DataType::F32);

    let link = opcua(&config.links[1]);
    assert_eq!(link.endpoint, "opc.tcp://127.0.0.1:4840");
    assert_eq!((link.timeout, link.stations[0].publish), (Duration::from_secs(5), Duration::from_millis(250)));
    assert_eq!(link.stations[0].tags[0].node.to_string(), "nsu=urn:fab-2:aoi;s=State");

    let link = mqtt(&config.links[2]);
    assert_eq!(
        (link.client_id.as_str(), link.version, link.clean_session),
        ("gemba-smt-1", mqtt::Version::V311, false)
    );
    assert_eq!((link.keep_alive, link.timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((link.max_payload, link.topics[0].qos), (256 << 10, 1));
    let numeric: Vec<_> = json(&link.topics[0]).tags.iter().map(|tag| (tag.id.0, tag.numeric, tag.required)).collect();
    assert_eq!(numeric, [(8, false, false), (9, true, false), (10, false, false)]);
    assert_eq!(
        config.links.iter().map(|link| link.endpoint.as_str()).collect::<Vec<_>>(),
        ["tcp://127.0.0.1:5020", "opc.tcp://127.0.0.1:4840", "mqtt://127.0.0.1:1883"]
    );
}

/// What every tag may have, whatever its protocol.
#[test]
fn what_happens_to_readings_is_said_alike_for_every_protocol() {
    let treated =
        "scale: 0.1, offset: -40, clamp: { min: 0, max: 200 }, deadband: 2%, min_interval: 500ms, max_age: 30s";
    let config = load(&format!(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    max_clock_skew: 5s
    source: {{ type: modbus, endpoint: "tcp://gw:502" }}
    tags:
      - {{ name: power, expression: "volts * tags[\"amps.1\"]", unit: W, on_change: true }}
      - {{ name: volts, address: "holding:0", as: u16, {treated} }}
      - {{ name: amps.1, address: "holding:1", as: f32 }}
      - {{ name: hot, expression: "power / 1000 > 2.5" }}
  - name: b
    source: {{ type: opcua, endpoint: "opc.tcp://plc:4840" }}
    tags: [{{ name: t, node: "ns=2;i=1", {treated} }}]
  - name: c
    source: {{ type: mqtt, endpoint: "mqtt://broker", topics: [{{ topic: c }}] }}
    tags: [{{ name: t, path: $.t, {treated} }}, {{ name: u, path: $.u, compress: {{ deviation: 0.2 }} }}]
"#
    ));
    let expected = Options {
        scale: Some(0.1),
        offset: Some(-40.0),
        clamp: Some((0.0, 200.0)),
        deadband: Some(4.0),
        min_interval: Some(Duration::from_millis(500)),
        max_age: Some(Duration::from_secs(30)),
        ..Options::default()
    };
    let options = |tag: usize| config.tags[tag].treat.as_deref();
    for tag in [1, 4, 5] {
        assert_eq!(options(tag), Some(&expected));
    }
    assert!(options(2).is_none());
    let door = Compress { deviation: 0.2, max_gap: Duration::from_secs(60) };
    assert_eq!(options(6).and_then(|options| options.compress), Some(door));
    let formula = |tag| options(tag).and_then(|options| options.derived.as_ref()).expect("it is computed");
    assert_eq!(
        (formula(0).inputs.as_slice(), formula(0).expression.kind()),
        (&[TagId(1), TagId(2)][..], expression::Kind::Number)
    );
    assert_eq!((formula(3).inputs.as_slice(), formula(3).expression.kind()), (&[TagId(0)][..], expression::Kind::Bool));
    assert!(options(0).is_some_and(|options| options.on_change));
    let read: Vec<_> = modbus(&config.links[0]).groups[0].tags.iter().map(|tag| tag.id.0).collect();
    assert_eq!(read, [1, 2], "the driver never sees what is computed");
    assert_eq!(
        config.stations.iter().map(|it| it.max_clock_skew).collect::<Vec<_>>(),
        [Some(Duration::from_secs(5)), None, None]
    );
    let plan = config.plan(&config.links[0]);
    assert_eq!((plan.stations[0].tags.clone(), plan.stations[0].treated.len()), (0..4, 3));
}

/// As little as there can be: everything else has a default.
const LEAST: &str = r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    source: { type: mqtt, endpoint: mqtts://broker, topics: [{ topic: a/b }] }
    tags: [{ name: t, path: $.t }]
"#;

#[test]
fn defaults_are_as_documented() {
    let config = load(LEAST);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert!(config.upstream.is_none() && config.shifts.is_empty());
    assert_eq!(config.spool.max_size, 512 << 20);
    let link = mqtt(&config.links[0]);
    assert_eq!((link.endpoint.port, link.endpoint.tls, link.client_id.as_str()), (8883, true, "gemba-l"));
    assert!(config.stations[0].oee.is_none());
}

#[test]
fn a_node_is_found_by_name_or_path_and_picked_from() {
    let config = load(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    source:
      type: opcua
      endpoint: opc.tcp://plc
      events: [{ min_severity: 500 }, { node: "/Objects/2:Oven", refresh: false }]
    tags:
      - { name: a, node: "ns=2;s=A" }
      - { name: b, path: "/Objects/nsu=urn:plc;AOI.State", enum: name }
      - { name: c, node: "ns=2;s=C", index: 2, field: "Limits.High" }
      - { name: d, node: "ns=2;s=D", range: 3 }
      - { name: e, node: "ns=2;s=E", range: 0:3 }
"#,
    );
    let station = &opcua(&config.links[0]).stations[0];
    let told: Vec<_> = station
        .tags
        .iter()
        .map(|tag| {
            let range = tag.pick.range.as_ref().map(ToString::to_string);
            let field = tag.pick.field.as_ref().map(ToString::to_string);
            (tag.node.to_string(), range, field, tag.pick.names)
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        told,
        [
            ("ns=2;s=A".to_owned(), None, None, false),
            ("/Objects/nsu=urn:plc;AOI.State".to_owned(), None, None, true),
            ("ns=2;s=C".to_owned(), some("2"), some("Limits.High"), false),
            ("ns=2;s=D".to_owned(), some("3"), None, false),
            ("ns=2;s=E".to_owned(), some("0:3"), None, false),
        ]
    );
    let events: Vec<_> =
        station.events.iter().map(|told| (told.node.to_string(), told.min_severity, told.refresh)).collect();
    assert_eq!(events, [("i=2253".to_owned(), 500, true), ("/Objects/2:Oven".to_owned(), 1, false)]);
}

#[test]
fn a_standard_gives_the_states_and_the_map_has_the_last_word() {
    let states = |source: &str, state: &str| {
        let config = load(&format!(
            "site: s\nline: l\ntimezone: UTC\nstations:\n  - name: a\n    source: {source}\n    oee: {{ state: {state} }}\n"
        ));
        let map = config.stations[0].oee.as_ref().and_then(|oee| oee.state.clone()).expect("a state").map;
        let states: BTreeMap<_, _> = map.iter().cloned().collect();
        assert_eq!(states.len(), map.len(), "each value stands once");
        (states, config.tags[0].text)
    };
    let opcua = "{ type: opcua, endpoint: opc.tcp://plc }\n    tags: [{ name: t, node: i=1 }]";
    let (packml, text) = states(opcua, "{ tag: t, preset: packml, map: { Suspended: blocked, 99: setup } }");
    assert!(text);
    assert_eq!(
        (packml["Execute"], packml["6"], packml["Suspended"]),
        (State::Producing, State::Producing, State::Blocked)
    );
    assert_eq!((packml["5"], packml["99"], packml.len()), (State::Starved, State::Setup, 37));
    let modbus = "{ type: modbus, endpoint: tcp://plc }\n    tags: [{ name: t, address: \"holding:0\", as: u16 }]";
    let (vision, text) = states(modbus, "{ tag: t, preset: machine_vision }");
    assert!(!text);
    assert_eq!(vision.keys().map(String::as_str).collect::<Vec<_>>(), ["1", "2", "3", "4", "5", "6", "7", "8"]);
}

#[test]
fn stations_at_one_endpoint_share_a_link() {
    let config = load(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    source: { type: modbus, endpoint: "tcp://gw:502", unit: 1 }
    tags: [{ name: t, address: "coil:0" }]
  - name: b
    source: { type: mqtt, endpoint: "mqtt://broker", client_id: x, topics: [{ topic: b }] }
    tags: [{ name: t, path: $.t }]
  - name: c
    source: { type: modbus, endpoint: tcp://GW, unit: 2, timeout: 7s }
    tags: [{ name: t, address: "holding:3", as: i16 }]
  - name: d
    source: { type: mqtt, endpoint: "mqtt://broker:1883", client_id: x, username: u, password: p, topics: [{ topic: d }] }
    tags: [{ name: t, path: $.t }]
  - name: e
    source: { type: mqtt, endpoint: "mqtt://broker", client_id: y, topics: [{ topic: e }] }
    tags: [{ name: t, path: $.t }]
"#,
    );
    assert_eq!(
        config.links.iter().map(|link| link.stations.clone()).collect::<Vec<_>>(),
        [vec![0, 2], vec![1, 3], vec![4]]
    );
    assert_eq!(config.stations.iter().map(|station| station.link).collect::<Vec<_>>(), [0, 1, 0, 1, 2]);
    // The one that says so speaks for both.
    assert_eq!(modbus(&config.links[0]).timeout, Duration::from_secs(7));
    assert_eq!(modbus(&config.links[0]).groups.iter().map(|group| group.unit).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(modbus(&config.links[0]).groups[0].tags[0].data_type, modbus::DataType::Bool);
    let broker = mqtt(&config.links[1]);
    assert_eq!(broker.credentials.as_ref().map(|known| known.password.as_str()), Some("p"));
    assert_eq!(broker.topics.iter().map(|topic| topic.station.as_ref()).collect::<Vec<_>>(), ["b", "d"]);
    assert!(mqtt(&config.links[2]).credentials.is_none());
}

#[test]
fn a_tag_is_read_from_its_topic_or_from_all() {
    let config = load(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    source:
      type: mqtt
      endpoint: mqtt://h
      version: 5
      topics: [{ topic: x/+, qos: 2, time: { path: $.t, as: rfc3339 } }, { topic: y/#, qos: 0 }]
    tags: [{ name: both, path: $.b }, { name: one, path: $.o, topic: y/#, required: true, metric: plant.one }]
"#,
    );
    let link = mqtt(&config.links[0]);
    assert_eq!(link.version, mqtt::Version::V5);
    let topics: Vec<_> = link
        .topics
        .iter()
        .map(|topic| (topic.filter.as_str(), topic.qos, topic.payload.ids().iter().map(|id| id.0).collect::<Vec<_>>()))
        .collect();
    assert_eq!(topics, [("x/+", 2, vec![0]), ("y/#", 0, vec![0, 1])]);
    assert_eq!(json(&link.topics[0]).time.as_ref().map(|time| time.format.clone()), Some(mqtt::TimeFormat::Rfc3339));
    assert!(json(&link.topics[1]).tags[1].required);
    assert_eq!(config.tags[1].metric.as_deref(), Some("plant.one"));
}

#[test]
fn every_control_chart_is_resolved() {
    let config = load(include_str!("config/good/spc.yaml"));
    let charts = &config.stations[0].charts;
    let names: Vec<_> = charts.iter().map(|chart| &*chart.name).collect();
    let expected = [
        "diameter-xbar_r",
        "diameter-xbar_s",
        "diameter-i_mr",
        "diameter-ewma",
        "drift",
        "reject-total-p",
        "reject-total-np",
        "scratches-c",
        "scratches-total-u",
    ];
    assert_eq!(names, expected);
    assert!(charts.iter().all(|chart| chart.zone == config.timezone));
    let settings: Vec<_> = charts.iter().map(|chart| &chart.setting).collect();
    let kinds: Vec<_> = settings.iter().map(|setting| setting.kind).collect();
    let (ewma, cusum) = (Kind::Ewma { lambda: 0.1, width: 2.7 }, Kind::Cusum { k: 0.5, h: 4.77 });
    let expected = [Kind::XbarR, Kind::XbarS, Kind::IMr, ewma, cusum, Kind::P, Kind::Np, Kind::C, Kind::U];
    assert_eq!(kinds, expected);
    let sizes: Vec<_> = settings.iter().map(|setting| setting.size).collect();
    assert_eq!(sizes, [Some(5), None, Some(1), Some(1), Some(4), Some(50), Some(50), None, None]);
    let minutes: Vec<_> = settings.iter().map(|setting| setting.every.map(|every| every.as_secs() / 60)).collect();
    assert_eq!(minutes, [None, Some(15), None, None, Some(60), None, None, Some(480), Some(60)]);
    let limits: Vec<_> = settings.iter().map(|setting| setting.limits).collect();
    let known = |center, sigma| LimitsFrom::Known { center, sigma };
    let drawn = |center, lower, upper| LimitsFrom::Drawn { center, lower, upper };
    let expected = [
        LimitsFrom::Phase1(25),
        LimitsFrom::Phase1(30),
        drawn(74.0, Some(73.97), Some(74.03)),
        known(74.0, Some(0.01)),
        LimitsFrom::Phase1(25),
        LimitsFrom::Phase1(25),
        known(0.04, None), // 2 of 50
        LimitsFrom::Phase1(25),
        drawn(0.4, None, Some(0.9)),
    ];
    assert_eq!(limits, expected);
    assert_eq!((settings[1].max_gap, settings[0].max_gap), (Some(Duration::from_secs(60)), None));
    assert_eq!((&*settings[0].of, &*settings[5].of), ("diameter", "reject/total"));

    assert_eq!(charts[0].rules, Rule::ALL[..4]);
    assert_eq!(charts[1].rules, Rule::ALL[4..]);
    assert_eq!(charts[2].rules, [Rule::WesternElectric4, Rule::Nelson1]);
    assert_eq!((charts[3].rules.as_slice(), charts[4].rules.as_slice()), (&[][..], &[][..]));
    assert_eq!(
        charts[7].rules,
        [Rule::WesternElectric1, Rule::WesternElectric4, Rule::Nelson3],
        "counts have no zones"
    );
    let tolerance = Tolerance { lower: Some(73.95), target: Some(74.0), upper: Some(74.05) };
    assert_eq!((charts[0].tolerance, charts[1].tolerance), (Some(tolerance), None));

    let counter = |tag| CounterSpec::of(TagId(tag));
    assert_eq!(charts[0].input, Input::Readings(TagId(0)));
    let defects = CounterSpec { modulus: Some(65_536.0), ..counter(2) };
    let inspected = CounterSpec { max_rate: Some(2.0), ..counter(1) };
    assert_eq!(charts[5].input, Input::Counts { defects, inspected: Some(inspected) });
    assert_eq!(charts[7].input, Input::Counts { defects: counter(3), inspected: None });
    assert!(load(include_str!("../../config/line.yaml")).stations.iter().all(|station| station.charts.is_empty()));
}

#[test]
fn every_mqtt_payload_is_resolved() {
    let config = load(include_str!("config/good/mqtt.yaml"));
    let link = mqtt(&config.links[0]);
    let identity = link.identity.as_ref().expect("a certificate");
    assert_eq!(
        (identity.cert_file.as_path(), identity.key_file.as_path()),
        (Path::new("/own.pem"), Path::new("/own.key"))
    );
    assert!(link.rebirth && link.host_id.as_deref() == Some("scada"));
    let filters: Vec<_> = link.topics.iter().map(|topic| topic.filter.as_str()).collect();
    assert_eq!(
        filters,
        ["csv", "raw", "$share/g/fab/{station}/{tag}", "spBv1.0/Plant/+/Oven/#", "spBv1.0/Plant/+/{station}/#"]
    );

    let mqtt::Payload::Csv { separator: b';', header: true, fields } = &link.topics[0].payload else { panic!("CSV") };
    assert_eq!(
        fields.tags[0].place,
        mqtt::Column { at: mqtt::ColumnAt::Name("Serial No".into()), text: mqtt::Text::Text }
    );
    assert_eq!(fields.tags[1].place, mqtt::Column { at: mqtt::ColumnAt::Index(3), text: mqtt::Text::Any });
    let time = fields.time.as_ref().expect("a time");
    let berlin = jiff::tz::TimeZone::get("Europe/Berlin").expect("bundled");
    assert_eq!(time.format, mqtt::TimeFormat::Custom("%d.%m.%Y %H:%M:%S".into(), berlin));

    let mqtt::Payload::Binary(fields) = &link.topics[1].payload else { panic!("binary") };
    let field = |offset, kind, little| mqtt::Field { offset, kind, little };
    assert_eq!(fields.tags[0].place, field(8, mqtt::Kind::F32, true));
    assert_eq!(fields.tags[1].place, field(12, mqtt::Kind::Text(8), false));
    assert_eq!(fields.tags[2].place, field(20, mqtt::Kind::Bit(3), false));
    assert_eq!(fields.time.as_ref().map(|time| time.place), Some(field(0, mqtt::Kind::Signed(8), true)));

    let mqtt::Payload::Plain(fields) = &link.topics[2].payload else { panic!("plain") };
    assert_eq!((&*fields.tags[0].name, fields.tags[0].place), ("speed", mqtt::Text::Number));
    let metric = |name: &str, device: Option<&str>| mqtt::Metric { name: name.into(), device: device.map(Into::into) };
    let mqtt::Payload::Sparkplug(fields) = &link.topics[3].payload else { panic!("Sparkplug") };
    assert_eq!(fields.tags[0].place, metric("Zone 1/Temp", Some("PLC")));
    let mqtt::Payload::Sparkplug(fields) = &link.topics[4].payload else { panic!("Sparkplug") };
    assert_eq!(fields.tags[0].place, metric("count", Some("Other")));
}

#[test]
fn state_maps_take_numbers_booleans_and_text() {
    let text_of = |map: &str| {
        let text = LEAST.replace(
            "[{ name: t, path: $.t }]",
            &format!("[{{ name: t, path: $.t }}]\n    oee: {{ state: {{ tag: t, map: {map} }} }}"),
        );
        let config = load(&text);
        let state = config.stations[0].oee.as_ref().and_then(|oee| oee.state.clone()).expect("a state");
        (state.map.into_iter().map(|(value, _)| value).collect::<Vec<_>>(), config.tags[0].text)
    };
    assert_eq!(text_of("{ 1: producing, 2.0: down, -3: idle }"), (vec!["1".into(), "2".into(), "-3".into()], false));
    assert_eq!(text_of("{ true: producing, False: down }"), (vec!["true".into(), "false".into()], false));
    assert_eq!(text_of(r#"{ "on": producing, off line: down }"#), (vec!["on".into(), "off line".into()], true));
    assert_eq!(text_of(r#"{ "01": producing }"#), (vec!["01".into()], true));
    assert_eq!(text_of(r#"{ "1": producing }"#), (vec!["1".into()], false));
}

#[test]
fn shifts_wrap_around_midnight_and_the_week() {
    let with = |shifts: &str| format!("{LEAST}shifts:\n{shifts}");
    let config = load(&with(
        r#"  - { name: night, days: sun-thu, start: "22:00", end: "06:00", breaks: [{ start: "01:00", end: "01:30" }, { start: "23:30", end: "00:30" }] }
  - { name: day, days: "mon,wed,fri", start: 06:00, end: "18:00" }
  - { name: saturday, days: sat, start: "00:00", end: "24:00" }
"#,
    ));
    assert_eq!(config.shifts[0].days, [true, true, true, true, false, false, true]);
    assert_eq!(config.shifts[1].days, [true, false, true, false, true, false, false]);
    // In the order in which they come, also across midnight.
    assert_eq!(config.shifts[0].breaks[0], (time(23, 30, 0, 0), time(0, 30, 0, 0)));
    assert_eq!(config.shifts[2].end, time(0, 0, 0, 0));
    assert_eq!(
        refused(&with(
            "  - { name: a, days: sun, start: \"22:00\", end: \"06:00\" }\n  - { name: b, days: mon, start: \"05:00\", end: \"09:00\" }\n"
        )),
        "test.yaml:11:5: shifts[1]: shift `b` overlaps shift `a` (test.yaml:10:5) from mon 05:00 on"
    );
}

#[test]
fn what_is_filled_in_is_used_and_never_shown() {
    let secrets = tempfile::tempdir().expect("a folder");
    let file = secrets.path().join("password");
    std::fs::write(&file, "hunter2\n").expect("written");
    let text = format!(
        r#"
site: s
line: l
timezone: UTC
upstream: {{ otlp: {{ endpoint: "http://${{file:{0}}}:4318", headers: {{ authorization: "Bearer ${{file:{0}}}" }} }} }}
stations:
  - name: a
    source: {{ type: mqtt, endpoint: "mqtt://${{file:{0}}}.example", username: "${{env:CARGO_PKG_NAME}}", password: "${{file:{0}}}", client_id: "x-${{file:{0}}}", topics: [{{ topic: t }}] }}
    tags: [{{ name: t, path: $.t }}]
"#,
        file.display()
    );
    let config = load(&text);
    let upstream = config.upstream.as_ref().expect("there is one");
    assert_eq!(upstream.headers[0].1.expose(), "Bearer hunter2");
    assert_eq!(upstream.endpoint, "http://hunter2:4318");
    let link = mqtt(&config.links[0]);
    assert_eq!(link.endpoint.host, "hunter2.example");
    let credentials = link.credentials.as_ref().expect("given");
    assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("gemba", "hunter2"));
    assert_eq!(config.links[0].endpoint, format!("mqtt://${{file:{}}}.example", file.display()));
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");

    // The same in every place where it does not fit.
    let file = file.display();
    let wrong = format!(
        r#"
site: s
line: l
timezone: "${{file:{file}}}"
http: {{ listen: "${{file:{file}}}" }}
upstream: {{ otlp: {{ endpoint: "${{file:{file}}}", timeout: "${{file:{file}}}", compression: "${{file:{file}}}" }} }}
spool: {{ max_size: "${{file:{file}}}" }}
shifts: [{{ name: a, days: "${{file:{file}}}", start: "${{file:{file}}}", end: "07:00" }}]
stations:
  - name: a
    source: {{ type: "${{file:{file}}}" }}
  - name: b
    source: {{ type: opcua, endpoint: "${{file:{file}}}", security: "${{file:{file}}}" }}
    tags: [{{ name: t, node: "${{file:{file}}}", metric: "1${{file:{file}}}", unit: "${{file:{file}}} x" }}]
    oee: {{ min_coverage: "${{file:{file}}}", total: {{ tag: "${{file:{file}}}", modulus: "${{file:{file}}}", max_rate: "${{file:{file}}}" }} }}
  - name: c
    source: {{ type: mqtt, endpoint: "${{file:{file}}}", clean_session: "${{file:{file}}}", topics: [{{ topic: "a#${{file:{file}}}" }}] }}
    tags: [{{ name: t, path: "${{file:{file}}}" }}]
"#
    );
    let message = refused(&wrong);
    assert_eq!(message.lines().count(), 22, "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_folder_is_put_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let station = |name: &str| {
        format!(
            "stations:\n  - name: {name}\n    source: {{ type: modbus, endpoint: tcp://h }}\n    tags: [{{ name: t, address: 'coil:0' }}]\n"
        )
    };
    write("10-line.yaml", "site: s\nline: l\ntimezone: UTC\nupstream: { otlp: { endpoint: http://c } }\n");
    write("20-b.yaml", &station("b"));
    write("15-a.yaml", &format!("{}upstream: {{ otlp: {{ timeout: 3s }} }}\n", station("a")));
    write("90-empty.yaml", "# nothing\n");
    write("notes.txt", "no YAML: [");
    let config = Config::load(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.stations.iter().map(|station| station.name.as_ref()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.upstream.expect("there is one").timeout, Duration::from_secs(3));
    assert_eq!(config.links.len(), 1);

    write("30-again.yaml", &format!("{}site: t\n", station("a")));
    let message = Config::load(folder.path()).expect_err("refused").to_string();
    let at = folder.path().display();
    assert_eq!(
        message,
        format!(
            "{at}/30-again.yaml:2:11: stations[0].name: `a` is already the name of a station at {at}/15-a.yaml:2:11\n\
             {at}/30-again.yaml:5:7: site: is already set at {at}/10-line.yaml:1:7"
        )
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display();
    let message = |path: &Path| Config::load(path).expect_err("refused").to_string();
    assert_eq!(message(folder.path()), format!("{at}: holds no file named `*.yaml`"));
    let missing = folder.path().join("missing.yaml");
    assert_eq!(message(&missing), format!("{at}/missing.yaml: cannot be read: No such file or directory (os error 2)"));
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink(&missing, &link).expect("linked");
    assert!(message(folder.path()).starts_with(&format!("{}: cannot be read: ", link.display())), "a link to nowhere");
    std::fs::remove_file(&link).expect("removed");
    let latin = folder.path().join("latin.yaml");
    std::fs::write(&latin, b"site: s\nline: Gr\xf6\xdfe\n").expect("written");
    assert_eq!(message(&latin), format!("{at}/latin.yaml:2:9: not UTF-8 text"));
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = load(
        r#"
site: &s s
line: *s
timezone: UTC
stations:
  - name: a
    source: &plc { type: modbus, endpoint: tcp://h, poll: 2s }
    tags: &tags [{ name: t, address: "coil:0" }]
  - name: b
    source: { <<: *plc, unit: 2 }
    tags: *tags
"#,
    );
    assert_eq!(config.line.as_ref(), "s");
    assert_eq!(modbus(&config.links[0]).groups[1].poll, Duration::from_secs(2));
    assert_eq!(config.tags.len(), 2);
}

#[test]
fn the_schema_says_what_loading_says() {
    let schema = gemba::config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    jsonschema::meta::validate(&schema).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    // As YAML 1.2 has it: `N` is the newton.
    let strict = || serde_saphyr::options! { strict_booleans: true };
    let json = |text: &str| serde_saphyr::from_str_with_options::<Json>(text, strict()).expect("YAML");

    let line = json(include_str!("../../config/line.yaml"));
    assert!(
        validator.is_valid(&line),
        "{:?}",
        validator.iter_errors(&line).map(|error| error.to_string()).collect::<Vec<_>>()
    );
    assert!(validator.is_valid(&json(LEAST)));
    assert!(validator.is_valid(&json(include_str!("config/good/spc.yaml"))));
    for (from, to) in [
        ("site: fab-2", "sites: fab-2"),
        ("poll: 200ms", "publish: 200ms"),
        ("poll: 200ms", "poll: 200"),
        ("poll: 200ms", "poll: 20 sec"),
        ("unit: 1\n", "unit: 0\n"),
        ("type: modbus", "type: modbsu"),
        ("address: \"holding:0\"", "address: \"hold:0\""),
        ("publish: 250ms", "unit: 1"),
        ("opc.tcp://", "tcp://"),
        ("qos: 1", "qos: 3"),
        ("path: \"$.state\"", "node: \"i=1\""),
        ("running: producing", "running: runing"),
        ("days: mon-sun", "days: monday"),
        ("\"06:00\"", "\"25:00\""),
        ("max_size: 512MiB", "max_size: 512M"),
        ("timezone: Europe/Berlin", ""),
        ("compression: gzip", "compression: zstd"),
    ] {
        let text = include_str!("../../config/line.yaml").replacen(from, to, 1);
        assert!(!validator.is_valid(&json(&text)), "the schema takes `{to}`");
        assert!(Config::from_str("line.yaml", &text).is_err(), "loading takes `{to}`");
    }
}

/// One OPC UA station with these options of its source.
fn secured(source: &str, more: &str) -> String {
    format!(
        "{{ site: s, line: l, timezone: UTC, stations: [ \
         {{ name: a, source: {{ type: opcua, {source} }}, tags: [{{ name: t, node: i=1 }}] }}, \
         {{ name: b, source: {{ type: opcua, {source} }}, tags: [{{ name: t, node: i=2 }}] }} ] {more} }}"
    )
}

#[test]
fn an_opcua_source_says_how_it_is_secured_and_who_we_are() {
    use opcua::{Identity, Mode, Policy, Secured, Security};
    let plain = load(&secured("endpoint: 'opc.tcp://a'", ""));
    assert_eq!(opcua(&plain.links[0]).security, Security::None);
    assert_eq!(opcua(&plain.links[0]).identity, Identity::Anonymous);
    assert_eq!(plain.pki, Path::new("./data/pki"), "beside the spool");

    let config = load(&secured(
        "endpoints: ['opc.tcp://a', 'opc.tcp://b:4841'], security: aes256, username: u, password: hunter2",
        ", spool: { path: /var/lib/gemba/spool }",
    ));
    let [link] = config.links.as_slice() else { panic!("the same list is one link: {:?}", config.links) };
    assert_eq!(
        (link.endpoint.as_str(), link.stations.as_slice()),
        ("opc.tcp://a, opc.tcp://b:4841", [0, 1].as_slice())
    );
    let told = opcua(link);
    assert_eq!(
        (told.endpoint.as_str(), told.spares.as_slice()),
        ("opc.tcp://a", ["opc.tcp://b:4841".to_owned()].as_slice())
    );
    let secured_by = |policy, mode, verify_host, pki: &str| {
        Security::Secured(Secured { policy, mode, verify_host, pki: pki.into() })
    };
    let strongest = secured_by(Policy::Aes256Sha256RsaPss, Mode::SignAndEncrypt, true, "/var/lib/gemba/pki");
    assert_eq!(told.security, strongest);
    assert_eq!(told.identity, Identity::User { name: "u".to_owned(), password: "hunter2".to_owned() });
    assert!(!format!("{told:?} {config:?}").contains("hunter2"));

    let config = load(&secured(
        "endpoint: 'opc.tcp://a', security: aes128, mode: sign, verify_host: false, certificate_file: /u.pem, \
         private_key_file: /k.der",
        ", opcua: { pki: /etc/gemba/pki }",
    ));
    let told = opcua(&config.links[0]);
    assert_eq!(told.security, secured_by(Policy::Aes128Sha256RsaOaep, Mode::Sign, false, "/etc/gemba/pki"));
    assert_eq!(told.identity, Identity::Certificate { certificate: "/u.pem".into(), key: "/k.der".into() });
    assert_eq!(config.pki, Path::new("/etc/gemba/pki"));

    for name in ["Aes128_Sha256_RsaOaep", "Aes256-Sha256-RsaPss"] {
        let said = refused(&secured(&format!("endpoint: 'opc.tcp://a', security: {name}"), ""));
        assert!(said.contains("did you mean `aes"), "{said}");
    }
}

/// What a place says of an option: required, its default, or neither.
#[derive(Clone, Debug, PartialEq)]
enum Need {
    Required,
    Default(String),
    Neither,
    /// A section: what counts stands at its keys.
    Section,
}

/// Every option below `schema` by its path: `shifts[].breaks[].start`, `stations[].source.modbus.poll`. Keys of a
/// tag go by one path, whatever the protocol.
fn options(schema: &Json, path: &str, into: &mut BTreeMap<String, Need>) {
    for then in schema["allOf"].as_array().into_iter().flatten() {
        options(&then["then"], path, into);
    }
    // What a tag that is computed does not need stands under `else`.
    let required: Vec<_> =
        [&schema["required"], &schema["else"]["required"]].into_iter().flat_map(|it| it.as_array()).flatten().collect();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let below = match property["properties"]["type"]["const"].as_str() {
            Some(protocol) => format!("{path}.{protocol}"),
            None if property["items"].is_object() => format!("{path}[]"),
            None => path.clone(),
        };
        let item = if property["items"].is_object() { &property["items"] } else { property };
        let section = item["properties"].is_object() || item["allOf"].is_array();
        let need = match &property["default"] {
            _ if section => Need::Section,
            Json::Null if required.iter().any(|needed| *needed == key) => Need::Required,
            Json::Null => Need::Neither,
            // As YAML has it: neither words nor items of a list need quotes.
            default => Need::Default(default.to_string().replace('"', "").replace(',', ", ")),
        };
        into.insert(path, need);
        options(item, &below, into);
    }
}

/// Every option that docs/configuration.md has a row for, by the same paths.
fn described() -> BTreeMap<String, Need> {
    let mut rows = BTreeMap::new();
    let mut below = String::new();
    for line in include_str!("../../docs/configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("##") {
            let codes: Vec<_> = heading.split('`').skip(1).step_by(2).collect();
            below = match codes.as_slice() {
                ["source", protocol] => {
                    let below = format!("stations[].source.{}.", protocol.strip_prefix("type: ").expect("a type"));
                    rows.insert(format!("{below}type"), Need::Required);
                    below
                }
                [section @ ("tags[]" | "oee")] => format!("stations[].{section}."),
                [section] => format!("{section}."),
                _ => String::new(),
            };
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", keys, default, ..] = cells.as_slice() else { continue };
        let need = match *default {
            "required" => Need::Required,
            code if code.starts_with('`') && code.ends_with('`') => Need::Default(code.trim_matches('`').to_owned()),
            _ => Need::Neither,
        };
        for key in keys.split('`').skip(1).step_by(2) {
            assert_eq!(rows.insert(format!("{below}{key}"), need.clone()), None, "`{below}{key}` has two rows");
        }
    }
    rows
}

#[test]
fn the_reference_page_describes_every_option_and_no_other() {
    let mut known = BTreeMap::new();
    options(&gemba::config::schema(), "", &mut known);
    assert!(known.len() > 60, "{known:?}");
    known.remove("stations[].source.type"); // said again under each protocol
    let described = described();
    for (path, need) in &known {
        match (need, described.get(path)) {
            (Need::Section, _) | (Need::Neither, Some(Need::Neither)) => {}
            // A default that depends on other options cannot stand in the schema.
            (Need::Neither, Some(Need::Default(_))) if path.ends_with("client_id") || path.ends_with("metric") => {}
            (need, Some(said)) => assert_eq!(said, need, "docs/configuration.md on `{path}`"),
            (_, None) => panic!("docs/configuration.md lacks `{path}`"),
        }
    }
    let strangers: Vec<_> = described.keys().filter(|path| !known.contains_key(*path)).collect();
    assert!(strangers.is_empty(), "docs/configuration.md has what there is not: {strangers:?}");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,400}") {
        let _ = Config::from_str("any.yaml", &text);
    }

    #[test]
    fn no_bytes_put_into_the_reference_line_panic(at in 0_usize..2700, text in r#"[\[\]{}:,&*#!|>'"%@`$ \n\t\PCa-z0-9.-]{1,6}"#, cut in 0_usize..40) {
        let line = include_str!("../../config/line.yaml");
        let at = (0..=at.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        let end = (at..=(at + cut).min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(at);
        let text = format!("{}{text}{}", &line[..at], &line[end..]);
        if let Err(error) = Config::from_str("any.yaml", &text) {
            prop_assert!(!error.findings.is_empty());
            for finding in error.findings {
                prop_assert!(finding.line >= 1 && finding.column >= 1, "{finding}");
            }
        }
    }
}

#[test]
fn units_on_a_serial_line_share_it_and_each_interval_is_a_group() {
    let config = load(
        r#"
site: s
line: l
timezone: UTC
stations:
  - name: a
    source: { type: modbus, endpoint: "rtu:///dev/ttyS0", order: CDAB, pause: 5ms, max_gap: 0, max_registers: 20 }
    tags:
      - { name: bit, address: "holding:5.14", count: 3, metric: press.bit }
      - { name: total, address: "holding:10", as: u32, poll: 100ms }
      - { name: lot, address: "input:0", as: string, length: 9, byte_order: little, poll: 10s }
      - { name: temp, address: "input:20", as: f32, count: 2, word_order: big, poll: 100ms }
  - name: b
    source: { type: modbus, endpoint: "rtu:///dev/ttyS0?baud=9600&parity=none", unit: 2, timeout: 300ms }
    tags: [{ name: t, address: "holding:0", as: bcd16 }]
"#,
    );
    assert_eq!((config.links.len(), config.links[0].endpoint.as_str()), (1, "rtu:///dev/ttyS0"));
    let names: Vec<_> = config.tags.iter().map(|tag| tag.name.as_ref()).collect();
    assert_eq!(names, ["bit.0", "bit.1", "bit.2", "total", "lot", "temp.0", "temp.1", "t"]);
    assert_eq!(config.tags[1].metric.as_deref(), Some("press.bit.1"));
    let link = modbus(&config.links[0]);
    let modbus::Endpoint::Rtu { line, .. } = &link.endpoint else { panic!("{link:?}") };
    assert_eq!((line.to_string().as_str(), link.pause), ("9600 8N2", Duration::from_millis(5)));
    let ms = Duration::from_millis;
    let groups: Vec<_> =
        link.groups.iter().map(|group| (group.unit, group.poll, group.timeout, group.tags.len())).collect();
    // Station `a` says no timeout: it takes what the other one says.
    let expected =
        [(1, ms(1000), ms(300), 3), (1, ms(100), ms(300), 3), (1, ms(10_000), ms(300), 1), (2, ms(1000), ms(300), 1)];
    assert_eq!(groups, expected);
    assert_eq!(link.groups[0].limits, modbus::Limits { max_gap: 0, max_registers: 20 });
    let shown = |group: usize| {
        let tag = |tag: &modbus::Tag| (tag.id.0, tag.address.to_string(), tag.order.letters(), tag.width());
        link.groups[group].tags.iter().map(tag).collect::<Vec<_>>()
    };
    let tag = |id, address: &str, order, width| (id, address.to_owned(), order, width);
    assert_eq!(
        shown(0),
        [tag(0, "holding:5.14", "CDAB", 1), tag(1, "holding:5.15", "CDAB", 1), tag(2, "holding:6.0", "CDAB", 1)]
    );
    let (total, first, second) =
        (tag(3, "holding:10", "CDAB", 2), tag(5, "input:20", "ABCD", 2), tag(6, "input:22", "ABCD", 2));
    assert_eq!(shown(1), [total, first, second]);
    assert_eq!(shown(2), [tag(4, "input:0", "DCBA", 5)]);
}
