//! Births, data and deaths of one edge node.

mod missing;

use super::value::datatype::*;
use super::wire::{Payload, PropertyNumber, PropertySet, PropertyValue};
use super::*;

const NOW: Time = Time(9_000_000_000_000);

fn fields(tags: &[(u32, &str, Option<&str>)]) -> Fields<Metric> {
    let tag = |&(id, name, device): &(u32, &str, Option<&str>)| TopicTag {
        id: TagId(id),
        name: format!("tag-{id}").into(),
        place: Metric { name: name.into(), device: device.map(Into::into) },
        required: false,
        numeric: false,
    };
    Fields { time: None, tags: tags.iter().map(tag).collect() }
}

/// Count, state and temperature of the node; a temperature of its device.
fn ours() -> Fields<Metric> {
    fields(&[(0, "Count", None), (1, "State", None), (2, "Temp", Some("PLC"))])
}

fn metric(name: &str, alias: u64, kind: u32, value: MetricValue) -> wire::Metric {
    let name = (!name.is_empty()).then(|| name.to_owned());
    let datatype = (kind > 0).then_some(kind);
    wire::Metric { name, alias: Some(alias), datatype, value: Some(value), ..wire::Metric::default() }
}

fn payload(seq: u64, metrics: Vec<wire::Metric>) -> Payload {
    Payload { timestamp: Some(1_000), seq: Some(seq), metrics }
}

fn birth(bd_seq: u64) -> Payload {
    payload(
        0,
        vec![
            metric("bdSeq", 0, INT64, MetricValue::Long(bd_seq)),
            metric("Count", 1, UINT64, MetricValue::Long(7)),
            metric("State", 2, STRING, MetricValue::Text("run".into())),
        ],
    )
}

/// What a message comes to: readings and losses.
fn said(nodes: &mut Nodes, kind: &str, payload: &Payload) -> (Vec<Reading>, Vec<Lost>) {
    said_at(nodes, kind, payload, NOW)
}

fn said_at(nodes: &mut Nodes, kind: &str, payload: &Payload, now: Time) -> (Vec<Reading>, Vec<Lost>) {
    let device = if kind.starts_with('D') { "/PLC" } else { "" };
    let (mut lost, mut readings) = (Vec::new(), Vec::new());
    let topic = format!("spBv1.0/Plant/{kind}/Oven{device}");
    let heard = nodes.hear(&topic, &payload.encode_to_vec(), now, &mut lost).expect("a payload");
    if let Some(heard) = heard {
        nodes.tell(&heard, &ours(), now, &mut readings);
    }
    (readings, lost)
}

fn good(id: u32, value: Value) -> Reading {
    Reading::good(TagId(id), value, Time::from_millis(1_000), NOW)
}

fn gone(id: u32, at: Time) -> Reading {
    Reading::bad(TagId(id), Status::Own(OwnStatus::Dead), at, NOW)
}

/// What our tags and one of the others are called.
const NAMES: [&str; 4] = ["Count", "State", "Temp", "Level"];

fn nodes(rebirth: bool) -> Nodes {
    Nodes::new(rebirth, NAMES.map(Into::into))
}

fn born() -> Nodes {
    let mut nodes = nodes(true);
    said(&mut nodes, "NBIRTH", &birth(3));
    nodes
}

#[test]
fn births_name_what_data_tells_by_alias() {
    let mut nodes = nodes(true);
    let (readings, lost) = said(&mut nodes, "NBIRTH", &birth(3));
    assert_eq!(readings, [good(0, Value::Int(7)), good(1, Value::Text("run".into()))]);
    assert!(lost.is_empty());
    let temp = metric("Temp", 1, FLOAT, MetricValue::Float(1.5));
    assert_eq!(said(&mut nodes, "DBIRTH", &payload(1, vec![temp])).0, [good(2, Value::Float(1.5))]);
    // The same alias of node and device is not the same metric. Own times count before the payload's.
    let count = wire::Metric { timestamp: Some(2_000), ..metric("", 1, 0, MetricValue::Long(8)) };
    let expected = Reading { source_time: Time::from_millis(2_000), ..good(0, Value::Int(8)) };
    assert_eq!(said(&mut nodes, "NDATA", &payload(2, vec![count])).0, [expected]);
    let temp = metric("", 1, 0, MetricValue::Float(2.5));
    assert_eq!(said(&mut nodes, "DDATA", &payload(3, vec![temp])).0, [good(2, Value::Float(2.5))]);
    // By name, as nodes without aliases do; and what we have no tag for.
    let named = wire::Metric { alias: None, ..metric("Count", 0, 0, MetricValue::Long(9)) };
    let other = metric("Other", 9, INT8, MetricValue::Int(1));
    assert_eq!(said(&mut nodes, "NDATA", &payload(4, vec![named, other])).0, [good(0, Value::Int(9))]);
    assert!(nodes.requests(NOW).is_empty(), "nothing is missing");
}

#[test]
fn a_whole_number_of_an_unknown_type_is_no_value() {
    let mut nodes = nodes(true);
    // -5 as Int16, by name, of a node that nobody has heard of.
    let minus_five = || wire::Metric { alias: None, ..metric("Count", 0, 0, int(0xFFFF_FFFB)) };
    let others = wire::Metric { name: Some("Other".into()), ..minus_five() };
    let state = metric("State", 2, 0, MetricValue::Text("run".into()));
    let told = said(&mut nodes, "NDATA", &payload(1, vec![minus_five(), others.clone(), state]));
    assert_eq!(told, (vec![good(1, Value::Text("run".into()))], vec![(NOW, 1, UNTYPED)]), "text is text");
    assert_eq!(nodes.requests(NOW).len(), 1);
    let birth = payload(0, vec![metric("Count", 1, INT16, int(0xFFFB)), metric("State", 2, 0, int(7))]);
    assert_eq!(said(&mut nodes, "NBIRTH", &birth), (vec![good(0, Value::Int(-5))], vec![(NOW, 1, UNTYPED)]));
    assert_eq!(
        said(&mut nodes, "NDATA", &payload(1, vec![minus_five(), others])),
        (vec![good(0, Value::Int(-5))], vec![])
    );
    // A birth that says no type would not say it the next time.
    let typeless = payload(2, vec![metric("", 2, 0, int(7))]);
    assert_eq!(said(&mut nodes, "NDATA", &typeless), (vec![], vec![(NOW, 1, UNTYPED)]));
    assert_eq!(nodes.pause(NOW), None);
}

#[test]
fn deaths_make_their_own_tags_bad() {
    let mut nodes = born();
    said(&mut nodes, "DBIRTH", &payload(1, vec![metric("Temp", 1, FLOAT, MetricValue::Float(1.5))]));
    assert_eq!(said(&mut nodes, "DDEATH", &payload(2, vec![])).0, [gone(2, Time::from_millis(1_000))]);
    // The will of an older connection comes late: the node is alive.
    let death =
        |bd_seq| Payload { seq: None, ..payload(0, vec![metric("bdSeq", 0, INT64, MetricValue::Long(bd_seq))]) };
    assert!(said(&mut nodes, "NDEATH", &death(2)).0.is_empty());
    // A will comes when the broker has waited long enough: what was heard last is the last proof of life.
    let later = NOW + Duration::from_secs(45);
    let gone = |id| Reading { received_time: later, ..gone(id, NOW) };
    assert_eq!(said_at(&mut nodes, "NDEATH", &death(3), later).0, [gone(0), gone(1), gone(2)]);
    assert!(said_at(&mut nodes, "NDEATH", &death(3), later).0.is_empty(), "it is dead already");
    // And aliases of before mean nothing.
    let (readings, lost) = said(&mut nodes, "NDATA", &payload(3, vec![metric("", 1, 0, MetricValue::Long(8))]));
    assert_eq!((readings, lost), (vec![], vec![(NOW, 1, ALIAS)]));
}

#[test]
fn what_a_node_says_of_its_values_is_kept() {
    let one = |change: &dyn Fn(&mut wire::Metric)| {
        let mut metric = metric("Count", 1, INT32, MetricValue::Int(5));
        change(&mut metric);
        said(&mut born(), "NDATA", &payload(1, vec![metric])).0.remove(0)
    };
    let quality = |code: u32| {
        move |metric: &mut wire::Metric| {
            let value = PropertyValue { datatype: Some(INT32), value: Some(PropertyNumber::Int(code)) };
            metric.properties = Some(PropertySet { keys: vec!["Quality".into()], values: vec![value] });
        }
    };
    let own = Status::Own;
    assert_eq!(one(&quality(192)).validity, Validity::Good);
    assert_eq!(one(&quality(0)).validity, Validity::Bad(own(OwnStatus::Unspecified)));
    assert_eq!(one(&quality(0)).value, Value::Null);
    for (code, validity) in [
        (64, Validity::Uncertain(own(OwnStatus::Unspecified))),
        (0x0096_0000, Validity::Good),
        (0x4000_0100, Validity::Uncertain(own(OwnStatus::Unspecified))),
        (0x4090_0000, Validity::Uncertain(Status::Opcua(0x4090_0000))),
        (0x8000_0200, Validity::Bad(own(OwnStatus::Unspecified))),
        (0x8031_0000, Validity::Bad(Status::Opcua(0x8031_0000))),
    ] {
        assert_eq!(one(&quality(code)).validity, validity, "{code:#010X}");
    }
    // -2147483136, as Ignition has it, in 64 bits.
    let long = |metric: &mut wire::Metric| {
        let value = PropertyNumber::Long(0xFFFF_FFFF_8000_0200);
        let value = PropertyValue { datatype: Some(INT64), value: Some(value) };
        metric.properties = Some(PropertySet { keys: vec!["quality".into()], values: vec![value] });
    };
    assert_eq!(one(&long).validity, Validity::Bad(own(OwnStatus::Unspecified)));
    let stale = one(&quality(500));
    assert_eq!((stale.validity, stale.value), (Validity::Uncertain(own(OwnStatus::Stale)), Value::Int(5)));
    let null = one(&|metric| metric.is_null = Some(true));
    assert_eq!(null.validity, Validity::Bad(own(OwnStatus::NoData)));
    let told = one(&|metric| (metric.is_historical, metric.timestamp) = (Some(true), Some(5)));
    let then = Reading { source_time: Time::from_millis(5), ..good(0, Value::Int(5)) };
    assert_eq!(told, then.from_history(), "it says nothing of now");
    let far = one(&|metric| metric.timestamp = Some(u64::MAX));
    assert_eq!(far.source_time, Time::from_millis(1_000), "no clock has such a time: the payload's counts");
    let zero = one(&|metric| metric.timestamp = Some(0));
    assert_eq!(zero.source_time, Time::from_millis(1_000), "nor this one");
}

#[test]
fn every_type_is_a_value_or_a_wrong_type() {
    let value = |kind: u32, value: MetricValue| value::value(&metric("m", 1, kind, value), (kind > 0).then_some(kind));
    let long = MetricValue::Long;
    for (kind, raw, expected) in [
        (INT8, int(0xFF), Value::Int(-1)),
        (INT8, int(0xFFFF_FFFF), Value::Int(-1)),
        (INT16, int(0xFFFE), Value::Int(-2)),
        (INT32, int(0x8000_0000), Value::Int(i64::from(i32::MIN))),
        (INT64, long(u64::MAX), Value::Int(-1)),
        (UINT8, int(255), Value::Int(255)),
        (7, long(0xFFFF_FFFF), Value::Int(0xFFFF_FFFF)),
        (UINT64, long(u64::MAX), Value::Float(18_446_744_073_709_551_615.0)),
        (DOUBLE, MetricValue::Double(0.1), Value::Float(0.1)),
        (BOOLEAN, MetricValue::Boolean(true), Value::Bool(true)),
        (TEXT, MetricValue::Text("a".into()), Value::Text("a".into())),
        (UUID, MetricValue::Text("u".into()), Value::Text("u".into())),
        (DATE_TIME, long(1_000), Value::Int(1_000)),
        (0, MetricValue::Double(0.1), Value::Float(0.1)),
        (0, MetricValue::Boolean(true), Value::Bool(true)),
    ] {
        assert_eq!(value(kind, raw), Some(Ok(expected)), "{kind}");
    }
    for (kind, raw) in [
        (16, MetricValue::DataSet(vec![])),
        (19, MetricValue::Template(vec![1])),
        (17, MetricValue::Bytes(vec![1])),
        (22, MetricValue::Bytes(vec![1])),
        (INT32, MetricValue::Text("5".into())),
        (STRING, int(5)),
        (FLOAT, int(5)),
        (0, MetricValue::Template(vec![])),
    ] {
        assert_eq!(value(kind, raw), Some(Err(OwnStatus::WrongType)), "{kind}");
    }
    assert_eq!((value(0, int(7)), value(0, long(7))), (None, None), "nobody said whether it has a sign");
}

#[test]
fn other_topics_are_none_of_a_nodes_and_garbage_is_told() {
    let mut nodes = nodes(true);
    for topic in ["spBv1.0/STATE/host", "spBv1.0/g/NCMD/n", "spBv1.0/g/DCMD/n/d", "spBv1.0/g/NBIRTH/n/d", "x/g/NDATA/n"]
    {
        assert!(nodes.hear(topic, b"{}", NOW, &mut Vec::new()).expect("no payload of a node").is_none(), "{topic}");
    }
    assert_eq!(nodes.hear("spBv1.0/g/NDATA/n", b"{}", NOW, &mut Vec::new()).map(|_| ()), Err(NO_PAYLOAD));
    assert_eq!(
        state("scada", true, Time::from_millis(17)),
        ("spBv1.0/STATE/scada".to_owned(), br#"{"online":true,"timestamp":17}"#.to_vec())
    );
}

fn int(bits: u32) -> MetricValue {
    MetricValue::Int(bits)
}

fn on() -> MetricValue {
    MetricValue::Boolean(true)
}
