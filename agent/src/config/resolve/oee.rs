//! What is computed for a station: which tags tell the state and the counts.

use gemba_drivers::{TagId, modbus};

use super::reasons::Reasons;
use super::values::values;
use super::{TagFacts, products};
use crate::config::error::Report;
use crate::config::raw::{self, EnergyUnit};
use crate::config::section::At;
use crate::config::suggest;
use crate::config::words::{Name, OneOf, Whole, Word, one_of_names};
use crate::model::{
    ByCount, CostSpec, CounterSpec, EnergySpec, Lasts, MicroStops, OeeSpec, Product, ReasonSpec, StartupSpec, State,
    StateSpec,
};

/// What became of `oee:`.
#[derive(Default)]
pub(in crate::config) struct Resolved {
    /// `None` when there is nothing to compute, or something was wrong.
    pub(super) spec: Option<OeeSpec>,
    /// The tags whose values are text.
    pub(super) text_tags: Vec<TagId>,
}

/// What the line knows, whatever the station.
#[derive(Default)]
pub(super) struct Line {
    pub(super) reasons: Reasons,
    pub(super) products: Vec<Product>,
    pub(super) costs: Option<CostSpec>,
}

impl Resolved {
    /// Whether `tag` counts, so that text is a wrong type for it.
    pub(in crate::config) fn counts(&self, tag: TagId) -> bool {
        let Some(spec) = &self.spec else { return false };
        let mut parts = [&spec.total, &spec.good, &spec.reject, &spec.rework].into_iter().flatten();
        parts.any(|counter| counter.tag == tag) || self.counts_energy(tag)
    }

    /// Whether `tag` counts energy.
    pub(super) fn counts_energy(&self, tag: TagId) -> bool {
        let energy = self.spec.as_ref().and_then(|spec| spec.energy.as_ref());
        energy.is_some_and(|energy| energy.counter.tag == tag)
    }

    /// Whether `tag` tells why the machine stands.
    pub(super) fn tells_reason(&self, tag: TagId) -> bool {
        let reason = self.spec.as_ref().and_then(|spec| spec.reason.as_ref());
        reason.is_some_and(|reason| reason.tags.iter().any(|(told, _)| *told == tag))
    }

    /// Whether `tag` tells the state.
    pub(super) fn tells_state(&self, tag: TagId) -> bool {
        self.spec.as_ref().and_then(|spec| spec.state.as_ref()).is_some_and(|state| state.tag == tag)
    }
}

/// What `oee` means for a station with these tags.
pub(super) fn resolve(oee: Option<&At<raw::Oee>>, tags: &[TagFacts], line: &Line, report: &mut Report) -> Resolved {
    let Some(oee) = oee else { return Resolved::default() };
    let counted = oee.total.is_some() || oee.good.is_some();
    if !counted && oee.state.is_none() && oee.reject.is_none() && oee.energy.is_none() {
        oee.wrong(
            report,
            "there is nothing to compute from; name a tag for `state`, `total`, `good`, `reject` or `energy`",
        );
    }
    if let (Some(_), Some(_), Some(reject)) = (&oee.total, &oee.good, &oee.reject) {
        reject.wrong(report, "two of `total`, `good` and `reject` are enough, the third is derived; leave one out");
    }
    if let Some(rework) = oee.rework.as_ref().filter(|_| !counted) {
        rework.wrong(report, "reworked parts are a share of all: name a tag for `total` or `good`, too");
    }
    let mut roles = Roles { tags, taken: Vec::new(), text: Vec::new() };
    let state = match oee.state.as_ref().map(|state| &state.value) {
        Some(raw::StateTag::Told(keys)) => roles.state(keys, report),
        Some(raw::StateTag::Counted(_)) | None => None,
    };
    let mut counter = |role, counter: &Option<At<raw::Counter>>| {
        counter.as_ref().and_then(|counter| roles.counter(role, &counter.value, report))
    };
    let (total, good) = (counter("total", &oee.total), counter("good", &oee.good));
    let (reject, rework) = (counter("reject", &oee.reject), counter("rework", &oee.rework));
    let energy = oee.energy.as_ref().and_then(|energy| roles.energy(energy, report));
    let reason = roles.reasons(oee, &line.reasons, report);
    let spec = oee.min_coverage.as_ref().map(|min_coverage| OeeSpec {
        ideal_cycle_time: oee.ideal_cycle_time.as_ref().map(|time| time.0),
        state,
        total,
        good,
        reject,
        rework,
        losses: oee.losses.as_ref().map(|losses| losses.0).unwrap_or_default(),
        micro_stops: oee.micro_stops.as_ref().and_then(|stops| micro_stops(stops, report)),
        reason,
        by_count: by_count(oee, counted, &line.products, report),
        energy,
        costs: products::rates(oee.costs.as_ref(), line.costs.as_ref(), report),
        min_coverage: min_coverage.0,
        startup: oee.startup.as_ref().and_then(|at| startup(at, report)),
        rolling: oee.rolling.as_ref().map(|time| time.0),
        // Of other stations, which are not known yet.
        late: Vec::new(),
    });
    Resolved { spec, text_tags: roles.text }
}

fn by_count(oee: &raw::Oee, counted: bool, products: &[Product], report: &mut Report) -> Option<ByCount> {
    let at = oee.state.as_ref()?;
    let raw::StateTag::Counted(counts) = &at.value else { return None };
    if !counted {
        at.wrong(report, "a state `from: counts` needs a tag for `total` or `good`");
    }
    let timed = products.iter().any(|product| !product.ideal_cycle_time.is_empty());
    if oee.ideal_cycle_time.is_none() && !timed && !report.knows(&beside(at, "ideal_cycle_time")) {
        at.wrong(
            report,
            "a state `from: counts` needs an `ideal_cycle_time`: it stands when no part came for so many of them",
        );
    }
    let state = counts.r#as.as_ref()?;
    if !stands(state.0) {
        state.wrong(report, format!("`{}` is no stop; write {}", state.origin.shown, stops()));
    }
    counts.from.as_ref()?;
    Some(ByCount { stopped_after: counts.stopped_after.as_ref()?.0, state: state.0 })
}

/// The path of the option `key` beside `at`.
fn beside<T>(at: &At<T>, key: &str) -> String {
    let (above, _) = at.origin.path.rsplit_once('.').unwrap_or_default();
    format!("{above}.{key}")
}

/// Whether a machine stands in this state, in time that somebody wanted to use.
fn stands(state: State) -> bool {
    !state.is_run() && !state.is_unplanned() && state != State::Unknown
}

/// `starved`, `blocked`, …
fn stops() -> String {
    suggest::list(State::ALL.into_iter().filter(|state| stands(*state)).map(State::word))
}

fn micro_stops(raw: &raw::MicroStops, report: &mut Report) -> Option<MicroStops> {
    let states = stops_of(raw.states.as_ref()?, "leave `micro_stops` out if no stop is one", report);
    Some(MicroStops { limit: raw.limit.as_ref()?.0, states })
}

fn startup(at: &At<raw::Startup>, report: &mut Report) -> Option<StartupSpec> {
    let after =
        at.after.as_ref().map(|after| stops_of(after, "leave `startup` out if no stop is followed by one", report));
    let lasts = match (&at.r#for, &at.parts) {
        (Some(time), None) => Lasts::Run(time.0),
        (None, Some(parts)) => Lasts::Parts(parts.0),
        (Some(_), Some(parts)) => {
            parts.wrong(report, "a start-up lasts for a time or for so many parts; leave `for` or `parts` out");
            return None;
        }
        (None, None) => {
            if !report.knows(&beside(at, "startup.for")) && !report.knows(&beside(at, "startup.parts")) {
                at.wrong(report, "how long does it last? Write `for: 10min` of run time, or `parts: 20`");
            }
            return None;
        }
    };
    Some(StartupSpec { after: after?, lasts })
}

/// The stops in `list`.
fn stops_of(list: &At<Vec<At<OneOf<State>>>>, if_none: &str, report: &mut Report) -> Vec<State> {
    if list.is_empty() {
        list.wrong(report, format!("there is no state; {if_none}"));
    }
    let mut states = Vec::with_capacity(list.len());
    for state in &list.value {
        let shown = &state.origin.shown;
        if !stands(state.value.0) {
            state.wrong(report, format!("`{shown}` is no stop; write {}", stops()));
        } else if states.contains(&state.value.0) {
            state.wrong(report, format!("`{shown}` is already in the list"));
        }
        states.push(state.value.0);
    }
    states
}

/// Who uses which tag: each has one use.
struct Roles<'a> {
    tags: &'a [TagFacts],
    taken: Vec<(TagId, &'static str)>,
    /// Those whose values are text.
    text: Vec<TagId>,
}

impl<'a> Roles<'a> {
    fn tag(&mut self, role: &'static str, name: &At<Name>, report: &mut Report) -> Option<&'a TagFacts> {
        let Some(tag) = self.tags.iter().find(|tag| tag.name == name.value.0) else {
            let names = self.tags.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
            name.wrong(
                report,
                format!("`{}` is no tag of this station{}", name.origin.shown, one_of_names(&name.origin.shown, names)),
            );
            return None;
        };
        if let Some((_, other)) = self.taken.iter().find(|(taken, _)| *taken == tag.id) {
            name.wrong(report, format!("`{}` is already the tag of `{other}`", name.origin.shown));
        }
        self.taken.push((tag.id, role));
        Some(tag)
    }

    fn state(&mut self, raw: &raw::StateKeys, report: &mut Report) -> Option<StateSpec> {
        let tag = raw.tag.as_ref().and_then(|name| self.tag("state", name, report));
        let example = "{ 1: producing, 2: down }";
        let mut map = values(raw.map.as_ref(), example, tag, |state, _| Some(state.0), report);
        let tag = tag?;
        if let Some(preset) = raw.preset.as_ref().filter(|_| tag.data_type == Some(modbus::DataType::Bool)) {
            preset.wrong(report, format!("`{}` is a `bool`, and the standard's states are numbers", tag.shown));
        }
        for (value, state) in raw.preset.iter().flat_map(|preset| preset.0.entries()) {
            let number = value.bytes().all(|byte| byte.is_ascii_digit());
            // A register has numbers only. What the map says of a value counts more than the standard.
            if (number || tag.data_type.is_none()) && map.entries.iter().all(|(known, _)| *known != value) {
                map.text |= !number;
                map.entries.push((value, state));
            }
        }
        if map.entries.is_empty() {
            return None;
        }
        self.text.extend(map.text.then_some(tag.id));
        Some(StateSpec { tag: tag.id, map: map.entries })
    }

    fn reasons(&mut self, oee: &raw::Oee, known: &Reasons, report: &mut Report) -> Option<ReasonSpec> {
        let Some(list) = &oee.reasons else {
            if let Some(first_out) = oee.first_out.as_ref().filter(|first_out| first_out.origin.written) {
                first_out.wrong(report, "there are no `reasons` of which one could be first");
            }
            return None;
        };
        if list.is_empty() {
            list.wrong(report, "there is no tag; write it as `- { tag: fault, map: { 17: feeder-jam } }`");
        }
        let mut tags = Vec::with_capacity(list.len());
        for raw in &list.value {
            let tag = raw.tag.as_ref().and_then(|name| self.tag("reasons", name, report));
            let code = |code: &At<Name>, report: &mut Report| known.index(code, report);
            let map = values(raw.map.as_ref(), "{ 17: feeder-jam }", tag, code, report);
            let Some(tag) = tag else { continue };
            self.text.extend(map.text.then_some(tag.id));
            tags.push((tag.id, map.entries));
        }
        Some(ReasonSpec { tags, first_out: oee.first_out.as_ref()?.0 })
    }

    fn energy(&mut self, at: &At<raw::Energy>, report: &mut Report) -> Option<EnergySpec> {
        let raw = &at.value;
        let name = raw.tag.as_ref()?;
        let tag = self.tag("energy", name, report)?;
        cannot_count(tag, name, report);
        let said = raw.unit.as_ref().map(|unit| unit.0);
        let unit = said.or_else(|| match &tag.unit {
            None => {
                if !report.knows(&format!("{}.unit", at.origin.path)) {
                    at.wrong(report, format!("`{}` has no unit; say what it counts, as in `unit: kWh`", tag.shown));
                }
                None
            }
            Some(unit) => {
                let known = EnergyUnit::all().into_iter().find(|(word, _)| *word == unit.value.0);
                if known.is_none() {
                    let (unit, tag) = (&unit.origin.shown, &tag.shown);
                    at.wrong(
                        report,
                        format!(
                            "the unit of `{tag}`, `{unit}`, is none of energy; say what it counts, as in `unit: kWh`"
                        ),
                    );
                }
                known.map(|(_, unit)| unit)
            }
        })?;
        let counter = CounterSpec {
            modulus: modulus(raw.modulus.as_ref()),
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            ..CounterSpec::of(tag.id)
        };
        Some(EnergySpec { counter, joules_per_count: unit.0 * raw.per_count.as_ref().map_or(1.0, |per| per.0) })
    }

    fn counter(&mut self, role: &'static str, raw: &raw::Counter, report: &mut Report) -> Option<CounterSpec> {
        let name = raw.tag.as_ref()?;
        let tag = self.tag(role, name, report)?;
        cannot_count(tag, name, report);
        Some(CounterSpec {
            tag: tag.id,
            modulus: modulus(raw.modulus.as_ref()),
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            parts_per_count: raw.parts_per_count.as_ref().map(|parts| parts.0),
            cycles: raw.counts.as_ref()?.0 == raw::Counts::Cycles,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 2^53, exact")]
pub(super) fn modulus(raw: Option<&At<Whole<2, { 1 << 53 }>>>) -> Option<f64> {
    raw.map(|modulus| modulus.0 as f64)
}

/// Reports a tag of a type that no counter has.
fn cannot_count(tag: &TagFacts, name: &At<Name>, report: &mut Report) {
    if let Some(of @ (modbus::DataType::Bool | modbus::DataType::Text)) = tag.data_type {
        let of = of.name();
        name.wrong(
            report,
            format!("`{}` is a `{of}`, which cannot count; read it as a number, such as `u32`", name.origin.shown),
        );
    }
}
