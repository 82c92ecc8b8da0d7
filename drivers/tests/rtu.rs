//! The Modbus driver on a serial bus: slaves that are late, garbled or gone, and what their neighbours notice of it.

mod fieldbus;
mod rig;

use std::collections::BTreeMap;
use std::time::Duration;

use fieldbus::{Link, all_good, of};
use gemba_drivers::modbus::{Address, Client, DataType, Group, Limits, Order, Table, Tag};
use gemba_drivers::sim::rtu::{Mood, RtuBus};
use gemba_drivers::survey::{Probed, Scope, Survey as _};
use gemba_drivers::{Batch, BreakerState, OwnStatus, Reading, Status, TagId, Validity, Value};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use rig::{NO_ANSWER, Rig, TIMEOUT, config, endpoint, two};
use tokio::time::Instant;
use tokio_serial::{SerialPort as _, SerialStream};

/// What every good reading must say: nothing else is ever believed.
fn assert_own(batch: &Batch) {
    for reading in &batch.readings {
        let (unit, at) = (reading.tag.0 / 2 + 1, reading.tag.0 % 2);
        if !reading.validity.is_bad() {
            assert_eq!(reading.value, Value::Int(i64::from(unit * 10 + at)), "{batch:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn units_share_a_line_and_each_is_read() {
    let mut rig = Rig::start(vec![two(1, 0), two(2, 2), two(3, 4)]);
    for first in [0, 2, 4, 0, 2, 4] {
        let batch = rig.until(first, all_good).await;
        assert_own(&batch);
    }
    assert_eq!(rig.bus.functions(), [3]);
    assert_eq!(rig.device(1).name.as_ref(), "unit 2");
}

#[tokio::test(start_paused = true)]
async fn nothing_but_reads_ever_leaves_on_a_line() {
    let every = |unit| {
        let tag = |(address, id): (&str, u32)| {
            let address: Address = address.parse().expect("an address");
            let data_type = if address.table.is_bits() { DataType::Bool } else { DataType::U16 };
            Tag::new(TagId(id), address, data_type)
        };
        let addresses = ["coil:0", "discrete:0", "input:0", "holding:0", "holding:1", "holding:2", "holding:40"];
        Group { tags: addresses.into_iter().zip(0..).map(tag).collect(), ..two(unit, 0) }
    };
    let fill = |bus: &RtuBus| {
        for table in Table::ALL {
            bus.set(1, table, 0, &[1; 50]);
        }
    };
    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = RtuBus::on(theirs);
    fill(&bus);
    // Splits, rests and joins; an address that nothing answers; garbled answers; a dead unit and its breaker.
    bus.refuse(1, Table::Holding, 1, Some(2));
    bus.ignore(1, Table::Holding, 40, true);
    let dead = Group { tags: two(2, 10).tags, ..two(2, 10) };
    let mut rig = Rig::over(Client::over(config(endpoint(), vec![every(1), dead]), ours), bus);
    for mood in [Mood::Garbled, Mood::Short, Mood::WrongLength, Mood::Silent, Mood::Function(6), Mood::From(9)] {
        rig.bus.next(mood);
        for _ in 0..100 {
            rig.next().await;
        }
    }
    assert!(rig.device(1).breaker.turns[1] > 0, "it was tried again");
    rig.bus.refuse(1, Table::Holding, 1, None);
    for _ in 0..300 {
        rig.next().await;
    }
    assert_eq!(rig.bus.functions(), [1, 2, 3, 4]);

    // Looking at it without running.
    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = RtuBus::on(theirs);
    fill(&bus);
    Client::over(config(endpoint(), vec![every(1)]), ours).probe(&mut |_| ()).await.expect("a link");
    assert_eq!(bus.functions(), [1, 2, 3, 4]);
    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = RtuBus::on(theirs);
    fill(&bus);
    let scope = Scope { station: "press-1".into(), listen: TIMEOUT, most: 300 };
    Client::over(config(endpoint(), vec![every(1)]), ours).browse(&scope, &mut |_| ()).await.expect("registers");
    assert_eq!(bus.functions(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_taken_for_no_other() {
    let mut rig = Rig::start(vec![two(1, 0), two(2, 2)]);
    rig.until(0, all_good).await;
    // From now on unit 1 says other things, and its answer of before comes when another question is out.
    for by in [1010, 1100, 1500, 1990] {
        rig.bus.next(Mood::Late(Duration::from_millis(by)));
        let missed = rig.next().await;
        let late = missed.readings[0].tag.0;
        for _ in 0..30 {
            assert_own(&rig.next().await);
        }
        rig.until(late, all_good).await;
    }
    let late: u64 = (0..2).map(|at| rig.discarded(at, "late") + rig.discarded(at, "unit")).sum();
    assert_eq!(late, 4, "each is counted once");
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_the_same_shape_does_not_answer_the_next_question() {
    let mut rig = Rig::start(vec![two(1, 0)]);
    rig.until(0, all_good).await;
    rig.bus.next(Mood::Late(Duration::from_millis(1800)));
    let bad = rig.until(0, |batch| batch.readings[0].validity == NO_ANSWER).await;
    assert_eq!(bad.readings.len(), 2);
    // What it said then is not what it says now.
    rig.bus.set(1, Table::Holding, 0, &[500, 501]);
    let next = rig.until(0, all_good).await;
    assert_eq!(of(&next, 0).value, Value::Int(500));
    assert_eq!(rig.discarded(0, "late"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_garbled_is_discarded_counted_and_asked_for_again() {
    for (mood, kind) in [
        (Mood::Garbled, "crc"),
        (Mood::From(9), "unit"),
        (Mood::Function(4), "function"),
        (Mood::Short, "length"),
        (Mood::WrongLength, "length"),
        (Mood::After(vec![0x55; 40]), "crc"),
    ] {
        let mut rig = Rig::start(vec![two(1, 0)]);
        rig.until(0, all_good).await;
        rig.bus.next(mood.clone());
        while rig.discarded(0, kind) == 0 {
            assert_own(&rig.next().await);
        }
        assert_own(&rig.until(0, all_good).await);
        assert_eq!(rig.discarded(0, kind), 1, "{mood:?}");
        assert_eq!(rig.device(0).breaker.turns, [0; 3], "{mood:?}: one is no dead device");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_hears_itself_is_no_noise() {
    // One register's answer is shorter than the question; two registers' is longer.
    for tags in [1, 2] {
        let mut group = two(1, 0);
        group.tags.truncate(tags);
        let mut rig = Rig::start(vec![group, two(2, 2)]);
        rig.bus.echo(true);
        rig.bus.latency(Duration::from_millis(240));
        for _ in 0..20 {
            let batch = rig.next().await;
            assert!(all_good(&batch), "{batch:?}");
            assert_own(&batch);
        }
        let device = rig.device(0);
        assert_eq!((device.unanswered, device.retries), (0, 0));
        assert!(device.discarded.iter().all(|(_, count)| *count == 0), "{:?}", device.discarded);
    }
}

#[tokio::test(start_paused = true)]
async fn a_garbled_answer_costs_no_reading() {
    let mut rig = Rig::start(vec![two(1, 0)]);
    rig.until(0, all_good).await;
    rig.bus.next(Mood::Garbled);
    for _ in 0..10 {
        let batch = rig.next().await;
        assert!(all_good(&batch), "{batch:?}");
    }
    let device = rig.device(0);
    assert_eq!((device.retries, device.unanswered), (1, 1));
    assert_eq!(device.retrying.counts.iter().sum::<u64>(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_always_answers_too_little_is_there_and_says_why() {
    let mut rig = Rig::start(vec![two(1, 0)]);
    rig.bus.always(1, Some(Mood::WrongLength));
    let batch = rig.next().await;
    assert_eq!(batch.readings[0].validity, Validity::Bad(Status::Own(OwnStatus::WrongLength)));
    assert_eq!(rig.device(0).breaker.state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dead_slave_takes_no_more_than_its_share_and_is_found_when_it_is_back() {
    let mut rig = Rig::start(vec![two(1, 0), two(2, 2), two(3, 4)]);
    rig.bus.latency(Duration::from_millis(10));
    for first in [0, 2, 4] {
        rig.until(first, all_good).await;
    }
    rig.bus.always(2, Some(Mood::Silent));
    rig.bus.always(3, Some(Mood::Silent));
    for at in [1, 2] {
        while rig.device(at).breaker.state == BreakerState::Closed {
            rig.next().await;
        }
    }
    // Ten minutes of the bus's own time.
    let (began, before) = (Instant::now(), [rig.device(1), rig.device(2)]);
    let (mut polls, mut worst, mut last) = (0, Duration::ZERO, None);
    while began.elapsed() < Duration::from_secs(600) {
        let batch = rig.next().await;
        if batch.readings[0].tag == TagId(0) {
            assert!(all_good(&batch) && batch.losses.is_empty(), "{batch:?}");
            polls += 1;
            worst = last.map_or(worst, |last: Instant| worst.max(last.elapsed()));
            last = Some(Instant::now());
        }
    }
    let wasted: Duration = [1, 2].iter().map(|&at| rig.device(at).retrying.sum - before[at - 1].retrying.sum).sum();
    assert!(wasted <= Duration::from_secs(60), "a tenth at most: {wasted:?}");
    assert!(polls >= 5_700, "of 6,000 polls of the neighbour {polls} were made");
    assert!(worst <= Duration::from_millis(100) + TIMEOUT + Duration::from_millis(100), "{worst:?}");
    let asked = rig.device(1).requests - before[0].requests;
    assert!((15..=60).contains(&asked), "ever more seldom: {asked}");

    rig.bus.always(2, None);
    let back = Instant::now();
    assert_own(&rig.until(2, all_good).await);
    assert!(back.elapsed() <= Duration::from_secs(31), "{:?}", back.elapsed());
    let device = rig.device(1);
    assert_eq!(device.breaker.state, BreakerState::Closed);
    assert_eq!(device.breaker.turns[1], device.breaker.turns[2], "each time it opened it was tried");
    assert_eq!(rig.device(2).breaker.state, BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_line_on_which_nobody_answers_is_no_lost_line() {
    let mut rig = Rig::start(vec![two(1, 0)]);
    rig.bus.always(1, Some(Mood::Silent));
    for _ in 0..5 {
        assert_eq!(rig.next().await.readings[0].validity, NO_ANSWER);
    }
    assert!(!rig.task.is_finished());
    rig.bus.always(1, None);
    rig.until(0, all_good).await;
}

#[tokio::test]
async fn rtu_over_tcp_is_read_lost_and_found_again() {
    let (bus, endpoint) = RtuBus::over_tcp().await.expect("a port");
    bus.set(1, Table::Holding, 0, &[10, 11]);
    let mut group = two(1, 0);
    group.timeout = Duration::from_millis(300);
    let mut link = Link::start(Client::new(config(endpoint, vec![group])));
    assert_own(
        &link
            .until(|batch| all_good(batch).then(|| Batch { readings: batch.readings.clone(), ..Batch::default() }))
            .await,
    );
    bus.always(1, Some(Mood::Silent));
    link.until_lost().await;
    bus.always(1, None);
    link.until(|batch| all_good(batch).then_some(())).await;
    assert!(link.state().connects >= 2);
    assert!(bus.functions().iter().all(|function| (1..=4).contains(function)), "{:?}", bus.functions());
}

#[tokio::test]
async fn an_answer_of_before_a_reconnection_is_not_taken_for_one_of_after_it() {
    let (bus, endpoint) = RtuBus::over_tcp().await.expect("a port");
    bus.set(1, Table::Holding, 0, &[10, 11]);
    let timeout = Duration::from_millis(1000);
    let mut link = Link::start(Client::new(config(endpoint, vec![Group { timeout, ..two(1, 0) }])));
    link.until(|batch| all_good(batch).then_some(())).await;
    // The supervisor is back half a second after the second silence at the earliest, a second at the latest; what was said of
    // that question comes when the next one may be out.
    bus.next(Mood::Silent);
    bus.next(Mood::Late(Duration::from_millis(1950)));
    link.until_lost().await;
    bus.latency(Duration::from_millis(600));
    bus.set(1, Table::Holding, 0, &[500, 501]);
    let next = link.until(|batch| all_good(batch).then(|| of(batch, 0))).await;
    assert_eq!(next.value, Value::Int(500), "what it says now");
    assert_eq!(link.state().connects, 2);
}

#[tokio::test]
async fn a_real_serial_line_is_opened_by_its_path() {
    let (far, near) = SerialStream::pair().expect("a pty pair");
    let path = near.name().expect("a path");
    drop(near); // the driver opens it, for itself alone
    let mut group = two(1, 0);
    group.tags.push(Tag { length: 4, ..Tag::new(TagId(2), "input:7".parse().expect("an address"), DataType::Text) });
    // 115200 baud; a pty has no parity.
    let endpoint = format!("rtu://{path}?baud=115200&parity=none").parse().expect("an endpoint");
    let mut link = Link::start(Client::new(config(endpoint, vec![group])));
    let state = link.until_state(|state| state.connects > 0 || state.last_error.is_some()).await;
    assert_eq!(state.last_error, None);
    let bus = RtuBus::on(far);
    bus.set(1, Table::Holding, 0, &[10, 11]);
    bus.set(1, Table::Input, 7, &[0x4C4F, 0x5431]);
    let batch = link.next().await;
    assert!(all_good(&batch), "{batch:?}");
    assert_eq!(of(&batch, 1).value, Value::Int(11));
    assert_eq!(of(&batch, 2).value, Value::Text("LOT1".into()));
    bus.next(Mood::Garbled);
    for _ in 0..5 {
        assert!(all_good(&link.next().await));
    }
}

#[tokio::test]
async fn a_line_that_is_not_there_is_told_with_its_settings() {
    let endpoint = "rtu:///dev/gemba-no-such-line?baud=9600".parse().expect("an endpoint");
    let link = Link::start(Client::new(config(endpoint, vec![two(1, 0)])));
    let why = link.until_state(|state| state.last_error.is_some()).await.last_error.expect("why");
    assert!(why.starts_with("unreachable: /dev/gemba-no-such-line (9600 8E1): "), "{why}");
}

/// Table, offset, bit, type, order and length.
type AnyTag = (Table, u16, Option<u8>, DataType, usize, u16);

fn any_tag() -> impl Strategy<Value = AnyTag> {
    let table = prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
    let offset = prop_oneof![0..60_u16, 65_500..=u16::MAX];
    let data_type = proptest::sample::select(DataType::NAMES.as_slice())
        .prop_map(|name| name.parse::<DataType>().expect("a data type"));
    (table, offset, proptest::option::of(0..16_u8), data_type, 0..4_usize, 1..9_u16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever the tags, the limits, what the device holds and where it holds nothing: the plan reads what one request a
    /// tag reads.
    #[test]
    fn a_plan_reads_what_register_by_register_reads(
        tags in proptest::collection::vec(any_tag(), 1..40),
        limits in (0..30_u16, 4..126_u16),
        words in proptest::collection::vec(any::<u16>(), 100),
        holes in proptest::collection::vec((any_tag(), 0..4_u16), 0..8),
    ) {
        let tag = |((table, offset, bit, data_type, order, length), id): (AnyTag, u32)| {
            let bit = bit.filter(|_: &u8| !table.is_bits() && data_type == DataType::Bool);
            let address = Address { table, offset, bit };
            let data_type = if table.is_bits() { DataType::Bool } else { data_type };
            Tag { order: Order::ALL[order].1, length, ..Tag::new(TagId(id), address, data_type) }
        };
        let tags: Vec<Tag> = tags.into_iter().zip(0..).map(tag).collect();
        let limits = Limits { max_gap: limits.0, max_registers: limits.1 };
        let (planned, single) = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(both(tags, limits, &words, &holes.into_iter().map(|((table, at, ..), _)| (table, at)).collect::<Vec<_>>()));
        prop_assert_eq!(planned, single);
    }
}

type Said = BTreeMap<u32, (Value, Validity)>;

/// What the plan reads once it has settled, and what one request a tag reads.
async fn both(tags: Vec<Tag>, limits: Limits, words: &[u16], holes: &[(Table, u16)]) -> (Said, Said) {
    let device = |stream| {
        let bus = RtuBus::on(stream);
        for table in Table::ALL {
            let word = |word: &u16| if table.is_bits() { word & 1 } else { *word };
            bus.set(1, table, 0, &words[..64].iter().map(word).collect::<Vec<_>>());
            bus.set(1, table, 65_500, &words[64..].iter().map(word).collect::<Vec<_>>());
        }
        for (table, at) in holes {
            bus.refuse(1, *table, *at, Some(2));
        }
        bus
    };
    let count = tags.len();
    let group = Group { tags, limits, ..two(1, 0) };
    let said = |reading: &Reading| (reading.tag.0, (reading.value.clone(), reading.validity));

    let (ours, theirs) = tokio::io::duplex(1024);
    let mut rig = Rig::over(Client::over(config(endpoint(), vec![group.clone()]), ours), device(theirs));
    let mut planned = Said::new();
    for _ in 0..20 {
        planned.extend(rig.next().await.readings.iter().map(said));
    }

    let (ours, theirs) = tokio::io::duplex(1024);
    let bus = device(theirs);
    let mut single = Said::new();
    let mut told = |probed: Probed| single.extend([said(&probed.reading)]);
    Client::over(config(endpoint(), vec![group]), ours).probe(&mut told).await.expect("a link");
    assert_eq!(bus.take_asked().len(), count, "one request a tag");
    (planned, single)
}
