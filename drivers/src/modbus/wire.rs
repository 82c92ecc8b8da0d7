//! One request, one answer, over whatever carries them.

use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_serial::{DataBits, SerialPortBuilderExt as _, StopBits};
use tracing::debug;

use super::endpoint::{Endpoint, Line, Parity};
use super::frame::{Answer, Asked, Found, Framing, Oddity, Stray, frame_at};
use super::plan::Read;
use crate::LinkError;

/// A frame that is all there and wrong is followed by nothing when the line has been quiet for so long; drivers and USB
/// converters hand bytes on in pieces, some every 16 ms.
const QUIET: Duration = Duration::from_millis(100);
/// How often a line that is never silent is waited for before a question.
const SILENCES: usize = 10;
/// The most that is kept of what came; a frame has at most 260 bytes.
const MOST_HELD: usize = 4096;
/// How many questions that were given up are remembered, to know a late answer from a wrong one.
const MOST_OWED: usize = 64;

/// What carries bytes.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection or a serial line. One request is in flight at a time.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    framing: Framing,
    /// The serial line's settings, where it is ours.
    line: Option<Line>,
    pause: Duration,
    held: Vec<u8>,
    /// When the last byte came or went.
    busy: Option<Instant>,
    transaction: u16,
    /// Questions that were given up.
    owed: Vec<Owed>,
    /// Of those that were answered after all: which unit, and how long it took.
    late: Vec<(u8, Duration)>,
    discarded: [u64; Oddity::ALL.len()],
}

/// A question that was given up.
struct Owed {
    transaction: u16,
    unit: u8,
    asked: Instant,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing in time that could be believed; the last thing that could not.
    Unanswered(Option<Oddity>),
    /// The link is of no use any more.
    Link(LinkError),
}

impl Wire {
    /// Connects within `limit`, or opens the line.
    pub(super) async fn connect(endpoint: &Endpoint, limit: Duration, pause: Duration) -> Result<Self, LinkError> {
        let (stream, framing, line): (Box<dyn Stream>, _, _) = match endpoint {
            Endpoint::Tcp { host, port } => (Box::new(dial(host, *port, limit).await?), Framing::Tcp, None),
            Endpoint::RtuOverTcp { host, port } => (Box::new(dial(host, *port, limit).await?), Framing::Rtu, None),
            Endpoint::Rtu { path, line } => (Box::new(open(path, *line)?), Framing::Rtu, Some(*line)),
        };
        Ok(Self::over(stream, framing, line, pause))
    }

    /// Over something that is there already.
    pub(super) fn over(stream: Box<dyn Stream>, framing: Framing, line: Option<Line>, pause: Duration) -> Self {
        let (held, owed, late) = (Vec::new(), Vec::new(), Vec::new());
        let discarded = [0; Oddity::ALL.len()];
        Self { stream, framing, line, pause, held, busy: None, transaction: 0, owed, late, discarded }
    }

    /// How many frames were discarded since this was last asked, by kind.
    pub(super) fn take_discarded(&mut self) -> [u64; Oddity::ALL.len()] {
        std::mem::take(&mut self.discarded)
    }

    /// Which units answered what had been given up, since this was last asked, and how long each took.
    pub(super) fn take_late(&mut self) -> Vec<(u8, Duration)> {
        std::mem::take(&mut self.late)
    }

    /// Whether an answer cannot be told from that of another question by its number.
    pub(super) fn is_rtu(&self) -> bool {
        self.framing == Framing::Rtu
    }

    /// Asks `unit` for `read` and waits `limit` for the answer, on a serial line beside the time that the bytes take.
    /// Whatever else comes meanwhile is discarded and counted. A question that was given up is never answered by what comes
    /// late: over TCP its number is not used again soon, over RTU see [`Wire::settle`].
    pub(super) async fn ask(&mut self, unit: u8, read: &Read, limit: Duration) -> Result<Answer, Failure> {
        self.settle().await?;
        self.transaction = self.transaction.wrapping_add(1);
        let (table, offset, quantity) = (read.table, read.offset, read.quantity);
        let asked = Asked { transaction: self.transaction, unit, table, offset, quantity };
        let frame = asked.encode(self.framing);
        let began = Instant::now();
        let deadline = began + limit + self.on_air(frame.len() + asked.rtu_length());
        let sent = timeout_at(deadline, self.stream.write_all(&frame)).await;
        self.busy = Some(Instant::now());
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(broken(&error)),
            // What was half sent makes no sense of what is sent next.
            Err(_) => return Err(Failure::Link(LinkError::Silent(limit))),
        }
        let mut last = None;
        let heard = loop {
            if let Some(answer) = self.find(&asked, &frame, &mut last)? {
                return Ok(answer);
            }
            let until = if self.has_wrong(&asked, &frame) { deadline.min(Instant::now() + QUIET) } else { deadline };
            let mut some = [0; 512];
            match timeout_at(until, self.stream.read(&mut some)).await {
                Ok(Ok(0)) => return Err(closed()),
                Ok(Ok(count)) => {
                    self.busy = Some(Instant::now());
                    self.held.extend(&some[..count]);
                }
                Ok(Err(error)) => return Err(broken(&error)),
                Err(_) => break std::mem::take(&mut self.held),
            }
            if self.held.len() > MOST_HELD {
                break std::mem::take(&mut self.held);
            }
        };
        if !self.is_rtu() {
            self.held = heard; // the beginning of a frame: its rest comes, and is discarded as a whole
        } else {
            let late = self.owes(unit);
            let strays = asked.sweep(heard.strip_prefix(frame.as_slice()).unwrap_or(&heard));
            strays.iter().for_each(|stray| last = Some(self.discard_stray(*stray)));
            // A device that always says too much or too little is there, and its tags should say what is wrong.
            if !late && strays.contains(&Stray { oddity: Oddity::Length, unit: Some(unit) }) {
                return Ok(Answer::WrongLength);
            }
        }
        if self.owed.len() == MOST_OWED {
            self.owed.remove(0);
        }
        self.owed.push(Owed { transaction: asked.transaction, unit, asked: began });
        Err(Failure::Unanswered(last))
    }

    /// Says goodbye; the peer may be gone already.
    pub(super) async fn close(mut self) {
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }

    /// The answer in what came, if it is there. Over TCP frames before it are discarded at once. Over RTU our own question, which
    /// many an RS-485 adapter hears itself say, is nothing that has to be counted.
    fn find(&mut self, asked: &Asked, question: &[u8], last: &mut Option<Oddity>) -> Result<Option<Answer>, Failure> {
        if self.is_rtu() {
            let Some((answer, range)) = asked.find_rtu(&self.held) else { return Ok(None) };
            let before: Vec<u8> = self.held.drain(..range.end).take(range.start).collect();
            for stray in asked.sweep(before.strip_prefix(question).unwrap_or(&before)) {
                self.discard_stray(stray);
            }
            self.owed.retain(|owed| owed.unit != asked.unit); // answers come in order
            return Ok(Some(answer));
        }
        loop {
            match asked.find_tcp(&self.held) {
                Found::Partial => return Ok(None),
                Found::Garbage => {
                    return Err(Failure::Link(LinkError::Broken("the device does not speak Modbus TCP".to_owned())));
                }
                Found::Answer(answer, length) => {
                    self.held.drain(..length);
                    if answer == Answer::WrongLength {
                        self.discarded[Oddity::Length as usize] += 1;
                    }
                    return Ok(Some(answer));
                }
                Found::Odd(oddity, transaction, length) => {
                    self.held.drain(..length);
                    let late = self.pay(|owed| owed.transaction == transaction);
                    *last = Some(self.discard(if late { Oddity::Late } else { oddity }));
                }
            }
        }
    }

    /// Waits until the line has been silent for long enough, and clears what came meanwhile: nobody asked for it. Over TCP
    /// only the pause is kept, since an answer has its number.
    async fn settle(&mut self) -> Result<(), Failure> {
        let silence = self.line.map_or(Duration::ZERO, |line| line.silence());
        for _ in 0..SILENCES {
            let free = self.busy.map(|busy| busy + silence + self.pause);
            if let Some(free) = free.filter(|free| Instant::now() < *free) {
                sleep_until(free).await;
            }
            if !self.is_rtu() || !self.clear()? {
                break;
            }
        }
        Ok(())
    }

    /// Takes what is there without waiting. Whether there was something.
    fn clear(&mut self) -> Result<bool, Failure> {
        let mut some = [0; 512];
        while let Some(read) = self.stream.read(&mut some).now_or_never() {
            match read {
                Ok(0) => return Err(closed()),
                Ok(count) => {
                    self.busy = Some(Instant::now());
                    self.held.extend(&some[..count]);
                }
                Err(error) => return Err(broken(&error)),
            }
            if self.held.len() > MOST_HELD {
                break;
            }
        }
        let came = !self.held.is_empty();
        if came {
            if let Some(unit) = frame_at(&self.held).map(|frame| frame[0]) {
                self.pay(|owed| owed.unit == unit);
            }
            self.held.clear();
            self.owed.clear();
            self.discard(Oddity::Late);
        }
        Ok(came)
    }

    /// Whether what came over RTU has been wrong: a whole frame of the unit that is not the answer, or as much noise as the
    /// answer has bytes. Others may talk as they like, and so may the echo of our own question.
    fn has_wrong(&self, asked: &Asked, question: &[u8]) -> bool {
        let held = self.held.strip_prefix(question).unwrap_or(&self.held);
        let whole = self.is_rtu() && held.len() >= 5 && !question.starts_with(held);
        whole
            && asked.sweep(held).iter().any(|stray| match stray.unit {
                Some(unit) => unit == asked.unit && !self.owes(unit),
                None => stray.oddity == Oddity::Crc && held.len() >= asked.rtu_length(),
            })
    }

    fn discard_stray(&mut self, stray: Stray) -> Oddity {
        let late = stray.unit.is_some_and(|unit| self.pay(|owed| owed.unit == unit));
        self.discard(if late { Oddity::Late } else { stray.oddity })
    }

    fn discard(&mut self, oddity: Oddity) -> Oddity {
        debug!(kind = oddity.word(), "a frame was discarded");
        self.discarded[oddity as usize] += 1;
        oddity
    }

    /// Whether a question was given up that this answers. It is answered by now.
    fn pay(&mut self, answers: impl Fn(&Owed) -> bool) -> bool {
        let Some(place) = self.owed.iter().position(answers) else { return false };
        let Owed { unit, asked, .. } = self.owed.remove(place);
        self.late.push((unit, asked.elapsed()));
        true
    }

    /// Whether `unit` was asked something that was given up since.
    fn owes(&self, unit: u8) -> bool {
        self.owed.iter().any(|owed| owed.unit == unit)
    }

    /// How long so many bytes take on the line: 11 bits each.
    fn on_air(&self, bytes: usize) -> Duration {
        self.line.map_or(Duration::ZERO, |line| Duration::from_secs_f64(11.0 * bytes as f64 / f64::from(line.baud)))
    }
}

async fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, LinkError> {
    let stream = match timeout(limit, TcpStream::connect((host, port))).await {
        Err(_) => return Err(LinkError::Unreachable(format!("no answer within {limit:?}"))),
        Ok(Err(error)) => return Err(LinkError::Unreachable(error.to_string())),
        Ok(Ok(stream)) => stream,
    };
    stream.set_nodelay(true).map_err(|error| LinkError::Unreachable(error.to_string()))?;
    Ok(stream)
}

/// Opens the line for us alone: two who ask take each other's answers.
fn open(path: &str, line: Line) -> Result<tokio_serial::SerialStream, LinkError> {
    let parity = match line.parity {
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
        Parity::None => tokio_serial::Parity::None,
    };
    let stop_bits = if line.stop_bits == 2 { StopBits::Two } else { StopBits::One };
    tokio_serial::new(path, line.baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(stop_bits)
        .open_native_async()
        .map_err(|error| LinkError::Unreachable(format!("{path} ({line}): {error}")))
}

fn closed() -> Failure {
    Failure::Link(LinkError::Broken("the device closed the connection".to_owned()))
}

fn broken(error: &io::Error) -> Failure {
    Failure::Link(LinkError::Broken(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the device closed the connection".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the device reset the connection".to_owned(),
        _ => error.to_string(),
    }))
}
