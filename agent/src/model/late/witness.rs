//! A station that rejects what was made at others: who is there, and what it says of them.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Reading, TagId, Time};
use serde::{Deserialize, Serialize};

use super::{Rejected, Stays, Unit};
use crate::config::Station;
use crate::model::LateBy;

/// How many units back it is known who was there.
const REMEMBERED: usize = 1_000;

/// The code of a reject of which the station tells none.
const UNSPECIFIED: &str = "unspecified";

/// How a station tells what it rejects, and whose parts those are.
#[derive(Clone, Debug)]
pub struct WitnessSpec {
    name: Arc<str>,
    /// The tags that tell who is there, as far as somebody asks by them.
    serial: Option<TagId>,
    lot: Option<TagId>,
    /// It tells by its inspection's verdict: what is told until so long after an inspection still belongs to it.
    inspects: Option<Duration>,
    /// The inspection's id is the serial.
    inspects_serials: bool,
    /// The stations that made them, by index.
    makers: Vec<(usize, LateBy)>,
}

/// What is known of who is there. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    serials: Stays,
    lots: Stays,
}

/// Parts that the station rejects, as far as its inspection or its counter tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// When.
    pub at: Time,
    /// When that is settled.
    pub turn: Time,
    /// What the inspection was of.
    pub id: Option<Arc<str>>,
    /// What is wrong.
    pub code: Option<Arc<str>>,
    /// How many.
    pub parts: f64,
    /// They are good after all.
    pub back: bool,
    /// They were rejected at that time; otherwise at any since the counter's last good reading.
    pub known: bool,
}

impl WitnessSpec {
    /// How the station at `index` tells what it rejects; nothing if nobody asks.
    #[must_use]
    pub fn of(index: usize, stations: &[Station]) -> Option<Self> {
        let asks = |(maker, station): (usize, &Station)| {
            let late = station.oee.as_ref()?.late.iter().find(|late| late.from == index)?;
            Some((maker, late.by))
        };
        let makers: Vec<(usize, LateBy)> = stations.iter().enumerate().filter_map(asks).collect();
        let station = stations.get(index).filter(|_| !makers.is_empty())?;
        let asked = |by| makers.iter().any(|(_, asked)| *asked == by);
        let inspection = station.inspection.as_ref().filter(|inspection| inspection.verdict.is_some());
        let serial = station.context.serial.filter(|_| asked(LateBy::Serial));
        Some(Self {
            name: station.name.clone(),
            serial,
            lot: station.context.lot.filter(|_| asked(LateBy::Lot)),
            inspects: inspection.map(|inspection| inspection.settle),
            inspects_serials: inspection.is_some_and(|inspection| inspection.id.is_some() && inspection.id == serial),
            makers,
        })
    }

    /// Whether the tag tells who is there.
    #[must_use]
    pub fn listens(&self, tag: TagId) -> bool {
        self.serial == Some(tag) || self.lot == Some(tag)
    }

    /// It tells what it rejects by its inspection, and not by its counter.
    #[must_use]
    pub fn inspects(&self) -> bool {
        self.inspects.is_some()
    }
}

impl Witness {
    /// A settled reading.
    pub fn observe(&mut self, spec: &WitnessSpec, reading: &Reading) {
        for (tag, stays) in [(spec.serial, &mut self.serials), (spec.lot, &mut self.lots)] {
            if tag == Some(reading.tag) {
                stays.tell(reading);
                stays.trim(REMEMBERED, |_| false);
            }
        }
    }

    /// What a rejection is to the stations that made the parts, each with its index.
    #[must_use]
    pub fn judge(&self, spec: &WitnessSpec, rejection: &Rejection) -> Vec<(usize, Rejected)> {
        spec.makers.iter().map(|&(maker, by)| (maker, self.rejected(spec, by, rejection))).collect()
    }

    fn rejected(&self, spec: &WitnessSpec, by: LateBy, rejection: &Rejection) -> Rejected {
        let stays = if by == LateBy::Serial { &self.serials } else { &self.lots };
        // With an inspection, who it was may be told a little later, like all else.
        let late = spec.inspects.unwrap_or_default();
        let stay = stays.at(rejection.at).or_else(|| stays.came(rejection.at, rejection.at + late));
        // Of which unit a counter moved while it was bad nobody knows.
        let here = stay.filter(|_| rejection.known || by == LateBy::Lot).map_or(Unit::NOBODY, |stay| stay.unit);
        let named = rejection.id.as_ref().filter(|_| by == LateBy::Serial && spec.inspects_serials);
        Rejected {
            at: rejection.at,
            turn: rejection.turn,
            station: spec.name.clone(),
            by,
            unit: named.map_or(here, |id| Unit::of(id)),
            // What a counter tells of a unit adds up; inspections of it tell the same thing twice.
            since: stay.filter(|_| spec.inspects.is_none()).map_or(rejection.at, |stay| stay.from),
            code: rejection.code.clone().unwrap_or_else(|| UNSPECIFIED.into()),
            parts: rejection.parts,
            back: rejection.back,
        }
    }
}
