//! The model by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::process::clogging;
use super::*;
use crate::Time;

const START: Time = Time(1_795_000_000_000_000_000);

fn after(ms: u64) -> Time {
    START + Duration::from_millis(ms)
}

fn line(seed: u64, speed: f64) -> Model {
    Model::new(Options { seed, speed }, START)
}

/// The state of one machine, as it was told.
fn states(events: &[Event], station: Station) -> Vec<(Time, MachineState)> {
    let told = |event: &Event| match event.change {
        Change::State(state) if event.station == station => Some((event.at, state)),
        _ => None,
    };
    events.iter().filter_map(told).collect()
}

/// The boards that a machine took, and those that it passed on.
fn boards(events: &[Event], station: Station) -> (Vec<Board>, Vec<Board>) {
    let (mut taken, mut passed) = (Vec::new(), Vec::new());
    for event in events.iter().filter(|event| event.station == station) {
        match event.change {
            Change::Board(board) => taken.push(board),
            Change::Part(board, None) => passed.push(board),
            _ => {}
        }
    }
    (taken, passed)
}

/// The account of a span, second by second as it were: from what was told, not from the model's log.
fn account(events: &[Event], station: Station, from: Time, to: Time) -> Truth {
    let mut truth = Truth::default();
    let told = states(events, station);
    let before = told.iter().rev().find(|(at, _)| *at < from).map_or(MachineState::Setup, |(_, state)| *state);
    let inside: Vec<_> = told.into_iter().filter(|(at, _)| (from..to).contains(at)).collect();
    let begins = [(from, before)].into_iter().chain(inside.iter().copied());
    for ((begin, state), end) in begins.zip(inside.iter().map(|(at, _)| *at).chain([to])) {
        if end > begin {
            *truth.states.entry(state).or_default() += end.since(begin);
        }
    }
    truth.transitions = inside.len() as u64;
    for event in events.iter().filter(|event| event.station == station && (from..to).contains(&event.at)) {
        match event.change {
            Change::Part(_, None) => truth.good += 1,
            Change::Part(_, Some(defect)) => *truth.defects.entry(defect.name().to_owned()).or_default() += 1,
            _ => {}
        }
    }
    truth.reject = truth.defects.values().sum();
    truth.total = truth.good + truth.reject;
    truth
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn steps_do_not_change_history(
        seed: u64,
        speed in 0.5..100.0,
        mut cuts in prop::collection::vec(0_u64..60_000, 0..40),
    ) {
        let mut whole = line(seed, speed);
        let expected = whole.advance(after(60_000));
        cuts.push(60_000);
        let mut stepped = line(seed, speed);
        let mut events = Vec::new();
        // Not in order: going back does nothing.
        for cut in cuts {
            events.extend(stepped.advance(after(cut)));
        }
        prop_assert_eq!(events, expected);
        for station in Station::ALL {
            prop_assert_eq!(stepped.panel(station), whole.panel(station));
            let truth = |model: &Model| model.truth(station, START, after(60_000));
            prop_assert_eq!(truth(&stepped), truth(&whole));
        }
        prop_assert_eq!(stepped.next_at(), whole.next_at());
        prop_assert!(whole.next_at() >= after(60_000));
    }

    #[test]
    fn truths_add_up(seed: u64, speed in 0.5..100.0, mut cuts: [u16; 3]) {
        let mut model = line(seed, speed);
        let events = model.advance(after(60_000));
        cuts.sort_unstable();
        // Also before the start, and after the end, where the last state goes on.
        let [a, b, c] = cuts.map(|cut| after(cut.into()) - Duration::from_secs(2));
        for station in Station::ALL {
            let (first, second, both) =
                (model.truth(station, a, b), model.truth(station, b, c), model.truth(station, a, c));
            prop_assert_eq!(&both, &account(&events, station, a, c));
            prop_assert_eq!(both.span(), c.since(a));
            for state in MachineState::ALL {
                prop_assert_eq!(both.time_in(state), first.time_in(state) + second.time_in(state));
            }
            prop_assert_eq!(both.transitions, first.transitions + second.transitions);
            prop_assert_eq!((both.good, both.reject), (first.good + second.good, first.reject + second.reject));
            prop_assert_eq!(both.good + both.reject, both.total);
            prop_assert_eq!(both.defects.values().sum::<u64>(), both.reject);
        }
    }

    #[test]
    fn no_state_is_too_short_to_be_seen(seed: u64, speed in 0.5..100.0) {
        let mut model = line(seed, speed);
        let events = model.advance(after(60_000));
        for station in Station::ALL {
            let told = states(&events, station);
            prop_assert_eq!(told[0], (START, MachineState::Producing));
            for pair in told.windows(2) {
                prop_assert_ne!(pair[0].1, pair[1].1);
                prop_assert!(pair[1].0.since(pair[0].0) >= SHORTEST_STATE, "{:?}", pair);
            }
        }
    }

    #[test]
    fn no_board_is_lost_doubled_or_overtaken(seed: u64, speed in 0.5..100.0) {
        let mut model = line(seed, speed);
        let events = model.advance(after(60_000));
        for (before, station) in [(Station::Printer, Station::Aoi), (Station::Aoi, Station::Oven)] {
            let (_, passed) = boards(&events, before);
            let (taken, _) = boards(&events, station);
            // Two were there from the start; at most four wait, and one is held by a machine that has no room for it.
            let (prefilled, rest) = taken.split_at(2);
            prop_assert!(rest.iter().eq(passed.iter().take(rest.len())), "in order");
            prop_assert!(prefilled.iter().all(|board| !passed.contains(board)));
            prop_assert!(passed.len() - rest.len() <= 4 + 1);
        }
        for station in Station::ALL {
            let (taken, passed) = boards(&events, station);
            prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len());
            prop_assert!(passed.iter().all(|board| taken.contains(board)));
            let truth = model.truth(station, START, after(60_000));
            prop_assert!(taken.len() as u64 - truth.total <= 1, "one is in the machine");
            let counted = model.panel(station).total - line(seed, speed).panel(station).total;
            prop_assert_eq!(u64::from(counted), truth.total);
        }
        for event in &events {
            prop_assert!(event.panel.before <= 4 && event.panel.room <= 4);
        }
    }
}

#[test]
fn a_machine_starves_and_blocks_only_when_its_buffers_say_so() {
    let events = line(3, 1.0).advance(after(3_600_000));
    let mut seen = BTreeSet::new();
    for event in &events {
        match event.change {
            Change::State(MachineState::Starved) => assert_eq!(event.panel.before, 0, "{event:?}"),
            Change::State(MachineState::Blocked) => assert_eq!(event.panel.room, 0, "{event:?}"),
            _ => continue,
        }
        seen.insert((event.station, event.panel.state));
    }
    let expected = [
        (Station::Printer, MachineState::Blocked),
        (Station::Aoi, MachineState::Starved),
        (Station::Aoi, MachineState::Blocked),
        (Station::Oven, MachineState::Starved),
    ];
    assert_eq!(seen, BTreeSet::from(expected), "the printer never starves, the oven never blocks");
}

#[test]
fn a_shift_is_plausible() {
    const SHIFT: u64 = 8 * 3_600_000;
    let mut model = line(7, 1.0);
    let events = model.advance(after(SHIFT));
    for station in Station::ALL {
        let truth = model.truth(station, START, after(SHIFT));
        let ideal = model.options().ideal(station);
        let kpis = [truth.availability(), truth.performance(ideal), truth.quality(), truth.oee(ideal)];
        let [availability, performance, quality, oee] = kpis.map(|kpi| kpi.expect("there is a shift of data"));
        assert!((0.6..0.95).contains(&availability), "{station}: {availability}");
        assert!((0.7..=1.0).contains(&performance), "{station}: {performance}");
        assert!((0.95..1.0).contains(&quality), "{station}: {quality}");
        assert!((0.4..0.95).contains(&oee), "{station}: {oee}");
        assert!((oee - availability * performance * quality).abs() < 1e-12);
        let seen = truth.states.len();
        assert_eq!(seen, if station == Station::Aoi { 5 } else { 4 }, "{station}: {:?}", truth.states);

        let (taken, _) = boards(&events, station);
        let changes = taken.windows(2).filter(|pair| pair[0].product != pair[1].product).count();
        assert!((60..150).contains(&changes), "{station}: {changes} product changes");
        let setups = states(&events, station).iter().filter(|(_, state)| *state == MachineState::Setup).count();
        assert!(setups.abs_diff(changes) <= 1, "{station}: a setup for each: {setups}, {changes}");
    }

    // Each product has its own defects.
    let mut defects = BTreeMap::<_, u32>::new();
    for event in events.iter().filter(|event| event.station == Station::Aoi) {
        if let Change::Part(board, Some(defect)) = event.change {
            *defects.entry((board.product, defect)).or_default() += 1;
        }
    }
    let most = |product| defects.iter().filter(|((of, _), _)| *of == product).max_by_key(|(_, count)| **count);
    assert_eq!(most(Product::EcuA7).map(|(key, _)| key.1), Some(Defect::Bridge));
    assert_eq!(most(Product::EcuB2).map(|(key, _)| key.1), Some(Defect::Tombstone));
    assert_eq!(most(Product::Bms48).map(|(key, _)| key.1), Some(Defect::Insufficient));
    assert_eq!(defects.keys().map(|(_, defect)| defect).collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn the_first_minute_has_something_to_show() {
    for seed in 0..20 {
        let events = line(seed, 1.0).advance(after(60_000));
        let stop = |station| {
            states(&events, station).windows(2).find(|pair| pair[0].1 == MachineState::Down).map(<[_]>::to_vec)
        };
        assert!(stop(Station::Printer).is_some(), "seed {seed}: a micro-stop that comes and goes");
        let rejected = events.iter().any(|event| matches!(event.change, Change::Part(_, Some(_))));
        assert!(rejected, "seed {seed}: a reject");
        assert!(
            states(&events, Station::Aoi).iter().any(|(_, state)| *state == MachineState::Down),
            "seed {seed}: a breakdown"
        );
        assert!(
            states(&events, Station::Printer).iter().any(|(_, state)| *state == MachineState::Blocked),
            "seed {seed}"
        );
    }
}

#[test]
fn speed_compresses_time() {
    let made = |speed, ms| {
        let mut model = line(1, speed);
        model.advance(after(ms));
        let truth = Station::ALL.map(|station| model.truth(station, START, after(ms)));
        let ideal = model.options().ideal(Station::Printer);
        (truth[0].total, truth[0].oee(ideal).expect("it ran"))
    };
    let (parts, oee) = made(1.0, 3_600_000);
    for (speed, ms) in [(4.0, 900_000), (10.0, 360_000), (30.0, 120_000)] {
        let (faster, its_oee) = made(speed, ms);
        assert!(faster.abs_diff(parts) < parts / 5, "{speed}: {faster} instead of {parts}");
        assert!((its_oee - oee).abs() < 0.15, "{speed}: {its_oee} instead of {oee}");
    }
    let ideal = |speed| Options { seed: 1, speed }.ideal(Station::Printer);
    assert_eq!([1.0, 10.0, 7.0].map(ideal), [1200, 120, 171].map(Duration::from_millis));
}

#[test]
fn seeds_differ() {
    let of = |seed| line(seed, 1.0).advance(after(30_000));
    assert_ne!(of(1), of(2));
    assert_eq!(of(1), of(1));
}

#[test]
fn process_values_drift_within_reason() {
    let events = line(2, 1.0).advance(after(1_800_000));
    let values = |station, place: usize| -> Vec<f64> {
        let samples = events.iter().filter(|event| event.station == station && event.change == Change::Sample);
        samples.map(|event| event.panel.values[place]).collect()
    };
    let pressure = values(Station::Printer, 0);
    assert_eq!(pressure.len(), 4 * 1800 - 1, "four times a second");
    assert!(pressure.iter().all(|newtons| (55.0..65.0).contains(newtons)));
    let falls = pressure.windows(2).filter(|pair| pair[0] - pair[1] > 4.0).count();
    assert_eq!(falls, 3, "kneaded each ten minutes");
    assert!(values(Station::Printer, 1).iter().all(|celsius| (20.0..27.0).contains(celsius)));
    for (place, setpoint) in [150.0, 200.0, 245.0].into_iter().enumerate() {
        let zone = values(Station::Oven, place);
        assert!(zone.iter().all(|celsius| (celsius - setpoint).abs() < 6.0));
        let (low, high) = zone.iter().fold((f64::MAX, f64::MIN), |(low, high), one| (low.min(*one), high.max(*one)));
        assert!(high - low > 1.0, "zone {place} drifts: {low} to {high}");
    }
    let scores = |clogged: std::ops::Range<f64>| {
        let passed = events.iter().filter_map(|event| match (event.station, event.change) {
            (Station::Aoi, Change::Part(board, None)) => Some((board, event.panel.values[0])),
            _ => None,
        });
        let scores: Vec<_> =
            passed.filter(|(board, _)| clogged.contains(&clogging(board.serial))).map(|one| one.1).collect();
        assert!(scores.len() > 50 && scores.iter().all(|score| (0.0..=1.0).contains(score)));
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        mean
    };
    assert!(scores(0.0..0.2) > scores(0.8..1.0) + 0.02, "the score falls as the stencil clogs");
}

#[test]
fn kpis_follow_the_arithmetic() {
    let second = Duration::from_secs;
    let mut truth = Truth::default();
    assert_eq!(
        (truth.availability(), truth.performance(second(1)), truth.quality(), truth.oee(second(1))),
        (None, None, None, None)
    );
    truth.states.insert(MachineState::Down, second(100));
    assert_eq!(
        (truth.availability(), truth.performance(second(1)), truth.oee(second(1))),
        (Some(0.0), None, Some(0.0))
    );
    truth.states.insert(MachineState::Producing, second(300));
    assert_eq!(
        (truth.availability(), truth.performance(second(1)), truth.oee(second(1))),
        (Some(0.75), Some(0.0), Some(0.0))
    );
    (truth.total, truth.good, truth.reject) = (100, 90, 10);
    assert_eq!((truth.performance(second(2)), truth.quality()), (Some(200.0 / 300.0), Some(0.9)));
    assert_eq!(truth.oee(second(2)), Some(0.75 * (200.0 / 300.0) * 0.9));
    assert_eq!(truth.span(), second(400));
}
