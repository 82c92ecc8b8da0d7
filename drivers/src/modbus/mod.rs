//! Modbus client: polls holding and input registers, coils and discrete inputs, over TCP, a serial line, or RTU over TCP.
//!
//! One owner an endpoint, one request in flight. Each group (a station's tags of one interval) is read with as few requests
//! as the protocol allows, and all that one poll brings goes out as one batch. Only function codes 1 to 4 are ever sent:
//! there is nothing here that could encode another.
//!
//! A Modbus exception is an answer, and the link is fine. Where it may be about an address, the read is split
//! until only the guilty tags are refused; those rest a while, so that they cost the good ones nothing, and
//! when one is answered again the reads are joined again. A frame that is not the answer is discarded and counted
//! (`frame.rs`), and the answer is waited for until the timeout.
//!
//! One unit may be dead while others live. So a unit that does not answer in time is bad by itself, and a breaker keeps it
//! from taking more than a tenth of the bus's time (`unit.rs`). Over TCP the others go on over a new connection, since many a
//! gateway is stuck with the question; the link is lost when no unit answers any more. A serial line is not lost by silence.

mod config;
mod decode;
mod endpoint;
mod frame;
mod plan;
mod poll;
mod survey;
mod unit;
mod wire;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, warn};

pub use config::{Address, Config, DataType, First, Group, Limits, Order, Table, Tag};
pub use endpoint::{Endpoint, Line, Parity};
pub use frame::Oddity;
#[cfg(feature = "sim")]
pub(crate) use frame::crc;

use self::plan::Plan;
use self::poll::poll;
use self::unit::{Bus, Unit};
use self::wire::{Failure, Wire};
use crate::{
    Batch, Driver, LinkError, Loss, Outlet, OwnStatus, Reading, Rung, Stale, Status, Stopped, TagId, Time, trace,
};

/// A group that was not read for so long beyond its turn has missed polls, which are a loss. Less is jitter, of the
/// device or of us.
const LATE: Duration = Duration::from_secs(2);

/// The driver.
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    pause: Duration,
    plans: Vec<Plan>,
    units: Vec<Unit>,
    bus: Bus,
    wire: Option<Wire>,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { endpoint, timeout, pause, groups } = config;
        let mut ids: Vec<u8> = groups.iter().map(|group| group.unit).collect();
        ids.sort_unstable();
        ids.dedup();
        let unit = |id| {
            let of_unit = || groups.iter().filter(move |group| group.unit == id);
            let mut stations: Vec<_> = of_unit().map(|group| group.station.clone()).collect();
            stations.dedup();
            Unit::new(id, of_unit().map(|group| group.timeout).max().unwrap_or(timeout), stations)
        };
        let units: Vec<_> = ids.into_iter().map(unit).collect();
        let plans = groups.into_iter().map(Plan::new).collect();
        let bus = Bus::of(units.len());
        Self { endpoint, timeout, pause, plans, units, bus, wire: None }
    }

    /// A driver for `config` whose serial line is `stream`, already open. It is the caller's to run it.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn over(
        config: Config,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let mut client = Self::new(config);
        let line = if let Endpoint::Rtu { line, .. } = &client.endpoint { Some(*line) } else { None };
        let framing =
            if matches!(client.endpoint, Endpoint::Tcp { .. }) { frame::Framing::Tcp } else { frame::Framing::Rtu };
        client.wire = Some(Wire::over(Box::new(stream), framing, line, client.pause));
        client
    }

    fn unit(&self, id: u8) -> usize {
        self.units.iter().position(|unit| unit.id == id).expect("every plan has its unit")
    }

    /// The plan whose turn comes first, and when.
    fn next(&self, due: &[Instant]) -> Option<(usize, Instant)> {
        let turn = |at: usize| {
            let ready = self.units[self.unit(self.plans[at].unit)].ready(self.bus.calm);
            ready.map_or(due[at], |ready| ready.max(due[at]))
        };
        (0..due.len()).map(|at| (at, turn(at))).min_by_key(|(_, turn)| *turn)
    }

    /// Does what the ladder of silence asks for. `Err` gives the link up.
    fn treat(&mut self, stale: &Stale, due: &mut [Instant]) -> Result<(), LinkError> {
        if stale.rung == Rung::Reconnect {
            return Err(LinkError::Silent(self.timeout));
        }
        let now = Instant::now();
        for (plan, due) in self.plans.iter_mut().zip(due) {
            if plan.slots.iter().any(|slot| stale.tags.contains(&slot.id)) {
                *due = now.min(*due);
                if stale.rung == Rung::Renew {
                    plan.reset();
                }
            }
        }
        Ok(())
    }

    /// Whether the link is lost when no unit answers. A serial line is there as long as it can be written to.
    fn lives_by_answers(&self) -> bool {
        !matches!(self.endpoint, Endpoint::Rtu { .. })
    }
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.plans.iter().flat_map(|plan| plan.slots.iter().map(|slot| slot.id)).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.close().await;
        self.wire = Some(Wire::connect(&self.endpoint, self.timeout, self.pause).await?);
        self.plans.iter_mut().for_each(Plan::begin);
        self.units.iter_mut().for_each(|unit| unit.begin(Instant::now()));
        self.bus.calm = None;
        Ok(())
    }

    async fn run(&mut self, outlet: &Outlet) -> LinkError {
        let mut due = vec![Instant::now(); self.plans.len()];
        outlet.update(|link| link.devices = self.units.iter().map(|unit| unit.told().clone()).collect());
        loop {
            let Some((next, turn)) = self.next(&due) else {
                return std::future::pending().await; // nothing to read: the link just stands
            };
            // Only while nothing is in flight: a question is waited for to its end.
            tokio::select! {
                biased;
                stale = outlet.stale() => match self.treat(&stale, &mut due) {
                    Ok(()) => continue,
                    Err(error) => return error,
                },
                () = sleep_until(turn) => {}
            }
            let at = self.unit(self.plans[next].unit);
            let (Some(wire), unit) = (&mut self.wire, &mut self.units[at]) else {
                return LinkError::Broken("not connected".to_owned());
            };
            let plan = &mut self.plans[next];
            if !unit.admits(Instant::now()) {
                continue;
            }
            let span = trace::client!("poll", factory.station = %plan.station, modbus.unit = plan.unit);
            let polled = poll(wire, unit, &mut self.bus, plan).instrument(span.clone()).await;
            tell(outlet, at, unit);
            let readings = match polled {
                Ok(readings) => readings,
                Err(Failure::Unanswered(odd)) => {
                    let limit = plan.timeout;
                    let error = odd.map_or(LinkError::Silent(limit), |odd| LinkError::Broken(odd.hint().to_owned()));
                    trace::failed(&span, &error);
                    let id = plan.unit;
                    let bad = fall_silent(&mut self.plans, id, odd, Time::now());
                    if self.lives_by_answers() && self.plans.iter().all(|plan| plan.silent) {
                        return error;
                    }
                    let now = Instant::now();
                    let of_unit = self.plans.iter().zip(&mut due).filter(|(plan, _)| plan.unit == id);
                    of_unit.for_each(|(plan, due)| *due = next_turn(*due, plan.poll, now).0);
                    // No sign of life of the link, so it is not `deliver`.
                    if outlet.announce(Batch { readings: bad, ..Batch::default() }).await.is_err() {
                        return LinkError::Broken(Stopped.to_string());
                    }
                    if matches!(self.endpoint, Endpoint::Tcp { .. }) {
                        self.close().await;
                        self.wire = match Wire::connect(&self.endpoint, self.timeout, self.pause).await {
                            Ok(wire) => Some(wire),
                            Err(error) => return LinkError::Broken(format!("unit {id} fell silent, then: {error}")),
                        };
                    }
                    continue;
                }
                Err(Failure::Link(error)) => {
                    trace::failed(&span, &error);
                    return error;
                }
            };
            let (turn, missed) = next_turn(due[next], plan.poll, Instant::now());
            // Polls of a unit that was away are no loss of their own: its tags were bad.
            let missed = missed.filter(|_| !plan.silent);
            plan.heard = Some(Time::now());
            plan.silent = false;
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

/// Tells how the unit stands; watchers are woken when its breaker turned.
fn tell(outlet: &Outlet, at: usize, unit: &Unit) {
    outlet.note(|link| link.devices.get_mut(at).is_some_and(|device| unit.tell(device)));
}

/// `unit` does not answer: its tags are bad from its last answer on.
fn fall_silent(plans: &mut [Plan], unit: u8, odd: Option<Oddity>, now: Time) -> Vec<Reading> {
    let mut bad = Vec::new();
    for plan in plans.iter_mut().filter(|plan| plan.unit == unit) {
        if !plan.silent {
            let why = odd.map_or("nothing came", Oddity::hint);
            warn!(station = %plan.station, unit, why, "the unit does not answer; the others go on");
        }
        // Said again, it is from now on: what was said of the time before stands.
        let since = if plan.silent { now } else { plan.heard.unwrap_or(now) };
        plan.silent = true;
        plan.wake();
        let status = Status::Own(OwnStatus::NoAnswer);
        bad.extend(plan.slots.iter().map(|slot| Reading::bad(slot.id, status, since, now)));
    }
    bad
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
        let since = |bad: Vec<Reading>| bad.iter().map(|each| each.source_time.0).collect::<Vec<_>>();
        assert_eq!(since(fall_silent(&mut plans, 2, None, Time(9))), [5, 5]);
        assert_eq!(since(fall_silent(&mut plans, 2, None, Time(12))), [12, 12]);
        assert_eq!((plans[0].silent, plans[1].silent), (false, true));
    }

    fn group(unit: u8, addresses: &[&str]) -> Group {
        let tag =
            |(address, id): (&&str, u32)| Tag::new(TagId(id), address.parse().expect("an address"), DataType::U16);
        let tags = addresses.iter().zip(0..).map(tag).collect();
        let (poll, timeout, limits) = (Duration::from_secs(1), Duration::from_secs(1), Limits::default());
        Group { station: format!("press-{unit}").into(), unit, poll, timeout, limits, tags }
    }
}
