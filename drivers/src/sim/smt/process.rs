//! What the machines measure: values that drift.

use super::chance::Chance;
use super::{Defect, Product, Station};

/// Boards from one cleaning of the stencil to the next.
const CLEANING: u32 = 400;
/// Seconds from one kneading of the paste to the next.
const KNEADING: f64 = 600.0;

/// How clogged the stencil was for that board: 0 clean, near 1 just before it is cleaned.
pub(super) fn clogging(serial: u32) -> f64 {
    f64::from(serial % CLEANING) / f64::from(CLEANING)
}

/// What a machine measures.
#[derive(Clone, Debug)]
pub(super) enum Process {
    /// Pressure rises while the paste hardens, falls when it is kneaded.
    Printer { hardening: f64, paste: Drift },
    /// The score of the last board.
    Aoi,
    /// Zone temperatures.
    Oven([Drift; 3]),
}

/// A value that wanders about its setpoint and is drawn back (an Ornstein-Uhlenbeck process), seen with noise.
#[derive(Clone, Debug)]
pub(super) struct Drift {
    setpoint: f64,
    /// Standard deviation of the wandering.
    reach: f64,
    /// Seconds after which it has forgotten where it was.
    memory: f64,
    noise: f64,
    away: f64,
}

impl Process {
    pub(super) fn new(station: Station, chance: &mut Chance) -> Self {
        let mut drift = |setpoint, reach, memory, noise| {
            let away = reach * chance.noise();
            Drift { setpoint, reach, memory, noise, away }
        };
        match station {
            Station::Printer => Self::Printer { paste: drift(23.5, 0.5, 900.0, 0.05), hardening: 0.3 * KNEADING },
            Station::Aoi => Self::Aoi,
            Station::Oven => Self::Oven([150.0, 200.0, 245.0].map(|setpoint| drift(setpoint, 1.2, 300.0, 0.15))),
        }
    }

    /// What is measured `seconds` of the line's time after the last time; `None` where nothing is measured but boards.
    pub(super) fn sample(&mut self, seconds: f64, chance: &mut Chance) -> Option<[f64; 3]> {
        match self {
            Self::Printer { hardening, paste } => {
                *hardening = (*hardening + seconds) % KNEADING;
                let pressure = 57.0 + 6.0 * *hardening / KNEADING + 0.25 * chance.noise();
                Some([rounded(pressure, 100.0), paste.sample(seconds, chance), 0.0])
            }
            Self::Aoi => None,
            Self::Oven(zones) => Some(zones.each_mut().map(|zone| zone.sample(seconds, chance))),
        }
    }
}

impl Drift {
    fn sample(&mut self, seconds: f64, chance: &mut Chance) -> f64 {
        let kept = (-seconds / self.memory).exp();
        self.away = self.away * kept + self.reach * (1.0 - kept * kept).sqrt() * chance.noise();
        rounded(self.setpoint + self.away + self.noise * chance.noise(), 100.0)
    }
}

/// The AOI's score of a board, between 0 and 1: worse as the stencil clogs, much worse for a reject.
pub(super) fn score(clogging: f64, rejected: bool, chance: &mut Chance) -> f64 {
    let score = if rejected { chance.between(0.55, 0.80) } else { 0.985 - 0.05 * clogging + 0.006 * chance.noise() };
    rounded(score.clamp(0.0, 1.0), 10_000.0)
}

/// Why that board fails at that machine, if it does.
pub(super) fn defect(station: Station, product: Product, clogging: f64, chance: &mut Chance) -> Option<Defect> {
    let probability = match (station, product) {
        (Station::Printer, _) => 0.004,
        (Station::Aoi, Product::EcuA7) => 0.008 + 0.025 * clogging,
        (Station::Aoi, Product::EcuB2) => 0.014 + 0.030 * clogging,
        (Station::Aoi, Product::Bms48) => 0.006 + 0.020 * clogging,
        (Station::Oven, _) => 0.002,
    };
    chance.happens(probability).then(|| why(station, product, chance))
}

/// Why a board that fails at that machine does; each product has its own weaknesses.
pub(super) fn why(station: Station, product: Product, chance: &mut Chance) -> Defect {
    use Defect::{Bridge, Insufficient, Missing, PasteInsufficient, PasteOffset, PasteSmeared, Tombstone};
    let weights = match (station, product) {
        (Station::Printer, _) => {
            return [PasteInsufficient, PasteSmeared, PasteOffset][chance.pick(&[5.0, 3.0, 2.0])];
        }
        (Station::Oven, _) => return Defect::Profile,
        (Station::Aoi, Product::EcuA7) => [5.0, 2.0, 1.0, 3.0],
        (Station::Aoi, Product::EcuB2) => [2.0, 5.0, 2.0, 1.0],
        (Station::Aoi, Product::Bms48) => [1.0, 1.0, 3.0, 5.0],
    };
    [Bridge, Tombstone, Missing, Insufficient][chance.pick(&weights)]
}

/// To what the instrument shows.
fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
