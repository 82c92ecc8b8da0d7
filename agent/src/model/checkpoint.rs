//! The model at rest: what a restart begins from.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use gemba_drivers::opcua::Watermark;
use gemba_drivers::{Reading, TagId, Validity, Value};
use serde::{Deserialize, Serialize};

use crate::model::entry::Entry;
use crate::model::flow;
use crate::model::late::{Rejected, Witness};
use crate::model::ledger::Ledger;
use crate::model::line::{Line, NOTHING_YET, StationOf, TagOf};
use crate::model::monitor::Monitor;
use crate::model::observer::Role;
use crate::model::period::Count;
use crate::model::station::Station;
use crate::model::visit::Visits;

/// The layout below. Another number is another layout; those of before gemba's first release are not read.
const VERSION: u8 = 12;

/// By name, since the configuration may have changed meanwhile: what is gone is forgotten, what is new
/// starts with nothing.
#[derive(Serialize, Deserialize)]
struct Checkpoint<'a> {
    #[serde(borrow)]
    stations: Vec<(&'a str, Cow<'a, Station>)>,
    #[serde(borrow)]
    tags: Vec<OddTag<'a>>,
    ledger: Ledger,
    /// Of stations that tell of their units.
    #[serde(borrow)]
    visits: Vec<(&'a str, Visits)>,
    /// By station and tag: the last value told, where history can be asked for the rest.
    #[serde(borrow)]
    told: Vec<(&'a str, Vec<(&'a str, Watermark)>)>,
    /// By station and tag: what is not settled yet.
    #[serde(borrow)]
    pending: Vec<(&'a str, &'a str, Reading)>,
    /// Of stations where something is watched.
    #[serde(borrow)]
    monitors: Vec<(&'a str, Monitor)>,
    /// The last that people told, oldest first.
    entries: Vec<Arc<Entry>>,
    /// What they told that is not settled yet.
    entered: Vec<Arc<Entry>>,
    /// Of stations that reject what others made: who is there.
    #[serde(borrow)]
    witnesses: Vec<(&'a str, Witness)>,
    /// What was rejected and is not settled yet, by the station that made it.
    #[serde(borrow)]
    rejected: Vec<(&'a str, Rejected)>,
    /// By station and counter: the tag that it is.
    #[serde(borrow)]
    counters: Vec<(&'a str, Vec<(Count, &'a str)>)>,
    /// What upstream was told of the line as a whole.
    line: flow::Told,
}

/// A tag that is not simply good and a number: most are, and need no room.
#[derive(Serialize, Deserialize)]
struct OddTag<'a> {
    station: &'a str,
    tag: &'a str,
    validity: Validity,
    text: Option<&'a str>,
}

/// A checkpoint that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Written by another version of gemba.
    #[error("the checkpoint has layout {0}; this gemba reads layout {VERSION}")]
    Version(u8),
    /// Not what was written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(#[from] postcard::Error),
    /// Not what was written, or not all of it.
    #[error("the checkpoint cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
}

impl Line {
    /// The model as bytes, for [`Line::restore`].
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        let visiting = self.stations.iter().filter(|of| of.visits != Visits::default());
        let watching = self.stations.iter().filter(|of| of.monitor != Monitor::default());
        let witnessing = self.stations.iter().filter(|of| of.witness != Witness::default());
        let tags = self.tags.iter().filter(|tag| tag.validity != Validity::Good || tag.text.is_some());
        let checkpoint = Checkpoint {
            stations: self.stations.iter().map(|of| (&*of.name, Cow::Borrowed(&of.station))).collect(),
            tags: tags
                .map(|tag| OddTag {
                    station: &self.stations[tag.station].name,
                    tag: &tag.name,
                    validity: tag.validity,
                    text: tag.text.as_deref(),
                })
                .collect(),
            ledger: self.ledger.clone(),
            visits: visiting.map(|of| (&*of.name, of.visits.clone())).collect(),
            told: self.told_by_station(),
            pending: self
                .stations
                .iter()
                .flat_map(|of| of.pending.iter().map(|reading| (&*of.name, reading)))
                .map(|(station, reading)| (station, &*self.tags[reading.tag.index()].name, reading.clone()))
                .collect(),
            monitors: watching.map(|of| (&*of.name, of.monitor.clone())).collect(),
            entries: self.entries.iter().cloned().collect(),
            entered: self.stations.iter().flat_map(|of| of.pending.entries().cloned()).collect(),
            witnesses: witnessing.map(|of| (&*of.name, of.witness.clone())).collect(),
            rejected: self
                .stations
                .iter()
                .flat_map(|of| of.pending.rejects().map(|rejected| (&*of.name, rejected.clone())))
                .collect(),
            counters: self.stations.iter().map(|of| (&*of.name, self.counters_of(of))).collect(),
            line: self.told,
        };
        let plain = postcard::to_allocvec(&checkpoint).expect("plain data does not fail to serialize");
        // Facts are much alike: packed they take a sixth of the disk's life, every half minute.
        let mut packed = ZlibEncoder::new(vec![VERSION], Compression::fast());
        packed.write_all(&plain).and_then(|()| packed.finish()).expect("memory does not fail to be written")
    }

    fn counters_of(&self, of: &StationOf) -> Vec<(Count, &str)> {
        let tags = self.tags[of.tags.start as usize..of.tags.end as usize].iter();
        let counter = |tag: &TagOf| if let Role::Counter(count) = tag.role { Some(count) } else { None };
        tags.filter_map(|tag| Some((counter(tag)?, &*tag.name))).collect()
    }

    fn told_by_station(&self) -> Vec<(&str, Vec<(&str, Watermark)>)> {
        let told: Vec<_> = self.tags.iter().filter_map(|tag| Some((tag.station, &*tag.name, tag.told?))).collect();
        // A station's tags stand together.
        let by_station = told.chunk_by(|one, other| one.0 == other.0);
        by_station
            .map(|tags| (&*self.stations[tags[0].0].name, tags.iter().map(|&(_, tag, told)| (tag, told)).collect()))
            .collect()
    }

    /// Takes up where a checkpoint left off.
    ///
    /// # Errors
    /// If it is not one; the line is as it was.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let (&version, rest) = bytes.split_first().unwrap_or((&0, &[]));
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let mut plain = Vec::new();
        ZlibDecoder::new(rest).read_to_end(&mut plain)?;
        let checkpoint: Checkpoint<'_> = postcard::from_bytes(&plain)?;
        let mut anew = Vec::new();
        // What another tag counted says nothing of this one's first reading.
        for (name, before) in &checkpoint.counters {
            let Some(place) = self.station(name) else { continue };
            let now = self.counters_of(&self.stations[place]);
            let others: Vec<Count> =
                before.iter().filter(|counter| !now.contains(counter)).map(|&(count, _)| count).collect();
            anew.push((place, others));
        }
        let mut known = std::collections::HashMap::new();
        for (name, station) in checkpoint.stations {
            known.insert(name, ());
            if let Some(of) = self.stations.iter_mut().find(|of| &*of.name == name) {
                of.station = station.into_owned();
            }
        }
        for (place, others) in anew {
            others.into_iter().for_each(|count| self.stations[place].station.begin_count(count));
        }
        for (name, visits) in checkpoint.visits {
            if let Some(of) = self.stations.iter_mut().find(|of| &*of.name == name) {
                of.visits = visits;
            }
        }
        for (name, monitor) in checkpoint.monitors {
            if let Some(of) = self.stations.iter_mut().find(|of| &*of.name == name) {
                of.monitor.restore(monitor);
            }
        }
        let told: std::collections::HashMap<_, _> = checkpoint
            .told
            .iter()
            .flat_map(|(station, tags)| tags.iter().map(move |&(tag, told)| ((*station, tag), told)))
            .collect();
        let mut odd: std::collections::HashMap<_, _> =
            checkpoint.tags.into_iter().map(|tag| ((tag.station, tag.tag), (tag.validity, tag.text))).collect();
        for tag in &mut self.tags {
            let station: &str = &self.stations[tag.station].name;
            if !known.contains_key(station) {
                continue;
            }
            let (validity, text) = odd.remove(&(station, &*tag.name)).unwrap_or((Validity::Good, None));
            tag.validity = validity;
            tag.text = text.map(Arc::from);
            tag.value = Value::Null;
            tag.told = told.get(&(station, &*tag.name)).copied();
            debug_assert!(tag.validity != NOTHING_YET || tag.text.is_none());
        }
        for (station, name, reading) in checkpoint.pending {
            let Some(of) = self.stations.iter_mut().find(|of| &*of.name == station) else { continue };
            let found = (of.tags.start..of.tags.end).find(|&tag| &*self.tags[tag as usize].name == name);
            if let Some(tag) = found {
                of.pending.take(Reading { tag: TagId(tag), ..reading }, self.tags[tag as usize].counts());
            }
        }
        for entry in checkpoint.entered {
            if let Some(of) = self.stations.iter_mut().find(|of| of.name == entry.station) {
                of.pending.enter(entry);
            }
        }
        for (name, witness) in checkpoint.witnesses {
            if let Some(of) = self.stations.iter_mut().find(|of| &*of.name == name) {
                of.witness = witness;
            }
        }
        for (name, rejected) in checkpoint.rejected {
            if let Some(of) = self.stations.iter_mut().find(|of| &*of.name == name) {
                of.pending.reject(rejected);
            }
        }
        self.entries = checkpoint.entries.into();
        self.ledger = checkpoint.ledger;
        self.told = checkpoint.line;
        Ok(())
    }
}
