//! The first node of a JSON payload that a path selects.

use serde_json::Value;
use serde_json_path::JsonPath;

/// A path, made ready. Most paths name one place (RFC 9535, 2.3.5.1: singular queries), and walking there is
/// many times cheaper than evaluating a query.
#[derive(Debug)]
pub(super) enum Pick {
    /// One place.
    Place(Box<[Step]>),
    /// Anything else.
    Query(JsonPath),
}

/// One step down.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into an object.
    Name(Box<str>),
    /// Into an array; from its end when negative.
    Index(i64),
}

impl Pick {
    pub(super) fn new(path: JsonPath) -> Self {
        let text = path.to_string();
        match steps(&text) {
            // The text does not escape names, so it must prove that it means the same path.
            Some(steps) if JsonPath::parse(&text).is_ok_and(|again| again == path) => Self::Place(steps),
            _ => Self::Query(path),
        }
    }

    /// The node, if there is one.
    pub(super) fn first<'v>(&self, payload: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Place(steps) => steps.iter().try_fold(payload, |node, step| step.down(node)),
            Self::Query(path) => path.query(payload).first(),
        }
    }
}

impl Step {
    fn down<'v>(&self, node: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Name(name) => node.as_object()?.get(&**name),
            Self::Index(index) => {
                let list = node.as_array()?;
                let from_end = || list.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?);
                list.get(usize::try_from(*index).ok().or_else(from_end)?)
            }
        }
    }
}

/// The steps of a path as [`JsonPath`] prints it: `$`, then `.name`, `['name']` or `[0]`. `None` for all else.
fn steps(text: &str) -> Option<Box<[Step]>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let step;
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once('\'')?;
            step = Step::Name(name.into());
            rest = after.strip_prefix(']')?;
        } else if let Some(bracketed) = rest.strip_prefix('[') {
            let (index, after) = bracketed.split_once(']')?;
            step = Step::Index(index.parse().ok()?);
            rest = after;
        } else {
            let name = rest.strip_prefix('.')?;
            let end = name.find(['.', '[']).unwrap_or(name.len());
            step = Step::Name(name[..end].into());
            rest = &name[end..];
            if end == 0 || &name[..end] == "*" {
                return None;
            }
        }
        steps.push(step);
    }
    Some(steps.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pick(path: &str) -> Pick {
        Pick::new(JsonPath::parse(path).expect(path))
    }

    #[test]
    fn singular_paths_are_walked() {
        for path in ["$", "$.state", "$.zones[0].temp", "$['zones'][-1]['temp']", "$[\"with space\"]", "$['ü'].ß"] {
            assert!(matches!(pick(path), Pick::Place(_)), "{path}");
        }
        for path in ["$..temp", "$.*", "$[*]", "$.a[0,1]", "$.a[1:2]", "$.a[?@.b]", "$['a','b']", "$[\"it's\"]"] {
            assert!(matches!(pick(path), Pick::Query(_)), "{path}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_path_is_not_walked() {
        let odd = pick(r#"$["a']['b"]"#);
        assert!(matches!(odd, Pick::Query(_)));
        assert_eq!(odd.first(&json!({"a": {"b": 1}, "a']['b": 2})), Some(&json!(2)));
    }

    #[test]
    fn walking_finds_what_the_query_finds() {
        let payload = json!({
            "state": "running", "count": 7, "with space": true, "ü": {"ß": null}, "": 9,
            "zones": [{"temp": 1.5, "0": "name"}, {"temp": 2.5}], "deep": [[1, 2], [3]],
        });
        for path in [
            "$",
            "$.state",
            "$.count",
            "$['with space']",
            "$.ü.ß",
            "$['']",
            "$.zones",
            "$.zones[0].temp",
            "$.zones[-1].temp",
            "$.zones[-2]['0']",
            "$.zones[2].temp",
            "$.zones[-3]",
            "$.zones.temp",
            "$.state[0]",
            "$.deep[1][0]",
            "$.deep[0][-1]",
            "$[0]",
            "$.missing",
            "$.missing.more",
            "$..temp",
            "$.zones[*].temp",
            "$.zones[?@.temp > 2].temp",
            "$.zones[1:].temp",
        ] {
            let parsed = JsonPath::parse(path).expect(path);
            assert_eq!(pick(path).first(&payload), parsed.query(&payload).first(), "{path}");
        }
    }
}
