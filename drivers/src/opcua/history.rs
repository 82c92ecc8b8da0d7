//! Reading a server's history: raw values of many nodes in a window of time, in order, in bounded memory.

use std::collections::VecDeque;
use std::mem;

use opcua::client::HistoryReadAction;
use opcua::types::{
    ByteString, DataValue, DateTime, Error, HistoryData, HistoryReadResult, HistoryReadValueId, NodeId, NumericRange,
    QualifiedName, ReadRawModifiedDetails, StatusCode, TimestampsToReturn,
};

use super::endpoint;
use super::limits::Limits;
use super::link::Link;
use crate::{LinkError, Reading, Status, Time};

/// Values that one answer may hold, of all its nodes together.
const A_PAGE: usize = 5_000;
/// Values of one node in one answer at most.
const OF_A_NODE: usize = 1_000;
/// How often a node that makes no progress is asked again.
const TRIES: u8 = 3;

/// Why a node has no history whose pages are all empty.
const NO_PROGRESS: &str = "its pages of history are empty without end";

/// A node whose history is asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The item.
    pub(super) item: usize,
    /// Its node.
    pub(super) node: NodeId,
    /// Nothing before this is wanted.
    pub(super) from: Time,
}

/// What a window of history holds.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// In order of source time, those of one node and instant as the server told them.
    pub(super) values: Vec<(usize, Reading)>,
    /// Items without history, and why.
    pub(super) refused: Vec<(usize, String)>,
    /// It holds more than was allowed, and nothing of the above counts: half of what came lies before this instant.
    pub(super) too_much: Option<Time>,
}

/// Part of a call: nodes from one instant on, each with the server's mark of where it was.
struct Part {
    from: Time,
    nodes: Vec<(usize, ByteString)>,
    a_node: usize,
    tries: u8,
}

impl Link {
    /// The raw values of `asked` from their `from` (and not before `since`) to before `to`. `read` makes a reading of
    /// what the server says of an item. At most `most` values are kept in memory (and one answer beside them).
    ///
    /// Nodes whose stretches are of about the same length are read together, so that one that has been still for days
    /// does not make the server go through days of the others.
    pub(super) async fn history(
        &mut self,
        asked: &[Asked],
        (since, to): (Time, Time),
        limits: &mut Limits,
        most: usize,
        read: impl Fn(usize, DataValue) -> Option<Reading>,
    ) -> Result<Window, LinkError> {
        let mut window = Window::default();
        let mut todo: VecDeque<Part> = parts(asked, since, to, limits.nodes_per_history).into();
        while let Some(mut part) = todo.pop_front() {
            let answer = match self.history_once(asked, &part, to).await? {
                Ok(answer) if answer.len() == part.nodes.len() => answer,
                Ok(_) => return Err(LinkError::Broken("the server answered a read of history in part".to_owned())),
                Err(error) if is_broken(error.status()) => return Err(endpoint::link_error(&error)),
                Err(error) => {
                    let why = error.status();
                    if is_too_much(why) && part.nodes.len() > 1 {
                        let half = part.nodes.split_off(part.nodes.len() / 2);
                        if why == StatusCode::BadTooManyOperations {
                            limits.nodes_per_history = half.len();
                        }
                        todo.push_front(Part { nodes: half, ..part });
                        todo.push_front(part);
                    } else if is_too_much(why) && part.tries < TRIES {
                        todo.push_front(Part { tries: part.tries + 1, a_node: (part.a_node / 4).max(1), ..part });
                    } else {
                        window.refused.extend(part.nodes.iter().map(|&(place, _)| (asked[place].item, name(why))));
                    }
                    continue;
                }
            };
            let (mut more, mut came) = (Vec::new(), 0);
            for ((place, _), told) in part.nodes.iter().zip(answer) {
                let (place, item) = (*place, asked[*place].item);
                match told.status_code {
                    StatusCode::BadContinuationPointInvalid | StatusCode::BadNoContinuationPoints => {
                        match again(&mut window, item, &part, place) {
                            Some(part) => todo.push_back(part),
                            None => window.refused.push((item, name(told.status_code))),
                        }
                    }
                    // There is history, and nothing in it.
                    StatusCode::BadNoData => {}
                    why if why.is_bad() => window.refused.push((item, name(why))),
                    _ => {
                        let values = told.history_data.into_inner_as::<HistoryData>();
                        let values = values.and_then(|data| data.data_values).unwrap_or_default();
                        came += values.len();
                        let readings = values.into_iter().filter_map(|value| read(item, value));
                        window
                            .values
                            .extend(readings.filter(|reading| reading.source_time < to).map(|reading| (item, reading)));
                        if !told.continuation_point.is_null_or_empty() {
                            more.push((place, told.continuation_point));
                        }
                    }
                }
            }
            // A server may want time to look; one that only ever says "go on" has nothing.
            let tries = if came > 0 { 0 } else { part.tries + 1 };
            if tries > TRIES {
                self.release(asked, mem::take(&mut more)).await?;
                let idle = part.nodes.iter().map(|&(place, _)| (asked[place].item, NO_PROGRESS.to_owned()));
                window.refused.extend(idle);
            } else if !more.is_empty() {
                todo.push_front(Part { nodes: more, tries, ..part });
            }
            if window.values.len() > most {
                let open = todo.into_iter().flat_map(|part| part.nodes).filter(|(_, mark)| !mark.is_null_or_empty());
                self.release(asked, open.collect()).await?;
                return Ok(Window { too_much: Some(median(&window.values)), ..Window::default() });
            }
        }
        // What a node told before it was refused stands.
        window.values.sort_by_key(|(_, reading)| reading.source_time);
        Ok(window)
    }

    async fn history_once(
        &mut self,
        asked: &[Asked],
        part: &Part,
        to: Time,
    ) -> Result<Result<Vec<HistoryReadResult>, Error>, LinkError> {
        let details = HistoryReadAction::ReadRawModifiedDetails(ReadRawModifiedDetails {
            is_read_modified: false,
            start_time: date_time(part.from),
            end_time: date_time(to),
            num_values_per_node: u32::try_from(part.a_node).unwrap_or(u32::MAX),
            return_bounds: false,
        });
        let nodes = nodes(asked, &part.nodes);
        let session = self.session.clone();
        // The library gives up first, so that a slow answer is a slow history and not a lost link.
        let limit = self.timeout.saturating_mul(2);
        let call =
            self.meanwhile(async move { session.history_read(details, TimestampsToReturn::Both, false, &nodes).await });
        tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_| Err(LinkError::Unreachable(format!("no answer within {limit:?}"))))
    }

    /// Gives continuation points back; a server that refuses that has none.
    async fn release(&mut self, asked: &[Asked], open: Vec<(usize, ByteString)>) -> Result<(), LinkError> {
        if open.is_empty() {
            return Ok(());
        }
        let nodes = nodes(asked, &open);
        let session = self.session.clone();
        let details = HistoryReadAction::ReadRawModifiedDetails(ReadRawModifiedDetails {
            is_read_modified: false,
            start_time: DateTime::null(),
            end_time: DateTime::null(),
            num_values_per_node: 0,
            return_bounds: false,
        });
        let _ = self
            .during_call(async move { session.history_read(details, TimestampsToReturn::Both, true, &nodes).await })
            .await?;
        Ok(())
    }
}

fn nodes(asked: &[Asked], places: &[(usize, ByteString)]) -> Vec<HistoryReadValueId> {
    let node = |(place, mark): &(usize, ByteString)| HistoryReadValueId {
        node_id: asked[*place].node.clone(),
        index_range: NumericRange::None,
        data_encoding: QualifiedName::null(),
        continuation_point: mark.clone(),
    };
    places.iter().map(node).collect()
}

/// Stretches of about the same length, each with so many nodes at most.
fn parts(asked: &[Asked], since: Time, to: Time, nodes: usize) -> Vec<Part> {
    let mut order: Vec<(Time, usize)> =
        asked.iter().enumerate().map(|(place, asked)| (asked.from.max(since), place)).collect();
    order.retain(|(from, _)| *from < to);
    order.sort_unstable();
    // Lengths between one power of two and the next, in seconds; the shortest together.
    let length = |from: Time| to.since(from).as_secs().max(1).ilog2();
    order
        .chunk_by(|one, other| length(one.0) == length(other.0))
        .flat_map(|alike| alike.chunks(nodes.max(1)))
        .map(|alike| Part {
            from: alike[0].0,
            nodes: alike.iter().map(|&(_, place)| (place, ByteString::null())).collect(),
            a_node: (A_PAGE / alike.len()).clamp(1, OF_A_NODE),
            tries: 0,
        })
        .collect()
}

/// A node whose continuation point the server has forgotten, or had none to give: by itself, and from the last instant
/// that it told. None when it makes no progress.
fn again(window: &mut Window, item: usize, part: &Part, place: usize) -> Option<Part> {
    let last = window.values.iter().filter(|(of, _)| *of == item).map(|(_, reading)| reading.source_time).max();
    let from = last.unwrap_or(part.from).max(part.from);
    let tries = if from > part.from { 0 } else { part.tries + 1 };
    window.values.retain(|(of, reading)| *of != item || reading.source_time < from);
    (tries <= TRIES).then(|| Part { from, nodes: vec![(place, ByteString::null())], a_node: OF_A_NODE, tries })
}

fn median(values: &[(usize, Reading)]) -> Time {
    let mut times: Vec<Time> = values.iter().map(|(_, reading)| reading.source_time).collect();
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

/// The server could do with less.
fn is_too_much(why: StatusCode) -> bool {
    matches!(
        why,
        StatusCode::BadTooManyOperations
            | StatusCode::BadTimeout
            | StatusCode::BadRequestTimeout
            | StatusCode::BadRequestTooLarge
            | StatusCode::BadResponseTooLarge
            | StatusCode::BadEncodingLimitsExceeded
            | StatusCode::BadTcpMessageTooLarge
            | StatusCode::BadOutOfMemory
            | StatusCode::BadResourceUnavailable
            | StatusCode::BadNoContinuationPoints
    )
}

/// It is not the history that fails.
fn is_broken(why: StatusCode) -> bool {
    matches!(
        why,
        StatusCode::BadConnectionClosed
            | StatusCode::BadCommunicationError
            | StatusCode::BadNotConnected
            | StatusCode::BadServerNotConnected
            | StatusCode::BadSecureChannelClosed
            | StatusCode::BadSecureChannelIdInvalid
            | StatusCode::BadSessionIdInvalid
            | StatusCode::BadSessionClosed
            | StatusCode::BadShutdown
            | StatusCode::BadServerHalted
    )
}

/// As people know it.
pub(super) fn name(why: StatusCode) -> String {
    Status::Opcua(why.bits()).name().into_owned()
}

/// OPC UA's time has 100 ns; the rest is cut off.
fn date_time(at: Time) -> DateTime {
    const UNIX_EPOCH: i64 = 116_444_736_000_000_000;
    DateTime::from(UNIX_EPOCH.saturating_add(at.0.div_euclid(100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_of_a_length_are_read_together() {
        let asked = |item: usize, age: i64| Asked {
            item,
            node: NodeId::null(),
            from: Time::from_millis((1_000_000 - age) * 1_000),
        };
        let all: Vec<_> =
            [3, 90_000, 3, 2, 100_000, 50].into_iter().enumerate().map(|(i, age)| asked(i, age)).collect();
        let parts = parts(&all, Time(0), Time::from_millis(1_000_000_000), 2);
        let told: Vec<Vec<usize>> = parts.iter().map(|part| part.nodes.iter().map(|node| node.0).collect()).collect();
        assert_eq!(told, [vec![4, 1], vec![5], vec![0, 2], vec![3]]);
        assert_eq!(parts[0].from, all[4].from);
    }
}
