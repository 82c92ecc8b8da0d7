//! How fast Modbus is asked, and how often it has to be.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin modbus
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gemba::config::Config;
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::{Driver, LinkState, Outlet, Time};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_modbus::client::{Reader, tcp};

/// Modbus requests: how many a second against what the loop-back gives, and how many for scattered registers
///
/// Server, bare client and driver share this process and one connection at a time, one request in flight.
#[derive(Parser)]
struct Args {
    /// How many registers are scattered
    #[arg(long, default_value_t = 1_000)]
    registers: usize,
    /// Over how many, from 0 on
    #[arg(long, default_value_t = 20_000)]
    over: u16,
    /// How long each is asked, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// In turns, so often
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Decides where the registers lie
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The driver's max_gap, if not its default
    #[arg(long)]
    max_gap: Option<u16>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.registers <= usize::from(args.over), "more registers than there are places for them");
    let server = ModbusServer::start().await.context("a Modbus server")?;
    server.set_holding(1, 0, &vec![7; usize::from(args.over) + 200]);

    let scattered = scattered(&args);
    let asked = one_poll(&server, &scattered, args.max_gap).await?;
    let of = scattered.len();
    println!("scattered        {of} registers over {}: {asked} requests a poll, one each would be {of}", args.over);

    // Far apart, so that each is a request of its own.
    let apart: Vec<u16> = (0..100).map(|at| at * 200).filter(|at| *at < args.over).collect();
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        bare.push(bare_requests(&server, args.seconds).await?);
        ours.push(driver_requests(&server, &apart, args.seconds).await?);
    }
    let (bare, ours) = (median(bare), median(ours));
    println!(
        "requests         {ours:.0} /s by the driver, {bare:.0} /s by a client that does nothing else: {:.2} of it",
        ours / bare
    );
    Ok(())
}

/// Where they lie, in order.
fn scattered(args: &Args) -> Vec<u16> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let mut places = BTreeSet::new();
    while places.len() < args.registers {
        #[expect(clippy::cast_possible_truncation, reason = "below `over`")]
        places.insert((random.next_u32() % u32::from(args.over)) as u16);
    }
    places.into_iter().collect()
}

/// How many requests one poll of `registers` takes.
async fn one_poll(server: &ModbusServer, registers: &[u16], max_gap: Option<u16>) -> anyhow::Result<u64> {
    let gap = max_gap.map(|gap| format!(", max_gap: {gap}")).unwrap_or_default();
    let before = server.reads();
    let mut polled = Polled::start(server, registers, &format!("poll: 1h{gap}")).await?;
    let mut seen = 0;
    while seen < registers.len() {
        seen += polled.next().await?;
    }
    Ok(server.reads() - before)
}

/// How many a second the driver makes when each poll is due before the last one is over.
async fn driver_requests(server: &ModbusServer, registers: &[u16], seconds: u64) -> anyhow::Result<f64> {
    let mut polled = Polled::start(server, registers, "poll: 10ms").await?;
    polled.next().await?;
    let (before, since) = (server.reads(), Instant::now());
    while since.elapsed() < Duration::from_secs(seconds) {
        polled.next().await?;
    }
    Ok(rate(server.reads() - before, since))
}

/// How many a second tokio-modbus makes, one register each.
async fn bare_requests(server: &ModbusServer, seconds: u64) -> anyhow::Result<f64> {
    let stream = TcpStream::connect(server.addr()).await?;
    stream.set_nodelay(true)?;
    let mut client = tcp::attach_slave(stream, tokio_modbus::Slave(1));
    let (mut count, since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(seconds) {
        let words = client.read_holding_registers(count as u16 % 100, 1).await??;
        ensure!(words == [7], "{words:?}");
        count += 1;
    }
    Ok(rate(count, since))
}

/// A driver at work.
struct Polled {
    batches: mpsc::Receiver<gemba_drivers::Batch>,
    task: tokio::task::JoinHandle<()>,
}

impl Polled {
    async fn start(server: &ModbusServer, registers: &[u16], options: &str) -> anyhow::Result<Self> {
        let mut yaml = format!(
            "site: bench\nline: modbus\ntimezone: UTC\nstations:\n  - name: many\n    \
             source: {{ type: modbus, endpoint: \"{}\", unit: 1, {options} }}\n    tags:\n",
            server.endpoint()
        );
        for register in registers {
            writeln!(yaml, "      - {{ name: r{register}, address: \"holding:{register}\", as: u16 }}")?;
        }
        let config = Config::from_str("bench.yaml", &yaml)?;
        let mut driver = config.links[0].source.clone().driver();
        driver.connect().await?;
        let (to, batches) = mpsc::channel(16);
        let outlet = Outlet::new(to, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
        let task = tokio::spawn(async move {
            let ended = driver.run(&outlet).await;
            eprintln!("the driver ended: {ended}");
        });
        Ok(Self { batches, task })
    }

    /// How many good readings came next.
    async fn next(&mut self) -> anyhow::Result<usize> {
        let batch = self.batches.recv().await.context("the driver ended")?;
        let bad = batch.readings.iter().filter(|reading| reading.validity.is_bad()).count();
        ensure!(bad == 0, "{bad} readings are bad");
        Ok(batch.readings.len())
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
