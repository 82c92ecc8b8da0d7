//! What an MQTT link is told.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

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
    pub ca_file: Option<std::path::PathBuf>,
    /// What to subscribe to, with what each station takes from it.
    pub topics: Vec<Topic>,
}

impl Config {
    /// Names the session at the broker, across restarts and whatever else changes in the configuration.
    #[must_use]
    pub fn session(&self) -> String {
        format!("{} {}", self.endpoint, self.client_id)
    }
}

/// What one station takes from one topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The station, for losses.
    pub station: Arc<str>,
    /// Topic filter, wildcards allowed.
    pub filter: String,
    /// 0, 1 or 2. We ask for 2 as 1: it comes at least once, and acknowledged only when durable.
    pub qos: u8,
    /// Where the payload says when its values came to be; the time received without it.
    pub time: Option<SourceTime>,
    /// What to look for.
    pub tags: Vec<TopicTag>,
}

/// One tag in a JSON payload.
#[derive(Clone, Debug)]
pub struct TopicTag {
    /// Its place in the configuration.
    pub id: TagId,
    /// RFC 9535; the first node it selects is the value.
    pub path: JsonPath,
    /// Whether a payload that has other tags and not this one makes it bad (`PathNotFound`); otherwise it stays as
    /// it was.
    pub required: bool,
    /// Whether text is a wrong type for its use: the tag is a counter.
    pub numeric: bool,
}

/// Where a payload carries its time. A payload without it, or with one that cannot be read, keeps its values:
/// as of the time received, and uncertain (`NoSourceTime`).
#[derive(Clone, Debug)]
pub struct SourceTime {
    /// Where.
    pub path: JsonPath,
    /// How it is written.
    pub format: TimeFormat,
}

/// How a payload's time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// Seconds since the Unix epoch, fractions allowed.
    UnixS,
    /// Milliseconds.
    UnixMs,
    /// Microseconds.
    UnixUs,
    /// RFC 3339 text.
    Rfc3339,
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
    pub const NAMES: [&str; 4] = ["unix_s", "unix_ms", "unix_us", "rfc3339"];
}

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "unix_s" => Self::UnixS,
            "unix_ms" => Self::UnixMs,
            "unix_us" => Self::UnixUs,
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
