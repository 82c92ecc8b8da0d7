//! A TCP proxy on loopback: the cable between two ends, to be cut.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A proxy to one address. It ends when dropped.
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<Cable>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cable {
    /// Everything passes.
    Whole,
    /// Connections are closed, new ones at once.
    Cut,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes everything on to `to`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let state = watch::Sender::new(Cable::Whole);
        let task = tokio::spawn(pass(listener, to, state.subscribe()));
        Ok(Self { addr, state, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes every connection, and each new one at once, until [`resume`](Self::resume).
    pub fn cut(&self) {
        self.state.send_replace(Cable::Cut);
    }

    /// Lets new connections through again.
    pub fn resume(&self) {
        self.state.send_replace(Cable::Whole);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, to: SocketAddr, mut state: watch::Receiver<Cable>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut near, _)) = accepted else { continue };
                if *state.borrow() == Cable::Cut {
                    continue; // dropped, hence closed
                }
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                if *state.borrow_and_update() == Cable::Cut {
                    connections.shutdown().await;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
