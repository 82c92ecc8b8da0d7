//! The configuration, resolved: past this module nobody sees a raw value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{TagId, modbus, mqtt, opcua};

use crate::model::{OeeSpec, ShiftSpec};

/// Everything gemba is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The plant (`factory.site`).
    pub site: Arc<str>,
    /// The line (`factory.line`).
    pub line: Arc<str>,
    /// Where shifts are told by the clock on the wall.
    pub timezone: jiff::tz::TimeZone,
    /// The local page.
    pub http: Http,
    /// Where telemetry goes; `None` keeps everything in the spool until its bound.
    pub upstream: Option<Upstream>,
    /// The buffer.
    pub spool: Spool,
    /// The shift plan; empty means each local day is one period named `day`.
    pub shifts: Vec<ShiftSpec>,
    /// In the order written.
    pub stations: Vec<Station>,
    /// Every tag of every station, by [`TagId`].
    pub tags: Vec<Tag>,
    /// The links that carry them: stations that name the same endpoint share one.
    pub links: Vec<Link>,
}

/// The local page.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
}

/// An OTLP receiver.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Base URL; `/v1/metrics` and `/v1/logs` are appended.
    pub endpoint: String,
    /// gzip or none.
    pub gzip: bool,
    /// Extra headers; values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// For one request, from connect to the last byte of the answer.
    pub timeout: Duration,
    /// PEM file with the authorities an `https` endpoint is checked against, instead of the built-in ones.
    pub ca_file: Option<PathBuf>,
}

/// The buffer.
#[derive(Clone, Debug)]
pub struct Spool {
    /// Its folder.
    pub path: PathBuf,
    /// Of disk, as du counts it, in bytes.
    pub max_size: u64,
    /// Of the disk that stays free, in bytes.
    pub keep_free: u64,
    /// What a kill or a power cut may cost at most.
    pub sync: Duration,
    /// How long what upstream already has is kept for replay.
    pub keep: Duration,
}

/// A station.
#[derive(Clone, Debug)]
pub struct Station {
    /// Its name (`factory.station`).
    pub name: Arc<str>,
    /// Its tags: a run of [`Config::tags`].
    pub tags: std::ops::Range<u32>,
    /// Index into [`Config::links`].
    pub link: usize,
    /// What is computed, if anything.
    pub oee: Option<OeeSpec>,
}

/// A tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// Its place.
    pub id: TagId,
    /// Index into [`Config::stations`].
    pub station: usize,
    /// Its name within the station.
    pub name: Arc<str>,
    /// UCUM; `None` when not said.
    pub unit: Option<Arc<str>>,
    /// The metric's name, where it is not `factory.tag.<name>`.
    pub metric: Option<Arc<str>>,
    /// Its state map has keys that are no numbers, so its values are text.
    pub text: bool,
}

/// A link, with what its driver is told.
#[derive(Clone, Debug)]
pub struct Link {
    /// The endpoint, for people. Never holds a secret.
    pub endpoint: String,
    /// Indices into [`Config::stations`].
    pub stations: Vec<usize>,
    /// For the driver.
    pub source: Source,
}

/// What a driver is told. The closed list of protocols.
#[derive(Clone, Debug)]
pub enum Source {
    /// OPC UA.
    Opcua(opcua::Config),
    /// Modbus.
    Modbus(modbus::Config),
    /// MQTT.
    Mqtt(mqtt::Config),
}

/// Text that is never shown: not in logs, not in errors, not on a page.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that must send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
