//! From what is written to what is meant: names become numbers, stations share links, contradictions are found.

mod anomaly;
mod calendar;
mod context;
mod flow;
mod inspection;
mod late;
mod links;
mod oee;
mod presets;
mod products;
mod reasons;
mod shifts;
mod spc;
mod treat;
mod values;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use gemba_drivers::{TagId, modbus};
use jiff::tz::TimeZone;

pub(super) use self::links::{Agreed, Links};
pub(super) use self::presets::Preset;
pub(super) use self::spc::RuleWord;
use super::error::{Place, Report};
use super::otlp::Compression;
use super::protocols::{Speaks, Tag as RawTag};
use super::raw::{self, Root};
use super::section::{At, Shape};
use super::tree::{Kind, Node};
use super::words::{Name, OneOf, Ucum, is_metric_name};
use super::{Config, Http, Protocol, Secret, Spool, Stage, Station, Tag, Upstream};
use crate::model::spc::ChartSpec;
use crate::model::{ContextSpec, Knowledge};
use crate::spool::Signal;

/// The configuration that `document` means; `None` when anything in it is wrong, which is then reported.
pub(super) fn resolve(mut document: Node, stage: Stage, report: &mut Report) -> Option<Config> {
    if stage == Stage::Draft {
        raw::have_tags(&mut document);
    }
    let document = &document;
    let root = Root::read(document, report)?;
    let http = http(document, root.http, report);
    let upstream = root.upstream.and_then(|section| upstream(section.value, report));
    let spool = spool(document, root.spool, report);
    let trace_sample = trace_sample(document, root.traces, report);
    let shifts = root.shifts.map(|list| shifts::resolve(&list.value, report)).unwrap_or_default();
    let exceptions = root.calendar.map(|days| calendar::resolve(&days.value, &shifts, report)).unwrap_or_default();
    // Where the zone is wrong the configuration is refused: until then any will do.
    let zone = root.timezone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.0.clone());
    let costs = products::costs(root.costs.as_ref());
    let products = root.products.map(|list| products::resolve(&list.value, &zone, root.costs.is_some(), report));
    let known = oee::Line {
        reasons: root.reasons.map(|list| reasons::resolve(&list.value, report)).unwrap_or_default(),
        products: products.unwrap_or_default(),
        costs,
    };

    let line = root.line.map(|name| name.value.0);
    let pki = pki(root.opcua, spool.as_ref());
    let draft = stage == Stage::Draft;
    let mut plant = Plant { line: line.clone(), draft, pki: pki.clone(), known, zone: Some(zone), ..Plant::default() };
    let stations = root.stations?;
    if stations.is_empty() {
        stations.wrong(report, "there is no station; a line has at least one");
        return None;
    }
    for station in &stations.value {
        plant.station(station, report);
    }
    let links = plant.links.finish(report);
    let knowledge = Knowledge { reasons: plant.known.reasons.list, products: plant.known.products };
    // A station that could not be read is not known by name, which is no mistake of the flow.
    let whole = matches!(document.get("stations").map(|node| &node.kind), Some(Kind::List(all)) if all.len() == plant.stations.len());
    let flow = root
        .flow
        .filter(|_| whole)
        .and_then(|flow| flow::resolve(&flow, &plant.stations, &plant.shown, &knowledge, report));
    if whole {
        late::resolve(&stations.value, &mut plant.stations, &plant.shown, flow.as_ref(), report);
    }
    Some(Config {
        site: root.site?.value.0.into(),
        line: line?.into(),
        timezone: root.timezone?.value.0,
        http: http?,
        upstream,
        spool: spool?,
        trace_sample: trace_sample?,
        shifts: shifts.into_iter().map(|planned| planned.spec).collect(),
        exceptions,
        knowledge,
        costs: plant.known.costs,
        flow,
        stations: plant.stations,
        tags: plant.tags,
        links,
        pki,
    })
}

fn http(document: &Node, section: Option<At<raw::Http>>, report: &mut Report) -> Option<Http> {
    let http = match section {
        Some(section) => section.value,
        None => raw::Http::read(&raw::absent(document, "http"), report)?,
    };
    Some(Http { listen: http.listen?.value.0, entries: http.entries?.value.0 })
}

fn trace_sample(document: &Node, section: Option<At<raw::Traces>>, report: &mut Report) -> Option<f64> {
    let traces = match section {
        Some(section) => section.value,
        None => raw::Traces::read(&raw::absent(document, "traces"), report)?,
    };
    Some(traces.sample?.0)
}

fn spool(document: &Node, section: Option<At<raw::Spool>>, report: &mut Report) -> Option<Spool> {
    let spool = match section {
        Some(section) => section.value,
        None => raw::Spool::read(&raw::absent(document, "spool"), report)?,
    };
    Some(Spool {
        path: spool.path?.value.0,
        max_size: spool.max_size?.0,
        keep_free: spool.keep_free?.0,
        sync: spool.sync?.0,
        keep: spool.keep?.0,
    })
}

/// The folder of OPC UA's certificates: what has to outlast a restart stands together.
fn pki(section: Option<At<raw::OpcuaSettings>>, spool: Option<&Spool>) -> PathBuf {
    if let Some(said) = section.and_then(|section| section.value.pki) {
        return said.value.0;
    }
    let beside = spool.and_then(|spool| spool.path.parent()).unwrap_or_else(|| Path::new(""));
    beside.join("pki")
}

/// Headers that say what the body is, or how long, or in which span it is sent: gemba sets them.
const OWN_HEADERS: [&str; 7] =
    ["content-type", "content-encoding", "content-length", "host", "te", "traceparent", "transfer-encoding"];

fn upstream(section: raw::Upstream, report: &mut Report) -> Option<Upstream> {
    let otlp = section.otlp?.value;
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (key, value) in otlp.headers.into_iter().flat_map(|headers| headers.value.0) {
        let name = key.scalar.text.to_lowercase();
        let wrong = if reqwest::header::HeaderName::try_from(&name).is_err() {
            format!("`{}` is no header name", name.escape_debug())
        } else if OWN_HEADERS.contains(&name.as_str()) || name.starts_with("grpc-") {
            format!("`{name}` is set by gemba itself")
        } else if headers.iter().any(|(known, _)| *known == name) {
            format!("the header `{name}` is already set; upper and lower case are the same here")
        } else if reqwest::header::HeaderValue::try_from(&value.value.0).is_err() {
            "the value holds characters that no header may have".to_owned()
        } else {
            headers.push((name, Secret::new(value.value.0)));
            continue;
        };
        report.add(&key.place, &value.origin.path, wrong);
    }
    let endpoint = otlp.endpoint?;
    if let Some(file) = otlp.ca_file.as_ref().filter(|_| endpoint.0.starts_with("http://")) {
        file.wrong(report, "is of no use with an `http://` endpoint; only `https://` checks certificates");
    }
    let protocol = otlp.protocol?.0;
    if protocol == Protocol::Grpc && endpoint.0.split_once("://").is_some_and(|(_, rest)| rest.contains('/')) {
        // Not quoted: it may have been filled in from a secret.
        endpoint.wrong(report, "gRPC has no path: its endpoint ends with the port, as in `http://collector:4317`");
    }
    let signals = signals(&otlp.signals?, report);
    Some(Upstream {
        endpoint: endpoint.value.0,
        protocol,
        gzip: otlp.compression?.0 == Compression::Gzip,
        signals,
        headers,
        timeout: otlp.timeout?.0,
        ca_file: otlp.ca_file.map(|file| file.value.0),
    })
}

fn signals(list: &At<Vec<At<OneOf<Signal>>>>, report: &mut Report) -> Vec<Signal> {
    if list.is_empty() {
        list.wrong(report, "there is no signal; at least one is sent");
    }
    let mut signals = Vec::new();
    for signal in &list.value {
        if signals.contains(&signal.value.0) {
            signal.wrong(report, format!("`{}` is already in the list", signal.origin.shown));
        }
        signals.push(signal.value.0);
    }
    signals
}

/// What is built up station by station.
#[derive(Default)]
struct Plant {
    line: Option<String>,
    /// Stations may have no tags.
    draft: bool,
    pki: PathBuf,
    zone: Option<TimeZone>,
    stations: Vec<Station>,
    tags: Vec<Tag>,
    links: Links,
    names: Names,
    /// The stations' names, for people.
    shown: Vec<Rc<str>>,
    known: oee::Line,
}

/// Names already taken, and where.
#[derive(Default)]
struct Names(HashMap<String, Place>);

impl Names {
    /// Takes `name`, unless it is taken.
    fn take<T>(&mut self, name: &str, at: &At<T>, what: &str, report: &mut Report) {
        if let Some(first) = self.0.get(name) {
            at.wrong(report, format!("`{}` is already the name of {what} at {first}", at.origin.shown));
        } else {
            self.0.insert(name.to_owned(), at.origin.place.clone());
        }
    }
}

/// Which station something belongs to.
pub(super) struct Who {
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    /// For people.
    pub(super) shown: Rc<str>,
}

/// What is known of a tag beside its protocol.
pub(super) struct TagFacts {
    pub(super) id: TagId,
    pub(super) name: String,
    /// For people.
    pub(super) shown: Rc<str>,
    /// Only Modbus says.
    pub(super) data_type: Option<modbus::DataType>,
    pub(super) unit: Option<At<Ucum>>,
}

/// What is known of a station before its protocol has its say.
pub(super) struct Told<'a> {
    pub(super) who: &'a Who,
    /// In the order of its tags.
    pub(super) facts: &'a [TagFacts],
    pub(super) oee: &'a oee::Resolved,
    pub(super) charts: &'a [ChartSpec],
    /// The line's name.
    pub(super) line: Option<&'a str>,
    /// The folder of OPC UA's certificates.
    pub(super) pki: &'a Path,
}

impl Told<'_> {
    /// What `tag` does that only a number can, if so: text is a wrong type for it.
    pub(super) fn numeric(&self, tag: TagId) -> Option<&'static str> {
        if self.oee.counts(tag) {
            return Some("counts");
        }
        self.charts.iter().any(|chart| chart.reads(tag)).then_some("has a control chart")
    }
}

impl Plant {
    fn station(&mut self, station: &At<raw::Station>, report: &mut Report) {
        match &station.value {
            raw::Station::Modbus(raw) => self.station_of(raw, report),
            raw::Station::Opcua(raw) => self.station_of(raw, report),
            raw::Station::Mqtt(raw) => self.station_of(raw, report),
            raw::Station::Gpio(raw) => self.station_of(raw, report),
        }
    }

    fn station_of<P: Speaks>(&mut self, raw: &raw::StationOf<P>, report: &mut Report) {
        let (who, facts) = self.begin(raw, report);
        let oee = oee::resolve(raw.oee.as_ref(), &facts, &self.known, report);
        let charts = spc::resolve(raw.spc.as_ref(), &facts, self.zone.as_ref().unwrap_or(&TimeZone::UTC), report);
        let (line, pki) = (self.line.as_deref(), self.pki.as_path());
        let told = Told { who: &who, facts: &facts, oee: &oee, charts: &charts, line, pki };
        let link = P::join(&mut self.links, raw, &told, report);
        let context = context::resolve(raw.context.as_ref(), &facts, report);
        let tags = raw.tags.as_ref().map_or(&[][..], |tags| tags.value.as_slice());
        let all = tags.iter().flat_map(|tag| parts(&tag.value));
        let options: Vec<_> = all.map(|(tag, _)| tag.treat.as_deref()).collect();
        let inspection = inspection::resolve(
            raw.inspection.as_ref(),
            P::PROTOCOL,
            (&facts, context.product, &self.known.products),
            report,
        );
        let uses = treat::Uses { oee: &oee, context: &context, charts: &charts, inspection: inspection.as_ref() };
        for (tag, treated) in facts.iter().zip(treat::resolve(&options, &facts, &uses, report)) {
            self.tags[tag.id.index()].treat = treated;
        }
        let treated = |tag: TagId| self.tags[tag.index()].treat.as_deref();
        let known = anomaly::Known { facts: &facts, text_tags: &oee.text_tags, treated: &treated };
        let detectors = anomaly::resolve(raw.anomalies.as_ref(), &known, report);
        self.end(who, &facts, oee, context, link);
        if let Some(station) = self.stations.last_mut() {
            station.detectors = detectors;
            station.charts = charts;
            station.max_clock_skew = raw.max_clock_skew.as_ref().map(|most| most.0);
            station.inspection = inspection;
        }
    }

    /// Takes the station's name and its tags' names; numbers the tags.
    fn begin<P: Speaks>(&mut self, station: &raw::StationOf<P>, report: &mut Report) -> (Who, Vec<TagFacts>) {
        let index = self.stations.len();
        if let Some(name) = &station.name {
            self.names.take(&name.value.0, name, "a station", report);
        }
        let shown = station.name.as_ref().map_or_else(|| "".into(), |name| Rc::clone(&name.origin.shown));
        let name = station.name.as_ref().map_or("", |name| name.value.0.as_str()).into();
        let who = Who { index, name, shown };
        let Some(tags) = &station.tags else { return (who, Vec::new()) };
        if tags.is_empty() && !self.draft {
            tags.wrong(report, "there is no tag; a station has at least one");
        }
        let mut names = Names::default();
        let mut metrics = Names::default();
        let mut facts = Vec::with_capacity(tags.len());
        for (RawTag { common: tag, own, .. }, part) in tags.value.iter().flat_map(|tag| parts(&tag.value)) {
            let id = TagId(u32::try_from(self.tags.len()).unwrap_or(u32::MAX));
            if let Some(name) = &tag.name {
                names.take(&format!("{}{part}", name.value.0), name, "a tag of this station", report);
            }
            match (&tag.name, &tag.metric) {
                (_, Some(metric)) => {
                    metrics.take(&format!("{}{part}", metric.value.0), metric, "a metric of this station", report);
                }
                // Of an array once.
                (Some(name), None)
                    if matches!(part.as_str(), "" | ".0")
                        && !is_metric_name(&format!("factory.tag.{}", name.value.0)) =>
                {
                    let fitting: String = name
                        .origin
                        .shown
                        .chars()
                        .map(|c| if c.is_ascii_alphanumeric() || "_.-/".contains(c) { c } else { '_' })
                        .collect();
                    name.wrong(
                        report,
                        format!(
                            "`{}` does not fit into the metric's name, `factory.tag.{0}`; did you mean `{fitting}`? (Or set `metric`.)",
                            name.origin.shown
                        ),
                    );
                }
                _ => {}
            }
            let name = tag.name.as_ref().map_or("", |name: &At<Name>| name.value.0.as_str());
            let shown = tag.name.as_ref().map_or_else(|| "".into(), |name| Rc::clone(&name.origin.shown));
            let name = format!("{name}{part}");
            let shown = if part.is_empty() { shown } else { format!("{shown}{part}").into() };
            facts.push(TagFacts {
                id,
                name: name.clone(),
                shown,
                data_type: P::data_type(own),
                unit: tag.unit.clone(),
            });
            self.tags.push(Tag {
                id,
                station: index,
                name: name.into(),
                unit: tag.unit.as_ref().map(|unit| unit.value.0.as_str().into()),
                metric: tag.metric.as_ref().map(|metric| format!("{}{part}", metric.value.0).into()),
                text: false,
                treat: None,
            });
        }
        (who, facts)
    }

    fn end(&mut self, who: Who, facts: &[TagFacts], oee: oee::Resolved, context: ContextSpec, link: Option<usize>) {
        self.shown.push(Rc::clone(&who.shown));
        for text in oee.text_tags {
            self.tags[text.index()].text = true;
        }
        let end = u32::try_from(self.tags.len()).unwrap_or(u32::MAX);
        let start = facts.first().map_or(end, |tag| tag.id.0);
        // Without a link something was reported, and the configuration is refused.
        self.stations.push(Station {
            name: who.name,
            tags: start..end,
            link: link.unwrap_or_default(),
            oee: oee.spec,
            context,
            detectors: Vec::new(),
            inspection: None,
            max_clock_skew: None,
            charts: Vec::new(),
        });
    }
}

/// The tag as often as it stands for one, each with what follows its name: nothing, or its place in the array.
fn parts<P: Speaks>(tag: &RawTag<P>) -> impl Iterator<Item = (&RawTag<P>, String)> {
    let parts = P::parts(&tag.own);
    let part = move |part: u32| parts.map_or_else(String::new, |_| format!(".{part}"));
    (0..parts.unwrap_or(1)).map(move |place| (tag, part(place)))
}
