//! The JSON of `GET /health`: wire types only, apart from what the line model knows.

use std::time::Duration;

use gemba_drivers::treat::clock::ClockState;
use gemba_drivers::{BreakerView, DeviceState, LinkPhase, LinkState, Time, Value};
use serde::{Serialize, Serializer};

use super::View;
use super::flow::Flow;
use super::kpi::Kpi;
use super::status::{Status, Verdict};
use super::watched::{Chart, Detector, Inspection};
use crate::snapshot::{GatewayView, StationView, TagView};

/// The body of `GET /health`. Beyond the contract: `time`, `reasons`, `losses`, `loss_totals`, `gateway`
/// and the fields said to be so below.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    status: Status,
    /// What is not healthy and why.
    reasons: &'a [String],
    version: &'a str,
    site: &'a str,
    line: &'a str,
    uptime_s: f64,
    /// When the snapshot was taken; null before the first.
    time: Option<Time>,
    stations: Vec<Station<'a>>,
    /// The line as a whole, where `flow` is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<Flow<'a>>,
    losses: Vec<Loss<'a>>,
    loss_totals: Vec<LossTotal<'a>>,
    spool: Spool<'a>,
    upstream: Upstream<'a>,
    gateway: Gateway,
}

#[derive(Serialize)]
struct Station<'a> {
    name: &'a str,
    status: Status,
    link: &'static str,
    /// Beyond the contract: since when, and why it is not connected.
    link_since: Option<Time>,
    link_error: Option<&'a str>,
    /// Beyond the contract: which server of a redundant set the link has or had last; left out where there is no set.
    #[serde(skip_serializing_if = "Option::is_none")]
    link_server: Option<Server>,
    /// Beyond the contract: how far the source's clock was ahead of the gateway's when it last told a time, in seconds; below
    /// zero if behind. What is late on its way looks behind as well.
    clock_skew_s: Option<f64>,
    /// Of the device behind the link that the station is, where a link has several: whether it is asked, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Device<'a>>,
    /// Null for a station without `oee:`.
    state: Option<&'static str>,
    state_since: Option<Time>,
    shift: Option<&'a str>,
    /// Null for a station without `oee:`; all of nulls where nothing can be known yet.
    kpi: Option<Kpi>,
    /// Beyond the contract: the last minutes; left out where `oee.rolling` does not ask for them, and before the first reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    rolling: Option<Rolling>,
    tags: Vec<Tag<'a>>,
    /// Beyond the contract, as the two after it are: what watches the tags; left out where nothing does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anomalies: Vec<Detector<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    charts: Vec<Chart<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inspection: Option<Inspection<'a>>,
}

/// Figures from `kpi.since` to `to`, the last full minute.
#[derive(Serialize)]
struct Rolling {
    to: Time,
    kpi: Kpi,
}

/// By its place in `endpoints`, from 1: an address may hold a secret.
#[derive(Serialize)]
struct Server {
    place: usize,
    of: usize,
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    /// `closed`, `half_open` or `open`.
    breaker: &'static str,
    breaker_since: Time,
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    value: TagValue<'a>,
    unit: Option<&'a str>,
    validity: &'static str,
    /// Beyond the contract: why it is not good.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<TagStatus>,
    source_time: Option<Time>,
    /// Beyond the contract: when the gateway got it.
    received_time: Option<Time>,
    /// By the gateway's clock; 0 where the source's clock is ahead.
    age_ms: Option<u64>,
}

struct TagValue<'a>(&'a Value);

#[derive(Serialize)]
struct TagStatus {
    code: u32,
    name: String,
    protocol: &'static str,
}

#[derive(Serialize)]
struct Loss<'a> {
    source: &'a str,
    from: Time,
    to: Time,
    count: u64,
    reason: &'a str,
}

#[derive(Serialize)]
struct LossTotal<'a> {
    source: &'a str,
    reason: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct Spool<'a> {
    records: u64,
    readings: u64,
    bytes: u64,
    oldest: Option<Time>,
    dropped: u64,
    /// Beyond the contract: why nothing can be stored.
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Upstream<'a> {
    status: &'static str,
    /// Beyond the contract, as `last_error` is.
    since: Time,
    last_success: Option<Time>,
    retries: u64,
    rejected: u64,
    last_error: Option<&'a str>,
}

/// Beyond the contract: the machine below, as it was at `time`; null is what it does not tell.
#[derive(Serialize)]
struct Gateway {
    time: Option<Time>,
    /// Whether its clock is to be believed: `trusted`, `awaited` (a time server has not answered yet) or `not_set`.
    clock: Option<&'static str>,
    /// Share of all cores, 0 to 1.
    cpu: Option<f64>,
    memory: Option<Room>,
    /// The one that holds the spool.
    disk: Option<Room>,
    /// Degrees Celsius, of the hottest sensor.
    temperature: Option<f64>,
    /// Share of one core that the agent takes.
    process_cpu: Option<f64>,
    /// Resident bytes of the agent.
    process_memory: Option<u64>,
}

/// Bytes in use, of how many.
#[derive(Serialize)]
struct Room {
    used: u64,
    size: u64,
}

/// The body that says all of it.
pub(super) fn body<'a>(view: &'a View, verdict: &'a Verdict) -> Health<'a> {
    let snapshot = &*view.snapshot;
    let stations = snapshot.stations.iter().zip(&verdict.stations);
    let spool = &snapshot.spool;
    let upstream = &view.upstream;
    Health {
        status: verdict.status,
        reasons: &verdict.reasons,
        version: &view.identity.version,
        site: &view.identity.site,
        line: &view.identity.line,
        uptime_s: view.uptime.as_secs_f64(),
        time: Some(snapshot.time).filter(|&time| time != Time::default()),
        stations: stations.map(|(station, &status)| Station::new(station, status, view)).collect(),
        flow: snapshot.flow.as_ref().map(|flow| {
            let names: Vec<&str> = snapshot.stations.iter().map(|station| &*station.name).collect();
            Flow::new(flow, &names)
        }),
        losses: snapshot.losses.iter().map(Loss::new).collect(),
        loss_totals: snapshot
            .loss_totals
            .iter()
            .map(|(source, reason, count)| LossTotal { source, reason, count: *count })
            .collect(),
        spool: Spool {
            records: spool.records,
            readings: spool.readings,
            bytes: spool.bytes,
            oldest: spool.oldest,
            dropped: spool.dropped,
            error: spool.error.as_deref(),
        },
        upstream: Upstream {
            status: upstream.status.word(),
            since: upstream.since,
            last_success: upstream.last_success,
            retries: upstream.retries,
            rejected: upstream.rejected,
            last_error: upstream.last_error.as_deref(),
        },
        gateway: Gateway::from(&view.gateway),
    }
}

impl From<&GatewayView> for Gateway {
    fn from(gateway: &GatewayView) -> Self {
        let room = |(used, size)| Room { used, size };
        Self {
            time: gateway.time,
            clock: gateway.clock.map(ClockState::word),
            cpu: gateway.cpu,
            memory: gateway.memory.map(room),
            disk: gateway.disk.map(room),
            temperature: gateway.temperature,
            process_cpu: gateway.process_cpu,
            process_memory: gateway.process_memory,
        }
    }
}

impl<'a> Station<'a> {
    fn new(station: &'a StationView, status: Status, view: &'a View) -> Self {
        let link = view.links.get(station.link);
        let error = link.filter(|link| link.phase != LinkPhase::Connected).and_then(|link| link.last_error.as_deref());
        Self {
            name: &station.name,
            status,
            link: link.map_or(LinkPhase::Connecting, |link| link.phase).word(),
            link_since: link.map(|link| link.since),
            link_error: error,
            link_server: link.and_then(|link| link.server).map(|(place, of)| Server { place, of }),
            clock_skew_s: link.and_then(|link| link.clock_skew).map(seconds),
            device: link.and_then(|link| device(link, &station.name)),
            state: station.state.map(crate::model::State::word),
            state_since: station.state_since,
            shift: station.shift.as_deref(),
            kpi: match &station.kpi {
                Some(kpi) => Some(Kpi::from(kpi)),
                // Outside shifts nothing is planned; before the first reading nobody knows.
                None => station.state.map(|_| Kpi::unknown(station.shift.is_none().then_some(false))),
            },
            rolling: station.rolling.as_ref().map(|(to, kpi)| Rolling { to: *to, kpi: Kpi::from(kpi) }),
            tags: station.tags.iter().map(|tag| Tag::new(tag, view.now)).collect(),
            anomalies: station.anomalies.iter().map(Detector::from).collect(),
            charts: station.charts.iter().map(Chart::from).collect(),
            inspection: station.inspection.as_ref().map(Inspection::from),
        }
    }
}

/// Only where several share a link: else the link says it all.
fn device<'a>(link: &'a LinkState, station: &str) -> Option<Device<'a>> {
    let mut of_station = link.devices.iter().filter(|device| device.stations.iter().any(|of| **of == *station));
    let first = of_station.next()?;
    let worse = |worst: &'a DeviceState, next: &'a DeviceState| {
        if next.breaker.state as u8 > worst.breaker.state as u8 { next } else { worst }
    };
    let device = of_station.fold(first, worse); // a station has many lines, but one unit
    let BreakerView { state, since, .. } = device.breaker;
    (link.devices.len() > 1).then(|| Device { name: &device.name, breaker: state.word(), breaker_since: since })
}

impl<'a> Tag<'a> {
    fn new(tag: &'a TagView, now: Time) -> Self {
        Self {
            name: &tag.name,
            value: TagValue(&tag.value),
            unit: tag.unit.as_deref(),
            validity: tag.validity.word(),
            status: tag.validity.status().map(|status| TagStatus {
                code: status.code(),
                name: status.name().into_owned(),
                protocol: status.protocol(),
            }),
            source_time: tag.source_time,
            received_time: tag.received_time,
            age_ms: tag.source_time.map(|time| milliseconds(now.since(time))),
        }
    }
}

impl<'a> Loss<'a> {
    fn new(loss: &'a gemba_drivers::Loss) -> Self {
        Self { source: &loss.source, from: loss.from, to: loss.to, count: loss.count, reason: &loss.reason }
    }
}

impl Serialize for TagValue<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => to.serialize_none(),
            Value::Bool(on) => to.serialize_bool(*on),
            Value::Int(whole) => to.serialize_i64(*whole),
            Value::Float(real) => to.serialize_f64(*real),
            Value::Text(text) => to.serialize_str(text),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "to the nanosecond for a hundred days")]
fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn milliseconds(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::fixture::{at, line, snapshot, well};
    use super::super::status::judge;
    use super::*;

    fn json(view: &View) -> Json {
        serde_json::to_value(body(view, &judge(view))).expect("JSON")
    }

    #[test]
    fn the_whole_body() {
        let view = line();
        insta::assert_json_snapshot!(body(&view, &judge(&view)));
    }

    /// The example of the contract: whatever it has, we have, of the same type or null.
    #[test]
    fn every_field_of_the_contract_is_there() {
        let contract: Json = serde_json::from_str(
            r#"{"status":"healthy","version":"…","site":"…","line":"…","uptime_s":1.0,
             "stations":[{"name":"printer-1","status":"healthy","link":"connected","state":"producing","state_since":"RFC3339",
               "shift":"early","kpi":{"since":"RFC3339","oee":0.75,"availability":0.89,"performance":0.86,"quality":0.98,"coverage":1.0,
                       "total":19271,"good":18848,"reject":423},
               "tags":[{"name":"total","value":19271,"unit":"{part}","validity":"good","source_time":"RFC3339","age_ms":120}]}],
             "spool":{"records":0,"readings":0,"bytes":0,"oldest":null,"dropped":0},
             "upstream":{"status":"connected","last_success":"RFC3339","retries":0,"rejected":0}}"#,
        )
        .expect("the contract is JSON");
        let mut view = well();
        snapshot(&mut view).stations[0].tags.remove(0);
        let ours = json(&view);
        alike("", &contract, &ours);
        for (field, value) in
            [("/oee", json!(0.1 + 0.2)), ("/total", json!(19271)), ("/quality", json!(18848.0 / 19271.0))]
        {
            assert_eq!(ours.pointer(&format!("/stations/0/kpi{field}")), Some(&value), "unrounded, parts whole");
        }
        assert_eq!(ours.pointer("/stations/0/tags/0/value"), Some(&json!(19271)));
        assert_eq!(ours.pointer("/stations/0/tags/0/age_ms"), Some(&json!(120)));
    }

    fn alike(path: &str, contract: &Json, ours: &Json) {
        match (contract, ours) {
            (Json::Object(contract), Json::Object(ours)) => {
                for (name, value) in contract {
                    let path = format!("{path}/{name}");
                    alike(&path, value, ours.get(name).unwrap_or_else(|| panic!("{path} is missing")));
                }
            }
            (Json::Array(contract), Json::Array(ours)) => alike(&format!("{path}/0"), &contract[0], &ours[0]),
            (Json::String(text), Json::String(time)) if text == "RFC3339" => {
                time.parse::<Time>().unwrap_or_else(|error| panic!("{path}: {error}"));
            }
            (Json::Null, Json::Null | Json::String(_)) => {}
            (Json::Number(contract), Json::Number(ours)) => {
                assert!(ours.is_u64() || contract.is_f64(), "{path}: {ours} is not whole");
            }
            _ => assert_eq!(std::mem::discriminant(contract), std::mem::discriminant(ours), "{path}: {ours}"),
        }
    }

    #[test]
    fn a_bad_tag_is_listed_with_null_and_the_reason() {
        let ours = json(&line());
        let tag = &ours["stations"][1]["tags"][2];
        assert_eq!(tag["value"], Json::Null);
        assert_eq!(tag["validity"], "bad");
        assert_eq!(tag["status"], json!({"code": 0x8034_0000_u32, "name": "BadNodeIdUnknown", "protocol": "opcua"}));
        assert_eq!(ours["stations"][0]["tags"][0].get("status"), None, "a good tag needs no reason");
        let never = &ours["stations"][2]["tags"][1];
        assert_eq!((&never["source_time"], &never["age_ms"]), (&Json::Null, &Json::Null));
    }

    #[test]
    fn what_cannot_be_known_is_null() {
        let ours = json(&line());
        let withheld = &ours["stations"][1]["kpi"];
        assert_eq!(
            (&withheld["oee"], &withheld["reject"], &withheld["total"]),
            (&Json::Null, &Json::Null, &json!(0.5))
        );
        let none_yet = ours["stations"][2]["kpi"].as_object().expect("a station with `oee:` always has the object");
        assert_eq!(none_yet["scheduled"], false, "outside shifts");
        let figures = none_yet.iter().filter(|(name, _)| *name != "scheduled");
        assert!(none_yet.len() > 9 && figures.clone().all(|(_, figure)| figure.is_null()));
        let mut view = line();
        snapshot(&mut view).stations[2].shift = Some("early".into());
        assert_eq!(json(&view)["stations"][2]["kpi"]["scheduled"], Json::Null, "in a shift, and not heard yet");
        let without_oee = &ours["stations"][3];
        assert_eq!((&without_oee["state"], &without_oee["kpi"]), (&Json::Null, &Json::Null));
    }

    #[test]
    fn the_last_minutes_are_there_where_they_are_asked_for() {
        let mut view = well();
        assert_eq!(json(&view)["stations"][0].get("rolling"), None);
        let station = &mut snapshot(&mut view).stations[0];
        station.rolling = station.kpi.clone().map(|kpi| (at("2026-11-02T12:00:00Z"), kpi));
        let station = &json(&view)["stations"][0];
        assert_eq!(station["rolling"], json!({ "to": "2026-11-02T12:00:00Z", "kpi": station["kpi"] }));
    }

    #[test]
    fn a_redundant_set_says_which_server_is_used() {
        let mut view = well();
        assert_eq!(json(&view)["stations"][0].get("link_server"), None);
        view.links[0].server = Some((2, 3));
        assert_eq!(json(&view)["stations"][0]["link_server"], json!({ "place": 2, "of": 3 }));
    }

    #[test]
    fn the_clock_of_a_source_may_be_ahead() {
        let mut view = well();
        snapshot(&mut view).stations[0].tags[0].source_time = Some(at("2026-11-02T12:00:05Z"));
        assert_eq!(json(&view)["stations"][0]["tags"][0]["age_ms"], 0);
    }
}
