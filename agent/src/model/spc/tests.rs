use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{TagId, Time};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::CounterSpec;

/// A chart of readings, with every rule, that takes its limits from `phase_1` subgroups.
fn chart(kind: Kind, size: u32, phase_1: u32) -> ChartSpec {
    let counter = |tag| CounterSpec::of(TagId(tag));
    let input = if kind.counts() {
        Input::Counts { defects: counter(0), inspected: Some(counter(1)) }
    } else {
        Input::Readings(TagId(0))
    };
    ChartSpec {
        name: kind.word().into(),
        input,
        setting: Setting {
            of: "tag".into(),
            kind,
            size: Some(size),
            every: None,
            max_gap: None,
            limits: LimitsFrom::Phase1(phase_1),
        },
        rules: Rule::ALL.to_vec(),
        tolerance: None,
        zone: TimeZone::UTC,
    }
}

fn second(at: usize) -> Time {
    Time::from_millis(i64::try_from(at).expect("small") * 1000)
}

/// Each value a second after the one before, from where the chart stands; what they broke.
fn feed(chart: &mut Chart, spec: &ChartSpec, from: usize, values: &[f64]) -> Vec<Violation> {
    let each = values.iter().enumerate();
    each.flat_map(|(at, value)| chart.observe(spec, second(from + at), *value)).collect()
}

/// The points that broke a rule, in order.
fn flagged(all: &[Violation], part: Part, rule: Rule) -> Vec<u64> {
    let of = all.iter().filter(|one| one.part == part && one.rule == rule);
    of.filter_map(|one| Some(one.at()?.index)).collect()
}

fn last(view: &View) -> &Plotted {
    view.points.last().expect("a point")
}

mod vectors {
    //! Published examples: tests/fixtures/vectors/spc.json.

    use super::*;

    struct Vector(Json);

    impl Vector {
        fn named(id: &str) -> Self {
            let all: Vec<Json> = serde_json::from_str(include_str!("../../../../tests/fixtures/vectors/spc.json"))
                .expect("the vectors are JSON");
            Self(all.into_iter().find(|one| one["id"] == id).expect("it is there"))
        }

        fn at(&self, path: &str) -> &Json {
            self.0.pointer(path).unwrap_or_else(|| panic!("no {path}"))
        }

        fn number(&self, path: &str) -> f64 {
            self.at(path).as_f64().expect("a number")
        }

        fn list(&self, path: &str) -> Vec<f64> {
            let list = self.at(path).as_array().expect("a list");
            list.iter().map(|one| one.as_f64().expect("a number")).collect()
        }

        fn indices(&self, path: &str) -> Vec<u64> {
            let list = self.at(path).as_array().expect("a list");
            list.iter().map(|one| one.as_u64().expect("a whole number")).collect()
        }

        fn is(&self, found: f64, path: &str) {
            self.near(found, self.number(path), self.number("/tol"), path);
        }

        fn limits(&self, found: Option<Limits>, path: &str, tolerance: f64) {
            let found = found.expect("limits");
            let printed = self.list(path);
            self.near(found.lower.expect("a lower limit"), printed[0], tolerance, path);
            self.near(found.upper.expect("an upper limit"), printed[1], tolerance, path);
        }

        #[expect(clippy::unused_self, reason = "reads as a sentence")]
        fn near(&self, found: f64, printed: f64, tolerance: f64, what: &str) {
            assert!((found - printed).abs() <= tolerance, "{what}: {found} for {printed}");
        }
    }

    /// The piston rings, each measured value in turn, and how many of them are phase 1.
    fn rings() -> (Vector, Vec<f64>, usize) {
        let rings = Vector::named("piston-rings");
        let (offset, scale) = (rings.number("/offset"), rings.number("/scale"));
        let values = rings.list("/x").iter().map(|x| offset + scale * x).collect();
        let size = rings.number("/subgroup_size") * rings.number("/phase1_subgroups");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "125")]
        (rings, values, size as usize)
    }

    #[test]
    fn piston_rings_mean_and_range() {
        let (rings, values, phase_1) = rings();
        let spec = chart(Kind::XbarR, 5, 25);
        let mut chart = Chart::default();
        let mut all = feed(&mut chart, &spec, 0, &values[..phase_1]);
        let view = chart.view(&spec);
        let tolerance = rings.number("/tol");
        rings.is(view.sigma.expect("estimated"), "/sigma_within");
        rings.is(last(&view).location.expect("lines").center, "/grand_mean");
        rings.is(last(&view).spread.expect("lines").center, "/r_bar");
        rings.limits(last(&view).location, "/xbar_limits", tolerance);
        rings.limits(last(&view).spread, "/r_limits", 1e-6);
        let to = second(phase_1 - 1);
        assert_eq!(view.phase, Phase::Estimated { from: Time(0), to, subgroups: 25 });

        all.extend(feed(&mut chart, &spec, phase_1, &values[phase_1..]));
        let same: Vec<_> = chart.view(&spec).points.iter().map(|point| point.location).collect();
        assert_eq!(same.len(), 40);
        assert!(same.iter().all(|limits| *limits == last(&view).location), "frozen");
        let two = [
            (Rule::WesternElectric1, "/derived/rule1_beyond_3s"),
            (Rule::WesternElectric2, "/derived/rule_2_of_3_beyond_2s"),
            (Rule::WesternElectric3, "/derived/rule_4_of_5_beyond_1s"),
            (Rule::WesternElectric4, "/derived/rule_8_same_side"),
            (Rule::Nelson1, "/derived/rule1_beyond_3s"),
            (Rule::Nelson5, "/derived/rule_2_of_3_beyond_2s"),
            (Rule::Nelson6, "/derived/rule_4_of_5_beyond_1s"),
        ];
        for (rule, path) in two {
            assert_eq!(flagged(&all, Part::Location, rule), rings.indices(path), "{rule}");
        }
        assert_eq!(flagged(&all, Part::Spread, Rule::WesternElectric1), [] as [u64; 0]);
    }

    #[test]
    fn piston_rings_capability() {
        let (rings, values, phase_1) = rings();
        let (lower, upper) = (Some(73.95), Some(74.05));
        let of = |lower, upper| {
            let tolerance = Some(Tolerance { lower, target: None, upper });
            let spec = ChartSpec { tolerance, ..chart(Kind::XbarR, 5, 25) };
            let mut chart = Chart::default();
            feed(&mut chart, &spec, 0, &values[..phase_1]);
            chart.view(&spec).capability[0]
        };
        let both = of(lower, upper);
        assert_eq!((both.window, both.readings), (Window::Phase1, 125));
        let is = |found: Option<f64>, path: &str| {
            let tolerance = if path.starts_with("/derived") { rings.number("/tol") } else { 5e-4 }; // printed to three decimals
            rings.near(found.expect("known"), rings.number(path), tolerance, path);
        };
        is(both.cp, "/capability_73.95_74.05/cp");
        is(both.cpk, "/capability_73.95_74.05/cpk");
        is(of(lower, None).cpk, "/capability_73.95_74.05/cpl");
        is(of(None, upper).cpk, "/capability_73.95_74.05/cpu");
        is(both.pp, "/derived/pp");
        is(both.ppk, "/derived/ppk");
        assert_eq!((of(lower, None).cp, of(None, upper).pp, both.cpm), (None, None, None));
    }

    #[test]
    fn piston_rings_ewma() {
        let (rings, values, phase_1) = rings();
        let spec = chart(Kind::Ewma { lambda: 0.2, width: 3.0 }, 5, 25);
        let mut chart = Chart::default();
        feed(&mut chart, &spec, 0, &values[..phase_1]);
        let view = chart.view(&spec);
        let tolerance = rings.number("/tol");
        rings.limits(view.points[0].location, "/ewma_lambda0.2_L3/limits_1", tolerance);
        rings.limits(view.points[24].location, "/ewma_lambda0.2_L3/limits_25", tolerance);
        rings.is(view.points[24].point.weighed.drawn().expect("an average"), "/derived/ewma_z25");
    }

    #[test]
    fn piston_rings_cusum() {
        let (rings, values, _) = rings();
        let spec = chart(Kind::Cusum { k: 0.5, h: 5.0 }, 5, 25);
        let mut chart = Chart::default();
        let all = feed(&mut chart, &spec, 0, &values);
        let first = &all[0];
        let path = "/derived/cusum_k0.5_h5_se_first_signal";
        assert_eq!(first.at().map(|named| named.index), rings.at(path).as_u64());
        assert_eq!((first.rule, first.side), (Rule::Cusum, Some(Side::Above)));
        assert!(first.points.len() > 1 && first.points.windows(2).all(|two| two[0].index + 1 == two[1].index));
    }

    #[test]
    fn viscosity() {
        let viscosity = Vector::named("imr-viscosity");
        let values = viscosity.list("/x");
        let spec = chart(Kind::IMr, 1, 20);
        let mut chart = Chart::default();
        let all = feed(&mut chart, &spec, 0, &values);
        let view = chart.view(&spec);
        viscosity.is(last(&view).location.expect("lines").center, "/mean");
        viscosity.is(view.sigma.expect("estimated"), "/sigma");
        viscosity.limits(last(&view).location, "/limits", viscosity.number("/tol"));
        assert_eq!(flagged(&all, Part::Location, Rule::Nelson1), viscosity.indices("/out_1based"));
    }

    #[test]
    fn orange_juice() {
        let juice = Vector::named("p-chart");
        let (n, defective) = (juice.number("/n"), juice.list("/defective"));
        for (kind, scale) in [(Kind::P, 1.0), (Kind::Np, n)] {
            let spec = chart(kind, 50, 30);
            let mut chart = Chart::default();
            for (at, defective) in defective.iter().enumerate() {
                chart.observe_count(&spec, second(at), n, *defective);
            }
            chart.advance(&spec, second(defective.len()));
            let lines = last(&chart.view(&spec)).location.expect("lines");
            let share = |line: f64| line / scale;
            juice.is(share(lines.center), "/p_bar");
            let shares =
                Limits { center: share(lines.center), lower: lines.lower.map(share), upper: lines.upper.map(share) };
            juice.limits(Some(shares), "/limits", juice.number("/tol"));
        }
    }

    #[test]
    fn circuit_boards() {
        let boards = Vector::named("c-chart");
        let defects = boards.list("/defects");
        // 100 boards are a unit there; a u chart of the same is of one board.
        for (kind, scale) in [(Kind::C, 1.0), (Kind::U, 0.01)] {
            let spec = chart(kind, 100, 26);
            let mut chart = Chart::default();
            for (at, defects) in defects.iter().enumerate() {
                // Half of what belongs to an instant, and then the rest.
                chart.observe_count(&spec, second(at), 100.0, 0.0);
                chart.observe_count(&spec, second(at), 0.0, *defects);
            }
            chart.advance(&spec, second(defects.len()));
            let lines = last(&chart.view(&spec)).location.expect("lines");
            let unit = |line: f64| line / scale;
            boards.is(unit(lines.center), "/c_bar");
            let of_unit =
                Limits { center: unit(lines.center), lower: lines.lower.map(unit), upper: lines.upper.map(unit) };
            boards.limits(Some(of_unit), "/limits", boards.number("/tol"));
        }
    }

    #[test]
    fn a_worked_capability() {
        let nist = Vector::named("capability");
        let sigma = nist.number("/sigma");
        let mean = nist.number("/mean");
        let mut spec = chart(Kind::IMr, 1, 5);
        spec.setting.limits = LimitsFrom::Known { center: mean, sigma: Some(sigma) };
        spec.tolerance =
            Some(Tolerance { lower: Some(nist.number("/lsl")), target: Some(mean), upper: Some(nist.number("/usl")) });
        let mut chart = Chart::default();
        feed(&mut chart, &spec, 0, &[mean - sigma, mean + sigma, mean]);
        let found = chart.view(&spec).capability[0];
        nist.is(found.cp.expect("known"), "/cp");
        nist.is(found.cpk.expect("known"), "/cpk");
        // On target, sigma of the three readings is 2 as well.
        nist.is(found.cpm.expect("known"), "/cp");
        assert_eq!((found.window, found.readings), (Window::SinceLimits, 3));
    }
}

#[test]
fn limits_that_are_known_hold_from_the_first_point_on() {
    let mut spec = chart(Kind::XbarS, 4, 5);
    spec.setting.limits = LimitsFrom::Known { center: 10.0, sigma: Some(1.0) };
    let mut chart = Chart::default();
    let all = feed(&mut chart, &spec, 0, &[11.5, 11.7, 11.4, 11.6]);
    let view = chart.view(&spec);
    assert_eq!((view.phase, view.in_control), (Phase::Given, Some(false)));
    assert_eq!(flagged(&all, Part::Location, Rule::Nelson1), [1], "3 sigma of a mean of four are 1.5");
    let spread = last(&view).spread.expect("lines");
    assert!((spread.center - 0.9213).abs() < 1e-4 && spread.lower == Some(0.0), "{spread:?}");
}

#[test]
fn limits_that_are_drawn_stand_as_they_are() {
    let mut spec = chart(Kind::XbarR, 4, 5);
    spec.setting.limits = LimitsFrom::Drawn { center: 10.0, lower: Some(8.5), upper: Some(11.5) };
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 0, &[11.5, 11.7, 11.4, 11.6]);
    let view = chart.view(&spec);
    let lines = Limits { center: 10.0, lower: Some(8.5), upper: Some(11.5) };
    assert_eq!((last(&view).location, view.sigma), (Some(lines), Some(1.0)));
    let range = last(&view).spread.expect("lines");
    assert!((range.center - 2.059).abs() < 1e-9, "{range:?}");

    spec.setting.limits = LimitsFrom::Drawn { center: 10.0, lower: None, upper: Some(11.5) };
    let mut one_sided = Chart::default();
    let low = feed(&mut one_sided, &spec, 0, &[1.0; 16]);
    assert!(low.iter().all(|violation| violation.part == Part::Spread), "nothing is too low: {low:?}");
}

#[test]
fn phase_1_tells_of_its_own_points_when_it_ends() {
    let spec = chart(Kind::IMr, 1, 10);
    let mut chart = Chart::default();
    assert!(feed(&mut chart, &spec, 0, &[1.0, 1.1, 1.0, 9.0, 1.0, 1.1, 1.0, 0.9, 1.0]).is_empty());
    assert_eq!(chart.view(&spec).phase, Phase::One { have: 9, of: 10 });
    assert_eq!((chart.view(&spec).in_control, chart.view(&spec).sigma), (None, None));
    let all = feed(&mut chart, &spec, 9, &[1.0]);
    assert_eq!(flagged(&all, Part::Location, Rule::Nelson1), [4]);
    assert_eq!(flagged(&all, Part::Spread, Rule::Nelson1), [4, 5], "both moving ranges that it takes part in");
    assert_eq!(all[0].at().map(|named| named.at), Some(second(3)));
    assert_eq!(chart.view(&spec).in_control, Some(true), "the last point is fine");
}

#[test]
fn readings_that_never_change_break_nothing_until_they_do() {
    for (kind, size) in
        [(Kind::XbarR, 5), (Kind::XbarS, 5), (Kind::IMr, 1), (Kind::Ewma { lambda: 0.2, width: 3.0 }, 1)]
    {
        let spec = chart(kind, size, 5);
        let mut chart = Chart::default();
        let quiet = feed(&mut chart, &spec, 0, &[0.1; 200]);
        assert!(quiet.iter().all(|violation| violation.rule == Rule::Nelson7), "{kind}: {quiet:?}");
        assert_eq!(chart.view(&spec).sigma, Some(0.0));
        let shifted = feed(&mut chart, &spec, 200, &[0.2; 5]);
        let beyond = |one: &&Violation| matches!(one.rule, Rule::Nelson1 | Rule::Ewma);
        assert!(shifted.iter().any(|one| beyond(&one)), "{kind}");
    }
}

#[test]
fn a_gap_splits_subgroups_and_moving_ranges() {
    let mut spec = chart(Kind::XbarR, 3, 5);
    spec.setting.max_gap = Some(Duration::from_secs(10));
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 0, &[1.0, 2.0]);
    feed(&mut chart, &spec, 100, &[5.0, 5.0]);
    assert_eq!((chart.view(&spec).points.len(), chart.view(&spec).incomplete), (0, 1));
    feed(&mut chart, &spec, 102, &[5.0]);
    assert_eq!(last(&chart.view(&spec)).point.value.to_bits(), 5.0_f64.to_bits());

    let mut spec = self::chart(Kind::IMr, 1, 5);
    spec.setting.max_gap = Some(Duration::from_secs(10));
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 0, &[1.0, 2.0]);
    feed(&mut chart, &spec, 100, &[9.0]);
    let spreads: Vec<_> = chart.view(&spec).points.iter().map(|point| point.point.spread).collect();
    assert_eq!(spreads, [None, Some(1.0), None]);
    for at in 2..40 {
        chart.observe(&spec, second(at * 100), 1.0);
    }
    let view = chart.view(&spec);
    assert!(matches!(view.phase, Phase::Estimated { .. }), "one moving range is enough to go on: {:?}", view.phase);
}

#[test]
fn phase_1_begins_anew_where_no_reading_has_a_neighbour() {
    let mut spec = chart(Kind::IMr, 1, 5);
    spec.setting.max_gap = Some(Duration::from_secs(10));
    let mut chart = Chart::default();
    for at in 0..12 {
        chart.observe(&spec, second(at * 100), 1.0);
    }
    assert_eq!(chart.view(&spec).phase, Phase::One { have: 2, of: 5 });
}

#[test]
fn the_clock_takes_the_first_readings_of_each_turn_or_all_of_it() {
    let mut spec = chart(Kind::XbarR, 2, 5);
    spec.setting.every = Some(Duration::from_secs(60));
    let mut chart = Chart::default();
    for (at, value) in [(10, 1.0), (11, 3.0), (12, 100.0), (61, 5.0), (120, 7.0), (121, 9.0)] {
        chart.observe(&spec, second(at), value);
    }
    let view = chart.view(&spec);
    let means: Vec<_> = view.points.iter().map(|point| point.point.value).collect();
    assert_eq!((means.as_slice(), view.incomplete), (&[2.0, 8.0][..], 1), "the second minute had one reading");

    let mut spec = self::chart(Kind::XbarS, 2, 5);
    spec.setting.size = None;
    spec.setting.every = Some(Duration::from_secs(60));
    let mut chart = Chart::default();
    for (at, value) in [(10, 1.0), (11, 3.0), (59, 5.0), (60, 7.0), (130, 7.0), (131, 8.0)] {
        chart.observe(&spec, second(at), value);
    }
    chart.advance(&spec, second(180));
    let view = chart.view(&spec);
    let sizes: Vec<_> = view.points.iter().map(|point| (point.point.size, point.point.at)).collect();
    assert_eq!((sizes.as_slice(), view.incomplete), (&[(3.0, second(59)), (2.0, second(131))][..], 1));
}

#[test]
fn shares_have_limits_of_their_own_size() {
    let mut spec = chart(Kind::P, 1, 5);
    spec.setting.size = None;
    spec.setting.every = Some(Duration::from_secs(60));
    spec.setting.limits = LimitsFrom::Known { center: 0.1, sigma: None };
    let mut chart = Chart::default();
    for (at, inspected, defective) in [(0, 100.0, 10.0), (60, 400.0, 80.0), (120, 0.0, 0.0), (180, 4.0, 1.0)] {
        chart.observe_count(&spec, second(at), inspected, defective);
    }
    chart.advance(&spec, second(240));
    let view = chart.view(&spec);
    let upper: Vec<_> = view.points.iter().map(|point| point.location.and_then(|lines| lines.upper)).collect();
    let close = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-12);
    assert!(close(upper[0], 0.19) && close(upper[1], 0.145) && close(upper[2], 0.55), "{upper:?}");
    assert_eq!((view.points.len(), view.incomplete), (3, 1), "nothing was inspected in the third minute");
    assert_eq!(view.violations.first().and_then(Violation::at).map(|at| at.index), Some(2));
}

#[test]
fn defects_by_the_clock_need_no_inspected_parts_and_silence_is_not_zero() {
    let mut spec = chart(Kind::C, 1, 5);
    spec.setting.size = None;
    spec.setting.every = Some(Duration::from_secs(60));
    spec.setting.limits = LimitsFrom::Known { center: 4.0, sigma: None };
    spec.input = Input::Counts { defects: CounterSpec::of(TagId(0)), inspected: None };
    let mut chart = Chart::default();
    chart.observe_count(&spec, second(0), 0.0, 3.0);
    chart.observe_count(&spec, second(70), 0.0, 0.0);
    chart.observe_count(&spec, second(200), 0.0, 11.0);
    chart.advance(&spec, second(240));
    let view = chart.view(&spec);
    let counts: Vec<_> = view.points.iter().map(|point| point.point.value).collect();
    assert_eq!(counts, [3.0, 0.0, 11.0], "the third minute was never seen");
    assert_eq!(flagged(&view.violations, Part::Location, Rule::Nelson1), [3]);
}

#[test]
fn what_comes_late_is_left_out_and_counted() {
    let spec = chart(Kind::IMr, 1, 5);
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 10, &[1.0]);
    feed(&mut chart, &spec, 5, &[1.0]);
    feed(&mut chart, &spec, 10, &[1.0]);
    assert_eq!((chart.view(&spec).points.len(), chart.view(&spec).late), (2, 1));
    assert!(chart.observe(&spec, second(11), f64::NAN).is_empty());
    assert_eq!(chart.view(&spec).points.len(), 2);
}

#[test]
fn a_reading_beyond_all_measure_does_not_stay_for_ever() {
    let mut spec = chart(Kind::Cusum { k: 0.5, h: 5.0 }, 1, 5);
    spec.setting.limits = LimitsFrom::Known { center: 0.0, sigma: Some(1.0) };
    spec.tolerance = Some(Tolerance { lower: Some(-4.0), ..Tolerance::default() });
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 0, &[f64::MAX, 1.0, f64::MIN, 2.0, 1e149, -1e149]);
    let view = chart.view(&spec);
    assert!(view.points.iter().all(|point| point.point.weighed.drawn().is_some_and(f64::is_finite)));
    let [capability] = view.capability.as_slice() else { panic!("{:?}", view.capability) };
    assert_eq!(capability.readings, 4);
    assert!(capability.overall.is_some() && capability.ppk.is_some(), "{capability:?}");
}

#[test]
fn another_setting_is_another_chart_and_other_rules_are_not() {
    let spec = chart(Kind::XbarR, 2, 5);
    let mut chart = Chart::default();
    feed(&mut chart, &spec, 0, &[1.0, 2.0, 1.0, 2.5, 1.0, 2.0, 1.5, 2.0, 1.0, 2.0]);
    let ruled = ChartSpec { rules: vec![Rule::Nelson1], ..spec.clone() };
    assert!(matches!(chart.view(&ruled).phase, Phase::Estimated { .. }));
    let mut other = spec.clone();
    other.setting.size = Some(3);
    assert_eq!(chart.view(&other).phase, Phase::One { have: 0, of: 5 });
    feed(&mut chart, &other, 100, &[1.0, 1.0, 1.0]);
    assert_eq!(chart.view(&other).phase, Phase::One { have: 1, of: 5 });
}

#[test]
fn only_rules_that_make_sense_are_looked_for() {
    let zones =
        [Rule::WesternElectric2, Rule::WesternElectric3, Rule::Nelson5, Rule::Nelson6, Rule::Nelson7, Rule::Nelson8];
    for kind in Kind::ALL {
        for rule in Rule::ALL {
            let zone = zones.contains(&rule);
            assert_eq!(rule.fits(kind, Part::Location), !(kind.weighs() || kind.counts() && zone), "{kind} {rule}");
            assert!(!(zone && rule.fits(kind, Part::Spread)), "{kind} {rule}");
        }
    }
    assert!(
        Rule::WesternElectric4.fits(Kind::XbarR, Part::Spread) && !Rule::WesternElectric4.fits(Kind::IMr, Part::Spread)
    );
    assert!(Rule::Nelson1.fits(Kind::IMr, Part::Spread));
}

#[test]
fn nothing_grows_without_end() {
    let spec = chart(Kind::IMr, 1, 30);
    let mut chart = Chart::default();
    let mut largest = 0;
    for at in 0..2_000 {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        chart.observe(&spec, second(at), (at * 7919 % 101) as f64 + if at > 100 { 1000.0 } else { 0.0 });
        largest = largest.max(postcard::to_allocvec(&chart).expect("plain data").len());
    }
    assert!(largest < 16_384, "{largest} bytes");
    assert_eq!((chart.view(&spec).points.len(), chart.view(&spec).violations.len()), (50, 20));
}

/// What happens to a chart: a reading or counts so much later, or only time.
#[derive(Clone, Copy, Debug)]
enum Step {
    Value(f64, f64),
    Time,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let value = prop_oneof![
        8 => -5.0..5.0_f64,
        1 => prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL,
    ];
    let step = prop_oneof![4 => (value, 0.0..20.0_f64).prop_map(|(one, other)| Step::Value(one, other.floor())), 1 => Just(Step::Time)];
    prop::collection::vec((0_u64..40, step), 0..150)
}

fn specs() -> impl Strategy<Value = ChartSpec> {
    let limits = prop_oneof![
        3 => (2_u32..12).prop_map(LimitsFrom::Phase1),
        1 => (-2.0..2.0_f64, 0.0..3.0_f64).prop_map(|(center, sigma)| LimitsFrom::Known { center, sigma: Some(sigma) }),
        1 => (prop::option::of(-9.0..-3.0_f64), prop::option::of(3.0..9.0_f64))
            .prop_map(|(lower, upper)| LimitsFrom::Drawn { center: 0.0, lower, upper }),
    ];
    let often = prop::option::of((1_u64..120).prop_map(Duration::from_secs));
    let gap = prop::option::of((1_u64..60).prop_map(Duration::from_secs));
    (0..Kind::ALL.len(), prop::option::of(1_u32..8), often, gap, limits).prop_map(
        |(kind, size, every, max_gap, limits)| {
            let kind = Kind::ALL[kind];
            let spec = chart(kind, 1, 5);
            // Something has to close a subgroup.
            let size = if every.is_none() { size.or(Some(4)) } else { size };
            let setting = Setting { size, every, max_gap, limits, ..spec.setting };
            let tolerance = Some(Tolerance { lower: Some(-4.0), target: Some(0.0), upper: Some(4.0) });
            ChartSpec { setting, tolerance, ..spec }
        },
    )
}

/// All that `steps` break, with a call of `advance` before each where `eager`, and a restart before step `restart`.
fn life(spec: &ChartSpec, steps: &[(u64, Step)], eager: bool, restart: Option<usize>) -> (Vec<Violation>, Chart) {
    let (mut chart, mut now, mut all) = (Chart::default(), 0_u64, Vec::new());
    for (place, (later, step)) in steps.iter().enumerate() {
        if restart == Some(place) {
            let bytes = postcard::to_allocvec(&chart).expect("plain data");
            chart = postcard::from_bytes(&bytes).expect("what was written");
        }
        now += later;
        let at = Time(i64::try_from(now).expect("small") * 1_000_000_000);
        if eager {
            all.extend(chart.advance(spec, at));
        }
        match step {
            Step::Time => {}
            Step::Value(value, defects) if spec.setting.kind.counts() => {
                all.extend(chart.observe_count(spec, at, value.abs().floor(), *defects));
            }
            Step::Value(value, _) => all.extend(chart.observe(spec, at, *value)),
        }
    }
    let end = Time(i64::try_from(now).expect("small") * 1_000_000_000) + Duration::from_secs(86_400);
    all.extend(chart.advance(spec, end));
    (all, chart)
}

proptest! {
    #[test]
    fn neither_batches_nor_the_clock_change_what_breaks(spec in specs(), steps in steps()) {
        let lazy = life(&spec, &steps, false, None);
        let eager = life(&spec, &steps, true, None);
        prop_assert_eq!(lazy, eager);
    }

    #[test]
    fn a_restart_changes_nothing(spec in specs(), steps in steps(), at in 0_usize..150) {
        prop_assert_eq!(life(&spec, &steps, false, None), life(&spec, &steps, false, Some(at)));
    }

    #[test]
    fn no_finite_input_panics_and_what_is_shown_is_bounded(spec in specs(), steps in steps()) {
        let (all, chart) = life(&spec, &steps, false, None);
        let view = chart.view(&spec);
        prop_assert!(view.points.len() <= 50 && view.violations.len() <= 20);
        prop_assert!(view.capability.iter().all(|of| of.mean.is_finite()));
        for violation in all {
            prop_assert!(Arc::ptr_eq(&violation.chart, &spec.name) && !violation.points.is_empty());
            prop_assert!(violation.points.windows(2).all(|two| two[0].index < two[1].index && two[0].at <= two[1].at));
            prop_assert!(violation.points.iter().all(|named| named.value.is_finite()));
        }
    }
}
