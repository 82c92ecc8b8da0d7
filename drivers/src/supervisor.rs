//! The one owner of every link: connect, run, and after a break say so, wait, and try again.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::{
    Batch, BreakerState, Driver, LinkError, LinkPhase, Outlet, OwnStatus, Reading, Status, Stopped, TagId, Time, trace,
};

/// The shortest pause between two attempts.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A link that stood so long begins with the shortest pause again. One that breaks sooner goes on with longer ones:
/// a peer that lets us in and drops us is not to be knocked at twice a second for ever.
const STEADY: Duration = Duration::from_secs(5);
/// How long a goodbye may take at a stop: longer than the drivers give their peers, so that they end theirs.
const GOODBYE: Duration = Duration::from_secs(3);

/// The pauses between attempts, here and wherever gemba tries again: doubling, jittered (up to as
/// much again), at most 30 s in all, without end.
pub fn pauses() -> impl Iterator<Item = Duration> + Send + use<> {
    pauses_from(FIRST_PAUSE)
}

fn pauses_from(first: Duration) -> impl Iterator<Item = Duration> + Send + use<> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(LONGEST_PAUSE / 2) // and the jitter at most as much again
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The pause after `error`: one that trying again soon does not help takes the longest, jittered too, so that links that were
/// refused together do not knock together.
fn pause_after(error: &LinkError, waits: &mut impl Iterator<Item = Duration>) -> Duration {
    let pause = if error.retry_helps() { waits.next() } else { pauses_from(LONGEST_PAUSE / 2).next() };
    pause.unwrap_or(LONGEST_PAUSE)
}

/// Keeps `driver`'s link up until `stop`, delivering into `outlet`. `name` is the endpoint, for logs.
///
/// When the link breaks every tag of it turns bad, dated from the link's last proof of life, so that
/// whatever replays the readings sees the same gap.
pub async fn supervise(mut driver: impl Driver, name: String, outlet: Outlet, stop: CancellationToken) {
    let span = info_span!("link", endpoint = %name);
    async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep_up(&mut driver, &name, &outlet) => {}
        }
        // What was held back is not lost, as long as somebody takes it.
        let flushed = timeout(GOODBYE, or_panic(outlet.flush()));
        let _ = tokio::join!(flushed, close(&mut driver));
    }
    .instrument(span)
    .await;
}

/// Ends only when nobody listens any more.
async fn keep_up(driver: &mut impl Driver, name: &str, outlet: &Outlet) {
    let mut waits = pauses();
    loop {
        outlet.note(|link| {
            link.attempts += 1;
            link.breaker.state == BreakerState::Open && link.breaker.turn(BreakerState::HalfOpen, Time::now())
        });
        let began = Instant::now();
        let connected = connect(driver, name).await;
        outlet.note(|link| {
            link.connecting.add(began.elapsed());
            false
        });
        let error = match connected {
            Ok(()) => {
                let now = Time::now();
                outlet.update(|link| {
                    link.breaker.turn(BreakerState::Closed, now);
                    link.phase = LinkPhase::Connected;
                    link.since = now;
                    link.alive = Some(now);
                    link.connects += 1;
                });
                info!("connected");
                let up = Instant::now();
                outlet.begin();
                let error = tokio::select! {
                    error = or_panic(driver.run(outlet)) => error.unwrap_or_else(|panic| panic),
                    ended = or_panic(outlet.tend()) => match ended {
                        Ok(Stopped) => return,
                        Err(panic) => panic,
                    },
                };
                outlet.end();
                if up.elapsed() >= STEADY {
                    waits = pauses();
                }
                let lost = outlet.state().alive.unwrap_or(now);
                if mark_lost(driver.tags(), outlet, lost).await.is_err() {
                    return;
                }
                error
            }
            Err(error) => error,
        };
        let pause = pause_after(&error, &mut waits);
        note_failure(outlet, &error, pause);
        close(driver).await;
        tokio::time::sleep(pause).await;
    }
}

async fn connect(driver: &mut impl Driver, name: &str) -> Result<(), LinkError> {
    let span = trace::client!("connect", gemba.link.endpoint = name);
    let outcome = or_panic(driver.connect()).instrument(span.clone()).await.and_then(|outcome| outcome);
    outcome.inspect_err(|error| trace::failed(&span, error))
}

async fn close(driver: &mut impl Driver) {
    if timeout(GOODBYE, or_panic(driver.close())).await.is_err() {
        warn!("the goodbye took too long; the link was dropped");
    }
}

/// A protocol library that panics on what a device sent breaks the link, and no more than that.
async fn or_panic<T>(work: impl Future<Output = T>) -> Result<T, LinkError> {
    // What the driver held is dropped with its session by the `close` that follows, so nothing half done is used.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let what = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        LinkError::Broken(format!("the driver panicked: {}", what.unwrap_or("without a word")))
    })
}

/// One bad reading a tag, from the last proof of life on.
async fn mark_lost(tags: Vec<TagId>, outlet: &Outlet, lost: Time) -> Result<(), Stopped> {
    let now = Time::now();
    let readings = tags.into_iter().map(|tag| Reading::bad(tag, Status::Own(OwnStatus::LinkLost), lost, now)).collect();
    outlet.announce(Batch { readings, ..Batch::default() }).await
}

fn note_failure(outlet: &Outlet, error: &LinkError, pause: Duration) {
    let told = outlet.state();
    let message = error.to_string();
    // The same failure again is on /health; the log says it once.
    if told.phase == LinkPhase::Connected || told.last_error.as_deref() != Some(&message) {
        warn!(%error, retry_in = ?pause, "the link is down");
    }
    outlet.update(|link| {
        if link.phase != LinkPhase::Disconnected {
            link.since = Time::now();
        }
        link.phase = LinkPhase::Disconnected;
        link.breaker.turn(BreakerState::Open, Time::now());
        link.last_error = Some(message);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};

    use crate::{LinkState, Rung, Stale, treat};

    /// Connects, then meets a message that its library does not survive; once more it does better.
    struct Fragile {
        runs: u32,
    }

    impl Driver for Fragile {
        fn tags(&self) -> Vec<TagId> {
            vec![TagId(0)]
        }

        async fn connect(&mut self) -> Result<(), LinkError> {
            Ok(())
        }

        async fn run(&mut self, _: &Outlet) -> LinkError {
            self.runs += 1;
            assert!(self.runs > 1, "index out of bounds");
            std::future::pending().await
        }

        async fn close(&mut self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_lost_link_and_another_try() {
        let (batches, mut inlet) = mpsc::channel(4);
        let (state, mut watched) = watch::channel(LinkState::new(Time::now()));
        let stop = CancellationToken::new();
        let outlet = Outlet::new(batches, state.into());
        let link = tokio::spawn(supervise(Fragile { runs: 0 }, "fragile".into(), outlet, stop.clone()));

        let lost = inlet.recv().await.expect("a batch");
        assert_eq!(lost.readings[0].validity, crate::Validity::Bad(Status::Own(OwnStatus::LinkLost)));
        let down = |link: &LinkState| {
            link.phase == LinkPhase::Disconnected
                && link.last_error.as_deref().is_some_and(|error| error.contains("index"))
        };
        watched.wait_for(down).await.expect("told why");
        let again = |link: &LinkState| link.phase == LinkPhase::Connected && link.connects == 2;
        let up = watched.wait_for(again).await.expect("again").clone();
        // Up, down, tried again, up: its breaker opened, half opened and closed once each.
        assert_eq!((up.attempts, up.breaker.state, up.breaker.turns), (2, BreakerState::Closed, [1, 1, 1]));
        assert_eq!(up.connecting.counts.iter().sum::<u64>(), 2);
        stop.cancel();
        link.await.expect("it ends well");
    }

    /// Lets us in and drops us after a while; remembers when it was asked.
    struct Fickle {
        stands: Duration,
        asked: mpsc::UnboundedSender<Instant>,
    }

    impl Driver for Fickle {
        fn tags(&self) -> Vec<TagId> {
            Vec::new()
        }

        async fn connect(&mut self) -> Result<(), LinkError> {
            let _ = self.asked.send(Instant::now());
            Ok(())
        }

        async fn run(&mut self, _: &Outlet) -> LinkError {
            tokio::time::sleep(self.stands).await;
            LinkError::Broken("dropped".into())
        }

        async fn close(&mut self) {}
    }

    /// From one attempt to the next, for a link that always stands so long.
    async fn rhythm(stands: Duration) -> Vec<Duration> {
        let (batches, mut inlet) = mpsc::channel(4);
        let (asked, mut asks) = mpsc::unbounded_channel();
        let outlet = Outlet::new(batches, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
        let stop = CancellationToken::new();
        let link = tokio::spawn(supervise(Fickle { stands, asked }, "fickle".into(), outlet, stop.clone()));
        let read = tokio::spawn(async move { while inlet.recv().await.is_some() {} });
        let mut times = Vec::new();
        while times.len() < 12 {
            times.push(asks.recv().await.expect("it goes on"));
        }
        stop.cancel();
        link.await.expect("it ends well");
        read.await.expect("and so does this");
        times.windows(2).map(|two| two[1] - two[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_never_stands_is_tried_ever_more_seldom() {
        let pauses = rhythm(Duration::ZERO).await;
        assert!(pauses[10] >= LONGEST_PAUSE / 2, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_stood_is_tried_again_soon() {
        let pauses = rhythm(STEADY).await;
        let longest = FIRST_PAUSE * 2 + STEADY + Duration::from_millis(10); // the timer counts in milliseconds
        assert!(pauses.iter().all(|pause| *pause <= longest), "{pauses:?}");
    }

    /// Is always in the middle of something: a connect that never ends, or a delivery that nobody takes.
    struct Busy {
        connects: bool,
    }

    impl Driver for Busy {
        fn tags(&self) -> Vec<TagId> {
            vec![TagId(0)]
        }

        async fn connect(&mut self) -> Result<(), LinkError> {
            if self.connects { Ok(()) } else { std::future::pending().await }
        }

        async fn run(&mut self, outlet: &Outlet) -> LinkError {
            while outlet.deliver(Batch::default()).await.is_ok() {}
            LinkError::Broken("nobody listens".into())
        }

        async fn close(&mut self) {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_no_connect_no_full_channel_and_no_goodbye() {
        for connects in [false, true] {
            let (batches, inlet) = mpsc::channel(1);
            let state = Arc::new(watch::Sender::new(LinkState::new(Time::now())));
            let outlet = Outlet::new(batches.clone(), state);
            let stop = CancellationToken::new();
            let link = tokio::spawn(supervise(Busy { connects }, "busy".into(), outlet, stop.clone()));
            while connects && batches.capacity() > 0 {
                tokio::task::yield_now().await;
            }
            let asked = Instant::now();
            stop.cancel();
            link.await.expect("it ends well");
            assert!(asked.elapsed() <= GOODBYE + Duration::from_millis(10), "{:?}", asked.elapsed());
            drop(inlet);
        }
    }

    /// Opens a session and then fails half-way; counts what stays open.
    struct HalfWay {
        open: u32,
        seen: mpsc::UnboundedSender<(Instant, u32)>,
    }

    impl Driver for HalfWay {
        fn tags(&self) -> Vec<TagId> {
            Vec::new()
        }

        async fn connect(&mut self) -> Result<(), LinkError> {
            self.open += 1;
            let _ = self.seen.send((Instant::now(), self.open));
            Err(LinkError::Unreachable("no answer to CreateSession".into()))
        }

        async fn run(&mut self, _: &Outlet) -> LinkError {
            LinkError::Broken("never was up".into())
        }

        async fn close(&mut self) {
            self.open = 0;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_of_trouble_is_a_handful_of_sessions_and_never_two_at_once() {
        let (batches, _inlet) = mpsc::channel(4);
        let (seen, mut sessions) = mpsc::unbounded_channel();
        let outlet = Outlet::new(batches, Arc::new(watch::Sender::new(LinkState::new(Time::now()))));
        let stop = CancellationToken::new();
        let start = Instant::now();
        let link = tokio::spawn(supervise(HalfWay { open: 0, seen }, "half-way".into(), outlet, stop.clone()));
        let mut opened = 0;
        while let Some((at, open)) = sessions.recv().await {
            assert_eq!(open, 1, "the one before was closed");
            if at.duration_since(start) > Duration::from_secs(60) {
                break;
            }
            opened += 1;
        }
        assert!((3..=8).contains(&opened), "{opened} sessions in a minute");
        stop.cancel();
        link.await.expect("it ends well");
    }

    /// Says a few numbers at once and then nothing more; climbs the ladder that it is told.
    struct Quiet {
        says: Vec<f64>,
        rungs: mpsc::UnboundedSender<(Instant, Rung)>,
    }

    impl Driver for Quiet {
        fn tags(&self) -> Vec<TagId> {
            vec![TagId(0)]
        }

        async fn connect(&mut self) -> Result<(), LinkError> {
            Ok(())
        }

        async fn run(&mut self, outlet: &Outlet) -> LinkError {
            for value in std::mem::take(&mut self.says) {
                let now = Time::now();
                let readings = vec![Reading::good(TagId(0), crate::Value::Float(value), now, now)];
                let _ = outlet.deliver(Batch { readings, ..Batch::default() }).await;
            }
            loop {
                let Stale { tags, rung } = outlet.stale().await;
                assert_eq!(tags, [TagId(0)]);
                let _ = self.rungs.send((Instant::now(), rung));
                if rung == Rung::Reconnect {
                    return LinkError::Silent(Duration::from_secs(20));
                }
            }
        }

        async fn close(&mut self) {}
    }

    fn treated(batches: mpsc::Sender<Batch>, options: treat::Options) -> Outlet {
        let station =
            treat::Station { name: "a".into(), tags: 0..1, treated: vec![(TagId(0), options)], max_clock_skew: None };
        let plan = treat::Plan { stations: vec![station] };
        Outlet::new(batches, Arc::new(watch::Sender::new(LinkState::new(Time::now()))))
            .treating(treat::Treatment::new(&plan))
    }

    #[tokio::test(start_paused = true)]
    async fn silence_climbs_the_ladder_and_turns_the_tag_bad() {
        let (batches, mut inlet) = mpsc::channel(8);
        let (rungs, mut told) = mpsc::unbounded_channel();
        let options = treat::Options { max_age: Some(Duration::from_secs(10)), ..Default::default() };
        let (outlet, stop, start) = (treated(batches, options), CancellationToken::new(), Instant::now());
        let driver = Quiet { says: vec![1.0], rungs };
        let link = tokio::spawn(supervise(driver, "quiet".into(), outlet, stop.clone()));
        let mut climbed = Vec::new();
        while climbed.len() < 3 {
            let (at, rung) = told.recv().await.expect("a rung");
            climbed.push((at.duration_since(start).as_millis() / 100, rung));
        }
        assert_eq!(climbed, [(50, Rung::Look), (100, Rung::Renew), (200, Rung::Reconnect)]);
        let mut statuses = Vec::new();
        while statuses.len() < 3 {
            let batch = inlet.recv().await.expect("a batch");
            statuses.extend(batch.readings.iter().map(|reading| reading.validity.status()));
        }
        let own = |status| Some(Status::Own(status));
        assert_eq!(statuses, [None, own(OwnStatus::Stale), own(OwnStatus::LinkLost)]);
        stop.cancel();
        link.await.expect("it ends well");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_back_goes_out_in_time_and_at_a_stop() {
        let told = |batch: Batch| batch.readings.iter().map(|reading| reading.value.clone()).collect::<Vec<_>>();
        let value = |number| vec![crate::Value::Float(number)];
        for stopped in [false, true] {
            let (batches, mut inlet) = mpsc::channel(8);
            let (rungs, _told) = mpsc::unbounded_channel();
            let options = treat::Options { min_interval: Some(Duration::from_secs(60)), ..Default::default() };
            let (outlet, stop, start) = (treated(batches, options), CancellationToken::new(), Instant::now());
            let driver = Quiet { says: vec![1.0, 2.0, 3.0], rungs };
            let link = tokio::spawn(supervise(driver, "quiet".into(), outlet, stop.clone()));
            assert_eq!(told(inlet.recv().await.expect("a batch")), value(1.0));
            if stopped {
                tokio::task::yield_now().await; // the driver has said all it has to say
                stop.cancel();
            }
            assert_eq!(told(inlet.recv().await.expect("what was held back")), value(3.0));
            let waited = start.elapsed().as_secs();
            assert_eq!(waited, if stopped { 0 } else { 60 });
            stop.cancel();
            link.await.expect("it ends well");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_told_though_the_value_beside_it_is_not() {
        let (batches, mut inlet) = mpsc::channel(8);
        let outlet = treated(batches, treat::Options { on_change: true, ..Default::default() });
        let now = Time::now();
        let same = || vec![Reading::good(TagId(0), crate::Value::Int(1), now, now)];
        let event = crate::Event {
            station: "a".into(),
            time: now,
            received: now,
            kind: "OffNormalAlarmType".into(),
            severity: 800,
            message: "door open".into(),
            attributes: Vec::new(),
        };
        let gap = crate::Backfill { station: "a".into(), from: now, to: now, count: 1 };
        for batch in [
            Batch { readings: same(), ..Batch::default() },
            Batch { readings: same(), ..Batch::default() },
            Batch { readings: same(), events: vec![event.clone()], ..Batch::default() },
            Batch { readings: same(), backfills: vec![gap.clone()], ..Batch::default() },
        ] {
            outlet.deliver(batch).await.expect("there is room");
        }
        drop(outlet);
        let mut told = Vec::new();
        while let Some(Batch { readings, events, backfills, .. }) = inlet.recv().await {
            told.push((readings.len(), events, backfills));
        }
        assert_eq!(told, [(1, vec![], vec![]), (0, vec![event], vec![]), (0, vec![], vec![gap])]);
    }

    #[test]
    fn pauses_grow_and_stay_under_the_cap() {
        let first: Vec<_> = pauses().take(50).collect();
        assert!(first.iter().all(|pause| (FIRST_PAUSE..=LONGEST_PAUSE).contains(pause)), "{first:?}");
        assert!(first[0] <= FIRST_PAUSE * 2, "the first try comes soon: {:?}", first[0]);
        assert!(first[40] >= LONGEST_PAUSE / 2, "later ones are patient: {:?}", first[40]);
        assert!(first[30..].windows(2).any(|two| two[0] != two[1]), "jittered at the cap too: {first:?}");
        let refused = LinkError::Refused("no such user".into());
        let waits: Vec<_> = std::iter::repeat_with(|| pause_after(&refused, &mut pauses())).take(20).collect();
        assert!(waits.iter().all(|pause| (LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(pause)), "{waits:?}");
        assert!(waits.windows(2).any(|two| two[0] != two[1]), "{waits:?}");
        assert!(pauses().take(20).collect::<Vec<_>>() != pauses().take(20).collect::<Vec<_>>(), "jittered");
    }
}
