//! Looking at a device without running.
//!
//! Modbus has no list of what a device holds and no types. So a probe tells what the same registers would be in every other
//! order, and a browse searches the four tables: it asks for a stretch, and halves what is refused for its address.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Client;
use super::config::{Table, Tag};
use super::decode::{decode, otherwise};
use super::frame::{Answer, Oddity};
use super::plan::{Plan, Read};
use super::poll::may_blame_address;
use super::wire::{Failure, Wire};
use crate::survey::{Offered, Probed, Scope, Survey};
use crate::{Driver, LinkError, OwnStatus, Reading, Status, Time, Value};

/// A probe asks no more of a unit that was silent so often in a row: each of its tags would take a timeout. One that has answered
/// something is given more: some say nothing where they have nothing.
const GIVEN_UP: [u32; 2] = [2, 8];
/// What a search rests between two requests, if the link has no pause of its own: the device has a machine to run.
const GENTLE: Duration = Duration::from_millis(10);
/// How many registers or bits a search asks for at once.
const STRETCH: u32 = 64;
/// Of a stretch that is refused, pieces so small are taken apart only if something else in the stretch is there; of others the
/// first register is looked at.
const PIECE: u32 = 8;
/// Below this each register is looked at: small devices have little, and have it here.
const NEAR: u32 = 128;
/// After so many stretches in a row with nothing in them only [`ROUND`] numbers are looked at. A search of all 65,536 would
/// take minutes on a serial line.
const EMPTY: u32 = 8;
/// Multiples of these, where manuals begin their blocks.
const ROUND: [u32; 2] = [500, 1024];

impl Survey for Client {
    async fn probe(&mut self, told: &mut (dyn FnMut(Probed) + Send)) -> Result<(), LinkError> {
        if self.wire.is_none() {
            self.connect().await?;
        }
        let of_plan = |plan: &Plan| plan.slots.iter().map(|tag| (*tag, plan.unit, plan.timeout)).collect::<Vec<_>>();
        let mut asked: Vec<_> = self.plans.iter().flat_map(of_plan).collect();
        asked.sort_by_key(|(tag, ..)| tag.id);
        let mut silences: BTreeMap<u8, (bool, u32)> = BTreeMap::new();
        for (tag, unit, timeout) in asked {
            let (heard, silence) = silences.entry(unit).or_default();
            let Some(wire) = self.wire.as_mut().filter(|_| *silence < GIVEN_UP[usize::from(*heard)]) else {
                told(probed(&tag, Err(Failure::Unanswered(None)), Duration::ZERO)?);
                continue;
            };
            let read = Read::of(tag.address.table, tag.address.offset, tag.width());
            let began = Instant::now();
            let answer = wire.ask(unit, &read, timeout).await;
            let round_trip = began.elapsed();
            let silent = matches!(answer, Err(Failure::Unanswered(_)));
            (*heard, *silence) = if silent { (*heard, *silence + 1) } else { (true, 0) };
            let is_rtu = wire.is_rtu();
            told(probed(&tag, answer, round_trip)?);
            if silent && is_rtu {
                sleep(timeout).await; // what comes late would answer the next tag
            }
        }
        self.close().await;
        Ok(())
    }

    async fn browse(&mut self, scope: &Scope, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        let station = self.stations.iter().find(|(station, ..)| *station == scope.station);
        let (unit, timeout) = station
            .map(|&(_, unit, timeout)| (unit, timeout))
            .ok_or_else(|| LinkError::Refused(format!("no station `{}` on this link", scope.station)))?;
        if self.wire.is_none() {
            self.connect().await?;
        }
        let pause = if self.pause.is_zero() { GENTLE } else { self.pause };
        let wire = self.wire.as_mut().ok_or_else(|| LinkError::Broken("not connected".to_owned()))?;
        let mut search = Search {
            wire,
            unit,
            timeout,
            pause,
            left: scope.most,
            refused: None,
            answered: false,
            lacking: Vec::new(),
        };
        let mut outcome = Ok(());
        for table in Table::ALL {
            outcome = search.table(table, found).await;
            if outcome.is_err() || search.left == 0 {
                break;
            }
        }
        let (answered, refused) = (search.answered, search.refused);
        self.close().await;
        outcome?;
        match refused {
            _ if answered => Ok(()),
            Some(code) => Err(LinkError::Refused(format!(
                "unit {unit} is there and refused all of it; the last time with {}",
                Status::Modbus(code).name()
            ))),
            None => Err(LinkError::Refused(format!("unit {unit} has nothing"))),
        }
    }
}

/// What is told of one tag.
fn probed(tag: &Tag, answer: Result<Answer, Failure>, round_trip: Duration) -> Result<Probed, LinkError> {
    let now = Time::now();
    let bad = |status| Reading::bad(tag.id, status, now, now);
    let mut others = Vec::new();
    let reading = match answer {
        Ok(Answer::Words(words)) => {
            others = otherwise(tag, &words);
            match decode(tag, &words) {
                Ok(value) => Reading::good(tag.id, value, now, now),
                Err(why) => bad(Status::Own(why)),
            }
        }
        Ok(Answer::Bits(bits)) => Reading::good(tag.id, Value::Bool(bits[0]), now, now),
        Ok(Answer::WrongLength) => bad(Status::Own(OwnStatus::WrongLength)),
        Ok(Answer::Refused(code)) => bad(Status::Modbus(code)),
        Err(Failure::Unanswered(_)) => bad(Status::Own(OwnStatus::NoAnswer)),
        Err(Failure::Link(error)) => return Err(error),
    };
    Ok(Probed { reading, round_trip, otherwise: others })
}

/// A search for what there is.
struct Search<'a> {
    wire: &'a mut Wire,
    unit: u8,
    timeout: Duration,
    pause: Duration,
    /// How many may yet be listed.
    left: usize,
    /// The last refusal.
    refused: Option<u8>,
    answered: bool,
    /// Tables that the device has not.
    lacking: Vec<Table>,
}

/// One past the last register.
const END: u32 = 1 << 16;

impl Search<'_> {
    /// What is in `table`.
    async fn table(&mut self, table: Table, found: &mut (dyn FnMut(Offered) + Send)) -> Result<(), LinkError> {
        let mut empty = 0;
        let mut offset = 0;
        while self.left > 0 && offset < END && !self.lacks(table) {
            if empty == EMPTY {
                let Some(next) = self.round_number(table, offset).await? else { break };
                (offset, empty) = (next, 0);
            }
            let stop = (offset + STRETCH).min(END);
            let some = self.stretch(table, offset, stop, found).await?;
            empty = if some { 0 } else { empty + 1 };
            offset = stop;
        }
        Ok(())
    }

    /// What is from `from` on and before `to`, in order. Whether there was something.
    async fn stretch(
        &mut self,
        table: Table,
        from: u32,
        to: u32,
        found: &mut (dyn FnMut(Offered) + Send),
    ) -> Result<bool, LinkError> {
        let mut values: BTreeMap<u32, Value> = BTreeMap::new();
        let mut small = Vec::new(); // refused, and not taken apart yet
        let mut open = vec![(from, to)];
        while let Some((from, to)) = open.pop() {
            if self.lacks(table) {
                break;
            }
            let half = from + (to - from) / 2;
            match self.ask(table, from, to - from).await? {
                Some(read) => values.extend((from..).zip(read)),
                None if to - from <= PIECE => small.push((from, to)),
                None => open.extend([(half, to), (from, half)]),
            }
        }
        if values.is_empty() {
            for (from, to) in std::mem::take(&mut small) {
                for at in if from < NEAR { from..to } else { from..from + 1 } {
                    if self.lacks(table) {
                        break;
                    }
                    if let Some(read) = self.ask(table, at, 1).await? {
                        values.extend((at..).zip(read));
                        small.push((at + 1, to));
                        break;
                    }
                }
            }
        }
        while let Some((from, to)) = small.pop() {
            if to - from < 2 {
                continue; // asked for alone already
            }
            let half = from + (to - from) / 2;
            for (from, to) in [(from, half), (half, to)] {
                match self.ask(table, from, to - from).await? {
                    Some(read) => values.extend((from..).zip(read)),
                    None => small.push((from, to)),
                }
            }
        }
        let some = !values.is_empty();
        for (at, value) in values.into_iter().take(self.left) {
            self.left -= 1;
            found(offered(table, at, value));
        }
        Ok(some)
    }

    /// The next round number at which something is.
    async fn round_number(&mut self, table: Table, from: u32) -> Result<Option<u32>, LinkError> {
        for at in (from..END).filter(|at| ROUND.iter().any(|round| at.is_multiple_of(*round))) {
            if self.lacks(table) {
                break;
            }
            if self.ask(table, at, 1).await?.is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether the device has said that it has no such table, or stopped talking.
    fn lacks(&self, table: Table) -> bool {
        self.lacking.contains(&table)
    }

    /// The registers or bits, or `None` where the device has none.
    async fn ask(&mut self, table: Table, offset: u32, quantity: u32) -> Result<Option<Vec<Value>>, LinkError> {
        sleep(self.pause).await;
        let (unit, limit) = (self.unit, self.timeout);
        let (Ok(offset), Ok(quantity)) = (u16::try_from(offset), u16::try_from(quantity)) else { return Ok(None) };
        let answer = match self.wire.ask(unit, &Read::of(table, offset, quantity), limit).await {
            Ok(answer) => answer,
            // Some say nothing where they have nothing. Waiting for that again and again would be no search.
            Err(Failure::Unanswered(_)) if self.answered || self.refused.is_some() => {
                self.lacking.push(table);
                sleep(limit).await;
                return Ok(None);
            }
            Err(Failure::Unanswered(odd)) => {
                let why = odd.map_or("nothing came", Oddity::hint);
                return Err(LinkError::Unreachable(format!("unit {unit} did not answer within {limit:?}: {why}")));
            }
            Err(Failure::Link(error)) => return Err(error),
        };
        let values = match answer {
            Answer::Words(words) => words.into_iter().map(|word| Value::Int(word.into())).collect(),
            Answer::Bits(bits) => bits.into_iter().take(quantity.into()).map(Value::Bool).collect(),
            Answer::WrongLength => return Ok(None),
            Answer::Refused(code) => {
                self.refused = Some(code);
                if !may_blame_address(code) {
                    self.lacking.push(table);
                }
                return Ok(None);
            }
        };
        self.answered = true;
        Ok(Some(values))
    }
}

/// A register or bit, as a tag.
fn offered(table: Table, at: u32, value: Value) -> Offered {
    let name = table.name();
    let mut options = vec![("address", format!("{name}:{at}"))];
    let about = if table.is_bits() {
        format!("{name} {at}")
    } else {
        options.push(("as", "u16".to_owned()));
        format!("{name} register {at}, as u16")
    };
    Offered { name: format!("{name}_{at}"), options, unit: None, about, value: Some(value) }
}
