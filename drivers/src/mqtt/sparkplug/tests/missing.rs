//! What is missing, late or twice, and whom it makes us ask.

use proptest::prelude::*;

use super::*;

#[test]
fn a_gap_is_a_loss_and_a_new_birth_is_asked_for_once() {
    let mut nodes = born();
    let data = |seq: u64| payload(seq, vec![metric("", 1, 0, MetricValue::Long(seq))]);
    for seq in 1..300 {
        assert!(said(&mut nodes, "NDATA", &data(seq % 256)).1.is_empty(), "{seq}: from 255 it goes on with 0");
    }
    // 44 to 46 are missing, and nobody knows whether a birth was among them: what the alias says is in doubt.
    let doubted =
        |value| Reading { validity: Validity::Uncertain(Status::Own(OwnStatus::Unborn)), ..good(0, Value::Int(value)) };
    let (readings, lost) = said(&mut nodes, "NDATA", &data(47));
    assert_eq!((readings, lost), (vec![doubted(47)], vec![(NOW, 3, GAP)]));
    let requests = nodes.requests(NOW);
    let [(topic, request)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(topic, "spBv1.0/Plant/NCMD/Oven");
    let request = Payload::decode(request.as_slice()).expect("a payload");
    assert_eq!(request.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!((request.metrics[0].datatype, request.seq), (Some(BOOLEAN), None));
    assert_eq!(request.metrics[0].value, Some(MetricValue::Boolean(true)));
    // One that comes late is no gap, and says nothing of now; one that comes twice says nothing at all.
    assert_eq!(said(&mut nodes, "NDATA", &data(45)), (vec![doubted(45).from_history()], vec![]));
    assert_eq!(said(&mut nodes, "NDATA", &data(45)), (vec![], vec![]));
    // Another gap is a loss, but the node was asked just now.
    assert_eq!(said(&mut nodes, "NDATA", &data(49)).1, [(NOW, 1, GAP)]);
    assert!(nodes.requests(NOW).is_empty());
    // What has a name and a type of its own is in no doubt, and after the birth nothing is.
    let named = metric("Count", 1, UINT64, MetricValue::Long(50));
    assert_eq!(said(&mut nodes, "NDATA", &payload(50, vec![named])).0, [good(0, Value::Int(50))]);
    said(&mut nodes, "NBIRTH", &birth(3));
    assert_eq!(said(&mut nodes, "NDATA", &data(1)), (vec![good(0, Value::Int(1))], vec![]));
}

#[test]
fn where_nobody_may_ask_for_births_aliases_stand_after_a_gap() {
    let mut nodes = nodes(false);
    said(&mut nodes, "NBIRTH", &birth(3));
    let data = payload(9, vec![metric("", 1, 0, MetricValue::Long(9))]);
    assert_eq!(said(&mut nodes, "NDATA", &data), (vec![good(0, Value::Int(9))], vec![(NOW, 8, GAP)]));
}

#[test]
fn a_gap_too_soon_after_a_request_is_asked_about_later_and_again_until_the_node_is_born() {
    let mut nodes = born();
    let asked = |nodes: &mut Nodes, after: Duration| nodes.requests(NOW + after).len();
    let second = Duration::from_secs;
    let gap = |nodes: &mut Nodes, seq| said(nodes, "NDATA", &payload(seq, vec![])).1.len();
    assert_eq!(nodes.pause(NOW), None);
    assert_eq!(gap(&mut nodes, 5), 1);
    assert_eq!((nodes.pause(NOW), asked(&mut nodes, second(0))), (Some(second(0)), 1));
    said(&mut nodes, "NBIRTH", &birth(3));
    assert_eq!(nodes.pause(NOW), None, "it answered");
    assert_eq!(gap(&mut nodes, 5), 1);
    assert_eq!(nodes.pause(NOW + second(5)), Some(second(5)), "not yet");
    assert_eq!(asked(&mut nodes, second(9)), 0);
    for after in [10, 20, 40, 80, 160, 320, 620, 920] {
        assert_eq!(asked(&mut nodes, second(after - 1)), 0, "{after} s");
        assert_eq!(asked(&mut nodes, second(after)), 1, "{after} s");
    }
    assert_eq!(nodes.pause(NOW), Some(second(0)), "a clock that was set back does not silence us");
    said(&mut nodes, "NBIRTH", &birth(3));
    assert_eq!(nodes.pause(NOW), None);
    // The dead are not asked, and on a new connection nobody waits.
    gap(&mut nodes, 5);
    said(&mut nodes, "NDEATH", &payload(0, vec![]));
    assert_eq!(nodes.pause(NOW), None);
    nodes.greet(["Plant/Oven"].into_iter(), NOW);
    assert_eq!(asked(&mut nodes, second(0)), 1);
}

#[test]
fn a_connection_asks_who_is_named_and_who_told_something() {
    let mut nodes = born();
    nodes.greet(["Plant/Press"].into_iter(), NOW);
    let topics: Vec<_> = nodes.requests(NOW).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["spBv1.0/Plant/NCMD/Oven", "spBv1.0/Plant/NCMD/Press"]);
}

#[test]
fn a_device_without_a_birth_is_asked_for() {
    let mut nodes = born();
    let by_name = metric("Temp", 1, FLOAT, MetricValue::Float(1.5));
    assert_eq!(said(&mut nodes, "DDATA", &payload(1, vec![by_name])).0, [good(2, Value::Float(1.5))]);
    assert_eq!(nodes.requests(NOW).len(), 1);
}

#[test]
fn a_node_that_was_born_again_unheard_is_noticed_wherever_it_begins() {
    // The number of the last message, of one before, and far ahead: each with the aliases of another birth.
    for seq in [9, 3, 0, 140, 255] {
        let mut nodes = born();
        for seq in 1..10 {
            assert_eq!(said(&mut nodes, "NDATA", &payload(seq, vec![metric("", 1, 0, MetricValue::Long(seq))])).1, []);
        }
        let (readings, lost) = said(&mut nodes, "NDATA", &payload(seq, vec![metric("", 1, 0, MetricValue::Long(77))]));
        assert_eq!(readings[0].validity, Validity::Uncertain(Status::Own(OwnStatus::Unborn)), "{seq}");
        assert_eq!(lost, [(NOW, (seq + 256 - 10) % 256, GAP)]);
        assert_eq!(nodes.requests(NOW).len(), 1, "{seq}");
    }
}

#[test]
fn a_birth_that_comes_twice_forgets_no_device_and_an_answer_always_counts() {
    let mut nodes = born();
    said(&mut nodes, "DBIRTH", &payload(1, vec![metric("Temp", 1, FLOAT, MetricValue::Float(1.5))]));
    assert_eq!(said(&mut nodes, "NBIRTH", &birth(3)), (vec![], vec![]), "by another filter of ours");
    let temp = |seq| payload(seq, vec![metric("", 1, 0, MetricValue::Float(2.5))]);
    assert_eq!(said(&mut nodes, "DDATA", &temp(2)), (vec![good(2, Value::Float(2.5))], vec![]));
    said(&mut nodes, "DDATA", &temp(4));
    assert_eq!(said(&mut nodes, "NBIRTH", &birth(3)).0.len(), 2, "a node without a clock answers with the same bytes");
    assert_eq!(nodes.pause(NOW), None);
}

#[test]
fn what_is_kept_of_births_has_a_bound() {
    let mut nodes = nodes(true);
    nodes.room = Room { devices: 2, metrics: 5 };
    // Three metrics of the node, one of them ours; of its device one is ours.
    let two =
        |seq| payload(seq, vec![metric("Temp", 1, FLOAT, MetricValue::Float(1.5)), metric("b", 2, BOOLEAN, on())]);
    said(&mut nodes, "NBIRTH", &birth(3));
    assert_eq!(said(&mut nodes, "DBIRTH", &two(1)), (vec![good(2, Value::Float(1.5))], vec![]));
    assert_eq!(nodes.room, Room { devices: 0, metrics: 0 });
    // Others' aliases are known as such.
    assert_eq!(said(&mut nodes, "DDATA", &payload(2, vec![metric("", 2, 0, on())])), (vec![], vec![]));
    // A third is a loss; its values are told by name, and nobody asks for what has no room.
    let heard = |nodes: &mut Nodes, kind: &str, payload: &Payload| {
        let (mut lost, topic) = (Vec::new(), format!("spBv1.0/Plant/{kind}/Oven/Third"));
        nodes.hear(&topic, &payload.encode_to_vec(), NOW, &mut lost).expect("a payload").expect("something");
        lost
    };
    assert_eq!(heard(&mut nodes, "DBIRTH", &two(3)), [(NOW, 1, TOO_MANY)]);
    assert_eq!(heard(&mut nodes, "DDATA", &two(4)), []);
    assert_eq!(nodes.pause(NOW), None);
    // Who dies makes room, and who is born again takes no more than before.
    said(&mut nodes, "DDEATH", &payload(5, vec![]));
    assert_eq!(nodes.room, Room { devices: 1, metrics: 2 });
    let three = vec![metric("a", 1, BOOLEAN, on()), metric("b", 2, BOOLEAN, on()), metric("Temp", 3, BOOLEAN, on())];
    assert_eq!(heard(&mut nodes, "DBIRTH", &payload(6, three)), [(NOW, 1, TOO_MANY)], "one metric too many");
    assert_eq!(heard(&mut nodes, "DDATA", &payload(7, vec![metric("", 3, 0, on())])), [], "as was said");
    for _ in 0..3 {
        said(&mut nodes, "NBIRTH", &Payload { timestamp: None, ..birth(3) });
        said(&mut nodes, "NBIRTH", &birth(3));
    }
    assert_eq!(nodes.room, Room { devices: 1, metrics: 2 });
    said(&mut nodes, "NDEATH", &payload(0, vec![]));
    assert_eq!(nodes.room, Room { devices: 2, metrics: 5 });
}

#[test]
fn without_a_birth_names_count_and_aliases_are_losses() {
    for rebirth in [true, false] {
        let mut nodes = nodes(rebirth);
        let unknown = metric("", 1, 0, MetricValue::Long(8));
        let named = metric("Count", 1, UINT64, MetricValue::Long(9));
        let (readings, lost) = said(&mut nodes, "NDATA", &payload(17, vec![unknown, named]));
        assert_eq!((readings, lost), (vec![good(0, Value::Int(9))], vec![(NOW, 1, ALIAS)]));
        assert_eq!(nodes.requests(NOW).len(), usize::from(rebirth), "commands only where they are allowed");
    }
}

proptest! {
    #[test]
    fn missing_messages_are_counted_whatever_comes(drops in proptest::collection::vec(0_u64..=255, 1..10)) {
        let mut nodes = born();
        let mut sent = 0;
        let mut tell = |drop: u64, seq: &mut u64| {
            *seq = (*seq + 1 + drop) % 256;
            sent += 1;
            let lost = said(&mut nodes, "NDATA", &Payload { timestamp: Some(sent), ..payload(*seq, vec![]) }).1;
            lost.iter().map(|(_, count, _)| count).sum::<u64>()
        };
        let mut seq = 0;
        for drop in drops {
            prop_assert_eq!(tell(drop, &mut seq), drop);
            // What may still come late is not what comes next.
            for _ in 0..32 {
                prop_assert_eq!(tell(0, &mut seq), 0);
            }
        }
    }
}
