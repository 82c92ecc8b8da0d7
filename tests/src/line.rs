//! The reference line of config/line.yaml: its three stations, simulated, each over its own protocol.

use std::path::Path;

use gemba_drivers::Time;
use gemba_drivers::mqtt::Version;
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::sim::mqtt::{Broker, Publisher};
use gemba_drivers::sim::opcua::{OpcuaServer, Variant};

use crate::receiver::Receiver;

/// The reference configuration, as it is shipped.
pub const REFERENCE: &str = include_str!("../../config/line.yaml");

/// The stations' peers and upstream.
pub struct Line {
    /// Serves `printer-1`.
    pub printer: ModbusServer,
    /// Serves `aoi-1`.
    pub aoi: OpcuaServer,
    /// Stands between `oven-1` and gemba.
    pub broker: Broker,
    /// Upstream.
    pub receiver: Receiver,
}

impl Line {
    /// Starts all of them, with everything at zero and nothing running.
    ///
    /// # Panics
    /// When a server does not start.
    pub async fn start() -> Self {
        let printer = ModbusServer::start().await.expect("a Modbus server");
        printer.set_holding(1, 0, &[1, 0, 0, 0, 0, 0]);
        printer.set_input(1, 10, &[0, 0]);
        let nodes: [(&str, Variant); 4] =
            [("State", "Idle".into()), ("Good", 0u32.into()), ("Reject", 0u32.into()), ("Score", 0.5f64.into())];
        let aoi = OpcuaServer::start("urn:fab-2:aoi", nodes).await.expect("an OPC UA server");
        let broker = Broker::start().await.expect("a broker");
        Self { printer, aoi, broker, receiver: Receiver::start() }
    }

    /// The reference configuration with these servers' addresses, a free port for the page, and the spool in `folder`.
    #[must_use]
    pub fn config(&self, folder: &Path) -> String {
        let pairs = [
            ("tcp://127.0.0.1:5020", self.printer.endpoint().to_string()),
            ("opc.tcp://127.0.0.1:4840", self.aoi.endpoint()),
            ("mqtt://127.0.0.1:1883", self.broker.endpoint().to_string()),
            ("http://127.0.0.1:4318", self.receiver.endpoint()),
            ("listen: 127.0.0.1:8080", "listen: 127.0.0.1:0".to_owned()),
            ("./data/spool", folder.join("spool").display().to_string()),
        ];
        pairs.iter().fold(REFERENCE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "the reference configuration names {from}");
            text.replace(from, to)
        })
    }

    /// What the printer's registers say.
    pub fn print(&self, state: u16, total: u32, reject: u32, pressure: f32) {
        let [total, reject, pressure] = [total, reject, pressure.to_bits()].map(words);
        self.printer.set_holding(1, 0, &[state, 0, total[0], total[1], reject[0], reject[1]]);
        self.printer.set_input(1, 10, &pressure);
    }

    /// What the inspection says, at `at`.
    pub fn inspect(&self, state: &str, good: u32, reject: u32, score: f64, at: Time) {
        self.aoi.set("State", state, at);
        self.aoi.set("Good", good, at);
        self.aoi.set("Reject", reject, at);
        self.aoi.set("Score", score, at);
    }

    /// Somebody who publishes for the oven.
    #[must_use]
    pub fn oven(&self) -> Publisher {
        Publisher::new(self.broker.addr(), Version::V311, "oven-1")
    }
}

/// The oven's topic.
pub const OVEN: &str = "fab-2/oven-1/telemetry";

/// High word first.
fn words(value: u32) -> [u16; 2] {
    let [a, b, c, d] = value.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}
