//! What a settled reading says of a station, looked at against what was said before.

use std::time::Duration;

use gemba_drivers::{Loss, Reading, Time, Value};
use serde::{Deserialize, Serialize};

use crate::model::by_count::Pace;
use crate::model::counter::{Counter, Step, Told};
use crate::model::late::Rejection;
use crate::model::period::Count;
use crate::model::setting::Setting;
use crate::model::tally::{self, ideal_since};
use crate::model::timeline::{Blame, Made, Timeline};
use crate::model::visit::{self, About};
use crate::model::{Derived, State};
use crate::record::{CycleHistogram, Record};

/// A first value whose source time is older than this when it comes is one the device held all along:
/// it counts from its receipt, since nobody watched before.
pub(super) const HELD: Duration = Duration::from_secs(10);

/// While history comes in, what lies behind the last that it told is unknown yet; it is known once nothing more has come
/// for so long, or something live.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What a reading means to its station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `oee.state`
    State,
    /// One of the counters.
    Counter(Count),
    /// What is worked on.
    Work(About),
    /// Which unit is there, for what later stations reject.
    Unit,
    /// Why it stands: which of the tags that tell reasons.
    Reason(u32),
    /// Nothing that is computed with.
    Other,
}

/// What a reading is looked at against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Observer {
    /// The first observation ever.
    pub(super) first: Option<Time>,
    /// The latest time that something counted from.
    pub(super) latest: Time,
    /// The source time of the last good state reading.
    pub(super) told: Option<Time>,
    /// What it said, if the map lacks it: polled again it is no news.
    pub(super) strange: Option<Value>,
    /// Since when nobody knows the state, because a bad reading said so.
    pub(super) lost: Option<Time>,
    /// The counters: total, good, reject, rework, energy.
    pub(super) counters: [Counter; 5],
    /// When the last part was counted; none when the next cycle cannot be told.
    pub(super) last_part: Option<Time>,
    /// Cycle times, ever.
    pub(super) cycle: CycleHistogram,
    /// History is coming in.
    pub(super) catching: Option<Catching>,
    /// The latest time that something live counted from.
    pub(super) live: Option<Time>,
    /// Where the state follows from parts.
    pub(super) pace: Pace,
    /// The earliest time that has changed since closed periods were last looked at.
    pub(super) edited: Option<Time>,
    /// What the last reading counted, until somebody takes it.
    #[serde(skip)]
    pub(super) counted: Option<Counted>,
    /// What is worked on is something else than was known, until somebody takes note.
    #[serde(skip)]
    pub(super) moved: bool,
}

/// What a reading of a counter added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counted {
    /// Which counter.
    pub(super) count: Count,
    /// When.
    pub(super) at: Time,
    /// How many parts.
    pub(super) parts: f64,
    /// The counter was good all the time since its last reading.
    pub(super) known: bool,
}

impl Counted {
    /// It counted rejects, at a turn.
    pub(super) fn rejection(self, turn: Time) -> Rejection {
        Rejection { at: self.at, turn, id: None, code: None, parts: self.parts, known: self.known, back: false }
    }
}

/// How far history has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Catching {
    /// The latest source time that it told.
    through: Time,
    /// When it last told something.
    heard: Time,
}

impl Catching {
    /// Where knowledge ends if more may come at `now`.
    pub(super) fn edge(this: Option<Self>, now: Time) -> Option<Time> {
        this.filter(|held| now.since(held.heard) <= CATCH_UP).map(|held| held.through)
    }
}

impl Observer {
    pub(super) fn apply(
        &mut self,
        facts: &mut Timeline,
        setting: Setting<'_>,
        role: Role,
        reading: &Reading,
        out: &mut Derived,
    ) {
        // What only others work with says no more than that somebody watches.
        let unheard = matches!(role, Role::Unit | Role::Other);
        if unheard && self.first.is_some() {
            return;
        }
        // The first observation ever is made here; a device that held its value all along was not observed.
        let first = *self.first.get_or_insert_with(|| {
            let first = first(reading);
            facts.begin(first);
            first
        });
        // Nor may what is not computed with say anything more: it is not always heard.
        if unheard {
            return;
        }
        let source_time = self.known_till(reading);
        let value = (!reading.validity.is_bad()).then_some(&reading.value);
        // What held before the gap says nothing about the gap, unless history says that it did so till something changed.
        let held_from = |lost: Time| if reading.backfilled { lost } else { reading.received_time };
        match role {
            Role::Unit | Role::Other => {}
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
                    self.moved = true;
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

    /// Since when the state or a counter is not heard.
    pub(super) fn gap(&self) -> Option<Time> {
        self.lost.into_iter().chain(self.counters.iter().filter_map(Counter::bad_since)).min()
    }

    /// Whether something is to be learnt of a time that has passed: of a gap, or since nothing was ever heard.
    pub(super) fn is_unheard(&self) -> bool {
        self.first.is_none() || self.gap().is_some()
    }

    fn counter(&mut self, count: Count) -> &mut Counter {
        &mut self.counters[count as usize]
    }

    /// Something counts from `at` on.
    pub(super) fn touch(&mut self, at: Time) {
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
                    self.counted = Some(Counted { count, at, parts, known });
                    self.touch(at);
                    if count.is_part(setting.spec) {
                        self.keep_pace(facts, setting, (at, parts, known), out);
                        let known = known && facts.facts().seen(since, at);
                        self.cycle(facts, parts, at, known);
                    }
                } else if count.is_part(setting.spec) {
                    self.pace.watch(at);
                }
            }
            Step::Quarantined { since, at, .. } => {
                if count.is_part(setting.spec) {
                    self.pace.watch(at);
                }
                out.losses.push(Loss {
                    source: setting.name.clone(),
                    from: since,
                    to: at,
                    count: 1,
                    // By how much would make each a series of its own upstream; the span says between which readings.
                    reason: format!("{} counter jumped, faster than max_rate", count.word()).into(),
                });
            }
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
    pub(super) fn miss_parts(&mut self, facts: &mut Timeline, setting: Setting<'_>, now: Time, out: &mut Derived) {
        let Some(spec) = &setting.spec.by_count else { return };
        let ideal = tally::ideal(setting, facts.working_on().map(|run| &run.work), now);
        if let Some((since, state)) = ideal.and_then(|ideal| self.pace.stop(spec, ideal, now)) {
            self.say(facts, setting, state, since, out);
        }
    }

    /// The run time since the last part, shared by the parts that came with this count. What comes from before the last part
    /// has no place on that clock any more; of counters that tell of parts at the same instant, the first speaks for them.
    fn cycle(&mut self, facts: &Timeline, parts: f64, at: Time, known: bool) {
        let last = match self.last_part {
            Some(last) if at < last => {
                self.last_part = None;
                return;
            }
            Some(last) if at == last => return,
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

/// When the first observation is made; a device that held its value all along, or was bad all along, was not observed.
pub(super) fn first(reading: &Reading) -> Time {
    let source_time = reading.source_time.min(reading.received_time);
    let held = reading.received_time.since(source_time) > HELD && !reading.validity.is_mark();
    if held { reading.received_time } else { source_time }
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
