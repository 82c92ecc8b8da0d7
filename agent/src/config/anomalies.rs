//! `anomalies:` as it is written. What an entry may say depends on its `method`.

use serde_json::{Value, json};

use super::amounts::Real;
use super::error::Report;
use super::section::{At, Leaf, Section, Shape, expect_map, refuse_unknown, section};
use super::suggest;
use super::tree::{Node, Scalar};
use super::units::{DAY, Rate, SECOND, Span};
use super::words::{Fraction, Name, OneOf, Whole, Word};
use crate::model::anomaly::MOST_READINGS;

section! {
    /// Looks for anomalies of a tag.
    AnomalyOptions {
        /// The detector's name within the station; `<tag>.<method>` unless said.
        name: Name => optional;
        /// One of the station's tags.
        tag: Name => required;
        /// `robust_z`: too far from the median of late; `ewma`: too far from the exponentially weighted mean; `rate`: changes
        /// too fast; `flat_line`: does not change; `limits`: beyond fixed limits.
        method: OneOf<Method> => required;
    }
}

section! {
    /// How many readings it takes.
    InARow {
        /// So many readings in a row that are out are an anomaly.
        consecutive: Whole<1, 1000> => default(1);
        /// So many normal readings in a row end it.
        clear: Whole<1, 1000> => default(3);
    }
}

section! {
    /// How a baseline is learnt.
    Learnt {
        /// Nothing is judged before so many readings; all of the `window` if that holds fewer.
        warm_up: Whole<2, { MOST_READINGS as u64 }> => default(30);
        /// What has been out for so long is the new normal, and the baseline is learnt anew.
        accept_after: Span<SECOND, { 366 * DAY }> => default("1h");
        /// The standard deviation is taken to be no less than this, in the tag's unit; without it nothing is judged while
        /// all readings are alike.
        min_deviation: Real => optional;
        /// Farther away than so many standard deviations is a warning; `3.5` if there is no `critical` either.
        warning: Real => optional;
        /// Farther away than so many is critical.
        critical: Real => optional;
    }
}

section! {
    /// Too far from the median, in standard deviations estimated from the median absolute deviation.
    OfMedian {
        /// Which readings the median is of: so many, `100`, or the last `30min`.
        window: Window => default(100);
    }
}

section! {
    /// Too far from the exponentially weighted mean, in exponentially weighted standard deviations.
    OfMean {
        /// How much the newest reading weighs.
        weight: Fraction => default(0.05);
    }
}

section! {
    /// Changes too fast, up or down.
    OfRate {
        /// It is measured over at least so long; `0s` is from reading to reading.
        over: Span<0, DAY> => default("0s");
        /// Faster than this is a warning, in the tag's unit: `5/min`.
        warning: Rate => optional;
        /// Faster than this is critical.
        critical: Rate => optional;
    }
}

section! {
    /// Does not change.
    OfFlatLine {
        /// No change larger than this is none, in the tag's unit.
        band: Real => default(0);
        /// After so long it is a warning.
        r#for: Span<SECOND, { 366 * DAY }> => required;
        /// After so long it is critical.
        critical: Span<SECOND, { 366 * DAY }> => optional;
    }
}

section! {
    /// Beyond fixed limits.
    OfLimits {
        /// Below it is critical.
        low_low: Real => optional;
        /// Below it is a warning.
        low: Real => optional;
        /// Above it is a warning.
        high: Real => optional;
        /// Above it is critical.
        high_high: Real => optional;
    }
}

/// The methods that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    RobustZ,
    Ewma,
    Rate,
    FlatLine,
    Limits,
}

impl Word for Method {
    const WHAT: &'static str = "method";
    const FORM: &'static str = "`robust_z`, `ewma`, `rate`, `flat_line` or `limits`";

    fn all() -> Vec<(&'static str, Self)> {
        Self::ALL.into_iter().map(|method| (method.word(), method)).collect()
    }
}

impl Method {
    const ALL: [Self; 5] = [Self::RobustZ, Self::Ewma, Self::Rate, Self::FlatLine, Self::Limits];

    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::RobustZ => "robust_z",
            Self::Ewma => "ewma",
            Self::Rate => "rate",
            Self::FlatLine => "flat_line",
            Self::Limits => "limits",
        }
    }

    /// The sections whose keys its entry has.
    fn sections(self) -> Vec<Keys> {
        fn of<S: Section>() -> Keys {
            Keys { words: S::KEYS, describe: S::describe }
        }
        let every = of::<AnomalyOptions>();
        match self {
            Self::RobustZ => vec![of::<OfMedian>(), every, of::<Learnt>(), of::<InARow>()],
            Self::Ewma => vec![of::<OfMean>(), every, of::<Learnt>(), of::<InARow>()],
            Self::Rate => vec![of::<OfRate>(), every, of::<InARow>()],
            Self::FlatLine => vec![of::<OfFlatLine>(), every],
            Self::Limits => vec![of::<OfLimits>(), every, of::<InARow>()],
        }
    }

    fn keys(self) -> Vec<&'static str> {
        self.sections().into_iter().flat_map(|keys| keys.words).copied().collect()
    }

    /// Whose key this is, if it is only another method's.
    fn owners(self, key: &str) -> Option<String> {
        let others = Self::ALL.into_iter().filter(|other| *other != self && other.keys().contains(&key));
        let owners: Vec<_> = others.map(Self::word).collect();
        (!owners.is_empty()).then(|| format!("it belongs to {}, and this is `{}`", suggest::list(owners), self.word()))
    }

    fn schema(self) -> Value {
        let mut sections = self.sections().into_iter().map(|keys| (keys.describe)());
        let mut schema = sections.next().unwrap_or_default();
        for mut more in sections {
            for (key, option) in more["properties"].as_object_mut().map(std::mem::take).into_iter().flatten() {
                schema["properties"][key] = option;
            }
            if let (Some(all), Some(more)) = (schema["required"].as_array_mut(), more["required"].as_array_mut()) {
                all.append(more);
            }
        }
        json!({
            "if": { "required": ["method"], "properties": { "method": { "const": self.word() } } },
            "then": schema,
        })
    }
}

/// The keys of a section.
struct Keys {
    words: &'static [&'static str],
    describe: fn() -> Value,
}

/// An entry: what each has, and what its method adds.
#[derive(Debug)]
pub(super) struct Anomaly {
    pub(super) common: AnomalyOptions,
    pub(super) how: How,
}

/// By method.
#[derive(Debug)]
pub(super) enum How {
    RobustZ(OfMedian, Learnt, InARow),
    Ewma(OfMean, Learnt, InARow),
    Rate(OfRate, InARow),
    FlatLine(OfFlatLine),
    Limits(OfLimits, InARow),
}

impl Shape for Anomaly {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let Some(method) = node.get("method") else {
            node.wrong(report, format!("the key `method` is missing: {}", <OneOf<Method> as Leaf>::FORM));
            return None;
        };
        let method = OneOf::<Method>::read(method, report)?.0;
        refuse_unknown(node, &method.keys(), &|key| method.owners(key), report);
        let common = AnomalyOptions::read_keys(node, report);
        let how = match method {
            Method::RobustZ => How::RobustZ(keys(node, report)?, keys(node, report)?, keys(node, report)?),
            Method::Ewma => How::Ewma(keys(node, report)?, keys(node, report)?, keys(node, report)?),
            Method::Rate => How::Rate(keys(node, report)?, keys(node, report)?),
            Method::FlatLine => How::FlatLine(keys(node, report)?),
            Method::Limits => How::Limits(keys(node, report)?, keys(node, report)?),
        };
        Some(Self { common: common?, how })
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["method"],
            "properties": { "method": <OneOf<Method> as Shape>::schema() },
            "allOf": Method::ALL.map(Method::schema),
        })
    }
}

fn keys<S: Section>(node: &Node, report: &mut Report) -> Option<S> {
    S::read_keys(node, report)
}

impl Anomaly {
    /// The word of its method.
    pub(super) fn method(&self) -> &'static str {
        self.common.method.as_ref().map_or("", |method| method.0.word())
    }
}

/// Which readings a median is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Readings(u32),
    Time(std::time::Duration),
}

/// What is no window of readings: too few have no middle, more need more room than they are worth.
const FEWEST_READINGS: u32 = 5;

impl Leaf for Window {
    const FORM: &'static str = "a number of readings such as `100`, or a duration such as `30min`";

    fn parse(scalar: &Scalar) -> Result<Self, String> {
        let text = scalar.text.as_str();
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "`{text}` is no window; write it as a number of readings, `100`, or a duration, `30min`"
            ));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Span::<SECOND, { 31 * DAY }>::parse(scalar).map(|span| Self::Time(span.0));
        }
        let readings = text.parse().ok().filter(|readings| (FEWEST_READINGS..=MOST_READINGS).contains(readings));
        readings.map(Self::Readings).ok_or_else(|| {
            format!("`{text}` is no number of readings from {FEWEST_READINGS} to {MOST_READINGS}; a duration has a unit, `30min`")
        })
    }

    fn schema() -> Value {
        json!({
            "type": ["integer", "string"],
            "minimum": FEWEST_READINGS,
            "maximum": MOST_READINGS,
            "pattern": r"^[0-9]+(\.[0-9]+)?(us|ms|s|min|h|d)$",
        })
    }
}

/// What an entry says, with its place.
pub(super) type Entry = At<Anomaly>;
