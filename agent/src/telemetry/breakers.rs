//! How links, and the devices behind them, are tried and left alone, as metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::{BreakerState, BreakerView, DeviceState, Durations, LinkState, Time};
use tokio::sync::watch;

use crate::telemetry::metric::{Kind, Metric, Number, Point};

/// Attributes of a point, in order of name.
type Attributes = Vec<(&'static str, Arc<str>)>;

/// Of a device that is several stations, all of them: `press-1,press-2`.
const STATION: &str = "factory.station";
const DEVICE: &str = "gemba.device.name";
const ENDPOINT: &str = "gemba.link.endpoint";
const STATE: &str = "gemba.breaker.state";
const FRAME: &str = "gemba.frame.kind";

/// The metrics of all links, counted since then. Links to one endpoint are one, and worse counts.
#[must_use]
pub fn metrics(links: &[(Arc<str>, watch::Receiver<LinkState>)], since: Time) -> Vec<Metric> {
    let mut all = Families::default();
    for (endpoint, link) in links {
        let link = link.borrow();
        let of_link = vec![(ENDPOINT, Arc::clone(endpoint))];
        all.attempts.add(of_link.clone(), link.attempts);
        all.connecting.entry(of_link.clone()).or_default().add(&link.connecting);
        all.link.add(&of_link, &link.breaker);
        for device in &link.devices {
            all.device(of_device(endpoint, device), device);
        }
    }
    all.tell(since)
}

/// What tells a device: in order of name, and with all the stations that it is.
fn of_device(endpoint: &Arc<str>, device: &DeviceState) -> Attributes {
    let of = vec![(DEVICE, Arc::clone(&device.name)), (ENDPOINT, Arc::clone(endpoint))];
    if device.stations.is_empty() {
        return of;
    }
    with(&of, STATION, &device.stations.join(","))
}

#[derive(Default)]
struct Families {
    attempts: Counts,
    connecting: BTreeMap<Attributes, Sum>,
    link: Breakers,
    device: Breakers,
    requests: Counts,
    unanswered: Counts,
    retries: Counts,
    retrying: BTreeMap<Attributes, Sum>,
    discarded: Counts,
}

impl Families {
    fn device(&mut self, of: Attributes, device: &DeviceState) {
        self.device.add(&of, &device.breaker);
        self.requests.add(of.clone(), device.requests);
        self.unanswered.add(of.clone(), device.unanswered);
        self.retries.add(of.clone(), device.retries);
        for (kind, count) in device.discarded.iter().filter(|(_, count)| *count > 0) {
            self.discarded.add(with(&of, FRAME, kind), *count);
        }
        self.retrying.entry(of).or_default().add(&device.retrying);
    }

    fn tell(self, since: Time) -> Vec<Metric> {
        let state = "How the breaker stands: 0 closed, 1 half open, 2 open.";
        let turns = "Times that the breaker turned to the state.";
        let count = Kind::Count(since);
        let took = |(name, about), of: BTreeMap<Attributes, Sum>| {
            let points = of.into_iter().map(|(attributes, sum)| Point { attributes, value: sum.number() }).collect();
            Metric { name, unit: "s", about, kind: Kind::Histogram(since), points }
        };
        let all = [
            self.attempts.tell(
                "gemba.link.attempts",
                "{attempt}",
                "Times that it was tried to bring the link up.",
                count,
            ),
            took(
                ("gemba.link.connect.duration", "How long these attempts took, also those that failed."),
                self.connecting,
            ),
            self.link.states.tell("gemba.link.breaker.state", "{state}", state, Kind::Gauge),
            self.link.turns.tell("gemba.link.breaker.transitions", "{transition}", turns, count),
            self.device.states.tell("gemba.device.breaker.state", "{state}", state, Kind::Gauge),
            self.device.turns.tell("gemba.device.breaker.transitions", "{transition}", turns, count),
            self.requests.tell("gemba.device.requests", "{request}", "Requests to the device.", count),
            self.unanswered.tell("gemba.device.unanswered", "{request}", "Requests that had no answer.", count),
            self.retries.tell(
                "gemba.device.retries",
                "{request}",
                "Requests made again, or to see whether it is back.",
                count,
            ),
            took(
                ("gemba.device.retry.duration", "How long retries took, also those without an answer."),
                self.retrying,
            ),
            self.discarded.tell(
                "gemba.device.discarded",
                "{frame}",
                "Frames that were no answer to what was asked.",
                count,
            ),
        ];
        all.into_iter().filter(|metric| !metric.points.is_empty()).collect()
    }
}

/// Numbers by attributes.
#[derive(Default)]
struct Counts(BTreeMap<Attributes, u64>);

impl Counts {
    fn add(&mut self, of: Attributes, count: u64) {
        *self.0.entry(of).or_default() += count;
    }

    fn tell(self, name: &'static str, unit: &'static str, about: &'static str, kind: Kind) -> Metric {
        let point = |(attributes, count)| Point { attributes, value: Number::Whole(count) };
        Metric { name, unit, about, kind, points: self.0.into_iter().map(point).collect() }
    }
}

/// Breakers by attributes.
#[derive(Default)]
struct Breakers {
    states: Counts,
    turns: Counts,
}

impl Breakers {
    fn add(&mut self, of: &Attributes, breaker: &BreakerView) {
        let worst = self.states.0.entry(of.clone()).or_default();
        *worst = (*worst).max(breaker.state as u64);
        // From the start: of what begins with a one nobody sees that it rose.
        for (state, turns) in BreakerState::ALL.iter().zip(breaker.turns) {
            self.turns.add(with(of, STATE, state.word()), turns);
        }
    }
}

/// Buckets, added up.
#[derive(Default)]
struct Sum {
    counts: Vec<u64>,
    seconds: f64,
}

impl Sum {
    fn add(&mut self, durations: &Durations) {
        self.counts.resize(durations.counts.len(), 0);
        self.counts.iter_mut().zip(durations.counts).for_each(|(sum, count)| *sum += count);
        self.seconds += durations.sum.as_secs_f64();
    }

    fn number(self) -> Number {
        Number::Buckets { bounds: &Durations::BOUNDS, counts: self.counts, sum: self.seconds }
    }
}

/// The attributes and one more, in order of name.
fn with(of: &Attributes, name: &'static str, value: &str) -> Attributes {
    let mut all = of.clone();
    let place = all.partition_point(|(known, _)| *known < name);
    all.insert(place, (name, value.into()));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn links_and_devices_are_told_with_their_breakers() {
        let mut retrying = Durations::default();
        retrying.add(Duration::from_millis(50));
        let mut breaker = BreakerView::new(Time(0));
        breaker.turn(BreakerState::Open, Time(1));
        let device = DeviceState {
            name: "unit 2".into(),
            stations: vec!["press-2".into()],
            breaker,
            requests: 7,
            unanswered: 3,
            retries: 1,
            retrying,
            discarded: vec![("crc", 2), ("late", 0)],
        };
        let link = LinkState { attempts: 4, devices: vec![device], ..LinkState::new(Time(0)) };
        let links = ["tcp://a", "tcp://a"].map(|name| (name.into(), watch::channel(link.clone()).1));
        let told = metrics(&links, Time(0));
        let lines: Vec<_> = told
            .iter()
            .flat_map(|metric| {
                metric.points.iter().map(|Point { attributes, value }| {
                    let of: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    let value = match value {
                        Number::Whole(whole) => whole.to_string(),
                        Number::Buckets { counts, sum, .. } => format!("{} in {sum}", counts.iter().sum::<u64>()),
                        Number::Real(real) => real.to_string(),
                    };
                    format!("{} {} {value}", metric.name, of.join(" "))
                })
            })
            .collect();
        let link = "gemba.link.endpoint=tcp://a";
        let device = "gemba.device.name=unit 2 gemba.link.endpoint=tcp://a";
        let of = format!("factory.station=press-2 {device}");
        assert_eq!(
            lines,
            [
                "gemba.link.attempts gemba.link.endpoint=tcp://a 8".to_owned(),
                "gemba.link.connect.duration gemba.link.endpoint=tcp://a 0 in 0".to_owned(),
                "gemba.link.breaker.state gemba.link.endpoint=tcp://a 0".to_owned(),
                format!("gemba.link.breaker.transitions gemba.breaker.state=closed {link} 0"),
                format!("gemba.link.breaker.transitions gemba.breaker.state=half_open {link} 0"),
                format!("gemba.link.breaker.transitions gemba.breaker.state=open {link} 0"),
                format!("gemba.device.breaker.state {of} 2"),
                format!(
                    "gemba.device.breaker.transitions factory.station=press-2 gemba.breaker.state=closed {device} 0"
                ),
                format!(
                    "gemba.device.breaker.transitions factory.station=press-2 gemba.breaker.state=half_open {device} 0"
                ),
                format!("gemba.device.breaker.transitions factory.station=press-2 gemba.breaker.state=open {device} 2"),
                format!("gemba.device.requests {of} 14"),
                format!("gemba.device.unanswered {of} 6"),
                format!("gemba.device.retries {of} 2"),
                format!("gemba.device.retry.duration {of} 2 in 0.1"),
                format!(
                    "gemba.device.discarded {} gemba.frame.kind=crc gemba.link.endpoint=tcp://a 4",
                    "factory.station=press-2 gemba.device.name=unit 2"
                ),
            ]
        );
    }
}
