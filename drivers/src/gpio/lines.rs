//! What the chip says of its lines, and who of us wants which.

use std::sync::Arc;

use super::config::{Input, Line, Output, Station};
use super::hardware::{Fault, Hardware, LineInfo};

/// The chip's lines, each for one user alone.
pub(super) struct Lines {
    there: Result<Vec<LineInfo>, Fault>,
    users: Arc<[User]>,
}

/// Who names a line, in one way of naming it.
pub(super) struct User {
    line: Line,
    /// The first of them: tags that name it alike share it.
    who: String,
}

impl Lines {
    /// Asks the chip.
    pub(super) fn of(hardware: &mut dyn Hardware, users: &Arc<[User]>) -> Self {
        Self { there: hardware.lines(), users: Arc::clone(users) }
    }

    /// Of a chip of which no line is wanted.
    pub(super) fn none() -> Self {
        Self { there: Ok(Vec::new()), users: Arc::default() }
    }

    /// The line's number on the chip. Only the chip knows which number a name is, so it is here that a line turns out to be
    /// named in two ways; who names it first has it.
    pub(super) fn find(&self, line: &Line) -> Result<u32, Fault> {
        let lines = self.there.as_ref().map_err(Clone::clone)?;
        let offset = offset(lines, line)?;
        let first = self.users.iter().find(|user| self::offset(lines, &user.line).ok() == Some(offset));
        let own = self.users.iter().find(|user| user.line == *line);
        match (first, own) {
            (Some(first), Some(own)) if first.line != own.line => Err(Fault::Busy(format!(
                "{line} ({}) is the same as {} ({}): name it in one way",
                own.who, first.line, first.who
            ))),
            _ => Ok(offset),
        }
    }
}

/// Who names which line: inputs first, in the order of the configuration.
pub(super) fn users(stations: &[Station], outputs: &[Output]) -> Arc<[User]> {
    let tag = |station: &Station, Input { name, line, .. }: &Input| User {
        line: line.clone(),
        who: format!("tag `{name}` of {}", station.name),
    };
    let inputs = stations.iter().flat_map(|station| station.inputs.iter().map(move |input| tag(station, input)));
    let lamp = |Output { name, line, .. }: &Output| User { line: line.clone(), who: format!("output `{name}`") };
    let mut users: Vec<User> = Vec::new();
    for user in inputs.chain(outputs.iter().map(lamp)) {
        if users.iter().all(|known| known.line != user.line) {
            users.push(user);
        }
    }
    users.into()
}

fn offset(lines: &[LineInfo], line: &Line) -> Result<u32, Fault> {
    match line {
        Line::Offset(offset) if lines.iter().any(|line| line.offset == *offset) => Ok(*offset),
        Line::Offset(offset) => {
            Err(Fault::Missing(format!("there is no line {offset}; the chip has {}, counted from 0", lines.len())))
        }
        Line::Name(name) => {
            let named: Vec<_> = lines.iter().filter(|line| line.name == **name).map(|line| line.offset).collect();
            match *named {
                [offset] => Ok(offset),
                [] => Err(Fault::Missing(format!("no line of the chip is called `{name}`"))),
                _ => Err(Fault::Missing(format!("several lines are called `{name}`: write one of {named:?}"))),
            }
        }
    }
}
