//! `gemba spool dead-letter`: what upstream refused for good.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueHint};

use super::Place;
use crate::cli::warn;
use crate::config::Config;
use crate::forward::{Letter, Letters, Resent, resend};

/// Look at what upstream refused for good, and send it again or drop it
///
/// A request of a single frame that upstream refuses (400 and its like) is counted as lost and kept as a dead letter, at most
/// 1,000 of them and 16 MiB. Letters are files of their own, so all of this works while an agent runs or not.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLetter {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = r"Examples:
  gemba spool dead-letter list --config line.yaml
  gemba spool dead-letter export --config line.yaml 3 --output letter.binpb
  gemba spool dead-letter retry --config line.yaml --all
  gemba spool dead-letter delete --path /var/lib/gemba/spool 3 4";

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which there are, and why upstream refused them
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Write the OTLP request of a letter, as protobuf: what would be posted, uncompressed
    Export {
        #[command(flatten)]
        place: Place,
        /// Its number, as `list` has it
        #[arg(value_name = "NUMBER")]
        number: u64,
        /// Where to; standard output when not said
        #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Send letters to the upstream of the configuration again; those that it accepts are deleted
    Retry {
        /// YAML file, or a folder of them
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Delete letters for good
    Delete {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
    },
}

/// Which letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Their numbers, as `list` has them
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Which {
    fn of(&self, letters: &Letters) -> anyhow::Result<Vec<u64>> {
        if !self.all {
            return Ok(self.numbers.clone());
        }
        Ok(letters.list().context("the dead letters")?.into_iter().map(|(number, _)| number).collect())
    }
}

impl DeadLetter {
    /// Does it, and prints.
    ///
    /// # Errors
    /// When a letter is not there, cannot be read, or upstream cannot be asked.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = io::stdout().lock();
        match self.command {
            Command::List { place } => {
                let letters = Letters::of(&place.path()?).list().context("the dead letters")?;
                out.write_all(listed(&letters).as_bytes()).context("standard output")?;
            }
            Command::Export { place, number, output } => {
                let (_, body) = Letters::of(&place.path()?).read(number).with_context(|| there_is_no(number))?;
                match output {
                    Some(path) => File::create(&path)
                        .and_then(|mut file| file.write_all(&body))
                        .with_context(|| path.display().to_string())?,
                    None => out.write_all(&body).context("standard output")?,
                }
            }
            Command::Delete { place, which } => {
                let letters = Letters::of(&place.path()?);
                for number in which.of(&letters)? {
                    letters.remove(number).with_context(|| there_is_no(number))?;
                }
            }
            Command::Retry { config, which } => {
                let config = Config::load(&config)?;
                return retry(&config, &which, &mut out);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// 1 if any letter is still there.
fn retry(config: &Config, which: &Which, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let Some(upstream) = &config.upstream else { bail!("the configuration has no upstream") };
    let letters = Letters::of(&config.spool.path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let mut code = ExitCode::SUCCESS;
    for number in which.of(&letters)? {
        let (letter, body) = letters.read(number).with_context(|| there_is_no(number))?;
        match runtime.block_on(resend(upstream, &letter, body))? {
            Resent::Accepted => {
                letters.remove(number).with_context(|| format!("letter {number} is accepted, and still there"))?;
                writeln!(out, "{number}  accepted").context("standard output")?;
            }
            Resent::Refused(why) => {
                warn(&format!("{number} is refused again: {why}"));
                code = ExitCode::FAILURE;
            }
            Resent::Unreachable(why) => bail!("upstream cannot be asked: {why}; what is left is kept"),
        }
    }
    Ok(code)
}

fn there_is_no(number: u64) -> String {
    format!("dead letter {number} (see gemba spool dead-letter list)")
}

fn listed(letters: &[(u64, Letter)]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let lines = letters.iter().map(|(number, letter)| {
        let Letter { refused, signal, items, from, to, why } = letter;
        let about = if from == to { from.to_string() } else { format!("{from} to {to}") };
        format!("{number:>6}  {:<7}  {items:>5} of {about}, refused {refused}: {why}\n", signal.word())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use gemba_drivers::Time;

    use super::*;
    use crate::spool::Signal;

    #[test]
    fn a_list_says_what_and_why() {
        assert_eq!(listed(&[]), "no dead letters\n");
        let why = "400 Bad Request: no such value".to_owned();
        let letter =
            Letter { refused: Time(9_000_000_000), signal: Signal::Metrics, items: 2, from: Time(0), to: Time(0), why };
        insta::assert_snapshot!(
            listed(&[(3, letter)]),
            @"     3  metrics      2 of 1970-01-01T00:00:00Z, refused 1970-01-01T00:00:09Z: 400 Bad Request: no such value"
        );
    }
}
