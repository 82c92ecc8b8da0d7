//! Who may tell the agent something: the one place that says so. Reading is free to whoever reaches the page.
//!
//! So far whoever reaches it may tell as well, once the configuration says that anybody may. People and their roles will
//! be asked for here.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::uri::Authority;
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
    from_our_page(headers)?;
    Ok(way_in)
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
    /// Some page that is of ours by its name, which anybody may have given to this gateway.
    #[error(
        "a page may tell something here only where it was asked for by the gateway's address, by a name without a dot or in \
         .local, or over TLS: any other name may be that of another site"
    )]
    AnyName,
}

/// Whether a page of ours sends this, if a browser does. Browsers say so themselves (`Sec-Fetch-Site`, W3C Fetch Metadata),
/// but over plain HTTP most do not. Then they name the page's origin (RFC 6454, 7), which is ours if its host is the one that
/// was asked, and if nobody else can call this gateway by that name. Whoever says neither is no browser.
fn from_our_page(headers: &HeaderMap) -> Result<(), Forbidden> {
    if let Some(site) = headers.get("sec-fetch-site") {
        // It comes over TLS, where a name is worth something, or from this machine.
        return if site == "same-origin" || site == "none" { Ok(()) } else { Err(Forbidden::AnotherSite) };
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let page = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let page = page.as_ref().filter(|page| page.scheme().is_some()).and_then(Uri::authority);
    let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (page, asked) {
        (Some(page), Some(asked)) if page.as_str().eq_ignore_ascii_case(asked) => {
            if is_private(page) {
                Ok(())
            } else {
                Err(Forbidden::AnyName)
            }
        }
        _ => Err(Forbidden::AnotherSite),
    }
}

/// Whether no site elsewhere can have this name. Others may point theirs at this gateway once their page is open (DNS
/// rebinding); to the browser it then is one page with ours. An address is no name; what has no dot, or is of `.local` (RFC
/// 6762, 3), is not asked of the internet's name servers.
fn is_private(page: &Authority) -> bool {
    let host = page.host();
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = host.parse::<Ipv4Addr>().is_ok() || inner.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    is_address || !host.contains('.') || host.to_ascii_lowercase().ends_with(".local")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName};

    use super::*;

    fn ours(headers: &[(&'static str, &str)]) -> Result<(), Forbidden> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header")))
            .collect();
        from_our_page(&headers)
    }

    fn is_ours(headers: &[(&'static str, &str)]) -> bool {
        ours(headers).is_ok()
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

    #[test]
    fn a_name_that_anybody_may_give_this_gateway_is_none_of_ours() {
        let of = |name: &str| ours(&[("host", name), ("origin", &format!("http://{name}"))]);
        for name in
            ["evil.example:8080", "gateway.", "10.0.0.7.evil.example", "x.local.evil.example", "evil.locale.example"]
        {
            assert_eq!(of(name), Err(Forbidden::AnyName), "{name}");
        }
        for name in ["10.0.0.7", "10.0.0.7:8080", "[fd00::7]:8080", "localhost:8080", "gw-12", "GW-12.Local:8080"] {
            assert_eq!(of(name), Ok(()), "{name}");
        }
        let tls =
            [("sec-fetch-site", "same-origin"), ("host", "gw.plant.example"), ("origin", "https://gw.plant.example")];
        assert!(is_ours(&tls));
        assert!(is_ours(&[("host", "gw.plant.example")]), "no browser");
    }
}
