//! How figures came about: the pieces of time, the counts and the losses that add up to them.
//!
//! An explanation is made of the same pieces and counts as the figures themselves ([`crate::model::window::Stretch`]), so it
//! cannot tell another story.

use std::sync::Arc;

use gemba_drivers::{Loss, Time};

use crate::model::losses::Bucket;
use crate::model::period::Count;
use crate::model::piece::{Piece, pieces_of};
use crate::model::select::Chosen;
use crate::model::setting::Setting;
use crate::model::standing::Standing;
use crate::model::station::Look;
use crate::model::tally::{Tally, ideal, real};
use crate::model::timeline::{Facts, LateReject, Work};
use crate::model::window::Stretch;
use crate::model::{Line, OeeSpec, State};
use crate::snapshot::KpiView;

pub use crate::model::select::{ExplainError, Selector, SelectorError};

/// How many pieces, and how many counts, are listed; sums are of all of them. A machine that flaps all day must not fill
/// memory.
const MOST_LISTED: usize = 5_000;

/// How the figures of a shift, an hour, a lot … came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The station.
    pub station: Arc<str>,
    /// What is explained: `shift`, `hour`, `lot` ….
    pub kind: &'static str,
    /// Its name.
    pub name: Arc<str>,
    /// Its beginning, or the station's first observation if that is later.
    pub from: Time,
    /// Its end, or now.
    pub to: Time,
    /// Whether its end has passed.
    pub closed: bool,
    /// Whether facts are still held of all of it.
    pub whole: bool,
    /// How often late data has changed the shift since it closed; `None` for what is no shift, or no longer held.
    pub revision: Option<u32>,
    /// The figures.
    pub view: KpiView,
    /// What they are quotients of.
    pub figures: Vec<Figure>,
    /// Where planned time went.
    pub waterfall: Waterfall,
    /// The time in order, without holes; of a lot that was interrupted that of each of its runs.
    pub pieces: Vec<Explained>,
    /// Of the oldest pieces so many are not listed.
    pub pieces_left_out: usize,
    /// The parts that were counted, in order; readings of one minute, state and piece of work together.
    pub counts: Vec<Counted>,
    /// Of the oldest counts so many are not listed.
    pub counts_left_out: usize,
    /// What people rejected of it, by code: it stands among the counts as good.
    pub by_hand: Vec<(Arc<str>, f64)>,
    /// What the ledger holds of the station and the time; it holds the newest hundred losses of the line.
    pub losses: Vec<Loss>,
}

/// A stretch of time in which nothing changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Its beginning.
    pub from: Time,
    /// Its end; not part of it.
    pub to: Time,
    /// What the machine did.
    pub state: State,
    /// Where its time belongs; unknown time belongs nowhere.
    pub bucket: Option<Bucket>,
    /// Why it stood.
    pub reason: Option<Arc<str>>,
    /// Somebody wanted it so.
    pub planned: bool,
    /// It is a micro-stop.
    pub micro: bool,
    /// What was worked on.
    pub work: Work,
}

impl From<Piece<'_>> for Explained {
    fn from(piece: Piece<'_>) -> Self {
        let Piece { from, to, state, bucket, reason, planned, micro, work } = piece;
        Self { from, to, state, bucket, reason, planned, micro, work: work.cloned().unwrap_or_default() }
    }
}

/// What a counter added.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// The counter's reading before the first of these parts.
    pub since: Time,
    /// The reading that showed the first of them.
    pub at: Time,
    /// Which counter.
    pub count: Count,
    /// How many.
    pub parts: f64,
    /// The ideal cycle time of one of them, in nanoseconds.
    pub ideal_ns: Option<f64>,
    /// Whether performance speaks of them, and why not.
    pub standing: Standing,
}

/// A figure, and the two numbers that it is the quotient of.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name, as in `kpi`.
    pub name: &'static str,
    /// The figure; `None` if it cannot be known, or is withheld.
    pub value: Option<f64>,
    /// Numerator and denominator, where they are known.
    pub terms: Option<Terms>,
    /// What a reader must know with it.
    pub note: Option<&'static str>,
}

/// What a figure is the quotient of.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Above.
    pub numerator: Term,
    /// Below.
    pub denominator: Term,
}

/// A number and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// In words.
    pub what: &'static str,
    /// Seconds or parts.
    pub value: f64,
    /// `s` or `{part}`.
    pub unit: &'static str,
}

/// From planned time to good ideal time, loss by loss in the order of availability, performance and quality
/// (<https://www.vorne.com/learn/oee-calculation>): OEE is the last over the first. Nothing is rounded and nothing is left over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waterfall {
    /// Known planned time, in nanoseconds.
    pub planned_ns: i64,
    /// Availability losses, longest first.
    pub availability: Vec<LossLine>,
    /// Planned time less those: what performance is measured against.
    pub run_ns: i64,
    /// Stops and waiting that the loss accounting counts as lost speed, longest first.
    pub performance: Vec<LossLine>,
    /// What is left of run time beside the ideal time of the parts, in nanoseconds; less than nothing is faster than ideal.
    /// This and all that follows is `None` where an ideal cycle time is not known.
    pub speed_ns: Option<f64>,
    /// Ideal time of the parts made in run time.
    pub ideal_ns: Option<f64>,
    /// Ideal time of those that were not good at the first pass: the share of it that quality lacks.
    pub quality_ns: Option<f64>,
    /// Of it that of start-ups; `None` too where nothing is said of start-ups.
    pub startup_ns: Option<f64>,
    /// What later stations rejected, which is among it, by station and code.
    pub late: Vec<LateLine>,
    /// Ideal time of good parts.
    pub good_ns: Option<f64>,
    /// Time that belongs to no figure: breaks, and what the loss accounting does not plan.
    pub not_planned: Vec<LossLine>,
    /// Time of which nobody knows, in nanoseconds.
    pub unknown_ns: i64,
}

/// Time of one state and reason.
#[derive(Clone, Debug, PartialEq)]
pub struct LossLine {
    /// What the machine did.
    pub state: State,
    /// Why it stood.
    pub reason: Option<Arc<str>>,
    /// Somebody wanted it so.
    pub planned: bool,
    /// Micro-stops.
    pub micro: bool,
    /// How many pieces.
    pub times: usize,
    /// Nanoseconds.
    pub spent_ns: i64,
}

/// Parts that a later station rejected, for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct LateLine {
    /// Which station.
    pub station: Arc<str>,
    /// What was wrong with them.
    pub code: Arc<str>,
    /// How many.
    pub parts: f64,
}

impl Line {
    /// How the figures of what `selector` names came about, for the station at `station`, as it stands at `now`.
    ///
    /// # Errors
    /// When there is no such thing, or nothing is held of it (any more).
    pub fn explain(&self, station: usize, selector: &Selector, now: Time) -> Result<Explanation, ExplainError> {
        let name = self.stations.get(station).map(|of| of.name.clone()).unwrap_or_default();
        let (look, setting) = self.look(station, now).ok_or_else(|| ExplainError::NoFigures(name.clone()))?;
        let chosen = selector.choose(&look, setting)?;
        let (from, to) = (chosen.from(), chosen.to());
        let of_the_time = |loss: &&Loss| {
            loss.source == name && loss.to >= from && (loss.from < to || !chosen.closed && loss.from <= to)
        };
        let mut losses: Vec<Loss> = self.ledger.newest().filter(of_the_time).cloned().collect();
        losses.sort_by_key(|loss| loss.from);
        Ok(chosen.explain(&look, setting, losses))
    }
}

impl Chosen {
    fn explain(self, look: &Look<'_>, setting: Setting<'_>, losses: Vec<Loss>) -> Explanation {
        let (facts, spec) = (look.facts(), setting.spec);
        let mut tally = Tally::default();
        let (mut pieces, mut counts, mut waterfall) = (Listed::default(), Listed::default(), Waterfall::default());
        for &stretch in &self.stretches {
            tally.add(&Tally::within(facts, setting, stretch));
            for piece in pieces_of(facts, setting, stretch) {
                waterfall.spend(&piece);
                pieces.push(piece.into());
            }
            facts.late(stretch.from, stretch.end()).iter().for_each(|late| waterfall.reject(late));
            counted(facts, setting, stretch).for_each(|counted| counts.push(counted));
        }
        waterfall.finish(&tally, spec);
        let (from, to) = (self.from(), self.to());
        let view = tally.view(spec, from);
        let figures = figures(&tally, &view, &waterfall, spec);
        let (pieces, pieces_left_out) = pieces.end();
        let (counts, counts_left_out) = counts.end();
        Explanation {
            station: setting.name.clone(),
            kind: self.kind,
            name: self.name,
            from,
            to,
            closed: self.closed,
            whole: self.whole,
            revision: self.revision,
            view,
            figures,
            waterfall,
            pieces,
            pieces_left_out,
            counts,
            counts_left_out,
            by_hand: tally.defects_by_code().map(|(code, parts)| (code.clone(), parts)).collect(),
            losses,
        }
    }
}

fn counted(facts: Facts<'_>, setting: Setting<'_>, stretch: Stretch) -> impl Iterator<Item = Counted> {
    let parts = stretch.made(facts).filter(|made| made.count != Count::Energy);
    parts.map(move |made| Counted {
        since: made.since,
        at: made.at,
        count: made.count,
        parts: made.parts,
        ideal_ns: ideal(setting, facts.work(made.at), made.at),
        standing: Standing::of(facts, setting, made, stretch.known),
    })
}

/// The newest of a list, and how many are not among them.
struct Listed<T>(std::collections::VecDeque<T>, usize);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(std::collections::VecDeque::new(), 0)
    }
}

impl<T> Listed<T> {
    fn push(&mut self, next: T) {
        if self.0.len() == MOST_LISTED {
            self.0.pop_front();
            self.1 += 1;
        }
        self.0.push_back(next);
    }

    fn end(self) -> (Vec<T>, usize) {
        (self.0.into(), self.1)
    }
}

impl Waterfall {
    /// All losses together: planned time less good ideal time, in nanoseconds.
    #[must_use]
    pub fn lost_ns(&self) -> Option<f64> {
        let stops = self.availability.iter().chain(&self.performance).map(|line| line.spent_ns).sum();
        Some(real(stops) + self.speed_ns? + self.quality_ns?)
    }

    /// What quality lost, by cause: in words, and in nanoseconds.
    #[must_use]
    pub fn rejects(&self) -> Vec<(&'static str, Option<f64>)> {
        let startup = self.startup_ns.zip(self.quality_ns);
        startup.map_or_else(
            || vec![("not good at the first pass", self.quality_ns)],
            |(startup, all)| {
                vec![
                    ("not good at the first pass, of start-ups", Some(startup)),
                    ("not good at the first pass, of the process", Some(all - startup)),
                ]
            },
        )
    }

    fn spend(&mut self, piece: &Piece<'_>) {
        let spent_ns = piece.length();
        let lines = match piece.bucket {
            None => {
                self.unknown_ns += spent_ns;
                return;
            }
            Some(Bucket::Run) => return,
            Some(Bucket::Availability) => &mut self.availability,
            Some(Bucket::Performance) => &mut self.performance,
            Some(Bucket::NotPlanned) => &mut self.not_planned,
        };
        let (state, planned, micro) = (piece.state, piece.planned, piece.micro);
        let same = |line: &&mut LossLine| {
            (line.state, &line.reason, line.planned, line.micro) == (state, &piece.reason, planned, micro)
        };
        match lines.iter_mut().find(same) {
            Some(line) => {
                line.spent_ns += spent_ns;
                line.times += 1;
            }
            None => {
                lines.push(LossLine { state, reason: piece.reason.clone(), planned, micro, times: 1, spent_ns });
            }
        }
    }

    fn reject(&mut self, late: &LateReject) {
        let same = |line: &&mut LateLine| (&line.station, &line.code) == (&late.station, &late.code);
        match self.late.iter_mut().find(same) {
            Some(line) => line.parts += late.parts,
            None => {
                let LateReject { station, code, parts, .. } = late.clone();
                self.late.push(LateLine { station, code, parts });
            }
        }
    }

    fn finish(&mut self, tally: &Tally, spec: &OeeSpec) {
        let run_ns = tally.bucket(Bucket::Run);
        self.run_ns = run_ns + tally.bucket(Bucket::Performance);
        self.planned_ns = self.run_ns + tally.bucket(Bucket::Availability);
        for lines in [&mut self.availability, &mut self.performance, &mut self.not_planned] {
            lines.sort_by_key(|line| std::cmp::Reverse(line.spent_ns));
        }
        self.late.sort_by(|one, other| {
            other
                .parts
                .total_cmp(&one.parts)
                .then_with(|| (&one.station, &one.code).cmp(&(&other.station, &other.code)))
        });
        let known = tally.ideal_ns(spec).filter(|_| tally.counts.total(spec).is_some());
        // Where nothing ran OEE is 0, whatever was counted.
        self.ideal_ns = known.map(|ideal_ns| if self.run_ns > 0 { ideal_ns } else { 0.0 });
        self.speed_ns = self.ideal_ns.map(|ideal_ns| real(run_ns) - ideal_ns);
        self.good_ns = self.ideal_ns.map(|ideal_ns| ideal_ns * tally.quality(spec).unwrap_or(0.0));
        self.quality_ns = self.ideal_ns.zip(self.good_ns).map(|(ideal_ns, good_ns)| ideal_ns - good_ns);
        let share = spec.startup.as_ref().map(|_| tally.startup_share(spec).unwrap_or(0.0));
        self.startup_ns = self.ideal_ns.zip(share).map(|(ideal_ns, share)| ideal_ns * share);
    }
}

/// Each figure with what it is the quotient of.
fn figures(tally: &Tally, view: &KpiView, waterfall: &Waterfall, spec: &OeeSpec) -> Vec<Figure> {
    let seconds = |what, ns: f64| Term { what, value: ns / 1e9, unit: "s" };
    let over = |numerator, denominator: Term| Some(Terms { numerator, denominator });
    let (planned, run) = (real(view.planned_ns), real(view.run_ns));
    let withheld = view
        .figures
        .coverage
        .is_some_and(|coverage| coverage < spec.min_coverage)
        .then_some("withheld: too much of the planned time is unknown (oee.min_coverage)");
    let nothing = (view.planned_ns == 0).then_some("no planned time is known");
    let no_ideal = waterfall.ideal_ns.is_none().then_some("of some part no ideal cycle time is known");
    let stood = (view.run_ns == 0).then_some("nothing ran");
    let fast = (view.run_ns > 0 && waterfall.ideal_ns.is_some_and(|ideal_ns| ideal_ns > run))
        .then_some("faster than ideal: check the ideal cycle time");
    let no_parts = tally.good_of_total(spec).is_none().then_some("no parts were counted");
    let quality = tally.good_of_total(spec).and_then(|(good, total)| {
        let parts = |what, value| Term { what, value, unit: "{part}" };
        if tally.is_mixed() {
            over(seconds("ideal time of all good parts", good), seconds("ideal time of all parts", total))
        } else {
            over(parts("good parts", good), parts("all parts", total))
        }
    });
    let assumed = view.quality_assumed.then_some("assumed: nothing counts rejects");
    let above_nothing = |terms: Option<Terms>| terms.filter(|terms| terms.denominator.value > 0.0);
    let all = real(view.planned_ns + view.unknown_ns);
    vec![
        Figure {
            name: "oee",
            value: view.figures.oee,
            terms: above_nothing(waterfall.good_ns.and_then(|good| {
                over(seconds("ideal time of good parts", good), seconds("known planned time", planned))
            })),
            note: withheld.or(nothing).or(no_ideal).or(stood).or(no_parts),
        },
        Figure {
            name: "availability",
            value: view.figures.availability,
            terms: above_nothing(over(seconds("run time", run), seconds("known planned time", planned))),
            note: withheld.or(nothing),
        },
        Figure {
            name: "performance",
            value: view.figures.performance,
            terms: above_nothing(
                waterfall
                    .ideal_ns
                    .and_then(|ideal_ns| over(seconds("ideal time of parts", ideal_ns), seconds("run time", run))),
            ),
            note: withheld.or(nothing).or(stood).or(no_ideal).or(fast),
        },
        Figure { name: "quality", value: view.figures.quality, terms: quality, note: no_parts.or(assumed) },
        Figure {
            name: "coverage",
            value: view.figures.coverage,
            terms: above_nothing(over(seconds("known planned time", planned), seconds("planned time", all))),
            note: (view.planned_ns + view.unknown_ns == 0).then_some("nothing was planned"),
        },
    ]
}
