//! From a wish to a [`BulkChange`]: which columns are set, and which event is written.

use chrono::{DateTime, Utc};

use super::{BulkEvent, Lifecycle};
use crate::aggregate::AggregateRoot;
use crate::context::RequestContext;
use crate::error::{Error, Result, StoreErrorKind};
use crate::history::RevisionKind;
use crate::integrity::{ContentHash, Hashing};
use crate::mapping::{ColumnRole, MappingError, Table, Value};
use crate::payload;
use crate::schema::SchemaIds;
use crate::specification::Assignment;
use crate::staging::ChangeMarker;

/// What happens to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Update,
    Remove,
    Restore,
    Purge,
}

impl Kind {
    pub(super) fn deletes(self, table: &Table) -> bool {
        match self {
            Self::Purge => true,
            Self::Remove => !table.is_soft_delete(),
            Self::Update | Self::Restore => false,
        }
    }

    /// The rows that it reaches, of those that `seen` admits.
    pub(super) fn reaches(self, seen: Lifecycle) -> Lifecycle {
        match self {
            Self::Update | Self::Purge => seen,
            Self::Remove => Lifecycle::Living,
            Self::Restore => Lifecycle::Deleted,
        }
    }

    pub(super) fn revision(self) -> RevisionKind {
        match self {
            Self::Update => RevisionKind::Changed,
            Self::Remove => RevisionKind::Removed,
            Self::Restore => RevisionKind::Restored,
            Self::Purge => RevisionKind::Purged,
        }
    }

    fn marker(self) -> ChangeMarker {
        match self {
            Self::Update => ChangeMarker::Changed,
            Self::Remove => ChangeMarker::Removed,
            Self::Restore => ChangeMarker::Restored,
            Self::Purge => ChangeMarker::Purged,
        }
    }
}

/// The columns that the user sets.
pub(super) fn assigned<A: AggregateRoot>(
    assignments: impl IntoIterator<Item = Assignment<A>>,
) -> Result<Vec<(usize, Value)>> {
    let table = A::table();
    let mut set: Vec<(usize, Value)> = Vec::new();
    for assignment in assignments {
        let column = assignment.column();
        let (index, value) = assignment.resolve(table)?;
        if set.iter().any(|(other, _)| *other == index) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("column {column} of table {} is set twice", table.name()),
            ));
        }
        set.push((index, value));
    }
    if set.is_empty() {
        return Err(Error::store(
            StoreErrorKind::Usage,
            "an update sets at least one field",
        ));
    }
    Ok(set)
}

/// The columns that the framework sets besides the version.
pub(super) fn stamps(
    table: &Table,
    kind: Kind,
    context: &RequestContext,
    now: DateTime<Utc>,
) -> Result<Vec<(usize, Value)>> {
    let time = Value::Timestamp(now);
    let actor = match context.actor() {
        Some(actor) => Value::Text(actor.to_owned()),
        None => Value::Null,
    };
    let mut set = Vec::new();
    for (index, column) in table.framework_columns().iter().enumerate() {
        let value = match (column.role(), kind) {
            (ColumnRole::UpdatedAt, _) | (ColumnRole::DeletedAt, Kind::Remove) => time.clone(),
            (ColumnRole::UpdatedBy, _) | (ColumnRole::DeletedBy, Kind::Remove) => actor.clone(),
            (ColumnRole::DeletedAt | ColumnRole::DeletedBy, Kind::Restore) => Value::Null,
            _ => continue,
        };
        let value = value.checked().map_err(|reason| MappingError {
            table: table.name().to_owned(),
            column: column.name().to_owned(),
            reason,
        })?;
        set.push((index, value));
    }
    Ok(set)
}

/// The event of each row: the one that was raised for all, or a marker.
pub(super) fn event<A: AggregateRoot>(
    raised: Option<&A::Event>,
    kind: Kind,
    now: DateTime<Utc>,
    hashing: &Hashing,
    schema_ids: &SchemaIds,
) -> Result<BulkEvent> {
    use crate::event::DomainEvent;
    let (event_type, schema_version, payload) = match raised {
        Some(event) => {
            let of = event.event_type();
            (of.name, of.schema_version, payload::encode(event)?)
        }
        None => (kind.marker().event_type(), 1, "{}".to_owned()),
    };
    Ok(BulkEvent {
        event_type,
        schema_version,
        schema_id: schema_ids.find(A::TYPE, event_type, schema_version),
        content_hash: ContentHash::under(hashing.key(), &payload),
        payload,
        occurred_at: now,
    })
}
