//! The one owner of every link: connect, run, and after a break say so, wait, and try again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::{Batch, Driver, LinkError, LinkPhase, Outlet, OwnStatus, Reading, Status, TagId, Time};

/// The shortest pause between two attempts.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts, before jitter.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a goodbye may take at a stop.
const GOODBYE: Duration = Duration::from_secs(2);

/// The pauses between attempts, here and wherever gemba tries again: doubling, jittered (up to as
/// much again), capped at 30 s in all, without end.
pub fn pauses() -> impl Iterator<Item = Duration> + Send + use<> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
        .map(|pause| pause.min(LONGEST_PAUSE))
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
            () = keep_up(&mut driver, &outlet) => {}
        }
        if timeout(GOODBYE, driver.close()).await.is_err() {
            warn!("the goodbye took too long; the link was dropped");
        }
    }
    .instrument(span)
    .await;
}

/// Ends only when nobody listens any more.
async fn keep_up(driver: &mut impl Driver, outlet: &Outlet) {
    let mut waits = pauses();
    loop {
        let error = match driver.connect().await {
            Ok(()) => {
                let now = Time::now();
                outlet.update(|link| {
                    link.phase = LinkPhase::Connected;
                    link.since = now;
                    link.alive = Some(now);
                    link.connects += 1;
                });
                info!("connected");
                waits = pauses();
                let error = driver.run(outlet).await;
                let lost = outlet.state().alive.unwrap_or(now);
                if mark_lost(driver.tags(), outlet, lost).await.is_err() {
                    return;
                }
                error
            }
            Err(error) => error,
        };
        let pause = if error.retry_helps() { waits.next() } else { Some(LONGEST_PAUSE) }.unwrap_or(LONGEST_PAUSE);
        note_failure(outlet, &error, pause);
        driver.close().await;
        tokio::time::sleep(pause).await;
    }
}

/// One bad reading a tag, from the last proof of life on.
async fn mark_lost(tags: Vec<TagId>, outlet: &Outlet, lost: Time) -> Result<(), crate::Stopped> {
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
        link.last_error = Some(message);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_under_the_cap() {
        let first: Vec<_> = pauses().take(50).collect();
        assert!(first.iter().all(|pause| (FIRST_PAUSE..=LONGEST_PAUSE).contains(pause)), "{first:?}");
        assert!(first[0] <= FIRST_PAUSE * 2, "the first try comes soon: {:?}", first[0]);
        assert!(first[40] >= LONGEST_PAUSE / 2, "later ones are patient: {:?}", first[40]);
        assert!(pauses().take(20).collect::<Vec<_>>() != pauses().take(20).collect::<Vec<_>>(), "jittered");
    }
}
