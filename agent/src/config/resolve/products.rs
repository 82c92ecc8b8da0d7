//! What may be made, and what it costs.

use std::time::Duration;

use gemba_drivers::Time;
use jiff::tz::TimeZone;

use super::Names;
use crate::config::amounts::Amount;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::model::{CostSpec, Product, Rates};

/// The products in the order written; times on the wall are those of `zone`. `has_costs`: the line says its currency.
pub(super) fn resolve(
    products: &[At<raw::Product>],
    zone: &TimeZone,
    has_costs: bool,
    report: &mut Report,
) -> Vec<Product> {
    let mut names = Names::default();
    let mut resolved = Vec::with_capacity(products.len());
    for raw in products {
        let Some(name) = &raw.name else { continue };
        names.take(&name.value.0, name, "a product", report);
        if let Some(cost) = raw.material_cost.as_ref().filter(|_| !has_costs) {
            cost.wrong(report, "in what currency? Say it at the top as `costs: { currency: EUR }`");
        }
        resolved.push(Product {
            name: name.value.0.as_str().into(),
            ideal_cycle_time: raw.ideal_cycle_time.as_ref().map(|time| cycle(time, zone, report)).unwrap_or_default(),
            takt: raw.takt.as_ref().map(|takt| takt.0),
            parts_per_cycle: raw.parts_per_cycle.as_ref().map(|parts| parts.0),
            opportunities: raw.opportunities.as_ref().map(|opportunities| opportunities.0),
            material_cost: raw.material_cost.as_ref().map(|cost| cost.0),
        });
    }
    resolved
}

fn cycle(cycle: &At<raw::Cycle>, zone: &TimeZone, report: &mut Report) -> Vec<(Time, Duration)> {
    let list = match &cycle.value {
        raw::Cycle::Always(time) => return vec![(Time(i64::MIN), time.0)],
        raw::Cycle::Since(list) => list,
    };
    if list.is_empty() {
        cycle.wrong(report, "the list is empty; leave it out, or write `[{ time: 1.2s }]`");
    }
    let mut times: Vec<(Time, Duration)> = Vec::with_capacity(list.len());
    for (place, entry) in list.iter().enumerate() {
        let from = match &entry.from {
            Some(from) => {
                let at = from.instant(zone);
                if at.is_none() {
                    from.wrong(report, format!("`{}` is too far away", from.origin.shown));
                }
                at
            }
            None if place == 0 => Some(Time(i64::MIN)),
            None if report.knows(&format!("{}.from", entry.origin.path)) => None,
            None => {
                entry.wrong(report, "the key `from` is missing: only the first holds from ever");
                None
            }
        };
        let (Some(from), Some(time)) = (from, &entry.time) else { continue };
        if let (Some((before, _)), Some(said)) = (times.last().filter(|(before, _)| *before >= from), &entry.from) {
            said.wrong(
                report,
                format!("`{}` is not after {before}, where the one before it begins", said.origin.shown),
            );
        }
        times.push((from, time.0));
    }
    times
}

/// What the line pays, if that is said.
pub(super) fn costs(costs: Option<&At<raw::Costs>>) -> Option<CostSpec> {
    let costs = costs?;
    Some(CostSpec {
        // Without one the configuration is refused, once.
        currency: costs.currency.as_ref().map_or("", |currency| currency.value.0.as_str()).into(),
        rates: Rates { energy_per_kwh: amount(&costs.energy_per_kwh), time_per_hour: amount(&costs.time_per_hour) },
    })
}

fn amount(at: &Option<At<Amount<true>>>) -> Option<f64> {
    at.as_ref().map(|amount| amount.0)
}

/// What a station pays: what it says itself, and else what the line says.
pub(super) fn rates(own: Option<&At<raw::Rates>>, line: Option<&CostSpec>, report: &mut Report) -> Rates {
    let line = line.map(|line| line.rates);
    let Some(own) = own else { return line.unwrap_or_default() };
    if line.is_none() {
        own.wrong(report, "in what currency? Say it at the top as `costs: { currency: EUR }`");
    }
    let line = line.unwrap_or_default();
    Rates {
        energy_per_kwh: amount(&own.energy_per_kwh).or(line.energy_per_kwh),
        time_per_hour: amount(&own.time_per_hour).or(line.time_per_hour),
    }
}
