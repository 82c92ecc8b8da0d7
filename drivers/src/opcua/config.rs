//! What an OPC UA link is told.

use std::sync::Arc;
use std::time::Duration;

use super::security::{Identity, Security};
use super::{Address, Notifier, Pick};
use crate::TagId;

/// One link: a session with a server. Stations that name the same endpoint share it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `opc.tcp://host:port/path`.
    pub endpoint: String,
    /// The other servers of a redundant set, in the order to try them; mostly none.
    pub spares: Vec<String>,
    /// How the channel is secured.
    pub security: Security,
    /// Who we say we are.
    pub identity: Identity,
    /// How long a connect, and each call after it, may take.
    pub timeout: Duration,
    /// What each station watches.
    pub stations: Vec<Station>,
}

/// What one station watches.
#[derive(Clone, Debug)]
pub struct Station {
    /// The station, for logs and losses.
    pub name: Arc<str>,
    /// How often the server should sample, and publish what changed.
    pub publish: Duration,
    /// What.
    pub tags: Vec<Tag>,
    /// Whose events and alarms are told.
    pub events: Vec<Notifier>,
}

/// One tag.
#[derive(Clone, Debug)]
pub struct Tag {
    /// Its place in the configuration.
    pub id: TagId,
    /// Where it is found.
    pub node: Address,
    /// What of the node's value it is; all of it unless told otherwise.
    pub pick: Pick,
}
