//! Messages of a subscription that never came.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::Client;
use super::link::Notice;
use crate::{LinkError, Loss, Time};

/// Whether messages went missing. Those with data are numbered from 1 on, past `u32::MAX` again from 1; a keep-alive
/// has the number that the next of them will have (OPC 10000-4, 5.14.1.1).
pub(super) struct Sequence {
    next: Option<u32>,
    heard: Option<Time>,
    /// When it said something; times at which nobody listened are added.
    pub(super) spoke: Instant,
}

impl Default for Sequence {
    fn default() -> Self {
        Self { next: None, heard: None, spoke: Instant::now() }
    }
}

impl Sequence {
    /// How many messages are missing before `number`, and since when; without `news` it is a keep-alive's.
    pub(super) fn follow(&mut self, number: u32, news: bool, at: Time) -> Option<(u32, Time)> {
        let missing = self.missing(number);
        let since = self.heard.replace(at);
        self.spoke = Instant::now();
        if news {
            self.next = Some(Self::after(number));
        } else if missing > 0 {
            self.next = Some(number);
        }
        (missing > 0).then(|| (missing, since.unwrap_or(at)))
    }

    /// How many messages are missing before `number`.
    fn missing(&self, number: u32) -> u32 {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        // A number from before is a repetition, not four billion lost messages.
        if missing < 1 << 31 { missing } else { 0 }
    }

    /// Whether the message of that number is still to come.
    pub(super) fn is_ahead(&self, number: u32) -> bool {
        self.next.is_none_or(|next| number.wrapping_sub(next) < 1 << 31)
    }

    fn after(number: u32) -> u32 {
        number.checked_add(1).unwrap_or(1)
    }
}

impl Client {
    /// Messages that are missing before this one are asked for and go first; those that the server does not have any more
    /// count as lost when the next is opened.
    pub(super) async fn with_missing(&mut self, mut notice: Notice) -> Result<Notice, LinkError> {
        /// More than servers keep.
        const MOST: u32 = 100;
        let Some(sequence) = self.sequences.get(notice.subscription) else { return Ok(notice) };
        if notice.asked {
            return Ok(notice);
        }
        notice.asked = true;
        let (subscription, missing) = (notice.subscription, sequence.missing(notice.message.sequence_number));
        let Some(first) = sequence.next.filter(|_| (1..=MOST).contains(&missing)) else { return Ok(notice) };
        let Some(link) = self.link.as_mut() else { return Ok(notice) };
        let mut found = VecDeque::new();
        let mut number = first;
        while number != notice.message.sequence_number {
            match link.republish(subscription, number).await {
                Ok(message) => found.extend(message),
                Err(error) => {
                    // It came, and the server knows that it did: nobody tells it again.
                    notice.asked = false;
                    self.held.push_front(notice);
                    return Err(error);
                }
            }
            number = Sequence::after(number);
        }
        info!(missing, found = found.len(), "messages of the subscription that never came were asked for");
        found.push_back(notice);
        let next = found.pop_front();
        // What waits already comes after.
        for notice in found.into_iter().rev() {
            self.held.push_front(notice);
        }
        next.ok_or_else(|| LinkError::Broken("a message was lost on its way".to_owned()))
    }

    /// The loss of messages of one subscription: one each, so it stands with the first of the stations that the
    /// subscription serves, and names the others.
    pub(super) fn never_came(&self, subscription: usize, missing: u32, from: Time, to: Time) -> Option<Loss> {
        let served = self.link.as_ref()?.subscriptions.get(subscription)?.stations.iter();
        let mut names = served.filter_map(|&station| Some(&self.config.stations.get(station as usize)?.name));
        let source = names.next()?.clone();
        let others: Vec<&str> = names.map(|name| &**name).collect();
        let also = if others.is_empty() { String::new() } else { format!(" (also of {})", others.join(", ")) };
        let reason = Arc::from(format!("OPC UA: messages of the subscription never came{also}"));
        Some(Loss { source, from, to, count: missing.into(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_messages_are_counted() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.follow(7, true, Time(1)), None, "the first tells where it starts");
        assert_eq!(sequence.follow(8, true, Time(2)), None);
        assert_eq!(sequence.follow(9, false, Time(3)), None, "a keep-alive");
        assert_eq!(sequence.follow(11, true, Time(4)), Some((2, Time(3))));
        assert_eq!(sequence.follow(12, true, Time(5)), None);
        assert_eq!(sequence.follow(12, true, Time(6)), None, "a repetition");
        sequence.next = Some(u32::MAX);
        assert_eq!(sequence.follow(u32::MAX, true, Time(7)), None);
        assert_eq!(sequence.follow(1, true, Time(8)), None, "zero is left out");
    }

    #[test]
    fn a_keep_alive_tells_what_is_missing_before_anything_new_comes() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.follow(5, false, Time(1)), None, "some servers number these differently");
        assert_eq!(sequence.follow(1, true, Time(2)), None);
        assert_eq!(sequence.follow(2, false, Time(3)), None);
        assert_eq!(sequence.follow(4, false, Time(4)), Some((2, Time(3))));
        assert_eq!(sequence.follow(4, false, Time(5)), None, "told once");
        assert_eq!(sequence.follow(4, true, Time(6)), None);
        for number in [0, 4] {
            assert_eq!(sequence.follow(number, false, Time(7)), None, "the last one's number, or none");
        }
        assert_eq!(sequence.follow(5, true, Time(8)), None);
    }
}
