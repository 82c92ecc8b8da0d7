//! State machines that standards define, by their names and numbers, as gemba's states.

use crate::config::words::Word;
use crate::model::State;

/// A standard whose states need no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Preset {
    /// OPC 40001-1: MachineryItemState and MachineryOperationMode.
    Machinery,
    /// OPC 40100-1: the state machine of a vision system and its automatic mode.
    MachineVision,
    /// ISA TR88.00.02 (OPC 30050).
    Packml,
}

impl Word for Preset {
    const WHAT: &'static str = "preset of states";
    const FORM: &'static str = "`machinery`, `machine_vision` or `packml`";

    fn all() -> Vec<(&'static str, Self)> {
        vec![("machinery", Self::Machinery), ("machine_vision", Self::MachineVision), ("packml", Self::Packml)]
    }
}

/// A state of a standard: its name, its number where it has one of its own, and what it is to gemba.
type Row = (&'static str, Option<u8>, State);

/// The operation modes have numbers too, but the same ones as the item states.
const MACHINERY: [Row; 8] = [
    ("NotAvailable", Some(0), State::Down),
    ("OutOfService", Some(1), State::Down),
    ("NotExecuting", Some(2), State::Idle),
    ("Executing", Some(3), State::Producing),
    ("None", None, State::Unknown),
    ("Maintenance", None, State::Maintenance),
    ("Processing", None, State::Producing),
    ("Setup", None, State::Setup),
];

/// The numbers are the `StateNumber`s of Opc.Ua.MachineVision.NodeSet2.xml, version 1.0.0 of 2019-07-11. It goes on with those of the
/// step model (11 Entry, 12 Exit, 13 Wait, 14 Step), a machine inside the two executions that says nothing of the system's state.
const MACHINE_VISION: [Row; 8] = [
    ("Preoperational", Some(1), State::Setup),
    ("Halted", Some(2), State::Down),
    ("Error", Some(3), State::Down),
    ("Operational", Some(4), State::Idle),
    ("Initialized", Some(5), State::Setup),
    ("Ready", Some(6), State::Idle),
    ("SingleExecution", Some(7), State::Producing),
    ("ContinuousExecution", Some(8), State::Producing),
];

/// Suspended is a stop from outside (starved or blocked, PackML does not tell which), held one from within.
const PACKML: [Row; 18] = [
    ("Undefined", Some(0), State::Unknown),
    ("Clearing", Some(1), State::Down),
    ("Stopped", Some(2), State::Down),
    ("Starting", Some(3), State::Setup),
    ("Idle", Some(4), State::Idle),
    ("Suspended", Some(5), State::Starved),
    ("Execute", Some(6), State::Producing),
    ("Stopping", Some(7), State::Down),
    ("Aborting", Some(8), State::Down),
    ("Aborted", Some(9), State::Down),
    ("Holding", Some(10), State::Down),
    ("Held", Some(11), State::Down),
    ("Unholding", Some(12), State::Down),
    ("Suspending", Some(13), State::Starved),
    ("Unsuspending", Some(14), State::Starved),
    ("Resetting", Some(15), State::Setup),
    ("Completing", Some(16), State::Producing),
    ("Complete", Some(17), State::Idle),
];

impl Preset {
    fn rows(self) -> &'static [Row] {
        match self {
            Self::Machinery => &MACHINERY,
            Self::MachineVision => &MACHINE_VISION,
            Self::Packml => &PACKML,
        }
    }

    /// Every value that a device may send for it, as text: names and numbers.
    pub(super) fn entries(self) -> impl Iterator<Item = (String, State)> {
        self.rows().iter().flat_map(|&(name, number, state)| {
            let number = number.map(|number| (number.to_string(), state));
            [Some((name.to_owned(), state)), number].into_iter().flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn map(preset: Preset) -> HashMap<String, State> {
        let entries: Vec<_> = preset.entries().collect();
        let map: HashMap<_, _> = entries.iter().cloned().collect();
        assert_eq!(map.len(), entries.len(), "a value stands for one state");
        map
    }

    #[test]
    fn numbers_are_those_of_the_standards() {
        let packml = map(Preset::Packml);
        assert_eq!(packml.len(), 36);
        // ISA TR88.00.02-2015, table of state numbers.
        for (number, name) in [(1, "Clearing"), (4, "Idle"), (6, "Execute"), (11, "Held"), (17, "Complete")] {
            assert_eq!(packml[name], packml[&number.to_string()], "{name}");
        }
        assert_eq!((packml["6"], packml["5"], packml["9"]), (State::Producing, State::Starved, State::Down));

        // OPC 40100-1, tables 82 and 97, and its NodeSet.
        let vision = map(Preset::MachineVision);
        let numbers: Vec<_> = (1..=8).map(|number: u8| vision[&number.to_string()]).collect();
        let names = [
            "Preoperational",
            "Halted",
            "Error",
            "Operational",
            "Initialized",
            "Ready",
            "SingleExecution",
            "ContinuousExecution",
        ];
        assert_eq!(numbers, names.map(|name| vision[name]));
        assert_eq!((vision["3"], vision["8"]), (State::Down, State::Producing));

        // OPC 40001-1, clauses 12.2 and 13.2.
        let machinery = map(Preset::Machinery);
        let numbers: Vec<_> = (0..=3).map(|number: u8| machinery[&number.to_string()]).collect();
        assert_eq!(numbers, ["NotAvailable", "OutOfService", "NotExecuting", "Executing"].map(|name| machinery[name]));
        assert_eq!(machinery["Processing"], State::Producing);
        assert_eq!(machinery.len(), 12);
    }
}
