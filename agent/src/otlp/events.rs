//! What happened, as log records. The table of their attributes is in [`super`].

use std::collections::HashSet;
use std::sync::Arc;

use gemba_drivers::{Backfill, Event, Time, Validity};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use crate::model::{Change, Entry, State, What};
use crate::otlp::attribute::{STATION, nanos, of_value, text, whole};
use crate::otlp::watched;
use crate::record::Record;

/// `record` as a log, unless it is told in numbers only.
pub(super) fn log_record(record: &Record, stations: &HashSet<Arc<str>>) -> Option<LogRecord> {
    match record {
        Record::Kpi(_) | Record::Visit(_) | Record::Watched(_) | Record::Line(_) => None,
        Record::Anomaly(told) => Some(watched::anomaly(told)),
        Record::Violation(told) => Some(watched::violation(told)),
        Record::ModelChanged { station, time, from, to } => {
            Some(watched::model_changed(station, *time, from.as_deref(), to))
        }
        Record::StateChanged { station, time, from, to } => Some(log(
            "factory.state.changed",
            *time,
            if *to == State::Down { SeverityNumber::Warn } else { SeverityNumber::Info },
            format!("{station} went from {from} to {to}"),
            vec![
                text(STATION, &**station),
                text("factory.state", to.word()),
                text("factory.state.previous", from.word()),
            ],
        )),
        Record::ValidityChanged { station, tag, time, from, to } => {
            let mut attributes = vec![
                text(STATION, &**station),
                text("factory.tag", &**tag),
                text("factory.validity", to.word()),
                text("factory.validity.previous", from.word()),
            ];
            if let Some(status) = to.status() {
                attributes.push(text("factory.validity.protocol", status.protocol()));
                attributes.push(whole("factory.validity.code", u64::from(status.code())));
                attributes.push(text("factory.validity.name", status.name()));
            }
            let severity = if *to == Validity::Good { SeverityNumber::Info } else { SeverityNumber::Warn };
            let body = format!("{tag} of {station} is {}; it was {}", described(*to), described(*from));
            Some(log("factory.validity.changed", *time, severity, body, attributes))
        }
        Record::TagChanged { station, tag, time, from, to } => {
            let mut attributes =
                vec![text(STATION, &**station), text("factory.tag", &**tag), text("factory.tag.value", &**to)];
            let mut body = format!("{tag} of {station} is `{to}`");
            if let Some(from) = from {
                attributes.push(text("factory.tag.previous", &**from));
                body += &format!("; it was `{from}`");
            }
            Some(log("factory.tag.changed", *time, SeverityNumber::Info, body, attributes))
        }
        Record::Loss { loss, total, .. } => {
            let mut attributes = Vec::with_capacity(7);
            if stations.contains(&loss.source) {
                attributes.push(text(STATION, &*loss.source));
            }
            attributes.extend([
                text("gemba.loss.source", &*loss.source),
                text("gemba.loss.reason", &*loss.reason),
                whole("gemba.loss.count", loss.count),
                whole("gemba.loss.total", *total),
                text("gemba.loss.from", loss.from.to_string()),
                text("gemba.loss.to", loss.to.to_string()),
            ]);
            let body =
                format!("{} lost {} from {} to {}: {}", loss.source, loss.count, loss.from, loss.to, loss.reason);
            Some(log("gemba.loss", loss.to, SeverityNumber::Warn, body, attributes))
        }
        Record::Event(event) => Some(happened(event)),
        Record::Entered(entry) => Some(entered(entry)),
        Record::Backfilled(Backfill { station, from, to, count }) => Some(log(
            "gemba.backfill",
            *to,
            SeverityNumber::Info,
            format!("{count} readings of {station} from {from} to {to} came from history"),
            vec![
                text(STATION, &**station),
                text("gemba.backfill.from", from.to_string()),
                text("gemba.backfill.to", to.to_string()),
                whole("gemba.backfill.count", *count),
            ],
        )),
    }
}

/// What a person told, dated by when it was told.
fn entered(entry: &Entry) -> LogRecord {
    let mut attributes = vec![text(STATION, &*entry.station), text("factory.entry.kind", entry.kind())];
    attributes.extend(entry.by.as_deref().map(|by| text("factory.entry.by", by)));
    attributes.push(text("factory.entry.from", entry.at().to_string()));
    match &entry.what {
        What::Reason { to, code, .. } => {
            attributes.push(text("factory.entry.to", to.to_string()));
            attributes.extend(code.as_deref().map(|code| text("factory.reason", code)));
        }
        What::Work { product, lot, order, .. } => {
            for (key, change) in [("factory.product", product), ("factory.lot", lot), ("factory.order", order)] {
                match change {
                    Change::Left => {}
                    Change::Cleared => attributes.push(text(key, "")),
                    Change::Set(name) => attributes.push(text(key, &**name)),
                }
            }
        }
        What::Target { takt, .. } => {
            let takt = takt.map(|takt| gemba_drivers::Value::Float(takt.as_secs_f64()));
            attributes.extend(takt.and_then(|takt| of_value("factory.entry.takt", &takt)));
        }
        What::Rejects { count, code, .. } => {
            attributes.extend(of_value("factory.entry.count", &gemba_drivers::Value::Int(*count)));
            attributes.push(text("factory.defect.code", &**code));
        }
        What::Anomaly { tag, detector, verdict, .. } => attributes.extend([
            text("factory.tag", &**tag),
            text("factory.entry.detector", &**detector),
            text("factory.entry.verdict", verdict.word()),
        ]),
    }
    let who = entry.by.as_deref().map(|by| format!(", says {by}")).unwrap_or_default();
    let body = format!("{}: {}{who}", entry.station, crate::entries::in_words(entry));
    log("factory.entry", entry.entered, SeverityNumber::Info, body, attributes)
}

/// What a device told. (1 to 1000 by OPC 10000-5, 6.4.2: low, medium low, medium, medium high, high.)
fn happened(event: &Event) -> LogRecord {
    let severity = match event.severity {
        ..=400 => SeverityNumber::Info,
        401..=600 => SeverityNumber::Warn,
        601.. => SeverityNumber::Error,
    };
    let mut attributes = vec![
        text(STATION, &*event.station),
        text("opcua.event.type", &*event.kind),
        whole("opcua.event.severity", u64::from(event.severity)),
    ];
    attributes.extend(event.attributes.iter().filter_map(|(name, value)| of_value(name, value)));
    let body = match (event.message.is_empty(), &event.kind) {
        (true, kind) => format!("{kind} at {}", event.station),
        (false, _) => event.message.to_string(),
    };
    let observed_time_unix_nano = nanos(event.received);
    LogRecord { observed_time_unix_nano, ..log("factory.event", event.time, severity, body, attributes) }
}

pub(super) fn log(
    event: &str,
    time: Time,
    severity: SeverityNumber,
    body: String,
    attributes: Vec<KeyValue>,
) -> LogRecord {
    LogRecord {
        time_unix_nano: nanos(time),
        observed_time_unix_nano: nanos(time),
        severity_number: severity as i32,
        severity_text: match severity {
            SeverityNumber::Info => "INFO",
            SeverityNumber::Error => "ERROR",
            _ => "WARN",
        }
        .to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes,
        event_name: event.to_owned(),
        ..LogRecord::default()
    }
}

/// `good`, or `bad (BadNodeIdUnknown)`.
fn described(validity: Validity) -> String {
    match validity.status() {
        None => validity.word().to_owned(),
        Some(status) => format!("{} ({})", validity.word(), status.name()),
    }
}
