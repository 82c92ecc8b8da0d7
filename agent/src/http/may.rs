//! Who may tell the agent something: the one place that says so. Reading is free to whoever reaches the page.
//!
//! So far whoever reaches it may tell as well, once the configuration says that anybody may. People and their roles will
//! be asked for here.

use axum::http::{HeaderMap, Uri, header};
use tokio::sync::mpsc;

use super::Telling;

/// The way in, for whoever sent these headers.
///
/// # Errors
/// Why there is none.
pub(super) fn tell<'a>(
    way_in: Option<&'a mpsc::Sender<Telling>>,
    headers: &HeaderMap,
) -> Result<&'a mpsc::Sender<Telling>, Forbidden> {
    let way_in = way_in.ok_or(Forbidden::Off)?;
    if is_of_another_site(headers) { Err(Forbidden::AnotherSite) } else { Ok(way_in) }
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forbidden {
    /// Nobody may.
    #[error("nobody may tell anything here: `http.entries: true` in the configuration lets people")]
    Off,
    /// Some page that is open in the browser of somebody who may.
    #[error("a page of another site may not tell anything here")]
    AnotherSite,
}

/// Whether a browser sends this for a page that is not ours. Browsers say so themselves (`Sec-Fetch-Site`, W3C Fetch
/// Metadata); those that do not name the page's origin (RFC 6454, 7), which is ours if its host is the one that was asked.
/// Whoever says neither is no browser.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let page = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (page.as_ref().filter(|page| page.scheme().is_some()).and_then(Uri::authority), asked) {
        (Some(page), Some(asked)) => !page.as_str().eq_ignore_ascii_case(asked),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName};

    use super::*;

    fn is_ours(headers: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header")))
            .collect();
        !is_of_another_site(&headers)
    }

    #[test]
    fn programs_and_our_own_pages_may() {
        assert!(is_ours(&[]));
        assert!(is_ours(&[("host", "gateway:8080")]));
        assert!(is_ours(&[("host", "gateway:8080"), ("origin", "http://gateway:8080")]));
        assert!(is_ours(&[("host", "Gateway"), ("origin", "https://gateway")]), "behind something that speaks TLS");
        assert!(is_ours(&[("host", "[::1]:8080"), ("origin", "http://[::1]:8080")]));
        assert!(is_ours(&[("sec-fetch-site", "same-origin"), ("host", "inner"), ("origin", "https://outer")]));
        assert!(is_ours(&[("sec-fetch-site", "none")]));
    }

    #[test]
    fn pages_of_other_sites_may_not() {
        for headers in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("host", "gateway"), ("origin", "http://gateway")],
            &[("sec-fetch-site", "")],
            &[("host", "gateway:8080"), ("origin", "http://gateway:8081")],
            &[("host", "gateway"), ("origin", "http://gateway.evil.example")],
            &[("host", "gateway"), ("origin", "null")],
            &[("host", "gateway"), ("origin", "gateway")],
            &[("host", "gateway"), ("origin", "")],
            &[("origin", "http://gateway")],
        ] {
            assert!(!is_ours(headers), "{headers:?}");
        }
    }
}
