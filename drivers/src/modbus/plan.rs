//! Which requests read a group's tags: as few as the protocol allows, split where the device refuses.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::config::{Address, DataType, Group, Table};
use crate::{Status, TagId, Time};

/// The most registers one request may ask for (Modbus Application Protocol V1.1b3, 6.3).
pub(super) const MOST_REGISTERS: u16 = 125;
/// The most bits one request may ask for (6.1).
pub(super) const MOST_BITS: u16 = 2000;
/// How many registers nobody asked for are read along rather than made into a second request. They cost
/// 2 bytes each; a request costs 24 bytes of headers and, above all, a turn of the device's own
/// cycle, often 1 to 10 ms. A device that has no registers in the gap refuses, and the read is split.
pub(super) const GAP_REGISTERS: u16 = 16;
/// The same for bits, 8 to the byte.
pub(super) const GAP_BITS: u16 = 256;
/// How long a tag that the device refused is left alone before it is asked for again: soon enough
/// for whoever is mending the device, seldom enough to cost the good tags nothing.
pub(super) const REST: Duration = Duration::from_secs(10);

/// One group, planned.
pub(super) struct Plan {
    /// The station, for logs.
    pub(super) station: std::sync::Arc<str>,
    /// The unit identifier.
    pub(super) unit: u8,
    /// How often.
    pub(super) poll: Duration,
    /// Every tag, by table and offset.
    pub(super) slots: Vec<Slot>,
    /// What is asked for, in order; together they cover each slot once.
    pub(super) reads: Vec<Read>,
    /// Its last answer over this link.
    pub(super) heard: Option<Time>,
    /// The unit did not answer in time, and not since.
    pub(super) silent: bool,
}

/// One tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) id: TagId,
    pub(super) address: Address,
    pub(super) data_type: DataType,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) table: Table,
    pub(super) offset: u16,
    pub(super) quantity: u16,
    /// The tags it answers for: a run of [`Plan::slots`].
    pub(super) slots: Range<usize>,
    /// The device refused this one tag; when to ask again.
    pub(super) rests_until: Option<Instant>,
}

impl Plan {
    pub(super) fn new(group: Group) -> Self {
        let mut slots: Vec<_> = group
            .tags
            .into_iter()
            .map(|tag| Slot { id: tag.id, address: tag.address, data_type: tag.data_type })
            .collect();
        slots.sort_by_key(|slot| (slot.address, slot.width()));
        let reads = coalesce(&slots);
        Self { station: group.station, unit: group.unit, poll: group.poll, slots, reads, heard: None, silent: false }
    }

    /// Forgets all that was seen: another link may mean another device, or a mended one.
    pub(super) fn begin(&mut self) {
        self.reset();
        (self.heard, self.silent) = (None, false);
    }

    /// Forgets what was refused.
    pub(super) fn reset(&mut self) {
        self.reads = coalesce(&self.slots);
    }

    /// Asks for the two halves of read `at` separately from now on. `false` when there is only one tag in it.
    pub(super) fn split(&mut self, at: usize) -> bool {
        let Range { start, end } = self.reads[at].slots;
        let middle = start + (end - start) / 2;
        if middle == start {
            return false;
        }
        let halves = [start..middle, middle..end].map(|half| Read::spanning(&self.slots, half));
        self.reads.splice(at..=at, halves);
        true
    }

    /// Leaves the one tag of read `at` alone for a while, since it was refused for `status`.
    pub(super) fn rest(&mut self, at: usize, status: Status) {
        let read = &mut self.reads[at];
        if read.rests_until.is_none() {
            let address = self.slots[read.slots.start].address;
            warn!(station = %self.station, unit = self.unit, %address, %status, "the device refuses this address");
        }
        read.rests_until = Some(Instant::now() + REST);
    }
}

impl Read {
    /// The read that just covers `slots[range]`, which is not empty.
    fn spanning(slots: &[Slot], range: Range<usize>) -> Self {
        let first = slots[range.start].address;
        let end = slots[range.clone()].iter().map(Slot::end).max().unwrap_or_default();
        let quantity = u16::try_from(end - u32::from(first.offset)).expect("a read is within its limit");
        Self { table: first.table, offset: first.offset, quantity, slots: range, rests_until: None }
    }
}

impl Slot {
    /// How many registers or bits it takes.
    pub(super) fn width(&self) -> u16 {
        if self.address.table.is_bits() { 1 } else { self.data_type.width() }
    }

    /// One past its last register or bit.
    fn end(&self) -> u32 {
        u32::from(self.address.offset) + u32::from(self.width())
    }
}

/// As few reads as cover `slots`, which are sorted. A tag that runs over the table's end is asked for
/// alone, so that it alone is refused.
fn coalesce(slots: &[Slot]) -> Vec<Read> {
    let mut reads = Vec::new();
    let mut start = 0;
    let mut end = 0; // of the registers read so far, exclusive
    for (at, slot) in slots.iter().enumerate() {
        let first = slots[start].address;
        let (most, gap) = if first.table.is_bits() { (MOST_BITS, GAP_BITS) } else { (MOST_REGISTERS, GAP_REGISTERS) };
        let joins = slot.address.table == first.table
            && u32::from(slot.address.offset) <= end + u32::from(gap)
            && end.max(slot.end()) - u32::from(first.offset) <= u32::from(most)
            && end.max(slot.end()) <= 1 << 16;
        if at > start && !joins {
            reads.push(Read::spanning(slots, start..at));
            (start, end) = (at, 0);
        }
        end = end.max(slot.end());
    }
    if start < slots.len() {
        reads.push(Read::spanning(slots, start..slots.len()));
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::modbus::Tag;

    fn plan(tags: &[(&str, &str)]) -> Plan {
        let tags = tags
            .iter()
            .zip(0..)
            .map(|((address, data_type), id)| Tag {
                id: TagId(id),
                address: address.parse().expect("an address"),
                data_type: data_type.parse().expect("a data type"),
            })
            .collect();
        Plan::new(Group { station: "press-1".into(), unit: 1, poll: Duration::from_secs(1), tags })
    }

    fn spans(plan: &Plan) -> Vec<(Table, u16, u16, usize)> {
        plan.reads.iter().map(|read| (read.table, read.offset, read.quantity, read.slots.len())).collect()
    }

    #[test]
    fn neighbours_share_a_read_and_tables_do_not() {
        let plan = plan(&[
            ("input:10", "f32"),
            ("holding:4", "u32"),
            ("holding:0", "u16"),
            ("holding:2", "u32"),
            ("coil:3", "bool"),
            ("discrete:3", "bool"),
        ]);
        assert_eq!(
            spans(&plan),
            [(Table::Coil, 3, 1, 1), (Table::Discrete, 3, 1, 1), (Table::Holding, 0, 6, 3), (Table::Input, 10, 2, 1),]
        );
    }

    #[test]
    fn a_small_gap_is_read_along_and_a_large_one_is_not() {
        let near = format!("holding:{}", 1 + GAP_REGISTERS);
        assert_eq!(spans(&plan(&[("holding:0", "u16"), (&near, "u16")])), [(Table::Holding, 0, 18, 2)]);
        let far = format!("holding:{}", 2 + GAP_REGISTERS);
        let far = plan(&[("holding:0", "u16"), (&far, "u16")]);
        assert_eq!(spans(&far), [(Table::Holding, 0, 1, 1), (Table::Holding, 18, 1, 1)]);
    }

    #[test]
    fn a_read_ends_at_the_protocols_limit_and_never_inside_a_tag() {
        let addresses: Vec<String> = (0..63).map(|at| format!("holding:{}", at * 2)).collect();
        let tags: Vec<_> = addresses.iter().map(|address| (address.as_str(), "f32")).collect();
        assert_eq!(spans(&plan(&tags)), [(Table::Holding, 0, 124, 62), (Table::Holding, 124, 2, 1)]);
    }

    #[test]
    fn a_tag_over_the_end_of_its_table_stands_alone() {
        let plan = plan(&[("holding:65534", "u16"), ("holding:65535", "u32"), ("holding:65535", "u16")]);
        assert_eq!(spans(&plan), [(Table::Holding, 65534, 2, 2), (Table::Holding, 65535, 2, 1)]);
    }

    #[test]
    fn splitting_goes_down_to_the_single_tag() {
        let mut plan = plan(&[("holding:0", "u32"), ("holding:2", "u16"), ("holding:9", "u16")]);
        assert!(plan.split(0));
        assert_eq!(spans(&plan), [(Table::Holding, 0, 2, 1), (Table::Holding, 2, 8, 2)]);
        assert!(!plan.split(0), "one tag cannot be split");
        assert!(plan.split(1));
        assert_eq!(spans(&plan)[1..], [(Table::Holding, 2, 1, 1), (Table::Holding, 9, 1, 1)]);
        plan.reset();
        assert_eq!(spans(&plan), [(Table::Holding, 0, 10, 3)]);
    }

    fn any_group() -> impl Strategy<Value = Group> {
        let table = prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
        let offset = prop_oneof![0..400u16, 65_500..=u16::MAX, any::<u16>()];
        let data_type = proptest::sample::select(DataType::NAMES.as_slice());
        proptest::collection::vec((table, offset, data_type), 0..300).prop_map(|tags| Group {
            station: "any".into(),
            unit: 1,
            poll: Duration::from_secs(1),
            tags: tags
                .into_iter()
                .zip(0..)
                .map(|((table, offset, data_type), id)| Tag {
                    id: TagId(id),
                    address: Address { table, offset },
                    data_type: data_type.parse().expect("a data type"),
                })
                .collect(),
        })
    }

    fn assert_covers(plan: &Plan, tags: usize) {
        let mut covered = 0;
        for read in &plan.reads {
            assert_eq!(read.slots.start, covered, "each slot once, in order");
            covered = read.slots.end;
            let most = if read.table.is_bits() { MOST_BITS } else { MOST_REGISTERS };
            assert!((1..=most).contains(&read.quantity), "{read:?}");
            for slot in &plan.slots[read.slots.clone()] {
                assert_eq!(slot.address.table, read.table);
                assert!(slot.address.offset >= read.offset);
                assert!(slot.end() <= u32::from(read.offset) + u32::from(read.quantity), "{slot:?} in {read:?}");
                assert!(slot.end() <= 1 << 16 || read.slots.len() == 1, "over the end only alone");
            }
        }
        assert_eq!(covered, tags);
    }

    proptest! {
        #[test]
        fn every_plan_covers_every_tag_within_the_limits(group in any_group(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
            let tags = group.tags.len();
            let mut plan = Plan::new(group);
            assert_covers(&plan, tags);
            for cut in cuts {
                if !plan.reads.is_empty() {
                    plan.split(cut.index(plan.reads.len()));
                    assert_covers(&plan, tags);
                }
            }
        }
    }
}
