//! A dead unit behind a link that stands, as it is told outside.

use std::time::Duration;

use gemba_drivers::sim::modbus::ModbusServer;
use gemba_tests::agent::{Agent, station, tag};
use gemba_tests::receiver::DEADLINE;
use tokio::time::{interval, timeout};

/// Waits until the number on a line of `/metrics` with all these parts is as wanted.
async fn until_metric(agent: &Agent, series: &[&str], wanted: impl Fn(f64) -> bool) {
    let mut looks = interval(Duration::from_millis(100));
    let mut last = String::new();
    let found = timeout(DEADLINE, async {
        loop {
            looks.tick().await;
            last = agent.get("/metrics").await.1;
            let line = last.lines().find(|line| series.iter().all(|part| line.contains(part)));
            let number = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
            if number.is_some_and(&wanted) {
                return;
            }
        }
    });
    assert!(found.await.is_ok(), "waited for {series:?} in:\n{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_units_breaker_is_on_the_page_and_on_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = ModbusServer::start().await.expect("a server");
    server.set_holding(1, 0, &[11]);
    server.set_holding(2, 0, &[22]);
    let press = |unit: u8| {
        format!(
            "  - name: press-{unit}\n    source: {{ type: modbus, endpoint: \"tcp://{}\", unit: {unit}, poll: 100ms, timeout: 300ms }}\n    \
             tags: [{{ name: total, address: \"holding:0\", as: u16 }}]\n",
            server.addr()
        )
    };
    let yaml = format!(
        "site: fab-2\nline: smt-1\ntimezone: Europe/Berlin\nhttp: {{ listen: \"127.0.0.1:0\" }}\nspool: {{ path: {} }}\n\
         stations:\n{}{}",
        folder.path().join("spool").display(),
        press(1),
        press(2)
    );
    let agent = Agent::start(&yaml).await;
    agent.until("both", |health| tag(station(health, "press-2"), "total")["value"] == 22).await;
    let of_dead = |rest: [&'static str; 2]| [rest[0], "factory_station=\"press-2\"", rest[1]];
    let name = "gemba_device_name=\"unit 2\"";
    until_metric(&agent, &of_dead(["gemba_device_breaker_state", name]), |state| state < 0.5).await;
    // From zero on, so that the first rise is seen.
    until_metric(&agent, &of_dead(["gemba_device_breaker_transitions", "gemba_breaker_state=\"open\""]), |turns| {
        turns == 0.0
    })
    .await;

    server.silence(Some(2));
    until_metric(&agent, &of_dead(["gemba_device_breaker_state", name]), |state| state >= 1.0).await;
    until_metric(&agent, &of_dead(["gemba_device_breaker_transitions", "gemba_breaker_state=\"open\""]), |turns| {
        turns >= 1.0
    })
    .await;
    let health = agent.until("it is told", |health| station(health, "press-2")["device"]["breaker"] == "open").await;
    let press = |name| tag(station(&health, name), "total").clone();
    assert_eq!((&press("press-2")["validity"], &press("press-1")["validity"]), (&"bad".into(), &"good".into()));
    assert_eq!(station(&health, "press-2")["link"], "connected");

    server.silence(None);
    until_metric(&agent, &of_dead(["gemba_device_breaker_state", name]), |state| state < 0.5).await;
    agent.stop().await;
}
