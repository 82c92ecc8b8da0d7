//! What a certificate says.

use std::net::{Ipv4Addr, Ipv6Addr};

use opcua::crypto::{KeySize as _, SecurityPolicy, X509};
use x509_cert::Certificate as Parsed;
use x509_cert::der::{Decode as _, Encode as _, ErrorKind};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time as Asn1Time;

use crate::Time;

/// A certificate of an application: ours, or a server's.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// SHA-1 of the whole, in hexadecimal. It is how OPC UA names a certificate, and how other tools show it.
    pub thumbprint: String,
    /// Whom it names: `CN=aoi-1,O=Fab`. For people: an attacker may write anything here.
    pub subject: String,
    /// The application that it names.
    pub application_uri: Option<String>,
    /// The hosts that it names, names and addresses.
    pub hosts: Vec<String>,
    /// Not valid before.
    pub not_before: Time,
    /// Not valid after.
    pub not_after: Time,
    der: Vec<u8>,
    x509: X509,
}

impl Certificate {
    /// From DER, or the first one in PEM.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            let mut chain =
                Parsed::load_pem_chain(bytes).map_err(|error| format!("no certificate in PEM ({error})"))?;
            if chain.is_empty() {
                return Err("no certificate in it".to_owned());
            }
            return Self::of(&chain.swap_remove(0));
        }
        Self::of(&Parsed::from_der(bytes).map_err(|error| {
            match error.kind() {
                ErrorKind::TrailingData { .. } => {
                    "more than one certificate: a chain, which gemba cannot use; the first of them is to come alone"
                        .to_owned()
                }
                _ => format!("no certificate in DER or PEM ({error})"),
            }
        })?)
    }

    fn of(parsed: &Parsed) -> Result<Self, String> {
        let der = parsed.to_der().map_err(|error| error.to_string())?;
        let x509 = X509::from_der(&der).map_err(|error| error.to_string())?;
        let told = &parsed.tbs_certificate;
        let names = match told.get::<SubjectAltName>() {
            Ok(names) => names.map(|(_, names)| names.0).unwrap_or_default(),
            Err(error) => return Err(format!("its alternative names cannot be read ({error})")),
        };
        Ok(Self {
            thumbprint: x509.thumbprint().as_hex_string(),
            subject: printable(&told.subject.to_string()),
            application_uri: names.iter().find_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(printable(uri.as_str())),
                _ => None,
            }),
            hosts: names.iter().filter_map(host).collect(),
            not_before: time(told.validity.not_before),
            not_after: time(told.validity.not_after),
            der,
            x509,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Bits of its RSA key; `None` for a key of another kind.
    #[must_use]
    pub fn key_bits(&self) -> Option<usize> {
        self.x509.public_key().ok().map(|key| key.bit_length())
    }

    pub(crate) fn x509(&self) -> &X509 {
        &self.x509
    }

    /// Whether its key is long enough for `policy`, and not too long.
    pub(super) fn fits(&self, policy: SecurityPolicy) -> bool {
        self.key_bits().is_some_and(|bits| policy.is_valid_keylength(bits))
    }

    /// Whether it names `host`.
    pub(super) fn names(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.parse::<Ipv6Addr>().map_or_else(|_| host.to_owned(), |address| address.to_string());
        self.hosts.iter().any(|name| name.eq_ignore_ascii_case(&host))
    }
}

fn host(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(printable(name.as_str())),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes().len() {
            4 => <[u8; 4]>::try_from(bytes.as_bytes()).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(bytes.as_bytes()).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn time(at: Asn1Time) -> Time {
    Time::from_millis(i64::try_from(at.to_unix_duration().as_millis()).unwrap_or(i64::MAX))
}

/// What a stranger wrote goes to logs and terminals without what would move their cursors.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
