//! Notifications as servers send them.

use opcua::types::{DateTime, LocalizedText};

use super::*;

fn fields(id: u8, kind: ObjectTypeId, severity: u16) -> Vec<Variant> {
    vec![
        Variant::from(ByteString::from(vec![id])),
        Variant::from(NodeId::from(kind)),
        Variant::from(NodeId::new(1, "Oven")),
        Variant::from("Oven"),
        Variant::from(DateTime::ymd_hms(2026, 11, 18, 6, 0, 0)),
        Variant::from(LocalizedText::new("en", "too hot")),
        Variant::UInt16(severity),
        Variant::from("HighTemperature"),
        Variant::Boolean(true),
        Variant::Boolean(false),
        Variant::Boolean(true),
        Variant::from(NodeId::null()),
    ]
}

fn notifier(min_severity: u16) -> Notifier {
    Notifier { node: "i=2253".parse().expect("a node"), min_severity, refresh: true }
}

#[test]
fn an_alarm_says_what_it_is_and_how_it_stands() {
    let namespaces = ["http://opcfoundation.org/UA/".to_owned(), "urn:plc".to_owned()];
    let told = Events::default().read(
        &notifier(1),
        &"oven-1".into(),
        fields(0xAB, ObjectTypeId::AlarmConditionType, 700),
        &namespaces,
        Time(9),
    );
    let Told::Event(event) = told else { panic!("{told:?}") };
    assert_eq!((&*event.station, &*event.kind, event.severity), ("oven-1", "AlarmConditionType", 700));
    assert_eq!((&*event.message, event.received), ("too hot", Time(9)));
    assert_eq!(event.time, "2026-11-18T06:00:00Z".parse().expect("a time"));
    let attributes: Vec<_> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        attributes,
        [
            "opcua.event.id=ab",
            "opcua.event.source.node=nsu=urn:plc;s=Oven",
            "opcua.event.source.name=Oven",
            "opcua.condition.name=HighTemperature",
            "opcua.condition.active=true",
            "opcua.condition.acknowledged=false",
            "opcua.condition.retain=true",
        ]
    );
}

#[test]
fn what_nobody_needs_is_left_out_and_nothing_is_told_twice() {
    let mut events = Events::default();
    let mut read = |station: &str, fields, least| events.read(&notifier(least), &station.into(), fields, &[], Time(9));
    let alarm = |id, severity| fields(id, ObjectTypeId::AlarmConditionType, severity);
    assert!(matches!(read("a", alarm(1, 500), 1), Told::Event(_)));
    assert_eq!(read("a", alarm(1, 500), 1), Told::Nothing, "it came again");
    assert!(matches!(read("b", alarm(1, 500), 1), Told::Event(_)), "another station listens too");
    assert_eq!(read("a", alarm(2, 499), 500), Told::Nothing, "not severe enough");
    assert_eq!(read("a", fields(3, ObjectTypeId::RefreshStartEventType, 1), 1), Told::Nothing);
    assert_eq!(read("a", fields(4, ObjectTypeId::RefreshRequiredEventType, 1), 1), Told::RefreshWanted);
    assert!(matches!(read("a", fields(5, ObjectTypeId::EventQueueOverflowEventType, 1), 1), Told::Overflow(_)));
    // A server that says next to nothing.
    let Told::Event(bare) = read("a", Vec::new(), 1) else { panic!("an event") };
    assert_eq!((bare.time, bare.severity, &*bare.kind), (Time(9), 1, "BaseEventType"));
    assert!(bare.attributes.is_empty());
    // A type of its own.
    let mut own = alarm(6, 1);
    own[1] = Variant::from(NodeId::new(3, 1001_u32));
    let Told::Event(own) = read("a", own, 1) else { panic!("an event") };
    assert_eq!(&*own.kind, "ns=3;i=1001");
    let kind = (Arc::from("opcua.event.type.node"), Value::Text("ns=3;i=1001".into()));
    assert!(own.attributes.contains(&kind), "{own:?}");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut heard = Heard::default();
    let station: Arc<str> = "a".into();
    let id = |number: usize| ByteString::from(number.to_be_bytes().to_vec());
    for number in 0..=REMEMBERED {
        assert!(heard.is_new(&station, &id(number)));
    }
    assert_eq!((heard.ids.len(), heard.order.len()), (REMEMBERED, REMEMBERED));
    assert!(!heard.is_new(&station, &id(REMEMBERED)));
    assert!(heard.is_new(&station, &id(0)), "the oldest is forgotten");
}
