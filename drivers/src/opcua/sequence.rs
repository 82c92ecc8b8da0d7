//! Messages of a subscription that never came.

use std::collections::VecDeque;

use tracing::info;

use super::Client;
use super::link::Notice;
use crate::{LinkError, Time};

/// Whether messages went missing. Those with data are numbered from 1 on, past `u32::MAX` again from 1.
#[derive(Default)]
pub(super) struct Sequence {
    next: Option<u32>,
    heard: Option<Time>,
}

impl Sequence {
    pub(super) fn heard(&mut self, at: Time) {
        self.heard = Some(at);
    }

    /// How many messages are missing before `number`, and since when.
    pub(super) fn follow(&mut self, number: u32, at: Time) -> Option<(u32, Time)> {
        let missing = self.missing(number);
        let since = self.heard.replace(at);
        self.next = Some(Self::after(number));
        (missing > 0).then(|| (missing, since.unwrap_or(at)))
    }

    /// How many messages are missing before `number`.
    fn missing(&self, number: u32) -> u32 {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        // A number from before is a repetition, not four billion lost messages.
        if missing < 1 << 31 { missing } else { 0 }
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
        if notice.asked || notice.message.notification_data.as_ref().is_none_or(Vec::is_empty) {
            return Ok(notice);
        }
        notice.asked = true;
        let (subscription, missing) = (notice.subscription, sequence.missing(notice.message.sequence_number));
        let Some(first) = sequence.next.filter(|_| (1..=MOST).contains(&missing)) else { return Ok(notice) };
        let Some(link) = self.link.as_mut() else { return Ok(notice) };
        let mut found = VecDeque::new();
        let mut number = first;
        while number != notice.message.sequence_number {
            found.extend(link.republish(subscription, number).await?);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_messages_are_counted() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.follow(7, Time(1)), None, "the first tells where it starts");
        assert_eq!(sequence.follow(8, Time(2)), None);
        sequence.heard(Time(3));
        assert_eq!(sequence.follow(11, Time(4)), Some((2, Time(3))));
        assert_eq!(sequence.follow(12, Time(5)), None);
        assert_eq!(sequence.follow(12, Time(6)), None, "a repetition");
        sequence.next = Some(u32::MAX);
        assert_eq!(sequence.follow(u32::MAX, Time(7)), None);
        assert_eq!(sequence.follow(1, Time(8)), None, "zero is left out");
    }
}
