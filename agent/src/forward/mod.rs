//! The way up: one request in flight, from the spool's cursor on, until upstream has it.
//!
//! What follows from upstream's answers:
//!
//! - *Accepted*: the chunk is acknowledged, and the spool lets go. Points that a partial success rejects
//!   are a loss.
//! - *Later* (nobody there, no answer in time, 429, 502, 503, 504, a 200 that is no OTLP; `UNAVAILABLE`,
//!   `DEADLINE_EXCEEDED`, `CANCELLED`, `ABORTED`, `DATA_LOSS`): the same bytes again after a pause, for ever.
//!   `Retry-After` and gRPC's `RetryInfo` replace the pause, within 30 s.
//! - *Failed* (another 5xx; `INTERNAL`, `UNKNOWN`): the same, but what fails again and again may be our own doing. After
//!   [`Patience::server_errors`] retries upstream is asked to take an empty request: if it can, and fails over ours once
//!   more, ours counts as refused; if it fails over that too, upstream is down, and nothing is given up.
//! - *Refused* (400, 413, 422; `INVALID_ARGUMENT` and its like): half as many frames, until a single frame is refused.
//!   That one is a loss and kept as a dead letter (`letters`), its neighbours go through, and the requests grow back.
//! - *Too large* (`OUT_OF_RANGE`, and `RESOURCE_EXHAUSTED` without `RetryInfo`): half as many frames. A single frame, a few
//!   kilobytes, is hardly too large: that counts as failed. So the retry that the specification wants of `OUT_OF_RANGE`
//!   comes once there is nothing left to split, and ends.
//! - *Blocked* (401, 403, 404, redirects …; `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNIMPLEMENTED`, `NOT_FOUND`):
//!   everything is kept and tried at the longest pause, since somebody must act.
//!
//! A chunk can be a metrics, a logs and a traces request. What was accepted of these is not sent again: not after a failure,
//! nor in smaller pieces. A signal that `upstream.otlp.signals` leaves out is not packed, and no loss: a chunk with nothing
//! else is acknowledged.
//!
//! Losses are handed over *before* the acknowledgement: a crash in between tells of a loss twice rather
//! than never. A refused frame that itself only tells of a loss of upstream is not a loss again, since
//! refusing that one too would go on for ever; it counts as rejected.

mod answer;
mod client;
mod grpc;
mod http;
mod letters;
mod parcel;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gemba_drivers::supervisor::{FIRST_PAUSE, LONGEST_PAUSE, pauses};
use gemba_drivers::{Loss, Time};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, warn};

use crate::config::Upstream;
use crate::forward::answer::Answer;
use crate::forward::client::Client;
pub use crate::forward::client::SetupError;
pub use crate::forward::letters::{Letter, Letters};
use crate::forward::parcel::{Packing, Part, Pending, Sent, Span};
use crate::otlp::{Encoder, Payload};
use crate::snapshot::{UpstreamStatus, UpstreamView};
use crate::spool::{self, Chunk, Seq};
use crate::telemetry::meters::Meters;

/// Readings in a request at most: 1.35 MB of protobuf, 90-140 kB gzipped.
pub const READINGS_PER_REQUEST: usize = 10_000;
/// The source of a loss that upstream caused.
pub const UPSTREAM: &str = "upstream";

/// What is to be sent, in order. The spool's reader.
///
/// `next` and `acknowledge` may wait for the disk; they are called where blocking is allowed.
pub trait Backlog: Send {
    /// What can go wrong with the disk.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The newest frame that is durable.
    fn committed(&self) -> watch::Receiver<Seq>;

    /// What follows the cursor, about `limit` readings and at least one frame; `None` when there is nothing.
    /// Does not move the cursor.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn next(&mut self, limit: usize) -> Result<Option<Chunk>, Self::Error>;

    /// Moves the cursor: everything up to `through` is never asked for again.
    ///
    /// # Errors
    /// When the disk cannot be written.
    fn acknowledge(&mut self, through: Seq) -> Result<(), Self::Error>;
}

impl Backlog for spool::Reader {
    type Error = spool::SpoolError;

    fn committed(&self) -> watch::Receiver<Seq> {
        Self::committed(self)
    }

    fn next(&mut self, limit: usize) -> Result<Option<Chunk>, Self::Error> {
        Self::next(self, limit)
    }

    fn acknowledge(&mut self, through: Seq) -> Result<(), Self::Error> {
        Self::acknowledge(self, through)
    }
}

/// How long the forwarder waits, and how often it tries.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The pauses between one attempt and the next, without end.
    pub pauses: fn() -> Box<dyn Iterator<Item = Duration> + Send>,
    /// The shortest pause that a `Retry-After` can ask for.
    pub shortest: Duration,
    /// The longest, and the pause while blocked.
    pub longest: Duration,
    /// How often a request that fails within upstream (500) is sent again before it is asked whose fault that is.
    pub server_errors: u32,
}

impl Default for Patience {
    /// As everywhere in gemba; a failing upstream has one to two minutes to recover.
    fn default() -> Self {
        Self { pauses: || Box::new(pauses()), shortest: FIRST_PAUSE, longest: LONGEST_PAUSE, server_errors: 8 }
    }
}

/// Sends the backlog upstream.
pub struct Forwarder<B> {
    client: Client,
    packing: Packing,
    encoder: Encoder,
    backlog: B,
    losses: mpsc::Sender<Loss>,
    view: watch::Sender<UpstreamView>,
    patience: Patience,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    /// Prepared and not acknowledged.
    pending: Option<Pending>,
    /// Frames in a request at most; lowered by a refusal.
    frames: usize,
    /// How far upstream has each signal: some further than all of them.
    sent: Sent,
    /// To be told before the next acknowledgement.
    owed: Vec<Loss>,
    /// Where what is refused for good is kept.
    letters: Option<Letters>,
}

/// An answer that ends the matter.
struct Reached {
    accepted: bool,
    /// Points or log records that it does not want.
    rejected: u64,
    complaint: Option<String>,
}

enum Step {
    /// Nothing to send.
    Idle,
    /// Something was acknowledged, or is to be tried in a smaller piece.
    Moved,
    /// Try again after this.
    Wait(Duration),
    /// Nobody takes losses any more: the agent is going down, so nothing more is acknowledged.
    Deaf,
}

impl<B: Backlog> Forwarder<B> {
    /// A forwarder to `upstream`. Losses go to `losses`, which is waited for; how it goes is in `view`.
    ///
    /// # Errors
    /// When the endpoint, a header or the authorities' file cannot be used.
    pub fn new(
        upstream: &Upstream,
        encoder: Encoder,
        backlog: B,
        losses: mpsc::Sender<Loss>,
        view: watch::Sender<UpstreamView>,
    ) -> Result<Self, SetupError> {
        let patience = Patience::default();
        Ok(Self {
            client: Client::new(upstream)?,
            packing: Packing { protocol: upstream.protocol, gzip: upstream.gzip },
            encoder: encoder.of(&upstream.signals),
            backlog,
            losses,
            view,
            patience,
            waits: (patience.pauses)(),
            pending: None,
            frames: usize::MAX,
            sent: Sent::default(),
            owed: Vec::new(),
            letters: None,
        })
    }

    /// Keeps what upstream refuses for good in `letters`, before it is let go of.
    #[must_use]
    pub fn keeping_refused(mut self, letters: Letters) -> Self {
        self.letters = Some(letters);
        self
    }

    /// Counts its requests in `meters`.
    #[must_use]
    pub fn counting_in(mut self, meters: Arc<Meters>) -> Self {
        self.client.meters = meters;
        self
    }

    /// Waits otherwise than usual; for tests.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.waits = (patience.pauses)();
        self.patience = patience;
        self
    }

    /// Sends until `stop`; then sends what is committed, until all of it is accepted or one request is not.
    ///
    /// It is the caller who sets a deadline for that. May be dropped at any await: what was not acknowledged
    /// is sent again after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut committed = self.backlog.committed();
        loop {
            let stopping = stop.is_cancelled();
            committed.borrow_and_update();
            match self.step().await {
                Step::Moved => {}
                Step::Deaf => return,
                Step::Idle | Step::Wait(_) if stopping => return,
                Step::Idle => tokio::select! {
                    Ok(()) = committed.changed() => {}
                    () = stop.cancelled() => {}
                },
                Step::Wait(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                },
            }
        }
    }

    /// One chunk as far as it goes.
    async fn step(&mut self) -> Step {
        if self.pending.is_none() {
            match blocking(|| self.prepare()) {
                Ok(Some(pending)) => self.pending = Some(pending),
                Ok(None) => return Step::Idle,
                Err(error) => return self.stuck(&error),
            }
        }
        while let Some(pending) = &mut self.pending
            && let Some(part) = pending.parts.front_mut()
        {
            // A span of what carries spans would be carried next, and so on for ever.
            let span = if pending.span.own { tracing::Span::none() } else { part.traced() };
            part.attempts += 1;
            if part.attempts > 1 {
                self.view.send_modify(|view| view.retries += 1);
            }
            let answer = self.client.send(part.signal, &part.body).instrument(span.clone()).await;
            if let Some(why) = answer.complaint() {
                span.record("otel.status_code", "ERROR");
                span.record("otel.status_description", why);
            }
            let answer = self.judged(answer).await;
            if let Some(step) = self.follow(answer) {
                return step;
            }
        }
        self.conclude().await
    }

    /// The next chunk, encoded.
    fn prepare(&mut self) -> Result<Option<Pending>, B::Error> {
        let Some(mut chunk) = self.backlog.next(READINGS_PER_REQUEST)? else { return Ok(None) };
        if chunk.entries.len() > self.frames {
            chunk.entries.truncate(self.frames);
            chunk.last = chunk.entries.last().map_or(chunk.last, |(seq, _)| *seq);
        }
        if let Some(frames) = self.sent.within(&chunk) {
            chunk.entries.truncate(frames);
            chunk.last = chunk.entries.last().map_or(chunk.last, |(seq, _)| *seq);
        }
        let encoded = self.encoder.encode(&chunk.entries);
        let orphans = encoded.orphans;
        Ok(Some(Pending {
            last: chunk.last,
            frames: chunk.entries.len(),
            parts: self.sent.missing(encoded, chunk.last, self.packing),
            span: Span::of(&chunk.entries),
            orphans,
            refused: false,
        }))
    }

    /// Splits what is too large, and finds out whose fault a failure is that does not pass: ours if upstream takes, or at least answers, a request with nothing in
    /// it, and then fails over ours once more.
    async fn judged(&mut self, answer: Answer) -> Answer {
        let most = self.patience.server_errors;
        let Some(pending) = &mut self.pending else { return answer };
        let frames = pending.frames;
        let Some(part) = pending.parts.front_mut() else { return answer };
        let why = match answer {
            Answer::TooLarge { why } if frames > 1 => return Answer::Refused { why },
            Answer::Failed { why } | Answer::TooLarge { why } if part.server_errors >= most => why,
            Answer::TooLarge { why } => return Answer::Failed { why },
            answer => return answer,
        };
        let empty = Part::new(part.signal, Payload { body: Bytes::new(), items: 0 }, self.packing);
        match self.client.send(empty.signal, &empty.body).await {
            Answer::Accepted { .. } | Answer::Refused { .. } => {}
            Answer::Later { .. } | Answer::Failed { .. } | Answer::TooLarge { .. } | Answer::Blocked { .. } => {
                return Answer::Later { why, after: None };
            }
        }
        part.attempts += 1;
        self.view.send_modify(|view| view.retries += 1);
        match self.client.send(part.signal, &part.body).await {
            Answer::Failed { why } | Answer::TooLarge { why } => Answer::Refused { why },
            answer => answer,
        }
    }

    /// What an answer to the first part means; `None` when that part is done with.
    fn follow(&mut self, answer: Answer) -> Option<Step> {
        let patience = self.patience;
        let part = self.pending.as_mut()?.parts.front_mut()?;
        match answer {
            Answer::Accepted { rejected, message } => {
                let rejected = rejected.min(part.items);
                self.waits = (patience.pauses)();
                if rejected > 0 {
                    self.owe(rejected, message.as_deref().unwrap_or("partial success"));
                }
                self.reachable(Reached { accepted: true, rejected, complaint: message });
                self.settle();
                None
            }
            Answer::Later { why, after } => {
                let pause = match after {
                    Some(after) => after.clamp(patience.shortest, patience.longest),
                    None => self.waits.next().unwrap_or(patience.longest),
                };
                self.failing(UpstreamStatus::Disconnected, why, pause);
                Some(Step::Wait(pause))
            }
            Answer::Failed { why } | Answer::TooLarge { why } => {
                part.server_errors += 1;
                let pause = self.waits.next().unwrap_or(patience.longest);
                self.failing(UpstreamStatus::Disconnected, why, pause);
                Some(Step::Wait(pause))
            }
            Answer::Refused { why } => self.refused(&why),
            Answer::Blocked { why } => {
                self.failing(UpstreamStatus::Blocked, why, patience.longest);
                Some(Step::Wait(patience.longest))
            }
        }
    }

    /// Looks for the frame that upstream does not want; gives it up once it stands alone.
    fn refused(&mut self, why: &str) -> Option<Step> {
        self.waits = (self.patience.pauses)();
        let pending = self.pending.as_mut()?;
        if pending.frames > 1 {
            self.frames = pending.frames / 2;
            self.pending = None;
            return Some(Step::Moved);
        }
        let (signal, items) = pending.parts.front().map(|part| (part.signal, part.items))?;
        let (count, span) = (pending.span.count, pending.span);
        // One loss for one frame, though both its metrics and its logs may be refused.
        if !std::mem::replace(&mut pending.refused, true) {
            self.owe(count, why);
        }
        self.reachable(Reached { accepted: false, rejected: items, complaint: Some(why.to_owned()) });
        // What the agent says of itself, and of this very trouble, is not worth the room.
        if !span.own && !span.told {
            let letter =
                Letter { refused: Time::now(), signal, items, from: span.from, to: span.to, why: why.to_owned() };
            blocking(|| self.write(&letter));
        }
        self.settle();
        None
    }

    /// Keeps what was just refused. The frame is read and encoded again, which gives the same, rather than every request kept
    /// in plain for this.
    fn write(&mut self, letter: &Letter) {
        let Some(letters) = &self.letters else { return };
        let Ok(Some(mut chunk)) = self.backlog.next(1) else { return };
        chunk.entries.truncate(1);
        let Some(payload) = self.encoder.encode(&chunk.entries).of(letter.signal) else { return };
        match letters.keep(letter, &payload.body) {
            Ok(number) => warn!(number, "what upstream refused is kept; see gemba spool dead-letter"),
            Err(error) => warn!(%error, "what upstream refused cannot be kept"),
        }
    }

    /// The first part will not be sent again.
    fn settle(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        if let Some(part) = pending.parts.pop_front() {
            self.sent.note(part.signal, pending.last);
        }
    }

    fn owe(&mut self, count: u64, reason: &str) {
        let Some(Pending { span, .. }) = &self.pending else { return };
        if !span.told {
            self.owed.push(Loss {
                source: UPSTREAM.into(),
                from: span.from,
                to: span.to,
                count,
                reason: reason.into(),
            });
        }
    }

    /// All parts are settled: tells of losses, then lets go.
    async fn conclude(&mut self) -> Step {
        if let Some(pending) = &mut self.pending {
            let orphans = std::mem::take(&mut pending.orphans);
            if orphans > 0 {
                self.owe(orphans, "the catalog lacks the series");
            }
        }
        while let Some(loss) = self.owed.first() {
            if self.losses.send(loss.clone()).await.is_err() {
                return Step::Deaf;
            }
            self.owed.remove(0);
        }
        let Some(last) = self.pending.as_ref().map(|pending| pending.last) else { return Step::Idle };
        if let Err(error) = blocking(|| self.backlog.acknowledge(last)) {
            return self.stuck(&error);
        }
        if self.pending.take().is_some_and(|pending| !pending.refused) {
            self.frames = self.frames.saturating_mul(2);
        }
        Step::Moved
    }

    /// The disk does not play along; /health shows the spool's own account of it.
    fn stuck(&mut self, error: &B::Error) -> Step {
        let pause = self.waits.next().unwrap_or(self.patience.longest);
        self.failing(UpstreamStatus::Disconnected, format!("the spool: {error}"), pause);
        Step::Wait(pause)
    }

    /// Upstream answered, and is done with what it was sent.
    fn reachable(&self, Reached { accepted, rejected, complaint }: Reached) {
        let (connected, repeated) = {
            let view = self.view.borrow();
            (view.status == UpstreamStatus::Connected, view.last_error == complaint)
        };
        match &complaint {
            Some(complaint) if !connected || !repeated => warn!(%complaint, "upstream objects to what it gets"),
            None if !connected => info!("upstream accepts"),
            _ => {}
        }
        let now = Time::now();
        self.view.send_modify(|view| {
            if !connected {
                view.status = UpstreamStatus::Connected;
                view.since = now;
            }
            if accepted {
                view.last_success = Some(now);
            }
            if complaint.is_some() {
                view.last_error = complaint;
            }
            view.rejected += rejected;
        });
    }

    fn failing(&self, status: UpstreamStatus, why: String, pause: Duration) {
        // The same failure again is on /health; the log says it once.
        let news = {
            let view = self.view.borrow();
            view.status != status || view.last_error.as_deref() != Some(&why)
        };
        if !news {
            return;
        }
        warn!(%why, retry_in = ?pause, "upstream is {}", status.word());
        self.view.send_modify(|view| {
            if view.status != status {
                view.status = status;
                view.since = Time::now();
            }
            view.last_error = Some(why);
        });
    }
}

/// What upstream says of a letter that is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resent {
    /// It has all of it now.
    Accepted,
    /// It rejects some of it, or all.
    Refused(String),
    /// It cannot be asked at present.
    Unreachable(String),
}

/// Sends a letter again, once.
///
/// # Errors
/// When the endpoint, a header or the authorities' file cannot be used.
pub async fn resend(upstream: &Upstream, letter: &Letter, body: Bytes) -> Result<Resent, SetupError> {
    let packing = Packing { protocol: upstream.protocol, gzip: upstream.gzip };
    let part = Part::new(letter.signal, Payload { body, items: letter.items }, packing);
    Ok(match Client::new(upstream)?.send(part.signal, &part.body).await {
        Answer::Accepted { rejected: 0, .. } => Resent::Accepted,
        Answer::Accepted { rejected, message } => {
            Resent::Refused(message.unwrap_or_else(|| format!("{rejected} of {} items are rejected", letter.items)))
        }
        Answer::Refused { why } | Answer::Failed { why } | Answer::TooLarge { why } => Resent::Refused(why),
        Answer::Later { why, .. } | Answer::Blocked { why } => Resent::Unreachable(why),
    })
}

/// Runs `work` where it may wait for the disk, if the runtime has such a place.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}
