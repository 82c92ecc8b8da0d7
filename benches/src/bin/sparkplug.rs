//! Sparkplug messages a second from bytes to readings, on one core, and the same values in JSON.
//!
//! ```text
//! cargo run --release -p gemba-benches --bin sparkplug
//! ```

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use clap::Parser;
use gemba_drivers::mqtt::sparkplug::{datatype, wire};
use gemba_drivers::mqtt::{Fields, Metric, Payload, Payloads, Topic, TopicTag};
use gemba_drivers::{TagId, Time, Validity};
use prost::Message;

/// Sparkplug messages a second from bytes to readings, on one core, and the same values in JSON
///
/// One edge node is born with its metrics; then it sends data in which each metric is there by its alias, with a time and
/// a real number, as large nodes do. Each metric is a tag.
#[derive(Parser)]
struct Args {
    /// Metrics in a message
    #[arg(long, default_value_t = 20)]
    metrics: u32,
    /// Messages a run
    #[arg(long, default_value_t = 200_000)]
    messages: u32,
    /// Runs; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    for (what, run) in [("Sparkplug", sparkplug as fn(&Args) -> anyhow::Result<f64>), ("JSON", json)] {
        let mut rates = (0..args.runs.max(1)).map(|_| run(&args)).collect::<Result<Vec<_>, _>>()?;
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        println!(
            "{what:<9} {:>10.0} messages/s, {:.2} M values/s ({:.2} to {:.2} in {} runs)",
            median,
            median * f64::from(args.metrics) / 1e6,
            rates[0] * f64::from(args.metrics) / 1e6,
            rates[rates.len() - 1] * f64::from(args.metrics) / 1e6,
            rates.len(),
        );
    }
    Ok(())
}

fn tag<P>(id: u32, name: String, place: P) -> TopicTag<P> {
    TopicTag { id: TagId(id), name: name.into(), place, required: false, numeric: false }
}

fn topic(filter: &str, payload: Payload) -> Payloads {
    let topic = Topic { station: Arc::from("bench"), filter: filter.to_owned(), qos: 1, payload };
    Payloads::new(vec![topic], 1 << 20, false)
}

fn sparkplug(args: &Args) -> anyhow::Result<f64> {
    let name = |at: u32| format!("Line 1/Zone {at}/Temperature");
    let tags = (0..args.metrics).map(|at| tag(at, format!("t{at}"), Metric { name: name(at).into(), device: None }));
    let tags = tags.collect();
    let payload = Payload::Sparkplug(Fields { time: None, tags });
    let mut payloads = topic("spBv1.0/Plant/+/Oven/#", payload);
    let message = |seq: u64, born: bool| {
        let metric = |at: u32| wire::Metric {
            name: born.then(|| name(at)),
            alias: Some(at.into()),
            timestamp: Some(1_794_556_800_000 + seq),
            datatype: born.then_some(datatype::DOUBLE),
            value: Some(wire::MetricValue::Double(f64::from(at) + 0.5)),
            ..wire::Metric::default()
        };
        let metrics = (0..args.metrics).map(metric).collect();
        wire::Payload { timestamp: Some(1_794_556_800_000 + seq), metrics, seq: Some(seq) }.encode_to_vec()
    };
    payloads.read("spBv1.0/Plant/NBIRTH/Oven", &message(255, true), Time::now());
    let messages: Vec<Vec<u8>> = (0..256).map(|seq| message(seq, false)).collect();
    measure(args, &mut payloads, "spBv1.0/Plant/NDATA/Oven", &messages)
}

fn json(args: &Args) -> anyhow::Result<f64> {
    let tags = (0..args.metrics).map(|at| Ok(tag(at, format!("t{at}"), format!("$.zone{at}").parse()?)));
    let tags = tags.collect::<anyhow::Result<_>>()?;
    let mut payloads = topic("plant/oven", Payload::Json(Fields { time: None, tags }));
    let message = |seq: u32| {
        let mut text = format!("{{\"t\":{}", 1_794_556_800_000 + u64::from(seq));
        for at in 0..args.metrics {
            let _ = write!(text, ",\"zone{at}\":{}.5", at + seq); // writing into a string cannot fail
        }
        (text + "}").into_bytes()
    };
    let messages: Vec<Vec<u8>> = (0..256).map(message).collect();
    measure(args, &mut payloads, "plant/oven", &messages)
}

/// Messages a second. Every value must come out, and be good.
fn measure(args: &Args, payloads: &mut Payloads, topic: &str, messages: &[Vec<u8>]) -> anyhow::Result<f64> {
    let mut readings = 0;
    let begun = Instant::now();
    for message in messages.iter().cycle().take(args.messages as usize) {
        let batch = payloads.read(topic, message, Time::from_millis(1_794_556_900_000)).unwrap_or_default();
        ensure!(batch.losses.is_empty(), "a loss: {:?}", batch.losses);
        readings += batch.readings.iter().filter(|reading| reading.validity == Validity::Good).count();
    }
    let took = begun.elapsed();
    let given = args.messages as usize * args.metrics as usize;
    ensure!(readings == given, "{readings} of {given} values came out");
    Ok(f64::from(args.messages) / took.as_secs_f64())
}
