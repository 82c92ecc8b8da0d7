//! `gemba spool export`: what is still in the buffer, for other programs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum, ValueHint};
use gemba_drivers::Time;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Place, onto, progress_bar};
use crate::cli::{Misuse, warn};
use crate::csv;
use crate::otlp::plain::{Histogram, Item, items};
use crate::otlp::{Encoder, Resource};
use crate::spool::{self, Entry, Exported, Selection, Seq, Signal, catalog, each_entry};

/// Write what is in the buffer as JSON lines or CSV, whether upstream has it already or not
///
/// `--lane readings`: a line each as `gemba replay` reads it: station, tag, value, validity, status unless good, source_time,
/// received_time, backfilled if it came from history. CSV has the same columns; text and numbers look alike in it.
///
/// The other lanes are written as upstream gets them, an item each: `sequence` (its place in the buffer), `kind` (point, log,
/// span), `name`, `time`, and `attributes` by name. A point of kpis has `unit`, `value` or `histogram`, and `since` if it counts from
/// then on; a log has `severity` and `body`; a span has `end`. What does not apply is left out. CSV of kpis has a row a point: sequence,
/// time, since, station, shift, name, unit, value, count, sum, min, max, and the other attributes as JSON.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Export {
    #[command(flatten)]
    place: Place,
    /// What of the buffer
    #[arg(long, value_enum, default_value_t)]
    lane: Lane,
    /// What people entered instead, for `gemba replay --entries`; the times below are those of entering
    #[arg(long, conflicts_with_all = ["lane", "format"])]
    entries: bool,
    /// JSON lines, or CSV with a header (readings and kpis)
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only what is of this time or later, by the source
    #[arg(long, value_name = "RFC3339")]
    from: Option<Time>,
    /// Only what is of a time before this
    #[arg(long, value_name = "RFC3339")]
    to: Option<Time>,
    /// Only what is of this station
    #[arg(long, value_name = "NAME")]
    station: Option<String>,
    /// Where to; standard output when not said
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = r"Examples:
  gemba spool export --config line.yaml > readings.jsonl
  gemba spool export --config line.yaml --lane kpis --format csv --output kpis.csv
  gemba spool export --path /var/lib/gemba/spool --lane events --from 2026-03-02T06:00:00Z";

/// What of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Lane {
    /// What the machines said
    #[default]
    Readings,
    /// Figures and sums of stations and the line
    Kpis,
    /// State and validity changes, alerts, entries, visits, losses
    Events,
    /// What the agent tells of itself
    Telemetry,
}

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object a line
    #[default]
    Jsonl,
    /// A header, then a row each (RFC 4180)
    Csv,
}

impl Export {
    /// Exports.
    ///
    /// # Errors
    /// When the buffer cannot be read, or the output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { place, lane, entries, format, from, to, station, output } = self;
        if format == Format::Csv && matches!(lane, Lane::Events | Lane::Telemetry) {
            let why = "events and telemetry have no columns in common: export them with --format jsonl";
            return Err(anyhow!(Misuse(why.to_owned())));
        }
        let path = place.path()?;
        let format = match format {
            Format::Jsonl => spool::Format::Jsonl,
            Format::Csv => spool::Format::Csv,
        };
        let selection = Selection { from, to, station, format };
        let out: Box<dyn Write> = match &output {
            Some(file) => Box::new(File::create(file).with_context(|| format!("creating {}", file.display()))?),
            None => Box::new(io::stdout().lock()),
        };
        let mut out = BufWriter::new(out);
        let bar = progress_bar();
        let exported = match (entries, lane) {
            (true, _) => spool::export_entries(&path, &selection, &mut out, onto(&bar))?,
            (false, Lane::Readings) => spool::export(&path, &selection, &mut out, onto(&bar))?,
            (false, Lane::Kpis) => told(&path, spool::Lane::Kpis, &selection, &mut out, onto(&bar))?,
            (false, Lane::Events) => told(&path, spool::Lane::Events, &selection, &mut out, onto(&bar))?,
            (false, Lane::Telemetry) => told(&path, spool::Lane::Telemetry, &selection, &mut out, onto(&bar))?,
        };
        bar.finish_and_clear();
        for segment in &exported.unreadable {
            warn(&format!("damaged, what is left of it was exported: {segment}"));
        }
        if exported.nameless > 0 {
            warn(&format!("{} readings left out: the catalog that named them was damaged", exported.nameless));
        }
        if exported.undecoded > 0 {
            warn(&format!("{} frames left out: another version of gemba wrote them", exported.undecoded));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes a lane of records or telemetry.
fn told(
    path: &Path,
    lane: spool::Lane,
    selection: &Selection,
    out: &mut dyn Write,
    progress: impl FnMut(usize, usize),
) -> anyhow::Result<Exported> {
    let csv = selection.format == spool::Format::Csv;
    if csv {
        csv::row(out, COLUMNS)?;
    }
    let signals: &[Signal] =
        if lane == spool::Lane::Kpis { &[Signal::Metrics] } else { &[Signal::Logs, Signal::Traces] };
    let stations: Vec<_> = catalog(path)?.iter().map(|(_, series)| series.station.clone()).collect();
    let mut encoder = Encoder::new(&nobody(), |_| None).with_stations(stations).of(signals);
    let mut strange = 0;
    let mut exported = each_entry(path, lane, progress, |seq, entry| {
        let Ok(items) = taken_apart(&mut encoder, seq, entry) else {
            strange += 1;
            return Ok(());
        };
        for item in items.iter().filter(|item| selection.takes(item.time, item.station())) {
            if csv {
                row(out, seq, item)?;
            } else {
                serde_json::to_writer(&mut *out, &Numbered { sequence: seq.0, item })?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    })?;
    exported.undecoded += strange;
    out.flush()?;
    Ok(exported)
}

/// As upstream gets it. Only what the agent tells of itself has identifiers of traces: those of visits hang on site and line.
fn taken_apart(encoder: &mut Encoder, seq: Seq, entry: Entry) -> Result<Vec<Item>, prost::DecodeError> {
    if let Entry::Telemetry(own) = &entry {
        return items(own.signal, &own.body);
    }
    let encoded = encoder.encode(&[(seq, entry)]);
    let bodies = [(Signal::Metrics, encoded.metrics), (Signal::Logs, encoded.logs), (Signal::Traces, encoded.traces)];
    let mut all = Vec::new();
    for (signal, payload) in bodies {
        let Some(payload) = payload else { continue };
        let held = items(signal, &payload.body)?;
        all.extend(held.into_iter().map(|item| Item { trace_id: String::new(), span_id: String::new(), ..item }));
    }
    Ok(all)
}

/// The resource is no part of what is written.
fn nobody() -> Resource {
    let none = || "".into();
    Resource { site: none(), line: none(), instance_id: none(), host_name: none(), version: none() }
}

#[derive(Serialize)]
struct Numbered<'a> {
    sequence: u64,
    #[serde(flatten)]
    item: &'a Item,
}

/// The columns of kpis as CSV.
const COLUMNS: [&str; 13] = [
    "sequence",
    "time",
    "since",
    "station",
    "shift",
    "name",
    "unit",
    "value",
    "count",
    "sum",
    "min",
    "max",
    "attributes",
];
/// Attributes with a column of their own.
const APART: [&str; 2] = ["factory.station", "factory.shift"];

fn row(out: &mut dyn Write, seq: Seq, item: &Item) -> io::Result<()> {
    let [station, shift] = APART.map(|name| item.attributes.get(name).and_then(Json::as_str).unwrap_or_default());
    let others: serde_json::Map<String, Json> = item
        .attributes
        .iter()
        .filter(|(name, _)| !APART.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let others = if others.is_empty() { String::new() } else { Json::Object(others).to_string() };
    let value = item.value.as_ref().filter(|value| !value.is_null()).map(Json::to_string).unwrap_or_default();
    let number = |of: fn(&Histogram) -> Option<f64>| item.histogram.as_ref().and_then(of).map(csv::number);
    let count = item.histogram.as_ref().map(|held| held.count.to_string()).unwrap_or_default();
    let [sum, min, max] =
        [number(|held| held.sum), number(|held| held.min), number(|held| held.max)].map(Option::unwrap_or_default);
    let since = item.since.map(|since| since.to_string()).unwrap_or_default();
    let (sequence, time) = (seq.0.to_string(), item.time.to_string());
    let fields =
        [&sequence, &time, &since, station, shift, &item.name, &item.unit, &value, &count, &sum, &min, &max, &others];
    csv::row(out, fields)
}
