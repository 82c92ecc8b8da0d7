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
//! One unit may be dead while others live, and one address of a unit may be answered by nothing at all. So a unit that does not
//! answer in time is bad by itself, as is a read to which nothing comes from a unit that answers others, and no more than a
//! tenth of the bus's time is waited for either (`unit.rs`). The link stands meanwhile; it is lost when no unit answers any
//! more, and made anew by the supervisor. A serial line is not lost by silence.

mod config;
mod decode;
mod endpoint;
mod frame;
mod plan;
mod poll;
mod survey;
mod unit;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, warn};

pub use config::{Address, Config, DataType, First, Group, Limits, Order, Table, Tag};
pub use endpoint::{Endpoint, Line, Parity};
pub use frame::Oddity;
#[cfg(feature = "sim")]
pub(crate) use frame::crc;

use self::plan::Plan;
use self::poll::{End, Polled, poll};
use self::unit::{Bus, Unit};
use self::wire::Wire;
use crate::beat::next_turn;
use crate::{Batch, Driver, LinkError, Outlet, OwnStatus, Reading, Rung, Stale, Status, Stopped, TagId, Time, trace};

/// After so many questions in a row to which nothing came, and none of its units answered the last one, a connection is lost.
const MOST_UNANSWERED: u32 = 2;
/// What is doubtful in a poll is looked into no sooner than so long after it.
const SOON: Duration = Duration::from_millis(500);
/// What is said of polls that were left out.
const LEFT_OUT: &str = "Modbus: polls were left out, since the one before took too long";

/// The driver.
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    pause: Duration,
    /// Each station with its unit and how long that may take to answer: one without tags can be browsed.
    stations: Vec<(Arc<str>, u8, Duration)>,
    plans: Vec<Plan>,
    units: Vec<Unit>,
    bus: Bus,
    wire: Option<Wire>,
}

impl Client {
    /// A driver for `config`; nothing is connected yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let Config { endpoint, timeout, pause, mut groups } = config;
        let stations = groups.iter().map(|group| (Arc::clone(&group.station), group.unit, group.timeout)).collect();
        groups.retain(|group| !group.tags.is_empty()); // nobody asks, so nobody answers
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
        Self { endpoint, timeout, pause, stations, plans, units, bus, wire: None }
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

    /// The plan whose turn comes first, and when. Of those that wait for one unit the one that has waited longest.
    fn next(&self, due: &[Instant]) -> Option<(usize, Instant)> {
        let turn = |at: usize| {
            let ready = self.units[self.unit(self.plans[at].unit)].ready(&self.bus);
            ready.map_or(due[at], |ready| ready.max(due[at]))
        };
        (0..due.len()).map(|at| (at, turn(at))).min_by_key(|(at, turn)| (*turn, due[*at]))
    }

    /// How long until the first turn of a unit that answers, other than `id`.
    fn spare(&self, due: &[Instant], id: u8) -> Option<Duration> {
        let now = Instant::now();
        let waits = |plan: &Plan| plan.unit != id && self.units[self.unit(plan.unit)].answers();
        let turns = self.plans.iter().zip(due).filter(|(plan, _)| waits(plan));
        turns.map(|(_, due)| due.saturating_duration_since(now)).min()
    }

    /// The link is lost: no unit answers any more. A serial line is there as long as it can be written to.
    fn is_lost(&self) -> bool {
        let lives_by_answers = !matches!(self.endpoint, Endpoint::Rtu { .. });
        lives_by_answers && self.bus.unanswered >= MOST_UNANSWERED && self.units.iter().all(|unit| unit.silent)
    }

    /// Unit `id` answers again: all that is read of it is read at once.
    fn is_back(&mut self, id: u8, due: &mut [Instant]) {
        let now = Instant::now();
        for (plan, due) in self.plans.iter_mut().zip(due).filter(|(plan, _)| plan.unit == id) {
            plan.trust();
            if plan.silent {
                *due = now.min(*due);
            }
        }
    }

    /// Does what the ladder of silence asks for. `Err` gives the link up.
    fn treat(&mut self, stale: &Stale, outlet: &Outlet, due: &mut [Instant]) -> Result<(), LinkError> {
        if stale.rung == Rung::Reconnect {
            return Err(silent(outlet));
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
}

impl Driver for Client {
    fn tags(&self) -> Vec<TagId> {
        self.plans.iter().flat_map(|plan| plan.slots.iter().map(|slot| slot.id)).collect()
    }

    async fn connect(&mut self) -> Result<(), LinkError> {
        self.close().await;
        self.wire = Some(Wire::connect(&self.endpoint, self.timeout, self.pause).await?);
        self.plans.iter_mut().for_each(Plan::begin);
        let is_rtu = !matches!(self.endpoint, Endpoint::Tcp { .. });
        self.units.iter_mut().for_each(|unit| unit.begin(Instant::now(), is_rtu));
        self.bus.begin();
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
                stale = outlet.stale() => match self.treat(&stale, outlet, &mut due) {
                    Ok(()) => continue,
                    Err(error) => return error,
                },
                () = sleep_until(turn) => {}
            }
            let id = self.plans[next].unit;
            let at = self.unit(id);
            self.bus.spare = self.spare(&due, id);
            let (Some(wire), unit, plan) = (&mut self.wire, &mut self.units[at], &mut self.plans[next]) else {
                return LinkError::Broken("not connected".to_owned());
            };
            let now = Instant::now();
            if !plan.has_work(now, |read| unit.may_ask(read, &self.bus, now)) {
                due[next] = next_turn(due[next], plan.poll, now).0; // every tag of it rests
                continue;
            }
            if !unit.admits(now) {
                continue;
            }
            let failed = !unit.answers();
            let span = trace::client!("poll", factory.station = %plan.station, modbus.unit = plan.unit);
            let polled = poll(wire, unit, &mut self.bus, plan).instrument(span.clone()).await;
            tell(outlet, at, unit);
            for (id, took) in wire.take_late() {
                self.units.iter_mut().filter(|unit| unit.id == id).for_each(|unit| unit.slower(took));
            }
            let Polled { readings, answered, end } = match polled {
                Ok(polled) => polled,
                Err(error) => {
                    trace::failed(&span, &error);
                    return error;
                }
            };
            let now = Instant::now();
            let (turn, missed) = next_turn(due[next], plan.poll, now);
            // Polls of a unit that was away are no loss of their own: its tags were bad.
            let missed = missed.filter(|_| answered && !plan.silent);
            let losses: Vec<_> =
                missed.map(|missed| missed.loss(&plan.station, plan.slots.len(), LEFT_OUT)).into_iter().collect();
            due[next] = match end {
                End::Whole if plan.has_doubts() => turn.min(self.bus.calm.unwrap_or(now).max(now + SOON)),
                End::Whole => turn,
                // Behind the neighbours. How soon it is asked again, its unit says.
                End::BrokenOff | End::Silent(_) | End::Away(_) => now,
            };
            if answered {
                (plan.heard, plan.silent) = (Some(Time::now()), false);
                if failed {
                    self.is_back(id, &mut due);
                }
            }
            if !readings.is_empty() || !losses.is_empty() {
                let batch = Batch { readings, losses, ..Batch::default() };
                let taken = if answered { outlet.deliver(batch).await } else { outlet.announce(batch).await };
                if taken.is_err() {
                    return LinkError::Broken(Stopped.to_string());
                }
            }
            let (status, why) = match end {
                End::Whole | End::BrokenOff => continue,
                End::Silent(odd) => (Status::Own(OwnStatus::NoAnswer), odd.map_or("nothing came", Oddity::hint)),
                End::Away(code) => (Status::Modbus(code), "its gateway says so"),
            };
            let error = match end {
                End::Silent(Some(odd)) => LinkError::Broken(odd.hint().to_owned()),
                _ => silent(outlet),
            };
            trace::failed(&span, &error);
            let bad = fall_silent(&mut self.plans, id, status, why, Time::now());
            if self.is_lost() {
                return error;
            }
            // No sign of life of the link, so it is not `deliver`.
            if outlet.announce(Batch { readings: bad, ..Batch::default() }).await.is_err() {
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

/// `unit` does not answer: its tags are bad from its last answer on, for `status`.
fn fall_silent(plans: &mut [Plan], unit: u8, status: Status, why: &str, now: Time) -> Vec<Reading> {
    let mut bad = Vec::new();
    for plan in plans.iter_mut().filter(|plan| plan.unit == unit) {
        if !plan.silent {
            warn!(station = %plan.station, unit, why, "the unit does not answer; the others go on");
        }
        // Said again, it is from now on: what was said of the time before stands.
        let since = if plan.silent { now } else { plan.heard.unwrap_or(now) };
        plan.silent = true;
        plan.wake();
        bad.extend(plan.slots.iter().map(|slot| Reading::bad(slot.id, status, since, now)));
    }
    bad
}

/// The link gave no sign of life since its last one.
fn silent(outlet: &Outlet) -> LinkError {
    let now = Time::now();
    let since = outlet.state().alive.map_or(Duration::ZERO, |alive| now.since(alive));
    LinkError::Silent(Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_unit_is_bad_from_its_last_answer_on() {
        let mut plans = [Plan::new(group(1, &["holding:0"])), Plan::new(group(2, &["holding:0", "holding:1"]))];
        plans[1].heard = Some(Time(5));
        let status = Status::Own(OwnStatus::NoAnswer);
        let since = |bad: Vec<Reading>| bad.iter().map(|each| each.source_time.0).collect::<Vec<_>>();
        assert_eq!(since(fall_silent(&mut plans, 2, status, "nothing came", Time(9))), [5, 5]);
        assert_eq!(since(fall_silent(&mut plans, 2, status, "nothing came", Time(12))), [12, 12]);
        assert_eq!((plans[0].silent, plans[1].silent), (false, true));
    }

    #[test]
    fn silent_tags_are_asked_for_then_planned_anew_then_given_up() {
        let endpoint = Endpoint::Tcp { host: "press".to_owned(), port: 502 };
        let groups = vec![group(1, &["holding:0", "holding:1"]), group(2, &["holding:0"])];
        let mut client =
            Client::new(Config { endpoint, timeout: Duration::from_secs(2), pause: Duration::ZERO, groups });
        let (sender, _batches) = tokio::sync::mpsc::channel(1);
        let state = Arc::new(tokio::sync::watch::Sender::new(crate::LinkState::new(Time::now())));
        let outlet = Outlet::new(sender, state);
        client.plans[0].split(0);
        let later = Instant::now() + Duration::from_secs(3600);
        let mut due = vec![later; 2];
        let stale = |rung| Stale { tags: vec![TagId(1)], rung };
        client.treat(&stale(Rung::Look), &outlet, &mut due).expect("the link stands");
        assert!(due[0] < later && client.plans[0].reads.len() == 2, "it is asked for, as it was");
        due[0] = later;
        client.treat(&stale(Rung::Renew), &outlet, &mut due).expect("the link stands");
        assert!(due[0] < later && client.plans[0].reads.len() == 1, "what was refused is forgotten");
        let given_up = client.treat(&stale(Rung::Reconnect), &outlet, &mut due);
        assert!(matches!(given_up, Err(LinkError::Silent(_))));
    }

    fn group(unit: u8, addresses: &[&str]) -> Group {
        let tag =
            |(address, id): (&&str, u32)| Tag::new(TagId(id), address.parse().expect("an address"), DataType::U16);
        let tags = addresses.iter().zip(0..).map(tag).collect();
        let (poll, timeout, limits) = (Duration::from_secs(1), Duration::from_secs(1), Limits::default());
        Group { station: format!("press-{unit}").into(), unit, poll, timeout, limits, tags }
    }
}
