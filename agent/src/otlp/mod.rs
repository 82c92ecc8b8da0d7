//! The only place that builds OTLP: what the spool holds, as `ExportMetricsServiceRequest`,
//! `ExportLogsServiceRequest` and `ExportTraceServiceRequest`.
//!
//! The same entries give the same bytes. No clock is read: every time is the source's own.
//!
//! # Metrics
//!
//! Points are grouped by metric and sorted by (station, tag or attributes, time), since receivers that
//! refuse samples out of order refuse the whole request. All carry `factory.station`, but for those of the line as a whole.
//!
//! - A tag is the gauge `factory.tag.<tag>`, or what the configuration calls it, in the tag's unit.
//!   A bad reading is a point with the no-recorded-value flag and no value. Text is no metric.
//! - A [`KpiPoint`](crate::record::KpiPoint) is the gauges, sums and the exponential histogram of
//!   [`figures`]; sums start at the station's first observation. So is a [`LinePoint`](crate::record::LinePoint), of the line as
//!   a whole.
//! - A [`WatchPoint`](crate::record::WatchPoint) is the metrics of [`watched`]: anomalies, control charts, inspections. Their
//!   sums start at the first reading of what is counted.
//! - What people reject is part of `factory.defects`: in the [`KpiPoint`](crate::record::KpiPoint), or with what the inspection
//!   finds where the station has one, so that a code is one sum. A negative count is told by its log alone: the sum waits.
//! - A loss adds to the sum `gemba.losses`.
//!
//! # Logs
//!
//! | `event_name` | attributes |
//! |---|---|
//! | `factory.state.changed` | `factory.station`, `factory.state`, `factory.state.previous` |
//! | `factory.validity.changed` | `factory.station`, `factory.tag`, `factory.validity`, `factory.validity.previous`; unless good: `factory.validity.protocol` (`opcua`, `modbus`, `gemba`), `factory.validity.code`, `factory.validity.name` |
//! | `factory.tag.changed` | `factory.station`, `factory.tag`, `factory.tag.value`, and `factory.tag.previous` if it was known |
//! | `factory.event` | what a device told: `factory.station`, `opcua.event.type` (and `.node`, if it is the server's own), `opcua.event.severity` (1 to 1000), `opcua.event.id`, `opcua.event.source.node`, `opcua.event.source.name`; of an alarm also `opcua.condition.name`, `.active`, `.acknowledged`, `.retain`, `.branch` |
//! | `factory.entry` | what a person told: `factory.station`, `factory.entry.kind` (`reason`, `work`, `target`, `rejects`, `anomaly`), `factory.entry.by`, `factory.entry.from` (RFC 3339); by kind `factory.entry.to` and `factory.reason` (none takes it back), `factory.product`, `factory.lot`, `factory.order` (those that change; empty is none), `factory.entry.takt` (s), `factory.entry.count` and `factory.defect.code`, `factory.tag`, `factory.entry.detector` and `factory.entry.verdict` (`confirmed`, `dismissed`) |
//! | `factory.anomaly.detected`, `.worsened`, `.ended` | `factory.station`, `factory.tag`, `factory.anomaly.id` (the same in a replay), `factory.anomaly.detector`, `factory.anomaly.method`, `factory.anomaly.severity`, `factory.anomaly.score` and `factory.anomaly.value` (of the reading farthest out so far), `factory.anomaly.began` (RFC 3339), `factory.anomaly.detection.latency` (s); `factory.anomaly.expected` where something was; at its end also `factory.anomaly.end` (`normal`, `accepted`, `lost`) and `factory.anomaly.duration` (s) |
//! | `factory.spc.violation` | `factory.station`, `factory.tag` (`rejects/total` of two), `factory.spc.chart`, `factory.spc.rule`, `factory.spc.part` (`location`, `spread`), `factory.spc.side` (`above`, `below`) where the rule has one, `factory.spc.points` (their numbers in the chart, from 1, in order), `factory.spc.value` (what is drawn of the last) |
//! | `factory.inspection.model.changed` | `factory.station`, `factory.inspection.model.version`, and `factory.inspection.model.previous` if it was known |
//! | `gemba.loss` | `factory.station` if a station lost it, `gemba.loss.source`, `gemba.loss.reason`, `gemba.loss.count`, `gemba.loss.total`, `gemba.loss.from`, `gemba.loss.to` (RFC 3339) |
//! | `gemba.backfill` | `factory.station`, `gemba.backfill.from`, `gemba.backfill.to` (RFC 3339), `gemba.backfill.count`: readings that came from history |
//!
//! What somebody should look at (a bad or doubtful tag, a station that goes down, an anomaly, a broken rule of a control chart, a loss)
//! is WARN, the rest INFO; a critical anomaly is ERROR; an event is INFO up to OPC UA's severity 400, WARN to 600, ERROR above. The observed time is the event's time: a resend must not differ.

//!
//! # Traces
//!
//! A unit's stay at a station is a span `factory.visit`, see `visits`.
//!
//! What the agent tells of itself comes as requests already ([`OwnEncoder`]) and is appended: a chunk is one request a
//! signal at most.

mod attribute;
mod events;
mod figures;
mod own;
pub mod plain;
mod tags;
mod visits;
mod watched;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use prost::Message;

use crate::otlp::attribute::text;
use crate::otlp::figures::Families;
pub use crate::otlp::own::OwnEncoder;
use crate::otlp::tags::TagGauges;
use crate::record::Record;
use crate::spool::{Entry, Own, Seq, Series, SeriesId, Signal};

/// Who speaks: the attributes of the OTLP resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `factory.site`.
    pub site: Arc<str>,
    /// `factory.line`.
    pub line: Arc<str>,
    /// `service.instance.id`; the same after every restart.
    pub instance_id: Arc<str>,
    /// `host.name`.
    pub host_name: Arc<str>,
    /// `service.version`.
    pub version: Arc<str>,
}

impl Resource {
    fn proto(&self) -> ProtoResource {
        ProtoResource {
            attributes: vec![
                text("service.name", "gemba"),
                text("service.instance.id", &*self.instance_id),
                text("service.version", &*self.version),
                text("host.name", &*self.host_name),
                text("factory.site", &*self.site),
                text("factory.line", &*self.line),
            ],
            ..ProtoResource::default()
        }
    }

    fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: "gemba".to_owned(),
            version: self.version.to_string(),
            ..InstrumentationScope::default()
        }
    }
}

/// Turns entries of the spool into requests. Keeps the encoded attributes of every series it has met.
pub struct Encoder {
    resource: ProtoResource,
    scope: InstrumentationScope,
    site: Arc<str>,
    line: Arc<str>,
    /// `ResourceMetrics.resource`, encoded.
    resource_field: Vec<u8>,
    /// `ScopeMetrics.scope`, encoded.
    scope_field: Vec<u8>,
    tags: TagGauges,
    stations: HashSet<Arc<str>>,
    signals: Vec<Signal>,
}

/// One chunk, ready to be sent. `None` where it has nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// An `ExportMetricsServiceRequest`.
    pub metrics: Option<Payload>,
    /// An `ExportLogsServiceRequest`.
    pub logs: Option<Payload>,
    /// An `ExportTraceServiceRequest`.
    pub traces: Option<Payload>,
    /// Readings of series that the catalog lacks: nobody knows what they were, so they cannot be sent.
    pub orphans: u64,
}

impl Encoded {
    /// The request of one signal.
    #[must_use]
    pub fn of(self, signal: Signal) -> Option<Payload> {
        match signal {
            Signal::Metrics => self.metrics,
            Signal::Logs => self.logs,
            Signal::Traces => self.traces,
        }
    }
}

/// The body of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Plain protobuf.
    pub body: Bytes,
    /// Data points, log records or spans in it.
    pub items: u64,
}

impl Encoder {
    /// An encoder for what `resource` says, with `catalog` telling what a series is.
    #[must_use]
    pub fn new(resource: &Resource, catalog: impl Fn(SeriesId) -> Option<Series> + Send + 'static) -> Self {
        let Resource { site, line, .. } = resource.clone();
        let (scope, resource) = (resource.scope(), resource.proto());
        Self {
            site,
            line,
            resource_field: wire::field(wire::RESOURCE, &resource.encode_to_vec()),
            scope_field: wire::field(wire::SCOPE, &scope.encode_to_vec()),
            resource,
            scope,
            tags: TagGauges::new(Box::new(catalog)),
            stations: HashSet::new(),
            signals: Signal::ALL.to_vec(),
        }
    }

    /// Names the stations, so that a loss of one carries `factory.station` too. (A loss names a station,
    /// a lane or upstream, and does not say which.)
    #[must_use]
    pub fn with_stations(mut self, stations: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.stations.extend(stations);
        self
    }

    /// Makes requests of these signals only.
    #[must_use]
    pub fn of(mut self, signals: &[Signal]) -> Self {
        self.signals = signals.to_vec();
        self
    }

    /// `entries` as requests.
    pub fn encode(&mut self, entries: &[(Seq, Entry)]) -> Encoded {
        let [metrics, logs, traces] = Signal::ALL.map(|signal| self.signals.contains(&signal));
        let orphans = if metrics { self.tags.meet(entries) } else { 0 };
        let metrics = metrics.then(|| with_own(self.metrics(entries), Signal::Metrics, entries)).flatten();
        let logs = logs.then(|| with_own(self.logs(entries), Signal::Logs, entries)).flatten();
        let traces = traces.then(|| with_own(self.visits(entries), Signal::Traces, entries)).flatten();
        Encoded { metrics, logs, traces, orphans }
    }

    fn metrics(&mut self, entries: &[(Seq, Entry)]) -> Option<Payload> {
        let mut metrics = Vec::new();
        let mut items = self.tags.encode(entries, &mut metrics);
        let mut families = Families::default();
        for record in records(entries) {
            families.add(record, &self.stations);
        }
        items += families.encode(&mut metrics);
        if items == 0 {
            return None;
        }
        Some(Payload { body: wire::metrics_request(&self.resource_field, &self.scope_field, &metrics).into(), items })
    }

    fn visits(&self, entries: &[(Seq, Entry)]) -> Option<Payload> {
        let visits =
            records(entries).filter_map(|record| if let Record::Visit(visit) = record { Some(visit) } else { None });
        let spans: Vec<_> = visits.map(|visit| visits::span(&self.site, &self.line, visit)).collect();
        let items = spans.len() as u64;
        (items > 0).then(|| Payload { body: own::trace_request(&self.resource, &self.scope, spans).into(), items })
    }

    fn logs(&self, entries: &[(Seq, Entry)]) -> Option<Payload> {
        let log_records: Vec<_> =
            records(entries).filter_map(|record| events::log_record(record, &self.stations)).collect();
        if log_records.is_empty() {
            return None;
        }
        let items = log_records.len() as u64;
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(self.resource.clone()),
                scope_logs: vec![ScopeLogs { scope: Some(self.scope.clone()), log_records, schema_url: String::new() }],
                schema_url: String::new(),
            }],
        };
        Some(Payload { body: request.encode_to_vec().into(), items })
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// `payload` with the agent's own requests of that kind after it: one request after another is one request.
fn with_own(payload: Option<Payload>, signal: Signal, entries: &[(Seq, Entry)]) -> Option<Payload> {
    let own = || {
        entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Telemetry(own) if own.signal == signal => Some(own),
            _ => None,
        })
    };
    let Some(Own { body, items, .. }) = own().next() else { return payload };
    let (held, counted) = payload.map_or_else(Default::default, |payload| (payload.body, payload.items));
    if held.is_empty() && own().count() == 1 {
        return Some(Payload { body: body.clone(), items: *items });
    }
    let mut joined = Vec::with_capacity(held.len() + own().map(|own| own.body.len()).sum::<usize>());
    joined.extend_from_slice(&held);
    own().for_each(|own| joined.extend_from_slice(&own.body));
    Some(Payload { body: joined.into(), items: counted + own().map(|own| own.items).sum::<u64>() })
}

fn records(entries: &[(Seq, Entry)]) -> impl Iterator<Item = &Record> {
    entries.iter().filter_map(|(_, entry)| match entry {
        Entry::Record { record, .. } => Some(record),
        Entry::Readings(_)
        | Entry::Telemetry(_)
        | Entry::Tick(_)
        | Entry::Deliveries { .. }
        | Entry::Filters { .. } => None,
    })
}

#[cfg(test)]
mod tests;
