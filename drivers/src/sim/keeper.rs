//! An MQTT broker for one subscriber that keeps to the book where rumqttd does not: what is not acknowledged when a
//! connection ends comes again on the next one with DUP set, under its old packet identifier and in its old order
//! (4.4, 4.6). And it can be deaf to acknowledgements, as if they were lost on the way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::mqtt::Endpoint;

/// The broker. It ends when dropped. It speaks 3.1.1 or 5, as its client does, and quality of service 1.
pub struct Keeper {
    addr: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

/// What a broker knows of its session, and what has happened.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Messages that are not acknowledged, oldest first.
    pub held: Vec<Held>,
    /// Every message that was sent: packet identifier, and whether with DUP.
    pub sent: Vec<(u16, bool)>,
    /// Every packet identifier that was acknowledged, heard or not.
    pub acknowledged: Vec<u16>,
    /// What the session is subscribed to.
    pub subscribed: Vec<String>,
    /// Of each connection whether it asked for a clean session.
    pub clean: Vec<bool>,
    /// Every packet that came, after the one that connects: its first byte and its body.
    pub heard: Vec<(u8, Vec<u8>)>,
    session: bool,
    deaf: bool,
    /// Topics and payloads that are sent to whoever subscribes.
    retained: Vec<(String, Vec<u8>)>,
    /// Filters that are not granted.
    refused: Vec<String>,
    last_packet: u16,
    cuts: u64,
    /// What the client is to be answered.
    answers: Vec<u8>,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its packet identifier.
    pub packet: u16,
    topic: String,
    payload: Vec<u8>,
    /// Whether it is one that was kept.
    retain: bool,
    /// How often it was sent.
    times: u32,
    /// Whether this connection has still to bring it.
    due: bool,
}

impl Keeper {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State::default()));
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { addr, state, task })
    }

    /// Where it listens, as the driver is told.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        super::mqtt::endpoint(self.addr)
    }

    /// Sends a message under the next packet identifier, which it returns; later, if nobody is connected.
    pub fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) -> u16 {
        let packet = self.state.borrow().last_packet + 1;
        self.publish_as(packet, topic, payload);
        packet
    }

    /// Sends a message under a packet identifier that is free again.
    pub fn publish_as(&self, packet: u16, topic: &str, payload: impl Into<Vec<u8>>) {
        let held =
            Held { packet, topic: topic.to_owned(), payload: payload.into(), retain: false, times: 0, due: true };
        self.state.send_modify(|state| {
            state.last_packet = state.last_packet.max(packet);
            state.held.push(held);
        });
    }

    /// Keeps a message for whoever subscribes from now on. Nobody is sent it otherwise.
    pub fn retain(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.state.send_modify(|state| {
            state.retained.retain(|(held, _)| held != topic);
            state.retained.push((topic.to_owned(), payload.into()));
        });
    }

    /// From now on acknowledgements are lost on the way, or not any more.
    pub fn set_deaf(&self, deaf: bool) {
        self.state.send_modify(|state| state.deaf = deaf);
    }

    /// From now on these filters are not granted, and all others are.
    pub fn refuse(&self, filters: &[&str]) {
        self.state.send_modify(|state| state.refused = filters.iter().map(ToString::to_string).collect());
    }

    /// Ends the connection.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Ends the connection and forgets the session: packet identifiers begin anew.
    pub fn forget(&self) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            (state.session, state.last_packet) = (false, 0);
            state.held.clear();
            state.subscribed.clear();
        });
    }

    /// Waits until fewer than so many messages are not acknowledged, without a deadline of its own.
    pub async fn until_fewer(&self, held: usize) {
        let mut state = self.state.subscribe();
        state.wait_for(|state| state.held.len() < held).await.expect("the sender is in self");
    }

    /// Waits until `wanted`, without a deadline of its own, and says how things are then.
    pub async fn until(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut state = self.state.subscribe();
        state.wait_for(wanted).await.expect("the sender is in self").clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let cuts = state.borrow().cuts;
        let mut watched = state.subscribe();
        tokio::select! {
            // A client that leaves or says nonsense is a client that has left.
            _ = converse(&mut stream, &state) => {}
            _ = watched.wait_for(|state| state.cuts != cuts) => {}
        }
    }
}

async fn converse(stream: &mut TcpStream, state: &watch::Sender<State>) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    let (kind, connect) = packet(&mut read).await?;
    // After the protocol's name: its level, and the flags with "clean session" at bit 1.
    let (1, Some(&[level, flags])) = (kind >> 4, connect.get(6..8)) else { return Err(nonsense()) };
    let five = level == 5;
    state.send_modify(|state| {
        state.clean.push(flags & 2 != 0);
        let present = state.session && flags & 2 == 0;
        state.session = true;
        if !present {
            state.held.retain(|held| held.times == 0);
            state.subscribed.clear();
        }
        state.held.iter_mut().for_each(|held| held.due = true);
        let connack: &[u8] = if five { &[0x20, 3, present.into(), 0, 0] } else { &[0x20, 2, present.into(), 0] };
        state.answers = connack.to_vec();
    });
    tokio::select! {
        result = hear(&mut read, state, five) => result,
        result = speak(&mut write, state, five) => result,
    }
}

async fn hear(read: &mut ReadHalf<'_>, state: &watch::Sender<State>, five: bool) -> io::Result<()> {
    loop {
        let (kind, body) = packet(read).await?;
        state.send_modify(|state| state.heard.push((kind, body.clone())));
        match (kind >> 4, body.as_slice()) {
            (8, [high, low, rest @ ..]) => {
                let filters = rest.get(if five { 1 + usize::from(*rest.first().ok_or_else(nonsense)?) } else { 0 }..);
                let filters = names(filters.ok_or_else(nonsense)?, 1)?;
                let granted: Vec<u8> = {
                    let state = state.borrow();
                    filters.iter().map(|filter| if state.refused.contains(filter) { 0x80 } else { 1 }).collect()
                };
                let ids = if five { vec![*high, *low, 0] } else { vec![*high, *low] };
                let body = [ids, granted].concat();
                let head = [0x90, u8::try_from(body.len()).map_err(io::Error::other)?];
                state.send_modify(|state| {
                    for filter in filters.iter().filter(|filter| !state.refused.contains(filter)) {
                        for (topic, payload) in state.retained.iter().filter(|(topic, _)| is_like(topic, filter)) {
                            state.last_packet += 1;
                            let (packet, topic, payload) = (state.last_packet, topic.clone(), payload.clone());
                            state.held.push(Held { packet, topic, payload, retain: true, times: 0, due: true });
                        }
                    }
                    for filter in filters {
                        if !state.subscribed.contains(&filter) && !state.refused.contains(&filter) {
                            state.subscribed.push(filter);
                        }
                    }
                    state.answers.extend(head.into_iter().chain(body));
                });
            }
            (4, [high, low, ..]) => state.send_modify(|state| {
                let packet = u16::from_be_bytes([*high, *low]);
                state.acknowledged.push(packet);
                if !state.deaf {
                    state.held.retain(|held| held.packet != packet);
                }
            }),
            (12, _) => state.send_modify(|state| state.answers.extend([0xD0, 0])),
            (10, [high, low, rest @ ..]) => {
                let filters = rest.get(if five { 1 + usize::from(*rest.first().ok_or_else(nonsense)?) } else { 0 }..);
                let left = names(filters.ok_or_else(nonsense)?, 0)?;
                let ids = if five { vec![*high, *low, 0] } else { vec![*high, *low] };
                let body = [ids, if five { vec![0; left.len()] } else { Vec::new() }].concat();
                let head = [0xB0, u8::try_from(body.len()).map_err(io::Error::other)?];
                state.send_modify(|state| {
                    state.subscribed.retain(|held| !left.contains(held));
                    state.answers.extend(head.into_iter().chain(body));
                });
            }
            // What clients of ours seldom do: it is heard, and nobody is told of it.
            (3, _) => state.send_modify(|state| {
                if kind & 0x06 == 0x02
                    && let Some(id) = packet_id(&body)
                {
                    state.answers.extend([0x40, 2, id[0], id[1]]);
                }
            }),
            (14, _) => return Ok(()),
            _ => return Err(nonsense()),
        }
    }
}

async fn speak(write: &mut WriteHalf<'_>, state: &watch::Sender<State>, five: bool) -> io::Result<()> {
    let mut watched = state.subscribe();
    loop {
        let mut out = Vec::new();
        state.send_if_modified(|state| {
            out.append(&mut state.answers);
            for held in state.held.iter_mut().filter(|held| held.due) {
                held.due = false;
                out.extend(publish(held, five));
                state.sent.push((held.packet, held.times > 0));
                held.times += 1;
            }
            !out.is_empty()
        });
        write.write_all(&out).await?;
        let wanted = |state: &State| !state.answers.is_empty() || state.held.iter().any(|held| held.due);
        watched.wait_for(wanted).await.map_err(io::Error::other)?;
    }
}

/// Whether a topic matches a filter, which may hold `+`.
fn is_like(topic: &str, filter: &str) -> bool {
    let (topic, filter): (Vec<_>, Vec<_>) = (topic.split('/').collect(), filter.split('/').collect());
    topic.len() == filter.len() && topic.iter().zip(filter).all(|(level, wanted)| wanted == "+" || *level == wanted)
}

/// The PUBLISH packet of a message.
fn publish(held: &Held, five: bool) -> Vec<u8> {
    let topic = held.topic.as_bytes();
    let mut body = u16::try_from(topic.len()).expect("a test's topic is short").to_be_bytes().to_vec();
    body.extend_from_slice(topic);
    body.extend(held.packet.to_be_bytes());
    body.extend(five.then_some(0)); // no properties
    body.extend_from_slice(&held.payload);
    let mut packet = vec![0x32 | u8::from(held.times > 0) << 3 | u8::from(held.retain)];
    let mut length = body.len();
    while length > 127 {
        packet.push(u8::try_from(length % 128).expect("below 128") | 128);
        length /= 128;
    }
    packet.push(u8::try_from(length).expect("below 128"));
    packet.append(&mut body);
    packet
}

/// The filters of a SUBSCRIBE or UNSUBSCRIBE, each followed by so many bytes.
fn names(mut filters: &[u8], options: usize) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    while let Some((&length, rest)) = filters.split_first_chunk() {
        let (name, rest) = rest.split_at_checked(u16::from_be_bytes(length).into()).ok_or_else(nonsense)?;
        names.push(String::from_utf8_lossy(name).into_owned());
        filters = rest.get(options..).ok_or_else(nonsense)?;
    }
    Ok(names)
}

/// The packet identifier of a PUBLISH with quality of service 1, after its topic.
fn packet_id(body: &[u8]) -> Option<[u8; 2]> {
    let (&length, rest) = body.split_first_chunk()?;
    rest.get(u16::from_be_bytes(length).into()..)?.first_chunk().copied()
}

/// Reads a packet: its first byte and its body.
async fn packet(read: &mut ReadHalf<'_>) -> io::Result<(u8, Vec<u8>)> {
    let kind = read.read_u8().await?;
    let mut length = 0;
    for place in 0..4 {
        let byte = read.read_u8().await?;
        length |= usize::from(byte & 127) << (7 * place);
        if byte < 128 {
            break;
        }
    }
    let mut body = vec![0; length];
    read.read_exact(&mut body).await?;
    Ok((kind, body))
}

fn nonsense() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
