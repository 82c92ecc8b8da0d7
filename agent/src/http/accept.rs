//! Whether the one who asks would rather have HTML than JSON (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header};

/// True when HTML is wanted more than JSON, or as much and named before it.
///
/// JSON is the default: a client that takes anything (`*/*`), says nothing, or wants what we do not
/// have is a program. A wildcard never asks for HTML as such, so `text/html, */*` is a browser.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (Wish::default(), Wish::default());
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for (place, range) in ranges.flat_map(|value| value.split(',')).enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let Some(weight) = weight(parts) else { continue };
        match media.as_str() {
            "text/html" => html.hear(2, weight, place),
            "text/*" => html.hear(1, weight, place),
            "application/json" => json.hear(2, weight, place),
            "application/*" => json.hear(1, weight, place),
            "*/*" => json.hear(0, weight, usize::MAX),
            _ => {}
        }
    }
    html.weight > 0 && (html.weight, json.place) > (json.weight, html.place)
}

/// How much a media type is wanted.
#[derive(Default)]
struct Wish {
    /// How exactly it was named: the exact name overrides `type/*`, which overrides `*/*`.
    exactness: Option<u8>,
    /// Thousandths; 0 is "not at all".
    weight: u16,
    /// Where in the list.
    place: usize,
}

impl Wish {
    fn hear(&mut self, exactness: u8, weight: u16, place: usize) {
        if self.exactness.is_none_or(|before| exactness > before) {
            *self = Self { exactness: Some(exactness), weight, place };
        }
    }
}

/// The `q` parameter in thousandths, 1000 where there is none; `None` where it is malformed, so that
/// the range is passed over.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a str>) -> Option<u16> {
    let Some(text) = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
    }) else {
        return Some(1000);
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, value.parse().expect("a header"));
        }
        prefers_html(&headers)
    }

    #[test]
    fn browsers_get_the_page() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
                        application/signed-exchange;v=b3;q=0.7";
        for accept in [firefox, chromium, "text/html", "text/*", "TEXT/HTML", "text/html;level=1", "*/*, text/html"] {
            assert!(html(&[accept]), "{accept}");
        }
    }

    #[test]
    fn programs_get_json() {
        for accept in ["*/*", "application/json", "application/*", "image/png", "", "*/*;q=0.1", ",,;", "text", "text/"]
        {
            assert!(!html(&[accept]), "{accept}");
        }
        assert!(!html(&[]));
    }

    #[test]
    fn the_higher_weight_wins_and_then_the_place() {
        assert!(html(&["application/json;q=0.5, text/html;q=0.501"]));
        assert!(!html(&["text/html;q=0.5, application/json;q=0.6"]));
        assert!(html(&["text/html, application/json"]));
        assert!(!html(&["application/json, text/html"]));
        assert!(!html(&["text/html;q=0.5, */*"]));
        assert!(html(&["text/html;q=0.5", "application/json;q=0.4"]), "several headers are one list");
    }

    #[test]
    fn an_exact_name_overrides_a_wildcard() {
        assert!(!html(&["text/*, text/html;q=0"]));
        assert!(html(&["text/html, application/*, application/json;q=0"]));
        assert!(!html(&["text/html;q=0, application/json;q=0"]));
    }

    #[test]
    fn a_malformed_weight_passes_its_range_over() {
        for q in ["2", "1.001", "0.1234", "-1", "x", "0.x", "", "1e0", "+1"] {
            assert!(!html(&[&format!("text/html;q={q}")]), "{q}");
        }
        for q in ["1", "1.000", "0.001", "0.5", "1."] {
            assert!(html(&[&format!("text/html; Q = {q}")]), "{q}");
        }
    }
}
