//! gemba, as a library: the binary is a thin shell around it.
//!
//! Data flows one way: driver, reading, line model, record, spool, OTLP, forwarder. Start reading at
//! docs/ARCHITECTURE.md.

pub mod cli;
pub mod config;
mod csv;
#[cfg(feature = "demo")]
pub mod demo;
pub mod entries;
pub mod forward;
mod heap;
pub mod host;
pub mod http;
mod logging;
pub mod model;
pub mod otlp;
pub mod pipeline;
pub mod received;
pub mod record;
pub mod replay;
pub mod run;
pub mod snapshot;
pub mod spool;
pub mod telemetry;
