//! A supervised link whose readings a test receives. Everything waits for a condition, with one deadline.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::supervisor::supervise;
use gemba_drivers::treat::Treatment;
use gemba_drivers::{Batch, Driver, LinkPhase, LinkState, Outlet, OwnStatus, Reading, Status, TagId, Time, Validity};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything may take before the test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

pub(crate) struct Link {
    batches: mpsc::Receiver<Batch>,
    state: Arc<watch::Sender<LinkState>>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Link {
    /// Supervises `driver` until dropped.
    pub(crate) fn start(driver: impl Driver + 'static) -> Self {
        Self::treated(driver, None)
    }

    /// The same with readings that are treated on their way.
    pub(crate) fn treated(driver: impl Driver + 'static, treatment: Option<Treatment>) -> Self {
        let (sender, batches) = mpsc::channel(64);
        let state = Arc::new(watch::Sender::new(LinkState::new(Time::now())));
        let outlet = Outlet::new(sender, Arc::clone(&state)).treating(treatment);
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(supervise(driver, "test".to_owned(), outlet, stop.clone())));
        Self { batches, state, stop, task }
    }

    /// The next batch that says something. (What a session is subscribed to is kept by one that does not.)
    pub(crate) async fn next(&mut self) -> Batch {
        timeout(DEADLINE, async {
            loop {
                let batch = self.batches.recv().await.expect("the link runs");
                if !batch.readings.is_empty() || !batch.losses.is_empty() {
                    return batch;
                }
            }
        })
        .await
        .expect("a batch in time")
    }

    /// The first batch that `wanted` takes something from; those before it are dropped.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(&Batch) -> Option<T>) -> T {
        timeout(DEADLINE, async {
            loop {
                let batch = self.batches.recv().await.expect("the link runs");
                if let Some(found) = wanted(&batch) {
                    return found;
                }
            }
        })
        .await
        .expect("the batch in time")
    }

    /// The readings by which the supervisor says that the link is lost.
    pub(crate) async fn until_lost(&mut self) -> Vec<Reading> {
        self.until(|batch| {
            let lost = Validity::Bad(Status::Own(OwnStatus::LinkLost));
            batch.readings.iter().any(|reading| reading.validity == lost).then(|| batch.readings.clone())
        })
        .await
    }

    /// Waits until the link's state is as `wanted`. Readings pile up meanwhile, so drain a fast link first.
    pub(crate) async fn until_state(&self, wanted: impl FnMut(&LinkState) -> bool) -> LinkState {
        let mut state = self.state.subscribe();
        let held = timeout(DEADLINE, state.wait_for(wanted)).await.expect("the state in time");
        held.expect("the sender lives").clone()
    }

    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) async fn until_connected(&self) -> LinkState {
        self.until_state(|state| state.phase == LinkPhase::Connected).await
    }

    #[allow(dead_code, reason = "not every test file looks at it")]
    pub(crate) fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    /// Stops as the agent does, and waits for the end.
    #[allow(dead_code, reason = "not every test file stops a link by hand")]
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        self.batches.close();
        if let Some(task) = self.task.take() {
            timeout(DEADLINE, task).await.expect("the link ends in time").expect("without a panic");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The one reading of `tag` in the batch.
#[track_caller]
pub(crate) fn of(batch: &Batch, tag: u32) -> Reading {
    let found: Vec<_> = batch.readings.iter().filter(|reading| reading.tag == TagId(tag)).collect();
    assert_eq!(found.len(), 1, "tag {tag} once in {batch:?}");
    found[0].clone()
}

/// Whether every reading in the batch is good, and there is one.
#[allow(dead_code, reason = "not every test file asks")]
pub(crate) fn all_good(batch: &Batch) -> bool {
    !batch.readings.is_empty() && batch.readings.iter().all(|reading| reading.validity == Validity::Good)
}
