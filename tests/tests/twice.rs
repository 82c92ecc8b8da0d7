//! A message that the broker sends twice, since an acknowledgement got lost, counts once.

use std::path::{Path, PathBuf};

use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_tests::agent::{Agent, Page, station, tag};
use gemba_tests::process::Process;
use gemba_tests::receiver::DEADLINE;
use gemba_tests::yaml;
use serde_json::Value as Json;

const GEMBA: &str = env!("CARGO_BIN_EXE_gemba-to-kill");
const TOPIC: &str = "fab-2/oven-1/telemetry";

/// One oven behind `keeper`; readings are committed after `sync` at the latest.
fn config(keeper: &Keeper, folder: &Path, sync: &str) -> String {
    yaml::oven(&yaml::head(folder, &format!("sync: {sync}")), &keeper.endpoint(), TOPIC, "")
}

fn written(yaml: &str, folder: &Path) -> PathBuf {
    let file = folder.join("line.yaml");
    std::fs::write(&file, yaml).expect("written");
    file
}

fn payload(count: u32) -> String {
    format!(r#"{{"state":"running","count":{count}}}"#)
}

/// Sends these counts; the packet identifiers.
fn send(keeper: &Keeper, counts: impl IntoIterator<Item = u32>) -> Vec<u16> {
    counts.into_iter().map(|count| keeper.publish(TOPIC, payload(count))).collect()
}

async fn until(keeper: &Keeper, what: &str, wanted: impl FnMut(&State) -> bool) -> State {
    match tokio::time::timeout(DEADLINE, keeper.until(wanted)).await {
        Ok(state) => state,
        Err(_) => panic!("waited {DEADLINE:?} for: {what}; it is so: {:#?}", keeper.until(|_| true).await),
    }
}

async fn until_counter(page: &Page, count: u32) -> Json {
    page.until("the counter", |health| tag(station(health, "oven-1"), "total")["value"] == count).await
}

/// The parts of a line that was never stopped: its counter began with `first`.
async fn parts(page: &Page) -> Json {
    station(&page.health().await, "oven-1")["kpi"]["total"].clone()
}

/// How often each of these packets was sent with DUP.
fn repeats(state: &State, packets: &[u16]) -> Vec<usize> {
    packets.iter().map(|packet| state.sent.iter().filter(|sent| **sent == (*packet, true)).count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_get_lost_before_a_kill_count_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = Keeper::start().await.expect("a broker");
    let file = written(&config(&keeper, folder.path(), "50ms"), folder.path());
    let gemba = Process::start(GEMBA, &file).await;
    send(&keeper, 1..=5);
    until(&keeper, "five on disk", |state| state.held.is_empty()).await;
    keeper.set_deaf(true);
    let unheard = send(&keeper, 6..=8);
    until(&keeper, "three more on disk", |state| state.acknowledged.ends_with(&unheard)).await;
    gemba.kill();

    keeper.set_deaf(false);
    send(&keeper, [9]);
    let gemba = Process::start(GEMBA, &file).await;
    until_counter(&gemba, 9).await;
    let state = until(&keeper, "the broker to be at peace", |state| state.held.is_empty()).await;
    assert_eq!(repeats(&state, &unheard), [1, 1, 1], "they came again");
    assert_eq!(parts(&gemba).await, 8, "from 1 to 9");

    // As one of them in every way but DUP: a message of its own. Its fall is a reset, by contract.
    keeper.publish_as(unheard[1], TOPIC, payload(7));
    until_counter(&gemba, 7).await;
    assert_eq!(parts(&gemba).await, 8 + 7);
    gemba.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_kill_took_is_read_when_it_comes_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = Keeper::start().await.expect("a broker");
    let file = written(&config(&keeper, folder.path(), "50ms"), folder.path());
    let gemba = Process::start(GEMBA, &file).await;
    send(&keeper, 1..=5);
    until(&keeper, "five on disk", |state| state.held.is_empty()).await;
    gemba.kill();

    // Seen, and not committed: no commit is due for a minute.
    let lazy = written(&config(&keeper, folder.path(), "60s"), folder.path());
    let gemba = Process::start(GEMBA, &lazy).await;
    let lost = send(&keeper, 6..=8);
    until_counter(&gemba, 8).await;
    gemba.kill();

    let state = until(&keeper, "the state", |_| true).await;
    assert!(state.acknowledged.iter().all(|packet| !lost.contains(packet)), "none was promised");
    let file = written(&config(&keeper, folder.path(), "50ms"), folder.path());
    let gemba = Process::start(GEMBA, &file).await;
    let state = until(&keeper, "all on disk", |state| state.held.is_empty()).await;
    assert_eq!(repeats(&state, &lost), [1, 1, 1]);
    until_counter(&gemba, 8).await;
    assert_eq!(parts(&gemba).await, 7, "from 1 to 8");
    gemba.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_that_get_lost_at_a_cut_or_a_stop_count_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeper = Keeper::start().await.expect("a broker");
    let yaml = config(&keeper, folder.path(), "50ms");
    let agent = Agent::start(&yaml).await;
    keeper.set_deaf(true);
    let unheard = send(&keeper, 1..=4);
    until(&keeper, "four on disk", |state| state.acknowledged == unheard).await;
    keeper.cut();
    until(&keeper, "them to come again", |state| state.acknowledged.len() == 8).await;
    let more = send(&keeper, 5..=6);
    until(&keeper, "two more on disk", |state| state.acknowledged.ends_with(&more)).await;
    assert_eq!(parts(&agent).await, 5, "from 1 to 6");
    // A stop writes a checkpoint: what was read before it is not read again at the start.
    agent.stop().await;

    keeper.set_deaf(false);
    send(&keeper, [7]);
    let agent = Agent::start(&yaml).await;
    let state = until(&keeper, "the broker to be at peace", |state| state.held.is_empty()).await;
    assert_eq!((repeats(&state, &unheard), repeats(&state, &more)), (vec![2; 4], vec![1; 2]));
    until_counter(&agent, 7).await;
    assert_eq!(parts(&agent).await, 6, "from 1 to 7");
    agent.stop().await;
}
