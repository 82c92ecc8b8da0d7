//! The simulated SMT line as its servers tell it, read with the ordinary drivers, beside what the model knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::sim::smt::{Defect, MachineState, Options, Plant, Station, TOPIC, Truth};
use gemba_drivers::supervisor::supervise;
use gemba_drivers::{
    Batch, Driver, LinkState, Outlet, Reading, Receipt, TagId, Time, Validity, Value, modbus, mqtt, opcua,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(60);

/// A supervised link and all that it has said.
struct Reader {
    batches: mpsc::Receiver<Batch>,
    heard: Vec<Reading>,
    _stop: DropGuard,
}

impl Reader {
    /// Reads until every tag has a value.
    async fn start(driver: impl Driver + 'static) -> Self {
        let tags = driver.tags().len();
        let (sender, batches) = mpsc::channel(64);
        let outlet = Outlet::new(sender, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
        let stop = CancellationToken::new();
        tokio::spawn(supervise(driver, "test".to_owned(), outlet, stop.clone()));
        let mut reader = Self { batches, heard: Vec::new(), _stop: stop.drop_guard() };
        reader.until(|reader| (0..tags).all(|tag| reader.last(tag).is_some())).await;
        reader
    }

    /// Listens until `wanted`.
    async fn until(&mut self, mut wanted: impl FnMut(&Self) -> bool) {
        let listening = async {
            while !wanted(self) {
                let batch = self.batches.recv().await.expect("the link runs");
                self.take(batch);
            }
        };
        timeout(DEADLINE, listening).await.expect("it is told in time");
    }

    fn take(&mut self, batch: Batch) {
        assert!(batch.losses.is_empty(), "{:?}", batch.losses);
        batch.receipt.into_iter().for_each(Receipt::sign);
        self.heard.extend(batch.readings);
    }

    fn of(&self, tag: usize) -> impl DoubleEndedIterator<Item = &Reading> {
        self.heard.iter().filter(move |reading| reading.tag.index() == tag)
    }

    fn last(&self, tag: usize) -> Option<&Value> {
        self.of(tag).next_back().map(|reading| &reading.value)
    }

    fn first_count(&self, tag: usize) -> u64 {
        count(&self.of(tag).next().expect("a first value").value)
    }

    fn last_count(&self, tag: usize) -> u64 {
        self.last(tag).map_or(0, count)
    }

    /// Each change of the state since `from`, as its words say it, with the source's time.
    fn changes(&self, tag: usize, from: Time, word: impl Fn(MachineState) -> Value) -> Vec<(Time, MachineState)> {
        let named = |value: &Value| MachineState::ALL.into_iter().find(|state| word(*state) == *value);
        let states = self.of(tag).map(|reading| (reading.source_time, named(&reading.value).expect("a state's word")));
        let mut changes: Vec<_> = states.filter(|(at, _)| *at >= from).collect();
        changes.dedup_by_key(|(_, state)| *state);
        changes
    }
}

fn count(value: &Value) -> u64 {
    let Value::Int(whole) = *value else { panic!("{value:?} is no count") };
    u64::try_from(whole).expect("counters are never negative")
}

fn text(word: &str) -> Value {
    Value::Text(word.into())
}

/// State, total, reject, product, defect, pressure, temperature.
async fn printer(plant: &Plant) -> Reader {
    let tags = [
        ("holding:0", "u16"),
        ("holding:2", "u32"),
        ("holding:4", "u32"),
        ("holding:6", "u16"),
        ("holding:7", "u16"),
        ("input:10", "f32"),
        ("input:12", "f32"),
    ];
    let tags: Vec<_> = (0..)
        .zip(tags)
        .map(|(id, (address, data_type))| {
            let data_type = data_type.parse().expect("a data type");
            modbus::Tag::new(TagId(id), address.parse().expect("an address"), data_type)
        })
        .collect();
    let (poll, timeout) = (Duration::from_millis(20), Duration::from_secs(10));
    let limits = modbus::Limits::default();
    let group = modbus::Group { station: "printer-1".into(), unit: 1, poll, timeout, limits, tags };
    let endpoint = plant.modbus().parse().expect("an endpoint");
    let config = modbus::Config { endpoint, timeout, pause: Duration::ZERO, groups: vec![group] };
    Reader::start(modbus::Client::new(config)).await
}

/// State, good, reject, score, defect, product, serial.
async fn aoi(plant: &Plant) -> Reader {
    let names = ["State", "Good", "Reject", "Score", "DefectCode", "Product", "Serial"];
    let tags = (0..)
        .zip(names)
        .map(|(id, name)| opcua::Tag {
            id: TagId(id),
            node: plant.opcua_node(name).parse().expect("a node"),
            pick: opcua::Pick::default(),
        })
        .collect();
    let station = opcua::Station { name: "aoi-1".into(), publish: Duration::from_millis(50), tags, events: Vec::new() };
    let config = opcua::Config {
        endpoint: plant.opcua(),
        spares: Vec::new(),
        security: opcua::Security::None,
        identity: opcua::Identity::Anonymous,
        timeout: Duration::from_secs(10),
        stations: vec![station],
    };
    Reader::start(opcua::Client::new(config)).await
}

/// State, count, reject, product, serial, three zones.
async fn oven(plant: &Plant) -> Reader {
    let paths = [
        ("$.state", false),
        ("$.count", true),
        ("$.reject", true),
        ("$.product", false),
        ("$.serial", false),
        ("$.zones[0].temp", false),
        ("$.zones[1].temp", false),
        ("$.zones[2].temp", false),
    ];
    let tags = (0..).zip(paths).map(|(id, (path, numeric))| mqtt::TopicTag {
        id: TagId(id),
        name: path.into(),
        place: path.parse().expect("a path"),
        required: true,
        numeric,
    });
    let time = mqtt::SourceTime { place: "$.t".parse().expect("a path"), format: mqtt::TimeFormat::UnixMs };
    let topic = mqtt::Topic {
        station: "oven-1".into(),
        filter: TOPIC.to_owned(),
        qos: 1,
        payload: mqtt::Payload::Json(mqtt::Fields { time: Some(time), tags: tags.collect() }),
    };
    let endpoint = plant.mqtt().parse().expect("an endpoint");
    let timeout = Duration::from_secs(10);
    let config = mqtt::Config { timeout, topics: vec![topic], ..mqtt::Config::new(endpoint, "test") };
    Reader::start(mqtt::Client::new(config)).await
}

/// The time in each state until `until`.
fn spent(changes: &[(Time, MachineState)], until: Time) -> BTreeMap<MachineState, Duration> {
    let mut spent = BTreeMap::new();
    let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([until]);
    for ((at, state), end) in changes.iter().zip(ends) {
        *spent.entry(*state).or_default() += end.since(*at);
    }
    spent
}

#[track_caller]
fn assert_told(changes: &[(Time, MachineState)], truth: &Truth, halted: Time) {
    assert_eq!(changes.len() as u64, truth.transitions, "{changes:?}");
    assert_eq!(spent(changes, halted), truth.states);
}

#[tokio::test]
async fn what_the_wires_tell_is_what_happened() {
    agrees(Options { seed: 5, speed: 40.0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_wires_tell_is_what_happened_at_full_speed() {
    agrees(Options { seed: 11, speed: *Options::SPEEDS.end() }).await;
}

async fn agrees(options: Options) {
    let plant = Arc::new(Plant::start(options).await.expect("ports"));
    let (mut printer, mut aoi, mut oven) = tokio::join!(printer(&plant), aoi(&plant), oven(&plant));
    assert_eq!(plant.started(), None);
    assert_eq!(printer.last(0), Some(&Value::Int(4)), "it stands in setup");
    assert_eq!(aoi.last(0), Some(&text("Setup")));
    assert_eq!(oven.last(0), Some(&text("setup")));

    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (plant, stop) = (Arc::clone(&plant), stop.clone());
        async move { plant.run(stop).await }
    });
    // Long enough for another product to have come to the oven, and for stops.
    let moved = |reader: &Reader| reader.last(0) != reader.of(0).next().map(|first| &first.value);
    tokio::join!(
        printer.until(|reader| moved(reader) && reader.last(3) == Some(&Value::Int(2))),
        aoi.until(|reader| moved(reader) && reader.last(5) == Some(&text("ECU-B2"))),
        oven.until(|reader| moved(reader) && reader.last(3) == Some(&text("ECU-B2"))),
    );
    stop.cancel();
    let halted = running.await.expect("no panic");
    let started = plant.started().expect("it moved");
    assert!(halted > started && halted <= Time::now());
    let truth = |station| plant.truth(station, started, halted);
    let (printed, inspected, soldered) = (truth("printer-1"), truth("aoi-1"), truth("oven-1"));
    assert!(printed.total > 50 && inspected.reject > 0, "{printed:?} {inspected:?}");

    let printer_first = [1, 2].map(|tag| printer.first_count(tag));
    printer.until(|reader| reader.last_count(1) == printer_first[0] + printed.total).await;
    assert_eq!(printer.last_count(2), printer_first[1] + printed.reject);
    let seen = printer.changes(0, started, |state| Value::Int(state.number().into()));
    assert!(seen.len() as u64 <= printed.transitions + 1, "polled: the standing still may be seen late, nothing twice");

    let aoi_first = [1, 2].map(|tag| aoi.first_count(tag));
    let (good, reject) = (aoi_first[0] + inspected.good, aoi_first[1] + inspected.reject);
    aoi.until(|reader| (reader.last_count(1), reader.last_count(2)) == (good, reject)).await;
    // What is published together may come in any order of nodes, and the last board came after the last part.
    let panel = plant.panel(Station::Aoi);
    aoi.until(|reader| reader.last(6) == Some(&text(&panel.board.to_string()))).await;
    aoi.until(|reader| reader.last(0) == Some(&text(panel.state.aoi_word()))).await;
    assert_told(&aoi.changes(0, started, |state| text(state.aoi_word())), &inspected, halted);
    assert_eq!(aoi.last(4), Some(&text(panel.defect.expect("there were rejects").name())));
    assert_eq!(aoi.last(3), Some(&Value::Float(panel.values[0])));

    let oven_first = [1, 2].map(|tag| oven.first_count(tag));
    let panel = plant.panel(Station::Oven);
    oven.until(|reader| {
        reader.last_count(1) == oven_first[0] + soldered.total
            && reader.last(0) == Some(&text(panel.state.oven_word()))
            && reader.last(4) == Some(&text(&panel.board.to_string()))
    })
    .await;
    assert_eq!(oven.last_count(2), oven_first[1] + soldered.reject);
    assert_told(&oven.changes(0, started, |state| text(state.oven_word())), &soldered, halted);

    for reader in [&printer, &aoi, &oven] {
        assert!(reader.heard.iter().all(|reading| reading.validity == Validity::Good));
        assert!(reader.heard.iter().all(|reading| reading.source_time <= reading.received_time), "nothing is foretold");
    }
    let served = plant.served();
    assert!(served.modbus_reads >= printer.of(0).count() as u64, "{served:?}");
    assert!(served.opcua_changes >= aoi.heard.iter().filter(|reading| reading.source_time >= started).count() as u64);
    assert!(served.mqtt_messages >= oven.of(0).count() as u64, "{served:?}");
    assert_eq!(served.mqtt_unsent, 0);
}

#[tokio::test]
async fn first_values_are_there_before_the_line_moves() {
    let plant = Plant::start(Options::default()).await.expect("ports");
    let (printer, aoi, oven) = tokio::join!(printer(&plant), aoi(&plant), oven(&plant));
    for station in Station::ALL {
        let panel = plant.panel(station);
        let (total, reject) = (u64::from(panel.total), u64::from(panel.reject));
        assert!(total > 1_000 && reject > 0 && reject < total / 20, "plausible: {panel:?}");
        match station {
            Station::Printer => {
                assert_eq!((printer.last_count(1), printer.last_count(2)), (total, reject));
                assert_eq!(printer.last(4), Some(&Value::Int(0)), "no defect yet");
                #[expect(clippy::cast_possible_truncation, reason = "as it is told")]
                let told = [5, 6].map(|tag| printer.last(tag).and_then(Value::as_f64).map(|value| value as f32));
                #[expect(clippy::cast_possible_truncation, reason = "as it is told")]
                let shown = [panel.values[0] as f32, panel.values[1] as f32].map(Some);
                assert_eq!(told, shown);
            }
            Station::Aoi => {
                assert_eq!((aoi.last_count(1), aoi.last_count(2)), (total - reject, reject));
                assert_eq!(aoi.last(4), Some(&text("")));
            }
            Station::Oven => {
                assert_eq!((oven.last_count(1), oven.last_count(2)), (total, reject));
                let zones = [5, 6, 7].map(|tag| oven.last(tag).and_then(Value::as_f64));
                assert_eq!(zones, panel.values.map(Some));
            }
        }
        let (from, to) = (Time::now() - Duration::from_secs(10), Time::now());
        let before = plant.truth(station.name(), from, to);
        assert_eq!(before.states, BTreeMap::from([(MachineState::Setup, to.since(from))]), "it stands in setup");
        assert_eq!((before.total, before.transitions, before.quality()), (0, 0, None));
        assert_eq!((before.availability(), before.oee(Duration::from_secs(1))), (Some(0.0), Some(0.0)));
    }
}

#[tokio::test]
async fn a_speed_that_cannot_be_served_is_refused() {
    for speed in [0.0, -1.0, 0.01, 1000.0, f64::NAN, f64::INFINITY] {
        let refused = Plant::start(Options { seed: 1, speed }).await.err().expect("refused");
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
        assert!(refused.to_string().contains("is not within 0.1 to 100"), "{refused}");
    }
}

#[test]
fn names_are_their_own() {
    let mut names: Vec<_> = Defect::ALL.map(Defect::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Defect::ALL.len());
    assert!(Station::ALL.iter().all(|station| Station::named(station.name()) == Some(*station)));
    assert_eq!(Station::named("printer-2"), None);
}
