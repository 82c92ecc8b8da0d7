//! `GET /events`: the line as it changes, as server-sent events.
//!
//! | event | data | when |
//! |---|---|---|
//! | `state` | the body of `/health` | first, and again for who missed a change |
//! | `change` | what is no longer as it was told before | at most once a second, and only if something is |
//! | `time` | `{"now":"RFC3339"}`, the gateway's clock | after five seconds without a change |
//!
//! A `change` is a part of that body: fields at its top that changed, whole (`losses`, `spool`, `upstream` …), always
//! with `time` and `uptime_s`. Of `stations` it has those that changed, each with its `name` and the fields that
//! changed; of their `tags` those that changed, whole. Time that goes by (`time`, `uptime_s`, `age_ms`) is no change.
//! So a reader holds the last `state` and overwrites in it, stations and tags by their names.
//!
//! `?as=html` is the same for our own page, with fragments of it in place of figures (`page`).
//!
//! Nobody renders for nobody, and no task does: whoever waits for the next frame when it is due makes it, for all who
//! listen. A frame is serialised once and shared, a second or more after the last, and a fresh snapshot is wanted only
//! for a frame. Who reads slowly holds nothing up: each takes the newest frame when it has room, and one that
//! missed a frame gets the newest `state`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use gemba_drivers::Time;
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use super::status::{self, Verdict};
use super::{Desk, NO_STORE, View, problem};
use crate::snapshot::Snapshot;

/// As many pages may be open at once; one more is answered 503.
pub const MOST_LISTENERS: usize = 256;

/// From one frame to the next, at the least.
const EVERY: Duration = Duration::from_secs(1);

/// A frame may take so much of the time: where rendering is slow, frames come further apart.
const SHARE: u32 = 10;

/// Who hears nothing for longer may take the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a listener is told. The first event also says when to come back after a break, in milliseconds.
const RETRY: &str = "retry: 2000\n";

/// One way to tell the line's state.
pub(super) trait Form: Sized + Send + Sync + 'static {
    /// Where the desk keeps what was told this way.
    fn live(desk: &Desk) -> &Live<Self>;

    /// The state, rendered.
    fn of(view: &View, verdict: &Verdict) -> Self;

    /// The data of a `state` event: one line of JSON.
    fn state(&self) -> String;

    /// What is no longer as it was `before`.
    fn change(&self, before: &Self) -> Change;
}

/// From one state to the next.
pub(super) enum Change {
    /// None that anybody need know.
    Nothing,
    /// The data of a `change` event: one line of JSON.
    Parts(String),
    /// Too much: the whole state is told again.
    Everything,
}

/// What is told in one form, shared by all who listen.
pub(super) struct Live<F> {
    board: Mutex<Board<F>>,
}

/// The newest frame.
struct Board<F> {
    shown: Option<F>,
    /// Counts changes, from 1.
    seq: u64,
    /// The event that leads here from the frame before.
    change: Bytes,
    /// The event that leads here from nowhere; made when somebody first needs it.
    state: Option<Bytes>,
    /// When the frame is too old to be told.
    due: Instant,
}

impl<F: Form> Live<F> {
    pub(super) fn new() -> Self {
        let board = Board { shown: None, seq: 0, change: Bytes::new(), state: None, due: Instant::now() };
        Self { board: Mutex::new(board) }
    }

    /// What to tell one who was last told frame `seen`, if anything; which frame that is; and when to ask again.
    async fn next(&self, desk: &Desk, seen: u64) -> (u64, Option<Bytes>, Instant) {
        let mut board = self.board.lock().await;
        if board.due <= Instant::now() {
            let view = desk.view().await;
            board.renew(&view);
        }
        let event = match board.seq {
            same if same == seen => None,
            next if seen > 0 && next == seen + 1 => Some(board.change.clone()),
            _ => Some(board.state()),
        };
        (board.seq, event, board.due)
    }
}

impl<F: Form> Board<F> {
    fn renew(&mut self, view: &View) {
        let begun = Instant::now();
        let shown = F::of(view, &status::judge(view));
        let change = self.shown.as_ref().map_or(Change::Everything, |before| shown.change(before));
        self.shown = Some(shown);
        self.state = None;
        match change {
            Change::Nothing => {}
            Change::Parts(data) => (self.seq, self.change) = (self.seq + 1, event("change", &data)),
            Change::Everything => (self.seq, self.change) = (self.seq + 1, self.state()),
        }
        let now = Instant::now();
        self.due = now + EVERY.max((now - begun) * (SHARE - 1));
    }

    fn state(&mut self) -> Bytes {
        let data = || self.shown.as_ref().map(F::state).unwrap_or_default();
        self.state.get_or_insert_with(|| event("state", &data())).clone()
    }
}

/// Bytes of one event.
fn event(name: &str, data: &str) -> Bytes {
    debug_assert!(!data.contains('\n'), "one line of JSON");
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The answer that never ends, but for a stop of the agent.
pub(super) fn answer<F: Form>(desk: Arc<Desk>) -> Response {
    let Ok(place) = desk.places.clone().try_acquire_owned() else {
        let detail = format!("{MOST_LISTENERS} pages are open already; close one, or ask /health");
        return ([(header::RETRY_AFTER, "10")], problem(StatusCode::SERVICE_UNAVAILABLE, detail)).into_response();
    };
    let listener = Listener::<F>::new(desk, place);
    let events = stream::unfold(listener, |mut listener| async move {
        let event = listener.hear().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    // Some proxies would gather events into something larger before they pass them on.
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    let retry = stream::iter([Ok(Bytes::from_static(RETRY.as_bytes()))]);
    let body = Body::from_stream(stream::StreamExt::chain(retry, events));
    ([(header::CONTENT_TYPE, "text/event-stream"), NO_STORE, unbuffered], body).into_response()
}

/// An open page.
struct Listener<F> {
    desk: Arc<Desk>,
    /// Its sender goes with the pipeline: then nothing more is to come.
    snapshots: watch::Receiver<Arc<Snapshot>>,
    form: std::marker::PhantomData<fn() -> F>,
    /// The frame it was last told; 0 before the first.
    seen: u64,
    /// When it was last told anything.
    told: Instant,
    _place: OwnedSemaphorePermit,
}

impl<F: Form> Listener<F> {
    fn new(desk: Arc<Desk>, place: OwnedSemaphorePermit) -> Self {
        let snapshots = desk.sources.snapshot.clone();
        Self { desk, snapshots, form: std::marker::PhantomData, seen: 0, told: Instant::now(), _place: place }
    }

    /// The next event, whenever it comes; `None` when the agent stops.
    async fn hear(&mut self) -> Option<Bytes> {
        loop {
            self.snapshots.has_changed().ok()?;
            let (seq, event, due) = F::live(&self.desk).next(&self.desk, self.seen).await;
            self.seen = seq;
            let silent = self.told + HEARTBEAT;
            let event = event.or_else(|| (silent <= Instant::now()).then(|| beat(Time::now())));
            if event.is_some() {
                self.told = Instant::now();
                return event;
            }
            tokio::select! {
                () = sleep_until(due.min(silent)) => {}
                () = ended(&mut self.snapshots) => return None,
            }
        }
    }
}

fn beat(now: Time) -> Bytes {
    event("time", &format!("{{\"now\":\"{:.3}\"}}", now.timestamp()))
}

/// When nobody will take a snapshot any more.
async fn ended(snapshots: &mut watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {}
}
