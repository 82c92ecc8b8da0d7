//! The root folder: its names, its lock, and the three steps that make a file durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::SpoolError;
use super::frame::Lane;

/// Written into a damaged segment's folder when what was left of it is safe.
pub(super) const SALVAGED: &str = "salvaged";
/// Locked by the one that works on the spool; it stays when that one goes.
pub(super) const LOCK: &str = "lock";
/// Room for the cursor and the account on a disk that others have filled.
pub(super) const RESERVE: &str = "reserve";
const RESERVE_SIZE: usize = 64 << 10;
/// Damaged segments that are kept for somebody to look at; older ones go.
const MAX_BAD: usize = 4;

/// The root folder, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    folder: File,
    _lock: File,
}

impl Root {
    /// Makes the folder if need be and takes it for this process alone.
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        if path.exists() && !path.is_dir() {
            return Err(SpoolError::NotAFolder(path.to_owned()));
        }
        fs::create_dir_all(path).map_err(SpoolError::io("make the folder", path))?;
        let lock_path = path.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(SpoolError::io("write in", path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::Held(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(SpoolError::io("lock", &lock_path)(source)),
        }
        let folder = File::open(path).map_err(SpoolError::io("open", path))?;
        // The folder's own name must last too, or a first power cut takes everything.
        if let Some(parent) = fs::canonicalize(path).ok().as_deref().and_then(Path::parent)
            && let Ok(parent) = File::open(parent)
        {
            drop(parent.sync_all());
        }
        Ok(Self { path: path.to_owned(), folder, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes names that came, went or changed in the folder durable.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        self.folder.sync_all().map_err(SpoolError::io("sync", &self.path))
    }

    /// Renames within the folder, and makes it durable.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), SpoolError> {
        fs::rename(self.join(from), self.join(to)).map_err(SpoolError::io("rename", &self.join(from)))?;
        self.sync()
    }

    /// Replaces a small file as a whole: after a power cut it is the old one or the new one. On a full disk the reserve
    /// is spent on it, since what frees room must be written down first. One caller at a time for each name.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), SpoolError> {
        match self.replace(name, content) {
            Err(error) if error.is_full() && fs::remove_file(self.join(RESERVE)).is_ok() => self.replace(name, content),
            other => other,
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), SpoolError> {
        let temporary = format!("tmp-{name}");
        let path = self.join(&temporary);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&crc32fast::hash(content).to_le_bytes())?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(SpoolError::io("write", &path))?;
        self.rename(&temporary, name)
    }

    /// Sets some room aside for [`write`](Self::write). Without it nothing is worse than a full disk makes it anyway.
    pub(super) fn keep_reserve(&self) {
        let path = self.join(RESERVE);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == RESERVE_SIZE as u64) {
            return;
        }
        if let Err(error) = fs::write(&path, [0xA5; RESERVE_SIZE]) {
            tracing::debug!(%error, "no room for a reserve");
            drop(fs::remove_file(&path));
        }
    }

    /// Takes a folder away so that a crash on the way leaves nothing that looks whole. What cannot be removed now is
    /// removed at the next start.
    pub(super) fn discard(&self, name: &str) {
        let trash = format!("trash-{name}");
        let path =
            if fs::rename(self.join(name), self.join(&trash)).is_ok() { self.join(&trash) } else { self.join(name) };
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }

    /// Bytes that are free for us on this disk.
    pub(super) fn free(&self) -> Result<u64, SpoolError> {
        let stat =
            rustix::fs::statvfs(&self.path).map_err(|error| SpoolError::io("ask about", &self.path)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Removes what an interrupted run left behind, and all but the newest damaged segments.
    pub(super) fn sweep(&self, listing: &Listing) -> Result<(), SpoolError> {
        for name in &listing.litter {
            let path = self.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(SpoolError::io("remove", &path))?;
        }
        self.limit_bad(listing);
        Ok(())
    }

    /// Keeps the newest few of the damaged segments, and any that is the only copy.
    pub(super) fn limit_bad(&self, listing: &Listing) {
        let saved = listing.bad.iter().filter(|segment| !self.is_unsaved(listing, **segment));
        let mut oldest_first: Vec<_> = saved.collect();
        oldest_first.sort_by_key(|segment| segment.first);
        for segment in oldest_first.iter().take(oldest_first.len().saturating_sub(MAX_BAD)) {
            self.discard(&segment.bad_name());
        }
    }

    /// Whether a damaged segment is the only place where its frames are.
    pub(super) fn is_unsaved(&self, listing: &Listing, segment: Segment) -> bool {
        !listing.journals.contains(&segment.first)
            && !self.join(&segment.name()).exists()
            && !self.join(&segment.bad_name()).join(SALVAGED).exists()
    }
}

/// What [`Root::write`] wrote; `None` when there is none, or when it is not what was written.
pub(super) fn read_checked(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(crc) = bytes.first_chunk::<4>().map(|crc| u32::from_le_bytes(*crc)) else {
        return Ok(None);
    };
    bytes.drain(..4);
    Ok((crc32fast::hash(&bytes) == crc).then_some(bytes))
}

/// A file or a folder with what is in it, as du counts it: blocks, not lengths.
pub(super) fn disk_use(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks().saturating_mul(512);
    if !meta.is_dir() {
        return own;
    }
    let Ok(entries) = fs::read_dir(path) else { return own };
    entries.flatten().fold(own, |sum, entry| sum.saturating_add(disk_use(&entry.path())))
}

/// fsyncs every file and folder below `path`, and `path` itself.
pub(super) fn sync_tree(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_tree(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

/// The name of the journal that begins with sequence `first`.
pub(super) fn journal_name(first: u64) -> String {
    format!("journal-{first:020}")
}

/// The name that says: everything of these sequences is gone, and accounted for.
pub(super) fn gap_name(first: u64, last: u64) -> String {
    format!("gap-{first:020}-{last:020}")
}

/// A sealed segment's name: one lane of the journal that held `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Segment {
    pub(super) lane: Lane,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Segment {
    pub(super) fn name(&self) -> String {
        format!("seg-{}", self.tail())
    }

    pub(super) fn bad_name(&self) -> String {
        format!("bad-{}", self.tail())
    }

    fn tail(&self) -> String {
        format!("{}-{:020}-{:020}", self.lane.name(), self.first, self.last)
    }

    fn parse(tail: &str) -> Option<Self> {
        let (lane, range) = tail.split_once('-')?;
        let (first, last) = parse_range(range)?;
        Some(Self { lane: Lane::named(lane)?, first, last })
    }
}

fn parse_range(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = (parse_sequence(first)?, parse_sequence(last)?);
    (first <= last).then_some((first, last))
}

fn parse_sequence(digits: &str) -> Option<u64> {
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// What lies in the root, by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) journals: BTreeSet<u64>,
    /// Last sequence and lanes, by first sequence.
    pub(super) sealed: BTreeMap<u64, (u64, BTreeSet<Lane>)>,
    pub(super) gaps: BTreeMap<u64, u64>,
    pub(super) bad: BTreeSet<Segment>,
    pub(super) litter: Vec<String>,
}

impl Listing {
    pub(super) fn read(root: &Path) -> Result<Self, SpoolError> {
        let mut listing = Self::default();
        for entry in fs::read_dir(root).map_err(SpoolError::io("list", root))? {
            let entry = entry.map_err(SpoolError::io("list", root))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            listing.sort(name);
        }
        Ok(listing)
    }

    fn sort(&mut self, name: String) {
        let Some((kind, tail)) = name.split_once('-') else { return };
        match kind {
            "tmp" | "trash" => self.litter.push(name),
            "journal" => self.journals.extend(parse_sequence(tail)),
            "gap" => self.gaps.extend(parse_range(tail)),
            "bad" => self.bad.extend(Segment::parse(tail)),
            "seg" => {
                if let Some(segment) = Segment::parse(tail) {
                    let (last, lanes) = self.sealed.entry(segment.first).or_default();
                    *last = segment.last;
                    lanes.insert(segment.lane);
                }
            }
            _ => {}
        }
    }
}
