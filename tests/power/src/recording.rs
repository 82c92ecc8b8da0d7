//! A workload's disk from beginning to end, and every cut of it.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;
use std::thread;

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::check::{History, Sound};
use crate::cut::{Cut, Disk};
use crate::dice::Dice;
use crate::log::{self, Entry};
use crate::promise::Promise;
use crate::{binary, check, disk, writers};

/// The spool's folder, on the disk.
pub const SPOOL: &str = "spool";
/// Checks at a time.
const WORKERS: usize = 2;

/// Who was at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Kind {
    /// The spool alone.
    Spool,
    /// gemba as it is shipped.
    Binary,
    /// A few lines of our own, to see what the method sees.
    #[value(skip)]
    Writer,
}

/// What must be known of a recording beside its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Who was at work.
    pub kind: Kind,
    /// What was written follows from it.
    pub seed: u64,
    /// A journal's size, in bytes.
    pub journal: u64,
    /// It had too little room, so it had to drop.
    pub evicts: bool,
    /// The disk says that it has flushed, and has not.
    pub lies: bool,
    /// What was promised on this disk before.
    pub before: Vec<Promise>,
    /// Where in the log the workload was at work.
    pub range: Range<usize>,
}

/// A recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What it is.
    pub about: About,
    /// The disk before it.
    pub base: Vec<u8>,
    /// What the disk was told.
    pub entries: Vec<Entry>,
}

/// What came of a cut.
pub struct Outcome {
    /// Which.
    pub cut: Cut,
    /// There was something that luck decided.
    pub mattered: bool,
    /// The disk after the start that followed, and whether all that was promised was there.
    pub result: anyhow::Result<(Vec<u8>, Sound)>,
}

impl Recording {
    /// So many cuts; their seeds follow from `seed`. `each` is told of every one, in any order.
    ///
    /// # Errors
    /// When the folder for the work cannot be used.
    pub fn cuts(&self, seed: u64, count: usize, work: &Path, each: impl FnMut(Outcome) + Send) -> anyhow::Result<()> {
        let mut dice = Dice::new(&[seed, 11]);
        let cuts = (0..count).map(|_| Cut::new(dice.draw(), self.about.range.clone(), &self.entries));
        self.make(cuts.collect(), work, each)
    }

    /// One cut again, by its seed.
    ///
    /// # Errors
    /// As [`cuts`](Self::cuts).
    pub fn again(&self, seed: u64, work: &Path, each: impl FnMut(Outcome) + Send) -> anyhow::Result<()> {
        self.make(vec![Cut::new(seed, self.about.range.clone(), &self.entries)], work, each)
    }

    fn make(&self, mut cuts: Vec<Cut>, work: &Path, each: impl FnMut(Outcome) + Send) -> anyhow::Result<()> {
        cuts.sort_by_key(|cut| cut.at);
        let each = Mutex::new(each);
        let (give, take) = sync_channel::<(Cut, Vec<u8>, bool, Vec<Promise>)>(0);
        let take = Mutex::new(take);
        thread::scope(|threads| {
            for worker in 0..WORKERS {
                let (take, each) = (&take, &each);
                let folder = work.join(format!("worker-{worker}"));
                threads.spawn(move || {
                    loop {
                        let Ok((cut, image, mattered, promised)) = take.lock().expect("no panic").recv() else { break };
                        let looked = catch_unwind(AssertUnwindSafe(|| self.look(&image, &promised, &folder)));
                        let result = looked.unwrap_or_else(|_| Err(anyhow!("it panicked")));
                        drop(fs::remove_dir_all(&folder));
                        (*each.lock().expect("no panic"))(Outcome { cut, mattered, result });
                    }
                });
            }
            let mut disk = Disk::new(self.base.clone(), &self.entries);
            if self.about.lies {
                disk.lie_from(self.about.range.start);
            }
            for cut in cuts {
                let (image, mattered) = disk.cut(&cut);
                let promised = self.promised(cut.at);
                give.send((cut, image, mattered, promised)).context("the workers are gone")?;
            }
            drop(give);
            Ok(())
        })
    }

    /// What was promised before the entry `at`.
    #[must_use]
    pub fn promised(&self, at: usize) -> Vec<Promise> {
        let here = self.entries[..at].iter().filter_map(Promise::of);
        self.about.before.iter().cloned().chain(here).collect()
    }

    fn look(&self, image: &[u8], promised: &[Promise], folder: &Path) -> anyhow::Result<(Vec<u8>, Sound)> {
        fs::create_dir_all(folder)?;
        let About { kind, seed, journal, evicts, .. } = self.about;
        let spool = folder.join(SPOOL);
        let mended = disk::recover(image, folder, SPOOL, &spool)?;
        let sound = match kind {
            Kind::Spool => {
                let mut history = History::default();
                promised.iter().cloned().try_for_each(|promise| history.add(promise))?;
                check::check(&spool, journal, seed, &history, evicts)?
            }
            Kind::Binary => binary::check(&spool, promised, evicts)?,
            Kind::Writer => writers::check(&spool, promised)?,
        };
        Ok((mended, sound))
    }

    /// Keeps it in a folder, for [`load`](Self::load).
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        disk::write_sparse(&folder.join("base"), &self.base)?;
        log::write(BufWriter::new(File::create(folder.join("log"))?), &self.entries)?;
        fs::write(folder.join("about"), postcard::to_stdvec(&self.about)?)?;
        Ok(())
    }

    /// One that was kept.
    ///
    /// # Errors
    /// When it is not there, or of another version.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let about = postcard::from_bytes(&fs::read(folder.join("about"))?).context("about")?;
        let entries = log::read(BufReader::new(File::open(folder.join("log"))?)).context("log")?;
        Ok(Self { about, base: fs::read(folder.join("base"))?, entries })
    }
}
