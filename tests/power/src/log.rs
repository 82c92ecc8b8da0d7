//! What a disk was told, in order: the log of Linux's dm-log-writes, so that its own tools can read it too.
//!
//! A superblock, then an entry after the other, all in sectors of 512 bytes, little endian
//! (Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c):
//! `[sector u64][sectors u64][flags u64][data length u64]`, then the sectors that were written. A mark's text lies in the
//! header's own sector.

use std::io::{self, Read, Write};

use anyhow::{Context as _, bail, ensure};

/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// The longest text of a mark, in bytes.
pub const MAX_MARK: usize = SECTOR - HEADER;

const MAGIC: u64 = 0x6A_7366_7773_6872;
const VERSION: u64 = 1;
const HEADER: usize = 32;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One thing that a disk was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Whole sectors were written.
    Write {
        /// Where.
        sector: u64,
        /// What; a multiple of [`SECTOR`].
        data: Vec<u8>,
    },
    /// Everything before this is on the medium.
    Flush,
    /// Sectors are of no use any more, or are to read as zeros.
    Discard {
        /// Where.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Somebody said something at this moment.
    Mark(Vec<u8>),
}

/// Writes a log.
///
/// # Errors
/// When the disk refuses.
pub fn write(mut to: impl Write, entries: &[Entry]) -> io::Result<()> {
    let mut head = [0; SECTOR];
    put(&mut head, [MAGIC, VERSION, entries.len() as u64, SECTOR as u64]);
    to.write_all(&head)?;
    for entry in entries {
        let mut head = [0; SECTOR];
        match entry {
            Entry::Write { sector, data } => {
                put(&mut head, [*sector, (data.len() / SECTOR) as u64, 0, 0]);
                to.write_all(&head)?;
                to.write_all(data)?;
                continue;
            }
            Entry::Flush => put(&mut head, [0, 0, FLUSH, 0]),
            Entry::Discard { sector, sectors } => put(&mut head, [*sector, *sectors, DISCARD, 0]),
            Entry::Mark(text) => {
                put(&mut head, [0, 0, MARK, text.len() as u64]);
                head.get_mut(HEADER..HEADER + text.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(text);
            }
        }
        to.write_all(&head)?;
    }
    to.flush()
}

/// Reads a log.
///
/// # Errors
/// When it is no log, ends in the middle of an entry, or has writes that are durable by themselves (FUA): a loop device has
/// none, and here nobody would know what they are worth.
pub fn read(mut from: impl Read) -> anyhow::Result<Vec<Entry>> {
    let mut head = [0; SECTOR];
    from.read_exact(&mut head).context("the superblock")?;
    let [magic, version, count, _] = take(&head);
    ensure!(magic == MAGIC && version == VERSION, "no log of dm-log-writes, version 1");
    ensure!(head[24..28] == (SECTOR as u32).to_le_bytes(), "its sectors are not of {SECTOR} bytes");
    let mut entries = Vec::new();
    for number in 0..count {
        from.read_exact(&mut head).with_context(|| format!("entry {number} of {count}"))?;
        let [sector, sectors, flags, length] = take(&head);
        if flags & MARK != 0 {
            let length = usize::try_from(length)?;
            entries.push(Entry::Mark(head.get(HEADER..HEADER + length).context("a mark is too long")?.to_vec()));
            continue;
        }
        if flags & DISCARD != 0 {
            entries.push(Entry::Discard { sector, sectors });
            continue;
        }
        if flags & !FLUSH != 0 {
            bail!("entry {number} has flags that nobody knows: {flags:#x}");
        }
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
        if sectors > 0 {
            let mut data = Vec::new();
            let length = sectors.checked_mul(SECTOR as u64).context("a write without end")?;
            from.by_ref().take(length).read_to_end(&mut data)?;
            ensure!(data.len() as u64 == length, "entry {number} of {count} is cut off");
            entries.push(Entry::Write { sector, data });
        }
    }
    Ok(entries)
}

fn put(head: &mut [u8; SECTOR], fields: [u64; 4]) {
    for (place, field) in head.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
}

fn take(head: &[u8; SECTOR]) -> [u64; 4] {
    let field = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    [field(0), field(8), field(16), field(24)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        prop_oneof![
            (0_u64..1 << 40, 1_usize..5, any::<u8>())
                .prop_map(|(sector, sectors, byte)| Entry::Write { sector, data: vec![byte; sectors * SECTOR] }),
            Just(Entry::Flush),
            (any::<u64>(), any::<u64>()).prop_map(|(sector, sectors)| Entry::Discard { sector, sectors }),
            prop::collection::vec(any::<u8>(), 0..=MAX_MARK).prop_map(Entry::Mark),
        ]
    }

    proptest! {
        #[test]
        fn a_log_is_read_as_it_was_written(entries in prop::collection::vec(any_entry(), 0..30)) {
            let mut bytes = Vec::new();
            write(&mut bytes, &entries).expect("writes");
            prop_assert_eq!(bytes.len() % SECTOR, 0);
            prop_assert_eq!(read(&bytes[..]).expect("reads"), entries);
        }

        #[test]
        fn a_log_that_is_cut_off_is_refused(entries in prop::collection::vec(any_entry(), 1..10), place: prop::sample::Index) {
            let mut bytes = Vec::new();
            write(&mut bytes, &entries).expect("writes");
            bytes.truncate(place.index(bytes.len()));
            read(&bytes[..]).expect_err("cut off");
        }
    }

    #[test]
    fn the_superblock_and_a_header_lie_as_the_kernel_lays_them() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[Entry::Write { sector: 3, data: vec![7; 1_024] }]).expect("writes");
        assert_eq!(bytes[..8], [0x72, 0x68, 0x73, 0x77, 0x66, 0x73, 0x6A, 0][..], "WRITE_LOG_MAGIC");
        assert_eq!((bytes[8], bytes[16], &bytes[24..28]), (1, 1, &[0, 2, 0, 0][..]));
        assert_eq!((bytes[512], bytes[520], bytes[528], bytes[536]), (3, 2, 0, 0));
        assert_eq!(bytes[1_024..], [7; 1_024]);
    }

    #[test]
    fn a_mark_that_is_too_long_is_refused() {
        write(Vec::new(), &[Entry::Mark(vec![0; MAX_MARK + 1])]).expect_err("too long");
    }
}
