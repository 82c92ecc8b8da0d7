//! The way to the server: TCP, at each address that the name has.
//!
//! The library's own way tries the first address only, so that `localhost` fails where it means `::1`
//! first and the server listens on 127.0.0.1.

use std::io;
use std::sync::Arc;

use opcua::client::ConnectionSource;
use opcua::client::transport::{
    Connector, RequestRecv, SecureChannelState, StreamConnection, StreamConnector, TcpTransport, TransportConfiguration,
};
use opcua::core::comms::tcp_codec::TcpCodec;
use opcua::core::comms::url::{hostname_port_from_url, is_opc_ua_binary_url};
use opcua::types::{DecodingOptions, EndpointDescription, Error, StatusCode};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpStream, lookup_host};
use tokio_util::codec::FramedRead;

use super::goodbye::Polite;

const DEFAULT_PORT: u16 = 4840;

/// Dials for the library.
pub(super) struct Dialer;

/// One address, as a URL.
pub(super) struct Line(String);

impl Line {
    pub(super) fn to(url: &str) -> Result<Self, Error> {
        if is_opc_ua_binary_url(url) {
            return Ok(Self(url.to_owned()));
        }
        Err(Error::new(StatusCode::BadTcpEndpointUrlInvalid, format!("`{url}` is no `opc.tcp://host:port`")))
    }
}

impl ConnectionSource for Dialer {
    type Builder = Polite<Line>;

    fn get_connector(&self, endpoint: &EndpointDescription) -> Result<Polite<Line>, Error> {
        Line::to(endpoint.endpoint_url.as_ref()).map(Polite)
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
        StreamConnector::new(dial, self.0.clone()).connect(channel, requests, config).await
    }

    fn default_endpoint(&self) -> EndpointDescription {
        self.0.as_str().into()
    }
}

async fn dial(
    url: String,
    limits: DecodingOptions,
) -> Result<StreamConnection<ReadHalf<TcpStream>, WriteHalf<TcpStream>>, Error> {
    let (host, port) = hostname_port_from_url(&url, DEFAULT_PORT).map_err(|code| Error::new(code, "no host in it"))?;
    let stream = first_that_answers(&format!("{host}:{port}"))
        .await
        .map_err(|error| Error::new(StatusCode::BadCommunicationError, format!("{host}:{port}: {error}")))?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(StreamConnection::new(FramedRead::new(reader, TcpCodec::new(limits)), writer, url))
}

async fn first_that_answers(host: &str) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
    for address in lookup_host(host).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
