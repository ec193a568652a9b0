//! The versions of event-sourced aggregates, which have no row.

use cqrs_core::staging::{ChangeMarker, Operation, StagedWrite};
use cqrs_core::{Result, TenantId};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row, SqliteConnection};

use super::{integer, write_error};
use crate::backend::bind::{bind, query};
use crate::integrity::{HEAD_COLUMNS, REPLACE_HEAD};
use crate::statements::Statements;
use crate::tenancy::{self, TenantSite};

/// Compares the version of the stream with the one that the write expects. Nobody else writes until
/// the transaction ends. That an id is free, the unique key of the log says.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    statements: &Statements,
    write: &StagedWrite,
) -> Result<()> {
    if write.operation == Operation::Insert {
        return Ok(());
    }
    let text = statements.get(write.table, "version of a stream", || {
        let tenant = match write.table.is_tenant() {
            true => {
                let own = tenancy::equals(TenantSite::StreamHead, "tenant_id", "$3");
                format!(" AND {own}")
            }
            false => String::new(),
        };
        format!(
            "SELECT aggregate_version, event_type FROM cqrs_event \
             WHERE aggregate_type = $1 AND aggregate_id = $2{tenant} \
             ORDER BY aggregate_version DESC LIMIT 1"
        )
    });
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, write.aggregate_type)?;
    bind(&mut arguments, write.aggregate_id.as_str())?;
    if write.table.is_tenant() {
        bind(&mut arguments, write.tenant.as_ref().map(TenantId::as_str))?;
    }
    let found = query(&text, arguments)
        .fetch_optional(connection)
        .await
        .and_then(|row| {
            let read = |row: sqlx::sqlite::SqliteRow| -> sqlx::Result<(i64, String)> {
                Ok((row.try_get(0)?, row.try_get(1)?))
            };
            row.map(read).transpose()
        })
        .map_err(|cause| write_error(cause, write))?;
    match found {
        None => Err(write.not_found()),
        Some((_, last)) if last == ChangeMarker::Removed.event_type() => Err(write.not_found()),
        Some((version, _)) if version == integer(write.expected_version) => Ok(()),
        Some((version, _)) => Err(write.conflict(u64::try_from(version).unwrap_or(0))),
    }
}

/// Writes down where the stream of a chained aggregate ends.
pub(super) async fn note_head(
    connection: &mut SqliteConnection,
    write: &StagedWrite,
) -> Result<()> {
    let Some(last) = write.events.last() else {
        return Ok(());
    };
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, write.aggregate_type)?;
    bind(&mut arguments, write.aggregate_id.as_str())?;
    bind(&mut arguments, write.tenant.as_ref().map(TenantId::as_str))?;
    bind(&mut arguments, integer(last.aggregate_version))?;
    bind(&mut arguments, last.content_hash.to_bytes())?;
    let text = format!(
        "INSERT INTO cqrs_chain_head ({HEAD_COLUMNS}) VALUES ($1, $2, $3, $4, $5) {REPLACE_HEAD}"
    );
    query(&text.into(), arguments)
        .execute(connection)
        .await
        .map(drop)
        .map_err(|cause| write_error(cause, write))
}
