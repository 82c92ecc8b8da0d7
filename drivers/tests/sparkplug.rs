//! A Sparkplug host asks for births over a real session: in time, not too often, and until they come.

mod fieldbus;

use std::time::Duration;

use fieldbus::{Link, of};
use gemba_drivers::mqtt::sparkplug::{datatype, wire};
use gemba_drivers::mqtt::{Client, Config, Fields, Metric, Payload, Topic, TopicTag, Version};
use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_drivers::{OwnStatus, Reading, Status, TagId, Validity, Value};
use prost::Message;

/// A node whose name no topic says: a connection does not ask it by itself.
const ANY_NODE: &str = "spBv1.0/Plant/#";
const COMMAND: &str = "spBv1.0/Plant/NCMD/Oven";

fn client(keeper: &Keeper, version: Version) -> Client {
    let place = Metric { name: "Count".into(), device: None };
    let tags = vec![TopicTag { id: TagId(0), name: "count".into(), place, required: false, numeric: true }];
    let payload = Payload::Sparkplug(Fields { time: None, tags });
    let topics = vec![Topic { station: "oven-1".into(), filter: ANY_NODE.to_owned(), qos: 1, payload }];
    let timeout = Duration::from_secs(10);
    Client::new(Config { version, timeout, rebirth: true, topics, ..Config::new(keeper.endpoint(), "gemba-smt-1") })
}

/// A birth has names and types; data has neither.
fn message(seq: u64, alias: u64, value: u32, birth: bool) -> Vec<u8> {
    let metric = wire::Metric {
        name: birth.then(|| "Count".to_owned()),
        alias: Some(alias),
        datatype: birth.then_some(datatype::INT32),
        value: Some(wire::MetricValue::Int(value)),
        ..wire::Metric::default()
    };
    wire::Payload { timestamp: Some(1_000 + seq), seq: Some(seq), metrics: vec![metric] }.encode_to_vec()
}

/// What the link said that the message meant.
async fn told(link: &mut Link, keeper: &Keeper, kind: &str, payload: Vec<u8>) -> Reading {
    keeper.publish(&format!("spBv1.0/Plant/{kind}/Oven"), payload);
    of(&link.next().await, 0)
}

/// Waits until the node was asked for a birth so often.
async fn asked(keeper: &Keeper, times: usize) {
    let commands = |state: &State| {
        let topic = |body: &[u8]| {
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            String::from_utf8_lossy(&body[2..2 + length]).into_owned()
        };
        state.heard.iter().filter(|(kind, body)| kind >> 4 == 3 && topic(body) == COMMAND).count()
    };
    let state = tokio::time::timeout(fieldbus::DEADLINE, keeper.until(|state| commands(state) >= times)).await;
    assert_eq!(commands(&state.expect("a command in time")), times);
}

async fn a_gap_is_mended_by_a_birth(version: Version) {
    let keeper = Keeper::start().await.expect("a broker");
    let mut link = Link::start(client(&keeper, version));
    let good =
        |reading: Reading, value| assert_eq!((reading.validity, reading.value), (Validity::Good, Value::Int(value)));
    good(told(&mut link, &keeper, "NBIRTH", message(0, 1, 7, true)).await, 7);
    good(told(&mut link, &keeper, "NDATA", message(1, 1, 8, false)).await, 8);

    let doubted = told(&mut link, &keeper, "NDATA", message(140, 1, 9, false)).await;
    assert_eq!(doubted.validity, Validity::Uncertain(Status::Own(OwnStatus::Unborn)));
    asked(&keeper, 1).await;
    good(told(&mut link, &keeper, "NBIRTH", message(0, 5, 0xFFFF_FFFB, true)).await, -5);
    good(told(&mut link, &keeper, "NDATA", message(1, 5, 11, false)).await, 11);

    // Another gap, too soon to ask again. Nothing comes that could remind us, and yet the node is asked.
    told(&mut link, &keeper, "NDATA", message(3, 5, 12, false)).await;
    asked(&keeper, 2).await;
    good(told(&mut link, &keeper, "NBIRTH", message(0, 1, 13, true)).await, 13);
    good(told(&mut link, &keeper, "NDATA", message(1, 1, 14, false)).await, 14);
}

#[tokio::test]
async fn a_gap_is_mended_by_a_birth_in_both_versions() {
    tokio::join!(a_gap_is_mended_by_a_birth(Version::V311), a_gap_is_mended_by_a_birth(Version::V5));
}
