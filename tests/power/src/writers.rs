//! A writer of ours that replaces nothing and only adds files, as the spool does with what it seals: written under another
//! name, synced, renamed, and the folder synced. Done right nothing is lost; with either sync left out it must show.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::check::Sound;
use crate::dice::Dice;
use crate::disk::Attached;
use crate::plan::Key;
use crate::promise::{Promise, Promises};
use crate::recording::SPOOL;

/// Files in a recording.
const FILES: u64 = 150;
/// So many of them stay.
const STAY: u64 = 10;
/// Bytes of each.
const SIZE: usize = 10_000;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sin {
    /// Nothing.
    None,
    /// The file is not synced before it is renamed.
    File,
    /// The folder is not synced after the rename.
    Folder,
}

impl Sin {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::None => "nothing left out",
            Self::File => "rename without fsync of the file",
            Self::Folder => "rename without fsync of the folder",
        }
    }
}

/// Adds file after file to a disk.
///
/// # Errors
/// When the disk refuses.
pub fn work(attached: &Attached, sin: Sin) -> anyhow::Result<()> {
    let promises = Promises::open(&attached.promises)?;
    let path = attached.root.join(SPOOL);
    fs::create_dir(&path)?;
    let folder = File::open(&path)?;
    folder.sync_all()?;
    File::open(&attached.root)?.sync_all()?;
    for number in 1..=FILES {
        let temporary = path.join("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&content(number))?;
        if sin != Sin::File {
            file.sync_all()?;
        }
        fs::rename(&temporary, path.join(number.to_string()))?;
        if sin != Sin::Folder {
            folder.sync_all()?;
        }
        for promise in Promise::acknowledged([Key(number)]) {
            promises.make(&promise)?;
        }
        if number > STAY {
            fs::remove_file(path.join((number - STAY).to_string()))?;
        }
    }
    Ok(())
}

/// Whether every file that was promised and has not to go is there.
///
/// # Errors
/// With the first that is not.
pub fn check(folder: &Path, promised: &[Promise]) -> anyhow::Result<Sound> {
    let numbers = promised.iter().filter_map(|promise| match promise {
        Promise::Acknowledged { runs } => runs.last().map(|(key, _)| key.0),
        _ => None,
    });
    let last = numbers.max().unwrap_or(0);
    let stay = (last + 1).saturating_sub(STAY).max(1)..=last;
    for number in stay.clone() {
        let found = fs::read(folder.join(number.to_string())).with_context(|| format!("file {number} of {last}"))?;
        ensure!(found == content(number), "file {number} is garbled: {} bytes", found.len());
    }
    Ok(Sound { held: stay.count(), ..Sound::default() })
}

fn content(number: u64) -> Vec<u8> {
    Dice::new(&[number, 31]).bytes(SIZE)
}
