//! Which later stations' rejects count where the part was made.

use std::rc::Rc;

use crate::config::Station;
use crate::config::error::Report;
use crate::config::raw;
use crate::config::section::At;
use crate::config::words::one_of_names;
use crate::model::{ContextSpec, FlowSpec, LateBy, LateSpec};

/// Adds what `oee.late_rejects` means to each of `stations`, which are those of `raw`; `shown` has their names for people.
pub(super) fn resolve(
    raw: &[At<raw::Station>],
    stations: &mut [Station],
    shown: &[Rc<str>],
    flow: Option<&FlowSpec>,
    report: &mut Report,
) {
    for (index, station) in raw.iter().enumerate() {
        let Some(list) = oee(station).and_then(|oee| oee.late_rejects.as_ref()) else { continue };
        let late = Plant { stations, shown, flow }.late(index, list, report);
        if let Some(oee) = stations.get_mut(index).and_then(|station| station.oee.as_mut()) {
            oee.late = late;
        }
    }
    refuse_circles(raw, stations, report);
}

fn oee(station: &At<raw::Station>) -> Option<&At<raw::Oee>> {
    match &station.value {
        raw::Station::Modbus(of) => of.oee.as_ref(),
        raw::Station::Opcua(of) => of.oee.as_ref(),
        raw::Station::Mqtt(of) => of.oee.as_ref(),
        raw::Station::Gpio(of) => of.oee.as_ref(),
    }
}

struct Plant<'a> {
    stations: &'a [Station],
    shown: &'a [Rc<str>],
    flow: Option<&'a FlowSpec>,
}

impl Plant<'_> {
    fn late(&self, index: usize, list: &At<Vec<At<raw::LateRejects>>>, report: &mut Report) -> Vec<LateSpec> {
        if list.is_empty() {
            list.wrong(report, "there is no station; write it as `- { from: aoi-1, by: serial }`");
        }
        let own = &self.stations[index];
        if own.oee.as_ref().is_some_and(|oee| oee.total.is_none() && oee.good.is_none()) {
            list.wrong(report, "rejects are a share of all parts: name a tag for `total` or `good`, too");
        }
        let mut all: Vec<LateSpec> = Vec::with_capacity(list.len());
        for raw in &list.value {
            let Some(late) = self.one(index, raw, report) else { continue };
            if let Some(from) = raw.from.as_ref().filter(|_| all.iter().any(|other| other.from == late.from)) {
                from.wrong(report, format!("`{}` is already in the list", from.origin.shown));
            }
            all.push(late);
        }
        all
    }

    fn one(&self, index: usize, raw: &At<raw::LateRejects>, report: &mut Report) -> Option<LateSpec> {
        let from = raw.from.as_ref()?;
        let written = &from.origin.shown;
        let Some(found) = self.stations.iter().position(|station| *station.name == from.value.0) else {
            let names = self.shown.iter().map(|name| &**name).filter(|name| !name.is_empty());
            from.wrong(report, format!("`{written}` is no station{}", one_of_names(written, names)));
            return None;
        };
        if found == index {
            from.wrong(report, format!("`{written}` is this station; its own rejects count here anyway"));
            return None;
        }
        let place = |of: usize| self.flow?.stations.iter().position(|&station| station == of);
        if let (Some(own), Some(other)) = (place(index), place(found))
            && other < own
        {
            from.wrong(
                report,
                format!("`{written}` comes before this station in the `flow`; what it rejects was not made here"),
            );
        }
        let other = &self.stations[found];
        let verdicts = other.inspection.as_ref().is_some_and(|inspection| inspection.verdict.is_some());
        if !verdicts && other.oee.as_ref().is_none_or(|oee| oee.reject.is_none()) {
            from.wrong(
                report,
                format!(
                    "`{written}` tells no rejects: it needs an `inspection` with a `verdict`, or a tag for `oee.reject`"
                ),
            );
        }
        let by = raw.by.as_ref()?;
        let lacks = |context: &ContextSpec| match by.value.0 {
            LateBy::Serial => context.serial.is_none(),
            LateBy::Lot => context.lot.is_none(),
        };
        let word = by.value.0.word();
        if lacks(&self.stations[index].context) {
            by.wrong(report, format!("this station does not tell its {word}; name a tag for `context.{word}`"));
        }
        if lacks(&other.context) {
            by.wrong(report, format!("`{written}` does not tell its {word}; name a tag for its `context.{word}`"));
        }
        let within = raw.within.as_ref()?.0;
        Some(LateSpec { from: found, station: other.name.clone(), by: by.value.0, within })
    }
}

/// Nothing is made before itself.
fn refuse_circles(raw: &[At<raw::Station>], stations: &[Station], report: &mut Report) {
    let late = |of: usize| stations[of].oee.iter().flat_map(|oee| &oee.late).map(|late| late.from);
    for (index, station) in raw.iter().enumerate() {
        let Some(list) = oee(station).and_then(|oee| oee.late_rejects.as_ref()) else { continue };
        let mut behind: Vec<usize> = late(index).collect();
        let mut place = 0;
        while let Some(&next) = behind.get(place) {
            place += 1;
            let more: Vec<usize> = late(next).filter(|of| !behind.contains(of)).collect();
            behind.extend(more);
        }
        if behind.contains(&index) {
            list.wrong(report, "these stations stand in a circle: each takes rejects of the next, so none comes later");
        }
    }
}
