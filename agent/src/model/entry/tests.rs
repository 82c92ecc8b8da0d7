//! What people tell, among what tags tell.

use std::collections::BTreeMap;

use gemba_drivers::{Reading, TagId, Value};
use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::model::tests::{config, oee, shift, t};
use crate::model::{Derived, Line, Period, Product, Reason};
use crate::record::Record;

const STATE: TagId = TagId(0);
const TOTAL: TagId = TagId(1);
const REJECT: TagId = TagId(2);
const RUNS: i64 = 1;
const DOWN: i64 = 5;

fn plant() -> Config {
    let mut config = config(oee(10.0), vec![shift("one", "06:00", "06:05", &[]), shift("two", "06:05", "06:15", &[])]);
    let reason = |code: &str, planned| Reason { code: code.into(), name: code.into(), planned, ..Reason::default() };
    config.knowledge.reasons = vec![reason("feeder-jam", false), reason("no-paste", false), reason("cleaning", true)];
    let product = |name: &str, takt: u64| Product {
        name: name.into(),
        ideal_cycle_time: vec![(Time(i64::MIN), Duration::from_secs(takt / 2))],
        takt: Some(Duration::from_secs(takt)),
        ..Product::default()
    };
    config.knowledge.products = vec![product("A", 20), product("B", 40)];
    config
}

fn told(at: f64, what: What) -> Entry {
    Entry { entered: t(at), by: Some("anna".into()), station: "printer-1".into(), what }
}

fn reason(from: f64, to: f64, code: &str) -> What {
    What::Reason { from: t(from), to: t(to), code: (!code.is_empty()).then(|| code.into()) }
}

fn rejects(at: f64, count: i64, code: &str) -> What {
    What::Rejects { at: t(at), count, code: code.into() }
}

fn lot(at: f64, lot: &str) -> What {
    What::Work { at: t(at), product: Change::Left, lot: Change::Set(lot.into()), order: Change::Left }
}

fn product(at: f64, product: &str) -> What {
    What::Work { at: t(at), product: Change::Set(product.into()), lot: Change::Left, order: Change::Left }
}

/// A line, and all that it ever said.
struct Told {
    config: Config,
    line: Line,
    derived: Derived,
}

impl Told {
    fn new() -> Self {
        let config = plant();
        Self { line: Line::new(&config), config, derived: Derived::default() }
    }

    fn read(&mut self, readings: &[(f64, TagId, i64)], received: f64) -> &mut Self {
        let reading = |&(at, tag, value)| Reading::good(tag, Value::Int(value), t(at), t(received));
        self.line.apply(&readings.iter().map(reading).collect::<Vec<_>>(), &mut self.derived);
        self
    }

    fn put(&mut self, at: f64, tag: TagId, value: i64) -> &mut Self {
        self.read(&[(at, tag, value)], at)
    }

    fn enter(&mut self, entry: Entry) -> Result<(), EntryError> {
        self.line.enter(entry, &mut self.derived)
    }

    fn tell(&mut self, at: f64, what: What) -> &mut Self {
        self.enter(told(at, what)).expect("it is taken");
        self
    }

    fn restart(&mut self) {
        let bytes = self.line.checkpoint();
        self.line = Line::new(&self.config);
        self.line.restore(&bytes).expect("restores");
    }

    /// Each period as it stands at last; how often it was revised is no matter.
    fn periods(&mut self, end: f64) -> BTreeMap<Time, Period> {
        self.line.advance(t(end), &mut self.derived);
        let closed = self.derived.closed.iter().map(|(_, period)| period.clone());
        let held = self.line.periods(t(end)).into_iter().map(|of| of.period);
        closed.chain(held).map(|period| (period.from, Period { revision: 0, ..period })).collect()
    }

    /// Seconds by reason of the period that runs at `at`.
    fn reasons(&mut self, at: f64) -> Vec<(String, i64)> {
        let periods = self.periods(at);
        let period = periods.values().next_back().expect("a period");
        period.tally.reasons().iter().map(|(code, _, spent)| (code.to_string(), spent / 1_000_000_000)).collect()
    }
}

/// Ran from 0, stood from 60 to 180.
fn stood() -> Told {
    let mut line = Told::new();
    line.put(0.0, STATE, RUNS).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(60.0, STATE, DOWN).put(180.0, STATE, RUNS);
    line
}

#[test]
fn a_reason_is_split_and_the_parts_add_up() {
    let mut line = stood();
    line.tell(190.0, reason(30.0, 200.0, "feeder-jam"));
    line.tell(191.0, reason(90.0, 110.0, "cleaning"));
    line.tell(192.0, reason(110.0, 150.0, "no-paste"));
    let by = |code: &str, seconds| (code.to_owned(), seconds);
    assert_eq!(line.reasons(200.0), [by("feeder-jam", 60), by("cleaning", 20), by("no-paste", 40)]);
    line.tell(201.0, reason(60.0, 180.0, ""));
    assert_eq!(line.reasons(204.0), [by("unassigned", 120)], "taken back");
}

#[test]
fn a_closed_shift_that_an_entry_changes_is_told_again() {
    let mut line = stood();
    line.line.advance(t(400.0), &mut line.derived);
    assert_eq!(line.derived.closed.len(), 1);
    line.tell(400.0, reason(60.0, 180.0, "feeder-jam"));
    line.line.advance(t(402.1), &mut line.derived);
    let (_, period) = line.derived.closed.last().expect("told");
    assert_eq!((line.derived.closed.len(), period.revision), (2, 1));
    assert_eq!(period.tally.reasons(), [("feeder-jam".into(), false, 120_000_000_000)]);
}

#[test]
fn rejects_by_hand_move_parts_from_good_to_reject_and_can_be_corrected() {
    let mut line = Told::new();
    line.put(0.0, STATE, RUNS).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(50.0, TOTAL, 10).put(50.0, REJECT, 1);
    let counts = |line: &mut Told, at| {
        let kpi = line.line.snapshot(t(at), crate::snapshot::SpoolView::default()).stations[0].kpi.clone();
        let kpi = kpi.expect("a shift runs");
        (kpi.total, kpi.good, kpi.reject, kpi.figures.quality)
    };
    line.tell(60.0, rejects(45.0, 4, "scratch")).line.advance(t(63.0), &mut Derived::default());
    assert_eq!(counts(&mut line, 63.0), (Some(10.0), Some(5.0), Some(5.0), Some(0.5)));
    line.tell(64.0, rejects(45.0, -1, "scratch")).tell(64.0, rejects(45.0, -7, "dent"));
    line.line.advance(t(67.0), &mut Derived::default());
    assert_eq!(counts(&mut line, 67.0), (Some(10.0), Some(6.0), Some(4.0), Some(0.6)), "no code falls below 0");
    let periods = line.periods(68.0);
    let tally = &periods.values().next().expect("a period").tally;
    assert_eq!(tally.defects_by_code().collect::<Vec<_>>(), [(&"scratch".into(), 3.0)]);
}

#[test]
fn a_takt_by_hand_goes_before_that_of_the_product() {
    let mut line = Told::new();
    line.put(0.0, STATE, RUNS).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).tell(1.0, product(0.0, "A"));
    let target = |line: &mut Told, at| {
        line.line.advance(t(at), &mut Derived::default());
        let periods = line.line.periods(t(at));
        periods[0].period.tally.target().expect("a pace")
    };
    assert_eq!(target(&mut line, 60.0), 3.0, "one in 20 s");
    line.tell(60.0, What::Target { at: t(0.0), takt: Some(Duration::from_secs(5)) });
    assert_eq!(target(&mut line, 70.0), 14.0, "one in 5 s");
    line.tell(70.0, What::Target { at: t(40.0), takt: None }).tell(70.0, product(40.0, "B"));
    assert_eq!(target(&mut line, 80.0), 9.0, "8 by hand, and then one in 40 s");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut line = stood();
    line.line.advance(t(200.0), &mut line.derived);
    let records = line.derived.records.len();
    let mut refused = |what| line.enter(told(200.0, what)).expect_err("it is refused").to_string();
    let mut all = vec![
        refused(reason(60.0, 70.0, "feeder-jamm")),
        refused(product(60.0, "C")),
        refused(reason(70.0, 60.0, "feeder-jam")),
        refused(reason(70.0, 90_000.0, "feeder-jam")),
        refused(reason(-70.0, -60.0, "feeder-jam")),
        refused(lot(300.0, "1")),
        refused(lot(100.0, " ")),
        refused(What::Work { at: t(1.0), product: Change::Left, lot: Change::Left, order: Change::Left }),
        refused(rejects(100.0, 0, "scratch")),
        refused(rejects(100.0, 1, "")),
        refused(What::Target { at: t(100.0), takt: Some(Duration::ZERO) }),
    ];
    let stranger = Entry { station: "printer-2".into(), ..told(200.0, lot(100.0, "1")) };
    all.push(line.enter(stranger).expect_err("no such station").to_string());
    assert_eq!(line.derived.records.len(), records);
    assert_eq!(line.line.entries().count(), 0);
    insta::assert_snapshot!(all.join("\n"), @r"
    there is no reason `feeder-jamm`; did you mean `feeder-jam`?
    there is no product `C`; there is `A` or `B`
    `to` (2026-03-02T06:01:00Z) is not after `from` (2026-03-02T06:01:10Z)
    `to` (2026-03-03T07:00:00Z) is more than a day ahead
    it ends before `printer-1` was first observed, at 2026-03-02T06:00:00Z
    2026-03-02T06:05:00Z lies in the future
    `lot` is empty, longer than 100 characters, or holds control characters
    it says nothing: give a product, a lot or an order
    `count` is a whole number from -1000000 to 1000000, and not 0
    `code` is empty, longer than 100 characters, or holds control characters
    a takt is longer than nothing and at most 7 days
    there is no station `printer-2`; did you mean `printer-1`?
    ");
}

#[test]
fn what_is_not_held_any_more_cannot_be_changed() {
    let mut line = stood();
    for day in 1..4 {
        line.line.advance(t(f64::from(day) * 86_400.0), &mut line.derived);
    }
    let error = line.enter(told(3.0 * 86_400.0, lot(100.0, "1"))).expect_err("too late").to_string();
    insta::assert_snapshot!(
        error,
        @"2026-03-02T06:01:40Z is too long ago: what `printer-1` did is held since 2026-03-03T06:15:00Z"
    );
    let mut new = Told::new();
    let error = new.enter(told(1.0, lot(0.0, "1"))).expect_err("too early").to_string();
    insta::assert_snapshot!(error, @"`printer-1` has told nothing yet, so there is nothing to say it of");
}

#[test]
fn there_is_room_for_so_many() {
    let mut line = stood();
    for _ in 0..MOST_HELD {
        line.tell(190.0, rejects(10.0, 1, "scratch"));
    }
    assert_eq!(line.enter(told(190.0, rejects(10.0, 1, "scratch"))), Err(EntryError::TooMany("printer-1".into())));
    line.line.advance(t(200.0), &mut line.derived);
    assert_eq!(line.enter(told(200.0, rejects(10.0, 1, "scratch"))), Err(EntryError::TooMany("printer-1".into())));
    assert_eq!(line.line.entries().count(), SHOWN);
}

#[test]
fn each_entry_is_a_record() {
    let mut line = stood();
    let entry = told(190.0, lot(100.0, "1"));
    line.enter(entry.clone()).expect("taken");
    assert_eq!(line.derived.records.last(), Some(&Record::Entered(Arc::new(entry))));
}

#[derive(Clone, Debug)]
enum Event {
    Reads(TagId, i64),
    Tells(What),
}

/// In order of time, a reading first.
fn events() -> impl Strategy<Value = Vec<(f64, Event)>> {
    let step = (1..120_u32, 0..9_u32, 0..3_usize, 0.0..1.0_f64, 0.0..1.0_f64);
    prop::collection::vec(step, 10..80).prop_map(|steps| {
        let first = [(STATE, RUNS), (TOTAL, 0), (REJECT, 0)];
        let mut all: Vec<(f64, Event)> = first.map(|(tag, value)| (0.0, Event::Reads(tag, value))).into();
        let (mut at, mut counts) = (0.0_f64, [0_i64; 3]);
        for (tenths, kind, choice, back, length) in steps {
            at += f64::from(tenths) / 10.0;
            let then = (at * back * 10.0).floor() / 10.0;
            let code = ["feeder-jam", "cleaning", ""][choice];
            let event = match kind {
                0 | 1 => Event::Reads(STATE, [RUNS, 2, DOWN][choice]),
                2..=4 => {
                    let tag = if kind == 4 { REJECT } else { TOTAL };
                    counts[tag.index()] += i64::try_from(choice).expect("small");
                    Event::Reads(tag, counts[tag.index()])
                }
                5 => Event::Tells(reason(then, then + 0.1 + (length * 600.0).floor() / 10.0, code)),
                6 => Event::Tells(rejects(then, [-2, 1, 3][choice], ["scratch", "dent", "scratch"][choice])),
                7 if choice == 2 => Event::Tells(lot(then, "7")),
                7 => Event::Tells(product(then, ["A", "B"][choice])),
                _ => Event::Tells(What::Target {
                    at: t(then),
                    takt: [None, Some(7), Some(33)][choice].map(Duration::from_secs),
                }),
            };
            all.push((at, event));
        }
        all
    })
}

proptest! {
    /// As long as readings come within the lateness: it does not matter how they come, nor where a restart lies between.
    #[test]
    fn entries_and_readings_in_any_batches_give_the_same_periods(
        events in events(),
        late in 0.0..1.9_f64,
        restart in any::<prop::sample::Index>(),
    ) {
        let end = events.last().expect("some").0 + 3.0;
        let mut alone = Told::new();
        for (at, event) in events.clone() {
            match event {
                Event::Reads(tag, value) => alone.put(at, tag, value),
                Event::Tells(what) => alone.tell(at, what),
            };
        }

        let mut batched = Told::new();
        let mut held: Vec<(f64, TagId, i64)> = Vec::new();
        let restart = restart.index(events.len());
        for (place, (at, event)) in events.into_iter().enumerate() {
            if held.first().is_some_and(|first| at > first.0 + late) {
                let received = held[0].0 + late;
                batched.read(&std::mem::take(&mut held), received);
            }
            match event {
                Event::Reads(tag, value) if at > 0.0 => held.push((at, tag, value)),
                Event::Reads(tag, value) => _ = batched.put(at, tag, value),
                Event::Tells(what) => _ = batched.tell(at, what),
            }
            if place == restart {
                batched.restart();
            }
        }
        batched.read(&held, end - 1.0);
        prop_assert_eq!(batched.periods(end), alone.periods(end));
        let entries = |line: &Told| line.line.entries().cloned().collect::<Vec<_>>();
        prop_assert_eq!(entries(&batched), entries(&alone));
    }
}
