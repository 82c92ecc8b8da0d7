//! Looking at a spool from outside, while an agent runs or not: nothing is locked, changed or opened in place.
//!
//! Journals are read up to their last whole commit. sled writes when it opens, so a segment is copied to a folder for
//! temporary files first, and the copy is opened; its account (how much it holds) is a plain file beside it.

mod export;
mod verify;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use gemba_drivers::Time;
use serde::Serialize;

use super::files::{LOCK, Listing, Segment, disk_use, journal_name};
use super::frame::{Frames, Lane, Units};
use super::index::{Account, read_cursor};
use super::journal::scan;
use super::segment::{self, Meta};
use super::{Catalog, SpoolError};

pub use export::{Exported, Format, Selection, each_entry, export, export_entries};
pub use verify::{Finding, Report, verify};

/// How often a part that the agent changes under our hands is looked at again.
const ATTEMPTS: usize = 5;
/// And after what time: the agent reads a segment in some 10 ms.
const PAUSE: Duration = Duration::from_millis(30);

/// How a spool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Readings, figures and events that upstream does not have yet; the agent's own telemetry is not counted.
    pub records: u64,
    /// Of them, readings.
    pub readings: u64,
    /// On disk, as du counts it.
    pub bytes: u64,
    /// Sealed segments, a lane each.
    pub segments: usize,
    /// Journals.
    pub journals: usize,
    /// Segments that are damaged and were set aside.
    pub damaged: usize,
    /// Upstream has everything up to here.
    pub cursor: u64,
    /// When the oldest of what is pending was committed; within a sealed segment, its first commit.
    pub oldest: Option<Time>,
    /// The last commit.
    pub newest: Option<Time>,
    /// Readings dropped for want of room, ever.
    pub dropped: u64,
    /// Lane by lane, those of most worth first.
    pub lanes: Vec<LaneStatus>,
}

/// How one lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Its name: `events`, `kpis`, `readings`, `telemetry`, `model`.
    pub lane: &'static str,
    /// What upstream does not have yet: readings, items of telemetry, records. None of the model, which never goes upstream.
    pub records: u64,
    /// All that is there of it, pending or kept: sealed segments as du counts them, journals by what the lane's frames take.
    pub bytes: u64,
    /// When the oldest of what is pending was committed; within a sealed segment, its first commit.
    pub oldest: Option<Time>,
}

/// Looks at the spool in `path`.
///
/// # Errors
/// When there is no spool, or when it cannot be read.
pub fn status(path: &Path) -> Result<Status, SpoolError> {
    require(path)?;
    let parts = Part::list(path)?;
    let listing = Listing::read(path)?;
    let mut status = Status {
        bytes: disk_use(path),
        segments: parts.iter().map(|part| part.lanes.len()).sum(),
        journals: listing.journals.len(),
        damaged: listing.bad.len(),
        dropped: Account::read(path)?.dropped,
        cursor: read_cursor(path)?.unwrap_or(0),
        lanes: Lane::ALL.map(|lane| LaneStatus { lane: lane.name(), records: 0, bytes: 0, oldest: None }).to_vec(),
        ..Status::default()
    };
    for part in parts.iter().filter(|part| part.journal) {
        if let Some(bytes) = part.journal_bytes(path)? {
            status.cursor = status.cursor.max(scan(&bytes, part.first, part.followed_by).cursor);
        }
    }
    for part in &parts {
        let Held { units, bytes, oldest, span } = part.pending(path, status.cursor)?;
        status.records += units.records();
        status.readings += units.of(Lane::Readings);
        for (at, lane) in status.lanes.iter_mut().enumerate() {
            lane.records += units.of(Lane::ALL[at]);
            lane.bytes += bytes[at];
            lane.oldest = lane.oldest.or(oldest[at]);
        }
        let Some((from, to)) = span else { continue };
        status.newest = status.newest.max(Some(to));
        if units.records() > 0 {
            status.oldest = status.oldest.or(Some(from));
        }
    }
    Ok(status)
}

/// Which series the spool in `path` has ever met.
///
/// # Errors
/// When there is no spool, or when it cannot be read. A damaged catalog is an empty one.
pub fn catalog(path: &Path) -> Result<Catalog, SpoolError> {
    require(path)?;
    Ok(Catalog::read(path)?.unwrap_or_default())
}

/// An empty account of some other folder would be a lie.
fn require(path: &Path) -> Result<(), SpoolError> {
    if path.join(LOCK).exists() { Ok(()) } else { Err(SpoolError::Missing(path.to_owned())) }
}

/// What a part holds.
#[derive(Default)]
struct Held {
    /// What upstream does not have.
    units: Units,
    /// On disk, by lane.
    bytes: [u64; Lane::ALL.len()],
    /// When the first that upstream does not have was committed, by lane.
    oldest: [Option<Time>; Lane::ALL.len()],
    /// When the first that upstream does not have and the last of it all was committed.
    span: Option<(Time, Time)>,
}

impl Held {
    fn add(&mut self, lane: Lane, units: u64, committed: Option<Time>) {
        self.units.add(lane, units);
        if units > 0 {
            let oldest = &mut self.oldest[lane as usize];
            *oldest = oldest.or(committed);
        }
    }
}

/// A journal, or what was one, as the names tell.
struct Part {
    first: u64,
    /// Known of sealed parts and gaps.
    last: Option<u64>,
    journal: bool,
    lanes: Vec<Lane>,
    followed_by: Option<u64>,
}

impl Part {
    /// In order of sequence.
    fn list(root: &Path) -> Result<Vec<Self>, SpoolError> {
        let listing = Self::names(root)?;
        let of_journal =
            |first: &u64| Self { first: *first, last: None, journal: true, lanes: Vec::new(), followed_by: None };
        let mut parts: Vec<Self> = listing.journals.iter().map(of_journal).collect();
        for (&first, (last, lanes)) in &listing.sealed {
            // A journal beside its segments: the seal is not done, so the journal counts.
            if !listing.journals.contains(&first) {
                let lanes = lanes.iter().copied().collect();
                parts.push(Self { first, last: Some(*last), journal: false, lanes, followed_by: None });
            }
        }
        parts.sort_by_key(|part| part.first);
        let firsts: Vec<u64> = parts.iter().map(|part| part.first).chain(listing.gaps.keys().copied()).collect();
        for part in &mut parts {
            part.followed_by = firsts.iter().copied().filter(|first| *first > part.first).min();
        }
        Ok(parts)
    }

    /// The names in the folder. A name that changes while they are listed may be missed under both: then they are listed
    /// again.
    fn names(root: &Path) -> Result<Listing, SpoolError> {
        let mut listing = Listing::read(root)?;
        loop {
            let again = Listing::read(root)?;
            if (&again.journals, &again.sealed) == (&listing.journals, &listing.sealed) {
                return Ok(again);
            }
            listing = again;
        }
    }

    /// The last sequence that it can hold; `None` of the journal that is being written.
    fn end(&self) -> Option<u64> {
        self.last.or(self.followed_by.map(|next| next - 1))
    }

    /// A journal up to its last whole commit; `None` when it is gone.
    fn journal_bytes(&self, root: &Path) -> Result<Option<Vec<u8>>, SpoolError> {
        let path = root.join(journal_name(self.first));
        match fs::read(&path) {
            Ok(mut bytes) => {
                bytes.truncate(scan(&bytes, self.first, self.followed_by).len);
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SpoolError::io("read", &path)(error)),
        }
    }

    fn segment(&self, lane: Lane) -> Segment {
        Segment { lane, first: self.first, last: self.last.unwrap_or(self.first) }
    }

    /// What there is of it, and what of that upstream does not have.
    fn pending(&self, root: &Path, cursor: u64) -> Result<Held, SpoolError> {
        let mut held = Held::default();
        if self.journal {
            let Some(bytes) = self.journal_bytes(root)? else { return Ok(held) };
            let scan = scan(&bytes, self.first, self.followed_by);
            let mut marks = scan.marks.iter().peekable();
            for frame in Frames::sound(&bytes, 0) {
                held.bytes[frame.lane as usize] += frame.raw.len() as u64;
                while marks.next_if(|mark| mark.0 < frame.seq).is_some() {}
                if frame.seq > cursor {
                    held.add(frame.lane, frame.units(), marks.peek().map(|mark| mark.1));
                }
            }
            let oldest = scan.marks.iter().find(|mark| mark.0 > cursor).map(|mark| mark.1);
            held.span = scan.span.map(|(from, to)| (oldest.unwrap_or(from), to));
            return Ok(held);
        }
        for &lane in &self.lanes {
            let path = root.join(self.segment(lane).name());
            held.bytes[lane as usize] += disk_use(&path);
            let Some(meta) = Meta::read(&path) else { continue };
            held.span = held.span.or(Some(meta.span));
            if cursor < self.first {
                held.add(lane, meta.units, Some(meta.span.0));
            } else if self.last.is_some_and(|last| cursor < last) {
                let frames = load_copy(root, self.segment(lane)).unwrap_or_default();
                for frame in Frames::sound(&frames, 0).filter(|frame| frame.seq > cursor) {
                    held.add(lane, frame.units(), Some(meta.span.0));
                }
            }
        }
        Ok(held)
    }

    /// Its frames, of one lane if it is sealed. `None` when it is gone: sealed, set aside or removed since it
    /// was listed.
    fn frames(&self, root: &Path, lane: Lane, unreadable: &mut Vec<String>) -> Result<Option<Vec<u8>>, SpoolError> {
        if self.journal {
            return self.journal_bytes(root);
        }
        if !self.lanes.contains(&lane) {
            return Ok(Some(Vec::new()));
        }
        let segment = self.segment(lane);
        let path = root.join(segment.name());
        let mut attempt = 1;
        loop {
            let copied = Copy::of(&path);
            if !path.exists() {
                return Ok(None);
            }
            let copy = copied.map_err(SpoolError::io("copy", &path))?;
            let why = match segment::load(&copy.0) {
                Ok((frames, _)) => return Ok(Some(frames)),
                Err(why) => why,
            };
            if attempt == ATTEMPTS {
                unreadable.push(format!("{}: {why}", segment.name()));
                let left = segment::salvage(&copy.0, segment.lane, (segment.first, segment.last));
                return Ok(Some(left.into_values().flatten().collect()));
            }
            attempt += 1;
            thread::sleep(PAUSE);
        }
    }
}

/// The frames of a segment, read from a copy.
fn load_copy(root: &Path, segment: Segment) -> Result<Vec<u8>, String> {
    let copy = Copy::of(&root.join(segment.name())).map_err(|error| error.to_string())?;
    segment::load(&copy.0).map(|(frames, _)| frames).map_err(|error| error.to_string())
}

/// A copy of a folder among the temporary files, for our eyes only; removed at the drop.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gemba-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let copy = Self(path);
        copy_tree(folder, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
