//! A Modbus bus on which something is not answered: what it costs the neighbours, and what is told meanwhile. All in the
//! test's own time.

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemba_drivers::modbus::{Client, DataType, Endpoint, Group, Table, Tag};
use gemba_drivers::sim::rtu::{Mood, RtuBus};
use gemba_drivers::survey::{Probed, Survey as _};
use gemba_drivers::{Batch, BreakerState, Status, TagId, Validity, Value};
use rig::{NO_ANSWER, Rig, config, endpoint, two};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

/// What a station without a `timeout` waits.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// Holding registers of a unit, ten times a second.
fn holding(unit: u8, first_id: u32, offsets: impl IntoIterator<Item = u16>) -> Group {
    let tag =
        |(at, id): (u16, u32)| Tag::new(TagId(id), format!("holding:{at}").parse().expect("an address"), DataType::U16);
    Group { tags: offsets.into_iter().zip(first_id..).map(tag).collect(), timeout: DEFAULT_TIMEOUT, ..two(unit, 0) }
}

fn start(groups: Vec<Group>) -> Rig {
    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = RtuBus::on(theirs);
    for group in &groups {
        bus.set(group.unit, Table::Holding, 0, &(0..1000).collect::<Vec<_>>());
    }
    bus.latency(Duration::from_millis(10));
    Rig::over(Client::over(config(endpoint(), groups), ours), bus)
}

/// The last word on each tag.
type Said = BTreeMap<u32, (Value, Validity)>;

fn note(said: &mut Said, batch: &Batch) {
    said.extend(batch.readings.iter().map(|one| (one.tag.0, (one.value.clone(), one.validity))));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nothing_answers_costs_its_own_tag_and_no_other() {
    // Four reads, a fifth of four tags of which one is not answered, and a neighbour.
    let offsets = [0, 100, 200, 300, 400, 401, 402, 403];
    let mut rig = start(vec![holding(1, 0, offsets), holding(2, 100, [0])]);
    rig.bus.ignore(1, Table::Holding, 402, true);
    let began = Instant::now();
    let (mut said, mut worst, mut last) = (Said::new(), Duration::ZERO, Instant::now());
    let settled = |said: &Said| {
        let good = (0..8).filter(|tag| said.get(tag).is_some_and(|(_, validity)| *validity == Validity::Good)).count();
        good == 7 && said.get(&6) == Some(&(Value::Null, NO_ANSWER))
    };
    while !settled(&said) {
        let batch = rig.next().await;
        assert!(batch.losses.is_empty(), "{batch:?}");
        for reading in &batch.readings {
            let fine = (4..8).contains(&reading.tag.0) || reading.validity == Validity::Good;
            assert!(fine, "only what is read with it: {reading:?}");
            if reading.tag == TagId(100) {
                worst = worst.max(last.elapsed());
                last = Instant::now();
            }
        }
        note(&mut said, &batch);
        assert!(began.elapsed() < Duration::from_secs(60), "{said:?}");
    }
    assert!(worst < Duration::from_millis(1300), "a neighbour waited {worst:?}");
    for (tag, offset) in (0..8).zip(offsets).filter(|(tag, _)| *tag != 6) {
        assert_eq!(said[&tag].0, Value::Int(offset.into()));
    }

    // Ten minutes later nothing has changed but how seldom it is asked for.
    let (began, before) = (Instant::now(), rig.device(0));
    while began.elapsed() < Duration::from_secs(600) {
        let batch = rig.next().await;
        assert!(batch.losses.is_empty(), "{batch:?}");
        let bad = batch.readings.iter().find(|one| one.tag != TagId(6) && one.validity != Validity::Good);
        assert_eq!(bad, None);
    }
    let device = rig.device(0);
    assert_eq!((device.breaker.state, device.breaker.turns), (BreakerState::Closed, [0; 3]));
    let asked = device.unanswered - before.unanswered;
    assert!((2..=10).contains(&asked), "{asked}");

    rig.bus.ignore(1, Table::Holding, 402, false);
    while said[&6] != (Value::Int(402), Validity::Good) {
        note(&mut said, &rig.next().await);
    }
    while !rig.bus.take_asked().iter().any(|asked| asked.quantity == 4) {
        rig.next().await; // joined again
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_address_that_nothing_answers_is_no_dead_unit_either() {
    let mut rig = start(vec![holding(1, 0, [0, 100, 200]), holding(2, 100, [0])]);
    rig.bus.ignore(1, Table::Holding, 0, true);
    let mut said = Said::new();
    let good = Validity::Good;
    while said.len() < 4 || said[&0].1 != NO_ANSWER || said[&1].1 != good || said[&2].1 != good {
        note(&mut said, &rig.next().await);
    }
    for _ in 0..1000 {
        let batch = rig.next().await;
        let bad = batch.readings.iter().find(|one| one.tag != TagId(0) && one.validity != good);
        assert_eq!((bad, batch.losses.len()), (None, 0));
    }
    assert_eq!(rig.device(0).breaker.turns[2], 0, "never open");
}

/// What a gateway says for a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// The register's own address.
    Value,
    Exception(u8),
    Nothing,
}

/// A Modbus TCP gateway, and what was asked of it.
#[derive(Default)]
struct Gateway {
    says: Mutex<BTreeMap<u8, Says>>,
    asked: Mutex<Vec<(u8, u16)>>,
}

impl Gateway {
    fn says(&self, unit: u8, what: Says) {
        self.says.lock().expect("unpoisoned").insert(unit, what);
    }

    fn take_asked(&self) -> Vec<(u8, u16)> {
        std::mem::take(&mut *self.asked.lock().expect("unpoisoned"))
    }

    async fn serve(self: Arc<Self>, mut stream: DuplexStream) {
        let mut request = [0; 12];
        while stream.read_exact(&mut request).await.is_ok() {
            let (unit, offset) = (request[6], u16::from_be_bytes([request[8], request[9]]));
            let quantity = u16::from_be_bytes([request[10], request[11]]);
            self.asked.lock().expect("unpoisoned").push((unit, offset));
            tokio::time::sleep(Duration::from_millis(10)).await;
            let says = self.says.lock().expect("unpoisoned").get(&unit).copied().unwrap_or(Says::Value);
            let pdu = match says {
                Says::Nothing => continue,
                Says::Exception(code) => vec![request[7] | 0x80, code],
                Says::Value => {
                    let words = (offset..offset + quantity).flat_map(u16::to_be_bytes);
                    let count = u8::try_from(2 * quantity).expect("a few");
                    [request[7], count].into_iter().chain(words).collect()
                }
            };
            let length = u16::try_from(pdu.len() + 1).expect("short").to_be_bytes();
            let answer = [&request[..4], &length, &[unit], &pdu].concat();
            if stream.write_all(&answer).await.is_err() {
                break;
            }
        }
    }
}

fn behind_gateway(groups: Vec<Group>) -> Rig<Arc<Gateway>> {
    let (ours, theirs) = tokio::io::duplex(1024);
    let gateway = Arc::new(Gateway::default());
    tokio::spawn(Arc::clone(&gateway).serve(theirs));
    let endpoint = Endpoint::Tcp { host: "gateway".to_owned(), port: 502 };
    Rig::over(Client::over(config(endpoint, groups), ours), gateway)
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_away_is_so_for_each_of_its_stations() {
    for (says, told) in [
        (Says::Exception(11), Validity::Bad(Status::Modbus(11))),
        (Says::Exception(10), Validity::Bad(Status::Modbus(10))),
        (Says::Nothing, NO_ANSWER),
    ] {
        // Two stations and two intervals, all of unit 7.
        let slow = Group { poll: Duration::from_secs(3600), ..holding(7, 20, [300]) };
        let other = Group { station: "press-7b".into(), ..holding(7, 10, [200]) };
        let mut rig = behind_gateway(vec![holding(7, 0, [100]), other, slow, holding(1, 100, [0])]);
        let mut said = Said::new();
        while said.len() < 4 {
            note(&mut said, &rig.next().await);
        }
        rig.bus.says(7, says);
        while [0, 10, 20].iter().any(|tag| said[tag].1 != told) {
            let batch = rig.next().await;
            assert!(batch.losses.is_empty(), "{batch:?}");
            note(&mut said, &batch);
        }
        // Five minutes: every one of them is asked for, and nothing is lost: the tags are bad.
        rig.bus.take_asked();
        let (began, mut probed) = (Instant::now(), BTreeSet::new());
        while began.elapsed() < Duration::from_secs(300) {
            let batch = rig.next().await;
            assert!(batch.losses.is_empty(), "{batch:?}");
            note(&mut said, &batch);
            assert!([0, 10, 20].iter().all(|tag| said[tag].1 == told) && said[&100].1 == Validity::Good);
            probed.extend(rig.bus.take_asked().into_iter().filter(|(unit, _)| *unit == 7).map(|(_, offset)| offset));
        }
        assert_eq!(probed.into_iter().collect::<Vec<_>>()[..2], [100, 200]);
        assert_eq!(rig.device(1).breaker.state, BreakerState::Open);
        // When it is back all of it is read at once, the hourly one too.
        rig.bus.says(7, Says::Value);
        while [0, 10, 20].iter().any(|tag| said[tag].1 != Validity::Good) {
            let batch = rig.next().await;
            assert!(batch.losses.is_empty(), "{batch:?}");
            note(&mut said, &batch);
        }
        assert!(began.elapsed() < Duration::from_secs(340));
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_while_its_tags_rest_is_no_link_that_stands() {
    let nothing = Group { tags: Vec::new(), ..holding(2, 0, []) };
    let mut rig = behind_gateway(vec![holding(1, 0, [5]), nothing]);
    rig.bus.says(1, Says::Exception(2));
    let refused = rig.next().await;
    assert_eq!(refused.readings[0].validity, Validity::Bad(Status::Modbus(2)));
    rig.bus.says(1, Says::Nothing);
    let began = Instant::now();
    let error = (&mut rig.task).await.expect("no panic");
    assert!(error.to_string().starts_with("silent for "), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_half_open_only_while_a_question_is_out() {
    let mut rig = behind_gateway(vec![holding(7, 0, [100, 500]), holding(1, 100, [0])]);
    rig.bus.says(7, Says::Nothing);
    let mut state = rig.state.subscribe();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        rig.next().await;
        let device = state.borrow_and_update().devices[1].clone();
        assert_ne!(device.breaker.state, BreakerState::HalfOpen, "told after the question");
        let asked = rig.bus.asked.lock().expect("unpoisoned").iter().filter(|(unit, _)| *unit == 7).count();
        assert!(device.breaker.turns[1] <= u64::try_from(asked).expect("few"));
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_refused_among_a_hundred_and_twenty_five_make_no_good_one_bad() {
    let mut rig = behind_gateway_of_holes().await;
    let holes: BTreeSet<u32> = (0..20).map(|at| at * 6).collect();
    let mut said = Said::new();
    while said.len() < 125 {
        let batch = rig.next().await;
        for reading in &batch.readings {
            let told = if holes.contains(&reading.tag.0) { Validity::Bad(Status::Modbus(2)) } else { Validity::Good };
            assert_eq!(reading.validity, told, "{reading:?}");
        }
        note(&mut said, &batch);
    }
    // All of them are separated, so a poll is a request for each run of good ones.
    let _ = rig.bus.take_asked();
    rig.next().await;
    let asked = rig.bus.take_asked().len();
    assert!(asked <= 60, "{asked}");

    // One is mended: it joins its neighbours, and nothing is split anew.
    rig.bus.refuse(1, Table::Holding, 60, None);
    let began = Instant::now();
    let mut requests = 0;
    while said[&60] != (Value::Int(60), Validity::Good) {
        let batch = rig.next().await;
        let bad = batch.readings.iter().find(|one| !holes.contains(&one.tag.0) && one.validity != Validity::Good);
        assert_eq!(bad, None);
        note(&mut said, &batch);
        requests = rig.bus.take_asked().len();
    }
    assert!(began.elapsed() < Duration::from_secs(30) && requests <= asked + 20, "{requests}");
    rig.next().await;
    let asked = rig.bus.take_asked();
    assert!(asked.iter().any(|asked| asked.offset <= 59 && asked.offset + asked.quantity > 61), "{asked:?}");
    assert!(asked.len() <= 60, "{}", asked.len());
}

/// 125 registers of unit 1, of which every sixth of the first twenty times six is refused.
async fn behind_gateway_of_holes() -> Rig {
    let rig = start(vec![holding(1, 0, 0..125)]);
    for hole in 0..20 {
        rig.bus.refuse(1, Table::Holding, hole * 6, Some(2));
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn thirty_dead_units_at_the_default_timeout_cost_a_living_one_nothing_it_can_notice() {
    let mut groups: Vec<_> = (2..=31).map(|unit| holding(unit, u32::from(unit) * 10, [0])).collect();
    groups.push(holding(1, 0, [0]));
    let mut rig = start(groups);
    (2..=31).for_each(|unit| rig.bus.always(unit, Some(Mood::Silent)));
    let began = Instant::now();
    while rig.next().await.readings[0].tag != TagId(0) {}
    assert!(
        began.elapsed() <= Duration::from_secs(9),
        "the last one in the list was heard after {:?}",
        began.elapsed()
    );
    let (began, mut last, mut worst, mut polls) = (Instant::now(), Instant::now(), Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(600) {
        let batch = rig.next().await;
        assert!(batch.losses.is_empty(), "{batch:?}");
        if batch.readings[0].tag == TagId(0) {
            (worst, last, polls) = (worst.max(last.elapsed()), Instant::now(), polls + 1);
        }
    }
    assert!(worst <= Duration::from_millis(250), "{worst:?}");
    assert!(polls >= 5_400, "{polls} of 6,000");
}

#[tokio::test(start_paused = true)]
async fn a_slave_that_dies_and_comes_back_makes_no_gap_of_its_neighbours_at_the_default_timeout() {
    let mut rig = start(vec![holding(1, 0, [0]), holding(2, 10, [0])]);
    let (mut last, mut worst, mut losses) = (Instant::now(), Duration::ZERO, 0);
    for mood in [None, Some(Mood::Silent), None, Some(Mood::Silent), None] {
        rig.bus.always(2, mood);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(120) {
            let batch = rig.next().await;
            losses += batch.losses.len();
            if batch.readings[0].tag == TagId(0) {
                assert_eq!(batch.readings[0].validity, Validity::Good);
                (worst, last) = (worst.max(last.elapsed()), Instant::now());
            }
        }
    }
    assert_eq!(losses, 0);
    assert!(worst <= Duration::from_millis(1250), "half its timeout, once: {worst:?}");
    assert_eq!(rig.device(1).breaker.state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_is_slower_than_its_neighbours_is_found_all_the_same() {
    // It takes 400 ms, and nobody knows: its answers come late, and say how slow it is.
    let mut rig = start(vec![holding(1, 0, [0]), holding(2, 10, [0])]);
    rig.bus.always(2, Some(Mood::Late(Duration::from_millis(400))));
    let began = Instant::now();
    rig.until(10, |batch| batch.readings[0].validity == Validity::Good).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let mut good = 0;
    for _ in 0..100 {
        let batch = rig.next().await;
        good += usize::from(batch.readings[0].tag == TagId(10) && batch.readings[0].validity == Validity::Good);
    }
    assert!(good >= 10, "{good}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_waits_for_no_dead_unit_longer_than_twice() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = RtuBus::on(theirs);
    bus.set(2, Table::Holding, 0, &[7; 10]);
    bus.ignore(2, Table::Holding, 3, true);
    bus.ignore(2, Table::Holding, 4, true);
    let groups = vec![holding(1, 0, 0..30), holding(2, 30, 0..10)];
    let (began, mut told) = (Instant::now(), Vec::new());
    let mut note = |one: Probed| told.push((one.reading.tag.0, one.reading.validity));
    Client::over(config(endpoint(), groups), ours).probe(&mut note).await.expect("a link");
    let silent = |tag: u32| tag < 30 || tag == 33 || tag == 34;
    let expected = (0..40).map(|tag| (tag, if silent(tag) { NO_ANSWER } else { Validity::Good }));
    assert_eq!(told, expected.collect::<Vec<_>>());
    assert!(began.elapsed() < 8 * DEFAULT_TIMEOUT + Duration::from_secs(1), "{:?}", began.elapsed());
}
