//! What is still in the spool, written for others to read.

use std::io::{self, Write};
use std::path::Path;

use gemba_drivers::{Time, Validity, Value};
use serde::Serialize;

use super::{Part, require};
use crate::csv;
use crate::entries::EntryJson;
use crate::record::Record;
use crate::spool::frame::{Frame, Frames, Lane};
use crate::spool::open::entry;
use crate::spool::{Catalog, Entry, Seq, SpoolError, StoredReading, columns};

/// What to export.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Source times from here on.
    pub from: Option<Time>,
    /// Source times before it.
    pub to: Option<Time>,
    /// Of this station alone.
    pub station: Option<String>,
    /// How it is written.
    pub format: Format,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    #[default]
    Jsonl,
    /// A header, then a row each (RFC 4180).
    Csv,
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
    /// Frames that this version of gemba cannot read; not written.
    pub undecoded: u64,
}

/// Writes the readings that are still in the spool of `path`, whether upstream has them or not, in order of sequence: as JSON
/// lines, which `gemba replay` reads, or as CSV with the same fields. `progress` hears how many of how many parts are done. Holds one journal's worth in memory.
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
    if selection.format == Format::Csv {
        csv::row(out, COLUMNS).map_err(SpoolError::io("export", path))?;
    }
    let unreadable = each_frame(path, Lane::Readings, progress, |frame| {
        let Some(readings) = columns::decode(frame.payload) else {
            exported.undecoded += 1;
            return Ok(());
        };
        readings.iter().try_for_each(|reading| exported.write(&catalog, selection, reading, out))
    })?;
    exported.unreadable = unreadable;
    out.flush().map_err(SpoolError::io("export", path))?;
    Ok(exported)
}

/// Writes what people entered and is still in the spool of `path`, as JSON lines in the order in which it came. The times of
/// `selection` speak of when it was entered; its format is not asked.
///
/// # Errors
/// As [`export`].
pub fn export_entries(
    path: &Path,
    selection: &Selection,
    out: &mut dyn Write,
    progress: impl FnMut(usize, usize),
) -> Result<Exported, SpoolError> {
    let mut lines = 0;
    let mut exported = each_entry(path, Lane::Events, progress, |_, entry| {
        let Entry::Record { record: Record::Entered(entry), .. } = entry else { return Ok(()) };
        if selection.takes(entry.entered, Some(&entry.station)) {
            serde_json::to_writer(&mut *out, &EntryJson::from(&*entry))?;
            out.write_all(b"\n")?;
            lines += 1;
        }
        Ok(())
    })?;
    exported.readings = lines;
    out.flush().map_err(SpoolError::io("export", path))?;
    Ok(exported)
}

/// Gives everything that is still in one lane of the spool in `path` to `each`, in order of sequence, whether upstream has it
/// or not. `progress` hears how many of how many parts are done.
///
/// # Errors
/// When there is no spool, when it cannot be read, or when `each` fails.
pub fn each_entry(
    path: &Path,
    lane: Lane,
    progress: impl FnMut(usize, usize),
    mut each: impl FnMut(Seq, Entry) -> io::Result<()>,
) -> Result<Exported, SpoolError> {
    require(path)?;
    let mut undecoded = 0;
    let unreadable = each_frame(path, lane, progress, |frame| match entry(frame) {
        Some(entry) => each(Seq(frame.seq), entry),
        None => {
            undecoded += 1;
            Ok(())
        }
    })?;
    Ok(Exported { unreadable, undecoded, ..Exported::default() })
}

/// Gives each frame of `lane` to `each`, in order of sequence. Returns the segments that could not be read, by name and why.
fn each_frame(
    path: &Path,
    lane: Lane,
    mut progress: impl FnMut(usize, usize),
    mut each: impl FnMut(&Frame<'_>) -> io::Result<()>,
) -> Result<Vec<String>, SpoolError> {
    let mut unreadable = Vec::new();
    let mut position = 0;
    let mut done = 0;
    let total = Part::list(path)?.len();
    loop {
        progress(done, total.max(done));
        // Listed again for each part: a running agent seals and removes meanwhile.
        let parts = Part::list(path)?;
        let Some(part) = parts.iter().find(|part| part.end().is_none_or(|end| end > position)) else { break };
        let Some(bytes) = part.frames(path, lane, &mut unreadable)? else { continue };
        for frame in Frames::sound(&bytes, 0).filter(|frame| frame.lane == lane && frame.seq > position) {
            each(&frame).map_err(SpoolError::io("export", path))?;
        }
        done += 1;
        // What is being written now ends here, as far as this export goes.
        let Some(end) = part.end() else { break };
        position = end;
    }
    progress(done, done);
    Ok(unreadable)
}

impl Selection {
    /// Whether it takes what is of this time and station.
    #[must_use]
    pub fn takes(&self, time: Time, station: Option<&str>) -> bool {
        self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time < to)
            && self.station.as_deref().is_none_or(|wanted| station == Some(wanted))
    }
}

/// The columns of readings as CSV: the fields of [`Line`].
const COLUMNS: [&str; 8] =
    ["station", "tag", "value", "validity", "status", "source_time", "received_time", "backfilled"];

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
        if !selection.takes(time, Some(&series.station)) {
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
        self.readings += 1;
        match selection.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")
            }
            Format::Csv => line.row(out),
        }
    }
}

impl Line<'_> {
    /// As CSV: nothing is empty, text stands as it is.
    fn row(&self, out: &mut dyn Write) -> io::Result<()> {
        let value = match &self.value {
            Plain::Null => String::new(),
            Plain::Bool(on) => on.to_string(),
            Plain::Int(whole) => whole.to_string(),
            Plain::Float(real) => csv::number(*real),
            Plain::Text(text) => (*text).to_owned(),
        };
        let [source, received] = [self.source_time, self.received_time].map(|time| time.to_string());
        let backfilled = if self.backfilled { "true" } else { "false" };
        let status = self.status.as_deref().unwrap_or_default();
        csv::row(out, [self.station, self.tag, &value, self.validity, status, &source, &received, backfilled])
    }
}
