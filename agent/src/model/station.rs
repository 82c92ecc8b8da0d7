//! One station: from settled readings to facts, and from facts to shifts and figures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Reading, Time};
use serde::{Deserialize, Serialize};

use crate::model::codes;
use crate::model::counter::Counter;
use crate::model::entry::{Entry, EntryError, MOST_HELD, What};
use crate::model::late::{Late, Rejected};
use crate::model::memo::Memo;
use crate::model::observer::{Catching, Counted, Observer, Role, first};
use crate::model::period::{Count, Period};
use crate::model::setting::Setting;
use crate::model::startup;
use crate::model::tally::Tally;
use crate::model::timeline::{Assigned, Defect, Facts, Timeline};
use crate::model::window::Stretch;
use crate::model::{Derived, State};
use crate::record::{Beside, KpiPoint, Record, Sums};
use crate::snapshot::KpiView;

/// How long readings wait for those that are still on their way, and a period stays open for them.
pub const LATENESS: Duration = Duration::from_secs(2);

/// How often figures are told upstream, on the wall clock's multiples of it.
pub const KPI_EVERY: Duration = Duration::from_secs(10);

/// How long facts and closed periods are held for what may still change them.
const KEEP: Duration = Duration::from_secs(26 * 3600);

/// How many closed periods are held at most while a gap is open that history may fill: a week of three shifts a day.
const MOST_CLOSED: usize = 22;

/// How long facts are held at the longest.
const LONGEST: Duration = Duration::from_secs(9 * 24 * 3600);

/// A station, as far as settled readings have told. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// What it keeps beside facts: what the next reading is looked at against.
    observer: Observer,
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
    /// What later stations rejected, where they are asked.
    late: Option<Box<Late>>,
    /// Sums of hours that are over.
    #[serde(skip)]
    memo: Memo,
    /// Facts that were let go of, in a replay, which has an end.
    #[serde(skip)]
    archive: Option<Timeline>,
}

/// A station as it stands at an instant, with all that waits to be settled.
#[derive(Debug)]
pub struct Look<'a> {
    station: &'a Station,
    observer: Observer,
    end: Timeline,
    state: Option<(State, Time)>,
    /// What ends by then is as the last look found it.
    stable: Time,
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
            self.memo = Memo::default();
        }
    }

    /// A counter is another tag now: its next reading is its first.
    pub fn begin_count(&mut self, count: Count) {
        self.observer.counters[count as usize] = Counter::default();
    }

    /// Whether anything was observed.
    pub fn has_begun(&self) -> bool {
        self.observer.first.is_some()
    }

    /// What upstream was told of what people rejected, by code.
    pub fn told_codes(&self) -> &[(Arc<str>, u64)] {
        &self.told_sums.defects
    }

    /// Applies one settled reading. Returns what a counter added.
    pub fn apply(&mut self, setting: Setting<'_>, role: Role, reading: &Reading, out: &mut Derived) -> Option<Counted> {
        if self.observer.first.is_none() {
            let first = first(reading);
            self.closed_to = first;
            self.next_kpi = boundary_from(Time(first.0.saturating_add(1)));
        }
        self.observer.apply(&mut self.facts, setting, role, reading, out);
        let (counted, moved) = (self.observer.counted.take(), std::mem::take(&mut self.observer.moved));
        if !setting.spec.late.is_empty() {
            let late = self.late.get_or_insert_default();
            match (role, counted) {
                (Role::Unit, _) => late.tell(reading),
                _ if moved => late.work(),
                (_, Some(Counted { count, at, .. })) if count.is_part(setting.spec) => late.count(at),
                _ => {}
            }
        }
        counted
    }

    /// A later station rejected what was made here.
    pub fn reject(&mut self, setting: Setting<'_>, rejected: Rejected, out: &mut Derived) {
        if !setting.spec.late.is_empty() {
            out.losses.extend(self.late.get_or_insert_default().reject(setting.name, rejected));
        }
    }

    /// Everything up to `to` is settled: figures that are due are told, periods that ended are closed.
    pub fn settle(&mut self, setting: Setting<'_>, to: Time, out: &mut Derived) {
        if let Some(late) = &mut self.late {
            out.losses.extend(late.trim(setting.name, setting.spec, to));
            out.losses.extend(late.give_up(setting.name, setting.spec, self.observer.is_unheard(), to));
        }
        if self.observer.first.is_none() {
            return;
        }
        self.observer.miss_parts(&mut self.facts, setting, to, out);
        self.tell_due(setting, to, out);
        // Nobody knows yet how a shift ended whose history is coming in.
        if Catching::edge(self.observer.catching, to + LATENESS).is_none_or(|edge| edge >= to) {
            self.close(setting, to, out);
        }
    }

    /// What came together is applied: closed periods that it changed are told again.
    pub fn revise(&mut self, setting: Setting<'_>, out: &mut Derived) {
        if let Some(earliest) = self.late.as_mut().and_then(|late| late.join(&mut self.facts, setting.spec)) {
            self.observer.touch(earliest);
        }
        let Some(edited) = self.observer.edited.take() else { return };
        self.memo.forget_from(edited);
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
        let Some(first) = self.observer.first else {
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
        let Some(first) = self.observer.first else { return false };
        let at = entry.at().max(first);
        match &entry.what {
            &What::Reason { to, .. } if to <= at => return true,
            What::Reason { to, code, .. } => {
                self.facts.assign(Assigned { from: at, to: *to, code: code.clone(), word: 0 });
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
        if let Some(late) = &mut self.late {
            late.work();
        }
        self.observer.touch(at);
        true
    }

    /// Tells the figures at `now`, due or not: the agent stops, and nothing waits any more.
    pub fn tell_last(&mut self, setting: Setting<'_>, now: Time, out: &mut Derived) {
        if self.observer.first.is_none() {
            return;
        }
        let now = now.max(self.observer.latest);
        // What was due before goes first, and no instant is told twice: receivers refuse points out of order.
        self.tell_due(setting, now, out);
        self.tell(setting, now, out);
        self.next_kpi = boundary_from(Time(now.0.saturating_add(1)));
    }

    /// The station as it stands at `now` with all that is `waiting`, if nothing more is said.
    pub fn look<'a>(
        &self,
        setting: Setting<'_>,
        waiting: impl Iterator<Item = (Role, &'a Reading)> + Clone,
        now: Time,
    ) -> Look<'_> {
        let mut observer = self.observer.clone();
        // As far back as anything may look.
        let times = waiting.clone().map(|(_, reading)| reading.source_time);
        let counted = observer.counters.iter().filter_map(Counter::last_at);
        let since = times.chain(counted).chain(observer.last_part).min().unwrap_or(now);
        let mut end = self.facts.end(since);
        let mut unsaid = Derived::default();
        for (role, reading) in waiting {
            observer.apply(&mut end, setting, role, reading, &mut unsaid);
        }
        observer.miss_parts(&mut end, setting, now, &mut unsaid);
        let state = end.state().map(|span| (span.state, span.from));
        let edge = Catching::edge(observer.catching, now).filter(|&edge| edge < now);
        if let Some(edge) = edge {
            end.say(edge, State::Unknown);
        }
        // A stop that goes on says what all of it is only when it ends.
        let edited = observer.edited.into_iter().chain(edge).min().unwrap_or(Time(i64::MAX));
        let stable = self.facts.stop_before(edited).unwrap_or(edited);
        Look { station: self, observer, end, state, stable, now }
    }

    /// Closes the periods that ended by `settled`, and tells their last figures.
    fn close(&mut self, setting: Setting<'_>, settled: Time, out: &mut Derived) {
        for (shift, from, to) in shifts(setting, self.closed_to, settled, self.observer.latest) {
            if to > settled {
                break;
            }
            let tally = Tally::of(self.facts.facts(), setting, from, to);
            let period = Period { shift, from, to, tally, closed: true, revision: 0 };
            let kpi = period.view(setting.spec);
            out.records.push(Record::Kpi(Box::new(KpiPoint {
                station: setting.name.clone(),
                shift: Some(period.shift.clone()),
                time: to,
                beside: Some(Beside::from(&kpi)),
                figures: Some(kpi.figures),
                since: self.observer.first.unwrap_or(to),
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
        let gap = self.observer.gap();
        let needed = gap.map_or(settled - KEEP, |gap| gap.min(settled - KEEP));
        let old = |period: &Period| period.to <= needed;
        let mut forgotten = None;
        while self.closed.len() > MOST_CLOSED || self.closed.len() > 1 && self.closed.front().is_some_and(old) {
            forgotten = self.closed.pop_front();
        }
        // Where no shift is planned, none closes.
        let until = forgotten.map_or(settled - LONGEST, |period| period.to.max(settled - LONGEST));
        let until = match startup::cut(self.facts.facts(), setting, until) {
            cut if cut + KEEP >= until => cut,
            // One without an end: it is forgotten, and what was added up with it.
            _ => {
                self.memo = Memo::default();
                until
            }
        };
        // A stop may be long: nothing is made in it, so it takes no room.
        let near = setting.spec.reason.as_ref().map_or(Duration::ZERO, |spec| spec.first_out);
        let until = Some(self.facts.cut(until, near)).filter(|&cut| cut + LONGEST >= until).unwrap_or(until);
        if let Some(begin) = self.facts.facts().begin().filter(|&begin| begin < until) {
            self.before.add(&Tally::of(self.facts.facts(), setting, begin, until));
            self.before.forget_pace();
            if let Some(archive) = &mut self.archive {
                archive.go_on(self.facts.old(until));
            }
            self.facts.forget(until);
            if let Some(late) = &mut self.late {
                late.forget(until);
            }
            self.memo.forget_before(until);
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
        let mut sums = self.told_sums.clone();
        if setting.inspects {
            sums.defects.clear();
        }
        out.records.push(Record::Kpi(Box::new(KpiPoint {
            station: setting.name.clone(),
            shift,
            time: at,
            beside: kpi.as_ref().map(Beside::from),
            figures: kpi.map(|kpi| kpi.figures),
            since: self.observer.first.unwrap_or(at),
            sums,
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
        let (name, from) = self.running(setting).unzip();
        let kpi = |from| self.so_far(setting, from).view(setting.spec, from);
        (name, from.flatten().map(kpi))
    }

    /// Since when the sums count.
    #[must_use]
    pub fn since(&self) -> Option<Time> {
        self.observer.first
    }

    /// What the sums hold by now; upstream may have been told more of one ([`Sums::raise`]).
    #[must_use]
    pub fn sums(&self, setting: Setting<'_>) -> Sums {
        let mut all = self.station.before.clone();
        if let Some(begin) = self.facts().begin() {
            all.add(&self.so_far(setting, begin));
        }
        Sums {
            good: all.counts.good(setting.spec),
            reject: all.counts.reject(setting.spec),
            rework: all.counts.rework(setting.spec),
            state_time: all.states().collect(),
            downtime: all.reasons().to_vec(),
            cycle: self.observer.cycle.clone(),
            energy: setting.spec.energy.as_ref().map(|_| all.energy_j),
            idle_energy: setting.spec.energy.as_ref().map(|_| all.idle_energy_j),
            startup_reject: all.startup_reject(setting.spec),
            defects: all.defects_by_code().map(|(code, parts)| (code.clone(), whole(parts))).collect(),
        }
    }

    /// The same, and never less than upstream was told.
    #[must_use]
    pub fn told_sums(&self, setting: Setting<'_>) -> Sums {
        let mut sums = self.station.told_sums.clone();
        sums.raise(self.sums(setting));
        sums
    }

    /// The shift that runs at the instant of the look, and from when on it was observed, if it was.
    pub(super) fn running(&self, setting: Setting<'_>) -> Option<(Arc<str>, Option<Time>)> {
        let running = setting.slot(self.now).shift?;
        Some((running.name, self.observer.first.map(|_| running.from.max(self.closed_to()))))
    }

    /// What the time from `from` on has added up to.
    pub(super) fn so_far(&self, setting: Setting<'_>, from: Time) -> Tally {
        let stretch = Stretch::until(from, Time(i64::MAX), self.now);
        self.station.memo.within(self.facts(), setting, stretch, self.stable)
    }

    /// Every period still held; closed ones first, the last may still run.
    pub fn periods(&self, setting: Setting<'_>) -> impl Iterator<Item = Period> {
        let open = self.observer.first.into_iter().flat_map(move |_| {
            shifts(setting, self.closed_to(), self.now, self.observer.latest).map(move |(shift, from, to)| {
                let tally =
                    if to > self.now { self.so_far(setting, from) } else { Tally::of(self.facts(), setting, from, to) };
                Period { shift, from, to, tally, closed: false, revision: 0 }
            })
        });
        self.station.closed.iter().cloned().chain(open)
    }

    /// The shifts that have closed and are still held, oldest first.
    pub(super) fn closed(&self) -> impl Iterator<Item = &Period> {
        self.station.closed.iter()
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
        if self.station.observer.first.is_some() {
            self.station.closed_to
        } else {
            self.observer.first.unwrap_or_default()
        }
    }
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
            let slot = setting.slot(at);
            let next = slot.shift.as_ref().map_or(slot.until, |shift| shift.to);
            // At the end of all time nothing comes next.
            if from > until || from == until && from > latest || next <= at {
                return None;
            }
            at = next;
            if let Some(shift) = slot.shift {
                return Some((shift.name, from, shift.to));
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
            (&mut self.idle_energy, now.idle_energy),
            (&mut self.startup_reject, now.startup_reject),
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
        codes::raise(&mut self.defects, &now.defects);
    }
}

/// The first multiple of [`KPI_EVERY`] at or after `at`; at the end of all time that end.
pub(super) fn boundary_from(at: Time) -> Time {
    let step = nanos_i64(KPI_EVERY);
    Time(at.0.saturating_sub(1).div_euclid(step).saturating_add(1).saturating_mul(step))
}

fn nanos_i64(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "people count whole parts, and not below 0"
)]
fn whole(parts: f64) -> u64 {
    parts as u64
}

#[expect(clippy::cast_precision_loss, reason = "an ideal cycle is far below 2^53 ns")]
pub(super) fn nanoseconds(span: Duration) -> f64 {
    span.as_nanos() as f64
}
