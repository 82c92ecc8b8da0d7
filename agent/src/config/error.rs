//! What is wrong with a configuration: all of it, each with its place.

use std::fmt;
use std::rc::Rc;

/// Everything that is wrong with a configuration, in the order written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.lines())]
pub struct ConfigError {
    /// Never empty.
    pub findings: Vec<Finding>,
}

impl ConfigError {
    fn lines(&self) -> String {
        self.findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// One thing that is wrong. Shown as `line.yaml:14:7: stations[0].source.publsh: unknown key; did you mean …`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as it was named to us.
    pub file: String,
    /// From 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// In characters, from 1; 0 when it is about the file as a whole.
    pub column: u32,
    /// Where in the document: `stations[1].source.publish`; empty for the document itself.
    pub path: String,
    /// What is wrong, and what would be right. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Rc<str>,
    pub(super) line: u32,
    pub(super) column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Collects findings, so that one run tells everything.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Something is wrong at `place`.
    pub(super) fn add(&mut self, place: &Place, path: &str, message: impl Into<String>) {
        self.push(place, path, message.into());
    }

    #[inline(never)] // for size: there are hundreds of messages
    fn push(&mut self, place: &Place, path: &str, message: String) {
        let (file, path) = (place.file.to_string(), path.to_owned());
        self.findings.push(Finding { file, line: place.line, column: place.column, path, message });
    }

    /// Something is wrong with a file as a whole.
    pub(super) fn about(&mut self, file: &str, message: impl Into<String>) {
        self.add(&Place { file: file.into(), line: 0, column: 0 }, "", message);
    }

    /// Whether something is already known to be wrong at `path`.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.findings.iter().any(|finding| finding.path == path)
    }

    /// `value`, unless anything was found.
    pub(super) fn close<T>(mut self, value: Option<T>) -> Result<T, ConfigError> {
        self.findings.sort();
        self.findings.dedup();
        match value {
            Some(value) if self.findings.is_empty() => Ok(value),
            _ => {
                debug_assert!(!self.findings.is_empty(), "a configuration is refused with a reason");
                Err(ConfigError { findings: self.findings })
            }
        }
    }
}
