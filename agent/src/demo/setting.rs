//! The demo's configuration: a template, and what is filled in.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gemba_drivers::sim::smt::{self, Plant};

const TEMPLATE: &str = include_str!("line.yaml");

/// The YAML for this line, this page, this upstream and this folder; `slow` makes the ideal cycle times so many times
/// longer than they are.
pub(super) fn yaml(plant: &Plant, listen: SocketAddr, upstream: &str, spool: &Path, slow: u32) -> String {
    let ideal = |station| milliseconds(plant.options().ideal(station) * slow);
    let node = |name: &str| quoted(&plant.opcua_node(name));
    fill(&[
        ("listen", listen.to_string()),
        ("upstream", upstream.to_owned()),
        ("spool", quoted(&spool.to_string_lossy())),
        ("printer", plant.modbus()),
        ("printer ideal", ideal(smt::Station::Printer)),
        ("aoi", plant.opcua()),
        ("aoi ideal", ideal(smt::Station::Aoi)),
        ("aoi State", node("State")),
        ("aoi Good", node("Good")),
        ("aoi Reject", node("Reject")),
        ("aoi Score", node("Score")),
        ("aoi DefectCode", node("DefectCode")),
        ("aoi Product", node("Product")),
        ("aoi Serial", node("Serial")),
        ("oven", plant.mqtt()),
        ("oven topic", smt::TOPIC.to_owned()),
        ("oven ideal", ideal(smt::Station::Oven)),
    ])
}

/// The template with each `<name>` replaced.
fn fill(values: &[(&str, String)]) -> String {
    // The comment that explains the angles would explain nothing any more.
    let body = TEMPLATE.split_once('\n').map_or(TEMPLATE, |(_, body)| body);
    values.iter().fold(format!("# What `gemba demo` ran.\n{body}"), |text, (name, value)| {
        text.replace(&format!("<{name}>"), value)
    })
}

/// Text as YAML takes it for what it is: JSON's strings are YAML's, and nothing is to be filled in.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

fn milliseconds(span: Duration) -> String {
    format!("{}ms", span.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn filled(spool: &str) -> String {
        fill(&[
            ("listen", "127.0.0.1:0".to_owned()),
            ("upstream", "http://127.0.0.1:4318".to_owned()),
            ("spool", quoted(spool)),
            ("printer", "tcp://127.0.0.1:502".to_owned()),
            ("printer ideal", milliseconds(Duration::from_millis(24))),
            ("aoi", "opc.tcp://127.0.0.1:4840/".to_owned()),
            ("aoi ideal", milliseconds(Duration::from_millis(20))),
            ("aoi State", quoted("nsu=urn:demo:aoi-1;s=State")),
            ("aoi Good", quoted("nsu=urn:demo:aoi-1;s=Good")),
            ("aoi Reject", quoted("nsu=urn:demo:aoi-1;s=Reject")),
            ("aoi Score", quoted("nsu=urn:demo:aoi-1;s=Score")),
            ("aoi DefectCode", quoted("nsu=urn:demo:aoi-1;s=DefectCode")),
            ("aoi Product", quoted("nsu=urn:demo:aoi-1;s=Product")),
            ("aoi Serial", quoted("nsu=urn:demo:aoi-1;s=Serial")),
            ("oven", "mqtt://127.0.0.1:1883".to_owned()),
            ("oven topic", smt::TOPIC.to_owned()),
            ("oven ideal", milliseconds(Duration::from_millis(20))),
        ])
    }

    #[test]
    fn it_is_an_ordinary_configuration_wherever_the_folder_lies() {
        for folder in ["/var/tmp/demo/spool", "/tmp/it's \"mine\": ${env:HOME}\\ #1/spool"] {
            let text = filled(folder);
            assert!(!text.contains('<') && !text.contains('>'), "all is filled in: {text}");
            let config = Config::from_str("line.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.spool.path, Path::new(folder));
            assert_eq!((config.stations.len(), config.links.len()), (3, 3));
            let shifts: Vec<_> = config.shifts.iter().map(|shift| &*shift.name).collect();
            assert_eq!(shifts, ["early", "late", "night"]);
            let named = config.stations.iter().map(|station| smt::Station::named(&station.name));
            assert_eq!(named.collect::<Vec<_>>(), smt::Station::ALL.map(Some), "the machines by their names");
        }
    }
}
