//! The filter that a topic is subscribed by.

use std::rc::Rc;

use super::super::words::{Payload, TAG};
use super::{Named, Topic, absent};
use crate::config::error::Report;
use crate::config::section::At;
use crate::config::tree::Origin;

/// The topic's filter, once it and what is written beside it make sense together.
pub(super) fn filter<'a>(section: &'a At<Topic>, report: &mut Report) -> Option<Named<'a>> {
    let topic = &section.value;
    let payload = topic.payload.as_ref()?.value.0;
    let mut useless = |said: Option<&Rc<Origin>>, fits: bool, only: &str| {
        if let Some(said) = said.filter(|said| said.written && !fits) {
            said.wrong(report, format!("is of no use with `payload: {}`; only `{only}` has it", payload.word()));
        }
    };
    let (csv, sparkplug) = (payload == Payload::Csv, payload == Payload::Sparkplug);
    useless(topic.separator.as_ref().map(At::origin), csv, "csv");
    useless(topic.header.as_ref().map(At::origin), csv, "csv");
    useless(topic.group.as_ref().map(At::origin), sparkplug, "sparkplug");
    useless(topic.edge_node.as_ref().map(At::origin), sparkplug, "sparkplug");
    useless(topic.device.as_ref().map(At::origin), sparkplug, "sparkplug");
    if let Some(time) = topic.time.as_ref().filter(|_| matches!(payload, Payload::Plain | Payload::Sparkplug)) {
        let why = if sparkplug { "has times of its own" } else { "is one value and has no time in it" };
        time.wrong(report, format!("is of no use: `payload: {}` {why}", payload.word()));
    }
    if let Some(filter) = &topic.topic {
        if sparkplug {
            if let Some(other) = topic.group.as_ref().or(topic.edge_node.as_ref()) {
                other.wrong(report, "says the same as `topic`; write one of them");
            }
            if let Err(why) = takes_in_nodes(&filter.value.0) {
                filter.wrong(report, format!("`{}` {why}", filter.origin.shown));
                return None;
            }
        }
        let (shown, at) = (filter.origin.shown.to_string(), Rc::clone(&filter.origin));
        return Some(Named { topic, payload, filter: filter.value.0.clone(), shown, at });
    }
    match (&topic.group, &topic.edge_node) {
        (Some(group), Some(node)) if sparkplug => {
            let filter = format!("spBv1.0/{}/+/{}/#", group.value.0, node.value.0);
            Some(Named { topic, payload, shown: filter.clone(), filter, at: Rc::clone(&node.origin) })
        }
        (None, None) if sparkplug => {
            section.wrong(report, "the keys `group` and `edge_node` are missing, or `topic: spBv1.0/group/+/node/#`");
            None
        }
        (group, _) if sparkplug => absent(section, if group.is_none() { "group" } else { "edge_node" }, "", report),
        _ => absent(section, "topic", "", report),
    }
}

/// Births, deaths and sequence numbers of a node concern all of it.
fn takes_in_nodes(filter: &str) -> Result<(), &'static str> {
    if filter.starts_with("$share/") {
        return Err("shares a subscription, and births, deaths and data of a Sparkplug node belong together");
    }
    match *filter.split('/').collect::<Vec<_>>().as_slice() {
        ["spBv1.0", "#"] | ["spBv1.0", _, "#"] | ["spBv1.0", _, "+", "#"] => Ok(()),
        ["spBv1.0", _, "+", node, "#"] if node != TAG => Ok(()),
        _ => Err("does not take in all of a Sparkplug node, its births and deaths too; write `spBv1.0/group/+/node/#`"),
    }
}
