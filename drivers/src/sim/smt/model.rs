//! The line as a discrete-event model, in milliseconds since its start.

use std::collections::VecDeque;
use std::time::Duration;

use super::machine::{Machine, NEVER, Phase};
use super::truth::Log;
use super::{Board, Defect, MachineState, Options, Product, SHORTEST, Station, Truth};
use crate::Time;

/// Boards that a buffer holds.
const BUFFER: usize = 4;
/// Boards in each buffer at the start, so that no machine begins starved.
const FILLED: usize = 2;
/// Milliseconds (real ones) from one measurement to the next.
const SAMPLING: u64 = 250;
/// How long, at speed 1, a machine waits for a board, or for room, before it says so.
const PATIENCE: f64 = 2000.0;

/// The line. It reads no clock and does no I/O: [`Model::advance`] is told how far time has come.
///
/// A machine that has no board, or no room for its board, still says that it produces for a moment (two seconds at
/// speed 1): the printer is the slowest, and nobody calls the AOI's wait for the next board a stop. That is lost
/// performance, not availability. Rejects leave the line where they are found.
///
/// Its log grows with each part: about 3 MB a day at speed 1.
#[derive(Clone, Debug)]
pub struct Model {
    options: Options,
    start: Time,
    machines: [Machine; 3],
    buffers: [VecDeque<Board>; 2],
    stack: Stack,
    next_sample: u64,
    logs: [Log; 3],
}

/// Something that happened at a machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// When; a whole millisecond.
    pub at: Time,
    /// Where.
    pub station: Station,
    /// What.
    pub change: Change,
    /// What the machine shows from then on.
    pub panel: Panel,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its state changed.
    State(MachineState),
    /// It took a board to work on.
    Board(Board),
    /// It finished a board; why the board is a reject, if it is one.
    Part(Board, Option<Defect>),
    /// It measured.
    Sample,
}

/// What a machine shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panel {
    /// Its state.
    pub state: MachineState,
    /// Parts it ever made.
    pub total: u32,
    /// Of them rejects.
    pub reject: u32,
    /// The board that it works on, or worked on last.
    pub board: Board,
    /// Why the last reject was one.
    pub defect: Option<Defect>,
    /// The printer's squeegee pressure (N) and paste temperature (°C); the AOI's score of its last board (0 to 1);
    /// the oven's three zones (°C).
    pub values: [f64; 3],
    /// Boards that wait before it; 0 for the printer, whose stack has no end.
    pub before: usize,
    /// Room in the buffer after it; 1 for the oven, after which there is always some.
    pub room: usize,
}

/// Bare boards, lot after lot.
#[derive(Clone, Debug)]
struct Stack {
    next: Board,
    /// Boards of this product still to come.
    left: u32,
}

impl Model {
    /// The line as it stands before `start`, when it begins to move. Before it, each machine is in setup, two boards
    /// wait in each buffer, and the counters stand where the days before left them. `start` is cut to the
    /// millisecond; a speed beyond [`Options::SPEEDS`] is brought into it.
    #[must_use]
    pub fn new(options: Options, start: Time) -> Self {
        let (slowest, fastest) = Options::SPEEDS.into_inner();
        let speed = if options.speed.is_nan() { 1.0 } else { options.speed.clamp(slowest, fastest) };
        let options = Options { speed, ..options };
        let mut machines = Station::ALL.map(|station| Machine::new(station, &options));
        let mut stack = Stack { next: machines[2].panel.board, left: machines[0].lots.whole(60, 100) };
        stack.next.serial += 1;
        let mut filled = || (0..FILLED).map(|_| stack.deal()).collect();
        let behind: VecDeque<_> = filled();
        let between = filled();
        let buffers = [between, behind];
        machines[1].panel.board = buffers[1][FILLED - 1];
        machines[0].panel.board = buffers[0][FILLED - 1];
        Self {
            options,
            start: Time(start.0.div_euclid(1_000_000) * 1_000_000),
            machines,
            buffers,
            stack,
            next_sample: SAMPLING,
            logs: [(); 3].map(|()| Log::new(MachineState::Setup)),
        }
    }

    /// When it began to move.
    #[must_use]
    pub fn start(&self) -> Time {
        self.start
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// When something happens next; always something does.
    #[must_use]
    pub fn next_at(&self) -> Time {
        self.time(self.next())
    }

    /// Lets happen what happens before `to`, and tells it in order. What happens does not depend on the steps in which
    /// time is advanced. A `to` that is past already does nothing.
    pub fn advance(&mut self, to: Time) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let at = self.next();
            if self.time(at) >= to {
                return events;
            }
            self.happen(at, &mut events);
        }
    }

    /// What a machine shows now.
    #[must_use]
    pub fn panel(&self, station: Station) -> Panel {
        let index = station.index();
        let before = index.checked_sub(1).map_or(0, |before| self.buffers[before].len());
        let room = self.buffers.get(index).map_or(1, |after| BUFFER - after.len());
        Panel { before, room, ..self.machines[index].panel }
    }

    /// What a machine did from `from` up to and without `to`. Before the start it was in setup; at the end its last
    /// state goes on.
    #[must_use]
    pub fn truth(&self, station: Station, from: Time, to: Time) -> Truth {
        self.logs[station.index()].truth(from, to)
    }

    fn time(&self, at: u64) -> Time {
        self.start + Duration::from_millis(at)
    }

    fn next(&self) -> u64 {
        self.machines.iter().map(|machine| machine.wake).fold(self.next_sample, u64::min)
    }

    /// All that happens at one instant: machines from the first to the last, until none has anything to do, then the
    /// measurements.
    fn happen(&mut self, at: u64, events: &mut Vec<Event>) {
        while let Some(index) = self.machines.iter().position(|machine| machine.wake <= at) {
            while self.step(index, at, events) {}
        }
        if self.next_sample == at {
            self.next_sample += SAMPLING;
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let seconds = SAMPLING as f64 / 1000.0 * self.options.speed;
            for station in Station::ALL {
                if self.machines[station.index()].sample(seconds) {
                    self.tell(station.index(), at, Change::Sample, events);
                }
            }
        }
    }

    /// Lets a machine do the next thing that it can do at once. False if there is none; then it knows when to look
    /// again.
    fn step(&mut self, index: usize, at: u64, events: &mut Vec<Event>) -> bool {
        let machine = &self.machines[index];
        let held = machine.held;
        match machine.phase {
            Phase::Idle { since } => match self.offered(index) {
                Some(_) if machine.panel.state != MachineState::Producing && at < held => self.wait(index, held),
                Some(board) if board.product == machine.tuned => {
                    self.take(index, at, events);
                    self.work(index, board, None, at, events)
                }
                Some(_) if at < held => self.wait(index, held),
                Some(board) => {
                    let until = at + self.machines[index].setup(&self.options);
                    self.take(index, at, events);
                    self.enter(index, Phase::Setting { board, until }, MachineState::Setup, at, events)
                }
                None => self.lack(index, MachineState::Starved, since, at, events),
            },
            Phase::Setting { until, .. } | Phase::Stopped { until, .. } if at < until => self.wait(index, until),
            Phase::Setting { board, .. } => {
                self.machines[index].tuned = board.product;
                self.work(index, board, None, at, events)
            }
            Phase::Stopped { board, left, .. } => self.work(index, board, Some(left), at, events),
            Phase::Working { board, left, from } => {
                let (end, stop) = (from + left, machine.stops_at(from));
                if at < end.min(stop) {
                    return self.wait(index, end.min(stop));
                }
                if stop < end {
                    let until = at + self.machines[index].stop(at - from, &self.options);
                    let phase = Phase::Stopped { board, left: end - at, until };
                    return self.enter(index, phase, MachineState::Down, at, events);
                }
                let defect = self.machines[index].finish(board, left);
                self.logs[index].part(self.time(at), defect);
                self.machines[index].phase =
                    if defect.is_some() { Phase::Idle { since: at } } else { Phase::Full { board, since: at } };
                self.tell(index, at, Change::Part(board, defect), events);
                true
            }
            Phase::Full { board, since } => match self.buffers.get_mut(index) {
                Some(after) if after.len() == BUFFER => self.lack(index, MachineState::Blocked, since, at, events),
                Some(_) if machine.panel.state == MachineState::Blocked && at < held => self.wait(index, held),
                after => {
                    if let Some(after) = after {
                        after.push_back(board);
                        self.wake(index + 1, at);
                    }
                    self.machines[index].phase = Phase::Idle { since: at };
                    true
                }
            },
        }
    }

    /// The next board for a machine.
    fn offered(&self, index: usize) -> Option<Board> {
        match index.checked_sub(1) {
            Some(before) => self.buffers[before].front().copied(),
            None => Some(self.stack.next),
        }
    }

    /// Takes the board that was offered.
    fn take(&mut self, index: usize, at: u64, events: &mut Vec<Event>) {
        let board = match index.checked_sub(1) {
            Some(before) => {
                self.wake(before, at);
                self.buffers[before].pop_front()
            }
            None => {
                let lots = &mut self.machines[0].lots;
                let board = self.stack.deal();
                if self.stack.left == 0 {
                    self.stack.left = lots.whole(150, 250);
                    self.stack.next.product = board.product.next();
                }
                Some(board)
            }
        };
        if let Some(board) = board {
            self.machines[index].panel.board = board;
            self.tell(index, at, Change::Board(board), events);
        }
    }

    /// Works on a board, anew or for what is left of its cycle.
    fn work(&mut self, index: usize, board: Board, left: Option<u64>, at: u64, events: &mut Vec<Event>) -> bool {
        let left = left.unwrap_or_else(|| self.machines[index].cycle(&self.options));
        self.enter(index, Phase::Working { board, left, from: at }, MachineState::Producing, at, events)
    }

    /// Has had no board, or no room, since then; says so when its patience is over.
    fn lack(&mut self, index: usize, state: MachineState, since: u64, at: u64, events: &mut Vec<Event>) -> bool {
        let machine = &self.machines[index];
        if machine.panel.state == state {
            return self.wait(index, NEVER);
        }
        let patience = match machine.panel.state {
            MachineState::Producing => self.options.compressed(PATIENCE, SHORTEST),
            _ => 0,
        };
        let due = machine.held.max(since + patience);
        if at < due {
            return self.wait(index, due);
        }
        let phase = machine.phase;
        self.enter(index, phase, state, at, events)
    }

    fn enter(&mut self, index: usize, phase: Phase, state: MachineState, at: u64, events: &mut Vec<Event>) -> bool {
        let machine = &mut self.machines[index];
        machine.phase = phase;
        if machine.panel.state != state {
            machine.panel.state = state;
            machine.held = at + SHORTEST;
            self.logs[index].state(self.time(at), state);
            self.tell(index, at, Change::State(state), events);
        }
        true
    }

    fn wait(&mut self, index: usize, until: u64) -> bool {
        self.machines[index].wake = until;
        false
    }

    /// Lets a machine look again: there is a board, or room.
    fn wake(&mut self, index: usize, at: u64) {
        self.machines[index].wake = at;
    }

    fn tell(&self, index: usize, at: u64, change: Change, events: &mut Vec<Event>) {
        let station = Station::ALL[index];
        events.push(Event { at: self.time(at), station, change, panel: self.panel(station) });
    }
}

impl Stack {
    fn deal(&mut self) -> Board {
        let board = self.next;
        self.next.serial += 1;
        self.left = self.left.saturating_sub(1);
        board
    }
}

impl Product {
    /// What is made after it.
    fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}
