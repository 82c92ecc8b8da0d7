//! Which requests read a group's tags: as few as the protocol allows, split where the device refuses.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::config::{Group, Limits, Table, Tag};
use crate::{Status, Time};

/// The most registers one request may ask for (Modbus Application Protocol V1.1b3, 6.3).
pub(super) const MOST_REGISTERS: u16 = 125;
/// The most bits one request may ask for (6.1).
pub(super) const MOST_BITS: u16 = 2000;
/// Bits that take as many bytes as a register.
const BITS: u16 = 16;
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
    /// How long the unit may take.
    pub(super) timeout: Duration,
    limits: Limits,
    /// Every tag, by table and offset.
    pub(super) slots: Vec<Tag>,
    /// What is asked for, in order; together they cover each slot once.
    pub(super) reads: Vec<Read>,
    /// Its last answer over this link.
    pub(super) heard: Option<Time>,
    /// The unit did not answer in time, and not since.
    pub(super) silent: bool,
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
        let Group { station, unit, poll, timeout, limits, tags: mut slots } = group;
        slots.sort_by_key(|slot| (slot.address, slot.width()));
        let reads = coalesce(&slots, limits);
        Self { station, unit, poll, timeout, limits, slots, reads, heard: None, silent: false }
    }

    /// Over a new link nothing has been heard yet, and what was refused is asked for again: somebody may have mended it. How
    /// the reads are split is remembered, since the registers of a device seldom change.
    pub(super) fn begin(&mut self) {
        self.wake();
        (self.heard, self.silent) = (None, false);
    }

    /// Asks again for what rests.
    pub(super) fn wake(&mut self) {
        self.reads.iter_mut().for_each(|read| read.rests_until = read.rests_until.map(|_| Instant::now()));
    }

    /// Forgets what was refused.
    pub(super) fn reset(&mut self) {
        self.reads = coalesce(&self.slots, self.limits);
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
    /// A read that is in no plan.
    pub(super) fn of(table: Table, offset: u16, quantity: u16) -> Self {
        Self { table, offset, quantity, slots: 0..0, rests_until: None }
    }

    /// The read that just covers `slots[range]`, which is not empty.
    fn spanning(slots: &[Tag], range: Range<usize>) -> Self {
        let first = slots[range.start].address;
        let end = slots[range.clone()].iter().map(end).max().unwrap_or_default();
        let quantity = u16::try_from(end - u32::from(first.offset)).expect("a read is within its limit");
        Self { table: first.table, offset: first.offset, quantity, slots: range, rests_until: None }
    }
}

/// One past its last register or bit.
fn end(slot: &Tag) -> u32 {
    u32::from(slot.address.offset) + u32::from(slot.width())
}

/// As few reads as cover `slots`, which are sorted. A tag that runs over the table's end is asked for
/// alone, so that it alone is refused.
fn coalesce(slots: &[Tag], limits: Limits) -> Vec<Read> {
    let mut reads = Vec::new();
    let mut start = 0;
    let mut stop = 0; // of the registers read so far, exclusive
    for (at, slot) in slots.iter().enumerate() {
        let first = slots[start].address;
        let (most, gap) = reach(first.table, limits);
        let joins = slot.address.table == first.table
            && u32::from(slot.address.offset) <= stop + u32::from(gap)
            && stop.max(end(slot)) - u32::from(first.offset) <= u32::from(most)
            && stop.max(end(slot)) <= 1 << 16;
        if at > start && !joins {
            reads.push(Read::spanning(slots, start..at));
            (start, stop) = (at, 0);
        }
        stop = stop.max(end(slot));
    }
    if start < slots.len() {
        reads.push(Read::spanning(slots, start..slots.len()));
    }
    reads
}

/// The most that one read takes in, and the widest gap in it, in registers or bits.
fn reach(table: Table, limits: Limits) -> (u16, u16) {
    let most = limits.max_registers.clamp(1, MOST_REGISTERS);
    if table.is_bits() {
        return (most.saturating_mul(BITS).min(MOST_BITS), limits.max_gap.saturating_mul(BITS));
    }
    (most, limits.max_gap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::TagId;
    use crate::modbus::{Address, DataType};

    fn plan(tags: &[(&str, &str)]) -> Plan {
        let tags = tags
            .iter()
            .zip(0..)
            .map(|((address, data_type), id)| {
                let data_type = data_type.parse().expect("a data type");
                Tag::new(TagId(id), address.parse().expect("an address"), data_type)
            })
            .collect();
        Plan::new(group(tags, Limits::default()))
    }

    fn group(tags: Vec<Tag>, limits: Limits) -> Group {
        let second = Duration::from_secs(1);
        Group { station: "press-1".into(), unit: 1, poll: second, timeout: second, limits, tags }
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
        let gap = Limits::default().max_gap;
        let near = format!("holding:{}", 1 + gap);
        assert_eq!(spans(&plan(&[("holding:0", "u16"), (&near, "u16")])), [(Table::Holding, 0, 18, 2)]);
        let far = format!("holding:{}", 2 + gap);
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

    #[test]
    fn fewer_registers_and_other_gaps_where_a_device_wants_them() {
        let tags = |addresses: &[&str]| {
            let tag =
                |(address, id): (&&str, u32)| Tag::new(TagId(id), address.parse().expect("an address"), DataType::U16);
            addresses.iter().zip(0..).map(tag).collect::<Vec<_>>()
        };
        let some = tags(&["holding:0", "holding:1", "holding:2", "holding:3", "holding:9"]);
        let planned = |max_gap, max_registers| {
            spans(&Plan::new(group(some.clone(), Limits { max_gap, max_registers })))
                .into_iter()
                .map(|(_, offset, quantity, _)| (offset, quantity))
                .collect::<Vec<_>>()
        };
        assert_eq!(planned(16, 125), [(0, 10)]);
        assert_eq!(planned(4, 125), [(0, 4), (9, 1)]);
        assert_eq!(planned(16, 3), [(0, 3), (3, 1), (9, 1)]);
        assert_eq!(planned(0, 1), [(0, 1), (1, 1), (2, 1), (3, 1), (9, 1)]);
    }

    #[test]
    fn a_new_link_asks_again_for_what_was_refused_and_remembers_how_to_ask() {
        let mut plan = plan(&[("holding:0", "u16"), ("holding:9", "u16")]);
        assert!(plan.split(0));
        plan.rest(1, Status::Modbus(2));
        plan.begin();
        assert_eq!(plan.reads.len(), 2);
        assert!(plan.reads[1].rests_until.is_some_and(|until| until <= Instant::now()));
    }

    fn any_group() -> impl Strategy<Value = Group> {
        let table = prop_oneof![Just(Table::Coil), Just(Table::Discrete), Just(Table::Holding), Just(Table::Input)];
        let offset = prop_oneof![0..400u16, 65_500..=u16::MAX, any::<u16>()];
        let data_type = proptest::sample::select(DataType::NAMES.as_slice());
        let limits = (0..40_u16, 4..126_u16);
        (proptest::collection::vec((table, offset, data_type, 0..9_u16), 0..300), limits).prop_map(
            |(tags, (max_gap, max_registers))| {
                let tag = |((table, offset, data_type, length), id): ((_, _, &str, _), _)| {
                    let address = Address { table, offset, bit: None };
                    let data_type = data_type.parse().expect("a data type");
                    Tag { length, ..Tag::new(TagId(id), address, data_type) }
                };
                group(tags.into_iter().zip(0..).map(tag).collect(), Limits { max_gap, max_registers })
            },
        )
    }

    fn assert_covers(plan: &Plan, tags: usize) {
        let mut covered = 0;
        for read in &plan.reads {
            assert_eq!(read.slots.start, covered, "each slot once, in order");
            covered = read.slots.end;
            let most = reach(read.table, plan.limits).0;
            assert!((1..=most).contains(&read.quantity), "{read:?}");
            for slot in &plan.slots[read.slots.clone()] {
                assert_eq!(slot.address.table, read.table);
                assert!(slot.address.offset >= read.offset);
                assert!(end(slot) <= u32::from(read.offset) + u32::from(read.quantity), "{slot:?} in {read:?}");
                assert!(end(slot) <= 1 << 16 || read.slots.len() == 1, "over the end only alone");
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
