//! A line in mid-shift with one of everything that can be odd, at a fixed instant.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::treat::clock::ClockState;
use gemba_drivers::{LinkPhase, LinkState, Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

use super::{Identity, Pipeline, View};
use crate::config::Config;
use crate::model::{Derived, Line, Preset, State};
use crate::record::{CycleHistogram, Figures, Sums};
use crate::snapshot::{
    GatewayView, Intake, KpiView, Maintenance, Snapshot, SpoolView, StationView, TagView, UpstreamStatus, UpstreamView,
};

/// An instant, from RFC 3339.
pub(super) fn at(text: &str) -> Time {
    text.parse().expect("RFC 3339")
}

/// The line: `printer-1` well, `aoi-1` with a bad and an uncertain tag, `oven-1` lost, `scale-1` without `oee:`.
pub(super) fn line() -> View {
    let now = at("2026-11-02T12:00:00Z");
    let up = LinkState {
        phase: LinkPhase::Connected,
        last_error: Some("unreachable: connection refused".to_owned()),
        alive: Some(now),
        connects: 2,
        ..LinkState::new(at("2026-11-02T05:00:00Z"))
    };
    let lost = LinkState {
        phase: LinkPhase::Disconnected,
        last_error: Some("link broke: the broker closed the connection".to_owned()),
        alive: Some(at("2026-11-02T11:58:00Z")),
        connects: 1,
        ..LinkState::new(at("2026-11-02T11:58:30Z"))
    };
    View {
        identity: Identity {
            version: "0.1.0".into(),
            site: "fab-2".into(),
            line: "smt-1".into(),
            started: at("2026-11-02T05:00:00Z"),
            timezone: jiff::tz::TimeZone::get("Europe/Berlin").expect("a time zone"),
        },
        snapshot: Snapshot {
            flow: None,
            time: at("2026-11-02T11:59:59.9Z"),
            stations: vec![printer(), aoi(), oven(), scale()],
            entries: Vec::new(),
            losses: vec![Loss {
                source: "oven-1".into(),
                from: at("2026-11-02T11:40:00Z"),
                to: at("2026-11-02T11:40:00.25Z"),
                count: 2,
                reason: "payload is not JSON".into(),
            }],
            loss_totals: vec![("oven-1".into(), "payload is not JSON".into(), 7)],
            intake: Intake { numbers: 1_200_300, texts: 4_200, text_changes: 77 },
            spool: SpoolView {
                records: 40,
                readings: 1200,
                bytes: 1_572_864,
                oldest: Some(at("2026-11-02T11:59:30Z")),
                dropped: 0,
                full: false,
                error: None,
            },
        }
        .into(),
        links: vec![up.clone(), up, lost],
        upstream: UpstreamView {
            status: UpstreamStatus::Connected,
            since: at("2026-11-02T05:00:01Z"),
            last_success: Some(at("2026-11-02T11:59:58Z")),
            retries: 3,
            rejected: 0,
            last_error: Some("503 Service Unavailable".to_owned()),
        },
        gateway: GatewayView {
            time: Some(at("2026-11-02T11:59:55Z")),
            clock: Some(ClockState::Trusted),
            cpu: Some(0.125),
            memory: Some((402_653_184, 1_073_741_824)),
            disk: Some((3_221_225_472, 15_032_385_536)),
            temperature: None,
            process_cpu: Some(0.02),
            process_memory: Some(12_582_912),
            metrics: Arc::default(),
        },
        pipeline: Pipeline::Running,
        now,
        uptime: Duration::from_millis(25_200_500),
    }
}

/// The same line with nothing wrong.
pub(super) fn well() -> View {
    let mut view = line();
    let stations = &mut snapshot(&mut view).stations;
    stations.truncate(1);
    stations[0].kpi.iter_mut().for_each(|kpi| kpi.figures.performance = Some(0.86));
    view
}

/// The snapshot, to be changed.
pub(super) fn snapshot(view: &mut View) -> &mut Snapshot {
    Arc::make_mut(&mut view.snapshot)
}

/// The same line, with `scale-1` watched: an anomaly that lasts, a broken rule, inspections with one reject.
pub(super) fn watched() -> View {
    let yaml = r#"
site: fab-2
line: smt-1
timezone: UTC
stations:
  - name: scale-1
    source: { type: mqtt, endpoint: "mqtt://127.0.0.1:1883", topics: [{ topic: scale }] }
    tags:
      - { name: mass, path: "$.mass", unit: g }
      - { name: verdict, path: "$.verdict" }
      - { name: defect, path: "$.defect" }
      - { name: waiting, path: "$.waiting" }
      - { name: took, path: "$.took" }
    anomalies: [{ name: heavy, tag: mass, method: limits, high: 120, high_high: 150 }]
    spc:
      - { name: mass, tag: mass, chart: i_mr, limits: { center: 100, sigma: 5 }, rules: [nelson_1],
          spec_limits: { lower: 80, upper: 120 } }
    inspection:
      trigger: message
      verdict: { tag: verdict, map: { OK: pass, NG: fail } }
      score: { tag: mass, min: 0, max: 200, bins: 4 }
      defects: { tag: defect }
      queue: { tag: waiting }
      latency: { tag: took, unit: ms }
"#;
    let mut line = Line::new(&Config::from_str("line.yaml", yaml).expect("a configuration"));
    let mut derived = Derived::default();
    let start = at("2026-11-02T11:59:00Z");
    for (second, (mass, verdict, defect)) in
        (0..).zip([(100, "OK", ""), (98, "OK", ""), (103, "OK", ""), (130, "NG", "overweight")])
    {
        let time = start + Duration::from_secs(second);
        let told = |tag, value| Reading::good(TagId(tag), value, time, time);
        let together = [
            told(0, Value::Int(mass)),
            told(1, Value::Text(verdict.into())),
            told(2, Value::Text(defect.into())),
            told(3, Value::Int(2)),
            told(4, Value::Int(40)),
        ];
        line.apply(&together, &mut derived);
    }
    let now = at("2026-11-02T11:59:59.9Z");
    line.advance(now, &mut derived);
    let StationView { anomalies, charts, inspection, .. } = line.snapshot(now, SpoolView::default()).stations.remove(0);
    let mut view = self::line();
    let scale = &mut snapshot(&mut view).stations[3];
    *scale = StationView { anomalies, charts, inspection, ..scale.clone() };
    view
}

fn printer() -> StationView {
    StationView {
        anomalies: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        name: "printer-1".into(),
        link: 0,
        state: Some(State::Producing),
        state_since: Some(at("2026-11-02T11:45:00Z")),
        shift: Some("early".into()),
        kpi: Some(KpiView {
            since: at("2026-11-02T05:00:00Z"),
            losses: Preset::Vorne,
            figures: Figures {
                oee: Some(0.1 + 0.2),
                availability: Some(0.75),
                performance: Some(1.002),
                quality: Some(18848.0 / 19271.0),
                coverage: Some(1.0),
                first_pass_yield: Some(0.97),
                defect_rate: Some(0.0),
            },
            oee_bounds: Some((0.25, 0.5)),
            target: Some(19500.0),
            total: Some(19271.0),
            good: Some(18848.0),
            reject: Some(423.0),
            rework: None,
            startup_reject: None,
            unattributed: 12.0,
            quality_assumed: false,
            scheduled: Some(true),
            planned_ns: 23_400_000_000_000,
            run_ns: 17_550_000_000_000,
            unknown_ns: 0,
            energy: None,
            cost: None,
            teep: Some(0.275),
            maintenance: Maintenance {
                failures: 2,
                repairs: 1,
                mtbf: Some(8775.0),
                mttr: Some(540.0),
                corrective: 900.0,
                planned: 300.0,
                corrective_ratio: Some(0.75),
            },
        }),
        rolling: None,
        sums: Some((
            at("2026-10-01T00:00:00Z"),
            Sums {
                good: Some(1_000_000.0),
                reject: Some(20_000.0),
                state_time: vec![(State::Producing, 17_550_500_000_000), (State::Down, 900_000_000_000)],
                downtime: vec![("jam \"A\"".into(), false, 600_000_000_000), ("lunch".into(), true, 300_000_000_000)],
                cycle: cycle(),
                ..Sums::default()
            },
        )),
        tags: vec![
            good("state", None, Value::Int(1)),
            good("total", Some("{part}"), Value::Int(19271)),
            good("squeegee_pressure", Some("N"), Value::Float(61.299_999_237_060_55)),
            good("door_closed", None, Value::Bool(true)),
        ],
    }
}

fn aoi() -> StationView {
    StationView {
        anomalies: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        name: "aoi-1".into(),
        link: 1,
        state: Some(State::Starved),
        state_since: Some(at("2026-11-02T11:59:48Z")),
        shift: Some("early".into()),
        kpi: Some(KpiView {
            since: at("2026-11-02T10:30:00Z"),
            losses: Preset::Vorne,
            figures: Figures { quality: Some(1.0), coverage: Some(0.25), ..Figures::default() },
            oee_bounds: None,
            target: None,
            total: Some(0.5),
            good: Some(0.5),
            reject: None,
            rework: None,
            startup_reject: None,
            unattributed: 0.0,
            quality_assumed: true,
            scheduled: Some(true),
            planned_ns: 1_350_000_000_000,
            run_ns: 0,
            unknown_ns: 4_050_000_000_000,
            energy: None,
            cost: None,
            teep: None,
            maintenance: Maintenance::default(),
        }),
        rolling: None,
        sums: Some((at("2026-11-02T10:30:00Z"), Sums { good: Some(0.5), ..Sums::default() })),
        tags: vec![
            good("state", None, Value::Text("Suspended".into())),
            TagView {
                validity: Validity::Uncertain(Status::Opcua(0x4090_0000)),
                ..good("score", Some("1"), Value::Float(0.875))
            },
            bad("reject", Some("{part}"), Status::Opcua(0x8034_0000), Some(at("2026-11-02T11:00:00Z"))),
        ],
    }
}

fn oven() -> StationView {
    StationView {
        anomalies: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        name: "oven-1".into(),
        link: 2,
        state: Some(State::Unknown),
        state_since: Some(at("2026-11-02T11:58:00Z")),
        shift: None,
        kpi: None,
        rolling: None,
        sums: None,
        tags: vec![
            bad("zone1", Some("Cel"), Status::Own(OwnStatus::LinkLost), Some(at("2026-11-02T11:58:00Z"))),
            bad("fan", None, Status::Own(OwnStatus::NoData), None),
        ],
    }
}

fn scale() -> StationView {
    StationView {
        anomalies: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        name: "scale-1".into(),
        link: 0,
        state: None,
        state_since: None,
        shift: None,
        kpi: None,
        rolling: None,
        sums: None,
        tags: vec![bad("mass", Some("g"), Status::Modbus(2), Some(at("2026-11-02T12:00:00Z")))],
    }
}

fn good(name: &str, unit: Option<&str>, value: Value) -> TagView {
    TagView {
        name: name.into(),
        unit: unit.map(Into::into),
        value,
        validity: Validity::Good,
        source_time: Some(at("2026-11-02T11:59:59.88Z")),
        received_time: Some(at("2026-11-02T11:59:59.89Z")),
    }
}

fn bad(name: &str, unit: Option<&str>, why: Status, source_time: Option<Time>) -> TagView {
    TagView {
        name: name.into(),
        unit: unit.map(Into::into),
        value: Value::Null,
        validity: Validity::Bad(why),
        source_time,
        received_time: source_time,
    }
}

/// Scale 1, so two buckets to the doubling: (0.707, 1] holds 3, (1, 1.414] 5, (1.414, 2] 2, (2, 2.83] 1.
fn cycle() -> CycleHistogram {
    CycleHistogram {
        scale: 1,
        count: 12,
        sum: 15.25,
        min: 0.0,
        max: 2.5,
        zero_count: 1,
        offset: -1,
        buckets: vec![3, 5, 2, 1],
    }
}
