//! Protocol servers in process: what the tests (and the demo) read from. Never in a gateway build.

pub mod keeper;
pub mod modbus;
pub mod mqtt;
pub mod opcua;
pub mod proxy;
pub mod rtu;
pub mod smt;
