//! OTLP over HTTP with protobuf: one connection that is kept alive, one request at a time.

use std::error::Error;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use gemba_drivers::Time;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use reqwest::{Certificate, Url, redirect, retry};

use crate::config::{Secret, Upstream};
use crate::forward::Signal;
use crate::forward::answer::{Answer, Response, clean};

/// A body of upstream is read so far; what is longer is no OTLP.
const ANSWER: usize = 64 * 1024;

/// Why nothing can be sent, ever, with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not a URL with a host, over http or https.
    #[error("the upstream endpoint is no URL that can be sent to: {0}")]
    Endpoint(String),
    /// Not what HTTP allows in a header.
    #[error("the upstream header `{0}` has a name or a value that HTTP does not allow")]
    Header(String),
    /// The file with the authorities cannot be read.
    #[error("cannot read the authorities in {}: {source}", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file with the authorities holds none.
    #[error("{} holds no certificate in PEM format", .0.display())]
    NoCertificate(PathBuf),
    /// TLS cannot be set up, e.g. since this machine trusts nobody.
    #[error("cannot set up a client for the upstream endpoint: {0}")]
    Client(String),
}

/// Speaks to one OTLP receiver.
pub(super) struct Client {
    http: reqwest::Client,
    metrics: Url,
    logs: Url,
    /// Never in what upstream says about itself.
    secrets: Vec<Secret>,
    timeout: std::time::Duration,
    content: HeaderMap,
}

impl Client {
    /// An `https` endpoint is checked against `ca_file`, or else against the authorities that the machine
    /// itself trusts (`/etc/ssl/certs`); without any there is no client. Proxies of the environment are not
    /// used: what is not configured does not happen.
    pub(super) fn new(upstream: &Upstream) -> Result<Self, SetupError> {
        // reqwest panics without one. Whoever comes first wins, which is the binary.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = endpoint(&upstream.endpoint)?;
        let builder = reqwest::Client::builder()
            .default_headers(headers(&upstream.headers)?)
            .timeout(upstream.timeout)
            .connect_timeout(upstream.timeout)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .pool_max_idle_per_host(1)
            .no_proxy();
        let builder = match &upstream.ca_file {
            Some(path) => builder.tls_certs_only(authorities(path)?),
            // Plain HTTP needs no authorities, and a gateway may have none.
            None if base.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        let mut content = HeaderMap::new();
        content.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if upstream.gzip {
            content.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self {
            http: builder.build().map_err(|error| SetupError::Client(chain(error)))?,
            metrics: joined(&base, "metrics"),
            logs: joined(&base, "logs"),
            secrets: upstream.headers.iter().map(|(_, value)| value.clone()).collect(),
            timeout: upstream.timeout,
            content,
        })
    }

    /// Sends `body`, once.
    pub(super) async fn send(&self, signal: Signal, body: &Bytes) -> Answer {
        match self.exchange(signal, body.clone()).await {
            Ok(answer) => self.discreet(answer),
            Err(error) if error.is_timeout() => {
                Answer::Later { why: format!("no answer within {:?}", self.timeout), after: None }
            }
            Err(error) => Answer::Later { why: clean(&chain(error)), after: None },
        }
    }

    async fn exchange(&self, signal: Signal, body: Bytes) -> Result<Answer, reqwest::Error> {
        let url = match signal {
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        };
        let mut response = self.http.post(url.clone()).headers(self.content.clone()).body(body).send().await?;
        let mut answer = BytesMut::new();
        while answer.len() <= ANSWER {
            let Some(bytes) = response.chunk().await? else { break };
            answer.extend_from_slice(&bytes);
        }
        if answer.len() > ANSWER && response.status().is_success() {
            let why = format!("answered {}, but not OTLP", response.status().as_u16());
            return Ok(Answer::Later { why, after: None });
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let response = Response {
            status: response.status().as_u16(),
            content_type: header(CONTENT_TYPE),
            retry_after: header(RETRY_AFTER),
            body: &answer,
        };
        Ok(response.judge(Time::now()))
    }

    /// Some receivers quote the token that they do not like.
    fn discreet(&self, mut answer: Answer) -> Answer {
        let (Answer::Accepted { message: Some(text), .. }
        | Answer::Later { why: text, .. }
        | Answer::Failed { why: text }
        | Answer::Refused { why: text }
        | Answer::Blocked { why: text }) = &mut answer
        else {
            return answer;
        };
        // Short values are plant names and tenants, and would tear holes into every sentence.
        for secret in self.secrets.iter().filter(|secret| secret.expose().len() >= 8) {
            *text = text.replace(secret.expose(), "***");
            // `Authorization: Bearer …` is quoted without its scheme.
            if let Some((_, token)) = secret.expose().split_once(' ').filter(|(_, token)| token.len() >= 8) {
                *text = text.replace(token, "***");
            }
        }
        answer
    }
}

fn endpoint(text: &str) -> Result<Url, SetupError> {
    let mut url = Url::parse(text).map_err(|error| SetupError::Endpoint(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::Endpoint(format!("`{}` is neither http nor https", url.scheme())));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// `base` with `/v1/<signal>` after whatever path it has.
fn joined(base: &Url, signal: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/v1/{signal}", base.path().trim_end_matches('/')));
    url
}

fn headers(configured: &[(String, Secret)]) -> Result<HeaderMap, SetupError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("gemba/", env!("CARGO_PKG_VERSION"))));
    for (name, value) in configured {
        let wrong = |_| SetupError::Header(name.clone());
        let header = HeaderName::try_from(name).map_err(|_| SetupError::Header(name.clone()))?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(wrong)?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

fn authorities(path: &PathBuf) -> Result<Vec<Certificate>, SetupError> {
    let pem = std::fs::read(path).map_err(|source| SetupError::CaFile { path: path.clone(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(SetupError::NoCertificate(path.clone())),
    }
}

/// An error with its causes, which is where reqwest says what happened; without the URL, which may hold
/// a password.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let word = error.to_string();
        if !text.ends_with(&word) {
            text = format!("{text}: {word}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn upstream(endpoint: &str) -> Upstream {
        Upstream {
            endpoint: endpoint.to_owned(),
            gzip: true,
            headers: Vec::new(),
            timeout: Duration::from_secs(1),
            ca_file: None,
        }
    }

    #[test]
    fn paths_are_appended_to_whatever_the_endpoint_has() {
        for (given, metrics) in [
            ("http://collector:4318", "http://collector:4318/v1/metrics"),
            ("http://collector:4318/", "http://collector:4318/v1/metrics"),
            ("https://plant.example/otlp", "https://plant.example/otlp/v1/metrics"),
            ("https://plant.example/a/b//", "https://plant.example/a/b/v1/metrics"),
            ("http://[::1]:4318/x?y=1#z", "http://[::1]:4318/x/v1/metrics"),
        ] {
            let base = endpoint(given).expect(given);
            assert_eq!(joined(&base, "metrics").as_str(), metrics);
        }
    }

    #[test]
    fn what_can_never_work_is_said_at_the_start() {
        let refused = |upstream: &Upstream| Client::new(upstream).err().expect("refused").to_string();
        assert!(refused(&upstream("collector:4318")).contains("neither http nor https"));
        assert!(refused(&upstream("")).contains("no URL"));

        let mut secret = upstream("http://collector:4318");
        secret.headers.push(("x-key".to_owned(), Secret::new("hush\nhush".to_owned())));
        let message = refused(&secret);
        assert!(message.contains("x-key") && !message.contains("hush"), "{message}");

        let mut lost = upstream("https://collector:4318");
        lost.ca_file = Some("/nowhere/ca.pem".into());
        assert!(refused(&lost).contains("/nowhere/ca.pem"));

        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "no certificate").expect("written");
        lost.ca_file = Some(path);
        assert!(refused(&lost).contains("holds no certificate"));
    }

    #[test]
    fn a_quoted_secret_is_struck_out() {
        let mut upstream = upstream("http://collector:4318");
        upstream.headers.push(("authorization".to_owned(), Secret::new("Bearer s3cr3t-t0ken".to_owned())));
        let client = Client::new(&upstream).expect("a client");
        let answer = client.discreet(Answer::Blocked { why: "401: token s3cr3t-t0ken is unknown".to_owned() });
        assert_eq!(answer, Answer::Blocked { why: "401: token *** is unknown".to_owned() });
    }
}
