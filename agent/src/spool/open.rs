//! Opening: what a crash, a power cut or bad blocks left is put in order before anything else happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::sync::Arc;

use gemba_drivers::{Loss, Time};

use super::files::{LOCK, Listing, RESERVE, Root, Segment, disk_use, journal_name};
use super::frame::{Frame, Frames, Lane, Mark, Units};
use super::index::{Account, Index, Part, Shared, Store, read_cursor};
use super::journal::{Assembly, Damage, Scan, record, scan};
use super::load::Loaded;
use super::segment::Meta;
use super::{
    Catalog, Entry, Own, Reader, Sealer, Seq, Series, SeriesId, Settings, Signal, SpoolError, Writer, columns,
};

/// A spool, ready for work.
pub struct Opened {
    /// For the pipeline.
    pub writer: Writer,
    /// For the forwarder.
    pub reader: Reader,
    /// For house-keeping, on a thread where blocking is fine.
    pub sealer: Sealer,
    /// The series' numbers, in the order in which they were given.
    pub ids: Vec<SeriesId>,
    /// Every series there ever was.
    pub catalog: Arc<Catalog>,
    /// What was found.
    pub recovery: Recovery,
}

/// What a spool held when it was opened.
pub struct Recovery {
    /// The newest checkpoint: the last sequence that it has applied, and the model's state.
    pub checkpoint: Option<(Seq, Vec<u8>)>,
    /// The last proof of life.
    pub last_commit: Option<Time>,
    /// Losses that no record tells of yet: damage that was found now, or drops just before a crash. Each must be appended
    /// as a [`Record::Loss`](crate::record::Record::Loss) that holds it unchanged; until then every start reports it.
    pub losses: Vec<Loss>,
    /// The last sequence there is.
    pub last: Seq,
    shared: Arc<Shared>,
}

impl Recovery {
    /// Every entry after the checkpoint, in order, up to what was there at the opening. Holds one journal's worth at a time.
    pub fn entries(self) -> Entries {
        let position = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.0.0);
        Entries { shared: self.shared, position, end: self.last.0, held: None }
    }
}

/// See [`Recovery::entries`]. Ends after an error.
pub struct Entries {
    shared: Arc<Shared>,
    position: u64,
    end: u64,
    held: Option<(Loaded, usize)>,
}

impl Iterator for Entries {
    type Item = Result<(Seq, Entry), SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.position >= self.end {
                return None;
            }
            let Some((part, at)) = &mut self.held else {
                match self.shared.load_after(self.position, |_| true) {
                    Ok(part) => self.held = Some((part?, 0)),
                    Err(error) => {
                        self.position = self.end;
                        return Some(Err(error));
                    }
                }
                continue;
            };
            let Some(frame) = Frames::sound(&part.bytes, *at).next() else {
                self.position = self.position.max(part.last);
                self.held = None;
                continue;
            };
            *at = frame.end();
            if frame.seq <= self.position || frame.seq > self.end {
                continue;
            }
            self.position = frame.seq;
            if let Some(entry) = entry(&frame) {
                return Some(Ok((Seq(frame.seq), entry)));
            }
        }
    }
}

/// What a frame holds; `None` for the spool's own marks, and for what no decoder understands.
pub(super) fn entry(frame: &Frame<'_>) -> Option<Entry> {
    match frame.lane {
        Lane::Readings => columns::decode(frame.payload).map(Entry::Readings),
        Lane::Model => match frame.mark()? {
            Mark::Tick(time) => Some(Entry::Tick(time)),
            Mark::Deliveries { session, deliveries } => {
                Some(Entry::Deliveries { session: session.into(), deliveries: deliveries.into_owned() })
            }
            Mark::Filters { session, begins, filters } => {
                Some(Entry::Filters { session: session.into(), begins, filters: filters.into_owned() })
            }
            Mark::Commit { .. } | Mark::Checkpoint { .. } => None,
        },
        Lane::Telemetry => {
            let (items, signal, time, body) = postcard::from_bytes::<(u64, Signal, Time, &[u8])>(frame.payload).ok()?;
            Some(Entry::Telemetry(Own { signal, items, time, body: body.to_vec().into() }))
        }
        Lane::Events | Lane::Kpis => {
            record(frame.payload).map(|(cause, record)| Entry::Record { cause: cause.map(Seq), record })
        }
    }
}

/// Opens the spool for this process alone, or makes a new one. `series` is what the configuration has; numbers of
/// series that were there before stay as they were.
///
/// Torn ends are cut off, interrupted work is undone or finished, damage is accounted for; left-over journals are sealed
/// later, by the first rounds of the [`Sealer`].
///
/// # Errors
/// When another process holds it, when it is not a folder, or when the disk refuses. Damage is no error.
pub fn open(settings: Settings, series: &[Series]) -> Result<Opened, SpoolError> {
    let root = Root::open(&settings.path)?;
    let listing = Listing::read(root.path())?;
    root.sweep(&listing)?;
    let (catalog, ids, catalog_damaged) = Catalog::open(&root, series)?;
    let found = Found::gather(&root, &listing)?;
    let next = found.next.max(listing.journals.last().copied().unwrap_or(1));
    let Found { index, damage, torn, journal_checkpoint, .. } = found;
    let last_commit = index.parts.values().map(|part| part.span.1).max().filter(|time| *time != Time::default());
    let shared = Arc::new(Shared::new(root, settings, catalog, index));

    for damage in &damage {
        shared.lose_from_journal(damage);
    }
    if catalog_damaged {
        let at = last_commit.unwrap_or_default();
        let reason = "the catalog is damaged: what was stored before has no names".into();
        shared.index().lose(Loss { source: "spool".into(), from: at, to: at, count: 1, reason });
    }
    shared.find_gaps()?;
    shared.write_account()?;
    for (first, len) in torn {
        let path = shared.root.join(&journal_name(first));
        if len == 0 {
            // Nothing in it counts; its number stays taken through `next`. If it held something once, that is told.
            let lost = shared.index().parts.get(&first).map(|part| part.last);
            lost.map_or(Ok(()), |last| shared.mark_gap(first, last))?;
            fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
            continue;
        }
        let file = File::options().write(true).open(&path).map_err(SpoolError::io("open", &path))?;
        file.set_len(len).and_then(|()| file.sync_all()).map_err(SpoolError::io("cut", &path))?;
    }
    settle(&shared.root, &listing)?;
    shared.restore_left_overs(&listing);
    shared.root.keep_reserve();
    let checkpoint = shared.newest_checkpoint(journal_checkpoint)?;
    shared.count_passed()?;

    let losses = {
        let mut index = shared.index();
        index.fresh.clear(); // handed out here, not by the sealer
        index.account.untold.clone()
    };
    let last = Seq(next - 1);
    shared.committed.send_replace(last);
    Ok(Opened {
        writer: Writer::new(Arc::clone(&shared), next),
        reader: Reader::new(Arc::clone(&shared)),
        sealer: Sealer::new(Arc::clone(&shared)),
        ids,
        catalog: Arc::clone(&shared.catalog),
        recovery: Recovery { checkpoint, last_commit, losses, last, shared },
    })
}

/// Makes durable what was found. What a process that was killed had written and not synced yet looks no different from here,
/// but lies in the kernel's memory alone. From now on it is applied, acknowledged when it is sent again, and built upon: a
/// power cut must not take it then.
fn settle(root: &Root, listing: &Listing) -> Result<(), SpoolError> {
    for &first in &listing.journals {
        let path = root.join(&journal_name(first));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // nothing in it counted
            file => file.and_then(|file| file.sync_all()).map_err(SpoolError::io("sync", &path))?,
        }
    }
    root.sync()
}

/// What lies in the root, read without changing it (but for segments whose journal is still there).
struct Found {
    index: Index,
    damage: Vec<Damage>,
    /// Journals to cut, by first sequence, and where.
    torn: Vec<(u64, u64)>,
    /// The newest checkpoint in a journal: its part, what it has applied, the state.
    journal_checkpoint: Option<(u64, u64, Vec<u8>)>,
    next: u64,
}

impl Found {
    fn gather(root: &Root, listing: &Listing) -> Result<Self, SpoolError> {
        let cursor = read_cursor(root.path())?;
        let mut account = Account::read(root.path())?;
        let known = std::mem::take(&mut account.damaged);
        let index = Index {
            account,
            cursor: cursor.unwrap_or(0),
            cursor_written: cursor.unwrap_or(0),
            cursor_known: cursor.is_some(),
            other_bytes: other_bytes(root, listing),
            ..Index::default()
        };
        let mut found = Self { index, damage: Vec::new(), torn: Vec::new(), journal_checkpoint: None, next: 1 };
        found.add_sealed(root, listing);
        let mut told = Vec::new();
        let mut damage = Vec::new();
        for &first in &listing.journals {
            let after = |firsts: Option<&u64>| firsts.copied();
            let followed_by = after(listing.journals.range(first + 1..).next())
                .into_iter()
                .chain(found.index.parts.range(first + 1..).next().map(|(first, _)| *first))
                .min();
            let path = root.join(&journal_name(first));
            let bytes = fs::read(&path).map_err(SpoolError::io("read", &path))?;
            let mut scan = scan(&bytes, first, followed_by);
            if scan.len < bytes.len() || scan.len == 0 {
                found.torn.push((first, scan.len as u64));
            }
            if let Some((_, before)) = found.index.parts.range(..first).next_back() {
                let unknown = scan.damage.iter_mut().filter(|damage| damage.span.0 == Time::default());
                unknown.for_each(|damage| damage.span = (before.span.1, damage.span.1.max(before.span.1)));
            }
            told.append(&mut scan.told);
            if !known.contains(&first) {
                damage.append(&mut scan.damage);
            }
            if scan.holed {
                found.index.account.damaged.insert(first);
            }
            found.add_journal(first, scan);
        }
        found.index.account_changed |= found.index.account.damaged != known;
        found.index.told(&told);
        let cursor = found.index.cursor;
        // What upstream has, or what is written down already, is not lost.
        found.damage = damage.into_iter().filter(|damage| damage.last > cursor).collect();
        found.next = found.next.max(found.index.last() + 1).max(cursor + 1);
        Ok(found)
    }

    fn add_journal(&mut self, first: u64, scan: Scan) {
        self.index.cursor = self.index.cursor.max(scan.cursor);
        if scan.last < first {
            return;
        }
        if scan.len == 0 {
            self.index.parts.insert(first, Part::gap(scan.last));
            return;
        }
        if let Some((through, state)) = scan.checkpoint {
            self.journal_checkpoint = Some((first, through, state));
        }
        let time = scan.span.unwrap_or_default();
        let store = Store::Journal { len: scan.len as u64, marks: scan.marks, left_over: true };
        self.index.parts.insert(first, Part { last: scan.last, span: time, units: scan.units, store });
    }

    fn add_sealed(&mut self, root: &Root, listing: &Listing) {
        let mut segments: BTreeSet<Segment> = BTreeSet::new();
        for (&first, (last, lanes)) in &listing.sealed {
            for &lane in lanes {
                let segment = Segment { lane, first, last: *last };
                if listing.journals.contains(&first) {
                    root.discard(&segment.name()); // half a seal: the journal counts
                } else {
                    segments.insert(segment);
                }
            }
        }
        // Set aside, and perhaps not saved yet: counted as if still there until it is.
        segments.extend(listing.bad.iter().filter(|segment| root.is_unsaved(listing, **segment)));
        for segment in segments {
            let path = root.join(&segment.name());
            let meta = Meta::read(&path).or_else(|| Meta::read(&root.join(&segment.bad_name())));
            let (units, span) = meta.map_or((0, None), |meta| (meta.units, Some(meta.span)));
            let part = self.index.parts.entry(segment.first).or_insert_with(|| Part {
                last: segment.last,
                span: span.unwrap_or_default(),
                units: Units::default(),
                store: Store::Sealed(BTreeMap::new()),
            });
            part.units.add(segment.lane, units);
            if let Store::Sealed(lanes) = &mut part.store {
                lanes.insert(segment.lane, disk_use(&path));
            }
        }
        for (&first, &last) in &listing.gaps {
            self.index.parts.entry(first).or_insert_with(|| Part::gap(last));
        }
    }
}

/// Blocks of what is no part: catalog, cursor, account, reserve, damaged segments.
pub(super) fn other_bytes(root: &Root, listing: &Listing) -> u64 {
    let bad = listing.bad.iter().map(|segment| disk_use(&root.join(&segment.bad_name()))).sum::<u64>();
    let files = ["catalog", "catalog-copy", "cursor", "account", LOCK, RESERVE];
    files.iter().map(|name| disk_use(&root.join(name))).sum::<u64>() + bad
}

impl Shared {
    /// Parts follow each other without a hole; where one is missing that upstream does not have, it is lost.
    fn find_gaps(&self) -> Result<(), SpoolError> {
        let (holes, cursor) = {
            let index = self.index();
            let mut expected =
                if index.cursor_known { index.cursor + 1 } else { index.parts.keys().next().map_or(1, |first| *first) };
            let mut holes = Vec::new();
            for (&first, part) in &index.parts {
                if first > expected {
                    holes.push((expected, first - 1, part.span.0));
                }
                expected = expected.max(part.last + 1);
            }
            (holes, index.cursor)
        };
        for (first, last, until) in holes.into_iter().filter(|hole| hole.1 > cursor) {
            self.mark_gap(first, last)?;
            let mut index = self.index();
            let from = index.parts.range(..first).next_back().map_or(until, |(_, part)| part.span.1);
            index.lose(Loss {
                source: "spool".into(),
                from,
                to: until,
                count: last + 1 - first,
                reason: "missing on disk".into(),
            });
            index.parts.insert(first, Part::gap(last));
        }
        Ok(())
    }

    /// The newest complete checkpoint, be it in a journal or sealed.
    fn newest_checkpoint(&self, journal: Option<(u64, u64, Vec<u8>)>) -> Result<Option<(Seq, Vec<u8>)>, SpoolError> {
        let oldest = journal.as_ref().map_or(0, |(first, ..)| *first);
        let sealed: Vec<Segment> = {
            let index = self.index();
            let newer = index.parts.range(oldest..).rev();
            let model = |part: &Part| matches!(&part.store, Store::Sealed(lanes) if lanes.contains_key(&Lane::Model));
            let with_model = newer.filter(|(_, part)| model(part));
            with_model.map(|(&first, part)| Segment { lane: Lane::Model, first, last: part.last }).collect()
        };
        for segment in sealed {
            if Meta::read(&self.root.join(&segment.name())).is_some_and(|meta| meta.checkpoint.is_none()) {
                continue;
            }
            let frames = self.load_lane(segment)?;
            let mut assembly = Assembly::default();
            Frames::sound(&frames, 0).filter_map(|frame| frame.mark()).for_each(|mark| assembly.take(&mark));
            if let Some((through, state)) = assembly.complete {
                self.index().checkpoint = Some((through, segment.first));
                return Ok(Some((Seq(through), state)));
            }
        }
        let Some((first, through, state)) = journal else { return Ok(None) };
        self.index().checkpoint = Some((through, first));
        Ok(Some((Seq(through), state)))
    }

    /// Counts what upstream already has of the part in which the cursor stands.
    fn count_passed(&self) -> Result<(), SpoolError> {
        let cursor = self.index().cursor;
        if self.index().after(cursor).is_none_or(|(first, _)| first > cursor) {
            return Ok(());
        }
        let Some(part) = self.load_after(cursor, |lane| lane != Lane::Model)? else { return Ok(()) };
        let mut units = Units::default();
        for frame in Frames::sound(&part.bytes, 0).take_while(|frame| frame.seq <= cursor) {
            units.add(frame.lane, frame.units());
        }
        self.index().acknowledge(cursor, part.first, units);
        Ok(())
    }
}
