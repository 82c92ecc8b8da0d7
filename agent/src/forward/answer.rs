//! What upstream's answer means, and what an HTTP answer says of it (OTLP specification 1.7, "OTLP/HTTP Response" and
//! "Failures"). What a gRPC status says of it is in [`grpc`](super::grpc).

use std::time::Duration;

use gemba_drivers::Time;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message;

use crate::spool::Signal;
use crate::telemetry::meters::Outcome;

/// Longest message of upstream that is kept.
const MESSAGE: usize = 200;

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Upstream has it.
    Accepted {
        /// Points or log records that it did not want all the same.
        rejected: u64,
        /// What it says about that, or as a warning.
        message: Option<String>,
    },
    /// Nothing wrong with the request: the same again helps, sooner or later.
    Later {
        /// What happened.
        why: String,
        /// `Retry-After`, or gRPC's `RetryInfo`.
        after: Option<Duration>,
    },
    /// Upstream failed over it. The same again may help.
    Failed {
        /// What happened.
        why: String,
    },
    /// Upstream does not want that much at once, or does not get to it.
    TooLarge {
        /// What it said.
        why: String,
    },
    /// Upstream does not want this request, and never will.
    Refused {
        /// What it said.
        why: String,
    },
    /// Upstream does not want us, or is something else: somebody must act.
    Blocked {
        /// What it said, and what to look at.
        why: String,
    },
}

impl Answer {
    /// What is wrong, unless upstream has it.
    pub(super) fn complaint(&self) -> Option<&str> {
        match self {
            Self::Accepted { .. } => None,
            Self::Later { why, .. }
            | Self::Failed { why }
            | Self::TooLarge { why }
            | Self::Refused { why }
            | Self::Blocked { why } => Some(why),
        }
    }

    /// How it is counted.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted { .. } => Outcome::Accepted,
            Self::Later { .. } | Self::Failed { .. } => Outcome::Failed,
            Self::TooLarge { .. } | Self::Refused { .. } => Outcome::Refused,
            Self::Blocked { .. } => Outcome::Blocked,
        }
    }
}

/// An HTTP answer, read.
pub(super) struct Response<'a> {
    /// Of the request.
    pub(super) signal: Signal,
    pub(super) status: u16,
    pub(super) content_type: Option<&'a str>,
    pub(super) retry_after: Option<&'a str>,
    pub(super) body: &'a [u8],
}

impl Response<'_> {
    /// What it means. `now` is for a `Retry-After` that is a date.
    pub(super) fn judge(&self, now: Time) -> Answer {
        let status = self.status;
        match status {
            200..=299 => self.success(),
            429 | 502..=504 | 408 | 425 => {
                Answer::Later { why: self.why(), after: self.retry_after.and_then(|text| delay(text, now)) }
            }
            400 | 413 | 422 => Answer::Refused { why: self.why() },
            300..=399 => Answer::Blocked { why: format!("{status}: redirects are not followed; check the endpoint") },
            401 | 403 | 407 => Answer::Blocked { why: format!("{}; check the headers", self.why()) },
            405 => Answer::Blocked { why: format!("{}; check the endpoint", self.why()) },
            404 | 501 => {
                Answer::Blocked { why: format!("{}; check the endpoint; {}", self.why(), unserved(self.signal)) }
            }
            400..=499 => Answer::Blocked { why: self.why() },
            500..=599 => Answer::Failed { why: self.why() },
            _ => Answer::Later { why: self.why(), after: None },
        }
    }

    /// A body that is no OTLP (a captive portal, a web server on that port) is no success.
    fn success(&self) -> Answer {
        let text = self.content_type.is_some_and(|kind| {
            let kind = kind.to_ascii_lowercase();
            kind.starts_with("text/") || kind.starts_with("application/json")
        });
        let accepted = if text && !self.body.is_empty() { None } else { accepted(self.body) };
        accepted
            .unwrap_or_else(|| Answer::Later { why: format!("answered {}, but not OTLP", self.status), after: None })
    }

    /// `400: what upstream said`, short enough for a ledger.
    fn why(&self) -> String {
        let protobuf = self.content_type.is_some_and(|kind| kind.to_ascii_lowercase().contains("protobuf"));
        let message = match RpcStatus::decode(self.body) {
            Ok(status) if protobuf => clean(&status.message),
            _ => clean(&String::from_utf8_lossy(self.body)),
        };
        if message.is_empty() { self.status.to_string() } else { format!("{}: {message}", self.status) }
    }
}

/// What to do about an upstream that has no place for `signal`, which says the same as one with another endpoint.
pub(super) fn unserved(signal: Signal) -> String {
    let word = signal.word();
    format!("if upstream takes no {word}, leave `{word}` out of upstream.otlp.signals")
}

/// What the response message of a success says; the three signals' look the same. `None` when it is none.
pub(super) fn accepted(message: &[u8]) -> Option<Answer> {
    let response = ExportMetricsServiceResponse::decode(message).ok()?;
    let partial = response.partial_success.unwrap_or_default();
    let message = clean(&partial.error_message);
    Some(Answer::Accepted {
        rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
        message: (!message.is_empty()).then_some(message),
    })
}

/// `google.rpc.Status`, as OTLP answers failures.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
}

/// Seconds or an HTTP date (RFC 9110, 10.2.3).
fn delay(text: &str, now: Time) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Time::from(at.timestamp()).since(now))
}

/// One line, printable, bounded.
pub(super) fn clean(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(MESSAGE));
        if line.chars().count() > MESSAGE {
            return line.chars().take(MESSAGE).chain(['…']).collect();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: Option<&str>, retry_after: Option<&str>, body: &[u8]) -> Answer {
        let now = "2026-11-06T08:49:30Z".parse().expect("a time");
        Response { signal: Signal::Logs, status, content_type, retry_after, body }.judge(now)
    }

    const PROTOBUF: Option<&str> = Some("application/x-protobuf");
    const ACCEPTED: Answer = Answer::Accepted { rejected: 0, message: None };

    #[test]
    fn success_is_an_empty_or_an_otlp_body() {
        assert_eq!(answer(200, PROTOBUF, None, b""), ACCEPTED);
        assert_eq!(answer(204, None, None, b""), ACCEPTED);
        assert_eq!(answer(200, PROTOBUF, None, b"\x0a\x00"), ACCEPTED, "an empty partial success is none");
        let partial = b"\x0a\x0d\x08\x03\x12\x09too\nlate!";
        let message = Some("too late!".to_owned());
        assert_eq!(answer(200, PROTOBUF, None, partial), Answer::Accepted { rejected: 3, message });
    }

    #[test]
    fn a_200_that_is_no_otlp_is_no_success() {
        for (kind, body) in [
            (Some("text/html"), &b"<html>Welcome</html>"[..]),
            (None, b"<html>Welcome</html>"),
            (Some("text/plain; charset=utf-8"), b"0\n"),
            (Some("application/json"), b"{}"),
            (PROTOBUF, b"{\"partialSuccess\":{}}"),
            (PROTOBUF, b"\xff\xfe\xfd"),
            (PROTOBUF, b"\x0a\x7f"),
        ] {
            let Answer::Later { why, .. } = answer(200, kind, None, body) else { panic!("{kind:?} {body:?}") };
            assert_eq!(why, "answered 200, but not OTLP");
        }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [408, 425, 429, 502, 503, 504] {
            assert!(matches!(answer(status, None, None, b""), Answer::Later { .. }), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(answer(status, None, None, b""), Answer::Refused { .. }), "{status}");
        }
        for status in [301, 302, 304, 307, 401, 402, 403, 404, 405, 407, 410, 415, 431, 501] {
            assert!(matches!(answer(status, None, None, b""), Answer::Blocked { .. }), "{status}");
        }
        for status in [500, 505, 599] {
            assert!(matches!(answer(status, None, None, b""), Answer::Failed { .. }), "{status}");
        }
        assert!(matches!(answer(600, None, None, b""), Answer::Later { .. }));
    }

    #[test]
    fn a_signal_that_upstream_does_not_serve_can_be_left_out() {
        for status in [404, 501] {
            let Answer::Blocked { why } = answer(status, None, None, b"no such page") else { panic!("blocked") };
            let advice = "check the endpoint; if upstream takes no logs, leave `logs` out of upstream.otlp.signals";
            assert_eq!(why, format!("{status}: no such page; {advice}"));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let after = |text| match answer(503, None, Some(text), b"") {
            Answer::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Fri, 06 Nov 2026 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(after("Fri, 06 Nov 2026 08:00:00 GMT"), Some(Duration::ZERO), "past");
        for nonsense in ["soon", "-1", "", "99999999999999999999"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_refusal_says_why_in_one_bounded_line() {
        let why = |kind, body| match answer(400, kind, None, body) {
            Answer::Refused { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(PROTOBUF, b"\x08\x03\x12\x07bad\tone"), "400: bad one");
        assert_eq!(why(None, b"no\r\n\x1b[31mthanks \xff"), "400: no [31mthanks");
        assert_eq!(why(None, b""), "400");
        for long in ["ä ".repeat(100_000), "x".repeat(100_000)] {
            let Answer::Refused { why } = answer(400, None, None, long.as_bytes()) else { panic!("refused") };
            assert!(why.chars().count() <= MESSAGE + 10, "{}", why.len());
        }
    }
}
