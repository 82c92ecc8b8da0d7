//! `/entries`: what people tell that no tag does (docs/entries.md).
//!
//! The one way in; all else here only reads. The pipeline takes an entry in its turn and answers once it is durable. Until it
//! begins, whoever told it may give up, and it is as if nothing was told.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Desk, busy, json, may, problem};
use crate::entries::{EntryJson, in_words};
use crate::model::{Entry, EntryError};

/// How many entries may wait for the pipeline. When it is full whoever tells is told to come again.
pub const MOST_TELLINGS: usize = 4;

/// An entry has no more bytes: a hundred characters a name.
pub(super) const LARGEST: usize = 16 << 10;

/// How long the pipeline is given to begin.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a body may take to come.
const READ: Duration = Duration::from_secs(10);

/// What somebody tells, on its way to the pipeline.
#[derive(Debug)]
pub struct Telling {
    entry: EntryJson,
    begun: Begun,
    answer: oneshot::Sender<Told>,
}

/// What becomes of it: the entry as it is stored.
pub type Told = Result<Arc<Entry>, NotTaken>;

/// Why an entry is not taken; then nothing of it is stored or applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It is none.
    #[error("{0}")]
    Wrong(String),
    /// The line does not take it.
    #[error(transparent)]
    Refused(#[from] EntryError),
    /// It would not outlast a power cut.
    #[error("nothing can be stored at the moment: {0}")]
    Unstored(String),
}

/// Set by whichever comes first: the pipeline, which begins, or whoever has waited too long, and gives up.
#[derive(Clone, Debug, Default)]
struct Begun(Arc<AtomicBool>);

impl Begun {
    fn is_ours(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

impl Telling {
    /// An entry to be sent to the pipeline, and what becomes of it: nothing if the pipeline did not begin with it within
    /// `patience`, and then it never does.
    pub fn new(entry: EntryJson, patience: Duration) -> (Self, impl Future<Output = Result<Told, Silence>>) {
        let (answer, mut answered) = oneshot::channel();
        let begun = Begun::default();
        let telling = Self { entry, begun: begun.clone(), answer };
        let told = async move {
            match timeout(patience, &mut answered).await {
                Ok(Ok(told)) => Ok(told),
                Ok(Err(_)) | Err(_) if begun.is_ours() => Err(Silence::NotBegun),
                Ok(Err(_)) => Err(Silence::Broken),
                // The disk takes its time. It is not to be known yet what becomes of it.
                Err(_) => answered.await.map_err(|_| Silence::Broken),
            }
        };
        (telling, told)
    }

    /// The entry, and where the answer goes; nothing if whoever told it has gone, or given up.
    #[must_use]
    pub fn begin(self) -> Option<(EntryJson, oneshot::Sender<Told>)> {
        let wanted = !self.answer.is_closed() && self.begun.is_ours();
        wanted.then_some((self.entry, self.answer))
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Nothing was stored or applied.
    #[error("the line has no time for it; nothing was taken")]
    NotBegun,
    /// The agent stopped in the midst of it.
    #[error("the agent stopped in the midst of it; GET /entries says whether it was taken")]
    Broken,
}

/// The last that people told, newest first.
pub(super) async fn list(State(desk): State<Arc<Desk>>) -> Response {
    #[derive(Serialize)]
    struct List {
        entries: Vec<Shown>,
    }
    let snapshot = desk.next().await;
    let entries = snapshot.entries.iter().map(|entry| Shown::from(&**entry)).collect();
    json("application/json", &List { entries })
}

/// Takes one entry: 201 with the entry as it is stored, once it is.
pub(super) async fn tell(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let way_in = match may::tell(desk.sources.entries.as_ref(), request.headers()) {
        Ok(way_in) => way_in,
        Err(forbidden) => return problem(StatusCode::FORBIDDEN, forbidden.to_string()),
    };
    match taken(way_in, request).await {
        Ok(entry) => (StatusCode::CREATED, json("application/json", &Shown::from(&*entry))).into_response(),
        Err(answer) => answer,
    }
}

async fn taken(way_in: &mpsc::Sender<Telling>, request: Request) -> Result<Arc<Entry>, Response> {
    let entry = read(request).await.map_err(|(code, detail)| problem(code, detail))?;
    let (telling, told) = Telling::new(entry, PATIENCE);
    way_in.try_send(telling).map_err(|_| busy("too many tell something at once; nothing was taken"))?;
    let told = told.await.map_err(|silence| busy(&silence.to_string()))?;
    told.map_err(|not_taken| {
        let detail = not_taken.to_string();
        match &not_taken {
            NotTaken::Wrong(_) => problem(StatusCode::BAD_REQUEST, detail),
            NotTaken::Refused(why) => problem(code(why), detail),
            NotTaken::Unstored(_) => busy(&detail),
        }
    })
}

/// The entry in a request's body.
async fn read(request: Request) -> Result<EntryJson, (StatusCode, String)> {
    if !is_json(request.headers()) {
        let detail = "an entry comes as `content-type: application/json`".to_owned();
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = match timeout(READ, request.extract::<Bytes, _>()).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("an entry has at most {LARGEST} bytes")));
        }
        Ok(Err(rejection)) => return Err((StatusCode::BAD_REQUEST, rejection.body_text())),
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the entry did not come to its end".to_owned())),
    };
    let wrong = |detail: String| (StatusCode::BAD_REQUEST, detail);
    // A list would be read as well: its elements as the fields in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("an entry is one JSON object".to_owned()));
    }
    let entry: EntryJson = serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))?;
    if entry.entered().is_some() {
        return Err(wrong("`entered` is the gateway's to say: leave it out".to_owned()));
    }
    if entry.by().is_none() {
        return Err(wrong("`by` is missing: who tells it".to_owned()));
    }
    Ok(entry)
}

fn is_json(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    said.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// What the line refuses: 409 for what it might take at another time, 422 for what it never will.
fn code(why: &EntryError) -> StatusCode {
    match why {
        EntryError::NothingYet(_)
        | EntryError::BeforeFirst { .. }
        | EntryError::TooOld { .. }
        | EntryError::TooMany(_)
        | EntryError::Future(_)
        | EntryError::TooFarAhead(_)
        | EntryError::Anomaly(_) => StatusCode::CONFLICT,
        EntryError::Station { .. }
        | EntryError::NoFigures(_)
        | EntryError::Unknown { .. }
        | EntryError::Name(_)
        | EntryError::Backwards { .. }
        | EntryError::Nothing
        | EntryError::Count
        | EntryError::Takt => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// An entry, for programs and for people.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    entry: EntryJson,
    in_words: String,
}

impl From<&Entry> for Shown {
    fn from(entry: &Entry) -> Self {
        Self { entry: EntryJson::from(entry), in_words: in_words(entry) }
    }
}
