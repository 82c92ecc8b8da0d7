//! CSV as RFC 4180 has it: lines end with CR LF, and a field that holds a comma, a quote or a line's end is quoted.

use std::io::{self, Write};

/// Writes one row.
pub(crate) fn row<'a>(out: &mut dyn Write, fields: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    for (place, field) in fields.into_iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        if field.contains([',', '"', '\r', '\n']) {
            write!(out, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}

/// The shortest digits that give the same number again, as in JSON; `NaN`, `inf` and `-inf`, which JSON has not.
pub(crate) fn number(real: f64) -> String {
    serde_json::Number::from_f64(real).map_or_else(|| real.to_string(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_quotes_gets_them() {
        let mut out = Vec::new();
        row(&mut out, ["plain", "", "a,b", "say \"7\"", "two\nlines", " space "]).expect("writes");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "plain,,\"a,b\",\"say \"\"7\"\"\",\"two\nlines\", space \r\n"
        );
    }

    #[test]
    fn numbers_come_back() {
        for real in [0.1, 1e300, -0.0, 5e-324, 3.0] {
            assert_eq!(number(real).parse::<f64>().map(f64::to_bits), Ok(real.to_bits()));
        }
        assert_eq!((&*number(f64::NAN), &*number(f64::NEG_INFINITY)), ("NaN", "-inf"));
    }
}
