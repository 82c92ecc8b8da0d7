//! Structures and names as servers send them.

use opcua::types::type_loader::ByteStringBody;
use opcua::types::{ByteString, EUInformation, Range};

use super::*;

/// Types of a server: `Choice` is one of a number and a text, `Spare` has a field that may be missing.
fn types() -> Types {
    let field = |name: &str, data_type: DataTypeId, is_optional| StructureField {
        name: name.into(),
        data_type: data_type.into(),
        value_rank: -1,
        is_optional,
        ..StructureField::default()
    };
    let structure = |structure_type, fields| {
        DataTypeDefinition::Structure(StructureDefinition {
            structure_type,
            fields: Some(fields),
            ..Default::default()
        })
    };
    let choice = vec![field("Number", DataTypeId::Int32, false), field("Words", DataTypeId::String, false)];
    let spare = vec![field("May", DataTypeId::Int32, true), field("Must", DataTypeId::Int32, false)];
    let own = [
        ("Choice", structure(StructureType::Union, choice)),
        ("Spare", structure(StructureType::StructureWithOptionalFields, spare)),
    ];
    let own =
        own.map(|(name, definition)| (NodeId::new(2, name), definition, NodeId::new(2, format!("{name}.binary"))));
    let known = [DataTypeId::Range, DataTypeId::EUInformation].map(|id| {
        let definition = known_structure(&id.into()).expect("it is known");
        let encoding = definition.default_encoding_id.clone();
        (NodeId::from(id), DataTypeDefinition::Structure(definition), encoding)
    });
    let mut lore = Lore { definitions: own.into_iter().chain(known).collect(), ..Lore::default() };
    lore.parents.insert(NodeId::new(2, "Choice"), DataTypeId::Structure.into());
    lore.settle()
}

fn sent(name: &str, bytes: &[u8]) -> Variant {
    let body = ByteStringBody::new(ByteString::from(bytes.to_vec()), NodeId::new(2, format!("{name}.binary")));
    Variant::ExtensionObject(ExtensionObject::new(body))
}

#[test]
fn a_union_has_the_one_field_that_it_holds() {
    let types = types();
    let number = sent("Choice", &[1, 0, 0, 0, 42, 0, 0, 0]);
    assert_eq!(types.field(&number, "Number"), Ok(Variant::Int32(42)));
    assert_eq!(types.field(&number, "Words"), Ok(Variant::Empty));
    let words = sent("Choice", &[2, 0, 0, 0, 2, 0, 0, 0, b'o', b'k']);
    assert_eq!(types.field(&words, "Words"), Ok(Variant::from("ok")));
    assert_eq!(types.field(&words, "Number"), Ok(Variant::Empty));
    let nothing = sent("Choice", &[0; 4]);
    assert_eq!(types.field(&nothing, "Number"), Ok(Variant::Empty));
}

#[test]
fn an_optional_field_may_be_missing() {
    let types = types();
    let both = sent("Spare", &[1, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!((types.field(&both, "May"), types.field(&both, "Must")), (Ok(Variant::Int32(7)), Ok(Variant::Int32(8))));
    let one = sent("Spare", &[0, 0, 0, 0, 8, 0, 0, 0]);
    assert_eq!((types.field(&one, "May"), types.field(&one, "Must")), (Ok(Variant::Empty), Ok(Variant::Int32(8))));
}

#[test]
fn what_cannot_be_opened_stays_closed() {
    let types = types();
    for closed in [sent("Strange", &[1, 2, 3]), sent("Choice", &[1, 0, 0]), sent("Choice", &[9, 0, 0, 0])] {
        assert_eq!(types.field(&closed, "Number"), Ok(closed.clone()));
    }
    assert_eq!(types.field(&Variant::Int32(1), "Number"), Err(StatusCode::BadTypeMismatch));
    assert_eq!(types.field(&sent("Spare", &[0, 0, 0, 0, 8, 0, 0, 0]), "Gone"), Err(StatusCode::BadNoMatch));
}

#[test]
fn the_structures_of_opc_ua_itself_open_too() {
    let types = types();
    let range = Variant::from(Range { low: -1.0, high: 2.0 });
    assert_eq!(types.field(&range, "High"), Ok(Variant::Double(2.0)));
    let unit = EUInformation { unit_id: 4_408_652, display_name: "°C".into(), ..EUInformation::default() };
    assert_eq!(types.field(&Variant::from(unit.clone()), "UnitId"), Ok(Variant::Int32(4_408_652)));
    assert_eq!(types.field(&Variant::from(unit), "DisplayName"), Ok(Variant::from(LocalizedText::from("°C"))));
}

#[test]
fn names_come_from_strings_and_values() {
    let strings = vec![LocalizedText::from("Off"), LocalizedText::from("On")];
    let names = Names::read(Variant::from(strings)).expect("names");
    assert_eq!(names.of(Variant::Byte(1)), Variant::from("On"));
    assert_eq!(names.of(Variant::Boolean(false)), Variant::from("Off"));
    assert_eq!(names.of(Variant::Int32(-7)), Variant::from("-7"));
    assert_eq!(names.of(Variant::Double(1.0)), Variant::Double(1.0));
    let value = |value, name: &str| EnumValueType { value, display_name: name.into(), ..EnumValueType::default() };
    let values: Vec<_> =
        [value(10, "Slow"), value(20, "Fast")].into_iter().map(ExtensionObject::from_message).collect();
    let names = Names::read(Variant::from(values)).expect("names");
    assert_eq!(
        (names.of(Variant::UInt32(20)), names.of(Variant::Int64(0))),
        (Variant::from("Fast"), Variant::from("0"))
    );
    for none in [Variant::Empty, Variant::from(vec![1_i32]), Variant::from(Vec::<LocalizedText>::new())] {
        assert_eq!(Names::read(none), None);
    }
}
