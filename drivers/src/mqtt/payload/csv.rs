//! CSV: rows of fields (RFC 4180).

use std::borrow::Cow;

use super::when::{Given, When, instant};
use super::{Document, NO_TEXT, Said, said, text};
use crate::mqtt::config::{Column, ColumnAt, Fields};
use crate::{Reading, Time};

const NO_CSV: &str = "the payload is not CSV";

/// Each row is a reading for every tag that has a field in it; an empty field is none. Also how many rows have not as many
/// fields as the first: which value belongs where, nobody knows.
pub(super) fn rows(
    separator: u8,
    header: bool,
    fields: &Fields<Column>,
    document: &Document<'_>,
    tag: Option<usize>,
    now: Time,
    into: &mut Vec<Reading>,
) -> (Said, u64) {
    let Some(text) = document.text() else { return (Said::Unreadable(NO_TEXT), 0) };
    let mut rows = Rows::new(text, separator);
    let names = match rows.next().filter(|_| header) {
        Some(Ok(names)) => names,
        Some(Err(_)) => return (Said::Unreadable(NO_CSV), 0),
        None => Vec::new(),
    };
    if !header {
        rows = Rows::new(text, separator);
    }
    let place = |column: &Column| match &column.at {
        ColumnAt::Index(index) => Some(*index),
        ColumnAt::Name(name) => names.iter().position(|held| held.trim() == &**name),
    };
    let tags: Vec<_> = fields.about(tag).iter().map(|tag| (tag, place(&tag.place))).collect();
    let time = fields.time.as_ref().and_then(|time| place(&time.place));
    let (mut found, mut ragged, mut width) = (false, 0, header.then_some(names.len()));
    let begun = into.len();
    for row in rows {
        let Ok(row) = row else {
            // The rest cannot be told apart from what is torn: nothing of the payload counts.
            into.truncate(begun);
            return (Said::Unreadable(NO_CSV), 0);
        };
        if *width.get_or_insert(row.len()) != row.len() {
            ragged += 1;
            continue;
        }
        let field = |place: Option<usize>| -> Option<&Cow<'_, str>> {
            row.get(place?).filter(|field| !field.trim().is_empty())
        };
        let when = When::of(&fields.time, now, |_, format| instant(format, &Given::of_text(field(time)?, format)));
        for (tag, place) in &tags {
            match field(*place) {
                Some(field) => {
                    found = true;
                    into.push(when.reading(tag.id, text::value(field, tag.place.text, tag.numeric)));
                }
                None if tag.required => into.push(tag.missing(when.at, now)),
                None => {}
            }
        }
    }
    (said(found), ragged)
}

/// Reads rows one after the other. Lines end with CRLF or LF; empty ones are passed over.
pub(super) struct Rows<'a> {
    rest: &'a str,
    separator: u8,
}

/// A quote where none may be, or one that is never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Rows<'a> {
    pub(super) fn new(text: &'a str, separator: u8) -> Self {
        Self { rest: text.strip_prefix('\u{FEFF}').unwrap_or(text), separator }
    }

    /// A field from where we stand, and whether the row ends after it.
    fn field(&mut self) -> Result<(Cow<'a, str>, bool), Malformed> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let ends = |byte: u8| byte == self.separator || byte == b'\n';
            let end = self.rest.bytes().position(ends).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            let last = !rest.starts_with(char::from(self.separator));
            self.rest = rest.get(1..).unwrap_or_default();
            let field = if last { field.strip_suffix('\r').unwrap_or(field) } else { field };
            return if field.contains('"') { Err(Malformed) } else { Ok((field.into(), last)) };
        };
        let (mut field, mut rest) = (Cow::Borrowed(""), quoted);
        loop {
            let (part, after) = rest.split_once('"').ok_or(Malformed)?;
            if field.is_empty() {
                field = part.into();
            } else {
                field.to_mut().push_str(part);
            }
            rest = after;
            let Some(more) = after.strip_prefix('"') else { break };
            field.to_mut().push('"');
            rest = more;
        }
        let (rest, last) = match rest.strip_prefix(char::from(self.separator)) {
            Some(rest) => (rest, false),
            None if rest.is_empty() => (rest, true),
            None => (rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')).ok_or(Malformed)?, true),
        };
        self.rest = rest;
        Ok((field, last))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<Vec<Cow<'a, str>>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
            self.rest = match rest {
                Some(rest) => rest,
                None if self.rest.is_empty() => return None,
                None => break,
            };
        }
        let mut row = Vec::new();
        loop {
            match self.field() {
                Ok((field, last)) => {
                    row.push(field);
                    if last {
                        return Some(Ok(row));
                    }
                }
                Err(malformed) => {
                    self.rest = "";
                    return Some(Err(malformed));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<Vec<String>>, Malformed> {
        Rows::new(text, b',').map(|row| row.map(|row| row.into_iter().map(Cow::into_owned).collect())).collect()
    }

    #[test]
    fn rows_are_read_as_rfc_4180_says() {
        let expected = |rows: &[&[&str]]| {
            Ok(rows.iter().map(|row| row.iter().map(|&field| field.to_owned()).collect()).collect::<Vec<_>>())
        };
        assert_eq!(rows("a,b\r\n1,2\r\n"), expected(&[&["a", "b"], &["1", "2"]]));
        assert_eq!(rows("a,b\n1,2"), expected(&[&["a", "b"], &["1", "2"]]));
        assert_eq!(rows("a,,\n,\n"), expected(&[&["a", "", ""], &["", ""]]));
        assert_eq!(rows("\"a,b\",\"c\"\"d\",\"e\r\nf\"\r\n"), expected(&[&["a,b", "c\"d", "e\r\nf"]]));
        assert_eq!(rows("\"\",\"\"\"\"\n"), expected(&[&["", "\""]]));
        assert_eq!(rows("\u{FEFF}ü\n\n\nß\n"), expected(&[&["ü"], &["ß"]]));
        assert_eq!(rows(""), expected(&[]));
        assert_eq!(rows("a,"), expected(&[&["a", ""]]));
        for bad in ["\"a", "a\"b", "\"a\"b,c", "x\n\"a\"\"", "1,\"2\r"] {
            assert_eq!(rows(bad), Err(Malformed), "{bad}");
        }
        let semicolons: Vec<_> = Rows::new("1,5;2", b';').map(|row| row.expect("a row").len()).collect();
        assert_eq!(semicolons, [2]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_to_an_end(text in ".*") {
            let _ = rows(&text);
        }

        #[test]
        fn what_was_quoted_is_read_back(fields in proptest::collection::vec(".*", 1..5)) {
            let quoted: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            proptest::prop_assert_eq!(rows(&format!("{}\r\n", quoted.join(","))), Ok(vec![fields]));
        }
    }
}
