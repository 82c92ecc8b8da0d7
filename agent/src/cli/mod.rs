//! The command line. One file for each command.

pub mod check;
pub mod replay;
pub mod run;
pub mod schema;
pub mod spool;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Edge agent for factory line gateways.
///
/// Reads inspection stations and equipment over OPC UA, Modbus and MQTT, computes OEE, yield and defect rates
/// on the spot, keeps everything on disk while the link is down, and forwards OTLP upstream.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 fine, 1 failure at run time, 2 wrong usage or configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or SIGINT
    Run(run::Run),
    /// Check a configuration without running it
    Check(check::Check),
    /// Print the figures that a file of readings gives
    Replay(replay::Replay),
    /// Print the JSON Schema of the configuration
    Schema(schema::Schema),
    /// Look into the buffer
    Spool(spool::Spool),
}

impl Cli {
    /// Runs the command and says how it went, on stderr and as an exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Replay(replay) => replay.run(),
            Command::Schema(schema) => schema.run(),
            Command::Spool(spool) => spool.run(),
        };
        result.unwrap_or_else(|error| {
            let wrong_input = error.is::<crate::config::ConfigError>();
            complain(&format!("{error:#}"));
            ExitCode::from(if wrong_input { 2 } else { 1 })
        })
    }
}

/// One error for a person to read.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn complain(message: &str) {
    eprintln!("error: {message}");
}

/// Something a person should know, though all went well.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn warn(message: &str) {
    eprintln!("warning: {message}");
}
