//! A goodbye where the library leaves none.
//!
//! When a server does not let the user in (ActivateSession), the library closes the channel and leaves the session that it
//! had just made to the server, which keeps it until it times out: one more with each try, and a small PLC has ten. A session
//! that was never activated can be closed only over the channel that made it. So we stand between the library and the wire,
//! and before a channel is closed whose session is still open, the session is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opcua::client::transport::{
    Connector, OutgoingMessage, RequestRecv, SecureChannelState, TcpTransport, Transport, TransportConfiguration,
    TransportPollResult,
};
use opcua::core::{RequestMessage, ResponseMessage};
use opcua::types::{CloseSessionRequest, EndpointDescription, Error, RequestHeader, StatusCode};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// How long the server may take to answer it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connects as `C` does, and says goodbye.
pub(super) struct Polite<C>(pub(super) C);

/// A transport that ends sessions before their channel.
pub(super) struct PoliteTransport {
    inner: TcpTransport,
    /// What the library wants to be sent.
    asked: RequestRecv,
    /// To the wire; none when the library asks for nothing any more.
    wire: Option<mpsc::Sender<OutgoingMessage>>,
    /// Who we are in a session that is open, as far as we know.
    session: Option<RequestHeader>,
    /// The end of the channel, that waits for the end of the session.
    held: Option<(OutgoingMessage, oneshot::Receiver<Result<ResponseMessage, Error>>)>,
}

impl<C: Connector<Transport = TcpTransport>> Connector for Polite<C> {
    type Transport = PoliteTransport;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        asked: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<PoliteTransport, Error> {
        let (wire, requests) = mpsc::channel(1);
        let inner = self.0.connect(channel, requests, config).await?;
        Ok(PoliteTransport { inner, asked, wire: Some(wire), session: None, held: None })
    }

    fn default_endpoint(&self) -> EndpointDescription {
        self.0.default_endpoint()
    }
}

impl Transport for PoliteTransport {
    /// May be dropped at any time: what is taken from one side is put to the other without a pause between.
    async fn poll(&mut self) -> TransportPollResult {
        let Self { inner, asked, wire, session, held } = self;
        let passing = async {
            // Nobody else sends, and what is taken out ends this poll: room that there is stays. It is not reserved, since a
            // transport that closes waits for those who have a place in its queue.
            let Some(line) = wire.as_ref().filter(|line| line.capacity() > 0) else {
                return std::future::pending().await;
            };
            if let Some((_, answer)) = &mut *held {
                let _ = answer.await; // a refusal is an end as well
                if let Some((message, _)) = held.take() {
                    pass_on(line, message);
                }
                return;
            }
            let Some(message) = asked.recv().await else {
                *wire = None;
                return;
            };
            match &message.request {
                RequestMessage::ActivateSession(request) => *session = Some(request.request_header.clone()),
                RequestMessage::CloseSession(_) => *session = None,
                RequestMessage::CloseSecureChannel(_) => {
                    if let Some(header) = session.take() {
                        let (goodbye, answer) = goodbye(header, message.span.clone());
                        *held = Some((message, answer));
                        pass_on(line, goodbye);
                        return;
                    }
                }
                _ => {}
            }
            pass_on(line, message);
        };
        let told = tokio::select! {
            () = passing => return TransportPollResult::OutgoingMessage,
            told = inner.poll() => told,
        };
        if let TransportPollResult::Closed(status) = told {
            self.hang_up(status);
        }
        told
    }

    fn connected_url(&self) -> &str {
        self.inner.connected_url()
    }
}

impl PoliteTransport {
    /// Nothing is sent any more: whoever waits is told.
    fn hang_up(&mut self, status: StatusCode) {
        let why = if status.is_good() { StatusCode::BadConnectionClosed } else { status };
        self.asked.close();
        self.held = None;
        while let Ok(message) = self.asked.try_recv() {
            refuse(message, why);
        }
    }
}

fn pass_on(line: &mpsc::Sender<OutgoingMessage>, message: OutgoingMessage) {
    if let Err(TrySendError::Closed(message) | TrySendError::Full(message)) = line.try_send(message) {
        refuse(message, StatusCode::BadConnectionClosed);
    }
}

fn refuse(message: OutgoingMessage, why: StatusCode) {
    if let Some(callback) = message.callback {
        let _ = callback.send(Err(Error::new(why, "the connection is closed")));
    }
}

fn goodbye(
    header: RequestHeader,
    span: tracing::Span,
) -> (OutgoingMessage, oneshot::Receiver<Result<ResponseMessage, Error>>) {
    let (callback, answer) = oneshot::channel();
    let request = CloseSessionRequest { request_header: header, delete_subscriptions: true };
    let message = OutgoingMessage {
        request: request.into(),
        callback: Some(callback),
        deadline: Instant::now() + PATIENCE,
        span,
    };
    (message, answer)
}
