//! Writing aggregates with their events.
//!
//! SQLite runs in this process: a statement costs no round trip, and a commit costs what it takes
//! to reach the disk. So there is one simple statement for each row and one for each event, in a
//! transaction that holds the write lock from its start.

mod append;
mod children;
pub(super) mod history;

pub(super) use self::children::remove_all as remove_children;

use std::fmt::Write;

use cqrs_core::history::StoredRevision;
use cqrs_core::mapping::{Column, ColumnRole, ColumnType, Table};
use cqrs_core::staging::{NewEvent, Operation, StagedWrite};
use cqrs_core::{Envelope, Error, Metadata, Position, RawPayload, Result, TenantId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteArguments;

use super::error::{error, write_error};
use super::row::SqliteSource;
use super::{bind, connection};
use crate::backend::bind::{bind, query};
use crate::backend::{Committed, Returned, Written, version_column, written_columns};
use crate::log::{EVENT_COLUMNS, read_event};
use crate::statements::{Statements, list, names, qualified, quoted};
use crate::tenancy::{self, TenantSite};

const INSERT_EVENT: &str = "INSERT INTO cqrs_event (correlation_id, causation_id, actor, \
     traceparent, tracestate, tenant_id, aggregate_type, aggregate_id, event_id, \
     aggregate_version, event_type, schema_version, payload, content_hash, occurred_at, schema_id, \
     sourced) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// Commits writes on a connection that is in no transaction.
pub(super) async fn commit(
    connection: &mut SqliteConnection,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Committed {
    if let Err(error) = connection::begin(connection).await {
        return Committed::Refused(error);
    }
    let outcome = match apply(
        connection,
        statements,
        writes,
        metadata,
        Returned::Positions,
    )
    .await
    {
        Ok(written) => connection::commit(connection).await.map(|()| written),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(written) => Committed::Done(written),
        Err(refused) => {
            if let Err(error) = connection::rollback(connection).await {
                // The next `begin` on this connection fails, and it is closed.
                tracing::warn!(%error, "a refused transaction could not be rolled back");
            }
            Committed::Refused(refused)
        }
    }
}

/// Checks guards within a transaction.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    statements: &Statements,
    guards: &[StagedWrite],
) -> Result<()> {
    for guard in guards {
        if guard.is_sourced() {
            append::check(connection, statements, guard).await?;
            continue;
        }
        match version(connection, statements, guard).await? {
            Some(found) if found == guard.expected_version => {}
            Some(found) => return Err(guard.conflict(found)),
            None => return Err(guard.not_found()),
        }
    }
    Ok(())
}

/// Applies writes within a transaction.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
    returned: Returned,
) -> Result<Written> {
    let mut written = Written::default();
    let mut first = None;
    for write in writes {
        if write.is_sourced() {
            append::check(connection, statements, write).await?;
        } else if !write_aggregate(connection, statements, write, metadata).await? {
            continue;
        }
        for event in &write.events {
            let refused = |cause| write_error(cause, write);
            let stream = Stream::of(write);
            let position = append(connection, stream, event, metadata, refused).await?;
            written.events.push(event.event_id);
            written.position = written.position.max(Some(position));
            first.get_or_insert(position);
        }
        if write.is_sourced() && write.table.is_chained() {
            append::note_head(connection, write).await?;
        }
    }
    if let (Returned::Events, Some(first), Some(last)) = (returned, first, written.position) {
        written.envelopes = appended(connection, first, last).await?;
    }
    Ok(written)
}

/// Writes the row and those of the children, and keeps the revision; whether there was anything to
/// change.
async fn write_aggregate(
    connection: &mut SqliteConnection,
    statements: &Statements,
    write: &StagedWrite,
    metadata: &Metadata,
) -> Result<bool> {
    let (table, key) = (write.table, &write.key);
    let deletes = write.operation == Operation::Remove && !table.is_soft_delete();
    let mut image = match deletes {
        true => history::image(connection, statements, table, key).await?,
        false => None,
    };
    if !write_row(connection, statements, write).await? {
        return Ok(false);
    }
    children::write(connection, statements, write).await?;
    if !deletes {
        image = history::image(connection, statements, table, key).await?;
    }
    if let Some(image) = image {
        let revision = StoredRevision::of(write, write.operation.into(), metadata, image);
        let of = (write.aggregate_type, write.aggregate_id.as_str());
        let refused = |cause| write_error(cause, write);
        history::keep(connection, of, &revision, refused).await?;
    }
    Ok(true)
}

/// The events from one position to another. Between two of one transaction are no others.
pub(super) async fn appended(
    connection: &mut SqliteConnection,
    first: Position,
    last: Position,
) -> Result<Vec<Envelope<RawPayload>>> {
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position BETWEEN $1 AND $2 ORDER BY position"
    );
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, first.0)?;
    bind(&mut arguments, last.0)?;
    let rows = query(&sql.into(), arguments)
        .fetch_all(connection)
        .await
        .map_err(|cause| error(cause, "reading the events of the transaction"))?;
    rows.into_iter()
        .map(|row| read_event(&SqliteSource(row)))
        .collect()
}

/// Writes the row; whether there was anything to change.
async fn write_row(
    connection: &mut SqliteConnection,
    statements: &Statements,
    write: &StagedWrite,
) -> Result<bool> {
    let (table, operation) = (write.table, write.operation);
    let sql = statements.get(table, shape(operation), || row_sql(table, operation));
    let mut arguments = SqliteArguments::default();
    for (index, column) in written_columns(table, operation) {
        bind::add(&mut arguments, column.column_type(), &write.row[index])?;
    }
    if operation != Operation::Insert {
        bind_guard(&mut arguments, write)?;
        bind(&mut arguments, integer(write.expected_version))?;
    }
    let result = query(&sql, arguments)
        .execute(&mut *connection)
        .await
        .map_err(|cause| write_error(cause, write))?;
    if result.rows_affected() > 0 {
        return Ok(true);
    }
    match version(connection, statements, write).await? {
        None => Err(write.not_found()),
        Some(found)
            if operation == Operation::UpdateIfChanged && found == write.expected_version =>
        {
            Ok(false)
        }
        Some(found) => Err(write.conflict(found)),
    }
}

/// The version at which the row is, where the write may see it.
async fn version(
    connection: &mut SqliteConnection,
    statements: &Statements,
    write: &StagedWrite,
) -> Result<Option<u64>> {
    let table = write.table;
    let sql = statements.get(table, "version of a row", || {
        format!(
            "SELECT {} FROM {} WHERE {}",
            qualified(table, version_column(table)),
            quoted(table.name()),
            guard(TenantSite::GuardVersion, table, 1)
        )
    });
    let mut arguments = SqliteArguments::default();
    bind_guard(&mut arguments, write)?;
    let row = query(&sql, arguments)
        .fetch_optional(connection)
        .await
        .and_then(|row| {
            row.map(|row| sqlx::Row::try_get::<i64, _>(&row, 0))
                .transpose()
        })
        .map_err(|cause| write_error(cause, write))?;
    Ok(row.map(|version| u64::try_from(version).unwrap_or(0)))
}

/// Whose an event is.
#[derive(Clone, Copy)]
pub(super) struct Stream<'w> {
    pub(super) tenant: Option<&'w TenantId>,
    pub(super) aggregate_type: &'static str,
    pub(super) aggregate_id: &'w str,
    /// Whether it is event-sourced.
    pub(super) is_sourced: bool,
}

impl<'w> Stream<'w> {
    fn of(write: &'w StagedWrite) -> Self {
        Self {
            tenant: write.tenant.as_ref(),
            aggregate_type: write.aggregate_type,
            aggregate_id: &write.aggregate_id,
            is_sourced: write.is_sourced(),
        }
    }
}

/// Adds an event to the log; `refused` is the error where that fails.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    stream: Stream<'_>,
    event: &NewEvent,
    metadata: &Metadata,
    refused: impl FnOnce(sqlx::Error) -> Error,
) -> Result<Position> {
    let arguments = event_arguments(stream, event, metadata)?;
    let result = sqlx::query_with(INSERT_EVENT, arguments)
        .execute(connection)
        .await
        .map_err(refused)?;
    // The position is the rowid.
    Ok(Position(result.last_insert_rowid()))
}

fn event_arguments(
    stream: Stream<'_>,
    event: &NewEvent,
    metadata: &Metadata,
) -> Result<SqliteArguments> {
    let trace = metadata.trace.as_ref();
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, metadata.correlation_id)?;
    bind(&mut arguments, metadata.causation_id)?;
    bind(&mut arguments, metadata.actor.as_deref())?;
    bind(
        &mut arguments,
        trace.map(|trace| trace.traceparent.as_str()),
    )?;
    bind(
        &mut arguments,
        trace.and_then(|trace| trace.tracestate.as_deref()),
    )?;
    bind(&mut arguments, stream.tenant.map(TenantId::as_str))?;
    bind(&mut arguments, stream.aggregate_type)?;
    bind(&mut arguments, stream.aggregate_id)?;
    bind(&mut arguments, event.event_id)?;
    bind(&mut arguments, integer(event.aggregate_version))?;
    bind(&mut arguments, event.event_type)?;
    bind(&mut arguments, event.schema_version)?;
    bind(&mut arguments, event.payload.as_str())?;
    bind(&mut arguments, event.content_hash.to_bytes())?;
    bind(&mut arguments, bind::timestamp(event.occurred_at))?;
    bind(&mut arguments, event.schema_id.as_deref())?;
    bind(&mut arguments, stream.is_sourced)?;
    Ok(arguments)
}

pub(super) fn integer(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

// What follows builds the statements.

const fn shape(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "insert a row",
        Operation::Update => "update a row",
        Operation::UpdateIfChanged => "update a row if changed",
        Operation::Remove => "remove a row",
    }
}

fn row_sql(table: &'static Table, operation: Operation) -> String {
    let columns: Vec<&Column> = written_columns(table, operation)
        .map(|(_, column)| column)
        .collect();
    let name = quoted(table.name());
    if operation == Operation::Insert {
        let names = names(columns.iter().copied());
        let values = list((1..=columns.len()).map(|index| format!("${index}")));
        return format!("INSERT INTO {name} ({names}) VALUES ({values})");
    }

    let mut guard = guard(TenantSite::GuardOne, table, columns.len() + 1);
    let expected = columns.len() + guard_length(table) + 1;
    write!(
        guard,
        " AND {} = ${expected}",
        qualified(table, version_column(table))
    )
    .expect("writing to a String cannot fail");
    if operation == Operation::Remove && columns.is_empty() {
        return format!("DELETE FROM {name} WHERE {guard}");
    }
    if operation == Operation::UpdateIfChanged {
        guard.push_str(" AND ");
        guard.push_str(&differs(table, &columns));
    }
    let set = list(
        columns
            .iter()
            .enumerate()
            .map(|(index, column)| format!("{} = ${}", quoted(column.name()), index + 1)),
    );
    format!("UPDATE {name} SET {set} WHERE {guard}")
}

/// Whether any data column differs from its new value, which are the parameters from `$1` on.
fn differs(table: &Table, columns: &[&Column]) -> String {
    let conditions: Vec<String> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.role() == ColumnRole::Data)
        .map(|(index, column)| format!("{} IS NOT ${}", compared(table, column), index + 1))
        .collect();
    if conditions.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", conditions.join(" OR "))
    }
}

/// The guard: which row a write may see. Its values are the key, and the tenant where the table
/// has one.
fn guard(site: TenantSite, table: &Table, first: usize) -> String {
    let mut guard = String::new();
    for (column, index) in guard_columns(table).zip(first..) {
        if index > first {
            guard.push_str(" AND ");
        }
        let (name, value) = (compared(table, column), format!("${index}"));
        guard.push_str(&match column.role() {
            ColumnRole::Tenant => tenancy::equals(site, &name, &value),
            _ => format!("{name} = {value}"),
        });
    }
    if let Some(deleted) = table.column_with(ColumnRole::DeletedAt) {
        write!(guard, " AND {} IS NULL", qualified(table, deleted.name()))
            .expect("writing to a String cannot fail");
    }
    guard
}

fn guard_columns(table: &Table) -> impl Iterator<Item = &Column> {
    let key = table.key_columns().next();
    key.into_iter().chain(table.column_with(ColumnRole::Tenant))
}

fn guard_length(table: &Table) -> usize {
    guard_columns(table).count()
}

fn bind_guard(arguments: &mut SqliteArguments, write: &StagedWrite) -> Result<()> {
    if let Some(key) = write.table.key_columns().next() {
        bind::add(arguments, key.column_type(), &write.key)?;
    }
    if write.table.is_tenant() {
        bind(arguments, write.tenant.as_ref().map(TenantId::as_str))?;
    }
    Ok(())
}

/// A column as it is compared: text by its bytes, also where a user's table says NOCASE.
fn compared(table: &Table, column: &Column) -> String {
    let name = qualified(table, column.name());
    match column.column_type() {
        ColumnType::Text | ColumnType::Json => format!("{name} COLLATE BINARY"),
        _ => name,
    }
}

#[cfg(test)]
mod tests;
