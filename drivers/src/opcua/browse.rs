//! What a server offers: the variables below its objects folder.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use opcua::types::{
    AttributeId, BrowseDirection, DataValue, EUInformation, NodeClass, NodeClassMask, NodeId, ObjectId, ReadValueId,
    ReferenceDescription, ReferenceTypeId, TimestampsToReturn, Variant,
};

use super::ask::references;
use super::link::Link;
use super::{Node, convert, units};
use crate::survey::Offered;
use crate::{LinkError, Value};

/// Nodes that are looked into at most: a server without end is left at some point.
const MOST_VISITED: usize = 100_000;
/// Variables whose attributes are asked for together.
const TOGETHER: usize = 100;

/// A variable that was found.
struct Variable {
    node: NodeId,
    /// Browse names from the objects folder on.
    path: Arc<Trail>,
    unit: Option<NodeId>,
}

/// Names on the way to a node.
struct Trail {
    above: Option<Arc<Trail>>,
    name: String,
}

impl Trail {
    fn names(&self) -> Vec<&str> {
        let mut names = self.above.as_deref().map(Self::names).unwrap_or_default();
        names.push(&self.name);
        names
    }
}

/// Tells the variables below the objects folder, nearest first, each once; the server's own description of itself is
/// left out, and so are properties of OPC UA's own namespace: they say something of the node that has them.
pub(super) async fn variables(
    link: &mut Link,
    namespaces: &[String],
    most: usize,
    found: &mut (dyn FnMut(Offered) + Send),
) -> Result<(), LinkError> {
    let variables = walk(link, most).await?;
    let a_call = link.a_call;
    let mut names = Names::default();
    let mut types = HashMap::new();
    for piece in variables.chunks(TOGETHER.min((a_call / 3).max(1))) {
        const ATTRIBUTES: [AttributeId; 3] = [AttributeId::Value, AttributeId::DataType, AttributeId::UserAccessLevel];
        let asked = piece.iter().flat_map(|found| ATTRIBUTES.map(|of| ReadValueId::new(found.node.clone(), of)));
        let answers = link.read(asked.collect(), TimestampsToReturn::Neither).await?;
        let units: Vec<_> = piece.iter().filter_map(|found| found.unit.clone()).collect();
        let asked = units.iter().map(|unit| ReadValueId::new(unit.clone(), AttributeId::Value)).collect();
        let mut units = link.read(asked, TimestampsToReturn::Neither).await?.into_iter();
        name_types(link, &answers, &mut types).await?;
        for (variable, answers) in piece.iter().zip(answers.chunks_exact(ATTRIBUTES.len())) {
            let unit = variable.unit.as_ref().and_then(|_| units.next()).and_then(unit);
            found(offered(variable, answers, unit, namespaces, &types, &mut names));
        }
    }
    Ok(())
}

async fn walk(link: &mut Link, most: usize) -> Result<Vec<Variable>, LinkError> {
    let top = Arc::new(Trail { above: None, name: "Objects".to_owned() });
    let mut level = vec![(NodeId::from(ObjectId::ObjectsFolder), top, None)];
    let mut seen = HashSet::from([NodeId::from(ObjectId::ObjectsFolder), NodeId::from(ObjectId::Server)]);
    let mut variables: Vec<Variable> = Vec::new();
    while !level.is_empty() && variables.len() < most && seen.len() < MOST_VISITED {
        let ask = |(node, _, _): &(NodeId, _, _)| {
            let classes = NodeClassMask::OBJECT | NodeClassMask::VARIABLE;
            references(node.clone(), ReferenceTypeId::HierarchicalReferences, BrowseDirection::Forward, classes)
        };
        let answers = link.browse(level.iter().map(ask).collect()).await?;
        for ((_, trail, of), references) in mem::take(&mut level).into_iter().zip(answers) {
            for reference in references {
                let ReferenceDescription { reference_type_id, node_id, browse_name, node_class, .. } = reference;
                if node_id.server_index != 0 {
                    continue;
                }
                let own = browse_name.namespace_index == 0;
                if own && reference_type_id == ReferenceTypeId::HasProperty {
                    if browse_name.name.as_ref() == "EngineeringUnits"
                        && let Some(of) = of
                    {
                        let of: usize = of;
                        variables[of].unit = Some(node_id.node_id);
                    }
                    continue;
                }
                if !seen.insert(node_id.node_id.clone()) {
                    continue;
                }
                let name = browse_name.name.as_ref().to_owned();
                let path = Arc::new(Trail { above: Some(trail.clone()), name });
                let mut place = None;
                if node_class == NodeClass::Variable {
                    place = Some(variables.len());
                    variables.push(Variable { node: node_id.node_id.clone(), path: path.clone(), unit: None });
                }
                level.push((node_id.node_id, path, place));
            }
        }
    }
    // The last ones may have a unit, which stands one level below them.
    if variables.len() >= most && !level.is_empty() {
        let last: Vec<_> = level.into_iter().filter_map(|(node, _, place)| Some((node, place?))).collect();
        let ask = |(node, _): &(NodeId, usize)| {
            let (property, classes) = (ReferenceTypeId::HasProperty, NodeClassMask::VARIABLE);
            references(node.clone(), property, BrowseDirection::Forward, classes)
        };
        let answers = link.browse(last.iter().map(ask).collect()).await?;
        for ((_, place), references) in last.into_iter().zip(answers) {
            let unit = references.into_iter().find(|found| found.browse_name.name.as_ref() == "EngineeringUnits");
            variables[place].unit = unit.map(|found| found.node_id.node_id);
        }
    }
    variables.truncate(most);
    Ok(variables)
}

fn offered(
    variable: &Variable,
    answers: &[DataValue],
    unit: Option<&'static str>,
    namespaces: &[String],
    types: &HashMap<NodeId, String>,
    names: &mut Names,
) -> Offered {
    let path = variable.path.names();
    let mut about = path.join("/");
    let mut options = vec![("node", Node::named(&variable.node, namespaces).to_string())];
    let value = answers.first().and_then(|answer| answer.value.clone()).unwrap_or_default();
    if let Some(Variant::NodeId(id)) = answers.get(1).and_then(|answer| answer.value.as_ref()) {
        about += ", ";
        about += types.get(id).map_or("?", String::as_str);
    }
    let value = match value {
        // As it stands it would be no value: its first element is one.
        Variant::Array(mut array) => {
            about += &format!("[{}]", array.values.len());
            options.push(("index", "0".to_owned()));
            if array.values.is_empty() { Variant::Empty } else { array.values.swap_remove(0) }
        }
        one => one,
    };
    if let Some(Variant::Byte(level)) = answers.get(2).and_then(|answer| answer.value.as_ref()) {
        about += match level & 0b11 {
            0b01 => ", read",
            0b10 => ", write",
            0b11 => ", read and write",
            _ => ", no access",
        };
    }
    let value = convert::value(value).ok().filter(|value| *value != Value::Null);
    Offered { name: names.take(&path), options, unit: unit.map(str::to_owned), about, value }
}

/// Finds out what the data types in `answers` are called.
async fn name_types(
    link: &mut Link,
    answers: &[DataValue],
    names: &mut HashMap<NodeId, String>,
) -> Result<(), LinkError> {
    let mut strange = Vec::new();
    for answer in answers {
        let Some(Variant::NodeId(id)) = &answer.value else { continue };
        if names.contains_key(id) || strange.contains(&**id) {
            continue;
        }
        match id.as_data_type_id() {
            Ok(known) => drop(names.insert((**id).clone(), format!("{known:?}"))),
            Err(_) => strange.push((**id).clone()),
        }
    }
    let asked = strange.iter().map(|id| ReadValueId::new(id.clone(), AttributeId::BrowseName)).collect();
    let answers = link.read(asked, TimestampsToReturn::Neither).await?;
    for (id, answer) in strange.into_iter().zip(answers) {
        if let Some(Variant::QualifiedName(name)) = answer.value {
            names.insert(id, name.name.as_ref().to_owned());
        }
    }
    Ok(())
}

fn unit(answer: DataValue) -> Option<&'static str> {
    let Some(Variant::ExtensionObject(object)) = answer.value else { return None };
    let unit = object.inner_as::<EUInformation>()?;
    units::ucum(unit.namespace_uri.as_ref(), unit.unit_id)
}

/// Names for tags, each once.
#[derive(Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
    /// The shortest end of `path` that is not taken yet, in characters that a tag's name may have.
    fn take(&mut self, path: &[&str]) -> String {
        const LONGEST: usize = 120;
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-/".contains(c) { c } else { '_' };
        let sane: Vec<String> = path.iter().map(|name| name.chars().map(allowed).take(LONGEST).collect()).collect();
        let ends = (1..sane.len()).map(|from| sane[sane.len() - from..].join("."));
        let free = ends.take_while(|end| end.len() <= LONGEST).find(|end| !end.is_empty() && !self.0.contains_key(end));
        let name = free.unwrap_or_else(|| {
            let end = sane.last().filter(|end| !end.is_empty()).map_or("tag", String::as_str).to_owned();
            let mut number = self.0.get(&end).copied().unwrap_or(1);
            loop {
                number += 1;
                let name = format!("{end}_{number}");
                if !self.0.contains_key(&name) {
                    self.0.insert(end, number);
                    return name;
                }
            }
        });
        self.0.insert(name.clone(), 1);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_sane_and_taken_once() {
        let mut names = Names::default();
        let mut take = |path: &str| names.take(&path.split('|').collect::<Vec<_>>());
        assert_eq!(take("Objects|AOI|State"), "State");
        assert_eq!(take("Objects|Oven|State"), "Oven.State");
        assert_eq!(take("Objects|Oven|State"), "State_2");
        assert_eq!(take("Objects|Oven|State"), "State_3");
        assert_eq!(take("Objects|Temperatur in °C [1]"), "Temperatur_in__C__1_");
        assert_eq!(take("Objects|"), "tag_2");
        assert_eq!(take("Objects|温度"), "__");
        let long = "x".repeat(500);
        assert_eq!(take(&format!("Objects|{long}")).len(), 120);
        assert!(take(&format!("Objects|{long}")).len() <= 128);
    }
}
