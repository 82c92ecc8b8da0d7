//! One session with its one subscription, from the first packet to the goodbye.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use opcua::client::services::CreateMonitoredItems;
use opcua::client::{
    MonitoredItemMap, OnSubscriptionNotificationCore, Session, SessionPollResult, SubscriptionActivity, UARequest,
};
use opcua::types::{
    AttributeId, DataChangeFilter, DataChangeTrigger, Error, ExtensionObject, MonitoredItemCreateRequest,
    MonitoringMode, MonitoringParameters, NodeId, NotificationMessage, NumericRange, ReadValueId, StatusCode,
    TimestampsToReturn, VariableId, Variant,
};
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::Config;
use super::endpoint::{self, Events};
use crate::{LinkError, Time};

/// What the server keeps of an item between two publishes; the oldest goes first, with a flag on the next.
const QUEUE: u32 = 20;
/// Monitored items a call, unless the server wants fewer: more than some servers take in one message.
const ITEMS_PER_CALL: usize = 1_000;
/// Values a message: under the limit on arrays, and all tags of a large gateway together in one message.
const VALUES_PER_MESSAGE: u32 = 10_000;
/// How often a server without news says so.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a server keeps a subscription that nobody asks for.
const LIFETIME: Duration = Duration::from_secs(60);
/// Messages that fit between the session and us. They are taken out after each, so this fills only
/// while a connect is under way; one more ends the link.
const INBOX: usize = 1_024;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// A message of the subscription, and when it came.
pub(super) struct Notice {
    pub(super) received: Time,
    pub(super) message: NotificationMessage,
}

/// What is to be watched: the node, and how often the server should look.
#[derive(Clone)]
pub(super) struct Want {
    pub(super) handle: u32,
    pub(super) node: NodeId,
    /// Which elements of an array.
    pub(super) range: NumericRange,
    pub(super) sampling: Duration,
}

/// A session.
pub(super) struct Link {
    session: Arc<Session>,
    /// Everything the session does happens while this is polled. The library would go on to reconnect
    /// by itself after a loss; it must not be polled any more then. (Never locked: the mutex only makes
    /// a stream that is not `Sync` part of a driver that is.)
    events: Mutex<Events>,
    up: bool,
    over: bool,
    inbox: mpsc::Receiver<Notice>,
    outbox: mpsc::Sender<Notice>,
    /// For one call.
    timeout: Duration,
    /// How long no message is too long.
    silence: Duration,
}

impl Link {
    /// A session that is about to be made: nothing happens before [`Link::wait_until_up`].
    pub(super) fn new(config: &Config, endpoint: endpoint::Offered) -> Result<Self, LinkError> {
        let (session, events) = endpoint.session()?;
        let (outbox, inbox) = mpsc::channel(INBOX);
        Ok(Self {
            session,
            events: Mutex::new(events),
            up: false,
            over: false,
            inbox,
            outbox,
            timeout: config.timeout,
            silence: config.timeout,
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

    /// The server's namespace table, and how many monitored items it takes a call.
    pub(super) async fn ask_server(&mut self) -> Result<(Vec<String>, usize), LinkError> {
        let session = self.session.clone();
        let nodes = [
            VariableId::Server_NamespaceArray,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ]
        .map(|node| ReadValueId::from(NodeId::from(node)));
        let answers = self.during(async move { session.read(&nodes, TimestampsToReturn::Neither, 0.0).await }).await?;
        let mut answers = answers.into_iter().map(|answer| answer.value);
        let Some(Some(Variant::Array(table))) = answers.next() else {
            return Err(LinkError::Refused("the server has no table of namespaces".to_owned()));
        };
        let namespaces = table.values.into_iter().map(|uri| match uri {
            Variant::String(uri) => uri.as_ref().to_owned(),
            _ => String::new(),
        });
        let limit = match answers.next() {
            Some(Some(Variant::UInt32(limit @ 1..))) => limit as usize,
            _ => ITEMS_PER_CALL, // zero means none, and many do not say
        };
        Ok((namespaces.collect(), limit.min(ITEMS_PER_CALL)))
    }

    /// What the server says at one of its own variables; `None` when it has none or does not say.
    pub(super) async fn read_one(&mut self, variable: VariableId) -> Result<Option<Variant>, LinkError> {
        let session = self.session.clone();
        let nodes = [ReadValueId::from(NodeId::from(variable))];
        let answers = self.during(async move { session.read(&nodes, TimestampsToReturn::Neither, 0.0).await }).await?;
        Ok(answers.into_iter().next().filter(|answer| answer.status().is_good()).and_then(|answer| answer.value))
    }

    /// Makes the one subscription and returns its number.
    pub(super) async fn subscribe(&mut self, publish: Duration) -> Result<u32, LinkError> {
        let publish = publish.max(Duration::from_millis(1));
        let times = |span: Duration| u32::try_from(span.as_nanos().div_ceil(publish.as_nanos())).unwrap_or(u32::MAX);
        let keep_alive = times(KEEP_ALIVE).max(1);
        let lifetime = times(LIFETIME).max(keep_alive.saturating_mul(3));
        let session = self.session.clone();
        let mailbox = Mailbox(self.outbox.clone());
        let subscription = self
            .during(async move {
                session.create_subscription(publish, lifetime, keep_alive, VALUES_PER_MESSAGE, 0, true, mailbox).await
            })
            .await?;
        // The server may have changed its mind about both; two of its keep-alives may go missing.
        if let Some(made) = self.session.subscription_state().lock().get(subscription) {
            let beat = made.publishing_interval().saturating_mul(made.max_keep_alive_count());
            self.silence = beat.saturating_mul(2).saturating_add(self.timeout);
        }
        Ok(subscription)
    }

    /// Watches all of `wants`; returns those that the server refused, with its reasons.
    ///
    /// The filter is the one that counts without any (a change of status or value), said aloud for
    /// servers that take none for "value only"; those that know no filters are asked again without.
    pub(super) async fn watch(
        &mut self,
        subscription: u32,
        wants: Vec<Want>,
        a_call: usize,
    ) -> Result<Vec<(u32, StatusCode)>, LinkError> {
        let refused = self.watch_with(subscription, wants, a_call, Some(DataChangeTrigger::StatusValue)).await?;
        let (no_filters, mut refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(_, status)| {
            matches!(
                *status,
                StatusCode::BadMonitoredItemFilterUnsupported
                    | StatusCode::BadMonitoredItemFilterInvalid
                    | StatusCode::BadFilterNotAllowed
            )
        });
        let again = no_filters.into_iter().map(|(want, _)| want).collect();
        refused.extend(self.watch_with(subscription, again, a_call, None).await?);
        Ok(refused.into_iter().map(|(want, status)| (want.handle, status)).collect())
    }

    async fn watch_with(
        &mut self,
        subscription: u32,
        wants: Vec<Want>,
        mut a_call: usize,
        trigger: Option<DataChangeTrigger>,
    ) -> Result<Vec<(Want, StatusCode)>, LinkError> {
        let mut waiting = VecDeque::from(wants);
        let mut refused = Vec::new();
        while !waiting.is_empty() {
            let asked = a_call.min(waiting.len());
            let items = waiting.iter().take(asked).map(|want| item(want, trigger)).collect();
            let session = self.session.clone();
            // Past the session's own book of items: it would keep a copy of each, and we need none.
            let answer = self
                .during_call(async move {
                    CreateMonitoredItems::new(subscription, &session)
                        .timestamps_to_return(TimestampsToReturn::Both)
                        .items_to_create(items)
                        .send(session.channel())
                        .await
                })
                .await?;
            match answer {
                Ok(answer) => {
                    let done = waiting.drain(..asked).zip(answer.results);
                    refused.extend(done.filter_map(|(want, made)| {
                        let status = made.result.status_code;
                        status.is_bad().then_some((want, status))
                    }));
                }
                Err(error) if error.status() == StatusCode::BadTooManyOperations && asked > 1 => a_call = asked / 2,
                Err(error) => return Err(endpoint::link_error(&error)),
            }
        }
        Ok(refused)
    }

    /// For calls that are made with [`Link::during_call`].
    pub(super) fn session(&self) -> Arc<Session> {
        self.session.clone()
    }

    /// What has come and was not looked at yet.
    pub(super) fn next_notice(&mut self) -> Option<Notice> {
        self.inbox.try_recv().ok()
    }

    /// How long the server may say nothing at all.
    pub(super) fn silence(&self) -> Duration {
        self.silence
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
            )))) => broken("the server has dropped the subscription", code),
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

    /// Carries a call out while the session is kept going; a refusal ends the link.
    async fn during<T>(&mut self, call: impl Future<Output = Result<T, Error>>) -> Result<T, LinkError> {
        self.during_call(call).await?.map_err(|error| endpoint::link_error(&error))
    }

    /// Carries a call out while the session is kept going, within the time that a call may take.
    pub(super) async fn during_call<T>(
        &mut self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, LinkError> {
        let limit = self.timeout;
        let keep_going = async {
            tokio::pin!(call);
            loop {
                tokio::select! {
                    answer = &mut call => return Ok(answer),
                    step = self.step() => step?,
                }
            }
        };
        timeout(limit, keep_going)
            .await
            .unwrap_or_else(|_| Err(LinkError::Unreachable(format!("no answer within {limit:?}"))))
    }
}

fn item(want: &Want, trigger: Option<DataChangeTrigger>) -> MonitoredItemCreateRequest {
    let filter = trigger.map_or_else(ExtensionObject::null, |trigger| {
        ExtensionObject::from_message(DataChangeFilter { trigger, deadband_type: 0, deadband_value: 0.0 })
    });
    MonitoredItemCreateRequest {
        item_to_monitor: ReadValueId {
            node_id: want.node.clone(),
            attribute_id: AttributeId::Value as u32,
            index_range: want.range.clone(),
            ..ReadValueId::default()
        },
        monitoring_mode: MonitoringMode::Reporting,
        requested_parameters: MonitoringParameters {
            client_handle: want.handle,
            sampling_interval: want.sampling.as_secs_f64() * 1e3,
            filter,
            queue_size: QUEUE,
            discard_oldest: true,
        },
    }
}

/// Called under the session's lock, so it only puts the message away. [`Link::step`] notices a full inbox.
struct Mailbox(mpsc::Sender<Notice>);

impl OnSubscriptionNotificationCore for Mailbox {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        let _ = self.0.try_send(Notice { received: Time::now(), message });
    }
}
