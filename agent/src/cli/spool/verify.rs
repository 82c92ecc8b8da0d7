//! `gemba spool verify`: whether the buffer is sound, and what is left of what is not.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Format, Place, json, onto, progress_bar};
use crate::forward::Letters;
use crate::otlp::plain::items;
use crate::spool::{Finding, Report, verify};

/// Read all of the buffer as the agent would, and say what is damaged
///
/// Every journal, segment, cursor, catalog, account and dead letter is read and checked: that each frame is what was written,
/// that sequences go on without a hole, and that what upstream acknowledged and what the line model remembers agree with what is
/// there. For each damage it says what can be read still and what is lost. Nothing is changed: the agent saves what can be read by itself,
/// at its next start or when it comes to it, and enters the rest into the loss ledger. Segments are copied to the folder for temporary
/// files (TMPDIR) one at a time.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
    /// How it is said
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

const HELP: &str = r"Examples:
  gemba spool verify --config line.yaml
  gemba spool verify --path /var/lib/gemba/spool --format json

Here 0 is sound, and 1 is damaged, or that there is no buffer to read.";

#[derive(Serialize)]
struct Said<'a> {
    sound: bool,
    #[serde(flatten)]
    report: &'a Report,
}

impl Verify {
    /// Reads, and prints.
    ///
    /// # Errors
    /// When there is no buffer, or the output cannot be written. Damage is the exit code 1.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let path = self.place.path()?;
        let bar = progress_bar();
        let mut report = verify(&path, onto(&bar))?;
        bar.finish_and_clear();
        report.findings.extend(damaged_letters(&path)?);
        let sound = report.is_sound();
        let said = match self.format {
            Format::Table => describe(&report),
            Format::Json => json(&Said { sound, report: &report })?,
        };
        io::stdout().write_all(said.as_bytes()).context("standard output")?;
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn damaged_letters(path: &Path) -> anyhow::Result<Vec<Finding>> {
    let letters = Letters::of(path);
    let mut findings = Vec::new();
    for number in letters.numbers().context("the dead letters")? {
        let (what, readable, lost) = match letters.read(number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => (format!("no dead letter: {error}"), 0, None),
            Ok((letter, body)) => match items(letter.signal, &body) {
                Ok(items) if items.len() as u64 == letter.items => continue,
                Ok(items) => {
                    let held = items.len() as u64;
                    let what = "its request is not as long as it says".to_owned();
                    (what, held, Some(letter.items.saturating_sub(held)))
                }
                Err(error) => (format!("its request is damaged: {error}"), 0, Some(letter.items)),
            },
        };
        let name = format!("dead letter {number}");
        findings.push(Finding { name, what, readable, lost, ..Finding::default() });
    }
    Ok(findings)
}

fn describe(report: &Report) -> String {
    let Report { journals, segments, set_aside, first, last, cursor, checkpoint, readable, findings } = report;
    let checkpoint = checkpoint.map_or_else(|| "none".to_owned(), |through| format!("of sequence {through}"));
    let lanes: Vec<String> = readable.iter().map(|(lane, units)| format!("{units} {lane}")).collect();
    let found = match findings.len() {
        0 => "sound".to_owned(),
        1 => "1 finding".to_owned(),
        more => format!("{more} findings"),
    };
    let rows = [
        ("journals", journals.to_string()),
        ("sealed segments", format!("{segments}, {set_aside} set aside earlier")),
        ("sequences", if *last == 0 { "none".to_owned() } else { format!("{first} to {last}") }),
        ("acknowledged", format!("up to sequence {cursor}")),
        ("checkpoint", checkpoint),
        ("readable", if lanes.is_empty() { "nothing".to_owned() } else { lanes.join(", ") }),
        ("verdict", found),
    ];
    let mut said: String = rows.iter().map(|(name, value)| format!("{name:<17} {value}\n")).collect();
    if findings.is_empty() {
        return said;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "where",
        "lane",
        "sequences",
        "committed",
        "readable",
        "lost",
        "what",
    ]);
    if let Some(names) = table.column_mut(0) {
        names.set_padding((0, 1));
    }
    for finding in findings {
        table.add_row(cells(finding));
    }
    writeln!(said, "\n{}", table.trim_fmt()).expect("a String takes everything");
    said
}

fn cells(finding: &Finding) -> [String; 7] {
    let Finding { name, what, lane, sequences, span, readable, lost, delivered, told } = finding;
    let range =
        |range: Option<(String, String)>| range.map_or_else(|| "-".to_owned(), |(from, to)| format!("{from} to {to}"));
    let mut what = what.clone();
    if *delivered {
        what += "; upstream has it all the same";
    }
    if *told {
        what += "; in the loss ledger already";
    }
    [
        name.clone(),
        lane.unwrap_or("-").to_owned(),
        range(sequences.map(|(from, to)| (from.to_string(), to.to_string()))),
        range(span.map(|(from, to)| (from.to_string(), to.to_string()))),
        readable.to_string(),
        lost.map_or_else(|| "?".to_owned(), |lost| lost.to_string()),
        what,
    ]
}
