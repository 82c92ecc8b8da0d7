//! A driver at one end of a line and slaves at the other, in the test's own time.

use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::modbus::{Client, Config, DataType, Endpoint, Group, Limits, Line, Table, Tag};
use gemba_drivers::sim::rtu::RtuBus;
use gemba_drivers::{
    Batch, DeviceState, Driver as _, LinkError, LinkState, Outlet, OwnStatus, Status, TagId, Time, Validity,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn endpoint() -> Endpoint {
    Endpoint::Rtu { path: "/dev/ttyS0".to_owned(), line: Line::default() }
}

/// Holding registers 0 and 1 of a unit, ten a second.
pub(crate) fn two(unit: u8, first_id: u32) -> Group {
    let tag = |at: u16| {
        let address = format!("holding:{at}").parse().expect("an address");
        Tag::new(TagId(first_id + u32::from(at)), address, DataType::U16)
    };
    Group {
        station: format!("press-{unit}").into(),
        unit,
        poll: Duration::from_millis(100),
        timeout: TIMEOUT,
        limits: Limits::default(),
        tags: (0..2).map(tag).collect(),
    }
}

pub(crate) fn config(endpoint: Endpoint, groups: Vec<Group>) -> Config {
    Config { endpoint, timeout: TIMEOUT, pause: Duration::ZERO, groups }
}

/// A driver at one end of a line and slaves at the other, run without a supervisor.
pub(crate) struct Rig<P = RtuBus> {
    /// What is at the other end.
    pub(crate) bus: P,
    pub(crate) batches: mpsc::Receiver<Batch>,
    pub(crate) state: Arc<watch::Sender<LinkState>>,
    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) task: JoinHandle<LinkError>,
}

impl Rig {
    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) fn start(groups: Vec<Group>) -> Self {
        let (ours, theirs) = tokio::io::duplex(1024);
        let bus = RtuBus::on(theirs);
        for group in &groups {
            bus.set(group.unit, Table::Holding, 0, &[u16::from(group.unit) * 10, u16::from(group.unit) * 10 + 1]);
        }
        Self::over(Client::over(config(endpoint(), groups), ours), bus)
    }
}

impl<P> Rig<P> {
    pub(crate) fn over(mut client: Client, bus: P) -> Self {
        let (sender, batches) = mpsc::channel(64);
        let state = Arc::new(watch::Sender::new(LinkState::new(Time::now())));
        let outlet = Outlet::new(sender, Arc::clone(&state));
        let task = tokio::spawn(async move { client.run(&outlet).await });
        Self { bus, batches, state, task }
    }

    pub(crate) async fn next(&mut self) -> Batch {
        tokio::time::timeout(Duration::from_secs(600), self.batches.recv()).await.expect("in time").expect("it runs")
    }

    /// The first batch of the tags whose first tag is `first` that is `wanted`.
    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) async fn until(&mut self, first: u32, wanted: impl Fn(&Batch) -> bool) -> Batch {
        loop {
            let batch = self.next().await;
            if batch.readings[0].tag == TagId(first) && wanted(&batch) {
                return batch;
            }
        }
    }

    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) fn device(&self, at: usize) -> DeviceState {
        self.state.borrow().devices[at].clone()
    }

    #[allow(dead_code, reason = "not every test file asks")]
    pub(crate) fn discarded(&self, at: usize, kind: &str) -> u64 {
        let device = self.device(at);
        device.discarded.iter().find(|(known, _)| *known == kind).expect("a kind").1
    }
}

impl<P> Drop for Rig<P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const NO_ANSWER: Validity = Validity::Bad(Status::Own(OwnStatus::NoAnswer));
