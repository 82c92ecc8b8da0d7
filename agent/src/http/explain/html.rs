//! An explanation for people: a page without scripts, in the style of `/health`.

use std::fmt::{Arguments, Display, Write};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::super::Identity;
use super::super::page::ASSETS;
use super::super::words::{Instant, Number, OrNothing, Parts, Percent, Text};
use crate::model::{Explanation, LossLine, Standing};

/// The page.
pub(super) fn page(of: &Explanation, identity: &Identity) -> String {
    let mut page = Page { text: String::with_capacity(32 * 1024), zone: identity.timezone.clone() };
    page.head(of, identity);
    page.put(format_args!("<main>\n"));
    page.figures(of);
    page.waterfall(of);
    page.pieces(of);
    page.counts(of);
    page.by_hand(of);
    page.losses(of);
    page.put(format_args!("</main>\n</body>\n</html>\n"));
    page.text
}

struct Page {
    text: String,
    zone: TimeZone,
}

impl Page {
    fn head(&mut self, of: &Explanation, identity: &Identity) {
        let (station, name, line, assets) = (Text(&of.station), Text(&of.name), Text(&identity.line), &*ASSETS);
        let (kind, preset) = (of.kind, of.view.losses);
        self.put(format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <link rel=\"stylesheet\" href=\"/health/page.css?v={assets}\">\n\
             <title>{station}: {kind} {name}</title>\n</head>\n<body>\n<header class=\"line\">\n\
             <h1>{station} <small>{kind} {name}</small></h1>\n<p><a href=\"/health\">{line}</a></p>\n<p id=\"asof\">"
        ));
        let (from, to) = (self.at(of.from), self.at(of.to));
        self.put(format_args!("{from} to {to}<small>{}", if of.closed { "closed" } else { "so far" }));
        if let Some(revision) = of.revision.filter(|&revision| revision > 0) {
            self.put(format_args!(", revision {revision}"));
        }
        let zone = self.zone.iana_name().unwrap_or("local time").to_owned();
        self.put(format_args!(", loss accounting {preset}, {}</small></p>\n</header>\n", Text(&zone)));
        if !of.whole {
            let gone = "Readings of its beginning are no longer held: the figures are of the rest.";
            self.put(format_args!("<p class=\"notes\">{gone}</p>\n"));
        }
    }

    fn figures(&mut self, of: &Explanation) {
        self.table("Figures", &["Figure", "Value", "Is", "Over", ""], |page| {
            for figure in &of.figures {
                let value = OrNothing(figure.value.map(Percent));
                page.put(format_args!("<tr><th scope=\"row\">{}</th><td class=\"n\">{value}</td>", figure.name));
                for term in figure.terms.iter().flat_map(|terms| [&terms.numerator, &terms.denominator]) {
                    let unit = if term.unit == "s" { "\u{a0}s" } else { "" };
                    page.put(format_args!("<td>{}{unit} <i>{}</i></td>", Number(term.value), term.what));
                }
                if figure.terms.is_none() {
                    page.put(format_args!("<td></td><td></td>"));
                }
                page.put(format_args!("<td>{}</td></tr>\n", figure.note.unwrap_or_default()));
            }
        });
    }

    fn waterfall(&mut self, of: &Explanation) {
        let fall = &of.waterfall;
        self.table("Where planned time went", &["", "Times", "Seconds"], |page| {
            page.sum("Known planned time", Some(real(fall.planned_ns)));
            fall.availability.iter().for_each(|line| page.loss("\u{2212} ", line));
            page.sum("= Run time", Some(real(fall.run_ns)));
            fall.performance.iter().for_each(|line| page.loss("\u{2212} ", line));
            let faster = fall.speed_ns.is_some_and(|speed| speed < 0.0);
            page.row(if faster { "\u{2212} speed: faster than ideal" } else { "\u{2212} speed" }, fall.speed_ns);
            page.sum("= Ideal time of parts", fall.ideal_ns);
            for (what, ns) in fall.rejects() {
                page.row(&format!("\u{2212} {what}"), ns);
            }
            for late in &fall.late {
                let (station, code, parts) = (Text(&late.station), Text(&late.code), Parts(late.parts));
                page.put(format_args!(
                    "<tr><td>among it: rejected at {station}, {code}, {parts} parts</td><td></td><td></td></tr>\n"
                ));
            }
            page.sum("= Ideal time of good parts", fall.good_ns);
            page.row("All losses together", fall.lost_ns());
            fall.not_planned.iter().for_each(|line| page.loss("Beside it, not planned: ", line));
            if fall.unknown_ns > 0 {
                page.row("Beside it, unknown", Some(real(fall.unknown_ns)));
            }
        });
    }

    fn sum(&mut self, what: &str, ns: Option<f64>) {
        let seconds = OrNothing(ns.map(|ns| Number(ns / 1e9)));
        self.put(format_args!(
            "<tr><th scope=\"row\">{what}</th><td></td><td class=\"n\"><b>{seconds}</b></td></tr>\n"
        ));
    }

    fn row(&mut self, what: &str, ns: Option<f64>) {
        let seconds = OrNothing(ns.map(|ns| Number(ns / 1e9)));
        self.put(format_args!("<tr><td>{what}</td><td></td><td class=\"n\">{seconds}</td></tr>\n"));
    }

    fn loss(&mut self, sign: &str, line: &LossLine) {
        self.put(format_args!("<tr><td>{sign}{}", line.state.word().replace('_', " ")));
        if let Some(reason) = &line.reason {
            self.put(format_args!(", {}", Text(reason)));
        }
        let (planned, micro) =
            (if line.planned { ", planned" } else { "" }, if line.micro { ", micro-stops" } else { "" });
        let seconds = Number(real(line.spent_ns) / 1e9);
        self.put(format_args!(
            "{planned}{micro}</td><td class=\"n\">{}</td><td class=\"n\">{seconds}</td></tr>\n",
            line.times
        ));
    }

    fn pieces(&mut self, of: &Explanation) {
        self.left_out(of.pieces_left_out, "pieces of time");
        self.table("Time", &["From", "To", "Seconds", "State", "Counts as", "Why", "Product", "Lot"], |page| {
            for piece in &of.pieces {
                let bucket = piece.bucket.map_or_else(|| "nothing".to_owned(), |of| of.word().replace('_', " "));
                let (from, to, seconds) =
                    (page.at(piece.from), page.at(piece.to), real(piece.to.0 - piece.from.0) / 1e9);
                let state = piece.state.word().replace('_', " ");
                let micro = if piece.micro { " <small>micro-stop</small>" } else { "" };
                page.put(format_args!(
                    "<tr><td>{from}</td><td>{to}</td><td class=\"n\">{}</td><td>{state}</td><td>{bucket}{micro}</td>",
                    Number(seconds)
                ));
                for name in [&piece.reason, &piece.work.product, &piece.work.lot] {
                    page.put(format_args!("<td>{}</td>", name_of(name)));
                }
                page.put(format_args!("</tr>\n"));
            }
        });
    }

    fn counts(&mut self, of: &Explanation) {
        self.left_out(of.counts_left_out, "counts");
        self.table("Counts", &["At", "Counter", "Parts", "Ideal cycle, s", "Ideal time, s", ""], |page| {
            for counted in &of.counts {
                let ideal = counted.ideal_ns.map(|ns| ns / 1e9);
                let spent = ideal.filter(|_| counted.standing == Standing::Counted).map(|ideal| ideal * counted.parts);
                let (at, counter, parts) = (page.at(counted.at), counted.count.word(), Parts(counted.parts));
                let (ideal, spent) = (OrNothing(ideal.map(Number)), OrNothing(spent.map(Number)));
                page.put(format_args!(
                    "<tr><td>{at}</td><td>{counter}</td><td class=\"n\">{parts}</td><td class=\"n\">{ideal}</td>\
                     <td class=\"n\">{spent}</td><td>{}</td></tr>\n",
                    counted.standing.sentence()
                ));
            }
        });
    }

    fn by_hand(&mut self, of: &Explanation) {
        if of.by_hand.is_empty() {
            return;
        }
        self.table("Rejected by hand, of what was counted as good", &["Code", "Parts"], |page| {
            for (code, parts) in &of.by_hand {
                let (code, parts) = (Text(code), Parts(*parts));
                page.put(format_args!("<tr><td>{code}</td><td class=\"n\">{parts}</td></tr>\n"));
            }
        });
    }

    fn losses(&mut self, of: &Explanation) {
        if of.losses.is_empty() {
            return;
        }
        self.table("Lost within that time", &["From", "To", "Count", "Reason"], |page| {
            for loss in &of.losses {
                let (from, to, reason) = (page.at(loss.from), page.at(loss.to), Text(&loss.reason));
                let count = loss.count;
                page.put(format_args!(
                    "<tr><td>{from}</td><td>{to}</td><td class=\"n\">{count}</td><td>{reason}</td></tr>\n"
                ));
            }
        });
    }

    fn left_out(&mut self, count: usize, what: &str) {
        if count > 0 {
            self.put(format_args!(
                "<p class=\"notes\">The oldest {count} {what} are not listed; sums are of all.</p>\n"
            ));
        }
    }

    fn table(&mut self, heading: &str, columns: &[&str], rows: impl FnOnce(&mut Self)) {
        self.put(format_args!(
            "<h2>{heading}</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{heading}\">\n<table><thead><tr>"
        ));
        for column in columns {
            self.put(format_args!("<th scope=\"col\">{column}</th>"));
        }
        self.put(format_args!("</tr></thead><tbody>\n"));
        rows(self);
        self.put(format_args!("</tbody></table></div>\n"));
    }

    fn at(&self, at: gemba_drivers::Time) -> Instant {
        Instant { at, zone: self.zone.clone(), format: "%Y-%m-%d %H:%M:%S" }
    }

    fn put(&mut self, what: Arguments<'_>) {
        self.text.write_fmt(what).expect("writing to memory does not fail");
    }
}

fn name_of(name: &Option<Arc<str>>) -> impl Display + '_ {
    OrNothing(name.as_deref().map(Text))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
fn real(ns: i64) -> f64 {
    ns as f64
}
