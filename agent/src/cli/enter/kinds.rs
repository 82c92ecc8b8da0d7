//! What can be told, each with the options that say it.

use clap::{Args, ValueEnum};
use gemba_drivers::Time;
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use super::Who;
use super::when::When;
use crate::cli::Misuse;
use crate::model::anomaly::EpisodeId;

/// Which station, and who says it.
#[derive(Debug, Args)]
struct Of {
    /// The station
    #[arg(long, value_name = "NAME")]
    station: String,
    #[command(flatten)]
    who: Who,
}

impl Of {
    fn tells(self, kind: &str, what: &Json) -> Json {
        json!({ "station": self.station, "by": self.who.by, kind: what })
    }
}

/// From when on.
#[derive(Debug, Args)]
struct At {
    /// When
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    at: When,
}

/// Say why the machine stood
///
/// Only stops take it, so a span that is too wide does no harm. One that covers a part of another splits it.
#[derive(Debug, Args)]
pub(super) struct Reason {
    #[command(flatten)]
    of: Of,
    /// From when
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: When,
    /// Until when; up to a day ahead, for a stop that goes on
    #[arg(long, value_name = "TIME", default_value = "now", allow_hyphen_values = true)]
    to: When,
    #[command(flatten)]
    code: Code,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Code {
    /// The reason's code
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Take back what tags and people said of it
    #[arg(long)]
    no_reason: bool,
}

impl Reason {
    pub(super) fn json(self, zone: &TimeZone, now: Time) -> Result<Json, Misuse> {
        let (from, to) = (self.from.resolve(zone, now)?, self.to.resolve(zone, now)?);
        Ok(self.of.tells("reason", &json!({ "from": from, "to": to, "code": self.code.code })))
    }
}

/// Say what is worked on, until a tag or somebody says something else
///
/// What is not named stays as it is.
#[derive(Debug, Args)]
pub(super) struct Work {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    at: At,
    /// The product
    #[arg(long, value_name = "NAME", conflicts_with = "no_product")]
    product: Option<String>,
    /// No product any more
    #[arg(long)]
    no_product: bool,
    /// The lot
    #[arg(long, value_name = "NAME", conflicts_with = "no_lot")]
    lot: Option<String>,
    /// No lot any more
    #[arg(long)]
    no_lot: bool,
    /// The order
    #[arg(long, value_name = "NAME", conflicts_with = "no_order")]
    order: Option<String>,
    /// No order any more
    #[arg(long)]
    no_order: bool,
}

impl Work {
    pub(super) fn json(self, zone: &TimeZone, now: Time) -> Result<Json, Misuse> {
        let mut work = Map::from_iter([("at".to_owned(), json!(self.at.at.resolve(zone, now)?))]);
        for (key, name, cleared) in [
            ("product", self.product, self.no_product),
            ("lot", self.lot, self.no_lot),
            ("order", self.order, self.no_order),
        ] {
            if cleared || name.is_some() {
                work.insert(key.to_owned(), json!(name));
            }
        }
        Ok(self.of.tells("work", &work.into()))
    }
}

/// Say how fast it is to go, whatever the product
#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    pace: Pace,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Pace {
    /// The time from one part to the next: 45s
    #[arg(long, value_name = "TIME")]
    takt: Option<String>,
    /// How many parts an hour
    #[arg(long, value_name = "COUNT")]
    parts_per_hour: Option<f64>,
    /// Give the pace back to the product
    #[arg(long)]
    of_product: bool,
}

impl Target {
    pub(super) fn json(self, zone: &TimeZone, now: Time) -> Result<Json, Misuse> {
        let at = self.at.at.resolve(zone, now)?;
        let target = match self.pace.parts_per_hour {
            Some(parts) => json!({ "at": at, "parts_per_hour": parts }),
            None => json!({ "at": at, "takt": self.pace.takt }),
        };
        Ok(self.of.tells("target", &target))
    }
}

/// Count rejects that the counters took for good parts
#[derive(Debug, Args)]
pub(super) struct Rejects {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    at: At,
    /// How many; a negative count corrects an earlier one
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    count: i64,
    /// The defect's code
    #[arg(long, value_name = "CODE")]
    code: String,
}

impl Rejects {
    pub(super) fn json(self, zone: &TimeZone, now: Time) -> Result<Json, Misuse> {
        let at = self.at.at.resolve(zone, now)?;
        Ok(self.of.tells("rejects", &json!({ "at": at, "count": self.count, "code": self.code })))
    }
}

/// Say whether an anomaly was one
#[derive(Debug, Args)]
pub(super) struct Anomaly {
    #[command(flatten)]
    who: Who,
    /// Which: station/tag/detector@began, as its log upstream names it (factory.anomaly.id)
    #[arg(value_name = "ID")]
    id: EpisodeId,
    /// What it was
    #[arg(value_enum)]
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    /// It was an anomaly
    Confirmed,
    /// It was none
    Dismissed,
}

impl Anomaly {
    pub(super) fn json(self) -> Json {
        let verdict = match self.verdict {
            Verdict::Confirmed => "confirmed",
            Verdict::Dismissed => "dismissed",
        };
        let what = json!({ "id": self.id.to_string(), "verdict": verdict });
        json!({ "station": self.id.station, "by": self.who.by, "anomaly": what })
    }
}
