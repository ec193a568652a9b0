//! Places in JSON documents, as paths of SQL.

use std::fmt::Write;

use cqrs_core::{JsonPlace, JsonStep};

/// `$."sizes"[0]`, in the words of all databases.
pub(super) fn steps(place: &JsonPlace) -> String {
    let mut path = "$".to_owned();
    for step in place.steps() {
        match step {
            JsonStep::Index(index) => write!(path, "[{index}]"),
            // The escapes of a key are those of JSON.
            JsonStep::Key(key) => write!(path, ".{}", serde_json::json!(key)),
            other => unreachable!("a step that is not known here: {other:?}"),
        }
        .expect("writing to a String cannot fail");
    }
    path
}
