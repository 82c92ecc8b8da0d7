//! `gemba spool`: looks at the buffer of an agent, running or not, without touching it.

mod dead_letter;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueHint};
use gemba_drivers::Time;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::warn;
use crate::config::Config;
use crate::forward::Letters;
use crate::spool::{Selection, Status, export, export_entries, status};

/// Look into the buffer, while an agent runs or not
#[derive(Debug, Args)]
pub struct Spool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is in the buffer, and how far upstream is
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Write the readings in the buffer, or what people entered, as JSON lines, which `gemba replay` reads
    Export {
        #[command(flatten)]
        place: Place,
        /// What people entered instead of readings, for `gemba replay --entries`; the times below are those of entering
        #[arg(long)]
        entries: bool,
        /// Only readings whose source time is this or later
        #[arg(long, value_name = "RFC3339")]
        from: Option<Time>,
        /// Only readings whose source time is before this
        #[arg(long, value_name = "RFC3339")]
        to: Option<Time>,
        /// Only readings of this station
        #[arg(long, value_name = "NAME")]
        station: Option<String>,
        /// Where to; standard output when not said
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    DeadLetter(dead_letter::DeadLetter),
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
    /// When the buffer cannot be read, or the output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::DeadLetter(dead_letter) => return dead_letter.run(),
            Command::Status { place } => {
                let path = place.path()?;
                let status = status(&path)?;
                let letters = Letters::of(&path).list().context("the dead letters")?.len();
                io::stdout().write_all(describe(&status, letters).as_bytes()).context("standard output")?;
            }
            Command::Export { place, entries, from, to, station, output } => {
                let path = place.path()?;
                let mut out: Box<dyn Write> = match &output {
                    Some(file) => Box::new(File::create(file).with_context(|| format!("creating {}", file.display()))?),
                    None => Box::new(io::stdout().lock()),
                };
                let bar = progress_bar();
                let selection = Selection { from, to, station };
                let mut out = BufWriter::new(&mut out);
                let exported = if entries {
                    export_entries(&path, &selection, &mut out)?
                } else {
                    export(&path, &selection, &mut out, |done, total| {
                        bar.set_length(total as u64);
                        bar.set_position(done as u64);
                    })?
                };
                bar.finish_and_clear();
                for segment in &exported.unreadable {
                    warn(&format!("damaged, what is left of it was exported: {segment}"));
                }
                if exported.nameless > 0 {
                    warn(&format!("{} readings left out: the catalog that named them was damaged", exported.nameless));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// On a terminal's standard error; nowhere else.
fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} journals, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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
    rows.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect()
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
