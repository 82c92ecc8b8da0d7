//! `gemba run`: the one function that wires everything, and the one file that spawns the agent's tasks.
//!
//! ```text
//! drivers (a task each) ─▶ pipeline (own thread) ─▶ spool ─▶ forwarder (own thread) ─▶ upstream
//!                              └─ snapshot ─▶ http          house-keeping of the spool, and the word of
//!                                                           machine and agent (own thread)
//! ```
//! A stop goes the same way: the drivers let go, the pipeline commits what came, the forwarder sends what it
//! can before the deadline, the page goes last.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gemba_drivers::supervisor::supervise;
use gemba_drivers::treat::Treatment;
use gemba_drivers::treat::clock::GatewayClock;
use gemba_drivers::{AnyDriver, LinkState, Loss, Outlet, Reading, TagId, Time, mqtt, opcua};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::config::{Config, Source};
use crate::forward::{Forwarder, Letters};
use crate::host::{self, Host};
use crate::http;
use crate::model::{Derived, Line};
use crate::otlp::{Encoder, OwnEncoder, Resource};
use crate::pipeline::Pipeline;
use crate::received::Received;
use crate::record::Record;
use crate::snapshot::{GatewayView, Snapshot, UpstreamStatus, UpstreamView};
use crate::spool::{self, Entry, Recovery, Seq, Series, SeriesId, StoredReading};
use crate::telemetry::meters::Meters;
use crate::telemetry::outbox::Outbox;
use crate::telemetry::teller::{self, Teller};

/// Batches between the drivers and the pipeline. When it is full drivers wait: polls come later, a broker
/// holds its messages, an OPC UA server queues.
const INLET: usize = 256;
/// Losses of the forwarder and the spool on their way into the ledger. When it is full they wait.
const LOSSES: usize = 64;
/// Requests of the agent's own telemetry on their way into the spool. When it is full more is dropped, and counted.
const OWN: usize = 64;
/// How often the agent's log lines and spans are handed over.
const WORDS_EVERY: Duration = Duration::from_secs(1);
/// Its figures, and the machine's, are with one in so many looks at the machine.
const LOOKS_A_TELLING: u32 = 3;
/// How long a stop may take in all, from the signal to the end.
pub const DRAIN: Duration = Duration::from_secs(10);
/// What of it is left for sending.
const LAST_SEND: Duration = Duration::from_secs(5);

/// Runs until `stop`, then drains. `started` hears the address of the page once everything stands. Returns the line as
/// it stood when the last reading was in.
///
/// # Errors
/// If something that must stand at the start does not: the page's port, the spool.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> anyhow::Result<Arc<Snapshot>> {
    run_with(config, Outbox::default(), stop, started).await
}

/// The same, with what the agent says of itself: log lines and spans from `own`, which somebody else's subscriber fills.
/// Figures need no subscriber and always go upstream.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    own: Outbox,
    stop: CancellationToken,
    started: impl FnOnce(SocketAddr),
) -> anyhow::Result<Arc<Snapshot>> {
    let config = Arc::new(config);
    let listener = http::bind(config.http.listen).await?;
    let address = listener.local_addr().context("the page's address")?;

    let opened = {
        let config = config.clone();
        spawn_blocking(move || open_spool(&config)).await.context("opening the spool")??
    };
    let told: std::collections::HashMap<TagId, opcua::Watermark> = opened.line.told().collect();
    let Opened { line, writer, reader, mut sealer, catalog, ids, applied, received, instance } = opened;

    // The bounded queues and the watched states between the tasks below.
    let (batches, inlet) = mpsc::channel(INLET);
    let (losses, lost) = mpsc::channel::<Loss>(LOSSES);
    let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let last = snapshot.clone();
    let upstream = UpstreamView {
        status: if config.upstream.is_some() { UpstreamStatus::Connecting } else { UpstreamStatus::None },
        since: Time::now(),
        last_success: None,
        retries: 0,
        rejected: 0,
        last_error: None,
    };
    let (upstreams, upstream) = watch::channel(upstream);
    let (gateways, gateway) = watch::channel(GatewayView::default());
    let wanted = Arc::new(Notify::new());
    let (questions, asked_for) = mpsc::channel(http::MOST_QUESTIONS);
    let (tellings, told_by_people) = mpsc::channel(http::MOST_TELLINGS);

    // Drivers: one supervised task for each link.
    let reading = CancellationToken::new();
    let mut drivers = JoinSet::new();
    let mut links: Vec<watch::Receiver<LinkState>> = Vec::new();
    let clock = Arc::new(GatewayClock::default());
    clock.look();
    let mut suppressed = Vec::new();
    for link in &config.links {
        let (state, watched) = watch::channel(LinkState::new(Time::now()));
        links.push(watched);
        let treatment = Treatment::new(&config.plan(link));
        suppressed.extend(treatment.as_ref().map(Treatment::suppressed));
        let outlet = Outlet::new(batches.clone(), Arc::new(state)).treating(treatment).timed_by(clock.clone());
        let driver = match link.source.clone() {
            Source::Opcua(source) => {
                AnyDriver::Opcua(Box::new(opcua::Client::new(source).having(|tag| told.get(&tag).copied())))
            }
            Source::Mqtt(source) => {
                let session = source.session();
                let (known, filters) = (received.of(&session), received.filters_of(&session));
                AnyDriver::Mqtt(Box::new(mqtt::Client::new(source).having(known).subscribed_to(filters)))
            }
            source @ (Source::Modbus(_) | Source::Gpio(_)) => source.driver(),
        };
        drivers.spawn(supervise(driver, link.endpoint.clone(), outlet, reading.clone()));
    }

    // The pipeline, on a thread of its own.
    let (to, told) = mpsc::channel(OWN);
    let meters = Arc::new(Meters::default());
    let pipeline = Pipeline::new(line, writer, ids, applied, received, config.spool.sync, snapshots)
        .with_own(told, meters.clone())
        .with_questions(asked_for)
        .with_entries(told_by_people);
    let asked = wanted.clone();
    let mut pipeline = spawn_blocking(move || Handle::current().block_on(pipeline.run(inlet, lost, asked)));

    // House-keeping of the spool, likewise; the same thread looks at the machine, whose sensors may be slow, and tells of
    // it and of the agent.
    let resource = Resource {
        site: config.site.clone(),
        line: config.line.clone(),
        instance_id: instance.into(),
        host_name: host_name().into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let sources = teller::Sources {
        outbox: own,
        meters: meters.clone(),
        links: config.links.iter().map(|link| link.endpoint.as_str().into()).zip(links.iter().cloned()).collect(),
        suppressed,
        upstream: upstream.clone(),
        wanted: config.upstream.as_ref().map(|upstream| upstream.signals.clone()).unwrap_or_default(),
    };
    let teller = Teller::new(sources, OwnEncoder::new(&resource), to, losses.clone());
    let telling = CancellationToken::new();
    let _telling = telling.clone().drop_guard(); // a thread is not aborted with the rest when this future is dropped
    let (mut all_told, last_told) = oneshot::channel::<()>();
    let keeping = CancellationToken::new();
    let _kept = keeping.clone().drop_guard(); // as above
    let mut keeper = {
        let (losses, stop) = (losses.clone(), keeping.clone());
        let (host, telling) = (Host::new(&config.spool.path, clock), telling.clone());
        let watching = async move {
            watch_host(host, gateways, teller, telling).await;
            drop(last_told);
        };
        spawn_blocking(move || {
            Handle::current().block_on(async { tokio::join!(keep_house(&mut sealer, losses, stop), watching) })
        })
    };

    // The forwarder, likewise: it reads the spool and packs megabytes at a time, and would hold up whatever shares a
    // thread with it.
    let sending = CancellationToken::new();
    let sent = CancellationToken::new();
    let _sent = sent.clone().drop_guard(); // as above
    let mut forwarder = match &config.upstream {
        Some(upstream) => {
            let stations = config.stations.iter().map(|station| station.name.clone());
            let encoder = Encoder::new(&resource, move |id| catalog.get(id).cloned()).with_stations(stations);
            let forwarder = Forwarder::new(upstream, encoder, reader, losses, upstreams)?
                .counting_in(meters)
                .keeping_refused(Letters::of(&config.spool.path));
            let running = sent.run_until_cancelled_owned(forwarder.run(sending.clone()));
            Some(spawn_blocking(move || Handle::current().block_on(running)))
        }
        None => None,
    };

    // The page.
    let identity = http::Identity {
        version: env!("CARGO_PKG_VERSION").into(),
        site: config.site.clone(),
        line: config.line.clone(),
        started: Time::now(),
        timezone: config.timezone.clone(),
    };
    let entries = config.http.entries.then_some(tellings);
    let sources = http::Sources { identity, snapshot, wanted, links, upstream, gateway, questions, entries };
    let router = http::router(sources);
    let mut page = AbortOnDropHandle::new(tokio::spawn(axum::serve(listener, router).into_future()));
    info!(page = %format!("http://{address}/health"), stations = config.stations.len(), links = config.links.len(), "running");
    started(address);

    // Each of them outlives everything but a stop. One that ends has met a fault of ours: what came is kept, and the
    // service manager's restart takes up from the spool; going on would only look alive.
    let failed = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        outcome = &mut pipeline => Some(("the pipeline", outcome.err())),
        outcome = &mut keeper => Some(("the spool's house-keeping", outcome.err())),
        outcome = ended(&mut forwarder) => Some(("the forwarder", outcome.err())),
        outcome = &mut page => Some(("the page", outcome.err())),
        Some(outcome) = drivers.join_next() => Some(("a driver", outcome.err())),
    };
    let failed = failed.map(|(who, why)| {
        format!("{who} failed: {}", why.map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string()))
    });
    if let Some(failed) = &failed {
        error!("{failed}");
    }
    info!("stopping");
    let drained = timeout(DRAIN, async {
        reading.cancel();
        while drivers.join_next().await.is_some() {}
        telling.cancel();
        all_told.closed().await;
        drop(batches); // the pipeline ends when the last of those who feed it has let go
        if !pipeline.is_finished() && pipeline.await.is_err() {
            error!("the pipeline failed; what was not committed is lost");
        }
        sending.cancel();
        if let Some(forwarder) = forwarder
            && !forwarder.is_finished()
            && timeout(LAST_SEND, forwarder).await.is_err()
        {
            warn!(after = ?LAST_SEND, "upstream does not answer; the rest waits in the spool for the next run");
        }
        keeping.cancel();
        if !keeper.is_finished() {
            let _ = keeper.await;
        }
    })
    .await;
    if drained.is_err() {
        warn!(after = ?DRAIN, "the drain took too long; what was not committed is lost, what was is kept");
    } else {
        info!("stopped");
    }
    match failed {
        None => Ok(last.borrow().clone()),
        Some(failed) => Err(anyhow::anyhow!(failed)),
    }
}

/// When the task ends, if there is one.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The spool opened, and the model as an undisturbed run would have it.
struct Opened {
    line: Line,
    writer: spool::Writer,
    reader: spool::Reader,
    sealer: spool::Sealer,
    catalog: Arc<spool::Catalog>,
    ids: Vec<SeriesId>,
    applied: Seq,
    received: Received,
    instance: String,
}

/// Opens the spool, takes the model up from its checkpoint, applies what came after, and marks the time in
/// which nobody watched.
fn open_spool(config: &Config) -> anyhow::Result<Opened> {
    let settings = spool::Settings::new(&config.spool);
    let series = Series::all(config);
    let spool::Opened { mut writer, reader, sealer, ids, catalog, recovery } =
        spool::open(settings, &series).with_context(|| format!("spool.path {}", config.spool.path.display()))?;
    let instance = instance_id(&config.spool.path)?;

    let mut line = Line::new(config);
    let (last_commit, found) = (recovery.last_commit, recovery.losses.clone());
    let mut received = Received::default();
    let mut applied = reapply(&mut line, &mut received, recovery, &ids);
    let sessions: Vec<String> = config
        .links
        .iter()
        .filter_map(|link| if let Source::Mqtt(source) = &link.source { Some(source.session()) } else { None })
        .collect();
    received.retain(|session| sessions.iter().any(|wanted| wanted == session));
    let mut derived = Derived::default();
    for loss in found {
        line.lose(loss, &mut derived);
    }
    if let Some(alive) = last_commit {
        let now = Time::now();
        info!(last_commit = %alive, unwatched = ?now.since(alive), "taking up from the spool");
        let marks: Vec<Reading> = line.unwatched(alive.min(now), now).collect();
        let mut told = Derived::default();
        line.apply(&marks, &mut told);
        let stored = marks.into_iter().map(|mark| StoredReading::new(ids[mark.tag.index()], mark)).collect();
        // What they settle is derived from them again after the next restart, losses too.
        let cause = writer.append(&Entry::Readings(stored));
        applied = cause;
        for record in told.records {
            applied = writer.append(&Entry::Record { cause: Some(cause), record });
        }
    }
    for record in derived.records {
        applied = writer.append(&Entry::Record { cause: None, record });
    }
    writer.commit(Time::now()).context("the spool cannot be written")?;
    Ok(Opened { line, writer, reader, sealer, catalog, ids, applied, received, instance })
}

/// Applies what the spool holds after the checkpoint. What that gives is in the spool already.
fn reapply(line: &mut Line, received: &mut Received, recovery: Recovery, ids: &[SeriesId]) -> Seq {
    let tags: std::collections::HashMap<SeriesId, TagId> =
        ids.iter().zip(0..).map(|(&series, tag)| (series, TagId(tag))).collect();
    let mut applied = Seq::default();
    if let Some((through, state)) = &recovery.checkpoint {
        match line.restore(state) {
            Ok(()) => applied = *through,
            Err(error) => warn!(%error, "starting the figures anew"),
        }
    }
    let mut scratch = Derived::default();
    let mut readings = Vec::new();
    for entry in recovery.entries() {
        let (seq, entry) = match entry {
            Ok(entry) => entry,
            Err(error) => {
                warn!(%error, "a part of the spool cannot be applied again");
                continue;
            }
        };
        match entry {
            Entry::Readings(stored) => {
                readings.extend(stored.into_iter().filter_map(|stored| {
                    let StoredReading { series, value, validity, source_time, received_time, backfilled } = stored;
                    Some(Reading { tag: *tags.get(&series)?, value, validity, source_time, received_time, backfilled })
                }));
                line.apply(&readings, &mut scratch);
                readings.clear();
            }
            Entry::Tick(at) => line.advance(at, &mut scratch),
            Entry::Deliveries { session, deliveries } => received.restore(session, deliveries),
            Entry::Filters { session, begins, filters } => received.restore_filters(session, begins, filters),
            Entry::Record { cause: None, record: Record::Loss { loss, .. } } => {
                line.lose(loss, &mut scratch);
            }
            Entry::Record { cause: None, record: Record::Entered(told) } => {
                if let Err(error) = line.enter(told.clone(), &mut scratch) {
                    warn!(station = &*told.station, %error, "an entry cannot be applied again");
                }
            }
            Entry::Record { .. } | Entry::Telemetry(_) => {}
        }
        scratch.records.clear();
        scratch.closed.clear();
        applied = seq;
    }
    applied
}

/// One round of house-keeping whenever the spool asks for it.
async fn keep_house(sealer: &mut spool::Sealer, losses: mpsc::Sender<Loss>, stop: CancellationToken) {
    let wanted = sealer.wakeup();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted.notified() => {}
        }
        loop {
            match sealer.work() {
                Ok(worked) => {
                    for loss in worked.losses {
                        if losses.send(loss).await.is_err() {
                            return;
                        }
                    }
                    if !worked.more || stop.is_cancelled() {
                        break;
                    }
                }
                Err(error) => {
                    warn!(%error, "the spool's house-keeping failed; it is tried again");
                    break;
                }
            }
        }
    }
}

/// Looks at the machine, and tells of it and of the agent until `stop`, and once more then.
async fn watch_host(mut host: Host, gateways: watch::Sender<GatewayView>, mut teller: Teller, stop: CancellationToken) {
    let every = |span| {
        let mut ticks = tokio::time::interval(span);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut looks, mut words) = (every(host::EVERY), every(WORDS_EVERY));
    let mut looked: u32 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = looks.tick() => {
                let mut view = host.look(Time::now());
                view.metrics = view.metrics.iter().cloned().chain(teller.metrics()).collect();
                if looked.is_multiple_of(LOOKS_A_TELLING) {
                    teller.tell_figures(&view.metrics, Time::now());
                }
                looked = looked.wrapping_add(1);
                gateways.send_replace(view);
            }
            _ = words.tick() => teller.tell_said(Time::now()),
        }
    }
    teller.tell_said(Time::now());
}

/// Names this gateway for good: made once, kept beside the spool.
fn instance_id(spool: &Path) -> anyhow::Result<String> {
    let path = spool.join("instance-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    }
    let id = uuid::Uuid::new_v4().to_string();
    std::fs::write(&path, &id).with_context(|| path.display().to_string())?;
    Ok(id)
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use gemba_drivers::Value;

    use super::*;

    /// What waited to be settled at a kill is settled by the restart, and again by the next one if no checkpoint came between.
    #[test]
    fn what_a_restart_settles_is_counted_once_however_often_it_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let yaml = format!(
            r#"
site: fab-2
line: smt-1
timezone: UTC
spool: {{ path: {} }}
stations:
  - name: oven-1
    source: {{ type: mqtt, endpoint: "mqtt://127.0.0.1:1883", client_id: gemba, topics: [{{ topic: oven, payload: json }}] }}
    tags: [{{ name: state, path: "$.state" }}]
    oee: {{ state: {{ tag: state, map: {{ running: producing }} }} }}
"#,
            folder.path().join("spool").display()
        );
        let config = Config::from_str("line.yaml", &yaml).expect("a configuration");
        let Opened { mut writer, ids, .. } = open_spool(&config).expect("opens");
        let at = Time::now() - Duration::from_secs(10);
        let strange = Reading::good(TagId(0), Value::Text("melting".into()), at, at);
        writer.append(&Entry::Readings(vec![StoredReading::new(ids[0], strange)]));
        writer.commit(at).expect("a commit");
        drop(writer);
        for restart in 1..=3 {
            let Opened { mut line, writer, .. } = open_spool(&config).expect("opens");
            let totals = line.snapshot(Time::now(), writer.view()).loss_totals;
            let told: Vec<_> = totals.iter().map(|(_, reason, count)| (&**reason, *count)).collect();
            assert_eq!(told, [("state value `melting` is not in oee.state.map", 1)], "restart {restart}");
        }
    }

    /// A kill after the answer and before a checkpoint: the restart applies it again, each of them, and it counts once.
    #[test]
    fn what_was_told_before_a_kill_is_applied_once_however_often_it_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let yaml = format!(
            r#"
site: fab-2
line: smt-1
timezone: UTC
spool: {{ path: {} }}
stations:
  - name: oven-1
    source: {{ type: mqtt, endpoint: "mqtt://127.0.0.1:1883", client_id: gemba, topics: [{{ topic: oven, payload: json }}] }}
    tags: [{{ name: count, path: "$.count" }}]
    oee: {{ total: {{ tag: count }} }}
"#,
            folder.path().join("spool").display()
        );
        let config = Config::from_str("line.yaml", &yaml).expect("a configuration");
        let Opened { mut writer, ids, .. } = open_spool(&config).expect("opens");
        let at = |seconds_ago| Time::now() - Duration::from_secs(seconds_ago);
        for (ago, count) in [(60, 0), (50, 8)] {
            let reading = Reading::good(TagId(0), Value::Int(count), at(ago), at(ago));
            writer.append(&Entry::Readings(vec![StoredReading::new(ids[0], reading)]));
        }
        let told = crate::model::Entry {
            entered: at(40),
            by: Some("anna".into()),
            station: "oven-1".into(),
            what: crate::model::What::Rejects { at: at(50), count: 3, code: "burnt".into() },
        };
        let told = Arc::new(told);
        let record = Record::Entered(told.clone());
        writer.commit_alone(&Entry::Record { cause: None, record }, at(40)).expect("a commit");
        drop(writer);
        for restart in 1..=3 {
            let Opened { line, .. } = open_spool(&config).expect("opens");
            assert_eq!(line.entries().collect::<Vec<_>>(), [&told], "restart {restart}");
            let rejected = line
                .periods(Time::now())
                .iter()
                .flat_map(|of| of.period.tally.defects_by_code())
                .map(|(_, parts)| parts)
                .sum::<f64>();
            assert_eq!(rejected, 3.0, "restart {restart}");
        }
    }
}
