//! Modbus TCP client: polls holding and input registers, coils and discrete inputs.
//!
//! One connection an endpoint, one request in flight. Each group (a station: one unit, one interval) is read
//! with as few requests as the protocol allows, and all that one poll brings goes out as one batch.
//!
//! A Modbus exception is an answer, and the link is fine. Where it may be about an address, the read is split
//! until only the guilty tags are refused; those rest a while, so that they cost the good ones nothing, and
//! when one is answered again the reads are joined again. Anything else that is not an answer (a timeout, a
//! closed connection, an answer to another question) ends the connection, since a late answer would be taken for
//! the next one.
//!
//! Behind a gateway one unit may be dead while others live. So a unit that does not answer in time is bad by itself
//! and rests, and the others go on over a new connection; the link is lost when no unit answers any more.

mod config;
mod decode;
mod plan;
mod survey;
mod wire;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, warn};

pub use config::{Address, Config, DataType, Endpoint, Group, Table, Tag};

use self::plan::Plan;
use self::wire::{Answer, Wire};
use crate::{Batch, Driver, LinkError, Loss, Outlet, OwnStatus, Reading, Status, Stopped, TagId, Time, Value, trace};

/// How many reads one poll may split. The tags of those it leaves for the next poll are bad until then.
const SPLITS_A_POLL: usize = 32;
/// How many refused tags one poll may ask for again.
const RETRIES_A_POLL: usize = 16;
/// How long a unit that did not answer is left alone: each try costs the others a timeout, 2 s unless said.
const SILENT_REST: Duration = Duration::from_secs(30);
/// A group that was not read for so long beyond its turn has missed polls, which are a loss. Less is jitter, of the
/// device or of us.
const LATE: Duration = Duration::from_secs(2);

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
        self.plans.iter_mut().for_each(Plan::begin);
        Ok(())
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let mut due = vec![Instant::now(); self.plans.len()];
        loop {
            let Some(next) = (0..due.len()).min_by_key(|&at| due[at]) else {
                return std::future::pending().await; // nothing to read: the link just stands
            };
            sleep_until(due[next]).await;
            let Some(wire) = &mut self.wire else {
                return LinkError::Broken("not connected".to_owned());
            };
            let plan = &mut self.plans[next];
            let span = trace::client!("poll", factory.station = %plan.station, modbus.unit = plan.unit);
            let polled = poll(wire, plan).instrument(span.clone()).await;
            let readings = match polled.inspect_err(|error| trace::failed(&span, error)) {
                Ok(readings) => readings,
                Err(error @ LinkError::Silent(_)) => {
                    let unit = plan.unit;
                    let Some(bad) = fall_silent(&mut self.plans, unit, Time::now()) else { return error };
                    let rested = Instant::now() + SILENT_REST;
                    let of_unit = self.plans.iter().zip(&mut due).filter(|(plan, _)| plan.unit == unit);
                    of_unit.for_each(|(_, due)| *due = rested);
                    // No sign of life of the link, so it is not `deliver`.
                    if outlet.announce(Batch { readings: bad, ..Batch::default() }).await.is_err() {
                        return LinkError::Broken(Stopped.to_string());
                    }
                    self.close().await;
                    self.wire = match Wire::connect(&self.endpoint, self.timeout).await {
                        Ok(wire) => Some(wire),
                        Err(error) => return LinkError::Broken(format!("unit {unit} fell silent, then: {error}")),
                    };
                    continue;
                }
                Err(error) => return error,
            };
            plan.heard = Some(Time::now());
            plan.silent = false;
            let (turn, missed) = next_turn(due[next], plan.poll, Instant::now());
            let losses = missed.map(|missed| missed_polls(plan, missed)).into_iter().collect::<Vec<_>>();
            due[next] = turn;
            if readings.is_empty() && losses.is_empty() {
                continue; // every tag of it rests
            }
            if outlet.deliver(Batch { readings, losses, ..Batch::default() }).await.is_err() {
                return LinkError::Broken(Stopped.to_string());
            }
        }
    }

    async fn close(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.close().await;
        }
    }
}

/// `unit` does not answer: its tags are bad from its last answer on, and it rests. `None` when no unit answers any
/// more, and the link is lost.
fn fall_silent(plans: &mut [Plan], unit: u8, now: Time) -> Option<Vec<Reading>> {
    let mut bad = Vec::new();
    for plan in plans.iter_mut().filter(|plan| plan.unit == unit) {
        if !plan.silent {
            warn!(station = %plan.station, unit, "the unit does not answer; the others go on");
        }
        // Said again, it is from now on: what was said of the time before stands.
        let since = if plan.silent { now } else { plan.heard.unwrap_or(now) };
        plan.silent = true;
        let status = Status::Own(OwnStatus::NoAnswer);
        bad.extend(plan.slots.iter().map(|slot| Reading::bad(slot.id, status, since, now)));
    }
    plans.iter().any(|plan| !plan.silent).then_some(bad)
}

/// Polls that were not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missed {
    polls: u32,
    span: Duration,
}

/// The group's next turn: on its own beat, with those left out that an overrun has passed; and those, if they are
/// too many to be jitter.
fn next_turn(due: Instant, every: Duration, now: Instant) -> (Instant, Option<Missed>) {
    let every = every.max(Duration::from_millis(1));
    let late = now.saturating_duration_since(due);
    let polls = u32::try_from(late.as_nanos() / every.as_nanos()).unwrap_or(u32::MAX);
    let turn = due + every.saturating_mul(polls.saturating_add(1));
    (turn, (polls > 0 && late >= LATE).then_some(Missed { polls, span: late }))
}

/// What was not read is a loss, whoever was too slow: the device, another unit on the line, or the disk.
fn missed_polls(plan: &Plan, Missed { polls, span }: Missed) -> Loss {
    let now = Time::now();
    let count = u64::from(polls).saturating_mul(plan.slots.len() as u64);
    Loss {
        source: plan.station.clone(),
        from: now - span,
        to: now,
        count,
        reason: "Modbus: polls were left out, since the one before took too long".into(),
    }
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
        let turn = |every, after| next_turn(start, every, start + after).0;
        assert_eq!(turn(ms(100), ms(3)), start + ms(100));
        assert_eq!(turn(ms(100), ms(100)), start + ms(200));
        assert_eq!(turn(ms(100), ms(350)), start + ms(400));
        assert_eq!(turn(Duration::ZERO, Duration::ZERO), start + ms(1), "never a busy loop");
    }

    #[test]
    fn polls_that_were_left_out_are_a_loss_and_jitter_is_not() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let missed = |every, after| next_turn(start, every, start + after).1.map(|missed| missed.polls);
        assert_eq!(missed(ms(200), ms(150)), None);
        assert_eq!(missed(ms(200), ms(1_999)), None);
        assert_eq!(missed(ms(200), ms(2_050)), Some(10));
        assert_eq!(missed(ms(3_600_000), ms(5_000)), None, "nothing was to be read meanwhile");

        let plan = Plan::new(group(1, &["holding:0", "holding:1"]));
        let loss = missed_polls(&plan, Missed { polls: 10, span: ms(2_050) });
        assert_eq!((&*loss.source, loss.count, loss.to.since(loss.from)), ("press-1", 20, ms(2_050)));
    }

    #[test]
    fn a_silent_unit_is_bad_from_its_last_answer_on() {
        let mut plans = [Plan::new(group(1, &["holding:0"])), Plan::new(group(2, &["holding:0", "holding:1"]))];
        plans[1].heard = Some(Time(5));
        let since =
            |bad: Option<Vec<Reading>>| bad.map(|bad| bad.iter().map(|each| each.source_time.0).collect::<Vec<_>>());
        assert_eq!(since(fall_silent(&mut plans, 2, Time(9))), Some(vec![5, 5]));
        assert_eq!(since(fall_silent(&mut plans, 2, Time(12))), Some(vec![12, 12]));
        assert_eq!(since(fall_silent(&mut plans, 1, Time(13))), None, "nobody is left");
        plans[1].silent = false;
        assert_eq!(since(fall_silent(&mut plans, 1, Time(14))), Some(vec![14]));
    }

    fn group(unit: u8, addresses: &[&str]) -> Group {
        let tag = |(address, id): (&&str, u32)| Tag {
            id: TagId(id),
            address: address.parse().expect("an address"),
            data_type: DataType::U16,
        };
        let tags = addresses.iter().zip(0..).map(tag).collect();
        Group { station: format!("press-{unit}").into(), unit, poll: Duration::from_secs(1), tags }
    }
}
