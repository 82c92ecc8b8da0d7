use super::expression::{Draft, Kind};
use super::*;
use crate::{OwnStatus, Status, Validity};

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: f64) -> Time {
    Time((seconds * 1e9) as i64)
}

/// A link with one station whose tags have these options.
struct Bench {
    treatment: Treatment,
    start: Instant,
}

impl Bench {
    fn new(options: impl IntoIterator<Item = Option<Options>>) -> Self {
        let treated = (10..).map(TagId).zip(options).filter_map(|(tag, options)| Some((tag, options?))).collect();
        let station = Station { name: "oven-1".into(), tags: 10..30, treated, max_clock_skew: None };
        let treatment = Treatment::new(&Plan { stations: vec![station] }).expect("there is something to do");
        Self { treatment, start: Instant::now() }
    }

    fn one(options: Options) -> Self {
        Self::new([Some(options)])
    }

    fn now(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    /// What is told of a batch that arrives then.
    fn batch(&mut self, seconds: f64, mut readings: Vec<Reading>) -> Vec<Reading> {
        let now = self.now(seconds);
        self.treatment.apply(&mut readings, now);
        readings
    }

    /// What is told of one number that arrives then.
    fn number(&mut self, seconds: f64, value: f64) -> Vec<(f64, f64)> {
        values(&self.batch(seconds, vec![number(10, seconds, value)]))
    }

    fn bad(&mut self, seconds: f64) -> Vec<Reading> {
        self.batch(seconds, vec![bad(10, seconds)])
    }

    fn tend(&mut self, seconds: f64) -> Vec<Reading> {
        let (now, mut told) = (self.now(seconds), Vec::new());
        self.treatment.tend(now, at(seconds), &mut told);
        told
    }

    fn suppressed(&self) -> Vec<(&'static str, u64)> {
        self.treatment.suppressed.counts().map(|(_, reason, count)| (reason.word(), count)).collect()
    }
}

fn number(tag: u32, seconds: f64, value: f64) -> Reading {
    Reading::good(TagId(tag), Value::Float(value), at(seconds), at(seconds))
}

fn bad(tag: u32, seconds: f64) -> Reading {
    Reading::bad(TagId(tag), Status::Modbus(2), at(seconds), at(seconds))
}

/// Source time in seconds, and value.
fn values(readings: &[Reading]) -> Vec<(f64, f64)> {
    let each = |it: &Reading| (it.source_time.0 as f64 / 1e9, it.value.as_f64().unwrap_or(f64::NAN));
    readings.iter().map(each).collect()
}

fn formula(text: &str, tags: &[(&str, u32)]) -> Option<Options> {
    let names: Vec<&str> = tags.iter().map(|(name, _)| *name).collect();
    let draft = Draft::read(text, &names).expect("it can be read");
    let inputs: Vec<TagId> = draft.inputs().iter().map(|at| TagId(tags[*at].1)).collect();
    let kinds = vec![Kind::Any; inputs.len()];
    let expression = Arc::new(draft.check(&kinds).expect("it fits"));
    Some(Options { derived: Some(Formula { expression, inputs }), ..Options::default() })
}

#[test]
fn what_has_no_options_is_left_alone() {
    let station = Station { name: "a".into(), tags: 0..1, treated: Vec::new(), max_clock_skew: None };
    assert!(Treatment::new(&Plan { stations: vec![station] }).is_none());
    let mut bench = Bench::one(Options { scale: Some(2.0), ..Options::default() });
    let others = vec![number(9, 1.0, 1.0), number(11, 1.0, 1.0), number(u32::MAX, 1.0, 1.0)];
    assert_eq!(bench.batch(1.0, others.clone()), others);
}

#[test]
fn order_within_a_batch_is_kept() {
    let mut bench = Bench::new([None, Some(Options { scale: Some(2.0), ..Options::default() }), None]);
    let told = bench.batch(1.0, vec![number(12, 1.0, 1.0), number(11, 1.0, 1.0), number(10, 1.0, 1.0)]);
    assert_eq!(told.iter().map(|it| it.tag.0).collect::<Vec<_>>(), [12, 11, 10]);
    assert_eq!(told[1].value, Value::Float(2.0));
}

#[test]
fn on_change_tells_changes_of_value_and_validity() {
    let mut bench = Bench::one(Options { on_change: true, ..Options::default() });
    let told: Vec<usize> =
        [1.0, 1.0, 2.0, 2.0].iter().enumerate().map(|(at, value)| bench.number(at as f64, *value).len()).collect();
    assert_eq!(told, [1, 0, 1, 0]);
    assert_eq!([bench.bad(5.0).len(), bench.bad(6.0).len()], [1, 0]);
    assert_eq!(bench.number(7.0, 2.0), [(7.0, 2.0)], "good again is news");
    let whole = Reading::good(TagId(10), Value::Int(2), at(8.0), at(8.0));
    assert_eq!(bench.batch(8.0, vec![whole]), [], "2 and 2.0 are the same");
    assert_eq!(bench.suppressed(), [("on_change", 4)]);
}

#[test]
fn a_deadband_is_about_what_was_told_last() {
    let mut bench = Bench::one(Options { deadband: Some(0.5), ..Options::default() });
    let walk = [10.0, 10.4, 10.5, 10.6, 10.2, 10.05];
    let told: Vec<_> = (0..).zip(walk).flat_map(|(second, value)| bench.number(f64::from(second), value)).collect();
    assert_eq!(told, [(0.0, 10.0), (3.0, 10.6), (5.0, 10.05)], "a slow drift is told as well");
    assert_eq!(bench.bad(6.0).len(), 1);
    assert_eq!(bench.number(7.0, 10.05).len(), 1);
}

#[test]
fn the_last_of_an_interval_is_told_at_its_end_with_its_own_time() {
    let mut bench = Bench::one(Options { min_interval: Some(SECOND), ..Options::default() });
    assert_eq!(bench.number(0.0, 1.0).len(), 1);
    assert_eq!(bench.number(0.2, 2.0).len() + bench.number(0.4, 3.0).len(), 0);
    assert_eq!(bench.treatment.next(), Some(bench.now(1.0)));
    assert_eq!(bench.tend(0.9), []);
    assert_eq!(values(&bench.tend(1.0)), [(0.4, 3.0)]);
    assert_eq!(bench.number(1.5, 4.0), [], "an interval begins with whatever was told");
    assert_eq!(values(&bench.tend(2.0)), [(1.5, 4.0)]);
    assert_eq!(bench.tend(9.0), []);
    assert_eq!(bench.number(9.5, 5.0), [(9.5, 5.0)]);
    assert_eq!(bench.suppressed(), [("min_interval", 1)], "what is told later is not left out");
}

#[test]
fn a_change_of_validity_passes_at_once_and_nothing_held_is_lost() {
    let mut bench = Bench::one(Options { min_interval: Some(SECOND), ..Options::default() });
    bench.number(0.0, 1.0);
    bench.number(0.2, 2.0);
    let told = bench.bad(0.3);
    assert_eq!((told[0].value.as_f64(), told[1].validity.is_bad(), told.len()), (Some(2.0), true, 2));
    assert_eq!(bench.number(0.4, 2.0), [(0.4, 2.0)]);
    assert_eq!(bench.tend(5.0), []);
    bench.number(5.1, 7.0);
    bench.number(5.2, 8.0);
    let mut last = Vec::new();
    bench.treatment.flush(&mut last);
    assert_eq!(values(&last), [(5.2, 8.0)], "at a stop");
}

#[test]
fn a_deadband_knows_what_is_held_back() {
    let options = Options { min_interval: Some(SECOND), deadband: Some(1.0), ..Options::default() };
    let mut bench = Bench::one(options);
    bench.number(0.0, 10.0);
    bench.number(0.2, 20.0);
    bench.number(0.4, 10.0);
    assert_eq!(values(&bench.tend(1.0)), [(0.4, 10.0)], "not the 20 that it no longer is");
}

#[test]
fn one_in_a_batch_of_many() {
    let mut bench = Bench::one(Options { min_interval: Some(SECOND), ..Options::default() });
    let queued = (0..10).map(|step| number(10, f64::from(step) / 10.0, f64::from(step))).collect();
    assert_eq!(values(&bench.batch(1.0, queued)), [(0.0, 0.0)]);
    assert_eq!(values(&bench.tend(2.0)), [(0.9, 9.0)]);
}

#[test]
fn derived_tags_come_after_their_inputs_and_once_for_each_batch() {
    let tags = [("volts", 10), ("amps", 11), ("power", 12)];
    let mut bench = Bench::new([None, None, formula("volts * amps", &tags), formula("power / 1000", &tags)]);
    assert_eq!(bench.batch(1.0, vec![number(10, 1.0, 230.0)]).len(), 1, "half of it is not enough");
    let told = bench.batch(2.0, vec![number(11, 1.5, 2.0), number(11, 2.0, 3.0), number(10, 1.2, 100.0)]);
    let derived: Vec<_> = told.iter().filter(|it| it.tag.0 >= 12).collect();
    assert_eq!(
        derived.iter().map(|it| (it.tag.0, it.value.clone())).collect::<Vec<_>>(),
        [(12, Value::Float(300.0)), (13, Value::Float(0.3))]
    );
    assert!(derived.iter().all(|it| it.source_time == at(2.0)), "of the newest input");
    let same = bench.batch(3.0, vec![number(10, 3.0, 100.0)]);
    assert_eq!(values(&same[1..]), [(3.0, 300.0), (3.0, 0.3)], "every reading of an input makes one");
}

#[test]
fn an_expression_is_evaluated_once_for_each_change() {
    let options = formula("volts * amps", &[("volts", 10), ("amps", 11)]).expect("options");
    let expression = Arc::clone(&options.derived.as_ref().expect("one").expression);
    let evaluated = || expression.evaluated.load(std::sync::atomic::Ordering::Relaxed);
    let mut bench = Bench::new([None, None, Some(options)]);
    bench.batch(1.0, vec![number(10, 1.0, 230.0)]);
    assert_eq!(evaluated(), 0, "half of it is not enough");
    bench.batch(2.0, vec![number(11, 1.5, 2.0), number(11, 2.0, 3.0), number(10, 1.2, 100.0)]);
    assert_eq!(evaluated(), 1, "once for a batch");
    for second in 3..10 {
        let told = bench.batch(f64::from(second), vec![number(10, f64::from(second), 100.0)]);
        assert_eq!(told.len(), 2, "every reading of an input makes one");
    }
    assert_eq!(evaluated(), 1, "and nothing changed");
    bench.batch(11.0, vec![number(10, 11.0, 101.0)]);
    bench.batch(12.0, vec![bad(11, 12.0)]);
    assert_eq!(evaluated(), 2, "of what is bad nothing is computed");
    bench.batch(13.0, vec![number(11, 13.0, 3.0)]);
    assert_eq!(evaluated(), 3);
}

#[test]
fn history_of_one_input_is_not_told_as_what_is_now() {
    let tags = [("a", 10), ("b", 11)];
    let mut bench = Bench::new([None, None, formula("a + b", &tags)]);
    let mut derived = |second: f64, readings| {
        let told = bench.batch(second, readings).into_iter().filter(|it| it.tag.0 == 12);
        told.map(|it| (it.source_time, it.value.as_f64(), it.backfilled)).collect::<Vec<_>>()
    };
    let then = |tag, second, value| number(tag, second, value).from_history();
    assert_eq!(derived(1.0, vec![number(10, 1.0, 1.0), number(11, 1.0, 10.0)]), [(at(1.0), Some(11.0), false)]);
    // Both caught up, in order: each instant by itself.
    let both = vec![then(10, 2.0, 2.0), then(11, 2.5, 20.0), then(10, 3.0, 3.0)];
    let told = [(at(2.0), Some(12.0), true), (at(2.5), Some(22.0), true), (at(3.0), Some(23.0), true)];
    assert_eq!(derived(5.0, both), told);
    // One is caught up, the other is known of later.
    assert_eq!(derived(6.0, vec![number(11, 6.0, 60.0)]), [(at(6.0), Some(63.0), false)]);
    assert_eq!(derived(7.0, vec![then(10, 4.0, 4.0), then(10, 5.0, 5.0)]), [], "neither then nor now");
    assert_eq!(derived(8.0, vec![number(10, 8.0, 8.0)]), [(at(8.0), Some(68.0), false)]);
    assert_eq!(derived(9.0, vec![then(10, 7.0, 7.0), number(11, 9.0, 90.0)]), [(at(9.0), Some(98.0), false)]);
}

#[test]
fn a_derived_tag_is_as_good_as_its_worst_input() {
    let tags = [("volts", 10), ("amps", 11)];
    let mut bench = Bench::new([None, None, formula("volts / amps", &tags)]);
    let mut told = |readings| bench.batch(1.0, readings).pop().expect("the derived one");
    let doubtful = Reading { validity: Validity::Uncertain(Status::Opcua(0x4090_0000)), ..number(11, 1.0, 2.0) };
    let uncertain = told(vec![number(10, 1.0, 10.0), doubtful]);
    assert_eq!(
        (uncertain.value, uncertain.validity),
        (Value::Float(5.0), Validity::Uncertain(Status::Opcua(0x4090_0000)))
    );
    let lost = told(vec![bad(10, 1.0)]);
    assert_eq!((lost.value, lost.validity), (Value::Null, Validity::Bad(Status::Modbus(2))));
    let failed = told(vec![number(10, 1.0, 1.0), number(11, 1.0, 0.0)]);
    assert_eq!(failed.validity, Validity::Bad(Status::Own(OwnStatus::ExpressionFailed)));
    let again = told(vec![number(11, 1.0, 4.0)]);
    assert_eq!((again.value, again.validity), (Value::Float(0.25), Validity::Good));
}

#[test]
fn expressions_see_scaled_values_and_what_is_not_told() {
    let scaled = Options { scale: Some(0.1), deadband: Some(100.0), ..Options::default() };
    let derived = Options { on_change: true, ..formula("t * 2", &[("t", 10)]).expect("options") };
    let mut bench = Bench::new([Some(scaled), Some(derived)]);
    assert_eq!(values(&bench.batch(1.0, vec![number(10, 1.0, 250.0)])), [(1.0, 25.0), (1.0, 50.0)]);
    assert_eq!(values(&bench.batch(2.0, vec![number(10, 2.0, 260.0)])), [(2.0, 52.0)], "the input is in its deadband");
    assert_eq!(values(&bench.batch(3.0, vec![number(10, 3.0, 260.0)])), [], "and the derived tag did not change");
}

/// The ladder of a tag: half, whole and twice its age.
#[test]
fn silence_is_answered_rung_by_rung_and_once_each() {
    let mut bench = Bench::one(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    let rung = |bench: &mut Bench| bench.treatment.silent().map(|stale| (stale.tags, stale.rung));
    bench.number(3.0, 1.0);
    assert_eq!((bench.tend(7.9), rung(&mut bench)), (vec![], None));
    assert_eq!((bench.tend(8.0), rung(&mut bench)), (vec![], Some((vec![TagId(10)], Rung::Look))));
    let stale = bench.tend(13.0);
    assert_eq!(rung(&mut bench), Some((vec![TagId(10)], Rung::Renew)));
    let expected = Reading::bad(TagId(10), Status::Own(OwnStatus::Stale), at(13.0), at(13.0));
    assert_eq!(stale, [expected], "dated the last reading and its age");
    assert_eq!((bench.tend(22.9), rung(&mut bench)), (vec![], None));
    assert_eq!((bench.tend(23.0), rung(&mut bench)), (vec![], Some((vec![TagId(10)], Rung::Reconnect))));
    assert_eq!((bench.tend(500.0), rung(&mut bench)), (vec![], None), "each once");
    assert_eq!(bench.number(501.0, 1.0), [(501.0, 1.0)]);
    assert_eq!(bench.tend(506.1), []);
    assert_eq!(rung(&mut bench).map(|(_, rung)| rung), Some(Rung::Look), "and from the beginning");
}

/// While a driver reads history nothing live can come, and the ladder stands still.
#[test]
fn silence_does_not_count_while_history_is_read() {
    let mut bench = Bench::one(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    let rung = |bench: &mut Bench| bench.treatment.silent().map(|stale| stale.rung);
    let now = bench.now(4.0);
    bench.treatment.pause(now);
    bench.batch(50.0, vec![number(10, 1.0, 7.0).from_history()]);
    assert_eq!((bench.tend(100.0), rung(&mut bench)), (vec![], None));
    let now = bench.now(104.0);
    bench.treatment.resume(now);
    assert_eq!((bench.tend(104.9), rung(&mut bench)), (vec![], None), "four seconds so far, and history is no news");
    assert_eq!((bench.tend(105.0), rung(&mut bench)), (vec![], Some(Rung::Look)));
    assert_eq!(bench.tend(110.0)[0].source_time, at(110.0));
    assert_eq!(rung(&mut bench), Some(Rung::Renew));
    // A link that ends in a pause takes it with it.
    let now = bench.now(111.0);
    bench.treatment.pause(now);
    bench.treatment.end();
    let now = bench.now(200.0);
    bench.treatment.begin(now, at(200.0));
    bench.treatment.resume(now);
    assert_eq!(bench.tend(205.0), []);
    assert_eq!(rung(&mut bench), Some(Rung::Look), "nothing but history had come: it climbs anew");
}

/// A driver may be busy while its tags climb: what has come since then is not to be answered.
#[test]
fn a_rung_that_was_not_taken_in_time_is_forgotten_when_something_comes() {
    let aged = || Some(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let mut bench = Bench::new([aged(), aged(), aged()]);
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    (1..=50).for_each(|half| drop(bench.tend(f64::from(half) / 2.0)));
    bench.batch(25.0, vec![number(10, 25.0, 1.0)]);
    bench.tend(30.0);
    let told: Vec<_> = std::iter::from_fn(|| bench.treatment.silent()).map(|it| (it.rung, it.tags)).collect();
    assert_eq!(told, [(Rung::Reconnect, vec![TagId(11), TagId(12)]), (Rung::Look, vec![TagId(10)])]);
}

#[test]
fn a_link_that_never_sent_anything_is_silent_too_and_a_lost_one_is_not() {
    let mut bench = Bench::one(Options { max_age: Some(10 * SECOND), ..Options::default() });
    assert_eq!(bench.tend(100.0), [], "not connected yet");
    let now = bench.now(100.0);
    bench.treatment.begin(now, at(100.0));
    let stale = bench.tend(110.0);
    assert_eq!(stale.iter().map(|it| it.source_time).collect::<Vec<_>>(), [at(110.0)]);
    bench.treatment.end();
    assert_eq!(bench.tend(130.0), []);
    assert_eq!(bench.treatment.silent(), None, "the loss of the link says enough");
    let now = bench.now(200.0);
    bench.treatment.begin(now, at(200.0));
    assert_eq!(bench.tend(209.0), []);
    assert_eq!(bench.tend(210.0).len(), 1, "silent on the new connection as well");
}

#[test]
fn a_dead_sensor_does_not_cost_its_neighbours_the_connection_again() {
    let aged = || Some(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let mut bench = Bench::new([aged(), None]);
    let mut rungs = |from: f64, neighbour: bool| {
        let now = bench.now(from);
        bench.treatment.begin(now, at(from));
        let mut told = Vec::new();
        for second in 1..60 {
            if neighbour {
                bench.batch(from + f64::from(second), vec![number(11, from, 1.0)]);
            }
            bench.tend(from + f64::from(second));
            told.extend(bench.treatment.silent().map(|stale| stale.rung));
        }
        bench.treatment.end();
        told
    };
    assert_eq!(rungs(0.0, true), [Rung::Look, Rung::Renew, Rung::Reconnect]);
    assert_eq!(rungs(100.0, true), [], "while the neighbour speaks");
    assert_eq!(rungs(200.0, false), [], "the connection before it spoke");
    assert_eq!(rungs(300.0, false), [Rung::Look, Rung::Renew, Rung::Reconnect], "nothing spoke at all");
}

#[test]
fn what_the_device_vouches_for_or_calls_bad_itself_is_not_stale() {
    let mut bench = Bench::one(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    bench.number(0.0, 1.0);
    let now = bench.now(9.0);
    assert_eq!(bench.treatment.confirm(&[TagId(10), TagId(11)], now, at(9.0)), []);
    assert_eq!(bench.tend(18.9), []);
    bench.bad(18.95);
    assert_eq!(bench.tend(60.0), [], "BadNodeIdUnknown says more than Stale");
    bench.number(61.0, 1.0);
    assert_eq!(bench.tend(72.0).len(), 1);
    let now = bench.now(73.0);
    assert_eq!(bench.treatment.confirm(&[TagId(10), TagId(11)], now, at(73.0)), [TagId(10)], "and that is said");
    assert_eq!(bench.tend(99.0), [], "no value comes back without a reading");
    assert_eq!(bench.number(100.0, 1.0).len(), 1);
}

/// A broker remembers a value whose device is long gone: asking again brings it again.
#[test]
fn what_a_broker_retained_is_no_sign_of_life_and_brings_nothing_back() {
    let mut bench = Bench::one(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let retained = |second: f64| {
        let validity = Validity::Uncertain(Status::Own(OwnStatus::Retained));
        vec![Reading { validity, ..number(10, second, 1.0) }]
    };
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    assert_eq!(bench.batch(1.0, retained(1.0)), retained(1.0), "told, and as doubtful");
    assert_eq!(bench.tend(9.9), []);
    let stale = bench.tend(10.0);
    assert_eq!(stale[0].validity, Validity::Bad(Status::Own(OwnStatus::Stale)));
    assert_eq!(bench.batch(11.0, retained(11.0)), [], "what is too old stays so");
    bench.tend(20.0);
    assert_eq!(bench.treatment.silent().map(|stale| stale.rung), Some(Rung::Reconnect));
    assert_eq!(bench.number(21.0, 2.0), [(21.0, 2.0)]);
}

#[test]
fn a_stale_input_makes_its_derived_tags_stale_and_not_its_neighbours() {
    let aged = Some(Options { max_age: Some(10 * SECOND), ..Options::default() });
    let mut bench = Bench::new([aged, None, formula("a + b", &[("a", 10), ("b", 11)])]);
    let now = bench.now(0.0);
    bench.treatment.begin(now, at(0.0));
    bench.batch(1.0, vec![number(10, 1.0, 1.0), number(11, 1.0, 1.0)]);
    let told = bench.tend(11.0);
    let stale = Validity::Bad(Status::Own(OwnStatus::Stale));
    assert_eq!(told.iter().map(|it| (it.tag.0, it.validity)).collect::<Vec<_>>(), [(10, stale), (12, stale)]);
    let next = bench.batch(12.0, vec![number(11, 12.0, 2.0)]);
    assert_eq!((next[0].validity, next[1].validity), (Validity::Good, stale), "never as fresh");
}

#[test]
fn timers_do_not_pile_up() {
    let options = Options { min_interval: Some(SECOND), max_age: Some(10 * SECOND), ..Options::default() };
    let mut bench = Bench::one(options);
    for round in 0..50 {
        let from = f64::from(round) * 20.0;
        let now = bench.now(from);
        bench.treatment.begin(now, at(from));
        for step in 0..40 {
            bench.number(from + f64::from(step) / 4.0, f64::from(step));
            bench.tend(from + f64::from(step) / 4.0);
        }
        bench.treatment.end();
    }
    let mut left = 0;
    let far = bench.now(1e6);
    bench.treatment.up = false;
    while bench.treatment.agenda.pop(far).is_some() {
        left += 1;
    }
    assert!(left <= 2, "{left} timers for one tag");
}
