//! `gemba replay`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use gemba_drivers::Time;

use super::printable;
use crate::config::Config;
use crate::model::{Window, WindowKind};
use crate::replay::{self, Report};
use crate::snapshot::KpiView;

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
    /// Add the figures of each of these, too
    #[arg(long, value_enum, value_name = "KIND")]
    windows: Option<Windows>,
}

const EXAMPLES: &str = r#"Example of a line:
  {"station":"printer-1","tag":"total","value":19271,"source_time":"2026-03-02T06:00:00Z"}

Examples:
  gemba spool export --config line.yaml | gemba replay --config line.yaml -
  gemba replay --config line.yaml --format json --until 2026-03-02T14:00:00Z readings.jsonl
  gemba replay --config line.yaml --format json --windows lot readings.jsonl"#;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table to read
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// By what time is told apart beside shifts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Windows {
    /// Hours of the clock on the wall, cut at the edges of shifts
    Hour,
    /// Days of the line's time zone
    Day,
    /// Lots: of one that was interrupted, all its runs together
    Lot,
    /// Products, and how long it took to change to them
    Product,
    /// Orders
    Order,
    /// The last minutes up to the last full one: as many as `oee.rolling` says, 60 unless it does
    Rolling,
}

impl From<Windows> for WindowKind {
    fn from(windows: Windows) -> Self {
        match windows {
            Windows::Hour => Self::Hour,
            Windows::Day => Self::Day,
            Windows::Lot => Self::Lot,
            Windows::Product => Self::Product,
            Windows::Order => Self::Order,
            Windows::Rolling => Self::Rolling(None),
        }
    }
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
                replay::read_entries(BufReader::new(file)).map_err(|error| anyhow::anyhow!("{name}:{error}"))?
            }
        };
        let replayed =
            replay::run_with(&config, input, entries, self.until).map_err(|error| anyhow::anyhow!("{name}:{error}"))?;
        let windows = self.windows.map(|kind| replayed.windows(&config, kind.into()));
        let report = replayed.report;
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
                serde_json::to_string(&json::report(&report, &names, windows.as_deref()))? + "\n"
            }
            Format::Table => table(&report, windows.as_deref()),
        };
        std::io::stdout().write_all(text.as_bytes()).context("stdout")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(report: &Report, windows: Option<&[(Arc<str>, Window)]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["from", "to", "station", "shift", "losses"].into_iter().chain(FIGURES));
    for reported in &report.periods {
        let kpi = reported.period.view(&reported.spec);
        let row = [
            reported.period.from.to_string(),
            end(reported.to, reported.closed),
            reported.station.to_string(),
            reported.period.shift.to_string(),
            kpi.losses.to_string(),
        ];
        table.add_row(row.into_iter().chain(figures(&kpi)));
    }
    let mut text = format!("{table}\n");
    if let Some(windows) = windows {
        text += &table_of_windows(windows);
    }
    for loss in &report.losses {
        text += &format!("lost: {} x {} at {}: {}\n", loss.count, loss.source, loss.from, loss.reason);
    }
    text
}

/// Target against actual, window by window.
fn table_of_windows(windows: &[(Arc<str>, Window)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["from", "to", "station", "window", "target"].into_iter().chain(FIGURES));
    for (station, window) in windows {
        let shift = window.shift.as_ref().map_or_else(String::new, |shift| format!(" ({shift})"));
        let row = [
            window.from.to_string(),
            end(window.to, window.closed),
            station.to_string(),
            printable(&format!("{} {}{shift}", window.kind, window.name)),
            window.view.target.map_or("-".to_owned(), |target| format!("{target:.0}")),
        ];
        table.add_row(row.into_iter().chain(figures(&window.view)));
    }
    format!("{table}\n")
}

const FIGURES: [&str; 8] = ["OEE", "A", "P", "Q", "coverage", "total", "good", "reject"];

fn figures(kpi: &KpiView) -> [String; FIGURES.len()] {
    let percent = |figure: Option<f64>| figure.map_or("-".to_owned(), |figure| format!("{:.1} %", figure * 100.0));
    let count = |count: Option<f64>| count.map_or("-".to_owned(), |count| count.to_string());
    let figures = &kpi.figures;
    [
        percent(figures.oee),
        percent(figures.availability),
        percent(figures.performance),
        percent(figures.quality),
        percent(figures.coverage),
        count(kpi.total),
        count(kpi.good),
        match kpi.startup_reject {
            Some(startup) => format!("{} ({startup} at start-up)", count(kpi.reject)),
            None => count(kpi.reject),
        },
    ]
}

fn end(to: Time, closed: bool) -> String {
    if closed { to.to_string() } else { format!("{to} (open)") }
}

/// The wire form: DESIGN's `replay --format json`.
mod json {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use gemba_drivers::{Loss, Time};
    use serde::Serialize;

    use crate::http::{Flow, InspectionFigures, Kpi, NamedAnomaly, NamedChart, NamedFigures, NamedViolation};
    use crate::model::{Changeover, InspectedShift, Tally, UNASSIGNED, Window};
    use crate::replay::Report;

    #[derive(Serialize)]
    pub(super) struct ReportJson<'a> {
        periods: Vec<PeriodJson<'a>>,
        losses: &'a [Loss],
        /// Only where it was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        windows: Option<Vec<WindowJson<'a>>>,
        /// Where `flow` is configured.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        line: Vec<Flow<'a>>,
        /// Beyond the contract: rules of control charts that were broken, in order of time.
        violations: Vec<NamedViolation<'a>>,
        /// Beyond the contract: in the order in which they began, as they stood last.
        anomalies: Vec<NamedAnomaly<'a>>,
        /// Beyond the contract: control charts as they stand at the end.
        charts: Vec<NamedChart<'a>>,
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
        #[serde(flatten)]
        spent: Spent,
    }

    /// What time was spent on.
    #[derive(Serialize)]
    struct Spent {
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

    #[derive(Serialize)]
    struct WindowJson<'a> {
        station: &'a str,
        kind: &'static str,
        name: &'a str,
        /// Of an hour.
        #[serde(skip_serializing_if = "Option::is_none")]
        shift: Option<&'a str>,
        from: Time,
        to: Time,
        closed: bool,
        kpi: Kpi,
        #[serde(flatten)]
        spent: Spent,
        /// Of a product.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        changeovers: Vec<ChangeoverJson<'a>>,
    }

    #[derive(Serialize)]
    struct ChangeoverJson<'a> {
        before: &'a str,
        /// The last part before.
        from: Time,
        /// The first part then; null while there is none.
        to: Option<Time>,
        s: Option<f64>,
        /// Within planned time.
        planned_s: f64,
    }

    pub(super) fn report<'a>(
        report: &'a Report,
        names: &[&'a str],
        windows: Option<&'a [(Arc<str>, Window)]>,
    ) -> ReportJson<'a> {
        let periods = report.periods.iter().map(|reported| {
            let period = &reported.period;
            // The station may have been watched from another moment on than its inspection.
            let inspected = report.inspections.iter().find(|shift| {
                shift.station == reported.station && shift.shift == period.shift && shift.to == period.to
            });
            PeriodJson {
                station: &reported.station,
                shift: &period.shift,
                from: period.from,
                to: reported.to,
                closed: reported.closed,
                revision: period.revision,
                kpi: Kpi::from(&period.view(&reported.spec)),
                spent: Spent::of(&period.tally, inspected),
            }
        });
        let windows = windows.map(|windows| windows.iter().map(WindowJson::from).collect());
        let line = report.flow.iter().map(|flow| Flow::new(flow, names)).collect();
        ReportJson {
            periods: periods.collect(),
            losses: &report.losses,
            line,
            violations: report.violations.iter().map(NamedViolation::from).collect(),
            anomalies: report.anomalies.iter().map(NamedAnomaly::from).collect(),
            charts: report.charts.iter().map(|(station, chart)| NamedChart::new(station, chart)).collect(),
            inspections: report.inspections.iter().map(NamedFigures::from).collect(),
            windows,
        }
    }

    impl Spent {
        fn of(tally: &Tally, inspected: Option<&InspectedShift>) -> Self {
            let states = tally.states().map(|(state, spent)| (state.word(), seconds(spent))).collect();
            let mut reasons = BTreeMap::new();
            for (reason, _, spent) in tally.reasons().iter().filter(|(reason, ..)| &**reason != UNASSIGNED) {
                *reasons.entry(reason.to_string()).or_default() += seconds(*spent);
            }
            #[expect(clippy::cast_precision_loss, reason = "defects of a shift")]
            let count = |&(ref code, count): &(Arc<str>, u64)| (code.to_string(), count as f64);
            let told = inspected.iter().flat_map(|shift| &shift.figures.defects);
            let mut defects: BTreeMap<String, f64> = told.map(count).collect();
            for (code, parts) in tally.defects_by_code() {
                *defects.entry(code.to_string()).or_default() += parts;
            }
            Self { states, reasons, defects, inspection: inspected.map(InspectionFigures::from) }
        }
    }

    impl<'a> From<&'a (Arc<str>, Window)> for WindowJson<'a> {
        fn from((station, window): &'a (Arc<str>, Window)) -> Self {
            Self {
                station,
                kind: window.kind.word(),
                name: &window.name,
                shift: window.shift.as_deref(),
                from: window.from,
                to: window.to,
                closed: window.closed,
                kpi: Kpi::from(&window.view),
                spent: Spent::of(&window.tally, None),
                changeovers: window.changeovers.iter().map(ChangeoverJson::from).collect(),
            }
        }
    }

    impl<'a> From<&'a Changeover> for ChangeoverJson<'a> {
        fn from(change: &'a Changeover) -> Self {
            Self {
                before: &change.before,
                from: change.from,
                to: change.to,
                s: change.to.map(|to| seconds(to.0 - change.from.0)),
                planned_s: seconds(change.planned_ns),
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
    fn seconds(nanoseconds: i64) -> f64 {
        nanoseconds as f64 / 1e9
    }
}
