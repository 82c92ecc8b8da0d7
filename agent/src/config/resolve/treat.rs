//! What happens to a tag's readings before they count: contradictions are found, expressions read and put in order.

use std::rc::Rc;
use std::sync::Arc;

use gemba_drivers::TagId;
use gemba_drivers::modbus::DataType;
use gemba_drivers::treat::expression::{Draft, Kind, Mistake, functions};
use gemba_drivers::treat::{Compress, Expression, Formula, Options};

use super::{TagFacts, oee};
use crate::config::amounts::{self, Band, Real};
use crate::config::error::Report;
use crate::config::raw::TreatOptions;
use crate::config::section::At;
use crate::config::suggest;
use crate::config::tree::Origin;
use crate::config::words::one_of_names;
use crate::model::ContextSpec;
use crate::model::inspection::{InspectionSpec, Role, Trigger};
use crate::model::spc::ChartSpec;

/// Why every reading of a tag with a control chart counts.
const CHARTED: &str = "has a control chart";

/// What tags are used for beside being told.
pub(super) struct Uses<'a> {
    pub(super) oee: &'a oee::Resolved,
    pub(super) context: &'a ContextSpec,
    pub(super) inspection: Option<&'a InspectionSpec>,
    pub(super) charts: &'a [ChartSpec],
}

impl Uses<'_> {
    /// Whether `tag` is of use only as a number.
    fn numeric(&self, tag: TagId) -> bool {
        self.oee.counts(tag) || self.charts.iter().any(|chart| chart.reads(tag))
    }

    /// Why every reading of `tag` counts, if so.
    fn of(&self, tag: &TagFacts) -> Option<&'static str> {
        let mut charts = self.charts.iter().filter(|chart| chart.reads(tag.id));
        let ContextSpec { serial, product, lot, order } = *self.context;
        if self.oee.counts_energy(tag.id) {
            Some("counts energy")
        } else if self.oee.counts(tag.id) {
            Some("counts parts")
        } else if self.oee.tells_state(tag.id) {
            Some("tells the state")
        } else if self.oee.tells_reason(tag.id) {
            Some("tells why the machine stands")
        } else if [serial, product, lot, order].contains(&Some(tag.id)) {
            Some("tells what the station works on")
        } else {
            // Of a queue it is enough to know about how long it is.
            let role = self.inspection.and_then(|inspection| inspection.role(tag.id));
            role.filter(|role| *role != Role::Queue).map(|_| "tells of inspections").or(charts.next().map(|_| CHARTED))
        }
    }

    /// Whether a reading of `tag` counts even if it says the same as the one before.
    fn each(&self, tag: &TagFacts) -> bool {
        let role = self.inspection.filter(|inspection| inspection.trigger == Trigger::Message);
        role.and_then(|inspection| inspection.role(tag.id))
            .is_some_and(|role| !matches!(role, Role::Queue | Role::Model))
    }
}

/// For each tag of a station, in order.
pub(super) fn resolve(
    tags: &[Option<&TreatOptions>],
    facts: &[TagFacts],
    uses: &Uses<'_>,
    report: &mut Report,
) -> Vec<Option<Box<Options>>> {
    if tags.iter().all(Option::is_none) {
        return Vec::new();
    }
    let (formulas, kinds) = formulas(tags, facts, uses, report);
    let each = tags.iter().zip(facts).zip(formulas).zip(kinds);
    each.map(|(((raw, tag), derived), kind)| {
        let raw = (*raw)?;
        fits_the_kind(raw, kind, report);
        fits_the_use(raw, uses.of(tag), report);
        if let Some(on_change) = raw.on_change.as_ref().filter(|on_change| on_change.0 && uses.each(tag)) {
            on_change
                .wrong(report, "each message is an inspection here, also one with the value that was there before");
        }
        Some(Box::new(Options { derived, ..options(raw, report) }))
    })
    .collect()
}

fn options(raw: &TreatOptions, report: &mut Report) -> Options {
    if let Some(scale) = raw.scale.as_ref().filter(|scale| scale.0 == 0.0) {
        scale.wrong(report, "makes every value the same; a scale is not 0");
    }
    let clamp = raw.clamp.as_ref().and_then(|clamp| {
        let (min, max) = (clamp.min.as_ref()?.0, clamp.max.as_ref()?.0);
        if min >= max {
            clamp.wrong(report, "leaves no room: `min` is less than `max`");
        }
        Some((min, max))
    });
    let compress = raw.compress.as_ref().and_then(|compress| {
        if let Some(deviation) = compress.deviation.as_ref().filter(|deviation| deviation.0 <= 0.0) {
            deviation.wrong(report, "a deviation is above zero");
        }
        Some(Compress { deviation: compress.deviation.as_ref()?.0, max_gap: compress.max_gap.as_ref()?.0 })
    });
    if let Some(at) = &raw.compress {
        let others = [
            ("deadband", raw.deadband.is_some()),
            ("min_interval", raw.min_interval.is_some()),
            ("on_change", raw.on_change.as_ref().is_some_and(|on_change| on_change.0)),
        ];
        for (other, _) in others.into_iter().filter(|(_, said)| *said) {
            at.wrong(
                report,
                format!("leaves out what need not be told, and keeps its error bound only without `{other}`"),
            );
        }
    }
    let number = |at: &Option<At<Real>>| at.as_ref().map(|real| real.0);
    Options {
        scale: number(&raw.scale),
        offset: number(&raw.offset),
        clamp,
        deadband: raw.deadband.as_ref().and_then(|band| deadband(band, raw.clamp.is_some(), clamp, report)),
        min_interval: raw.min_interval.as_ref().map(|interval| interval.0),
        on_change: raw.on_change.as_ref().is_some_and(|on_change| on_change.0),
        compress,
        max_age: raw.max_age.as_ref().map(|age| age.0),
        derived: None,
    }
}

/// A share is one of the span of `clamp`, as OPC UA takes it of the EURange (OPC 10000-8, 6.2).
fn deadband(band: &At<Band>, clamped: bool, clamp: Option<(f64, f64)>, report: &mut Report) -> Option<f64> {
    match (band.value, clamp) {
        (Band::Absolute(band), _) => Some(band),
        (Band::Share(share), Some((min, max))) => Some(share * (max - min)),
        (Band::Share(_), None) => {
            if !clamped {
                let shown = &band.origin.shown;
                band.wrong(report, format!("`{shown}` of what? Add the range as `clamp: {{ min: 0, max: 100 }}`, or write the deadband as a number"));
            }
            None
        }
    }
}

/// What only numbers have.
fn fits_the_kind(raw: &TreatOptions, kind: Kind, report: &mut Report) {
    let what = match kind {
        Kind::Number | Kind::Any => return,
        Kind::Bool => "a truth value",
        Kind::Text => "text",
    };
    let mut refuse = |key: &str, origin: Option<&Rc<Origin>>| {
        if let Some(origin) = origin {
            origin.wrong(report, format!("`{key}` is for numbers, and this tag is {what}"));
        }
    };
    refuse("scale", raw.scale.as_ref().map(At::origin));
    refuse("offset", raw.offset.as_ref().map(At::origin));
    refuse("clamp", raw.clamp.as_ref().map(At::origin));
    refuse("deadband", raw.deadband.as_ref().map(At::origin));
    refuse("compress", raw.compress.as_ref().map(At::origin));
}

/// What would hide counts or states. `on_change` does not: neither says anything new by coming again.
fn fits_the_use(raw: &TreatOptions, used: Option<&str>, report: &mut Report) {
    let Some(used) = used else { return };
    let mut refuse = |key: &str, why: &str, origin: Option<&Rc<Origin>>| {
        if let Some(origin) = origin {
            // On a chart equal readings count, too.
            let harmless = if used == CHARTED { "" } else { "; `on_change: true` is harmless" };
            origin.wrong(report, format!("this tag {used}, and `{key}` {why}{harmless}"));
        }
    };
    refuse("clamp", "would change it", raw.clamp.as_ref().map(At::origin));
    refuse("deadband", "would hide changes of it", raw.deadband.as_ref().map(At::origin));
    refuse("min_interval", "would hide or delay changes of it", raw.min_interval.as_ref().map(At::origin));
    refuse("compress", "would hide or delay changes of it", raw.compress.as_ref().map(At::origin));
}

/// What is computed, and what each tag says, as far as that is known.
fn formulas(
    tags: &[Option<&TreatOptions>],
    facts: &[TagFacts],
    uses: &Uses<'_>,
    report: &mut Report,
) -> (Vec<Option<Formula>>, Vec<Kind>) {
    let mut kinds: Vec<Kind> = facts
        .iter()
        .map(|tag| match tag.data_type {
            Some(DataType::Bool) => Kind::Bool,
            Some(_) => Kind::Number,
            None if uses.oee.text_tags.contains(&tag.id) => Kind::Text,
            None => Kind::Any,
        })
        .collect();
    let names: Vec<&str> = facts.iter().map(|tag| tag.name.as_str()).collect();
    let written: Vec<_> = tags.iter().map(|raw| raw.and_then(|raw| raw.expression.as_ref())).collect();
    let mut drafts: Vec<Option<Draft>> = written
        .iter()
        .map(|written| {
            let written = (*written)?;
            let draft = Draft::read(&written.0, &names);
            draft.map_err(|mistake| written.wrong(report, told(&mistake, &written.value, &names))).ok()
        })
        .collect();
    let mut formulas = vec![None; tags.len()];
    for at in in_order(&drafts, &written, &names, report) {
        let (Some(draft), Some(written)) = (drafts[at].take(), written[at]) else { continue };
        let inputs = draft.inputs().to_vec();
        let of_inputs: Vec<Kind> = inputs.iter().map(|input| kinds[*input]).collect();
        match draft.check(&of_inputs) {
            Ok(expression) => {
                kinds[at] = expression.kind();
                let used = uses.of(&facts[at]).filter(|_| uses.numeric(facts[at].id));
                if let Some(used) = used.filter(|_| matches!(kinds[at], Kind::Bool | Kind::Text)) {
                    written.wrong(report, format!("this tag {used}, and its expression gives no number"));
                }
                formulas[at] = Some(formula(expression, inputs.iter().map(|input| facts[*input].id).collect()));
            }
            Err(mistake) => written.wrong(report, told(&mistake, &written.value, &names)),
        }
    }
    (formulas, kinds)
}

fn formula(expression: Expression, inputs: Vec<TagId>) -> Formula {
    Formula { expression: Arc::new(expression), inputs }
}

/// The derived tags, each after those that it is computed from. Those of a ring are left out and reported.
fn in_order(
    drafts: &[Option<Draft>],
    written: &[Option<&At<amounts::Formula>>],
    names: &[&str],
    report: &mut Report,
) -> Vec<usize> {
    let inputs = |at: usize| drafts[at].iter().flat_map(|draft| draft.inputs().iter().copied());
    let mut sorted = Vec::new();
    let mut left: Vec<usize> = (0..drafts.len()).filter(|at| drafts[*at].is_some()).collect();
    loop {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            left.iter().partition(|at| !inputs(**at).any(|input| left.contains(&input)));
        sorted.extend(&ready);
        if ready.is_empty() {
            break;
        }
        left = waiting;
    }
    // What is left waits for a ring or stands in one.
    let mut told: Vec<usize> = Vec::new();
    for &start in &left {
        let (mut path, mut at) = (vec![start], start);
        while let Some(next) = inputs(at).find(|input| left.contains(input)) {
            if let Some(first) = path.iter().position(|known| *known == next) {
                let ring = &path[first..];
                if !ring.iter().any(|member| told.contains(member)) {
                    let shown = ring.iter().chain([&next]).map(|member| format!("`{}`", names[*member]));
                    let shown = shown.collect::<Vec<_>>().join(" from ");
                    if let Some(written) = written[next] {
                        written.wrong(report, format!("is computed from itself: {shown}"));
                    }
                }
                told.extend(ring);
                break;
            }
            path.push(next);
            at = next;
        }
    }
    sorted
}

/// The mistake, with what was probably meant.
fn told(mistake: &Mistake, text: &amounts::Formula, names: &[&str]) -> String {
    let help = match mistake {
        Mistake::Tag(name) => {
            let odd = names.iter().find(|known| {
                let more = known.strip_prefix(name.as_str()).unwrap_or_default();
                more.starts_with(|c: char| !c.is_alphanumeric() && c != '_') && text.0.contains(**known)
            });
            match odd {
                Some(odd) => format!("; a name that is more than letters, digits and `_` is written `tags[\"{odd}\"]`"),
                None => one_of_names(name, names.iter().copied().filter(|name| !name.is_empty())),
            }
        }
        Mistake::Function(name) => {
            let inner = functions().find(|known| known.strip_prefix("math.") == Some(name));
            match inner.or_else(|| suggest::nearest(name, functions())) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; there are {}", suggest::list(functions())),
            }
        }
        _ => String::new(),
    };
    format!("{mistake}{help}")
}
