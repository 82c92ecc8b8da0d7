//! What a server says of its data types: the names of enumerations, and how its structures are laid out.
//!
//! Only the types of tags that need it are looked up, once for each connect: a whole type system is thousands of nodes.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::sync::Arc;

use opcua::types::custom::{
    DataTypeTree, DataTypeVariant, DynamicStructure, DynamicTypeLoader, EncodingIds, ParentIds, TypeInfo, TypeInfoRef,
};
use opcua::types::{
    AttributeId, BrowseDirection, ContextOwned, DataTypeDefinition, DataTypeId, DataValue, DecodingOptions,
    EnumDefinition, EnumValueType, ExtensionObject, LocalizedText, NamespaceMap, NodeClassMask, NodeId, ObjectId,
    ReadValueId, ReferenceTypeId, StatusCode, StructureDefinition, StructureField, StructureType, TimestampsToReturn,
    TypeLoader, UAString, Variant,
};

use super::ask::references;
use super::link::Link;
use super::path;
use super::pick::Field;
use crate::LinkError;

/// How deep structures and their supertypes may lie.
const DEEPEST: usize = 16;

/// The names of an enumeration's values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names(HashMap<i64, Arc<str>>);

impl Names {
    /// The name of `value`, or the number as text where the enumeration has none; what is no whole number stays.
    pub(super) fn of(&self, value: Variant) -> Variant {
        let number = match value {
            Variant::Boolean(on) => i64::from(on),
            Variant::SByte(number) => number.into(),
            Variant::Byte(number) => number.into(),
            Variant::Int16(number) => number.into(),
            Variant::UInt16(number) => number.into(),
            Variant::Int32(number) => number.into(),
            Variant::UInt32(number) => number.into(),
            Variant::Int64(number) => number,
            other => return other,
        };
        Variant::String(self.0.get(&number).map_or_else(|| number.to_string().into(), |name| UAString::from(&**name)))
    }

    /// `EnumStrings` (a name for each number from 0 on) or `EnumValues`; none if it is neither.
    fn read(property: Variant) -> Option<Self> {
        let Variant::Array(array) = property else { return None };
        let name = |(at, value)| match value {
            Variant::LocalizedText(text) => Some((i64::try_from(at).ok()?, Arc::from(text.text.as_ref()))),
            Variant::ExtensionObject(object) => {
                let value = object.inner_as::<EnumValueType>()?;
                Some((value.value, Arc::from(value.display_name.text.as_ref())))
            }
            _ => None,
        };
        let names: HashMap<_, _> = array.values.into_iter().enumerate().filter_map(name).collect();
        (!names.is_empty()).then_some(Self(names))
    }
}

/// The data types of some nodes, as far as they were looked up.
pub(super) struct Types {
    tree: Arc<DataTypeTree>,
    loader: Arc<DynamicTypeLoader>,
    context: ContextOwned,
    names: HashMap<NodeId, Arc<Names>>,
}

impl Default for Types {
    fn default() -> Self {
        Self::new(DataTypeTree::new(ParentIds::new()), HashMap::new())
    }
}

impl Types {
    fn new(tree: DataTypeTree, names: HashMap<NodeId, Arc<Names>>) -> Self {
        let tree = Arc::new(tree);
        let loader = Arc::new(DynamicTypeLoader::new(Arc::clone(&tree)));
        // A structure in a structure is opened by this one too; those of OPC UA itself the library knows.
        let mut context = ContextOwned::new_default(NamespaceMap::new(), DecodingOptions::default());
        context.loaders_mut().add(Arc::clone(&loader) as Arc<dyn TypeLoader>);
        Self { tree, loader, context, names }
    }

    /// Looks `wanted` up, and what their fields are made of.
    pub(super) async fn learn(link: &mut Link, wanted: impl IntoIterator<Item = NodeId>) -> Result<Self, LinkError> {
        let mut lore = Lore::default();
        let mut fresh: Vec<_> = wanted.into_iter().filter(|id| lore.seen.insert(id.clone())).collect();
        for _ in 0..DEEPEST {
            if fresh.is_empty() {
                break;
            }
            lore.place(link, &fresh).await?;
            fresh = lore.define(link, fresh).await?;
        }
        Ok(lore.settle())
    }

    /// The enumeration of a node of this type, or of `field` of it.
    pub(super) fn names(&self, data_type: &NodeId, field: Option<&Field>) -> Option<Arc<Names>> {
        let mut of = data_type;
        for name in field.iter().flat_map(|field| field.names()) {
            of = &self.tree.get_struct_type(of)?.get_field_by_name(name)?.type_id;
        }
        self.names.get(of).cloned()
    }

    /// A field of a structure. A structure that is not known stays what it is: no value.
    pub(super) fn field(&self, of: &Variant, name: &str) -> Result<Variant, StatusCode> {
        let object = match of {
            Variant::ExtensionObject(object) => object,
            Variant::Variant(inner) => return self.field(inner, name),
            _ => return Err(StatusCode::BadTypeMismatch),
        };
        let opened = self.open(object);
        let Some((structure, kind)) = opened.as_ref().and_then(|opened| {
            let kind = self.tree.get_struct_type(&opened.data_type()?.node_id)?;
            Some((opened.inner_as::<DynamicStructure>()?, kind))
        }) else {
            return Ok(of.clone());
        };
        let Some(&at) = kind.index_by_name.get(name) else { return Err(StatusCode::BadNoMatch) };
        let value = match kind.structure_type {
            // It holds one of its fields, the one that its first four bytes count to from 1 on.
            StructureType::Union => {
                let bytes = opened.as_ref().and_then(|opened| self.bytes(opened)).unwrap_or_default();
                let active = bytes.first_chunk().map(|four| u32::from_le_bytes(*four) as usize);
                structure.get_field(0).filter(|_| active == Some(at + 1))
            }
            _ => structure.get_field(at),
        };
        Ok(match value {
            Some(Variant::Variant(inner)) => (**inner).clone(),
            Some(value) => value.clone(),
            None => Variant::Empty,
        })
    }

    /// A structure by its fields. What the library took for a type of its own is written down and read again.
    fn open(&self, object: &ExtensionObject) -> Option<ExtensionObject> {
        if object.inner_is::<DynamicStructure>() {
            return Some(object.clone());
        }
        let bytes = self.bytes(object)?;
        let (id, length) = (object.body.as_ref()?.binary_type_id().node_id, bytes.len());
        let context = self.context.context();
        let opened = self.loader.load_from_binary(&id, &mut Cursor::new(bytes), &context, Some(length))?.ok()?;
        Some(ExtensionObject { body: Some(opened) })
    }

    /// A structure as it goes over the wire.
    fn bytes(&self, object: &ExtensionObject) -> Option<Vec<u8>> {
        let body = object.body.as_ref()?;
        let context = self.context.context();
        let mut bytes = Vec::with_capacity(body.byte_len_dyn(&context));
        body.encode_binary(&mut bytes, &context).ok()?;
        Some(bytes)
    }
}

/// What was found out so far.
#[derive(Default)]
struct Lore {
    seen: HashSet<NodeId>,
    parents: HashMap<NodeId, NodeId>,
    definitions: Vec<(NodeId, DataTypeDefinition, NodeId)>,
    names: HashMap<NodeId, Arc<Names>>,
}

impl Lore {
    /// Finds the supertypes of `types` up to one that is built in.
    async fn place(&mut self, link: &mut Link, types: &[NodeId]) -> Result<(), LinkError> {
        let mut open = types.to_vec();
        for _ in 0..DEEPEST {
            open.retain(|id| !is_basic(id) && !self.parents.contains_key(id));
            if open.is_empty() {
                return Ok(());
            }
            let ask = |id: &NodeId| {
                references(id.clone(), ReferenceTypeId::HasSubtype, BrowseDirection::Inverse, NodeClassMask::DATA_TYPE)
            };
            let found = link.browse(open.iter().map(ask).collect()).await?;
            let mut next = Vec::new();
            for (id, references) in open.into_iter().zip(found) {
                let told = references.into_iter().next().map(|reference| reference.node_id.node_id);
                let Some(parent) = told.or_else(|| known_parent(&id)) else { continue };
                next.push(parent.clone());
                self.parents.insert(id, parent);
            }
            open = next;
        }
        Ok(())
    }

    /// Reads how `types` are made, and returns the types of their fields that were not looked at yet.
    async fn define(&mut self, link: &mut Link, types: Vec<NodeId>) -> Result<Vec<NodeId>, LinkError> {
        let parents = self.parent_ids();
        let structure = |id: &NodeId| matches!(parents.get_data_type_variant(id), Some(DataTypeVariant::Structure));
        let enumeration = |id: &NodeId| matches!(parents.get_data_type_variant(id), Some(DataTypeVariant::Enumeration));
        let types: Vec<_> =
            types.into_iter().filter(|id| !is_basic(id) && (structure(id) || enumeration(id))).collect();
        let told = read_all(link, &types, AttributeId::DataTypeDefinition).await?;

        let mut fresh = Vec::new();
        let (mut nameless, mut bare) = (Vec::new(), Vec::new());
        for (id, told) in types.into_iter().zip(told) {
            let object = match told.value {
                Some(Variant::ExtensionObject(object)) => object,
                _ => ExtensionObject::null(),
            };
            if enumeration(&id) {
                match object.into_inner_as::<EnumDefinition>().and_then(|definition| names(&definition)) {
                    Some(names) => drop(self.names.insert(id, Arc::new(names))),
                    None => nameless.push(id),
                }
                continue;
            }
            let told = object.into_inner_as::<StructureDefinition>().map(|told| *told);
            let Some(definition) = told.or_else(|| known_structure(&id)) else { continue };
            for field in definition.fields.iter().flatten() {
                if self.seen.insert(field.data_type.clone()) {
                    fresh.push(field.data_type.clone());
                }
            }
            bare.push((id, definition));
        }
        for (id, names) in enumerations(link, nameless).await? {
            self.names.insert(id, names);
        }
        self.encode(link, bare).await?;
        Ok(fresh)
    }

    /// Finds out by which name structures come over the wire. The definition should say; old servers leave it out.
    async fn encode(&mut self, link: &mut Link, types: Vec<(NodeId, StructureDefinition)>) -> Result<(), LinkError> {
        let (silent, told): (Vec<_>, Vec<_>) =
            types.into_iter().partition(|(_, definition)| definition.default_encoding_id.is_null());
        self.definitions.extend(told.into_iter().map(|(id, definition)| {
            let encoding = definition.default_encoding_id.clone();
            (id, DataTypeDefinition::Structure(definition), encoding)
        }));
        if silent.is_empty() {
            return Ok(());
        }
        let ask = |(id, _): &(NodeId, StructureDefinition)| {
            references(id.clone(), ReferenceTypeId::HasEncoding, BrowseDirection::Forward, NodeClassMask::OBJECT)
        };
        let found = link.browse(silent.iter().map(ask).collect()).await?;
        for ((id, definition), references) in silent.into_iter().zip(found) {
            let mut binary = references.into_iter().filter(|found| found.browse_name.name.as_ref() == "Default Binary");
            let encoding = binary.next().map_or_else(NodeId::null, |found| found.node_id.node_id);
            self.definitions.push((id, DataTypeDefinition::Structure(definition), encoding));
        }
        Ok(())
    }

    fn parent_ids(&self) -> ParentIds {
        let mut parents = ParentIds::new();
        self.parents.iter().for_each(|(id, parent)| parents.add_type(id.clone(), parent.clone()));
        parents
    }

    fn settle(self) -> Types {
        let mut tree = DataTypeTree::new(self.parent_ids());
        for (id, definition, encoding) in self.definitions {
            let encodings = Some(EncodingIds { binary_id: encoding, ..EncodingIds::default() });
            // A structure with a field of a type that the server does not explain cannot be read at all.
            match TypeInfo::from_type_definition(definition, id.to_string(), encodings, false, &id, tree.parent_ids()) {
                Ok(info) => tree.add_type(id, info),
                Err(why) => tracing::warn!(data_type = %id, why, "the server's definition of a structure is of no use"),
            }
        }
        debug_assert!(self.names.keys().all(|id| !matches!(tree.get_type(id), Some(TypeInfoRef::Struct(_)))));
        Types::new(tree, self.names)
    }
}

/// What the properties `EnumStrings` and `EnumValues` of nodes say, of those that have them.
pub(super) async fn enumerations(link: &mut Link, nodes: Vec<NodeId>) -> Result<Vec<(NodeId, Arc<Names>)>, LinkError> {
    const PROPERTIES: [&str; 2] = ["EnumValues", "EnumStrings"];
    let ask = |node: &NodeId| PROPERTIES.map(|property| path::property(node, property));
    let found = link.translate(nodes.iter().flat_map(ask).collect()).await?;
    let mut properties = Vec::new();
    for (node, found) in nodes.iter().flat_map(|node| [node; PROPERTIES.len()]).zip(found) {
        let Some(target) = found.targets.into_iter().flatten().next() else { continue };
        properties.push((node.clone(), target.target_id.node_id));
    }
    let ids: Vec<_> = properties.iter().map(|(_, property)| property.clone()).collect();
    let told = read_all(link, &ids, AttributeId::Value).await?;
    let mut names: Vec<(NodeId, Arc<Names>)> = Vec::new();
    for ((node, _), told) in properties.into_iter().zip(told) {
        if names.last().is_some_and(|(last, _)| *last == node) {
            continue;
        }
        if let Some(read) = told.value.and_then(Names::read) {
            names.push((node, Arc::new(read)));
        }
    }
    Ok(names)
}

/// The data types of the structures that nodes hold just now, of those that hold any: by the name that they come over
/// the wire with.
pub(super) async fn structures(link: &mut Link, nodes: &[(u32, NodeId)]) -> Result<Vec<(u32, NodeId)>, LinkError> {
    let ids: Vec<_> = nodes.iter().map(|(_, node)| node.clone()).collect();
    let told = read_all(link, &ids, AttributeId::Value).await?;
    let (mut handles, mut encodings) = (Vec::new(), Vec::new());
    for ((handle, _), told) in nodes.iter().zip(told) {
        let value = match told.value {
            Some(Variant::Array(mut array)) if !array.values.is_empty() => array.values.swap_remove(0),
            Some(one) => one,
            None => continue,
        };
        let Variant::ExtensionObject(object) = value else { continue };
        let Some(body) = &object.body else { continue };
        handles.push(*handle);
        encodings.push(body.binary_type_id().node_id);
    }
    let ask = |encoding: &NodeId| {
        let (of, classes) = (ReferenceTypeId::HasEncoding, NodeClassMask::DATA_TYPE);
        references(encoding.clone(), of, BrowseDirection::Inverse, classes)
    };
    let found = link.browse(encodings.iter().map(ask).collect()).await?;
    let told = handles.into_iter().zip(found);
    Ok(told.filter_map(|(handle, of)| Some((handle, of.into_iter().next()?.node_id.node_id))).collect())
}

/// One attribute of many nodes.
pub(super) async fn read_all(
    link: &mut Link,
    nodes: &[NodeId],
    attribute: AttributeId,
) -> Result<Vec<DataValue>, LinkError> {
    let nodes = nodes.iter().map(|id| ReadValueId::new(id.clone(), attribute)).collect();
    link.read(nodes, TimestampsToReturn::Neither).await
}

fn names(definition: &EnumDefinition) -> Option<Names> {
    let field = |field: &opcua::types::EnumField| {
        let name = if field.display_name.text.is_empty() { &field.name } else { &field.display_name.text };
        (field.value, Arc::from(name.as_ref()))
    };
    let names: HashMap<_, _> = definition.fields.iter().flatten().map(field).collect();
    (!names.is_empty()).then_some(Names(names))
}

/// One of the types that need no explanation: the built-in ones and the roots of the others.
fn is_basic(id: &NodeId) -> bool {
    let alone = ParentIds::new();
    alone.get_data_type_variant(id).is_some() || id.is_null()
}

/// The supertypes of common types, for servers that do not show their type system.
fn known_parent(id: &NodeId) -> Option<NodeId> {
    let parent = match id.as_data_type_id().ok()? {
        DataTypeId::Duration => DataTypeId::Double,
        DataTypeId::UtcTime => DataTypeId::DateTime,
        DataTypeId::LocaleId => DataTypeId::String,
        DataTypeId::Range | DataTypeId::EUInformation => DataTypeId::Structure,
        _ => return None,
    };
    Some(parent.into())
}

/// Structures that every analogue value has, for servers that do not explain them.
fn known_structure(id: &NodeId) -> Option<StructureDefinition> {
    let (encoding, fields): (_, &[(&str, DataTypeId)]) = match id.as_data_type_id().ok()? {
        DataTypeId::Range => {
            (ObjectId::Range_Encoding_DefaultBinary, &[("Low", DataTypeId::Double), ("High", DataTypeId::Double)])
        }
        DataTypeId::EUInformation => (
            ObjectId::EUInformation_Encoding_DefaultBinary,
            &[
                ("NamespaceUri", DataTypeId::String),
                ("UnitId", DataTypeId::Int32),
                ("DisplayName", DataTypeId::LocalizedText),
                ("Description", DataTypeId::LocalizedText),
            ],
        ),
        _ => return None,
    };
    let field = |&(name, data_type): &(&str, DataTypeId)| StructureField {
        name: name.into(),
        description: LocalizedText::null(),
        data_type: data_type.into(),
        value_rank: -1,
        ..StructureField::default()
    };
    Some(StructureDefinition {
        default_encoding_id: encoding.into(),
        base_data_type: DataTypeId::Structure.into(),
        structure_type: StructureType::Structure,
        fields: Some(fields.iter().map(field).collect()),
    })
}

#[cfg(test)]
mod tests;
