//! What the line model is told, resolved by [`crate::config`].

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::{TagId, Time};
use jiff::civil;
use serde::{Deserialize, Serialize};

use crate::model::State;
use crate::model::losses::{Bucket, Preset};

/// A shift, in wall-clock time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftSpec {
    /// Its name (`factory.shift`).
    pub name: Arc<str>,
    /// The days on which it starts, Monday first.
    pub days: [bool; 7],
    /// When it starts.
    pub start: civil::Time,
    /// When it ends; at or before `start` means the next day.
    pub end: civil::Time,
    /// Time in it that is not planned for production; each within the shift, none overlapping.
    pub breaks: Vec<(civil::Time, civil::Time)>,
}

/// A day that is not as the week has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionalDay {
    /// In the line's time zone.
    pub date: civil::Date,
    /// For people.
    pub name: Option<Arc<str>>,
    /// What starts on it instead of the week's shifts, whatever their `days`; none on a holiday. What started the day before
    /// still ends as planned.
    pub shifts: Vec<ShiftSpec>,
}

/// What the whole line knows, whatever the station.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Knowledge {
    /// Why a machine may stand, in the order written: a parent stands before its children.
    pub reasons: Vec<Reason>,
    /// What may be made.
    pub products: Vec<Product>,
}

/// Why a machine stands. What a parent says holds for its children, unless they say otherwise; here it is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// Its code, unique in the line (`factory.reason`).
    pub code: Arc<str>,
    /// For people; the code where nothing is said.
    pub name: Arc<str>,
    /// Index of the reason above it.
    pub parent: Option<usize>,
    /// Where its time belongs, whatever the preset says of the state.
    pub bucket: Option<Bucket>,
    /// Somebody wanted it so (`factory.planned`).
    pub planned: bool,
    /// It counts for MTBF and MTTR. Without a word: down is a failure, other states are not.
    pub is_failure: Option<bool>,
}

/// What a station may make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Product {
    /// As its context tag tells it.
    pub name: Arc<str>,
    /// The time a part takes at best, each valid from an instant on, in order of time; the first from ever
    /// (`Time(i64::MIN)`) where nothing else is said. Before the first, or if there is none: that of the station.
    pub ideal_cycle_time: Vec<(Time, Duration)>,
    /// The time between two parts that are asked for, for target against actual. Without it the ideal cycle time counts.
    pub takt: Option<Duration>,
    /// How many parts a cycle makes, such as the cavities of a mould; a counter that counts cycles is multiplied by it.
    pub parts_per_cycle: Option<f64>,
    /// Opportunities for a defect in one part (DPMO).
    pub opportunities: Option<f64>,
    /// What the material of one part costs, in the line's currency.
    pub material_cost: Option<f64>,
}

/// What is computed for a station.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OeeSpec {
    /// The time a part takes at best; without it performance and OEE cannot be known.
    pub ideal_cycle_time: Option<Duration>,
    /// Which tag tells the state; without it the state is unknown.
    pub state: Option<StateSpec>,
    /// Counts all parts.
    pub total: Option<CounterSpec>,
    /// Counts good parts.
    pub good: Option<CounterSpec>,
    /// Counts rejected parts.
    pub reject: Option<CounterSpec>,
    /// Counts reworked parts: good after all, and not at the first pass.
    pub rework: Option<CounterSpec>,
    /// Where time belongs.
    pub losses: Preset,
    /// Stops so short that they are slow running.
    pub micro_stops: Option<MicroStops>,
    /// Which tags tell why it stands.
    pub reason: Option<ReasonSpec>,
    /// Without a tag for it, the state follows from the parts.
    pub by_count: Option<ByCount>,
    /// Counts energy.
    pub energy: Option<EnergySpec>,
    /// What time and energy cost here; what the line says is filled in.
    pub costs: Rates,
    /// Below this coverage (0 to 1) oee, availability and performance are withheld.
    pub min_coverage: f64,
    /// What start-ups are; without it rejects are not told apart.
    pub startup: Option<StartupSpec>,
    /// How long the last minutes are that the page shows beside the shift; without it it shows none.
    pub rolling: Option<Duration>,
    /// Stations whose rejects count here, when the part was made; each once.
    pub late: Vec<LateSpec>,
}

/// A later station whose rejects count where and when the part was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateSpec {
    /// Index of that station, another one; no station is its own by way of others.
    pub from: usize,
    /// Its name.
    pub station: Arc<str>,
    /// How a part is known again there.
    pub by: LateBy,
    /// The longest that may lie between; at most 26 h, for so long facts are held.
    pub within: Duration,
}

/// How a part is known again at a later station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LateBy {
    /// Each has a serial.
    Serial,
    /// It belongs to a lot.
    Lot,
}

impl LateBy {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Serial, Self::Lot];

    /// The word used in configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Lot => "lot",
        }
    }
}

/// Which tag tells the state, and in what words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// The tag.
    pub tag: TagId,
    /// From the tag's value, as text (`1`, `Execute`, `true`), to the state.
    pub map: Vec<(String, State)>,
}

/// Stops that count as performance loss instead of availability loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroStops {
    /// A stop shorter than this is one, whatever shifts it touches; while it lasts, as long as it has been shorter.
    pub limit: Duration,
    /// In which states.
    pub states: Vec<State>,
}

/// When a machine starts up: its rejects of that time are a loss of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct StartupSpec {
    /// It does when it runs again after one of these states.
    pub after: Vec<State>,
    /// And it does for so long.
    pub lasts: Lasts,
}

/// How long a start-up lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lasts {
    /// So much run time.
    Run(Duration),
    /// Until so many parts were made, good or not.
    Parts(f64),
}

/// Which tags tell why a machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonSpec {
    /// Each with what its values mean: the value as text (`17`, `true`, `E-STOP`), and the index of the reason. A value that
    /// is not listed is no reason.
    pub tags: Vec<(TagId, Vec<(String, usize)>)>,
    /// The first that was told within so long before or after the beginning of the stop is its reason; those that follow
    /// from it are not.
    pub first_out: Duration,
}

/// How the state follows from parts.
#[derive(Clone, Debug, PartialEq)]
pub struct ByCount {
    /// The machine stands when no part came for so many ideal cycle times.
    pub stopped_after: f64,
    /// What it is then, from the end of its last cycle on.
    pub state: State,
}

/// A tag that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterSpec {
    /// The tag.
    pub tag: TagId,
    /// Where it rolls over to zero: 65536 for a 16-bit register that counts through. `None`: a fall is a reset.
    pub modulus: Option<f64>,
    /// Counts a second; a jump above it is quarantined to the loss ledger.
    pub max_rate: Option<f64>,
    /// Parts that one count stands for; `None` is one.
    pub parts_per_count: Option<f64>,
    /// It counts cycles: what a count stands for is the product's `parts_per_cycle`, too.
    pub cycles: bool,
}

/// A tag that counts energy.
#[derive(Clone, Debug, PartialEq)]
pub struct EnergySpec {
    /// Its `parts_per_count` and `cycles` say nothing.
    pub counter: CounterSpec,
    /// What a count stands for, in joules.
    pub joules_per_count: f64,
}

/// What is paid on the line.
#[derive(Clone, Debug, PartialEq)]
pub struct CostSpec {
    /// Of every cost of the line: an ISO 4217 code.
    pub currency: Arc<str>,
    /// Where a station says nothing else; [`OeeSpec::costs`] has what counts there.
    pub rates: Rates,
}

/// What time and energy cost, in the line's currency. `None`: nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// A kilowatt-hour (3.6e6 J).
    pub energy_per_kwh: Option<f64>,
    /// An hour, whatever the machine does.
    pub time_per_hour: Option<f64>,
}

/// How parts flow through the line, by indices of stations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// In the order in which a part comes by; never empty, each once.
    pub stations: Vec<usize>,
    /// Sets the pace: its ideal cycle time is that of the line. `None`: the line has no OEE. One of `stations`.
    pub constraint: Option<usize>,
    /// Its good parts are those of the line. One of `stations`.
    pub end: usize,
    /// Whose pace the line is measured by.
    pub by: LineBy,
}

/// Whose pace a line is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineBy {
    /// The constraint's; without one there is no figure.
    #[default]
    Constraint,
    /// The last station's.
    Last,
    /// All stations', each by its planned time.
    Weighted,
}

impl LineBy {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Constraint, Self::Last, Self::Weighted];

    /// The word used in configuration and beside the number.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Constraint => "constraint",
            Self::Last => "last",
            Self::Weighted => "weighted",
        }
    }
}

impl CounterSpec {
    /// A counter as most are: each count is a part, a fall is a reset, any jump is believed.
    #[must_use]
    pub fn of(tag: TagId) -> Self {
        Self { tag, modulus: None, max_rate: None, parts_per_count: None, cycles: false }
    }
}
