//! The line on its wires.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::oven::{Counts, Message, Oven};
use super::{Defect, Event, Model, Options, Panel, Station, Truth};
use crate::Time;
use crate::sim::modbus::ModbusServer;
use crate::sim::mqtt::{self, Broker};
use crate::sim::opcua::{OpcuaServer, Variant};

/// The namespace of the AOI's nodes.
pub const NAMESPACE: &str = "urn:demo:aoi-1";
/// Where the oven publishes.
pub const TOPIC: &str = "demo/oven-1/telemetry";
/// The printer's Modbus unit.
const UNIT: u8 = 1;
/// The AOI's nodes, as [`nodes`] lists their values.
const NODES: [&str; 7] = ["State", "Good", "Reject", "Score", "DefectCode", "Product", "Serial"];
/// Messages that may wait for the broker; when there are so many, changes are served when it has taken some.
const QUEUE: usize = 256;
/// Bytes that the broker keeps for a reader that is behind or away: hours at speed 1, minutes at full speed.
const BACKLOG: usize = 12 << 20;

/// The line, served over Modbus, OPC UA and MQTT on free ports of 127.0.0.1. Dropping it stops the servers.
///
/// - `printer-1`, Modbus unit 1, high word first: `holding:0` state (u16: 1 producing, 2 starved, 3 blocked, 4 setup,
///   5 down), `holding:2` total (u32), `holding:4` reject (u32), `holding:6` product (u16, [`Product::number`]),
///   `holding:7` last defect (u16, [`Defect::number`], 0 none), `input:10` squeegee pressure (f32, N), `input:12`
///   paste temperature (f32, °C). It is polled, so a change is seen up to a poll late.
/// - `aoi-1`, OPC UA, nodes `State` (text: Execute, Suspended, Blocked, Setup, Held), `Good` and `Reject` (u32),
///   `Score` (f64, 0 to 1), `DefectCode`, `Product` and `Serial` (text; `DefectCode` is empty before the first
///   reject), with the model's own times as source times.
/// - `oven-1`, MQTT 3.1.1, topic [`TOPIC`], quality of service 1: `{"t":unix_ms,"state":"running|waiting|blocked|
///   setup|stopped","count":n,"reject":n,"product":"…","serial":"…","zones":[{"temp":…},{"temp":…},{"temp":…}]}` at
///   each change and each 250 ms. Each change of state or product is a message of its own with its own time; other
///   changes go together when the broker is slower than the line. Nothing is dropped: the line waits for the broker.
///
/// [`Product::number`]: super::Product::number
///
/// Before [`Plant::run`] the line stands in setup, with its first values there (the oven publishes them each 500 ms);
/// after it the last values stay and nothing is published any more.
pub struct Plant {
    modbus: ModbusServer,
    opcua: OpcuaServer,
    broker: Broker,
    model: Mutex<Model>,
    standing: Mutex<Option<Standing>>,
    started: OnceLock<Time>,
    opcua_changes: AtomicU64,
    mqtt: Arc<Counts>,
}

/// The oven, which publishes what stands still until told to stop.
struct Standing {
    oven: JoinHandle<Oven>,
    stop: DropGuard,
}

/// What a reader was told last.
struct Told {
    aoi: [Variant; NODES.len()],
    oven: Panel,
}

/// What the servers have served since the plant's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Modbus requests answered; one poll of all the printer's registers is two.
    pub modbus_reads: u64,
    /// Values given to OPC UA nodes. Each reaches each subscriber that listens by then.
    pub opcua_changes: u64,
    /// MQTT messages that the broker has acknowledged.
    pub mqtt_messages: u64,
    /// MQTT messages that no broker took; 0 as long as the broker lives.
    pub mqtt_unsent: u64,
}

impl Plant {
    /// Starts the servers, with the first values in place.
    ///
    /// # Errors
    /// When the speed is beyond [`Options::SPEEDS`], or a server does not start.
    pub async fn start(options: Options) -> io::Result<Self> {
        if !Options::SPEEDS.contains(&options.speed) {
            let (slowest, fastest) = Options::SPEEDS.into_inner();
            let why = format!("a speed of {} is not within {slowest} to {fastest}", options.speed);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let now = Time::now();
        let model = Model::new(options, now);
        let modbus = ModbusServer::start().await?;
        let first = nodes(&model.panel(Station::Aoi));
        let opcua = OpcuaServer::start_at(NAMESPACE, NODES.into_iter().zip(first), now).await?;
        let broker = Broker::with(mqtt::Options { backlog: BACKLOG, ..mqtt::Options::default() }).await?;
        show(&modbus, &model.panel(Station::Printer));

        let mqtt = Arc::<Counts>::default();
        let stop = CancellationToken::new();
        let oven = Oven::new(broker.addr(), Arc::clone(&mqtt)).stand(model.panel(Station::Oven), stop.clone());
        let standing = Mutex::new(Some(Standing { oven: tokio::spawn(oven), stop: stop.drop_guard() }));
        let (model, started, opcua_changes) = (Mutex::new(model), OnceLock::new(), AtomicU64::new(0));
        Ok(Self { modbus, opcua, broker, model, standing, started, opcua_changes, mqtt })
    }

    /// The printer's endpoint: `tcp://127.0.0.1:PORT`.
    #[must_use]
    pub fn modbus(&self) -> String {
        format!("tcp://{}", self.modbus.addr())
    }

    /// The AOI's endpoint: `opc.tcp://127.0.0.1:PORT/`.
    #[must_use]
    pub fn opcua(&self) -> String {
        self.opcua.endpoint()
    }

    /// One of the AOI's nodes as a client names it: `nsu=urn:demo:aoi-1;s=State`.
    #[must_use]
    pub fn opcua_node(&self, name: &str) -> String {
        self.opcua.node(name)
    }

    /// The oven's broker: `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn mqtt(&self) -> String {
        self.broker.endpoint().to_string()
    }

    /// What the line was started with.
    #[must_use]
    pub fn options(&self) -> Options {
        lock(&self.model).options()
    }

    /// Lets the line move from now on until `stop`, and serves each change as it happens. At `stop` the line halts:
    /// states stay and counters stand still. Returns the instant at which it did, which is past: everything before
    /// it was served (the broker has acknowledged it), and nothing happens from it on.
    ///
    /// # Panics
    /// When called a second time: a line starts once.
    pub async fn run(&self, stop: CancellationToken) -> Time {
        let oven = self.set_out().await;
        let (messages, queue) = mpsc::channel(QUEUE);
        let (halted, ()) = tokio::join!(self.drive(&stop, messages), oven.follow(queue, stop.clone()));
        halted
    }

    /// When the line began to move; `None` before.
    #[must_use]
    pub fn started(&self) -> Option<Time> {
        self.started.get().copied()
    }

    /// What the machine `station` really did from `from` up to and without `to`; setup before the line started, and
    /// its last state since it halted.
    ///
    /// # Panics
    /// When there is no such station.
    #[must_use]
    pub fn truth(&self, station: &str, from: Time, to: Time) -> Truth {
        let station = Station::named(station).unwrap_or_else(|| panic!("the line has no station `{station}`"));
        lock(&self.model).truth(station, from, to)
    }

    /// What a machine shows now.
    #[must_use]
    pub fn panel(&self, station: Station) -> Panel {
        lock(&self.model).panel(station)
    }

    /// What has been served.
    #[must_use]
    pub fn served(&self) -> Served {
        Served {
            modbus_reads: self.modbus.reads(),
            opcua_changes: self.opcua_changes.load(Ordering::Relaxed),
            mqtt_messages: self.mqtt.acknowledged.load(Ordering::Relaxed),
            mqtt_unsent: self.mqtt.unsent.load(Ordering::Relaxed),
        }
    }

    /// Ends the standing still: the line begins to move now.
    async fn set_out(&self) -> Oven {
        let standing = lock(&self.standing).take();
        let Standing { oven, stop } = standing.expect("a line starts once");
        drop(stop);
        let oven = oven.await.expect("the oven stands until it is told to stop");
        let mut model = lock(&self.model);
        *model = Model::new(model.options(), whole_after(Time::now()));
        self.started.set(model.start()).expect("a line starts once");
        oven
    }

    /// Lets the model follow the clock until `stop`; the instant up to which it then has.
    async fn drive(&self, stop: &CancellationToken, messages: mpsc::Sender<Message>) -> Time {
        let mut told = Told { aoi: nodes(&self.panel(Station::Aoi)), oven: self.panel(Station::Oven) };
        let mut halted = Time(0);
        loop {
            let next = lock(&self.model).next_at();
            let stopped = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                () = sleep(next.since(Time::now())) => false,
            };
            // Should the clock be set back, the line stands until it has caught up.
            halted = halted.max(whole_after(Time::now()));
            if stopped {
                sleep(halted.since(Time::now())).await;
            }
            let events = lock(&self.model).advance(halted);
            self.serve(&events, &mut told, &messages).await;
            if stopped {
                return halted;
            }
        }
    }

    /// Serves what happened, in order; what happened to a machine at one instant goes out as one.
    async fn serve(&self, events: &[Event], told: &mut Told, messages: &mpsc::Sender<Message>) {
        for (index, &Event { at, station, panel, .. }) in events.iter().enumerate() {
            let mut at_once = events[index + 1..].iter().take_while(|later| later.at == at);
            if at_once.any(|later| later.station == station) {
                continue;
            }
            match station {
                Station::Printer => show(&self.modbus, &panel),
                Station::Aoi => self.report(at, &panel, &mut told.aoi),
                Station::Oven => {
                    let shown = |panel: &Panel| (panel.state, panel.board.product);
                    let marks = shown(&panel) != shown(&told.oven);
                    told.oven = panel;
                    let sent = messages.send(Message { at, panel, marks }).await;
                    sent.expect("the oven follows as long as the line is driven");
                }
            }
        }
    }

    /// Gives the nodes that changed their values.
    fn report(&self, at: Time, panel: &Panel, told: &mut [Variant; NODES.len()]) {
        let values = nodes(panel);
        let changed: Vec<_> = values
            .iter()
            .zip(&*told)
            .enumerate()
            .filter(|(_, (new, old))| new != old)
            .map(|(index, _)| index)
            .collect();
        self.opcua_changes.fetch_add(changed.len() as u64, Ordering::Relaxed);
        self.opcua.set_variants(changed.into_iter().map(|index| (index, values[index].clone())), at);
        *told = values;
    }
}

/// The printer's registers. Those of the state and the counters change at once: no read sees one without the other.
fn show(modbus: &ModbusServer, panel: &Panel) {
    let [total, reject] = [panel.total, panel.reject].map(words_of);
    let defect = panel.defect.map_or(0, Defect::number);
    let product = panel.board.product.number();
    let block = [panel.state.number(), 0, total[0], total[1], reject[0], reject[1], product, defect];
    modbus.set_holding(UNIT, 0, &block);
    let [pressure, temperature, _] = panel.values.map(|value| {
        #[expect(clippy::cast_possible_truncation, reason = "it is told as f32")]
        let told = value as f32;
        words_of(told.to_bits())
    });
    modbus.set_input(UNIT, 10, &[pressure, temperature].concat());
}

/// High word first.
fn words_of(number: u32) -> [u16; 2] {
    [number >> 16, number & 0xFFFF].map(|word| u16::try_from(word).expect("half of 32 bits"))
}

/// The AOI's values, in the order of [`NODES`].
fn nodes(panel: &Panel) -> [Variant; NODES.len()] {
    [
        panel.state.aoi_word().into(),
        (panel.total - panel.reject).into(),
        panel.reject.into(),
        panel.values[0].into(),
        panel.defect.map_or("", Defect::name).into(),
        panel.board.product.name().into(),
        panel.board.to_string().into(),
    ]
}

/// The first whole millisecond after `now`: what happened up to `now` is before it.
fn whole_after(now: Time) -> Time {
    Time((now.0.div_euclid(1_000_000) + 1) * 1_000_000)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
