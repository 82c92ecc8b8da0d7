//! gemba as it is shipped, under a name of this package: cargo builds it for the tests here that need a process.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    gemba::cli::Cli::parse().run()
}
