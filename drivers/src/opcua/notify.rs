//! Events of a link: asked for, asked for again where the server refused, heard.

use std::mem;

use opcua::types::{EventFieldList, EventNotificationList, StatusCode};
use tracing::{info, warn};

use super::event::{self, Told};
use super::{Client, find};
use crate::{Batch, LinkError, Time};

impl Client {
    /// Asks the server to tell the events of the notifiers at `asked`, in a subscription of their own: one that tags have
    /// filled takes no more.
    pub(super) async fn subscribe_events(&mut self, asked: Vec<usize>) -> Result<(), LinkError> {
        let publish = self.publish();
        let (Some(link), Some(server)) = (self.link.as_mut(), self.server.as_ref()) else { return Ok(()) };
        if asked.is_empty() {
            return Ok(());
        }
        if let Some(since) = link.unsubscribed.take() {
            self.eventless.get_or_insert(since);
        }
        let Some(place) = link.for_events(publish, server.limits).await? else { return Ok(()) };
        let (wanted, mut refused) =
            find::notifiers(link, &server.namespaces, &self.notifiers, &asked, self.items.len()).await?;
        refused.extend(link.watch_events(place, &wanted).await?);
        let taken = asked.iter().filter(|&&place| refused.iter().all(|(other, _)| *other != place));
        let taken: Vec<_> = taken.map(|&place| &self.notifiers[place].1).collect();
        if !taken.is_empty() {
            info!(notifiers = taken.len(), refused = refused.len(), "events are told");
            self.events.refresh |= taken.iter().any(|notifier| notifier.refresh);
            self.events.kinds = link.event_types().await?;
        }
        for (place, status) in refused.iter().filter(|refusal| !self.unheard.contains(refusal)) {
            let node = &self.notifiers[*place].1.node;
            warn!(%node, %status, "the server does not tell the events of this node; it is asked again");
        }
        self.unheard = refused;
        Ok(())
    }

    /// Asks again for the events that were refused.
    pub(super) async fn ask_again_for_events(&mut self) -> Result<(), LinkError> {
        self.subscribe_events(self.unheard.iter().map(|(place, _)| *place).collect()).await
    }

    /// Asks for the alarms that stand, when that is due.
    pub(super) async fn refresh(&mut self) -> Result<(), LinkError> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let with_events = link.subscriptions.iter().find(|subscription| subscription.events);
        match with_events.or(link.subscriptions.first()).map(|subscription| subscription.id) {
            Some(id) if mem::take(&mut self.events.refresh) => link.refresh_conditions(id).await,
            _ => Ok(()),
        }
    }

    /// Says that the events of a gap are not known, now that they are heard again.
    pub(super) fn own_up(&mut self, batch: &mut Batch) {
        let Some(since) = self.eventless.take() else { return };
        let (now, mut told) = (Time::now(), None);
        // By station, since they stand in the order of the configuration.
        for (station, _) in &self.notifiers {
            if told.replace(*station) != Some(*station) {
                let name = &self.config.stations[*station as usize].name;
                batch.losses.push(event::unheard(name, since.min(now), now));
            }
        }
    }

    /// What happened, as a message tells it.
    pub(super) fn hear_events(&mut self, told: &EventNotificationList, received: Time, batch: &mut Batch) {
        let namespaces = self.server.as_ref().map_or(&[][..], |server| &server.namespaces);
        for EventFieldList { client_handle, event_fields } in told.events.iter().flatten() {
            let at = (*client_handle as usize).checked_sub(self.items.len() + 1);
            let Some((station, notifier)) = at.and_then(|at| self.notifiers.get(at)) else { continue };
            let station = &self.config.stations[*station as usize].name;
            let fields = event_fields.clone().unwrap_or_default();
            match self.events.read(notifier, station, fields, namespaces, received) {
                Told::Event(event) => batch.events.push(event),
                Told::Overflow(at) => batch.losses.push(event::overflow(station, at)),
                Told::RefreshWanted => self.events.refresh |= notifier.refresh,
                Told::Nothing => {}
            }
        }
    }
}

/// By the place of its notifier, why the server tells no events of it.
pub(super) type Unheard = Vec<(usize, StatusCode)>;
