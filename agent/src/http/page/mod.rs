//! `/health` for people: one page, complete without scripts, calm until something needs somebody.
//!
//! The page is a fixed frame (headings, names, the columns of tables) with *parts* in it: elements with an `id` whose
//! content changes. `/events?as=html` sends the parts that changed, as `{"page":"…","now":"RFC3339","parts":{"id":"html"}}`,
//! and `page.js` puts them in place. `page` stands for the frame: where it is another than the one on the screen, the
//! script loads the page anew. So a value is put into words in one place, here; only ages tick in the browser.

mod card;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::{Arguments, Write};
use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use gemba_drivers::Time;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::events::{Change, Form, Live};
use super::status::{Status, Verdict};
use super::words::{Age, Instant, OrNothing, Parts, Percent, Span, Text};
use super::{Desk, Pipeline, View};

/// `/health/page.css`
pub(super) const STYLE: &str = include_str!("page.css");

/// `/health/page.js`
pub(super) const SCRIPT: &str = include_str!("page.js");

/// Names the two, so that a browser asks for others when they are others.
pub(super) static ASSETS: LazyLock<String> =
    LazyLock::new(|| format!("{:08x}", crc32fast::hash(&[STYLE, SCRIPT].concat().into_bytes())));

/// How many reasons stand above the stations, where all of them can be seen.
const REASONS: usize = 6;

/// The page, or what of it is told to those who have it open.
pub(super) struct Page {
    text: String,
    /// Of `text`: a part's id, and its content. In order, none within another.
    parts: Vec<(Range<usize>, Range<usize>)>,
    now: Time,
    zone: TimeZone,
    /// Whether ages are told. For those who listen they are not: their script lets them tick.
    ages: bool,
}

impl Page {
    /// The page, whole.
    pub(super) fn html(view: &View, verdict: &Verdict) -> String {
        let mut page = Self::body(view, verdict, true);
        let (frame, now, assets) = (page.frame(), milliseconds(page.now), &*ASSETS);
        page.put(format_args!(
            "<script src=\"/health/page.js?v={assets}\" data-page=\"{frame}\" data-now=\"{now}\"></script>\n</body>\n</html>\n"
        ));
        page.text
    }

    fn body(view: &View, verdict: &Verdict, ages: bool) -> Self {
        let text = String::with_capacity(16 * 1024);
        let mut page = Self { text, parts: Vec::new(), now: view.now, zone: view.identity.timezone.clone(), ages };
        page.head(view, verdict);
        page.put(format_args!("<main>\n"));
        page.cards(view, verdict);
        page.tags(view);
        page.losses(view);
        page.ways(view);
        page.put(format_args!("</main>\n"));
        page
    }

    fn head(&mut self, view: &View, verdict: &Verdict) {
        let (site, line, assets) = (Text(&view.identity.site), Text(&view.identity.line), &*ASSETS);
        self.put(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>\n\
             <link rel=\"stylesheet\" href=\"/health/page.css?v={assets}\">\n"
        ));
        self.part("title", format_args!("title"), |page| page.put(format_args!("{line}: {}", verdict.status.word())));
        self.put(format_args!("\n</head>\n<body>\n<header class=\"line\">\n<h1>{line} <small>{site}</small></h1>\n"));
        self.part("p role=\"status\"", format_args!("status"), |page| {
            let (class, word) = (class(verdict.status), verdict.status.word());
            // Of the way from the stations to upstream: a machine may be down while all that is told of it is sound.
            page.put(format_args!("<strong class=\"mark {class}\"><small>data</small> {word}</strong>"));
        });
        self.put(format_args!("\n"));
        self.part("p", format_args!("asof"), |page| page.as_of(view));
        self.put(format_args!("\n</header>\n<p id=\"cut\" hidden><strong role=\"alert\"></strong><span></span></p>\n"));
        self.part("div", format_args!("reasons"), |page| page.reasons(&verdict.reasons));
        self.put(format_args!("\n"));
        self.part("div", format_args!("flow"), |page| page.flow(view));
        self.put(format_args!("\n"));
    }

    fn as_of(&mut self, view: &View) {
        let taken = Some(view.snapshot.time).filter(|&time| time != Time::default());
        let zone = view.identity.timezone.iana_name().unwrap_or("local time");
        self.put(format_args!("as of <b>{}</b>", OrNothing(taken.map(|time| self.at(time, "%H:%M:%S")))));
        if let Some(time) = taken.filter(|_| view.pipeline != Pipeline::Running) {
            self.put(format_args!(", <b class=\"bad\">{} ago</b>", self.age(time)));
        }
        let (version, uptime) = (Text(&view.identity.version), Span(view.uptime));
        self.put(format_args!(" <small>{}, gemba {version}, up for {uptime}</small>", Text(zone)));
    }

    fn reasons(&mut self, reasons: &[String]) {
        if reasons.is_empty() {
            return;
        }
        self.put(format_args!("<ul>"));
        for reason in reasons.iter().take(REASONS) {
            self.put(format_args!("<li>{}</li>", Text(reason)));
        }
        if let Some(others @ 1..) = reasons.len().checked_sub(REASONS) {
            self.put(format_args!("<li>and {others} more, below</li>"));
        }
        self.put(format_args!("</ul>"));
    }

    /// The line as a whole, in a sentence or two; nothing outside shifts, or where no flow is configured.
    fn flow(&mut self, view: &View) {
        let Some(flow) = &view.snapshot.flow else { return };
        let (oee, by) = (OrNothing(flow.oee.map(Percent)), flow.by.word());
        let good = OrNothing(flow.good.map(Parts));
        let first = OrNothing(flow.rolled_yield.map(|of| Percent(of.value)));
        self.put(format_args!(
            "<p class=\"notes\">Line OEE <b>{oee}</b> ({by}), {good} good parts, rolled throughput yield {first}."
        ));
        if let Some(wait) = flow.waits.first() {
            let name = |station: usize| view.snapshot.stations.get(station).map_or("", |of| &of.name);
            let spent = Span(Duration::from_nanos(wait.spent.unsigned_abs()));
            self.put(format_args!(" Longest wait: {} {} for {spent}", Text(name(wait.station)), wait.state.word()));
            if let (Some(cause), Some(state)) = (wait.cause, wait.cause_state) {
                let state = state.word().replace('_', " ");
                self.put(format_args!(", while {} was {state}", Text(name(cause))));
            }
            self.put(format_args!("."));
        }
        self.put(format_args!("</p>"));
    }

    fn put(&mut self, what: Arguments<'_>) {
        self.text.write_fmt(what).expect("writing to memory does not fail");
    }

    /// A part: an element (with its other attributes) of that id.
    fn part(&mut self, element: &str, id: Arguments<'_>, content: impl FnOnce(&mut Self)) {
        self.put(format_args!("<{element} id=\""));
        let id = self.range(|page| page.put(id));
        self.put(format_args!("\">"));
        let content = self.range(content);
        self.parts.push((id, content));
        self.put(format_args!("</{}>", element.split(' ').next().unwrap_or_default()));
    }

    fn range(&mut self, write: impl FnOnce(&mut Self)) -> Range<usize> {
        let start = self.text.len();
        write(self);
        start..self.text.len()
    }

    fn age(&self, since: Time) -> Age {
        Age { since, now: self.ages.then_some(self.now) }
    }

    fn at(&self, at: Time, format: &'static str) -> Instant {
        Instant { at, zone: self.zone.clone(), format }
    }

    /// Stands for all that is in no part, and so cannot be changed part by part.
    fn frame(&self) -> String {
        let mut crc = crc32fast::Hasher::new();
        let mut from = 0;
        for (_, content) in &self.parts {
            crc.update(&self.text.as_bytes()[from..content.start]);
            from = content.end;
        }
        crc.update(&self.text.as_bytes()[from..]);
        format!("{:08x}", crc.finalize())
    }

    /// Ids and contents.
    fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parts.iter().map(|(id, content)| (&self.text[id.clone()], &self.text[content.clone()]))
    }

    fn event<'a>(&self, parts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        #[derive(Serialize)]
        struct Event<'a> {
            page: String,
            now: String,
            parts: BTreeMap<&'a str, &'a str>,
        }
        let event = Event { page: self.frame(), now: milliseconds(self.now), parts: parts.collect() };
        serde_json::to_string(&event).expect("the keys are strings, and writing to memory does not fail")
    }
}

/// As browsers are bound to read it.
fn milliseconds(time: Time) -> String {
    format!("{:.3}", time.timestamp())
}

impl Form for Page {
    fn live(desk: &Desk) -> &Live<Self> {
        &desk.page
    }

    fn of(view: &View, verdict: &Verdict) -> Self {
        Self::body(view, verdict, false)
    }

    fn state(&self) -> String {
        self.event(self.parts())
    }

    fn change(&self, before: &Self) -> Change {
        if self.parts.len() != before.parts.len() || self.parts().zip(before.parts()).any(|(now, then)| now.0 != then.0)
        {
            return Change::Everything;
        }
        let mut changed =
            self.parts().zip(before.parts()).filter(|(now, then)| now != then).map(|(now, _)| now).peekable();
        if changed.peek().is_none() {
            return Change::Nothing;
        }
        Change::Parts(self.event(changed))
    }
}

/// The colour of a status.
fn class(status: Status) -> &'static str {
    match status {
        Status::Healthy => "calm",
        Status::Unknown => "unknown",
        Status::Degraded => "warn",
        Status::Unhealthy => "bad",
    }
}
