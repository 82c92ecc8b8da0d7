//! Who is to be asked for a birth, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Time;

/// One edge node is asked at most so often: a birth may be many pages, and a host that asks again for each message before
/// it comes makes it never come.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(10);
/// A node that does not answer is asked ever more rarely, and at last so often.
pub(super) const ASK_RARELY: Duration = Duration::from_secs(300);

/// How many nodes are asked in one turn, and how long a turn is: a thousand births at once would bury the line.
pub(super) const A_TURN: usize = 32;
pub(super) const TURN: Duration = Duration::from_secs(1);

/// The nodes that are to be asked, by when.
#[derive(Debug, Default)]
pub(super) struct Asks {
    allowed: bool,
    due: BTreeSet<(Time, Box<str>)>,
    /// When this turn began, and how many were asked in it.
    turn: Time,
    asked: usize,
}

/// What one node is to be asked.
#[derive(Debug, Default)]
pub(super) struct Ask {
    /// When it is to be asked next; none while nothing is wanted of it.
    at: Option<Time>,
    /// When it was last asked.
    last: Option<Time>,
    /// How often in vain.
    unanswered: u32,
}

impl Ask {
    /// Whether a birth is needed that has not come.
    pub(super) fn is_wanted(&self) -> bool {
        self.at.is_some()
    }
}

impl Asks {
    pub(super) fn new(allowed: bool) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// Whether nodes may be asked at all.
    pub(super) fn allowed(&self) -> bool {
        self.allowed
    }

    /// A birth of `node` is needed: now, or as soon as it may be asked again.
    pub(super) fn want(&mut self, node: &str, ask: &mut Ask, now: Time) {
        if !self.allowed || ask.at.is_some() {
            return;
        }
        // A clock that was set back says nothing of when it was.
        let next = ask.last.filter(|last| *last <= now).map_or(now, |last| (last + ASK_EVERY).max(now));
        self.note(node, ask, next);
    }

    /// It is needed now, whatever was asked on another connection.
    pub(super) fn insist(&mut self, node: &str, ask: &mut Ask, now: Time) {
        self.drop(node, ask);
        *ask = Ask::default();
        self.want(node, ask, now);
    }

    /// The node answered, or it is gone.
    pub(super) fn drop(&mut self, node: &str, ask: &mut Ask) {
        if let Some(at) = ask.at.take() {
            self.due.remove(&(at, node.into()));
        }
        ask.unanswered = 0;
    }

    /// How long until somebody is to be asked.
    pub(super) fn pause(&self, now: Time) -> Option<Duration> {
        let (at, _) = self.due.first()?;
        let pause = if is_due(*at, now) { Duration::ZERO } else { at.since(now) };
        let full = self.asked == A_TURN && self.in_turn(now);
        Some(if full { pause.max((self.turn + TURN).since(now)) } else { pause })
    }

    fn in_turn(&self, now: Time) -> bool {
        self.turn <= now && now.since(self.turn) < TURN
    }

    /// A node that is to be asked now.
    pub(super) fn next(&mut self, now: Time) -> Option<Box<str>> {
        if !self.in_turn(now) {
            (self.turn, self.asked) = (now, 0);
        }
        let (at, _) = self.due.first()?;
        if self.asked == A_TURN || !is_due(*at, now) {
            return None;
        }
        self.asked += 1;
        self.due.pop_first().map(|(_, node)| node)
    }

    /// It was asked, and will be again unless it answers.
    pub(super) fn asked(&mut self, node: &str, ask: &mut Ask, now: Time) {
        let pause = (ASK_EVERY * 2_u32.saturating_pow(ask.unanswered.min(16))).min(ASK_RARELY);
        ask.unanswered += 1;
        ask.last = Some(now);
        self.note(node, ask, now + pause);
    }

    fn note(&mut self, node: &str, ask: &mut Ask, at: Time) {
        ask.at = Some(at);
        self.due.insert((at, node.into()));
    }
}

/// Nothing is ever put off longer than the longest pause: what seems so was noted before the clock was set back.
fn is_due(at: Time, now: Time) -> bool {
    at <= now || at.since(now) > ASK_RARELY
}
