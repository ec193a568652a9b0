//! Snapshots: the state of an aggregate at a version, so that loading it needs only what came
//! after.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::state::Sourcing;
use crate::aggregate::{AggregateRoot, AuditStamps};

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

/// A snapshot on its way into the store.
///
/// It is written after the commit, and nobody waits for it: whoever loads the aggregate before
/// applies a few events more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The version of the aggregate.
    pub version: u64,
    /// The shape of the aggregate, by which other code knows that it cannot read it.
    pub shape: &'static str,
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
    let aggregate = (codec.read)(id, document.state).ok()?;
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

/// The snapshot that is due when the aggregate reaches `version` by a change that `actor` makes now.
///
/// A state that cannot be written is none: a snapshot is never an error to whoever saves.
pub(crate) fn due<A: AggregateRoot>(
    aggregate: &A,
    version: u64,
    now: DateTime<Utc>,
    actor: Option<&str>,
) -> Option<NewSnapshot> {
    let sourcing = A::SOURCING?;
    let codec = sourcing.snapshots?;
    let root = aggregate.root();
    let stamps = root.stamps();
    let last = root.snapshot();
    let since = version - last.map_or(0, |last| last.version);
    let taken_at = last.map(|last| last.taken_at).or(stamps.created_at);
    let is_old = codec
        .policy
        .max_age
        .zip(taken_at)
        .is_some_and(|(age, taken_at)| {
            TimeDelta::from_std(age).is_ok_and(|age| now.signed_duration_since(taken_at) >= age)
        });
    if since < codec.policy.every && !is_old {
        return None;
    }
    let actor = actor.map(str::to_owned);
    let is_new = root.version() == 0;
    let document = Document {
        taken_at: now,
        created_at: if is_new { Some(now) } else { stamps.created_at },
        created_by: if is_new {
            actor.clone()
        } else {
            stamps.created_by.clone()
        },
        updated_at: Some(now),
        updated_by: actor,
        state: (codec.write)(aggregate).ok()?,
    };
    Some(NewSnapshot {
        version,
        shape: codec.shape,
        state: serde_json::to_string(&document).ok()?,
    })
}
