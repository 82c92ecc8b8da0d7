//! `/entries`: what is told reaches the pipeline's queue once it is sound, and its answer comes back; nothing else gets in.

use gemba::config::Config;
use gemba::http::NotTaken;
use gemba::model::{Derived, Entry, Line as Model};
use gemba_drivers::{Reading, TagId};
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;

const YAML: &str = r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
reasons: [{ code: feeder-jam }]
stations:
  - name: press-1
    source: { type: modbus, endpoint: "tcp://127.0.0.1:1" }
    tags: [{ name: state, address: "holding:0", as: u16 }]
    oee: { state: { tag: state, map: { 1: producing, 5: down } } }
  - name: press-2
    source: { type: modbus, endpoint: "tcp://127.0.0.1:1", unit: 2 }
    tags: [{ name: state, address: "holding:0", as: u16 }]
    oee: { state: { tag: state, map: { 1: producing, 5: down } } }
"#;

/// 2026-03-02T06:00:00Z
fn at(seconds: i64) -> Time {
    Time::from_millis((1_772_431_200 + seconds) * 1000)
}

/// One that has heard of `press-1` for 1000 s, and of `press-2` nothing.
fn model() -> Model {
    let mut line = Model::new(&Config::from_str("line.yaml", YAML).expect("a configuration"));
    for (seconds, value) in [(0, 1), (500, 5), (800, 1), (1000, 1)] {
        let reading = Reading::good(TagId(0), Value::Int(value), at(seconds), at(seconds));
        line.apply(&[reading], &mut Derived::default());
    }
    line
}

/// Takes entries as the pipeline does, at 1000 s; returns those that it took.
fn hearing(line: &mut Line) -> JoinHandle<Vec<Arc<Entry>>> {
    let mut tellings = std::mem::replace(&mut line.tellings, mpsc::channel(1).1);
    tokio::spawn(async move {
        let mut model = model();
        while let Some(telling) = tellings.recv().await {
            let Some((entry, answer)) = telling.begin() else { continue };
            let told = entry.resolve(at(1000)).map_err(NotTaken::Wrong).and_then(|entry| {
                let entry = Arc::new(entry);
                model.enter(entry.clone(), &mut Derived::default())?;
                Ok(entry)
            });
            let _ = answer.send(told);
        }
        model.entries().cloned().collect()
    })
}

/// A request with a body and these headers.
async fn post(line: &Line, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = Request::post("/entries");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.into()).expect("a request");
    let answer = line.router.clone().oneshot(request).await.expect("the router always answers");
    let (head, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    Answer { code: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).expect("UTF-8") }
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Tells it, while somebody hears it. And what was taken.
async fn told(headers: &[(&str, &str)], body: impl Into<Body>) -> (Answer, Vec<Arc<Entry>>) {
    let mut line = Line::new(Snapshot::default());
    let taken = hearing(&mut line);
    let said = post(&line, headers, body).await;
    drop(line);
    (said, taken.await.expect("it ends with the page"))
}

fn entry(station: &str, kind: &str, what: &Json) -> String {
    json!({ "station": station, "by": "anna", kind: what }).to_string()
}

fn reason(code: &str) -> String {
    let what = json!({ "from": at(500).to_string(), "to": at(800).to_string(), "code": code });
    entry("press-1", "reason", &what)
}

#[tokio::test]
async fn what_is_told_is_taken_and_shown_as_it_is_stored() {
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        let (said, taken) = told(&[("content-type", content_type)], reason("feeder-jam")).await;
        assert_eq!((said.code, said.header(header::CONTENT_TYPE)), (StatusCode::CREATED, "application/json"));
        let expected = json!({
            "entered": "2026-03-02T06:16:40Z", "by": "anna", "station": "press-1",
            "reason": { "from": "2026-03-02T06:08:20Z", "to": "2026-03-02T06:13:20Z", "code": "feeder-jam" },
            "in_words": "stood from 2026-03-02T06:08:20Z to 2026-03-02T06:13:20Z because of feeder-jam",
        });
        assert_eq!(said.json(), expected);
        assert_eq!(taken.len(), 1);
    }
    let (said, _) = told(&[JSON], entry("press-1", "work", &json!({ "lot": "4711", "order": null }))).await;
    assert_eq!(said.json()["work"], json!({ "at": "2026-03-02T06:16:40Z", "lot": "4711", "order": null }));
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_is_taken() {
    let deep = "[".repeat(4000);
    let reason = |from: i64, to: i64, code: &str| {
        entry("press-1", "reason", &json!({ "from": at(from).to_string(), "to": at(to).to_string(), "code": code }))
    };
    let rejects = |count: &Json| entry("press-1", "rejects", &json!({ "count": count, "code": "scratch" }));
    let anomaly = json!({ "id": "press-1/state/high@2026-03-02T06:00:00Z", "verdict": "confirmed" });
    for (body, code, words) in [
        (String::new(), 400, "one JSON object"),
        ("{".to_owned(), 400, "EOF while parsing"),
        (deep.clone(), 400, "one JSON object"),
        (format!(r#"{{"station":"press-1","by":"anna","work":{deep}}}"#), 400, "invalid type: sequence"),
        (r#"[null, "anna", "press-1", null, { "lot": "7" }, null, null, null]"#.to_owned(), 400, "one JSON object"),
        ("null".to_owned(), 400, "one JSON object"),
        ("\u{feff}{}".to_owned(), 400, "one JSON object"),
        (format!("{}\n{}", rejects(&json!(1)), rejects(&json!(1))), 400, "trailing characters"),
        (r#"{"station":"press-1","station":"press-1","by":"a","rejects":{"count":1,"code":"a"}}"#.to_owned(), 400, "duplicate field"),
        (r#"{"by":"anna"}"#.to_owned(), 400, "missing field `station`"),
        (json!({ "station": "press-1", "rejects": { "count": 1, "code": "a" } }).to_string(), 400, "`by` is missing"),
        (json!({ "station": "press-1", "by": "anna" }).to_string(), 400, "an entry is one of reason, work, target, rejects and anomaly"),
        (
            json!({ "station": "press-1", "by": "anna", "entered": at(0).to_string(), "rejects": { "count": 1, "code": "a" } }).to_string(),
            400,
            "`entered` is the gateway's to say",
        ),
        (entry("press-1", "reasons", &json!({})), 400, "unknown field `reasons`"),
        (rejects(&json!(1.5)), 400, "expected i64"),
        (rejects(&json!(1e300)), 400, "expected i64"),
        (rejects(&json!(0)), 422, "`count` is a whole number"),
        (rejects(&json!(i64::MIN)), 422, "`count` is a whole number"),
        (entry("press-1", "target", &json!({ "parts_per_hour": -1 })), 400, "above 0"),
        (entry("press-1", "work", &json!({})), 422, "says nothing"),
        (entry("press-1", "work", &json!({ "lot": "\u{202e}\u{0}" })), 422, "control characters"),
        (entry("press-1", "work", &json!({ "lot": "x".repeat(101) })), 422, "longer than 100"),
        (entry("pres-1", "work", &json!({ "lot": "7" })), 422, "there is no station `pres-1`; did you mean `press-1`?"),
        (reason(500, 800, "feeder-jim"), 422, "there is no reason `feeder-jim`; did you mean `feeder-jam`?"),
        (reason(800, 500, "feeder-jam"), 422, "is not after `from`"),
        (reason(2000, 2100, "feeder-jam"), 409, "lies in the future"),
        (reason(-500, -100, "feeder-jam"), 409, "ends before `press-1` was first observed"),
        (entry("press-2", "work", &json!({ "lot": "7" })), 409, "`press-2` has told nothing yet"),
        (entry("press-1", "anomaly", &anomaly), 422, "there is no detector `high`"),
    ] {
        let (said, taken) = told(&[JSON], body.clone()).await;
        assert_eq!((said.code.as_u16(), said.header(header::CONTENT_TYPE)), (code, "application/problem+json"), "{body}: {}", said.body);
        let detail = said.json()["detail"].as_str().expect("text").to_owned();
        assert!(detail.contains(words), "{body}: {detail}");
        assert_eq!(taken, [], "{body}");
    }
    let (said, taken) = told(&[JSON], vec![b'"', 0xff, b'"']).await;
    assert_eq!((said.code, taken.len()), (StatusCode::BAD_REQUEST, 0));
}

#[tokio::test]
async fn only_json_of_a_sensible_size_is_read() {
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "text/plain; application/json")],
    ] {
        let (said, taken) = told(headers, reason("feeder-jam")).await;
        assert_eq!((said.code, taken.len()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, 0), "{headers:?}");
    }
    let long = reason("feeder-jam") + &" ".repeat(16 << 10);
    let (said, taken) = told(&[JSON], long.clone()).await;
    assert_eq!((said.code, taken.len()), (StatusCode::PAYLOAD_TOO_LARGE, 0));
    assert_eq!(said.json()["detail"], "an entry has at most 16384 bytes");
    let pieces = futures::stream::iter(long.into_bytes().into_iter().map(|byte| Ok::<_, std::io::Error>(vec![byte])));
    let (said, _) = told(&[JSON], Body::from_stream(pieces)).await;
    assert_eq!(said.code, StatusCode::PAYLOAD_TOO_LARGE, "nor does it help not to say how long it is");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_is_not_waited_for() {
    let (said, taken) =
        told(&[JSON], Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>())).await;
    assert_eq!((said.code, taken.len()), (StatusCode::REQUEST_TIMEOUT, 0));
}

#[tokio::test]
async fn a_page_of_another_site_tells_nothing() {
    for foreign in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let (said, taken) = told(&[JSON, ("host", "gateway:8080"), foreign], reason("feeder-jam")).await;
        assert_eq!((said.code, taken.len()), (StatusCode::FORBIDDEN, 0), "{foreign:?}");
        assert_eq!(said.json()["detail"], "a page of another site may not tell anything here");
    }
    let own = [JSON, ("host", "gateway:8080"), ("origin", "http://gateway:8080")];
    assert_eq!(told(&own, reason("feeder-jam")).await.0.code, StatusCode::CREATED);
    // What a browser asks before it lets such a page send JSON.
    let mut line = Line::new(Snapshot::default());
    let preflight = line.ask(Method::OPTIONS, "/entries", None).await;
    assert_eq!((preflight.code, preflight.header(header::ALLOW)), (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD,POST"));
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control-")));
    assert!(line.tellings.try_recv().is_err());
}

#[tokio::test]
async fn where_nobody_may_the_option_that_lets_people_is_named() {
    let line = Line::without_entries();
    let said = post(&line, &[JSON], reason("feeder-jam")).await;
    assert_eq!(said.code, StatusCode::FORBIDDEN);
    assert!(said.json()["detail"].as_str().expect("text").contains("`http.entries: true`"), "{}", said.body);
}

/// What is not begun in time never is; what is begun is waited for, however long the disk takes.
#[tokio::test(start_paused = true)]
async fn who_is_told_that_nothing_was_taken_can_rely_on_it() {
    let mut line = Line::new(Snapshot::default());
    let tells = (0..MOST_TELLINGS).map(|_| post(&line, &[JSON], reason("feeder-jam")));
    let (waited, refused) = tokio::join!(futures::future::join_all(tells), async {
        tokio::task::yield_now().await;
        post(&line, &[JSON], reason("feeder-jam")).await
    });
    for said in waited.into_iter().chain([refused]) {
        assert_eq!((said.code, said.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert!(said.json()["detail"].as_str().expect("text").contains("nothing was taken"), "{}", said.body);
    }
    let late: Vec<Telling> = std::iter::from_fn(|| line.tellings.try_recv().ok()).collect();
    assert_eq!(late.len(), MOST_TELLINGS);
    assert!(late.into_iter().all(|telling| telling.begin().is_none()), "they have given up");

    let mut tellings = std::mem::replace(&mut line.tellings, mpsc::channel(1).1);
    let slow = async {
        let (entry, answer) = tellings.recv().await.expect("a telling").begin().expect("somebody waits");
        tokio::time::sleep(Duration::from_secs(600)).await;
        let _ = answer.send(Ok(entry.resolve(at(1000)).expect("an entry").into()));
    };
    let (said, ()) = tokio::join!(post(&line, &[JSON], reason("feeder-jam")), slow);
    assert_eq!(said.code, StatusCode::CREATED);
}

#[tokio::test]
async fn a_pipeline_that_cannot_store_or_has_gone_is_503() {
    let mut line = Line::new(Snapshot::default());
    let mut tellings = std::mem::replace(&mut line.tellings, mpsc::channel(1).1);
    let failing = async {
        let (_, answer) = tellings.recv().await.expect("a telling").begin().expect("somebody waits");
        let _ = answer.send(Err(NotTaken::Unstored("no space left on device".to_owned())));
        // The next one meets a fault in the midst of it, and the last one nobody at all.
        drop(tellings.recv().await.expect("a telling").begin().expect("somebody waits"));
        drop(tellings);
    };
    let asks = async {
        [
            post(&line, &[JSON], reason("feeder-jam")).await,
            post(&line, &[JSON], reason("feeder-jam")).await,
            post(&line, &[JSON], reason("feeder-jam")).await,
        ]
    };
    let (said, ()) = tokio::join!(asks, failing);
    for (said, words) in said.iter().zip(["no space left on device", "in the midst of it", "nothing was taken"]) {
        assert_eq!((said.code, said.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        assert!(said.json()["detail"].as_str().expect("text").contains(words), "{}", said.body);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_are_listed_newest_first_as_of_now() {
    let line = Line::without_entries();
    line.snapshots.send_replace(Arc::new(fresh()));
    let mut model = model();
    for (seconds, lot) in [(900, "1"), (950, "2")] {
        let told = json!({ "station": "press-1", "by": "anna", "work": { "lot": lot } });
        let entry: gemba::entries::EntryJson = serde_json::from_value(told).expect("an entry");
        model.enter(entry.resolve(at(seconds)).expect("an entry"), &mut Derived::default()).expect("it is taken");
    }
    let pipeline = async {
        line.wanted.notified().await;
        line.snapshots.send_replace(Arc::new(model.snapshot(Time::now(), SpoolView::default())));
    };
    let (said, ()) = tokio::join!(line.get("/entries"), pipeline);
    assert_eq!((said.code, said.header(header::CACHE_CONTROL)), (StatusCode::OK, "no-store"));
    let list = said.json()["entries"].clone();
    let lots: Vec<_> = list.as_array().expect("a list").iter().map(|entry| &entry["work"]["lot"]).collect();
    assert_eq!(lots, ["2", "1"]);
    assert_eq!(list[0]["in_words"], "lot 2 from 2026-03-02T06:15:50Z on");
}
