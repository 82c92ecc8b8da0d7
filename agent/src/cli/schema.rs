//! `gemba schema`: the JSON Schema of the YAML, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config;

/// Print the JSON Schema of the configuration, for editors and other checks.
#[derive(clap::Args, Clone, Debug)]
pub struct Schema {}

impl Schema {
    /// Prints it on standard output.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = serde_json::to_string_pretty(&config::schema())?;
        writeln!(io::stdout().lock(), "{text}")?;
        Ok(ExitCode::SUCCESS)
    }
}
