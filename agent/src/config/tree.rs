//! YAML text as a tree in which everything knows its place.
//!
//! serde stops at its first error and loses positions inside tagged enums, so it is asked for no
//! more than this tree; [`super::section`] reads the options out of it and reports all that is wrong.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::error::{Place, Report};
use super::substitute::{Surroundings, substitute};

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// For messages.
    pub(super) origin: Rc<Origin>,
    /// What it is.
    pub(super) kind: Kind,
}

/// Where a value stands and how it is written: what a message about it says.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Where it stands.
    pub(super) place: Place,
    /// `stations[1].source.publish`; empty for the document.
    pub(super) path: Rc<str>,
    /// For people: as it stands in the file, so never a substituted value. Empty for a list or a section.
    pub(super) shown: Rc<str>,
    /// Not a default.
    pub(super) written: bool,
}

impl Deref for Node {
    type Target = Origin;

    fn deref(&self) -> &Origin {
        &self.origin
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Nothing was written, or `null`.
    Empty,
    /// Was wrong, and is already reported.
    Broken,
    /// A single value.
    Scalar(Scalar),
    /// `- …`
    List(Vec<Node>),
    /// `key: …`, each key once.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// Where it stands.
    pub(super) place: Place,
    /// What it says.
    pub(super) scalar: Scalar,
}

/// A single value: text until an option gives it a meaning.
#[derive(Clone)]
pub(super) struct Scalar {
    /// What it says, with every substitution filled in.
    pub(super) text: String,
    /// As it stands in the file, where that differs.
    pub(super) template: Option<String>,
    /// Without quotes, so YAML itself may see a number or a truth value in it.
    pub(super) plain: bool,
}

impl Scalar {
    /// For people: never a substituted value.
    pub(super) fn shown(&self) -> &str {
        self.template.as_deref().unwrap_or(&self.text)
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar(***)") // may be a password
    }
}

impl Node {
    /// What stands at `place`, or a default that stands for it where it is not `written`.
    pub(super) fn new(place: Place, path: Rc<str>, kind: Kind, written: bool) -> Self {
        let shown = if let Kind::Scalar(scalar) = &kind { scalar.shown() } else { "" }.into();
        Self { origin: Rc::new(Origin { place, path, shown, written }), kind }
    }

    /// The value of `key`, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(held, _)| held.scalar.text == key).map(|(_, value)| value)
    }

    /// Likewise, to change it.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let Kind::Map(entries) = &mut self.kind else { return None };
        entries.iter_mut().find(|(held, _)| held.scalar.text == key).map(|(_, value)| value)
    }

    /// Adds what nobody wrote, if this is a map.
    pub(super) fn put(&mut self, key: &str, value: Node) {
        let Kind::Map(entries) = &mut self.kind else { return };
        let scalar = Scalar { text: key.to_owned(), template: None, plain: true };
        entries.push((Key { place: value.place.clone(), scalar }, value));
    }

    /// What it is, for people.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Empty | Kind::Broken => "nothing",
            Kind::Scalar(_) => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a section",
        }
    }
}

/// The document in `text`; `None` when it is no YAML, which is then reported.
pub(super) fn parse(file: &str, text: &str, from: &dyn Surroundings, report: &mut Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_nodes: 2_000_000, max_events: 4_000_000 },
    };
    let mut settler = Settler { file: file.into(), text, from, report };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => {
            let mut node = settler.node(raw, "".into());
            if matches!(node.kind, Kind::Empty) {
                // Not where the comments end: nothing is wrong there.
                let place = Place { line: 1, column: 1, ..node.place.clone() };
                node.origin = Rc::new(Origin { place, ..Origin::clone(&node.origin) });
            }
            Some(node)
        }
        Err(error) => {
            let mut place = settler.place(error.location().unwrap_or(Location::UNKNOWN));
            place.line = place.line.max(1);
            place.column = place.column.max(1);
            let message = UserMessageFormatter.format_message(error.without_snippet()).replace('\n', " ");
            report.add(&place, "", format!("not valid YAML: {message}"));
            None
        }
    }
}

/// Adds what another file says; the same thing said twice is reported.
pub(super) fn merge(into: &mut Node, from: Node, report: &mut Report) {
    let Node { origin, kind } = from;
    match (&mut into.kind, kind) {
        (_, Kind::Empty) => {}
        (Kind::Empty, kind) => *into = Node { origin, kind },
        (Kind::List(held), Kind::List(more)) => held.extend(more),
        (Kind::Map(held), Kind::Map(more)) => {
            for (key, node) in more {
                match held.iter_mut().find(|(known, _)| known.scalar.text == key.scalar.text) {
                    Some((_, known)) => merge(known, node, report),
                    None => held.push((key, node)),
                }
            }
        }
        (Kind::Broken, _) | (_, Kind::Broken) => into.kind = Kind::Broken,
        _ => origin.wrong(report, format!("is already set at {}", into.place)),
    }
}

/// What serde makes of the text: shapes and places, no meaning.
enum Raw {
    Empty,
    Text(String),
    /// A number or truth value to YAML; the source text counts, and this only where there is none.
    Other(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Empty)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Other(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Turns what serde saw into nodes.
struct Settler<'a> {
    file: Rc<str>,
    text: &'a str,
    from: &'a dyn Surroundings,
    report: &'a mut Report,
}

impl Settler<'_> {
    fn node(&mut self, raw: Spanned<Raw>, path: Rc<str>) -> Node {
        let place = self.place(raw.defined);
        let kind = match raw.value {
            Raw::Empty => Kind::Empty,
            Raw::List(items) => Kind::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, format!("{path}[{index}]").into()))
                    .collect(),
            ),
            Raw::Map(entries) => self.map(entries, &path),
            value @ (Raw::Text(_) | Raw::Other(_)) => {
                let mut scalar = self.scalar(value, raw.defined);
                match substitute(&scalar.text, self.from) {
                    Ok(None) => Kind::Scalar(scalar),
                    Ok(Some(text)) => {
                        scalar.template = Some(std::mem::replace(&mut scalar.text, text));
                        Kind::Scalar(scalar)
                    }
                    Err(message) => {
                        self.report.add(&place, &path, message);
                        Kind::Broken
                    }
                }
            }
        };
        Node::new(place, path, kind, true)
    }

    fn map(&mut self, entries: Vec<(Spanned<Raw>, Spanned<Raw>)>, path: &str) -> Kind {
        let mut settled: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let place = self.place(key.defined);
            if !matches!(key.value, Raw::Text(_) | Raw::Other(_)) {
                self.report.add(&place, path, "a key is a single word here");
                continue;
            }
            let scalar = self.scalar(key.value, key.defined);
            if scalar.text.contains("${") {
                let told = "nothing is filled in in a key; write what it stands for";
                self.report.add(&place, path, format!("`{}`: {told}", scalar.text.escape_debug()));
                continue;
            }
            let dot = if path.is_empty() { "" } else { "." };
            let path: Rc<str> = format!("{path}{dot}{}", scalar.text.escape_debug()).into();
            match settled.iter().find(|(known, _)| known.scalar.text == scalar.text) {
                Some((known, _)) => {
                    self.report.add(&place, &path, format!("is already set at {}; each key stands once", known.place));
                }
                None => {
                    let node = self.node(value, path);
                    settled.push((Key { place, scalar }, node));
                }
            }
        }
        Kind::Map(settled)
    }

    fn scalar(&self, value: Raw, at: Location) -> Scalar {
        let span = at.span();
        let source = span.byte_offset().zip(span.byte_len()).and_then(|(from, length)| {
            let from = usize::try_from(from).ok()?;
            self.text.get(from..from.checked_add(usize::try_from(length).ok()?)?)
        });
        let source = source.map(str::trim);
        match value {
            Raw::Other(text) => Scalar { text: source.map_or(text, str::to_owned), template: None, plain: true },
            Raw::Text(text) => Scalar { plain: source.is_some_and(|source| source == text), text, template: None },
            Raw::Empty | Raw::List(_) | Raw::Map(_) => Scalar { text: String::new(), template: None, plain: true },
        }
    }

    fn place(&self, at: Location) -> Place {
        let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: Rc::clone(&self.file), line: whole(at.line()), column: whole(at.column()) }
    }
}
