//! Readings from a file through the line model: the same figures that a live run gives.
//!
//! Readings come as JSON lines, as `gemba spool export` writes them. They are applied in the order in which
//! the gateway received them, those received at one instant together, as they were live.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::BufRead;
use std::sync::Arc;

use gemba_drivers::{Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::entries::EntryJson;
use crate::model::{
    Derived, Entry, EntryError, FlowView, InspectedShift, Line, OeeSpec, Period, PeriodOf, Window, WindowKind,
};
use crate::record::{AnomalyTold, Record, ViolationTold};
use crate::snapshot::{ChartView, SpoolView};

/// What a replay found.
#[derive(Debug, Default)]
pub struct Report {
    /// The line as a whole, shift by shift, in order of time.
    pub flow: Vec<FlowView>,
    /// One for each station and shift, in order of time.
    pub periods: Vec<ReportedPeriod>,
    /// What the model could not use, in order.
    pub losses: Vec<Loss>,
    /// Rules of control charts that were broken, in order of time.
    pub violations: Vec<ViolationTold>,
    /// Anomalies as they were last, in the order in which they began.
    pub anomalies: Vec<AnomalyTold>,
    /// Control charts as they stand at the end, with their stations.
    pub charts: Vec<(Arc<str>, ChartView)>,
    /// What was inspected: one for each inspecting station and shift, in order of time.
    pub inspections: Vec<InspectedShift>,
    /// Readings of stations or tags that the configuration does not have: how many of each.
    pub strangers: BTreeMap<(String, String), u64>,
    /// Entries that the line did not take: their line in the file, and why.
    pub refused: Vec<(usize, EntryError)>,
}

/// A period, cut off where the replay ends.
#[derive(Debug)]
pub struct ReportedPeriod {
    /// The station.
    pub station: Arc<str>,
    /// What was observed.
    pub period: Period,
    /// The shift's end, or the last instant seen if it is still open.
    pub to: Time,
    /// Whether the shift's end was reached.
    pub closed: bool,
    /// What its figures are computed by.
    pub spec: OeeSpec,
}

/// A line after a replay, with all that was ever known of it.
#[derive(Debug)]
pub struct Replayed {
    /// The line.
    pub line: Line,
    /// The last instant seen, or as of which the line stands; `None` without readings.
    pub end: Option<Time>,
    /// What the replay found.
    pub report: Report,
}

/// Why readings cannot be replayed. Shown as `3: …`, for the file's name to stand before it.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{line}: {error}")]
    Read {
        /// Counted from 1.
        line: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line is no reading.
    #[error("{line}: {message}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
}

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReading {
    station: String,
    tag: String,
    value: serde_json::Value,
    #[serde(default)]
    validity: RawValidity,
    /// Why it is not good, by the protocol's name: what `gemba spool export` adds.
    status: Option<String>,
    source_time: Time,
    received_time: Option<Time>,
    /// It came from the source's history: what `gemba spool export` adds.
    #[serde(default)]
    backfilled: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawValidity {
    #[default]
    Good,
    Uncertain,
    Bad,
}

/// Replays `input` and says what the periods look like at `until`, or at the last instant seen.
///
/// # Errors
/// At the first line that cannot be read or is no reading.
pub fn replay(config: &Config, input: impl BufRead, until: Option<Time>) -> Result<Report, ReplayError> {
    Ok(run(config, input, until)?.report)
}

/// Replays `input`, and lets the line be looked at.
///
/// # Errors
/// At the first line that cannot be read or is no reading.
pub fn run(config: &Config, input: impl BufRead, until: Option<Time>) -> Result<Replayed, ReplayError> {
    run_with(config, input, Vec::new(), until)
}

/// The same, with what people entered meanwhile; each entry with its line, for what is said of it.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    config: &Config,
    input: impl BufRead,
    entries: Vec<(usize, Entry)>,
    until: Option<Time>,
) -> Result<Replayed, ReplayError> {
    let mut strangers = BTreeMap::new();
    let mut readings = read(config, input, &mut strangers)?;
    if let Some(until) = until {
        readings.retain(|reading| reading.source_time.min(reading.received_time) <= until);
        // What came later tells of the time before, and must not carry the line beyond it.
        for reading in &mut readings {
            reading.received_time = reading.received_time.min(until);
        }
    }
    // Stable: order of input decides between readings of one instant.
    readings.sort_by_key(|reading| reading.received_time);

    // In the order in which they were made, those of one instant as they stand in the file.
    let mut entries = entries;
    entries.retain(|(_, entry)| until.is_none_or(|until| entry.entered <= until));
    entries.sort_by_key(|(_, entry)| entry.entered);
    let last = readings.iter().map(|reading| reading.received_time).max();
    let end = until.or(last.max(entries.last().map(|(_, entry)| entry.entered)));
    let mut entries = entries.into_iter().peekable();
    let mut refused = Vec::new();

    let mut line = Line::new(config).keeping();
    let pacer = line.pacer().map(|pacer| &config.stations[pacer].name);
    let mut told = Collected::default();
    for together in readings.chunk_by(|one, other| one.received_time == other.received_time) {
        let mut derived = Derived::default();
        // What was told at an instant comes after what was read at it.
        while let Some((place, entry)) = entries.next_if(|(_, entry)| entry.entered < together[0].received_time) {
            enter(&mut line, place, entry, &mut refused, &mut derived);
        }
        line.advance(together[0].received_time, &mut derived);
        line.apply(together, &mut derived);
        told.collect(&line, pacer, derived);
    }
    let mut report = Report { strangers, ..Report::default() };
    if let Some(end) = end {
        // Nothing more comes: what waits for it is settled, that of the last instant too.
        let mut derived = Derived::default();
        for (place, entry) in entries {
            enter(&mut line, place, entry, &mut refused, &mut derived);
        }
        line.settle_all(end, &mut derived);
        told.collect(&line, pacer, derived);
        told.flow.extend(line.flow(end).map(|view| (view.from, view)));
        report.flow = told.flow.into_values().collect();
        report.periods = periods(config, &line, told.closed, end);
        let stations = line.snapshot(end, SpoolView::default()).stations;
        let charts =
            stations.into_iter().flat_map(|of| of.charts.into_iter().map(move |chart| (of.name.clone(), chart)));
        report.charts = charts.collect();
        report.inspections = told.inspected;
        report.inspections.extend(line.inspected(end));
        report.inspections.sort_by_key(|shift| shift.from);
    }
    report.refused = refused;
    report.losses = told.losses;
    report.violations = told.violations;
    report.violations.sort_by_key(ViolationTold::time);
    report.anomalies = told.anomalies.into_values().collect();
    report.anomalies.sort_by_key(|told| told.episode.began);
    line.recall();
    Ok(Replayed { line, end, report })
}

impl Replayed {
    /// The windows of a kind, with their stations, in order of time.
    #[must_use]
    pub fn windows(&self, config: &Config, kind: WindowKind) -> Vec<(Arc<str>, Window)> {
        let Some(end) = self.end else { return Vec::new() };
        let of = |(index, station): (usize, &crate::config::Station)| {
            let name = station.name.clone();
            self.line.windows(index, kind, end).into_iter().map(move |window| (name.clone(), window))
        };
        let mut all: Vec<_> = config.stations.iter().enumerate().flat_map(of).collect();
        all.sort_by_key(|(_, window)| window.from); // stable: stations as they are configured
        all
    }

    /// How often the shift of `station` that ends at `to` was revised, also where the model holds it no longer.
    #[must_use]
    pub fn revision(&self, station: &str, to: Time) -> Option<u32> {
        let of_it = |of: &&ReportedPeriod| *of.station == *station && of.period.to == to;
        self.report.periods.iter().find(of_it).map(|of| of.period.revision)
    }
}

/// What the line said on the way.
#[derive(Default)]
struct Collected {
    closed: Vec<(Arc<str>, Period)>,
    /// By when they begin.
    flow: BTreeMap<Time, FlowView>,
    /// The shifts of the station that paces the line, by when they end.
    paced: BTreeMap<Time, Period>,
    losses: Vec<Loss>,
    violations: Vec<ViolationTold>,
    /// By their names.
    anomalies: BTreeMap<String, AnomalyTold>,
    inspected: Vec<InspectedShift>,
}

impl Collected {
    /// `pacer` is the station whose shifts are the line's.
    fn collect(&mut self, line: &Line, pacer: Option<&Arc<str>>, derived: Derived) {
        let of_pacer = derived.closed.iter().filter(|(station, _)| Some(station) == pacer);
        self.paced.extend(of_pacer.map(|(_, period)| (period.to, period.clone())));
        // Whichever station has news of a shift, the line has.
        let news: BTreeSet<Time> = derived.closed.iter().map(|(_, period)| period.to).collect();
        for to in news {
            let view = self.paced.get(&to).and_then(|paced| line.flow_of(paced));
            self.flow.extend(view.map(|view| (view.from, view)));
        }
        self.closed.extend(derived.closed);
        self.inspected.extend(derived.inspected);
        for record in derived.records {
            match record {
                Record::Loss { loss, .. } => self.losses.push(loss),
                Record::Violation(told) => self.violations.push(*told),
                Record::Anomaly(told) => {
                    self.anomalies.insert(told.id().to_string(), *told);
                }
                _ => {}
            }
        }
    }
}

fn enter(line: &mut Line, place: usize, entry: Entry, refused: &mut Vec<(usize, EntryError)>, out: &mut Derived) {
    line.advance(entry.entered, out);
    if let Err(error) = line.enter(entry, out) {
        refused.push((place, error));
    }
}

/// Entries as JSON lines, as `gemba spool export --entries` writes them, each with its line.
///
/// # Errors
/// At the first line that cannot be read or is no entry.
pub fn read_entries(input: impl BufRead) -> Result<Vec<(usize, Entry)>, ReplayError> {
    let mut entries = Vec::new();
    for told in json_lines::<EntryJson>(input) {
        let (line, raw) = told?;
        let wrong = |message: String| ReplayError::Line { line, message };
        let entered = raw.entered().ok_or_else(|| wrong("`entered` is missing: when it was told".to_owned()))?;
        entries.push((line, raw.resolve(entered).map_err(wrong)?));
    }
    Ok(entries)
}

/// Every period once: as it closed, or as it stands now if it is still held (late data may have revised it).
fn periods(config: &Config, line: &Line, closed: Vec<(Arc<str>, Period)>, end: Time) -> Vec<ReportedPeriod> {
    let index = |name: &str| config.stations.iter().position(|station| &*station.name == name).unwrap_or(0);
    let closed = closed.into_iter().map(|(name, period)| PeriodOf { station: index(&name), name, period });
    let mut all = BTreeMap::new();
    for of in closed.chain(line.periods(end)) {
        all.insert((of.period.from, of.station), of);
    }
    let report = |of: PeriodOf| {
        let spec = line.spec(of.station)?.clone();
        let closed = of.period.to <= end;
        let to = of.period.to.min(end);
        Some(ReportedPeriod { station: of.name, to, closed, period: of.period, spec })
    };
    all.into_values().filter_map(report).collect()
}

fn read(
    config: &Config,
    input: impl BufRead,
    strangers: &mut BTreeMap<(String, String), u64>,
) -> Result<Vec<Reading>, ReplayError> {
    let known: HashMap<(&str, &str), TagId> =
        config.tags.iter().map(|tag| ((&*config.stations[tag.station].name, &*tag.name), tag.id)).collect();
    let mut readings = Vec::new();
    for told in json_lines::<RawReading>(input) {
        let (line, raw) = told?;
        let wrong = |message: String| ReplayError::Line { line, message };
        match known.get(&(&*raw.station, &*raw.tag)) {
            Some(&tag) => readings.push(resolve(raw, tag).map_err(wrong)?),
            None => *strangers.entry((raw.station, raw.tag)).or_default() += 1,
        }
    }
    Ok(readings)
}

/// The objects of a file of JSON lines, each with its line, counted from 1; empty lines are left out.
fn json_lines<T: DeserializeOwned>(input: impl BufRead) -> impl Iterator<Item = Result<(usize, T), ReplayError>> {
    (1..).zip(input.lines()).filter_map(|(line, text)| match text {
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => {
            let read = serde_json::from_str(&text).map(|raw| (line, raw));
            Some(read.map_err(|error| ReplayError::Line { line, message: in_line(&error) }))
        }
        Err(error) => Some(Err(ReplayError::Read { line, error })),
    })
}

/// The message without its own line number, which is always 1.
fn in_line(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    match text.strip_suffix(&format!(" at line 1 column {column}")) {
        Some(message) => format!("column {column}: {message}"),
        None => text,
    }
}

fn resolve(raw: RawReading, tag: TagId) -> Result<Reading, String> {
    let value = match raw.value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(on) => Value::Bool(on),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(real)) => Value::Float(real),
            (None, None) => return Err(format!("{number} is no number that gemba can hold")),
        },
        serde_json::Value::String(text) => Value::Text(text.into()),
        other => return Err(format!("`value` is a number, true, false, text or null, not {other}")),
    };
    let received_time = raw.received_time.unwrap_or(raw.source_time);
    let status = raw.status.as_deref().and_then(Status::from_name).unwrap_or(Status::Own(OwnStatus::Unspecified));
    let bad = value == Value::Null || matches!(raw.validity, RawValidity::Bad);
    let reading = match raw.validity {
        _ if bad => Reading::bad(tag, status, raw.source_time, received_time),
        RawValidity::Uncertain => Reading {
            validity: Validity::Uncertain(status),
            ..Reading::good(tag, value, raw.source_time, received_time)
        },
        _ => Reading::good(tag, value, raw.source_time, received_time),
    };
    Ok(Reading { backfilled: raw.backfilled, ..reading })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn resolved(line: &serde_json::Value) -> Reading {
        let raw = serde_json::from_str(&line.to_string()).expect("a reading");
        resolve(raw, TagId(0)).expect("a reading")
    }

    #[test]
    fn why_a_reading_is_not_good_is_kept() {
        let with = |validity: &str, status: serde_json::Value| {
            let value = if validity == "bad" { serde_json::Value::Null } else { 1.5.into() };
            let line = json!({"station": "a", "tag": "t", "value": value, "validity": validity, "status": status,
                              "source_time": "2026-03-02T06:00:00Z"});
            resolved(&line).validity
        };
        let unspecified = Status::Own(OwnStatus::Unspecified);
        assert_eq!(with("bad", "BadNodeIdUnknown".into()), Validity::Bad(Status::Opcua(0x8034_0000)));
        assert_eq!(with("bad", "IllegalDataAddress".into()), Validity::Bad(Status::Modbus(2)));
        assert_eq!(with("bad", "LinkLost".into()), Validity::Bad(Status::Own(OwnStatus::LinkLost)));
        assert_eq!(
            with("uncertain", "UncertainLastUsableValue".into()),
            Validity::Uncertain(Status::Opcua(0x4090_0000))
        );
        assert_eq!(with("bad", "OfAnotherTool".into()), Validity::Bad(unspecified));
        assert_eq!(with("bad", serde_json::Value::Null), Validity::Bad(unspecified));
        assert_eq!(with("good", serde_json::Value::Null), Validity::Good);
    }

    #[test]
    fn a_value_of_null_is_bad_and_a_bad_value_is_null() {
        let line = |value: serde_json::Value, validity: &str| {
            resolved(&json!({"station": "a", "tag": "t", "value": value, "validity": validity,
                             "source_time": "2026-03-02T06:00:00Z"}))
        };
        assert!(line(serde_json::Value::Null, "good").validity.is_bad());
        assert_eq!(line(5.into(), "bad").value, Value::Null);
    }

    proptest! {
        #[test]
        fn numbers_keep_every_digit(real in any::<f64>().prop_filter("finite", |real| real.is_finite()), whole in any::<i64>()) {
            let line = |value: serde_json::Value| {
                json!({"station": "a", "tag": "t", "value": value, "source_time": "2026-03-02T06:00:00Z"})
            };
            prop_assert_eq!(resolved(&line(real.into())).value, Value::Float(real));
            prop_assert_eq!(resolved(&line(whole.into())).value, Value::Int(whole));
        }
    }
}
