//! The line as a discrete-event model.

use super::{Board, Defect, MachineState, Options, Station, Truth, truth::Log};
use crate::Time;

/// The line. It reads no clock and does no I/O: [`Model::advance`] is told how far time has come.
#[derive(Clone, Debug)]
pub struct Model {
    options: Options,
    start: Time,
    logs: [Log; 3],
    panels: [Panel; 3],
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
    pub before: u8,
    /// Boards that wait after it; 0 for the oven, after which there is always room.
    pub after: u8,
}

impl Model {
    /// The line as it stands before `start`, when it begins to move. Before it, each machine is in setup, with a board
    /// of the first product in it, and its counters stand where the days before left them. `start` is cut to the millisecond; a speed
    /// beyond [`Options::SPEEDS`] is brought into it.
    #[must_use]
    pub fn new(options: Options, start: Time) -> Self {
        todo!("{options:?} {start}")
    }

    /// When it began to move.
    #[must_use]
    pub fn start(&self) -> Time {
        self.start
    }

    /// How long a part takes at best at this line's speed.
    #[must_use]
    pub fn options(&self) -> Options {
        self.options
    }

    /// When something happens next; always something does.
    #[must_use]
    pub fn next_at(&self) -> Time {
        todo!()
    }

    /// Lets happen what happens before `to`, and tells it in order. What happens does not depend on the steps in which time is
    /// advanced.
    pub fn advance(&mut self, to: Time) -> Vec<Event> {
        todo!("{to}")
    }

    /// What a machine shows now.
    #[must_use]
    pub fn panel(&self, station: Station) -> Panel {
        self.panels[station.index()]
    }

    /// What a machine did from `from` up to and without `to`. Before the start it was in setup; at the end its last
    /// state goes on.
    #[must_use]
    pub fn truth(&self, station: Station, from: Time, to: Time) -> Truth {
        self.logs[station.index()].truth(from, to)
    }
}
