//! What payloads come to.

use serde_json_path::JsonPath;

use super::config::{Column, ColumnAt, TimeFormat};
use super::*;
use crate::mqtt::{Kind, Payload};
use crate::{Validity, Value};

const NOW: Time = Time(1_000);

fn at<P>(id: u32, place: P) -> TopicTag<P> {
    TopicTag { id: TagId(id), name: format!("tag-{id}").into(), place, required: false, numeric: false }
}

fn tag(id: u32, path: &str) -> TopicTag<JsonPath> {
    at(id, path.parse().expect(path))
}

fn of(payload: Payload) -> config::Topic {
    config::Topic { station: "oven-1".into(), filter: "fab/oven".to_owned(), qos: 1, payload }
}

fn topic(filter: &str, tags: Vec<TopicTag<JsonPath>>) -> config::Topic {
    config::Topic { filter: filter.to_owned(), ..of(Payload::Json(Fields { time: None, tags })) }
}

/// The tags of a JSON topic.
fn tags(topic: &mut config::Topic) -> &mut Fields<JsonPath> {
    let Payload::Json(fields) = &mut topic.payload else { panic!("JSON") };
    fields
}

fn oven() -> config::Topic {
    let count = TopicTag { numeric: true, ..tag(1, "$.count") };
    topic("fab/oven", vec![tag(0, "$.state"), count, tag(2, "$.zones[0].temp")])
}

fn read(topics: Vec<config::Topic>, payload: &str) -> Batch {
    Payloads::new(topics, 100, false).read("fab/oven", payload.as_bytes(), NOW).expect("asked for")
}

fn good(id: u32, value: Value) -> Reading {
    Reading::good(TagId(id), value, NOW, NOW)
}

fn bad(id: u32, status: OwnStatus) -> Reading {
    Reading::bad(TagId(id), Status::Own(status), NOW, NOW)
}

fn reasons(batch: &Batch) -> Vec<(&str, u64, &str)> {
    batch.losses.iter().map(|loss| (&*loss.source, loss.count, &*loss.reason)).collect()
}

#[test]
fn a_payload_is_one_batch() {
    let batch = read(vec![oven()], r#"{"state":"running","count":7,"zones":[{"temp":251.5}]}"#);
    let expected = [good(0, Value::Text("running".into())), good(1, Value::Int(7)), good(2, Value::Float(251.5))];
    assert_eq!(batch.readings, expected);
    assert!(batch.losses.is_empty() && batch.receipt.is_none());
}

#[test]
fn what_is_not_there_stays_as_it_was_unless_required() {
    let mut oven = oven();
    assert_eq!(read(vec![oven.clone()], r#"{"count":7}"#).readings, [good(1, Value::Int(7))]);
    tags(&mut oven).tags[0].required = true;
    let batch = read(vec![oven.clone()], r#"{"count":7}"#);
    assert_eq!(batch.readings, [bad(0, OwnStatus::PathNotFound), good(1, Value::Int(7))]);
    assert!(batch.losses.is_empty());

    // Nothing of the topic: one loss, and what is required stays as it was too.
    let batch = read(vec![oven.clone(), oven.clone()], r#"{"other":7}"#);
    assert!(batch.readings.is_empty(), "{batch:?}");
    assert_eq!(reasons(&batch), [("oven-1", 1, "no tag of the topic is in the payload")]);

    // Unreadable: nobody knows what it held.
    let batch = read(vec![oven], "{");
    assert!(batch.readings.is_empty());
    assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")]);
}

#[test]
fn what_cannot_be_read_is_one_loss_and_leaves_the_tags() {
    let deep = "[".repeat(90);
    for payload in ["", "{\"state\":", "running", "\u{0}", "{\"count\":1e999}", deep.as_str(), "{} {}"] {
        let batch = read(vec![oven(), oven()], payload);
        assert!(batch.readings.is_empty(), "{payload}");
        assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")], "{payload}");
        assert_eq!((batch.losses[0].from, batch.losses[0].to), (NOW, NOW));
    }
    for payload in ["{}", "[]", "7", "null", r#"{"zones":[]}"#] {
        let batch = read(vec![oven()], payload);
        assert!(batch.readings.is_empty(), "{payload}");
        assert_eq!(reasons(&batch), [("oven-1", 1, "no tag of the topic is in the payload")], "{payload}");
    }
    // As deep as a stack would not survive.
    let bomb = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let batch = Payloads::new(vec![oven()], 1 << 20, false).read("fab/oven", bomb.as_bytes(), NOW).expect("asked for");
    assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")]);
    let batch =
        Payloads::new(vec![oven()], 100, false).read("fab/oven", b"{\"state\":\"\xff\"}", NOW).expect("asked for");
    assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is not JSON")], "not UTF-8");
    let large = format!(r#"{{"count":7,"pad":"{}"}}"#, "x".repeat(100));
    let batch = read(vec![oven()], &large);
    assert!(batch.readings.is_empty());
    assert_eq!(reasons(&batch), [("oven-1", 1, "the payload is larger than max_payload")]);
}

#[test]
fn a_value_of_the_wrong_type_is_bad_beside_good_ones() {
    for wrong in ["null", "[]", "{}", "\"7\""] {
        let batch = read(vec![oven()], &format!(r#"{{"state":true,"count":{wrong}}}"#));
        let expected = [good(0, Value::Bool(true)), bad(1, OwnStatus::WrongType)];
        assert_eq!(batch.readings, expected, "{wrong}");
        assert!(batch.losses.is_empty(), "it was there");
    }
}

#[test]
fn numbers_keep_what_they_are() {
    let one = |payload: &str| read(vec![topic("fab/oven", vec![tag(0, "$")])], payload).readings[0].value.clone();
    assert_eq!(one("9007199254740993"), Value::Int(9_007_199_254_740_993));
    assert_eq!(one("-9223372036854775808"), Value::Int(i64::MIN));
    assert_eq!(one("18446744073709551615"), Value::Float(18_446_744_073_709_551_615.0));
    assert_eq!(one("1.0"), Value::Float(1.0));
    assert_eq!(one("1e3"), Value::Float(1000.0));
}

#[test]
fn stations_share_a_payload_and_only_one_that_nobody_can_use_is_lost() {
    let left = topic("fab/+", vec![tag(0, "$.left")]);
    let right = topic("fab/oven", vec![tag(1, "$.right")]);
    let batch = read(vec![left.clone(), right.clone()], r#"{"left":1,"right":2}"#);
    assert_eq!(batch.readings.len(), 2);
    let batch = read(vec![left.clone(), right.clone()], r#"{"left":1}"#);
    assert_eq!((batch.readings, batch.losses), (vec![good(0, Value::Int(1))], vec![]));
    assert_eq!(read(vec![left, right], "{}").losses.len(), 1);
}

#[test]
fn the_payloads_own_time_counts() {
    for (format, written, nanos) in [
        (TimeFormat::UnixS, "1794556800", 1_794_556_800_000_000_000),
        (TimeFormat::UnixS, "1794556800.123456", 1_794_556_800_123_456_000),
        (TimeFormat::UnixMs, "1794556800123", 1_794_556_800_123_000_000),
        (TimeFormat::UnixMs, "1794556800123.5", 1_794_556_800_123_500_000),
        (TimeFormat::UnixUs, "1794556800123456", 1_794_556_800_123_456_000),
        (TimeFormat::Rfc3339, "\"2026-11-13T08:00:00.123456789Z\"", 1_794_556_800_123_456_789),
        (TimeFormat::Rfc3339, "\"2026-11-13T09:00:00+01:00\"", 1_794_556_800_000_000_000),
    ] {
        let mut oven = oven();
        tags(&mut oven).time = Some(SourceTime { place: "$.t".parse().expect("a path"), format });
        let batch = read(vec![oven], &format!(r#"{{"count":7,"t":{written}}}"#));
        assert_eq!(batch.readings, [Reading::good(TagId(1), Value::Int(7), Time(nanos), NOW)], "{written}");
    }
}

#[test]
fn a_time_that_cannot_be_read_leaves_the_value_in_doubt() {
    for (format, payload) in [
        (TimeFormat::UnixMs, r#"{"count":7}"#),
        (TimeFormat::UnixMs, r#"{"count":7,"t":"1794556800123"}"#),
        (TimeFormat::UnixMs, r#"{"count":7,"t":null}"#),
        (TimeFormat::UnixS, r#"{"count":7,"t":9223372036854775807}"#),
        (TimeFormat::UnixS, r#"{"count":7,"t":1e300}"#),
        (TimeFormat::Rfc3339, r#"{"count":7,"t":"yesterday"}"#),
        (TimeFormat::Rfc3339, r#"{"count":7,"t":1794556800}"#),
    ] {
        let mut oven = oven();
        tags(&mut oven).time = Some(SourceTime { place: "$.t".parse().expect("a path"), format });
        let batch = read(vec![oven], payload);
        let doubtful = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
        assert_eq!(batch.readings, [Reading { validity: doubtful, ..good(1, Value::Int(7)) }], "{payload}");
        assert!(batch.losses.is_empty());
    }
}

#[test]
fn a_shared_subscription_is_matched_by_its_own_filter() {
    let mut shared = Payloads::new(vec![topic("$share/g/fab/+", vec![tag(0, "$")])], 100, false);
    assert!(shared.read("fab/oven", b"1", NOW).is_some());
    assert!(shared.read("elsewhere", b"1", NOW).is_none());
}

#[test]
fn each_filter_is_subscribed_once_and_each_tag_listed_once() {
    let twice = topic("b", vec![tag(0, "$.x"), tag(9, "$.y")]);
    let payloads = Payloads::new(
        vec![config::Topic { qos: 0, ..topic("a", vec![tag(0, "$.x")]) }, topic("a", vec![tag(1, "$.x")]), twice],
        100,
        false,
    );
    assert_eq!(payloads.filters(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!(payloads.tags(), [TagId(0), TagId(1), TagId(9)]);
    assert_eq!(payloads.tags_of(|filter| filter == "b"), [TagId(9)], "tag 0 still comes by another topic");
}

fn bytes(payload: Payload, bytes: &[u8]) -> Batch {
    Payloads::new(vec![of(payload)], 1_000, false).read("fab/oven", bytes, NOW).expect("asked for")
}

fn column(id: u32, name: &str, text: Text) -> TopicTag<Column> {
    at(id, Column { at: ColumnAt::Name(name.into()), text })
}

fn csv(time: Option<TimeFormat>) -> Payload {
    let place = Column { at: ColumnAt::Name("t".into()), text: Text::Text };
    let time = time.map(|format| SourceTime { place, format });
    let count = TopicTag { numeric: true, ..column(1, "count", Text::Any) };
    let tags = vec![column(0, "serial", Text::Text), count, at(2, Column { at: ColumnAt::Index(3), text: Text::Any })];
    Payload::Csv { separator: b',', header: true, fields: Fields { time, tags } }
}

#[test]
fn rows_are_readings_in_order_with_their_own_times() {
    let text = "t,serial,count,temp\r\n1,0042,7,21.5\r\n2,0043,,22\r\n3,,9,\r\n";
    let batch = bytes(csv(Some(TimeFormat::UnixS)), text.as_bytes());
    let reading = |id: u32, value: Value, s: i64| Reading::good(TagId(id), value, Time(s * 1_000_000_000), NOW);
    let expected = [
        reading(0, Value::Text("0042".into()), 1),
        reading(1, Value::Int(7), 1),
        reading(2, Value::Float(21.5), 1),
        reading(0, Value::Text("0043".into()), 2),
        reading(2, Value::Int(22), 2),
        reading(1, Value::Int(9), 3),
    ];
    assert_eq!(batch.readings, expected);
    assert!(batch.losses.is_empty());
    // Without a header, by place; and a required column that is empty.
    let mut tag = at(0, Column { at: ColumnAt::Index(1), text: Text::Any });
    tag.required = true;
    let fields = Fields { time: None, tags: vec![at(1, Column { at: ColumnAt::Index(0), text: Text::Any }), tag] };
    let batch = bytes(Payload::Csv { separator: b';', header: false, fields }, b"1,5;2\n1;\n");
    let expected = [
        good(1, Value::Text("1,5".into())),
        good(0, Value::Int(2)),
        good(1, Value::Int(1)),
        bad(0, OwnStatus::PathNotFound),
    ];
    assert_eq!(batch.readings, expected);
}

#[test]
fn rows_that_are_none_are_losses() {
    for (text, reason) in [
        (&b"t,serial,count,temp\n1,\"2,3\n"[..], "the payload is not CSV"),
        (b"a\"b\n", "the payload is not CSV"),
        (b"t,serial,count,temp\n1,\xFF,3,4\n", "the payload is not text"),
        (b"", "no tag of the topic is in the payload"),
        (b"t,serial,count,temp\n", "no tag of the topic is in the payload"),
        (b"x,y\n1,2\n", "no tag of the topic is in the payload"),
    ] {
        let batch = bytes(csv(None), text);
        assert!(batch.readings.is_empty(), "{reason}");
        assert_eq!(reasons(&batch), [("oven-1", 1, reason)]);
    }
    // A ragged row says nothing about its neighbours.
    let batch = bytes(csv(None), b"t,serial,count,temp\n1,2,3\n1,A,3,4\n1,2,3,4,5\n");
    assert_eq!(batch.readings, [good(0, Value::Text("A".into())), good(1, Value::Int(3)), good(2, Value::Int(4))]);
    assert_eq!(reasons(&batch), [("oven-1", 2, "a row has not as many fields as the first")]);
    // A wrong type and a time that is none.
    let batch = bytes(csv(Some(TimeFormat::UnixMs)), b"t,serial,count,temp\nnow,A,many,1e999\n");
    assert_eq!(batch.readings[1..], [bad(1, OwnStatus::WrongType), bad(2, OwnStatus::NotFinite)]);
    assert_eq!(batch.readings[0].validity, Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime)));
}

#[test]
fn a_plain_payload_is_one_value() {
    let plain = |text: Text, numeric: bool, payload: &[u8]| {
        bytes(Payload::Plain(Fields { time: None, tags: vec![TopicTag { numeric, ..at(0, text) }] }), payload)
    };
    assert_eq!(plain(Text::Any, false, b"21.5\n").readings, [good(0, Value::Float(21.5))]);
    assert_eq!(plain(Text::Any, false, b"running").readings, [good(0, Value::Text("running".into()))]);
    assert_eq!(plain(Text::Text, false, b"").readings, [good(0, Value::Text("".into()))]);
    let taken_back = plain(Text::Any, true, b"");
    assert!(taken_back.readings.is_empty() && taken_back.losses.is_empty(), "{taken_back:?}");
    assert_eq!(plain(Text::Any, true, b"21 pcs").readings, [bad(0, OwnStatus::WrongType)]);
    assert_eq!(plain(Text::Any, true, &[b'9'; 400]).readings, [bad(0, OwnStatus::NotFinite)]);
    for (payload, reason) in
        [(&b"\xFF"[..], "the payload is not text"), (b" \n", "no tag of the topic is in the payload")]
    {
        assert_eq!(reasons(&plain(Text::Any, false, payload)), [("oven-1", 1, reason)]);
    }
}

#[test]
fn a_layout_that_is_cut_short_is_bad_where_it_ends() {
    let field = |offset: usize, kind: Kind| Field { offset, kind, little: false };
    let time = Some(SourceTime { place: field(0, Kind::Unsigned(4)), format: TimeFormat::UnixS });
    let tags = vec![at(0, field(4, Kind::Unsigned(2))), at(1, field(6, Kind::F32))];
    let layout = Payload::Binary(Fields { time, tags });
    let payload = [&[0, 0, 0, 9, 1, 2][..], &1.5_f32.to_be_bytes()].concat();
    let at_9 = |id: u32, value: Value| Reading::good(TagId(id), value, Time(9_000_000_000), NOW);
    let whole = bytes(layout.clone(), &payload);
    assert_eq!(whole.readings, [at_9(0, Value::Int(258)), at_9(1, Value::Float(1.5))]);
    let short = bytes(layout.clone(), &payload[..8]);
    assert_eq!(short.readings[0], at_9(0, Value::Int(258)));
    assert_eq!(short.readings[1].validity, Validity::Bad(Status::Own(OwnStatus::WrongLength)));
    for nothing in [&payload[..5], b""] {
        let batch = bytes(layout.clone(), nothing);
        assert_eq!(reasons(&batch), [("oven-1", 1, "no tag of the topic is in the payload")]);
        assert!(batch.readings.is_empty());
    }
    let nan = [&[0, 0, 0, 9, 1, 2][..], &f32::NAN.to_be_bytes()].concat();
    assert_eq!(bytes(layout, &nan).readings[1].validity, Validity::Bad(Status::Own(OwnStatus::NotFinite)));
}

#[test]
fn topics_name_stations_and_tags() {
    let station = |name: &str, first: u32, filter: &str| config::Topic {
        station: name.into(),
        filter: filter.to_owned(),
        qos: 1,
        payload: Payload::Plain(Fields { time: None, tags: vec![at(first, Text::Any), at(first + 1, Text::Any)] }),
    };
    for filter in ["fab/{station}/{tag}", "$share/g/fab/{station}/{tag}", "fab/{station}/{tag}/#", "{station}/+/{tag}"]
    {
        let mut all = Payloads::new(vec![station("oven-1", 0, filter), station("oven-2", 2, filter)], 100, false);
        let filters = all.filters();
        let [(subscribed, 1)] = filters.as_slice() else { panic!("one subscription for both: {filters:?}") };
        assert_eq!(*subscribed, filter.replace("{station}", "+").replace("{tag}", "+"));
        let mut said = |station: &str, tag: &str| {
            let own = unshared(filter).replace(['#', '+'], "x");
            let batch = all.read(&own.replace("{station}", station).replace("{tag}", tag), b"7", NOW);
            batch.map(|batch| batch.readings)
        };
        assert_eq!(said("oven-1", "tag-1"), Some(vec![good(1, Value::Int(7))]), "{filter}");
        assert_eq!(said("oven-2", "tag-2"), Some(vec![good(2, Value::Int(7))]), "{filter}");
        assert_eq!(said("oven-2", "tag-1"), None, "{filter}: no tag of that station");
        assert_eq!(said("oven-3", "tag-1"), None, "{filter}: no station of ours");
    }
    // One station takes no more than its own.
    let alone = Payloads::new(vec![station("oven-1", 0, "fab/{station}/{tag}")], 100, false);
    assert_eq!(alone.filters(), [("fab/oven-1/+".to_owned(), 1)]);
    assert_eq!(alone.tags_of(|filter| filter == "fab/oven-1/+"), [TagId(0), TagId(1)]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let place = |name: &str| Metric { name: name.into(), device: None };
        let kinds = [Kind::Bit(7), Kind::Signed(4), Kind::F64, Kind::Text(9)];
        let tags = (0..).zip(kinds).map(|(id, kind)| at(id, Field { offset: id as usize, kind, little: true }));
        let all = vec![
            oven(),
            of(csv(Some(TimeFormat::Rfc3339))),
            of(Payload::Plain(Fields { time: None, tags: vec![at(8, Text::Any)] })),
            of(Payload::Binary(Fields { time: None, tags: tags.collect() })),
            config::Topic {
                filter: "spBv1.0/g/+/n/#".to_owned(),
                ..of(Payload::Sparkplug(Fields { time: None, tags: vec![at(9, place("m"))] }))
            },
        ];
        let mut all = Payloads::new(all, 1_000, true);
        for topic in ["fab/oven", "spBv1.0/g/NBIRTH/n", "spBv1.0/g/DDATA/n/d", "spBv1.0/g/NDEATH/n"] {
            let batch = all.read(topic, &payload, NOW);
            proptest::prop_assert!(batch.is_some());
        }
    }
}
