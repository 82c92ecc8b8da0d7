//! What the options of an OTLP receiver may say.

use serde_json::{Value, json};

use super::Protocol;
use super::section::Leaf;
use super::tree::Scalar;
use super::words::{Word, text};

impl Word for Protocol {
    const WHAT: &'static str = "OTLP protocol";
    const FORM: &'static str = "`http` or `grpc`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("http", Self::Http), ("grpc", Self::Grpc)]
    }
}

/// How OTLP is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    None,
}

impl Word for Compression {
    const WHAT: &'static str = "compression";
    const FORM: &'static str = "`gzip` or `none`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("gzip", Self::Gzip), ("none", Self::None)]
    }
}

/// The base URL of an OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl(pub(super) String);

impl Leaf for BaseUrl {
    const FORM: &'static str = "a URL such as `http://collector:4318`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint_url(scalar)?;
        let wrong = |why: &str| Err(format!("`{text}` is no OTLP endpoint: {why}"));
        let url = match reqwest::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url,
            _ if text.contains("://") => return wrong("write it as `http://collector:4318`"),
            _ => return wrong(&format!("did you mean `http://{text}`?")),
        };
        if url.query().is_some() || url.fragment().is_some() {
            // A query may hold a token: it is not quoted.
            return Err("an OTLP endpoint has no `?` and no `#`; put tokens into `headers`".to_owned());
        }
        let base = text.trim_end_matches('/');
        if let Some(base) = ["/v1/metrics", "/v1/logs", "/v1/traces"].iter().find_map(|end| base.strip_suffix(end)) {
            return wrong(&format!("the path is appended for each signal; did you mean `{base}`?"));
        }
        Ok(Self(base.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^https?://[^@?#]+$" })
    }
}

fn endpoint_url(scalar: &Scalar) -> Result<&str, String> {
    let text = text(scalar)?;
    if text.contains('@') {
        return Err("an endpoint holds no user name or password; put them into `headers`".to_owned());
    }
    Ok(text)
}
