//! What single values of MQTT options may say.

use gemba_drivers::mqtt;
use serde_json::{Value, json};

use crate::config::protocols::{endpoint, host_is_sane};
use crate::config::section::Leaf;
use crate::config::suggest;
use crate::config::tree::Scalar;
use crate::config::words::{Text, Word, text};

impl Word for mqtt::Version {
    const WHAT: &'static str = "MQTT version";
    const FORM: &'static str = "`3.1.1` or `5`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("3.1.1", Self::V311), ("5", Self::V5)]
    }
}

/// How a payload is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Payload {
    Json,
    Csv,
    Plain,
    Binary,
    Sparkplug,
}

impl Word for Payload {
    const WHAT: &'static str = "payload";
    const FORM: &'static str = "`json`, `csv`, `plain`, `binary` or `sparkplug`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![
            ("json", Self::Json),
            ("csv", Self::Csv),
            ("plain", Self::Plain),
            ("binary", Self::Binary),
            ("sparkplug", Self::Sparkplug),
        ]
    }
}

impl Payload {
    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        Self::all().into_iter().find(|(_, held)| *held == self).map_or("", |(word, _)| word)
    }
}

/// How a payload's time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) enum TimeWord {
    /// A known one.
    Known(mqtt::TimeFormat),
    /// As strftime has it.
    Custom(String),
}

impl Leaf for TimeWord {
    const FORM: &'static str = "a time format such as `unix_ms`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        if let Ok(known) = text.parse() {
            return Ok(Self::Known(known));
        }
        let names = mqtt::TimeFormat::NAMES;
        if !text.contains('%') {
            return Err(match suggest::nearest(text, names) {
                Some(word) => format!("`{text}` is no time format; did you mean `{word}`?"),
                None => format!(
                    "`{text}` is no time format; write {}, or one as strftime has it: \"%d.%m.%Y %H:%M:%S\"",
                    suggest::list(names)
                ),
            });
        }
        // What cannot be written cannot be read either.
        let any = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        jiff::fmt::strtime::format(text, &any)
            .map(|_| Self::Custom(text.to_owned()))
            .map_err(|error| format!("`{text}` is no time format: {error}"))
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "enum": mqtt::TimeFormat::NAMES }, { "type": "string", "pattern": "%" }] })
    }
}

/// A column: its name, or its place from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Column(pub(in crate::config) mqtt::ColumnAt);

impl Leaf for Column {
    const FORM: &'static str = "a column: its name, or its place counted from 0";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if scalar.plain && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .filter(|index| *index < 10_000)
                .map(|index| Self(mqtt::ColumnAt::Index(index)))
                .ok_or_else(|| format!("`{text}` is no column: its place, counted from 0, is below 10000"));
        }
        Text::parse(scalar).map(|name| Self(mqtt::ColumnAt::Name(name.0.trim().into())))
    }

    fn schema() -> Value {
        json!({ "type": ["string", "integer"], "minimum": 0 })
    }
}

/// What stands between fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Separator(pub(in crate::config) u8);

impl Leaf for Separator {
    const FORM: &'static str = "`comma`, `semicolon`, `tab` or one character";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        match scalar.text.as_bytes() {
            b"comma" => Ok(Self(b',')),
            b"semicolon" => Ok(Self(b';')),
            b"tab" | b"\t" => Ok(Self(b'\t')),
            [one] if one.is_ascii_punctuation() && *one != b'"' => Ok(Self(*one)),
            _ => Err(format!(
                "`{}` is no separator: `comma`, `semicolon`, `tab` or one character",
                scalar.text.escape_debug()
            )),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

/// Which byte comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ByteOrder {
    Big,
    Little,
}

impl Word for ByteOrder {
    const WHAT: &'static str = "byte order";
    const FORM: &'static str = "`big` or `little`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("big", Self::Big), ("little", Self::Little)]
    }
}

/// How bytes or text are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum As {
    Bool,
    Number,
    Text,
    Bytes(mqtt::Kind),
}

impl As {
    /// The words for bytes, but for those with a number in them.
    const BYTES: [(&'static str, mqtt::Kind); 10] = [
        ("u8", mqtt::Kind::Unsigned(1)),
        ("i8", mqtt::Kind::Signed(1)),
        ("u16", mqtt::Kind::Unsigned(2)),
        ("i16", mqtt::Kind::Signed(2)),
        ("u32", mqtt::Kind::Unsigned(4)),
        ("i32", mqtt::Kind::Signed(4)),
        ("u64", mqtt::Kind::Unsigned(8)),
        ("i64", mqtt::Kind::Signed(8)),
        ("f32", mqtt::Kind::F32),
        ("f64", mqtt::Kind::F64),
    ];

    /// What bytes are.
    pub(super) fn bytes(self) -> Option<mqtt::Kind> {
        match self {
            Self::Bool => Some(mqtt::Kind::Bool),
            Self::Bytes(kind) => Some(kind),
            Self::Number | Self::Text => None,
        }
    }

    /// What text is.
    pub(super) fn text(self) -> Option<mqtt::Text> {
        match self {
            Self::Bool => Some(mqtt::Text::Bool),
            Self::Number => Some(mqtt::Text::Number),
            Self::Text => Some(mqtt::Text::Text),
            Self::Bytes(_) => None,
        }
    }
}

impl Leaf for As {
    const FORM: &'static str = "how it is read, such as `u16`, `string(8)` or `text`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        match text {
            "bool" => return Ok(Self::Bool),
            "number" => return Ok(Self::Number),
            "text" => return Ok(Self::Text),
            _ => {}
        }
        if let Some((_, kind)) = Self::BYTES.iter().find(|(word, _)| *word == text) {
            return Ok(Self::Bytes(*kind));
        }
        let inner = |word: &str| text.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')')?.parse::<usize>().ok();
        if text.starts_with("string") {
            let length = inner("string").filter(|length| (1..=65_536).contains(length));
            return length
                .map(|length| Self::Bytes(mqtt::Kind::Text(length)))
                .ok_or_else(|| format!("`{text}`: text in bytes is written with its length, 1 to 65536: `string(8)`"));
        }
        if text.starts_with("bit") {
            let bit = inner("bit").and_then(|bit| u8::try_from(bit).ok()).filter(|bit| *bit < 8);
            return bit
                .map(|bit| Self::Bytes(mqtt::Kind::Bit(bit)))
                .ok_or_else(|| format!("`{text}`: a bit of a byte is written with its place, 0 to 7: `bit(0)`"));
        }
        let words = Self::BYTES.iter().map(|(word, _)| *word).chain(["bool", "number", "text"]);
        Err(match suggest::nearest(text, words.clone()) {
            Some(word) => format!("`{text}` is no data type; did you mean `{word}`?"),
            None => format!("`{text}` is no data type; write {}, `bit(0)` or `string(8)`", suggest::list(words)),
        })
    }

    fn schema() -> Value {
        json!({
            "type": "string",
            "pattern": r"^(bool|[ui](8|16|32|64)|f32|f64|bit\([0-7]\)|string\([0-9]+\)|number|text)$",
        })
    }
}

/// One level of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Level(pub(in crate::config) String);

impl Leaf for Level {
    const FORM: &'static str = "a name without `/`, `+` and `#`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let Text(text) = Text::parse(scalar)?;
        if is_level(&text) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no level of a topic: it has no `/`, `+` or `#`"))
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[^/+#]+$" })
    }
}

/// Whether `text` can stand between two slashes of a topic.
pub(super) fn is_level(text: &str) -> bool {
    !text.is_empty() && !text.contains(['/', '+', '#'])
}

/// An MQTT broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Endpoint(pub(in crate::config) mqtt::Endpoint);

impl Leaf for Endpoint {
    const FORM: &'static str = "an MQTT endpoint such as `mqtt://broker:1883` or `mqtts://broker:8883`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = endpoint(scalar, "MQTT", "mqtt", "mqtt://broker:1883")?;
        let endpoint: mqtt::Endpoint = text.parse()?;
        host_is_sane(text, &endpoint.host)?;
        Ok(Self(endpoint))
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^mqtts?://[^@/]+/?$" })
    }
}

/// A JSONPath (RFC 9535).
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct JsonPath(pub(in crate::config) serde_json_path::JsonPath);

impl Leaf for JsonPath {
    const FORM: &'static str = "a JSONPath such as `$.state`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = text(scalar)?;
        serde_json_path::JsonPath::parse(text).map(Self).map_err(|error| {
            let meant = format!("$.{}", text.trim_start_matches('.'));
            if !text.starts_with('$') && serde_json_path::JsonPath::parse(&meant).is_ok() {
                return format!("`{text}` is no JSONPath; did you mean `{meant}`?");
            }
            format!("`{text}` is no JSONPath: {}", error.to_string().replace('\n', " "))
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^\$" })
    }
}

/// Stands for the station's name.
pub(super) const STATION: &str = "{station}";
/// Stands for a tag's name.
pub(super) const TAG: &str = "{tag}";
const NAMES: [&str; 2] = [STATION, TAG];

/// An MQTT topic filter (MQTT 5, 4.7), with levels that stand for names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Filter(pub(in crate::config) String);

impl Leaf for Filter {
    const FORM: &'static str = "an MQTT topic filter such as `plant/+/telemetry`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let Text(text) = Text::parse(scalar)?;
        let wrong = |why: &str| Err(format!("`{text}` is no MQTT topic filter: {why}"));
        if text.len() > 65_535 {
            return Err("a topic filter has at most 65535 bytes".to_owned());
        }
        let own = match text.strip_prefix("$share/").map(|shared| shared.split_once('/')) {
            None => text.as_str(),
            Some(Some((group, filter))) if is_level(group) && !filter.is_empty() => filter,
            Some(_) => return wrong("a shared one is written `$share/group/filter`"),
        };
        let levels: Vec<_> = own.split('/').collect();
        for (index, level) in levels.iter().enumerate() {
            if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
                return wrong("`#` stands alone, in the last level");
            }
            if level.contains('+') && *level != "+" {
                return wrong("`+` stands alone in its level");
            }
            for name in NAMES {
                if level.contains(name) && *level != name {
                    return wrong(&format!("`{name}` stands alone in its level"));
                }
            }
            if level.starts_with('{') && level.ends_with('}') && !NAMES.contains(level) {
                let help = suggest::did_you_mean(level, NAMES);
                if !help.is_empty() {
                    return wrong(&format!("`{level}` stands for nothing{help}"));
                }
            }
        }
        if levels.iter().filter(|level| **level == TAG).count() > 1 {
            return wrong("`{tag}` is there twice");
        }
        Ok(Self(text))
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}
