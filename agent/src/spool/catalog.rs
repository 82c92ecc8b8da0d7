//! The series' numbers: given once, never reused, the same after every restart and change of configuration.

use std::collections::HashMap;

use super::files::{Root, read_checked};
use super::{Series, SeriesId, SpoolError};

/// Written twice, one after the other, so that one damaged block does not take the names of all that is stored.
const FILES: [&str; 2] = ["catalog", "catalog-copy"];
/// After a catalog that could not be read, numbers begin above any that it can have given.
const AFTER_DAMAGE: u32 = 1 << 24;

/// Which series has which number.
#[derive(Debug, Default)]
pub struct Catalog {
    first: u32,
    series: Vec<Series>,
}

impl Catalog {
    /// The series of that number; `None` for one from a catalog that was damaged beyond reading.
    #[must_use]
    pub fn get(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(id.0.checked_sub(self.first)? as usize)
    }

    /// Every series that was ever configured.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &Series)> {
        (self.first..).map(SeriesId).zip(&self.series)
    }

    /// Reads the catalog without changing anything.
    pub(super) fn read(root: &std::path::Path) -> Result<Option<Self>, SpoolError> {
        for name in FILES {
            let path = root.join(name);
            let bytes = read_checked(&path).map_err(SpoolError::io("read", &path))?;
            if let Some((first, series)) = bytes.and_then(|bytes| postcard::from_bytes(&bytes).ok()) {
                return Ok(Some(Self { first, series }));
            }
        }
        Ok(None)
    }

    /// Those of its copies that are there and cannot be read.
    pub(super) fn damaged(root: &std::path::Path) -> Vec<&'static str> {
        let sound = |name: &str| {
            let bytes = read_checked(&root.join(name)).ok().flatten();
            bytes.is_some_and(|bytes| postcard::from_bytes::<(u32, Vec<Series>)>(&bytes).is_ok())
        };
        FILES.into_iter().filter(|name| root.join(name).exists() && !sound(name)).collect()
    }

    /// Reads the catalog, adds what is new of `series`, and returns their numbers in the same order. The last value says
    /// that there was a catalog and that it is damaged beyond reading.
    pub(super) fn open(root: &Root, series: &[Series]) -> Result<(Self, Vec<SeriesId>, bool), SpoolError> {
        let held = Self::read(root.path())?;
        let damaged = held.is_none() && FILES.iter().any(|name| root.join(name).exists());
        let fresh = || Self { first: if damaged { AFTER_DAMAGE } else { 0 }, series: Vec::new() };
        let mut catalog = held.unwrap_or_else(fresh);
        let mut numbers: HashMap<Series, SeriesId> = catalog.iter().map(|(id, series)| (series.clone(), id)).collect();
        let before = catalog.series.len();
        let ids = series
            .iter()
            .map(|series| {
                *numbers.entry(series.clone()).or_insert_with(|| {
                    let number = u32::try_from(catalog.series.len()).expect("a line has fewer than 2^32 tags");
                    catalog.series.push(series.clone());
                    SeriesId(catalog.first + number)
                })
            })
            .collect();
        if catalog.series.len() > before || damaged {
            let bytes = postcard::to_stdvec(&(catalog.first, &catalog.series)).expect("plain data always encodes");
            FILES.iter().try_for_each(|name| root.write(name, &bytes))?;
        }
        Ok((catalog, ids, damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(tag: &str) -> Series {
        Series { station: "press".into(), tag: tag.into(), unit: None, metric: None, text: false }
    }

    #[test]
    fn numbers_last_across_restarts_and_changes_of_configuration() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opens");
        let (_, ids, _) = Catalog::open(&root, &[series("a"), series("b"), series("a")]).expect("opens");
        assert_eq!(ids, [SeriesId(0), SeriesId(1), SeriesId(0)]);
        let (_, ids, _) = Catalog::open(&root, &[series("c")]).expect("opens");
        assert_eq!(ids, [SeriesId(2)]);
        let changed = Series { unit: Some("s".into()), ..series("a") };
        let (catalog, ids, damaged) =
            Catalog::open(&root, &[series("b"), changed.clone(), series("a")]).expect("opens");
        assert_eq!((ids, damaged), (vec![SeriesId(1), SeriesId(3), SeriesId(0)], false));
        assert_eq!(catalog.get(SeriesId(3)), Some(&changed));
        assert_eq!(catalog.get(SeriesId(4)), None);
    }

    #[test]
    fn one_damaged_copy_is_harmless_and_two_never_reuse_a_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opens");
        Catalog::open(&root, &[series("a"), series("b")]).expect("opens");
        std::fs::write(root.join("catalog"), b"garbage, and not little of it").expect("writes");
        let (_, ids, damaged) = Catalog::open(&root, &[series("b")]).expect("opens");
        assert_eq!((ids, damaged), (vec![SeriesId(1)], false));
        std::fs::write(root.join("catalog-copy"), b"").expect("writes");
        let (catalog, ids, damaged) = Catalog::open(&root, &[series("b")]).expect("opens");
        assert_eq!((ids, damaged), (vec![SeriesId(AFTER_DAMAGE)], true));
        assert_eq!(catalog.get(SeriesId(1)), None);
    }
}
