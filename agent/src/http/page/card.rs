//! A station at a glance: what it does and for how long, its OEE and why, its parts.

use std::fmt::{self, Display};
use std::time::Duration;

use gemba_drivers::LinkPhase;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::View;
use super::super::status::{Status, Verdict};
use super::super::words::{Ahead, NOTHING, OrNothing, Parts, Percent, Span, Text};
use super::Page;
use crate::model::State;
use crate::snapshot::{KpiView, StationView};

impl Page {
    pub(super) fn cards(&mut self, view: &View, verdict: &Verdict) {
        self.put(format_args!("<section class=\"cards\" aria-label=\"Stations\">\n"));
        for (place, station) in view.snapshot.stations.iter().enumerate() {
            let status = verdict.stations.get(place).copied().unwrap_or(Status::Unknown);
            self.card(place, station, status, view);
        }
        self.put(format_args!("</section>\n"));
    }

    fn card(&mut self, place: usize, station: &StationView, status: Status, view: &View) {
        let cut = view.links.get(station.link).is_none_or(|link| link.phase != LinkPhase::Connected);
        let lost = cut || station.state == Some(State::Unknown); // the figures are true, and of the past
        self.put(format_args!(
            "<article aria-labelledby=\"s{place}\"><header><h2 id=\"s{place}\">{}</h2>",
            Text(&station.name)
        ));
        self.part("p", format_args!("s{place}-shift"), |page| page.shift(station));
        self.put(format_args!("</header>\n"));
        self.part("div", format_args!("s{place}-state"), |page| page.state(station));
        self.put(format_args!("\n"));
        self.part("div", format_args!("s{place}-oee"), |page| page.oee(station, lost));
        self.put(format_args!("\n"));
        self.part("div", format_args!("s{place}-parts"), |page| page.counts(station.kpi.as_ref(), lost));
        self.put(format_args!("\n"));
        self.part("p class=\"notes\"", format_args!("s{place}-notes"), |page| page.notes(station, lost));
        self.watched(place, station);
        self.put(format_args!("\n<footer>"));
        self.part("p", format_args!("s{place}-link"), |page| page.link(station, view));
        let doubtful = station.tags.iter().filter(|tag| tag.validity.status().is_some()).count();
        let tags = station.tags.len();
        let plural = if tags == 1 { "" } else { "s" };
        self.put(format_args!("<p><a href=\"#t{place}\">{tags} tag{plural}</a>"));
        self.part("span", format_args!("s{place}-tags"), |page| match (doubtful, status) {
            (0, _) => page.put(format_args!(", all good")),
            (_, Status::Unknown) => page.put(format_args!(", {doubtful} not known yet")),
            _ => page.put(format_args!(", <b class=\"warn\">{doubtful} not good</b>")),
        });
        self.put(format_args!("</p></footer></article>\n"));
    }

    fn shift(&mut self, station: &StationView) {
        match &station.shift {
            Some(shift) => self.put(format_args!("{} shift", Text(shift))),
            None if station.state.is_some() => self.put(format_args!("no shift")),
            None => {}
        }
        if let Some(kpi) = &station.kpi {
            let since = self.at(kpi.since, "%H:%M");
            self.put(format_args!("<small><a href=\"{}\">figures since {since}</a></small>", Why(&station.name)));
        }
    }

    fn state(&mut self, station: &StationView) {
        let Some(state) = station.state else {
            return self.put(format_args!("<p class=\"state calm\"><span>no OEE is configured, tags only</span></p>"));
        };
        let word = state.word().replace('_', " ");
        self.put(format_args!("<p class=\"state {}\"><strong>{word}</strong>", class(state)));
        if let Some(since) = station.state_since {
            self.put(format_args!(" <span>for {}</span>", self.age(since)));
        }
        self.put(format_args!("</p>"));
    }

    fn oee(&mut self, station: &StationView, lost: bool) {
        if station.state.is_none() {
            return;
        }
        let kpi = station.kpi.as_ref();
        let figures = kpi.map(|kpi| &kpi.figures);
        let ratios = [
            ("Availability", figures.and_then(|of| of.availability)),
            ("Performance", figures.and_then(|of| of.performance)),
            ("Quality", figures.and_then(|of| of.quality)),
        ];
        let oee = figures.and_then(|of| of.oee);
        let faded = if lost { " faded" } else { "" };
        let unknown = if oee.is_none() { " class=\"unknown\"" } else { "" };
        let shown = OrNothing(oee.map(Ratio));
        self.put(format_args!("<dl class=\"oee{faded}\"><dt>OEE</dt><dd{unknown}>"));
        match kpi {
            Some(_) => self.put(format_args!("<a href=\"{}\">{shown}</a>", Why(&station.name))),
            None => self.put(format_args!("{shown}")),
        }
        self.put(format_args!("</dd></dl>"));
        self.put(format_args!("<dl class=\"ratios{faded}\">"));
        for (name, ratio) in ratios {
            let unknown = if ratio.is_none() { " class=\"unknown\"" } else { "" };
            let width = ratio.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0;
            self.put(format_args!(
                "<div><dt>{name}</dt><dd>{}</dd><dd class=\"bar\"><svg{unknown} viewBox=\"0 0 100 1\" \
                 preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect width=\"{width:.1}\" height=\"1\"></rect></svg></dd></div>",
                OrNothing(ratio.map(Ratio)),
            ));
        }
        self.put(format_args!("</dl>"));
    }

    fn counts(&mut self, kpi: Option<&KpiView>, lost: bool) {
        let Some(kpi) = kpi else { return };
        let target = kpi.target.map(f64::floor);
        // Parts of a time that nobody saw are no achievement of the time that the target speaks of.
        let ahead = kpi.total.zip(target).map(|(total, target)| total - kpi.unattributed - target);
        let stopped = u64::try_from(kpi.planned_ns - kpi.run_ns).unwrap_or(0);
        let faded = if lost { " faded" } else { "" };
        self.put(format_args!(
            "<dl class=\"parts{faded}\"><div><dt>Target</dt><dd>{}</dd></div><div><dt>Actual</dt><dd>{}</dd></div>\
             <div><dt>Difference</dt><dd>{}</dd></div><div><dt>Good</dt><dd>{}</dd></div><div><dt>Reject</dt><dd>{}</dd></div>\
             <div><dt>Stopped</dt><dd class=\"time\">{}</dd></div></dl>",
            OrNothing(target.map(Parts)),
            OrNothing(kpi.total.map(Parts)),
            OrNothing(ahead.map(Ahead)),
            OrNothing(kpi.good.map(Parts)),
            OrNothing(kpi.reject.map(Parts)),
            Span(Duration::from_nanos(stopped)),
        ));
    }

    /// What somebody who reads the figures has to know with them.
    fn notes(&mut self, station: &StationView, lost: bool) {
        let Some(kpi) = &station.kpi else {
            if station.state.is_some() {
                self.put(format_args!(
                    "No figures: {}.",
                    if station.shift.is_some() { "nothing was heard yet" } else { "no shift" }
                ));
            }
            return;
        };
        if let Some(hint) = kpi.hint() {
            self.put(format_args!("<b class=\"act\">Performance is above 100\u{a0}%: {hint}.</b> "));
        }
        if kpi.scheduled == Some(false) {
            self.put(format_args!("Nothing was planned so far. "));
        }
        if let Some(coverage) = kpi.figures.coverage.filter(|&coverage| lost || coverage < 1.0) {
            self.put(format_args!("The figures speak for {} of the planned time. ", Percent(coverage)));
        }
        if let Some((low, high)) = kpi.oee_bounds.filter(|_| kpi.figures.oee.is_none()) {
            self.put(format_args!("OEE lies between {} and {}. ", Percent(low), Percent(high)));
        }
        if kpi.quality_assumed && kpi.figures.quality.is_some() {
            self.put(format_args!("Nothing counts rejects: quality is assumed. "));
        }
        if kpi.unattributed > 0.0 {
            self.put(format_args!("{} made while nobody saw, not in the difference. ", Parts(kpi.unattributed)));
        }
    }

    /// What is out of the ordinary now: a line for each anomaly that lasts, and for each chart that is out of control.
    fn watched(&mut self, place: usize, station: &StationView) {
        if station.anomalies.is_empty() && station.charts.is_empty() {
            return;
        }
        self.put(format_args!("\n"));
        self.part("div class=\"notes\"", format_args!("s{place}-watched"), |page| {
            for detector in &station.anomalies {
                let Some(open) = &detector.open else { continue };
                page.put(format_args!(
                    "<p><b class=\"warn\">{} anomaly</b> of {} for {} ({})</p>",
                    open.severity.word(),
                    Text(&detector.tag),
                    page.age(open.began),
                    Text(&detector.name),
                ));
            }
            for chart in station.charts.iter().map(|of| &of.chart).filter(|chart| chart.in_control == Some(false)) {
                let Some(broken) = chart.violations.last() else { continue };
                page.put(format_args!(
                    "<p><b class=\"warn\">out of control</b> by chart {}: {}</p>",
                    Text(&chart.name),
                    broken.rule.says(),
                ));
            }
        });
    }

    fn link(&mut self, station: &StationView, view: &View) {
        let Some(link) = view.links.get(station.link) else {
            return self.put(format_args!("{NOTHING}"));
        };
        let class = match link.phase {
            LinkPhase::Connecting => "unknown",
            LinkPhase::Connected => "calm",
            LinkPhase::Disconnected => "warn",
        };
        self.put(format_args!("<b class=\"{class}\">{}</b> for {}", link.phase.word(), self.age(link.since)));
        if let Some(error) = link.last_error.as_ref().filter(|_| link.phase != LinkPhase::Connected) {
            self.put(format_args!(": {}", Text(error)));
        }
    }
}

/// Where the figures of a station's shift are explained.
struct Why<'a>(&'a str);

impl Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/explain?station={}", utf8_percent_encode(self.0, NON_ALPHANUMERIC))
    }
}

/// A ratio in percent, the sign smaller than the figure.
struct Ratio(f64);

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}<i>\u{a0}%</i>", self.0 * 100.0)
    }
}

/// The colour of a state, by IEC 60073: red is a fault, yellow abnormal, green only says "running".
fn class(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Down => "bad",
        State::Slow | State::Starved | State::Blocked => "warn",
        State::Producing => "run",
        State::Setup | State::Maintenance | State::Engineering | State::Idle | State::Break | State::NoShift => "calm",
    }
}
