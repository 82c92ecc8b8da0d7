//! What the end-to-end tests share: gemba itself and the peers it talks to, in process, on port 0.

pub mod agent;
pub mod forwarder;
pub mod line;
pub mod process;
pub mod receiver;
pub mod yaml;
