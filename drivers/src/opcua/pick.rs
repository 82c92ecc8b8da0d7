//! What of a node's value a tag is: an element of an array, a field of a structure, an enumeration's name.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use opcua::types::{Array, DataValue, NumericRange, StatusCode, UAString, Variant};

use super::convert;
use super::types::{Names, Types};
use crate::Value;

/// What of a node's value a tag is; all of it unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pick {
    /// Which elements of an array.
    pub range: Option<Range>,
    /// Which field of the structure that is left.
    pub field: Option<Field>,
    /// An enumeration as its name instead of its number.
    pub names: bool,
}

impl Pick {
    /// Whether the type of the node must be known.
    pub(super) fn needs_type(&self) -> bool {
        self.names || self.field.is_some()
    }
}

/// Elements of an array, counted from zero: `2`, `0:3`, and a part for each dimension, as in `1,0:2`
/// (OPC 10000-4, 7.27).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(Vec<(u32, u32)>);

impl Range {
    /// One element.
    #[must_use]
    pub fn element(index: u32) -> Self {
        Self(vec![(index, index)])
    }

    fn is_element(&self) -> bool {
        self.0.iter().all(|(first, last)| first == last)
    }

    /// As the server is told.
    pub(super) fn asked(&self) -> NumericRange {
        let part = |&(first, last): &(u32, u32)| {
            if first == last { NumericRange::Index(first) } else { NumericRange::Range(first, last) }
        };
        match self.0.as_slice() {
            [one] => part(one),
            many => NumericRange::MultipleRanges(many.iter().map(part).collect()),
        }
    }

    /// What the server would have cut out, where it does not do so itself.
    fn cut(&self, whole: Variant) -> Result<Variant, StatusCode> {
        let array = match whole {
            Variant::Array(array) => array,
            // Parts of text and bytes; the library knows how.
            other => return other.range_of(&self.asked()),
        };
        let lengths = match &array.dimensions {
            Some(dimensions) if dimensions.len() > 1 => dimensions.clone(),
            _ => vec![u32::try_from(array.values.len()).unwrap_or(u32::MAX)],
        };
        if lengths.len() != self.0.len() {
            return Err(StatusCode::BadIndexRangeNoData);
        }
        let mut places = vec![0_usize];
        for (&(first, last), &length) in self.0.iter().zip(&lengths) {
            if first >= length {
                return Err(StatusCode::BadIndexRangeNoData);
            }
            let wanted = first as usize..=last.min(length - 1) as usize;
            let deeper =
                |place: &usize| wanted.clone().map(move |index| place * length as usize + index).collect::<Vec<_>>();
            places = places.iter().flat_map(deeper).collect();
        }
        let value = |place: usize| array.values.get(place).cloned().ok_or(StatusCode::BadIndexRangeNoData);
        let values = places.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
        Ok(Variant::Array(Box::new(Array { value_type: array.value_type, values, dimensions: None })))
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is no range of an array: {why}; write it as `2` or `0:3`, with a comma between dimensions"
            )
        };
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(wrong("an index is a whole number from 0 on")),
        };
        let part = |part: &str| {
            let Some((first, last)) = part.split_once(':') else {
                let index = number(part)?;
                return Ok((index, index));
            };
            let (first, last) = (number(first)?, number(last)?);
            if first >= last { Err(wrong("the first index is smaller than the last")) } else { Ok((first, last)) }
        };
        text.split(',').map(part).collect::<Result<Vec<_>, String>>().map(Self)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            write!(f, "{first}")?;
            if last > first {
                write!(f, ":{last}")?;
            }
        }
        Ok(())
    }
}

/// A field of a structure, and of one in it: `Limits.High`, `Axes[2].Position`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Name(String),
    Index(u32),
}

impl Field {
    /// The names on the way, without indices.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| if let Part::Name(name) = part { Some(name.as_str()) } else { None })
    }
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("`{text}` is no field of a structure: {why}; write it as `Limits.High` or `Axes[2].Position`")
        };
        let mut parts = Vec::new();
        for step in text.split('.') {
            let (name, mut indices) = step.split_once('[').map_or((step, None), |(name, rest)| (name, Some(rest)));
            if name.trim().is_empty() {
                return Err(wrong("a name is empty"));
            }
            parts.push(Part::Name(name.to_owned()));
            while let Some(rest) = indices {
                let (index, after) = rest.split_once(']').ok_or_else(|| wrong("no `]` ends the index"))?;
                parts.push(Part::Index(index.parse().map_err(|_| wrong("an index is a whole number from 0 on"))?));
                indices = match after.strip_prefix('[') {
                    None if after.is_empty() => None,
                    Some(next) => Some(next),
                    None => return Err(wrong("a `.` follows an index")),
                };
            }
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            match part {
                Part::Name(name) => write!(f, "{}{name}", if at > 0 { "." } else { "" })?,
                Part::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The picks of a link's tags, with what was learnt of their types.
#[derive(Default)]
pub(super) struct Picks {
    by_handle: HashMap<u32, Picked>,
    types: Types,
}

pub(super) struct Picked {
    pub(super) pick: Pick,
    /// The names of the enumeration that is left at the end.
    pub(super) names: Option<Arc<Names>>,
    /// The server sends the whole array, and what was asked of it is cut out here.
    pub(super) whole: bool,
}

impl Picks {
    pub(super) fn new(by_handle: HashMap<u32, Picked>, types: Types) -> Self {
        Self { by_handle, types }
    }

    /// The server does not cut out ranges for this one.
    pub(super) fn whole(&mut self, handle: u32) {
        if let Some(picked) = self.by_handle.get_mut(&handle) {
            picked.whole = true;
        }
    }

    /// Whether the server does not cut out ranges for this one.
    pub(super) fn is_whole(&self, handle: u32) -> bool {
        self.by_handle.get(&handle).is_some_and(|picked| picked.whole)
    }

    /// What `before` knew of how items are watched still holds: they go on as they are.
    pub(super) fn watched_as(mut self, before: &Self) -> Self {
        before.by_handle.iter().filter(|(_, picked)| picked.whole).for_each(|(handle, _)| self.whole(*handle));
        self
    }

    /// What the tag behind `handle` is of what the server said of its node. What cannot be had is a bad status; what is no
    /// value stays as it is, for [`convert`] to say so.
    pub(super) fn of(&self, handle: u32, told: DataValue) -> DataValue {
        self.cut(handle, told, false)
    }

    /// The same, of a value that was asked for without a range.
    pub(super) fn of_all(&self, handle: u32, told: DataValue) -> DataValue {
        self.cut(handle, told, true)
    }

    fn cut(&self, handle: u32, mut told: DataValue, whole: bool) -> DataValue {
        let Some(picked) = self.by_handle.get(&handle) else { return told };
        if told.status.is_some_and(|status| status.is_bad()) {
            return told;
        }
        match self.picked(picked, told.value.take().unwrap_or_default(), whole || picked.whole) {
            Ok(value) => told.value = Some(value),
            Err(status) => told.status = Some(status),
        }
        told
    }

    fn picked(&self, picked: &Picked, mut value: Variant, whole: bool) -> Result<Variant, StatusCode> {
        if matches!(value, Variant::Empty) {
            return Ok(value);
        }
        if let Some(range) = &picked.pick.range {
            // A server that takes a range for an element, and answers with all of it, is helped.
            let all = matches!(&value, Variant::Array(array) if range.is_element() && array.values.len() > 1);
            if whole || all {
                value = range.cut(value)?;
            }
            if range.is_element() {
                value = only(value);
            }
        }
        for part in picked.pick.field.iter().flat_map(|field| &field.0) {
            value = match part {
                Part::Name(name) => self.types.field(&value, name)?,
                Part::Index(index) => only(Range::element(*index).cut(value)?),
            };
        }
        if let Some(names) = &picked.names {
            value = names.of(value);
        }
        // Several elements were asked for: they are a text.
        if let (Variant::Array(array), Some(range)) = (&value, &picked.pick.range)
            && !range.is_element()
            && let Some(list) = list(array)
        {
            value = Variant::String(UAString::from(list));
        }
        Ok(value)
    }
}

/// The element of an array of one.
fn only(value: Variant) -> Variant {
    match value {
        Variant::Array(mut array) if array.values.len() == 1 => array.values.remove(0),
        other => other,
    }
}

/// An array as a JSON list; none if its elements are no values.
fn list(array: &Array) -> Option<String> {
    let mut list = String::from("[");
    for (at, element) in array.values.iter().enumerate() {
        list.push_str(if at > 0 { "," } else { "" });
        match convert::value(element.clone()).ok()? {
            Value::Null => list.push_str("null"),
            Value::Float(real) if !real.is_finite() => list.push_str("null"),
            Value::Text(text) => quote(&mut list, &text),
            number => list.push_str(&number.to_string()),
        }
    }
    list.push(']');
    Some(list)
}

/// Text as JSON has it (RFC 8259, 7).
fn quote(to: &mut String, text: &str) {
    to.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => to.extend(['\\', character]),
            '\u{0}'..='\u{1f}' => to.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => to.push(character),
        }
    }
    to.push('"');
}

#[cfg(test)]
mod tests {
    use opcua::types::VariantScalarTypeId;

    use super::*;

    fn pick(range: &str, whole: bool, value: Variant) -> Result<Variant, StatusCode> {
        let pick = Pick { range: Some(range.parse().expect("a range")), ..Pick::default() };
        Picks::default().picked(&Picked { pick, names: None, whole }, value, whole)
    }

    #[test]
    fn an_element_is_cut_out_wherever_the_server_does_not() {
        let array = || Variant::from(vec![10_i32, 11, 12, 13]);
        assert_eq!(pick("2", true, array()), Ok(Variant::Int32(12)));
        assert_eq!(pick("2", false, Variant::from(vec![12_i32])), Ok(Variant::Int32(12)), "the server cut it out");
        assert_eq!(pick("2", false, Variant::Int32(12)), Ok(Variant::Int32(12)), "and took it out of its array");
        assert_eq!(pick("2", false, array()), Ok(Variant::Int32(12)), "the server did not care");
        assert_eq!(pick("4", true, array()), Err(StatusCode::BadIndexRangeNoData));
        assert_eq!(pick("1:2", true, array()), Ok(Variant::from("[11,12]")));
        assert_eq!(pick("3:9", true, array()), Ok(Variant::from("[13]")), "as far as there is any");
        assert_eq!(pick("4:5", true, array()), Err(StatusCode::BadIndexRangeNoData));
        assert_eq!(pick("0,1", true, array()), Err(StatusCode::BadIndexRangeNoData), "it has one dimension");
        let words = Variant::from(vec!["a\"b".to_owned(), "c\n".to_owned()]);
        assert_eq!(pick("0:1", false, words), Ok(Variant::from(r#"["a\"b","c\u000a"]"#)));
    }

    #[test]
    fn elements_of_a_matrix_are_found_by_row_and_column() {
        let matrix = || {
            let values: Vec<_> = (0..6).map(Variant::Int32).collect();
            let array = Array::new_multi(VariantScalarTypeId::Int32, values, vec![2_u32, 3]).expect("2 by 3");
            Variant::Array(Box::new(array))
        };
        assert_eq!(pick("1,2", true, matrix()), Ok(Variant::Int32(5)));
        assert_eq!(pick("0:1,1", true, matrix()), Ok(Variant::from("[1,4]")));
        assert_eq!(pick("2,0", true, matrix()), Err(StatusCode::BadIndexRangeNoData));
        assert_eq!(pick("1", true, matrix()), Err(StatusCode::BadIndexRangeNoData), "it has two dimensions");
    }

    #[test]
    fn ranges_and_fields_read_back_as_written() {
        for text in ["0", "2", "0:3", "1,0:2", "4294967295"] {
            assert_eq!(text.parse::<Range>().map(|range| range.to_string()).as_deref(), Ok(text));
            assert_eq!(text.parse::<Range>().map(|range| range.asked().to_string()).as_deref(), Ok(text));
        }
        for text in ["High", "Limits.High", "Axes[2].Position", "M[1][0]"] {
            assert_eq!(text.parse::<Field>().map(|field| field.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn ranges_and_fields_that_cannot_be_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "whole number"),
            ("-1", "whole number"),
            ("3:3", "smaller"),
            ("3:1", "smaller"),
            ("1,", "whole number"),
        ] {
            assert!(text.parse::<Range>().expect_err(text).contains(reason), "{text}");
        }
        for (text, reason) in [
            ("", "a name is empty"),
            ("a..b", "a name is empty"),
            ("[1]", "a name is empty"),
            ("a[1", "no `]`"),
            ("a[x]", "whole number"),
            ("a[1]b", "a `.` follows"),
        ] {
            assert!(text.parse::<Field>().expect_err(text).contains(reason), "{text}");
        }
    }
}
