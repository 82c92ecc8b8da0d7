//! Readings a second through line model, spool and OTLP encoding, on one core.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin pipeline
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use gemba::config::Config;
use gemba::model::{Derived, Line};
use gemba::otlp::{Encoder, Resource};
use gemba::spool::{self, Entry, Series, StoredReading};
use gemba_drivers::{Reading, TagId, Time, Value};

/// Readings a second through line model, spool and OTLP encoding, on one core
///
/// What the agent does with a reading between driver and socket, in its order and with its code, on a single thread:
/// apply to the model, append, commit (with fdatasync), read back, encode, acknowledge, keep house. What the core does
/// and what the disk does stand apart: a commit waits for the disk on a thread that has nothing else to do. Compressing
/// is not in the sum, since a collector nearby can do without.
#[derive(Parser)]
struct Args {
    /// Tags, each read once a second
    #[arg(long, default_value_t = 10_000)]
    tags: u32,
    /// Seconds of readings a run
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Where the spool lies; a temporary folder if not said
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// Readings a second.
const AIM: f64 = 1e6;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut runs = Vec::new();
    for _ in 0..args.runs.max(1) {
        runs.push(run(&args)?);
    }
    runs.sort_by_key(Spent::core);
    let count = f64::from(args.tags) * f64::from(args.rounds);
    let rate = |run: &Spent| count / run.core().as_secs_f64() / 1e6;
    let each = |spent: Duration| spent.as_secs_f64() * 1e9 / count;
    let median = &runs[runs.len() / 2];
    let aim = if rate(median) * 1e6 > AIM { "met" } else { "missed" };
    println!(
        "{:.2} M readings/s on one core (aim 1: {aim}); {} runs: {:.2} to {:.2}",
        rate(median),
        runs.len(),
        rate(&runs[runs.len() - 1]),
        rate(&runs[0])
    );
    for (what, spent) in [
        ("a reading, of it", median.core()),
        ("  line model", median.model),
        ("  into the spool", median.store),
        ("  out of the spool", median.read),
        ("  OTLP encoding", median.encode),
        ("beside it: the disk (write, fdatasync, removal of journals)", median.disk),
        ("beside it: gzip, level 1", median.gzip),
    ] {
        println!("{:5.0} ns {what}", each(spent));
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = |bytes: usize| bytes as f64 / count;
    println!("{:5.1} B of OTLP a reading, {:.1} B gzipped", bytes(median.plain), bytes(median.packed));
    Ok(())
}

/// Where the time went.
#[derive(Default)]
struct Spent {
    model: Duration,
    store: Duration,
    disk: Duration,
    read: Duration,
    encode: Duration,
    gzip: Duration,
    /// Bytes of OTLP.
    plain: usize,
    /// The same, gzipped.
    packed: usize,
}

impl Spent {
    /// What the core has to do.
    fn core(&self) -> Duration {
        self.model + self.store + self.read + self.encode
    }
}

fn run(args: &Args) -> anyhow::Result<Spent> {
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let config = config(args.tags, folder.path())?;
    let series = Series::all(&config);
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

    let mut spent = Spent::default();
    let mut points = 0;
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
        let appended = Instant::now();
        writer.commit(at)?;
        spent.disk += appended.elapsed();
        spent.model += applied - start;
        spent.store += appended - applied;
        loop {
            let start = Instant::now();
            let Some(chunk) = reader.next(10_000)? else { break };
            let got = Instant::now();
            let encoded = encoder.encode(&chunk.entries);
            let done = Instant::now();
            points += chunk.readings;
            drop(chunk.entries);
            reader.acknowledge(chunk.last)?;
            spent.read += (got - start) + done.elapsed();
            spent.encode += done - got;
            if let Some(payload) = encoded.metrics {
                let start = Instant::now();
                let mut gzip = GzEncoder::new(Vec::with_capacity(payload.body.len() / 8), Compression::fast());
                gzip.write_all(&payload.body)?;
                spent.packed += gzip.finish()?.len();
                spent.gzip += start.elapsed();
                spent.plain += payload.body.len();
            }
        }
        let start = Instant::now();
        while sealer.work()?.more {}
        spent.disk += start.elapsed();
    }
    let given = args.tags as usize * args.rounds as usize;
    anyhow::ensure!(points == given, "{points} of {given} readings came out");
    Ok(spent)
}

/// A station with counters and states, and as many tags as wanted beside them.
fn config(tags: u32, folder: &Path) -> anyhow::Result<Config> {
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
