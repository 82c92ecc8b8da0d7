//! One session, from the first packet to the goodbye.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use opcua::client::{Session, SessionPollResult, SubscriptionActivity};
use opcua::types::{
    Error, NodeId, NotificationMessage, ReadValueId, StatusCode, TimestampsToReturn, VariableId, Variant,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::endpoint::{self, Events};
use super::subscription::Subscribed;
use super::{Config, ask};
use crate::{LinkError, Time};

/// Messages that fit between the session and us. They are taken out after each, so this fills only
/// while a connect is under way; one more ends the link.
const INBOX: usize = 1_024;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A message of a subscription, and when it came.
pub(super) struct Notice {
    /// Which of the link's subscriptions.
    pub(super) subscription: usize,
    pub(super) received: Time,
    pub(super) message: NotificationMessage,
    /// What is missing before it was asked for.
    pub(super) asked: bool,
}

/// A session.
pub(super) struct Link {
    pub(super) session: Arc<Session>,
    /// The subscriptions, by their places.
    pub(super) subscriptions: Vec<Subscribed>,
    /// Everything the session does happens while this is polled. The library would go on to reconnect
    /// by itself after a loss; it must not be polled any more then. (Never locked: the mutex only makes
    /// a stream that is not `Sync` part of a driver that is.)
    events: Mutex<Events>,
    up: bool,
    over: bool,
    inbox: mpsc::Receiver<Notice>,
    pub(super) outbox: mpsc::Sender<Notice>,
    /// For one call.
    pub(super) timeout: Duration,
    /// How long no message is too long.
    pub(super) silence: Duration,
    /// Nodes a read, unless the server wants fewer.
    pub(super) a_call: usize,
    /// References an answer; 0 leaves it to the server.
    pub(super) references_at_once: u32,
    /// We ended the subscriptions ourselves, and nothing has come of new ones yet: a question for news that was still open
    /// may be answered that there are none.
    pub(super) anew: bool,
    /// When that was, until somebody owns up to what happened meanwhile.
    pub(super) unsubscribed: Option<Time>,
}

impl Link {
    /// A session that is about to be made: nothing happens before [`Link::wait_until_up`].
    pub(super) fn new(config: &Config, endpoint: endpoint::Offered) -> Result<Self, LinkError> {
        let (session, events) = endpoint.session()?;
        let (outbox, inbox) = mpsc::channel(INBOX);
        Ok(Self {
            session,
            subscriptions: Vec::new(),
            events: Mutex::new(events),
            up: false,
            over: false,
            inbox,
            outbox,
            timeout: config.timeout,
            silence: config.timeout,
            a_call: ask::A_CALL,
            references_at_once: 0,
            anew: false,
            unsubscribed: None,
        })
    }

    /// Makes the session.
    pub(super) async fn wait_until_up(&mut self) -> Result<(), LinkError> {
        let session = self.session.clone();
        self.during(async move {
            if session.wait_for_connection().await {
                return Ok(());
            }
            Err(Error::new(StatusCode::BadConnectionClosed, "the session ended before it began"))
        })
        .await
    }

    /// What the server says at one of its own variables; `None` when it has none or does not say.
    pub(super) async fn read_one(&mut self, variable: VariableId) -> Result<Option<Variant>, LinkError> {
        let asked = vec![ReadValueId::from(NodeId::from(variable))];
        let answers = self.read(asked, TimestampsToReturn::Neither).await?;
        Ok(answers.into_iter().next().filter(|answer| answer.status().is_good()).and_then(|answer| answer.value))
    }

    /// What has come and was not looked at yet.
    pub(super) fn next_notice(&mut self) -> Option<Notice> {
        let notice = self.inbox.try_recv().ok()?;
        self.anew = false;
        Some(notice)
    }

    /// How long the server may say nothing at all.
    pub(super) fn silence(&self) -> Duration {
        self.silence
    }

    /// Whether the session was lost, or ended.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Lets the session do one thing: at most one message comes in.
    pub(super) async fn step(&mut self) -> Result<(), LinkError> {
        if self.over {
            return Err(LinkError::Broken("the session is over".to_owned()));
        }
        let broken = |what: &str, code: StatusCode| Err(LinkError::Broken(format!("{what} ({code})")));
        match self.events.get_mut().next().await {
            Some(Ok(SessionPollResult::ConnectionLost(code))) => {
                self.over = true;
                broken("the connection is lost", code)
            }
            Some(Ok(SessionPollResult::ReconnectFailed(code)) | Err(code)) => {
                self.over = true;
                Err(endpoint::link_error(&Error::new(code, "the server does not give us a session")))
            }
            None => {
                self.over = true;
                Err(LinkError::Broken("the session was closed".to_owned()))
            }
            Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::FatalFailure(code)))) => {
                broken("the session is lost", code)
            }
            Some(Ok(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(
                code @ (StatusCode::BadNoSubscription | StatusCode::BadSubscriptionIdInvalid),
            )))) if !self.anew => broken("the server has dropped the subscription", code),
            Some(Ok(SessionPollResult::Reconnected(_))) => {
                self.up = true;
                Ok(())
            }
            Some(Ok(_)) if self.inbox.len() == INBOX => {
                Err(LinkError::Broken(format!("more than {INBOX} messages came before they could be taken")))
            }
            Some(Ok(_)) => Ok(()),
        }
    }

    /// Says goodbye and leaves nothing behind at the server, if it can be reached at all.
    pub(super) async fn close(mut self) {
        let goodbye = async {
            // A session that is half made has a place at the server too: made whole, it can be closed.
            while !self.up && !self.over {
                let _ = self.step().await;
            }
            let session = self.session.clone();
            let disconnect = session.disconnect();
            tokio::pin!(disconnect);
            while !self.over {
                tokio::select! {
                    _ = &mut disconnect => return,
                    _ = self.step() => {}
                }
            }
        };
        if timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("the server did not answer our goodbye");
        }
    }

    /// Waits for `work` of ours while the session is kept going.
    pub(super) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, LinkError> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                step = self.step() => step?,
            }
        }
    }

    /// Carries a call out while the session is kept going; a refusal ends the link.
    pub(super) async fn during<T>(&mut self, call: impl Future<Output = Result<T, Error>>) -> Result<T, LinkError> {
        self.during_call(call).await?.map_err(|error| endpoint::link_error(&error))
    }

    /// Carries a call out while the session is kept going, within the time that a call may take.
    pub(super) async fn during_call<T>(
        &mut self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, LinkError> {
        let limit = self.timeout;
        timeout(limit, self.meanwhile(call))
            .await
            .unwrap_or_else(|_| Err(LinkError::Unreachable(format!("no answer within {limit:?}"))))
    }
}
