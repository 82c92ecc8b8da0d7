//! Start-ups: from when a machine runs again until production is stable. Who rejects parts then pays for the stop, not for the
//! process: of the six big losses the fifth (Nakajima, *Introduction to TPM*, 1988: start-up losses; "defective parts
//! produced from startup until stable (steady-state) production is reached", <https://www.vorne.com/learn/six-big-losses>).

use gemba_drivers::Time;

use crate::model::setting::Setting;
use crate::model::timeline::{Facts, Made};
use crate::model::window::Stretch;
use crate::model::{Lasts, StartupSpec};

/// The start-ups of a stretch of time, also one that began before it.
#[derive(Debug, Default)]
pub struct Startups(Vec<(Time, Time)>);

impl Startups {
    /// None where nothing is said of start-ups.
    pub fn of(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> Self {
        let Some(spec) = &setting.spec.startup else { return Self::default() };
        let place = facts.place(stretch.from);
        let stops = |place: &usize| facts.span(*place).is_some_and(|span| spec.after.contains(&span.state));
        let first = (0..=place).rev().find(stops).unwrap_or(place);
        let (mut all, mut stopped) = (Vec::new(), false);
        for place in first..facts.spans() {
            let Some(span) = facts.span(place).filter(|span| span.from < stretch.end()) else { break };
            if spec.after.contains(&span.state) {
                stopped = true;
            } else if stopped && span.state.is_run() {
                stopped = false;
                all.push((span.from, end(facts, setting, spec, place)));
            }
        }
        Self(all)
    }

    /// Whether parts were made in a start-up. What is counted at its beginning was made before it, and at its end in it.
    pub fn covers(&self, made: &Made) -> bool {
        let before = self.0.partition_point(|&(from, _)| from < made.at);
        before.checked_sub(1).is_some_and(|last| made.at <= self.0[last].1)
    }

    /// Whether parts that were made at `at`, and rejected later, were made in one.
    pub fn cover(&self, at: Time) -> bool {
        let begun = self.0.partition_point(|&(from, _)| from <= at);
        begun.checked_sub(1).is_some_and(|last| at <= self.0[last].1)
    }
}

/// Up to where facts may be forgotten instead of `until`, so that a start-up which goes on then is still known for one.
pub fn cut(facts: Facts<'_>, setting: Setting<'_>, until: Time) -> Time {
    let Some(spec) = &setting.spec.startup else { return until };
    let place = facts.place(until);
    let stops = |place: &usize| facts.span(*place).is_some_and(|span| spec.after.contains(&span.state));
    let Some(stop) = (0..=place).rev().find(stops).filter(|&stop| stop < place) else { return until };
    let begins = (stop + 1..=place).find(|&place| facts.span(place).is_some_and(|span| span.state.is_run()));
    if begins.is_some_and(|begins| end(facts, setting, spec, begins) < until) {
        return until;
    }
    Time(facts.end(stop, until).0 - 1)
}

/// When the start-up ends that begins with the state at `place`: at the next stop that another one follows, if not before.
fn end(facts: Facts<'_>, setting: Setting<'_>, spec: &StartupSpec, place: usize) -> Time {
    let spans =
        || (place..facts.spans()).filter_map(|place| Some((facts.span(place)?, facts.end(place, Time(i64::MAX)))));
    let stop = spans().find(|(span, _)| spec.after.contains(&span.state)).map_or(Time(i64::MAX), |(span, _)| span.from);
    match spec.lasts {
        Lasts::Run(time) => {
            let mut left = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
            for (span, end) in spans().take_while(|(span, _)| span.from < stop).filter(|(span, _)| span.state.is_run())
            {
                let ran = end.0.saturating_sub(span.from.0);
                if ran >= left {
                    return Time(span.from.0 + left);
                }
                left -= ran;
            }
            stop
        }
        Lasts::Parts(parts) => {
            let from = facts.span(place).map_or(stop, |span| Time(span.from.0 + 1));
            let mut left = parts;
            for made in facts.made(from, stop).filter(|made| made.count.is_part(setting.spec)) {
                left -= made.parts;
                if left <= 0.0 {
                    return made.at;
                }
            }
            stop
        }
    }
}
