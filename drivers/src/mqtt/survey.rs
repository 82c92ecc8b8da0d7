//! Looking at a broker without running: what comes for our tags, and what else there is.
//!
//! A broker cannot be asked, only listened to. The listener is a clean session under a name of its own: the agent's would
//! throw a running agent out. It subscribes with quality of service 0 and says nothing, to Sparkplug nodes neither. Of a
//! shared subscription it takes the filter alone: in the group it would take messages from the agents that share them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::filter::unshared;
use super::payload::Found;
use super::session::{Event, Message, Say, Session, Unsigned};
use super::subscriptions::Subscriptions;
use super::{Client, Config, while_connecting, while_running};
use crate::survey::{Offered, Probed, Scope, Survey};
use crate::{LinkError, OwnStatus, Reading, Status, TagId, Time};

impl Survey for Client {
    async fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        let mut listener = Listener::subscribe(&self.config, &self.payloads.filters()).await?;
        let wanted: BTreeSet<TagId> = self.payloads.tags().into_iter().collect();
        let mut heard: BTreeMap<TagId, Probed> = BTreeMap::new();
        // Twice the time that a broker has to let us in: 10 s unless said otherwise.
        let until = listener.since + 2 * self.config.timeout;
        while heard.len() < wanted.len() {
            let Some(message) = listener.next(until).await? else { break };
            let round_trip = listener.since.elapsed();
            let batch = self.payloads.read(message.topic(), message.payload(), Time::now());
            for reading in batch.into_iter().flat_map(|batch| batch.readings) {
                heard.insert(reading.tag, Probed { reading, round_trip, otherwise: Vec::new() });
            }
        }
        let waited = listener.since.elapsed();
        listener.session.close().await;
        for tag in wanted {
            told(heard.remove(&tag).unwrap_or_else(|| {
                let now = Time::now();
                let reading = Reading::bad(tag, Status::Own(OwnStatus::NoData), now, now);
                Probed { reading, round_trip: waited, otherwise: Vec::new() }
            }));
        }
        Ok(())
    }

    async fn browse(&mut self, scope: &Scope, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        let filters = self.payloads.filters_of(|station| station == &*scope.station);
        if filters.is_empty() {
            return Err(LinkError::Refused(format!("`{}` subscribes to nothing that could be listed", scope.station)));
        }
        let mut listener = Listener::subscribe(&self.config, &filters).await?;
        let until = listener.since + scope.listen;
        let mut seen = BTreeSet::new();
        'listen: while let Some(message) = listener.next(until).await? {
            let (topic, payload, now) = (message.topic(), message.payload(), Time::now());
            for Found { filter, name, options, about, value } in self.payloads.look(&scope.station, topic, payload, now)
            {
                if seen.len() >= scope.most {
                    break 'listen;
                }
                // One tag is one address, however many topics of a wildcard have it.
                if !seen.insert(options.clone()) {
                    continue;
                }
                let mut options = options;
                if self.payloads.topics_of(&scope.station) > 1 {
                    options.push(("topic", filter));
                }
                found(Offered { name: as_name(&name), options, unit: None, about, value });
            }
        }
        listener.session.close().await;
        Ok(())
    }
}

/// A session that only listens.
struct Listener {
    session: Session,
    subscriptions: Subscriptions,
    unsigned: Unsigned,
    durable: watch::Sender<u64>,
    /// When it had asked for its topics.
    since: Instant,
}

impl Listener {
    async fn subscribe(config: &Config, filters: &[(String, u8)]) -> Result<Self, LinkError> {
        let suffix = RandomState::new().build_hasher().finish() & 0xFFFF_FFFF;
        let config = Config {
            client_id: format!("{}-probe-{suffix:08x}", config.client_id),
            clean_session: true,
            host_id: None,
            rebirth: false,
            topics: Vec::new(),
            ..config.clone()
        };
        let filters: BTreeSet<&str> = filters.iter().map(|(filter, _)| unshared(filter)).collect();
        let filters = filters.into_iter().map(|filter| (filter.to_owned(), 0)).collect();
        let session = Session::new(&config, Time::now())?;
        let durable = watch::Sender::new(u64::MAX);
        let subscriptions = Subscriptions::new(filters);
        let unsigned = Unsigned::default();
        let mut listener = Self { session, subscriptions, unsigned, durable, since: Instant::now() };
        let limit = Instant::now() + config.timeout;
        loop {
            let mut durable = listener.durable.subscribe();
            let next = listener.session.next(&mut listener.unsigned, &mut durable, None);
            let event = timeout_at(limit, next)
                .await
                .map_err(|_| LinkError::Unreachable(format!("no answer within {:?}", config.timeout)))?;
            if let Event::Connected { .. } = event.map_err(while_connecting)? {
                listener.since = Instant::now();
                listener.subscriptions.connected(false, |_| false);
                listener.ask().await.map_err(while_connecting)?;
                return Ok(listener);
            }
        }
    }

    async fn ask(&mut self) -> Result<(), LinkError> {
        while let Some(filters) = self.subscriptions.next() {
            self.session.say(Say::Subscribe(filters)).await?;
        }
        Ok(())
    }

    /// The next message, if one comes before `until`.
    async fn next(&mut self, until: Instant) -> Result<Option<Message>, LinkError> {
        loop {
            let mut durable = self.durable.subscribe();
            let next = self.session.next(&mut self.unsigned, &mut durable, None);
            match timeout_at(until, next).await {
                Err(_) => return Ok(None),
                Ok(event) => match event.map_err(while_running)? {
                    Event::Message(message) => return Ok(Some(message)),
                    Event::Asked(packet) => self.subscriptions.left(packet),
                    Event::Subscribed(packet, granted) => {
                        self.subscriptions.answered(packet, &granted, Instant::now());
                        if self.subscriptions.all_refused().is_some() {
                            return Err(LinkError::Refused("the broker does not let us subscribe".to_owned()));
                        }
                        self.ask().await?;
                    }
                    _ => {}
                },
            }
        }
    }
}

/// Every value of a JSON payload with its path (RFC 9535, 2.7: normalized, but with dots where a name allows).
pub(super) fn leaves(json: &Json, path: &str, into: &mut Vec<(String, Json)>) {
    match json {
        Json::Object(members) => {
            for (name, value) in members {
                let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                let escaped = || name.replace('\\', "\\\\").replace('\'', "\\'");
                let step = if plain { format!("{path}.{name}") } else { format!("{path}['{}']", escaped()) };
                leaves(value, &step, into);
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}[{index}]"), into);
            }
        }
        leaf => into.push((path.to_owned(), leaf.clone())),
    }
}

/// What a tag may be called: letters, digits and `_.-`.
fn as_name(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let name: String = text.trim_start_matches('$').chars().map(fit).collect();
    let name = name.trim_matches(['_', '.']);
    if name.is_empty() { "value".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_has_a_path_that_finds_it() {
        let payload =
            r#"{"state":"run","zones":[{"temp":1.5},{"temp":null}],"with space":{"it's":true},"":7,"a\\b":{}}"#;
        let json: Json = serde_json::from_str(payload).expect("JSON");
        let mut found = Vec::new();
        leaves(&json, "$", &mut found);
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        for path in ["$.state", "$.zones[0].temp", "$.zones[1].temp", "$['with space']['it\\'s']", "$['']"] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        for (path, leaf) in &found {
            let query = serde_json_path::JsonPath::parse(path).expect(path);
            assert_eq!(query.query(&json).first(), Some(leaf), "{path}");
        }
        assert_eq!(as_name("$.zones[0].temp"), "zones_0_.temp");
        assert_eq!(as_name("Zone 1/Temperature"), "Zone_1_Temperature");
        assert_eq!(as_name("$"), "value");
    }
}
