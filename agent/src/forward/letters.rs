//! Dead letters: what upstream refused for good, kept so that somebody can look at it, mend the cause and send it again.
//!
//! Each is a file in [`FOLDER`] beside the spool: a line of JSON that says what it is and why it was refused, then the OTLP
//! request as it would be posted without compression (protobuf). The loss ledger counts it whatever becomes of the file. Only
//! whole frames that were refused are kept: of a partial success nobody says which points were rejected.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gemba_drivers::Time;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::spool::Signal;

/// Where they lie, in the spool's folder; they count against `spool.max_size`.
const FOLDER: &str = "dead-letters";
/// The oldest go beyond so many …
const MOST: usize = 1_000;
/// … and beyond so many bytes.
const MOST_BYTES: u64 = 16 << 20;

/// What a letter is, and why upstream did not want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// When it was refused.
    pub refused: Time,
    /// Which kind of request it is.
    pub signal: Signal,
    /// Points, log records or spans in it.
    pub items: u64,
    /// What it speaks of, from when …
    pub from: Time,
    /// … until when.
    pub to: Time,
    /// What upstream said.
    pub why: String,
}

/// The folder of letters of one spool.
#[derive(Clone, Debug)]
pub struct Letters(PathBuf);

impl Letters {
    /// Of the spool in `path`. Nothing is made before there is a letter.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self(path.join(FOLDER))
    }

    /// Keeps a letter durably, and lets the oldest go if there are too many. Returns its number.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep(&self, letter: &Letter, body: &[u8]) -> io::Result<u64> {
        fs::create_dir_all(&self.0)?;
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let temporary = self.0.join("tmp");
        let mut file = File::create(&temporary)?;
        serde_json::to_writer(&mut file, letter)?;
        file.write_all(b"\n")?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path(number))?;
        File::open(&self.0)?.sync_all()?;
        self.limit()?;
        Ok(number)
    }

    /// Each letter with its number, oldest first. What is no letter is left out, and said in the log.
    ///
    /// # Errors
    /// When the folder cannot be read; none is no error.
    pub fn list(&self) -> io::Result<Vec<(u64, Letter)>> {
        let numbers = self.numbers()?;
        let letters = numbers.into_iter().filter_map(|number| match self.read(number) {
            Ok((letter, _)) => Some((number, letter)),
            Err(error) => {
                warn!(number, %error, "a dead letter cannot be read");
                None
            }
        });
        Ok(letters.collect())
    }

    /// A letter, and its request.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub fn read(&self, number: u64) -> io::Result<(Letter, Bytes)> {
        let mut file = BufReader::new(File::open(self.path(number))?);
        let (mut head, mut body) = (String::new(), Vec::new());
        file.read_line(&mut head)?;
        file.read_to_end(&mut body)?;
        Ok((serde_json::from_str(&head)?, body.into()))
    }

    /// Takes a letter away.
    ///
    /// # Errors
    /// When it is not there, or the disk refuses.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.0.join(format!("letter-{number:08}"))
    }

    /// The numbers of all letters, in order, readable or not.
    ///
    /// # Errors
    /// When the folder cannot be read; none is no error.
    pub fn numbers(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names.filter_map(|name| name.strip_prefix("letter-")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn limit(&self) -> io::Result<()> {
        let mut room = MOST_BYTES;
        for (place, number) in self.numbers()?.into_iter().rev().enumerate() {
            let size = fs::metadata(self.path(number)).map_or(0, |meta| meta.len());
            room = room.saturating_sub(size);
            if place >= MOST || room == 0 {
                warn!(number, "a dead letter makes room for later ones");
                self.remove(number)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(why: &str) -> Letter {
        Letter { refused: Time(3), signal: Signal::Logs, items: 2, from: Time(1), to: Time(2), why: why.to_owned() }
    }

    #[test]
    fn what_is_kept_is_read_back_in_order_and_taken_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let letters = Letters::of(folder.path());
        assert!(letters.list().expect("none is no error").is_empty());
        assert_eq!(letters.keep(&letter("first"), b"\n\x00body").expect("kept"), 1);
        assert_eq!(letters.keep(&letter("second\nline"), b"").expect("kept"), 2);
        assert_eq!(letters.read(1).expect("there"), (letter("first"), Bytes::from_static(b"\n\x00body")));
        letters.remove(1).expect("there");
        assert_eq!(letters.list().expect("readable"), [(2, letter("second\nline"))]);
        assert_eq!(letters.remove(1).expect_err("gone").kind(), io::ErrorKind::NotFound);
        assert_eq!(letters.keep(&letter("third"), b"").expect("kept"), 3);
    }

    #[test]
    fn what_is_no_letter_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let letters = Letters::of(folder.path());
        letters.keep(&letter("a"), b"x").expect("kept");
        for (name, text) in [("letter-00000002", "{ nonsense"), ("letter-x", ""), ("notes.txt", "mine")] {
            fs::write(folder.path().join(FOLDER).join(name), text).expect("written");
        }
        assert_eq!(letters.list().expect("readable").len(), 1);
        assert_eq!(letters.keep(&letter("b"), b"").expect("kept"), 3);
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let letters = Letters::of(folder.path());
        let body = vec![0; usize::try_from(MOST_BYTES).expect("16 MiB") / 4];
        for _ in 0..6 {
            letters.keep(&letter("large"), &body).expect("kept");
        }
        let left: Vec<u64> = letters.numbers().expect("readable");
        assert_eq!(left, [4, 5, 6], "each is a little more than a quarter");
    }
}
