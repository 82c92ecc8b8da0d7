//! Looking at a server without running: a session that watches nothing, and is closed again.

use std::time::Instant;

use opcua::types::{AttributeId, DataValue, NodeId, NumericRange, ReadValueId, StatusCode, TimestampsToReturn};

use super::pick::Range;
use super::{Client, browse, convert, find};
use crate::survey::{Offered, Probed, Scope, Survey};
use crate::{Driver, LinkError, Reading, Status, TagId, Time};

impl Survey for Client {
    async fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        let probed = self.ask_all(told).await;
        self.close().await;
        probed
    }

    async fn browse(&mut self, scope: &Scope, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        if self.config.stations.iter().all(|station| station.name != scope.station) {
            return Err(LinkError::Refused(format!("no station `{}` is on this link", scope.station)));
        }
        let walked = self.walk(scope.most, found).await;
        self.close().await;
        walked
    }
}

impl Client {
    async fn walk(&mut self, most: usize, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        let link = self.dial().await?;
        let namespaces = link.ask_server().await?.namespaces;
        browse::variables(link, &namespaces, most, found).await
    }

    async fn ask_all(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        self.dial().await?;
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let namespaces = link.ask_server().await?.namespaces;
        let tags: Vec<_> = self.config.stations.iter().flat_map(|station| &station.tags).collect();
        let addresses: Vec<_> = tags.iter().map(|tag| &tag.node).collect();
        let mut nodes = find::nodes(link, &namespaces, &addresses).await?;
        let mut picks = find::picks(link, &tags, &mut nodes).await?;
        let a_call = link.a_call;

        let asked: Vec<_> = (1u32..).zip(tags).zip(nodes).collect();
        for piece in asked.chunks(a_call) {
            let ask = |node: &NodeId, range| ReadValueId {
                index_range: range,
                ..ReadValueId::new(node.clone(), AttributeId::Value)
            };
            let there = piece.iter().filter_map(|((_, tag), node)| {
                let range = tag.pick.range.as_ref().map(Range::asked).unwrap_or_default();
                Some(ask(node.as_ref().ok()?, range))
            });
            let begun = Instant::now();
            let mut answers = link.read(there.collect(), TimestampsToReturn::Both).await?.into_iter();
            let round_trip = begun.elapsed();
            for ((handle, tag), node) in piece {
                let received = Time::now();
                let (answer, round_trip) = match node {
                    Err(status) => (DataValue { status: Some(*status), ..DataValue::null() }, round_trip),
                    Ok(node) => {
                        let answer = answers.next().unwrap_or_default();
                        let status = answer.status.unwrap_or(StatusCode::Good);
                        if tag.pick.range.is_some() && status.is_bad() && find::no_range(status) {
                            // It may be the server that cuts out no ranges: all of it is asked for, and cut here.
                            picks.whole(*handle);
                            let begun = Instant::now();
                            let again = vec![ask(node, NumericRange::None)];
                            let whole = link.read(again, TimestampsToReturn::Both).await?.into_iter().next();
                            (whole.unwrap_or_default(), begun.elapsed())
                        } else {
                            (answer, round_trip)
                        }
                    }
                };
                let reading = reading(tag.id, picks.of(*handle, answer), received);
                told(Probed { reading, round_trip, otherwise: Vec::new() });
            }
        }
        Ok(())
    }
}

/// A node that was not even asked for has no time of its own.
fn reading(tag: TagId, told: DataValue, received: Time) -> Reading {
    match told.status {
        Some(status) if status.is_bad() && told.source_timestamp.is_none() && told.server_timestamp.is_none() => {
            Reading::bad(tag, Status::Opcua(status.bits()), received, received)
        }
        _ => convert::reading(tag, told, received),
    }
}
