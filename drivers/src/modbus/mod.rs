//! Modbus TCP client: polls holding and input registers, coils and discrete inputs.
//!
//! One connection an endpoint, one request in flight. Each group (a station: one unit, one interval) is read
//! with as few requests as the protocol allows, and all that one poll brings goes out as one batch.
//!
//! A Modbus exception is an answer, and the link is fine. Where it may be about an address, the read is split
//! until only the guilty tags are refused; those rest a while, so that they cost the good ones nothing, and
//! when one is answered again the reads are joined again. Anything else that is not an answer (a timeout, a
//! closed connection, an answer to another question) ends the connection.

mod config;
mod decode;
mod plan;
mod wire;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub use config::{Address, Config, DataType, Endpoint, Group, Table, Tag};

use self::plan::Plan;
use self::wire::{Answer, Wire};
use crate::{Driver, LinkError, Outlet, OwnStatus, Reading, Status, TagId, Time, Value};

/// How many reads one poll may split. The tags of those it leaves for the next poll are bad until then.
const SPLITS_A_POLL: usize = 32;
/// How many refused tags one poll may ask for again.
const RETRIES_A_POLL: usize = 16;

/// The driver.
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    plans: Vec<Plan>,
    wire: Option<Wire>,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { endpoint, timeout, groups } = config;
        Self { endpoint, timeout, plans: groups.into_iter().map(Plan::new).collect(), wire: None }
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.plans.iter().flat_map(|plan| plan.slots.iter().map(|slot| slot.id)).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.close().await;
        self.wire = Some(Wire::connect(&self.endpoint, self.timeout).await?);
        for plan in &mut self.plans {
            plan.reset();
        }
        Ok(())
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let Some(wire) = &mut self.wire else {
            return LinkError::Broken("not connected".to_owned());
        };
        let mut due = vec![Instant::now(); self.plans.len()];
        loop {
            let Some(next) = (0..due.len()).min_by_key(|&at| due[at]) else {
                return std::future::pending().await; // nothing to read: the link just stands
            };
            sleep_until(due[next]).await;
            let plan = &mut self.plans[next];
            let readings = match poll(wire, plan).await {
                Ok(readings) => readings,
                Err(error) => return error,
            };
            due[next] = next_turn(due[next], plan.poll, Instant::now());
            if readings.is_empty() {
                continue; // every tag of it rests
            }
            if outlet.deliver(crate::Batch { readings, ..crate::Batch::default() }).await.is_err() {
                return LinkError::Broken("the agent is stopping".to_owned());
            }
        }
    }

    async fn close(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.close().await;
        }
    }
}

/// The group's next turn: on its own beat, with those skipped that an overrun has passed.
fn next_turn(due: Instant, every: Duration, now: Instant) -> Instant {
    let every = every.max(Duration::from_millis(1));
    let late = now.saturating_duration_since(due);
    let beats = u32::try_from(late.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
    due + every.saturating_mul(beats.saturating_add(1))
}

/// Reads everything of one group once. All readings carry the instant at which the last answer was in:
/// Modbus has no time of its own.
async fn poll(wire: &mut Wire, plan: &mut Plan) -> Result<Vec<Reading>, LinkError> {
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
        let answer = wire.ask(plan.unit, read).await?;
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
                Reading::good(slot.id, decode::decode(slot.data_type, words), unread, unread)
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
fn may_blame_address(code: u8) -> bool {
    matches!(code, 2..=4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_skips_beats_and_keeps_the_rhythm() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(next_turn(start, ms(100), start + ms(3)), start + ms(100));
        assert_eq!(next_turn(start, ms(100), start + ms(100)), start + ms(200));
        assert_eq!(next_turn(start, ms(100), start + ms(350)), start + ms(400));
        assert_eq!(next_turn(start, Duration::ZERO, start), start + ms(1), "never a busy loop");
    }
}
