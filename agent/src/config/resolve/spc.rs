//! Control charts: which tags they are drawn of, how subgroups close, and where limits come from.

use std::rc::Rc;
use std::sync::Arc;

use gemba_drivers::modbus::DataType;
use jiff::tz::TimeZone;

use super::oee::modulus;
use super::{Names, TagFacts};
use crate::config::amounts::Real;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::suggest;
use crate::config::tree::Origin;
use crate::config::words::{Name, OneOf, Word, one_of_names};
use crate::model::CounterSpec;
use crate::model::spc::{ChartSpec, Input, Kind, LimitsFrom, Part, Rule, Setting, Tolerance};

/// The largest subgroup of which a range says enough (Montgomery, 6.2; the tables end there).
const LARGEST_RANGE: u64 = 25;

/// What `rules` may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum RuleWord {
    WesternElectric,
    Nelson,
    One(Rule),
}

impl Word for RuleWord {
    const WHAT: &'static str = "rule";
    const FORM: &'static str = "a rule, such as `western_electric` or `nelson_3`";

    fn all() -> Vec<(&'static str, Self)> {
        let sets = [("western_electric", Self::WesternElectric), ("nelson", Self::Nelson)];
        sets.into_iter().chain(Rule::ALL.into_iter().map(|rule| (rule.word(), Self::One(rule)))).collect()
    }
}

impl RuleWord {
    fn holds(self, rule: Rule) -> bool {
        match self {
            Self::WesternElectric => rule.word().starts_with("western_electric"),
            Self::Nelson => rule.word().starts_with("nelson"),
            Self::One(one) => one == rule,
        }
    }
}

/// What `spc` means for a station with these tags.
pub(super) fn resolve(
    charts: Option<&At<Vec<At<raw::Chart>>>>,
    tags: &[TagFacts],
    zone: &TimeZone,
    report: &mut Report,
) -> Vec<ChartSpec> {
    let mut names = Names::default();
    let charts = charts.into_iter().flat_map(|charts| &charts.value);
    let chart = |at: &At<raw::Chart>| {
        let (raw, kind) = (&at.value.keys, at.value.keys.chart.as_ref()?.0);
        Draft { at, raw, tags, kind }.finish(&mut names, zone, report)
    };
    charts.filter_map(chart).collect()
}

/// A chart, and the tags that it may be drawn of.
struct Draft<'a> {
    at: &'a At<raw::Chart>,
    raw: &'a raw::ChartKeys,
    tags: &'a [TagFacts],
    kind: Kind,
}

impl<'a> Draft<'a> {
    fn finish(&self, names: &mut Names, zone: &TimeZone, report: &mut Report) -> Option<ChartSpec> {
        let raw = self.raw;
        let kind = self.weights(report);
        let input = if kind.counts() { self.counts(report) } else { self.readings(report) };
        let size = self.size(report);
        let limits = self.limits(size, report);
        let rules = self.rules(report);
        let tolerance = self.tolerance(report);
        let (input, of) = input?;
        let name = match &raw.name {
            Some(name) => {
                names.take(&name.value.0, name, "a chart of this station", report);
                name.value.0.clone()
            }
            None => {
                let name = format!("{}-{kind}", of.replace('/', "-"));
                let told = "two charts would both be called so; give one a `name`";
                if names.0.insert(name.clone(), self.at.origin.place.clone()).is_some() {
                    self.at.wrong(report, format!("`{name}`: {told}"));
                }
                name
            }
        };
        let every = raw.every.as_ref().map(|every| every.0);
        let max_gap = raw.max_gap.as_ref().map(|gap| gap.0);
        let setting = Setting { of: of.into(), kind, size, every, max_gap, limits: limits? };
        Some(ChartSpec { name: Arc::from(name), input, setting, rules, tolerance, zone: zone.clone() })
    }

    /// The chart with what EWMA and CUSUM are told beside.
    fn weights(&self, report: &mut Report) -> Kind {
        let raw = self.raw;
        let mut number = |key: &str, at: &Option<At<Real>>, of: &str, fits: fn(f64) -> bool, form: &str| {
            let Some(at) = at else { return 0.0 };
            if at.origin.written && self.kind.word() != of {
                self.stranger(key, &at.origin, &format!("it is for `{of}`"), report);
            } else if !fits(at.0) {
                at.wrong(report, format!("`{}` is out of range: {form}", at.origin.shown));
            }
            at.0
        };
        let lambda =
            number("lambda", &raw.lambda, "ewma", |at| at > 0.0 && at <= 1.0, "a weight is above 0 and at most 1");
        let width = number("width", &raw.width, "ewma", |at| at > 0.0 && at <= 100.0, "above 0 and at most 100");
        let k = number("k", &raw.k, "cusum", |at| (0.0..=100.0).contains(&at), "from 0 to 100");
        let h = number("h", &raw.h, "cusum", |at| at > 0.0 && at <= 1_000.0, "above 0 and at most 1000");
        match self.kind {
            Kind::Ewma { .. } => Kind::Ewma { lambda, width },
            Kind::Cusum { .. } => Kind::Cusum { k, h },
            other => other,
        }
    }

    /// A key that this chart does not have.
    fn stranger(&self, key: &str, origin: &Rc<Origin>, why: &str, report: &mut Report) {
        origin.wrong(report, format!("`{}` charts have no `{key}`; {why}", self.kind));
    }

    /// Reports that this chart has none of `keys`, unless one of them is written, and then is wrong in itself.
    fn missing(&self, keys: &[&str], report: &mut Report) {
        if !keys.iter().any(|key| self.at.says(key)) {
            let keys = suggest::list(keys.iter().copied());
            self.at.wrong(report, format!("the key {keys} is missing: `{}` charts need it", self.kind));
        }
    }

    /// The measured tag, and its name.
    fn readings(&self, report: &mut Report) -> Option<(Input, String)> {
        let raw = self.raw;
        let counters = [("defective", &raw.defective), ("defects", &raw.defects), ("inspected", &raw.inspected)];
        for (key, counter) in counters {
            if let Some(counter) = counter {
                self.stranger(key, &counter.origin, "it is for charts of counts: `p`, `np`, `c` and `u`", report);
            }
        }
        let Some(name) = &raw.tag else {
            self.missing(&["tag"], report);
            return None;
        };
        let tag = self.tag(name, "measures nothing; name a tag with a number", report)?;
        Some((Input::Readings(tag.id), tag.name.clone()))
    }

    /// The counters, and their names.
    fn counts(&self, report: &mut Report) -> Option<(Input, String)> {
        let raw = self.raw;
        if let Some(tag) = &raw.tag {
            self.stranger("tag", &tag.origin, "they are drawn of counts: write `inspected: { tag: … }`", report);
        }
        let (key, own, other_key, other) = match self.kind {
            Kind::P | Kind::Np => ("defective", &raw.defective, "defects", &raw.defects),
            _ => ("defects", &raw.defects, "defective", &raw.defective),
        };
        if let Some(other) = other {
            self.stranger(other_key, &other.origin, &format!("they count `{key}`"), report);
        } else if own.is_none() {
            self.missing(&[key], report);
        }
        let by_the_clock = self.kind == Kind::C && !self.at.says("subgroup");
        if raw.inspected.is_none() && !by_the_clock {
            self.missing(&["inspected"], report);
        }
        let own = self.counter(own.as_ref(), report);
        let inspected = self.counter(raw.inspected.as_ref(), report);
        let (defects, name) = own?;
        let Some((inspected, all)) = inspected else {
            return by_the_clock.then_some((Input::Counts { defects, inspected: None }, name));
        };
        if inspected.tag == defects.tag {
            self.at.wrong(report, format!("`{name}` counts both what is bad and what is inspected; they are two tags"));
        }
        Some((Input::Counts { defects, inspected: Some(inspected) }, format!("{name}/{all}")))
    }

    fn counter(&self, raw: Option<&At<raw::ChartCounter>>, report: &mut Report) -> Option<(CounterSpec, String)> {
        let raw = raw?;
        let tag = self.tag(raw.tag.as_ref()?, "cannot count; read it as a number, such as `u32`", report)?;
        let spec = CounterSpec {
            modulus: modulus(raw.modulus.as_ref()),
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            ..CounterSpec::of(tag.id)
        };
        Some((spec, tag.name.clone()))
    }

    /// The tag of this name, which is a number as far as is known.
    fn tag(&self, name: &At<Name>, no_number: &str, report: &mut Report) -> Option<&'a TagFacts> {
        let Some(tag) = self.tags.iter().find(|tag| tag.name == name.value.0) else {
            let names = self.tags.iter().map(|tag| &*tag.shown).filter(|name| !name.is_empty());
            let others = one_of_names(&name.origin.shown, names);
            name.wrong(report, format!("`{}` is no tag of this station{others}", name.origin.shown));
            return None;
        };
        if let Some(of @ (DataType::Bool | DataType::Text)) = tag.data_type {
            name.wrong(report, format!("`{}` is a `{}`, which {no_number}", name.origin.shown, of.name()));
        }
        Some(tag)
    }

    /// How many make a subgroup; `None`: all that comes in a turn.
    fn size(&self, report: &mut Report) -> Option<u32> {
        let raw = self.raw;
        let written = raw.subgroup.as_ref();
        let mut range = |least: u64, most: u64, why: &str| {
            if let Some(size) = written.filter(|size| !(least..=most).contains(&size.0)) {
                size.wrong(report, format!("`{}` is out of range: {why}", size.origin.shown));
            }
        };
        match self.kind {
            Kind::XbarR => range(2, LARGEST_RANGE, "a range is told of 2 to 25 readings; `xbar_s` is for more"),
            Kind::XbarS => range(2, u64::MAX, "a standard deviation is told of 2 readings or more"),
            Kind::IMr => range(1, 1, "a point is a single reading; leave `subgroup` out"),
            Kind::Ewma { .. } | Kind::Cusum { .. } => range(1, LARGEST_RANGE, "from 1 to 25"),
            Kind::P | Kind::Np | Kind::C | Kind::U => {}
        }
        let by_the_clock = raw.every.is_some();
        match (self.kind, written) {
            (Kind::XbarR | Kind::Np, None) => self.missing(&["subgroup"], report),
            (Kind::XbarS | Kind::P | Kind::C | Kind::U, None) if !by_the_clock => {
                self.missing(&["subgroup", "every"], report);
            }
            (Kind::P | Kind::Np | Kind::C | Kind::U, Some(size)) if by_the_clock => {
                size.wrong(
                    report,
                    "a subgroup of counts closes by number or by the clock: leave `subgroup` or `every` out",
                );
            }
            _ => {}
        }
        let alone = matches!(self.kind, Kind::IMr | Kind::Ewma { .. } | Kind::Cusum { .. });
        let size = written.map_or_else(|| alone.then_some(1), |size| Some(size.0))?;
        u32::try_from(size).ok()
    }

    /// Where limits come from.
    fn limits(&self, size: Option<u32>, report: &mut Report) -> Option<LimitsFrom> {
        let phase_1 = self.raw.phase_1.as_ref();
        let Some(limits) = &self.raw.limits else {
            return Some(LimitsFrom::Phase1(u32::try_from(phase_1?.0).ok()?));
        };
        if let Some(phase_1) = phase_1.filter(|phase_1| phase_1.origin.written) {
            phase_1.wrong(report, "there are `limits`, so nothing is estimated; leave one of them out");
        }
        let center = limits.center.as_ref()?;
        let drawn = [("lower", &limits.lower), ("upper", &limits.upper)];
        let has_drawn = drawn.iter().any(|(_, at)| at.is_some());
        if self.kind.counts() {
            self.center_of_counts(center, size, report);
            if let Some(sigma) = &limits.sigma {
                self.stranger("sigma", &sigma.origin, "of counts it follows from `center`", report);
            }
        } else if let Some(sigma) = limits.sigma.as_ref().filter(|sigma| sigma.0 <= 0.0) {
            sigma
                .wrong(report, format!("`{}` is out of range: a standard deviation is above zero", sigma.origin.shown));
        } else if limits.sigma.is_some() && has_drawn {
            limits.wrong(report, "limits follow from `sigma` or are drawn as `lower` and `upper`; leave one out");
        } else if limits.sigma.is_none() && (self.kind.weighs() || size.is_none()) {
            limits.wrong(report, "the key `sigma` is missing: limits of this chart are not the same at each point");
        } else if limits.sigma.is_none() && !has_drawn {
            limits.wrong(report, "the key `sigma` is missing, or `lower` and `upper`");
        }
        for (key, at) in drawn {
            let Some(at) = at else { continue };
            if key == "lower" && at.0 >= center.0 || key == "upper" && at.0 <= center.0 {
                at.wrong(report, format!("`{}` is on the wrong side of `center`", at.origin.shown));
            }
        }
        let number = |at: &Option<At<Real>>| at.as_ref().map(|at| at.0);
        if has_drawn {
            return Some(LimitsFrom::Drawn {
                center: center.0,
                lower: number(&limits.lower),
                upper: number(&limits.upper),
            });
        }
        // A number of defective parts is drawn, and a share is known.
        let of = if self.kind == Kind::Np { f64::from(size?) } else { 1.0 };
        Some(LimitsFrom::Known { center: center.0 / of, sigma: number(&limits.sigma) })
    }

    fn center_of_counts(&self, center: &At<Real>, size: Option<u32>, report: &mut Report) {
        let (most, form) = match self.kind {
            Kind::P => (1.0, "a share between 0 and 1"),
            Kind::Np => (size.map_or(f64::INFINITY, f64::from), "between 0 and `subgroup`"),
            _ => (f64::INFINITY, "above 0"),
        };
        if center.0 <= 0.0 || center.0 >= most {
            center.wrong(report, format!("`{}` is out of range: {form}", center.origin.shown));
        }
    }

    /// Each rule once, in the order of all of them.
    fn rules(&self, report: &mut Report) -> Vec<Rule> {
        let Some(list) = &self.raw.rules else { return Vec::new() };
        let fits = |rule: Rule| [Part::Location, Part::Spread].into_iter().any(|part| rule.fits(self.kind, part));
        if self.kind.weighs() {
            if list.origin.written {
                self.stranger("rules", &list.origin, "they look at limits of their own only", report);
            }
            return Vec::new();
        }
        if list.is_empty() {
            list.wrong(report, "there is no rule; at least one is looked for");
        }
        let mut words: Vec<RuleWord> = Vec::new();
        for word in &list.value {
            let &OneOf(said) = &word.value;
            if words.contains(&said) {
                word.wrong(report, format!("`{}` is already in the list", word.origin.shown));
            }
            if let RuleWord::One(rule) = said
                && !fits(rule)
            {
                let others = suggest::list(Rule::ALL.into_iter().filter(|rule| fits(*rule)).map(Rule::word));
                let shown = &word.origin.shown;
                word.wrong(report, format!("`{shown}` makes no sense for `{}` charts; there is {others}", self.kind));
            }
            words.push(said);
        }
        let wanted = |rule: &Rule| fits(*rule) && words.iter().any(|word| word.holds(*rule));
        Rule::ALL.into_iter().filter(wanted).collect()
    }

    fn tolerance(&self, report: &mut Report) -> Option<Tolerance> {
        let spec = self.raw.spec_limits.as_ref()?;
        if self.kind.counts() {
            self.stranger("spec_limits", &spec.origin, "they are for a measured tag", report);
        } else if spec.lower.is_none() && spec.upper.is_none() {
            spec.wrong(report, "the key `lower` or `upper` is missing");
        }
        let number = |at: &Option<At<Real>>| at.as_ref().map(|at| at.0);
        let (lower, target, upper) = (number(&spec.lower), number(&spec.target), number(&spec.upper));
        if lower.zip(upper).is_some_and(|(lower, upper)| lower >= upper) {
            spec.wrong(report, "leaves no room: `lower` is less than `upper`");
        } else if let Some(at) = &spec.target
            && (lower.is_some_and(|lower| at.0 < lower) || upper.is_some_and(|upper| at.0 > upper))
        {
            at.wrong(report, format!("`{}` is not between `lower` and `upper`", at.origin.shown));
        }
        Some(Tolerance { lower, target, upper })
    }
}
