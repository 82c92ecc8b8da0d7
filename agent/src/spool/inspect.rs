//! Looking at a spool from outside, while an agent runs or not: nothing is locked, changed or opened in place.
//!
//! Journals are read up to their last whole commit. sled writes when it opens, so a segment is copied to a folder for
//! temporary files first, and the copy is opened; its account (how much it holds) is a plain file beside it.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use gemba_drivers::{Time, Validity, Value};
use serde::Serialize;

use crate::entries::EntryJson;
use crate::record::Record;

use super::files::{LOCK, Listing, Segment, disk_use, journal_name};
use super::frame::{Frames, Lane, Units};
use super::index::{Account, read_cursor};
use super::journal::scan;
use super::segment::{self, Meta};
use super::{Catalog, SpoolError, StoredReading, columns};

/// How often a part that the agent changes under our hands is looked at again.
const ATTEMPTS: usize = 5;
/// And after what time: the agent reads a segment in some 10 ms.
const PAUSE: Duration = Duration::from_millis(30);

/// How a spool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        ..Status::default()
    };
    for part in parts.iter().filter(|part| part.journal) {
        if let Some(bytes) = part.journal_bytes(path)? {
            status.cursor = status.cursor.max(scan(&bytes, part.first, part.followed_by).cursor);
        }
    }
    for part in &parts {
        let (units, span) = part.pending(path, status.cursor)?;
        status.records += units.records();
        status.readings += units.of(Lane::Readings);
        let Some((from, to)) = span else { continue };
        status.newest = status.newest.max(Some(to));
        if units.records() > 0 {
            status.oldest = status.oldest.or(Some(from));
        }
    }
    Ok(status)
}

/// An empty account of some other folder would be a lie.
fn require(path: &Path) -> Result<(), SpoolError> {
    if path.join(LOCK).exists() { Ok(()) } else { Err(SpoolError::Missing(path.to_owned())) }
}

/// What to export.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Source times from here on.
    pub from: Option<Time>,
    /// Source times before it.
    pub to: Option<Time>,
    /// Of this station alone.
    pub station: Option<String>,
}

/// How an export went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Lines written.
    pub readings: u64,
    /// Segments that could not be read, by name and why.
    pub unreadable: Vec<String>,
    /// Readings of series that the catalog does not know; not written.
    pub nameless: u64,
}

/// Writes the readings that are still in the spool of `path`, whether upstream has them or not, as JSON lines in order of
/// sequence. `progress` hears how many of how many parts are done. Holds one journal's worth in memory.
///
/// # Errors
/// When there is no spool, when it cannot be read, or when `out` refuses.
pub fn export(
    path: &Path,
    selection: &Selection,
    out: &mut dyn Write,
    progress: impl FnMut(usize, usize),
) -> Result<Exported, SpoolError> {
    require(path)?;
    let catalog = Catalog::read(path)?.unwrap_or_default();
    let mut exported = Exported::default();
    let (mut readings, mut nameless) = (0, 0);
    each_frame(path, Lane::Readings, &mut exported.unreadable, progress, |payload| {
        let mut of = Exported { readings, nameless, ..Exported::default() };
        for reading in columns::decode(payload).into_iter().flatten() {
            of.write(&catalog, selection, &reading, out)?;
        }
        (readings, nameless) = (of.readings, of.nameless);
        Ok(())
    })?;
    (exported.readings, exported.nameless) = (readings, nameless);
    out.flush().map_err(SpoolError::io("export", path))?;
    Ok(exported)
}

/// Writes what people entered and is still in the spool of `path`, as JSON lines in the order in which it came. The times of
/// `selection` speak of when it was entered.
///
/// # Errors
/// As [`export`].
pub fn export_entries(path: &Path, selection: &Selection, out: &mut dyn Write) -> Result<Exported, SpoolError> {
    require(path)?;
    let mut exported = Exported::default();
    let mut lines = 0;
    each_frame(
        path,
        Lane::Events,
        &mut exported.unreadable,
        |_, _| {},
        |payload| {
            let Some((_, Record::Entered(entry))) = super::journal::record(payload) else { return Ok(()) };
            let after = selection.from.is_none_or(|from| entry.entered >= from);
            let before = selection.to.is_none_or(|to| entry.entered < to);
            if after && before && selection.station.as_deref().is_none_or(|station| *station == *entry.station) {
                serde_json::to_writer(&mut *out, &EntryJson::from(&*entry))?;
                out.write_all(b"\n")?;
                lines += 1;
            }
            Ok(())
        },
    )?;
    exported.readings = lines;
    out.flush().map_err(SpoolError::io("export", path))?;
    Ok(exported)
}

/// Gives the payload of each frame of `lane` to `each`, in order of sequence. `progress` hears how many of how many parts are
/// done.
fn each_frame(
    path: &Path,
    lane: Lane,
    unreadable: &mut Vec<String>,
    mut progress: impl FnMut(usize, usize),
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), SpoolError> {
    let mut position = 0;
    let mut done = 0;
    let total = Part::list(path)?.len();
    loop {
        progress(done, total.max(done));
        // Listed again for each part: a running agent seals and removes meanwhile.
        let parts = Part::list(path)?;
        let Some(part) = parts.iter().find(|part| part.end().is_none_or(|end| end > position)) else { break };
        let Some(bytes) = part.frames(path, lane, unreadable)? else { continue };
        for frame in Frames::sound(&bytes, 0).filter(|frame| frame.lane == lane && frame.seq > position) {
            each(frame.payload).map_err(SpoolError::io("export", path))?;
        }
        done += 1;
        // What is being written now ends here, as far as this export goes.
        let Some(end) = part.end() else { break };
        position = end;
    }
    progress(done, done);
    Ok(())
}

/// A reading as the contract has it: what `gemba replay` reads.
#[derive(Serialize)]
struct Line<'a> {
    station: &'a str,
    tag: &'a str,
    value: Plain<'a>,
    validity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<std::borrow::Cow<'static, str>>,
    source_time: Time,
    received_time: Time,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    backfilled: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl Exported {
    fn write(
        &mut self,
        catalog: &Catalog,
        selection: &Selection,
        reading: &StoredReading,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Some(series) = catalog.get(reading.series) else {
            self.nameless += 1;
            return Ok(());
        };
        let time = reading.source_time;
        let Selection { from, to, station } = selection;
        let outside = from.is_some_and(|from| time < from)
            || to.is_some_and(|to| time >= to)
            || station.as_ref().is_some_and(|station| **station != *series.station);
        if outside {
            return Ok(());
        }
        let line = Line {
            station: &series.station,
            tag: &series.tag,
            value: match &reading.value {
                Value::Null => Plain::Null,
                Value::Bool(on) => Plain::Bool(*on),
                Value::Int(whole) => Plain::Int(*whole),
                Value::Float(real) => Plain::Float(*real),
                Value::Text(text) => Plain::Text(text),
            },
            validity: reading.validity.word(),
            status: match reading.validity {
                Validity::Good => None,
                validity => validity.status().map(gemba_drivers::Status::name),
            },
            source_time: time,
            received_time: reading.received_time,
            backfilled: reading.backfilled,
        };
        serde_json::to_writer(&mut *out, &line)?;
        self.readings += 1;
        out.write_all(b"\n")
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

    /// What upstream does not have of it; when the first of that and the last of it all was committed.
    fn pending(&self, root: &Path, cursor: u64) -> Result<(Units, Option<(Time, Time)>), SpoolError> {
        let mut units = Units::default();
        if self.journal {
            let Some(bytes) = self.journal_bytes(root)? else { return Ok((units, None)) };
            let scan = scan(&bytes, self.first, self.followed_by);
            for frame in Frames::sound(&bytes, 0).filter(|frame| frame.seq > cursor) {
                units.add(frame.lane, frame.units());
            }
            let oldest = scan.marks.iter().find(|mark| mark.0 > cursor).map(|mark| mark.1);
            return Ok((units, scan.span.map(|(from, to)| (oldest.unwrap_or(from), to))));
        }
        let mut span = None;
        for &lane in &self.lanes {
            let Some(meta) = Meta::read(&root.join(self.segment(lane).name())) else { continue };
            span = span.or(Some(meta.span));
            if cursor < self.first {
                units.add(lane, meta.units);
            } else if self.last.is_some_and(|last| cursor < last) {
                let frames = load_copy(root, self.segment(lane)).unwrap_or_default();
                for frame in Frames::sound(&frames, 0).filter(|frame| frame.seq > cursor) {
                    units.add(lane, frame.units());
                }
            }
        }
        Ok((units, span))
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
