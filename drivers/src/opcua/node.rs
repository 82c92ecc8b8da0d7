//! Where a tag is found: a node by its name, or the path that leads there.

use std::fmt;
use std::str::FromStr;

use opcua::types::{ByteString, Guid, NodeId, StatusCode};

use super::Path;

/// Where a tag is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A node, by its name.
    Node(Node),
    /// What stands at the end of a path; looked up at each connect.
    Path(Path),
}

impl FromStr for Address {
    type Err = String;

    /// What begins with a slash is a path.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') { text.parse().map(Self::Path) } else { text.parse().map(Self::Node) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

/// A node, by namespace and identifier: `nsu=urn:fab-2:aoi;s=State`, `ns=2;i=1001`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its namespace; resolved against the server's own table at each connect.
    pub namespace: Namespace,
    /// Its name there.
    pub identifier: Identifier,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// By URI: survives a server that renumbers its table.
    Uri(String),
    /// By index.
    Index(u16),
}

/// A node's identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identifier {
    /// `i=`
    Numeric(u32),
    /// `s=`
    Text(String),
    /// `g=`, as written.
    Guid(String),
    /// `b=`, base64 as written.
    Opaque(String),
}

impl Namespace {
    /// Its place in a server's table; none when it has no such namespace.
    pub(super) fn index(&self, namespaces: &[String]) -> Option<u16> {
        match self {
            Self::Index(index) => Some(*index),
            Self::Uri(uri) => {
                namespaces.iter().position(|known| known == uri).and_then(|index| u16::try_from(index).ok())
            }
        }
    }
}

impl Node {
    /// The same node, named so that a server with these namespaces may renumber them.
    pub(super) fn named(id: &NodeId, namespaces: &[String]) -> Self {
        let namespace = match namespaces.get(usize::from(id.namespace)) {
            Some(uri) if id.namespace > 0 && !uri.is_empty() => Namespace::Uri(uri.clone()),
            _ => Namespace::Index(id.namespace),
        };
        let identifier = match &id.identifier {
            opcua::types::Identifier::Numeric(number) => Identifier::Numeric(*number),
            opcua::types::Identifier::String(name) => Identifier::Text(name.as_ref().to_owned()),
            opcua::types::Identifier::Guid(guid) => Identifier::Guid(guid.to_string()),
            opcua::types::Identifier::ByteString(bytes) => Identifier::Opaque(bytes.as_base64()),
        };
        Self { namespace, identifier }
    }

    /// The node's id at a server with these namespaces, or the status that the server would give.
    pub(super) fn resolve(&self, namespaces: &[String]) -> Result<NodeId, StatusCode> {
        let namespace = self.namespace.index(namespaces).ok_or(StatusCode::BadNodeIdUnknown)?;
        Ok(match &self.identifier {
            Identifier::Numeric(number) => NodeId::new(namespace, *number),
            Identifier::Text(name) => NodeId::new(namespace, name.as_str()),
            Identifier::Guid(guid) => {
                NodeId::new(namespace, guid.parse::<Guid>().map_err(|_| StatusCode::BadNodeIdInvalid)?)
            }
            Identifier::Opaque(bytes) => {
                NodeId::new(namespace, ByteString::from_base64(bytes).ok_or(StatusCode::BadNodeIdInvalid)?)
            }
        })
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("`{text}` is no OPC UA node: {why}; write it as `nsu=urn:plant:aoi;s=State` or `ns=2;i=1001`")
        };
        let (namespace, identifier) = if let Some(rest) = text.strip_prefix("nsu=") {
            // A URI may hold `;` only escaped (OPC 10000-6, 5.1.12), so the first one ends it.
            let (uri, identifier) = rest.split_once(';').ok_or_else(|| wrong("no identifier"))?;
            (Namespace::Uri(uri.replace("%3B", ";").replace("%25", "%")), identifier)
        } else if let Some(rest) = text.strip_prefix("ns=") {
            let (index, identifier) = rest.split_once(';').ok_or_else(|| wrong("no identifier"))?;
            let index = index.parse().map_err(|_| wrong("the namespace index is no number from 0 to 65535"))?;
            (Namespace::Index(index), identifier)
        } else {
            (Namespace::Index(0), text)
        };
        if matches!(&namespace, Namespace::Uri(uri) if uri.is_empty()) {
            return Err(wrong("the namespace URI is empty"));
        }
        let (kind, name) = identifier.split_once('=').ok_or_else(|| wrong("no identifier"))?;
        if name.is_empty() {
            return Err(wrong("the identifier is empty"));
        }
        let identifier = match kind {
            "i" => Identifier::Numeric(name.parse().map_err(|_| wrong("`i=` takes a whole number"))?),
            "s" => Identifier::Text(name.to_owned()),
            "g" if name.parse::<Guid>().is_err() => {
                return Err(format!("`{name}` is no GUID; write it as `g=09087e75-8e5e-499b-954f-f2a9603db28a`"));
            }
            "g" => Identifier::Guid(name.to_owned()),
            "b" if ByteString::from_base64(name).is_none() => return Err(wrong("`b=` takes base64")),
            "b" => Identifier::Opaque(name.to_owned()),
            _ => return Err(wrong("the identifier begins with `i=`, `s=`, `g=` or `b=`")),
        };
        Ok(Self { namespace, identifier })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            // The two that the syntax itself needs are escaped (OPC 10000-6, 5.1.12).
            Namespace::Uri(uri) => write!(f, "nsu={};", uri.replace('%', "%25").replace(';', "%3B"))?,
            Namespace::Index(0) => {}
            Namespace::Index(index) => write!(f, "ns={index};")?,
        }
        match &self.identifier {
            Identifier::Numeric(number) => write!(f, "i={number}"),
            Identifier::Text(name) => write!(f, "s={name}"),
            Identifier::Guid(guid) => write!(f, "g={guid}"),
            Identifier::Opaque(bytes) => write!(f, "b={bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_namespace_uri() {
        let namespaces = ["http://opcfoundation.org/UA/", "urn:plc", "urn:fab-2:aoi"].map(str::to_owned);
        let resolved = |text: &str| text.parse::<Node>().map(|node| node.resolve(&namespaces));
        assert_eq!(resolved("nsu=urn:fab-2:aoi;s=State"), Ok(Ok(NodeId::new(2, "State"))));
        assert_eq!(resolved("nsu=urn:plc;i=7"), Ok(Ok(NodeId::new(1, 7u32))));
        assert_eq!(resolved("ns=9;s=a;b"), Ok(Ok(NodeId::new(9, "a;b"))));
        assert_eq!(resolved("i=2258"), Ok(Ok(NodeId::new(0, 2258u32))));
        assert_eq!(resolved("nsu=urn:gone;s=State"), Ok(Err(StatusCode::BadNodeIdUnknown)));
        let guid = "72962b91-fa75-4ae6-8d28-b404dc7daf63";
        assert_eq!(resolved(&format!("ns=1;g={guid}")), Ok(Ok(NodeId::new(1, guid.parse::<Guid>().expect("a GUID")))));
        assert_eq!(
            resolved("ns=1;b=M/RbKBsRVkePCePcx24oRA=="),
            Ok(Ok(NodeId::new(1, ByteString::from_base64("M/RbKBsRVkePCePcx24oRA==").expect("base64"))))
        );
    }

    #[test]
    fn nodes_that_cannot_be_are_refused_with_the_reason() {
        for (text, reason) in [
            ("nsu=urn:a", "no identifier"),
            ("nsu=;s=a", "the namespace URI is empty"),
            ("ns=70000;s=a", "namespace index"),
            ("ns=1;s=", "the identifier is empty"),
            ("ns=1;i=-1", "whole number"),
            ("ns=1;g=nonsense", "GUID"),
            ("ns=1;b=***", "base64"),
            ("ns=1;x=1", "begins with"),
            ("State", "no identifier"),
        ] {
            let error = text.parse::<Node>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn nodes_read_back_as_written() {
        for text in ["nsu=urn:fab-2:aoi;s=State", "ns=2;i=1001", "i=85", "ns=1;b=AAECAw=="] {
            assert_eq!(text.parse::<Node>().map(|node| node.to_string()).as_deref(), Ok(text));
        }
    }
}
