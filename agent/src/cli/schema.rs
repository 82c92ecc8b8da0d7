//! `gemba schema`: the JSON Schema of the YAML, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config;

/// Print the JSON Schema of the configuration
///
/// Editors complete and check a configuration by it: many follow a first line of
/// `# yaml-language-server: $schema=gemba.schema.json`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  gemba schema > gemba.schema.json")]
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
