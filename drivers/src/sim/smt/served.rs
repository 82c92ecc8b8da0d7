//! The line on its wires.

use std::io;

use tokio_util::sync::CancellationToken;

use super::{Options, Station, Truth};
use crate::Time;

/// The namespace of the AOI's nodes.
pub const NAMESPACE: &str = "urn:demo:aoi-1";
/// Where the oven publishes.
pub const TOPIC: &str = "demo/oven-1/telemetry";

/// The line, served over Modbus, OPC UA and MQTT on free ports of 127.0.0.1. Dropping it stops the servers.
///
/// - `printer-1`, Modbus unit 1, high word first: `holding:0` state (u16: 1 producing, 2 starved, 3 blocked, 4 setup,
///   5 down), `holding:2` total (u32), `holding:4` reject (u32), `holding:6` product (u16), `holding:7` last defect
///   (u16, 0 none), `input:10` squeegee pressure (f32, N), `input:12` paste temperature (f32, °C). Polled, so that a change is
///   seen up to a poll late.
/// - `aoi-1`, OPC UA, nodes `State` (text: Execute, Suspended, Blocked, Setup, Held), `Good` and `Reject` (u32),
///   `Score` (f64, 0 to 1), `DefectCode`, `Product` and `Serial` (text; `DefectCode` is empty before the first reject), with the
///   model's own times as source times.
/// - `oven-1`, MQTT 3.1.1, topic [`TOPIC`], quality of service 1: `{"t":unix_ms,"state":"running|waiting|blocked|setup|stopped",
///   "count":n,"reject":n,"product":"…","serial":"…","zones":[{"temp":…},{"temp":…},{"temp":…}]}` at each change and at
///   least each 500 ms. Each change of state or product is a message of its own with its own time; other changes go together when
///   the broker is slower than the line. Nothing is dropped: the line waits for the broker.
///
/// Before [`Plant::run`] the line stands in setup, with its first values there (the oven publishes them each 500 ms); after
/// it the last values stay and nothing is published any more.
pub struct Plant {
    options: Options,
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
        todo!("{options:?}")
    }

    /// The printer's endpoint: `tcp://127.0.0.1:PORT`.
    #[must_use]
    pub fn modbus(&self) -> String {
        todo!()
    }

    /// The AOI's endpoint: `opc.tcp://127.0.0.1:PORT/`.
    #[must_use]
    pub fn opcua(&self) -> String {
        todo!()
    }

    /// One of the AOI's nodes as a client names it: `nsu=urn:demo:aoi-1;s=State`.
    #[must_use]
    pub fn opcua_node(&self, name: &str) -> String {
        todo!("{name}")
    }

    /// The oven's broker: `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn mqtt(&self) -> String {
        todo!()
    }

    /// What the line was started with.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// Lets the line move from now on until `stop`, and serves each change as it happens. At `stop` the line halts: states stay
    /// and counters stand still. Returns the instant at which it did, which is past: everything before it was served (the broker
    /// has acknowledged it), and nothing happens from it on.
    ///
    /// # Panics
    /// When called a second time: a line starts once.
    pub async fn run(&self, stop: CancellationToken) -> Time {
        todo!("{stop:?}")
    }

    /// When the line began to move; `None` before.
    #[must_use]
    pub fn started(&self) -> Option<Time> {
        todo!()
    }

    /// What the machine `station` really did from `from` up to and without `to`; setup before the line started, and its last
    /// state since it halted.
    ///
    /// # Panics
    /// When there is no such station.
    #[must_use]
    pub fn truth(&self, station: &str, from: Time, to: Time) -> Truth {
        todo!("{} {from} {to}", Station::named(station).expect("a station of the line"))
    }

    /// What has been served.
    #[must_use]
    pub fn served(&self) -> Served {
        todo!()
    }
}
