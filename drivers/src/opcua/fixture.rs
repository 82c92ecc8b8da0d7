//! What the unit tests set a client up with.

use std::time::Duration;

use super::{Config, Identity, Pick, Security, Station, Tag};
use crate::TagId;

/// One station, `a`; its tags, numbered from 0, are these nodes.
pub(super) fn config(endpoint: &str, nodes: &[&str]) -> Config {
    let tag =
        |(id, node): (u32, &&str)| Tag { id: TagId(id), node: node.parse().expect("a node"), pick: Pick::default() };
    let tags = (0..).zip(nodes).map(tag).collect();
    Config {
        endpoint: endpoint.to_owned(),
        spares: Vec::new(),
        security: Security::None,
        identity: Identity::Anonymous,
        timeout: Duration::from_secs(5),
        stations: vec![Station { name: "a".into(), publish: Duration::from_millis(20), tags, events: Vec::new() }],
    }
}

/// A client that is up; its tags are these nodes of the server's.
#[cfg(feature = "sim")]
pub(super) async fn connected(server: &crate::sim::opcua::OpcuaServer, names: &[&str]) -> super::Client {
    let nodes: Vec<String> = names.iter().map(|name| server.node(name)).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let mut client = super::Client::new(config(&server.endpoint(), &nodes));
    crate::Driver::connect(&mut client).await.expect("up");
    client
}
