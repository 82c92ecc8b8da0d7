//! `gemba browse`: what a station offers, as tags to copy into the configuration.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use gemba_drivers::survey::{Offered, Scope, Survey};
use serde_json::Value as Json;

use super::service::{self, Visit};
use crate::config::{self, Config};

/// List what a station offers, as tags for its configuration
///
/// An OPC UA server is asked for its variables. A Modbus device has no list: its registers are tried, reading only. On an
/// MQTT broker the station's topics are listened to for a while. Of the gateway's own pins (GPIO) the lines that nobody uses
/// are listed, and the channels of its converters. The station needs a `source` and may have no `tags` yet.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Browse {
    /// YAML file, or a folder whose *.yaml files are merged
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The station, by its name in the configuration
    station: String,
    /// Only what this fits, by its name or where it stands: `*` is any text, `?` any character; case does not matter
    #[arg(long, value_name = "GLOB")]
    filter: Option<glob::Pattern>,
    /// How long to listen where nobody can be asked (MQTT)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::duration)]
    listen: Duration,
    /// How much of what fits is listed at most
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    most: usize,
}

const EXAMPLES: &str = "Examples:
  gemba browse --config line.yaml aoi-1
  gemba browse --config line.yaml aoi-1 --filter '*temperature*' > tags.yaml";

/// How much is looked at in search of what fits a filter.
const SEEN: usize = 1_000_000;

impl Browse {
    /// Browses and prints.
    ///
    /// # Errors
    /// A wrong configuration, a station that it lacks, a link that does not come up.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::draft(&self.config)?;
        let Some(station) = config.stations.iter().find(|station| *station.name == self.station) else {
            let names = config.stations.iter().map(|station| &*station.name);
            let help = config::one_of_names(&self.station, names);
            super::complain(&format!("error: `{}` is no station of the line{help}", self.station));
            return Ok(ExitCode::from(2));
        };
        let link = &config.links[station.link];
        // What does not fit the filter does not count.
        let most = if self.filter.is_some() { SEEN } else { self.most };
        let scope = Scope { station: station.name.clone(), listen: self.listen, most };
        let (shown, all) = service::briefly(async |signals| {
            let visit = Visit::begin(&format!("looking around at {}", link.endpoint));
            let (mut offered, mut seen) = (Vec::new(), 0);
            let looked = visit.to(link.source.clone().driver(), async |driver| {
                driver
                    .browse(&scope, &mut |found| {
                        seen += 1;
                        visit.count(seen);
                        if offered.len() < self.most && fits(self.filter.as_ref(), &found) {
                            offered.push(found);
                        }
                    })
                    .await
            });
            match visit.until(signals, looked).await {
                // What was found till then is worth having.
                (_, true) => super::warn("interrupted: the list may lack something"),
                (looked, false) => looked.map_err(|error| anyhow::anyhow!("{}: {error}", link.endpoint))?,
            }
            Ok((offered, seen))
        })?;
        let text = tags(&shown);
        let mut out = std::io::stdout().lock();
        writeln!(out, "# {} at {}: {} of {all} shown", self.station, link.endpoint, shown.len())?;
        out.write_all(text.as_bytes())?;
        if shown.len() == self.most {
            super::warn(&format!("the list ends at {}; --most lets it go on", self.most));
        } else if all == most {
            super::warn(&format!("the search ended after {all}, there may be more"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn fits(filter: Option<&glob::Pattern>, found: &Offered) -> bool {
    let as_people_mean = glob::MatchOptions { case_sensitive: false, ..glob::MatchOptions::new() };
    let place = found.about.split(", ").next().unwrap_or_default();
    filter.is_none_or(|filter| [&*found.name, place].iter().any(|text| filter.matches_with(text, as_people_mean)))
}

/// As YAML, to stand below a station.
fn tags(offered: &[Offered]) -> String {
    let mut text = String::from("tags:\n");
    for Offered { name, options, unit, about, value } in offered {
        let value = value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        let comment = super::printable(&format!("{about}{value}"));
        let options = options.iter().map(|(key, option)| (*key, option)).chain(unit.iter().map(|unit| ("unit", unit)));
        let options: String = options.map(|(key, option)| format!(", {key}: {}", quoted(option))).collect();
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  # {comment}\n  - {{ name: {}{options} }}", plain_or_quoted(name));
    }
    if offered.is_empty() { "tags: []\n".to_owned() } else { text }
}

/// A YAML double-quoted scalar: JSON's is one.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// A word that YAML reads as text needs no quotes.
fn plain_or_quoted(text: &str) -> String {
    const TAKEN: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !TAKEN.contains(&text.to_ascii_lowercase().as_str());
    if word { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(name: &str, node: &str, about: &str) -> Offered {
        Offered {
            name: name.to_owned(),
            options: vec![("node", node.to_owned())],
            unit: None,
            about: about.to_owned(),
            value: Some(gemba_drivers::Value::Int(3)),
        }
    }

    #[test]
    fn what_is_offered_is_yaml_that_loads() {
        let list = [
            Offered {
                unit: Some("Cel".to_owned()),
                ..offered("zone1", "nsu=urn:fab-2:oven;s=Zone 1 \"hot\"", "Objects/Oven/Zone 1, Double")
            },
            offered("yes", "ns=2;i=7", "Objects/two\nlines, Int32"),
        ];
        let text = tags(&list);
        assert_eq!(
            text,
            "tags:\n  # Objects/Oven/Zone 1, Double = 3\n  - { name: zone1, node: \"nsu=urn:fab-2:oven;s=Zone 1 \\\"hot\\\"\", unit: \"Cel\" }\n  \
             # Objects/two lines, Int32 = 3\n  - { name: \"yes\", node: \"ns=2;i=7\" }\n"
        );
        let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
        let line = format!(
            "site: s\nline: l\ntimezone: UTC\nstations:\n  - name: oven-1\n    source: {{ type: opcua, endpoint: \"opc.tcp://plc\" }}\n{indented}"
        );
        let config = Config::from_str("browsed.yaml", &line).expect("it loads");
        assert_eq!(config.tags.iter().map(|tag| &*tag.name).collect::<Vec<_>>(), ["zone1", "yes"]);
    }

    #[test]
    fn a_filter_looks_at_name_and_place() {
        let found = offered("zone1", "ns=1;i=1", "Objects/Oven/Zone 1, Double");
        for (glob, fit) in [("zone?", true), ("ZONE*", true), ("*oven*", true), ("zone", false), ("*double*", false)] {
            assert_eq!(fits(Some(&glob.parse().expect("a pattern")), &found), fit, "{glob}");
        }
        assert!(fits(None, &found));
    }
}
