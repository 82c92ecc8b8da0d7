//! Journals: what a commit is written to, and what is found in one after a crash.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use gemba_drivers::{Loss, Time};

use super::SpoolError;
use super::files::{Root, journal_name};
use super::frame::{Frame, Frames, Lane, Mark, Units};
use crate::record::Record;

/// Commits that hold something for upstream: last sequence and time.
pub(super) type Marks = VecDeque<(u64, Time)>;

/// The journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Its name, by number.
    pub(super) first: u64,
    /// Up to here everything is durable.
    pub(super) len: u64,
    /// A write failed, so there may be more in the file than `len`.
    torn: bool,
}

impl Journal {
    /// Starts the journal that begins with sequence `first`: its name is durable before anything is in it.
    pub(super) fn create(root: &Root, first: u64) -> Result<Self, SpoolError> {
        let path = root.join(&journal_name(first));
        // It can only exist if nothing was ever committed to it.
        let file = File::options().create(true).truncate(true).write(true).open(&path);
        let file = file.map_err(SpoolError::io("create", &path))?;
        file.sync_all().map_err(SpoolError::io("sync", &path))?;
        root.sync()?;
        Ok(Self { file, first, len: 0, torn: false })
    }

    /// One write, one fdatasync. After an error the file is cut back to what was durable before.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        let written = self.file.write_all_at(bytes, self.len).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.torn = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Up to here it counts; what follows was never promised.
    pub(super) len: usize,
    /// The last sequence in it; one below the first when it holds nothing.
    pub(super) last: u64,
    pub(super) units: Units,
    pub(super) marks: Marks,
    /// First and last commit.
    pub(super) span: Option<(Time, Time)>,
    /// The newest complete one: what it has applied, and the model's state.
    pub(super) checkpoint: Option<(u64, Vec<u8>)>,
    /// How far upstream had acknowledged at the last commit.
    pub(super) cursor: u64,
    pub(super) damage: Vec<Damage>,
    /// Frames are missing, even if only ends of commits.
    pub(super) holed: bool,
    /// Losses that are written down in it.
    pub(super) told: Vec<Loss>,
}

/// Something that a journal held once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The last sequence that it touches.
    pub(super) last: u64,
    /// What is known to be gone.
    pub(super) units: Units,
    /// Frames that are gone and nothing tells what they held.
    pub(super) unknown: u64,
    pub(super) span: (Time, Time),
}

/// Reads a journal that begins with sequence `first`. `followed_by` is where the next part of the spool begins, if there
/// is one: then everything before was committed, and what is missing is damage; without it the end may be torn.
pub(super) fn scan(bytes: &[u8], first: u64, followed_by: Option<u64>) -> Scan {
    let mut scan = Scan { last: first.saturating_sub(1), ..Scan::default() };
    let mut commit = Commit::default();
    for frame in Frames::sound(bytes, 0) {
        let expected = commit.last.unwrap_or(scan.last) + 1;
        if frame.seq < expected || followed_by.is_some_and(|next| frame.seq >= next) {
            continue; // not of this journal
        }
        commit.take(&frame, expected);
        let Some(Mark::Commit { time, first: own, units, cursor }) = frame.mark() else { continue };
        let torn = commit.misses_from(own);
        if torn && followed_by.is_none() && !Frames::sound(bytes, frame.end()).any(|later| later.ends_commit()) {
            // The last commit, and not whole: torn, or damaged after it was promised. Nobody can tell, so it is told.
            let start = commit.frames.iter().find(|held| held.seq >= own).map_or(frame.at, |held| held.at);
            let mut before = self::scan(&bytes[..start], first, Some(own));
            before.damage.push(Damage { last: frame.seq, units, unknown: 0, span: (time, time) });
            return before;
        }
        let whole = commit.missing.is_empty();
        scan.holed |= !whole;
        let got = commit.units_from(own);
        if !whole {
            let since = scan.span.map_or(time, |span| span.1);
            let unknown = commit.missing_before(own.saturating_sub(1));
            let damage = Damage { last: frame.seq, units: units.minus(got), unknown, span: (since, time) };
            if damage.units.total() + damage.unknown > 0 {
                scan.damage.push(damage);
            }
        }
        let done = std::mem::take(&mut commit);
        scan.cursor = scan.cursor.max(cursor);
        scan.close(done, frame.seq, frame.end(), time);
    }
    let Some(next) = followed_by else { return scan };
    if next <= scan.last + 1 {
        return scan;
    }
    // A commit without its end, yet the next part goes on after it: it was durable once.
    let after = commit.last.unwrap_or(scan.last) + 1;
    if after < next {
        commit.missing.push((after, next));
    }
    scan.holed = true;
    let unknown = commit.missing_before(next - 1);
    let time = scan.span.map_or(Time::default(), |span| span.1);
    if unknown > 0 {
        scan.damage.push(Damage { last: next - 1, units: Units::default(), unknown, span: (time, time) });
    }
    let end = commit.end.unwrap_or(scan.len);
    scan.close(commit, next - 1, end, time);
    scan
}

impl Scan {
    fn close(&mut self, commit: Commit, last: u64, end: usize, time: Time) {
        let units = commit.units_from(0);
        self.units = self.units.plus(units);
        if units.total() > 0 {
            self.marks.push_back((last, time));
        }
        self.span = Some((self.span.map_or(time, |span| span.0), time));
        self.checkpoint = commit.checkpoint.complete.or(self.checkpoint.take());
        self.told.extend(commit.told);
        self.last = last;
        self.len = end;
    }
}

#[derive(Debug)]
struct Held {
    seq: u64,
    at: usize,
    lane: Lane,
    units: u64,
}

/// The frames since the last end of a commit.
#[derive(Debug, Default)]
struct Commit {
    last: Option<u64>,
    end: Option<usize>,
    frames: Vec<Held>,
    /// Sequences that should be there: from, and up to but not with.
    missing: Vec<(u64, u64)>,
    checkpoint: Assembly,
    told: Vec<Loss>,
}

impl Commit {
    fn take(&mut self, frame: &Frame<'_>, expected: u64) {
        if frame.seq > expected {
            self.missing.push((expected, frame.seq));
        }
        self.last = Some(frame.seq);
        self.end = Some(frame.end());
        self.frames.push(Held { seq: frame.seq, at: frame.at, lane: frame.lane, units: frame.units() });
        if frame.lane == Lane::Events
            && let Some((_, Record::Loss { loss, .. })) = record(frame.payload)
        {
            self.told.push(loss);
        }
        if let Some(mark) = frame.mark() {
            self.checkpoint.take(&mark);
        }
    }

    fn units_from(&self, first: u64) -> Units {
        let mut units = Units::default();
        self.frames.iter().filter(|held| held.seq >= first).for_each(|held| units.add(held.lane, held.units));
        units
    }

    /// Whether a frame of the commit that begins with `first` is missing.
    fn misses_from(&self, first: u64) -> bool {
        self.missing.iter().any(|&(_, to)| to > first)
    }

    /// Missing frames below `end`, which is where the end of an earlier commit must have been.
    fn missing_before(&self, end: u64) -> u64 {
        self.missing.iter().map(|&(from, to)| to.min(end).saturating_sub(from)).sum()
    }
}

/// Puts a checkpoint together from its pieces.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    open: Option<(u64, u32, Vec<u8>)>,
    /// The newest one of which every piece was there.
    pub(super) complete: Option<(u64, Vec<u8>)>,
}

impl Assembly {
    pub(super) fn take(&mut self, mark: &Mark<'_>) {
        let &Mark::Checkpoint { through, piece, pieces, bytes } = mark else { return };
        if piece == 0 {
            self.open = Some((through, 0, Vec::new()));
        }
        let Some((held, next, state)) = &mut self.open else { return };
        if *held != through || *next != piece {
            self.open = None;
            return;
        }
        state.extend_from_slice(bytes);
        *next += 1;
        if *next == pieces {
            self.complete = self.open.take().map(|(through, _, state)| (through, state));
        }
    }
}

/// The model's frames that a seal keeps: ticks and deliveries after the newest checkpoint (it has applied `through`), and
/// the newest complete checkpoint in here. Sequences, in order.
pub(super) fn model_frames(bytes: &[u8], through: u64) -> (Vec<u64>, Option<u64>) {
    let (mut later, mut open, mut newest) = (Vec::new(), Vec::new(), (Vec::new(), None));
    let mut assembly = Assembly::default();
    for frame in Frames::sound(bytes, 0) {
        match frame.mark() {
            Some(Mark::Tick(_) | Mark::Deliveries { .. } | Mark::Filters { .. }) if frame.seq > through => {
                later.push(frame.seq);
            }
            Some(mark @ Mark::Checkpoint { piece, through, .. }) => {
                if piece == 0 {
                    open.clear();
                }
                open.push(frame.seq);
                assembly.take(&mark);
                if assembly.complete.take().is_some() {
                    newest = (std::mem::take(&mut open), Some(through));
                }
            }
            _ => {}
        }
    }
    later.extend(newest.0);
    later.sort_unstable();
    (later, newest.1)
}

/// The payload of a record's frame: its cause, and what it says.
pub(super) fn record(payload: &[u8]) -> Option<(Option<u64>, Record)> {
    postcard::from_bytes(payload).ok()
}
