//! A cable that loses or spoils single messages, and knows enough of OPC UA that nobody else notices
//! (OPC 10000-6, 6.7.2): policy None, one chunk a message.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opcua::types::ObjectId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What is done to a message of the server; false loses it.
type Spoil = Box<dyn FnMut(&mut Answer) -> bool + Send>;

/// The cable. It lets everything pass until it is told otherwise.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    spoil: Arc<Mutex<Spoil>>,
}

/// A message of the server.
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    /// The numeric id of its encoding.
    pub(crate) fn is(&self, kind: ObjectId) -> bool {
        self.0
            .get(24..28)
            .is_some_and(|id| id[..2] == [1, 0] && u32::from(id[2]) | u32::from(id[3]) << 8 == kind as u32)
    }

    /// The subscription that a publish is of.
    pub(crate) fn subscription(&self) -> u32 {
        self.number(52)
    }

    /// Says that the service failed.
    pub(crate) fn fail(&mut self, status: opcua::types::StatusCode) {
        self.0[40..44].copy_from_slice(&status.bits().to_le_bytes());
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four"))
    }
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let spoil: Arc<Mutex<Spoil>> = Arc::new(Mutex::new(Box::new(|_| true)));
        let told = spoil.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                    let _ = to_server.shutdown().await;
                });
                tokio::spawn(answers(from_server, to_client, told.clone()));
            }
        });
        Self { address, spoil }
    }

    pub(crate) fn url(&self) -> String {
        format!("opc.tcp://{}/", self.address)
    }

    pub(crate) fn spoil(&self, spoil: impl FnMut(&mut Answer) -> bool + Send + 'static) {
        *self.spoil.lock().expect("nobody panicked") = Box::new(spoil);
    }
}

/// Each chunk after a lost one takes its number, so that none seems to be missing.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, spoil: Arc<Mutex<Spoil>>) {
    let mut lost = 0;
    loop {
        let mut head = [0; 8];
        if from.read_exact(&mut head).await.is_err() {
            break;
        }
        let size = u32::from_le_bytes(head[4..].try_into().expect("four")) as usize;
        let mut chunk = head.to_vec();
        chunk.resize(size, 0);
        if from.read_exact(&mut chunk[8..]).await.is_err() {
            break;
        }
        let mut answer = Answer(chunk);
        if answer.0.starts_with(b"MSGF") {
            if !(spoil.lock().expect("nobody panicked"))(&mut answer) {
                lost += 1;
                continue;
            }
            let number = answer.number(16) - lost;
            answer.0[16..20].copy_from_slice(&number.to_le_bytes());
        }
        if to.write_all(&answer.0).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
