//! kill -9, again and again on one folder: whatever was promised is there, once, in order.
//!
//! A child appends numbered entries, commits, seals and forwards, and says what it promises. The kill comes at a random
//! moment. What is then found must fit what was said. A power cut is more than this: the page cache outlives a kill.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gemba::spool::{Entry, Opened, Reader, Sealer, SpoolError, Writer};

use crate::rig::{Dice, FOLDER, child, copy_tree, drain, event, numbers, readings, settings, start, time_of};

/// In the child's environment: the first number to write, and what makes this life different from the others.
const FROM: &str = "GEMBA_TEST_FROM";
const SEED: &str = "GEMBA_SEED";

/// What a child has said so far. Its promises only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// Numbers below are durable.
    durable: u64,
    /// Numbers below may be durable: the commit was begun.
    begun: u64,
    /// Numbers below were acknowledged, and a later commit has said so to the disk.
    acknowledged: u64,
    /// Numbers below may have been acknowledged.
    forwarded: u64,
    /// The newest durable checkpoint has applied the numbers below.
    checkpoint: u64,
    /// The newest checkpoint that may be durable.
    checkpoint_begun: u64,
}

impl Promised {
    fn hear(&mut self, line: &str) {
        let Some(said) = line.strip_prefix("spool: ") else { return };
        let mut words = said.split(' ');
        let word = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        match (word, &numbers[..]) {
            ("begun", &[begun, checkpoint]) => (self.begun, self.checkpoint_begun) = (begun, checkpoint),
            ("durable", &[durable, acknowledged, checkpoint]) => {
                (self.durable, self.checkpoint) = (durable, checkpoint);
                self.acknowledged = self.acknowledged.max(acknowledged);
            }
            ("forwarding", &[forwarded]) => self.forwarded = self.forwarded.max(forwarded),
            _ => panic!("the child says `{said}`"),
        }
    }
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_was_promised() {
    let kills: u64 = env_number("GEMBA_KILLS").unwrap_or(10);
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let seed = env_number(SEED).unwrap_or(now);
    eprintln!("{kills} kills; {SEED}={seed} makes the same lives again, though not the same moments");
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut promised = Promised::default();
    for kill in 1..=kills {
        live_and_die(folder.path(), &mut promised, &mut dice);
        promised = examine(folder.path(), promised, kill);
        if kill % 20 == 0 {
            catch_up(folder.path(), &mut promised); // or three hundred lives leave a backlog that takes its time
        }
    }
    assert!(promised.durable > 100 * kills, "the children did next to nothing: {promised:?}");
}

/// One child, until it is killed.
fn live_and_die(folder: &Path, promised: &mut Promised, dice: &mut Dice) {
    let mut command = child("kill::a_life_to_be_ended_by_a_kill", folder, &[]);
    command.env(FROM, promised.durable.to_string()).env(SEED, dice.roll(u64::MAX).to_string());
    let mut life = Life::start(command.stdout(Stdio::piped()).spawn().expect("this program starts again"));
    let commits = 1 + dice.roll(60);
    let durable = life.lines.by_ref().filter(|line| {
        let line = line.as_ref().expect("text");
        promised.hear(line);
        line.starts_with("spool: durable")
    });
    assert_eq!(durable.take(commits as usize).count() as u64, commits, "the child ended by itself");
    let second = start(settings(folder)).err().expect("refused while the child lives");
    assert!(matches!(second, SpoolError::Held(_)), "{second}");
    // Not waiting for anything: the moment is to be any.
    std::thread::sleep(Duration::from_micros(dice.roll(20_000)));
    life.kill();
    // What was said before the kill was promised, whether heard by then or not.
    life.lines.by_ref().for_each(|line| promised.hear(&line.expect("text")));
}

/// Looks at a copy, so that the next child finds just what the kill left. Returns where things stand now.
fn examine(folder: &Path, promised: Promised, kill: u64) -> Promised {
    let copy = tempfile::tempdir().expect("a folder");
    copy_tree(folder, copy.path());
    let mut spool = start(settings(copy.path())).expect("opens");
    let context = format!("kill {kill}, {promised:?}");
    assert_eq!(spool.recovery.losses, [], "{context}");

    let pending = drain(&mut spool);
    let first = pending.first().copied();
    assert!(pending.windows(2).all(|pair| pair[1] == pair[0] + 1), "once, and in order: {context} {pending:?}");
    let Opened { recovery, .. } = spool;
    let (checkpoint, last) = (recovery.checkpoint.clone(), recovery.last);
    let applied = checkpoint.as_ref().map_or(0, |(_, state)| state_number(state));
    let again: Vec<u64> = recovery.entries().flat_map(|entry| numbers(&entry.expect("reads").1)).collect();
    assert!(again.iter().copied().eq(applied..applied + again.len() as u64), "{context}: from {applied}: {again:?}");
    assert!(checkpoint.is_none_or(|(through, _)| through <= last), "{context}");

    // Only the commit that was under way may be there or not, and as a whole.
    let durable = applied + again.len() as u64;
    assert!(durable == promised.durable || durable == promised.begun, "{durable} are durable: {context}");
    assert!(applied == promised.checkpoint || applied == promised.checkpoint_begun, "{applied}: {context}");
    let acknowledged = first.unwrap_or(durable);
    assert!(pending.last().is_none_or(|last| last + 1 == durable), "{context} {pending:?}");
    assert!(
        (promised.acknowledged..=promised.forwarded).contains(&acknowledged),
        "upstream has {acknowledged}: {context}"
    );
    Promised {
        durable,
        begun: durable,
        acknowledged,
        forwarded: promised.forwarded,
        checkpoint: applied,
        checkpoint_begun: applied,
    }
}

/// Upstream gets all there is, in a life that ends well.
fn catch_up(folder: &Path, promised: &mut Promised) {
    let mut spool = start(settings(folder)).expect("opens");
    drain(&mut spool);
    while spool.sealer.work().expect("keeps house").more {}
    (promised.acknowledged, promised.forwarded) = (promised.durable, promised.durable);
}

/// A running child, killed in any case.
struct Life {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Life {
    fn start(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    fn kill(&mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a child to wait for");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Ended already, unless an assertion failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The child's part; nothing to do when it is not one.
#[test]
fn a_life_to_be_ended_by_a_kill() {
    let (Some(folder), Some(from)) = (std::env::var_os(FOLDER), env_number(FROM)) else { return };
    // A panic in any of the threads ends the life, which the parent notices.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("in the child: {panic}");
        std::process::abort();
    }));
    let mut dice = Dice(env_number(SEED).expect("a seed"));
    let Opened { writer, reader, sealer, recovery, .. } = start(settings(Path::new(&folder))).expect("opens");
    assert_eq!(recovery.losses, []);
    let applied = recovery.checkpoint.as_ref().map_or(0, |(_, state)| state_number(state));
    let again = recovery.entries().flat_map(|entry| numbers(&entry.expect("reads").1)).count() as u64;
    assert_eq!(applied + again, from, "the parent found something else in its copy");

    say(""); // libtest leaves a line open
    let acknowledged = AtomicU64::new(0);
    let online = dice.roll(3) > 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if online {
                forward(reader, &acknowledged);
            }
        });
        scope.spawn(|| keep_house(sealer));
        write(writer, (from, applied), &mut dice, &acknowledged);
    });
}

/// Appends and commits until it is killed.
fn write(mut writer: Writer, (mut next, mut checkpoint): (u64, u64), dice: &mut Dice, acknowledged: &AtomicU64) {
    loop {
        for _ in 0..=dice.roll(3) {
            let count = 1 + dice.roll(300);
            writer.append(&readings(next..next + count));
            writer.append(&event(next + count));
            next += count + 1;
        }
        if dice.roll(4) == 0 {
            let mut state = next.to_le_bytes().to_vec();
            state.resize(8 + dice.roll(9_000) as usize, 7);
            let through = writer.append(&Entry::Tick(time_of(next)));
            writer.checkpoint(through, &state);
            checkpoint = next;
        }
        // What is acknowledged by now becomes durable with the commit.
        let known = acknowledged.load(Ordering::SeqCst);
        say(&format!("spool: begun {next} {checkpoint}"));
        writer.commit(time_of(next)).expect("commits");
        say(&format!("spool: durable {next} {known} {checkpoint}"));
    }
}

/// Upstream takes everything, a piece at a time.
fn forward(mut reader: Reader, acknowledged: &AtomicU64) {
    loop {
        let Some(chunk) = reader.next(500).expect("reads") else {
            std::thread::yield_now();
            continue;
        };
        let last = chunk.entries.iter().flat_map(|(_, entry)| numbers(entry)).last().expect("never empty");
        say(&format!("spool: forwarding {}", last + 1));
        reader.acknowledge(chunk.last).expect("acknowledges");
        acknowledged.store(last + 1, Ordering::SeqCst);
    }
}

fn keep_house(mut sealer: Sealer) {
    loop {
        let worked = sealer.work().expect("keeps house");
        assert_eq!(worked.losses, []);
        if !worked.more {
            std::thread::yield_now();
        }
    }
}

fn state_number(state: &[u8]) -> u64 {
    u64::from_le_bytes(state[..8].try_into().expect("8 bytes"))
}

/// One line in one write: a pipe takes it whole or not at all.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent listens");
}

fn env_number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
