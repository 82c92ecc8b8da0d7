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
/// Two edge nodes are born with their metrics; then they send data in turn, in which each metric is there by its alias and
/// with a time of its own, as large nodes do: real and signed whole numbers, whose types only the births tell, and a
/// `Quality` on each fourth. Each metric is a tag.
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

/// The edge nodes, or what stands for them in JSON.
const NODES: [&str; 2] = ["Oven", "Press"];

/// The tags of all nodes: each node has so many, at the places that `place` says.
fn payloads<P>(
    args: &Args,
    filter: impl Fn(&str) -> String,
    place: impl Fn(u32) -> anyhow::Result<P>,
    payload: impl Fn(Fields<P>) -> Payload,
) -> anyhow::Result<Payloads> {
    let topics = NODES.iter().zip(0..).map(|(node, nth)| {
        let tags = (0..args.metrics).map(|at| Ok(tag(nth * args.metrics + at, format!("t{at}"), place(at)?)));
        let payload = payload(Fields { time: None, tags: tags.collect::<anyhow::Result<_>>()? });
        Ok(Topic { station: Arc::from(*node), filter: filter(node), qos: 1, payload })
    });
    Ok(Payloads::new(topics.collect::<anyhow::Result<_>>()?, 1 << 20, false))
}

/// Messages by their topics, the nodes in turn.
fn in_turn(topic: impl Fn(&str) -> String, numbers: u32, message: impl Fn(u32) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
    (0..numbers).flat_map(|number| NODES.map(|node| (topic(node), message(number)))).collect()
}

fn sparkplug(args: &Args) -> anyhow::Result<f64> {
    let name = |at: u32| format!("Line 1/Zone {at}/Temperature");
    let metric = |at: u32| Ok(Metric { name: name(at).into(), device: None });
    let mut payloads = payloads(args, |node| format!("spBv1.0/Plant/+/{node}/#"), metric, Payload::Sparkplug)?;
    let message = |seq: u32, born: bool| {
        let time = Some(1_794_556_800_000 + u64::from(seq));
        let quality =
            wire::PropertyValue { datatype: Some(datatype::INT32), value: Some(wire::PropertyNumber::Int(192)) };
        let metric = |at: u32| {
            let (kind, value) = match at % 2 {
                0 => (datatype::DOUBLE, wire::MetricValue::Double(f64::from(at) + 0.5)),
                _ => (datatype::INT32, wire::MetricValue::Int(0_u32.wrapping_sub(at + seq))),
            };
            wire::Metric {
                name: born.then(|| name(at)),
                alias: Some(at.into()),
                timestamp: time,
                datatype: born.then_some(kind),
                properties: at
                    .is_multiple_of(4)
                    .then(|| wire::PropertySet { keys: vec!["Quality".to_owned()], values: vec![quality.clone()] }),
                value: Some(value),
                ..wire::Metric::default()
            }
        };
        let metrics = (0..args.metrics).map(metric).collect();
        wire::Payload { timestamp: time, metrics, seq: Some(seq.into()) }.encode_to_vec()
    };
    for node in NODES {
        payloads.read(&format!("spBv1.0/Plant/NBIRTH/{node}"), &message(255, true), Time::now());
    }
    let messages = in_turn(|node| format!("spBv1.0/Plant/NDATA/{node}"), 256, |seq| message(seq, false));
    measure(args, &mut payloads, &messages)
}

fn json(args: &Args) -> anyhow::Result<f64> {
    let path = |at: u32| Ok(format!("$.zone{at}").parse()?);
    let mut payloads = payloads(args, |node| format!("plant/{node}"), path, Payload::Json)?;
    let message = |seq: u32| {
        let mut text = format!("{{\"t\":{}", 1_794_556_800_000 + u64::from(seq));
        for at in 0..args.metrics {
            // Writing into a string cannot fail.
            let _ = match at % 2 {
                0 => write!(text, ",\"zone{at}\":{at}.5"),
                _ => write!(text, ",\"zone{at}\":-{}", at + seq),
            };
        }
        (text + "}").into_bytes()
    };
    measure(args, &mut payloads, &in_turn(|node| format!("plant/{node}"), 256, message))
}

/// Messages a second. Every value must come out, and be good.
fn measure(args: &Args, payloads: &mut Payloads, messages: &[(String, Vec<u8>)]) -> anyhow::Result<f64> {
    let mut readings = 0;
    let begun = Instant::now();
    for (topic, message) in messages.iter().cycle().take(args.messages as usize) {
        let batch = payloads.read(topic, message, Time::from_millis(1_794_556_900_000)).unwrap_or_default();
        ensure!(batch.losses.is_empty(), "a loss: {:?}", batch.losses);
        readings += batch.readings.iter().filter(|reading| reading.validity == Validity::Good).count();
    }
    let took = begun.elapsed();
    let given = args.messages as usize * args.metrics as usize;
    ensure!(readings == given, "{readings} of {given} values came out");
    Ok(f64::from(args.messages) / took.as_secs_f64())
}
