//! Round after round: record, cut, check; and the same with something taken out, to see that it is noticed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::binary;
use crate::check::History;
use crate::dice::Dice;
use crate::disk::{self, Attached};
use crate::log::Entry;
use crate::promise::{Promise, Promises};
use crate::recording::{About, Kind, Outcome, Recording, SPOOL};
use crate::syncs::Sync;
use crate::writers::{self, Sin};

/// First cuts of one recording.
const CUTS: usize = 25;
/// Cuts of a recording that was made on what a cut had left.
const SECOND_CUTS: usize = 6;
/// Commits in a recording.
const COMMITS: u32 = 160;
/// Small ones: several are sealed in a recording.
const JOURNAL: u64 = 16 << 10;
/// Of the spool, where it has to drop.
const LITTLE: u64 = 3 << 20;
/// Where it has not.
const ENOUGH: u64 = 1 << 30;
/// What nothing here takes.
const DEADLINE: Duration = Duration::from_secs(300);

/// How much is to be done.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// First cuts, of the spool and of the binary each.
    #[arg(long, default_value_t = 2_000)]
    first: usize,
    /// Second cuts (cut, recover, write on, cut again), of the spool and of the binary each.
    #[arg(long, default_value_t = 500)]
    second: usize,
    /// Cuts of each control.
    #[arg(long, default_value_t = 100)]
    controls: usize,
    /// Everything that is drawn follows from it; how threads meet does not.
    #[arg(long)]
    seed: Option<u64>,
    /// The gemba that is run. Without it only the spool is looked at.
    #[arg(long)]
    gemba: Option<PathBuf>,
    /// One of the two alone.
    #[arg(long)]
    only: Option<Kind>,
    /// A folder in memory for the work.
    #[arg(long)]
    work: PathBuf,
    /// Where recordings are kept of which a cut failed.
    #[arg(long)]
    keep: PathBuf,
}

/// Cuts that were made, and what came of them.
#[derive(Default)]
struct Tally {
    cuts: usize,
    mattered: usize,
    failed: usize,
    held: usize,
    dropping: usize,
    recordings: usize,
    entries: usize,
}

impl Run {
    /// Does it; whether nothing that was promised was lost, and everything that was taken out was noticed.
    ///
    /// # Errors
    /// When this machine cannot do it.
    pub fn run(&self) -> anyhow::Result<bool> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let seed = self.seed.unwrap_or(u64::from(now.subsec_nanos()) << 20 | now.as_secs() & 0xF_FFFF);
        println!("seed {seed}");
        let fresh = disk::fresh(&self.work)?;
        let mut fine = true;
        if self.only != Some(Kind::Binary) {
            for sin in [Sin::None, Sin::File, Sin::Folder] {
                fine &= self.control(Kind::Writer, &fresh, seed, Taken::Step(sin))?;
            }
            for taken in [Taken::Sync(Sync::Fdatasync), Taken::Sync(Sync::Fsync), Taken::Flushes] {
                fine &= self.control(Kind::Spool, &fresh, seed, taken)?;
            }
            fine &= self.prove(Kind::Spool, &fresh, seed)?;
        }
        if self.gemba.is_some() && self.only != Some(Kind::Spool) {
            fine &= self.control(Kind::Binary, &fresh, seed, Taken::Sync(Sync::Fdatasync))?;
            fine &= self.prove(Kind::Binary, &fresh, seed)?;
        }
        Ok(fine)
    }

    /// The cuts that must lose nothing.
    fn prove(&self, kind: Kind, fresh: &[u8], seed: u64) -> anyhow::Result<bool> {
        let began = Instant::now();
        let name = match kind {
            Kind::Spool => "spool",
            Kind::Binary => "binary",
            Kind::Writer => "writer",
        };
        let bar = progress(name, self.first + self.second);
        let (mut first, mut second) = (Tally::default(), Tally::default());
        let mut dice = Dice::new(&[seed, kind as u64]);
        while first.cuts < self.first {
            let round = dice.draw();
            let shape = Shape::of(first.recordings, round);
            let recording = self.record(kind, fresh.to_vec(), round, &shape, &[], None)?;
            let cuts = CUTS.min(self.first - first.cuts);
            // As many second cuts as there are still to be made for each first one.
            let wanted = (self.second * (first.cuts + cuts)).div_ceil(self.first).saturating_sub(second.cuts);
            let mut bases = Vec::new();
            first.take(&recording, cuts, &self.work, |outcome| {
                bar.inc(1);
                if let Err(error) = &outcome.result {
                    self.failed(&recording, outcome, error);
                }
                if bases.len() < wanted.div_ceil(SECOND_CUTS)
                    && let Ok((mended, _)) = &outcome.result
                {
                    bases.push((outcome.cut.at, mended.clone()));
                }
            })?;
            let mut left = wanted;
            for (at, base) in bases {
                let again =
                    self.record(kind, base, dice.draw(), &shape, &recording.promised(at), Some(recording.about.seed))?;
                let cuts = SECOND_CUTS.min(left);
                left -= cuts;
                second.take(&again, cuts, &self.work, |outcome| {
                    bar.inc(1);
                    if let Err(error) = &outcome.result {
                        self.failed(&again, outcome, error);
                    }
                })?;
            }
        }
        bar.finish_and_clear();
        println!("{name}: {} first cuts, {} second cuts, in {} s", first.cuts, second.cuts, began.elapsed().as_secs());
        first.print("first ");
        second.print("second");
        Ok(first.failed + second.failed == 0)
    }

    /// Something is taken out, which must be noticed; and nothing, which must not.
    fn control(&self, kind: Kind, fresh: &[u8], seed: u64, taken: Taken) -> anyhow::Result<bool> {
        let what = taken.words();
        let mut dice = Dice::new(&[seed, 17, u64::from(what.as_bytes()[0])]);
        let bar = progress(&format!("control: {what}"), self.controls);
        let mut tally = Tally::default();
        let mut said = BTreeMap::<String, usize>::new();
        while tally.cuts < self.controls {
            let round = dice.draw();
            let shape = Shape { taken: Some(taken), killed: None, ..Shape::of(tally.recordings, round) };
            let mut recording = self.record(kind, fresh.to_vec(), round, &shape, &[], None)?;
            recording.about.lies = taken == Taken::Flushes;
            let cuts = CUTS.min(self.controls - tally.cuts);
            tally.take(&recording, cuts, &self.work, |outcome| {
                bar.inc(1);
                if let Err(error) = &outcome.result {
                    let words: String =
                        format!("{error:#}").chars().filter(|letter| !letter.is_ascii_digit()).take(70).collect();
                    *said.entry(words).or_default() += 1;
                }
            })?;
        }
        bar.finish_and_clear();
        let often = said.iter().max_by_key(|(_, times)| **times).map_or("nothing", |(words, _)| words.as_str());
        println!("control, {kind:?}, {what}: {} of {} cuts caught; most often: {often}", tally.failed, tally.cuts);
        Ok(match taken {
            Taken::Step(Sin::None) => tally.failed == 0,
            // ext4's own journal makes up for most of it: told, and not asked for.
            Taken::Sync(Sync::Fsync) => true,
            _ => tally.failed > 0,
        })
    }

    fn record(
        &self,
        kind: Kind,
        base: Vec<u8>,
        seed: u64,
        shape: &Shape,
        before: &[Promise],
        content: Option<u64>,
    ) -> anyhow::Result<Recording> {
        let content = content.unwrap_or(seed);
        let attached = Attached::new(base.clone(), &self.work, shape.discard)?;
        let promises = Promises::open(&attached.promises)?;
        promises.make(&Promise::Begin)?;
        let start = attached.told();
        match kind {
            Kind::Spool => work(&attached, content, seed, shape, before)?,
            Kind::Binary => {
                let gemba = self.gemba.as_deref().context("no gemba")?;
                binary::work(&attached, gemba, seed, shape.evicts, shape.without(), before)?;
            }
            Kind::Writer => {
                let Some(Taken::Step(sin)) = shape.taken else { bail!("a writer is a control") };
                writers::work(&attached, sin)?;
            }
        }
        let mut range = start..attached.told();
        promises.make(&Promise::End)?;
        drop(promises);
        let entries = attached.finish()?;
        if kind == Kind::Spool && shape.killed == Some(Killed::BeforeSyncs) {
            let opened = |entry: &Entry| matches!(Promise::of(entry), Some(Promise::Opened { .. }));
            range.start = entries.iter().rposition(opened).context("nobody opened the spool")?;
        }
        let about = About {
            kind,
            seed: content,
            journal: JOURNAL,
            evicts: shape.evicts,
            lies: false,
            before: before.to_vec(),
            range,
        };
        Ok(Recording { about, base, entries })
    }

    fn failed(&self, recording: &Recording, outcome: &Outcome, error: &anyhow::Error) {
        let folder = self.keep.join(format!(
            "{:?}-{:016x}-{}",
            recording.about.kind,
            recording.about.seed,
            recording.about.before.len()
        ));
        eprintln!("FAILED: {}: {error:#}", outcome.cut);
        match if folder.exists() { Ok(()) } else { recording.save(&folder) } {
            Ok(()) => eprintln!("  again: tests/power/run --again {} --cut {}", folder.display(), outcome.cut.seed()),
            Err(error) => eprintln!("  and its recording cannot be kept: {error:#}"),
        }
    }
}

impl Tally {
    fn take(
        &mut self,
        recording: &Recording,
        cuts: usize,
        work: &Path,
        mut each: impl FnMut(&Outcome) + Send,
    ) -> anyhow::Result<()> {
        self.recordings += 1;
        self.entries += recording.about.range.len();
        recording.cuts(recording.about.seed, cuts, work, |outcome| {
            self.cuts += 1;
            self.mattered += usize::from(outcome.mattered);
            match &outcome.result {
                Ok((_, sound)) => {
                    self.held += sound.held;
                    self.dropping += usize::from(sound.dropped > 0);
                }
                Err(_) => self.failed += 1,
            }
            each(&outcome);
        })
    }

    fn print(&self, name: &str) {
        let each = |sum: usize| sum / self.cuts.max(1);
        println!(
            "  {name}: {} failed; {} recordings of {} writes and flushes; unflushed writes at {} cuts; {} items for upstream left by a cut; {} cuts after something was dropped",
            self.failed,
            self.recordings,
            self.entries / self.recordings.max(1),
            self.mattered,
            each(self.held),
            self.dropping,
        );
    }
}

/// What is taken out, for a control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// A system call of the program's.
    Sync(Sync),
    /// The disk's flushes: it says that it has done them.
    Flushes,
    /// A step of our own writer.
    Step(Sin),
}

impl Taken {
    fn words(self) -> String {
        match self {
            Self::Sync(sync) => format!("no {}", sync.word()),
            Self::Flushes => "a disk that does not flush".to_owned(),
            Self::Step(sin) => sin.words().to_owned(),
        }
    }
}

/// What a round is like.
#[derive(Clone, Debug)]
struct Shape {
    evicts: bool,
    discard: bool,
    killed: Option<Killed>,
    taken: Option<Taken>,
}

impl Shape {
    fn without(&self) -> Option<Sync> {
        self.taken.and_then(|taken| match taken {
            Taken::Sync(sync) => Some(sync),
            _ => None,
        })
    }

    /// Of the recording `number`: each kind comes, however few there are.
    fn of(number: usize, seed: u64) -> Self {
        let mut dice = Dice::new(&[seed, 13]);
        let killed = [None, Some(Killed::Anywhere), Some(Killed::BeforeSyncs), None][(number + number / 4) % 4];
        Self { evicts: number % 2 == 1, discard: dice.once_in(3), killed, taken: None }
    }
}

/// A workload that is killed with -9 on the way and started again, before there is a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// At any moment.
    Anywhere,
    /// As if between a write and its fdatasync, of every journal: what the next start finds is in the kernel's memory alone.
    /// All of it counts as durable once that start has opened the spool, and only then cuts are made.
    BeforeSyncs,
}

/// The spool's own workload on a disk, killed once on the way if its shape says so.
fn work(attached: &Attached, content: u64, seed: u64, shape: &Shape, before: &[Promise]) -> anyhow::Result<()> {
    let mut history = History::default();
    before.iter().cloned().try_for_each(|promise| history.add(promise))?;
    // Of the commits that a kill may have left, the start itself knows.
    let first = history.committed.map_or(1, |stamp| stamp.commit + 1);
    let mut generation = history.generation() + 1;
    let mut start = |commits: u32, without: Option<Sync>| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["work", "--folder"]).arg(attached.root.join(SPOOL)).arg("--promises").arg(&attached.promises);
        let room = if shape.evicts { LITTLE } else { ENOUGH };
        let numbers = [
            ("--seed", content),
            ("--generation", generation.into()),
            ("--first", first.into()),
            ("--commits", commits.into()),
            ("--room", room),
            ("--journal", JOURNAL),
        ];
        for (name, number) in numbers {
            command.arg(name).arg(number.to_string());
        }
        if let Some(sync) = without {
            command.args(["--without", sync.word()]);
        }
        generation += 1;
        anyhow::Ok(command.stdin(Stdio::null()).spawn()?)
    };
    let mut commits = COMMITS;
    if let Some(killed) = shape.killed {
        let without = (killed == Killed::BeforeSyncs).then_some(Sync::Fdatasync);
        let mut child = start(commits, without.or(shape.without()))?;
        let enough = attached.told() + 200 + Dice::new(&[seed, 19]).below(1_500);
        until(&mut child, || attached.told() >= enough)?;
        child.kill()?; // no harm if it has ended
        child.wait()?;
        commits /= 2;
    }
    let mut child = start(commits, shape.without())?;
    ensure!(until(&mut child, || false)?, "it did not end");
    let status = child.wait()?;
    ensure!(status.success(), "the workload failed: {status}");
    Ok(())
}

/// Waits until a process ends, which is true, or something else happens, which is not.
fn until(child: &mut Child, happened: impl Fn() -> bool) -> anyhow::Result<bool> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        if happened() {
            return Ok(false);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("nothing happened for {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// On a terminal only.
fn progress(name: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("a template");
    ProgressBar::new(length as u64).with_style(style).with_message(name.to_owned())
}
