//! What open pages cost the drivers: nothing that can be measured, and this measures it.
//!
//! ```text
//! cargo build --release -p gemba --no-default-features
//! cargo run --release -p gemba-benches --bin pages
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use gemba_benches::process::Running;
use gemba_benches::upstream::Upstream;
use gemba_benches::{demo, gemba, mib};
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// What open pages cost: the demo line, in turns without a page and with many
///
/// Runs the simulated line in this process and the agent in one of its own. Each page loads /health and then follows
/// /events, as a browser does. How punctual the drivers are is taken from what came upstream: the times of the printer's
/// polls, 100 ms apart.
#[derive(Parser)]
#[command(after_help = "\
What the figures mean, each the median of the rounds:
  polls            of the printer that came upstream, a second; 10 would be all of them
  apart            how far the time between two polls is from 100 ms: at half of them, at 99 of 100, at worst
  CPU              of the agent, as a share of one core
  events           server-sent events, a page and second")]
struct Args {
    /// How many pages are open
    #[arg(long, default_value_t = 50)]
    pages: usize,
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long, each time
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The binary
    #[arg(long, default_value = "target/release/gemba")]
    gemba: PathBuf,
}

/// The printer's poll.
const POLL: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.gemba.exists(), "no {}: build it first", args.gemba.display());
    let folder = tempfile::tempdir()?;
    let polls = Arc::new(Polls::default());
    let seen = polls.clone();
    let beat = Box::new(move |point: &NumberDataPoint| seen.note(point));
    // Only this tag: each poll of the printer has one of it.
    let (upstream, endpoint) = Upstream::start("factory.tag.squeegee_pressure", Some(beat)).await?;
    let page = free_port().await?;
    let _line = demo::line(folder.path(), &endpoint, page).await?;
    let page = page.to_string();
    let mut agent = Running::start(gemba::command(&args.gemba, &folder.path().join("line.yaml")))?;
    timeout(Duration::from_secs(30), async {
        while upstream.seen().readings < 10 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .context("nothing comes upstream")?;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let Args { pages, rounds, seconds, .. } = args;
        eprintln!("round {round} of {rounds}: {seconds} s without a page, {seconds} s with {pages}");
        without.push(measure(&args, 0, &page, &mut agent, &polls).await?);
        with.push(measure(&args, args.pages, &page, &mut agent, &polls).await?);
    }
    let resident = mib(agent.usage()?.resident);
    agent.stop()?;
    ensure!(upstream.seen().losses == 0, "the agent says that it lost something");
    println!("                 no page     {} pages", args.pages);
    let line = |name: &str, unit: &str, figure: fn(&Figures) -> f64| {
        println!("{name:<15}{:>9.2}{:>13.2}  {unit}", median(&without, figure), median(&with, figure));
    };
    line("polls", "/s", |of| of.polls);
    line("apart, half", "ms from 100", |of| of.half);
    line("apart, 99 %", "ms from 100", |of| of.most);
    line("apart, worst", "ms from 100", |of| of.worst);
    line("CPU", "% of a core", |of| of.cpu);
    line("events", "a page and second", |of| of.events);
    println!("resident memory {resident:.1} MiB at the end");
    Ok(())
}

/// One turn.
struct Figures {
    polls: f64,
    half: f64,
    most: f64,
    worst: f64,
    cpu: f64,
    events: f64,
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
async fn measure(args: &Args, pages: usize, page: &str, agent: &mut Running, polls: &Polls) -> anyhow::Result<Figures> {
    let events = Arc::new(AtomicU64::new(0));
    let mut open = JoinSet::new();
    for _ in 0..pages {
        let (page, events) = (page.to_owned(), events.clone());
        open.spawn(async move { look(&page, &events).await });
    }
    sleep(Duration::from_secs(2)).await; // they load, and what was under way comes upstream
    polls.take();
    events.store(0, Ordering::Relaxed);
    let (before, since) = (agent.usage()?, Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, took) = (agent.usage()?, since.elapsed().as_secs_f64());
    let times = polls.take();
    if let Some(gone) = open.try_join_next() {
        gone?.context("a page")?;
        anyhow::bail!("a page was closed by the agent");
    }
    let mut apart: Vec<f64> = times.windows(2).map(|two| off(two[1] - two[0])).collect();
    ensure!(!apart.is_empty(), "no poll came upstream");
    apart.sort_by(f64::total_cmp);
    Ok(Figures {
        polls: times.len() as f64 / took,
        half: apart[apart.len() / 2],
        most: apart[apart.len() * 99 / 100],
        worst: apart[apart.len() - 1],
        cpu: (after.cpu - before.cpu).as_secs_f64() / took * 100.0,
        events: events.load(Ordering::Relaxed) as f64 / took / pages.max(1) as f64,
    })
}

/// How far two polls are from where they should be, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn off(nanos: u64) -> f64 {
    (nanos as f64 - POLL.as_nanos() as f64).abs() / 1e6
}

fn median(figures: &[Figures], figure: fn(&Figures) -> f64) -> f64 {
    let mut all: Vec<f64> = figures.iter().map(figure).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// When the printer was polled, in nanoseconds since 1970.
#[derive(Default)]
struct Polls(Mutex<Vec<u64>>);

impl Polls {
    fn note(&self, point: &NumberDataPoint) -> u64 {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.push(point.time_unix_nano);
        times.len() as u64
    }

    fn take(&self) -> Vec<u64> {
        let mut times = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        times.sort_unstable();
        times
    }
}

/// A page, as long as it is open: the HTML, then its changes.
async fn look(page: &str, events: &AtomicU64) -> anyhow::Result<()> {
    let mut html = TcpStream::connect(page).await?;
    html.write_all(request(page, "/health", "text/html").as_bytes()).await?;
    let mut text = Vec::new();
    html.read_to_end(&mut text).await?;
    ensure!(text.starts_with(b"HTTP/1.1 200"), "no page: {}", String::from_utf8_lossy(&text[..text.len().min(80)]));
    let mut stream = TcpStream::connect(page).await?;
    stream.write_all(request(page, "/events?as=html", "text/event-stream").as_bytes()).await?;
    let mut bytes = [0; 64 << 10];
    let mut before = 0;
    loop {
        let count = stream.read(&mut bytes).await?;
        ensure!(count > 0, "the stream ended");
        // An event ends with an empty line, which may come in two pieces.
        for &byte in &bytes[..count] {
            if byte == b'\n' && before == b'\n' {
                events.fetch_add(1, Ordering::Relaxed);
            }
            before = byte;
        }
    }
}

fn request(host: &str, path: &str, accept: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: {accept}\r\nconnection: close\r\n\r\n")
}

async fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}
