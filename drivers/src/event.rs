//! Something that a device says happened: an event, or an alarm that came, changed or went.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Time, Value};

/// Something that happened, as a device tells it. It is no reading: it has no tag, and counts in no figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The station behind which it was heard.
    pub station: Arc<str>,
    /// When it happened, by the source.
    pub time: Time,
    /// When the gateway heard of it.
    pub received: Time,
    /// What kind it is, in the protocol's words.
    pub kind: Arc<str>,
    /// How much it matters: 1 (not at all) to 1000 (a catastrophe), as OPC UA has it (OPC 10000-5, 6.4.2).
    pub severity: u16,
    /// What it says to people.
    pub message: Arc<str>,
    /// What else is known, by the name that it has in telemetry: `opcua.condition.active`.
    pub attributes: Vec<(Arc<str>, Value)>,
}
