//! Events and alarms (OPC 10000-9): what is asked of a notifier, and what its notifications say.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use opcua::client::UARequest;
use opcua::client::services::CreateMonitoredItems;
use opcua::types::{
    AttributeId, BrowseDirection, ByteString, CallMethodRequest, ContentFilter, ContentFilterBuilder, EventFilter,
    ExtensionObject, MethodId, MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeClassMask, NodeId,
    NumericRange, ObjectTypeId, Operand, QualifiedName, ReadValueId, ReferenceDescription, ReferenceTypeId,
    SimpleAttributeOperand, StatusCode, TimestampsToReturn, Variant,
};

use super::ask::references;
use super::link::Link;
use super::{Address, Node, convert};
use crate::{Event, LinkError, Loss, Time, Value};

/// What the server keeps of events between two publishes; with more it tells that some are gone.
const QUEUE: u32 = 1_000;
/// So many events are remembered, so that one which comes again after a reconnect is told once.
const REMEMBERED: usize = 4_096;

/// Types of events that are looked at, at most.
const MOST_TYPES: usize = 10_000;

/// A node whose events are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifier {
    /// The node; the server itself (`i=2253`) tells all that it has.
    pub node: Address,
    /// Events below this severity (1 to 1000) are not told.
    pub min_severity: u16,
    /// Whether the server is asked, after each connect, to tell the alarms that stand. It is the one method that is
    /// ever called (ConditionRefresh, OPC 10000-9, 5.5.7), and changes nothing at the device.
    pub refresh: bool,
}

/// What is asked of each event, in this order. Servers find these by name, whatever type an event has: the type
/// that is named is the root of all (OPC 10000-4, 7.7.4.5).
const FIELDS: [&[&str]; 12] = [
    &["EventId"],
    &["EventType"],
    &["SourceNode"],
    &["SourceName"],
    &["Time"],
    &["Message"],
    &["Severity"],
    &["ConditionName"],
    &["ActiveState", "Id"],
    &["AckedState", "Id"],
    &["Retain"],
    &["BranchId"],
];
/// How many of them every event has.
const OF_EVERY: usize = 7;

/// What a notification says.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// Something happened.
    Event(Event),
    /// The server had to throw events away.
    Overflow(Time),
    /// The server asks to be asked for its alarms again.
    RefreshWanted,
    /// Nothing that anybody needs to know: a refresh begins or ends, it was told before, it is not severe enough.
    Nothing,
}

/// The notifiers of a link, and what was heard of them.
#[derive(Default)]
pub(super) struct Events {
    heard: Heard,
    /// What the server's own types of events are called.
    pub(super) kinds: HashMap<NodeId, Arc<str>>,
    /// ConditionRefresh is due.
    pub(super) refresh: bool,
}

impl Events {
    /// What the fields of a notification say, behind `station`.
    pub(super) fn read(
        &mut self,
        notifier: &Notifier,
        station: &Arc<str>,
        fields: Vec<Variant>,
        namespaces: &[String],
        received: Time,
    ) -> Told {
        let mut fields = fields.into_iter().chain(std::iter::repeat(Variant::Empty));
        let mut next = || fields.next().unwrap_or_default();
        let (id, kind) = (next(), next());
        let (source, source_name, time, message, severity) = (next(), next(), next(), next(), next());
        let [name, active, acked, retain, branch] = [next(), next(), next(), next(), next()];

        let time = if let Variant::DateTime(at) = &time { convert::time(at) } else { None }.unwrap_or(received);
        let kind = match kind {
            Variant::NodeId(kind) => *kind,
            _ => ObjectTypeId::BaseEventType.into(),
        };
        match kind.as_object_id_type() {
            Some(ObjectTypeId::RefreshStartEventType | ObjectTypeId::RefreshEndEventType) => return Told::Nothing,
            Some(ObjectTypeId::RefreshRequiredEventType) => return Told::RefreshWanted,
            Some(ObjectTypeId::EventQueueOverflowEventType) => return Told::Overflow(time),
            _ => {}
        }
        let severity = match severity {
            Variant::UInt16(severity) => severity.clamp(1, 1_000),
            _ => 1,
        };
        // Servers that take no filter on the severity send all.
        if severity < notifier.min_severity {
            return Told::Nothing;
        }
        let id = if let Variant::ByteString(id) = id { id } else { ByteString::null() };
        if !self.heard.is_new(station, &id) {
            return Told::Nothing;
        }

        let mut attributes: Vec<(Arc<str>, Value)> = Vec::new();
        let mut put = |name: &str, value: Variant| match convert::value(value) {
            Ok(Value::Text(text)) if text.is_empty() => {}
            Ok(value) if value != Value::Null => attributes.push((name.into(), value)),
            _ => {}
        };
        put("opcua.event.id", Variant::ByteString(id));
        if kind.namespace > 0 {
            put("opcua.event.type.node", Variant::from(Node::named(&kind, namespaces).to_string()));
        }
        if let Variant::NodeId(source) = source
            && !source.is_null()
        {
            put("opcua.event.source.node", Variant::from(Node::named(&source, namespaces).to_string()));
        }
        put("opcua.event.source.name", source_name);
        put("opcua.condition.name", name);
        put("opcua.condition.active", active);
        put("opcua.condition.acknowledged", acked);
        put("opcua.condition.retain", retain);
        if let Variant::NodeId(branch) = branch
            && !branch.is_null()
        {
            put("opcua.condition.branch", Variant::from(Node::named(&branch, namespaces).to_string()));
        }
        let message = match convert::value(message) {
            Ok(Value::Text(text)) => text,
            _ => Arc::from(""),
        };
        let kind = self.kinds.get(&kind).cloned().unwrap_or_else(|| kind_name(&kind, namespaces).into());
        Told::Event(Event { station: station.clone(), time, received, kind, severity, message, attributes })
    }
}

/// The standard's name for an event type, or the node of a type that the server does not show.
fn kind_name(kind: &NodeId, namespaces: &[String]) -> String {
    match kind.as_object_id_type() {
        Some(known) => format!("{known:?}"),
        None => Node::named(kind, namespaces).to_string(),
    }
}

trait AsObjectType {
    fn as_object_id_type(&self) -> Option<ObjectTypeId>;
}

impl AsObjectType for NodeId {
    fn as_object_id_type(&self) -> Option<ObjectTypeId> {
        let number = self.as_u32().filter(|_| self.namespace == 0)?;
        ObjectTypeId::try_from(number).ok()
    }
}

/// Events that were told, by station and `EventId`. What is oldest is forgotten.
#[derive(Default)]
struct Heard {
    ids: HashSet<(Arc<str>, Vec<u8>)>,
    order: VecDeque<(Arc<str>, Vec<u8>)>,
}

impl Heard {
    fn is_new(&mut self, station: &Arc<str>, id: &ByteString) -> bool {
        if id.is_null_or_empty() {
            return true; // a server that does not number its events
        }
        let key = (station.clone(), id.as_ref().to_vec());
        if !self.ids.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

/// One entry a message: the server says that it threw events away, not how many.
pub(super) fn overflow(station: &Arc<str>, at: Time) -> Loss {
    const REASON: &str = "OPC UA: the server's queue of events was full (at least so many)";
    Loss { source: station.clone(), from: at, to: at, count: 1, reason: Arc::from(REASON) }
}

/// One entry for each station that tells events, after a gap: no history of events is read.
pub(super) fn unheard(station: &Arc<str>, from: Time, to: Time) -> Loss {
    const REASON: &str = "OPC UA: the events of a gap are not known";
    Loss { source: station.clone(), from, to, count: 1, reason: Arc::from(REASON) }
}

/// An event item to be made.
pub(super) struct Wanted<'a> {
    /// The place of its notifier.
    pub(super) place: usize,
    pub(super) handle: u32,
    pub(super) node: NodeId,
    pub(super) notifier: &'a Notifier,
    /// Whose it is.
    pub(super) station: u32,
}

impl Link {
    /// Watches notifiers in the subscription at `place`; returns those that the server refused, with its reasons. Servers
    /// that cannot filter, or know nothing of conditions, are asked again for what every event has.
    pub(super) async fn watch_events(
        &mut self,
        place: usize,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<(usize, StatusCode)>, LinkError> {
        let subscription = self.subscriptions[place].id;
        let mut refused = Vec::new();
        for want in wanted {
            let mut status = self.watch_notifier(subscription, item(want, true)).await?;
            if status.is_bad() && !matches!(status, StatusCode::BadNodeIdUnknown | StatusCode::BadUserAccessDenied) {
                status = self.watch_notifier(subscription, item(want, false)).await?;
            }
            if status.is_bad() {
                refused.push((want.place, status));
            } else {
                self.subscriptions[place].stations.insert(want.station);
            }
        }
        Ok(refused)
    }

    async fn watch_notifier(
        &mut self,
        subscription: u32,
        item: MonitoredItemCreateRequest,
    ) -> Result<StatusCode, LinkError> {
        let session = self.session.clone();
        let answer = self
            .during_call(async move {
                CreateMonitoredItems::new(subscription, &session)
                    .timestamps_to_return(TimestampsToReturn::Both)
                    .items_to_create(vec![item])
                    .send(session.channel())
                    .await
            })
            .await?;
        Ok(match answer {
            Ok(answer) => answer.results.first().map_or(StatusCode::BadUnexpectedError, |made| made.result.status_code),
            Err(error) => error.status(),
        })
    }

    /// What the server's own types of events are called. Those of OPC UA itself are known.
    pub(super) async fn event_types(&mut self) -> Result<HashMap<NodeId, Arc<str>>, LinkError> {
        let mut names = HashMap::new();
        let mut seen = HashSet::new();
        let mut level = vec![NodeId::from(ObjectTypeId::BaseEventType)];
        while !level.is_empty() && seen.len() < MOST_TYPES {
            let ask = |kind: &NodeId| {
                let (of, classes) = (ReferenceTypeId::HasSubtype, NodeClassMask::OBJECT_TYPE);
                references(kind.clone(), of, BrowseDirection::Forward, classes)
            };
            let found = self.browse(level.iter().map(ask).collect()).await?;
            level.clear();
            for ReferenceDescription { node_id, browse_name, .. } in found.into_iter().flatten() {
                if !seen.insert(node_id.node_id.clone()) {
                    continue;
                }
                if node_id.node_id.namespace > 0 {
                    names.insert(node_id.node_id.clone(), Arc::from(browse_name.name.as_ref()));
                }
                level.push(node_id.node_id);
            }
        }
        Ok(names)
    }

    /// Asks the server to tell the alarms that stand, if it has such a thing.
    pub(super) async fn refresh_conditions(&mut self, subscription: u32) -> Result<(), LinkError> {
        let session = self.session.clone();
        let call = CallMethodRequest {
            object_id: ObjectTypeId::ConditionType.into(),
            method_id: MethodId::ConditionType_ConditionRefresh.into(),
            input_arguments: Some(vec![Variant::UInt32(subscription)]),
        };
        let status = match self.during_call(async move { session.call_one(call).await }).await? {
            Ok(answer) => answer.status_code,
            Err(error) => error.status(),
        };
        if status.is_bad() {
            // Servers without alarms have no such method, and nothing to tell.
            tracing::debug!(%status, "the server does not tell the alarms that stand");
        }
        Ok(())
    }
}

fn item(want: &Wanted<'_>, whole: bool) -> MonitoredItemCreateRequest {
    let operand = |path: &&[&str]| SimpleAttributeOperand {
        type_definition_id: ObjectTypeId::BaseEventType.into(),
        browse_path: Some(path.iter().map(|name| QualifiedName::new(0, *name)).collect()),
        attribute_id: AttributeId::Value as u32,
        index_range: NumericRange::None,
    };
    let fields = if whole { &FIELDS[..] } else { &FIELDS[..OF_EVERY] };
    let severe = || {
        let severity = Operand::SimpleAttributeOperand(operand(&&["Severity"][..]));
        ContentFilterBuilder::new().gte(severity, Operand::literal(want.notifier.min_severity)).build()
    };
    let filter = EventFilter {
        select_clauses: Some(fields.iter().map(operand).collect()),
        where_clause: if whole && want.notifier.min_severity > 1 { severe() } else { ContentFilter::default() },
    };
    MonitoredItemCreateRequest {
        item_to_monitor: ReadValueId::new(want.node.clone(), AttributeId::EventNotifier),
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: want.handle,
            sampling_interval: 0.0,
            filter: ExtensionObject::from_message(filter),
            queue_size: QUEUE,
            discard_oldest: true,
        },
    }
}

#[cfg(test)]
mod tests;
