//! Events and alarms that the server tells.

use opcua::nodes::Event;
use opcua::types::event_field::EventField;
use opcua::types::{
    AttributeId, ByteString, DateTime, LocalizedText, NodeId, NumericRange, ObjectId, ObjectTypeId, QualifiedName,
    Variant,
};

use super::{OpcuaServer, date_time};
use crate::Time;

/// An event to be told; an alarm, if it has a condition.
#[derive(Clone, Debug)]
pub struct Happened {
    /// `EventId`.
    pub id: Vec<u8>,
    /// `Time`.
    pub time: Time,
    /// `Message`.
    pub message: String,
    /// `Severity`.
    pub severity: u16,
    /// The node of its type, if it is one of the server's own: `JamAlarmType` of [`OpcuaServer::add_machine`].
    pub kind: Option<&'static str>,
    /// `ConditionName`, and whether it is active and acknowledged.
    pub condition: Option<(String, bool, bool)>,
}

impl OpcuaServer {
    /// Tells `happened` to those who listen to the server itself, or to the machine of
    /// [`add_machine`](Self::add_machine).
    ///
    /// # Panics
    /// When the server is stopped.
    pub fn tell(&self, happened: &Happened) {
        let running = self.running.as_ref().expect("the server runs");
        let kind = match (happened.kind, &happened.condition) {
            (Some(own), _) => NodeId::new(running.manager.inner().index, format!("type.{own}")),
            (None, Some(_)) => ObjectTypeId::AlarmConditionType.into(),
            (None, None) => ObjectTypeId::SystemEventType.into(),
        };
        let told = Told { happened: happened.clone(), kind, time: date_time(happened.time) };
        let notifiers = [NodeId::from(ObjectId::Server), NodeId::new(running.manager.inner().index, "AOI")];
        running.handle.subscriptions().notify_events(notifiers.iter().map(|node| (&told as &dyn Event, node)));
    }
}

struct Told {
    happened: Happened,
    kind: NodeId,
    time: DateTime,
}

impl Event for Told {
    fn get_field(&self, _: &NodeId, id: AttributeId, range: &NumericRange, path: &[QualifiedName]) -> Variant {
        self.get_value(id, range, path)
    }

    fn time(&self) -> &DateTime {
        &self.time
    }

    fn event_type_id(&self) -> &NodeId {
        &self.kind
    }
}

impl EventField for Told {
    fn get_value(&self, attribute: AttributeId, _: &NumericRange, path: &[QualifiedName]) -> Variant {
        if attribute != AttributeId::Value {
            return Variant::Empty;
        }
        let Happened { id, message, severity, condition, .. } = &self.happened;
        let path: Vec<_> = path.iter().map(|name| name.name.as_ref()).collect();
        match (path.as_slice(), condition) {
            (["EventId"], _) => Variant::from(ByteString::from(id.clone())),
            (["EventType"], _) => Variant::from(self.kind.clone()),
            (["SourceNode"], _) => Variant::from(NodeId::from(ObjectId::Server)),
            (["SourceName"], _) => Variant::from("Server"),
            (["Time"], _) => Variant::from(self.time),
            (["Message"], _) => Variant::from(LocalizedText::new("en", message)),
            (["Severity"], _) => Variant::UInt16(*severity),
            (["ConditionName"], Some((name, ..))) => Variant::from(name.as_str()),
            (["ActiveState", "Id"], Some((_, active, _))) => Variant::Boolean(*active),
            (["AckedState", "Id"], Some((.., acked))) => Variant::Boolean(*acked),
            (["Retain"], Some((_, active, acked))) => Variant::Boolean(*active || !*acked),
            _ => Variant::Empty,
        }
    }
}
