//! A strict reader of the text format 0.0.4, with the rules that `promtool check metrics` has for it.

use std::collections::{BTreeMap, BTreeSet};

/// A sample's labels, sorted.
type Labels = BTreeMap<String, String>;

/// What a page said.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    /// In order.
    pub(super) families: Vec<String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// The sample of that name with exactly these labels.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

/// Reads a page, and refuses the first line that is wrong or unusual.
pub(super) fn parse(text: &str) -> Result<Exposition, String> {
    let mut page = Exposition::default();
    if !text.ends_with('\n') {
        return Err("the last line is not ended".to_owned());
    }
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").ok_or_else(|| format!("a family begins with its help: {line}"))?;
        let (name, help) = help.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
        check_name(name)?;
        if help.trim().is_empty() || help.contains('\\') {
            return Err(format!("no help, or one to be escaped: {line}"));
        }
        let line = lines.next().unwrap_or_default();
        let kind = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_prefix(name)).map(str::trim);
        let kind = kind.ok_or_else(|| format!("the help of {name} is followed by its type, not {line}"))?;
        check_family(name, kind)?;
        if page.families.iter().any(|family| family == name) {
            return Err(format!("{name} is in two pieces"));
        }
        page.families.push(name.to_owned());
        let mut own = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            own.push(sample(line).map_err(|fault| format!("{fault}: {line}"))?);
        }
        check_samples(name, kind, &own)?;
        for (name, labels, value) in own {
            if page.samples.insert((name.clone(), labels.clone()), value).is_some() {
                return Err(format!("{name}{labels:?} twice"));
            }
        }
    }
    Ok(page)
}

fn check_name(name: &str) -> Result<(), String> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(letters) {
        return Err(format!("`{name}` is not in snake case"));
    }
    Ok(())
}

fn check_family(name: &str, kind: &str) -> Result<(), String> {
    let odd =
        ["_count", "_sum", "_bucket", "_gauge", "_counter", "_histogram", "_percent", "_milliseconds", "_ms", "_s"];
    match kind {
        "counter" if !name.ends_with("_total") => Err(format!("counter {name} does not end in _total")),
        "gauge" | "histogram" if name.ends_with("_total") => Err(format!("{kind} {name} ends in _total")),
        "counter" | "gauge" | "histogram" if odd.iter().any(|end| name.ends_with(end)) => {
            Err(format!("{name} has an unusual end"))
        }
        "counter" | "gauge" | "histogram" => Ok(()),
        other => Err(format!("{name} is a {other}")),
    }
}

fn check_samples(family: &str, kind: &str, samples: &[(String, Labels, f64)]) -> Result<(), String> {
    if samples.is_empty() {
        return Err(format!("{family} has no sample"));
    }
    if kind == "histogram" {
        return check_histogram(family, samples);
    }
    for (name, labels, value) in samples {
        if name != family || labels.contains_key("le") || (kind == "counter" && *value < 0.0) {
            return Err(format!("{name}{labels:?} {value} does not belong to {kind} {family}"));
        }
    }
    Ok(())
}

fn check_histogram(family: &str, samples: &[(String, Labels, f64)]) -> Result<(), String> {
    let mut rest = samples;
    while let Some((_, labels, _)) = rest.first() {
        let series = Labels::from_iter(labels.clone().into_iter().filter(|(name, _)| name != "le"));
        let (mut bound, mut count) = (f64::NEG_INFINITY, 0.0);
        while bound < f64::INFINITY {
            let Some(((name, labels, value), others)) = rest.split_first() else {
                return Err(format!("{family} {series:?} has no +Inf"));
            };
            let le: f64 = labels.get("le").and_then(|le| le.parse().ok()).ok_or(format!("{name} without le"))?;
            if *name != format!("{family}_bucket") || le <= bound || *value < count {
                return Err(format!("{name}{labels:?} {value} after {bound} {count}"));
            }
            (bound, count, rest) = (le, *value, others);
        }
        match rest {
            [(sum, a, _), (all, b, value), others @ ..]
                if *sum == format!("{family}_sum")
                    && *all == format!("{family}_count")
                    && *value == count
                    && *a == series
                    && *b == series =>
            {
                rest = others;
            }
            _ => return Err(format!("{family} {series:?}: sum and count do not follow or do not agree")),
        }
    }
    Ok(())
}

fn sample(line: &str) -> Result<(String, Labels, f64), String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    check_name(name)?;
    let mut labels = Labels::new();
    let mut seen = BTreeSet::new();
    let value = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label value")?;
            check_name(label)?;
            let (value, after) = quoted(after)?;
            if !seen.insert(label.to_owned()) {
                return Err(format!("label {label} twice"));
            }
            labels.insert(label.to_owned(), value);
            match after.split_at_checked(1) {
                Some((",", after)) => rest = after,
                Some(("}", after)) => break after,
                _ => return Err("labels not closed".to_owned()),
            }
        },
    };
    let value = value.strip_prefix(' ').ok_or("no space before the value")?;
    let value: f64 = value.parse().map_err(|_| "not a number")?;
    if !value.is_finite() {
        return Err("not finite".to_owned());
    }
    Ok((name.to_owned(), labels, value))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((place, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => value.push(match letters.next() {
                Some((_, 'n')) => '\n',
                Some((_, same @ ('\\' | '"'))) => same,
                other => return Err(format!("no such escape: {other:?}")),
            }),
            other => value.push(other),
        }
    }
    Err("quote not closed".to_owned())
}

#[test]
fn what_is_wrong_is_refused() {
    let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 1\n";
    parse(good).expect("that is well-formed");
    let broken = [
        "a_total 1\n".to_owned(),
        good.trim_end().to_owned(),
        good.repeat(2),
        good.replace("counter", "gauge"),
        good.replace("Help.", ""),
        good.replace("x=", "X="),
        good.replace("\"1\"", "\"1"),
        good.replace("\"1\"", "\"\\t\""),
        good.replace("} 1", "} one"),
        good.replace("} 1", "} -1"),
        format!("{good}a_total{{x=\"1\"}} 2\n"),
        format!("{good}b_total 2\n"),
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n"
            .to_owned(),
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n".to_owned(),
        "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n".to_owned(),
    ];
    for page in broken {
        assert!(parse(&page).is_err(), "{page}");
    }
}
