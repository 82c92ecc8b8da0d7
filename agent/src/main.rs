//! `gemba`: parse, run, map the exit code. The rest is in the library.

use std::process::ExitCode;

use gemba::cli::Cli;

fn main() -> ExitCode {
    Cli::from_args().run()
}
