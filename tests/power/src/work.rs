//! The spool at work, in a process of its own: commits, seals, drains, evicts and checkpoints until it has done its share
//! or is killed; and promises, on the disk that it works on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use gemba::spool::{self, Entry, Opened, Reader, Sealer, Settings, Writer};
use gemba_drivers::Loss;

use crate::dice::Dice;
use crate::plan::{self, Key, Stamp, entries, items};
use crate::promise::{Promise, Promises};
use crate::syncs::{self, Sync};

/// So far the writer may be ahead of house-keeping and upstream, in commits.
const AHEAD: usize = 8;

/// What is to be done.
#[derive(Args, Clone, Debug)]
pub struct Work {
    /// The spool's folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// Where promises are made.
    #[arg(long)]
    pub promises: PathBuf,
    /// What is written follows from it.
    #[arg(long)]
    pub seed: u64,
    /// One more with every start.
    #[arg(long)]
    pub generation: u8,
    /// No commit has a smaller number.
    #[arg(long)]
    pub first: u32,
    /// So many commits.
    #[arg(long)]
    pub commits: u32,
    /// The spool's bound, in bytes.
    #[arg(long)]
    pub room: u64,
    /// A journal's size, in bytes.
    #[arg(long)]
    pub journal: u64,
    /// A system call that does nothing, and says that it did.
    #[arg(long)]
    pub without: Option<Sync>,
}

impl Work {
    /// How the spool behaves.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let (path, max_size) = (self.folder.clone(), self.room);
        Settings { path, max_size, keep_free: 0, keep: Duration::ZERO, journal_size: self.journal }
    }

    /// Does it.
    ///
    /// # Errors
    /// When the spool fails, which it must not.
    pub fn run(&self) -> anyhow::Result<()> {
        if let Some(sync) = self.without {
            syncs::disable(sync)?;
        }
        let promises = Promises::open(&self.promises)?;
        let Opened { writer, reader, sealer, recovery, .. } = spool::open(self.settings(), &[])?;
        let found = recovery.last_commit.and_then(Stamp::of);
        promises.make(&Promise::Opened { generation: self.generation, found })?;
        let losses = recovery.losses.clone();
        recovery.entries().try_for_each(|entry| entry.map(drop))?; // as the model does

        let acknowledged = Arc::new(AtomicU64::new(0));
        let (tell, told) = channel();
        losses.into_iter().try_for_each(|loss| tell.send(loss))?;
        let (to_sealer, sealing) = sync_channel(AHEAD);
        let (to_reader, reading) = sync_channel(AHEAD);
        thread::scope(|threads| {
            let keeping = threads.spawn(move || keep_house(sealer, &sealing, &tell));
            let upstream =
                Upstream { seed: self.seed, promises: promises.clone(), acknowledged: Arc::clone(&acknowledged) };
            let draining = threads.spawn(move || upstream.drain(reader, &reading));
            let first = self.first.max(found.map_or(0, |found| found.commit + 1));
            let source = Source { work: self, promises, acknowledged, told, helpers: [to_sealer, to_reader] };
            let written = source.write(writer, first);
            // Without the source the helpers have nothing to wait for. What one of them says comes first: it is the cause.
            for helper in [keeping, draining] {
                helper.join().expect("no panic")?;
            }
            written
        })
    }
}

/// What commits.
struct Source<'a> {
    work: &'a Work,
    promises: Promises,
    acknowledged: Arc<AtomicU64>,
    told: Receiver<Loss>,
    helpers: [SyncSender<u32>; 2],
}

impl Source<'_> {
    fn write(self, mut writer: Writer, first: u32) -> anyhow::Result<()> {
        let Self { work, promises, acknowledged, told, helpers } = self;
        let mut dice = Dice::new(&[work.seed, u64::from(work.generation), 5]);
        for commit in first..first.saturating_add(work.commits) {
            let stamp = Stamp { commit, generation: work.generation };
            let mut seq = spool::Seq(0);
            for entry in entries(work.seed, stamp) {
                seq = writer.append(&entry);
            }
            for (index, loss) in (0..).zip(told.try_iter().take(50)) {
                let key = plan::telling(stamp, index);
                promises.make(&Promise::Telling { key, loss: loss.clone() })?;
                seq = writer.append(&plan::told(key, loss));
            }
            let checkpoint = dice.once_in(8);
            if checkpoint {
                writer.checkpoint(seq, &plan::state(work.seed, stamp));
            }
            let acknowledged = acknowledged.load(Ordering::SeqCst);
            let seq = writer.commit(stamp.time())?.0;
            promises.make(&Promise::Committed { stamp, seq, checkpoint, acknowledged })?;
            for helper in &helpers {
                helper.send(commit).context("a helper has ended")?;
            }
        }
        Ok(())
    }
}

fn keep_house(mut sealer: Sealer, commits: &Receiver<u32>, tell: &Sender<Loss>) -> anyhow::Result<()> {
    while commits.recv().is_ok() {
        loop {
            let worked = sealer.work()?;
            // Once the source has ended nobody writes them down any more: then the account keeps them.
            worked.losses.into_iter().for_each(|loss| drop(tell.send(loss)));
            if !worked.more {
                break;
            }
        }
    }
    Ok(())
}

/// Who receives, and is away at times.
struct Upstream {
    seed: u64,
    promises: Promises,
    acknowledged: Arc<AtomicU64>,
}

impl Upstream {
    fn drain(self, mut reader: Reader, commits: &Receiver<u32>) -> anyhow::Result<()> {
        let mut dice = Dice::new(&[self.seed, 6]);
        while let Ok(commit) = commits.recv() {
            if self.is_away(commit) {
                continue;
            }
            while let Some(chunk) = reader.next(1 + dice.below(600))? {
                // Sometimes it has only some of it when the connection breaks.
                let count = if dice.once_in(4) { 1 + dice.below(chunk.entries.len()) } else { chunk.entries.len() };
                let through = if count == chunk.entries.len() { chunk.last } else { chunk.entries[count - 1].0 };
                let entries: Vec<Entry> = chunk.entries.into_iter().take(count).map(|(_, entry)| entry).collect();
                for promise in Promise::accepted(through.0, items(entries).iter().filter_map(Key::of)) {
                    self.promises.make(&promise)?;
                }
                reader.acknowledge(through)?;
                self.acknowledged.store(through.0, Ordering::SeqCst);
                if dice.once_in(12) {
                    reader.flush()?;
                }
                if dice.once_in(3) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// For stretches of some thirty commits.
    fn is_away(&self, commit: u32) -> bool {
        Dice::new(&[self.seed, u64::from(commit / 30), 7]).below(3) > 0
    }
}
