//! A simulated SMT line: `printer-1` → `aoi-1` → `oven-1`, with small buffers between.
//!
//! [`Model`] is the line itself: seeded, and pure, since time is a parameter. [`Plant`] serves it over the real
//! protocols on loopback. [`Truth`] is what the model knows of a span of time, to hold against what a reader of the
//! protocols made of it.
//!
//! Every instant of the model is a whole millisecond, since that is all that the oven's payload can tell. At a higher
//! [`Options::speed`] everything takes less time, except that no state lasts shorter than [`SHORTEST_STATE`], so
//! that a poll every 100 ms sees each of them. Where that bound bites, stops last longer and come as much more seldom.

mod chance;
mod machine;
mod model;
mod oven;
mod process;
mod served;
#[cfg(test)]
mod tests;
mod truth;

use std::fmt;
use std::time::Duration;

pub use model::{Change, Event, Model, Panel};
pub use served::{NAMESPACE, Plant, Served, TOPIC};
pub use truth::Truth;

/// No state is shorter than this, at any speed.
pub const SHORTEST_STATE: Duration = Duration::from_millis(SHORTEST);
const SHORTEST: u64 = 250;

/// What a line is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The same seed, the same speed and the same start give the same history.
    pub seed: u64,
    /// How often faster than life everything goes; within [`Options::SPEEDS`].
    pub speed: f64,
}

impl Options {
    /// Slower than that nothing happens; faster than that a cycle comes near the millisecond that times are told in.
    pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=100.0;

    /// How long a part takes at best, in real time at this speed: 1.2 s for the printer and 1 s for the others, over
    /// the speed, in whole milliseconds. No cycle of the model is shorter.
    #[must_use]
    pub fn ideal(&self, station: Station) -> Duration {
        let at_speed_one = match station {
            Station::Printer => 1200.0,
            Station::Aoi | Station::Oven => 1000.0,
        };
        Duration::from_millis(self.compressed(at_speed_one, 1))
    }

    /// `ms` milliseconds of the line in real ones, at least `least` of them.
    fn compressed(&self, ms: f64, least: u64) -> u64 {
        whole(ms / self.speed).max(least)
    }
}

/// Whole milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "days at most, and positive")]
fn whole(ms: f64) -> u64 {
    ms.round() as u64
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, speed: 1.0 }
    }
}

/// A machine of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Station {
    /// `printer-1`: prints solder paste; takes boards from an endless stack.
    Printer,
    /// `aoi-1`: inspects, and sorts out what is not good.
    Aoi,
    /// `oven-1`: solders.
    Oven,
}

impl Station {
    /// In the order that boards meet them.
    pub const ALL: [Self; 3] = [Self::Printer, Self::Aoi, Self::Oven];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Printer => "printer-1",
            Self::Aoi => "aoi-1",
            Self::Oven => "oven-1",
        }
    }

    /// The machine of that [`Station::name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|station| station.name() == name)
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MachineState {
    /// It works on a board, or waits for the next one so shortly that nobody calls it a stop.
    Producing,
    /// It has had nothing to work on for a while.
    Starved,
    /// It has not been rid of its board for a while, since the buffer after it is full.
    Blocked,
    /// It is made ready for another product.
    Setup,
    /// It stands: a micro-stop or a breakdown.
    Down,
}

impl MachineState {
    /// In the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Producing, Self::Starved, Self::Blocked, Self::Setup, Self::Down];

    /// 1 to 5, as the printer tells it (Modbus).
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16 + 1
    }

    /// As the AOI tells it (OPC UA): `Execute`, `Suspended`, `Blocked`, `Setup`, `Held`.
    #[must_use]
    pub fn aoi_word(self) -> &'static str {
        match self {
            Self::Producing => "Execute",
            Self::Starved => "Suspended",
            Self::Blocked => "Blocked",
            Self::Setup => "Setup",
            Self::Down => "Held",
        }
    }

    /// As the oven tells it (MQTT): `running`, `waiting`, `blocked`, `setup`, `stopped`.
    #[must_use]
    pub fn oven_word(self) -> &'static str {
        match self {
            Self::Producing => "running",
            Self::Starved => "waiting",
            Self::Blocked => "blocked",
            Self::Setup => "setup",
            Self::Down => "stopped",
        }
    }
}

/// What the line makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// Number 1.
    EcuA7,
    /// Number 2.
    EcuB2,
    /// Number 3.
    Bms48,
}

impl Product {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::EcuA7, Self::EcuB2, Self::Bms48];

    /// 1 to 3, as the printer tells it.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16 + 1
    }

    /// `ECU-A7`, `ECU-B2` or `BMS-48`, as the others tell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcuA7 => "ECU-A7",
            Self::EcuB2 => "ECU-B2",
            Self::Bms48 => "BMS-48",
        }
    }
}

/// A board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Board {
    /// What it will be.
    pub product: Product,
    /// Unique on the line.
    pub serial: u32,
}

impl fmt::Display for Board {
    /// Its serial number, e.g. `ECU-A7-000123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:06}", self.product.name(), self.serial)
    }
}

/// Why a board was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Defect {
    /// Printer, 1: too little paste.
    PasteInsufficient,
    /// Printer, 2: too much paste, or smeared.
    PasteSmeared,
    /// Printer, 3: paste beside its pads.
    PasteOffset,
    /// AOI: solder joins what it should not.
    Bridge,
    /// AOI: a part stands on its end.
    Tombstone,
    /// AOI: a part is not there.
    Missing,
    /// AOI: too little solder.
    Insufficient,
    /// Oven, which does not tell it: the profile was left.
    Profile,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PasteInsufficient,
        Self::PasteSmeared,
        Self::PasteOffset,
        Self::Bridge,
        Self::Tombstone,
        Self::Missing,
        Self::Insufficient,
        Self::Profile,
    ];

    /// As the AOI tells it, and as [`Truth::defects`] names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PasteInsufficient => "PASTE_INSUFFICIENT",
            Self::PasteSmeared => "PASTE_SMEARED",
            Self::PasteOffset => "PASTE_OFFSET",
            Self::Bridge => "BRIDGE",
            Self::Tombstone => "TOMBSTONE",
            Self::Missing => "MISSING",
            Self::Insufficient => "INSUFFICIENT",
            Self::Profile => "PROFILE",
        }
    }

    /// 1 to 8, as the printer tells it; 0 stands for none.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16 + 1
    }
}
