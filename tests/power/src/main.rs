//! Power cuts, provoked. See the README beside this.
#![cfg_attr(
    target_os = "linux",
    expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")
)]

#[cfg(target_os = "linux")]
mod binary;
#[cfg(target_os = "linux")]
mod check;
#[cfg(target_os = "linux")]
mod cut;
#[cfg(target_os = "linux")]
mod dice;
#[cfg(target_os = "linux")]
mod disk;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod promise;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod recording;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod syncs;
#[cfg(target_os = "linux")]
mod work;
#[cfg(target_os = "linux")]
mod writers;

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    commands::main()
}

#[cfg(target_os = "linux")]
mod commands {
    use std::ffi::OsString;
    use std::os::unix::process::CommandExt as _;
    use std::path::PathBuf;
    use std::process::{self, ExitCode};

    use clap::Parser;

    use crate::recording::Recording;
    use crate::run::Run;
    use crate::syncs::{self, Sync};
    use crate::work::Work;

    #[derive(Parser)]
    enum Command {
        /// Rounds of cuts.
        Run(Run),
        /// A cut that failed, once more.
        Again {
            /// The recording, as it was kept.
            #[arg(long)]
            again: PathBuf,
            /// The cut's seed.
            #[arg(long)]
            cut: u64,
            /// A folder in memory for the work.
            #[arg(long)]
            work: PathBuf,
        },
        /// The spool at work: what `run` starts.
        Work(Work),
        /// Becomes another program.
        Start {
            /// A system call that does nothing, and says that it did.
            #[arg(long)]
            without: Option<Sync>,
            /// The program and its arguments.
            #[arg(last = true, required = true)]
            program: Vec<OsString>,
        },
    }

    pub fn main() -> anyhow::Result<ExitCode> {
        match Command::parse() {
            Command::Run(run) => Ok(if run.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
            Command::Work(work) => work.run().map(|()| ExitCode::SUCCESS),
            Command::Start { without, program } => {
                without.map_or(Ok(()), syncs::disable)?;
                Err(process::Command::new(&program[0]).args(&program[1..]).exec().into())
            }
            Command::Again { again, cut, work } => {
                let mut code = ExitCode::SUCCESS;
                Recording::load(&again)?.again(cut, &work, |outcome| match outcome.result {
                    Ok((_, sound)) => println!("{}: fine: {sound:?}", outcome.cut),
                    Err(error) => {
                        println!("{}: {error:#}", outcome.cut);
                        code = ExitCode::FAILURE;
                    }
                })?;
                Ok(code)
            }
        }
    }
}
