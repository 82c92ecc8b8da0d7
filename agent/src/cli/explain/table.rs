//! An explanation as tables that a person can add up.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use gemba_drivers::Time;
use jiff::tz::TimeZone;

use crate::cli::printable;
use crate::model::{Explanation, LossLine, Standing, Term};

/// The whole, or only what figure `only` is made of.
pub(super) fn text(of: &Explanation, zone: &TimeZone, only: Option<&str>) -> String {
    let wanted = |figures: &[&str]| only.is_none_or(|only| figures.contains(&only));
    let mut text = head(of, zone);
    text += &figures(of, only);
    if wanted(&["oee", "availability", "performance"]) {
        text += &waterfall(of);
    }
    if wanted(&["oee", "availability", "performance", "coverage"]) {
        text += &pieces(of, zone);
    }
    if wanted(&["oee", "performance", "quality"]) {
        text += &counts(of, zone);
        for (code, parts) in &of.by_hand {
            let _ = writeln!(
                text,
                "rejected by hand, of what was counted as good: {} x {}",
                number(*parts),
                printable(code)
            );
        }
    }
    if wanted(&["oee", "quality"]) {
        for late in &of.waterfall.late {
            let (station, code, parts) = (printable(&late.station), printable(&late.code), number(late.parts));
            let _ = writeln!(text, "not good, since rejected at {station}: {parts} parts, {code}");
        }
    }
    for loss in &of.losses {
        let (source, reason) = (printable(&loss.source), printable(&loss.reason));
        let _ = writeln!(text, "lost: {} x {source} at {}: {reason}", loss.count, local(loss.from, zone));
    }
    text
}

fn head(of: &Explanation, zone: &TimeZone) -> String {
    let (station, name) = (printable(&of.station), printable(&of.name));
    let (from, to) = (local(of.from, zone), local(of.to, zone));
    let zone = zone.iana_name().unwrap_or("local time");
    let mut text = format!("{station}, {} {name}: {from} to {to} ({zone})", of.kind);
    text += if of.closed { ", closed" } else { ", open" };
    if let Some(revision) = of.revision.filter(|&revision| revision > 0) {
        let _ = write!(text, ", revision {revision}");
    }
    let _ = writeln!(text, "\nloss accounting: {}", of.view.losses);
    if !of.whole {
        text += "readings of its beginning are no longer held: the figures are of the rest\n";
    }
    text
}

fn figures(of: &Explanation, only: Option<&str>) -> String {
    let mut table = table(["figure", "value", "", "", "note"], &[1]);
    for figure in of.figures.iter().filter(|figure| only.is_none_or(|only| only == figure.name)) {
        let term =
            |term: &Term| format!("{} {} {}", number(term.value), if term.unit == "s" { "s" } else { "" }, term.what);
        let (above, below) = figure.terms.as_ref().map_or_else(Default::default, |terms| {
            (format!("= {}", term(&terms.numerator)), format!("/ {}", term(&terms.denominator)))
        });
        let value = figure.value.map_or_else(|| "-".to_owned(), |value| format!("{:.3} %", value * 100.0));
        let note = figure.note.unwrap_or_default().to_owned();
        table.add_row([figure.name.to_owned(), value, above.replace("  ", " "), below.replace("  ", " "), note]);
    }
    format!("{table}\n")
}

fn waterfall(of: &Explanation) -> String {
    let fall = &of.waterfall;
    let mut table = table(["", "where planned time went", "times", "seconds"], &[2, 3]);
    let mut row = |sign: &str, what: &str, times: Option<usize>, ns: f64| {
        let times = times.map_or_else(String::new, |times| times.to_string());
        table.add_row([sign.to_owned(), what.to_owned(), times, number(ns / 1e9)]);
    };
    row("", "known planned time", None, real(fall.planned_ns));
    for line in &fall.availability {
        row("-", &loss(line), Some(line.times), real(line.spent_ns));
    }
    row("=", "run time", None, real(fall.run_ns));
    for line in &fall.performance {
        row("-", &loss(line), Some(line.times), real(line.spent_ns));
    }
    match (fall.speed_ns, fall.ideal_ns, fall.good_ns) {
        (Some(speed), Some(ideal), Some(good)) => {
            row("-", if speed < 0.0 { "speed: faster than ideal" } else { "speed" }, None, speed);
            row("=", "ideal time of parts", None, ideal);
            for (what, ns) in fall.rejects() {
                row("-", what, None, ns.unwrap_or(f64::NAN));
            }
            row("=", "ideal time of good parts", None, good);
        }
        _ => row("-", "speed and quality: of some part no ideal cycle time is known", None, f64::NAN),
    }
    if let Some(lost) = fall.lost_ns() {
        row("", "all losses together", None, lost);
    }
    for line in &fall.not_planned {
        row("", &format!("beside it, not planned: {}", loss(line)), Some(line.times), real(line.spent_ns));
    }
    if fall.unknown_ns > 0 {
        row("", "beside it, unknown", None, real(fall.unknown_ns));
    }
    format!("{table}\n")
}

fn pieces(of: &Explanation, zone: &TimeZone) -> String {
    let mut table = table(["from", "to", "seconds", "state", "counts as", "why", "product", "lot"], &[2]);
    // By what the time counts as, in order of first appearance.
    let mut sums: Vec<(String, i64)> = Vec::new();
    for piece in &of.pieces {
        let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().map_or_else(String::new, printable);
        let bucket = match (piece.bucket, piece.micro) {
            (Some(_), true) => "performance (micro-stop)".to_owned(),
            (Some(bucket), false) => bucket.word().replace('_', " "),
            (None, _) => "nothing".to_owned(),
        };
        let spent_ns = piece.to.0 - piece.from.0;
        match sums.iter_mut().find(|(held, _)| *held == bucket) {
            Some((_, sum)) => *sum += spent_ns,
            None => sums.push((bucket.clone(), spent_ns)),
        }
        table.add_row([
            local(piece.from, zone),
            local(piece.to, zone),
            number(real(spent_ns) / 1e9),
            piece.state.word().replace('_', " "),
            bucket,
            name(&piece.reason),
            name(&piece.work.product),
            name(&piece.work.lot),
        ]);
    }
    if of.pieces_left_out == 0 {
        for (bucket, spent_ns) in sums {
            let sum = ["sum".to_owned(), String::new(), number(real(spent_ns) / 1e9), String::new(), bucket];
            table.add_row(sum.into_iter().chain(["", "", ""].map(str::to_owned)));
        }
    }
    left_out(of.pieces_left_out, "pieces of time") + &format!("{table}\n")
}

fn counts(of: &Explanation, zone: &TimeZone) -> String {
    let mut table = table(["counted at", "counter", "parts", "ideal cycle", "ideal time", ""], &[2, 3, 4]);
    for counted in &of.counts {
        let ideal = counted.ideal_ns.map(|ns| ns / 1e9);
        let spent = ideal.filter(|_| counted.standing == Standing::Counted).map(|ideal| ideal * counted.parts);
        let seconds =
            |seconds: Option<f64>| seconds.map_or_else(String::new, |seconds| format!("{} s", number(seconds)));
        table.add_row([
            local(counted.at, zone),
            counted.count.word().to_owned(),
            number(counted.parts),
            seconds(ideal),
            seconds(spent),
            counted.standing.sentence().to_owned(),
        ]);
    }
    if of.counts_left_out == 0 {
        let counted = of.counts.iter().filter(|counted| counted.standing == Standing::Counted);
        let spent = counted.filter_map(|counted| Some(counted.ideal_ns? * counted.parts / 1e9));
        let total = of.view.total.map_or_else(|| "-".to_owned(), number);
        let sum = ["sum".to_owned(), "all parts".to_owned(), total, String::new()];
        table.add_row(sum.into_iter().chain([format!("{} s", number(spent.sum())), String::new()]));
    }
    left_out(of.counts_left_out, "counts") + &format!("{table}\n")
}

fn left_out(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!("the oldest {count} {what} are not listed; sums are of all\n") }
}

fn loss(line: &LossLine) -> String {
    let mut text = line.state.word().replace('_', " ");
    if let Some(reason) = &line.reason {
        let _ = write!(text, ", {}", printable(reason));
    }
    text + if line.planned { ", planned" } else { "" } + if line.micro { ", micro-stops" } else { "" }
}

fn table<const N: usize>(header: [&str; N], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header);
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// To the millisecond, without noughts behind.
fn number(number: f64) -> String {
    if number.is_nan() {
        return "-".to_owned();
    }
    let text = format!("{number:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn local(at: Time, zone: &TimeZone) -> String {
    let local = at.timestamp().to_zoned(zone.clone());
    let format = if at.0 % 1_000_000_000 == 0 { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S%.3f" };
    local.strftime(format).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a shift stay far below 2^53")]
fn real(ns: i64) -> f64 {
    ns as f64
}
