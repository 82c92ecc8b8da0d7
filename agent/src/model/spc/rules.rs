//! What chance alone hardly does: the Western Electric and the Nelson rules.
//!
//! A zone rule flags a point only if it is itself beyond the zone, on the side of the others: the newest point is the news.

use std::fmt;
use std::sync::Arc;

use gemba_drivers::Time;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::spec::Kind;

/// How many points the longest rule looks at.
pub(super) const LOOKS_AT: usize = 15;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// One point beyond 3 sigma.
    WesternElectric1,
    /// Two of three beyond 2 sigma on one side.
    WesternElectric2,
    /// Four of five beyond 1 sigma on one side.
    WesternElectric3,
    /// Eight in a row on one side of the centre.
    WesternElectric4,
    /// One point beyond 3 sigma.
    Nelson1,
    /// Nine in a row on one side of the centre.
    Nelson2,
    /// Six in a row, each above the one before, or each below.
    Nelson3,
    /// Fourteen in a row, up and down in turn.
    Nelson4,
    /// Two of three beyond 2 sigma on one side.
    Nelson5,
    /// Four of five beyond 1 sigma on one side.
    Nelson6,
    /// Fifteen in a row within 1 sigma.
    Nelson7,
    /// Eight in a row beyond 1 sigma, on either side.
    Nelson8,
    /// Beyond the limits of the EWMA.
    Ewma,
    /// Beyond the decision interval of the CUSUM.
    Cusum,
}

impl Rule {
    /// Every rule that can be selected.
    pub const ALL: [Self; 12] = [
        Self::WesternElectric1,
        Self::WesternElectric2,
        Self::WesternElectric3,
        Self::WesternElectric4,
        Self::Nelson1,
        Self::Nelson2,
        Self::Nelson3,
        Self::Nelson4,
        Self::Nelson5,
        Self::Nelson6,
        Self::Nelson7,
        Self::Nelson8,
    ];

    /// The word used in configuration and on the page.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::WesternElectric1 => "western_electric_1",
            Self::WesternElectric2 => "western_electric_2",
            Self::WesternElectric3 => "western_electric_3",
            Self::WesternElectric4 => "western_electric_4",
            Self::Nelson1 => "nelson_1",
            Self::Nelson2 => "nelson_2",
            Self::Nelson3 => "nelson_3",
            Self::Nelson4 => "nelson_4",
            Self::Nelson5 => "nelson_5",
            Self::Nelson6 => "nelson_6",
            Self::Nelson7 => "nelson_7",
            Self::Nelson8 => "nelson_8",
            Self::Ewma => "ewma",
            Self::Cusum => "cusum",
        }
    }

    /// What it says, for people.
    #[must_use]
    pub fn says(self) -> &'static str {
        match self {
            Self::WesternElectric1 | Self::Nelson1 => "a point beyond 3 sigma",
            Self::WesternElectric2 | Self::Nelson5 => "2 of 3 points beyond 2 sigma, on one side",
            Self::WesternElectric3 | Self::Nelson6 => "4 of 5 points beyond 1 sigma, on one side",
            Self::WesternElectric4 => "8 points in a row on one side of the centre",
            Self::Nelson2 => "9 points in a row on one side of the centre",
            Self::Nelson3 => "6 points in a row rising, or falling",
            Self::Nelson4 => "14 points in a row up and down in turn",
            Self::Nelson7 => "15 points in a row within 1 sigma",
            Self::Nelson8 => "8 points in a row beyond 1 sigma",
            Self::Ewma => "the moving average is beyond its limits",
            Self::Cusum => "the cumulative sum is beyond its decision interval",
        }
    }

    /// Whether it makes sense for this part of this chart.
    ///
    /// Zones need a statistic that is about normal, so neither ranges nor counts have them; moving ranges share readings with
    /// their neighbours, so their runs mean nothing (Montgomery, 6.4.1; Nelson; Minitab offers the same tests 1 to 4 for
    /// charts of counts and ranges).
    #[must_use]
    pub fn fits(self, kind: Kind, part: Part) -> bool {
        match self {
            Self::Ewma => matches!(kind, Kind::Ewma { .. }),
            Self::Cusum => matches!(kind, Kind::Cusum { .. }),
            _ if kind.weighs() => false,
            Self::WesternElectric1 | Self::Nelson1 => true,
            Self::WesternElectric4 | Self::Nelson2 | Self::Nelson3 | Self::Nelson4 => {
                part == Part::Location || kind != Kind::IMr
            }
            _ => part == Part::Location && !kind.counts(),
        }
    }

    /// What of `points`, in order of time with the newest last, breaks it; `None` if nothing does.
    pub(super) fn broken(self, points: &[Placed]) -> Option<Broken> {
        match self {
            Self::WesternElectric1 | Self::Nelson1 => beyond_limits(points),
            Self::WesternElectric2 | Self::Nelson5 => of(points, 2, 3, 2.0),
            Self::WesternElectric3 | Self::Nelson6 => of(points, 4, 5, 1.0),
            Self::WesternElectric4 => run(points, 8),
            Self::Nelson2 => run(points, 9),
            Self::Nelson3 => trend(points, 6),
            Self::Nelson4 => zigzag(points, 14),
            Self::Nelson7 => last(points, 15, |point| point.zoned() && !point.beyond_either(1.0)),
            Self::Nelson8 => last(points, 8, |point| point.beyond_either(1.0)),
            Self::Ewma | Self::Cusum => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which of the two lines of a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// Means, single readings, shares or counts.
    Location,
    /// Ranges, standard deviations or moving ranges.
    Spread,
}

impl Part {
    /// What it is called in a chart of this kind, for people.
    #[must_use]
    pub fn of(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Location, Kind::XbarR | Kind::XbarS) => "mean",
            (Self::Location, Kind::IMr) => "reading",
            (Self::Location, Kind::P | Kind::U) => "share",
            (Self::Location, Kind::Np | Kind::C) => "count",
            (Self::Location, Kind::Ewma { .. }) => "moving average",
            (Self::Location, Kind::Cusum { .. }) => "cumulative sum",
            (Self::Spread, Kind::XbarS) => "standard deviation",
            (Self::Spread, Kind::IMr) => "moving range",
            (Self::Spread, _) => "range",
        }
    }
}

/// On which side of the centre, or which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Above it, or rising.
    Above,
    /// Below it, or falling.
    Below,
}

/// What a process did that chance alone hardly does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// The chart's name.
    pub chart: Arc<str>,
    /// Which line of it.
    pub part: Part,
    /// Which rule.
    pub rule: Rule,
    /// On which side, where the rule has one.
    pub side: Option<Side>,
    /// The points that make it, in order of time; the newest is the one flagged. Of a CUSUM those since it left zero, at
    /// most the last 15.
    pub points: Vec<Named>,
}

impl Violation {
    /// The point that is flagged.
    #[must_use]
    pub fn at(&self) -> Option<Named> {
        self.points.last().copied()
    }
}

/// A point of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Which of the chart's subgroups, from 1.
    pub index: u64,
    /// When its last reading was.
    pub at: Time,
    /// What is drawn of it in this part of the chart.
    pub value: f64,
}

/// A point between its limits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Placed {
    pub(super) value: f64,
    pub(super) limits: Limits,
}

impl Placed {
    /// Both limits are there, so that each side has its zones.
    fn zoned(&self) -> bool {
        self.limits.lower.is_some() && self.limits.upper.is_some()
    }

    /// Further from the centre than so many thirds of the way to the limit.
    fn beyond(&self, side: Side, sigmas: f64) -> bool {
        let Limits { center, lower, upper } = self.limits;
        let thirds = sigmas / 3.0;
        match side {
            Side::Above => upper.is_some_and(|upper| self.value > (upper - center).mul_add(thirds, center)),
            Side::Below => lower.is_some_and(|lower| self.value < (lower - center).mul_add(thirds, center)),
        }
    }

    fn beyond_either(&self, sigmas: f64) -> bool {
        self.beyond(Side::Above, sigmas) || self.beyond(Side::Below, sigmas)
    }

    fn side(&self) -> Option<Side> {
        match self.value.partial_cmp(&self.limits.center)? {
            std::cmp::Ordering::Greater => Some(Side::Above),
            std::cmp::Ordering::Less => Some(Side::Below),
            std::cmp::Ordering::Equal => None,
        }
    }
}

/// What breaks a rule: the side, and which of the points that were looked at.
#[derive(Debug, PartialEq)]
pub(super) struct Broken {
    pub(super) side: Option<Side>,
    pub(super) points: Vec<usize>,
}

fn beyond_limits(points: &[Placed]) -> Option<Broken> {
    let point = points.last()?;
    let side = match point.limits {
        Limits { upper: Some(upper), .. } if point.value > upper => Side::Above,
        Limits { lower: Some(lower), .. } if point.value < lower => Side::Below,
        _ => return None,
    };
    Some(Broken { side: Some(side), points: vec![points.len() - 1] })
}

/// `least` of the last `among` beyond so many sigmas, on the side of the newest.
fn of(points: &[Placed], least: usize, among: usize, sigmas: f64) -> Option<Broken> {
    let newest = points.last()?;
    let side = newest.side().filter(|side| newest.beyond(*side, sigmas))?;
    let from = points.len().saturating_sub(among);
    let beyond: Vec<_> = (from..points.len()).filter(|at| points[*at].beyond(side, sigmas)).collect();
    (beyond.len() >= least).then_some(Broken { side: Some(side), points: beyond })
}

fn run(points: &[Placed], length: usize) -> Option<Broken> {
    let side = points.last()?.side();
    side?;
    Some(Broken { side, ..last(points, length, |point| point.side() == side)? })
}

fn trend(points: &[Placed], length: usize) -> Option<Broken> {
    let from = points.len().checked_sub(length)?;
    let all = |way: fn(&f64, &f64) -> bool| points[from..].windows(2).all(|two| way(&two[0].value, &two[1].value));
    let side = match (all(f64::lt), all(f64::gt)) {
        (true, _) => Side::Above,
        (_, true) => Side::Below,
        _ => return None,
    };
    Some(Broken { side: Some(side), points: (from..points.len()).collect() })
}

fn zigzag(points: &[Placed], length: usize) -> Option<Broken> {
    let from = points.len().checked_sub(length)?;
    let turns = |three: &[Placed]| {
        let (one, two, three) = (three[0].value, three[1].value, three[2].value);
        (one < two && two > three) || (one > two && two < three)
    };
    let broken = points[from..].windows(3).all(turns);
    broken.then(|| Broken { side: None, points: (from..points.len()).collect() })
}

/// The last so many, if all of them are so.
fn last(points: &[Placed], length: usize, so: impl Fn(&Placed) -> bool) -> Option<Broken> {
    let from = points.len().checked_sub(length)?;
    points[from..].iter().all(so).then(|| Broken { side: None, points: (from..points.len()).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of a chart with centre 0 and sigma 1.
    fn placed(values: &[f64]) -> Vec<Placed> {
        let limits = Limits { center: 0.0, lower: Some(-3.0), upper: Some(3.0) };
        values.iter().map(|value| Placed { value: *value, limits }).collect()
    }

    fn broken(rule: Rule, values: &[f64]) -> Option<(Option<Side>, Vec<usize>)> {
        rule.broken(&placed(values)).map(|broken| (broken.side, broken.points))
    }

    #[test]
    fn a_point_on_the_limit_is_within() {
        for rule in [Rule::WesternElectric1, Rule::Nelson1] {
            assert_eq!(broken(rule, &[0.0, 3.0]), None);
            assert_eq!(broken(rule, &[0.0, 3.1]), Some((Some(Side::Above), vec![1])));
            assert_eq!(broken(rule, &[-3.1]), Some((Some(Side::Below), vec![0])));
            assert_eq!(broken(rule, &[3.1, 0.0]), None, "the newest is the news");
        }
    }

    #[test]
    fn two_of_three_flag_only_a_point_that_is_beyond_on_that_side() {
        for rule in [Rule::WesternElectric2, Rule::Nelson5] {
            assert_eq!(broken(rule, &[2.1, 0.0, 2.1]), Some((Some(Side::Above), vec![0, 2])));
            assert_eq!(broken(rule, &[2.1, 2.2, 0.0]), None);
            assert_eq!(broken(rule, &[2.1, 0.0, 0.0, 2.1]), None);
            assert_eq!(broken(rule, &[2.1, -2.1]), None);
            assert_eq!(broken(rule, &[-2.1, -2.1]), Some((Some(Side::Below), vec![0, 1])));
        }
    }

    #[test]
    fn four_of_five() {
        for rule in [Rule::WesternElectric3, Rule::Nelson6] {
            assert_eq!(broken(rule, &[1.1, 1.1, -1.1, 1.1, 1.1]), Some((Some(Side::Above), vec![0, 1, 3, 4])));
            assert_eq!(broken(rule, &[1.1, 1.1, 1.1, 1.1, 0.9]), None);
            assert_eq!(broken(rule, &[1.1, 1.1, 0.0, 0.0, 1.1, 1.1]), None);
        }
    }

    #[test]
    fn runs_end_at_the_centre() {
        let mut values = [0.1; 9];
        assert_eq!(broken(Rule::WesternElectric4, &values[..7]), None);
        assert_eq!(broken(Rule::WesternElectric4, &values[..8]), Some((Some(Side::Above), (0..8).collect())));
        assert_eq!(broken(Rule::Nelson2, &values[..8]), None);
        assert_eq!(broken(Rule::Nelson2, &values), Some((Some(Side::Above), (0..9).collect())));
        values[4] = 0.0;
        assert_eq!(broken(Rule::Nelson2, &values), None);
    }

    #[test]
    fn trends_are_strict() {
        let rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        assert_eq!(broken(Rule::Nelson3, &rising), Some((Some(Side::Above), (0..6).collect())));
        assert_eq!(broken(Rule::Nelson3, &rising[1..]), None);
        let falling: Vec<_> = rising.iter().rev().copied().collect();
        assert_eq!(broken(Rule::Nelson3, &falling), Some((Some(Side::Below), (0..6).collect())));
        assert_eq!(broken(Rule::Nelson3, &[0.1, 0.2, 0.3, 0.3, 0.4, 0.5]), None);
    }

    #[test]
    fn up_and_down_in_turn() {
        let turns: Vec<f64> = (0..14).map(|at| f64::from(at % 2) + f64::from(at) * 0.01).collect();
        assert_eq!(broken(Rule::Nelson4, &turns), Some((None, (0..14).collect())));
        assert_eq!(broken(Rule::Nelson4, &turns[..13]), None);
        let mut flat = turns;
        flat[7] = flat[6];
        assert_eq!(broken(Rule::Nelson4, &flat), None);
    }

    #[test]
    fn too_quiet_and_never_in_the_middle() {
        let quiet = [0.9, -0.9, 0.1, 0.0, 0.5, -0.5, 0.2, 0.3, -0.4, 0.6, 0.1, 0.2, -0.9, 1.0, -1.0];
        assert_eq!(broken(Rule::Nelson7, &quiet), Some((None, (0..15).collect())));
        assert_eq!(broken(Rule::Nelson7, &quiet[1..]), None);
        let mixed = [1.1, -1.1, 2.0, -2.0, 1.5, -1.2, 1.1, -1.1];
        assert_eq!(broken(Rule::Nelson8, &mixed), Some((None, (0..8).collect())));
        assert_eq!(broken(Rule::Nelson8, &[1.1, -1.1, 2.0, 1.0, 1.5, -1.2, 1.1, -1.1]), None);
    }

    #[test]
    fn a_side_without_a_limit_has_no_zones() {
        let limits = Limits { center: 0.0, lower: None, upper: Some(3.0) };
        let low = [Placed { value: -9.0, limits }; LOOKS_AT];
        for rule in Rule::ALL {
            let runs = matches!(rule, Rule::WesternElectric4 | Rule::Nelson2);
            assert_eq!(rule.broken(&low).is_some(), runs, "{rule}");
        }
    }

    #[test]
    fn every_word_is_its_own() {
        let words: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.word()).collect();
        assert_eq!(words.len(), Rule::ALL.len());
    }
}
