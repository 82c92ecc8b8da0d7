//! OTLP over HTTP/1.1 with protobuf.

use bytes::BytesMut;
use gemba_drivers::Time;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{ClientBuilder, Url};

use crate::forward::answer::{Answer, Response};
use crate::forward::client::ANSWER;
use crate::spool::Signal;

/// One connection that is kept alive.
pub(super) fn transport(builder: ClientBuilder) -> ClientBuilder {
    builder.http1_only()
}

/// What the body is.
pub(super) fn content(gzip: bool) -> HeaderMap {
    let mut content = HeaderMap::new();
    content.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if gzip {
        content.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    content
}

/// `base` with `/v1/<signal>` after whatever path it has.
pub(super) fn url(base: &Url, signal: Signal) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/{}", base.path().trim_end_matches('/'), signal.word()));
    url
}

/// Reads the answer to a request of `signal`.
pub(super) async fn answer(signal: Signal, mut response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let mut answer = BytesMut::new();
    while answer.len() <= ANSWER {
        let Some(bytes) = response.chunk().await? else { break };
        answer.extend_from_slice(&bytes);
    }
    if answer.len() > ANSWER && response.status().is_success() {
        let why = format!("answered {}, but not OTLP", response.status().as_u16());
        return Ok(Answer::Later { why, after: None });
    }
    Ok(judge(signal, response.status().as_u16(), response.headers(), &answer))
}

/// What an HTTP answer with this body means.
pub(super) fn judge(signal: Signal, status: u16, headers: &HeaderMap, body: &[u8]) -> Answer {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (content_type, retry_after) = (header(CONTENT_TYPE), header(RETRY_AFTER));
    Response { signal, status, content_type, retry_after, body }.judge(Time::now())
}
