//! What stands below the stations: every tag, what was lost, the ways in and up, the machine itself.

use std::fmt::Display;

use gemba_drivers::{Loss, Validity};

use super::super::View;
use super::super::words::{Bytes, OrNothing, Percent, Shown, Text, Unit};
use super::Page;
use crate::snapshot::{StationView, TagView, UpstreamStatus};

impl Page {
    pub(super) fn tags(&mut self, view: &View) {
        self.put(format_args!("<h2>Tags</h2>\n<div class=\"columns\">\n"));
        for (place, station) in view.snapshot.stations.iter().enumerate() {
            self.tags_of(place, station);
        }
        self.put(format_args!("</div>\n"));
    }

    fn tags_of(&mut self, place: usize, station: &StationView) {
        self.put(format_args!(
            "<section aria-labelledby=\"t{place}\"><h3 id=\"t{place}\">{}</h3>\n<table>\n<thead><tr><th scope=\"col\">Tag</th>\
             <th scope=\"col\" class=\"n\">Value</th><th scope=\"col\">Validity</th><th scope=\"col\" class=\"n\">Age</th></tr></thead>\n<tbody>\n",
            Text(&station.name)
        ));
        for (row, tag) in station.tags.iter().enumerate() {
            self.tag(place, row, tag);
        }
        self.put(format_args!("</tbody>\n</table></section>\n"));
    }

    /// Each cell a part of its own: most often a tag changes nothing but its age.
    fn tag(&mut self, place: usize, row: usize, tag: &TagView) {
        let good = tag.validity == Validity::Good;
        self.put(format_args!("<tr><th scope=\"row\">{}</th>", Text(&tag.name)));
        self.part("td class=\"n\"", format_args!("t{place}-{row}v"), |page| {
            let (open, close) = if good { ("", "") } else { ("<span class=\"faded\">", "</span>") };
            page.put(format_args!("{open}{}{close}", Shown(&tag.value)));
            if let Some(unit) = tag.unit.as_deref().filter(|&unit| unit != "1") {
                page.put(format_args!("&nbsp;<i>{}</i>", Unit(unit)));
            }
        });
        self.part("td", format_args!("t{place}-{row}w"), |page| page.validity(&tag.validity));
        self.part("td class=\"n\"", format_args!("t{place}-{row}a"), |page| {
            page.put(format_args!("{}", OrNothing(tag.source_time.map(|time| page.age(time)))));
        });
        self.put(format_args!("</tr>\n"));
    }

    fn validity(&mut self, validity: &Validity) {
        let (class, word) = match validity {
            Validity::Good => return self.put(format_args!("good")),
            Validity::Uncertain(_) => ("warn", validity.word()),
            Validity::Bad(_) => ("bad", validity.word()),
        };
        self.put(format_args!("<b class=\"{class}\">{word}</b>"));
        if let Some(why) = validity.status() {
            let code = why.code();
            self.put(format_args!("<small>{} ({} 0x{code:X})</small>", Text(&why.name()), why.protocol()));
        }
    }

    pub(super) fn losses(&mut self, view: &View) {
        let (losses, totals) = (&view.snapshot.losses, &view.snapshot.loss_totals);
        self.put(format_args!("<h2>Losses</h2>\n"));
        self.part(
            "div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Losses, ever\"",
            format_args!("lost"),
            |page| {
                if totals.is_empty() && losses.is_empty() {
                    return page.put(format_args!("<p>Nothing was lost.</p>"));
                }
                page.head_of_table(&["Source", "Reason", "Count, ever"]);
                for (source, reason, count) in totals {
                    let (source, reason) = (Text(source), Text(reason));
                    page.put(format_args!(
                        "<tr><th scope=\"row\">{source}</th><td>{reason}</td><td>{count}</td></tr>\n"
                    ));
                }
                page.put(format_args!("</tbody></table>"));
            },
        );
        self.put(format_args!("\n<details><summary>Newest losses, with their times</summary>\n"));
        self.part(
            "div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Newest losses\"",
            format_args!("losses"),
            |page| {
                if losses.is_empty() {
                    return page.put(format_args!("<p>None is held.</p>"));
                }
                page.head_of_table(&["Source", "Reason", "Count", "From", "To"]);
                for Loss { source, from, to, count, reason } in losses {
                    page.put(format_args!(
                        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{count}</td><td>{}</td><td>{}</td></tr>\n",
                        Text(source),
                        Text(reason),
                        page.at(*from, "%Y-%m-%d %H:%M:%S"),
                        page.at(*to, "%Y-%m-%d %H:%M:%S"),
                    ));
                }
                page.put(format_args!("</tbody></table>"));
            },
        );
        self.put(format_args!("\n</details>\n"));
    }

    fn head_of_table(&mut self, columns: &[&str]) {
        self.put(format_args!("<table><thead><tr>"));
        for column in columns {
            self.put(format_args!("<th scope=\"col\">{column}</th>"));
        }
        self.put(format_args!("</tr></thead><tbody>\n"));
    }

    /// Spool, upstream, gateway: side by side, each a short list.
    pub(super) fn ways(&mut self, view: &View) {
        self.put(format_args!("<div class=\"columns ways\">\n"));
        self.way("spool", "Spool", |page| page.spool(view));
        self.way("upstream", "Upstream", |page| page.upstream(view));
        self.way("gateway", "Gateway", |page| page.gateway(view));
        self.put(format_args!("</div>\n"));
    }

    fn way(&mut self, id: &str, title: &str, content: impl FnOnce(&mut Self)) {
        self.put(format_args!("<section aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{title}</h2>\n"));
        self.part("dl", format_args!("{id}"), content);
        self.put(format_args!("</section>\n"));
    }

    fn row(&mut self, name: &str, value: impl Display) {
        self.put(format_args!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    }

    fn spool(&mut self, view: &View) {
        let spool = &view.snapshot.spool;
        if let Some(error) = &spool.error {
            let held = if spool.full {
                "nothing can be stored"
            } else {
                "the disk cannot be written, memory holds what comes"
            };
            self.row("Stores", format_args!("<b class=\"bad\">{held}</b>: {}", Text(error)));
        } else {
            self.row("Stores", "yes");
        }
        self.row("Wait for upstream", format_args!("{} readings in {} records", spool.readings, spool.records));
        self.row("Oldest of them waits for", OrNothing(spool.oldest.map(|time| self.age(time))));
        self.row("On disk", Bytes(spool.bytes));
        match spool.dropped {
            0 => self.row("Dropped for want of room", "none"),
            dropped => self.row("Dropped for want of room", format_args!("<b class=\"bad\">{dropped} readings</b>")),
        }
    }

    fn upstream(&mut self, view: &View) {
        use UpstreamStatus as Is;
        let upstream = &view.upstream;
        if upstream.status == Is::None {
            return self.row("Connection", "none is configured");
        }
        let class = match upstream.status {
            Is::None | Is::Connected => "calm",
            Is::Connecting => "unknown",
            Is::Disconnected => "warn",
            Is::Blocked => "act",
        };
        let (word, since) = (upstream.status.word(), self.age(upstream.since));
        self.row("Connection", format_args!("<b class=\"{class}\">{word}</b> for {since}"));
        self.row("Last accepted", OrNothing(upstream.last_success.map(|time| format!("{} ago", self.age(time)))));
        self.row("Requests sent again", upstream.retries);
        self.row("Refused for good", format_args!("{} points", upstream.rejected));
        if let Some(error) = &upstream.last_error {
            let label = if upstream.status == Is::Connected { "Last error, since overcome" } else { "Why" };
            self.row(label, Text(error));
        }
    }

    fn gateway(&mut self, view: &View) {
        let gateway = &view.gateway;
        let room =
            |room: Option<(u64, u64)>| Known(room.map(|(used, size)| format!("{} of {}", Bytes(used), Bytes(size))));
        self.row("Clock", Known(gateway.clock.map(|clock| clock.word().replace('_', " "))));
        self.row("CPU", Known(gateway.cpu.map(Percent)));
        self.row("Memory", room(gateway.memory));
        self.row("Disk of the spool", room(gateway.disk));
        self.row("Temperature", Known(gateway.temperature.map(|degrees| format!("{degrees:.1}\u{a0}\u{b0}C"))));
        self.row("gemba's CPU, of one core", Known(gateway.process_cpu.map(Percent)));
        self.row("gemba's memory", Known(gateway.process_memory.map(Bytes)));
        self.row("Looked at", OrNothing(gateway.time.map(|time| format!("{} ago", self.age(time)))));
    }
}

/// The thing, or that it is unknown.
struct Known<T>(Option<T>);

impl<T: Display> Display for Known<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(thing) => thing.fmt(f),
            None => f.write_str("<span class=\"unknown\">unknown</span>"),
        }
    }
}
