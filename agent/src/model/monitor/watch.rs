//! What a station is told to watch, and which tag concerns whom.

use std::sync::Arc;

use gemba_drivers::TagId;

use crate::config::{Station, Tag};
use crate::model::anomaly::DetectorSpec;
use crate::model::inspection::{InspectionSpec, Role, Trigger};
use crate::model::spc::ChartSpec;

/// What a station is told to watch. Nothing of it is state.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// With the names of their tags.
    pub(in crate::model) detectors: Vec<(DetectorSpec, Arc<str>)>,
    pub(super) charts: Vec<ChartSpec>,
    /// With what makes an inspection count: another one is another inspection.
    pub(super) inspection: Option<(InspectionSpec, Arc<str>)>,
    /// The station's first tag.
    first: u32,
    /// By tag; empty where nothing is watched.
    listeners: Vec<Vec<Listener>>,
}

/// Whom a reading concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// By its place.
    Detector(usize),
    /// By its place.
    Chart(usize),
    /// And what the tag tells of it.
    Inspection(Role),
}

impl Watch {
    /// What `station` is told to watch; `tags` are those of all stations.
    #[must_use]
    pub fn new(station: &Station, tags: &[Tag]) -> Self {
        let Station { detectors, charts, inspection, .. } = station;
        let name = |tag: TagId| tags[tag.index()].name.clone();
        let mut watch = Self {
            detectors: detectors.iter().map(|spec| (spec.clone(), name(spec.tag))).collect(),
            charts: charts.clone(),
            inspection: inspection.as_ref().map(|spec| (spec.clone(), counted(spec, name))),
            first: station.tags.start,
            listeners: Vec::new(),
        };
        if !watch.is_empty() {
            watch.listeners = station.tags.clone().map(|tag| watch.concerned(TagId(tag))).collect();
        }
        watch
    }

    /// Whether nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.detectors.is_empty() && self.charts.is_empty() && self.inspection.is_none()
    }

    /// Whether the station inspects.
    #[must_use]
    pub fn inspects(&self) -> bool {
        self.inspection.is_some()
    }

    /// Whether the tag concerns anybody.
    #[must_use]
    pub fn listens(&self, tag: TagId) -> bool {
        !self.listeners(tag).is_empty()
    }

    pub(super) fn listeners(&self, tag: TagId) -> &[Listener] {
        let place = tag.0.checked_sub(self.first).and_then(|place| self.listeners.get(place as usize));
        place.map_or(&[], Vec::as_slice)
    }

    fn concerned(&self, tag: TagId) -> Vec<Listener> {
        let detectors = self.detectors.iter().enumerate().filter(|(_, (spec, _))| spec.tag == tag);
        let charts = self.charts.iter().enumerate().filter(|(_, spec)| spec.reads(tag));
        let roles = self.inspection.iter().flat_map(|(spec, _)| spec.roles_of(tag));
        detectors
            .map(|(place, _)| Listener::Detector(place))
            .chain(charts.map(|(place, _)| Listener::Chart(place)))
            .chain(roles.map(Listener::Inspection))
            .collect()
    }
}

/// What makes an inspection count.
fn counted(spec: &InspectionSpec, name: impl Fn(TagId) -> Arc<str>) -> Arc<str> {
    let tag = match &spec.trigger {
        Trigger::Count(counter) => Some(counter.tag),
        Trigger::Id => spec.id,
        Trigger::Message => spec.verdict.as_ref().map(|verdict| verdict.tag),
    };
    tag.map_or_else(|| "".into(), name)
}
