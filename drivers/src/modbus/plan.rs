//! Which requests read a group's tags: as few as the protocol allows, split where the device refuses.

use std::cmp::Reverse;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::config::{Group, Limits, Table, Tag};
use crate::{OwnStatus, Status, Time};

/// The most registers one request may ask for (Modbus Application Protocol V1.1b3, 6.3).
pub(super) const MOST_REGISTERS: u16 = 125;
/// The most bits one request may ask for (6.1).
pub(super) const MOST_BITS: u16 = 2000;
/// Bits that take as many bytes as a register.
const BITS: u16 = 16;
/// How long a tag that the device refused is left alone before it is asked for again: soon enough
/// for whoever is mending the device, seldom enough to cost the good tags nothing.
pub(super) const REST: Duration = Duration::from_secs(10);
/// A tag for which the device says nothing at all costs a wait each time: its rest doubles so often, to five minutes.
const DOUBLINGS: u32 = 5;
/// How many refused tags one poll may ask for again.
const RETRIES_A_POLL: usize = 16;

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
    /// What this poll has yet to ask for, the next one last: where reads begin among the slots.
    queue: Vec<usize>,
    /// Its last answer over this link.
    pub(super) heard: Option<Time>,
    /// The unit is away, by its silence or by its gateway's word, and has not answered since.
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
    /// The device refused this one tag, or says nothing when it is asked for; when to ask again.
    pub(super) rests_until: Option<Instant>,
    /// It has been answered, as it stands.
    pub(super) known: bool,
    /// How often in a row it was not answered, or what it was split from.
    pub(super) misses: u32,
    /// When it was not answered the last time.
    pub(super) missed: Option<Instant>,
    /// It rested and was answered: it may be joined to its neighbours, over so wide a gap.
    mended: Option<u16>,
}

impl Plan {
    pub(super) fn new(group: Group) -> Self {
        let Group { station, unit, poll, timeout, limits, tags: mut slots } = group;
        slots.sort_by_key(|slot| (slot.address, slot.width()));
        let reads = coalesce(&slots, limits);
        Self { station, unit, poll, timeout, limits, slots, reads, queue: Vec::new(), heard: None, silent: false }
    }

    /// Over a new link nothing has been heard yet, and what was refused is asked for again: somebody may have mended it. How
    /// the reads are split is remembered, since the registers of a device seldom change.
    pub(super) fn begin(&mut self) {
        self.wake();
        (self.heard, self.silent) = (None, false);
    }

    /// Begins anew, and asks again for what rests.
    pub(super) fn wake(&mut self) {
        self.queue.clear();
        self.reads.iter_mut().for_each(|read| read.rests_until = read.rests_until.map(|_| Instant::now()));
    }

    /// Forgets what was refused.
    pub(super) fn reset(&mut self) {
        self.queue.clear();
        self.reads = coalesce(&self.slots, self.limits);
    }

    /// Whether there is something to ask for now that `may` be asked for: the rest of a poll that was broken off, or all that
    /// does not rest, with what was doubtful of late behind the rest.
    pub(super) fn has_work(&mut self, now: Instant, may: impl Fn(&Read) -> bool) -> bool {
        let Self { queue, reads, .. } = self;
        if queue.is_empty() {
            let mut retries = RETRIES_A_POLL;
            let mut due = |read: &&Read| match read.rests_until {
                None => true,
                Some(until) if retries > 0 && until <= now => {
                    retries -= 1;
                    true
                }
                Some(_) => false,
            };
            queue.extend(reads.iter().filter(|read| due(read)).map(|read| read.slots.start));
            queue.reverse();
            if reads.iter().any(|read| read.misses > 0) {
                let misses = |start: &usize| place(reads, *start).map(|at| Reverse(reads[at].misses));
                queue.sort_by_cached_key(misses);
            }
        }
        queue.retain(|start| place(reads, *start).is_some_and(|at| may(&reads[at])));
        !queue.is_empty()
    }

    /// The place of the read that is to be asked for next, which is not in the queue any more.
    pub(super) fn take_next(&mut self) -> Option<usize> {
        loop {
            let start = self.queue.pop()?;
            if let Some(at) = place(&self.reads, start) {
                return Some(at);
            }
        }
    }

    /// Whether a poll was broken off.
    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Read `at` was answered, if only by a refusal.
    pub(super) fn answered(&mut self, at: usize, refused: bool) {
        let limits = self.limits;
        let read = &mut self.reads[at];
        if !refused && read.rests_until.take().is_some() {
            // What lies between two tags may be what the device says nothing to: that would cost a wait to find out.
            let gap = if read.misses > 0 { 0 } else { reach(read.table, limits).1 };
            read.mended = Some(gap);
        }
        (read.known, read.misses, read.missed) = (true, 0, None);
    }

    /// Read `at` was not answered though the unit answers others. At the second time, or if it never was answered, its halves
    /// are asked for separately, or its one tag rests.
    pub(super) fn missed(&mut self, at: usize) {
        let now = Instant::now();
        let read = &mut self.reads[at];
        read.misses = read.misses.saturating_add(1);
        read.missed = Some(now);
        if (read.known && read.misses < 2) || self.split(at) {
            self.witness();
            return;
        }
        let read = &self.reads[at];
        let rest = REST * (1 << (read.misses - 1).min(DOUBLINGS));
        self.rest_for(at, rest, Status::Own(OwnStatus::NoAnswer));
        self.witness();
    }

    /// Whether it is not known of some read yet which of its tags is not answered.
    pub(super) fn has_doubts(&self) -> bool {
        self.reads.iter().any(|read| read.misses > 0 && read.rests_until.is_none())
    }

    /// The unit answers again: that it did not says nothing of what it was asked for meanwhile.
    pub(super) fn trust(&mut self) {
        for read in self.reads.iter_mut().filter(|read| read.rests_until.is_none()) {
            (read.misses, read.missed) = (0, None);
        }
    }

    /// The unit did not answer when it was asked for read `at`: next time another one is asked for first.
    pub(super) fn doubt(&mut self, at: usize) {
        let read = &mut self.reads[at];
        read.misses = read.misses.saturating_add(1);
        read.missed = Some(Instant::now());
        self.queue.clear();
    }

    /// If the poll goes on later, it begins with a read that is sure to be answered by a unit that is there.
    fn witness(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let sure = |read: &&Read| read.known && read.misses == 0 && read.rests_until.is_none();
        if let Some(start) = self.reads.iter().find(sure).map(|read| read.slots.start) {
            self.queue.retain(|queued| *queued != start);
            self.queue.push(start);
        }
    }

    /// Joins what was answered after its rest to its neighbours that are good, as far as a read may reach.
    pub(super) fn join_mended(&mut self) {
        let mut at = 0;
        while at < self.reads.len() {
            let Some(gap) = self.reads[at].mended.take() else {
                at += 1;
                continue;
            };
            while self.join(at, gap) {}
            while at > 0 && self.join(at - 1, gap) {
                at -= 1;
            }
            at += 1;
        }
    }

    /// Makes one of read `at` and the next one, if both are good, no more than `gap` lies between and the limits allow it.
    fn join(&mut self, at: usize, gap: u16) -> bool {
        let Some([one, other]) = self.reads.get(at..at + 2) else { return false };
        let good = |read: &Read| read.known && read.misses == 0 && read.rests_until.is_none();
        if !good(one) || !good(other) || one.table != other.table {
            return false;
        }
        let (from, stop) = (u32::from(one.offset), u32::from(one.offset) + u32::from(one.quantity));
        let end = stop.max(u32::from(other.offset) + u32::from(other.quantity));
        let most = u32::from(reach(one.table, self.limits).0);
        if u32::from(other.offset) > stop + u32::from(gap) || end - from > most || end > 1 << 16 {
            return false;
        }
        let both = Read::spanning(&self.slots, one.slots.start..other.slots.end);
        self.reads.splice(at..at + 2, [Read { known: true, ..both }]);
        true
    }

    /// Asks for the two halves of read `at` separately from now on. `false` when there is only one tag in it.
    pub(super) fn split(&mut self, at: usize) -> bool {
        let Read { slots: Range { start, end }, misses, missed, .. } = self.reads[at];
        let middle = start + (end - start) / 2;
        if middle == start {
            return false;
        }
        let halves =
            [start..middle, middle..end].map(|half| Read { misses, missed, ..Read::spanning(&self.slots, half) });
        self.reads.splice(at..=at, halves);
        true
    }

    /// The halves of what was read `at` are asked for in this poll, the first one next.
    pub(super) fn halves_next(&mut self, at: usize) {
        self.queue.extend([at + 1, at].map(|half| self.reads[half].slots.start));
    }

    /// Asks for read `at` first when the poll goes on.
    pub(super) fn again(&mut self, at: usize) {
        self.queue.push(self.reads[at].slots.start);
    }

    /// Leaves the one tag of read `at` alone for a while, since it was refused for `status`.
    pub(super) fn rest(&mut self, at: usize, status: Status) {
        self.rest_for(at, REST, status);
    }

    fn rest_for(&mut self, at: usize, rest: Duration, status: Status) {
        let read = &mut self.reads[at];
        if read.rests_until.is_none() {
            let address = self.slots[read.slots.start].address;
            warn!(station = %self.station, unit = self.unit, %address, %status, "the device refuses this address");
        }
        read.rests_until = Some(Instant::now() + rest);
    }
}

/// Where the read that begins with slot `start` stands.
fn place(reads: &[Read], start: usize) -> Option<usize> {
    reads.binary_search_by_key(&start, |read| read.slots.start).ok()
}

impl Read {
    /// A read that is in no plan.
    pub(super) fn of(table: Table, offset: u16, quantity: u16) -> Self {
        Self {
            table,
            offset,
            quantity,
            slots: 0..0,
            rests_until: None,
            known: false,
            misses: 0,
            missed: None,
            mended: None,
        }
    }

    /// The read that just covers `slots[range]`, which is not empty.
    fn spanning(slots: &[Tag], range: Range<usize>) -> Self {
        let first = slots[range.start].address;
        let end = slots[range.clone()].iter().map(end).max().unwrap_or_default();
        let quantity = u16::try_from(end - u32::from(first.offset)).expect("a read is within its limit");
        Self { slots: range, ..Self::of(first.table, first.offset, quantity) }
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
