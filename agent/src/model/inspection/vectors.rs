//! Published worked examples, for tests.

use serde_json::Value as Json;

/// The example of that id in tests/fixtures/vectors/quality.json.
pub fn vector(id: &str) -> Vector {
    let vectors: Vec<Json> =
        serde_json::from_str(include_str!("../../../../tests/fixtures/vectors/quality.json")).expect("JSON");
    Vector(vectors.into_iter().find(|vector| vector["id"] == id).expect("the vector is there"))
}

/// A published example.
#[derive(Debug)]
pub struct Vector(Json);

impl Vector {
    pub fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap_or_else(|| panic!("{key} of {} is no number", self.0))
    }

    pub fn count(&self, key: &str) -> i64 {
        self.0[key].as_i64().unwrap_or_else(|| panic!("{key} of {} is no count", self.0))
    }

    pub fn numbers(&self, key: &str) -> Vec<f64> {
        let list = self.0[key].as_array().unwrap_or_else(|| panic!("{key} of {} is no list", self.0));
        list.iter().map(|number| number.as_f64().expect("a number")).collect()
    }
}

/// Both are the same within the example's own tolerance.
#[track_caller]
pub fn within(of: &Vector, found: f64, published: f64) {
    assert!((found - published).abs() <= of.number("tol"), "{found}, published {published}");
}
