//! What a server with security is set up with.

use std::path::{Path, PathBuf};
use std::{fs, io};

use opcua::crypto::SecurityPolicy;
use opcua::server::{ANONYMOUS_USER_TOKEN_ID, ServerBuilder, ServerEndpoint, ServerUserToken};
use opcua::types::MessageSecurityMode::{self, Sign, SignAndEncrypt};

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
            host: None,
        }
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
