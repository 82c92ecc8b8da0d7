//! History that comes after a gap gives what an undisturbed run would have given.

use std::collections::BTreeMap;

use gemba_drivers::opcua::Watermark;
use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use proptest::prelude::*;

use super::tests::{config, oee, shift, t};
use super::{ContextSpec, Derived, Line, Period};
use crate::config::Tag;
use crate::record::{Record, Visit};

/// What was said: seconds after six, of which tag, and what.
type Said = (f64, u32, i64);

/// The station's tags: state, total, reject, and who is there.
const TAGS: u32 = 5;
const SERIAL: u32 = 3;
const PRODUCT: u32 = 4;

/// A line, and every period that it ever closed or revised.
struct Watched {
    line: Line,
    derived: Derived,
}

impl Watched {
    fn new() -> Self {
        let shifts = vec![
            shift("a", "06:00", "06:20", &[("06:05", "06:07")]),
            shift("b", "06:20", "06:40", &[]),
            shift("c", "06:40", "07:00", &[]),
        ];
        let mut config = config(oee(1.0), shifts);
        config.stations[0].tags = 0..TAGS;
        config.stations[0].context =
            ContextSpec { serial: Some(TagId(SERIAL)), product: Some(TagId(PRODUCT)), ..ContextSpec::default() };
        for (tag, name) in [(SERIAL, "serial"), (PRODUCT, "product")] {
            config.tags.push(Tag { id: TagId(tag), name: name.into(), ..config.tags[0].clone() });
        }
        Self { line: Line::new(&config), derived: Derived::default() }
    }

    fn apply(&mut self, readings: &[Reading]) {
        self.line.advance(readings[0].received_time, &mut self.derived);
        self.line.apply(readings, &mut self.derived);
    }

    fn live(&mut self, &(at, tag, value): &Said) {
        self.apply(&[Reading::good(TagId(tag), Value::Int(value), t(at), t(at))]);
    }

    fn lost(&mut self, at: f64, now: f64) {
        let mark = |tag| Reading::bad(TagId(tag), Status::Own(OwnStatus::LinkLost), t(at), t(now));
        self.apply(&(0..TAGS).map(mark).collect::<Vec<_>>());
    }

    /// Batches of history, a millisecond apart from `now` on.
    fn past(&mut self, told: &[Said], now: f64, a_batch: usize) {
        for (batch, told) in told.chunks(a_batch).enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let now = t(now + batch as f64 / 1e3);
            let readings: Vec<Reading> = told
                .iter()
                .map(|&(at, tag, value)| Reading::good(TagId(tag), Value::Int(value), t(at), now).from_history())
                .collect();
            self.apply(&readings);
        }
    }

    fn ticks(&mut self, from: f64, to: f64) {
        let mut at = from;
        while at < to {
            self.line.advance(t(at), &mut self.derived);
            at += 10.0;
        }
    }

    fn visits(&self) -> Vec<Visit> {
        let visit = |record: &Record| if let Record::Visit(visit) = record { Some((**visit).clone()) } else { None };
        self.derived.records.iter().filter_map(visit).collect()
    }

    /// Each period as it stands at last; how often it was revised is no matter.
    fn periods(mut self, end: f64) -> BTreeMap<Time, Period> {
        self.line.advance(t(end), &mut self.derived);
        let closed = self.derived.closed.into_iter().map(|(_, period)| period);
        let held = self.line.periods(t(end)).into_iter().map(|of| of.period);
        let same = |mut period: Period| {
            period.revision = 0;
            (period.from, period)
        };
        closed.chain(held).map(same).collect()
    }
}

/// The last of each tag up to `at`, in order of time: what a driver tells again.
fn openings(said: &[Said], at: f64) -> Vec<Said> {
    let mut last: Vec<Said> =
        (0..TAGS).filter_map(|tag| said.iter().rev().find(|of| of.0 <= at && of.1 == tag).copied()).collect();
    last.sort_by(|a, b| a.0.total_cmp(&b.0));
    last
}

fn stream() -> impl Strategy<Value = Vec<Said>> {
    let step = (1..40_u32, 0..TAGS, 0..3_usize);
    prop::collection::vec(step, 20..140).prop_map(|steps| {
        let mut said: Vec<Said> = (0..TAGS).map(|tag| (0.0, tag, i64::from(tag == 0))).collect();
        let (mut at, mut counts) = (0.0, [0, 0]);
        for (seconds, tag, choice) in steps {
            at += f64::from(seconds) / 2.0;
            let value = match tag {
                0 => [1, 2, 5][choice],
                // Nobody, or one of two that come and go.
                SERIAL | PRODUCT => i64::try_from(choice).expect("small"),
                _ => {
                    let count = &mut counts[tag as usize - 1];
                    *count += i64::try_from(choice).expect("small");
                    *count
                }
            };
            said.push((at, tag, value));
        }
        said
    })
}

proptest! {
    #[test]
    fn a_gap_that_history_closes_leaves_no_trace(
        said in stream(),
        from in 0.0..1.0_f64,
        length in 0.0..1.0_f64,
        a_batch in 1..30_usize,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let last = said.last().expect("some").0;
        let end = last + 3.0;
        let mut undisturbed = Watched::new();
        said.iter().for_each(|said| undisturbed.live(said));
        let visits = undisturbed.visits();
        let undisturbed = undisturbed.periods(end);

        // Between two readings, so that it is clear what was told.
        let lost = (from * last).floor() + 0.25;
        let back = (lost + length * (last - lost)).floor() + 0.25;
        let mut disturbed = Watched::new();
        said.iter().filter(|said| said.0 <= lost).for_each(|said| disturbed.live(said));
        disturbed.lost(lost, lost + 0.1);
        disturbed.ticks(lost + 0.2, back);
        let missed: Vec<Said> = said.iter().filter(|of| lost < of.0 && of.0 <= back).copied().collect();
        let whole: Vec<Said> = openings(&said, lost).into_iter().chain(missed).collect();
        match cut.map(|cut| cut.index(whole.len() + 1)) {
            None => disturbed.past(&whole, back, a_batch),
            Some(cut) => {
                // The link breaks again in the middle of it.
                let first = &whole[..cut];
                disturbed.past(first, back, a_batch);
                disturbed.lost(back, back + 0.15);
                disturbed.ticks(back + 0.16, back + 0.2);
                let reached: Vec<Said> = if cut > TAGS as usize { first.to_vec() } else { openings(&said, lost) };
                let through = reached.last().map_or(lost, |said| said.0);
                let rest = openings(&reached, through).into_iter().chain(whole[cut.max(TAGS as usize)..].iter().copied());
                disturbed.past(&rest.collect::<Vec<_>>(), back + 0.2, a_batch);
            }
        }
        said.iter().filter(|said| said.0 > back).for_each(|said| disturbed.live(said));
        prop_assert_eq!(disturbed.visits(), visits);
        // Nothing live need come for it to be over.
        let disturbed = disturbed.periods(end.max(back + 11.0));
        let undisturbed_later = {
            let mut again = Watched::new();
            said.iter().for_each(|said| again.live(said));
            again.periods(end.max(back + 11.0))
        };
        prop_assert_eq!(&disturbed, &undisturbed_later);
        prop_assert!(disturbed.values().all(|period| period.tally.unattributed == 0.0));
        prop_assert_eq!(undisturbed.keys().next(), disturbed.keys().next());
    }
}

#[test]
fn what_history_has_not_told_yet_is_unknown_while_it_comes_in() {
    let mut watched = Watched::new();
    watched.live(&(0.0, 0, 1));
    watched.lost(10.0, 11.0);
    watched.ticks(20.0, 600.0);
    watched.past(&[(0.0, 0, 1), (100.0, 0, 5), (200.0, 0, 1)], 600.0, 10);
    let producing = |watched: &mut Watched, at: f64| {
        let snapshot = watched.line.snapshot(t(at), crate::snapshot::SpoolView::default());
        snapshot.stations[0].kpi.as_ref().map(|kpi| (kpi.run_ns / 1_000_000_000, kpi.unknown_ns / 1_000_000_000))
    };
    assert_eq!(producing(&mut watched, 601.0), Some((100, 281)), "two minutes are a break");
    assert_eq!(producing(&mut watched, 611.0), Some((391, 0)), "no more came: it is known");
    watched.derived.records.retain(|record| matches!(record, Record::Kpi(_)));
    assert!(!watched.derived.records.is_empty());
}

/// As a Sparkplug node does that was away from its broker: a birth says how things are, and then comes what was missed.
#[test]
fn history_behind_what_is_known_makes_nothing_unknown() {
    let mut watched = Watched::new();
    for said in [(0.0, 0, 1), (0.0, 1, 0), (0.0, 2, 0), (100.0, 1, 8)] {
        watched.live(&said);
    }
    watched.past(&[(40.0, 1, 3), (60.0, 0, 5)], 101.0, 1);
    let kpi = watched.line.snapshot(t(105.0), crate::snapshot::SpoolView::default()).stations.remove(0).kpi;
    assert_eq!(kpi.map(|kpi| kpi.unknown_ns), Some(0));
    // What speaks of later than that is awaited, as after a gap.
    watched.past(&[(103.0, 0, 5)], 106.0, 1);
    let kpi = watched.line.snapshot(t(110.0), crate::snapshot::SpoolView::default()).stations.remove(0).kpi;
    assert_eq!(kpi.map(|kpi| kpi.unknown_ns), Some(7_000_000_000));
}

#[test]
fn without_history_the_gap_stays_unknown() {
    let mut watched = Watched::new();
    watched.live(&(0.0, 0, 1));
    watched.lost(10.0, 11.0);
    let again = Reading::good(TagId(0), Value::Int(1), t(0.0), t(60.0));
    watched.apply(&[again]);
    let kpi = watched.line.snapshot(t(100.0), crate::snapshot::SpoolView::default()).stations.remove(0).kpi;
    assert_eq!(kpi.map(|kpi| (kpi.unknown_ns, kpi.run_ns)), Some((50_000_000_000, 50_000_000_000)));
}

fn opcua_line() -> Line {
    use gemba_drivers::opcua;
    let mut config = config(oee(1.0), vec![]);
    config.links = vec![crate::config::Link {
        endpoint: "opc.tcp://plc".to_owned(),
        stations: vec![0],
        source: crate::config::Source::Opcua(opcua::Config {
            endpoint: "opc.tcp://plc".to_owned(),
            spares: Vec::new(),
            security: opcua::Security::None,
            identity: opcua::Identity::Anonymous,
            timeout: std::time::Duration::from_secs(1),
            stations: Vec::new(),
        }),
    }];
    Line::new(&config)
}

/// Only what the device said moves the watermark: never a mark of ours, nor a bad status that may stand for a node that
/// cannot be watched.
#[test]
fn the_last_that_a_device_told_survives_a_restart() {
    let mut line = opcua_line();
    let good = |tag, at| Reading::good(TagId(tag), Value::Int(1), t(at), t(at + 1.0));
    let bad = |tag, at, status| Reading::bad(TagId(tag), status, t(at), t(at));
    line.apply(&[good(0, 1.0), good(1, 2.0), good(1, 3.0)], &mut Derived::default());
    line.apply(&[bad(0, 9.0, Status::Own(OwnStatus::LinkLost))], &mut Derived::default());
    line.apply(&[bad(1, 9.0, Status::Opcua(0x8034_0000))], &mut Derived::default());
    let expected = vec![(TagId(0), Watermark::Dated(t(1.0))), (TagId(1), Watermark::Dated(t(3.0)))];
    assert_eq!(line.told().collect::<Vec<_>>(), expected);
    let mut again = opcua_line();
    again.restore(&line.checkpoint()).expect("a checkpoint");
    assert_eq!(again.told().collect::<Vec<_>>(), expected);
    assert_eq!(Line::new(&config(oee(1.0), vec![])).told().count(), 0, "no other protocol has history");
}

/// A place in history is a time of the source: an instant of the gateway's would skip history, or have it told twice. A
/// value without one leaves word that it was heard, also over a restart.
#[test]
fn a_watermark_says_whose_time_it_is() {
    use Watermark::{Dated, Undated};
    let mut line = opcua_line();
    let good = |tag, at| Reading::good(TagId(tag), Value::Int(1), t(at), t(5.0));
    let told = |line: &Line| line.told().map(|(_, told)| told).collect::<Vec<_>>();
    line.apply(&[good(0, 2.0), good(1, 2.0), good(2, 2.0)], &mut Derived::default());
    line.apply(&[good(0, 1.0)], &mut Derived::default());
    assert_eq!(told(&line), [Dated(t(2.0)); 3], "late, and no step back");
    let doubt = Validity::Uncertain(Status::Own(OwnStatus::ClockSkew));
    line.apply(&[Reading { validity: doubt, ..good(1, 4.0) }, good(2, 5.0)], &mut Derived::default());
    line.apply(&[Reading::bad(TagId(2), Status::Own(OwnStatus::LinkLost), t(9.0), t(9.0))], &mut Derived::default());
    assert_eq!(told(&line), [Dated(t(2.0)), Undated(t(5.0)), Undated(t(5.0))]);
    let mut again = opcua_line();
    again.restore(&line.checkpoint()).expect("a checkpoint");
    assert_eq!(told(&again), told(&line));
    line.apply(&[good(1, 3.0)], &mut Derived::default());
    assert_eq!(told(&line)[1], Dated(t(3.0)), "it has a time again");
}

/// Silence that is told while history comes in counts from where history had come to.
#[test]
fn any_mark_of_ours_within_history_counts_from_where_it_had_come_to() {
    for mark in [OwnStatus::LinkLost, OwnStatus::AgentDown, OwnStatus::Stale, OwnStatus::NoAnswer] {
        let mut watched = Watched::new();
        watched.live(&(420.0, 0, 1));
        watched.lost(430.0, 431.0);
        watched.past(&[(420.0, 0, 1), (500.0, 0, 1)], 600.0, 10);
        watched.apply(&[Reading::bad(TagId(0), Status::Own(mark), t(601.0), t(601.2))]);
        watched.past(&[(500.0, 0, 1), (560.0, 0, 5), (590.0, 0, 1)], 602.0, 10);
        watched.live(&(605.0, 0, 1));
        let kpi = watched.line.snapshot(t(610.0), crate::snapshot::SpoolView::default()).stations.remove(0).kpi;
        assert_eq!(kpi.map(|kpi| (kpi.run_ns, kpi.unknown_ns)), Some((160_000_000_000, 0)), "{mark:?}");
    }
}

/// Killed in the middle of it: what comes next counts from where history had come to.
#[test]
fn history_that_a_restart_cuts_short_is_known_as_far_as_it_came() {
    let mut watched = Watched::new();
    watched.live(&(0.0, 0, 1));
    watched.lost(10.0, 11.0);
    watched.past(&[(0.0, 0, 1), (100.0, 0, 5)], 200.0, 10);
    let mut after = Watched::new();
    after.line.restore(&watched.line.checkpoint()).expect("a checkpoint");
    let marks: Vec<Reading> = after.line.unwatched(t(201.0), t(230.0)).collect();
    after.apply(&marks);
    let kpi = after.line.snapshot(t(240.0), crate::snapshot::SpoolView::default()).stations.remove(0).kpi;
    assert_eq!(kpi.map(|kpi| (kpi.run_ns, kpi.unknown_ns)), Some((100_000_000_000, 140_000_000_000)));
}

/// Several shifts may have closed in the gap: each gets its own.
#[test]
fn shifts_that_closed_in_the_gap_are_revised_once_a_batch() {
    let mut watched = Watched::new();
    for said in [(0.0, 0, 1), (0.0, 1, 0), (0.0, 2, 0)] {
        watched.live(&said);
    }
    watched.lost(600.0, 601.0);
    watched.ticks(610.0, 3_000.0);
    watched.past(
        &[(0.0, 0, 1), (0.0, 1, 0), (700.0, 1, 5), (800.0, 1, 8), (1_300.0, 1, 11), (2_500.0, 1, 12)],
        3_000.0,
        10,
    );
    let last: BTreeMap<_, _> =
        watched.derived.closed.iter().map(|(_, period)| (period.shift.to_string(), period.clone())).collect();
    let counted = |shift: &str| last[shift].view(&oee(1.0)).total;
    assert_eq!((counted("a"), counted("b")), (Some(8.0), Some(3.0)));
    assert_eq!((last["a"].revision, last["b"].revision), (1, 1), "for all that came together");
    assert!(last.values().all(|period| period.tally.unattributed == 0.0));
}

/// The page says what is: history of a time before what it shows changes neither value nor validity there, whatever gemba
/// said of the link since. What is newer than all that the device said lifts such a mark.
#[test]
fn history_from_before_what_is_shown_is_not_shown() {
    let mut watched = Watched::new();
    let text = |at, text: &str| Reading::good(TagId(1), Value::Text(text.into()), t(at), t(400.0));
    let shown = |watched: &mut Watched| {
        let tag =
            watched.line.snapshot(t(500.0), crate::snapshot::SpoolView::default()).stations.remove(0).tags.remove(1);
        (tag.value, tag.validity.word(), tag.source_time)
    };
    let now = (Value::Int(7), "good", Some(t(30.0)));
    let told = |value, at| Reading::good(TagId(1), Value::Int(value), t(at), t(400.0)).from_history();
    watched.live(&(30.0, 1, 7));
    watched.apply(&[told(5, 29.0)]);
    watched.apply(&[Reading::bad(TagId(1), Status::Opcua(0x808C_0000), t(29.5), t(400.0)).from_history()]);
    assert_eq!(shown(&mut watched), now);
    let records = watched.derived.records.len();
    watched.apply(&[text(29.8, "loading").from_history()]);
    assert!(
        matches!(&watched.derived.records[records..], [Record::TagChanged { from: None, .. }]),
        "told all the same"
    );
    assert_eq!(shown(&mut watched), now);

    for mark in [OwnStatus::LinkLost, OwnStatus::AgentDown, OwnStatus::Stale, OwnStatus::NoAnswer] {
        watched.apply(&[Reading::bad(TagId(1), Status::Own(mark), t(35.0), t(401.0))]);
        watched.apply(&[told(6, 29.9)]);
        assert_eq!(shown(&mut watched).1, "bad", "{mark:?}");
        watched.apply(&[told(7, 30.0)]);
        assert_eq!(shown(&mut watched), now, "the opening: {mark:?}");
    }
    // A node that the server did not know for a while was dated by nobody.
    watched.apply(&[Reading::bad(TagId(1), Status::Opcua(0x8034_0000), t(402.0), t(402.0))]);
    watched.apply(&[told(8, 31.0)]);
    assert_eq!(shown(&mut watched), (Value::Int(8), "good", Some(t(31.0))));
}
