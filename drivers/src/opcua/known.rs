//! What is known of an item: what was told of it, and whether a gap lies behind that.

use serde::{Deserialize, Serialize};

use super::sieve::Told;
use crate::{Reading, Time};

/// The last value that the server told of a tag, as far as it is durable: what came after it was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watermark {
    /// Its source time: history goes on from there.
    Dated(Time),
    /// When the gateway received it, by its own clock: the source did not date it, or its clock is not believed. It
    /// was heard, and there is no place in history to go on from.
    Undated(Time),
}

impl Watermark {
    /// A proof of life, by either clock.
    pub(super) fn at(self) -> Time {
        let (Self::Dated(at) | Self::Undated(at)) = self;
        at
    }
}

/// What is known of an item.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The last value that its source dated, ever: the watermark, where history goes on. It never goes back, and bad
    /// readings leave it alone.
    pub(super) told: Option<Told>,
    /// It has values, and they have no times of their source: there is no place in history to go on from.
    undated: bool,
    /// The last that was told of it since the link came up, good or bad: the same again is no news.
    pub(super) heard: Option<Heard>,
    /// The gap that is to be closed.
    pub(super) gap: Option<OpenGap>,
}

/// The last that was told of an item.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) told: Told,
    /// By history.
    past: bool,
}

/// A gap that is not closed yet; it may take several links.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenGap {
    /// The last proof of life before it.
    pub(super) from: Time,
    /// How many readings history gave so far.
    pub(super) given: u64,
}

/// What a reading says beside what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    News,
    Same,
    /// History has told what lies there.
    Old,
}

impl Known {
    /// After a restart of the agent: `told` is durable, and its station was heard last at `from`.
    pub(super) fn before(told: Watermark, from: Time) -> Self {
        let gap = Some(OpenGap { from, given: 0 });
        match told {
            Watermark::Dated(at) => Self { told: Some(Told { at, said: None }), gap, ..Self::default() },
            Watermark::Undated(_) => Self { undated: true, gap, ..Self::default() },
        }
    }

    /// The link is lost; it was alive `at` last. A gap that is open already goes on.
    pub(super) fn lose(&mut self, at: Time) {
        if self.told.is_some() || self.undated {
            self.gap.get_or_insert(OpenGap { from: at, given: 0 });
        }
    }

    /// What `reading` of the subscription, or of a read, says. In the `seam` messages wait while history is read up to now.
    pub(super) fn says(&self, reading: &Reading, seam: bool) -> Said {
        let Some(Heard { told, past }) = &self.heard else { return Said::News };
        if told.is(reading) || *past && told.is_near(reading) {
            return Said::Same;
        }
        if seam && *past && reading.source_time < told.at { Said::Old } else { Said::News }
    }

    /// This is told of it.
    pub(super) fn hear(&mut self, reading: &Reading) {
        self.heard = Some(Heard { told: Told::of(reading), past: reading.backfilled });
        if reading.validity.is_bad() {
            return;
        }
        self.undated = reading.source_time == reading.received_time;
        if !self.undated && self.told.as_ref().is_none_or(|told| told.at <= reading.source_time) {
            self.told = Some(Told::of(reading));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OwnStatus, Status, TagId, Value};

    fn said(value: i64, at: i64) -> Reading {
        Reading::good(TagId(0), Value::Int(value), Time(at * 10_000_000), Time(1 << 60))
    }

    #[test]
    fn only_values_that_the_source_dated_move_the_watermark_and_only_forward() {
        let mut known = Known::default();
        known.lose(Time(1));
        assert!(known.gap.is_none(), "nothing was told, nothing was lost");
        known.hear(&said(1, 5));
        known.hear(&Reading::bad(TagId(0), Status::Opcua(0x808C_0000), Time(90_000_000), Time(1 << 60)));
        known.hear(&Reading::bad(TagId(0), Status::Own(OwnStatus::NoData), Time(7), Time(7)));
        known.hear(&Reading { source_time: Time(1 << 60), ..said(2, 0) });
        known.hear(&said(3, 4));
        assert_eq!(known.told, Some(Told::of(&said(1, 5))));
        assert_eq!(known.says(&said(3, 4), false), Said::Same, "what was heard last is known by itself");
        known.hear(&said(4, 6));
        assert_eq!(known.told.as_ref().map(|told| told.at), Some(Time(60_000_000)));
        known.lose(Time(2));
        known.lose(Time(3));
        assert_eq!(known.gap.map(|gap| gap.from), Some(Time(2)), "until it is closed");
    }

    #[test]
    fn a_value_without_a_time_of_its_source_has_a_gap_all_the_same() {
        let mut known = Known::default();
        known.hear(&Reading { received_time: Time(50_000_000), ..said(1, 5) });
        assert_eq!(known.told, None);
        known.lose(Time(60_000_000));
        assert!(known.gap.is_some());
    }

    #[test]
    fn a_restart_leaves_a_gap_whether_or_not_there_is_a_place_in_history() {
        for (told, place) in [(Watermark::Dated(Time(5)), Some(Time(5))), (Watermark::Undated(Time(5)), None)] {
            let mut known = Known::before(told, Time(7));
            assert_eq!(known.told.as_ref().map(|told| told.at), place, "{told:?}");
            known.lose(Time(9));
            assert_eq!(known.gap.map(|gap| gap.from), Some(Time(7)), "it goes on: {told:?}");
            known.gap = None;
            known.lose(Time(11));
            assert_eq!(known.gap.map(|gap| gap.from), Some(Time(11)), "and the next is another: {told:?}");
        }
    }

    #[test]
    fn what_history_told_is_not_told_again_though_it_keeps_milliseconds() {
        let mut known = Known::default();
        let at = |nanos: i64| Reading { source_time: Time(1_000_000_000 + nanos), ..said(7, 0) };
        known.hear(&at(0).from_history());
        assert_eq!(known.says(&at(123_400), true), Said::Same);
        assert_eq!(known.says(&at(123_400), false), Said::Same, "however late it comes");
        assert_eq!(known.says(&at(1_000_000), true), Said::News);
        assert_eq!(known.says(&Reading { value: Value::Int(8), ..at(123_400) }, true), Said::News);
        assert_eq!(known.says(&at(-2_000_000), true), Said::Old);
        assert_eq!(known.says(&at(-2_000_000), false), Said::News, "a clock that was put back");
        known.hear(&at(123_400));
        assert_eq!(known.says(&at(123_500), true), Said::News, "the subscription is exact");
    }
}
