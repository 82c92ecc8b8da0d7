//! One poll: everything of one group, once.

use tokio::time::Instant;

use super::decode::decode;
use super::frame::Answer;
use super::plan::Plan;
use super::unit::{self, Bus, Unit};
use super::wire::{Failure, Wire};
use crate::{OwnStatus, Reading, Status, Time, Value};

/// How many reads one poll may split. The tags of those it leaves for the next poll are bad until then.
const SPLITS_A_POLL: usize = 32;
/// How many refused tags one poll may ask for again.
const RETRIES_A_POLL: usize = 16;
/// Reads everything of one group once. All readings carry the instant at which the last answer was in:
/// Modbus has no time of its own.
pub(super) async fn poll(
    wire: &mut Wire,
    unit: &mut Unit,
    bus: &mut Bus,
    plan: &mut Plan,
) -> Result<Vec<Reading>, Failure> {
    let unread = Time::default();
    let mut readings = Vec::with_capacity(plan.slots.len());
    let (mut splits, mut retries) = (SPLITS_A_POLL, RETRIES_A_POLL);
    let mut mended = false;
    let mut at = 0;
    while let Some(read) = plan.reads.get(at) {
        let resting = read.rests_until;
        if let Some(until) = resting {
            if retries == 0 || Instant::now() < until {
                at += 1;
                continue;
            }
            retries -= 1;
        }
        let answer = unit.ask(wire, read, bus).await?;
        if let Answer::Refused(code) = answer
            && unit::is_away(code)
        {
            let rest = &plan.slots[read.slots.start..];
            readings.extend(rest.iter().map(|slot| Reading::bad(slot.id, Status::Modbus(code), unread, unread)));
            break; // the gateway would try each of them, for as long again
        }
        if let Answer::Refused(code) = answer
            && may_blame_address(code)
        {
            if splits > 0 && plan.split(at) {
                splits -= 1;
                continue; // with the first half, which now stands here
            }
            if plan.reads[at].slots.len() == 1 {
                plan.rest(at, Status::Modbus(code));
            }
        }
        mended |= resting.is_some() && !matches!(answer, Answer::Refused(_));
        let read = &plan.reads[at];
        let slots = &plan.slots[read.slots.clone()];
        let bad = |status| slots.iter().map(move |slot| Reading::bad(slot.id, status, unread, unread));
        match answer {
            Answer::Words(words) => readings.extend(slots.iter().map(|slot| {
                let words = &words[usize::from(slot.address.offset - read.offset)..];
                match decode(slot, words) {
                    Ok(value) => Reading::good(slot.id, value, unread, unread),
                    Err(why) => Reading::bad(slot.id, Status::Own(why), unread, unread),
                }
            })),
            Answer::Bits(bits) => readings.extend(slots.iter().map(|slot| {
                let bit = bits[usize::from(slot.address.offset - read.offset)];
                Reading::good(slot.id, Value::Bool(bit), unread, unread)
            })),
            Answer::WrongLength => readings.extend(bad(Status::Own(OwnStatus::WrongLength))),
            Answer::Refused(code) => readings.extend(bad(Status::Modbus(code))),
        }
        at += 1;
    }
    if mended {
        plan.reset();
    }
    let now = Time::now();
    for reading in &mut readings {
        reading.source_time = now;
        reading.received_time = now;
    }
    Ok(readings)
}

/// Whether the exception may be about one address among those read: illegal data address, illegal data value
/// (too many at once, for some devices) and server device failure (what some say instead). The others are
/// about the function, the unit or the moment.
pub(super) fn may_blame_address(code: u8) -> bool {
    matches!(code, 2..=4)
}
