//! One station: its state, its counters, its shifts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{Loss, Reading, Time, Value};
use serde::{Deserialize, Serialize};

use crate::model::calendar::{Calendar, Slot};
use crate::model::counter::{Counter, Step, Told};
use crate::model::period::{Count, Counts, Period};
use crate::model::{Derived, OeeSpec, State, StateSpec};
use crate::record::{KpiPoint, Record, Sums};
use crate::snapshot::KpiView;

/// How long a period stays open for readings that are still on their way.
pub const LATENESS: Duration = Duration::from_secs(2);

/// How often figures are told upstream, on the wall clock's multiples of it.
pub const KPI_EVERY: Duration = Duration::from_secs(10);

/// A first value whose source time is older than this when it comes is one the device held all along:
/// it counts from its receipt, since nobody watched before.
pub(super) const HELD: Duration = Duration::from_secs(10);

/// While history comes in, what lies behind the last that it told is unknown yet; it is known once nothing more has come
/// for so long, or something live.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How many closed periods are held at most for history that may change them: a week of three shifts a day.
const MOST_CLOSED: usize = 22;

/// What a reading means to its station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `oee.state`
    State,
    /// One of the counters.
    Counter(Count),
    /// Nothing that is computed with.
    Other,
}

/// A station, as far as readings have told. All of it goes into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Station {
    /// The first observation ever.
    first: Option<Time>,
    /// What the machine says.
    state: State,
    /// Since when.
    since: Time,
    /// The source time of the last good state reading.
    told: Option<Time>,
    /// What it said, if the map lacks it: polled again it is no news.
    strange: Option<Value>,
    /// Since when nobody knows the state, because a bad reading said so.
    lost: Option<Time>,
    /// The last stretch of unknown state that has ended.
    unknown: Option<(Time, Time)>,
    /// Up to where time is accounted for.
    accounted: Time,
    /// The counters: total, good, reject.
    counters: [Counter; 3],
    /// The running period, last; before it the one that ended before, for late data.
    periods: VecDeque<Period>,
    /// What was ever counted.
    counts: Counts,
    /// Nanoseconds in each state, ever.
    states: [i64; State::ALL.len()],
    /// Run time, ever, breaks included: the clock of cycle times.
    run_ns: i64,
    /// Where that clock stood at the last part; none when the next cycle cannot be told.
    last_part_ns: Option<i64>,
    /// What upstream was told. Sums never fall: a late reject holds `good` until the true value passes it.
    told_sums: Sums,
    /// The next instant at which figures are told.
    next_kpi: Time,
    /// History is coming in. (In the checkpoint beside the station, for the sake of its layout.)
    #[serde(skip)]
    pub(super) catching: Option<Catching>,
    /// The latest time that something live counted from.
    #[serde(skip)]
    live: Option<Time>,
    /// The plan around `accounted`, so that it is looked up once a slot.
    #[serde(skip)]
    slot: Option<Slot>,
}

/// How far history has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catching {
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
    pub calendar: &'a Calendar,
}

impl Station {
    /// Applies one reading. Readings of one batch come in order of source time.
    pub fn apply(&mut self, setting: Setting<'_>, role: Role, reading: &Reading, out: &mut Derived) {
        let first = self.observe(reading, setting);
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
                    self.enter(setting, State::Unknown, at, out);
                    return;
                };
                let at = match self.lost {
                    Some(lost) if source_time <= lost => held_from(lost),
                    Some(_) => source_time,
                    None if self.told.is_some_and(|told| source_time < told) => return,
                    None => source_time,
                }
                .max(first);
                let spec = setting.spec.state.as_ref();
                let state = spec.map_or(Some(State::Unknown), |spec| mapped(spec, value));
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
                self.strange = strange;
                self.told = Some(source_time);
                self.lost = None;
                self.enter(setting, state.unwrap_or_default(), at, out);
            }
            Role::Counter(count) => match value.and_then(Value::as_f64) {
                Some(value) => {
                    let lost = self.counter(count).bad_since().filter(|&bad| source_time <= bad);
                    let at = lost.map_or(source_time, held_from).max(first);
                    self.count(setting, count, value, Told { source_time, at, backfilled: reading.backfilled }, out);
                }
                None => self.counter(count).lose(source_time.max(first)),
            },
        }
    }

    /// The batch is applied: closed periods that it changed are told again.
    pub fn settle(&mut self, setting: Setting<'_>, out: &mut Derived) {
        self.periods.iter_mut().for_each(|period| period.revise(setting.name, out));
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

    /// Time has come to `now`: periods that ended are closed, figures that are due are told.
    pub fn advance(&mut self, setting: Setting<'_>, now: Time, out: &mut Derived) {
        if self.first.is_none() {
            return;
        }
        let settled = now - LATENESS;
        self.tell_due(setting, settled, out);
        // Nobody knows yet how a shift ended whose history is coming in.
        if Catching::edge(self.catching, now).is_none_or(|edge| edge >= settled) {
            self.close(setting, settled, out);
        }
    }

    /// Tells the figures at `now`, due or not: the agent stops.
    pub fn tell_last(&mut self, setting: Setting<'_>, now: Time, out: &mut Derived) {
        if self.first.is_none() {
            return;
        }
        let now = now.max(self.accounted);
        // What was due before goes first, and no instant is told twice: receivers refuse points out of order.
        self.tell_due(setting, now, out);
        self.tell(setting, now, out);
        self.next_kpi = boundary_from(Time(now.0 + 1));
    }

    /// What the machine says, and since when; nothing before the first observation.
    #[must_use]
    pub fn state(&self) -> Option<(State, Time)> {
        self.first.map(|_| (self.state, self.since))
    }

    /// The shift that `now` lies in, and its figures so far.
    #[must_use]
    pub fn view(&self, setting: Setting<'_>, now: Time) -> (Option<Arc<str>>, Option<KpiView>) {
        let running = setting.calendar.slot(now).shift;
        let name = running.as_ref().map(|shift| shift.name.clone());
        if self.first.is_none() {
            return (name, None);
        }
        let then = self.projected(setting, now);
        let period = running.and_then(|shift| then.periods.iter().find(|period| period.to == shift.to));
        (name, period.map(|period| period.view(setting.spec)))
    }

    /// Since when the sums count, and what they hold at `now`.
    #[must_use]
    pub fn sums(&self, setting: Setting<'_>, now: Time) -> Option<(Time, Sums)> {
        let first = self.first?;
        let mut then = self.projected(setting, now);
        then.raise_sums(setting.spec);
        Some((first, then.told_sums))
    }

    /// Every period still held, as it stands at `now`; closed ones first.
    pub fn periods(&self, setting: Setting<'_>, now: Time) -> VecDeque<Period> {
        self.projected(setting, now).periods
    }

    fn counter(&mut self, count: Count) -> &mut Counter {
        &mut self.counters[count as usize]
    }

    /// The first observation ever is made here; a device that held its value all along was not observed.
    fn observe(&mut self, reading: &Reading, setting: Setting<'_>) -> Time {
        let source_time = reading.source_time.min(reading.received_time);
        *self.first.get_or_insert_with(|| {
            let held = reading.received_time.since(source_time) > HELD && !reading.validity.is_bad();
            let first = if held { reading.received_time } else { source_time };
            self.since = first;
            self.accounted = first;
            self.next_kpi = boundary_from(Time(first.0 + 1));
            if let Some(shift) = setting.calendar.slot(first).shift {
                self.periods.push_back(Period::new(shift.name, first, shift.to));
            }
            first
        })
    }

    fn enter(&mut self, setting: Setting<'_>, state: State, at: Time, out: &mut Derived) {
        // What the source has told of till then stands: the state, and that it still was so.
        let at = at.max(self.since).max(self.told.unwrap_or_default());
        self.tell_due(setting, at, out);
        self.account(setting, at);
        self.period_at(setting, at);
        if state == self.state {
            return;
        }
        self.correct(setting, state, at);
        if self.state == State::Unknown && self.since < at {
            self.unknown = Some((self.since, at));
        }
        out.records.push(Record::StateChanged { station: setting.name.clone(), time: at, from: self.state, to: state });
        self.state = state;
        self.since = at;
    }

    fn count(&mut self, setting: Setting<'_>, count: Count, value: f64, told: Told, out: &mut Derived) {
        let spec = match count {
            Count::Total => setting.spec.total.as_ref(),
            Count::Good => setting.spec.good.as_ref(),
            Count::Reject => setting.spec.reject.as_ref(),
        };
        let Some(spec) = spec else { return };
        let at = told.at;
        match self.counter(count).observe(spec, value, told) {
            Step::Late => {}
            Step::Baseline => {
                self.tell_due(setting, at, out);
                self.period_at(setting, at);
            }
            Step::Counted { difference, since, at, known } => {
                self.tell_due(setting, at, out);
                let known = known && !self.unknown_between(since, at);
                self.add(setting, count, difference, at, known);
            }
            Step::Quarantined { difference, since, at } => out.losses.push(Loss {
                source: setting.name.clone(),
                from: since,
                to: at,
                count: 1,
                reason: format!("{} counter jumped by {difference}, faster than max_rate", word(count)).into(),
            }),
        }
    }

    fn add(&mut self, setting: Setting<'_>, count: Count, difference: f64, at: Time, known: bool) {
        // What a part is: the total where it is counted, else good and reject together.
        let is_part = match count {
            Count::Total => true,
            Count::Good => setting.spec.total.is_none(),
            Count::Reject => setting.spec.total.is_none() && setting.spec.good.is_some(),
        };
        self.counts.add(count, difference);
        let ideal_ns = setting.spec.ideal_cycle_time.map_or(0.0, nanoseconds);
        let planned = setting.calendar_slot(&mut self.slot, at).planned && !self.state.is_unplanned();
        if let Some(period) = self.period_at(setting, at) {
            period.counts.add(count, difference);
            if is_part && !known {
                period.unattributed += difference;
            } else if is_part && planned {
                period.perform(difference, ideal_ns);
            }
            period.change();
        }
        if is_part && difference > 0.0 {
            self.cycle(difference, at, known);
        }
    }

    /// The run time since the last part, shared by the parts that came with this count. What comes after its time was
    /// accounted for has no place on that clock any more.
    fn cycle(&mut self, parts: f64, at: Time, known: bool) {
        if at < self.accounted {
            self.last_part_ns = None;
            return;
        }
        let tail = if self.state.is_run() { at.0.saturating_sub(self.accounted.0).max(0) } else { 0 };
        let clock = self.run_ns + tail;
        let last = self.last_part_ns.replace(clock).filter(|_| known);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small count")]
        let cycles = if (1.0..1e9).contains(&parts) { parts as u64 } else { 0 };
        if let Some(last) = last {
            #[expect(clippy::cast_precision_loss, reason = "a cycle is short")]
            let seconds = (clock - last).max(0) as f64 / 1e9 / parts;
            self.told_sums.cycle.observe(seconds, cycles);
        }
    }

    /// Whether the state was unknown for any time, longer than zero, between the two.
    fn unknown_between(&self, since: Time, at: Time) -> bool {
        let now = self.state == State::Unknown && at > since.max(self.since);
        now || self.unknown.is_some_and(|(from, until)| from < at && since < until)
    }

    /// Spends the time up to `to` in the present state, slot by slot of the plan.
    fn account(&mut self, setting: Setting<'_>, to: Time) {
        while self.accounted < to {
            let slot = setting.calendar_slot(&mut self.slot, self.accounted);
            let end = slot.until.min(to);
            let (planned, in_shift) = (slot.planned, slot.shift.is_some());
            let spent = end.0 - self.accounted.0;
            let state = match (in_shift, planned) {
                (true, true) => self.state,
                (true, false) => State::Break,
                (false, _) => State::NoShift,
            };
            self.states[state as usize] += spent;
            if self.state.is_run() {
                self.run_ns += spent;
            }
            if let Some(period) = self.period_at(setting, self.accounted) {
                period.spend(state, spent);
            }
            self.accounted = end;
        }
    }

    /// Moves the time since `at` that is accounted for already from the present state to `state`: the news comes after the
    /// shift that it speaks of has closed, and makes a revision of it. Shifts that are no longer held stay as they are.
    fn correct(&mut self, setting: Setting<'_>, state: State, at: Time) {
        let was = self.state;
        let oldest = self.periods.front().map_or(self.accounted, |period| period.from);
        let from = at.max(oldest);
        let mut place = from;
        let mut moved = false;
        while place < self.accounted {
            let slot = setting.calendar_slot(&mut self.slot, place);
            let (planned, end) = (slot.planned, slot.until.min(self.accounted));
            let spent = end.0 - place.0;
            self.run_ns += spent * (i64::from(state.is_run()) - i64::from(was.is_run()));
            if planned {
                moved = true;
                self.states[was as usize] -= spent;
                self.states[state as usize] += spent;
                if let Some(period) = self.period_at(setting, place) {
                    period.spend(was, -spent);
                    period.spend(state, spent);
                }
            }
            place = end;
        }
        let touched = |period: &&mut Period| period.from < place && from < period.to;
        self.periods.iter_mut().filter(touched).filter(|_| moved).for_each(Period::change);
    }

    /// The period that `at` lies in, opened if need be; none outside shifts. What is older than every period
    /// still held belongs to the oldest of them.
    fn period_at(&mut self, setting: Setting<'_>, at: Time) -> Option<&mut Period> {
        let newest = self.periods.back();
        if newest.is_none_or(|period| at >= period.to) {
            let shift = setting.calendar_slot(&mut self.slot, at).shift.clone()?;
            let from = shift.from.max(self.first.unwrap_or(shift.from));
            if let Some(ended) = self.periods.back_mut()
                && ended.to > shift.from
            {
                ended.to = shift.from; // the plan changed since
            }
            self.periods.push_back(Period::new(shift.name, from, shift.to));
        }
        let found = self.periods.iter().rposition(|period| period.from <= at && at < period.to);
        match found {
            Some(place) => self.periods.get_mut(place),
            None if self.periods.front().is_some_and(|oldest| at < oldest.from) => self.periods.front_mut(),
            None => None, // between two shifts
        }
    }

    /// Closes the periods that ended by `settled`, and tells their last figures.
    fn close(&mut self, setting: Setting<'_>, settled: Time, out: &mut Derived) {
        while let Some(place) = self.periods.iter().position(|period| !period.closed && period.to <= settled) {
            let end = self.periods[place].to;
            self.account(setting, end);
            let period = &mut self.periods[place];
            period.closed = true;
            let figures = period.view(setting.spec).figures;
            out.closed.push((setting.name.clone(), period.clone()));
            out.records.push(Record::Kpi(Box::new(KpiPoint {
                station: setting.name.clone(),
                shift: Some(period.shift.clone()),
                time: end,
                figures: Some(figures),
                since: self.first.unwrap_or(end),
                sums: Sums::default(),
            })));
            // A station that says nothing more still is in the shifts that follow, each in its turn.
            let mut next = end;
            while next <= settled && self.period_at(setting, next).is_none() {
                next = setting.calendar_slot(&mut self.slot, next).until;
            }
            // One for late data, and those that history may yet tell of.
            let gap = self.lost.into_iter().chain(self.counters.iter().filter_map(Counter::bad_since)).min();
            let mut closed = self.periods.iter().filter(|period| period.closed).count();
            while closed > 1
                && (closed > MOST_CLOSED
                    || self.periods.front().is_some_and(|oldest| gap.is_none_or(|gap| oldest.to <= gap)))
            {
                self.periods.pop_front();
                closed -= 1;
            }
        }
        if self.periods.is_empty() {
            self.period_at(setting, settled);
        }
    }

    /// Tells the figures at the last due instant before `at`, with all that happened up to that instant and
    /// before anything later changes them.
    fn tell_due(&mut self, setting: Setting<'_>, at: Time, out: &mut Derived) {
        if at <= self.next_kpi {
            return;
        }
        self.next_kpi = boundary_from(at);
        self.tell(setting, Time(self.next_kpi.0 - nanos_i64(KPI_EVERY)), out);
    }

    fn tell(&mut self, setting: Setting<'_>, at: Time, out: &mut Derived) {
        let (shift, kpi) = self.view(setting, at);
        let mut then = self.projected(setting, at);
        then.raise_sums(setting.spec);
        self.told_sums = then.told_sums;
        out.records.push(Record::Kpi(Box::new(KpiPoint {
            station: setting.name.clone(),
            shift,
            time: at,
            figures: kpi.map(|kpi| kpi.figures),
            since: self.first.unwrap_or(at),
            sums: self.told_sums.clone(),
        })));
    }

    /// This station as it will stand at `now` if nothing more is said.
    fn projected(&self, setting: Setting<'_>, now: Time) -> Self {
        let mut then = self.clone();
        if self.first.is_some() {
            if let Some(edge) = Catching::edge(self.catching, now).filter(|&edge| edge < now) {
                then.account(setting, edge);
                then.state = State::Unknown;
            }
            then.account(setting, now);
        }
        then
    }

    /// What was ever told, and what is true by now: whichever is more.
    fn raise_sums(&mut self, spec: &OeeSpec) {
        let states = State::ALL.map(|state| (state, self.states[state as usize]));
        let down = self.states[State::Down as usize];
        let now = Sums {
            good: self.counts.good(spec),
            reject: self.counts.reject(spec),
            state_time: states.into_iter().filter(|&(_, spent)| spent > 0).collect(),
            downtime: (down > 0).then(|| (UNASSIGNED.into(), false, down)).into_iter().collect(),
            cycle: std::mem::take(&mut self.told_sums.cycle),
        };
        self.told_sums.raise(now);
    }
}

/// The reason of downtime that nobody has given one.
const UNASSIGNED: &str = "unassigned";

impl Setting<'_> {
    fn calendar_slot<'slot>(&self, held: &'slot mut Option<Slot>, at: Time) -> &'slot Slot {
        if !held.as_ref().is_some_and(|slot| slot.covers(at)) {
            *held = None;
        }
        held.get_or_insert_with(|| self.calendar.slot(at))
    }
}

impl Sums {
    /// Holds what it has until `now` has more: no sum ever falls.
    pub(super) fn raise(&mut self, now: Self) {
        for (held, made) in [(&mut self.good, now.good), (&mut self.reject, now.reject)] {
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

/// The state that a value stands for; none if the map lacks it.
fn mapped(spec: &StateSpec, value: &Value) -> Option<State> {
    use gemba_drivers::Value;
    let found = |text: &str| spec.map.iter().find(|(from, _)| from == text).map(|&(_, state)| state);
    match value {
        Value::Text(text) => found(text),
        Value::Bool(on) => found(if *on { "true" } else { "false" }).or_else(|| found(if *on { "1" } else { "0" })),
        Value::Int(_) | Value::Float(_) | Value::Null => found(&value.to_string()),
    }
}

fn word(count: Count) -> &'static str {
    match count {
        Count::Total => "total",
        Count::Good => "good",
        Count::Reject => "reject",
    }
}

/// The first multiple of [`KPI_EVERY`] at or after `at`.
fn boundary_from(at: Time) -> Time {
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
