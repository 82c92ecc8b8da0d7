//! What an MQTT link is told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json_path::JsonPath;

use crate::TagId;

/// One link: a session with a broker. Stations that name the same endpoint and `client_id` share it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the broker is.
    pub endpoint: Endpoint,
    /// Names the session; the broker keeps it for us while we are away.
    pub client_id: String,
    /// Which protocol to speak.
    pub version: Version,
    /// Whether to forget the session (and what came meanwhile) at each connect.
    pub clean_session: bool,
    /// How long the link may be silent before it is pinged.
    pub keep_alive: Duration,
    /// How long a connect may take.
    pub timeout: Duration,
    /// The largest payload that is looked at, in bytes; a larger one is a loss.
    pub max_payload: usize,
    /// User name and password.
    pub credentials: Option<Credentials>,
    /// PEM file with the authorities that `mqtts` brokers are checked against.
    pub ca_file: Option<PathBuf>,
    /// What we show to a broker that wants to know who we are.
    pub identity: Option<Identity>,
    /// Whether Sparkplug edge nodes are asked for a new birth where one is needed. It is a command to the node, and the
    /// only one there is.
    pub rebirth: bool,
    /// The name under which we tell Sparkplug edge nodes that we are there (`spBv1.0/STATE/<host_id>`); nothing without it.
    /// The session of such a link is a clean one.
    pub host_id: Option<String>,
    /// What to subscribe to, with what each station takes from it.
    pub topics: Vec<Topic>,
    /// Tags that must not be old: what a broker retained for them, and nobody dated, is uncertain.
    pub aged: BTreeSet<TagId>,
}

impl Config {
    /// A link with what the configuration documents as defaults, and nothing subscribed to yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, client_id: impl Into<String>) -> Self {
        Self {
            endpoint,
            client_id: client_id.into(),
            version: Version::default(),
            clean_session: false,
            keep_alive: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            max_payload: 256 << 10,
            credentials: None,
            ca_file: None,
            identity: None,
            rebirth: false,
            host_id: None,
            topics: Vec::new(),
            aged: BTreeSet::new(),
        }
    }

    /// Whether the broker is to keep the session while we are away. Not for a Sparkplug host application: its word that it is
    /// there is said anew on each connection, and nothing older may come before it
    /// (Sparkplug 3.0, tck-id-message-flow-phid-sparkplug-clean-session-311 and -50).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        !self.clean_session && !self.client_id.is_empty() && self.host_id.is_none()
    }

    /// Names the session at the broker, across restarts and whatever else changes in the configuration.
    #[must_use]
    pub fn session(&self) -> String {
        format!("{} {}", self.endpoint, self.client_id)
    }
}

/// A certificate of our own, for brokers that want one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file with our certificate, and those between it and the authority that the broker trusts.
    pub cert_file: PathBuf,
    /// PEM file with its private key.
    pub key_file: PathBuf,
}

/// What one station takes from one topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The station, for losses, and in place of `{station}`.
    pub station: Arc<str>,
    /// Topic filter, wildcards allowed. A level `{station}` stands for the station's name, a level `{tag}` for one of its
    /// tags' names.
    pub filter: String,
    /// 0, 1 or 2. We ask for 2 as 1: it comes at least once, and acknowledged only when durable.
    pub qos: u8,
    /// How the payload is read, and what is looked for.
    pub payload: Payload,
}

/// How a payload is read.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A JSON text; the first node that a path (RFC 9535) selects is the value.
    Json(Fields<JsonPath>),
    /// Rows of text (RFC 4180), each of them a reading for every tag.
    Csv {
        /// Between fields.
        separator: u8,
        /// Whether the first row names the columns.
        header: bool,
        /// What to look for.
        fields: Fields<Column>,
    },
    /// The whole payload is one value.
    Plain(Fields<Text>),
    /// Bytes in a fixed layout.
    Binary(Fields<Field>),
    /// Sparkplug B (Eclipse Sparkplug 3.0).
    Sparkplug(Fields<Metric>),
}

/// What to look for in a payload.
#[derive(Clone, Debug)]
pub struct Fields<P> {
    /// Where the payload says when its values came to be; the time received without it.
    pub time: Option<SourceTime<P>>,
    /// The tags.
    pub tags: Vec<TopicTag<P>>,
}

/// One tag in a payload.
#[derive(Clone, Debug)]
pub struct TopicTag<P> {
    /// Its place in the configuration.
    pub id: TagId,
    /// Its name, in place of `{tag}`.
    pub name: Arc<str>,
    /// Where in the payload.
    pub place: P,
    /// Whether a payload that has other tags and not this one makes it bad (`PathNotFound`); otherwise it stays as
    /// it was.
    pub required: bool,
    /// Whether text is a wrong type for its use: the tag is a counter.
    pub numeric: bool,
}

/// Where a payload carries its time. A payload without it, or with one that cannot be read, keeps its values:
/// as of the time received, and uncertain (`NoSourceTime`).
#[derive(Clone, Debug)]
pub struct SourceTime<P> {
    /// Where.
    pub place: P,
    /// How it is written.
    pub format: TimeFormat,
}

/// How a payload's time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since the Unix epoch, fractions allowed.
    UnixS,
    /// Milliseconds.
    UnixMs,
    /// Microseconds.
    UnixUs,
    /// Nanoseconds.
    UnixNs,
    /// RFC 3339 text.
    Rfc3339,
    /// Text in a format as strftime has it; without an offset in it the time of this zone.
    Custom(Arc<str>, TimeZone),
}

/// A column of a CSV payload, and how its text is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Which.
    pub at: ColumnAt,
    /// How its text is read.
    pub text: Text,
}

/// Which column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnAt {
    /// By its name in the header.
    Name(Arc<str>),
    /// By its place, from 0.
    Index(usize),
}

/// How text is read as a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Text {
    /// A number if it is one, `true` or `false`, or else text.
    #[default]
    Any,
    /// A number, or a wrong type.
    Number,
    /// `true`, `false`, `1` or `0`, or a wrong type.
    Bool,
    /// Text, digits too: `0042` stays what it is.
    Text,
}

/// Some bytes of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Of the first byte, from 0.
    pub offset: usize,
    /// What they are.
    pub kind: Kind,
    /// Whether the least significant byte comes first.
    pub little: bool,
}

/// What bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A byte: 0 is false.
    Bool,
    /// One bit of a byte, 0 the least significant.
    Bit(u8),
    /// Unsigned, in so many bytes: 1, 2, 4 or 8.
    Unsigned(u8),
    /// Two's complement, likewise.
    Signed(u8),
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 64 bits.
    F64,
    /// UTF-8 in so many bytes, up to the first NUL; spaces at its end do not count.
    Text(usize),
}

impl Kind {
    /// How many bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::Bit(_) => 1,
            Self::Unsigned(size) | Self::Signed(size) => size.into(),
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Text(size) => size,
        }
    }
}

/// A Sparkplug metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: Arc<str>,
    /// The device it belongs to; without it any of the edge node's, and the node itself.
    pub device: Option<Arc<str>>,
}

impl Payload {
    /// The tags it carries.
    pub fn ids(&self) -> Vec<TagId> {
        fn ids<P>(fields: &Fields<P>) -> Vec<TagId> {
            fields.tags.iter().map(|tag| tag.id).collect()
        }
        match self {
            Self::Json(fields) => ids(fields),
            Self::Csv { fields, .. } => ids(fields),
            Self::Plain(fields) => ids(fields),
            Self::Binary(fields) => ids(fields),
            Self::Sparkplug(fields) => ids(fields),
        }
    }

    /// Those of them that count.
    pub fn counters(&self) -> Vec<TagId> {
        fn counters<P>(fields: &Fields<P>) -> Vec<TagId> {
            fields.tags.iter().filter(|tag| tag.numeric).map(|tag| tag.id).collect()
        }
        match self {
            Self::Json(fields) => counters(fields),
            Self::Csv { fields, .. } => counters(fields),
            Self::Plain(fields) => counters(fields),
            Self::Binary(fields) => counters(fields),
            Self::Sparkplug(fields) => counters(fields),
        }
    }

    /// Their names, in the same order.
    pub fn names(&self) -> Vec<Arc<str>> {
        fn names<P>(fields: &Fields<P>) -> Vec<Arc<str>> {
            fields.tags.iter().map(|tag| Arc::clone(&tag.name)).collect()
        }
        match self {
            Self::Json(fields) => names(fields),
            Self::Csv { fields, .. } => names(fields),
            Self::Plain(fields) => names(fields),
            Self::Binary(fields) => names(fields),
            Self::Sparkplug(fields) => names(fields),
        }
    }
}

/// Protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.1.1
    #[default]
    V311,
    /// 5
    V5,
}

/// User name and password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// `mqtt://host:1883` or `mqtts://host:8883`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// 1883, or 8883 with TLS, unless said.
    pub port: u16,
    /// `mqtts`.
    pub tls: bool,
}

impl TimeFormat {
    /// Every spelling, for help and suggestions.
    pub const NAMES: [&str; 5] = ["unix_s", "unix_ms", "unix_us", "unix_ns", "rfc3339"];
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "unix_s" => Self::UnixS,
            "unix_ms" => Self::UnixMs,
            "unix_us" => Self::UnixUs,
            "unix_ns" => Self::UnixNs,
            "rfc3339" => Self::Rfc3339,
            _ => return Err(format!("`{text}` is no time format; one of {}", Self::NAMES.join(", "))),
        })
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, tls) = if let Some(rest) = text.strip_prefix("mqtt://") {
            (rest, false)
        } else if let Some(rest) = text.strip_prefix("mqtts://") {
            (rest, true)
        } else {
            return Err(format!("`{text}` is no MQTT endpoint; write it as `mqtt://host:1883` or `mqtts://host:8883`"));
        };
        let (host, port) = crate::split_host_port(rest, if tls { 8883 } else { 1883 })?;
        Ok(Self { host, port, tls })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}
