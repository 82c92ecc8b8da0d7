//! The local page: `/health`, its probes, `/events`, `/entries` and `/metrics`.
//!
//! Handlers read [`Snapshot`]s and never live state; what a snapshot does not hold, `explain` has the pipeline say. One that wants a fresher snapshot than the last
//! says so through [`Sources::wanted`] and waits a moment; the pipeline answers when it next has
//! time, so no reader can slow a driver down. The one way in is `entries`, and `may` says who may take it.
//!
//! `status` judges what is well; `health` writes it all as JSON, `page` for people, `metrics`
//! for Prometheus. All of them are pure: everything they tell is in a `View`. `events` tells who listens what
//! changed in the JSON or on the page.

mod accept;
mod entries;
mod events;
mod explain;
#[cfg(test)]
mod fixture;
mod flow;
mod health;
mod kpi;
mod may;
mod metrics;
mod page;
#[cfg(test)]
mod promlint;
mod status;
mod told;
mod trace;
mod watched;
mod watched_metrics;
mod words;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use gemba_drivers::{LinkState, Time};
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::snapshot::{GatewayView, Snapshot, UpstreamView};

pub use entries::{MOST_TELLINGS, NotTaken, Silence, Telling, Told};
pub use events::MOST_LISTENERS;
pub use explain::{Answer, ExplanationJson, MOST_QUESTIONS, Question, Refusal};
pub use flow::Flow;
pub use kpi::Kpi;
pub use status::Status;
pub use watched::{Figures as InspectionFigures, NamedAnomaly, NamedChart, NamedFigures, NamedViolation};

/// A pipeline that leaves a request for a snapshot unanswered for so long is stuck.
///
/// Counted from the first request, not from the last snapshot: while nobody asks, none is taken.
pub const STUCK_AFTER: Duration = Duration::from_secs(15);

/// A snapshot of this age is shown as it is.
const FRESH: Duration = Duration::from_millis(250);

/// How long a handler waits for a fresher snapshot before it shows the one that is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the handlers look at.
pub struct Sources {
    /// Who we are.
    pub identity: Identity,
    /// The line, as the pipeline last showed it. Before the first time: [`Snapshot::default`].
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Rung when somebody wants a fresher snapshot.
    pub wanted: Arc<Notify>,
    /// Each link's state, in the order of [`crate::config::Config::links`].
    pub links: Vec<watch::Receiver<LinkState>>,
    /// The way up.
    pub upstream: watch::Receiver<UpstreamView>,
    /// The machine below.
    pub gateway: watch::Receiver<GatewayView>,
    /// Questions that a snapshot does not answer. When it is full whoever asks is told to come again.
    pub questions: mpsc::Sender<Question>,
    /// What people tell; none if nobody may.
    pub entries: Option<mpsc::Sender<Telling>>,
}

/// Who we are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// gemba's version.
    pub version: Arc<str>,
    /// The plant.
    pub site: Arc<str>,
    /// The line.
    pub line: Arc<str>,
    /// When the agent started, by the wall clock.
    pub started: Time,
    /// Of the clock on the plant's wall.
    pub timezone: TimeZone,
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Somebody else listens there.
    #[error("{listen} is in use by another program; set http.listen to another port")]
    InUse {
        /// Where we wanted to listen.
        listen: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error("{} is no address of this machine; set http.listen to one that is, or to 0.0.0.0:{}", .listen.ip(), .listen.port())]
    NoSuchAddress {
        /// Where we wanted to listen.
        listen: SocketAddr,
    },
    /// The system keeps the port for itself.
    #[error("{listen} may not be used by this program; set http.listen to a port above 1023")]
    Forbidden {
        /// Where we wanted to listen.
        listen: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {listen} (http.listen)")]
    Listen {
        /// Where we wanted to listen.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Takes the port.
///
/// # Errors
/// When it cannot be had; the text says what to change.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HttpError::InUse { listen },
        io::ErrorKind::AddrNotAvailable => HttpError::NoSuchAddress { listen },
        io::ErrorKind::PermissionDenied => HttpError::Forbidden { listen },
        _ => HttpError::Listen { listen, source },
    })
}

/// Every path there is, as the 404 lists them.
const PATHS: [&str; 7] = ["/entries", "/events", "/explain", "/health", "/health/live", "/health/ready", "/metrics"];

/// The routes.
pub fn router(sources: Sources) -> Router {
    let desk = Desk {
        uptime_before: Time::now().since(sources.identity.started),
        born: Instant::now(),
        asked: Mutex::new(None),
        places: Arc::new(Semaphore::new(MOST_LISTENERS)),
        json: events::Live::new(),
        page: events::Live::new(),
        sources,
    };
    Router::new()
        .route("/entries", get(entries::list).post(entries::tell).layer(DefaultBodyLimit::max(entries::LARGEST)))
        .route("/events", get(listen))
        .route("/explain", get(explain::explain))
        .route("/health", get(health_page))
        .route("/health/page.css", get(|| asset("text/css; charset=utf-8", page::STYLE)))
        .route("/health/page.js", get(|| asset("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn(trace::traced))
        .with_state(Arc::new(desk))
}

async fn health_page(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Response {
    let view = desk.view().await;
    let verdict = status::judge(&view);
    let code = code(verdict.status);
    if accept::prefers_html(&headers) {
        return (code, PAGE_HEADERS, page::Page::html(&view, &verdict)).into_response();
    }
    (code, [(header::VARY, "accept")], json("application/json", &health::body(&view, &verdict))).into_response()
}

async fn listen(State(desk): State<Arc<Desk>>, Query(query): Query<HashMap<String, String>>) -> Response {
    match query.get("as").map(String::as_str) {
        None | Some("json") => events::answer::<told::Told>(desk),
        Some("html") => events::answer::<page::Page>(desk),
        Some(other) => problem(StatusCode::BAD_REQUEST, format!("/events comes as json or as html, not as {other}")),
    }
}

/// What the page needs beside itself. It names them by what they hold, so a browser may keep them for good.
async fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let keep = (header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    ([(header::CONTENT_TYPE, content_type), keep, (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text)
}

/// Alive as long as the pipeline moves: a supervisor that sees 503 should restart us.
async fn live(State(desk): State<Arc<Desk>>) -> Response {
    let reasons = match desk.view().await.pipeline {
        Pipeline::Stuck => vec![status::STUCK.to_owned()],
        Pipeline::Starting | Pipeline::Running => Vec::new(),
    };
    probe(reasons)
}

/// Ready when readings can be taken in: the pipeline moves and the spool stores.
async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let view = desk.view().await;
    let pipeline = match view.pipeline {
        Pipeline::Stuck => Some(status::STUCK.to_owned()),
        Pipeline::Starting => Some(status::STARTING.to_owned()),
        Pipeline::Running => None,
    };
    let fault = status::spool_fault(&view).filter(|(status, _)| *status == Status::Unhealthy);
    probe(pipeline.into_iter().chain(fault.map(|(_, reason)| reason)).collect())
}

async fn metrics_text(State(desk): State<Arc<Desk>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), NO_STORE];
    (headers, metrics::text(&desk.view().await)).into_response()
}

async fn not_found(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let (said, allowed) =
        if uri.path() == "/entries" { ("GET, HEAD and POST", "GET,HEAD,POST") } else { ("GET and HEAD", "GET,HEAD") };
    let answer = problem(StatusCode::METHOD_NOT_ALLOWED, format!("{} takes {said}, not {method}", uri.path()));
    ([(header::ALLOW, allowed)], answer).into_response()
}

fn busy(detail: &str) -> Response {
    ([(header::RETRY_AFTER, "1")], problem(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned())).into_response()
}

/// The answer of a probe: well, unless there are reasons.
fn probe(reasons: Vec<String>) -> Response {
    #[derive(Serialize)]
    struct Probe {
        status: Status,
        reasons: Vec<String>,
    }
    let status = if reasons.is_empty() { Status::Healthy } else { Status::Unhealthy };
    (code(status), json("application/json", &Probe { status, reasons })).into_response()
}

/// An error in the shape of RFC 9457, with the paths that do exist.
fn problem(code: StatusCode, detail: String) -> Response {
    #[derive(Serialize)]
    struct Problem {
        title: &'static str,
        status: u16,
        detail: String,
        paths: [&'static str; PATHS.len()],
    }
    let title = code.canonical_reason().unwrap_or("Error");
    let body = Problem { title, status: code.as_u16(), detail, paths: PATHS };
    (code, json("application/problem+json", &body)).into_response()
}

fn json(content_type: &'static str, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("our bodies have string keys and writing to memory does not fail");
    ([(header::CONTENT_TYPE, content_type), NO_STORE], text).into_response()
}

fn code(status: Status) -> StatusCode {
    match status {
        Status::Healthy | Status::Unknown | Status::Degraded => StatusCode::OK,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    }
}

const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// The page has its own style and script, may listen to us, and nothing else: no image, no frame, nothing inline, nothing
/// from elsewhere.
const PAGE_HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_TYPE, "text/html; charset=utf-8"),
    NO_STORE,
    (header::VARY, "accept"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// Where the handlers get their views.
struct Desk {
    sources: Sources,
    /// How long the agent had been up when the desk opened. From then on the steady clock counts, since
    /// a gateway's wall clock may leap when it first hears of the time.
    uptime_before: Duration,
    born: Instant,
    /// When somebody first asked for a newer snapshot than the one of this time.
    asked: Mutex<Option<(Instant, Time)>>,
    /// One for each who listens.
    places: Arc<Semaphore>,
    json: events::Live<told::Told>,
    page: events::Live<page::Page>,
}

impl Desk {
    /// Everything at one instant, fresh if the pipeline can make it so within [`PATIENCE`].
    async fn view(&self) -> View {
        let mut snapshots = self.sources.snapshot.clone();
        let held = snapshots.borrow_and_update().clone();
        let (snapshot, stuck) =
            if is_fresh(held.time) { (held, false) } else { self.fresher(&mut snapshots, held.time).await };
        let gone = snapshots.has_changed().is_err();
        let pipeline = match snapshot.time {
            _ if stuck || gone => Pipeline::Stuck,
            never if never == Time::default() => Pipeline::Starting,
            _ => Pipeline::Running,
        };
        View {
            identity: self.sources.identity.clone(),
            snapshot,
            links: self.sources.links.iter().map(|link| link.borrow().clone()).collect(),
            upstream: self.sources.upstream.borrow().clone(),
            gateway: self.sources.gateway.borrow().clone(),
            pipeline,
            now: Time::now(),
            uptime: self.uptime_before + self.born.elapsed(),
        }
    }

    /// A snapshot that is taken from now on, if the pipeline can make one within [`PATIENCE`].
    async fn next(&self) -> Arc<Snapshot> {
        let mut snapshots = self.sources.snapshot.clone();
        let held = snapshots.borrow_and_update().time;
        self.fresher(&mut snapshots, held).await.0
    }

    /// A newer snapshot than the one of `held`, or that one again, and whether the pipeline is stuck.
    async fn fresher(&self, snapshots: &mut watch::Receiver<Arc<Snapshot>>, held: Time) -> (Arc<Snapshot>, bool) {
        let asked = self.asked_since(held);
        self.sources.wanted.notify_one();
        // Whether it came, was refused or is late: what is there now is shown, and its time tells.
        let _ = tokio::time::timeout(PATIENCE, snapshots.changed()).await;
        let snapshot = snapshots.borrow_and_update().clone();
        let stuck = snapshot.time == held && asked.elapsed() >= STUCK_AFTER;
        (snapshot, stuck)
    }

    /// Since when somebody has been asking for a newer snapshot than the one of `held`.
    fn asked_since(&self, held: Time) -> Instant {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match *asked {
            Some((since, than)) if than == held => since,
            _ => asked.insert((Instant::now(), held)).0,
        }
    }
}

/// Whether a snapshot need not be taken again. One from the future is no fresher than one from the past:
/// the clock was set back.
fn is_fresh(time: Time) -> bool {
    let now = Time::now();
    now.since(time).max(time.since(now)) <= FRESH
}

/// All that the renderings tell.
struct View {
    identity: Identity,
    snapshot: Arc<Snapshot>,
    links: Vec<LinkState>,
    upstream: UpstreamView,
    gateway: GatewayView,
    pipeline: Pipeline,
    now: Time,
    uptime: Duration,
}

/// How the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipeline {
    /// It has not shown anything yet.
    Starting,
    /// It answers.
    Running,
    /// It leaves us without an answer, or has ended.
    Stuck,
}
