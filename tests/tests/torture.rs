//! The real binary, killed with -9 again and again under load, while upstream comes, goes, hangs and drops answers: everything
//! that the sender saw acknowledged arrives, in order, and is counted once.
//!
//! `GEMBA_KILLS` says how often (8 unless said; .ci/nightly takes hundreds), `GEMBA_SEED` which moments.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_tests::agent::{station, tag};
use gemba_tests::process::Process;
use gemba_tests::receiver::{DEADLINE, Receiver, Reply};
use gemba_tests::yaml;
use tokio::time::MissedTickBehavior;

const GEMBA: &str = env!("CARGO_BIN_EXE_gemba-to-kill");
const TOPIC: &str = "fab-2/oven-1/telemetry";
const METRIC: &str = "factory.tag.total";
/// A message every so often.
const EVERY: Duration = Duration::from_millis(2);
/// Unless so many wait for their acknowledgement.
const MOST_HELD: usize = 500;
/// So many packet identifiers are used in turn: far more than wait at any time.
const PACKETS: u32 = 60_000;

fn config(keeper: &Keeper, receiver: &Receiver, folder: &Path) -> String {
    let head = yaml::head(folder, "sync: 20ms");
    let upstream = format!("upstream: {{ otlp: {{ endpoint: {}, timeout: 1s }} }}", receiver.endpoint());
    let time = r#"time: { path: "$.t", as: unix_ms }"#;
    yaml::oven(&format!("{head}\n{upstream}"), &keeper.endpoint(), TOPIC, time)
}

/// Moments that look random, and are the same for a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn number(name: &str, unless_said: u64) -> u64 {
    std::env::var(name).map_or(unless_said, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Counts up, a message each with its own millisecond, until told to stop; the last count.
async fn produce(keeper: Arc<Keeper>, stop: Arc<AtomicBool>) -> u32 {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut last) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        keeper.until_fewer(MOST_HELD).await;
        let packet = u16::try_from(count % PACKETS + 1).expect("within u16");
        count += 1;
        last = (Time::now().0 / 1_000_000).max(last + 1);
        keeper.publish_as(packet, TOPIC, format!(r#"{{"state":"running","count":{count},"t":{last}}}"#));
    }
    count
}

async fn until(keeper: &Keeper, gemba: &Process, what: &str, wanted: impl FnMut(&State) -> bool) {
    if tokio::time::timeout(DEADLINE, keeper.until(wanted)).await.is_err() {
        let state = keeper.until(|_| true).await;
        let (held, acknowledged) = (state.held.len(), state.acknowledged.len());
        let health = gemba.health().await;
        panic!("waited {DEADLINE:?} for: {what}; {held} held, {acknowledged} acknowledged: {health:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let (kills, seed) = (number("GEMBA_KILLS", 8), number("GEMBA_SEED", 1));
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let (keeper, mut receiver) = (Arc::new(Keeper::start().await.expect("a broker")), Receiver::start());
    let file = folder.path().join("line.yaml");
    std::fs::write(&file, config(&keeper, &receiver, folder.path())).expect("written");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(keeper.clone(), stop.clone()));

    for kill in 0..kills {
        match dice.below(5) {
            0 => receiver.stop(),
            1 => receiver.script([Reply::Drop, Reply::Accept, Reply::Drop]),
            2 => receiver.script([Reply::Hang]),
            _ => receiver.restart(),
        }
        let gemba = Process::start(GEMBA, &file).await;
        let acknowledged = keeper.until(|_| true).await.acknowledged.len();
        let more = usize::try_from(dice.below(120)).expect("small");
        until(&keeper, &gemba, &format!("{more} more acknowledgements before kill {kill} of seed {seed}"), |state| {
            state.acknowledged.len() >= acknowledged + more
        })
        .await;
        // No condition: any moment will do.
        tokio::time::sleep(Duration::from_micros(dice.below(60_000))).await;
        gemba.kill();
    }

    stop.store(true, Ordering::Relaxed);
    let last = producer.await.expect("no panic");
    receiver.restart();
    receiver.unscript();
    let gemba = Process::start(GEMBA, &file).await;
    until(&keeper, &gemba, "all acknowledged", |state| state.held.is_empty()).await;
    let health = gemba
        .until("everything upstream", |health| {
            tag(station(health, "oven-1"), "total")["value"] == last && health["spool"]["readings"] == 0
        })
        .await;
    assert_eq!(station(&health, "oven-1")["kpi"]["total"], last - 1, "from the first message on, seed {seed}");
    assert_eq!(health["spool"]["dropped"], 0);
    assert!(gemba.stop().await.success());

    // What it accepted; an answer that a kill took is asked for again.
    let mut points = Vec::new();
    for request in receiver.accepted() {
        points.extend(request.points(METRIC).into_iter().filter(|point| point.number().is_some()));
    }
    let mut arrived: BTreeMap<u64, u64> = BTreeMap::new();
    let mut newest = 0;
    for point in &points {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = point.number().expect("a value") as u64;
        match arrived.insert(count, point.time) {
            None => {
                assert_eq!(count, newest + 1, "in order and without a hole, seed {seed}");
                newest = count;
            }
            Some(time) => assert_eq!(time, point.time, "what comes again is what came, seed {seed}"),
        }
    }
    assert_eq!(newest, u64::from(last), "all of it, seed {seed}");
    let good = |points: Vec<gemba_tests::receiver::Point>| {
        points.into_iter().rfind(|point| point.has("factory.part.disposition", "good"))
    };
    let told = receiver.accepted().iter().filter_map(|request| good(request.points("factory.parts"))).last();
    assert_eq!(told.and_then(|point| point.number()), Some(f64::from(last - 1)), "counted once, seed {seed}");
    assert!(receiver.logs("gemba.loss").is_empty(), "{:#?}", receiver.logs("gemba.loss"));
}
