//! Puts together what the agent tells of itself, and hands it to the pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::treat::Suppressed;
use gemba_drivers::{LinkPhase, LinkState, Loss, Time};
use tokio::sync::{mpsc, watch};

use crate::otlp::OwnEncoder;
use crate::snapshot::UpstreamView;
use crate::spool::{Own, Signal};
use crate::telemetry::breakers;
use crate::telemetry::meters::Meters;
use crate::telemetry::metric::{Kind, Metric, Number, Point};
use crate::telemetry::outbox::{Held, Outbox};

/// The source of losses of own telemetry.
pub const TELEMETRY: &str = "telemetry";

/// What the teller tells from.
pub struct Sources {
    /// Log lines and spans.
    pub outbox: Outbox,
    /// What the agent counts.
    pub meters: Arc<Meters>,
    /// Each link's endpoint and state.
    pub links: Vec<(Arc<str>, watch::Receiver<LinkState>)>,
    /// What the links' treatments left out.
    pub suppressed: Vec<Arc<Suppressed>>,
    /// The way up.
    pub upstream: watch::Receiver<UpstreamView>,
    /// What upstream is sent; nothing without one. The spool is for what somebody may yet want.
    pub wanted: Vec<Signal>,
}

/// Tells upstream of the agent, by way of the pipeline. When its queue is full what does not fit is dropped, and counted.
pub struct Teller {
    sources: Sources,
    encoder: OwnEncoder,
    to: mpsc::Sender<Own>,
    losses: mpsc::Sender<Loss>,
    /// How many drops are in the ledger, and since when there may be more.
    accounted: (u64, Time),
}

impl Teller {
    /// Tells `to` the pipeline; what was dropped goes to `losses`.
    #[must_use]
    pub fn new(sources: Sources, encoder: OwnEncoder, to: mpsc::Sender<Own>, losses: mpsc::Sender<Loss>) -> Self {
        let accounted = (0, sources.meters.since());
        Self { sources, encoder, to, losses, accounted }
    }

    /// Log lines and spans since the last time. What nobody wants to hear is forgotten, and no loss.
    pub fn tell_said(&mut self, now: Time) {
        let Held { logs, spans, dropped_logs, dropped_spans } = self.sources.outbox.take();
        if self.wants(Signal::Logs) {
            self.sources.meters.drop_own(dropped_logs);
            self.send(self.encoder.logs(&logs, now));
        }
        if self.wants(Signal::Traces) {
            self.sources.meters.drop_own(dropped_spans);
            self.send(self.encoder.spans(spans, now));
        }
    }

    /// What `/metrics` shows beside its own: `gemba.*` that nobody else counts.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = self.sources.meters.metrics();
        let mut connects = BTreeMap::<_, u64>::new();
        for (endpoint, link) in &self.sources.links {
            *connects.entry(endpoint.clone()).or_default() += link.borrow().connects;
        }
        let about = ("gemba.link.connects", "{connect}", "Times that the link came up.");
        let points = connects.into_iter().map(|(endpoint, count)| (endpoint, Number::Whole(count)));
        metrics.push(Metric::by(about, Kind::Count(self.sources.meters.since()), "gemba.link.endpoint", points));
        metrics.extend(breakers::metrics(&self.sources.links, self.sources.meters.since()));
        metrics.extend(self.clock_skew());
        metrics.extend(self.suppressed());
        metrics
    }

    /// How far sources' clocks are from ours; none while no source tells a time of its own. Of two links to one endpoint the
    /// one that is further off.
    fn clock_skew(&self) -> Option<Metric> {
        let mut skews = BTreeMap::<_, f64>::new();
        for (endpoint, link) in &self.sources.links {
            let Some(skew) = link.borrow().clock_skew else { continue };
            #[expect(clippy::cast_precision_loss, reason = "seconds need no more digits")]
            let skew = skew as f64 / 1e9;
            let known = skews.entry(endpoint.clone()).or_insert(skew);
            if skew.abs() > known.abs() {
                *known = skew;
            }
        }
        let about = (
            "gemba.link.clock_skew",
            "s",
            "How far the newest source time of the last batch lay ahead of its receipt, less than zero if behind.",
        );
        let points = skews.into_iter().map(|(endpoint, skew)| (endpoint, Number::Real(skew)));
        let metric = Metric::by(about, Kind::Gauge, "gemba.link.endpoint", points);
        (!metric.points.is_empty()).then_some(metric)
    }

    /// Readings that were left out since the configuration asks for it.
    fn suppressed(&self) -> Option<Metric> {
        let counts = self.sources.suppressed.iter().flat_map(|link| link.counts());
        let points = counts.map(|(station, reason, count)| Point {
            attributes: vec![("factory.station", station.clone()), ("gemba.suppression.reason", reason.word().into())],
            value: Number::Whole(count),
        });
        let points: Vec<_> = points.collect();
        (!points.is_empty()).then(|| Metric {
            name: "gemba.readings.suppressed",
            unit: "{reading}",
            about: "Readings that a tag's options left out.",
            kind: Kind::Count(self.sources.meters.since()),
            points,
        })
    }

    /// All figures: those of `machine`, which hold [`Self::metrics`] already, and how links, spool and upstream are.
    pub fn tell_figures(&mut self, machine: &[Metric], now: Time) {
        if self.wants(Signal::Metrics) {
            self.send(self.encoder.metrics(machine, now));
            self.send(self.encoder.metrics(&self.figures(), now));
        }
        self.account(now);
    }

    /// How links, spool and upstream are.
    fn figures(&self) -> Vec<Metric> {
        let mut all = self.sources.meters.shown();
        let mut up = BTreeMap::<_, bool>::new();
        for (endpoint, link) in &self.sources.links {
            *up.entry(endpoint.clone()).or_insert(true) &= link.borrow().phase == LinkPhase::Connected;
        }
        let about = ("gemba.link.connected", "1", "1 while the link is up, else 0.");
        let points = up.into_iter().map(|(endpoint, up)| (endpoint, Number::Whole(u64::from(up))));
        all.push(Metric::by(about, Kind::Gauge, "gemba.link.endpoint", points));
        let count = Kind::Count(self.sources.meters.since());
        let (retries, rejected) = {
            let upstream = self.sources.upstream.borrow();
            (Number::Whole(upstream.retries), Number::Whole(upstream.rejected))
        };
        all.push(Metric::one("gemba.upstream.retries", "{request}", "Requests sent again.", count, retries));
        let about = "Points, log records and spans that upstream refused for good.";
        all.push(Metric::one("gemba.upstream.rejected", "{item}", about, count, rejected));
        all
    }

    fn wants(&self, signal: Signal) -> bool {
        self.sources.wanted.contains(&signal)
    }

    fn send(&self, requests: impl IntoIterator<Item = Own>) {
        for own in requests {
            let items = own.items;
            if self.to.try_send(own).is_err() {
                self.sources.meters.drop_own(items);
            }
        }
    }

    /// What was dropped since the last time is one loss; if the ledger has no time for it, it is told the next time.
    fn account(&mut self, now: Time) {
        let dropped = self.sources.meters.dropped();
        let (told, since) = self.accounted;
        if dropped > told {
            let reason = "own telemetry came faster than it could be stored".into();
            let loss = Loss { source: TELEMETRY.into(), from: since, to: now, count: dropped - told, reason };
            if self.losses.try_send(loss).is_err() {
                return;
            }
        }
        self.accounted = (dropped, now);
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::treat::{Options, Plan, Station, Treatment};
    use gemba_drivers::{Reading, TagId, Value};
    use tracing::subscriber::with_default;
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::otlp::Resource;
    use crate::snapshot::UpstreamStatus;

    fn resource() -> Resource {
        let (site, line, instance_id) = ("fab-2".into(), "smt-1".into(), "i".into());
        Resource { site, line, instance_id, host_name: "gw-7".into(), version: "0.1.0".into() }
    }

    fn teller(room: usize) -> (Teller, Outbox, mpsc::Receiver<Own>, mpsc::Receiver<Loss>) {
        let outbox = Outbox::default();
        let upstream = UpstreamView {
            status: UpstreamStatus::Connected,
            since: Time(0),
            last_success: None,
            retries: 3,
            rejected: 0,
            last_error: None,
        };
        let link = LinkState { connects: 2, ..LinkState::new(Time(0)) };
        let links = ["tcp://a", "tcp://a", "tcp://b"].map(|name| (name.into(), watch::channel(link.clone()).1));
        let sources = Sources {
            outbox: outbox.clone(),
            meters: Arc::default(),
            links: links.into(),
            suppressed: Vec::new(),
            upstream: watch::channel(upstream).1,
            wanted: Signal::ALL.to_vec(),
        };
        let ((to, told), (losses, lost)) = (mpsc::channel(room), mpsc::channel(4));
        (Teller::new(sources, OwnEncoder::new(&resource()), to, losses), outbox, told, lost)
    }

    fn all(told: &mut mpsc::Receiver<Own>) -> Vec<Own> {
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    #[test]
    fn an_idle_agent_tells_its_figures_and_nothing_else() {
        let (mut teller, _, mut told, mut lost) = teller(64);
        let mut tell = |now| {
            for second in 0..30 {
                teller.tell_said(Time(now + second));
            }
            let machine = teller.metrics();
            teller.tell_figures(&machine, Time(now));
            all(&mut told)
        };
        let first = tell(0);
        assert!(first.iter().all(|own| own.signal == Signal::Metrics));
        let items = |told: &[Own]| told.iter().map(|own| own.items).sum::<u64>();
        for minute in 1..20 {
            assert_eq!(items(&tell(minute)), items(&first), "it does not grow");
        }
        assert!(lost.try_recv().is_err(), "nothing was dropped");
    }

    #[test]
    fn what_nobody_wants_is_forgotten_and_no_loss() {
        for wanted in [&[Signal::Metrics][..], &[Signal::Logs], &[Signal::Traces], &[]] {
            let (mut teller, outbox, mut told, mut lost) = teller(1024);
            teller.sources.wanted = wanted.to_vec();
            with_default(tracing_subscriber::registry().with(outbox.layer(1.0)), || {
                for number in 0..600 {
                    tracing::info!(number, "more than there is room for");
                    tracing::debug_span!("poll", otel.kind = "client").in_scope(|| ());
                }
            });
            teller.tell_said(Time(1));
            let figures = teller.metrics();
            teller.tell_figures(&figures, Time(1));
            let told = all(&mut told);
            for signal in Signal::ALL {
                let some = told.iter().any(|own| own.signal == signal);
                assert_eq!(some, wanted.contains(&signal), "{signal:?} of {wanted:?}");
            }
            let overflows = wanted.iter().filter(|signal| **signal != Signal::Metrics).count();
            assert_eq!(lost.try_recv().is_ok(), overflows > 0, "{wanted:?}");
            assert!(outbox.take().logs.is_empty());
        }
    }

    #[test]
    fn two_links_to_one_endpoint_are_one_point() {
        let (teller, ..) = teller(8);
        let metrics = teller.metrics();
        let connects = metrics.iter().find(|metric| metric.name == "gemba.link.connects").expect("it is told");
        let told: Vec<_> = connects.points.iter().map(|point| (&*point.attributes[0].1, &point.value)).collect();
        assert_eq!(told, [("tcp://a", &Number::Whole(4)), ("tcp://b", &Number::Whole(2))]);
    }

    #[test]
    fn clocks_and_what_was_left_out_are_told_once_there_is_something_to_tell() {
        let (mut teller, ..) = teller(8);
        let found = |teller: &Teller, name: &str| teller.metrics().into_iter().find(|metric| metric.name == name);
        assert_eq!(found(&teller, "gemba.link.clock_skew"), None);
        assert_eq!(found(&teller, "gemba.readings.suppressed"), None);
        let skews = [Some(1_500_000_000), Some(-3_600_000_000_000), None];
        for ((_, link), clock_skew) in teller.sources.links.iter_mut().zip(skews) {
            *link = watch::channel(LinkState { clock_skew, ..LinkState::new(Time(0)) }).1;
        }
        let skew = found(&teller, "gemba.link.clock_skew").expect("it is told");
        let [point] = &skew.points[..] else { panic!("one endpoint told its time: {skew:?}") };
        assert_eq!((&*point.attributes[0].1, &point.value), ("tcp://a", &Number::Real(-3600.0)));

        let options = Options { on_change: true, ..Options::default() };
        let name: Arc<str> = "oven-1".into();
        let station = Station { name, tags: 0..1, treated: vec![(TagId(0), options)], max_clock_skew: None };
        let mut treatment = Treatment::new(&Plan { stations: vec![station] }).expect("there is something to do");
        let same = Reading::good(TagId(0), Value::Int(1), Time(1), Time(1));
        treatment.apply(&mut vec![same.clone(), same.clone(), same], tokio::time::Instant::now());
        teller.sources.suppressed.push(treatment.suppressed());
        let left_out = found(&teller, "gemba.readings.suppressed").expect("it is told");
        let told: Vec<_> = left_out.points[0].attributes.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(told, [("factory.station", "oven-1"), ("gemba.suppression.reason", "on_change")]);
        assert_eq!(left_out.points[0].value, Number::Whole(2));
    }

    #[test]
    fn a_full_queue_drops_and_the_ledger_hears_of_it_once() {
        let (mut teller, outbox, mut told, mut lost) = teller(1);
        with_default(tracing_subscriber::registry().with(outbox.layer(1.0)), || {
            for number in 0..200 {
                tracing::info!(number, "a line that is long enough to fill several frames of the spool, if said often");
            }
        });
        teller.tell_said(Time(1));
        let kept: u64 = all(&mut told).iter().map(|own| own.items).sum();
        assert!((1..200).contains(&kept), "{kept}");
        teller.account(Time(9));
        teller.account(Time(10));
        let loss = lost.try_recv().expect("a loss");
        assert_eq!((&*loss.source, loss.count, loss.to), (TELEMETRY, 200 - kept, Time(9)));
        assert!(lost.try_recv().is_err(), "only once");
    }
}
