//! How an OPC UA link is secured and who it says it is: options that must go together.

use std::path::{Path, PathBuf};

use gemba_drivers::opcua::{Identity, Mode, Policy, Secured, Security};

use super::OpcuaSource;
use crate::config::error::Report;
use crate::config::resolve::{Agreed, Who};
use crate::config::words::Word;

/// `security`: a policy, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Channel(Option<Policy>);

impl Word for Channel {
    const WHAT: &'static str = "OPC UA security";
    const FORM: &'static str = "`none`, `basic256sha256`, `aes128` or `aes256`";

    fn all() -> Vec<(&'static str, Self)> {
        let policies = Policy::ALL.map(|policy| (policy.word(), Self(Some(policy))));
        [("none", Self(None))].into_iter().chain(policies).collect()
    }

    /// The standard's own names, and words that belong elsewhere.
    fn later(text: &str) -> Option<String> {
        let bare: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        let meant = match bare.to_ascii_lowercase().as_str() {
            "basic256sha256" => "basic256sha256",
            "aes128sha256rsaoaep" => "aes128",
            "aes256sha256rsapss" => "aes256",
            "sign" | "signandencrypt" => {
                return Some(format!("`{text}` is no security policy; write it as `mode` beside one"));
            }
            "basic256" | "basic128rsa15" => {
                return Some(format!(
                    "`{text}` is deprecated as insecure (it rests on SHA-1), and gemba does not speak it; {}",
                    "`basic256sha256` is what most servers have"
                ));
            }
            _ => return None,
        };
        Some(format!("`{text}` is no OPC UA security; did you mean `{meant}`?"))
    }
}

impl Word for Mode {
    const WHAT: &'static str = "OPC UA security mode";
    const FORM: &'static str = "`sign` or `sign_and_encrypt`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.map(|mode| (mode.word(), mode)).into()
    }
}

/// What the stations of a link say of it.
pub(super) struct Door {
    pki: PathBuf,
    /// Somebody wrote a `security` that is none: what goes with it cannot be told.
    unclear: bool,
    security: Agreed<Option<Policy>>,
    mode: Agreed<Mode>,
    verify_host: Agreed<bool>,
    username: Agreed<Option<String>>,
    password: Agreed<Option<String>>,
    certificate_file: Agreed<Option<PathBuf>>,
    private_key_file: Agreed<Option<PathBuf>>,
}

impl Door {
    pub(super) fn new(pki: &Path) -> Self {
        Self {
            pki: pki.to_owned(),
            unclear: false,
            security: Agreed::nobody(None),
            mode: Agreed::nobody(Mode::default()),
            verify_host: Agreed::nobody(true),
            username: Agreed::nobody(None),
            password: Agreed::nobody(None),
            certificate_file: Agreed::nobody(None),
            private_key_file: Agreed::nobody(None),
        }
    }

    pub(super) fn say(&mut self, who: &Who, source: &OpcuaSource, report: &mut Report) {
        self.unclear |= source.security.is_none();
        self.security.say(who, &source.security, |security| security.0.0, report);
        self.mode.say(who, &source.mode, |mode| mode.0, report);
        self.verify_host.say(who, &source.verify_host, |flag| flag.0, report);
        self.username.say(who, &source.username, |name| Some(name.0.clone()), report);
        self.password.whisper(who, &source.password, |password| Some(password.0.clone()), report);
        self.certificate_file.say(who, &source.certificate_file, |file| Some(file.0.clone()), report);
        self.private_key_file.say(who, &source.private_key_file, |file| Some(file.0.clone()), report);
    }

    pub(super) fn finish(self, report: &mut Report) -> (Security, Identity) {
        self.complain(report);
        let (mode, verify_host, pki) = (self.mode.value, self.verify_host.value, self.pki);
        let security = match self.security.value {
            None => Security::None,
            Some(policy) => Security::Secured(Secured { policy, mode, verify_host, pki }),
        };
        let identity = match (self.username.value, self.certificate_file.value, self.private_key_file.value) {
            (Some(name), ..) => Identity::User { name, password: self.password.value.unwrap_or_default() },
            (None, Some(certificate), Some(key)) => Identity::Certificate { certificate, key },
            _ => Identity::Anonymous,
        };
        (security, identity)
    }

    /// What does not go together.
    fn complain(&self, report: &mut Report) {
        let username = self.username.said.as_ref();
        let certificate = self.certificate_file.said.as_ref();
        let key = self.private_key_file.said.as_ref();
        let plain = self.security.value.is_none() && !self.unclear;
        for said in [&self.mode.said, &self.verify_host.said].into_iter().flatten().filter(|_| plain) {
            said.wrong(report, "is of no use with `security: none`");
        }
        if let Some(said) = username.filter(|_| plain) {
            let why = "with `security: none` anybody on the wire could read the password; set `security`";
            said.wrong(report, format!("{why}, such as `basic256sha256`"));
        }
        if let Some(said) = certificate.filter(|_| plain) {
            said.wrong(report, "is of no use with `security: none`; set `security`, such as `basic256sha256`");
        }
        if let (Some(said), None) = (&self.password.said, username) {
            said.wrong(report, "a password needs a `username` beside it");
        }
        if let (Some(_), Some(said)) = (username, certificate) {
            said.wrong(report, "a user has a `username` or a certificate, not both");
        }
        match (certificate, key) {
            (Some(said), None) => {
                said.wrong(report, "a certificate needs a `private_key_file` beside it");
            }
            (None, Some(said)) => {
                said.wrong(report, "a private key needs a `certificate_file` beside it");
            }
            _ => {}
        }
    }
}
