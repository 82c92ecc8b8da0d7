//! `gemba demo`: a simulated line over the real protocols, gemba itself as `gemba run` would run it, and an upstream; in
//! the end gemba's figures are held against what the machines really did.
//!
//! ```text
//! machines (sim::smt) ─Modbus, OPC UA, MQTT─▶ run::run ─OTLP─▶ receiver
//!    │                                           │                │
//!    └────────── truth ───────▶ verdict ◀─/health┴─── sums ───────┘
//! ```
//! Nothing in gemba knows that this is the demo: an ordinary configuration, made from `line.yaml`, leads it to the servers.

mod page;
mod receiver;
mod setting;
mod summary;
mod verdict;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use gemba_drivers::Time;
use gemba_drivers::sim::smt::{self, Plant, Station};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::page::{Health, Page};
pub use self::page::{Kpi, LossTotal};
pub use self::receiver::{Polls, Sums};
use self::receiver::{Received, Receiver};
pub use self::summary::{Outcome, Progress, Readings, StationProgress, StationResult};
pub use self::verdict::{Figure, Known, Late, judge, judge_sums};
use crate::config::Config;
use crate::http::HttpError;
use crate::snapshot::Snapshot;
use crate::telemetry::outbox::Outbox;

/// Where the page is, unless said.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How often the demo says how it goes.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How long links may take to come up, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long what the machines did last may take to reach the page, on a busy machine.
const SETTLE: Duration = Duration::from_secs(15);
/// How often the page is looked at while something is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// What a demo is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many times faster than life the machines go; within [`smt::Options::SPEEDS`].
    pub speed: f64,
    /// What happens: the same seed and speed, the same history.
    pub seed: u64,
    /// How long the machines run; until the stop if not said.
    pub duration: Option<Duration>,
    /// Where the page listens.
    pub listen: SocketAddr,
    /// Whether a free port will do as well if that one is taken.
    pub or_any_port: bool,
    /// An empty folder for the spool and the configuration, which is there for as long as the demo runs.
    pub folder: PathBuf,
    /// What is wrong on purpose: a test's way to see that the comparison can fail.
    pub fault: Option<Fault>,
}

/// The configuration that leads gemba to the machines of `plant`; for those who run it otherwise, as the benches do.
#[must_use]
pub fn configuration(plant: &Plant, listen: SocketAddr, upstream: &str, spool: &Path) -> String {
    setting::yaml(plant, listen, upstream, spool, 1)
}

/// Something that the comparison must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The configuration says that a part takes twice as long as it does.
    IdealCycleTime,
    /// Upstream answers 200 to the request for metrics of this number, counted from 1, and forgets it.
    Swallow(u64),
}

/// What a demo has to say on its way.
#[derive(Clone, Debug)]
pub enum News {
    /// Another program listens there; a free port is taken instead.
    PortTaken(SocketAddr),
    /// The page is up.
    Page {
        /// For a browser.
        url: String,
        /// Where the page listens.
        address: SocketAddr,
        /// What gemba runs.
        configuration: PathBuf,
    },
    /// Every link is up and every tag has a value: the machines start.
    Started,
    /// How it goes.
    Progress(Progress),
    /// The machines have halted; the figures are compared.
    Halted,
}

/// Runs until `stop` or for `duration`, then compares. `tell` hears the [`News`]; what gemba says
/// of itself is in `own`.
///
/// # Errors
/// When something does not start, or ends by itself, or `tell` fails. That figures do not agree is no error; the
/// outcome says so.
pub async fn run(
    options: &Options,
    own: Outbox,
    stop: CancellationToken,
    mut tell: impl FnMut(News) -> io::Result<()>,
) -> anyhow::Result<Outcome> {
    let line = smt::Options { seed: options.seed, speed: options.speed };
    let plant = Arc::new(Plant::start(line).await.context("the simulated line does not start")?);
    let swallows = if let Some(Fault::Swallow(number)) = options.fault { Some(number) } else { None };
    let receiver = Receiver::start(swallows).await.context("the OTLP receiver does not start")?;
    let stage = Stage { options, plant, receiver, own, stop };
    let outcome = Box::pin(stage.play(options.listen, &mut tell)).await;
    match outcome {
        Err(error) if is_taken(&error) && options.or_any_port => {
            tell(News::PortTaken(options.listen))?;
            Box::pin(stage.play(SocketAddr::new(options.listen.ip(), 0), &mut tell)).await
        }
        Err(error) if is_taken(&error) => {
            bail!("{} is in use by another program; name another port, or 0 for any that is free", options.listen)
        }
        outcome => outcome,
    }
}

/// What a demo is played with.
struct Stage<'a> {
    options: &'a Options,
    plant: Arc<Plant>,
    receiver: Receiver,
    own: Outbox,
    stop: CancellationToken,
}

/// What is known when the machines have halted and the page has caught up.
struct Halt {
    at: Time,
    health: Health,
    elapsed: Duration,
}

impl Stage<'_> {
    /// The agent beside those who watch it; compares when both are done.
    async fn play(&self, listen: SocketAddr, tell: &mut impl FnMut(News) -> io::Result<()>) -> anyhow::Result<Outcome> {
        let slow = if self.options.fault == Some(Fault::IdealCycleTime) { 2 } else { 1 };
        let spool = self.options.folder.join("spool");
        let yaml = setting::yaml(&self.plant, listen, &self.receiver.endpoint(), &spool, slow);
        let file = self.options.folder.join("line.yaml");
        std::fs::write(&file, &yaml).with_context(|| file.display().to_string())?;
        // Wrong, it is our mistake and not the user's.
        let config = Config::from_str("line.yaml", &yaml).map_err(|error| anyhow::anyhow!("{error}"))?;

        let stop = CancellationToken::new();
        let (started, page) = oneshot::channel();
        let running = crate::run::run_with(config, self.own.clone(), stop.clone(), |address| {
            let _ = started.send(address);
        });
        let mut agent = Box::pin(running);
        let halt = tokio::select! {
            ended = &mut agent => {
                ended?;
                bail!("gemba ended by itself");
            }
            halt = Box::pin(self.watch(page, &file, tell)) => halt,
        };
        stop.cancel();
        let last = agent.await;
        Ok(self.compare(&halt?, last?.as_ref(), &self.receiver.received()))
    }

    /// Waits for the page and the links, lets the machines run, and waits for the page to catch up with them.
    async fn watch(
        &self,
        page: oneshot::Receiver<SocketAddr>,
        configuration: &Path,
        tell: &mut impl FnMut(News) -> io::Result<()>,
    ) -> anyhow::Result<Halt> {
        let address = page.await.context("gemba did not start")?;
        let page = Page::new(address)?;
        tell(News::Page { url: page.url(), address, configuration: configuration.to_owned() })?;
        connected(&page).await?;
        tell(News::Started)?;

        let began = Instant::now();
        let stop = CancellationToken::new();
        let mut machines = {
            let (plant, stop) = (Arc::clone(&self.plant), stop.clone());
            AbortOnDropHandle::new(tokio::spawn(async move { plant.run(stop).await }))
        };
        let mut beat = interval_at(began + PROGRESS_EVERY, PROGRESS_EVERY);
        let mut said = (began, page.readings().await?);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = over(began, self.options.duration) => break,
                ended = &mut machines => {
                    ended.context("the machines failed")?;
                    bail!("the machines ended by themselves");
                }
                _ = beat.tick() => {
                    let now = (Instant::now(), page.readings().await?);
                    let progress = self.progress(&page.health().await?, began, said, now);
                    tell(News::Progress(progress))?;
                    said = now;
                }
            }
        }
        stop.cancel();
        let at = timeout(SETTLE, machines).await.context("the machines do not halt")?.context("the machines failed")?;
        let elapsed = began.elapsed();
        tell(News::Halted)?;
        Ok(Halt { at, health: self.caught_up(&page, at).await?, elapsed })
    }

    fn progress(&self, health: &Health, began: Instant, before: (Instant, u64), now: (Instant, u64)) -> Progress {
        let stations = health.stations.iter().map(|station| StationProgress {
            name: station.name.clone(),
            state: station.state.clone().unwrap_or_default(),
            oee: station.kpi.as_ref().and_then(|kpi| kpi.oee),
            total: station.kpi.as_ref().and_then(|kpi| kpi.total),
        });
        Progress {
            elapsed: now.0 - began,
            stations: stations.collect(),
            readings: now.1,
            rate: rate(now.1.saturating_sub(before.1), now.0 - before.0),
            points: self.receiver.points(),
            lost: health.lost(),
        }
    }

    /// The page once it shows what the machines did last; or as it is when that takes too long, to be judged as it is.
    async fn caught_up(&self, page: &Page, halted: Time) -> anyhow::Result<Health> {
        let mut looks = interval(LOOK);
        let mut health = page.health().await?;
        let waited = timeout(SETTLE, async {
            while !self.shows_the_last(&health, halted) {
                looks.tick().await;
                health = page.health().await?;
            }
            Ok(())
        });
        match waited.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) | Err(_) => Ok(health),
        }
    }

    /// Whether each station has all the parts and the last state of its machine. More than all is for the verdict to find.
    fn shows_the_last(&self, health: &Health, halted: Time) -> bool {
        let Some(time) = health.time.filter(|&time| time > halted) else { return false };
        Station::ALL.iter().all(|machine| {
            let Some(station) = health.stations.iter().find(|station| station.name == machine.name()) else {
                return false;
            };
            let Some(kpi) = &station.kpi else { return false };
            let Some(since) = kpi.since else { return false };
            let last = self.plant.truth(machine.name(), halted, time);
            let told = last.states.keys().next().map(|&state| verdict::word(state));
            let truth = self.plant.truth(machine.name(), since, time);
            let all = |seen: Option<f64>, known: u64| seen.is_some_and(|seen| seen >= whole(known));
            station.state.as_deref() == told && all(kpi.good, truth.good) && all(kpi.reject, truth.reject)
        })
    }

    fn compare(&self, halt: &Halt, last: &Snapshot, received: &Received) -> Outcome {
        let stations = Station::ALL.map(|machine| {
            let name = machine.name();
            let late = match machine {
                Station::Printer => Late::Polled(received.polls.get(name).cloned().unwrap_or_default()),
                Station::Aoi | Station::Oven => Late::Never,
            };
            let shown = halt.health.stations.iter().find(|station| station.name == name);
            let seen = shown.and_then(|station| station.kpi.clone()).unwrap_or_default();
            let to = halt.health.time.unwrap_or(halt.at);
            let since = seen.since.unwrap_or(to);
            let known = Known {
                truth: self.plant.truth(name, since, to),
                with_before: self.plant.truth(name, since - late.at_most(), to),
                ideal: self.plant.options().ideal(machine),
                late,
            };
            let sums = received.sums.get(name).cloned().unwrap_or_default();
            let upstream = judge_sums(&sums, &self.plant.truth(name, sums.since, sums.time), &known.late);
            StationResult {
                name: name.to_owned(),
                figures: judge(&seen, &known),
                upstream,
                told_to_the_end: sums.time >= halt.at,
            }
        });
        Outcome {
            seed: self.options.seed,
            speed: self.options.speed,
            elapsed: halt.elapsed,
            stations: stations.into(),
            readings: Readings {
                taken: last.intake,
                points: received.readings,
                text_changes: received.text_changes,
                requests: received.requests,
                repeated: received.repeated,
                unreadable: received.unreadable,
                losses: last
                    .loss_totals
                    .iter()
                    .map(|(source, reason, count)| LossTotal {
                        source: source.to_string(),
                        reason: reason.to_string(),
                        count: *count,
                    })
                    .collect(),
            },
        }
    }
}

/// Waits until every link is up and every tag has a first value.
async fn connected(page: &Page) -> anyhow::Result<()> {
    let mut looks = interval(LOOK);
    let mut missing = Vec::new();
    let waited = timeout(START, async {
        loop {
            looks.tick().await;
            let health = page.health().await?;
            missing = health.missing();
            if health.time.is_some() && missing.is_empty() {
                return Ok(());
            }
        }
    });
    match waited.await {
        Ok(outcome) => outcome,
        Err(_) => bail!("after {START:?} the line is not up: {}", missing.join(", ")),
    }
}

async fn over(began: Instant, duration: Option<Duration>) {
    match duration {
        Some(duration) => sleep(duration.saturating_sub(began.elapsed())).await,
        None => std::future::pending().await,
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(HttpError::InUse { .. }))
}

fn rate(count: u64, span: Duration) -> f64 {
    if span.is_zero() { 0.0 } else { whole(count) / span.as_secs_f64() }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn whole(count: u64) -> f64 {
    count as f64
}
