//! Connects that fail half-way, at a real socket: each attempt is one connection, and none stays open. (A peer once opened
//! 6,410 sessions in two minutes.)

use std::time::Duration;

use gemba::config::Config;
use gemba_drivers::{AnyDriver, Driver, LinkState, Outlet, Time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How many connections came, and how many of them stand.
type Count = (u64, u64);

/// Lets everybody in, says `answer` to whatever comes first, and then waits to be left.
async fn peer(answer: &'static [u8]) -> (u16, watch::Receiver<Count>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (counts, counted) = watch::channel((0, 0));
    tokio::spawn(async move {
        while let Ok((mut guest, _)) = listener.accept().await {
            counts.send_modify(|(came, open)| (*came, *open) = (*came + 1, *open + 1));
            let counts = counts.clone();
            tokio::spawn(async move {
                let mut heard = [0; 1024];
                if matches!(guest.read(&mut heard).await, Ok(1..)) && guest.write_all(answer).await.is_ok() {
                    while matches!(guest.read(&mut heard).await, Ok(1..)) {}
                }
                counts.send_modify(|(_, open)| *open -= 1);
            });
        }
    });
    (port, counted)
}

fn driver(source: &str, tag: &str) -> AnyDriver {
    let station = format!("{{ name: a, source: {{ {source} }}, tags: [{{ name: t, {tag} }}] }}");
    let text = format!("{{ site: s, line: l, timezone: UTC, stations: [{station}] }}");
    let config = Config::from_str("test.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
    config.links[0].source.clone().driver()
}

/// As the supervisor does it: connect, run if it came up, close. All of it fails.
async fn try_often(mut driver: AnyDriver, times: u64, mut counted: watch::Receiver<Count>) {
    let (batches, mut inlet) = mpsc::channel(64);
    tokio::spawn(async move { while inlet.recv().await.is_some() {} });
    let outlet = Outlet::new(batches, watch::Sender::new(LinkState::new(Time::now())).into());
    for _ in 0..times {
        if driver.connect().await.is_ok() {
            timeout(Duration::from_secs(20), driver.run(&outlet)).await.expect("it breaks");
        }
        driver.close().await;
    }
    let left = timeout(Duration::from_secs(20), counted.wait_for(|(came, open)| *came >= times && *open == 0)).await;
    let (came, open) = *left.expect("every connection is closed").expect("the peer stands");
    assert_eq!((came, open), (times, 0), "one connection for one attempt");
}

#[tokio::test]
async fn a_modbus_peer_that_answers_nonsense() {
    let (port, counted) = peer(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let source = format!("type: modbus, endpoint: \"tcp://127.0.0.1:{port}\", poll: 10ms, timeout: 300ms");
    try_often(driver(&source, "address: \"holding:0\", as: u16"), 20, counted).await;
}

#[tokio::test]
async fn a_broker_that_refuses_and_one_that_is_none() {
    for answer in [&[0x20, 0x02, 0x00, 0x05][..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let (port, counted) = peer(answer).await;
        let source =
            format!("type: mqtt, endpoint: \"mqtt://127.0.0.1:{port}\", timeout: 300ms, topics: [{{ topic: a }}]");
        try_often(driver(&source, "path: $.t"), 20, counted).await;
    }
}

#[tokio::test]
async fn an_opcua_server_that_is_none() {
    let (port, counted) = peer(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let source = format!("type: opcua, endpoint: \"opc.tcp://127.0.0.1:{port}\", timeout: 300ms");
    try_often(driver(&source, "node: \"ns=2;i=1\""), 5, counted).await;
}
