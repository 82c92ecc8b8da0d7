//! How nodes are addressed, and what of their values a tag is.

use std::collections::HashMap;
use std::time::Duration;

use gemba_drivers::opcua::{Client, Config, Pick};
use gemba_drivers::sim::opcua::{Inspection, OpcuaServer};
use gemba_drivers::{OwnStatus, Reading, Status, TagId, Time, Validity, Value};
use opcua::types::{StatusCode, Variant};

use super::rig::{NAMESPACE, Supervised, config, server, tag};

/// A server with the machine in it.
async fn machine() -> OpcuaServer {
    let server = server([("Good", 41_i64)]).await;
    server.add_machine();
    server
}

fn element(range: &str) -> Pick {
    Pick { range: Some(range.parse().expect("a range")), ..Pick::default() }
}

fn field(field: &str) -> Pick {
    Pick { field: Some(field.parse().expect("a field")), ..Pick::default() }
}

fn named(pick: Pick) -> Pick {
    Pick { names: true, ..pick }
}

/// One tag each, numbered from 0.
fn tags(server: &OpcuaServer, tags: &[(&str, Pick)]) -> Config {
    let mut config = config(&server.endpoint(), &[]);
    config.stations[0].tags = (0..)
        .zip(tags)
        .map(|(id, (node, pick))| {
            let node = if node.starts_with('/') { (*node).to_owned() } else { format!("nsu={NAMESPACE};s=AOI.{node}") };
            gemba_drivers::opcua::Tag { pick: pick.clone(), ..tag(id, &node) }
        })
        .collect();
    config
}

fn told(came: &HashMap<TagId, Reading>) -> Vec<Result<Value, Status>> {
    let mut readings: Vec<_> = came.values().collect();
    readings.sort_by_key(|reading| reading.tag);
    let said = |reading: &&Reading| match reading.validity {
        Validity::Good => Ok(reading.value.clone()),
        Validity::Uncertain(status) | Validity::Bad(status) => Err(status),
    };
    readings.iter().map(said).collect()
}

fn text(text: &str) -> Result<Value, Status> {
    Ok(Value::Text(text.into()))
}

fn refused(status: StatusCode) -> Result<Value, Status> {
    Err(Status::Opcua(status.bits()))
}

#[tokio::test]
async fn a_path_leads_to_its_node_and_each_that_does_not_is_bad_alone() {
    let server = machine().await;
    let path = |end: &str| format!("/Objects/nsu={NAMESPACE};AOI{end}");
    let paths = [
        path(&format!("/nsu={NAMESPACE};Speed")),
        path(&format!(".nsu={NAMESPACE};Speed")),
        path(&format!("/nsu={NAMESPACE};Speed.EURange")),
        path(&format!("/nsu={NAMESPACE};Twin")),
        path(&format!("/nsu={NAMESPACE};Gone")),
        path("/nsu=urn:gone;Speed"),
        "/Objects/Server/ServerStatus/State".to_owned(),
    ];
    let paths: Vec<_> = paths.iter().map(|path| (path.as_str(), Pick::default())).collect();
    let mut link = Supervised::start(tags(&server, &paths));
    let came = link.first_of_each(paths.len()).await;
    assert_eq!(
        told(&came),
        [
            Ok(Value::Float(120.0)),
            Ok(Value::Float(120.0)),
            Err(Status::Own(OwnStatus::WrongType)),
            refused(StatusCode::BadTooManyMatches),
            refused(StatusCode::BadNoMatch),
            refused(StatusCode::BadNoMatch),
            Ok(Value::Int(0)),
        ]
    );
    server.set_machine("Speed", 130.0, Time::now());
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Float(130.0));
    link.stop().await;
}

#[tokio::test]
async fn elements_fields_and_names_are_picked() {
    let server = machine().await;
    picked_from(&server).await;
}

#[tokio::test]
async fn a_server_that_cuts_out_no_ranges_is_helped() {
    let server = machine().await;
    server.refuse_ranges(true);
    picked_from(&server).await;
}

#[tokio::test]
async fn a_whole_array_goes_on_being_cut_after_what_was_refused_is_asked_for_again() {
    let server = machine().await;
    server.refuse_ranges(true);
    server.hide("AOI.Speed", true);
    let picks = [("Zones", element("1:2")), ("Speed", Pick::default())];
    let client = Client::new(tags(&server, &picks)).asking_again_every(Duration::from_millis(30));
    let mut link = Supervised::start_client(client, server.endpoint());
    assert_eq!(link.first_of_each(2).await[&TagId(0)].value, Value::Text("[11,12]".into()));
    server.hide("AOI.Speed", false);
    assert_eq!(link.next_of(TagId(1)).await.validity, Validity::Good, "it was asked for again");
    server.set_machine("Zones", vec![20.0_f64, 21.0, 22.0, 23.0], Time::now());
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Text("[21,22]".into()));
    link.stop().await;
}

async fn picked_from(server: &OpcuaServer) {
    let asked = [
        ("Zones", element("2"), Ok(Value::Float(12.0))),
        ("Zones", element("1:2"), text("[11,12]")),
        ("Zones", element("9"), refused(StatusCode::BadIndexRangeNoData)),
        ("Zones", Pick::default(), Err(Status::Own(OwnStatus::WrongType))),
        ("Mode", Pick::default(), Ok(Value::Int(1))),
        ("Mode", named(Pick::default()), text("Automatic")),
        ("Phase", named(Pick::default()), text("Inspecting")),
        ("Speed", named(Pick::default()), refused(StatusCode::BadTypeMismatch)),
        ("Result", field("Count"), Ok(Value::Int(7))),
        ("Result", field("Limits.High"), Ok(Value::Float(2.5))),
        ("Result", field("Axes[1].Position"), Ok(Value::Float(1.5))),
        ("Result", field("Axes[3].Position"), refused(StatusCode::BadIndexRangeNoData)),
        ("Result", field("Mode"), Ok(Value::Int(5))),
        ("Result", named(field("Mode")), text("Set up")),
        ("Any", named(field("Mode")), text("Set up")),
        ("Any", field("Axes[0].Position"), Ok(Value::Float(0.5))),
        ("Result", field("Gone"), refused(StatusCode::BadNoMatch)),
        ("Result", field("Limits"), Err(Status::Own(OwnStatus::WrongType))),
        ("Result", Pick::default(), Err(Status::Own(OwnStatus::WrongType))),
        ("Speed.EURange", field("High"), Ok(Value::Float(500.0))),
        ("Speed.EngineeringUnits", field("DisplayName"), text("mm/s")),
        ("Speed", field("High"), refused(StatusCode::BadTypeMismatch)),
    ];
    let picks: Vec<_> = asked.iter().map(|(node, pick, _)| (*node, pick.clone())).collect();
    let mut link = Supervised::start(tags(server, &picks));
    let came = told(&link.first_of_each(asked.len()).await);
    for ((node, pick, expected), came) in asked.iter().zip(came) {
        assert_eq!(came, *expected, "{node} {pick:?}");
    }

    // Each change is picked as the first was.
    server.set_machine("Zones", vec![20.0_f64, 21.0, 22.0, 23.0], Time::now());
    assert_eq!(link.next_of(TagId(0)).await.value, Value::Float(22.0));
    server.set_machine("Mode", Variant::Int32(7), Time::now());
    assert_eq!(link.next_of(TagId(5)).await.value, Value::Text("7".into()), "a number without a name");
    let next = Inspection { count: 8, limits: (0.0, 9.0), axes: vec![3.5], mode: 0 };
    server.set_machine("Result", server.inspection(&next), Time::now());
    let mut came = HashMap::new();
    while ![9, 10, 13].iter().all(|id| came.contains_key(&TagId(*id))) {
        came.extend(link.batch().await.readings.into_iter().map(|reading| (reading.tag, reading)));
    }
    assert_eq!(came[&TagId(9)].value, Value::Float(9.0));
    assert_eq!(came[&TagId(10)].validity, Validity::Bad(Status::Opcua(StatusCode::BadIndexRangeNoData.bits())));
    assert_eq!(came[&TagId(13)].value, Value::Text("Off".into()));
    link.stop().await;
}
