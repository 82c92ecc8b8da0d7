//! One station: from settled readings to facts, and from facts to shifts and figures.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Loss, Reading, Time, Value};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::model::by_count::Pace;
use crate::model::calendar::Slot;
use crate::model::counter::{Counter, Step, Told};
use crate::model::entry::{Entry, EntryError, MOST_HELD, What};
use crate::model::period::{Count, Period};
use crate::model::plan::Plan;
use crate::model::tally::{self, Tally, ideal_since};
use crate::model::timeline::{Assigned, Blame, Defect, Facts, Made, Timeline, Work};
use crate::model::visit::{self, About};
use crate::model::{Derived, Knowledge, OeeSpec, Product, Reason, State};
use crate::record::{CycleHistogram, KpiPoint, Record, Sums};
use crate::snapshot::KpiView;

/// How long readings wait for those that are still on their way, and a period stays open for them.
pub const LATENESS: Duration = Duration::from_secs(2);

/// How often figures are told upstream, on the wall clock's multiples of it.
pub const KPI_EVERY: Duration = Duration::from_secs(10);

/// A first value whose source time is older than this when it comes is one the device held all along:
/// it counts from its receipt, since nobody watched before.
pub(super) const HELD: Duration = Duration::from_secs(10);

/// While history comes in, what lies behind the last that it told is unknown yet; it is known once nothing more has come
/// for so long, or something live.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long facts and closed periods are held for what may still change them.
const KEEP: Duration = Duration::from_secs(26 * 3600);

/// How many closed periods are held at most while a gap is open that history may fill: a week of three shifts a day.
const MOST_CLOSED: usize = 22;

/// How long facts are held at the longest.
const LONGEST: Duration = Duration::from_secs(9 * 24 * 3600);

/// What a reading means to its station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `oee.state`
    State,
    /// One of the counters.
    Counter(Count),
    /// What is worked on.
    Work(About),
    /// Why it stands: which of the tags that tell reasons.
    Reason(u32),
    /// Nothing that is computed with.
    Other,
}

/// A station, as far as settled readings have told. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// What it keeps beside facts: what the next reading is looked at against.
    core: Core,
    /// What is known.
    facts: Timeline,
    /// Closed periods, oldest first, held for late data.
    closed: VecDeque<Period>,
    /// Every shift that ended by then is closed.
    closed_to: Time,
    /// What the facts came to that are no longer held.
    before: Tally,
    /// What upstream was told. Sums never fall: a late reject holds `good` until the true value passes it.
    told_sums: Sums,
    /// The next instant at which figures are told.
    next_kpi: Time,
    /// Facts that were let go of, in a replay, which has an end.
    #[serde(skip)]
    archive: Option<Timeline>,
}

/// What a reading is looked at against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Core {
    /// The first observation ever.
    first: Option<Time>,
    /// The latest time that something counted from.
    latest: Time,
    /// The source time of the last good state reading.
    told: Option<Time>,
    /// What it said, if the map lacks it: polled again it is no news.
    strange: Option<Value>,
    /// Since when nobody knows the state, because a bad reading said so.
    lost: Option<Time>,
    /// The counters: total, good, reject, rework, energy.
    counters: [Counter; 5],
    /// When the last part was counted; none when the next cycle cannot be told.
    last_part: Option<Time>,
    /// Cycle times, ever.
    cycle: CycleHistogram,
    /// History is coming in.
    catching: Option<Catching>,
    /// The latest time that something live counted from.
    live: Option<Time>,
    /// Where the state follows from parts.
    pace: Pace,
    /// The earliest time that has changed since closed periods were last looked at.
    edited: Option<Time>,
}

/// How far history has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Catching {
    /// The latest source time that it told.
    through: Time,
    /// When it last told something.
    heard: Time,
}

impl Catching {
    /// Where knowledge ends if more may come at `now`.
    fn edge(this: Option<Self>, now: Time) -> Option<Time> {
        this.filter(|held| now.since(held.heard) <= CATCH_UP).map(|held| held.through)
    }
}

/// What a station works with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The station's name.
    pub name: &'a Arc<str>,
    /// What is computed.
    pub spec: &'a OeeSpec,
    /// When it is planned to run.
    pub plan: &'a RefCell<Plan>,
    /// What the whole line knows.
    pub knowledge: &'a Knowledge,
}

impl<'a> Setting<'a> {
    /// What is planned at `at`.
    pub fn slot(self, at: Time) -> Slot {
        self.plan.borrow_mut().slot(at).clone()
    }

    /// Of the clock on the plant's wall.
    pub fn zone(self) -> TimeZone {
        self.plan.borrow().zone().clone()
    }

    /// The reason of this code, if the configuration knows it.
    pub fn reason(self, code: &str) -> Option<&'a Reason> {
        self.knowledge.reasons.iter().find(|reason| &*reason.code == code)
    }

    /// Whether it is said of any product what its material costs.
    pub fn prices_material(self) -> bool {
        self.knowledge.products.iter().any(|product| product.material_cost.is_some())
    }

    /// The product that is worked on, if it is known.
    pub fn product(self, work: Option<&Work>) -> Option<&'a Product> {
        let name = work?.product.as_deref()?;
        self.knowledge.products.iter().find(|product| &*product.name == name)
    }
}

/// A station as it stands at an instant, with all that waits to be settled.
#[derive(Debug)]
pub struct Look<'a> {
    station: &'a Station,
    core: Core,
    end: Timeline,
    state: Option<(State, Time)>,
    now: Time,
}

impl Station {
    /// Archives what it lets go of.
    pub fn keep(&mut self) {
        self.archive.get_or_insert_default();
    }

    /// Takes the archive back: nothing more will be applied.
    pub fn recall(&mut self) {
        if let Some(mut archive) = self.archive.take() {
            archive.go_on(std::mem::take(&mut self.facts));
            self.facts = archive;
        }
    }

    /// Whether anything was observed.
    pub fn has_begun(&self) -> bool {
        self.core.first.is_some()
    }

    /// Applies one settled reading.
    pub fn apply(&mut self, setting: Setting<'_>, role: Role, reading: &Reading, out: &mut Derived) {
        if self.core.first.is_none() {
            let first = first(reading);
            self.closed_to = first;
            self.next_kpi = boundary_from(Time(first.0 + 1));
        }
        self.core.apply(&mut self.facts, setting, role, reading, out);
    }

    /// Everything up to `to` is settled: figures that are due are told, periods that ended are closed.
    pub fn settle(&mut self, setting: Setting<'_>, to: Time, out: &mut Derived) {
        if self.core.first.is_none() {
            return;
        }
        self.core.miss_parts(&mut self.facts, setting, to, out);
        self.tell_due(setting, to, out);
        // Nobody knows yet how a shift ended whose history is coming in.
        if Catching::edge(self.core.catching, to + LATENESS).is_none_or(|edge| edge >= to) {
            self.close(setting, to, out);
        }
    }

    /// What came together is applied: closed periods that it changed are told again.
    pub fn revise(&mut self, setting: Setting<'_>, out: &mut Derived) {
        let Some(edited) = self.core.edited.take() else { return };
        for period in self.closed.iter_mut().filter(|period| period.to > edited) {
            let tally = Tally::of(self.facts.facts(), setting, period.from, period.to);
            if tally != period.tally {
                period.tally = tally;
                period.revision += 1;
                out.closed.push((setting.name.clone(), period.clone()));
            }
        }
    }

    /// Whether there is something that an entry can be said of, with `waiting` to come first: `None` if nothing waits.
    pub fn check(&self, entry: &Entry, waiting: Option<usize>) -> Result<(), EntryError> {
        let station = || entry.station.clone();
        let Some(first) = self.core.first else {
            return waiting.map(|_| ()).ok_or_else(|| EntryError::NothingYet(station()));
        };
        if self.facts.by_hand() + waiting.unwrap_or_default() >= MOST_HELD {
            return Err(EntryError::TooMany(station()));
        }
        match (entry.at(), self.facts.facts().begin()) {
            (at, Some(held)) if held > first && at < held => {
                return Err(EntryError::TooOld { station: station(), at, held });
            }
            _ => {}
        }
        match entry.what {
            What::Reason { to: until, .. } | What::Rejects { at: until, .. } if until < first => {
                Err(EntryError::BeforeFirst { station: station(), first })
            }
            _ => Ok(()),
        }
    }

    /// Applies what somebody told, whose turn it is. Returns false before there is anything to say it of.
    pub fn enter(&mut self, entry: &Entry) -> bool {
        let Some(first) = self.core.first else { return false };
        let at = entry.at().max(first);
        match &entry.what {
            &What::Reason { to, .. } if to <= at => return true,
            What::Reason { to, code, .. } => {
                self.facts.assign(Assigned { from: at, to: *to, code: code.clone() });
            }
            What::Rejects { count, code, .. } => {
                #[expect(clippy::cast_precision_loss, reason = "a million at most")]
                let parts = *count as f64;
                self.facts.reject(Defect { at, code: code.clone(), parts });
            }
            What::Work { product, lot, order, .. } => {
                let news = self.facts.work(at, |work| {
                    product.apply(&mut work.product);
                    lot.apply(&mut work.lot);
                    order.apply(&mut work.order);
                });
                if !news {
                    return true;
                }
            }
            What::Target { takt, .. } => {
                if !self.facts.work(at, |work| work.takt = *takt) {
                    return true;
                }
            }
            // No fact of the station: its detector's to know.
            What::Anomaly { .. } => return true,
        }
        self.core.touch(at);
        true
    }

    /// Tells the figures at `now`, due or not: the agent stops, and nothing waits any more.
    pub fn tell_last(&mut self, setting: Setting<'_>, now: Time, out: &mut Derived) {
        if self.core.first.is_none() {
            return;
        }
        let now = now.max(self.core.latest);
        // What was due before goes first, and no instant is told twice: receivers refuse points out of order.
        self.tell_due(setting, now, out);
        self.tell(setting, now, out);
        self.next_kpi = boundary_from(Time(now.0 + 1));
    }

    /// The station as it stands at `now` with all that is `waiting`, if nothing more is said.
    pub fn look<'a>(
        &self,
        setting: Setting<'_>,
        waiting: impl Iterator<Item = (Role, &'a Reading)> + Clone,
        now: Time,
    ) -> Look<'_> {
        let mut core = self.core.clone();
        // As far back as anything may look.
        let times = waiting.clone().map(|(_, reading)| reading.source_time);
        let counted = core.counters.iter().filter_map(Counter::last_at);
        let since = times.chain(counted).chain(core.last_part).min().unwrap_or(now);
        let mut end = self.facts.end(since);
        let mut unsaid = Derived::default();
        for (role, reading) in waiting {
            core.apply(&mut end, setting, role, reading, &mut unsaid);
        }
        core.miss_parts(&mut end, setting, now, &mut unsaid);
        let state = end.state().map(|span| (span.state, span.from));
        if let Some(edge) = Catching::edge(core.catching, now).filter(|&edge| edge < now) {
            end.say(edge, State::Unknown);
        }
        Look { station: self, core, end, state, now }
    }

    /// Closes the periods that ended by `settled`, and tells their last figures.
    fn close(&mut self, setting: Setting<'_>, settled: Time, out: &mut Derived) {
        for (shift, from, to) in shifts(setting, self.closed_to, settled, self.core.latest) {
            if to > settled {
                break;
            }
            let tally = Tally::of(self.facts.facts(), setting, from, to);
            let period = Period { shift, from, to, tally, closed: true, revision: 0 };
            out.records.push(Record::Kpi(Box::new(KpiPoint {
                station: setting.name.clone(),
                shift: Some(period.shift.clone()),
                time: to,
                figures: Some(period.view(setting.spec).figures),
                since: self.core.first.unwrap_or(to),
                sums: Sums::default(),
            })));
            out.closed.push((setting.name.clone(), period.clone()));
            self.closed.push_back(period);
            self.closed_to = to;
        }
        self.forget(setting, settled);
    }

    /// Lets go of what is older than anything that may still change, or than there is room for.
    fn forget(&mut self, setting: Setting<'_>, settled: Time) {
        let gap = self.core.lost.into_iter().chain(self.core.counters.iter().filter_map(Counter::bad_since)).min();
        let needed = gap.map_or(settled - KEEP, |gap| gap.min(settled - KEEP));
        let old = |period: &Period| period.to <= needed;
        let mut forgotten = None;
        while self.closed.len() > MOST_CLOSED || self.closed.len() > 1 && self.closed.front().is_some_and(old) {
            forgotten = self.closed.pop_front();
        }
        // Where no shift is planned, none closes.
        let until = forgotten.map_or(settled - LONGEST, |period| period.to.max(settled - LONGEST));
        if let Some(begin) = self.facts.facts().begin().filter(|&begin| begin < until) {
            self.before.add(&Tally::of(self.facts.facts(), setting, begin, until));
            if let Some(archive) = &mut self.archive {
                archive.go_on(self.facts.old(until));
            }
            self.facts.forget(until);
        }
    }

    /// Tells the figures at the last due instant before `at`, with all that happened up to that instant and
    /// before anything later changes them.
    fn tell_due(&mut self, setting: Setting<'_>, at: Time, out: &mut Derived) {
        if at <= self.next_kpi {
            return;
        }
        self.next_kpi = boundary_from(at);
        self.tell(setting, self.next_kpi - KPI_EVERY, out);
    }

    fn tell(&mut self, setting: Setting<'_>, at: Time, out: &mut Derived) {
        let look = self.look(setting, std::iter::empty(), at);
        let (shift, kpi) = look.shift(setting);
        let sums = look.sums(setting);
        self.told_sums.raise(sums);
        out.records.push(Record::Kpi(Box::new(KpiPoint {
            station: setting.name.clone(),
            shift,
            time: at,
            figures: kpi.map(|kpi| kpi.figures),
            since: self.core.first.unwrap_or(at),
            sums: self.told_sums.clone(),
        })));
    }
}

impl Look<'_> {
    /// What the machine says, and since when; nothing before the first observation.
    #[must_use]
    pub fn state(&self) -> Option<(State, Time)> {
        self.state
    }

    /// The shift that runs, and its figures so far.
    #[must_use]
    pub fn shift(&self, setting: Setting<'_>) -> (Option<Arc<str>>, Option<KpiView>) {
        let running = setting.slot(self.now).shift;
        let name = running.as_ref().map(|shift| shift.name.clone());
        let from = running.map(|shift| shift.from.max(self.closed_to())).filter(|_| self.core.first.is_some());
        let kpi = from.map(|from| Tally::so_far(self.facts(), setting, from, self.now).view(setting.spec, from));
        (name, kpi)
    }

    /// Since when the sums count.
    #[must_use]
    pub fn since(&self) -> Option<Time> {
        self.core.first
    }

    /// What the sums hold by now; upstream may have been told more of one ([`Sums::raise`]).
    #[must_use]
    pub fn sums(&self, setting: Setting<'_>) -> Sums {
        let mut all = self.station.before.clone();
        if let Some(begin) = self.facts().begin() {
            all.add(&Tally::so_far(self.facts(), setting, begin, self.now));
        }
        Sums {
            good: all.counts.good(setting.spec),
            reject: all.counts.reject(setting.spec),
            rework: all.counts.rework(setting.spec),
            state_time: all.states().collect(),
            downtime: all.reasons().to_vec(),
            cycle: self.core.cycle.clone(),
            energy: setting.spec.energy.as_ref().map(|_| all.energy_j),
        }
    }

    /// The same, and never less than upstream was told.
    #[must_use]
    pub fn told_sums(&self, setting: Setting<'_>) -> Sums {
        let mut sums = self.station.told_sums.clone();
        sums.raise(self.sums(setting));
        sums
    }

    /// The shift that runs at the instant of the look, as far as it was observed.
    pub(super) fn running(&self, setting: Setting<'_>) -> Option<(Arc<str>, Time)> {
        let running = setting.slot(self.now).shift.filter(|_| self.core.first.is_some())?;
        Some((running.name, running.from.max(self.closed_to())))
    }

    /// Every period still held; closed ones first, the last may still run.
    pub fn periods(&self, setting: Setting<'_>) -> impl Iterator<Item = Period> {
        let open = self.core.first.into_iter().flat_map(move |_| {
            shifts(setting, self.closed_to(), self.now, self.core.latest).map(move |(shift, from, to)| {
                let tally = if to > self.now {
                    Tally::so_far(self.facts(), setting, from, self.now)
                } else {
                    Tally::of(self.facts(), setting, from, to)
                };
                Period { shift, from, to, tally, closed: false, revision: 0 }
            })
        });
        self.station.closed.iter().cloned().chain(open)
    }

    /// All that is known, with what waits.
    pub fn facts(&self) -> Facts<'_> {
        self.station.facts.before(&self.end)
    }

    /// The instant it is looked at.
    pub fn now(&self) -> Time {
        self.now
    }

    /// How often the shift of this name and end was revised since it closed; `None` if it is no longer held.
    pub fn revision(&self, shift: &str, to: Time) -> Option<u32> {
        if to > self.closed_to() {
            return Some(0);
        }
        self.station
            .closed
            .iter()
            .find(|period| *period.shift == *shift && period.to == to)
            .map(|period| period.revision)
    }

    /// Where open periods begin.
    fn closed_to(&self) -> Time {
        if self.station.core.first.is_some() { self.station.closed_to } else { self.core.first.unwrap_or_default() }
    }
}

impl Core {
    fn apply(&mut self, facts: &mut Timeline, setting: Setting<'_>, role: Role, reading: &Reading, out: &mut Derived) {
        // What only others work with says no more than that somebody watches.
        if role == Role::Other && self.first.is_some() {
            return;
        }
        // The first observation ever is made here; a device that held its value all along was not observed.
        let first = *self.first.get_or_insert_with(|| {
            let first = first(reading);
            facts.begin(first);
            first
        });
        // Nor may what is not computed with say anything more: it is not always heard.
        if role == Role::Other {
            return;
        }
        let source_time = self.known_till(reading);
        let value = (!reading.validity.is_bad()).then_some(&reading.value);
        // What held before the gap says nothing about the gap, unless history says that it did so till something changed.
        let held_from = |lost: Time| if reading.backfilled { lost } else { reading.received_time };
        match role {
            Role::Other => {}
            Role::State => {
                let Some(value) = value else {
                    let at = source_time.max(first);
                    self.lost.get_or_insert(at);
                    self.enter(facts, setting, State::Unknown, at, out);
                    return;
                };
                let late = self.lost.is_none() && self.told.is_some_and(|told| source_time < told);
                let at = match self.lost {
                    Some(lost) if source_time <= lost => held_from(lost),
                    _ => source_time,
                }
                .max(first);
                let spec = setting.spec.state.as_ref();
                let state = spec.map_or(Some(State::Unknown), |spec| mapped(&spec.map, value));
                let strange = state.is_none().then(|| value.clone());
                if strange.is_some() && (self.strange != strange || self.lost.is_some()) {
                    // A text may be long, and the ledger holds hundreds of reasons.
                    let said: String = value.to_string().chars().take(80).collect();
                    out.losses.push(Loss {
                        source: setting.name.clone(),
                        from: at,
                        to: at,
                        count: 1,
                        reason: format!("state value `{said}` is not in oee.state.map").into(),
                    });
                }
                let state = state.unwrap_or_default();
                if late {
                    self.enter_late(facts, setting, state, at, out);
                    return;
                }
                self.strange = strange;
                self.told = Some(source_time);
                self.lost = None;
                self.enter(facts, setting, state, at, out);
            }
            Role::Reason(tag) => {
                let Some(value) = value else { return };
                let told = setting.spec.reason.as_ref().and_then(|spec| spec.tags.get(tag as usize));
                let Some((_, map)) = told else { return };
                let reason = mapped(map, value).and_then(|reason| setting.knowledge.reasons.get(reason));
                let at = source_time.max(first);
                if facts.blame(Blame { at, tag, code: reason.map(|reason| reason.code.clone()) }) {
                    let window = setting.spec.reason.as_ref().map_or(Duration::ZERO, |spec| spec.first_out);
                    self.touch(facts.stop_before(at).map_or(at - window, |stop| stop.min(at - window)));
                }
            }
            Role::Work(about) => {
                let Some(value) = value else { return };
                let at = source_time.max(first);
                let word = visit::word(value);
                let news = facts.work(at, |work| match about {
                    About::Serial => {}
                    About::Product => work.product = word,
                    About::Lot => work.lot = word,
                    About::Order => work.order = word,
                });
                if news {
                    self.touch(at);
                }
            }
            Role::Counter(count) => match value.and_then(Value::as_f64) {
                Some(value) if value.is_finite() => {
                    let lost = self.counter(count).bad_since().filter(|&bad| source_time <= bad);
                    let at = lost.map_or(source_time, held_from).max(first);
                    let told = Told { source_time, at, backfilled: reading.backfilled };
                    self.count(facts, setting, count, value, told, out);
                }
                _ => {
                    let at = source_time.max(first);
                    self.counter(count).lose(at);
                    if setting.spec.by_count.is_some() && count.is_part(setting.spec) {
                        self.pace.lose();
                        self.enter(facts, setting, State::Unknown, at, out);
                    }
                }
            },
        }
    }

    /// When a reading counts, at the latest when it came. A mark of gemba's own that falls into history (the link was lost
    /// again, the agent was down, the tag is silent) counts from where history had come to.
    fn known_till(&mut self, reading: &Reading) -> Time {
        let at = reading.source_time.min(reading.received_time);
        if reading.backfilled {
            // Sources tell of the past while they go on, too: where the state is known beyond it, nothing is awaited.
            if self.catching.is_none() && self.lost.is_none() && self.live.is_some_and(|live| live >= at) {
                return at;
            }
            let through = self.catching.map_or(at, |held| held.through.max(at));
            self.catching = Some(Catching { through, heard: reading.received_time });
            return at;
        }
        if reading.validity.is_mark() {
            return Catching::edge(self.catching, at).map_or(at, |edge| edge.min(at));
        }
        if !reading.validity.is_bad() {
            self.catching = None;
            self.live = self.live.max(Some(at));
        }
        at
    }

    fn counter(&mut self, count: Count) -> &mut Counter {
        &mut self.counters[count as usize]
    }

    /// Something counts from `at` on.
    fn touch(&mut self, at: Time) {
        self.latest = self.latest.max(at);
        self.edited = Some(self.edited.map_or(at, |edited| edited.min(at)));
    }

    fn enter(&mut self, facts: &mut Timeline, setting: Setting<'_>, state: State, at: Time, out: &mut Derived) {
        // What the source has told of till then stands: the state, and that it still was so.
        let since = facts.state().map(|span| span.from).unwrap_or_default();
        self.say(facts, setting, state, at.max(since).max(self.told.unwrap_or_default()), out);
    }

    /// What comes late changes the time up to what is known of later; but not what the machine has confirmed since.
    fn enter_late(&mut self, facts: &mut Timeline, setting: Setting<'_>, state: State, at: Time, out: &mut Derived) {
        if facts.state_at(at).is_some_and(|held| held.state != state && at < held.confirmed) {
            out.losses.push(Loss {
                source: setting.name.clone(),
                from: at,
                to: at,
                count: 1,
                reason: "a state came too late: later readings had confirmed another one".into(),
            });
            return;
        }
        self.say(facts, setting, state, at, out);
    }

    fn say(&mut self, facts: &mut Timeline, setting: Setting<'_>, to: State, at: Time, out: &mut Derived) {
        self.latest = self.latest.max(at);
        // How a stop ends says what all of it is: how long it lasted, and whether it was a failure.
        let stop = facts.stop_before(at);
        if let Some(from) = facts.say(at, to) {
            self.touch(stop.unwrap_or(at));
            out.records.push(Record::StateChanged { station: setting.name.clone(), time: at, from, to });
        }
    }

    fn count(
        &mut self,
        facts: &mut Timeline,
        setting: Setting<'_>,
        count: Count,
        value: f64,
        told: Told,
        out: &mut Derived,
    ) {
        let spec = match count {
            Count::Total => setting.spec.total.as_ref(),
            Count::Good => setting.spec.good.as_ref(),
            Count::Reject => setting.spec.reject.as_ref(),
            Count::Rework => setting.spec.rework.as_ref(),
            Count::Energy => setting.spec.energy.as_ref().map(|energy| &energy.counter),
        };
        let Some(spec) = spec else { return };
        match self.counter(count).observe(spec, value, told) {
            Step::Late => {}
            Step::Baseline => {
                self.latest = self.latest.max(told.at);
                if count.is_part(setting.spec) {
                    self.pace.begin(told.at);
                }
            }
            Step::Counted { difference, since, at, known } => {
                self.latest = self.latest.max(at);
                let per_cycle = if spec.cycles {
                    let product = setting.product(facts.facts().work(at));
                    product.and_then(|product| product.parts_per_cycle)
                } else {
                    None
                };
                let a_count = match (&setting.spec.energy, count) {
                    (Some(energy), Count::Energy) => energy.joules_per_count,
                    _ => spec.parts_per_count.unwrap_or(1.0) * per_cycle.unwrap_or(1.0),
                };
                let parts = difference * a_count;
                if parts > 0.0 {
                    let same = setting.slot(at).from.max(ideal_since(setting, facts.facts().work(at), at));
                    facts.count(Made { since, at, count, parts, gap: !known }, same);
                    self.touch(at);
                    if count.is_part(setting.spec) {
                        self.keep_pace(facts, setting, (at, parts, known), out);
                        let known = known && facts.facts().seen(since, at);
                        self.cycle(facts, parts, at, known);
                    }
                }
            }
            Step::Quarantined { difference, since, at } => out.losses.push(Loss {
                source: setting.name.clone(),
                from: since,
                to: at,
                count: 1,
                reason: format!("{} counter jumped by {difference}, faster than max_rate", count.word()).into(),
            }),
        }
    }

    /// Where the state follows from parts: the machine ran. After a gap nobody knows what it did before this part.
    fn keep_pace(
        &mut self,
        facts: &mut Timeline,
        setting: Setting<'_>,
        (at, parts, known): (Time, f64, bool),
        out: &mut Derived,
    ) {
        let Some(spec) = &setting.spec.by_count else { return };
        let ideal = tally::ideal(setting, facts.working_on().map(|run| &run.work), at);
        let Some(ideal) = ideal.filter(|_| known) else { return self.pace.begin(at) };
        let since = self.pace.made(spec, ideal, at, parts);
        self.say(facts, setting, State::Producing, since, out);
    }

    /// Where the state follows from parts: by `now` none came for so long that the machine stands.
    fn miss_parts(&mut self, facts: &mut Timeline, setting: Setting<'_>, now: Time, out: &mut Derived) {
        let Some(spec) = &setting.spec.by_count else { return };
        let ideal = tally::ideal(setting, facts.working_on().map(|run| &run.work), now);
        if let Some((since, state)) = ideal.and_then(|ideal| self.pace.stop(spec, ideal, now)) {
            self.say(facts, setting, state, since, out);
        }
    }

    /// The run time since the last part, shared by the parts that came with this count. What comes from before the last part
    /// has no place on that clock any more.
    fn cycle(&mut self, facts: &Timeline, parts: f64, at: Time, known: bool) {
        let last = match self.last_part {
            Some(last) if at < last => {
                self.last_part = None;
                return;
            }
            last => last.filter(|_| known),
        };
        self.last_part = Some(at);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small count")]
        let cycles = if (1.0..1e9).contains(&parts) { parts as u64 } else { 0 };
        if let Some(last) = last {
            #[expect(clippy::cast_precision_loss, reason = "a cycle is short")]
            let seconds = facts.run_time(last, at) as f64 / 1e9 / parts;
            self.cycle.observe(seconds, cycles);
        }
    }
}

/// When the first observation is made; a device that held its value all along was not observed.
fn first(reading: &Reading) -> Time {
    let source_time = reading.source_time.min(reading.received_time);
    let held = reading.received_time.since(source_time) > HELD && !reading.validity.is_bad();
    if held { reading.received_time } else { source_time }
}

/// The shifts that were touched from `since` to `until`, in order: name, from when on they count, end. A shift is touched when
/// some of its time has passed, or something counted in it.
fn shifts(
    setting: Setting<'_>,
    since: Time,
    until: Time,
    latest: Time,
) -> impl Iterator<Item = (Arc<str>, Time, Time)> + use<'_> {
    let mut at = since;
    std::iter::from_fn(move || {
        loop {
            let from = at;
            if from > until || from == until && from > latest {
                return None;
            }
            let slot = setting.slot(at);
            match slot.shift {
                Some(shift) => {
                    at = shift.to;
                    return Some((shift.name, from, shift.to));
                }
                None => at = slot.until,
            }
        }
    })
}

impl Sums {
    /// Holds what it has until `now` has more: no sum ever falls.
    pub(super) fn raise(&mut self, now: Self) {
        for (held, made) in [
            (&mut self.good, now.good),
            (&mut self.reject, now.reject),
            (&mut self.rework, now.rework),
            (&mut self.energy, now.energy),
        ] {
            *held = [*held, made].into_iter().flatten().reduce(f64::max);
        }
        for (state, spent) in now.state_time {
            match self.state_time.iter_mut().find(|(held, _)| *held == state) {
                Some((_, held)) => *held = (*held).max(spent),
                None => self.state_time.push((state, spent)),
            }
        }
        for (reason, planned, spent) in now.downtime {
            match self.downtime.iter_mut().find(|held| (&held.0, held.1) == (&reason, planned)) {
                Some((_, _, held)) => *held = (*held).max(spent),
                None => self.downtime.push((reason, planned, spent)),
            }
        }
        self.cycle = now.cycle;
    }
}

/// What a value stands for; none if the map lacks it.
fn mapped<T: Copy>(map: &[(String, T)], value: &Value) -> Option<T> {
    let found = |text: &str| map.iter().find(|(from, _)| from == text).map(|&(_, meaning)| meaning);
    match value {
        Value::Text(text) => found(text),
        Value::Bool(on) => found(if *on { "true" } else { "false" }).or_else(|| found(if *on { "1" } else { "0" })),
        Value::Int(_) | Value::Float(_) | Value::Null => found(&value.to_string()),
    }
}

/// The first multiple of [`KPI_EVERY`] at or after `at`.
pub(super) fn boundary_from(at: Time) -> Time {
    let step = nanos_i64(KPI_EVERY);
    Time((at.0 - 1).div_euclid(step) * step + step)
}

fn nanos_i64(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "an ideal cycle is far below 2^53 ns")]
pub(super) fn nanoseconds(span: Duration) -> f64 {
    span.as_nanos() as f64
}
