//! What the server says of itself at the connect: its namespaces, its clock, and how much it takes at once.

use opcua::types::{NodeId, ReadValueId, TimestampsToReturn, VariableId, Variant};

use super::convert;
use super::link::Link;
use crate::{LinkError, Time};

/// Monitored items a call, unless the server wants fewer: more than some servers take in one message.
const ITEMS_PER_CALL: usize = 1_000;
/// Nodes a read, unless the server wants fewer.
const NODES_PER_READ: usize = 1_000;
/// Nodes a read of history, unless the server wants fewer: each of them may need a continuation point.
const NODES_PER_HISTORY: usize = 100;

/// What the server says of itself.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its table of namespaces.
    pub(super) namespaces: Vec<String>,
    /// Its clock, when it was asked.
    pub(super) clock: Option<Time>,
    /// When it started.
    pub(super) started: Option<Time>,
    /// How much it takes.
    pub(super) limits: Limits,
}

/// How much a server takes at once. Zero means "any number" to it, and many do not say: then ours count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) items_per_call: usize,
    pub(super) nodes_per_read: usize,
    pub(super) nodes_per_history: usize,
    pub(super) items_per_subscription: usize,
    pub(super) subscriptions: usize,
}

impl Limits {
    fn told(answers: [Option<usize>; 5]) -> Self {
        let [items, nodes, history, per_subscription, subscriptions] = answers;
        Self {
            items_per_call: items.unwrap_or(ITEMS_PER_CALL).min(ITEMS_PER_CALL),
            nodes_per_read: nodes.unwrap_or(NODES_PER_READ).min(NODES_PER_READ),
            nodes_per_history: history.unwrap_or(NODES_PER_HISTORY).min(NODES_PER_HISTORY),
            items_per_subscription: per_subscription.unwrap_or(usize::MAX),
            subscriptions: subscriptions.unwrap_or(usize::MAX),
        }
    }
}

impl Link {
    /// Asks the server what it says of itself.
    pub(super) async fn ask_server(&mut self) -> Result<Server, LinkError> {
        let nodes = [
            VariableId::Server_NamespaceArray,
            VariableId::Server_ServerStatus_CurrentTime,
            VariableId::Server_ServerStatus_StartTime,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
            VariableId::Server_ServerCapabilities_MaxMonitoredItemsPerSubscription,
            VariableId::Server_ServerCapabilities_MaxSubscriptionsPerSession,
        ]
        .map(|node| ReadValueId::from(NodeId::from(node)));
        // Some small servers take one node a read, which they can say only to those who ask so.
        let answers = self.read(nodes.to_vec(), TimestampsToReturn::Neither).await?;
        let mut answers = answers.into_iter().map(|answer| answer.value);
        let Some(Some(Variant::Array(table))) = answers.next() else {
            return Err(LinkError::Refused("the server has no table of namespaces".to_owned()));
        };
        let namespaces = table.values.into_iter().map(|uri| match uri {
            Variant::String(uri) => uri.as_ref().to_owned(),
            _ => String::new(),
        });
        let mut time = || match answers.next() {
            Some(Some(Variant::DateTime(at))) => convert::time(&at),
            _ => None,
        };
        let (clock, started) = (time(), time());
        let mut limit = || match answers.next() {
            Some(Some(Variant::UInt32(limit @ 1..))) => Some(limit as usize),
            _ => None,
        };
        let limits = Limits::told([limit(), limit(), limit(), limit(), limit()]);
        self.a_call = self.a_call.min(limits.nodes_per_read);
        Ok(Server { namespaces: namespaces.collect(), clock, started, limits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_want_less_and_never_gets_more_than_we_send() {
        let silent = Limits::told([None; 5]);
        assert_eq!((silent.items_per_call, silent.nodes_per_read, silent.nodes_per_history), (1_000, 1_000, 100));
        assert_eq!((silent.items_per_subscription, silent.subscriptions), (usize::MAX, usize::MAX));
        let small = Limits::told([Some(5), Some(1), Some(2), Some(30), Some(4)]);
        assert_eq!((small.items_per_call, small.nodes_per_read, small.nodes_per_history), (5, 1, 2));
        assert_eq!((small.items_per_subscription, small.subscriptions), (30, 4));
        assert_eq!(Limits::told([Some(1 << 30); 5]).items_per_call, 1_000);
    }
}
