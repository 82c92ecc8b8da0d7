//! Our own certificate and its key: made once and kept.

use std::sync::Mutex;

use opcua::crypto::{KeySize as _, PrivateKey, X509, X509Data};
use x509_cert::der::pem::LineEnding;

use super::{Certificate, DAY, Pki, PkiError, SOON, files};
use crate::Time;

/// Every policy takes it.
const KEY_BITS: u32 = 2_048;
/// Ten years: a certificate that ends stops a line, on a day when nobody thinks of it.
const DAYS: u32 = 3_650;
/// No gateway's clock that is set says less: 2026-01-01.
const FIRST_DAY: Time = Time::from_millis(1_767_225_600_000);

/// Links that start together make one certificate.
static MAKING: Mutex<()> = Mutex::new(());

impl Pki {
    /// Our own certificate, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn own(&self) -> Result<Option<Certificate>, PkiError> {
        let path = self.own_certificate();
        let Some(bytes) = files::read_if_there(&path)? else { return Ok(None) };
        Certificate::read(&bytes).map(Some).map_err(|what| PkiError::Content { path, what })
    }

    /// Makes a new key and a new certificate in place of what was there. Every server has to be told.
    ///
    /// # Errors
    /// When they cannot be made or kept.
    pub fn renew(&self) -> Result<Certificate, PkiError> {
        let _alone = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.make(None)
    }

    /// Our own certificate, made if there is none, with the rights to its key set right.
    ///
    /// # Errors
    /// When there is none to be had, or it does not belong to its key.
    pub(crate) fn ensure_own(&self) -> Result<Certificate, PkiError> {
        let _alone = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key_file = self.own_key();
        let key = match files::read_if_there(&key_file)? {
            None => None,
            Some(pem) => Some(PrivateKey::from_pem(&pem).map_err(|_| PkiError::Content {
                path: key_file.clone(),
                what: "no RSA key in PEM without a passphrase".to_owned(),
            })?),
        };
        let own = match (self.own()?, key) {
            (Some(own), Some(key)) if belong_together(&own, &key) => own,
            (Some(_), _) => return Err(PkiError::NoPair(self.own_certificate())),
            (None, key) => return self.make(key),
        };
        files::make_private(&key_file)?;
        self.make_folders()?;
        if own.not_after < Time::now() + SOON * DAY {
            tracing::warn!(
                until = %own.not_after, "gemba's own OPC UA certificate ends soon; make a new one with `{}`",
                self.command("renew")
            );
        }
        Ok(own)
    }

    fn make(&self, key: Option<PrivateKey>) -> Result<Certificate, PkiError> {
        let now = Time::now();
        if now < FIRST_DAY {
            return Err(PkiError::Clock(now));
        }
        self.make_folders()?;
        let key = match key {
            Some(key) => key,
            None => {
                let key = PrivateKey::new(KEY_BITS).map_err(|error| PkiError::Make(error.to_string()))?;
                // The key first: without a certificate it is of use yet, the other way round it is not.
                files::write(&self.own_key(), pem(&key)?.as_bytes(), 0o600)?;
                key
            }
        };
        let x509 = X509::from_pkey(&key, &who_we_are(now)).map_err(PkiError::Make)?;
        let own = x509.to_der().map_err(|error| error.to_string()).and_then(|der| Certificate::read(&der));
        let own = own.map_err(PkiError::Make)?;
        files::write(&self.own_certificate(), own.der(), 0o644)?;
        tracing::info!(
            thumbprint = own.thumbprint, subject = own.subject, until = %own.not_after,
            file = %self.own_certificate().display(), "made gemba's own OPC UA certificate; servers must be told to trust it"
        );
        Ok(own)
    }

    /// Its file, for the servers.
    #[must_use]
    pub fn own_certificate(&self) -> std::path::PathBuf {
        self.folder().join("own/cert.der")
    }

    fn own_key(&self) -> std::path::PathBuf {
        self.folder().join("private/private.pem")
    }
}

/// Whether `key` is the other half of what is in `certificate`.
pub(crate) fn belong_together(certificate: &Certificate, key: &PrivateKey) -> bool {
    const PROOF: &[u8] = b"gemba";
    let mut signature = vec![0; key.size()];
    let signed = key.sign_sha256(PROOF, &mut signature).is_ok();
    let public = certificate.x509().public_key();
    signed && public.is_ok_and(|public| public.verify_sha256(PROOF, &signature).is_ok_and(|right| right))
}

fn pem(key: &PrivateKey) -> Result<String, PkiError> {
    let der = key.to_der().map_err(|error| PkiError::Make(error.to_string()))?;
    let pem = der.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|error| PkiError::Make(error.to_string()))?;
    Ok(pem.to_string())
}

/// The application's URI and the gateway's name, as OPC 10000-6, 6.2.2 wants them.
fn who_we_are(now: Time) -> X509Data {
    let host = X509Data::computer_hostnames().into_iter().next().unwrap_or_default();
    // A name in a certificate's subject has no room for what separates names there.
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    let host = if host.is_empty() { "gateway".to_owned() } else { host };
    X509Data {
        key_size: KEY_BITS,
        // 64 characters at most (RFC 5280, A.1).
        common_name: format!("gemba on {host}").chars().take(64).collect(),
        organization: "gemba".to_owned(),
        // The library gives every certificate the number 42. Two of one issuer must differ, so the issuer does.
        organizational_unit: format!("made {}", now.timestamp().strftime("%Y-%m-%d %H.%M.%S%.3f")),
        country: String::new(),
        state: String::new(),
        alt_host_names: X509Data::alt_host_names(&format!("urn:{host}:gemba"), Some(vec![host]), false, false, false),
        certificate_duration_days: DAYS,
    }
}
