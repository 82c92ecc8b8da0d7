//! Which anomalies are looked for: tags are found, thresholds put in order, contradictions told.

use std::sync::Arc;

use gemba_drivers::TagId;
use gemba_drivers::modbus::DataType;
use gemba_drivers::treat::Options;
use gemba_drivers::treat::expression::Kind;

use super::TagFacts;
use crate::config::amounts::Real;
use crate::config::anomalies::{self as raw, Entry, How, InARow, Learnt, OfFlatLine, OfLimits};
use crate::config::error::{Place, Report};
use crate::config::section::At;
use crate::config::units::Rate;
use crate::config::words::one_of_names;
use crate::model::anomaly::{DetectorSpec, Learning, Limits, Method, Thresholds, Window};

/// What is a warning where nothing is said: Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993), label
/// as outliers what is beyond 3.5.
const WARNING: f64 = 3.5;

/// What is known of a station's tags.
pub(super) struct Known<'a> {
    pub(super) facts: &'a [TagFacts],
    /// The tag that tells the state in words.
    pub(super) text_tags: &'a [TagId],
    /// What a tag's readings go through.
    pub(super) treated: &'a dyn Fn(TagId) -> Option<&'a Options>,
}

/// What `anomalies` means for a station with these tags.
pub(super) fn resolve(list: Option<&At<Vec<Entry>>>, known: &Known<'_>, report: &mut Report) -> Vec<DetectorSpec> {
    let mut names: Vec<(String, Place)> = Vec::new();
    let entries = list.into_iter().flat_map(|list| &list.value);
    entries.filter_map(|entry| detector(entry, known, &mut names, report)).collect()
}

fn detector(
    entry: &Entry,
    known: &Known<'_>,
    names: &mut Vec<(String, Place)>,
    report: &mut Report,
) -> Option<DetectorSpec> {
    let tag = tag(entry, known, report);
    let name = name(entry, names, report);
    let (method, in_a_row) = match &entry.how {
        How::RobustZ(own, learnt, in_a_row) => {
            let window = own.window.as_ref().map(|window| match window.value {
                raw::Window::Readings(readings) => Window::Readings(readings),
                raw::Window::Time(long) => Window::Time(long),
            });
            let learning = learning(learnt, window, report);
            let thresholds = deviations(learnt, report);
            (Method::RobustZ { window: window?, learning: learning?, thresholds: thresholds? }, Some(in_a_row))
        }
        How::Ewma(own, learnt, in_a_row) => {
            if let Some(weight) = own.weight.as_ref().filter(|weight| weight.0 == 0.0) {
                weight.wrong(report, "nothing is ever learnt; a weight is above zero");
            }
            let (learning, thresholds) = (learning(learnt, None, report), deviations(learnt, report));
            let weight = own.weight.as_ref()?.0;
            (Method::Ewma { weight, learning: learning?, thresholds: thresholds? }, Some(in_a_row))
        }
        How::Rate(own, in_a_row) => {
            let number = |at: &Option<At<Rate>>| at.as_ref().map(|rate| rate.0);
            let thresholds = Thresholds { warning: number(&own.warning), critical: number(&own.critical) };
            if own.warning.is_none() && own.critical.is_none() && !knows_below(entry, report) {
                entry.wrong(report, "there is no threshold; say a rate for `warning` or `critical`, such as `5/min`");
            }
            in_order(thresholds, own.critical.as_ref(), report);
            (Method::Rate { over: own.over.as_ref()?.0, thresholds }, Some(in_a_row))
        }
        How::FlatLine(own) => (flat_line(own, tag.and_then(|tag| (known.treated)(tag)), report)?, None),
        How::Limits(own, in_a_row) => (Method::Limits(limits(entry, own, report)), Some(in_a_row)),
    };
    let count =
        |of: fn(&InARow) -> Option<u64>| in_a_row.map_or(Some(1), of).and_then(|count| u32::try_from(count).ok());
    Some(DetectorSpec {
        name: name?,
        tag: tag?,
        method,
        consecutive: count(|keys| keys.consecutive.as_ref().map(|count| count.0))?,
        clear: count(|keys| keys.clear.as_ref().map(|clear| clear.0))?,
    })
}

/// The entry's tag, if its values can be judged by its method.
fn tag(entry: &Entry, known: &Known<'_>, report: &mut Report) -> Option<TagId> {
    let name = entry.common.tag.as_ref()?;
    let shown = &name.origin.shown;
    let Some(tag) = known.facts.iter().find(|tag| tag.name == name.value.0) else {
        let names = known.facts.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
        name.wrong(report, format!("`{shown}` is no tag of this station{}", one_of_names(shown, names)));
        return None;
    };
    let derived = (known.treated)(tag.id).and_then(|options| options.derived.as_ref());
    let kind = derived.map_or(Kind::Any, |formula| formula.expression.kind());
    if known.text_tags.contains(&tag.id) || tag.data_type == Some(DataType::Text) || kind == Kind::Text {
        name.wrong(report, format!("`{shown}` is text; anomalies are those of numbers"));
    } else if (tag.data_type == Some(DataType::Bool) || kind == Kind::Bool) && !matches!(entry.how, How::FlatLine(_)) {
        name.wrong(report, format!("`{shown}` is a truth value; all that can be told of it is a `flat_line`"));
    }
    Some(tag.id)
}

/// Its own name, or one made of its tag and method.
fn name(entry: &Entry, names: &mut Vec<(String, Place)>, report: &mut Report) -> Option<Arc<str>> {
    let (said, tag) = (entry.common.name.as_ref(), entry.common.tag.as_ref());
    let made = || tag.map(|tag| format!("{}.{}", tag.value.0, entry.method()));
    let name = said.map(|name| name.value.0.clone()).or_else(made)?;
    let at = said.or(tag)?;
    if let Some((_, first)) = names.iter().find(|(taken, _)| *taken == name) {
        let shown = &at.origin.shown;
        at.wrong(
            report,
            match said {
                Some(_) => format!("`{shown}` is already the name of a detector at {first}"),
                None => format!("`{shown}` is already looked at by `{}` at {first}; give one a `name`", entry.method()),
            },
        );
    }
    let whole = name.as_str().into();
    names.push((name, at.origin.place.clone()));
    Some(whole)
}

fn learning(raw: &Learnt, window: Option<Window>, report: &mut Report) -> Option<Learning> {
    let warm_up = raw.warm_up.as_ref()?;
    let readings = u32::try_from(warm_up.0).ok()?;
    let most = if let Some(Window::Readings(most)) = window { most } else { readings };
    if readings > most && warm_up.origin.written {
        warm_up.wrong(report, format!("is never reached: the window holds {most} readings"));
    }
    Some(Learning {
        warm_up: readings.min(most),
        accept_after: raw.accept_after.as_ref()?.0,
        min_deviation: positive(raw.min_deviation.as_ref(), "a deviation", report).unwrap_or_default(),
    })
}

/// Thresholds in standard deviations.
fn deviations(raw: &Learnt, report: &mut Report) -> Option<Thresholds> {
    let warning = positive(raw.warning.as_ref(), "a threshold", report);
    let critical = positive(raw.critical.as_ref(), "a threshold", report);
    let unsaid = raw.warning.is_none() && raw.critical.is_none();
    let thresholds = Thresholds { warning: if unsaid { Some(WARNING) } else { warning }, critical };
    in_order(thresholds, raw.critical.as_ref(), report);
    Some(thresholds)
}

/// What is critical is a warning as well.
fn in_order<T>(Thresholds { warning, critical }: Thresholds, at: Option<&At<T>>, report: &mut Report) {
    let below = warning.zip(critical).is_some_and(|(warning, critical)| critical < warning);
    if let Some(at) = at.filter(|_| below) {
        at.wrong(report, "is less than `warning`; what is critical is a warning, too");
    }
}

fn flat_line(raw: &OfFlatLine, treated: Option<&Options>, report: &mut Report) -> Option<Method> {
    let band = raw.band.as_ref()?;
    if band.0 < 0.0 {
        band.wrong(report, "a band is not below zero");
    }
    let hidden = [
        ("deadband", treated.and_then(|options| options.deadband)),
        ("compress.deviation", treated.and_then(|options| options.compress).map(|compress| compress.deviation)),
    ];
    for (option, hidden) in hidden.into_iter().filter_map(|(option, hidden)| Some((option, hidden?))) {
        if band.0 >= 0.0 && hidden > band.0 {
            band.wrong(
                report,
                format!("the tag's `{option}` hides changes of up to {hidden}; a band is no less than that"),
            );
        }
    }
    let warning = raw.r#for.as_ref()?.0;
    if let Some(critical) = raw.critical.as_ref().filter(|critical| critical.0 < warning) {
        critical.wrong(report, "is less than `for`; what is critical is a warning, too");
    }
    Some(Method::FlatLine { band: band.0, warning, critical: raw.critical.as_ref().map(|critical| critical.0) })
}

fn limits(entry: &Entry, raw: &OfLimits, report: &mut Report) -> Limits {
    let all = [("low_low", &raw.low_low), ("low", &raw.low), ("high", &raw.high), ("high_high", &raw.high_high)];
    let said: Vec<_> = all.into_iter().filter_map(|(key, limit)| Some((key, limit.as_ref()?))).collect();
    if said.is_empty() && !knows_below(entry, report) {
        entry.wrong(report, "there is no limit; say `low_low`, `low`, `high` or `high_high`");
    }
    for pair in said.windows(2) {
        let [(lower, least), (_, limit)] = pair else { continue };
        if limit.0 <= least.0 {
            limit.wrong(report, format!("is not above `{lower}`"));
        }
    }
    let number = |limit: &Option<At<Real>>| limit.as_ref().map(|limit| limit.0);
    Limits {
        low_low: number(&raw.low_low),
        low: number(&raw.low),
        high: number(&raw.high),
        high_high: number(&raw.high_high),
    }
}

/// Whether one of the entry's own keys is known to be wrong: then nobody can tell that it is missing.
fn knows_below(entry: &Entry, report: &Report) -> bool {
    ["warning", "critical", "low_low", "low", "high", "high_high"]
        .iter()
        .any(|key| report.knows(&format!("{}.{key}", entry.origin.path)))
}

fn positive(at: Option<&At<Real>>, what: &str, report: &mut Report) -> Option<f64> {
    let at = at?;
    if at.0 <= 0.0 {
        at.wrong(report, format!("{what} is above zero"));
    }
    Some(at.0)
}
