//! `gemba trust`: which OPC UA servers are let in, and gemba's own certificate.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueHint};
use comfy_table::{Table, presets};
use gemba_drivers::Time;
use gemba_drivers::opcua::pki::{Certificate, Held, Pki, PkiError};

use super::complain;
use crate::config::Config;

/// Say which OPC UA servers are trusted, and look after gemba's own certificate
///
/// A server that nobody has accepted is turned away, and its certificate is kept among the rejected ones. Compare its
/// thumbprint with what the server itself shows, then accept it; a running agent lets it in within 30 s.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  gemba trust list --config line.yaml\n  gemba trust accept --config line.yaml 5e5ff3d5"
)]
pub struct Trust {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List gemba's own certificate and those of servers, trusted and rejected
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Say all about a certificate; gemba's own, when none is named
    Show {
        #[command(flatten)]
        place: Place,
        /// Beginning of its thumbprint
        thumbprint: Option<String>,
    },
    /// Trust a server's certificate
    Accept {
        #[command(flatten)]
        place: Place,
        /// Beginning of its thumbprint
        thumbprint: String,
    },
    /// Trust a server's certificate no longer, from its next connect on
    Reject {
        #[command(flatten)]
        place: Place,
        /// Beginning of its thumbprint
        thumbprint: String,
    },
    /// Make a new certificate and key for gemba itself, which each server has to accept; or the first, ahead of time
    Renew {
        #[command(flatten)]
        place: Place,
    },
}

/// Which folder of certificates.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// The configuration whose certificates they are: YAML file, or a folder of them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder itself (`opcua.pki` of the configuration)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pki: Option<PathBuf>,
}

impl Place {
    fn pki(self) -> anyhow::Result<Pki> {
        match (self.pki, self.config) {
            (Some(folder), _) => Ok(Pki::at(folder)),
            (None, Some(config)) => Ok(Pki::at(Config::load(&config)?.pki)),
            (None, None) => anyhow::bail!("--config or --pki is missing"),
        }
    }
}

impl Trust {
    /// Looks or moves, and says what it did. A thumbprint that is none, or stands for none or several, is wrong usage.
    ///
    /// # Errors
    /// When the folder cannot be read or written, or the output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let told = match self.command {
            Command::List { place } => list(&place.pki()?),
            Command::Show { place, thumbprint } => show(&place.pki()?, thumbprint.as_deref()),
            Command::Accept { place, thumbprint } => place.pki()?.accept(&thumbprint).map(|certificate| {
                format!("trusted: {}\nA running agent lets it in within 30 s.\n", in_a_line(&certificate))
            }),
            Command::Reject { place, thumbprint } => place.pki()?.reject(&thumbprint).map(|certificate| {
                format!("rejected: {}\nA session that stands goes on until it ends.\n", in_a_line(&certificate))
            }),
            Command::Renew { place } => renew(&place.pki()?),
        };
        match told {
            Ok(told) => {
                io::stdout().lock().write_all(told.as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error @ (PkiError::Unknown(_) | PkiError::Ambiguous(..) | PkiError::NoThumbprint(_))) => {
                complain(&format!("error: {error}"));
                Ok(ExitCode::from(2))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn list(pki: &Pki) -> Result<String, PkiError> {
    let own = pki.own()?;
    let held = pki.list()?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["", "thumbprint", "subject", "application", "valid"]);
    let now = Time::now();
    let mut row = |shelf: &str, certificate: &Certificate| {
        let application = certificate.application_uri.as_deref().unwrap_or("-");
        let valid = validity(certificate, now);
        table.add_row([shelf, &certificate.thumbprint, &certificate.subject, application, &valid]);
    };
    if let Some(own) = &own {
        row("own", own);
    }
    for Held { certificate, shelf, .. } in &held {
        row(shelf.word(), certificate);
    }
    if own.is_none() && held.is_empty() {
        return Ok(format!("no certificates yet in {}\n", pki.folder().display()));
    }
    Ok(table.lines().map(|line| format!("{}\n", line.trim_end())).collect())
}

fn show(pki: &Pki, thumbprint: Option<&str>) -> Result<String, PkiError> {
    let (shelf, file, certificate) = match thumbprint {
        Some(prefix) => {
            let all = pki.list()?;
            let held = Pki::find(&all, prefix)?;
            (held.shelf.word(), held.file.clone(), held.certificate.clone())
        }
        None => match pki.own()? {
            Some(own) => ("own", pki.own_certificate(), own),
            None => {
                return Ok(
                    "gemba has no certificate of its own yet: it is made at the first connect with security, or \
                           ahead of it by `gemba trust renew`\n"
                        .to_owned(),
                );
            }
        },
    };
    let hosts = if certificate.hosts.is_empty() { "-".to_owned() } else { certificate.hosts.join(", ") };
    let rows = [
        ("thumbprint", certificate.thumbprint.clone()),
        ("status", shelf.to_owned()),
        ("subject", certificate.subject.clone()),
        ("application", certificate.application_uri.clone().unwrap_or_else(|| "-".to_owned())),
        ("hosts", hosts),
        ("valid", validity(&certificate, Time::now())),
        ("key", certificate.key_bits().map_or("not RSA".to_owned(), |bits| format!("RSA, {bits} bits"))),
        ("file", file.display().to_string()),
    ];
    Ok(rows.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect())
}

fn renew(pki: &Pki) -> Result<String, PkiError> {
    let own = pki.renew()?;
    Ok(format!(
        "made: {}\nLet each server accept {}. A running agent uses it from its next connect on.\n",
        in_a_line(&own),
        pki.own_certificate().display()
    ))
}

fn in_a_line(certificate: &Certificate) -> String {
    format!("{} {}", certificate.thumbprint, certificate.subject)
}

/// From when to when, to the day; what stands in its way is said.
fn validity(certificate: &Certificate, now: Time) -> String {
    let day = |at: Time| at.timestamp().strftime("%Y-%m-%d").to_string();
    let but = match () {
        () if now > certificate.not_after => " (expired)",
        () if now < certificate.not_before => " (not yet)",
        () => "",
    };
    format!("{} to {}{but}", day(certificate.not_before), day(certificate.not_after))
}
