//! A Modbus TCP server on loopback whose registers, and whose moods, can be changed at run time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};

use crate::modbus::{Endpoint, Table};

/// How many requests are remembered.
const REMEMBERED: usize = 1000;

/// The server. It stops when dropped.
pub struct ModbusServer {
    addr: SocketAddr,
    device: Arc<Device>,
    running: Option<Running>,
}

/// A request that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which unit.
    pub unit: u8,
    /// Which table.
    pub table: Table,
    /// From where.
    pub offset: u16,
    /// How many.
    pub quantity: u16,
}

struct Running {
    task: JoinHandle<()>,
    /// Each message cuts all connections there are.
    cut: mpsc::Sender<()>,
}

pub(super) struct Device {
    units: Mutex<HashMap<u8, Unit>>,
    asked: Mutex<VecDeque<Asked>>,
    reads: AtomicU64,
    hanging: watch::Sender<bool>,
    dead: watch::Sender<Option<u8>>,
    short: watch::Sender<bool>,
}

/// What one unit holds. An address that was never set does not exist.
#[derive(Default)]
struct Unit {
    cells: HashMap<Table, Vec<Option<u16>>>,
    refused: HashMap<(Table, u16), u8>,
    ignored: HashSet<(Table, u16)>,
}

impl ModbusServer {
    /// Starts one on a free port of 127.0.0.1, with no unit yet.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let device = Arc::new(Device::default());
        let running = Some(Running::start(listener, Arc::clone(&device)));
        Ok(Self { addr, device, running })
    }

    /// Where it listens, also while it is stopped.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same, as the driver is told.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp { host: self.addr.ip().to_string(), port: self.addr.port() }
    }

    /// Sets registers of `unit` from `offset` on; they exist from then on.
    pub fn set_holding(&self, unit: u8, offset: u16, words: &[u16]) {
        self.set(unit, Table::Holding, offset, words.iter().copied());
    }

    /// Sets input registers.
    pub fn set_input(&self, unit: u8, offset: u16, words: &[u16]) {
        self.set(unit, Table::Input, offset, words.iter().copied());
    }

    /// Sets coils.
    pub fn set_coils(&self, unit: u8, offset: u16, bits: &[bool]) {
        self.set(unit, Table::Coil, offset, bits.iter().map(|&bit| bit.into()));
    }

    /// Sets discrete inputs.
    pub fn set_discrete(&self, unit: u8, offset: u16, bits: &[bool]) {
        self.set(unit, Table::Discrete, offset, bits.iter().map(|&bit| bit.into()));
    }

    /// Answers each read that touches this address with exception `code`; `None` makes it well again.
    pub fn refuse(&self, unit: u8, table: Table, offset: u16, code: Option<u8>) {
        self.device.refuse(unit, table, offset, code);
    }

    /// Leaves requests without an answer while `on`; they are answered afterwards.
    pub fn hang(&self, on: bool) {
        self.device.hanging.send_replace(on);
    }

    /// Leaves requests to this unit without an answer, as a gateway does that says nothing of a device behind it. It goes on
    /// with those to others.
    pub fn silence(&self, unit: Option<u8>) {
        self.device.dead.send_replace(unit);
    }

    /// Leaves each read that touches this address without an answer while `on`, as devices do that know nothing of it.
    pub fn ignore(&self, unit: u8, table: Table, offset: u16, on: bool) {
        self.device.ignore(unit, table, offset, on);
    }

    /// Answers with one register (or eight bits) too few while `on`.
    pub fn answer_short(&self, on: bool) {
        self.device.short.send_replace(on);
    }

    /// What was asked, oldest first: the last 1,000 requests since this was last called.
    pub fn take_asked(&self) -> Vec<Asked> {
        self.device.take_asked()
    }

    /// How many read requests it has had since its start.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.device.reads.load(Ordering::Relaxed)
    }

    /// Cuts every connection; new ones are welcome.
    pub async fn cut(&self) {
        if let Some(running) = &self.running {
            let _ = running.cut.send(()).await;
        }
    }

    /// Stops listening and cuts every connection. What the units hold stays.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    /// Listens again, on the same port.
    ///
    /// # Errors
    /// When somebody else took the port.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.addr).await?;
        self.running = Some(Running::start(listener, Arc::clone(&self.device)));
        Ok(())
    }

    /// Sets registers or bits of any table.
    pub fn set(&self, unit: u8, table: Table, offset: u16, words: impl IntoIterator<Item = u16>) {
        self.device.set(unit, table, offset, words);
    }
}

impl Drop for ModbusServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

impl Running {
    fn start(listener: TcpListener, device: Arc<Device>) -> Self {
        let (cut, mut cuts) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let server = Server::new(listener);
            let connected = |stream, peer| {
                let device = Arc::clone(&device);
                async move { accept_tcp_connection(stream, peer, |_| Ok(Some(Answering(Arc::clone(&device))))) }
            };
            loop {
                // Dropping the serving future cuts the connections it has accepted.
                tokio::select! {
                    Some(()) = cuts.recv() => {}
                    _ = server.serve(&connected, |_| {}) => {}
                }
            }
        });
        Self { task, cut }
    }
}

/// One connection's view of the device.
struct Answering(Arc<Device>);

impl Service for Answering {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Result<Option<Response>, ExceptionCode>> + Send>>;

    fn call(&self, SlaveRequest { slave, request }: SlaveRequest<'static>) -> Self::Future {
        let device = Arc::clone(&self.0);
        Box::pin(async move {
            let mut hanging = device.hanging.subscribe();
            let _ = hanging.wait_for(|on| !on).await;
            if *device.dead.borrow() == Some(slave) {
                return Ok(None);
            }
            device.answer(slave, &request).transpose()
        })
    }
}

impl Default for Device {
    fn default() -> Self {
        Self {
            units: Mutex::default(),
            asked: Mutex::default(),
            reads: AtomicU64::new(0),
            hanging: watch::Sender::new(false),
            dead: watch::Sender::new(None),
            short: watch::Sender::new(false),
        }
    }
}

impl Device {
    pub(super) fn take_asked(&self) -> Vec<Asked> {
        lock(&self.asked).drain(..).collect()
    }

    pub(super) fn refuse(&self, unit: u8, table: Table, offset: u16, code: Option<u8>) {
        let mut units = lock(&self.units);
        let refused = &mut units.entry(unit).or_default().refused;
        match code {
            Some(code) => refused.insert((table, offset), code),
            None => refused.remove(&(table, offset)),
        };
    }

    pub(super) fn ignore(&self, unit: u8, table: Table, offset: u16, on: bool) {
        let mut units = lock(&self.units);
        let ignored = &mut units.entry(unit).or_default().ignored;
        if on {
            ignored.insert((table, offset))
        } else {
            ignored.remove(&(table, offset))
        };
    }

    pub(super) fn set(&self, unit: u8, table: Table, offset: u16, words: impl IntoIterator<Item = u16>) {
        let mut units = lock(&self.units);
        let cells =
            units.entry(unit).or_default().cells.entry(table).or_insert_with(|| vec![None; usize::from(u16::MAX) + 1]);
        for (cell, word) in cells[usize::from(offset)..].iter_mut().zip(words) {
            *cell = Some(word);
        }
    }

    /// The answer, if there is one.
    pub(super) fn answer(&self, unit: u8, request: &Request<'_>) -> Option<Result<Response, ExceptionCode>> {
        let (table, offset, quantity) = match *request {
            Request::ReadCoils(offset, quantity) => (Table::Coil, offset, quantity),
            Request::ReadDiscreteInputs(offset, quantity) => (Table::Discrete, offset, quantity),
            Request::ReadHoldingRegisters(offset, quantity) => (Table::Holding, offset, quantity),
            Request::ReadInputRegisters(offset, quantity) => (Table::Input, offset, quantity),
            _ => return Some(Err(ExceptionCode::IllegalFunction)),
        };
        self.remember(Asked { unit, table, offset, quantity });
        let most = if table.is_bits() { 2000 } else { 125 };
        if !(1..=most).contains(&quantity) {
            return Some(Err(ExceptionCode::IllegalDataValue));
        }
        if self.ignores(unit, table, offset, quantity) {
            return None;
        }
        let mut words = match self.read(unit, table, offset, quantity) {
            Ok(words) => words,
            Err(code) => return Some(Err(code)),
        };
        if *self.short.borrow() {
            words.truncate(words.len().saturating_sub(if table.is_bits() { 8 } else { 1 }));
        }
        let bits = || words.iter().map(|&word| word != 0).collect();
        Some(Ok(match table {
            Table::Coil => Response::ReadCoils(bits()),
            Table::Discrete => Response::ReadDiscreteInputs(bits()),
            Table::Holding => Response::ReadHoldingRegisters(words),
            Table::Input => Response::ReadInputRegisters(words),
        }))
    }

    fn ignores(&self, unit: u8, table: Table, offset: u16, quantity: u16) -> bool {
        let range = usize::from(offset)..usize::from(offset) + usize::from(quantity);
        let units = lock(&self.units);
        let touched = |(of, at): &(Table, u16)| *of == table && range.contains(&usize::from(*at));
        units.get(&unit).is_some_and(|unit| unit.ignored.iter().any(touched))
    }

    fn read(&self, unit: u8, table: Table, offset: u16, quantity: u16) -> Result<Vec<u16>, ExceptionCode> {
        let units = lock(&self.units);
        let unit = units.get(&unit).ok_or(ExceptionCode::GatewayTargetDevice)?;
        let range = usize::from(offset)..usize::from(offset) + usize::from(quantity);
        let refused = unit.refused.iter().find(|((of, at), _)| *of == table && range.contains(&usize::from(*at)));
        if let Some((_, &code)) = refused {
            return Err(ExceptionCode::new(code));
        }
        let cells = unit.cells.get(&table).ok_or(ExceptionCode::IllegalDataAddress)?;
        let cells = cells.get(range).ok_or(ExceptionCode::IllegalDataAddress)?;
        cells.iter().copied().collect::<Option<_>>().ok_or(ExceptionCode::IllegalDataAddress)
    }

    fn remember(&self, asked: Asked) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut log = lock(&self.asked);
        if log.len() == REMEMBERED {
            log.pop_front();
        }
        log.push_back(asked);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
