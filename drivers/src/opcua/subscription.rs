//! Watching: subscriptions and the items in them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use opcua::client::services::CreateMonitoredItems;
use opcua::client::{MonitoredItemMap, OnSubscriptionNotificationCore, UARequest};
use opcua::types::{
    AttributeId, DataChangeFilter, DataChangeTrigger, ExtensionObject, MonitoredItemCreateRequest, MonitoringMode,
    MonitoringParameters, NodeId, NotificationMessage, NumericRange, ReadValueId, StatusCode, TimestampsToReturn,
};
use tokio::sync::mpsc;

use super::endpoint;
use super::limits::Limits;
use super::link::{Link, Notice};
use crate::{LinkError, Time};

/// What the server keeps of an item between two publishes; the oldest goes first, with a flag on the next.
const QUEUE: u32 = 20;
/// Values a message: under the limit on arrays, and all tags of a large gateway together in one message.
const VALUES_PER_MESSAGE: u32 = 10_000;
/// How often a server without news says so.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a server keeps a subscription that nobody asks for.
const LIFETIME: Duration = Duration::from_secs(60);

/// What is to be watched: the node, and how often the server should look.
pub(super) struct Want {
    pub(super) handle: u32,
    /// Whose tag it is.
    pub(super) station: u32,
    pub(super) node: NodeId,
    /// Which elements of an array.
    pub(super) range: NumericRange,
    pub(super) sampling: Duration,
}

/// A subscription of ours.
pub(super) struct Subscribed {
    /// The server's number of it.
    pub(super) id: u32,
    /// Whose tags or events are in it.
    pub(super) stations: BTreeSet<u32>,
    /// It is for events, which have one of their own: the others may be filled to the brim.
    pub(super) events: bool,
}

impl Link {
    /// Watches all of `wants`, in as many subscriptions as the server's limits ask for: one, if it has none. Returns
    /// those that the server refused, with its reasons.
    ///
    /// A server that has a limit and does not say so refuses items as too many: they go into another subscription as
    /// long as that one takes any.
    pub(super) async fn watch(
        &mut self,
        publish: Duration,
        wants: Vec<Want>,
        limits: Limits,
    ) -> Result<Vec<(Want, StatusCode)>, LinkError> {
        let mut waiting = VecDeque::from(wants);
        let mut refused = Vec::new();
        while !waiting.is_empty() || self.subscriptions.is_empty() {
            let place = match self.another(publish, limits).await? {
                Ok(made) => made,
                Err(why) => {
                    refused.extend(waiting.into_iter().map(|want| (want, why)));
                    break;
                }
            };
            let now = waiting.drain(..limits.items_per_subscription.min(waiting.len())).collect::<Vec<_>>();
            let asked = now.len();
            let answers = self.fill(place, now, limits.items_per_call).await?;
            let (too_many, others): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|(_, status)| *status == StatusCode::BadTooManyMonitoredItems);
            refused.extend(others);
            if too_many.len() == asked {
                self.drop_empty(place).await?;
                refused.extend(too_many);
                refused.extend(waiting.into_iter().map(|want| (want, StatusCode::BadTooManyMonitoredItems)));
                break;
            }
            waiting.extend(too_many.into_iter().map(|(want, _)| want));
        }
        Ok(refused)
    }

    /// Ends a subscription that nothing is in, unless it is the only one.
    async fn drop_empty(&mut self, place: usize) -> Result<(), LinkError> {
        if place == 0 || place + 1 != self.subscriptions.len() || !self.subscriptions[place].stations.is_empty() {
            return Ok(());
        }
        let Some(Subscribed { id, .. }) = self.subscriptions.pop() else { return Ok(()) };
        self.end_subscriptions(vec![id]).await
    }

    /// Ends the subscriptions, to make them anew. What they told and was not looked at yet is returned.
    pub(super) async fn unsubscribe(&mut self) -> Result<Vec<Notice>, LinkError> {
        let ended: Vec<u32> = std::mem::take(&mut self.subscriptions).into_iter().map(|ended| ended.id).collect();
        self.anew = true;
        self.unsubscribed = Some(Time::now());
        self.end_subscriptions(ended).await?;
        let mut told = Vec::new();
        while let Some(notice) = self.next_notice() {
            told.push(notice);
        }
        self.anew = true;
        Ok(told)
    }

    /// Ends these, by the server's numbers.
    pub(super) async fn end_subscriptions(&mut self, ended: Vec<u32>) -> Result<(), LinkError> {
        if ended.is_empty() {
            return Ok(());
        }
        let session = self.session.clone();
        // One that the server has forgotten is as good as ended.
        self.during_call(async move { session.delete_subscriptions(&ended).await }).await.map(drop)
    }

    /// A message that never came, if the server still has it.
    pub(super) async fn republish(&mut self, subscription: usize, number: u32) -> Result<Option<Notice>, LinkError> {
        let Some(&Subscribed { id, .. }) = self.subscriptions.get(subscription) else { return Ok(None) };
        let session = self.session.clone();
        let answer = self.during_call(async move { session.republish(id, number).await }).await?;
        Ok(answer.ok().map(|message| Notice { subscription, received: Time::now(), message, asked: true }))
    }

    /// Asks again for what was refused, in the subscription that has most room: the last; what does not fit there goes
    /// into new ones.
    pub(super) async fn watch_more(
        &mut self,
        publish: Duration,
        wants: Vec<Want>,
        limits: Limits,
    ) -> Result<Vec<(Want, StatusCode)>, LinkError> {
        let Some(last) = self.subscriptions.iter().rposition(|subscription| !subscription.events) else {
            return self.watch(publish, wants, limits).await;
        };
        let answers = self.fill(last, wants, limits.items_per_call).await?;
        let (full, mut refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, status)| *status == StatusCode::BadTooManyMonitoredItems);
        let full: Vec<_> = full.into_iter().map(|(want, _)| want).collect();
        if !full.is_empty() {
            refused.extend(self.watch(publish, full, limits).await?);
        }
        Ok(refused)
    }

    /// The place of the subscription that events go into: one of their own, or the first where the server has no more.
    pub(super) async fn for_events(&mut self, publish: Duration, limits: Limits) -> Result<Option<usize>, LinkError> {
        if let Some(place) = self.subscriptions.iter().position(|subscription| subscription.events) {
            return Ok(Some(place));
        }
        if let [only] = self.subscriptions.as_slice()
            && only.stations.is_empty()
        {
            return Ok(Some(0)); // nothing is in its way yet
        }
        let place = self.another(publish, limits).await?.unwrap_or(0);
        Ok(self.subscriptions.get_mut(place).map(|subscription| {
            subscription.events = place > 0;
            place
        }))
    }

    /// The place of one more subscription; the server's reason if there may be no more.
    async fn another(&mut self, publish: Duration, limits: Limits) -> Result<Result<usize, StatusCode>, LinkError> {
        let place = self.subscriptions.len();
        if place >= limits.subscriptions {
            return Ok(Err(StatusCode::BadTooManySubscriptions));
        }
        let publish = publish.max(Duration::from_millis(1));
        let times = |span: Duration| u32::try_from(span.as_nanos().div_ceil(publish.as_nanos())).unwrap_or(u32::MAX);
        let keep_alive = times(KEEP_ALIVE).max(1);
        let lifetime = times(LIFETIME).max(keep_alive.saturating_mul(3));
        let session = self.session.clone();
        let mailbox = Mailbox { subscription: place, outbox: self.outbox.clone() };
        let made = self
            .during_call(async move {
                session.create_subscription(publish, lifetime, keep_alive, VALUES_PER_MESSAGE, 0, true, mailbox).await
            })
            .await?;
        let id = match made {
            Ok(made) => made,
            Err(error) if error.status() == StatusCode::BadTooManySubscriptions && place > 0 => {
                return Ok(Err(error.status()));
            }
            Err(error) => return Err(endpoint::link_error(&error)),
        };
        self.subscriptions.push(Subscribed { id, stations: BTreeSet::new(), events: false });
        // The server may have changed its mind about both; two of its keep-alives may go missing.
        if let Some(made) = self.session.subscription_state().lock().get(id) {
            let beat = made.publishing_interval().saturating_mul(made.max_keep_alive_count());
            self.silence = beat.saturating_mul(2).saturating_add(self.timeout);
        }
        Ok(Ok(place))
    }

    /// The filter is the one that counts without any (a change of status or value), said aloud for
    /// servers that take none for "value only"; those that know no filters are asked again without.
    async fn fill(
        &mut self,
        place: usize,
        wants: Vec<Want>,
        a_call: usize,
    ) -> Result<Vec<(Want, StatusCode)>, LinkError> {
        let refused = self.fill_with(place, wants, a_call, Some(DataChangeTrigger::StatusValue)).await?;
        let (no_filters, mut refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(_, status)| {
            matches!(
                *status,
                StatusCode::BadMonitoredItemFilterUnsupported
                    | StatusCode::BadMonitoredItemFilterInvalid
                    | StatusCode::BadFilterNotAllowed
            )
        });
        let again = no_filters.into_iter().map(|(want, _)| want).collect();
        refused.extend(self.fill_with(place, again, a_call, None).await?);
        Ok(refused)
    }

    async fn fill_with(
        &mut self,
        place: usize,
        wants: Vec<Want>,
        mut a_call: usize,
        trigger: Option<DataChangeTrigger>,
    ) -> Result<Vec<(Want, StatusCode)>, LinkError> {
        let mut waiting = VecDeque::from(wants);
        let mut refused = Vec::new();
        let id = self.subscriptions[place].id;
        while !waiting.is_empty() {
            let asked = a_call.min(waiting.len());
            let items = waiting.iter().take(asked).map(|want| item(want, trigger)).collect();
            let session = self.session.clone();
            // Past the session's own book of items: it would keep a copy of each, and we need none.
            let answer = self
                .during_call(async move {
                    CreateMonitoredItems::new(id, &session)
                        .timestamps_to_return(TimestampsToReturn::Both)
                        .items_to_create(items)
                        .send(session.channel())
                        .await
                })
                .await?;
            match answer {
                Ok(answer) => {
                    for (want, made) in waiting.drain(..asked).zip(answer.results) {
                        let status = made.result.status_code;
                        if status.is_bad() {
                            refused.push((want, status));
                        } else {
                            self.subscriptions[place].stations.insert(want.station);
                        }
                    }
                }
                Err(error)
                    if asked > 1
                        && matches!(
                            error.status(),
                            StatusCode::BadTooManyOperations | StatusCode::BadTooManyMonitoredItems
                        ) =>
                {
                    a_call = asked / 2;
                }
                Err(error) if error.status() == StatusCode::BadTooManyMonitoredItems => {
                    refused.extend(waiting.drain(..).map(|want| (want, error.status())));
                }
                Err(error) => return Err(endpoint::link_error(&error)),
            }
        }
        Ok(refused)
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
pub(super) struct Mailbox {
    pub(super) subscription: usize,
    pub(super) outbox: mpsc::Sender<Notice>,
}

impl OnSubscriptionNotificationCore for Mailbox {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        let _ = self.outbox.try_send(Notice {
            subscription: self.subscription,
            received: Time::now(),
            message,
            asked: false,
        });
    }
}
