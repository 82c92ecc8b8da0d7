//! `gemba explain`.

mod table;

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use gemba_drivers::Time;

use super::{Misuse, warn};
use crate::config::Config;
use crate::http::ExplanationJson;
use crate::model::Selector;
use crate::replay;
use crate::spool::{Selection, export};

/// Say how a figure came about: the time, counts and losses that add up to it
///
/// Planned time is followed down to the ideal time of good parts, loss by loss: OEE is the last over the first. Then come
/// the pieces of time and the counts that these sums are made of, so that every figure can be checked by hand.
///
/// Readings are JSON lines as `gemba spool export` writes them. Without a file those are taken that the buffer of the
/// configuration still holds, whether an agent runs or not: what upstream has is gone from it after `spool.keep`. An agent that
/// runs knows more: ask it for `/explain?station=NAME&shift=current`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    /// YAML file, or a folder whose *.yaml files are merged
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The station
    #[arg(long, value_name = "NAME")]
    station: String,
    #[command(flatten)]
    what: What,
    /// Only this figure, and what it is made of
    #[arg(long, value_enum, value_name = "FIGURE")]
    kpi: Option<Kpi>,
    /// As of this instant; as of the last reading unless said
    #[arg(long, value_name = "RFC3339")]
    at: Option<Time>,
    /// How it looks
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The readings; `-` is standard input, nothing is the buffer of the configuration
    #[arg(value_name = "READINGS.jsonl")]
    readings: Option<PathBuf>,
}

const EXAMPLES: &str = r"Examples:
  gemba explain --config line.yaml --station printer-1 --shift yesterday/late
  gemba explain --config line.yaml --station printer-1 --hour today/06:00 --kpi performance
  gemba explain --config line.yaml --station printer-1 --shift 2026-03-02/early readings.jsonl
  gemba explain --config line.yaml --station printer-1 --rolling=30min
  gemba spool export --config line.yaml | gemba explain --config line.yaml --station printer-1 --lot A-17 -";

/// What is explained.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct What {
    /// A shift by the day on which it starts: `today/early`, `yesterday/late`, `2026-11-22/night`; `current` unless said
    #[arg(long, value_name = "DAY/SHIFT", value_parser = Selector::shift)]
    shift: Option<Selector>,
    /// An hour of the clock on the wall: `today/06:00`, or an instant in it
    #[arg(long, value_name = "DAY/HH:MM", value_parser = Selector::hour)]
    hour: Option<Selector>,
    /// All of a lot
    #[arg(long, value_name = "NAME")]
    lot: Option<String>,
    /// All of a product
    #[arg(long, value_name = "NAME")]
    product: Option<String>,
    /// All of an order
    #[arg(long, value_name = "NAME")]
    order: Option<String>,
    /// The last minutes, up to the last full one: as many as `oee.rolling` says (60min without it), unless said as `=30min`
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = Selector::rolling)]
    rolling: Option<Selector>,
}

impl What {
    fn selector(self) -> Selector {
        let Self { shift, hour, lot, product, order, rolling } = self;
        let named = lot.map(Selector::Lot).or(product.map(Selector::Product)).or(order.map(Selector::Order));
        shift.or(hour).or(rolling).or(named).unwrap_or(Selector::Current)
    }
}

/// A figure that can be asked for alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kpi {
    /// Ideal time of good parts over planned time
    Oee,
    /// Run time over planned time
    Availability,
    /// Ideal time of parts over run time
    Performance,
    /// Good parts over all parts
    Quality,
    /// Known planned time over all planned time
    Coverage,
}

impl Kpi {
    fn name(self) -> &'static str {
        match self {
            Self::Oee => "oee",
            Self::Availability => "availability",
            Self::Performance => "performance",
            Self::Quality => "quality",
            Self::Coverage => "coverage",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables to read
    #[default]
    Table,
    /// One JSON object, as `/explain` gives it
    Json,
}

impl Explain {
    /// Replays, explains, prints.
    ///
    /// # Errors
    /// A wrong configuration, readings that cannot be read, nothing to explain.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let Some(station) = config.stations.iter().position(|station| *station.name == *self.station) else {
            let known: Vec<&str> = config.stations.iter().map(|station| &*station.name).collect();
            let known = known.join("`, `");
            return Err(
                Misuse(format!("there is no station `{}`; the configuration has `{known}`", self.station)).into()
            );
        };
        let (name, input) = readings(self.readings.as_deref(), &config, &self.station)?;
        let replayed = replay::run(&config, input, self.at).map_err(|error| anyhow::anyhow!("{name}:{error}"))?;
        let end = replayed.end.with_context(|| format!("{name} holds no readings of station `{}`", self.station))?;
        let mut explained = replayed.line.explain(station, &self.what.selector(), end)?;
        if explained.kind == "shift" && explained.revision.is_none() {
            explained.revision = replayed.revision(&self.station, explained.to);
        }
        let text = match self.format {
            Format::Json => serde_json::to_string(&ExplanationJson::from(&explained))? + "\n",
            Format::Table => table::text(&explained, &config.timezone, self.kpi.map(Kpi::name)),
        };
        std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The readings, and what they are called.
fn readings(file: Option<&Path>, config: &Config, station: &str) -> anyhow::Result<(String, Box<dyn BufRead>)> {
    let Some(file) = file else {
        let path = &config.spool.path;
        let selection = Selection { station: Some(station.to_owned()), ..Selection::default() };
        let mut lines = Vec::new();
        let exported = export(path, &selection, &mut lines, |_, _| {})?;
        for segment in &exported.unreadable {
            warn(&format!("damaged, what is left of it was read: {segment}"));
        }
        return Ok((path.display().to_string(), Box::new(Cursor::new(lines))));
    };
    if file.as_os_str() == "-" {
        return Ok(("stdin".to_owned(), Box::new(std::io::stdin().lock())));
    }
    let name = file.display().to_string();
    let file = File::open(file).with_context(|| name.clone())?;
    Ok((name, Box::new(BufReader::new(file))))
}
