//! What the simulated server remembers, and how badly.

use std::collections::HashMap;
use std::time::Duration;

use opcua::server::ContinuationPoint;
use opcua::server::node_manager::HistoryNode;
use opcua::types::{DataValue, DateTime, HistoryData, Identifier, NodeId, ReadRawModifiedDetails, StatusCode};

use crate::Time;

/// How a historian may fall short of the book.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flaws {
    /// Values of one node in an answer at most, whatever the client asked for; 0 is any number.
    pub page: usize,
    /// Every so many continuation points is forgotten at once; 0 is none.
    pub forgets: u32,
    /// Values of an answer come in any order.
    pub shuffled: bool,
    /// Times are kept to the millisecond.
    pub milliseconds: bool,
    /// What is younger than this, by the newest value of the node, is not there yet for the first so many reads.
    pub late: (Duration, u32),
    /// Refuses every read of history so.
    pub refuses: Option<StatusCode>,
    /// Nothing before this is kept.
    pub since: Option<Time>,
    /// So many pages of each node are empty, with the word that there is more; `u32::MAX` is all.
    pub empty: u32,
}

/// All that nodes ever said.
#[derive(Default)]
pub(super) struct History {
    pub(super) kept: bool,
    pub(super) flaws: Flaws,
    values: HashMap<String, Vec<DataValue>>,
    /// How many values were asked for and given.
    pub(super) given: usize,
    pub(super) reads: u32,
    points: u32,
    /// Continuation points that were made and neither used nor given back.
    pub(super) open: i64,
}

/// Where an answer left off.
struct Point {
    next: usize,
    /// Empty pages so far.
    empty: u32,
    forgotten: bool,
}

impl History {
    pub(super) fn keep(&mut self, name: &str, told: &DataValue) {
        if self.kept {
            self.values.entry(name.to_owned()).or_default().push(told.clone());
        }
    }

    pub(super) fn read(
        &mut self,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut &mut HistoryNode],
    ) -> Result<(), StatusCode> {
        if let Some(why) = self.flaws.refuses {
            return Err(why);
        }
        self.reads += 1;
        for node in nodes {
            let status = self.read_node(details, node);
            node.set_status(status);
        }
        Ok(())
    }

    fn read_node(&mut self, details: &ReadRawModifiedDetails, node: &mut HistoryNode) -> StatusCode {
        let point = |point: &Point| (point.next, point.empty, point.forgotten);
        let (skip, empty) = match node.continuation_point().map(|at| at.get::<Point>().map(point)) {
            Some(None | Some((_, _, true))) => return StatusCode::BadContinuationPointInvalid,
            Some(Some((next, empty, false))) => {
                self.open -= 1;
                (next, empty)
            }
            None => (0, 0),
        };
        if empty < self.flaws.empty {
            self.open += 1;
            let point = Point { next: skip, empty: empty.saturating_add(1), forgotten: false };
            node.set_next_continuation_point(Some(ContinuationPoint::new(Box::new(point))));
            node.set_result(HistoryData { data_values: None });
            return StatusCode::Good;
        }
        let within: Vec<DataValue> = self
            .of(node.node_id())
            .into_iter()
            .filter(|value| {
                let at = value.source_timestamp.unwrap_or_default();
                details.start_time <= at && at < details.end_time
            })
            .collect();
        let asked = usize::try_from(details.num_values_per_node).unwrap_or(usize::MAX);
        let page = [asked, self.flaws.page].into_iter().filter(|&limit| limit > 0).min().unwrap_or(usize::MAX);
        let mut values: Vec<_> = within.iter().skip(skip).take(page).cloned().collect();
        let next = skip + values.len();
        if next < within.len() {
            self.points += 1;
            let forgotten = self.flaws.forgets > 0 && self.points.is_multiple_of(self.flaws.forgets);
            self.open += i64::from(!forgotten);
            node.set_next_continuation_point(Some(ContinuationPoint::new(Box::new(Point { next, empty, forgotten }))));
        }
        if self.flaws.shuffled {
            values.reverse();
        }
        self.given += values.len();
        let status = if values.is_empty() { StatusCode::GoodNoData } else { StatusCode::Good };
        node.set_result(HistoryData { data_values: Some(values) });
        status
    }

    fn of(&self, node: &NodeId) -> Vec<DataValue> {
        let Identifier::String(name) = &node.identifier else { return Vec::new() };
        let mut values = self.values.get(name.as_ref()).cloned().unwrap_or_default();
        if self.flaws.milliseconds {
            for value in &mut values {
                value.source_timestamp = value.source_timestamp.map(|at| DateTime::from(at.ticks() / 10_000 * 10_000));
            }
        }
        let ticks = |value: &DataValue| value.source_timestamp.map_or(0, |at| at.ticks());
        values.sort_by_key(ticks);
        if let Some(since) = self.flaws.since {
            values.retain(|value| ticks(value) >= super::date_time(since).ticks());
        }
        let (late, reads) = self.flaws.late;
        if self.reads <= reads
            && let Some(newest) = values.last().map(ticks)
        {
            let late = i64::try_from(late.as_nanos() / 100).unwrap_or(i64::MAX);
            values.retain(|value| ticks(value) <= newest - late);
        }
        values
    }
}
