//! One request, one answer, over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_modbus::client::{self, Client as _};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{Error, ProtocolError, Request, Response, Slave};

use super::config::{Endpoint, Table};
use super::plan::Read;
use crate::LinkError;

/// A connection. One request is in flight at a time.
pub(super) struct Wire {
    context: client::Context,
    limit: Duration,
}

/// What the device said.
#[derive(Debug)]
pub(super) enum Answer {
    /// As many registers as were asked for.
    Words(Vec<u16>),
    /// At least as many bits as were asked for.
    Bits(Vec<bool>),
    /// Another number than was asked for: nobody knows which is which.
    WrongLength,
    /// An exception, by its code (Modbus Application Protocol V1.1b3, section 7). The link is fine.
    Refused(u8),
}

impl Wire {
    /// Connects within `limit`, which also holds for each request.
    pub(super) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Self, LinkError> {
        let Endpoint::Tcp { host, port } = endpoint;
        let stream = match timeout(limit, TcpStream::connect((host.as_str(), *port))).await {
            Err(_) => return Err(LinkError::Unreachable(format!("no answer within {limit:?}"))),
            Ok(Err(error)) => return Err(LinkError::Unreachable(error.to_string())),
            Ok(Ok(stream)) => stream,
        };
        stream.set_nodelay(true).map_err(|error| LinkError::Unreachable(error.to_string()))?;
        Ok(Self { context: client::tcp::attach(Ended(stream)), limit })
    }

    /// Asks `unit` for `read`. After an error the connection is of no use: a late answer would be taken for
    /// the next one.
    pub(super) async fn ask(&mut self, unit: u8, read: &Read) -> Result<Answer, LinkError> {
        let request = match read.table {
            Table::Coil => Request::ReadCoils(read.offset, read.quantity),
            Table::Discrete => Request::ReadDiscreteInputs(read.offset, read.quantity),
            Table::Holding => Request::ReadHoldingRegisters(read.offset, read.quantity),
            Table::Input => Request::ReadInputRegisters(read.offset, read.quantity),
        };
        self.context.set_slave(Slave(unit));
        let answer =
            timeout(self.limit, self.context.call(request)).await.map_err(|_| LinkError::Silent(self.limit))?;
        let quantity = usize::from(read.quantity);
        Ok(match answer.map_err(|error| broken(&error))? {
            Err(exception) => Answer::Refused(exception.into()),
            Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => {
                if words.len() == quantity { Answer::Words(words) } else { Answer::WrongLength }
            }
            // Bits come in whole bytes.
            Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => {
                if bits.len() == quantity.next_multiple_of(8) { Answer::Bits(bits) } else { Answer::WrongLength }
            }
            Ok(_) => return Err(LinkError::Broken("the device answered another question".to_owned())),
        })
    }

    /// Says goodbye; the peer may be gone already.
    pub(super) async fn close(mut self) {
        let _ = timeout(self.limit.min(Duration::from_secs(1)), self.context.disconnect()).await;
    }
}

fn broken(error: &Error) -> LinkError {
    LinkError::Broken(match error {
        Error::Protocol(ProtocolError::HeaderMismatch { .. } | ProtocolError::FunctionCodeMismatch { .. }) => {
            "the device answered another question".to_owned()
        }
        Error::Transport(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => "the device closed the connection".to_owned(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the device reset the connection".to_owned(),
            io::ErrorKind::InvalidData => format!("the device does not speak Modbus TCP: {error}"),
            _ => error.to_string(),
        },
    })
}

/// A stream whose end is an error that says so. tokio-modbus takes the end for whatever error the operating
/// system had last.
#[derive(Debug)]
struct Ended(TcpStream);

impl AsyncRead for Ended {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, into))?;
        if into.filled().len() == before && into.remaining() > 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ended {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
