//! `/health` for people: one page, complete without scripts, calm until something needs somebody.

use std::fmt::{Arguments, Write};

use gemba_drivers::{LinkPhase, Loss, Time, Validity};

use super::View;
use super::status::{Status, Verdict};
use super::words::{Bytes, Instant, Marked, NOTHING, Number, OrNothing, Percent, Shown, Span, Text};
use crate::model::State;
use crate::snapshot::{KpiView, StationView, TagView};

/// The page, whole.
pub(super) fn html(view: &View, verdict: &Verdict) -> String {
    let mut page = Page { text: String::with_capacity(8 * 1024), now: view.now };
    page.head(view, verdict);
    page.stations(view, verdict);
    page.tags(view);
    page.losses(view);
    page.spool(view);
    page.upstream(view);
    page.put(format_args!("</body>\n</html>\n"));
    page.text
}

/// Colour only where somebody must look, and never colour alone: each has its word beside it.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#222;--soft:#666;--line:#d4d4d0;--paper:#f4f4f1;--red:#b3261e;--yellow:#8a6100;--green:#2f6b3a}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e2;--soft:#a0a09a;--line:#3c3c3a;--paper:#1d1d1c;--red:#ff8a80;--yellow:#e8bf5a;--green:#8fca9b}}\
body{margin:1rem auto;max-width:80rem;padding:0 1rem;background:var(--paper);color:var(--ink);font:1rem/1.4 system-ui,sans-serif}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:1.6rem 0 .3rem}p{margin:.2rem 0}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:baseline}\
thead th{font-weight:normal;color:var(--soft)}tbody th{font-weight:600}\
.n{text-align:right;white-space:nowrap}.oee{font-size:1.6rem}small,.soft{color:var(--soft)}small{display:block;white-space:nowrap}\
.bad{color:var(--red);font-weight:600}.warn{color:var(--yellow);font-weight:600}.run{color:var(--green);font-weight:600}\
.faded{color:var(--soft);font-style:italic}\
.unknown{background:repeating-linear-gradient(45deg,transparent 0 4px,var(--line) 4px 5px)}";

/// How many reasons stand above the tables, where all of them can be seen.
const REASONS: usize = 8;

struct Page {
    text: String,
    now: Time,
}

impl Page {
    fn put(&mut self, what: Arguments<'_>) {
        self.text.write_fmt(what).expect("writing to memory does not fail");
    }

    fn head(&mut self, view: &View, verdict: &Verdict) {
        let (site, line) = (Text(&view.identity.site), Text(&view.identity.line));
        self.put(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"refresh\" content=\"2\">\n\
             <title>{line}: {status}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <h1>{line} <span class=\"soft\">{site}</span> <span class=\"{class}\">{status}</span></h1>\n\
             <p class=\"soft\">gemba {version}, up for {uptime}, as of {taken}</p>\n",
            status = verdict.status.word(),
            class = class(verdict.status),
            version = Text(&view.identity.version),
            uptime = Span(view.uptime),
            taken = OrNothing(Some(view.snapshot.time).filter(|&time| time != Time::default()).map(Instant)),
        ));
        if verdict.reasons.is_empty() {
            return;
        }
        self.put(format_args!("<ul>\n"));
        for reason in verdict.reasons.iter().take(REASONS) {
            self.put(format_args!("<li>{}</li>\n", Text(reason)));
        }
        if let Some(others @ 1..) = verdict.reasons.len().checked_sub(REASONS) {
            self.put(format_args!("<li>and {others} more, in the tables below</li>\n"));
        }
        self.put(format_args!("</ul>\n"));
    }

    fn stations(&mut self, view: &View, verdict: &Verdict) {
        self.table(
            "Stations",
            "<th>Station</th><th>State</th><th>Shift</th><th class=\"n\">OEE</th><th class=\"n\">Availability</th>\
             <th class=\"n\">Performance</th><th class=\"n\">Quality</th><th class=\"n\">Coverage</th>\
             <th class=\"n\">Total</th><th class=\"n\">Good</th><th class=\"n\">Reject</th><th>Link</th>",
        );
        for (station, &status) in view.snapshot.stations.iter().zip(&verdict.stations) {
            self.station(station, status, view);
        }
        self.table_end();
    }

    fn station(&mut self, station: &StationView, status: Status, view: &View) {
        self.put(format_args!("<tr><th scope=\"row\">{}", Text(&station.name)));
        if status != Status::Healthy {
            self.put(format_args!("<small class=\"{}\">{}</small>", class(status), status.word()));
        }
        self.put(format_args!("</th>"));
        self.state(station);
        self.put(format_args!("<td>{}</td>", OrNothing(station.shift.as_deref().map(Text))));
        self.figures(station.kpi.as_ref());
        self.link(station, view);
        self.put(format_args!("</tr>\n"));
    }

    fn state(&mut self, station: &StationView) {
        let class = match station.state {
            None => "soft",
            Some(State::Unknown) => "unknown",
            Some(State::Down) => "bad",
            Some(state) if state.is_run() => "run",
            Some(_) => "",
        };
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        self.put(format_args!("<td{class}>{}", OrNothing(station.state.map(State::word))));
        if let Some(since) = station.state_since {
            self.put(format_args!("<small>for {}</small>", Span(self.now.since(since))));
        }
        self.put(format_args!("</td>"));
    }

    fn figures(&mut self, kpi: Option<&KpiView>) {
        let figures = kpi.map(|kpi| &kpi.figures);
        let percent = |ratio: Option<f64>| OrNothing(ratio.map(Percent));
        let parts = |count: Option<f64>| OrNothing(count.map(Number));
        self.put(format_args!("<td class=\"n\"><span class=\"oee\">{}</span>", percent(figures.and_then(|of| of.oee))));
        if let Some(kpi) = kpi {
            let scheduled = if kpi.scheduled == Some(false) { "not scheduled, " } else { "" };
            self.put(format_args!("<small>{scheduled}for {}</small>", Span(self.now.since(kpi.since))));
        }
        self.put(format_args!(
            "</td><td class=\"n\">{}</td><td class=\"n\">{}",
            percent(figures.and_then(|of| of.availability)),
            percent(figures.and_then(|of| of.performance)),
        ));
        if let Some(hint) = kpi.and_then(KpiView::hint) {
            self.put(format_args!("<small class=\"warn\">{hint}</small>"));
        }
        self.put(format_args!("</td><td class=\"n\">{}", percent(figures.and_then(|of| of.quality))));
        if kpi.is_some_and(|kpi| kpi.quality_assumed && kpi.figures.quality.is_some()) {
            self.put(format_args!("<small>assumed</small>"));
        }
        self.put(format_args!(
            "</td><td class=\"n\">{}</td><td class=\"n\">{}",
            percent(figures.and_then(|of| of.coverage)),
            parts(kpi.and_then(|kpi| kpi.total)),
        ));
        if let Some(kpi) = kpi.filter(|kpi| kpi.unattributed > 0.0) {
            self.put(format_args!("<small>{} unattributed</small>", Number(kpi.unattributed)));
        }
        self.put(format_args!(
            "</td><td class=\"n\">{}</td><td class=\"n\">{}</td>",
            parts(kpi.and_then(|kpi| kpi.good)),
            parts(kpi.and_then(|kpi| kpi.reject)),
        ));
    }

    fn link(&mut self, station: &StationView, view: &View) {
        let Some(link) = view.links.get(station.link) else {
            return self.put(format_args!("<td>{NOTHING}</td>"));
        };
        let class = match link.phase {
            LinkPhase::Connecting => "soft",
            LinkPhase::Connected => "",
            LinkPhase::Disconnected => "warn",
        };
        let (word, age) = (link.phase.word(), Span(self.now.since(link.since)));
        self.put(format_args!("<td>{}<small>for {age}</small>", Marked(class, word)));
        if let Some(error) = link.last_error.as_ref().filter(|_| link.phase != LinkPhase::Connected) {
            self.put(format_args!("<span class=\"soft\">{}</span>", Text(error)));
        }
        self.put(format_args!("</td>"));
    }

    fn tags(&mut self, view: &View) {
        self.table(
            "Tags",
            "<th>Station</th><th>Tag</th><th class=\"n\">Value</th><th>Unit</th><th>Validity</th><th class=\"n\">Age</th>",
        );
        for station in &view.snapshot.stations {
            for tag in &station.tags {
                self.tag(station, tag);
            }
        }
        self.table_end();
    }

    fn tag(&mut self, station: &StationView, tag: &TagView) {
        let (row, class) = match tag.validity {
            Validity::Good => ("", ""),
            Validity::Uncertain(_) => (" class=\"faded\"", "warn"),
            Validity::Bad(_) => (" class=\"faded\"", "bad"),
        };
        self.put(format_args!(
            "<tr{row}><td>{station}</td><th scope=\"row\">{name}</th><td class=\"n\">{value}</td><td>{unit}</td>\
             <td>{validity}",
            station = Text(&station.name),
            name = Text(&tag.name),
            value = Shown(&tag.value),
            unit = OrNothing(tag.unit.as_deref().map(Text)),
            validity = Marked(class, tag.validity.word()),
        ));
        if let Some(why) = tag.validity.status() {
            let code = why.code();
            self.put(format_args!("<small>{} ({} 0x{code:X})</small>", Text(&why.name()), why.protocol()));
        }
        let age = tag.source_time.map(|time| Span(self.now.since(time)));
        self.put(format_args!("</td><td class=\"n\">{}</td></tr>\n", OrNothing(age)));
    }

    fn losses(&mut self, view: &View) {
        let (losses, totals) = (&view.snapshot.losses, &view.snapshot.loss_totals);
        if totals.is_empty() && losses.is_empty() {
            return self.put(format_args!("<h2>Losses</h2>\n<p>Nothing was lost.</p>\n"));
        }
        self.table("Losses, ever", "<th>Source</th><th>Reason</th><th class=\"n\">Count</th>");
        for (source, reason, count) in totals {
            let (source, reason) = (Text(source), Text(reason));
            self.put(format_args!(
                "<tr><th scope=\"row\">{source}</th><td>{reason}</td><td class=\"n\">{count}</td></tr>\n"
            ));
        }
        self.table_end();
        self.table("Newest losses", "<th>Source</th><th>Reason</th><th class=\"n\">Count</th><th>From</th><th>To</th>");
        for Loss { source, from, to, count, reason } in losses {
            self.put(format_args!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{count}</td><td>{}</td><td>{}</td></tr>\n",
                Text(source),
                Text(reason),
                Instant(*from),
                Instant(*to),
            ));
        }
        self.table_end();
    }

    fn spool(&mut self, view: &View) {
        let spool = &view.snapshot.spool;
        self.put(format_args!(
            "<h2>Spool</h2>\n<p>{} readings in {} records wait for upstream, {} on disk.",
            spool.readings,
            spool.records,
            Bytes(spool.bytes),
        ));
        if let Some(oldest) = spool.oldest {
            self.put(format_args!(" The oldest waits for {}.", Span(self.now.since(oldest))));
        }
        if spool.dropped > 0 {
            self.put(format_args!(
                " <span class=\"warn\">{} readings were dropped for want of room.</span>",
                spool.dropped
            ));
        }
        self.put(format_args!("</p>\n"));
        if let Some(error) = &spool.error {
            let held = if spool.full {
                "Nothing can be stored"
            } else {
                "The disk cannot be written, memory holds what comes"
            };
            self.put(format_args!("<p class=\"bad\">{held}: {}</p>\n", Text(error)));
        }
    }

    fn upstream(&mut self, view: &View) {
        use crate::snapshot::UpstreamStatus as Is;
        let upstream = &view.upstream;
        let class = match upstream.status {
            Is::None | Is::Connecting => "soft",
            Is::Connected => "",
            Is::Disconnected => "warn",
            Is::Blocked => "bad",
        };
        self.put(format_args!(
            "<h2>Upstream</h2>\n<p>{} for {}, last accepted: {}; \
             {} requests sent again, {} points refused for good.</p>\n",
            Marked(class, upstream.status.word()),
            Span(self.now.since(upstream.since)),
            OrNothing(upstream.last_success.map(Instant)),
            upstream.retries,
            upstream.rejected,
        ));
        if let Some(error) = &upstream.last_error {
            let label = if upstream.status == Is::Connected { "Last error, since overcome" } else { "Why" };
            self.put(format_args!("<p>{label}: {}</p>\n", Text(error)));
        }
    }

    fn table(&mut self, title: &str, columns: &str) {
        self.put(format_args!(
            "<h2>{title}</h2>\n<div class=\"wide\"><table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n"
        ));
    }

    fn table_end(&mut self) {
        self.put(format_args!("</tbody>\n</table></div>\n"));
    }
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Healthy | Status::Unknown => "soft",
        Status::Degraded => "warn",
        Status::Unhealthy => "bad",
    }
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Status as Why, Value};

    use super::super::fixture::{line, snapshot, well};
    use super::super::{Pipeline, status};
    use super::*;

    fn html(view: &View) -> String {
        super::html(view, &status::judge(view))
    }

    #[test]
    fn the_whole_page() {
        let page = html(&line());
        nested(&page);
        insta::assert_snapshot!(page.replace(STYLE, "…"));
    }

    /// Every element that is opened is closed in turn, and only elements we use are there.
    fn nested(page: &str) {
        let mut open = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a `<` begins a tag");
            let name = tag.split(' ').next().unwrap_or_default();
            match name {
                "!DOCTYPE" | "meta" => {}
                "html" | "head" | "title" | "style" | "body" | "h1" | "h2" | "p" | "ul" | "li" | "div" | "table"
                | "thead" | "tbody" | "tr" | "th" | "td" | "span" | "small" | "time" => open.push(name),
                _ => assert_eq!(open.pop(), name.strip_prefix('/'), "{tag} closes something else, or is not ours"),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
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
        let page = html(&view);
        nested(&page);
        assert!(!page.contains("<script"));
        assert!(page.matches(harmless).count() >= 16, "each of them is shown: {page}");
    }

    #[test]
    fn nothing_known_is_a_dash_and_never_a_nought() {
        let mut view = line();
        snapshot(&mut view).stations.drain(..2);
        let page = html(&view);
        let oven = row(&page, "oven-1");
        assert_eq!(oven.matches(NOTHING).count(), 9, "shift, five ratios, three counts: {oven}");
        assert!(oven.contains("<td class=\"unknown\">unknown<small>for 2\u{a0}min 0\u{a0}s</small>"), "{oven}");
        assert!(!oven.contains("0.0\u{a0}%") && !oven.contains(">0<"), "{oven}");
        let fan = row(&page, "fan");
        assert!(fan.contains("NoData") && fan.matches(NOTHING).count() == 3, "value, unit, age: {fan}");
    }

    fn row<'a>(page: &'a str, name: &str) -> &'a str {
        let needle = format!("<th scope=\"row\">{name}<");
        page.lines().find(|line| line.contains(&needle)).unwrap_or_else(|| panic!("no row {name} in {page}"))
    }

    #[test]
    fn a_line_that_is_well_is_calm() {
        let page = html(&well()).replace(STYLE, "");
        assert!(!page.contains("class=\"bad\"") && !page.contains("class=\"warn\""), "{page}");
        assert!(page.contains("<span class=\"soft\">healthy</span>"));
    }

    #[test]
    fn many_reasons_do_not_bury_the_tables() {
        let mut view = line();
        let snapshot = snapshot(&mut view);
        snapshot.stations = vec![snapshot.stations[2].clone(); 11];
        let page = html(&view);
        assert_eq!(page.matches("<li>").count(), REASONS + 1);
        assert!(page.contains("<li>and 3 more, in the tables below</li>"));
    }

    #[test]
    fn a_stuck_pipeline_says_so_first() {
        let mut view = well();
        view.pipeline = Pipeline::Stuck;
        let page = html(&view);
        assert!(page.contains("<span class=\"bad\">unhealthy</span>") && page.contains(status::STUCK));
    }
}
