//! What the demo says in the end.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use gemba_drivers::sim::smt::Served;

use super::page::LossTotal;
use super::verdict::Figure;
use super::whole;
use crate::snapshot::Intake;

/// How a demo went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// As asked for.
    pub seed: u64,
    /// As asked for.
    pub speed: f64,
    /// How long the machines ran.
    pub elapsed: Duration,
    /// In the order that boards meet them.
    pub stations: Vec<StationResult>,
    /// What became of the readings.
    pub readings: Readings,
}

/// A station's figures on both sides.
#[derive(Clone, Debug)]
pub struct StationResult {
    /// Its name.
    pub name: String,
    /// The page's.
    pub figures: Vec<Figure>,
    /// Upstream's sums.
    pub upstream: Vec<Figure>,
    /// Whether the page's figures speak of all of the shift that the machine ran in.
    pub from_the_start: bool,
    /// Whether upstream's sums began before the machines did.
    pub told_from_the_start: bool,
    /// Whether upstream was told of a time after the machines had halted.
    pub told_to_the_end: bool,
}

/// What became of the readings.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// What the machines' servers gave out, to whoever listened.
    pub served: Served,
    /// Taken in by the pipeline.
    pub taken: Intake,
    /// Readings that upstream got as points.
    pub points: u64,
    /// Changes of text that upstream got.
    pub text_changes: u64,
    /// Requests that upstream got.
    pub requests: u64,
    /// Those among them that came again.
    pub repeated: u64,
    /// Those that it could not read.
    pub unreadable: u64,
    /// The loss ledger.
    pub losses: Vec<LossTotal>,
}

impl Outcome {
    /// Whether everything agrees.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.disagreements().is_empty()
    }

    /// Everything that does not agree, in a sentence each.
    #[must_use]
    pub fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        for station in &self.stations {
            let figures = station.figures.iter().chain(&station.upstream).filter(|figure| !figure.agrees());
            found.extend(figures.map(|figure| {
                let (below, above) = figure.allowed;
                let [seen, known] = [figure.seen, figure.known].map(|value| value.map_or("unknown".to_owned(), plain));
                let allowed = match (below, above) {
                    (0.0, 0.0) => "must be the same".to_owned(),
                    (below, above) => format!("may be {} less or {} more", plain(below), plain(above)),
                };
                format!("{}: {} is {seen}, the machine knows {known} ({allowed})", station.name, figure.name)
            }));
            if !station.from_the_start {
                found.push(format!("{}: the page's figures do not begin where the machine did", station.name));
            }
            if !station.told_from_the_start {
                found.push(format!("{}: upstream's sums do not begin where the machine did", station.name));
            }
            if !station.told_to_the_end {
                found.push(format!("{}: upstream was not told the last figures", station.name));
            }
        }
        found.extend(self.readings.disagreements(&self.stations));
        found
    }
}

impl Readings {
    /// Lost after they were taken in: a lane of the spool or upstream is the source then, and no station.
    fn lost_inside(&self, stations: &[StationResult]) -> u64 {
        let inside = self.losses.iter().filter(|loss| stations.iter().all(|station| station.name != loss.source));
        inside.map(|loss| loss.count).sum()
    }

    fn disagreements(&self, stations: &[StationResult]) -> Vec<String> {
        let mut found = Vec::new();
        let lost = self.lost_inside(stations);
        if self.taken.numbers != self.points + lost {
            let Self { taken, points, .. } = self;
            found.push(format!(
                "readings: {} numbers were taken in, {points} delivered, {lost} lost on the way",
                taken.numbers
            ));
        }
        // A loss on the way counts records of all kinds.
        if self.taken.text_changes != self.text_changes && lost == 0 {
            let Self { taken, text_changes, .. } = self;
            found.push(format!("readings: {} texts changed, {text_changes} changes delivered", taken.text_changes));
        }
        if self.unreadable > 0 {
            found.push(format!("upstream could not read {} requests", self.unreadable));
        }
        found
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, speed, elapsed, stations, readings } = self;
        writeln!(f, "\nThe line ran for {} with seed {seed} at speed {speed}.\n", clock(*elapsed))?;
        writeln!(f, "{}\n", table(stations))?;
        writeln!(f, "OEE = A × P × Q: availability, performance, quality.")?;
        stations.iter().filter_map(polled).try_for_each(|sentence| writeln!(f, "{sentence}"))?;
        writeln!(f)?;

        let Readings { served, taken, points, text_changes, requests, repeated, losses, .. } = readings;
        let lost: u64 = losses.iter().map(|loss| loss.count).sum();
        let all = taken.readings();
        writeln!(
            f,
            "machines  answered {} Modbus reads, made {} OPC UA changes, sent {} MQTT messages",
            served.modbus_reads, served.opcua_changes, served.mqtt_messages
        )?;
        writeln!(
            f,
            "gemba     took in {all} readings: {} numbers, {} texts with {} changes",
            taken.numbers, taken.texts, taken.text_changes
        )?;
        writeln!(
            f,
            "upstream  got {points} numbers and {text_changes} changes of text in {requests} requests ({repeated} repeated)"
        )?;
        writeln!(f, "lost      {lost}")?;
        for LossTotal { source, reason, count } in losses {
            writeln!(f, "          {count} of {source}: {reason}")?;
        }
        let disagreements = self.disagreements();
        if disagreements.is_empty() {
            return write!(f, "\nThey agree: the page, upstream's sums, and the machines.");
        }
        write!(f, "\nThey do not agree:")?;
        disagreements.iter().try_for_each(|sentence| write!(f, "\n  {sentence}"))
    }
}

/// Each station in three lines: what gemba has, what the machine knows, the difference.
fn table(stations: &[StationResult]) -> String {
    const SHOWN: [&str; 7] = ["OEE", "availability", "performance", "quality", "total", "good", "reject"];
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "", "OEE", "A", "P", "Q", "total", "good", "reject"]);
    for station in stations {
        let shown = SHOWN.iter().filter_map(|name| station.figures.iter().find(|figure| figure.name == *name));
        let shown: Vec<_> = shown.zip(0..).map(|(figure, place)| (figure, place < 4)).collect();
        let row = |name: &str, side: &str, value: &dyn Fn(&Figure, bool) -> String| {
            let head = [name.to_owned(), side.to_owned()];
            head.into_iter().chain(shown.iter().map(|(figure, ratio)| value(figure, *ratio))).collect::<Vec<_>>()
        };
        let told = |value: Option<f64>, ratio: bool| value.map_or("-".to_owned(), |value| cell(value, ratio));
        table.add_row(row(&station.name, "gemba", &|figure, ratio| told(figure.seen, ratio)));
        table.add_row(row("", "machine", &|figure, ratio| told(figure.known, ratio)));
        table.add_row(row("", "difference", &|figure, ratio| {
            let difference = figure.seen.zip(figure.known).map(|(seen, known)| difference(seen - known, ratio));
            let difference = difference.unwrap_or_else(|| "-".to_owned());
            if figure.agrees() { difference } else { format!("{difference} !") }
        }));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Why a station's figures may differ at all, and how far, if they may.
fn polled(station: &StationResult) -> Option<String> {
    let allowed = |name: &str| {
        let figure = station.figures.iter().find(|figure| figure.name == name)?;
        Some(figure.allowed.0.max(figure.allowed.1))
    };
    let (availability, performance) = (allowed("availability")?, allowed("performance")?);
    if availability <= super::verdict::ROUNDING {
        return None;
    }
    let name = &station.name;
    let why = format!("{name} is polled, so changes of its state are seen late.");
    Some(if performance.is_finite() {
        let [availability, performance] = [availability, performance].map(|by| by * 100.0);
        format!(
            "{why} That explains differences\nof up to {availability:.2} % in A and {performance:.2} % in P, and no others."
        )
    } else {
        format!("{why} It ran so shortly\nthat A and P say nothing yet.")
    })
}

fn cell(value: f64, ratio: bool) -> String {
    if ratio { format!("{:.2} %", value * 100.0) } else { value.to_string() }
}

/// Zero where it cannot be told from rounding.
fn difference(value: f64, ratio: bool) -> String {
    if value.abs() < super::verdict::ROUNDING {
        return "0".to_owned();
    }
    if ratio { format!("{:+.2} %", value * 100.0) } else { format!("{value:+}") }
}

/// With all digits that count.
fn plain(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1:05` or `1:00:05`.
pub(super) fn clock(span: Duration) -> String {
    let seconds = whole(span.as_secs());
    let (hours, minutes, seconds) = ((seconds / 3600.0).floor(), (seconds / 60.0).floor() % 60.0, seconds % 60.0);
    if hours > 0.0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, seen: f64, known: f64) -> Figure {
        Figure { name, seen: Some(seen), known: Some(known), allowed: (1e-9, 1e-9) }
    }

    fn outcome(total: f64) -> Outcome {
        let figures = vec![
            figure("OEE", 0.5, 0.5),
            Figure { allowed: (0.0125, 0.0125), ..figure("availability", 0.75, 0.75) },
            Figure { allowed: (0.01, 0.01), ..figure("performance", 0.7, 0.705) },
            figure("quality", 0.95, 0.95),
            Figure { allowed: (0.0, 0.0), ..figure("total", total, 40.0) },
            figure("good", 38.0, 38.0),
            figure("reject", 2.0, 2.0),
        ];
        let station = StationResult {
            name: "printer-1".to_owned(),
            figures,
            upstream: Vec::new(),
            from_the_start: true,
            told_from_the_start: true,
            told_to_the_end: true,
        };
        Outcome {
            seed: 7,
            speed: 10.0,
            elapsed: Duration::from_secs(65),
            stations: vec![station],
            readings: Readings {
                served: Served { modbus_reads: 240, opcua_changes: 90, mqtt_messages: 30, mqtt_unsent: 0 },
                taken: Intake { numbers: 900, texts: 60, text_changes: 12 },
                points: 900,
                text_changes: 12,
                requests: 31,
                ..Readings::default()
            },
        }
    }

    #[test]
    fn a_summary_that_agrees() {
        let expected = "
The line ran for 1:05 with seed 7 at speed 10.

                            OEE        A        P        Q  total  good  reject
 printer-1  gemba       50.00 %  75.00 %  70.00 %  95.00 %     40    38       2
            machine     50.00 %  75.00 %  70.50 %  95.00 %     40    38       2
            difference        0        0  -0.50 %        0      0     0       0

OEE = A × P × Q: availability, performance, quality.
printer-1 is polled, so changes of its state are seen late. That explains differences
of up to 1.25 % in A and 1.00 % in P, and no others.

machines  answered 240 Modbus reads, made 90 OPC UA changes, sent 30 MQTT messages
gemba     took in 960 readings: 900 numbers, 60 texts with 12 changes
upstream  got 900 numbers and 12 changes of text in 31 requests (0 repeated)
lost      0

They agree: the page, upstream's sums, and the machines.";
        assert_eq!(outcome(40.0).to_string(), expected);
    }

    #[test]
    fn a_summary_that_does_not() {
        let mut outcome = outcome(41.0);
        outcome.stations[0].from_the_start = false;
        outcome.stations[0].told_from_the_start = false;
        outcome.stations[0].told_to_the_end = false;
        outcome.readings.points = 890;
        outcome.readings.text_changes = 11;
        outcome.readings.unreadable = 1;
        let lost = LossTotal { source: "printer-1".to_owned(), reason: "polls were left out".to_owned(), count: 3 };
        outcome.readings.losses.push(lost);
        let expected = "
            difference        0        0  -0.50 %        0   +1 !     0       0

OEE = A × P × Q: availability, performance, quality.
printer-1 is polled, so changes of its state are seen late. That explains differences
of up to 1.25 % in A and 1.00 % in P, and no others.

machines  answered 240 Modbus reads, made 90 OPC UA changes, sent 30 MQTT messages
gemba     took in 960 readings: 900 numbers, 60 texts with 12 changes
upstream  got 890 numbers and 11 changes of text in 31 requests (0 repeated)
lost      3
          3 of printer-1: polls were left out

They do not agree:
  printer-1: total is 41, the machine knows 40 (must be the same)
  printer-1: the page's figures do not begin where the machine did
  printer-1: upstream's sums do not begin where the machine did
  printer-1: upstream was not told the last figures
  readings: 900 numbers were taken in, 890 delivered, 0 lost on the way
  readings: 12 texts changed, 11 changes delivered
  upstream could not read 1 requests";
        let text = outcome.to_string();
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_was_lost_on_the_way_is_no_riddle() {
        let mut outcome = outcome(40.0);
        outcome.readings.points = 890;
        assert!(!outcome.agrees());
        let lost = LossTotal { source: "upstream".to_owned(), reason: "refused".to_owned(), count: 10 };
        outcome.readings.losses.push(lost);
        assert_eq!(outcome.disagreements(), Vec::<String>::new());
    }
}
