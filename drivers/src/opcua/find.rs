//! Where the tags of a configuration are at a server, and what must be known of them.

use std::collections::HashMap;

use opcua::types::{AttributeId, BrowsePathResult, NodeId, StatusCode, Variant};

use super::event::Wanted;
use super::link::Link;
use super::pick::{Picked, Picks};
use super::types::{self, Types};
use super::{Address, Notifier, Pick, Tag};
use crate::LinkError;

/// The node of each address, or the status that its tag has instead.
pub(super) async fn nodes(
    link: &mut Link,
    namespaces: &[String],
    addresses: &[&Address],
) -> Result<Vec<Result<NodeId, StatusCode>>, LinkError> {
    let mut nodes = Vec::new();
    let (mut places, mut paths) = (Vec::new(), Vec::new());
    for (at, address) in addresses.iter().enumerate() {
        nodes.push(match address {
            Address::Node(node) => node.resolve(namespaces),
            Address::Path(path) => path.resolve(namespaces).and_then(|path| {
                places.push(at);
                paths.push(path);
                Err(StatusCode::BadNoMatch)
            }),
        });
    }
    for (at, found) in places.into_iter().zip(link.translate(paths).await?) {
        nodes[at] = target(found);
    }
    Ok(nodes)
}

/// The one node that a path leads to.
fn target(found: BrowsePathResult) -> Result<NodeId, StatusCode> {
    if found.status_code.is_bad() {
        return Err(found.status_code);
    }
    // What lies at another server is not followed; it has an index of what is left of the path.
    let here = found.targets.into_iter().flatten().filter(|target| target.remaining_path_index == u32::MAX);
    let mut nodes = here.filter(|target| target.target_id.server_index == 0).map(|target| target.target_id.node_id);
    let first = nodes.next().ok_or(StatusCode::BadNoMatch)?;
    // By two ways to the same node is no doubt.
    if nodes.all(|other| other == first) { Ok(first) } else { Err(StatusCode::BadTooManyMatches) }
}

/// The event items of those of the notifiers at `asked` that are there, and why the others are not; their handles follow
/// those of `items`.
pub(super) async fn notifiers<'a>(
    link: &mut Link,
    namespaces: &[String],
    notifiers: &'a [(u32, Notifier)],
    asked: &[usize],
    items: usize,
) -> Result<(Vec<Wanted<'a>>, Vec<(usize, StatusCode)>), LinkError> {
    let addresses: Vec<_> = asked.iter().map(|&place| &notifiers[place].1.node).collect();
    let nodes = nodes(link, namespaces, &addresses).await?;
    let (mut wanted, mut refused) = (Vec::with_capacity(asked.len()), Vec::new());
    for (&place, node) in asked.iter().zip(nodes) {
        let (station, notifier) = &notifiers[place];
        match node {
            Ok(node) => {
                wanted.push(Wanted { place, handle: handle(items + place), node, notifier, station: *station });
            }
            Err(status) => refused.push((place, status)),
        }
    }
    Ok((wanted, refused))
}

fn fields_of(tags: &[&Tag], handle: u32) -> bool {
    tags.get(handle as usize - 1).is_some_and(|tag| tag.pick.field.is_some())
}

/// The client handle of what stands at that place; 0 means none to the library.
pub(super) fn handle(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or(u32::MAX)
}

/// Whether a server that refuses an item with this status may take it without a range.
pub(super) fn no_range(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BadIndexRangeInvalid
            | StatusCode::BadIndexRangeNoData
            | StatusCode::BadIndexRangeDataMismatch
            | StatusCode::BadNotSupported
            | StatusCode::BadNotImplemented
    )
}

/// What is picked of the values of `tags`, by handle; those of `nodes` are refused that have no such names or fields.
pub(super) async fn picks(
    link: &mut Link,
    tags: &[&Tag],
    nodes: &mut [Result<NodeId, StatusCode>],
) -> Result<Picks, LinkError> {
    let told: Vec<_> = (1u32..).zip(tags.iter().copied()).filter(|(_, tag)| tag.pick != Pick::default()).collect();
    let node_of = |nodes: &[Result<NodeId, StatusCode>], handle: u32| nodes[handle as usize - 1].clone().ok();
    let typed: Vec<_> = told
        .iter()
        .filter(|(_, tag)| tag.pick.needs_type())
        .filter_map(|(handle, _)| Some((*handle, node_of(nodes, *handle)?)))
        .collect();
    let ids: Vec<_> = typed.iter().map(|(_, node)| node.clone()).collect();
    let data_types = types::read_all(link, &ids, AttributeId::DataType).await?;
    let mut data_type_of = HashMap::new();
    for ((handle, _), told) in typed.iter().zip(data_types) {
        if let Some(Variant::NodeId(id)) = told.value {
            data_type_of.insert(*handle, *id);
        }
    }
    // A node may hold another structure than it says: one of a subtype, or any at all.
    let fielded: Vec<_> = typed.iter().filter(|(handle, _)| fields_of(tags, *handle)).cloned().collect();
    for (handle, found) in types::structures(link, &fielded).await? {
        data_type_of.insert(handle, found);
    }
    let types = Types::learn(link, data_type_of.values().cloned()).await?;

    // A variable may name its values itself (OPC 10000-8, MultiStateDiscreteType): it knows best.
    let named = told.iter().filter(|(_, tag)| tag.pick.names && tag.pick.field.is_none());
    let ids = named.filter_map(|(handle, _)| node_of(nodes, *handle)).collect();
    let own: HashMap<_, _> = types::enumerations(link, ids).await?.into_iter().collect();

    let mut by_handle = HashMap::with_capacity(told.len());
    for (handle, tag) in told {
        let Some(node) = node_of(nodes, handle) else { continue };
        let pick = tag.pick.clone();
        let names = pick.names.then(|| {
            let of_type = || types.names(data_type_of.get(&handle)?, pick.field.as_ref());
            own.get(&node).filter(|_| pick.field.is_none()).cloned().or_else(of_type)
        });
        if let Some(None) = names {
            nodes[handle as usize - 1] = Err(StatusCode::BadTypeMismatch);
            continue;
        }
        by_handle.insert(handle, Picked { pick, names: names.flatten(), whole: false });
    }
    Ok(Picks::new(by_handle, types))
}
