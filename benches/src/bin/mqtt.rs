//! MQTT messages a second with quality of service 1, each acknowledged once it is on disk.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin mqtt
//! ```

use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use gemba_benches::Usage;
use gemba_drivers::mqtt::Version;
use gemba_drivers::sim::mqtt::{Broker, Options, Publisher};
use gemba_tests::agent::{Agent, station, tag};
use tokio::task::JoinSet;

/// MQTT messages a second with quality of service 1, each acknowledged once it is on disk
///
/// The agent makes its session and goes; the messages pile up at the embedded broker; the agent comes back and takes them
/// in, with its own driver, pipeline and spool. The broker has at most some hundred messages in flight and sends on as the
/// agent acknowledges, which it does after the commit: the time is that of all commits. Agent and broker share the machine
/// and the process.
#[derive(Parser)]
struct Args {
    /// Messages
    #[arg(long, default_value_t = 100_000)]
    messages: u32,
    /// Topics, a tag and a publisher each
    #[arg(long, default_value_t = 20)]
    topics: u32,
    /// How long a commit may wait (`spool.sync`)
    #[arg(long, default_value = "250ms")]
    sync: String,
    /// MQTT 5 instead of 3.1.1
    #[arg(long)]
    five: bool,
    /// Where the spool lies; a temporary folder if not said
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.topics > 0 && args.messages >= args.topics, "at least one message a topic");
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let version = if args.five { Version::V5 } else { Version::V311 };
    let broker = Broker::with(Options { version, ..Options::default() }).await?;
    let mut yaml = format!(
        "site: bench\nline: mqtt\ntimezone: UTC\nhttp: {{ listen: \"127.0.0.1:0\" }}\nspool: {{ path: {}, sync: {} }}\n\
         stations:\n  - name: many\n    source:\n      type: mqtt\n      endpoint: {}\n      version: {}\n      \
         topics: [{{ topic: \"bench/{{tag}}\" }}]\n    tags:\n",
        folder.path().join("spool").display(),
        args.sync,
        broker.endpoint(),
        if args.five { "5" } else { "3.1.1" },
    );
    for at in 0..args.topics {
        yaml += &format!("      - {{ name: t{at}, path: $.n }}\n");
    }

    let agent = Agent::start(&yaml).await;
    agent.until("a session", |health| station(health, "many")["link"] == "connected").await;
    agent.stop().await;

    let each = args.messages / args.topics;
    let mut publishers = JoinSet::new();
    let begun = Instant::now();
    for at in 0..args.topics {
        let mut publisher = Publisher::new(broker.addr(), version, &format!("bench-{at}"));
        publishers.spawn(async move {
            for n in 1..=each {
                publisher.publish(&format!("bench/t{at}"), format!(r#"{{"n":{n},"state":"running"}}"#)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    println!("{} messages published in {:.1} s", each * args.topics, begun.elapsed().as_secs_f64());

    let process = std::process::id();
    let (before, begun) = (Usage::of(process)?, Instant::now());
    let agent = Agent::start(&yaml).await;
    let health = agent
        .until("every last message", |health| {
            let many = station(health, "many");
            (0..args.topics).all(|at| tag(many, &format!("t{at}"))["value"] == each)
        })
        .await;
    let (took, after) = (begun.elapsed().as_secs_f64(), Usage::of(process)?);
    agent.stop().await;
    ensure!(health["spool"]["dropped"] == 0, "the spool dropped something");
    let count = f64::from(each * args.topics);
    println!("{:.0} messages/s taken in, durable before each acknowledgement (spool.sync {})", count / took, args.sync);
    let cpu = (after.cpu.saturating_sub(before.cpu)).as_secs_f64();
    println!("{:.1} us of CPU a message, broker and agent together", cpu * 1e6 / count);
    Ok(())
}
