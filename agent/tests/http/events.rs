//! `/events`: what those who listen are told, and that it costs the same for one and for many.

use axum::body::BodyDataStream;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use gemba::http::MOST_LISTENERS;
use serde_json::json;
use tokio::time::timeout;

use super::*;

/// An open page.
struct Page(BodyDataStream);

impl Page {
    async fn open(line: &Line, path: &str) -> Self {
        let answer = line.open(path).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let mut page = Self(answer.into_body().into_data_stream());
        assert_eq!(page.bytes().await.as_deref(), Some(&b"retry: 2000\n"[..]));
        page
    }

    /// What comes next; nothing at the end.
    async fn bytes(&mut self) -> Option<Bytes> {
        self.0.next().await.map(|bytes| bytes.expect("the stream never fails"))
    }

    async fn event(&mut self) -> (String, Json) {
        read(&self.bytes().await.expect("more is to come"))
    }
}

fn read(event: &[u8]) -> (String, Json) {
    let text = std::str::from_utf8(event).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    let [name, data, ""] = lines[..] else { panic!("an event is a name, a line of data, an empty line: {text:?}") };
    let name = name.strip_prefix("event: ").expect("a name").to_owned();
    (name, serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON"))
}

/// A fresh snapshot in which the only tag has this value.
fn at(value: f64) -> Arc<Snapshot> {
    let mut snapshot = fresh();
    snapshot.stations[0].tags[0].value = Value::Float(value);
    Arc::new(snapshot)
}

#[tokio::test(start_paused = true)]
async fn first_all_of_it_and_then_what_changed() {
    let line = Line::new(fresh());
    let mut page = Page::open(&line, "/events").await;
    let (name, mut state) = page.event().await;
    assert_eq!(name, "state");
    let mut health = line.get("/health").await.json();
    for body in [&mut state, &mut health] {
        body["uptime_s"].take();
        body["stations"][0]["tags"][0]["age_ms"].take();
    }
    assert_eq!(state, health, "the same body");

    line.snapshots.send_replace(at(21.5));
    let (name, change) = page.event().await;
    assert_eq!(name, "change");
    let fields: Vec<&String> = change.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["stations", "time", "uptime_s"], "nothing else changed: {change}");
    let station = change["stations"][0].as_object().expect("an object");
    assert_eq!(station.keys().collect::<Vec<_>>(), ["name", "tags"], "{change}");
    let tag = &station["tags"][0];
    assert_eq!((&tag["name"], &tag["value"], &tag["unit"]), (&json!("tag-0"), &json!(21.5), &json!("Cel")));

    line.upstream.send_modify(|upstream| upstream.retries = 7);
    let (_, change) = page.event().await;
    assert_eq!((&change["upstream"]["retries"], change.get("stations")), (&json!(7), None));
}

#[tokio::test(start_paused = true)]
async fn other_stations_are_told_as_a_whole() {
    let line = Line::new(Snapshot::default());
    let mut page = Page::open(&line, "/events").await;
    assert_eq!(page.event().await.1["stations"], json!([]), "nothing is known yet");
    line.snapshots.send_replace(at(20.5));
    let (name, state) = page.event().await;
    assert_eq!((name.as_str(), &state["stations"][0]["name"]), ("state", &json!("oven-1")));
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_every_five_seconds() {
    let line = Line::new(fresh());
    let mut page = Page::open(&line, "/events").await;
    page.event().await;
    let opened = tokio::time::Instant::now();
    for beat in 1..=3 {
        let (name, time) = page.event().await;
        assert_eq!(name, "time");
        time["now"].as_str().expect("text").parse::<Time>().expect("RFC 3339");
        assert!(
            opened.elapsed() <= Duration::from_secs(5) * beat + Duration::from_millis(50),
            "{:?}",
            opened.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn changes_come_at_most_once_a_second() {
    let line = Line::new(fresh());
    let mut page = Page::open(&line, "/events").await;
    page.event().await;
    let opened = tokio::time::Instant::now();
    for count in 1..=5_u32 {
        line.snapshots.send_replace(at(f64::from(count)));
        page.event().await;
        assert!(opened.elapsed() >= Duration::from_secs(1) * count, "{:?}", opened.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn all_pages_share_one_rendering() {
    let line = Line::new(fresh());
    for path in ["/events", "/events?as=html"] {
        let mut pages = Vec::new();
        for _ in 0..50 {
            pages.push(Page::open(&line, path).await);
        }
        for value in [20.5, 30.0, 40.0] {
            line.snapshots.send_replace(at(value));
            let mut told = Vec::new();
            for page in &mut pages {
                told.push(page.bytes().await.expect("an event"));
            }
            assert!(told.iter().all(|bytes| std::ptr::eq(bytes.as_ref(), told[0].as_ref())), "the very same bytes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_the_newest_and_holds_nobody_up() {
    let line = Line::new(fresh());
    let (mut quick, mut slow) = (Page::open(&line, "/events").await, Page::open(&line, "/events").await);
    quick.event().await;
    slow.event().await;
    for value in [1.0, 2.0, 3.0] {
        line.snapshots.send_replace(at(value));
        let (name, change) = quick.event().await;
        assert_eq!((name.as_str(), &change["stations"][0]["tags"][0]["value"]), ("change", &json!(value)));
    }
    let (name, state) = slow.event().await;
    assert_eq!((name.as_str(), &state["stations"][0]["tags"][0]["value"]), ("state", &json!(3.0)), "not three events");
    line.snapshots.send_replace(at(4.0));
    assert_eq!(slow.event().await.0, "change", "it has caught up");
}

#[tokio::test(start_paused = true)]
async fn for_nobody_nothing_is_done() {
    let line = Line::new(taken(Time::now() - Duration::from_secs(3600)));
    let mut page = Page::open(&line, "/events").await;
    page.event().await;
    line.wanted.notified().now_or_never().expect("a page that is open wants a snapshot");
    drop(page);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(line.wanted.notified().now_or_never(), None);
}

#[tokio::test(start_paused = true)]
async fn one_page_too_many_is_told_to_come_again() {
    let line = Line::new(fresh());
    let mut pages = Vec::new();
    for number in 0..MOST_LISTENERS {
        let path = if number % 2 == 0 { "/events" } else { "/events?as=html" };
        pages.push(Page::open(&line, path).await);
    }
    let refused = line.get("/events").await;
    assert_eq!((refused.code, refused.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "10"));
    assert_eq!(refused.json()["detail"], "256 pages are open already; close one, or ask /health");
    assert_eq!(line.get("/health").await.code, StatusCode::OK, "everything else is served");
    pages.pop();
    assert_eq!(Page::open(&line, "/events").await.event().await.0, "state");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_stream() {
    let line = Line::new(fresh());
    let mut page = Page::open(&line, "/events").await;
    page.event().await;
    let before = tokio::time::Instant::now();
    let (end, ()) = tokio::join!(page.bytes(), async { drop(line) });
    assert_eq!((end, before.elapsed()), (None, Duration::ZERO), "at once");
}

#[tokio::test(start_paused = true)]
async fn another_form_is_refused() {
    let answer = Line::new(fresh()).get("/events?as=xml").await;
    assert_eq!(answer.code, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["detail"], "/events comes as json or as html, not as xml");
}

#[tokio::test(start_paused = true)]
async fn the_page_is_told_its_own_parts_and_names_stay_text() {
    let evil = "</td><script>alert(1)</script>\n\ndata: x";
    let line = Line::new(Snapshot { stations: vec![station(evil, 2)], ..fresh() });
    let html = line.ask(Method::GET, "/health", Some("text/html")).await.body;
    let mut page = Page::open(&line, "/events?as=html").await;
    let (name, state) = page.event().await;
    assert_eq!(name, "state");
    let frame = state["page"].as_str().expect("text");
    assert!(html.contains(&format!("data-page=\"{frame}\"")), "the frame that is on the screen: {frame}");
    for (id, content) in state["parts"].as_object().expect("an object") {
        assert!(html.contains(&format!(" id=\"{id}\">")), "{id}");
        assert!(!content.as_str().expect("text").contains("<script"), "{content}");
    }

    let mut changed = fresh();
    changed.stations = vec![station(evil, 2)];
    changed.stations[0].tags[1].value = Value::Text(evil.into());
    changed.stations[0].tags[1].source_time = line.snapshots.borrow().stations[0].tags[1].source_time;
    changed.stations[0].tags[0].source_time = line.snapshots.borrow().stations[0].tags[0].source_time;
    changed.time = line.snapshots.borrow().time;
    line.snapshots.send_replace(Arc::new(changed));
    let (name, change) = page.event().await;
    let parts = change["parts"].as_object().expect("an object");
    assert_eq!((name.as_str(), &change["page"]), ("change", &state["page"]));
    assert_eq!(parts.keys().filter(|id| *id != "asof").collect::<Vec<_>>(), ["t0-1v"], "one cell");
    let cell = parts["t0-1v"].as_str().expect("text");
    assert!(cell.starts_with("&lt;/td&gt;&lt;script&gt;alert(1)"), "{cell}");
}

/// Reads until what came has `needle` in it.
async fn until(socket: &mut TcpStream, told: &mut String, needle: &str) {
    let reading = async {
        while !told.contains(needle) {
            let mut buffer = [0; 4096];
            let length = socket.read(&mut buffer).await.expect("it can be read");
            assert!(length > 0, "the end, and no {needle} in {told}");
            told.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    timeout(Duration::from_secs(30), reading).await.unwrap_or_else(|_| panic!("no {needle} came"));
}

#[tokio::test]
async fn it_streams_over_a_real_socket_and_ends_there() {
    let line = Line::new(fresh());
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is always free");
    let address = listener.local_addr().expect("it listens");
    let server = tokio::spawn(axum::serve(listener, line.router.clone()).into_future());

    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(b"GET /events HTTP/1.1\r\nhost: gateway\r\n\r\n").await.expect("sent");
    let mut told = String::new();
    until(&mut socket, &mut told, "\"version\":\"1.2.3\"").await;
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("retry: 2000\n"), "{told}");
    assert!(told.contains("event: state\ndata: {\""), "{told}");
    line.snapshots.send_replace(at(77.25));
    until(&mut socket, &mut told, "77.25").await;
    assert_eq!(told.matches("event: change\n").count(), 1, "{told}");

    server.abort(); // the agent takes no more requests, and its pipeline ends
    drop(line);
    until(&mut socket, &mut told, "0\r\n\r\n").await; // the last chunk (RFC 9112, 7.1)
}
