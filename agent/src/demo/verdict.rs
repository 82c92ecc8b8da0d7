//! Do gemba's figures agree with what the machines did? Pure.
//!
//! # What is allowed
//!
//! The machines' events happen on whole milliseconds. OPC UA carries such a time as it is, and so does the oven's payload:
//! of `aoi-1` and `oven-1` everything is exact, but for the rounding of a double ([`ROUNDING`]).
//!
//! The printer is polled. A part is seen a little late, and in the end it is seen: counts, quality and (over the same planned
//! time) OEE are exact, since OEE = ideal cycle time × good parts / planned time, whatever the run time was. A change of state
//! counts from the poll that shows it. Between the polls at `r1` and `r2` gemba goes by what `r1` showed, which is wrong only
//! if the state changed after that answer was made and before `r2`. As long as the machine shows a
//! change, and an answer comes in, within one gap, a change spoils two gaps between polls at most, and no other gap is
//! spoilt. Run time is short by late starts and long by late
//! stops, which take turns: of `n` changes at most `n/2`, rounded up, are of one kind. So the run time, and the time in any one
//! state, is off by no more than the `n + 1` longest gaps between polls: [`Late`]. They are measured, at upstream, which gets
//! every poll. From the run time's bound follow those of availability and performance.
//!
//! Both sides speak of one span, and gemba names it. So that it cannot leave out what it missed, the span must begin before
//! the machines did, or with the shift ([`speaks_from`]); upstream's sums begin before the machines did, since they never
//! restart.
//!
//! In the moment after a shift's change a poll may bring a part that was made before it: the printer's counts may be higher
//! by what was made within two gaps before the span.

use std::time::Duration;

use gemba_drivers::Time;
use gemba_drivers::sim::smt::{MachineState, Truth};

use super::page::Kpi;
use super::receiver::{Polls, Sums};

/// Relative error of a few operations on doubles, and of times in seconds; far below anything that could be wrong.
pub const ROUNDING: f64 = 1e-9;

/// How much later than it happens something is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// It comes with its own time.
    Never,
    /// At the next poll.
    Polled(Polls),
}

impl Late {
    /// By how much the time in a state may be off after so many changes.
    #[must_use]
    pub fn state_time(&self, changes: u64) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Polled(_) if changes == 0 => Duration::ZERO,
            Self::Polled(polls) => polls.longest(changes + 1),
        }
    }

    /// How long before it counts something may have happened.
    #[must_use]
    pub fn at_most(&self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::Polled(polls) => polls.longest(2),
        }
    }
}

/// What is known of a station over the span that gemba's figures speak of.
#[derive(Clone, Debug)]
pub struct Known {
    /// What the machine did in it.
    pub truth: Truth,
    /// What it did in the span that begins [`Late::at_most`] earlier.
    pub with_before: Truth,
    /// The time that a part takes at best.
    pub ideal: Duration,
    /// How the machine is read.
    pub late: Late,
}

/// One figure on both sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What gemba computed.
    pub seen: Option<f64>,
    /// What the machine knows.
    pub known: Option<f64>,
    /// How far gemba's may be below and above.
    pub allowed: (f64, f64),
}

impl Figure {
    /// Whether they agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let (below, above) = self.allowed;
        match (self.seen, self.known) {
            (Some(seen), Some(known)) => (-below..=above).contains(&(seen - known)),
            (None, None) => true,
            // So little run time that it may have gone unseen: there is nothing to compare.
            (None, Some(_)) | (Some(_), None) => below.is_infinite() && above.is_infinite(),
        }
    }
}

/// The page's figures of a station beside the machine's.
#[must_use]
pub fn judge(seen: &Kpi, known: &Known) -> Vec<Figure> {
    let Known { truth, with_before, ideal, late } = known;
    let (planned, run) = (truth.span().as_secs_f64(), truth.time_in(MachineState::Producing).as_secs_f64());
    let off = late.state_time(with_before.transitions).as_secs_f64();
    let ideal_s = ideal.as_secs_f64();
    let (total, good) = (real(truth.total), real(truth.good));
    let more = real(with_before.total - truth.total);
    let more_good = real(with_before.good - truth.good);
    let more_reject = real(with_before.reject - truth.reject);

    // The whole run time may be the error: what is divided by it says nothing.
    let unseen = off > 0.0 && run <= off;
    let performance = if unseen {
        (f64::INFINITY, f64::INFINITY)
    } else {
        let told = truth.performance(*ideal).unwrap_or(0.0);
        let low = if run > 0.0 { ideal_s * total / (run + off) } else { 0.0 };
        let high = if run > 0.0 { ideal_s * (total + more) / (run - off) } else { 0.0 };
        (told - low + ROUNDING * told.max(1.0), high - told + ROUNDING * told.max(1.0))
    };
    let oee = if unseen {
        (f64::INFINITY, f64::INFINITY)
    } else {
        let above = if planned > 0.0 { ideal_s * more_good / planned } else { 0.0 };
        (ROUNDING, above + ROUNDING)
    };
    let quality = match (total > 0.0, more > 0.0) {
        (_, false) => ROUNDING,
        (true, true) => more / (total + more) + ROUNDING,
        (false, true) => f64::INFINITY, // the only parts are those of before
    };
    let availability = if planned > 0.0 { off / planned + ROUNDING } else { ROUNDING };

    let even = |by: f64| (by, by);
    let figure = |name, seen, known, allowed| Figure { name, seen, known, allowed };
    vec![
        figure("OEE", seen.oee, truth.oee(*ideal), oee),
        figure("availability", seen.availability, truth.availability(), even(availability)),
        figure("performance", seen.performance, truth.performance(*ideal), performance),
        figure("quality", seen.quality, truth.quality(), even(quality)),
        figure("total", seen.total, Some(total), (0.0, more)),
        figure("good", seen.good, Some(good), (0.0, more_good)),
        figure("reject", seen.reject, Some(real(truth.reject)), (0.0, more_reject)),
        figure("coverage", seen.coverage, (planned > 0.0).then_some(1.0), even(ROUNDING)),
    ]
}

/// Whether figures since then speak of all that the machine did in the shift: a shift of the demo begins on the hour. The
/// comparison takes the span from gemba; one that began late would leave out what gemba missed.
#[must_use]
pub fn speaks_from(since: Option<Time>, started: Time) -> bool {
    const HOUR: i64 = 3_600_000_000_000;
    since.is_some_and(|since| since <= started || since.0 % HOUR == 0)
}

/// What upstream was told of a station beside what the machine did since then: good and rejected parts, and the time in
/// each state.
#[must_use]
pub fn judge_sums(sums: &Sums, truth: &Truth, late: &Late) -> Vec<Figure> {
    let off = late.state_time(truth.transitions).as_secs_f64() + ROUNDING * truth.span().as_secs_f64().max(1.0);
    let exact = |name, seen, known| Figure { name, seen: Some(seen), known: Some(real(known)), allowed: (0.0, 0.0) };
    let mut figures = vec![
        exact("good parts upstream", sums.good, truth.good),
        exact("rejected parts upstream", sums.reject, truth.reject),
    ];
    figures.extend(STATES.map(|(state, _, name)| {
        let seen = sums.states.get(word(state)).copied().unwrap_or(0.0);
        Figure { name, seen: Some(seen), known: Some(truth.time_in(state).as_secs_f64()), allowed: (off, off) }
    }));
    let strange = sums.states.iter().filter(|(told, _)| STATES.iter().all(|(_, word, _)| word != told));
    let strange: f64 = strange.map(|(_, seconds)| seconds).sum();
    figures.push(exact("seconds upstream in states that the machine does not have", strange, 0));
    figures
}

/// Each state of a machine, gemba's word for it, and what its time is called here.
const STATES: [(MachineState, &str, &str); 5] = [
    (MachineState::Producing, "producing", "seconds producing upstream"),
    (MachineState::Starved, "starved", "seconds starved upstream"),
    (MachineState::Blocked, "blocked", "seconds blocked upstream"),
    (MachineState::Setup, "setup", "seconds in setup upstream"),
    (MachineState::Down, "down", "seconds down upstream"),
];

/// gemba's word for a machine's state.
#[must_use]
pub fn word(state: MachineState) -> &'static str {
    STATES.iter().find(|(held, ..)| *held == state).map_or("unknown", |(_, word, _)| word)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const IDEAL: Duration = Duration::from_millis(1200);

    /// 60 s of which 45 run, 30 parts, 27 good, four changes of state.
    fn truth() -> Truth {
        let seconds = Duration::from_secs;
        Truth {
            states: BTreeMap::from([
                (MachineState::Producing, seconds(45)),
                (MachineState::Setup, seconds(5)),
                (MachineState::Down, seconds(10)),
            ]),
            transitions: 4,
            total: 30,
            good: 27,
            reject: 3,
            defects: BTreeMap::new(),
        }
    }

    fn exact() -> Known {
        Known { truth: truth(), with_before: truth(), ideal: IDEAL, late: Late::Never }
    }

    /// Polled each 100 ms, once after 180 ms.
    fn polled() -> Known {
        let mut polls = Polls::default();
        (0..20).chain([21]).for_each(|poll| polls.note(poll * 100_000_000 - if poll == 21 { 20_000_000 } else { 0 }));
        Known { late: Late::Polled(polls), ..exact() }
    }

    fn seen() -> Kpi {
        let (availability, performance, quality) = (45.0 / 60.0, 1.2 * 30.0 / 45.0, 27.0 / 30.0);
        Kpi {
            since: None,
            oee: Some(availability * performance * quality),
            availability: Some(availability),
            performance: Some(performance),
            quality: Some(quality),
            coverage: Some(1.0),
            total: Some(30.0),
            good: Some(27.0),
            reject: Some(3.0),
        }
    }

    fn wrong(seen: &Kpi, known: &Known) -> Vec<&'static str> {
        judge(seen, known).into_iter().filter(|figure| !figure.agrees()).map(|figure| figure.name).collect()
    }

    #[test]
    fn the_truth_agrees_with_itself() {
        assert_eq!(wrong(&seen(), &exact()), Vec::<&str>::new());
        assert_eq!(wrong(&seen(), &polled()), Vec::<&str>::new());
    }

    #[test]
    fn each_figure_can_be_wrong() {
        type Field = fn(&mut Kpi) -> &mut Option<f64>;
        let fields: [(&str, Field); 8] = [
            ("OEE", |kpi| &mut kpi.oee),
            ("availability", |kpi| &mut kpi.availability),
            ("performance", |kpi| &mut kpi.performance),
            ("quality", |kpi| &mut kpi.quality),
            ("total", |kpi| &mut kpi.total),
            ("good", |kpi| &mut kpi.good),
            ("reject", |kpi| &mut kpi.reject),
            ("coverage", |kpi| &mut kpi.coverage),
        ];
        for (name, field) in fields {
            for (known, by) in [(exact(), 1e-6), (polled(), 0.05)] {
                for change in [by, -by] {
                    let mut seen = seen();
                    let held = field(&mut seen);
                    *held = held.map(|value| value + change);
                    assert_eq!(wrong(&seen, &known), [name], "off by {change}");
                    *field(&mut seen) = None;
                    assert_eq!(wrong(&seen, &known), [name], "missing");
                }
            }
        }
    }

    #[test]
    fn a_polled_run_time_is_off_by_no_more_than_the_longest_gaps() {
        let known = polled();
        assert_eq!(known.late.state_time(4), Duration::from_millis(180 + 4 * 100));
        assert_eq!((known.late.state_time(0), known.late.at_most()), (Duration::ZERO, Duration::from_millis(280)));
        let with_run = |run: f64| {
            let (availability, performance) = (run / 60.0, 1.2 * 30.0 / run);
            Kpi { availability: Some(availability), performance: Some(performance), ..seen() }
        };
        for fine in [44.43, 45.57] {
            assert_eq!(wrong(&with_run(fine), &known), Vec::<&str>::new(), "{fine} s");
            assert_eq!(wrong(&with_run(fine), &exact()), ["availability", "performance"], "{fine} s");
        }
        for off in [44.41, 45.59] {
            assert_eq!(wrong(&with_run(off), &known), ["availability", "performance"], "{off} s");
        }
    }

    #[test]
    fn a_part_of_the_shift_before_may_be_polled_in_this_one() {
        let mut known = polled();
        known.with_before.total += 1;
        known.with_before.good += 1;
        let one_more = Kpi {
            total: Some(31.0),
            good: Some(28.0),
            quality: Some(28.0 / 31.0),
            performance: Some(1.2 * 31.0 / 45.0),
            oee: Some(1.2 * 28.0 / 60.0),
            ..seen()
        };
        assert_eq!(wrong(&one_more, &known), Vec::<&str>::new());
        assert_eq!(wrong(&one_more, &polled()), ["OEE", "performance", "quality", "total", "good"]);
        let two_more = Kpi { total: Some(32.0), ..one_more };
        assert_eq!(wrong(&two_more, &known), ["total"]);
        let fewer = Kpi { total: Some(29.0), ..seen() };
        assert_eq!(wrong(&fewer, &known), ["total"]);
    }

    #[test]
    fn a_span_that_begins_late_leaves_something_out() {
        let started = Time(1_000_000_007_000_000_000);
        let second = Duration::from_secs(1);
        assert!(speaks_from(Some(started), started) && speaks_from(Some(started - second), started));
        assert!(!speaks_from(Some(started + second), started), "what was before is missing");
        assert!(!speaks_from(None, started), "all is missing");
        let hour: Time = "2026-11-02T14:00:00Z".parse().expect("a time");
        assert!(speaks_from(Some(hour), hour - second), "a shift began");
    }

    #[test]
    fn nothing_made_and_nothing_run_are_figures_too() {
        let idle =
            Truth { states: BTreeMap::from([(MachineState::Setup, Duration::from_secs(9))]), ..Truth::default() };
        let known = Known { truth: idle.clone(), with_before: idle, ..exact() };
        let none = Kpi {
            oee: Some(0.0),
            availability: Some(0.0),
            performance: None,
            quality: None,
            coverage: Some(1.0),
            total: Some(0.0),
            good: Some(0.0),
            reject: Some(0.0),
            since: None,
        };
        assert_eq!(wrong(&none, &known), Vec::<&str>::new());
        assert_eq!(wrong(&seen(), &known).len(), 7, "all but the coverage");
    }

    #[test]
    fn upstream_is_held_to_parts_and_to_each_state() {
        let sums = Sums {
            good: 27.0,
            reject: 3.0,
            states: [("producing", 45.0), ("setup", 5.0), ("down", 10.0)].map(|(word, s)| (word.to_owned(), s)).into(),
            ..Sums::default()
        };
        let wrong = |sums: &Sums, late| {
            let figures = judge_sums(sums, &truth(), late).into_iter();
            figures.filter(|figure| !figure.agrees()).map(|figure| figure.name).collect::<Vec<_>>()
        };
        let polled = polled().late;
        assert_eq!(wrong(&sums, &Late::Never), Vec::<&str>::new());
        assert_eq!(wrong(&Sums { good: 28.0, ..sums.clone() }, &polled), ["good parts upstream"]);
        assert_eq!(wrong(&Sums { reject: f64::NAN, ..sums.clone() }, &polled), ["rejected parts upstream"]);
        for (state, _, name) in STATES {
            let mut off = sums.clone();
            *off.states.entry(word(state).to_owned()).or_default() += 0.5;
            assert_eq!(wrong(&off, &Late::Never), [name]);
            assert_eq!(wrong(&off, &polled), Vec::<&str>::new(), "within what polls may miss");
            *off.states.entry(word(state).to_owned()).or_default() += 0.5;
            assert_eq!(wrong(&off, &polled), [name]);
        }
        let mut strange = sums;
        strange.states.insert("unknown".to_owned(), 0.001);
        assert_eq!(wrong(&strange, &polled), ["seconds upstream in states that the machine does not have"]);
    }
}
