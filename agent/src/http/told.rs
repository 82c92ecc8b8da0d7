//! The body of `/health` as those who listen are told it: once whole, then what changed.

use serde_json::{Map, Value as Json};

use super::events::{Change, Form, Live};
use super::status::Verdict;
use super::{Desk, View, health};

/// The body as it was told to those who listen.
pub(super) struct Told(Json);

impl Form for Told {
    fn live(desk: &Desk) -> &Live<Self> {
        &desk.json
    }

    fn of(view: &View, verdict: &Verdict) -> Self {
        Self(serde_json::to_value(health::body(view, verdict)).expect("our bodies have string keys"))
    }

    fn state(&self) -> String {
        self.0.to_string()
    }

    fn change(&self, before: &Self) -> Change {
        let (Some(now), Some(then)) = (self.0.as_object(), before.0.as_object()) else { return Change::Everything };
        if names(&now["stations"]) != names(&then["stations"]) {
            return Change::Everything;
        }
        let mut change = changed(now, then, &["time", "uptime_s"], |name, now, then| match name {
            "stations" => changed_of(now, then, change_of_station),
            _ => Some(now.clone()),
        });
        if change.is_empty() {
            return Change::Nothing;
        }
        for passing in ["time", "uptime_s"] {
            change.insert(passing.to_owned(), now[passing].clone());
        }
        Change::Parts(Json::from(change).to_string())
    }
}

fn change_of_station(now: &Map<String, Json>, then: &Map<String, Json>) -> Map<String, Json> {
    changed(now, then, &[], |name, now, then| match name {
        "tags" => changed_of(now, then, |now, then| {
            let same =
                changed(now, then, &["age_ms"], |_, now, _| Some(now.clone())).is_empty() && now.len() == then.len();
            if same { Map::new() } else { now.clone() }
        }),
        _ => Some(now.clone()),
    })
}

/// The fields that are not as they were then, but for those that only pass; `part` says what of each is told.
fn changed(
    now: &Map<String, Json>,
    then: &Map<String, Json>,
    passing: &[&str],
    part: impl Fn(&str, &Json, &Json) -> Option<Json>,
) -> Map<String, Json> {
    let fields = now.iter().filter(|(name, _)| !passing.contains(&name.as_str()));
    let changed = fields.filter_map(|(name, now)| {
        let then = then.get(name).unwrap_or(&Json::Null);
        let part = if now == then { None } else { part(name, now, then) };
        Some((name.clone(), part?))
    });
    changed.collect()
}

/// Of a list of things with names, those that changed, each with its name; none if none did.
fn changed_of(
    now: &Json,
    then: &Json,
    change: impl Fn(&Map<String, Json>, &Map<String, Json>) -> Map<String, Json>,
) -> Option<Json> {
    let things = list(now).iter().zip(list(then));
    let things = things.filter_map(|(now, then)| {
        let (now, then) = (now.as_object()?, then.as_object()?);
        let mut change = change(now, then);
        if change.is_empty() {
            return None;
        }
        change.insert("name".to_owned(), now["name"].clone());
        Some(Json::from(change))
    });
    Some(things.collect::<Vec<_>>()).filter(|things| !things.is_empty()).map(Json::from)
}

/// Which stations there are, and which tags they have.
fn names(stations: &Json) -> Vec<(&Json, Vec<&Json>)> {
    let named = list(stations).iter().map(|station| (&station["name"], &station["tags"]));
    named.map(|(name, tags)| (name, list(tags).iter().map(|tag| &tag["name"]).collect())).collect()
}

fn list(of: &Json) -> &[Json] {
    of.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use gemba_drivers::{LinkPhase, OwnStatus, Status, Validity, Value};

    use super::super::fixture::{line, snapshot};
    use super::super::status::judge;
    use super::*;
    use crate::model::State;

    fn told(view: &View) -> Told {
        Told::of(view, &judge(view))
    }

    fn change(after: &View) -> Json {
        match told(after).change(&told(&line())) {
            Change::Parts(data) => serde_json::from_str(&data).expect("JSON"),
            Change::Nothing => Json::Null,
            Change::Everything => Json::from("everything"),
        }
    }

    #[test]
    fn time_that_goes_by_is_no_change() {
        let mut view = line();
        view.now = view.now + std::time::Duration::from_secs(60);
        view.uptime += std::time::Duration::from_secs(60);
        snapshot(&mut view).time = view.now;
        assert_eq!(change(&view), Json::Null);
    }

    #[test]
    fn other_stations_or_tags_are_told_as_a_whole() {
        let mut fewer = line();
        snapshot(&mut fewer).stations.truncate(3);
        let mut other = line();
        snapshot(&mut other).stations[0].tags[1].name = "total-2".into();
        assert_eq!((change(&fewer), change(&other)), (Json::from("everything"), Json::from("everything")));
    }

    /// Who holds the last state and overwrites in it has what `/health` says.
    #[test]
    fn a_change_laid_over_the_state_before_gives_the_state_after() {
        let mut after = line();
        after.links[2].phase = LinkPhase::Connected;
        after.upstream.last_error = None;
        after.gateway.cpu = None;
        let of = snapshot(&mut after);
        of.losses.clear();
        of.stations[0].state = Some(State::Down);
        of.stations[0].tags[1].value = Value::Int(19272);
        of.stations[0].tags[2].validity = Validity::Uncertain(Status::Own(OwnStatus::Unspecified));
        of.stations[1].tags[1].validity = Validity::Good; // its `status` goes
        of.stations[1].kpi.iter_mut().for_each(|kpi| kpi.figures.oee = Some(0.5));

        let (mut held, change) = (told(&line()).0, change(&after));
        assert_eq!(list(&change["stations"]).len(), 3, "the scale is as it was: {change}");
        for (field, value) in change.as_object().expect("an object") {
            if field != "stations" {
                held[field] = value.clone();
            }
        }
        for station in list(&change["stations"]) {
            let held = named(&mut held["stations"], &station["name"]);
            for (field, value) in station.as_object().expect("an object") {
                if field != "tags" {
                    held[field] = value.clone();
                }
            }
            for tag in list(&station["tags"]) {
                *named(&mut held["tags"], &tag["name"]) = tag.clone();
            }
        }
        assert_eq!(held, told(&after).0);
    }

    fn named<'a>(list: &'a mut Json, name: &Json) -> &'a mut Json {
        let things = list.as_array_mut().expect("a list");
        things.iter_mut().find(|thing| thing["name"] == *name).expect("it was there before")
    }
}
