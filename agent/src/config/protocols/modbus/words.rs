//! What single values of a Modbus station may say.

use gemba_drivers::modbus::{self, DataType, First, Line, Order, Parity};
use serde_json::{Value, json};

use crate::config::protocols::{endpoint, host_is_sane};
use crate::config::section::Leaf;
use crate::config::suggest;
use crate::config::tree::Scalar;
use crate::config::words::Word;

impl Word for DataType {
    const WHAT: &'static str = "Modbus data type";
    const FORM: &'static str = "a Modbus data type such as `u16` or `f32`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::NAMES.into_iter().filter_map(|name| Some((name, name.parse().ok()?))).collect()
    }
}

impl Word for First {
    const WHAT: &'static str = "order";
    const FORM: &'static str = "`big` or `little`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("big", Self::Big), ("little", Self::Little)]
    }
}

impl Word for Order {
    const WHAT: &'static str = "order of bytes";
    const FORM: &'static str = "`ABCD`, `CDAB`, `BADC` or `DCBA`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.to_vec()
    }
}

/// A Modbus register or bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Address(pub(in crate::config) modbus::Address);

impl Leaf for Address {
    const FORM: &'static str = "a Modbus address such as `holding:0`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if let Some(meant) = conventional(text) {
            return Err(format!("`{text}` is no Modbus address; counted from zero that is `{meant}`"));
        }
        text.parse().map(Self).map_err(|message: String| match text.split_once(':') {
            Some((table, offset)) if !modbus::Table::NAMES.contains(&table) => {
                match suggest::nearest(table, modbus::Table::NAMES) {
                    Some(table) => format!("`{text}` is no Modbus address; did you mean `{table}:{offset}`?"),
                    None => message,
                }
            }
            _ => message,
        })
    }

    fn schema() -> Value {
        let pattern = r"^(holding|input):[0-9]{1,5}(\.(1[0-5]|[0-9]))?$|^(coil|discrete):[0-9]{1,5}$";
        json!({ "type": "string", "pattern": pattern })
    }
}

/// What a manual's 5- or 6-digit register number, counted from one, is here: 40001 is `holding:0`.
fn conventional(text: &str) -> Option<String> {
    if !matches!(text.len(), 5 | 6) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (table, number) = text.split_at(1);
    let table = match table {
        "0" => "coil",
        "1" => "discrete",
        "3" => "input",
        "4" => "holding",
        _ => return None,
    };
    let offset = number.parse::<u32>().ok()?.checked_sub(1).filter(|offset| *offset <= 65_535)?;
    Some(format!("{table}:{offset}"))
}

/// A Modbus device, gateway or serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Endpoint {
    pub(in crate::config) endpoint: modbus::Endpoint,
    /// Whether it says how its serial line is set.
    pub(in crate::config) sets_line: bool,
}

/// The ways in which an endpoint begins.
const SCHEMES: [&str; 3] = ["tcp", "rtu", "rtu+tcp"];

impl Leaf for Endpoint {
    const FORM: &'static str = "a Modbus endpoint such as `tcp://192.168.0.10:502`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        match text.split_once("://") {
            _ if text.contains('@') => {}
            Some((said, rest)) if !SCHEMES.contains(&said) => {
                if let Some(scheme) = suggest::nearest(said, SCHEMES) {
                    return Err(format!("`{text}` is no Modbus endpoint; did you mean `{scheme}://{rest}`?"));
                }
            }
            None if text.starts_with("/dev/") => {
                return Err(format!("`{text}` is no Modbus endpoint; did you mean `rtu://{text}`?"));
            }
            _ => {}
        }
        let text = endpoint(scalar, "Modbus", "tcp", "tcp://192.168.0.10:502")?;
        let query = text.strip_prefix("rtu://").and_then(|rest| rest.split_once('?')).map_or("", |(_, query)| query);
        misspelt(query)?;
        let endpoint: modbus::Endpoint = text.parse()?;
        if let modbus::Endpoint::Tcp { host, .. } | modbus::Endpoint::RtuOverTcp { host, .. } = &endpoint {
            host_is_sane(text, host)?;
        }
        Ok(Self { endpoint, sets_line: !query.is_empty() })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^(rtu\+)?tcp://[^@/]+/?$|^rtu:///[^?@]+(\?[^@]*)?$" })
    }
}

/// A serial line's settings whose spelling is nearly right.
fn misspelt(query: &str) -> Result<(), String> {
    for (key, value) in query.split('&').filter_map(|setting| setting.split_once('=')) {
        if !Line::KEYS.contains(&key)
            && let Some(meant) = suggest::nearest(key, Line::KEYS)
        {
            return Err(format!("`{key}` is no setting of a serial line; did you mean `{meant}`?"));
        }
        let letter = Parity::NAMES.into_iter().find(|name| value.len() == 1 && name[..1].eq_ignore_ascii_case(value));
        if key == "parity"
            && !Parity::NAMES.contains(&value)
            && let Some(meant) = letter.or_else(|| suggest::nearest(value, Parity::NAMES))
        {
            return Err(format!("`{value}` is no parity; did you mean `{meant}`?"));
        }
    }
    Ok(())
}
