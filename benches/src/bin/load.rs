//! What `gemba run` costs, as a process of its own, against servers in this one.
//!
//! ```text
//! cargo build --release -p gemba
//! cargo run --release -p gemba-benches --bin load -- line
//! cargo run --release -p gemba-benches --bin load -- opcua --tags 10000 --seconds 60
//! cargo run --release -p gemba-benches --bin load -- modbus --tags 10000 --seconds 60
//! ```
//! Build gemba first and alone: together with this package it would carry the simulators.

use std::fmt::Write;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use clap::{Parser, ValueEnum};
use gemba_benches::{Usage, mib};
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::{Time, Value};
use gemba_tests::line::{Line, OVEN};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// What `gemba run` costs: CPU, memory, disk
#[derive(Parser)]
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
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// The reference line: three stations, eleven tags
    Line,
    /// One OPC UA server whose nodes change each second
    Opcua,
    /// One Modbus server whose registers are polled each second
    Modbus,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if !args.gemba.exists() {
        bail!("no {}: build it first with `cargo build --release -p gemba`", args.gemba.display());
    }
    let folder = tempfile::tempdir()?;
    let points = Arc::new(AtomicU64::new(0));
    let upstream = upstream(points.clone()).await?;
    let spool = folder.path().join("spool");
    let head = format!(
        "site: bench\nline: load\ntimezone: UTC\nhttp: {{ listen: \"127.0.0.1:{}\" }}\n\
         upstream: {{ otlp: {{ endpoint: \"{upstream}\" }} }}\nspool: {{ path: {} }}\nstations:\n",
        free_port()?,
        spool.display()
    );
    let yaml = match args.load {
        Load::Line => reference_line(folder.path(), &upstream).await,
        Load::Opcua => head + &opcua(args.tags).await?,
        Load::Modbus => head + &modbus(args.tags).await?,
    };
    let file = folder.path().join("line.yaml");
    std::fs::write(&file, yaml)?;
    let mut gemba =
        Running(Command::new(&args.gemba).arg("run").arg("--config").arg(&file).stderr(Stdio::inherit()).spawn()?);
    sleep(Duration::from_secs(args.warm_up)).await;
    let (before, had, since) = (Usage::of(gemba.0.id())?, points.load(Ordering::Relaxed), Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, has, took) = (Usage::of(gemba.0.id())?, points.load(Ordering::Relaxed), since.elapsed().as_secs_f64());
    if let Some(status) = gemba.0.try_wait()? {
        bail!("gemba ended: {status}");
    }
    let readings = has - had;
    if readings == 0 {
        bail!("nothing came upstream");
    }
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let (count, written) = (readings as f64, (after.written - before.written) as f64);
    println!("readings upstream   {readings} in {took:.1} s, {:.0}/s", count / took);
    println!("CPU                 {:.4} of a core, {:.2} us a reading", cpu / took, cpu * 1e6 / count);
    println!("resident memory     {:.1} MiB, at most {:.1} MiB", mib(after.resident), mib(after.peak));
    println!("written to disk     {:.1} B a reading", written / count);
    Ok(())
}

/// Stops gemba at the end, however it comes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes everything and counts the points of tags.
async fn upstream(points: Arc<AtomicU64>) -> anyhow::Result<String> {
    async fn take(State(points): State<Arc<AtomicU64>>, body: Bytes) {
        let mut plain = Vec::new();
        if flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).is_err() {
            return;
        }
        let Ok(request) = ExportMetricsServiceRequest::decode(&*plain) else { return };
        let metrics = request.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
        let tags = metrics.filter(|metric| metric.name.starts_with("factory.tag."));
        let count: usize = tags
            .map(|metric| match &metric.data {
                Some(Data::Gauge(gauge)) => gauge.data_points.len(),
                _ => 0,
            })
            .sum();
        points.fetch_add(count as u64, Ordering::Relaxed);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let router = Router::new()
        .route("/v1/metrics", post(take))
        .route("/v1/logs", post(async || {}))
        .layer(DefaultBodyLimit::disable())
        .with_state(points);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(endpoint)
}

async fn reference_line(folder: &std::path::Path, upstream: &str) -> String {
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

async fn opcua(tags: u16) -> anyhow::Result<String> {
    let names: Vec<String> = (0..tags).map(|tag| format!("Tag{tag}")).collect();
    let server = OpcuaServer::start("urn:bench", names.iter().map(|name| (name.clone(), 0.0f64))).await?;
    let mut yaml = format!(
        "  - name: many\n    source: {{ type: opcua, endpoint: \"{}\", security: none, publish: 1s }}\n    tags:\n",
        server.endpoint()
    );
    for name in &names {
        writeln!(yaml, "      - {{ name: {name}, node: \"nsu=urn:bench;s={name}\", unit: Cel }}")?;
    }
    tokio::spawn(async move {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 0u32.. {
            seconds.tick().await;
            let value = |tag: usize| Value::Float(f64::from(round) + f64::from(u16::try_from(tag).unwrap_or(0)) / 8.0);
            server.set_values((0..usize::from(tags)).map(|tag| (tag, value(tag))), Time::now());
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

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
