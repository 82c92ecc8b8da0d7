//! Entries as people and programs write them: a JSON object each, `{"station":…, "by":…, "reason":{…}}`.
//!
//! The same form is posted to `/entries`, written by `gemba spool export --entries` and read by `gemba replay --entries`.
//! docs/entries.md shows each kind.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use gemba_drivers::Time;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::anomaly::{EpisodeId, Verdict};
use crate::model::{Change, Entry, What};

/// An entry as it is written: exactly one of the five kinds.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EntryJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    entered: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Arc<str>>,
    station: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<WorkJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<TargetJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejects: Option<RejectsJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anomaly: Option<AnomalyJson>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ReasonJson {
    from: Time,
    to: Time,
    /// Null takes back, and has to be said.
    #[serde(deserialize_with = "Option::deserialize")]
    code: Option<Arc<str>>,
}

/// What is missing stays as it is; null clears it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WorkJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    #[serde(default, with = "change", skip_serializing_if = "is_left")]
    product: Change,
    #[serde(default, with = "change", skip_serializing_if = "is_left")]
    lot: Change,
    #[serde(default, with = "change", skip_serializing_if = "is_left")]
    order: Change,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct TargetJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    /// `45s`; null gives the pace back to the product.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    takt: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parts_per_hour: Option<f64>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct RejectsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    count: i64,
    code: Arc<str>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AnomalyJson {
    id: String,
    verdict: VerdictJson,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum VerdictJson {
    Confirmed,
    Dismissed,
}

impl EntryJson {
    /// When it was entered, if it says so.
    #[must_use]
    pub fn entered(&self) -> Option<Time> {
        self.entered
    }

    /// Who entered it, if it says so.
    #[must_use]
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// The entry that it is if it was made at `entered`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn resolve(self, entered: Time) -> Result<Entry, String> {
        let Self { by, station, reason, work, target, rejects, anomaly, .. } = self;
        let what = match (reason, work, target, rejects, anomaly) {
            (Some(ReasonJson { from, to, code }), None, None, None, None) => What::Reason { from, to, code },
            (None, Some(WorkJson { at, product, lot, order }), None, None, None) => {
                What::Work { at: at.unwrap_or(entered), product, lot, order }
            }
            (None, None, Some(target), None, None) => {
                What::Target { at: target.at.unwrap_or(entered), takt: target.takt()? }
            }
            (None, None, None, Some(RejectsJson { at, count, code }), None) => {
                What::Rejects { at: at.unwrap_or(entered), count, code }
            }
            (None, None, None, None, Some(AnomalyJson { id, verdict })) => judged(&station, &id, verdict)?,
            _ => return Err("an entry is one of reason, work, target, rejects and anomaly".to_owned()),
        };
        Ok(Entry { entered, by, station, what })
    }
}

impl TargetJson {
    /// In whole microseconds, so that it is written as it is read.
    fn takt(&self) -> Result<Option<Duration>, String> {
        let whole = |takt: Duration| Duration::from_micros(u64::try_from(takt.as_micros()).unwrap_or(u64::MAX));
        Ok(self.exact_takt()?.map(whole))
    }

    fn exact_takt(&self) -> Result<Option<Duration>, String> {
        match (&self.takt, self.parts_per_hour) {
            (Some(None), None) => Ok(None),
            (Some(Some(text)), None) => crate::config::duration(text).map(Some).map_err(|why| format!("`takt`: {why}")),
            (None, Some(parts)) if parts > 0.0 => Duration::try_from_secs_f64(3600.0 / parts)
                .map(Some)
                .map_err(|_| "`parts_per_hour` is too few".to_owned()),
            (None, Some(_)) => Err("`parts_per_hour` is a number above 0".to_owned()),
            _ => Err("a target is either `takt` (such as \"45s\", or null) or `parts_per_hour`".to_owned()),
        }
    }
}

fn judged(station: &str, id: &str, verdict: VerdictJson) -> Result<What, String> {
    let id: EpisodeId = id.parse().map_err(|error| format!("`id`: {error}"))?;
    if &*id.station != station {
        return Err(format!("`id` names an anomaly of `{}`, not of `{station}`", id.station));
    }
    let verdict = match verdict {
        VerdictJson::Confirmed => Verdict::Confirmed,
        VerdictJson::Dismissed => Verdict::Dismissed,
    };
    Ok(What::Anomaly { tag: id.tag, detector: id.detector, began: id.began, verdict })
}

impl From<&Entry> for EntryJson {
    fn from(entry: &Entry) -> Self {
        let station = entry.station.clone();
        let json = Self { entered: Some(entry.entered), by: entry.by.clone(), station, ..Self::default() };
        match entry.what.clone() {
            What::Reason { from, to, code } => Self { reason: Some(ReasonJson { from, to, code }), ..json },
            What::Work { at, product, lot, order } => {
                Self { work: Some(WorkJson { at: Some(at), product, lot, order }), ..json }
            }
            What::Target { at, takt } => {
                let takt = Some(takt.map(|takt| format!("{}us", takt.as_micros())));
                Self { target: Some(TargetJson { at: Some(at), takt, parts_per_hour: None }), ..json }
            }
            What::Rejects { at, count, code } => {
                Self { rejects: Some(RejectsJson { at: Some(at), count, code }), ..json }
            }
            What::Anomaly { tag, detector, began, verdict } => {
                let id = EpisodeId { station: json.station.clone(), tag, detector, began }.to_string();
                let verdict = match verdict {
                    Verdict::Confirmed => VerdictJson::Confirmed,
                    Verdict::Dismissed => VerdictJson::Dismissed,
                };
                Self { anomaly: Some(AnomalyJson { id, verdict }), ..json }
            }
        }
    }
}

/// What was told, for people: `feeder-jam from … to …`.
#[must_use]
pub fn in_words(entry: &Entry) -> String {
    match &entry.what {
        What::Reason { from, to, code: Some(code) } => format!("stood from {from} to {to} because of {code}"),
        What::Reason { from, to, code: None } => format!("no reason from {from} to {to}"),
        What::Work { at, product, lot, order } => {
            let mut text = String::new();
            for (what, change) in [("product", product), ("lot", lot), ("order", order)] {
                match change {
                    Change::Left => {}
                    Change::Cleared => write!(text, "no {what}, ").expect("memory"),
                    Change::Set(name) => write!(text, "{what} {name}, ").expect("memory"),
                }
            }
            format!("{}from {at} on", text.strip_suffix(", ").map(|text| format!("{text} ")).unwrap_or_default())
        }
        What::Target { at, takt: Some(takt) } => format!("a part every {takt:?} from {at} on"),
        What::Target { at, takt: None } => format!("the product's own pace from {at} on"),
        What::Rejects { at, count, code } => format!("{count} rejected at {at}: {code}"),
        What::Anomaly { tag, detector, began, verdict } => {
            format!("anomaly of {tag} ({detector}) at {began} {}", verdict.word())
        }
    }
}

fn is_left(change: &Change) -> bool {
    *change == Change::Left
}

/// Null is a word of its own.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

mod change {
    use super::{Arc, Change, Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(change: &Change, to: S) -> Result<S::Ok, S::Error> {
        let name = if let Change::Set(name) = change { Some(name) } else { None };
        name.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Change, D::Error> {
        Ok(Option::<Arc<str>>::deserialize(from)?.map_or(Change::Cleared, Change::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time(1_772_431_200_000_000_000);

    fn read(text: &str) -> Result<Entry, String> {
        let raw: EntryJson = serde_json::from_str(text).map_err(|error| error.to_string())?;
        raw.resolve(AT)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let kinds = [
            r#""reason":{"from":"2026-03-02T05:00:00Z","to":"2026-03-02T05:10:00Z","code":"feeder-jam"}"#,
            r#""reason":{"from":"2026-03-02T05:00:00Z","to":"2026-03-02T05:10:00Z","code":null}"#,
            r#""work":{"at":"2026-03-02T05:00:00Z","product":"A","lot":null}"#,
            r#""target":{"at":"2026-03-02T05:00:00Z","takt":"45s"}"#,
            r#""target":{"parts_per_hour":7}"#,
            r#""target":{"takt":null}"#,
            r#""rejects":{"count":-2,"code":"scratch"}"#,
            r#""anomaly":{"id":"oven-1/zone1/zone1.ewma@2026-03-02T05:00:00Z","verdict":"dismissed"}"#,
        ];
        for kind in kinds {
            let entry = read(&format!(r#"{{"by":"anna","station":"oven-1",{kind}}}"#)).expect(kind);
            let written = serde_json::to_string(&EntryJson::from(&entry)).expect("plain data");
            assert_eq!(read(&written), Ok(entry), "{written}");
        }
    }

    #[test]
    fn what_is_missing_stays_and_null_clears() {
        let entry = read(r#"{"station":"a","work":{"product":"B","lot":null}}"#).expect("reads");
        let product = Change::Set("B".into());
        assert_eq!(entry.what, What::Work { at: AT, product, lot: Change::Cleared, order: Change::Left });
    }

    #[test]
    fn what_is_wrong_is_said() {
        let message = |text: &str| read(text).expect_err(text);
        insta::assert_snapshot!(message(r#"{"station":"a"}"#), @"an entry is one of reason, work, target, rejects and anomaly");
        insta::assert_snapshot!(message(r#"{"station":"a","target":{}}"#), @r#"a target is either `takt` (such as "45s", or null) or `parts_per_hour`"#);
        insta::assert_snapshot!(message(r#"{"station":"a","target":{"parts_per_hour":0}}"#), @"`parts_per_hour` is a number above 0");
        insta::assert_snapshot!(
            message(r#"{"station":"a","anomaly":{"id":"b/t/d@2026-03-02T05:00:00Z","verdict":"confirmed"}}"#),
            @"`id` names an anomaly of `b`, not of `a`"
        );
        assert!(message(r#"{"station":"a","reasons":{}}"#).contains("unknown field `reasons`"));
        assert!(message(r#"{"station":"a","target":{"takt":"45"}}"#).starts_with("`takt`: "));
    }
}
