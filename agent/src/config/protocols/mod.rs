//! What each protocol adds to the configuration: its options, what single values may say in its words, and what its
//! driver is told. The drivers' own parsers decide; what they cannot know (suggestions, hosts with a password in
//! them) is added here.

mod gpio;
mod modbus;
mod mqtt;
mod opcua;

use serde_json::Value;

pub(super) use self::gpio::Gpio;
pub(super) use self::modbus::Modbus;
pub(super) use self::mqtt::{Mqtt, Separator};
pub(super) use self::opcua::Opcua;
use super::error::Report;
use super::raw::{StationOf, TagOptions, TreatOptions};
use super::resolve::{Links, Told};
use super::section::{Leaf, Section, Shape, expect_map, refuse_unknown};
use super::tree::{Node, Scalar};
use super::words::{OneOf, Word, text};
use super::{Source as Driven, suggest};

/// The protocols that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Modbus,
    Opcua,
    Mqtt,
    Gpio,
}

impl Word for Protocol {
    const WHAT: &'static str = "type of source";
    const FORM: &'static str = "`modbus`, `opcua`, `mqtt` or `gpio`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("modbus", Self::Modbus), ("opcua", Self::Opcua), ("mqtt", Self::Mqtt), ("gpio", Self::Gpio)]
    }
}

impl Protocol {
    /// As it is written.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Modbus => "modbus",
            Self::Opcua => "opcua",
            Self::Mqtt => "mqtt",
            Self::Gpio => "gpio",
        }
    }
}

/// A protocol, by what it adds to the configuration.
pub(super) trait Speaks: std::fmt::Debug + Sized {
    /// Its name.
    const PROTOCOL: Protocol;
    /// The options of a `source` of its type.
    type Source: Section;
    /// What its tags have beside [`TagOptions`].
    type Tag: Section;

    /// How a tag's registers are read; only Modbus says.
    fn data_type(_: &Self::Tag) -> Option<gemba_drivers::modbus::DataType> {
        None
    }

    /// How many tags this one stands for, if it is an array; they are named `name.0`, `name.1` and so on.
    fn parts(_: &Self::Tag) -> Option<u32> {
        None
    }

    /// What the keys of a source must be together.
    fn check_source(_: &Node, _: &mut Report) {}

    /// The same, for the schema.
    fn describe_source(_: &mut Value) {}

    /// Puts the station's tags on its link; the link's index.
    fn join(links: &mut Links, station: &StationOf<Self>, told: &Told<'_>, report: &mut Report) -> Option<usize>;
}

/// A driver's configuration in the making, with the options that belong to the link as a whole.
pub(super) enum Wire {
    Modbus(modbus::Draft),
    Opcua(Box<opcua::Draft>),
    Mqtt(Box<mqtt::Draft>),
    Gpio(gpio::Draft),
}

impl Wire {
    /// For the driver.
    pub(super) fn finish(self, report: &mut Report) -> Driven {
        match self {
            Self::Modbus(draft) => Driven::Modbus(draft.finish()),
            Self::Opcua(draft) => Driven::Opcua(draft.finish(report)),
            Self::Mqtt(draft) => Driven::Mqtt(draft.finish(report)),
            Self::Gpio(draft) => Driven::Gpio(draft.finish()),
        }
    }
}

/// The keys of every protocol's `source`.
const SOURCES: [(Protocol, &[&str]); 4] = [
    (Protocol::Modbus, <Modbus as Speaks>::Source::KEYS),
    (Protocol::Opcua, <Opcua as Speaks>::Source::KEYS),
    (Protocol::Mqtt, <Mqtt as Speaks>::Source::KEYS),
    (Protocol::Gpio, <Gpio as Speaks>::Source::KEYS),
];

/// Likewise, of its tags.
const TAGS: [(Protocol, &[&str]); 4] = [
    (Protocol::Modbus, <Modbus as Speaks>::Tag::KEYS),
    (Protocol::Opcua, <Opcua as Speaks>::Tag::KEYS),
    (Protocol::Mqtt, <Mqtt as Speaks>::Tag::KEYS),
    (Protocol::Gpio, <Gpio as Speaks>::Tag::KEYS),
];

/// Whose key this is, if it is another protocol's.
fn owners(key: &str, of: Protocol, all: &[(Protocol, &[&str])]) -> Option<String> {
    let others = all.iter().filter(|(other, keys)| *other != of && keys.contains(&key));
    let owners: Vec<_> = others.map(|(other, _)| other.word()).collect();
    (!owners.is_empty()).then(|| format!("it belongs to {}, and this is `{}`", suggest::list(owners), of.word()))
}

/// The options of a `source`.
#[derive(Debug)]
pub(super) struct Source<P: Speaks>(pub(super) P::Source);

impl<P: Speaks> Shape for Source<P> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let allowed = P::Source::KEYS;
        refuse_unknown(node, allowed, &|key| owners(key, P::PROTOCOL, &SOURCES), report);
        P::check_source(node, report);
        P::Source::read_keys(node, report).map(Self)
    }

    fn schema() -> Value {
        let mut schema = P::Source::describe();
        schema["properties"]["type"]["const"] = P::PROTOCOL.word().into();
        P::describe_source(&mut schema);
        schema
    }
}

/// A tag: what every tag has, what is done with its readings, and what its protocol adds.
#[derive(Debug)]
pub(super) struct Tag<P: Speaks> {
    pub(super) common: TagOptions,
    /// Most tags have none of it, and there are many tags.
    pub(super) treat: Option<Box<TreatOptions>>,
    /// Nothing, for a tag that is computed.
    pub(super) own: P::Tag,
}

impl<P: Speaks> Tag<P> {
    /// Whether it is computed from others, and not read.
    pub(super) fn is_computed(&self) -> bool {
        self.treat.as_ref().is_some_and(|options| options.expression.is_some())
    }
}

impl<P: Speaks> Shape for Tag<P> {
    fn read(node: &Node, report: &mut Report) -> Option<Self> {
        expect_map(node, report)?;
        let allowed = [TagOptions::KEYS, P::Tag::KEYS, TreatOptions::KEYS].concat();
        refuse_unknown(node, &allowed, &|key| owners(key, P::PROTOCOL, &TAGS), report);
        let common = TagOptions::read_keys(node, report);
        let treated = TreatOptions::KEYS.iter().any(|key| node.get(key).is_some());
        let treat = if treated { TreatOptions::read_keys(node, report).map(Box::new) } else { None };
        let own = if node.get("expression").is_some() {
            for (key, value) in P::Tag::KEYS.iter().filter_map(|key| Some((key, node.get(key)?))) {
                let message =
                    format!("a tag with `expression` is computed, not read: leave `{key}` or `expression` out");
                value.wrong(report, message);
            }
            Some(P::Tag::none())
        } else {
            P::Tag::read_keys(node, report)
        };
        Some(Self { common: common?, treat, own: own? })
    }

    fn schema() -> Value {
        let mut schema = P::Tag::describe();
        let own = schema["properties"].as_object().into_iter().flatten().map(|(key, _)| (key.clone(), false.into()));
        let own: serde_json::Map<_, _> = own.collect();
        for (key, option) in [TagOptions::describe(), TreatOptions::describe()]
            .iter_mut()
            .filter_map(|of_all| of_all["properties"].as_object_mut())
            .flat_map(std::mem::take)
        {
            schema["properties"][key] = option;
        }
        // A tag that is computed is not read: what its protocol asks for is asked of the others only.
        schema["if"] = serde_json::json!({ "required": ["expression"] });
        schema["then"] = serde_json::json!({ "properties": own });
        schema["else"] = serde_json::json!({ "required": schema["required"] });
        for rule in ["oneOf", "anyOf", "not"] {
            if let Some(rules) = schema.as_object_mut().and_then(|schema| schema.remove(rule)) {
                schema["else"][rule] = rules;
            }
        }
        schema["required"] = TagOptions::describe()["required"].take();
        schema
    }
}

/// The `type` of a source, already looked at.
#[derive(Debug)]
pub(super) struct Known;

impl Leaf for Known {
    const FORM: &'static str = <OneOf<Protocol> as Leaf>::FORM;

    fn parse(_: &Scalar) -> Result<Self, String> {
        Ok(Self)
    }

    fn schema() -> Value {
        serde_json::json!({})
    }
}

/// The endpoint's text, unless it holds a password; a missing or misspelt scheme is named.
fn endpoint<'a>(scalar: &'a Scalar, protocol: &str, scheme: &str, example: &str) -> Result<&'a str, String> {
    let text = text(scalar)?;
    if text.contains('@') {
        // Whatever stands before the `@` may be a password: it is not quoted.
        return Err("an endpoint holds no user name or password; take out what stands before the `@`".to_owned());
    }
    match text.split_once("://") {
        Some((said, rest)) => {
            let article = if protocol == "Modbus" { "a" } else { "an" };
            if !said.starts_with(scheme) && suggest::nearest(said, [scheme]).is_some() {
                return Err(format!("`{text}` is no {protocol} endpoint; did you mean `{scheme}://{rest}`?"));
            }
            if ["http", "https"].contains(&said) {
                return Err(format!(
                    "`{text}` is no {protocol} endpoint; {article} {protocol} one looks like `{example}`"
                ));
            }
            Ok(text)
        }
        None if !text.contains([' ', '/']) && !text.is_empty() => {
            Err(format!("`{text}` is no {protocol} endpoint; did you mean `{scheme}://{text}`?"))
        }
        None => Err(format!("`{text}` is no {protocol} endpoint; write it as `{example}`")),
    }
}

fn host_is_sane(text: &str, host: &str) -> Result<(), String> {
    let sane = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._:%".contains(c));
    let address =
        !host.contains(':') || host.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    if sane && address { Ok(()) } else { Err(format!("`{text}`: `{host}` is no host name or address")) }
}
