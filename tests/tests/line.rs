//! The reference line, end to end: three protocols in, figures computed, OTLP out.

use gemba_drivers::Time;
use gemba_drivers::sim::keeper::Keeper;
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::line::{Line, OVEN};
use gemba_tests::receiver::Point;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn three_stations_on_three_protocols() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    let mut oven = line.oven();
    line.print(1, 100, 4, 42.5);
    line.inspect("Execute", 50, 1, 0.875, Time::now());
    let agent = Agent::start(&line.config(folder.path())).await;
    agent
        .until("every link is up", |health| {
            health["stations"].as_array().is_some_and(|all| all.iter().all(|station| station["link"] == "connected"))
        })
        .await;
    oven.publish(OVEN, r#"{"state":"running","count":7,"zones":[{"temp":241.5}]}"#).await.expect("published");
    agent.until("the oven's message", |health| station(health, "oven-1")["state"] == "producing").await;

    line.print(1, 110, 5, 43.25);
    line.inspect("Execute", 58, 2, 0.75, Time::now());
    oven.publish(OVEN, r#"{"state":"running","count":19,"zones":[{"temp":242.0}]}"#).await.expect("published");
    let health = agent
        .until("counts of all three", |health| {
            let total = |name| station(health, name)["kpi"]["total"].clone();
            total("printer-1") == 10 && total("aoi-1") == 9 && total("oven-1") == 12
        })
        .await;
    let printer = station(&health, "printer-1");
    assert_eq!((&printer["kpi"]["good"], &printer["kpi"]["reject"]), (&json!(9), &json!(1)));
    assert_eq!(printer["kpi"]["quality"], json!(0.9));
    assert_eq!(tag(printer, "squeegee_pressure")["value"], json!(43.25));
    assert_eq!(tag(printer, "squeegee_pressure")["unit"], "N");
    let aoi = station(&health, "aoi-1");
    assert_eq!((&aoi["kpi"]["good"], &aoi["kpi"]["reject"]), (&json!(8), &json!(1)));
    assert_eq!((tag(aoi, "state")["value"].as_str(), aoi["state"].as_str()), (Some("Execute"), Some("producing")));
    let oven_view = station(&health, "oven-1");
    assert_eq!(oven_view["kpi"]["quality_assumed"], true);
    assert_eq!(tag(oven_view, "zone1")["value"], json!(242.0));
    assert_eq!(health["status"], "healthy", "{health:#}");

    line.receiver
        .until("the second temperature upstream", |receiver| {
            receiver.points("factory.tag.zone1").iter().any(|point| point.number() == Some(242.0))
        })
        .await;
    agent.stop().await;
    // The stop tells the last figures, and sends them.
    let parts = line.receiver.points("factory.parts");
    let told = |station: &str, disposition: &str| {
        let of = |point: &&Point| {
            point.has("factory.station", station) && point.has("factory.part.disposition", disposition)
        };
        parts.iter().filter(of).filter_map(Point::number).next_back()
    };
    assert_eq!((told("printer-1", "good"), told("printer-1", "reject")), (Some(9.0), Some(1.0)));
    assert_eq!((told("aoi-1", "good"), told("aoi-1", "reject")), (Some(8.0), Some(1.0)));
    assert_eq!(told("oven-1", "good"), Some(12.0));
    let states = line.receiver.points("factory.tag.state");
    assert!(states.iter().all(|point| !point.has("factory.station", "aoi-1")), "text is no metric");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_down_disturbs_nobody_and_joins_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut line = Line::start().await;
    line.print(1, 5, 0, 1.0);
    line.aoi.stop().await;
    let agent = Agent::start(&line.config(folder.path())).await;
    let health = agent
        .until("the printer is up and the inspection known to be down", |health| {
            station(health, "printer-1")["link"] == "connected" && station(health, "aoi-1")["link"] == "disconnected"
        })
        .await;
    assert_eq!(health["status"], "degraded");
    let aoi = station(&health, "aoi-1");
    let tags = aoi["tags"].as_array().expect("tags");
    assert_eq!(tags.len(), 4, "every configured tag is listed");
    assert!(tags.iter().all(|tag| tag["value"].is_null() && tag["validity"] == "bad"), "{aoi:#}");
    line.aoi.restart().await.expect("the port is free");
    agent.until("the inspection is up", |health| tag(station(health, "aoi-1"), "score")["validity"] == "good").await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_beside_good_ones_is_that_tags_own_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    line.print(1, 5, 0, 1.0);
    let yaml = line.config(folder.path()).replace("s=Score", "s=Skore").replace("input:10", "input:4000");
    let agent = Agent::start(&yaml).await;
    // A server says at once that it has no such node, and tells values with its first publish.
    agent
        .until("both faults are seen, and every other tag is good", |health| {
            let (printer, aoi) = (station(health, "printer-1"), station(health, "aoi-1"));
            let good = |station, names: [&str; 3]| names.iter().all(|name| tag(station, name)["validity"] == "good");
            tag(printer, "squeegee_pressure")["status"]["name"] == "IllegalDataAddress"
                && tag(aoi, "score")["status"]["name"] == "BadNodeIdUnknown"
                && good(printer, ["state", "total", "reject"])
                && good(aoi, ["state", "good", "reject"])
        })
        .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_payloads_are_counted_and_leave_the_tags_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    let mut oven = line.oven();
    let agent = Agent::start(&line.config(folder.path())).await;
    agent.until("the oven's link", |health| station(health, "oven-1")["link"] == "connected").await;
    for payload in [
        r#"{"state":"running","count":7,"zones":[{"temp":241.5}]}"#,
        "this is not JSON",
        r#"{"status":"nothing we know"}"#,
        r#"{"count":9}"#,
    ] {
        oven.publish(OVEN, payload).await.expect("published");
    }
    let health = agent.until("the last count", |health| tag(station(health, "oven-1"), "total")["value"] == 9).await;
    let oven_view = station(&health, "oven-1");
    assert_eq!(tag(oven_view, "zone1")["value"], json!(241.5), "a path that is missing leaves its tag");
    assert_eq!(oven_view["state"], "producing");
    let lost: u64 = health["loss_totals"]
        .as_array()
        .expect("totals")
        .iter()
        .filter_map(|total| (total["source"] == "oven-1").then(|| total["count"].as_u64())?)
        .sum();
    assert_eq!(lost, 2, "{:#}", health["losses"]);
    oven.publish(OVEN, r#"{"count":"many"}"#).await.expect("published");
    let health =
        agent.until("the wrong type", |health| tag(station(health, "oven-1"), "total")["validity"] == "bad").await;
    assert_eq!(tag(station(&health, "oven-1"), "total")["status"]["name"], "WrongType");
    agent.stop().await;
    let losses = line.receiver.logs("gemba.loss");
    assert_eq!(losses.len(), 2, "each is told upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_a_restart_lose_nothing_and_count_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut line = Line::start().await;
    // rumqttd sends what the stop left unacknowledged again as if it were new.
    let oven = Keeper::start().await.expect("a broker");
    let yaml = line.config(folder.path()).replace(&line.broker.endpoint().to_string(), &oven.endpoint().to_string());
    let count = |count: u32| format!(r#"{{"state":"running","count":{count},"zones":[{{"temp":{count}.5}}]}}"#);
    let agent = Agent::start(&yaml).await;
    agent.until("the oven's link", |health| station(health, "oven-1")["link"] == "connected").await;
    for value in 0..20 {
        oven.publish(OVEN, count(value));
    }
    agent.until("the first twenty", |health| tag(station(health, "oven-1"), "total")["value"] == 19).await;
    line.receiver.stop();
    for value in 20..60 {
        oven.publish(OVEN, count(value));
    }
    let health = agent
        .until("sixty, and upstream seen to be away", |health| {
            tag(station(health, "oven-1"), "total")["value"] == 59 && health["upstream"]["status"] == "disconnected"
        })
        .await;
    assert_eq!(health["status"], "degraded");
    agent.stop().await;
    for value in 60..80 {
        oven.publish(OVEN, count(value));
    }
    let agent = Agent::start(&yaml).await;
    agent.until("what the broker kept", |health| tag(station(health, "oven-1"), "total")["value"] == 79).await;
    line.receiver.restart();
    let health = agent
        .until("everything is upstream", |health| {
            health["upstream"]["status"] == "connected" && health["spool"]["readings"] == 0
        })
        .await;
    assert_eq!(station(&health, "oven-1")["kpi"]["total"], 79, "{health:#}");
    agent.stop().await;
    let mut temperatures: Vec<_> = line.receiver.points("factory.tag.zone1").iter().filter_map(Point::number).collect();
    let expected: Vec<_> = (0..80).map(|value| f64::from(value) + 0.5).collect();
    temperatures.dedup(); // at least once: a request that was not answered comes again
    assert_eq!(temperatures, expected, "in order, none missing");
    let good: Vec<_> = line
        .receiver
        .points("factory.parts")
        .into_iter()
        .filter(|point| point.has("factory.station", "oven-1") && point.has("factory.part.disposition", "good"))
        .filter_map(|point| point.number())
        .collect();
    assert!(good.is_sorted(), "a sum never falls");
    assert_eq!(good.last(), Some(&79.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_stand_at_the_start_says_so_when_it_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let line = Line::start().await;
    let yaml = line.config(folder.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let refused = Agent::try_start(&yaml.replace("127.0.0.1:0", &address)).await.err().expect("the port is taken");
    assert!(format!("{refused:#}").contains(&address), "{refused:#}");

    let file = folder.path().join("a-file");
    std::fs::write(&file, "no folder").expect("written");
    let wrong = yaml.replace(&folder.path().join("spool").display().to_string(), &file.display().to_string());
    let refused = Agent::try_start(&wrong).await.err().expect("a file is no folder");
    assert!(format!("{refused:#}").contains("a-file"), "{refused:#}");

    let agent = Agent::start(&yaml).await;
    let refused = Agent::try_start(&yaml).await.err().expect("the spool is held");
    assert!(format!("{refused:#}").contains("in use by another gemba"), "{refused:#}");
    agent.stop().await;
}
