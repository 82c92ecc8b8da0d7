//! Finding the endpoint that fits, and what the library is told.

use std::error::Error as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use opcua::client::transport::TransportPollResult;
use opcua::client::{ClientBuilder, ClientConfig, IdentityToken, Session, SessionBuilder, SessionPollResult};
use opcua::core::ResponseMessage;
use opcua::core::comms::url::hostname_from_url;
use opcua::crypto::{CertificateStore, SecurityPolicy};
use opcua::sync::RwLock;
use opcua::types::{
    DateTime, EndpointDescription, Error, GetEndpointsRequest, MessageSecurityMode, NodeId, RequestHeader, StatusCode,
    UserTokenType,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::dial::{Dialer, Line};
use super::pki::{Certificate, Doubt, Expected, Pki, PkiError};
use super::security::{Identity, Mode, Policy, Secured, Security};
use super::{Config, identity};
use crate::{LinkError, Time};

/// Values in a message, and bytes: the library's own limits (1,000 and 320 KiB) would end a session
/// that has more to say.
const MAX_ARRAY: usize = 100_000;
const MAX_MESSAGE: usize = 16 << 20;
/// How long a server keeps a session of ours that went away without a goodbye.
const SESSION_TIMEOUT_MS: u32 = 60_000;
/// Longer than any keep-alive: the subscription is watched by its messages, and a publish that is given
/// up here would lose what it brings.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(600);

/// What the library hands out while a session lives.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<SessionPollResult, StatusCode>> + Send>>;

/// An endpoint that the server offers and we can use.
pub(super) struct Offered {
    endpoint: EndpointDescription,
    config: ClientConfig,
    certificates: Arc<RwLock<CertificateStore>>,
    identity: IdentityToken,
    /// For finding the way there.
    timeout: Duration,
}

/// Asks the server at `url` for its endpoints and takes the one that is secured as we are told to. Whether it is the
/// right server is settled before anything but this question goes out to it.
pub(super) async fn find(config: &Config, url: &str) -> Result<Offered, LinkError> {
    let own = own_certificate(&config.security).await?;
    let identity = identity::token(&config.identity)?;
    let library = library_config(config, own.as_ref());
    let endpoints = timeout(config.timeout, get_endpoints(url, &library, config.timeout))
        .await
        .map_err(|_| LinkError::Unreachable(format!("no answer within {:?}", config.timeout)))?
        .map_err(|error| link_error(&error))?;
    let mut endpoint = choose(endpoints, config, url)?;
    let certificates = match &config.security {
        Security::None => no_certificates(),
        Security::Secured(secured) => trusted(&endpoint, secured, url)?,
    };
    // Servers give names that only they can resolve, and ports from before a router: go on where we are.
    endpoint.endpoint_url = with_authority(url, endpoint.endpoint_url.as_ref()).into();
    Ok(Offered { endpoint, config: library, certificates, identity, timeout: config.timeout })
}

impl Offered {
    /// A session there, fresh, and the stream that makes it live.
    pub(super) fn session(self) -> Result<(Arc<Session>, Events), LinkError> {
        let (session, events) = SessionBuilder::new(&self.config)
            .user_identity_token(self.identity)
            .connect_to_endpoint_directly(self.endpoint)
            .and_then(|builder| builder.with_connector(Dialer(self.timeout)).build(self.certificates))
            .map_err(|error| link_error(&error))?;
        Ok((session, Box::pin(events.enter())))
    }
}

/// What went wrong, in the terms of a link.
pub(super) fn link_error(error: &Error) -> LinkError {
    let said = match (error.status(), error.source()) {
        (StatusCode::BadCommunicationError, Some(system)) => system.to_string(),
        _ => error.to_string(),
    };
    match error.status() {
        StatusCode::BadIdentityTokenInvalid
        | StatusCode::BadIdentityTokenRejected
        | StatusCode::BadUserAccessDenied
        | StatusCode::BadUserSignatureInvalid => LinkError::Refused(format!(
            "the server does not let this user in: a wrong name or password, or a certificate that it does not know \
             ({})",
            error.status()
        )),
        StatusCode::BadSecurityChecksFailed
        | StatusCode::BadCertificateInvalid
        | StatusCode::BadCertificateTimeInvalid
        | StatusCode::BadCertificateUntrusted
        | StatusCode::BadCertificateUseNotAllowed
        | StatusCode::BadCertificateUriInvalid
        | StatusCode::BadCertificateHostNameInvalid
        | StatusCode::BadCertificateRevoked
        | StatusCode::BadApplicationSignatureInvalid
        | StatusCode::BadNoValidCertificates => LinkError::Refused(format!(
            "{said}; mostly this means that the server does not trust gemba's certificate yet: accept it there \
             (`gemba trust list` shows which it is)"
        )),
        StatusCode::BadSecurityPolicyRejected
        | StatusCode::BadSecurityModeRejected
        | StatusCode::BadSecurityModeInsufficient
        | StatusCode::BadTooManySessions
        | StatusCode::BadTooManySubscriptions
        | StatusCode::BadTcpEndpointUrlInvalid
        | StatusCode::BadInvalidArgument
        | StatusCode::BadServiceUnsupported
        | StatusCode::BadLicenseExpired
        | StatusCode::BadLicenseLimitsExceeded
        | StatusCode::BadLicenseNotAvailable => LinkError::Refused(said),
        _ => LinkError::Unreachable(said),
    }
}

async fn get_endpoints(url: &str, library: &ClientConfig, limit: Duration) -> Result<Vec<EndpointDescription>, Error> {
    let line = Line::to(url, limit)?;
    let channel = SessionBuilder::new(library).connect_to_endpoint_directly(url)?.build_channel(no_certificates())?;
    let mut events = channel.connect_no_retry(&line).await?;
    let question = GetEndpointsRequest {
        request_header: RequestHeader::new(&NodeId::null(), &DateTime::now(), channel.request_handle()),
        endpoint_url: url.into(),
        locale_ids: None,
        profile_uris: None,
    };
    let ask = async {
        let answer = channel.send(question, limit).await;
        channel.close_channel().await;
        answer
    };
    tokio::pin!(ask);
    let answer = loop {
        tokio::select! {
            answer = &mut ask => break answer?,
            event = events.poll() => if let TransportPollResult::Closed(code) = event {
                return Err(Error::new(code, "the server closed the connection"));
            },
        }
    };
    // Lets the goodbye go out; the server closes.
    while !matches!(events.poll().await, TransportPollResult::Closed(_)) {}
    match answer {
        ResponseMessage::GetEndpoints(answer) => Ok(answer.endpoints.unwrap_or_default()),
        ResponseMessage::ServiceFault(fault) => {
            Err(Error::new(fault.response_header.service_result, "the server does not tell its endpoints"))
        }
        _ => Err(Error::new(StatusCode::BadUnknownResponse, "the server answered something else")),
    }
}

fn library_config(config: &Config, own: Option<&Certificate>) -> ClientConfig {
    // The name in the certificate, whatever the gateway is called by now: servers compare the two.
    let application = own.and_then(|own| own.application_uri.as_deref()).unwrap_or("urn:gemba");
    // `ignore_clock_skew` stays off: it would shift the source's times by the skew it finds.
    ClientBuilder::new()
        .application_name("gemba")
        .application_uri(application)
        .product_uri("urn:gemba")
        .session_name("gemba")
        .create_sample_keypair(false)
        .session_retry_limit(0)
        .recreate_subscriptions(false)
        .session_timeout(SESSION_TIMEOUT_MS)
        .request_timeout(config.timeout)
        .publish_timeout(PUBLISH_TIMEOUT)
        .max_array_length(MAX_ARRAY)
        .max_message_size(MAX_MESSAGE)
        .max_chunk_count(0)
        .into_config()
}

/// Without security there is nothing to look up, and no folder is made or read.
fn no_certificates() -> Arc<RwLock<CertificateStore>> {
    Arc::new(RwLock::new(CertificateStore::new(Path::new(""))))
}

/// Our own certificate, made at the first need. The library panics when it looks for one that is not there.
async fn own_certificate(security: &Security) -> Result<Option<Certificate>, LinkError> {
    let Security::Secured(secured) = security else { return Ok(None) };
    let pki = Pki::at(&secured.pki);
    // A small gateway works on a key for seconds.
    let renew = pki.command("renew");
    let own = spawn_blocking(move || pki.ensure_own()).await.map_err(|panic| LinkError::Broken(panic.to_string()))?;
    let own = own.map_err(|error| match error {
        // A clock is set, a disk is emptied without us.
        PkiError::Clock(_) | PkiError::File { .. } => LinkError::Unreachable(error.to_string()),
        error => LinkError::Refused(format!("{error}; `{renew}` makes a new pair")),
    })?;
    let now = Time::now();
    if now > own.not_after {
        return Err(LinkError::Refused(format!(
            "gemba's own certificate (thumbprint {}) expired at {}, and this gateway's clock says {now}; make a new one \
             with `{renew}`, then let each server accept it",
            own.thumbprint, own.not_after
        )));
    }
    Ok(Some(own))
}

/// The certificates for a session with the server behind `endpoint`, if it is one that we trust.
fn trusted(
    endpoint: &EndpointDescription,
    secured: &Secured,
    url: &str,
) -> Result<Arc<RwLock<CertificateStore>>, LinkError> {
    let host = hostname_from_url(url).map_err(|code| LinkError::Refused(format!("no host in `{url}` ({code})")))?;
    let pki = Pki::at(&secured.pki);
    let expected = Expected {
        policy: secured.policy.known_as(),
        host: secured.verify_host.then_some(host.as_str()),
        application_uri: endpoint.server.application_uri.as_ref(),
    };
    let shown = endpoint.server_certificate.value.as_deref().unwrap_or_default();
    pki.judge(shown, &expected).map_err(|doubt| match doubt {
        Doubt::Folder(error) => LinkError::Unreachable(error.to_string()),
        doubt => LinkError::Refused(doubt.to_string()),
    })?;
    Ok(pki.store())
}

/// The endpoint that is secured as `config` says and takes our kind of user, with the one token that we shall show.
fn choose(endpoints: Vec<EndpointDescription>, config: &Config, url: &str) -> Result<EndpointDescription, LinkError> {
    let (policy, mode) = match &config.security {
        Security::None => (SecurityPolicy::None, MessageSecurityMode::None),
        Security::Secured(secured) => (secured.policy.known_as(), secured.mode.known_as()),
    };
    let offers = endpoints.iter().filter(|endpoint| is_binary(endpoint)).map(offer).collect::<Vec<_>>().join(", ");
    let fitting = endpoints.into_iter().filter(|endpoint| {
        is_binary(endpoint)
            && endpoint.security_mode == mode
            && endpoint.security_policy_uri.as_ref() == policy.to_uri()
    });
    let mut fitting: Vec<_> = fitting
        .filter_map(|mut endpoint| {
            endpoint.user_identity_tokens = Some(vec![identity::accepted(&endpoint, &config.identity)?]);
            Some(endpoint)
        })
        .collect();
    // A server may have several at one port, told apart by their paths.
    let same_path = |endpoint: &EndpointDescription| path(endpoint.endpoint_url.as_ref()) == path(url);
    let index = fitting.iter().position(same_path).unwrap_or(0);
    if fitting.is_empty() {
        let wanted = match &config.security {
            Security::None => "without security".to_owned(),
            Security::Secured(secured) => format!("with {} {}", secured.policy.word(), secured.mode.word()),
        };
        let user = match &config.identity {
            Identity::Anonymous => "anonymous users",
            Identity::User { .. } => "users with a password",
            Identity::Certificate { .. } => "users with a certificate",
        };
        let offers = if offers.is_empty() { "nothing over opc.tcp".to_owned() } else { offers };
        return Err(LinkError::Refused(format!("no endpoint {wanted} for {user}; the server offers {offers}")));
    }
    Ok(fitting.swap_remove(index))
}

/// Not over HTTPS or WebSockets, which some servers list beside it.
fn is_binary(endpoint: &EndpointDescription) -> bool {
    endpoint.endpoint_url.as_ref().to_ascii_lowercase().starts_with("opc.tcp:")
}

/// What an endpoint takes, in the words of our configuration where it has any.
fn offer(endpoint: &EndpointDescription) -> String {
    let uri = endpoint.security_policy_uri.as_ref();
    let policy = Policy::ALL.into_iter().find(|policy| policy.known_as().to_uri() == uri).map(Policy::word);
    let policy = policy.unwrap_or_else(|| uri.rsplit('#').next().unwrap_or(uri));
    let mode = Mode::ALL.into_iter().find(|mode| mode.known_as() == endpoint.security_mode).map(Mode::word);
    let mode = mode.map_or_else(|| endpoint.security_mode.to_string(), str::to_owned);
    let tokens = endpoint.user_identity_tokens.as_deref().unwrap_or_default();
    let mut users: Vec<_> = tokens.iter().map(|token| user(token.token_type)).collect();
    users.dedup();
    let users = if users.is_empty() { "anonymous".to_owned() } else { users.join(", ") };
    format!("{policy} {mode} ({users})")
}

fn user(kind: UserTokenType) -> &'static str {
    match kind {
        UserTokenType::Anonymous => "anonymous",
        UserTokenType::UserName => "user name",
        UserTokenType::Certificate => "certificate",
        UserTokenType::IssuedToken => "issued token",
    }
}

fn path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/')
}

/// `theirs` at the host and port of `ours`.
fn with_authority(ours: &str, theirs: &str) -> String {
    let (scheme, rest) = ours.split_once("://").unwrap_or(("opc.tcp", ours));
    let authority = rest.split('/').next().unwrap_or(rest);
    let path = theirs.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    format!("{scheme}://{authority}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_path_and_takes_our_address() {
        let at = |ours: &str, theirs: &str| with_authority(ours, theirs);
        assert_eq!(
            at("opc.tcp://10.0.0.7:14840", "opc.tcp://plc:4840/ua/server"),
            "opc.tcp://10.0.0.7:14840/ua/server"
        );
        assert_eq!(at("opc.tcp://[::1]:4840/", "opc.tcp://plc:4840"), "opc.tcp://[::1]:4840/");
        assert_eq!(at("opc.tcp://plc:4840/old", "opc.tcp://plc:4840/new"), "opc.tcp://plc:4840/new");
    }

    #[test]
    fn only_what_a_person_must_mend_is_a_refusal() {
        let kind = |status| link_error(&Error::new(status, "x"));
        assert!(matches!(kind(StatusCode::BadIdentityTokenRejected), LinkError::Refused(_)));
        assert!(matches!(kind(StatusCode::BadTooManySessions), LinkError::Refused(_)));
        assert!(matches!(kind(StatusCode::BadTimeout), LinkError::Unreachable(_)));
        assert!(matches!(kind(StatusCode::BadServerHalted), LinkError::Unreachable(_)));
    }
}
