//! How parts flow through the line.

use std::rc::Rc;

use crate::config::Station;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::words::{Name, one_of_names};
use crate::model::{FlowSpec, Knowledge, LineBy};

/// What `flow` means for a line with these stations, of which there is at least one; `shown` has their names for people.
pub(super) fn resolve(
    flow: &At<raw::Flow>,
    stations: &[Station],
    shown: &[Rc<str>],
    knowledge: &Knowledge,
    report: &mut Report,
) -> Option<FlowSpec> {
    let find = |name: &At<Name>, report: &mut Report| {
        let found = stations.iter().position(|station| *station.name == name.value.0);
        if found.is_none() {
            let names = shown.iter().map(|name| &**name).filter(|name| !name.is_empty());
            let written = &name.origin.shown;
            name.wrong(report, format!("`{written}` is no station{}", one_of_names(written, names)));
        }
        found
    };
    let order = match &flow.stations {
        None => (0..stations.len()).collect(),
        Some(list) => order(list, &find, report),
    };
    let mut one = |name: Option<&At<Name>>| {
        let name = name?;
        let index = find(name, report)?;
        if !order.contains(&index) && !order.is_empty() {
            name.wrong(report, format!("`{}` is none of the `stations` of the flow", name.origin.shown));
            return None;
        }
        Some(index)
    };
    let (constraint, end) = (one(flow.constraint.as_ref()), one(flow.end.as_ref()));
    let timed = knowledge.products.iter().any(|product| !product.ideal_cycle_time.is_empty());
    if let (Some(index), Some(name)) = (constraint, &flow.constraint)
        && !stations[index].oee.as_ref().is_some_and(|oee| timed || oee.ideal_cycle_time.is_some())
    {
        let shown = &name.origin.shown;
        name.wrong(report, format!("`{shown}` sets the pace, so it needs `oee` with an `ideal_cycle_time`"));
    }
    let end = if flow.end.is_some() { end? } else { *order.last()? };
    let counts = stations[end].oee.as_ref().is_some_and(|oee| oee.good.is_some() || oee.total.is_some());
    let by = flow.oee.as_ref().map(|by| by.0).unwrap_or_default();
    if (constraint.is_some() || by != LineBy::Constraint) && !counts {
        let told = flow.end.as_ref().map_or(&flow.origin, |name| &name.origin);
        told.wrong(
            report,
            format!("`{}` tells what the line made, so it needs `oee` with `total` or `good`", shown[end]),
        );
    }
    Some(FlowSpec { stations: order, constraint, end, by })
}

/// The index of the station of this name, or a report.
type Find<'a> = dyn Fn(&At<Name>, &mut Report) -> Option<usize> + 'a;

fn order(list: &At<Vec<At<Name>>>, find: &Find<'_>, report: &mut Report) -> Vec<usize> {
    if list.is_empty() {
        list.wrong(report, "there is no station; leave it out for all of them in the order written");
    }
    let mut order = Vec::with_capacity(list.len());
    for name in &list.value {
        let Some(index) = find(name, report) else { continue };
        if order.contains(&index) {
            name.wrong(report, format!("`{}` is already in the list", name.origin.shown));
        }
        order.push(index);
    }
    order
}
