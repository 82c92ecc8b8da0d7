//! Tags as gauges: the hot path. What never changes of a series is encoded once.

use std::collections::HashMap;
use std::sync::Arc;

use gemba_drivers::Value;
use prost::Message;

use crate::otlp::attribute::{STATION, nanos, text};
use crate::otlp::wire::{self, Number, Point};
use crate::spool::{Entry, Seq, Series, SeriesId};

type Catalog = Box<dyn Fn(SeriesId) -> Option<Series> + Send>;

/// All gauges of tags, and every series met so far.
pub(super) struct TagGauges {
    catalog: Catalog,
    /// By [`SeriesId`]. The catalog numbers series without gaps.
    known: Vec<Option<Known>>,
    metrics: Vec<Metric>,
    by_name: HashMap<(Arc<str>, Arc<str>), usize>,
    by_station: HashMap<Arc<str>, Arc<[u8]>>,
}

struct Known {
    metric: usize,
    /// Its place when all series are in order of (metric, station, tag).
    rank: u32,
    station: Arc<str>,
    tag: Arc<str>,
    /// The last value was; before the first, the configuration says so.
    text: bool,
    /// `factory.station`, encoded.
    attributes: Arc<[u8]>,
}

struct Metric {
    name: Arc<str>,
    unit: Arc<str>,
    /// Name and unit, encoded.
    head: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Ranked {
    rank: u32,
    series: SeriesId,
    time: u64,
    number: Number,
}

impl TagGauges {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, known: Vec::new(), metrics: Vec::new(), by_name: HashMap::new(), by_station: HashMap::new() }
    }

    /// Looks new series up. Returns how many readings are of none that the catalog knows.
    pub(super) fn meet(&mut self, entries: &[(Seq, Entry)]) -> u64 {
        let mut orphans = 0;
        let mut fresh = false;
        for reading in readings(entries) {
            if self.known(reading.series).is_some() {
                continue;
            }
            match (self.catalog)(reading.series) {
                Some(series) => self.learn(reading.series, &series),
                None => orphans += 1,
            }
            fresh = true;
        }
        if fresh {
            self.rank();
        }
        orphans
    }

    /// Appends the gauges of `entries` to `to`; returns the number of points. All series were
    /// [met](Self::meet); readings of others are left out.
    pub(super) fn encode(&mut self, entries: &[(Seq, Entry)], to: &mut Vec<u8>) -> u64 {
        let mut points = Vec::with_capacity(readings(entries).count());
        for reading in readings(entries) {
            let Some(known) = self.known.get_mut(reading.series.0 as usize).and_then(Option::as_mut) else { continue };
            let number = match &reading.value {
                Value::Text(_) => {
                    known.text = true;
                    continue;
                }
                _ if reading.validity.is_bad() => Number::Missing,
                Value::Null => Number::Missing,
                Value::Bool(on) => Number::Int(i64::from(*on)),
                Value::Int(whole) => Number::Int(*whole),
                Value::Float(real) => Number::Float(*real),
            };
            if number != Number::Missing {
                known.text = false;
            } else if known.text {
                continue;
            }
            points.push(Ranked { rank: known.rank, series: reading.series, time: nanos(reading.source_time), number });
        }
        // Stable: readings of one instant stay in order of arrival.
        points.sort_by_key(|point| (point.rank, point.time));
        for group in points.chunk_by(|a, b| self.metric_of(a.series) == self.metric_of(b.series)) {
            let metric = &self.metrics[self.metric_of(group[0].series)];
            let points = group.iter().map(|ranked| Point {
                time: ranked.time,
                number: ranked.number,
                attributes: self.known(ranked.series).map_or(&[], |known| &known.attributes),
            });
            wire::put_gauge(to, &metric.head, points);
        }
        points.len() as u64
    }

    fn known(&self, series: SeriesId) -> Option<&Known> {
        self.known.get(series.0 as usize)?.as_ref()
    }

    fn metric_of(&self, series: SeriesId) -> usize {
        self.known(series).expect("only points of known series are ranked").metric
    }

    fn learn(&mut self, id: SeriesId, series: &Series) {
        let name: Arc<str> = match &series.metric {
            Some(metric) => metric.clone(),
            None => format!("factory.tag.{}", series.tag).into(),
        };
        let unit = series.unit.clone().unwrap_or_default();
        let metric = *self.by_name.entry((name.clone(), unit.clone())).or_insert_with(|| {
            let mut head = wire::field(wire::NAME, name.as_bytes());
            if !unit.is_empty() {
                head.extend(wire::field(wire::UNIT, unit.as_bytes()));
            }
            self.metrics.push(Metric { name, unit, head });
            self.metrics.len() - 1
        });
        let attributes = self
            .by_station
            .entry(series.station.clone())
            .or_insert_with(|| wire::field(wire::ATTRIBUTES, &text(STATION, &*series.station).encode_to_vec()).into())
            .clone();
        let place = id.0 as usize;
        if self.known.len() <= place {
            self.known.resize_with(place + 1, || None);
        }
        self.known[place] = Some(Known {
            metric,
            rank: 0,
            station: series.station.clone(),
            tag: series.tag.clone(),
            text: series.text,
            attributes,
        });
    }

    fn rank(&mut self) {
        let metrics = &self.metrics;
        let mut order: Vec<&mut Known> = self.known.iter_mut().flatten().collect();
        // Stable, so that a series that was renumbered comes after what it was.
        order.sort_by(|a, b| {
            let (left, right) = (&metrics[a.metric], &metrics[b.metric]);
            (&left.name, &left.unit, &a.station, &a.tag).cmp(&(&right.name, &right.unit, &b.station, &b.tag))
        });
        for (rank, known) in (0..).zip(order) {
            known.rank = rank;
        }
    }
}

fn readings(entries: &[(Seq, Entry)]) -> impl Iterator<Item = &crate::spool::StoredReading> {
    entries.iter().flat_map(|(_, entry)| match entry {
        Entry::Readings(readings) => readings.as_slice(),
        Entry::Record { .. }
        | Entry::Telemetry(_)
        | Entry::Tick(_)
        | Entry::Deliveries { .. }
        | Entry::Filters { .. } => &[],
    })
}
