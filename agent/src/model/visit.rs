//! Which unit is at a station: a stay of one serial, from its arrival to its departure.
//!
//! - An empty text, null and the number 0 stand for nobody.
//! - Product and lot are what was known when the unit arrived, with all that came in the same batch; what was not known
//!   then is filled in by the first word that comes during the stay.
//! - A bad reading, the loss of the link and downtime of the agent leave a visit open: if the same serial is there
//!   afterwards, the unit never left. If another is, it left at some time that nobody saw, and the visit ends where it
//!   was last known.
//! - A unit that was there when we began to watch, or came while nobody did, has an arrival that nobody saw: the visit
//!   counts from the first that was heard of it.
//! - History tells of the gap as if it had been watched: its readings count at their own times, also the one that was told
//!   last before the gap and comes again.

use std::sync::Arc;

use gemba_drivers::{Reading, TagId, Time, Value};
use serde::{Deserialize, Serialize};

use crate::model::Derived;
use crate::model::observer::HELD;
use crate::record::{Record, Visit};

/// Which tags tell what a station works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextSpec {
    /// The unit: each change of it ends a visit and begins another.
    pub serial: Option<TagId>,
    /// What it is.
    pub product: Option<TagId>,
    /// Which lot it belongs to.
    pub lot: Option<TagId>,
    /// Which order the lot is for.
    pub order: Option<TagId>,
}

/// What a tag tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// [`ContextSpec::serial`]
    Serial,
    /// [`ContextSpec::product`]
    Product,
    /// [`ContextSpec::lot`]
    Lot,
    /// [`ContextSpec::order`]
    Order,
}

impl ContextSpec {
    /// What `tag` tells of.
    #[must_use]
    pub fn about(&self, tag: TagId) -> Option<About> {
        let tells = |of: Option<TagId>| of == Some(tag);
        if tells(self.serial) {
            Some(About::Serial)
        } else if tells(self.product) {
            Some(About::Product)
        } else if tells(self.lot) {
            Some(About::Lot)
        } else {
            tells(self.order).then_some(About::Order)
        }
    }
}

/// Who is at a station, as far as readings have told. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Visits {
    here: Option<Here>,
    product: Option<Arc<str>>,
    lot: Option<Arc<str>>,
    /// When the serial was last told, good or bad; older readings are no news.
    told: Option<Time>,
    /// Since when nobody knows who is there.
    lost: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Here {
    serial: Arc<str>,
    product: Option<Arc<str>>,
    lot: Option<Arc<str>>,
    since: Time,
    /// Somebody watched when it came.
    seen: bool,
}

impl Visits {
    /// Applies readings that tell of the context and belong together, those of one batch or of one instant of history: what
    /// the unit is first, then who it is.
    pub fn apply<'a>(
        &mut self,
        station: &Arc<str>,
        told: impl Iterator<Item = (About, &'a Reading)> + Clone,
        out: &mut Derived,
    ) {
        for (about, reading) in told.clone().filter(|(_, reading)| !reading.validity.is_bad()) {
            match about {
                About::Serial | About::Order => {}
                About::Product => self.product = word(&reading.value),
                About::Lot => self.lot = word(&reading.value),
            }
        }
        for (_, reading) in told.filter(|(about, _)| *about == About::Serial) {
            self.serial(station, reading, out);
        }
        if let Some(here) = &mut self.here {
            here.product = here.product.take().or_else(|| self.product.clone());
            here.lot = here.lot.take().or_else(|| self.lot.clone());
        }
    }

    fn serial(&mut self, station: &Arc<str>, reading: &Reading, out: &mut Derived) {
        let at = reading.source_time.min(reading.received_time);
        if self.told.is_some_and(|told| at < told) && (reading.validity.is_bad() || self.lost.is_none()) {
            return;
        }
        if reading.validity.is_bad() {
            self.told = Some(at);
            self.lost.get_or_insert(at);
            return;
        }
        // What the device held before the gap says nothing about the gap, nor about the time before we watched.
        let held =
            self.lost.is_some_and(|lost| at <= lost) || (self.told.is_none() && reading.received_time.since(at) > HELD);
        let at = if held && !reading.backfilled { reading.received_time } else { at };
        let watched = self.told.is_some() && self.lost.is_none();
        let lost = self.lost.take();
        self.told = Some(at);
        let serial = word(&reading.value);
        if self.here.as_ref().map(|here| &here.serial) == serial.as_ref() {
            return;
        }
        if let Some(here) = self.here.take() {
            let Here { serial, product, lot, since, seen } = here;
            out.records.push(Record::Visit(Box::new(Visit {
                station: station.clone(),
                serial,
                product,
                lot,
                from: since,
                // History may tell of a time before the loss that cut it short.
                to: lost.map_or(at, |lost| lost.min(at)).max(since),
                arrival_seen: seen,
                departure_seen: lost.is_none(),
            })));
        }
        self.here = serial.map(|serial| Here {
            serial,
            product: self.product.clone(),
            lot: self.lot.clone(),
            since: at,
            seen: watched,
        });
    }
}

/// A name, unless the value stands for nobody and nothing.
pub(super) fn word(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Null | Value::Int(0) => None,
        Value::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()).map(Arc::from),
        Value::Float(real) if *real == 0.0 => None,
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Some(value.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Status};

    use super::*;
    use crate::config::Config;
    use crate::model::Line;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    fn said(text: &str, seconds: i64) -> Reading {
        Reading::good(TagId(0), Value::Text(text.into()), at(seconds), at(seconds))
    }

    fn lost(seconds: i64, now: i64) -> Reading {
        Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), at(seconds), at(now))
    }

    /// The visits that ended: serial, product, from, to (in seconds), and whether each end was seen.
    fn visits(batches: &[&[(About, Reading)]]) -> Vec<(String, Option<String>, i64, i64, bool, bool)> {
        let (mut visits, mut out) = (Visits::default(), Derived::default());
        for batch in batches {
            visits.apply(&"press".into(), batch.iter().map(|(about, reading)| (*about, reading)), &mut out);
        }
        let told = out.records.into_iter().map(|record| match record {
            Record::Visit(visit) => *visit,
            other => panic!("{other:?}"),
        });
        let seconds = |time: Time| time.0 / 1_000_000_000;
        told.map(|visit| {
            let Visit { serial, product, from, to, arrival_seen, departure_seen, .. } = visit;
            (
                serial.to_string(),
                product.map(|it| it.to_string()),
                seconds(from),
                seconds(to),
                arrival_seen,
                departure_seen,
            )
        })
        .collect()
    }

    use About::{Product, Serial};

    #[test]
    fn a_change_of_serial_ends_a_visit_and_begins_another() {
        let told = visits(&[
            &[(Serial, said("A", 1))],
            &[(Serial, said("A", 2))],
            &[(Serial, said("B", 5))],
            &[(Serial, said("", 9))],
            &[(Serial, said("C", 12))],
        ]);
        let none = None::<String>;
        assert_eq!(told, [("A".into(), none.clone(), 1, 5, false, true), ("B".into(), none, 5, 9, true, true)]);
    }

    #[test]
    fn product_is_what_was_known_at_the_arrival_whatever_the_order_within_a_batch() {
        let p = |text: &str| Some(text.to_owned());
        let told = visits(&[
            &[(Serial, said("A", 1))],
            &[(Product, said("P1", 2))],
            &[(Product, said("P2", 3)), (Serial, said("B", 3))],
            &[(Serial, said("C", 4)), (Product, said("P3", 4))],
            &[(Product, said("P4", 5))],
            &[(Serial, said("", 6))],
        ]);
        let products: Vec<_> = told.into_iter().map(|visit| (visit.0, visit.1)).collect();
        assert_eq!(products, [("A".into(), p("P1")), ("B".into(), p("P2")), ("C".into(), p("P3"))]);
    }

    #[test]
    fn a_gap_ends_no_visit_unless_somebody_else_is_there_after_it() {
        let same = visits(&[
            &[(Serial, said("A", 1))],
            &[(Serial, lost(3, 8))],
            &[(Serial, said("A", 9))],
            &[(Serial, said("B", 20))],
        ]);
        assert_eq!(same, [("A".into(), None, 1, 20, false, true)]);
        let other = visits(&[
            &[(Serial, said("A", 1))],
            &[(Serial, lost(3, 8))],
            &[(Serial, lost(9, 9))],
            &[(Serial, said("B", 10))],
            &[(Serial, said("", 12))],
        ]);
        assert_eq!(other, [("A".into(), None, 1, 3, false, false), ("B".into(), None, 10, 12, false, true)]);
    }

    #[test]
    fn what_the_device_held_before_the_gap_counts_from_its_receipt() {
        let held = Reading::good(TagId(0), Value::Text("B".into()), at(2), at(11));
        let told =
            visits(&[&[(Serial, said("A", 1))], &[(Serial, lost(3, 8))], &[(Serial, held)], &[(Serial, said("", 12))]]);
        assert_eq!(told[1], ("B".into(), None, 11, 12, false, true));
        let old = Reading::good(TagId(0), Value::Text("A".into()), at(1), at(500));
        let told = visits(&[&[(Serial, old)], &[(Serial, said("", 501))]]);
        assert_eq!(told, [("A".into(), None, 500, 501, false, true)], "it may have been there for days");
    }

    /// The link was lost with A there; history tells of B and C, and breaks off in the middle once.
    #[test]
    fn history_tells_of_every_unit_of_the_gap() {
        let past = |text: &str, seconds| Reading { received_time: at(900), ..said(text, seconds) }.from_history();
        let told = visits(&[
            &[(Serial, said("A", 1))],
            &[(Serial, lost(30, 31))],
            &[(Serial, past("A", 1))],
            &[(Serial, past("B", 100))],
            &[(Serial, lost(800, 901))],
            &[(Serial, past("B", 100))],
            &[(Serial, past("C", 200)), (Serial, past("D", 300))],
            &[(Serial, said("", 905))],
        ]);
        let seen = |serial: &str, from, to| (serial.to_owned(), None, from, to, true, true);
        let first = ("A".to_owned(), None, 1, 100, false, true);
        assert_eq!(told, [first, seen("B", 100, 200), seen("C", 200, 300), seen("D", 300, 905)]);
        // Without the value from before the gap nobody knows when A left.
        let told = visits(&[&[(Serial, said("A", 1))], &[(Serial, lost(30, 31))], &[(Serial, past("B", 100))]]);
        assert_eq!(told, [("A".to_owned(), None, 1, 30, false, false)]);
    }

    const YAML: &str = "
site: fab-2
line: smt-1
timezone: UTC
stations:
  - name: printer-1
    source: { type: mqtt, endpoint: \"mqtt://127.0.0.1:1883\", topics: [{ topic: printer }] }
    tags: [{ name: board, path: \"$.board\" }, { name: recipe, path: \"$.recipe\" }]
    context: { serial: { tag: board }, product: { tag: recipe } }
  - name: aoi-1
    source: { type: mqtt, endpoint: \"mqtt://127.0.0.1:1883\", topics: [{ topic: aoi }] }
    tags: [{ name: board, path: \"$.board\" }, { name: score, path: \"$.score\" }]
    context: { serial: { tag: board } }
";

    fn line() -> Line {
        Line::new(&Config::from_str("line.yaml", YAML).expect("a configuration"))
    }

    /// What the stations say of five boards that follow each other, with a break of the printer's link.
    fn shift() -> Vec<Vec<Reading>> {
        let text =
            |tag, text: &str, seconds| Reading::good(TagId(tag), Value::Text(text.into()), at(seconds), at(seconds));
        let mut batches = Vec::new();
        for board in 0..5 {
            let (serial, start) = (format!("SN{board}"), board * 10);
            batches.push(vec![text(1, &format!("P{}", board % 2), start), text(0, &serial, start)]);
            if board == 3 {
                batches.push(vec![Reading::bad(
                    TagId(0),
                    Status::Own(OwnStatus::LinkLost),
                    at(start + 1),
                    at(start + 2),
                )]);
                batches.push(vec![text(0, &serial, start + 3)]);
            }
            batches.push(vec![text(2, &serial, start + 5)]);
        }
        batches.push(vec![text(0, "", 60), text(2, "", 61)]);
        batches
    }

    fn told(line: &mut Line, batches: &[Vec<Reading>]) -> Vec<Visit> {
        let mut out = Derived::default();
        batches.iter().for_each(|batch| line.apply(batch, &mut out));
        let visit = |record| if let Record::Visit(visit) = record { Some(*visit) } else { None };
        out.records.into_iter().filter_map(visit).collect()
    }

    #[test]
    fn a_restart_anywhere_neither_repeats_nor_loses_a_visit() {
        let batches = shift();
        let whole = told(&mut line(), &batches);
        assert_eq!(whole.len(), 10, "five boards at two stations: {whole:#?}");
        assert!(whole.iter().all(|visit| visit.departure_seen), "{whole:#?}");
        let of_two = |visit: &&Visit| &*visit.serial == "SN2";
        let two: Vec<_> =
            whole.iter().filter(of_two).map(|visit| (&*visit.station, visit.product.as_deref())).collect();
        assert_eq!(two, [("printer-1", Some("P0")), ("aoi-1", None)]);
        for cut in 0..=batches.len() {
            let mut before = line();
            let mut all = told(&mut before, &batches[..cut]);
            let mut after = line();
            after.restore(&before.checkpoint()).expect("a checkpoint");
            all.extend(told(&mut after, &batches[cut..]));
            assert_eq!(all, whole, "cut at {cut}");
        }
    }

    #[test]
    fn late_news_and_numbers() {
        let number = |value, seconds| Reading::good(TagId(0), value, at(seconds), at(seconds));
        let told = visits(&[
            &[(Serial, number(Value::Int(17), 5))],
            &[(Serial, said("old", 2))],
            &[(Serial, number(Value::Int(0), 7))],
            &[(Serial, number(Value::Float(0.0), 8))],
        ]);
        assert_eq!(told, [("17".into(), None, 5, 7, false, true)]);
    }
}
