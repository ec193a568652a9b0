//! Checking that the code can read what the log holds.

use std::sync::Arc;

use cqrs_core::mapping::{ColumnError, RowSource};
use cqrs_core::{DomainEvent, Error, Result, TenantScope};

use super::refuse;
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// Compares the event types and schema versions of an aggregate type in the log with the code.
pub(crate) async fn verify_events<B: Backend, E: DomainEvent>(
    shared: &Arc<Shared<B>>,
) -> Result<()> {
    let select = Select {
        sql: "SELECT DISTINCT event_type, schema_version FROM cqrs_event \
              WHERE aggregate_type = $1 ORDER BY event_type, schema_version"
            .into(),
        parameters: vec![Parameter::text(E::AGGREGATE_TYPE)],
    };
    let place = Place::Confined(shared, &TenantScope::System);
    let read = |row: &B::Row| {
        let event_type = row.read_text(0).map_err(Error::other)?.map(str::to_owned);
        let version = row.read_i32(1).map_err(Error::other)?;
        let found = event_type.zip(version.and_then(|version| u32::try_from(version).ok()));
        found.ok_or_else(|| Error::other(ColumnError::UnexpectedNull))
    };
    let found: Vec<(String, u32)> = reads::rows(place, &select, None, read).await?;
    let unreadable = found.iter().filter_map(|(event_type, version)| {
        let readable = cqrs_core::check_readable::<E>(event_type, *version);
        readable.err().map(|error| error.to_string())
    });
    refuse(
        "the log holds events that the code cannot read",
        unreadable.collect(),
    )
}
