//! `gemba demo`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use gemba_drivers::sim::smt;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::service::{Signals, filter, serve};
use crate::config;
use crate::demo::{self, News, Options};
use crate::heap;
use crate::logging::LogFormat;
use crate::telemetry::outbox::Outbox;

/// Watch a simulated line, and see whether gemba's figures are true
///
/// Three machines (solder paste printer, inspection, oven) are simulated and served over real Modbus, OPC UA and MQTT on this
/// machine's loopback; gemba reads them as it would read real ones, shows them on its page, and forwards everything to an
/// OTLP receiver that is part of the demo. The machines stop now and then, wait for each other, make rejects, change over to
/// another product. Nothing leaves this machine, and nothing stays on its disk.
///
/// Prints where the page is, then how it goes. After ctrl-C (or --duration) the machines halt, and gemba's figures are held
/// against what the machines know to be true: OEE with its factors, parts and the time in each state, on the page and
/// upstream. A second ctrl-C ends at once, without that.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// How many times faster than life the machines go: 0.1 to 100
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// What happens: the same seed at the same speed gives the same stops, rejects and changes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How long the machines run, e.g. `90s`, `2m` or `1h`; until ctrl-C unless said
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Where the page listens; 127.0.0.1:8080 unless said, or a free port if that one is taken
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = config::listen)]
    listen: Option<SocketAddr>,
    /// How log lines (on stderr) look: for people, or a JSON object each
    #[arg(long, value_enum, default_value_t, env = "GEMBA_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or levels by module such as `info,gemba_drivers=debug`
    #[arg(long, value_name = "FILTER", default_value = "warn", env = "GEMBA_LOG", value_parser = filter)]
    log: String,
}

const EXAMPLES: &str = "\
Examples:
  gemba demo                               # then open http://127.0.0.1:8080/health
  gemba demo --speed 20 --duration 1m      # twenty minutes of the line in one, and the comparison
  gemba demo --listen 0.0.0.0:8080         # for the tablet on the wall, too

Exit code 1 also says that figures did not agree; which of them is the last that is printed.";

/// The machines' side: that their OPC UA server has no certificate, and that their broker's clients come and go, is meant
/// to be so. A filter that names them still hears them.
const HUSHED: &str = "opcua_server=off,rumqttd=off";

/// Of the agent's own spans: as `traces.sample` is by default, which a test holds it to.
const SAMPLE: f64 = 0.01;

impl Demo {
    /// Runs, compares and prints.
    ///
    /// # Errors
    /// When something does not start or ends by itself; when a second signal comes before the comparison is done.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        heap::share();
        // Goes when this function ends, after every thread that writes into it.
        let folder = tempfile::Builder::new().prefix("gemba-demo-").tempdir().context("a temporary folder")?;
        let options = Options {
            speed: self.speed,
            seed: self.seed,
            duration: self.duration,
            listen: self.listen.unwrap_or(demo::LISTEN),
            or_any_port: self.listen.is_none(),
            folder: folder.path().to_owned(),
            fault: None,
        };
        let filter = format!("{HUSHED},{}", self.log);
        let outcome = serve(self.log_format, &filter, SAMPLE, async |mut signals: Signals, own: Outbox| {
            let stop = CancellationToken::new();
            let mut running = Box::pin(demo::run(&options, own, stop.clone(), |news: News| say(&news)));
            tokio::select! {
                ended = &mut running => return ended,
                signal = signals.next() => info!("{signal}"),
            }
            stop.cancel();
            tokio::select! {
                ended = &mut running => ended,
                signal = signals.next() => bail!("a second {signal}: ended before the figures were compared"),
            }
        })?;
        say(&outcome).context("stdout")?;
        Ok(if outcome.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn say(what: &impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{what}")
}

fn speed(text: &str) -> Result<f64, String> {
    let range = smt::Options::SPEEDS;
    let speed: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if range.contains(&speed) { Ok(speed) } else { Err(format!("it goes from {} to {}", range.start(), range.end())) }
}

fn duration(text: &str) -> Result<Duration, String> {
    // On a command line everybody writes a minute so; in a file it might be a metre.
    let in_full = match text.strip_suffix('m') {
        Some(number) => format!("{number}min"),
        None => text.to_owned(),
    };
    let duration = config::duration(&in_full)?;
    if duration.is_zero() { Err("no time at all".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs_f64());
        for (text, expected) in [("90s", 90.0), ("2m", 120.0), ("2min", 120.0), ("1.5h", 5400.0), ("250ms", 0.25)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["90", "2x", "", "m", "-1s", "0s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_told_as_without_a_word_about_them() {
        let yaml = "
site: a
line: b
timezone: UTC
stations:
  - name: c
    source: { type: modbus, endpoint: tcp://127.0.0.1:502 }
    tags: [{ name: d, address: holding:0, as: u16 }]
";
        let config = config::Config::from_str("line.yaml", yaml).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.trace_sample.to_bits(), SAMPLE.to_bits());
    }

    #[test]
    fn a_speed_is_within_reason() {
        assert_eq!(speed("20"), Ok(20.0));
        for text in ["0", "-1", "1000", "NaN", "inf", "fast"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
