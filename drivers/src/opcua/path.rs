//! The path to a node, by the browse names on the way.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use opcua::types::{
    BrowsePath, NodeId, ObjectId, QualifiedName, ReferenceTypeId, RelativePath, RelativePathElement, StatusCode,
};

use super::Namespace;

/// A path from the root folder: `/Objects/nsu=urn:fab-2:aoi;AOI/2:State`.
///
/// It is the text of a relative path as OPC 10000-4 A.2 has it, with what a tag needs of it: `/` follows any
/// hierarchical reference and `.` one to a component or property; `&` takes the meaning from the character after it.
/// Beside the index of a namespace (`2:State`) a name may have its URI (`nsu=urn:fab-2:aoi;State`, up to the first
/// `;`), which survives a server that renumbers its table. A name without either is in OPC UA's own namespace, 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Step {
    /// `.` instead of `/`.
    aggregate: bool,
    namespace: Namespace,
    name: String,
}

/// Characters that mean something (OPC 10000-4, A.2).
const RESERVED: &str = "/.<>:#!&";

impl Path {
    /// What a server with these namespaces is asked; without one of them there is no such path.
    pub(super) fn resolve(&self, namespaces: &[String]) -> Result<BrowsePath, StatusCode> {
        let element = |step: &Step| {
            Some(RelativePathElement {
                reference_type_id: if step.aggregate {
                    ReferenceTypeId::Aggregates.into()
                } else {
                    ReferenceTypeId::HierarchicalReferences.into()
                },
                is_inverse: false,
                include_subtypes: true,
                target_name: QualifiedName::new(step.namespace.index(namespaces)?, step.name.as_str()),
            })
        };
        let elements = self.0.iter().map(element).collect::<Option<Vec<_>>>().ok_or(StatusCode::BadNoMatch)?;
        Ok(from(ObjectId::RootFolder.into(), elements))
    }
}

/// The question for what stands at the end of `elements` from `start` on.
pub(super) fn from(start: NodeId, elements: Vec<RelativePathElement>) -> BrowsePath {
    BrowsePath { starting_node: start, relative_path: RelativePath { elements: Some(elements) } }
}

/// One step to a property or component of OPC UA's own namespace.
pub(super) fn property(node: &NodeId, name: &str) -> BrowsePath {
    let element = RelativePathElement {
        reference_type_id: ReferenceTypeId::Aggregates.into(),
        is_inverse: false,
        include_subtypes: true,
        target_name: QualifiedName::new(0, name),
    };
    from(node.clone(), vec![element])
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("`{text}` is no browse path: {why}; write it as `/Objects/nsu=urn:plant:aoi;AOI/2:State`")
        };
        if !text.starts_with('/') {
            return Err(wrong("it begins with `/`, at the root folder"));
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while let Some(mark) = rest.chars().next() {
            let aggregate = match mark {
                '/' => false,
                '.' => true,
                '<' => {
                    return Err(wrong(
                        "named reference types (`<…>`) are not followed; `/` follows all that lead down",
                    ));
                }
                _ => return Err(wrong(&format!("`{mark}` has a meaning here; put `&` before it"))),
            };
            rest = &rest[1..];
            let mut namespace = Namespace::Index(0);
            if let Some(uri) = rest.strip_prefix("nsu=") {
                let (uri, name) = uri.split_once(';').ok_or_else(|| wrong("no `;` ends the namespace URI"))?;
                if uri.is_empty() {
                    return Err(wrong("the namespace URI is empty"));
                }
                namespace = Namespace::Uri(uri.replace("%3B", ";").replace("%25", "%"));
                rest = name;
            } else if let Some((index, name)) = rest.split_once(':')
                && !index.is_empty()
                && index.bytes().all(|byte| byte.is_ascii_digit())
            {
                let index = index.parse().map_err(|_| wrong("the namespace index is no number from 0 to 65535"))?;
                namespace = Namespace::Index(index);
                rest = name;
            }
            let (name, after) = name(rest).ok_or_else(|| wrong("nothing follows the `&`"))?;
            if name.is_empty() {
                return Err(wrong("a name is empty"));
            }
            rest = after;
            steps.push(Step { aggregate, namespace, name });
        }
        Ok(Self(steps))
    }
}

/// The name at the start of `text`, without its `&`, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match character {
            '&' => name.push(chars.next()?.1),
            _ if RESERVED.contains(character) => return Some((name, &text[at..])),
            _ => name.push(character),
        }
    }
    Some((name, ""))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            f.write_char(if step.aggregate { '.' } else { '/' })?;
            match &step.namespace {
                Namespace::Index(0) => {}
                Namespace::Index(index) => write!(f, "{index}:")?,
                Namespace::Uri(uri) => write!(f, "nsu={};", uri.replace('%', "%25").replace(';', "%3B"))?,
            }
            for character in step.name.chars() {
                if RESERVED.contains(character) {
                    f.write_char('&')?;
                }
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(u16, String, bool)> {
        let namespaces = ["http://opcfoundation.org/UA/", "urn:plc", "http://yourorg.com/UA/;x"].map(str::to_owned);
        let path: Path = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.to_string(), text);
        let asked = path.resolve(&namespaces).expect("the namespaces are there");
        assert_eq!(asked.starting_node, NodeId::from(ObjectId::RootFolder));
        let elements = asked.relative_path.elements.expect("there are some");
        let told = |element: RelativePathElement| {
            let aggregate = element.reference_type_id == ReferenceTypeId::Aggregates;
            (element.target_name.namespace_index, element.target_name.name.as_ref().to_owned(), aggregate)
        };
        elements.into_iter().map(told).collect()
    }

    #[test]
    fn a_path_names_each_step() {
        let step = |namespace, name: &str, aggregate| (namespace, name.to_owned(), aggregate);
        assert_eq!(
            names("/Objects/2:AOI/2:State"),
            [step(0, "Objects", false), step(2, "AOI", false), step(2, "State", false)]
        );
        assert_eq!(
            names("/Objects/nsu=urn:plc;AOI.nsu=http://yourorg.com/UA/%3Bx;Limits"),
            [step(0, "Objects", false), step(1, "AOI", false), step(2, "Limits", true)]
        );
        // Names of PLC programs hold what means something here.
        assert_eq!(names("/Objects/3:DB1&.Speed&:&&"), [step(0, "Objects", false), step(3, "DB1.Speed:&", false)]);
    }

    #[test]
    fn a_namespace_that_the_server_lacks_matches_nothing() {
        let path: Path = "/Objects/nsu=urn:gone;AOI".parse().expect("a path");
        assert_eq!(path.resolve(&[]).expect_err("no such namespace"), StatusCode::BadNoMatch);
    }

    #[test]
    fn paths_that_cannot_be_are_refused_with_the_reason() {
        for (text, reason) in [
            ("Objects/2:AOI", "begins with `/`"),
            ("/", "a name is empty"),
            ("/Objects//2:AOI", "a name is empty"),
            ("/Objects/", "a name is empty"),
            ("/Objects/70000:AOI", "namespace index"),
            ("/Objects/nsu=urn:a", "no `;` ends"),
            ("/Objects/nsu=;a", "URI is empty"),
            ("/Objects<HasComponent>2:AOI", "named reference types"),
            ("/Objects/2:AOI#x", "put `&` before it"),
            ("/Objects/2:a:b", "put `&` before it"),
            ("/Objects/2:AOI&", "nothing follows"),
        ] {
            let error = text.parse::<Path>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
