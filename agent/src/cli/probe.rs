//! `gemba check --probe`: does every tag say something, and what?

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use futures::future::join_all;
use gemba_drivers::survey::{Probed, Survey};
use gemba_drivers::treat::{self, Treatment};
use gemba_drivers::{LinkError, OwnStatus, Reading, Status, TagId, Validity, Value};
use tokio::time::Instant;

use super::check::{hears_sparkplug, stations};
use super::service::{self, Visit};
use crate::config::{Config, Link};

/// What came of one link.
struct Asked {
    rows: Vec<Row>,
    /// Why not all was told.
    failed: Option<LinkError>,
}

/// What one tag says, after all that the configuration asks for it.
struct Row {
    tag: TagId,
    /// `None` for a tag that is computed from others, some of which said nothing.
    reading: Option<Reading>,
    /// `None` for a tag that is computed.
    round_trip: Option<Duration>,
    otherwise: Vec<(String, Value)>,
}

/// Asks every tag of every link once, and prints what came; links are asked side by side. Whether every tag gave a value.
///
/// # Errors
/// When nothing can be printed.
pub(super) fn probe(config: &Config) -> anyhow::Result<bool> {
    let asked = service::briefly(async |signals| {
        let visit = Visit::begin(&format!("asking {} links", config.links.len()));
        let all = join_all(config.links.iter().map(|link| ask(config, link, &visit)));
        Ok(visit.until(signals, all).await.0)
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", table(config, &asked))?;
    let mut whole = true;
    for (link, asked) in config.links.iter().zip(&asked) {
        if let Some(error) = &asked.failed {
            whole = false;
            writeln!(out, "{}: {}: {error}", stations(config, link), link.endpoint)?;
        } else if hears_sparkplug(link) && asked.rows.iter().any(is_silent) {
            writeln!(out, "{}: {UNASKED}", stations(config, link))?;
        }
    }
    let says_nothing = |row: &&Row| row.reading.as_ref().is_none_or(|reading| reading.validity.is_bad());
    let bad = asked.iter().flat_map(|asked| &asked.rows).filter(says_nothing).count();
    if bad > 0 {
        whole = false;
        writeln!(out, "{bad} of {} tags gave no value", config.tags.len())?;
    }
    Ok(whole)
}

/// Why tags of a Sparkplug node may have no value though all is well.
const UNASKED: &str = "a probe only listens, and asks no Sparkplug node for a birth: one that has nothing new to say while \
                       it listens, or names its metrics by the aliases of an earlier birth, gives no value";

fn is_silent(row: &Row) -> bool {
    row.reading.as_ref().is_some_and(|told| told.validity == Validity::Bad(Status::Own(OwnStatus::NoData)))
}

async fn ask(config: &Config, link: &Link, visit: &Visit) -> Asked {
    let mut told = Vec::new();
    let failed =
        visit.to(link.source.clone().driver(), async |driver| driver.probe(&mut |probed| told.push(probed)).await);
    let failed = failed.await.err();
    Asked { rows: treated(&config.plan(link), told), failed }
}

/// What a run would make of what was `told`.
fn treated(plan: &treat::Plan, told: Vec<Probed>) -> Vec<Row> {
    let row = |Probed { reading, round_trip, otherwise }| Row {
        tag: reading.tag,
        reading: Some(reading),
        round_trip: Some(round_trip),
        otherwise,
    };
    let mut rows: Vec<Row> = told.into_iter().map(row).collect();
    let Some(mut treatment) = Treatment::new(plan) else { return rows };
    let mut readings: Vec<Reading> = rows.iter().filter_map(|row| row.reading.clone()).collect();
    treatment.apply(&mut readings, Instant::now());
    let treated = |tag| readings.iter().find(|reading| reading.tag == tag).cloned();
    for row in &mut rows {
        row.reading = treated(row.tag).or_else(|| row.reading.take());
        row.otherwise = std::mem::take(&mut row.otherwise)
            .into_iter()
            .filter_map(|(option, value)| Some((option, treatment.scaled(row.tag, value)?)))
            .collect();
    }
    if !rows.is_empty() {
        let options = plan.stations.iter().flat_map(|station| &station.treated);
        let computed = options.filter(|(_, options)| options.derived.is_some());
        rows.extend(computed.map(|&(tag, _)| Row {
            tag,
            reading: treated(tag),
            round_trip: None,
            otherwise: Vec::new(),
        }));
    }
    rows
}

/// One row a tag; below it what its bytes would be, read otherwise.
fn table(config: &Config, asked: &[Asked]) -> String {
    let mut rows: Vec<&Row> = asked.iter().flat_map(|asked| &asked.rows).collect();
    rows.sort_by_key(|row| row.tag);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["station", "tag", "value", "validity", "source time", "round trip"]);
    for row in rows {
        let Some(tag) = config.tags.get(row.tag.index()) else { continue };
        let value = |value: &Value| {
            let unit = tag.unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
            format!("{}{unit}", super::printable(&number_or_text(value)))
        };
        let validity = row.reading.as_ref().map(|reading| match reading.validity {
            Validity::Good => "good".to_owned(),
            Validity::Uncertain(status) | Validity::Bad(status) => format!("{} {status}", reading.validity.word()),
        });
        let told = row.reading.as_ref().filter(|reading| !reading.validity.is_bad());
        let none = || "-".to_owned();
        table.add_row([
            config.stations[tag.station].name.to_string(),
            tag.name.to_string(),
            told.map_or_else(none, |reading| value(&reading.value)),
            validity.unwrap_or_else(|| "nothing to compute it from".to_owned()),
            told.map_or_else(none, |reading| reading.source_time.to_string()),
            row.round_trip.map_or_else(none, |took| format!("{:.1} ms", took.as_secs_f64() * 1e3)),
        ]);
        for (option, otherwise) in &row.otherwise {
            table.add_row(["", &format!("  {option}"), &value(otherwise)]);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Floats that were never meant to be some have three hundred digits.
fn number_or_text(value: &Value) -> String {
    match value {
        Value::Float(real) if *real != 0.0 && !(1e-6..1e15).contains(&real.abs()) => format!("{real:e}"),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn at() -> gemba_drivers::Time {
        "2026-03-02T06:00:00Z".parse().expect("a time")
    }

    fn good(tag: u32, value: Value) -> Probed {
        probed(Reading::good(TagId(tag), value, at(), at()))
    }

    fn probed(reading: Reading) -> Probed {
        Probed { reading, round_trip: Duration::from_micros(1_250), otherwise: Vec::new() }
    }

    fn asked(config: &Config, link: usize, told: Vec<Probed>) -> Asked {
        Asked { rows: treated(&config.plan(&config.links[link]), told), failed: None }
    }

    #[test]
    fn what_was_told_reads_as_a_table() {
        let line = Config::from_str("line.yaml", include_str!("../../../config/line.yaml")).expect("it loads");
        let bad = Reading::bad(TagId(5), Status::Opcua(0x8034_0000), at(), at());
        let hostile = Value::Text("Execute\u{1b}[31m\nred".into());
        let otherwise = vec![("word_order: little".to_owned(), Value::Float(1e-20))];
        let pressure = Probed { otherwise, ..good(3, Value::Float(4.5)) };
        let asked = [asked(&line, 1, vec![probed(bad), good(4, hostile)]), asked(&line, 0, vec![pressure])];
        insta::assert_snapshot!(table(&line, &asked), @r"
         station    tag                   value             validity              source time           round trip
         printer-1  squeegee_pressure     4.5 N             good                  2026-03-02T06:00:00Z  1.2 ms
                      word_order: little  1e-20 N
         aoi-1      state                 Execute [31m red  good                  2026-03-02T06:00:00Z  1.2 ms
         aoi-1      good                  -                 bad BadNodeIdUnknown  -                     1.2 ms
        ");
    }

    /// As a run would tell it: a probe that shows raw counts with the unit of what they mean would be believed.
    #[test]
    fn what_a_tag_is_scaled_to_and_computed_from_is_shown() {
        let line = "site: s
line: l
timezone: UTC
stations:
  - name: oven-1
    source: { type: modbus, endpoint: 'tcp://plc' }
    tags:
      - { name: zone, address: 'input:0', as: i16, scale: 0.1, unit: Cel }
      - { name: setpoint, address: 'input:1', as: i16, scale: 0.1, clamp: { min: 0, max: 100 }, unit: Cel }
      - { name: deviation, expression: 'zone - setpoint', unit: Cel }
      - { name: load, address: 'input:2', as: u16 }
      - { name: loss, expression: 'load * 2', unit: W }
";
        let line = Config::from_str("line.yaml", line).expect("it loads");
        let otherwise = vec![("word_order: little".to_owned(), Value::Int(-3_840))];
        let zone = Probed { otherwise, ..good(0, Value::Int(241)) };
        let asked = [asked(&line, 0, vec![zone, good(1, Value::Int(2400))])];
        insta::assert_snapshot!(table(&line, &asked), @r"
         station  tag                   value      validity                    source time           round trip
         oven-1   zone                  24.1 Cel   good                        2026-03-02T06:00:00Z  1.2 ms
                    word_order: little  -384 Cel
         oven-1   setpoint              100 Cel    uncertain Clamped           2026-03-02T06:00:00Z  1.2 ms
         oven-1   deviation             -75.9 Cel  uncertain Clamped           2026-03-02T06:00:00Z  -
         oven-1   loss                  -          nothing to compute it from  -                     -
        ");
    }
}
