//! Series whose figures follow by hand.

use std::time::Duration;

use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A detector, what it was told, and what it told.
struct Rig {
    spec: DetectorSpec,
    detector: Detector,
    events: Vec<Event>,
}

impl Rig {
    fn new(method: Method) -> Self {
        let spec = DetectorSpec { name: "d".into(), tag: TagId(0), method, consecutive: 1, clear: 1 };
        Self { spec, detector: Detector::default(), events: Vec::new() }
    }

    fn of(self, consecutive: u32, clear: u32) -> Self {
        Self { spec: DetectorSpec { consecutive, clear, ..self.spec }, ..self }
    }

    fn observe(&mut self, reading: &Reading) {
        self.detector.observe(&self.spec, reading, &mut self.events);
    }

    /// A good reading at so many seconds, received a tenth of a second later.
    fn tell(&mut self, second: i64, value: f64) {
        self.observe(&good(second, value));
    }

    fn tell_all(&mut self, from: i64, values: &[f64]) {
        for (second, value) in (from..).zip(values) {
            self.tell(second, *value);
        }
    }

    fn lose(&mut self, second: i64) {
        self.observe(&Reading::bad(TagId(0), Status::Own(OwnStatus::LinkLost), at(second), at(second)));
    }

    fn advance(&mut self, second: i64) {
        self.detector.advance(&self.spec, at(second), &mut self.events);
    }

    /// What was told since the last call: what, at which second, how bad.
    fn told(&mut self) -> Vec<(Change, f64, Severity)> {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a test")]
        let second = |at: Time| at.0 as f64 / 1e9;
        self.events.drain(..).map(|event| (event.change, second(event.at), event.episode.severity)).collect()
    }

    fn last(&self) -> Episode {
        let view = self.detector.view(&self.spec);
        *view.open.or(view.over.back()).expect("there was an anomaly")
    }

    fn baseline(&self) -> Baseline {
        self.detector.view(&self.spec).baseline
    }
}

fn at(second: i64) -> Time {
    Time::from_millis(second * 1000)
}

fn good(second: i64, value: f64) -> Reading {
    Reading::good(TagId(0), Value::Float(value), at(second), at(second) + Duration::from_millis(100))
}

fn learning(warm_up: u32) -> Learning {
    Learning { warm_up, accept_after: 10 * SECOND, min_deviation: 0.0 }
}

fn thresholds(warning: f64, critical: f64) -> Thresholds {
    Thresholds { warning: Some(warning), critical: Some(critical) }
}

fn robust(window: u32, learning: Learning) -> Method {
    Method::RobustZ { window: Window::Readings(window), learning, thresholds: thresholds(3.5, 10.0) }
}

fn ewma(weight: f64, learning: Learning) -> Method {
    Method::Ewma { weight, learning, thresholds: thresholds(3.0, 10.0) }
}

use Change::{Detected, Ended as Over, Worsened};
use Severity::{Critical, Warning};

/// 10 to 14: the median is 12, the deviations 2 1 0 1 2, the MAD 1, so the score is 0.6745 times the distance.
const TEN_TO_FOURTEEN: [f64; 5] = [10.0, 11.0, 12.0, 13.0, 14.0];

#[test]
fn a_robust_z_score_is_that_of_iglewicz_and_hoaglin() {
    let mut rig = Rig::new(robust(5, learning(5)));
    rig.tell_all(0, &TEN_TO_FOURTEEN[..4]);
    assert_eq!(rig.baseline(), Baseline::Learning { readings: 4, warm_up: 5 });
    rig.tell(4, 14.0);
    assert_eq!(rig.baseline(), Baseline::Learnt { center: 12.0, spread: Some(1.0 / 0.6745) });
    // 0.6745 * 5.1 = 3.44 is within 3.5, 0.6745 * 5.2 = 3.51 is beyond it.
    let mut close = Rig::new(robust(5, learning(5)));
    close.tell_all(0, &TEN_TO_FOURTEEN);
    close.tell(5, 17.1);
    assert_eq!(close.told(), []);
    rig.tell(5, 17.2);
    assert_eq!(rig.told(), [(Detected, 5.0, Warning)]);
    let episode = rig.last();
    assert!((episode.peak.score - 0.6745 * 5.2).abs() < 1e-12, "{episode:?}");
    assert_eq!((episode.expected, episode.peak.value, episode.ended), (Some(12.0), 17.2, None));
    assert_eq!((episode.began, episode.detected, episode.latency_s), (at(5), at(5), 0.1));
    rig.tell(6, -8.0); // -13.49
    assert_eq!(rig.told(), [(Worsened, 6.0, Critical)]);
    rig.tell(7, 12.0);
    assert_eq!(rig.told(), [(Over, 7.0, Critical)]);
    assert!((rig.last().peak.score - 0.6745 * -20.0).abs() < 1e-12);
    assert_eq!(rig.last().ended, Some(Ended { at: at(7), how: End::Normal }));
}

#[test]
fn an_outlier_does_not_enter_the_baseline() {
    let mut rig = Rig::new(robust(5, learning(5)));
    rig.tell_all(0, &TEN_TO_FOURTEEN);
    rig.tell_all(5, &[1000.0, 1000.0, 1000.0, 1000.0]);
    assert_eq!(rig.baseline(), Baseline::Learnt { center: 12.0, spread: Some(1.0 / 0.6745) });
    assert_eq!(rig.told(), [(Detected, 5.0, Critical)], "one anomaly, not four");
}

#[test]
fn what_stays_out_for_long_enough_is_the_new_normal() {
    let mut rig = Rig::new(robust(5, learning(5)));
    rig.tell_all(0, &TEN_TO_FOURTEEN);
    for second in 5..15 {
        rig.tell(second, 50.0);
    }
    assert_eq!(rig.told(), [(Detected, 5.0, Critical)]);
    rig.tell(15, 50.0);
    assert_eq!(rig.told(), [(Over, 15.0, Critical)]);
    assert_eq!(rig.last().ended, Some(Ended { at: at(15), how: End::Accepted }));
    assert_eq!(rig.baseline(), Baseline::Learning { readings: 1, warm_up: 5 });
    rig.tell_all(16, &[51.0, 49.0, 52.0, 48.0, 50.5]);
    assert_eq!(rig.told(), []);
    rig.tell(21, 12.0);
    assert_eq!(rig.told(), [(Detected, 21.0, Critical)], "the old level is abnormal now");
}

#[test]
fn where_all_are_alike_nothing_is_judged_unless_a_deviation_is_said() {
    let mut rig = Rig::new(robust(4, learning(4)));
    rig.tell_all(0, &[20.0; 4]);
    assert_eq!(rig.baseline(), Baseline::Learnt { center: 20.0, spread: None });
    rig.tell(4, 20.5);
    assert_eq!(rig.told(), []);
    // 20 20 20 20.5: the MAD is 0, the mean deviation 0.125, so 20.5 is 0.5 / (1.253314 * 0.125) = 3.19 of them: within.
    rig.tell(5, 20.6); // 3.83 of them
    assert_eq!(rig.told(), [(Detected, 5.0, Warning)]);
    assert!((rig.last().peak.score - 0.6 / (1.253_314 * 0.125)).abs() < 1e-9, "{:?}", rig.last());

    let mut rig = Rig::new(robust(4, Learning { min_deviation: 0.5, ..learning(4) }));
    rig.tell_all(0, &[20.0, 20.0, 20.0, 20.0, 21.0]);
    assert_eq!(rig.told(), []);
    rig.tell(5, 22.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Detected, 5.0, Warning)], 4.0));
}

#[test]
fn an_ewma_is_left_by_three_of_its_deviations() {
    // Mean 5, standard deviation 2 after these eight; equal weights as long as 1/n is above the weight.
    let mut rig = Rig::new(ewma(0.1, learning(8)));
    rig.tell_all(0, &[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0]);
    rig.tell(7, 9.0);
    assert_eq!(rig.told(), [], "nothing is judged while it learns");
    let Baseline::Learnt { center, spread: Some(spread) } = rig.baseline() else { panic!("{:?}", rig.baseline()) };
    assert!((center - 5.0).abs() < 1e-12 && (spread - 2.0).abs() < 1e-12);
    rig.tell(8, 11.5);
    assert_eq!(rig.told(), [(Detected, 8.0, Warning)]);
    assert!((rig.last().peak.score - 3.25).abs() < 1e-12);
    rig.tell(9, 5.0);
    assert_eq!(rig.told(), [(Over, 9.0, Warning)]);
    // The ninth that counts weighs 1/9 and lies at the mean: the variance is 4 * 8/9.
    let Baseline::Learnt { spread: Some(spread), .. } = rig.baseline() else { panic!("{:?}", rig.baseline()) };
    assert!((spread - (32.0_f64 / 9.0).sqrt()).abs() < 1e-12);
}

#[test]
fn a_rate_is_a_second_by_the_source_and_knows_no_gap() {
    let method = Method::Rate { over: Duration::ZERO, thresholds: thresholds(2.0, 5.0) };
    let mut rig = Rig::new(method);
    rig.tell_all(0, &[10.0, 12.0]);
    assert_eq!(rig.told(), [], "2 a second is not above 2");
    rig.tell(11, 35.0); // 23 in 10 s
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Detected, 11.0, Warning)], 2.3));
    rig.tell(12, 29.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Worsened, 12.0, Critical)], -6.0));
    rig.tell(13, 29.5);
    assert_eq!(rig.told(), [(Over, 13.0, Critical)]);
    rig.lose(14);
    rig.tell(15, 500.0);
    assert_eq!(rig.told(), [], "nobody knows how fast it came there");
    rig.tell(15, 700.0);
    rig.tell(16, 503.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Detected, 16.0, Warning)], 3.0), "from the first at 15");
}

#[test]
fn a_rate_may_be_measured_over_some_time() {
    let mut rig = Rig::new(Method::Rate { over: 10 * SECOND, thresholds: thresholds(2.0, 5.0) });
    rig.tell_all(0, &[0.0, 9.0, -9.0, 9.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    rig.tell(10, 15.0);
    assert_eq!(rig.told(), [], "1.5 a second over ten");
    rig.tell(20, 40.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Detected, 20.0, Warning)], 2.5));
}

fn flat(band: f64, critical: Option<Duration>) -> Rig {
    Rig::new(Method::FlatLine { band, warning: MINUTE, critical })
}

#[test]
fn a_flat_line_is_found_by_time_alone() {
    let mut rig = flat(0.5, Some(10 * MINUTE));
    rig.tell_all(0, &[20.0, 21.0, 21.5, 20.5]);
    rig.advance(60);
    assert_eq!(rig.told(), []);
    rig.advance(61);
    assert_eq!(rig.told(), [(Detected, 61.0, Warning)], "a minute after 21");
    let episode = rig.last();
    assert_eq!((episode.began, episode.latency_s, episode.peak.value), (at(1), 60.0, 21.0));
    rig.tell(300, 21.2);
    rig.advance(700);
    assert_eq!(rig.told(), [(Worsened, 601.0, Critical)]);
    rig.tell(900, 21.6);
    assert_eq!(rig.told(), [(Over, 900.0, Critical)]);
    assert_eq!((rig.last().peak.score, rig.last().ended.map(|end| end.how)), (899.0, Some(End::Normal)));
    rig.advance(959);
    assert_eq!(rig.told(), []);
    rig.advance(960);
    assert_eq!(rig.told(), [(Detected, 960.0, Warning)], "it stands still again");
}

#[test]
fn a_flat_line_that_ended_before_anybody_looked_is_told_with_its_own_times() {
    let mut rig = flat(0.0, Some(2 * MINUTE));
    rig.tell(0, 1.0);
    rig.tell(150, 2.0);
    assert_eq!(rig.told(), [(Detected, 60.0, Warning), (Worsened, 120.0, Critical), (Over, 150.0, Critical)]);
    let mut at_once = flat(0.0, Some(MINUTE));
    at_once.tell(0, 1.0);
    at_once.advance(60);
    assert_eq!(at_once.told(), [(Detected, 60.0, Critical)]);
    assert_eq!(at_once.detector.view(&at_once.spec).counts, Counts { detected: 1, warning: 0, critical: 1 });
}

#[test]
fn a_gap_is_no_flat_line() {
    let mut rig = flat(0.0, None);
    rig.tell(0, 1.0);
    rig.lose(59);
    rig.advance(3600);
    assert_eq!(rig.told(), []);
    rig.tell(3600, 1.0);
    rig.advance(3659);
    assert_eq!(rig.told(), [], "the time before the gap does not count");
    rig.advance(3660);
    assert_eq!(rig.told(), [(Detected, 3660.0, Warning)]);
    rig.lose(3700);
    assert_eq!(rig.told(), [(Over, 3700.0, Warning)]);
    assert_eq!((rig.last().peak.score, rig.last().ended.map(|end| end.how)), (100.0, Some(End::Lost)));
}

fn limits() -> Method {
    Method::Limits(Limits { low_low: None, low: Some(10.0), high: Some(90.0), high_high: Some(95.0) })
}

#[test]
fn limits_are_those_of_process_alarms() {
    let mut rig = Rig::new(limits());
    rig.tell_all(0, &[10.0, 90.0]);
    assert_eq!(rig.told(), [], "a limit itself is fine");
    rig.tell(2, 96.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Detected, 2.0, Critical)], 6.0));
    rig.tell(3, 50.0);
    rig.tell(4, -100.0);
    let told = rig.told();
    assert_eq!((told, rig.last().peak.score), (vec![(Over, 3.0, Critical), (Detected, 4.0, Warning)], -110.0));
}

#[test]
fn several_in_a_row_begin_it_and_several_end_it() {
    let mut rig = Rig::new(limits()).of(3, 2);
    rig.tell_all(0, &[91.0, 91.0, 50.0]);
    assert_eq!(rig.told(), [], "two are none");
    rig.tell_all(3, &[96.0, 91.0, 92.0]);
    assert_eq!(rig.told(), [(Detected, 5.0, Warning)], "one critical reading is no critical anomaly");
    let episode = rig.last();
    assert_eq!((episode.began, episode.latency_s, episode.peak.score), (at(3), 2.1, 6.0));
    rig.tell_all(6, &[96.0, 97.0]);
    assert_eq!(rig.told(), []);
    rig.tell(8, 98.0);
    assert_eq!((rig.told(), rig.last().peak.score), (vec![(Worsened, 8.0, Critical)], 8.0));
    rig.tell_all(9, &[50.0, 96.0, 50.0]);
    assert_eq!(rig.told(), [], "one normal reading does not end it");
    rig.tell(12, 50.0);
    assert_eq!(rig.told(), [(Over, 11.0, Critical)]);
    let counts = rig.detector.view(&rig.spec).counts;
    assert_eq!(counts, Counts { detected: 1, warning: 1, critical: 1 });
    assert_eq!(Severity::ALL.map(|severity| counts.of(severity)), [1, 1]);
}

#[test]
fn bad_readings_are_not_observed_and_uncertain_ones_are() {
    let mut rig = Rig::new(limits()).of(2, 1);
    rig.tell(0, 91.0);
    rig.lose(1);
    rig.observe(&Reading { validity: Validity::Uncertain(Status::Own(OwnStatus::Clamped)), ..good(2, 92.0) });
    assert_eq!(rig.told(), [(Detected, 2.0, Warning)], "a bad reading is neither out nor normal");
    let text = Reading::good(TagId(0), Value::Text("50".into()), at(3), at(3));
    rig.observe(&text);
    assert_eq!(rig.told(), [], "text is not observed");
    rig.observe(&Reading::good(TagId(0), Value::Int(50), at(4), at(4)));
    assert_eq!(rig.told(), [(Over, 4.0, Warning)]);
}

#[test]
fn a_reading_from_before_the_last_is_not_observed_unless_there_was_a_gap() {
    let mut rig = Rig::new(limits());
    rig.tell(100, 50.0);
    rig.tell(99, 91.0);
    assert_eq!(rig.told(), []);
    rig.lose(101);
    rig.tell(20, 91.0);
    assert_eq!(rig.told(), [(Detected, 20.0, Warning)], "the source's clock was put back");
}

#[test]
fn an_instant_begins_one_anomaly_at_most() {
    let mut rig = Rig::new(limits());
    rig.tell(1, 91.0);
    rig.tell(1, 50.0);
    rig.tell(1, 91.0);
    assert_eq!(rig.told(), [(Detected, 1.0, Warning), (Over, 1.0, Warning)]);
    rig.tell(2, 91.0);
    assert_eq!(rig.told(), [(Detected, 2.0, Warning)]);
}

#[test]
fn people_say_what_it_was_and_the_last_word_counts() {
    let mut rig = Rig::new(limits());
    rig.tell_all(0, &[91.0, 50.0, 91.0, 50.0, 91.0, 50.0, 91.0]);
    let figure = |rig: &Rig| {
        let verdicts = rig.detector.view(&rig.spec).verdicts;
        (verdicts.false_positives(), verdicts.judged())
    };
    assert_eq!(figure(&rig), (None, 0), "what nobody judged says nothing");
    let mut judge = |second, verdict| rig.detector.judge(at(second), verdict);
    assert_eq!(judge(0, Verdict::Dismissed).map(|episode| episode.verdict), Ok(Some(Verdict::Dismissed)));
    judge(2, Verdict::Confirmed).expect("known");
    judge(6, Verdict::Confirmed).expect("that which lasts can be judged");
    assert_eq!(judge(1, Verdict::Confirmed), Err(UnknownEpisode(at(1))));
    assert_eq!(figure(&rig), (Some(1.0 / 3.0), 3));
    rig.detector.judge(at(2), Verdict::Dismissed).expect("known");
    rig.detector.judge(at(2), Verdict::Dismissed).expect("known");
    assert_eq!(figure(&rig), (Some(2.0 / 3.0), 3));
    rig.tell(7, 50.0);
    assert_eq!(rig.last().verdict, Some(Verdict::Confirmed), "it stays when it ends");
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_counted_is_not() {
    let mut rig = Rig::new(limits());
    for round in 0..1000 {
        rig.tell_all(2 * round, &[91.0, 50.0]);
    }
    let view = rig.detector.view(&rig.spec);
    assert_eq!((view.over.len(), view.counts.detected, view.latency.count), (KEPT, 1000, 1000));
    assert!((view.latency.sum - 100.0).abs() < 1e-6 && view.latency.max <= 0.1, "{:?}", view.latency);
    assert_eq!(rig.detector.judge(at(0), Verdict::Confirmed), Err(UnknownEpisode(at(0))));
}

#[test]
fn another_method_begins_anew_and_keeps_what_was_counted() {
    let mut rig = flat(0.0, None);
    rig.tell(0, 5.0);
    rig.advance(60);
    rig.spec.method = limits();
    rig.tell(61, 50.0);
    assert_eq!(rig.told(), [(Detected, 60.0, Warning), (Over, 61.0, Warning)]);
    rig.spec.method = robust(5, learning(2));
    assert_eq!(rig.baseline(), Baseline::Learning { readings: 0, warm_up: 2 });
    rig.tell(62, 50.0);
    assert_eq!(rig.baseline(), Baseline::Learning { readings: 1, warm_up: 2 });
    assert_eq!(rig.detector.view(&rig.spec).counts.detected, 1);
}

#[test]
fn an_anomaly_has_a_name_that_reads_back() {
    let id = EpisodeId { station: "oven-1".into(), tag: "zone1".into(), detector: "zone1.ewma".into(), began: at(90) };
    assert_eq!(id.to_string(), "oven-1/zone1/zone1.ewma@1970-01-01T00:01:30Z");
    assert_eq!(id.to_string().parse(), Ok(id));
    let odd = EpisodeId { station: "a/b".into(), tag: "50 %@".into(), detector: "Öl".into(), began: Time(1) };
    assert_eq!(odd.to_string(), "a%2Fb/50%20%25%40/%C3%96l@1970-01-01T00:00:00.000000001Z");
    assert_eq!(odd.to_string().parse(), Ok(odd));
    for wrong in [
        "",
        "a/b/c",
        "a/b@1970-01-01T00:00:00Z",
        "a/b/c/d@1970-01-01T00:00:00Z",
        "a/b/c@noon",
        "%FF/b/c@1970-01-01T00:00:00Z",
    ] {
        assert_eq!(wrong.parse::<EpisodeId>(), Err(NoEpisodeId), "{wrong}");
    }
}
