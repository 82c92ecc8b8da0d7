//! The line: its stations, its tags, its loss ledger.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::opcua::Watermark;
use gemba_drivers::{Loss, OwnStatus, Reading, Status, TagId, Time, Validity, Value};

use crate::config::{Config, Source};
use crate::model::calendar::Calendar;
use crate::model::entry::{self, Change, Entry, EntryError, SHOWN, What};
use crate::model::late::{Rejected, Rejection, Witness, WitnessSpec};
use crate::model::ledger::Ledger;
use crate::model::monitor::{self, InspectedShift, Monitor, Watch};
use crate::model::observer::Role;
use crate::model::pending::{Pending, Told};
use crate::model::period::{Count, Period};
use crate::model::plan::Plan;
use crate::model::setting::Setting;
use crate::model::station::{LATENESS, Look, Station};
use crate::model::tally::Tally;
use crate::model::visit::{About, Visits};
use crate::model::window::last_minutes;
use crate::model::{FlowSpec, Knowledge, LateBy, OeeSpec, flow};
use crate::record::{Record, Sums};
use crate::snapshot::{Snapshot, SpoolView, StationView, TagView};

/// What applying readings gave.
#[derive(Debug, Default)]
pub struct Derived {
    /// For upstream, in order.
    pub records: Vec<Record>,
    /// For the ledger; [`Line`] enters them itself and adds their records.
    pub(super) losses: Vec<Loss>,
    /// Periods that have just closed, or were revised since, with their station.
    pub closed: Vec<(Arc<str>, Period)>,
    /// Shifts of inspections that are let go of, as they stood last.
    pub inspected: Vec<InspectedShift>,
    /// What the station that is being settled rejects.
    pub(super) rejections: Vec<Rejection>,
}

/// The line as far as readings have told. See the module's head for what it never does.
#[derive(Debug)]
pub struct Line {
    /// How parts flow through the stations.
    pub(super) flow: Option<FlowSpec>,
    /// The slots of the plan, worked out once.
    pub(super) plan: RefCell<Plan>,
    pub(super) knowledge: Knowledge,
    pub(super) stations: Vec<StationOf>,
    pub(super) tags: Vec<TagOf>,
    pub(super) ledger: Ledger,
    /// What upstream was told of the line as a whole.
    pub(super) told: flow::Told,
    /// The last that people told, oldest first.
    pub(super) entries: VecDeque<Arc<Entry>>,
    /// Reused from batch to batch: which stations it tells something of that is computed with.
    due: Vec<usize>,
    /// Likewise: which of its readings tell of serial, product or lot, by station.
    context: Vec<(usize, About, usize)>,
}

/// A station and what it works with.
#[derive(Debug)]
pub(super) struct StationOf {
    pub(super) name: Arc<str>,
    link: usize,
    pub(super) tags: std::ops::Range<u32>,
    pub(super) spec: Option<OeeSpec>,
    pub(super) station: Station,
    /// What is computed with, and is not settled yet.
    pub(super) pending: Pending,
    pub(super) visits: Visits,
    watch: Watch,
    pub(super) monitor: Monitor,
    /// How it tells what it rejects of other stations' parts, if it is asked.
    witness_spec: Option<WitnessSpec>,
    pub(super) witness: Witness,
    /// What it has rejected since it was settled last, and whose it was, by index.
    rejected: Vec<(usize, Rejected)>,
    /// By index, the stations to be settled before it: those whose rejects count here, and theirs.
    before: Vec<usize>,
    /// What the page was last told of the sums: a scrape, too, must never see one fall.
    shown: Sums,
}

/// A tag: what it means, and the last that was said of it.
#[derive(Debug)]
pub(super) struct TagOf {
    pub(super) name: Arc<str>,
    unit: Option<Arc<str>>,
    pub(super) station: usize,
    pub(super) role: Role,
    about: Option<About>,
    pub(super) value: Value,
    pub(super) validity: Validity,
    /// The last text, kept while the tag is bad, so that a change is told against it.
    pub(super) text: Option<Arc<str>>,
    times: Option<(Time, Time)>,
    /// The source time of the last word of its device that is shown, or was before gemba said that the link is lost or
    /// silent: what history tells of an earlier time is not shown.
    shown: Option<Time>,
    /// History can be asked for what it missed.
    historic: bool,
    /// The last value that its device told: what came after it can be asked for, or is known to be missing.
    pub(super) told: Option<Watermark>,
}

/// A period with its station.
#[derive(Clone, Debug)]
pub struct PeriodOf {
    /// Index of the station in the configuration.
    pub station: usize,
    /// The station's name.
    pub name: Arc<str>,
    /// The period.
    pub period: Period,
}

/// What a tag is before anything came.
pub(super) const NOTHING_YET: Validity = Validity::Bad(Status::Own(OwnStatus::NoData));

impl Line {
    /// A line that has seen nothing yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let stations = config.stations.iter().enumerate().map(|(index, station)| {
            let watch = Watch::new(station, &config.tags);
            StationOf {
                name: station.name.clone(),
                link: station.link,
                tags: station.tags.clone(),
                spec: station.oee.clone(),
                station: Station::default(),
                pending: Pending::default(),
                visits: Visits::default(),
                monitor: Monitor::new(&watch),
                watch,
                witness_spec: WitnessSpec::of(index, &config.stations),
                witness: Witness::default(),
                rejected: Vec::new(),
                before: before(index, &config.stations),
                shown: Sums::default(),
            }
        });
        let tags = config.tags.iter().map(|tag| TagOf {
            name: tag.name.clone(),
            unit: tag.unit.clone(),
            station: tag.station,
            role: role(&config.stations[tag.station], tag.id),
            about: config.stations[tag.station].context.about(tag.id),
            value: Value::Null,
            validity: NOTHING_YET,
            text: None,
            times: None,
            shown: None,
            historic: historic(config, tag.station),
            told: None,
        });
        Self {
            plan: RefCell::new(Plan::new(Calendar::new(
                config.timezone.clone(),
                config.shifts.clone(),
                config.exceptions.clone(),
            ))),
            knowledge: config.knowledge.clone(),
            flow: config.flow.clone(),
            stations: stations.collect(),
            tags: tags.collect(),
            ledger: Ledger::default(),
            told: flow::Told::default(),
            entries: VecDeque::new(),
            due: Vec::new(),
            context: Vec::new(),
        }
    }

    /// Applies readings that arrived together. What is computed with waits for what may come before it, and is settled in
    /// order of source times, those of one instant in the order they came ([`Pending`]).
    pub fn apply(&mut self, readings: &[Reading], out: &mut Derived) {
        self.due.clear();
        self.context.clear();
        for (place, reading) in readings.iter().enumerate() {
            let Some(tag) = self.tags.get_mut(reading.tag.index()) else { continue };
            let station = &mut self.stations[tag.station];
            tag.note(&station.name, reading, out);
            // Anything may be the station's first observation.
            let computed = station.spec.is_some() && (tag.role != Role::Other || !station.station.has_begun());
            let witnessed = || station.witness_spec.as_ref().is_some_and(|spec| spec.listens(reading.tag));
            if computed || station.watch.listens(reading.tag) || witnessed() {
                station.pending.take(reading.clone(), tag.counts());
                if self.due.last() != Some(&tag.station) {
                    self.due.push(tag.station);
                }
            }
            if let Some(about) = tag.about {
                self.context.push((tag.station, about, place));
            }
        }
        if let Some(now) = readings.iter().map(|reading| reading.received_time).max() {
            let due = std::mem::take(&mut self.due);
            self.settle(due.iter().copied(), now - LATENESS, out);
            self.due = due;
        }
        // In order of station and then of arrival: the sort is stable. What history tells of one instant came together then.
        let together = |&(station, _, place): &(usize, About, usize)| {
            let reading = &readings[place];
            (station, !reading.backfilled, reading.backfilled.then_some(reading.source_time))
        };
        self.context.sort_by_key(together);
        for told in self.context.chunk_by(|a, b| together(a) == together(b)) {
            let StationOf { name, visits, .. } = &mut self.stations[told[0].0];
            visits.apply(name, told.iter().map(|&(_, about, place)| (about, &readings[place])), out);
        }
        self.enter_losses(out);
    }

    /// The next turn of what waits to be settled.
    #[must_use]
    pub fn turn(&self) -> Option<Time> {
        self.stations.iter().filter_map(|of| of.pending.turn(Time(i64::MAX))).min()
    }

    /// Time has come to `now`: what is settled by then is applied, figures that are due are told, shifts that ended are closed.
    pub fn advance(&mut self, now: Time, out: &mut Derived) {
        self.plan.borrow_mut().forget(now - Duration::from_secs(30 * 86_400));
        self.settle(0..self.stations.len(), now - LATENESS, out);
        self.tell_flow(now - LATENESS, out);
        self.enter_losses(out);
    }

    /// Settles stations, each after those whose rejects count there: so what these rejected has its turn among the readings
    /// there, whoever was heard first.
    fn settle(&mut self, due: impl Iterator<Item = usize>, settled: Time, out: &mut Derived) {
        self.settle_before(due, (settled, settled), out);
    }

    /// The same of the turns before `end`, and then that time has come to `settled`.
    fn settle_before(&mut self, due: impl Iterator<Item = usize>, (end, settled): (Time, Time), out: &mut Derived) {
        let Self { plan, knowledge, stations, tags, .. } = self;
        for station in due {
            for place in 0..=stations[station].before.len() {
                let next = stations[station].before.get(place).copied().unwrap_or(station);
                stations[next].settle_before(plan, knowledge, tags, (end, settled), out);
                for (maker, rejected) in std::mem::take(&mut stations[next].rejected) {
                    stations[maker].pending.reject(rejected);
                }
            }
        }
    }

    /// Settles all that waits, and tells every station's figures at `now`, due or not: the agent stops.
    pub fn tell_last(&mut self, now: Time, out: &mut Derived) {
        // Nothing is on its way: that of `now` is settled, too.
        self.settle_before(0..self.stations.len(), (Time(now.0.saturating_add(1)), now), out);
        let Self { plan, knowledge, stations, .. } = self;
        for of in stations {
            let StationOf { name, spec, station, watch, monitor, .. } = of;
            if let Some(spec) = spec {
                let inspects = watch.inspects();
                station.tell_last(Setting { name, spec, plan, knowledge, inspects }, now, out);
            }
            let watching = monitor::Setting { station: name, watch, plan };
            monitor.tell_last(watching, station.told_codes(), now, out);
        }
        self.tell_last_flow(now, out);
        self.enter_losses(out);
    }

    /// Nothing more comes: settles all that waits, up to `now`.
    pub fn settle_all(&mut self, now: Time, out: &mut Derived) {
        self.settle_before(0..self.stations.len(), (Time(now.0.saturating_add(1)), now), out);
        self.enter_losses(out);
    }

    /// Enters what was lost outside the model.
    pub fn lose(&mut self, loss: Loss, out: &mut Derived) {
        out.records.push(self.ledger.enter(loss));
    }

    /// Takes what somebody told. It is applied when its turn comes among readings, [`LATENESS`] later, and closed shifts that
    /// it changes are told again then. `out` has its record, which makes it durable.
    ///
    /// # Errors
    /// What is wrong with it; then nothing is changed.
    pub fn enter(&mut self, entry: impl Into<Arc<Entry>>, out: &mut Derived) -> Result<(), EntryError> {
        let entry = entry.into();
        let of = self.check(&entry)?;
        self.stations[of].pending.enter(entry.clone());
        self.entries.push_back(entry.clone());
        while self.entries.len() > SHOWN {
            self.entries.pop_front();
        }
        out.records.push(Record::Entered(entry));
        Ok(())
    }

    /// Whether [`Line::enter`] would take it. Returns the place of its station.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, entry: &Entry) -> Result<usize, EntryError> {
        let index = entry::station(&entry.station, self.stations.iter().map(|of| &*of.name))?;
        let of = &self.stations[index];
        entry.check(&self.knowledge, of.watch.detectors.iter().map(|(spec, _)| &*spec.name))?;
        if let What::Anomaly { tag, detector, began, verdict } = &entry.what {
            // Tried on a copy: entries are rare.
            of.monitor.clone().judge(tag, detector, *began, *verdict)?;
            return Ok(index);
        }
        if of.spec.is_none() {
            return Err(EntryError::NoFigures(of.name.clone()));
        }
        let waits = !of.pending.is_empty();
        of.station.check(entry, waits.then(|| of.pending.entries().count()))?;
        Ok(index)
    }

    /// The last that people told, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    /// One bad reading for each tag, from `at` on: nobody was watching. A station that was never heard of begins with what it
    /// tells, not with this.
    pub fn unwatched(&self, at: Time, now: Time) -> impl Iterator<Item = Reading> + '_ {
        let status = Status::Own(OwnStatus::AgentDown);
        let heard = |of: &StationOf| of.spec.is_none() || of.station.has_begun() || !of.pending.is_empty();
        let tags = (0..).zip(&self.tags).filter(move |(_, tag)| heard(&self.stations[tag.station]));
        tags.map(move |(tag, _)| Reading::bad(TagId(tag), status, at, now))
    }

    /// The line as it stands at `now`, for those outside; what came in is the pipeline's to count. Sums never fall from one snapshot to the next; what was shown
    /// changes nothing of what upstream is told.
    #[must_use]
    pub fn snapshot(&mut self, now: Time, spool: SpoolView) -> Snapshot {
        // Each station is looked at once, whether the line as a whole asks or its own figures.
        let mut of_flow = self.looks(now);
        let flow = self.flow_by(&of_flow, now);
        let mut views = Vec::with_capacity(self.stations.len());
        for (index, of) in self.stations.iter().enumerate() {
            let place = self.flow.as_ref().and_then(|flow| flow.stations.iter().position(|&of| of == index));
            let look = match place {
                Some(place) => of_flow[place].take(),
                None => self.look(index, now),
            };
            views.push(of.view(&self.plan, &self.tags, look, now));
        }
        for (of, view) in self.stations.iter_mut().zip(&mut views) {
            of.show(view);
        }
        Snapshot {
            time: now,
            flow,
            stations: views,
            losses: self.ledger.newest().cloned().collect(),
            entries: self.entries.iter().rev().cloned().collect(),
            loss_totals: self.ledger.totals().collect(),
            spool,
            ..Snapshot::default()
        }
    }

    /// Every period still held, as it stands at `now`.
    #[must_use]
    pub fn periods(&self, now: Time) -> Vec<PeriodOf> {
        let mut all = Vec::new();
        for (index, of) in self.stations.iter().enumerate() {
            let Some((look, setting)) = of.look(&self.plan, &self.knowledge, &self.tags, now) else { continue };
            let periods = look.periods(setting);
            all.extend(periods.map(|period| PeriodOf { station: index, name: of.name.clone(), period }));
        }
        all
    }

    /// Keeps every fact, for a replay, which has an end: an agent lets go of what nothing may change any more.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.stations.iter_mut().for_each(|of| of.station.keep());
        self
    }

    /// Has all that [`Line::keeping`] kept at hand, for windows and explanations; nothing more is to be applied.
    pub fn recall(&mut self) {
        self.stations.iter_mut().for_each(|of| of.station.recall());
    }

    /// The station at `index` as it stands at `now`; nothing without `oee:`.
    pub(super) fn look(&self, index: usize, now: Time) -> Option<(Look<'_>, Setting<'_>)> {
        self.stations.get(index)?.look(&self.plan, &self.knowledge, &self.tags, now)
    }

    /// The index of the station of this name.
    #[must_use]
    pub fn station(&self, name: &str) -> Option<usize> {
        self.stations.iter().position(|of| *of.name == *name)
    }

    /// Every shift of an inspection that is still held, as it stands at `now`.
    #[must_use]
    pub fn inspected(&self, now: Time) -> Vec<InspectedShift> {
        self.stations.iter().flat_map(|of| of.monitor.shifts(of.watching(&self.plan), now)).collect()
    }

    /// What is computed for the station at `index`.
    #[must_use]
    pub fn spec(&self, index: usize) -> Option<&OeeSpec> {
        self.stations.get(index)?.spec.as_ref()
    }

    /// The last value that each tag's device told, where its history can be asked for the rest.
    pub fn told(&self) -> impl Iterator<Item = (TagId, Watermark)> + '_ {
        (0..).zip(&self.tags).filter_map(|(tag, of)| of.told.map(|told| (TagId(tag), told)))
    }

    /// The station that a tag belongs to.
    #[must_use]
    pub fn station_of(&self, tag: TagId) -> Arc<str> {
        self.stations[self.tags[tag.index()].station].name.clone()
    }

    /// Whether the tag has told text.
    #[must_use]
    pub fn tells_text(&self, tag: TagId) -> bool {
        self.tags[tag.index()].text.is_some()
    }

    /// The newest losses, newest first.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.ledger.newest()
    }

    fn enter_losses(&mut self, out: &mut Derived) {
        for loss in std::mem::take(&mut out.losses) {
            self.lose(loss, out);
        }
    }
}

impl StationOf {
    /// Settles the turns before `end`, and then that time has come to `settled`.
    fn settle_before(
        &mut self,
        plan: &RefCell<Plan>,
        knowledge: &Knowledge,
        tags: &[TagOf],
        (end, settled): (Time, Time),
        out: &mut Derived,
    ) {
        let Self { name, spec, station, pending, watch, monitor, witness_spec, witness, rejected, .. } = self;
        let witness_spec = &*witness_spec;
        // At once: whose it was must not depend on what else is settled now.
        let judge = |witness: &Witness, rejections: &mut Vec<Rejection>, rejected: &mut Vec<(usize, Rejected)>| {
            for rejection in rejections.drain(..) {
                rejected.extend(witness_spec.iter().flat_map(|spec| witness.judge(spec, &rejection)));
            }
        };
        let inspects = watch.inspects();
        let by_count = witness_spec.as_ref().is_some_and(|spec| !spec.inspects());
        let setting = spec.as_ref().map(|spec| Setting { name, spec, plan, knowledge, inspects });
        let watching = monitor::Setting { station: name, watch, plan };
        while let Some(turn) = pending.turn(end) {
            if let Some(setting) = setting {
                station.settle(setting, turn, out);
            }
            monitor.settle_due(watching, station.told_codes(), turn, out);
            for told in pending.settle(turn) {
                match told {
                    Told::Reading(reading) => {
                        if let Some(spec) = witness_spec {
                            witness.observe(spec, &reading);
                        }
                        if let Some(setting) = setting {
                            let counted = station.apply(setting, tags[reading.tag.index()].role, &reading, out);
                            let reject = counted.filter(|counted| counted.count == Count::Reject);
                            out.rejections.extend(reject.filter(|_| by_count).map(|of| of.rejection(turn)));
                        }
                        monitor.observe(watching, &reading, out);
                        judge(witness, &mut out.rejections, rejected);
                    }
                    Told::Rejected(rejected) => {
                        if let Some(setting) = setting {
                            station.reject(setting, *rejected, out);
                        }
                    }
                    Told::Entry(entry) => {
                        let applied = match &entry.what {
                            What::Anomaly { tag, detector, began, verdict } => {
                                monitor.judge(tag, detector, *began, *verdict).is_ok()
                            }
                            What::Work { product, .. } => {
                                match product {
                                    Change::Left => {}
                                    Change::Cleared => monitor.make(None),
                                    Change::Set(name) => monitor.make(Some(name.clone())),
                                }
                                station.enter(&entry)
                            }
                            _ => station.enter(&entry),
                        };
                        // Only where the clock was set back since, or the anomaly was let go meanwhile.
                        if !applied {
                            out.losses.push(Loss {
                                source: name.clone(),
                                from: entry.at(),
                                to: entry.at(),
                                count: 1,
                                reason: "an entry came when there was nothing to say it of".into(),
                            });
                        }
                    }
                }
            }
            if let Some(setting) = setting {
                station.revise(setting, out);
            }
        }
        if let Some(setting) = setting {
            station.settle(setting, settled, out);
        }
        monitor.settle(watching, station.told_codes(), settled, out);
        judge(witness, &mut out.rejections, rejected);
    }

    /// The same of what is settled only.
    pub(super) fn settled<'a>(
        &'a self,
        plan: &'a RefCell<Plan>,
        knowledge: &'a Knowledge,
        at: Time,
    ) -> Option<(Look<'a>, Setting<'a>)> {
        let inspects = self.watch.inspects();
        let setting = Setting { name: &self.name, spec: self.spec.as_ref()?, plan, knowledge, inspects };
        Some((self.station.look(setting, std::iter::empty(), at), setting))
    }

    /// The station as it stands at `now`; nothing without `oee:`.
    fn look<'a>(
        &'a self,
        plan: &'a RefCell<Plan>,
        knowledge: &'a Knowledge,
        tags: &[TagOf],
        now: Time,
    ) -> Option<(Look<'a>, Setting<'a>)> {
        let inspects = self.watch.inspects();
        let setting = Setting { name: &self.name, spec: self.spec.as_ref()?, plan, knowledge, inspects };
        let waiting = self.pending.iter().map(|reading| (tags[reading.tag.index()].role, reading));
        Some((self.station.look(setting, waiting, now), setting))
    }

    fn watching<'a>(&'a self, plan: &'a RefCell<Plan>) -> monitor::Setting<'a> {
        monitor::Setting { station: &self.name, watch: &self.watch, plan }
    }

    fn view(
        &self,
        plan: &RefCell<Plan>,
        tags: &[TagOf],
        look: Option<(Look<'_>, Setting<'_>)>,
        now: Time,
    ) -> StationView {
        let mut view = StationView {
            name: self.name.clone(),
            link: self.link,
            state: None,
            state_since: None,
            shift: None,
            kpi: None,
            rolling: None,
            sums: None,
            tags: tags[self.tags.start as usize..self.tags.end as usize].iter().map(TagOf::view).collect(),
            anomalies: self.monitor.detectors(self.watching(plan)),
            charts: self.monitor.charts(self.watching(plan)),
            inspection: self.monitor.inspection(self.watching(plan), now),
        };
        if let Some((look, setting)) = look {
            let state = look.state();
            view.state = Some(state.map_or(crate::model::State::Unknown, |(state, _)| state));
            view.state_since = state.map(|(_, since)| since);
            (view.shift, view.kpi) = look.shift(setting);
            view.rolling = setting.spec.rolling.and_then(|length| {
                let (_, stretch) = last_minutes(&look, setting, look.facts().begin()?, Some(length));
                let tally = Tally::within(look.facts(), setting, stretch);
                Some((stretch.to, tally.view(setting.spec, stretch.from)))
            });
            view.sums = look.since().map(|since| (since, look.told_sums(setting)));
        }
        view
    }

    /// No sum of it is less than it was shown before.
    fn show(&mut self, view: &mut StationView) {
        if let Some((_, sums)) = &mut view.sums {
            self.shown.raise(std::mem::take(sums));
            sums.clone_from(&self.shown);
        }
    }
}

impl TagOf {
    /// What it tells is counted, so that all that is told of the same instant holds for it.
    pub(super) fn counts(&self) -> bool {
        matches!(self.role, Role::Counter(_))
    }

    /// Remembers a reading and tells what changed.
    fn note(&mut self, station: &Arc<str>, reading: &Reading, out: &mut Derived) {
        // History says what was, and the page what is.
        let past = reading.backfilled && self.shown.is_some_and(|shown| reading.source_time < shown);
        if !past {
            self.show(station, reading, out);
        }
        if let Value::Text(text) = &reading.value
            && (past || self.text.as_ref() != Some(text))
        {
            // What it was before a moment of the past is not known here.
            let from = if past { None } else { self.text.replace(text.clone()) };
            out.records.push(Record::TagChanged {
                station: station.clone(),
                tag: self.name.clone(),
                time: reading.source_time,
                from,
                to: text.clone(),
            });
        }
        if self.historic && !reading.validity.is_bad() {
            self.told = Some(self.watermark(reading));
        }
    }

    /// By the source's own clock, and never back. A value that has no time of it, or none to be believed, leaves no place in
    /// history to go on from: what came before it was told, by another clock.
    fn watermark(&self, reading: &Reading) -> Watermark {
        let dated = reading.source_time != reading.received_time
            && reading.validity != Validity::Uncertain(Status::Own(OwnStatus::ClockSkew));
        match self.told {
            _ if !dated => Watermark::Undated(reading.received_time),
            Some(Watermark::Dated(told)) => Watermark::Dated(told.max(reading.source_time)),
            _ => Watermark::Dated(reading.source_time),
        }
    }

    fn show(&mut self, station: &Arc<str>, reading: &Reading, out: &mut Derived) {
        if reading.validity != self.validity {
            // A first good reading is no change of anything.
            if !(self.validity == NOTHING_YET && reading.validity == Validity::Good) {
                out.records.push(Record::ValidityChanged {
                    station: station.clone(),
                    tag: self.name.clone(),
                    time: reading.source_time,
                    from: self.validity,
                    to: reading.validity,
                });
            }
            self.validity = reading.validity;
        }
        self.value.clone_from(&reading.value);
        self.times = Some((reading.source_time, reading.received_time));
        match reading.validity {
            // History is of another clock.
            Validity::Uncertain(Status::Own(OwnStatus::ClockSkew)) => self.shown = None,
            // Dated by gemba itself: the device says nothing, or cannot be asked for this tag.
            Validity::Bad(_) if reading.validity.is_mark() || reading.source_time == reading.received_time => {}
            _ => self.shown = Some(reading.source_time),
        }
    }

    fn view(&self) -> TagView {
        TagView {
            name: self.name.clone(),
            unit: self.unit.clone(),
            value: self.value.clone(),
            validity: self.validity,
            source_time: self.times.map(|(source, _)| source),
            received_time: self.times.map(|(_, received)| received),
        }
    }
}

/// Only what OPC UA servers tell can be asked for again.
fn historic(config: &Config, station: usize) -> bool {
    let link = config.stations.get(station).and_then(|station| config.links.get(station.link));
    link.is_some_and(|link| matches!(link.source, Source::Opcua(_)))
}

/// The stations to be settled before the one at `index`, in that order: those whose rejects count there come last.
fn before(index: usize, stations: &[crate::config::Station]) -> Vec<usize> {
    let mut all = Vec::new();
    put_before(index, stations, &mut all);
    all
}

/// Each station once, after those before it: where all take rejects of all that come later, there are more ways than could
/// ever be gone.
fn put_before(index: usize, stations: &[crate::config::Station], all: &mut Vec<usize>) {
    for late in stations[index].oee.iter().flat_map(|oee| &oee.late) {
        if !all.contains(&late.from) {
            put_before(late.from, stations, all);
            all.push(late.from);
        }
    }
}

fn role(station: &crate::config::Station, tag: TagId) -> Role {
    let Some(oee) = &station.oee else { return Role::Other };
    let counts = |counter: &Option<crate::model::CounterSpec>| counter.as_ref().is_some_and(|spec| spec.tag == tag);
    if oee.state.as_ref().is_some_and(|state| state.tag == tag) {
        Role::State
    } else if counts(&oee.total) {
        Role::Counter(Count::Total)
    } else if counts(&oee.good) {
        Role::Counter(Count::Good)
    } else if counts(&oee.reject) {
        Role::Counter(Count::Reject)
    } else if counts(&oee.rework) {
        Role::Counter(Count::Rework)
    } else if oee.energy.as_ref().is_some_and(|energy| energy.counter.tag == tag) {
        Role::Counter(Count::Energy)
    } else if let Some(place) = oee.reason.as_ref().and_then(|spec| spec.tags.iter().position(|(of, _)| *of == tag)) {
        Role::Reason(u32::try_from(place).unwrap_or(u32::MAX))
    } else {
        match station.context.about(tag) {
            Some(about @ (About::Product | About::Lot | About::Order)) => Role::Work(about),
            Some(About::Serial) if oee.late.iter().any(|late| late.by == LateBy::Serial) => Role::Unit,
            Some(About::Serial) | None => Role::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LateSpec;
    use crate::model::tests::{config, oee};

    /// Each of forty takes rejects of all that come later: 2^38 ways from the first to the last.
    #[test]
    fn stations_that_all_ask_all_others_are_settled_once_each() {
        let mut config = config(oee(1.0), Vec::new());
        let station = config.stations[0].clone();
        config.stations = (0..40)
            .map(|index| {
                let late = |from| LateSpec {
                    from,
                    station: format!("s{from}").into(),
                    by: LateBy::Serial,
                    within: Duration::from_secs(3600),
                };
                let oee = OeeSpec { late: (index + 1..40).map(late).collect(), ..oee(1.0) };
                crate::config::Station { name: format!("s{index}").into(), oee: Some(oee), ..station.clone() }
            })
            .collect();
        assert_eq!(before(0, &config.stations), (1..40).rev().collect::<Vec<_>>());
    }
}
