//! What holds whatever a station tells.

use proptest::prelude::*;

use super::*;
use crate::model::drift::Cells;
use crate::model::inspection::tally::MOST_BASELINES;

fn any_reading() -> impl Strategy<Value = Reading> {
    let value = |tag: TagId| match tag {
        VERDICT => {
            prop_oneof![Just("OK"), Just("NG"), Just("?"), Just("odd")].prop_map(|it| Value::Text(it.into())).boxed()
        }
        ID | REVIEWED => (0_i64..6).prop_map(Value::Int).boxed(),
        DEFECT => prop_oneof![Just("17"), Just("open,lead"), Just("")].prop_map(|it| Value::Text(it.into())).boxed(),
        MODEL => (1_i64..12).prop_map(Value::Int).boxed(),
        FINDING => prop_oneof![Just("good"), Just("bad"), Just("confirmed"), Just("overturned"), Just("")]
            .prop_map(|it| Value::Text(it.into()))
            .boxed(),
        _ => (0_i32..40).prop_map(|it| Value::Float(f64::from(it) / 4.0)).boxed(),
    };
    let good = (0_u32..10).prop_flat_map(move |tag| {
        let tag = TagId(tag);
        value(tag).prop_map(move |value| Reading::good(tag, value, at(0), at(0)))
    });
    prop_oneof![15 => good, 1 => (0_u32..10).prop_map(|tag| bad(TagId(tag), 0))]
}

/// Readings in order of time, some at the same.
fn any_readings() -> impl Strategy<Value = Vec<Reading>> {
    prop::collection::vec((any_reading(), 0_i64..3), 0..150).prop_map(|readings| {
        let mut now = 0;
        let timed = readings.into_iter().map(|(reading, step)| {
            now += step;
            Reading { source_time: at(now), received_time: at(now), ..reading }
        });
        timed.collect()
    })
}

fn any_spec() -> impl Strategy<Value = InspectionSpec> {
    let triggers = [counted(), spec(Trigger::Id), messages()];
    let settle = prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(2))];
    let whole =
        (prop::sample::select(triggers.to_vec()), settle).prop_map(|(spec, settle)| InspectionSpec { settle, ..spec });
    (whole, any::<[bool; 2]>()).prop_map(|(spec, [id, model])| {
        let spec = if id { spec } else { without(spec, REVIEWED) };
        if model { spec } else { without(spec, MODEL) }
    })
}

/// Readings that some station understands, whatever it is told of.
fn understood(spec: &InspectionSpec, readings: Vec<Reading>) -> Vec<Reading> {
    readings.into_iter().filter(|reading| spec.role(reading.tag).is_some()).collect()
}

fn tallies(spec: &InspectionSpec, readings: Vec<Reading>) -> Vec<InspectionTally> {
    let readings = understood(spec, readings);
    Bench::told(spec.clone(), &readings).news.tallies.into_iter().map(|(_, tally)| tally).collect()
}

/// Of what the readings above hardly make: many baselines, and queues that were told at once.
fn any_tally() -> impl Strategy<Value = InspectionTally> {
    let drift = prop::collection::btree_map(0_u32..24, prop::collection::vec(0_u16..4, 1..4), 0..MOST_BASELINES);
    let queue = prop::option::of((0_i64..3, 0_u32..5, 0_u32..5));
    (drift, queue).prop_map(|(drift, queue)| {
        let cells = |cells: Vec<u16>| {
            let mut counted = Cells::default();
            cells.into_iter().for_each(|cell| counted.count(cell));
            counted
        };
        let queue = queue.map(|(ms, last, more)| Queue { at: at(ms), last: last.into(), max: (last + more).into() });
        let drift = drift.into_iter().map(|(baseline, counted)| (baseline, cells(counted))).collect();
        InspectionTally { queue, drift, ..InspectionTally::default() }
    })
}

fn and(a: &InspectionTally, b: &InspectionTally) -> InspectionTally {
    let mut sum = a.clone();
    sum.add(b);
    sum
}

proptest! {
    #[test]
    fn bounds_do_not_break_the_sums(a in any_tally(), b in any_tally(), c in any_tally()) {
        prop_assert_eq!(and(&and(&a, &b), &c), and(&a, &and(&b, &c)));
        prop_assert_eq!(and(&a, &b), and(&b, &a));
        prop_assert!(and(&a, &b).drift.len() <= MOST_BASELINES);
        prop_assert_eq!(and(&a, &InspectionTally::default()), a);
    }

    #[test]
    fn tallies_add_up_in_any_order_and_grouping(
        spec in any_spec(),
        readings in any_readings(),
        cut in any::<prop::sample::Index>(),
        keys in prop::collection::vec(any::<u32>(), 300),
    ) {
        let tallies = tallies(&spec, readings);
        let add = |of: &[InspectionTally]| of.iter().fold(InspectionTally::default(), |mut sum, tally| { sum.add(tally); sum });
        let whole = add(&tallies);
        let cut = cut.index(tallies.len() + 1);
        let (mut before, after) = (add(&tallies[..cut]), add(&tallies[cut..]));
        let mut turned = after.clone();
        turned.add(&before);
        before.add(&after);
        prop_assert_eq!(&before, &whole, "grouped otherwise");
        prop_assert_eq!(&turned, &whole, "the other way round");
        let mut shuffled: Vec<_> = tallies.iter().zip(keys.iter().cycle()).collect();
        shuffled.sort_by_key(|(_, key)| **key);
        let shuffled: Vec<_> = shuffled.into_iter().map(|(tally, _)| tally.clone()).collect();
        prop_assert_eq!(&add(&shuffled), &whole, "in another order");
        let mut with_zero = whole.clone();
        with_zero.add(&InspectionTally::default());
        prop_assert_eq!(&with_zero, &whole, "nothing more");
    }

    #[test]
    fn a_restart_anywhere_changes_nothing(spec in any_spec(), readings in any_readings(), cut in any::<prop::sample::Index>()) {
        let readings = understood(&spec, readings);
        let whole = Bench::told(spec.clone(), &readings);
        let cut = cut.index(readings.len() + 1);
        let mut bench = Bench::new(spec);
        readings[..cut].iter().for_each(|reading| bench.read(reading));
        let bytes = postcard::to_stdvec(&(&bench.inspection, &bench.news.tallies)).expect("plain data");
        (bench.inspection, bench.news.tallies) = postcard::from_bytes(&bytes).expect("what was written");
        readings[cut..].iter().for_each(|reading| bench.read(reading));
        bench.end();
        prop_assert_eq!(&bench.inspection, &whole.inspection);
        prop_assert_eq!(&bench.news, &whole.news);
        prop_assert_eq!(bench.figures(), whole.figures());
    }

    #[test]
    fn figures_never_contradict_each_other(spec in any_spec(), readings in any_readings()) {
        let readings = understood(&spec, readings);
        let bench = Bench::told(spec, &readings);
        let (sum, figures) = (bench.sum(), bench.figures());
        prop_assert!(sum.judged() <= sum.seen && sum.seen <= sum.inspections);
        prop_assert!(sum.first_pass <= sum.first && sum.first <= sum.judged());
        prop_assert!(sum.reviewed <= sum.seen && sum.review <= sum.manual && sum.manual <= sum.seen);
        let labels = sum.labels;
        let cells = [labels.caught, labels.false_rejects, labels.cleared, labels.escapes, sum.undecided_good, sum.undecided_bad];
        prop_assert!(cells.iter().all(|cell| *cell >= 0), "{cells:?}");
        prop_assert!(u64::try_from(cells.iter().sum::<i64>()).expect("not negative") <= sum.reviewed);
        prop_assert!(sum.scores.n() <= sum.seen && sum.drift.values().map(|cells| cells.n()).sum::<u64>() <= sum.scores.n());
        for drift in figures.drift {
            prop_assert!(drift.psi.is_some_and(|psi| psi >= 0.0) && drift.ks.is_some_and(|ks| (0.0..=1.0).contains(&ks)));
        }
    }
}
