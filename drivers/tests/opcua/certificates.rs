//! Keys and certificates for tests: one key for all, since making one takes long.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use gemba_drivers::opcua::{Config, Mode, Pki, Policy, Secured, Security};
use gemba_drivers::sim::opcua::{OpcuaServer, Secure};
use opcua::crypto::PrivateKey;
use opcua::types::Variant;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

use crate::rig::{NOON, config};

pub(crate) const APPLICATION: &str = "urn:gemba:sim";

/// A key in PEM, the same for the whole run.
pub(crate) fn key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(new_key)
}

/// Another one, which belongs to nothing.
pub(crate) fn other_key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(new_key)
}

fn new_key() -> String {
    let der = PrivateKey::new(2_048).expect("a key").to_der().expect("encodes");
    der.to_pem("PRIVATE KEY", x509_cert::der::pem::LineEnding::LF).expect("encodes").to_string()
}

/// What a certificate is to say.
pub(crate) struct Says<'a> {
    pub(crate) name: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) host: SanType,
    pub(crate) years: (i32, i32),
}

impl Default for Says<'_> {
    fn default() -> Self {
        let host = SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        Self { name: "aoi-1", uri: APPLICATION, host, years: (2020, 2060) }
    }
}

impl Says<'_> {
    /// DER, signed by itself with [`key`].
    pub(crate) fn made(self) -> Vec<u8> {
        let key = KeyPair::from_pem(key()).expect("a key that rcgen can use");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, self.name);
        let uri = Ia5String::try_from(self.uri).expect("ASCII");
        params.subject_alt_names = vec![SanType::URI(uri), self.host];
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }
}

/// A folder of a client's own that already has the key.
pub(crate) fn pki() -> (tempfile::TempDir, Pki) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("private")).expect("made");
    fs::write(folder.path().join("private/private.pem"), key()).expect("written");
    let pki = Pki::at(folder.path());
    (folder, pki)
}

/// Trusts as people do who have the file: under a name of their own.
pub(crate) fn trust(pki: &Pki, certificate: &[u8]) {
    let folder = pki.folder().join("trusted");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("the server by the door.crt"), certificate).expect("written");
}

pub(crate) async fn secure_server<V: Into<Variant>>(
    nodes: impl IntoIterator<Item = (&'static str, V)>,
    secure: Secure,
) -> OpcuaServer {
    OpcuaServer::start_secure("urn:fab-2:aoi", nodes, NOON, secure).await.expect("a port")
}

/// A server's set-up with a certificate for it.
pub(crate) fn secure(certificate: &[u8]) -> Secure {
    Secure::new(certificate.to_vec(), key().to_owned())
}

pub(crate) fn secured(endpoint: &str, names: &[&str], pki: &Path) -> Config {
    secured_with(endpoint, names, pki, Policy::Basic256Sha256, Mode::SignAndEncrypt)
}

pub(crate) fn secured_with(endpoint: &str, names: &[&str], pki: &Path, policy: Policy, mode: Mode) -> Config {
    let secured = Secured { policy, mode, verify_host: true, pki: pki.to_owned() };
    Config { security: Security::Secured(secured), ..config(endpoint, names) }
}
