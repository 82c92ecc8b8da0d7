//! Quantities with their units: durations, sizes and rates. A bare number is refused: nobody can tell what it means.

use std::time::Duration;

use serde_json::{Value, json};

use super::section::Leaf;
use super::suggest;
use super::tree::Scalar;

/// Bounds of spans are written in milliseconds.
pub(super) const SECOND: u64 = 1_000;
pub(super) const HOUR: u64 = 3_600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;
/// Bounds of sizes in bytes.
pub(super) const MIB: u64 = 1 << 20;
pub(super) const PIB: u64 = 1 << 50;

/// A unit, what it is worth, and how else people write it.
struct Unit {
    name: &'static str,
    factor: u128,
    also: &'static [&'static str],
}

const fn unit(name: &'static str, factor: u128, also: &'static [&'static str]) -> Unit {
    Unit { name, factor, also }
}

/// In nanoseconds.
const TIME: [Unit; 6] = [
    unit("us", 1_000, &["µs", "μs", "usec", "micros"]),
    unit("ms", 1_000_000, &["msec", "msecs", "millis", "millisecond", "milliseconds"]),
    unit("s", 1_000_000_000, &["sec", "secs", "second", "seconds"]),
    unit("min", 60_000_000_000, &["m", "mins", "minute", "minutes"]),
    unit("h", 3_600_000_000_000, &["hr", "hrs", "hour", "hours"]),
    unit("d", 86_400_000_000_000, &["day", "days"]),
];

/// In bytes.
const SIZE: [Unit; 9] = [
    unit("B", 1, &["byte", "bytes"]),
    unit("KiB", 1 << 10, &["k", "ki"]),
    unit("MiB", 1 << 20, &["m", "mi"]),
    unit("GiB", 1 << 30, &["g", "gi"]),
    unit("TiB", 1 << 40, &["t", "ti"]),
    unit("kB", 1_000, &[]),
    unit("MB", 1_000_000, &[]),
    unit("GB", 1_000_000_000, &[]),
    unit("TB", 1_000_000_000_000, &[]),
];

/// A duration from `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<const MIN: u64, const MAX: u64>(pub(super) Duration);

impl<const MIN: u64, const MAX: u64> Leaf for Span<MIN, MAX> {
    const FORM: &'static str = "a duration such as `250ms`, `1.2s` or `5min`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        span(&scalar.text, MIN, MAX).map(Self)
    }

    fn schema() -> Value {
        if MIN == 0 {
            json!({ "type": ["string", "integer"], "pattern": r"^0$|^[0-9]+(\.[0-9]+)?(us|ms|s|min|h|d)$", "maximum": 0, "minimum": 0 })
        } else {
            json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|min|h|d)$" })
        }
    }
}

/// A duration from `min` to `max` milliseconds.
fn span(text: &str, min: u64, max: u64) -> Result<Duration, String> {
    let nanos = quantity(text, &TIME, "duration", "250ms")?;
    let (min, max) = (u128::from(min) * 1_000_000, u128::from(max) * 1_000_000);
    if !(min..=max).contains(&nanos) {
        let (min, max) = (show(min, &TIME[1..]), show(max, &TIME[1..]));
        return Err(format!("`{text}` is out of range: from {min} to {max}"));
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("`{text}` is too long"))
}

/// A duration, however short or long.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = quantity(text, &TIME, "duration", "250ms")?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("`{text}` is too long"))
}

/// A number of bytes from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<const MIN: u64, const MAX: u64> Leaf for Size<MIN, MAX> {
    const FORM: &'static str = "a size such as `512MiB` or `2GiB`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        size(&scalar.text, MIN, MAX).map(Self)
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([kMGT]B|[KMGT]iB|B)$" })
    }
}

fn size(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let bytes = quantity(text, &SIZE, "size", "512MiB")?;
    u64::try_from(bytes).ok().filter(|bytes| (min..=max).contains(bytes)).ok_or_else(|| {
        let (min, max) = (show(min.into(), &SIZE[..5]), show(max.into(), &SIZE[..5]));
        format!("`{text}` is out of range: from {min} to {max}")
    })
}

/// So many a second, above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate(pub(super) f64);

impl Leaf for Rate {
    const FORM: &'static str = "a rate such as `2.5/s` or `60/min`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        let (number, per) =
            text.split_once('/').ok_or_else(|| format!("`{text}` is no rate; write it as `2.5/s` or `60/min`"))?;
        let known = TIME.iter().find(|unit| unit.name == per && unit.name != "us" && unit.name != "ms");
        let decimal = is_decimal(number).then(|| number.parse::<f64>().ok()).flatten();
        let (Some(unit), Some(number)) = (known, decimal) else {
            let digits: String = number.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let meant = TIME[2..].iter().find(|unit| unit.name == per.trim() || unit.also.contains(&per.trim()));
            return Err(match meant {
                Some(unit) if is_decimal(&digits) => {
                    format!("`{text}` is no rate; did you mean `{digits}/{}`?", unit.name)
                }
                _ => format!("`{text}` is no rate; write it as `2.5/s`, `60/min`, `100/h` or `1000/d`"),
            });
        };
        #[expect(clippy::cast_precision_loss, reason = "a day is 8.64e13 ns, exact in 53 bits")]
        let rate = number / (unit.factor as f64 / 1e9);
        if rate > 0.0 && rate.is_finite() {
            Ok(Self(rate))
        } else {
            Err(format!("`{text}` is out of range: a rate is above zero"))
        }
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|min|h|d)$" })
    }
}

/// `text` in the base unit of `units`; exact, fractions below the base unit are cut off. A bare 0 needs no unit.
fn quantity(text: &str, units: &[Unit], what: &str, example: &str) -> Result<u128, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, name) = text.split_at(digits);
    if !is_decimal(number) {
        return Err(format!("`{text}` is no {what}; write it as `{example}`"));
    }
    if number == "0" && name.is_empty() {
        return Ok(0);
    }
    let names = || suggest::list(units.iter().map(|unit| unit.name));
    if name.is_empty() {
        return Err(format!("`{text}` has no unit; one of {}, written like `{example}`", names()));
    }
    let Some(unit) = units.iter().find(|unit| unit.name == name) else {
        let name = name.trim();
        return Err(match meant(name, units) {
            Some(unit) => format!("`{text}` is no {what}; did you mean `{number}{}`?", unit.name),
            None => format!("`{text}` is no {what}: `{name}` is none of {}", names()),
        });
    };
    scale(number, unit.factor).ok_or_else(|| format!("`{text}` is too much"))
}

/// The unit somebody had in mind.
fn meant<'a>(name: &str, units: &'a [Unit]) -> Option<&'a Unit> {
    let lower = name.to_lowercase();
    units
        .iter()
        .find(|unit| unit.name == name)
        .or_else(|| units.iter().find(|unit| unit.name.to_lowercase() == lower || unit.also.contains(&lower.as_str())))
}

/// Digits, with at most one point between them.
fn is_decimal(number: &str) -> bool {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole) && digits(fraction)
}

/// `number` times `factor` without going through a float.
fn scale(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let fraction = &fraction[..fraction.len().min(18)];
    let parts = fraction.parse::<u128>().ok()?.checked_mul(factor)? / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.parse::<u128>().ok()?.checked_mul(factor)?.checked_add(parts)
}

/// `amount` in the largest unit that divides it.
fn show(amount: u128, units: &[Unit]) -> String {
    let unit = units.iter().rev().find(|unit| amount > 0 && amount.is_multiple_of(unit.factor));
    match unit {
        Some(unit) => format!("`{}{}`", amount / unit.factor, unit.name),
        None => format!("`{amount}`"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Any = Span<0, { 366 * 86_400_000 }>;

    fn scalar(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), template: None, plain: true }
    }

    fn duration(text: &str) -> Result<Duration, String> {
        Any::parse(&scalar(text)).map(|span| span.0)
    }

    #[test]
    fn durations_are_exact() {
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("1.2s", 1_200_000_000),
            ("0.1s", 100_000_000),
            ("2.5min", 150_000_000_000),
            ("1h", 3_600_000_000_000),
            ("7d", 604_800_000_000_000),
            ("0.000001ms", 1),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_would_be_right() {
        for (text, message) in [
            ("20 sec", "`20 sec` is no duration; did you mean `20s`?"),
            ("20 s", "`20 s` is no duration; did you mean `20s`?"),
            ("20S", "`20S` is no duration; did you mean `20s`?"),
            ("5m", "`5m` is no duration; did you mean `5min`?"),
            ("5 parts", "`5 parts` is no duration: `parts` is none of `us`, `ms`, `s`, `min`, `h` or `d`"),
            ("20", "`20` has no unit; one of `us`, `ms`, `s`, `min`, `h` or `d`, written like `250ms`"),
            ("-1s", "`-1s` is no duration; write it as `250ms`"),
            ("1.s", "`1.s` is no duration; write it as `250ms`"),
            ("1.2.3s", "`1.2.3s` is no duration; write it as `250ms`"),
            ("soon", "`soon` is no duration; write it as `250ms`"),
            ("", "`` is no duration; write it as `250ms`"),
            ("400d", "`400d` is out of range: from `0` to `366d`"),
            ("999999999999999999999999999999999999d", "`999999999999999999999999999999999999d` is too much"),
            (
                "99999999999999999999999999999999999999999999s",
                "`99999999999999999999999999999999999999999999s` is too much",
            ),
        ] {
            assert_eq!(duration(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_are_decimal_or_binary_and_never_guessed() {
        let size = |text| Size::<1, { 1 << 50 }>::parse(&scalar(text)).map(|size| size.0);
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("2MB"), Ok(2_000_000));
        assert_eq!(size("100B"), Ok(100));
        assert_eq!(size("512M"), Err("`512M` is no size; did you mean `512MiB`?".to_owned()));
        assert_eq!(size("512mib"), Err("`512mib` is no size; did you mean `512MiB`?".to_owned()));
        assert_eq!(size("0B"), Err("`0B` is out of range: from `1B` to `1024TiB`".to_owned()));
        assert_eq!(
            size("512"),
            Err("`512` has no unit; one of `B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, written like `512MiB`"
                .to_owned())
        );
    }

    #[test]
    fn rates_are_a_second() {
        let rate = |text| Rate::parse(&scalar(text)).map(|rate| rate.0);
        assert_eq!(rate("2.5/s"), Ok(2.5));
        assert_eq!(rate("60/min"), Ok(1.0));
        assert_eq!(rate("1800/h"), Ok(0.5));
        assert_eq!(rate("60/m"), Err("`60/m` is no rate; did you mean `60/min`?".to_owned()));
        assert_eq!(rate("150 parts/h"), Err("`150 parts/h` is no rate; did you mean `150/h`?".to_owned()));
        assert_eq!(rate("2.5"), Err("`2.5` is no rate; write it as `2.5/s` or `60/min`".to_owned()));
        assert_eq!(
            rate("1/ms"),
            Err("`1/ms` is no rate; write it as `2.5/s`, `60/min`, `100/h` or `1000/d`".to_owned())
        );
        assert_eq!(rate("0/s"), Err("`0/s` is out of range: a rate is above zero".to_owned()));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = duration(&text);
            let _ = Size::<1, 100>::parse(&scalar(&text));
            let _ = Rate::parse(&scalar(&text));
        }

        #[test]
        fn whole_milliseconds_come_back(ms in 0_u64..31_000_000_000) {
            prop_assert_eq!(duration(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
            prop_assert_eq!(duration(&format!("{}.{:03}s", ms / 1000, ms % 1000)), Ok(Duration::from_millis(ms)));
        }
    }
}
