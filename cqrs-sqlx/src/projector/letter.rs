//! Dead letters, for operators.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnError, RowSource};
use cqrs_core::{Position, Result, TenantId};
use uuid::Uuid;

use super::checkpoint::{read, some};
use super::dead_letters::{self, FailedAttempt};
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// What `cqrs_dead_letter` holds, in the order in which it is read.
pub(crate) const COLUMNS: &str = "subscription, position, status, event_id, tenant_id, \
     aggregate_type, aggregate_id, aggregate_version, event_type, attempts, error, history, \
     parked_at, replay_at";

/// An event that a subscription could not apply, or that stands behind one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The subscription.
    pub subscription: String,
    /// The event's place in the log, which holds it.
    pub position: Position,
    /// Whether it is parked or was skipped.
    pub status: DeadLetterStatus,
    /// The event's own id.
    pub event_id: Uuid,
    /// The tenant that owns the aggregate.
    pub tenant: Option<TenantId>,
    /// The type of the aggregate.
    pub aggregate_type: String,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// The version that the aggregate reached with the event.
    pub aggregate_version: u64,
    /// The stored name of the event.
    pub event_type: String,
    /// How often it was tried; 0 where it was not, since it stands behind another.
    pub attempts: u32,
    /// Why it failed, the last time.
    pub error: Option<String>,
    /// Its last failures, the latest last: the one that brought it here, and those of replays.
    pub history: Vec<FailedAttempt>,
    /// Since when it is here, by the clock of the database.
    pub parked_at: DateTime<Utc>,
    /// When it is replayed by itself, or was asked to be.
    pub replay_at: Option<DateTime<Utc>>,
}

/// What a dead letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterStatus {
    /// It will be applied when it is replayed, and the later events of its aggregate after it.
    Parked,
    /// It was left out for good, and the later events of its aggregate were applied.
    Skipped,
}

/// The dead letters of a subscription after a position, in order.
pub(super) async fn list<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
    after: Position,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    let select = Select {
        sql: format!(
            "SELECT {COLUMNS} FROM cqrs_dead_letter \
             WHERE subscription = $1 AND position > $2 ORDER BY position LIMIT $3"
        )
        .into(),
        parameters: vec![
            Parameter::text(name),
            Parameter::int(after.0),
            Parameter::int(limit.into()),
        ],
    };
    reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        read(row, read_letter)
    })
    .await
}

fn read_letter<R: RowSource>(row: &R) -> std::result::Result<DeadLetter, ColumnError> {
    let owned = |index| Ok::<_, ColumnError>(some(row.read_text(index)?)?.to_owned());
    let tenant = row.read_text(4)?.map(TenantId::new).transpose();
    Ok(DeadLetter {
        subscription: owned(0)?,
        position: Position(some(row.read_i64(1)?)?),
        status: match some(row.read_text(2)?)? {
            "skipped" => DeadLetterStatus::Skipped,
            _ => DeadLetterStatus::Parked,
        },
        event_id: some(row.read_uuid(3)?)?,
        tenant: tenant.map_err(ColumnError::invalid)?,
        aggregate_type: owned(5)?,
        aggregate_id: owned(6)?,
        aggregate_version: u64::try_from(some(row.read_i64(7)?)?).map_err(ColumnError::invalid)?,
        event_type: owned(8)?,
        attempts: u32::try_from(some(row.read_i32(9)?)?).map_err(ColumnError::invalid)?,
        error: row.read_text(10)?.map(str::to_owned),
        history: dead_letters::attempts(some(row.read_text(11)?)?),
        parked_at: some(row.read_timestamp(12)?)?,
        replay_at: row.read_timestamp(13)?,
    })
}
