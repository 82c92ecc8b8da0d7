//! The way to the server: TCP, at each address that the name has.
//!
//! The library's own way tries the first address only, so that `localhost` fails where it means `::1`
//! first and the server listens on 127.0.0.1.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opcua::client::ConnectionSource;
use opcua::client::transport::{
    Connector, RequestRecv, SecureChannelState, StreamConnection, StreamConnector, TcpTransport, TransportConfiguration,
};
use opcua::core::comms::tcp_codec::TcpCodec;
use opcua::core::comms::url::{hostname_port_from_url, is_opc_ua_binary_url};
use opcua::types::{DecodingOptions, EndpointDescription, Error, StatusCode};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_util::codec::FramedRead;

use super::goodbye::Polite;

const DEFAULT_PORT: u16 = 4840;

/// Dials for the library, for so long at most.
pub(super) struct Dialer(pub(super) Duration);

/// One address, as a URL.
pub(super) struct Line {
    url: String,
    limit: Duration,
}

impl Line {
    pub(super) fn to(url: &str, limit: Duration) -> Result<Self, Error> {
        if is_opc_ua_binary_url(url) {
            return Ok(Self { url: url.to_owned(), limit });
        }
        Err(Error::new(StatusCode::BadTcpEndpointUrlInvalid, format!("`{url}` is no `opc.tcp://host:port`")))
    }
}

impl ConnectionSource for Dialer {
    type Builder = Polite<Line>;

    fn get_connector(&self, endpoint: &EndpointDescription) -> Result<Polite<Line>, Error> {
        Line::to(endpoint.endpoint_url.as_ref(), self.0).map(Polite)
    }
}

impl Connector for Line {
    type Transport = TcpTransport;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        requests: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<TcpTransport, Error> {
        let limit = self.limit;
        let dial = move |url, limits| dial(url, limits, limit);
        StreamConnector::new(dial, self.url.clone()).connect(channel, requests, config).await
    }

    fn default_endpoint(&self) -> EndpointDescription {
        self.url.as_str().into()
    }
}

async fn dial(
    url: String,
    limits: DecodingOptions,
    limit: Duration,
) -> Result<StreamConnection<ReadHalf<TcpStream>, WriteHalf<TcpStream>>, Error> {
    let (host, port) = hostname_port_from_url(&url, DEFAULT_PORT).map_err(|code| Error::new(code, "no host in it"))?;
    let found = async { first_that_answers(lookup_host(format!("{host}:{port}")).await?.collect(), limit).await };
    let stream = found
        .await
        .map_err(|error| Error::new(StatusCode::BadCommunicationError, format!("{host}:{port}: {error}")))?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(StreamConnection::new(FramedRead::new(reader, TcpCodec::new(limits)), writer, url))
}

/// The rest of the time is shared by the addresses that are left: one that swallows everything leaves time for the next.
async fn first_that_answers(mut addresses: VecDeque<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + limit;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
    while let Some(address) = addresses.pop_front() {
        let left = u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {share:?}")),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test]
    async fn an_address_that_swallows_everything_leaves_time_for_the_next() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(any).expect("a port");
        let hole = socket.listen(1).expect("listens"); // and takes nobody in: once its queue is full, nothing is answered
        let hole = (hole.local_addr().expect("bound"), hole);
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(hole.0)).await {
            waiting.push(stream);
        }
        let listener = tokio::net::TcpListener::bind(any).await.expect("a port");
        let there = listener.local_addr().expect("bound");
        let limit = Duration::from_secs(2);
        let stream = timeout(limit, first_that_answers(VecDeque::from([hole.0, there]), limit)).await;
        assert_eq!(stream.expect("in time").expect("reached").peer_addr().expect("connected"), there);
        let error = first_that_answers(VecDeque::from([hole.0]), Duration::from_millis(50)).await.expect_err("a hole");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
