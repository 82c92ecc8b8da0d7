//! OTLP over gRPC: a POST over HTTP/2 whose body is one framed message, and whose outcome is in the trailers.
//!
//! The same client, TLS and trust as over HTTP. tonic's client is not used, since it compresses at level 6, anew for each
//! attempt, which costs ten times what it takes to build the message; and since it panics where the peer sends
//! details that are no base64.
//!
//! No window is to be tuned on this side: how fast a body may be sent is for the receiver's to say.
//!
//! A peer that is gone without a word is found by TCP: probed after 15 s of silence, given up after three probes
//! unanswered, or 30 s with bytes unacknowledged. There are no HTTP/2 pings: while a request is under way its timeout is
//! shorter than they may be, and between requests receivers answer them with `too_many_pings`.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use percent_encoding::percent_decode;
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use reqwest::{Body, ClientBuilder, Url};

use crate::forward::answer::{Answer, accepted, clean, unserved};
use crate::forward::client::ANSWER;
use crate::forward::http;
use crate::forward::parcel::gzip;
use crate::spool::Signal;

/// Of a frame: a flag (1: compressed) and the length of the message.
const HEAD: usize = 5;

/// HTTP/2 and nothing else, also where no TLS negotiates it.
pub(super) fn transport(builder: ClientBuilder) -> ClientBuilder {
    builder.http2_prior_knowledge()
}

/// `message` as it travels.
pub(super) fn frame(message: &[u8], gzipped: bool) -> Bytes {
    let mut frame = vec![u8::from(gzipped), 0, 0, 0, 0];
    if gzipped {
        frame.reserve(message.len() / 8);
        frame = gzip(frame, message);
    } else {
        frame.extend_from_slice(message);
    }
    let len = u32::try_from(frame.len() - HEAD).expect("a request is of megabytes");
    frame[1..HEAD].copy_from_slice(&len.to_be_bytes());
    frame.into()
}

/// What the body is, and how long we wait: the receiver need not work on what nobody waits for.
pub(super) fn content(gzip: bool, timeout: Duration) -> HeaderMap {
    let mut content = HeaderMap::new();
    content.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    content.insert(TE, HeaderValue::from_static("trailers"));
    let timeout = HeaderValue::try_from(format!("{}m", timeout.as_millis())).expect("digits are a header's value");
    content.insert(HeaderName::from_static("grpc-timeout"), timeout);
    if gzip {
        content.insert(HeaderName::from_static("grpc-encoding"), HeaderValue::from_static("gzip"));
        content.insert(HeaderName::from_static("grpc-accept-encoding"), HeaderValue::from_static("gzip"));
    }
    content
}

/// `base`, which has no path, with the method's.
pub(super) fn url(base: &Url, signal: Signal) -> Url {
    let (package, service) = match signal {
        Signal::Metrics => ("metrics", "MetricsService"),
        Signal::Logs => ("logs", "LogsService"),
        Signal::Traces => ("trace", "TraceService"),
    };
    let mut url = base.clone();
    url.set_path(&format!("/opentelemetry.proto.collector.{package}.v1.{service}/Export"));
    url
}

/// Reads the answer to a request of `signal`.
pub(super) async fn answer(signal: Signal, response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Body::from(response);
    let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(bytes) => message.extend_from_slice(&bytes),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if message.len() > ANSWER {
            return Ok(Answer::Later { why: format!("answered {status}, but not OTLP"), after: None });
        }
    }
    // An answer without a message has its status in the headers.
    Ok(match Status::of(&trailers).or_else(|| Status::of(&headers)) {
        Some(status) => status.judge(signal, &message),
        None if status == 200 => Answer::Later { why: "answered 200, but not gRPC".to_owned(), after: None },
        // Whoever that is, it is no OTLP receiver, and does not know what it refuses.
        None => match http::judge(signal, status, &headers, &message) {
            Answer::Refused { why } if status == 413 => Answer::TooLarge { why },
            Answer::Refused { why } => Answer::Failed { why },
            answer => answer,
        },
    })
}

/// How a call ended.
#[derive(Debug)]
struct Status {
    code: u32,
    message: String,
    /// How long to wait: `google.rpc.RetryInfo` among the details.
    retry: Option<Duration>,
}

impl Status {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN);
        let message = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
        let details = headers.get("grpc-status-details-bin").map_or(&b""[..], HeaderValue::as_bytes);
        Some(Self {
            code,
            message: clean(&percent_decode(message).decode_utf8_lossy()),
            retry: BASE64.decode(details).ok().and_then(|details| retry(&details)),
        })
    }

    /// What it means, by the table of the OTLP specification ("OTLP/gRPC", "Failures") but for this:
    ///
    /// - `OUT_OF_RANGE` is what tonic's servers say of a message that is too large, `RESOURCE_EXHAUSTED` what others say.
    ///   Less may pass, and the same again never would.
    /// - `UNKNOWN` and `INTERNAL` are what a receiver says whose code failed, be it over us: as 500.
    /// - What no record can cure (no permission, no such service) blocks, rather than being lost.
    fn judge(self, signal: Signal, body: &[u8]) -> Answer {
        let (why, after) = (self.why(), self.retry);
        match self.code {
            0 => {
                let message = unframed(body).and_then(|message| accepted(&message));
                message.unwrap_or_else(|| Answer::Later { why: "answered OK, but not OTLP".to_owned(), after: None })
            }
            CANCELLED | DEADLINE_EXCEEDED | ABORTED | UNAVAILABLE | DATA_LOSS => Answer::Later { why, after },
            RESOURCE_EXHAUSTED | OUT_OF_RANGE if after.is_some() => Answer::Later { why, after },
            RESOURCE_EXHAUSTED | OUT_OF_RANGE => Answer::TooLarge { why },
            INVALID_ARGUMENT | ALREADY_EXISTS | FAILED_PRECONDITION => Answer::Refused { why },
            UNAUTHENTICATED | PERMISSION_DENIED => Answer::Blocked { why: format!("{why}; check the headers") },
            UNIMPLEMENTED | NOT_FOUND => {
                let advice = unserved(signal);
                Answer::Blocked { why: format!("{why}; check the endpoint and the compression; {advice}") }
            }
            _ => Answer::Failed { why },
        }
    }

    /// `UNAVAILABLE: what upstream said`.
    fn why(&self) -> String {
        let name = NAMES.get(self.code as usize).copied().unwrap_or("a status that gRPC does not know");
        if self.message.is_empty() { name.to_owned() } else { format!("{name}: {}", self.message) }
    }
}

const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const NOT_FOUND: u32 = 5;
const ALREADY_EXISTS: u32 = 6;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const ABORTED: u32 = 10;
const OUT_OF_RANGE: u32 = 11;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const DATA_LOSS: u32 = 15;
const UNAUTHENTICATED: u32 = 16;

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The one message of an answer. grpc-go's servers compress as the request was, whatever we say that we read.
fn unframed(body: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (&[flag, a, b, c, d], message) = body.split_first_chunk()?;
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return None;
    }
    match flag {
        0 => Some(message.into()),
        1 => {
            let mut plain = Vec::new();
            GzDecoder::new(message).take(ANSWER as u64).read_to_end(&mut plain).ok()?;
            Some(plain.into())
        }
        _ => None,
    }
}

/// gRPC leaves the padding to the sender.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The delay of the `RetryInfo` in a `google.rpc.Status`.
fn retry(details: &[u8]) -> Option<Duration> {
    let details = Details::decode(details).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&info.value[..]).ok()?.delay.unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::new(seconds, nanos.min(999_999_999)))
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: u32, message: &str, details: &[u8], body: &[u8]) -> Answer {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(code));
        trailers.insert("grpc-message", HeaderValue::try_from(message).expect("a header"));
        trailers.insert("grpc-status-details-bin", HeaderValue::from_bytes(details).expect("a header"));
        Status::of(&trailers).expect("a status").judge(Signal::Traces, body)
    }

    fn details(delay: Option<Delay>) -> String {
        let value = RetryInfo { delay }.encode_to_vec();
        let other = Detail { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: vec![0xff] };
        let info = Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
        BASE64.encode(Details { details: vec![other, info] }.encode_to_vec())
    }

    #[test]
    fn a_frame_is_a_flag_a_length_and_the_message() {
        assert_eq!(&frame(b"abc", false)[..], b"\0\0\0\0\x03abc");
        assert_eq!(&frame(b"", false)[..], b"\0\0\0\0\0");
        let zipped = frame(&[7; 10_000], true);
        assert_eq!(zipped[0], 1);
        assert_eq!(u32::from_be_bytes(zipped[1..5].try_into().expect("four")) as usize, zipped.len() - 5);
        let mut plain = Vec::new();
        GzDecoder::new(&zipped[5..]).read_to_end(&mut plain).expect("gzip");
        assert_eq!(plain, [7; 10_000]);
    }

    #[test]
    fn each_status_has_its_meaning() {
        let expected = |code| match code {
            1 | 4 | 10 | 14 | 15 => "Later",
            3 | 6 | 9 => "Refused",
            5 | 7 | 12 | 16 => "Blocked",
            8 | 11 => "TooLarge",
            _ => "Failed",
        };
        for code in 1..20 {
            let answer = format!("{:?}", judged(code, "", b"", b""));
            assert!(answer.starts_with(expected(code)), "{code}: {answer}");
        }
        let mut nonsense = HeaderMap::new();
        nonsense.insert("grpc-status", HeaderValue::from_static("fine"));
        assert_eq!(Status::of(&nonsense).expect("a status").code, UNKNOWN);
        assert!(Status::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn ok_is_a_success_only_with_a_whole_message_of_otlp() {
        let accepted =
            |rejected, message: Option<&str>| Answer::Accepted { rejected, message: message.map(Into::into) };
        assert_eq!(judged(0, "", b"", b"\0\0\0\0\0"), accepted(0, None));
        let partial = b"\0\0\0\0\x0f\x0a\x0d\x08\x03\x12\x09too\nlate!";
        assert_eq!(judged(0, "", b"", partial), accepted(3, Some("too late!")));
        assert_eq!(judged(0, "", b"", &frame(&partial[5..], true)), accepted(3, Some("too late!")));
        let bomb = frame(&vec![0; 10_000_000], true);
        for body in [
            &b""[..],
            &bomb,
            b"\x02\0\0\0\0",
            b"\0\0\0",
            b"\0\0\0\0\x01",
            b"\0\0\0\0\0\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x02\xff\xff",
            b"\0\0\0\0\0\0\0\0\0\0",
        ] {
            let Answer::Later { why, .. } = judged(0, "", b"", body) else { panic!("{body:?}") };
            assert_eq!(why, "answered OK, but not OTLP");
        }
    }

    #[test]
    fn retry_info_says_how_long_and_that_it_passes() {
        let after = |code, details: &str| match judged(code, "", details.as_bytes(), b"") {
            Answer::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        let delay = details(Some(Delay { seconds: 2, nanos: 500_000_000 }));
        for code in [UNAVAILABLE, RESOURCE_EXHAUSTED, OUT_OF_RANGE] {
            assert_eq!(after(code, &delay), Some(Duration::from_millis(2500)));
            assert_eq!(after(code, delay.trim_end_matches('=')), Some(Duration::from_millis(2500)), "no padding");
        }
        assert_eq!(after(UNAVAILABLE, &details(None)), Some(Duration::ZERO));
        for nonsense in ["", "%%%", "AAA", "/////w==", &details(Some(Delay { seconds: -1, nanos: 0 }))] {
            assert_eq!(after(UNAVAILABLE, nonsense), None, "{nonsense}");
            assert!(matches!(judged(RESOURCE_EXHAUSTED, "", nonsense.as_bytes(), b""), Answer::TooLarge { .. }));
        }
    }

    #[test]
    fn a_message_is_one_readable_line() {
        let why = |message: &str| match judged(UNKNOWN, message, b"", b"") {
            Answer::Failed { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why("no%0D%0Asuch%20value"), "UNKNOWN: no such value");
        assert_eq!(why("%E2%82%AC %ff%zz 100%"), "UNKNOWN: € %zz 100%");
        assert_eq!(why(""), "UNKNOWN");
        assert!(why(&"x".repeat(5000)).chars().count() < 220);
    }
}
