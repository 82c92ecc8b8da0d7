//! Windows and explanations, against sums by hand and against the figures that they explain.

use std::time::Duration;

use gemba_drivers::{Loss, OwnStatus, Reading, Status, TagId, Time, Value};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use crate::config::Tag;
use crate::model::losses::Bucket;
use crate::model::tally::Tally;
use crate::model::tests::{config, oee, shift, t};
use crate::model::window::hours_between;
use crate::model::{
    ContextSpec, Derived, ExplainError, Explanation, Line, LossLine, MicroStops, OeeSpec, Product, Reason, ReasonSpec,
    Selector, Standing, State, Window, WindowKind,
};

const STATE: u32 = 0;
const TOTAL: u32 = 1;
const REJECT: u32 = 2;
const REASON: u32 = 3;
const PRODUCT: u32 = 4;
const LOT: u32 = 5;
const TAGS: u32 = 6;

/// A station that is told everything: two seconds a part, stops below a minute are micro-stops.
fn spec() -> OeeSpec {
    let tags = vec![(TagId(REASON), vec![("7".to_owned(), 0), ("8".to_owned(), 1)])];
    OeeSpec {
        micro_stops: Some(MicroStops { limit: Duration::from_secs(60), states: vec![State::Down, State::Starved] }),
        reason: Some(ReasonSpec { tags, first_out: Duration::from_secs(5) }),
        ..oee(2.0)
    }
}

/// A line and what it said.
struct Told {
    line: Line,
    derived: Derived,
}

impl Told {
    fn new() -> Self {
        let shifts = vec![
            shift("early", "06:00", "08:00", &[("07:00", "07:15")]),
            shift("late", "08:00", "09:10", &[("08:50", "08:55")]),
        ];
        let mut config = config(spec(), shifts);
        let named = |name: &str, ideal| Product {
            name: name.into(),
            ideal_cycle_time: vec![(Time(i64::MIN), Duration::from_secs(ideal))],
            ..Product::default()
        };
        config.knowledge.reasons = vec![
            Reason { code: "jam".into(), name: "Jam".into(), ..Reason::default() },
            Reason { code: "meal".into(), planned: true, bucket: Some(Bucket::NotPlanned), ..Reason::default() },
        ];
        config.knowledge.products = vec![named("1", 2), named("2", 3)];
        config.stations[0].tags = 0..TAGS;
        config.stations[0].context =
            ContextSpec { product: Some(TagId(PRODUCT)), lot: Some(TagId(LOT)), ..ContextSpec::default() };
        for (tag, name) in [(REASON, "reason"), (PRODUCT, "product"), (LOT, "lot")] {
            config.tags.push(Tag { id: TagId(tag), name: name.into(), ..config.tags[0].clone() });
        }
        Self { line: Line::new(&config), derived: Derived::default() }
    }

    fn put(&mut self, at: f64, tag: u32, value: i64) -> &mut Self {
        self.late(at, at, tag, value)
    }

    fn late(&mut self, source: f64, received: f64, tag: u32, value: i64) -> &mut Self {
        self.line.advance(t(received), &mut self.derived);
        let reading = Reading::good(TagId(tag), Value::Int(value), t(source), t(received));
        self.line.apply(&[reading], &mut self.derived);
        self
    }

    fn lose(&mut self, at: f64) -> &mut Self {
        let mark = |tag| Reading::bad(TagId(tag), Status::Own(OwnStatus::LinkLost), t(at), t(at));
        self.line.apply(&(0..TAGS).map(mark).collect::<Vec<_>>(), &mut self.derived);
        self
    }

    fn advance(&mut self, to: f64) -> &mut Self {
        self.line.advance(t(to), &mut self.derived);
        self
    }

    fn explain(&self, selector: &str, now: f64) -> Explanation {
        let selector = Selector::shift(selector).expect("a shift");
        self.line.explain(0, &selector, t(now)).expect("it is held")
    }

    fn refused(&self, selector: Result<Selector, crate::model::SelectorError>, now: f64) -> ExplainError {
        self.line.explain(0, &selector.expect("a selector"), t(now)).expect_err("nothing to explain")
    }

    fn windows(&self, kind: WindowKind, now: f64) -> Vec<Window> {
        self.line.windows(0, kind, t(now))
    }
}

/// Two hours: 600 s down by a jam, 30 s starved, a break of 900 s with 20 parts, 300 s unknown with 100 parts.
fn a_shift() -> Told {
    let mut told = Told::new();
    told.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    told.put(1200.0, TOTAL, 500).put(1200.0, REJECT, 10);
    told.put(1200.0, STATE, 5).put(1201.0, REASON, 7);
    told.put(1800.0, STATE, 1).put(1800.0, REASON, 0);
    told.put(2400.0, STATE, 2).put(2430.0, STATE, 1);
    told.put(3000.0, TOTAL, 1000).put(4000.0, TOTAL, 1020);
    let lost = Loss { source: "printer-1".into(), from: t(10.0), to: t(20.0), count: 3, reason: "not JSON".into() };
    let of_another = Loss { source: "aoi-1".into(), ..lost.clone() };
    let before = Loss { from: t(-20.0), to: t(-10.0), ..lost.clone() };
    for loss in [lost, of_another, before] {
        told.line.lose(loss, &mut told.derived);
    }
    told.lose(5000.0).put(5300.0, STATE, 1).put(5300.0, TOTAL, 1120).put(5300.0, REJECT, 10);
    told.put(7000.0, TOTAL, 1600).put(7000.0, REJECT, 30);
    told.advance(7203.0);
    told
}

#[test]
fn a_shift_by_hand() {
    let told = a_shift();
    let of = told.explain("today/early", 7203.0);
    assert_eq!((of.kind, &*of.name, of.closed, of.whole, of.revision), ("shift", "early", true, true, Some(0)));
    assert_eq!((of.from, of.to), (t(0.0), t(7200.0)));

    let second = 1_000_000_000;
    let fall = &of.waterfall;
    assert_eq!((fall.planned_ns, fall.run_ns, fall.unknown_ns), (6000 * second, 5400 * second, 300 * second));
    let lines = |lines: &[LossLine]| {
        lines
            .iter()
            .map(|of| (of.state, of.reason.clone(), of.micro, of.times, of.spent_ns / second))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&fall.availability), [(State::Down, Some("jam".into()), false, 1, 600)]);
    assert_eq!(lines(&fall.performance), [(State::Starved, None, true, 1, 30)]);
    assert_eq!(lines(&fall.not_planned), [(State::Break, None, false, 1, 900)]);
    // 500 + 500 + 480 parts of two seconds; of 1600 parts 30 were rejected.
    let (ideal, good) = (2960.0e9, 2960.0e9 * 1570.0 / 1600.0);
    assert_eq!((fall.ideal_ns, fall.good_ns), (Some(ideal), Some(good)));
    assert_eq!((fall.speed_ns, fall.quality_ns), (Some(5370.0e9 - ideal), Some(ideal - good)));
    assert_eq!(fall.lost_ns(), Some(600.0e9 + 30.0e9 + 2410.0e9 + 55.5e9));
    assert_eq!(fall.lost_ns(), Some(6000.0e9 - good));

    let figures: Vec<_> = of
        .figures
        .iter()
        .map(|figure| {
            let terms = figure.terms.as_ref().expect("both are known");
            (figure.name, terms.numerator.value, terms.denominator.value, figure.note)
        })
        .collect();
    assert_eq!(
        figures,
        [
            ("oee", 2904.5, 6000.0, None),
            ("availability", 5400.0, 6000.0, None),
            ("performance", 2960.0, 5400.0, None),
            ("quality", 1570.0, 1600.0, None),
            ("coverage", 6000.0, 6300.0, None),
        ]
    );

    let pieces: Vec<_> = of.pieces.iter().map(|piece| (piece.state, (piece.to.0 - piece.from.0) / second)).collect();
    assert_eq!(
        pieces,
        [
            (State::Producing, 1200),
            (State::Down, 600),
            (State::Producing, 600),
            (State::Starved, 30),
            (State::Producing, 1170),
            (State::Break, 900),
            (State::Producing, 500),
            (State::Unknown, 300),
            (State::Producing, 1900),
        ]
    );
    let counts: Vec<_> = of.counts.iter().map(|of| (of.count.word(), of.parts, of.standing)).collect();
    assert_eq!(
        counts,
        [
            ("total", 500.0, Standing::Counted),
            ("reject", 10.0, Standing::Beside),
            ("total", 500.0, Standing::Counted),
            ("total", 20.0, Standing::Unplanned),
            ("total", 100.0, Standing::Gap),
            ("total", 480.0, Standing::Counted),
            ("reject", 20.0, Standing::Beside),
        ]
    );
    let losses: Vec<_> = of.losses.iter().map(|loss| (loss.from, loss.count)).collect();
    assert_eq!(losses, [(t(10.0), 3)], "not of another station or another time");
}

#[test]
fn late_data_is_explained_with_its_revision() {
    let mut told = a_shift();
    told.late(7150.0, 7290.0, REJECT, 31);
    told.advance(7300.0);
    let of = told.explain("today/early", 7300.0);
    assert_eq!((of.revision, of.view.reject), (Some(1), Some(31.0)));
    assert_eq!(told.explain("current", 7300.0).name.as_ref(), "late", "the shift that runs");
    assert_eq!(told.explain("current", 12_000.0).name.as_ref(), "late", "the shift that ran last");
}

#[test]
fn an_hour_is_cut_at_the_edges_of_shifts() {
    let mut told = a_shift();
    told.put(8000.0, TOTAL, 1700).advance(11_500.0);
    let hours = told.windows(WindowKind::Hour, 11_500.0);
    let outline: Vec<_> = hours.iter().map(|of| (&*of.name, of.shift.as_deref(), of.view.total, of.closed)).collect();
    assert_eq!(
        outline,
        [
            ("2026-03-02 06:00", Some("early"), Some(1000.0), true),
            ("2026-03-02 07:00", Some("early"), Some(600.0), true),
            ("2026-03-02 08:00", Some("late"), Some(100.0), true),
            ("2026-03-02 09:00", Some("late"), Some(0.0), true),
        ]
    );
    assert_eq!((hours[3].from, hours[3].to), (t(10_800.0), t(11_400.0)));
    assert_eq!(hours[0].view.target, Some((3600.0 - 0.0) / 2.0), "target against actual");
    for (selector, place) in [("today/07:00", 1), ("2026-03-02/07:59", 1), ("2026-03-02T08:30:00Z", 2)] {
        let of = told.line.explain(0, &Selector::hour(selector).expect("an hour"), t(11_500.0)).expect("held");
        assert_eq!((&of.view, &of.name), (&hours[place].view, &hours[place].name), "{selector}");
    }
}

#[test]
fn lots_are_the_sum_of_their_runs_and_products_tell_how_they_were_changed_to() {
    let mut told = Told::new();
    told.put(0.0, PRODUCT, 1).put(0.0, LOT, 10).put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0);
    told.put(100.0, TOTAL, 10).put(600.0, TOTAL, 30);
    told.put(700.0, STATE, 5).put(700.0, PRODUCT, 2).put(700.0, LOT, 20).put(900.0, STATE, 1);
    told.put(1000.0, TOTAL, 34);
    told.put(1200.0, LOT, 10).put(1300.0, TOTAL, 40).advance(1500.0);

    let lots = told.windows(WindowKind::Lot, 1500.0);
    let outline: Vec<_> = lots.iter().map(|of| (&*of.name, of.from, of.to, of.view.total, of.closed)).collect();
    assert_eq!(outline, [("10", t(0.0), t(1500.0), Some(36.0), false), ("20", t(700.0), t(1200.0), Some(4.0), true)]);
    let of = told.line.explain(0, &Selector::Lot("10".to_owned()), t(1500.0)).expect("held");
    assert_eq!(of.view, lots[0].view);
    assert_eq!(of.pieces.iter().map(|piece| piece.to.0 - piece.from.0).sum::<i64>(), 1_000_000_000_000);

    let products = told.windows(WindowKind::Product, 1500.0);
    assert_eq!((products[0].changeovers.len(), products[1].changeovers.len()), (0, 1));
    let change = &products[1].changeovers[0];
    assert_eq!((&*change.before, &*change.after), ("1", "2"));
    assert_eq!((change.from, change.to, change.planned_ns), (t(600.0), Some(t(1000.0)), 400_000_000_000));
    // Four and six parts of three seconds in 600 s of run time.
    assert_eq!(products[1].view.figures.performance, Some(30.0 / 600.0));
}

#[test]
fn the_last_minutes_end_with_the_last_full_one() {
    let mut told = Told::new();
    told.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(590.0, TOTAL, 5).put(630.0, TOTAL, 6).put(670.0, TOTAL, 7);
    told.advance(700.0);
    let [last] = told.windows(WindowKind::Rolling(Duration::from_secs(120)), 700.0).try_into().expect("one");
    assert_eq!((last.from, last.to, last.view.total), (t(540.0), t(660.0), Some(6.0)));
    let [all] = told.windows(WindowKind::Rolling(crate::model::ROLLING), 700.0).try_into().expect("one");
    assert_eq!((all.from, all.view.total), (t(0.0), Some(6.0)), "from the first observation on");
    let [day] = told.windows(WindowKind::Day, 700.0).try_into().expect("one");
    assert_eq!((&*day.name, day.view.total, day.closed, day.whole), ("2026-03-02", Some(7.0), false, true));
}

#[test]
fn what_is_not_there_is_said() {
    let told = a_shift();
    let said = |selector, now| told.refused(selector, now).to_string();
    assert_eq!(
        said(Selector::shift("today/nihgt"), 7203.0),
        "no shift `nihgt` starts on 2026-03-02; `early`, `late` do"
    );
    assert_eq!(said(Selector::shift("today/late"), 7000.0), "that has not begun: it does at 2026-03-02T08:00:00Z");
    let first = "that was over when the station was first heard of, at 2026-03-02T06:00:00Z";
    assert_eq!(said(Selector::shift("yesterday/late"), 7203.0), first);
    assert_eq!(said(Selector::hour("2026-03-02/05:00"), 7203.0), first);
    assert_eq!(said(Ok(Selector::Lot("A".to_owned())), 7203.0), "no lot `A` is known; none is");
    assert_eq!(Told::new().refused(Ok(Selector::Current), 0.0), ExplainError::Unheard("printer-1".into()));
    for text in ["", "early", "tomorrow/early", "today/", "2026-02-30/early", "/early"] {
        let error = Selector::shift(text).expect_err(text).to_string();
        assert!(error.contains("today/early"), "{error}");
    }
    for text in ["", "06:00", "today/25:00", "today/", "2026-03-02", "tomorrow/06:00"] {
        let error = Selector::hour(text).expect_err(text).to_string();
        assert!(error.contains("today/06:00"), "{error}");
    }
    // However mad a date is, it is only not there.
    for text in ["9999-12-31/early", "0001-01-01/early"] {
        let error = told.refused(Selector::shift(text), 7203.0);
        assert!(matches!(error, ExplainError::NoSuchShift { .. } | ExplainError::NotYet(_) | ExplainError::Before(_)));
    }
    for text in ["9999-12-30T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-30/06:00", "0001-01-01/06:00"] {
        let error = told.refused(Selector::hour(text), 7203.0);
        assert!(matches!(error, ExplainError::NotYet(_) | ExplainError::Before(_)), "{text}: {error}");
    }
}

#[test]
fn edges_of_the_waterfall() {
    // Nothing ran, though parts were counted: OEE is 0, all planned time is lost.
    let mut told = Told::new();
    told.put(0.0, STATE, 5).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(100.0, TOTAL, 10).advance(200.0);
    let of = told.explain("current", 200.0);
    assert_eq!(
        (of.view.figures.oee, of.waterfall.good_ns, of.waterfall.lost_ns()),
        (Some(0.0), Some(0.0), Some(200.0e9))
    );
    assert_eq!(of.figures[2].note, Some("nothing ran"));
    // Faster than ideal: the speed loss is less than nothing.
    let mut told = Told::new();
    told.put(0.0, STATE, 1).put(0.0, TOTAL, 0).put(0.0, REJECT, 0).put(100.0, TOTAL, 60).advance(100.0);
    let of = told.explain("current", 100.0);
    assert_eq!((of.waterfall.speed_ns, of.waterfall.lost_ns()), (Some(-20.0e9), Some(-20.0e9)));
    assert!(of.figures[2].note.is_some_and(|note| note.starts_with("faster than ideal")));
}

#[test]
fn hours_follow_the_clock_on_the_wall() {
    let lengths = |zone: &str, from: &str, to: &str| -> Vec<i64> {
        let zone = TimeZone::get(zone).expect("bundled");
        let at = |text: &str| text.parse::<Time>().expect("an instant");
        let hours: Vec<_> = hours_between(&zone, at(from), at(to)).collect();
        assert!(hours.windows(2).all(|pair| pair[0].1 == pair[1].0), "{hours:?}");
        hours.iter().map(|(from, to)| (to.0 - from.0) / 60_000_000_000).collect()
    };
    // Berlin, the night in which the clock goes forward: 22:00 to 06:00 are seven hours; and nine when it goes back.
    assert_eq!(lengths("Europe/Berlin", "2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"), [60; 7]);
    assert_eq!(lengths("Europe/Berlin", "2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"), [60; 9]);
    // India is half an hour off, and shifts may begin within an hour.
    assert_eq!(lengths("Asia/Kolkata", "2026-03-28T00:30:00Z", "2026-03-28T02:45:00Z"), [60, 60, 15]);
    // Lord Howe turns its clock back by half an hour at two.
    assert_eq!(lengths("Australia/Lord_Howe", "2026-04-04T14:00:00Z", "2026-04-04T17:00:00Z"), [60, 30, 60, 30]);
}

type Said = (f64, u32, i64);

/// Readings of every kind; the tag beyond the last is the loss of the link.
fn stream() -> impl Strategy<Value = Vec<Said>> {
    let step = (1..240_u32, 0..=TAGS, 0..3_usize);
    prop::collection::vec(step, 10..120).prop_map(|steps| {
        let mut said: Vec<Said> = vec![(0.0, STATE, 1), (0.0, TOTAL, 0), (0.0, REJECT, 0), (0.0, PRODUCT, 1)];
        let (mut at, mut counts) = (0.0, [0, 0]);
        for (half_seconds, tag, choice) in steps {
            at += f64::from(half_seconds) / 2.0;
            let small = i64::try_from(choice).expect("small");
            let value = match tag {
                STATE => [1, 2, 5][choice],
                REASON => [0, 7, 8][choice],
                TOTAL | REJECT => {
                    let count = &mut counts[tag as usize - 1];
                    *count += if tag == TOTAL { 5 * small } else { small };
                    *count
                }
                _ => small,
            };
            said.push((at, tag, value));
        }
        said
    })
}

fn close(one: f64, other: f64, of: f64) -> bool {
    (one - other).abs() <= of.abs().max(1.0) * 1e-12
}

proptest! {
    /// Whatever is said: an explanation gives the figures that it explains, its pieces have no hole and do not overlap, its
    /// losses add up to planned time less good ideal time, and hours add up to their shift.
    #[test]
    fn everything_adds_up(said in stream(), late in 0_u32..200) {
        let mut told = Told::new();
        let mut end = 0.0;
        for (at, tag, value) in said {
            let received = at + f64::from(late % 7) * f64::from(tag);
            end = received.max(end);
            if tag == TAGS { told.lose(end); } else { told.late(at, end, tag, value); }
        }
        let now = end + f64::from(late);
        told.advance(now);
        let hours = told.windows(WindowKind::Hour, now);
        for of in told.line.periods(t(now)) {
            let period = of.period;
            let (spec, view) = (spec(), period.view(&spec()));
            let chosen = Selector::shift(&format!("2026-03-02/{}", period.shift)).expect("a shift");
            let explained = told.line.explain(0, &chosen, t(now)).expect("held");
            prop_assert_eq!(&explained.view, &view);
            prop_assert_eq!(explained.revision, Some(period.revision));
            prop_assert!(explained.from == period.from && explained.to == period.to.min(t(now)));

            let edges: Vec<Time> = explained.pieces.iter().map(|piece| piece.from).chain([explained.to]).collect();
            prop_assert_eq!(edges[0], explained.from);
            prop_assert!(explained.pieces.iter().zip(&edges[1..]).all(|(piece, &next)| piece.from < piece.to && piece.to == next));

            let fall = &explained.waterfall;
            prop_assert_eq!((fall.planned_ns, fall.run_ns, fall.unknown_ns), (view.planned_ns, view.run_ns, view.unknown_ns));
            let stops: i64 = fall.availability.iter().map(|line| line.spent_ns).sum();
            prop_assert_eq!(stops, fall.planned_ns - fall.run_ns);
            #[expect(clippy::cast_precision_loss, reason = "a few hours")]
            let planned = fall.planned_ns as f64;
            let (lost, good) = (fall.lost_ns().expect("ideal"), fall.good_ns.expect("ideal"));
            prop_assert!(close(lost, planned - good, planned), "{} {} {}", lost, planned, good);
            if let Some(oee) = view.figures.oee {
                prop_assert!(close(oee * planned, good, planned), "{} {} {}", oee, planned, good);
            }
            for figure in &explained.figures {
                if let (Some(value), Some(of)) = (figure.value, &figure.terms) {
                    prop_assert!(close(value, of.numerator.value / of.denominator.value, 1.0), "{:?}", figure);
                }
            }
            let parts = |standing| explained.counts.iter().filter(move |of| of.standing == standing).map(|of| of.parts).sum::<f64>();
            prop_assert_eq!(view.unattributed, parts(Standing::Gap) + parts(Standing::Unseen));

            let mut sum = Tally::default();
            let of_it = |hour: &&Window| hour.shift.as_ref() == Some(&period.shift);
            hours.iter().filter(of_it).for_each(|hour| sum.add(&hour.tally));
            for state in State::ALL {
                prop_assert_eq!(sum.state(state), period.tally.state(state), "{}", state);
            }
            for bucket in Bucket::ALL {
                prop_assert_eq!(sum.bucket(bucket), period.tally.bucket(bucket), "{:?}", bucket);
            }
            prop_assert_eq!(&sum.counts, &period.tally.counts);
            prop_assert_eq!(sum.ideal_ns(&spec), period.tally.ideal_ns(&spec));
            prop_assert_eq!((sum.unattributed, sum.repairs), (period.tally.unattributed, period.tally.repairs));
            let sorted = |tally: &Tally| { let mut all = tally.reasons().to_vec(); all.sort(); all };
            prop_assert_eq!(sorted(&sum), sorted(&period.tally));
        }
    }
}
