//! What `gemba run` costs, as a process of its own, against servers in this one.
//!
//! ```text
//! cargo build --release -p gemba --no-default-features
//! cargo run --release -p gemba-benches --bin load -- line
//! cargo run --release -p gemba-benches --bin load -- demo
//! cargo run --release -p gemba-benches --bin load -- opcua
//! cargo run --release -p gemba-benches --bin load -- opcua --tags 5000 --every 250ms
//! cargo run --release -p gemba-benches --bin load -- modbus
//! cargo run --release -p gemba-benches --bin load -- modbus --telegraf "$(benches/telegraf/build)"
//! ```
//! Build gemba first, alone and without its demo: it must not carry the simulators.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::{Parser, ValueEnum};
use gemba_benches::process::Running;
use gemba_benches::served::{self, NAMESPACE, Rounds, round_of};
use gemba_benches::upstream::{Beat, Upstream};
use gemba_benches::{against, demo, gemba, mib, telegraf};
use gemba_drivers::Time;
use gemba_tests::line::{Line, OVEN};
use tokio::time::{interval, sleep};

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

Build gemba first, as a gateway has it: `cargo build --release -p gemba --no-default-features`.
Absolute figures depend on the machine; compare only what ran on the same one, and close the browser.")]
struct Args {
    /// What is read
    #[arg(value_enum)]
    load: Load,
    /// Tags (opcua, modbus)
    #[arg(long, default_value_t = 10_000)]
    tags: u16,
    /// How often each tag changes and is read (opcua, modbus); gemba only
    #[arg(long, default_value = "1s", value_parser = ::gemba::config::duration)]
    every: Duration,
    /// How long to look, after the warm-up
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long to let it settle first
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// The binary
    #[arg(long, default_value = "target/release/gemba")]
    gemba: PathBuf,
    /// Telegraf instead of gemba: its binary (benches/telegraf/build makes one)
    #[arg(long, value_name = "BINARY")]
    telegraf: Option<PathBuf>,
    /// How gemba speaks to upstream (opcua, modbus)
    #[arg(long, default_value = "http", value_parser = ["http", "grpc"])]
    protocol: String,
    /// Where the spool lies; a temporary folder if not said. What a commit costs is up to this disk
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// The reference line: three stations over three protocols, eleven tags
    Line,
    /// The line of `gemba demo`: the same protocols, 22 tags, polled ten times a second or told as they change
    Demo,
    /// One OPC UA server, all of whose nodes change as often as is said
    Opcua,
    /// One Modbus server whose registers are polled so often
    Modbus,
}

impl Load {
    /// Microseconds of CPU a reading: a tenth of what Telegraf takes for the same, without a spool.
    fn aim(self) -> Option<f64> {
        match self {
            Self::Line | Self::Demo => None,
            Self::Opcua => Some(1.3),
            Self::Modbus => Some(0.8),
        }
    }

    /// MiB.
    fn room(self) -> f64 {
        if matches!(self, Self::Line | Self::Demo) { 15.0 } else { 20.0 }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let agent = args.telegraf.as_ref().unwrap_or(&args.gemba);
    ensure!(agent.exists(), "no {}: build it first", agent.display());
    let second = args.every == Duration::from_secs(1);
    ensure!(second || args.telegraf.is_none(), "Telegraf is compared at one reading a second");
    let temporary = tempfile::tempdir()?;
    let folder = args.folder.as_deref().unwrap_or(temporary.path());
    let rounds = Arc::new(Rounds::default());
    let (upstream, endpoint) = upstream(&args).await?;
    let mut running = Running::start(match &args.telegraf {
        Some(telegraf) => telegraf::command(telegraf, &telegraf_config(&args, folder, &endpoint, &rounds).await?),
        None => gemba::command(&args.gemba, &gemba_config(&args, folder, &endpoint, &rounds).await?),
    })?;

    sleep(Duration::from_secs(args.warm_up)).await;
    let (before, had, since) = (running.usage()?, upstream.seen(), Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, has, took) = (running.usage()?, upstream.seen(), since.elapsed().as_secs_f64());

    // Nothing new from here on; then what is under way must arrive.
    rounds.end();
    sleep(Duration::from_secs(2)).await;
    running.stop()?;
    let all = upstream.seen();
    ensure!(has.readings > had.readings, "nothing came upstream");
    ensure!(all.losses == 0, "the agent says that it lost something");
    if matches!(args.load, Load::Opcua | Load::Modbus) {
        ensure!(all.tags() == usize::from(args.tags), "only {} of {} tags came upstream", all.tags(), args.tags);
        ensure!(all.bad == 0, "{} readings are bad", all.bad);
        // Telegraf tells Modbus times by the second, which moves a reading into the round of its neighbour.
        if args.telegraf.is_none() {
            ensure!(all.missing == 0, "{} readings never came", all.missing);
            ensure!(all.repeated == 0, "{} readings came twice", all.repeated);
        }
    }
    if args.load == Load::Opcua && args.telegraf.is_none() {
        let given = rounds.given();
        ensure!(all.behind() == Some(given), "of {given} rounds came {:?}", all.behind());
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = |from: u64, to: u64| (to - from) as f64 / (has.readings - had.readings) as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let micros = cpu * 1e6 * each(0, 1);
    let readings = has.readings - had.readings;
    let aim = |figure: f64, aim: Option<f64>| match aim.filter(|_| args.telegraf.is_none()) {
        Some(aim) => format!(" ({})", against(figure, aim)),
        None => String::new(),
    };
    println!("readings         {readings} upstream in {took:.1} s, {:.0} /s", 1.0 / each(0, 1) / took);
    match args.telegraf {
        None => println!("lost             none"),
        Some(_) => println!("lost             {} left out or moved, {} repeated", all.missing, all.repeated),
    }
    println!(
        "CPU              {:.2} % of a core, {micros:.2} us a reading{}",
        cpu / took * 100.0,
        aim(micros, args.load.aim())
    );
    let resident = mib(after.resident);
    println!(
        "resident memory  {resident:.1} MiB{}, {:.1} MiB of it its own, {:.1} MiB at most",
        aim(resident, Some(args.load.room())),
        mib(after.own),
        mib(after.peak)
    );
    println!("written          {:.1} B a reading", each(before.written, after.written));
    if args.telegraf.is_none() {
        println!(
            "sent             {:.1} B a reading, {:.1} requests/s",
            each(had.wire, has.wire),
            each(had.requests, has.requests) / each(0, 1) / took
        );
    }
    Ok(())
}

/// The receiver, and its URL. Telegraf knows only gRPC.
async fn upstream(args: &Args) -> anyhow::Result<(Upstream, String)> {
    let first_poll = OnceLock::new();
    let beat: Option<Beat> = match args.load {
        Load::Line | Load::Demo => None,
        Load::Opcua => Some(Box::new(round_of)),
        // Polls are so far apart, give or take what the machine is late.
        Load::Modbus => {
            let apart = u64::try_from(args.every.as_nanos())?;
            Some(Box::new(move |point| {
                let first = *first_poll.get_or_init(|| point.time_unix_nano - apart / 2);
                point.time_unix_nano.saturating_sub(first) / apart + 1
            }))
        }
    };
    let tags = match (&args.telegraf, args.load) {
        (None, _) | (_, Load::Line | Load::Demo) => "factory.tag.",
        (_, Load::Opcua) => telegraf::OPCUA_METRICS,
        (_, Load::Modbus) => telegraf::MODBUS_METRICS,
    };
    Upstream::start(tags, beat).await
}

async fn gemba_config(args: &Args, folder: &Path, upstream: &str, rounds: &Arc<Rounds>) -> anyhow::Result<PathBuf> {
    let file = folder.join("line.yaml");
    let every = format!("{}ms", args.every.as_millis());
    let (source, place): (_, fn(u16) -> String) = match args.load {
        Load::Line => {
            std::fs::write(&file, reference_line(folder, upstream).await)?;
            return Ok(file);
        }
        Load::Demo => {
            demo::line(folder, upstream, SocketAddr::from(([127, 0, 0, 1], 0))).await?.forever();
            return Ok(file);
        }
        Load::Opcua => {
            let endpoint = served::opcua(args.tags, args.every, rounds.clone()).await?;
            let source = format!("type: opcua, endpoint: \"{endpoint}\", security: none, publish: {every}");
            (source, |tag| format!("node: \"nsu={NAMESPACE};s=Tag{tag}\""))
        }
        Load::Modbus => {
            let endpoint = served::modbus(args.tags, args.every).await?;
            let source = format!("type: modbus, endpoint: \"{endpoint}\", unit: 1, poll: {every}");
            (source, |tag| format!("address: \"holding:{tag}\", as: u16"))
        }
    };
    let mut yaml = format!(
        "site: bench\nline: load\ntimezone: UTC\nhttp: {{ listen: \"127.0.0.1:0\" }}\n\
         upstream: {{ otlp: {{ endpoint: \"{upstream}\", protocol: {}{} }} }}\nspool: {{ path: {} }}\nstations:\n  \
         - name: many\n    source: {{ {source} }}\n    tags:\n",
        args.protocol,
        if args.protocol == "grpc" { ", signals: [metrics]" } else { "" }, // the receiver knows no other service
        folder.join("spool").display()
    );
    for tag in 0..args.tags {
        writeln!(yaml, "      - {{ name: Tag{tag}, {}, unit: Cel }}", place(tag))?;
    }
    std::fs::write(&file, yaml)?;
    Ok(file)
}

async fn telegraf_config(args: &Args, folder: &Path, upstream: &str, rounds: &Arc<Rounds>) -> anyhow::Result<PathBuf> {
    let toml = match args.load {
        Load::Line | Load::Demo => bail!("Telegraf computes no line: compare `opcua` or `modbus`"),
        Load::Opcua => {
            telegraf::opcua(&served::opcua(args.tags, args.every, rounds.clone()).await?, args.tags, upstream)
        }
        Load::Modbus => telegraf::modbus(&served::modbus(args.tags, args.every).await?, args.tags, upstream),
    };
    let file = folder.join("telegraf.conf");
    std::fs::write(&file, toml)?;
    Ok(file)
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
