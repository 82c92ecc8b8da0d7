//! The command line. One file for each command.

pub mod browse;
pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod enter;
pub mod explain;
mod probe;
pub mod replay;
pub mod run;
pub mod schema;
mod service;
pub mod spool;
pub mod trust;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Edge agent for factory line gateways.
///
/// Reads inspection stations and equipment over OPC UA, Modbus, MQTT and GPIO, computes OEE, yield and defect
/// rates on the spot, keeps everything on disk while the link is down, and forwards OTLP upstream.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    Check(check::Check),
    Browse(browse::Browse),
    Replay(replay::Replay),
    Explain(explain::Explain),
    Enter(enter::Enter),
    Schema(schema::Schema),
    Spool(spool::Spool),
    Trust(trust::Trust),
}

/// What a device says, as one line for people: it may say anything, line ends and a terminal's commands too.
fn printable(text: &str) -> String {
    text.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What every command's help ends with.
const EXIT_CODES: &str = "Exit codes: 0 fine, 1 failure at run time, 2 wrong usage or configuration.";

impl Cli {
    /// What the program was called with. Ends it, with help or a complaint, where that is no command.
    #[must_use]
    pub fn from_args() -> Self {
        let matches = taught(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the command and says how it went, on stderr and as an exit code.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Run(run) => run.run(),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
            Command::Check(check) => check.run(),
            Command::Browse(browse) => browse.run(),
            Command::Replay(replay) => replay.run(),
            Command::Explain(explain) => explain.run(),
            Command::Enter(enter) => enter.run(),
            Command::Schema(schema) => schema.run(),
            Command::Spool(spool) => spool.run(),
            Command::Trust(trust) => trust.run(),
        };
        result.unwrap_or_else(|error| {
            // Who reads us has hung up, as `| head` does: nobody is there to be told. Not 0, since not all was done.
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
                return ExitCode::FAILURE;
            }
            let wrong_input = error.is::<crate::config::ConfigError>();
            // Each line of a configuration's errors begins with its place, for editors to jump to.
            complain(&if wrong_input { error.to_string() } else { format!("error: {error:#}") });
            ExitCode::from(if wrong_input || error.is::<Misuse>() { 2 } else { 1 })
        })
    }
}

/// Something was asked for that the configuration does not have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// The same with the exit codes in every command's help, below what it says itself.
fn taught(command: clap::Command) -> clap::Command {
    let help = match command.get_after_help() {
        Some(own) => format!("{own}\n\n{EXIT_CODES}"),
        None => EXIT_CODES.to_owned(),
    };
    command.after_help(help).mut_subcommands(taught)
}

/// What went wrong, for a person to read.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn complain(message: &str) {
    eprintln!("{message}");
}

/// Something a person should know, though all went well.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn warn(message: &str) {
    eprintln!("warning: {message}");
}
