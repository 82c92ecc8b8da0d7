//! The configuration, resolved: past this module nobody sees a raw value.
//!
//! Text becomes a tree whose nodes know their places (`tree`), substitutions are filled in
//! (`substitute`), options are read from it as they are declared (`raw`, `section`), and their meaning
//! is worked out (`resolve`). Each step reports everything that is wrong and goes on.

mod amounts;
mod anomalies;
mod calendar;
mod error;
mod inspection;
mod otlp;
mod protocols;
mod raw;
mod resolve;
mod section;
mod substitute;
mod suggest;
mod tree;
mod units;
mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{AnyDriver, TagId, gpio, modbus, mqtt, opcua, treat};

use self::error::Report;
pub use self::error::{ConfigError, Finding};
use self::section::Shape;
use crate::model::anomaly::DetectorSpec;
use crate::model::inspection::InspectionSpec;
use crate::model::spc::ChartSpec;
use crate::model::{ContextSpec, CostSpec, ExceptionalDay, FlowSpec, Knowledge, OeeSpec, ShiftSpec};
use crate::spool::Signal;

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
    /// Share of the spans of the agent's own work that goes upstream, 0 to 1, beside those that failed or were slow.
    pub trace_sample: f64,
    /// The shift plan; empty means each local day is one period named `day`.
    pub shifts: Vec<ShiftSpec>,
    /// Holidays and days with shifts of their own, in order of date.
    pub exceptions: Vec<ExceptionalDay>,
    /// Reasons and products.
    pub knowledge: Knowledge,
    /// What time and energy cost, if that is known.
    pub costs: Option<CostSpec>,
    /// How parts flow through the line; without it there are no figures of the line as a whole.
    pub flow: Option<FlowSpec>,
    /// In the order written.
    pub stations: Vec<Station>,
    /// Every tag of every station, by [`TagId`].
    pub tags: Vec<Tag>,
    /// The links that carry them: stations that name the same endpoint share one.
    pub links: Vec<Link>,
    /// The folder of OPC UA's certificates.
    pub pki: PathBuf,
}

impl Config {
    /// What happens to the readings of a link's tags before they count.
    #[must_use]
    pub fn plan(&self, link: &Link) -> treat::Plan {
        let station = |at: &usize| {
            let station = &self.stations[*at];
            let tags = &self.tags[station.tags.start as usize..station.tags.end as usize];
            treat::Station {
                name: Arc::clone(&station.name),
                tags: station.tags.clone(),
                treated: tags.iter().filter_map(|tag| Some((tag.id, tag.treat.as_deref()?.clone()))).collect(),
                max_clock_skew: station.max_clock_skew,
            }
        };
        treat::Plan { stations: link.stations.iter().map(station).collect() }
    }

    /// The configuration in `path`: a file, or a folder of which every `*.yaml` is read, in order of
    /// name. What several files say is put together: lists follow each other, anything said twice is refused.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_at(Stage::Whole, path)
    }

    /// As [`Config::load`], for a line in the making: its stations may have no tags yet.
    ///
    /// # Errors
    /// Everything else that is wrong with it, each with its place.
    pub fn draft(path: &Path) -> Result<Self, ConfigError> {
        Self::load_at(Stage::Draft, path)
    }

    fn load_at(stage: Stage, path: &Path) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let mut texts = Vec::new();
        for file in files(path, &mut report) {
            let name = file.display().to_string();
            match std::fs::read(&file) {
                Ok(bytes) => texts.push((name, bytes)),
                Err(error) => report.about(&name, format!("cannot be read: {error}")),
            }
        }
        Self::read(stage, texts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), report)
    }

    /// The configuration in `text`, which errors call `name`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn from_str(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::read(Stage::Whole, std::iter::once((name, text.as_bytes())), Report::default())
    }

    fn read<'a>(
        stage: Stage,
        files: impl Iterator<Item = (&'a str, &'a [u8])>,
        mut report: Report,
    ) -> Result<Self, ConfigError> {
        let mut document: Option<tree::Node> = None;
        let mut whole = true;
        for (name, bytes) in files {
            let node = utf8(name, bytes, &mut report)
                .and_then(|text| tree::parse(name, text, &substitute::Process, &mut report));
            match (&mut document, node) {
                (_, None) => whole = false,
                (Some(document), Some(node)) => tree::merge(document, node, &mut report),
                (None, node) => document = node,
            }
        }
        // With a file missing, nobody can tell what is missing from the rest.
        let config = document.filter(|_| whole).and_then(|document| resolve::resolve(document, stage, &mut report));
        report.close(config)
    }
}

/// How far a configuration must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be run.
    Whole,
    /// Its stations may have no tags yet.
    Draft,
}

/// The file, or every `*.yaml` in the folder, in order of name.
fn files(path: &Path, report: &mut Report) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let listed = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>());
    let mut files = listed.unwrap_or_else(|error| {
        report.about(&path.display().to_string(), format!("cannot be read: {error}"));
        Vec::new()
    });
    // A link to nowhere stays, to be missed aloud: it may be the half of a line.
    let counts = |file: &PathBuf| file.is_file() || !file.exists();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml") && counts(file));
    files.sort();
    if files.is_empty() {
        report.about(&path.display().to_string(), "holds no file named `*.yaml`");
    }
    files
}

fn utf8<'a>(name: &str, bytes: &'a [u8], report: &mut Report) -> Option<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            let whole = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            let place = error::Place { file: name.into(), line: whole(line), column: whole(column) };
            report.add(&place, "", "not UTF-8 text");
        })
        .ok()
}

/// `; did you mean …` for a name that should be one of `names`, or the list of them.
#[must_use]
pub fn one_of_names<'a>(text: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    words::one_of_names(text, names)
}

/// A duration as the YAML writes it: `250ms`, `1.2s`, `5min`, `12h`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text)
}

/// An address to listen on as the YAML writes it: `127.0.0.1:8080`.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    words::listen(text)
}

/// The JSON Schema (draft 2020-12) of the YAML.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = raw::Root::schema();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "gemba configuration".into();
    schema
}

/// The local page.
#[derive(Clone, Debug)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether people may tell what no tag does.
    pub entries: bool,
}

/// An OTLP receiver.
#[derive(Clone)]
pub struct Upstream {
    /// Base URL; over HTTP `/v1/metrics`, `/v1/logs` and `/v1/traces` are appended, over gRPC it has no path.
    pub endpoint: String,
    /// How OTLP travels.
    pub protocol: Protocol,
    /// gzip or none.
    pub gzip: bool,
    /// What is sent: each once, at least one.
    pub signals: Vec<Signal>,
    /// Extra headers; values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// For one request, from connect to the last byte of the answer.
    pub timeout: Duration,
    /// PEM file with the authorities that an `https` endpoint is checked against; without it those that the machine
    /// itself trusts.
    pub ca_file: Option<PathBuf>,
}

impl fmt::Debug for Upstream {
    /// Without the endpoint, which may have been filled in from a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("protocol", &self.protocol)
            .field("gzip", &self.gzip)
            .field("signals", &self.signals)
            .field("headers", &self.headers)
            .field("timeout", &self.timeout)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As protobuf over HTTP/1.1.
    Http,
    /// Over gRPC.
    Grpc,
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
    /// Which tags tell what it works on.
    pub context: ContextSpec,
    /// Which anomalies are looked for, each name once.
    pub detectors: Vec<DetectorSpec>,
    /// Which tags tell of its inspections, if it inspects.
    pub inspection: Option<InspectionSpec>,
    /// How far its source's clock may be from the gateway's; without it the source's time counts.
    pub max_clock_skew: Option<Duration>,
    /// Its control charts, each with a name of its own.
    pub charts: Vec<ChartSpec>,
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
    /// Its state map has keys that are neither numbers nor booleans, so its values are text.
    pub text: bool,
    /// What its readings go through, if anything.
    pub treat: Option<Box<treat::Options>>,
}

/// A link, with what its driver is told.
#[derive(Clone, Debug)]
pub struct Link {
    /// The endpoint, for people. Never holds a secret: what was filled in is shown as it is written, `tcp://${env:PLC}`.
    pub endpoint: String,
    /// Indices into [`Config::stations`].
    pub stations: Vec<usize>,
    /// For the driver.
    pub source: Source,
}

/// What a driver is told. The closed list of protocols.
#[derive(Clone)]
pub enum Source {
    /// OPC UA.
    Opcua(opcua::Config),
    /// Modbus.
    Modbus(modbus::Config),
    /// MQTT.
    Mqtt(mqtt::Config),
    /// The gateway's own pins and converters.
    Gpio(gpio::Config),
}

impl Source {
    /// The driver that speaks it; nothing is connected yet.
    #[must_use]
    pub fn driver(self) -> AnyDriver {
        match self {
            Self::Opcua(config) => AnyDriver::Opcua(Box::new(opcua::Client::new(config))),
            Self::Modbus(config) => AnyDriver::Modbus(Box::new(modbus::Client::new(config))),
            Self::Mqtt(config) => AnyDriver::Mqtt(Box::new(mqtt::Client::new(config))),
            Self::Gpio(config) => AnyDriver::Gpio(Box::new(gpio::Client::new(config))),
        }
    }

    /// The protocol's name, as people write it.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Opcua(_) => "OPC UA",
            Self::Modbus(_) => "Modbus",
            Self::Mqtt(_) => "MQTT",
            Self::Gpio(_) => "GPIO",
        }
    }
}

impl fmt::Debug for Source {
    /// Only the protocol: endpoints and names may have been filled in from secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.protocol())
    }
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

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
