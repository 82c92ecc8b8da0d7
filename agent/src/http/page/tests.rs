use std::process::{Command, Stdio};
use std::time::Duration;

use gemba_drivers::{OwnStatus, Status as Why, Validity, Value};
use serde_json::Value as Json;

use super::super::fixture::{at, line, snapshot, watched, well};
use super::super::status;
use super::super::words::NOTHING;
use super::*;
use crate::snapshot::{GatewayView, UpstreamStatus};

fn html(view: &View) -> String {
    Page::html(view, &status::judge(view))
}

fn page(view: &View) -> Page {
    Page::of(view, &status::judge(view))
}

#[test]
fn the_whole_page() {
    let view = line();
    let whole = html(&view);
    nested(&whole);
    let frame = page(&view).frame();
    assert!(whole.contains(&frame));
    insta::assert_snapshot!(whole.replace(&*ASSETS, "…").replace(&frame, "…"));
}

/// Every element that is opened is closed in turn, and only elements we use are there.
fn nested(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a `<` begins a tag");
        let name = tag.split(' ').next().unwrap_or_default();
        match name {
            "!DOCTYPE" | "meta" | "link" => {}
            "html" | "head" | "title" | "noscript" | "script" | "body" | "header" | "main" | "footer" | "section"
            | "article" | "h1" | "h2" | "h3" | "p" | "ul" | "li" | "dl" | "dt" | "dd" | "div" | "details"
            | "summary" | "table" | "thead" | "tbody" | "tr" | "th" | "td" | "span" | "small" | "strong" | "b"
            | "i" | "a" | "time" | "svg" | "rect" => open.push(name),
            _ => assert_eq!(open.pop(), name.strip_prefix('/'), "{tag} closes something else, or is not ours"),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn the_line_as_a_whole_stands_above_its_stations() {
    use crate::model::quality::Ratio;
    use crate::model::{FlowView, LineBy, State, Wait};
    let mut view = line();
    let wait = Wait {
        station: 1,
        state: State::Starved,
        cause: Some(0),
        cause_state: Some(State::Down),
        reason: None,
        spent: 125_000_000_000,
    };
    snapshot(&mut view).flow = Some(FlowView {
        shift: "early".into(),
        from: at("2026-11-02T05:00:00Z"),
        to: at("2026-11-02T12:00:00Z"),
        by: LineBy::Constraint,
        oee: Some(0.742),
        good: Some(1757.0),
        good_ideal_ns: None,
        planned_ns: 1,
        coverage: Some(1.0),
        rolled_yield: Ratio::of(97.0, 100.0),
        waits: vec![wait],
    });
    let whole = html(&view);
    nested(&whole);
    let said =
        whole.split("<div id=\"flow\">").nth(1).and_then(|rest| rest.split("</div>").next()).expect("it is there");
    insta::assert_snapshot!(said);
}

#[test]
fn names_from_outside_stay_text() {
    let evil = "<script>alert('x')</script>\"&";
    let harmless = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;";
    let mut view = line();
    (view.identity.site, view.identity.line, view.identity.version) = (evil.into(), evil.into(), evil.into());
    view.links[2].last_error = Some(evil.to_owned());
    view.upstream.last_error = Some(evil.to_owned());
    let snapshot = snapshot(&mut view);
    snapshot.spool.error = Some(evil.to_owned());
    snapshot.losses[0].source = evil.into();
    snapshot.losses[0].reason = evil.into();
    snapshot.loss_totals[0] = (evil.into(), evil.into(), 1);
    let station = &mut snapshot.stations[0];
    (station.name, station.shift) = (evil.into(), Some(evil.into()));
    let tag = &mut station.tags[0];
    (tag.name, tag.unit, tag.value) = (evil.into(), Some(evil.into()), Value::Text(evil.into()));
    tag.validity = Validity::Uncertain(Why::Own(OwnStatus::Unspecified));
    let whole = html(&view);
    nested(&whole);
    assert!(!whole.contains("<script>") && !whole.contains("\"x"), "{whole}");
    assert!(whole.matches(harmless).count() >= 17, "each of them is shown: {whole}");
    let told: Json = serde_json::from_str(&page(&view).state()).expect("JSON");
    for (id, part) in told["parts"].as_object().expect("an object") {
        assert!(!part.as_str().expect("text").contains("<script"), "{id}: {part}");
    }
}

#[test]
fn nothing_known_is_a_dash_and_never_a_nought() {
    let mut view = line();
    snapshot(&mut view).stations.drain(..2);
    let whole = html(&view);
    let oven = card(&whole, "oven-1");
    assert_eq!(oven.matches(NOTHING).count(), 4, "OEE and its three ratios: {oven}");
    assert!(oven.contains("class=\"state unknown\"><strong>unknown</strong>") && oven.contains("2\u{a0}min 0\u{a0}s"));
    assert_eq!(oven.matches(" class=\"unknown\"").count(), 4, "hatched: {oven}");
    assert!(!oven.contains("0.0\u{a0}%") && !oven.contains(">0<"), "{oven}");
    let fan = whole.lines().find(|line| line.contains("<th scope=\"row\">fan<")).expect("its row");
    assert!(fan.contains("NoData") && fan.matches(NOTHING).count() == 2, "value, age: {fan}");
}

fn card<'a>(whole: &'a str, name: &str) -> &'a str {
    let cards = whole.split("<article ").skip(1).filter_map(|card| card.split("</article>").next());
    cards.into_iter().find(|card| card.contains(&format!(">{name}</h2>"))).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_line_that_is_well_is_calm() {
    let whole = html(&well());
    for loud in ["bad", "warn", "act", "unknown", "faded"] {
        let quiet = !whole.contains(&format!("class=\"{loud}")) && !whole.contains(&format!(" {loud}\""));
        assert!(quiet || loud == "unknown", "{loud}: {whole}");
    }
    assert_eq!(whole.matches("class=\"unknown\"").count(), 1, "the gateway has no thermometer");
    assert!(whole.contains("<strong class=\"mark calm\"><small>data</small> healthy</strong>"));
}

#[test]
fn target_actual_and_what_lies_between() {
    let whole = html(&line());
    let printer = card(&whole, "printer-1").replace('\u{202f}', " ");
    for (name, value) in [("Target", "19 500"), ("Actual", "19 271"), ("Difference", "−241"), ("Reject", "423")] {
        assert!(printer.contains(&format!("<dt>{name}</dt><dd>{value}</dd>")), "{name}: {printer}");
    }
    assert!(printer.contains("12 made while nobody saw, not in the difference."), "{printer}");
    assert!(printer.contains("<dt>Stopped</dt><dd class=\"time\">1\u{a0}h 37\u{a0}min</dd>"), "{printer}");
    assert!(
        printer.contains("figures since <time datetime=\"2026-11-02T05:00:00.000Z\">06:00</time>"),
        "Berlin: {printer}"
    );
}

#[test]
fn a_state_has_its_word_and_its_colour() {
    use crate::model::State;
    for state in State::ALL {
        let colour = match state {
            State::Unknown => "unknown",
            State::Down => "bad",
            State::Producing => "run",
            State::Slow | State::Starved | State::Blocked => "warn",
            _ => "calm",
        };
        let mut view = well();
        snapshot(&mut view).stations[0].state = Some(state);
        let word = state.word().replace('_', " ");
        assert!(html(&view).contains(&format!("<p class=\"state {colour}\"><strong>{word}</strong> <span>for <time")));
    }
}

#[test]
fn what_the_gateway_does_not_tell_is_unknown() {
    let mut view = well();
    view.gateway = GatewayView::default();
    let whole = html(&view);
    assert_eq!(whole.matches("<dd><span class=\"unknown\">unknown</span></dd>").count(), 7, "{whole}");
    view.upstream.status = UpstreamStatus::Blocked;
    assert!(html(&view).contains("<b class=\"act\">blocked</b>"), "somebody must act");
}

#[test]
fn many_reasons_do_not_bury_the_stations() {
    let mut view = line();
    let snapshot = snapshot(&mut view);
    snapshot.stations = vec![snapshot.stations[2].clone(); 11];
    let whole = html(&view);
    assert_eq!(whole.matches("<li>").count(), REASONS + 1);
    assert!(whole.contains("<li>and 5 more, below</li>"));
}

#[test]
fn a_stuck_pipeline_says_so_first() {
    let mut view = well();
    view.pipeline = Pipeline::Stuck;
    let whole = html(&view);
    assert!(
        whole.contains("<strong class=\"mark bad\"><small>data</small> unhealthy</strong>")
            && whole.contains(status::STUCK)
    );
}

/// Ids of the parts that are told from one view to the next.
fn told(before: &View, after: &View) -> Vec<String> {
    match page(after).change(&page(before)) {
        Change::Nothing => Vec::new(),
        Change::Everything => vec!["everything".to_owned()],
        Change::Parts(data) => {
            let data: Json = serde_json::from_str(&data).expect("JSON");
            data["parts"].as_object().expect("an object").keys().cloned().collect()
        }
    }
}

#[test]
fn only_what_reads_otherwise_is_told() {
    let before = line();
    assert_eq!(told(&before, &line()), Vec::<String>::new());
    let changed = |change: fn(&mut View)| {
        let mut after = line();
        change(&mut after);
        told(&before, &after)
    };
    assert_eq!(
        changed(|view| view.now = view.now + Duration::from_secs(3600)),
        Vec::<String>::new(),
        "ages tick there"
    );
    assert_eq!(changed(|view| view.uptime += Duration::from_secs(60)), ["asof"]);
    assert_eq!(changed(|view| snapshot(view).stations[0].tags[2].value = Value::Float(61.3)), Vec::<String>::new());
    assert_eq!(changed(|view| snapshot(view).stations[0].tags[2].value = Value::Float(61.4)), ["t0-2v"]);
    assert_eq!(
        changed(|view| snapshot(view).stations[1].tags[0].source_time = Some(at("2026-11-02T12:00:00Z"))),
        ["t1-0a"]
    );
    assert_eq!(changed(|view| view.gateway.cpu = None), ["gateway"]);
    assert_eq!(changed(|view| snapshot(view).stations.truncate(1)), ["everything"]);
}

#[test]
fn the_frame_stays_as_long_as_parts_can_say_it_all() {
    let (before, mut after) = (line(), line());
    after.now = after.now + Duration::from_secs(7);
    after.pipeline = Pipeline::Stuck;
    after.upstream.status = UpstreamStatus::Blocked;
    after.links[0].phase = gemba_drivers::LinkPhase::Disconnected;
    let of = snapshot(&mut after);
    of.losses.clear();
    of.stations[0].kpi = None;
    of.stations[0].tags[0].validity = Validity::Bad(Why::Own(OwnStatus::LinkLost));
    assert_eq!(page(&after).frame(), page(&before).frame());
    snapshot(&mut after).stations[0].name = "printer-2".into();
    assert_ne!(page(&after).frame(), page(&before).frame(), "then the script loads the page anew");
}

/// The one thing that is put into words in two places. Needs Node.js; where there is none it is passed over.
#[test]
fn the_script_says_ages_as_we_do() {
    let spans: Vec<u64> = [0, 99, 1_999, 9_999, 10_000, 59_999, 60_000, 3_599_999, 3_600_000, 86_399_999, 183_600_000]
        .into_iter()
        .collect();
    let function = SCRIPT.split("\n(() =>").next().expect("the function stands before the rest");
    let script = format!("{function}\nconsole.log(JSON.stringify({spans:?}.map(span)))");
    let Ok(output) = Command::new("node").args(["-e", &script]).stderr(Stdio::inherit()).output() else {
        eprintln!("skipped: no node on this machine");
        return;
    };
    let said: Vec<String> = serde_json::from_slice(&output.stdout).expect("JSON");
    let ours: Vec<String> = spans.iter().map(|&ms| Span(Duration::from_millis(ms)).to_string()).collect();
    assert_eq!(said, ours);
}

#[test]
fn what_is_out_of_the_ordinary_is_said_in_words() {
    let text = page(&watched()).text;
    let card = &text[text.find("id=\"s3-watched\"").expect("the scale is watched")..];
    assert!(card.contains("warning anomaly</b> of mass for ") && card.contains("(heavy)"), "{card}");
    assert!(card.contains("out of control</b> by chart mass: a point beyond 3 sigma"), "{card}");
    assert!(!page(&line()).text.contains("-watched"), "where nothing is watched there is no such part");
}
