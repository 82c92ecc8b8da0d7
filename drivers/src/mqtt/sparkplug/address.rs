//! Whose message a topic carries, and what a host application publishes itself.

use prost::Message as _;

use super::value::datatype;
use super::wire::{self, MetricValue};
use crate::Time;

/// The first level of every topic.
pub(crate) const NAMESPACE: &str = "spBv1.0";

/// `spBv1.0/group/type/node[/device]`
pub(super) struct Address<'a> {
    /// `group/node`.
    pub(super) node: String,
    pub(super) kind: Type,
    pub(super) device: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    NodeBirth,
    NodeDeath,
    NodeData,
    DeviceBirth,
    DeviceDeath,
    DeviceData,
}

impl<'a> Address<'a> {
    pub(super) fn of(topic: &'a str) -> Option<Self> {
        let levels: Vec<&str> = topic.split('/').collect();
        let (group, kind, node, device) = match *levels.as_slice() {
            [NAMESPACE, group, kind, node] => (group, kind, node, None),
            [NAMESPACE, group, kind, node, device] if !device.is_empty() => (group, kind, node, Some(device)),
            _ => return None,
        };
        let kind = match (kind, device) {
            ("NBIRTH", None) => Type::NodeBirth,
            ("NDEATH", None) => Type::NodeDeath,
            ("NDATA", None) => Type::NodeData,
            ("DBIRTH", Some(_)) => Type::DeviceBirth,
            ("DDEATH", Some(_)) => Type::DeviceDeath,
            ("DDATA", Some(_)) => Type::DeviceData,
            _ => return None,
        };
        Some(Self { node: format!("{group}/{node}"), kind, device })
    }
}

/// Where commands for `group/node` go.
pub(super) fn command_topic(node: &str) -> Option<String> {
    let (group, node) = node.split_once('/')?;
    Some(format!("{NAMESPACE}/{group}/NCMD/{node}"))
}

/// The command to be born again (6.4.8, tck-id-operational-behavior-data-commands-rebirth-*).
pub(super) fn rebirth(now: Time) -> Vec<u8> {
    let timestamp = u64::try_from(now.0 / 1_000_000).ok();
    let metric = wire::Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        timestamp,
        datatype: Some(datatype::BOOLEAN),
        value: Some(MetricValue::Boolean(true)),
        ..wire::Metric::default()
    };
    wire::Payload { timestamp, metrics: vec![metric], seq: None }.encode_to_vec()
}

/// How a host application says that it is there, or not (6.4.26): topic and payload. A death says the time of its birth.
pub(in crate::mqtt) fn state(host_id: &str, online: bool, since: Time) -> (String, Vec<u8>) {
    let payload = format!(r#"{{"online":{online},"timestamp":{}}}"#, since.0 / 1_000_000);
    (state_topic(host_id), payload.into_bytes())
}

/// Where it says so.
pub(in crate::mqtt) fn state_topic(host_id: &str) -> String {
    format!("{NAMESPACE}/STATE/{host_id}")
}

/// Whether such a word is that the host is gone.
pub(in crate::mqtt) fn is_offline(payload: &[u8]) -> bool {
    let said: Option<serde_json::Value> = serde_json::from_slice(payload).ok();
    said.is_some_and(|said| said.get("online") == Some(&serde_json::Value::Bool(false)))
}
