//! Plain numbers, and what else the treatment of a tag's readings may say.

use serde_json::{Value, json};

use super::section::Leaf;
use super::tree::Scalar;

/// Any number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Real(pub(super) f64);

impl Leaf for Real {
    const FORM: &'static str = "a number such as `0.1`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if !scalar.plain && scalar.template.is_none() {
            return Err(format!("\"{text}\" is text; write the number without quotes"));
        }
        number(text).map(Self).ok_or_else(|| match text.replace(',', ".") {
            meant if text.matches(',').count() == 1 && number(&meant).is_some() => {
                format!("`{text}` is no number; did you mean `{meant}`?")
            }
            _ => format!("`{text}` is no number; write it as `0.1`"),
        })
    }

    fn schema() -> Value {
        json!({ "type": "number" })
    }
}

/// A number above zero, or also zero where `ZERO` allows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Amount<const ZERO: bool>(pub(super) f64);

impl<const ZERO: bool> Leaf for Amount<ZERO> {
    const FORM: &'static str = "a number such as `0.25`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let Real(amount) = Real::parse(scalar)?;
        match amount {
            0.0 if !ZERO => Err(format!("`{}` is out of range: above zero", scalar.text)),
            amount if amount < 0.0 => Err(format!(
                "`{}` is out of range: {}",
                scalar.text,
                if ZERO { "not below zero" } else { "above zero" }
            )),
            amount => Ok(Self(amount)),
        }
    }

    fn schema() -> Value {
        if ZERO {
            json!({ "type": "number", "minimum": 0 })
        } else {
            json!({ "type": "number", "exclusiveMinimum": 0 })
        }
    }
}

/// How much a value may change without being told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Band {
    /// In the value's own unit.
    Absolute(f64),
    /// A share of its range.
    Share(f64),
}

impl Leaf for Band {
    const FORM: &'static str = "a number such as `0.5`, or a share of the range such as `2%`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits.trim_end(), true));
        let band = number(digits).ok_or_else(|| format!("`{text}` is no deadband; write it as `0.5` or `2%`"))?;
        match (band, percent) {
            (0.0, _) => Err("a deadband of 0 tells every change: write `on_change: true`".to_owned()),
            (band, _) if band < 0.0 => Err(format!("`{text}` is out of range: a deadband is above zero")),
            (band, true) if band >= 100.0 => Err(format!("`{text}` is out of range: less than 100%")),
            (band, true) => Ok(Self::Share(band / 100.0)),
            (band, false) => Ok(Self::Absolute(band)),
        }
    }

    fn schema() -> Value {
        json!({ "type": ["number", "string"], "exclusiveMinimum": 0, "pattern": r"^[0-9]+(\.[0-9]+)?\s*%?$" })
    }
}

fn number(text: &str) -> Option<f64> {
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|real: &f64| decimal && real.is_finite())
}

/// An expression, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Formula(pub(super) String);

impl Leaf for Formula {
    const FORM: &'static str = "an expression such as `volts * amps`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        match scalar.text.trim() {
            "" => Err("is empty; write an expression such as `volts * amps`".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1, "maxLength": gemba_drivers::treat::expression::LONGEST })
    }
}
