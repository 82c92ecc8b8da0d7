//! Scores against their baseline, and versions of the model.

use super::*;
use crate::model::inspection::vectors::{vector, within};

fn scored(scores: &[f64], from: i64) -> Vec<Reading> {
    (from..)
        .zip(scores)
        .flat_map(|(step, score)| [number(SCORE, *score, step), number(COUNT, step as f64, step)])
        .collect()
}

#[test]
fn published_ks_distances_from_readings() {
    for id in ["ks", "ks-ties"] {
        let example = vector(id);
        let mut readings = vec![number(COUNT, 0.0, 0)];
        readings.extend(scored(&example.numbers("a"), 1));
        readings.extend(scored(&example.numbers("b"), 101));
        // From 4 to 101 the counter jumps: inspections that nobody saw.
        let bench = Bench::told(without(counted(), MODEL), &readings);
        let figures = bench.figures();
        let [drift] = figures.drift.as_slice() else { panic!("{figures:?}") };
        assert_eq!((drift.version.as_ref(), drift.n), (None, 4));
        within(&example, drift.ks.expect("it is known"), example.number("d"));
        assert_eq!(bench.inspection.learnt(&bench.spec), Some((4, 4)));
    }
}

#[test]
fn published_psi_from_readings_against_bins_that_are_given() {
    let example = vector("psi");
    let given = BaselineSpec::Given { edges: vec![0.2, 0.7], shares: example.numbers("baseline") };
    let mut readings = vec![number(COUNT, 0.0, 0)];
    let scores = [0.1, 0.5, 0.9].into_iter().zip(example.numbers("current"));
    let scores: Vec<_> =
        scores.flat_map(|(score, share)| std::iter::repeat_n(score, (share * 1000.0).round() as usize)).collect();
    readings.extend(scored(&scores, 1));
    let bench = Bench::told(InspectionSpec { baseline: given, ..counted() }, &readings);
    let figures = bench.figures();
    let [drift] = figures.drift.as_slice() else { panic!("{figures:?}") };
    within(&example, drift.psi.expect("it is known"), example.number("psi"));
    assert_eq!((drift.n, drift.ks, bench.inspection.learnt(&bench.spec)), (1000, None, None));
}

#[test]
fn each_version_of_the_model_has_its_own_baseline_and_keeps_it() {
    let mut readings = vec![number(COUNT, 0.0, 0)];
    readings.extend(scored(&[0.3], 1)); // nobody knows of which version
    readings.push(text(MODEL, "v1", 9));
    readings.extend(scored(&[0.1, 0.2, 0.3, 0.4], 10));
    readings.extend(scored(&[0.9, 0.9], 20));
    readings.push(text(MODEL, "v2", 30));
    readings.extend(scored(&[0.9, 0.9, 0.9], 31)); // one less than a baseline
    readings.push(bad(MODEL, 40));
    readings.push(text(MODEL, "v1", 50));
    readings.extend(scored(&[0.1], 51));
    readings.push(text(MODEL, "v1", 52));
    let bench = Bench::told(counted(), &readings);
    let version = |name: &str| Some(Arc::<str>::from(name));
    let changes: Vec<_> =
        bench.news.models.iter().map(|change| (change.time, change.from.clone(), change.to.clone())).collect();
    let v1 = |ms, from| (at(ms), from, Arc::from("v1"));
    assert_eq!(changes, [v1(9, None), (at(30), version("v1"), "v2".into()), v1(50, version("v2"))]);
    assert_eq!(bench.inspection.model_version(), version("v1").as_ref());
    let figures = bench.figures();
    let [drift] = figures.drift.as_slice() else { panic!("{figures:?}") };
    // Of 0.9, 0.9 and 0.1 against 0.1 to 0.4: at 0.4 all of one and a third of the other.
    assert_eq!((drift.version.clone(), drift.n), (version("v1"), 3));
    assert!((drift.ks.expect("it is known") - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn baselines_of_versions_that_are_gone_are_let_go_of() {
    let mut readings = vec![number(COUNT, 0.0, 0)];
    for version in 0..20 {
        let from = 1 + version * 10;
        readings.push(text(MODEL, &format!("v{version}"), from));
        readings.extend(scored(&[0.1, 0.2, 0.3, 0.4, 0.5], from));
    }
    let bench = Bench::told(counted(), &readings);
    let versions: Vec<_> = bench.figures().drift.into_iter().filter_map(|drift| drift.version).collect();
    let expected: Vec<Arc<str>> = (12..20).map(|version| format!("v{version}").into()).collect();
    assert_eq!(versions, expected);
}

#[test]
fn a_baseline_stays_as_it_is_when_another_length_is_asked_for() {
    let mut bench = Bench::told(without(counted(), MODEL), &[number(COUNT, 0.0, 0)]);
    scored(&[0.1, 0.2, 0.3, 0.4], 1).iter().for_each(|reading| bench.read(reading));
    bench.end();
    bench.spec.baseline = BaselineSpec::Learnt(6);
    scored(&[0.5, 0.6, 0.7], 5).iter().for_each(|reading| bench.read(reading));
    bench.end();
    assert_eq!(bench.inspection.learnt(&bench.spec), Some((4, 4)));
    assert_eq!(bench.figures().drift[0].n, 3);
}
