//! Readings a second through the line model, and what a station costs in memory, as lines grow.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin model
//! ```

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use gemba::config::Config;
use gemba::model::{Derived, KPI_EVERY, LATENESS, Line};
use gemba_benches::Usage;
use gemba_drivers::{Reading, TagId, Time, Value};

/// Readings a second through the line model alone, on one core, and memory for a station after a shift
///
/// Each station tells its state, a total, rejects and a product. Every ten seconds all of a station's tags are read, in a batch
/// of their own; every ten seconds figures are told, as the agent has it. A machine stops for 20 s in every five minutes, one
/// part in fifty is a reject, and the product changes every half hour. Making the readings up is not in the time.
///
/// Memory is what is the process's own in RAM (RssAnon, proc(5)) after the shift, less what it was before the line was made;
/// each line has a process of its own. No allocator counts, since that takes unsafe code.
#[derive(Parser)]
struct Args {
    /// Stations of each line, in the order in which they are measured; ratios are to the first
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    stations: Vec<u32>,
    /// How long the shift is, in seconds of the line
    #[arg(long, default_value_t = 28_800)]
    seconds: u32,
    /// How many seconds lie between two readings of a tag
    #[arg(long, default_value_t = 10)]
    every: u32,
    /// One line, and nothing but its figures: what the bench starts for each
    #[arg(long, hide = true)]
    one: Option<u32>,
}

const TAGS: u32 = 4;
/// 2026-03-02T06:00:00Z, where the shift begins.
const SIX: i64 = 1_772_431_200_000;

/// What a line took.
struct Taken {
    readings: f64,
    seconds: f64,
    bytes: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(stations) = args.one {
        let taken = run(stations, &args)?;
        println!("{} {} {}", taken.readings, taken.seconds, taken.bytes);
        return Ok(());
    }
    println!("stations   readings/s   to the first   KiB a station   to the first");
    let mut first: Option<(f64, f64)> = None;
    for &stations in &args.stations {
        let taken = started(stations, &args)?;
        let (rate, each) = (taken.readings / taken.seconds, taken.bytes / f64::from(stations) / 1024.0);
        let (first_rate, first_each) = *first.get_or_insert((rate, each));
        println!("{stations:8} {:9.2} M {:14.2} {each:15.1} {:14.2}", rate / 1e6, rate / first_rate, each / first_each);
    }
    Ok(())
}

/// In a process of its own, so that no line finds the memory of another.
fn started(stations: u32, args: &Args) -> anyhow::Result<Taken> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", &stations.to_string(), "--seconds", &args.seconds.to_string()])
        .args(["--every", &args.every.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [readings, seconds, bytes] = figures.as_slice() else {
        anyhow::bail!("{stations} stations: {}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Taken { readings: *readings, seconds: *seconds, bytes: *bytes })
}

fn run(stations: u32, args: &Args) -> anyhow::Result<Taken> {
    let config = config(stations)?;
    let before = Usage::of(std::process::id())?.own;
    let mut line = Line::new(&config);
    let mut derived = Derived::default();
    let (mut spent, mut readings) = (Duration::ZERO, 0);
    let tick_every = u32::try_from(KPI_EVERY.as_secs()).context("seconds")?;
    for second in (0..args.seconds).step_by(usize::try_from(args.every.max(1))?) {
        let now = Time::from_millis(SIX + i64::from(second) * 1000);
        let batches: Vec<Vec<Reading>> = (0..stations).map(|station| told(station, second, now)).collect();
        readings += u64::from(stations) * u64::from(TAGS);
        let start = Instant::now();
        for batch in &batches {
            line.apply(batch, &mut derived);
        }
        if second % tick_every == 0 {
            line.advance(now + LATENESS, &mut derived);
        }
        spent += start.elapsed();
        derived.records.clear();
        derived.closed.clear();
    }
    let own = Usage::of(std::process::id())?.own;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (readings, bytes) = (readings as f64, own.saturating_sub(before) as f64);
    Ok(Taken { readings, seconds: spent.as_secs_f64(), bytes })
}

/// What a station tells at a second; no two at the same pace.
fn told(station: u32, second: u32, now: Time) -> Vec<Reading> {
    let at = second + station * 7;
    let state = if at % 300 < 20 { 5 } else { 1 };
    let made = at / 300 * 280 + (at % 300).saturating_sub(20);
    let good = |tag, value| Reading::good(TagId(station * TAGS + tag), Value::Int(i64::from(value)), now, now);
    vec![good(0, state), good(1, made), good(2, made / 50), good(3, at / 1800 % 3 + 1)]
}

fn config(stations: u32) -> anyhow::Result<Config> {
    let mut yaml = "site: bench\nline: model\ntimezone: UTC\n\
                    shifts: [{ name: early, start: \"06:00\", end: \"14:00\", breaks: [{ start: \"10:00\", end: \"10:30\" }] }]\n\
                    products: [{ name: \"1\", ideal_cycle_time: 1s }, { name: \"2\", ideal_cycle_time: 1.1s }]\nstations:\n"
        .to_owned();
    for station in 0..stations {
        yaml += &format!(
            "  - name: s{station}\n    source: {{ type: modbus, endpoint: \"tcp://10.{}.{}.1:502\" }}\n    \
             context: {{ product: {{ tag: product }} }}\n    \
             oee: {{ ideal_cycle_time: 1s, micro_stops: {{ limit: 1min }}, \
             state: {{ tag: state, map: {{ 1: producing, 5: down }} }}, total: {{ tag: total }}, reject: {{ tag: reject }} }}\n    \
             tags:\n      - {{ name: state, address: \"holding:0\", as: u16 }}\n      \
             - {{ name: total, address: \"holding:1\", as: u32 }}\n      - {{ name: reject, address: \"holding:3\", as: u32 }}\n      \
             - {{ name: product, address: \"holding:5\", as: u16 }}\n",
            station / 256,
            station % 256
        );
    }
    Ok(Config::from_str("bench.yaml", &yaml)?)
}
