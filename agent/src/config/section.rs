//! How options are declared: once, for reading, for defaults and for the schema.
//!
//! A [`section!`] is a struct whose fields are the allowed keys. Reading one never stops at the first
//! error: what is wrong is reported, and the field stays `None`.

use std::ops::Deref;
use std::rc::Rc;

use serde_json::{Value, json};

use super::error::{Place, Report};
use super::suggest;
use super::tree::{Key, Kind, Node, Origin, Scalar};

/// Something that can be read from a node.
pub(super) trait Shape: Sized {
    /// What `node` says; `None` when it is wrong, which is then reported.
    fn read(node: &Node, report: &mut Report) -> Option<Self>;

    /// Its JSON Schema.
    fn schema() -> Value;
}

/// Something that can be read from a single value.
pub(super) trait Leaf: Sized {
    /// What is expected, for people: ``a duration such as `250ms` ``.
    const FORM: &'static str;

    /// What `scalar` means.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    fn parse(scalar: &Scalar) -> Result<Self, String>;

    /// Its JSON Schema.
    fn schema() -> Value;
}

/// A [`Shape`] with a fixed list of keys, which may share its map with others.
pub(super) trait Section: std::fmt::Debug + Sized {
    /// Every key.
    const KEYS: &'static [&'static str];

    /// What `node` says under these keys; what else it says is somebody else's.
    fn read_keys(node: &Node, report: &mut Report) -> Option<Self>;

    /// Where none of its keys may stand.
    fn none() -> Self;

    /// Its JSON Schema.
    fn describe() -> Value;
}

/// A value that remembers where it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) origin: Rc<Origin>,
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> At<T> {
    /// Where it was written: all alike, whatever the value is.
    pub(super) fn origin(&self) -> &Rc<Origin> {
        &self.origin
    }

    /// Reports what is wrong with it.
    pub(super) fn wrong(&self, report: &mut Report, message: impl Into<String>) {
        self.origin.wrong(report, message);
    }
}

impl Origin {
    /// Reports what is wrong with what stands here.
    pub(super) fn wrong(&self, report: &mut Report, message: impl Into<String>) {
        report.add(&self.place, &self.path, message);
    }
}

impl<T: Shape> At<T> {
    /// What `node` says, with its place.
    #[inline(never)] // for size: many options have the same shape
    pub(super) fn read(node: &Node, report: &mut Report) -> Option<Self> {
        Some(Self { value: T::read(node, report)?, origin: Rc::clone(&node.origin) })
    }

    /// Option `key` of `section`: as it is written, or its default.
    #[inline(never)]
    pub(super) fn option(section: &Node, key: &str, need: Need, report: &mut Report) -> Option<Self> {
        match section.get(key) {
            Some(node) => Self::read(node, report),
            None => Self::read(&need.absent(section, key, report)?, report),
        }
    }
}

/// What holds for an option that is left out.
#[derive(Clone, Copy)]
pub(super) enum Need {
    Required,
    Optional,
    /// It is this, as JSON.
    Default(&'static str),
}

impl Need {
    /// What stands in place of `key`, which `section` does not have.
    #[inline(never)]
    fn absent(self, section: &Node, key: &str, report: &mut Report) -> Option<Node> {
        match self {
            Self::Required => {
                section.wrong(report, format!("the key `{key}` is missing"));
                None
            }
            Self::Optional => None,
            Self::Default(_) => Some(defaulted(&section.place, join(&section.path, key), &self.default()?)),
        }
    }

    fn default(self) -> Option<Value> {
        let Self::Default(json) = self else { return None };
        Some(serde_json::from_str(json).expect("a default is JSON: every one is read by the tests"))
    }
}

/// A default as if it were written: a single value, or a list.
fn defaulted(place: &Place, path: String, default: &Value) -> Node {
    let kind = match default {
        Value::Array(items) => {
            let item = |(index, item)| defaulted(place, format!("{path}[{index}]"), item);
            Kind::List(items.iter().enumerate().map(item).collect())
        }
        Value::String(text) => Kind::Scalar(Scalar { text: text.clone(), template: None, plain: false }),
        other => Kind::Scalar(Scalar { text: other.to_string(), template: None, plain: true }),
    };
    Node::new(place.clone(), path.into(), kind, false)
}

impl<T: Leaf> Shape for T {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        let scalar = scalar(node, T::FORM, report)?;
        T::parse(scalar).map_err(|message| refuse(node, scalar, T::FORM, message, report)).ok()
    }

    fn schema() -> Value {
        <T as Leaf>::schema()
    }
}

/// The single value in `node`, or a report.
#[inline(never)]
fn scalar<'a>(node: &'a Node, form: &str, report: &mut Report) -> Option<&'a Scalar> {
    let Kind::Scalar(scalar) = &node.kind else {
        expected(node, form, report);
        return None;
    };
    Some(scalar)
}

/// Reports that `scalar` is not what it should be.
#[inline(never)]
fn refuse(node: &Node, scalar: &Scalar, form: &str, message: String, report: &mut Report) {
    let message = match &scalar.template {
        None => message,
        // The message may quote what was filled in, and that may be a secret.
        Some(template) => format!("`{template}`, filled in, is not {form}"),
    };
    node.wrong(report, message);
}

/// Reports that something else than `form` stands there, unless what stands there was reported before.
#[inline(never)]
fn expected(node: &Node, form: &str, report: &mut Report) {
    if !matches!(node.kind, Kind::Broken) {
        node.wrong(report, format!("expected {form}, found {}", node.what()));
    }
}

impl<T: Shape> Shape for Vec<At<T>> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::List(items) => {
                // Room for all at once: ten thousand tags that grow by doubling leave their traces in the heap for good.
                let mut all = Self::with_capacity(items.len());
                all.extend(items.iter().filter_map(|item| At::read(item, report)));
                // None that can be read is wrong, and has been reported; it is not the same as none.
                (items.is_empty() || !all.is_empty()).then_some(all)
            }
            Kind::Empty => Some(Self::new()),
            Kind::Broken | Kind::Scalar(_) | Kind::Map(_) => {
                expected(node, "a list, each entry led by `-`", report);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

const SECTION: &str = "a section of `key: value`";

/// A map with keys of the user's own.
#[derive(Debug)]
pub(super) struct Entries<V>(pub(super) Vec<(Key, At<V>)>);

impl<V: Shape> Shape for Entries<V> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        match &node.kind {
            Kind::Map(entries) => {
                let read = |(key, value): &(Key, Node)| Some((key.clone(), At::read(value, report)?));
                let all: Vec<_> = entries.iter().filter_map(read).collect();
                // As with a list: none that can be read is not the same as none.
                (entries.is_empty() || !all.is_empty()).then_some(Self(all))
            }
            Kind::Empty => Some(Self(Vec::new())),
            Kind::Broken | Kind::Scalar(_) | Kind::List(_) => {
                expected(node, SECTION, report);
                None
            }
        }
    }

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": V::schema() })
    }
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// How many allowed keys a message lists: more are no help.
const MOST_LISTED: usize = 5;

/// Reports each key of `node` that is not among `allowed`; `hint` may know where it belongs.
pub(super) fn refuse_unknown(
    node: &Node,
    allowed: &[&str],
    hint: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) {
    let Kind::Map(entries) = &node.kind else { return };
    for (key, value) in entries {
        let word = key.scalar.text.as_str();
        if allowed.contains(&word) {
            continue;
        }
        let help = if let Some(hint) = hint(word) {
            format!("; {hint}")
        } else if let Some(known) = suggest::nearest(word, allowed.iter().copied()) {
            format!("; did you mean `{known}`?")
        } else if allowed.len() <= MOST_LISTED {
            format!("; allowed here: {}", suggest::list(allowed.iter().copied()))
        } else {
            "; nothing like it is allowed here (`gemba schema` lists what is)".to_owned()
        };
        report.add(&key.place, &value.path, format!("unknown key{help}"));
    }
}

/// The map in `node`, or a report.
pub(super) fn expect_map(node: &Node, report: &mut Report) -> Option<()> {
    if !matches!(node.kind, Kind::Map(_)) {
        expected(node, SECTION, report);
        return None;
    }
    Some(())
}

/// An option, as its schema tells of it.
pub(super) struct Described {
    pub(super) key: &'static str,
    pub(super) about: &'static [&'static str],
    pub(super) schema: fn() -> Value,
    pub(super) need: Need,
}

/// The JSON Schema of a section with these options. Each section is a table for it: code for each would be the largest part
/// of reading a configuration.
pub(super) fn describe(about: &[&str], options: &[Described]) -> Value {
    let mut properties = serde_json::Map::new();
    for option in options {
        let mut property = (option.schema)();
        property["description"] = prose(option.about).into();
        if let Some(default) = option.need.default() {
            property["default"] = default;
        }
        properties.insert(option.key.to_owned(), property);
    }
    let required: Vec<&str> =
        options.iter().filter(|option| matches!(option.need, Need::Required)).map(|option| option.key).collect();
    json!({
        "type": "object",
        "description": prose(about),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Declares a section: a struct of allowed keys, each `required`, `optional`, or with a default, which is written as JSON.
macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident $(<$param:ident: $bound:path>)? {
        $($(#[doc = $field_doc:literal])+ $field:ident: $shape:ty => $need:ident $(($default:tt))?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(in crate::config) struct $name $(<$param: $bound>)? {
            $($(#[doc = $field_doc])+ pub(in crate::config) $field: Option<$crate::config::section::At<$shape>>,)+
        }

        impl $(<$param: $bound>)? $crate::config::section::Section for $name $(<$param>)? {
            const KEYS: &'static [&'static str] = &[$($crate::config::section::key_name(stringify!($field))),+];

            fn read_keys(
                node: &$crate::config::tree::Node,
                report: &mut $crate::config::error::Report,
            ) -> Option<Self> {
                use $crate::config::section::*;
                expect_map(node, report)?;
                Some(Self { $($field: {
                    At::<$shape>::option(node, key_name(stringify!($field)), section!(@need $need $(($default))?), report)
                },)+ })
            }

            fn none() -> Self {
                Self { $($field: None,)+ }
            }

            fn describe() -> serde_json::Value {
                use $crate::config::section::*;
                describe(&[$($doc),+], &[$(Described {
                    key: key_name(stringify!($field)),
                    about: &[$($field_doc),+],
                    schema: <$shape as Shape>::schema,
                    need: section!(@need $need $(($default))?),
                }),+])
            }
        }

        impl $(<$param: $bound>)? $crate::config::section::Shape for $name $(<$param>)? {
            fn read(
                node: &$crate::config::tree::Node,
                report: &mut $crate::config::error::Report,
            ) -> Option<Self> {
                use $crate::config::section::*;
                expect_map(node, report)?;
                refuse_unknown(node, Self::KEYS, &|_| None, report);
                Self::read_keys(node, report)
            }

            fn schema() -> serde_json::Value {
                <Self as $crate::config::section::Section>::describe()
            }
        }
    };
    (@need required) => { Need::Required };
    (@need optional) => { Need::Optional };
    (@need default($default:tt)) => { Need::Default(stringify!($default)) };
}
pub(super) use section;

/// A field's key: `r#type` is written `type`.
pub(super) const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Doc comments as one paragraph.
pub(super) fn prose(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}
