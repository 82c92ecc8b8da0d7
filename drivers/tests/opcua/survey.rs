//! Looking at a server without running.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::opcua::{Client, Pick};
use gemba_drivers::survey::{Offered, Probed, Scope, Survey};
use gemba_drivers::{LinkError, OwnStatus, Status, TagId, Time, Validity, Value};
use opcua::types::StatusCode;

use super::rig::{NAMESPACE, NOON, config, server, soon, tag, until};

#[tokio::test]
async fn a_probe_says_of_each_tag_what_it_is_or_why_not() {
    let server = server([("Good", 1_i64)]).await;
    server.add_machine();
    server.set("Good", 41_i64, NOON);
    let mut config = config(&server.endpoint(), &["Good", "Gone"]);
    let machine = |id, node: &str, pick: Pick| gemba_drivers::opcua::Tag { pick, ..tag(id, &server.node(node)) };
    let element = |range: &str| Pick { range: Some(range.parse().expect("a range")), ..Pick::default() };
    config.stations[0].tags.extend([
        machine(2, "AOI.Zones", element("3")),
        machine(3, "AOI.Zones", element("4")),
        machine(4, "AOI.Mode", Pick { names: true, ..Pick::default() }),
        machine(5, "AOI.Result", Pick { field: Some("Limits.Low".parse().expect("a field")), ..Pick::default() }),
        machine(6, "AOI.Result", Pick::default()),
        tag(7, "/Objects/Gone"),
    ]);
    let mut told: Vec<Probed> = Vec::new();
    let before = Time::now();
    soon(Client::new(config).probe(&mut |probed| told.push(probed))).await.expect("it is there");
    let said: Vec<_> =
        told.iter().map(|probed| (probed.reading.tag, probed.reading.value.clone(), probed.reading.validity)).collect();
    let bad = |status: StatusCode| Validity::Bad(Status::Opcua(status.bits()));
    assert_eq!(
        said,
        [
            (TagId(0), Value::Int(41), Validity::Good),
            (TagId(1), Value::Null, bad(StatusCode::BadNodeIdUnknown)),
            (TagId(2), Value::Float(13.0), Validity::Good),
            (TagId(3), Value::Null, bad(StatusCode::BadIndexRangeNoData)),
            (TagId(4), Value::Text("Automatic".into()), Validity::Good),
            (TagId(5), Value::Float(-1.5), Validity::Good),
            (TagId(6), Value::Null, Validity::Bad(Status::Own(OwnStatus::WrongType))),
            (TagId(7), Value::Null, bad(StatusCode::BadNoMatch)),
        ]
    );
    assert_eq!(told[0].reading.source_time, NOON);
    assert!(told.iter().all(|probed| probed.reading.received_time >= before && probed.round_trip > Duration::ZERO));
    until("the session is gone", || server.sessions() == 0).await;
}

async fn browse(driver: &mut Client, station: &str, most: usize) -> Result<Vec<Offered>, LinkError> {
    let scope = Scope { station: Arc::from(station), listen: Duration::ZERO, most };
    let mut found = Vec::new();
    soon(driver.browse(&scope, &mut |offered| found.push(offered))).await?;
    Ok(found)
}

#[tokio::test]
async fn a_browse_lists_the_variables_and_nothing_of_the_server_itself() {
    let server = server([("Good", 41_i64), ("Out of 10%", 2)]).await;
    server.add_machine();
    let mut driver = Client::new(config(&server.endpoint(), &["Good"]));
    let found = browse(&mut driver, "aoi-1", 1_000).await.expect("it is there");
    let names: Vec<_> = found.iter().map(|offered| offered.name.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let expected = ["AOI.Twin", "Any", "Good", "Mode", "Out_of_10_", "Phase", "Result", "Speed", "Twin", "Zones"];
    assert_eq!(sorted, expected);

    let of = |name: &str| found.iter().find(|offered| offered.name == name).expect("it is listed");
    let node = |name: &str| ("node", format!("nsu={NAMESPACE};s={name}"));
    let speed = Offered {
        name: "Speed".to_owned(),
        options: vec![node("AOI.Speed")],
        unit: Some("mm/s".to_owned()),
        about: "Objects/AOI/Speed, Double, read".to_owned(),
        value: Some(Value::Float(120.0)),
    };
    assert_eq!(*of("Speed"), speed);
    assert_eq!(of("Zones").options, [node("AOI.Zones"), ("index", "0".to_owned())]);
    assert_eq!(
        (of("Zones").about.as_str(), &of("Zones").value),
        ("Objects/AOI/Zones, Double[4], read", &Some(Value::Float(10.0)))
    );
    assert_eq!((of("Mode").about.as_str(), &of("Mode").value), ("Objects/AOI/Mode, Mode, read", &Some(Value::Int(1))));
    assert_eq!(of("Result").value, None);
    assert_eq!((&of("Good").unit, &of("Good").value), (&None, &Some(Value::Int(41))));

    assert_eq!(browse(&mut driver, "aoi-1", 3).await.expect("it is there").len(), 3, "no more than was asked for");
    let error = browse(&mut driver, "aoi-2", 3).await.expect_err("no such station");
    assert!(matches!(&error, LinkError::Refused(why) if why.contains("aoi-2")), "{error}");
    until("the session is gone", || server.sessions() == 0).await;
}
