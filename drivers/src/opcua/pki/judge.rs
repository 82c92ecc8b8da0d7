//! Whether a server is the one that we trust, and what to do when it is not.

use opcua::crypto::SecurityPolicy;

use super::{Certificate, DAY, Pki, PkiError, SOON, Shelf, files};
use crate::Time;

/// Certificates that nobody has accepted, kept for somebody to look at. A server that makes itself a new one at each
/// start, or somebody who plays with us, does not fill the disk.
const MOST_REJECTED: usize = 100;
/// Of a thumbprint, in a command: nobody has two that begin alike by chance.
const SHORT: usize = 12;

/// What a server's certificate is held against.
pub(crate) struct Expected<'a> {
    pub(crate) policy: SecurityPolicy,
    /// The host that we dial, if the certificate must name it.
    pub(crate) host: Option<&'a str>,
    /// The application that the server says it is.
    pub(crate) application_uri: &'a str,
}

/// Why a server's certificate is not good enough. Each says what a person can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Doubt {
    /// Nobody has accepted it.
    #[error(
        "the server's certificate is not trusted: thumbprint {thumbprint}, subject `{subject}`, valid from {from} to \
         {to}; if it is the right one, run `{command}` (gemba tries again within 30 s)"
    )]
    Untrusted {
        /// Which.
        thumbprint: String,
        /// Whom it names.
        subject: String,
        /// Valid not before.
        from: Time,
        /// Valid not after.
        to: Time,
        /// To accept it.
        command: String,
    },
    /// Its time is over.
    #[error(
        "the server's certificate (thumbprint {thumbprint}) expired at {at}, and this gateway's clock says {now}; the \
         server needs a new one"
    )]
    Expired {
        /// Which.
        thumbprint: String,
        /// When.
        at: Time,
        /// Now.
        now: Time,
    },
    /// Its time has not come.
    #[error(
        "the server's certificate (thumbprint {thumbprint}) is not valid before {at}, and this gateway's clock says \
         {now}; one of the two clocks is wrong"
    )]
    NotYet {
        /// Which.
        thumbprint: String,
        /// When.
        at: Time,
        /// Now.
        now: Time,
    },
    /// It is another host's.
    #[error(
        "the server's certificate (thumbprint {thumbprint}) is for {names}, not for `{host}`; dial one of those, or set \
         `verify_host: false` if this is the right server all the same"
    )]
    OtherHost {
        /// Which.
        thumbprint: String,
        /// The hosts that it names.
        names: String,
        /// The one that we dial.
        host: String,
    },
    /// It is another application's.
    #[error(
        "the server calls itself `{said}`, and its certificate (thumbprint {thumbprint}) names `{named}`; the server's \
         certificate has to be made anew"
    )]
    OtherApplication {
        /// Which.
        thumbprint: String,
        /// The server's word.
        said: String,
        /// The certificate's.
        named: String,
    },
    /// Its key is of no use.
    #[error("the key in the server's certificate (thumbprint {thumbprint}) does not do for {policy}: it has {bits}")]
    Key {
        /// Which.
        thumbprint: String,
        /// What it is to be used for.
        policy: String,
        /// Its size.
        bits: String,
    },
    /// It cannot be read.
    #[error("the server shows no certificate that can be used: {0}")]
    Unreadable(String),
    /// The folder makes trouble.
    #[error(transparent)]
    Folder(#[from] PkiError),
}

impl Pki {
    /// Whether a server that shows `der` is let in. One that nobody has accepted is put where it can be.
    pub(crate) fn judge(&self, der: &[u8], expected: &Expected<'_>) -> Result<(), Doubt> {
        if der.is_empty() {
            return Err(Doubt::Unreadable("it is empty".to_owned()));
        }
        let shown = Certificate::read(der).map_err(Doubt::Unreadable)?;
        let thumbprint = shown.thumbprint.clone();
        if !self.shelf(Shelf::Trusted)?.iter().any(|held| held.certificate.der() == shown.der()) {
            self.keep(&shown, Shelf::Rejected)?;
            self.thin_out()?;
            return Err(Doubt::Untrusted {
                command: self.command(&format!("accept {}", &thumbprint[..SHORT])),
                thumbprint,
                subject: shown.subject,
                from: shown.not_before,
                to: shown.not_after,
            });
        }
        let now = Time::now();
        if now > shown.not_after {
            return Err(Doubt::Expired { thumbprint, at: shown.not_after, now });
        }
        if now < shown.not_before {
            return Err(Doubt::NotYet { thumbprint, at: shown.not_before, now });
        }
        let named = shown.application_uri.as_deref().unwrap_or_default();
        if named != expected.application_uri {
            let (said, named) = (expected.application_uri.to_owned(), named.to_owned());
            return Err(Doubt::OtherApplication { thumbprint, said, named });
        }
        if let Some(host) = expected.host.filter(|host| !shown.names(host)) {
            let names = match shown.hosts.as_slice() {
                [] => "no host at all".to_owned(),
                hosts => hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", "),
            };
            return Err(Doubt::OtherHost { thumbprint, names, host: host.to_owned() });
        }
        if !shown.fits(expected.policy) {
            let bits = shown.key_bits().map_or("no RSA key".to_owned(), |bits| format!("{bits} bits"));
            return Err(Doubt::Key { thumbprint, policy: expected.policy.to_str().to_owned(), bits });
        }
        // The library looks by file names of its own, and at the rejected ones first.
        self.keep(&shown, Shelf::Trusted)?;
        files::remove(&self.file_of(&shown, Shelf::Rejected))?;
        if shown.not_after < now + SOON * DAY {
            tracing::warn!(thumbprint, until = %shown.not_after, "the server's certificate ends soon");
        }
        Ok(())
    }

    /// The oldest go.
    fn thin_out(&self) -> Result<(), PkiError> {
        let mut files = files::list(&self.folder().join(Shelf::Rejected.word()))?;
        let surplus = files.len().saturating_sub(MOST_REJECTED);
        if surplus > 0 {
            files.sort_by_key(|file| file.metadata().and_then(|about| about.modified()).ok());
            files.iter().take(surplus).try_for_each(|file| files::remove(file))?;
        }
        Ok(())
    }
}
