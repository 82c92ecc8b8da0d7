//! An inspection station, from readings to figures.

mod drift;
mod properties;
mod reviews;

use std::time::Duration;

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Value};

use super::*;
use crate::model::CounterSpec;
use crate::model::quality::Ratio;
use crate::record::CycleHistogram;

const HOUR: Duration = Duration::from_secs(3600);

const COUNT: TagId = TagId(0);
const VERDICT: TagId = TagId(1);
const ID: TagId = TagId(2);
const SCORE: TagId = TagId(3);
const DEFECT: TagId = TagId(4);
const QUEUE: TagId = TagId(5);
const LATENCY: TagId = TagId(6);
const MODEL: TagId = TagId(7);
const FINDING: TagId = TagId(8);
const REVIEWED: TagId = TagId(9);

fn words<W: Copy>(tag: TagId, map: &[(&str, W)]) -> Words<W> {
    Words { tag, map: map.iter().map(|(text, word)| ((*text).to_owned(), *word)).collect() }
}

fn spec(trigger: Trigger) -> InspectionSpec {
    let findings = Finding::ALL.map(|finding| (finding.word(), finding));
    InspectionSpec {
        trigger,
        settle: Duration::ZERO,
        verdict: Some(words(VERDICT, &[("OK", Verdict::Pass), ("NG", Verdict::Fail), ("?", Verdict::Review)])),
        id: Some(ID),
        score: Some(ScoreSpec { tag: SCORE, edges: vec![0.0, 0.5, 1.0] }),
        defects: Some(DefectSpec { tag: DEFECT, separator: ',', codes: vec![("17".to_owned(), "bridge".into())] }),
        queue: Some(QUEUE),
        latency: Some(LatencySpec { tag: LATENCY, unit_ns: 1_000_000 }),
        model: Some(MODEL),
        review: Some(ReviewSpec { finding: words(FINDING, &findings), id: Some(REVIEWED), remember: 100 }),
        baseline: BaselineSpec::Learnt(4),
        product: None,
        products: Vec::new(),
        opportunities: None,
    }
}

fn counted() -> InspectionSpec {
    spec(Trigger::Count(CounterSpec::of(COUNT)))
}

fn messages() -> InspectionSpec {
    spec(Trigger::Message)
}

/// Without a tag for it.
fn without(mut spec: InspectionSpec, tag: TagId) -> InspectionSpec {
    match tag {
        ID => spec.id = None,
        MODEL => spec.model = None,
        REVIEWED => spec.review.as_mut().expect("it is reviewed").id = None,
        other => panic!("{other:?}"),
    }
    spec
}

fn at(ms: i64) -> Time {
    Time::from_millis(ms)
}

fn text(tag: TagId, text: &str, ms: i64) -> Reading {
    Reading::good(tag, Value::Text(text.into()), at(ms), at(ms))
}

fn number(tag: TagId, number: f64, ms: i64) -> Reading {
    Reading::good(tag, Value::Float(number), at(ms), at(ms))
}

fn bad(tag: TagId, ms: i64) -> Reading {
    Reading::bad(tag, Status::Own(OwnStatus::LinkLost), at(ms), at(ms))
}

/// A station and all that it ever told.
struct Bench {
    spec: InspectionSpec,
    inspection: Inspection,
    news: News,
}

impl Bench {
    fn new(spec: InspectionSpec) -> Self {
        Self { spec, inspection: Inspection::default(), news: News::default() }
    }

    fn told(spec: InspectionSpec, readings: &[Reading]) -> Self {
        let mut bench = Self::new(spec);
        readings.iter().for_each(|reading| bench.read(reading));
        bench.end();
        bench
    }

    fn read(&mut self, reading: &Reading) {
        let role = self.spec.role(reading.tag).expect("the tag tells something");
        self.inspection.observe(&self.spec, role, reading, &mut self.news);
    }

    fn end(&mut self) {
        self.inspection.settle(&self.spec, Time(i64::MAX), &mut self.news);
    }

    fn sum(&self) -> InspectionTally {
        sum(&self.news.tallies)
    }

    fn figures(&self) -> InspectionFigures {
        self.inspection.figures(&self.spec, &self.sum(), HOUR)
    }

    /// The millisecond and the verdicts of each inspection.
    fn inspections(&self) -> Vec<(i64, u64, [u64; 3])> {
        let counted = self.news.tallies.iter().filter(|(_, tally)| tally.inspections > 0);
        counted
            .map(|(at, tally)| (at.0 / 1_000_000, tally.inspections, [tally.pass, tally.fail, tally.review]))
            .collect()
    }
}

fn sum(tallies: &[(Time, InspectionTally)]) -> InspectionTally {
    let mut sum = InspectionTally::default();
    tallies.iter().for_each(|(_, tally)| sum.add(tally));
    sum
}

const PASS: [u64; 3] = [1, 0, 0];
const FAIL: [u64; 3] = [0, 1, 0];
const UNKNOWN: [u64; 3] = [0, 0, 0];

#[test]
fn a_counter_that_moves_is_an_inspection_with_what_is_known_then() {
    let bench = Bench::told(
        counted(),
        &[
            number(COUNT, 100.0, 0),
            text(VERDICT, "OK", 900),
            number(COUNT, 101.0, 1000),
            number(COUNT, 101.0, 1500), // polled, nothing new
            number(COUNT, 102.0, 2000), // the same verdict, which is told once
            number(COUNT, 105.0, 3000),
            text(VERDICT, "NG", 3000), // of the same instant, after the counter
            bad(VERDICT, 3500),
            number(COUNT, 106.0, 4000),
            text(VERDICT, "sleeping", 4500),
            number(COUNT, 2.0, 5000), // a reset
        ],
    );
    assert_eq!(
        bench.inspections(),
        [(1000, 1, PASS), (2000, 1, PASS), (3000, 3, FAIL), (4000, 1, UNKNOWN), (5000, 2, UNKNOWN)]
    );
    let sum = bench.sum();
    assert_eq!((sum.inspections, sum.seen, sum.judged()), (8, 5, 3));
    let figures = bench.figures();
    assert_eq!((figures.per_hour, figures.passed), (Some(8.0), Ratio::of(2.0, 3.0)));
}

#[test]
fn a_counter_that_jumps_too_far_is_quarantined() {
    let limited = Trigger::Count(CounterSpec { max_rate: Some(2.0), ..CounterSpec::of(COUNT) });
    let bench =
        Bench::told(spec(limited), &[number(COUNT, 5.0, 0), number(COUNT, 5000.0, 1000), number(COUNT, 5001.0, 2000)]);
    assert_eq!(bench.news.quarantined, [Quarantined { from: at(0), to: at(1000) }]);
    assert_eq!(bench.inspections(), [(2000, 1, UNKNOWN)]);
}

#[test]
fn another_id_is_an_inspection_and_the_first_one_was_there_before() {
    let bench = Bench::told(
        spec(Trigger::Id),
        &[
            text(ID, "A", 0),
            text(VERDICT, "NG", 0),
            text(ID, "B", 1000),
            text(VERDICT, "OK", 1000),
            text(ID, "B", 1500),
            bad(ID, 1600),
            text(ID, "B", 1700), // it never left
            text(ID, "", 1800),
            text(ID, "B", 1900), // it came back
            number(ID, 17.0, 2000),
            number(ID, 18.0, 2000), // two in one instant
        ],
    );
    assert_eq!(bench.inspections(), [(1000, 1, PASS), (1900, 1, PASS), (2000, 1, PASS), (2000, 1, PASS)]);
    assert_eq!(bench.figures().first_pass_yield, Ratio::of(3.0, 3.0), "B again is no first attempt");
}

#[test]
fn each_message_is_an_inspection_with_nothing_of_the_one_before() {
    let bench = Bench::told(
        without(messages(), MODEL),
        &[
            number(SCORE, 0.25, 0),
            text(VERDICT, "NG", 0),
            text(DEFECT, "17,  open ", 0),
            text(VERDICT, "OK", 1000), // says no score
            text(VERDICT, "OK", 2000),
            number(SCORE, 0.75, 2000),
            // Two rows of one message.
            number(SCORE, 0.5, 3000),
            text(VERDICT, "NG", 3000),
            text(DEFECT, "[\"open\"]", 3000),
            number(SCORE, 1.5, 3000),
            text(VERDICT, "?", 3000),
            bad(VERDICT, 4000),
        ],
    );
    assert_eq!(
        bench.inspections(),
        [(0, 1, FAIL), (1000, 1, PASS), (2000, 1, PASS), (3000, 1, FAIL), (3000, 1, [0, 0, 1])]
    );
    let figures = bench.figures();
    assert_eq!(figures.defects, [("open".into(), 2), ("bridge".into(), 1)]);
    assert_eq!(figures.dpu, Ratio::of(3.0, 5.0));
    let scores = figures.scores.expect("a tag tells them");
    assert_eq!((scores.edges, scores.counts), (vec![0.0, 0.5, 1.0], vec![0, 2, 1, 1]));
    assert_eq!(figures.manual_review, Ratio::of(1.0, 5.0));
}

#[test]
fn what_is_told_a_little_later_still_belongs_to_it() {
    let settling = InspectionSpec { settle: Duration::from_millis(100), ..counted() };
    let readings = [
        number(COUNT, 0.0, 0),
        text(VERDICT, "OK", 0),
        number(COUNT, 1.0, 1000),
        text(VERDICT, "NG", 1080),
        text(VERDICT, "OK", 1101),
    ];
    assert_eq!(Bench::told(settling, &readings).inspections(), [(1000, 1, FAIL)]);
    assert_eq!(Bench::told(counted(), &readings).inspections(), [(1000, 1, PASS)]);
}

#[test]
fn nothing_is_counted_before_its_instant_is_over() {
    let mut bench = Bench::new(counted());
    bench.read(&number(COUNT, 0.0, 0));
    bench.read(&number(COUNT, 1.0, 1000));
    bench.inspection.settle(&bench.spec, at(1000), &mut bench.news);
    assert_eq!(bench.inspections(), []);
    bench.inspection.settle(&bench.spec, at(1001), &mut bench.news);
    assert_eq!(bench.inspections(), [(1000, 1, UNKNOWN)]);
}

#[test]
fn the_code_of_the_last_reject_is_no_defect_of_what_passes() {
    let mut readings = vec![number(COUNT, 0.0, 0)];
    for (verdict, defect, ms) in [("NG", "17", 1), ("OK", "17", 2), ("?", "0", 3), ("odd", "lead", 4)] {
        readings.extend([
            text(VERDICT, verdict, ms),
            text(DEFECT, defect, ms),
            number(COUNT, f64::from(ms as i32), ms),
        ]);
    }
    readings.extend([number(DEFECT, 17.0, 5), number(COUNT, 5.0, 5), number(DEFECT, 0.0, 6), number(COUNT, 6.0, 6)]);
    let figures = Bench::told(counted(), &readings).figures();
    assert_eq!(figures.defects, [("bridge".into(), 2), ("lead".into(), 1)]);
    assert_eq!(figures.dpu, Ratio::of(3.0, 6.0));
}

#[test]
fn there_is_an_end_to_codes() {
    let mut readings = vec![number(COUNT, 0.0, 0), text(VERDICT, "NG", 0)];
    for step in 1..=300_i32 {
        let ms = i64::from(step);
        readings.extend([text(DEFECT, &format!("C{}", step % 150), ms), number(COUNT, f64::from(step), ms)]);
    }
    let bench = Bench::told(counted(), &readings);
    let defects = bench.sum().defects;
    assert_eq!((defects.len(), defects[OTHER]), (MOST_CODES + 1, 100));
    assert_eq!(defects.values().sum::<u64>(), 300);
    let long = "x".repeat(5_000);
    let bench = Bench::told(counted(), &[number(COUNT, 0.0, 0), text(DEFECT, &long, 1), number(COUNT, 1.0, 1)]);
    assert!(bench.sum().defects.keys().all(|code| code.len() == LONGEST));
}

#[test]
fn queue_and_latency() {
    let bench = Bench::told(
        counted(),
        &[
            number(COUNT, 0.0, 0),
            number(QUEUE, 3.0, 10),
            number(QUEUE, 9.0, 20),
            number(LATENCY, 12.5, 25),
            number(COUNT, 1.0, 25),
            number(QUEUE, 4.0, 30),
            bad(QUEUE, 40),
            text(LATENCY, "slow", 45),
            number(COUNT, 2.0, 45),
            number(LATENCY, -1.0, 50),
            number(COUNT, 3.0, 50),
            number(LATENCY, 0.0, 55),
            number(COUNT, 4.0, 55),
        ],
    );
    let figures = bench.figures();
    assert_eq!(figures.queue, Some(Queue { at: at(30), last: 4.0, max: 9.0 }));
    assert_eq!(bench.inspection.waiting(), None);
    let latency = figures.latency;
    assert_eq!((latency.count, latency.zero_count, latency.buckets.as_slice()), (2, 1, [1].as_slice()));
    assert_eq!([latency.sum, latency.min, latency.max], [0.0125, 0.0, 0.0125]);
    let base = 2_f64.powf(2_f64.powi(-latency.scale));
    assert!(base.powi(latency.offset) < 0.0125 && 0.0125 <= base.powi(latency.offset + 1));
    let none = Bench::told(counted(), &[]).figures();
    assert_eq!(
        (none.latency, none.queue),
        (CycleHistogram { scale: 3, offset: -160, ..CycleHistogram::default() }, None)
    );
}

#[test]
fn latencies_beyond_all_bounds_are_kept_at_the_bounds() {
    let mut latency = Latency::default();
    [1, 50, 1_000_000, u64::MAX, u64::MAX].into_iter().for_each(|ns| latency.observe(ns));
    let histogram = latency.histogram();
    assert_eq!((histogram.count, histogram.buckets.iter().sum::<u64>(), histogram.buckets.len()), (5, 5, 256));
}

#[test]
fn of_nothing_nothing_is_known() {
    let bench = Bench::told(counted(), &[]);
    let figures = bench.inspection.figures(&bench.spec, &InspectionTally::default(), Duration::ZERO);
    let ratios = [
        figures.passed,
        figures.first_pass_yield,
        figures.manual_review,
        figures.false_reject,
        figures.escape,
        figures.accuracy,
        figures.precision,
        figures.recall,
        figures.f1,
        figures.dpu,
    ];
    assert_eq!((figures.inspections, figures.per_hour, ratios), (0, None, [None; 10]));
    assert!(figures.drift.is_empty() && figures.defects.is_empty());
}
