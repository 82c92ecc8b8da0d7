//! What single values may say, whatever the protocol.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::section::Leaf;
use super::suggest::{self, did_you_mean};
use super::tree::Scalar;
use crate::model::spc::Kind;
use crate::model::{LineBy, State};
use crate::spool::Signal;

/// The text of `scalar`, unless YAML itself would see something else in it.
///
/// YAML 1.1 tools, which people use to write configuration, turn an unquoted `no` into false and `010` into 8.
pub(super) fn text(scalar: &Scalar) -> Result<&str, String> {
    let text = scalar.text.as_str();
    if scalar.plain
        && scalar.template.is_none()
        && let Some(kind) = yaml_kind(text)
    {
        return Err(format!("`{text}` is a {kind} to YAML; put it in quotes: \"{text}\""));
    }
    Ok(text)
}

/// What YAML 1.1 or 1.2 sees in an unquoted word, if not text. (`y` and `n` are left alone: `N` is the newton.)
pub(super) fn yaml_kind(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "false" | "yes" | "no" | "on" | "off" => Some("truth value"),
        _ if is_number(text) => Some("number"),
        _ => None,
    }
}

/// Whether YAML sees a number in `text`.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (digits.parse::<f64>().is_ok() || digits.starts_with("0x") || digits.starts_with("0o"))
}

/// A name that people and telemetry use: site, line, station, tag, shift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) String);

impl Leaf for Name {
    const FORM: &'static str = "a name";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        if text.trim().is_empty() {
            return Err("a name is not empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err(format!("`{}` holds control characters", text.escape_debug()));
        }
        if text.trim() != text {
            return Err(format!("`{text}` begins or ends with a space; did you mean `{}`?", text.trim()));
        }
        if text.chars().count() > 128 {
            return Err("a name has at most 128 characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": 128 })
    }
}

/// Text that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl Leaf for Text {
    const FORM: &'static str = "text";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err(format!("`{}` holds control characters", text.escape_debug()));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// A currency by its ISO 4217 code. The list changes with the world, so only the form is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Currency(pub(super) String);

/// What people write, and its code.
const CURRENCIES: [(&str, &str); 7] =
    [("€", "EUR"), ("euro", "EUR"), ("$", "USD"), ("dollar", "USD"), ("£", "GBP"), ("¥", "JPY"), ("rmb", "CNY")];

impl Leaf for Currency {
    const FORM: &'static str = "a currency such as `EUR`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        let upper = text.to_ascii_uppercase();
        let code = upper.len() == 3 && upper.bytes().all(|byte| byte.is_ascii_uppercase());
        if code && text == upper {
            return Ok(Self(upper));
        }
        let meant = CURRENCIES.iter().find(|(said, _)| *said == text.to_lowercase()).map(|(_, code)| *code);
        Err(match meant.or(code.then_some(upper.as_str())) {
            Some(meant) => format!("`{text}` is no currency; did you mean `{meant}`?"),
            None => format!("`{}` is no currency; write its three letters, such as `EUR`", text.escape_debug()),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[A-Z]{3}$" })
    }
}

/// Text that no message ever quotes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden(pub(super) String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Leaf for Hidden {
    const FORM: &'static str = "text, or `${env:NAME}`, or `${file:/path}`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        text(scalar)
            .map(|text| Self(text.to_owned()))
            .map_err(|_| "is a number or truth value to YAML; put it in quotes".to_owned())
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// The path of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Leaf for FilePath {
    const FORM: &'static str = "a path";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        Text::parse(scalar).map(|text| Self(text.0.into()))
    }

    fn schema() -> Value {
        Text::schema()
    }
}

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl Leaf for Flag {
    const FORM: &'static str = "`true` or `false`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if !scalar.plain && scalar.template.is_none() {
            return Err(format!("\"{text}\" is text; write `true` or `false`, without quotes"));
        }
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            "yes" | "on" | "y" | "1" => Err(format!("`{text}` is no truth value; did you mean `true`?")),
            "no" | "off" | "n" | "0" => Err(format!("`{text}` is no truth value; did you mean `false`?")),
            _ => Err(format!("`{text}` is no truth value; write `true` or `false`")),
        }
    }

    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Leaf for Whole<MIN, MAX> {
    const FORM: &'static str = "a whole number";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        whole(scalar, MIN, MAX).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

fn whole(scalar: &Scalar, min: u64, max: u64) -> Result<u64, String> {
    let text = number(scalar)?;
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    if decimal && text.len() > 1 && text.starts_with('0') {
        let meant = text.trim_start_matches('0');
        let meant = if meant.is_empty() { "0" } else { meant };
        return Err(format!("`{text}` is octal to some YAML tools and decimal to others; write `{meant}`"));
    }
    let value = if decimal { text.parse().ok() } else { None };
    value
        .filter(|value| (min..=max).contains(value))
        .ok_or_else(|| format!("`{text}` is no whole number from {min} to {max}"))
}

/// From 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fraction(pub(super) f64);

impl Leaf for Fraction {
    const FORM: &'static str = "a number from 0 to 1";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = number(scalar)?;
        let value = text.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        value.map(Self).ok_or_else(|| match text.strip_suffix('%').map(|percent| percent.trim().parse::<f64>()) {
            Some(Ok(percent)) => format!("`{text}` is no number from 0 to 1; did you mean `{}`?", percent / 100.0),
            _ => format!("`{text}` is no number from 0 to 1"),
        })
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

/// A share, written with its sign: `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Percent(pub(super) f64);

impl Leaf for Percent {
    const FORM: &'static str = "a share from `0%` to `100%`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if let Some(percent) = text.strip_suffix('%') {
            let share = percent.trim().parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
            return share
                .map(|percent: f64| Self(percent / 100.0))
                .ok_or_else(|| format!("`{text}` is no share from 0% to 100%"));
        }
        Err(match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => {
                format!("`{text}` has no sign; did you mean `{text}%` or `{}%`?", share * 100.0)
            }
            Ok(_) => format!("`{text}` has no sign; did you mean `{text}%`?"),
            Err(_) => format!("`{text}` is no share; write it as `1%`"),
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\d+(\.\d+)?\s*%$" })
    }
}

fn number(scalar: &Scalar) -> Result<&str, String> {
    let text = scalar.text.as_str();
    if !scalar.plain && scalar.template.is_none() {
        return Err(format!("\"{text}\" is text; write the number without quotes"));
    }
    Ok(text)
}

/// A closed list of words.
pub(super) trait Word: Copy + 'static {
    /// What the words name: `state`.
    const WHAT: &'static str;
    /// What is expected, for people.
    const FORM: &'static str;

    /// Every word, and what it stands for.
    fn all() -> Vec<(&'static str, Self)>;

    /// Why a word that will mean something one day means nothing yet.
    fn later(_text: &str) -> Option<String> {
        None
    }
}

/// One word of a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneOf<W>(pub(super) W);

impl<W: Word> Leaf for OneOf<W> {
    const FORM: &'static str = W::FORM;

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        // Numbers need no quotes here: each word means itself, `version: 5` too.
        let all = W::all();
        let found = one_of(&scalar.text, &mut all.iter().map(|(word, _)| *word), W::WHAT, W::later)?;
        Ok(Self(all[found].1))
    }

    fn schema() -> Value {
        let words = W::all().into_iter().flat_map(|(word, _)| {
            let number = word.parse::<u64>().ok().map(Value::from);
            std::iter::once(Value::from(word)).chain(number)
        });
        json!({ "enum": words.collect::<Vec<_>>() })
    }
}

/// Which of the words it is.
fn one_of(
    text: &str,
    words: &mut dyn Iterator<Item = &'static str>,
    what: &str,
    later: fn(&str) -> Option<String>,
) -> Result<usize, String> {
    let words: Vec<_> = words.collect();
    if let Some(found) = words.iter().position(|word| *word == text) {
        return Ok(found);
    }
    Err(match (later(text), suggest::nearest(text, words.iter().copied())) {
        (Some(why), _) => why,
        (None, Some(word)) => format!("`{text}` is no {what}; did you mean `{word}`?"),
        (None, None) => format!("`{text}` is no {what}; write {}", suggest::list(words)),
    })
}

impl Word for State {
    const WHAT: &'static str = "state";
    const FORM: &'static str = "a state, such as `producing` or `down`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|state| (state.word(), state)).collect()
    }
}

impl Word for Kind {
    const WHAT: &'static str = "control chart";
    const FORM: &'static str = "a control chart, such as `xbar_r` or `p`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|kind| (kind.word(), kind)).collect()
    }
}

impl Word for LineBy {
    const WHAT: &'static str = "pace of a line";
    const FORM: &'static str = "`constraint`, `last` or `weighted`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|by| (by.word(), by)).collect()
    }
}

impl Word for Signal {
    const WHAT: &'static str = "signal";
    const FORM: &'static str = "`metrics`, `logs` or `traces`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|signal| (signal.word(), signal)).collect()
    }
}

/// An address and port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listen(pub(super) SocketAddr);

impl Leaf for Listen {
    const FORM: &'static str = "an IP address with a port such as `127.0.0.1:8080`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        listen(&scalar.text).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        match (host, port.parse::<u16>()) {
            ("localhost", Ok(port)) => {
                format!("`{text}` is no IP address with a port; did you mean `127.0.0.1:{port}`?")
            }
            ("" | "*", Ok(port)) => {
                format!("`{text}` has no IP address; write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for every interface")
            }
            _ => format!("`{text}` is no IP address with a port; write it as `127.0.0.1:8080`"),
        }
    })
}

/// A unit of measure. UCUM has a grammar and a large table; only what surely is none is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ucum(pub(super) String);

/// What people write, and what UCUM calls it.
const UCUM: [(&str, &str); 18] = [
    ("°C", "Cel"),
    ("degC", "Cel"),
    ("celsius", "Cel"),
    ("Celsius", "Cel"),
    ("°F", "[degF]"),
    ("degF", "[degF]"),
    ("Ohm", "ohm"),
    ("Ω", "ohm"),
    ("sec", "s"),
    ("percent", "%"),
    ("parts", "{part}"),
    ("part", "{part}"),
    ("pcs", "{part}"),
    ("rpm", "{rev}/min"),
    ("psi", "[psi]"),
    ("m³", "m3"),
    ("m²", "m2"),
    ("µm", "um"),
];

impl Leaf for Ucum {
    const FORM: &'static str = "a UCUM unit such as `Cel`, `N` or `{part}`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        if let Some((_, unit)) = UCUM.iter().find(|(said, _)| *said == text) {
            return Err(format!("`{text}` is no UCUM unit; did you mean `{unit}`?"));
        }
        if text.is_empty() || text.len() > 63 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("`{}` is no UCUM unit: 1 to 63 ASCII characters without spaces", text.escape_debug()));
        }
        let balanced = |open, close| {
            let depth = text.chars().try_fold(0_u32, |depth, c| match c {
                c if c == open => depth.checked_add(1),
                c if c == close => depth.checked_sub(1),
                _ => Some(depth),
            });
            depth == Some(0)
        };
        if !(balanced('{', '}') && balanced('[', ']') && balanced('(', ')')) {
            return Err(format!("`{text}` is no UCUM unit: a bracket is not closed"));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[!-~]{1,63}$" })
    }
}

/// A metric's name, as OpenTelemetry allows it (metrics API, "Instrument name syntax").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metric(pub(super) String);

impl Leaf for Metric {
    const FORM: &'static str = "a metric name such as `oven.temperature`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        if !is_metric_name(text) {
            return Err(format!(
                "`{}` is no metric name: a letter, then at most 254 letters, digits, `_`, `.`, `-` or `/`",
                text.escape_debug()
            ));
        }
        if RESERVED.contains(&text) || text.starts_with("gemba.") {
            return Err(format!("`{text}` is a name of gemba's own; choose another"));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_./-]{0,254}$" })
    }
}

/// What gemba itself sends under `factory.`; a tag of that name would mix with it.
const RESERVED: [&str; 12] = [
    "factory.oee",
    "factory.availability",
    "factory.performance",
    "factory.quality",
    "factory.coverage",
    "factory.parts",
    "factory.defects",
    "factory.yield.first_pass",
    "factory.defect.rate",
    "factory.state.time",
    "factory.downtime",
    "factory.cycle.duration",
];

/// Whether OpenTelemetry takes it as a metric's name.
pub(super) fn is_metric_name(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-/".contains(&byte))
}

/// `; did you mean …` for a name that should be one of `names`, or the list of them.
pub(super) fn one_of_names<'a>(text: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let help = did_you_mean(text, names.clone());
    if help.is_empty() { format!("; there is {}", suggest::list(names)) } else { help }
}
