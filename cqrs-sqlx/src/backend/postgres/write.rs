//! Writing aggregates with their events.
//!
//! One aggregate is one statement in autocommit: a data-modifying CTE changes the row under its
//! version guard, and the events are inserted from what it changed. A stale version changes no
//! row, and so inserts no event.
//!
//! ```sql
//! WITH changed AS (
//!     UPDATE "route_plan" AS t SET "version" = $1, "status" = $2
//!     WHERE t."id" = $3 AND t."version" = $4 AND t."tenant_id" = $5 AND t."deleted_at" IS NULL
//!     RETURNING 1)
//! INSERT INTO cqrs_event (...) SELECT $6, ... FROM changed RETURNING position
//! ```
//!
//! Several aggregates are one transaction: one statement for each table and operation, with
//! arrays, and one for all events.

use cqrs_core::mapping::{Column, ColumnRole, Table, Value};
use cqrs_core::staging::{Operation, StagedWrite};
use cqrs_core::{Error, Metadata, Position, Result};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};

use super::events::{self, ORIGIN, STREAM};
use super::{Session, bind, error, query};
use crate::backend::{Backed, Committed, Written};
use crate::statements::{Statements, list, quoted};

/// Why a write failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was refused.
    Refused(Error),
    /// The connection broke.
    Disconnected(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Disconnected(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

type Outcome<T> = std::result::Result<T, Failure>;

fn failure(cause: sqlx::Error, writes: &[&StagedWrite]) -> Failure {
    let disconnected = error::is_disconnect(&cause);
    let error = error::write_error(cause, writes);
    if disconnected {
        Failure::Disconnected(error)
    } else {
        Failure::Refused(error)
    }
}

/// Commits writes on a connection that is in no transaction.
pub(super) async fn commit(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Committed {
    let outcome = match writes {
        [write] => commit_one(session, statements, write, metadata).await,
        writes => commit_several(session, statements, writes, metadata).await,
    };
    match outcome {
        Ok(written) => Committed::Done(written),
        Err(Failure::Refused(error)) => Committed::Refused(error),
        Err(Failure::Disconnected(error)) => Committed::Lost(error),
    }
}

async fn commit_several(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Outcome<Written> {
    let all: Vec<&StagedWrite> = writes.iter().collect();
    let begin = sqlx::SqlStr::from_static("BEGIN ISOLATION LEVEL READ COMMITTED");
    super::transaction::begin::<sqlx::Postgres>(&mut session.connection, Some(begin))
        .await
        .map_err(|cause| failure(cause, &all))?;
    match apply(session, statements, writes, metadata).await {
        Ok(written) => {
            super::transaction::commit::<sqlx::Postgres>(&mut session.connection)
                .await
                .map_err(|cause| failure(cause, &all))?;
            Ok(written)
        }
        Err(Failure::Refused(error)) => {
            // Where even this fails, the connection is gone and the server rolls back itself.
            let _ = super::Postgres::rollback(session).await;
            Err(Failure::Refused(error))
        }
        Err(disconnected) => Err(disconnected),
    }
}

async fn commit_one(
    session: &mut Session,
    statements: &Statements,
    write: &StagedWrite,
    metadata: &Metadata,
) -> Outcome<Written> {
    let table = write.table;
    let several = write.events.len() > 1;
    let sql = statements.get(table, shape_of_one(write.operation, several), || {
        one_sql(table, write.operation, several)
    });

    let mut arguments = PgArguments::default();
    for (index, column) in written_columns(table, write.operation) {
        bind::add(&mut arguments, column.column_type(), &write.row[index])?;
    }
    if write.operation != Operation::Insert {
        bind_guard(&mut arguments, write)?;
    }
    events::bind_origin(&mut arguments, metadata)?;
    events::bind_stream(&mut arguments, write)?;
    match write.events.as_slice() {
        [event] => events::bind_event(&mut arguments, event)?,
        several => events::bind_events(&mut arguments, &several.iter().collect::<Vec<_>>())?,
    }

    let rows = query(&sql, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, &[write]))?;
    match highest(&rows).map_err(|cause| failure(cause, &[write]))? {
        None => {
            explain(session, statements, &[write]).await?;
            Ok(Written::default())
        }
        position => Ok(written(&[write], position)),
    }
}

/// Applies writes within a transaction.
pub(super) async fn apply(
    session: &mut Session,
    statements: &Statements,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Outcome<Written> {
    let mut unchanged: Vec<&StagedWrite> = Vec::new();
    for group in groups(writes) {
        let left = apply_group(session, statements, &group).await?;
        explain(session, statements, &left).await?;
        unchanged.extend(left);
    }
    let changed: Vec<&StagedWrite> = writes
        .iter()
        .filter(|write| !unchanged.iter().any(|other| std::ptr::eq(*other, *write)))
        .collect();
    if changed.is_empty() {
        return Ok(Written::default());
    }

    let first = ORIGIN + 1;
    let origin = placeholders(1, ORIGIN);
    let sql = statements.get(writes[0].table, "events", || {
        format!(
            "INSERT INTO cqrs_event ({}) SELECT {origin}, e.tenant_id, e.aggregate_type, \
             e.aggregate_id, e.event_id, e.aggregate_version, e.event_type, e.schema_version, \
             e.payload::json, e.content_hash, e.occurred_at FROM {} ORDER BY e.ordinality \
             RETURNING position",
            events::COLUMNS,
            events::unnested(first, true),
        )
    });
    let mut arguments = PgArguments::default();
    events::bind_origin(&mut arguments, metadata)?;
    events::bind_streams_and_events(&mut arguments, &changed)?;
    let rows = query(&sql, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, &changed))?;
    let position = highest(&rows).map_err(|cause| failure(cause, &changed))?;
    Ok(written(&changed, position))
}

fn written(writes: &[&StagedWrite], position: Option<Position>) -> Written {
    Written {
        events: writes
            .iter()
            .flat_map(|write| &write.events)
            .map(|event| event.event_id)
            .collect(),
        position,
    }
}

/// The writes of each table and operation, in the order in which the first of each was staged.
fn groups(writes: &[StagedWrite]) -> Vec<Vec<&StagedWrite>> {
    let mut groups: Vec<Vec<&StagedWrite>> = Vec::new();
    for write in writes {
        let group = groups.iter_mut().find(|group| {
            std::ptr::eq(group[0].table, write.table) && group[0].operation == write.operation
        });
        match group {
            Some(group) => group.push(write),
            None => groups.push(vec![write]),
        }
    }
    groups
}

/// Writes the rows of a group; returns the writes that changed no row.
async fn apply_group<'w>(
    session: &mut Session,
    statements: &Statements,
    group: &[&'w StagedWrite],
) -> Outcome<Vec<&'w StagedWrite>> {
    let table = group[0].table;
    let operation = group[0].operation;
    let sql = statements.get(table, shape_of_many(operation), || {
        many_sql(table, operation)
    });
    let mut arguments = PgArguments::default();
    for (index, column) in written_columns(table, operation) {
        let values = group.iter().map(|write| &write.row[index]);
        bind::add_column(&mut arguments, column.column_type(), values)?;
    }
    if operation == Operation::Insert {
        query(&sql, arguments)
            .execute(&mut session.connection)
            .await
            .map_err(|cause| failure(cause, group))?;
        return Ok(Vec::new());
    }
    bind_guards(&mut arguments, group)?;
    let rows = query(&sql, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, group))?;
    let mut left: Vec<Option<&StagedWrite>> = group.iter().copied().map(Some).collect();
    for row in &rows {
        let ordinality: i64 = row.try_get(0).map_err(|cause| failure(cause, group))?;
        if let Some(slot) = usize::try_from(ordinality - 1)
            .ok()
            .and_then(|index| left.get_mut(index))
        {
            *slot = None;
        }
    }
    Ok(left.into_iter().flatten().collect())
}

/// Says why these writes of one table changed no row: `Ok` where each of them had nothing to
/// change.
async fn explain(
    session: &mut Session,
    statements: &Statements,
    writes: &[&StagedWrite],
) -> Outcome<()> {
    let Some(first) = writes.first() else {
        return Ok(());
    };
    let table = first.table;
    let sql = statements.get(table, "versions", || {
        format!(
            "SELECT g.ordinality, t.{} FROM {} AS t JOIN {} ON {}",
            quoted(version_column(table)),
            quoted(table.name()),
            guards_unnested(table, 1, false),
            guard(table, false, true),
        )
    });
    let mut arguments = PgArguments::default();
    bind_guard_arrays(&mut arguments, writes, false)?;
    let rows = query(&sql, arguments)
        .fetch_all(&mut session.connection)
        .await
        .map_err(|cause| failure(cause, writes))?;
    let mut versions: Vec<Option<u64>> = vec![None; writes.len()];
    for row in &rows {
        let read = || -> sqlx::Result<(i64, i64)> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        let (ordinality, version) = read().map_err(|cause| failure(cause, writes))?;
        if let Some(slot) = usize::try_from(ordinality - 1)
            .ok()
            .and_then(|index| versions.get_mut(index))
        {
            *slot = Some(u64::try_from(version).unwrap_or(0));
        }
    }
    for (write, found) in writes.iter().zip(versions) {
        match found {
            None => return Err(write.not_found().into()),
            Some(found)
                if write.operation == Operation::UpdateIfChanged
                    && found == write.expected_version => {}
            Some(found) => return Err(write.conflict(found).into()),
        }
    }
    Ok(())
}

fn highest(rows: &[PgRow]) -> sqlx::Result<Option<Position>> {
    let mut highest = None;
    for row in rows {
        highest = highest.max(Some(Position(row.try_get(0)?)));
    }
    Ok(highest)
}

// What follows builds the statements.

fn shape_of_one(operation: Operation, several_events: bool) -> &'static str {
    match (operation, several_events) {
        (Operation::Insert, false) => "insert one, one event",
        (Operation::Insert, true) => "insert one, events",
        (Operation::Update, false) => "update one, one event",
        (Operation::Update, true) => "update one, events",
        (Operation::UpdateIfChanged, _) => "update one if changed",
        (Operation::Remove, false) => "remove one, one event",
        (Operation::Remove, true) => "remove one, events",
    }
}

fn shape_of_many(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "insert many",
        Operation::Update => "update many",
        Operation::UpdateIfChanged => "update many if changed",
        Operation::Remove => "remove many",
    }
}

/// The columns that an operation writes, with their positions in the row.
fn written_columns(
    table: &'static Table,
    operation: Operation,
) -> impl Iterator<Item = (usize, &'static Column)> {
    let soft_delete = table.is_soft_delete();
    table
        .columns()
        .iter()
        .enumerate()
        .filter(move |(_, column)| {
            let role = column.role();
            let deletion = matches!(role, ColumnRole::DeletedAt | ColumnRole::DeletedBy);
            match operation {
                Operation::Insert => !deletion,
                Operation::Update | Operation::UpdateIfChanged => {
                    !deletion && !StagedWrite::keeps(role)
                }
                Operation::Remove => {
                    soft_delete && !StagedWrite::keeps(role) && role != ColumnRole::Data
                }
            }
        })
}

fn one_sql(table: &'static Table, operation: Operation, several_events: bool) -> String {
    let columns: Vec<_> = written_columns(table, operation).collect();
    let name = quoted(table.name());
    let value = |position: usize, column: &Column| {
        format!("${}{}", position + 1, bind::cast(column.column_type()))
    };
    let written = columns.len();
    let (change, bound) = if operation == Operation::Insert {
        let names = list(columns.iter().map(|(_, column)| quoted(column.name())));
        let values = list(
            columns
                .iter()
                .enumerate()
                .map(|(at, (_, column))| value(at, column)),
        );
        let insert = format!("INSERT INTO {name} ({names}) VALUES ({values}) RETURNING 1");
        (insert, written)
    } else {
        let guard = guard_with(table, true, |offset| format!("${}", written + 1 + offset));
        let set =
            list(columns.iter().enumerate().map(|(at, (_, column))| {
                format!("{} = {}", quoted(column.name()), value(at, column))
            }));
        let change = match operation {
            Operation::Remove if columns.is_empty() => {
                format!("DELETE FROM {name} AS t WHERE {guard} RETURNING 1")
            }
            Operation::UpdateIfChanged => {
                let differs = differs(
                    columns
                        .iter()
                        .enumerate()
                        .filter(|(_, (_, column))| column.role() == ColumnRole::Data)
                        .map(|(at, (_, column))| (*column, value(at, column))),
                );
                format!("UPDATE {name} AS t SET {set} WHERE {guard} AND {differs} RETURNING 1")
            }
            _ => format!("UPDATE {name} AS t SET {set} WHERE {guard} RETURNING 1"),
        };
        (change, written + guard_length(table))
    };

    let scalars = ORIGIN + STREAM;
    let origin = placeholders(bound + 1, scalars);
    let first = bound + scalars + 1;
    let log = events::COLUMNS;
    if several_events {
        format!(
            "WITH changed AS ({change}) INSERT INTO cqrs_event ({log}) SELECT {origin}, \
             e.event_id, e.aggregate_version, e.event_type, e.schema_version, e.payload::json, \
             e.content_hash, e.occurred_at FROM changed, {} ORDER BY e.ordinality \
             RETURNING position",
            events::unnested(first, false),
        )
    } else {
        let event = placeholders(first, 4);
        format!(
            "WITH changed AS ({change}) INSERT INTO cqrs_event ({log}) SELECT {origin}, {event}, \
             ${}::json, ${}, ${} FROM changed RETURNING position",
            first + 4,
            first + 5,
            first + 6,
        )
    }
}

fn many_sql(table: &'static Table, operation: Operation) -> String {
    let columns: Vec<_> = written_columns(table, operation).collect();
    let name = quoted(table.name());
    let arrays = columns.iter().enumerate().map(|(at, (_, column))| {
        format!("${}::{}", at + 1, bind::array_type(column.column_type()))
    });
    let value = |column: &Column| {
        format!(
            "g.{}{}",
            quoted(&format!("new_{}", column.name())),
            bind::cast(column.column_type())
        )
    };
    let new_names = columns
        .iter()
        .map(|(_, column)| quoted(&format!("new_{}", column.name())));
    if operation == Operation::Insert {
        let names = list(columns.iter().map(|(_, column)| quoted(column.name())));
        let values = list(columns.iter().map(|(_, column)| value(column)));
        return format!(
            "INSERT INTO {name} ({names}) SELECT {values} FROM unnest({}) AS g({})",
            list(arrays),
            list(new_names),
        );
    }
    let guards = guard_arrays(table, columns.len() + 1, true);
    let source = format!(
        "unnest({}) WITH ORDINALITY AS g({}, ordinality)",
        list(arrays.chain(guards.iter().map(|(array, _)| array.clone()))),
        list(new_names.chain(guards.iter().map(|(_, name)| quoted(name)))),
    );
    let guard = guard(table, true, true);
    let set = list(
        columns
            .iter()
            .map(|(_, column)| format!("{} = {}", quoted(column.name()), value(column))),
    );
    match operation {
        Operation::Remove if columns.is_empty() => {
            format!("DELETE FROM {name} AS t USING {source} WHERE {guard} RETURNING g.ordinality")
        }
        Operation::UpdateIfChanged => {
            let differs = differs(
                columns
                    .iter()
                    .filter(|(_, column)| column.role() == ColumnRole::Data)
                    .map(|(_, column)| (*column, value(column))),
            );
            format!(
                "UPDATE {name} AS t SET {set} FROM {source} WHERE {guard} AND {differs} \
                 RETURNING g.ordinality"
            )
        }
        _ => format!(
            "UPDATE {name} AS t SET {set} FROM {source} WHERE {guard} RETURNING g.ordinality"
        ),
    }
}

/// Whether any of these columns differs from its new value.
fn differs<'c>(columns: impl Iterator<Item = (&'c Column, String)>) -> String {
    let conditions: Vec<String> = columns
        .map(|(column, value)| format!("t.{} IS DISTINCT FROM {value}", quoted(column.name())))
        .collect();
    if conditions.is_empty() {
        "false".to_owned()
    } else {
        format!("({})", conditions.join(" OR "))
    }
}

fn placeholders(first: usize, count: usize) -> String {
    list((first..first + count).map(|index| format!("${index}")))
}

// The guard: which row a write may change. Its values are the key, the expected version where it
// counts, and the tenant where the table has one.

fn version_column(table: &Table) -> &str {
    table
        .column_with(ColumnRole::Version)
        .map_or("version", Column::name)
}

fn key_column(table: &Table) -> Option<&Column> {
    table.key_columns().next()
}

fn guard_length(table: &Table) -> usize {
    2 + usize::from(table.is_tenant())
}

/// The guard of one row, with its values as `g`'s columns or as parameters.
fn guard(table: &Table, versioned: bool, from_arrays: bool) -> String {
    debug_assert!(from_arrays);
    let names: Vec<String> = guard_arrays(table, 1, versioned)
        .into_iter()
        .map(|(_, name)| format!("g.{}", quoted(&name)))
        .collect();
    guard_with(table, versioned, |offset| names[offset].clone())
}

fn guard_with(table: &Table, versioned: bool, value: impl Fn(usize) -> String) -> String {
    let mut offset = 0;
    let mut next = || {
        offset += 1;
        value(offset - 1)
    };
    let key = key_column(table).map_or_else(String::new, |column| quoted(column.name()));
    let mut guard = format!("t.{key} = {}", next());
    if versioned {
        guard.push_str(&format!(
            " AND t.{} = {}",
            quoted(version_column(table)),
            next()
        ));
    }
    if let Some(tenant) = table.column_with(ColumnRole::Tenant) {
        guard.push_str(&format!(" AND t.{} = {}", quoted(tenant.name()), next()));
    }
    if let Some(deleted) = table.column_with(ColumnRole::DeletedAt) {
        guard.push_str(&format!(" AND t.{} IS NULL", quoted(deleted.name())));
    }
    guard
}

/// The arrays of guards from parameter `first` on, with their names.
fn guard_arrays(table: &Table, first: usize, versioned: bool) -> Vec<(String, String)> {
    let key = key_column(table).map_or("text[]", |column| bind::array_type(column.column_type()));
    let mut columns = vec![(key, "guard_key")];
    if versioned {
        columns.push(("int8[]", "guard_version"));
    }
    if table.is_tenant() {
        columns.push(("text[]", "guard_tenant"));
    }
    columns
        .into_iter()
        .enumerate()
        .map(|(index, (array, name))| (format!("${}::{array}", first + index), name.to_owned()))
        .collect()
}

fn guards_unnested(table: &Table, first: usize, versioned: bool) -> String {
    let guards = guard_arrays(table, first, versioned);
    format!(
        "unnest({}) WITH ORDINALITY AS g({}, ordinality)",
        list(guards.iter().map(|(array, _)| array)),
        list(guards.iter().map(|(_, name)| quoted(name))),
    )
}

fn bind_guard(arguments: &mut PgArguments, write: &StagedWrite) -> Result<()> {
    let table = write.table;
    let key_type =
        key_column(table).map_or(cqrs_core::mapping::ColumnType::Text, Column::column_type);
    bind::add(arguments, key_type, &write.key)?;
    bind::bind(arguments, expected(write))?;
    if table.is_tenant() {
        bind::bind(arguments, tenant(write))?;
    }
    Ok(())
}

fn bind_guards(arguments: &mut PgArguments, writes: &[&StagedWrite]) -> Result<()> {
    bind_guard_arrays(arguments, writes, true)
}

fn bind_guard_arrays(
    arguments: &mut PgArguments,
    writes: &[&StagedWrite],
    versioned: bool,
) -> Result<()> {
    let table = writes[0].table;
    let key_type =
        key_column(table).map_or(cqrs_core::mapping::ColumnType::Text, Column::column_type);
    let keys: Vec<&Value> = writes.iter().map(|write| &write.key).collect();
    bind::add_column(arguments, key_type, keys.into_iter())?;
    if versioned {
        bind::bind(
            arguments,
            writes
                .iter()
                .map(|write| expected(write))
                .collect::<Vec<_>>(),
        )?;
    }
    if table.is_tenant() {
        bind::bind(
            arguments,
            writes.iter().map(|write| tenant(write)).collect::<Vec<_>>(),
        )?;
    }
    Ok(())
}

fn expected(write: &StagedWrite) -> i64 {
    i64::try_from(write.expected_version).unwrap_or(i64::MAX)
}

fn tenant(write: &StagedWrite) -> Option<&str> {
    write.tenant.as_ref().map(cqrs_core::TenantId::as_str)
}
