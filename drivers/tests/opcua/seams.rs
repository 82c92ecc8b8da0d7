//! Where a gap that history closes meets what is live, what breaks in between, and what comes late.

use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Watermark};
use gemba_drivers::sim::opcua::Flaws;
use gemba_drivers::{LinkPhase, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

use crate::gaps::{Cut, after, told};
use crate::rig::{NOON, Supervised, config, server, until};

#[tokio::test]
async fn silence_does_not_count_while_a_slow_historian_is_waited_for() {
    // The seam alone is looked for four times, a quarter of a second apart.
    let max_age = Duration::from_millis(700);
    let start = |config: Config| {
        let name = config.endpoint.clone();
        Supervised::start_aged(Client::new(config), name, max_age)
    };
    let mut line = Cut::with(&["Good"], start).await;
    line.link.first_of_each(1).await;
    line.cut().await;
    for step in 1..=5_i64 {
        line.server.set("Good", step, after(step.unsigned_abs() * 100));
    }
    line.server.flaw_history(Flaws { late: (Duration::from_millis(150), u32::MAX), ..Flaws::default() });
    line.mend().await;
    let (readings, batch) = line.closed().await;
    let stale = Validity::Bad(Status::Own(OwnStatus::Stale));
    assert!(readings.iter().all(|reading| reading.validity != stale), "{readings:?}");
    assert!(batch.losses[0].reason.contains("history ends before"), "{}", batch.losses[0].reason);
    line.server.set("Good", 6_i64, after(600));
    while line.link.next_of(TagId(0)).await.value != Value::Int(6) {}
    assert_eq!(line.link.state().connects, 2, "{:?}", line.link.state().last_error);
    line.link.stop().await;
}

#[tokio::test]
async fn a_node_that_the_server_takes_late_is_caught_up_with() {
    let mut server = server([("Good", 0_i64), ("Reject", 0)]).await;
    server.keep_history().await.expect("the port is free");
    let config = config(&server.endpoint(), &["Good", "Reject"]);
    let name = config.endpoint.clone();
    let client = Client::new(config).asking_again_every(Duration::from_millis(100));
    let mut link = Supervised::start_client(client, name);
    link.first_of_each(2).await;
    server.stop().await;
    until("the link is down", || link.state().phase == LinkPhase::Disconnected).await;
    // It listens before its nodes are loaded.
    server.hide("Good", true);
    server.set("Good", 1_i64, after(100));
    server.restart().await.expect("the port is free");
    let mut readings = Vec::new();
    let mut counts = Vec::new();
    while counts.len() < 2 {
        let batch = link.batch().await;
        assert!(batch.losses.is_empty(), "{:?}", batch.losses);
        readings.extend(batch.readings.into_iter().filter(|reading| reading.tag == TagId(0)));
        counts.extend(batch.backfills.iter().map(|gap| gap.count));
        if counts.len() == 1 && server_hides(&readings) {
            server.set("Good", 2_i64, after(200));
            server.set("Good", 3_i64, after(300));
            server.hide("Good", false);
        }
    }
    readings.retain(|reading| !reading.validity.is_bad());
    let start = NOON - Duration::from_secs(60);
    // What held when it turned bad comes once more.
    let expected = [(0, 0, start, true), (0, 1, after(100), true), (0, 1, after(100), true), (0, 2, after(200), true)];
    assert_eq!(told(&readings), expected);
    assert_eq!(counts, [1, 4], "the other's gap, and its own when it was closed");
    assert_eq!(told(&[link.next_of(TagId(0)).await]), [(0, 3, after(300), false)]);
    link.stop().await;
}

/// The tag was said to be unknown to the server.
fn server_hides(readings: &[Reading]) -> bool {
    readings.last().is_some_and(|reading| matches!(reading.validity, Validity::Bad(Status::Opcua(_))))
}

#[tokio::test]
async fn a_gap_of_the_agent_keeps_its_start_and_count_when_its_closing_breaks() {
    let start = |config: Config| {
        let name = config.endpoint.clone();
        // In a moment: the server has its history by then.
        let client = Client::new(config).having(|_| Some(Watermark::Dated(after(300))));
        Supervised::start_client(client, name)
    };
    let mut line = Cut::with(&["Good"], start).await;
    line.cable.cut();
    until("the link is down", || line.link.state().phase == LinkPhase::Disconnected).await;
    for step in 3..=9_000_i64 {
        line.server.set("Good", step, after(step.unsigned_abs() * 100));
    }
    line.cable.resume();
    let mut given = 0;
    let mut cut = 0;
    // The channel holds four batches of 2,000, so the driver is in the middle of it when the first has come.
    let gap = loop {
        let batch = line.link.batch().await;
        assert!(batch.losses.is_empty(), "{:?}", batch.losses);
        given += batch.readings.iter().filter(|reading| reading.backfilled).count() as u64;
        if let Some(gap) = batch.backfills.into_iter().next() {
            break gap;
        }
        if given >= 2_000 && cut == 0 {
            line.cable.cut();
            cut += 1;
        }
        if cut == 1 && batch.readings.iter().any(|reading| reading.validity.is_bad()) {
            line.cable.resume();
            cut += 1;
        }
    };
    assert_eq!(cut, 2, "it broke in the middle");
    assert_eq!((gap.from, gap.count), (after(300), given));
    line.link.stop().await;
}

#[tokio::test]
async fn the_value_that_a_historian_at_milliseconds_has_is_not_told_again_live() {
    let mut line = Cut::with(&["Good"], Supervised::start).await;
    line.link.first_of_each(1).await;
    line.cut().await;
    line.server.set("Good", 1_i64, after(100)); // with digits down to 100 ns
    line.server.flaw_history(Flaws { milliseconds: true, ..Flaws::default() });
    line.mend().await;
    let (readings, batch) = line.closed().await;
    assert!(batch.losses.is_empty(), "{:?}", batch.losses);
    let millisecond = Time(after(100).0 / 1_000_000 * 1_000_000);
    assert_eq!(told(&readings)[1..], [(0, 1, millisecond, true)]);
    line.server.set("Good", 2_i64, after(200));
    assert_eq!(told(&line.link.batch().await.readings), [(0, 2, after(200), false)]);
    line.link.stop().await;
}

#[tokio::test]
async fn empty_pages_are_gone_through_but_not_without_end() {
    for (empty, lost) in [(2, false), (u32::MAX, true)] {
        let mut line = Cut::with(&["Good"], Supervised::start).await;
        line.link.first_of_each(1).await;
        line.cut().await;
        line.server.set("Good", 1_i64, after(100));
        line.server.flaw_history(Flaws { empty, ..Flaws::default() });
        line.mend().await;
        let (readings, batch) = line.closed().await;
        assert_eq!(told(&readings).iter().any(|&(_, value, ..)| value == 1), !lost);
        let why: Vec<&str> = batch.losses.iter().map(|loss| &*loss.reason).collect();
        assert_eq!(why.iter().any(|why| why.contains("empty without end")), lost, "{why:?}");
        line.link.stop().await;
    }
}

/// What the device calls bad has a time too, and it is no place to go on from.
#[tokio::test]
async fn a_bad_value_before_a_gap_hides_nothing_of_it() {
    const BAD_SENSOR_FAILURE: u32 = 0x808C_0000;
    let mut line = Cut::with(&["Good"], Supervised::start).await;
    line.link.first_of_each(1).await;
    line.server.set("Good", 1_i64, NOON);
    assert_eq!(line.link.next_of(TagId(0)).await.value, Value::Int(1));
    // The server dates it later than what its device stores meanwhile.
    line.server.set_status_at("Good", BAD_SENSOR_FAILURE, after(900));
    assert!(line.link.next_of(TagId(0)).await.validity.is_bad());
    line.cut().await;
    line.server.set("Good", 2_i64, after(300));
    line.server.set("Good", 3_i64, after(1_000));
    line.mend().await;
    let (readings, batch) = line.closed().await;
    assert!(batch.losses.is_empty(), "{:?}", batch.losses);
    let expected =
        [(0, 1, NOON, true), (0, 2, after(300), true), (0, -1, after(900), true), (0, 3, after(1_000), true)];
    assert_eq!(told(&readings), expected);
    line.link.stop().await;
}
