//! Where a driver puts what it reads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};

use crate::treat::Treatment;
use crate::treat::clock::{self, GatewayClock};
use crate::{Batch, LinkState, TagId, Time};

/// The agent has stopped listening: the driver should end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// How far silence is answered. A tag is silent when it has a `max_age` and nothing came for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Half its age: ask the device for it, if it can be asked.
    Look,
    /// Its whole age, and it is bad by now: make anew what brings it, over the same connection.
    Renew,
    /// Twice its age: give the connection up.
    Reconnect,
}

/// Tags that are silent though the link stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which.
    pub tags: Vec<TagId>,
    /// What is to be done about it.
    pub rung: Rung,
}

/// Where a driver puts what it reads. What the configuration asks of single tags ([`treat`](crate::treat)) is done here.
#[derive(Clone, Debug)]
pub struct Outlet {
    batches: mpsc::Sender<Batch>,
    state: Arc<watch::Sender<LinkState>>,
    clock: Option<Arc<GatewayClock>>,
    treated: Option<Arc<Treated>>,
}

/// The treatment, and who waits for it.
#[derive(Debug)]
struct Treated {
    /// Taken for as long as a batch takes to go through; only the link's own task does.
    treatment: Mutex<Treatment>,
    /// An earlier timer was set.
    stirred: Notify,
    /// Tags fell silent.
    silent: Notify,
}

impl Treated {
    fn lock(&self) -> MutexGuard<'_, Treatment> {
        // A driver that panicked has broken its link, not the state of its tags.
        self.treatment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is due within so long is done together.
const TOGETHER: Duration = Duration::from_millis(10);

impl Outlet {
    /// An outlet into `batches`, telling its link's state through `state`.
    #[must_use]
    pub fn new(batches: mpsc::Sender<Batch>, state: Arc<watch::Sender<LinkState>>) -> Self {
        Self { batches, state, clock: None, treated: None }
    }

    /// The same for readings that are treated first.
    #[must_use]
    pub fn treating(self, treatment: Option<Treatment>) -> Self {
        let treated = treatment.map(|treatment| {
            Arc::new(Treated { treatment: Mutex::new(treatment), stirred: Notify::new(), silent: Notify::new() })
        });
        Self { treated, ..self }
    }

    /// The same with doubts of the gateway's own clock.
    #[must_use]
    pub fn timed_by(self, clock: Arc<GatewayClock>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Hands a batch over; waits while the channel is full, so that a slow disk slows the reading down
    /// instead of losing it.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub async fn deliver(&self, batch: Batch) -> Result<(), Stopped> {
        let (now, lead) = (Time::now(), clock::lead(&batch.readings));
        self.state.send_if_modified(|state| {
            state.alive = Some(now);
            state.clock_skew = lead.or(state.clock_skew);
            false // as in `alive`
        });
        self.announce(batch).await
    }

    /// Hands over what the supervisor says of a link, which is no sign of life from the other side.
    pub(crate) async fn announce(&self, mut batch: Batch) -> Result<(), Stopped> {
        if let Some(clock) = &self.clock {
            clock.mark(&mut batch.readings);
        }
        let Some(treated) = self.treated.as_ref().filter(|_| !batch.readings.is_empty()) else {
            return self.batches.send(batch).await.map_err(|_| Stopped);
        };
        // Room first: what the treatment lets go of is never dropped with this future.
        let room = self.batches.reserve().await.map_err(|_| Stopped)?;
        let mut treatment = treated.lock();
        if treatment.apply(&mut batch.readings, Instant::now()) {
            treated.stirred.notify_one();
        }
        if !batch.is_empty() {
            room.send(batch); // under the lock, so that order is kept
        }
        Ok(())
    }

    /// The other side showed a sign of life without data: a keep-alive, an empty answer.
    pub fn alive(&self, at: Time) {
        self.state.send_if_modified(|state| {
            state.alive = Some(at);
            false // readers look when they need it; nobody is woken for it
        });
    }

    /// Waits until tags have been silent for too long. A driver that can do something about it listens while it waits for
    /// the device; each rung is told once, until something comes.
    pub async fn stale(&self) -> Stale {
        let Some(treated) = &self.treated else { return std::future::pending().await };
        loop {
            let silent = treated.lock().silent();
            match silent {
                Some(stale) => return stale,
                None => treated.silent.notified().await,
            }
        }
    }

    /// The device vouched at `at` that these tags stand as they were last told: they are not silent. It brings no value
    /// back: those that have turned bad by their age, which are returned, need a reading.
    pub fn confirm(&self, tags: &[TagId], at: Time) -> Vec<TagId> {
        self.alive(at);
        self.treated.as_ref().map_or_else(Vec::new, |treated| treated.lock().confirm(tags, Instant::now(), at))
    }

    /// Nothing live can come, for the driver reads history: until [`Outlet::resume`] silence does not count. A link that
    /// ends meanwhile ends this as well.
    #[cfg(feature = "opcua")]
    pub(crate) fn pause(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().pause(Instant::now());
        }
    }

    /// Silence counts again, from where it stood.
    #[cfg(feature = "opcua")]
    pub(crate) fn resume(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().resume(Instant::now());
            treated.stirred.notify_one();
        }
    }

    /// Changes the link's state; wakes its watchers only if `change` says that it is news, and not for counters.
    pub(crate) fn note(&self, change: impl FnOnce(&mut LinkState) -> bool) {
        self.state.send_if_modified(change);
    }

    /// The link is up: from now on silence counts.
    pub(crate) fn begin(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().begin(Instant::now(), Time::now());
            treated.stirred.notify_one();
        }
    }

    /// The link is down, which says enough.
    pub(crate) fn end(&self) {
        if let Some(treated) = &self.treated {
            treated.lock().end();
        }
    }

    /// Minds the timers of what was held back and of what is silent, beside the driver. Ends when nobody listens any more.
    /// May be dropped at any time: it holds nothing.
    pub(crate) async fn tend(&self) -> Stopped {
        let Some(treated) = &self.treated else { return std::future::pending().await };
        let mut not_before = Instant::now();
        loop {
            let next = treated.lock().next();
            let due = async {
                match next {
                    Some(next) => sleep_until(next.max(not_before)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = treated.stirred.notified() => continue,
                () = due => {}
            }
            let Ok(room) = self.batches.reserve().await else { return Stopped };
            let mut treatment = treated.lock();
            let (now, mut readings) = (Instant::now(), Vec::new());
            treatment.tend(now, Time::now(), &mut readings);
            not_before = now + TOGETHER;
            if treatment.has_silent() {
                treated.silent.notify_one();
            }
            if !readings.is_empty() {
                room.send(Batch { readings, ..Batch::default() });
            }
        }
    }

    /// Hands over what is held back, since nothing comes after it.
    pub(crate) async fn flush(&self) {
        let Some(treated) = &self.treated else { return };
        let Ok(room) = self.batches.reserve().await else { return };
        let (mut treatment, mut readings) = (treated.lock(), Vec::new());
        treatment.flush(&mut readings);
        if !readings.is_empty() {
            room.send(Batch { readings, ..Batch::default() });
        }
    }

    /// Changes the link's state and wakes its watchers.
    pub(crate) fn update(&self, change: impl FnOnce(&mut LinkState)) {
        self.state.send_modify(change);
    }

    /// The link's state.
    #[must_use]
    pub fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }
}
