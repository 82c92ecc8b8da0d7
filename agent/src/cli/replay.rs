//! `gemba replay`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use gemba_drivers::Time;

use crate::config::Config;
use crate::replay::{Report, read_entries, replay_with};

/// Print the figures that a file of readings gives
///
/// Readings are JSON lines as `gemba spool export` writes them. `validity` is `good` unless said, or `uncertain` or
/// `bad`; `received_time` is the source time unless said; of a bad reading `value` is null. Readings of stations or
/// tags that the configuration lacks are left out, and counted on standard error.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// YAML file, or a folder whose *.yaml files are merged
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The readings; `-` is standard input
    #[arg(value_name = "READINGS.jsonl")]
    readings: PathBuf,
    /// What people entered, as `gemba spool export --entries` writes it: JSON lines, applied by when they were `entered`
    #[arg(long, value_name = "ENTRIES.jsonl")]
    entries: Option<PathBuf>,
    /// How the figures look
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Show the figures as of this instant; as of the last reading unless said
    #[arg(long, value_name = "RFC3339")]
    until: Option<Time>,
}

const EXAMPLES: &str = r#"Example of a line:
  {"station":"printer-1","tag":"total","value":19271,"source_time":"2026-03-02T06:00:00Z"}

Examples:
  gemba spool export --config line.yaml | gemba replay --config line.yaml -
  gemba replay --config line.yaml --format json --until 2026-03-02T14:00:00Z readings.jsonl"#;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table to read
    #[default]
    Table,
    /// One JSON object
    Json,
}

impl Replay {
    /// Replays and prints.
    ///
    /// # Errors
    /// A wrong configuration, a file that cannot be read, a line that is no reading.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        let (name, input): (_, Box<dyn BufRead>) = if self.readings.as_os_str() == "-" {
            ("stdin".to_owned(), Box::new(std::io::stdin().lock()))
        } else {
            let name = self.readings.display().to_string();
            let file = File::open(&self.readings).with_context(|| name.clone())?;
            (name, Box::new(BufReader::new(file)))
        };
        let entries = match &self.entries {
            None => Vec::new(),
            Some(path) => {
                let name = path.display();
                let file = File::open(path).with_context(|| name.to_string())?;
                read_entries(BufReader::new(file)).map_err(|error| anyhow::anyhow!("{name}:{error}"))?
            }
        };
        let report =
            replay_with(&config, input, entries, self.until).map_err(|error| anyhow::anyhow!("{name}:{error}"))?;
        for ((station, tag), count) in &report.strangers {
            super::warn(&format!(
                "{count} readings of `{tag}` at station `{station}`, which the configuration lacks, left out"
            ));
        }
        if let Some(path) = &self.entries {
            for (line, error) in &report.refused {
                super::warn(&format!("{}:{line}: left out: {error}", path.display()));
            }
        }
        let text = match self.format {
            Format::Json => {
                let names: Vec<&str> = config.stations.iter().map(|station| &*station.name).collect();
                serde_json::to_string(&json::report(&report, &names))? + "\n"
            }
            Format::Table => table(&report),
        };
        std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["from", "to", "station", "shift", "OEE", "A", "P", "Q", "coverage", "total", "good", "reject"]);
    let percent = |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{:.1} %", figure * 100.0));
    let count = |count: Option<f64>| count.map_or("-".to_owned(), |count| count.to_string());
    for reported in &report.periods {
        let kpi = reported.period.view(&reported.spec);
        let figures = &kpi.figures;
        table.add_row([
            reported.period.from.to_string(),
            if reported.closed { reported.to.to_string() } else { format!("{} (open)", reported.to) },
            reported.station.to_string(),
            reported.period.shift.to_string(),
            percent(figures.oee),
            percent(figures.availability),
            percent(figures.performance),
            percent(figures.quality),
            percent(figures.coverage),
            count(kpi.total),
            count(kpi.good),
            count(kpi.reject),
        ]);
    }
    let mut text = format!("{table}\n");
    for loss in &report.losses {
        text += &format!("lost: {} x {} at {}: {}\n", loss.count, loss.source, loss.from, loss.reason);
    }
    text
}

/// The wire form: DESIGN's `replay --format json`.
mod json {
    use std::collections::BTreeMap;

    use gemba_drivers::{Loss, Time};
    use serde::Serialize;

    use crate::http::{Flow, InspectionFigures, Kpi, NamedAnomaly, NamedFigures, NamedViolation};
    use crate::model::UNASSIGNED;
    use crate::replay::Report;

    #[derive(Serialize)]
    pub(super) struct ReportJson<'a> {
        periods: Vec<PeriodJson<'a>>,
        losses: &'a [Loss],
        /// Where `flow` is configured.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        line: Vec<Flow<'a>>,
        /// Beyond the contract: rules of control charts that were broken, in order of time.
        violations: Vec<NamedViolation<'a>>,
        /// Beyond the contract: in the order in which they began, as they stood last.
        anomalies: Vec<NamedAnomaly<'a>>,
        /// Beyond the contract: what was inspected, also at stations without `oee:`.
        inspections: Vec<NamedFigures<'a>>,
    }

    #[derive(Serialize)]
    struct PeriodJson<'a> {
        station: &'a str,
        shift: &'a str,
        from: Time,
        to: Time,
        closed: bool,
        revision: u32,
        kpi: Kpi,
        /// Seconds in each state.
        states: BTreeMap<&'static str, f64>,
        /// Seconds by reason, where one is known.
        reasons: BTreeMap<String, f64>,
        /// Defects by code: where an inspection tells them, and what people rejected by hand.
        defects: BTreeMap<String, f64>,
        /// Beyond the contract: what was inspected; left out where nothing is.
        #[serde(skip_serializing_if = "Option::is_none")]
        inspection: Option<InspectionFigures>,
    }

    pub(super) fn report<'a>(report: &'a Report, names: &[&'a str]) -> ReportJson<'a> {
        let periods = report.periods.iter().map(|reported| {
            let period = &reported.period;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
            let states = period.states().map(|(state, spent)| (state.word(), spent as f64 / 1e9)).collect();
            let mut reasons = BTreeMap::new();
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
            for (reason, _, spent) in period.tally.reasons().iter().filter(|(reason, ..)| &**reason != UNASSIGNED) {
                *reasons.entry(reason.to_string()).or_default() += *spent as f64 / 1e9;
            }
            // The station may have been watched from another moment on than its inspection.
            let inspected = report.inspections.iter().find(|shift| {
                shift.station == reported.station && shift.shift == period.shift && shift.to == period.to
            });
            let inspected_defects = inspected.iter().flat_map(|shift| &shift.figures.defects);
            #[expect(clippy::cast_precision_loss, reason = "defects of a shift")]
            let mut defects: BTreeMap<String, f64> =
                inspected_defects.map(|(code, count)| (code.to_string(), *count as f64)).collect();
            for (code, parts) in period.tally.defects_by_code() {
                *defects.entry(code.to_string()).or_default() += parts;
            }
            PeriodJson {
                station: &reported.station,
                shift: &period.shift,
                from: period.from,
                to: reported.to,
                closed: reported.closed,
                revision: period.revision,
                kpi: Kpi::from(&period.view(&reported.spec)),
                states,
                reasons,
                defects,
                inspection: inspected.map(InspectionFigures::from),
            }
        });
        let line = report.flow.iter().map(|flow| Flow::new(flow, names)).collect();
        ReportJson {
            periods: periods.collect(),
            losses: &report.losses,
            line,
            violations: report.violations.iter().map(NamedViolation::from).collect(),
            anomalies: report.anomalies.iter().map(NamedAnomaly::from).collect(),
            inspections: report.inspections.iter().map(NamedFigures::from).collect(),
        }
    }
}
