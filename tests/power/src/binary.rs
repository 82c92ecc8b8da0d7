//! gemba as it is shipped, at work: messages come from a broker and are acknowledged, upstream comes and goes, the spool lies
//! on the disk that remembers. What the broker and upstream saw are the promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use gemba::record::Record;
use gemba::spool::{Entry, JOURNAL_SIZE, Opened, Seq, SeriesId};
use gemba_drivers::Value;
use gemba_drivers::sim::keeper::{Keeper, State};
use gemba_tests::process::Process;
use gemba_tests::receiver::{Received, Receiver, Reply};
use gemba_tests::yaml;
use tokio::time::timeout;

use crate::check::{Sound, open};
use crate::dice::Dice;
use crate::disk::Attached;
use crate::plan::Key;
use crate::promise::{Promise, Promises};
use crate::syncs::Sync;

/// `spool.sync`: what a cut may cost.
const SYNC: Duration = Duration::from_millis(100);
/// Beside it a message has to come, be read and be written, on a machine that does much else.
const SLACK: Duration = Duration::from_secs(10);
/// What nothing here takes.
const DEADLINE: Duration = Duration::from_secs(120);
/// Messages in a recording.
const MESSAGES: u64 = 900;
/// On their way at a time.
const IN_FLIGHT: usize = 40;
/// Readings in each: a number and a text.
const READINGS: u64 = 2;
/// Bytes of text in each, so that journals fill.
const TEXT: usize = 2_000;
const TOPIC: &str = "press/1";

/// Runs `gemba` on a disk until every message is acknowledged.
///
/// # Errors
/// When it does not start or does not get on.
pub fn work(
    attached: &Attached,
    gemba: &Path,
    seed: u64,
    evicts: bool,
    without: Option<Sync>,
    before: &[Promise],
) -> anyhow::Result<()> {
    let promises = Promises::open(&attached.promises)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(messages(attached, &promises, gemba, seed, evicts, without, next(before)))
}

/// The first number that was not sent yet.
fn next(before: &[Promise]) -> u64 {
    let sent = before.iter().filter_map(|promise| match promise {
        Promise::Sent { number, .. } => Some(number.0),
        _ => None,
    });
    sent.max().map_or(1, |last| last + 1)
}

async fn messages(
    attached: &Attached,
    promises: &Promises,
    gemba: &Path,
    seed: u64,
    evicts: bool,
    without: Option<Sync>,
    first: u64,
) -> anyhow::Result<()> {
    let mut dice = Dice::new(&[seed, 23]);
    let keeper = Keeper::start().await?;
    let receiver = Receiver::start();
    let is_up = Arc::new(AtomicBool::new(true));
    let (upstream, up) = (promises.clone(), Arc::clone(&is_up));
    receiver.answer_with(move |request| {
        if !up.load(Ordering::SeqCst) {
            return Reply::Busy(Some(1));
        }
        match accepted(request).iter().try_for_each(|promise| upstream.make(promise)) {
            Ok(()) => Reply::Accept,
            Err(error) => Reply::fail(&error.to_string()),
        }
    });

    let configuration = tempfile::tempdir()?;
    let file = configuration.path().join("line.yaml");
    fs::write(&file, yaml(attached, &keeper, &receiver, evicts))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("start");
    if let Some(sync) = without {
        command.args(["--without", sync.word()]);
    }
    let process = Process::run(
        {
            command.arg("--").arg(gemba);
            command
        },
        &file,
    )
    .await;

    let began = Instant::now();
    let (away, back) = (MESSAGES / 10 + dice.draw() % 100, MESSAGES / 2 + dice.draw() % (MESSAGES / 3));
    let mut heard = 0;
    let mut sent = 0;
    while heard < usize::try_from(MESSAGES)? {
        while sent < MESSAGES && usize::try_from(sent)? < heard + IN_FLIGHT {
            let number = first + sent;
            let at = u64::try_from(began.elapsed().as_millis())?;
            promises.make(&Promise::Sent { number: Key(number), at })?;
            keeper.publish(TOPIC, format!(r#"{{"n":{number},"text":"{}"}}"#, text(number)));
            sent += 1;
            is_up.store(sent < away || sent >= back, Ordering::SeqCst);
        }
        let state = until(&keeper, |state| state.acknowledged.len() > heard).await?;
        // Packet identifiers begin with 1 in every recording.
        let numbers = state.acknowledged[heard..].iter().map(|packet| Key(first + u64::from(*packet) - 1));
        Promise::acknowledged(numbers).iter().try_for_each(|promise| promises.make(promise))?;
        heard = state.acknowledged.len();
    }
    if dice.once_in(2) {
        process.kill();
    } else {
        let status = process.stop().await;
        ensure!(status.success(), "gemba ended with {status}");
    }
    Ok(())
}

async fn until(keeper: &Keeper, wanted: impl FnMut(&State) -> bool) -> anyhow::Result<State> {
    timeout(DEADLINE, keeper.until(wanted)).await.context("nothing is acknowledged any more")
}

fn yaml(attached: &Attached, keeper: &Keeper, receiver: &Receiver, evicts: bool) -> String {
    let room = if evicts { "2MiB" } else { "1GiB" };
    format!(
        r#"{head}
upstream: {{ otlp: {{ endpoint: "{upstream}" }} }}
stations:
  - name: press-1
    source:
      type: mqtt
      endpoint: {endpoint}
      client_id: gemba-power
      topics: [{{ topic: {TOPIC}, qos: 1, payload: json }}]
    tags:
      - {{ name: n, path: "$.n" }}
      - {{ name: text, path: "$.text" }}
"#,
        head = yaml::head(&attached.root, &format!("sync: {}ms, max_size: {room}, keep_free: 1MiB", SYNC.as_millis())),
        upstream = receiver.endpoint(),
        endpoint = keeper.endpoint(),
    )
}

/// What upstream has with this request.
fn accepted(request: &Received) -> Vec<Promise> {
    let numbers = request.points("factory.tag.n").into_iter().filter_map(|point| point.number());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    Promise::accepted(0, numbers.map(|number| Key(number as u64)))
}

/// The text of a message.
fn text(number: u64) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut dice = Dice::new(&[number, 29]);
    (0..TEXT).map(|_| char::from(LETTERS[dice.below(LETTERS.len())])).collect()
}

/// What the broker and upstream saw.
#[derive(Default)]
struct Seen {
    acknowledged: BTreeSet<Key>,
    accepted: BTreeSet<Key>,
    /// When each was sent, by its number.
    sent: Vec<(Key, u64)>,
    /// When the newest was, in this recording.
    now: u64,
}

impl Seen {
    fn new(promised: &[Promise]) -> Self {
        let mut seen = Self::default();
        let all = |runs: &[(Key, u32)]| {
            let keys = runs.iter().flat_map(|(first, count)| (0..u64::from(*count)).map(|at| Key(first.0 + at)));
            keys.collect::<Vec<_>>()
        };
        for promise in promised {
            match promise {
                // A clock of its own, and all that was sent before and lost is not looked at again.
                Promise::Begin => seen.sent.clear(),
                Promise::Sent { number, at } => {
                    seen.sent.push((*number, *at));
                    seen.now = *at;
                }
                Promise::Acknowledged { runs } => seen.acknowledged.extend(all(runs)),
                Promise::Accepted { runs, .. } => seen.accepted.extend(all(runs)),
                _ => {}
            }
        }
        seen
    }
}

/// Compares gemba's spool with what the broker and upstream saw.
///
/// # Errors
/// With the first promise that is broken.
pub fn check(folder: &Path, promised: &[Promise], evicts: bool) -> anyhow::Result<Sound> {
    let seen = Seen::new(promised);
    let mut held = BTreeSet::new();
    let mut dropped = 0;
    if folder.exists() {
        let Opened { writer, mut reader, mut sealer, recovery, catalog, .. } = open(folder, JOURNAL_SIZE)?;
        let tag = |series: SeriesId| catalog.get(series).map(|series| series.tag.to_string());
        let last_commit = recovery.last_commit;
        let mut losses = recovery.losses.clone();
        let mut entries = Vec::new();
        while let Some(chunk) = reader.next(1_000)? {
            entries.extend(chunk.entries);
            reader.acknowledge(chunk.last)?;
        }
        losses.extend(sealer.work()?.losses);
        in_order(&entries, Seq(0)).context("what is for upstream")?;
        for (_, entry) in &entries {
            match entry {
                Entry::Readings(readings) => {
                    for reading in readings {
                        match (tag(reading.series).context("a series that nobody knows")?.as_str(), &reading.value) {
                            ("n", Value::Int(number)) => {
                                let key = Key(u64::try_from(*number)?);
                                ensure!(
                                    held.last().is_none_or(|last| *last < key),
                                    "{key:?} comes after {:?}",
                                    held.last()
                                );
                                held.insert(key);
                            }
                            ("text", Value::Text(found)) => {
                                let number = held.last().context("a text before its number")?.0;
                                ensure!(**found == *text(number), "the text of {number} is garbled");
                            }
                            // The link's own: a tag is bad before the first message and after a kill.
                            (_, Value::Null) => {}
                            other => anyhow::bail!("{other:?} was not to be here"),
                        }
                    }
                }
                Entry::Record { record: Record::Loss { loss, .. }, .. } => losses.push(loss.clone()),
                _ => {}
            }
        }
        let (through, last) = (recovery.checkpoint.as_ref().map_or(Seq(0), |checkpoint| checkpoint.0), recovery.last);
        ensure!(through <= last, "the checkpoint has applied {through:?}, the last is {last:?}");
        let after = recovery.entries().collect::<Result<Vec<_>, _>>()?;
        in_order(&after, through).context("what is for the model")?;

        losses.sort_by_key(|loss| (loss.from, loss.to, loss.count, loss.source.clone(), loss.reason.clone()));
        losses.dedup();
        let of_spool = losses
            .into_iter()
            .filter(|loss| ["readings", "spool", "events", "kpis", "telemetry"].contains(&&*loss.source));
        // A commit that was cut off in the middle was promised to nobody: it is told of, and no damage.
        let of_spool: Vec<_> = of_spool
            .filter(|loss| &*loss.reason == "spool full" || last_commit.is_some_and(|time| loss.from <= time))
            .collect();
        let damage = of_spool.iter().find(|loss| &*loss.reason != "spool full");
        ensure!(damage.is_none(), "a sound disk is said to be damaged: {damage:?}");
        ensure!(evicts || of_spool.is_empty(), "nothing had to go, and it lost {of_spool:?}");
        // Not the sum of what losses say: the record of one is an event, and may have had to go itself.
        dropped = writer.view().dropped;
    }

    let is_there = |key: &Key| held.contains(key) || seen.accepted.contains(key);
    let gone: Vec<_> = seen.acknowledged.iter().filter(|key| !is_there(key)).collect();
    ensure!(
        gone.is_empty() || evicts && gone.len() as u64 * READINGS <= dropped,
        "{} were acknowledged and are gone, from {:?}; {dropped} readings are told of",
        gone.len(),
        gone[0],
    );
    let allowed = u64::try_from((SYNC + SLACK).as_millis())?;
    let old = seen
        .sent
        .iter()
        .find(|(key, at)| !is_there(key) && !seen.acknowledged.contains(key) && at + allowed < seen.now);
    ensure!(old.is_none(), "{old:?} was sent long before {} ms and is gone", seen.now);
    Ok(Sound { held: held.len(), dropped: gone.len() })
}

/// Sequences grow, and begin after this one.
fn in_order(entries: &[(Seq, Entry)], mut before: Seq) -> anyhow::Result<()> {
    for (seq, _) in entries {
        ensure!(*seq > before, "{seq:?} comes after {before:?}");
        before = *seq;
    }
    Ok(())
}
