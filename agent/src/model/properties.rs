//! What must hold whatever comes: random scripts of readings, good, bad and late, under random plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Value};
use jiff::civil;
use proptest::prelude::*;
use proptest::sample::Index;

use super::tests::{config, oee, shift};
use super::{
    Bucket, ContextSpec, CounterSpec, Derived, KPI_EVERY, Knowledge, LATENESS, Lasts, Line, MicroStops, OeeSpec,
    Period, Preset, Product, Reason, ReasonSpec, ShiftSpec, StartupSpec, State,
};
use crate::config::{Config, Tag};
use crate::snapshot::SpoolView;

const STATE: u32 = 0;
const TOTAL: u32 = 1;
const REJECT: u32 = 2;
const PRODUCT: u32 = 3;
const REASON: u32 = 4;
const LOT: u32 = 5;
const SERIAL: u32 = 6;
/// The last is of a tag that nothing is computed with.
const TAGS: u32 = 8;
/// Parts that a cycle makes of product `2`.
const CAVITIES: f64 = 2.0;

const HOUR: i64 = 3_600_000_000_000;
/// The longest that a reading is on its way, in milliseconds, if it is not late.
const ALLOWED: i64 = 2_000;

/// A line whose every part of the model is at work: two products and nothing known of a third, a reason that is a failure,
/// one that is planned, micro-stops.
fn a_config(plan: &Plan) -> Config {
    let reason = |code: &str, planned, is_failure, bucket| Reason {
        code: code.into(),
        name: code.into(),
        planned,
        is_failure,
        bucket,
        parent: None,
    };
    let product = |name: &str, seconds| Product {
        name: name.into(),
        ideal_cycle_time: vec![(Time(i64::MIN), Duration::from_secs(seconds))],
        parts_per_cycle: (name == "2").then_some(CAVITIES),
        ..Product::default()
    };
    let spec = OeeSpec {
        losses: plan.preset,
        micro_stops: plan
            .micro_stops
            .then(|| MicroStops { limit: Duration::from_secs(90), states: vec![State::Down, State::Starved] }),
        reason: Some(ReasonSpec {
            tags: vec![(TagId(REASON), vec![("1".to_owned(), 0), ("2".to_owned(), 1)])],
            first_out: Duration::from_secs(5),
        }),
        startup: Some(StartupSpec {
            after: vec![State::Down, State::Setup],
            lasts: if plan.micro_stops { Lasts::Run(Duration::from_secs(600)) } else { Lasts::Parts(40.0) },
        }),
        total: Some(CounterSpec { cycles: true, ..CounterSpec::of(TagId(TOTAL)) }),
        ..oee(1.0)
    };
    let mut config = config(spec, plan.shifts.clone());
    config.timezone = jiff::tz::TimeZone::get(plan.zone).expect("bundled");
    config.knowledge = Knowledge {
        reasons: vec![
            reason("jam", false, Some(true), None),
            reason("meal", true, Some(false), Some(Bucket::NotPlanned)),
        ],
        products: vec![product("1", 2), product("2", 3)],
    };
    config.stations[0].tags = 0..TAGS;
    config.stations[0].context = ContextSpec {
        serial: Some(TagId(SERIAL)),
        product: Some(TagId(PRODUCT)),
        lot: Some(TagId(LOT)),
        ..ContextSpec::default()
    };
    let first = config.tags[0].clone();
    let names = ["product", "reason", "lot", "serial", "other"];
    config.tags.extend((PRODUCT..).zip(names).map(|(id, name)| Tag {
        id: TagId(id),
        name: name.into(),
        ..first.clone()
    }));
    config
}

/// When it is planned to run, and how losses are told apart.
#[derive(Clone, Debug)]
struct Plan {
    zone: &'static str,
    shifts: Vec<ShiftSpec>,
    preset: Preset,
    micro_stops: bool,
    /// Where the script begins.
    begin: Time,
}

/// A few shifts from a few minutes of the day, with gaps and breaks between them, in zones that change their clocks, near
/// the days on which they do.
fn plans() -> impl Strategy<Value = Plan> {
    let zone =
        prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"]);
    let begins = ["2026-03-02T06:00:00Z", "2026-03-28T22:00:00Z", "2026-10-24T20:30:00Z", "2026-10-03T12:00:00Z"];
    let begin = prop::sample::select(begins.to_vec());
    let cuts = prop::collection::btree_set(0..1440_i32, 0..9);
    let week = prop::array::uniform7(prop::bool::weighted(0.9));
    (zone, begin, cuts, week, prop::sample::select(Preset::ALL.to_vec()), any::<bool>()).prop_map(
        |(zone, begin, cuts, days, preset, micro_stops)| {
            let wall =
                |minute: i32| civil::Time::midnight().wrapping_add(jiff::SignedDuration::from_mins(minute.into()));
            let cuts: Vec<i32> = cuts.into_iter().collect();
            let pieces = cuts.windows(2).enumerate().filter(|(place, _)| place % 3 != 2);
            let shifts = pieces.map(|(place, cut)| {
                let (third, two) = (cut[0] + (cut[1] - cut[0]) / 3, cut[0] + (cut[1] - cut[0]) * 2 / 3);
                let breaks = if place % 2 == 0 && third < two { vec![(wall(third), wall(two))] } else { vec![] };
                ShiftSpec {
                    days,
                    start: wall(cut[0]),
                    end: wall(cut[1]),
                    breaks,
                    ..shift(&place.to_string(), "00:00", "01:00", &[])
                }
            });
            Plan { zone, shifts: shifts.collect(), preset, micro_stops, begin: begin.parse().expect("an instant") }
        },
    )
}

/// A word of the line: how many milliseconds after the one before it, by which tag, and what; nothing is a bad reading.
#[derive(Clone, Copy)]
struct Word {
    pause: i64,
    tag: u32,
    value: Option<i64>,
    /// How long it was on its way, in milliseconds; negative where the source's clock is ahead.
    delay: i64,
    /// What is bad is a mark of gemba's own.
    mark: bool,
}

/// Words with delays; counters grow, and are now and then reset.
fn words(delays: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Word>> {
    let pause = prop_oneof![4 => Just(0), 8 => 1..3_000_i64, 8 => 3_000..120_000_i64, 1 => 120_000..9_000_000_i64];
    let tag = prop_oneof![3 => Just(STATE), 4 => Just(TOTAL), 2 => Just(REJECT), 3 => PRODUCT..TAGS];
    let word = (pause, tag, 0..24_i64, delays, any::<bool>());
    prop::collection::vec(word, 1..70).prop_map(|steps| {
        let mut counts = [0; 3];
        let words = steps.into_iter().map(|(pause, tag, choice, delay, mark)| {
            let value = match (tag, choice) {
                (_, 0) => None,
                (STATE, _) => Some([1, 2, 5, 1, 9][usize::try_from(choice).expect("small") % 5]),
                (TOTAL | REJECT, 1) => {
                    counts[tag as usize] = 0;
                    Some(0)
                }
                (TOTAL | REJECT, _) => {
                    counts[tag as usize] += choice % 7;
                    Some(counts[tag as usize])
                }
                _ => Some(choice % 3),
            };
            Word { pause, tag, value, delay, mark }
        });
        words.collect()
    })
}

/// In the order in which they come, stable where several come at once.
fn readings(begin: Time, words: &[Word]) -> Vec<Reading> {
    let mut now = begin;
    let readings = words.iter().map(|word| {
        now = Time(now.0 + word.pause * 1_000_000);
        word.reading(now, Time(now.0 + word.delay * 1_000_000))
    });
    let mut readings: Vec<Reading> = readings.collect();
    readings.sort_by_key(|reading| reading.received_time);
    readings
}

/// What a tag says at one instant comes in the order in which it is said.
fn in_turn(mut words: Vec<Word>) -> Vec<Word> {
    let mut last = [0; TAGS as usize];
    for word in &mut words {
        if word.pause > 0 {
            last = [0; TAGS as usize];
        }
        let held = &mut last[word.tag as usize];
        *held = word.delay.max(*held);
        word.delay = *held;
    }
    words
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pause, tag, value, delay, mark } = self;
        write!(f, "+{pause} {tag}={value:?} after {delay}{}", if *mark { ", mark" } else { "" })
    }
}

impl Word {
    /// Said at a whole second.
    fn whole(self) -> Self {
        Self { pause: self.pause / 1000 * 1000, ..self }
    }

    fn reading(self, source: Time, received: Time) -> Reading {
        let status = if self.mark { Status::Own(OwnStatus::LinkLost) } else { Status::Modbus(2) };
        match self.value {
            Some(value) => Reading::good(TagId(self.tag), Value::Int(value), source, received),
            None => Reading::bad(TagId(self.tag), status, source, received),
        }
    }
}

/// What happens to a line.
#[derive(Clone, Debug)]
enum Event {
    Readings(Vec<Reading>),
    Tick(Time),
}

/// The readings one after the other as they come, with a tick at each multiple of ten seconds and what is due after it, as
/// the pipeline gives them; long silences have few.
fn live(readings: &[Reading]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut now = readings.first().map_or(Time(0), |first| first.received_time);
    for together in readings.chunk_by(|one, other| one.received_time == other.received_time) {
        let next = together[0].received_time;
        let step = i64::try_from(KPI_EVERY.as_nanos()).expect("seconds");
        let ticks =
            (now.0.div_euclid(step) + 1..).map(|tick| Time(tick * step) + LATENESS).take_while(|&tick| tick < next);
        events.extend(
            ticks
                .filter(|&tick| tick > now)
                .enumerate()
                .filter(|(place, _)| *place < 5 || place % 97 == 0)
                .map(|(_, tick)| Event::Tick(tick)),
        );
        events.push(Event::Readings(together.to_vec()));
        now = next;
    }
    events
}

/// A line, and what it told of periods.
struct Watched {
    line: Line,
    derived: Derived,
}

impl Watched {
    fn new(config: &Config) -> Self {
        Self { line: Line::new(config), derived: Derived::default() }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Readings(readings) => self.line.apply(readings, &mut self.derived),
            Event::Tick(now) => self.line.advance(*now, &mut self.derived),
        }
    }

    fn ran(config: &Config, events: &[Event]) -> Self {
        let mut watched = Self::new(config);
        events.iter().for_each(|event| watched.take(event));
        watched
    }

    /// Each period as it stands at last, with its revision.
    fn periods(&mut self, end: Time) -> BTreeMap<Time, Period> {
        self.line.advance(end + LATENESS, &mut self.derived);
        let closed = self.derived.closed.iter().map(|(_, period)| period.clone());
        let held = self.line.periods(end).into_iter().map(|of| of.period);
        closed.chain(held).map(|period| (period.from, period)).collect()
    }
}

/// As `gemba replay` takes them.
fn replayed(config: &Config, readings: &[Reading]) -> Watched {
    let mut watched = Watched::new(config);
    for together in readings.chunk_by(|one, other| one.received_time == other.received_time) {
        watched.line.advance(together[0].received_time, &mut watched.derived);
        watched.line.apply(together, &mut watched.derived);
    }
    watched
}

fn end(readings: &[Reading]) -> Time {
    readings.iter().map(|reading| reading.received_time.max(reading.source_time)).max().expect("some")
        + Duration::from_secs(60)
}

/// Anything: in time, late, far too late, from a clock that is ahead.
fn any_delay() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 6 => 0..=ALLOWED, 2 => ALLOWED..20_000_i64, 1 => 20_000..9_000_000_i64, 1 => -5_000..0_i64]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn batches_do_not_matter(plan in plans(), words in words(any_delay()), cuts in prop::collection::vec(any::<Index>(), 0..20)) {
        let (config, readings) = (a_config(&plan), readings(plan.begin, &words));
        let one_by_one = readings.iter().map(|reading| Event::Readings(vec![reading.clone()])).collect::<Vec<_>>();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(readings.len() + 1)).chain([0, readings.len()]).collect();
        cuts.sort_unstable();
        let batches = cuts.windows(2).filter(|cut| cut[0] < cut[1]).map(|cut| Event::Readings(readings[cut[0]..cut[1]].to_vec()));
        let batches: Vec<Event> = batches.collect();
        let end = end(&readings);
        prop_assert_eq!(Watched::ran(&config, &one_by_one).periods(end), Watched::ran(&config, &batches).periods(end));
    }

    /// What is bad is dated by gemba, and what a tag says after it at the same instant counts from its receipt: that depends
    /// on when it comes, and is left out here.
    #[test]
    fn the_order_of_arrival_does_not_matter(
        plan in plans(),
        words in words(Just(0)),
        delays in prop::collection::vec((0..=ALLOWED, 0..=ALLOWED), 90),
    ) {
        let config = a_config(&plan);
        let mut words: Vec<Word> = words.into_iter().map(|word| Word { mark: false, ..word }).collect();
        words.iter_mut().filter(|word| word.value.is_none()).for_each(|word| word.pause += 1);
        for place in 1..words.len() {
            words[place].pause += i64::from(words[place - 1].value.is_none());
        }
        let delayed = |delay: fn(&(i64, i64)) -> i64| {
            let words = words.iter().zip(&delays).map(|(&word, delays)| Word { delay: delay(delays), ..word });
            readings(plan.begin, &in_turn(words.collect()))
        };
        let (one, other) = (delayed(|of| of.0), delayed(|of| of.1));
        let end = end(&one).max(end(&other));
        prop_assert_eq!(replayed(&config, &one).periods(end), replayed(&config, &other).periods(end));
    }

    #[test]
    fn periods_leave_no_hole_and_never_overlap(plan in plans(), words in words(any_delay())) {
        let (config, readings) = (a_config(&plan), readings(plan.begin, &words));
        let end = end(&readings);
        let periods = Watched::ran(&config, &live(&readings)).periods(end);
        let mut slots = super::Plan::new(super::Calendar::new(config.timezone.clone(), config.shifts, vec![]));
        let mut before: Option<Time> = None;
        for period in periods.values() {
            let to = period.to.min(end);
            let spent: i64 = period.states().map(|(_, spent)| spent).sum();
            prop_assert_eq!(spent, to.0 - period.from.0, "{:?}", period);
            if let Some(before) = before {
                prop_assert!(before <= period.from);
                prop_assert!(slots.slots(before, period.from).iter().all(|slot| slot.shift.is_none()), "a shift is missing");
            }
            before = Some(period.to);
        }
        if let Some(before) = before {
            prop_assert!(slots.slots(before, end).iter().all(|slot| slot.shift.is_none()), "the last is missing");
        }
    }

    #[test]
    fn a_replay_without_ticks_is_as_the_live_run(plan in plans(), words in words(any_delay())) {
        let (config, readings) = (a_config(&plan), readings(plan.begin, &words));
        let end = end(&readings);
        let mut lived = Watched::ran(&config, &live(&readings));
        prop_assert_eq!(lived.periods(end), replayed(&config, &readings).periods(end));
    }

    #[test]
    fn a_kill_leaves_no_trace(plan in plans(), words in words(any_delay()), kills in prop::collection::vec((any::<Index>(), any::<Index>()), 1..6)) {
        let config = a_config(&plan);
        let readings = readings(plan.begin, &words);
        let (events, end) = (live(&readings), end(&readings));
        let mut undisturbed = Watched::ran(&config, &events);

        let mut kills: Vec<_> = kills.iter().map(|(kill, back)| (kill.index(events.len() + 1), *back)).collect();
        kills.sort_unstable_by_key(|&(kill, _)| kill);
        let mut kills = kills.into_iter().peekable();
        // Checkpoints are written now and then; whoever is killed begins from one of those that were.
        let mut line = Watched::new(&config);
        let mut written = vec![(0, None)];
        for place in 0..=events.len() {
            while let Some((_, back)) = kills.next_if(|&(kill, _)| kill == place) {
                let (since, bytes): (usize, Option<Arc<[u8]>>) = written[back.index(written.len())].clone();
                line.line = Line::new(&config);
                if let Some(bytes) = bytes {
                    line.line.restore(&bytes).expect("a checkpoint");
                }
                events[since..place].iter().for_each(|event| line.take(event));
            }
            if place % 3 == 0 {
                written.push((place, Some(line.line.checkpoint().into())));
            }
            events.get(place).into_iter().for_each(|event| line.take(event));
        }
        prop_assert_eq!(line.periods(end), undisturbed.periods(end));
        prop_assert!(line.line.checkpoint() == undisturbed.line.checkpoint());
    }

    /// What was added up for one look and is held for the next is what it would find anew: a line that was restored holds nothing.
    #[test]
    fn a_look_finds_what_the_first_one_would(plan in plans(), words in words(any_delay())) {
        let config = a_config(&plan);
        let mut watched = Watched::new(&config);
        let mut now = plan.begin;
        let events = live(&readings(plan.begin, &words));
        for event in &events {
            watched.take(event);
            now = now.max(match event {
                Event::Readings(readings) => readings[0].received_time,
                Event::Tick(at) => *at,
            });
            let mut anew = Line::new(&config);
            anew.restore(&watched.line.checkpoint()).expect("a checkpoint");
            let look = |line: &mut Line| {
                let station = &line.snapshot(now, SpoolView::default()).stations[0];
                (format!("{:?}", station.kpi), line.periods(now).into_iter().map(|of| of.period).collect::<Vec<_>>())
            };
            prop_assert_eq!(look(&mut watched.line), look(&mut anew), "at {}", now);
        }
        // Sums that upstream was told, too.
        prop_assert!(watched.line.checkpoint() == Watched::ran(&config, &events).line.checkpoint());
    }

    /// The gateway's clock steps, an hour back and forth; what comes is dated by it, or by devices whose clocks are right.
    #[test]
    fn a_clock_that_steps_leaves_no_hole_and_no_negative_time(
        plan in plans(),
        words in words(Just(0)),
        steps in prop::collection::vec((any::<Index>(), prop::sample::select(vec![-HOUR, HOUR])), 1..4),
        dated in any::<bool>(),
    ) {
        let config = a_config(&plan);
        let mut watched = Watched::new(&config);
        let (mut now, mut clock) = (plan.begin, 0);
        let (mut end, mut total) = (plan.begin, 0.0);
        for (place, word) in words.iter().enumerate() {
            now = Time(now.0 + word.pause * 1_000_000);
            clock += steps.iter().filter(|(at, _)| at.index(words.len()) == place).map(|(_, step)| step).sum::<i64>();
            let received = Time(now.0 + clock);
            watched.take(&Event::Tick(received));
            watched.take(&Event::Readings(vec![word.reading(if dated { now } else { received }, received)]));
            end = end.max(received).max(now);
        }
        let mut before: Option<Time> = None;
        let mut slots = super::Plan::new(super::Calendar::new(config.timezone.clone(), config.shifts.clone(), vec![]));
        for period in watched.periods(end).values() {
            let spent: i64 = period.states().map(|(_, spent)| spent).sum();
            prop_assert_eq!(spent, period.to.min(end).0 - period.from.0, "{:?}", period);
            let (repairs, kpi) = (period.tally.repairs, period.view(config.stations[0].oee.as_ref().expect("oee")));
            prop_assert!(repairs.mended_ns >= 0 && repairs.corrective_ns >= 0 && kpi.planned_ns >= kpi.run_ns);
            if let Some(before) = before {
                prop_assert!(before <= period.from);
                prop_assert!(slots.slots(before, period.from).iter().all(|slot| slot.shift.is_none()), "a shift is missing");
            }
            before = Some(period.to);
            total += kpi.total.unwrap_or(0.0);
        }
        // What is late is told again by the next that is not; nothing is counted twice.
        let most = counted(&words, plan.begin, plan.begin, Time(now.0 + 1)).total;
        prop_assert!(total <= most * CAVITIES, "{} of {}", total, most);
    }

    /// Against the words themselves: no timeline, no pieces, no plan.
    #[test]
    fn time_and_parts_are_those_of_the_words(plan in plans(), words in words(Just(0))) {
        let words: Vec<Word> = words.into_iter().map(Word::whole).collect();
        let config = a_config(&Plan { micro_stops: false, ..plan.clone() });
        let readings = readings(plan.begin, &words);
        let end = end(&readings);
        let periods = Watched::ran(&config, &live(&readings)).periods(end);
        let calendar = super::Calendar::new(config.timezone.clone(), config.shifts.clone(), vec![]);
        for period in periods.values() {
            let expected = looked_at(&words, plan.begin, &calendar, period.from, period.to.min(end));
            prop_assert_eq!(period.states().collect::<BTreeMap<_, _>>(), expected, "{:?}", period);
            let parts = counted(&words, plan.begin, period.from, if period.to > end { Time(end.0 + 1) } else { period.to });
            let spec = config.stations[0].oee.as_ref().expect("oee");
            let kpi = period.view(spec);
            prop_assert_eq!((kpi.total, kpi.reject), (Some(parts.total), Some(parts.reject)));
        }
    }

    /// Where nothing is unknown or counted in time that is not planned: OEE is good ideal time over planned time, and the losses are the rest.
    #[test]
    fn what_is_not_lost_is_good(plan in plans(), words in words(0..=ALLOWED)) {
        let plan = Plan { shifts: plan.shifts.into_iter().map(|shift| ShiftSpec { breaks: vec![], ..shift }).collect(), ..plan };
        let words: Vec<Word> = words.into_iter().filter(|word| word.value.is_some()).map(Word::whole).collect();
        let mut config = a_config(&plan);
        // Nor does a reason say so: what is counted then is as little planned as in a break.
        config.knowledge.reasons.iter_mut().for_each(|reason| reason.bucket = None);
        let mut readings = readings(plan.begin, &in_turn(words.clone()));
        readings.insert(0, Reading::good(TagId(STATE), Value::Int(1), plan.begin, plan.begin));
        let end = end(&readings);
        let spec = config.stations[0].oee.as_ref().expect("oee");
        let periods = replayed(&config, &readings).periods(end);
        let kpis = periods.values().map(|period| (period, period.view(spec)));
        for (period, kpi) in kpis.filter(|(period, _)| period.tally.unattributed == 0.0) {
            let to = if period.to > end { Time(end.0 + 1) } else { period.to };
            let parts = counted(&words, plan.begin, period.from, to);
            prop_assert_eq!(kpi.total, Some(parts.total));
            let of = |bucket| seconds(period.tally.bucket(bucket));
            let (run, planned) = (of(Bucket::Run) + of(Bucket::Performance), seconds(kpi.planned_ns));
            let Some(oee) = kpi.figures.oee.filter(|_| parts.total > 0.0 && run > 0.0) else { continue };
            let good_s = parts.ideal_s - parts.reject_s;
            let near = |one: f64, other: f64| (one - other).abs() <= 1e-12 * one.abs().max(other.abs()).max(1.0);
            prop_assert!(near(oee, good_s / planned), "{} is not {} / {}: {:?}", oee, good_s, planned, period);
            let quality = kpi.figures.quality.expect("parts");
            let losses = of(Bucket::Availability) + (run - parts.ideal_s) + parts.ideal_s * (1.0 - quality);
            prop_assert!(near(losses, planned - good_s), "{} lost of {}", losses, planned);
        }
    }
}

/// Nanoseconds in each state, from stretches of time in which neither words nor the calendar change.
fn looked_at(words: &[Word], begin: Time, calendar: &super::Calendar, from: Time, to: Time) -> BTreeMap<State, i64> {
    let mut states = BTreeMap::new();
    let mut said: Vec<(Time, State)> = Vec::new();
    let mut now = begin;
    for word in words {
        now = Time(now.0 + word.pause * 1_000_000);
        if word.tag == STATE {
            let state = match word.value {
                Some(1) => State::Producing,
                Some(2) => State::Starved,
                Some(5) => State::Down,
                _ => State::Unknown,
            };
            said.push((now, state));
        }
    }
    let mut at = from;
    while at < to {
        let slot = calendar.slot(at);
        let state = said.iter().rev().find(|(since, _)| *since <= at).map_or(State::Unknown, |(_, state)| *state);
        let state = match (slot.shift.is_some(), slot.planned) {
            (false, _) => State::NoShift,
            (true, false) => State::Break,
            (true, true) => state,
        };
        let next = said.iter().map(|(since, _)| *since).find(|&since| since > at).unwrap_or(to).min(slot.until).min(to);
        *states.entry(state).or_default() += next.0 - at.0;
        at = next;
    }
    states
}

/// What the words say was made in a window, and how long that takes at best, in seconds.
#[derive(Default)]
struct Parts {
    total: f64,
    reject: f64,
    ideal_s: f64,
    reject_s: f64,
}

fn counted(words: &[Word], begin: Time, from: Time, to: Time) -> Parts {
    let mut parts = Parts::default();
    let mut now = begin;
    let mut last: [Option<f64>; 3] = [None; 3];
    for (place, word) in words.iter().enumerate() {
        now = Time(now.0 + word.pause * 1_000_000);
        let (TOTAL | REJECT, Some(value)) = (word.tag, word.value) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let value = value as f64;
        let Some(before) = last[word.tag as usize].replace(value) else { continue };
        let difference = if value < before { value } else { value - before };
        if now < from || to <= now {
            continue;
        }
        // What is told at the same instant holds for it, too.
        let instant = words[place + 1..].iter().take_while(|later| later.pause == 0).count();
        let told = words[..=place + instant].iter().rev().find(|word| word.tag == PRODUCT && word.value.is_some());
        let (ideal, cavities) = match told.and_then(|word| word.value) {
            Some(1) => (2.0, 1.0),
            Some(2) => (3.0, CAVITIES),
            // 0 is nothing.
            _ => (1.0, 1.0),
        };
        if word.tag == TOTAL {
            parts.total += difference * cavities;
            parts.ideal_s += difference * cavities * ideal;
        } else {
            parts.reject += difference;
            parts.reject_s += difference * ideal;
        }
    }
    parts
}

fn seconds(nanos: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few days")]
    let real = nanos as f64;
    real / 1e9
}
