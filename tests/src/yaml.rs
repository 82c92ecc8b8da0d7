//! What the tests' configurations have in common.

use std::path::Path;

use gemba_drivers::mqtt::Endpoint;

/// The head of a configuration: a line, a free port for the page, and the spool in `folder` with these options (`sync: 20ms`).
#[must_use]
pub fn head(folder: &Path, spool: &str) -> String {
    format!(
        r#"site: fab-2
line: smt-1
timezone: Europe/Berlin
http: {{ listen: "127.0.0.1:0" }}
spool: {{ path: {path}, {spool} }}"#,
        path = folder.join("spool").display(),
    )
}

/// One oven after `head`, which tells its state and a count over MQTT, quality of service 1; `more` stands with its topic
/// (`time: …`).
#[must_use]
pub fn oven(head: &str, endpoint: &Endpoint, topic: &str, more: &str) -> String {
    format!(
        r#"{head}
stations:
  - name: oven-1
    source:
      type: mqtt
      endpoint: {endpoint}
      client_id: gemba-smt-1
      topics: [{{ topic: {topic}, qos: 1, payload: json, {more} }}]
    tags:
      - {{ name: state, path: "$.state" }}
      - {{ name: total, path: "$.count", unit: "{{part}}" }}
    oee:
      state: {{ tag: state, map: {{ running: producing }} }}
      total: {{ tag: total }}
"#
    )
}
