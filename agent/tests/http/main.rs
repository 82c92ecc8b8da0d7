//! The local page as its readers meet it: through the router, and over a real socket.

mod entries;
mod events;
mod explain;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use gemba::http::{Identity, MOST_QUESTIONS, MOST_TELLINGS, Question, STUCK_AFTER, Sources, Telling, bind, router};
use gemba::snapshot::{Snapshot, SpoolView, StationView, TagView, UpstreamStatus, UpstreamView};
use gemba_drivers::{LinkPhase, LinkState, OwnStatus, Status, Time, Validity, Value};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tower::ServiceExt;

/// The far ends of what the router reads.
struct Line {
    router: Router,
    snapshots: watch::Sender<Arc<Snapshot>>,
    wanted: Arc<Notify>,
    link: watch::Sender<LinkState>,
    upstream: watch::Sender<UpstreamView>,
    questions: mpsc::Receiver<Question>,
    tellings: mpsc::Receiver<Telling>,
}

impl Line {
    fn new(snapshot: Snapshot) -> Self {
        Self::letting(true, snapshot)
    }

    /// Where nobody may tell anything.
    fn without_entries() -> Self {
        Self::letting(false, Snapshot::default())
    }

    fn letting(entries: bool, snapshot: Snapshot) -> Self {
        let now = Time::now();
        let snapshots = watch::Sender::new(Arc::new(snapshot));
        let link = watch::Sender::new(LinkState { phase: LinkPhase::Connected, ..LinkState::new(now) });
        let upstream = watch::Sender::new(UpstreamView {
            status: UpstreamStatus::Connected,
            since: now,
            last_success: Some(now),
            retries: 0,
            rejected: 0,
            last_error: None,
        });
        let wanted = Arc::new(Notify::new());
        let (asked, questions) = mpsc::channel(MOST_QUESTIONS);
        let (told, tellings) = mpsc::channel(MOST_TELLINGS);
        let router = router(Sources {
            identity: Identity {
                version: "1.2.3".into(),
                site: "fab-2".into(),
                line: "smt-1".into(),
                started: now,
                timezone: jiff::tz::TimeZone::UTC,
            },
            snapshot: snapshots.subscribe(),
            wanted: wanted.clone(),
            links: vec![link.subscribe()],
            upstream: upstream.subscribe(),
            gateway: watch::Sender::default().subscribe(),
            questions: asked,
            entries: entries.then_some(told),
        });
        Self { router, snapshots, wanted, link, upstream, questions, tellings }
    }

    async fn ask(&self, method: Method, path: &str, accept: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let request = request.body(Body::empty()).expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("the router always answers");
        let (head, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        Answer { code: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).expect("UTF-8") }
    }

    /// The answer as it begins; its body may never end.
    async fn open(&self, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("the router always answers")
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }
}

struct Answer {
    code: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn station(name: &str, tags: usize) -> StationView {
    let now = Time::now();
    let tag = |number| TagView {
        name: format!("tag-{number}").into(),
        unit: Some("Cel".into()),
        value: Value::Float(20.5),
        validity: Validity::Good,
        source_time: Some(now),
        received_time: Some(now),
    };
    StationView {
        name: name.into(),
        link: 0,
        state: None,
        state_since: None,
        shift: None,
        rolling: None,
        kpi: None,
        sums: None,
        anomalies: Vec::new(),
        charts: Vec::new(),
        inspection: None,
        tags: (0..tags).map(tag).collect(),
    }
}

fn taken(time: Time) -> Snapshot {
    Snapshot { time, stations: vec![station("oven-1", 1)], ..Snapshot::default() }
}

/// Fresh as long as the clock does not matter: ahead of it by less than what counts as fresh.
fn fresh() -> Snapshot {
    taken(Time::now() + Duration::from_millis(200))
}

#[tokio::test(start_paused = true)]
async fn health_is_json_unless_a_browser_asks() {
    let line = Line::new(fresh());
    for accept in [None, Some("*/*"), Some("application/json")] {
        let answer = line.ask(Method::GET, "/health", accept).await;
        assert_eq!((answer.code, answer.header(header::CONTENT_TYPE)), (StatusCode::OK, "application/json"));
        assert_eq!((answer.header(header::VARY), answer.header(header::CACHE_CONTROL)), ("accept", "no-store"));
        let body = answer.json();
        assert_eq!((&body["status"], &body["stations"][0]["tags"][0]["value"]), (&"healthy".into(), &20.5.into()));
        assert_eq!(
            (&body["version"], &body["site"], &body["line"]),
            (&"1.2.3".into(), &"fab-2".into(), &"smt-1".into())
        );
    }
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = line.ask(Method::GET, "/health", Some(browser)).await;
    assert_eq!((page.code, page.header(header::CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(page.header(header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none';"));
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.contains("script-src 'self'; style-src 'self'; connect-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header(header::VARY), "accept");
    assert!(page.body.starts_with("<!DOCTYPE html>") && page.body.contains("oven-1"), "{}", page.body);
}

#[tokio::test(start_paused = true)]
async fn a_station_called_script_is_only_text() {
    let line = Line::new(Snapshot { stations: vec![station("<script>alert(1)</script>", 1)], ..fresh() });
    let page = line.ask(Method::GET, "/health", Some("text/html")).await;
    assert!(page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.body.contains("<script>"));
    assert_eq!(line.get("/health").await.json()["stations"][0]["name"], "<script>alert(1)</script>");
}

/// What the page names is there, is ours, and is named anew when it is another.
#[tokio::test(start_paused = true)]
async fn the_page_needs_nothing_from_elsewhere() {
    let line = Line::new(fresh());
    let page = line.ask(Method::GET, "/health", Some("text/html")).await.body;
    let named: Vec<&str> = [" src=\"", " href=\""]
        .iter()
        .flat_map(|name| page.split(name).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .filter(|target| !target.starts_with('#'))
        .collect();
    assert_eq!(named.len(), 2, "{named:?}");
    for (path, content_type) in named.into_iter().zip(["text/javascript; charset=utf-8", "text/css; charset=utf-8"]) {
        assert!(path.starts_with("/health/page.") && path.contains("?v="), "{path}");
        let answer = line.get(path).await;
        assert_eq!((answer.code, answer.header(header::CONTENT_TYPE)), (StatusCode::OK, content_type));
        assert!(answer.header(header::CACHE_CONTROL).contains("immutable"));
        assert!(!answer.body.contains("http:") && !answer.body.contains("https:") && !answer.body.contains("@import"));
    }
    let mut tags = page.split('<').filter_map(|rest| rest.split('>').next());
    assert!(!tags.any(|tag| tag.contains(" style=") || tag.contains(" on")), "nothing inline: the policy forbids it");
}

#[tokio::test(start_paused = true)]
async fn degraded_answers_200_and_nothing_stored_503() {
    let line = Line::new(fresh());
    line.link.send_modify(|link| link.phase = LinkPhase::Disconnected);
    line.upstream.send_modify(|upstream| upstream.status = UpstreamStatus::Blocked);
    let answer = line.get("/health").await;
    assert_eq!((answer.code, &answer.json()["status"]), (StatusCode::OK, &"degraded".into()));
    assert_eq!(answer.json()["stations"][0]["link"], "disconnected");

    let spool = SpoolView { error: Some("no space left on device".to_owned()), full: true, ..SpoolView::default() };
    line.snapshots.send_replace(Arc::new(Snapshot { spool, ..fresh() }));
    for accept in ["application/json", "text/html"] {
        let answer = line.ask(Method::GET, "/health", Some(accept)).await;
        assert_eq!(answer.code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.body.contains("no space left on device") && answer.body.contains("oven-1"), "the same body");
    }
    assert_eq!(line.get("/health/live").await.code, StatusCode::OK, "a restart would not help");
    let ready = line.get("/health/ready").await;
    assert_eq!(ready.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["reasons"][0], "nothing can be stored: no space left on device");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_written_is_no_503_while_memory_holds() {
    let spool = SpoolView { error: Some("read-only file system".to_owned()), ..SpoolView::default() };
    let line = Line::new(Snapshot { spool, ..fresh() });
    let health = line.get("/health").await;
    assert_eq!((health.code, &health.json()["status"]), (StatusCode::OK, &"degraded".into()));
    assert_eq!(health.json()["spool"]["error"], "read-only file system");
    assert_eq!(line.get("/health/live").await.code, StatusCode::OK);
    assert_eq!(line.get("/health/ready").await.code, StatusCode::OK);
}

/// Every tag is listed, and one that is bad or doubtful says why, for people and for programs.
#[tokio::test(start_paused = true)]
async fn a_tag_that_is_not_good_says_why() {
    let mut oven = station("oven-1", 4);
    let lost = |status| (Value::Null, Validity::Bad(status));
    (oven.tags[1].value, oven.tags[1].validity) = lost(Status::Opcua(0x8034_0000));
    (oven.tags[2].value, oven.tags[2].validity) = lost(Status::Modbus(2));
    oven.tags[3].validity = Validity::Uncertain(Status::Own(OwnStatus::NoSourceTime));
    let line = Line::new(Snapshot { stations: vec![oven], ..fresh() });

    let health = line.get("/health").await;
    assert_eq!((health.code, &health.json()["status"]), (StatusCode::OK, &"degraded".into()));
    let tags = health.json()["stations"][0]["tags"].clone();
    let told: Vec<_> = tags.as_array().expect("a list").iter().map(|tag| (&tag["value"], &tag["validity"])).collect();
    assert_eq!(
        told,
        [
            (&20.5.into(), &"good".into()),
            (&Json::Null, &"bad".into()),
            (&Json::Null, &"bad".into()),
            (&20.5.into(), &"uncertain".into())
        ]
    );
    for tag in tags.as_array().expect("a list") {
        assert!(tag["source_time"].is_string() && tag["age_ms"].is_u64() && tag["unit"] == "Cel", "{tag}");
    }

    let page = line.ask(Method::GET, "/health", Some("text/html")).await;
    assert_eq!(page.code, StatusCode::OK);
    let row = |tag: &str| {
        let needle = format!("<th scope=\"row\">{tag}<");
        page.body.lines().find(|line| line.contains(&needle)).unwrap_or_else(|| panic!("no row {tag}: {}", page.body))
    };
    for (tag, number, (word, why)) in [
        ("tag-1", 1, ("bad", "BadNodeIdUnknown (opcua 0x80340000)")),
        ("tag-2", 2, ("bad", "IllegalDataAddress (modbus 0x2)")),
        ("tag-3", 3, ("uncertain", "NoSourceTime (gemba 0x9)")),
    ] {
        assert!(row(tag).contains(word) && row(tag).contains(why), "{}", row(tag));
        assert!(why.starts_with(tags[number]["status"]["name"].as_str().expect("a name")), "{tag}");
    }
    assert!(row("tag-0").contains("20.5") && !row("tag-0").contains("<small>"), "a good one needs no reason");
}

#[tokio::test(start_paused = true)]
async fn a_start_is_alive_unknown_and_not_ready() {
    let line = Line::new(Snapshot::default());
    let health = line.get("/health").await;
    assert_eq!((health.code, &health.json()["status"]), (StatusCode::OK, &"unknown".into()));
    assert_eq!(health.json()["time"], Json::Null);
    assert_eq!(line.get("/health/live").await.code, StatusCode::OK);
    let ready = line.get("/health/ready").await;
    assert_eq!((ready.code, &ready.json()["status"]), (StatusCode::SERVICE_UNAVAILABLE, &"unhealthy".into()));
    assert_eq!(ready.json()["reasons"][0], "the pipeline is starting");

    line.snapshots.send_replace(Arc::new(fresh()));
    let ready = line.get("/health/ready").await;
    assert_eq!((ready.code, ready.json()), (StatusCode::OK, serde_json::json!({"status": "healthy", "reasons": []})));
}

#[tokio::test(start_paused = true)]
async fn an_old_snapshot_is_asked_to_be_taken_again() {
    let line = Line::new(taken(Time::now() - Duration::from_secs(3600)));
    let pipeline = async {
        line.wanted.notified().await;
        line.snapshots.send_replace(Arc::new(Snapshot { stations: vec![station("fresh-1", 1)], ..fresh() }));
    };
    let (answer, ()) = tokio::join!(line.get("/health"), pipeline);
    assert_eq!(answer.json()["stations"][0]["name"], "fresh-1");
    assert_eq!(answer.code, StatusCode::OK, "nobody asked for an hour; that is no fault");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_from_the_future_is_asked_to_be_taken_again() {
    let line = Line::new(taken(Time::now() + Duration::from_secs(3600)));
    let pipeline = async {
        line.wanted.notified().await;
        line.snapshots.send_replace(Arc::new(Snapshot { stations: vec![station("fresh-1", 1)], ..fresh() }));
    };
    let (answer, ()) = tokio::join!(line.get("/health"), pipeline);
    assert_eq!(answer.json()["stations"][0]["name"], "fresh-1");
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_answer_for_long_calls_the_pipeline_stuck() {
    let old = Time::now() - Duration::from_secs(60);
    let line = Line::new(taken(old));
    let late = line.get("/health").await;
    assert_eq!((late.code, &late.json()["status"]), (StatusCode::OK, &"healthy".into()), "it may only be slow");
    assert_eq!(late.json()["time"], old.to_string(), "what is there is shown, and its time tells");

    tokio::time::advance(STUCK_AFTER).await;
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = line.get(path).await;
        assert_eq!(
            (answer.code, &answer.json()["status"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"unhealthy".into()),
            "{path}"
        );
        assert!(answer.json()["reasons"][0].as_str().is_some_and(|reason| reason.contains("stuck")), "{path}");
    }
    assert_eq!(line.get("/health").await.json()["stations"][0]["name"], "oven-1", "the same body");
    assert_eq!(line.get("/metrics").await.code, StatusCode::OK);

    line.snapshots.send_replace(Arc::new(fresh()));
    assert_eq!(line.get("/health").await.code, StatusCode::OK, "it moves again");
}

#[tokio::test(start_paused = true)]
async fn an_answer_between_two_requests_ends_the_wait() {
    let line = Line::new(taken(Time::now() - Duration::from_secs(60)));
    line.get("/health").await;
    line.snapshots.send_replace(Arc::new(taken(Time::now() - Duration::from_secs(30))));
    tokio::time::advance(STUCK_AFTER).await;
    assert_eq!(
        line.get("/health").await.code,
        StatusCode::OK,
        "this snapshot was not asked to be taken again until now"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_has_ended_is_stuck_at_once() {
    let Line { router, snapshots, wanted, link, upstream, questions, tellings } = Line::new(fresh());
    let line = Line { router, snapshots: watch::Sender::default(), wanted, link, upstream, questions, tellings };
    drop(snapshots);
    assert_eq!(line.get("/health/live").await.code, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_path_lists_those_there_are() {
    let line = Line::new(fresh());
    for path in ["/", "/healthz", "/health/", "/metrics/x"] {
        let answer = line.get(path).await;
        assert_eq!(answer.code, StatusCode::NOT_FOUND);
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
        let body = answer.json();
        assert_eq!((&body["status"], &body["detail"]), (&404.into(), &format!("there is no {path}").into()));
        for path in body["paths"].as_array().expect("a list") {
            let path = path.as_str().expect("a path");
            assert_ne!(line.open(path).await.status(), StatusCode::NOT_FOUND, "{path} exists");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_method_is_told_the_right_ones() {
    let line = Line::new(fresh());
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        let answer = line.ask(method.clone(), "/health", None).await;
        assert_eq!((answer.code, answer.header(header::ALLOW)), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD"));
        assert_eq!(answer.headers.get_all(header::ALLOW).iter().count(), 1);
        assert_eq!(answer.json()["detail"], format!("/health takes GET and HEAD, not {method}"));
    }
    let head = line.ask(Method::HEAD, "/health", None).await;
    assert_eq!((head.code, head.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test(start_paused = true)]
async fn metrics_are_text_of_version_0_0_4() {
    let line = Line::new(fresh());
    let answer = line.ask(Method::GET, "/metrics", Some("application/openmetrics-text;version=1.0.0,*/*;q=0.1")).await;
    assert_eq!(answer.code, StatusCode::OK);
    assert_eq!(answer.header(header::CONTENT_TYPE), "text/plain; version=0.0.4; charset=utf-8");
    let sample = "factory_tag_value{factory_station=\"oven-1\",factory_tag=\"tag-0\",unit=\"Cel\"} 20.5\n";
    assert!(answer.body.contains(sample), "{}", answer.body);
}

/// Prometheus's own judgement, where it is installed.
#[tokio::test(start_paused = true)]
async fn promtool_finds_nothing() {
    let page =
        Line::new(Snapshot { loss_totals: vec![("a".into(), "b".into(), 1)], ..fresh() }).get("/metrics").await.body;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: no promtool on this machine");
        return;
    };
    let mut input = promtool.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, page.as_bytes()).expect("promtool reads its input");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let found = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && found.is_empty(), "{found}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tags_are_all_there() {
    let stations = (0..100).map(|number| station(&format!("station-{number}"), 100)).collect();
    let line = Line::new(Snapshot { stations, ..fresh() });
    let body = line.get("/health").await.json();
    let tags =
        body["stations"].as_array().expect("a list").iter().map(|station| station["tags"].as_array().map(Vec::len));
    assert_eq!(tags.map(Option::unwrap_or_default).sum::<usize>(), 10_000);
    let text = line.get("/metrics").await.body;
    assert_eq!(text.lines().filter(|line| line.starts_with("factory_tag_value{")).count(), 10_000);
    let page = line.ask(Method::GET, "/health", Some("text/html")).await.body;
    assert_eq!(page.matches("<th scope=\"row\">tag-").count(), 10_000);
}

#[tokio::test]
async fn it_is_served_over_a_real_socket() {
    let line = Line::new(fresh());
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is always free");
    let address = listener.local_addr().expect("it listens");
    let server = tokio::spawn(axum::serve(listener, line.router.clone()).into_future());

    let mut socket = TcpStream::connect(address).await.expect("it listens");
    socket.write_all(b"GET /health/live HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut head = head.lines();
    assert_eq!(head.next(), Some("HTTP/1.1 200 OK"));
    let headers: HashMap<_, _> = head.filter_map(|line| line.split_once(": ")).collect();
    assert_eq!(headers.get("content-type"), Some(&"application/json"));
    assert_eq!(body, r#"{"status":"healthy","reasons":[]}"#);
    server.abort();
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let held = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("port 0 is always free");
    let address = held.local_addr().expect("it listens");
    let error = bind(address).await.expect_err("it is taken");
    assert_eq!(error.to_string(), format!("{address} is in use by another program; set http.listen to another port"));
}

#[tokio::test]
async fn an_address_of_another_machine_is_named_with_the_way_out() {
    // TEST-NET-1 (RFC 5737) is nobody's
    let error = bind(SocketAddr::from(([192, 0, 2, 1], 8080))).await.expect_err("it is not ours");
    let expected = "192.0.2.1 is no address of this machine; set http.listen to one that is, or to 0.0.0.0:8080";
    assert_eq!(error.to_string(), expected);
}
