//! `gemba check --probe`: does every tag say something, and what?

use std::io::{self, Write};

use comfy_table::{Table, presets};
use futures::future::join_all;
use gemba_drivers::survey::{Probed, Survey};
use gemba_drivers::{LinkError, OwnStatus, Status, Validity};

use super::check::{hears_sparkplug, stations};
use super::service::{self, Visit};
use crate::config::{Config, Link};

/// What came of one link.
struct Asked {
    told: Vec<Probed>,
    /// Why not all was told.
    failed: Option<LinkError>,
}

/// Asks every tag of every link once, and prints what came; links are asked side by side. Whether every tag gave a value.
///
/// # Errors
/// When nothing can be printed.
pub(super) fn probe(config: &Config) -> anyhow::Result<bool> {
    let asked = service::briefly(async |signals| {
        let visit = Visit::begin(&format!("asking {} links", config.links.len()));
        let all = join_all(config.links.iter().map(|link| ask(link, &visit)));
        Ok(visit.until(signals, all).await.0)
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n{}", table(config, &asked))?;
    let mut whole = true;
    for (link, asked) in config.links.iter().zip(&asked) {
        if let Some(error) = &asked.failed {
            whole = false;
            writeln!(out, "{}: {}: {error}", stations(config, link), link.endpoint)?;
        } else if hears_sparkplug(link) && asked.told.iter().any(is_silent) {
            writeln!(out, "{}: {UNASKED}", stations(config, link))?;
        }
    }
    let bad = asked.iter().flat_map(|asked| &asked.told).filter(|probed| probed.reading.validity.is_bad()).count();
    if bad > 0 {
        whole = false;
        writeln!(out, "{bad} of {} tags gave no value", config.tags.len())?;
    }
    Ok(whole)
}

/// Why tags of a Sparkplug node may have no value though all is well.
const UNASKED: &str = "a probe only listens, and asks no Sparkplug node for a birth: one that has nothing new to say while \
                       it listens, or names its metrics by the aliases of an earlier birth, gives no value";

fn is_silent(probed: &Probed) -> bool {
    probed.reading.validity == Validity::Bad(Status::Own(OwnStatus::NoData))
}

async fn ask(link: &Link, visit: &Visit) -> Asked {
    let mut told = Vec::new();
    let failed =
        visit.to(link.source.clone().driver(), async |driver| driver.probe(&mut |probed| told.push(probed)).await);
    let failed = failed.await.err();
    Asked { told, failed }
}

/// One row a tag; below it what its bytes would be, read otherwise.
fn table(config: &Config, asked: &[Asked]) -> String {
    let mut rows: Vec<(usize, [String; 6])> = Vec::new();
    for Probed { reading, round_trip, otherwise } in asked.iter().flat_map(|asked| &asked.told) {
        let Some(tag) = config.tags.get(reading.tag.index()) else { continue };
        let unit = tag.unit.as_deref().map(|unit| format!(" {unit}")).unwrap_or_default();
        let value = if reading.validity.is_bad() { "-".to_owned() } else { format!("{}{unit}", reading.value) };
        let validity = match reading.validity {
            Validity::Good => "good".to_owned(),
            Validity::Uncertain(status) | Validity::Bad(status) => format!("{} {status}", reading.validity.word()),
        };
        let time = if reading.validity.is_bad() { "-".to_owned() } else { reading.source_time.to_string() };
        let station = config.stations[tag.station].name.to_string();
        let took = format!("{:.1} ms", round_trip.as_secs_f64() * 1e3);
        rows.push((reading.tag.index(), [station, tag.name.to_string(), value, validity, time, took]));
        for (option, value) in otherwise {
            let row = [String::new(), format!("  {option}"), format!("{value}{unit}"), String::new(), String::new()];
            let [a, b, c, d, e] = row;
            rows.push((reading.tag.index(), [a, b, c, d, e, String::new()]));
        }
    }
    // In the order of the configuration; the sort is stable.
    rows.sort_by_key(|(tag, _)| *tag);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["station", "tag", "value", "validity", "source time", "round trip"]);
    table.add_rows(rows.into_iter().map(|(_, row)| row));
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gemba_drivers::{Reading, TagId, Value};

    use super::*;

    #[test]
    fn what_was_told_reads_as_a_table() {
        let line = Config::from_str("line.yaml", include_str!("../../../config/line.yaml")).expect("it loads");
        let at = "2026-03-02T06:00:00Z".parse::<gemba_drivers::Time>().expect("a time");
        let good = |tag, value| Reading::good(TagId(tag), value, at, at);
        let probed = |reading, otherwise| Probed { reading, round_trip: Duration::from_micros(1_250), otherwise };
        let asked = [
            Asked {
                told: vec![
                    probed(Reading::bad(TagId(5), Status::Opcua(0x8034_0000), at, at), Vec::new()),
                    probed(good(4, Value::Text("Execute".into())), Vec::new()),
                ],
                failed: None,
            },
            Asked {
                told: vec![probed(
                    good(3, Value::Float(4.5)),
                    vec![("word_order: little".to_owned(), Value::Float(1e-20))],
                )],
                failed: None,
            },
        ];
        insta::assert_snapshot!(table(&line, &asked), @r"
         station    tag                   value                     validity              source time           round trip
         printer-1  squeegee_pressure     4.5 N                     good                  2026-03-02T06:00:00Z  1.2 ms
                      word_order: little  0.00000000000000000001 N
         aoi-1      state                 Execute                   good                  2026-03-02T06:00:00Z  1.2 ms
         aoi-1      good                  -                         bad BadNodeIdUnknown  -                     1.2 ms
        ");
    }
}
