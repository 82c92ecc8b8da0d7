//! Sequence numbers of one edge node (Eclipse Sparkplug 3.0, 6.4.5): from 0 to 255, then 0 again.

use std::collections::VecDeque;

/// So many numbers back a message may come late, or twice. One that is further back is not of the series that we follow.
const BACK: usize = 32;

/// Where a node is in its series.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The number that comes next; unknown before the first message.
    next: Option<u8>,
    /// The numbers before it, oldest first: the digest of what came, none of what is missing.
    last: VecDeque<(u8, Option<u32>)>,
}

/// How a message stands to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its turn.
    Next,
    /// It came before, byte for byte.
    Again,
    /// It was missing until now.
    Late,
    /// So many are missing before it. A node that was born again unheard looks like this, too.
    After(u8),
}

impl Order {
    /// A birth begins the series anew.
    pub(super) fn begin(&mut self, number: Option<u8>, digest: u32) {
        *self = Self::default();
        if let Some(number) = number {
            self.take(number, digest);
        }
    }

    /// What came before cannot come twice any more: the connection that brought it is gone.
    pub(super) fn reconnect(&mut self) {
        self.last.clear();
    }

    /// Whether this very message is among the last.
    pub(super) fn knows(&self, number: Option<u8>, digest: u32) -> bool {
        self.last.iter().any(|(held, of)| Some(*held) == number && *of == Some(digest))
    }

    /// Takes the next message in.
    pub(super) fn take(&mut self, number: u8, digest: u32) -> Place {
        let missing = self.next.map_or(0, |next| number.wrapping_sub(next));
        if missing > 0 {
            match self.last.iter_mut().find(|(held, _)| *held == number) {
                Some((_, Some(held))) if *held == digest => return Place::Again,
                Some((_, held @ None)) => {
                    *held = Some(digest);
                    return Place::Late;
                }
                _ => {}
            }
            for before in (1..=missing).rev() {
                self.push(number.wrapping_sub(before), None);
            }
        }
        self.push(number, Some(digest));
        self.next = Some(number.wrapping_add(1));
        if missing > 0 { Place::After(missing) } else { Place::Next }
    }

    fn push(&mut self, number: u8, digest: Option<u32>) {
        if self.last.len() >= BACK {
            self.last.pop_front();
        }
        self.last.push_back((number, digest));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In order up to `last`, as messages that are not alike.
    fn through(order: &mut Order, last: u8, count: u32) {
        for before in (0..count).rev() {
            let number = last.wrapping_sub(before.to_le_bytes()[0]);
            assert_eq!(order.take(number, before), Place::Next, "{number}");
        }
    }

    #[test]
    fn what_comes_late_or_twice_is_no_gap() {
        let mut order = Order::default();
        through(&mut order, 43, 300);
        assert_eq!(order.take(47, 1_000), Place::After(3));
        assert_eq!(order.take(47, 1_000), Place::Again);
        assert_eq!(order.take(45, 1_001), Place::Late);
        assert_eq!(order.take(45, 1_001), Place::Again);
        assert_eq!(order.take(48, 1_002), Place::Next);
        // The number of the message before, and another message: the node began anew, unheard.
        assert_eq!(order.take(48, 1_003), Place::After(255));
        assert_eq!(order.take(49, 1_004), Place::Next);
        order.reconnect();
        assert_eq!(order.take(49, 1_004), Place::After(255), "of another connection");
    }

    proptest! {
        #[test]
        fn a_gap_of_any_width_is_seen_and_followed(last in any::<u8>(), missing in 1..=255_u8, before in 1..100_u32) {
            let mut order = Order::default();
            through(&mut order, last, before);
            let number = last.wrapping_add(1).wrapping_add(missing);
            prop_assert_eq!(order.take(number, 1_000), Place::After(missing));
            prop_assert_eq!(order.take(number.wrapping_add(1), 1_001), Place::Next);
        }
    }
}
