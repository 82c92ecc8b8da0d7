//! One poll: everything of one group, once.

use super::decode::decode;
use super::frame::{Answer, Oddity};
use super::plan::Plan;
use super::unit::{Bus, Heard, Unit};
use super::wire::Wire;
use crate::{LinkError, OwnStatus, Reading, Status, Time, Value};

use tokio::time::Instant;

/// How many reads one poll may split before the neighbours come first. Of the tags of those that are left nothing is told until
/// then: nobody knows yet which of them is refused.
const SPLITS_A_POLL: usize = 32;

/// What came of a poll.
pub(super) struct Polled {
    /// What was answered, refusals among it, and what the unit said nothing to.
    pub(super) readings: Vec<Reading>,
    /// Whether the unit answered anything.
    pub(super) answered: bool,
    pub(super) end: End,
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was asked for.
    Whole,
    /// There is more to ask for, and the neighbours come first: one read was not answered by a unit that answers others, or many
    /// were split.
    BrokenOff,
    /// The unit does not answer; the last thing that came instead.
    Silent(Option<Oddity>),
    /// The gateway says by this exception that the unit does not answer.
    Away(u8),
}

/// Reads everything of one group once. All readings carry the instant at which the last answer was in:
/// Modbus has no time of its own.
///
/// What was answered before the unit fell silent is told as it is.
pub(super) async fn poll(
    wire: &mut Wire,
    unit: &mut Unit,
    bus: &mut Bus,
    plan: &mut Plan,
) -> Result<Polled, LinkError> {
    let (began, unread) = (Instant::now(), Time::default());
    let mut readings = Vec::with_capacity(plan.slots.len());
    let (mut answered, mut unanswered) = (false, None);
    let mut splits = SPLITS_A_POLL;
    let mut end = End::Whole;
    while let Some(at) = plan.take_next() {
        let answer = match unit.ask(wire, &plan.reads[at], bus, began).await? {
            Heard::Answer(answer) => answer,
            Heard::Nothing => {
                unanswered = Some((plan.reads[at].slots.clone(), plan.reads[at].misses == 0));
                plan.missed(at);
                end = if plan.has_more() { End::BrokenOff } else { End::Whole };
                break;
            }
            Heard::Silence(odd) => {
                plan.doubt(at);
                end = End::Silent(odd);
                break;
            }
            Heard::Away(code) => {
                plan.doubt(at);
                end = End::Away(code);
                break;
            }
        };
        answered = true;
        let refused = matches!(answer, Answer::Refused(_));
        if let Answer::Refused(code) = answer
            && may_blame_address(code)
            && plan.reads[at].slots.len() > 1
        {
            plan.answered(at, refused);
            if splits == 0 {
                plan.again(at);
                end = End::BrokenOff;
                break;
            }
            splits -= 1;
            plan.split(at);
            plan.halves_next(at);
            continue;
        }
        let read = &plan.reads[at];
        let slots = &plan.slots[read.slots.clone()];
        let bad = |status| slots.iter().map(move |slot| Reading::bad(slot.id, status, unread, unread));
        match &answer {
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
            Answer::Refused(code) => readings.extend(bad(Status::Modbus(*code))),
        }
        if let Answer::Refused(code) = answer
            && may_blame_address(code)
        {
            plan.rest(at, Status::Modbus(code));
        }
        plan.answered(at, refused);
    }
    if end == End::Whole {
        plan.join_mended();
    }
    let now = Time::now();
    for reading in &mut readings {
        reading.source_time = now;
        reading.received_time = now;
    }
    if let Some((slots, first)) = unanswered {
        // Of the time since its last answer nothing is known; said again, it is from now on.
        let since = if first { plan.heard.unwrap_or(now) } else { now };
        let status = Status::Own(OwnStatus::NoAnswer);
        readings.extend(plan.slots[slots].iter().map(|slot| Reading::bad(slot.id, status, since, now)));
    }
    Ok(Polled { readings, answered, end })
}

/// Whether the exception may be about one address among those read: illegal data address, illegal data value
/// (too many at once, for some devices) and server device failure (what some say instead). The others are
/// about the function, the unit or the moment.
pub(super) fn may_blame_address(code: u8) -> bool {
    matches!(code, 2..=4)
}
