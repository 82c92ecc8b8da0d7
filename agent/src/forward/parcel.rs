//! A chunk, packed: what is held while upstream is asked to take it.

use std::collections::VecDeque;
use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use gemba_drivers::Time;
use tracing::field::Empty;

use crate::config::Protocol;
use crate::forward::{UPSTREAM, grpc};
use crate::otlp::{Encoded, Payload};
use crate::record::Record;
use crate::spool::{Chunk, Entry, Seq, Signal};

/// A chunk on its way. The entries themselves are let go: an outage of days is no reason to hold them.
pub(super) struct Pending {
    pub(super) last: Seq,
    pub(super) frames: usize,
    pub(super) parts: VecDeque<Part>,
    pub(super) span: Span,
    /// Readings whose series the catalog lacks.
    pub(super) orphans: u64,
    /// It is a single frame, and upstream does not want it.
    pub(super) refused: bool,
}

/// One request. Its bytes are kept, so that sending it again sends the same.
pub(super) struct Part {
    pub(super) signal: Signal,
    pub(super) body: Bytes,
    pub(super) items: u64,
    pub(super) attempts: u32,
    pub(super) server_errors: u32,
}

/// How a request is made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packing {
    pub(super) protocol: Protocol,
    pub(super) gzip: bool,
}

/// How far upstream has each signal, be it beyond what is acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent([Option<Seq>; 3]);

/// What a chunk covers, for the loss ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Time,
    pub(super) to: Time,
    /// Readings and records.
    pub(super) count: u64,
    /// It tells of nothing but losses of upstream.
    pub(super) told: bool,
    /// It holds nothing but what the agent tells of itself.
    pub(super) own: bool,
}

impl Part {
    pub(super) fn new(signal: Signal, Payload { body, items }: Payload, packing: Packing) -> Self {
        let body = packing.pack(body);
        Self { signal, body, items, attempts: 0, server_errors: 0 }
    }

    /// A span for one attempt.
    pub(super) fn traced(&self) -> tracing::Span {
        tracing::debug_span!(
            "forward",
            otel.kind = "client",
            otel.status_code = Empty,
            otel.status_description = Empty,
            gemba.forward.signal = self.signal.word(),
            gemba.forward.items = self.items,
            gemba.forward.size = self.body.len(),
        )
    }
}

impl Sent {
    /// How many frames of `chunk` to take, so that upstream has all of a signal in them or nothing; `None` for all.
    pub(super) fn within(&self, chunk: &Chunk) -> Option<usize> {
        let ends = self.0.iter().flatten().map(|sent| chunk.entries.partition_point(|(seq, _)| seq <= sent));
        ends.filter(|frames| (1..chunk.entries.len()).contains(frames)).min()
    }

    /// The requests of a chunk through `last` that upstream does not have, in the order in which they are sent.
    pub(super) fn missing(&self, encoded: Encoded, last: Seq, packing: Packing) -> VecDeque<Part> {
        let signals =
            [(Signal::Metrics, encoded.metrics), (Signal::Logs, encoded.logs), (Signal::Traces, encoded.traces)];
        let missing = signals.into_iter().filter(|(signal, _)| self.0[*signal as usize] < Some(last));
        missing.filter_map(|(signal, payload)| Some(Part::new(signal, payload?, packing))).collect()
    }

    /// Upstream is done with this signal through `last`.
    pub(super) fn note(&mut self, signal: Signal, last: Seq) {
        self.0[signal as usize] = Some(last);
    }
}

impl Packing {
    fn pack(self, message: Bytes) -> Bytes {
        match (self.protocol, self.gzip) {
            (Protocol::Http, false) => message,
            (Protocol::Http, true) => gzip(Vec::with_capacity(message.len() / 8), &message).into(),
            (Protocol::Grpc, gzip) => grpc::frame(&message, gzip),
        }
    }
}

impl Span {
    pub(super) fn of(entries: &[(Seq, Entry)]) -> Self {
        let mut span = Self { from: Time(i64::MAX), to: Time(i64::MIN), count: 0, told: true, own: true };
        for (_, entry) in entries {
            match entry {
                Entry::Readings(readings) => {
                    span.own = false;
                    for reading in readings {
                        span.cover(reading.source_time, reading.source_time, false);
                    }
                }
                Entry::Record { record, .. } => span.cover_record(record),
                Entry::Telemetry(own) => {
                    span.cover(own.time, own.time, false);
                    span.count += own.items.saturating_sub(1);
                }
                Entry::Tick(_) | Entry::Deliveries { .. } | Entry::Filters { .. } => {}
            }
        }
        span
    }

    fn cover_record(&mut self, record: &Record) {
        self.own = false;
        match record {
            Record::Kpi(point) => self.cover(point.time, point.time, false),
            Record::StateChanged { time, .. }
            | Record::ValidityChanged { time, .. }
            | Record::TagChanged { time, .. }
            | Record::ModelChanged { time, .. } => self.cover(*time, *time, false),
            Record::Visit(visit) => self.cover(visit.from, visit.to, false),
            Record::Event(event) => self.cover(event.time, event.time, false),
            Record::Backfilled(told) => self.cover(told.from, told.to, false),
            Record::Entered(entry) => self.cover(entry.entered, entry.entered, false),
            Record::Anomaly(told) => self.cover(told.time, told.time, false),
            Record::Violation(told) => self.cover(told.time(), told.time(), false),
            Record::Watched(point) => self.cover(point.time, point.time, false),
            Record::Line(point) => self.cover(point.time, point.time, false),
            Record::Loss { loss, .. } => self.cover(loss.from, loss.to, &*loss.source == UPSTREAM),
        }
    }

    fn cover(&mut self, from: Time, to: Time, told: bool) {
        self.from = self.from.min(from);
        self.to = self.to.max(to);
        self.count += 1;
        self.told &= told;
    }
}

/// Appends `plain`, compressed. Level 1: ten times as fast as the default for little more traffic.
pub(super) fn gzip(to: Vec<u8>, plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(to, Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use gemba_drivers::Loss;

    use super::*;

    fn chunk(seqs: std::ops::RangeInclusive<u64>) -> Chunk {
        let last = Seq(*seqs.end());
        let entries = seqs.map(|seq| (Seq(seq), Entry::Tick(Time(0)))).collect();
        Chunk { last, readings: 0, backlog: false, entries }
    }

    fn encoded() -> Encoded {
        let payload = |text: &'static str| Some(Payload { body: Bytes::from_static(text.as_bytes()), items: 1 });
        Encoded { metrics: payload("m"), logs: payload("l"), traces: payload("t"), orphans: 0 }
    }

    #[test]
    fn only_a_chunk_of_nothing_else_is_the_agents_own() {
        use crate::spool::Own;
        let own = Own { signal: Signal::Logs, items: 3, time: Time(5), body: Bytes::new() };
        let own = (Seq(2), Entry::Telemetry(own));
        let tick = (Seq(1), Entry::Tick(Time(1)));
        let loss = Loss { source: "aoi-1".into(), from: Time(7), to: Time(9), count: 1, reason: "x".into() };
        let record = Record::Loss { loss, total: 1, since: Time(0), at: Time(9) };
        let record = (Seq(3), Entry::Record { cause: None, record });
        let span = Span::of(&[tick.clone(), own.clone()]);
        assert_eq!((span.own, span.count, span.from, span.to, span.told), (true, 3, Time(5), Time(5), false));
        let span = Span::of(&[tick, own, record]);
        assert_eq!((span.own, span.count, span.from, span.to), (false, 4, Time(5), Time(9)));
    }

    #[test]
    fn what_upstream_has_is_not_sent_again_and_the_rest_is() {
        let packing = Packing { protocol: Protocol::Http, gzip: false };
        let signals = |sent: &Sent, last| {
            let parts = sent.missing(encoded(), Seq(last), packing);
            parts.into_iter().map(|part| (part.signal, part.body)).collect::<Vec<_>>()
        };
        let (metrics, logs, traces) =
            ((Signal::Metrics, Bytes::from("m")), (Signal::Logs, Bytes::from("l")), (Signal::Traces, Bytes::from("t")));
        let mut sent = Sent::default();
        assert_eq!(signals(&sent, 10), [metrics.clone(), logs.clone(), traces.clone()]);
        sent.note(Signal::Metrics, Seq(10));
        sent.note(Signal::Logs, Seq(10));
        assert_eq!(signals(&sent, 5), std::slice::from_ref(&traces), "half of it, since the traces were refused");
        assert_eq!(signals(&sent, 10), std::slice::from_ref(&traces));
        assert_eq!(signals(&sent, 11), [metrics, logs, traces]);
    }

    #[test]
    fn no_chunk_reaches_beyond_what_upstream_has_of_a_signal() {
        let mut sent = Sent::default();
        assert_eq!(sent.within(&chunk(1..=20)), None);
        sent.note(Signal::Logs, Seq(10));
        sent.note(Signal::Metrics, Seq(14));
        assert_eq!(sent.within(&chunk(1..=20)), Some(10));
        assert_eq!(sent.within(&chunk(8..=20)), Some(3));
        assert_eq!(sent.within(&chunk(11..=20)), Some(4));
        assert_eq!(sent.within(&chunk(1..=10)), None);
        assert_eq!(sent.within(&chunk(15..=20)), None);
    }
}
