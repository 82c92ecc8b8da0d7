//! What holds for any readings.

use std::time::Duration;

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Value};
use proptest::prelude::*;

use super::*;

/// What may happen to a detector: a reading some time after the last, or the tag gets bad.
#[derive(Clone, Debug)]
struct Step {
    after_ms: i64,
    late_ms: i64,
    value: Option<f64>,
}

impl Step {
    fn reading(&self, at: Time) -> Reading {
        let received = Time(at.0.saturating_add(self.late_ms.saturating_mul(1_000_000)));
        match self.value {
            Some(value) => Reading::good(TagId(0), Value::Float(value), at, received),
            None => Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), at, received),
        }
    }
}

/// Mostly near each other, as a tag's are, and any finite number now and then.
fn value() -> impl Strategy<Value = Option<f64>> {
    let any = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO;
    prop_oneof![
        12 => (-20..20_i32).prop_map(|tenths| Some(f64::from(tenths) / 10.0)),
        4 => (-9..9_i32).prop_map(|tens| Some(f64::from(tens) * 10.0)),
        1 => any.prop_map(Some),
        1 => Just(None),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![8 => 0..2000_i64, 1 => 0..600_000_i64];
    let step = (after, -100..5000_i64, value());
    prop::collection::vec(step.prop_map(|(after_ms, late_ms, value)| Step { after_ms, late_ms, value }), 0..120)
}

fn spec() -> impl Strategy<Value = DetectorSpec> {
    let thresholds = (0.5..5.0, 0.0..5.0)
        .prop_map(|(warning, more)| Thresholds { warning: Some(warning), critical: Some(warning + more) });
    let learning = (2..12_u32, 1..60_u64, prop_oneof![Just(0.0), 0.01..1.0]).prop_map(|(warm_up, seconds, least)| {
        Learning { warm_up, accept_after: Duration::from_secs(seconds), min_deviation: least }
    });
    let window = prop_oneof![
        (12..40_u32).prop_map(Window::Readings),
        (1..300_u64).prop_map(|seconds| Window::Time(Duration::from_secs(seconds))),
    ];
    let method = prop_oneof![
        (window, learning.clone(), thresholds.clone()).prop_map(|(window, learning, thresholds)| Method::RobustZ {
            window,
            learning,
            thresholds
        }),
        (0.01..=1.0, learning, thresholds.clone()).prop_map(|(weight, learning, thresholds)| Method::Ewma {
            weight,
            learning,
            thresholds
        }),
        (0..5000_u64, thresholds)
            .prop_map(|(over, thresholds)| Method::Rate { over: Duration::from_millis(over), thresholds }),
        (0.0..2.0, 1..5000_u64, prop::option::of(0..5000_u64)).prop_map(|(band, warning, more)| Method::FlatLine {
            band,
            warning: Duration::from_millis(warning),
            critical: more.map(|more| Duration::from_millis(warning + more)),
        }),
        (-20.0..0.0, 0.0..20.0).prop_map(|(low, high)| {
            Method::Limits(Limits { low_low: Some(low * 2.0), low: Some(low), high: Some(high), high_high: None })
        }),
    ];
    (method, 1..4_u32, 1..4_u32).prop_map(|(method, consecutive, clear)| DetectorSpec {
        name: "d".into(),
        tag: TagId(0),
        method,
        consecutive,
        clear,
    })
}

/// Runs `steps`; `before` may do something to the detector before each reading, which comes at the instant given.
fn run(
    spec: &DetectorSpec,
    steps: &[Step],
    mut before: impl FnMut(&mut Detector, usize, Time, Time, &mut Vec<Event>),
) -> (Detector, Vec<Event>) {
    let (mut detector, mut events, mut now) = (Detector::default(), Vec::new(), Time::from_millis(0));
    for (place, step) in steps.iter().enumerate() {
        let at = Time::from_millis(now.0 / 1_000_000 + step.after_ms);
        before(&mut detector, place, now, at, &mut events);
        detector.observe(spec, &step.reading(at), &mut events);
        now = at;
    }
    detector.advance(spec, now + Duration::from_secs(3600), &mut events);
    (detector, events)
}

proptest! {
    #[test]
    fn a_restart_at_any_point_changes_nothing(spec in spec(), steps in steps(), cut in 0..120_usize) {
        let straight = run(&spec, &steps, |_, _, _, _, _| {});
        let restarted = run(&spec, &steps, |detector, place, _, _, _| {
            if place == cut {
                let bytes = postcard::to_stdvec(detector).expect("it can be written");
                *detector = postcard::from_bytes(&bytes).expect("it can be read");
            }
        });
        prop_assert_eq!(straight, restarted);
    }

    #[test]
    fn it_does_not_matter_how_often_time_is_told(spec in spec(), steps in steps(), parts in prop::collection::vec(0..=4_i64, 120)) {
        let straight = run(&spec, &steps, |_, _, _, _, _| {});
        let watched = run(&spec, &steps, |detector, place, from, to, events| {
            for part in 1..=parts[place] {
                detector.advance(&spec, Time(from.0 + (to.0 - from.0) / parts[place] * part), events);
            }
        });
        prop_assert_eq!(straight, watched);
    }

    #[test]
    fn what_is_told_adds_up(spec in spec(), steps in steps()) {
        let (detector, events) = run(&spec, &steps, |_, _, _, _, _| {});
        let view = detector.view(&spec);
        let mut open: Option<Episode> = None;
        let mut counts = Counts::default();
        let mut begun = std::collections::HashSet::new();
        for event in &events {
            let episode = event.episode;
            prop_assert!(episode.peak.score.is_finite() && episode.latency_s >= 0.0, "{:?}", event);
            match event.change {
                Change::Detected => {
                    prop_assert!(open.is_none() && begun.insert(episode.began), "{:?}", event);
                    prop_assert!(episode.began <= episode.detected && episode.detected == event.at);
                    counts.detected += 1;
                    counts.count(episode.severity);
                    open = Some(episode);
                }
                Change::Worsened => {
                    let before = open.replace(episode).expect("there is one");
                    prop_assert_eq!((before.began, before.severity), (episode.began, Severity::Warning));
                    prop_assert_eq!(episode.severity, Severity::Critical);
                    counts.count(Severity::Critical);
                }
                Change::Ended => {
                    let before = open.take().expect("there is one");
                    let ended = episode.ended.expect("it says when");
                    prop_assert!(before.began == episode.began && before.severity == episode.severity);
                    prop_assert!(ended.at == event.at && ended.at >= episode.detected, "{:?}", event);
                }
            }
        }
        prop_assert_eq!(counts, view.counts);
        prop_assert_eq!(view.latency.count, counts.detected);
        prop_assert_eq!(open.map(|episode| episode.began), view.open.map(|episode| episode.began));
        if let Baseline::Learnt { center, spread } = view.baseline {
            prop_assert!(center.is_finite() && spread.is_none_or(|spread| spread.is_finite() && spread > 0.0));
        }
    }

    #[test]
    fn a_name_of_an_anomaly_reads_back(station in "\\PC{0,9}", tag in "[a-z/@%]{0,9}", detector in any::<String>(), at in any::<i64>()) {
        let id = EpisodeId { station: station.into(), tag: tag.into(), detector: detector.into(), began: Time(at) };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn no_finite_number_and_no_time_panics(
        spec in spec(),
        values in prop::collection::vec((any::<i64>(), any::<i64>(), prop::num::f64::ANY), 0..60),
    ) {
        let (mut detector, mut events) = (Detector::default(), Vec::new());
        for (at, received, value) in values {
            detector.observe(&spec, &Reading::good(TagId(0), Value::Float(value), Time(at), Time(received)), &mut events);
            detector.advance(&spec, Time(received), &mut events);
        }
        prop_assert!(events.iter().all(|event| event.episode.peak.score.is_finite()));
        prop_assert!(detector.view(&spec).over.len() <= KEPT);
    }
}
