//! Snapshots: the state of an aggregate at a version, so that loading it needs only what came
//! after.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fold::{Fold, Replay};
use super::state::{SnapshotCodec, Sourcing};
use crate::aggregate::{AggregateRoot, AuditStamps};
use crate::event::EventType;

/// When a snapshot is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After how many events since the last one.
    pub every: u64,
    /// After how long since the last one, where there was an event since.
    pub max_age: Option<Duration>,
}

/// The snapshot that an aggregate was loaded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotMark {
    pub(crate) version: u64,
    pub(crate) taken_at: DateTime<Utc>,
}

/// That a snapshot is due: a store makes it of the log, after the commit.
///
/// Not of the aggregate that was saved: a snapshot holds what the events say and nothing else, and
/// whoever saves does not wait for its text to be made.
#[derive(Clone, Copy)]
pub struct DueSnapshot {
    taken_at: DateTime<Utc>,
    shape: u64,
    begin: fn(&str) -> Option<Box<dyn Replay>>,
}

impl DueSnapshot {
    /// When it became due, by the clock of the store.
    #[must_use]
    pub fn taken_at(&self) -> DateTime<Utc> {
        self.taken_at
    }

    /// The shape of the aggregate, by which other code knows that it cannot read the snapshot.
    #[must_use]
    pub fn shape(&self) -> String {
        shape_text(self.shape)
    }

    /// The aggregate before its first event; `None` where its id cannot be read back.
    #[must_use]
    pub fn begin(&self, aggregate_id: &str) -> Option<Box<dyn Replay>> {
        (self.begin)(aggregate_id)
    }
}

impl PartialEq for DueSnapshot {
    fn eq(&self, other: &Self) -> bool {
        (self.taken_at, self.shape) == (other.taken_at, other.shape)
    }
}

impl fmt::Debug for DueSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DueSnapshot")
            .field("taken_at", &self.taken_at)
            .finish_non_exhaustive()
    }
}

/// A snapshot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The version of the aggregate.
    pub version: u64,
    /// The state, as JSON.
    pub state: String,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Document {
    taken_at: DateTime<Utc>,
    created_at: Option<DateTime<Utc>>,
    created_by: Option<String>,
    updated_at: Option<DateTime<Utc>>,
    updated_by: Option<String>,
    state: Map<String, Value>,
}

/// The aggregate in a snapshot, as far as it can be read.
pub(super) fn read<A: AggregateRoot>(
    sourcing: &Sourcing<A>,
    id: A::Id,
    version: u64,
    json: &str,
) -> Option<(A, AuditStamps, SnapshotMark)> {
    let codec = sourcing.snapshots.as_ref()?;
    let document: Document = serde_json::from_str(json).ok()?;
    let aggregate = read_state(codec, id, &document.state).ok()?;
    let stamps = AuditStamps {
        created_at: document.created_at,
        created_by: document.created_by,
        updated_at: document.updated_at,
        updated_by: document.updated_by,
        ..AuditStamps::default()
    };
    let taken_at = document.taken_at;
    Some((aggregate, stamps, SnapshotMark { version, taken_at }))
}

/// Reads a state strictly: what was read must be written with the same fields. The shape does not
/// look into the types of the fields, and serde reads what a type has not had before as its default.
fn read_state<A: AggregateRoot>(
    codec: &SnapshotCodec<A>,
    id: A::Id,
    state: &Map<String, Value>,
) -> serde_json::Result<A> {
    let aggregate = (codec.read)(id, state)?;
    let written = (codec.write)(&aggregate)?;
    // Values may stand in another order, those of a `HashSet` do.
    if written == *state || paths(&written) == paths(state) {
        return Ok(aggregate);
    }
    Err(serde_json::Error::custom(
        "it is not written with the fields that were read",
    ))
}

/// The names of all fields, each behind those that it stands in.
fn paths(state: &Map<String, Value>) -> BTreeSet<String> {
    fn add(paths: &mut BTreeSet<String>, path: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = format!("{path}\0{name}");
                    add(paths, &path, value);
                    paths.insert(path);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| add(paths, path, value)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for (name, value) in state {
        add(&mut found, name, value);
    }
    found
}

/// The snapshot of an aggregate that a fold has made.
pub(super) fn write<A: AggregateRoot>(
    codec: &SnapshotCodec<A>,
    aggregate: &A,
    version: u64,
    stamps: AuditStamps,
    taken_at: DateTime<Utc>,
) -> serde_json::Result<NewSnapshot> {
    let document = Document {
        taken_at,
        created_at: stamps.created_at,
        created_by: stamps.created_by,
        updated_at: stamps.updated_at,
        updated_by: stamps.updated_by,
        state: (codec.write)(aggregate)?,
    };
    let state = serde_json::to_string(&document)?;
    // What could not be read would only be in the way.
    let text: Document = serde_json::from_str(&state)?;
    read_state(codec, aggregate.id().clone(), &text.state)?;
    Ok(NewSnapshot { version, state })
}

/// The snapshot that is due when the aggregate reaches `version` by a change that is made now.
pub(crate) fn due<A: AggregateRoot>(
    aggregate: &A,
    version: u64,
    now: DateTime<Utc>,
) -> Option<DueSnapshot> {
    let sourcing = A::SOURCING?;
    let codec = sourcing.snapshots?;
    let root = aggregate.root();
    let last = root.snapshot();
    let since = version - last.map_or(0, |last| last.version);
    let taken_at = last.map(|last| last.taken_at).or(root.stamps().created_at);
    let is_old = codec
        .policy
        .max_age
        .zip(taken_at)
        .is_some_and(|(age, taken_at)| {
            TimeDelta::from_std(age).is_ok_and(|age| now.signed_duration_since(taken_at) >= age)
        });
    (since >= codec.policy.every || is_old).then_some(DueSnapshot {
        taken_at: now,
        shape: codec.shape,
        begin: |id| {
            let fold = Fold::<A>::new(id.parse().ok()?)?;
            Some(Box::new(fold))
        },
    })
}

/// The shape of an aggregate: a hash of its fields, which the derive makes, and of the events that
/// are read otherwise than they were once.
#[must_use]
pub(crate) const fn shape(fields: u64, events: &[EventType]) -> u64 {
    let mut hash = fields;
    let mut index = 0;
    while index < events.len() {
        let event = &events[index];
        if event.schema_version > 1 {
            hash = add_to_hash(hash, event.name.as_bytes());
            hash = add_to_hash(hash, &event.schema_version.to_le_bytes());
        }
        index += 1;
    }
    hash
}

/// FNV-1a, as in the derive.
const fn add_to_hash(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

/// The shape as a store keeps it.
pub(super) fn shape_text(shape: u64) -> String {
    format!("{shape:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn event(name: &'static str, schema_version: u32) -> EventType {
        EventType {
            name,
            schema_version,
        }
    }

    #[test]
    fn what_is_read_otherwise_has_another_shape() {
        let before = shape(7, &[event("a", 1), event("b", 2)]);
        assert_ne!(shape(8, &[event("a", 1), event("b", 2)]), before);
        assert_ne!(shape(7, &[event("a", 2), event("b", 2)]), before);
        assert_ne!(shape(7, &[event("a", 1), event("b", 3)]), before);
        // No older state holds an event that is new.
        let more = [event("a", 1), event("b", 2), event("c", 1)];
        assert_eq!(shape(7, &more), before);
    }

    #[test]
    fn fields_are_named_wherever_they_are() {
        let state = |text| paths(&serde_json::from_str(text).unwrap());
        let lines = state(r#"{"lines": [{"a": 1}, {"b": [{"c": 1}]}]}"#);
        let ordered = state(r#"{"lines": [{"b": [{"c": 2}]}, {"a": 2}]}"#);
        assert_eq!(lines, ordered);
        for other in [
            r#"{"lines": [{"a": 1}, {"b": []}]}"#,
            r#"{"lines": [{"a": 1, "c": 1}, {"b": [{"c": 1}]}]}"#,
        ] {
            assert_ne!(lines, state(other), "{other}");
        }
    }
}
