//! `/explain`: what is asked reaches the pipeline's queue, and what it says comes back as JSON or as a page.

use gemba::config::Config;
use gemba::http::Refusal;
use gemba::model::{Derived, Line as Model};
use gemba_drivers::Reading;

use super::*;

/// A station whose words are from outside.
const YAML: &str = r#"
site: fab-2
line: smt-1
timezone: Europe/Berlin
shifts: [{ name: early, start: "07:00", end: "15:00" }]
reasons: [{ code: "<b>jam</b>" }]
stations:
  - name: "press <1>"
    source: { type: modbus, endpoint: "tcp://127.0.0.1:1" }
    tags:
      - { name: state, address: "holding:0", as: u16 }
      - { name: total, address: "holding:1", as: u32 }
      - { name: why, address: "holding:3", as: u16 }
    oee:
      ideal_cycle_time: 2s
      state: { tag: state, map: { 1: producing, 5: down } }
      total: { tag: total }
      reasons: [{ tag: why, map: { 7: "<b>jam</b>" } }]
"#;

fn at(seconds: i64) -> Time {
    Time::from_millis((1_772_431_200 + seconds) * 1000) // 2026-03-02T06:00:00Z
}

/// 1000 s of the shift: 300 s down by a jam, 200 parts.
fn model() -> Model {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("line.yaml");
    std::fs::write(&file, YAML).expect("written");
    let mut line = Model::new(&Config::load(&file).expect("a configuration"));
    for (seconds, tag, value) in
        [(0, 0, 1), (0, 1, 0), (500, 0, 5), (500, 2, 7), (800, 0, 1), (900, 1, 200), (1000, 1, 200)]
    {
        let reading = Reading::good(gemba_drivers::TagId(tag), Value::Int(value), at(seconds), at(seconds));
        line.apply(&[reading], &mut Derived::default());
    }
    line
}

/// Answers as the pipeline does, at 1000 s.
fn answer(question: Question, line: &Model) {
    let said = match line.station(&question.station) {
        Some(index) => line.explain(index, &question.selector, at(1000)).map(Box::new).map_err(Refusal::from),
        None => Err(Refusal::NoStation(question.station)),
    };
    let _ = question.answer.send(said);
}

/// Asks, while somebody answers.
async fn asked(path: &str, accept: Option<&str>) -> Answer {
    asked_of(model(), path, accept).await
}

async fn asked_of(model: Model, path: &str, accept: Option<&str>) -> Answer {
    let mut line = Line::new(Snapshot::default());
    let mut questions = std::mem::replace(&mut line.questions, mpsc::channel(1).1);
    let answering = tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            answer(question, &model);
        }
    });
    let said = line.ask(Method::GET, path, accept).await;
    drop(line);
    answering.await.expect("it ends with the page");
    said
}

const STATION: &str = "/explain?station=press%20%3C1%3E";

#[tokio::test]
async fn figures_are_explained_as_json() {
    let said = asked(STATION, None).await;
    assert_eq!((said.code, said.header(header::VARY)), (StatusCode::OK, "accept"));
    let body = said.json();
    assert_eq!((&body["kind"], &body["name"], &body["closed"]), (&"shift".into(), &"early".into(), &false.into()));
    assert_eq!(body["figures"][0]["numerator"]["value"], 400.0);
    assert_eq!(body["figures"][0]["denominator"]["value"], 1000.0);
    assert_eq!(body["kpi"]["oee"], 0.7 * (400.0 / 700.0));
    let fall = &body["waterfall"];
    assert_eq!((&fall["planned_s"], &fall["run_s"], &fall["lost_s"]), (&1000.0.into(), &700.0.into(), &600.0.into()));
    assert_eq!(fall["availability"][0]["reason"], "<b>jam</b>");
    let lengths: Vec<f64> =
        body["pieces"].as_array().expect("a list").iter().filter_map(|of| of["s"].as_f64()).collect();
    assert_eq!(lengths, [500.0, 300.0, 200.0]);
    assert_eq!(body["counts"][0]["parts"], 200);
    for same in ["&shift=2026-03-02/early", "&shift=current", "&hour=2026-03-02/07:00"] {
        let other = asked(&format!("{STATION}{same}"), None).await.json();
        assert_eq!(other["waterfall"], body["waterfall"], "{same}");
    }
}

#[tokio::test]
async fn a_browser_gets_a_page_without_scripts_on_which_names_stay_text() {
    let said = asked(STATION, Some("text/html")).await;
    assert_eq!((said.code, said.header(header::CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(said.header(header::CONTENT_SECURITY_POLICY).contains("default-src 'none'"));
    let page = &said.body;
    assert!(!page.contains("<script") && !page.contains("<b>jam") && !page.contains("press <1>"), "{page}");
    for shown in ["press &lt;1&gt;", "&lt;b&gt;jam&lt;/b&gt;", "40.0\u{a0}%", "vorne", "Known planned time", "06:08:20"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).filter_map(|tag| tag.split('>').next()) {
        let name = tag.split(' ').next().unwrap_or_default();
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{tag}"),
            None if ["!DOCTYPE", "meta", "link"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[tokio::test]
async fn what_people_rejected_is_told_by_code() {
    use gemba::model::{Entry, What};

    let rejected = || {
        let mut line = model();
        let what = What::Rejects { at: at(900), count: 20, code: "<i>dent</i>".into() };
        let entry = Entry { entered: at(950), by: Some("anna".into()), station: "press <1>".into(), what };
        let mut derived = Derived::default();
        line.enter(entry, &mut derived).expect("it is taken");
        line.advance(at(1000), &mut derived);
        line
    };
    let body = asked_of(rejected(), STATION, None).await.json();
    assert_eq!(body["rejected_by_hand"], serde_json::json!({ "<i>dent</i>": 20 }));
    assert_eq!((&body["kpi"]["good"], &body["kpi"]["quality"]), (&180.into(), &0.9.into()));
    let page = asked_of(rejected(), STATION, Some("text/html")).await.body;
    assert!(page.contains("<td>&lt;i&gt;dent&lt;/i&gt;</td><td class=\"n\">20</td>"), "{page}");
    assert!(asked(STATION, None).await.json()["rejected_by_hand"].as_object().is_some_and(serde_json::Map::is_empty));
}

#[tokio::test]
async fn what_cannot_be_asked_or_is_not_there_is_said() {
    for (path, code, words) in [
        ("/explain", 400, "`station` is missing"),
        ("/explain?station=a&shift=early", 400, "`early` names no shift"),
        ("/explain?station=a&hour=now", 400, "`now` names no hour"),
        ("/explain?station=a&lot=1&order=2", 400, "one thing at a time"),
        ("/explain?station=a&shfit=today/early", 400, "no `shfit`"),
        ("/explain?station=press", 404, "no station `press`"),
        ("/explain?station=press%20%3C1%3E&shift=today/late", 404, "no shift `late` starts on 2026-03-02"),
        ("/explain?station=press%20%3C1%3E&lot=A", 404, "no lot `A`"),
    ] {
        let said = asked(path, None).await;
        let body = said.json();
        assert_eq!(said.code.as_u16(), code, "{path}: {body}");
        assert!(body["detail"].as_str().expect("text").contains(words), "{path}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_the_queue_full_or_nobody_there_is_told_to_come_again() {
    let mut line = Line::new(Snapshot::default());
    let asks = (0..MOST_QUESTIONS).map(|_| line.get(STATION));
    // Nobody answers: those that wait give up, and the one that finds no place is told at once.
    let (waited, refused) = tokio::join!(futures::future::join_all(asks), async {
        tokio::task::yield_now().await;
        line.get(STATION).await
    });
    for said in waited.into_iter().chain([refused]) {
        assert_eq!((said.code, said.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    }
    assert_eq!(std::iter::from_fn(|| line.questions.try_recv().ok()).count(), MOST_QUESTIONS);
}
