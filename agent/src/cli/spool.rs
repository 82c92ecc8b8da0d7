//! `gemba spool`: looks at the buffer of an agent, running or not, without touching it.

mod dead_letter;
mod export;
mod verify;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use comfy_table::{CellAlignment, Table, presets};
use gemba_drivers::Time;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::config::Config;
use crate::forward::Letters;
use crate::spool::{Status, status};

/// Look into the buffer, while an agent runs or not
///
/// The buffer (`spool.path`) holds what upstream does not have yet, in files that a running agent writes. Nothing here changes
/// or locks them.
#[derive(Debug, Args)]
pub struct Spool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(Look),
    Verify(verify::Verify),
    Export(export::Export),
    DeadLetter(dead_letter::DeadLetter),
}

/// Say what is in the buffer, lane by lane, and how far upstream is
///
/// `records` are those that upstream does not have yet, `bytes` all that is on disk. A lane is what is kept, dropped and sealed
/// together: when the disk is full the agent's own telemetry goes first, then readings, figures (kpis), and events last. The
/// model's lane is the line model's memory, and never goes upstream.
#[derive(Debug, Args)]
struct Look {
    #[command(flatten)]
    place: Place,
    /// How it is said
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How something is said.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// A table to read
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Which buffer.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The configuration whose buffer it is: YAML file, or a folder of them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The buffer's folder itself (`spool.path` of the configuration)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    path: Option<PathBuf>,
}

impl Place {
    fn path(self) -> anyhow::Result<PathBuf> {
        match (self.path, self.config) {
            (Some(path), _) => Ok(path),
            (None, Some(config)) => Ok(Config::load(&config)?.spool.path),
            (None, None) => anyhow::bail!("--config or --path is missing"),
        }
    }
}

impl Spool {
    /// Looks, and prints.
    ///
    /// # Errors
    /// When the buffer cannot be read, or the output cannot be written. Damage is an exit code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::DeadLetter(dead_letter) => dead_letter.run(),
            Command::Status(look) => look.run(),
            Command::Verify(verify) => verify.run(),
            Command::Export(export) => export.run(),
        }
    }
}

impl Look {
    fn run(self) -> anyhow::Result<ExitCode> {
        let path = self.place.path()?;
        let status = status(&path)?;
        let letters = Letters::of(&path).list().context("the dead letters")?.len();
        let said = match self.format {
            Format::Table => describe(&status, letters),
            Format::Json => json(&WithLetters { status: &status, dead_letters: letters })?,
        };
        io::stdout().write_all(said.as_bytes()).context("standard output")?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Serialize)]
struct WithLetters<'a> {
    #[serde(flatten)]
    status: &'a Status,
    dead_letters: usize,
}

/// A JSON object as a page of text.
fn json(of: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(of)? + "\n")
}

/// On a terminal's standard error; nowhere else.
fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} journals, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// What a walk over the parts tells, on the bar.
fn onto(bar: &ProgressBar) -> impl FnMut(usize, usize) {
    |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

fn describe(status: &Status, letters: usize) -> String {
    let time = |time: Option<Time>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let rows = [
        ("pending", format!("{} records, {} of them readings", status.records, status.readings)),
        ("oldest pending", time(status.oldest)),
        ("last commit", time(status.newest)),
        ("acknowledged", format!("up to sequence {}", status.cursor)),
        ("on disk", ByteSize(status.bytes).display().iec().to_string()),
        ("journals", status.journals.to_string()),
        ("sealed segments", format!("{}, {} damaged", status.segments, status.damaged)),
        ("dropped readings", format!("{}, ever", status.dropped)),
        ("dead letters", letters.to_string()),
    ];
    let mut said: String = rows.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect();
    if status.lanes.is_empty() {
        return said;
    }
    let mut lanes = Table::new();
    lanes.load_style(presets::NOTHING).set_header(["lane", "records", "bytes", "oldest pending"]);
    for lane in &status.lanes {
        let bytes = ByteSize(lane.bytes).display().iec().to_string();
        lanes.add_row([lane.lane.to_owned(), lane.records.to_string(), bytes, time(lane.oldest)]);
    }
    if let Some(names) = lanes.column_mut(0) {
        names.set_padding((0, 1));
    }
    for column in 1..=2 {
        if let Some(column) = lanes.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    said.push_str(&format!("\n{}\n", lanes.trim_fmt()));
    said
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        spool: Spool,
    }

    #[test]
    fn a_place_is_required_and_times_are_checked() {
        let missing = Cli::try_parse_from(["spool", "status"]).expect_err("no place");
        assert!(missing.to_string().contains("--path"), "{missing}");
        let wrong =
            Cli::try_parse_from(["spool", "export", "--path", "x", "--from", "yesterday"]).expect_err("no time");
        assert!(wrong.to_string().contains("--from"), "{wrong}");
        let fine = ["spool", "export", "--path", "x", "--from", "2026-11-21T00:00:00Z", "--station", "press"];
        Cli::try_parse_from(fine).expect("parses");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let spool = Cli::try_parse_from(["spool", "status", "--path", "/no/such/folder"]).expect("parses").spool;
        assert!(spool.run().expect_err("no folder").to_string().contains("/no/such/folder"));
    }

    #[test]
    fn the_status_reads_well() {
        let status = Status { records: 3, readings: 2, bytes: 4_096, oldest: Some(Time(0)), ..Status::default() };
        insta::assert_snapshot!(describe(&status, 2), @r"
        pending           3 records, 2 of them readings
        oldest pending    1970-01-01T00:00:00Z
        last commit       -
        acknowledged      up to sequence 0
        on disk           4.0 KiB
        journals          0
        sealed segments   0, 0 damaged
        dropped readings  0, ever
        dead letters      2
        ");
    }
}
