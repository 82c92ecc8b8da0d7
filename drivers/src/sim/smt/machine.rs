//! One machine: what it is in the middle of, when it stops, what it finds.

use super::chance::Chance;
use super::model::Panel;
use super::process::{self, Process};
use super::{Board, Defect, MachineState, Options, Product, SHORTEST, Station, whole};

/// No instant at all.
pub(super) const NEVER: u64 = u64::MAX;

/// A machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    station: Station,
    /// What it shows; the two about its neighbours are filled in by the line.
    pub(super) panel: Panel,
    pub(super) phase: Phase,
    /// When it has something to do next, if none of its neighbours does before.
    pub(super) wake: u64,
    /// Until when it stays in its state whatever happens.
    pub(super) held: u64,
    /// What it is set up for.
    pub(super) tuned: Product,
    /// Sizes of lots; the printer's.
    pub(super) lots: Chance,
    /// Milliseconds of work until the next short and the next long stop.
    stops: [u64; 2],
    /// How long the first breakdown lasts (ms at speed 1), if somebody is to see both its ends.
    first_breakdown: Option<f64>,
    /// Boards until a reject that comes for sure, so that there is one to see soon.
    first_reject: Option<u32>,
    cycles: Chance,
    trouble: Chance,
    defects: Chance,
    measuring: Chance,
    process: Process,
}

/// What a machine is in the middle of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// It has had no board since then.
    Idle { since: u64 },
    /// It is made ready for this board.
    Setting { board: Board, until: u64 },
    /// It has worked since then on this board, on which so much is left to do.
    Working { board: Board, left: u64, from: u64 },
    /// It stands, with this board in it.
    Stopped { board: Board, left: u64, until: u64 },
    /// It has been done with this board since then.
    Full { board: Board, since: u64 },
}

/// The kinds of stops.
const MICRO: usize = 0;
const BREAKDOWN: usize = 1;

impl Machine {
    pub(super) fn new(station: Station, options: &Options) -> Self {
        let [mut start, cycles, trouble, defects, mut measuring, lots] =
            [0, 1, 2, 3, 4, 5].map(|use_| Chance::new(options.seed, 10 * station as u64 + use_));
        // The line's first serial number comes before all others, so it must not depend on the machine.
        let serial = Chance::new(options.seed, 100).whole(100, 400);
        let total = start.whole(18_000, 20_000);
        let mut process = Process::new(station, &mut measuring);
        let values = process.sample(0.0, &mut measuring).unwrap_or([0.965, 0.0, 0.0]);
        let mut machine = Self {
            station,
            panel: Panel {
                state: MachineState::Setup,
                total,
                reject: total / start.whole(60, 90),
                board: Board { product: Product::EcuA7, serial },
                defect: None,
                values,
                before: 0,
                room: 0,
            },
            phase: Phase::Idle { since: 0 },
            wake: 0,
            held: 0,
            tuned: Product::EcuA7,
            lots,
            stops: [0; 2],
            first_breakdown: None,
            first_reject: None,
            cycles,
            trouble,
            defects,
            measuring,
            process,
        };
        machine.stops = [machine.work_until(MICRO, options), machine.work_until(BREAKDOWN, options)];
        // Somebody is looking: the first minute shows a short stop, a reject and a breakdown.
        match station {
            Station::Printer => machine.stops[MICRO] = scaled(start.between(4_000.0, 9_000.0), MICRO, options),
            Station::Aoi => {
                machine.first_reject = Some(start.whole(4, 9));
                machine.stops[BREAKDOWN] = scaled(start.between(20_000.0, 30_000.0), BREAKDOWN, options);
                machine.first_breakdown = Some(start.between(30_000.0, 40_000.0));
            }
            Station::Oven => {}
        }
        machine
    }

    /// How long this cycle takes: the ideal and a little more, never less.
    pub(super) fn cycle(&mut self, options: &Options) -> u64 {
        whole(options.ideal(self.station).as_secs_f64() * 1000.0 * self.cycles.between(1.0, 1.06))
    }

    /// How long this setup takes.
    pub(super) fn setup(&mut self, options: &Options) -> u64 {
        let (least, most) = match self.station {
            Station::Printer => (15_000.0, 25_000.0),
            Station::Aoi => (4_000.0, 8_000.0),
            Station::Oven => (8_000.0, 15_000.0),
        };
        options.compressed(self.trouble.between(least, most), SHORTEST)
    }

    /// When it stops next, if it works from `from` on.
    pub(super) fn stops_at(&self, from: u64) -> u64 {
        (from + self.stops[MICRO].min(self.stops[BREAKDOWN])).max(self.held)
    }

    /// Stops, after so much work since the last time. How long for.
    pub(super) fn stop(&mut self, worked: u64, options: &Options) -> u64 {
        let kind = if self.stops[MICRO] <= self.stops[BREAKDOWN] { MICRO } else { BREAKDOWN };
        self.wear(worked);
        self.stops[kind] = self.work_until(kind, options);
        let lasts = match kind {
            MICRO => 2_000.0 + 13_000.0 * self.trouble.unit().powi(2),
            _ => self.first_breakdown.take().unwrap_or_else(|| (30_000.0 + self.trouble.wait(45_000.0)).min(240_000.0)),
        };
        scaled(lasts, kind, options)
    }

    /// Finishes a board with the last so much work; why it is a reject, if it is one.
    pub(super) fn finish(&mut self, board: Board, worked: u64) -> Option<Defect> {
        self.wear(worked);
        let clogging = process::clogging(board.serial);
        let mut defect = process::defect(self.station, board.product, clogging, &mut self.defects);
        self.first_reject = self.first_reject.and_then(|left| left.checked_sub(1));
        if self.first_reject == Some(0) {
            defect = defect.or_else(|| Some(process::why(self.station, board.product, &mut self.defects)));
        }
        if let Station::Aoi = self.station {
            self.panel.values[0] = process::score(clogging, defect.is_some(), &mut self.measuring);
        }
        self.panel.total = self.panel.total.wrapping_add(1);
        if defect.is_some() {
            self.panel.reject = self.panel.reject.wrapping_add(1);
            self.panel.defect = defect;
        }
        defect
    }

    /// Measures. False if it has nothing to measure with.
    pub(super) fn sample(&mut self, seconds: f64) -> bool {
        let Some(values) = self.process.sample(seconds, &mut self.measuring) else { return false };
        self.panel.values = values;
        true
    }

    fn wear(&mut self, worked: u64) {
        self.stops = self.stops.map(|left| left.saturating_sub(worked));
    }

    /// Work until the next stop of that kind.
    fn work_until(&mut self, kind: usize, options: &Options) -> u64 {
        let mean = match (self.station, kind) {
            (Station::Printer, MICRO) => 150_000.0,
            (Station::Aoi, MICRO) => 200_000.0,
            (Station::Oven, MICRO) => 240_000.0,
            (Station::Printer, _) => 2_400_000.0,
            (Station::Aoi, _) => 2_700_000.0,
            (Station::Oven, _) => 3_600_000.0,
        };
        scaled(self.trouble.wait(mean), kind, options)
    }
}

/// Milliseconds of stops and of what is between them. Where the shortest stop would be too short to be seen, all of
/// that kind are stretched alike, so that they cost as much time as ever.
fn scaled(ms: f64, kind: usize, options: &Options) -> u64 {
    let shortest = if kind == MICRO { 2_000.0 } else { 30_000.0 };
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let factor = (1.0 / options.speed).max(SHORTEST as f64 / shortest);
    whole(ms * factor)
}
