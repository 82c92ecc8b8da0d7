//! One connection to an OTLP receiver, one request at a time; what HTTP and gRPC have in common.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::trace::TraceContextExt;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Certificate, Url, redirect, retry};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::config::{Protocol, Secret, Upstream};
use crate::forward::answer::{Answer, clean};
use crate::forward::{grpc, http};
use crate::spool::Signal;
use crate::telemetry::meters::{Meters, Outcome};

/// A body of upstream is read so far; what is longer is no OTLP.
pub(super) const ANSWER: usize = 64 * 1024;

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
    transport: reqwest::Client,
    upstream: Upstream,
    base: Url,
    content: HeaderMap,
    /// It has answered as the protocol has it.
    answered: bool,
    /// Where requests are counted.
    pub(super) meters: Arc<Meters>,
}

impl Client {
    /// An `https` endpoint is checked against `ca_file`, or else against the authorities that the machine
    /// itself trusts (`/etc/ssl/certs`); without any there is no client. Proxies of the environment are not
    /// used: what is not configured does not happen.
    pub(super) fn new(upstream: &Upstream) -> Result<Self, SetupError> {
        // reqwest panics without one. Whoever comes first wins, which is the binary.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = endpoint(upstream)?;
        Ok(Self {
            transport: transport(upstream, &base)?,
            content: match upstream.protocol {
                Protocol::Http => http::content(upstream.gzip),
                Protocol::Grpc => grpc::content(upstream.gzip, upstream.timeout),
            },
            upstream: upstream.clone(),
            base,
            answered: false,
            meters: Arc::default(),
        })
    }

    /// Sends `body`, once.
    pub(super) async fn send(&mut self, signal: Signal, body: &Bytes) -> Answer {
        let outcome = self.exchange(signal, body.clone()).await;
        self.meters.sent(signal, outcome.as_ref().map_or(Outcome::Unanswered, Answer::outcome), body.len());
        match outcome {
            Ok(answer) => {
                self.answered = true;
                self.discreet(answer)
            }
            Err(error) if error.is_timeout() => {
                self.reconnect();
                Answer::Later { why: format!("no answer within {:?}", self.upstream.timeout), after: None }
            }
            // Somebody is there, and what they say makes no sense.
            Err(error) if !self.answered && !error.is_connect() => {
                let port = match self.upstream.protocol {
                    Protocol::Http => "an HTTP port (mostly 4318)",
                    Protocol::Grpc => "a gRPC port (mostly 4317)",
                };
                Answer::Later { why: format!("{}; is that {port}?", clean(&chain(error))), after: None }
            }
            Err(error) => Answer::Later { why: clean(&chain(error)), after: None },
        }
    }

    async fn exchange(&self, signal: Signal, body: Bytes) -> Result<Answer, reqwest::Error> {
        let protocol = self.upstream.protocol;
        let url = match protocol {
            Protocol::Http => http::url(&self.base, signal),
            Protocol::Grpc => grpc::url(&self.base, signal),
        };
        let mut headers = self.content.clone();
        headers.extend(traceparent().map(|value| (HeaderName::from_static("traceparent"), value)));
        let response = self.transport.post(url).headers(headers).body(body).send().await?;
        match protocol {
            Protocol::Http => http::answer(signal, response).await,
            Protocol::Grpc => grpc::answer(signal, response).await,
        }
    }

    /// HTTP/2 gives up a request and keeps the connection, which may be the one that leads nowhere.
    fn reconnect(&mut self) {
        // What was good at the start is good now, but for the authorities' file; then the old connection has to do.
        if let Ok(fresh) = transport(&self.upstream, &self.base) {
            self.transport = fresh;
        }
    }

    /// Some receivers quote the token that they do not like.
    fn discreet(&self, mut answer: Answer) -> Answer {
        let (Answer::Accepted { message: Some(text), .. }
        | Answer::Later { why: text, .. }
        | Answer::Failed { why: text }
        | Answer::TooLarge { why: text }
        | Answer::Refused { why: text }
        | Answer::Blocked { why: text }) = &mut answer
        else {
            return answer;
        };
        // Short values are plant names and tenants, and would tear holes into every sentence.
        for (_, secret) in self.upstream.headers.iter().filter(|(_, secret)| secret.expose().len() >= 8) {
            *text = text.replace(secret.expose(), "***");
            // `Authorization: Bearer …` is quoted without its scheme.
            if let Some((_, token)) = secret.expose().split_once(' ').filter(|(_, token)| token.len() >= 8) {
                *text = text.replace(token, "***");
            }
        }
        answer
    }
}

/// The span that is open as W3C writes it, so that upstream's own work on a request takes part in its trace; `None`
/// outside of one.
fn traceparent() -> Option<HeaderValue> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let of = span.span_context();
    let text = || format!("00-{}-{}-{:02x}", of.trace_id(), of.span_id(), of.trace_flags());
    of.is_valid().then(|| HeaderValue::try_from(text()).expect("digits and dashes are a header's value"))
}

fn transport(upstream: &Upstream, base: &Url) -> Result<reqwest::Client, SetupError> {
    let builder = reqwest::Client::builder()
        .default_headers(headers(&upstream.headers)?)
        .timeout(upstream.timeout)
        .connect_timeout(upstream.timeout)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .pool_max_idle_per_host(1)
        .no_proxy();
    let builder = match upstream.protocol {
        Protocol::Http => http::transport(builder),
        Protocol::Grpc => grpc::transport(builder),
    };
    let builder = match &upstream.ca_file {
        Some(path) => builder.tls_certs_only(authorities(path)?),
        // Plain HTTP needs no authorities, and a gateway may have none.
        None if base.scheme() == "http" => builder.tls_certs_only([]),
        None => builder,
    };
    builder.build().map_err(|error| SetupError::Client(chain(error)))
}

fn endpoint(upstream: &Upstream) -> Result<Url, SetupError> {
    let mut url = Url::parse(&upstream.endpoint).map_err(|error| SetupError::Endpoint(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(SetupError::Endpoint(format!("`{}` is neither http nor https", url.scheme())));
    }
    if upstream.protocol == Protocol::Grpc && url.path() != "/" {
        return Err(SetupError::Endpoint("gRPC has no path, and this one has".to_owned()));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
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
            protocol: Protocol::Http,
            gzip: true,
            signals: Signal::ALL.to_vec(),
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
            let base = endpoint(&upstream(given)).expect(given);
            assert_eq!(http::url(&base, Signal::Metrics).as_str(), metrics);
        }
        let base = endpoint(&upstream("http://collector:4318")).expect("a URL");
        assert_eq!(http::url(&base, Signal::Logs).path(), "/v1/logs");
        assert_eq!(http::url(&base, Signal::Traces).path(), "/v1/traces");
    }

    #[test]
    fn grpc_has_a_path_for_each_signal_and_none_of_its_own() {
        let grpc = |endpoint: &str| Upstream { protocol: Protocol::Grpc, ..upstream(endpoint) };
        for given in ["http://collector:4317", "https://collector:4317/"] {
            let base = endpoint(&grpc(given)).expect(given);
            for (signal, path) in [
                (Signal::Metrics, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
                (Signal::Logs, "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
                (Signal::Traces, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
            ] {
                assert_eq!(grpc::url(&base, signal).path(), path);
            }
        }
        let refused = |endpoint| Client::new(&grpc(endpoint)).err().expect("refused").to_string();
        assert!(refused("http://collector:4317/v1/metrics").contains("gRPC has no path"));
        assert!(refused("grpc://collector:4317").contains("neither http nor https"));
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
