//! What happens while nobody listens comes from the server's history.

use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Watermark};
use gemba_drivers::sim::opcua::Flaws;
use gemba_drivers::sim::proxy::Proxy;
use gemba_drivers::{LinkPhase, OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use opcua::types::StatusCode;

use crate::rig::{NOON, Supervised, config, server, until};

const LOST: Validity = Validity::Bad(Status::Own(OwnStatus::LinkLost));

/// A server with history behind a cable that can be cut.
pub(crate) struct Cut {
    pub(crate) server: gemba_drivers::sim::opcua::OpcuaServer,
    pub(crate) cable: Proxy,
    pub(crate) link: Supervised,
}

pub(crate) fn after(ms: u64) -> Time {
    NOON + Duration::from_millis(ms)
}

impl Cut {
    async fn new(names: &[&str]) -> Self {
        Self::with(names, |config| {
            let name = config.endpoint.clone();
            Supervised::start_client(Client::new(config), name)
        })
        .await
    }

    pub(crate) async fn with(names: &[&str], start: impl FnOnce(Config) -> Supervised) -> Self {
        let mut server = server(names.iter().map(|name| (*name, 0_i64))).await;
        server.keep_history().await.expect("the port is free");
        let cable = Proxy::to(([127, 0, 0, 1], server.port()).into()).await.expect("a port");
        let link = start(config(&format!("opc.tcp://{}/", cable.addr()), names));
        Self { server, cable, link }
    }

    /// Cuts the cable; returns when the link has noticed.
    pub(crate) async fn cut(&mut self) {
        self.cable.cut();
        loop {
            let batch = self.link.batch().await;
            if batch.readings.iter().any(|reading| reading.validity == LOST) {
                return;
            }
        }
    }

    pub(crate) async fn mend(&mut self) {
        self.cable.resume();
        until("the link is up", || self.link.state().phase == LinkPhase::Connected).await;
    }

    /// Everything up to the batch that says how the gap was closed, and that batch's own words.
    pub(crate) async fn closed(&mut self) -> (Vec<Reading>, gemba_drivers::Batch) {
        let mut readings = Vec::new();
        loop {
            let mut batch = self.link.batch().await;
            readings.append(&mut batch.readings);
            if !batch.backfills.is_empty() || !batch.losses.is_empty() {
                return (readings, batch);
            }
        }
    }
}

pub(crate) fn told(readings: &[Reading]) -> Vec<(u32, i64, Time, bool)> {
    let whole = |value: &Value| if let Value::Int(whole) = value { *whole } else { -1 };
    readings
        .iter()
        .map(|reading| (reading.tag.0, whole(&reading.value), reading.source_time, reading.backfilled))
        .collect()
}

#[tokio::test]
async fn what_happened_in_a_gap_comes_from_history_in_order_and_once() {
    let mut line = Cut::new(&["Good", "Reject"]).await;
    line.link.first_of_each(2).await;
    line.server.set("Good", 1_i64, NOON);
    assert_eq!(line.link.next_of(TagId(0)).await.value, Value::Int(1));
    line.cut().await;
    for step in 1..=5_i64 {
        line.server.set("Good", 1 + step, after(step.unsigned_abs() * 100));
    }
    line.server.set("Reject", 9_i64, after(250));
    line.mend().await;
    let (readings, batch) = line.closed().await;
    let start = NOON - Duration::from_secs(60);
    let expected = [
        (1, 0, start, true),
        (0, 1, NOON, true),
        (0, 2, after(100), true),
        (0, 3, after(200), true),
        (1, 9, after(250), true),
        (0, 4, after(300), true),
        (0, 5, after(400), true),
        (0, 6, after(500), true),
    ];
    assert_eq!(told(&readings), expected);
    assert!(batch.losses.is_empty(), "{:?}", batch.losses);
    let [gap] = batch.backfills.as_slice() else { panic!("one station: {:?}", batch.backfills) };
    assert_eq!((&*gap.station, gap.count), ("aoi-1", 8));
    assert!(gap.from <= gap.to);

    // The subscription's first values are the same again, and are not told twice; what follows is.
    line.server.set("Good", 7_i64, after(600));
    let batch = line.link.batch().await;
    assert_eq!(told(&batch.readings), [(0, 7, after(600), false)]);
    line.link.stop().await;
}

#[tokio::test]
async fn nothing_is_read_from_history_at_the_first_connect() {
    let mut line = Cut::new(&["Good"]).await;
    assert!(!line.link.next_of(TagId(0)).await.backfilled);
    assert_eq!(line.server.history_given().0, 0);
    line.link.stop().await;
}

#[tokio::test]
async fn a_restarted_agent_goes_on_where_it_was() {
    let mut server = server([("Good", 0_i64), ("New", 5)]).await;
    server.keep_history().await.expect("the port is free");
    for step in 1..=5_i64 {
        server.set("Good", step, after(step.unsigned_abs() * 100));
    }
    let config = config(&server.endpoint(), &["Good", "New"]);
    let mut link = Supervised::start_having(config, |tag| (tag == TagId(0)).then_some(Watermark::Dated(after(300))));
    let mut readings = Vec::new();
    while readings.len() < 4 {
        let batch = link.batch().await;
        assert!(batch.losses.is_empty(), "{:?}", batch.losses);
        readings.extend(batch.readings);
    }
    let start = NOON - Duration::from_secs(60);
    let expected = [(0, 3, after(300), true), (0, 4, after(400), true), (0, 5, after(500), true), (1, 5, start, false)];
    assert_eq!(told(&readings), expected);
    link.stop().await;
}

#[tokio::test]
async fn a_gap_that_history_does_not_have_is_one_loss() {
    let mut server = server([("Good", 1_i64), ("Reject", 2)]).await; // keeps none
    let mut link = Supervised::start(config(&server.endpoint(), &["Good", "Reject"]));
    link.first_of_each(2).await;
    let alive = link.state().alive.expect("it was");
    server.stop().await;
    link.batch().await;
    server.set("Good", 11_i64, NOON);
    server.restart().await.expect("the port is free");
    let loss = loop {
        if let Some(loss) = link.batch().await.losses.pop() {
            break loss;
        }
    };
    assert_eq!((&*loss.source, loss.count), ("aoi-1", 2));
    assert!(loss.reason.contains("no history is kept"), "{}", loss.reason);
    assert!(alive <= loss.from && loss.from <= loss.to);
    let good = link.first_of_each(2).await;
    assert_eq!((&good[&TagId(0)].value, good[&TagId(0)].backfilled), (&Value::Int(11), false));
    assert_eq!(good[&TagId(1)].value, Value::Int(2), "told again, for the tag was bad");
    link.stop().await;
}

/// After a restart of the agent nobody knows where to go on in history; that there is a gap is known.
#[tokio::test]
async fn values_without_a_time_leave_a_gap_over_a_restart_that_is_one_loss() {
    for (history, why) in [(false, "no history is kept"), (true, "values have no time of their source")] {
        let mut server = server([("Good", 1_i64), ("Reject", 2), ("New", 3)]).await;
        if history {
            server.keep_history().await.expect("the port is free");
        }
        for name in ["Good", "Reject"] {
            server.set_undated(name, 11_i64.into());
        }
        let heard = [Watermark::Undated(after(300)), Watermark::Undated(after(400))];
        let config = config(&server.endpoint(), &["Good", "Reject", "New"]);
        let mut link = Supervised::start_having(config, |tag| heard.get(tag.index()).copied());
        let loss = loop {
            if let Some(loss) = link.batch().await.losses.pop() {
                break loss;
            }
        };
        assert_eq!((&*loss.source, loss.from, loss.count), ("aoi-1", after(400), 2), "the new one lost nothing");
        assert!(loss.reason.contains(why), "{}", loss.reason);
        let came = link.first_of_each(3).await;
        assert_eq!((&came[&TagId(0)].value, came[&TagId(0)].backfilled), (&Value::Int(11), false));
        link.stop().await;
        assert_eq!(server.history_given().1, 0, "nobody knows from where on");
    }
}

#[tokio::test]
async fn a_server_that_refuses_history_says_why() {
    for why in [StatusCode::BadHistoryOperationUnsupported, StatusCode::BadUserAccessDenied] {
        let mut line = Cut::new(&["Good"]).await;
        line.link.first_of_each(1).await;
        line.server.flaw_history(Flaws { refuses: Some(why), ..Flaws::default() });
        line.cut().await;
        line.mend().await;
        let (_, batch) = line.closed().await;
        assert!(batch.backfills.is_empty());
        assert!(batch.losses[0].reason.contains(&why.to_string()), "{}", batch.losses[0].reason);
        line.link.stop().await;
    }
}

#[tokio::test]
async fn history_that_begins_in_the_gap_is_told_and_is_a_loss() {
    let mut line = Cut::new(&["Good"]).await;
    line.link.first_of_each(1).await;
    line.server.flaw_history(Flaws { since: Some(after(150)), ..Flaws::default() });
    line.cut().await;
    line.server.set("Good", 1_i64, after(100));
    line.server.set("Good", 2_i64, after(200));
    line.mend().await;
    let (readings, batch) = line.closed().await;
    assert_eq!(told(&readings), [(0, 2, after(200), true)]);
    assert!(batch.losses[0].reason.contains("does not reach back"), "{}", batch.losses[0].reason);
    line.link.stop().await;
}

#[tokio::test]
async fn history_with_every_flaw_gives_the_same_readings() {
    let flaws = [
        Flaws { page: 3, ..Flaws::default() },
        Flaws { page: 3, forgets: 2, ..Flaws::default() },
        Flaws { page: 7, forgets: 1, ..Flaws::default() },
        Flaws { shuffled: true, ..Flaws::default() },
        Flaws { page: 5, milliseconds: true, ..Flaws::default() },
        Flaws { late: (Duration::from_millis(30), 2), ..Flaws::default() },
    ];
    for flaws in flaws {
        let mut line = Cut::new(&["Good", "Reject"]).await;
        line.link.first_of_each(2).await;
        line.cut().await;
        // To the millisecond, for those that keep no more.
        let at = |step: u64| Time(NOON.0 / 1_000_000 * 1_000_000) + Duration::from_millis(step * 10);
        for step in 1..=40_u64 {
            line.server.set(if step % 3 == 0 { "Reject" } else { "Good" }, step.cast_signed(), at(step));
        }
        line.server.flaw_history(flaws.clone());
        line.mend().await;
        let (mut readings, batch) = line.closed().await;
        assert!(batch.losses.is_empty(), "{flaws:?}: {:?}", batch.losses);
        // What was late comes from the subscription instead, which tells the last of each.
        let live = if flaws.late.1 > 0 { 2 } else { 0 };
        while readings.len() < 2 + 40 {
            readings.extend(line.link.batch().await.readings);
        }
        let mut news: Vec<_> = told(&readings).into_iter().skip(2).collect();
        // The order in one message of the subscription is the server's.
        let tail = news.len() - usize::try_from(live).expect("small");
        news[tail..].sort_by_key(|&(_, _, at, _)| at);
        let expected: Vec<_> = (1..=40_u64)
            .map(|step| (u32::from(step % 3 == 0), step.cast_signed(), at(step), step <= 40 - live))
            .collect();
        assert_eq!(news, expected, "{flaws:?}");
        line.link.stop().await;
    }
}

#[tokio::test]
async fn a_huge_history_comes_in_windows_and_batches() {
    const MANY: i64 = 30_000;
    let mut line = Cut::new(&["Good", "Reject"]).await;
    line.link.first_of_each(2).await;
    line.cut().await;
    for step in 1..=MANY {
        line.server.set("Good", step, after(step.unsigned_abs()));
    }
    line.mend().await;
    let mut next = 0;
    let mut largest = 0;
    while next < MANY {
        let batch = line.link.batch().await;
        largest = largest.max(batch.readings.len());
        for reading in batch.readings.iter().filter(|reading| reading.tag == TagId(0) && !reading.validity.is_bad()) {
            assert_eq!(reading.value, Value::Int(next), "in order, each once");
            next += 1;
        }
    }
    assert!(largest <= 2_000, "{largest}");
    line.link.stop().await;
}

#[tokio::test]
async fn a_gap_in_the_closing_of_a_gap_is_closed_as_well() {
    let mut line = Cut::new(&["Good"]).await;
    line.link.first_of_each(1).await;
    line.cut().await;
    for step in 1..=9_000_i64 {
        line.server.set("Good", step, after(step.unsigned_abs()));
    }
    line.mend().await;
    let mut last = -1;
    let mut seen = 0;
    // The channel holds four batches of 2,000, so the driver is in the middle of it now.
    let first = line.link.batch().await;
    for reading in &first.readings {
        let Value::Int(value) = reading.value else { continue };
        assert!(value > last || value == 0, "in order");
        (last, seen) = (value, seen + 1);
    }
    line.cable.cut();
    let mut cut = true;
    while last < 9_000 {
        let batch = line.link.batch().await;
        for reading in &batch.readings {
            match reading.value {
                Value::Int(value) if value == last => {} // what held at the new gap's start
                Value::Int(value) => {
                    assert_eq!(value, last + 1, "nothing is skipped");
                    last = value;
                    seen += 1;
                }
                _ => {
                    if cut {
                        cut = false;
                        line.cable.resume();
                    }
                }
            }
        }
        if cut && last == 9_000 {
            break; // all of it had come before the cut
        }
    }
    assert_eq!(seen, 9_001);
    line.link.stop().await;
}
