//! What brokers delivered last, by session. It becomes durable with what the messages said, so that after a restart
//! a message that comes again is known (docs/decisions/0003-a-message-twice.md). Likewise what each session is subscribed
//! to, so that a restart with other topics can let go of those that are not wanted any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use gemba_drivers::{Deliveries, Delivery, Keep};

use crate::spool::Entry;

/// How many bytes of filters are one entry; a single one may be longer.
const PIECE: usize = 3 << 10;

/// The last deliveries of each session, and its filters.
#[derive(Debug, Default)]
pub struct Received(BTreeMap<Arc<str>, Session>);

#[derive(Debug, Default)]
struct Session {
    deliveries: Deliveries,
    /// How many of them, the last ones, are still to be written.
    unwritten: usize,
    filters: Arc<[Box<str>]>,
    /// Whether the filters are still to be written.
    changed: bool,
}

impl Received {
    /// What is to become durable of a session.
    pub fn keep(&mut self, session: &Arc<str>, keep: &Keep) {
        match keep {
            Keep::Delivery(delivery) => self.note(session, *delivery),
            Keep::Filters(filters) => {
                let held = self.0.entry(Arc::clone(session)).or_default();
                (held.filters, held.changed) = (Arc::clone(filters), true);
            }
        }
    }

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

    /// Likewise a piece of its filters.
    pub fn restore_filters(&mut self, session: Arc<str>, begins: bool, filters: Vec<Box<str>>) {
        let held = self.0.entry(session).or_default();
        let known = if begins { &[] } else { &*held.filters };
        held.filters = known.iter().cloned().chain(filters).collect();
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

    /// What one session is subscribed to, as far as is known.
    #[must_use]
    pub fn filters_of(&self, session: &str) -> Vec<String> {
        self.0.get(session).map(|held| held.filters.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    /// All is to be written again: a checkpoint was, and what lies before one is not read at a start.
    pub fn rewrite(&mut self) {
        for held in self.0.values_mut() {
            held.unwritten = held.deliveries.len();
            held.changed = !held.filters.is_empty();
        }
    }

    /// What is to be written, which then counts as written: entries of an open commit are never lost without it.
    pub fn write(&mut self, mut into: impl FnMut(Entry)) {
        for (session, held) in self.0.iter_mut().filter(|(_, held)| held.unwritten > 0) {
            let deliveries = held.deliveries.last(std::mem::take(&mut held.unwritten)).collect();
            into(Entry::Deliveries { session: Arc::clone(session), deliveries });
        }
        for (session, held) in self.0.iter_mut().filter(|(_, held)| held.changed) {
            held.changed = false;
            let (mut begins, mut rest) = (true, &*held.filters);
            while begins || !rest.is_empty() {
                let mut bytes = 0;
                let fits = rest.iter().take_while(|filter| {
                    bytes += filter.len();
                    bytes <= PIECE
                });
                let (piece, after) = rest.split_at(fits.count().max(1).min(rest.len()));
                into(Entry::Filters { session: Arc::clone(session), begins, filters: piece.to_vec() });
                (begins, rest) = (false, after);
            }
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
            match entry.expect("reads").1 {
                Entry::Deliveries { session, deliveries } => received.restore(session, deliveries),
                Entry::Filters { session, begins, filters } => received.restore_filters(session, begins, filters),
                _ => {}
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
    fn what_a_session_is_subscribed_to_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut opened, mut received) = open(folder.path());
        let session: Arc<str> = SESSION.into();
        let filters = |count: usize| -> Arc<[Box<str>]> {
            (0..count).map(|number| format!("plant/a-long-name-of-a-line/oven-{number:04}/#").into()).collect()
        };
        let known = |received: &Received| received.filters_of(SESSION).len();
        received.keep(&session, &Keep::Filters(filters(1_000)));
        let applied = commit(&mut opened.writer, &mut received);
        opened.writer.checkpoint(applied, &[1]);
        received.rewrite();
        commit(&mut opened.writer, &mut received);
        drop(opened);
        let held = stored(folder.path());
        assert_eq!(held.filters_of(SESSION), filters(1_000).iter().map(ToString::to_string).collect::<Vec<_>>());
        for fewer in [3, 0] {
            let (mut opened, mut received) = open(folder.path());
            received.keep(&session, &Keep::Filters(filters(fewer)));
            commit(&mut opened.writer, &mut received);
            drop(opened);
            assert_eq!(known(&stored(folder.path())), fewer);
        }
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
