//! A disk as it stood when the power went.

use std::fmt;
use std::ops::Range;

use crate::dice::Dice;
use crate::log::{Entry, SECTOR};

/// What a disk writes as a whole, in bytes: the page of an eMMC's or an SSD's translation layer, and a block of ext4.
const PIECE: usize = 4_096;

/// What of the writes since the last flush has reached the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Some of them, in no order.
    Some,
    /// Of each some pieces of 4096 bytes.
    Torn,
}

/// When, and with what luck. One seed says it all.
#[derive(Clone, Debug)]
pub struct Cut {
    /// So many entries of the log had happened.
    pub at: usize,
    /// What became of the last of them.
    pub luck: Luck,
    seed: u64,
}

impl Cut {
    /// The cut of this seed, somewhere in `range` of the log. Every other one is moved to just before the next flush, where
    /// there is most to lose.
    #[must_use]
    pub fn new(seed: u64, range: Range<usize>, entries: &[Entry]) -> Self {
        let mut dice = Dice::new(&[seed, 1]);
        let mut at = range.start + dice.below(range.len().max(1));
        if dice.once_in(2) {
            at = (at..range.end).find(|at| entries[*at] == Entry::Flush).unwrap_or(range.end);
        }
        let luck = [Luck::None, Luck::All, Luck::Some, Luck::Torn][dice.below(4)];
        Self { at, luck, seed }
    }

    /// Its seed, to have it again.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Brings what had not been flushed to `image`, which holds all that had. Returns whether it matters what luck there was.
    pub fn apply(&self, image: &mut [u8], later: &[Entry]) -> bool {
        let mut dice = Dice::new(&[self.seed, 2]);
        let mut writes = false;
        for entry in later {
            if matches!(entry, Entry::Flush | Entry::Mark(_)) {
                continue;
            }
            writes = true;
            match self.luck {
                Luck::None => {}
                Luck::All => apply(image, entry),
                Luck::Some => {
                    if dice.once_in(2) {
                        apply(image, entry);
                    }
                }
                Luck::Torn => pieces(entry).filter(|_| dice.once_in(2)).for_each(|piece| apply(image, &piece)),
            }
        }
        writes
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let luck = match self.luck {
            Luck::None => "nothing",
            Luck::All => "all",
            Luck::Some => "some",
            Luck::Torn => "pieces",
        };
        write!(f, "after entry {}, {luck} of the rest (seed {})", self.at, self.seed)
    }
}

/// Does to an image what a disk was told.
pub fn apply(image: &mut [u8], entry: &Entry) {
    let place = |sector: u64, length: usize| {
        let from = usize::try_from(sector).expect("within memory") * SECTOR;
        from..from + length
    };
    match entry {
        Entry::Write { sector, data } => image[place(*sector, data.len())].copy_from_slice(data),
        Entry::Discard { sector, sectors } => {
            let length = usize::try_from(*sectors).expect("within memory") * SECTOR;
            image[place(*sector, length)].fill(0);
        }
        Entry::Flush | Entry::Mark(_) => {}
    }
}

/// A write in the pieces that a disk may keep or lose, cut where the disk's pages end.
fn pieces(entry: &Entry) -> Box<dyn Iterator<Item = Entry> + '_> {
    let Entry::Write { sector, data } = entry else { return Box::new(std::iter::once(entry.clone())) };
    let (first, per_piece) = (*sector, (PIECE / SECTOR) as u64);
    let head = usize::try_from(per_piece - first % per_piece).expect("at most a piece") * SECTOR;
    let (head, rest) = data.split_at(head.min(data.len()));
    let mut at = first;
    Box::new(std::iter::once(head).chain(rest.chunks(PIECE)).map(move |piece| {
        let sector = at;
        at += (piece.len() / SECTOR) as u64;
        Entry::Write { sector, data: piece.to_vec() }
    }))
}

/// A disk whose power goes again and again, each time later in its log.
pub struct Disk<'a> {
    entries: &'a [Entry],
    /// All that was flushed before `flushed`.
    image: Vec<u8>,
    flushed: usize,
    /// A disk that says that it has flushed, and has not.
    lies: bool,
}

impl<'a> Disk<'a> {
    /// The disk before the first entry.
    #[must_use]
    pub fn new(image: Vec<u8>, entries: &'a [Entry]) -> Self {
        Self { entries, image, flushed: 0, lies: false }
    }

    /// From here on flushes are ignored.
    pub fn lie_from(&mut self, at: usize) {
        self.advance(at);
        self.lies = true;
    }

    /// What is left, and whether luck mattered. Cuts come in the order of their places.
    ///
    /// # Panics
    /// When the cut before lay behind this one.
    pub fn cut(&mut self, cut: &Cut) -> (Vec<u8>, bool) {
        self.advance(cut.at);
        let mut image = self.image.clone();
        let mattered = cut.apply(&mut image, &self.entries[self.flushed..cut.at]);
        (image, mattered)
    }

    fn advance(&mut self, at: usize) {
        assert!(self.flushed <= at, "cuts are made in order");
        let flush = self.entries[self.flushed..at].iter().rposition(|entry| *entry == Entry::Flush);
        let Some(flush) = flush.filter(|_| !self.lies) else { return };
        let until = self.flushed + flush + 1;
        self.entries[self.flushed..until].iter().for_each(|entry| apply(&mut self.image, entry));
        self.flushed = until;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: usize = 16 * PIECE;

    /// Piece by piece: 1 everywhere, flushed; then a 2 and a 3 that were not.
    fn log() -> Vec<Entry> {
        let write = |sector: u64, byte: u8, pieces: usize| Entry::Write { sector, data: vec![byte; pieces * PIECE] };
        vec![write(0, 1, 16), Entry::Flush, Entry::Mark(b"one".to_vec()), write(8, 2, 2), write(64, 3, 3)]
    }

    fn looks(image: &[u8]) -> Vec<u8> {
        image.chunks(PIECE).map(|piece| piece[0]).collect()
    }

    fn at_end(luck: Luck, seed: u64) -> Vec<u8> {
        let log = log();
        let (image, mattered) = Disk::new(vec![0; SIZE], &log).cut(&Cut { at: log.len(), luck, seed });
        assert!(mattered);
        for piece in image.chunks(PIECE) {
            assert!(piece.iter().all(|byte| *byte == piece[0]), "a piece is torn");
        }
        looks(&image)
    }

    #[test]
    fn what_was_flushed_is_there_whatever_happens_to_the_rest() {
        for seed in 0..200 {
            for luck in [Luck::None, Luck::All, Luck::Some, Luck::Torn] {
                let image = at_end(luck, seed);
                let untouched = [0, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15];
                assert!(untouched.iter().all(|place| image[*place] == 1), "{luck:?}: {image:?}");
                assert!(
                    image[1..3].iter().all(|byte| [1, 2].contains(byte))
                        && image[8..11].iter().all(|byte| [1, 3].contains(byte))
                );
            }
        }
    }

    #[test]
    fn none_is_none_and_all_is_all() {
        assert_eq!(at_end(Luck::None, 1), [1; 16]);
        assert_eq!(at_end(Luck::All, 1), [1, 2, 2, 1, 1, 1, 1, 1, 3, 3, 3, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn some_keeps_writes_whole_and_torn_does_not() {
        let seen = |luck| (0..200).map(|seed| at_end(luck, seed)).collect::<BTreeSet<_>>();
        assert_eq!(seen(Luck::Some).len(), 4, "each of two writes, or not");
        assert_eq!(seen(Luck::Torn).len(), 32, "each of five pieces, or not");
    }

    #[test]
    fn pieces_end_where_the_disks_pages_end() {
        let write = Entry::Write { sector: 6, data: vec![9; 12 * SECTOR] };
        let places: Vec<_> = pieces(&write)
            .map(|piece| match piece {
                Entry::Write { sector, data } => (sector, data.len() / SECTOR),
                _ => panic!("a write"),
            })
            .collect();
        assert_eq!(places, [(6, 2), (8, 8), (16, 2)]);
    }

    #[test]
    fn a_later_cut_sees_what_an_earlier_one_did_not_change() {
        let log = log();
        let mut disk = Disk::new(vec![0; SIZE], &log);
        assert_eq!(looks(&disk.cut(&Cut { at: 1, luck: Luck::None, seed: 0 }).0), [0; 16]);
        assert_eq!(looks(&disk.cut(&Cut { at: 1, luck: Luck::All, seed: 0 }).0), [1; 16]);
        assert_eq!(looks(&disk.cut(&Cut { at: 2, luck: Luck::None, seed: 0 }).0), [1; 16]);
        assert_eq!(disk.cut(&Cut { at: 3, luck: Luck::Torn, seed: 0 }), (vec![1; SIZE], false));
    }

    #[test]
    fn a_disk_that_lies_may_lose_what_it_said_it_had() {
        let log = log();
        let mut disk = Disk::new(vec![0; SIZE], &log);
        disk.lie_from(0);
        assert_eq!(looks(&disk.cut(&Cut { at: 5, luck: Luck::None, seed: 0 }).0), [0; 16]);
    }

    #[test]
    fn one_seed_is_one_cut() {
        let log: Vec<_> = std::iter::repeat_with(log).take(5).flatten().collect();
        let mut before_flushes = 0;
        for seed in 0..100 {
            let cut = Cut::new(seed, 10..20, &log);
            assert!((10..=20).contains(&cut.at));
            assert_eq!((cut.at, cut.luck), (Cut::new(seed, 10..20, &log).at, Cut::new(seed, 10..20, &log).luck));
            before_flushes += usize::from([11, 16].contains(&cut.at));
        }
        assert!(before_flushes > 30, "{before_flushes} of 100 just before a flush");
    }
}
