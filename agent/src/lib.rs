//! gemba, as a library: the binary is a thin shell around it.
//!
//! Data flows one way: driver, reading, line model, record, spool, OTLP, forwarder. Start reading at
//! docs/ARCHITECTURE.md.

pub mod cli;
pub mod config;
pub mod model;
pub mod record;
pub mod snapshot;
pub mod spool;
