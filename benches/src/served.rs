//! Many tags, served over one protocol, each of which has a new value at each beat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use gemba_drivers::sim::modbus::ModbusServer;
use gemba_drivers::sim::opcua::OpcuaServer;
use gemba_drivers::{Time, Value};
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use tokio::time::{MissedTickBehavior, interval};

use crate::upstream::number;

/// The namespace of the OPC UA nodes, which are called `Tag0`, `Tag1` and so on.
pub const NAMESPACE: &str = "urn:bench";

/// The rounds of values that the OPC UA server was given.
#[derive(Default)]
pub struct Rounds {
    given: AtomicU64,
    over: AtomicBool,
}

impl Rounds {
    /// There shall be no more.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

/// Each node's value says which round it is of, and which node it is: rounds are so far apart.
const STEP: f64 = 65_536.0;

/// The round that a node's value is of.
#[must_use]
pub fn round_of(point: &NumberDataPoint) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let round = (number(point) / STEP) as u64;
    round
}

/// An OPC UA server with so many nodes, which change so often; returns its endpoint.
///
/// # Errors
/// If it does not start.
pub async fn opcua(tags: u16, every: Duration, rounds: Arc<Rounds>) -> anyhow::Result<String> {
    let nodes = (0..tags).map(|tag| (format!("Tag{tag}"), f64::from(tag)));
    let server = OpcuaServer::start(NAMESPACE, nodes).await?;
    let endpoint = server.endpoint();
    tokio::spawn(async move {
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 1u32.. {
            beats.tick().await;
            if rounds.over.load(Ordering::Relaxed) {
                return std::future::pending().await; // the server stays
            }
            let value = |tag: u16| (usize::from(tag), Value::Float(f64::from(round) * STEP + f64::from(tag)));
            server.set_values((0..tags).map(value), Time::now());
            rounds.given.store(round.into(), Ordering::Relaxed);
        }
    });
    Ok(endpoint)
}

/// A Modbus server with so many holding registers from 0 on, of unit 1, which change so often; returns its endpoint.
///
/// # Errors
/// If it does not start.
pub async fn modbus(tags: u16, every: Duration) -> anyhow::Result<String> {
    let server = ModbusServer::start().await.context("a Modbus server")?;
    let fill = move |round: u16| (0..tags).map(|tag| tag.wrapping_add(round)).collect::<Vec<_>>();
    server.set_holding(1, 0, &fill(0));
    let endpoint = server.endpoint().to_string();
    tokio::spawn(async move {
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for round in 0u16.. {
            beats.tick().await;
            server.set_holding(1, 0, &fill(round));
        }
    });
    Ok(endpoint)
}
