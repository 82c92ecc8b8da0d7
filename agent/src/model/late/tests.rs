//! Two later stations, one by serial and one by lot: what they reject counts where it was made, whatever the order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Loss, Reading, TagId, Time, Value};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::config::{Config, Station, Tag};
use crate::model::inspection::{
    BaselineSpec, DefectSpec, Finding, InspectionSpec, ReviewSpec, Trigger, Verdict, Words,
};
use crate::model::tests::{config, oee, shift, t};
use crate::model::{Change, ContextSpec, CounterSpec, Derived, Entry, LATENESS, Line, Period, What};

const STATE: u32 = 0;
const TOTAL: u32 = 1;
/// Of the maker.
const BOARD: u32 = 3;
const LOT: u32 = 4;
/// Of the inspection.
const SEEN: u32 = 5;
const RESULT: u32 = 6;
const DEFECTS: u32 = 7;
const FINDING: u32 = 8;
/// Of the tester.
const TESTED: u32 = 9;
const BAD: u32 = 10;

const WITHIN: Duration = Duration::from_secs(2 * 3600);

fn a_config() -> Config {
    let late = |from, station: &str, by| LateSpec { from, station: station.into(), by, within: WITHIN };
    let asks = vec![late(1, "aoi-1", LateBy::Serial), late(2, "ict-1", LateBy::Lot)];
    let shifts = [("a", "06:00", "06:20"), ("b", "06:20", "06:40"), ("c", "06:40", "09:00")]
        .map(|(name, from, to)| shift(name, from, to, &[]));
    let mut config = config(OeeSpec { late: asks, ..oee(10.0) }, shifts.into());
    let (station, tag) = (config.stations[0].clone(), config.tags[0].clone());
    let of = |name: &str, tags, oee, context, inspection| Station {
        name: name.into(),
        tags,
        oee,
        context,
        inspection,
        ..station.clone()
    };
    let inspection = InspectionSpec {
        trigger: Trigger::Message,
        settle: Duration::from_millis(300),
        verdict: Some(Words {
            tag: TagId(RESULT),
            map: vec![("1".into(), Verdict::Pass), ("2".into(), Verdict::Fail)],
        }),
        id: None,
        score: None,
        defects: Some(DefectSpec { tag: TagId(DEFECTS), separator: ',', codes: Vec::new() }),
        queue: None,
        latency: None,
        model: None,
        review: Some(ReviewSpec {
            finding: Words {
                tag: TagId(FINDING),
                map: vec![("1".into(), Finding::Confirmed), ("2".into(), Finding::Overturned)],
            },
            id: None,
            remember: 100,
        }),
        product: None,
        products: Vec::new(),
        opportunities: None,
        baseline: BaselineSpec::Learnt(200),
    };
    let tests = OeeSpec { reject: Some(CounterSpec::of(TagId(BAD))), ..OeeSpec::default() };
    let serial = |tag| ContextSpec { serial: Some(TagId(tag)), ..ContextSpec::default() };
    let lot = |tag| ContextSpec { lot: Some(TagId(tag)), ..ContextSpec::default() };
    config.stations = vec![
        Station { tags: 0..SEEN, context: ContextSpec { lot: Some(TagId(LOT)), ..serial(BOARD) }, ..station.clone() },
        of("aoi-1", SEEN..TESTED, None, serial(SEEN), Some(inspection)),
        of("ict-1", TESTED..BAD + 1, Some(tests), lot(TESTED), None),
    ];
    let names =
        [(0, "board"), (0, "lot"), (1, "board"), (1, "result"), (1, "defects"), (1, "review"), (2, "lot"), (2, "bad")];
    config.tags.extend((BOARD..).zip(names).map(|(id, (station, name))| Tag {
        id: TagId(id),
        station,
        name: name.into(),
        ..tag.clone()
    }));
    config
}

/// A board: when it comes after the one before, is counted, and what is said of it when.
#[derive(Clone, Debug)]
struct Board {
    after: i64,
    cycle: i64,
    /// It carries no serial that can be read.
    unread: bool,
    next_lot: bool,
    /// So long after it was counted, whether it fails, and which code; several times.
    seen: Vec<(i64, bool, i64)>,
    /// People overturn what the inspection says.
    overturned: bool,
    /// So long after, so many of its lot.
    tested: Option<(i64, i64)>,
}

fn boards() -> impl Strategy<Value = Vec<Board>> {
    let seen = prop::collection::vec((2_000..90_000_i64, any::<bool>(), 0..3_i64), 0..3);
    let tested = prop::option::weighted(0.2, (5_000..3_000_000_i64, 1..4_i64));
    let board = (
        1_500..40_000_i64,
        500..1_400_i64,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.15),
        seen,
        any::<bool>(),
        tested,
    );
    let board = board.prop_map(|(after, cycle, unread, next_lot, seen, overturned, tested)| Board {
        after,
        cycle,
        unread,
        next_lot,
        seen,
        overturned,
        tested,
    });
    prop::collection::vec(board, 10..90)
}

/// What the stations say of them, at whose source times, in order.
fn said(boards: &[Board]) -> Vec<(i64, u32, i64)> {
    let mut said = vec![(0, STATE, 1), (0, TOTAL, 0), (0, BAD, 0)];
    let (mut now, mut lot) = (0, 100);
    let mut tested = Vec::new();
    for (serial, board) in (1..).zip(boards) {
        now += board.after;
        lot += i64::from(board.next_lot);
        said.extend([(now, LOT, lot), (now, BOARD, if board.unread { 0 } else { serial })]);
        let made = now + board.cycle;
        said.push((made, TOTAL, serial));
        for &(after, fails, code) in &board.seen {
            let at = made + after;
            said.extend([(at, SEEN, serial), (at, DEFECTS, code), (at, RESULT, if fails { 2 } else { 1 })]);
            if board.overturned {
                said.push((at + 700, FINDING, 2));
            }
        }
        tested.extend(board.tested.map(|(after, bad)| (made + after, lot, bad)));
    }
    tested.sort_unstable();
    let mut bad = 0;
    for (at, lot, more) in tested {
        bad += more;
        said.extend([(at, TESTED, lot), (at, BAD, bad)]);
    }
    said.sort_by_key(|(at, ..)| *at); // stable: what belongs together stays together
    said
}

fn reading((source, tag, value): (i64, u32, i64), received: i64) -> Reading {
    let millis = |at: i64| Time(t(0.0).0 + at * 1_000_000);
    Reading::good(TagId(tag), Value::Int(value), millis(source), millis(received))
}

/// How many parts of which code.
type Codes = Vec<(Arc<str>, f64)>;

/// A line, and what it told.
struct Watched {
    line: Line,
    derived: Derived,
}

impl Watched {
    fn new() -> Self {
        Self { line: Line::new(&a_config()), derived: Derived::default() }
    }

    fn take(&mut self, readings: &[Reading]) {
        self.line.apply(readings, &mut self.derived);
    }

    fn told(readings: &[Reading]) -> Self {
        let mut watched = Self::new();
        readings.chunk_by(|one, other| one.received_time == other.received_time).for_each(|told| watched.take(told));
        watched
    }

    /// Each period of the maker as it stands at last, with its revision.
    fn periods(&mut self, end: Time) -> BTreeMap<Time, Period> {
        self.line.advance(end + LATENESS, &mut self.derived);
        let closed = self.derived.closed.iter().filter(|(station, _)| **station == *"printer-1");
        let closed = closed.map(|(_, period)| period.clone());
        let held = self.line.periods(end).into_iter().filter(|of| of.station == 0).map(|of| of.period);
        closed.chain(held).map(|period| (period.from, period)).collect()
    }

    fn rejects(&mut self, end: Time) -> Vec<(Arc<str>, Codes)> {
        let of = |period: Period| {
            let mut codes: Vec<_> = period.tally.defects_by_code().map(|(code, parts)| (code.clone(), parts)).collect();
            codes.sort_by(|one, other| one.0.cmp(&other.0));
            (period.shift, codes)
        };
        self.periods(end).into_values().map(of).collect()
    }
}

fn live(said: &[(i64, u32, i64)]) -> Vec<Reading> {
    said.iter().map(|&of| reading(of, of.0)).collect()
}

fn end(readings: &[Reading]) -> Time {
    readings.iter().map(|reading| reading.received_time).max().expect("some") + Duration::from_secs(60)
}

fn losses(derived: &Derived) -> Vec<Loss> {
    let loss = |record: &crate::record::Record| match record {
        crate::record::Record::Loss { loss, .. } => Some(loss.clone()),
        _ => None,
    };
    derived.records.iter().filter_map(loss).collect()
}

/// By hand: no stays, no join. Each board counts once, by the first that rejected it; a test by the last part of its lot.
fn expected(boards: &[Board]) -> BTreeMap<i64, f64> {
    let mut made = BTreeMap::new();
    let (mut now, mut lot) = (0, 100);
    let mut lots: Vec<(i64, i64)> = Vec::new();
    let mut tests = Vec::new();
    for board in boards {
        now += board.after;
        lot += i64::from(board.next_lot);
        let at = now + board.cycle;
        lots.push((lot, at));
        if board.seen.iter().any(|&(_, fails, _)| fails) && !board.unread {
            *made.entry(at).or_default() += 1.0;
        }
        tests.extend(board.tested.map(|(after, bad)| (lot, at + after, bad)));
    }
    for (lot, at, bad) in tests {
        let last = lots.iter().filter(|(of, made)| *of == lot && *made <= at).map(|(_, made)| *made).max();
        let last = last.expect("a board was made of it");
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let bad = bad as f64;
        *made.entry(last).or_default() += bad;
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_reject_counts_in_the_shift_that_made_it(mut boards in boards()) {
        boards.iter_mut().for_each(|board| board.overturned = false);
        let readings = live(&said(&boards));
        let end = end(&readings);
        let expected = expected(&boards);
        for period in Watched::told(&readings).periods(end).values() {
            let made = |at: i64| Time(t(0.0).0 + at * 1_000_000);
            let within = expected.iter().filter(|(at, _)| period.from <= made(**at) && made(**at) < period.to);
            let rejects = period.view(a_config().stations[0].oee.as_ref().expect("oee")).reject;
            prop_assert_eq!(rejects, Some(within.map(|(_, parts)| parts).sum()), "{:?}", period);
        }
    }

    #[test]
    fn batches_do_not_matter(boards in boards(), cuts in prop::collection::vec(any::<Index>(), 0..20)) {
        let readings = live(&said(&boards));
        let end = end(&readings);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(readings.len() + 1)).chain([0, readings.len()]).collect();
        cuts.sort_unstable();
        let (mut one_by_one, mut batches) = (Watched::new(), Watched::new());
        readings.iter().for_each(|reading| one_by_one.take(std::slice::from_ref(reading)));
        cuts.windows(2).for_each(|cut| batches.take(&readings[cut[0]..cut[1]]));
        prop_assert_eq!(one_by_one.periods(end), batches.periods(end));
    }

    /// By less than the lateness, of which tag ever.
    #[test]
    fn the_order_of_arrival_does_not_matter(boards in boards(), delays in prop::collection::vec((0..2_000_i64, 0..2_000_i64), 11)) {
        let said = said(&boards);
        let delayed = |delay: fn(&(i64, i64)) -> i64| {
            let late = |&of: &(i64, u32, i64)| reading(of, of.0 + delay(&delays[of.1 as usize]));
            let mut readings: Vec<Reading> = said.iter().map(late).collect();
            readings.sort_by_key(|reading| reading.received_time);
            readings
        };
        let (one, other) = (delayed(|of| of.0), delayed(|of| of.1));
        let end = end(&one).max(end(&other));
        prop_assert_eq!(Watched::told(&one).periods(end), Watched::told(&other).periods(end));
    }

    /// One station is heard much later than the others: how often shifts were revised differs, and nothing else.
    #[test]
    fn nor_does_it_matter_who_is_heard_hours_later(boards in boards(), which in 0..3_usize, delay in 10_000..3_600_000_i64) {
        let said = said(&boards);
        let tags = [0..SEEN, SEEN..TESTED, TESTED..BAD + 1][which].clone();
        let late = |&of: &(i64, u32, i64)| reading(of, of.0 + if of.0 > 0 && tags.contains(&of.1) { delay } else { 0 });
        let mut late: Vec<Reading> = said.iter().map(late).collect();
        late.sort_by_key(|reading| reading.received_time);
        let end = end(&late);
        prop_assert_eq!(Watched::told(&live(&said)).rejects(end), Watched::told(&late).rejects(end));
    }

    #[test]
    fn ticks_do_not_matter(boards in boards(), every in 300..20_000_i64) {
        let readings = live(&said(&boards));
        let end = end(&readings);
        let mut ticking = Watched::new();
        let mut tick = readings[0].received_time;
        for told in readings.chunk_by(|one, other| one.received_time == other.received_time) {
            while tick < told[0].received_time {
                ticking.line.advance(tick, &mut ticking.derived);
                tick = Time(tick.0 + every * 1_000_000);
            }
            ticking.take(told);
        }
        prop_assert_eq!(ticking.periods(end), Watched::told(&readings).periods(end));
    }

    #[test]
    fn a_kill_leaves_no_trace(boards in boards(), kills in prop::collection::vec(any::<Index>(), 1..6)) {
        let readings = live(&said(&boards));
        let end = end(&readings);
        let mut undisturbed = Watched::new();
        let mut killed = Watched::new();
        for (place, reading) in readings.iter().enumerate() {
            if kills.iter().any(|kill| kill.index(readings.len()) == place) {
                let bytes = killed.line.checkpoint();
                killed.line = Line::new(&a_config());
                killed.line.restore(&bytes).expect("a checkpoint");
            }
            killed.take(std::slice::from_ref(reading));
            undisturbed.take(std::slice::from_ref(reading));
        }
        prop_assert!(killed.line.checkpoint() == undisturbed.line.checkpoint());
        prop_assert_eq!(killed.periods(end), undisturbed.periods(end));
    }
}

/// A board each ten seconds from 06:00 on, the last of `lot`.
fn printed(boards: i64) -> Vec<(i64, u32, i64)> {
    let board = |serial: i64| {
        [(serial * 10_000, LOT, 100), (serial * 10_000, BOARD, serial), (serial * 10_000 + 5_000, TOTAL, serial)]
    };
    [(0, STATE, 1), (0, TOTAL, 0), (0, BAD, 0)].into_iter().chain((1..=boards).flat_map(board)).collect()
}

#[test]
fn a_lot_that_somebody_moves_takes_its_rejects_along() {
    let mut said = printed(130);
    said.extend([(1_400_000, TESTED, 7), (1_400_000, BAD, 3), (1_500_000, TESTED, 7)]);
    let mut watched = Watched::told(&live(&said));
    let rejects = |watched: &mut Watched| {
        watched
            .rejects(t(1_600.0))
            .into_iter()
            .map(|(_, codes)| codes.iter().map(|of| of.1).sum())
            .collect::<Vec<f64>>()
    };
    assert_eq!(rejects(&mut watched), [0.0, 0.0], "nobody made lot 7");
    let lot = |at: f64, lot: Change| Entry {
        entered: t(1_602.0),
        by: None,
        station: "printer-1".into(),
        what: What::Work { at: t(at), product: Change::Left, lot, order: Change::Left },
    };
    for entry in [lot(1_080.0, Change::Set("7".into())), lot(1_140.0, Change::Set("100".into()))] {
        watched.line.enter(entry, &mut watched.derived).expect("taken");
    }
    watched.line.advance(t(1_605.0), &mut watched.derived);
    assert_eq!(rejects(&mut watched), [3.0, 0.0]);
}

#[test]
fn people_have_the_last_word_on_what_an_inspection_says() {
    let mut said = printed(20);
    let seen = |at: i64, board, result| [(at, SEEN, board), (at, DEFECTS, 17), (at, RESULT, result)];
    said.extend(seen(220_000, 5, 2));
    said.extend(seen(230_000, 6, 2));
    said.extend(seen(240_000, 7, 1));
    let rejects = |said: &[(i64, u32, i64)]| Watched::told(&live(said)).rejects(t(300.0)).remove(0).1;
    let codes = |codes: &[(&str, f64)]| codes.iter().map(|&(code, parts)| (code.into(), parts)).collect::<Codes>();
    assert_eq!(rejects(&said), codes(&[("17", 2.0)]));
    said.push((250_000, FINDING, 2));
    assert_eq!(rejects(&said), codes(&[("17", 2.0), ("unspecified", 1.0)]), "an escape");
    said.insert(said.len() - 7, (221_000, FINDING, 2));
    assert_eq!(rejects(&said), codes(&[("17", 1.0), ("unspecified", 1.0)]), "and a false call");
    said.push((260_000, FINDING, 1));
    assert_eq!(rejects(&said), codes(&[("17", 1.0)]), "it was none");
}

#[test]
fn what_has_no_unit_is_a_loss_when_it_has_waited_long_enough() {
    let mut said = printed(20);
    said.extend([(210_000, SEEN, 99), (210_000, RESULT, 2), (220_000, SEEN, 0), (220_000, RESULT, 2)]);
    said.extend([(230_000, SEEN, 5), (230_000, RESULT, 1)]);
    let mut watched = Watched::told(&live(&said));
    watched.line.advance(t(300.0), &mut watched.derived);
    let reason: Arc<str> = "late reject at aoi-1 without its unit".into();
    let lost = |at| Loss { source: "printer-1".into(), from: t(at), to: t(at), count: 1, reason: reason.clone() };
    assert_eq!(losses(&watched.derived), [lost(220.0)], "whose it was nobody will tell");
    watched.line.advance(t(210.0) + WITHIN + LATENESS, &mut watched.derived);
    assert_eq!(losses(&watched.derived).len(), 1);
    watched.line.advance(t(210.1) + WITHIN + LATENESS, &mut watched.derived);
    assert_eq!(losses(&watched.derived), [lost(220.0), lost(210.0)]);
}

fn rejected(at: i64, unit: &str) -> Rejected {
    Rejected {
        at: Time(at),
        turn: Time(at),
        station: "aoi-1".into(),
        by: LateBy::Serial,
        unit: Unit::of(unit),
        since: Time(at),
        code: "bridge".into(),
        parts: 1.0,
        back: false,
    }
}

#[test]
fn what_is_held_is_bounded_and_what_is_let_go_of_is_counted() {
    let spec = a_config().stations[0].oee.clone().expect("oee");
    let name: Arc<str> = "printer-1".into();
    let mut late = Late::default();
    let comes = |late: &mut Late, at: i64| {
        late.tell(&Reading::good(TagId(BOARD), Value::Text(format!("SN{at}").into()), Time(at), Time(at)));
    };
    assert_eq!(late.reject(&name, rejected(3, "SN1")), None);
    let mut facts = Timeline::default();
    let most = i64::try_from(MOST_UNITS).expect("small");
    (0..most).for_each(|at| comes(&mut late, at));
    late.join(&mut facts, &spec);
    assert_eq!(late.trim(&name, &spec, Time(most)), None);
    comes(&mut late, most);
    let loss = late.trim(&name, &spec, Time(most)).expect("they were let go of early");
    assert_eq!((loss.count, loss.from, loss.to), (1001, Time(0), Time(1001)));
    assert_eq!(late.stays.len(), MOST_UNITS - MOST_UNITS / 10);
    late.changed = true;
    assert_eq!(late.join(&mut facts, &spec), None, "what was rejected stays as it was");
    let full = (1..=most).map(|at| late.reject(&name, rejected(at, &format!("SN{at}")))).collect::<Vec<_>>();
    assert_eq!(full.iter().flatten().count(), 1);
    let reason = "late reject at aoi-1: 10000 are held already";
    assert_eq!(full.last().and_then(|loss| loss.as_ref()).map(|loss| &*loss.reason), Some(reason));
}

/// What a counter tells of a panel while it is there is one reject of several parts; another look at it is no other reject.
#[test]
fn what_a_counter_tells_of_one_unit_adds_up() {
    let spec = a_config().stations[0].oee.clone().expect("oee");
    let name: Arc<str> = "printer-1".into();
    let mut late = Late::default();
    late.tell(&Reading::good(TagId(BOARD), Value::Text("SN1".into()), Time(1), Time(1)));
    for (at, since) in [(10, 9), (12, 9), (20, 19)] {
        late.reject(&name, Rejected { since: Time(since), ..rejected(at, "SN1") });
    }
    let mut facts = Timeline::default();
    assert_eq!(late.join(&mut facts, &spec), Some(Time(10)));
    let expected = LateReject { at: Time(10), station: "aoi-1".into(), code: "bridge".into(), parts: 2.0 };
    assert_eq!(facts.facts().late(Time(0), Time(99)), [expected]);
}

/// The next inspection has begun when it is told who was there: nobody knows of the first, whatever is settled together.
#[test]
fn whose_a_reject_is_does_not_depend_on_batches() {
    let mut config = a_config();
    let inspection = config.stations[1].inspection.as_mut().expect("it inspects");
    (inspection.settle, inspection.review) = (Duration::from_secs(5), None);
    let said = [
        (0, STATE, 1),
        (0, TOTAL, 0),
        (1_000, BOARD, 1),
        (2_000, TOTAL, 1),
        (10_000, RESULT, 2),
        (10_500, RESULT, 1),
        (11_000, SEEN, 1),
        (12_600, STATE, 1),
        (40_000, STATE, 1),
    ];
    let readings = live(&said);
    let told = |batches: usize| {
        let mut watched = Watched { line: Line::new(&config), derived: Derived::default() };
        readings.chunks(batches).for_each(|batch| watched.take(batch));
        let rejects = watched.rejects(end(&readings));
        (rejects, losses(&watched.derived))
    };
    let (rejects, lost) = told(1);
    assert_eq!((rejects.clone(), lost.clone()), told(readings.len()));
    assert!(rejects.iter().all(|(_, codes)| codes.is_empty()), "{rejects:?}");
    assert_eq!(lost.iter().map(|loss| &*loss.reason).collect::<Vec<_>>(), ["late reject at aoi-1 without its unit"]);
}
