//! How an `mqtts` broker is checked, and what we show it.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::config::{Config, Identity};
use crate::{LinkError, Time};

/// Where systems keep the authorities they trust, as one PEM file.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian and its kin
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora and its kin
    "/etc/ssl/ca-bundle.pem",             // SUSE
    "/etc/ssl/cert.pem",                  // Alpine
];

/// Plain, or TLS with the authorities of `ca_file`, or else those that the system trusts; with our own certificate if
/// there is one. Files are read at each connect, so that a renewed certificate counts without a restart.
pub(super) fn transport(config: &Config) -> Result<rumqttc::Transport, LinkError> {
    if !config.endpoint.tls {
        return Ok(rumqttc::Transport::tcp());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| LinkError::Refused(format!("TLS: {error}")))?
        .with_root_certificates(authorities(config.ca_file.as_deref())?);
    let client = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert_file, key_file }) => {
            let certificates = certificates("cert_file", cert_file)?;
            if let Some((from, to)) = certificates.first().and_then(|own| validity(own)) {
                let (now, file) = (Time::now(), cert_file.display());
                if now > to {
                    return Err(LinkError::Refused(format!("cert_file {file}: the certificate expired at {to}")));
                }
                if now < from {
                    return Err(LinkError::Refused(format!(
                        "cert_file {file}: the certificate is valid from {from} on"
                    )));
                }
            }
            let key =
                PrivateKeyDer::from_pem_file(key_file).map_err(|error| unreadable("key_file", key_file, &error))?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| {
                let (cert, key) = (cert_file.display(), key_file.display());
                LinkError::Refused(match error {
                    rustls::Error::InconsistentKeys(_) => {
                        format!("key_file {key}: is not the key of the certificate in cert_file {cert}")
                    }
                    error => format!("cert_file {cert} and key_file {key}: {error}"),
                })
            })?
        }
    };
    Ok(rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::new(client))))
}

fn authorities(ca_file: Option<&Path>) -> Result<RootCertStore, LinkError> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca_file else {
        let system = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&system).flatten());
        if store.is_empty() {
            let why = "this system lists no trusted authorities; name one with ca_file";
            return Err(LinkError::Refused(why.to_owned()));
        }
        return Ok(store);
    };
    for certificate in certificates("ca_file", path)? {
        store.add(certificate).map_err(|error| LinkError::Refused(format!("ca_file {}: {error}", path.display())))?;
    }
    Ok(store)
}

/// The certificates in a PEM file, at least one.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => {
            Err(LinkError::Refused(format!("{option} {}: holds no certificate", path.display())))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(unreadable(option, path, &error)),
    }
}

fn unreadable(option: &str, path: &Path, error: &pem::Error) -> LinkError {
    let why = match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds no private key in PEM (an encrypted one is none)".to_owned(),
        error => format!("is no PEM: {error:?}"),
    };
    LinkError::Refused(format!("{option} {}: {why}", path.display()))
}

/// Whether the broker ended the connection with a word of TLS: in 1.3 that is how it refuses a client's certificate, after
/// the handshake looked well.
pub(super) fn alert(error: &std::io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// Why, for people.
pub(super) fn refused(error: &std::io::Error) -> LinkError {
    use rustls::AlertDescription as Alert;
    LinkError::Refused(match alert(error) {
        Some(Alert::CertificateRequired) => {
            "TLS: the broker wants to know who we are; give it a cert_file and key_file".to_owned()
        }
        Some(Alert::CertificateExpired) => "TLS: the broker says that our certificate expired".to_owned(),
        Some(Alert::UnknownCA) => "TLS: the broker does not know the authority of our certificate".to_owned(),
        Some(alert) => format!("TLS: the broker says {alert:?}"),
        None => format!("TLS: {error}"),
    })
}

/// From when to when an X.509 certificate is valid (RFC 5280, 4.1), if that can be read. rustls checks the broker's; ours
/// it hands over as it is, and brokers say little about why they refuse it.
fn validity(certificate: &[u8]) -> Option<(Time, Time)> {
    const SEQUENCE: u8 = 0x30;
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    // Version (there from 2 on), serial number, algorithm, issuer.
    if rest.first() == Some(&0xA0) {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (from_tag, from, rest) = element(validity)?;
    let (to_tag, to, _) = element(rest)?;
    Some((time(from_tag, from)?, time(to_tag, to)?))
}

/// A DER element at the start of `bytes`: its tag, what it holds, what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7F => (usize::from(length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` (tag 0x17; below 50 the year is after 2000) or `YYYYMMDDHHMMSSZ` (0x18).
fn time(tag: u8, text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let text = match tag {
        0x17 if text.get(..2)?.parse::<u8>().ok()? < 50 => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let (day, clock) = text.split_at_checked(8)?;
    format!("{day}T{clock}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        for (from, to) in [((2020, 1, 2), (2049, 12, 31)), ((1999, 5, 6), (2051, 7, 8))] {
            let mut params = rcgen::CertificateParams::new(["gemba".to_owned()]).expect("a name");
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(to.0, to.1, to.2);
            let key = rcgen::KeyPair::generate().expect("a key");
            let own = params.self_signed(&key).expect("signed");
            let day = |(year, month, day): (i32, u8, u8)| -> Time {
                format!("{year}-{month:02}-{day:02}T00:00:00Z").parse().expect("a time")
            };
            assert_eq!(validity(own.der()), Some((day(from), day(to))));
            for cut in 0..own.der().len() {
                let _ = validity(&own.der()[..cut]);
            }
        }
        assert_eq!(validity(b""), None);
        assert_eq!(validity(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
