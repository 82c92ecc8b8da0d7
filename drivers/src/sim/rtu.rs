//! Modbus slaves on a serial line, or on a TCP connection that carries RTU, with the moods of real ones.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_modbus::bytes::Bytes;
use tokio_modbus::{Request, Response};

use super::modbus::{Asked, Device};
use crate::modbus::{Endpoint, Table, crc};

/// A bus with as many slaves as have registers. It stops when dropped.
pub struct RtuBus {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What becomes of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It never comes.
    Silent,
    /// It comes that late, after whatever else was asked meanwhile, and to whoever is connected then.
    Late(Duration),
    /// A bit of it is turned over.
    Garbled,
    /// Its second half is missing.
    Short,
    /// It has one register, or eight bits, too few, and a CRC that says it is right.
    WrongLength,
    /// It says that it comes from this unit.
    From(u8),
    /// It says that it answers this function.
    Function(u8),
    /// These bytes come before it.
    After(Vec<u8>),
}

#[derive(Default)]
struct Shared {
    device: Device,
    moods: Mutex<VecDeque<Mood>>,
    always: Mutex<HashMap<u8, Mood>>,
    functions: Mutex<BTreeSet<u8>>,
    echo: AtomicBool,
    latency: Mutex<Duration>,
    /// Where bytes go: the line as it is now, whoever asked.
    line: Mutex<Option<UnboundedSender<Vec<u8>>>>,
}

impl RtuBus {
    /// Slaves at the other end of `stream`.
    pub fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(serve(stream, Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Slaves behind a serial server on a free port of 127.0.0.1, which takes one connection at a time.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn over_tcp() -> io::Result<(Self, Endpoint)> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, Arc::clone(&served)).await;
            }
        });
        Ok((Self { shared, task }, Endpoint::RtuOverTcp { host: addr.ip().to_string(), port: addr.port() }))
    }

    /// Sets registers or bits of `unit` from `offset` on; they exist from then on.
    pub fn set(&self, unit: u8, table: Table, offset: u16, words: &[u16]) {
        self.shared.device.set(unit, table, offset, words.iter().copied());
    }

    /// Answers each read that touches this address with exception `code`; `None` makes it well again.
    pub fn refuse(&self, unit: u8, table: Table, offset: u16, code: Option<u8>) {
        self.shared.device.refuse(unit, table, offset, code);
    }

    /// Leaves each read that touches this address without an answer while `on`, as devices do that know nothing of it.
    pub fn ignore(&self, unit: u8, table: Table, offset: u16, on: bool) {
        self.shared.device.ignore(unit, table, offset, on);
    }

    /// What becomes of the next answer, and with more of them of those after it.
    pub fn next(&self, mood: Mood) {
        lock(&self.shared.moods).push_back(mood);
    }

    /// What becomes of each answer of `unit`.
    pub fn always(&self, unit: u8, mood: Option<Mood>) {
        let mut always = lock(&self.shared.always);
        match mood {
            Some(mood) => always.insert(unit, mood),
            None => always.remove(&unit),
        };
    }

    /// Sends each question back at once before its answer while `on`, as adapters do that hear themselves.
    pub fn echo(&self, on: bool) {
        self.shared.echo.store(on, Ordering::Relaxed);
    }

    /// How long each answer takes.
    pub fn latency(&self, latency: Duration) {
        *lock(&self.shared.latency) = latency;
    }

    /// What was asked and answered in some way, oldest first: the last 1,000 requests since this was last called.
    #[must_use]
    pub fn take_asked(&self) -> Vec<Asked> {
        self.shared.device.take_asked()
    }

    /// Every function code that was ever seen.
    #[must_use]
    pub fn functions(&self) -> Vec<u8> {
        lock(&self.shared.functions).iter().copied().collect()
    }
}

impl Drop for RtuBus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers until the stream ends.
async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, shared: Arc<Shared>) {
    let (mut from, mut to) = tokio::io::split(stream);
    let (out, mut outgoing) = unbounded_channel::<Vec<u8>>();
    *lock(&shared.line) = Some(out);
    let sent = tokio::spawn(async move {
        while let Some(bytes) = outgoing.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut held = Vec::new();
    let mut some = [0; 256];
    while let Ok(count @ 1..) = from.read(&mut some).await {
        held.extend(&some[..count]);
        while let Some(request) = next_request(&mut held) {
            if shared.echo.load(Ordering::Relaxed) {
                shared.send(request.to_vec());
            }
            let latency = *lock(&shared.latency);
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            let (bytes, late) = shared.answer(&request);
            if late.is_zero() {
                shared.send(bytes);
                continue;
            }
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                shared.send(bytes);
            });
        }
    }
    sent.abort();
}

/// The next request whose CRC is right: all that read, and single writes, have eight bytes.
fn next_request(held: &mut Vec<u8>) -> Option<[u8; 8]> {
    while held.len() >= 8 {
        let frame: [u8; 8] = held[..8].try_into().ok()?;
        if crc(&frame[..6]).to_le_bytes() == frame[6..] {
            held.drain(..8);
            return Some(frame);
        }
        held.remove(0);
    }
    None
}

impl Shared {
    /// To whoever listens; nobody does between two connections.
    fn send(&self, bytes: Vec<u8>) {
        if let Some(line) = &*lock(&self.line) {
            let _ = line.send(bytes);
        }
    }

    /// The bytes to send, and how much later.
    fn answer(&self, request: &[u8; 8]) -> (Vec<u8>, Duration) {
        let (unit, function) = (request[0], request[1]);
        lock(&self.functions).insert(function);
        let pdu = Request::try_from(Bytes::copy_from_slice(&request[1..6]));
        let Ok(request) = pdu else { return (Vec::new(), Duration::ZERO) };
        let Some(said) = self.device.answer(unit, &request) else { return (Vec::new(), Duration::ZERO) };
        let always = lock(&self.always).get(&unit).cloned();
        let mood = always.or_else(|| lock(&self.moods).pop_front());
        let mut pdu = match said {
            Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words)) => {
                data(function, &words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
            }
            Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits)) => data(function, &packed(&bits)),
            Ok(_) => vec![function | 0x80, 1],
            // Nobody answers for a slave that is not there.
            Err(code) if u8::from(code) == 11 => return (Vec::new(), Duration::ZERO),
            Err(code) => vec![function | 0x80, code.into()],
        };
        match &mood {
            Some(Mood::WrongLength) if pdu.len() > 3 => {
                let short = pdu.len() - if function <= 2 { 1 } else { 2 };
                pdu.truncate(short);
                pdu[1] = u8::try_from(short - 2).unwrap_or(u8::MAX);
            }
            Some(Mood::Function(other)) => pdu[0] = *other,
            _ => {}
        }
        let unit = if let Some(Mood::From(other)) = mood { other } else { unit };
        let mut frame = [&[unit], pdu.as_slice()].concat();
        frame.extend(crc(&frame).to_le_bytes());
        match mood {
            Some(Mood::Silent) => return (Vec::new(), Duration::ZERO),
            Some(Mood::Late(by)) => return (frame, by),
            Some(Mood::Garbled) => frame[3] ^= 0x10,
            Some(Mood::Short) => frame.truncate(frame.len() / 2),
            Some(Mood::After(before)) => frame.splice(..0, before).for_each(drop),
            _ => {}
        }
        (frame, Duration::ZERO)
    }
}

fn data(function: u8, bytes: &[u8]) -> Vec<u8> {
    let count = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[function, count], bytes].concat()
}

/// Eight bits to the byte, the first one lowest (Modbus Application Protocol V1.1b3, 6.1).
fn packed(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|eight| (0..).zip(eight).fold(0, |byte, (at, bit)| byte | u8::from(*bit) << at)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
