//! Finding the endpoint that fits, and what the library is told.

use std::error::Error as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use opcua::client::transport::TransportPollResult;
use opcua::client::{ClientBuilder, ClientConfig, Session, SessionBuilder, SessionPollResult};
use opcua::core::ResponseMessage;
use opcua::crypto::CertificateStore;
use opcua::sync::RwLock;
use opcua::types::{
    DateTime, EndpointDescription, Error, GetEndpointsRequest, MessageSecurityMode, NodeId, RequestHeader, StatusCode,
    UserTokenType,
};
use tokio::time::timeout;

use super::Config;
use super::dial::{Dialer, Line};
use crate::LinkError;

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
}

/// Asks the server for its endpoints and takes the plain one for anonymous users.
pub(super) async fn find(config: &Config) -> Result<Offered, LinkError> {
    let library = library_config(config);
    let endpoints = timeout(config.timeout, get_endpoints(&config.endpoint, &library, config.timeout))
        .await
        .map_err(|_| LinkError::Unreachable(format!("no answer within {:?}", config.timeout)))?
        .map_err(|error| link_error(&error))?;
    let offers = endpoints.iter().map(offer).collect::<Vec<_>>().join(", ");
    let mut endpoint = endpoints.into_iter().find(is_plain).ok_or_else(|| {
        LinkError::Refused(format!("no endpoint without security for anonymous users; the server offers {offers}"))
    })?;
    // Servers give names that only they can resolve, and ports from before a router: go on where we are.
    endpoint.endpoint_url = with_authority(&config.endpoint, endpoint.endpoint_url.as_ref()).into();
    Ok(Offered { endpoint, config: library })
}

impl Offered {
    /// A session there, fresh, and the stream that makes it live.
    pub(super) fn session(self) -> Result<(Arc<Session>, Events), LinkError> {
        let (session, events) = SessionBuilder::new(&self.config)
            .connect_to_endpoint_directly(self.endpoint)
            .and_then(|builder| builder.with_connector(Dialer).build(no_certificates()))
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
        | StatusCode::BadUserSignatureInvalid
        | StatusCode::BadSecurityPolicyRejected
        | StatusCode::BadSecurityModeRejected
        | StatusCode::BadSecurityModeInsufficient
        | StatusCode::BadSecurityChecksFailed
        | StatusCode::BadCertificateInvalid
        | StatusCode::BadCertificateUntrusted
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
    let line = Line::to(url)?;
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

fn library_config(config: &Config) -> ClientConfig {
    // `ignore_clock_skew` stays off: it would shift the source's times by the skew it finds.
    ClientBuilder::new()
        .application_name("gemba")
        .application_uri("urn:gemba")
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

fn is_plain(endpoint: &EndpointDescription) -> bool {
    let tokens = endpoint.user_identity_tokens.as_deref();
    endpoint.security_mode == MessageSecurityMode::None
        && tokens.is_none_or(|tokens| {
            tokens.is_empty() || tokens.iter().any(|token| token.token_type == UserTokenType::Anonymous)
        })
}

fn offer(endpoint: &EndpointDescription) -> String {
    let policy = endpoint.security_policy_uri.as_ref();
    format!("{} {}", policy.rsplit('#').next().unwrap_or(policy), endpoint.security_mode)
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
