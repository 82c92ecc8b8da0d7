//! A TCP proxy on loopback: the cable between two ends, to be cut.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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
    /// Connections stand, and nothing passes: what either end says is lost.
    Hole,
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

    /// Lets every connection stand and nothing through, as a switch does that lost its way, until
    /// [`resume`](Self::resume). What was swallowed is gone, so connections of before are of no use afterwards.
    pub fn swallow(&self) {
        self.state.send_replace(Cable::Hole);
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
                let Ok((near, _)) = accepted else { continue };
                if *state.borrow() == Cable::Cut {
                    continue; // dropped, hence closed
                }
                let cable = state.clone();
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let (near, far) = (near.into_split(), far.into_split());
                    // Both ways end by themselves, each with the other's end of file.
                    tokio::join!(copy(near.0, far.1, cable.clone()), copy(far.0, near.1, cable));
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

/// Passes on what comes, unless the cable swallows it.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut cable: watch::Receiver<Cable>) {
    let mut some = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut some).await {
        if *cable.borrow() != Cable::Hole && to.write_all(&some[..read]).await.is_err() {
            return;
        }
    }
    let _ = cable.wait_for(|cable| *cable != Cable::Hole).await; // a hole swallows the end as well
    let _ = to.shutdown().await;
}
