//! What the agent counts of its own work, since it started.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gemba_drivers::Time;

use crate::snapshot::{Intake, SpoolView};
use crate::spool::Signal;
use crate::telemetry::metric::{Kind, Metric, Number, Point};

/// Upper bounds of the buckets of commit times, in seconds: from a good SSD to a flash card that hangs.
const COMMIT_BOUNDS: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// How a request to upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Upstream has it.
    Accepted,
    /// Upstream failed, or wants it later.
    Failed,
    /// Upstream does not want it, or not that much.
    Refused,
    /// Upstream does not want us.
    Blocked,
    /// Nobody there, or no answer in time.
    Unanswered,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Accepted, Self::Failed, Self::Refused, Self::Blocked, Self::Unanswered];

    const fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The counters. Written by pipeline and forwarder, read by whoever wants to.
#[derive(Debug)]
pub struct Meters {
    since: Time,
    /// Numbers, texts, changes among them.
    intake: [AtomicU64; 3],
    events: AtomicU64,
    batches: AtomicU64,
    commit_bytes: AtomicU64,
    commit_ns: AtomicU64,
    commits: [AtomicU64; COMMIT_BOUNDS.len() + 1],
    dropped: AtomicU64,
    spool: [AtomicU64; 3],
    /// Of each signal, by outcome.
    requests: [[AtomicU64; Outcome::ALL.len()]; Signal::ALL.len()],
    request_bytes: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            since: Time::now(),
            intake: Default::default(),
            events: AtomicU64::default(),
            batches: AtomicU64::default(),
            commit_bytes: AtomicU64::default(),
            commit_ns: AtomicU64::default(),
            commits: Default::default(),
            dropped: AtomicU64::default(),
            spool: Default::default(),
            requests: Default::default(),
            request_bytes: AtomicU64::default(),
        }
    }
}

impl Meters {
    /// A batch came in.
    pub fn took_batch(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    /// So many readings of numbers and of text were taken in.
    pub fn took(&self, numbers: usize, texts: usize) {
        self.intake[0].fetch_add(numbers as u64, Relaxed);
        self.intake[1].fetch_add(texts as u64, Relaxed);
    }

    /// A text tag changed.
    pub fn text_changed(&self) {
        self.intake[2].fetch_add(1, Relaxed);
    }

    /// A device told that something happened.
    pub fn took_event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    /// What was taken in so far.
    #[must_use]
    pub fn intake(&self) -> Intake {
        let [numbers, texts, text_changes] = self.intake.each_ref().map(|held| held.load(Relaxed));
        Intake { numbers, texts, text_changes }
    }

    /// So many bytes became durable within that time, and so the spool stands now.
    pub fn committed(&self, bytes: usize, took: Duration, spool: &SpoolView) {
        let bucket = COMMIT_BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.commits[bucket].fetch_add(1, Relaxed);
        self.commit_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.commit_bytes.fetch_add(bytes as u64, Relaxed);
        for (held, now) in self.spool.iter().zip([spool.records, spool.readings, spool.bytes]) {
            held.store(now, Relaxed);
        }
    }

    /// A request of so many bytes ended so. Without an answer nobody knows what of it went out: none is counted.
    pub fn sent(&self, signal: Signal, outcome: Outcome, bytes: usize) {
        self.requests[signal as usize][outcome as usize].fetch_add(1, Relaxed);
        if outcome != Outcome::Unanswered {
            self.request_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// So much of the agent's own telemetry had to be dropped.
    pub fn drop_own(&self, items: u64) {
        self.dropped.fetch_add(items, Relaxed);
    }

    /// How much was, so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Since when all of this is counted.
    #[must_use]
    pub fn since(&self) -> Time {
        self.since
    }

    /// What nobody else tells.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let count = Kind::Count(self.since);
        let sum = |name, unit, about, held: &AtomicU64| {
            Metric::one(name, unit, about, count, Number::Whole(held.load(Relaxed)))
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds need no more digits")]
        let took = self.commit_ns.load(Relaxed) as f64 / 1e9;
        let counts = self.commits.iter().map(|held| held.load(Relaxed)).collect();
        let took = Number::Buckets { bounds: &COMMIT_BOUNDS, counts, sum: took };
        vec![
            sum("gemba.batches", "{batch}", "Responses, publishes and payloads taken in.", &self.batches),
            sum("gemba.events", "{event}", "Events and alarms of devices taken in.", &self.events),
            sum("gemba.commit.io", "By", "Bytes made durable.", &self.commit_bytes),
            Metric::one("gemba.commit.duration", "s", "How long commits took.", Kind::Histogram(self.since), took),
            sum("gemba.telemetry.dropped", "{item}", "Own points, log records and spans dropped.", &self.dropped),
            sum("gemba.forward.io", "By", "Bytes in requests that upstream answered.", &self.request_bytes),
            self.requests(),
        ]
    }

    /// Requests by signal and outcome; of what went wrong only that which did.
    fn requests(&self) -> Metric {
        let mut points = Vec::new();
        for outcome in Outcome::ALL {
            for signal in Signal::ALL {
                let count = self.requests[signal as usize][outcome as usize].load(Relaxed);
                let attributes = vec![
                    ("gemba.forward.outcome", outcome.word().into()),
                    ("gemba.forward.signal", signal.word().into()),
                ];
                points.extend(
                    (count > 0 || outcome == Outcome::Accepted)
                        .then_some(Point { attributes, value: Number::Whole(count) }),
                );
            }
        }
        let (name, unit) = ("gemba.forward.requests", "{request}");
        let about = "Requests to upstream, each attempt counted.";
        Metric { name, unit, about, kind: Kind::Count(self.since), points }
    }

    /// What a [`Snapshot`](crate::snapshot::Snapshot) tells as well: what was taken in, and how the spool stood at the last
    /// commit.
    #[must_use]
    pub fn shown(&self) -> Vec<Metric> {
        let Intake { numbers, texts, text_changes } = self.intake();
        let count = Kind::Count(self.since);
        let about = ("gemba.readings", "{reading}", "Readings taken in.");
        let kinds = [("number".into(), Number::Whole(numbers)), ("text".into(), Number::Whole(texts))];
        let about_changes = "Changes of text tags.";
        let mut shown = vec![
            Metric::by(about, count, "gemba.reading.kind", kinds),
            Metric::one("gemba.text.changes", "{change}", about_changes, count, Number::Whole(text_changes)),
        ];
        let level = |(name, unit, about), held: &AtomicU64| {
            Metric::one(name, unit, about, Kind::Level, Number::Whole(held.load(Relaxed)))
        };
        let names = [
            ("gemba.spool.records", "{record}", "Records that upstream does not have yet."),
            ("gemba.spool.readings", "{reading}", "Readings that upstream does not have yet."),
            ("gemba.spool.bytes", "By", "Size of the spool on disk."),
        ];
        shown.extend(names.into_iter().zip(&self.spool).map(|(name, held)| level(name, held)));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_signal_and_outcome() {
        let meters = Meters::default();
        for _ in 0..2 {
            meters.sent(Signal::Metrics, Outcome::Accepted, 100);
        }
        meters.sent(Signal::Traces, Outcome::Blocked, 10);
        meters.sent(Signal::Metrics, Outcome::Unanswered, 1000);
        let points = meters.requests().points;
        let said = points.iter().map(|point| {
            let [(_, outcome), (_, signal)] = &point.attributes[..] else { panic!("{point:?}") };
            (&**outcome, &**signal, point.value.clone())
        });
        let expected = [
            ("accepted", "metrics", 2),
            ("accepted", "logs", 0),
            ("accepted", "traces", 0),
            ("blocked", "traces", 1),
            ("unanswered", "metrics", 1),
        ];
        assert!(
            said.eq(expected.map(|(outcome, signal, count)| (outcome, signal, Number::Whole(count)))),
            "{points:?}"
        );
        let io = meters.metrics().into_iter().find(|it| it.name == "gemba.forward.io").expect("it is told");
        assert_eq!(io.points[0].value, Number::Whole(210));
    }

    #[test]
    fn a_commit_falls_into_the_first_bucket_that_holds_it() {
        let meters = Meters::default();
        for micros in [400, 500, 501, 2_000_000] {
            meters.committed(10, Duration::from_micros(micros), &SpoolView { bytes: 7, ..SpoolView::default() });
        }
        meters.took_batch();
        meters.took(2, 1);
        meters.text_changed();
        let all = meters.metrics();
        let found =
            |name: &str| all.iter().find(|metric| metric.name == name).expect("it is told").points[0].value.clone();
        let Number::Buckets { counts, sum, .. } = found("gemba.commit.duration") else { panic!("buckets") };
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((sum - 2.001_401).abs() < 1e-9, "{sum}");
        assert_eq!(found("gemba.commit.io"), Number::Whole(40));
        assert_eq!(found("gemba.batches"), Number::Whole(1));
        assert_eq!(meters.intake(), Intake { numbers: 2, texts: 1, text_changes: 1 });
        let shown = meters.shown();
        let values = shown.iter().flat_map(|metric| &metric.points).map(|point| point.value.clone());
        assert_eq!(values.collect::<Vec<_>>(), [2, 1, 1, 0, 0, 7].map(Number::Whole));
    }
}
