//! Questions to the server that are as long as the configuration: asked in pieces that it takes.

use std::mem;
use std::sync::Arc;

use opcua::client::Session;
use opcua::types::{
    BrowseDescription, BrowseDirection, BrowsePath, BrowsePathResult, BrowseResult, BrowseResultMask, ByteString,
    DataValue, Error, NodeClassMask, NodeId, ReadValueId, ReferenceDescription, ReferenceTypeId, StatusCode,
    TimestampsToReturn,
};

use super::endpoint;
use super::link::Link;
use crate::LinkError;

/// Questions a call, unless the server wants fewer: what most servers take, and answers that fit into a message.
pub(super) const A_CALL: usize = 500;
/// Continuation points a call: servers hold few.
const POINTS: usize = 10;

impl Link {
    /// Reads attributes; an answer each, in order.
    pub(super) async fn read(
        &mut self,
        nodes: Vec<ReadValueId>,
        times: TimestampsToReturn,
    ) -> Result<Vec<DataValue>, LinkError> {
        self.in_pieces(nodes, self.a_call, move |session, piece| async move { session.read(&piece, times, 0.0).await })
            .await
    }

    /// Looks up what stands at the end of paths.
    pub(super) async fn translate(&mut self, paths: Vec<BrowsePath>) -> Result<Vec<BrowsePathResult>, LinkError> {
        self.in_pieces(paths, A_CALL, |session, piece| async move {
            session.translate_browse_paths_to_node_ids(&piece).await
        })
        .await
    }

    /// The references of nodes, all of them. A node that cannot be browsed has none.
    pub(super) async fn browse(
        &mut self,
        nodes: Vec<BrowseDescription>,
    ) -> Result<Vec<Vec<ReferenceDescription>>, LinkError> {
        let mut found = vec![Vec::new(); nodes.len()];
        // The server has a place for few half-answered questions: those that it has none for are asked again, alone.
        let mut waiting: Vec<_> = nodes.into_iter().enumerate().collect();
        let mut a_call = A_CALL;
        loop {
            let mut crowded = Vec::new();
            for piece in pieces(mem::take(&mut waiting), a_call) {
                let asked = piece.iter().map(|(_, node)| node.clone()).collect();
                let answers = self.browse_once(asked).await?;
                let mut more = Vec::new();
                for ((at, node), answer) in piece.into_iter().zip(answers) {
                    if answer.status_code == StatusCode::BadNoContinuationPoints && a_call > 1 {
                        crowded.push((at, node));
                        continue;
                    }
                    found[at].extend(answer.references.into_iter().flatten());
                    if !answer.continuation_point.is_null_or_empty() {
                        more.push((at, answer.continuation_point));
                    }
                }
                self.follow(more, &mut found).await?;
            }
            if crowded.is_empty() {
                return Ok(found);
            }
            waiting = crowded;
            a_call = 1;
        }
    }

    async fn browse_once(&mut self, nodes: Vec<BrowseDescription>) -> Result<Vec<BrowseResult>, LinkError> {
        let most = self.references_at_once;
        self.in_pieces(nodes, A_CALL, move |session, piece| async move { session.browse(&piece, most, None).await })
            .await
    }

    /// What is left of half-answered questions.
    async fn follow(
        &mut self,
        mut more: Vec<(usize, ByteString)>,
        found: &mut [Vec<ReferenceDescription>],
    ) -> Result<(), LinkError> {
        while !more.is_empty() {
            let (places, points): (Vec<_>, Vec<_>) = mem::take(&mut more).into_iter().unzip();
            let answers = self
                .in_pieces(points, POINTS, |session, piece| async move { session.browse_next(false, &piece).await })
                .await?;
            for (at, answer) in places.into_iter().zip(answers) {
                found[at].extend(answer.references.into_iter().flatten());
                if !answer.continuation_point.is_null_or_empty() {
                    more.push((at, answer.continuation_point));
                }
            }
        }
        Ok(())
    }

    /// Asks `a_call` questions at a time, and fewer when the server says that these were too many.
    async fn in_pieces<Q: Clone, A, F: Future<Output = Result<Vec<A>, Error>>>(
        &mut self,
        asked: Vec<Q>,
        mut a_call: usize,
        call: impl Fn(Arc<Session>, Vec<Q>) -> F,
    ) -> Result<Vec<A>, LinkError> {
        let mut answers = Vec::with_capacity(asked.len());
        while answers.len() < asked.len() {
            let piece = &asked[answers.len()..asked.len().min(answers.len() + a_call)];
            match self.during_call(call(self.session.clone(), piece.to_vec())).await? {
                Ok(told) if told.len() == piece.len() => answers.extend(told),
                Ok(told) => {
                    let why = format!("{} answers to {} questions", told.len(), piece.len());
                    return Err(LinkError::Broken(why));
                }
                Err(error) if too_many(error.status()) && piece.len() > 1 => a_call = piece.len() / 2,
                Err(error) => return Err(endpoint::link_error(&error)),
            }
        }
        Ok(answers)
    }
}

fn too_many(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BadTooManyOperations | StatusCode::BadResponseTooLarge | StatusCode::BadRequestTooLarge
    )
}

fn pieces<T>(all: Vec<T>, size: usize) -> impl Iterator<Item = Vec<T>> {
    let mut rest = all.into_iter();
    std::iter::from_fn(move || {
        let piece: Vec<_> = rest.by_ref().take(size).collect();
        (!piece.is_empty()).then_some(piece)
    })
}

/// The question for what leads on from `node`.
pub(super) fn references(
    node: NodeId,
    reference: ReferenceTypeId,
    direction: BrowseDirection,
    classes: NodeClassMask,
) -> BrowseDescription {
    BrowseDescription {
        node_id: node,
        browse_direction: direction,
        reference_type_id: reference.into(),
        include_subtypes: true,
        node_class_mask: classes.bits(),
        result_mask: BrowseResultMask::All as u32,
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use opcua::types::ObjectId;

    use super::super::fixture::connected;
    use super::*;
    use crate::Driver;
    use crate::sim::opcua::{OpcuaServer, OperationalLimits};

    fn questions() -> Vec<BrowseDescription> {
        [ObjectId::ObjectsFolder, ObjectId::Server, ObjectId::Server_ServerCapabilities]
            .map(|node| {
                let (of, classes) = (ReferenceTypeId::HierarchicalReferences, NodeClassMask::all());
                references(node.into(), of, BrowseDirection::Forward, classes)
            })
            .to_vec()
    }

    /// Whatever the order in which the server has them.
    fn told(found: Vec<Vec<ReferenceDescription>>) -> Vec<Vec<String>> {
        let sorted = |of: Vec<ReferenceDescription>| {
            let mut nodes: Vec<_> = of.into_iter().map(|reference| reference.node_id.node_id.to_string()).collect();
            nodes.sort_unstable();
            nodes
        };
        found.into_iter().map(sorted).collect()
    }

    #[tokio::test]
    async fn half_answered_questions_are_followed_to_their_end() {
        let nodes: Vec<_> = (0..9).map(|node| (format!("N{node}"), 0_i64)).collect();
        let server = OpcuaServer::start("urn:a", nodes).await.expect("a port");
        let mut client = connected(&server, &[]).await;
        let link = client.link.as_mut().expect("up");
        let whole = told(link.browse(questions()).await.expect("answered"));
        assert!(whole[0].len() > 9 && whole[2].len() > 4, "{whole:?}");
        for most in [1, 2, 7] {
            link.references_at_once = most;
            assert_eq!(told(link.browse(questions()).await.expect("answered")), whole, "{most} at once");
        }
        client.close().await;
    }

    #[tokio::test]
    async fn a_server_that_takes_one_question_a_call_is_asked_one_by_one() {
        let mut server = OpcuaServer::start("urn:a", [("Good", 0_i64)]).await.expect("a port");
        let mut client = connected(&server, &[]).await;
        let whole = told(client.link.as_mut().expect("up").browse(questions()).await.expect("answered"));
        client.close().await;
        let little = OperationalLimits { max_nodes_per_browse: 1, ..OperationalLimits::default() };
        server.limit(little, 100).await.expect("the port is free");
        let mut client = connected(&server, &[]).await;
        assert_eq!(told(client.link.as_mut().expect("up").browse(questions()).await.expect("answered")), whole);
        client.close().await;
    }
}
