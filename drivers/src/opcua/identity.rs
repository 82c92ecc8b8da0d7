//! Who we say we are, for the library.

use std::path::Path;

use opcua::client::IdentityToken;
use opcua::crypto::{PrivateKey, SecurityPolicy};
use opcua::types::{EndpointDescription, MessageSecurityMode, UserTokenPolicy, UserTokenType};
use x509_cert::der::SecretDocument;
use x509_cert::der::pem::LineEnding;

use super::pki::{Certificate, belong_together};
use super::security::Identity;
use crate::{LinkError, Time};

/// The proof of who we are.
///
/// # Errors
/// When the files of a certificate and its key cannot be read or do not belong together.
pub(super) fn token(identity: &Identity) -> Result<IdentityToken, LinkError> {
    match identity {
        Identity::Anonymous => Ok(IdentityToken::Anonymous),
        Identity::User { name, password } => Ok(IdentityToken::new_user_name(name.clone(), password.clone())),
        Identity::Certificate { certificate, key } => certified(certificate, key).map_err(LinkError::Refused),
    }
}

fn certified(certificate_file: &Path, key_file: &Path) -> Result<IdentityToken, String> {
    let of = |file: &Path, why: &str| format!("{}: {why}", file.display());
    let read = |file: &Path| std::fs::read(file).map_err(|error| of(file, &error.to_string()));
    let certificate = Certificate::read(&read(certificate_file)?).map_err(|why| of(certificate_file, &why))?;
    let key = private_key(&read(key_file)?).map_err(|why| of(key_file, why))?;
    if !belong_together(&certificate, &key) {
        let of_the_file = of(key_file, "the key does not belong to the certificate in");
        return Err(format!("{of_the_file} {}", certificate_file.display()));
    }
    let now = Time::now();
    if now > certificate.not_after {
        return Err(of(certificate_file, &format!("expired at {}", certificate.not_after)));
    }
    if now < certificate.not_before {
        return Err(of(certificate_file, &format!("not valid before {}", certificate.not_before)));
    }
    Ok(IdentityToken::new_x509(certificate.x509().clone(), key))
}

/// From PEM or DER, PKCS#8 or PKCS#1.
fn private_key(bytes: &[u8]) -> Result<PrivateKey, &'static str> {
    let text = str::from_utf8(bytes).unwrap_or_default();
    if text.contains("ENCRYPTED") {
        return Err("the key is locked by a passphrase; gemba needs it without one");
    }
    if text.contains("-----BEGIN") {
        return PrivateKey::from_pem(bytes).map_err(|_| "no RSA key in PEM");
    }
    let document = SecretDocument::try_from(bytes).map_err(|_| "no RSA key in PEM or DER")?;
    ["PRIVATE KEY", "RSA PRIVATE KEY"]
        .into_iter()
        .filter_map(|label| document.to_pem(label, LineEnding::LF).ok())
        .find_map(|pem| PrivateKey::from_pem(pem.as_bytes()).ok())
        .ok_or("no RSA key in PEM or DER")
}

/// The token of `endpoint` that takes `identity`, the safest first; `None` when it has none that we would use.
pub(super) fn accepted(endpoint: &EndpointDescription, identity: &Identity) -> Option<UserTokenPolicy> {
    let wanted = match identity {
        Identity::Anonymous => UserTokenType::Anonymous,
        Identity::User { .. } => UserTokenType::UserName,
        Identity::Certificate { .. } => UserTokenType::Certificate,
    };
    let tokens = endpoint.user_identity_tokens.as_deref().unwrap_or_default();
    if tokens.is_empty() && wanted == UserTokenType::Anonymous {
        return Some(UserTokenPolicy { token_type: wanted, ..UserTokenPolicy::default() });
    }
    let rank = |token: &&UserTokenPolicy| rank(endpoint, wanted, policy_of(endpoint, token));
    let best = tokens.iter().filter(|token| token.token_type == wanted).filter(|token| rank(token).is_some());
    let mut best = best.min_by_key(|token| rank(token))?.clone();
    if wanted == UserTokenType::Certificate && best.security_policy_uri.is_empty() {
        // It means the channel's (OPC 10000-4, 7.41); the library would take it for none and sign nothing.
        best.security_policy_uri = endpoint.security_policy_uri.clone();
    }
    Some(best)
}

/// The policy by which a token is kept secret or signed: its own, or the channel's.
fn policy_of(endpoint: &EndpointDescription, token: &UserTokenPolicy) -> SecurityPolicy {
    let own = &token.security_policy_uri;
    SecurityPolicy::from_uri(if own.is_empty() { &endpoint.security_policy_uri } else { own }.as_ref())
}

/// How well a token fits, 0 best; `None` when it would show a password, or prove nothing.
fn rank(endpoint: &EndpointDescription, kind: UserTokenType, policy: SecurityPolicy) -> Option<u8> {
    use SecurityPolicy::{Aes128Sha256RsaOaep, Aes256Sha256RsaPss, Basic128Rsa15, Basic256, Basic256Sha256};
    match policy {
        _ if kind == UserTokenType::Anonymous => Some(0),
        Basic256Sha256 | Aes128Sha256RsaOaep | Aes256Sha256RsaPss => Some(0),
        SecurityPolicy::None if kind == UserTokenType::UserName => {
            // The channel encrypts it.
            (endpoint.security_mode == MessageSecurityMode::SignAndEncrypt).then_some(1)
        }
        // Deprecated, and under a channel that is not.
        Basic256 | Basic128Rsa15 => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opcua::types::UAString;

    use super::*;

    fn endpoint(mode: MessageSecurityMode, tokens: &[(UserTokenType, Option<SecurityPolicy>)]) -> EndpointDescription {
        let token = |(kind, policy): &(UserTokenType, Option<SecurityPolicy>)| UserTokenPolicy {
            token_type: *kind,
            security_policy_uri: policy.map_or_else(UAString::null, |policy| match policy {
                SecurityPolicy::Unknown => "urn:of-next-year".into(),
                known => known.to_uri().into(),
            }),
            ..UserTokenPolicy::default()
        };
        EndpointDescription {
            security_mode: mode,
            security_policy_uri: SecurityPolicy::Aes128Sha256RsaOaep.to_uri().into(),
            user_identity_tokens: Some(tokens.iter().map(token).collect()),
            ..EndpointDescription::default()
        }
    }

    #[test]
    fn a_password_goes_out_only_where_nobody_can_read_it() {
        use MessageSecurityMode::{Sign, SignAndEncrypt};
        use UserTokenType::UserName;
        let user = Identity::User { name: "u".to_owned(), password: "p".to_owned() };
        let taken = |mode, tokens: &[Option<SecurityPolicy>]| {
            let tokens: Vec<_> = tokens.iter().map(|policy| (UserName, *policy)).collect();
            accepted(&endpoint(mode, &tokens), &user).map(|token| token.security_policy_uri.to_string())
        };
        let uri = |policy: SecurityPolicy| Some(policy.to_uri().to_owned());
        let (none, old, good) = (SecurityPolicy::None, SecurityPolicy::Basic128Rsa15, SecurityPolicy::Basic256Sha256);
        assert_eq!(taken(Sign, &[Some(none)]), None, "readable");
        assert_eq!(taken(SignAndEncrypt, &[Some(none)]), uri(none), "the channel encrypts it");
        assert_eq!(
            taken(SignAndEncrypt, &[Some(old), Some(none), Some(good)]),
            uri(good),
            "the best, wherever it stands"
        );
        assert_eq!(taken(SignAndEncrypt, &[Some(old), Some(none)]), uri(none));
        assert_eq!(taken(Sign, &[Some(SecurityPolicy::Unknown), Some(old)]), uri(old));
        assert_eq!(taken(Sign, &[Some(SecurityPolicy::Unknown)]), None);
        assert!(taken(Sign, &[None]).is_some(), "it means the channel's own");
    }

    #[test]
    fn a_certificate_signs_by_the_channels_policy_where_its_token_has_none() {
        let user = Identity::Certificate { certificate: "u".into(), key: "k".into() };
        let tokens = [(UserTokenType::UserName, None), (UserTokenType::Certificate, None)];
        let token = accepted(&endpoint(MessageSecurityMode::Sign, &tokens), &user).expect("there is one");
        assert_eq!(token.token_type, UserTokenType::Certificate);
        assert_eq!(token.security_policy_uri.as_ref(), SecurityPolicy::Aes128Sha256RsaOaep.to_uri());
        let unsigned = [(UserTokenType::Certificate, Some(SecurityPolicy::None))];
        assert!(accepted(&endpoint(MessageSecurityMode::Sign, &unsigned), &user).is_none(), "it would prove nothing");
    }

    #[test]
    fn a_server_that_lists_no_tokens_lets_anybody_in_and_nobody_else() {
        let silent = endpoint(MessageSecurityMode::Sign, &[]);
        assert!(accepted(&silent, &Identity::Anonymous).is_some());
        let user = Identity::User { name: "u".to_owned(), password: "p".to_owned() };
        assert!(accepted(&silent, &user).is_none());
    }
}
