//! What brokers delivered last, by session. It becomes durable with what the messages said, so that after a restart
//! a message that comes again is known (docs/decisions/0003-a-message-twice.md).

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::{Deliveries, Delivery};

use crate::spool::Entry;

/// The last deliveries of each session.
#[derive(Debug, Default)]
pub struct Received(BTreeMap<Arc<str>, Session>);

#[derive(Debug, Default)]
struct Session {
    deliveries: Deliveries,
    /// How many of them, the last ones, are still to be written.
    unwritten: usize,
}

impl Received {
    /// One more, to be written.
    pub fn note(&mut self, session: &Arc<str>, delivery: Delivery) {
        let held = self.0.entry(Arc::clone(session)).or_default();
        held.deliveries.push(delivery);
        held.unwritten = (held.unwritten + 1).min(held.deliveries.len());
    }

    /// Takes up what the spool holds of them.
    pub fn restore(&mut self, session: Arc<str>, deliveries: impl IntoIterator<Item = Delivery>) {
        let held = self.0.entry(session).or_default();
        deliveries.into_iter().for_each(|delivery| held.deliveries.push(delivery));
    }

    /// Forgets the sessions that the configuration has no more.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.0.retain(|session, _| wanted(session));
    }

    /// Those of one session.
    #[must_use]
    pub fn of(&self, session: &str) -> Deliveries {
        self.0.get(session).map(|held| held.deliveries.clone()).unwrap_or_default()
    }

    /// All is to be written again: a checkpoint was, and what lies before one is not read at a start.
    pub fn rewrite(&mut self) {
        self.0.values_mut().for_each(|held| held.unwritten = held.deliveries.len());
    }

    /// What is to be written, which then counts as written: entries of an open commit are never lost without it.
    pub fn write(&mut self, mut into: impl FnMut(Entry)) {
        for (session, held) in self.0.iter_mut().filter(|(_, held)| held.unwritten > 0) {
            let deliveries = held.deliveries.last(std::mem::take(&mut held.unwritten)).collect();
            into(Entry::Deliveries { session: Arc::clone(session), deliveries });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use gemba_drivers::Time;

    use super::*;
    use crate::model::State;
    use crate::record::Record;
    use crate::spool::{self, Opened, Seq, Settings, Writer};

    const SESSION: &str = "mqtt://broker:1883 gemba";

    fn open(path: &Path) -> (Opened, Received) {
        let (max_size, keep_free, keep) = (1 << 30, 0, Duration::ZERO);
        let settings = Settings { path: path.to_owned(), max_size, keep_free, keep, journal_size: 4 << 10 };
        (spool::open(settings, &[]).expect("opens"), Received::default())
    }

    /// As the spool has them, from its newest checkpoint on.
    fn stored(path: &Path) -> Received {
        let (opened, mut received) = open(path);
        for entry in opened.recovery.entries() {
            if let (_, Entry::Deliveries { session, deliveries }) = entry.expect("reads") {
                received.restore(session, deliveries);
            }
        }
        received
    }

    fn delivery(number: u32) -> Delivery {
        Delivery { packet: (number % 60_000) as u16, digest: number.wrapping_mul(0x9E37_79B9), anew: false }
    }

    fn commit(writer: &mut Writer, received: &mut Received) -> Seq {
        let mut last = Seq::default();
        received.write(|entry| last = writer.append(&entry));
        writer.commit(Time(1)).expect("commits");
        last
    }

    #[test]
    fn what_was_committed_is_known_after_a_restart_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut opened, mut received) = open(folder.path());
        let session: Arc<str> = SESSION.into();
        for number in 0..3_000 {
            received.note(&session, delivery(number));
            if number % 700 == 0 {
                commit(&mut opened.writer, &mut received);
            }
        }
        let committed = received.of(SESSION);
        commit(&mut opened.writer, &mut received);
        received.note(&session, delivery(3_000));
        received.write(|entry| {
            opened.writer.append(&entry);
        });
        drop(opened); // with a commit open
        let stored = stored(folder.path());
        assert_eq!(stored.of(SESSION), committed);
        assert_eq!(stored.of("mqtt://broker:1883 other"), Deliveries::default());
    }

    #[test]
    fn a_checkpoint_and_a_seal_take_none_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut opened, mut received) = open(folder.path());
        let session: Arc<str> = SESSION.into();
        (0..40).for_each(|number| received.note(&session, delivery(number)));
        let applied = commit(&mut opened.writer, &mut received);
        opened.writer.checkpoint(applied, &[1, 2, 3]);
        received.rewrite();
        commit(&mut opened.writer, &mut received);
        // Something that upstream lacks makes journals worth sealing.
        for number in 40..2_000 {
            received.note(&session, delivery(number));
            opened.writer.append(&Entry::Record { cause: None, record: change(Time(i64::from(number))) });
            commit(&mut opened.writer, &mut received);
        }
        let mut sealed = 0;
        loop {
            let worked = opened.sealer.work().expect("keeps house");
            sealed += worked.sealed;
            if !worked.more {
                break;
            }
        }
        assert!(sealed > 5, "{sealed}");
        drop(opened);
        let (opened, _) = open(folder.path());
        assert_eq!(opened.recovery.checkpoint.as_ref().map(|(_, state)| state.as_slice()), Some([1, 2, 3].as_slice()));
        drop(opened);
        assert_eq!(stored(folder.path()).of(SESSION), received.of(SESSION));
    }

    fn change(time: Time) -> Record {
        Record::StateChanged { station: "oven-1".into(), time, from: State::Down, to: State::Producing }
    }

    #[test]
    fn a_new_session_has_nothing_of_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut opened, mut received) = open(folder.path());
        let session: Arc<str> = SESSION.into();
        (0..5).for_each(|number| received.note(&session, delivery(number)));
        received.note(&session, Delivery { anew: true, ..delivery(7) });
        commit(&mut opened.writer, &mut received);
        drop(opened);
        let stored = stored(folder.path());
        assert_eq!((stored.of(SESSION).len(), stored.of(SESSION).since(1, delivery(1).digest)), (1, None));
    }
}
