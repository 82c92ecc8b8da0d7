//! What goes over the wire, decoded again and compared with the contract.

use gemba_drivers::{Loss, OwnStatus, Status, Time, Validity, Value};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use proptest::prelude::*;

use super::*;
use crate::model::{LineBy, State};
use crate::record::{Beside, CycleHistogram, Figures, KpiPoint, LinePoint, Record, Sums, Visit};
use crate::spool::StoredReading;

/// Station, tag, unit, metric, text.
type Row = (&'static str, &'static str, Option<&'static str>, Option<&'static str>, bool);

const SERIES: [Row; 6] = [
    ("printer-1", "total", Some("{part}"), None, false),
    ("oven-1", "total", Some("{part}"), None, false),
    ("oven-1", "zone1", Some("Cel"), Some("oven.temperature"), false),
    ("oven-1", "state", None, None, true),
    ("aoi-1", "label", None, None, false),
    ("aoi-1", "total", None, None, false),
];

fn encoder() -> Encoder {
    let resource = Resource {
        site: "fab-2".into(),
        line: "smt-1".into(),
        instance_id: "7f0a".into(),
        host_name: "gateway-3".into(),
        version: "0.1.0".into(),
    };
    Encoder::new(&resource, |id| {
        let (station, tag, unit, metric, text) = *SERIES.get(id.0 as usize)?;
        Some(Series {
            station: station.into(),
            tag: tag.into(),
            unit: unit.map(Into::into),
            metric: metric.map(Into::into),
            text,
        })
    })
    .with_stations(["printer-1".into(), "oven-1".into(), "aoi-1".into()])
}

fn at(second: i64) -> Time {
    Time(1_790_000_000_000_000_000 + second * 1_000_000_000)
}

fn good(series: u32, second: i64, value: Value) -> StoredReading {
    let (source_time, received_time) = (at(second), at(second + 100));
    StoredReading {
        series: SeriesId(series),
        value,
        validity: Validity::Good,
        source_time,
        received_time,
        backfilled: false,
    }
}

fn bad(series: u32, second: i64) -> StoredReading {
    let validity = Validity::Bad(Status::Own(OwnStatus::LinkLost));
    StoredReading { validity, ..good(series, second, Value::Null) }
}

fn frames(readings: Vec<StoredReading>) -> Vec<(Seq, Entry)> {
    vec![(Seq(1), Entry::Readings(readings))]
}

fn of(record: Record) -> Vec<(Seq, Entry)> {
    vec![(Seq(1), Entry::Record { cause: None, record })]
}

fn decoded(encoded: &Encoded) -> Vec<Metric> {
    let Some(payload) = &encoded.metrics else { return Vec::new() };
    let request = ExportMetricsServiceRequest::decode(payload.body.clone()).expect("protobuf");
    let [resource] = &request.resource_metrics[..] else { panic!("one resource") };
    let [scope] = &resource.scope_metrics[..] else { panic!("one scope") };
    let points: usize = scope
        .metrics
        .iter()
        .map(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
            Some(Data::Histogram(histogram)) => histogram.data_points.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(points as u64, payload.items);
    scope.metrics.clone()
}

fn log_of(record: Record) -> LogRecord {
    let encoded = encoder().encode(&of(record));
    let payload = encoded.logs.expect("a log");
    assert_eq!(payload.items, 1);
    let request = ExportLogsServiceRequest::decode(payload.body).expect("protobuf");
    let log = request.resource_logs[0].scope_logs[0].log_records[0].clone();
    // Of what a device tells, the instant at which it was heard is stored.
    let stored = log.event_name == "factory.event";
    assert!(stored || log.observed_time_unix_nano == log.time_unix_nano, "a resend must not differ");
    log
}

/// `key=value` of each attribute, in order.
fn words(attributes: &[KeyValue]) -> Vec<String> {
    let word = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => format!("{}={text}", attribute.key),
        Some(any_value::Value::BoolValue(flag)) => format!("{}={flag}", attribute.key),
        Some(any_value::Value::IntValue(whole)) => format!("{}={whole}", attribute.key),
        Some(any_value::Value::DoubleValue(real)) => format!("{}={real}", attribute.key),
        Some(any_value::Value::ArrayValue(list)) => format!("{}=[{}]", attribute.key, list.values.len()),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(word).collect()
}

fn body(log: &LogRecord) -> &str {
    match log.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// One line a point: metric, kind, unit, attributes, seconds since [`at`] zero, value.
fn lines(metrics: &[Metric]) -> Vec<String> {
    metrics
        .iter()
        .flat_map(|metric| {
            let (kind, points) = match &metric.data {
                Some(Data::Histogram(histogram)) => {
                    assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Cumulative as i32);
                    let [point] = &histogram.data_points[..] else { panic!("{histogram:?}") };
                    let (edges, counts) = (&point.explicit_bounds, &point.bucket_counts);
                    return vec![format!("{} histogram {:?} {edges:?} {counts:?}", metric.name, metric.unit)];
                }
                Some(Data::Gauge(gauge)) => ("gauge", &gauge.data_points),
                Some(Data::Sum(sum)) => {
                    assert_eq!(sum.aggregation_temporality, AggregationTemporality::Cumulative as i32);
                    assert!(sum.is_monotonic);
                    ("sum", &sum.data_points)
                }
                _ => return Vec::new(),
            };
            let head = format!("{} {kind} {:?}", metric.name, metric.unit);
            points
                .iter()
                .map(|point| {
                    let seconds = |nanos: u64| match nanos {
                        0 => "-".to_owned(),
                        nanos => ((nanos as i64 - at(0).0) / 1_000_000_000).to_string(),
                    };
                    let value = match (point.value, point.flags) {
                        (Some(Number::AsInt(whole)), 0) => format!("int {whole}"),
                        (Some(Number::AsDouble(real)), 0) => format!("double {real}"),
                        (None, 1) => "no recorded value".to_owned(),
                        other => panic!("{other:?}"),
                    };
                    let (from, to) = (seconds(point.start_time_unix_nano), seconds(point.time_unix_nano));
                    format!("{head} {:?} {from}..{to} {value}", words(&point.attributes))
                })
                .collect()
        })
        .collect()
}

#[test]
fn a_small_request_as_a_whole() {
    let entries = vec![
        (
            Seq(1),
            Entry::Readings(vec![
                good(1, 2, Value::Int(20)),
                good(0, 1, Value::Int(10)),
                good(2, 1, Value::Float(231.5)),
                bad(1, 1),
            ]),
        ),
        (Seq(2), Entry::Tick(at(3))),
        (
            Seq(3),
            Entry::Record {
                cause: Some(Seq(1)),
                record: Record::StateChanged {
                    station: "oven-1".into(),
                    time: at(2),
                    from: State::Producing,
                    to: State::Down,
                },
            },
        ),
    ];
    let encoded = encoder().encode(&entries);
    let metrics = ExportMetricsServiceRequest::decode(encoded.metrics.expect("metrics").body).expect("protobuf");
    let logs = ExportLogsServiceRequest::decode(encoded.logs.expect("logs").body).expect("protobuf");
    insta::assert_debug_snapshot!((metrics, logs));
}

#[test]
fn tags_are_gauges_in_their_unit_sorted_by_tag_and_time() {
    let encoded = encoder().encode(&frames(vec![
        good(2, 5, Value::Float(0.0)),
        good(0, 2, Value::Int(-3)),
        good(1, 9, Value::Int(i64::MAX)),
        good(0, 1, Value::Bool(true)),
        good(5, 1, Value::Bool(false)),
        good(1, 7, Value::Float(-0.25)),
    ]));
    assert_eq!(
        lines(&decoded(&encoded)),
        [
            r#"factory.tag.total gauge "" ["factory.station=aoi-1"] -..1 int 0"#,
            r#"factory.tag.total gauge "{part}" ["factory.station=oven-1"] -..7 double -0.25"#,
            r#"factory.tag.total gauge "{part}" ["factory.station=oven-1"] -..9 int 9223372036854775807"#,
            r#"factory.tag.total gauge "{part}" ["factory.station=printer-1"] -..1 int 1"#,
            r#"factory.tag.total gauge "{part}" ["factory.station=printer-1"] -..2 int -3"#,
            r#"oven.temperature gauge "Cel" ["factory.station=oven-1"] -..5 double 0"#,
        ]
    );
    assert_eq!((encoded.logs, encoded.orphans), (None, 0));
}

#[test]
fn a_bad_reading_is_a_point_without_a_value_and_an_uncertain_one_keeps_it() {
    let doubtful = Validity::Uncertain(Status::Opcua(0x4090_0000));
    let encoded =
        encoder().encode(&frames(vec![bad(0, 1), StoredReading { validity: doubtful, ..good(0, 2, Value::Int(4)) }]));
    assert_eq!(
        lines(&decoded(&encoded)),
        [
            r#"factory.tag.total gauge "{part}" ["factory.station=printer-1"] -..1 no recorded value"#,
            r#"factory.tag.total gauge "{part}" ["factory.station=printer-1"] -..2 int 4"#,
        ]
    );
}

#[test]
fn text_is_no_metric_and_neither_is_its_absence() {
    let mut encoder = encoder();
    let configured = encoder.encode(&frames(vec![bad(3, 1), good(3, 2, Value::Text("running".into())), bad(3, 3)]));
    assert_eq!(configured.metrics, None);
    let seen = encoder.encode(&frames(vec![good(4, 1, Value::Text("A-17".into()))]));
    assert_eq!(seen.metrics, None);
    assert_eq!(encoder.encode(&frames(vec![bad(4, 2)])).metrics, None, "its last value was text");
    assert!(
        encoder.encode(&frames(vec![good(4, 3, Value::Int(1)), bad(4, 4)])).metrics.is_some_and(|of| of.items == 2)
    );
}

#[test]
fn readings_of_unknown_series_are_counted() {
    let encoded = encoder().encode(&frames(vec![good(99, 1, Value::Int(1)), good(u32::MAX, 1, Value::Int(1))]));
    assert_eq!(encoded, Encoded { metrics: None, logs: None, traces: None, orphans: 2 });
}

#[test]
fn nothing_gives_nothing() {
    let nothing = Encoded { metrics: None, logs: None, traces: None, orphans: 0 };
    assert_eq!(encoder().encode(&[]), nothing);
    assert_eq!(encoder().encode(&[(Seq(1), Entry::Tick(at(1))), (Seq(2), Entry::Readings(Vec::new()))]), nothing);
}

#[test]
fn only_what_is_wanted_is_made() {
    let mut entries = frames(vec![good(0, 1, Value::Int(1)), good(99, 1, Value::Int(1))]);
    entries.push((Seq(2), of(loss("printer-1", 2, 1)).remove(0).1));
    let all = encoder().encode(&entries);
    assert_eq!((all.metrics.is_some(), all.logs.is_some(), all.orphans), (true, true, 1));
    let metrics = encoder().of(&[Signal::Metrics]).encode(&entries);
    assert_eq!(metrics, Encoded { logs: None, ..all.clone() });
    let logs = encoder().of(&[Signal::Traces, Signal::Logs]).encode(&entries);
    assert_eq!(logs, Encoded { metrics: None, orphans: 0, ..all }, "nobody wants the readings, so none is missing");
}

fn kpi() -> KpiPoint {
    KpiPoint {
        station: "printer-1".into(),
        shift: Some("early".into()),
        time: at(60),
        figures: Some(Figures {
            oee: Some(0.75),
            availability: Some(0.875),
            performance: None,
            quality: Some(0.98),
            coverage: Some(1.0),
            first_pass_yield: Some(0.97),
            defect_rate: Some(0.02),
        }),
        since: at(10),
        sums: Sums {
            good: Some(18_848.0),
            reject: Some(423.0),
            state_time: vec![(State::Producing, 12_600_500_000_000), (State::Down, 900_000_000_000)],
            downtime: vec![("jam".into(), false, 600_000_000_000), ("cleaning".into(), true, 300_000_000_000)],
            cycle: CycleHistogram::default(),
            ..Sums::default()
        },
        beside: None,
    }
}

#[test]
fn what_people_rejected_is_defects_by_code() {
    let sums = Sums { defects: vec![("scratch".into(), 10), ("dent".into(), 2)], ..Sums::default() };
    let encoded = encoder().encode(&of(Record::Kpi(Box::new(KpiPoint { figures: None, sums, ..kpi() }))));
    let line = |code: &str, count: u64| {
        format!(
            r#"factory.defects sum "{{defect}}" ["factory.station=printer-1", "factory.defect.code={code}"] 10..60 int {count}"#
        )
    };
    assert_eq!(lines(&decoded(&encoded)), [line("dent", 2), line("scratch", 10)]);
}

#[test]
fn figures_are_gauges_and_totals_are_sums_since_the_first_observation() {
    let encoded = encoder().encode(&of(Record::Kpi(Box::new(kpi()))));
    let figure = |name: &str, value: &str| {
        format!(r#"factory.{name} gauge "1" ["factory.station=printer-1", "factory.shift=early"] -..60 {value}"#)
    };
    let sum = |name: &str, unit: &str, words: &str, value: &str| {
        format!(r#"factory.{name} sum "{unit}" ["factory.station=printer-1", {words}] 10..60 double {value}"#)
    };
    assert_eq!(
        lines(&decoded(&encoded)),
        [
            figure("availability", "double 0.875"),
            figure("coverage", "double 1"),
            figure("defect.rate", "double 0.02"),
            figure("oee", "double 0.75"),
            figure("performance", "no recorded value"),
            figure("quality", "double 0.98"),
            figure("yield.first_pass", "double 0.97"),
            sum("downtime", "s", r#""factory.reason=cleaning", "factory.planned=true""#, "300"),
            sum("downtime", "s", r#""factory.reason=jam", "factory.planned=false""#, "600"),
            sum("parts", "{part}", r#""factory.part.disposition=good""#, "18848"),
            sum("parts", "{part}", r#""factory.part.disposition=reject""#, "423"),
            sum("state.time", "s", r#""factory.state=down""#, "900"),
            sum("state.time", "s", r#""factory.state=producing""#, "12600.5"),
        ]
    );
    assert_eq!(encoded.logs, None);
}

/// What most stations do not have is a point where it is known, and nothing where it is not.
#[test]
fn figures_beside_the_ratios_are_told_where_they_are_known() {
    let beside = Beside {
        teep: Some(0.5),
        target: Some(100.0),
        actual: Some(90.0),
        failures: Some(2),
        mtbf: Some(3600.0),
        corrective_ratio: Some(0.75),
        energy_per_part: Some(7200.0),
        cost_per_good_part: Some(0.25),
        ..Beside::default()
    };
    let sums = Sums { energy: Some(648e3), idle_energy: Some(36e3), startup_reject: Some(4.0), ..Sums::default() };
    let point = KpiPoint { figures: None, sums, beside: Some(beside), ..kpi() };
    let figure = |name: &str, unit: &str, value: &str| {
        format!(
            r#"factory.{name} gauge "{unit}" ["factory.station=printer-1", "factory.shift=early"] -..60 double {value}"#
        )
    };
    let sum = |name: &str, unit: &str, value: &str| {
        format!(r#"factory.{name} sum "{unit}" ["factory.station=printer-1"] 10..60 double {value}"#)
    };
    assert_eq!(
        lines(&decoded(&encoder().encode(&of(Record::Kpi(Box::new(point)))))),
        [
            figure("good_part.cost", "{currency}/{part}", "0.25"),
            figure("maintenance.corrective", "1", "0.75"),
            figure("maintenance.failures", "{failure}", "2"),
            figure("maintenance.mtbf", "s", "3600"),
            figure("part.energy", "J/{part}", "7200"),
            figure("production.actual", "{part}", "90"),
            figure("production.target", "{part}", "100"),
            figure("teep", "1", "0.5"),
            sum("energy", "J", "648000"),
            sum("idle.energy", "J", "36000"),
            sum("startup.rejects", "{part}", "4"),
        ]
    );
}

#[test]
fn the_line_as_a_whole_has_no_station() {
    let told = |oee, rolled_yield| {
        let point = LinePoint { shift: "early".into(), time: at(60), by: LineBy::Constraint, oee, rolled_yield };
        encoder().encode(&of(Record::Line(Box::new(point))))
    };
    assert_eq!(
        lines(&decoded(&told(Some(0.75), Some(0.5)))),
        [
            r#"factory.line.oee gauge "1" ["factory.shift=early", "factory.line.by=constraint"] -..60 double 0.75"#,
            r#"factory.yield.rolled_throughput gauge "1" ["factory.shift=early"] -..60 double 0.5"#,
        ]
    );
    assert_eq!(told(None, None), Encoded { metrics: None, logs: None, traces: None, orphans: 0 });
}

#[test]
fn outside_shifts_there_are_sums_and_no_figures() {
    let point = KpiPoint { shift: None, figures: None, ..kpi() };
    let metrics = decoded(&encoder().encode(&of(Record::Kpi(Box::new(point)))));
    let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["factory.downtime", "factory.parts", "factory.state.time"]);
}

#[test]
fn the_end_of_a_shift_has_figures_and_no_sums() {
    let point = KpiPoint { sums: Sums::default(), ..kpi() };
    let metrics = decoded(&encoder().encode(&of(Record::Kpi(Box::new(point)))));
    assert_eq!(metrics.len(), 7, "{metrics:?}");
    assert!(metrics.iter().all(|metric| matches!(metric.data, Some(Data::Gauge(_)))));
}

#[test]
fn cycle_times_are_an_exponential_histogram() {
    let mut point = kpi();
    point.sums.cycle = CycleHistogram {
        scale: 3,
        count: 6,
        sum: 7.5,
        min: 0.0,
        max: 2.5,
        zero_count: 1,
        offset: -2,
        buckets: vec![2, 0, 3],
    };
    let metrics = decoded(&encoder().encode(&of(Record::Kpi(Box::new(point)))));
    let cycles = metrics.iter().find(|metric| metric.name == "factory.cycle.duration").expect("it is there");
    assert_eq!(cycles.unit, "s");
    let Some(Data::ExponentialHistogram(histogram)) = &cycles.data else { panic!("{cycles:?}") };
    assert_eq!(histogram.aggregation_temporality, AggregationTemporality::Cumulative as i32);
    let [point] = &histogram.data_points[..] else { panic!("{histogram:?}") };
    assert_eq!(words(&point.attributes), ["factory.station=printer-1"]);
    assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (at(10).0 as u64, at(60).0 as u64));
    assert_eq!((point.scale, point.count, point.sum, point.zero_count), (3, 6, Some(7.5), 1));
    assert_eq!((point.min, point.max), (Some(0.0), Some(2.5)));
    let positive = point.positive.as_ref().expect("buckets");
    assert_eq!((positive.offset, &positive.bucket_counts[..]), (-2, &[2, 0, 3][..]));
}

fn loss(source: &str, to: i64, total: u64) -> Record {
    let loss = Loss { source: source.into(), from: at(1), to: at(to), count: 2, reason: "payload is not JSON".into() };
    Record::Loss { loss, total, since: at(0), at: at(to) }
}

#[test]
fn a_loss_is_a_sum_and_a_log() {
    let metrics = decoded(&encoder().encode(&of(loss("oven-1", 5, 7))));
    assert_eq!(
        lines(&metrics),
        [
            r#"gemba.losses sum "{reading}" ["factory.station=oven-1", "gemba.loss.source=oven-1", "gemba.loss.reason=payload is not JSON"] 0..5 int 7"#,
        ]
    );
    let log = log_of(loss("oven-1", 5, 7));
    assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("gemba.loss", at(5).0 as u64));
    assert_eq!((log.severity_number, log.severity_text.as_str()), (SeverityNumber::Warn as i32, "WARN"));
    assert_eq!(
        words(&log.attributes),
        [
            "factory.station=oven-1",
            "gemba.loss.source=oven-1",
            "gemba.loss.reason=payload is not JSON",
            "gemba.loss.count=2",
            "gemba.loss.total=7",
            &format!("gemba.loss.from={}", at(1)),
            &format!("gemba.loss.to={}", at(5)),
        ]
    );
    assert!(body(&log).contains("oven-1 lost 2") && body(&log).contains("payload is not JSON"), "{}", body(&log));

    let upstream = log_of(loss("upstream", 5, 7));
    assert_eq!(words(&upstream.attributes)[0], "gemba.loss.source=upstream", "upstream is no station");
}

#[test]
fn a_change_of_state_is_a_log() {
    let change = |to| Record::StateChanged { station: "oven-1".into(), time: at(3), from: State::Producing, to };
    let log = log_of(change(State::Down));
    assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("factory.state.changed", at(3).0 as u64));
    assert_eq!(
        words(&log.attributes),
        ["factory.station=oven-1", "factory.state=down", "factory.state.previous=producing",]
    );
    assert_eq!(body(&log), "oven-1 went from producing to down");
    assert_eq!(log.severity_text, "WARN");
    assert_eq!(log_of(change(State::Setup)).severity_number, SeverityNumber::Info as i32);
}

#[test]
fn what_a_device_tells_is_a_log_as_severe_as_it_says() {
    let event = |severity, message: &str| gemba_drivers::Event {
        station: "oven-1".into(),
        time: at(3),
        received: at(4),
        kind: "AlarmConditionType".into(),
        severity,
        message: message.into(),
        attributes: vec![
            ("opcua.event.id".into(), Value::Text("ab".into())),
            ("opcua.condition.active".into(), Value::Bool(true)),
        ],
    };
    let log = log_of(Record::Event(Box::new(event(700, "too hot"))));
    assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("factory.event", at(3).0 as u64));
    assert_eq!(log.observed_time_unix_nano, at(4).0 as u64);
    assert_eq!(body(&log), "too hot");
    assert_eq!(
        words(&log.attributes),
        [
            "factory.station=oven-1",
            "opcua.event.type=AlarmConditionType",
            "opcua.event.severity=700",
            "opcua.event.id=ab",
            "opcua.condition.active=true",
        ]
    );
    let severities = [1, 400, 401, 600, 601, 1000].map(|severity| {
        let log = log_of(Record::Event(Box::new(event(severity, ""))));
        assert_eq!(body(&log), "AlarmConditionType at oven-1");
        (log.severity_number, log.severity_text)
    });
    let (info, warn, error) = ((9, "INFO"), (13, "WARN"), (17, "ERROR"));
    let expected = [info, info, warn, warn, error, error].map(|(number, text)| (number, text.to_owned()));
    assert_eq!(severities, expected);
}

#[test]
fn a_change_of_validity_is_a_log_with_the_protocols_code_and_name() {
    let change = |from, to| {
        log_of(Record::ValidityChanged { station: "aoi-1".into(), tag: "score".into(), time: at(3), from, to })
    };
    let log = change(Validity::Good, Validity::Bad(Status::Opcua(0x8034_0000)));
    assert_eq!(log.event_name, "factory.validity.changed");
    assert_eq!(
        words(&log.attributes),
        [
            "factory.station=aoi-1",
            "factory.tag=score",
            "factory.validity=bad",
            "factory.validity.previous=good",
            "factory.validity.protocol=opcua",
            "factory.validity.code=2150891520",
            "factory.validity.name=BadNodeIdUnknown",
        ]
    );
    assert_eq!((body(&log), &*log.severity_text), ("score of aoi-1 is bad (BadNodeIdUnknown); it was good", "WARN"));

    let modbus = change(Validity::Good, Validity::Bad(Status::Modbus(2)));
    assert!(words(&modbus.attributes).ends_with(&[
        "factory.validity.protocol=modbus".to_owned(),
        "factory.validity.code=2".to_owned(),
        "factory.validity.name=IllegalDataAddress".to_owned(),
    ]));
    let back = change(Validity::Bad(Status::Modbus(2)), Validity::Good);
    assert_eq!(words(&back.attributes).len(), 4, "good has no code");
    assert_eq!(
        (body(&back), &*back.severity_text),
        ("score of aoi-1 is good; it was bad (IllegalDataAddress)", "INFO")
    );
}

#[test]
fn a_change_of_text_is_a_log() {
    let change = |from: Option<&str>| {
        log_of(Record::TagChanged {
            station: "oven-1".into(),
            tag: "recipe".into(),
            time: at(3),
            from: from.map(Into::into),
            to: "B7".into(),
        })
    };
    let log = change(Some("A1"));
    assert_eq!((log.event_name.as_str(), body(&log)), ("factory.tag.changed", "recipe of oven-1 is `B7`; it was `A1`"));
    assert_eq!(
        words(&log.attributes),
        ["factory.station=oven-1", "factory.tag=recipe", "factory.tag.value=B7", "factory.tag.previous=A1",]
    );
    let first = change(None);
    assert_eq!((words(&first.attributes).len(), body(&first)), (3, "recipe of oven-1 is `B7`"));
}

#[test]
fn times_before_1970_do_not_wrap() {
    let mut reading = good(0, 0, Value::Int(1));
    reading.source_time = Time(-1);
    let metrics = decoded(&encoder().encode(&frames(vec![reading])));
    let Some(Data::Gauge(gauge)) = &metrics[0].data else { panic!("{metrics:?}") };
    assert_eq!(gauge.data_points[0].time_unix_nano, 0);
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        proptest::num::f64::NORMAL.prop_map(Value::Float),
        Just(Value::Float(0.0)),
    ]
}

proptest! {
    /// The bytes written by hand are those that prost writes for the same request.
    #[test]
    fn by_hand_as_by_prost(
        readings in proptest::collection::vec((0..3_u32, 0..4_i64, value()), 1..400),
        times_zero in any::<bool>(),
    ) {
        let stored = readings.iter().map(|(series, second, value)| {
            let mut reading = good(*series, *second, value.clone());
            if times_zero {
                reading.source_time = Time(*second);
            }
            if *value == Value::Null {
                reading.validity = Validity::Bad(Status::Modbus(4));
            }
            reading
        });
        let stored: Vec<StoredReading> = stored.collect();
        let mut encoder = encoder();
        let by_hand = encoder.encode(&frames(stored.clone())).metrics.expect("points").body;

        let metrics = [("factory.tag.total", "{part}", vec![1, 0]), ("oven.temperature", "Cel", vec![2])];
        let metrics = metrics.into_iter().filter_map(|(name, unit, series)| {
            let data_points: Vec<_> = series.into_iter().flat_map(|series| {
                let mut points: Vec<_> = stored.iter().filter(|reading| reading.series.0 == series).collect();
                points.sort_by_key(|reading| reading.source_time);
                points.into_iter().map(by_prost)
            }).collect();
            let data = Some(Data::Gauge(Gauge { data_points: data_points.clone() }));
            let metric = Metric { name: name.to_owned(), unit: unit.to_owned(), data, ..Metric::default() };
            (!data_points.is_empty()).then_some(metric)
        });
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(encoder.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(encoder.scope.clone()),
                    metrics: metrics.collect(),
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            }],
        };
        prop_assert_eq!(&by_hand[..], &request.encode_to_vec()[..]);
    }
}

fn by_prost(reading: &StoredReading) -> NumberDataPoint {
    let (station, ..) = SERIES[reading.series.0 as usize];
    let value = match reading.value {
        Value::Bool(on) => Some(Number::AsInt(i64::from(on))),
        Value::Int(whole) => Some(Number::AsInt(whole)),
        Value::Float(real) => Some(Number::AsDouble(real)),
        Value::Null | Value::Text(_) => None,
    };
    NumberDataPoint {
        attributes: vec![text("factory.station", station)],
        time_unix_nano: u64::try_from(reading.source_time.0).expect("after 1970"),
        value,
        flags: u32::from(value.is_none()),
        ..NumberDataPoint::default()
    }
}

#[test]
fn a_chunk_is_one_request_a_signal_with_the_agents_own_after_the_rest() {
    let own = |signal, items, body: Vec<u8>| Entry::Telemetry(Own { signal, items, time: at(1), body: body.into() });
    let uptime = Metric { name: "process.uptime".to_owned(), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![uptime], ..ScopeMetrics::default() }];
    let of = ResourceMetrics { scope_metrics, ..ResourceMetrics::default() };
    let figures = ExportMetricsServiceRequest { resource_metrics: vec![of] }.encode_to_vec();
    let span = opentelemetry_proto::tonic::trace::v1::Span { name: "connect".to_owned(), ..Default::default() };
    let spans = own::trace_request(&ProtoResource::default(), &InstrumentationScope::default(), vec![span]);
    let visit = Visit {
        station: "oven-1".into(),
        serial: "SN1".into(),
        product: Some("A-17".into()),
        lot: Some("L3".into()),
        from: at(0),
        to: at(5),
        arrival_seen: true,
        departure_seen: true,
    };
    let entries = [
        (Seq(1), own(Signal::Metrics, 7, figures)),
        (Seq(2), own(Signal::Traces, 1, spans.clone())),
        (Seq(3), Entry::Record { cause: None, record: Record::Visit(Box::new(visit)) }),
        (Seq(4), Entry::Readings(vec![good(0, 3, Value::Int(5))])),
    ];
    let encoded = encoder().encode(&entries);
    assert_eq!(encoded.logs, None);
    let metrics = encoded.metrics.expect("metrics");
    assert_eq!(metrics.items, 8);
    let metrics = ExportMetricsServiceRequest::decode(metrics.body).expect("protobuf");
    let names = metrics.resource_metrics.iter().flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics);
    assert_eq!(names.map(|metric| &*metric.name).collect::<Vec<_>>(), ["factory.tag.total", "process.uptime"]);
    let traces = encoded.traces.expect("traces");
    assert_eq!(traces.items, 2);
    let traces = ExportTraceServiceRequest::decode(traces.body).expect("protobuf");
    let spans_of = |of: &opentelemetry_proto::tonic::trace::v1::ResourceSpans| of.scope_spans[0].spans.clone();
    assert_eq!(spans_of(&traces.resource_spans[1])[0].name, "connect");
    assert_eq!(traces.resource_spans[0].resource, Some(encoder().resource));
    insta::assert_debug_snapshot!(spans_of(&traces.resource_spans[0]));

    let only = encoder().encode(&[(Seq(2), own(Signal::Traces, 1, spans.clone()))]);
    assert_eq!(only.traces, Some(Payload { body: spans.into(), items: 1 }), "as it was stored");
    assert_eq!((only.metrics, only.logs), (None, None));
}

mod watched {
    //! What watches a station.

    use super::*;
    use crate::model::anomaly::{Change, End, Ended, Episode, Peak, Severity};
    use crate::model::spc::{Named, Part, Rule, Side, Violation};
    use crate::record::{
        AnomalyTold, CapabilityPoint, ChartPoint, DetectorPoint, DriftPoint, InspectionRates, InspectionSums,
        ProductPoint, ScoreHistogram, ViolationTold, WatchPoint,
    };

    fn durations() -> CycleHistogram {
        CycleHistogram {
            scale: 3,
            count: 1,
            sum: 2.0,
            min: 2.0,
            max: 2.0,
            buckets: vec![1],
            ..CycleHistogram::default()
        }
    }

    fn point() -> WatchPoint {
        WatchPoint {
            station: "oven-1".into(),
            time: at(60),
            detectors: vec![DetectorPoint {
                detector: "hot".into(),
                since: at(10),
                warning: 3,
                critical: 1,
                latency: durations(),
                false_positives: Some(0.5),
            }],
            charts: vec![ChartPoint {
                chart: "zone1.i_mr".into(),
                since: at(20),
                violations: vec![(Rule::Nelson1, 2)],
                capability: Some(CapabilityPoint { cp: Some(1.5), cpk: Some(1.25), ..CapabilityPoint::default() }),
            }],
            inspection: Some(InspectionSums {
                since: at(30),
                pass: 5,
                fail: 2,
                review: 1,
                unknown: 0,
                defects: vec![("bridge".into(), 2)],
                latency: durations(),
                scores: Some(ScoreHistogram { edges: vec![0.5, 0.9], counts: vec![1, 2, 5] }),
                queue: Some(4.0),
            }),
            rates: Some(InspectionRates {
                shift: "early".into(),
                per_hour: Some(480.0),
                passed: Some(0.625),
                first_pass_yield: None,
                manual_review: Some(0.125),
                false_reject: None,
                escape: None,
                accuracy: None,
                precision: None,
                recall: None,
                f1: None,
                dpu: Some(0.25),
                labelled: 0,
                drift: vec![DriftPoint { version: Some("v2".into()), psi: Some(0.1), ks: Some(0.25) }],
                dpmo: None,
                ppm: Some(250_000.0),
                products: vec![
                    ProductPoint {
                        product: Some("ECU-A7".into()),
                        dpu: Some(0.5),
                        dpmo: Some(125_000.0),
                        ppm: Some(500_000.0),
                    },
                    ProductPoint { product: None, dpu: Some(0.1), dpmo: None, ppm: None },
                ],
            }),
        }
    }

    #[test]
    fn its_figures_and_sums_are_metrics() {
        let metrics = decoded(&encoder().encode(&of(Record::Watched(Box::new(point())))));
        insta::assert_snapshot!(lines(&metrics).join("\n"));
        let durations: Vec<_> = metrics
            .iter()
            .filter_map(|metric| match &metric.data {
                Some(Data::ExponentialHistogram(held)) => Some((&*metric.name, words(&held.data_points[0].attributes))),
                _ => None,
            })
            .collect();
        let of = |more: &[&str]| {
            ["factory.station=oven-1"].iter().chain(more).map(|it| (*it).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            durations,
            [
                ("factory.anomaly.detection.latency", of(&["factory.anomaly.detector=hot"])),
                ("factory.inspection.inference.duration", of(&[])),
            ]
        );
    }

    #[test]
    fn the_end_of_a_shift_has_rates_and_no_sums() {
        let point = WatchPoint { detectors: Vec::new(), charts: Vec::new(), inspection: None, ..point() };
        let metrics = decoded(&encoder().encode(&of(Record::Watched(Box::new(point)))));
        assert!(metrics.iter().all(|metric| matches!(metric.data, Some(Data::Gauge(_)))), "{metrics:?}");
    }

    #[test]
    fn an_anomaly_is_a_log_from_its_beginning_to_its_end() {
        let episode = Episode {
            began: at(1),
            detected: at(3),
            latency_s: 2.5,
            severity: Severity::Critical,
            peak: Peak { at: at(2), value: 251.5, score: 6.25 },
            expected: Some(240.0),
            ended: None,
            verdict: None,
        };
        let told = |change, time, episode| {
            log_of(Record::Anomaly(Box::new(AnomalyTold {
                station: "oven-1".into(),
                tag: "zone1".into(),
                detector: "hot".into(),
                method: "robust_z".into(),
                change,
                time,
                episode,
            })))
        };
        let log = told(Change::Detected, at(3), episode);
        assert_eq!((log.event_name.as_str(), log.severity_text.as_str()), ("factory.anomaly.detected", "ERROR"));
        assert_eq!(
            words(&log.attributes),
            [
                "factory.station=oven-1",
                "factory.tag=zone1",
                &format!("factory.anomaly.id=oven-1/zone1/hot@{}", at(1)),
                "factory.anomaly.detector=hot",
                "factory.anomaly.method=robust_z",
                "factory.anomaly.severity=critical",
                "factory.anomaly.score=6.25",
                "factory.anomaly.value=251.5",
                &format!("factory.anomaly.began={}", at(1)),
                "factory.anomaly.detection.latency=2.5",
                "factory.anomaly.expected=240",
            ]
        );
        assert_eq!(told(Change::Worsened, at(4), episode).event_name, "factory.anomaly.worsened");
        let over = Episode { ended: Some(Ended { at: at(9), how: End::Normal }), ..episode };
        let log = told(Change::Ended, at(9), over);
        assert_eq!((log.event_name.as_str(), log.severity_text.as_str()), ("factory.anomaly.ended", "INFO"));
        let end = ["factory.anomaly.end=normal", "factory.anomaly.duration=8"];
        assert_eq!(words(&log.attributes)[11..], end);
    }

    #[test]
    fn a_broken_rule_is_a_log_with_its_points() {
        let named = |index, second, value| Named { index, at: at(second), value };
        let violation = Violation {
            chart: "zone1.i_mr".into(),
            part: Part::Location,
            rule: Rule::Nelson5,
            side: Some(Side::Above),
            points: vec![named(7, 3, 1.5), named(8, 5, 1.75)],
        };
        let told = ViolationTold { station: "oven-1".into(), tags: "zone1".into(), violation };
        let log = log_of(Record::Violation(Box::new(told)));
        assert_eq!((log.event_name.as_str(), log.time_unix_nano), ("factory.spc.violation", at(5).0 as u64));
        assert_eq!(
            words(&log.attributes),
            [
                "factory.station=oven-1",
                "factory.tag=zone1",
                "factory.spc.chart=zone1.i_mr",
                "factory.spc.rule=nelson_5",
                "factory.spc.part=location",
                "factory.spc.side=above",
                "factory.spc.points=[2]",
                "factory.spc.value=1.75",
            ]
        );
    }

    #[test]
    fn another_inspection_model_is_a_log() {
        let changed =
            Record::ModelChanged { station: "aoi-1".into(), time: at(3), from: Some("v1".into()), to: "v2".into() };
        let log = log_of(changed);
        assert_eq!(log.event_name, "factory.inspection.model.changed");
        assert_eq!(
            words(&log.attributes),
            ["factory.station=aoi-1", "factory.inspection.model.version=v2", "factory.inspection.model.previous=v1"]
        );
    }
}
