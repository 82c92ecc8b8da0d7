//! Everything in the spool, read as the agent would: what is damaged, what can be read of it, and whether the pieces fit.
//!
//! What the agent cuts off or undoes at its start without losing anything (a torn end that was promised to nobody, half a seal)
//! is no damage. What a running agent changes under our hands is looked at again before it counts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use gemba_drivers::Time;
use serde::Serialize;

use super::{ATTEMPTS, Copy, PAUSE, Part, require};
use crate::spool::files::{Listing, SALVAGED, Segment, journal_name, read_checked};
use crate::spool::frame::{Found, Frame, Frames, Lane, Units};
use crate::spool::index::{Account, read_cursor};
use crate::spool::journal::{Assembly, Scan, scan};
use crate::spool::open::entry;
use crate::spool::segment::{self, Meta};
use crate::spool::{Catalog, Entry, SpoolError};

/// What was written so lately may be in the midst of a change.
const LATELY: Duration = Duration::from_secs(1);
/// How often a part that is listed may be gone when it is looked at.
const MOST_MISSES: usize = 100;

/// What was found in a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Journals that were read.
    pub journals: usize,
    /// Sealed segments that were read, a lane each.
    pub segments: usize,
    /// Damaged segments that were set aside earlier, with what was left of them saved: told long ago, and no finding.
    pub set_aside: usize,
    /// The first sequence there is; 0 when there is none.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Upstream has everything up to here.
    pub cursor: u64,
    /// The line model's newest complete state has applied everything up to here.
    pub checkpoint: Option<u64>,
    /// What can be read of each lane, damaged parts included: readings, items of telemetry, records.
    pub readable: BTreeMap<&'static str, u64>,
    /// What is wrong; nothing if the spool is sound.
    pub findings: Vec<Finding>,
}

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which file or segment, by its name in the spool's folder.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
    /// Which lane; none of what has no lane, or where nobody knows.
    pub lane: Option<&'static str>,
    /// The sequences in which the damage lies, both included.
    pub sequences: Option<(u64, u64)>,
    /// The commits between which it lies.
    pub span: Option<(Time, Time)>,
    /// What can still be read of that file or segment in that lane: readings, items or records, in the model lane frames.
    pub readable: u64,
    /// What cannot, in the same measure; frames where no lane is known. None where it cannot be known.
    pub lost: Option<u64>,
    /// Upstream has it all the same.
    pub delivered: bool,
    /// The agent has found it already, and entered it into the loss ledger.
    pub told: bool,
}

impl Report {
    /// Whether nothing is damaged and everything fits.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Reads all of the spool in `path` and says what is wrong with it. `progress` hears how many of how many parts are done. Holds
/// one journal's worth in memory, and copies one segment at a time among the temporary files.
///
/// # Errors
/// When there is no spool, or when its folder cannot be listed. Damage is no error.
pub fn verify(path: &Path, progress: impl FnMut(usize, usize)) -> Result<Report, SpoolError> {
    require(path)?;
    let mut walk = Walk::new(path);
    walk.small_files();
    walk.parts(progress)?;
    Ok(walk.conclude())
}

/// A part of the spool: what had one journal.
#[derive(Default)]
struct Step {
    /// None of a journal that nothing follows.
    last: Option<u64>,
    /// Where the next part begins.
    followed_by: Option<u64>,
    journal: bool,
    segments: Vec<Segment>,
    /// Segments that were set aside and not saved: nothing else holds what is in them.
    unsaved: Vec<Segment>,
}

struct Walk<'a> {
    root: &'a Path,
    catalog: Catalog,
    account: Account,
    /// What the cursor's file said before anything else was read: nothing that comes later can be behind it.
    cursor: Option<u64>,
    report: Report,
    /// Sequences that no name covers, both included.
    holes: Vec<(u64, u64)>,
    /// First and last commit of the part before.
    span: Option<(Time, Time)>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Path) -> Self {
        Self {
            root,
            catalog: Catalog::read(root).ok().flatten().unwrap_or_default(),
            account: Account::read(root).unwrap_or_default(),
            cursor: read_cursor(root).ok().flatten(),
            report: Report::default(),
            holes: Vec::new(),
            span: None,
        }
    }

    fn small_files(&mut self) {
        let damaged = Catalog::damaged(self.root);
        for name in &damaged {
            let what = if damaged.len() > 1 {
                "damaged, as its copy is: what was stored before has no names"
            } else {
                "damaged; its copy is sound and counts"
            };
            self.find(Finding { name: (*name).to_owned(), what: what.to_owned(), ..Finding::default() });
        }
        let unreadable = |name: &str, fits: fn(&[u8]) -> bool| match read_checked(&self.root.join(name)) {
            Ok(Some(bytes)) if fits(&bytes) => None,
            Ok(_) if !self.root.join(name).exists() => None,
            Ok(_) => Some("damaged".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        let cursor = unreadable("cursor", |bytes| bytes.len() == 8)
            .map(|why| ("cursor", format!("{why}; upstream gets again what no commit says it has")));
        let account = unreadable("account", |bytes| postcard::from_bytes::<Account>(bytes).is_ok())
            .map(|why| ("account", format!("{why}; what was dropped so far is no longer known")));
        for (name, what) in cursor.into_iter().chain(account) {
            self.find(Finding { name: name.to_owned(), what, ..Finding::default() });
        }
    }

    /// Each part in order. They are listed again for each: a running agent seals and removes meanwhile.
    fn parts(&mut self, mut progress: impl FnMut(usize, usize)) -> Result<(), SpoolError> {
        let mut position: Option<u64> = None;
        let (mut done, mut misses) = (0, 0);
        loop {
            let listing = Part::names(self.root)?;
            let steps = steps(self.root, &listing);
            progress(done, steps.len().max(done));
            self.report.set_aside = listing.bad.len() - unsaved(self.root, &listing).count();
            let next = steps.iter().find(|(_, step)| step.last.is_none_or(|last| position.is_none_or(|at| last > at)));
            let Some((&first, step)) = next else { break };
            let there = match step {
                Step { journal: true, followed_by, .. } => self.journal(first, *followed_by),
                step => {
                    let sealed = step.segments.iter().map(|segment| (segment, false));
                    let all = sealed.chain(step.unsaved.iter().map(|segment| (segment, true)));
                    all.fold(true, |there, (segment, set_aside)| there & self.segment(*segment, set_aside))
                }
            };
            if !there && misses < MOST_MISSES {
                misses += 1;
                continue;
            }
            misses = 0;
            done += 1;
            self.follow(position, first);
            // What is being written now ends here, as far as we look.
            let Some(last) = step.last else { break };
            self.report.last = self.report.last.max(last);
            position = Some(last);
        }
        progress(done, done);
        Ok(())
    }

    /// The part that begins with `first` comes after everything up to `position`.
    fn follow(&mut self, position: Option<u64>, first: u64) {
        let Some(position) = position else {
            self.report.first = first;
            return;
        };
        if first > position.saturating_add(1) {
            self.holes.push((position + 1, first - 1));
        }
        if first <= position {
            let what = format!("begins with sequence {first}, which the part before it has, too");
            let sequences = Some((first, position));
            self.find(Finding { name: format!("the part {first}"), what, sequences, ..Finding::default() });
        }
    }

    /// Whether it is there.
    fn journal(&mut self, first: u64, followed_by: Option<u64>) -> bool {
        let path = self.root.join(journal_name(first));
        let name = journal_name(first);
        let mut attempt = 1;
        let (bytes, scan) = loop {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
                Err(error) => {
                    let what = format!("cannot be read: {error}");
                    let sequences = followed_by.map(|next| (first, next - 1));
                    self.find(Finding { name, what, sequences, ..Finding::default() });
                    return true;
                }
            };
            let scan = scan(&bytes, first, followed_by);
            if !scan.holed && scan.damage.is_empty() || attempt == ATTEMPTS || !is_fresh(&path) {
                break (bytes, scan);
            }
            attempt += 1;
            thread::sleep(PAUSE);
        };
        self.report.journals += 1;
        self.report.cursor = self.report.cursor.max(scan.cursor);
        self.report.last = self.report.last.max(scan.last);
        self.journal_damage(&name, first, &scan);
        self.frames(&name, &bytes[..scan.len]);
        if let Some((through, _)) = scan.checkpoint {
            self.report.checkpoint = Some(through);
        }
        self.span = scan.span.or(self.span);
        true
    }

    fn journal_damage(&mut self, name: &str, first: u64, scan: &Scan) {
        let told = self.account.damaged.contains(&first);
        let mut known = false;
        for damage in &scan.damage {
            // A journal whose head is gone has no commit before it: the part before it has.
            let before = self.span.map_or(damage.span.0, |span| span.1);
            let from = if damage.span.0 == Time::default() { before } else { damage.span.0 };
            let common = Finding {
                name: name.to_owned(),
                sequences: Some((first, damage.last)),
                span: Some((from, damage.span.1.max(from))),
                told,
                ..Finding::default()
            };
            for lane in Lane::LEAST_WORTH.into_iter().filter(|lane| damage.units.of(*lane) > 0) {
                known = true;
                self.find(Finding {
                    what: "damaged: frames of a commit are missing".to_owned(),
                    lane: Some(lane.name()),
                    readable: scan.units.of(lane),
                    lost: Some(damage.units.of(lane)),
                    ..common.clone()
                });
            }
            if damage.unknown > 0 {
                known = true;
                let what = "damaged: frames are missing, and nothing tells what they held".to_owned();
                let readable = scan.units.total();
                self.find(Finding { what, readable, lost: Some(damage.unknown), ..common });
            }
        }
        if scan.holed && !known {
            self.find(Finding {
                name: name.to_owned(),
                what: "damaged: marks of the spool's own are missing, and nothing that goes upstream".to_owned(),
                lane: Some(Lane::Model.name()),
                sequences: Some((first, scan.last)),
                span: scan.span,
                told,
                ..Finding::default()
            });
        }
    }

    /// Whether it is there.
    fn segment(&mut self, segment: Segment, set_aside: bool) -> bool {
        let name = if set_aside { segment.bad_name() } else { segment.name() };
        let path = self.root.join(&name);
        let common = Finding {
            lane: Some(segment.lane.name()),
            sequences: Some((segment.first, segment.last)),
            name,
            ..Finding::default()
        };
        let mut attempt = 1;
        let (copy, meta, why) = loop {
            let copied = Copy::of(&path);
            if !path.exists() {
                return false;
            }
            let copy = match copied {
                Ok(copy) => copy,
                Err(_) if attempt < ATTEMPTS && is_fresh(&path) => {
                    attempt += 1;
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => {
                    self.find(Finding { what: format!("cannot be copied: {error}"), ..common });
                    return true;
                }
            };
            let meta = Meta::read(&copy.0);
            let why = match segment::load(&copy.0) {
                Ok((frames, meta)) if !set_aside => {
                    self.report.segments += 1;
                    self.sealed(segment, &frames, &meta, common);
                    return true;
                }
                Ok(_) => "was set aside as damaged, and could not be saved yet".to_owned(),
                Err(why) => format!("damaged: {why}"),
            };
            if attempt == ATTEMPTS || set_aside || !is_fresh(&path) {
                break (copy, meta, why);
            }
            attempt += 1;
            thread::sleep(PAUSE);
        };
        self.report.segments += 1;
        let left: Vec<u8> =
            segment::salvage(&copy.0, segment.lane, (segment.first, segment.last)).into_values().flatten().collect();
        let units = units(&left).of(segment.lane);
        let is_model = segment.lane == Lane::Model;
        self.find(Finding {
            what: why,
            span: meta.as_ref().map(|meta| meta.span),
            readable: if is_model { Frames::sound(&left, 0).count() as u64 } else { units },
            lost: meta.filter(|_| !is_model).map(|meta| meta.units.saturating_sub(units)),
            ..common.clone()
        });
        self.take(&common.name, segment.lane, &left);
        true
    }

    /// A segment that holds what was sealed.
    fn sealed(&mut self, segment: Segment, frames: &[u8], meta: &Meta, common: Finding) {
        let mut last = segment.first.checked_sub(1);
        let fits = Frames::new(frames, 0).all(|found| match found {
            Found::Frame(frame) => {
                let follows = last.is_none_or(|last| frame.seq > last) && frame.seq <= segment.last;
                last = Some(frame.seq);
                follows && frame.lane == segment.lane
            }
            Found::Damage => false,
        });
        let units = units(frames).of(segment.lane);
        let name = common.name.clone();
        if !fits || units != meta.units {
            let what = "holds what is not its own".to_owned();
            let lost = Some(meta.units.saturating_sub(units));
            self.find(Finding { what, span: Some(meta.span), readable: units, lost, ..common });
        }
        self.span = Some(meta.span);
        self.take(&name, segment.lane, frames);
    }

    /// What can be read of a segment.
    fn take(&mut self, name: &str, lane: Lane, frames: &[u8]) {
        self.frames(name, frames);
        if lane != Lane::Model {
            return;
        }
        let mut checkpoint = Assembly::default();
        Frames::sound(frames, 0).filter_map(|frame| frame.mark()).for_each(|mark| checkpoint.take(&mark));
        if let Some((through, _)) = checkpoint.complete {
            self.report.checkpoint = Some(through);
        }
    }

    /// Counts what can be read, and finds what is sound and still means nothing to this version of gemba, or has no name.
    fn frames(&mut self, name: &str, bytes: &[u8]) {
        let (mut foreign, mut nameless) = (BTreeMap::<Lane, Unread>::new(), Unread::default());
        for frame in Frames::sound(bytes, 0) {
            *self.report.readable.entry(frame.lane.name()).or_default() += frame.units();
            match entry(&frame) {
                Some(Entry::Readings(readings)) => {
                    let lost = readings.iter().filter(|reading| self.catalog.get(reading.series).is_none()).count();
                    nameless.add(&frame, lost as u64);
                }
                Some(_) => {}
                None if frame.mark().is_some() => {}
                None => foreign.entry(frame.lane).or_default().add(&frame, frame.units().max(1)),
            }
        }
        let total = units(bytes);
        for (lane, Unread { lost, sequences }) in foreign {
            let readable = total.of(lane).saturating_sub(lost);
            let (what, lane) = ("written by another version of gemba".to_owned(), Some(lane.name()));
            let name = name.to_owned();
            self.find(Finding { name, what, lane, sequences, readable, lost: Some(lost), ..Finding::default() });
        }
        if let Unread { lost: lost @ 1.., sequences } = nameless {
            let what = "readings of series that the catalog does not know".to_owned();
            let readable = total.of(Lane::Readings).saturating_sub(lost);
            let (name, lane) = (name.to_owned(), Some(Lane::Readings.name()));
            self.find(Finding { name, what, lane, sequences, readable, lost: Some(lost), ..Finding::default() });
        }
    }

    /// Whether cursor, checkpoint and what is there agree.
    fn conclude(mut self) -> Report {
        let known = self.cursor;
        // Once more: what was removed while we looked was written down before.
        let later = read_cursor(self.root).ok().flatten();
        let cursor = self.report.cursor.max(known.unwrap_or(0)).max(later.unwrap_or(0));
        self.report.cursor = cursor;
        let (first, last, checkpoint) = (self.report.first, self.report.last, self.report.checkpoint);
        if let Some(known) = known.filter(|known| *known > last) {
            let what =
                format!("says that upstream has everything up to sequence {known}, and the spool ends with {last}");
            let sequences = Some((last + 1, known));
            self.find(Finding { name: "cursor".to_owned(), what, sequences, ..Finding::default() });
        }
        if let Some(through) = checkpoint.filter(|through| *through > last) {
            let what = format!("has applied everything up to sequence {through}, and the spool ends with {last}");
            let sequences = Some((last + 1, through));
            self.find(Finding { name: "checkpoint".to_owned(), what, sequences, ..Finding::default() });
        }
        if checkpoint.is_none() && first > 1 {
            let what = "none is complete: the line model begins anew, from what is still there".to_owned();
            self.find(Finding { name: "checkpoint".to_owned(), what, ..Finding::default() });
        }
        // Nothing is removed that upstream or the checkpoint still needs.
        let needed = match (known.map(|_| cursor), checkpoint) {
            (Some(cursor), Some(through)) => Some(cursor.min(through)),
            (cursor, through) => cursor.or(through),
        };
        let head = needed.map(|needed| (needed.saturating_add(1), first.saturating_sub(1)));
        let holes = head.into_iter().filter(|(from, to)| from <= to).chain(std::mem::take(&mut self.holes));
        for (from, to) in holes.filter(|(_, to)| *to > needed.unwrap_or(0)).collect::<Vec<_>>() {
            let what = "missing on disk: no file or segment has these sequences, and none says that they were dropped";
            self.find(Finding {
                name: format!("sequences {from} to {to}"),
                what: what.to_owned(),
                sequences: Some((from, to)),
                lost: Some(to + 1 - from),
                ..Finding::default()
            });
        }
        for finding in &mut self.report.findings {
            let parted = finding.lost.is_none_or(|lost| lost > 0);
            finding.delivered = parted && finding.sequences.is_some_and(|(_, to)| to <= cursor);
        }
        self.report
    }

    fn find(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }
}

/// What stands in frames and cannot be used.
#[derive(Default)]
struct Unread {
    lost: u64,
    sequences: Option<(u64, u64)>,
}

impl Unread {
    fn add(&mut self, frame: &Frame<'_>, lost: u64) {
        if lost > 0 {
            self.lost += lost;
            self.sequences = Some((self.sequences.map_or(frame.seq, |held| held.0), frame.seq));
        }
    }
}

fn units(frames: &[u8]) -> Units {
    let mut units = Units::default();
    Frames::sound(frames, 0).for_each(|frame| units.add(frame.lane, frame.units()));
    units
}

/// The parts by first sequence, as the agent would take them: a journal beside its segments counts alone, what was dropped has
/// a name as well, and what was set aside and not saved is still there.
fn steps(root: &Path, listing: &Listing) -> BTreeMap<u64, Step> {
    let mut steps: BTreeMap<u64, Step> = BTreeMap::new();
    for &first in &listing.journals {
        steps.entry(first).or_default().journal = true;
    }
    for (&first, (last, lanes)) in &listing.sealed {
        let step = steps.entry(first).or_default();
        if !step.journal {
            step.last = Some(*last);
            step.segments.extend(lanes.iter().map(|&lane| Segment { lane, first, last: *last }));
        }
    }
    for &segment in unsaved(root, listing) {
        let step = steps.entry(segment.first).or_default();
        step.last = step.last.max(Some(segment.last));
        step.unsaved.push(segment);
    }
    for (&first, &last) in &listing.gaps {
        let step = steps.entry(first).or_default();
        if !step.journal {
            step.last = step.last.or(Some(last));
        }
    }
    let mut next = None;
    for (&first, step) in steps.iter_mut().rev() {
        step.followed_by = next;
        if step.journal {
            step.last = next.map(|next| next - 1);
        }
        next = Some(first);
    }
    steps
}

/// Damaged segments of which nothing else is left.
fn unsaved<'a>(root: &'a Path, listing: &'a Listing) -> impl Iterator<Item = &'a Segment> {
    listing.bad.iter().filter(|segment| {
        !listing.journals.contains(&segment.first)
            && !root.join(segment.name()).exists()
            && !root.join(segment.bad_name()).join(SALVAGED).exists()
    })
}

/// Whether a file, or one in a folder, was written within the last second: somebody may be at it.
fn is_fresh(path: &Path) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let inside = fs::read_dir(path).into_iter().flatten().flatten().filter_map(|entry| written(&entry.path()));
    let newest = inside.chain(written(path)).max();
    newest.is_some_and(|newest| SystemTime::now().duration_since(newest).is_ok_and(|age| age < LATELY))
}
