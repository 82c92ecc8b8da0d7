//! What is well and what is not.
//!
//! The status of the whole is the worst of its parts, by *healthy < unknown < degraded < unhealthy*:
//!
//! | part | healthy | unknown | degraded | unhealthy |
//! |---|---|---|---|---|
//! | station | link connected, every tag good | link being tried for the first time | link disconnected, or a tag bad or uncertain | |
//! | upstream | connected, or none configured | not tried yet | disconnected, blocked | |
//! | spool | stores | | cannot be written, memory holds | nothing can be stored, not even in memory |
//! | clock | nothing speaks against it | | not set, or not synchronised yet: what carries the gateway's time is uncertain | |
//! | pipeline | answers | has not shown anything yet | | stuck |
//!
//! Only *unhealthy* answers 503.

use gemba_drivers::treat::clock::ClockState;
use gemba_drivers::{LinkPhase, LinkState};
use serde::Serialize;

use super::{Pipeline, View};
use crate::snapshot::{StationView, UpstreamStatus};

/// How something is; later is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Healthy,
    /// Too early to say.
    Unknown,
    /// Works in part; somebody should look.
    Degraded,
    /// The agent cannot do its work.
    Unhealthy,
}

impl Status {
    /// The word on `/health`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Why a stuck pipeline is unhealthy.
pub(super) const STUCK: &str = "the pipeline is stuck: it takes no readings in";

/// Why a pipeline that starts is not ready.
pub(super) const STARTING: &str = "the pipeline is starting";

/// The judgement.
pub(super) struct Verdict {
    /// Of the whole.
    pub(super) status: Status,
    /// Of each station.
    pub(super) stations: Vec<Status>,
    /// What is not healthy and why, a line each.
    pub(super) reasons: Vec<String>,
}

/// Judges the whole by the table above.
pub(super) fn judge(view: &View) -> Verdict {
    let mut verdict = Verdict { status: Status::Healthy, stations: Vec::new(), reasons: Vec::new() };
    let mut part = |status, reason: Option<String>| {
        verdict.status = verdict.status.max(status);
        verdict.reasons.extend(reason);
        status
    };
    match view.pipeline {
        Pipeline::Running => Status::Healthy,
        Pipeline::Starting => part(Status::Unknown, Some(STARTING.to_owned())),
        Pipeline::Stuck => part(Status::Unhealthy, Some(STUCK.to_owned())),
    };
    if let Some((status, fault)) = spool_fault(view) {
        part(status, Some(fault));
    }
    let (upstream, reason) = judge_upstream(view);
    part(upstream, reason);
    let (clock, reason) = judge_clock(view.gateway.clock);
    part(clock, reason);
    let stations = view.snapshot.stations.iter().map(|station| {
        let (status, reason) = judge_station(station, view.links.get(station.link));
        part(status, reason.map(|reason| format!("{}: {reason}", station.name)))
    });
    let stations = stations.collect();
    Verdict { stations, ..verdict }
}

/// Why the spool cannot be written, if so, and how bad that is.
pub(super) fn spool_fault(view: &View) -> Option<(Status, String)> {
    let spool = &view.snapshot.spool;
    let error = spool.error.as_ref()?;
    Some(if spool.full {
        (Status::Unhealthy, format!("nothing can be stored: {error}"))
    } else {
        (Status::Degraded, format!("the spool cannot be written, memory holds what comes: {error}"))
    })
}

fn judge_upstream(view: &View) -> (Status, Option<String>) {
    let status = match view.upstream.status {
        UpstreamStatus::None | UpstreamStatus::Connected => return (Status::Healthy, None),
        UpstreamStatus::Connecting => Status::Unknown,
        UpstreamStatus::Disconnected | UpstreamStatus::Blocked => Status::Degraded,
    };
    let word = view.upstream.status.word();
    let reason = match &view.upstream.last_error {
        Some(error) => format!("upstream is {word}: {error}"),
        None => format!("upstream is {word}"),
    };
    (status, Some(reason))
}

fn judge_clock(clock: Option<ClockState>) -> (Status, Option<String>) {
    let why = match clock {
        None | Some(ClockState::Trusted) => return (Status::Healthy, None),
        Some(ClockState::Awaited) => "is not synchronised yet",
        Some(ClockState::NotSet) => "is not set",
    };
    (Status::Degraded, Some(format!("the gateway's clock {why}; what carries its time is uncertain")))
}

fn judge_station(station: &StationView, link: Option<&LinkState>) -> (Status, Option<String>) {
    let Some(link) = link.filter(|link| link.phase != LinkPhase::Connecting) else {
        return (Status::Unknown, Some("its link is connecting".to_owned()));
    };
    if link.phase == LinkPhase::Disconnected {
        let why = link.last_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        return (Status::Degraded, Some(format!("its link is disconnected{why}")));
    }
    let mut doubtful = station.tags.iter().filter_map(|tag| Some((tag, tag.validity.status()?)));
    let Some((tag, why)) = doubtful.next() else {
        return (Status::Healthy, None);
    };
    let first = format!("tag {} is {} ({why})", tag.name, tag.validity.word());
    let reason = match doubtful.count() {
        0 => first,
        others => format!("{first}, and {others} more"),
    };
    (Status::Degraded, Some(reason))
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{OwnStatus, Status as TagStatus, Validity, Value};

    use super::super::fixture::{line, snapshot, well};
    use super::*;

    #[test]
    fn the_worst_part_decides() {
        assert_eq!(judge(&well()).status, Status::Healthy);
        assert_eq!(judge(&well()).reasons, Vec::<String>::new());
        assert_eq!(judge(&line()).status, Status::Degraded);
        assert_eq!(judge(&line()).stations, [Status::Healthy, Status::Degraded, Status::Degraded, Status::Degraded]);
        assert_eq!(
            judge(&line()).reasons,
            [
                "aoi-1: tag score is uncertain (UncertainLastUsableValue), and 1 more",
                "oven-1: its link is disconnected: link broke: the broker closed the connection",
                "scale-1: tag mass is bad (IllegalDataAddress)",
            ]
        );
    }

    fn judged(change: impl FnOnce(&mut View)) -> (Status, Vec<String>) {
        let mut view = well();
        change(&mut view);
        let verdict = judge(&view);
        (verdict.status, verdict.reasons)
    }

    #[test]
    fn nothing_stored_and_a_stuck_pipeline_are_unhealthy() {
        let full = judged(|view| {
            let spool = &mut snapshot(view).spool;
            (spool.error, spool.full) = (Some("disk full".to_owned()), true);
        });
        assert_eq!(full, (Status::Unhealthy, vec!["nothing can be stored: disk full".to_owned()]));
        let held = judged(|view| snapshot(view).spool.error = Some("disk full".to_owned()));
        let reason = "the spool cannot be written, memory holds what comes: disk full";
        assert_eq!(held, (Status::Degraded, vec![reason.to_owned()]));
        let stuck = judged(|view| view.pipeline = Pipeline::Stuck);
        assert_eq!(stuck, (Status::Unhealthy, vec![STUCK.to_owned()]));
        let worst = judged(|view| {
            *view = line();
            view.pipeline = Pipeline::Stuck;
        });
        assert_eq!(worst.0, Status::Unhealthy, "degraded parts do not hide it");
    }

    #[test]
    fn a_start_is_unknown_and_what_is_broken_meanwhile_counts_more() {
        let starting = judged(|view| {
            view.pipeline = Pipeline::Starting;
            snapshot(view).stations.clear();
        });
        assert_eq!(starting, (Status::Unknown, vec![STARTING.to_owned()]));
        let connecting = |view: &mut View| {
            view.links[0].phase = LinkPhase::Connecting;
            let tag = &mut snapshot(view).stations[0].tags[0];
            (tag.value, tag.validity) = (Value::Null, Validity::Bad(TagStatus::Own(OwnStatus::NoData)));
        };
        assert_eq!(judged(connecting).0, Status::Unknown, "too early to call its tags bad");
        let silent = judged(|view| {
            connecting(view);
            view.links[0].phase = LinkPhase::Connected;
        });
        assert_eq!(silent, (Status::Degraded, vec!["printer-1: tag state is bad (NoData)".to_owned()]));
        let and_upstream = judged(|view| {
            connecting(view);
            view.upstream.status = UpstreamStatus::Blocked;
        });
        assert_eq!(and_upstream.0, Status::Degraded);
    }

    #[test]
    fn a_clock_that_cannot_be_believed_is_told_of() {
        assert_eq!(judged(|view| view.gateway.clock = None).0, Status::Healthy);
        let awaited = judged(|view| view.gateway.clock = Some(ClockState::Awaited));
        let reason = "the gateway's clock is not synchronised yet; what carries its time is uncertain";
        assert_eq!(awaited, (Status::Degraded, vec![reason.to_owned()]));
        assert_eq!(judged(|view| view.gateway.clock = Some(ClockState::NotSet)).0, Status::Degraded);
    }

    #[test]
    fn upstream_is_judged_by_its_last_answer() {
        use UpstreamStatus::{Blocked, Connected, Connecting, Disconnected, None};
        let cases = [
            (None, Status::Healthy),
            (Connected, Status::Healthy),
            (Connecting, Status::Unknown),
            (Disconnected, Status::Degraded),
            (Blocked, Status::Degraded),
        ];
        for (upstream, status) in cases {
            assert_eq!(judged(|view| view.upstream.status = upstream).0, status, "{upstream:?}");
        }
        let reasons = judged(|view| view.upstream.status = Blocked).1;
        assert_eq!(reasons, ["upstream is blocked: 503 Service Unavailable"]);
    }
}
