//! What births told: which metric an alias is, and of which type. Everybody's metrics come by, and only those that a tag
//! wants are kept whole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::wire;

/// How many devices one link follows, edge nodes among them.
const MOST_DEVICES: usize = 16_384;
/// How many metrics of births are kept on one link: about 8 bytes for each that nobody wants, and 100 for the others.
const MOST_METRICS: usize = 250_000;

/// The names that tags want, of whichever node or device.
pub(super) type Names = HashSet<Arc<str>>;

/// What room is left on a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) devices: usize,
    pub(super) metrics: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { devices: MOST_DEVICES, metrics: MOST_METRICS }
    }
}

/// No room is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The births of a node and its devices, the node's own under the empty name.
#[derive(Debug, Default)]
pub(super) struct Births(HashMap<Box<str>, Birth>);

/// Names and types.
#[derive(Debug, Default)]
pub(super) struct Birth {
    /// Of what is wanted, each with its type.
    aliases: HashMap<u64, (Arc<str>, Option<u32>)>,
    kinds: HashMap<Arc<str>, Option<u32>>,
    /// The other aliases, sorted.
    others: Box<[u64]>,
    /// There was no room for it.
    passed_over: bool,
}

/// Which metric a message means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Its name, and whether the birth has it, with which type.
    Named(Arc<str>, Option<Option<u32>>),
    /// One that no tag wants.
    Other,
    /// One that no birth has named.
    Unknown,
}

impl Births {
    pub(super) fn get(&self, device: &str) -> Option<&Birth> {
        self.0.get(device)
    }

    /// A device is born; the error says that not all of it is kept.
    pub(super) fn bear(
        &mut self,
        device: &str,
        payload: &wire::Payload,
        names: &Names,
        room: &mut Room,
    ) -> Result<(), Full> {
        self.bury(device, room);
        if room.devices == 0 {
            return Err(Full);
        }
        let birth = Birth::of(payload, names);
        let fits = birth.metrics() <= room.metrics;
        let birth = if fits { birth } else { Birth { passed_over: true, ..Birth::default() } };
        room.devices -= 1;
        room.metrics -= birth.metrics();
        self.0.insert(device.into(), birth);
        if fits { Ok(()) } else { Err(Full) }
    }

    /// A device is gone.
    pub(super) fn bury(&mut self, device: &str, room: &mut Room) {
        if let Some(birth) = self.0.remove(device) {
            room.devices += 1;
            room.metrics += birth.metrics();
        }
    }

    /// The node is gone.
    pub(super) fn clear(&mut self, room: &mut Room) {
        room.devices += self.0.len();
        room.metrics += self.0.values().map(Birth::metrics).sum::<usize>();
        self.0 = HashMap::new();
    }
}

impl Birth {
    fn of(payload: &wire::Payload, names: &Names) -> Self {
        let mut birth = Self::default();
        let mut others = Vec::new();
        for metric in &payload.metrics {
            let Some(name) = &metric.name else { continue };
            let Some(name) = names.get(name.as_str()) else {
                others.extend(metric.alias);
                continue;
            };
            if let Some(alias) = metric.alias {
                birth.aliases.insert(alias, (Arc::clone(name), type_of(metric)));
            }
            birth.kinds.insert(Arc::clone(name), type_of(metric));
        }
        others.sort_unstable();
        others.dedup();
        Self { others: others.into(), ..birth }
    }

    fn metrics(&self) -> usize {
        self.kinds.len() + self.others.len()
    }
}

/// Which metric this is, as the birth of its device has it.
pub(super) fn which(metric: &wire::Metric, birth: Option<&Birth>, names: &Names) -> Which {
    if let Some(name) = metric.name.as_deref().filter(|name| !name.is_empty()) {
        let Some(name) = names.get(name) else { return Which::Named(name.into(), None) };
        return Which::Named(Arc::clone(name), birth.and_then(|birth| birth.kinds.get(name).copied()));
    }
    let (Some(alias), Some(birth)) = (metric.alias, birth) else { return Which::Unknown };
    match birth.aliases.get(&alias) {
        Some((name, kind)) => Which::Named(Arc::clone(name), Some(*kind)),
        None if birth.passed_over || birth.others.binary_search(&alias).is_ok() => Which::Other,
        None => Which::Unknown,
    }
}

/// The type that a metric says itself.
pub(super) fn type_of(metric: &wire::Metric) -> Option<u32> {
    metric.datatype.filter(|kind| *kind != 0)
}
