//! What `gemba run` costs, as a process of its own, against servers in this one.
//!
//! ```text
//! cargo build --release -p gemba
//! cargo run --release -p gemba-benches --bin load -- line
//! cargo run --release -p gemba-benches --bin load -- opcua
//! cargo run --release -p gemba-benches --bin load -- modbus
//! ```
//! Build gemba first and alone: together with this package it would carry the simulators.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use gemba_benches::upstream::{Upstream, number};
use gemba_benches::{Usage, against, mib};
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::{Time, Value};
use gemba_tests::line::{Line, OVEN};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What `gemba run` costs a gateway: CPU, memory, disk and traffic
///
/// Starts protocol servers and an OTLP receiver in this process, and the agent as a process of its own with its spool on,
/// so that what is measured is the agent alone: the kernel's account of all its threads. Every value that the servers
/// gave must have come upstream, once and in order; otherwise there are no figures but an error.
#[derive(Parser)]
#[command(after_help = "\
What the figures mean:
  CPU              user and system time of the agent, as a share of one core and for each reading that came upstream
  resident memory  RSS at the end, its own part (the rest is pages of the executable), and the highest RSS ever
  written          bytes that went to the disk, for each reading
  sent             bytes of gzipped OTLP, for each reading

Build gemba first, and alone: `cargo build --release -p gemba`.
Absolute figures depend on the machine; compare only what ran on the same one, and close the browser.")]
struct Args {
    /// What is read
    #[arg(value_enum)]
    load: Load,
    /// Tags, each read once a second (opcua, modbus)
    #[arg(long, default_value_t = 10_000)]
    tags: u16,
    /// How long to look, after the warm-up
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long to let it settle first
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// The binary
    #[arg(long, default_value = "target/release/gemba")]
    gemba: PathBuf,
    /// Where the spool lies; a temporary folder if not said. What a commit costs is up to this disk
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// The reference line: three stations over three protocols, eleven tags
    Line,
    /// One OPC UA server, all of whose nodes change each second
    Opcua,
    /// One Modbus server whose registers are polled each second
    Modbus,
}

impl Load {
    /// Microseconds of CPU a reading: a tenth of what Telegraf takes for the same, without a spool.
    fn aim(self) -> Option<f64> {
        match self {
            Self::Line => None,
            Self::Opcua => Some(1.3),
            Self::Modbus => Some(0.8),
        }
    }

    /// MiB.
    fn room(self) -> f64 {
        if self == Self::Line { 15.0 } else { 20.0 }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.gemba.exists(), "no {}: build it first with `cargo build --release -p gemba`", args.gemba.display());
    let temporary = tempfile::tempdir()?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    let rounds = Arc::new(Rounds::default());
    let first_poll = OnceLock::new();
    let (upstream, endpoint) = Upstream::start(match args.load {
        Load::Line => None,
        Load::Opcua => Some(Box::new(|point| round_of(number(point)))),
        // Polls are a second apart, give or take what the machine is late.
        Load::Modbus => Some(Box::new(move |point| {
            let first = *first_poll.get_or_init(|| point.time_unix_nano - 500_000_000);
            point.time_unix_nano.saturating_sub(first) / 1_000_000_000 + 1
        })),
    })
    .await?;
    let head = format!(
        "site: bench\nline: load\ntimezone: UTC\nhttp: {{ listen: \"127.0.0.1:0\" }}\n\
         upstream: {{ otlp: {{ endpoint: \"{endpoint}\" }} }}\nspool: {{ path: {} }}\nstations:\n",
        folder.join("spool").display()
    );
    let yaml = match args.load {
        Load::Line => reference_line(folder, &endpoint).await,
        Load::Opcua => head + &opcua(args.tags, rounds.clone()).await?,
        Load::Modbus => head + &modbus(args.tags).await?,
    };
    let file = folder.join("line.yaml");
    std::fs::write(&file, yaml)?;
    let mut gemba = Running::start(&args.gemba, &file)?;

    sleep(Duration::from_secs(args.warm_up)).await;
    let (before, had, since) = (gemba.usage()?, upstream.seen(), Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, has, took) = (gemba.usage()?, upstream.seen(), since.elapsed().as_secs_f64());

    // Nothing new from here on; then what is under way must arrive.
    rounds.over.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    gemba.stop()?;
    let all = upstream.seen();
    ensure!(has.readings > had.readings, "nothing came upstream");
    ensure!(all.losses == 0, "the agent says that it lost something");
    if args.load != Load::Line {
        ensure!(all.tags() == usize::from(args.tags), "only {} of {} tags came upstream", all.tags(), args.tags);
        ensure!(all.bad == 0, "{} readings are bad", all.bad);
        ensure!(all.missing == 0, "{} readings never came", all.missing);
        ensure!(all.repeated == 0, "{} readings came twice", all.repeated);
    }
    if args.load == Load::Opcua {
        let given = rounds.given.load(Ordering::Relaxed);
        ensure!(all.behind() == Some(given), "of {given} rounds came {:?}", all.behind());
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = |from: u64, to: u64| (to - from) as f64 / (has.readings - had.readings) as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let micros = cpu * 1e6 * each(0, 1);
    let readings = has.readings - had.readings;
    println!("readings         {readings} upstream in {took:.1} s, {:.0} /s, none lost", 1.0 / each(0, 1) / took);
    println!(
        "CPU              {:.2} % of a core, {micros:.2} us a reading{}",
        cpu / took * 100.0,
        args.load.aim().map(|aim| format!(" ({})", against(micros, aim))).unwrap_or_default()
    );
    let resident = mib(after.resident);
    println!(
        "resident memory  {resident:.1} MiB ({}), {:.1} MiB of it its own, {:.1} MiB at most",
        against(resident, args.load.room()),
        mib(after.own),
        mib(after.peak)
    );
    println!("written          {:.1} B a reading", each(before.written, after.written));
    println!(
        "sent             {:.1} B a reading, {:.1} requests/s",
        each(had.wire, has.wire),
        each(had.requests, has.requests) / each(0, 1) / took
    );
    Ok(())
}

/// The agent. Killed at the end, if it was not stopped.
struct Running(Child);

impl Running {
    fn start(gemba: &Path, config: &Path) -> anyhow::Result<Self> {
        let child = Command::new(gemba).arg("run").arg("--config").arg(config).stderr(Stdio::inherit()).spawn();
        Ok(Self(child.with_context(|| gemba.display().to_string())?))
    }

    fn usage(&mut self) -> anyhow::Result<Usage> {
        if let Some(status) = self.0.try_wait()? {
            bail!("gemba ended: {status}");
        }
        Usage::of(self.0.id())
    }

    /// Ends it as the system does, so that it sends what it has.
    fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status()?;
        let status = self.0.wait()?;
        ensure!(status.success(), "gemba ended: {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn reference_line(folder: &Path, upstream: &str) -> String {
    let line = Line::start().await;
    let yaml = line.config(folder).replace(&line.receiver.endpoint(), upstream);
    tokio::spawn(async move {
        let mut oven = line.oven();
        let mut seconds = interval(Duration::from_secs(1));
        for count in 0u32.. {
            seconds.tick().await;
            let real = f64::from(count);
            line.print(1, count, count / 50, 42.0);
            line.inspect("Execute", count, count / 40, real.sin(), Time::now());
            let payload =
                format!(r#"{{"state":"running","count":{count},"zones":[{{"temp":{}}}]}}"#, 240.0 + real.cos());
            let _ = oven.publish(OVEN, payload).await;
        }
    });
    yaml
}

/// The rounds of values that the OPC UA server was given.
#[derive(Default)]
struct Rounds {
    given: AtomicU64,
    /// There shall be no more.
    over: AtomicBool,
}

/// Each node's value says which round it is of, and which node it is: rounds are `STEP` apart.
const STEP: f64 = 65_536.0;

/// The round that a value is of.
fn round_of(value: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let round = (value / STEP) as u64;
    round
}

async fn opcua(tags: u16, rounds: Arc<Rounds>) -> anyhow::Result<String> {
    let nodes = (0..tags).map(|tag| (format!("Tag{tag}"), f64::from(tag)));
    let server = OpcuaServer::start("urn:bench", nodes).await?;
    let mut yaml = format!(
        "  - name: many\n    source: {{ type: opcua, endpoint: \"{}\", security: none, publish: 1s }}\n    tags:\n",
        server.endpoint()
    );
    for tag in 0..tags {
        writeln!(yaml, "      - {{ name: Tag{tag}, node: \"nsu=urn:bench;s=Tag{tag}\", unit: Cel }}")?;
    }
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 1u32.. {
            seconds.tick().await;
            if rounds.over.load(Ordering::Relaxed) {
                return std::future::pending().await; // the server stays
            }
            let value = |tag: u16| (usize::from(tag), Value::Float(f64::from(round) * STEP + f64::from(tag)));
            server.set_values((0..tags).map(value), Time::now());
            rounds.given.store(round.into(), Ordering::Relaxed);
        }
    });
    Ok(yaml)
}

async fn modbus(tags: u16) -> anyhow::Result<String> {
    let server = ModbusServer::start().await.context("a Modbus server")?;
    let fill = move |round: u16| (0..tags).map(|tag| tag.wrapping_add(round)).collect::<Vec<_>>();
    server.set_holding(1, 0, &fill(0));
    let mut yaml = format!(
        "  - name: many\n    source: {{ type: modbus, endpoint: \"{}\", unit: 1, poll: 1s }}\n    tags:\n",
        server.endpoint()
    );
    for tag in 0..tags {
        writeln!(yaml, "      - {{ name: Tag{tag}, address: \"holding:{tag}\", as: u16, unit: Cel }}")?;
    }
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 0u16.. {
            seconds.tick().await;
            server.set_holding(1, 0, &fill(round));
        }
    });
    Ok(yaml)
}
