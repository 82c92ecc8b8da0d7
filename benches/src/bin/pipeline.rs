//! Readings a second through line model, spool and OTLP encoding, on one core.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin pipeline
//! ```
//! What the agent does with a reading between the driver and the socket, in its order and with its types: apply to
//! the model, append, commit (with fdatasync), read back, encode, acknowledge.

use std::time::{Duration, Instant};

use clap::Parser;
use gemba::config::Config;
use gemba::model::{Derived, Line};
use gemba::otlp::{Encoder, Resource};
use gemba::spool::{self, Entry, Series, StoredReading};
use gemba_drivers::{Reading, TagId, Time, Value};

/// Readings a second through line model, spool and OTLP encoding, on one core
#[derive(Parser)]
struct Args {
    /// Tags, each read once a second
    #[arg(long, default_value_t = 10_000)]
    tags: u32,
    /// Seconds of readings
    #[arg(long, default_value_t = 200)]
    rounds: u32,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let config = config(args.tags, folder.path())?;
    let series: Vec<Series> = config
        .tags
        .iter()
        .map(|tag| Series {
            station: config.stations[tag.station].name.clone(),
            tag: tag.name.clone(),
            unit: tag.unit.clone(),
            metric: None,
            text: false,
        })
        .collect();
    let spool::Opened { mut writer, mut reader, mut sealer, catalog, ids, .. } =
        spool::open(spool::Settings::new(&config.spool), &series)?;
    let resource = Resource {
        site: "bench".into(),
        line: "pipeline".into(),
        instance_id: "bench".into(),
        host_name: "bench".into(),
        version: "0".into(),
    };
    let mut encoder = Encoder::new(&resource, move |id| catalog.get(id).cloned());
    let mut line = Line::new(&config);
    let mut derived = Derived::default();

    let [mut model, mut store, mut read, mut encode] = [Duration::ZERO; 4];
    let mut bytes = 0;
    for round in 0..args.rounds {
        let at = Time::from_millis(1_772_431_200_000 + i64::from(round) * 1000);
        let readings: Vec<Reading> = (0..args.tags)
            .map(|tag| Reading::good(TagId(tag), Value::Float(f64::from(round) + f64::from(tag) / 8.0), at, at))
            .collect();
        let start = Instant::now();
        line.apply(&readings, &mut derived);
        line.advance(at, &mut derived);
        let applied = Instant::now();
        let stored =
            readings.into_iter().map(|reading| StoredReading::new(ids[reading.tag.index()], reading)).collect();
        let cause = writer.append(&Entry::Readings(stored));
        for record in derived.records.drain(..) {
            writer.append(&Entry::Record { cause: Some(cause), record });
        }
        if round % 30 == 29 {
            writer.checkpoint(cause, &line.checkpoint());
        }
        writer.commit(at)?;
        let committed = Instant::now();
        model += applied - start;
        store += committed - applied;
        loop {
            let start = Instant::now();
            let Some(chunk) = reader.next(10_000)? else { break };
            let got = Instant::now();
            let encoded = encoder.encode(&chunk.entries);
            bytes += encoded.metrics.map_or(0, |payload| payload.body.len());
            let done = Instant::now();
            reader.acknowledge(chunk.last)?;
            read += (got - start) + done.elapsed();
            encode += done - got;
        }
        let start = Instant::now();
        while sealer.work()?.more {}
        store += start.elapsed();
    }
    let count = f64::from(args.tags) * f64::from(args.rounds);
    let all = model + store + read + encode;
    let each = |spent: Duration| spent.as_secs_f64() * 1e9 / count;
    println!("{:.2} M readings/s on one core, {:.0} ns a reading:", count / all.as_secs_f64() / 1e6, each(all));
    println!(
        "  line model {:.0} ns, spool {:.0} ns, reading back {:.0} ns, OTLP {:.0} ns",
        each(model),
        each(store),
        each(read),
        each(encode)
    );
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    println!("  {:.0} B of OTLP a reading before gzip", bytes / count);
    Ok(())
}

/// A station with counters and states, and as many tags as wanted beside them.
fn config(tags: u32, folder: &std::path::Path) -> anyhow::Result<Config> {
    let mut yaml = format!(
        "site: bench\nline: pipeline\ntimezone: UTC\nspool: {{ path: {} }}\nstations:\n  - name: many\n    \
         source: {{ type: modbus, endpoint: \"tcp://127.0.0.1:502\" }}\n    \
         oee: {{ ideal_cycle_time: 1s, state: {{ tag: Tag0, map: {{ 0: producing }} }}, total: {{ tag: Tag1 }} }}\n    tags:\n",
        folder.join("spool").display()
    );
    for tag in 0..tags {
        yaml += &format!("      - {{ name: Tag{tag}, address: \"holding:{tag}\", as: u16, unit: Cel }}\n");
    }
    Ok(Config::from_str("bench.yaml", &yaml)?)
}
