//! What a server with security is set up with.

use std::path::{Path, PathBuf};
use std::{fs, io};

use opcua::crypto::{SecurityPolicy, X509, X509Data};
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerEndpoint, ServerUserToken};
use opcua::types::MessageSecurityMode::{self, Sign, SignAndEncrypt};
use x509_cert::der::pem::LineEnding;

/// A server with every secure policy and mode.
#[derive(Clone)]
pub struct Secure {
    /// Its certificate, DER; it names the application `urn:gemba:sim`.
    pub certificate: Vec<u8>,
    /// The key that belongs to it, PEM.
    pub key: String,
    /// The policies that it offers, with `Sign` and `SignAndEncrypt` each.
    pub policies: Vec<SecurityPolicy>,
    /// Whether it offers an endpoint without security, too.
    pub plain: bool,
    /// Whether it lets anonymous users in.
    pub anonymous: bool,
    /// A user name and its password.
    pub user: Option<(String, String)>,
    /// The certificate file of a user.
    pub user_certificate: Option<PathBuf>,
    /// Whether it lets any client's application in; otherwise those that
    /// [`OpcuaServer::trust_who_came`](super::OpcuaServer::trust_who_came) lets in.
    pub trusts_all: bool,
    /// How long a channel's keys last before the client has to ask for new ones, in milliseconds.
    pub keys_last_ms: u32,
    /// The host name that it tells in its endpoints, if not its address.
    pub host: Option<String>,
}

impl Secure {
    /// All policies, anonymous users, any client.
    #[must_use]
    pub fn new(certificate: Vec<u8>, key: String) -> Self {
        use SecurityPolicy::{Aes128Sha256RsaOaep, Aes256Sha256RsaPss, Basic256Sha256};
        Self {
            certificate,
            key,
            policies: vec![Basic256Sha256, Aes128Sha256RsaOaep, Aes256Sha256RsaPss],
            plain: false,
            anonymous: true,
            user: None,
            user_certificate: None,
            trusts_all: true,
            keys_last_ms: 60_000,
            host: None,
        }
    }

    /// The same with a certificate and a key of its own making, for 127.0.0.1.
    ///
    /// # Panics
    /// When the library cannot make one.
    #[must_use]
    pub fn self_made() -> Self {
        let names = X509Data::alt_host_names("urn:gemba:sim", Some(vec!["127.0.0.1".to_owned()]), true, false, false);
        let about = X509Data {
            key_size: 2_048,
            common_name: "gemba simulated server".to_owned(),
            organization: "gemba".to_owned(),
            organizational_unit: String::new(),
            country: String::new(),
            state: String::new(),
            alt_host_names: names,
            certificate_duration_days: 365,
        };
        let (certificate, key) = X509::cert_and_pkey(&about).expect("2,048 bits and plain names will do");
        let key = key.to_der().expect("a key encodes").to_pem("PRIVATE KEY", LineEnding::LF).expect("a key encodes");
        Self::new(certificate.to_der().expect("a certificate encodes"), key.to_string())
    }

    /// Puts its files into `pki` and its endpoints into `builder`.
    pub(super) fn set_up(&self, builder: ServerBuilder, pki: &Path) -> io::Result<ServerBuilder> {
        for folder in ["own", "private"] {
            fs::create_dir_all(pki.join(folder))?;
        }
        fs::write(pki.join("own/cert.der"), &self.certificate)?;
        fs::write(pki.join("private/private.pem"), &self.key)?;
        let mut builder = builder
            .application_name("gemba simulated server")
            .discovery_urls(vec!["/".to_owned()])
            .max_secure_channel_token_lifetime_ms(self.keys_last_ms)
            .trust_client_certs(self.trusts_all);
        let mut users = Vec::new();
        if self.anonymous {
            users.push(ANONYMOUS_USER_TOKEN_ID.to_owned());
        }
        if let Some((name, password)) = &self.user {
            builder = builder.add_user_token("user", ServerUserToken::user_pass(name, password));
            users.push("user".to_owned());
        }
        if let Some(file) = &self.user_certificate {
            let mut token = ServerUserToken::x509("certified", file);
            token.read_thumbprint();
            builder = builder.add_user_token("certified", token);
            users.push("certified".to_owned());
        }
        let secured = self.policies.iter().flat_map(|policy| [(*policy, Sign), (*policy, SignAndEncrypt)]);
        let plain = self.plain.then_some((SecurityPolicy::None, MessageSecurityMode::None));
        for (policy, mode) in plain.into_iter().chain(secured) {
            let endpoint = ServerEndpoint::new("/", policy, mode, &users);
            builder = builder.add_endpoint(format!("{policy} {mode}"), endpoint);
        }
        Ok(match &self.host {
            Some(host) => builder.host(host.as_str()),
            None => builder,
        })
    }
}
