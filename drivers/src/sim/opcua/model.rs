//! Nodes beside plain variables: a machine with arrays, structures, enumerations and units, and its types.

use opcua::server::address_space::{
    AddressSpace, DataTypeBuilder, EventNotifier, NodeType, ObjectBuilder, ObjectTypeBuilder, ReferenceDirection,
    Variable, VariableBuilder,
};
use opcua::types::type_loader::ByteStringBody;
use opcua::types::{
    AttributeId, BinaryEncodable, ByteString, ContextOwned, DataTypeDefinition, DataTypeId, DataValue, EUInformation,
    EnumDefinition, EnumField, ExtensionObject, LocalizedText, NodeId, ObjectId, ObjectTypeId, QualifiedName, Range,
    ReferenceTypeId, StructureDefinition, StructureField, StructureType, VariableTypeId, Variant,
};

use super::{OpcuaServer, date_time};
use crate::Time;

/// What the machine's structure says.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `Count`.
    pub count: i32,
    /// `Limits`, a structure of OPC UA's own.
    pub limits: (f64, f64),
    /// `Axes`, structures with a `Position` each.
    pub axes: Vec<f32>,
    /// `Mode`, an enumeration.
    pub mode: i32,
}

impl OpcuaServer {
    /// Puts a machine into the objects folder, at `/Objects/n:AOI`: nodes `nsu=<namespace>;s=AOI.<name>`.
    ///
    /// | name | what |
    /// |---|---|
    /// | `Speed` | Double in millimetres a second, with `EngineeringUnits` and `EURange` |
    /// | `Zones` | Double\[4\] |
    /// | `Mode` | an enumeration of the server's own: Off, Automatic, Set up |
    /// | `Phase` | UInt32 that names its own values: Loading, Inspecting |
    /// | `Result` | [`Inspection`] |
    /// | `Any` | the same, but its data type is any structure |
    /// | `Twin` | two variables of one browse name |
    ///
    /// Events may be of a type of its own, `JamAlarmType`.
    ///
    /// Gone after a restart.
    ///
    /// # Panics
    /// When the server is stopped.
    pub fn add_machine(&self) {
        let running = self.running.as_ref().expect("the server runs");
        let index = running.manager.inner().index;
        let mut space = running.manager.address_space().write();
        types(&mut space, index);
        machine(&mut space, index);
    }

    /// Gives one of the machine's nodes a value.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_machine(&self, name: &str, value: impl Into<Variant>, source_time: Time) {
        let running = self.running.as_ref().expect("the server runs");
        let id = NodeId::new(running.manager.inner().index, format!("AOI.{name}"));
        let value = DataValue::new_at(value, date_time(source_time));
        {
            let mut space = running.manager.address_space().write();
            let Some(NodeType::Variable(node)) = space.find_mut(&id) else { panic!("the machine has no `{name}`") };
            node.set_data_value(value.clone());
        }
        // The library's way for both cuts a range out of what it has cut out already.
        let told = std::iter::once((value, &id, AttributeId::Value));
        running.handle.subscriptions().notify_data_change(told);
    }

    /// [`Inspection`] as it goes over the wire.
    ///
    /// # Panics
    /// When the server is stopped.
    #[must_use]
    pub fn inspection(&self, told: &Inspection) -> Variant {
        let index = self.running.as_ref().expect("the server runs").manager.inner().index;
        structure(index, told)
    }
}

fn structure(index: u16, told: &Inspection) -> Variant {
    let context = ContextOwned::default();
    let context = context.context();
    let mut bytes = Vec::new();
    let mut put = |value: &dyn Fn(&mut Vec<u8>)| value(&mut bytes);
    put(&|to| told.count.encode(to, &context).expect("memory"));
    put(&|to| Range { low: told.limits.0, high: told.limits.1 }.encode(to, &context).expect("memory"));
    put(&|to| told.axes.encode_to(to, &context));
    put(&|to| told.mode.encode(to, &context).expect("memory"));
    let body = ByteStringBody::new(ByteString::from(bytes), NodeId::new(index, "InspectionBinary"));
    Variant::ExtensionObject(ExtensionObject::new(body))
}

/// Structures of one float each are written as the floats.
trait Floats {
    fn encode_to(&self, to: &mut Vec<u8>, context: &opcua::types::Context<'_>);
}

impl Floats for Vec<f32> {
    fn encode_to(&self, to: &mut Vec<u8>, context: &opcua::types::Context<'_>) {
        let length = i32::try_from(self.len()).expect("a short list");
        length.encode(to, context).expect("memory");
        self.iter().for_each(|float| float.encode(to, context).expect("memory"));
    }
}

fn types(space: &mut AddressSpace, index: u16) {
    let id = |name: &str| NodeId::new(index, name);
    let named = |value, name: &str| EnumField {
        value,
        display_name: LocalizedText::from(name),
        name: name.into(),
        ..EnumField::default()
    };
    let field = |name: &str, data_type: NodeId, value_rank| StructureField {
        name: name.into(),
        data_type,
        value_rank,
        ..StructureField::default()
    };
    let definition = |encoding: &str, fields| {
        DataTypeDefinition::Structure(StructureDefinition {
            default_encoding_id: id(encoding),
            base_data_type: DataTypeId::Structure.into(),
            structure_type: StructureType::Structure,
            fields: Some(fields),
        })
    };
    let fields = vec![named(0, "Off"), named(1, "Automatic"), named(5, "Set up")];
    let types = [
        ("Mode", DataTypeId::Enumeration, DataTypeDefinition::Enum(EnumDefinition { fields: Some(fields) })),
        (
            "Axis",
            DataTypeId::Structure,
            definition("AxisBinary", vec![field("Position", DataTypeId::Float.into(), -1)]),
        ),
        (
            "Inspection",
            DataTypeId::Structure,
            definition(
                "InspectionBinary",
                vec![
                    field("Count", DataTypeId::Int32.into(), -1),
                    field("Limits", DataTypeId::Range.into(), -1),
                    field("Axes", id("type.Axis"), 1),
                    field("Mode", id("type.Mode"), -1),
                ],
            ),
        ),
    ];
    for (name, parent, definition) in types {
        DataTypeBuilder::new(&id(&format!("type.{name}")), QualifiedName::new(index, name), name)
            .data_type_definition(definition)
            .reference(NodeId::from(parent), ReferenceTypeId::HasSubtype, ReferenceDirection::Inverse)
            .insert(space);
        ObjectBuilder::new(&id(&format!("{name}Binary")), QualifiedName::new(0, "Default Binary"), "Default Binary")
            .has_type_definition(ObjectTypeId::DataTypeEncodingType)
            .reference(id(&format!("type.{name}")), ReferenceTypeId::HasEncoding, ReferenceDirection::Inverse)
            .insert(space);
    }
}

fn machine(space: &mut AddressSpace, index: u16) {
    ObjectTypeBuilder::new(&NodeId::new(index, "type.JamAlarmType"), QualifiedName::new(index, "JamAlarmType"), "Jam")
        .subtype_of(ObjectTypeId::AlarmConditionType)
        .insert(space);
    let id = |name: &str| NodeId::new(index, name);
    ObjectBuilder::new(&id("AOI"), QualifiedName::new(index, "AOI"), "AOI")
        .has_type_definition(ObjectTypeId::FolderType)
        .event_notifier(EventNotifier::SUBSCRIBE_TO_EVENTS)
        .organized_by(ObjectId::ObjectsFolder)
        .insert(space);
    let inspection = Inspection { count: 7, limits: (-1.5, 2.5), axes: vec![0.5, 1.5, 2.5], mode: 5 };
    let variables: [(&str, &str, NodeId, Variant); 8] = [
        ("Speed", "Speed", DataTypeId::Double.into(), Variant::Double(120.0)),
        ("Zones", "Zones", DataTypeId::Double.into(), Variant::from(vec![10.0_f64, 11.0, 12.0, 13.0])),
        ("Mode", "Mode", id("type.Mode"), Variant::Int32(1)),
        ("Phase", "Phase", DataTypeId::UInt32.into(), Variant::UInt32(1)),
        ("Result", "Result", id("type.Inspection"), structure(index, &inspection)),
        ("Any", "Any", DataTypeId::Structure.into(), structure(index, &inspection)),
        ("Twin1", "Twin", DataTypeId::Int32.into(), Variant::Int32(1)),
        ("Twin2", "Twin", DataTypeId::Int32.into(), Variant::Int32(2)),
    ];
    for (name, browse, data_type, value) in variables {
        let array = matches!(value, Variant::Array(_));
        VariableBuilder::new(&id(&format!("AOI.{name}")), QualifiedName::new(index, browse), browse)
            .data_type(data_type)
            .value_rank(if array { 1 } else { -1 })
            .value(value)
            .has_type_definition(VariableTypeId::BaseDataVariableType)
            .component_of(id("AOI"))
            .insert(space);
    }
    let unit = EUInformation {
        namespace_uri: "http://www.opcfoundation.org/UA/units/un/cefact".into(),
        unit_id: 4_403_510, // C16
        display_name: LocalizedText::from("mm/s"),
        description: LocalizedText::from("millimetre per second"),
    };
    let phases = vec![LocalizedText::from("Loading"), LocalizedText::from("Inspecting")];
    let properties: [(&str, &str, DataTypeId, Variant); 3] = [
        ("Speed", "EngineeringUnits", DataTypeId::EUInformation, Variant::from(unit)),
        ("Speed", "EURange", DataTypeId::Range, Variant::from(Range { low: 0.0, high: 500.0 })),
        ("Phase", "EnumStrings", DataTypeId::LocalizedText, Variant::from(phases)),
    ];
    for (of, name, data_type, value) in properties {
        let property = id(&format!("AOI.{of}.{name}"));
        let mut variable = Variable::new(&property, QualifiedName::new(0, name), name, value);
        variable.set_data_type(NodeId::from(data_type));
        space.insert(
            variable,
            Some(&[
                (&id(&format!("AOI.{of}")), &ReferenceTypeId::HasProperty, ReferenceDirection::Inverse),
                (
                    &VariableTypeId::PropertyType.into(),
                    &ReferenceTypeId::HasTypeDefinition,
                    ReferenceDirection::Forward,
                ),
            ]),
        );
    }
}
