//! Sealed segments: the only file that knows sled.
//!
//! sled alone is not safe against power cuts (docs/decisions/0001), so a segment is a small database that is built
//! whole under a temporary name, read back, synced by us, renamed, and never written again. sled may panic on what it
//! finds on a disk: every call into it is caught. Frames keep their own crc and sequence in here, so that what sled
//! cannot give any more may still be found by searching its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::files::{read_checked, sync_tree};
use super::frame::{Frames, Lane};

/// A value is a run of frames up to this size: many readings a key, and no blob file.
const RUN: usize = 4 << 10;
/// A frame above this is cut into values of [`RUN`] bytes: sled keeps larger values in files that it never syncs.
const MAX_VALUE: usize = 6_000;
/// Of a damaged segment at most so many keys are asked for; a sound one has a few hundred.
const MAX_KEYS: usize = 100_000;
/// sled's page cache while a segment is open.
const CACHE: u64 = 1 << 20;
/// How long another handle of ours may need to let go of the lock: sled's threads end a moment after its drop.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// sled's log, where values lie as they were given.
const DB: &str = "db";
/// What [`DB`] was before sled opened a damaged one.
const UNTOUCHED: &str = "db-untouched";
/// Beside sled's files. sled does not look at it.
const META: &str = "meta";

/// What can be known of a segment without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Readings or records.
    pub(super) units: u64,
    /// First and last commit of the journal that it came from.
    pub(super) span: (Time, Time),
    /// What the newest checkpoint in it has applied.
    pub(super) checkpoint: Option<u64>,
    /// Length and crc of all frames, one after the other.
    length: u64,
    crc: u32,
}

impl Meta {
    /// Of the segment at `path`; `None` when it is gone or damaged.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let bytes = read_checked(&path.join(META)).ok()??;
        postcard::from_bytes(&bytes).ok()
    }
}

/// A segment that cannot be built, opened or read, or that is not what was sealed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(String);

impl Broken {
    fn because(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Self + '_ {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl From<sled::Error> for Broken {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

/// What is sealed into one segment.
pub(super) struct Content {
    /// Readings or records.
    pub(super) units: u64,
    /// First and last commit.
    pub(super) span: (Time, Time),
    /// What the newest checkpoint in it has applied.
    pub(super) checkpoint: Option<u64>,
}

/// Builds a segment at `path` from whole frames in order, reads it back, and makes all of it durable but its name.
pub(super) fn build<'a>(
    path: &Path,
    frames: impl Iterator<Item = (u64, &'a [u8])>,
    content: &Content,
) -> Result<(), Broken> {
    let (length, crc) = guarded(|| fill(path, frames))?;
    let &Content { units, span, checkpoint } = content;
    let meta = Meta { units, span, checkpoint, length, crc };
    read_back(path, &meta)?;
    write_meta(path, &meta).and_then(|()| sync_tree(path)).map_err(|error| Broken::because("sync")(&error))
}

/// All frames of a segment, checked against what was sealed.
pub(super) fn load(path: &Path) -> Result<(Vec<u8>, Meta), Broken> {
    let meta = Meta::read(path).ok_or_else(|| Broken("its meta file is missing or damaged".into()))?;
    // Opening is writing, with sled, and on a damaged file it may cut off what was still good.
    let untouched = fs::read(path.join(DB)).unwrap_or_default();
    match read_back(path, &meta) {
        Ok(frames) => Ok((frames, meta)),
        Err(why) => {
            keep_untouched(path, &untouched);
            Err(why)
        }
    }
}

/// For the salvage, which may come after a restart. Of several attempts the first one's counts.
fn keep_untouched(path: &Path, bytes: &[u8]) {
    let kept = path.join(UNTOUCHED);
    if bytes.is_empty() || kept.exists() {
        return;
    }
    if let Err(error) = fs::write(&kept, bytes) {
        tracing::warn!(path = %kept.display(), %error, "less may be saved");
    }
}

/// What is left of a damaged segment: whatever sled still gives, and what lies whole in its file. Frames in order.
pub(super) fn salvage(path: &Path, lane: Lane, range: (u64, u64)) -> BTreeMap<u64, Vec<u8>> {
    let mut left = BTreeMap::new();
    let mut keep = |bytes: &[u8]| {
        for frame in Frames::sound(bytes, 0) {
            if frame.lane == lane && (range.0..=range.1).contains(&frame.seq) {
                left.entry(frame.seq).or_insert_with(|| frame.raw.to_vec());
            }
        }
    };
    // The files first: opening is writing, with sled.
    for name in [UNTOUCHED, DB] {
        fs::read(path.join(name)).map(|bytes| keep(&bytes)).unwrap_or_default();
    }
    let mut given = Vec::new();
    let ended = guarded(|| {
        let db = open(path)?;
        for key in keys_left(&db, range) {
            // One key at a time: a damaged page must not take the others with it.
            if let Ok(Ok(Some(value))) = catch_unwind(AssertUnwindSafe(|| db.get(&key))) {
                given.extend_from_slice(&value);
            }
        }
        Ok(())
    });
    if let Err(error) = ended {
        tracing::debug!(path = %path.display(), %error, "salvage goes on without sled");
    }
    keep(&given);
    left
}

/// The keys of a damaged segment that holds this range. An iterator stands still at a damaged page and says the same error for
/// ever, so the next one starts behind it, farther and farther until one gives something.
///
/// Not from the back: sled's reverse iterators bring a constant of 1 MiB into the program.
fn keys_left(db: &sled::Db, (first, last): (u64, u64)) -> BTreeSet<sled::IVec> {
    let mut keys = BTreeSet::new();
    let (mut from, mut stride) = (first, 1);
    while from <= last && keys.len() < MAX_KEYS {
        let mut reached = None;
        for found in db.range(key(from, 0)..).keys().map_while(Result::ok).take(MAX_KEYS) {
            reached = found.first_chunk().copied().map(u64::from_be_bytes);
            keys.insert(found);
        }
        stride = if reached.is_some() { 1 } else { stride + stride / 4 + 1 };
        let Some(next) = reached.unwrap_or(from).max(from).checked_add(stride) else { break };
        from = next;
    }
    keys
}

/// Writes the frames; returns their length and crc.
fn fill<'a>(path: &Path, frames: impl Iterator<Item = (u64, &'a [u8])>) -> Result<(u64, u32), Broken> {
    let db = open(path)?;
    let (mut length, mut hasher) = (0_u64, crc32fast::Hasher::new());
    let mut run = Vec::with_capacity(RUN);
    let mut run_seq = 0;
    for (seq, raw) in frames {
        length += raw.len() as u64;
        hasher.update(raw);
        if !run.is_empty() && run.len() + raw.len() > RUN {
            db.insert(key(run_seq, 0), run.as_slice())?;
            run.clear();
        }
        if raw.len() > MAX_VALUE {
            for (piece, bytes) in (0..).zip(raw.chunks(RUN)) {
                db.insert(key(seq, piece), bytes)?;
            }
            continue;
        }
        if run.is_empty() {
            run_seq = seq;
        }
        run.extend_from_slice(raw);
    }
    if !run.is_empty() {
        db.insert(key(run_seq, 0), run.as_slice())?;
    }
    db.flush()?;
    Ok((length, hasher.finalize()))
}

/// The sequence, big-endian so that sled's order is ours; further pieces of a cut frame follow the first.
fn key(seq: u64, piece: u32) -> Vec<u8> {
    let mut key = seq.to_be_bytes().to_vec();
    if piece > 0 {
        key.extend_from_slice(&piece.to_be_bytes());
    }
    key
}

fn read_back(path: &Path, meta: &Meta) -> Result<Vec<u8>, Broken> {
    let frames = guarded(|| {
        let db = open(path)?;
        let mut frames = Vec::with_capacity(usize::try_from(meta.length.min(64 << 20)).unwrap_or(0));
        for item in db.iter() {
            frames.extend_from_slice(&item?.1);
            if frames.len() as u64 > meta.length {
                break;
            }
        }
        Ok(frames)
    })?;
    if frames.len() as u64 != meta.length || crc32fast::hash(&frames) != meta.crc {
        return Err(Broken("its content is not what was sealed".into()));
    }
    Ok(frames)
}

fn write_meta(path: &Path, meta: &Meta) -> io::Result<()> {
    let content = postcard::to_stdvec(meta).map_err(io::Error::other)?;
    let mut file = fs::File::create(path.join(META))?;
    file.write_all(&crc32fast::hash(&content).to_le_bytes())?;
    file.write_all(&content)
}

fn open(path: &Path) -> Result<sled::Db, Broken> {
    remove_half_snapshots(path).map_err(|error| Broken::because("list")(&error))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return Ok(other?),
        }
    }
}

/// sled trusts a snapshot that it was still writing when the power went.
fn remove_half_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with("generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Runs something with sled in it, its drop included, and turns a panic into an error.
fn guarded<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Broken(format!("sled panicked: {}", text.unwrap_or("without a word"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database of frames 1 to `frames`, and its folder.
    fn filled(frames: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let raw: Vec<Vec<u8>> = (1..=frames).map(|seq| seq.to_le_bytes().repeat(64)).collect();
        fill(folder.path(), (1..).zip(raw.iter().map(Vec::as_slice))).expect("a segment");
        drop(open(folder.path()).expect("opens")); // as a segment is read back: sled notes where its pages are
        folder
    }

    #[test]
    fn keys_on_both_sides_of_a_damaged_page_are_found() {
        const FRAMES: u64 = 2_000;
        let sound = filled(FRAMES);
        let db = open(sound.path()).expect("opens");
        let all: BTreeSet<_> = db.iter().keys().map(|key| key.expect("sound")).collect();
        assert!(all.len() > 100, "{} keys", all.len());
        assert_eq!(keys_left(&db, (1, FRAMES)), all);
        drop(db);

        let (mut stuck, mut beyond) = (0, 0);
        for part in 1..20 {
            let folder = filled(FRAMES);
            let file = folder.path().join(DB);
            let mut bytes = fs::read(&file).expect("reads");
            let at = bytes.len() * part / 20;
            bytes[at..at + 64].fill(0xA5);
            fs::write(&file, bytes).expect("writes");
            let looked = guarded(|| {
                let db = open(folder.path())?;
                let ahead: BTreeSet<_> = db.iter().keys().map_while(Result::ok).take(MAX_KEYS).collect();
                let back: BTreeSet<_> =
                    db.iter().rev().map_while(Result::ok).map(|(key, _)| key).take(MAX_KEYS).collect();
                Ok((ahead, back, keys_left(&db, (1, FRAMES))))
            });
            let Ok((ahead, back, left)) = looked else { continue }; // it does not even open
            assert!(left.is_superset(&ahead) && left.is_subset(&all));
            if ahead.is_disjoint(&back) {
                stuck += 1;
                beyond += usize::from(left.len() > ahead.len() + back.len() * 9 / 10);
            }
        }
        assert!(stuck > 0, "no damage stopped an iterator");
        assert_eq!(beyond, stuck, "what lies behind the damage");
    }
}
