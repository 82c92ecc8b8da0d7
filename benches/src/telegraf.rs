//! Telegraf, told to do what gemba does: the same tags at the same pace, each with its own time, as OTLP with gzip.
//!
//! Its buffer is in memory, which is its default; gemba's is on the disk.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Of [`crate::served::NAMESPACE`] in the server: behind OPC UA's own and the server's. (By its URI this version finds no node:
/// it looks before it is connected.)
const NAMESPACE_INDEX: u16 = 2;

/// Names of its metrics begin so: `<measurement>_<field>`.
pub const OPCUA_METRICS: &str = "opcua_Tag";
/// See [`OPCUA_METRICS`].
pub const MODBUS_METRICS: &str = "modbus_Tag";

/// `endpoint`, an OPC UA server's, read by subscription.
#[must_use]
pub fn opcua(endpoint: &str, tags: u16, upstream: &str) -> String {
    let mut toml = head(upstream);
    let _ = write!(
        toml,
        "[[inputs.opcua_listener]]\n  name = \"opcua\"\n  endpoint = \"{endpoint}\"\n  security_policy = \"None\"\n  \
         security_mode = \"None\"\n  subscription_interval = \"1s\"\n  timestamp = \"source\"\n  nodes = [\n"
    );
    for tag in 0..tags {
        let _ = writeln!(
            toml,
            "    {{ name = \"Tag{tag}\", namespace = \"{NAMESPACE_INDEX}\", identifier_type = \"s\", identifier = \"Tag{tag}\" }},"
        );
    }
    toml + "  ]\n"
}

/// `endpoint`, a Modbus server's, polled each second; neighbours in one request, 125 registers at most.
#[must_use]
pub fn modbus(endpoint: &str, tags: u16, upstream: &str) -> String {
    let mut toml = head(upstream);
    let _ = write!(
        toml,
        "[[inputs.modbus]]\n  name = \"bench\"\n  controller = \"{endpoint}\"\n  timeout = \"1s\"\n  \
         configuration_type = \"request\"\n  [[inputs.modbus.request]]\n    slave_id = 1\n    byte_order = \"ABCD\"\n    \
         register = \"holding\"\n    fields = [\n"
    );
    for tag in 0..tags {
        let _ = writeln!(toml, "      {{ address={tag}, name=\"Tag{tag}\", type=\"UINT16\" }},");
    }
    toml + "    ]\n"
}

fn head(upstream: &str) -> String {
    let address = upstream.trim_start_matches("http://");
    format!(
        "[agent]\n  interval = \"1s\"\n  flush_interval = \"1s\"\n  round_interval = false\n  omit_hostname = true\n  \
         metric_batch_size = 10000\n  metric_buffer_limit = 1000000\n\n[[outputs.opentelemetry]]\n  service_address = \
         \"{address}\"\n  compression = \"gzip\"\n\n"
    )
}

/// How it is started.
#[must_use]
pub fn command(telegraf: &Path, config: &Path) -> Command {
    let mut command = Command::new(telegraf);
    command.arg("--quiet").arg("--config").arg(config);
    command
}
