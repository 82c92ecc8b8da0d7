//! What the tests' configurations have in common.

use std::path::Path;

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
