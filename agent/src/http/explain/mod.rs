//! `/explain`: how the figures of a shift, an hour or a lot came about.
//!
//! A snapshot holds figures, not the facts behind them; so the pipeline answers, a question at a time and not often
//! ([`crate::pipeline`], decision 0010). Whoever finds the few places taken is told to come again.

mod html;
mod json;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::{Desk, PAGE_HEADERS, accept, busy, problem};
use crate::model::{ExplainError, Explanation, Selector};

pub use json::ExplanationJson;

/// How many questions may wait for the pipeline.
pub const MOST_QUESTIONS: usize = 4;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question for the pipeline.
#[derive(Debug)]
pub struct Question {
    /// The station, as asked.
    pub station: String,
    /// What is to be explained.
    pub selector: Selector,
    /// Where the answer goes; whoever asked may have gone.
    pub answer: oneshot::Sender<Answer>,
}

/// What the pipeline says.
pub type Answer = Result<Box<Explanation>, Refusal>;

/// Why there is nothing to explain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The configuration has no such station.
    #[error("there is no station `{0}`")]
    NoStation(String),
    /// It has nothing of the kind.
    #[error(transparent)]
    Nothing(#[from] ExplainError),
}

/// What may be asked, as problems say it.
const USAGE: &str = "ask for /explain?station=NAME and one of shift=today/early (the running one unless said), hour=today/06:00, \
                     lot=NAME, product=NAME, order=NAME, rolling=60min";

pub(super) async fn explain(
    State(desk): State<Arc<Desk>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let (station, selector) = match wanted(&query) {
        Ok(wanted) => wanted,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, detail),
    };
    let (answer, answered) = oneshot::channel();
    if desk.sources.questions.try_send(Question { station, selector, answer }).is_err() {
        return busy("too many ask at once");
    }
    let explained = match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(Ok(explained))) => explained,
        Ok(Ok(Err(refusal))) => return problem(StatusCode::NOT_FOUND, refusal.to_string()),
        Ok(Err(_)) | Err(_) => return busy("the line has no time for an answer"),
    };
    if accept::prefers_html(&headers) {
        return (PAGE_HEADERS, html::page(&explained, &desk.sources.identity)).into_response();
    }
    ([(header::VARY, "accept")], super::json("application/json", &ExplanationJson::from(&*explained))).into_response()
}

fn wanted(query: &HashMap<String, String>) -> Result<(String, Selector), String> {
    const KEYS: [&str; 7] = ["station", "shift", "hour", "lot", "product", "order", "rolling"];
    if let Some(unknown) = query.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("there is no `{unknown}` to ask by; {USAGE}"));
    }
    let station = query.get("station").ok_or_else(|| format!("`station` is missing; {USAGE}"))?;
    let mut what = KEYS[1..].iter().filter_map(|&key| Some((key, query.get(key)?)));
    let chosen = what.next();
    if what.next().is_some() {
        return Err(format!("one thing at a time; {USAGE}"));
    }
    let selector = match chosen {
        None => Ok(Selector::Current),
        Some(("shift", text)) => Selector::shift(text),
        Some(("hour", text)) => Selector::hour(text),
        Some(("rolling", text)) => Selector::rolling(text),
        Some(("lot", name)) => Ok(Selector::Lot(name.clone())),
        Some(("product", name)) => Ok(Selector::Product(name.clone())),
        Some((_, name)) => Ok(Selector::Order(name.clone())),
    };
    Ok((station.clone(), selector.map_err(|error| error.to_string())?))
}
