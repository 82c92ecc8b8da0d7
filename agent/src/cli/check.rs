//! `gemba check`: is the configuration right, and what does it come to?

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use gemba_drivers::mqtt;

use super::probe;
use crate::config::{Config, Link, Protocol, Source};
use crate::model::OeeSpec;

/// Check a configuration without running it
///
/// Says what it comes to, or everything that is wrong with it, each with file, line, column and path.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Examples:\n  gemba check --config line.yaml\n  gemba check --config line.yaml --probe")]
pub struct Check {
    /// YAML file, or a folder whose *.yaml files are merged
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Connect as well, read each tag once, and say what came: value, validity, time and round trip, and for Modbus
    /// what other orders of the bytes would give. What nobody can ask (MQTT) is listened for, twice its timeout long. A
    /// running gemba is not disturbed, but it alone has its serial ports and GPIO lines
    #[arg(long)]
    pub probe: bool,
}

impl Check {
    /// Prints a summary on standard output, or everything that is wrong on standard error; then the exit code is 2. It is 1
    /// if a probe did not get a value for every tag.
    ///
    /// # Errors
    /// When neither can be written to.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match Config::load(&self.config) {
            Ok(config) => {
                let summary = summary(&self.config.display().to_string(), &config);
                io::stdout().lock().write_all(summary.as_bytes())?;
                doubts(&config).iter().for_each(|doubt| super::warn(doubt));
                let fine = !self.probe || probe::probe(&config)?;
                Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Err(error) => {
                writeln!(io::stderr().lock(), "{error}")?;
                Ok(ExitCode::from(2))
            }
        }
    }
}

/// What the configuration called `name` comes to, in a few lines.
fn summary(name: &str, config: &Config) -> String {
    let mut text = format!(
        "{name} is fine: {}, {}, {}\n\n",
        count(config.stations.len(), "station"),
        count(config.tags.len(), "tag"),
        count(config.links.len(), "link"),
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["station", "protocol", "endpoint", "tags", "computed"]);
    for station in &config.stations {
        let link = &config.links[station.link];
        table.add_row([
            station.name.as_ref(),
            link.source.protocol(),
            &link.endpoint,
            &station.tags.len().to_string(),
            &computed(config, station.oee.as_ref()),
        ]);
    }
    let table = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    let shifts = match config.shifts.as_slice() {
        [] => "none: each day is one period".to_owned(),
        shifts => shifts.iter().map(|shift| shift.name.as_ref()).collect::<Vec<_>>().join(", "),
    };
    let zone = config.timezone.iana_name().unwrap_or("UTC");
    let upstream = match config.upstream.as_ref().map(|upstream| upstream.protocol) {
        Some(Protocol::Http) => "OTLP over HTTP",
        Some(Protocol::Grpc) => "OTLP over gRPC",
        None => "none: everything stays in the spool",
    };
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "{table}\n\nshifts    {shifts} ({zone})\nupstream  {upstream}\nspool     {}\n",
        config.spool.path.display()
    );
    text
}

/// What is allowed, and yet may not be what was meant.
fn doubts(config: &Config) -> Vec<String> {
    let unasked = |link: &&Link| matches!(&link.source, Source::Mqtt(mqtt) if !mqtt.rebirth && hears_sparkplug(link));
    let links = config.links.iter().filter(unasked);
    let cycles = |oee: &OeeSpec| {
        [&oee.total, &oee.good, &oee.reject, &oee.rework].into_iter().flatten().any(|counter| counter.cycles)
    };
    let alone = config.knowledge.products.iter().all(|product| product.parts_per_cycle.is_none());
    let counting = config.stations.iter().filter(|station| alone && station.oee.as_ref().is_some_and(cycles));
    let parts = "counts cycles, and no product says `parts_per_cycle`: each is taken for one part";
    let why = "Sparkplug without `rebirth: true`: after each start and each lost link its tags are bad or unknown until \
               the edge node is born again by itself, which may be never";
    let links = links.map(|link| format!("{}: {why}", stations(config, link)));
    links.chain(counting.map(|station| format!("{}: {parts}", station.name))).collect()
}

/// Whether the link listens to Sparkplug edge nodes.
pub(super) fn hears_sparkplug(link: &Link) -> bool {
    let sparkplug = |topic: &mqtt::Topic| matches!(topic.payload, mqtt::Payload::Sparkplug(_));
    matches!(&link.source, Source::Mqtt(mqtt) if mqtt.topics.iter().any(sparkplug))
}

/// The names of a link's stations.
pub(super) fn stations(config: &Config, link: &Link) -> String {
    link.stations.iter().map(|&at| &*config.stations[at].name).collect::<Vec<_>>().join(", ")
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The figures that a station's tags are enough for.
fn computed(config: &Config, oee: Option<&OeeSpec>) -> String {
    let Some(oee) = oee else { return "nothing".to_owned() };
    let counters = [&oee.total, &oee.good, &oee.reject].into_iter().flatten().count();
    let parts = oee.total.is_some() || counters == 2;
    let state = oee.state.is_some() || oee.by_count.is_some();
    let timed = config.knowledge.products.iter().any(|product| !product.ideal_cycle_time.is_empty());
    let performance = state && parts && (timed || oee.ideal_cycle_time.is_some());
    let quality = if counters == 2 { "quality" } else { "quality (assumed 1)" };
    let figures: Vec<_> = [
        (performance, "oee"),
        (state, "availability"),
        (performance, "performance"),
        (parts, quality),
        (!parts && counters > 0, "parts (of one kind only)"),
        (oee.energy.is_some(), "energy"),
    ]
    .into_iter()
    .filter_map(|(known, figure)| known.then_some(figure))
    .collect();
    figures.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_str("test.yaml", text).expect("a valid configuration")
    }

    #[test]
    fn the_reference_line_is_summed_up() {
        let line = config(include_str!("../../../config/line.yaml"));
        insta::assert_snapshot!(summary("config/line.yaml", &line), @r"
        config/line.yaml is fine: 3 stations, 11 tags, 3 links

         station    protocol  endpoint                  tags  computed
         printer-1  Modbus    tcp://127.0.0.1:5020      4     oee, availability, performance, quality
         aoi-1      OPC UA    opc.tcp://127.0.0.1:4840  4     oee, availability, performance, quality
         oven-1     MQTT      mqtt://127.0.0.1:1883     3     oee, availability, performance, quality (assumed 1)

        shifts    early, late, night (Europe/Berlin)
        upstream  OTLP over HTTP
        spool     ./data/spool
        ");
    }

    #[test]
    fn says_what_the_tags_are_enough_for() {
        let on = |line: &str, oee: &str| {
            let text = format!(
                "{{ site: s, line: l, timezone: UTC, {line} stations: [{{ name: a, \
                 source: {{ type: modbus, endpoint: 'tcp://h' }}, tags: [ \
                 {{ name: s, address: 'holding:0', as: u16 }}, {{ name: t, address: 'holding:1', as: u16 }}, \
                 {{ name: r, address: 'holding:2', as: u16 }} ], {oee} }}] }}"
            );
            let config = config(&text);
            computed(&config, config.stations[0].oee.as_ref())
        };
        let of = |oee: &str| on("", oee);
        let state = "state: { tag: s, map: { 1: producing } }";
        assert_eq!(of(""), "nothing");
        assert_eq!(of(&format!("oee: {{ {state} }}")), "availability");
        assert_eq!(of("oee: { total: { tag: t } }"), "quality (assumed 1)");
        assert_eq!(of("oee: { reject: { tag: r } }"), "parts (of one kind only)");
        assert_eq!(
            of(&format!("oee: {{ {state}, total: {{ tag: t }}, reject: {{ tag: r }} }}")),
            "availability, quality"
        );
        assert_eq!(
            of(&format!("oee: {{ {state}, good: {{ tag: t }}, reject: {{ tag: r }}, ideal_cycle_time: 1s }}")),
            "oee, availability, performance, quality"
        );
        let counted = "state: { from: counts }, total: { tag: t }, ideal_cycle_time: 1s";
        assert_eq!(of(&format!("oee: {{ {counted} }}")), "oee, availability, performance, quality (assumed 1)");
        assert_eq!(of("oee: { energy: { tag: t, unit: kWh } }"), "energy");
        let products = "products: [{ name: A, ideal_cycle_time: 1s }],";
        let timed = on(products, &format!("oee: {{ {state}, total: {{ tag: t }} }}"));
        assert_eq!(timed, "oee, availability, performance, quality (assumed 1)");
    }

    #[test]
    fn what_may_not_be_meant_is_said() {
        let line = config(include_str!("../../../config/line.yaml"));
        assert!(doubts(&line).is_empty());
        let sparkplug = |rebirth: &str| {
            let text = format!(
                "{{ site: s, line: l, timezone: UTC, stations: [{{ name: oven-1, \
                 source: {{ type: mqtt, endpoint: 'mqtt://h', {rebirth} \
                 topics: [{{ group: g, edge_node: n, payload: sparkplug }}] }}, tags: [{{ name: t }}] }}] }}"
            );
            doubts(&config(&text))
        };
        assert!(sparkplug("rebirth: true,").is_empty());
        let cycles = |product: &str| {
            let text = format!(
                "{{ site: s, line: l, timezone: UTC, products: [{{ name: A {product} }}], stations: [{{ name: press-1, \
                 source: {{ type: modbus, endpoint: 'tcp://h' }}, tags: [{{ name: t, address: 'holding:0', as: u16 }}], \
                 oee: {{ total: {{ tag: t, counts: cycles }} }} }}] }}"
            );
            doubts(&config(&text))
        };
        assert!(cycles(", parts_per_cycle: 2").is_empty());
        let alone = cycles("");
        assert!(alone.len() == 1 && alone[0].starts_with("press-1: counts cycles"), "{alone:?}");
        let doubts = sparkplug("");
        assert!(doubts.len() == 1 && doubts[0].starts_with("oven-1: Sparkplug without `rebirth: true`:"), "{doubts:?}");
    }

    #[test]
    fn exit_codes_tell_fine_from_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            format!("{:?}", Check { config: path, probe: false }.run().expect("it ran"))
        };
        assert_eq!(run("good.yaml", include_str!("../../../config/line.yaml")), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(run("bad.yaml", "site: [}"), format!("{:?}", ExitCode::from(2)));
    }
}
