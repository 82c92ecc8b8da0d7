//! What people say of inspections, and what verdicts are worth by it.

use super::*;
use crate::model::inspection::vectors::{vector, within};
use crate::model::quality::Confusion;

/// Units with a verdict, one each second, and a review of each an hour later.
fn labelled(units: &[(&str, &str)]) -> Vec<Reading> {
    let inspections = (0..).zip(units).flat_map(|(unit, (verdict, _))| {
        let ms = unit * 1000;
        [text(ID, &format!("U{unit}"), ms), text(VERDICT, verdict, ms), number(COUNT, unit as f64 + 1.0, ms)]
    });
    let reviews = (0..).zip(units).flat_map(|(unit, (_, finding))| {
        let ms = 3_600_000 + unit * 1000;
        [text(REVIEWED, &format!("U{unit}"), ms), text(FINDING, finding, ms)]
    });
    std::iter::once(number(COUNT, 0.0, -1)).chain(inspections).chain(reviews).collect()
}

#[test]
fn published_confusion_matrix_from_readings() {
    let example = vector("confusion");
    let [tp, fp, tn, fn_] = ["tp", "fp", "tn", "fn"].map(|key| usize::try_from(example.count(key)).expect("a count"));
    let some = |unit, count| std::iter::repeat_n(unit, count);
    let units: Vec<_> = some(("NG", "confirmed"), tp)
        .chain(some(("NG", "good"), fp))
        .chain(some(("OK", "confirmed"), tn))
        .chain(some(("OK", "overturned"), fn_))
        .collect();
    let mut remembering = counted();
    remembering.review.as_mut().expect("it is reviewed").remember = units.len();
    let bench = Bench::told(remembering, &labelled(&units));
    let figures = bench.figures();
    for (figure, key) in
        [(figures.false_reject, "false_reject_rate"), (figures.escape, "escape_rate"), (figures.f1, "f1")]
    {
        within(&example, figure.expect("it is known").value, example.number(key));
    }
    let n = units.len() as f64;
    assert_eq!(figures.accuracy.map(|accuracy| accuracy.n), Some(n));
    assert_eq!(figures.manual_review, Ratio::of(n, n));
    let last = bench.news.tallies.last().expect("some are told");
    assert_eq!(last.0, at((units.len() as i64 - 1) * 1000), "a label counts when its unit was inspected");
}

#[test]
fn reviews_in_every_word() {
    let units = [
        ("NG", "confirmed"),
        ("NG", "overturned"),
        ("OK", "confirmed"),
        ("OK", "overturned"),
        ("?", "good"),
        ("?", "bad"),
        ("?", "confirmed"), // confirms nothing
        ("OK", "later"),    // says nothing
        ("odd", "bad"),
    ];
    let sum = Bench::told(counted(), &labelled(&units)).sum();
    assert_eq!(sum.labels, Confusion { caught: 1, false_rejects: 1, cleared: 1, escapes: 1 });
    assert_eq!((sum.undecided_good, sum.undecided_bad), (1, 2));
    assert_eq!((sum.reviewed, sum.manual, sum.unmatched), (8, 8, 0));
}

#[test]
fn another_word_takes_the_place_of_the_first() {
    let mut readings = labelled(&[("NG", "confirmed"), ("OK", "confirmed")]);
    readings.extend([
        text(FINDING, "confirmed", 3_602_000),
        text(FINDING, "bad", 3_603_000),
        text(FINDING, "bad", 3_604_000),
    ]);
    let bench = Bench::told(counted(), &readings);
    let sum = bench.sum();
    assert_eq!(sum.labels, Confusion { caught: 1, escapes: 1, ..Confusion::default() });
    assert_eq!((sum.reviewed, sum.manual), (2, 2));
    let moved = bench.news.tallies.last().expect("some are told");
    assert_eq!((moved.0, moved.1.labels), (at(1000), Confusion { cleared: -1, escapes: 1, ..Confusion::default() }));
}

#[test]
fn a_review_of_what_nobody_remembers_is_counted_once() {
    let mut forgetting = counted();
    forgetting.review.as_mut().expect("it is reviewed").remember = 2;
    let mut readings = labelled(&[("NG", "bad"), ("NG", "bad"), ("NG", "good")]);
    readings.extend([text(REVIEWED, "stranger", 3_700_000), text(REVIEWED, "stranger", 3_701_000)]);
    let sum = Bench::told(forgetting, &readings).sum();
    assert_eq!((sum.reviewed, sum.unmatched), (2, 2), "the first unit, and the stranger");
    assert_eq!(sum.labels, Confusion { caught: 1, false_rejects: 1, ..Confusion::default() });
}

#[test]
fn a_unit_that_is_inspected_again_is_reviewed_for_the_last_time_it_was() {
    let again = [
        number(COUNT, 0.0, 0),
        text(ID, "A", 1),
        text(VERDICT, "NG", 1),
        number(COUNT, 1.0, 1),
        text(VERDICT, "OK", 2),
        number(COUNT, 2.0, 2),
        text(REVIEWED, "A", 3),
        text(FINDING, "good", 3),
    ];
    let bench = Bench::told(counted(), &again);
    let figures = bench.figures();
    assert_eq!((figures.first_pass_yield, figures.passed), (Ratio::of(0.0, 1.0), Ratio::of(1.0, 2.0)));
    assert_eq!(bench.sum().labels, Confusion { cleared: 1, ..Confusion::default() });
}

#[test]
fn without_an_id_a_review_is_of_the_last_inspection() {
    let spec = without(without(counted(), REVIEWED), ID);
    let readings = [
        text(FINDING, "good", 0), // of nothing yet
        number(COUNT, 0.0, 0),
        text(VERDICT, "NG", 1),
        number(COUNT, 1.0, 1),
        text(FINDING, "bad", 2),
        number(COUNT, 2.0, 3),
        text(FINDING, "bad", 4), // only read again
        text(FINDING, "", 5),
        text(FINDING, "bad", 6),
    ];
    let sum = Bench::told(spec, &readings).sum();
    assert_eq!((sum.labels.caught, sum.reviewed, sum.unmatched), (2, 2, 1));
    let nameless = without(without(messages(), REVIEWED), ID);
    let readings = [text(VERDICT, "NG", 1), text(FINDING, "bad", 2), text(VERDICT, "NG", 3), text(FINDING, "bad", 4)];
    assert_eq!(Bench::told(nameless, &readings).sum().labels.caught, 2);
}

#[test]
fn several_reviews_in_one_message() {
    let mut readings = vec![];
    for unit in ["A", "B", "C"] {
        readings.extend([text(ID, unit, 1), text(VERDICT, "NG", 1)]);
    }
    for (unit, finding) in [("A", "bad"), ("B", "good"), ("C", "bad")] {
        readings.extend([text(REVIEWED, unit, 9), text(FINDING, finding, 9)]);
    }
    let sum = Bench::told(messages(), &readings).sum();
    assert_eq!((sum.inspections, sum.labels.caught, sum.labels.false_rejects), (3, 2, 1));
}

#[test]
fn a_message_that_comes_again_says_nothing_new() {
    let mut readings = vec![text(ID, "A", 1), text(VERDICT, "NG", 1)];
    for (unit, ms) in [("A", 2), ("A", 3), ("stranger", 4), ("stranger", 5)] {
        readings.extend([text(REVIEWED, unit, ms), text(FINDING, "good", ms)]);
    }
    readings.extend([text(FINDING, "bad", 6), text(REVIEWED, "A", 7)]); // each without the other
    let sum = Bench::told(messages(), &readings).sum();
    assert_eq!((sum.reviewed, sum.unmatched), (1, 1));
    assert_eq!(sum.labels, Confusion { false_rejects: 1, ..Confusion::default() });
}
