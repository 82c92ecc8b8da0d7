//! The folder of certificates: our own with its key, those of servers that we trust, those that we do not.
//!
//! ```text
//! own/cert.der         our certificate, for the servers
//! private/private.pem  its key, for nobody (0600)
//! trusted/             servers' certificates, DER or PEM under any name
//! rejected/            those that came and nobody has accepted
//! ```
//!
//! A server is trusted by its own certificate. Authorities are not looked at, since the library below has no chains:
//! a certificate that an authority signed is accepted like any other, by itself.

mod certificate;
mod files;
mod judge;
mod own;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use opcua::crypto::CertificateStore;
use opcua::sync::RwLock;

pub use certificate::Certificate;
pub use judge::Doubt;
pub(super) use judge::Expected;
pub(super) use own::belong_together;

/// A certificate that ends within this many days is spoken of.
const SOON: u32 = 30;
const DAY: Duration = Duration::from_secs(86_400);

/// The folder.
#[derive(Clone, Debug)]
pub struct Pki {
    folder: PathBuf,
}

/// Where in the folder a server's certificate lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Its server is let in.
    Trusted,
    /// It came, and nobody has accepted it, or somebody has rejected it.
    Rejected,
}

/// A certificate in the folder.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which.
    pub certificate: Certificate,
    /// Where.
    pub shelf: Shelf,
    /// Its file.
    pub file: PathBuf,
}

/// What cannot be done with the folder.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Nothing there goes by that thumbprint.
    #[error("no certificate has a thumbprint that begins with `{0}`")]
    Unknown(String),
    /// Several do.
    #[error("several certificates have a thumbprint that begins with `{0}`: {1}")]
    Ambiguous(String, String),
    /// A thumbprint is made of hexadecimal digits.
    #[error("`{0}` is no beginning of a thumbprint: those are hexadecimal digits")]
    NoThumbprint(String),
    /// Our certificate and our key are not a pair.
    #[error("{} does not belong to the key beside it", .0.display())]
    NoPair(PathBuf),
    /// There is no telling how long a certificate would be valid.
    #[error("the gateway's clock says {0}: no certificate is made before it is set")]
    Clock(crate::Time),
    /// The library could not make one.
    #[error("no certificate could be made: {0}")]
    Make(String),
}

impl Shelf {
    /// Its folder's name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Rejected => "rejected",
        }
    }
}

impl Pki {
    /// The folder at `folder`, which need not be there yet.
    #[must_use]
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        // Shown in commands that people type where they are.
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command to type, for this folder: `accept 1a2b3c`.
    pub(super) fn command(&self, what: &str) -> String {
        let folder = self.folder.display().to_string();
        let plain = folder.chars().all(|letter| letter.is_alphanumeric() || "/._-".contains(letter));
        let folder = if plain { folder } else { format!("'{}'", folder.replace('\'', "'\\''")) };
        format!("gemba trust {what} --pki {folder}")
    }

    /// Every server's certificate in it, trusted ones first. What is no certificate is left out.
    ///
    /// # Errors
    /// When a folder that is there cannot be read.
    pub fn list(&self) -> Result<Vec<Held>, PkiError> {
        let mut all = self.shelf(Shelf::Trusted)?;
        all.extend(self.shelf(Shelf::Rejected)?);
        Ok(all)
    }

    /// The one certificate in `all` whose thumbprint begins with `prefix`; `:` and spaces in it do not count.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find<'a>(all: &'a [Held], prefix: &str) -> Result<&'a Held, PkiError> {
        let wanted: String = prefix.chars().filter(|letter| !matches!(letter, ':' | ' ')).collect();
        let wanted = wanted.to_ascii_lowercase();
        if wanted.is_empty() || !wanted.chars().all(|letter| letter.is_ascii_hexdigit()) {
            return Err(PkiError::NoThumbprint(prefix.to_owned()));
        }
        let mut found: Vec<&Held> = Vec::new();
        for held in all.iter().filter(|held| held.certificate.thumbprint.starts_with(&wanted)) {
            // The same one may lie about twice, under two names.
            if !found.iter().any(|known| known.certificate.thumbprint == held.certificate.thumbprint) {
                found.push(held);
            }
        }
        match found.as_slice() {
            [] => Err(PkiError::Unknown(prefix.to_owned())),
            [one] => Ok(one),
            several => {
                let names: Vec<_> = several.iter().map(|held| held.certificate.thumbprint.as_str()).collect();
                Err(PkiError::Ambiguous(prefix.to_owned(), names.join(", ")))
            }
        }
    }

    /// Trusts the certificate whose thumbprint begins with `prefix`. Harmless when it is trusted already.
    ///
    /// # Errors
    /// When it is not one, or its file cannot be moved.
    pub fn accept(&self, prefix: &str) -> Result<Certificate, PkiError> {
        self.put(prefix, Shelf::Trusted)
    }

    /// Trusts it no longer: a session that stands goes on until it ends, and is the last.
    ///
    /// # Errors
    /// When it is not one, or its file cannot be moved.
    pub fn reject(&self, prefix: &str) -> Result<Certificate, PkiError> {
        self.put(prefix, Shelf::Rejected)
    }

    fn put(&self, prefix: &str, shelf: Shelf) -> Result<Certificate, PkiError> {
        let all = self.list()?;
        let certificate = Self::find(&all, prefix)?.certificate.clone();
        self.keep(&certificate, shelf)?;
        let place = self.file_of(&certificate, shelf);
        let copies = all.iter().filter(|held| held.certificate.der() == certificate.der() && held.file != place);
        for copy in copies {
            files::remove(&copy.file)?;
        }
        Ok(certificate)
    }

    /// For the library, which looks certificates up by file names of its own. What it would check beside that was
    /// checked by [`Pki::judge`], with better words.
    pub(super) fn store(&self) -> Arc<RwLock<CertificateStore>> {
        let mut store = CertificateStore::new(&self.folder);
        store.set_skip_verify_certs(true);
        Arc::new(RwLock::new(store))
    }

    fn shelf(&self, shelf: Shelf) -> Result<Vec<Held>, PkiError> {
        let mut held = Vec::new();
        for file in files::list(&self.folder.join(shelf.word()))? {
            match files::read(&file).map(|bytes| Certificate::read(&bytes)) {
                Ok(Ok(certificate)) => held.push(Held { certificate, shelf, file }),
                Ok(Err(why)) => tracing::debug!(file = %file.display(), why, "left out of the certificates"),
                Err(error) => tracing::warn!(%error, "a certificate cannot be read"),
            }
        }
        Ok(held)
    }

    /// Puts it there, unless it is there, under the name by which the library looks for it.
    fn keep(&self, certificate: &Certificate, shelf: Shelf) -> Result<(), PkiError> {
        self.make_folders()?;
        let place = self.file_of(certificate, shelf);
        match files::read(&place) {
            Ok(bytes) if bytes == certificate.der() => Ok(()),
            _ => files::write(&place, certificate.der(), 0o644),
        }
    }

    fn file_of(&self, certificate: &Certificate, shelf: Shelf) -> PathBuf {
        self.folder.join(shelf.word()).join(CertificateStore::cert_file_name(certificate.x509()))
    }

    fn make_folders(&self) -> Result<(), PkiError> {
        for folder in ["", "own", "private", "trusted", "rejected"] {
            files::make_folder(&self.folder.join(folder))?;
        }
        Ok(())
    }
}
